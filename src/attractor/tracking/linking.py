"""One number for each object through a film: label images of frame after frame in, the same with ids out.

Frames are a stream: each is linked to the objects that are open (seen in the last frame, or missed for a few) and then
forgotten, so that neither memory nor time for a frame depends on the film's length. What an object may have become is a
hypothesis: one of the new objects, or two of them, if it has divided. Each has a cost, 1 minus its likeness (overlap
once the object has moved); an object that has become nothing costs an end, and one that comes from none a start. Of all
sets of hypotheses that do not contradict each other, that of the lowest cost is taken. This is done three times: from
the second time on, an object is expected where its neighbours' steps would take it, and changes of size that are
unusual in this frame count against a hypothesis.

A model that was trained on films also says where each pixel's object was one frame ago. The share of an object's pixels
that point at an earlier one is then another measure of their likeness, and the larger of the two counts.

The same links the slices of a volume, with z in place of time.

Source: assignment with costs of starting and ending, Jaqaman et al. 2008, "Robust single-particle tracking in live-cell
time-lapse sequences". The best set is found by scipy (HiGHS for whole-number programmes, and its linear assignment), as
an assignment alone cannot weigh a division against two links, which is what matters where objects lie side by side.

Shapes: `a` axes, `k` open objects, `j` objects of the new frame.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, TypeAlias

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Int64, Shaped

from attractor.errors import InputError, check_number
from attractor.tracking.choosing import chosen
from attractor.tracking.drift import drift_between
from attractor.tracking.hypotheses import (
    Hypotheses,
    hypotheses,
    likeness,
    pointed_at,
    pointing,
    unusual,
    with_neighbours,
)
from attractor.tracking.objects import Objects, diameters, joined, objects_of
from attractor.tracks import Track

REACH = 2.0  # diameters of an object that it may move from one frame to the next
ALONE = 0.45  # cost of an end, and of a start: a link needs a likeness of more than 1 - 2 * ALONE
DIVIDED = 0.2  # cost of a division, which is rarer than none
MISSED = 0.1  # cost of each frame in which an object is missed
UNUSUAL = 0.3  # share of a hypothesis's gain that a most unusual change of size costs
ROUNDS = 2  # in which neighbours are asked
Labels: TypeAlias = Shaped[np.ndarray, "..."]  # of whole numbers, which is checked
SEVERAL = 3  # objects that show a drift: the same movement of fewer may be their own
SMALLEST = float(np.nextafter(0, 1))


class Pointing(NamedTuple):
    """A frame, and where each of its pixels was one frame ago."""

    labels: Labels
    steps: Float[np.ndarray, "a *axes"]  # from each pixel to where its object was, in pixels along each axis


Frame: TypeAlias = Labels | Pointing


@dataclass(frozen=True)
class _Open:
    """The objects that a new one may continue, each as it was last seen, moved by the drift since then."""

    objects: Objects
    ids: Int64[np.ndarray, " k"]
    seen: Int64[np.ndarray, " k"]  # the frame
    steps: Float[np.ndarray, "k a"]  # how far it moved in its last frame, without drift

    def where(self, keep: Bool[np.ndarray, " k"]) -> _Open:
        """Some of them."""
        return _Open(self.objects.some(np.flatnonzero(keep)), self.ids[keep], self.seen[keep], self.steps[keep])

    def moved(self, shift: Float[np.ndarray, " a"]) -> _Open:
        """The same elsewhere."""
        return replace(self, objects=self.objects.moved(shift))


class Linked(Iterator[Int32[np.ndarray, "*axes"]]):
    """The frames of a film, one after another, with the same number for the same object in all of them.

    `tracks` are those seen so far; they are complete once all frames have been taken.
    """

    def __init__(
        self,
        frames: Iterable[Frame],
        *,
        max_distance: float | None = None,
        max_gap: int = 1,
        divisions: bool = True,
        drift: bool = True,
        spacing: Sequence[float] | None = None,
    ) -> None:
        """Take frames and options as `link` does."""
        if max_distance is not None:
            check_number("max_distance", max_distance, SMALLEST)
        check_number("max_gap", max_gap, 0)
        for step in spacing or ():
            check_number("spacing", step, SMALLEST)
        self._frames = iter(frames)
        self._max_distance, self._max_gap = max_distance, max_gap
        self._divisions, self._drift, self._spacing = divisions, drift, spacing
        self._number = 0  # of the next frame
        self._before: Int[np.ndarray, "*axes"] | None = None  # the frame before it
        self._open: _Open | None = None
        self._tracks: dict[int, Track] = {}

    @property
    def tracks(self) -> list[Track]:
        """The tracks up to the last frame that was taken, in the order of ids, which is that in which they begin."""
        return list(self._tracks.values())

    def track(self, number: int) -> Track:
        """The track with this id, as far as it is known."""
        return self._tracks[number]

    def forget(self, number: int) -> None:
        """Let no object of later frames be the one with this id."""
        if self._open is not None:
            self._open = self._open.where(self._open.ids != number)

    def __next__(self) -> Int32[np.ndarray, "*axes"]:
        """The next frame with ids.

        Raises:
            InputError: if it is not a label image of the first frame's shape.
        """
        given = next(self._frames)
        steps = given.steps if isinstance(given, Pointing) else None
        frame = self._checked(given.labels if isinstance(given, Pointing) else given)
        found = objects_of(frame)
        origins = self._origins(found, steps)
        former = self._former(frame)
        ids, parents = self._identified(former, found, frame, origins)
        self._note(ids, parents)
        self._open = self._still_open(former, found, ids)
        self._before = frame
        self._number += 1
        table = np.zeros(int(frame.max(initial=0)) + 1, np.int32)
        table[found.labels] = ids
        return table[frame]

    def _checked(self, frame: Labels) -> Int[np.ndarray, "*axes"]:
        """A frame that can be linked to the one before."""
        frame = np.asarray(frame)
        if frame.ndim == 0 or not np.issubdtype(frame.dtype, np.integer):
            raise InputError(
                f"Frame {self._number} is an array of {frame.dtype} of shape {frame.shape}; frames must be label "
                "images: whole numbers, 0 for background."
            )
        if frame.size and frame.min() < 0:
            raise InputError(
                f"Frame {self._number} has the negative label {frame.min()}; labels are 0 for background and 1, 2, … "
                "for objects."
            )
        if self._before is not None and self._before.shape != frame.shape:
            raise InputError(
                f"Frame {self._number} has {_sides(frame)} pixels, but the frame before has {_sides(self._before)}; "
                "all frames of a film must be of one size."
            )
        if self._spacing is not None and len(self._spacing) != frame.ndim:
            raise InputError(
                f"The spacing has {len(self._spacing)} numbers, but frames have {frame.ndim} axes; give one for each."
            )
        return frame

    def _origins(self, found: Objects, steps: Float[np.ndarray, "a *axes"] | None) -> Float[np.ndarray, "k j"] | None:
        """The share of each object's pixels that point at each open one; None if nothing is known of them.

        Raises:
            InputError: if there is not a step for each pixel.
        """
        if steps is None or self._open is None or self._before is None:
            return None
        if steps.shape != (self._before.ndim, *self._before.shape):
            raise InputError(
                f"Frame {self._number} has steps of shape {steps.shape}, but frames of {_sides(self._before)} pixels; "
                "give one step along each axis for each pixel."
            )
        was_seen = self._open.seen == self._number - 1
        shares = pointed_at(found, self._before, steps, self._open.objects.labels)
        return shares * was_seen[:, None]

    def _former(self, frame: Int[np.ndarray, "*axes"]) -> _Open | None:
        """The open objects, moved as the whole picture has moved."""
        if self._open is None or self._before is None or not self._drift or len(self._open.ids) < SEVERAL:
            return self._open
        return self._open.moved(drift_between(self._before, frame))

    def _identified(
        self,
        former: _Open | None,
        found: Objects,
        frame: Int[np.ndarray, "*axes"],
        origins: Float[np.ndarray, "k j"] | None,
    ) -> tuple[Int64[np.ndarray, " j"], dict[int, int]]:
        """An id for each object of a frame, and the parent of each that is a child."""
        ids = np.zeros(len(found), np.int64)
        parents: dict[int, int] = {}
        new = len(self._tracks) + 1
        if former is not None and len(former.ids) and len(found):
            become = self._become(former, found, frame, origins)
            alone = become.where(~become.is_division)
            ids[alone.children[:, 0]] = former.ids[alone.parents]
            divided = become.where(become.is_division)
            for parent, pair in zip(former.ids[divided.parents].tolist(), divided.children.tolist(), strict=True):
                for child in pair:
                    ids[child], parents[new] = new, parent
                    new += 1
        ids[ids == 0] = np.arange(new, new + (ids == 0).sum())
        return ids, parents

    def _become(
        self,
        former: _Open,
        found: Objects,
        frame: Int[np.ndarray, "*axes"],
        origins: Float[np.ndarray, "k j"] | None,
    ) -> Hypotheses:
        """What each open object has become: judged by its own last step, then by its neighbours'."""
        steps = former.steps * (self._number - former.seen)[:, None]
        spacing = self._step(frame.ndim)
        become = self._judged(former, found, frame, steps, origins, None)
        for _ in range(ROUNDS):
            steps = with_neighbours(become, former.objects, found, steps, spacing)
            become = self._judged(former, found, frame, steps, origins, become)
        return become

    def _judged(
        self,
        former: _Open,
        found: Objects,
        frame: Int[np.ndarray, "*axes"],
        steps: Float[np.ndarray, "k a"],
        origins: Float[np.ndarray, "k j"] | None,
        held: Hypotheses | None,
    ) -> Hypotheses:
        """What each open object has become, if it is expected to move by such a step."""
        spacing = self._step(frame.ndim)
        reach, expected = self._reach(former.objects, spacing), former.objects.centres + steps
        missed = self._number - 1 - former.seen
        may_divide = (missed == 0) & self._divisions
        given = hypotheses(former.objects, found, expected, reach, spacing, may_divide)
        alike = likeness(given, former.objects, found, frame, expected, reach, spacing)
        if origins is not None:
            alike = np.maximum(alike, pointing(given, former.objects, found, origins))
        costs = 1 - alike + MISSED * missed[given.parents] + DIVIDED * given.is_division
        gains = ALONE * (2 + given.is_division) - costs
        if held is not None:
            gains = gains * (1 - UNUSUAL * unusual(given, held, former.objects, found))
        return given.where(chosen(given, gains, len(former.ids), len(found)))

    def _reach(self, objects: Objects, spacing: Float[np.ndarray, " a"]) -> Float[np.ndarray, " k"]:
        """How far each object may move."""
        if self._max_distance is not None:
            return np.full(len(objects), float(self._max_distance))
        return REACH * diameters(objects.sizes * spacing.prod(), len(spacing))

    def _step(self, n_axes: int) -> Float[np.ndarray, " a"]:
        return np.ones(n_axes) if self._spacing is None else np.array(self._spacing, float)

    def _note(self, ids: Int64[np.ndarray, " j"], parents: dict[int, int]) -> None:
        """Lengthen the tracks that go on, and begin those that are new."""
        for number in sorted(ids.tolist()):
            track = self._tracks.get(number) or Track(number, self._number, self._number, parents.get(number, 0))
            self._tracks[number] = replace(track, end=self._number)

    def _still_open(self, former: _Open | None, found: Objects, ids: Int64[np.ndarray, " j"]) -> _Open:
        """What the next frame may continue: the objects of this one, and those missed for a few frames."""
        seen, steps = np.full(len(found), self._number), np.zeros_like(found.centres)
        if former is None:
            return _Open(found, ids, seen, steps)
        place = {number: k for k, number in enumerate(former.ids.tolist())}
        for j, number in enumerate(ids.tolist()):
            if (k := place.get(number)) is not None:
                steps[j] = (found.centres[j] - former.objects.centres[k]) / (self._number - former.seen[k])
        divided = [self._tracks[number].parent for number in ids.tolist()]
        is_gone = np.isin(former.ids, [*ids.tolist(), *divided]) | (self._number - former.seen > self._max_gap)
        missed = former.where(~is_gone)
        return _Open(
            joined([found, missed.objects]),
            np.concatenate([ids, missed.ids]),
            np.concatenate([seen, missed.seen]),
            np.concatenate([steps, missed.steps]),
        )


