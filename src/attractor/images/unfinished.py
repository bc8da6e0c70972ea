"""Files being written have a hidden name and a lock, which tells a later run that no killed run left them behind."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache
from pathlib import Path

from attractor.errors import InputError

if sys.platform == "win32":
    import msvcrt
else:
    import fcntl

UNFINISHED = re.compile(r"\.[0-9a-f]{12}\.part(\..*)?")  # hidden: `find_images` passes over it

_own: set[Path] = set()  # what this process writes now


@contextmanager
def unfinished(folder: Path, suffix: str = "") -> Iterator[Path]:
    """A new name in a folder for a file or folder, which is removed after the block if it is still there.

    Files that killed runs left in the folder are removed, too.
    """
    _remove_unfinished(folder.resolve())
    path = folder / f".{secrets.token_hex(6)}.part{suffix}"
    _own.add(path)
    try:
        yield path
    finally:
        _remove(path)
        _own.discard(path)


def remove_own() -> None:
    """Remove all that this process has not finished: a signal may come between a block's end and its clearing up."""
    for path in tuple(_own):
        _remove(path)


@contextmanager
def temporary_folder(parent: Path) -> Iterator[Path]:
    """A folder for files that are not yet complete; it is removed after the block."""
    with unfinished(parent) as folder:
        folder.mkdir(mode=0o700)
        with locked(folder):
            yield folder


def _remove(path: Path) -> None:
    """Remove a file or folder, as far as the system lets us."""
    with suppress(OSError):
        _remove_folder(path) if path.is_dir() else path.unlink(missing_ok=True)


def _remove_folder(folder: Path) -> None:
    """Remove a folder with at most one open file at a time: there may be too few for `shutil.rmtree`."""
    for parent, folders, files in os.walk(folder, topdown=False):
        for name in files:
            os.unlink(os.path.join(parent, name))
        for name in folders:
            os.rmdir(os.path.join(parent, name))
    folder.rmdir()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a lock on a folder or a file, which is made if it does not exist; the lock ends with the process."""
    if sys.platform == "win32":  # where nothing that is open can be renamed
        yield
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR | os.O_CREAT, 0o666)
    try:
        with suppress(OSError):  # a file system without locks: nobody will remove anything there
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(descriptor)


@contextmanager
def hold(path: Path, busy: str) -> Iterator[None]:
    """Hold a file that only one process can hold at a time; it is made if it does not exist.

    Raises:
        InputError: with the message `busy`, if another process, or this one, holds it; or if it cannot be made.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as error:
        raise InputError(f"{path}: cannot be made: {error.strerror}; check the folder and its permissions.") from error
    try:
        try:
            _lock(descriptor)
        except OSError as error:
            raise InputError(busy) from error
        yield
    finally:
        os.close(descriptor)


def _lock(descriptor: int) -> None:
    """Lock an open file, or raise an OSError if it is locked."""
    if sys.platform == "win32":
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
    else:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)


@lru_cache(maxsize=256)
def _remove_unfinished(folder: Path) -> None:
    """Remove what nobody holds a lock on any more; once in each process is enough."""
    if sys.platform == "win32":
        return
    for path in folder.glob(".*.part*"):
        if UNFINISHED.fullmatch(path.name):
            with suppress(OSError):  # it is locked, belongs to somebody else, or another run was faster
                _remove_if_free(path)


def _remove_if_free(path: Path) -> None:
    """Remove a file or folder, or raise an OSError if it is locked."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    finally:
        os.close(descriptor)
