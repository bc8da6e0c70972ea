"""`attractor.normalisation` with torch, for devices and graphs: the same numbers, from the same sample of pixels.

Shapes: `b` images, `c` channels, `s` their lengths along each axis, `n` pixels.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import torch
from jaxtyping import Float32, Float64, Shaped
from torch import Tensor, nn

from attractor.normalisation import SAMPLE, Normalisation


class Normalised(nn.Module):
    """`Normalisation` of a batch, each image by itself."""

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.percentiles = normalisation.low, normalisation.high

    def forward(self, images: Float32[Tensor, "b c *s"]) -> Float32[Tensor, "b c *s"]:
        """The images in units of their percentiles."""
        low, scale = self.limits(images)
        return (images - low) / scale

    def limits(self, images: Shaped[Tensor, "b c *s"]) -> tuple[Float32[Tensor, "b c *_"], Float32[Tensor, "b c *_"]]:
        """What is subtracted from each channel, and what it is then divided by; of length 1 along each axis."""
        flat = images.flatten(2)
        n = flat.shape[2]
        step = torch.sym_max(1, n // SAMPLE)
        sample = flat.index_select(2, torch.arange(0, n, step, device=flat.device))
        low, high = (percentile(sample, p) for p in self.percentiles)
        is_range = high > low
        low = torch.where(is_range, low, flat.amin(2, True).double())
        high = torch.where(is_range, high, flat.amax(2, True).double())
        scale = torch.where(high > low, high - low, torch.inf).float()
        ones = (..., *[None] * (images.ndim - 3))
        return low.float()[ones], scale[ones]


def percentile(values: Shaped[Tensor, "b c n"], percent: float) -> Float64[Tensor, "b c 1"]:
    """Like `numpy.percentile` with linear interpolation, over the last axis, for any number of values.

    Only the values beyond the percentile are sorted. Positions are fractions of whole numbers, because n is not yet
    known when the graph is made.
    """
    share = Fraction(str(percent)) / 100
    place, unit = share.numerator * (values.shape[2] - 1), share.denominator
    below, above = place // unit, (place + unit - 1) // unit
    if share > Fraction(1, 2):
        last = values.shape[2] - 1
        ordered = values.topk(values.shape[2] - below, 2).values
        below, above = last - below, last - above
    else:
        ordered = values.topk(above + 1, 2, largest=False).values
    low, high = (ordered.index_select(2, number(i, values).long()[None]).double() for i in (below, above))
    return low + (high - low) * (number(place % unit, values).double() / unit)


def number(n: Any, like: Tensor) -> Tensor:
    """A number, which may depend on the image's size and then has a type that torch.full does not name, as a tensor."""
    return torch.full((), n, dtype=torch.int64, device=like.device)
