"""What a metric says of an image, told by arrays, objects or annotations."""

from collections.abc import Callable
from typing import TypeVar

import numpy as np

from attractor.instances import Annotations, Instances
from attractor.metrics.metric import Pair

S = TypeVar("S")


def scoring(score_image: Callable[..., S]) -> Callable[..., S]:
    """The metric's `score_image` of truth and found, each a label image or objects, and truth maybe annotations."""

    def score(
        truth: np.ndarray | Instances | Annotations,
        found: np.ndarray | Instances,
        *,
        name: str,
        ignore: np.ndarray | None = None,
        **options: object,
    ) -> S:
        if isinstance(truth, Annotations):
            nothing = Instances.from_labels(np.zeros(truth.void.shape, np.int32))
            return score_image(Pair(name, nothing, objects(found), annotate=lambda: truth), **options)
        return score_image(Pair(name, objects(truth), objects(found), ignore), **options)

    return score


def objects(given: np.ndarray | Instances) -> Instances:
    return given if isinstance(given, Instances) else Instances.from_labels(given)
