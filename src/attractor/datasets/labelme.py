"""Labelme: one JSON for each image, with the shapes that were drawn on it.

`NAME.json` lies beside its image or in `annotations/`. Polygons, rectangles, circles and masks are objects; shapes of
one label and one `group_id` are one object, as in Labelme's own conversions, and each shape without one is an object of
its own. A line or point has no pixels inside and is named as a problem. Labels are the classes, in alphabetical
order; `__ignore__` marks what is neither object nor background.

A pixel belongs to a shape if its centre lies inside, coordinates being x, y with whole numbers at pixel edges. (Labelme
itself draws with Pillow, which also takes the pixels under the outline.)

The image is the file that `imagePath` names, with slashes of either kind, if it lies in the data set's folder; else a
file of that name beside the JSON, in the folder or in its `images/`; else what the JSON itself holds (`imageData`).

Source: https://github.com/wkentaro/labelme, label_file.py and utils/shape.py.
"""

from __future__ import annotations

import base64
import io
import json
import math
import re
import reprlib
import struct
import tempfile
import zlib
from collections.abc import Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Shaped
from PIL import Image

from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.names import as_class_name, check_class_names
from attractor.datasets.outlined import (
    Outline,
    OutlinedImages,
    Picture,
    Problems,
    objects_of,
    read_json,
    visible,
    write_outlined,
)
from attractor.datasets.polygons import Box, Ellipse, Part, Polygon, Ring, as_coordinates, as_ring, fill, rings
from attractor.datasets.sample import Dataset, Sample, whole
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, OUTPUT_ENDINGS, read_image
from attractor.instances import Instances

