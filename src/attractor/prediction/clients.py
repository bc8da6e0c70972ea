"""Processes that do the steps of a large image: on this machine, or those of a Dask scheduler.

Nothing here needs torch, so they start, and import it, while the process that calls them still does. On Linux one
process imports it for all, and they are copies of that one: quick to start, and to start again after one has died.
"""

from __future__ import annotations

import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

from attractor.errors import InputError
from attractor.wording import install

RETRIES = 3  # times that a step is given to another worker after one has died
PATIENCE = 20  # seconds until a scheduler must have answered
SETTINGS = {
    "distributed.scheduler.allowed-failures": RETRIES,
    "distributed.scheduler.worker-saturation": 1.0,
    # these would interrupt each step some hundred times a second
    "distributed.worker.profile.enabled": False,
    "distributed.admin.tick.interval": "1s",
}
NEEDED = ["zarr", "attractor.prediction.schedulers"]  # what a worker of this machine imports first
CAN_COPY = sys.platform == "linux"  # Windows cannot copy a process, and on a Mac copies can crash in its libraries
THREADS = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"


@contextmanager
def connected(*, workers: int = 1, scheduler: str | None = None) -> Iterator[Callable[[], Any | None]]:
    """Processes that start meanwhile.

    Args:
        workers: processes on this machine; 1 is this process alone.
        scheduler: the address of a Dask scheduler, whose workers see the same files under the same names.

    Returns:
        A function that waits until the processes have started, and gives Dask's client; None if this process does all.
        It raises an InputError if the scheduler cannot be reached.

    Raises:
        InputError: if the number cannot be, or Dask is missing.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}; give a number from 1.")
    if workers == 1 and scheduler is None:
        yield lambda: None
        return
    if importlib.util.find_spec("distributed") is None:
        raise InputError(f"Several workers need Dask's scheduler, which is not installed. {install('scale')}")
    if scheduler is None and CAN_COPY:
        _import_once(workers)
    importlib.import_module("distributed")  # here: in the thread below, it would wait for what this one imports
    with ExitStack() as started, ThreadPoolExecutor(1) as aside:  # the thread is waited for before all is closed
        yield aside.submit(_client, workers, scheduler, started).result


def _import_once(workers: int) -> None:
    """Start the process that imports what workers need, and that they will be copies of."""
    from multiprocessing import forkserver

    own = {name: os.environ.get(name) for name in THREADS}
    forkserver.set_forkserver_preload(["distributed", *NEEDED])
    os.environ.update(_threads(workers))  # for that process, which reads them as it starts
    try:
        forkserver.ensure_running()
    finally:
        for name, value in own.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _threads(workers: int) -> dict[str, str]:
    """How many threads each of several workers of this machine gets, as libraries are told before they are imported."""
    return dict.fromkeys(THREADS, str(max(1, (os.cpu_count() or 1) // workers)))


def _client(workers: int, scheduler: str | None, started: ExitStack) -> Any:
    """A client of a scheduler that somebody else started, or of processes of its own."""
    import dask
    from dask import distributed

    make_client: Any = distributed.Client  # which has no types
    with dask.config.set(SETTINGS):
        if scheduler is None:
            return started.enter_context(make_client(_cluster(workers, started), set_as_default=False))
        try:
            return started.enter_context(make_client(scheduler, timeout=PATIENCE, set_as_default=False))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{scheduler}: no scheduler answers there ({error}); start one with `dask scheduler`."
            ) from error


def _cluster(workers: int, started: ExitStack) -> Any:
    """Processes on this machine, which share its processors, and have imported what a step needs."""
    import dask
    from dask import distributed

    make_cluster: Any = distributed.LocalCluster
    local: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "preload": NEEDED}
    # Dask would also warn of every worker that a busy machine ends late; what fails is told by ourselves.
    local["silence_logs"] = logging.ERROR
    # no dashboard, which would be open to the network, and a port that no other cluster on this machine can have taken
    local |= {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    starting = {
        # Dask would put these into this process's own environment
        "distributed.nanny.pre-spawn-environ": {} if CAN_COPY else _threads(workers),
        "distributed.worker.multiprocessing-method": "forkserver" if CAN_COPY else "spawn",
    }
    started.enter_context(dask.config.set(starting))  # until all is closed: a worker that dies is started again
    return started.enter_context(make_cluster(host="127.0.0.1", **local))
