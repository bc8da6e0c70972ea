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
    for rows, maps in strips(predict, image, tile, halo=halo):
        for name, part in vars(maps).items():
            if name not in stitched:
                stitched[name] = part.new_empty((*part.shape[:-2], h, part.shape[-1]))
            stitched[name][..., rows, :] = part
    return _of_kind(maps, stitched)


def _of_kind(maps: M, tensors: dict[str, Tensor]) -> M:
    """Maps of the same method with other tensors."""
    twin = copy.copy(maps)
    vars(twin).update(tensors)
    return twin


def strips(
    predict: Callable[[Float[Tensor, "1 c _ _"]], M], image: Parts, tile: int, *, halo: int = HALO
) -> Iterator[tuple[slice, M]]:
    """The maps of strips as wide as the image and as high as a tile, each with its rows.

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
    for rows in _spans(slice(0, h), tile):
        yield rows, maps_within(predict, image, rows, slice(0, w), tile, halo=halo)


def maps_within(
    predict: Callable[[Float[Tensor, "1 c _ _"]], M],
    image: Parts,
    rows: slice,
    columns: slice,
    tile: int,
    *,
    halo: int = HALO,
) -> M:
    """The maps of some rows and columns, computed tile by tile; they begin and end on the grid of tiles or the edge.

    Each tile is seen with its halo, so that its maps are the same whatever else is asked for. Arguments are those of
    `strips`.
    """
    stitched: dict[str, Tensor] = {}
    for down in _spans(rows, tile):
        for across in _spans(columns, tile):
            above, before = max(down.start - halo, 0), max(across.start - halo, 0)
            maps = predict(image[..., above : down.stop + halo, before : across.stop + halo])
            inner = slice(down.start - above, down.stop - above), slice(across.start - before, across.stop - before)
            for name, values in vars(maps).items():
                part = values[..., inner[0], inner[1]]
                if name not in stitched:
                    sides = rows.stop - rows.start, columns.stop - columns.start
                    stitched[name] = part.new_empty((*part.shape[:-2], *sides))
                first = down.start - rows.start, across.start - columns.start
                stitched[name][..., first[0] :, first[1] :][..., : part.shape[-2], : part.shape[-1]] = part
    return _of_kind(maps, stitched)


def check_tile(tile: int, halo: int = HALO, *, stride: int = 8) -> None:
    """Refuse tiles that do not lie on the grid of a network whose coarsest features have this stride."""
    if tile < stride or tile % stride or halo % stride:
        raise InputError(
            f"A tile has {tile} pixels a side and a halo of {halo}; both must be multiples of {stride}, and a tile at "
            f"least {stride}."
        )


def _spans(whole: slice, tile: int) -> Iterator[slice]:
    return (slice(start, min(start + tile, whole.stop)) for start in range(whole.start, whole.stop, tile))
