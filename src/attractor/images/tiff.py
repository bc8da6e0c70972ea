"""TIFF, with tifffile: one plane or one stack of slices, whatever its axes are called, from the file that was given.

tifffile fills what is missing with zeros, opens other files that OME names, and believes what a header promises: all of
that is checked before pixels are asked for.

Shapes: `h` rows, `w` columns, `c` channels; `s` the lengths of a plane, rows and columns, or of a stack, planes, rows
and columns.
"""

from __future__ import annotations

import io
import logging
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Shaped
from PIL.ImageFile import ImageFile
from PIL.Jpeg2KImagePlugin import Jpeg2KImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile
from PIL.WebPImagePlugin import WebPImageFile

from attractor.errors import InputError
from attractor.images.damage import damaged, refuse_too_large
from attractor.images.files import first_bytes
from attractor.images.orientation import TAG, TURNED, upright

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MOST_PAGES = 1 << 15
FEW_PLANES = 4  # that may be channels; of more, an axis that has no name is one of slices, or frames
UNNAMED = "QI"  # tifffile's letters for an axis of which a file says nothing
LARGEST_PART = 1 << 24  # pixels of a strip or tile that is larger than its image

# The ways to compress that give no more than they are asked for: none, CCITT's, LZW, deflate, PackBits,
# LZMA and Zstandard …
BOUNDED = (1, 2, 3, 4, 5, 8, 32773, 32946, 34925, 34926, 50000)
# … and those whose parts are images with a header of their own.
EMBEDDED: dict[int, type[ImageFile]] = {
    7: JpegImageFile,
    34933: PngImageFile,
    34927: WebPImageFile,
    50001: WebPImageFile,
} | dict.fromkeys((33003, 33004, 33005, 34712), Jpeg2KImageFile)
RGB_WHEN_DECODED = (7, 33003, 33005, 34712, 34927, 50001)  # which become RGB whatever they store

# What tifffile logs about a damaged file, some of its bytes included, would be printed beside our own sentence.
logging.getLogger("tifffile").addHandler(logging.NullHandler())


@dataclass(frozen=True)
class _Plane:
    """One plane or stack of a TIFF file as stored, and what its colours mean."""

    array: Shaped[np.ndarray, "*s c"]
    photometric: int  # tag 262
    compression: int  # tag 259
    colormap: Shaped[np.ndarray, "3 n"] | None
    orientation: object  # tag 274


def is_tiff(path: Path) -> bool:
    """Whether the file begins like a TIFF."""
    return first_bytes(path).startswith(SIGNATURES)


def is_turned(page: tifffile.TiffPage) -> bool:
    """Whether rows are stored as columns."""
    return page.tags.valueof(TAG) in TURNED


def read_tiff(path: Path, *, n_axes: int = 2, axes: str = "") -> Shaped[np.ndarray, "*s c"]:
    """Grey or RGB, whatever the colours are stored as, upright and without alpha.

    Args:
        path: of the file.
        n_axes: two for one plane, three for a stack.
        axes: letters for the file's axes, where it does not name them, or not well: "ZYX", say.
    """
    plane = _read(path, n_axes, axes)
    return _upright(_colours(plane, path), plane.orientation, path)


def read_tiff_values(path: Path, *, n_axes: int = 2, axes: str = "") -> Shaped[np.ndarray, "*s c"]:
    """The numbers as stored, upright and without alpha; arguments are those of `read_tiff`."""
    plane = _read(path, n_axes, axes)
    return _upright(plane.array, plane.orientation, path)


def _upright(array: Shaped[np.ndarray, "*s c"], orientation: object, path: Path) -> Shaped[np.ndarray, "*t c"]:
    if array.ndim == 3:
        return upright(array, orientation)
    if orientation not in (None, 1):
        raise InputError(f"{path}: is a stack of turned planes (orientation {orientation}); save it without turning.")
    return array


def n_axes_of_tiff(path: Path) -> int:
    """Three for a stack of slices, or of planes that the file does not name; two for everything else.

    Raises:
        InputError: if the file is damaged in what lies in front of the pixels.
    """
    with opened(path) as tiff:
        _refuse_cut_chain(tiff.filehandle, tiff.tiff, path)
        if not tiff.pages or not tiff.series:
            return 2
        series = tiff.series[0]
        lengths = dict(zip(series.axes, series.shape, strict=True))
        is_colour = series.axes == "QYX" and series.shape[2] <= FEW_PLANES < series.shape[0]
        unnamed = max((lengths.get(letter, 1) for letter in UNNAMED), default=1)
        is_stack = lengths.get("Z", 1) > 1 or (unnamed > FEW_PLANES and not is_colour)
        return 3 if is_stack and lengths.get("T", 1) == 1 else 2


def opened(path: Path) -> tifffile.TiffFile:
    """The file, with series made from this file alone: tifffile has no public name for that."""
    return tifffile.TiffFile(path, _multifile=False)


