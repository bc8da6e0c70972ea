"""Multi-object tracking and segmentation: MOTSA and sMOTSA, IDF1, HOTA.

MOTSA, sMOTSA and IDF1 match a true and a found object where their masks have an IoU above .5, which can hold for one
pair only. An id switch is a true object that is matched to another track than when it was last matched. IDF1 pairs
whole tracks one to one, so that as many frames as possible are matched. HOTA takes nineteen thresholds of IoU, .05 to
.95; at each, it is the geometric mean of how good detection and association are. Which objects are matched at low
thresholds is decided by an assignment that prefers tracks which agree over the whole film.

Source: MOTSA, sMOTSA: Voigtlaender et al. 2019, "MOTS: multi-object tracking and segmentation"; IDF1: Ristani et al.
2016, "Performance measures and a data set for multi-target, multi-camera tracking"; HOTA: Luiten et al. 2020, "HOTA: a
higher order metric for evaluating multi-object tracking", with the matching of its reference code.

Shapes: `n` true tracks, `m` found ones, `k` true objects of a frame, `j` found ones, `t` thresholds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.optimize import linear_sum_assignment

from attractor.metrics.films import Film, FilmMetric, FilmScores, Frame
from attractor.metrics.metric import Row

THRESHOLDS = np.round(np.arange(0.05, 0.96, 0.05), 2)
MATCHED = 0.5  # IoU above which objects match
ROUNDING = 1e-9  # an IoU as high as a threshold reaches it


@dataclass(frozen=True)
class MotsScores(FilmScores):
    """The scores of one film; NaN without a true object."""

    motsa: float  # up to 1; below 0 where errors outnumber objects
    smotsa: float
    idf1: float  # 0 to 1, as the following
    hota: float
    deta: float  # HOTA's detection
    assa: float  # HOTA's association
    true_positives: int
    false_positives: int
    false_negatives: int
    id_switches: int


def mots_scores(film: Film) -> MotsScores:
    """All scores of a film.

    Example:
        >>> import numpy as np
        >>> from attractor.metrics.films import film
        >>> true, found = np.array([[1, 1, 0]]), np.array([[2, 2, 0]])
        >>> scores = mots_scores(film([true, true], [], [true, found], []))
        >>> scores.id_switches, scores.motsa
        (1, 0.5)
    """
    n_truth, n_found = film.n_truth, sum(len(frame.found_ids) for frame in film.frames)
    hits, overlap, switches = _clear(film)
    together = 2 * _id_true_positives(film)
    of_hota = _hota(film)
    return MotsScores(
        film.name,
        len(film.frames),
        n_truth,
        motsa=(hits - (n_found - hits) - switches) / n_truth if n_truth else float("nan"),
        smotsa=(overlap - (n_found - hits) - switches) / n_truth if n_truth else float("nan"),
        idf1=together / (n_truth + n_found) if n_truth else float("nan"),
        hota=of_hota[0],
        deta=of_hota[1],
        assa=of_hota[2],
        true_positives=hits,
        false_positives=n_found - hits,
        false_negatives=n_truth - hits,
        id_switches=switches,
    )


def _clear(film: Film) -> tuple[int, float, int]:
    """Matched objects, the sum of their IoU, and id switches."""
    hits, overlap, switches = 0, 0.0, 0
    last: dict[int, int] = {}
    for frame in film.frames:
        is_match = frame.iou > MATCHED
        overlap += float(frame.iou[is_match].sum())
        for true, found in _ids(frame, is_match):
            hits += 1
            switches += last.get(true, found) != found
            last[true] = found
    return hits, overlap, switches


def _id_true_positives(film: Film) -> int:
    """Frames in which objects match, over the best pairs of whole tracks."""
    counts: dict[tuple[int, int], int] = {}
    for frame in film.frames:
        for pair in _ids(frame, frame.iou > MATCHED):
            counts[pair] = counts.get(pair, 0) + 1
    if not counts:
        return 0
    pairs = np.array(list(counts))
    _, rows = np.unique(pairs[:, 0], return_inverse=True)
    _, columns = np.unique(pairs[:, 1], return_inverse=True)
    table = np.zeros((rows.max() + 1, columns.max() + 1), int)
    table[rows, columns] = list(counts.values())
    return int(table[linear_sum_assignment(table, maximize=True)].sum())


def _hota(film: Film) -> tuple[float, float, float]:
    """HOTA, DetA and AssA, each the mean over thresholds."""
    true_ids = np.unique(np.concatenate([np.zeros(0, np.int64), *(frame.true_ids for frame in film.frames)]))
    found_ids = np.unique(np.concatenate([np.zeros(0, np.int64), *(frame.found_ids for frame in film.frames)]))
    n_truth, n_found = film.n_truth, sum(len(frame.found_ids) for frame in film.frames)
    if not n_truth:
        return (float("nan"),) * 3
    true_counts, found_counts = np.zeros((len(true_ids), 1)), np.zeros((1, len(found_ids)))
    agreed = np.zeros((len(true_ids), len(found_ids)))
    places = []
    for frame in film.frames:
        place = np.searchsorted(true_ids, frame.true_ids), np.searchsorted(found_ids, frame.found_ids)
        places.append(place)
        true_counts[place[0], 0] += 1
        found_counts[0, place[1]] += 1
        agreed[np.ix_(*place)] += _shares(_iou_table(frame))
    alignment = agreed / (true_counts + found_counts - agreed)
    matched = np.zeros((len(THRESHOLDS), len(true_ids), len(found_ids)))
    for frame, place in zip(film.frames, places, strict=True):
        iou = _iou_table(frame)
        rows, columns = linear_sum_assignment(alignment[np.ix_(*place)] * iou, maximize=True)
        reached = iou[rows, columns] >= THRESHOLDS[:, None] - ROUNDING
        matched[:, place[0][rows], place[1][columns]] += reached
    hits = matched.sum((1, 2))
    association = (matched * matched / np.maximum(1, true_counts + found_counts - matched)).sum((1, 2))
    detection = hits / (n_truth + n_found - hits)
    association = association / np.maximum(1, hits)
    return float(np.sqrt(detection * association).mean()), float(detection.mean()), float(association.mean())


def _shares(iou: Float[np.ndarray, "k j"]) -> Float[np.ndarray, "k j"]:
    """The IoU of each pair, as a share of all IoU that either of the two has."""
    whole = iou.sum(0, keepdims=True) + iou.sum(1, keepdims=True) - iou
    return np.divide(iou, whole, out=np.zeros_like(iou), where=whole > 0)


def _iou_table(frame: Frame) -> Float[np.ndarray, "k j"]:
    table = np.zeros((len(frame.true_ids), len(frame.found_ids)))
    table[frame.truth, frame.found] = frame.iou
    return table


def _ids(frame: Frame, keep: np.ndarray) -> list[tuple[int, int]]:
    """True and found ids of some pairs."""
    true, found = frame.true_ids[frame.truth[keep]], frame.found_ids[frame.found[keep]]
    return list(zip(true.tolist(), found.tolist(), strict=True))


def _rows(scores: MotsScores) -> Mapping[str, Row]:
    return {
        "Multi-object tracking and segmentation": {
            "HOTA": scores.hota,
            "DetA": scores.deta,
            "AssA": scores.assa,
            "IDF1": scores.idf1,
            "MOTSA": scores.motsa,
            "sMOTSA": scores.smotsa,
        },
        "Objects at IoU above .5": {
            "right": scores.true_positives,
            "wrong": scores.false_positives,
            "missed": scores.false_negatives,
            "id switches": scores.id_switches,
        },
    }


MOTS = FilmMetric(
    mots_scores,
    _rows,
    about="tracks as in multi-object tracking: HOTA, IDF1, MOTSA and sMOTSA",
    headline="HOTA",
    terms={
        "HOTA": "Geometric mean of DetA and AssA, over IoU .05 to .95.",
        "DetA": "TP / (TP + FP + FN) of objects.",
        "AssA": "The same of the frames of two tracks, as the mean over matched objects.",
        "IDF1": "F1 of frames that have the right track, tracks being paired one to one.",
        "MOTSA": "Matched objects less wrong ones and id switches, over true objects.",
        "sMOTSA": "The same with each match counted by its IoU.",
    },
)
