"""Which true and found objects overlap, and what becomes of ignored pixels: what the metrics have in common.

Shapes: `s` the lengths of an image or volume along its axes, `k` true objects, `j` found ones, `p` overlapping pairs,
`t` thresholds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from attractor.errors import InputError
from attractor.instances import areas, relabel


@dataclass(frozen=True)
class Pairs:
    """True and found objects that share pixels, both counted from 0, in the order of the true ones."""

    truth: Int[np.ndarray, " p"]
    found: Int[np.ndarray, " p"]
    shared: Int[np.ndarray, " p"]  # pixels
    iou: Float[np.ndarray, " p"]

    def where(self, keep: Bool[np.ndarray, " p"] | Int[np.ndarray, " q"]) -> Pairs:
        """Some of the pairs."""
        return Pairs(self.truth[keep], self.found[keep], self.shared[keep], self.iou[keep])


def overlapping_pairs(truth: Int[np.ndarray, "*s"], found: Int[np.ndarray, "*s"]) -> Pairs:
    """Every pair of objects that shares a pixel, with its intersection over union; no table of all pairs is made."""
    columns = int(found.max(initial=0)) + 1
    both = (truth > 0) & (found > 0)
    ids, shared = np.unique(truth[both].astype(np.int64) * columns + found[both], return_counts=True)
    true_label, found_label = np.divmod(ids, columns)
    union = np.bincount(truth.ravel())[true_label] + np.bincount(found.ravel())[found_label] - shared
    return Pairs(true_label - 1, found_label - 1, shared, shared / union)


def covers_most(
    truth: Int[np.ndarray, " p"], shared: Int[np.ndarray, " p"], true_areas: Int[np.ndarray, " k"]
) -> Bool[np.ndarray, " p"]:
    """Whether the found object of each pair has more than half of the true one: a true object has one such at most.

    This is what the Cell Tracking Challenge calls a match.
    """
    is_match: Bool[np.ndarray, " p"] = 2 * shared > true_areas[truth]
    return is_match


def without(labels: Int[np.ndarray, "*s"], ignore: Bool[np.ndarray, "*s"] | None) -> Int[np.ndarray, "*s"]:
    """Labels with background where pixels are ignored."""
    return labels if ignore is None else np.where(ignore, 0, labels)


def mostly_ignored(found: Int[np.ndarray, "*s"], ignore: Bool[np.ndarray, "*s"] | None) -> Bool[np.ndarray, " j"]:
    """Whether more than half of each found object, in the order of labels, lies on ignored pixels."""
    labels, ids = relabel(found)
    if ignore is None:
        return np.zeros(len(ids), bool)
    return 2 * areas(np.where(ignore, labels, 0), len(ids)) > areas(labels, len(ids))


def place_of(threshold: float, thresholds: Float[np.ndarray, " t"]) -> int:
    """Place of a threshold among those that were measured.

    Raises:
        InputError: if nothing was measured at it.
    """
    near = np.flatnonzero(np.isclose(thresholds, threshold, rtol=0, atol=1e-9))
    if not len(near):
        raise InputError(f"Nothing was measured at IoU {threshold}; these were measured: {thresholds.tolist()}.")
    return int(near[0])


def checked_thresholds(thresholds: Sequence[float]) -> Float[np.ndarray, " t"]:
    """Thresholds of IoU, rounded, so that those of np.arange will do, too."""
    if not len(thresholds) or not all(0 < t <= 1 for t in thresholds):
        raise InputError(f"Give at least one threshold of IoU, all above 0 and up to 1; found {list(thresholds)}.")
    return np.round(np.asarray(thresholds, float), 9)
