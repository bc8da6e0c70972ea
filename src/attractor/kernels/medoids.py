"""The pixel of each object with the smallest sum of distances to the object's other pixels.

Shapes: `b` images, `a` axes, `s` their lengths, `k` objects of the batch. Axes come in the order (plane, row, column);
images have the last two.
Source: Lalit et al. 2021 (EmbedSeg), section 2.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numba import njit
from torch import Tensor

from attractor.kernels.places import gap

SAMPLE = 2000  # pixels of an object against which candidates are measured; all are used up to here


def medoids(owner: Tensor, n_objects: int, *, spacing: Sequence[float] = (), approximate: bool = False) -> Tensor:
    """(k, a) index along each axis of each object's centre pixel.

    Args:
        owner: (b, *s) int, 1 + object that owns the pixel, 0 or less for none.
        n_objects: k.
        spacing: length of a step along each axis; by default all are alike.
        approximate: take the object's pixel nearest to its median along each axis instead.
    Ties go to the first pixel in row-major order. Above `SAMPLE` pixels, an evenly spread sample represents the
    object.
    """
    array = owner.cpu().numpy().astype(np.int32)
    flat = array.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 1) :]
    starts = np.searchsorted(flat[order], np.arange(1, n_objects + 2))
    shape = array.shape[1:]
    places = [place.astype(np.int32) for place in np.unravel_index(order % max(int(np.prod(shape)), 1), shape)]
    step = tuple(float(length) for length in spacing) or (1.0,) * len(shape)
    pick = _nearest_to_median if approximate else _least_distance
    centre = np.zeros((n_objects, len(shape)), np.int64)
    for k in range(n_objects):
        part = slice(starts[k], starts[k + 1], max(1, -(-(starts[k + 1] - starts[k]) // SAMPLE)))
        of_object = tuple(place[part] for place in places)
        best = pick(of_object, step)
        centre[k] = [place[best] for place in of_object]
    return torch.from_numpy(centre).to(owner.device)


def _nearest_to_median(places, step):
    return np.argmin(
        sum(((place - np.median(place)) * length) ** 2 for place, length in zip(places, step, strict=True))
    )


@njit(cache=True, nogil=True)
def _least_distance(places, step):
    best, least = 0, np.inf
    for i in range(places[0].size):
        total = 0.0
        for j in range(places[0].size):
            total += gap(places, i, j, step)
            if total >= least:
                break
        if total < least:
            best, least = i, total
    return best
