"""Who is who from frame to frame: plain records of tracks, and what must hold for them.

A track is one object from the frame in which it is first seen to the one in which it is last seen. Where an object
divides, its track ends, and each of its children begins a track that names it as parent. This is the model of the Cell
Tracking Challenge.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from attractor.errors import InputError


@dataclass(frozen=True)
class Track:
    """One object through a film; frames are counted from 0, and `end` is the last frame it is seen in.

    Example:
        >>> Track(3, begin=5, end=9, parent=1).n_frames
        5
    """

    id: int  # the number that the object has in every frame, 1 or more
    begin: int
    end: int
    parent: int = 0  # id of the track that divided; 0 without one

    @property
    def n_frames(self) -> int:
        """From the first frame to the last, those in between where it is not seen included."""
        return self.end - self.begin + 1


def check_tracks(tracks: Iterable[Track], name: str = "The tracks") -> dict[int, Track]:
    """The tracks by id, once it is sure that they can be.

    Args:
        tracks: in any order.
        name: of their file, for messages.

    Raises:
        InputError: if an id is below 1 or given twice, a track ends before it begins, a parent does not exist, or a
            parent has not ended when its child begins.
    """
    by_id: dict[int, Track] = {}
    for track in tracks:
        if track.id < 1:
            raise InputError(f"{name}: a track has the id {track.id}; ids are counted from 1.")
        if track.id in by_id:
            raise InputError(f"{name}: track {track.id} is listed twice; give each track one row.")
        if not 0 <= track.begin <= track.end:
            raise InputError(
                f"{name}: track {track.id} goes from frame {track.begin} to frame {track.end}; the first must be 0 or "
                "more, and the last no smaller. A row is: id, first frame, last frame, parent."
            )
        by_id[track.id] = track
    for track in by_id.values():
        if track.parent and track.parent not in by_id:
            raise InputError(
                f"{name}: track {track.id} has the parent {track.parent}, which is not listed; add it, or write 0."
            )
        if track.parent and by_id[track.parent].end >= track.begin:
            raise InputError(
                f"{name}: track {track.id} begins in frame {track.begin}, but its parent {track.parent} ends in frame "
                f"{by_id[track.parent].end}; a parent must end before its children begin."
            )
    return by_id


def children_of(tracks: Iterable[Track]) -> dict[int, list[int]]:
    """The ids of each parent's children, in the order of the tracks; tracks without children are left out."""
    children: dict[int, list[int]] = {}
    for track in tracks:
        if track.parent:
            children.setdefault(track.parent, []).append(track.id)
    return children
