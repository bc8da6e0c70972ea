"""The AP of instance segmentation on Pascal VOC: AP^r over thresholds of IoU, by class, and their mean AP^r_vol.

The found objects of a class are ranked by score over all images. Each goes to the true object of its class and image
that it fits best, and is a true positive if their IoU reaches the threshold and no better ranked one has that object
already; otherwise it is a false positive, even where it also fits another, free object. AP is the area under the curve
of precision over recall, with precision raised at every point to the highest at any higher recall. A data set's AP is
the mean over the classes that have a true object; AP^r_vol is the mean over thresholds of .1, .2, … .9. Every value
comes with a 95 % bootstrap interval over images.

Where scores are equal, the object of the earlier image goes first, and within an image the one with the lower label; of
true objects that fit equally well, the one with the lower label is taken. So where objects have no scores of their own,
as in label images, AP depends on the order of images and labels.

Where there is no true object at all, AP is 1 by this project's convention if nothing is found, and 0 otherwise.

Source: Hariharan et al. 2014 (doi:10.1007/978-3-319-10584-0_20), section 3; area: Everingham et al. 2015
(doi:10.1007/s11263-014-0733-5), the rule since 2010. VOC's own marks of difficult objects are not read.

Shapes: `h` rows, `w` columns, `k` true objects, `j` found objects, `p` overlapping pairs, `n` found objects of all
images, `t` thresholds, `c` classes, `i` images, `s` bootstrap samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.errors import InputError
from attractor.instances import Instances, areas, relabel
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Estimate, Interval, bootstrap_weights, estimate, paired_by_name
from attractor.metrics.metric import Benchmark, Curve, Overview, Pair, Row, Scores, Table, by_class
from attractor.metrics.overlaps import Pairs, checked_thresholds, place_of, without
from attractor.wording import share

THRESHOLDS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
SHOWN = (0.5, 0.7, 0.9)  # where all nine would be too many
NUMBERS_AT_ONCE = 1 << 20  # in the arrays that bootstrap samples are computed in; larger ones are slower


@dataclass(frozen=True)
class VocScores(Scores):
    """Found objects of one image, and what each fits; all that AP at any threshold needs."""

    classes: Int[np.ndarray, " j"]
    scores: Float[np.ndarray, " j"]
    iou: Float[np.ndarray, " j"]  # with the true object of its class that it fits best; 0 without one
    rival_iou: Float[np.ndarray, " j"]  # the highest that a better ranked one has with that same object; 0 without one
    forgiven: Bool[np.ndarray, " j"]  # on ignored pixels, so never a false positive
    truth_classes: Int[np.ndarray, " k"]
    n_truth: int
    n_found: int


@dataclass(frozen=True)
class ClassPrecision:
    """AP of one class with a true object."""

    average_precision: Estimate  # at each threshold
    volume: Interval  # mean over the thresholds
    n_truth: int
    n_found: int


@dataclass(frozen=True)
class VocSummary:
    """AP of a data set."""

    average_precision: Estimate  # at each threshold, mean over the classes with a true object
    volume: Interval  # AP^r_vol: mean over the thresholds
    thresholds: Float[np.ndarray, " t"]
    by_class: dict[int, ClassPrecision]  # from the number of each class with a true object to its AP
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
        """AP at some thresholds and over all of them."""
        limits = f"{self.thresholds[0]:g} to {self.thresholds[-1]:g}".replace("0.", ".")
        row: Row = {"objects": self.n_truth, **_row(self.average_precision, self.volume, self.thresholds)}
        return [Overview("Pascal VOC's AP of masks", row, f"vol is over IoU {limits}")]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """The same by class."""
        values = {
            number: _row(own.average_precision, own.volume, self.thresholds) for number, own in self.by_class.items()
        }
        rows: dict[int, Row] = {
            number: {name: cell.value for name, cell in row.items()} for number, row in values.items()
        }
        return by_class(rows, class_names)

    def curve(self) -> Curve:
        """AP over the thresholds."""
        along = "overlap (IoU) from which an object counts as found"
        return Curve("From lenient to strict: AP", along, self.thresholds, self.average_precision)


@dataclass(frozen=True)
class VocDifference:
    """AP of one result minus that of another on the same images, with paired intervals."""

    average_precision: Estimate
    volume: Interval
    thresholds: Float[np.ndarray, " t"]
    n_images: int

    def row(self) -> Row:
        """Differences at some thresholds and over all of them."""
        return _row(self.average_precision, self.volume, self.thresholds)


def pascal_voc_average_precision(
    truth: Images,
    found: Images,
    *,
    ignore: Masks = None,
    thresholds: Sequence[float] = THRESHOLDS,
    seed: int = 0,
) -> VocSummary:
    """AP^r of one image or of several, at each threshold, by class, and its mean AP^r_vol.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order; `Instances` are ranked by score, and only objects of the same class match.
        ignore: masks of pixels that count for nothing.
        thresholds: least IoU of a match, in (0, 1].
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, truth and found differ in shape, or a threshold is out of range.

    >>> import numpy as np
    >>> from attractor.metrics import pascal_voc_average_precision
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> found = np.array([[1, 1, 1, 0, 0, 0, 0]])  # with IoU 3/4
    >>> pascal_voc_average_precision(truth, found, thresholds=(0.5, 0.9)).average_precision.value.tolist()
    [0.5, 0.0]
    """
    scores = [score_image(pair) for pair in pairs_of(truth, found, ignore)]
    return summarise(scores, seed, thresholds=thresholds)


def score_image(pair: Pair) -> VocScores:
    """What the found objects of one image fit.

    Args:
        pair: true objects are those of the label image; found ones have scores, and are whole where masks overlap; one
            without a pixel is left out. Ignored pixels do not count: a true object without any other pixel is left out;
            a found one with more than half of its pixels there may match, but is never a false positive.

    Raises:
        InputError: if a label is negative.
    """
    found, ignore = pair.found, pair.ignore
    labels, true_ids = relabel(without(pair.truth.labels, ignore))
    true_classes = pair.truth.classes[true_ids - 1]
    pairs, whole, ignored = _overlaps(labels, len(true_ids), found, ignore)
    iou, fits = _best(pairs.where(true_classes[pairs.truth] == found.classes[pairs.found]), len(found))
    rival_iou = _rivals(iou, fits, found.scores)
    there = whole > 0
    return VocScores(
        pair.name,
        found.classes[there],
        found.scores[there],
        iou[there],
        rival_iou[there],
        2 * ignored[there] > whole[there],
        true_classes,
        len(true_ids),
        int(there.sum()),
    )


def summarise(images: Sequence[VocScores], seed: int = 0, *, thresholds: Sequence[float] = THRESHOLDS) -> VocSummary:
    """AP of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    The interval of a class is over the samples that have a true object of it.

    Args:
        images: the scores of each.
        seed: for the bootstrap intervals.
        thresholds: least IoU of a match, in (0, 1].

    Raises:
        InputError: if there is no image, or a threshold is not in (0, 1].
    """
    limits = checked_thresholds(thresholds)
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    classes = _classes(images)
    value, mean = _precisions(images, np.ones((1, len(images))), limits)
    samples, means = _precisions(images, bootstrap_weights(len(images), seed), limits)
    return VocSummary(
        *_with_volume(mean[0], means),
        thresholds=limits,
        by_class={
            int(number): _of_class(images, int(number), value[0, c], samples[:, c]) for c, number in enumerate(classes)
        },
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def paired_difference(
    a: Sequence[VocScores], b: Sequence[VocScores], seed: int = 0, *, thresholds: Sequence[float] = THRESHOLDS
) -> VocDifference:
    """AP of `a` minus that of `b`; above 0, `a` is better. Images are paired by name, and in the order of `a`.

    Raises:
        InputError: if there is no image, the two do not hold the same images, each once, or a threshold is not
            in (0, 1].
    """
    limits = checked_thresholds(thresholds)
    pairs = paired_by_name(a, b)
    every, weights = np.ones((1, len(pairs))), bootstrap_weights(len(pairs), seed)
    results = [[pair[side] for pair in pairs] for side in (0, 1)]
    values = [_precisions(images, every, limits)[1][0] for images in results]
    samples = [_precisions(images, weights, limits)[1] for images in results]
    return VocDifference(*_with_volume(values[0] - values[1], samples[0] - samples[1]), limits, len(pairs))


def _pixels(found: Instances) -> tuple[Int[np.ndarray, " q"], Int[np.ndarray, " q"]]:
    """The label of each pixel of each object, and the pixel's place, counted down the columns."""
    if found.masks is None:
        labels, ids = relabel(found.labels)
        flat = labels.ravel(order="F")
        place = np.flatnonzero(flat)
        return ids[flat[place] - 1], place
    parts = [np.flatnonzero(np.repeat(np.arange(len(runs)) % 2 == 1, runs)) for runs in found.masks]
    owner = np.repeat(np.arange(1, len(parts) + 1), [len(part) for part in parts])
    return owner, np.concatenate([np.zeros(0, np.int64), *parts])


