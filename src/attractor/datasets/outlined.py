"""What layouts with a file of outlines for each image share: pairing, drawing and writing.

A pixel belongs to an object if its centre lies inside one of the object's parts: see `polygons`. What lies beyond the
image is cut off, and an object that lies wholly beyond it is left out. Label images cannot hold one pixel twice, so
pixels that two objects claim become `ignore`, and an object without a pixel of its own is dropped from its sample;
`annotate` gives every object whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int32, Shaped

from attractor.datasets.polygons import Box, Part, encode_in_box, joined, label_rings, rings
from attractor.datasets.sample import Sample, distinct, refuse
from attractor.errors import InputError
from attractor.images import (
    IMAGE_SUFFIXES,
    OUTPUT_ENDINGS,
    atomic,
    image_suffix,
    images_in,
    made,
    read_image,
    write_image,
)
from attractor.instances import Annotations, Instances, relabel

CLASS = "object"  # of objects whose file names none
MOST_PIXELS = 1 << 26  # in all boxes of an image's outlines, or MOST_COVERS times the image if that is more
MOST_COVERS = 100


@runtime_checkable
class Shape(Protocol):
    """A part of an object as its file has it, which can be drawn: a polygon, an ellipse, a mask."""

    def draw(self, shape: tuple[int, int], /) -> tuple[Bool[np.ndarray, "r c"], Box]:
        """Its pixels in an image of this shape, and the box that they lie in."""


@dataclass(frozen=True)
class Outline:
    """One object as its file has it."""

    what: str  # names it in messages
    class_name: str
    parts: tuple[Shape, ...]  # they are united

    def draw(self, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
        """Its pixels, and the box in the image that they lie in."""
        return joined((part.draw(shape) for part in self.parts), shape)


@dataclass(frozen=True)
class Picture:
    """One image and the outlines on it."""

    name: str
    image: Path  # or the file of outlines, where that holds the image, too
    file: Path  # of the outlines
    outlines: list[Outline]
    size: tuple[int, int] | None = None  # rows and columns, where the file says so


@dataclass
class Problems:
    """What is wrong with a data set, in sentences."""

    shown: int  # how many files a sentence names
    sentences: list[str] = field(default_factory=list)

    def add(self, file: Path, what: str, wrong: str) -> None:
        """Note that something in a file is wrong."""
        self.sentences.append(f"{file}: {what}: {wrong}.")

    def add_alone(self, folder: Path, files: Iterable[Path], kind: str, lack: str) -> None:
        """Note the files that have no partner, if there are any."""
        names = sorted(file.name for file in files)
        if names:
            have = f"1 {kind} has" if len(names) == 1 else f"{len(names)} {kind}s have"
            more = f" and {len(names) - self.shown} more" if len(names) > self.shown else ""
            self.sentences.append(f"{folder}: {have} {lack} Alone: {', '.join(names[: self.shown])}{more}.")


class OutlinedImages:
    """A data set of images that each have a file of outlines; the layouts say how these are found and read."""

    layout: ClassVar[str]
    ignored_class: str | None = None  # what is outlined as this is neither object nor background

    def __init__(self, path: str | Path) -> None:
        """Read all outlines of a folder; they are drawn when a sample is asked for.

        Raises:
            InputError: if a file cannot be read, has no partner or holds what cannot be used; three are named.
        """
        problems = self._open(Path(path), shown=3)
        refuse(problems)
        if not self.names:
            raise InputError(f"{path}: holds no annotated image; give {self.layout}.")

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[OutlinedImages, list[str]]:
        """The data set without what cannot be used, and what that is."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path), shown=10)

    def _find(self, folder: Path, problems: Problems) -> list[Picture]:
        """The images that have outlines; what is wrong is noted and left out."""
        raise NotImplementedError

    def _open(self, folder: Path, shown: int) -> list[str]:
        """Index the folder; what is wrong with it is returned."""
        if not folder.is_dir():
            raise InputError(f"{folder}: no such folder; give {self.layout}.")
        problems = Problems(shown)
        self._pictures = sorted(self._find(folder, problems), key=lambda picture: picture.name)
        self.names = tuple(picture.name for picture in self._pictures)
        used = {outline.class_name for picture in self._pictures for outline in self._objects(picture)}
        self.class_names = tuple(sorted(used)) or (CLASS,)
        self.columns: dict[str, dict[str, str]] = {}
        return problems.sentences

    def _objects(self, picture: Picture) -> list[Outline]:
        """The outlines that are not ignored."""
        return [outline for outline in picture.outlines if outline.class_name != self.ignored_class]

    def _ignored(self, picture: Picture) -> list[Outline]:
        """The outlines that are."""
        return [outline for outline in picture.outlines if outline.class_name == self.ignored_class]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and draw its objects.

        Raises:
            InputError: if the image cannot be read, or has another size than the outlines' file says.
        """
        picture = self._pictures[index]
        image = self._image(picture)
        shape = image.shape[0], image.shape[1]
        if picture.size not in (None, shape):
            raise InputError(
                f"{picture.image}: has {shape[0]} x {shape[1]} pixels, but {picture.file.name} says "
                f"{picture.size[0]} x {picture.size[1]}; the outlines belong to another version of the image."
            )
        objects, ignored = self._objects(picture), self._ignored(picture)
        drawn, is_twice = _draw(picture.file, objects, shape)
        drawn[is_twice] = 0
        labels, ids = relabel(drawn)
        numbers = {name: k for k, name in enumerate(self.class_names, 1)}
        every = [numbers[outline.class_name] for outline in objects]
        ignore = is_twice | (_united(picture.file, ignored, shape) & (labels == 0))
        return Sample(
            picture.name,
            image,
            labels,
            np.array([every[number - 1] for number in ids], np.int32),
            ignore,
            partial(_annotations, picture.file, objects, every, ignored, shape),
        )

    def _image(self, picture: Picture) -> Shaped[np.ndarray, "h w c"]:
        """The pixels of one image."""
        return read_image(picture.image)

    def overlap_share(self, index: int) -> float:
        """Part of an image's object pixels that several objects claim, 0 to 1."""
        picture = self._pictures[index]
        shape = picture.size or self._image(picture).shape
        drawn, is_twice = _draw(picture.file, self._objects(picture), (shape[0], shape[1]))
        return float(is_twice.sum() / max((drawn > 0).sum(), 1))

    def object_count(self, index: int) -> int:
        """Objects that an image's file outlines, whether or not they keep a pixel."""
        return len(self._objects(self._pictures[index]))


