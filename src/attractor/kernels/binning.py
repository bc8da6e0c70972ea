"""Points of the plane sorted into square bins, so that a search looks only at the bins near by.

Shapes: `n` points. Points that are not finite are left out: no search by distance can find them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

POINTS_PER_BIN = 24  # fewer cost more bins to visit, more cost points tested in vain


@njit(cache=True, nogil=True)
def bin_points(x, y):
    """Sort points into bins.

    Points far from the rest share the outermost bins, so that a few stray ones do not make all bins coarse.

    Returns:
        starts: (rows * columns + 1) int64, where each bin begins in `order`.
        order: the points, bin by bin, in each bin in their own order.
        grid: (x origin, y origin, bins per unit) float64.
        shape: (rows, columns) int64.
    """
    n = x.size
    count = 0
    mean_x = mean_y = square_x = square_y = 0.0
    for i in range(n):
        if math.isfinite(x[i]) and math.isfinite(y[i]):
            count += 1
            mean_x += x[i]
            mean_y += y[i]
            square_x += np.float64(x[i]) * x[i]
            square_y += np.float64(y[i]) * y[i]
    count_or_one = max(count, 1)
    mean_x /= count_or_one
    mean_y /= count_or_one
    reach_x = 2 * math.sqrt(max(square_x / count_or_one - mean_x * mean_x, 0.0))
    reach_y = 2 * math.sqrt(max(square_y / count_or_one - mean_y * mean_y, 0.0))
    area = max(4 * reach_x * reach_y, (reach_x + reach_y) ** 2 * 1e-3)
    bins_per_unit = 1.0
    if area > 0 and math.isfinite(area):
        bins_per_unit = math.sqrt(max(count, 1) / POINTS_PER_BIN / area)
    columns = rows = 1
    if math.isfinite(reach_x * bins_per_unit) and math.isfinite(reach_y * bins_per_unit):
        columns = int(2 * reach_x * bins_per_unit) + 1
        rows = int(2 * reach_y * bins_per_unit) + 1
    grid = np.array([mean_x - reach_x, mean_y - reach_y, bins_per_unit])
    shape = np.array([rows, columns])

    starts = np.zeros(rows * columns + 1, np.int64)
    home = np.empty(n, np.int32)
    for i in range(n):
        home[i] = -1
        if math.isfinite(x[i]) and math.isfinite(y[i]):
            home[i] = bin_of(y[i], grid[1], grid[2], rows) * columns + bin_of(x[i], grid[0], grid[2], columns)
            starts[home[i] + 1] += 1
    for b in range(rows * columns):
        starts[b + 1] += starts[b]
    order = np.empty(count, np.int32)
    fill = starts[:-1].copy()
    for i in range(n):
        if home[i] >= 0:
            order[fill[home[i]]] = i
            fill[home[i]] += 1
    return starts, order, grid, shape


@njit(cache=True, nogil=True)
def bin_of(value, origin, bins_per_unit, count):
    """Index of the bin along one axis; what lies outside belongs to the outermost bin, NaN to the first."""
    place = (np.float64(value) - origin) * bins_per_unit
    if not place > 0:
        return 0
    if place >= count:
        return count - 1
    return int(place)


@njit(cache=True, nogil=True)
def bin_range(centre, reach, origin, bins_per_unit, count):
    """First and last bin along one axis that can hold points at most `reach` from the centre.

    The reach is widened a little, so that rounding in the caller's own test cannot lose a point.
    """
    wide = np.float64(reach) * 1.001 + 1e-12 + abs(np.float64(centre)) * 1e-6
    if not math.isfinite(wide):
        return 0, count - 1
    return bin_of(centre - wide, origin, bins_per_unit, count), bin_of(centre + wide, origin, bins_per_unit, count)
