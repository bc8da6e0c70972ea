"""Memory that is freed is used again, in this process and in those that it starts."""

import os
import platform
import subprocess
import sys

import pytest

from attractor.freed_memory import FOR_CHILDREN, keep_freed_memory

of_glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="counts what GNU's C library does")

FAULTS = """
import resource, sys
from attractor.freed_memory import keep_freed_memory

if "keep" in sys.argv:
    assert keep_freed_memory()

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    b'x' * (1 << 26)  # 64 MB, which are freed at once
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

def again():
    return [faults() for _ in range(4)][-1]

if "child" in sys.argv:
    import subprocess
    words = [word for word in sys.argv[2:] if word not in ("keep", "child")]
    print(subprocess.run([sys.executable, "-c", sys.argv[1], sys.argv[1], *words], stdout=-1, text=True).stdout)
elif "thread" in sys.argv:
    from concurrent.futures import ThreadPoolExecutor
    print(ThreadPoolExecutor(1).submit(again).result())
else:
    print(again())
"""


def faults(*words: str, **more: str) -> int:
    """Pages that the kernel had to clear for 64 MB, after the same was allocated and freed before."""
    known = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_", "LD_"))}
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, FAULTS, *words], capture_output=True, text=True, env=known | more, check=False
    )
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@of_glibc
def test_freed_memory_is_used_again():
    assert faults("keep") < 1000


@of_glibc
def test_freed_memory_of_another_thread_too():
    assert faults("keep", "thread") < 1000
    assert faults("keep", "child", "thread") < 1000


@of_glibc
def test_so_do_processes_that_this_one_starts():
    assert faults("keep", "child") < 1000


@of_glibc
def test_without_it_every_page_is_cleared_anew():
    assert faults() > 10_000


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES", "LD_PRELOAD"])
def test_what_the_user_has_chosen_stays(name, monkeypatch):
    for other in FOR_CHILDREN:
        monkeypatch.delenv(other, raising=False)
    monkeypatch.setenv(name, "")
    before = dict(os.environ)
    assert not keep_freed_memory()
    assert dict(os.environ) == before


def test_other_systems_are_left_alone(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