def checked(
    tiff: tifffile.TiffFile, path: Path, n_axes: int = 2, given: str = ""
) -> tuple[tifffile.TiffPageSeries, str]:
    """The image of a file and its axes, before any pixel is read.

    Raises:
        InputError: if there is not one plane or, with three axes, one stack, or the file cannot hold what it promises.
    """
    _refuse_cut_chain(tiff.filehandle, tiff.tiff, path)
    if not tiff.pages or not tiff.series:
        raise InputError(f"{path}: is a TIFF file without an image; copy or export it again.")
    series = tiff.series[0]
    if any(other.size >= series.size for other in tiff.series[1:]):
        raise InputError(f"{path}: holds {len(tiff.series)} images; give one plane, as an image of its own.")
    _refuse_missing_parts(series, tiff.filehandle.size, path)
    _refuse_too_large(series, path)
    axes = _given_axes(given, series.axes, series.shape, path) if given else series.axes
    axes = _axes(axes, series.shape, path) if n_axes == 2 else _axes_of_stack(axes, series.shape, path)
    _refuse_large_parts(series, tiff.filehandle, path)
    return series, axes


def alpha_of(page: tifffile.TiffPage) -> int:
    """How many of a page's last channels are alpha, associated or not."""
    n = sum(kind in (1, 2) for kind in page.extrasamples)
    return n if page.samplesperpixel > n else 0


def _read(path: Path, n_axes: int, given: str) -> _Plane:
    """The single plane, or stack, of a TIFF file, without alpha."""
    with opened(path) as tiff:
        series, axes = checked(tiff, path, n_axes, given)
        page = series.keyframe
        array = channels_last(series.asarray(), axes, n_axes)
        if alpha_of(page) and array.shape[-1] == page.samplesperpixel:
            array = array[..., : -alpha_of(page)]
        return _Plane(array, int(page.photometric), int(page.compression), page.colormap, page.tags.valueof(TAG))


# --- before pixels are asked for --------------------------------------------------------------------------------------


