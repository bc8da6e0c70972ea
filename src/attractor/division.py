"""Which images a run learns from, and which it validates on."""

from __future__ import annotations

import logging
import math

from attractor.datasets import Crops, Dataset
from attractor.datasets.classes import WithClasses
from attractor.datasets.held import Held, hold
from attractor.datasets.in_front import drawn_by
from attractor.datasets.splitting import column_of, folds, split
from attractor.errors import InputError
from attractor.likeness import alike
from attractor.recipe import Data, Reader, Recipe
from attractor.wording import counted

ALIKE = "alike"  # data.groups that are found from the images
GROUPS_IN_A_PART = 2  # groups that look alike, in the part to validate on, if all are of one size

logger = logging.getLogger(__name__)


def parts_of(recipe: Recipe, read: Reader) -> tuple[Held, Held]:
    """The images to learn from and the images to validate on; both have objects.

    Raises:
        InputError: if the data cannot be read or divided, or one part would have no object.
    """
    data = recipe.data
    images = _read(data, read)
    if not images.statistics.count:
        raise InputError(f"{data.train}: none of the {len(images)} images has an object to learn from.")
    if not isinstance(data.validation, str):
        return _split(images, data, data.validation)
    if key := _dividing(data):
        raise InputError(
            f"{key} says how to split data.train, but data.validation names images of its own; leave one out."
        )
    own = drawn_by(read.open(data.validation), data.overlap)
    validation = _matched(own, images.class_names, data.classes)
    held = images if data.validation == data.train and data.classes is None else hold(validation)
    if not held.statistics.count:
        raise InputError(
            f"{data.validation}: none of the {len(held)} images to validate on has an object, so they cannot tell a "
            "good model from a bad one; give others by data.validation."
        )
    return images, held


def folds_of(data: Data, read: Reader) -> tuple[Held, list[list[int]]]:
    """The images to learn from, and the parts of them that are validated on in turn.

    Raises:
        InputError: if the data cannot be read or divided.
    """
    if isinstance(data.validation, str) or data.split_by is not None:
        raise InputError("data.folds divides data.train; leave out data.split_by, and a data set in data.validation.")
    images = _read(data, read)
    full = [bool(measured.count) for measured in images.measured]
    return images, folds(data.folds, full, data.split_seed, _groups(images, data))


def _read(data: Data, read: Reader) -> Held:
    return read(data.train, None if data.classes is None else tuple(data.classes), data.overlap)


def _dividing(data: Data) -> str:
    """The key that says how to divide the images, if there is one."""
    given = {"data.split_by": data.split_by, "data.groups": data.groups}
    return next((key for key, value in given.items() if value is not None), "")


def _groups(images: Held, data: Data) -> list[str] | None:
    """The group of each image, where groups are to stay whole."""
    if data.groups is None:
        return None
    if data.split_by is not None:
        raise InputError(
            "data.split_by divides each value of a column and data.groups keeps groups whole; leave one out."
        )
    if data.groups != ALIKE:
        column = column_of(images, data.groups, "group by")
        return [column.get(name, "") for name in images.names]
    parts = data.folds or 1 / (data.validation if isinstance(data.validation, float) else 1)
    n = min(math.ceil(GROUPS_IN_A_PART * parts), len(images))
    numbers = alike((images[index].image for index in range(len(images))), n) if n > 1 else [1] * len(images)
    logger.warning("%d images in %s that look alike; no group is in both parts.", len(images), counted(n, "group"))
    return [str(number) for number in numbers]


def _split(images: Held, data: Data, share: float) -> tuple[Held, Held]:
    """The images in two parts, both with objects; if chance puts none in one part, empty images go to training.

    Raises:
        InputError: as `split`, or if a single image has objects.
    """
    groups = _groups(images, data)
    divided = split(images, share, data.split_seed, data.split_by, groups)
    parts = [images.part(part.indices) for part in divided]
    if all(part.statistics.count for part in parts):
        return parts[0], parts[1]
    full = [index for index, measured in enumerate(images.measured) if measured.count]
    if len(full) < 2:
        raise InputError(
            f"{data.train}: only one of the {len(images)} images, {images.names[full[0]]}, has an object; training "
            "needs two, one of them to validate on. Annotate another, or name other images by data.validation."
        )
    of_full = None if groups is None else [groups[index] for index in full]
    _, chosen = split(images.part(full), share, data.split_seed, data.split_by, of_full)
    validation = [full[index] for index in chosen.indices]
    return images.part([i for i in range(len(images)) if i not in set(validation)]), images.part(validation)


def _matched(validation: Dataset, names: tuple[str, ...], chosen: list[str] | None) -> Dataset:
    """The images to validate on with the training data's classes, matched by name; a single class matches any name."""
    own = validation.class_names
    if own == names or len(own) == len(names) == 1:
        return validation
    if not set(own) & set(names):
        raise InputError(
            f"data.validation has the classes {', '.join(own)}, and the training data {', '.join(names)}: they "
            "share none; give both the same names."
        )
    unknown = [name for name in own if name not in names]
    if unknown and chosen is None:
        raise InputError(
            f"data.validation has the classes {', '.join(unknown)}, which the training data lacks (it has "
            f"{', '.join(names)}); give both the same names, or choose some by data.classes."
        )
    return WithClasses(validation, names, [names.index(name) + 1 if name in names else 0 for name in own])


def crops_of(validation: Dataset, data: Data, most: int | None) -> Dataset:
    """The images to validate on, or crops of them; by default only crops whose objects the method can all find."""
    if data.crop is None:
        if data.max_objects is not None:
            raise InputError("data.max_objects says which crops to leave out; also give their size, data.crop.")
        return validation
    crops = Crops(validation, data.crop, max_objects=data.max_objects or most)
    logger.warning("Validating on crops: %s", crops.in_words())
    return crops
