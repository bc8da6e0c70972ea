"""Files and folders: finding images, and writing files that appear whole or not at all."""

from __future__ import annotations

import errno
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from attractor.errors import InputError
from attractor.images.unfinished import locked, unfinished
from attractor.shortage import cure

IMAGE_SUFFIXES = (".png", ".tif", ".tiff", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".ppm", ".pgm")
ZARR = ("zarr.json", ".zgroup", ".zattrs", ".zarray")  # files that make a folder one of Zarr's
OUTPUT_ENDINGS = ("_labels.tif", "_overlay.png")  # images that `attractor segment` writes beside an image


def made(folder: str | Path) -> Path:
    """Make the folder, if it does not exist; gives its path.

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
    """A temporary path in the same folder, with the same suffix, which becomes `path` if the block ends without error.

    Raises:
        InputError: if the system refuses to write (no such folder, no permission, disk full).
    """
    path = Path(path)
    try:
        with unfinished(path.parent, path.suffix) as temporary, locked(temporary):
            yield temporary
            os.replace(temporary, path)
    except OSError as error:
        what_to_do = cure(error) or "check the folder and its permissions"
        raise InputError(
            f"{path}: cannot be written: {error.strerror or error}; {what_to_do}, or write to another folder."
        ) from error


@contextmanager
def durable(path: str | Path) -> Iterator[Path]:
    """Like `atomic`, and the new content is on the disk before it takes the place of the old one.

    After a power cut, a file that was only atomic may have its new name and no content. This takes milliseconds more.

    Raises:
        InputError: as `atomic`.
    """
    with atomic(path) as temporary:
        yield temporary
        flush(temporary)


def flush(path: Path) -> None:
    """Have the content of a file, or the names in a folder, on the disk; Windows cannot do so for folders."""
    if path.is_dir() and sys.platform == "win32":
        return
    descriptor = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network file systems cannot
            raise
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class Found:
    """What there is at the given paths."""

    images: tuple[Path, ...]
    problems: dict[Path, str]  # folder without an image, or that cannot be read -> what is wrong with it


def is_zarr(path: Path) -> bool:
    """Whether a path is a folder that holds a Zarr group or array."""
    return any((path / mark).is_file() for mark in ZARR)


def find_images(
    paths: Iterable[str | Path],
    *,
    written: tuple[str, ...] = OUTPUT_ENDINGS,
    inside: Callable[[Path, tuple[str, ...]], list[Path]] | None = None,
) -> Found:
    """Files as given, and the images directly in given folders, sorted by name, without what `segment` wrote there.

    Of a folder that has none but a folder `images`, as data sets and sessions of corrections have, those are taken.

    Args:
        paths: files and folders.
        written: endings of the names of what was written.
        inside: what a folder holds, if not files alone; raises InputError if it is nothing.

    Raises:
        InputError: if a path is missing, there is no image at all, or two files share a stem: their results would too.
    """
    images: dict[Path, Path] = {}  # resolved path -> path as given
    problems: dict[Path, str] = {}
    for path in map(Path, paths):
        try:
            files = (inside or _images_of)(path, written) if path.is_dir() else [existing(path)]
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


def _images_of(folder: Path, written: tuple[str, ...]) -> list[Path]:
    """The images of a folder, or of its folder `images`."""
    try:
        return images_in(folder, written)
    except InputError:
        if not (folder / "images").is_dir():
            raise
        return images_in(folder / "images", written)


def _refuse_shared_stems(files: Iterable[Path]) -> None:
    by_stem: dict[str, Path] = {}
    for file in files:
        other = by_stem.setdefault(file.stem, file)
        if other is not file:
            raise InputError(
                f"{other} and {file} share the stem {file.stem!r}, so one's results would overwrite the other's; "
                "rename one, or give them in two calls with different output folders."
            )


def images_in(folder: Path, written: tuple[str, ...] = OUTPUT_ENDINGS) -> list[Path]:
    """The images directly in a folder, sorted by name, without hidden files and what `segment` wrote.

    Raises:
        InputError: if there are none, or the folder cannot be read.
    """
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and file.is_file())
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from error
    files = [file for file in files if not file.name.startswith(".") and not file.name.endswith(written)]
    if not files:
        raise InputError(f"{folder}: holds no image; files must end in one of {', '.join(IMAGE_SUFFIXES)}.")
    return files


def by_number(file: Path) -> tuple[object, ...]:
    """Text and numbers of a name in turn, by which names are sorted as people would."""
    parts = re.split(r"(\d+)", file.stem)
    return tuple(int(part) if part.isdigit() else part for part in parts)


def check_folder_of(path: Path) -> None:
    """Refuse a file to write, the argument of --out, whose folder is not there.

    Raises:
        InputError: in this case.
    """
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path}: there is no such folder; make it, or give another --out.")


def existing(path: str | Path) -> Path:
    """The path, if a file is there."""
    path = Path(path)
    if path.is_dir():
        raise InputError(f"{path}: is a folder; give a file in it.")
    if not path.exists():
        raise InputError(f"{path}: no such file; check the name and the folder you are in.")
    if not path.is_file():
        raise InputError(f"{path}: is not a regular file; give an image file.")
    return path


def first_bytes(path: Path) -> bytes:
    """What tells a file's format.

    Raises:
        InputError: if the file is empty.
    """
    with path.open("rb") as file:
        start = file.read(8)
    if not start:
        raise InputError(f"{path}: the file is empty; copy or export it again.")
    return start
