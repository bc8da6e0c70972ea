"""The metrics of the leaf segmentation challenge: symmetric best Dice, difference in count, Dice of the foreground.

The Dice of two objects is twice the shared pixels over the sum of both areas. Best Dice takes each object of one
image with its best partner in the other, and averages over the objects; the *symmetric best Dice* is the lower of the
two directions. Partners may be shared: nothing is matched one to one. The *difference in count* is found minus true,
so below 0 where leaves were missed. The Dice of the *foreground* knows no objects, only leaf and background. Each is
taken by image and then averaged over images, with a 95 % bootstrap interval over images. The challenge has one class,
so classes are disregarded.

Labels are compacted first. The challenge's own scripts count labels from the lowest to the highest and take the lowest
for background: with a gap in the numbers they give other values.

Where nothing is found but something is there, or the other way round, both kinds of Dice are 0. Where nothing is
there and nothing is found they are 1 by this project's convention; the challenge has no such image.

Source: Scharr et al. 2016 (doi:10.1007/s00138-015-0737-3), section 3.

Shapes: `h` rows, `w` columns, `k` objects, `p` overlapping pairs, `i` images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.errors import InputError
from attractor.instances import relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Interval, mean_over_images, paired_by_name
from attractor.metrics.metric import Amount, Benchmark, Overview, Pair, Row, Scores, Table
from attractor.metrics.overlaps import mostly_ignored, overlapping_pairs, without

MEASURES = ("symmetric_best_dice", "difference_in_count", "absolute_difference_in_count", "foreground_dice")


@dataclass(frozen=True)
class LeafScores(Scores):
    """Scores of one image."""

    symmetric_best_dice: float  # the lower of the next two
    best_dice_of_truth: float  # mean over true objects of the best Dice with a found one
    best_dice_of_found: float  # mean over found objects of the best Dice with a true one
    difference_in_count: int  # found minus true
    foreground_dice: float
    n_truth: int
    n_found: int


@dataclass(frozen=True)
class LeafSummary:
    """Means over images."""

    symmetric_best_dice: Interval
    difference_in_count: Interval
    absolute_difference_in_count: Interval
    foreground_dice: Interval
    n_truth: int
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """Best Dice, counts, and the foreground."""
        return [
            Overview("Best Dice and counts, by image", _row(self), f"{self.n_truth} true, {self.n_found} found objects")
        ]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """No further tables."""
        return []


@dataclass(frozen=True)
class LeafDifference:
    """Means over images of one result's scores minus another's, with paired intervals."""

    symmetric_best_dice: Interval
    difference_in_count: Interval
    absolute_difference_in_count: Interval
    foreground_dice: Interval
    n_images: int

    def row(self) -> Row:
        """Differences of the means over images."""
        return _row(self)


def symmetric_best_dice(truth: Images, found: Images, *, ignore: Masks = None, seed: int = 0) -> LeafSummary:
    """Symmetric best Dice, difference in count and foreground Dice of one image or of several.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order.
        ignore: masks of pixels that count for nothing.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import symmetric_best_dice
    >>> truth = np.array([[1, 1, 0, 2], [1, 1, 0, 2]])
    >>> found = np.array([[1, 1, 0, 0], [1, 1, 0, 0]])
    >>> scores = symmetric_best_dice(truth, found)
    >>> scores.symmetric_best_dice.value, scores.difference_in_count.value
    (0.5, -1.0)
    """
    return summarise([score_image(pair) for pair in pairs_of(truth, found, ignore)], seed)


def score_image(pair: Pair) -> LeafScores:
    """Scores of one image; label numbers do not matter.

    Ignored pixels do not count: a true object without any other pixel is left out; a found one with more than half of
    its pixels there can be a partner, but is itself counted only if it matches a true object with an IoU of at least
    one half.

    Raises:
        InputError: if a label is negative.
    """
    forgiven = mostly_ignored(pair.found.labels, pair.ignore)
    truth, truth_ids = relabel(without(pair.truth.labels, pair.ignore))
    found, found_ids = relabel(pair.found.labels)
    found = without(found, pair.ignore)
    pairs = overlapping_pairs(truth, found)
    of_truth = _best(pairs.iou, pairs.truth, len(truth_ids))
    of_found = _best(pairs.iou, pairs.found, len(found_ids))
    of_found = of_found[~forgiven | (of_found >= 0.5)]
    n_truth, n_found = len(of_truth), len(of_found)
    best_of_truth, best_of_found = _mean_dice(of_truth, n_found), _mean_dice(of_found, n_truth)
    return LeafScores(
        pair.name,
        min(best_of_truth, best_of_found),
        best_of_truth,
        best_of_found,
        n_found - n_truth,
        _foreground_dice(truth > 0, found > 0),
        n_truth,
        n_found,
    )


def summarise(images: Sequence[LeafScores], seed: int = 0) -> LeafSummary:
    """Means with 95 % bootstrap intervals over images, the same for the same seed.

    Raises:
        InputError: if there is no image.
    """
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    return LeafSummary(
        **_means(np.array([_values(image) for image in images]), seed),
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def paired_difference(a: Sequence[LeafScores], b: Sequence[LeafScores], seed: int = 0) -> LeafDifference:
    """Scores of `a` minus those of `b`, image by image, paired by name.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    differences = np.array([_values(one) - _values(other) for one, other in paired_by_name(a, b)])
    return LeafDifference(**_means(differences, seed), n_images=len(a))


