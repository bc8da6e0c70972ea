"""JPEG, with simplejpeg, which refuses data that end early; other libraries fill the rest with grey.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import simplejpeg
from jaxtyping import UInt8
from PIL.JpegImagePlugin import JpegImageFile

from attractor.images.damage import refuse_too_large
from attractor.images.orientation import TAG, upright
from attractor.images.pillow import pixels

HARMLESS = "extraneous bytes"  # between two parts; some cameras and scanners leave them, and no pixel is lost


def read_jpeg(path: Path) -> UInt8[np.ndarray, "h w *c"]:
    """Grey or RGB, upright."""
    file = path.read_bytes()
    with JpegImageFile(io.BytesIO(file)) as image:
        refuse_too_large(path, image.height, image.width, 10)
        array = _decoded(file, "GRAY" if image.mode == "L" else "RGB")
        if image.mode == "CMYK":  # whose inks Pillow knows how to mix
            array = pixels(image)
        return upright(array, image.getexif().get(TAG))


def _decoded(file: bytes, colours: str) -> UInt8[np.ndarray, "h w c"]:
    """The pixels, if all of them are there."""
    try:
        return simplejpeg.decode_jpeg(file, colours, strict=True)
    except ValueError as error:
        if HARMLESS not in str(error):
            raise
        return simplejpeg.decode_jpeg(file, colours, strict=False)
