"""Image files in and out: every conversion between a file's pixels and our arrays happens here, once.

What a file holds decides how it is read, not its suffix. TIFF goes to tifffile; 16-bit colour PNG to imagecodecs,
because Pillow cuts it to 8 bit; everything else to Pillow, because imagecodecs fills a JPEG that is cut short with
grey, and each damaged PNG costs the process a reference to None (2026.3.6), until it dies of that. Whatever a decoder
throws becomes an `InputError` that names the file.

Shapes: `h` rows, `w` columns, `c` channels. Images are uint8, uint16 or float32; label images int32.
"""

from __future__ import annotations

import errno
import io
import os
import secrets
import struct
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import tifffile
from jaxtyping import Int32, Integer, Shaped
from PIL import Image, ImageOps, UnidentifiedImageError

from attractor.errors import InputError

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm")
OUTPUT_ENDINGS = (  # what `attractor segment` writes beside an image
    "_labels.tif", "_overlay.png", "_objects.csv", "_objects.parquet", "_coco.json", "_objects.geojson", "_rois.zip",
)  # fmt: skip

MOST_PIXELS = 1 << 30  # a PNG header that promises more is an attack or belongs into OME-Zarr
MOST_PIXELS_FOR_PILLOW = 1 << 26  # a little below where Pillow begins to warn of decompression bombs
MICROMETRES = {  # in the units of length of OME and ImageJ
    **dict.fromkeys(("\u00b5m", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    "\u00c5": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, **dict.fromkeys(("in", "inch"), 25400.0),
}  # fmt: skip
LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow and scikit-image have it

_PNG = b"\x89PNG\r\n\x1a\n"
_TIFF = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_PILLOW_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "PPM")  # not EPS, which runs Ghostscript
# What the decoders were seen to throw at damaged files (tifffile TypeErrors, too); imagecodecs' own are RuntimeErrors.
_DECODER_ERRORS = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, SyntaxError, ArithmeticError,
    AssertionError, EOFError, MemoryError, struct.error, zlib.error,
    Image.DecompressionBombError, Image.DecompressionBombWarning,
)  # fmt: skip


# --- images -----------------------------------------------------------------------------------------------------------


def read_image(path: str | Path) -> Shaped[np.ndarray, "h w c"]:
    """The pixels of an image file as uint8, uint16 or float32, upright as viewers show it.

    Alpha is dropped, palette and CMYK become RGB, 1-bit becomes 0 and 255; 32-bit integers and float64 become
    float32. An orientation that a camera noted (EXIF) is applied.

    Raises:
        InputError: if the file is missing, damaged, no image, a stack, or has pixels that are not numbers.
    """
    path = _existing(path)
    with _decoding(path):
        start = _first_bytes(path)
        if start.startswith(_TIFF):
            array = _tiff_colours(_read_tiff(path), path)
        elif start.startswith(_PNG):
            array = _png_image(path.read_bytes(), path)
        else:
            array = _pillow_image(path.read_bytes(), path)
    return as_image(array, name=str(path))


def as_image(array: Shaped[np.ndarray, "..."], *, name: str = "The image") -> Shaped[np.ndarray, "h w c"]:
    """An array of shape (h, w) or (h, w, c) by the rules of `read_image`; four channels stay four.

    Raises:
        InputError: if the shape or type is another, or a pixel is NaN or infinite; the message begins with `name`.
    """
    array = np.asarray(array)
    if array.ndim not in (2, 3):
        raise InputError(f"{name}: an array of shape {array.shape}; give one image of shape (h, w) or (h, w, c).")
    if array.size == 0:
        raise InputError(f"{name}: an array of shape {array.shape} holds no pixels; give an image of at least 1 x 1.")
    if array.dtype.kind not in "buif":
        raise InputError(f"{name}: pixels of type {array.dtype}; give integers, floats or booleans.")
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            array = array.astype(np.float32, copy=False)
        if not np.isfinite(array).all():
            raise InputError(
                f"{name}: {np.count_nonzero(~np.isfinite(array))} values are NaN or infinite; "
                "replace them, by the background's value for example."
            )
    return np.ascontiguousarray(array if array.ndim == 3 else array[..., None])


