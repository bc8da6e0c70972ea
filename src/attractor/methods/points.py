"""Pixels that grouping needs, of a part of an image: which they are, and what the network said of them.

Parts of any number of axes are cut to a window and joined, so that an image is grouped from what was gathered of its
parts, and a window of it from what was gathered of the parts around.

Shapes: `n` pixels, `k` objects.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Int, Shaped

from attractor.instances import Instances

Box: TypeAlias = tuple[slice, ...]  # start and stop along each axis of an image


@dataclass(frozen=True)
class Points:
    """Pixels of one class in a part of an image."""

    pixel: Int[np.ndarray, " n"]  # place in the part, counted row by row, rising
    values: Mapping[str, Shaped[np.ndarray, "*_ n"]]  # what grouping needs of each; the last axis is n

    def seen_in(self, window: Box, part: Box) -> Points:
        """Those pixels of a part that lie in a window, counted in the window."""
        inner, outer = ([side.stop - side.start for side in box] for box in (part, window))
        if inner[1:] == outer[1:] and part[1:] == window[1:] and _holds(window[0], part[0]):  # all, in the same rows
            before = (part[0].start - window[0].start) * int(np.prod(inner[1:]))
            return Points(self.pixel + self.pixel.dtype.type(before), self.values)
        places = np.stack(np.unravel_index(self.pixel, inner)) + _starts(part) - _starts(window)
        is_inside = ((places >= 0) & (places < np.array(outer)[:, None])).all(0)
        pixel = np.ravel_multi_index(tuple(places[:, is_inside]), outer).astype(self.pixel.dtype)
        return Points(pixel, {name: values[..., is_inside] for name, values in self.values.items()})

    @classmethod
    def joined(cls, parts: Sequence[Points]) -> Points:
        """The pixels of several parts that share none, all counted in one window, in rising order."""
        if len(parts) == 1:
            return parts[0]
        pixel = np.concatenate([part.pixel for part in parts])
        values = {name: np.concatenate([part.values[name] for part in parts], -1) for name in parts[0].values}
        if (pixel[1:] < pixel[:-1]).any():
            order = np.argsort(pixel, kind="stable")
            pixel, values = pixel[order], {name: each[..., order] for name, each in values.items()}
        return cls(pixel, values)


def _holds(outer: slice, inner: slice) -> bool:
    return bool(outer.start <= inner.start and inner.stop <= outer.stop)


def _starts(box: Box) -> Int[np.ndarray, "a 1"]:
    return np.array([side.start for side in box])[:, None]


def joined_parts(parts: Sequence[tuple[Box, Sequence[Points]]], window: Box) -> list[Points]:
    """For each class the pixels of all parts that lie in a window.

    Args:
        parts: at least one, each with what was gathered of it.
        window: that pixels are counted in.
    """
    of_classes = zip(*(points for _, points in parts), strict=True)
    boxes = [box for box, _ in parts]
    return [
        Points.joined([points.seen_in(window, box) for points, box in zip(of_class, boxes, strict=True)])
        for of_class in of_classes
    ]


@dataclass(frozen=True)
class Grown:
    """Objects, and the pixel that each grew from."""

    found: Instances
    seeds: Int[np.ndarray, " k"]  # counted row by row
