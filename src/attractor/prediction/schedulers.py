"""Who does the steps of a large image: this process, workers on this machine, or those of a Dask scheduler.

Only numbers travel: what a step makes is in files. A worker that dies costs the step that it was doing, which another
one does again. Steps are begun as soon as what they need is there, row by row, so that little has to be kept at once.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol, runtime_checkable

import torch

from attractor.errors import InputError
from attractor.prediction.blocks import Ledger
from attractor.prediction.slide import Plan, Task, do, painting
from attractor.shortage import is_for_memory
from attractor.wording import install

RETRIES = 3  # times that a step is given to another worker after one has died
AHEAD = 2  # steps that wait at each worker, so that none is idle
PATIENCE = 20  # seconds until a scheduler must have answered
SETTINGS = {"distributed.scheduler.allowed-failures": RETRIES, "distributed.scheduler.worker-saturation": 1.0}


@runtime_checkable
class Pool(Protocol):
    """Somebody who does steps."""

    @property
    def has_room(self) -> bool:
        """Whether another step should be given now."""

    @property
    def is_busy(self) -> bool:
        """Whether a step is under way."""

    def give(self, task: Task) -> None:
        """Begin a step."""

    def wait(self) -> Task:
        """The next step that is done."""


@dataclass
class Here:
    """This process, one step after another."""

    plan: Plan
    given: deque[Task] = field(default_factory=deque)

    @property
    def has_room(self) -> bool:
        """Whether it has nothing to do."""
        return not self.given

    @property
    def is_busy(self) -> bool:
        """Whether it has something to do."""
        return bool(self.given)

    def give(self, task: Task) -> None:
        """Begin a step."""
        self.given.append(task)

    def wait(self) -> Task:
        """Do the step."""
        try:
            return do(self.plan, self.given.popleft())
        except (MemoryError, RuntimeError) as error:
            if not is_for_memory(error):
                raise
            raise _too_large(self.plan) from error


class Workers:
    """The workers of a Dask client."""

    def __init__(self, plan: Plan, client: Any) -> None:
        """Begin nothing yet."""
        from dask import distributed

        self.plan, self.client = plan, client
        as_completed: Any = distributed.as_completed  # which has no types
        self.done = as_completed(loop=client.loop)
        self.n_under_way = 0

    @property
    def has_room(self) -> bool:
        """Whether some worker would soon be idle."""
        return bool(self.n_under_way < AHEAD * max(1, len(self.client.scheduler_info(n_workers=-1)["workers"])))

    @property
    def is_busy(self) -> bool:
        """Whether a step is under way."""
        return self.n_under_way > 0

    def give(self, task: Task) -> None:
        """Begin a step."""
        self.done.add(self.client.submit(do_on_own_gpu, self.plan, task, pure=False, retries=RETRIES))
        self.n_under_way += 1

    def wait(self) -> Task:
        """The next step that is done.

        Raises:
            InputError: as the step does, or if its workers died.
        """
        from distributed.scheduler import KilledWorker

        future = next(self.done)
        self.n_under_way -= 1
        try:
            task: Task = future.result()
        except KilledWorker as error:
            raise InputError(
                f"{error.task} was given to {RETRIES} workers, and each died, most often for want of memory; give a "
                "smaller --tile or fewer workers, and run the same command again."
            ) from error
        except (MemoryError, RuntimeError) as error:
            if not is_for_memory(error):
                raise
            raise _too_large(self.plan) from error
        future.release()
        return task


def do_on_own_gpu(plan: Plan, task: Task) -> Task:
    """Do a step in a worker; of several GPUs, each worker of this machine's own cluster has another one."""
    if plan.device == "cuda" and (n_devices := torch.cuda.device_count()) > 1:
        from dask import distributed

        get_worker: Any = distributed.get_worker  # which has no types
        if isinstance(number := get_worker().name, int):  # others were started by somebody who gave them their GPU
            torch.cuda.set_device(number % n_devices)
    return do(plan, task)


def _too_large(plan: Plan) -> InputError:
    return InputError(
        f"{plan.image}: tiles of {plan.tile} need more memory than there is; give a smaller --tile and --overwrite, or "
        "fewer workers."
    )


