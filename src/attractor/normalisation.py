"""Intensities in units of an image's own percentiles: with NumPy on the CPU, with torch on devices and in graphs.

Both give the same numbers; both judge large images by the same evenly spread sample of pixels.

Shapes: `b` images, `c` channels, `h` rows, `w` columns, `n` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, Float64, Shaped
from torch import Tensor, nn

from attractor.errors import InputError

SAMPLE = 1 << 20  # pixels of a channel from which percentiles are taken


@dataclass(frozen=True, kw_only=True)
class Normalisation:
    """Intensities of each channel mapped so that one percentile becomes 0 and another 1, without clipping."""

    low: float = 1.0
    high: float = 99.8

    def __post_init__(self) -> None:
        """Refuse numbers that are not two percentiles, the lower one first."""
        if not 0 <= self.low < self.high <= 100:
            raise InputError(
                f"normalisation.low is {self.low} and normalisation.high {self.high}; they are percentiles from 0 to "
                "100, the lower one first."
            )

    def __call__(self, image: Shaped[np.ndarray, "h w c"]) -> Float32[np.ndarray, "h w c"]:
        """The image in these units; a channel with a single value becomes 0.

        If both percentiles are equal, as with few bright pixels on black, the range from least to greatest value is
        used. Large images are judged by an evenly spread sample of pixels.
        """
        low, scale = self.limits(image)
        return (image - low) / scale

    def limits(self, image: Shaped[np.ndarray, "h w c"]) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
        """What is subtracted from each channel, and what it is then divided by: infinity for one value only."""
        flat = image.reshape(-1, image.shape[-1])
        sample = flat[:: max(1, len(flat) // SAMPLE)]
        low, high = np.stack([_percentiles(channel, (self.low, self.high)) for channel in sample.T], 1)
        if not (high > low).all():
            low, high = np.where(high > low, [low, high], [flat.min(0), flat.max(0)])
        scale = np.where(high > low, high - low, np.inf)
        return low.astype(np.float32), scale.astype(np.float32)


def _percentiles(values: Shaped[np.ndarray, " n"], shares: tuple[float, float]) -> Float64[np.ndarray, "2"]:
    """Like `numpy.percentile`; whole numbers of 8 or 16 bits are counted instead of sorted."""
    if values.dtype.kind != "u" or values.dtype.itemsize > 2:
        return np.percentile(np.ascontiguousarray(values), shares).astype(np.float64)
    up_to = np.bincount(values).cumsum()
    place = np.array(shares) / 100 * (len(values) - 1)
    below, above = (np.searchsorted(up_to, x, side="right") for x in (np.floor(place), np.ceil(place)))
    return below + (above - below) * (place - np.floor(place))


# -------------------------------------------------------------------- with torch


class Normalised(nn.Module):
    """`Normalisation` of a batch, each image by itself."""

    def __init__(self, normalisation: Normalisation) -> None:
        super().__init__()
        self.percentiles = normalisation.low, normalisation.high

    def forward(self, images: Float32[Tensor, "b c h w"]) -> Float32[Tensor, "b c h w"]:
        """The images in units of their percentiles."""
        low, scale = self.limits(images)
        return (images - low) / scale

    def limits(
        self, images: Shaped[Tensor, "b c h w"]
    ) -> tuple[Float32[Tensor, "b c 1 1"], Float32[Tensor, "b c 1 1"]]:
        """What is subtracted from each channel, and what it is then divided by."""
        flat = images.flatten(2)
        n = flat.shape[2]
        step = torch.sym_max(1, n // SAMPLE)
        sample = flat.index_select(2, torch.arange(0, n, step, device=flat.device))
        low, high = (percentile(sample, p) for p in self.percentiles)
        is_range = high > low
        low = torch.where(is_range, low, flat.amin(2, True).double())
        high = torch.where(is_range, high, flat.amax(2, True).double())
        scale = torch.where(high > low, high - low, torch.inf).float()
        return low.float()[..., None], scale[..., None]


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
