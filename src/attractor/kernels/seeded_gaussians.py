"""Grouping of spatial embeddings on a CPU: the sequential seeded clustering, in time that grows with foreground.

The plain form looks at every foreground pixel for every object. Here consecutive foreground pixels that point to nearly
the same place form a run, and runs are sorted once by where they point; each seed then looks only at the runs that
point near it.
Labels equal the plain form's pixel for pixel, because membership is decided by the same operations in the same order
and precision.

Shapes: `a` axes, of which images have two and volumes three; `s` their lengths, `k` objects, `n` pixels. Axes come in
the order (plane, row, column).
Source: Neven et al. 2019, section 3.4.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from attractor.kernels.binning import bin_points, bin_range
from attractor.kernels.places import (
    alike,
    column,
    difference,
    exponentials,
    finite,
    logarithms,
    means,
    nothing,
    plus,
    reaches,
    squared,
    taken,
    weighted,
    within,
)

FREE, TAKEN = -1, 0  # owners of a pixel that no object has: still to be claimed, or claimed in vain
ANY = np.iinfo(np.int32).max
BLOCK = 64  # pixels looked at together: most are all background or all foreground
RUN = 64  # the most pixels of a run
RUNS_PER_BIN = 4  # runs hold many pixels, so a run tested in vain costs more than a bin


def seeded_gaussians(embedding, concentration, seed, *, foreground_threshold, **grouping):
    """Group the pixels of one image and class.

    `embedding` (a, *s) is where each pixel points, `concentration` (a, *s) is 1 / (2 sigma^2) along each axis, `seed`
    (*s) is 0 to 1; options are as `attractor.methods.spatial_embeddings.group_plain` has them.

    Returns:
        labels: (*s) int32. A label has no pixel where later objects took them all.
        scores: (k,) float, the seed value each object grew from.
    """
    pixel, score = foreground(seed, foreground_threshold)
    everywhere = np.ascontiguousarray(concentration).reshape(len(concentration), -1)  # looked up for seeds alone
    labels, grown = seeded_points(pixel, score, at(embedding, pixel), everywhere, seed.shape, where=pixel, **grouping)
    return labels, score[grown]


def foreground(seed, threshold):
    """Pixels of a map of seed scores that are above the threshold, counted row by row, and their scores."""
    return _above(np.ascontiguousarray(seed).ravel(), seed.dtype.type(threshold))


def at(values, pixel):
    """The values of an (a, *s) map at these pixels, (a, n)."""
    return _at(np.ascontiguousarray(values).reshape(len(values), -1), pixel)


def seeded_points(pixel, score, embedding, concentration, shape, **grouping):
    """Group the foreground of one image and class.

    `pixel` (n,) are places in an image of this shape, counted row by row, in order; `score` (n,), `embedding` (a, n)
    and `concentration` (a, n) are theirs; with `where` (n,) given, `concentration` is (a, m), and theirs is at `where`.
    Options are those of `seeded_gaussians`.

    Returns:
        labels: (*s) int32.
        grown: (k,) int32, the pixel that each object grew from, by its place in `pixel`.
    """
    labels = np.zeros(shape, np.int32)
    grown, _ = _grouped(pixel, score, embedding, concentration, labels, np.empty(0, np.int32), **grouping)
    return labels, grown


def seeded_claims(pixel, score, embedding, concentration, shape, **grouping):
    """What `seeded_points` gives, and all pixels that each object claims, those that others have among them.

    Returns:
        labels: (*s) int32.
        grown: (k,) int32.
        claims: k arrays of int32, the pixels of each claim, counted row by row and in no order.
    """
    labels = np.zeros(shape, np.int32)
    room = np.empty(2 * pixel.size, np.int32)  # enough for all: more than half of each claim is new
    grown, ends = _grouped(pixel, score, embedding, concentration, labels, room, **grouping)
    return labels, grown, np.split(room[: ends[-1]], ends[:-1]) if ends.size else []


def _grouped(
    pixel,
    score,
    embedding,
    concentration,
    labels,
    claimed,
    *,
    where=None,
    seed_threshold,
    min_size,
    min_foreground,
    min_free,
    count_seed,
    overwrite,
    recentre=0,
):
    """What `_group` returns, for arrays and numbers of any kind."""
    return _group(
        pixel,
        score,
        tuple(np.ascontiguousarray(embedding)),
        np.ascontiguousarray(concentration),
        np.arange(pixel.size, dtype=np.int32) if where is None else where,
        score.dtype.type(seed_threshold),
        embedding.dtype.type(math.log(2)),
        min_size,
        min_foreground,
        min_free,
        count_seed,
        overwrite,
        recentre,
        labels.ravel(),
        claimed,
    )


@njit(cache=True, nogil=True)
def _group(
    pixel,
    score,
    at,
    concentration,
    where,
    seed_threshold,
    limit,
    min_size,
    min_foreground,
    min_free,
    count_seed,
    overwrite,
    recentre,
    labels,
    claimed,
):
    """Write labels, and all claims one after another into `claimed`, unless there is no room in it.

    Returns:
        found: the foreground pixel that each object grew from, by its place in `pixel`.
        ends: where in `claimed` each object's claim ends.
    """
    n = n_free = pixel.size  # foreground pixels are known by their place in `pixel`
    found = np.empty(n, np.int32)
    ends = np.zeros(n, np.int64)
    if n <= max(min_foreground, 0):
        return found[:0], ends[:0]
    width = _typical_margin(concentration, where, limit) / 2
    runs = _runs(at, width)
    begin, end = runs[:2]
    all_near = np.empty(begin.size + 1, np.int32)
    owner = np.full(n, FREE, np.int32)
    n_found = n_claimed = 0
    buckets, bucket_starts = _by_falling_score(score, seed_threshold)
    for b in range(bucket_starts.size - 1):
        for p in _sorted_free(buckets[bucket_starts[b] : bucket_starts[b + 1]], owner, score):
            if owner[p] != FREE or n_free <= min_free:
                continue
            if not count_seed:
                owner[p] = TAKEN
                n_free -= 1
            gaussian = taken(at, p), column(concentration, where[p], at), limit
            near = all_near[: _near(gaussian, runs, width, all_near)]
            for _ in range(recentre):
                gaussian = _recentred(gaussian, near, begin, end, at, concentration, where, score)
                near = all_near[: _near(gaussian, runs, width, all_near)]
            size, new = _count(gaussian, near, begin, end, at, owner)
            emitted = size >= min_size and 2 * new > size
            if emitted:
                if claimed.size:
                    n_claimed = _list(gaussian, near, begin, end, at, pixel, claimed, n_claimed)
                found[n_found], ends[n_found] = p, n_claimed
                n_found += 1
            label, below = (n_found, ANY if overwrite else TAKEN + 1) if emitted else (TAKEN, TAKEN)
            _claim(gaussian, near, begin, end, at, owner, label, below)
            n_free -= new
            if owner[p] == FREE:
                owner[p] = TAKEN
                n_free -= 1
    for p in range(n):
        labels[pixel[p]] = max(owner[p], TAKEN)
    return found[:n_found].copy(), ends[:n_found].copy()


@njit(cache=True, nogil=True)
def _above(seed, threshold):
    """Pixels with a seed score above the threshold, in order, and their scores."""
    pixel = np.empty(seed.size, np.int32)
    score = np.empty_like(seed)
    n = 0
    for start in range(0, seed.size, BLOCK):
        block = seed[start : start + BLOCK]
        hits = np.int32(0)
        for j in range(block.size):
            hits += np.int32(block[j] > threshold)
        if hits == block.size:
            for j in range(block.size):
                pixel[n + j], score[n + j] = start + j, block[j]
            n += block.size
        elif hits:
            for j in range(block.size):
                # written whether it counts or not: a branch would be mispredicted at every edge
                pixel[n], score[n] = start + j, block[j]
                n += block[j] > threshold
    return pixel[:n], score[:n]


@njit(cache=True, nogil=True)
def _at(values, pixel):
    """The values at pixels."""
    there = np.empty((len(values), pixel.size), values.dtype)
    if len(values) == 2:  # both at once, which is faster
        for p in range(pixel.size):
            there[0, p], there[1, p] = values[0, pixel[p]], values[1, pixel[p]]
    else:
        for axis in range(len(values)):
            for p in range(pixel.size):
                there[axis, p] = values[axis, pixel[p]]
    return there


@njit(cache=True, nogil=True)
def _typical_margin(concentration, where, limit):
    """Geometric mean of the smaller margin over a sample of the pixels, without those that are 0 or infinite."""
    total = 0.0
    n = 0
    for i in where[:: where.size // 1000 + 1]:
        largest = concentration[0, i]
        for axis in range(1, len(concentration)):
            largest = max(largest, concentration[axis, i])
        if 0 < largest < math.inf:
            total += (math.log(limit) - math.log(largest)) / 2  # a quotient could overflow
            n += 1
    return math.exp(total / n) if n > 0 else 0.0


@njit(cache=True, nogil=True)
def _runs(at, width):
    """Consecutive pixels that point alike: at most `width` from where the first of the run points, along each axis.

    Returns:
        begin, end: places of each run's first pixel and of the one after its last, in the order of the bins.
        first: where the first pixel points.
        starts, grid, shape: the bins of the last two axes, as `bin_points` has them. A volume is binned along these
            alone: its runs are few, and those that point to other planes are told apart one by one.
    """
    n = at[-1].size
    begin = np.empty(n, np.int32)
    end = np.empty(n, np.int32)
    begin[0] = n_runs = first = 0
    widths = alike(width, at)
    for p in range(1, n):
        if p - first == RUN or not within(at, p, taken(at, first), widths):
            end[n_runs] = p
            n_runs += 1
            begin[n_runs] = first = p
    end[n_runs] = n
    begin, end = begin[: n_runs + 1], end[: n_runs + 1]
    starts, order, grid, shape = bin_points(at[-1][begin], at[-2][begin], RUNS_PER_BIN)
    begin, end = begin[order], end[order]
    return begin, end, taken(at, begin), starts, grid, shape


@njit(cache=True, nogil=True)
def _near(gaussian, runs, width, near):
    """Write to `near` the runs that can reach into the margin, and return how many these are."""
    centre, tau, limit = gaussian
    _, _, first, starts, grid, shape = runs
    if not (finite(centre) and finite(tau)):
        return 0  # every distance is infinite or not a number
    reach = reaches(tau, limit, width)
    left, right = bin_range(centre[-1], reach[-1], grid[0], grid[2], shape[1])
    top, bottom = bin_range(centre[-2], reach[-2], grid[1], grid[2], shape[0])
    n = 0
    for r in range(top, bottom + 1):
        for run in range(starts[r * shape[1] + left], starts[r * shape[1] + right + 1]):
            near[n] = run
            n += within(first, run, centre, reach)
    return n


@njit(cache=True, nogil=True)
def _is_inside(at, i, gaussian):
    """Whether a place is inside the margin."""
    centre, tau, limit = gaussian
    return squared(difference(at, i, centre), tau) < limit


@njit(cache=True, nogil=True)
def _count(gaussian, near, begin, end, at, owner):
    """Pixels inside the margin, and how many of them are free."""
    size = new = 0
    for run in near:
        there = slice(begin[run], end[run])
        at_there, owner_there = taken(at, there), owner[there]
        for j in range(owner_there.size):
            inside = _is_inside(at_there, j, gaussian)
            size += inside
            new += inside & (owner_there[j] == FREE)
    return size, new


@njit(cache=True, nogil=True)
def _recentred(gaussian, near, begin, end, at, concentration, where, score):
    """The Gaussian whose centre and raw sigma are means over the pixels inside the margin, weighted by their scores.

    Sums are in double precision, so that their order cannot be seen in the result.
    """
    centre, tau = nothing(at), nothing(at)
    total = 0.0
    for run in near:
        for p in range(begin[run], end[run]):
            if _is_inside(at, p, gaussian):
                weight = np.float64(score[p])
                total += weight
                centre = plus(centre, weighted(taken(at, p), weight))
                tau = plus(tau, logarithms(column(concentration, where[p], at), weight))
    if not total > 0:
        return gaussian
    return means(centre, total, at), exponentials(tau, total, at), gaussian[2]


@njit(cache=True, nogil=True)
def _claim(gaussian, near, begin, end, at, owner, label, below):
    """Give the pixels inside the margin whose owner is below a number to a label."""
    for run in near:
        there = slice(begin[run], end[run])
        at_there, owner_there = taken(at, there), owner[there]
        for j in range(owner_there.size):
            takes = _is_inside(at_there, j, gaussian) & (owner_there[j] < below)
            owner_there[j] = label if takes else owner_there[j]


@njit(cache=True, nogil=True)
def _list(gaussian, near, begin, end, at, pixel, claimed, n):
    """Write the pixels inside the margin to `claimed` from place n on, and return the place after the last."""
    for run in near:
        for p in range(begin[run], end[run]):
            if _is_inside(at, p, gaussian):
                claimed[n] = pixel[p]
                n += 1
    return n


@njit(cache=True, nogil=True)
def _by_falling_score(score, threshold):
    """Places whose score reaches the threshold, sorted into buckets by falling score, in their own order in each.

    Most are claimed by an earlier object before their turn comes, so a full sort of all would be wasted.
    """
    n_buckets = 1024
    places = np.empty(score.size, np.int32)
    n = 0
    for start in range(0, score.size, BLOCK):
        block = score[start : start + BLOCK]
        hits = np.int32(0)
        for j in range(block.size):
            hits += np.int32(block[j] >= threshold)
        if hits:
            for j in range(block.size):
                places[n] = start + j
                n += block[j] >= threshold
    top = threshold
    for p in places[:n]:
        top = max(top, score[p])
    scale = (n_buckets - 1) / (np.float64(top) - threshold) if top > threshold else 0.0
    home = np.zeros(n, np.int16)
    starts = np.zeros(n_buckets + 1, np.int64)
    for j in range(n):
        if 0 < scale < math.inf:  # else all scores are equal, or one is infinite
            home[j] = int((np.float64(top) - score[places[j]]) * scale)
        starts[home[j] + 1] += 1
    for b in range(n_buckets):
        starts[b + 1] += starts[b]
    members = np.empty(n, np.int32)
    fill = starts[:-1].copy()
    for j in range(n):
        members[fill[home[j]]] = places[j]
        fill[home[j]] += 1
    return members, starts


@njit(cache=True, nogil=True)
def _sorted_free(bucket, owner, score):
    """Members of a bucket that no object has claimed, by falling score; of equals the first pixel comes first."""
    members = np.empty(bucket.size, np.int32)
    n = 0
    for p in bucket:
        members[n] = p
        n += owner[p] == FREE
    members = members[:n]
    return members[np.argsort(-score[members], kind="mergesort")] if n > 1 else members
