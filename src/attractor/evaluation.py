"""How good a model, or somebody's label images, are on annotated images: validation and final score alike."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from attractor.datasets import Dataset, Sample
from attractor.datasets.classes import renumbered_objects
from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics import METRICS, Metric
from attractor.metrics.metric import Pair, Row, Scores, Summary, Table
from attractor.prediction.image import Segmenter
from attractor.tables import as_text

TUNING_PIXELS = 1 << 25  # of the images that thresholds are tuned on: their maps take some 700 MB


NOT_IN_FILES = {"json": False}


@dataclass(frozen=True)
class Evaluation:
    """Scores of every image, of all together, and of groups of them, in the records of the metric.

    As text it is the tables that `attractor evaluate` prints.
    """

    images: tuple[Scores, ...]  # without those that the metric leaves out
    summary: Summary
    groups: dict[str, Summary]  # value of the column to its summary; empty without one
    class_names: tuple[str, ...] = field(default=(), metadata=NOT_IN_FILES)
    column: str = field(default="", metadata=NOT_IN_FILES)  # that the groups come from

    def tables(self) -> list[Table]:
        """The values in short, with a row for each group; and what else there is to say of all images."""
        short = [
            Table(overview.title, {"all": self._row(self.summary, place), **self._of_groups(place)}, self.column)
            for place, overview in enumerate(self.summary.overviews())
            if self.groups or not overview.is_in_tables
        ]
        return [*short, *self.summary.tables(self.class_names)]

    def _of_groups(self, place: int) -> dict[str, Row]:
        return {name or "(no value)": self._row(group, place) for name, group in self.groups.items()}

    @staticmethod
    def _row(summary: Summary, place: int) -> Row:
        return {"images": summary.n_images, **summary.overviews()[place].row}

    def as_json(self) -> dict[str, object]:
        """Every number in it, plain, but for what a record says is too much for a file."""
        return {name: plain(getattr(self, name)) for name in ("images", "summary", "groups")}

    def __str__(self) -> str:
        return as_text(self.tables())


def metric_named(name: str) -> Metric:
    """The entry of METRICS.

    Raises:
        InputError: if there is none of this name; the message lists those that there are.
    """
    if name not in METRICS:
        raise InputError(f'There is no metric "{name}"; there are: {", ".join(METRICS)}.')
    return METRICS[name]


def scored_by(
    metric: str, segmenter: Segmenter, dataset: Dataset, *, tta: bool = False
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what of the model the metric scores: its proposals, or the objects it finds."""
    if n := metric_named(metric).n_proposals:
        pairs = proposed(segmenter, dataset, n, tta=tta)
    else:
        pairs = predicted(segmenter, dataset, tta=tta)
    numbers = class_numbers(segmenter.class_names, dataset.class_names)
    return pairs if numbers is None else ((sample, renumbered_objects(found, numbers)) for sample, found in pairs)


def class_numbers(own: Sequence[str], true: Sequence[str]) -> tuple[int, ...] | None:
    """For each class of a model, the number of the data set's class of the same name; 0 where it has none.

    A single class that the model does not know is that of all its objects. Where no name is on both sides, numbers are
    taken to mean the same; None where they do.
    """
    if len(true) == 1 < len(own) and true[0] not in own:
        return (1,) * len(own)
    if not set(own) & set(true):
        return None if len(own) <= len(true) else tuple(n if n <= len(true) else 0 for n in range(1, len(own) + 1))
    if len(own) == len(true) == 1:
        return None
    return tuple(true.index(name) + 1 if name in true else 0 for name in own)


def predicted(segmenter: Segmenter, dataset: Dataset, *, tta: bool = False) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what the model finds in it."""
    for index in range(len(dataset)):
        sample = dataset[index]
        yield sample, segmenter.segment(sample.image, tta=tta, name=sample.name)


def proposed(
    segmenter: Segmenter, dataset: Dataset, n: int, *, tta: bool = False
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with the model's best n proposals, masks that may overlap."""
    for index in range(len(dataset)):
        sample = dataset[index]
        yield sample, segmenter.propose(sample.image, n, tta=tta, name=sample.name)


def evaluate(
    pairs: Iterable[tuple[Sample, Instances]],
    *,
    by: Mapping[str, str] | None = None,
    column: str = "",
    class_names: Sequence[str] = (),
    metric: str = "average_precision",
    results: Callable[[Iterable[tuple[str, Instances]]], None] | None = None,
) -> Evaluation:
    """Score what was found against the truth, image after image; none is kept.

    Args:
        pairs: each annotated image with what was found in it.
        by: image name to the group it is summarised with. A group whose images the metric leaves out is not there.
        column: what to call the groups in tables.
        class_names: of classes 1, 2 and so on, for tables; a metric with classes then shows each.
        metric: a name in METRICS.
        results: is given the name of each image and what was found there, one after another, to write it.

    Raises:
        InputError: if there is no image to score, or no such metric.
    """
    scoring = metric_named(metric)
    images: list[Scores] = []

    def scored() -> Iterator[tuple[str, Instances]]:
        for sample, found in pairs:
            if (scores := scoring.score_image(pair_of(sample, found))) is not None:
                images.append(scores)
            yield sample.name, found

    deque(scored(), 0) if results is None else results(scored())
    summary = scoring.summarise(images)
    return Evaluation(tuple(images), summary, summaries_of(scoring, images, by), tuple(class_names), column)


