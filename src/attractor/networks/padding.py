"""Sides of any length for networks that halve the resolution several times."""

from __future__ import annotations

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def padded(images: Float[Tensor, "b c h w"], stride: int) -> Float[Tensor, "b c i j"]:
    """The images with their right and lower sides grown to multiples of `stride` pixels, by reflection."""
    h, w = images.shape[-2:]
    below, right = -h % stride, -w % stride
    if not below and not right:
        return images
    # Reflection needs sides longer than the padding; a strip or a single pixel is repeated instead.
    mode = "reflect" if h > below and w > right else "replicate"
    return F.pad(images, (0, right, 0, below), mode=mode)
