"""Memory that was freed is kept for the next use, where the system's C library would give it back at once.

A network asks for some hundred megabytes and frees them, layer after layer. GNU's `malloc` maps each large piece anew
and unmaps it when it is freed, so that the kernel has to clear every page of every layer: up to a third of the time of
a call. A thread besides the first has an area of its own, which goes back just so; with one area, it keeps as well.
What is kept is used again by the same process, and goes back when it ends.

Source: mallopt(3) of the GNU C library.
"""

from __future__ import annotations

import ctypes
import os
import sys

TRIM_THRESHOLD, MMAP_MAX, ARENA_MAX = -1, -4, -8  # of mallopt
CHOSEN = {TRIM_THRESHOLD: -1, MMAP_MAX: 0, ARENA_MAX: 1}  # nothing trimmed, nothing mapped apart, one area for all
# The same for processes that this one starts; the C library reads these when it is loaded.
FOR_CHILDREN = {"MALLOC_TRIM_THRESHOLD_": str(1 << 60), "MALLOC_MMAP_MAX_": "0", "MALLOC_ARENA_MAX": "1"}


def keep_freed_memory() -> bool:
    """Let this process, and those that it starts, keep what they free; gives whether they do.

    Nothing changes where the user has chosen how memory is managed, by an environment variable such as
    `MALLOC_MMAP_MAX_`, `GLIBC_TUNABLES` or `LD_PRELOAD`, and on systems without GNU's C library.
    """
    chosen = any(name.startswith("MALLOC_") or name in ("GLIBC_TUNABLES", "LD_PRELOAD") for name in os.environ)
    if chosen or sys.platform != "linux":
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None or not all(mallopt(name, value) for name, value in CHOSEN.items()):
        return False
    os.environ.update(FOR_CHILDREN)
    return True
