"""Mean shift on a CPU: the sequential grouping of the discriminative loss, with pixels taken in runs.

The plain form measures every pixel for every step of every mean. Here consecutive pixels with similar embeddings form a
run, whose middle, radius and sum are known, and runs are sorted by where they are along the two channels that spread
most. A mean looks only at the runs nearby, adds the sums of those that are all inside its ball, and measures pixels
only where the edge of the ball passes through a run. Pixels leave their run once they are claimed, and runs without
pixels leave the index.

Labels equal the plain form's pixel for pixel. Which pixels are in a ball is decided by the same operations in the same
order and precision, or by a distance so far from the edge that rounding cannot matter. Means are summed in double
precision, run by run: an order that is the same every time, but not the plain form's. Once rounded to single precision
they agree, unless the exact mean lies within a relative 1e-14 or so of the middle between two floats.

Shapes: `d` channels, `n` pixels, `r` runs.
Source: De Brabandere et al. 2017.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numba import njit

from attractor.kernels.binning import bin_points, bin_range

FREE, DROPPED = -1, 0  # labels of pixels that are still to be claimed, and of those that were claimed in vain
MAX_STEPS = 100  # of one mean
STILL = 1e-4  # a mean that moves by less has arrived
RUN = 64  # the most pixels of a run
RUN_RADIUS = 0.75  # bandwidths: the most that a pixel is away from the first of its run
SLACK = 0.25  # bandwidths that a mean may move before the runs around it are looked up again
RUNS_PER_BIN = 4
MIN_BINNED = 64  # fewer runs are looked through one by one
ROUNDING = 1e-3  # share of a distance, far larger than any rounding


class Runs(NamedTuple):
    """Runs of points, bin by bin."""

    begin: np.ndarray  # (r) place of each run's first point,
    end: np.ndarray  # (r) and of the one after its last
    middle: np.ndarray  # (r, d)
    radius: np.ndarray  # (r) float64, how far points can be from the middle
    total: np.ndarray  # (r, d) float64, sum of the points
    widest: float  # the largest radius
    starts: np.ndarray  # where each bin begins, and grid and shape of the bins, as `bin_points` has them
    grid: np.ndarray
    shape: np.ndarray
    axes: np.ndarray  # (2) channels that are x and y of the bins


def mean_shift(embedding, priority, region, *, bandwidth, min_size):
    """Group pixels.

    `embedding` (d, n) float32, `priority` (n) float32 and `region` (n) int32 are of the pixels to group; options are as
    `attractor.methods.discriminative_loss.group_plain` has them.

    Returns:
        labels: (n) int32, 0 for dropped pixels, or the object's number, from 1 in the order in which they are found.
    """
    labels = np.full(priority.size, FREE, np.int32)
    if labels.size > 0:
        embedding, ranks = np.ascontiguousarray(embedding), _ranks(region)
        starts, pixel = _by_region(np.arange(labels.size, dtype=np.int32), *ranks)
        _, seeds = _by_region(_by_falling_priority(np.ascontiguousarray(priority)), *ranks)
        ball = float(bandwidth), embedding.dtype.type(bandwidth**2)
        _group(embedding, _rows_of(embedding, pixel), pixel, seeds, starts, ball, min_size, labels)
    return labels


def _ranks(region):
    """Each pixel's region, counted from 0 in ascending number, and how many regions there are at most."""
    low, high = int(region.min()), int(region.max())
    if high - low <= 4 * region.size:
        return region - np.int32(low), high - low + 1
    numbers, ranks = np.unique(region, return_inverse=True)
    return ranks.astype(np.int32), numbers.size


@njit(cache=True, nogil=True)
def _group(embedding, points, pixel, seeds, starts, ball, min_size, labels):
    """Write labels.

    `points` (n, d), `pixel` (n) and `seeds` (n) go region by region from where `starts` says; `ball` is the bandwidth,
    and its square in the precision of the embedding.
    """
    claimed = np.empty(labels.size, np.int32)
    found = np.int64(0)  # has this type from the start, or the loop would be compiled twice
    for r in range(starts.size - 1):
        if starts[r] < starts[r + 1]:
            of_region = slice(starts[r], starts[r + 1])
            found = _group_region(
                embedding, points[of_region], pixel[of_region], seeds[of_region], ball, min_size, found, claimed, labels
            )


