"""Images and label images to files, without loss.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Bool, Integer, Shaped
from PIL import Image

from attractor.errors import InputError
from attractor.images.files import atomic


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


def write_labels(path: str | Path, labels: Integer[np.ndarray, "h w"]) -> None:
    """Write a label image to TIFF (zlib; uint16, or uint32 above 65,535) or, by suffix, to PNG (uint16).

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
        with atomic(path) as temporary:
            Image.fromarray(labels.astype(np.uint16)).save(temporary, "PNG")
    elif path.suffix.lower() in (".tif", ".tiff"):
        with atomic(path) as temporary:
            temporary.write_bytes(encode_labels(labels))
    else:
        raise InputError(
            f"{path}: label images are written as .tif or .png, not as {path.suffix or 'a file without suffix'}."
        )


def encode_labels(labels: Integer[np.ndarray, "h w"]) -> bytes:
    """A label image of non-negative numbers as the content of a TIFF (zlib; uint16, or uint32 above 65,535)."""
    file = io.BytesIO()
    numbers = labels.astype(np.uint16 if labels.max(initial=0) <= 65535 else np.uint32)
    tifffile.imwrite(file, numbers, compression="zlib", photometric="minisblack")
    return file.getvalue()


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> bytes:
    """A mask as the content of a PNG of 0 and 255."""
    file = io.BytesIO()
    Image.fromarray(255 * mask.astype(np.uint8)).save(file, "PNG", compress_level=1)
    return file.getvalue()
