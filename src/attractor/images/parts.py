"""Large images part by part: TIFF files whose tiles, strips or bytes can be read where they are wanted.

What is read is what `read_image` gives for the same pixels. Smaller versions of the image that the file holds (in
SubIFDs or as further pages, as slide scanners and OME-TIFF have them) are found, too.

Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a part.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, runtime_checkable

import numpy as np
import tifffile
from jaxtyping import Shaped

from attractor.images.arrays import as_image
from attractor.images.damage import decoding
from attractor.images.files import existing
from attractor.images.orientation import TAG
from attractor.images.tiff import RGB_WHEN_DECODED, alpha_of, checked, is_tiff, opened

LARGE = 1 << 26  # bytes of pixels; what has fewer is read whole
QUICK_PART = 1 << 22  # bytes of a tile, up to which any place is quickly read
MOST_PART = 1 << 26  # bytes of a strip, above which a file is no better than one that is read whole
JPEG = (6, 7, 34892, 33007)  # compressions that need the file's tables


@runtime_checkable
class Level(Protocol):
    """Pixels that can be taken out part by part: an array, or a file."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what is taken out."""

    def __getitem__(self, part: tuple[slice, slice], /) -> Any:
        """The pixels in some rows and columns, all channels."""


@dataclass(frozen=True)
class Mapped:
    """Pixels that lie in a file one after another; it is mapped for each part anew, so that nothing stays in memory."""

    path: Path
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    offset: int = 0  # of the first pixel, in bytes

    def __getitem__(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j *c"]:
        """A copy of some rows and columns."""
        first = part[0].indices(self.shape[0])[0]
        row = int(np.prod(self.shape[1:])) * self.dtype.itemsize
        start = self.offset + first * row
        page = start - start % mmap.ALLOCATIONGRANULARITY
        stop = self.offset + part[0].indices(self.shape[0])[1] * row
        rows = max(0, (stop - start) // row)
        if not rows:
            return np.empty((0, *self.shape[1:]), self.dtype)[:, part[1]]
        with (
            self.path.open("rb") as file,
            mmap.mmap(file.fileno(), stop - page, access=mmap.ACCESS_READ, offset=page) as memory,
        ):
            values = np.frombuffer(memory, self.dtype, rows * row // self.dtype.itemsize, start - page)
            taken = values.reshape(rows, *self.shape[1:])[:, part[1]].copy()
            del values  # or the file could not be let go
        return taken


@dataclass(frozen=True)
class _Page:
    """Where the parts of a page lie, and how they are read."""

    key: tifffile.TiffPage
    offsets: tuple[int, ...]
    counts: tuple[int, ...]

    @property
    def part(self) -> tuple[int, int]:
        """Rows and columns of a strip or tile."""
        return int(self.key.chunks[0]), int(self.key.chunks[1])

    def read(self, path: Path, rows: slice, columns: slice) -> Shaped[np.ndarray, "i j c"]:
        """Rows and columns as stored; what is not stored has the value that the file says, mostly 0."""
        key, n = self.key, self.key.samplesperpixel
        if key.is_contiguous:
            stored = np.dtype(key.dtype).newbyteorder(key.parent.byteorder)
            return Mapped(path, (key.imagelength, key.imagewidth, n), stored, self.offsets[0])[rows, columns]
        taken = np.full((rows.stop - rows.start, columns.stop - columns.start, n), key.nodata, key.dtype)
        with path.open("rb") as file:
            for index in self._meeting(rows, columns):
                self._put(file, index, taken, rows.start, columns.start)
        return taken

    def _meeting(self, rows: slice, columns: slice) -> list[int]:
        """Numbers of the parts that hold some of these pixels."""
        height, width = self.part
        across = -(-self.key.imagewidth // width)
        return [
            row * across + column
            for row in range(rows.start // height, -(-rows.stop // height))
            for column in range(columns.start // width, -(-columns.stop // width))
        ]

    def _put(self, file: IO[bytes], index: int, taken: Shaped[np.ndarray, "i j c"], top: int, left: int) -> None:
        """Decode a part, and put what meets into an array, whose first pixel is at `top` and `left`."""
        if not self.counts[index]:  # nothing is stored of it
            return
        file.seek(self.offsets[index])
        tables = {"jpegtables": self.key.jpegtables} if self.key.compression in JPEG else {}
        decoded, place, shape = self.key.decode(file.read(self.counts[index]), index, **tables)
        if decoded is None:
            return
        row, column = place[2] - top, place[3] - left
        pixels = decoded[0, : shape[1], : shape[2]]
        pixels = pixels[max(0, -row) :, max(0, -column) :]
        row, column = max(0, row), max(0, column)
        height, width = (max(0, n) for n in (taken.shape[0] - row, taken.shape[1] - column))
        pixels = pixels[:height, :width]
        taken[row : row + pixels.shape[0], column : column + pixels.shape[1]] = pixels


@dataclass(frozen=True)
class TiffLevel:
    """One resolution of a TIFF file: a page with all channels, or a page for each."""

    path: Path
    shape: tuple[int, int, int]
    dtype: np.dtype[Any]
    pages: tuple[_Page, ...]
    samples: int  # of each page that are no alpha

    def __getitem__(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j c"]:
        """Rows and columns, as `read_image` gives them.

        Raises:
            InputError: if the file is damaged there.
        """
        return as_image(self.stored(part), name=str(self.path))

    def stored(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j c"]:
        """Rows and columns with the numbers that the file has.

        Raises:
            InputError: if the file is damaged there.
        """
        rows, columns = (slice(*one.indices(n)[:2]) for one, n in zip(part, self.shape[:2], strict=True))
        with decoding(self.path):
            planes = [page.read(self.path, rows, columns)[..., : self.samples] for page in self.pages]
        return planes[0] if len(planes) == 1 else np.concatenate(planes, 2)


@dataclass(frozen=True)
class Parts:
    """An image that can be read part by part."""

    levels: Mapping[int, TiffLevel]  # by how often sides are halved; the image itself is 0
    is_quick: bool  # whether any place is read as quickly as any other; otherwise, only from top to bottom

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels."""
        return self.levels[0].shape


def in_parts(path: str | Path) -> Parts | None:
    """An image that is large and can be read part by part; None if it is to be read whole, by `read_image`.

    Raises:
        InputError: if it is no TIFF file with one plane, or is damaged in what lies in front of the pixels.
    """
    path = existing(path)
    with decoding(path):
        if not is_tiff(path):
            return None
        with opened(path) as tiff:
            series, axes = checked(tiff, path)
            if series.size * series.dtype.itemsize <= LARGE:
                return None
            finest = _level(path, series, axes)
            if finest is None:
                return None
            levels = {0: finest}
            for smaller in _smaller(path, tiff, series, axes):
                times = _halvings(finest.shape, smaller.shape)
                if times and smaller.dtype == finest.dtype and smaller.shape[2] == finest.shape[2]:
                    levels.setdefault(times, smaller)
    return Parts(levels, all(_is_quick(page) for page in finest.pages))


def _is_quick(page: _Page) -> bool:
    return bool(page.key.is_contiguous or (page.key.is_tiled and _bytes_of_part(page) <= QUICK_PART))


def _bytes_of_part(page: _Page) -> int:
    return int(np.prod(page.key.chunks, dtype=object)) * np.dtype(page.key.dtype).itemsize


def _level(path: Path, series: tifffile.TiffPageSeries, axes: str) -> TiffLevel | None:
    """One resolution, if its colours need no more than alpha taken away, and its parts are not too large."""
    lengths = {axis: n for axis, n in zip(axes, series.shape, strict=True) if n > 1 or axis in "YX"}
    key, pages = series.keyframe, [page for page in series.pages if page is not None]
    if len(pages) != len(series.pages) or not _is_plain(key):
        return None
    order = "".join(lengths)
    height, width, n = lengths["Y"], lengths["X"], len(pages)
    if (key.imagelength, key.imagewidth) != (height, width):
        return None
    if order == "CYX" and key.samplesperpixel == 1 and n == lengths["C"]:
        samples = 1
    elif (
        order in ("YX", "YXS", "YXC") and n == 1 and key.samplesperpixel == np.prod([*lengths.values()][2:], dtype=int)
    ):
        samples = key.samplesperpixel - alpha_of(key)
    else:
        return None
    places = tuple(_Page(key, tuple(page.dataoffsets), tuple(page.databytecounts)) for page in pages)
    if not key.is_contiguous and _bytes_of_part(places[0]) > MOST_PART:
        return None
    dtype = as_image(np.zeros((1, 1), key.dtype)).dtype
    assert callable(key.decode)  # which is made while the file is open
    return TiffLevel(path, (height, width, n * samples), dtype, places, samples)


def _is_plain(page: tifffile.TiffPage) -> bool:
    """Whether pixels mean what they say: grey or RGB, upright, channels side by side."""
    known = tifffile.PHOTOMETRIC
    is_colour = page.photometric in (known.MINISBLACK, known.RGB) or (
        page.photometric == known.YCBCR and page.compression in RGB_WHEN_DECODED
    )
    is_upright = page.tags.valueof(TAG) in (None, 1)
    is_number = page.dtype is not None and page.dtype.kind in "uif" and page.bitspersample == 8 * page.dtype.itemsize
    is_together = page.samplesperpixel == 1 or page.planarconfig == 1
    return bool(is_colour and is_upright and is_number and is_together and page.imagedepth == 1)


def _smaller(path: Path, tiff: tifffile.TiffFile, series: tifffile.TiffPageSeries, axes: str) -> list[TiffLevel]:
    """Smaller versions of the image: those that belong to it, and further pages."""
    found = [_level(path, level, axes) for level in series.levels[1:] if level.axes == series.axes]
    if len(series.pages) == 1:
        others: Sequence[Any] = tiff.pages[1:] if len(tiff.pages) > 1 else ()
        found += [_page_level(path, page.aspage()) for page in others]
    return [level for level in found if level is not None]


def _page_level(path: Path, page: tifffile.TiffPage) -> TiffLevel | None:
    """A page that is marked as a smaller version of another one."""
    if not page.is_reduced or page.dtype is None:
        return None
    return _level(path, tifffile.TiffPageSeries([page], page.shape, page.dtype, page.axes), page.axes)


def _halvings(whole: tuple[int, ...], smaller: tuple[int, ...]) -> int:
    """How often the sides were halved, each time rounded up or down; 0 if that is not how they came to be."""
    times = round(float(np.log2(max(1, whole[0]) / max(1, smaller[0]))))
    is_so = all(abs(n - (m << times)) < 1 << times for n, m in zip(whole[:2], smaller[:2], strict=True))
    return times if times > 0 and is_so else 0