@njit(cache=True, nogil=True)
def _group_region(embedding, points, pixel, seeds, ball, min_size, found, claimed, labels):
    """Write the labels of one region's pixels, and return how many objects there are with these.

    `points` (n, d) and `pixel` (n) are the embeddings and numbers of its pixels, and lose their order; `seeds` (n) are
    its pixels by falling priority.
    """
    runs = _runs(points, ball[0])
    near = np.empty(runs.begin.size, np.int32)
    centre = np.empty((1, points.shape[1]), points.dtype)
    in_vain = 0
    for seed in seeds:
        if labels[seed] != FREE:
            continue
        _place(centre, embedding, seed)
        n_near, n_empty = _climb(centre, ball, runs, points, near)
        size = _take(near[:n_near], centre, ball, runs, points, pixel, claimed)
        _write(labels, claimed[:size], found + 1)
        if labels[seed] == FREE:  # the mean went elsewhere
            _place(centre, embedding, seed)
            _remove(seed, near[: _near(centre, ball[0], runs, near)[0]], runs, points, pixel)
            labels[seed], claimed[size] = found + 1, seed
            size += 1
        if size >= min_size:
            found += 1
        else:
            _write(labels, claimed[:size], np.int64(DROPPED))
        in_vain += n_empty
        if in_vain > runs.begin.size:
            runs = _without_empty(runs)
            in_vain = 0
    return found


@njit(cache=True, nogil=True)
def _place(centre, embedding, pixel):
    for c in range(embedding.shape[0]):
        centre[0, c] = embedding[c, pixel]


@njit(cache=True, nogil=True)
def _write(labels, pixels, label):
    for i in pixels:
        labels[i] = label


@njit(cache=True, nogil=True)
def _by_falling_priority(priority):
    """Pixels by falling priority, ties in order; pixels whose priority is NaN come first."""
    key = _falling_key(priority)
    order = np.arange(key.size, dtype=np.int32)
    next_key, next_order = np.empty_like(key), np.empty_like(order)
    for shift in (0, 11, 22):
        starts = np.zeros(2049, np.int64)
        for k in key:
            starts[((k >> np.uint32(shift)) & np.uint32(2047)) + 1] += 1
        if starts.max() == key.size:
            continue
        starts = np.cumsum(starts)
        for j in range(key.size):
            digit = (key[j] >> np.uint32(shift)) & np.uint32(2047)
            next_key[starts[digit]], next_order[starts[digit]] = key[j], order[j]
            starts[digit] += 1
        key, next_key, order, next_order = next_key, key, next_order, order
    return order


@njit(cache=True, nogil=True)
def _falling_key(priority):
    """Unsigned integers that rise as the priority falls; 0 for what is not a number."""
    bits = (priority + np.float32(0)).view(np.uint32)  # with 0 added, -0 is 0
    for i in range(bits.size):
        is_negative = bits[i] >> np.uint32(31)
        bits[i] = bits[i] if is_negative else ~(bits[i] | np.uint32(1 << 31))
        bits[i] = np.uint32(0) if math.isnan(priority[i]) else bits[i]
    return bits


@njit(cache=True, nogil=True)
def _by_region(pixels, region, n_regions):
    """Pixels region by region, in each in the order given, and where each region begins among them."""
    starts = np.zeros(n_regions + 1, np.int64)
    if n_regions == 1:
        starts[1] = pixels.size
        return starts, pixels
    for r in region:
        starts[r + 1] += 1
    starts = np.cumsum(starts)
    fill = starts.copy()
    members = np.empty_like(pixels)
    for i in pixels:
        members[fill[region[i]]] = i
        fill[region[i]] += 1
    return starts, members


@njit(cache=True, nogil=True)
def _rows_of(embedding, pixel):
    """(n, d) the embeddings of pixels."""
    rows = np.empty((pixel.size, embedding.shape[0]), embedding.dtype)
    for start in range(0, pixel.size, 64):  # some at a time, so that they stay in the cache
        for c in range(embedding.shape[0]):
            for p in range(start, min(start + 64, pixel.size)):
                rows[p, c] = embedding[c, pixel[p]]
    return rows


@njit(cache=True, nogil=True)
def _squared_distance(points, p, centre):
    """Squared distance of a point to a (1, d) centre, by the operations of the plain form in their order."""
    total = points.dtype.type(0)
    for c in range(points.shape[1]):
        difference = points[p, c] - centre[0, c]
        total += difference * difference
    return total


@njit(cache=True, nogil=True)
def _runs(points, bandwidth):
    """Runs of consecutive points that are alike: all of them near the first."""
    n = points.shape[0]
    begin, end = np.empty(n, np.int32), np.empty(n, np.int32)
    limit = points.dtype.type((RUN_RADIUS * bandwidth) ** 2)
    n_runs = first = 0
    for p in range(1, n + 1):
        goes_on = p < n and p - first < RUN
        if goes_on and _squared_distance(points, p, points[first : first + 1]) <= limit:
            continue
        begin[n_runs], end[n_runs] = first, p
        n_runs += 1
        first = p
    return _binned(points, begin[:n_runs], end[:n_runs])


