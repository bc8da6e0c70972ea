"""From a file to its pixels: the first bytes say which format it has.

Shapes: `c` channels; `s` the lengths of an image, rows and columns, or of a volume, planes, rows and columns; `r` rows.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Shaped

from attractor.errors import InputError
from attractor.images.arrays import as_image, as_labels
from attractor.images.damage import decoding, not_an_image
from attractor.images.files import existing, first_bytes
from attractor.images.jpeg import read_jpeg
from attractor.images.netpbm import read_netpbm
from attractor.images.parts import TiffLevel, in_parts
from attractor.images.pillow import read_bmp, read_gif, read_webp
from attractor.images.png import read_png, read_png_values
from attractor.images.tiff import SIGNATURES, is_tiff, n_axes_of_tiff, read_tiff, read_tiff_values
from attractor.images.volumes import is_volume, read_volume

Reader = Callable[[Path], Shaped[np.ndarray, "..."]]

PNG = b"\x89PNG\r\n\x1a\n"
READERS: dict[bytes, Reader] = {  # by how files begin
    PNG: read_png,
    **dict.fromkeys(SIGNATURES, read_tiff),
    b"\xff\xd8\xff": read_jpeg,
    b"RIFF": read_webp,
    b"BM": read_bmp,
    **dict.fromkeys((b"GIF87a", b"GIF89a"), read_gif),
    **dict.fromkeys((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6"), read_netpbm),
}
LABEL_READERS: dict[bytes, Reader] = {PNG: read_png_values, **dict.fromkeys(SIGNATURES, read_tiff_values)}


def read_image(path: str | Path, *, n_axes: int = 2, axes: str = "") -> Shaped[np.ndarray, "*s c"]:
    """The pixels of an image file as uint8, uint16 or float32, upright as viewers show it.

    Alpha is dropped, palette and CMYK become RGB, 1-bit becomes 0 and 255; 32-bit integers and float64 become
    float32. An orientation that a camera noted (EXIF, TIFF's tag) is applied.

    Args:
        path: of the file.
        n_axes: two for an image; three for a volume: a TIFF file that is a stack of slices, a folder of slices,
            OME-Zarr or HDF5.
        axes: a letter for each axis of a stack that does not name them: Z, Y, X, and C for channels.

    Raises:
        InputError: if the file is missing, damaged, no image, a stack where an image is wanted or the reverse, claims
            more pixels than it can hold, or has pixels that are not numbers.
    """
    if n_axes == 3 and is_volume(Path(path)):
        return as_image(read_volume(Path(path), axes, labels=False, read=read_image), name=str(path), n_axes=3)
    path = existing(path)
    with decoding(path):
        read = _chosen(READERS, path)
        if read is None:
            raise not_an_image(path)
        array = read(path) if n_axes == 2 and not axes else _stack(read, path, n_axes, axes)
    return as_image(array, name=str(path), n_axes=n_axes)


def n_axes_of(path: str | Path) -> int:
    """Three for a volume: a TIFF file that is a stack of slices, a folder, or HDF5; two for an image.

    Raises:
        InputError: if the file is missing or damaged in what lies in front of the pixels.
    """
    if is_volume(Path(path)):
        return 3
    path = existing(path)
    with decoding(path):
        return n_axes_of_tiff(path) if is_tiff(path) else 2


def _stack(read: Reader, path: Path, n_axes: int, axes: str) -> Shaped[np.ndarray, "*s c"]:
    """What a reader of TIFF gives for a file whose axes are chosen."""
    if read not in (read_tiff, read_tiff_values):
        if n_axes == 2:
            raise InputError(f"{path}: is one image, whose axes need no names; leave --axes out.")
        raise InputError(
            f"{path}: is one image and no volume; give a stack of slices, their folder with --axes ZYX, or take a "
            "model for images."
        )
    chosen: Shaped[np.ndarray, "*s c"] = read(path, n_axes=n_axes, axes=axes)
    return chosen


def image_shape(path: str | Path) -> tuple[int, int, int]:
    """Rows, columns and channels of what `read_image` gives; only small images, and some formats, are read for it.

    Raises:
        InputError: as `read_image`, but not for pixels that were not read.
    """
    parts = in_parts(path)
    height, width, channels = read_image(path).shape if parts is None else parts.shape
    return height, width, channels


def read_labels(path: str | Path, *, n_axes: int = 2, axes: str = "") -> Int32[np.ndarray, "*s"]:
    """The label image in a PNG or TIFF file, with its numbers as they are; a palette PNG gives its indices.

    Arguments are those of `read_image`.

    Raises:
        InputError: if it cannot be read, has several channels, fractions, negative labels or any above 2**31 - 1.
    """
    if n_axes == 3 and is_volume(Path(path)):
        volume = read_volume(Path(path), axes, labels=True, read=read_labels)
        _refuse_channels(volume.shape[1:], Path(path))
        return as_labels(volume[..., 0], str(path))
    path = existing(path)
    with decoding(path):
        read = _chosen(LABEL_READERS, path)
        if read is None:
            raise InputError(f"{path}: a label image must be a PNG or TIFF file; other formats change the numbers.")
        array = read(path) if n_axes == 2 and not axes else _stack(read, path, n_axes, axes)
    _refuse_channels(array.shape[n_axes - 2 :], path)
    return as_labels(array.reshape(array.shape[:n_axes]), str(path))


def read_label_rows(path: Path, image: TiffLevel, rows: slice) -> Int32[np.ndarray, "r w"]:
    """Some rows of a large label image.

    Raises:
        InputError: as `read_labels`.
    """
    _refuse_channels(image.shape, path)
    return as_labels(image.stored((rows, slice(0, image.shape[1])))[..., 0], str(path))


def _refuse_channels(shape: tuple[int, ...], path: Path) -> None:
    if len(shape) == 3 and shape[2] != 1:
        raise InputError(
            f"{path}: a label image must have one channel, this one has {shape[2]}; save the labels as numbers, "
            "one for each object, not as colours."
        )


def _chosen(readers: dict[bytes, Reader], path: Path) -> Reader | None:
    """The reader for files that begin like this one, if there is one."""
    start = first_bytes(path)
    return next((read for signature, read in readers.items() if start.startswith(signature)), None)
