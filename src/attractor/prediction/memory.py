"""Whole or in tiles: decided by the size of the image and the method, never by the memory that happens to be free.

If memory does run out, smaller tiles are tried; only then can labels depend on the machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import psutil
import torch

from attractor.networks import Network
from attractor.networks.contract import strides_along
from attractor.prediction.tiles import HALO

TILES = (2048, 1024, 512, 256)  # sides to choose from; multiples of every network's stride
TILES_OF_VOLUMES = (512, 256, 128, 64)  # likewise, along rows and columns
MAPS = 200  # bytes per pixel for the image, the normalised image, the maps and what is gathered from them
MAPS_OF_VIEWS = 32  # bytes per voxel for the sum of the maps of views
LAYERS = 6  # layers per resolution whose features are held at once: at most 5 (ERFNet) and 5.4 (U-Net) were measured
MOST_BYTES = 8 << 30  # that one pass may need according to `bytes_per_pixel`, which overestimates it

CGROUPS = (  # a container's limit, use, and what the use is made of
    tuple(Path("/sys/fs/cgroup") / name for name in ("memory.max", "memory.current", "memory.stat")),
    tuple(
        Path("/sys/fs/cgroup/memory") / name
        for name in ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.stat")
    ),
)
CACHED = ("inactive_file", "active_file")  # memory of files that were read: freed when it is needed


def free_memory(device: torch.device) -> int:
    """Bytes that are still free on a device; for the CPU in a container, no more than the container has left."""
    if device.type == "cuda":
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)  # by torch, for later use
        return torch.cuda.mem_get_info(device)[0] + held
    free = psutil.virtual_memory().available
    for limit, used, kinds in CGROUPS:
        if limit.is_file() and limit.read_text().strip().isdigit():
            sizes = dict(line.split()[:2] for line in kinds.read_text().splitlines()) if kinds.is_file() else {}
            cached = sum(int(sizes.get(f"total_{name}", sizes.get(name, 0))) for name in CACHED)
            free = min(free, int(limit.read_text()) - int(used.read_text()) + cached)
    return int(max(free, 0))


def bytes_per_pixel(network: Network, n_axes: int = 2) -> float:
    """Roughly the bytes that a network in float32 holds at once for each pixel of an image, with image and maps."""
    channels = zip(network.channels, strides_along(network, n_axes), strict=True)
    return MAPS + 4 * LAYERS * sum(c / math.prod(strides) for c, strides in channels)


def most_pixels(network: Network, n_axes: int = 2) -> int:
    """How many pixels a network computes at once: 19 million with ERFNet, a square of side 4,400."""
    return int(MOST_BYTES / bytes_per_pixel(network, n_axes))


def chosen_tile(
    height: int, width: int, network: Network, *, magnification: float = 1.0, halo: int = HALO
) -> int | None:
    """Side of the largest tiles of at most `most_pixels` pixels; None if the whole image has no more than that.

    Args:
        height: of the image.
        width: of the image.
        network: that sees it.
        magnification: at which the network sees each tile, or the image.
        halo: pixels seen around each tile.
    """
    most = most_pixels(network) / magnification**2
    if height * width <= most:
        return None
    return next((tile for tile in TILES if (tile + 2 * halo) ** 2 <= most), TILES[-1])


def chosen_tile_of_volume(
    shape: tuple[int, ...], network: Network, sides: Callable[[int], tuple[int, ...]], *, tta: bool = False
) -> int | None:
    """Side along rows and columns of the largest tiles of at most `most_pixels` voxels; None to compute it whole.

    Args:
        shape: of the volume.
        network: that sees it.
        sides: what a pass sees along each axis, with its halo, for tiles of a side.
        tta: whether it is seen in several views, whose maps are averaged.
    """
    most = MOST_BYTES / (bytes_per_pixel(network, 3) + MAPS_OF_VIEWS * tta)
    if math.prod(shape) <= most:
        return None
    seen = {
        tile: math.prod(min(n, own) for n, own in zip(shape, sides(tile), strict=True)) for tile in TILES_OF_VOLUMES
    }
    return next((tile for tile, n in seen.items() if n <= most), TILES_OF_VOLUMES[-1])


def smaller_tile(tile: int | None, shape: tuple[int, ...]) -> int | None:
    """The next tiles to try when memory ran out; None if there are no smaller ones."""
    now = max(shape[-2:]) if tile is None else tile
    return next((smaller for smaller in (TILES if len(shape) == 2 else TILES_OF_VOLUMES) if smaller < now), None)
