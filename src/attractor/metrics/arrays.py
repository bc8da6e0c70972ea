"""Pairs of true and found images from what users have: label images, or objects with classes and scores.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import repeat
from typing import TypeAlias

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.metric import Pair

Array: TypeAlias = Shaped[np.ndarray, "..."]
Image: TypeAlias = Array | Instances  # a label image of integers, 0 being background, or objects
Images: TypeAlias = Image | Sequence[Image]  # one image, or several
Masks: TypeAlias = Array | Sequence[Array] | None  # pixels that count for nothing, of one image or of several


def pairs_of(truth: Images, found: Images, ignore: Masks = None) -> Iterator[Pair]:
    """The pair of one image, or those of several given in the same order; they are named by their position, from 0.

    Raises:
        InputError: if there are not as many of each, or one is not a label image.
    """
    true_images, found_images = _several(truth), _several(found)
    masks = repeat(None) if ignore is None else _several(ignore)
    if len(true_images) != len(found_images):
        raise InputError(
            f"There are {len(true_images)} true images but {len(found_images)} found ones; give as many of each, in "
            "the same order."
        )
    if isinstance(masks, list) and len(masks) != len(true_images):
        raise InputError(f"There are {len(true_images)} images but {len(masks)} masks to ignore; give one for each.")
    for place, (true_image, found_image, mask) in enumerate(zip(true_images, found_images, masks, strict=False)):
        name = f"image {place}"
        yield Pair(
            name,
            _objects(true_image, f"{name}, truth"),
            _objects(found_image, f"{name}, found"),
            None if mask is None else np.asarray(mask, bool),
        )


def _several(images: Images) -> list[Image]:
    """The images of a sequence, or of a stack (n, h, w); a single image becomes a list of one.

    A volume is given as objects, or in a list.
    """
    if isinstance(images, Instances) or (isinstance(images, np.ndarray) and images.ndim == 2):
        return [images]
    return list(images)


def _objects(image: Image, what: str) -> Instances:
    if isinstance(image, Instances):
        return image
    labels = np.asarray(image)
    if labels.ndim not in (2, 3) or not np.issubdtype(labels.dtype, np.integer):
        raise InputError(
            f"{what}: an array of shape {labels.shape} and type {labels.dtype} is not a label image; give one of shape "
            "(rows, columns), or (planes, rows, columns) for a volume, with whole numbers, 0 for background, or "
            "Instances."
        )
    return Instances.from_labels(labels)
