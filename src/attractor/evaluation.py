"""How good a model, or somebody's label images, are on annotated images: validation and final score alike."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from attractor.datasets import Dataset, Sample
from attractor.datasets.classes import renumbered_objects
from attractor.errors import InputError
from attractor.instances import Annotations, Instances
from attractor.metrics import METRICS, Metric
from attractor.prediction.image import Segmenter

SHOWN = (0.5, 0.75, 0.9)  # IoU thresholds of the table; the JSON has all ten
TUNING_PIXELS = 1 << 25  # of the images that thresholds are tuned on: their maps take some 700 MB


@dataclass(frozen=True)
class Evaluation:
    """Scores of every image, of all together, and of groups of them, in the records of the metric."""

    images: tuple[Any, ...]  # without those that the metric leaves out
    summary: Any
    groups: dict[str, Any]  # value of the column to its summary; empty without one


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
    by: dict[str, str] | None = None,
    metric: str = "average_precision",
    results: Callable[[Iterable[tuple[str, Instances]]], None] | None = None,
) -> Evaluation:
    """Score what was found against the truth.

    Args:
        pairs: each annotated image with what was found in it.
        by: image name to the group it is summarised with. A group whose images the metric leaves out is not there.
        metric: a name in METRICS.
        results: is given the name of each image and what was found there, one after another, to write it.

    Raises:
        InputError: if there is no image to score, or no such metric.
    """
    summarise = metric_named(metric).summarise
    scores: list[Any] = []

    def scored() -> Iterator[tuple[str, Instances]]:
        for sample, found in pairs:
            scores.append(score_pair(sample, found, metric=metric))
            yield sample.name, found

    deque(scored(), 0) if results is None else results(scored())
    images = tuple(image for image in scores if image is not None)
    groups: dict[str, list[Any]] = {}
    if by is not None:
        for image in images:
            groups.setdefault(by.get(image.name, ""), []).append(image)
    return Evaluation(images, summarise(images), {name: summarise(groups[name]) for name in sorted(groups)})


def score_pair(sample: Sample, found: Instances, *, metric: str = "average_precision") -> Any:
    """Scores of one image, ignored pixels aside, in the metric's record; None where it leaves the image out."""
    if sample.labels.shape != found.labels.shape:
        raise InputError(
            f"{sample.name}: the label image found has shape {found.labels.shape}, the true one {sample.labels.shape}; "
            "they must be of the same image at the same size."
        )
    truth = Instances(sample.labels, sample.classes, np.ones(len(sample.classes), np.float32))
    scoring = metric_named(metric)
    if scoring.counts_annotations:
        annotations = sample.annotate() if sample.annotate is not None else Annotations.of(truth, sample.ignore)
        return scoring.score_image(annotations, found, name=sample.name)
    return scoring.score_image(truth, found, name=sample.name, ignore=sample.ignore)


def headline_of(metric: str) -> Callable[[Sequence[Any]], float]:
    """The one number of a metric to choose by, of a list of images' scores.

    Raises:
        InputError: if there is no such metric, or it has no such number.
    """
    headline = metric_named(metric).headline
    if headline is None:
        able = ", ".join(name for name, one in METRICS.items() if one.headline is not None)
        raise InputError(f'Nothing can be chosen by the metric "{metric}"; by these it can: {able}.')
    return headline


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
        metric: a name in METRICS that has a headline.
    """
    headline, method = headline_of(metric), segmenter.model.method
    samples = [_drawn(sample) for sample in _spread(dataset, TUNING_PIXELS)]
    maps = [_on_cpu(segmenter.maps(segmenter.prepared(sample.image, name=sample.name), tta=tta)) for sample in samples]

    def mean_score() -> float:
        pairs = zip(samples, itertools.chain.from_iterable(map(method.group, maps)), strict=True)
        return headline([score_pair(*pair, metric=metric) for pair in pairs])

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


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything in it as plain numbers and lists, but for what a record says is too much for a file."""
    return plain(evaluation)


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