def as_channels(
    image: Shaped[np.ndarray, "h w c"], channels: int, name: str = "The image"
) -> Shaped[np.ndarray, "h w channels"]:
    """The image with as many channels as a model takes: grey repeated to colour, colour averaged to grey.

    Raises:
        InputError: if neither applies; the message begins with `name`.
    """
    found = image.shape[2]
    if found == channels:
        return image
    if found == 1 and channels == 3:
        return np.repeat(image, 3, axis=2)
    if found == 3 and channels == 1:
        grey = image.astype(np.float32) @ LUMINANCE  # (h, w)
        return (grey if image.dtype.kind == "f" else np.rint(grey)).astype(image.dtype)[..., None]
    raise InputError(
        f"{name} has {found} channel{'s' * (found != 1)}, the model takes {channels}. Grey and RGB are turned into "
        "each other; choose the channels yourself otherwise, or a model trained on such images."
    )


def image_suffix(image: Shaped[np.ndarray, "h w c"]) -> str:
    """The suffix under which `write_image` keeps this image whole: .png where every program can read it, else .tif."""
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


def pixel_size(path: str | Path) -> tuple[float, float] | None:
    """Micrometres along a pixel's height and width, where the file says so in a way that can be trusted.

    That is OME-TIFF (`PhysicalSizeY`, `PhysicalSizeX` and their units) and ImageJ's TIFF (resolution with a unit of
    length). The resolution in other TIFF files, PNG and JPEG is one for printing, most often a program's default, and
    is passed over; so is a size that is no number above 0 or has an unknown unit. Gives None then.

    Raises:
        InputError: if the file is missing or a damaged TIFF.
    """
    path = _existing(path)
    with _decoding(path):
        if not _first_bytes(path).startswith(_TIFF):
            return None
        with tifffile.TiffFile(path) as tiff:
            sides = _ome_sides(tiff) if tiff.is_ome else _imagej_sides(tiff) if tiff.is_imagej else (0.0, 0.0)
    return sides if all(np.isfinite(side) and side > 0 for side in sides) else None


# --- label images -----------------------------------------------------------------------------------------------------


def read_labels(path: str | Path) -> Int32[np.ndarray, "h w"]:
    """The label image in a PNG or TIFF file, with its numbers as they are; a palette PNG gives its indices.

    Raises:
        InputError: if it cannot be read, has several channels, fractions, negative labels or any above 2**31 - 1.
    """
    path = _existing(path)
    with _decoding(path):
        start = _first_bytes(path)
        if start.startswith(_TIFF):
            array = _read_tiff(path).array
        elif start.startswith(_PNG):
            array = _png_values(path.read_bytes(), path)
        else:
            raise InputError(f"{path}: a label image must be a PNG or TIFF file; other formats change the numbers.")
    if array.shape[2] != 1:
        raise InputError(
            f"{path}: a label image must have one channel, this one has {array.shape[2]}; save the labels as numbers, "
            "one for each object, not as colours."
        )
    return _as_labels(array[..., 0], str(path))


def _as_labels(array: Shaped[np.ndarray, "h w"], name: str) -> Int32[np.ndarray, "h w"]:
    """Whole numbers of any type as int32."""
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise InputError(f"{name}: a label image must hold whole numbers, this one has fractions; is it an image?")
    if array.dtype.kind not in "buif":
        raise InputError(f"{name}: a label image must hold whole numbers, this one has type {array.dtype}.")
    if array.size == 0:
        raise InputError(
            f"{name}: an array of shape {array.shape} holds no pixels; give a label image of its image's size."
        )
    lowest, highest = array.min(), array.max()
    if lowest < 0:
        raise InputError(
            f"{name}: has the negative label {lowest}; labels are 0 for background and 1, 2, … for objects."
        )
    if highest > np.iinfo(np.int32).max:
        raise InputError(
            f"{name}: has the label {highest}, above the largest possible, {np.iinfo(np.int32).max}; renumber them."
        )
    return np.ascontiguousarray(array.astype(np.int32))


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


# --- files ------------------------------------------------------------------------------------------------------------


