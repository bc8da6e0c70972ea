"""The AP of Cityscapes: the area under precision over recall of each class, over thresholds of IoU.

At each threshold a found object is compared with the true objects of its class. It finds the one that it overlaps with
an intersection over union *above* the threshold; where several do, the one with the highest score (the earlier of equal
ones) is a true positive and the others are false positives. One that finds nothing is a false positive, unless the
share of its pixels that lies where nothing can be said exceeds the threshold: on void, on crowds of its class, and on
true objects of its class that do not count. A found object does not count either way if what it finds is itself such a
crowd or object. (A crowd that is also too small or far is added twice to these pixels, as in the official script.)

Objects of all images are ranked together by score. Precision and recall at each distinct score are points of a curve,
which begins at recall 0 with precision 1; AP is the area below the straight lines between them, 0 where nothing is
found and NaN if a class has no true object that counts. Four values are reported, each a mean over the classes that
occur: AP over thresholds .50 to .95, AP50 at .50, and AP100m and AP50m of objects up to 100 and 50 m away, NaN where
distances are not known. True objects count from 100 pixels on, for the last two values from 1,000. A found object
without a pixel is left out.

Every value has a 95 % bootstrap interval over images, of 500 samples. A class that does not occur in a sample is left
out there.

Values equal those of the public script, except that it fails where all found objects of a class are left out; AP is 0
here.

Source: Cordts et al. 2016, section 4.2; `cityscapesscripts.evaluation.evalInstanceLevelSemanticLabeling`.

Shapes: `h` rows, `w` columns, `k` true regions, `j` found objects, `p` stretches of pixels, `d` ranges of distance,
`t` thresholds, `i` images, `c` classes, `s` samples, `v` values.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.errors import InputError
from attractor.instances import Instances, encode_mask
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Interval, bootstrap_weights, paired_by_name
from attractor.metrics.metric import Benchmark, Overview, Pair, Row, Scores, Table, by_class

THRESHOLDS = np.arange(0.5, 1.0, 0.05)  # as in the script: 0.6000000000000001 matters for 3 pixels of 5
FARTHEST = np.array([np.inf, 100.0, 50.0])  # metres
LEAST_AREAS = np.array([100, 1000, 1000])  # pixels, for each of these
N_SAMPLES = 500  # fewer than other metrics take: each goes through all objects again for every range and threshold
_MOST_AT_ONCE = 1 << 20  # numbers in the tables of a few samples


@dataclass(frozen=True)
class CityscapesScores(Scores):
    """How the objects of one image meet; which are true positives depends on the threshold."""

    truth_classes: Int[np.ndarray, " k"]  # of true objects and crowds
    counts: Bool[np.ndarray, "k d"]  # whether it counts at each range: not a crowd, large and near enough
    found_classes: Int[np.ndarray, " j"]
    scores: Float[np.ndarray, " j"]
    partner: Int[np.ndarray, " j"]  # true region of its class that it overlaps best, from 0; -1 if none
    iou: Float[np.ndarray, " j"]  # with its partner
    ignored: Float[np.ndarray, "j d"]  # part of its pixels where nothing can be said


@dataclass(frozen=True)
class FourAps:
    """The four values of a class, or their means over classes."""

    average_precision: Interval
    average_precision_50: Interval
    average_precision_100m: Interval
    average_precision_50m: Interval

    def row(self) -> dict[str, Interval]:
        """The values by the names they have in papers."""
        return {
            "AP": self.average_precision,
            "AP50": self.average_precision_50,
            "AP100m": self.average_precision_100m,
            "AP50m": self.average_precision_50m,
        }


@dataclass(frozen=True)
class CityscapesSummary(FourAps):
    """Scores of a data set: means over the classes that occur, and those of each class."""

    by_class: dict[int, FourAps]  # class number, from 1, to its values
    n_truth: int  # objects of 100 pixels and more, without crowds
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """The four means over classes."""
        counts = f"{self.n_truth} true, {self.n_found} found objects"
        return [Overview("Cityscapes' AP, means over classes", self.row(), counts)]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """The four values by class."""
        rows: dict[int, Row] = {
            number: {name: cell.value for name, cell in own.row().items()} for number, own in self.by_class.items()
        }
        return by_class(rows, class_names)


@dataclass(frozen=True)
class CityscapesDifference(FourAps):
    """Scores of one result minus those of another on the same images, with paired intervals."""

    n_images: int


def cityscapes_average_precision(
    truth: Images, found: Images, *, ignore: Masks = None, seed: int = 0
) -> CityscapesSummary:
    """Cityscapes' AP and AP50 of one image or of several; AP by distance is NaN, as distances are not known.

    Args:
        truth: a label image, `Instances`, or a sequence of these; objects below 100 pixels do not count.
        found: as many, in the same order; `Instances` are ranked by their scores.
        ignore: masks of void pixels, where no true object is.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import cityscapes_average_precision
    >>> truth = np.zeros((20, 40), int)
    >>> truth[:, 5:15], truth[:, 25:35] = 1, 2
    >>> found = np.where(truth == 2, 0, truth)
    >>> cityscapes_average_precision(truth, found).average_precision_50.value
    0.5
    """
    return summarise([score_image(pair) for pair in pairs_of(truth, found, ignore)], seed)


def score_image(pair: Pair) -> CityscapesScores:
    """How the objects found in one image meet the true ones of their class.

    True objects should not overlap, so that no found object fits two; where they do, it finds the one that it overlaps
    best.

    Raises:
        InputError: if truth and found differ in shape.
    """
    truth, found, name = pair.annotations(), pair.found, pair.name
    if truth.void.shape != found.labels.shape:
        raise InputError(
            f"{name}: the images to compare differ in shape: truth {truth.void.shape}, found {found.labels.shape}."
        )
    owner, stretches = _stretches(found)
    pixels = _sums(owner, stretches[:, 1] - stretches[:, 0], len(found))
    areas = np.array([mask[1::2].sum() for mask in truth.masks], np.int64)
    shared = np.zeros((len(areas), len(found)), np.int64)
    for row, mask, class_number in zip(shared, truth.masks, truth.classes, strict=True):
        own = found.classes[owner] == class_number
        row[:] = _sums(owner[own], _covered(mask, stretches[own]), len(found))
    on_void = _sums(owner, _covered(encode_mask(truth.void), stretches), len(found))

    is_there = pixels > 0
    shared, pixels, on_void = shared[:, is_there], pixels[is_there], on_void[is_there]
    iou = shared / (areas[:, None] + pixels - shared)
    overlooked = _is_small_or_far(areas, truth.distances)
    times = truth.is_crowd[:, None].astype(np.int64) + overlooked  # how often its pixels add to those ignored
    return CityscapesScores(
        name=name,
        truth_classes=truth.classes,
        counts=~truth.is_crowd[:, None] & ~overlooked,
        found_classes=found.classes[is_there],
        scores=found.scores[is_there],
        partner=np.where(shared.any(0), iou.argmax(0), -1) if len(areas) else np.full(len(pixels), -1),
        iou=iou.max(0, initial=0.0),
        ignored=(on_void[:, None] + shared.T @ times) / pixels[:, None],
    )


def summarise(images: Sequence[CityscapesScores], seed: int = 0) -> CityscapesSummary:
    """Scores of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    Raises:
        InputError: if there is no image.
    """
    classes = _classes(images)
    values = _values(images, classes, np.ones((1, len(images))))[0]  # (c, v)
    samples = _values(images, classes, bootstrap_weights(len(images), seed)[:N_SAMPLES])  # (s, c, v)
    return CityscapesSummary(
        **_intervals(_mean(values), _mean(samples)),
        by_class={int(c): FourAps(**_intervals(values[k], samples[:, k])) for k, c in enumerate(classes)},
        n_truth=sum(int(image.counts[:, 0].sum()) for image in images),
        n_found=sum(len(image.scores) for image in images),
        n_images=len(images),
    )


def mean_average_precision(images: Sequence[CityscapesScores]) -> float:
    """AP, mean over the classes that occur, without its interval; NaN where nothing counts."""
    return float(_mean(_values(images, _classes(images), np.ones((1, len(images))))[0])[0])


def paired_difference(
    a: Sequence[CityscapesScores], b: Sequence[CityscapesScores], seed: int = 0
) -> CityscapesDifference:
    """Scores of `a` minus those of `b`; above 0, `a` is better. Images are paired by name.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    classes = _classes([*a, *b])
    sides = list(zip(*paired_by_name(a, b), strict=True))
    weights = bootstrap_weights(len(a), seed)[:N_SAMPLES]
    value, other_value = (_mean(_values(side, classes, np.ones((1, len(side)))))[0] for side in sides)
    samples, other_samples = (_mean(_values(side, classes, weights)) for side in sides)
    return CityscapesDifference(**_intervals(value - other_value, samples - other_samples), n_images=len(a))