def _drawn(file: Path, outline: Outline, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
    """The pixels of an outline, and its box; an error names the file."""
    try:
        return outline.draw(shape)
    except InputError as error:
        raise InputError(f"{file}: {outline.what}: {str(error).removesuffix('.')}.") from error


def _draw(
    file: Path, objects: list[Outline], shape: tuple[int, int]
) -> tuple[Int32[np.ndarray, "h w"], Bool[np.ndarray, "h w"]]:
    """The last object that claims each pixel, and whether several do."""
    drawn, is_twice = np.zeros(shape, np.int32), np.zeros(shape, bool)
    n_pixels = 0
    for number, outline in enumerate(objects, 1):
        mask, box = _drawn(file, outline, shape)
        n_pixels += mask.size
        if n_pixels > max(MOST_PIXELS, MOST_COVERS * drawn.size):
            raise InputError(
                f"{file}: its {len(objects):,} outlines cover the image {n_pixels // drawn.size:,} times and more; "
                "remove the repeated ones."
            )
        is_twice[box] |= mask & (drawn[box] > 0)
        drawn[box][mask] = number
    return drawn, is_twice


def _united(file: Path, outlines: list[Outline], shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels of all outlines."""
    whole = np.zeros(shape, bool)
    for outline in outlines:
        mask, box = _drawn(file, outline, shape)
        whole[box] |= mask
    return whole


def _annotations(
    file: Path, objects: list[Outline], classes: list[int], ignored: list[Outline], shape: tuple[int, int]
) -> Annotations:
    """Every object that has a pixel, whole even where another one claims the same pixels."""
    void, found = _united(file, ignored, shape), []
    for outline, number in zip(objects, classes, strict=True):
        mask, box = _drawn(file, outline, shape)
        if mask.any():
            void[box] &= ~mask
            found.append((encode_in_box(mask, box, shape), number))
    masks = tuple(mask for mask, _ in found)
    areas = np.array([mask[1::2].sum() for mask in masks], float)
    numbers = np.array([number for _, number in found], np.int32)
    return Annotations(masks, numbers, np.zeros(len(masks), bool), areas, np.full(len(masks), np.nan), void)


# --- files ------------------------------------------------------------------------------------------------------------


def with_images(
    folder: Path, within: str, endings: Sequence[str], is_outlines: Callable[[Path], bool], problems: Problems
) -> Iterator[tuple[str, Path, Path]]:
    """Name, image and file of outlines of each image that has both.

    Args:
        folder: its images lie directly in it or in `images/`.
        within: the folder in it where outlines may lie; else they lie beside the images or directly in it.
        endings: what follows the image's name, with or without its suffix, in the name of its file of outlines.
        is_outlines: whether a file without an image is one of outlines, not something else that lies there.
        problems: what has no partner is noted here.
    """
    images = {file.stem: file for file in find_images(folder, problems)}
    starts = {image.name: name for name, image in images.items()} | {name: name for name in images}
    places = [place for place in (folder, folder / "images", folder / within) if place.is_dir()]
    owned: dict[str, list[Path]] = {name: [] for name in images}
    lonely, alone = list[Path](), list[Path]()
    for file in sorted({file for place in places for file in visible(place) if file.name.endswith(tuple(endings))}):
        owner = _owner(file.name, starts, endings)
        (alone if owner is None else owned[owner]).append(file)
    for name, image in images.items():
        files = owned[name]
        if len(files) > 1:
            others = " and ".join(str(file.relative_to(folder)) for file in files[:3])
            problems.add(image, "outlines", f"it has {len(files)} files of them, {others}; keep one")
        elif files:
            yield name, image, files[0]
        else:
            lonely.append(image)
    problems.add_alone(
        folder,
        lonely,
        "image",
        f"no file of outlines, which ends in {' or '.join(endings)}; save an empty one, or move it.",
    )
    problems.add_alone(
        folder,
        [file for file in alone if is_outlines(file)],
        "file of outlines",
        "no image, which must have the same name before the ending.",
    )


def _owner(file_name: str, starts: Mapping[str, str], endings: Sequence[str]) -> str | None:
    """The image whose name a file of outlines begins with: `a_rois.zip` is of `a` rather than of `a_rois`."""
    for ending in sorted(endings, key=len, reverse=True):
        if file_name.endswith(ending) and (owner := starts.get(file_name.removesuffix(ending))) is not None:
            return owner
    return None


def find_images(folder: Path, problems: Problems) -> list[Path]:
    """The images of a folder or, if there are none, of its images/; of those that share a stem only the first."""
    inner = folder / "images"
    is_inner = not any(file.suffix.lower() in IMAGE_SUFFIXES for file in visible(folder)) and inner.is_dir()
    by_stem: dict[str, Path] = {}
    for file in images_in(inner if is_inner else folder):
        if (other := by_stem.setdefault(file.stem, file)) is not file:
            problems.add(file, "name", f"{other.name} has the same stem, by which samples are named; rename one")
    return list(by_stem.values())


def visible(folder: Path) -> list[Path]:
    """The files directly in a folder, sorted, without hidden ones; none where it cannot be read."""
    try:
        return sorted(file for file in folder.iterdir() if not file.name.startswith(".") and file.is_file())
    except OSError:
        return []


def read_json(file: Path) -> object:
    """What a JSON file holds.

    Raises:
        InputError: if it cannot be read or is no JSON.
    """
    try:
        content: object = json.loads(file.read_bytes())
    except json.JSONDecodeError as error:
        raise InputError(
            f"{file}: is cut short or not JSON (line {error.lineno}, column {error.colno}: {error.msg}); "
            "export it again."
        ) from error
    except (ValueError, RecursionError) as error:  # not UTF-8, numbers of thousands of digits, endless nesting
        raise InputError(f"{file}: is not JSON that can be read; export it again.") from error
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from error
    return content


# --- writing ----------------------------------------------------------------------------------------------------------


def objects_of(found: Instances, class_names: Sequence[str]) -> Iterator[tuple[int, str, float, list[Part]]]:
    """Label, class, score and parts of each object that has a pixel; where masks overlap, each is whole.

    Raises:
        InputError: if an object's class has no name.
    """
    every = label_rings(found.labels, len(found)) if found.masks is None else None
    for label in range(1, len(found) + 1):
        number = int(found.classes[label - 1])
        if not 1 <= number <= len(class_names):
            raise InputError(
                f"Object {label} is of class {number}, but names are given for {len(class_names)} classes; name each."
            )
        if parts := every[label - 1] if every is not None else rings(found.mask(label)):
            yield label, class_names[number - 1], float(found.scores[label - 1]), parts


def write_outlined(
    folder: str | Path, samples: Iterable[Sample], ending: str, encode: Callable[[Sample, str], bytes]
) -> None:
    """Write each image and, beside it, its file of outlines, which `encode` gives for a sample and its image's name.

    Raises:
        InputError: if a file cannot be written, or two samples have the same name.
    """
    folder = made(folder)
    for sample in distinct(samples, folder):
        image = folder / (sample.name + image_suffix(sample.image))
        if image.name.endswith(OUTPUT_ENDINGS):
            raise InputError(
                f"{image}: an image of this name would be passed over when read, as what `attractor segment` writes; "
                "rename the image."
            )
        write_image(image, sample.image)
        with atomic(folder / (sample.name + ending)) as temporary:
            temporary.write_bytes(encode(sample, image.name))
