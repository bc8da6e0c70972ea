"""A film with an outline around each object, whose colour stays with it, as GIF or MP4; and the tree of divisions.

Pictures have a palette of their own: 192 greys for the film and 64 colours for ids, so that a GIF shows them as they
are. Frames go into the file one by one.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import colorsys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import GifImagePlugin, Image

from attractor.errors import InputError
from attractor.overlays import outlines
from attractor.tracks import Track, children_of
from attractor.wording import counted, install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LARGEST = 640  # pixels of the long side of a film
GREYS = 192
N_COLOURS = 256 - GREYS
GOLDEN = 0.618034  # of the circle of hues from one id to the next, so that near ids look different
PERCENTILES = (1.0, 99.8)
MOST_NAMED = 150  # tracks in a tree, if each is to have its number
LARGEST_TREE = 60.0  # inches


class Painter:
    """Makes pictures of frames; all are stretched as the first one, so that the film does not flicker."""

    def __init__(self) -> None:
        """Wait for the first frame."""
        self._limits: tuple[float, float] | None = None

    def paint(self, image: Shaped[np.ndarray, "h w c"], labels: Int[np.ndarray, "h w"]) -> UInt8[np.ndarray, "i j"]:
        """A frame with the outlines of its objects, as places in `palette()`; a large one is shrunk."""
        step = -(-max(labels.shape) // LARGEST) or 1
        grey = image[::step, ::step].mean(-1)
        small = labels[::step, ::step]
        if self._limits is None:
            low, high = np.percentile(grey[np.isfinite(grey)], PERCENTILES) if np.isfinite(grey).any() else (0, 0)
            self._limits = float(low), float(high)
        low, high = self._limits
        scale = (GREYS - 1) / (high - low) if high > low else 0.0
        picture = np.rint(np.clip((np.nan_to_num(grey) - low) * scale, 0, GREYS - 1)).astype(np.uint8)
        lines = outlines(small, thick=True)
        picture[lines] = GREYS + small[lines] % N_COLOURS
        return picture


def palette() -> UInt8[np.ndarray, "256 3"]:
    """Greys from black to white, and the colours of ids; id k has colour k modulo their number."""
    greys = np.rint(np.linspace(0, 255, GREYS))[:, None].repeat(3, 1)
    hues = [colorsys.hsv_to_rgb(k * GOLDEN % 1, 0.55 + 0.45 * (k % 2), 1.0) for k in range(N_COLOURS)]
    return np.concatenate([greys, np.rint(np.array(hues) * 255)]).astype(np.uint8)


class GifFilm:
    """A GIF that is written frame by frame, and runs round and round."""

    def __init__(self, file: BinaryIO, seconds: float) -> None:
        """Write into a file that is open; each frame is shown for so long."""
        self._file, self._seconds, self._is_begun = file, seconds, False

    def add(self, picture: UInt8[np.ndarray, "i j"]) -> None:
        """Write the next frame."""
        image = Image.fromarray(picture)
        image.putpalette(palette().tobytes())
        parts: list[bytes] = []
        if not self._is_begun:
            parts += GifImagePlugin.getheader(image, info={"loop": 0})[0]
            self._is_begun = True
        parts += GifImagePlugin.getdata(image, duration=round(1000 * self._seconds))
        self._file.write(b"".join(map(bytes, parts)))

    def finish(self) -> None:
        """Write the end."""
        self._file.write(b";")


class Mp4Film:
    """An MP4 that is written frame by frame."""

    def __init__(self, path: Path, seconds: float) -> None:
        """Write to a file.

        Raises:
            InputError: if PyAV is not installed.
        """
        try:
            import av
        except ImportError as error:
            raise InputError(f"The format mp4 needs av, which is not installed. {install('track')}") from error
        self._av, self._seconds = av, seconds
        self._file = av.open(str(path), "w")
        self._stream: Any = None

    def add(self, picture: UInt8[np.ndarray, "i j"]) -> None:
        """Write the next frame."""
        height, width = (side + side % 2 for side in picture.shape)  # the codec wants even sides
        if self._stream is None:
            self._stream = self._file.add_stream("h264", rate=max(1, round(1 / self._seconds)))
            self._stream.height, self._stream.width, self._stream.pix_fmt = height, width, "yuv420p"
        colours = np.zeros((height, width, 3), np.uint8)
        colours[: picture.shape[0], : picture.shape[1]] = palette()[picture]
        self._file.mux(self._stream.encode(self._av.VideoFrame.from_ndarray(colours, format="rgb24")))

    def finish(self) -> None:
        """Write what the codec holds back, and the end."""
        if self._stream is not None:
            self._file.mux(self._stream.encode())

    def close(self) -> None:
        """Close the file, finished or not."""
        self._file.close()


def lineage_tree(tracks: Sequence[Track], *, seconds: float | None = None) -> Figure:
    """A matplotlib figure of who comes from whom: a line for each track from left to right, branching at divisions.

    Colours are those of the film.

    Args:
        tracks: of a film; without any, the figure is empty.
        seconds: from one frame to the next, for an axis in seconds.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"Drawing a tree needs matplotlib, which is not installed. {install('report')}") from error
    places, by_id = _places(tracks), {track.id: track for track in tracks}
    colours, unit = palette() / 255, seconds or 1.0
    n_rows = 1 + max(places.values(), default=0.0)
    figure = Figure(figsize=(9, min(LARGEST_TREE, 1.2 + 0.16 * n_rows)), dpi=110, layout="constrained")
    axes = figure.subplots()
    for track in tracks:
        colour, y = colours[GREYS + track.id % N_COLOURS] * 0.8, places[track.id]
        ends = [track.begin * unit, track.end * unit]
        dot = "." if track.begin == track.end else None  # a line of no length is not drawn
        axes.plot(ends, [y, y], color=colour, marker=dot, linewidth=2, solid_capstyle="round")
        if track.parent:
            parent = by_id[track.parent]
            ends = [parent.end * unit, track.begin * unit]
            axes.plot(ends, [places[parent.id], y], color=colour, linewidth=1)
        if len(tracks) <= MOST_NAMED:
            start = track.begin * unit, y
            axes.annotate(str(track.id), start, (1, 1.5), textcoords="offset points", fontsize=6, color="#444444")
    axes.set_xlabel("time (seconds)" if seconds else "frame")
    axes.set_ylim(n_rows - 0.4, -0.6)
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    n_divisions = sum(len(children) > 1 for children in children_of(tracks).values())
    axes.set_title(
        f"{counted(len(tracks), 'track')}, {counted(n_divisions, 'division')}", loc="left", fontsize="medium"
    )
    return figure


def _places(tracks: Sequence[Track]) -> dict[int, float]:
    """The height of each track: leaves one below the other, parents in the middle of their children."""
    children = children_of(tracks)
    places: dict[int, float] = {}
    n_leaves = 0
    waiting = [track.id for track in reversed(tracks) if not track.parent]
    while waiting:
        number = waiting[-1]
        of_it = children.get(number, [])
        if of_it and of_it[0] not in places:
            waiting.extend(reversed(of_it))
            continue
        waiting.pop()
        if of_it:
            places[number] = sum(places[child] for child in of_it) / len(of_it)
        else:
            places[number], n_leaves = float(n_leaves), n_leaves + 1
    return places