# --- one image --------------------------------------------------------------------------------------------------------


def _stretches(found: Instances) -> tuple[Int[np.ndarray, " p"], Int[np.ndarray, "p 2"]]:
    """Objects' pixels as stretches down the columns, object by object: the object of each, from 0, and (start, end)."""
    if found.masks is not None:
        own = [np.cumsum(mask)[: len(mask) // 2 * 2].reshape(-1, 2) for mask in found.masks]
        owner = np.repeat(np.arange(len(own)), [len(stretches) for stretches in own])
        return owner, np.concatenate([np.zeros((0, 2), np.int64), *own])
    flat = found.labels.ravel(order="F")
    bounds = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1, [flat.size]])
    labels = flat[bounds[:-1]]
    order = np.argsort(labels, kind="stable")[np.count_nonzero(labels == 0) :]  # background is first
    return labels[order].astype(np.int64) - 1, np.stack([bounds[:-1], bounds[1:]], 1)[order]


def _covered(mask: Int[np.ndarray, " r"], stretches: Int[np.ndarray, "p 2"]) -> Int[np.ndarray, " p"]:
    """Pixels of a mask in each stretch: those before its end less those before its start."""
    edges = np.concatenate([[0], np.cumsum(mask)])
    ones = np.concatenate([[0], np.cumsum(np.where(np.arange(len(mask)) % 2, mask, 0))])  # before each edge
    run = np.searchsorted(edges, stretches, side="right") - 1  # the one that each bound lies in
    before = ones[run] + np.where(run % 2, stretches - edges[run], 0)
    return before[:, 1] - before[:, 0]


