"""Coordinates as tuples with an array for each axis, so that compiled code knows the number of axes beforehand.

A loop over axes inside a loop over pixels would cost images of two axes a part of their speed. Each function here is
compiled in a form written out for two axes or for three. The body that Python sees is its definition, for any number.

Names: `at` is such a tuple; `centre`, `tau`, `reach`, `sums` and `values` are tuples of numbers, one for each axis.
"""

from __future__ import annotations

import math

import numpy as np
from numba.extending import overload


def taken(at, index):
    """The coordinates at some places, or in a slice."""
    return tuple(x[index] for x in at)


@overload(taken)
def _taken(at, index):
    if len(at) == 2:
        return lambda at, index: (at[0][index], at[1][index])
    return lambda at, index: (at[0][index], at[1][index], at[2][index])


def column(values, i, like):
    """The numbers in a column of an array that has a row for each axis of `like`."""
    return tuple(values[axis, i] for axis in range(len(like)))


@overload(column)
def _column(values, i, like):
    if len(like) == 2:
        return lambda values, i, like: (values[0, i], values[1, i])
    return lambda values, i, like: (values[0, i], values[1, i], values[2, i])


def row(values, i, like):
    """The numbers in a row of an array that has a column for each axis of `like`."""
    return tuple(values[i, axis] for axis in range(len(like)))


@overload(row)
def _row(values, i, like):
    if len(like) == 2:
        return lambda values, i, like: (values[i, 0], values[i, 1])
    return lambda values, i, like: (values[i, 0], values[i, 1], values[i, 2])


def finite(values):
    """Whether all numbers are finite."""
    return all(math.isfinite(value) for value in values)


@overload(finite)
def _finite(values):
    if len(values) == 2:
        return lambda values: math.isfinite(values[0]) and math.isfinite(values[1])
    return lambda values: math.isfinite(values[0]) and math.isfinite(values[1]) and math.isfinite(values[2])


def within(at, i, centre, reach):
    """Whether a place is no further from the centre than the reach, along each axis."""
    return all(abs(x[i] - c) <= r for x, c, r in zip(at, centre, reach, strict=True))


@overload(within)
def _within(at, i, centre, reach):
    if len(at) == 2:
        return lambda at, i, centre, reach: (
            (abs(at[1][i] - centre[1]) <= reach[1]) & (abs(at[0][i] - centre[0]) <= reach[0])
        )
    return lambda at, i, centre, reach: (
        (abs(at[2][i] - centre[2]) <= reach[2])
        & (abs(at[1][i] - centre[1]) <= reach[1])
        & (abs(at[0][i] - centre[0]) <= reach[0])
    )


def reaches(tau, limit, more):
    """How far a Gaussian is nearer than the limit, along each axis, and a little more; infinite where it is flat."""
    return tuple(_reach(t, limit, more) for t in tau)


@overload(reaches)
def _reaches(tau, limit, more):
    if len(tau) == 2:
        return lambda tau, limit, more: (_reach(tau[0], limit, more), _reach(tau[1], limit, more))
    return lambda tau, limit, more: (
        _reach(tau[0], limit, more),
        _reach(tau[1], limit, more),
        _reach(tau[2], limit, more),
    )


def _reach(t, limit, more):
    # more than it is, so that rounding cannot lose a place
    return (more + math.sqrt(limit / t)) * 1.001 + 1e-12 if t > 0 else math.inf


@overload(_reach)
def _compiled_reach(t, limit, more):
    return lambda t, limit, more: (more + math.sqrt(limit / t)) * 1.001 + 1e-12 if t > 0 else math.inf


def difference(at, i, centre):
    """From the centre to a place."""
    return tuple(x[i] - c for x, c in zip(at, centre, strict=True))


@overload(difference)
def _difference(at, i, centre):
    if len(at) == 2:
        return lambda at, i, centre: (at[0][i] - centre[0], at[1][i] - centre[1])
    return lambda at, i, centre: (at[0][i] - centre[0], at[1][i] - centre[1], at[2][i] - centre[2])


def squared(values, tau):
    """Squared length of a difference in units of the bandwidth, by the operations of the plain form in their order."""
    total = values[0] * values[0] * tau[0]
    for value, t in zip(values[1:], tau[1:], strict=True):
        total = total + value * value * t
    return total


@overload(squared)
def _squared(values, tau):
    if len(values) == 2:
        return lambda values, tau: values[0] * values[0] * tau[0] + values[1] * values[1] * tau[1]
    return lambda values, tau: (
        values[0] * values[0] * tau[0] + values[1] * values[1] * tau[1] + values[2] * values[2] * tau[2]
    )


def slopes(values, tau, factor):
    """`factor * tau * value` along each axis."""
    return tuple(factor * t * value for value, t in zip(values, tau, strict=True))


@overload(slopes)
def _slopes(values, tau, factor):
    if len(values) == 2:
        return lambda values, tau, factor: (factor * tau[0] * values[0], factor * tau[1] * values[1])
    return lambda values, tau, factor: (
        factor * tau[0] * values[0],
        factor * tau[1] * values[1],
        factor * tau[2] * values[2],
    )


