"""The class branch beside an embedding: the class of each pixel, and what that says of the objects found.

Shapes: `c` classes, `s` the lengths of an image or volume along its axes. Class 0 is background.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int, Int32

from attractor.instances import Instances, relabel

Group = Callable[[Float32[np.ndarray, "*s"], Bool[np.ndarray, "*s"]], Int32[np.ndarray, "*s"]]


def likeliest_classes(probability: Float32[np.ndarray, "_ *s"], foreground_threshold: float) -> Int[np.ndarray, "*s"]:
    """The likeliest class where background has a probability below 1 - `foreground_threshold`; 0 elsewhere."""
    foreground = 1 - probability[0] > foreground_threshold
    classes = np.zeros(foreground.shape, np.int64)
    classes[foreground] = 1 + probability[1:, foreground].argmax(0)
    return classes


def group_by_class(probability: Float32[np.ndarray, "_ *s"], classes: Int[np.ndarray, "*s"], group: Group) -> Instances:
    """Objects grouped separately for each class; their score is the mean probability of their class.

    Args:
        probability: of background and each class.
        classes: of each pixel.
        group: gives a label image from the probability of a class and the mask of its pixels.
    """
    labels = np.zeros(classes.shape, np.int32)
    for c in range(1, len(probability)):
        if (classes == c).any():
            found = group(probability[c], classes == c)
            labels[found > 0] = found[found > 0] + labels.max()
    return _scored(labels, probability, classes)


def group_then_classify(
    probability: Float32[np.ndarray, "_ *s"], classes: Int[np.ndarray, "*s"], group: Group
) -> Instances:
    """Objects grouped from all classes together; each has its pixels' most frequent class, and its mean probability.

    Args:
        probability: of background and each class.
        classes: of each pixel; 0 is background.
        group: gives a label image from the probability of being foreground and its mask.
    """
    mask = classes > 0
    if not mask.any():
        return Instances.from_labels(np.zeros(mask.shape, np.int32))
    labels, kept = relabel(group(1 - probability[0], mask))
    inside = labels > 0
    votes = np.zeros((len(kept) + 1, len(probability)), np.int64)
    np.add.at(votes, (labels[inside], classes[inside]), 1)
    of_object = votes.argmax(1)
    return _scored(labels, probability, of_object[labels])


def _scored(
    labels: Int32[np.ndarray, "*s"], probability: Float32[np.ndarray, "_ *s"], classes: Int[np.ndarray, "*s"]
) -> Instances:
    labels, kept = relabel(labels)
    inside = np.nonzero(labels)
    owner, of_pixel = labels[inside], classes[inside]
    of_object = np.zeros(len(kept) + 1, np.int32)
    of_object[owner] = of_pixel  # all pixels of an object have one class
    total = np.bincount(owner, probability[of_pixel, *inside], minlength=len(kept) + 1)
    scores = total[1:] / np.bincount(owner, minlength=len(kept) + 1)[1:]
    return Instances(labels, of_object[1:], scores.astype(np.float32))
