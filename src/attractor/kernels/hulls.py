"""Areas of convex hulls, in one pass over a label image; they equal those that scikit-image counts, pixel for pixel.

A pixel is the diamond of the four points half a pixel from its middle. The hull of an object is the convex hull of all
its diamonds, and its area is the number of pixels whose middles lie in it or on its edge. Everything is in whole half
pixels, so nothing is rounded.

Shapes: `h` rows, `w` columns, `k` objects, `n` levels, half a pixel apart.
"""

from __future__ import annotations

import numpy as np
from numba import njit

NONE = np.iinfo(np.int64).max


def hull_areas(labels, n):
    """Pixels in the convex hull of each label.

    `labels` (h, w) int32 has 0 for background and 1 to `n` for objects.

    Returns:
        areas: (n,) int64; 0 for a label without a pixel.
    """
    return _hull_areas(np.ascontiguousarray(labels), n)


@njit(cache=True, nogil=True)
def _hull_areas(labels, n):
    """The areas, object by object, from the first and the last column that each has in each row."""
    first_row, last_row = _rows(labels, n)
    starts = np.zeros(n + 2, np.int64)  # of each object's rows among the rows of all
    for k in range(1, n + 1):
        starts[k + 1] = starts[k] + (0 if last_row[k] < 0 else last_row[k] - first_row[k] + 1)
    left, right = _ends(labels, first_row, starts)
    areas = np.zeros(n, np.int64)
    for k in range(1, n + 1):
        if last_row[k] >= 0:
            rows = slice(starts[k], starts[k + 1])
            areas[k - 1] = _area(left[rows], right[rows])
    return areas


@njit(cache=True, nogil=True)
def _rows(labels, n):
    """The first and the last row of each label; the last is -1 for a label without a pixel."""
    first, last = np.full(n + 1, labels.shape[0], np.int64), np.full(n + 1, -1, np.int64)
    for row in range(labels.shape[0]):
        for k in labels[row]:
            if k > 0:
                first[k] = min(first[k], row)
                last[k] = row
    return first, last


@njit(cache=True, nogil=True)
def _ends(labels, first_row, starts):
    """The first and the last column of each object in each of its rows; NONE and -1 in a row that it skips."""
    left, right = np.full(starts[-1], NONE, np.int64), np.full(starts[-1], -1, np.int64)
    for row in range(labels.shape[0]):
        for column in range(labels.shape[1]):
            k = labels[row, column]
            if k > 0:
                place = starts[k] + row - first_row[k]
                left[place] = min(left[place], column)
                right[place] = column
    return left, right


@njit(cache=True, nogil=True)
def _area(left, right):
    """Pixels in the hull of one object."""
    n = 2 * left.size + 1
    lowest = np.full(n, NONE, np.int64)  # the leftmost point of the diamonds on each level, and minus the rightmost
    highest = np.full(n, NONE, np.int64)
    for row in range(left.size):
        if right[row] < 0:
            continue
        for level, reach in ((2 * row, 0), (2 * row + 1, 1), (2 * row + 2, 0)):
            lowest[level] = min(lowest[level], 2 * left[row] - reach)
            highest[level] = min(highest[level], -(2 * right[row] + reach))
    begin, end = _edge(lowest), _edge(highest)
    total = 0
    for row in range(left.size):
        total += max(0, -end[row] - begin[row] + 1)
    return total


@njit(cache=True, nogil=True)
def _edge(points):
    """The first column whose middle lies in the hull, in each row: right of the convex chain of the leftmost points."""
    chain = np.empty(points.size, np.int64)  # levels of its corners
    n = 0
    for level in range(points.size):
        if points[level] == NONE:
            continue
        while n > 1:
            a, b = chain[n - 2], chain[n - 1]
            if (points[b] - points[a]) * (level - a) < (points[level] - points[a]) * (b - a):
                break
            n -= 1  # the corner lies on the right of the line past it, or on it
        chain[n] = level
        n += 1
    columns = np.empty(points.size // 2, np.int64)
    corner = 0
    for row in range(columns.size):
        level = 2 * row + 1
        while chain[corner + 1] < level:
            corner += 1
        a, b = chain[corner], chain[corner + 1]
        numerator = points[a] * (b - a) + (points[b] - points[a]) * (level - a)
        columns[row] = -(-numerator // (2 * (b - a)))
    return columns
