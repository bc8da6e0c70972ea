"""What is wrong with a file, in a sentence: damage that a decoder met, and impossible sizes."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from pathlib import Path

from PIL import Image

from attractor.errors import InputError
from attractor.images.by_bioio import PLUGINS
from attractor.shortage import cure

MOST_PIXELS = (1 << 31) - 1  # places in an image are 32-bit numbers
FREE = (
    10_000 * 10_000 * 10
)  # bytes of memory that the smallest file may ask for: ten for each of 10,000 x 10,000 pixels
BYTES_PER_BYTE = (
    5_000  # that each byte of a file beyond the first million may ask for; deflate can make a thousand of one
)

_most_pixels = ContextVar("_most_pixels", default=MOST_PIXELS)

# What the decoders were seen to throw on damaged files (tifffile TypeErrors, too); imagecodecs' own are RuntimeErrors.
DECODER_ERRORS = (
    OSError, RuntimeError, ValueError, TypeError, LookupError, AttributeError, SyntaxError, ArithmeticError,
    AssertionError, EOFError, struct.error, zlib.error,
)  # fmt: skip


@contextmanager
def decoding(path: Path) -> Iterator[None]:
    """Turn what a decoder throws into a sentence about the file."""
    try:
        yield
    except InputError:
        raise
    except PermissionError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; change its permissions.") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:  # by Pillow, only for WebP
        raise InputError(f"{path}: is suspiciously large for its format; convert it to TIFF.") from error
    except MemoryError as error:
        raise InputError(f"{path}: needs more memory than there is; cut it into parts.") from error
    except DECODER_ERRORS as error:
        if isinstance(error, OSError) and (what_to_do := cure(error)) is not None:
            raise InputError(f"{path}: cannot be read: {error.strerror}; {what_to_do}.") from error
        raise damaged(path, str(error) or type(error).__name__) from error


def damaged(path: Path, reason: str) -> InputError:
    """The error for a file that once was whole."""
    words = "".join(letter if letter.isprintable() else " " for letter in reason).split()
    return InputError(f"{path}: is damaged or cut short ({' '.join(words)[:120]}); copy or export it again.")


def not_an_image(path: Path) -> InputError:
    """The error for a file of another kind."""
    if path.suffix.lower() in PLUGINS:
        return InputError(
            f"{path}: this format is read by bioio, and only block by block; give --out NAME.ome.zarr, too, or save "
            "the image as TIFF."
        )
    return InputError(f"{path}: is not an image that can be read here; give PNG, TIFF, JPEG, WebP, BMP, GIF or PPM.")


@contextmanager
def at_most(pixels: int) -> Iterator[None]:
    """Refuse images of more pixels within the block, by their headers."""
    token = _most_pixels.set(pixels)
    try:
        yield
    finally:
        _most_pixels.reset(token)


def refuse_too_large(path: Path, height: int, width: int, bytes_per_pixel: int) -> None:
    """Refuse, before anything is decoded, a size that no honest file with so few bytes can have.

    Args:
        path: of the file, whose own size is the measure.
        height: in pixels, as its header says.
        width: likewise.
        bytes_per_pixel: that reading takes, including temporary copies.

    Raises:
        InputError: if the pixels are more than can be numbered, or than `at_most` allows, or would take more memory
            than the file can account for: 10,000 x 10,000 pixels are allowed to any file, and 5,000 bytes more for each
            byte above a million.
    """
    n_pixels, most, size = height * width, _most_pixels.get(), path.stat().st_size
    if n_pixels > most:
        raise InputError(
            f"{path}: claims {height:,} x {width:,} pixels, more than one image can have here ({most:,}); cut it into "
            "parts."
        )
    if n_pixels * bytes_per_pixel > FREE + BYTES_PER_BYTE * max(0, size - 1_000_000):
        raise InputError(
            f"{path}: claims {height:,} x {width:,} pixels, too many to be true of a file of {size:,} bytes; if they "
            "are there, save the image without compression."
        )
