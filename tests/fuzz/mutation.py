"""Damaged files by the thousand, and the law that each reader keeps of them.

A corpus is a dict from a name to the bytes of a whole file. `mutants` damages its files at random, from a seed, and
`edits` is the same as a strategy for hypothesis, which finds the smallest damage that does harm. `Guard` runs a reader
on one of them and fails where it gives something else than a value or an `InputError`, takes too long or too much
memory, writes where it should not, or starts a process.

`ATTRACTOR_FUZZ=20 pytest tests/fuzz` tries twenty times as many.
"""

from __future__ import annotations

import os
import re
import resource
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any, TypeVar

import pytest
from hypothesis import strategies as st

from attractor.errors import InputError

T = TypeVar("T")

EFFORT = float(os.environ.get("ATTRACTOR_FUZZ", "1"))
MOST_MEMORY = 1 << 30  # bytes that one call may need beyond what is there already
MOST_SECONDS = 5.0  # of processor time, as other programs may be at work
LONGEST_MESSAGE = 2000  # letters; nobody reads more

NUMBERS = (b"-1", b"0", b"1e999", b"nan", b"1" * 400, b"9223372036854775808", b"2147483648", b"null", b'"x"', b"[]")
VALUES = (0, 1, 2, 3, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)

Damage = Callable[[Random, bytearray, bytes], None]  # changes the bytes, and may take from those of another file


def cases(n: int) -> int:
    """How many cases to try where n are tried by default."""
    return max(1, round(n * EFFORT))


# --- damage -----------------------------------------------------------------------------------------------------------


def flip_bits(random: Random, file: bytearray, _: bytes) -> None:
    """Turn over a few bits anywhere."""
    for _ in range(random.randint(1, 8)):
        file[random.randrange(len(file))] ^= 1 << random.randrange(8)


def cut_off(random: Random, file: bytearray, _: bytes) -> None:
    """Leave out the end."""
    del file[random.randrange(len(file)) :]


