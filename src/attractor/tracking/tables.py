"""Tables of tracks: where each object is in each frame, and what became of it in the whole film.

Shapes: `a` axes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Int

from attractor.errors import check_number
from attractor.tracking.objects import objects_of
from attractor.tracks import Track, children_of

Column = list[int] | list[float] | list[str]
AXES = ("plane", "row", "column")  # the last ones, for frames of fewer axes
NOTHING = float("nan")


@dataclass(frozen=True)
class Scale:
    """What pixels and frames are in the world, as far as it is known."""

    pixel_size: tuple[float, ...] | None = None  # micrometres along each axis
    seconds: float | None = None  # from one frame to the next

    def __post_init__(self) -> None:
        """Refuse sizes and times that cannot be."""
        for size in self.pixel_size or ():
            check_number("pixel_size", size, float(np.nextafter(0, 1)))
        if self.seconds is not None:
            check_number("interval", self.seconds, float(np.nextafter(0, 1)))


@dataclass
class _Path:
    """What is kept of a track while frames go by: no more than the film's summary needs."""

    first: tuple[float, ...]
    last: tuple[float, ...]
    first_size: int
    last_size: int
    n_seen: int = 1
    length: float = 0.0  # along the path, in pixels
    length_um: float = 0.0
    sum_of_sizes: int = 0


@dataclass
class Measured:
    """Measures of tracks, from frames that are given one after another."""

    scale: Scale
    _paths: dict[int, _Path] = field(default_factory=dict)
    _number: int = 0

    def add(self, frame: Int[np.ndarray, "*axes"]) -> dict[str, Column]:
        """The objects of the next frame, column by column; the film's measures go on with them."""
        found = objects_of(frame)
        sizes, centres = found.sizes.tolist(), [tuple(centre) for centre in found.centres.tolist()]
        pixel_size = self.scale.pixel_size
        for label, size, centre in zip(found.labels.tolist(), sizes, centres, strict=True):
            path = self._paths.get(label)
            if path is None:
                path = self._paths[label] = _Path(centre, centre, size, size, n_seen=0)
            path.length += math.dist(centre, path.last)
            if pixel_size is not None:
                path.length_um += math.dist(_times(centre, pixel_size), _times(path.last, pixel_size))
            path.n_seen += 1
            path.sum_of_sizes += size
            path.last, path.last_size = centre, size
        columns: dict[str, Column] = {
            "frame": [self._number] * len(sizes),
            "track": found.labels.tolist(),
            "volume" if frame.ndim > 2 else "area": sizes,
            **{
                f"centroid_{axis}": [centre[place] for centre in centres]
                for place, axis in enumerate(AXES[-frame.ndim :])
            },
        }
        if self.scale.seconds is not None:
            columns["time_s"] = [self._number * self.scale.seconds] * len(sizes)
        if pixel_size is not None:
            columns["area_um2" if frame.ndim == 2 else "volume_um3"] = [size * math.prod(pixel_size) for size in sizes]
            for place, axis in enumerate(AXES[-frame.ndim :]):
                columns[f"centroid_{axis}_um"] = [centre[place] * pixel_size[place] for centre in centres]
        self._number += 1
        return columns

    def tracks(self, tracks: Sequence[Track]) -> dict[str, Column]:
        """What became of each object, column by column, with a row for each track.

        - `frames`: in which it is seen.
        - `children`: how many, 0 or 2.
        - `path`: length of the way of its centre; `distance`: from its first place to its last, straight.
        - `speed`: `path` for each frame, or for each second.
        - `growth`: by what share its area grows from one frame to the next, in the mean (0.02 is 2 %).

        Lengths are in pixels, and in micrometres where the size of a pixel is known; times in seconds where it is known
        how long a frame lasts.
        """
        known = [(track, self._paths[track.id]) for track in tracks if track.id in self._paths]
        children = children_of(tracks)
        columns: dict[str, Column] = {
            "track": [track.id for track, _ in known],
            "begin": [track.begin for track, _ in known],
            "end": [track.end for track, _ in known],
            "parent": [track.parent for track, _ in known],
            "children": [len(children.get(track.id, [])) for track, _ in known],
            "frames": [path.n_seen for _, path in known],
            "mean_area": [path.sum_of_sizes / path.n_seen for _, path in known],
            "growth": [_growth(track, path) for track, path in known],
            "path": [path.length for _, path in known],
            "distance": [math.dist(path.first, path.last) for _, path in known],
            "speed": [_by_step(path.length, track) for track, path in known],
        }
        return columns | self._in_the_world(known)

    def _in_the_world(self, known: Sequence[tuple[Track, _Path]]) -> dict[str, Column]:
        """Measures in micrometres and seconds."""
        size, seconds = self.scale.pixel_size, self.scale.seconds
        columns: dict[str, Column] = {}
        if seconds is not None:
            columns["duration_s"] = [(track.end - track.begin) * seconds for track, _ in known]
        if size is not None:
            columns["path_um"] = [path.length_um for _, path in known]
            columns["distance_um"] = [math.dist(_times(path.first, size), _times(path.last, size)) for _, path in known]
        if size is not None and seconds is not None:
            columns["speed_um_per_s"] = [_by_step(path.length_um, track) / seconds for track, path in known]
        return columns


def _times(centre: tuple[float, ...], pixel_size: tuple[float, ...]) -> tuple[float, ...]:
    return tuple(place * size for place, size in zip(centre, pixel_size, strict=True))


def _by_step(length: float, track: Track) -> float:
    return length / (track.end - track.begin) if track.end > track.begin else NOTHING


def _growth(track: Track, path: _Path) -> float:
    if track.end == track.begin:
        return NOTHING
    return float((path.last_size / path.first_size) ** (1 / (track.end - track.begin)) - 1)