@njit(cache=True, nogil=True)
def _binned(points, begin, end):
    """Runs that begin and end there, in the order of the bins of their middles."""
    middle, radius, total = _extents(points, begin, end)
    axes = _widest_channels(middle)
    starts, order, grid, shape = _bins(middle, axes)
    widest = 0.0
    for distance in radius:
        widest = max(widest, distance)
    return _some(order, Runs(begin, end, middle, radius, total, widest, starts, grid, shape, axes))


@njit(cache=True, nogil=True)
def _some(which, runs):
    """Some of the runs."""
    begin, end = np.empty(which.size, np.int32), np.empty(which.size, np.int32)
    radius = np.empty(which.size)
    middle = np.empty((which.size, runs.middle.shape[1]), runs.middle.dtype)
    total = np.empty((which.size, runs.middle.shape[1]))
    for j in range(which.size):
        run = which[j]
        begin[j], end[j], radius[j] = runs.begin[run], runs.end[run], runs.radius[run]
        for c in range(middle.shape[1]):
            middle[j, c], total[j, c] = runs.middle[run, c], runs.total[run, c]
    return Runs(begin, end, middle, radius, total, runs.widest, runs.starts, runs.grid, runs.shape, runs.axes)


@njit(cache=True, nogil=True)
def _extents(points, begin, end):
    """Middle, radius and sum of runs; the radius is 0 around a middle that is not a number."""
    middle = np.empty((begin.size, points.shape[1]), points.dtype)
    radius = np.zeros(begin.size)
    total = np.zeros((begin.size, points.shape[1]))
    for run in range(begin.size):
        _sum_run(run, points, begin, end, total)
        for c in range(points.shape[1]):
            middle[run, c] = total[run, c] / (end[run] - begin[run])
        squared = points.dtype.type(0)
        for p in range(begin[run], end[run]):
            distance = _squared_distance(points, p, middle[run : run + 1])
            squared = distance if distance > squared else squared
        radius[run] = math.sqrt(squared)
    return middle, radius, total


@njit(cache=True, nogil=True)
def _sum_run(run, points, begin, end, total):
    """Write the sum of a run's points."""
    for c in range(points.shape[1]):
        total[run, c] = 0
    for p in range(begin[run], end[run]):
        for c in range(points.shape[1]):
            total[run, c] += points[p, c]


@njit(cache=True, nogil=True)
def _widest_channels(points):
    """The two channels of largest spread; the same one twice if there is no other."""
    widest = np.zeros(2, np.int64)
    spread = np.full(2, -1.0)
    for c in range(points.shape[1]):
        n, mean, squares = 0, 0.0, 0.0
        for p in range(points.shape[0]):
            value = np.float64(points[p, c])
            if math.isfinite(value):
                n += 1
                step = value - mean
                mean += step / n
                squares += step * (value - mean)
        if squares > spread[0]:
            widest[1], spread[1] = widest[0], spread[0]
            widest[0], spread[0] = c, squares
        elif squares > spread[1]:
            widest[1], spread[1] = c, squares
    return widest


@njit(cache=True, nogil=True)
def _bins(points, axes):
    """Sort points into bins along two channels, as `bin_points` does; if they are few, all go into one bin."""
    n = points.shape[0]
    if n < MIN_BINNED:
        return np.array([0, n]), np.arange(n, dtype=np.int32), np.zeros(3), np.ones(2, np.int64)
    x, y = np.empty(n, points.dtype), np.empty(n, points.dtype)
    for p in range(n):
        x[p], y[p] = points[p, axes[0]], points[p, axes[1]]
    return bin_points(x, y, RUNS_PER_BIN)


@njit(cache=True, nogil=True)
def _near(centre, reach, runs, near):
    """Write to `near` the runs that can have points within reach.

    Returns how many these are, and how many without points were met.
    """
    n = n_empty = 0
    for c in range(centre.shape[1]):
        if not math.isfinite(centre[0, c]):
            return n, n_empty  # every distance is infinite or not a number
    widest, grid, shape = reach + runs.widest, runs.grid, runs.shape
    column, last_column = bin_range(centre[0, runs.axes[0]], widest, grid[0], grid[2], shape[1])
    row, last_row = bin_range(centre[0, runs.axes[1]], widest, grid[1], grid[2], shape[0])
    for r in range(row, last_row + 1):
        for run in range(runs.starts[r * shape[1] + column], runs.starts[r * shape[1] + last_column + 1]):
            if runs.begin[run] == runs.end[run]:
                n_empty += 1
            elif _squared_distance(runs.middle, run, centre) <= _outer(reach + runs.radius[run]):
                near[n] = run
                n += 1
    return n, n_empty


