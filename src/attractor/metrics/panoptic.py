"""Panoptic quality: how well objects are recognised, times how well the recognised ones are drawn, by class.

A found object matches a true one of its class where their intersection over union is above one half, which leaves each
at most one partner. By class, TP, FP and FN are counted over all images, and PQ = SQ x RQ: the *segmentation quality*
SQ is the mean IoU of the matches, the *recognition quality* RQ is TP / (TP + FP/2 + FN/2). The PQ of a data set is the
mean over the classes that occur, true or found, as are its SQ and RQ. Nuclei are often scored *by image* instead, each
image having the mean over its own classes; the mean of these over images is given, too. Every value comes with a 95 %
bootstrap interval over images. Objects are things; there is no stuff here, so background is not a class.

Ignored pixels are the paper's void: they are taken out of found objects before matching, and a found object without a
match that has more than half of its pixels there is not wrong. They include a data set's crowd regions, which therefore
forgive objects of every class; in the paper they forgive only those of the crowd's own class.

Where nothing is there and nothing is found, every value is 1 by this project's convention. A class without a match has
SQ 0.

Source: Kirillov et al. 2019 (doi:10.1109/CVPR.2019.00963), section 4; by image: Graham et al. 2019
(doi:10.1016/j.media.2019.101563).

Shapes: `h` rows, `w` columns, `k` objects, `c` classes, `i` images, `s` bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from attractor.errors import InputError
from attractor.instances import relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Interval, bootstrap_weights, estimate, mean_over_images, paired_by_name
from attractor.metrics.metric import Benchmark, Overview, Pair, Row, Scores, Table, by_class
from attractor.metrics.overlaps import mostly_ignored, overlapping_pairs, without

MEASURES = ("panoptic_quality", "segmentation_quality", "recognition_quality")


@dataclass(frozen=True)
class PanopticScores(Scores):
    """Counts of one image for each class that occurs in it."""

    classes: Int[np.ndarray, " c"]  # their numbers, ascending
    tp: Int[np.ndarray, " c"]
    fp: Int[np.ndarray, " c"]
    fn: Int[np.ndarray, " c"]
    matched_iou: Float[np.ndarray, " c"]  # sum over true positives
    n_truth: int
    n_found: int  # including those on ignored pixels

    @property
    def panoptic_quality(self) -> float:
        """Mean over the classes of this image; 1 where nothing is there and nothing is found."""
        return float(_over_classes(_qualities(_counts(self, self.classes)))[0])


@dataclass(frozen=True)
class ClassQuality:
    """The qualities of one class, its counts pooled over images."""

    panoptic_quality: Interval
    segmentation_quality: Interval
    recognition_quality: Interval
    tp: int
    fp: int
    fn: int


@dataclass(frozen=True)
class PanopticSummary:
    """Qualities of a data set; the first three are means over classes."""

    panoptic_quality: Interval
    segmentation_quality: Interval
    recognition_quality: Interval
    by_image: Interval  # mean over images of their panoptic quality
    by_class: dict[int, ClassQuality]  # from the number of each class that occurs to its qualities
    n_truth: int
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """The three qualities, and PQ by image."""
        row: Row = {"objects": self.n_truth, **_row(self), "PQ by image": self.by_image}
        return [Overview("Panoptic quality, means over classes, and by image", row)]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """The qualities by class."""
        qualities = ((number, _row(own)) for number, own in self.by_class.items())
        rows = {number: {name: cell.value for name, cell in row.items()} for number, row in qualities}
        return by_class(rows, class_names)


@dataclass(frozen=True)
class PanopticDifference:
    """Qualities of one result minus those of another on the same images, with paired intervals."""

    panoptic_quality: Interval
    segmentation_quality: Interval
    recognition_quality: Interval
    by_image: Interval
    n_images: int

    def row(self) -> Row:
        """Differences of the qualities."""
        return {**_row(self), "PQ by image": self.by_image}


def panoptic_quality(truth: Images, found: Images, *, ignore: Masks = None, seed: int = 0) -> PanopticSummary:
    """PQ, SQ and RQ of one image or of several.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order. Only objects of the same class match; those of label images all have one.
        ignore: masks of pixels that count for nothing.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import panoptic_quality
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> found = np.array([[1, 1, 1, 0, 0, 2, 2]])
    >>> scores = panoptic_quality(truth, found)
    >>> scores.panoptic_quality.value  # the mean IoU of 3/4 and 1, as nothing is missed or wrong
    0.875
    >>> panoptic_quality([truth, truth], [found, truth]).by_image.value
    0.9375
    """
    return summarise([score_image(pair) for pair in pairs_of(truth, found, ignore)], seed)


def score_image(pair: Pair) -> PanopticScores:
    """Counts of one image; objects are those of the label images, where each pixel has one owner.

    Ignored pixels do not count: a true object without any other pixel is left out; a found one with more than half
    of its pixels there may match, but is never a false positive.

    Raises:
        InputError: if a label is negative.
    """
    forgiven = mostly_ignored(pair.found.labels, pair.ignore)
    true_labels, true_ids = relabel(without(pair.truth.labels, pair.ignore))
    found_labels, found_ids = relabel(pair.found.labels)
    of_truth, of_found = pair.truth.classes[true_ids - 1], pair.found.classes[found_ids - 1]
    pairs = overlapping_pairs(true_labels, without(found_labels, pair.ignore))
    matches = pairs.where((pairs.iou > 0.5) & (of_truth[pairs.truth] == of_found[pairs.found]))
    wrong = ~forgiven
    wrong[matches.found] = False
    classes = np.unique(np.concatenate([of_truth, of_found[wrong]]))
    n_true, tp = _per_class(of_truth, classes), _per_class(of_truth[matches.truth], classes)
    place = np.searchsorted(classes, of_truth[matches.truth])
    return PanopticScores(
        pair.name,
        classes,
        tp,
        _per_class(of_found[wrong], classes),
        n_true - tp,
        np.bincount(place, matches.iou, minlength=len(classes)).astype(float),
        len(true_ids),
        len(found_ids),
    )


def summarise(images: Sequence[PanopticScores], seed: int = 0) -> PanopticSummary:
    """Qualities of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    The interval of a class is over the samples that it occurs in.

    Raises:
        InputError: if there is no image.
    """
    classes, counts = _all_counts(images)
    weights = bootstrap_weights(len(images), seed)  # (s, i)
    pooled, spread = _qualities(counts.sum(0)), _qualities(np.tensordot(weights, counts, 1))  # (c, 3), (s, c, 3)
    return PanopticSummary(
        **_named(_over_classes(pooled), _over_classes(spread)),
        by_image=mean_over_images(np.array([[image.panoptic_quality] for image in images]), seed).at(0),
        by_class={
            int(number): _of_class(counts[:, c].sum(0), pooled[c], spread[:, c]) for c, number in enumerate(classes)
        },
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def paired_difference(a: Sequence[PanopticScores], b: Sequence[PanopticScores], seed: int = 0) -> PanopticDifference:
    """Qualities of `a` minus those of `b`; above 0, `a` is better. Images are paired by name.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    pairs = paired_by_name(a, b)
    results = [_all_counts([pair[side] for pair in pairs])[1] for side in (0, 1)]
    weights = bootstrap_weights(len(pairs), seed)
    values = [_over_classes(_qualities(counts.sum(0))) for counts in results]
    samples = [_over_classes(_qualities(np.tensordot(weights, counts, 1))) for counts in results]
    by_image = np.array([[one.panoptic_quality - other.panoptic_quality] for one, other in pairs])
    return PanopticDifference(
        **_named(values[0] - values[1], samples[0] - samples[1]),
        by_image=mean_over_images(by_image, seed).at(0),
        n_images=len(pairs),
    )


