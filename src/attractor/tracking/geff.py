"""Tracks as GEFF, the graph format that tracking programs exchange: a node for each object in each frame.

A node has its time, its place, its size, and the number of its track; edges lead from an object to the same one in the
next frame it is seen in, and from a parent to its children. The library `geff` writes it, as Zarr.

Source: https://liveimagetrackingtools.org/geff.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Int

from attractor.errors import InputError
from attractor.tracking.objects import objects_of
from attractor.tracking.tables import Scale
from attractor.tracks import Track
from attractor.wording import install

SPACE = ("z", "y", "x")  # the last ones, for frames of fewer axes


class GeffGraph:
    """The graph of a film, of frames that are given one after another."""

    def __init__(self, scale: Scale) -> None:
        """Begin with an empty graph.

        Raises:
            InputError: if geff is not installed.
        """
        try:
            import geff
            import networkx
        except ImportError as error:
            raise InputError(f"The format geff needs geff, which is not installed. {install('track')}") from error
        self._write, self._graph, self._scale = geff.write, networkx.DiGraph(), scale
        self._last: dict[int, int] = {}  # from track to its last node
        self._first: dict[int, int] = {}
        self._number, self._n_axes = 0, 2

    def add(self, frame: Int[np.ndarray, "*axes"]) -> None:
        """Add the objects of the next frame."""
        found = objects_of(frame)
        self._n_axes = frame.ndim
        for label, size, centre in zip(
            found.labels.tolist(), found.sizes.tolist(), found.centres.tolist(), strict=True
        ):
            node = self._graph.number_of_nodes() + 1
            place = dict(zip(SPACE[-frame.ndim :], centre, strict=True))
            self._graph.add_node(node, t=self._number, **place, track_id=label, size=size)
            if label in self._last:
                self._graph.add_edge(self._last[label], node)
            self._first.setdefault(label, node)
            self._last[label] = node
        self._number += 1

    def finish(self, tracks: Sequence[Track], path: Path) -> None:
        """Add the divisions, and write the graph to a folder that does not exist."""
        for track in tracks:
            if track.parent in self._last and track.id in self._first:
                self._graph.add_edge(self._last[track.parent], self._first[track.id])
        space = SPACE[-self._n_axes :]
        size, seconds = self._scale.pixel_size, self._scale.seconds
        self._write(
            self._graph,
            path,
            axis_names=["t", *space],
            axis_types=["time", *("space" for _ in space)],
            axis_units=[
                "frame" if seconds is None else "second",
                *("pixel" if size is None else "micrometer" for _ in space),
            ],
        )
