"""Labels while they are corrected: in memory, or, of a very large image, in a file that is mapped into it.

The system keeps of a mapped file what there is room for, and the disk has the rest. The file has no name, and is gone
with the process.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from attractor.images import read_labels
from attractor.images.parts import in_parts
from attractor.images.reading import label_bands
from attractor.images.unfinished import unfinished

IN_MEMORY = 1 << 29  # bytes of labels, at most; these of 11,500 x 11,500 pixels


def held_labels(path: Path, folder: Path) -> Int32[np.ndarray, "h w"]:
    """The labels of a file, which can be changed in place.

    Args:
        path: of the label image.
        folder: with room for four bytes a pixel.

    Raises:
        InputError: if the file cannot be read.
    """
    parts = in_parts(path)
    if parts is None:
        return read_labels(path)
    bands, shape = label_bands(path, parts.levels[0]), parts.shape[:2]
    if 4 * shape[0] * shape[1] <= IN_MEMORY or sys.platform == "win32":  # where an open file cannot be removed
        return _filled(bands, np.empty(shape, np.int32))
    return _mapped(bands, shape, folder)


def let_go(labels: Int32[np.ndarray, "h w"]) -> None:
    """Take labels that are mapped out of this process's memory; what is looked at next comes from the file."""
    memory = getattr(labels, "_mmap", None)
    if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)


def _filled(bands: Iterable[Int32[np.ndarray, "r w"]], labels: Int32[np.ndarray, "h w"]) -> Int32[np.ndarray, "h w"]:
    top = 0
    for band in bands:
        labels[top : top + len(band)] = band
        top += len(band)
    return labels


def _mapped(bands: Iterable[Int32[np.ndarray, "r w"]], shape: tuple[int, int], folder: Path) -> np.ndarray:
    with unfinished(folder) as scratch:
        with scratch.open("wb") as file:
            for band in bands:
                file.write(band.data)
        return np.memmap(scratch, np.int32, "r+", shape=shape)
