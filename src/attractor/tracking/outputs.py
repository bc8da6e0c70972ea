"""What `attractor track` can write of a film, by the names that `--format` takes.

Each output takes the frames as they come, and what it needs of the tracks at the end. All of them write into a folder
that nobody sees, and what they have written appears under its name when the film is done, or not at all.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import csv
import importlib.util
import os
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, TextIO

import numpy as np
from jaxtyping import Int, Shaped

from attractor.errors import InputError
from attractor.images import encode_labels, temporary_folder
from attractor.images.files import made
from attractor.shortage import cure
from attractor.tracking.ctc import ResultWriter
from attractor.tracking.geff import GeffGraph
from attractor.tracking.pictures import GifFilm, Mp4Film, Painter, lineage_tree
from attractor.tracking.tables import Column, Measured, Scale
from attractor.tracks import Track
from attractor.wording import install

DEFAULT_OUTPUTS = ("ctc", "csv", "gif")
SHOWN = 0.1  # seconds of a frame in a film


class TrackOutput(Protocol):
    """Something that is written of a film."""

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        """Take the next frame, and its objects with ids; the image is missing where only label images are given."""

    def finish(self, tracks: Sequence[Track]) -> None:
        """Write the rest."""

    def close(self) -> None:
        """Close what is open, whether it is finished or not."""


@dataclass(frozen=True)
class OutputKind:
    """How an output is made."""

    make: Callable[[Path, str, Scale], TrackOutput]  # in this folder, for a film of this name
    words: str  # what it is
    needs: str | None = None  # a package that a plain installation does not have
    extra: str = ""  # that brings it


class _Output:
    """An output that does nothing."""

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        pass

    def finish(self, tracks: Sequence[Track]) -> None:
        pass

    def close(self) -> None:
        pass


class _Ctc(_Output):
    def __init__(self, folder: Path, name: str, scale: Scale) -> None:
        self._writer = ResultWriter(made(folder / f"{name}_RES"))

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        self._writer.add(labels)

    def finish(self, tracks: Sequence[Track]) -> None:
        self._writer.finish(tracks)


class _Labels(_Output):
    def __init__(self, folder: Path, name: str, scale: Scale) -> None:
        self._folder, self._number = made(folder / f"{name}_labels"), 0

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        (self._folder / f"t{self._number:05}_labels.tif").write_bytes(encode_labels(labels))
        self._number += 1


class _Csv(_Output):
    def __init__(self, folder: Path, name: str, scale: Scale) -> None:
        self._measured = Measured(scale)
        self._tracks = folder / f"{name}_tracks.csv"
        self._objects = (folder / f"{name}_objects.csv").open("w", newline="", encoding="utf-8")
        self._is_begun = False

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        _write_rows(self._objects, self._measured.add(labels), headed=not self._is_begun)
        self._is_begun = True

    def finish(self, tracks: Sequence[Track]) -> None:
        with self._tracks.open("w", newline="", encoding="utf-8") as file:
            _write_rows(file, self._measured.tracks(tracks), headed=True)

    def close(self) -> None:
        self._objects.close()


class _Film(_Output):
    """A film with coloured outlines, in some format."""

    def __init__(self, film: GifFilm | Mp4Film, close: Callable[[], None]) -> None:
        self._film, self._close, self._painter = film, close, Painter()

    @classmethod
    def gif(cls, folder: Path, name: str, scale: Scale) -> _Film:
        file = (folder / f"{name}.gif").open("wb")
        return cls(GifFilm(file, SHOWN), file.close)

    @classmethod
    def mp4(cls, folder: Path, name: str, scale: Scale) -> _Film:
        film = Mp4Film(folder / f"{name}.mp4", SHOWN)
        return cls(film, film.close)

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        shown = np.zeros((*labels.shape, 1), np.uint8) if image is None else image
        self._film.add(self._painter.paint(shown, labels))

    def finish(self, tracks: Sequence[Track]) -> None:
        self._film.finish()

    def close(self) -> None:
        self._close()


class _Lineage(_Output):
    def __init__(self, folder: Path, name: str, scale: Scale) -> None:
        self._path, self._scale = folder / f"{name}_lineage.png", scale

    def finish(self, tracks: Sequence[Track]) -> None:
        lineage_tree(tracks, seconds=self._scale.seconds).savefig(self._path)


class _Geff(_Output):
    def __init__(self, folder: Path, name: str, scale: Scale) -> None:
        self._graph, self._path = GeffGraph(scale), folder / f"{name}.geff"

    def add(self, image: Shaped[np.ndarray, "h w c"] | None, labels: Int[np.ndarray, "h w"]) -> None:
        self._graph.add(labels)

    def finish(self, tracks: Sequence[Track]) -> None:
        self._graph.finish(tracks, self._path)


TRACK_OUTPUTS: dict[str, OutputKind] = {
    "ctc": OutputKind(_Ctc, "masks and list of the Cell Tracking Challenge"),
    "csv": OutputKind(_Csv, "tables of tracks and of objects"),
    "gif": OutputKind(_Film.gif, "the film with coloured outlines"),
    "mp4": OutputKind(_Film.mp4, "the same as MP4", needs="av", extra="track"),
    "lineage": OutputKind(_Lineage, "the tree of divisions as a picture", needs="matplotlib", extra="report"),
    "geff": OutputKind(_Geff, "the graph for other tracking programs", needs="geff", extra="track"),
    "labels": OutputKind(_Labels, "label images of 32 bits where 16 are too few"),
}


def track_outputs_in_words() -> str:
    """The names of outputs, each with what it is."""
    return "; ".join(f"{name}: {kind.words}" for name, kind in TRACK_OUTPUTS.items())


def check_track_outputs(names: Sequence[str]) -> None:
    """Refuse, before anything is computed, outputs that do not exist or need what is not installed.

    Raises:
        InputError: in these cases, or without any name.
    """
    known = f"the formats are {', '.join(TRACK_OUTPUTS)}"
    if unknown := [name for name in names if name not in TRACK_OUTPUTS]:
        raise InputError(f"There is no format {', '.join(map(repr, unknown))}; {known}.")
    if not names:
        raise InputError(f"No format is given; {known}.")
    for name in names:
        kind = TRACK_OUTPUTS[name]
        if kind.needs is not None and importlib.util.find_spec(kind.needs) is None:
            raise InputError(f"The format {name} needs {kind.needs}, which is not installed. {install(kind.extra)}")


def write_tracks(
    out: str | Path,
    name: str,
    frames: Iterable[tuple[Shaped[np.ndarray, "h w c"] | None, Int[np.ndarray, "h w"]]],
    tracks: Callable[[], Sequence[Track]],
    *,
    formats: Sequence[str] = DEFAULT_OUTPUTS,
    scale: Scale | None = None,
) -> list[Path]:
    """Write a film's tracks into a folder; what was there under the same names is replaced.

    Args:
        out: the folder, which is made if it does not exist.
        name: what files begin with.
        frames: each frame's image, or None, and its objects with ids; taken one by one.
        tracks: gives the tracks once all frames have been taken, as `lambda: linked.tracks`.
        formats: names in TRACK_OUTPUTS.
        scale: size of a pixel and duration of a frame, as far as known.

    Returns:
        What was written.

    Raises:
        InputError: if a format cannot be written, or a frame cannot be read; nothing is written then.
    """
    check_track_outputs(formats)
    out = made(out)
    try:
        with temporary_folder(out) as hidden:
            with ExitStack() as opened:
                outputs = [TRACK_OUTPUTS[one].make(hidden, name, scale or Scale()) for one in dict.fromkeys(formats)]
                for output in outputs:
                    opened.callback(output.close)
                for image, labels in frames:
                    for output in outputs:
                        output.add(image, labels)
                for output in outputs:
                    output.finish(tracks())
            return [_appear(path, out / path.name, hidden) for path in sorted(hidden.iterdir())]
    except OSError as error:
        what_to_do = cure(error) or "check the folder and its permissions"
        raise InputError(
            f"{out}: cannot be written to: {error.strerror or error}; {what_to_do}, or give another --out."
        ) from error


def _appear(path: Path, target: Path, hidden: Path) -> Path:
    """Give a finished file or folder its name; a folder that has it goes."""
    if target.is_dir():
        os.replace(target, hidden / f"former {path.name}")
    os.replace(path, target)
    return target


def _write_rows(file: TextIO, columns: dict[str, Column], *, headed: bool) -> None:
    """Rows of a table as text; fractions have six digits, and what is not known is empty."""
    writer = csv.writer(file, lineterminator="\n")
    if headed:
        writer.writerow(columns)
    for row in zip(*columns.values(), strict=True):
        writer.writerow(_cell(value) for value in row)


def _cell(value: int | float | str) -> int | str:
    if isinstance(value, float):
        return "" if np.isnan(value) else f"{value:.6g}"
    return value
