"""COCO's average precision and recall of masks, the twelve numbers that pycocotools prints.

**What counts.** Each class of each image is matched on its own, with the 100 found objects that have the highest
scores. Equal scores keep their order: objects as in their image, and images as they are given (to equal pycocotools, in
the order of their ids). A found object without a pixel is not left out: it is wrong.

**Matching.** Each of the IoU thresholds .50, .55, …, .95 is matched on its own. Found objects choose in the order of
their scores: each takes the true object that it fits best, the later of equals, among those that are still free and
that it fits at least as well as the threshold asks. True objects that count come first; only if none of them will do is
one that does not count taken, and then neither of the two has any effect. A found object that takes none is wrong.

**Crowds.** A crowd is a region of several objects of its class. It does not count, and any number of found objects may
take it; how well one fits is the share of its own pixels that lies in the crowd, not IoU.

**Size.** Small is an area of up to 32 x 32 pixels, medium from there to 96 x 96, large from there on; an area on a
border counts on both sides. For each range of sizes, true objects outside it do not count, nor do found objects outside
it that take none. A true object's area is what its annotation says; a found one's is its mask's. (pycocotools takes the
area of the box where a results file also has boxes; delete them there to compare.)

**Average precision.** The found objects of a class in all images are put in the order of their scores. After each one
there is a precision (the right ones among all so far that have an effect) and a recall (the right ones over all true
objects that count). AP is the mean, over 101 recalls from 0 to 1, of the highest precision at this recall or above,
which is 0 at recalls that are never reached. Average recall is the final recall with 1, 10 or 100 found objects per
image and class. Both are averaged over thresholds and classes. A class without a true object that counts is left out,
and what is left out in every class is NaN, where pycocotools prints -1.

**Not in COCO.** Void pixels are removed from every object; a true object that loses all its pixels there is left out,
and a found one that loses more than half has no effect if it takes none. Each number has a 95 % bootstrap interval over
images, of only 500 samples, as precision is computed anew for each; a sample without a true object of a class leaves
out the class. A sample has fewer different objects than the data set, which raises AP where a class has few, so there
an interval may begin above its value.

pycocotools has one mistake that is not repeated: a found object that takes the annotation with id 0 is wrong there.

Source: `pycocotools.cocoeval.COCOeval` with iouType "segm"; Lin et al. 2014 (doi:10.1007/978-3-319-10602-1_48).

Shapes: `h` rows, `w` columns, `k` true objects, `d` found objects, `a` ranges of area, `t` thresholds, `i` images,
`s` bootstrap samples, `n` runs of pixels, `r` rows of the result.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float, Int, Int8, Shaped

from attractor.errors import InputError
from attractor.instances import Annotations, Instances
from attractor.metrics.arrays import Images, Masks, pairs_of
from attractor.metrics.bootstrap import Interval, bootstrap_weights, paired_by_name
from attractor.metrics.metric import Benchmark, Overview, Pair, Row, Scores, Table, by_class

# By linspace, as in pycocotools: its 0.35 is slightly too high, so that a recall of 7/20 does not reach it.
THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
AREAS = np.array([[0, 1e10], [0, 32**2], [32**2, 96**2], [96**2, 1e10]])  # all, small, medium, large; both ends count
LIMITS = (1, 10, 100)  # found objects per image and class
ROWS = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
N_SAMPLES = 500
CHUNK = 1 << 21  # bootstrap weights of found objects at a time: 16 MB


@dataclass(frozen=True)
class CocoScores(Scores):
    """What became of one image's objects, in each range of area and at each threshold."""

    truth_classes: Int[np.ndarray, " k"]
    truth_counts: Bool[np.ndarray, "a k"]  # crowds never do
    found_classes: Int[np.ndarray, " d"]  # at most 100 of each class, best first within it
    ranks: Int[np.ndarray, " d"]  # place in the class, from 0
    scores: Float[np.ndarray, " d"]
    outcome: Int8[np.ndarray, "a t d"] = field(metadata={"json": False})  # 1 right, -1 wrong, 0 without effect
    n_truth: int  # without crowds
    n_found: int  # all of them, including those beyond 100 of a class


