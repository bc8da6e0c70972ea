"""Objects that were missed for a few frames, drawn where they must have been.

A segmentation that misses an object in one frame, or takes two for one, breaks its track. Once the object is seen
again, its mask of before or after, whichever is nearer in time, is drawn on the straight line between the two places:
on background, and on other objects where it was taken for a part of them.

Shapes: `a` axes, `n` pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int32, Int64

from attractor.tracking.objects import objects_of

ENOUGH = 0.5  # share of the mask that must lie on background, or else others' pixels are taken, too


@dataclass(frozen=True)
class _Seen:
    """An object as it was last seen."""

    number: int  # of the frame
    pixels: Int64[np.ndarray, "n a"]
    centre: Float[np.ndarray, " a"]


def filled(frames: Iterable[Int32[np.ndarray, "*axes"]], max_gap: int) -> Iterator[Int32[np.ndarray, "*axes"]]:
    """Frames with ids, with objects drawn that are missed for up to `max_gap` frames; the input stays as it is.

    No other object loses more than half of its pixels; where no pixel is left to draw on, the gap remains. Frames come
    `max_gap` later than they are taken.

    Example:
        >>> import numpy as np
        >>> frames = np.array([[1, 1, 0, 0, 0], [0, 0, 0, 0, 0], [0, 0, 1, 1, 0]], np.int32)
        >>> [frame.tolist() for frame in filled(frames, 1)][1]
        [0, 1, 1, 0, 0]
    """
    waiting: deque[Int32[np.ndarray, "*axes"]] = deque()
    seen: dict[int, _Seen] = {}
    for number, frame in enumerate(frames):
        waiting.append(frame.copy() if max_gap else frame)
        found = objects_of(frame)
        for place, label in enumerate(found.labels.tolist() if max_gap else []):
            now = _Seen(number, found.pixels[found.starts[place] : found.starts[place + 1]], found.centres[place])
            before = seen.get(label, now)
            for missed in range(max(before.number + 1, number - len(waiting) + 1), number):
                _draw(waiting[missed - number - 1], label, before, now, missed)
            seen[label] = now
        seen = {label: one for label, one in seen.items() if number - one.number <= max_gap}
        if len(waiting) > max_gap:
            yield waiting.popleft()
    yield from waiting


def _draw(frame: Int32[np.ndarray, "*axes"], label: int, before: _Seen, after: _Seen, number: int) -> None:
    """Draw an object between two places into a frame."""
    share = (number - before.number) / (after.number - before.number)
    centre = before.centre + share * (after.centre - before.centre)
    nearer = before if share <= 0.5 else after
    pixels = nearer.pixels + np.rint(centre - nearer.centre).astype(np.int64)
    pixels = pixels[((pixels >= 0) & (pixels < frame.shape)).all(1)]
    under = frame[tuple(pixels.T)]
    free = under == 0
    if free.mean() < ENOUGH if len(under) else False:
        for other, n_taken in zip(*np.unique(under[~free], return_counts=True), strict=True):
            if 2 * n_taken <= (frame == other).sum():
                free |= under == other
    frame[tuple(pixels[free].T)] = label
