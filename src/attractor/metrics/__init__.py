"""One benchmark in each file, with its matching rule written out.

`METRICS` lists those of images by name, and `FILM_METRICS` those of tracks.

Each benchmark has a function that takes true and found label images: `panoptic_quality(truth, found)` and its siblings
below. What evaluation and comparison ask of a metric is in `attractor.metrics.metric`.

Example:
    >>> import numpy as np, attractor
    >>> truth = np.array([[1, 1, 0], [0, 0, 2]])
    >>> found = np.array([[1, 1, 0], [0, 0, 0]])
    >>> attractor.metrics.average_precision(truth, found).mean_average_precision.value
    0.5
"""

from __future__ import annotations

from typing import Any

from attractor.metrics.aji import AJI, aggregated_jaccard_index
from attractor.metrics.average_precision import AVERAGE_PRECISION, average_precision
from attractor.metrics.average_recall import AVERAGE_RECALL, average_recall
from attractor.metrics.boundary import BOUNDARY, boundary_f
from attractor.metrics.cityscapes import CITYSCAPES, cityscapes_average_precision
from attractor.metrics.coco import COCO, coco_average_precision
from attractor.metrics.ctc import CTC
from attractor.metrics.cvppp import CVPPP, symmetric_best_dice
from attractor.metrics.films import FilmMetric
from attractor.metrics.metric import Metric
from attractor.metrics.mots import MOTS
from attractor.metrics.panoptic import PANOPTIC, panoptic_quality
from attractor.metrics.pascal_voc import PASCAL_VOC, pascal_voc_average_precision
from attractor.metrics.seg import SEG, segmentation_accuracy

__all__ = [
    "FILM_METRICS",
    "METRICS",
    "FilmMetric",
    "Metric",
    "aggregated_jaccard_index",
    "average_precision",
    "average_recall",
    "boundary_f",
    "cityscapes_average_precision",
    "coco_average_precision",
    "panoptic_quality",
    "pascal_voc_average_precision",
    "segmentation_accuracy",
    "symmetric_best_dice",
]

METRICS: dict[str, Metric] = {
    "average_precision": AVERAGE_PRECISION,
    "coco": COCO,
    "cityscapes": CITYSCAPES,
    "pascal_voc": PASCAL_VOC,
    "panoptic": PANOPTIC,
    "aji": AJI,
    "boundary": BOUNDARY,
    "cvppp": CVPPP,
    "average_recall": AVERAGE_RECALL,
    "seg": SEG,
}

FILM_METRICS: dict[str, FilmMetric[Any]] = {
    "ctc": CTC,
    "mots": MOTS,
}
