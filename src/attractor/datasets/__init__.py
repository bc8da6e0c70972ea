"""Annotated images in the layouts that are in use; `open_dataset` finds out which one a folder has.

A data set is a sequence of samples that are read when asked for: see `attractor.datasets.sample`.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from attractor.datasets.cityscapes import Cityscapes
from attractor.datasets.coco import Coco
from attractor.datasets.crops import Crops, cropped
from attractor.datasets.cvppp import Cvppp
from attractor.datasets.dsb2018 import Dsb2018
from attractor.datasets.geojson import GeoJson
from attractor.datasets.imagej import ImageJ
from attractor.datasets.label_images import LabelImages
from attractor.datasets.labelme import Labelme
from attractor.datasets.layout import Divided, Evidence, Layout
from attractor.datasets.pascal_voc import PascalVoc
from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError

__all__ = [
    "DATASETS",
    "Crops",
    "Dataset",
    "Sample",
    "Subset",
    "cropped",
    "layout_of",
    "open_dataset",
    "split",
    "split_path",
]

DATASETS: dict[str, Layout] = {
    "label-images": LabelImages,
    "coco": Coco,
    "cityscapes": Cityscapes,
    "pascal-voc": PascalVoc,
    "cvppp": Cvppp,
    "dsb2018": Dsb2018,
    "geojson": GeoJson,
    "labelme": Labelme,
    "imagej": ImageJ,
}


def layout_of(path: str | Path) -> str:
    """The name in DATASETS of the layout that recognises the path; if several do, the surest.

    Raises:
        InputError: if none does, or two are equally sure; the message lists the layouts.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: there is no such data set; check the name and the folder you are in.")
    found = _recognised(path)
    if len(found) > 1:
        raise InputError(
            f"{path}: holds annotations in several layouts, {' and '.join(found)}; move away the ones you do not mean."
        )
    if found:
        return found[0]
    layouts = "; ".join(f"{name}: {layout.layout}" for name, layout in DATASETS.items())
    inside = [part.name for part in sorted(path.glob("*/")) if _recognised(part)]
    hint = f" There are data sets in it, though: {', '.join(inside[:5])}." if inside else ""
    raise InputError(f"{path}: is not in any layout known here. These are accepted: {layouts}.{hint}")


def _recognised(path: Path) -> list[str]:
    """The layouts that recognise the path most surely: only one, if all is well."""
    evidence = {name: layout.recognises(path) for name, layout in DATASETS.items()}
    surest = max(evidence.values())
    return [name for name, own in evidence.items() if own == surest > Evidence.NONE]


def open_dataset(path: str | Path, *, split: str | None = None) -> Dataset:
    """The data set at a path, whatever its layout.

    Its samples are read when they are asked for:

    >>> from attractor.demo import FOLDER
    >>> nuclei = open_dataset(FOLDER)
    >>> nuclei.names, nuclei.class_names
    (('fluorescence', 'stained'), ('object',))
    >>> int(nuclei[0].labels.max())
    92

    Args:
        path: a folder or file in one of the layouts in DATASETS.
        split: which part to open if a folder holds several, such as "val".

    Raises:
        InputError: if no layout fits, there is no such split, or what is there cannot be used.
    """
    path = split_path(path, split)
    return DATASETS[layout_of(path)](path)


def split_path(path: str | Path, split: str | None) -> Path:
    """The path that opens only one split of a data set; without a split, the path itself.

    Raises:
        InputError: if no layout fits, or there is no such split; the message lists those that there are.
    """
    path = Path(path)
    if split is None:
        return path
    layout = DATASETS[layout_of(path)]
    splits = layout.splits(path) if isinstance(layout, Divided) else {}
    if not splits:
        raise InputError(f'{path}: holds no splits to choose from; leave out the split "{split}".')
    if split not in splits:
        raise InputError(f'{path}: has no split "{split}"; there are: {", ".join(splits)}.')
    return splits[split]


class Subset:
    """Some images of a data set, as a data set."""

    def __init__(self, dataset: Dataset, indices: Sequence[int]) -> None:
        """Keep the images at these indices, in this order."""
        self._dataset, self.indices = dataset, tuple(int(index) for index in indices)
        self.class_names = dataset.class_names
        self.names = tuple(dataset.names[index] for index in self.indices)
        kept = set(self.names)
        self.columns = {
            column: {name: value for name, value in values.items() if name in kept}
            for column, values in dataset.columns.items()
        }

    def __len__(self) -> int:
        """Number of images."""
        return len(self.indices)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""
        return self._dataset[self.indices[index]]


def split(dataset: Dataset, share: float, seed: int, by: str | None = None) -> tuple[Subset, Subset]:
    """The training and the validation part; each has at least one image, and the same seed gives the same parts.

    Args:
        dataset: at least two images.
        share: part of the images that validation gets, above 0 and below 1.
        seed: another one gives another split.
        by: a column of the data set; each of its values is then split in this share, as far as whole images allow.

    Raises:
        InputError: if there are fewer than two images, the share is impossible, or there is no such column.
    """
    if len(dataset) < 2:
        raise InputError(
            f"The data set has {len(dataset)} image{'s' * (len(dataset) != 1)}; training needs at least 2, "
            "one of them to validate on."
        )
    if not 0 < share < 1:
        raise InputError(
            f"The share of images for validation is {share}; give a number above 0 and below 1, 0.1 for example."
        )
    if by is not None and by not in dataset.columns:
        known = ", ".join(dataset.columns) or "none"
        raise InputError(
            f"The data set has no column {by!r} to split by; its columns: {known}. Columns come from images.csv."
        )
    generator = np.random.default_rng(seed)
    values = [dataset.columns[by].get(name, "") for name in dataset.names] if by else [""] * len(dataset)
    order: list[int] = []  # shuffled within each value
    for value in sorted(set(values)):
        members = [index for index, own in enumerate(values) if own == value]
        order += [members[position] for position in generator.permutation(len(members))]
    n_validation = min(max(round(share * len(order)), 1), len(order) - 1)
    spaced = ((np.arange(n_validation) + 0.5) * len(order) / n_validation).astype(
        int
    )  # evenly spaced, so that each value gets its part
    validation = {order[position] for position in spaced}
    training = [index for index in range(len(dataset)) if index not in validation]
    return Subset(dataset, training), Subset(dataset, sorted(validation))


def folds(n: int, full: Sequence[bool], seed: int) -> list[list[int]]:
    """The images in n parts of about equal size, each with its share of those that have objects.

    Args:
        n: parts, from 2 to the number of images with objects.
        full: for each image, whether it has an object.
        seed: another one gives other parts.

    Raises:
        InputError: if there are fewer images with objects than parts.
    """
    if not 2 <= n <= sum(full):
        raise InputError(
            f"data.folds is {n}; it must be at least 2, and at most the number of images with objects, {sum(full)}."
        )
    order = np.random.default_rng(seed).permutation(len(full))
    order = order[np.argsort(~np.asarray(full)[order], kind="stable")]  # those with objects first
    return [sorted(order[part::n].tolist()) for part in range(n)]
