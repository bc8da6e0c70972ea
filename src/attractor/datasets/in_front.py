"""Who is in front where annotated objects overlap: a label image can give a pixel to one of them only.

Readers give no object a pixel that several claim: it is ignored, as suits microscopy, where nobody knows. In a
photograph the smaller object usually hides a part of the larger one: a window in a facade, a sign on a fence.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

import dataclasses

from attractor.datasets.layout import Overlapping
from attractor.datasets.sample import Dataset, Sample
from attractor.errors import check_choice
from attractor.instances import drawn_whole, relabel

RULES = ("ignore", "smaller in front", "later in front")


class InFront:
    """A data set whose objects are drawn one over the other, instead of ignoring what several of them claim."""

    def __init__(self, dataset: Dataset, rule: str) -> None:
        """Draw by a rule.

        Args:
            dataset: what to read; images that it does not give whole masks for stay as they are.
            rule: "smaller in front", or "later in front" for the order of the annotations.
        """
        check_choice("data.overlap", rule, RULES[1:])
        self.whole, self.rule = dataset, rule
        self.class_names, self.names, self.columns = dataset.class_names, dataset.names, dataset.columns

    def __len__(self) -> int:
        """Number of images."""
        return len(self.whole)

    def __getitem__(self, index: int) -> Sample:
        """Read one sample and draw it anew; an object that others hide wholly is left out."""
        sample = self.whole[index]
        if sample.annotate is None or not sample.ignore.any():
            return sample
        annotations = sample.annotate()
        order = list(range(len(annotations.masks)))
        if self.rule == "smaller in front":
            order.sort(key=lambda k: -int(annotations.masks[k][1::2].sum()))
        drawn, _, crowd = drawn_whole(annotations, order)
        labels, ids = relabel(drawn)
        ignore = (crowd | annotations.void) & (labels == 0)
        return dataclasses.replace(sample, labels=labels, classes=annotations.classes[ids - 1], ignore=ignore)

    def overlap_share(self, index: int) -> float:
        """Part of an image's object pixels that count for no object, because several claim them: none."""
        return 0.0

    def object_count(self, index: int) -> int:
        """Objects that an image's files name, whether or not they keep a pixel."""
        return self.whole.object_count(index) if isinstance(self.whole, Overlapping) else len(self[index].classes)


def drawn_by(dataset: Dataset, rule: str) -> Dataset:
    """The data set drawn by a rule of RULES.

    Raises:
        InputError: if there is no such rule.
    """
    check_choice("data.overlap", rule, RULES)
    return dataset if rule == "ignore" else InFront(dataset, rule)


def suggested_rule(dataset: Dataset) -> str:
    """The rule that suits the data: photographs have colours, and objects of several classes."""
    if not isinstance(dataset, Overlapping) or len(dataset.class_names) < 2 or not len(dataset):
        return "ignore"
    return "smaller in front" if dataset[0].image.shape[-1] == 3 else "ignore"
