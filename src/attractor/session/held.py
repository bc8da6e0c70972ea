"""Labels while they are corrected: in memory, or, of a very large image, in a file that is mapped into it.

The system keeps of a mapped file what there is room for, and the disk has the rest. The file has no name, and is gone
with the process.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

import mmap
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

import numpy as np
from jaxtyping import Int32

from attractor.errors import InputError
from attractor.images import read_labels
from attractor.images.parts import in_parts
from attractor.images.reading import read_label_rows
from attractor.images.unfinished import unfinished
from attractor.shortage import cure

BAND = 1 << 20  # pixels that are read at once
THREADS = min(4, os.cpu_count() or 1)
LET_GO = 32  # bands after which mapped ones leave this process's memory
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
    image, n_bytes = parts.levels[0], 4 * parts.shape[0] * parts.shape[1]
    if n_bytes <= IN_MEMORY or sys.platform == "win32":  # where a file that is open cannot be removed
        labels = np.empty(parts.shape[:2], np.int32)
    else:
        labels = _mapped(parts.shape[:2], folder)
    rows = max(1, BAND // parts.shape[1])

    def fill(top: int) -> None:
        part = slice(top, min(top + rows, parts.shape[0]))
        labels[part] = read_label_rows(path, image, part)

    with ThreadPoolExecutor(THREADS) as pool:
        for number, _ in enumerate(pool.map(fill, range(0, parts.shape[0], rows))):
            if number % LET_GO == 0:
                let_go(labels)
    return labels


def let_go(labels: Int32[np.ndarray, "h w"]) -> None:
    """Take labels that are mapped out of this process's memory; what is looked at next comes from the file."""
    memory = getattr(labels, "_mmap", None)
    if isinstance(memory, mmap.mmap) and hasattr(mmap, "MADV_DONTNEED"):
        memory.madvise(mmap.MADV_DONTNEED)


def _mapped(shape: tuple[int, int], folder: Path) -> Int32[np.ndarray, "h w"]:
    """Zeros in a file of their own.

    Raises:
        InputError: if there is no room for it.
    """
    try:
        with unfinished(folder) as scratch:
            with scratch.open("wb") as file:
                _reserve(file, 4 * shape[0] * shape[1])
            return np.memmap(scratch, np.int32, "r+", shape=shape)
    except OSError as error:
        raise InputError(
            f"{folder}: has no room for the labels of {shape[0]:,} x {shape[1]:,} pixels while they are corrected: "
            f"{error.strerror}; {cure(error) or 'check the folder'}."
        ) from error


def _reserve(file: BinaryIO, n_bytes: int) -> None:
    """Make a file as large as it will be; a disk that is full must not be found out while the file is mapped."""
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), 0, n_bytes)
    else:
        file.truncate(n_bytes)
