"""Grouping of spatial embeddings on a CPU: the sequential seeded clustering, in time that grows with foreground.

The plain form looks at every foreground pixel for every object. Here foreground pixels are sorted once, by seed
score and by where they point; each seed then looks only at pixels that point near it. Labels equal the plain
form's pixel for pixel, because membership is decided by the same operations in the same order and precision.

Shapes: `h` rows, `w` columns, `k` objects; 2 is (x, y).
Source: Neven et al. 2019, section 3.4.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

from attractor.kernels.binning import bin_points, bin_range


def seeded_gaussians(
    embedding,
    precision,
    seed,
    *,
    foreground_threshold,
    seed_threshold,
    min_size,
    min_foreground,
    min_free,
    count_seed,
    overwrite,
):
    """Group the pixels of one image and class.

    Args:
        embedding: (2, h, w) float, where each pixel points.
        precision: (2, h, w) float, 1 / (2 sigma^2) along x and y.
        seed: (h, w) float, 0 to 1.
        The others: as `attractor.methods.spatial_embeddings.group_plain` has them.
    Returns:
        labels: (h, w) int32. A label has no pixel where later objects took them all.
        scores: (k,) float, the seed value each object grew from.
    """
    labels = np.zeros(seed.shape, np.int32)
    pixels = _group(
        np.ascontiguousarray(embedding).reshape(2, -1),
        np.ascontiguousarray(precision).reshape(2, -1),
        np.ascontiguousarray(seed).ravel(),
        seed.dtype.type(foreground_threshold),
        seed.dtype.type(seed_threshold),
        embedding.dtype.type(math.log(2)),
        min_size,
        min_foreground,
        min_free,
        count_seed,
        overwrite,
        labels.ravel(),
    )
    return labels, seed.ravel()[pixels]


@njit(cache=True, nogil=True)
def _group(
    embedding,
    precision,
    seed,
    foreground_threshold,
    seed_threshold,
    limit,
    min_size,
    min_foreground,
    min_free,
    count_seed,
    overwrite,
    labels,
):
    """Write labels, and return the pixel that each object grew from."""
    foreground = _above(seed, foreground_threshold)
    n = foreground.size
    found = np.empty(n, np.int64)
    if n <= min_foreground:
        return found[:0]
    x, y = embedding[0][foreground], embedding[1][foreground]
    starts, order, grid, shape = bin_points(x, y)
    px, py = x[order], y[order]
    buckets, bucket_starts = _by_falling_score(seed, foreground, seed_threshold)
    free = np.ones(n, np.bool_)
    n_free = n
    claimed = np.empty(n, np.int32)
    n_found = 0
    for b in range(bucket_starts.size - 1):
        for s in _sorted_free(buckets[bucket_starts[b] : bucket_starts[b + 1]], free, seed, foreground):
            if n_free <= min_free:
                return found[:n_found]
            if not free[s]:
                continue
            free[s] = False
            n_free -= 1
            pixel = foreground[s]
            cx, cy, tx, ty = x[s], y[s], precision[0, pixel], precision[1, pixel]
            reach_x = math.sqrt(limit / tx) if tx > 0 else math.inf
            reach_y = math.sqrt(limit / ty) if ty > 0 else math.inf
            column, last_column = bin_range(cx, reach_x, grid[0], grid[2], shape[1])
            row, last_row = bin_range(cy, reach_y, grid[1], grid[2], shape[0])
            size = new = 0
            for r in range(row, last_row + 1):
                for p in range(starts[r * shape[1] + column], starts[r * shape[1] + last_column + 1]):
                    dx, dy = px[p] - cx, py[p] - cy
                    if dx * dx * tx + dy * dy * ty < limit:
                        i = order[p]
                        claimed[size] = i
                        size += 1
                        if free[i] or (count_seed and i == s):
                            new += 1
            emitted = size > min_size and 2 * new > size
            if emitted:
                found[n_found] = pixel
                n_found += 1
            for j in range(size):
                i = claimed[j]
                if emitted and (overwrite or labels[foreground[i]] == 0):
                    labels[foreground[i]] = n_found
                if free[i]:
                    free[i] = False
                    n_free -= 1
    return found[:n_found]


@njit(cache=True, nogil=True)
def _above(seed, threshold):
    """Pixels with a seed score above the threshold, in order."""
    count = 0
    for value in seed:
        count += value > threshold
    pixels = np.empty(count, np.int32)
    count = 0
    for i in range(seed.size):
        if seed[i] > threshold:
            pixels[count] = i
            count += 1
    return pixels


@njit(cache=True, nogil=True)
def _by_falling_score(seed, foreground, threshold):
    """Foreground pixels at or above the threshold, roughly sorted by falling score into buckets.

    Most are claimed by an earlier object before their turn comes, so a full sort of all would be wasted.
    """
    n_buckets = 1024
    top = threshold
    for i in foreground:
        top = max(top, seed[i])
    scale = (n_buckets - 1) / (np.float64(top) - threshold) if top > threshold else 0.0
    if not math.isfinite(scale):
        scale = 0.0
    starts = np.zeros(n_buckets + 1, np.int64)
    for i in foreground:
        if seed[i] >= threshold:
            starts[int((np.float64(top) - seed[i]) * scale) + 1] += 1
    for b in range(n_buckets):
        starts[b + 1] += starts[b]
    members = np.empty(starts[-1], np.int32)
    fill = starts[:-1].copy()
    for s in range(foreground.size):
        value = seed[foreground[s]]
        if value >= threshold:
            b = int((np.float64(top) - value) * scale)
            members[fill[b]] = s
            fill[b] += 1
    return members, starts


@njit(cache=True, nogil=True)
def _sorted_free(bucket, free, seed, foreground):
    """Members of a bucket that no object has claimed, by falling score; of equals the first pixel comes first."""
    members = bucket[free[bucket]]
    return members[np.argsort(-seed[foreground[members]], kind="mergesort")]
