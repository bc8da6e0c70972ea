"""What a metric is: the images it scores, what it says of them, and how results are compared.

A metric is a benchmark with three functions. `score_image` looks at one image and keeps no more than the benchmark
needs of it, so that images can come and go one after another. `summarise` makes the score of a data set, or of a
group of its images, from what was kept, with 95 % bootstrap intervals over images. `paired_difference` tests one
result against another on the same images. Code that shows or compares results needs nothing else, so the commands know
a new metric as soon as `attractor.metrics.METRICS` lists it.

`Benchmark` makes a `Metric` of three such functions.

Shapes: `s` the lengths of an image or volume along its axes, `t` places on a curve.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeAlias, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.errors import InputError
from attractor.instances import Annotations, Instances
from attractor.metrics.bootstrap import Estimate, Interval

# --- what is scored ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """What is there in one image, and what was found."""

    name: str  # the image's stem, by which results are paired
    truth: Instances
    found: Instances
    ignore: Bool[np.ndarray, "*s"] | None = None  # pixels that count for nothing
    annotate: Callable[[], Annotations] | None = None  # draws the true objects as annotated, where that says more

    def __post_init__(self) -> None:
        """Refuse images that differ in shape."""
        truth, found = self.truth.labels.shape, self.found.labels.shape
        if truth != found or (self.ignore is not None and self.ignore.shape != truth):
            shapes = f"truth {truth}, found {found}" + ("" if self.ignore is None else f", ignore {self.ignore.shape}")
            raise InputError(
                f"{self.name}: the images to compare differ in shape: {shapes}. They must be of the same image at the "
                "same size."
            )

    def annotations(self) -> Annotations:
        """The true objects with overlaps, crowds and void, for benchmarks that count each one as it was annotated."""
        if self.annotate is not None:
            return self.annotate()
        void = np.zeros(self.truth.labels.shape, bool) if self.ignore is None else self.ignore
        return Annotations.of(self.truth, void)


# --- what is said -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Amount:
    """A value, with its interval, that is not a share, such as a number of objects; best near 0."""

    interval: Interval


Cell: TypeAlias = Interval | Amount | float | int  # a plain float is a share; NaN where there is nothing to score
Row: TypeAlias = Mapping[str, Cell]  # from heading to value


@dataclass(frozen=True)
class Overview:
    """A row of values, made for each group of images and for each of several models."""

    title: str
    row: Row
    note: str = ""  # what else to say of it, where there is room
    is_in_tables: bool = False  # whether the tables say the same of all images, so that only groups need it


@dataclass(frozen=True)
class Table:
    """Values of all images, from the row's name to the row; all rows have the same headings."""

    title: str
    rows: Mapping[str, Row]
    heading: str = ""  # of the rows' names


@dataclass(frozen=True)
class Curve:
    """Values along a threshold or a limit."""

    title: str
    along: str  # what changes
    places: Float[np.ndarray, " t"] | Int[np.ndarray, " t"]
    values: Estimate


@dataclass(frozen=True)
class Scores:
    """What a metric keeps of one image; each metric adds fields of its own."""

    name: str  # the image's stem


@runtime_checkable
class Summary(Protocol):
    """The scores of a data set: a frozen dataclass."""

    @property
    def n_images(self) -> int:
        """Number of images scored."""

    @property
    def n_truth(self) -> int:
        """Number of true objects."""

    def overviews(self) -> Sequence[Overview]:
        """The main values; no two overviews share a heading."""

    def tables(self, class_names: Sequence[str]) -> Sequence[Table]:
        """What else there is to say of all images; `class_names` are those of classes 1, 2 and so on."""


@runtime_checkable
class Curved(Protocol):
    """A summary whose values lie along a curve."""

    def curve(self) -> Curve:
        """The values along it."""


@runtime_checkable
class Difference(Protocol):
    """Scores of one result minus those of another on the same images: a frozen dataclass."""

    @property
    def n_images(self) -> int:
        """Number of images compared."""

    def row(self) -> Row:
        """The differences with their paired intervals, under headings of the overviews."""


def by_class(rows: Mapping[int, Row], class_names: Sequence[str]) -> list[Table]:
    """A table with a row for each class by its number; no table where there is only one class, or no row."""
    if len(class_names) < 2 or not rows:
        return []
    names = dict(enumerate(class_names, 1))  # a model may find classes that the data set has no name for
    return [Table("By class", {names.get(number, f"class {number}"): row for number, row in rows.items()})]


# --- the metric -------------------------------------------------------------------------------------------------------


@runtime_checkable
class Metric(Protocol):
    """A benchmark, as evaluation and comparison call it."""

    @property
    def about(self) -> str:
        """What it measures, in a few words, for help texts."""

    @property
    def headline(self) -> str:
        """The heading of the one value by which models are ranked; more is better."""

    @property
    def terms(self) -> Mapping[str, str]:
        """What its headings mean, in a sentence each."""

    @property
    def n_proposals(self) -> int:
        """How many proposals of each image it ranks; 0: it scores the objects found."""

    @property
    def has_classes(self) -> bool:
        """Whether an object must have the right class."""

    def score_image(self, pair: Pair) -> Scores | None:
        """The scores of one image; None for an image that the benchmark leaves out."""

    def summarise(self, images: Sequence[Scores], *, seed: int = 0) -> Summary:
        """The scores of all these images together, with intervals that are the same for the same seed.

        Raises:
            InputError: if there is no image.
        """

    def value(self, images: Sequence[Scores]) -> float:
        """The value of the headline without its interval; NaN where nothing counts."""

    def paired_difference(self, a: Sequence[Scores], b: Sequence[Scores], *, seed: int = 0) -> Difference:
        """The scores of `a` minus those of `b`; images are paired by name.

        Raises:
            InputError: if there is no image, or the two do not hold the same images, each once.
        """


S = TypeVar("S", bound=Scores)


@dataclass(frozen=True)
class Benchmark(Generic[S]):
    """A metric made of functions on scores of its own kind."""

    scores: type[S]  # what is kept of one image
    score: Callable[[Pair], S | None]
    summary: Callable[[Sequence[S], int], Summary]  # of images, and the seed for the intervals
    difference: Callable[[Sequence[S], Sequence[S], int], Difference]  # of two results on the same images, and the seed
    headline_value: Callable[[Sequence[S]], float]
    about: str
    headline: str
    terms: Mapping[str, str] = field(default_factory=dict)
    n_proposals: int = 0
    has_classes: bool = False

    def score_image(self, pair: Pair) -> S | None:
        """The scores of one image; None for an image that the benchmark leaves out."""
        return self.score(pair)

    def summarise(self, images: Sequence[Scores], *, seed: int = 0) -> Summary:
        """The scores of all these images together."""
        return self.summary(self._own(images), seed)

    def value(self, images: Sequence[Scores]) -> float:
        """The value of the headline without its interval."""
        return self.headline_value(self._own(images))

    def paired_difference(self, a: Sequence[Scores], b: Sequence[Scores], *, seed: int = 0) -> Difference:
        """The scores of `a` minus those of `b`."""
        return self.difference(self._own(a), self._own(b), seed)

    def _own(self, images: Sequence[Scores]) -> list[S]:
        """The scores, which must be this metric's."""
        own = [image for image in images if isinstance(image, self.scores)]
        if len(own) < len(images):
            raise TypeError(f"These are scores of another metric; here they must be {self.scores.__name__}.")
        return own
