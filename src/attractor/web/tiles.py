"""Pieces of images and labels that a page can show: squares at full and halved resolutions.

Level 0 is the image itself; each further level has half its sides, rounded up. A tile of labels has a rim of one pixel
of its neighbours, so that outlines can be drawn without looking at them.

Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a tile.
"""

from __future__ import annotations

import io
import math
import threading
import zlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Shaped, UInt8
from PIL import Image

from attractor.errors import InputError
from attractor.images import read_image
from attractor.images.parts import LARGE, Level, Parts, in_parts
from attractor.web.pyramids import Values, halved, opened, part_of, shape_at, stored, values_of

SIDE = 512  # of a tile, in pixels of its level
MOST_HELD = 1 << 28  # bytes of pictures kept in memory
QUALITY = 85  # of WebP
WHITE = (255, 255, 255)


def levels(shape: tuple[int, int]) -> int:
    """How many levels there are, up to the one that is a single tile."""
    return max(0, math.ceil(math.log2(max(1, *shape) / SIDE))) + 1


@dataclass(frozen=True)
class Shown:
    """A channel, and how a page shows it."""

    channel: int  # counted from 0
    colour: tuple[int, int, int] | None = None  # of its greatest values; None for what is usual
    low: float | None = None  # the value shown as black; None for what is usual
    high: float | None = None  # and as white


def shown(text: str) -> tuple[Shown, ...]:
    """Channels as an address names them: `0,2`, or with colour and values, `0:ff00ff:100:4000,2:00ff00::`.

    Raises:
        InputError: if it is neither.
    """
    return tuple(_one_shown(part) for part in text.split(",") if part.strip())


def _one_shown(text: str) -> Shown:
    try:
        number, colour, low, high = (text.strip() + ":" * (3 if ":" not in text else 0)).split(":")
        red, green, blue = bytes.fromhex(colour) if colour else (0, 0, 0)
        values = [float(value) if value else None for value in (low, high)]
        if not number.isascii() or not number.isdecimal() or not all(np.isfinite(v) for v in values if v is not None):
            raise ValueError
    except ValueError as error:
        raise InputError(
            f"{text[:50]!r} names no channel; give its number, from 0, or number:colour:low:high, as in "
            "0:ff00ff:10:200 or 0::10:200."
        ) from error
    return Shown(int(number), (red, green, blue) if colour else None, *values)


@dataclass(frozen=True)
class Picture:
    """An image as a page shows it, at all levels."""

    pyramid: Mapping[int, Level]  # by how often sides are halved, with 0; those that lack are made when asked for
    values: Values

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.pyramid[0].shape[0], self.pyramid[0].shape[1]

    @property
    def channels(self) -> int:
        """Number of channels."""
        return int(self.pyramid[0].shape[2])

    @property
    def levels(self) -> int:
        """How many levels there are."""
        return levels(self.shape)

    @property
    def n_bytes(self) -> int:
        """What is held in memory."""
        return sum(level.nbytes for level in self.pyramid.values() if isinstance(level, np.ndarray))

    def tile(self, level: int, row: int, column: int, wanted: tuple[Shown, ...] = ()) -> bytes:
        """A tile as WebP.

        Args:
            level: 0 is the finest.
            row: of the tile, not of pixels.
            column: of the tile.
            wanted: channels; by default all that a screen can show.

        Raises:
            InputError: if there is no such tile or channel.
        """
        if not 0 <= level < self.levels:
            raise InputError(f"There is no level {level}; there are 0 to {self.levels - 1}.")
        if any(not 0 <= one.channel < self.channels for one in wanted):
            raise InputError(f"There is no such channel; there are 0 to {self.channels - 1}.")
        place = _place(shape_at(self.shape, level), row, column)
        usual = range(self.channels if self.channels in (1, 3) else 1)
        return _as_webp(self._mixed(part_of(self.pyramid, level, *place), wanted or tuple(map(Shown, usual))))

    def _mixed(self, part: Shaped[np.ndarray, "i j c"], wanted: tuple[Shown, ...]) -> UInt8[np.ndarray, "i j d"]:
        """Channels on a screen: without colours grey, two of them magenta and green, or red, green and blue."""
        chosen = [one.channel for one in wanted]
        low = np.array([self.values.low[one.channel] if one.low is None else one.low for one in wanted])
        high = np.array([self.values.high[one.channel] if one.high is None else one.high for one in wanted])
        span = np.maximum(high - low, 1e-9).astype(np.float32)
        light = ((part[..., chosen].astype(np.float32) - low.astype(np.float32)) / span).clip(0, 1)
        if any(one.colour is not None for one in wanted):
            light = (light @ np.array([one.colour or WHITE for one in wanted], np.float32) / 255).clip(0, 1)
        elif len(wanted) == 2:
            light = light[..., [0, 1, 0]]
        return np.asarray((255 * light[..., :3] + 0.5).astype(np.uint8))