@contextmanager
def pools(*, workers: int = 1, scheduler: str | None = None) -> Iterator[Callable[[Plan], Pool]]:
    """Who does the steps of a plan, which need not be made yet: processes start meanwhile.

    Args:
        workers: processes on this machine; 1 is this process.
        scheduler: the address of a Dask scheduler, whose workers see the same files under the same names.

    Returns:
        A function that takes the plan. It waits until the processes have started, and raises an InputError if the
        scheduler cannot be reached.

    Raises:
        InputError: if the number cannot be, or Dask is missing.
    """
    if workers < 1:
        raise InputError(f"--workers is {workers}; give a number from 1.")
    if workers == 1 and scheduler is None:
        yield Here
        return
    if importlib.util.find_spec("distributed") is None:
        raise InputError(f"Several workers need Dask's scheduler, which is not installed. {install('scale')}")
    with ExitStack() as started, ThreadPoolExecutor(1) as aside:  # the thread is waited for before all is closed
        start = partial(_own_client, workers) if scheduler is None else partial(_client_of, scheduler)
        client = aside.submit(start, started)
        yield lambda plan: Workers(plan, client.result())


def _client_of(scheduler: str, started: ExitStack) -> Any:
    """A client of a scheduler that somebody else started."""
    import dask
    from dask import distributed

    make_client: Any = distributed.Client  # which has no types
    try:
        with dask.config.set(SETTINGS):
            return started.enter_context(make_client(scheduler, timeout=PATIENCE, set_as_default=False))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{scheduler}: no scheduler answers there ({error}); start one with `dask scheduler`."
        ) from error


def _own_client(workers: int, started: ExitStack) -> Any:
    """A client of processes on this machine, which have imported what a step needs."""
    import dask
    from dask import distributed

    make_client: Any = distributed.Client  # which has no types
    make_cluster: Any = distributed.LocalCluster
    threads = str(max(1, (os.cpu_count() or 1) // workers))
    numbers_of_threads = "OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NUMBA_NUM_THREADS"
    environment = {"distributed.nanny.pre-spawn-environ": dict.fromkeys(numbers_of_threads, threads)}
    local: dict[str, Any] = {"n_workers": workers, "threads_per_worker": 1, "memory_limit": 0, "preload": [__name__]}
    # Dask would also warn of every worker that a busy machine ends late; what fails is told by ourselves.
    local["silence_logs"] = logging.ERROR
    # no dashboard, which would be open to the network, and a port that no other cluster on this machine can have taken
    local |= {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with dask.config.set(SETTINGS | environment):
        cluster = started.enter_context(make_cluster(host="127.0.0.1", **local))
        return started.enter_context(make_client(cluster, set_as_default=False))


@dataclass(frozen=True)
class Progress:
    """How far a stage of the work is."""

    stage: str
    done: int
    total: int


def find_objects(ledger: Ledger, pool: Pool, own: Collection[int] | None = None) -> Iterator[Progress]:
    """Gather what grouping needs of blocks, and find the objects of those around which all is there.

    Args:
        ledger: of the work.
        pool: who does the steps.
        own: numbers of the blocks that are meant, rising; all by default. The objects of blocks at the border to others
            can only be found once those have been gathered.
    """
    numbers = range(len(ledger.blocks)) if own is None else own
    to_gather = deque(block for block in numbers if ledger.needs_gathering(block))
    to_find = {block for block in numbers if not ledger.is_found(block)}
    ready = deque(block for block in numbers if block in to_find and ledger.can_be_found(block))
    to_find -= set(ready)
    done = 2 * len(numbers) - len(to_gather) - len(to_find) - len(ready)
    while True:
        while pool.has_room and (ready or to_gather):
            pool.give(Task("find", ready.popleft()) if ready else Task("gather", to_gather.popleft()))
        if not pool.is_busy:
            return
        task = pool.wait()
        done += 1
        yield Progress("finding objects", done, 2 * len(numbers))
        if task.step == "gather":
            now = sorted(near for near in ledger.around(task.number) if near in to_find and ledger.can_be_found(near))
            ready.extend(now)
            to_find -= set(now)


def paint_labels(plan: Plan, pool: Pool) -> Iterator[Progress]:
    """Write the labels, once all objects are known.

    Raises:
        InputError: if some are not.
    """
    plan.ledger.number()
    stages = painting(plan)
    total, done = sum(map(len, stages)), 0
    for stage in stages:
        for _ in _each_done(pool, stage):
            done += 1
            yield Progress("writing labels", done, total)


def _each_done(pool: Pool, tasks: Iterable[Task]) -> Iterator[Task]:
    """The tasks as they are done, in any order."""
    left = deque(tasks)
    while left or pool.is_busy:
        while left and pool.has_room:
            pool.give(left.popleft())
        yield pool.wait()


def blocks_of_part(n: int, part: int, parts: int) -> range:
    """The blocks of one of several parts, which lie together."""
    return range(part * n // parts, (part + 1) * n // parts)
