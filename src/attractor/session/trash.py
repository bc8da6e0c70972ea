"""`trash/`: the images that were removed from a session, with all that is known of them, in folders of the same names.

An image's own file goes first and comes back last, so that a removal that was cut short is seen, and finished, when the
session is opened.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from attractor.errors import InputError
from attractor.images import made
from attractor.shortage import cure

TRASH = "trash"
FOLDERS = ("images", "labels", "reviewed", "objects")
WHEN = "removed"  # a folder of empty files, whose times are those of the removals


def removed(folder: Path) -> tuple[str, ...]:
    """Names of the images that were removed, sorted."""
    images = folder / TRASH / "images"
    return tuple(sorted(file.stem for file in images.iterdir())) if images.is_dir() else ()


def remove(folder: Path, name: str) -> None:
    """Move the files of an image to the trash.

    Raises:
        InputError: if one cannot be moved.
    """
    (made(folder / TRASH / WHEN) / f"{name}.txt").touch()
    for part in FOLDERS:
        _move(_files(folder / part, name), folder / TRASH / part)


def bring_back(folder: Path, name: str) -> None:
    """Move the files of an image back from the trash.

    Raises:
        InputError: if one cannot be moved.
    """
    for part in reversed(FOLDERS):
        _move(_files(folder / TRASH / part, name), folder / part)
    (folder / TRASH / WHEN / f"{name}.txt").unlink(missing_ok=True)


def empty_older(folder: Path, days: float) -> tuple[str, ...]:
    """Delete, for good, what was removed longer ago; gives its names.

    Raises:
        InputError: if a file cannot be deleted.
    """
    limit = time.time() - 86400 * days
    old = tuple(name for name in removed(folder) if _removed_at(folder, name) < limit)
    for name in old:
        for part in (*reversed(FOLDERS), WHEN):  # its own file last, by which it is known
            for file in _files(folder / TRASH / part, name):
                try:
                    file.unlink()
                except OSError as error:
                    raise InputError(f"{file}: cannot be deleted: {error.strerror}; check the folder.") from error
    return old


def _removed_at(folder: Path, name: str) -> float:
    """When an image was removed, in seconds since 1970; now, if that is not known."""
    note = made(folder / TRASH / WHEN) / f"{name}.txt"
    if not note.exists():
        note.touch()
    return note.stat().st_mtime


def empty(folder: Path) -> None:
    """Delete all that was removed, for good.

    Raises:
        InputError: if it cannot be deleted.
    """
    if (folder / TRASH).exists():
        try:
            shutil.rmtree(folder / TRASH)
        except OSError as error:
            raise InputError(f"{folder / TRASH}: cannot be deleted: {error.strerror}; check the folder.") from error


def bytes_of_images(folder: Path) -> int:
    """Bytes that the images of a session take, with those in the trash."""
    parts = [folder / "images", folder / TRASH / "images"]
    return sum(file.stat().st_size for part in parts if part.is_dir() for file in part.iterdir())


def _files(folder: Path, name: str) -> list[Path]:
    return [file for file in folder.iterdir() if file.stem == name] if folder.is_dir() else []


def _move(files: list[Path], target: Path) -> None:
    for file in files:
        try:
            os.replace(file, made(target) / file.name)
        except OSError as error:
            what_to_do = cure(error) or "check the folder"
            raise InputError(f"{file}: cannot be moved to {target}: {error.strerror}; {what_to_do}.") from error
