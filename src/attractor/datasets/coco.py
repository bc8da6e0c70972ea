"""COCO: one JSON with polygons or run lengths for all images, and results in its form.

Images lie beside the JSON, in `images/` there or one folder up, or, as COCO is downloaded, in the folder that the JSON
is named after: `annotations/instances_val2017.json` beside `val2017/`. They come in the order of their ids, as
pycocotools takes them (in the order of the file where only some ids are numbers), and categories become class 1, 2, …
in the order of theirs.

In a label image a pixel belongs to a polygon if its centre lies inside by the even-odd rule, a centre on an edge
counting for one side only, so that polygons that share an edge share no pixel. Several polygons of one object are
united. Coordinates are x, y in pixels, whole numbers being pixel edges. Label images cannot hold one pixel twice, so
pixels that two objects claim become `ignore`, as do crowd regions (`iscrowd`) outside of objects; an object that has no
pixel of its own left is dropped from its sample. `overlap_share` says how much that is.

What COCO's scores are counted on, a sample's `annotate`, is another drawing: every annotation whole, also crowds and
those without a pixel in the image, and polygons as pycocotools draws them, on a grid of five by five points a pixel,
which differs by a pixel along the outline.

Run lengths count zeros and ones in turn down the columns; compressed, each number is the difference to the one two
before it, in groups of five bits from the lowest, each group plus 48 as a character, bit 32 telling that more follow.

Source: Lin et al. 2014 and https://cocodataset.org/#format-data.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt16

from attractor.datasets.layout import Evidence, Holds, ResultsForm, results_file
from attractor.datasets.sample import Dataset, Sample, distinct, refuse
from attractor.errors import InputError
from attractor.images import atomic, image_suffix, made, read_image, write_image
from attractor.instances import Annotations, Instances, decode_mask, encode_mask, encode_masks, relabel

FARTHEST = 1e7  # coordinates beyond this are mistakes
MOST_CROSSINGS = 1 << 22  # of one polygon and all rows or columns; an outline of 10 cm at 0.25 um a pixel has 400,000


@dataclass(frozen=True)
class _Annotation:
    """One object's outline as the file has it."""

    number: Any  # its id
    class_number: int
    is_crowd: bool
    polygons: tuple[Float[np.ndarray, "_ 2"], ...]  # points as x, y; none if there are runs
    runs: Int[np.ndarray, " r"] | str | None  # uncompressed or compressed
    size: tuple[int, int] | None  # rows and columns that the runs fill
    area: float | None = None  # in pixels, where the file says so


@dataclass(frozen=True)
class _Picture:
    """One image and what is drawn on it."""

    file: Path
    size: tuple[int, int] | None  # rows and columns, where the file says so
    annotations: list[_Annotation]