def _per_class(of: Int[np.ndarray, " k"], classes: Int[np.ndarray, " c"]) -> Int[np.ndarray, " c"]:
    """How many objects each class has."""
    return np.bincount(np.searchsorted(classes, of), minlength=len(classes))


def _counts(image: PanopticScores, classes: Int[np.ndarray, " c"]) -> Float[np.ndarray, "c 4"]:
    """TP, FP, FN and the sum of matched IoU of each of these classes, which include those of the image."""
    counts = np.zeros((len(classes), 4))
    counts[np.searchsorted(classes, image.classes)] = np.stack([image.tp, image.fp, image.fn, image.matched_iou], -1)
    return counts


def _all_counts(images: Sequence[PanopticScores]) -> tuple[Int[np.ndarray, " c"], Float[np.ndarray, "i c 4"]]:
    """The classes of all images, and the counts of each image."""
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    classes = np.unique(np.concatenate([image.classes for image in images]))
    return classes, np.stack([_counts(image, classes) for image in images])


def _qualities(counts: Float[np.ndarray, "*batch c 4"]) -> Float[np.ndarray, "*batch c 3"]:
    """PQ, SQ and RQ of each class; NaN for one that does not occur."""
    tp, fp, fn, matched_iou = np.moveaxis(counts, -1, 0)
    whole = tp + fp / 2 + fn / 2
    undefined = np.where(whole > 0, 0.0, np.nan)
    ratios = [(matched_iou, whole), (matched_iou, tp), (tp, whole)]
    return np.stack([np.divide(a, b, out=undefined.copy(), where=b > 0) for a, b in ratios], -1)


