"""How much memory there is, and the tiles that an image can be computed in with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import psutil
import torch

from attractor.prediction.tiles import HALO

TILES = (2048, 1024, 512, 256)  # sides to choose from; multiples of every network's stride
MAPS = 200  # bytes a pixel of image, normalised image, maps and what is gathered of them
LAYERS = 6  # layers of each resolution whose features are held at once: measured up to 5 (ERFNet), 5.4 (U-Net)
OUT_OF_MEMORY = ("out of memory", "allocate memory", "not enough memory")  # CUDA, Linux, Windows
SHARE = 0.5  # of the free memory that a network may take: what is free is a guess, and others want some, too

CGROUPS = (  # a container's limit, use, and what the use is made of
    tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat")),
    tuple(
        Path("/sys/fs/cgroup/memory") / name
        for name in ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    ),
)
CACHED = ("inactive_file", "active_file")  # of files that were read: given back when asked for


def free_memory(device: torch.device) -> int:
    """Bytes that can still be had on a device; on a processor, what is left to a container if that is less."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, to be used again
        return torch.cuda.mem_get_info(device)[0] + held
    free = psutil.virtual_memory().available
    for limit, used, kinds in CGROUPS:
        if limit.is_file() and limit.read_text().strip().isdigit():
            sizes = dict(line.split()[:2] for line in kinds.read_text().splitlines()) if kinds.is_file() else {}
            cached = sum(int(sizes.get(f"total_{name}", sizes.get(name, 0))) for name in CACHED)
            free = min(free, int(limit.read_text()) - int(used.read_text()) + cached)
    return max(free, 0)


def bytes_per_pixel(network: Any) -> float:
    """Roughly what a network holds at once for each pixel of an image, in single precision, with image and maps."""
    channels, strides = getattr(network, "channels", (64,)), getattr(network, "strides", (2,))
    return MAPS + 4 * LAYERS * sum(c / s**2 for c, s in zip(channels, strides, strict=True))


def most_pixels(network: Any, device: torch.device) -> int:
    """How many pixels can be computed at once."""
    return int(SHARE * free_memory(device) / bytes_per_pixel(network))


def chosen_tile(height: int, width: int, network: Any, device: torch.device) -> int | None:
    """Side of the largest tiles that fit into the free memory; None where the whole image does."""
    most = most_pixels(network, device)
    if height * width <= most:
        return None
    return next((tile for tile in TILES if (tile + 2 * HALO) ** 2 <= most), TILES[-1])


def smaller_tile(tile: int | None, height: int, width: int) -> int | None:
    """The next tiles to try when memory ran out; None if there are no smaller ones."""
    now = max(height, width) if tile is None else tile
    return next((smaller for smaller in TILES if smaller < now), None)


def is_for_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device; torch has no class of its own for the CPU's."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or any(x in text for x in OUT_OF_MEMORY)
