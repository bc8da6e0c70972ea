"""The "AP" of microscopy: TP / (TP + FP + FN) over thresholds of IoU, and related values.

A found object is a true positive if it overlaps a true object with an intersection over union of
at least the threshold, one to one; every other found object is a false positive, every other true one
a false negative. No confidence score takes part. People mean two things by the AP of a data set, so both
are here, by name: *by image*, the mean of the images' APs (Data Science Bowl 2018, EmbedSeg), and
*pooled*, the AP of the counts summed over images (StarDist). Every value comes with a 95 % bootstrap
interval over images: what other images of the same kind could have given.

If there is no object and none is found, every value is 1. Counts equal those of `stardist.matching`, and
so do values, except for such empty images, which it gives 0.

Source: Caicedo et al. 2019 (doi:10.1038/s41592-019-0612-7); panoptic quality: Kirillov et al. 2019,
equation 1; matching at lower thresholds: `stardist.matching.matching`.

Shapes: `h` rows, `w` columns, `k` true objects, `j` found objects, `p` overlapping pairs, `t` thresholds,
`i` images, `s` bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.optimize import linear_sum_assignment

from attractor.errors import InputError
from attractor.instances import relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Estimate, Interval, bootstrap_weights, estimate, paired_by_name
from attractor.metrics.metric import Benchmark, Cell, Curve, Overview, Pair, Row, Scores, Table
from attractor.metrics.overlaps import (
    Pairs,
    checked_thresholds,
    mostly_ignored,
    overlapping_pairs,
    place_of,
    without,
)
from attractor.wording import share

# Typed out, because adding .05 again and again misses: 3 of 5 pixels would not reach 0.6000000000000001.
THRESHOLDS = (0.5, 0.55, 0.6, 0.65, 0.7, 0.75, 0.8, 0.85, 0.9, 0.95)
SHOWN = (0.5, 0.75, 0.9)  # the thresholds shown where all ten would be too many


@dataclass(frozen=True)
class ImageScores(Scores):
    """Counts of one image at each threshold; found objects on ignored pixels are in `n_found` only."""

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

    def overviews(self) -> list[Overview]:
        """AP at some thresholds and over all of them: by image, and pooled."""
        limits = f"{share(self.thresholds[0])[:-1]} to {share(self.thresholds[-1])[:-1]}"
        by_image: dict[str, Cell] = {"objects": self.n_truth, **_shown(self.by_image, self.thresholds)}
        return [
            Overview(
                "AP by image", by_image | {"mean AP": self.mean_average_precision}, f"mean AP is over IoU {limits}"
            ),
            Overview(
                "AP of all objects together",
                {f"pooled {name}": value for name, value in _shown(self.average_precision, self.thresholds).items()},
                is_in_tables=True,
            ),
        ]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """The pooled values, at each threshold."""
        columns = {
            "AP": self.average_precision,
            "precision": self.precision,
            "recall": self.recall,
            "F1": self.f1,
            "PQ": self.panoptic_quality,
            "mean IoU": self.mean_matched_iou,
        }
        rows = {
            share(threshold)[:-1]: {name: values.at(k) for name, values in columns.items()}
            for k, threshold in enumerate(self.thresholds)
        }
        return [Table(f"Pooled over images: {self.n_truth} true and {self.n_found} found objects", rows, "IoU")]

    def curve(self) -> Curve:
        """AP by image over the thresholds."""
        along = "overlap (IoU) from which an object counts as found"
        return Curve("From lenient to strict: AP, mean over images", along, self.thresholds, self.by_image)


@dataclass(frozen=True)
class Difference:
    """AP by image of one result minus that of another on the same images, with paired intervals."""

    mean_average_precision: Interval  # mean over the thresholds
    by_image: Estimate
    thresholds: Float[np.ndarray, " t"]
    n_images: int

    def row(self) -> Row:
        """AP by image at some thresholds and over all of them."""
        return {**_shown(self.by_image, self.thresholds), "mean AP": self.mean_average_precision}


def average_precision(
    truth: Images,
    found: Images,
    *,
    ignore: Masks = None,
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
) -> Summary:
    """AP of one image or of several, by image and pooled, with all related values.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order. Only objects of the same class match; those of label images all have one.
        ignore: masks of pixels that count for nothing.
        thresholds: least IoU of a match, in (0, 1].
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import average_precision
    >>> truth = np.array([[1, 1, 1, 1, 0, 2]])
    >>> found = np.array([[1, 1, 1, 0, 3, 3]])  # with IoU 3/4 and 1/2
    >>> scores = average_precision(truth, found)
    >>> scores.tp[:6].tolist()
    [2, 1, 1, 1, 1, 1]
    >>> round(scores.mean_average_precision.value, 3)
    0.267
    """
    scores = [score_image(pair, thresholds=thresholds) for pair in pairs_of(truth, found, ignore)]
    return summarise(scores, seed)


def score_image(pair: Pair, *, thresholds: Sequence[float] = THRESHOLDS) -> ImageScores:
    """Counts of one image; label numbers do not matter, and only objects of the same class match.

    Ignored pixels do not count: a true object without any other pixel is left out; a found one with more than half
    of its pixels there may match, but is never a false positive.

    Args:
        pair: objects are those of the label images, where each pixel has one owner.
        thresholds: least IoU of a match, in (0, 1].

    Raises:
        InputError: if a threshold is out of range, or a label is negative.
    """
    limits = checked_thresholds(thresholds)
    forgiven = mostly_ignored(pair.found.labels, pair.ignore)
    truth, truth_ids = relabel(without(pair.truth.labels, pair.ignore))
    found, found_ids = relabel(pair.found.labels)
    pairs = overlapping_pairs(truth, without(found, pair.ignore))
    of_truth, of_found = pair.truth.classes[truth_ids - 1], pair.found.classes[found_ids - 1]
    pairs = pairs.where(of_truth[pairs.truth] == of_found[pairs.found])
    matches = [_match(pairs, limit, len(truth_ids), len(found_ids)) for limit in limits]
    tp = np.array([len(matched.iou) for matched in matches])
    return ImageScores(
        pair.name,
        limits,
        tp,
        np.array([(~forgiven).sum() - (~forgiven[matched.found]).sum() for matched in matches]),
        len(truth_ids) - tp,
        np.array([matched.iou.sum() for matched in matches]),
        len(truth_ids),
        len(found_ids),
    )


def summarise(images: Sequence[ImageScores], seed: int = 0) -> Summary:
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


def paired_difference(a: Sequence[ImageScores], b: Sequence[ImageScores], seed: int = 0) -> Difference:
    """AP by image of `a` minus that of `b`; above 0, `a` is better. Images are paired by name.

    Raises:
        InputError: if the two do not hold the same images, each once, at the same thresholds.
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
    # From .5 on an object has one partner, except one split into exact halves, which have no other partner.
    pairs = pairs.where(pairs.iou >= threshold)
    pairs = pairs.where(np.unique(pairs.truth, return_index=True)[1])
    return pairs.where(np.unique(pairs.found, return_index=True)[1])


