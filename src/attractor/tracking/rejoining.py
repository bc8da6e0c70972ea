"""Objects that were in pieces for a few frames, made whole again.

A segmentation that cuts an object in two for a frame or two looks like a division. What tells them apart is what comes
then: children stay two, pieces become one object again, which lies where both were and has their size together. Such a
division is taken back: the pieces get the number of the object, and it goes on.

Shapes: `n` pixels.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int32, Int64

from attractor.tracking.linking import Linked
from attractor.tracking.objects import objects_of
from attractor.tracks import Track

LIKE = 1.5  # times the size of both pieces that the whole may have, or one over it
COVERED = 0.5  # share of each piece that the whole must lie on


@dataclass(frozen=True)
class _Family:
    """Two objects that come from one."""

    parent: int
    children: tuple[int, int]
    begin: int


class Rejoined(Iterator[Int32[np.ndarray, "*axes"]]):
    """Linked frames, with divisions taken back that last for up to `max_gap` frames; they come as much later.

    `tracks` are those of the frames that have been taken.
    """

    def __init__(self, linked: Linked, max_gap: int) -> None:
        """Take the frames of `linked` one by one."""
        self._linked, self._max_gap = linked, max_gap
        self._number = 0  # of the next frame
        self._waiting: deque[Int32[np.ndarray, "*axes"]] = deque()
        self._same: dict[int, int] = {}  # from the id of a piece to that of its object
        self._families: list[_Family] = []
        self._last: dict[int, Int64[np.ndarray, " n"]] = {}  # the pixels of each object in the frame before, by place

    @property
    def tracks(self) -> list[Track]:
        """The tracks, without those of pieces."""
        whole: dict[int, Track] = {}
        for track in self._linked.tracks:
            number = self._same.get(track.id, track.id)
            known = whole.get(number)
            if known is None:
                whole[number] = replace(track, id=number, parent=self._same.get(track.parent, track.parent))
            else:
                whole[number] = replace(known, begin=min(known.begin, track.begin), end=max(known.end, track.end))
        return list(whole.values())

    def __next__(self) -> Int32[np.ndarray, "*axes"]:
        """The next frame."""
        while len(self._waiting) <= self._max_gap and (frame := next(self._linked, None)) is not None:
            self._take(frame)
        if not self._waiting:
            raise StopIteration
        return self._waiting.popleft()

    def _take(self, frame: Int32[np.ndarray, "*axes"]) -> None:
        """Look at a frame, and mend it and those that wait."""
        self._waiting.append(frame)
        for number in set(np.unique(frame).tolist()) & self._same.keys():
            frame[frame == number] = self._same[number]
        divided = self._divided(frame)
        for family in self._families:
            if divided.isdisjoint(family.children) and (whole := self._whole(family, frame)):
                self._rejoin(family, whole)
        found = objects_of(frame)
        here = np.ravel_multi_index(tuple(found.pixels.T), frame.shape)
        pieces = np.split(here, found.starts[1:-1]) if len(found) else []
        seen = dict(zip(found.labels.tolist(), pieces, strict=True))
        self._families = [one for one in self._families if self._number - one.begin < self._max_gap]
        self._families += self._born([number for number in seen if number not in self._last])
        self._last = seen
        self._number += 1

    def _divided(self, frame: Int32[np.ndarray, "*axes"]) -> set[int]:
        """The objects whose children begin in this frame: these stay two, and are no pieces."""
        tracks = [self._linked.track(number) for number in np.unique(frame[frame > 0]).tolist()]
        return {self._same.get(track.parent, track.parent) for track in tracks if track.begin == self._number}

    def _born(self, new: list[int]) -> list[_Family]:
        """The pairs of objects that come from one in this frame."""
        by_parent: dict[int, list[int]] = {}
        for number in new:
            track = self._linked.track(number)
            if track.parent and track.begin == self._number:
                by_parent.setdefault(self._same.get(track.parent, track.parent), []).append(number)
        return [
            _Family(parent, (pair[0], pair[1]), self._number) for parent, pair in by_parent.items() if len(pair) == 2
        ]

    def _whole(self, family: _Family, frame: Int32[np.ndarray, "*axes"]) -> int:
        """The object that both children have become; 0 if they have not."""
        pieces = [self._last.get(child) for child in family.children]
        if any(piece is None for piece in pieces):
            return 0
        under = [frame.reshape(-1)[piece] for piece in pieces if piece is not None]
        label = int(np.bincount(np.concatenate(under)).argmax())
        if not label or (label in self._last and label not in family.children):
            return 0
        size, together = int((frame == label).sum()), sum(map(len, under))
        is_there = all((part == label).mean() >= COVERED for part in under)
        return label if is_there and together / LIKE <= size <= together * LIKE else 0

    def _rejoin(self, family: _Family, whole: int) -> None:
        """Give the object's number to its pieces, and to what they have become."""
        for number in {*family.children, whole}:
            self._same[number] = family.parent
            for frame in self._waiting:
                frame[frame == number] = family.parent
            if number != whole:
                self._linked.forget(number)  # or the linking would find it again beside the whole
