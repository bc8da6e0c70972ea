"""What comes out of a comparison."""

from __future__ import annotations

from dataclasses import dataclass

from attractor.metrics.bootstrap import Interval
from attractor.metrics.cvppp import LeafDifference, LeafScores, LeafSummary
from attractor.metrics.metric import Difference, Row, Scores, Summary


@dataclass(frozen=True)
class Measured:
    """What one model did on one image."""

    name: str
    value: float  # of the metric's headline; NaN if nothing counts
    scores: Scores | None  # None if the metric leaves the image out
    leaves: LeafScores
    network_seconds: float  # preparing the image, and the network
    grouping_seconds: float  # from the network's maps to objects


@dataclass(frozen=True)
class Footprint:
    """What a model is, and what it took to run it on all images."""

    device: str  # in words
    dtype: str  # of the numbers in the network
    n_parameters: int
    is_ordered: bool  # labels are numbered in the order in which objects are found
    max_instances: int | None  # most that it can find in an image; None for any number
    memory: int | None  # most bytes its process held; None if it had no process of its own, or the system does not say
    device_memory: int | None  # most bytes it held on the GPU; None without one


@dataclass(frozen=True)
class Compared:
    """One model's part of the comparison."""

    name: str  # as shown
    file: str
    file_bytes: int
    method: str
    network: str
    footprint: Footprint
    images: tuple[Measured, ...]
    summary: Summary
    groups: dict[str, Summary]  # value of a column to the summary of its images; empty without a column
    leaves: LeafSummary
    network_seconds: float  # median over images
    grouping_seconds: float  # median over images

    @property
    def seconds(self) -> float:
        """Seconds that a typical image takes."""
        return self.network_seconds + self.grouping_seconds


@dataclass(frozen=True)
class Pairing:
    """A model against the first one; all differences are its scores minus those of the first."""

    first: str
    other: str
    difference: Difference
    leaves: LeafDifference
    is_difference: bool  # in the headline, beyond what the choice of images explains
    verdict: str  # three sentences: on the headline, counts and time


@dataclass(frozen=True)
class Panel:
    """A picture with what stands below it."""

    title: str
    below: tuple[str, ...]
    model: int | None  # the one whose objects are outlined, counted from 0
    jpeg: bytes


@dataclass(frozen=True)
class Shown:
    """One image as all models see it."""

    name: str
    lowest: float  # headline of the model that does worst on it
    highest: float
    panels: tuple[Panel, ...]  # the picture, the truth, and each model


@dataclass(frozen=True)
class Comparison:
    """All that was measured."""

    dataset: str  # what to call it
    remark: str  # on the data set; may be empty
    class_names: tuple[str, ...]
    metric: str  # its name
    headline: str  # the heading of the value by which models are ranked
    tta: bool
    date: str
    versions: dict[str, str]
    models: tuple[Compared, ...]
    pairs: tuple[Pairing, ...]  # each model but the first, against the first
    shown: tuple[Shown, ...]  # the images with the greatest disagreement first


def headline_in(summary: Summary, headline: str) -> Interval:
    """The value under the headline, which every metric has as a share."""
    rows: list[Row] = [overview.row for overview in summary.overviews()]
    value = next(row[headline] for row in rows if headline in row)
    assert isinstance(value, Interval)
    return value
