"""Intensities in units of an image's own percentiles; large images are judged by an evenly spread sample of pixels.

Shapes: `c` channels, `s` the lengths of an image or volume along its axes, `n` pixels.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float32, Float64, Shaped

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

    def __call__(self, image: Shaped[np.ndarray, "*s c"]) -> Float32[np.ndarray, "*s c"]:
        """The image in these units; a channel with a single value becomes 0.

        If both percentiles are equal, as with few bright pixels on black, the range from least to greatest value is
        used. Large images are judged by an evenly spread sample of pixels.
        """
        low, scale = self.limits(image)
        return (image - low) / scale

    def limits(self, image: Shaped[np.ndarray, "*s c"]) -> tuple[Float32[np.ndarray, " c"], Float32[np.ndarray, " c"]]:
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
