"""Images and label images to files, without loss.

Shapes: `h` rows, `w` columns, `c` channels; `s` the lengths of an image, rows and columns, or of a volume, planes, rows
and columns. Volumes become stacks as ImageJ writes them, which name their axes and say how far apart slices are.
"""

from __future__ import annotations

import io
import zlib
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import tifffile
from jaxtyping import Bool, Integer, Shaped
from PIL import Image

from attractor.errors import InputError
from attractor.images.files import atomic

STRIP = 1 << 18  # bytes of a strip of labels

Writes: TypeAlias = Callable[[Path], AbstractContextManager[Path]]  # `atomic` or `durable`


def image_suffix(image: Shaped[np.ndarray, "*s c"], *, n_axes: int = 2) -> str:
    """The suffix under which `write_image` loses nothing of an image: .png if every program can read it, else .tif."""
    if n_axes == 3:
        return ".tif"
    is_plain = image.dtype == np.uint8 and image.shape[2] in (1, 3)
    return ".png" if is_plain or (image.dtype == np.uint16 and image.shape[2] == 1) else ".tif"


def write_image(
    path: str | Path,
    image: Shaped[np.ndarray, "*s c"],
    *,
    n_axes: int = 2,
    spacing: Sequence[float] | None = None,
) -> None:
    """Write an image to PNG or zlib-compressed TIFF without loss; see `image_suffix`.

    Args:
        path: of the file.
        image: of bytes, 16-bit whole numbers or 32-bit fractions.
        n_axes: three for a volume, which becomes a stack.
        spacing: of a volume, micrometres along each axis, if they are known.

    Raises:
        InputError: if the suffix cannot hold these pixels or the file cannot be written.
    """
    path = Path(path)
    if n_axes == 3:
        _write_stack(path, image, spacing)
        return
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


def _write_stack(path: Path, image: Shaped[np.ndarray, "d h w c"], spacing: Sequence[float] | None) -> None:
    """Write a volume; ImageJ puts channels between planes and rows."""
    if path.suffix.lower() not in (".tif", ".tiff"):
        raise InputError(f"{path}: volumes are written as TIFF stacks; name it .tif.")
    axes = "ZYX" if image.shape[3] == 1 else "ZCYX"
    pixels = image[..., 0] if image.shape[3] == 1 else np.moveaxis(image, 3, 1)
    with atomic(path) as temporary:
        tifffile.imwrite(temporary, pixels, compression="zlib", **_stack_tags(axes, spacing))


def _stack_tags(axes: str, spacing: Sequence[float] | None) -> dict[str, Any]:
    """What makes a TIFF a stack of ImageJ, with its voxels' size."""
    notes: dict[str, object] = {"axes": axes}
    if spacing is None:
        return {"imagej": True, "metadata": notes}
    depth, height, width = spacing
    return {"imagej": True, "metadata": notes | {"spacing": depth, "unit": "um"}, "resolution": (1 / width, 1 / height)}


def write_labels(
    path: str | Path,
    labels: Integer[np.ndarray, "*s"],
    *,
    spacing: Sequence[float] | None = None,
    through: Writes = atomic,
) -> None:
    """Write a label image to TIFF (zlib; uint16, or uint32 above 65,535) or, by suffix, to PNG (uint16).

    Args:
        path: of the file.
        labels: 0 is background.
        spacing: of a volume, micrometres along each axis, if they are known.
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
        if labels.ndim == 3:
            raise InputError(f"{path}: PNG holds one plane, and these labels are a volume; name the file .tif.")
        if highest > 65535:
            raise InputError(f"{path}: PNG holds labels up to 65,535, these go to {highest}; name the file .tif.")
        with through(path) as temporary:
            Image.fromarray(labels.astype(np.uint16)).save(temporary, "PNG")
    elif path.suffix.lower() in (".tif", ".tiff"):
        with through(path) as temporary, temporary.open("wb") as file:
            _write_labels(file, labels, highest, spacing)
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


def encode_labels(labels: Integer[np.ndarray, "*s"], *, spacing: Sequence[float] | None = None) -> bytes:
    """A label image of non-negative numbers as the content of a TIFF (zlib; uint16, or uint32 above 65,535).

    A volume becomes a stack of ImageJ, with its spacing in micrometres if that is known. ImageJ has no 32-bit whole
    numbers, so that a stack of more than 65,535 objects only names its axes.
    """
    file = io.BytesIO()
    _write_labels(file, labels, int(labels.max(initial=0)), spacing)
    return file.getvalue()


def _write_labels(
    file: BinaryIO | io.BytesIO, labels: Integer[np.ndarray, "*s"], highest: int, spacing: Sequence[float] | None
) -> None:
    """Write a label image strip by strip, without a copy of it, or a stack."""
    dtype = np.dtype(np.uint16 if highest <= 65535 else np.uint32)
    if labels.ndim == 3:
        tags = _stack_tags("ZYX", spacing) if dtype == np.uint16 else {"metadata": {"axes": "ZYX"}}
        tifffile.imwrite(file, labels.astype(dtype), compression="zlib", photometric="minisblack", **tags)
        return
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
