"""COCO: one JSON with polygons or run lengths for all images, which lie beside it, under it, or in `images/`.

A pixel belongs to a polygon if its centre lies inside by the even-odd rule, a centre on an edge counting for one side
only, so that polygons that share an edge share no pixel. (pycocotools draws on a five-fold grid and rounds, and so
differs by a pixel along the outline.) Several polygons of one object are united. Coordinates are x, y in pixels, whole
numbers being pixel edges.

Label images cannot hold one pixel twice, so pixels that two objects claim become `ignore`, as do crowd regions
(`iscrowd`) outside of objects; an object that has no pixel of its own left is dropped from its sample. `overlap_share`
says how much that is. Categories become class 1, 2, … in the order of their ids.

Run lengths count zeros and ones in turn down the columns; compressed, each number is the difference to the one two
before it, in groups of five bits from the lowest, each group plus 48 as a character, bit 32 telling that more follow.

Source: Lin et al. 2014 and https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt16

from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.images import atomic, image_suffix, read_image, write_image
from attractor.instances import decode_mask, relabel

FARTHEST = 1e7  # coordinates beyond this are mistakes


@dataclass(frozen=True)
class _Annotation:
    """One object's outline as the file has it."""

    number: Any  # its id
    class_number: int
    is_crowd: bool
    polygons: tuple[Float[np.ndarray, "n 2"], ...]  # points as x, y; none if there are runs
    runs: Int[np.ndarray, " r"] | str | None  # uncompressed or compressed
    size: tuple[int, int] | None  # rows and columns that the runs fill


@dataclass(frozen=True)
class _Picture:
    """One image and what is drawn on it."""

    file: Path
    size: tuple[int, int] | None  # rows and columns, where the file says so
    annotations: list[_Annotation]


