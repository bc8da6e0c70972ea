"""A data set in parts: some images to learn from, others to validate on.

Images of one group, such as the fields of one well, are alike; a model that has seen one of them has an easy time with
the others. Groups can be kept whole, so that validation tells how good a model is on images of its own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError


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


def split(
    dataset: Dataset, share: float, seed: int, by: str | None = None, groups: Sequence[str] | None = None
) -> tuple[Subset, Subset]:
    """The training and the validation part; each has at least one image, and the same seed gives the same parts.

    Args:
        dataset: at least two images.
        share: part of the images that validation gets, above 0 and below 1.
        seed: another one gives another split.
        by: a column of the data set; each of its values is then split in this share, as far as whole images allow.
        groups: the group of each image; a group is then in one part only, as close to the share as whole groups allow.

    Raises:
        InputError: if there are fewer than two images or groups, the share is impossible, or there is no such column.
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
    if by is not None:
        column_of(dataset, by, "split by")
    generator = np.random.default_rng(seed)
    if groups is None:
        validation = _spread(dataset, share, by, generator)
    else:
        validation = _whole_groups(groups, share, generator)
    training = [index for index in range(len(dataset)) if index not in validation]
    return Subset(dataset, training), Subset(dataset, sorted(validation))


def _spread(dataset: Dataset, share: float, by: str | None, generator: np.random.Generator) -> set[int]:
    """Images drawn at random, as many of each value of a column as its share."""
    values = [dataset.columns[by].get(name, "") for name in dataset.names] if by else [""] * len(dataset)
    order: list[int] = []  # shuffled within each value
    for value in sorted(set(values)):
        members = [index for index, own in enumerate(values) if own == value]
        order += [members[position] for position in generator.permutation(len(members))]
    n_validation = min(max(round(share * len(order)), 1), len(order) - 1)
    spaced = (np.arange(n_validation) + 0.5) * len(order) / n_validation  # evenly, so that each value gets its part
    return {order[position] for position in spaced.astype(int)}


def _whole_groups(groups: Sequence[str], share: float, generator: np.random.Generator) -> set[int]:
    """The images of some groups, drawn at random, with about this share of all images."""
    members = _members(groups)
    if len(members) < 2:
        raise InputError(
            "All images are of one group, so none can be kept apart to validate on; name images for that by "
            "data.validation, or leave data.groups out."
        )
    wanted, chosen = share * len(groups), set[int]()
    order = [members[position] for position in generator.permutation(len(members))]
    for group in order:
        if abs(len(chosen) + len(group) - wanted) < abs(len(chosen) - wanted):
            chosen.update(group)
    if not 0 < len(chosen) < len(groups):
        smallest: list[int] = min(members, key=len)
        return set(smallest)
    return chosen


def _members(groups: Sequence[str]) -> list[list[int]]:
    """The images of each group."""
    members: dict[str, list[int]] = {}
    for index, group in enumerate(groups):
        members.setdefault(group, []).append(index)
    return [members[group] for group in sorted(members)]


def column_of(dataset: Dataset, name: str, purpose: str) -> Mapping[str, str]:
    """What a column of the data set says of each image, by its name.

    Raises:
        InputError: if there is no such column.
    """
    if name not in dataset.columns:
        known = ", ".join(dataset.columns) or "none"
        raise InputError(
            f"The data set has no column {name!r} to {purpose}; its columns: {known}. Columns come from images.csv."
        )
    return dataset.columns[name]


def folds(n: int, full: Sequence[bool], seed: int, groups: Sequence[str] | None = None) -> list[list[int]]:
    """The images in n parts of about equal size, each with its share of those that have objects.

    Args:
        n: parts, from 2 to the number of images, or groups, with objects.
        full: for each image, whether it has an object.
        seed: another one gives other parts.
        groups: the group of each image; a group is then in one part only.

    Raises:
        InputError: if there are fewer images or groups with objects than parts.
    """
    units = [[index] for index in range(len(full))] if groups is None else _members(groups)
    is_full = np.array([any(full[index] for index in unit) for unit in units])
    if not 2 <= n <= is_full.sum():
        what = "images" if groups is None else "groups of images"
        raise InputError(
            f"data.folds is {n}; it must be at least 2, and at most the number of {what} with objects, {is_full.sum()}."
        )
    order = np.random.default_rng(seed).permutation(len(units))
    order = order[np.argsort(~is_full[order], kind="stable")]  # those with objects first
    parts = [list(units[place]) for place in order[:n].tolist()]
    for place in sorted(order[n:].tolist(), key=lambda place: -len(units[place])):
        min(parts, key=len).extend(units[place])
    return [sorted(part) for part in parts]
