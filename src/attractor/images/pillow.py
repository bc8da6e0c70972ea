"""WebP, BMP and GIF, and pixels out of Pillow.

Pillow's classes are called by name, since `Image.open` refuses any large image, not only those that small files claim.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.Image import Image
from PIL.WebPImagePlugin import WebPImageFile

from attractor.errors import InputError
from attractor.images.damage import refuse_too_large
from attractor.images.orientation import TAG, upright

STRIP = 1 << 22  # pixels that are taken from Pillow at once


def read_webp(path: Path) -> Shaped[np.ndarray, "h w c"]:
    """RGB, upright."""
    with WebPImageFile(path) as image:
        refuse_too_large(path, image.height, image.width, 20)  # it decodes into a canvas with another behind it
        _refuse_animation(image, path)
        return upright(pixels(image), image.getexif().get(TAG))


def read_bmp(path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """Grey or RGB."""
    with BmpImageFile(path) as image:
        refuse_too_large(path, image.height, image.width, 10)
        return pixels(image)


def read_gif(path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """Grey or RGB."""
    with GifImageFile(path) as image:
        refuse_too_large(path, image.height, image.width, 10)
        _refuse_animation(image, path)
        return pixels(image)


def _refuse_animation(image: WebPImageFile | GifImageFile, path: Path) -> None:
    if image.n_frames > 1:
        raise InputError(f"{path}: is an animation of {image.n_frames} frames; give one frame.")


def pixels(image: Image) -> Shaped[np.ndarray, "h w *c"]:
    """The pixels of an image that Pillow opened: bits, grey of 8 or 16 bits, integers, fractions or RGB.

    They are taken strip by strip, since Pillow makes two copies of what it gives.
    """
    image.load()
    rows = max(1, STRIP // image.width)
    array = None
    for top in range(0, image.height, rows):
        part = image if rows >= image.height else image.crop((0, top, image.width, min(top + rows, image.height)))
        strip = np.asarray(_plain(part))
        if array is None:
            array = np.empty((image.height, *strip.shape[1:]), strip.dtype)
        array[top : top + rows] = strip
    if array is None:
        raise InputError(f"The image has {image.height} x {image.width} pixels; at least one is needed.")
    return array


def _plain(image: Image) -> Image:
    """The image without palette, alpha and inks."""
    if image.mode in ("1", "L", "I", "F", "RGB") or image.mode.startswith("I;16"):
        return image
    return image.convert("L" if image.mode in ("LA", "La") else "RGB")