def _best(iou: Float[np.ndarray, " p"], owner: Int[np.ndarray, " p"], n: int) -> Float[np.ndarray, " n"]:
    """The highest IoU of each of n objects; 0 for one that overlaps nothing."""
    best = np.zeros(n)
    np.maximum.at(best, owner, iou)
    return best


def _mean_dice(iou: Float[np.ndarray, " k"], n_others: int) -> float:
    """Mean Dice of objects; 0 where only the other image has some, 1 where neither has."""
    if not len(iou):
        return 0.0 if n_others else 1.0
    return float(np.mean(2 * iou / (1 + iou)))


def _foreground_dice(truth: Bool[np.ndarray, "*s"], found: Bool[np.ndarray, "h w"]) -> float:
    """Dice of two masks; 1 where both are empty."""
    total = int(truth.sum()) + int(found.sum())
    return 2 * int((truth & found).sum()) / total if total else 1.0


def _row(means: LeafSummary | LeafDifference) -> Row:
    """The four means by the names they have in papers."""
    return {
        "SBD": means.symmetric_best_dice,
        "DiC": Amount(means.difference_in_count),
        "|DiC|": Amount(means.absolute_difference_in_count),
        "foreground Dice": means.foreground_dice,
    }


def _values(image: LeafScores) -> Float[np.ndarray, "4"]:
    """What is averaged over images, in the order of MEASURES."""
    difference = image.difference_in_count
    return np.array([image.symmetric_best_dice, difference, abs(difference), image.foreground_dice], float)


def _means(values: Float[np.ndarray, "i 4"], seed: int) -> dict[str, Interval]:
    """The four means by name, each with its interval."""
    means = mean_over_images(values, seed)
    return {measure: means.at(k) for k, measure in enumerate(MEASURES)}


CVPPP = Benchmark(
    LeafScores,
    score_image,
    summarise,
    paired_difference,
    lambda images: float(np.mean([image.symmetric_best_dice for image in images])),
    about="best Dice and counts, of leaves",
    headline="SBD",
    terms={
        "SBD": "Symmetric best Dice: the mean, over true objects, of twice the shared area over the sum of both areas "
        "with the best partner; the same over found objects; the lower of the two.",
        "DiC": "Difference in count, found minus true: below 0, objects are missed; above 0, too many are found.",
        "|DiC|": "The same without its sign: too many here do not make up for too few there.",
        "foreground Dice": "Twice the area that is foreground in both over the sum of both foregrounds.",
    },
)