def _assign(pairs: Pairs, threshold: float, n_truth: int, n_found: int) -> Pairs:
    """The assignment of `stardist.matching`: most matches first, then the highest sum of IoU."""
    if not len(pairs.iou):
        return pairs
    iou, place = np.zeros((n_truth, n_found)), np.zeros((n_truth, n_found), np.int64)
    iou[pairs.truth, pairs.found], place[pairs.truth, pairs.found] = pairs.iou, np.arange(len(pairs.iou))
    truth, found = linear_sum_assignment(-(iou >= threshold).astype(float) - iou / (2 * min(iou.shape)))
    matched = iou[truth, found] >= threshold
    return pairs.where(place[truth[matched], found[matched]])


def _shown(values: Estimate, thresholds: Float[np.ndarray, " t"]) -> dict[str, Interval]:
    """The values at the thresholds that are shown, or at the first threshold if none of those was measured."""
    places = [k for k, threshold in enumerate(thresholds) if threshold in SHOWN] or [0]
    return {f"AP {share(thresholds[k])[:-1]}": values.at(k) for k in places}


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
    """Every ratio of counts; 0 / 0 is 0, but 1 if there is no object at all, true or found."""
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


AVERAGE_PRECISION = Benchmark(
    ImageScores,
    score_image,
    summarise,
    paired_difference,
    mean_average_precision,
    about="AP of microscopy, TP / (TP + FP + FN) over IoU, by image and pooled",
    headline="mean AP",
    terms={
        "AP": "Hits / (hits + false finds + misses). A hit is a found object whose IoU with a true one of its class "
        "reaches the threshold, one to one. AP .50 forgives rough outlines, AP .90 hardly any. (This is the AP of "
        "microscopy, which others call accuracy; it is not COCO's average precision.)",
        "mean AP": "The mean over the thresholds .50, .55, … .95.",
        "by image": "Each image has the same weight, whether it holds few objects or many. An image without objects in "
        "which nothing is found scores 1.",
        "pooled": "Hits, false finds and misses of all images are added up first, so that each object "
        "has the same weight.",
    },
    has_classes=True,
)