@njit(cache=True, nogil=True)
def _outer(distance):
    """Square of a distance, so much larger that rounding cannot lose a point within it."""
    distance = distance * (1 + ROUNDING) + 1e-12
    return distance * distance


@njit(cache=True, nogil=True)
def _inner(distance):
    """Square of a distance, so much smaller that rounding cannot add a point outside of it; -1 if none is left."""
    distance = distance - ROUNDING * abs(distance) - 1e-12
    return distance * distance if distance > 0 else -1.0


@njit(cache=True, nogil=True)
def _climb(centre, ball, runs, points, near):
    """Move the centre to where the mean of the points around it comes to rest.

    Returns how many runs, written to `near`, can have points in the ball at the end, and how many empty ones were met.
    """
    bandwidth = ball[0]
    reach, slack = (1 + SLACK) * bandwidth, (SLACK * bandwidth) ** 2
    looked_up, before = centre.copy(), centre.copy()
    total = np.empty(points.shape[1])
    n_near, n_empty = _near(centre, reach, runs, near)
    for _ in range(MAX_STEPS):
        count = _sum_inside(near[:n_near], centre, ball, runs, points, total)
        if count == 0:
            break
        for c in range(total.size):
            before[0, c], centre[0, c] = centre[0, c], total[c] / count
        if _squared_distance(centre, 0, looked_up) > slack:
            looked_up[0, :] = centre[0, :]
            n_near, more = _near(centre, reach, runs, near)
            n_empty += more
        if _squared_distance(centre, 0, before) < points.dtype.type(STILL**2):
            break
    return n_near, n_empty


@njit(cache=True, nogil=True)
def _is_whole(run, centre, ball, runs):
    """1 for a run that is all inside the ball, -1 for one that is all outside, 0 if pixels must be looked at."""
    bandwidth, radius = ball[0], runs.radius[run]
    distance = _squared_distance(runs.middle, run, centre)
    if distance < _inner(bandwidth - radius):
        return 1
    return -1 if distance > _outer(bandwidth + radius) else 0


@njit(cache=True, nogil=True)
def _sum_inside(near, centre, ball, runs, points, total):
    """Write the sum of the points in the ball, and return how many these are."""
    total[:] = 0
    count = 0
    for run in near:
        whole = _is_whole(run, centre, ball, runs)
        if whole == 1:
            count += runs.end[run] - runs.begin[run]
            for c in range(total.size):
                total[c] += runs.total[run, c]
        elif whole == 0:
            for p in range(runs.begin[run], runs.end[run]):
                if _squared_distance(points, p, centre) < ball[1]:
                    count += 1
                    for c in range(total.size):
                        total[c] += points[p, c]
    return count


@njit(cache=True, nogil=True)
def _take(near, centre, ball, runs, points, pixel, taken):
    """Take the points in the ball out of their runs, write their pixels, and return how many these are."""
    n = 0
    for run in near:
        begin, end = runs.begin[run], runs.end[run]
        whole = _is_whole(run, centre, ball, runs)
        if whole == 1:
            taken[n : n + end - begin] = pixel[begin:end]
            n += end - begin
            runs.end[run] = begin
        elif whole == 0:
            before = n
            kept = begin
            for p in range(begin, end):
                if _squared_distance(points, p, centre) < ball[1]:
                    taken[n] = pixel[p]
                    n += 1
                else:
                    _move(p, kept, points, pixel)
                    kept += 1
            if n > before:
                runs.end[run] = kept
                _sum_run(run, points, runs.begin, runs.end, runs.total)
    return n


@njit(cache=True, nogil=True)
def _remove(which, near, runs, points, pixel):
    """Take one pixel out of its run."""
    for run in near:
        kept = runs.begin[run]
        for p in range(runs.begin[run], runs.end[run]):
            if pixel[p] != which:
                _move(p, kept, points, pixel)
                kept += 1
        if kept < runs.end[run]:
            runs.end[run] = kept
            _sum_run(run, points, runs.begin, runs.end, runs.total)


@njit(cache=True, nogil=True)
def _move(p, to, points, pixel):
    pixel[to] = pixel[p]
    for c in range(points.shape[1]):
        points[to, c] = points[p, c]


@njit(cache=True, nogil=True)
def _without_empty(runs):
    """The runs that still have points, and where each bin now begins."""
    left = np.empty(runs.begin.size, np.int32)
    before = np.zeros(left.size + 1, np.int64)  # runs that are left, before each run
    for run in range(left.size):
        left[before[run]] = run
        before[run + 1] = before[run] + (runs.end[run] > runs.begin[run])
    runs = _some(left[: before[left.size]], runs)
    for b in range(runs.starts.size):
        runs.starts[b] = before[runs.starts[b]]
    return runs
