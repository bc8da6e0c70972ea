"""Values with 95 % bootstrap intervals over images: what other images of the same kind could have given.

Shapes: `i` images, `s` bootstrap samples, `t` values that are estimated together, such as one for each threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
from jaxtyping import Float

from attractor.errors import InputError

N_SAMPLES = 2000


@dataclass(frozen=True)
class Interval:
    """One value with its 95 % bootstrap interval over images."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Estimate:
    """Several values, each with its 95 % bootstrap interval over images."""

    value: Float[np.ndarray, " t"]
    low: Float[np.ndarray, " t"]
    high: Float[np.ndarray, " t"]

    def at(self, index: int) -> Interval:
        """One of the values, counted from 0."""
        return Interval(float(self.value[index]), float(self.low[index]), float(self.high[index]))


def bootstrap_weights(n: int, seed: int) -> Float[np.ndarray, "s n"]:
    """How often each of n images is drawn in each bootstrap sample."""
    drawn = np.random.default_rng(seed).integers(n, size=(N_SAMPLES, n))
    places = drawn + n * np.arange(N_SAMPLES)[:, None]
    return np.bincount(places.ravel(), minlength=N_SAMPLES * n).reshape(N_SAMPLES, n).astype(float)


def estimate(value: Float[np.ndarray, " t"], samples: Float[np.ndarray, "s t"]) -> Estimate:
    """A value with the middle 95 % of its bootstrap samples."""
    low, high = np.quantile(samples, (0.025, 0.975), axis=0)
    return Estimate(value, low, high)


def mean_over_images(values: Float[np.ndarray, "i t"], seed: int) -> Estimate:
    """Means of the values of images, of which there is at least one; the same for the same seed."""
    return estimate(values.mean(0), bootstrap_weights(len(values), seed) @ values / len(values))


@runtime_checkable
class Named(Protocol):
    """The scores of an image, with its name."""

    @property
    def name(self) -> str:
        """The image's stem."""


T = TypeVar("T", bound=Named)


def paired_by_name(a: Sequence[T], b: Sequence[T]) -> list[tuple[T, T]]:
    """The scores of each image in two results, in the order of the first.

    Args:
        a: scores of images, each with its `name`.
        b: scores of the same images, in any order.

    Raises:
        InputError: if there is no image, or the two do not hold the same images, each once.
    """
    if not a:
        raise InputError("There is no image to compare: a data set needs at least one.")
    other = {image.name: image for image in b}
    names = {image.name for image in a}
    if names != set(other):
        only = sorted(names ^ set(other))
        raise InputError(
            f"Only results on the same images can be compared; only one of the two has {', '.join(only[:3])}."
        )
    if len(a) != len(names) or len(b) != len(names):
        raise InputError("Images are paired by name, but some of these share a name.")
    return [(image, other[image.name]) for image in a]
