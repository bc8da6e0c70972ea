"""Images and label images to files, without loss.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import tifffile
from jaxtyping import Bool, Integer, Shaped
from PIL import Image

from attractor.errors import InputError
from attractor.images.files import atomic

STRIP = 1 << 18  # bytes of a strip of labels

Writes: TypeAlias = Callable[[Path], AbstractContextManager[Path]]  # `atomic` or `durable`


def image_suffix(image: Shaped[np.ndarray, "h w c"]) -> str:
    """The suffix under which `write_image` loses nothing of an image: .png if every program can read it, else .tif."""
    is_plain = image.dtype == np.uint8 and image.shape[2] in (1, 3)
    return ".png" if is_plain or (image.dtype == np.uint16 and image.shape[2] == 1) else ".tif"


def write_image(path: str | Path, image: Shaped[np.ndarray, "h w c"]) -> None:
    """Write an image to PNG or zlib-compressed TIFF without loss; see `image_suffix`.

    Raises:
        InputError: if the suffix cannot hold these pixels or the file cannot be written.
    """
    path = Path(path)
    pixels = image[..., 0] if image.shape[2] == 1 else image
    if path.suffix.lower() in (".tif", ".tiff"):
        colour = "rgb" if image.shape[2] == 3 and image.dtype != np.float32 else "minisblack"
        with atomic(path) as temporary:
            tifffile.imwrite(temporary, pixels, compression="zlib", photometric=colour, planarconfig="contig")
    elif path.suffix.lower() == ".png" and image_suffix(image) == ".png":
        with atomic(path) as temporary:
            Image.fromarray(pixels).save(temporary, "PNG")
    else:
        raise InputError(
            f"{path}: {image.shape[2]} channels of {image.dtype} cannot be written as "
            f"{path.suffix or 'a file without suffix'}; name it .tif."
        )


def write_labels(path: str | Path, labels: Integer[np.ndarray, "h w"], *, through: Writes = atomic) -> None:
    """Write a label image to TIFF (zlib; uint16, or uint32 above 65,535) or, by suffix, to PNG (uint16).

    Args:
        path: of the file.
        labels: 0 is background.
        through: `atomic`, or `durable`, which takes longer and survives a power cut.

    Raises:
        InputError: if there are negative labels, too many for a PNG, or the file cannot be written.
    """
    path = Path(path)
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=0))
    if lowest < 0:
        raise InputError(
            f"{path}: the label {lowest} cannot be written; labels are 0 for background and 1, 2, … for objects."
        )
    if path.suffix.lower() == ".png":
        if highest > 65535:
            raise InputError(f"{path}: PNG holds labels up to 65,535, these go to {highest}; name the file .tif.")
        with through(path) as temporary:
            Image.fromarray(labels.astype(np.uint16)).save(temporary, "PNG")
    elif path.suffix.lower() in (".tif", ".tiff"):
        with through(path) as temporary, temporary.open("wb") as file:
            _write_labels(file, labels, highest)
    else:
        raise InputError(
            f"{path}: label images are written as .tif or .png, not as {path.suffix or 'a file without suffix'}."
        )


def write_mask(path: str | Path, mask: Bool[np.ndarray, "h w"], *, through: Writes = atomic) -> None:
    """Write a yes or no for each pixel as a PNG of bits; `through` is as for `write_labels`.

    Raises:
        InputError: if the file cannot be written.
    """
    with through(Path(path)) as temporary:
        Image.fromarray(mask).save(temporary, "PNG")


def encode_labels(labels: Integer[np.ndarray, "h w"]) -> bytes:
    """A label image of non-negative numbers as the content of a TIFF (zlib; uint16, or uint32 above 65,535)."""
    file = io.BytesIO()
    _write_labels(file, labels, int(labels.max(initial=0)))
    return file.getvalue()


def _write_labels(file: BinaryIO | io.BytesIO, labels: Integer[np.ndarray, "h w"], highest: int) -> None:
    """Write a label image strip by strip, without a copy of it."""
    dtype = np.dtype(np.uint16 if highest <= 65535 else np.uint32)
    rows = max(1, STRIP // max(1, labels.shape[1] * dtype.itemsize))
    tops = range(0, labels.shape[0], rows)
    strips = (zlib.compress(labels[top : top + rows].astype(dtype).tobytes()) for top in tops)
    tifffile.imwrite(
        file,
        strips if labels.size else labels.astype(dtype),
        shape=labels.shape,
        dtype=dtype,
        rowsperstrip=rows,
        compression="zlib",
        photometric="minisblack",
    )