class Coco:
    """Images annotated in COCO's JSON."""

    layout = "a COCO JSON, or a folder that holds annotations.json (or exactly one JSON) and the images"

    def __init__(self, path: str | Path, *, images: str | Path | None = None) -> None:
        """Read the JSON once; masks are drawn when a sample is asked for.

        Args:
            path: the JSON file, or the folder that holds it.
            images: the folder that file names start from, where that is not the JSON's.

        Raises:
            InputError: if the JSON cannot be read or anything in it cannot be used; the first three are named.
        """
        problems = self._open(Path(path), None if images is None else Path(images))
        if problems:
            more = f"\nand {len(problems) - 3} more like these" if len(problems) > 3 else ""
            raise InputError("\n".join(problems[:3]) + more)
        if not self.names:
            raise InputError(f"{self._file}: names no image; `images` must have one entry for each.")

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[Coco, list[str]]:
        """The data set without what cannot be used, and what that is."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path), None)

    @staticmethod
    def recognises(path: str | Path) -> bool:
        """Whether the path is a JSON file or a folder that holds one."""
        path = Path(path)
        return path.suffix.lower() == ".json" if path.is_file() else len(_json_files(path)) == 1

    def _open(self, path: Path, images: Path | None) -> list[str]:
        """Index the JSON; what is wrong with it is returned, and left out."""
        self._file = _json_file(path)
        document, problems = _read_json(self._file), _Problems(self._file)
        self.class_names, class_numbers = _read_categories(document, problems)
        pictures = _read_images(document, images or self._file.parent, problems)
        for entry in _entries(document, "annotations", problems):
            _place(entry, pictures, class_numbers, problems)
        self._pictures = [picture for picture in pictures.values() if picture is not None]
        self.names = _names([picture.file for picture in self._pictures], images or self._file.parent)
        if len(set(self.names)) < len(self.names):
            problems.add("images", "two images have the same name but for folder or suffix; rename one")
        self.columns: dict[str, dict[str, str]] = {}
        return problems.sentences

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and draw its objects.

        Raises:
            InputError: if the image cannot be read, has another size than its entry says, or runs do not fill it.
        """
        picture = self._pictures[index]
        image = read_image(picture.file)
        shape = image.shape[0], image.shape[1]
        if picture.size not in (None, shape):
            raise InputError(
                f"{picture.file}: has {shape[0]} x {shape[1]} pixels, but {self._file.name} says "
                f"{picture.size[0]} x {picture.size[1]}; the annotations belong to another version of the image."
            )
        drawn, claims, crowd = self._draw(picture, shape)
        drawn[claims > 1] = 0
        labels, ids = relabel(drawn)
        objects = [annotation for annotation in picture.annotations if not annotation.is_crowd]
        classes = np.array([objects[number - 1].class_number for number in ids], np.int32)
        return Sample(self.names[index], image, labels, classes, (claims > 1) | (crowd & (labels == 0)))

    def overlap_share(self, index: int) -> float:
        """Part of an image's object pixels that several objects claim, 0 to 1."""
        picture = self._pictures[index]
        shape = picture.size or read_image(picture.file).shape[:2]
        _, claims, _ = self._draw(picture, (shape[0], shape[1]))
        return float((claims > 1).sum() / max((claims > 0).sum(), 1))

    def object_count(self, index: int) -> int:
        """Objects that an image's annotations name, whether or not they keep a pixel; crowds are none."""
        return sum(not annotation.is_crowd for annotation in self._pictures[index].annotations)

    def _draw(
        self, picture: _Picture, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """The last object that claims each pixel, the number of objects that do, and crowd regions."""
        drawn, claims = np.zeros(shape, np.int32), np.zeros(shape, np.uint16)
        crowd, number = np.zeros(shape, bool), 0
        for annotation in picture.annotations:
            number += not annotation.is_crowd
            try:
                parts = list(_masks(annotation, shape))
            except InputError as error:
                raise InputError(f"{self._file}: annotation {annotation.number}: {error}") from error
            mask, place = parts[0] if len(parts) == 1 else (_united(parts, shape), (slice(None), slice(None)))
            if annotation.is_crowd:
                crowd[place] |= mask
            else:
                drawn[place][mask] = number
                claims[place] += mask
        return drawn, claims, crowd


def write_coco(path: str | Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Write samples to a folder, or beside a path that ends in .json: images, and their objects as compressed runs.

    Ignored pixels become one crowd region an image, of the first class.

    Raises:
        InputError: if a file cannot be written, or two samples have one name.
    """
    path = Path(path)
    file = path if path.suffix.lower() == ".json" else path / "annotations.json"
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{file.parent}: cannot be made: {error.strerror}.") from error
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names, 1)],
    }
    written: set[str] = set()
    for number, sample in enumerate(samples, 1):
        if sample.name in written:
            raise InputError(
                f"{file}: two images are named {sample.name!r}; rename one, as the second would replace the first."
            )
        written.add(sample.name)
        image = file.parent / (sample.name + image_suffix(sample.image))
        write_image(image, sample.image)
        height, width = sample.labels.shape
        document["images"].append({"id": number, "file_name": image.name, "width": width, "height": height})
        for entry in _entries_of(sample):
            document["annotations"].append({"id": len(document["annotations"]) + 1, "image_id": number, **entry})
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")


# --- reading the JSON -------------------------------------------------------------------------------------------------


class _Problems:
    """What is wrong with a file, in sentences that begin with its name."""

    def __init__(self, file: Path) -> None:
        self.file, self.sentences = file, list[str]()

    def add(self, what: str, wrong: str) -> None:
        """Note that `what` is wrong."""
        self.sentences.append(f"{self.file}: {what}: {wrong}.")


def _json_files(folder: Path) -> list[Path]:
    """annotations.json of a folder, else every JSON directly in it."""
    if (folder / "annotations.json").is_file():
        return [folder / "annotations.json"]
    return sorted(file for file in folder.glob("*.json") if not file.name.startswith(".")) if folder.is_dir() else []


def _json_file(path: Path) -> Path:
    """The JSON at a path."""
    if not path.exists():
        raise InputError(f"{path}: no such file; give {Coco.layout}.")
    if path.is_file():
        return path
    files = _json_files(path)
    if len(files) != 1:
        raise InputError(f"{path}: holds {len(files)} JSON files; give the one to read, or name it annotations.json.")
    return files[0]


def _read_json(file: Path) -> dict[str, Any]:
    """The document, which must be an object with images, annotations and categories."""
    try:
        document = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}: is cut short or not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "export it again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON; give {Coco.layout}.") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from error
    lacking = [
        key for key in ("images", "annotations", "categories") if not isinstance(document, dict) or key not in document
    ]
    if lacking:
        raise InputError(f"{file}: is not in COCO's form: {', '.join(lacking)} missing; export it as COCO instances.")
    return document


def _entries(document: dict[str, Any], key: str, problems: _Problems) -> Iterator[dict[str, Any]]:
    """The objects in one of the document's lists."""
    entries = document[key]
    if not isinstance(entries, list):
        problems.add(key, "must be a list")
        return
    for position, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield entry
        else:
            problems.add(f"{key}[{position}]", "must be an object with an id")


def _read_categories(document: dict[str, Any], problems: _Problems) -> tuple[tuple[str, ...], dict[int, int]]:
    """Names of the classes, and each category id's class number."""
    names: dict[int, str] = {}
    for entry in _entries(document, "categories", problems):
        number = entry.get("id")
        if not isinstance(number, int):
            problems.add("categories", f"the id {number!r} is not a whole number")
        elif number in names:
            problems.add("categories", f"the id {number} is there twice")
        else:
            names[number] = str(entry.get("name", number))
    if not names:
        problems.add("categories", "there is none; each annotation needs one")
    return tuple(names[number] for number in sorted(names)), {number: k for k, number in enumerate(sorted(names), 1)}


def _read_images(document: dict[str, Any], folder: Path, problems: _Problems) -> dict[Any, _Picture | None]:
    """The images by id; None for those that cannot be used."""
    pictures: dict[Any, _Picture | None] = {}
    for entry in _entries(document, "images", problems):
        number, name = entry.get("id"), entry.get("file_name")
        if not isinstance(number, int | str) or number in pictures:
            problems.add(
                f"image {number!r}", "its id is there twice" if isinstance(number, int | str) else "it has no id"
            )
            continue
        pictures[number] = None  # until its file is found; the annotations are not to blame
        if not isinstance(name, str) or not name:
            problems.add(f"image {number}", "it has no file_name")
        elif _leaves_folder(name):
            problems.add(f"image {number}", f"its file_name {name!r} leads out of the data set's folder")
        elif (file := _find(name, folder)) is None:
            problems.add(f"image {number}", f"its file {name} is not in {folder}, nor in {folder / 'images'}")
        else:
            height, width = entry.get("height"), entry.get("width")
            size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
            pictures[number] = _Picture(file, size, [])
    return pictures


def _leaves_folder(name: str) -> bool:
    """Whether a file name points outside of the folder that it starts from, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(re.match("[A-Za-z]:", name)) or "\0" in name


def _find(name: str, folder: Path) -> Path | None:
    """The file of that name below the folder or its images/."""
    for start in (folder, folder / "images"):
        if (file := start / name.replace("\\", "/")).is_file():
            return file
    return None


def _names(files: list[Path], folder: Path) -> tuple[str, ...]:
    """Stems; where images in subfolders share them, the folders' names with them."""
    stems = tuple(file.stem for file in files)
    if len(set(stems)) == len(stems):
        return stems
    return tuple("_".join(file.relative_to(folder).with_suffix("").parts) for file in files)


def _place(
    entry: dict[str, Any], pictures: dict[Any, _Picture | None], class_numbers: dict[int, int], problems: _Problems
) -> None:
    """Add one annotation to its picture, or say why that cannot be."""
    number, image, category = (entry.get(key) for key in ("id", "image_id", "category_id"))
    what = f"annotation {number}"
    if not isinstance(image, int | str) or image not in pictures:
        problems.add(what, f"its image_id {image!r} does not exist")
    elif not isinstance(category, int) or category not in class_numbers:
        problems.add(what, f"its category_id {category!r} does not exist")
    else:
        picture = pictures[image]
        try:
            polygons, runs, size = _read_outline(entry.get("segmentation"), picture.size if picture else None)
        except InputError as error:
            problems.add(what, str(error))
            return
        crowd = bool(entry.get("iscrowd", 0))
        if picture is not None:
            picture.annotations.append(_Annotation(number, class_numbers[category], crowd, polygons, runs, size))


def _read_outline(
    outline: Any, size: tuple[int, int] | None
) -> tuple[tuple[Float[np.ndarray, "n 2"], ...], Int[np.ndarray, " r"] | str | None, tuple[int, int] | None]:
    """Polygons, or runs and the size they fill."""
    if isinstance(outline, list) and outline:
        return tuple(_read_polygon(polygon) for polygon in outline), None, None
    if not isinstance(outline, dict):
        raise InputError("it has no outline (segmentation); boxes alone do not say which pixels belong to an object")
    own = outline.get("size")
    if not isinstance(own, list) or len(own) != 2 or not all(isinstance(side, int) and side > 0 for side in own):
        raise InputError(f"its runs have the size {own!r} where [rows, columns] should be")
    if size is not None and tuple(own) != size:
        raise InputError(f"its runs fill {own[0]} x {own[1]} pixels, but its image has {size[0]} x {size[1]}")
    counts = outline.get("counts")
    if isinstance(counts, str):
        if not counts.isascii() or not re.fullmatch("[0-o]*", counts):
            raise InputError("its runs hold characters that no COCO run has")
        return (), counts, (own[0], own[1])
    if not isinstance(counts, list) or not all(isinstance(count, int) and 0 <= count <= 2**40 for count in counts):
        raise InputError("its runs (counts) are neither a string nor a list of whole numbers")
    return (), np.array(counts, np.int64), (own[0], own[1])


def _read_polygon(polygon: Any) -> Float[np.ndarray, "n 2"]:
    """The points of one polygon."""
    if not isinstance(polygon, list) or len(polygon) < 6:
        raise InputError("it has a polygon with fewer than three points")
    if len(polygon) % 2:
        raise InputError("it has a polygon with an odd number of coordinates")
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)
    except (TypeError, ValueError) as error:
        raise InputError("it has a polygon with coordinates that are no numbers") from error
    if not (np.abs(points) < FARTHEST).all():
        raise InputError("it has a polygon with coordinates that are no numbers or far outside of any image")
    return points


# --- masks ------------------------------------------------------------------------------------------------------------


def _masks(
    annotation: _Annotation, shape: tuple[int, int]
) -> Iterator[tuple[Bool[np.ndarray, "r c"], tuple[slice, slice]]]:
    """Each part of an object as a mask of a few rows and columns, and where in the image these are."""
    for points in annotation.polygons:
        yield fill_polygon(points, shape)
    if annotation.runs is not None:
        runs = expand_runs(annotation.runs) if isinstance(annotation.runs, str) else annotation.runs
        if annotation.size != shape:
            size = "{} x {}".format(*annotation.size or (0, 0))
            raise InputError(f"its runs fill {size} pixels, but its image has {shape[0]} x {shape[1]}.")
        yield _decode_columns(runs, shape)


def _united(
    parts: list[tuple[Bool[np.ndarray, "_ _"], tuple[slice, slice]]], shape: tuple[int, int]
) -> Bool[np.ndarray, "h w"]:
    """All parts in one mask of the image's size."""
    whole = np.zeros(shape, bool)
    for mask, place in parts:
        whole[place] |= mask
    return whole


def fill_polygon(
    points: Float[np.ndarray, "n 2"], shape: tuple[int, int]
) -> tuple[Bool[np.ndarray, "r c"], tuple[slice, slice]]:
    """The pixels whose centre is inside a polygon of x, y points by the even-odd rule, and the box that they lie in.

    In each row of pixel centres, an edge that crosses it flips all pixels from there on to the right.
    """
    height, width = shape
    x, y = points[:, 0] - 0.5, points[:, 1] - 0.5  # now whole numbers are pixel centres
    top, bottom = (int(np.clip(np.ceil(value), 0, height)) for value in (y.min(), y.max()))
    left, right = (int(np.clip(np.ceil(value), 0, width)) for value in (x.min(), x.max()))
    place = slice(top, bottom), slice(left, right)
    flips = np.zeros((bottom - top, right - left + 1), np.int32)
    start, end = np.arange(len(x)), np.roll(np.arange(len(x)), -1)
    upper, lower = np.where(y <= y[end], (start, end), (end, start))  # both neighbours along an edge round alike
    low, high = y[upper], y[lower]
    first = np.clip(np.ceil(low), top, bottom).astype(int)  # rows with low <= row < high: a corner counts once
    n_rows = np.clip(np.ceil(high), top, bottom).astype(int) - first
    edge = np.repeat(np.arange(len(x)), n_rows)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(n_rows) - n_rows, n_rows) + first[edge]
    slope = (x[lower] - x[upper])[edge] / (high - low)[edge]
    crossing = x[upper][edge] + (row - low[edge]) * slope
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    np.add.at(flips, (row - top, column - left), 1)
    return (np.cumsum(flips[:, :-1], axis=1) % 2).astype(bool), place


