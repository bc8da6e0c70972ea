"""What may have become of an object from one frame to the next: it is one of the later objects, or it is now two.

How likely that is, its likeness, is the overlap (IoU) of the object with what it may have become, once it has moved. It
is tried where it was, where it is expected, and right on top of what it may have become, where only size and shape
count; the farther it has to move for that, the less it counts. The best of the three is taken. An object is expected
where the mean step of its neighbours would take it, as objects that lie close together move together.

Shapes: `a` axes, `k` earlier objects, `j` later ones, `n` pixels, `p` hypotheses, `q` pairs that share pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int, Int64
from scipy.spatial import KDTree

from attractor.tracking.objects import Objects

MOST_NEAR = 8  # later objects that an earlier one may be, nearest first
MOST_PIXELS = 1 << 22  # that are moved at once
GROWTH = 2.0  # of two children's size together over their parent's; as much may be lost
UNLIKE = 3.0  # the larger child's size over the smaller one's
NEIGHBOURS = 6  # that tell where an object is expected
STEADY = 0.05  # change of size, as a logarithm, that is never unusual
SPREADS = 4.0  # times the usual spread of changes: all beyond is equally unusual
NOBODY = -1


@dataclass(frozen=True)
class Hypotheses:
    """What each earlier object may have become, by place; a second child of -1 means that there is only one."""

    parents: Int64[np.ndarray, " p"]
    children: Int64[np.ndarray, "p 2"]

    def __len__(self) -> int:
        """Number of hypotheses."""
        return len(self.parents)

    @property
    def is_division(self) -> Bool[np.ndarray, " p"]:
        """Whether there are two children."""
        return self.children[:, 1] != NOBODY

    def where(self, keep: Bool[np.ndarray, " p"]) -> Hypotheses:
        """Some of them."""
        return Hypotheses(self.parents[keep], self.children[keep])


def hypotheses(
    earlier: Objects,
    later: Objects,
    expected: Float[np.ndarray, "k a"],
    reach: Float[np.ndarray, " k"],
    spacing: Float[np.ndarray, " a"],
    may_divide: Bool[np.ndarray, " k"],
) -> Hypotheses:
    """All that is possible: later objects, or pairs of them, within reach of where the earlier one was or is expected.

    Two objects can be children if neither is much larger than the other, and their size is about the parent's.

    Args:
        earlier: the objects of the frame before.
        later: those of the frame.
        expected: where each earlier object's centre is expected, in pixels.
        reach: how far each may move, in units of `spacing`; twice as far for the children of one.
        spacing: length of a pixel along each axis.
        may_divide: for each earlier object.
    """
    ones = _near((earlier.centres, expected), later, reach, spacing)
    parents, children = list(ones[0]), [(child, NOBODY) for child in ones[1]]
    if may_divide.any():
        rows, columns = ones
        sizes = later.sizes
        for parent, near in zip(*_grouped(rows, columns), strict=True):
            if not may_divide[parent]:
                continue
            for pair in combinations(near, 2):
                first, second = (int(sizes[child]) for child in pair)
                growth = (first + second) / int(earlier.sizes[parent])
                if max(first, second) <= UNLIKE * min(first, second) and 1 / GROWTH <= growth <= GROWTH:
                    parents.append(parent)
                    children.append(pair)
    return Hypotheses(np.array(parents, np.int64), np.array(children, np.int64).reshape(-1, 2))


def likeness(
    given: Hypotheses,
    earlier: Objects,
    later: Objects,
    frame: Int[np.ndarray, "*axes"],
    expected: Float[np.ndarray, "k a"],
    reach: Float[np.ndarray, " k"],
    spacing: Float[np.ndarray, " a"],
) -> Float[np.ndarray, " p"]:
    """How likely each hypothesis is by overlap, 0 to 1; the arguments are those of `hypotheses`."""
    middles = _middles(given, later)
    steps = expected - earlier.centres
    sizes = earlier.sizes[given.parents]
    together = _together(given, later)
    there = _iou(_shared(given, earlier, later, frame, np.zeros_like(steps)), sizes, together)
    moved = _iou(_shared(given, earlier, later, frame, steps), sizes, together)
    on_top = _iou(_shared_on_top(given, earlier, later, frame, middles), sizes, together)
    here = earlier.centres[given.parents]
    away = np.minimum(_lengths((middles - here) * spacing), _lengths((middles - here - steps[given.parents]) * spacing))
    return np.maximum(np.maximum(there, moved), on_top * np.clip(1 - away / reach[given.parents], 0, 1))


def pointed_at(
    later: Objects,
    before: Int[np.ndarray, "*axes"],
    steps: Float[np.ndarray, "a *axes"],
    labels: Int[np.ndarray, " k"],
) -> Float[np.ndarray, "k j"]:
    """The share of each later object's pixels that point at each earlier one.

    Args:
        later: the objects of the frame.
        before: the frame before.
        steps: from each pixel of the frame to where its object was in the frame before, in pixels.
        labels: of the earlier objects there.
    """
    if not len(later) or not len(labels):
        return np.zeros((len(labels), len(later)))
    places = later.pixels + np.rint(steps[(slice(None), *later.pixels.T)].T).astype(np.int64)
    inside = ((places >= 0) & (places < before.shape)).all(1)
    met = before[tuple(places[inside].T)]
    table = np.zeros((int(before.max(initial=0)) + 1, len(later)))
    np.add.at(table, (met, later.owners[inside]), 1)
    table[0] = 0
    return np.where(labels < len(table), 1, 0)[:, None] * table[np.minimum(labels, len(table) - 1)] / later.sizes


def pointing(
    given: Hypotheses, earlier: Objects, later: Objects, origins: Float[np.ndarray, "k j"]
) -> Float[np.ndarray, " p"]:
    """The share of the pixels of what each object may have become that point at it; no more than what is left of it.

    Args:
        given: the hypotheses.
        earlier: the objects of the frame before.
        later: those of the frame.
        origins: the share of each later object's pixels that point at each earlier one.

    Source: Löffler & Mikut 2022 (EmbedTrack), whose majority of pixels decides; a crumb would do there.
    """
    first, second = given.children.T
    n_pixels = origins * later.sizes
    both = n_pixels[given.parents, first] + np.where(given.is_division, n_pixels[given.parents, second], 0)
    return both / np.maximum(_together(given, later), earlier.sizes[given.parents])


def with_neighbours(
    held: Hypotheses,
    earlier: Objects,
    later: Objects,
    steps: Float[np.ndarray, "k a"],
    spacing: Float[np.ndarray, " a"],
) -> Float[np.ndarray, "k a"]:
    """The mean step of each earlier object's nearest neighbours, if what is held is true.

    Where too little is held, steps stay as they are.
    """
    if len(held) <= NEIGHBOURS:
        return steps
    moved = _middles(held, later) - earlier.centres[held.parents]
    _, near = KDTree(earlier.centres[held.parents] * spacing).query(earlier.centres * spacing, NEIGHBOURS + 1)
    others = held.parents[near] != np.arange(len(earlier))[:, None]
    others[others.all(1), -1] = False  # the farthest, of an object that is not among them
    return (moved[near] * others[..., None]).sum(1) / NEIGHBOURS


def unusual(given: Hypotheses, held: Hypotheses, earlier: Objects, later: Objects) -> Float[np.ndarray, " p"]:
    """How much each hypothesis's change of size differs from what is usual among those that are held, 0 to 1.

    In a film in which all objects grow steadily, a small difference counts; where sizes vary, only a large one does.
    """
    if len(held) <= NEIGHBOURS:
        return np.zeros(len(given))
    usual = _growth(held, earlier, later)
    middle = np.median(usual)
    spread = max(STEADY, 1.5 * float(np.median(np.abs(usual - middle))))
    return np.clip(np.abs(_growth(given, earlier, later) - middle) / (SPREADS * spread), 0, 1)


def _growth(given: Hypotheses, earlier: Objects, later: Objects) -> Float[np.ndarray, " p"]:
    """Logarithm of the size of what each object may have become over its own."""
    return np.log(_together(given, later) / earlier.sizes[given.parents])


def _together(given: Hypotheses, later: Objects) -> Int64[np.ndarray, " p"]:
    """Pixels of what each object may have become."""
    first, second = given.children.T
    return later.sizes[first] + np.where(given.is_division, later.sizes[second], 0)


def _near(
    places: tuple[Float[np.ndarray, "k a"], ...],
    later: Objects,
    reach: Float[np.ndarray, " k"],
    spacing: Float[np.ndarray, " a"],
) -> tuple[Int64[np.ndarray, " p"], Int64[np.ndarray, " p"]]:
    """Pairs in which the later object lies within reach of one of the earlier one's places."""
    empty = np.zeros(0, np.int64)
    if not len(reach) or not len(later):
        return empty, empty
    tree, n = KDTree(later.centres * spacing), min(MOST_NEAR, len(later))
    codes = []
    for centres in places:
        distances, nearest = tree.query(centres * spacing, n)
        distances, nearest = distances.reshape(-1, n), nearest.reshape(-1, n)
        rows, ranks = np.nonzero(distances <= reach[:, None])
        codes.append(rows * len(later) + nearest[rows, ranks])
    rows, columns = np.divmod(np.unique(np.concatenate(codes)).astype(np.int64), len(later))
    return rows, columns