@dataclass(frozen=True)
class CocoRows:
    """The twelve numbers by the names they have in papers; NaN where there is nothing of the kind."""

    AP: Interval  # over IoU .50 to .95
    AP50: Interval
    AP75: Interval
    APs: Interval  # small, up to 32 x 32 pixels
    APm: Interval
    APl: Interval  # large, from 96 x 96 on
    AR1: Interval  # with one found object per image and class
    AR10: Interval
    AR100: Interval
    ARs: Interval
    ARm: Interval
    ARl: Interval

    def row(self) -> dict[str, Interval]:
        """All twelve."""
        return {name: getattr(self, name) for name in ROWS}


@dataclass(frozen=True)
class CocoSummary(CocoRows):
    """The scores of a data set."""

    by_class: dict[int, dict[str, float]]  # number of each class with a true object -> name of the row -> value
    n_truth: int  # without crowds
    n_found: int
    n_images: int

    def overviews(self) -> list[Overview]:
        """The six precisions and the six recalls."""
        row = self.row()
        return [
            Overview(
                "COCO's AP of masks",
                {name: row[name] for name in ROWS[:6]},
                f"{self.n_truth} true, {self.n_found} found objects",
            ),
            Overview(
                "COCO's AR of masks",
                {name: row[name] for name in ROWS[6:]},
                "with 1, 10 and 100 objects per image and class",
            ),
        ]

    def tables(self, class_names: Sequence[str]) -> list[Table]:
        """Some of the twelve numbers, by class."""
        rows: dict[int, Row] = {
            number: {name: own[name] for name in ("AP", "AP50", "AP75", "AR100")}
            for number, own in self.by_class.items()
        }
        return by_class(rows, class_names)


@dataclass(frozen=True)
class CocoDifference(CocoRows):
    """Scores of one result minus those of another on the same images, with paired intervals."""

    n_images: int


def coco_average_precision(truth: Images, found: Images, *, ignore: Masks = None, seed: int = 0) -> CocoSummary:
    """COCO's twelve numbers for one image or for several.

    Args:
        truth: a label image, `Instances`, or a sequence of these.
        found: as many, in the same order; `Instances` are ranked by their scores.
        ignore: masks of void pixels.
        seed: for the bootstrap intervals.

    Raises:
        InputError: if there is no image, or truth and found differ in shape.

    >>> import numpy as np
    >>> from attractor.metrics import coco_average_precision
    >>> truth = np.array([[1, 1, 1, 1, 0, 2, 2]])
    >>> found = np.array([[1, 1, 1, 0, 0, 2, 2]])  # with IoU 3/4 and 1
    >>> scores = coco_average_precision(truth, found)
    >>> scores.AP50.value, round(scores.AR100.value, 3)
    (1.0, 0.8)
    """
    return summarise([score_image(pair) for pair in pairs_of(truth, found, ignore)], seed)


def score_image(pair: Pair) -> CocoScores:
    """Match the objects of one image; whole masks are compared where found objects overlap.

    Args:
        pair: true objects are taken as annotated, with crowds; classes of found objects are numbered as in the truth,
            and scores may be any numbers.

    Raises:
        InputError: if sizes differ, or the runs of a true mask do not fill the image.
    """
    truth, found, name = pair.annotations(), pair.found, pair.name
    _check(truth, found, name)
    kept = _kept_pixels(truth.void)
    masks = [_mask(runs, kept) for runs in truth.masks]
    is_gone = np.array(
        [runs[1::2].any() and not mask.area for runs, mask in zip(truth.masks, masks, strict=True)], bool
    )
    chosen, ranks = _ranked(found)
    spans = _spans(found, chosen)
    areas, spans = spans.areas(len(chosen)), spans.without_void(kept)
    areas_left = spans.areas(len(chosen))
    counts = _within(truth.areas) & ~truth.is_crowd & ~is_gone
    has_effect = _within(areas) & (2 * areas_left >= areas)
    outcome = np.empty((len(AREAS), len(THRESHOLDS), len(chosen)), np.int8)
    for number in np.unique(found.classes[chosen]):
        own, true = found.classes[chosen] == number, np.flatnonzero((truth.classes == number) & ~is_gone)
        fit = _fit(spans.of(own), areas_left[own], [masks[k] for k in true], truth.is_crowd[true])
        outcome[..., own] = _match(fit, truth.is_crowd[true], counts[:, true], has_effect[:, own])
    return CocoScores(
        name,
        truth.classes[~is_gone],
        counts[:, ~is_gone],
        found.classes[chosen],
        ranks,
        found.scores[chosen].astype(np.float64),
        outcome,
        int((~truth.is_crowd & ~is_gone).sum()),
        len(found),
    )