def _overlaps(
    labels: Int[np.ndarray, "h w"], n: int, found: Instances, ignore: Bool[np.ndarray, "h w"] | None
) -> tuple[Pairs, Int[np.ndarray, " j"], Int[np.ndarray, " j"]]:
    """Pairs that overlap outside ignored pixels; pixels of each found object; and how many of them are ignored."""
    owner, place = _pixels(found)
    aside = n + 1  # a label for ignored pixels
    under = (labels if ignore is None else np.where(ignore, aside, labels)).ravel(order="F")[place]
    ids, shared = np.unique(owner * (n + 2) + under, return_counts=True)
    found_label, true_label = np.divmod(ids, n + 2)
    counted = true_label != aside
    there, left = (_sums(found_label[part], shared[part], len(found)) for part in (counted, ~counted))
    both = (true_label > 0) & counted
    truth, index, shared = true_label[both] - 1, found_label[both] - 1, shared[both]
    return Pairs(truth, index, shared, shared / (areas(labels, n)[truth] + there[index] - shared)), there + left, left


def _sums(label: Int[np.ndarray, " p"], pixels: Int[np.ndarray, " p"], n: int) -> Int[np.ndarray, " n"]:
    """Pixels summed for each of labels 1 to n."""
    sums = np.zeros(n + 1, np.int64)
    np.add.at(sums, label, pixels)
    return sums[1:]


