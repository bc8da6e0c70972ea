"""The pixel of each object with the smallest sum of distances to the object's other pixels.

Shapes: `b` images, `h` rows, `w` columns, `k` objects of the batch.
Source: Lalit et al. 2021 (EmbedSeg), section 2.
"""

from __future__ import annotations

import numpy as np
import torch
from numba import njit
from torch import Tensor

SAMPLE = 2000  # pixels of an object against which candidates are measured; all are used up to here


def medoids(owner: Tensor, n_objects: int, *, approximate: bool = False) -> Tensor:
    """(k, 2) row and column of each object's centre pixel.

    Args:
        owner: (b, h, w) int, 1 + object that owns the pixel, 0 or less for none.
        n_objects: k.
        approximate: take the object's pixel nearest to its median row and median column instead.
    Ties go to the first pixel in row-major order. Above `SAMPLE` pixels, an evenly spread sample represents the
    object.
    """
    array = owner.cpu().numpy().astype(np.int32)
    flat = array.ravel()
    order = np.argsort(flat, kind="stable")
    order = order[np.searchsorted(flat[order], 1) :]
    starts = np.searchsorted(flat[order], np.arange(1, n_objects + 2))
    width, height = array.shape[2], array.shape[1]
    rows, columns = (order // width % height).astype(np.int32), (order % width).astype(np.int32)
    pick = _nearest_to_median if approximate else _least_distance
    centre = np.zeros((n_objects, 2), np.int64)
    for k in range(n_objects):
        part = slice(starts[k], starts[k + 1], max(1, -(-(starts[k + 1] - starts[k]) // SAMPLE)))
        best = pick(rows[part], columns[part])
        centre[k] = rows[part][best], columns[part][best]
    return torch.from_numpy(centre).to(owner.device)


def _nearest_to_median(rows, columns):
    row, column = np.median(rows), np.median(columns)
    return np.argmin((rows - row) ** 2 + (columns - column) ** 2)


@njit(cache=True, nogil=True)
def _least_distance(rows, columns):
    best, least = 0, np.inf
    for i in range(rows.size):
        total = 0.0
        for j in range(rows.size):
            total += np.sqrt(np.float64(rows[i] - rows[j]) ** 2 + np.float64(columns[i] - columns[j]) ** 2)
            if total >= least:
                break
        if total < least:
            best, least = i, total
    return best