def summaries_of(metric: Metric, images: Iterable[Scores], by: Mapping[str, str] | None) -> dict[str, Summary]:
    """The summary of each group of images, in the order of the groups' names; none without groups."""
    if by is None:
        return {}
    groups: dict[str, list[Scores]] = {}
    for image in images:
        groups.setdefault(by.get(image.name, ""), []).append(image)
    return {name: metric.summarise(groups[name]) for name in sorted(groups)}


def pair_of(sample: Sample, found: Instances) -> Pair:
    """An annotated image and what was found in it, as metrics want them."""
    truth = Instances(sample.labels, sample.classes, np.ones(len(sample.classes), np.float32))
    return Pair(sample.name, truth, found, sample.ignore, sample.annotate)


def score_pair(sample: Sample, found: Instances, *, metric: str = "average_precision") -> Scores | None:
    """Scores of one image, ignored pixels aside, in the metric's record; None where it leaves the image out."""
    return metric_named(metric).score_image(pair_of(sample, found))


def headline_of(metric: str) -> Callable[[Sequence[Scores]], float]:
    """The value of a metric to choose models and thresholds by, of a list of images' scores; 0 where nothing counts.

    Raises:
        InputError: if there is no such metric, or it ranks proposals, which thresholds do not change.
    """
    scoring = metric_named(metric)
    if scoring.n_proposals:
        able = ", ".join(name for name, one in METRICS.items() if not one.n_proposals)
        raise InputError(f'Nothing can be chosen by the metric "{metric}"; by these it can: {able}.')

    def value(images: Sequence[Scores]) -> float:
        return 0.0 if math.isnan(known := scoring.value(images)) else known

    return value


def tune(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    rounds: int = 2,
    tta: bool = False,
    metric: str = "average_precision",
) -> dict[str, Any]:
    """The thresholds of the method with the best score on these images; they are set in the model.

    One threshold after another is tried over the method's candidates, with the others held. Of many or large images
    an evenly spread part is used, so that their maps fit into memory.

    Args:
        segmenter: the model; its thresholds as they stand are where the search begins.
        dataset: annotated images that were not trained on.
        rounds: how often to go around.
        tta: tune for prediction with test-time augmentation.
        metric: a name in METRICS that does not rank proposals.
    """
    headline, method = headline_of(metric), segmenter.model.method
    samples = [_drawn(sample) for sample in _spread(dataset, TUNING_PIXELS)]
    maps = [_on_cpu(segmenter.maps(segmenter.prepared(sample.image, name=sample.name), tta=tta)) for sample in samples]

    def mean_score() -> float:
        pairs = zip(samples, itertools.chain.from_iterable(map(method.group, maps)), strict=True)
        scores = (score_pair(*pair, metric=metric) for pair in pairs)
        return headline([image for image in scores if image is not None])

    best = mean_score()
    for _ in range(rounds):
        for name, candidates in method.threshold_candidates.items():
            kept = method.thresholds[name]
            for candidate in candidates:
                method.thresholds[name] = candidate
                score = mean_score()
                if score > best:
                    best, kept = score, candidate
            method.thresholds[name] = kept
    return dict(method.thresholds)


def _drawn(sample: Sample) -> Sample:
    """The sample with its annotations drawn once, for those who ask often."""
    if sample.annotate is None:
        return sample
    annotate = functools.cache(sample.annotate)
    return dataclasses.replace(sample, annotate=annotate)


def _on_cpu(maps: Any) -> Any:
    """A method's maps off the accelerator, whose memory all of them together may not fit."""
    return type(maps)(**{field.name: getattr(maps, field.name).cpu() for field in dataclasses.fields(maps)})


def _spread(dataset: Dataset, n_pixels: int) -> list[Sample]:
    """Images evenly spread over the data set, about as many as have this many pixels together, at least one."""
    first = dataset[0]
    n = min(len(dataset), max(1, n_pixels // first.labels.size))
    return [dataset[int(i)] for i in np.linspace(0, len(dataset) - 1, n).round()]


def plain(value: Any) -> Any:
    """Records as dictionaries, arrays as lists, and what is no number as None, however deep."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (field.name for field in dataclasses.fields(value) if field.metadata.get("json", True))
        return {name: plain(getattr(value, name)) for name in shown}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and math.isnan(value) else value
