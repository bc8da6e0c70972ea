"""Images that are ready for crops to be cut out of them: in memory, or in files that are read where a crop needs them.

Shapes: `c` channels, `h` rows, `w` columns, `k` objects.
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
Tensors = tuple[Float16[Tensor, "c h w"], Int32[Tensor, "h w"], Bool[Tensor, "h w"]]


@runtime_checkable
class Ready(Protocol):
    """An image as the network will see it, and what crops need of its annotation."""

    @property
    def sample(self) -> Sample:
        """The sample without its pixels and labels."""

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""

    @property
    def centres(self) -> Float64[np.ndarray, "k 2"]:
        """Mean row and column of each object; NaN where it has no pixel."""

    def tensors(self) -> Tensors:
        """The image, its labels, and whether each pixel counts."""

    def counts(self, row: int, column: int) -> bool:
        """Whether a pixel counts: the annotation says what it is."""


@dataclass(frozen=True)
class InMemory:
    """Such an image in arrays: tensors would cost a process that is given them a file descriptor each."""

    image: Float16[np.ndarray, "c h w"]
    labels: Int32[np.ndarray, "h w"]
    valid: Bool[np.ndarray, "h w"]
    centres: Float64[np.ndarray, "k 2"]
    sample: Sample

    @classmethod
    def of(
        cls,
        image: Float16[np.ndarray, "c h w"],
        labels: Int32[np.ndarray, "h w"],
        ignore: Bool[np.ndarray, "h w"],
        sample: Sample,
    ) -> InMemory:
        """From image and annotation at the network's scale."""
        nothing = np.empty((0, 0), np.int32)
        without = dataclasses.replace(
            sample, image=np.empty((0, 0, 0), np.uint8), labels=nothing, ignore=nothing.astype(bool), annotate=None
        )
        return cls(image, labels, ~ignore, _centres(labels, len(sample.classes)), without)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.labels.shape[0], self.labels.shape[1]

    def tensors(self, device: torch.device | None = None) -> Tensors:
        """The image, its labels, and whether each pixel counts."""
        arrays = self.image, self.labels, self.valid
        image, labels, valid = (torch.from_numpy(array).to(device or "cpu") for array in arrays)
        return image, labels, valid

    def counts(self, row: int, column: int) -> bool:
        """Whether a pixel counts."""
        return bool(self.valid[row, column])


@dataclass(frozen=True)
class OnDisk:
    """Such an image in three files, which are mapped, so that a crop reads no more than its own part."""

    folder: Path
    shape: tuple[int, int]
    centres: Float64[np.ndarray, "k 2"]
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

    def counts(self, row: int, column: int) -> bool:
        """Whether a pixel counts."""
        return bool(np.load(self.folder / "valid.npy", "r")[row, column])


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


def _centres(labels: Int32[np.ndarray, "h w"], n: int) -> Float64[np.ndarray, "k 2"]:
    found: Float64[np.ndarray, "k 2"] = np.full((n, 2), np.nan)
    for k, box in enumerate(ndimage.find_objects(labels, n)):
        if box is not None:
            places = np.nonzero(labels[box] == k + 1)
            found[k] = [side.start + own.mean() for side, own in zip(box, places, strict=True)]
    return found