def cut_out(random: Random, file: bytearray, _: bytes) -> None:
    """Leave out a part."""
    first = random.randrange(len(file))
    del file[first : first + random.randint(1, max(1, len(file) // 4))]


def repeat(random: Random, file: bytearray, _: bytes) -> None:
    """Have a part twice."""
    first = random.randrange(len(file))
    file[first:first] = file[first : first + random.randint(1, 64)]


def splice(random: Random, file: bytearray, other: bytes) -> None:
    """Go on as another file does."""
    del file[random.randrange(len(file)) :]
    file += other[random.randrange(len(other)) :]


def graft(random: Random, file: bytearray, other: bytes) -> None:
    """Put a part of another file over one of this."""
    first, start = random.randrange(len(file)), random.randrange(len(other))
    length = random.randint(1, 64)
    file[first : first + length] = other[start : start + length]


def write_number(random: Random, file: bytearray, _: bytes) -> None:
    """Write a number of 1, 2 or 4 bytes that programs stumble over, most often near the beginning."""
    size = random.choice((1, 2, 4))
    near = min(len(file), 64) if random.random() < 0.6 else len(file)
    first = random.randrange(near)
    value = (random.choice(VALUES) & ((1 << 8 * size) - 1)).to_bytes(size, "big")
    file[first : first + size] = value if random.random() < 0.5 else value[::-1]


def replace_number(random: Random, file: bytearray, _: bytes) -> None:
    """Replace a number that is written in digits, or put one in where there is none."""
    places = [found.span() for found in re.finditer(rb"-?\d[\d.eE+-]*", file)]
    first, last = random.choice(places or [(0, 0)])
    file[first:last] = random.choice(NUMBERS)


DAMAGES: tuple[Damage, ...] = (
    flip_bits, cut_off, cut_out, repeat, splice, graft, write_number, write_number, replace_number,
)  # fmt: skip


def damaged(random: Random, whole: bytes, other: bytes) -> bytes:
    """The file after one to three damages."""
    file = bytearray(whole)
    for _ in range(random.randint(1, 3)):
        if not file:
            break
        random.choice(DAMAGES)(random, file, other or b"\0")
    return bytes(file)


def mutants(corpus: Mapping[str, bytes], n: int, *, seed: int = 0) -> Iterator[tuple[str, bytes]]:
    """Damaged files, n of them at an effort of 1, each with the name of the one that it was made of."""
    names = sorted(corpus)
    for number in range(cases(n)):
        random = Random(f"{seed} {number}")  # each case can be had without those before it
        name, other = names[number % len(names)], random.choice(names)
        yield name, damaged(random, corpus[name], corpus[other])


def edits(corpus: Mapping[str, bytes]) -> st.SearchStrategy[bytes]:
    """A file of the corpus with up to six bytes or stretches replaced by any others."""
    edit = st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 16), st.binary(max_size=8))
    return st.builds(_edited, st.sampled_from(sorted(corpus.values())), st.lists(edit, max_size=6))


def _edited(whole: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    """The bytes with stretches, given by their place as a share of the whole and their length, replaced."""
    file = bytearray(whole)
    for place, length, replacement in changes:
        first = int(place * len(file))
        file[first : first + length] = replacement
    return bytes(file)


# --- the law ----------------------------------------------------------------------------------------------------------


class Guard:
    """Runs readers and fails where one breaks the law; there is one for a session, since audit hooks stay."""

    def __init__(self) -> None:
        """Begin to listen to what the interpreter does."""
        self.forbidden: list[str] = []
        self._allowed: Path | None = None
        self._is_listening = False
        sys.addaudithook(self._listen)

    def __call__(self, call: Callable[[], T], *, what: str = "", writes_to: Path | None = None) -> T | None:
        """What the call gives, or None where it says by an `InputError` what is wrong.

        Args:
            call: reads one file.
            what: the case, for the message of a failure.
            writes_to: a folder in which it may write.
        """
        self.forbidden, self._allowed = [], writes_to and writes_to.resolve()
        before, started = _start_of_memory(), time.process_time()
        self._is_listening = True
        try:
            found, problem = call(), ""
        except InputError as error:
            found, problem = None, _problem_of(error)
        except Exception as error:  # whatever it is, it is the finding
            pytest.fail(f"{what}: {type(error).__name__}: {error}"[:LONGEST_MESSAGE])
        finally:
            self._is_listening = False
        seconds, memory = time.process_time() - started, _most_memory() - before
        if memory > MOST_MEMORY:  # which may be why it is slow
            problem = f"took {memory / 1e6:.0f} MB"
        elif seconds > MOST_SECONDS:
            problem = f"took {seconds:.1f} s"
        if problem or self.forbidden:
            pytest.fail(f"{what}: {problem or self.forbidden}")
        return found

    def _listen(self, event: str, arguments: tuple[Any, ...]) -> None:
        """Note what changes a file, starts a process or calls another machine."""
        if not self._is_listening:
            return
        if event == "open":
            path, mode, flags = arguments
            writes = isinstance(flags, int) and flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC)
            if writes and not self._is_allowed(path):
                self.forbidden.append(f"opened {path!r} to write ({mode})")
        elif event in ("os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.symlink", "os.link"):
            names = [name for name in arguments if isinstance(name, str | bytes | os.PathLike)]
            folders = [_folder(descriptor) for descriptor in arguments[-len(names) :]]  # that names are relative to
            if not all(
                self._is_allowed(folder / os.fsdecode(name)) for folder, name in zip(folders, names, strict=True)
            ):
                self.forbidden.append(f"{event} {arguments!r}")
        elif event == "os.truncate":
            if not self._is_allowed(arguments[0]):
                self.forbidden.append(f"{event} {arguments!r}")
        elif event in ("subprocess.Popen", "os.system", "os.exec", "os.fork", "os.posix_spawn", "socket.connect"):
            self.forbidden.append(f"{event} {arguments!r}")

    def _is_allowed(self, path: Any) -> bool:
        """Whether a path lies in the folder that may be written to."""
        if isinstance(path, int):  # a descriptor that is open already
            return True
        path = os.fspath(path)
        if path in ("/dev/null", b"/dev/null"):
            return True
        place = Path(os.fsdecode(path)).resolve()
        return self._allowed is not None and place.is_relative_to(self._allowed)


def _folder(descriptor: Any) -> Path:
    """The folder of a descriptor as audit events have it: -1 is the working folder."""
    if not isinstance(descriptor, int) or descriptor < 0:
        return Path()
    return Path(os.readlink(f"/proc/self/fd/{descriptor}"))


def _problem_of(error: InputError) -> str:
    """What is wrong with an error that was meant for a person to read; nothing, most often."""
    message = str(error)
    if isinstance(error.__cause__, MemoryError):
        return f"ran out of memory: {message}"
    if not message.strip():
        return "the message is empty"
    if len(message) > LONGEST_MESSAGE:
        return f"the message has {len(message):,} letters: {message[:200]}…"
    if not message.replace("\n", "").isprintable():
        return f"the message has control characters: {message[:200]!r}"
    return ""


def _start_of_memory() -> int:
    """Bytes in use now; the most from now on is counted anew where the system can do that (Linux)."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return _most_memory()


def _most_memory() -> int:
    """Bytes that were in use at most since the start of counting."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024
