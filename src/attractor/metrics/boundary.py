"""Boundary F: how well the boundaries of all objects in an image are matched, within a tolerance in pixels.

The boundary of a label image is where two neighbouring pixels have different labels, so that objects that touch share
one, and objects that were merged lack it. Precision is the share of the found boundary that lies within the tolerance
of the true one, recall the share of the true boundary that lies within the tolerance of the found one, and F their
harmonic mean. All three are taken by image and then averaged over images, with a 95 % bootstrap interval over images.
It does not matter whose boundary it is, so this says how well objects are drawn, but little about whether each is found
as one object.

The boundary is one pixel wide: a pixel belongs to it if its neighbour to the right, below, or below to the right has
another label. The edge of the image is not a boundary, nor is that of ignored pixels. The tolerance is 0.75 % of
the image's diagonal unless given: 2.7 pixels at 256 x 256, 17 at 1024 x 2048. Distances are Euclidean, and one that
equals the tolerance is within it. Classes are disregarded.

If only one of the two has a boundary, all three are 0. If neither has one, each is all background or one object, and
all three are 1 if both are the same, else 0.

Source: F by image and its 0.75 %: Csurka et al. 2013 (doi:10.5244/C.27.32), there for each class; pixels of the
boundary: Martin et al. 2004 (doi:10.1109/TPAMI.2004.1273918), whose matching is one to one. The F of DAVIS, Perazzi et
al. 2016 (doi:10.1109/CVPR.2016.85), is this one on a single object, with a tolerance of 0.8 %, rounded up.

Shapes: `h` rows, `w` columns, `n` pixels of a boundary, `m` pixels of another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.spatial import cKDTree

from attractor.errors import InputError
from attractor.instances import relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Interval, mean_over_images, paired_by_name
from attractor.metrics.metric import Benchmark, Overview, Pair, Row, Scores, Table
from attractor.metrics.overlaps import without

SHARE_OF_DIAGONAL = 0.0075
MEASURES = ("boundary_f", "precision", "recall")


@dataclass(frozen=True)
class BoundaryScores(Scores):
    """Scores of one image."""

    boundary_f: float
    precision: float
    recall: float
    tolerance: float  # pixels
    n_truth: int
    n_found: int


@dataclass(frozen=True)
class BoundarySummary:
    """Means over images."""

    boundary_f: Interval
    precision: Interval
    recall: Interval
    n_truth: int
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """F, precision and recall."""
        row: Row = {"objects": self.n_truth, "F": self.boundary_f, "precision": self.precision, "recall": self.recall}
        return [Overview("Boundaries within the tolerance, by image", row)]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """No further tables."""
        return []


@dataclass(frozen=True)
class BoundaryDifference:
    """Means over images of one result's scores minus another's, with paired intervals."""

    boundary_f: Interval
    precision: Interval
    recall: Interval
    n_images: int

    def row(self) -> Row:
        """Differences of the means over images."""
        return {"F": self.boundary_f, "precision": self.precision, "recall": self.recall}


def boundary_f(
    truth: Images, found: Images, *, ignore: Masks = None, tolerance: float | None = None, seed: int = 0
) -> BoundarySummary:
    """F, precision and recall of the boundaries of one image or of several.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order.
        ignore: masks of pixels that count for nothing: a boundary runs between two pixels that count.
        tolerance: in pixels, 0 or more; None for 0.75 % of each image's diagonal.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, truth and found differ in shape, or the tolerance is below 0.

    >>> import numpy as np
    >>> from attractor.metrics import boundary_f
    >>> truth = np.array([[1, 1, 2, 2, 0, 0]])
    >>> merged = np.array([[1, 1, 1, 1, 0, 0]])
    >>> scores = boundary_f(truth, merged)
    >>> scores.precision.value, scores.recall.value
    (1.0, 0.5)
    """
    scores = [score_image(pair, tolerance=tolerance) for pair in pairs_of(truth, found, ignore)]
    return summarise(scores, seed)


def score_image(pair: Pair, *, tolerance: float | None = None) -> BoundaryScores:
    """Scores of one image; label numbers do not matter.

    Args:
        pair: a boundary runs between two pixels that are not ignored.
        tolerance: in pixels, 0 or more; None for 0.75 % of the image's diagonal.

    Raises:
        InputError: if a label is negative, or the tolerance is.
    """
    name, ignore = pair.name, pair.ignore
    within = SHARE_OF_DIAGONAL * float(np.hypot(*pair.truth.labels.shape)) if tolerance is None else tolerance
    if not within >= 0:
        raise InputError(f"The tolerance of a boundary is {tolerance} pixels; it must be 0 or more.")
    true_labels, true_ids = relabel(without(pair.truth.labels, ignore))
    found_labels, found_ids = relabel(without(pair.found.labels, ignore))
    true_pixels, found_pixels = (np.argwhere(boundaries(each, ignore)) for each in (true_labels, found_labels))
    if not len(true_pixels) and not len(found_pixels):
        same = float(bool(len(true_ids)) == bool(len(found_ids)))
        return BoundaryScores(name, same, same, same, within, len(true_ids), len(found_ids))
    precision = _share_near(found_pixels, true_pixels, within)
    recall = _share_near(true_pixels, found_pixels, within)
    both = precision + recall
    f = 2 * precision * recall / both if both else 0.0
    return BoundaryScores(name, f, precision, recall, within, len(true_ids), len(found_ids))


def boundaries(
    labels: Int[np.ndarray, "h w"], ignore: Bool[np.ndarray, "h w"] | None = None
) -> Bool[np.ndarray, "h w"]:
    """Pixels whose neighbour to the right, below, or below to the right has another label, where both count."""
    edge = np.zeros(labels.shape, bool)
    height, width = labels.shape
    for down, right in ((0, 1), (1, 0), (1, 1)):
        here = slice(height - down), slice(width - right)
        there = slice(down, height), slice(right, width)
        differ = labels[here] != labels[there]
        edge[here] |= differ if ignore is None else differ & ~(ignore[here] | ignore[there])
    return edge


def summarise(images: Sequence[BoundaryScores], seed: int = 0) -> BoundarySummary:
    """Means with 95 % bootstrap intervals over images, the same for the same seed.

    Raises:
        InputError: if there is no image.
    """
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    return BoundarySummary(
        **_means(np.array([_values(image) for image in images]), seed),
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def paired_difference(a: Sequence[BoundaryScores], b: Sequence[BoundaryScores], seed: int = 0) -> BoundaryDifference:
    """Scores of `a` minus those of `b`, image by image, paired by name; above 0, `a` is better.

    Raises:
        InputError: if there is no image, the two do not hold the same images, each once, or a pair was scored
            with different tolerances.
    """
    pairs = paired_by_name(a, b)
    for one, other in pairs:
        if one.tolerance != other.tolerance:
            raise InputError(
                f"{one.name} was scored with a tolerance of {one.tolerance:g} pixels in one result and of "
                f"{other.tolerance:g} in the other; both need the same."
            )
    differences = np.array([_values(one) - _values(other) for one, other in pairs])
    return BoundaryDifference(**_means(differences, seed), n_images=len(a))


def _share_near(pixels: Int[np.ndarray, "n 2"], others: Int[np.ndarray, "m 2"], tolerance: float) -> float:
    """The share of the first pixels that have one of the others within the tolerance; 0 if either set is empty."""
    if not len(pixels) or not len(others):
        return 0.0
    # the search excludes its bound, but the tolerance is included
    distance, _ = cKDTree(others).query(pixels, distance_upper_bound=tolerance + 1)
    return float((distance <= tolerance).mean())


def _values(image: BoundaryScores) -> Float[np.ndarray, "3"]:
    """What is averaged over images, in the order of MEASURES."""
    return np.array([image.boundary_f, image.precision, image.recall])


def _means(values: Float[np.ndarray, "i 3"], seed: int) -> dict[str, Interval]:
    """The three means by name, each with its interval."""
    means = mean_over_images(values, seed)
    return {measure: means.at(k) for k, measure in enumerate(MEASURES)}


BOUNDARY = Benchmark(
    BoundaryScores,
    score_image,
    summarise,
    paired_difference,
    lambda images: float(np.mean([image.boundary_f for image in images])),
    about="boundary F, precision and recall within 0.75 % of the diagonal",
    headline="F",
    terms={
        "precision": "The share of the found boundaries that lies within the tolerance of a true one.",
        "recall": "The share of the true boundaries that lies within the tolerance of a found one.",
        "F": "The harmonic mean of both. It says how well objects are drawn, but little about whether each is found as "
        "one object.",
    },
)
