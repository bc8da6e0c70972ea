"""Images, labels and objects on a finer or coarser grid.

Shapes: `b` images, `c` channels, `s` the lengths of an image or volume along its axes, `t` those on the new grid.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.nn import functional as F

from attractor.description import Description
from attractor.instances import Instances, encode_mask, relabel

logger = logging.getLogger(__name__)

MOST_UNLIKE = 2.0  # factor by which the steps of a volume may differ from the model's


def rescaled(image: Float[Tensor, "b c *s"], factor: float | Sequence[float]) -> Float[Tensor, "b c *t"]:
    """Images or volumes magnified by a factor, or by one for each axis; smoothed before they are made smaller."""
    shape = tuple(image.shape[2:])
    factors = (factor,) * len(shape) if isinstance(factor, float | int) else tuple(factor)
    size = tuple(max(1, round(n * own)) for n, own in zip(shape, factors, strict=True))
    if size == shape:
        return image
    if len(shape) == 2:
        return F.interpolate(image, size, mode="bilinear", antialias=min(factors) < 1, align_corners=False)
    return _rescaled_volume(image, size, factors)


def to_spacing_of(
    description: Description, spacing: Sequence[float] | None, name: str, magnification: float | None = None
) -> float | tuple[float, ...]:
    """By how much an image is magnified along each axis before the network sees it.

    That is the model's scale. A volume whose steps are unlike the model's by more than a factor of two is brought to
    the model's, and a line says so; smaller differences are such as objects have among themselves.

    Args:
        description: of the model.
        spacing: of the volume, in micrometres along each axis; None where it is not known.
        name: of the volume, for the message.
        magnification: to take instead of the model's scale.
    """
    scale = description.scale if magnification is None else magnification
    if description.axes == 2 or description.spacing is None or spacing is None:
        return scale
    factors = [own / wanted for own, wanted in zip(spacing, description.spacing, strict=True)]
    if all(1 / MOST_UNLIKE <= factor <= MOST_UNLIKE for factor in factors):
        return scale
    own, wanted = (" x ".join(f"{side:.3g}" for side in sides) for sides in (spacing, description.spacing))
    logger.warning("%s: its voxels are %s um, the model's %s um; it is resampled to those.", name, own, wanted)
    return tuple(scale * factor for factor in factors)


def _rescaled_volume(
    image: Float[Tensor, "1 c d h w"], size: tuple[int, ...], factors: tuple[float, ...]
) -> Float[Tensor, "1 c i j k"]:
    """A volume on another grid, first within its planes and then across them: torch smooths in two axes only."""
    across, within = factors[0], min(factors[1:])
    planes = F.interpolate(image[0], size[1:], mode="bilinear", antialias=within < 1, align_corners=False)
    flat = planes.flatten(2)[None]  # (1, c, d, j k)
    whole = (size[0], flat.shape[-1])
    flat = F.interpolate(flat, whole, mode="bilinear", antialias=across < 1, align_corners=False)
    return flat.view(1, image.shape[1], *size)


def nearest(labels: Shaped[np.ndarray, "*s"], shape: tuple[int, ...]) -> Shaped[np.ndarray, "*t"]:
    """A label image or mask on a finer or coarser grid: each pixel gets the value at its centre."""
    sources = [_sources(n, m) for n, m in zip(shape, labels.shape, strict=True)]
    chosen: Shaped[np.ndarray, "*t"] = labels[np.ix_(*sources)]
    return chosen


def _sources(n: int, m: int) -> Int[np.ndarray, " {n}"]:
    """For each of n pixels in a row, the one of m in the same length that has its centre."""
    sources: Int[np.ndarray, "{n}"] = np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1)
    return sources


def resized(found: Instances, shape: tuple[int, ...]) -> Instances:
    """The same objects on a finer or coarser grid; an object too small to keep a pixel is left out.

    Where masks overlap, that is a pixel of its whole mask; in the label image the same objects stay in front.
    """
    if found.labels.shape == shape:
        return found
    if found.masks is not None:
        return _resized_whole(found, found.masks, shape)
    labels, kept = relabel(nearest(found.labels, shape))
    return Instances(labels, found.classes[kept - 1], found.scores[kept - 1])


def _resized_whole(found: Instances, masks: tuple[Int[np.ndarray, "_"], ...], shape: tuple[int, ...]) -> Instances:
    """The objects of an image whose whole masks keep a pixel."""
    before = found.labels.shape[0], found.labels.shape[1]
    height, width = shape
    resized_masks = [_nearest_runs(mask, before, (height, width)) for mask in masks]
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
