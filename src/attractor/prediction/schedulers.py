"""Who does the steps of a large image: this process, workers on this machine, or those of a Dask scheduler.

Only numbers travel: what a step makes is in files. A worker that dies costs the step that it was doing, which another
one does again. Steps are begun as soon as what they need is there, row by row, so that little has to be kept at once.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from attractor.errors import InputError
from attractor.prediction.blocks import Ledger
from attractor.prediction.clients import RETRIES
from attractor.prediction.slide import Plan, Task, do, painting
from attractor.shortage import is_for_memory

AHEAD = 2  # steps that wait at each worker, so that none is idle


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


def pool_for(plan: Plan, client: Any | None = None) -> Pool:
    """Who does the steps of a plan: the workers of a Dask client, or without one this process."""
    return Here(plan) if client is None else Workers(plan, client)


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