def summarise(images: Sequence[CocoScores], seed: int = 0) -> CocoSummary:
    """Scores of a data set with 95 % bootstrap intervals over its images, the same for the same seed.

    Raises:
        InputError: if there is no image.
    """
    pools = _pools(images)
    by_class = _rows_by_class(pools, np.ones((1, len(images))))[:, 0]  # (c, r)
    samples = _rows(pools, bootstrap_weights(len(images), seed)[:N_SAMPLES])
    return CocoSummary(
        **_intervals(_mean_of_known(by_class), samples),
        by_class={
            pool.class_number: dict(zip(ROWS, values.tolist(), strict=True))
            for pool, values in zip(pools, by_class, strict=True)
        },
        n_truth=sum(image.n_truth for image in images),
        n_found=sum(image.n_found for image in images),
        n_images=len(images),
    )


def mean_average_precision(images: Sequence[CocoScores]) -> float:
    """AP, without its interval; NaN where nothing counts."""
    return float(_rows(_pools(images), np.ones((1, len(images))))[0, 0])


def paired_difference(a: Sequence[CocoScores], b: Sequence[CocoScores], seed: int = 0) -> CocoDifference:
    """Scores of `a` minus those of `b`; above 0, `a` is better. Images are paired by name.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    pairs = paired_by_name(a, b)
    of_a, of_b = _pools([one for one, _ in pairs]), _pools([other for _, other in pairs])
    once, often = np.ones((1, len(pairs))), bootstrap_weights(len(pairs), seed)[:N_SAMPLES]
    value = _rows(of_a, once) - _rows(of_b, once)
    return CocoDifference(**_intervals(value[0], _rows(of_a, often) - _rows(of_b, often)), n_images=len(pairs))


# --- one image --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Spans:
    """Runs of pixels down the columns, each of one found object."""

    start: Int[np.ndarray, " n"]
    end: Int[np.ndarray, " n"]  # one past the last
    owner: Int[np.ndarray, " n"]  # counted from 0

    def areas(self, n: int) -> Float[np.ndarray, " n"]:
        """Pixels of each of n objects."""
        return _sums(self.owner, self.end - self.start, n)

    def without_void(self, kept: Int[np.ndarray, " _"] | None) -> _Spans:
        """The same spans, with void pixels left out of the count."""
        return self if kept is None else _Spans(kept[self.start], kept[self.end], self.owner)

    def of(self, keep: Bool[np.ndarray, " d"]) -> _Spans:
        """The spans of some of the objects, which are renumbered."""
        number = np.cumsum(keep) - 1
        own = keep[self.owner]
        return _Spans(self.start[own], self.end[own], number[self.owner[own]])


@dataclass(frozen=True)
class _Mask:
    """One true object."""

    bounds: Int[np.ndarray, " n"]  # first pixel of each run, and one past the last; every other run is the object's
    before: Int[np.ndarray, " n"]  # pixels of the object before each of these

    @property
    def area(self) -> int:
        """All its pixels."""
        return int(self.before[-1])

    def covers(self, places: Int[np.ndarray, "*x"]) -> Int[np.ndarray, "*x"]:
        """How many of its pixels lie before each place."""
        run = np.searchsorted(self.bounds, places, side="right") - 1
        return self.before[run] + np.where(run % 2 == 1, places - self.bounds[run], 0)


def _mask(runs: Int[np.ndarray, " _"], kept: Int[np.ndarray, " _"] | None) -> _Mask:
    """An object from its run lengths, void pixels left out."""
    bounds = np.concatenate([[0], np.cumsum(runs)])
    if kept is not None:
        bounds = kept[bounds]
    lengths = np.diff(bounds)
    lengths[::2] = 0  # the gaps
    return _Mask(bounds, np.concatenate([[0], np.cumsum(lengths)]))


def _check(truth: Annotations, found: Instances, name: str) -> None:
    """Refuse images that differ in size, and true masks that do not fill theirs."""
    if truth.void.shape != found.labels.shape:
        raise InputError(
            f"{name}: the images to compare differ in shape: truth {truth.void.shape}, found {found.labels.shape}."
        )
    for k, mask in enumerate(truth.masks):
        if mask.sum() != truth.void.size or (mask < 0).any():
            raise InputError(
                f"{name}: the runs of true object {k + 1} cover {mask.sum()} pixels, but the image has "
                f"{truth.void.shape[0]} x {truth.void.shape[1]}."
            )


def _ranked(found: Instances) -> tuple[Int[np.ndarray, " d"], Int[np.ndarray, " d"]]:
    """The objects that take part, class by class and best first, and each one's place in its class."""
    order = np.lexsort((-found.scores, found.classes))
    classes = found.classes[order]
    ranks = np.arange(len(order)) - np.searchsorted(classes, classes)
    return order[ranks < LIMITS[-1]], ranks[ranks < LIMITS[-1]]


