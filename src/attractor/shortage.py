"""What a machine can have too little of, and what to do then: memory, room on the disk, open files, processes."""

from __future__ import annotations

import errno
from collections.abc import Iterator

CURES = {
    errno.ENOSPC: "make room on the disk",
    errno.EDQUOT: "make room on the disk",
    errno.EFBIG: "raise the limit on the size of files (ulimit -f)",
    errno.EMFILE: "raise the limit on open files (ulimit -n)",
    errno.ENFILE: "close other programs",
    errno.ENOMEM: "close other programs, or give smaller images",
    errno.EAGAIN: "close other programs, or raise the limit on processes (ulimit -u)",
}
OUT_OF_MEMORY = (
    "out of memory",  # CUDA
    "alloc_failed",  # its libraries
    "allocate memory",  # Linux
    "not enough memory",  # Windows
)
SAID = {  # errors that some libraries tell by words only
    **dict.fromkeys(OUT_OF_MEMORY, errno.ENOMEM),
    "failed to map segment": errno.ENOMEM,  # of a library that is being imported
    "too many open files": errno.EMFILE,
    "no space left on device": errno.ENOSPC,
    "can't start new thread": errno.EAGAIN,
    "killed by signal: killed": errno.ENOMEM,  # of a process that reads images, which Linux chose to make room
    "error return without exception set": errno.ENOMEM,  # torch's copy of a storage, where no memory is left to say so
}


def is_for_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device; torch has no class of its own for the CPU's."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(words in text for words in OUT_OF_MEMORY)


def cure(error: BaseException) -> str | None:
    """What to do where the machine has too little of something; None where the error says nothing of the kind."""
    if isinstance(error, MemoryError):
        return CURES[errno.ENOMEM]
    if isinstance(error, OSError) and error.errno in CURES:
        return CURES[error.errno]
    text = str(error).lower()
    return next((CURES[number] for words, number in SAID.items() if words in text), None)


def shortage_behind(error: BaseException) -> BaseException | None:
    """The first error that a shortage raised, where an error comes of one: libraries that fail to import hide it."""
    return next((earlier for earlier in reversed(list(_chain(error))) if cure(earlier)), None)


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it was raised from or while handling."""
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
