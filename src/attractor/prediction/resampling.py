"""Images, labels and objects on a finer or coarser grid.

Shapes: `c` channels, `h` rows, `w` columns; `i` rows, `j` columns of the new grid.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from attractor.instances import Instances, relabel


def rescaled(image: Float[Tensor, "1 c h w"], factor: float) -> Float[Tensor, "1 c i j"]:
    """The image magnified by a factor; smoothed before it is made smaller."""
    h, w = image.shape[-2:]
    size = max(1, round(h * factor)), max(1, round(w * factor))
    if size == (h, w):
        return image
    return F.interpolate(image, size, mode="bilinear", antialias=factor < 1, align_corners=False)


def nearest(labels: Shaped[np.ndarray, "h w"], shape: tuple[int, int]) -> Shaped[np.ndarray, "i j"]:
    """A label image or mask on a finer or coarser grid: each pixel gets the value at its centre."""
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1) for n, m in zip(shape, labels.shape, strict=True)
    )
    return labels[np.ix_(rows, columns)]


def resized(found: Instances, shape: tuple[int, int]) -> Instances:
    """The same objects on a finer or coarser grid; an object too small to keep a pixel is left out."""
    if found.labels.shape == shape:
        return found
    if found.masks is not None:
        masks = [nearest(found.mask(label), shape) for label in range(1, len(found) + 1)]
        return Instances.from_masks(masks, found.classes, found.scores, shape)
    labels, kept = relabel(nearest(found.labels, shape))
    return Instances(labels, found.classes[kept - 1], found.scores[kept - 1])