def made(folder: str | Path) -> Path:
    """The folder, which is there now.

    Raises:
        InputError: if it cannot be made.
    """
    try:
        Path(folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: cannot be made: {error.strerror}.") from error
    return Path(folder)


@contextmanager
def atomic(path: str | Path) -> Iterator[Path]:
    """A temporary path in the same folder and with the same suffix, which becomes `path` when the block ends well.

    Raises:
        InputError: if the system refuses to write (no such folder, no permission, disk full).
    """
    path = Path(path)
    temporary = path.with_name(f".{secrets.token_hex(6)}.part{path.suffix}")  # hidden: `find_images` passes over it
    try:
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        cure = "make room" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "check the folder and its permissions"
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; {cure}, or write to another folder."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink()


@dataclass(frozen=True)
class Found:
    """What there is at the paths that somebody gave."""

    images: tuple[Path, ...]
    problems: dict[Path, str]  # folder without an image, or that cannot be read -> what is wrong with it


def find_images(paths: Iterable[str | Path]) -> Found:
    """Files as given, and the images directly in given folders, sorted by name, without what `segment` wrote there.

    Raises:
        InputError: if a path is missing, there is no image at all, or two files share a stem: their results would too.
    """
    images: dict[Path, Path] = {}  # resolved path -> path as given
    problems: dict[Path, str] = {}
    for path in map(Path, paths):
        try:
            files = images_in(path) if path.is_dir() else [_existing(path)]
        except InputError as error:
            if not path.is_dir():
                raise
            problems[path] = str(error)
            continue
        images |= {file.resolve(): file for file in files if file.resolve() not in images}
    if not images and problems:
        raise InputError("\n".join(problems.values()))
    _refuse_shared_stems(images.values())
    return Found(tuple(images.values()), problems)


def _refuse_shared_stems(files: Iterable[Path]) -> None:
    by_stem: dict[str, Path] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other is not file:
            raise InputError(
                f"{other} and {file} share the stem {file.stem!r}, so one's results would overwrite the other's; "
                "rename one, or give them in two calls with different output folders."
            )


def images_in(folder: Path) -> list[Path]:
    """The images directly in a folder, sorted by name, without hidden files and what `segment` wrote.

    Raises:
        InputError: if there are none, or the folder cannot be read.
    """
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from error
    files = [file for file in files if not file.name.startswith(".") and not file.name.endswith(OUTPUT_ENDINGS)]
    if not files:
        raise InputError(f"{folder}: holds no image; files must end in one of {', '.join(IMAGE_SUFFIXES)}.")
    return files


def _existing(path: str | Path) -> Path:
    """The path, if a file is there."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file in it.")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the name and the folder you are in.")
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file; give an image file.")
    return path


def _first_bytes(path: Path) -> bytes:
    """What tells a file's format."""
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise InputError(f"{path}: the file is empty; copy or export it again.")
    return start


@contextmanager
def _decoding(path: Path) -> Iterator[None]:
    """Turn what a decoder throws into a sentence about the file."""
    try:
        yield
    except InputError:
        raise
    except UnidentifiedImageError:
        raise InputError(
            f"{path}: is not an image that can be read here; give PNG, TIFF, JPEG, WebP, BMP or GIF."
        ) from None
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; change its permissions.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise InputError(
            f"{path}: is suspiciously large for its format; convert it to TIFF if it is genuine."
        ) from error
    except MemoryError as error:
        raise InputError(f"{path}: needs more memory than there is; cut it into parts.") from error
    except _DECODER_ERRORS as error:
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise InputError(f"{path}: is damaged or cut short ({reason}); copy or export it again.") from error


# --- PNG and what Pillow reads ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _PngHeader:
    """What a PNG says of itself in its first chunk."""

    width: int
    height: int
    depth: int  # bits a channel
    colour: int  # 0 grey, 2 RGB, 3 palette, 4 grey and alpha, 6 RGB and alpha


def _png_image(file: bytes, path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """The colours of a PNG."""
    header = _png_header(file, path)
    return _png_by_imagecodecs(file, header, path) if _is_beyond_pillow(header) else _pillow_image(file, path)


def _png_values(file: bytes, path: Path) -> Shaped[np.ndarray, "h w c"]:
    """The numbers of a PNG, without alpha: palette indices, 0 and 1 of a bit image, grey values or colours."""
    header = _png_header(file, path)
    if header.colour != 3:
        array = _png_image(file, path)
        return array.reshape(header.height, header.width, -1)
    with Image.open(io.BytesIO(file), formats=("PNG",)) as image:
        return np.asarray(image)[..., None]


def _png_header(file: bytes, path: Path) -> _PngHeader:
    """The header of a PNG whose chunks are all there and whole, as their checksums say."""
    position = 8
    while position + 12 <= len(file):
        (length,) = struct.unpack_from(">I", file, position)
        chunk = memoryview(file)[position + 4 : position + 8 + length]  # its name and what it holds
        position += 12 + length
        is_needed = not chunk[0] & 32
        if position > len(file) or (is_needed and zlib.crc32(chunk) != struct.unpack_from(">I", file, position - 4)[0]):
            break
        if chunk[:4] == b"IEND":
            header = _PngHeader(*struct.unpack_from(">IIBB", file, 16))
            if header.width * header.height > MOST_PIXELS:
                size = f"{header.height} x {header.width}"
                raise InputError(f"{path}: claims {size} pixels, more than one image can have here; cut it into parts.")
            return header
    raise InputError(f"{path}: is damaged or cut short (a part of the PNG is missing); copy or export it again.")


def _is_beyond_pillow(header: _PngHeader) -> bool:
    """Whether Pillow would cut the colours to 8 bit or take the file for an attack."""
    return (header.depth == 16 and header.colour != 0) or header.width * header.height > MOST_PIXELS_FOR_PILLOW


def _png_by_imagecodecs(file: bytes, header: _PngHeader, path: Path) -> Shaped[np.ndarray, "h w c"]:
    """Grey or colour as stored."""
    try:
        import imagecodecs  # not everywhere, and slow to import
    except ImportError as error:
        raise InputError(
            f"{path}: reading this PNG (16-bit colour, or very large) needs imagecodecs; pip install imagecodecs."
        ) from error
    array = imagecodecs.png_decode(file)
    array = array.reshape(header.height, header.width, -1)
    return array[..., : 1 if header.colour in (0, 4) else 3]  # what follows is alpha, or made of a transparent colour


def _pillow_image(file: bytes, path: Path) -> Shaped[np.ndarray, "h w *c"]:
    """What Pillow makes of a file: grey, RGB, 16-bit grey, 32-bit integers or floats."""
    with Image.open(io.BytesIO(file), formats=_PILLOW_FORMATS) as image:
        n_frames = getattr(image, "n_frames", 1)
        if image.format in ("GIF", "WEBP") and n_frames > 1:
            raise InputError(f"{path}: is an animation of {n_frames} frames; give one frame.")
        image.load()
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("1", "L", "I", "F", "RGB") or upright.mode.startswith("I;16"):
            return np.asarray(upright)
        return np.asarray(upright.convert("L" if upright.mode in ("LA", "La") else "RGB"))


# --- TIFF -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Tiff:
    """One plane of a TIFF file as stored, and what its colours mean."""

    array: Shaped[np.ndarray, "h w c"]
    photometric: int  # tag 262
    compression: int  # tag 259
    colormap: Shaped[np.ndarray, "3 n"] | None


def _read_tiff(path: Path) -> _Tiff:
    """The single plane of a TIFF file, without alpha."""
    with tifffile.TiffFile(path) as tiff:
        _refuse_cut_chain(tiff.filehandle, tiff.tiff, path)
        if not tiff.pages or not tiff.series:
            raise InputError(f"{path}: is a TIFF file without an image; copy or export it again.")
        series = tiff.series[0]
        if any(other.size >= series.size for other in tiff.series[1:]):
            raise InputError(f"{path}: holds {len(tiff.series)} images; give one plane, as an image of its own.")
        _refuse_missing_parts(series, tiff.filehandle.size, path)
        page = series.keyframe
        array = _channels_last(series.asarray(), series.axes, path)
        alpha = [kind for kind in page.extrasamples if kind in (1, 2)]  # associated, unassociated
        if alpha and array.shape[2] == page.samplesperpixel > len(alpha):
            array = array[..., : -len(alpha)]
        return _Tiff(array, int(page.photometric), int(page.compression), page.colormap)


def _ome_sides(tiff: Any) -> tuple[float, float]:
    """Height and width of a pixel of the first image in micrometres; 0 where OME does not say."""
    try:
        elements = ElementTree.fromstring(tiff.ome_metadata).iter()
        pixels = next(element for element in elements if element.tag.rpartition("}")[2] == "Pixels")
        height, width = (
            float(pixels.get(f"PhysicalSize{axis}", 0)) * _micrometres(pixels.get(f"PhysicalSize{axis}Unit", "um"))
            for axis in "YX"
        )
    except (ElementTree.ParseError, StopIteration, ValueError):
        return 0.0, 0.0
    return height, width


def _imagej_sides(tiff: Any) -> tuple[float, float]:
    """Height and width of a pixel in micrometres; 0 where ImageJ's image is not calibrated."""
    notes, tags = tiff.imagej_metadata or {}, tiff.pages[0].tags
    unit = notes.get("unit", "pixel")
    sides = []
    for axis, own in (("Y", notes.get("yunit", unit)), ("X", unit)):
        tag = tags.get(f"{axis}Resolution")
        resolution = tag.value if tag is not None else None  # pixels, and over how many units
        pixels, length = resolution if isinstance(resolution, tuple) and len(resolution) == 2 else (0, 0)
        sides.append(_micrometres(str(own)) * length / pixels if pixels else 0.0)
    return sides[0], sides[1]


def _micrometres(unit: str) -> float:
    """How many there are in a unit of length; 0 for a unit that is none."""
    return MICROMETRES.get(unit.strip().replace("\\u00B5", "\u00b5").replace("\u03bc", "\u00b5"), 0.0)


def _refuse_cut_chain(file: Any, layout: Any, path: Path) -> None:
    """Follow the chain of page headers to its end, which must lie in the file."""
    seen: set[int] = set()
    file.seek(4 if layout.version == 42 else 8)
    while True:
        position = file.read(layout.offsetsize)
        offset = struct.unpack(layout.offsetformat, position) if len(position) == layout.offsetsize else (file.size,)
        if offset[0] == 0 or offset[0] in seen:
            break
        if offset[0] + layout.tagnosize > file.size:
            raise InputError(f"{path}: is damaged or cut short (a page lies behind its end); copy or export it again.")
        seen.add(offset[0])
        file.seek(offset[0])
        (n_tags,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
        file.seek(offset[0] + layout.tagnosize + n_tags * layout.tagsize)


def _refuse_missing_parts(series: Any, size: int, path: Path) -> None:
    """Tifffile fills missing strips with zeros and passes over missing pages: look for both before."""
    for page in series.pages:
        if page is None:
            raise InputError(
                f"{path}: a part of the image is missing or lies in another file; export it into one file."
            )
        if any(offset + count > size for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False)):
            raise InputError(f"{path}: is damaged or cut short (pixels lie behind its end); copy or export it again.")


def _channels_last(array: Shaped[np.ndarray, "..."], axes: str, path: Path) -> Shaped[np.ndarray, "h w c"]:
    """Rows, columns, channels, from tifffile's letters: Y, X, S or C; Q is an axis that nobody named."""
    shape = array.shape
    if axes == "QYX" and shape[2] <= 4 < shape[0]:  # (h, w, c) that was written without saying so
        axes = "YXC"
    elif axes == "QYX" and 1 < shape[0] <= 4:
        axes = "CYX"
    kept = [axis for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "YX"]
    array = array.reshape([length for axis, length in zip(axes, shape, strict=True) if length > 1 or axis in "YX"])
    if not {"Y", "X"} <= set(kept) or len(kept) > 3 or not set(kept) <= set("YXSC"):
        raise InputError(f"{path}: is a stack of shape {shape} (axes {axes}), not one image; give one plane.")
    order = [kept.index(axis) for axis in ["Y", "X", *(axis for axis in kept if axis not in "YX")]]
    array = array.transpose(order)
    return array if array.ndim == 3 else array[..., None]


def _tiff_colours(tiff: _Tiff, path: Path) -> Shaped[np.ndarray, "h w c"]:
    """Grey or RGB, whatever the colours are stored as."""
    array, photometric = tiff.array, tifffile.PHOTOMETRIC
    if tiff.photometric == photometric.PALETTE and tiff.colormap is not None and array.dtype.kind == "u":
        return (tiff.colormap[:, array[..., 0]] >> 8).astype(np.uint8).transpose(1, 2, 0)
    if tiff.photometric == photometric.MINISWHITE and array.dtype.kind in "bu":
        return ~array  # for unsigned integers, that is the largest value minus this one
    if tiff.photometric == photometric.SEPARATED and array.shape[2] == 4 and array.dtype.kind == "u":
        white = np.iinfo(array.dtype).max
        light = (white - array).astype(np.float32) / white
        return np.rint(light[..., :3] * light[..., 3:] * white).astype(array.dtype)
    is_jpeg_or_jp2 = tiff.compression in (6, 7, 33003, 33005, 34712)  # which tifffile turns into RGB
    if (tiff.photometric == photometric.YCBCR and not is_jpeg_or_jp2) or tiff.photometric in (8, 9, 10, 32844, 32845):
        raise InputError(
            f"{path}: its colours are stored as {photometric(tiff.photometric).name}; save it as grey or RGB."
        )
    return array
