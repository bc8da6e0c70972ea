"""Labels while they are corrected: in memory, or, of a very large image, in a file that is mapped into it.

The system keeps of a mapped file what there is room for, and the disk has the rest. The file has no name, and is gone
with the process.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from attractor.images import read_labels
from attractor.images.parts import TiffLevel, in_parts
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
    is_large = parts is not None and 4 * parts.shape[0] * parts.shape[1] > IN_MEMORY
    if parts is None or not is_large or sys.platform == "win32":  # where a file that is open cannot be removed
        return read_labels(path)
    return _mapped(path, parts.levels[0], folder)


def _mapped(path: Path, image: TiffLevel, folder: Path) -> Int32[np.ndarray, "h w"]:
    with unfinished(folder) as scratch:
        with scratch.open("wb") as file:
            for _, band in label_bands(path, image):
                file.write(band.data)
        return np.memmap(scratch, np.int32, "r+", shape=image.shape[:2])


def is_on_disk(labels: Int32[np.ndarray, "h w"]) -> bool:
    """Whether labels are mapped."""
    return isinstance(labels, np.memmap)
