"""The measures of the Cell Tracking Challenge: of masks (SEG), objects (DET), links (LNK), both (TRA), and biology.

A found object matches a true one if it covers more than half of its pixels, so one found object may match several
true ones. Tracks are a graph: a vertex for each object in each frame, an edge from each to the same object one frame
later, and one from the last object of a parent to the first of each child. Errors are what has to be mended by hand:

    AOGM = 5 NS + 10 FN + 1 FP + 1 ED + 1.5 EA + 1 EC

for found objects to split (NS), objects to add (FN) and to remove (FP), edges to remove (ED), to add (EA), and to
change from one kind into the other (EC). A measure is 1 - AOGM / AOGM of an empty result, and never below 0; DET counts
the errors of vertices alone, LNK those of edges.

Every value equals that of py-ctcmetrics, the challenge's own tool in Python.

Source: Matula et al. 2015, "Cell tracking accuracy measurement based on comparison of acyclic oriented graphs"; CT, TF,
BC(i), CCA: Ulman et al. 2017, "An objective comparison of cell-tracking algorithms", supplement.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from attractor.metrics.films import Film, FilmMetric, FilmScores, Frame
from attractor.metrics.metric import Row
from attractor.metrics.overlaps import covers_most
from attractor.tracks import Track, children_of

TOLERANCES = (0, 1, 2, 3)  # frames by which a division may be early or late
SHOWN = 1  # the tolerance of the values in the overview
Vertex = tuple[int, int]  # frame, id
NOTHING = float("nan")


@dataclass(frozen=True)
class Corrections:
    """What has to be done by hand to make the found tracks the true ones, and how much there is in all."""

    splits: int  # NS
    missed: int  # FN
    wrong: int  # FP
    wrong_edges: int  # ED
    missed_edges: int  # EA
    changed_edges: int  # EC
    n_vertices: int  # of the truth
    n_edges: int

    @property
    def vertices(self) -> float:
        """Cost of the corrections of objects."""
        return 5.0 * self.splits + 10.0 * self.missed + self.wrong

    @property
    def edges(self) -> float:
        """Cost of the corrections of links."""
        return self.wrong_edges + 1.5 * self.missed_edges + self.changed_edges


@dataclass(frozen=True)
class Divisions:
    """True divisions that were found within a tolerance, found ones that are none, and true ones that were missed."""

    true_positives: int
    false_positives: int
    false_negatives: int

    @property
    def precision(self) -> float:
        """Share of found divisions that are true; NaN if none was found."""
        return _share(self.true_positives, self.true_positives + self.false_positives)

    @property
    def recall(self) -> float:
        """Share of true divisions that were found; NaN if there are none."""
        return _share(self.true_positives, self.true_positives + self.false_negatives)

    @property
    def f1(self) -> float:
        """2 TP / (2 TP + FP + FN), the challenge's BC(i); NaN without a true division."""
        if not self.true_positives + self.false_negatives:
            return NOTHING
        return 2 * self.true_positives / (2 * self.true_positives + self.false_positives + self.false_negatives)


@dataclass(frozen=True)
class CtcScores(FilmScores):
    """The challenge's measures of one film, 0 to 1; NaN where there is nothing to measure."""

    seg: float
    det: float
    tra: float
    lnk: float
    ct: float
    tf: float
    cca: float
    divisions: tuple[Divisions, ...]  # by tolerance, from 0 frames on
    corrections: Corrections

    @property
    def bc(self) -> tuple[float, ...]:
        """BC(i) for each tolerance i."""
        return tuple(one.f1 for one in self.divisions)

    @property
    def bio(self) -> tuple[float, ...]:
        """BIO(i): the mean of CT, TF, BC(i) and CCA, as far as they can be measured."""
        return tuple(_mean([self.ct, self.tf, branching, self.cca]) for branching in self.bc)


def ctc_scores(film: Film) -> CtcScores:
    """All measures of a film.

    Example:
        >>> import numpy as np
        >>> from attractor.metrics.films import film
        >>> from attractor.tracks import Track
        >>> frames = [np.array([[1, 1, 0, 2, 2]])] * 3
        >>> tracks = [Track(1, 0, 2), Track(2, 0, 2)]
        >>> ctc_scores(film(frames, tracks, frames, tracks)).tra
        1.0
    """
    found = corrections(film)
    everything = 10.0 * found.n_vertices + 1.5 * found.n_edges
    return CtcScores(
        film.name,
        len(film.frames),
        film.n_truth,
        seg=segmentation(film.frames if film.outlined is None else film.outlined),
        det=_without(found.vertices, 10.0 * found.n_vertices),
        tra=_without(found.vertices + found.edges, everything),
        lnk=_without(found.edges, 1.5 * found.n_edges),
        ct=complete_tracks(film),
        tf=track_fractions(film),
        cca=cell_cycle_accuracy(film.true_tracks, film.found_tracks),
        divisions=tuple(divisions(film, tolerance) for tolerance in TOLERANCES),
        corrections=found,
    )


