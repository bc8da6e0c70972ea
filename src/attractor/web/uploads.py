"""Images that are sent to the server: they get a safe name, and a process of its own opens each before it is kept."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from fastapi import UploadFile

from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, temporary_folder
from attractor.session import Session

MOST_PIXELS = 1 << 28  # of an uploaded image
DECODING_BYTES = 8 << 30  # of memory for looking at one
DECODING_SECONDS = 60.0


def added(session: Session, file: UploadFile) -> str:
    """Add an uploaded file, once a process of its own has found that it is an image; gives the image's name."""
    given = Path((file.filename or "image").replace("\\", "/")).name
    stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(given).stem).strip(" .")[:100] or "image"
    suffix = Path(given).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{given[:100]}: is no image that can be read here; images end in {', '.join(IMAGE_SUFFIXES)}."
        )
    with temporary_folder(session.folder) as work:
        path = work / f"{_free(stem, session)}{suffix}"
        with path.open("wb") as target:
            while part := file.file.read(1 << 20):
                target.write(part)
        look_at(path, given)
        return session.copy(path)


def _free(stem: str, session: Session) -> str:
    """The name, or one with a number, that no image of the session has."""
    taken, free, number = set(session.images), stem, 2
    while free in taken:
        free, number = f"{stem} {number}", number + 1
    return free


def look_at(path: Path, given: str) -> None:
    """Open an image in a process of its own, with bounds on memory and time.

    Raises:
        InputError: if it cannot be opened there.
    """
    request = {"kind": "look", "path": str(path), "bytes": DECODING_BYTES, "pixels": MOST_PIXELS}
    command = [sys.executable, "-m", "attractor.web.worker"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        try:
            assert process.stdout is not None
            process.wait(DECODING_SECONDS)
            line = process.stdout.readline()
        except subprocess.TimeoutExpired:
            process.kill()
            line = '{"error": "It took too long to open."}'
    said = json.loads(line or '{"error": "It cannot be opened."}')
    if "error" in said:
        raise InputError(f"{given[:100]}: {str(said['error']).replace(str(path), 'the file')}")
