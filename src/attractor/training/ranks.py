"""Several devices that train one model together: who starts the processes, and what they must agree on.

Each process, or rank, has its share of every batch, and its share of the validation images, without any that are
counted twice. What depends on a clock is decided by the first rank, since all must take the same steps.
"""

from __future__ import annotations

import logging
import os
import warnings
from collections.abc import Sequence
from typing import Literal, TypeVar

import torch
from lightning.pytorch.strategies import DDPStrategy
from torch import distributed, nn

from attractor.errors import InputError

T = TypeVar("T")
ELSEWHERE = ("WORLD_SIZE", "SLURM_NTASKS")  # set where torchrun or SLURM starts the processes


def number_of_devices(devices: str | int, device: torch.device) -> int:
    """How many devices of a kind are meant, on this machine.

    Args:
        devices: a number from 1, or "auto" for all GPUs that are there; on a processor, that is 1.
        device: of the kind.

    Raises:
        InputError: if it is no such number, or there are not so many.
    """
    there = torch.cuda.device_count() if device.type == "cuda" else 1
    if devices == "auto":
        return max(1, there)
    if not str(devices).isdigit() or int(devices) < 1:
        raise InputError(f"--devices is {devices}; give a number from 1, or auto.")
    if device.type == "cuda" and int(devices) > there:
        raise InputError(f"--devices is {devices}, and this machine has {there}; give no more than that, or auto.")
    if device.type == "mps" and int(devices) > 1:
        raise InputError("Macs have a single MPS device; leave --devices out.")
    return int(devices)


def check_nodes(nodes: int) -> None:
    """Refuse a number of machines that cannot be, or that nobody has started processes on.

    Raises:
        InputError: in either case.
    """
    if nodes < 1:
        raise InputError(f"--nodes is {nodes}; give a number from 1.")
    if nodes > 1 and not are_started_elsewhere():
        raise InputError(
            f"--nodes is {nodes}, but nobody has started this command on other machines; start it on each, as by srun "
            f"or torchrun --nnodes {nodes}."
        )


def are_started_elsewhere() -> bool:
    """Whether torchrun or SLURM starts a process for each device."""
    return any(int(os.environ.get(name, "1")) > 1 for name in ELSEWHERE)


def is_first_process() -> bool:
    """Whether this process is the only one, or the first of those that were started elsewhere."""
    names = ("RANK", "SLURM_PROCID") if are_started_elsewhere() else ()
    return all(os.environ.get(name, "0") == "0" for name in names)


def strategy_of(n: int, *, changes: bool) -> DDPStrategy | str:
    """How Lightning shares the work.

    Args:
        n: devices in all.
        changes: whether some weights are used in some epochs only.
    """
    if n == 1:
        return "auto"
    # processes that this one starts itself need no file to start from
    start: Literal["popen", "spawn"] = "popen" if are_started_elsewhere() else "spawn"
    return _Quiet(start_method=start, find_unused_parameters=changes)


class _Quiet(DDPStrategy):
    """One that says nothing, in new processes either."""

    def setup_environment(self) -> None:
        hush()
        super().setup_environment()


def hush() -> None:
    """Do not show what Lightning warns of, and what is meant to be so."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (
        ".*does not have many workers.*",
        ".*Checkpoint directory .* exists and is not empty.*",
        "The dirpath has changed.*",  # a folder may be moved
        ".*isinstance.treespec, LeafSpec.*",  # within Lightning
        ".*sync_dist=True.*",  # all ranks log the same scores
        "Grad strides do not match bucket view strides.*",  # where a side of a kernel is 1, strides mean nothing
    ):
        warnings.filterwarnings("ignore", message=message)


def share_of_batch(batch_size: int, parts: int) -> int:
    """Crops of a batch that are seen at once, if it is seen in so many parts.

    Raises:
        InputError: if they would not be equal.
    """
    if batch_size % parts:
        raise InputError(
            f"training.batch_size is {batch_size}, which {parts} devices and parts (training.accumulate) cannot share "
            f"evenly; take a multiple of {parts}."
        )
    return batch_size // parts


def rank() -> int:
    """The number of this process, from 0."""
    return distributed.get_rank() if _are_several() else 0


def size() -> int:
    """How many processes train together."""
    return distributed.get_world_size() if _are_several() else 1


def _are_several() -> bool:
    return distributed.is_available() and distributed.is_initialized()


def agreed(value: float, device: torch.device) -> float:
    """What the first rank says."""
    if size() == 1:
        return value
    told = torch.tensor([value], dtype=torch.float32 if device.type == "mps" else torch.float64, device=device)
    distributed.broadcast(told, 0)
    return float(told)


def dealt(items: Sequence[T]) -> Sequence[T]:
    """Every n-th of the items, beginning with the rank's own."""
    return items[rank() :: size()]


def gathered(items: Sequence[T]) -> list[T]:
    """The results of all ranks, in the order of what `dealt` gave to each."""
    if size() == 1:
        return list(items)
    parts: list[list[T]] = [[] for _ in range(size())]
    distributed.all_gather_object(parts, list(items))
    n = sum(map(len, parts))
    return [parts[index % size()][index // size()] for index in range(n)]


@torch.no_grad()
def average_statistics(model: nn.Module) -> None:
    """Give all ranks the mean of the statistics that each has gathered."""
    if size() > 1:
        for statistics in model.buffers():
            if statistics.is_floating_point():
                distributed.all_reduce(statistics)
                statistics /= size()