def _kept_pixels(void: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, " _"] | None:
    """For each pixel down the columns, and the end, how many before it are not void; None where no pixel is void."""
    return np.concatenate([[0], np.cumsum(~void.ravel(order="F"))]) if void.any() else None


def _spans(found: Instances, chosen: Int[np.ndarray, " d"]) -> _Spans:
    """The spans of the chosen objects, numbered in this order."""
    if found.masks is not None:
        bounds = [np.cumsum(found.masks[k]) for k in chosen]
        ends = [each[1::2] for each in bounds]
        starts = [each[0::2][: len(end)] for each, end in zip(bounds, ends, strict=True)]
        owner = np.repeat(np.arange(len(chosen)), [len(end) for end in ends])
        nothing = np.zeros(0, np.int64)
        return _Spans(np.concatenate([nothing, *starts]), np.concatenate([nothing, *ends]), owner)
    flat = found.labels.ravel(order="F")
    start = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    end = np.append(start[1:], flat.size)
    place = np.full(len(found) + 1, -1)
    place[chosen + 1] = np.arange(len(chosen))
    owner = place[flat[start]]
    return _Spans(start[owner >= 0], end[owner >= 0], owner[owner >= 0])


def _within(areas: Float[np.ndarray, " _"]) -> Bool[np.ndarray, "a _"]:
    """Whether areas lie in each of the ranges."""
    return (areas >= AREAS[:, :1]) & (areas <= AREAS[:, 1:])


def _fit(
    spans: _Spans, areas: Float[np.ndarray, " d"], masks: list[_Mask], is_crowd: Bool[np.ndarray, " k"]
) -> Float[np.ndarray, "d k"]:
    """IoU of each found object with each true one; for a crowd, the share of the found object that lies in it."""
    shared = np.zeros((len(areas), len(masks)))
    for column, mask in zip(shared.T, masks, strict=True):
        if mask.area:
            near = (spans.end > mask.bounds[1]) & (spans.start < mask.bounds[-1])
            start, end = mask.covers(np.stack([spans.start[near], spans.end[near]]))
            column[:] = _sums(spans.owner[near], end - start, len(areas))
    true_areas = np.array([mask.area for mask in masks], float)
    whole = np.where(is_crowd, areas[:, None], areas[:, None] + true_areas - shared)
    return np.divide(shared, whole, out=np.zeros_like(shared), where=shared > 0)


def _sums(owner: Int[np.ndarray, " x"], values: Shaped[np.ndarray, " x"], n: int) -> Float[np.ndarray, " n"]:
    """Sum of the values of each of n owners."""
    return np.bincount(owner, values, n).astype(np.float64)  # bincount gives integers if there are no values


