"""PNG, with Pillow, or with imagecodecs if colours have 16 bits, which Pillow cuts to 8.

Pillow fills missing rows with black, and draws black if the palette is missing, so both are looked for.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Shaped
from PIL import Image
from PIL.PngImagePlugin import PngImageFile

from attractor.errors import InputError
from attractor.images.damage import damaged, refuse_too_large
from attractor.images.orientation import TAG, upright
from attractor.images.pillow import pixels

END = b"IEND\xaeB`\x82"  # the last chunk and its checksum
LIGHTEST = 255  # value of a channel; any other number would do that few last rows consist of
CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}  # of the colour types: grey, RGB, palette, and the first two with alpha
ADAM7 = (  # first row, first column, step of rows, step of columns of each pass
    (0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1),
)  # fmt: skip


def read_png(path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """Grey or colour, as stored, without alpha."""
    file = path.read_bytes()
    image = _checked(file, path)
    depth, colour = file[24], file[25]
    if depth == 16 and colour != 0:
        _refuse_missing_rows(image, file, path)
        array = _sixteen_bit_colour(file, path)
    else:
        _decode(image, file, path)
        array = pixels(image)
    return upright(array, image.getexif().get(TAG))


def read_png_values(path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """The numbers without alpha: palette indices, 0 and 1 of a bit image, grey values or colours."""
    file = path.read_bytes()
    image = _checked(file, path)
    if image.mode != "P":
        return read_png(path)
    _decode(image, file, path)
    return upright(np.asarray(image), image.getexif().get(TAG))


def _checked(file: bytes, path: Path) -> PngImageFile:
    """The image, not yet decoded, of a file that is whole."""
    image = PngImageFile(io.BytesIO(file))
    refuse_too_large(path, image.height, image.width, 10)
    PngImageFile(io.BytesIO(file)).verify()  # the checksum of every chunk
    if END not in file:
        raise damaged(path, "its end is missing")
    if image.mode == "P" and image.palette is None:
        raise InputError(f"{path}: is damaged (its palette is missing); copy or export it again.")
    return image


def _decode(image: PngImageFile, file: bytes, path: Path) -> None:
    """Refuse a file in which rows are missing, having let Pillow decode its pixels.

    Pillow leaves such rows as they were, and rows come one after another. So all begin as light as can be, and only if
    the last one still is, are the pixels unpacked a second time, to count them.
    """
    if image.info.get("interlace"):  # whose last row is not the last to come
        return _refuse_missing_rows(image, file, path)
    n = len(image.getbands())
    light = Image.new(image.mode, image.size, LIGHTEST if n == 1 else (LIGHTEST,) * n)
    last_row = 0, image.height - 1, *image.size
    before = np.array(light.crop(last_row))
    image.im = light.im
    image.load()
    if np.array_equal(before, np.asarray(image.crop(last_row))):
        _refuse_missing_rows(image, file, path)


def _refuse_missing_rows(image: PngImageFile, file: bytes, path: Path) -> None:
    needed = _n_bytes(file, *image.size, is_interlaced=bool(image.info.get("interlace")))
    if not _holds(file, needed):
        raise damaged(path, "rows are missing")


def _n_bytes(file: bytes, width: int, height: int, *, is_interlaced: bool) -> int:
    """Bytes that the pixels take before compression; each row has one in front for its filter."""
    bits = file[24] * CHANNELS[file[25]]
    parts = [
        (-(-(height - row) // down), -(-(width - column) // right))
        for row, column, down, right in (ADAM7 if is_interlaced else ((0, 0, 1, 1),))
    ]
    return sum(rows * (1 + -(-columns * bits // 8)) for rows, columns in parts if rows > 0 and columns > 0)


def _holds(file: bytes, needed: int) -> bool:
    """Whether the compressed pixels are that many bytes or more."""
    inflater, found = zlib.decompressobj(), 0
    for chunk in _pixel_chunks(file):
        while chunk and found < needed:
            found += len(inflater.decompress(chunk, 1 << 20))
            chunk = inflater.unconsumed_tail
    return found >= needed


def _pixel_chunks(file: bytes) -> Iterator[bytes]:
    """What is in each chunk named IDAT."""
    position = 8
    while position + 8 <= len(file):
        length, name = struct.unpack_from(">I4s", file, position)
        if name == b"IDAT":
            yield file[position + 8 : position + 8 + length]
        position += 12 + length


def _sixteen_bit_colour(file: bytes, path: Path) -> Shaped[np.ndarray, "h w c"]:
    """Grey or colour from a file with 16-bit colours, or 16-bit grey and alpha."""
    try:
        import imagecodecs  # not installed everywhere, and slow to import
    except ImportError as error:
        raise InputError(
            f"{path}: reading a PNG with 16-bit colours needs imagecodecs: pip install imagecodecs."
        ) from error
    array = imagecodecs.png_decode(file)
    n_colours = 1 if file[25] == 4 else 3
    return array.reshape(*array.shape[:2], -1)[
        ..., :n_colours
    ]  # what follows is alpha, or made from a transparent colour
