"""Masks as COCO's files have them: polygons, and run lengths, also as compressed text.

Run lengths count zeros and ones in turn down the columns; compressed, each number is the difference from the one
two before it, in groups of five bits from the lowest, each group plus 48 as a character, bit 32 if more follow.

COCO's own library, pycocotools, is what tests compare with, not what files are read by: it trusts what it is given. A
corner at x = 1,000,000,000 or NaN ends the process, a triangle that is 10,000,000 pixels wide takes 1.2 GB, and text
that holds no run lengths keeps it busy for minutes. Guarding against these would take most of this code anyway, and
it decodes whole images only: 2,000 objects of 480 x 640 pixels in 3.2 s, where the columns that they lie in take 0.7 s.

Shapes: `h` rows, `w` columns, `r` runs, `n` points, `m` crossings; a part of the image has `r` rows and `c` columns.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.datasets.polygons import Box, fill_polygon, joined, ranges
from attractor.errors import InputError
from attractor.instances import Instances, decode_mask, encode_masks


@dataclass(frozen=True)
class Outline:
    """Which pixels an object has, as a file gives them: polygons, or runs and the size that they fill."""

    polygons: tuple[Float[np.ndarray, "_ 2"], ...] = ()  # points as x, y; none if there are runs
    runs: Int[np.ndarray, " r"] | str | None = None  # uncompressed or compressed
    size: tuple[int, int] | None = None  # rows and columns that the runs fill

    def draw(self, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
        """The pixels whose centres lie inside, and the part of the image that these are in.

        Raises:
            InputError: if there are runs that do not fill the image; the sentence begins with "it".
        """
        if self.runs is not None:
            return decode_columns(self._expanded(self.runs, shape), shape)
        return joined((fill_polygon(points, shape) for points in self.polygons), shape)

    def runs_as_coco(self, shape: tuple[int, int]) -> Int[np.ndarray, " r"]:
        """Run lengths of the pixels that pycocotools gives to the object.

        Raises:
            InputError: as `draw` does.
        """
        if self.runs is not None:
            return self._expanded(self.runs, shape)
        return united_runs([polygon_runs_as_coco(points, shape) for points in self.polygons])

    def _expanded(self, runs: Int[np.ndarray, " _"] | str, shape: tuple[int, int]) -> Int[np.ndarray, " r"]:
        """The run lengths, which must fill the image."""
        if isinstance(runs, str):
            runs = expand_runs(runs)
        if self.size != shape:
            size = "{} x {}".format(*self.size or (0, 0))
            raise InputError(f"its runs fill {size} pixels, but its image has {shape[0]} x {shape[1]}.")
        n_pixels = shape[0] * shape[1]
        if ((runs < 0) | (runs > n_pixels)).any() or runs.sum() != n_pixels:  # each on its own, as sums can overflow
            raise InputError(f"its runs cover {runs.sum()} pixels, but its image has {shape[0]} x {shape[1]}.")
        return runs


def runs_of(found: Instances) -> Sequence[Int[np.ndarray, "_"]]:
    """The run lengths of each object, the whole one where masks overlap."""
    return encode_masks(found.labels, len(found)) if found.masks is None else found.masks


def segmentation(runs: Int[np.ndarray, " r"], shape: tuple[int, int]) -> dict[str, object]:
    """An object's `segmentation` as files have it: its runs, compressed, and the size that they fill."""
    return {"size": [int(side) for side in shape], "counts": compress_runs(runs)}


def entry(runs: Int[np.ndarray, " r"], shape: tuple[int, int]) -> dict[str, object]:
    """What an annotation says about the pixels that an object has: `segmentation`, `area` and `bbox`."""
    return {"segmentation": segmentation(runs, shape), "area": int(runs[1::2].sum()), "bbox": bounding_box(runs, shape)}