def _sums(owner: Int[np.ndarray, " p"], values: Int[np.ndarray, " p"], n: int) -> Int[np.ndarray, " n"]:
    """The sum of the values of each of n owners."""
    return np.bincount(owner, values, minlength=n).astype(np.int64)  # exact: a mask has fewer than 2**53 pixels


def _is_small_or_far(areas: Int[np.ndarray, " k"], distances: Float[np.ndarray, " k"]) -> Bool[np.ndarray, "k d"]:
    """Whether a region is left out at each range; an unknown distance is farther than any limit."""
    is_far = np.isfinite(FARTHEST) & ~(distances[:, None] <= FARTHEST)
    return is_far | (areas[:, None] < LEAST_AREAS)


def _outcomes(image: CityscapesScores) -> tuple[Bool[np.ndarray, "j d t"], Bool[np.ndarray, "j d t"]]:
    """Which found objects are true and which false positives; the others do not count."""
    finds = image.iou[:, None] > THRESHOLDS  # (j, t)
    rank = np.empty(len(image.scores), np.int64)
    rank[np.argsort(-image.scores, kind="stable")] = np.arange(len(rank))
    first = np.full((len(image.truth_classes) + 1, len(THRESHOLDS)), len(rank))  # the last row: without a partner
    np.minimum.at(first, image.partner, np.where(finds, rank[:, None], len(rank)))
    is_first = finds & (first[image.partner] == rank[:, None])
    counts = np.concatenate([image.counts, np.zeros((1, len(FARTHEST)), bool)])[image.partner, :, None]  # (j, d, 1)
    is_wrong = np.where(finds[:, None], counts & ~is_first[:, None], image.ignored[:, :, None] <= THRESHOLDS)
    return counts & is_first[:, None], is_wrong


# --- all images -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Ranking:
    """The found objects of a class in all images, best first."""

    image: Int[np.ndarray, " j"]
    is_true: Bool[np.ndarray, "d t j"]
    is_false: Bool[np.ndarray, "d t j"]
    last: Int[np.ndarray, " g"]  # of each group of equal scores
    n_truth: Int[np.ndarray, "i d"]  # true objects of each image that count


def _classes(images: Sequence[CityscapesScores]) -> Int[np.ndarray, " c"]:
    """The classes of all objects, true or found."""
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    return np.unique(np.concatenate([part for one in images for part in (one.truth_classes, one.found_classes)]))


def _values(
    images: Sequence[CityscapesScores], classes: Int[np.ndarray, " c"], weights: Float[np.ndarray, "s i"]
) -> Float[np.ndarray, "s c v"]:
    """AP, AP50, AP100m and AP50m of each class, each image counting as often as its weight says."""
    values = np.empty((len(weights), len(classes), 4))
    outcomes = [_outcomes(image) for image in images]
    for k, class_number in enumerate(classes):
        areas = _areas(_ranked(images, outcomes, class_number), weights)  # (s, d, t)
        values[:, k] = np.stack([areas[:, 0].mean(-1), areas[:, 0, 0], areas[:, 1].mean(-1), areas[:, 2].mean(-1)], -1)
    return values


