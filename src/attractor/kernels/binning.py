"""Points of the plane sorted into square bins, so that a search looks only at the bins nearby.

Shapes: `n` points. Points that are not finite are in no bin: no search by distance can find them.
"""

from __future__ import annotations

import math

import numpy as np
from numba import njit

POINTS_PER_BIN = 24  # fewer cost more bins to visit, more cost points tested in vain
SAMPLE = 10_000  # points that say where the bins go


@njit(cache=True, nogil=True)
def bin_points(x, y, per_bin=POINTS_PER_BIN):
    """Sort points into bins.

    Points far from the rest share the outermost bins, so that a few stray ones do not make all bins coarse.

    Args:
        x: (n) float.
        y: (n) float.
        per_bin: how many points a bin holds if they are spread evenly.

    Returns:
        starts: (rows * columns + 1) int64, where each bin begins in `order`.
        order: (n) int32, the points, bin by bin, in each bin in their own order; those that are not finite come last.
        grid: (x origin, y origin, bins per unit) float64.
        shape: (rows, columns) int64.
    """
    grid, shape = _grid_of(x, y, per_bin)
    home = _home_bins(x, y, grid, shape[0], np.int32(shape[1]))
    starts = np.zeros(shape[0] * shape[1] + 2, np.int64)
    for b in home:
        starts[b + 1] += 1
    for b in range(starts.size - 1):
        starts[b + 1] += starts[b]
    order = np.empty(x.size, np.int32)
    fill = starts.copy()
    for i in range(x.size):
        order[fill[home[i]]] = i
        fill[home[i]] += 1
    return starts[:-1], order, grid, shape


@njit(cache=True, nogil=True)
def _home_bins(x, y, grid, rows, columns):
    """Bin of each point, row by row; rows * columns for a point that is not finite."""
    home = np.empty(x.size, np.int32)
    for i in range(x.size):
        column, row = bin_of(x[i], grid[0], grid[2], columns), bin_of(y[i], grid[1], grid[2], rows)
        is_finite = (x[i] - x[i] == 0) & (y[i] - y[i] == 0)
        home[i] = row * columns + column if is_finite else rows * columns
    return home


@njit(cache=True, nogil=True)
def _grid_of(x, y, per_bin):
    """Origin, scale and shape of the bins, from a sample of the points."""
    n = x.size
    count = 0
    mean_x = mean_y = square_x = square_y = 0.0
    for i in range(0, n, n // SAMPLE + 1):
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
        bins_per_unit = math.sqrt(n / per_bin / area)
    columns = rows = 1
    if math.isfinite(reach_x * bins_per_unit) and math.isfinite(reach_y * bins_per_unit):
        columns = int(2 * reach_x * bins_per_unit) + 1
        rows = int(2 * reach_y * bins_per_unit) + 1
    grid = np.array([mean_x - reach_x, mean_y - reach_y, bins_per_unit])
    return grid, np.array([rows, columns])


@njit(cache=True, nogil=True)
def bin_of(value, origin, bins_per_unit, count):
    """Index of the bin along one axis; what lies outside belongs to the outermost bin, NaN to the first."""
    place = (np.float64(value) - origin) * bins_per_unit
    place = place if place > 0 else 0.0
    return np.int32(place if place < count - 1 else count - 1)


@njit(cache=True, nogil=True)
def bin_range(centre, reach, origin, bins_per_unit, count):
    """First and last bin along one axis that can hold points at most `reach` from the centre.

    The reach is widened a little, so that rounding in the caller's own test cannot lose a point.
    """
    wide = np.float64(reach) * 1.001 + 1e-12 + abs(np.float64(centre)) * 1e-6
    if not math.isfinite(wide):
        return 0, count - 1
    return bin_of(centre - wide, origin, bins_per_unit, count), bin_of(centre + wide, origin, bins_per_unit, count)
