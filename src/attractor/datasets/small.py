"""A data set whose smallest objects count for nothing, as fragments that annotators left behind should.

Their pixels are ignored, like those that the data set itself ignores.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError
from attractor.instances import areas, relabel


class WithoutSmall:
    """A data set in which objects of fewer pixels than a number are ignored."""

    def __init__(self, dataset: Dataset, least: int) -> None:
        """Leave out objects of fewer than `least` pixels.

        Raises:
            InputError: if the number is below 1.
        """
        if least < 1:
            raise InputError(f"The least number of pixels of an object is {least}; give 1 or more.")
        self.whole, self.least = dataset, least
        self.class_names, self.names, self.columns = dataset.class_names, dataset.names, dataset.columns

    def __len__(self) -> int:
        """Number of images."""
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample.

        Raises:
            InputError: if its objects overlap: what one hides of another has no pixels that could be ignored.
        """
        sample = self.whole[index]
        if sample.annotate is not None:
            raise InputError(
                f"{sample.name}: has objects that overlap; small ones can be ignored in label images only."
            )
        is_small = np.concatenate([[False], areas(sample.labels, len(sample.classes)) < self.least])
        if not is_small.any():
            return dataclasses.replace(sample, earlier=None)  # objects of the frame before may have other numbers now
        ignore = sample.ignore | is_small[sample.labels]
        labels, kept = relabel(np.where(ignore, 0, sample.labels))
        classes = sample.classes[kept - 1]
        return dataclasses.replace(sample, labels=labels, classes=classes, ignore=ignore, earlier=None)
