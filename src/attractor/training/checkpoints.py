"""Reading the checkpoints that a training is resumed from, without running anything that they hold."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib
from pathlib import Path

import torch

from attractor.errors import InputError

# What reading a damaged checkpoint raises, in zipfile, pickle, torch or Lightning.
DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error),
)


def read_checkpoint(path: Path) -> dict[str, object]:
    """What a checkpoint holds; reading it runs no code.

    Raises:
        InputError: if it is damaged; the message says what to do.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed, which torch never does")
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"{broken} is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError("it holds no training")
    except DAMAGE as error:
        raise unusable(path, error) from error
    return content


def unusable(path: Path, error: BaseException) -> InputError:
    """The error for a checkpoint that training cannot continue from."""
    reason = "".join(filter(str.isprintable, next(iter(str(error).splitlines()), ""))) or "it ends too early"
    if isinstance(error, pickle.UnpicklingError):  # whose advice is to let it run code
        reason = "it holds something other than numbers"
    best = path.with_name("best.safetensors")
    cure = f", or add --from {best} to start from the best weights so far" if best.exists() else ""
    return InputError(
        f"{path}: training cannot continue from this checkpoint, which is damaged or of another version "
        f"({reason[:100]}). Remove it and start the training without --resume{cure}."
    )
