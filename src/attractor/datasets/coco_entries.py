"""What a COCO JSON says: categories, images and annotations, each looked at before it is used.

What cannot be used is noted as a problem and left out. Nothing is guessed: nobody can tell what was meant
by a size that is text, an `iscrowd` of 2 or two categories of the same name.

Shapes: `n` points, `r` runs.
"""

from __future__ import annotations

import json
import re
import reprlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import TypeGuard

import numpy as np
from jaxtyping import Float

from attractor.datasets.coco_masks import Outline
from attractor.datasets.polygons import FARTHEST
from attractor.errors import InputError
from attractor.images import read_image
from attractor.images.damage import MOST_PIXELS

_KEYS = ("images", "annotations", "categories")
_SNIFFED = 4096  # bytes of a JSON that tell whether it is COCO's
_BEGINNING = re.compile(rb'"(images|annotations|categories|licenses|info)"\s*:')
_LARGEST = 1e300  # of the numbers that are accepted; JSON can hold larger ones, which no float can


@dataclass(frozen=True)
class Annotation:
    """One object, or a crowd of them."""

    number: object  # its id
    class_number: int
    is_crowd: bool
    outline: Outline
    area: float | None = None  # in pixels, where the file says so


@dataclass(frozen=True)
class Picture:
    """One image and what is drawn on it."""

    number: int | str  # its id
    file: Path
    size: tuple[int, int] | None  # rows and columns, where the file says so
    annotations: list[Annotation] = field(default_factory=list)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns of the image, from its entry where that gives them, else from its file."""
        if self.size is not None:
            return self.size
        height, width, _ = read_image(self.file).shape
        return height, width


@dataclass(frozen=True)
class Problems:
    """What is wrong with a file, in sentences that begin with its name."""

    file: Path
    sentences: list[str] = field(default_factory=list)

    def add(self, what: str, wrong: str) -> None:
        """Note that `what` is wrong."""
        self.sentences.append(f"{self.file}: {what}: {wrong}.")


@dataclass(frozen=True)
class Document:
    """What can be used of a file, and what is wrong with the rest."""

    class_names: tuple[str, ...]
    category_ids: tuple[int, ...]  # of class 1, 2, …
    pictures: list[Picture]
    problems: list[str]


def begins_like_coco(file: Path) -> bool:
    """Whether one of COCO's keys stands near the beginning of a file."""
    try:
        with file.open("rb") as start:
            return _BEGINNING.search(start.read(_SNIFFED)) is not None
    except OSError:
        return False


def read_document(file: Path, folders: tuple[Path, ...]) -> Document:
    """Read a JSON of images, annotations and categories.

    Args:
        file: the JSON.
        folders: where file names may start from.

    Raises:
        InputError: if it cannot be read, or lacks one of the three.
    """
    content, problems = parsed(file, "a JSON in COCO's form"), Problems(file)
    lacking = [key for key in _KEYS if not isinstance(content, dict) or key not in content]
    if lacking or not isinstance(content, dict):
        raise InputError(f"{file}: is not in COCO's form: {', '.join(lacking)} missing; export it as COCO instances.")
    names = _read_categories(content["categories"], problems)
    pictures = _read_images(content["images"], folders, problems)
    _place_all(content["annotations"], pictures, {number: k for k, number in enumerate(names, 1)}, problems)
    usable = _by_id([picture for picture in pictures.values() if picture is not None])
    return Document(tuple(names.values()), tuple(names), usable, problems.sentences)


def parsed(file: Path, wanted: str) -> object:
    """What a JSON file holds.

    Args:
        file: the JSON.
        wanted: what it should be, for messages.

    Raises:
        InputError: if it cannot be read or is no JSON.
    """
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}: is cut short or not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "export it again."
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, endless nesting
        raise InputError(f"{file}: is not JSON that can be read; give {wanted}.") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from error


def is_id(value: object) -> TypeGuard[int | str]:
    """Whether a value can be an id: a whole number or text, but not a truth value, which Python takes for a number."""
    return is_whole(value) or isinstance(value, str)


