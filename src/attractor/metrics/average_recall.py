"""AR(n): the share of the true objects that the best n proposals of each image cover, over thresholds of IoU.

Proposals are masks that may overlap, ranked by score; if scores are equal, the earlier goes first. At each
threshold they are matched as in COCO: by rank, each proposal takes the true object that it fits best among those that
are still free (the later of equals), if their IoU reaches the threshold. AR(n) is the recall of the first n, averaged
over the thresholds. A data set's AR is given *by image*, the mean of the images' ARs, and *pooled*, all matched true
objects over all true objects, as in COCO; each with a 95 % bootstrap interval over images. Classes are disregarded.

An image without a true object says nothing about recall and is left out.

Source: Hosang et al. 2016 (doi:10.1109/TPAMI.2015.2465908); matching: `pycocotools.cocoeval.COCOeval.evaluateImg`.

Shapes: `h` rows, `w` columns, `k` true objects, `j` proposals, `t` thresholds, `m` numbers n of proposals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.errors import InputError
from attractor.instances import Instances, areas, relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.average_precision import THRESHOLDS
from attractor.metrics.bootstrap import (
    Estimate,
    Interval,
    bootstrap_weights,
    estimate,
    mean_over_images,
    paired_by_name,
)
from attractor.metrics.metric import Benchmark, Curve, Overview, Pair, Row, Scores, Table
from attractor.metrics.overlaps import checked_thresholds, without

LIMITS = (1, 10, 60, 100)  # each n of AR(n)


@dataclass(frozen=True)
class RecallScores(Scores):
    """What was matched in one image with at least one true object."""

    limits: Int[np.ndarray, " m"]  # each n of AR(n)
    thresholds: Float[np.ndarray, " t"]
    matched: Int[np.ndarray, "m t"]  # true objects that the best n proposals cover
    n_truth: int
    n_proposals: int  # all of them, including those past the highest limit

    @property
    def average_recall(self) -> Float[np.ndarray, " m"]:
        """AR(n) for each n."""
        return self.matched.mean(1) / self.n_truth


@dataclass(frozen=True)
class RecallSummary:
    """AR(n) of a data set for each n."""

    by_image: Estimate  # mean over images
    pooled: Estimate  # all matched over all true objects
    limits: Int[np.ndarray, " m"]
    n_truth: int
    n_proposals: int
    n_images: int  # with a true object

    def index(self, limit: int) -> int:
        """Place of a number of proposals in the arrays.

        Raises:
            InputError: if nothing was measured with that many.
        """
        if limit not in self.limits:
            raise InputError(
                f"Nothing was measured with {limit} proposals; these were measured: {self.limits.tolist()}."
            )
        return int(np.flatnonzero(self.limits == limit)[0])

    def overviews(self) -> list[Overview]:
        """AR(n) by image, and pooled."""
        return [
            Overview(
                "AR(n) by image",
                {"objects": self.n_truth, **_row(self.by_image, self.limits)},
                "over IoU .50 to .95",
            ),
            Overview(
                "AR(n) of all objects together",
                {f"pooled {name}": value for name, value in _row(self.pooled, self.limits).items()},
                f"{self.n_truth} true objects, {self.n_proposals} proposals",
            ),
        ]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """No further tables."""
        return []

    def curve(self) -> Curve:
        """AR(n) by image over n."""
        return Curve("AR(n), mean over images", "number n of proposals", self.limits, self.by_image)


@dataclass(frozen=True)
class RecallDifference:
    """AR(n) by image of one result minus that of another on the same images, with paired intervals."""

    by_image: Estimate
    limits: Int[np.ndarray, " m"]
    n_images: int

    def row(self) -> Row:
        """Differences of AR(n) by image."""
        return _row(self.by_image, self.limits)


def average_recall(
    truth: Images,
    found: Images,
    *,
    ignore: Masks = None,
    limits: Sequence[int] = LIMITS,
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
) -> RecallSummary:
    """AR(n) of the best n proposals of one image or of several, by image and pooled.

    Args:
        truth: a label image, `Instances`, or a sequence of these; images without an object are left out.
        found: proposals, as many images in the same order: `Instances` whose masks may overlap, ranked by their scores.
        ignore: masks of pixels that count for nothing.
        limits: n of AR(n), each at least 1.
        thresholds: least IoU of a match, in (0, 1].
        seed: for the bootstrap intervals.

    Raises:
        InputError: if no image has an object, truth and found differ in shape, or a limit or threshold is out of range.

    >>> import numpy as np
    >>> from attractor.metrics import average_recall
    >>> truth = np.array([[1, 1, 0, 2, 2]])
    >>> average_recall(truth, truth, limits=(1, 2)).by_image.value.tolist()
    [0.5, 1.0]
    """
    scored = (score_image(pair, limits=limits, thresholds=thresholds) for pair in pairs_of(truth, found, ignore))
    return summarise([image for image in scored if image is not None], seed)


def score_image(
    pair: Pair, *, limits: Sequence[int] = LIMITS, thresholds: Sequence[float] = THRESHOLDS
) -> RecallScores | None:
    """What the proposals of one image cover; None for an image without a true object.

    Args:
        pair: `found` holds proposals: masks that may overlap, with scores. Ignored pixels do not count: a true object
            without any other pixel is left out; a proposal counts as one of the first n wherever it lies.
        limits: n of AR(n), each at least 1.
        thresholds: least IoU of a match, in (0, 1].

    Raises:
        InputError: if a label is negative, or a limit or threshold is out of range.
    """
    proposals, ignore = pair.found, pair.ignore
    if not len(limits) or min(limits) < 1:
        raise InputError(f"AR(n) needs at least one n, each of 1 or more; found {list(limits)}.")
    least = checked_thresholds(thresholds)
    truth, ids = relabel(without(pair.truth.labels, ignore))
    if not len(ids):
        return None
    ranking = np.argsort(-proposals.scores, kind="stable")[: max(limits)]
    hits = _hits(_ious(truth, len(ids), proposals, ranking, ignore), least)
    matched = np.concatenate([np.zeros((1, len(least)), np.int64), hits.cumsum(0)])
    return RecallScores(
        pair.name, np.array(limits), least, matched[np.minimum(limits, len(ranking))], len(ids), len(proposals)
    )


def summarise(images: Sequence[RecallScores], seed: int = 0) -> RecallSummary:
    """AR(n) with 95 % bootstrap intervals over images, the same for the same seed.

    Raises:
        InputError: if there is no image, or they were scored differently.
    """
    limits = _same_limits(images)
    matched = np.stack([image.matched.mean(1) for image in images])  # (i, m)
    n_truth = np.array([image.n_truth for image in images], float)
    weights = bootstrap_weights(len(images), seed)  # (s, i)
    return RecallSummary(
        by_image=mean_over_images(matched / n_truth[:, None], seed),
        pooled=estimate(matched.sum(0) / n_truth.sum(), (weights @ matched) / (weights @ n_truth)[:, None]),
        limits=limits,
        n_truth=int(n_truth.sum()),
        n_proposals=sum(image.n_proposals for image in images),
        n_images=len(images),
    )


def paired_difference(a: Sequence[RecallScores], b: Sequence[RecallScores], seed: int = 0) -> RecallDifference:
    """AR(n) by image of `a` minus that of `b`; above 0, `a` is better. Images are paired by name.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, scored alike, each once.
    """
    limits = _same_limits([*a, *b])
    pairs = paired_by_name(a, b)
    differences = np.stack([one.average_recall - other.average_recall for one, other in pairs])
    return RecallDifference(mean_over_images(differences, seed), limits, len(a))


def _row(values: Estimate, limits: Int[np.ndarray, " m"]) -> dict[str, Interval]:
    """AR(n) for each n."""
    return {f"AR({n})": values.at(k) for k, n in enumerate(limits)}


def _ious(
    truth: Int[np.ndarray, "h w"],
    n_truth: int,
    proposals: Instances,
    ranking: Int[np.ndarray, " j"],
    ignore: Bool[np.ndarray, "h w"] | None,
) -> Float[np.ndarray, "j k"]:
    """IoU of each proposal, best first, with each true object; both without ignored pixels."""
    aside = n_truth + 1  # a label for ignored pixels
    # down the columns, as masks are stored
    flat = (truth if ignore is None else np.where(ignore, aside, truth)).ravel(order="F")
    covered = np.zeros((len(ranking), n_truth + 2), np.int64)
    for row, index in zip(covered, ranking, strict=True):
        row[:] = np.bincount(flat[proposals.mask(int(index) + 1).ravel(order="F")], minlength=n_truth + 2)
    shared = covered[:, 1:aside]
    union = covered[:, :aside].sum(1, keepdims=True) + areas(truth, n_truth) - shared
    return shared / union


def _hits(iou: Float[np.ndarray, "j k"], thresholds: Float[np.ndarray, " t"]) -> Bool[np.ndarray, "j t"]:
    """Whether each proposal, best first, takes a true object at each threshold."""
    free = np.ones((len(thresholds), iou.shape[1]), bool)
    hits = np.zeros((len(iou), len(thresholds)), bool)
    rows = np.arange(len(thresholds))
    for hit, own in zip(hits, iou, strict=True):
        left = np.where(free, own, 0.0)[:, ::-1]  # reversed, so that argmax gives the last
        best = iou.shape[1] - 1 - left.argmax(1)
        hit[:] = left.max(1) >= thresholds
        free[rows[hit], best[hit]] = False
    return hits


def _same_limits(images: Sequence[RecallScores]) -> Int[np.ndarray, " m"]:
    """The numbers of proposals that all images were scored with, at the same thresholds."""
    if not images:
        raise InputError("No image has a true object, so there is no recall to measure.")
    first = images[0]
    for image in images:
        if not (np.array_equal(image.limits, first.limits) and np.array_equal(image.thresholds, first.thresholds)):
            raise InputError(
                f"{first.name} was scored with {first.limits.tolist()} proposals at IoU {first.thresholds.tolist()}, "
                f"but {image.name} with {image.limits.tolist()} at {image.thresholds.tolist()}; all images need the "
                "same."
            )
    return first.limits


AVERAGE_RECALL = Benchmark(
    RecallScores,
    score_image,
    summarise,
    paired_difference,
    lambda images: float(np.mean([image.average_recall[-1] for image in images])) if images else np.nan,
    about="recall of the best n proposals",
    headline=f"AR({LIMITS[-1]})",
    terms={
        "AR(n)": "The share of the true objects that the best n proposals of each image cover, averaged over "
        "thresholds of IoU from .50 to .95. Images without a true object are left out.",
    },
    n_proposals=max(LIMITS),
)
