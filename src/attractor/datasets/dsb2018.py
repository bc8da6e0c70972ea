"""Data Science Bowl 2018 (BBBC038): a folder for each image, and in it one mask for each nucleus.

The image ID is `ID/images/ID.png`, and its nuclei are `ID/masks/*.png`, not black where the nucleus is. Images without
masks, such as stage1_test's, have their nuclei in a table beside the folder, `stage1_solution.csv`: for each nucleus a
row of ImageId and EncodedPixels, usually with Height and Width. Rows whose Usage is Ignored were never scored and hold
no truth: their images are left out. Submissions are such tables, too.

EncodedPixels are pairs of a start and a length, down the columns, the first pixel being 1.

Masks may overlap. Label images cannot hold one pixel twice, so pixels that two nuclei claim become `ignore`; a nucleus
that has no pixel of its own left is dropped from its sample, as is an empty mask, and `object_count` still has it.
`annotate` gives the whole masks.

Source: Caicedo et al. 2019 (doi:10.1038/s41592-019-0612-7) and https://bbbc.broadinstitute.org/BBBC038.

Shapes: `h` rows, `w` columns, `n` pixels, `k` nuclei, `r` runs.
"""

from __future__ import annotations

import csv
import reprlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int32

from attractor.datasets.layout import Evidence, Holds, ResultsForm, results_file
from attractor.datasets.sample import Dataset, Sample, distinct, refuse
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, atomic, image_suffix, made, read_image, write_image
from attractor.instances import Annotations, Instances, decode_mask, encode_mask, relabel

_LONGEST_FIELD = 2**31 - 1  # the csv module's own limit, 128 KiB, is less than a large object's runs need


@dataclass(frozen=True)
class _Rows:
    """What a table says about one image."""

    table: Path
    name: str
    runs: list[str] = field(default_factory=list)  # one for each object
    sizes: set[tuple[str, str]] = field(default_factory=set)  # height and width, where the table has them
    usages: set[str] = field(default_factory=set)

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.runs)

    def masks(self, shape: tuple[int, int]) -> Iterator[Bool[np.ndarray, "h w"]]:
        """Each object's mask in an image of that size."""
        if self.sizes - {("", ""), (str(shape[0]), str(shape[1]))}:
            sizes = sorted(f"{reprlib.repr(height)} x {reprlib.repr(width)}" for height, width in self.sizes)
            found = " and ".join(sizes[:3])
            raise InputError(
                f"{self.table}: image {self.name}: Height and Width are {found}, but the image has {shape[0]} x "
                f"{shape[1]} pixels; the table belongs to another version of it."
            )
        for runs in self.runs:
            try:
                yield _decode(runs, shape)
            except InputError as error:
                raise InputError(f"{self.table}: image {self.name}: {error}") from error


@dataclass(frozen=True)
class _Files:
    """The mask files of one image."""

    image: Path
    files: list[Path]  # one for each object

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.files)

    def masks(self, shape: tuple[int, int]) -> Iterator[Bool[np.ndarray, "h w"]]:
        """Each object's mask in an image of that size."""
        for file in self.files:
            mask = read_image(file).any(axis=2)
            if mask.shape != shape:
                raise InputError(
                    f"{file}: has {mask.shape[0]} x {mask.shape[1]} pixels, but its image {self.image.name} has "
                    f"{shape[0]} x {shape[1]}; both must have the same rows and columns."
                )
            yield mask