IGNORED = "__ignore__"
VERSION = "5.5.0"  # of Labelme, whose form is written
SNIFFED = 4096  # bytes of a JSON that tell whether it is Labelme's
N_SNIFFED = 10  # JSON files that are looked at
_KEYS = re.compile(rb'"(shapes|imageData|imagePath)"\s*:')
_DECODER_ERRORS = (
    OSError, RuntimeError, ValueError, TypeError, SyntaxError, ArithmeticError, LookupError, EOFError, MemoryError,
    struct.error, zlib.error, Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip
_PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class _Mask:
    """A shape that is a PNG, and where its upper left pixel lies."""

    png: bytes
    row: int
    column: int
    height: int
    width: int

    def draw(self, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
        """Its pixels, and the box in the image that they lie in."""
        if self.height > shape[0] + 1 or self.width > shape[1] + 1:  # one more is possible, as corners are rounded
            raise InputError(f"its mask has {self.height} x {self.width} pixels, more than the image")
        top, bottom = np.clip([self.row, self.row + self.height], 0, shape[0]).tolist()
        left, right = np.clip([self.column, self.column + self.width], 0, shape[1]).tolist()
        mask = self._decode()[top - self.row : bottom - self.row, left - self.column : right - self.column]
        return mask, (slice(top, bottom), slice(left, right))

    def _decode(self) -> Bool[np.ndarray, "r c"]:
        """All of its pixels."""
        try:
            with Image.open(io.BytesIO(self.png), formats=("PNG",)) as image:
                if image.size != (self.width, self.height):
                    raise InputError("its mask gives its size twice; draw it again")
                mask = np.asarray(image) != 0
        except InputError:
            raise
        except _DECODER_ERRORS as error:
            raise InputError("its mask is damaged or cut short; draw it again") from error
        if mask.ndim != 2:
            raise InputError(f"its mask has {mask.shape[2]} channels; it must have one")
        return mask


class Labelme(OutlinedImages):
    """A folder of images with a JSON of Labelme for each."""

    layout = "a folder with images and, beside each or in annotations/, its NAME.json (Labelme)"
    ignored_class = IGNORED
    holds: ClassVar[Holds] = Holds(ignore=True, overlaps=True)

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder with a JSON that begins like Labelme's; so must any annotations.json in it."""
        files = _json_files(Path(path))
        if any(file.name == "annotations.json" and not _begins_like_ours(file) for file in files):
            return Evidence.NONE
        is_such = any(_begins_like_ours(file) for file in files[:N_SNIFFED])
        return Evidence.CONTENT if is_such else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_labelme` does."""
        write_labelme(folder, samples, described.class_names)

    def _find(self, folder: Path, problems: Problems) -> list[Picture]:
        """The images that have a JSON that can be read, and those that a JSON holds."""
        found: dict[str, Picture] = {}
        used, unread, lonely = set[Path](), set[str](), list[Path]()
        for file in _json_files(folder):
            try:
                document, shapes = _read_document(file)
            except InputError as error:
                problems.sentences.append(str(error))
                unread.add(file.stem)  # the image is not to blame
                continue
            image = _image_file(document.get("imagePath"), file, folder)
            if image is None and not isinstance(document.get("imageData"), str):
                lonely.append(file)
                continue
            used.add((image or file).resolve())
            picture = Picture(
                (image or file).stem,
                image or file,
                file,
                _read_shapes(file, shapes, problems),
                _size(file, document, problems),
            )
            if (other := found.setdefault(picture.name, picture)) is not picture:
                problems.add(file, "name", f"{other.file.name} is of an image of the same name; remove or rename one")
        problems.add_alone(
            folder, lonely, "JSON", "no image: imagePath names no file in the folder, and imageData is empty."
        )
        images = [image for place in (folder, folder / "images") for image in _images(place)]
        alone = [image for image in images if image.resolve() not in used and image.stem not in unread]
        problems.add_alone(folder, alone, "image", "no JSON. Save one in Labelme, even without shapes, or move it.")
        return list(found.values())

    def _image(self, picture: Picture) -> Shaped[np.ndarray, "h w c"]:
        """The pixels of one image."""
        return read_image(picture.image) if picture.image != picture.file else _embedded(picture.file)


def write_labelme(folder: str | Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Write samples as images and, beside each, NAME.json; what is ignored has the label `__ignore__`.

    Raises:
        InputError: if a file cannot be written, two samples have the same name, or a class has none.
    """
    check_class_names(class_names, folder, reserved=(IGNORED,))

    def encode(sample: Sample, image_name: str) -> bytes:
        shape = sample.labels.shape[0], sample.labels.shape[1]
        objects, ignored = whole(sample)
        shapes = list(_shapes(objects, class_names))
        if parts := rings(ignored):
            shapes += _shapes_of(IGNORED, parts, len(sample.classes) + 1)
        return _document(shapes, image_name, shape)

    write_outlined(folder, samples, ".json", encode)


# --- files ------------------------------------------------------------------------------------------------------------


def _json_files(folder: Path) -> list[Path]:
    """Every JSON directly in a folder or in its annotations/."""
    places = [place for place in (folder, folder / "annotations") if place.is_dir()]
    return [file for place in places for file in visible(place) if file.suffix.lower() == ".json"]


def _begins_like_ours(file: Path) -> bool:
    """Whether one of Labelme's keys stands near the beginning of a file; other JSON can be large."""
    try:
        with file.open("rb") as start:
            return _KEYS.search(start.read(SNIFFED)) is not None
    except OSError:
        return False


def _images(folder: Path) -> list[Path]:
    """The images directly in a folder, but for those that `segment` wrote."""
    files = visible(folder) if folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.endswith(OUTPUT_ENDINGS)]


def _read_document(file: Path) -> tuple[dict[str, object], list[object]]:
    """What a JSON holds, and its list of shapes, which it must have."""
    document = read_json(file)
    shapes = document.get("shapes") if isinstance(document, dict) else None
    if not isinstance(document, dict) or not isinstance(shapes, list):
        raise InputError(
            f"{file}: is not in Labelme's form: it must be an object with a list `shapes`; move it elsewhere."
        )
    return document, shapes


def _image_file(name: object, file: Path, folder: Path) -> Path | None:
    """The image that a JSON names, if it lies in the data set's folder."""
    if not isinstance(name, str) or not name or "\0" in name:
        return None
    name = name.replace("\\", "/")
    places = [file.parent / name] if name[0] != "/" and name[1:2] != ":" else []
    places += [place / name.rpartition("/")[2] for place in (file.parent, folder, folder / "images")]
    for place in places:
        try:
            if place.is_file() and place.resolve().is_relative_to(folder.resolve()):
                return place
        except OSError:  # a name that is too long
            return None
    return None


def _size(file: Path, document: dict[str, object], problems: Problems) -> tuple[int, int] | None:
    """Rows and columns of the image, where the JSON says so."""
    height, width = document.get("imageHeight"), document.get("imageWidth")
    if type(height) is int and type(width) is int and min(height, width) > 0:
        return height, width
    if height is not None or width is not None:
        found = f"{reprlib.repr(height)} and {reprlib.repr(width)}"
        problems.add(file, "imageHeight and imageWidth", f"they are {found} where whole numbers above 0 should be")
    return None


def _embedded(file: Path) -> Shaped[np.ndarray, "h w c"]:
    """The image that a JSON holds."""
    document, _ = _read_document(file)
    content = document.get("imageData")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "image"
        try:
            path.write_bytes(base64.b64decode(content if isinstance(content, str) else ""))
            return read_image(path)
        except InputError as error:
            raise InputError(str(error).replace(str(path), f"{file}: imageData")) from error
        except ValueError as error:
            raise InputError(f"{file}: imageData: is damaged ({error}); put the image beside the file.") from error


# --- reading ----------------------------------------------------------------------------------------------------------


def _read_shapes(file: Path, shapes: list[object], problems: Problems) -> list[Outline]:
    """The objects in one file; a shape that cannot be used is noted and left out."""
    groups: dict[Hashable, list[tuple[str, str, Polygon | Ellipse | _Mask]]] = {}
    for position, shape in enumerate(shapes):
        what = f"shapes[{position}]"
        try:
            label, group, part = _read_shape(shape)
        except InputError as error:
            problems.add(file, what, str(error))
            continue
        key = (label, "alone", position) if group is None else (label, "group", group)
        groups.setdefault(key, []).append((what, label, part))
    return [Outline(members[0][0], members[0][1], tuple(part for _, _, part in members)) for members in groups.values()]


def _read_shape(shape: object) -> tuple[str, int | str | None, Polygon | Ellipse | _Mask]:
    """Label, group and part of a shape."""
    if not isinstance(shape, dict):
        raise InputError("it must be an object with a label and points")
    label, group, kind = shape.get("label"), shape.get("group_id"), shape.get("shape_type") or "polygon"
    label = as_class_name(label, "label")
    if not isinstance(group, int | str | None) or isinstance(group, bool):
        raise InputError(f"its group_id is {reprlib.repr(group)} where a whole number should be")
    if kind not in ("polygon", "rectangle", "oriented_rectangle", "rotation", "circle", "mask"):
        raise InputError(f"it is a {reprlib.repr(kind)}, which has no pixels inside; remove it, or outline the object")
    points = as_coordinates(shape.get("points"))
    if kind in ("circle", "mask") or (kind == "rectangle" and len(points) < 3):
        if len(points) != 2:
            raise InputError(f"it is a {kind} of {len(points)} points; it must have two")
        return label, group, _of_two_points(kind, points, shape.get("mask"))
    return label, group, Polygon((as_ring(points),))


def _of_two_points(kind: str, points: Float[np.ndarray, "2 2"], mask: object) -> Polygon | Ellipse | _Mask:
    """A circle from its centre and a point on it; a rectangle or mask from its corners."""
    (x, y), (other_x, other_y) = points.tolist()
    if kind == "circle":
        radius = math.hypot(other_x - x, other_y - y)
        return Ellipse(x, y, radius, radius)
    if kind == "rectangle":
        return Polygon((np.array([[x, y], [other_x, y], [other_x, other_y], [x, other_y]]),))
    try:
        png = base64.b64decode(mask if isinstance(mask, str) else "")
    except ValueError:
        png = b""
    if not png.startswith(_PNG) or len(png) < 24:
        raise InputError("its mask is no PNG (in base64); draw it again")
    width, height = struct.unpack(">II", png[16:24])
    return _Mask(png, round(y), round(x), height, width)


# --- writing ----------------------------------------------------------------------------------------------------------


def _document(shapes: list[dict[str, object]], image_name: str, shape: tuple[int, int]) -> bytes:
    """The JSON of these shapes."""
    document: dict[str, object] = {
        "version": VERSION,
        "flags": {},
        "shapes": shapes,
        "imagePath": image_name,
        "imageData": None,
        "imageHeight": shape[0],
        "imageWidth": shape[1],
    }
    return json.dumps(document, ensure_ascii=False).encode()


def _shapes(found: Instances, class_names: Sequence[str]) -> Iterator[dict[str, object]]:
    """The shapes of all objects."""
    for label, name, _, parts in objects_of(found, class_names):
        yield from _shapes_of(name, parts, label)


def _shapes_of(name: str, parts: list[Part], group: int) -> Iterator[dict[str, object]]:
    """The shapes of one object."""
    if any(len(part) > 1 for part in parts):
        yield _masked(name, [ring for part in parts for ring in part])
        return
    for (ring,) in parts:
        yield {
            "label": name,
            "points": ring.astype(float).tolist(),
            "group_id": group if len(parts) > 1 else None,
            "description": "",
            "shape_type": "polygon",
            "flags": {},
            "mask": None,
        }


def _masked(name: str, outlines: list[Ring]) -> dict[str, object]:
    """A mask of what rings enclose; its second point is its last pixel."""
    corners = np.concatenate(outlines)
    low, high = corners.min(axis=0), corners.max(axis=0)
    width, height = (high - low).tolist()
    file = io.BytesIO()
    Image.fromarray(fill([ring - low for ring in outlines], (height, width)).astype(np.uint8)).save(file, "PNG")
    return {
        "label": name,
        "points": [low.astype(float).tolist(), (high - 1).astype(float).tolist()],
        "group_id": None,
        "description": "",
        "shape_type": "mask",
        "flags": {},
        "mask": base64.b64encode(file.getvalue()).decode(),
    }
