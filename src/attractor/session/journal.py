"""`edits.jsonl`: one line for each operation, on disk before anything else is written.

A line says the revision, when and by whom, the operation, and what it changed. A line that a killed program left
unfinished can only be the last one; it is removed when the file is opened to be written.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any

from attractor.errors import InputError
from attractor.images import flush
from attractor.session.canvas import Box, Change
from attractor.shortage import cure

LONGEST_WHO = 200  # characters of a name


@dataclass(frozen=True)
class Record:
    """What is remembered of a line: all but the pixels, which `Journal.change` reads again."""

    revision: int
    when: str
    who: str
    image: str
    operation: dict[str, Any]
    box: Box
    last_label: int  # the highest label that it speaks of
    place: int  # of the line in the file, in bytes

    @property
    def kind(self) -> str:
        """The kind of the operation."""
        return str(self.operation["kind"])


@dataclass(frozen=True)
class Entry:
    """One line: an operation, or one that takes an earlier revision back or does it again."""

    revision: int  # from 1, over all images
    when: str  # ISO 8601, UTC
    who: str
    image: str
    operation: dict[str, Any]  # as JSON; of kind "undo" or "redo", with the revision that it is "of"
    change: Change

    @property
    def kind(self) -> str:
        """The kind of the operation."""
        return str(self.operation["kind"])

    def record(self, place: int) -> Record:
        """What is remembered of it, if its line begins there."""
        last = max((0, *self.change.things[0], *self.change.things[1]))
        return Record(self.revision, self.when, self.who, self.image, self.operation, self.change.box, last, place)

    def as_line(self) -> bytes:
        """The line, with its end."""
        content = {**vars(self), "change": self.change.as_json()}
        return (json.dumps(content, separators=(",", ":")) + "\n").encode()

    @classmethod
    def from_line(cls, line: bytes) -> Entry:
        """The entry of a line.

        Raises:
            ValueError, KeyError or TypeError: if it is no such line.
        """
        content = json.loads(line)
        operation = dict(content["operation"])
        if not isinstance(operation["kind"], str) or not isinstance(content["revision"], int):
            raise TypeError("the operation has no kind, or the revision is not a number")
        when, who, image = (str(content[name]) for name in ("when", "who", "image"))
        return cls(content["revision"], when, who, image, operation, Change.from_json(content["change"]))


class Journal:
    """The file, open at its end."""

    def __init__(self, path: Path) -> None:
        """Open it; it is made if there is none.

        Raises:
            InputError: if it cannot be opened.
        """
        self.path = path
        try:
            self._file = path.open("ab", buffering=0)
            os.truncate(path, whole_length(path))
            flush(path.parent)
        except OSError as error:
            raise InputError(f"{path}: cannot be opened: {error.strerror}.") from error

    def change(self, record: Record) -> Change:
        """The change of a line that is there."""
        with self.path.open("rb") as file:
            file.seek(record.place)
            return Entry.from_line(file.readline()).change

    def append(self, entry: Entry) -> Record:
        """Write a line; it is on disk when this returns, or it is not there at all.

        Raises:
            InputError: if it cannot be written.
        """
        before, line = self._file.tell(), entry.as_line()
        try:
            if self._file.write(line) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(self._file.fileno())
        except OSError as error:
            os.truncate(self.path, before)
            what_to_do = cure(error) or "check the folder"
            raise InputError(f"{self.path}: cannot be written: {error.strerror}; {what_to_do}.") from error
        return entry.record(before)

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Journal:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def whole_length(path: Path) -> int:
    """Bytes up to the end of the last whole line."""
    size = path.stat().st_size
    with path.open("rb") as file:
        for end in range(size, 0, -(1 << 16)):
            start = max(0, end - (1 << 16))
            file.seek(start)
            place = file.read(end - start).rfind(b"\n")
            if place >= 0:
                return start + place + 1
    return 0


def records(path: Path) -> Iterator[Record]:
    """What is remembered of all lines, first to last; an unfinished line at the end is passed over.

    Raises:
        InputError: if a line is damaged.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        place = 0
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):
                return
            try:
                yield Entry.from_line(line).record(place)
                place += len(line)
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise InputError(
                    f"{path}: line {number} is damaged ({error}); the lines after it cannot be done again. Keep a copy "
                    "of the file, and cut it off before this line: labels/ has what was corrected."
                ) from error


def now() -> str:
    """The time, as a line has it."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")
