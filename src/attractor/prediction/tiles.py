"""Large images in tiles: maps are computed tile by tile with a halo, stitched, and grouped once.

What a pixel says is relative to itself, so no object is cut at a seam and none has to be merged. Only the
network's view is shorter at the edge of a tile than in the whole image, which the halo makes up for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import fields
from typing import Any

from jaxtyping import Float
from torch import Tensor

from attractor.errors import InputError

HALO = 128  # pixels; ERFNet sees about 600 far, but hardly uses what is further than this


def tiled_maps(
    predict: Callable[[Float[Tensor, "1 c _ _"]], Any], image: Float[Tensor, "1 c h w"], tile: int, *, halo: int = HALO
) -> Any:
    """The method's maps of an image, computed in tiles of `tile` pixels beside a halo on each side.

    Args:
        predict: maps of a batch of one.
        image: normalised.
        tile: side of the part that each pass adds; a multiple of the network's stride, so that tiles lie on its grid.
        halo: pixels seen around it; a multiple of the stride, too.
    """
    check_tile(tile, halo)
    h, w = image.shape[-2:]
    stitched: dict[str, Tensor] = {}
    kind: Any = None
    for (top, bottom), (left, right) in ((r, c) for r in _spans(h, tile) for c in _spans(w, tile)):
        above, before = max(top - halo, 0), max(left - halo, 0)
        maps = predict(image[..., above : bottom + halo, before : right + halo])
        kind = type(maps)
        for field in fields(maps):
            part = getattr(maps, field.name)[..., top - above : bottom - above, left - before : right - before]
            if field.name not in stitched:
                stitched[field.name] = part.new_empty((*part.shape[:-2], h, w))
            stitched[field.name][..., top:bottom, left:right] = part
    return kind(**stitched)


def check_tile(tile: int, halo: int = HALO, *, stride: int = 8) -> None:
    """Refuse tiles that do not lie on the grid of a network whose coarsest features have this stride."""
    if tile < stride or tile % stride or halo % stride:
        raise InputError(
            f"A tile has {tile} pixels a side and a halo of {halo}; both must be multiples of {stride}, and a tile at "
            f"least {stride}."
        )


def _spans(n: int, tile: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + tile, n)) for start in range(0, n, tile))
