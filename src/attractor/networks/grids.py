"""Resolutions of images and volumes, from fine to coarse: along which axes a network halves and convolves.

An axis of a volume whose steps are much longer than the others' waits: it is not halved, and not convolved along,
until theirs have become as long.

Source: Isensee et al. 2021 (nnU-Net).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

Sides = tuple[int, ...]  # a number for each axis
SQUARE = (1.0, 1.0)
WAITS_AT = 2.5
# Layers by number of axes.
TRANSPOSED: dict[int, Any] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
NORMALISATION: dict[int, Any] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOLING: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}
DROPOUT: dict[int, Any] = {2: nn.Dropout2d, 3: nn.Dropout3d}


@dataclass(frozen=True)
class Grid:
    """How a resolution lies to the next coarser one; by default two axes with steps of one length."""

    spacing: tuple[float, ...] = SQUARE  # length of a step along each axis
    waits_at: float = WAITS_AT  # times the shortest step: an axis with such steps is neither halved nor convolved along

    @property
    def n_axes(self) -> int:
        """Number of axes."""
        return len(self.spacing)

    @property
    def kernel(self) -> Sides:
        """Pixels along each axis that a convolution sees: three, or one along an axis that waits."""
        return tuple(3 if step < self.waits_at * min(self.spacing) else 1 for step in self.spacing)

    @property
    def stride(self) -> Sides:
        """To the next coarser resolution: two, or one along an axis that waits."""
        return tuple(2 if side == 3 else 1 for side in self.kernel)

    @property
    def coarser(self) -> Grid:
        """The next resolution."""
        spacing = tuple(step * times for step, times in zip(self.spacing, self.stride, strict=True))
        return Grid(spacing, self.waits_at)

    def dilation(self, d: int) -> Sides:
        """Steps along each axis that go as far as d of the shortest steps, at least one."""
        return tuple(max(1, round(d * min(self.spacing) / step)) for step in self.spacing)


OF_IMAGES = Grid()


def products(strides: Sequence[Sides]) -> tuple[Sides, ...]:
    """Strides from the image to each resolution, from those between resolutions."""
    found, total = [], (1,) * len(strides[0])
    for stride in strides:
        total = tuple(before * own for before, own in zip(total, stride, strict=True))
        found.append(total)
    return tuple(found)