def is_whole(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number."""
    return isinstance(value, int) and not isinstance(value, bool)


def as_number(value: object) -> float | None:
    """A value as a number, if it is a finite one."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return None
    return float(value) if abs(value) < _LARGEST else None


def shown(value: object) -> str:
    """A value as a message shows it: its beginning and end, where it is long."""
    try:
        return reprlib.repr(value)
    except ValueError:  # Python writes out no numbers of thousands of digits
        return "a number of thousands of digits"


# --- categories and images --------------------------------------------------------------------------------------------


def _entries(entries: object, key: str, problems: Problems) -> Iterator[dict[str, object]]:
    """The objects in one of the document's lists."""
    if not isinstance(entries, list):
        problems.add(key, "must be a list")
        return
    for position, entry in enumerate(entries):
        if isinstance(entry, dict):
            yield entry
        else:
            problems.add(f"{key}[{position}]", "must be an object with an id")


def _read_categories(entries: object, problems: Problems) -> dict[int, str]:
    """The names of the classes by category id, in the order of the ids."""
    names: dict[int, str] = {}
    for entry in _entries(entries, "categories", problems):
        number, name = entry.get("id"), entry.get("name")
        if not is_whole(number):
            problems.add("categories", f"the id {shown(number)} is not a whole number")
        elif number in names:
            problems.add("categories", f"the id {shown(number)} is there twice")
        elif "name" in entry and (not isinstance(name, str) or not name):
            problems.add("categories", f"the name of {shown(number)} is {shown(name)} where a text should be")
        elif (own := name if isinstance(name, str) else shown(number)) in names.values():
            problems.add(
                "categories", f"two have the name {shown(own)}, and classes are told apart by name; rename one"
            )
        else:
            names[number] = own
    if not names:
        problems.add("categories", "there are none; each annotation needs one")
    return dict(sorted(names.items()))


def _read_images(entries: object, folders: tuple[Path, ...], problems: Problems) -> dict[int | str, Picture | None]:
    """The images by id; None for those that cannot be used."""
    pictures: dict[int | str, Picture | None] = {}
    for entry in _entries(entries, "images", problems):
        number = entry.get("id")
        if not is_id(number) or number in pictures:
            wrong = "its id is there twice" if is_id(number) else "it has no id"
            problems.add(f"image {shown(number)}", wrong)
            continue
        pictures[number] = None  # until its file is found; the annotations are not to blame
        try:
            pictures[number] = Picture(number, _image_file(entry.get("file_name"), folders), _size(entry))
        except InputError as error:
            problems.add(f"image {shown(number)}", str(error))
    return pictures


def _image_file(name: object, folders: tuple[Path, ...]) -> Path:
    """The file of that name below the first of the folders that has one."""
    if not isinstance(name, str) or not name:
        raise InputError("it has no file_name")
    if _leaves_folder(name):
        raise InputError(f"its file_name {shown(name)} leads out of the data set's folder")
    for folder in folders:
        file = folder / name.replace("\\", "/")
        try:
            if file.is_file():
                return file
        except (OSError, ValueError):  # a name that is too long, or that no file system can write
            break
    others = ", ".join(dict.fromkeys(map(str, folders[1:])))
    raise InputError(f"its file {shown(name)} is not in {folders[0]}, nor in {others}")


def _leaves_folder(name: str) -> bool:
    """Whether a file name points outside of the folder that it starts from, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(re.match("[A-Za-z]:", name)) or "\0" in name


def _size(entry: dict[str, object]) -> tuple[int, int] | None:
    """Rows and columns of an image, where its entry gives them."""
    given = entry.get("height"), entry.get("width")
    if given == (None, None):
        return None
    height, width = map(as_number, given)
    is_usable = height is not None and width is not None and 1 <= height * width <= MOST_PIXELS
    if not is_usable or height is None or width is None or height % 1 or width % 1 or height < 1:
        raise InputError(
            f"its height is {shown(given[0])} and its width {shown(given[1])}; both must be whole numbers of pixels, "
            "or missing"
        )
    return int(height), int(width)


def _by_id(pictures: list[Picture]) -> list[Picture]:
    """The images in the order of their ids, as pycocotools takes them: it decides between equal scores."""
    numbers = [picture.number for picture in pictures if not isinstance(picture.number, str)]
    if len(numbers) == len(pictures):
        return sorted(pictures, key=lambda picture: int(picture.number))
    return pictures if numbers else sorted(pictures, key=lambda picture: str(picture.number))


# --- annotations ------------------------------------------------------------------------------------------------------


def _place_all(
    entries: object, pictures: dict[int | str, Picture | None], class_numbers: dict[int, int], problems: Problems
) -> None:
    """Add the annotations to their pictures; a repeated id is a problem, as its results could not be told apart."""
    seen: set[int | str] = set()
    for entry in _entries(entries, "annotations", problems):
        number = entry.get("id")
        what = f"annotation {shown(number)}"
        if is_id(number):
            if number in seen:
                problems.add(what, "its id is there twice; number the annotations anew")
                continue
            seen.add(number)
        try:
            picture, annotation = _read_annotation(entry, pictures, class_numbers)
        except InputError as error:
            problems.add(what, str(error))
            continue
        if picture is not None:
            picture.annotations.append(annotation)


def _read_annotation(
    entry: dict[str, object], pictures: dict[int | str, Picture | None], class_numbers: dict[int, int]
) -> tuple[Picture | None, Annotation]:
    """One annotation, and its picture, if that can be used."""
    image, category, crowd = entry.get("image_id"), entry.get("category_id"), entry.get("iscrowd")
    if not is_id(image) or image not in pictures:
        raise InputError(f"its image_id {shown(image)} does not exist")
    if not is_whole(category) or category not in class_numbers:
        raise InputError(f"its category_id {shown(category)} does not exist")
    area = entry.get("area")
    own_area = as_number(area)
    if area is not None and (own_area is None or own_area < 0):
        raise InputError(f"its area {shown(area)} is no number of pixels")
    if crowd not in (0, 1, None):
        raise InputError(f"its iscrowd is {shown(crowd)}; it is 0 for an object and 1 for a crowd of them")
    picture = pictures[image]
    outline = read_outline(entry.get("segmentation"), picture.size if picture is not None else None)
    return picture, Annotation(entry.get("id"), class_numbers[category], bool(crowd), outline, own_area)


def read_outline(value: object, size: tuple[int, int] | None) -> Outline:
    """The outline that a `segmentation` gives.

    Args:
        value: polygons, or an object of `size` and `counts`.
        size: rows and columns of the image, where they are known.

    Raises:
        InputError: if it is neither; the sentence begins with "it".
    """
    if isinstance(value, list) and value:
        return Outline(tuple(_read_polygon(polygon) for polygon in value))
    if not isinstance(value, dict):
        raise InputError("it has no outline (segmentation); boxes alone do not say which pixels belong to an object")
    own = value.get("size")
    if not isinstance(own, list) or len(own) != 2 or not all(is_whole(side) and side > 0 for side in own):
        raise InputError(f"its runs have the size {shown(own)} where [rows, columns] should be")
    if size is not None and tuple(own) != size:
        raise InputError(
            f"its runs fill {shown(own[0])} x {shown(own[1])} pixels, but its image has {size[0]} x {size[1]}"
        )
    counts = value.get("counts")
    if isinstance(counts, str):
        if not counts.isascii() or not re.fullmatch("[0-o]*", counts):
            raise InputError("its runs hold characters that no COCO run has")
        return Outline(runs=counts, size=(own[0], own[1]))
    if not isinstance(counts, list) or not all(is_whole(count) and 0 <= count <= MOST_PIXELS for count in counts):
        raise InputError("its runs (counts) are neither a string nor a list of whole numbers")
    return Outline(runs=np.array(counts, np.int64), size=(own[0], own[1]))


def _read_polygon(polygon: object) -> Float[np.ndarray, "n 2"]:
    """The points of one polygon."""
    if not isinstance(polygon, list) or len(polygon) < 6:
        raise InputError("it has a polygon with fewer than three points")
    if len(polygon) % 2:
        raise InputError("it has a polygon with an odd number of coordinates")
    if not set(map(type, polygon)) <= {int, float}:
        raise InputError("it has a polygon with coordinates that are no numbers")
    try:
        points = np.array(polygon, np.float64).reshape(-1, 2)
    except OverflowError as error:
        raise InputError("it has a polygon with coordinates that are no numbers of reasonable size") from error
    if not (np.abs(points) < FARTHEST).all():
        raise InputError("it has a polygon with coordinates that are no numbers or far outside of any image")
    return points