def segmentation(frames: Sequence[Frame]) -> float:
    """SEG: mean over true objects of the IoU with the found object that covers more than half of it, or 0."""
    is_match = [covers_most(frame.truth, frame.shared, frame.true_sizes) for frame in frames]
    n = sum(len(frame.true_ids) for frame in frames)
    return _share(sum(float(frame.iou[match].sum()) for frame, match in zip(frames, is_match, strict=True)), n)


def corrections(film: Film) -> Corrections:
    """What has to be mended."""
    missed = sum(len(frame.true_ids) - len(frame.covered) for frame in film.frames)
    wrong = sum(len(frame.found_ids) - len(frame.covering) for frame in film.frames)
    splits = sum(n - 1 for frame in film.frames for n in frame.covering.values())
    true_edges = _edges([frame.true_ids.tolist() for frame in film.frames], film.true_tracks)
    found_edges = _edges([frame.found_ids.tolist() for frame in film.frames], film.found_tracks)
    place = [
        {found: true for true, found in frame.covered.items() if frame.covering[found] == 1} for frame in film.frames
    ]
    mapped = {
        ((start, place[start][one]), (end, place[end][other])): kind
        for ((start, one), (end, other)), kind in found_edges.items()
        if one in place[start] and other in place[end]
    }
    return Corrections(
        splits,
        missed,
        wrong,
        wrong_edges=len(mapped.keys() - true_edges.keys()),
        missed_edges=len(true_edges.keys() - mapped.keys()),
        changed_edges=sum(true_edges[edge] != kind for edge, kind in mapped.items() if edge in true_edges),
        n_vertices=film.n_truth,
        n_edges=len(true_edges),
    )


def complete_tracks(film: Film) -> float:
    """CT: F1 of tracks that are found whole, from the first frame to the last, and as one track."""
    whole = 0
    for track in film.true_tracks:
        matches = {match for match in _matches(film, track) if match is not None}
        if len(matches) == 1 and (match := matches.pop()):
            found = film.found_by_id[match]
            whole += (found.begin, found.end) == (track.begin, track.end)
    return _share(2 * whole, len(film.true_tracks) + len(film.found_tracks))


def track_fractions(film: Film) -> float:
    """TF: mean over true tracks of the longest run of frames in which one found track has it, as a share of all frames.

    Tracks of which nothing is found do not count. A found track that has one true track as a whole counts for no true
    track with a higher id: so does the challenge's program.
    """
    runs: dict[int, dict[int, float]] = {}
    for track in film.true_tracks:
        length, before = 0, None
        for match in _matches(film, track):
            length = length + 1 if match and match == before else 1
            before = match
            if match:
                of_found = runs.setdefault(match, {})
                of_found[track.id] = max(of_found.get(track.id, 0.0), length / track.n_frames)
    best: dict[int, float] = {}
    for found in sorted(runs):
        for true, share in sorted(runs[found].items()):
            if best.get(true, 0.0) == 1:
                continue
            best[true] = max(best.get(true, 0.0), share)
            if share == 1:
                break
    return float(np.mean(list(best.values()))) if best else 0.0


def cell_cycle_accuracy(true_tracks: Sequence[Track], found_tracks: Sequence[Track]) -> float:
    """CCA: 1 minus the largest distance between the distributions of lengths of tracks from division to division."""
    true, found = _cycles(true_tracks), _cycles(found_tracks)
    if not len(true):
        return NOTHING
    if not len(found):
        return 0.0
    lengths = np.arange(max(true.max(), found.max()) + 1)
    return float(1 - max(abs(np.mean(true <= length) - np.mean(found <= length)) for length in lengths))


def divisions(film: Film, tolerance: int) -> Divisions:
    """Which divisions were found: parents and all children matched, and in time within so many frames."""
    true = {parent: children for parent, children in film.true_children.items() if len(children) > 1}
    found = {parent: children for parent, children in film.found_children.items() if len(children) > 1}
    n_same = sum(
        _is_same_division(film, (a, true[a]), (b, found[b]), tolerance) for b in sorted(found) for a in sorted(true)
    )
    return Divisions(n_same, len(found) - n_same, len(true) - n_same)


