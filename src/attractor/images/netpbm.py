"""PBM, PGM and PPM, by netpbmfile: values as stored, of up to 16 bits, which Pillow rescales.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from netpbmfile import NetpbmFile

from attractor.errors import InputError
from attractor.images.damage import refuse_too_large


def read_netpbm(path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """Grey, RGB, or bits; a stored bit of 1 is black."""
    with NetpbmFile(
        io.BytesIO(path.read_bytes())
    ) as file:  # given a path, it would leave open a file that it cannot read
        refuse_too_large(path, file.height, file.width, 4 + 4 * file.depth * file.dtype.itemsize)
        if file.frames > 1:
            raise InputError(f"{path}: holds {file.frames} images; give one.")
        array = file.asarray()
        return ~array if file.magicnumber in ("P1", "P4") else array
