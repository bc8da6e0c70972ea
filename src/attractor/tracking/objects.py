"""What linking knows of the objects of one frame: their pixels, sizes and middles.

Shapes: `a` axes, `k` objects, `n` pixels that belong to an object, `s` = k + 1 ends of their runs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Int64


@dataclass(frozen=True)
class Objects:
    """The objects of one frame; the pixels of object i are the rows `starts[i]` to `starts[i + 1]` of `pixels`."""

    labels: Int[np.ndarray, " k"]  # in the frame
    pixels: Int64[np.ndarray, "n a"]  # coordinates
    starts: Int64[np.ndarray, " s"]
    centres: Float[np.ndarray, "k a"]  # mean coordinates, in pixels

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.labels)

    @property
    def sizes(self) -> Int64[np.ndarray, " k"]:
        """Pixels of each object."""
        return np.diff(self.starts)

    @property
    def owners(self) -> Int64[np.ndarray, " n"]:
        """The place of each pixel's object."""
        return np.repeat(np.arange(len(self)), self.sizes)

    def some(self, places: Int[np.ndarray, " m"]) -> Objects:
        """The objects at these places, in this order."""
        parts = [self.pixels[self.starts[place] : self.starts[place + 1]] for place in places]
        starts = np.concatenate([[0], np.cumsum(self.sizes[places])]).astype(np.int64)
        pixels = np.concatenate(parts) if parts else self.pixels[:0]
        return Objects(self.labels[places], pixels, starts, self.centres[places])

    def moved(self, shift: Float[np.ndarray, " a"]) -> Objects:
        """The same objects elsewhere; pixels move by whole steps."""
        if not shift.any():
            return self
        return Objects(self.labels, self.pixels + np.rint(shift).astype(np.int64), self.starts, self.centres + shift)


def objects_of(labels: Int[np.ndarray, "*axes"]) -> Objects:
    """The objects of a label image of any number of axes, in the order of their labels."""
    inside = np.flatnonzero(labels)
    values = labels.reshape(-1)[inside]
    order = np.argsort(values, kind="stable")
    ids, first = np.unique(values[order], return_index=True)
    starts = np.append(first, len(inside)).astype(np.int64)
    coordinates = np.unravel_index(inside[order], labels.shape)
    pixels = np.stack(coordinates, 1).astype(np.int64)
    return Objects(ids, pixels, starts, _means(pixels, starts))


def joined(parts: Sequence[Objects]) -> Objects:
    """Several frames' objects one after another; at least one part is needed."""
    lengths = np.cumsum([0, *(len(part.pixels) for part in parts)])
    starts = [part.starts[:-1] + length for part, length in zip(parts, lengths, strict=False)]
    return Objects(
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.pixels for part in parts]),
        np.concatenate([*starts, lengths[-1:]]).astype(np.int64),
        np.concatenate([part.centres for part in parts]),
    )


def diameters(sizes: Float[np.ndarray, " k"], n_axes: int) -> Float[np.ndarray, " k"]:
    """Diameters of the balls of these sizes: of discs in a plane, of lengths along a line."""
    unit = math.pi ** (n_axes / 2) / math.gamma(n_axes / 2 + 1)  # the ball of radius 1
    return 2 * (sizes / unit) ** (1 / n_axes)


def _means(pixels: Int64[np.ndarray, "n a"], starts: Int64[np.ndarray, " s"]) -> Float[np.ndarray, "k a"]:
    """Mean coordinates of each object."""
    if len(starts) < 2:
        return np.zeros((0, pixels.shape[1]))
    return np.add.reduceat(pixels, starts[:-1], axis=0) / np.diff(starts)[:, None]
