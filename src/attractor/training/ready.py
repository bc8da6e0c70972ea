"""Images that are ready for crops to be cut out of them: in memory, or in files that are read where a crop needs them.

Shapes: `c` channels, `s` the lengths of an image or volume along its `a` axes, `k` objects.
"""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float16, Float64, Int32
from scipy import ndimage
from torch import Tensor

from attractor.datasets import Sample

SPARE = 1 << 30  # bytes that stay free on a disk on which images are kept
Tensors = tuple[Float16[Tensor, "c *s"], Int32[Tensor, "*s"], Bool[Tensor, "*s"]]


@runtime_checkable
class Ready(Protocol):
    """An image as the network will see it, and what crops need of its annotation."""

    @property
    def sample(self) -> Sample:
        """The sample without its pixels and labels."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; of a volume, planes first."""

    @property
    def centres(self) -> Float64[np.ndarray, "k a"]:
        """Mean place of each object along each axis; NaN where it has no pixel."""

    def tensors(self) -> Tensors:
        """The image, its labels, and whether each pixel counts."""

    def counts(self, place: tuple[int, ...]) -> bool:
        """Whether a pixel counts: the annotation says what it is."""


@dataclass(frozen=True)
class InMemory:
    """Such an image in arrays: tensors would cost a process that is given them a file descriptor each."""

    image: Float16[np.ndarray, "c *s"]
    labels: Int32[np.ndarray, "*s"]
    valid: Bool[np.ndarray, "*s"]
    centres: Float64[np.ndarray, "k a"]
    sample: Sample

    @classmethod
    def of(
        cls,
        image: Float16[np.ndarray, "c *s"],
        labels: Int32[np.ndarray, "*s"],
        ignore: Bool[np.ndarray, "*s"],
        sample: Sample,
    ) -> InMemory:
        """From image and annotation at the network's scale."""
        nothing = np.empty((0, 0), np.int32)
        without = dataclasses.replace(
            sample, image=np.empty((0, 0, 0), np.uint8), labels=nothing, ignore=nothing.astype(bool), annotate=None
        )
        return cls(image, labels, ~ignore, _centres(labels, len(sample.classes)), without)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns; of a volume, planes first."""
        return self.labels.shape

    def tensors(self, device: torch.device | None = None) -> Tensors:
        """The image, its labels, and whether each pixel counts."""
        arrays = self.image, self.labels, self.valid
        image, labels, valid = (torch.from_numpy(array).to(device or "cpu") for array in arrays)
        return image, labels, valid

    def counts(self, place: tuple[int, ...]) -> bool:
        """Whether a pixel counts."""
        return bool(self.valid[place])


@dataclass(frozen=True)
class OnDisk:
    """Such an image in three files, which are mapped, so that a crop reads no more than its own part."""

    folder: Path
    shape: tuple[int, ...]
    centres: Float64[np.ndarray, "k a"]
    sample: Sample

    @classmethod
    def kept(cls, ready: InMemory, folder: Path) -> OnDisk:
        """Write the files to a folder that does not exist yet."""
        folder.mkdir()
        for name in ("image", "labels", "valid"):
            np.save(folder / f"{name}.npy", getattr(ready, name))
        return cls(folder, ready.shape, ready.centres, ready.sample)

    def tensors(self) -> Tensors:
        """The image, its labels, and whether each pixel counts."""
        names = ("image", "labels", "valid")  # "c": torch warns of memory that nobody may write
        image, labels, valid = (torch.from_numpy(np.load(self.folder / f"{name}.npy", "c")) for name in names)
        return image, labels, valid

    def counts(self, place: tuple[int, ...]) -> bool:
        """Whether a pixel counts."""
        return bool(np.load(self.folder / "valid.npy", "r")[place])


def kept_on_disk(ready: Iterable[InMemory], n_bytes: int, room: Callable[[], Path], place: Path) -> list[OnDisk] | None:
    """All images in files; None if there is not enough room for them.

    Args:
        ready: the images, which are made one after another.
        n_bytes: that they take.
        room: makes an empty folder for them.
        place: where that folder will be.
    """
    if shutil.disk_usage(place).free < n_bytes + SPARE:
        return None
    folder = room()
    return [OnDisk.kept(image, folder / f"{index:06d}") for index, image in enumerate(ready)]


def _centres(labels: Int32[np.ndarray, "*s"], n: int) -> Float64[np.ndarray, "k a"]:
    found: Float64[np.ndarray, "k a"] = np.full((n, labels.ndim), np.nan)
    for k, box in enumerate(ndimage.find_objects(labels, n)):
        if box is not None:
            places = np.nonzero(labels[box] == k + 1)
            found[k] = [side.start + own.mean() for side, own in zip(box, places, strict=True)]
    return found