def _decode_columns(
    runs: Int[np.ndarray, " r"], shape: tuple[int, int]
) -> tuple[Bool[np.ndarray, "h c"], tuple[slice, slice]]:
    """The columns that a mask needs: an object is small, the image is not."""
    height, width = shape
    if (runs < 0).any() or runs.sum() != height * width:
        raise InputError(f"its runs cover {runs.sum()} pixels, but its image has {height} x {width}.")
    if len(runs) < 2:
        return np.zeros((height, 0), bool), (slice(0, height), slice(0, 0))
    bounds = np.cumsum(runs)
    n_ones = len(runs) // 2  # runs 1, 3, … are the object's
    start, end = int(runs[0]), int(bounds[2 * n_ones - 1])
    left, right = min(start // height, width), -(-end // height)
    left = min(left, right)
    within = runs[: 2 * n_ones].copy()
    within[0] -= left * height
    mask = decode_mask(np.append(within, right * height - end), (height, right - left))
    return mask, (slice(0, height), slice(left, right))


def expand_runs(text: str) -> Int[np.ndarray, " r"]:
    """The run lengths in COCO's compressed string.

    Raises:
        InputError: if the string ends within a number.
    """
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(groups):
        return np.zeros(0, np.int64)
    if groups[-1] & 32:
        raise InputError("its runs are cut short.")
    ends = np.flatnonzero((groups & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)  # of each group in its number
    if place.max() > 9:
        raise InputError("its runs hold a number that no image needs.")
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    is_negative = (groups[ends] & 16) > 0
    numbers -= is_negative.astype(np.int64) << (5 * (place[ends] + 1))
    for parity in (1, 2):  # from the fourth number on, each is the difference to the one two before
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    return numbers


def compress_runs(runs: Int[np.ndarray, " r"]) -> str:
    """COCO's compressed string of run lengths."""
    numbers = runs.astype(np.int64).tolist()
    characters: list[int] = []
    for k, number in enumerate(numbers):
        rest = number - numbers[k - 2] if k > 2 else number
        more = True
        while more:  # ends: `rest` shrinks to 0 or -1
            group, rest = rest & 31, rest >> 5
            more = rest != (-1 if group & 16 else 0)
            characters.append(group + 32 * more + 48)
    return bytes(characters).decode("ascii")


def _entries_of(sample: Sample) -> Iterator[dict[str, Any]]:
    """The annotations of one sample: each object's runs, and what is ignored as a crowd."""
    size = [int(side) for side in sample.labels.shape]
    masks = [
        (int(number), 0, runs)
        for number, runs in zip(sample.classes, _runs_of(sample.labels, len(sample.classes)), strict=True)
    ]
    masks += [(1, 1, runs) for runs in _runs_of(sample.ignore.astype(np.int32), 1) if sample.ignore.any()]
    for class_number, is_crowd, runs in masks:
        mask, (rows, columns) = _decode_columns(runs, (size[0], size[1]))
        used = np.flatnonzero(mask.any(axis=1))
        top, height = (int(used[0]), int(used[-1] - used[0] + 1)) if len(used) else (0, 0)
        yield {
            "category_id": class_number,
            "segmentation": {"size": size, "counts": compress_runs(runs)},
            "area": int(mask.sum()),
            "bbox": [columns.start, rows.start + top, columns.stop - columns.start, height],
            "iscrowd": is_crowd,
        }


def _runs_of(labels: Int32[np.ndarray, "h w"], n: int) -> list[Int[np.ndarray, " r"]]:
    """The run lengths of labels 1 to n, in one pass over the image."""
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    ends = np.append(starts[1:], flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")  # runs of each label together, in the image's order
    bounds = np.searchsorted(owner[order], np.arange(1, n + 2))
    found = []
    for first, last in pairwise(bounds):
        own = order[first:last]
        edges = np.stack([starts[own], ends[own]], 1).ravel()
        found.append(np.diff(np.concatenate([[0], edges, [flat.size]])))  # a last run of 0 zeros is allowed
    return found
