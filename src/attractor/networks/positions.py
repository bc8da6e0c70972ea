"""Where each pixel lies: as channels for a network to see, and as lengths for embeddings.

Shapes: `b` images, `a` axes, `s` the lengths along each.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def positions(images: Float[Tensor, "b _ *s"]) -> Float[Tensor, "b a *s"]:
    """Place of each pixel along each axis, from -1 to 1 along each side of the image; a side of one pixel has -1."""
    b, _, *shape = images.shape
    along = [_evenly(images, axis) for axis in range(2, images.ndim)]
    return torch.stack(torch.meshgrid(*along, indexing="ij")).expand(b, len(shape), *shape)


def _evenly(images: Float[Tensor, "*shape"], axis: int) -> Float[Tensor, " n"]:
    """Numbers from -1 to 1, as many as the images have places along an axis."""
    n = images.shape[axis]
    if isinstance(n, int):
        return torch.linspace(-1, 1, n, dtype=images.dtype, device=images.device)
    # While a model is exported, n stands for any number, which linspace does not take; both agree up to rounding.
    place = torch.arange(n, dtype=images.dtype, device=images.device)
    step = 2 / images.new_full((), torch.sym_max(n - 1, 1))
    return torch.where(2 * place < n, place * step - 1, 1 - (n - 1 - place) * step)


def places(maps: Float[Tensor, "b _ *s"], spacing: Sequence[float]) -> Float[Tensor, "a *s"]:
    """Place of each pixel along each axis, in steps along columns.

    Args:
        maps: whose pixels are meant.
        spacing: length of a step along each axis.
    """
    along = (torch.arange(n, dtype=maps.dtype, device=maps.device) for n in maps.shape[2:])
    return in_columns(torch.stack(torch.meshgrid(*along, indexing="ij")), spacing)


def in_columns(place: Float[Tensor, "a *s"], spacing: Sequence[float]) -> Float[Tensor, "a *s"]:
    """Places counted in the steps of each axis, in steps along columns."""
    if all(step == spacing[-1] for step in spacing):
        return place
    times = place.new_tensor(spacing) / spacing[-1]
    return place * times.view(-1, *[1] * (place.ndim - 1))