def _grouped(rows: Int64[np.ndarray, " p"], columns: Int64[np.ndarray, " p"]) -> tuple[list[int], list[list[int]]]:
    """The rows, which are sorted, each once, and the columns of each."""
    different, first = np.unique(rows, return_index=True)
    return different.tolist(), [part.tolist() for part in np.split(columns, first[1:])] if len(rows) else []


def _middles(given: Hypotheses, later: Objects) -> Float[np.ndarray, "p a"]:
    """The centre of what each object may have become."""
    first, second = given.children.T
    weight = np.where(given.is_division, later.sizes[second], 0)[:, None] / later.sizes[first][:, None]
    return (later.centres[first] + weight * later.centres[second]) / (1 + weight)


def _shared(
    given: Hypotheses,
    earlier: Objects,
    later: Objects,
    frame: Int[np.ndarray, "*axes"],
    steps: Float[np.ndarray, "k a"],
) -> Int64[np.ndarray, " p"]:
    """Pixels that each object shares with what it may have become, once it has moved by its step."""
    places = np.full(int(later.labels.max(initial=0)) + 1, NOBODY)
    places[later.labels] = np.arange(len(later))
    owners, labels = _met(earlier, frame, steps)
    met = places[labels]
    codes, counts = np.unique(owners[met >= 0] * len(later) + met[met >= 0], return_counts=True)

    def looked_up(children: Int64[np.ndarray, " p"]) -> Int64[np.ndarray, " p"]:
        wanted = given.parents * len(later) + children
        place = np.minimum(np.searchsorted(codes, wanted), len(codes) - 1)
        return np.where((codes[place] == wanted) & (children != NOBODY), counts[place], 0)

    first, second = given.children.T
    return looked_up(first) + looked_up(second) if len(codes) else np.zeros(len(given), np.int64)


