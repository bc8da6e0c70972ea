"""What a layout of annotated images is: a class of data sets that knows how its files lie, listed in `DATASETS`.

`Layout` is what each has: it recognises a path, opens it, checks it and writes it. What only some have stands below,
one small protocol each, and callers ask for it with `isinstance`: `Divided` where one folder holds several splits,
`Overlapping` where files hold objects that label images cannot, `Benchmark` where an official tool reads results in a
form of its own. The page `docs/add_a_layout.md` shows a complete layout in a few dozen lines.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from attractor.datasets.sample import Dataset, Sample
from attractor.instances import Instances


class Evidence(IntEnum):
    """How sure a layout is that a path is in this layout; if several recognise a path, the surest opens it."""

    NONE = 0  # it is something else
    ANY_FILE = 1  # a file of a kind that other programs use, too: a single JSON
    CONTENT = 2  # a file that begins as this layout's do
    FILE_NAME = 3  # a file named as this layout's are: NAME.geojson, annotations.json
    FOLDERS = 4  # folders with everyday names: images/ and labels/
    STRUCTURE = 5  # folders or files named as in no other layout: JPEGImages/ and SegmentationObject/


@dataclass(frozen=True)
class Holds:
    """What files of a layout can hold; `attractor convert` says what is lost."""

    classes: bool = True
    ignore: bool = False  # pixels that are neither object nor background
    overlaps: bool = False  # pixels of two objects
    crowds: bool = False  # regions of several objects, with their class
    columns: bool = False  # of images.csv
    volumes: bool = False  # images of three axes


@runtime_checkable
class Layout(Protocol):
    """A class of data sets; calling it with a path opens the data set there."""

    layout: str  # what to give, in words: "a folder with …"
    holds: Holds

    def __call__(self, path: Path, /) -> Dataset:
        """The data set at a path.

        Raises:
            InputError: if anything there cannot be used; three of the problems are named.
        """

    def salvage(self, path: Path, /) -> tuple[Dataset, list[str]]:
        """The data set of what can be used, and what is wrong with the rest, in sentences; for `attractor check`."""

    def recognises(self, path: Path, /) -> Evidence:
        """How sure it is that the path is laid out like this, from names and the first bytes of files alone."""

    def write(self, folder: Path, samples: Iterable[Sample], described: Dataset, /) -> None:
        """Write samples to an empty folder, one after another; `described` gives their class names and columns.

        Raises:
            InputError: if the layout cannot hold what must be kept, such as a class that it has no number for.
        """


@runtime_checkable
class Divided(Protocol):
    """A layout in which one folder may hold several splits, such as train and val."""

    def splits(self, path: Path, /) -> dict[str, Path]:
        """The splits in a folder by name, each with the path that opens it alone; none if there is nothing to choose.

        A path that is itself a split has none.
        """


def several_splits(splits: Mapping[str, Path]) -> str:
    """What to say, after a folder's name, if it holds several splits and one must be chosen."""
    return f"holds the splits {', '.join(splits)}; choose one with --split {next(iter(splits))} (in Python, split=)"


@runtime_checkable
class Overlapping(Protocol):
    """A data set whose files can hold several objects in one pixel, and objects that keep none in a label image."""

    def overlap_share(self, index: int, /) -> float:
        """Part of an image's object pixels that several objects claim, 0 to 1."""

    def object_count(self, index: int, /) -> int:
        """Objects that an image's files name, whether or not they keep a pixel."""


@dataclass(frozen=True)
class ResultsForm:
    """How an official tool takes what was found: as which file or folder."""

    words: str  # "a results JSON, FILE.json"
    recognises: Callable[[Path], bool]  # whether a path that is there holds such results
    takes: Callable[[Path], bool]  # whether such results can be written to a path


@runtime_checkable
class Benchmark(Protocol):
    """A data set whose benchmark has a form of its own for what was found in its images."""

    results: ClassVar[ResultsForm]

    def read_results(self, path: Path, /) -> Iterator[Instances]:
        """What a file of results says was found in each image, in the data set's order.

        Raises:
            InputError: if it cannot be read, or is of another data set.
        """

    def write_results(self, path: Path, found: Iterable[tuple[str, Instances]], /) -> None:
        """Write what was found, given with the images' names one after another, for the official tool to read."""


def results_file(words: str, suffix: str) -> ResultsForm:
    """Results that are one file, known by its suffix."""

    def is_such(path: Path) -> bool:
        return path.suffix.lower() == suffix and not path.is_dir()

    return ResultsForm(words, is_such, is_such)
