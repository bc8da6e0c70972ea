"""What all trials by damaged files share."""

import resource
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.fuzz.mutation import MOST_MEMORY, Guard


@pytest.fixture(scope="session")
def guarded() -> Guard:
    """Runs a reader on a damaged file; see `Guard`."""
    return Guard()


@pytest.fixture(autouse=True, scope="module")
def bounded_memory() -> Iterator[None]:
    """Let a reader that asks for a hundred times too much fail its test rather than the machine."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    size = Path("/proc/self/statm")
    if size.exists():  # on Linux
        in_use = int(size.read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (in_use + 8 * MOST_MEMORY, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)
