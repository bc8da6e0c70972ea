"""Tracks as files of the Cell Tracking Challenge: see `attractor.datasets.tracked` for how they lie."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Int

from attractor.datasets.tracked import FEWEST_DIGITS, LISTS, MOST_TRACKS, RESULT, listed
from attractor.errors import InputError
from attractor.tracks import Track


def write_result(
    folder: str | Path, frames: Iterable[Int[np.ndarray, "*axes"]], tracks: Callable[[], Sequence[Track]]
) -> None:
    """Write frames with ids as a result, into a folder that exists.

    Args:
        folder: such as `01_RES`.
        frames: label images with ids, taken one by one.
        tracks: gives the tracks once all frames have been taken, as `lambda: linked.tracks`.

    Raises:
        InputError: if there are more tracks than the format can number.
    """
    writer = ResultWriter(Path(folder))
    for frame in frames:
        writer.add(frame)
    writer.finish(tracks())


class ResultWriter:
    """Writes masks as frames come, and at the end the list of tracks and the digits of the masks' names.

    An object that is missed for some frames goes on as an only child, as the format wants it.
    """

    def __init__(self, folder: Path) -> None:
        """Write into a folder that exists."""
        self._folder = folder
        self._files: list[Path] = []
        self._number: dict[int, int] = {}  # from id to the number that the object has now
        self._ids: dict[int, int] = {}  # from number to id
        self._tracks: dict[int, Track] = {}  # by number
        self._highest = 0

    def add(self, frame: Int[np.ndarray, "*axes"]) -> None:
        """Write the next frame.

        Raises:
            InputError: if there are more tracks than the format can number.
        """
        place = len(self._files)
        table = np.zeros(int(frame.max(initial=0)) + 1, np.uint16)
        for number in np.unique(frame[frame > 0]).tolist():
            table[number] = self._numbered(number, place)
        file = self._folder / f"{RESULT}{place}.tif"
        tifffile.imwrite(file, table[frame], compression="zlib", photometric="minisblack")
        self._files.append(file)

    def _numbered(self, number: int, place: int) -> int:
        """The number of an object in this frame's mask: its own, if no other has it, or a new one after a gap."""
        now = self._number.get(number)
        if now is not None and self._tracks[now].end == place - 1:
            self._tracks[now] = replace(self._tracks[now], end=place)
            return now
        free = number if now is None and number not in self._tracks else self._highest + 1
        self._highest = max(self._highest, free)
        if self._highest > MOST_TRACKS:
            raise InputError(
                f"The film has more than {MOST_TRACKS:,} tracks, which the 16-bit masks of the Cell Tracking Challenge "
                "cannot number; cut the film into parts, or give --format labels, whose numbers go further."
            )
        self._tracks[free] = Track(free, place, place, parent=now or 0)
        self._number[number], self._ids[free] = free, number
        return free

    def finish(self, tracks: Sequence[Track]) -> None:
        """Name the masks and write the list; `tracks` say who is whose child."""
        digits = max(FEWEST_DIGITS, len(str(len(self._files) - 1)))
        for place, file in enumerate(self._files):
            file.rename(self._folder / f"{RESULT}{place:0{digits}}.tif")
        parents = {track.id: track.parent for track in tracks}
        rows = []
        for number, track in sorted(self._tracks.items()):
            parent = track.parent or self._number.get(parents.get(self._ids[number], 0), 0)
            rows.append(replace(track, parent=parent))
        (self._folder / LISTS[RESULT]).write_text(listed(rows), encoding="ascii")