class Dsb2018:
    """Images of nuclei with a mask for each."""

    layout: ClassVar[str] = (
        "Data Science Bowl 2018: a folder such as stage1_train, with ID/images/ID.png and ID/masks/*.png for each "
        "image, or without masks but with stage1_solution.csv beside it"
    )
    holds: ClassVar[Holds] = Holds(classes=False, overlaps=True)
    results: ClassVar[ResultsForm] = results_file("a submission CSV, FILE.csv", ".csv")
    class_names: tuple[str, ...] = ("nucleus",)

    def __init__(self, path: str | Path) -> None:
        """Look for the image and the masks in each folder.

        Raises:
            InputError: if there is no image, or some have neither masks nor a row in a table; three are named.
        """
        problems = self._open(Path(path))
        refuse(problems)
        if not self.names:
            raise InputError(f"{path}: holds no annotated image. Accepted is {Dsb2018.layout}.")

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[Dsb2018, list[str]]:
        """The data set of those images that have annotations, and what is wrong with the others."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path))

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder of such folders, or a zip file, as opening that says what to do."""
        is_such = Path(path).suffix.lower() == ".zip" or any(map(_looks_right, _folders(Path(path))))
        return Evidence.STRUCTURE if is_such else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_dsb2018` does."""
        write_dsb2018(folder, samples, described.class_names)

    def _open(self, path: Path) -> list[str]:
        """Find the files; what is wrong is returned, and left out."""
        if path.suffix.lower() == ".zip" and not path.is_dir():
            raise InputError(f"{path}: is a zip file; unpack it first, and give the folder.")
        problems, unscored = list[str](), list[str]()
        tables: dict[str, _Rows] | None = None  # read when the first image without masks is met
        self._entries: list[tuple[Path, _Files | _Rows]] = []
        for folder in _folders(path):
            images, masks = _images(folder / "images"), folder / "masks"
            if len(images) != 1:
                problems.append(f"{folder / 'images'}: holds {len(images)} images; there must be one.")
            elif masks.is_dir():
                self._entries.append((images[0], _Files(images[0], _images(masks))))
            else:
                tables = _read_tables(path) if tables is None else tables
                rows = tables.get(folder.name)
                if rows is None:
                    problems.append(_without_truth(folder, path))
                elif rows.usages == {"Ignored"}:
                    unscored.append(folder.name)
                else:
                    self._entries.append((images[0], rows))
        self.names = tuple(image.parent.parent.name for image, _ in self._entries)
        self.unscored = tuple(unscored)  # images that a submission names and that never counted
        self.columns: dict[str, dict[str, str]] = {}
        return problems

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its nuclei.

        Raises:
            InputError: if a file cannot be read, a mask is of another size, or runs leave the image.
        """
        file, truth = self._entries[index]
        image = read_image(file)
        shape = image.shape[0], image.shape[1]
        drawn, claims = _draw(truth, shape)
        overlaps = claims > 1
        labels, ids = relabel(np.where(overlaps, 0, drawn))
        annotate = partial(_annotations, truth, shape) if overlaps.any() else None
        return Sample(self.names[index], image, labels, np.ones(len(ids), np.int32), overlaps, annotate)

    def read_results(self, path: Path) -> Iterator[Instances]:
        """What a submission says was found in each image, as `read_dsb_submission` reads it."""
        sizes = {name: self[index].labels.shape for index, name in enumerate(self.names)}
        found = read_dsb_submission(path, sizes, unscored=self.unscored)
        return (found[name] for name in self.names)

    def write_results(self, path: Path, found: Iterable[tuple[str, Instances]]) -> None:
        """Write what was found as `write_dsb_submission` does, but nothing for images that never counted."""
        nothing = Instances.from_labels(np.zeros((1, 1), np.int32))
        write_dsb_submission(path, chain(found, ((name, nothing) for name in self.unscored)))

    def overlap_share(self, index: int) -> float:
        """Part of an image's object pixels that several objects claim, 0 to 1."""
        file, truth = self._entries[index]
        shape = read_image(file).shape
        _, claims = _draw(truth, (shape[0], shape[1]))
        return float((claims > 1).sum() / max((claims > 0).sum(), 1))

    def object_count(self, index: int) -> int:
        """Masks that an image has, whether or not they keep a pixel."""
        return len(self._entries[index][1])


def write_dsb2018(folder: str | Path, samples: Iterable[Sample], class_names: Sequence[str] = ("nucleus",)) -> None:
    """Write a folder for each sample, in it a mask for each object, whole where objects overlap.

    All objects become nuclei, whatever `class_names` says; ignored pixels that no two objects claim are not kept.

    Raises:
        InputError: if a file cannot be written, two samples have the same name, or a folder holds images already.
    """
    folder = Path(folder)
    for sample in distinct(samples, folder):
        for part in ("images", "masks"):
            _make_empty(folder / sample.name / part)
        write_image(folder / sample.name / "images" / (sample.name + image_suffix(sample.image)), sample.image)
        for k, mask in enumerate(_masks_of(sample), 1):
            grey = np.where(mask, 255, 0).astype(np.uint8)[..., None]
            write_image(folder / sample.name / "masks" / f"{sample.name}_{k:04}.png", grey)


def write_dsb_submission(path: str | Path, results: Iterable[tuple[str, Instances]]) -> None:
    """Write found objects as the table that the competition takes: a row for each, an empty one for an image without.

    The label images are written, as masks of a submission must not overlap.

    Args:
        path: the CSV file.
        results: each image's ID and objects.

    Raises:
        InputError: if the file cannot be written, or two results have the same name.
    """
    path, written = Path(path), set[str]()
    with atomic(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["ImageId", "EncodedPixels"])
        for name, found in results:
            if name in written:
                raise InputError(f"{path}: two results are named {name!r}; an image has one.")
            written.add(name)
            writer.writerows([name, runs] for runs in _encode(found.labels) or [""])


def read_dsb_submission(
    path: str | Path, sizes: Mapping[str, tuple[int, int]], *, unscored: Collection[str] = ()
) -> dict[str, Instances]:
    """The objects of each image in a submission, each with score 1; where masks overlap, the earlier row has the pixel.

    Args:
        path: the CSV file.
        sizes: rows and columns of each image, by ID: the file does not have them.
        unscored: IDs whose rows are passed over.

    Raises:
        InputError: if the file cannot be read, images are missing in it or unknown, or runs leave an image.
    """
    path = Path(path)
    rows = _read_table(path)
    for names, what in (
        (sizes.keys() - rows, "has no row for"),
        (rows.keys() - sizes.keys() - set(unscored), "has rows for other images:"),
    ):
        if names:
            more = f" and {len(names) - 3} more" if len(names) > 3 else ""
            raise InputError(
                f"{path}: {what} {', '.join(sorted(names)[:3])}{more}; it must have at least one for each image, an "
                "empty one without an object, and no others."
            )
    return {name: _instances(rows[name], size) for name, size in sizes.items()}


# --- which files there are --------------------------------------------------------------------------------------------


def _folders(path: Path) -> Iterator[Path]:
    """The folders of single images in a folder, sorted by name: those with images/ or masks/ in them."""
    if path.is_dir():
        for folder in sorted(path.glob("*/")):
            is_one = (folder / "images").is_dir() or (folder / "masks").is_dir()
            if is_one and not folder.name.startswith("."):
                yield folder


def _looks_right(folder: Path) -> bool:
    """Whether a folder holds one image, and masks or the image's own name."""
    images = _images(folder / "images")
    return len(images) == 1 and ((folder / "masks").is_dir() or images[0].stem == folder.name)


def _images(folder: Path) -> list[Path]:
    """The image files directly in a folder, sorted by name; none if there is no such folder."""
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return [file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and not file.name.startswith(".")]


def _without_truth(folder: Path, path: Path) -> str:
    """The sentence on an image without annotations."""
    return (
        f"{folder}: has no masks/, nor a row in a table (*_solution*.csv or *_labels.csv) in {path.absolute().parent}; "
        "put the competition's table there."
    )


def _read_tables(path: Path) -> dict[str, _Rows]:
    """All images of the competition's own tables in a folder or beside it; sample submissions have other names."""
    tables: dict[str, _Rows] = {}
    for folder in (path, path.absolute().parent):
        for pattern in ("*_solution*.csv", "*_labels.csv"):
            for file in sorted(folder.glob(pattern)):
                tables = _read_table(file) | tables
    return tables


def _read_table(file: Path) -> dict[str, _Rows]:
    """The rows of each image in a table."""
    header, *lines = _read_csv(file) or [[]]
    columns = {name.strip(): k for k, name in enumerate(header)}
    if not {"ImageId", "EncodedPixels"} <= columns.keys():
        found = ", ".join(map(reprlib.repr, header[:9])) or "none"
        raise InputError(f"{file}: the columns are {found}; there must be ImageId and EncodedPixels.")
    rows: dict[str, _Rows] = {}
    for line in lines:
        values = {name: line[k].strip() if k < len(line) else "" for name, k in columns.items()}
        of_image = rows.setdefault(values["ImageId"], _Rows(file, values["ImageId"]))
        of_image.sizes.add((values.get("Height", ""), values.get("Width", "")))
        of_image.usages.add(values.get("Usage", ""))
        if values["EncodedPixels"]:
            of_image.runs.append(values["EncodedPixels"])
    return rows


def _read_csv(file: Path) -> list[list[str]]:
    """The lines of a table that are not empty."""
    limit = csv.field_size_limit(_LONGEST_FIELD)
    try:
        with file.open(newline="", encoding="utf-8-sig") as opened:
            return [line for line in csv.reader(opened) if line]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: cannot be read as a table ({error}); save it as CSV in UTF-8.") from error
    finally:
        csv.field_size_limit(limit)


# --- masks ------------------------------------------------------------------------------------------------------------


def _draw(truth: _Files | _Rows, shape: tuple[int, int]) -> tuple[Int32[np.ndarray, "h w"], Int32[np.ndarray, "h w"]]:
    """The last object that claims each pixel, and the number of objects that do."""
    drawn, claims = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for number, mask in enumerate(truth.masks(shape), 1):
        drawn[mask] = number
        claims += mask
    return drawn, claims


def _annotations(truth: _Files | _Rows, shape: tuple[int, int]) -> Annotations:
    """The whole masks, without empty ones; there are no crowds and no void."""
    masks = tuple(encode_mask(mask) for mask in truth.masks(shape) if mask.any())
    n = len(masks)
    return Annotations(
        masks=masks,
        classes=np.ones(n, np.int32),
        is_crowd=np.zeros(n, bool),
        areas=np.array([runs[1::2].sum() for runs in masks], np.float64),
        distances=np.full(n, np.nan),
        void=np.zeros(shape, bool),
    )


def _masks_of(sample: Sample) -> Iterator[Bool[np.ndarray, "h w"]]:
    """The masks of a sample's objects, whole where it has them so; crowds are not objects."""
    if sample.annotate is None:
        yield from (sample.labels == k for k in range(1, len(sample.classes) + 1))
        return
    annotations = sample.annotate()
    for runs, is_crowd in zip(annotations.masks, annotations.is_crowd, strict=True):
        if not is_crowd:
            yield decode_mask(runs, sample.labels.shape)


def _instances(rows: _Rows, shape: tuple[int, int]) -> Instances:
    """The objects of one image, which may overlap."""
    drawn, claims = _draw(rows, shape)
    classes, scores = np.ones(len(rows), np.int32), np.ones(len(rows), np.float32)
    if not (claims > 1).any():
        return Instances(drawn, classes, scores)
    first, masks = np.zeros(shape, np.int32), list[Int[np.ndarray, "_"]]()
    for number, mask in enumerate(rows.masks(shape), 1):
        first[mask & (first == 0)] = number
        masks.append(encode_mask(mask))
    return Instances(first, classes, scores, tuple(masks))


def _decode(text: str, shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The mask of EncodedPixels."""
    try:
        numbers = np.array(text.split(), np.int64)
    except (ValueError, OverflowError) as error:
        raise InputError(f"its EncodedPixels {text[:30]!r} are not whole numbers.") from error
    if len(numbers) % 2:
        raise InputError(f"its EncodedPixels {text[:30]!r} are {len(numbers)} numbers; they must be pairs.")
    starts, lengths = numbers[::2] - 1, numbers[1::2]
    n_pixels = shape[0] * shape[1]
    if (starts < 0).any() or (lengths < 1).any() or (lengths > n_pixels - starts).any():
        raise InputError(
            f"its EncodedPixels {text[:30]!r} leave the image of {shape[0]} x {shape[1]} pixels; pixels count from 1."
        )
    changes = np.zeros(n_pixels + 1, np.int64)
    np.add.at(changes, starts, 1)
    np.add.at(changes, starts + lengths, -1)
    return (np.cumsum(changes[:-1]) > 0).reshape(shape, order="F")


def _encode(labels: Int32[np.ndarray, "h w"]) -> list[str]:
    """EncodedPixels of each label that has a pixel, in one pass over the image."""
    flat = labels.ravel(order="F")
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    lengths = np.diff(np.append(starts, flat.size))
    owners = flat[starts]
    order = np.argsort(owners, kind="stable")  # runs of each label together, in the image's order
    order = order[owners[order] > 0]
    pairs = np.stack([starts[order] + 1, lengths[order]], axis=1)  # (r, 2)
    parts = np.split(pairs, np.flatnonzero(np.diff(owners[order])) + 1)
    return [" ".join(map(str, part.ravel().tolist())) for part in parts if len(part)]


def _make_empty(folder: Path) -> None:
    """Make a folder; one with images in it is refused, as those would be taken for this image's."""
    made(folder)
    if files := _images(folder):
        raise InputError(f"{folder}: holds {files[0].name} already; remove the folder, or write to another one.")
