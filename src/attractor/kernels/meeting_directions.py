"""Grouping of recurrent pixel embedding on a CPU: mean shift on the sphere, and the points that meet.

The plain form writes a matrix of all points and anchors in each loop, and reads it several times. Here a few points are
taken at a time, and stay in the first cache until they have moved: the anchors pass by them, four by four. Regions are
shared out to as many threads as torch uses.

Every step is the plain form's, but sums go in another order, and the exponential has its own last bit. Points therefore
agree to a few parts in a million, and groups wherever no point is that close to a bound: to `similarity`, to the middle
between two groups, or to the movement that ends the loops. Two groups that are equally dense may swap their numbers.

Shapes: `d` dimensions, `n` points, `r` regions, `m` anchors, `g` groups.
Source: Kong and Fowlkes 2018.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit

AT_A_TIME = 32  # points: a few of the CPU's vectors
STILL = 1e-3  # points that move less than this have arrived
FOUR = 4  # anchors, and dimensions, that pass by at once: their numbers stay in registers
LOG2_E = np.float32(math.log2(math.e))
LN_2, REST_OF_LN_2 = np.float32(0.693359375), np.float32(-2.12194440e-4)  # a multiple of the first is exact
LEAST = np.float32(-87)  # e to this is 1e-38, the least number that float32 holds in full
# e^r = 1 + r + r^2 q(r) for |r| <= ln(2) / 2, from the highest power of q; the usual ones (Cephes) for float32
Q5, Q4, Q3, Q2, Q1, Q0 = (
    np.float32(x) for x in (1.9875691e-4, 1.3981999e-3, 8.3334519e-3, 4.1665796e-2, 1.6666665e-1, 5.0000001e-1)
)


def meeting_directions(points, region, *, kappa, step, loops, most_anchors, similarity, min_size):
    """Group points.

    `points` (d, n) float32 and `region` (n) int32 are of the pixels to group; options are as
    `attractor.methods.recurrent_pixel_embedding.group_plain` has them.

    Returns:
        labels: (n) int32, 0 for dropped points, or the group's number, from 1, region by region; some may be missing.
    """
    labels = np.zeros(region.size, np.int32)
    if labels.size == 0:
        return labels
    order = np.argsort(region, kind="stable")
    starts = np.append(np.flatnonzero(np.diff(region[order], prepend=np.nan)), labels.size)
    moved = np.zeros((-(-points.shape[0] // FOUR) * FOUR, labels.size), np.float32)
    moved[: points.shape[0]] = points[:, order]
    found = np.zeros_like(labels)
    kernel = np.float32(kappa), np.float32(step), np.float32(STILL**2), np.float32(similarity)

    def group(begin, end):
        if end - begin >= min_size:
            chosen = evenly_spread(int(end - begin), most_anchors).numpy()
            _group(moved[:, begin:end], chosen, kernel, loops, min_size, found[begin:end])

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        list(pool.map(group, starts[:-1], starts[1:]))
    most = np.maximum.reduceat(found, starts[:-1])
    before = np.repeat(np.cumsum(most) - most, np.diff(starts)).astype(np.int32)
    labels[order] = np.where(found, found + before, 0)
    return labels


def evenly_spread(n, most):
    """Places of the anchors among n points: all of them, or as many as there may be."""
    return torch.linspace(0, n - 1, min(n, most)).round().long()


@njit(cache=True, nogil=True)
def _group(points, chosen, kernel, loops, min_size, labels):
    """Shift the points of one region, in place, and write the number of each point's group, 0 if that is too small."""
    kappa, step, still, similarity = kernel
    itself = np.full(points.shape[1], np.float32(chosen.size / points.shape[1]))
    itself[chosen] = 0
    anchors = np.zeros((-(-chosen.size // FOUR) * FOUR, points.shape[0]), np.float32)
    for _ in range(loops):
        _place(anchors, points, chosen)
        if _shift(points, anchors, chosen.size, itself, kappa, step) < still:
            break
    _place(anchors, points, chosen)
    _meet(points, _density(points, anchors, chosen.size, itself, kappa), similarity, labels)
    _drop_small(labels, min_size)


@njit(cache=True, nogil=True)
def _drop_small(labels, min_size):
    size = np.zeros(labels.max() + 1, np.int64)
    for k in labels:
        size[k] += 1
    for p in range(labels.size):
        if size[labels[p]] < min_size:
            labels[p] = 0


@njit(cache=True, nogil=True)
def _place(anchors, points, chosen):
    """Write where the anchors are; rows that only fill up the last four stay 0."""
    for a in range(chosen.size):
        for c in range(points.shape[0]):
            anchors[a, c] = points[c, chosen[a]]


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _shift(points, anchors, n_anchors, itself, kappa, step):
    """Move all points, and return the largest squared distance that one has moved."""
    d, n = points.shape
    x, total = np.zeros((d, AT_A_TIME), np.float32), np.empty((d, AT_A_TIME), np.float32)
    w, exponent = np.empty(FOUR * AT_A_TIME, np.float32), np.empty(FOUR * AT_A_TIME, np.int32)
    power = exponent.view(np.float32)
    sum_of_weights, own = np.empty(AT_A_TIME, np.float32), np.ones(AT_A_TIME, np.float32)
    farthest = np.float32(0)
    for begin in range(0, n, AT_A_TIME):
        width = min(AT_A_TIME, n - begin)
        own[:width] = itself[begin : begin + width]
        sum_of_weights[:] = own
        for c in range(d):
            x[c, :width] = points[c, begin : begin + width]
            for j in range(AT_A_TIME):
                total[c, j] = own[j] * x[c, j]
        for a in range(0, anchors.shape[0], FOUR):
            _weigh(w, exponent, power, x, anchors, a, kappa)
            w[max(0, n_anchors - a) * AT_A_TIME :] = 0
            _add_weights(sum_of_weights, w)
            _add_anchors(total, w, anchors, a)
        moved = _move(x, total, sum_of_weights, step)
        for j in range(width):
            farthest = max(farthest, moved[j])
        for c in range(d):
            points[c, begin : begin + width] = x[c, :width]
    return farthest


@njit(cache=True, nogil=True, error_model="numpy", fastmath={"contract"})
def _density(points, anchors, n_anchors, itself, kappa):
    """(n,) how densely the anchors lie around each point."""
    d, n = points.shape
    x = np.zeros((d, AT_A_TIME), np.float32)
    w, exponent = np.empty(FOUR * AT_A_TIME, np.float32), np.empty(FOUR * AT_A_TIME, np.int32)
    power = exponent.view(np.float32)
    density, sum_of_weights = np.empty(n, np.float32), np.empty(AT_A_TIME, np.float32)
    for begin in range(0, n, AT_A_TIME):
        width = min(AT_A_TIME, n - begin)
        for c in range(d):
            x[c, :width] = points[c, begin : begin + width]
        sum_of_weights[:] = 0
        for a in range(0, anchors.shape[0], FOUR):
            _weigh(w, exponent, power, x, anchors, a, kappa)
            w[max(0, n_anchors - a) * AT_A_TIME :] = 0
            _add_weights(sum_of_weights, w)
        density[begin : begin + width] = sum_of_weights[:width] + itself[begin : begin + width]
    return density


@njit(inline="always")
def _weigh(w, exponent, power, x, anchors, a, kappa):
    """Write exp(kappa (cosine - 1)) of each point and four anchors.

    `exponent` is room for whole numbers, and `power` the same memory read as floats.
    """
    for j in range(FOUR * AT_A_TIME):
        w[j] = -kappa
    for c in range(0, x.shape[0], FOUR):
        a00, a01, a02, a03 = _four(anchors, a, c, kappa)
        a10, a11, a12, a13 = _four(anchors, a + 1, c, kappa)
        a20, a21, a22, a23 = _four(anchors, a + 2, c, kappa)
        a30, a31, a32, a33 = _four(anchors, a + 3, c, kappa)
        for j in range(AT_A_TIME):
            x0, x1, x2, x3 = x[c, j], x[c + 1, j], x[c + 2, j], x[c + 3, j]
            w[j] += a00 * x0 + a01 * x1 + a02 * x2 + a03 * x3
            w[AT_A_TIME + j] += a10 * x0 + a11 * x1 + a12 * x2 + a13 * x3
            w[2 * AT_A_TIME + j] += a20 * x0 + a21 * x1 + a22 * x2 + a23 * x3
            w[3 * AT_A_TIME + j] += a30 * x0 + a31 * x1 + a32 * x2 + a33 * x3
    for j in range(FOUR * AT_A_TIME):  # e^w = 2^n e^r, in vectors: a call of exp would go one by one
        t = w[j] if w[j] > LEAST else LEAST
        n = np.floor(t * LOG2_E + np.float32(0.5))
        r = t - n * LN_2 - n * REST_OF_LN_2
        q = ((((Q5 * r + Q4) * r + Q3) * r + Q2) * r + Q1) * r + Q0
        w[j] = q * r * r + r + np.float32(1)
        exponent[j] = (np.int32(n) + np.int32(127)) << np.int32(23)
    for j in range(FOUR * AT_A_TIME):
        w[j] *= power[j]


@njit(inline="always")
def _four(anchors, a, c, kappa):
    return kappa * anchors[a, c], kappa * anchors[a, c + 1], kappa * anchors[a, c + 2], kappa * anchors[a, c + 3]


@njit(inline="always")
def _add_weights(sum_of_weights, w):
    """Add the weights of four anchors at each point."""
    for j in range(AT_A_TIME):
        sum_of_weights[j] += w[j] + w[AT_A_TIME + j] + w[2 * AT_A_TIME + j] + w[3 * AT_A_TIME + j]


@njit(inline="always")
def _add_anchors(total, w, anchors, a):
    """Add four anchors, by their weights at each point."""
    for c in range(total.shape[0]):
        a0, a1, a2, a3 = anchors[a, c], anchors[a + 1, c], anchors[a + 2, c], anchors[a + 3, c]
        for j in range(AT_A_TIME):
            total[c, j] += a0 * w[j] + a1 * w[AT_A_TIME + j] + a2 * w[2 * AT_A_TIME + j] + a3 * w[3 * AT_A_TIME + j]


@njit(cache=True, nogil=True, error_model="numpy")
def _move(x, total, sum_of_weights, step):
    """Move points towards their means and back onto the sphere; return the squared distances from where they were."""
    length, moved = np.zeros(AT_A_TIME, np.float32), np.zeros(AT_A_TIME, np.float32)
    for c in range(x.shape[0]):
        for j in range(AT_A_TIME):
            total[c, j] = (1 - step) * x[c, j] + step * (total[c, j] / sum_of_weights[j])
            length[j] += total[c, j] * total[c, j]
    for j in range(AT_A_TIME):
        length[j] = max(np.sqrt(length[j]), np.float32(1e-12))  # as torch's normalize has it
    for c in range(x.shape[0]):
        for j in range(AT_A_TIME):
            change = total[c, j] / length[j] - x[c, j]
            moved[j] += change * change
            x[c, j] = total[c, j] / length[j]
    return moved


@njit(cache=True, nogil=True)
def _meet(points, density, similarity, labels):
    """Write the groups: the densest free point takes what is around it, then each point goes to the likest mean."""
    d, n = points.shape
    means = np.empty((0, d), np.float32)
    free, cosine = np.ones(n, np.bool_), np.empty(n, np.float32)
    for seed in np.argsort(-density, kind="mergesort"):
        if not free[seed]:
            continue
        _write_cosines(cosine, points, points[:, seed])
        cosine[seed] = 2
        mean, count = np.zeros((1, d), np.float32), 0
        for p in range(n):
            if free[p] and cosine[p] > similarity:
                free[p] = False
                count += 1
                for c in range(d):
                    mean[0, c] += points[c, p]
        means = np.concatenate((means, mean / np.float32(count)))
    likest = np.full(n, -np.inf, np.float32)
    for g in range(len(means)):
        _write_cosines(cosine, points, means[g])
        for p in range(n):
            if cosine[p] > likest[p]:
                likest[p], labels[p] = cosine[p], g + 1


@njit(cache=True, nogil=True)
def _write_cosines(cosine, points, direction):
    cosine[:] = 0
    for c in range(points.shape[0]):
        for p in range(points.shape[1]):
            cosine[p] += points[c, p] * direction[c]
