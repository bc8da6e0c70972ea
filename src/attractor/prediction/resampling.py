"""Images, labels and objects on a finer or coarser grid.

Shapes: `b` images, `c` channels, `h` rows, `w` columns; `i` rows, `j` columns of the new grid.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from attractor.instances import Instances, encode_mask, relabel


def rescaled(image: Float[Tensor, "b c h w"], factor: float) -> Float[Tensor, "b c i j"]:
    """The images magnified by a factor; smoothed before they are made smaller."""
    h, w = image.shape[-2:]
    size = max(1, round(h * factor)), max(1, round(w * factor))
    if size == (h, w):
        return image
    return F.interpolate(image, size, mode="bilinear", antialias=factor < 1, align_corners=False)


def nearest(labels: Shaped[np.ndarray, "h w"], shape: tuple[int, int]) -> Shaped[np.ndarray, "i j"]:
    """A label image or mask on a finer or coarser grid: each pixel gets the value at its centre."""
    rows, columns = (_sources(n, m) for n, m in zip(shape, labels.shape, strict=True))
    chosen: Shaped[np.ndarray, "i j"] = labels[np.ix_(rows, columns)]
    return chosen


def _sources(n: int, m: int) -> Int[np.ndarray, " {n}"]:
    """For each of n pixels in a row, the one of m in the same length that has its centre."""
    sources: Int[np.ndarray, "{n}"] = np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1)
    return sources


def resized(found: Instances, shape: tuple[int, int]) -> Instances:
    """The same objects on a finer or coarser grid; an object too small to keep a pixel is left out.

    Where masks overlap, that is a pixel of its whole mask; in the label image the same objects stay in front.
    """
    if found.labels.shape == shape:
        return found
    if found.masks is not None:
        return _resized_whole(found, found.masks, shape)
    labels, kept = relabel(nearest(found.labels, shape))
    return Instances(labels, found.classes[kept - 1], found.scores[kept - 1])


def _resized_whole(found: Instances, masks: tuple[Int[np.ndarray, "_"], ...], shape: tuple[int, int]) -> Instances:
    """The objects whose whole masks keep a pixel."""
    before = found.labels.shape[0], found.labels.shape[1]
    resized_masks = [_nearest_runs(mask, before, shape) for mask in masks]
    is_kept = np.array([mask[1::2].any() for mask in resized_masks], bool)
    number_of = np.concatenate([[0], np.where(is_kept, is_kept.cumsum(), 0)]).astype(np.int32)
    return Instances(
        number_of[nearest(found.labels, shape)],
        found.classes[is_kept],
        found.scores[is_kept],
        tuple(mask for mask, keep in zip(resized_masks, is_kept, strict=True) if keep),
    )


def _nearest_runs(runs: Int[np.ndarray, "_"], before: tuple[int, int], shape: tuple[int, int]) -> Int[np.ndarray, "_"]:
    """The run lengths of `nearest` of a mask, which is drawn only in the columns that it needs."""
    from attractor.datasets.coco_masks import decode_columns  # which imports all layouts

    mask, (_, box) = decode_columns(runs, before)
    height, width = shape
    rows, columns = _sources(height, before[0]), _sources(width, before[1])
    left, right = np.searchsorted(columns, [box.start, box.stop]).tolist()
    own = encode_mask(mask[np.ix_(rows, columns[left:right] - box.start)])
    zeros_after = height * (width - right)
    own[0] += height * left
    if len(own) % 2 == 0:
        return np.append(own, zeros_after)
    own[-1] += zeros_after
    return own
