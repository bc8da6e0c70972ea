"""Square or cubic pieces of a data set's images, as a data set: for methods that can take few objects, or pixels.

Each image is cut along a grid from its first pixel, without overlap; what is left at the ends of the axes is not used.
Crops of one image resemble each other, so intervals over crops are narrower than intervals over images.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np

from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError
from attractor.instances import Annotations, decode_mask, encode_mask, relabel
from attractor.wording import counted


@dataclass(frozen=True)
class _Place:
    """Where a crop lies."""

    image: int  # index of the image
    corner: tuple[int, ...]  # its first pixel: row and column; in a volume, plane, row and column


class Crops:
    """The crops of all images that have neither too few objects nor too many."""

    def __init__(self, dataset: Dataset, size: int, *, max_objects: int | None = None, min_objects: int = 1) -> None:
        """Read each image once, to count the objects of its crops.

        Args:
            dataset: what to cut.
            size: side in pixels, along all axes. An image that is smaller along an axis gives crops of that whole axis.
            max_objects: crops with more are left out; any number by default.
            min_objects: crops with fewer are left out. An object counts wherever it has a pixel.

        Raises:
            InputError: if the size or a number of objects is impossible, no crop is left, or an image cannot be read.
        """
        if size < 1:
            raise InputError(f"The size of crops is {size}; it is a side in pixels, at least 1.")
        if max_objects is not None and max_objects < min_objects:
            raise InputError(
                f"No crop has at least {min_objects} objects and at most {max_objects}; allow more, or ask for fewer."
            )
        self._dataset, self.size, self.max_objects, self.min_objects = dataset, size, max_objects, min_objects
        self._last: tuple[int, Sample] | None = None
        self.left_out_empty = 0  # crops with fewer objects than min_objects
        self.left_out_crowded = 0  # crops with more than max_objects
        self._places = self._chosen()
        if not self._places:
            raise InputError(
                f"No crop of {size} pixels is left of {counted(len(dataset), 'image')}: {self.left_out_empty} have too "
                f"few objects and {self.left_out_crowded} too many. Use another size, or another limit on objects."
            )
        stems = [dataset.names[place.image] for place in self._places]
        self.names = tuple(
            stem + "".join(f"_{axis}{n}" for axis, n in zip("zrc"[-len(place.corner) :], place.corner, strict=True))
            for stem, place in zip(stems, self._places, strict=True)
        )
        self.class_names = dataset.class_names
        self.columns = {
            column: {name: values[stem] for name, stem in zip(self.names, stems, strict=True) if stem in values}
            for column, values in dataset.columns.items()
        }

    def __len__(self) -> int:
        """Number of crops."""
        return len(self._places)

    def __getitem__(self, index: int) -> Sample:
        """One crop, its objects renumbered 1 to k; consecutive crops of one image read it only once."""
        place = self._places[index]
        sample = self._image(place.image)
        window = tuple(slice(first, first + self.size) for first in place.corner)
        labels, ids = relabel(sample.labels[window])
        # copies, as a view would keep the whole image in memory
        return Sample(
            self.names[index],
            sample.image[window].copy(),
            labels,
            sample.classes[ids - 1],
            sample.ignore[window].copy(),
            sample.annotate and partial(_cut, sample.annotate, window),
            sample.spacing,
        )

    def in_words(self) -> str:
        """One line on how many crops there are and how many were left out."""
        few = "without an object" if self.min_objects == 1 else f"with fewer than {self.min_objects} objects"
        reasons = {few: self.left_out_empty, f"with more than {self.max_objects} objects": self.left_out_crowded}
        left_out = " and ".join(f"{n:,} {reason}" for reason, n in reasons.items() if n)
        return f"{counted(len(self), 'crop')} of {self.size} x {self.size} pixels; {left_out or 'none'} left out."

    def _chosen(self) -> list[_Place]:
        """The crops with the right number of objects; the others are counted."""
        chosen = []
        for image in range(len(self._dataset)):
            labels = self._image(image).labels
            for corner in itertools.product(*(_starts(n, self.size) for n in labels.shape)):
                n = len(relabel(labels[tuple(slice(first, first + self.size) for first in corner)])[1])
                if n < self.min_objects:
                    self.left_out_empty += 1
                elif self.max_objects is not None and n > self.max_objects:
                    self.left_out_crowded += 1
                else:
                    chosen.append(_Place(image, corner))
        return chosen

    def _image(self, index: int) -> Sample:
        """One image of the data set; the last one read is kept."""
        if self._last is None or self._last[0] != index:
            self._last = index, self._dataset[index]
        return self._last[1]


def _cut(annotate: Callable[[], Annotations], window: tuple[slice, ...]) -> Annotations:
    """The annotations of an image inside a window; an object that is cut has the area of what is left of it."""
    whole = annotate()
    masks = [decode_mask(runs, whole.void.shape) for runs in whole.masks]
    kept = [k for k, mask in enumerate(masks) if mask[window].any()]
    cut = [encode_mask(masks[k][window]) for k in kept]
    areas = [whole.areas[k] if masks[k][window].sum() == masks[k].sum() else masks[k][window].sum() for k in kept]
    return Annotations(
        tuple(cut),
        whole.classes[kept],
        whole.is_crowd[kept],
        np.array(areas, float),
        whole.distances[kept],
        whole.void[window].copy(),
    )


def cropped(dataset: Dataset, size: int | None, max_objects: int | None) -> Dataset:
    """The data set itself or, if a size is given, its crops.

    Raises:
        InputError: if a number of objects is given without a size, or as `Crops` does.
    """
    if size is not None:
        return Crops(dataset, size, max_objects=max_objects)
    if max_objects is not None:
        raise InputError("--max-objects says which crops to leave out; give their size, too, as in --crop 128.")
    return dataset


def _starts(length: int, size: int) -> range:
    """First pixels of the whole crops along an axis; 0 alone where it is shorter than a crop."""
    return range(0, max(length - size, 0) + 1, size)
