"""The annotated images that a command works on."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from attractor.cli.printing import say
from attractor.errors import InputError

if TYPE_CHECKING:
    from attractor.datasets import Dataset


def annotated_images(
    path: Path,
    crop: int | None,
    max_objects: int | None,
    classes: str | None = None,
    ignore_classes: bool = False,
    overlap: str | None = "ignore",
    smallest: int | None = None,
) -> Dataset:
    """The data set at a path with the classes asked for, or crops of it; one line then says how many crops.

    Where objects overlap, it is drawn by a rule of `attractor.datasets.in_front`, or by that which suits it if None.
    """
    from attractor.datasets import Crops, cropped, open_dataset
    from attractor.datasets.classes import as_one_class, with_classes
    from attractor.datasets.in_front import drawn_by, suggested_rule
    from attractor.datasets.small import WithoutSmall

    if classes is not None and ignore_classes:
        raise InputError("--classes chooses classes, --ignore-classes disregards them; give one or the other.")
    dataset = open_dataset(path)
    rule = suggested_rule(dataset) if overlap is None else overlap
    if classes is not None:
        dataset = with_classes(dataset, [name.strip() for name in classes.split(",") if name.strip()])
    elif ignore_classes:
        dataset = as_one_class(dataset)
    if smallest is not None:
        dataset = WithoutSmall(dataset, smallest)
    images = cropped(drawn_by(dataset, rule), crop, max_objects)
    if isinstance(images, Crops):
        say(images.in_words())
    return images