def _ranked(
    images: Sequence[CityscapesScores],
    outcomes: Sequence[tuple[Bool[np.ndarray, "_ d t"], Bool[np.ndarray, "_ d t"]]],
    class_number: int | np.integer,
) -> _Ranking:
    """The found objects of a class, and how many true ones there are."""
    own = [image.found_classes == class_number for image in images]
    scores = np.concatenate([image.scores[mine] for image, mine in zip(images, own, strict=True)])
    order = np.argsort(-scores, kind="stable")
    is_true, is_false = (
        np.concatenate([outcome[side][mine] for outcome, mine in zip(outcomes, own, strict=True)])[order]
        for side in (0, 1)
    )
    return _Ranking(
        image=np.repeat(np.arange(len(images)), [mine.sum() for mine in own])[order],
        is_true=np.ascontiguousarray(np.moveaxis(is_true, 0, -1)),
        is_false=np.ascontiguousarray(np.moveaxis(is_false, 0, -1)),
        last=np.flatnonzero(np.diff(scores[order], append=-np.inf)),
        n_truth=np.array([image.counts[image.truth_classes == class_number].sum(0) for image in images]),
    )


def _areas(ranking: _Ranking, weights: Float[np.ndarray, "s i"]) -> Float[np.ndarray, "s d t"]:
    """Areas under precision over recall, a few samples at a time."""
    n_parts = min(len(weights), 1 + weights.shape[0] * len(ranking.image) // _MOST_AT_ONCE)
    parts = []
    for part in np.array_split(weights, n_parts):
        drawn = part[:, ranking.image]  # (s, j)
        areas = np.empty((len(part), *ranking.is_true.shape[:2]))
        for at in np.ndindex(*areas.shape[1:]):
            areas[:, *at] = _area(drawn, ranking.is_true[at], ranking.is_false[at], ranking.last)
        n_truth = (part @ ranking.n_truth)[:, :, None]  # (s, d, 1)
        parts.append(np.divide(areas, n_truth, out=np.full(areas.shape, np.nan), where=n_truth > 0))
    return np.concatenate(parts)


def _area(
    drawn: Float[np.ndarray, "s j"],
    is_true: Bool[np.ndarray, " j"],
    is_false: Bool[np.ndarray, " j"],
    last: Int[np.ndarray, " g"],
) -> Float[np.ndarray, " s"]:
    """The area under precision over the number of true positives, beginning at 0 with precision 1."""
    start = np.zeros((len(drawn), 1))
    n_true = np.concatenate([start, np.cumsum(drawn * is_true, 1)[:, last]], 1)
    n_all = n_true + np.concatenate([start, np.cumsum(drawn * is_false, 1)[:, last]], 1)
    precision = np.divide(n_true, n_all, out=np.ones_like(n_all), where=n_all > 0)
    return (np.diff(n_true, axis=1) * (precision[:, 1:] + precision[:, :-1])).sum(1) / 2


def _mean(values: Float[np.ndarray, "*s c v"]) -> Float[np.ndarray, "*s v"]:
    """Means over the classes that have a value; NaN where none has."""
    has_value = ~np.isnan(values)
    n = has_value.sum(-2)
    return np.divide(np.where(has_value, values, 0).sum(-2), n, out=np.full(n.shape, np.nan), where=n > 0)


def _intervals(values: Float[np.ndarray, " v"], samples: Float[np.ndarray, "s v"]) -> dict[str, Interval]:
    """The values by name, each with the middle 95 % of the samples that have one."""
    intervals = {}
    for field, value, own in zip(fields(FourAps), values, samples.T, strict=True):
        known = own[~np.isnan(own)]
        low, high = np.quantile(known, (0.025, 0.975)) if len(known) else (np.nan, np.nan)
        intervals[field.name] = Interval(float(value), float(low), float(high))
    return intervals


CITYSCAPES = Benchmark(
    CityscapesScores,
    score_image,
    summarise,
    paired_difference,
    mean_average_precision,
    about="AP of Cityscapes, also by distance",
    headline="AP",
    terms={
        "AP": "The area under precision over recall of objects ranked by score, mean over thresholds of IoU from .50 "
        "to .95 and over classes.",
        "AP50": "The same at an IoU above .50.",
        "AP100m, AP50m": "AP of objects up to 100 and 50 metres away, where distances are known.",
    },
    has_classes=True,
)
