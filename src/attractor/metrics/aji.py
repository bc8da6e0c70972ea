"""The aggregated Jaccard index of nuclei, AJI, and AJI+, which uses each found object only once.

Each true object takes the found one with the highest IoU. The index is the sum of all intersections, divided by the sum
of all unions together with the areas of true objects that nothing overlaps and of found objects that none took. In
*AJI* two true objects may take the same found one, whose pixels then count twice; in *AJI+* they may not, and the pairs
are those with the highest sum of IoU. There is no threshold. Both are given *by image*, the mean over images, which
papers report, and *pooled*, from sums over all images; each with a 95 % bootstrap interval over images. Classes are
disregarded.

Of found objects with the same IoU, a true object takes the one with more pixels in common, then the one with the lower
label. If several sets of pairs have the highest sum of IoU, it is not defined which one AJI+ takes.

Where nothing is there and nothing is found, both are 1 by this project's convention.

Source: Kumar et al. 2017 (doi:10.1109/TMI.2017.2677499), algorithm 1; AJI+: Graham et al. 2019
(doi:10.1016/j.media.2019.101563), as in its code, `get_fast_aji_plus`.

Shapes: `k` true objects, `j` found objects, `p` overlapping pairs, `q` pairs taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from attractor.errors import InputError
from attractor.instances import areas, relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import (
    Interval,
    bootstrap_weights,
    estimate,
    mean_over_images,
    paired_by_name,
)
from attractor.metrics.metric import Benchmark, Overview, Pair, Row, Scores, Table
from attractor.metrics.overlaps import Pairs, mostly_ignored, overlapping_pairs, without


@dataclass(frozen=True)
class AjiScores(Scores):
    """Scores of one image, and the sums of pixels that they are quotients of."""

    aji: float
    aji_plus: float
    intersection: int
    union: int  # with what is left over on both sides
    intersection_plus: int
    union_plus: int
    n_truth: int
    n_found: int


@dataclass(frozen=True)
class AjiSummary:
    """Scores of a data set."""

    aji: Interval  # mean over images
    aji_plus: Interval
    pooled_aji: Interval  # from sums over images
    pooled_aji_plus: Interval
    n_truth: int
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """Both indices, by image and pooled."""
        row: Row = {
            "objects": self.n_truth,
            "AJI": self.aji,
            "AJI+": self.aji_plus,
            "pooled AJI": self.pooled_aji,
            "pooled AJI+": self.pooled_aji_plus,
        }
        return [Overview("Aggregated Jaccard index, by image and pooled", row)]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """No further tables."""
        return []


@dataclass(frozen=True)
class AjiDifference:
    """Means over images of one result's scores minus another's, with paired intervals."""

    aji: Interval
    aji_plus: Interval
    n_images: int

    def row(self) -> Row:
        """Differences of the means over images."""
        return {"AJI": self.aji, "AJI+": self.aji_plus}


def aggregated_jaccard_index(truth: Images, found: Images, *, ignore: Masks = None, seed: int = 0) -> AjiSummary:
    """AJI and AJI+ of one image or of several, by image and pooled.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order.
        ignore: masks of pixels that count for nothing.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import aggregated_jaccard_index
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> found = np.array([[1, 1, 1, 0, 0, 0, 0]])
    >>> aggregated_jaccard_index(truth, found).aji.value  # 3 shared pixels of 4 + 2
    0.5
    """
    return summarise([score_image(pair) for pair in pairs_of(truth, found, ignore)], seed)


def score_image(pair: Pair) -> AjiScores:
    """Scores of one image; objects are those of the label images, where each pixel has one owner.

    Ignored pixels do not count: a true object without any other pixel is left out; a found one with more than half
    of its pixels there may be taken, but adds nothing to the union if it is not.

    Raises:
        InputError: if a label is negative.
    """
    forgiven = mostly_ignored(pair.found.labels, pair.ignore)
    true_labels, true_ids = relabel(without(pair.truth.labels, pair.ignore))
    found_labels, found_ids = relabel(pair.found.labels)
    found_labels = without(found_labels, pair.ignore)
    true_areas, found_areas = areas(true_labels, len(true_ids)), areas(found_labels, len(found_ids))
    pairs = overlapping_pairs(true_labels, found_labels)
    intersection, union = _sums(pairs.where(_best(pairs)), true_areas, found_areas, forgiven)
    intersection_plus, union_plus = _sums(pairs.where(_one_to_one(pairs)), true_areas, found_areas, forgiven)
    return AjiScores(
        pair.name,
        intersection / union if union else 1.0,
        intersection_plus / union_plus if union_plus else 1.0,
        intersection,
        union,
        intersection_plus,
        union_plus,
        len(true_ids),
        len(found_ids),
    )


def summarise(images: Sequence[AjiScores], seed: int = 0) -> AjiSummary:
    """Scores of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    Raises:
        InputError: if there is no image.
    """
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    means = mean_over_images(np.array([[image.aji, image.aji_plus] for image in images]), seed)
    weights = bootstrap_weights(len(images), seed)
    sums = np.array([[image.intersection, image.intersection_plus, image.union, image.union_plus] for image in images])
    pooled = estimate(_quotients(sums.sum(0, keepdims=True).astype(float))[0], _quotients(weights @ sums))
    return AjiSummary(
        aji=means.at(0),
        aji_plus=means.at(1),
        pooled_aji=pooled.at(0),
        pooled_aji_plus=pooled.at(1),
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def paired_difference(a: Sequence[AjiScores], b: Sequence[AjiScores], seed: int = 0) -> AjiDifference:
    """Scores of `a` minus those of `b`, image by image, paired by name; above 0, `a` is better.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    pairs = paired_by_name(a, b)
    differences = [[one.aji - other.aji, one.aji_plus - other.aji_plus] for one, other in pairs]
    means = mean_over_images(np.array(differences, float), seed)
    return AjiDifference(means.at(0), means.at(1), len(a))


