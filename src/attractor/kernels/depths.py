"""How deep in its object each pixel lies.

Shapes: `b` images or volumes, `s` their lengths along each axis.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy import ndimage
from torch import Tensor

from attractor.instances import rims


def depths(owner: Int[Tensor, "b *s"], *, spacing: Sequence[float] = ()) -> Float[Tensor, "b *s"]:
    """The distance of each pixel to the nearest rim of an object, one step for the rim itself; computed on a CPU.

    A rim is where something else begins, another object or background; neither the end of the image nor a pixel that is
    left out. Where an image has no rim at all, all is one step deep.

    Args:
        owner: object that owns the pixel, 0 for background, -1 for pixels to leave out.
        spacing: length of a step along each axis; by default all are alike.
    """
    array = owner.cpu().numpy()
    found = np.ones(array.shape, np.float32)
    for image, depth in zip(array, found, strict=True):
        inside = ~rims(image)
        if not inside.all():
            depth += ndimage.distance_transform_edt(inside, sampling=list(spacing) or None)
    return torch.from_numpy(found).to(owner.device)