def _over_classes(qualities: Float[np.ndarray, "*batch c 3"]) -> Float[np.ndarray, "*batch 3"]:
    """Means over the classes that occur; 1 where none does."""
    n = (~np.isnan(qualities)).sum(-2)
    return np.divide(np.nansum(qualities, -2), n, out=np.ones(n.shape), where=n > 0)


def _named(values: Float[np.ndarray, "3"], samples: Float[np.ndarray, "s 3"]) -> dict[str, Interval]:
    """PQ, SQ and RQ by name, each with its interval."""
    estimates = estimate(values, samples)
    return {measure: estimates.at(k) for k, measure in enumerate(MEASURES)}


def _row(qualities: PanopticSummary | PanopticDifference | ClassQuality) -> dict[str, Interval]:
    """The three qualities by the names they have in papers."""
    return {
        "PQ": qualities.panoptic_quality,
        "SQ": qualities.segmentation_quality,
        "RQ": qualities.recognition_quality,
    }


def _of_class(
    counts: Float[np.ndarray, "4"], values: Float[np.ndarray, "3"], samples: Float[np.ndarray, "s 3"]
) -> ClassQuality:
    """One class, its intervals over the samples that it occurs in."""
    tp, fp, fn = (int(count) for count in counts[:3])
    return ClassQuality(**_named(values, samples[~np.isnan(samples[:, 0])]), tp=tp, fp=fp, fn=fn)


def _value(images: Sequence[PanopticScores]) -> float:
    """PQ without its interval."""
    return float(_over_classes(_qualities(_all_counts(images)[1].sum(0)))[0])


PANOPTIC = Benchmark(
    PanopticScores,
    score_image,
    summarise,
    paired_difference,
    _value,
    about="panoptic quality, PQ, SQ and RQ",
    headline="PQ",
    terms={
        "PQ": "Panoptic quality, SQ x RQ in each class; the mean over classes.",
        "SQ": "Segmentation quality: the mean IoU of the objects found with an IoU above one half.",
        "RQ": "Recognition quality: hits / (hits + half of the false finds + half of the misses).",
        "PQ by image": "The mean over images, each having the mean over its own classes.",
    },
    has_classes=True,
)
