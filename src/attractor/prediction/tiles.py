"""Large images in tiles: maps are computed tile by tile with a halo, stitched, and grouped once.

What a pixel says is relative to itself, so no object is cut at a seam and none has to be merged. The network does
see less at the edge of a tile than in the whole image; the halo makes up for that.

Images have two axes, and volumes three, along which tile and halo have their own lengths.

Shapes: `c` channels, `s` the lengths of an image or volume along its axes.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from types import EllipsisType
from typing import Any, Protocol, TypeAlias, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor

from attractor.errors import InputError

HALO = 384  # pixels; ERFNet sees up to about 600 pixels away, but hardly uses what is beyond this


M = TypeVar("M")  # a method's maps: a dataclass of tensors
Part: TypeAlias = tuple[EllipsisType | slice, ...]
Box: TypeAlias = tuple[slice, ...]  # start and stop along each axis
Sides: TypeAlias = int | tuple[int, ...]  # along all axes, or along each


@runtime_checkable
class Parts(Protocol):
    """A normalised image (1, c, *s) that gives parts of itself; a tensor is one."""

    @property
    def shape(self) -> Sequence[int]:
        """Its lengths."""

    def __getitem__(self, part: Any, /) -> Tensor:
        """The part `[..., rows, columns]`; of a volume, planes come first."""


def whole_of(image: Parts) -> Box:
    """All of an image, as a box."""
    return tuple(slice(0, n) for n in image.shape[2:])


def tiled_maps(predict: Callable[[Float[Tensor, "1 c *_"]], M], image: Parts, tile: Sides, *, halo: Sides = HALO) -> M:
    """The method's maps of an image, computed in tiles; arguments are those of `strips`."""
    stitched: dict[str, Tensor] = {}
    for first, maps in strips(predict, image, tile, halo=halo):
        for name, part in vars(maps).items():
            if name not in stitched:
                stitched[name] = part.new_empty((*part.shape[:2], *image.shape[2:]))
            stitched[name][:, :, first] = part
    return _of_kind(maps, stitched)


def _of_kind(maps: M, tensors: dict[str, Tensor]) -> M:
    """Maps of the same method with other tensors."""
    twin = copy.copy(maps)
    vars(twin).update(tensors)
    return twin


def strips(
    predict: Callable[[Float[Tensor, "1 c *_"]], M], image: Parts, tile: Sides, *, halo: Sides = HALO
) -> Iterator[tuple[slice, M]]:
    """The maps of strips as wide as the image and as high as a tile, each with its rows; of a volume, with its planes.

    Args:
        predict: maps of a batch of one.
        image: normalised.
        tile: side of the part that each pass adds; a multiple of the network's stride, so that tiles lie on its grid.
        halo: pixels seen around it; also a multiple of the stride.

    Raises:
        InputError: if tile or halo is not such a multiple.
    """
    n_axes = len(image.shape) - 2
    if isinstance(tile, int) and isinstance(halo, int):
        check_tile(tile, halo)
    whole = whole_of(image)
    for first in _spans(whole[0], along(tile, n_axes)[0]):
        yield first, maps_in(predict, image, (first, *whole[1:]), tile, halo=halo)


def maps_within(
    predict: Callable[[Float[Tensor, "1 c _ _"]], M],
    image: Parts,
    rows: slice,
    columns: slice,
    tile: int,
    *,
    halo: int = HALO,
) -> M:
    """The maps of some rows and columns of an image, as `maps_in` gives them."""
    return maps_in(predict, image, (rows, columns), tile, halo=halo)


def maps_in(
    predict: Callable[[Float[Tensor, "1 c *_"]], M], image: Parts, box: Box, tile: Sides, *, halo: Sides = HALO
) -> M:
    """The maps of a part of an image, computed tile by tile; it begins and ends on the grid of tiles or the edge.

    Each tile is seen with its halo, so that its maps are the same whatever else is asked for. Arguments are those of
    `strips`.
    """
    stitched: dict[str, Tensor] = {}
    tiles, halos = along(tile, len(box)), along(halo, len(box))
    for spans in itertools.product(*(_spans(own, n) for own, n in zip(box, tiles, strict=True))):
        starts = [max(span.start - more, 0) for span, more in zip(spans, halos, strict=True)]
        seen = (slice(start, span.stop + more) for start, span, more in zip(starts, spans, halos, strict=True))
        maps = predict(image[(..., *seen)])
        inner = tuple(slice(span.start - start, span.stop - start) for span, start in zip(spans, starts, strict=True))
        for name, values in vars(maps).items():
            part = cut(values, inner)
            if name not in stitched:
                stitched[name] = part.new_empty((*part.shape[:2], *(own.stop - own.start for own in box)))
            place = tuple(
                slice(span.start - own.start, span.start - own.start + n)
                for span, own, n in zip(spans, box, part.shape[2:], strict=True)
            )
            cut(stitched[name], place).copy_(part)
    return _of_kind(maps, stitched)


def sides_of(part: Part) -> Box:
    """The slices that a part is given by."""
    return tuple(side for side in part if isinstance(side, slice))


def cut(values: Tensor, box: Box) -> Tensor:
    """A part of maps, by their last axes."""
    every: Any = (..., *box)
    part: Tensor = values[every]
    return part


def along(sides: Sides, n_axes: int) -> tuple[int, ...]:
    """A length along each axis."""
    return (sides,) * n_axes if isinstance(sides, int) else sides


def check_tile(tile: int, halo: int = HALO, *, stride: int = 8) -> None:
    """Refuse tiles that do not lie on the grid of a network whose coarsest features have this stride."""
    if tile < stride or tile % stride or halo % stride:
        raise InputError(
            f"A tile has {tile} pixels a side and a halo of {halo}; both must be multiples of {stride}, and a tile at "
            f"least {stride}."
        )


def _spans(whole: slice, tile: int) -> Iterator[slice]:
    return (slice(start, min(start + tile, whole.stop)) for start in range(whole.start, whole.stop, tile))