def bounding_box(runs: Int[np.ndarray, " r"], shape: tuple[int, int]) -> list[int]:
    """Lowest x and y, width and height of the pixels that an object has; zeros if it has none."""
    bounds = np.cumsum(runs)
    starts, ends = (bounds[k : len(bounds) // 2 * 2 : 2] for k in (0, 1))
    starts, last = starts[ends > starts], ends[ends > starts] - 1
    if not len(starts):
        return [0, 0, 0, 0]
    height = shape[0]
    left, right = int(starts[0]) // height, int(last[-1]) // height
    top, bottom = int((starts % height).min()), int((last % height).max())
    if (starts // height < last // height).any():  # past a column's end: from last row to first
        top, bottom = 0, height - 1
    return [left, top, right - left + 1, bottom - top + 1]


def decode_columns(runs: Int[np.ndarray, " r"], shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "h c"], Box]:
    """A mask in only those columns that it needs, as an object is much smaller than its image."""
    height, width = shape
    if len(runs) < 2:
        return np.zeros((height, 0), bool), (slice(0, height), slice(0, 0))
    bounds = np.cumsum(runs)
    n_ones = len(runs) // 2  # runs 1, 3, … are the object's
    start, end = int(runs[0]), int(bounds[2 * n_ones - 1])
    left, right = min(start // height, width), -(-end // height)
    left = min(left, right)
    within = runs[: 2 * n_ones].copy()
    within[0] -= left * height
    mask = decode_mask(np.append(within, right * height - end), (height, right - left))
    return mask, (slice(0, height), slice(left, right))


# --- polygons as pycocotools draws them -------------------------------------------------------------------------------


def polygon_runs_as_coco(points: Float[np.ndarray, "n 2"], shape: tuple[int, int]) -> Int[np.ndarray, " r"]:
    """Run lengths of the pixels that pycocotools gives to a polygon of x, y points.

    Corners are rounded to a grid of five by five points a pixel, and edges drawn on it as lines one point thick. Where
    an edge crosses the middle of a column of pixels, from point 2 to point 3 of its five or back, the upper of the two
    points flips all pixels of the column whose third row of points is not above it.

    Args:
        points: may lie anywhere; columns outside of the image are left out, and rows above and below count as its edge.
        shape: rows and columns of the image.

    Source: `rleFrPoly` of pycocotools, whose rounding towards zero and order of operations are kept.
    """
    height, width = shape
    column, point = _column_crossings(np.trunc(5 * points + 0.5).astype(np.int64), width)
    row = np.clip(-((2 - point) // 5), 0, height)
    places, n_flips = np.unique(column * height + row, return_counts=True)
    return _runs_between(places[n_flips % 2 == 1], height * width)


def _column_crossings(
    corners: Int[np.ndarray, "n 2"], width: int
) -> tuple[Int[np.ndarray, " m"], Int[np.ndarray, " m"]]:
    """Where edges between corners on the fine grid cross the middle of columns: column, and the upper grid point."""
    step = np.roll(corners, -1, axis=0) - corners
    is_flat = np.abs(step[:, 0]) >= np.abs(step[:, 1])
    is_reversed = np.where(is_flat, step[:, 0], step[:, 1]) < 0  # lines are drawn along their longer side, upwards
    start = np.where(is_reversed[:, None], corners + step, corners)
    step = np.where(is_reversed[:, None], -step, step)
    left, right = np.minimum(0, step[:, 0]) + start[:, 0], np.maximum(0, step[:, 0]) + start[:, 0]
    first, stop = np.clip(-((2 - left) // 5), 0, width), np.clip((right - 3) // 5 + 1, 0, width)
    edge, column = ranges(first, stop)
    point = np.empty(len(edge), np.int64)
    for own, crossing in ((is_flat[edge], _crossing_of_flat), (~is_flat[edge], _crossing_of_steep)):
        point[own] = crossing(start[edge[own]], step[edge[own]], 5 * column[own] + 2)
    return column, point


def _crossing_of_flat(
    start: Int[np.ndarray, "m 2"], step: Int[np.ndarray, "m 2"], left: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """The upper of an edge's points at `left` and one to the right; the edge has a point at every x."""
    slope = step[:, 1] / step[:, 0]
    along = left - start[:, 0]
    here, beyond = (np.trunc(start[:, 1] + slope * t + 0.5) for t in (along, along + 1))
    return np.minimum(here, beyond).astype(np.int64)


def _crossing_of_steep(
    start: Int[np.ndarray, "m 2"], step: Int[np.ndarray, "m 2"], left: Int[np.ndarray, " m"]
) -> Int[np.ndarray, " m"]:
    """The last of an edge's points before it leaves `left` for the right, or reaches it from there."""
    slope = step[:, 0] / step[:, 1]

    def is_before(along: Float[np.ndarray, " m"]) -> Bool[np.ndarray, " m"]:
        return (start[:, 0] + slope * along + 0.5 < left + 1) == (slope > 0)

    guess = np.floor((left + 0.5 - start[:, 0]) / slope)  # rounding may have put it one off
    return start[:, 1] + (guess - 1 + is_before(guess) + is_before(guess + 1)).astype(np.int64)


def united_runs(parts: list[Int[np.ndarray, " _"]]) -> Int[np.ndarray, " r"]:
    """Run lengths of the pixels that are in any of several masks of one size."""
    if len(parts) == 1:
        return parts[0]
    bounds = [np.cumsum(runs) for runs in parts]
    starts, ends = (np.concatenate([bound[k : len(bound) // 2 * 2 : 2] for bound in bounds]) for k in (0, 1))
    places, which = np.unique(np.concatenate([starts, ends]), return_inverse=True)
    depth = np.cumsum(np.bincount(which[: len(starts)], minlength=len(places)))
    depth -= np.cumsum(np.bincount(which[len(starts) :], minlength=len(places)))
    return _runs_between(places[np.diff(depth > 0, prepend=False)], int(bounds[0][-1]))


def _runs_between(edges: Int[np.ndarray, " _"], size: int) -> Int[np.ndarray, " r"]:
    """Run lengths of a mask that changes at these pixels, in ascending order."""
    return np.diff(np.concatenate([[0], edges[edges < size], [size]]))


# --- run lengths as text ----------------------------------------------------------------------------------------------


def expand_runs(text: str) -> Int[np.ndarray, " r"]:
    """The run lengths in COCO's compressed string.

    Raises:
        InputError: if the string ends within a number.
    """
    groups = np.frombuffer(text.encode("ascii"), np.uint8).astype(np.int64) - 48
    if not len(groups):
        return np.zeros(0, np.int64)
    if groups[-1] & 32:
        raise InputError("its runs are cut short.")
    ends = np.flatnonzero((groups & 32) == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    place = np.arange(len(groups)) - np.repeat(starts, ends - starts + 1)  # of each group in its number
    if place.max() > 9:
        raise InputError("its runs hold a number that no image needs.")
    numbers = np.add.reduceat((groups & 31) << (5 * place), starts)
    is_negative = (groups[ends] & 16) > 0
    numbers -= is_negative.astype(np.int64) << (5 * (place[ends] + 1))
    for parity in (1, 2):  # from the fourth number on, each is the difference from the one two before
        numbers[parity::2] = np.cumsum(numbers[parity::2])
    return numbers


def compress_runs(runs: Int[np.ndarray, " r"]) -> str:
    """COCO's compressed string of run lengths."""
    numbers = runs.astype(np.int64).tolist()
    characters: list[int] = []
    for k, number in enumerate(numbers):
        rest = number - numbers[k - 2] if k > 2 else number
        more = True
        while more:  # ends: `rest` shrinks to 0 or -1
            group, rest = rest & 31, rest >> 5
            more = rest != (-1 if group & 16 else 0)
            characters.append(group + 32 * more + 48)
    return bytes(characters).decode("ascii")