def _best(pairs: Pairs) -> Int[np.ndarray, " q"]:
    """The pair of each true object with its best found one."""
    order = np.lexsort((pairs.found, -pairs.shared, -pairs.iou, pairs.truth))
    return order[np.unique(pairs.truth[order], return_index=True)[1]]


def _one_to_one(pairs: Pairs) -> Int[np.ndarray, " q"]:
    """The pairs with the highest sum of IoU, no object twice."""
    # Objects that no overlaps link do not compete, so each group is solved alone, without a table of all pairs.
    group = _groups(pairs)
    order = np.argsort(group, kind="stable")
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    taken = [_assigned(pairs, members) for members in np.split(order, starts[1:])]
    return np.concatenate(taken)


def _groups(pairs: Pairs) -> Int[np.ndarray, " p"]:
    """For each pair, the number of its group of objects linked by overlaps."""
    n_truth, n_found = int(pairs.truth.max(initial=-1)) + 1, int(pairs.found.max(initial=-1)) + 1
    n = n_truth + n_found
    links = coo_array((np.ones(len(pairs.iou), np.int8), (pairs.truth, n_truth + pairs.found)), shape=(n, n))
    return connected_components(links, directed=False)[1][pairs.truth].astype(np.int64) if n else pairs.truth


def _assigned(pairs: Pairs, members: Int[np.ndarray, " m"]) -> Int[np.ndarray, " q"]:
    """The best of one group's pairs."""
    if len(members) < 2:
        return members
    truth, row = np.unique(pairs.truth[members], return_inverse=True)
    found, column = np.unique(pairs.found[members], return_inverse=True)
    iou, place = np.zeros((len(truth), len(found))), np.full((len(truth), len(found)), -1)
    iou[row, column], place[row, column] = pairs.iou[members], members
    taken = place[linear_sum_assignment(iou, maximize=True)]
    return taken[taken >= 0]


def _sums(
    taken: Pairs,
    true_areas: Int[np.ndarray, " k"],
    found_areas: Int[np.ndarray, " j"],
    forgiven: Bool[np.ndarray, " j"],
) -> tuple[int, int]:
    """The summed intersections of the pairs taken, and their summed unions plus the areas of what is left over."""
    intersection = int(taken.shared.sum())
    union = int((true_areas[taken.truth] + found_areas[taken.found]).sum()) - intersection
    missed, wrong = np.ones(len(true_areas), bool), ~forgiven
    missed[taken.truth] = False
    wrong[taken.found] = False
    return intersection, union + int(true_areas[missed].sum()) + int(found_areas[wrong].sum())


def _quotients(sums: Float[np.ndarray, "n 4"]) -> Float[np.ndarray, "n 2"]:
    """AJI and AJI+ from both intersections and both unions; 1 where there is nothing."""
    return np.divide(sums[:, :2], sums[:, 2:], out=np.ones((len(sums), 2)), where=sums[:, 2:] > 0)


AJI = Benchmark(
    AjiScores,
    score_image,
    summarise,
    paired_difference,
    lambda images: float(np.mean([image.aji for image in images])),
    about="aggregated Jaccard index of nuclei, AJI and AJI+",
    headline="AJI",
    terms={
        "AJI": "Each true object takes the found one that it fits best: the sum of all shared areas over the sum of "
        "all areas covered by either, plus those of objects left without a partner.",
        "AJI+": "The same, with no found object taken twice.",
        "pooled": "The sums are taken over all images, so that each pixel has the same weight.",
    },
)