def _is_same_division(film: Film, true: tuple[int, list[int]], found: tuple[int, list[int]], tolerance: int) -> bool:
    """Whether a found parent and its children are a true parent and its children."""
    (true_parent, true_children), (found_parent, found_children) = true, found
    ends = film.true_by_id[true_parent].end, film.found_by_id[found_parent].end
    if len(true_children) != len(found_children) or abs(ends[0] - ends[1]) > tolerance:
        return False
    if not _is_only_match(film.frames[min(ends)], true_parent, found_parent):
        return False
    matched = set()
    for one in true_children:
        for other in found_children:
            begins = film.true_by_id[one].begin, film.found_by_id[other].begin
            in_time = abs(begins[0] - begins[1]) <= tolerance
            if in_time and _is_only_match(film.frames[max(begins)], one, other):
                matched.add(other)
                break
    return len(matched) == len(true_children)


def _is_only_match(frame: Frame, true: int, found: int) -> bool:
    """Whether the found object covers this true one, and no other."""
    return frame.covered.get(true) == found and frame.covering[found] == 1


def _edges(ids: Sequence[Sequence[int]], tracks: Sequence[Track]) -> dict[tuple[Vertex, Vertex], bool]:
    """The edges of a graph, each with whether it leads from a parent to a child."""
    edges = {
        ((t, one), (t + 1, one)): False
        for t, (before, after) in enumerate(pairwise(ids))
        for one in set(before) & set(after)
    }
    by_id = {track.id: track for track in tracks}
    for track in tracks:
        if track.parent:
            edges[(by_id[track.parent].end, track.parent), (track.begin, track.id)] = True
    return edges


def _matches(film: Film, track: Track) -> list[int | None]:
    """For each frame of a true track the found id that has it; 0 without one alone, None where it is not to be seen."""
    matches: list[int | None] = []
    for frame in film.frames[track.begin : track.end + 1]:
        if track.id not in frame.true_places:
            matches.append(None)
            continue
        found = frame.covered.get(track.id, 0)
        matches.append(found if found and frame.covering[found] == 1 else 0)
    return matches


def _cycles(tracks: Sequence[Track]) -> np.ndarray:
    """Lengths of the tracks that begin and end with a division, less one."""
    dividing = {parent for parent, children in children_of(tracks).items() if len(children) > 1}
    return np.array([t.n_frames - 1 for t in tracks if t.id in dividing and t.parent in dividing], int)


def _share(part: float | int, whole: float | int) -> float:
    return float(part / whole) if whole else NOTHING


def _without(cost: float, most: float) -> float:
    """1 minus the share of the highest cost."""
    return float(1 - min(cost, most) / most) if most else NOTHING


def _mean(values: Sequence[float]) -> float:
    """The mean of those that are known."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else NOTHING


def _rows(scores: CtcScores) -> Mapping[str, Row]:
    found, of_divisions = scores.corrections, scores.divisions[SHOWN]
    return {
        "Cell Tracking Challenge: masks, objects and links": {
            "TRA": scores.tra,
            "DET": scores.det,
            "LNK": scores.lnk,
            "SEG": scores.seg,
        },
        "Tracks and divisions": {
            "CT": scores.ct,
            "TF": scores.tf,
            "CCA": scores.cca,
            f"BIO({SHOWN})": scores.bio[SHOWN],
            **{f"BC({i})": scores.bc[i] for i in TOLERANCES},
        },
        f"Divisions, found within {SHOWN} frame": {
            "right": of_divisions.true_positives,
            "wrong": of_divisions.false_positives,
            "missed": of_divisions.false_negatives,
            "precision": of_divisions.precision,
            "recall": of_divisions.recall,
            "F1": of_divisions.f1,
        },
        "Objects to mend": {
            "missed": found.missed,
            "wrong": found.wrong,
            "to split": found.splits,
        },
        "Links to mend": {
            "missed": found.missed_edges,
            "wrong": found.wrong_edges,
            "of another kind": found.changed_edges,
        },
    }


CTC = FilmMetric(
    ctc_scores,
    _rows,
    about="tracks as in the Cell Tracking Challenge: TRA, DET, LNK, SEG and the biological measures",
    headline="TRA",
    terms={
        "TRA": "1 minus the work of mending objects and links by hand, as a share of that of drawing all by hand.",
        "DET": "The same for objects alone.",
        "LNK": "The same for links alone.",
        "SEG": "Mean IoU of true objects with the found object that covers more than half of them.",
        "CT": "F1 of tracks that are found whole.",
        "TF": "Mean share of a true track that one found track has without a break.",
        "BC(i)": "F1 of divisions, right within i frames.",
        "CCA": "How alike the lengths of true and found cell cycles are distributed.",
        "BIO(i)": "Mean of CT, TF, BC(i) and CCA.",
    },
)
