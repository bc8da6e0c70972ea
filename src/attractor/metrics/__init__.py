"""One benchmark a file, its matching rule written out there; `METRICS` lists them by name.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool

from attractor.instances import Instances
from attractor.metrics import (
    aji,
    average_precision,
    average_recall,
    boundary,
    cityscapes,
    coco,
    cvppp,
    panoptic,
    pascal_voc,
)


@dataclass(frozen=True)
class Metric:
    """A benchmark as evaluation calls it; what its three functions give is the benchmark's own.

    `score_image(truth, found, *, name, ignore)` takes the `Instances` of one image, and gives None for an image that
    the benchmark leaves out; with `counts_annotations`, truth is the image's `Annotations` instead, and there is no
    `ignore`. `summarise(images)` takes such scores, `paired_difference(a, b)` two such lists.
    """

    score_image: Callable[..., Any]
    summarise: Callable[..., Any]
    paired_difference: Callable[..., Any]
    n_proposals: int = 0  # how many of each image it ranks; 0: it scores the objects found
    has_classes: bool = False  # whether an object must have the right class
    counts_annotations: bool = False  # whether overlaps, crowds and void count as annotated
    headline: Callable[..., float] | None = None  # of a list of scores the one number to choose by, without interval


def _precision(
    truth: Instances, found: Instances, *, name: str, ignore: Bool[np.ndarray, "h w"]
) -> average_precision.ImageScores:
    return average_precision.score_image(
        truth.labels,
        found.labels,
        name=name,
        ignore=ignore,
        truth_classes=truth.classes,
        found_classes=found.classes,
    )


def _leaves(truth: Instances, found: Instances, *, name: str, ignore: Bool[np.ndarray, "h w"]) -> cvppp.LeafScores:
    return cvppp.score_image(truth.labels, found.labels, name=name, ignore=ignore)


def _recall(
    truth: Instances, found: Instances, *, name: str, ignore: Bool[np.ndarray, "h w"]
) -> average_recall.RecallScores | None:
    return average_recall.score_image(truth.labels, found, name=name, ignore=ignore)


METRICS = {
    "average_precision": Metric(
        _precision,
        average_precision.summarise,
        average_precision.paired_difference,
        has_classes=True,
        headline=average_precision.mean_average_precision,
    ),
    "cityscapes": Metric(
        cityscapes.score_image,
        cityscapes.summarise,
        cityscapes.paired_difference,
        has_classes=True,
        counts_annotations=True,
        headline=cityscapes.mean_average_precision,
    ),
    "coco": Metric(
        coco.score_image,
        coco.summarise,
        coco.paired_difference,
        has_classes=True,
        counts_annotations=True,
        headline=coco.mean_average_precision,
    ),
    "cvppp": Metric(_leaves, cvppp.summarise, cvppp.paired_difference),
    "average_recall": Metric(
        _recall,
        average_recall.summarise,
        average_recall.paired_difference,
        n_proposals=max(average_recall.LIMITS),
    ),
    "panoptic": Metric(panoptic.score_image, panoptic.summarise, panoptic.paired_difference, has_classes=True),
    "aji": Metric(aji.score_image, aji.summarise, aji.paired_difference),
    "boundary": Metric(boundary.score_image, boundary.summarise, boundary.paired_difference),
    "pascal_voc": Metric(pascal_voc.score_image, pascal_voc.summarise, pascal_voc.paired_difference, has_classes=True),
}