def _shared_on_top(
    given: Hypotheses,
    earlier: Objects,
    later: Objects,
    frame: Int[np.ndarray, "*axes"],
    middles: Float[np.ndarray, "p a"],
) -> Int64[np.ndarray, " p"]:
    """The same, with each object's centre on the middle of what it may have become."""
    shared = np.zeros(len(given), np.int64)
    parts = np.cumsum(earlier.sizes[given.parents]) // MOST_PIXELS
    labels = np.where(given.children != NOBODY, later.labels[given.children], 0)
    for part in np.split(np.arange(len(given)), np.flatnonzero(np.diff(parts)) + 1):
        moving = earlier.some(given.parents[part])
        owners, met = _met(moving, frame, middles[part] - moving.centres)
        own = labels[part][owners]
        hit = (met == own[:, 0]) | ((met == own[:, 1]) & (met > 0))
        shared[part] = np.bincount(owners[hit], minlength=len(part))
    return shared


def _met(
    objects: Objects, frame: Int[np.ndarray, "*axes"], steps: Float[np.ndarray, "k a"]
) -> tuple[Int64[np.ndarray, " n"], Int[np.ndarray, " n"]]:
    """Whose pixels come to lie within the frame after these steps, and on what labels."""
    owners = objects.owners
    moved = objects.pixels + np.rint(steps).astype(np.int64)[owners]
    inside = ((moved >= 0) & (moved < frame.shape)).all(1)
    return owners[inside], frame[tuple(moved[inside].T)]


def _iou(
    shared: Int64[np.ndarray, " p"], sizes: Int64[np.ndarray, " p"], others: Int64[np.ndarray, " p"]
) -> Float[np.ndarray, " p"]:
    return shared / (sizes + others - shared)


def _lengths(vectors: Float[np.ndarray, "p a"]) -> Float[np.ndarray, " p"]:
    return np.sqrt(np.square(vectors).sum(1))
