"""What metrics of tracks look at: which true and found objects overlap in each frame of a film, and all tracks.

A film metric is a benchmark as a `Metric` is, for films in place of images. It gets a `Film`, which is made from two
streams of label images and keeps no pixels, only how many pixels each two objects share.

Shapes: `k` true objects of a frame, `j` found ones, `p` pairs that share pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Generic, TypeVar

import numpy as np
from jaxtyping import Float, Int, Int64

from attractor.errors import InputError
from attractor.instances import areas, relabel
from attractor.metrics.metric import Row, Table
from attractor.metrics.overlaps import covers_most, overlapping_pairs
from attractor.tracks import Track, children_of


@dataclass(frozen=True)
class Frame:
    """The objects of one frame by their ids, and the pairs that share pixels, by place."""

    true_ids: Int64[np.ndarray, " k"]
    found_ids: Int64[np.ndarray, " j"]
    true_sizes: Int64[np.ndarray, " k"]  # pixels
    found_sizes: Int64[np.ndarray, " j"]
    truth: Int64[np.ndarray, " p"]  # places in true_ids
    found: Int64[np.ndarray, " p"]  # places in found_ids
    shared: Int64[np.ndarray, " p"]  # pixels
    iou: Float[np.ndarray, " p"]

    @classmethod
    def of(cls, truth: Int[np.ndarray, "*axes"], found: Int[np.ndarray, "*others"], name: str = "The frames") -> Frame:
        """Compare two label images of two or three axes.

        Raises:
            InputError: if they differ in shape.
        """
        if truth.shape != found.shape:
            raise InputError(
                f"{name} to compare differ in shape: truth {truth.shape}, found {found.shape}. They must be of the "
                "same film at the same size."
            )
        true_labels, true_ids = relabel(truth)
        found_labels, found_ids = relabel(found)
        sizes = areas(true_labels, len(true_ids)), areas(found_labels, len(found_ids))
        pairs = overlapping_pairs(true_labels, found_labels)
        return cls(true_ids, found_ids, *sizes, pairs.truth, pairs.found, pairs.shared, pairs.iou)

    @cached_property
    def true_places(self) -> dict[int, int]:
        """The place of each true id."""
        return {int(number): place for place, number in enumerate(self.true_ids)}

    @cached_property
    def covered(self) -> dict[int, int]:
        """For each true id the found id that covers more than half of it, where there is one: the challenge's match."""
        is_match = covers_most(self.truth, self.shared, self.true_sizes)
        pairs = zip(self.true_ids[self.truth[is_match]], self.found_ids[self.found[is_match]], strict=True)
        return {int(true): int(found) for true, found in pairs}

    @cached_property
    def covering(self) -> dict[int, int]:
        """For each found id how many true objects it covers so."""
        counts: dict[int, int] = {}
        for found in self.covered.values():
            counts[found] = counts.get(found, 0) + 1
        return counts


@dataclass(frozen=True)
class Film:
    """One film: its true and found tracks, and the objects of each frame."""

    name: str
    true_tracks: Sequence[Track]
    found_tracks: Sequence[Track]
    frames: Sequence[Frame]
    outlined: Sequence[Frame] | None = None  # frames with exact outlines, where the truth keeps them apart

    @property
    def n_truth(self) -> int:
        """True objects of all frames."""
        return sum(len(frame.true_ids) for frame in self.frames)

    @cached_property
    def true_by_id(self) -> dict[int, Track]:
        """True tracks by id."""
        return {track.id: track for track in self.true_tracks}

    @cached_property
    def found_by_id(self) -> dict[int, Track]:
        """Found tracks by id."""
        return {track.id: track for track in self.found_tracks}

    @cached_property
    def true_children(self) -> dict[int, list[int]]:
        """Children of true tracks."""
        return children_of(self.true_tracks)

    @cached_property
    def found_children(self) -> dict[int, list[int]]:
        """Children of found tracks."""
        return children_of(self.found_tracks)


def film(
    truth: Iterable[Int[np.ndarray, "*axes"]],
    true_tracks: Sequence[Track],
    found: Iterable[Int[np.ndarray, "*others"]],
    found_tracks: Sequence[Track],
    *,
    name: str = "film",
) -> Film:
    """The film of two streams of label images with ids; they are taken frame by frame.

    Raises:
        InputError: if the two have not as many frames, or differ in shape.
    """
    frames: list[Frame] = []
    true_frames, found_frames = iter(truth), iter(found)
    while True:
        one, other = next(true_frames, None), next(found_frames, None)
        if one is None and other is None:
            return Film(name, true_tracks, found_tracks, frames)
        if one is None or other is None:
            more, less = ("found", "true") if one is None else ("true", "found")
            raise InputError(f"{name}: there are more {more} frames than {less} ones; give as many of each.")
        frames.append(Frame.of(one, other, f"{name}, frame {len(frames)}: the images"))


@dataclass(frozen=True)
class FilmScores:
    """The scores of one film; each metric adds fields of its own."""

    name: str
    n_frames: int
    n_truth: int  # true objects of all frames


F = TypeVar("F", bound=FilmScores)


@dataclass(frozen=True)
class FilmMetric(Generic[F]):
    """A benchmark of tracks."""

    score: Callable[[Film], F]
    rows: Callable[[F], Mapping[str, Row]]  # from the table's title to a film's values in it
    about: str  # what it measures, in a few words, for help texts
    headline: str  # the heading of the one value by which results are ranked; more is better
    terms: Mapping[str, str] = field(default_factory=dict)  # what the headings mean, in a sentence each

    def tables(self, films: Sequence[F]) -> list[Table]:
        """A table for each group of values, with a row for each film and, of several, one of their means.

        Raises:
            InputError: if there is no film.
        """
        if not films:
            raise InputError("There is no film to score; at least one is needed.")
        rows: dict[str, dict[str, Row]] = {}
        for scores in films:
            counts: Row = {"frames": scores.n_frames, "objects": scores.n_truth}
            for title, row in self.rows(scores).items():
                rows.setdefault(title, {})[scores.name] = {**counts, **row}
                counts = {}  # the first table says them
        return [Table(title, {**of_films, **_mean(of_films)}, "film") for title, of_films in rows.items()]


def _mean(rows: Mapping[str, Row]) -> dict[str, Row]:
    """The mean of several films, where each counts the same; none of a single one."""
    if len(rows) < 2:
        return {}
    several = list(rows.values())
    headings = several[0]
    return {"mean": {heading: _mean_of([row[heading] for row in several]) for heading in headings}}


def _mean_of(values: Sequence[object]) -> float | int:
    if all(isinstance(value, int) for value in values):
        return sum(value for value in values if isinstance(value, int))
    known = [value for value in values if isinstance(value, float) and not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")
