"""Connected parts of label images: objects of one piece, each in its own region.

Pixels are connected where they touch, at corners too.

Shapes: `s` the lengths of an image or volume along its axes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage
from skimage import measure, segmentation


def regions(mask: Bool[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
    """The connected parts of a mask, numbered from 1."""
    return ndimage.label(mask, np.ones((3,) * mask.ndim, bool), output=np.int32)[0]


def of_one_piece(
    labels: Int32[np.ndarray, "*s"], region: Int32[np.ndarray, "*s"], min_size: int
) -> Int32[np.ndarray, "*s"]:
    """Each connected part of each label as an object of its own, filling the regions.

    Args:
        labels: of the pixels of regions; 0 for those that are not given to any object.
        region: connected regions, numbered from 1; 0 outside.
        min_size: parts with fewer pixels do not count; their pixels go to the nearest object of their region, like all
            pixels without an object. A region without any object becomes background.
    """
    return _filled(without_small(_split(labels), min_size), region)


def _split(labels: Int32[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
    return measure.label(labels, background=0, connectivity=labels.ndim).astype(np.int32)


def without_small(labels: Int32[np.ndarray, "*s"], min_size: int) -> Int32[np.ndarray, "*s"]:
    """Labels with fewer than `min_size` pixels as background; the others keep their number."""
    kept = np.bincount(labels.ravel()) >= min_size
    return np.where(kept[labels], labels, 0).astype(np.int32)


def largest(labels: Int32[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
    """The largest connected part of each label, the first if several tie; the other parts become background."""
    part = _split(labels)
    size = np.bincount(part.ravel())
    label_of = np.zeros(len(size), np.int32)
    label_of[part.ravel()] = labels.ravel()
    order = np.lexsort((np.arange(len(size)), -size, label_of))  # by label, the largest first
    chosen = order[np.unique(label_of[order], return_index=True)[1]]
    kept = np.zeros(len(size), bool)
    kept[chosen] = True
    return np.where(kept[part], labels, 0).astype(np.int32)


def _filled(labels: Int32[np.ndarray, "*s"], region: Int32[np.ndarray, "*s"]) -> Int32[np.ndarray, "*s"]:
    """Give each pixel without an object to the one that is nearest along a path through its region."""
    if not ((labels == 0) & (region > 0)).any():
        return labels
    flat = np.zeros(labels.shape, np.uint8)
    return segmentation.watershed(flat, labels, connectivity=labels.ndim, mask=region > 0).astype(np.int32)
