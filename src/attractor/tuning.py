"""Thresholds of a model, chosen by its score on validation images."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from attractor.datasets import Dataset, Sample
from attractor.errors import InputError
from attractor.evaluation import as_given, metric_named, score_pair
from attractor.methods.contract import each_changed
from attractor.metrics import METRICS
from attractor.metrics.metric import Scores
from attractor.prediction.image import Segmenter
from attractor.prediction.resampling import resized

TUNING_PIXELS = 1 << 25  # of the images that thresholds are tuned on: their maps take some 700 MB


def headline_of(metric: str) -> Callable[[Sequence[Scores]], float]:
    """The value by which a metric chooses models and thresholds, from the scores of images; 0 if nothing counts.

    Raises:
        InputError: if there is no such metric, or it ranks proposals, which thresholds do not change.
    """
    scoring = metric_named(metric)
    if scoring.n_proposals:
        able = ", ".join(name for name, one in METRICS.items() if not one.n_proposals)
        raise InputError(f'The metric "{metric}" cannot choose a model or thresholds; these can: {able}.')

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
    candidates: Mapping[str, Sequence[float]] | None = None,
    least_gain: float = 0.0,
    deal: Callable[[Sequence[Any]], Sequence[Any]] = list,
    gather: Callable[[Sequence[Any]], Sequence[Any]] = list,
) -> dict[str, float]:
    """The thresholds of the method with the best score on these images; they are set in the model.

    Each threshold in turn is tried at the method's candidate values while the others stay fixed. If there are many or
    large images, only some of them, evenly spread over the data set, are used, so that their maps fit into memory.

    Args:
        segmenter: the model; the search begins at its present thresholds.
        dataset: annotated images that were not trained on.
        rounds: how many times to go through all the thresholds.
        tta: tune for prediction with test-time augmentation.
        metric: a name in METRICS that does not rank proposals.
        candidates: values to try for some thresholds; by default the method's, for all.
        least_gain: by how much another value must be better; by default, by anything.
        deal: which of the images to look at, where several processes share them.
        gather: the scores of all processes, from those of this one.
    """
    headline, method = headline_of(metric), segmenter.model.method
    # moved off the accelerator, whose memory may not hold the maps of all images
    samples = [_drawn(sample) for sample in _spread(dataset, TUNING_PIXELS, deal)]
    maps = [each_changed(one, Tensor.cpu) for one in segmenter.maps_of_each(map(as_given, samples), tta=tta)]

    def mean_score() -> float:
        found = itertools.chain.from_iterable(map(method.group, maps))
        pairs = ((sample, resized(one, sample.labels.shape)) for sample, one in zip(samples, found, strict=True))
        scores = gather([score_pair(*pair, metric=metric) for pair in pairs])
        return headline([image for image in scores if image is not None])

    best = mean_score()
    for _ in range(rounds):
        for name, values in (method.threshold_candidates if candidates is None else candidates).items():
            kept = method.thresholds[name]
            for candidate in values:
                method.thresholds[name] = candidate
                score = mean_score()
                if score > best + least_gain:
                    best, kept = score, candidate
            method.thresholds[name] = kept
    return dict(method.thresholds)


def _drawn(sample: Sample) -> Sample:
    """The sample with its annotations drawn only once, however often they are asked for."""
    if sample.annotate is None:
        return sample
    annotate = functools.cache(sample.annotate)
    return dataclasses.replace(sample, annotate=annotate)


def _spread(dataset: Dataset, n_pixels: int, deal: Callable[[Sequence[Any]], Sequence[Any]]) -> list[Sample]:
    """Images spread evenly over the data set: about as many as make up this many pixels, but at least one."""
    first = dataset[0]
    n = min(len(dataset), max(1, n_pixels // first.labels.size))
    return [dataset[int(i)] for i in deal(np.linspace(0, len(dataset) - 1, n).round().tolist())]