def _place(shape: tuple[int, ...], row: int, column: int) -> tuple[slice, slice]:
    """The rows and columns of a tile.

    Raises:
        InputError: if there is no such tile.
    """
    top, left = row * SIDE, column * SIDE
    if not (0 <= top < shape[0] and 0 <= left < shape[1]):
        raise InputError(f"There is no tile in row {row} and column {column}.")
    return slice(top, min(top + SIDE, shape[0])), slice(left, min(left + SIDE, shape[1]))


def _as_webp(pixels: UInt8[np.ndarray, "i j d"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(file, "WEBP", quality=QUALITY, method=0)
    return file.getvalue()


def picture(image: Shaped[np.ndarray, "h w c"]) -> Picture:
    """The picture of an image that is held in memory."""
    pyramid = [image]
    for _ in range(levels((image.shape[0], image.shape[1])) - 1):
        pyramid.append(halved(pyramid[-1]))
    return Picture(dict(enumerate(pyramid)), values_of(image))


def label_tile(labels: Shaped[np.ndarray, "h w"], level: int, row: int, column: int) -> bytes:
    """A tile of labels and its rim: unsigned 32-bit numbers, least byte first, row by row, compressed by zlib.

    It has SIDE + 2 rows and columns, with 0 outside of the image. A coarser level has every second pixel, and so on.

    Raises:
        InputError: if there is no such tile or level.
    """
    if not 0 <= level < levels((labels.shape[0], labels.shape[1])):
        raise InputError(f"There is no level {level} of these labels.")
    coarse = labels[:: 1 << level, :: 1 << level]
    _place(coarse.shape, row, column)
    tile = np.zeros((SIDE + 2, SIDE + 2), "<u4")
    top, left = row * SIDE - 1, column * SIDE - 1
    part = coarse[max(top, 0) : top + SIDE + 2, max(left, 0) : left + SIDE + 2]
    down, right = max(-top, 0), max(-left, 0)
    tile[down : down + part.shape[0], right : right + part.shape[1]] = part
    return zlib.compress(tile.tobytes(), 1)


class Pictures:
    """Pictures of files: small ones in memory, as many as were used last, large ones in parts from the disk."""

    def __init__(self, folder: Path) -> None:
        """Begin with none.

        Args:
            folder: where smaller versions of large images are kept; it is made if there are any.
        """
        self.folder = folder
        self._held: OrderedDict[tuple[Path, int], Picture] = OrderedDict()
        self._mutex = threading.Lock()
        self._making = {False: threading.Lock(), True: threading.Lock()}  # of small pictures, and of large ones

    def __call__(self, path: Path) -> Picture:
        """The picture of a file.

        Raises:
            InputError: if it cannot be read.
        """
        key = path, path.stat().st_mtime_ns
        if (found := self._found(key)) is None:
            parts = in_parts(path)
            with self._making[parts is not None]:
                if (found := self._found(key)) is None:
                    found = self._read(path, parts)
                    self._hold(key, found)
        return found

    def _found(self, key: tuple[Path, int]) -> Picture | None:
        with self._mutex:
            if key in self._held:
                self._held.move_to_end(key)
            return self._held.get(key)

    def _hold(self, key: tuple[Path, int], one: Picture) -> None:
        with self._mutex:
            self._held[key] = one
            while len(self._held) > 1 and sum(held.n_bytes for held in self._held.values()) > MOST_HELD:
                self._held.popitem(last=False)

    def _read(self, path: Path, parts: Parts | None) -> Picture:
        folder = self.folder / path.stem
        if parts is not None:
            top = levels(parts.shape[:2]) - 1
            return Picture(*stored(path, parts.levels, top, folder, is_quick=parts.is_quick))
        if (found := opened(path, folder)) is not None:
            return Picture(*found)
        image = read_image(path)
        if image.nbytes <= LARGE:
            return picture(image)
        top = levels((image.shape[0], image.shape[1])) - 1
        return Picture(*stored(path, {0: image}, top, folder, is_quick=False))