def _match(
    fit: Float[np.ndarray, "d k"],
    is_crowd: Bool[np.ndarray, " k"],
    counts: Bool[np.ndarray, "a k"],
    has_effect: Bool[np.ndarray, "a d"],
) -> Int8[np.ndarray, "a t d"]:
    """What becomes of each found object, best first."""
    outcome = np.repeat(-has_effect.astype(np.int8)[:, None], len(THRESHOLDS), axis=1)
    is_free = np.ones((len(AREAS), len(THRESHOLDS), fit.shape[1]), bool)
    for k in np.flatnonzero(fit.max(axis=1, initial=0) >= THRESHOLDS[0]):
        near = np.flatnonzero(fit[k] >= THRESHOLDS[0])[::-1]  # reversed, so that argmax gives the later of equals
        possible = is_free[..., near] & (fit[k, near] >= THRESHOLDS[:, None])  # (a, t, near)
        counted = possible & counts[:, None, near]
        best = np.where(np.where(counted.any(-1, keepdims=True), counted, possible), fit[k, near], 0).argmax(-1)
        area, level = np.nonzero(possible.any(-1))
        taken = near[best[area, level]]
        outcome[area, level, k] = counts[area, taken]
        is_free[area, level, taken] = is_crowd[taken]
    return outcome


# --- all images -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Pool:
    """The objects of one class in all images, found ones in the order of their scores."""

    class_number: int
    image: Int[np.ndarray, " d"]  # index of each found object's image
    outcome: Int8[np.ndarray, "a t d"]
    right: Float[np.ndarray, "i m"]  # right ones of each image, mean over thresholds, in the order of the rows from AR1
    n_truth: Float[np.ndarray, "i a"]  # true objects that count


def _pools(images: Sequence[CocoScores]) -> list[_Pool]:
    """A pool for each class with a true object."""
    if not images:
        raise InputError("There is no image to score: a data set needs at least one.")
    of_truth = np.repeat(np.arange(len(images)), [len(image.truth_classes) for image in images])
    of_found = np.repeat(np.arange(len(images)), [len(image.found_classes) for image in images])
    truth_classes = np.concatenate([image.truth_classes for image in images])
    truth_counts = np.concatenate([image.truth_counts for image in images], axis=1)
    found_classes = np.concatenate([image.found_classes for image in images])
    ranks = np.concatenate([image.ranks for image in images])
    outcome = np.concatenate([image.outcome for image in images], axis=2)
    scores = np.concatenate([image.scores for image in images])
    pools = []
    for number in np.unique(truth_classes[truth_counts[0]]):
        own = np.flatnonzero(found_classes == number)
        own = own[np.argsort(-scores[own], kind="stable")]
        true = truth_classes == number
        pools.append(
            _Pool(
                int(number),
                of_found[own],
                outcome[..., own],
                _right(of_found[own], outcome[..., own], ranks[own], len(images)),
                np.stack([_sums(of_truth[true], c[true], len(images)) for c in truth_counts], 1),
            )
        )
    return pools


def _right(
    image: Int[np.ndarray, " d"], outcome: Int8[np.ndarray, "a t d"], ranks: Int[np.ndarray, " d"], n_images: int
) -> Float[np.ndarray, "i m"]:
    """Right ones of each image, mean over thresholds: of the first 1, 10 and 100, and of small, medium and large."""
    is_right = (outcome == 1).mean(axis=1)  # (a, d)
    kinds = [is_right[0] * (ranks < limit) for limit in LIMITS] + list(is_right[1:])
    return np.stack([_sums(image, kind, n_images) for kind in kinds], 1)


def _rows(pools: list[_Pool], weights: Float[np.ndarray, "s i"]) -> Float[np.ndarray, "s r"]:
    """The twelve numbers, averaged over the classes that have them."""
    return _mean_of_known(_rows_by_class(pools, weights))


def _rows_by_class(pools: list[_Pool], weights: Float[np.ndarray, "s i"]) -> Float[np.ndarray, "c s r"]:
    """The twelve numbers of each class, images being weighted; NaN without a true object that counts."""
    parts = [np.concatenate([_precisions(pool, weights), _recalls(pool, weights)], axis=1) for pool in pools]
    return np.array(parts).reshape(len(pools), len(weights), len(ROWS))


def _mean_of_known(values: Float[np.ndarray, "c *rest"]) -> Float[np.ndarray, "*rest"]:
    """Means over the classes that are not NaN; NaN where all are."""
    known = ~np.isnan(values)
    return _ratio(np.where(known, values, 0).sum(axis=0), known.sum(axis=0))


