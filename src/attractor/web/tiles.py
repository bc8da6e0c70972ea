"""Pieces of images and labels that a page can show: squares at full and halved resolutions.

Level 0 is the image itself; each further level has half its sides. A tile of labels has a rim of one pixel of its
neighbours, so that outlines can be drawn without looking at them.

Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a tile.
"""

from __future__ import annotations

import io
import math
import threading
import zlib
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Shaped, UInt8
from PIL import Image

from attractor.errors import InputError
from attractor.images import read_image
from attractor.normalisation import Normalisation

SIDE = 512  # of a tile, in pixels of its level
MOST_HELD = 1 << 30  # bytes of pictures kept
QUALITY = 85  # of WebP


def levels(shape: tuple[int, int]) -> int:
    """How many levels there are, up to the one that is a single tile."""
    return max(0, math.ceil(math.log2(max(1, *shape) / SIDE))) + 1


@dataclass(frozen=True)
class Picture:
    """An image as a page shows it, at all levels."""

    pyramid: tuple[Shaped[np.ndarray, "_ _ c"], ...]  # from fine to coarse
    low: Float[np.ndarray, " c"]  # the values shown as black and as white, by default
    high: Float[np.ndarray, " c"]

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pyramid[0].shape[0], self.pyramid[0].shape[1]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.pyramid[0].shape[2])

    def tile(self, level: int, row: int, column: int, shown: tuple[int, ...] = ()) -> bytes:
        """A tile as WebP.

        Args:
            level: 0 is the finest.
            row: of the tile, not of pixels.
            column: of the tile.
            shown: channels, counted from 0; by default all that a screen can show.

        Raises:
            InputError: if there is no such tile or channel.
        """
        if not 0 <= level < len(self.pyramid):
            raise InputError(f"There is no level {level}; there are 0 to {len(self.pyramid) - 1}.")
        if any(not 0 <= channel < self.channels for channel in shown):
            raise InputError(f"There is no such channel; there are 0 to {self.channels - 1}.")
        part = _part(self.pyramid[level], row, column)
        wanted = list(shown) or list(range(self.channels if self.channels in (1, 3) else 1))
        span = np.maximum(self.high - self.low, 1e-9)[wanted]
        grey = ((part[..., wanted].astype(np.float32) - self.low[wanted]) / span).clip(0, 1)
        return _as_webp((255 * grey + 0.5).astype(np.uint8))


def _part(array: Shaped[np.ndarray, "..."], row: int, column: int) -> Shaped[np.ndarray, "..."]:
    """The pixels of a tile."""
    part = array[row * SIDE : (row + 1) * SIDE, column * SIDE : (column + 1) * SIDE] if min(row, column) >= 0 else None
    if part is None or not part.size:
        raise InputError(f"There is no tile in row {row} and column {column}.")
    return part


def _as_webp(pixels: UInt8[np.ndarray, "i j c"]) -> bytes:
    file = io.BytesIO()
    if pixels.shape[2] == 2:  # magenta and green
        pixels = np.stack([pixels[..., 0], pixels[..., 1], pixels[..., 0]], axis=-1)
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels[..., :3]).save(
        file, "WEBP", quality=QUALITY, method=0
    )
    return file.getvalue()


def picture(image: Shaped[np.ndarray, "h w c"]) -> Picture:
    """The picture of an image; colours of 8 bits are shown as they are, other values by their percentiles."""
    pyramid = [image]
    for _ in range(levels((image.shape[0], image.shape[1])) - 1):
        pyramid.append(_halved(pyramid[-1]))
    if image.dtype == np.uint8 and image.shape[2] == 3:
        low, high = np.zeros(3), np.full(3, 255.0)
    else:
        low, scale = Normalisation().limits(image)
        low, high = (np.broadcast_to(np.ravel(x), image.shape[2]).astype(float) for x in (low, low + scale))
    return Picture(tuple(pyramid), low, high)


def _halved(image: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "_ _ c"]:
    """The mean of each two by two pixels; an odd row or column at the end is left out, unless it is all there is."""
    rows, columns = (max(1, n // 2) for n in image.shape[:2])
    parts = [image[i::2, j::2][:rows, :columns] for i in (0, 1) for j in (0, 1)]
    parts = [part if part.shape[:2] == (rows, columns) else parts[0] for part in parts]
    total = np.zeros(parts[0].shape, np.float32)
    for part in parts:
        total += part
    return np.asarray((total / 4).astype(image.dtype))


def label_tile(labels: Shaped[np.ndarray, "h w"], level: int, row: int, column: int) -> bytes:
    """A tile of labels and its rim: unsigned 32-bit numbers, least byte first, row by row, compressed by zlib.

    It has SIDE + 2 rows and columns, with 0 outside of the image. A coarser level has every second pixel, and so on.

    Raises:
        InputError: if there is no such tile or level.
    """
    if not 0 <= level < levels((labels.shape[0], labels.shape[1])):
        raise InputError(f"There is no level {level} of these labels.")
    coarse = labels[:: 1 << level, :: 1 << level]
    _part(coarse, row, column)
    tile = np.zeros((SIDE + 2, SIDE + 2), "<u4")
    top, left = row * SIDE - 1, column * SIDE - 1
    part = coarse[max(top, 0) : top + SIDE + 2, max(left, 0) : left + SIDE + 2]
    down, right = max(-top, 0), max(-left, 0)
    tile[down : down + part.shape[0], right : right + part.shape[1]] = part
    return zlib.compress(tile.tobytes(), 1)


class Pictures:
    """Pictures of files, the last used of which are kept."""

    def __init__(self) -> None:
        """Begin with none."""
        self._held: OrderedDict[Path, Picture] = OrderedDict()
        self._mutex = threading.Lock()

    def __call__(self, path: Path) -> Picture:
        """The picture of a file.

        Raises:
            InputError: if it cannot be read.
        """
        with self._mutex:
            if path not in self._held:
                self._held[path] = picture(read_image(path))
                while len(self._held) > 1 and self._bytes() > MOST_HELD:
                    self._held.popitem(last=False)
            self._held.move_to_end(path)
            return self._held[path]

    def _bytes(self) -> int:
        return sum(part.nbytes for held in self._held.values() for part in held.pyramid)
