"""Sides of any length for networks that halve the resolution several times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def padded(images: Float[Tensor, "b c *s"], stride: int | Sequence[int]) -> Float[Tensor, "b c *t"]:
    """The images with their last sides grown to multiples of `stride` pixels, by reflection.

    Args:
        images: with two axes or three.
        stride: along all axes, or along each.
    """
    shape = images.shape[2:]
    strides = (stride,) * len(shape) if isinstance(stride, int) else stride
    more = [-n % own for n, own in zip(shape, strides, strict=True)]
    if not any(more):
        return images
    # Reflection needs sides longer than the padding; a strip or a single pixel is repeated instead.
    reflects = all(n > extra for n, extra in zip(shape, more, strict=True))
    pads = [pad for extra in reversed(more) for pad in (0, extra)]
    return F.pad(images, pads, mode="reflect" if reflects else "replicate")


def cropped(maps: Float[Tensor, "b c *t"], shape: Sequence[Any]) -> Float[Tensor, "b c *s"]:
    """The maps without what padding has added to their last sides.

    While a graph is made of a network, lengths are no plain numbers.
    """
    for axis, n in enumerate(shape, 2):
        maps = maps.narrow(axis, 0, n)
    return maps