def _ratio(part: Float[np.ndarray, "*x"], whole: Shaped[np.ndarray, "..."]) -> Float[np.ndarray, "*x"]:
    """Quotients; NaN for 0 / 0."""
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)


def _precisions(pool: _Pool, weights: Float[np.ndarray, "s i"]) -> Float[np.ndarray, "s 6"]:
    """The six APs of one class."""
    n_truth = weights @ pool.n_truth  # (s, a)
    precision = np.full((len(weights), len(AREAS), len(THRESHOLDS)), np.nan)
    size = max(1, CHUNK // max(1, len(pool.image)))
    for part in (slice(first, first + size) for first in range(0, len(weights), size)):
        often = weights[part][:, pool.image]
        for area in np.flatnonzero(pool.n_truth.any(axis=0)):
            for level, outcome in enumerate(pool.outcome[area]):
                precision[part, area, level] = _average_precision(outcome, often, n_truth[part, area])
    whole, small, medium, large = np.moveaxis(precision.mean(axis=2), 1, 0)
    return np.stack([whole, precision[:, 0, 0], precision[:, 0, 5], small, medium, large], 1)


def _recalls(pool: _Pool, weights: Float[np.ndarray, "s i"]) -> Float[np.ndarray, "s 6"]:
    """The six ARs of one class."""
    return _ratio(weights @ pool.right, weights @ pool.n_truth[:, [0, 0, 0, 1, 2, 3]])


def _average_precision(
    outcome: Int8[np.ndarray, " d"], often: Float[np.ndarray, "s d"], n_truth: Float[np.ndarray, " s"]
) -> Float[np.ndarray, " s"]:
    """Mean precision over RECALLS; found objects are ranked, each counts `often` times. NaN without a true object.

    Precision is needed only where an object is right: at any other it is lower, and recall the same.
    """
    has_effect = np.flatnonzero(outcome)
    right = np.flatnonzero(outcome[has_effect] == 1)
    often = often[:, has_effect[: right[-1] + 1 if len(right) else 0]]
    hits, seen = np.cumsum(often[:, right], axis=1), np.cumsum(often, axis=1)[:, right]
    precision = hits / np.maximum(seen, 1)  # a sample may have none of the images so far
    highest = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    place = _first_to_reach(hits / np.maximum(n_truth, 1)[:, None])
    reached = np.take_along_axis(np.pad(highest, ((0, 0), (0, 1))), place, axis=1)
    return np.where(n_truth > 0, reached.mean(axis=1), np.nan)


def _first_to_reach(recall: Float[np.ndarray, "s p"]) -> Int[np.ndarray, "s q"]:
    """Place in each ascending row of the first value that reaches each of RECALLS; p if none does."""
    row = np.arange(len(recall))[:, None]
    steps = (recall + 2 * row).ravel(), (RECALLS + 2 * row).ravel()  # all rows as one ascending row
    return np.searchsorted(*steps).reshape(len(recall), -1) - row * recall.shape[1]


def _intervals(values: Float[np.ndarray, " r"], samples: Float[np.ndarray, "s r"]) -> dict[str, Interval]:
    """Each value by its row's name, with the middle 95 % of its samples that are known."""
    intervals = {}
    for name, value, sample in zip(ROWS, values.tolist(), samples.T, strict=True):
        known = sample[~np.isnan(sample)]
        low, high = np.quantile(known, (0.025, 0.975)).tolist() if len(known) else (np.nan, np.nan)
        intervals[name] = Interval(value, low, high)
    return intervals


COCO = Benchmark(
    CocoScores,
    score_image,
    summarise,
    paired_difference,
    mean_average_precision,
    about="the six APs and six ARs of COCO, of masks",
    headline="AP",
    terms={
        "AP": "The mean precision over 101 recalls of objects ranked by score, mean over thresholds of IoU from .50 to "
        ".95 and over classes.",
        "AP50, AP75": "The same at an IoU of .50 and .75.",
        "APs, APm, APl": "AP of small objects, up to 32 x 32 pixels, of medium and of large ones, from 96 x 96 on.",
        "AR1, AR10, AR100": "Recall with 1, 10 and 100 found objects per image and class, averaged likewise.",
    },
    has_classes=True,
)
