"""The "AP" of microscopy: TP / (TP + FP + FN) over thresholds of IoU, and what goes with it.

A found object is a true positive where it overlaps a true object with an intersection over union of
at least the threshold, one to one; every other found object is a false positive, every other true one
a false negative. No confidence score takes part. People mean two things by the AP of a data set, so both
are here, by name: *by image*, the mean of the images' APs (Data Science Bowl 2018, EmbedSeg), and
*pooled*, the AP of the counts summed over images (StarDist). Every value comes with a 95 % bootstrap
interval over images: what other images of the same kind could have given.

Where nothing is there and nothing is found, every value is 1. Counts equal those of `stardist.matching`;
so do values, save for such empty images, which it gives 0.

Source: Caicedo et al. 2019 (doi:10.1038/s41592-019-0612-7); panoptic quality: Kirillov et al. 2019,
equation 1; matching at lower thresholds: `stardist.matching.matching`.

Shapes: `h` rows, `w` columns, `k` true objects, `j` found objects, `p` overlapping pairs, `t` thresholds,
`i` images, `s` bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int
from scipy.optimize import linear_sum_assignment

from attractor.errors import InputError
from attractor.instances import relabel
from attractor.metrics.bootstrap import Estimate, Interval, bootstrap_weights, estimate, paired_by_name
from attractor.metrics.overlaps import (
    Pairs,
    check_shapes,
    checked_thresholds,
    mostly_ignored,
    overlapping_pairs,
    place_of,
    without,
)

# Typed out, because sums of .05 miss: 3 of 5 pixels would not reach 0.6000000000000001.
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)


@dataclass(frozen=True)
class ImageScores:
    """Counts of one image at each threshold; found objects on ignored pixels are in `n_found` alone."""

    name: str
    thresholds: Float[np.ndarray, " t"]
    tp: Int[np.ndarray, " t"]
    fp: Int[np.ndarray, " t"]
    fn: Int[np.ndarray, " t"]
    matched_iou: Float[np.ndarray, " t"]  # sum over true positives
    n_truth: int
    n_found: int

    @property
    def average_precision(self) -> Float[np.ndarray, " t"]:
        """TP / (TP + FP + FN); 1 where nothing is there and nothing is found."""
        return _measures(_counts(self))["average_precision"]


@dataclass(frozen=True)
class Summary:
    """Scores of a data set at each threshold; all but the first two are of counts pooled over images."""

    mean_average_precision: Interval  # by image, mean over the thresholds
    by_image: Estimate  # mean over images of TP / (TP + FP + FN)
    average_precision: Estimate  # TP / (TP + FP + FN)
    precision: Estimate  # TP / (TP + FP)
    recall: Estimate  # TP / (TP + FN)
    f1: Estimate  # TP / (TP + FP/2 + FN/2)
    panoptic_quality: Estimate  # matched IoU / (TP + FP/2 + FN/2)
    mean_matched_iou: Estimate  # matched IoU / TP
    thresholds: Float[np.ndarray, " t"]
    tp: Int[np.ndarray, " t"]
    fp: Int[np.ndarray, " t"]
    fn: Int[np.ndarray, " t"]
    n_truth: int
    n_found: int
    n_images: int

    def index(self, threshold: float) -> int:
        """Place of a threshold in the arrays.

        Raises:
            InputError: if nothing was measured at this threshold.
        """
        return place_of(threshold, self.thresholds)


@dataclass(frozen=True)
class Difference:
    """AP by image of one result less that of another on the same images, with paired intervals."""

    mean_average_precision: Interval  # mean over the thresholds
    by_image: Estimate
    thresholds: Float[np.ndarray, " t"]
    n_images: int


def score(
    pairs: Iterable[tuple[Int[np.ndarray, "_ _"], Int[np.ndarray, "_ _"]]],
    *,
    thresholds: Sequence[float] = THRESHOLDS,
) -> Summary:
    """Summary of (truth, found) label images.

    Raises:
        InputError: if there is no pair, or its images differ in shape.
    """
    return summarise(
        [score_image(truth, found, name=str(i), thresholds=thresholds) for i, (truth, found) in enumerate(pairs)]
    )


def score_image(
    truth: Int[np.ndarray, "h w"],
    found: Int[np.ndarray, "h w"],
    *,
    name: str,
    thresholds: Sequence[float] = THRESHOLDS,
    ignore: Bool[np.ndarray, "h w"] | None = None,
    truth_classes: Int[np.ndarray, " _"] | None = None,
    found_classes: Int[np.ndarray, " _"] | None = None,
) -> ImageScores:
    """Counts of one image; label numbers do not matter.

    Args:
        truth: 0 is background.
        found: 0 is background.
        name: the image's stem.
        thresholds: least IoU of a match, in (0, 1].
        ignore: pixels that count for nothing. A true object without any other pixel is left out; a found
            one with more than half of its pixels there may match, but is never a false positive.
        truth_classes: class of true label i + 1. With both classes given, only objects of one class match.
        found_classes: class of found label i + 1.

    Raises:
        InputError: if images differ in shape, a label is negative or has no class, or a threshold is not
            in (0, 1].
    """
    check_shapes(name, truth, found, ignore)
    limits = checked_thresholds(thresholds)
    forgiven = mostly_ignored(found, ignore)
    (truth, truth_ids), (found, found_ids) = relabel(without(truth, ignore)), relabel(found)
    pairs = overlapping_pairs(truth, without(found, ignore))
    if truth_classes is not None and found_classes is not None:
        pairs = pairs.where(
            _classes(truth_classes, truth_ids, f"{name}, truth")[pairs.truth]
            == _classes(found_classes, found_ids, f"{name}, found")[pairs.found]
        )
    matches = [_match(pairs, limit, len(truth_ids), len(found_ids)) for limit in limits]
    tp = np.array([len(matched.iou) for matched in matches])
    return ImageScores(
        name,
        limits,
        tp,
        np.array([(~forgiven).sum() - (~forgiven[matched.found]).sum() for matched in matches]),
        len(truth_ids) - tp,
        np.array([matched.iou.sum() for matched in matches]),
        len(truth_ids),
        len(found_ids),
    )


def summarise(images: Sequence[ImageScores], *, seed: int = 0) -> Summary:
    """Scores of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    Raises:
        InputError: if there is no image, or thresholds differ between images.
    """
    thresholds = _same_thresholds(images)
    counts = np.stack([_counts(image) for image in images])  # (i, t, 4)
    weights = bootstrap_weights(len(images), seed)  # (s, i)
    by_image = _measures(counts)["average_precision"]  # (i, t)
    samples = (weights @ by_image) / len(images)  # (s, t)
    resampled = np.tensordot(weights, counts, 1)  # (s, t, 4)
    pooled, spread = _measures(counts.sum(0)), _measures(resampled)
    return Summary(
        mean_average_precision=estimate(by_image.mean(0).mean(keepdims=True), samples.mean(1, keepdims=True)).at(0),
        by_image=estimate(by_image.mean(0), samples),
        **{measure: estimate(pooled[measure], spread[measure]) for measure in pooled},
        thresholds=thresholds,
        tp=np.sum([image.tp for image in images], 0),
        fp=np.sum([image.fp for image in images], 0),
        fn=np.sum([image.fn for image in images], 0),
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def mean_average_precision(images: Sequence[ImageScores]) -> float:
    """AP by image, mean over the thresholds, without its interval."""
    return float(np.mean([image.average_precision.mean() for image in images]))


def paired_difference(a: Sequence[ImageScores], b: Sequence[ImageScores], *, seed: int = 0) -> Difference:
    """AP by image of `a` less that of `b`; above 0, `a` is better. Images are paired by name.

    Raises:
        InputError: if the two are not of the same images, each there once, at the same thresholds.
    """
    thresholds = _same_thresholds([*a, *b])
    pairs = paired_by_name(a, b)
    difference = np.stack([one.average_precision - other.average_precision for one, other in pairs])  # (i, t)
    samples = bootstrap_weights(len(a), seed) @ difference / len(a)  # (s, t)
    return Difference(
        estimate(difference.mean(keepdims=True)[0], samples.mean(1, keepdims=True)).at(0),
        estimate(difference.mean(0), samples),
        thresholds,
        len(a),
    )


def _match(pairs: Pairs, threshold: float, n_truth: int, n_found: int) -> Pairs:
    """The true positives: as many pairs as possible with at least this IoU, no object twice."""
    if threshold < 0.5:
        return _assign(pairs, threshold, n_truth, n_found)
    # From .5 on an object has one partner, but for one split into exact halves, which have no other.
    pairs = pairs.where(pairs.iou >= threshold)
    pairs = pairs.where(np.unique(pairs.truth, return_index=True)[1])
    return pairs.where(np.unique(pairs.found, return_index=True)[1])


def _assign(pairs: Pairs, threshold: float, n_truth: int, n_found: int) -> Pairs:
    """The assignment of `stardist.matching`: most matches first, then the highest sum of IoU."""
    if not len(pairs.iou):
        return pairs
    iou = np.zeros((n_truth, n_found))
    iou[pairs.truth, pairs.found] = pairs.iou
    truth, found = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * min(iou.shape)))
    matched = iou[truth, found] >= threshold
    return Pairs(truth[matched], found[matched], iou[truth, found][matched])


def _classes(classes: Int[np.ndarray, " _"], ids: Int[np.ndarray, " k"], where: str) -> Int[np.ndarray, " k"]:
    """Class of each object."""
    if len(ids) and ids[-1] > len(classes):
        raise InputError(
            f"{where}: the label image has label {ids[-1]}, but classes are given for {len(classes)} objects."
        )
    return classes[ids - 1]


def _same_thresholds(images: Sequence[ImageScores]) -> Float[np.ndarray, " t"]:
    """The thresholds that all images were scored at."""
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    for image in images:
        if not np.array_equal(image.thresholds, images[0].thresholds):
            raise InputError(
                f"{images[0].name} was scored at thresholds {images[0].thresholds.tolist()}, "
                f"but {image.name} at {image.thresholds.tolist()}; all images need the same."
            )
    return images[0].thresholds


def _counts(image: ImageScores) -> Float[np.ndarray, "t 4"]:
    """TP, FP, FN and the sum of matched IoU."""
    return np.stack([image.tp, image.fp, image.fn, image.matched_iou], -1).astype(float)


def _measures(counts: Float[np.ndarray, "*batch 4"]) -> dict[str, Float[np.ndarray, "*batch"]]:
    """Every ratio of counts; 0 / 0 is 0, but 1 where there is no object at all, true or found."""
    tp, fp, fn, matched_iou = np.moveaxis(counts, -1, 0)
    ratios = {
        "average_precision": (tp, tp + fp + fn),
        "precision": (tp, tp + fp),
        "recall": (tp, tp + fn),
        "f1": (tp, tp + fp / 2 + fn / 2),
        "panoptic_quality": (matched_iou, tp + fp / 2 + fn / 2),
        "mean_matched_iou": (matched_iou, tp),
    }
    empty = np.where(tp + fp + fn == 0, 1.0, 0.0)
    return {name: np.divide(part, whole, out=empty.copy(), where=whole > 0) for name, (part, whole) in ratios.items()}
