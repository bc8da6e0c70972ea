"""SEG, the segmentation accuracy of the Cell Tracking Challenge: how well each true object is covered.

A true object is matched by the found one that covers more than half of its pixels, and counts with their IoU; without
such an object it counts 0. SEG is the mean over all true objects; found objects that match none cost nothing. It is
also given *by image*, the mean over the images that have a true object. Both have 95 % bootstrap intervals over images.
Classes are disregarded.

Source: Maska et al. 2014, "A benchmark for comparison of cell tracking algorithms"; Ulman et al. 2017.
Shapes: `n` images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from attractor.errors import InputError
from attractor.instances import areas, relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Interval, bootstrap_weights, estimate, mean_over_images, paired_by_name
from attractor.metrics.metric import Benchmark, Overview, Pair, Row, Scores, Table
from attractor.metrics.overlaps import covers_most, overlapping_pairs, without


@dataclass(frozen=True)
class SegScores(Scores):
    """The sum over the true objects of one image."""

    total: float  # of the IoU of those that are matched
    n_truth: int
    n_found: int


@dataclass(frozen=True)
class SegSummary:
    """Scores of a data set."""

    seg: Interval  # mean over true objects
    by_image: Interval  # mean over images
    n_truth: int
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """SEG over all objects, and by image."""
        row: Row = {"objects": self.n_truth, "SEG": self.seg, "SEG by image": self.by_image}
        return [Overview("SEG of the Cell Tracking Challenge", row)]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """No further tables."""
        return []


@dataclass(frozen=True)
class SegDifference:
    """One result's SEG minus another's, with paired intervals."""

    seg: Interval
    by_image: Interval
    n_images: int

    def row(self) -> Row:
        """Differences over all objects, and of the means over images."""
        return {"SEG": self.seg, "SEG by image": self.by_image}


def segmentation_accuracy(truth: Images, found: Images, *, ignore: Masks = None, seed: int = 0) -> SegSummary:
    """SEG of one image or of several.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order.
        ignore: masks of pixels that count for nothing.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, none has a true object, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import segmentation_accuracy
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> found = np.array([[1, 1, 1, 0, 0, 2, 0]])
    >>> segmentation_accuracy(truth, found).seg.value  # 3/4 of one; half of the other is no match
    0.375
    """
    scores = [score_image(pair) for pair in pairs_of(truth, found, ignore)]
    return summarise([one for one in scores if one is not None], seed)


def score_image(pair: Pair) -> SegScores | None:
    """The score of one image; None for an image without a true object. Ignored pixels do not count."""
    truth, true_ids = relabel(without(pair.truth.labels, pair.ignore))
    found, found_ids = relabel(without(pair.found.labels, pair.ignore))
    if not len(true_ids):
        return None
    pairs = overlapping_pairs(truth, found)
    is_match = covers_most(pairs.truth, pairs.shared, areas(truth, len(true_ids)))
    return SegScores(pair.name, float(pairs.iou[is_match].sum()), len(true_ids), len(found_ids))


def summarise(images: Sequence[SegScores], seed: int = 0) -> SegSummary:
    """Scores of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    Raises:
        InputError: if there is no image.
    """
    if not images:
        raise InputError("There is no image with a true object to score: a data set needs at least one.")
    totals = np.array([[image.total] for image in images])
    pooled, by_image = _both(totals, [image.n_truth for image in images], seed)
    return SegSummary(
        seg=pooled,
        by_image=by_image,
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def paired_difference(a: Sequence[SegScores], b: Sequence[SegScores], seed: int = 0) -> SegDifference:
    """Scores of `a` minus those of `b`, image by image, paired by name; above 0, `a` is better.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    pairs = paired_by_name(a, b)
    totals = np.array([[one.total - other.total] for one, other in pairs])
    return SegDifference(*_both(totals, [one.n_truth for one, _ in pairs], seed), len(a))


def _both(totals: Float[np.ndarray, "n 1"], n_truth: Sequence[int], seed: int) -> tuple[Interval, Interval]:
    """Sums over each image's objects as the mean over all objects, and as the mean over images of each one's own."""
    objects = np.array(n_truth, float)[:, None]
    weights = bootstrap_weights(len(totals), seed)
    pooled = estimate(totals.sum(0) / objects.sum(), (weights @ totals) / (weights @ objects))
    return pooled.at(0), mean_over_images(totals / objects, seed).at(0)


def _value(images: Sequence[SegScores]) -> float:
    return sum(image.total for image in images) / max(1, sum(image.n_truth for image in images))


SEG = Benchmark(
    SegScores,
    score_image,
    summarise,
    paired_difference,
    _value,
    about="SEG of the Cell Tracking Challenge: the mean IoU of true objects",
    headline="SEG",
    terms={
        "SEG": "The mean over true objects of the IoU with the found object that covers more than half of them, 0 "
        "where there is none. Found objects too many cost nothing.",
        "by image": "The mean over images of their own SEG, so that each image has the same weight.",
    },
)