def _refuse_cut_chain(file: tifffile.FileHandle, layout: tifffile.TiffFormat, path: Path) -> None:
    """Follow the chain of page headers to its end, which must lie in the file."""
    seen: set[int] = set()
    file.seek(4 if layout.version == 42 else 8)
    while True:
        position = file.read(layout.offsetsize)
        offset = struct.unpack(layout.offsetformat, position) if len(position) == layout.offsetsize else (file.size,)
        if offset[0] == 0:
            break
        if offset[0] in seen:
            raise damaged(path, "its pages follow each other in a circle")
        if offset[0] + layout.tagnosize > file.size:
            raise damaged(path, "a page lies beyond its end")
        seen.add(offset[0])
        if len(seen) > MOST_PAGES:
            raise InputError(f"{path}: is a stack of more than {MOST_PAGES:,} pages, not one image; give one plane.")
        file.seek(offset[0])
        (n_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
        file.seek(offset[0] + layout.tagnosize + n_tags * layout.tagsize)


def _refuse_missing_parts(series: tifffile.TiffPageSeries, size: int, path: Path) -> None:
    """Refuse strips and pages that are not there."""
    for page in series.pages:
        if page is None:
            raise InputError(
                f"{path}: a part of the image is missing or lies in another file; export it into one file."
            )
        if any(offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise damaged(path, "pixels lie beyond its end")


def _refuse_too_large(series: tifffile.TiffPageSeries, path: Path) -> None:
    """Refuse more pixels than the file can hold."""
    n_values, page = int(np.prod(series.shape, dtype=object)), series.keyframe
    height, width = (dict(zip(series.axes, series.shape, strict=True)).get(axis, 1) for axis in "YX")
    n_bytes = series.dtype.itemsize * (-(-n_values // max(1, height * width)))
    # values are in memory twice while a strip is decoded, and then beside a copy as 32-bit numbers
    refuse_too_large(path, height, width, max(2 * n_bytes, n_bytes + 4))
    n_in_part = int(np.prod(page.chunks, dtype=object))
    if n_in_part > max(LARGEST_PART, page.size):
        raise damaged(path, "a tile is larger than the image")


def _refuse_large_parts(series: tifffile.TiffPageSeries, file: tifffile.FileHandle, path: Path) -> None:
    """Refuse strips and tiles that unpack to more than their share of the image."""
    page = series.keyframe
    if page.compression in BOUNDED:
        return
    if page.compression not in EMBEDDED:
        raise InputError(
            f"{path}: its pixels are compressed in a way that is not read here ({page.compression!r:.40}); save it "
            "with deflate, LZW or no compression."
        )
    most = int(np.prod(page.chunks, dtype=object))
    for one in series.pages:
        assert one is not None  # _refuse_missing_parts
        for offset, count in zip(one.dataoffsets, one.databytecounts, strict=True):
            if count == 0:  # nothing is stored of it
                continue
            file.seek(offset)
            part = EMBEDDED[page.compression](io.BytesIO(file.read(count)))
            if part.width * part.height > most:
                raise damaged(path, f"a part claims {part.height} x {part.width} pixels")


def _axes(axes: str, shape: tuple[int, ...], path: Path) -> str:
    """Tifffile's letters, if those of length above 1 are rows, columns and channels: Y, X, and S or C."""
    if axes == "QYX" and shape[2] <= FEW_PLANES < shape[0]:  # (h, w, c) that was written without saying so
        return "YXC"
    if axes == "QYX" and 1 < shape[0] <= FEW_PLANES:
        raise InputError(
            f"{path}: holds {shape[0]} planes and does not say whether they are channels or slices; give one plane, or "
            'write them as channels, in Python with tifffile.imwrite(…, metadata={"axes": "CYX"}).'
        )
    kept = [axis for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "YX"]
    if not {"Y", "X"} <= set(kept) or len(kept) > 3 or not set(kept) <= set("YXSC"):
        raise InputError(
            f"{path}: is a stack of shape {shape} (axes {axes}), not one image; give one plane, or take a model for "
            "volumes."
        )
    return axes


def _axes_of_stack(axes: str, shape: tuple[int, ...], path: Path) -> str:
    """Tifffile's letters, if those of length above 1 are planes, rows, columns and channels: Z, Y, X, and S or C."""
    lengths = dict(zip(axes, shape, strict=True))
    unnamed = [letter for letter in UNNAMED if lengths.get(letter, 1) > 1]
    if unnamed and "Z" not in axes:
        n = lengths[unnamed[0]]
        if n <= FEW_PLANES or lengths.get("X", FEW_PLANES) <= FEW_PLANES:
            raise InputError(
                f"{path}: has the shape {shape} and does not say whether its {n} planes are slices or channels; say so "
                "by --axes ZYX or --axes CYX."
            )
        axes = axes.replace(unnamed[0], "Z")
    if lengths.get("T", 1) > 1:
        raise InputError(
            f"{path}: is a film of {lengths['T']} frames (axes {axes}), and not a volume; if these are slices, say so "
            "by --axes ZYX."
        )
    kept = [axis for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "ZYX"]
    if not {"Y", "X"} <= set(kept) or len(kept) > 4 or not set(kept) <= set("ZYXSC"):
        raise InputError(f"{path}: has the shape {shape} (axes {axes}); give one volume, a stack of slices.")
    if "Z" not in kept:
        raise InputError(
            f"{path}: is one image of {lengths['Y']} x {lengths['X']} pixels, and no volume; give a stack of slices, "
            "their folder with --axes ZYX, or take a model for images."
        )
    return axes


def _given_axes(given: str, axes: str, shape: tuple[int, ...], path: Path) -> str:
    """The letters that the user gives the axes of a file, or those of its axes longer than 1."""
    letters = given.upper()
    if len(letters) == len(shape):
        return letters
    longer = [place for place, length in enumerate(shape) if length > 1]
    if len(letters) != len(longer):
        raise InputError(
            f"{path}: has the shape {shape}, so {given} cannot name its axes; --axes has a letter for each: Z, Y, X, "
            "and C for channels."
        )
    named = dict(zip(longer, letters, strict=True))
    unused = iter("ABDEFGHJ")  # axes of length 1, of which nothing needs to be known
    return "".join(named.get(place) or next(unused) for place in range(len(shape)))


# --- what they mean ---------------------------------------------------------------------------------------------------


def channels_last(array: Shaped[np.ndarray, "..."], axes: str, n_axes: int = 2) -> Shaped[np.ndarray, "*s c"]:
    """Planes if there are three axes, rows, columns, channels, from axes of these letters."""
    first = "ZYX"[-n_axes:]
    lengths = dict(zip(axes, array.shape, strict=True))
    kept = [axis for axis, length in lengths.items() if length > 1 or axis in first]
    array = array.reshape([lengths[axis] for axis in kept])
    array = array.transpose([kept.index(axis) for axis in [*first, *(axis for axis in kept if axis not in first)]])
    return array if array.ndim > n_axes else array[..., None]


def _colours(plane: _Plane, path: Path) -> Shaped[np.ndarray, "*s c"]:
    """Grey or RGB."""
    array, kind, known = plane.array, plane.photometric, tifffile.PHOTOMETRIC
    if kind == known.PALETTE and plane.colormap is not None and array.dtype.kind == "u":
        return (plane.colormap >> 8).astype(np.uint8).T[array[..., 0]]
    if kind == known.MINISWHITE and array.dtype.kind in "bu":
        return ~array  # for unsigned integers, that is the largest value minus this one
    if kind == known.SEPARATED and array.shape[-1] == 4 and array.dtype.kind == "u":
        return np.stack([_mixed(row) for row in array])
    if (kind == known.YCBCR and plane.compression not in RGB_WHEN_DECODED) or kind in (8, 9, 10, 32844, 32845):
        raise InputError(f"{path}: its colours are stored as {known(kind).name}; save it as grey or RGB.")
    return array


def _mixed(inks: Shaped[np.ndarray, "*w 4"]) -> Shaped[np.ndarray, "*w 3"]:
    """Red, green and blue of cyan, magenta, yellow and black."""
    white = np.iinfo(inks.dtype).max
    light = (white - inks).astype(np.float32) / white
    return np.rint(light[..., :3] * light[..., 3:] * white).astype(inks.dtype)
