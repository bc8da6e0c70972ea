"""Outlines of objects along pixel edges, and the pixels inside of outlines.

An object is one or more parts, each of pixels that touch by their sides. A part is a list of rings: its outline first,
clockwise as seen on the screen, then its holes, which run the other way. A ring is an array of its corners, x and y in
pixels, whole numbers being pixel edges; it is not closed, that is, the first corner does not stand at the end again.
Filled by the even-odd rule at pixel centres, rings give exactly the pixels that they were made of. No ring touches
itself, and a hole touches its outline in one corner at most, so that each part is a valid polygon by the rules of
OGC's Simple Features: where two pixels of one part meet in a corner only, the hole on one side is a ring of its own.

An outline is followed one pixel side at a time, with the pixel on the right hand. It turns left where the pixel ahead
on the left belongs to the part, else goes straight on where the one ahead on the right does, else turns right.

Shapes: `h` rows, `w` columns, `n` corners, `r` and `c` rows and columns of a box, `m` run lengths.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TypeAlias, TypeGuard

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped
from skimage.measure import label as connected_parts

from attractor.errors import InputError

FARTHEST = 1e7  # coordinates beyond this are mistakes
MOST_CROSSINGS = 1 << 22  # of one polygon and all rows or columns; an outline of 10 cm at 0.25 um a pixel has 400,000

Box: TypeAlias = tuple[slice, slice]  # rows and columns
Ring: TypeAlias = Int[np.ndarray, "_ 2"]  # corners as x, y
Points: TypeAlias = Shaped[np.ndarray, "_ 2"]  # of a ring as x, y, whether or not they lie on pixel edges
Part: TypeAlias = list[Ring]  # an outline and its holes


@dataclass(frozen=True)
class Polygon:
    """One part of an object as its file has it: what lies inside of an odd number of its rings."""

    rings: tuple[Float[np.ndarray, "_ 2"], ...]  # points as x, y

    def draw(self, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
        """Its pixels, and the box in the image that they lie in."""
        return fill_in_box(self.rings, shape)


@dataclass(frozen=True)
class Ellipse:
    """An ellipse along the axes; a pixel belongs to it if its centre lies inside or on the edge."""

    x: float
    y: float
    radius_x: float
    radius_y: float

    def draw(self, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
        """Its pixels, and the box in the image that they lie in."""
        rows = _reach(self.y, self.radius_y, shape[0])
        columns = _reach(self.x, self.radius_x, shape[1])
        if self.radius_x <= 0 or self.radius_y <= 0:
            return np.zeros((rows.stop - rows.start, columns.stop - columns.start), bool), (rows, columns)
        y = (np.arange(rows.start, rows.stop) + 0.5 - self.y) / self.radius_y
        x = (np.arange(columns.start, columns.stop) + 0.5 - self.x) / self.radius_x
        return (y**2)[:, None] + (x**2)[None] <= 1, (rows, columns)


def _reach(centre: float, radius: float, size: int) -> slice:
    """The pixels of an axis that may lie within a radius."""
    low, high = np.clip([np.floor(centre - radius), np.ceil(centre + radius)], 0, size)
    return slice(int(low), int(high))


# --- from pixels to rings ---------------------------------------------------------------------------------------------


def rings(mask: Bool[np.ndarray, "h w"]) -> list[Part]:
    """The parts of one object, from top to bottom; none of an empty mask."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return []
    box = mask[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    corner = np.array([columns[0], rows[0]])
    return [[ring + corner for ring in part] for part in label_rings(box.astype(np.int32), 1)[0]]


def label_rings(labels: Int32[np.ndarray, "h w"], n: int) -> list[list[Part]]:
    """The parts of labels 1 to n, each label's from top to bottom; none for a label without a pixel.

    All sides of all objects are found at once, and followed in one loop over their number.
    """
    parts = np.pad(connected_parts(labels, connectivity=1), 1)  # by sides; differing labels stay apart
    sides = _sides(parts)
    following = _following(parts, sides)
    order, starts = _cycles(following.tolist())
    corners, bounds = _corners(sides, following, order, starts, parts.shape[1])
    first = sides[order[starts]]  # the smallest of each ring, so that an outline comes before its part's holes
    row, column = np.divmod(first >> 2, parts.shape[1])
    objects, owners = labels[row - 1, column - 1].tolist(), parts[row, column].tolist()
    is_outline = (first & 3 == 0).tolist()  # the smallest side of a hole is the lower one of the pixel above it
    found: list[list[Part]] = [[] for _ in range(n)]
    of_owner: dict[int, Part] = {}
    for k, owner in enumerate(owners):
        ring = corners[bounds[k] : bounds[k + 1]]
        if is_outline[k]:
            of_owner[owner] = [ring]
            found[objects[k] - 1].append(of_owner[owner])
        else:
            of_owner[owner].append(ring)
    return found


def _sides(parts: Int[np.ndarray, "h w"]) -> Int[np.ndarray, " n"]:
    """Each pixel side that lies on an outline, as 4 times the pixel's index plus 0 (upper), 1 (right), 2, 3; sorted."""
    inner, width = parts[1:-1, 1:-1], parts.shape[1]
    found = []
    for side, other in enumerate((parts[:-2, 1:-1], parts[1:-1, 2:], parts[2:, 1:-1], parts[1:-1, :-2])):
        row, column = np.nonzero((inner != other) & (inner > 0))
        found.append(((row + 1) * width + column + 1) * 4 + side)
    return np.sort(np.concatenate(found))


def _following(parts: Int[np.ndarray, "h w"], sides: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The place of the side that comes after each one, with the part on the right hand."""
    flat, width = parts.ravel(), parts.shape[1]
    steps = np.array([-width, 1, width, -1])  # across the upper, right, lower and left side
    pixel, side = sides >> 2, sides & 3
    ahead_right = pixel + steps[(side + 1) & 3]
    ahead_left = ahead_right + steps[side]
    is_left, is_right = flat[ahead_left] == flat[pixel], flat[ahead_right] == flat[pixel]
    next_pixel = np.where(is_left, ahead_left, np.where(is_right, ahead_right, pixel))
    next_side = np.where(is_left, side - 1, np.where(is_right, side, side + 1)) & 3
    return np.searchsorted(sides, next_pixel * 4 + next_side)


def _cycles(following: list[int]) -> tuple[Int[np.ndarray, " n"], Int[np.ndarray, " k"]]:
    """The sides ring by ring in the order in which they follow each other, and where each ring begins."""
    order: list[int] = []
    starts: list[int] = []
    is_done = bytearray(len(following))
    for first in range(len(following)):
        if is_done[first]:
            continue
        starts.append(len(order))
        side = first
        while not is_done[side]:  # ends: each turn does one more
            is_done[side] = 1
            order.append(side)
            side = following[side]
    return np.array(order, np.int64), np.array(starts, np.int64)


def _corners(
    sides: Int[np.ndarray, " n"],
    following: Int[np.ndarray, " n"],
    order: Int[np.ndarray, " n"],
    starts: Int[np.ndarray, " k"],
    width: int,
) -> tuple[Int[np.ndarray, "_ 2"], list[int]]:
    """Where the rings' sides begin, as x, y, if they turn there, and where among these each ring begins and ends."""
    row, column = np.divmod(sides[order] >> 2, width)  # of the padded image
    heading = sides[order] & 3
    x = column - 1 + ((heading == 1) | (heading == 2))
    y = row - 1 + (heading >= 2)
    before = np.empty_like(following)
    before[following] = np.arange(len(following))
    is_corner = (sides[before[order]] & 3) != heading
    n_corners = np.concatenate([[0], np.cumsum(is_corner)])
    return np.stack([x, y], 1)[is_corner], n_corners[np.append(starts, len(order))].tolist()


# --- from rings to pixels ---------------------------------------------------------------------------------------------


def fill(outlines: Sequence[Points], shape: tuple[int, int]) -> Bool[np.ndarray, "h w"]:
    """The pixels whose centres lie inside of an odd number of rings, whatever part they are of."""
    whole = np.zeros(shape, bool)
    for ring in outlines:
        mask, box = fill_polygon(np.asarray(ring, np.float64), shape)
        whole[box] ^= mask
    return whole


def fill_in_box(outlines: Sequence[Points], shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
    """As `fill`, but only the box of the image that the rings lie in."""
    return joined((fill_polygon(np.asarray(ring, np.float64), shape) for ring in outlines), shape, np.logical_xor)


def joined(
    pieces: Iterable[tuple[Bool[np.ndarray, "_ _"], Box]], shape: tuple[int, int], how: np.ufunc = np.logical_or
) -> tuple[Bool[np.ndarray, "r c"], Box]:
    """Masks of several boxes as one, united unless told otherwise; only one of them is in memory at a time."""
    remaining = (piece for piece in pieces if piece[0].size)
    mask, box = next(remaining, (np.zeros((0, 0), bool), (slice(0, 0), slice(0, 0))))
    whole: Bool[np.ndarray, "h w"] | None = None
    for other, place in remaining:
        if whole is None:  # as large as the image, but the system holds only what is written to
            whole = np.zeros(shape, bool)
            whole[box] = mask
        how(whole[place], other, out=whole[place])
        box = _around(box[0], place[0]), _around(box[1], place[1])
    return (mask if whole is None else whole[box].copy()), box


def _around(one: slice, other: slice) -> slice:
    """The smallest range that holds two."""
    return slice(min(one.start, other.start), max(one.stop, other.stop))


def fill_polygon(
    points: Float[np.ndarray, "n 2"], shape: tuple[int, int]
) -> tuple[Bool[np.ndarray, "r c"], tuple[slice, slice]]:
    """The pixels whose centre is inside a polygon of x, y points by the even-odd rule, and the box that they lie in.

    In each row of pixel centres, an edge that crosses it flips all pixels from there on to the right.
    """
    height, width = shape
    x, y = points[:, 0] - 0.5, points[:, 1] - 0.5  # now whole numbers are pixel centres
    top, bottom = (int(np.clip(np.ceil(value), 0, height)) for value in (y.min(), y.max()))
    left, right = (int(np.clip(np.ceil(value), 0, width)) for value in (x.min(), x.max()))
    place = slice(top, bottom), slice(left, right)
    flips = np.zeros((bottom - top, right - left + 1), np.uint8)  # counts, of which only odd or even matters
    start, end = np.arange(len(x)), np.roll(np.arange(len(x)), -1)
    upper, lower = np.where(y <= y[end], (start, end), (end, start))  # so that both its neighbours round alike
    low, high = y[upper], y[lower]
    first = np.clip(np.ceil(low), top, bottom).astype(int)  # rows with low <= row < high: a corner counts once
    edge, row = ranges(first, np.clip(np.ceil(high), top, bottom).astype(int))
    slope = (x[lower] - x[upper])[edge] / (high - low)[edge]
    crossing = x[upper][edge] + (row - low[edge]) * slope
    column = np.clip(np.ceil(crossing), left, right).astype(int)
    np.add.at(flips, (row - top, column - left), 1)
    return (np.add.accumulate(flips[:, :-1], axis=1, dtype=np.uint8) & 1).astype(bool), place


def ranges(first: Int[np.ndarray, " n"], stop: Int[np.ndarray, " n"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Every number of many ranges, and before it the index of the range that it is in.

    Raises:
        InputError: if they are more than MOST_CROSSINGS.
    """
    lengths = np.maximum(stop - first, 0)
    if (total := int(lengths.sum())) > MOST_CROSSINGS:
        raise InputError(f"it has an outline that crosses {total:,} rows in all, as no object's does; draw it again.")
    index = np.repeat(np.arange(len(lengths)), lengths)
    return index, np.arange(len(index)) - np.repeat(np.cumsum(lengths) - lengths, lengths) + first[index]


def encode_in_box(mask: Bool[np.ndarray, "r c"], box: Box, shape: tuple[int, int]) -> Int[np.ndarray, " m"]:
    """The run lengths that `encode_mask` gives for the whole image, where all that is in the mask lies in a box."""
    turns = np.diff(np.pad(mask.T.astype(np.int8), ((0, 0), (1, 1))), axis=1)  # (c, r + 1)
    corner = box[1].start * shape[0] + box[0].start
    starts, ends = (
        (column * shape[0] + row + corner) for column, row in (np.nonzero(turns == 1), np.nonzero(turns < 0))
    )
    is_apart = starts[1:] != ends[:-1]  # a run down to the last row goes on in the next column
    starts, ends = starts[np.append(True, is_apart)[: len(starts)]], ends[np.append(is_apart, True)[: len(ends)]]
    bounds = np.concatenate([[0], np.stack([starts, ends], 1).ravel(), [shape[0] * shape[1]]])
    runs = np.diff(bounds)
    return runs[:-1] if len(runs) > 1 and runs[-1] == 0 else runs


def as_points(values: object) -> Float[np.ndarray, "n 2"]:
    """The points of a ring from what a file holds, without one at the end that only closes it.

    Raises:
        InputError: if they are fewer than three, or not all numbers within reason; the sentence begins with "it".
    """
    return as_ring(as_coordinates(values))


def as_ring(points: Float[np.ndarray, "_ 2"]) -> Float[np.ndarray, "n 2"]:
    """The points without one at the end that only closes the ring.

    Raises:
        InputError: if they are fewer than three; the sentence begins with "it".
    """
    if len(points) > 1 and (points[0] == points[-1]).all():
        points = points[:-1]
    if len(points) < 3:
        raise InputError("it has an outline with fewer than three points")
    return points


def as_coordinates(values: object) -> Float[np.ndarray, "n 2"]:
    """Points from what a file holds: a list of lists of numbers, of which the first two are x and y.

    Raises:
        InputError: if it is not one, or not all are numbers within reason; the sentence begins with "it".
    """
    if not _are_points(values):
        raise InputError("it has an outline that is not a list of points, each of numbers x and y")
    try:
        points = np.array([point[:2] for point in values], np.float64).reshape(-1, 2)
    except OverflowError:  # a whole number beyond all floats
        points = np.full((1, 2), np.inf)
    if not (np.abs(points) < FARTHEST).all():  # false for NaN, too
        raise InputError("it has an outline with coordinates that are no numbers or far outside of any image")
    return points


def _are_points(values: object) -> TypeGuard[list[list[float]]]:
    """Whether it is a list of lists of two numbers or more; NumPy would make numbers of booleans and text, too."""
    if not isinstance(values, list) or not all(isinstance(point, list) and len(point) > 1 for point in values):
        return False
    return set(map(type, chain.from_iterable(values))) <= {int, float}
