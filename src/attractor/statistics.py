"""Sizes of the objects and images of a data set, by which methods and recipes suit themselves to it.

Shapes: `k` objects, `m` images or volumes, `a` axes: two, or three of a volume.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Float, Int

from attractor.errors import InputError

TINY = 2  # pixels; an object of this size has no centre to be drawn to
LARGE = 45  # pixels; objects of a typical size above this are shown to the network smaller
COARSE = 30  # the typical size that they then have
SIDES = {2: (128, 512), 3: (64, 160)}  # least and greatest side of crops by default, by number of axes
LEAST_DEPTH = 16  # planes of a crop of a volume
PERCENTILES = (0.5, 5, 50, 95, 99.5)
USUAL = (10, 90)  # percentiles of the images' typical sizes: a few images may be unlike all others


@dataclass(frozen=True)
class ObjectStatistics:
    """Sizes of all objects and images of a data set, in pixels; nothing here depends on the images' order."""

    areas: Int[np.ndarray, " k"]
    extents: Int[np.ndarray, "k a"]  # sides of each object's bounding box: rows and columns; of volumes, planes first
    image_sizes: Int[np.ndarray, "m a"]  # sides of each image
    classes: Int[np.ndarray, " _"] = field(default_factory=lambda: np.zeros(0, np.int64))  # of each object, from 1
    n_classes: int = 1
    spacings: tuple[tuple[float, ...] | None, ...] = ()  # of each volume, in micrometres; None where not known

    @property
    def n_axes(self) -> int:
        """Two for images, three for volumes."""
        return int(self.image_sizes.shape[1])

    @property
    def spacing(self) -> tuple[float, ...] | None:
        """Micrometres of a step along each axis, the median over those volumes for which they are known, if any."""
        known = [spacing for spacing in self.spacings if spacing is not None]
        return tuple(float(np.median(along)) for along in zip(*known, strict=True)) if known else None

    @property
    def count(self) -> int:
        """Number of objects."""
        return len(self.areas)

    @property
    def images(self) -> int:
        """Number of images."""
        return len(self.image_sizes)

    @property
    def area_percentiles(self) -> dict[float, float]:
        """Area at the percentiles of PERCENTILES; empty without objects."""
        if not self.count:
            return {}
        return dict(zip(PERCENTILES, np.percentile(self.areas, PERCENTILES).tolist(), strict=True))

    @property
    def class_shares(self) -> Float[np.ndarray, " c"]:
        """For each class, the share of all pixels that its objects have."""
        pixels = np.bincount(self.classes, self.areas[: len(self.classes)], self.n_classes + 1)[1:]
        return np.asarray(pixels / max(self.image_sizes.prod(axis=1).sum(), 1))

    @property
    def typical_size(self) -> float:
        """Median diameter of circles with the objects' areas, or of balls with their volumes; NaN without objects."""
        if self.n_axes == 3 and self.count:
            steps = self.spacing or (1.0,) * 3
            cubes = self.areas * (steps[0] * steps[1] / steps[2] ** 2)  # volumes, in cubes of a step along columns
            return float(np.median(np.cbrt(6 * cubes / np.pi)))
        return float(np.median(2 * np.sqrt(self.areas / np.pi))) if self.count else float("nan")

    @property
    def scale(self) -> float:
        """The magnification at which a network sees large objects whole within its crops; 1 for all others."""
        return round(COARSE / self.typical_size, 2) if self.typical_size > LARGE else 1.0

    def scaled(self, factor: float) -> ObjectStatistics:
        """The sizes of the same objects and images magnified by a factor."""
        areas = np.maximum(1, np.round(self.areas * factor**self.n_axes)).astype(np.int64)
        extents, sizes = (np.maximum(1, np.round(n * factor)).astype(int) for n in (self.extents, self.image_sizes))
        return self if factor == 1 else replace(self, areas=areas, extents=extents, image_sizes=sizes)

    @property
    def crop_size(self) -> int:
        """Side of training crops: twice the extent of 95 % of the objects, as a multiple of 8 from 128 to 512.

        It is no larger than the smaller side of nine images in ten, and 256 at most without objects. Of volumes, it is
        that of the rows and columns, from 64 to 160.
        """
        return self._side(self.extents[:, -2:], self.image_sizes[:, -2:], *SIDES[self.n_axes])

    @property
    def crop_depth(self) -> int:
        """Planes of training crops of volumes, one and a half times what 95 % of the objects have, from 16; else 0."""
        if self.n_axes == 2:
            return 0
        return self._side(self.extents[:, :1], self.image_sizes[:, :1], LEAST_DEPTH, SIDES[3][1], times=1.5)

    def _side(
        self, extents: Int[np.ndarray, "k _"], sizes: Int[np.ndarray, "m _"], least: int, most: int, *, times: float = 2
    ) -> int:
        wanted = times * np.percentile(extents.max(axis=1), 95) if self.count else 256
        side = int(np.clip(-(-wanted // 8) * 8, least, most))
        if not self.images:
            return side
        available = int(np.percentile(sizes.min(axis=1), 10, method="lower"))
        return max(min(side, available // 8 * 8), 8)

    @property
    def rarity(self) -> float:
        """Background pixels for each pixel of an object, over all images together; 0 without objects."""
        inside = float(self.areas.sum())
        return (float(self.image_sizes.prod(axis=1).sum()) - inside) / inside if inside else 0.0

    @property
    def min_object(self) -> int:
        """The fewest pixels that a found object should have: 99.5 % of true objects have that many; above TINY."""
        return max(int(np.percentile(self.areas, 0.5)), TINY + 1) if self.count else TINY + 1


def to_other_sizes(parts: Sequence[ObjectStatistics], most: float) -> list[tuple[float, float]]:
    """The least and the greatest magnification of each image that give its objects the sizes of those in the others.

    Args:
        parts: the objects of each image; one without any stays as it is.
        most: the largest factor by which an image is reduced or magnified; from 1.
    """
    sizes = np.array([part.typical_size for part in parts] if most > 1 else [], float)
    if np.isnan(sizes).all():
        return [(1.0, 1.0)] * len(parts)
    smallest, largest = np.nanpercentile(sizes, USUAL)
    least = np.clip(np.nan_to_num(smallest / sizes, nan=1.0), 1 / most, 1.0)
    greatest = np.clip(np.nan_to_num(largest / sizes, nan=1.0), 1.0, most)
    return list(zip(least.tolist(), greatest.tolist(), strict=True))


def joined(parts: Sequence[ObjectStatistics], n_classes: int) -> ObjectStatistics:
    """The statistics of several images or data sets in one record.

    Raises:
        InputError: if there are both images and volumes.
    """
    numbers = {part.n_axes for part in parts}
    if len(numbers) > 1:
        raise InputError(
            "The data set has both images and volumes, and a model takes one or the other; give each its own folder."
        )
    none, no_pairs = np.zeros(0, np.int64), np.zeros((0, max(numbers, default=2)), np.int64)
    return ObjectStatistics(
        areas=np.concatenate([none, *(part.areas for part in parts)]),
        extents=np.concatenate([no_pairs, *(part.extents for part in parts)]),
        image_sizes=np.concatenate([no_pairs, *(part.image_sizes for part in parts)]),
        classes=np.concatenate([none, *(part.classes for part in parts)]),
        n_classes=n_classes,
        spacings=tuple(spacing for part in parts for spacing in part.spacings),
    )
