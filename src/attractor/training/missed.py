"""Objects of the training images that the model missed when it last looked at them: crops can show those more often.

After each validation it looks at as many of the training images, other ones each time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from jaxtyping import Int, Int32

from attractor.metrics.overlaps import overlapping_pairs

FOUND = 0.5  # IoU from which an object is found


class Missed:
    """Which objects were missed, in memory that all processes share; at first, none were."""

    def __init__(self, counts: Sequence[int]) -> None:
        """Know no object yet.

        Args:
            counts: how many objects each image has.
        """
        self._first = np.cumsum([0, *counts])  # place of each image's first object
        self._flags = torch.zeros(int(self._first[-1]), dtype=torch.bool).share_memory_()

    def look(self, image: int, missed: Int[np.ndarray, " k"]) -> None:
        """Note the labels that were missed in an image; its others were found."""
        own = self._flags[self._first[image] : self._first[image + 1]]
        own.zero_()
        own[torch.from_numpy(missed - 1)] = True

    def drawn(self, generator: torch.Generator) -> tuple[int, int] | None:
        """Image and label of one of them, each as likely; None if there are none."""
        places = self._flags.nonzero()[:, 0]
        if not len(places):
            return None
        place = int(places[int(torch.randint(len(places), (), generator=generator))])
        image = int(np.searchsorted(self._first, place, side="right")) - 1
        return image, place - int(self._first[image]) + 1

    @property
    def places(self) -> list[int]:
        """Where they are among all objects, to go on with later."""
        return [int(place) for place in self._flags.nonzero()[:, 0]]

    @places.setter
    def places(self, places: Iterable[int]) -> None:
        """Go on with these.

        Raises:
            ValueError: if there are not so many objects.
        """
        numbers = torch.tensor(list(places), dtype=torch.int64)
        if len(numbers) and not 0 <= int(numbers.min()) <= int(numbers.max()) < len(self._flags):
            raise ValueError("it missed objects that the training images do not have")
        self._flags.zero_()
        self._flags[numbers] = True


def not_found(truth: Int32[np.ndarray, "*s"], found: Int32[np.ndarray, "*s"]) -> Int[np.ndarray, " k"]:
    """The labels of those true objects that no found one matches."""
    pairs = overlapping_pairs(truth, found)
    every: Int[np.ndarray, " n"] = np.unique(truth[truth > 0])
    return np.setdiff1d(every, pairs.truth[pairs.iou >= FOUND] + 1)
