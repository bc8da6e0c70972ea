"""A data set with only some of its classes, or with all of them as one.

Objects of a class that is not kept are background, and so are its crowds for benchmarks that count them; pixels that
the data set ignores stay ignored.

Shapes: `h` rows, `w` columns, `k` objects.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import partial

import numpy as np
from jaxtyping import Int

from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask, drawn_whole, relabel


class WithClasses:
    """A data set whose classes are renumbered."""

    def __init__(self, dataset: Dataset, class_names: Sequence[str], numbers: Sequence[int]) -> None:
        """Give each class another number.

        Args:
            dataset: what to read.
            class_names: of the new classes.
            numbers: for each class of `dataset`, the number of one of these, from 1; 0 leaves its objects out.
        """
        self.whole, self.numbers = dataset, tuple(numbers)
        self._numbers = np.array([0, *numbers], np.int32)
        self.class_names = tuple(class_names)
        self.names, self.columns = dataset.names, dataset.columns

    def __len__(self) -> int:
        """Number of images."""
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""
        sample = self.whole[index]
        if sample.annotate is not None and sample.ignore.any() and 0 in self.numbers:
            return self._redrawn(sample)  # pixels that a dropped class claimed, too, may now be one object's alone
        classes = self._numbers[sample.classes]
        kept = classes > 0
        table = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
        return dataclasses.replace(
            sample,
            labels=table[sample.labels],
            classes=classes[kept],
            annotate=sample.annotate and partial(self._annotations, sample),
            earlier=None if 0 in self.numbers else sample.earlier,  # else numbers of the frame before are other ones
        )

    def _redrawn(self, sample: Sample) -> Sample:
        """The sample with its pixels shared out anew among the objects that are kept."""
        annotations = self._annotations(sample)
        drawn, claims, crowd = drawn_whole(annotations, range(len(annotations.masks)))
        labels, ids = relabel(np.where(claims == 1, drawn, 0))
        ignore = (claims > 1) | ((crowd | annotations.void) & (claims == 0))
        annotate = partial(self._annotations, sample)
        return dataclasses.replace(
            sample, labels=labels, classes=annotations.classes[ids - 1], ignore=ignore, annotate=annotate
        )

    def _annotations(self, sample: Sample) -> Annotations:
        """What was annotated of the classes that are kept."""
        assert sample.annotate is not None  # this is given out only then
        return renumbered_annotations(sample.annotate(), self._numbers)


def renumbered_annotations(annotations: Annotations, numbers: Int[np.ndarray, " _"]) -> Annotations:
    """Annotations with class c as `numbers[c]`, without those that get 0."""
    classes = numbers[annotations.classes]
    kept = np.flatnonzero(classes)
    return Annotations(
        tuple(annotations.masks[k] for k in kept),
        classes[kept],
        annotations.is_crowd[kept],
        annotations.areas[kept],
        annotations.distances[kept],
        annotations.void,
    )


def renumbered_objects(found: Instances, numbers: Sequence[int]) -> Instances:
    """What was found, its classes renumbered: `numbers` gives class 1, 2, … their numbers, and 0 leaves a class out."""
    classes = np.array([0, *numbers], np.int32)[found.classes]
    kept = classes > 0
    table = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
    if found.masks is None or kept.all():
        return Instances(table[found.labels], classes[kept], found.scores[kept], found.masks)
    shape = found.labels.shape  # what dropped objects hid comes to light
    masks = [decode_mask(mask, shape) for mask, keep in zip(found.masks, kept, strict=True) if keep]
    return Instances.from_masks(masks, classes[kept], found.scores[kept], (shape[0], shape[1]))


def with_classes(dataset: Dataset, names: Sequence[str]) -> WithClasses:
    """The data set with only these classes, numbered in this order; objects of others are background.

    Raises:
        InputError: if a name is not one of its classes, or is given twice.
    """
    if unknown := [name for name in names if name not in dataset.class_names]:
        raise InputError(
            f"The data set has no class {', '.join(map(repr, unknown))}; its classes: {', '.join(dataset.class_names)}."
        )
    if not names or len(set(names)) < len(names):
        raise InputError(f"The classes to keep are {', '.join(names) or 'none'}; give each once, and at least one.")
    return WithClasses(dataset, names, [1 + names.index(n) if n in names else 0 for n in dataset.class_names])


def as_one_class(dataset: Dataset, name: str = "any class") -> WithClasses:
    """The data set with all objects in one class, whose name should not be that of any model's class."""
    return WithClasses(dataset, [name], [1] * len(dataset.class_names))