def _best(pairs: Pairs, n: int) -> tuple[Float[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """The highest IoU of each of n found objects, and the true object it has this with; 0 and -1 if it fits none."""
    iou, fits = np.zeros(n), np.full(n, -1)
    order = np.lexsort((pairs.truth, -pairs.iou, pairs.found))
    index, first = np.unique(pairs.found[order], return_index=True)
    iou[index], fits[index] = pairs.iou[order[first]], pairs.truth[order[first]]
    return iou, fits


def _rivals(
    iou: Float[np.ndarray, " j"], fits: Int[np.ndarray, " j"], scores: Float[np.ndarray, " j"]
) -> Float[np.ndarray, " j"]:
    """The highest IoU that a better ranked object has with the true one that each fits."""
    rivals = np.zeros(len(iou))
    highest: dict[int, float] = {}
    for j in np.argsort(-scores, kind="stable"):
        rivals[j] = highest.get(int(fits[j]), 0.0)
        highest[int(fits[j])] = max(float(rivals[j]), float(iou[j]))
    return rivals


def _classes(images: Sequence[VocScores]) -> Int[np.ndarray, " c"]:
    """The classes that have a true object, ascending."""
    return np.unique(np.concatenate([image.truth_classes for image in images]))


def _precisions(
    images: Sequence[VocScores], weights: Float[np.ndarray, "s i"], limits: Float[np.ndarray, " t"]
) -> tuple[Float[np.ndarray, "s c t"], Float[np.ndarray, "s t"]]:
    """AP of each class, NaN for one without a true object, and their mean, for each sample's weights of images."""
    classes = _classes(images)
    by_class = np.zeros((len(weights), len(classes), len(limits)))
    for c, number in enumerate(classes):
        by_class[:, c] = _of_number(images, int(number), weights, limits)
    n_found = weights @ np.array([(~image.forgiven).sum() for image in images])
    n = (~np.isnan(by_class)).sum(1)
    without_truth = np.where(n_found[:, None] == 0, 1.0, np.zeros(n.shape))
    return by_class, np.divide(np.nansum(by_class, 1), n, out=without_truth, where=n > 0)


def _of_number(
    images: Sequence[VocScores], number: int, weights: Float[np.ndarray, "s i"], limits: Float[np.ndarray, " t"]
) -> Float[np.ndarray, "s t"]:
    """AP of one class, NaN where it has no true object."""
    members = [image.classes == number for image in images]
    scores, iou, rival_iou, forgiven = (
        np.concatenate([getattr(image, part)[own] for image, own in zip(images, members, strict=True)])
        for part in ("scores", "iou", "rival_iou", "forgiven")
    )
    ranking = np.argsort(-scores, kind="stable")
    owner = np.repeat(np.arange(len(images)), [own.sum() for own in members])[ranking]
    hits = ((rival_iou < limits[:, None]) & (limits[:, None] <= iou))[:, ranking]
    n_truth = weights @ np.array([(image.truth_classes == number).sum() for image in images])
    step = max(1, NUMBERS_AT_ONCE // max(1, len(owner)))
    parts = (weights[at : at + step].take(owner, 1) for at in range(0, len(weights), step))
    sums = np.concatenate([_raised_sums(drawn, hits, forgiven[ranking]) for drawn in parts])
    return np.divide(sums, n_truth[:, None], out=np.full(sums.shape, np.nan), where=n_truth[:, None] > 0)


def _raised_sums(
    drawn: Float[np.ndarray, "s n"], hits: Bool[np.ndarray, "t n"], forgiven: Bool[np.ndarray, " n"]
) -> Float[np.ndarray, "s t"]:
    """The area under each curve, before division by the number of true objects.

    Args:
        drawn: how often each object, best first, is drawn.
        hits: whether it is a true positive.
        forgiven: whether it counts only if it is one.
    """
    n_counted = np.cumsum(drawn * ~forgiven, 1)
    sums = np.zeros((len(drawn), len(hits)))
    for t, hit in enumerate(hits):
        places = np.flatnonzero(hit)  # precision falls between them, so the highest are here
        own, n_so_far = drawn.take(places, 1), n_counted.take(places, 1)
        if forgiven[places].any():
            n_so_far += np.cumsum(own * forgiven[places], 1)
        precision = np.cumsum(own, 1) / np.maximum(n_so_far, 1)  # 0 / 1 before the first is drawn
        raised = np.maximum.accumulate(precision[:, ::-1], 1)[:, ::-1]
        sums[:, t] = np.einsum("sn,sn->s", raised, own)
    return sums


def _of_class(
    images: Sequence[VocScores], number: int, value: Float[np.ndarray, " t"], samples: Float[np.ndarray, "s t"]
) -> ClassPrecision:
    """One class, its intervals over the samples that have a true object of it."""
    return ClassPrecision(
        *_with_volume(value, samples[~np.isnan(samples[:, 0])]),
        n_truth=sum(int((image.truth_classes == number).sum()) for image in images),
        n_found=sum(int((image.classes == number).sum()) for image in images),
    )


def _row(average_precision: Estimate, volume: Interval, thresholds: Float[np.ndarray, " t"]) -> dict[str, Interval]:
    """AP at those of the thresholds that are shown, or at the first where none of them was measured, and the mean."""
    places = [k for k, threshold in enumerate(thresholds) if threshold in SHOWN] or [0]
    return {f"AP {share(thresholds[k])[:-1]}": average_precision.at(k) for k in places} | {"AP vol": volume}


def _with_volume(value: Float[np.ndarray, " t"], samples: Float[np.ndarray, "s t"]) -> tuple[Estimate, Interval]:
    """The values at each threshold, and their mean over thresholds, with intervals."""
    volume = estimate(value.mean(keepdims=True), samples.mean(1, keepdims=True)).at(0)
    return estimate(value, samples), volume


def _value(images: Sequence[VocScores]) -> float:
    """AP^r_vol without its interval."""
    limits = checked_thresholds(THRESHOLDS)
    return float(_precisions(images, np.ones((1, len(images))), limits)[1][0].mean())


PASCAL_VOC = Benchmark(
    VocScores,
    score_image,
    summarise,
    paired_difference,
    _value,
    about="AP of Pascal VOC, of masks",
    headline="AP vol",
    terms={
        "AP": "The area under precision over recall of objects ranked by score, mean over classes.",
        "AP vol": "The mean over the thresholds of IoU .1, .2, … .9.",
    },
    has_classes=True,
)