def link(
    frames: Iterable[Frame],
    *,
    max_distance: float | None = None,
    max_gap: int = 1,
    divisions: bool = True,
    drift: bool = True,
    spacing: Sequence[float] | None = None,
) -> Linked:
    """Give each object one number through a film, or through the slices of a volume.

    Args:
        frames: label images of one shape and any number of axes, 0 being background, in the order of time. They are
            taken one by one, and may be a generator of more than memory holds. A frame may be `Pointing`, which also
            says where each pixel's object was in the frame before.
        max_distance: how far an object's centre may move from one frame to the next, in units of `spacing`; by default
            twice the object's diameter.
        max_gap: for how many frames an object may be missed and still be the same.
        divisions: whether objects can divide; for the slices of a volume they cannot.
        drift: whether all objects may move together, as when the stage moves.
        spacing: length of a pixel along each axis; by default 1.

    Returns:
        An iterator over the frames with ids, as int32; its `tracks` say when each begins and ends, and who divided.

    Raises:
        InputError: if an option is impossible; and, when its turn comes, if a frame is no label image or has another
            shape than the one before.

    Example:
        >>> import numpy as np
        >>> first, second = np.zeros((2, 8, 12), int)
        >>> first[2:6, 1:5], first[2:6, 7:11] = 1, 2
        >>> second[2:6, 2:6], second[2:6, 8:12] = 7, 3
        >>> linked = link([first, second])
        >>> [np.unique(frame).tolist() for frame in linked]
        [[0, 1, 2], [0, 1, 2]]
        >>> linked.tracks[0]
        Track(id=1, begin=0, end=1, parent=0)
    """
    return Linked(frames, max_distance=max_distance, max_gap=max_gap, divisions=divisions, drift=drift, spacing=spacing)


def _sides(frame: Int[np.ndarray, "*axes"]) -> str:
    return " x ".join(map(str, frame.shape))
