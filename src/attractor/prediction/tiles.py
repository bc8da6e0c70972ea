"""Large images in tiles: maps are computed tile by tile with a halo, stitched, and grouped once.

What a pixel says is relative to itself, so no object is cut at a seam and none has to be merged. The network does
see less at the edge of a tile than in the whole image; the halo makes up for that.

Shapes: `c` channels, `h` rows, `w` columns, `r` rows of a strip.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from attractor.errors import InputError

HALO = 384  # pixels; ERFNet sees up to about 600 pixels away, but hardly uses what is beyond this


M = TypeVar("M")  # a method's maps: a dataclass of tensors
Part = tuple[EllipsisType, slice, slice]


@runtime_checkable
class Parts(Protocol):
    """A normalised image (1, c, h, w) that gives parts of itself; a tensor is one."""

    @property
    def shape(self) -> Sequence[int]:
        """Its lengths."""

    def __getitem__(self, part: Part, /) -> Tensor:
        """The part `[..., rows, columns]`."""


def tiled_maps(predict: Callable[[Float[Tensor, "1 c _ _"]], M], image: Parts, tile: int, *, halo: int = HALO) -> M:
    """The method's maps of an image, computed in tiles; arguments are those of `strips`."""
    h = image.shape[-2]
    stitched: dict[str, Tensor] = {}
    for top, maps in strips(predict, image, tile, halo=halo):
        for name, part in vars(maps).items():
            if name not in stitched:
                stitched[name] = part.new_empty((*part.shape[:-2], h, part.shape[-1]))
            stitched[name][..., top : top + part.shape[-2], :] = part
    return _of_kind(maps, stitched)


def _of_kind(maps: M, tensors: dict[str, Tensor]) -> M:
    """Maps of the same method with other tensors."""
    twin = copy.copy(maps)
    vars(twin).update(tensors)
    return twin


def strips(
    predict: Callable[[Float[Tensor, "1 c _ _"]], M], image: Parts, tile: int, *, halo: int = HALO
) -> Iterator[tuple[int, M]]:
    """The maps of strips as wide as the image and as high as a tile, each with the row at which it begins.

    Args:
        predict: maps of a batch of one.
        image: normalised.
        tile: side of the part that each pass adds; a multiple of the network's stride, so that tiles lie on its grid.
        halo: pixels seen around it; also a multiple of the stride.

    Raises:
        InputError: if tile or halo is not such a multiple.
    """
    check_tile(tile, halo)
    h, w = image.shape[-2:]
    for top, bottom in _spans(h, tile):
        stitched: dict[str, Tensor] = {}
        for left, right in _spans(w, tile):
            above, before = max(top - halo, 0), max(left - halo, 0)
            maps = predict(image[..., above : bottom + halo, before : right + halo])
            for name, values in vars(maps).items():
                part = values[..., top - above : bottom - above, left - before : right - before]
                if name not in stitched:
                    stitched[name] = part.new_empty((*part.shape[:-1], w))
                stitched[name][..., left:right] = part
        yield top, _of_kind(maps, stitched)


def check_tile(tile: int, halo: int = HALO, *, stride: int = 8) -> None:
    """Refuse tiles that do not lie on the grid of a network whose coarsest features have this stride."""
    if tile < stride or tile % stride or halo % stride:
        raise InputError(
            f"A tile has {tile} pixels a side and a halo of {halo}; both must be multiples of {stride}, and a tile at "
            f"least {stride}."
        )


def _spans(n: int, tile: int) -> Iterator[tuple[int, int]]:
    return ((start, min(start + tile, n)) for start in range(0, n, tile))
