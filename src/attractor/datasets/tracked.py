"""Films of the Cell Tracking Challenge on the disk: a mask for each frame, and a list of tracks.

    01/           t000.tif …                                   the film
    01_RES/       mask000.tif …, res_track.txt                 a result
    01_GT/TRA/    man_track000.tif …, man_track.txt            the truth of tracks; masks may be mere markers
    01_GT/SEG/    man_seg000.tif …                             the truth of outlines, of all frames or of some

A row of the list is `id begin end parent`, frames counted from 0, parent 0 for none. Masks are 16-bit, so that a film
has at most 65,535 tracks. A track is in every frame from its begin to its end: an object that is missed for some frames
goes on as a track with the former one as parent, an only child.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from attractor.errors import InputError
from attractor.images import read_labels
from attractor.tracks import Track, check_tracks
from attractor.wording import counted

MOST_TRACKS = 65_535  # that 16 bits hold
FEWEST_DIGITS = 3
RESULT, TRUTH, OUTLINES = "mask", "man_track", "man_seg"  # what names of masks begin with
LISTS = {RESULT: "res_track.txt", TRUTH: "man_track.txt"}


@dataclass(frozen=True)
class TrackedFilm:
    """A film on the disk whose objects have ids."""

    name: str  # of the sequence, such as 01
    files: tuple[Path, ...]  # a mask for each frame
    tracks: tuple[Track, ...]
    outlined: tuple[tuple[int, Path], ...] = ()  # frames with a mask of exact outlines, and that mask

    def frames(self) -> Iterator[Int32[np.ndarray, "h w"]]:
        """The masks, read one by one and checked against the list of tracks.

        Raises:
            InputError: if one cannot be read or differs in size from the first, or the objects in it are not those that
                the list has for its frame.
        """
        shape: tuple[int, ...] | None = None
        for number, file in enumerate(self.files):
            labels = read_labels(file)
            shape = shape or labels.shape
            if labels.shape != shape:
                raise InputError(
                    f"{file}: has {labels.shape[0]} x {labels.shape[1]} pixels, but {self.files[0].name} has "
                    f"{shape[0]} x {shape[1]}; all frames of a film must be of one size."
                )
            self._check_ids(labels, number, file)
            yield labels

    def _check_ids(self, labels: Int32[np.ndarray, "h w"], number: int, file: Path) -> None:
        seen = set(np.unique(labels[labels > 0]).tolist())
        listed = {track.id for track in self.tracks if track.begin <= number <= track.end}
        if unlisted := sorted(seen - listed):
            raise InputError(
                f"{file}: has {_objects(unlisted)}, which the list of tracks does not have for frame {number}; mend "
                "the mask or the list."
            )
        if missing := sorted(listed - seen):
            raise InputError(
                f"{file}: lacks {_objects(missing)}, which the list of tracks has for frame {number}; end the track "
                "before, and list the rest as a track of its own with this one as parent."
            )


def read_result(folder: str | Path) -> TrackedFilm:
    """The result in a folder such as `01_RES`; masks are not read yet.

    Raises:
        InputError: if there is no mask or no list, a frame is missing, or the list cannot be.
    """
    folder = Path(folder)
    files = _masks(folder, RESULT)
    return TrackedFilm(_sequence(folder, "_RES"), files, read_list(folder / LISTS[RESULT], len(files)))


def read_truth(folder: str | Path) -> TrackedFilm:
    """The truth in a folder such as `01_GT`, with its folder `TRA` and, where there is one, `SEG`.

    Raises:
        InputError: as `read_result`.
    """
    folder = Path(folder)
    files = _masks(folder / "TRA", TRUTH)
    tracks = read_list(folder / "TRA" / LISTS[TRUTH], len(files))
    outlined: tuple[tuple[int, Path], ...] = ()
    if (folder / "SEG").is_dir():
        outlined = tuple(numbered(folder / "SEG", OUTLINES).items())
        if outlined and outlined[-1][0] >= len(files):
            raise InputError(
                f"{outlined[-1][1]}: is of frame {outlined[-1][0]}, but the film has {counted(len(files), 'frame')}; "
                "frames are counted from 0."
            )
    return TrackedFilm(_sequence(folder, "_GT"), files, tracks, outlined)


def _sequence(folder: Path, ending: str) -> str:
    """What a folder's film is called."""
    return folder.resolve().name.removesuffix(ending)


def _masks(folder: Path, prefix: str) -> tuple[Path, ...]:
    """The masks of all frames.

    Raises:
        InputError: if there are none, or one is missing.
    """
    files = numbered(folder, prefix)
    missing = sorted(set(range(max(files) + 1)) - files.keys())
    if missing:
        raise InputError(
            f"{folder}: lacks the masks of {counted(len(missing), 'frame')} up to frame {max(files)}: "
            f"{_shortened(missing)}; add them, an empty one where nothing was found. Frames are counted from 0."
        )
    return tuple(files.values())


def numbered(folder: Path, prefix: str) -> dict[int, Path]:
    """The masks of a folder by frame, in order.

    Raises:
        InputError: if there is no such folder, it holds none, or two are of one frame.
    """
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; it must hold {prefix}000.tif and so on.")
    pattern = re.compile(rf"{prefix}_?(\d+)\.tiff?", re.IGNORECASE)
    files: dict[int, Path] = {}
    for file in sorted(folder.iterdir()):
        if (match := pattern.fullmatch(file.name)) is None:
            continue
        other = files.setdefault(int(match[1]), file)
        if other is not file:
            raise InputError(f"{folder}: {other.name} and {file.name} are of the same frame; remove one.")
    if not files:
        raise InputError(f"{folder}: holds no mask; they must be named {prefix}000.tif, {prefix}001.tif and so on.")
    return dict(sorted(files.items()))


def read_list(path: Path, n_frames: int) -> tuple[Track, ...]:
    """The tracks that a text file lists.

    Raises:
        InputError: if it cannot be read, or the tracks cannot be.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InputError(
            f"{path}: cannot be read: {reason}; it must list the tracks, one in a row: id, first frame, last frame, "
            "parent."
        ) from error
    tracks = []
    for line, row in enumerate(text.splitlines(), 1):
        if not row.strip():
            continue
        try:
            number, begin, end, parent = (int(part) for part in row.split())
        except ValueError as error:
            raise InputError(
                f"{path}: line {line} is {row[:40]!r}; it must be four whole numbers: id, first frame, last frame, "
                "parent."
            ) from error
        tracks.append(Track(number, begin, end, parent))
    check_tracks(tracks, str(path))
    for track in tracks:
        if track.end >= n_frames:
            raise InputError(
                f"{path}: track {track.id} ends in frame {track.end}, but there are masks of "
                f"{counted(n_frames, 'frame')}; frames are counted from 0."
            )
        if track.id > MOST_TRACKS:
            raise InputError(f"{path}: a track has the id {track.id}; masks of 16 bits hold ids up to {MOST_TRACKS:,}.")
    return tuple(tracks)


def _objects(ids: Sequence[int]) -> str:
    return f"object {ids[0]}" if len(ids) == 1 else f"the objects {_shortened(ids)}"


def _shortened(numbers: Sequence[int]) -> str:
    """The first few numbers of a list."""
    more = f" and {len(numbers) - 5} more" if len(numbers) > 5 else ""
    return ", ".join(map(str, numbers[:5])) + more


def listed(tracks: Iterable[Track]) -> str:
    """The text of such a file."""
    return "".join(f"{track.id} {track.begin} {track.end} {track.parent}\n" for track in tracks)
