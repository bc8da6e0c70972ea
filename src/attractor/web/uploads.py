"""Images that are sent to the server: they get a safe name, and a process of its own opens each before it is kept."""

from __future__ import annotations

import asyncio
import shutil
import threading
from pathlib import Path

import numpy as np
from fastapi import UploadFile

from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, temporary_folder
from attractor.instances import Instances
from attractor.session import Session
from attractor.session.trash import bytes_of_images
from attractor.web.process import Worker

MOST_PIXELS = 1 << 28  # of an uploaded image
DECODING_BYTES = 8 << 30  # of memory for looking at one
DECODING_SECONDS = 60.0
MEGA = 1_000_000
LOOKING = 2  # files that are looked at at once


class Looks:
    """Opens images in processes in which neither a bomb nor a crash does harm; each opens many, one after another."""

    def __init__(self) -> None:
        """Begin without a process; one is started when all others are at work."""
        self.free = asyncio.Semaphore(LOOKING)  # for those who come from the loop
        self._all: set[Worker] = set()
        self._idle: list[Worker] = []
        self._mutex = threading.Lock()

    def __call__(self, path: Path, given: str) -> tuple[int, int]:
        """Open an image, within bounds on memory and time; gives its rows and columns.

        Args:
            path: of the file.
            given: its name, for the message.

        Raises:
            InputError: if it cannot be opened there.
        """
        with self._mutex:
            worker = self._idle.pop() if self._idle else Worker()
            self._all.add(worker)
        request = {"kind": "look", "path": str(path), "bytes": DECODING_BYTES, "pixels": MOST_PIXELS}
        said = worker.ask(request, DECODING_SECONDS)
        with self._mutex:
            self._idle.append(worker) if worker.is_well else self._all.discard(worker)
        if not worker.is_well:
            worker.end()
        if "error" in said:
            raise InputError(told(str(said["error"]), path, given))
        return said["height"], said["width"]

    def close(self) -> None:
        """End the processes."""
        with self._mutex:
            for worker in self._all:
                worker.end()
            self._all.clear()
            self._idle.clear()


class Uploads:
    """Takes images into a session."""

    def __init__(self, session: Session, looks: Looks, quota: int | None = None) -> None:
        """Take them once they were looked at, up to a number of bytes in all."""
        self._session, self._looks, self._quota = session, looks, quota
        self._naming = threading.Lock()  # two of one name must not find it free at once

    def add(self, file: UploadFile) -> str:
        """Add a file that was sent; gives the image's name.

        Raises:
            InputError: if it is no image, or cannot be kept.
        """
        given = given_name(file)
        with temporary_folder(self._session.folder) as work:
            path = saved(file, work)
            height, width = self._looks(path, given)
            with self._naming:
                free = path.with_stem(self._free(safe_stem(given)))
                shutil.move(path, free)
                self._check_quota(free, given)
                name = self._session.copy(free)
        empty = np.zeros((height, width), np.int32)
        self._session.put(name, Instances(empty, np.zeros(0, np.int32), np.zeros(0, np.float32)))
        return name

    def _free(self, stem: str) -> str:
        """The name, or one with a number, that no image of the session has or had."""
        free, number = stem, 2
        while self._session.is_taken(free):
            free, number = f"{stem} {number}", number + 1
        return free

    def _check_quota(self, path: Path, given: str) -> None:
        """Refuse a file for which there is no room."""
        if self._quota is None:
            return
        used, size = bytes_of_images(self._session.folder), path.stat().st_size
        if used + size > self._quota:
            raise InputError(
                f"{given[:100]}: takes {size / MEGA:,.1f} MB, and the images of this session take {used / MEGA:,.1f} "
                f"of {self._quota / MEGA:,.1f} MB; remove some and empty the trash, or ask for a larger --quota."
            )


def given_name(file: UploadFile) -> str:
    """The name of a file as it was on the sender's machine, without folders."""
    return Path((file.filename or "image").replace("\\", "/")).name


def told(words: str, path: Path, given: str) -> str:
    """What a process says of a file, as its sender knows it."""
    return f"{given[:100]}: {words.removeprefix(f'{path}: ').replace(str(path), given[:100])}"


def safe_stem(given: str) -> str:
    """A name that a file can have on any machine."""
    return "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(given).stem).strip(" .")[:100] or "image"


def saved(file: UploadFile, folder: Path) -> Path:
    """The file in a folder, under a name of our own.

    Raises:
        InputError: if its name is not that of an image.
    """
    given = given_name(file)
    suffix = Path(given).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{given[:100]}: is no image that can be read here; images end in {', '.join(IMAGE_SUFFIXES)}."
        )
    path = folder / f"sent{suffix}"
    with path.open("wb") as target:
        shutil.copyfileobj(file.file, target, 1 << 20)
    return path