def squares(values, factor):
    """`factor * value * value` along each axis."""
    return tuple(factor * value * value for value in values)


@overload(squares)
def _squares(values, factor):
    if len(values) == 2:
        return lambda values, factor: (factor * values[0] * values[0], factor * values[1] * values[1])
    return lambda values, factor: (
        factor * values[0] * values[0],
        factor * values[1] * values[1],
        factor * values[2] * values[2],
    )


def alike(value, like):
    """The same number for each axis."""
    return (value,) * len(like)


@overload(alike)
def _alike(value, like):
    if len(like) == 2:
        return lambda value, like: (value, value)
    return lambda value, like: (value, value, value)


def nothing(like):
    """Sums that have just begun."""
    return (0.0,) * len(like)


@overload(nothing)
def _nothing(like):
    if len(like) == 2:
        return lambda like: (0.0, 0.0)
    return lambda like: (0.0, 0.0, 0.0)


def plus(sums, values):
    """The sums with these numbers added."""
    return tuple(total + value for total, value in zip(sums, values, strict=True))


@overload(plus)
def _plus(sums, values):
    if len(sums) == 2:
        return lambda sums, values: (sums[0] + values[0], sums[1] + values[1])
    return lambda sums, values: (sums[0] + values[0], sums[1] + values[1], sums[2] + values[2])


def weighted(values, weight):
    """`weight * value` along each axis."""
    return tuple(weight * value for value in values)


@overload(weighted)
def _weighted(values, weight):
    if len(values) == 2:
        return lambda values, weight: (weight * values[0], weight * values[1])
    return lambda values, weight: (weight * values[0], weight * values[1], weight * values[2])


def logarithms(values, weight):
    """`weight * log(value)` along each axis."""
    return tuple(weight * math.log(value) for value in values)


@overload(logarithms)
def _logarithms(values, weight):
    if len(values) == 2:
        return lambda values, weight: (weight * math.log(values[0]), weight * math.log(values[1]))
    return lambda values, weight: (
        weight * math.log(values[0]),
        weight * math.log(values[1]),
        weight * math.log(values[2]),
    )


def means(sums, total, like):
    """The sums by their total weight, as numbers of the coordinates' type."""
    return tuple(x.dtype.type(each / total) for each, x in zip(sums, like, strict=True))


@overload(means)
def _means(sums, total, like):
    if len(sums) == 2:

        def flat(sums, total, like):
            kind = like[0].dtype.type
            return kind(sums[0] / total), kind(sums[1] / total)

        return flat

    def deep(sums, total, like):
        kind = like[0].dtype.type
        return kind(sums[0] / total), kind(sums[1] / total), kind(sums[2] / total)

    return deep


def exponentials(sums, total, like):
    """The exponentials of the sums by their total weight, as numbers of the coordinates' type."""
    return tuple(x.dtype.type(math.exp(each / total)) for each, x in zip(sums, like, strict=True))


@overload(exponentials)
def _exponentials(sums, total, like):
    if len(sums) == 2:

        def flat(sums, total, like):
            kind = like[0].dtype.type
            return kind(math.exp(sums[0] / total)), kind(math.exp(sums[1] / total))

        return flat

    def deep(sums, total, like):
        kind = like[0].dtype.type
        return (
            kind(math.exp(sums[0] / total)),
            kind(math.exp(sums[1] / total)),
            kind(math.exp(sums[2] / total)),
        )

    return deep


def add(arrays, i, values):
    """Add a number to each array at one place."""
    for array, value in zip(arrays, values, strict=True):
        array[i] += value


@overload(add)
def _add(arrays, i, values):
    if len(arrays) == 2:

        def flat(arrays, i, values):
            arrays[0][i] += values[0]
            arrays[1][i] += values[1]

        return flat

    def deep(arrays, i, values):
        arrays[0][i] += values[0]
        arrays[1][i] += values[1]
        arrays[2][i] += values[2]

    return deep


def put(array, i, values):
    """Write the numbers into a row of an array that has a column for each axis."""
    for axis, value in enumerate(values):
        array[i, axis] = value


@overload(put)
def _put(array, i, values):
    if len(values) == 2:

        def flat(array, i, values):
            array[i, 0], array[i, 1] = values[0], values[1]

        return flat

    def deep(array, i, values):
        array[i, 0], array[i, 1], array[i, 2] = values[0], values[1], values[2]

    return deep


def gap(at, i, j, step):
    """Distance between two places, whose steps along each axis have these lengths."""
    return np.sqrt(sum((np.float64(x[i] - x[j]) * length) ** 2 for x, length in zip(at, step, strict=True)))


@overload(gap)
def _gap(at, i, j, step):
    if len(at) == 2:
        return lambda at, i, j, step: np.sqrt(
            (np.float64(at[0][i] - at[0][j]) * step[0]) ** 2 + (np.float64(at[1][i] - at[1][j]) * step[1]) ** 2
        )
    return lambda at, i, j, step: np.sqrt(
        (np.float64(at[0][i] - at[0][j]) * step[0]) ** 2
        + (np.float64(at[1][i] - at[1][j]) * step[1]) ** 2
        + (np.float64(at[2][i] - at[2][j]) * step[2]) ** 2
    )
