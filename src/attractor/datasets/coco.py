"""COCO: one JSON with polygons or run lengths for all images.

Images lie beside the JSON, in `images/` there or one folder up, or, as COCO is downloaded, in the folder that the JSON
is named after: `annotations/instances_val2017.json` beside `val2017/`. They come in the order of their ids, as
pycocotools takes them (in the order of the file where only some ids are numbers), and categories become class 1, 2, …
in the order of theirs. If a folder holds several JSON files, such as `instances_train2017.json` and
`instances_val2017.json`, they are its splits, `train2017` and `val2017`; captions and keypoints beside them are not.
`images.csv` beside the JSON may tell more about each image (see `columns`).

In a label image a pixel belongs to a polygon if its centre lies inside by the even-odd rule, a centre on an edge
counting for one side only, so that polygons that share an edge share no pixel. Several polygons of one object are
united. Coordinates are x, y in pixels, whole numbers being pixel edges. Label images cannot hold one pixel twice, so
pixels that two objects claim become `ignore`, as do crowd regions (`iscrowd`) outside of objects; an object that has no
pixel of its own left is dropped from its sample. `overlap_share` says how much that is.

COCO's scores are counted on another drawing, a sample's `annotate`: every annotation whole, including crowds and those
without a pixel in the image, and polygons as pycocotools draws them, on a grid of five by five points a pixel, which
can differ by a pixel along the outline.

What the JSON says is read in `coco_entries`, masks are drawn in `coco_masks`, results are in `coco_results`.

Source: Lin et al. 2014 and https://cocodataset.org/#format-data.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt16

from attractor.datasets.coco_entries import Annotation, Picture, begins_like_coco, read_document
from attractor.datasets.coco_masks import entry
from attractor.datasets.coco_results import read_coco_results, write_coco_results
from attractor.datasets.columns import read_columns, write_columns
from attractor.datasets.layout import Evidence, Holds, ResultsForm, results_file, several_splits
from attractor.datasets.sample import Dataset, Sample, distinct, refuse
from attractor.errors import InputError
from attractor.images import atomic, image_suffix, made, read_image, write_image
from attractor.instances import Annotations, Instances, encode_mask, encode_masks, relabel

_INSTANCES = "instances_"  # what the names of COCO's own files of objects begin with


class Coco:
    """Images annotated in COCO's JSON."""

    layout: ClassVar[str] = (
        "a COCO JSON, or a folder that holds annotations.json (or another JSON) and the images, or "
        "annotations/instances_*.json"
    )
    holds: ClassVar[Holds] = Holds(ignore=True, overlaps=True, crowds=True, columns=True)
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
        """Whether the path is a JSON file, or a folder that holds some, or COCO's own folder."""
        path = Path(path)
        if path.is_file():
            return Evidence.ANY_FILE if path.suffix.lower() == ".json" else Evidence.NONE
        files = _json_files(path)
        if any(file.name == "annotations.json" or file.name.startswith(_INSTANCES) for file in files):
            return Evidence.FILE_NAME
        is_such = len(files) == 1 or (len(files) > 1 and all(map(begins_like_coco, files)))
        return Evidence.ANY_FILE if is_such else Evidence.NONE

    @staticmethod
    def splits(path: str | Path) -> dict[str, Path]:
        """The JSON files of a folder, by their names without the `instances_` that COCO's begin with."""
        files = [] if Path(path).is_file() else _json_files(Path(path))
        return {file.stem.removeprefix(_INSTANCES): file for file in files if file.name != "annotations.json"}

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_coco` does."""
        write_coco(folder, samples, described.class_names, columns=described.columns)

    def _open(self, path: Path, images: Path | None) -> list[str]:
        """Index the JSON; what is wrong with it is returned, and left out."""
        self._file = _json_file(path)
        folders = _image_folders(self._file) if images is None else (images, images / "images")
        document = read_document(self._file, folders)
        self.class_names, self.category_ids = document.class_names, document.category_ids  # of class 1, 2, …
        self._pictures, problems = document.pictures, document.problems
        self.image_ids = tuple(picture.number for picture in self._pictures)  # by index
        self.names = _names([picture.file for picture in self._pictures], folders[0])
        if len(set(self.names)) < len(self.names):
            problems.append(f"{self._file}: images: two have the same name but for folder or suffix; rename one.")
        try:
            self.columns = read_columns(self._file.parent, self.names)
        except InputError as error:
            self.columns = {}
            problems.append(str(error))
        return problems

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
        return read_coco_results(path, self._pictures, self.category_ids)

    def write_results(self, path: Path, found: Iterable[tuple[str, Instances]]) -> None:
        """Write what was found as `write_coco_results` does."""
        ids = dict(zip(self.names, self.image_ids, strict=True))
        write_coco_results(path, ((ids[name], one) for name, one in found), self.category_ids)

    def overlap_share(self, index: int) -> float:
        """Part of an image's object pixels that several objects claim, 0 to 1."""
        _, claims, _ = self._draw(self._pictures[index], self._pictures[index].shape)
        return float((claims > 1).sum() / max((claims > 0).sum(), 1))

    def object_count(self, index: int) -> int:
        """Objects that an image's annotations name, whether or not they keep a pixel; crowds do not count."""
        return sum(not annotation.is_crowd for annotation in self._pictures[index].annotations)

    def _draw(
        self, picture: Picture, shape: tuple[int, int]
    ) -> tuple[Int32[np.ndarray, "h w"], UInt16[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
        """The last object that claims each pixel, the number of objects that do, and crowd regions."""
        drawn, claims = np.zeros(shape, np.int32), np.zeros(shape, np.uint16)
        crowd, number = np.zeros(shape, bool), 0
        for annotation in picture.annotations:
            number += not annotation.is_crowd
            try:
                mask, place = annotation.outline.draw(shape)
            except InputError as error:
                raise InputError(f"{self._file}: annotation {annotation.number}: {error}") from error
            if annotation.is_crowd:
                crowd[place] |= mask
            else:
                drawn[place][mask] = number
                claims[place] += mask
        return drawn, claims, crowd


def write_coco(
    path: str | Path,
    samples: Iterable[Sample],
    class_names: Sequence[str],
    *,
    columns: Mapping[str, Mapping[str, str]] | None = None,
) -> None:
    """Write samples to a folder, or beside a path that ends in .json: images, and their objects as compressed runs.

    Objects that overlap are whole, and crowds keep their class; other ignored pixels become a crowd of each class.
    Columns, if there are any, go into `images.csv`.

    Raises:
        InputError: if a file cannot be written, or two samples or two classes have the same name.
    """
    path = Path(path)
    file = path if path.suffix.lower() == ".json" else path / "annotations.json"
    if len(set(class_names)) < len(class_names):
        names = ", ".join(name[:60] for name in class_names[:9])
        raise InputError(f"{file}: two of the classes {names} have the same name; rename one.")
    made(file.parent)
    images: list[dict[str, object]] = []
    annotations: list[dict[str, object]] = []
    for number, sample in enumerate(distinct(samples, file), 1):
        image = file.parent / (sample.name + image_suffix(sample.image))
        write_image(image, sample.image)
        height, width = sample.labels.shape
        images.append({"id": number, "file_name": image.name, "width": width, "height": height})
        for own in _entries_of(sample, len(class_names)):
            annotations.append({"id": len(annotations) + 1, "image_id": number, **own})
    categories = [{"id": k, "name": name} for k, name in enumerate(class_names, 1)]
    document = {"images": images, "annotations": annotations, "categories": categories}
    with atomic(file) as temporary:
        temporary.write_text(json.dumps(document), encoding="utf-8")
    write_columns(file.parent, columns or {}, [Path(str(image["file_name"])).stem for image in images])


# --- files ------------------------------------------------------------------------------------------------------------


def _json_files(folder: Path) -> list[Path]:
    """annotations.json of a folder, else the JSON files of objects in it, else those in its annotations/."""
    if (folder / "annotations.json").is_file():
        return [folder / "annotations.json"]
    direct = sorted(file for file in folder.glob("*.json") if not file.name.startswith("."))
    own = [file for file in direct if file.name.startswith(_INSTANCES)]  # not the captions and keypoints beside them
    return own or direct or sorted((folder / "annotations").glob(f"{_INSTANCES}*.json"))


def _json_file(path: Path) -> Path:
    """The JSON at a path."""
    if not path.exists():
        raise InputError(f"{path}: no such file; give {Coco.layout}.")
    if path.is_file():
        return path
    files = _json_files(path)
    if not files:
        raise InputError(f"{path}: holds no JSON; give {Coco.layout}.")
    if len(files) > 1:
        raise InputError(f"{path}: {several_splits(Coco.splits(path))}, or name the one to read annotations.json.")
    return files[0]


def _image_folders(file: Path) -> tuple[Path, ...]:
    """Where file names may start from: beside the JSON, or in the folder that it is named after, such as `val2017`."""
    folder, part = file.parent, file.stem.rpartition("_")[2]
    return folder, folder / "images", folder / part, folder.parent / part, folder.parent / "images"


def _names(files: list[Path], folder: Path) -> tuple[str, ...]:
    """Stems; where images in subfolders share one, with the folders' names."""
    stems = tuple(file.stem for file in files)
    if len(set(stems)) == len(stems):
        return stems
    within = (file.relative_to(folder if file.is_relative_to(folder) else folder.parent) for file in files)
    return tuple("_".join(file.with_suffix("").parts) for file in within)


# --- annotations ------------------------------------------------------------------------------------------------------


def _annotate(annotations: list[Annotation], shape: tuple[int, int], file: Path) -> Annotations:
    """Every annotation of an image, drawn as pycocotools draws it."""
    masks = tuple(_runs(one, shape, file) for one in annotations)
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


def _runs(annotation: Annotation, shape: tuple[int, int], file: Path) -> Int[np.ndarray, " r"]:
    """The run lengths of one object."""
    try:
        return annotation.outline.runs_as_coco(shape)
    except InputError as error:
        raise InputError(f"{file}: annotation {annotation.number}: {error}") from error


def _entries_of(sample: Sample, n_classes: int) -> Iterator[dict[str, object]]:
    """The annotations of one sample, whole where they overlap, and what else is ignored, as crowds."""
    shape = sample.labels.shape[0], sample.labels.shape[1]
    for class_number, is_crowd, area, runs in _regions(sample, n_classes):
        own_area = int(area) if float(area).is_integer() else float(area)
        yield {"category_id": int(class_number), **entry(runs, shape), "area": own_area, "iscrowd": int(is_crowd)}


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