class Coco:
    """Images annotated in COCO's JSON."""

    layout: ClassVar[str] = (
        "a COCO JSON, or a folder that holds annotations.json (or exactly one JSON) and the images, or "
        "annotations/instances_*.json"
    )
    holds: ClassVar[Holds] = Holds(ignore=True, overlaps=True, crowds=True)
    results: ClassVar[ResultsForm] = results_file("a results JSON, FILE.json", ".json")

    def __init__(self, path: str | Path, *, images: str | Path | None = None) -> None:
        """Read the JSON once; masks are drawn when a sample is asked for.

        Args:
            path: the JSON file, or the folder that holds it.
            images: the folder that file names start from, where that is not the JSON's.

        Raises:
            InputError: if the JSON cannot be read or anything in it cannot be used; the first three are named.
        """
        refuse(self._open(Path(path), None if images is None else Path(images)))
        if not self.names:
            raise InputError(f"{self._file}: names no image; `images` must have one entry for each.")

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[Coco, list[str]]:
        """The data set without what cannot be used, and what that is."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path), None)

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a JSON file, or a folder that holds one, or COCO's own folder with any number."""
        path = Path(path)
        if path.is_file():
            return Evidence.ANY_FILE if path.suffix.lower() == ".json" else Evidence.NONE
        files = _json_files(path)
        if any(file.name == "annotations.json" or file.parent != path for file in files):
            return Evidence.FILE_NAME
        return Evidence.ANY_FILE if len(files) == 1 else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_coco` does."""
        write_coco(folder, samples, described.class_names)

    def _open(self, path: Path, images: Path | None) -> list[str]:
        """Index the JSON; what is wrong with it is returned, and left out."""
        self._file = _json_file(path)
        document, problems = _read_json(self._file), _Problems(self._file)
        self.class_names, class_numbers = _read_categories(document, problems)
        self.category_ids = tuple(class_numbers)  # of class 1, 2, …
        starts = _image_folders(self._file) if images is None else (images, images / "images")
        pictures = _read_images(document, starts, problems)
        _place_all(document, pictures, class_numbers, problems)
        usable = _by_id({number: picture for number, picture in pictures.items() if picture is not None})
        self.image_ids: tuple[int | str, ...] = tuple(usable)  # by index
        self._pictures = list(usable.values())
        self.names = _names([picture.file for picture in self._pictures], starts[0])
        if len(set(self.names)) < len(self.names):
            problems.add("images", "two images have the same name but for folder or suffix; rename one")
        self.columns: dict[str, dict[str, str]] = {}
        return problems.sentences

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and draw its objects; `annotate` draws them anew, as pycocotools would.

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
        ignore = (claims > 1) | (crowd & (labels == 0))
        annotate = partial(_annotate, picture.annotations, shape, self._file)
        return Sample(self.names[index], image, labels, classes, ignore, annotate)

    def read_results(self, path: Path) -> Iterator[Instances]:
        """What a results file says was found in each image, as `read_coco_results` reads it."""
        return read_coco_results(path, self)

    def write_results(self, path: Path, found: Iterable[tuple[str, Instances]]) -> None:
        """Write what was found as `write_coco_results` does."""
        ids = dict(zip(self.names, self.image_ids, strict=True))
        write_coco_results(path, ((ids[name], one) for name, one in found), self.category_ids)

    def overlap_share(self, index: int) -> float:
        """Part of an image's object pixels that several objects claim, 0 to 1."""
        _, claims, _ = self._draw(self._pictures[index], self.shape(index))
        return float((claims > 1).sum() / max((claims > 0).sum(), 1))

    def object_count(self, index: int) -> int:
        """Objects that an image's annotations name, whether or not they keep a pixel; crowds are none."""
        return sum(not annotation.is_crowd for annotation in self._pictures[index].annotations)

    def shape(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image, from its entry where that says them, else from its file."""
        picture = self._pictures[index]
        if picture.size is not None:
            return picture.size
        height, width, _ = read_image(picture.file).shape
        return height, width

    def _draw(
        self, picture: _Picture, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """The last object that claims each pixel, the number of objects that do, and crowd regions."""
        drawn, claims = np.zeros(shape, np.int32), np.zeros(shape, np.uint16)
        crowd, number = np.zeros(shape, bool), 0
        for annotation in picture.annotations:
            number += not annotation.is_crowd
            with _naming(f"{self._file}: annotation {annotation.number}"):
                parts = list(_masks(annotation, shape))
            mask, place = parts[0] if len(parts) == 1 else (_united(parts, shape), (slice(None), slice(None)))
            if annotation.is_crowd:
                crowd[place] |= mask
            else:
                drawn[place][mask] = number
                claims[place] += mask
        return drawn, claims, crowd


def write_coco(path: str | Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Write samples to a folder, or beside a path that ends in .json: images, and their objects as compressed runs.

    Objects that overlap are whole, and crowds keep their class; other ignored pixels become a crowd of each class.

    Raises:
        InputError: if a file cannot be written, or two samples have one name.
    """
    path = Path(path)
    file = path if path.suffix.lower() == ".json" else path / "annotations.json"
    made(file.parent)
    document: dict[str, list[dict[str, Any]]] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": k, "name": name} for k, name in enumerate(class_names, 1)],
    }
    for number, sample in enumerate(distinct(samples, file), 1):
        image = file.parent / (sample.name + image_suffix(sample.image))
        write_image(image, sample.image)
        height, width = sample.labels.shape
        document["images"].append({"id": number, "file_name": image.name, "width": width, "height": height})
        for entry in _entries_of(sample, len(class_names)):
            document["annotations"].append({"id": len(document["annotations"]) + 1, "image_id": number, **entry})
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")


# --- results ----------------------------------------------------------------------------------------------------------


def write_coco_results(
    path: str | Path, results: Iterable[tuple[int | str, Instances]], category_ids: Sequence[int]
) -> None:
    """Write what was found as COCO's results file, one image after another; whole masks where objects overlap.

    Args:
        path: the JSON to write.
        results: images' ids, as in `Coco.image_ids`, each with what was found there.
        category_ids: of class 1, 2, …, as in `Coco.category_ids`.

    Raises:
        InputError: if an object has a class without an id, or the file cannot be written.
    """
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for image_id, found in results:
            for entry in _result_entries(image_id, found, category_ids):
                file.write(separator + json.dumps(entry))
                separator = ",\n"
        file.write("[]\n" if separator.startswith("[") else "\n]\n")


def read_coco_results(path: str | Path, dataset: Coco) -> Iterator[Instances]:
    """What a COCO results file says was found in each image of a data set, in the data set's order.

    Masks stay whole; in the label image the higher score wins, then the earlier object. Boxes and areas in the file
    are passed over: what an object covers is its mask.

    Raises:
        InputError: if the file cannot be read, or names an image or category that the data set has not, or an object
            has no mask of its image's size or no score; runs are looked at when their image's turn comes.
    """
    file = Path(path)
    results, problems = _parsed(file, "a JSON of results"), _Problems(file)
    if not isinstance(results, list):
        raise InputError(
            f"{file}: is no list of results; give objects of image_id, category_id, segmentation and score in a list."
        )
    places = {number: index for index, number in enumerate(dataset.image_ids)}
    found: list[list[_Found]] = [[] for _ in dataset.image_ids]
    for position, entry in enumerate(results):
        try:
            index = _place_of(entry, places)
            size = dataset._pictures[index].size
            found[index].append(_read_found(entry, position, size, dataset.category_ids))
        except InputError as error:
            problems.add(f"result {position}", str(error))
    refuse(problems.sentences)
    return (_instances(own, dataset.shape(index), file) for index, own in enumerate(found))


@dataclass(frozen=True)
class _Found:
    """One entry of a results file."""

    outline: _Annotation
    score: float


def _result_entries(image_id: int | str, found: Instances, category_ids: Sequence[int]) -> Iterator[dict[str, Any]]:
    """The results of one image."""
    if len(found) and not 1 <= found.classes.min() <= found.classes.max() <= len(category_ids):
        raise InputError(
            f"Image {image_id}: objects have the classes {found.classes.min()} to {found.classes.max()}, but there are "
            f"{len(category_ids)} category ids; give one for each class."
        )
    size = [int(side) for side in found.labels.shape]
    masks = encode_masks(found.labels, len(found)) if found.masks is None else found.masks
    for runs, class_number, score in zip(masks, found.classes.tolist(), found.scores.tolist(), strict=True):
        yield {
            "image_id": image_id,
            "category_id": int(category_ids[class_number - 1]),
            "segmentation": {"size": size, "counts": compress_runs(runs)},
            "score": score,
        }


def _place_of(entry: Any, places: dict[int | str, int]) -> int:
    """Index of the image that a result is of."""
    if not isinstance(entry, dict):
        raise InputError("must be an object of image_id, category_id, segmentation and score")
    number = entry.get("image_id")
    if not isinstance(number, int | str) or number not in places:
        raise InputError(f"its image_id {number!r} is not in the data set")
    return places[number]


def _read_found(
    entry: dict[str, Any], position: int, size: tuple[int, int] | None, category_ids: tuple[int, ...]
) -> _Found:
    """One result, its runs not yet expanded."""
    category, score = entry.get("category_id"), _number(entry.get("score"))
    if category not in category_ids:
        raise InputError(f"its category_id {category!r} is not in the data set, which has {_listed(category_ids)}")
    if score is None:
        raise InputError(f"its score {entry.get('score')!r} is no number")
    if not 0 <= score <= 1:
        raise InputError(f"its score {score:g} does not lie between 0 and 1")
    polygons, runs, own_size = _read_outline(entry.get("segmentation"), size)
    outline = _Annotation(position, category_ids.index(category) + 1, False, polygons, runs, own_size)
    return _Found(outline, score)


def _instances(found: list[_Found], shape: tuple[int, int], file: Path) -> Instances:
    """The objects of one image."""
    masks = tuple(_whole_runs(one.outline, shape, f"{file}: result {one.outline.number}") for one in found)
    scores = np.array([one.score for one in found], np.float64)
    labels = np.zeros(shape, np.int32)
    for k in np.argsort(-scores, kind="stable")[::-1]:
        mask, place = _decode_columns(masks[k], shape)
        labels[place][mask] = k + 1
    classes = np.array([one.outline.class_number for one in found], np.int32)
    return Instances(labels, classes, scores, masks)


def _listed(numbers: Sequence[int]) -> str:
    """The first few of many numbers."""
    return ", ".join(map(str, numbers[:10])) + (", …" if len(numbers) > 10 else "")


# --- reading the JSON -------------------------------------------------------------------------------------------------


class _Problems:
    """What is wrong with a file, in sentences that begin with its name."""

    def __init__(self, file: Path) -> None:
        self.file, self.sentences = file, list[str]()

    def add(self, what: str, wrong: str) -> None:
        """Note that `what` is wrong."""
        self.sentences.append(f"{self.file}: {what}: {wrong}.")


def _json_files(folder: Path) -> list[Path]:
    """annotations.json of a folder, else every JSON directly in it, else those of objects in COCO's own folder."""
    if (folder / "annotations.json").is_file():
        return [folder / "annotations.json"]
    direct = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    return direct or sorted((folder / "annotations").glob("instances_*.json"))


def _json_file(path: Path) -> Path:
    """The JSON at a path."""
    if not path.exists():
        raise InputError(f"{path}: no such file; give {Coco.layout}.")
    if path.is_file():
        return path
    files = _json_files(path)
    if len(files) != 1:
        choice = f" It holds {', '.join(str(file.relative_to(path)) for file in files[:10])}." if files else ""
        raise InputError(
            f"{path}: holds {len(files)} JSON files; give the one to read, or name it annotations.json.{choice}"
        )
    return files[0]


def _image_folders(file: Path) -> tuple[Path, ...]:
    """Where file names may start from: beside the JSON, or in the folder that it is named after, as `val2017`."""
    folder, part = file.parent, file.stem.rpartition("_")[2]
    return folder, folder / "images", folder / part, folder.parent / part, folder.parent / "images"


def _parsed(file: Path, wanted: str) -> Any:
    """What a JSON file holds."""
    try:
        return json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}: is cut short or not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "export it again."
        ) from error
    except (UnicodeDecodeError, RecursionError) as error:
        raise InputError(f"{file}: is not JSON; give {wanted}.") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from error


def _read_json(file: Path) -> dict[str, Any]:
    """The document, which must be an object with images, annotations and categories."""
    document = _parsed(file, Coco.layout)
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


def _read_images(
    document: dict[str, Any], starts: tuple[Path, ...], problems: _Problems
) -> dict[int | str, _Picture | None]:
    """The images by id; None for those that cannot be used."""
    pictures: dict[int | str, _Picture | None] = {}
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
        elif (file := _find(name, starts)) is None:
            others = ", ".join(dict.fromkeys(str(start) for start in starts[1:]))
            problems.add(f"image {number}", f"its file {name} is not in {starts[0]}, nor in {others}")
        else:
            height, width = entry.get("height"), entry.get("width")
            size = (height, width) if isinstance(height, int) and isinstance(width, int) else None
            pictures[number] = _Picture(file, size, [])
    return pictures


def _leaves_folder(name: str) -> bool:
    """Whether a file name points outside of the folder that it starts from, on any system."""
    path = PurePosixPath(name.replace("\\", "/"))
    return path.is_absolute() or ".." in path.parts or bool(re.match("[A-Za-z]:", name)) or "\0" in name


def _find(name: str, starts: tuple[Path, ...]) -> Path | None:
    """The file of that name below the first of the folders that has one."""
    for start in starts:
        if (file := start / name.replace("\\", "/")).is_file():
            return file
    return None


def _by_id(pictures: dict[int | str, _Picture]) -> dict[int | str, _Picture]:
    """The images in the order of their ids, as pycocotools takes them: it decides between equal scores."""
    if len({isinstance(number, str) for number in pictures}) > 1:
        return pictures
    return dict(sorted(pictures.items(), key=lambda item: item[0]))


def _names(files: list[Path], folder: Path) -> tuple[str, ...]:
    """Stems; where images in subfolders share them, the folders' names with them."""
    stems = tuple(file.stem for file in files)
    if len(set(stems)) == len(stems):
        return stems
    within = (file.relative_to(folder if file.is_relative_to(folder) else folder.parent) for file in files)
    return tuple("_".join(file.with_suffix("").parts) for file in within)


def _place_all(
    document: dict[str, Any],
    pictures: dict[int | str, _Picture | None],
    class_numbers: dict[int, int],
    problems: _Problems,
) -> None:
    """Add the annotations to their pictures; an id that comes again is one of which results cannot be told apart."""
    seen: set[Any] = set()
    for entry in _entries(document, "annotations", problems):
        number = entry.get("id")
        if isinstance(number, int | str) and number in seen:
            problems.add(f"annotation {number}", "its id is there twice; number the annotations anew")
        else:
            seen.add(number if isinstance(number, int | str) else None)
            _place(entry, pictures, class_numbers, problems)


def _place(
    entry: dict[str, Any],
    pictures: dict[int | str, _Picture | None],
    class_numbers: dict[int, int],
    problems: _Problems,
) -> None:
    """Add one annotation to its picture, or say why that cannot be."""
    number, image, category, area = (entry.get(key) for key in ("id", "image_id", "category_id", "area"))
    what = f"annotation {number}"
    if not isinstance(image, int | str) or image not in pictures:
        problems.add(what, f"its image_id {image!r} does not exist")
    elif not isinstance(category, int) or category not in class_numbers:
        problems.add(what, f"its category_id {category!r} does not exist")
    elif area is not None and ((own_area := _number(area)) is None or own_area < 0):
        problems.add(what, f"its area {area!r} is no number of pixels")
    else:
        picture = pictures[image]
        try:
            polygons, runs, size = _read_outline(entry.get("segmentation"), picture.size if picture else None)
        except InputError as error:
            problems.add(what, str(error))
            return
        crowd = bool(entry.get("iscrowd", 0))
        if picture is not None:
            own = _Annotation(number, class_numbers[category], crowd, polygons, runs, size, _number(area))
            picture.annotations.append(own)


def _number(value: Any) -> float | None:
    """A value of the JSON, if it is a finite number."""
    is_finite = isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 1e300
    return float(value) if is_finite else None


def _read_outline(
    outline: Any, size: tuple[int, int] | None
) -> tuple[tuple[Float[np.ndarray, "_ 2"], ...], Int[np.ndarray, " r"] | str | None, tuple[int, int] | None]:
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
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError("it has a polygon with coordinates that are no numbers") from error
    if not (np.abs(points) < FARTHEST).all():
        raise InputError("it has a polygon with coordinates that are no numbers or far outside of any image")
    return points


# --- masks ------------------------------------------------------------------------------------------------------------


@contextmanager
def _naming(where: str) -> Iterator[None]:
    """Begin an error with the file and entry that it is of."""
    try:
        yield
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _masks(
    annotation: _Annotation, shape: tuple[int, int]
) -> Iterator[tuple[Bool[np.ndarray, "r c"], tuple[slice, slice]]]:
    """Each part of an object as a mask of a few rows and columns, and where in the image these are."""
    for points in annotation.polygons:
        yield fill_polygon(points, shape)
    if annotation.runs is not None:
        yield _decode_columns(_own_runs(annotation, annotation.runs, shape), shape)


def _own_runs(
    annotation: _Annotation, runs: Int[np.ndarray, " _"] | str, shape: tuple[int, int]
) -> Int[np.ndarray, " r"]:
    """The run lengths of an annotation that has some, which must fill the image."""
    if isinstance(runs, str):
        runs = expand_runs(runs)
    if annotation.size != shape:
        size = "{} x {}".format(*annotation.size or (0, 0))
        raise InputError(f"its runs fill {size} pixels, but its image has {shape[0]} x {shape[1]}.")
    if (runs < 0).any() or runs.sum() != shape[0] * shape[1]:
        raise InputError(f"its runs cover {runs.sum()} pixels, but its image has {shape[0]} x {shape[1]}.")
    return runs


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
    edge, row = _ranges(first, np.clip(np.ceil(high), top, bottom).astype(int))
    slope = (x[lower] - x[upper])[edge] / (high - low)[edge]
    crossing = x[upper][edge] + (row - low[edge]) * slope
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    np.add.at(flips, (row - top, column - left), 1)
    return (np.cumsum(flips[:, :-1], axis=1) % 2).astype(bool), place


def _ranges(first: Int[np.ndarray, " n"], stop: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Every number of many ranges, and before it the index of the range that it is in."""
    lengths = np.maximum(stop - first, 0)
    if (total := int(lengths.sum())) > MOST_CROSSINGS:
        raise InputError(f"it has an outline that crosses {total:,} rows in all, as no object's does; draw it again.")
    index = np.repeat(np.arange(len(lengths)), lengths)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[index]


def _decode_columns(
    runs: Int[np.ndarray, " r"], shape: tuple[int, int]
) -> tuple[Bool[np.ndarray, "h c"], tuple[slice, slice]]:
    """The columns that a mask needs: an object is small, the image is not."""
    height, width = shape
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


# --- as pycocotools draws ---------------------------------------------------------------------------------------------


def _annotate(annotations: list[_Annotation], shape: tuple[int, int], file: Path) -> Annotations:
    """Every annotation of an image, drawn as pycocotools draws it."""
    masks = tuple(_whole_runs(one, shape, f"{file}: annotation {one.number}") for one in annotations)
    sizes = [float(mask[1::2].sum()) for mask in masks]
    areas = [size if one.area is None else one.area for one, size in zip(annotations, sizes, strict=True)]
    return Annotations(
        masks=masks,
        classes=np.array([annotation.class_number for annotation in annotations], np.int32),
        is_crowd=np.array([annotation.is_crowd for annotation in annotations], bool),
        areas=np.array(areas, np.float64),
        distances=np.full(len(annotations), np.nan),
        void=np.zeros(shape, bool),
    )


def _whole_runs(annotation: _Annotation, shape: tuple[int, int], where: str) -> Int[np.ndarray, " r"]:
    """The run lengths of one object, its polygons drawn as pycocotools draws them."""
    with _naming(where):
        if annotation.runs is not None:
            return _own_runs(annotation, annotation.runs, shape)
        return _united_runs([polygon_runs_as_coco(points, shape) for points in annotation.polygons])


def polygon_runs_as_coco(points: Float[np.ndarray, "n 2"], shape: tuple[int, int]) -> Int[np.ndarray, " r"]:
    """Run lengths of the pixels that pycocotools gives to a polygon of x, y points.

    Corners are rounded to a grid of five by five points a pixel, and edges drawn on it as lines one point thick. Where
    an edge crosses the middle of a column of pixels, from point 2 to point 3 of its five or back, the upper of the two
    points flips all pixels of the column whose third row of points is not above it.

    Args:
        points: may lie anywhere; a column outside of the image is left out, and rows above and below count as its edge.
        shape: rows and columns of the image.

    Source: `rleFrPoly` of pycocotools, whose rounding towards zero and order of operations are kept.
    """
    height, width = shape
    column, point = _column_crossings(np.trunc(5 * points + 0.5).astype(np.int64), width)
    row = np.clip(-((2 - point) // 5), 0, height)
    places, n_flips = np.unique(column * height + row, return_counts=True)
    return _runs_between(places[n_flips % 2 == 1], height * width)


def _column_crossings(
    corners: Int[np.ndarray, "n 2"], width: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Where edges between corners on the fine grid cross the middle of columns: column, and the upper grid point."""
    step = np.roll(corners, -1, axis=0) - corners
    is_flat = np.abs(step[:, 0]) >= np.abs(step[:, 1])
    is_reversed = np.where(is_flat, step[:, 0], step[:, 1]) < 0  # lines are drawn along their longer side, upwards
    start = np.where(is_reversed[:, None], corners + step, corners)
    step = np.where(is_reversed[:, None], -step, step)
    left, right = np.minimum(0, step[:, 0]) + start[:, 0], np.maximum(0, step[:, 0]) + start[:, 0]
    first, stop = np.clip(-((2 - left) // 5), 0, width), np.clip((right - 3) // 5 + 1, 0, width)
    edge, column = _ranges(first, stop)
    point = np.empty(len(edge), np.int64)
    for own, crossing in ((is_flat[edge], _crossing_of_flat), (~is_flat[edge], _crossing_of_steep)):
        point[own] = crossing(start[edge[own]], step[edge[own]], 5 * column[own] + 2)
    return column, point


def _crossing_of_flat(
    start: Int[np.ndarray, "m 2"], step: Int[np.ndarray, "m 2"], left: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """The upper of an edge's points at `left` and one to the right; the edge has a point at every x."""
    slope = step[:, 1] / step[:, 0]
    along = left - start[:, 0]
    here, beyond = (np.trunc(start[:, 1] + slope * t + 0.5) for t in (along, along + 1))
    return np.minimum(here, beyond).astype(np.int64)


def _crossing_of_steep(
    start: Int[np.ndarray, "m 2"], step: Int[np.ndarray, "m 2"], left: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """The last of an edge's points before it leaves `left` for the right, or reaches it from there."""
    slope = step[:, 0] / step[:, 1]

    def is_before(along: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
        return (start[:, 0] + slope * along + 0.5 < left + 1) == (slope > 0)

    guess = np.floor((left + 0.5 - start[:, 0]) / slope)  # rounding may have put it one off
    return start[:, 1] + (guess - 1 + is_before(guess) + is_before(guess + 1)).astype(np.int64)


def _united_runs(parts: list[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " r"]:
    """Run lengths of the pixels that are in any of several masks of one size."""
    if len(parts) == 1:
        return parts[0]
    bounds = [np.cumsum(runs) for runs in parts]
    starts, ends = (np.concatenate([bound[k : len(bound) // 2 * 2 : 2] for bound in bounds]) for k in (0, 1))
    places, which = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    depth = np.cumsum(np.bincount(which[: len(starts)], minlength=len(places)))
    depth -= np.cumsum(np.bincount(which[len(starts) :], minlength=len(places)))
    return _runs_between(places[np.diff(depth > 0, prepend=False)], int(bounds[0][-1]))


def _runs_between(edges: Int[np.ndarray, " _"], size: int) -> Int[np.ndarray, " r"]:
    """Run lengths of a mask that changes at these pixels, in ascending order."""
    return np.diff(np.concatenate([[0], edges[edges < size], [size]]))


# --- run lengths as text ----------------------------------------------------------------------------------------------


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


def _entries_of(sample: Sample, n_classes: int) -> Iterator[dict[str, Any]]:
    """The annotations of one sample, whole where they overlap, and what is ignored besides as crowds."""
    size = [int(side) for side in sample.labels.shape]
    for class_number, is_crowd, area, runs in _regions(sample, n_classes):
        mask, (rows, columns) = _decode_columns(runs, (size[0], size[1]))
        used = np.flatnonzero(mask.any(axis=1))
        top, height = (int(used[0]), int(used[-1] - used[0] + 1)) if len(used) else (0, 0)
        yield {
            "category_id": int(class_number),
            "segmentation": {"size": size, "counts": compress_runs(runs)},
            "area": int(area) if float(area).is_integer() else float(area),
            "bbox": [columns.start, rows.start + top, columns.stop - columns.start, height],
            "iscrowd": int(is_crowd),
        }


def _regions(sample: Sample, n_classes: int) -> Iterator[tuple[int, bool, float, Int[np.ndarray, "_"]]]:
    """Class, whether it is a crowd, area and runs of each object and crowd; void is a crowd of every class."""
    if sample.annotate is not None:
        given = sample.annotate()
        yield from zip(given.classes, given.is_crowd, given.areas, given.masks, strict=True)
        void = given.void
    else:
        masks = encode_masks(sample.labels, len(sample.classes))
        yield from ((number, False, runs[1::2].sum(), runs) for number, runs in zip(sample.classes, masks, strict=True))
        void = sample.ignore
    if void.any():
        yield from ((number, True, float(void.sum()), encode_mask(void)) for number in range(1, n_classes + 1))
