"""Found tracks against true ones, both on the disk in the form of the Cell Tracking Challenge."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attractor.datasets.tracked import LISTS, RESULT, TrackedFilm, read_result, read_truth
from attractor.errors import InputError
from attractor.images import read_labels
from attractor.metrics import FILM_METRICS
from attractor.metrics.films import Film, FilmMetric, FilmScores, Frame
from attractor.metrics.metric import Table


@dataclass(frozen=True)
class FilmEvaluation:
    """Scores of each film, as records of the metric."""

    films: tuple[FilmScores, ...]
    metric: FilmMetric[Any]

    def tables(self) -> list[Table]:
        """The values, with a row for each film."""
        return self.metric.tables(self.films)


def film_metric_named(name: str) -> FilmMetric[Any]:
    """The entry of FILM_METRICS.

    Raises:
        InputError: if there is none of this name; the message lists those there are.
    """
    if name not in FILM_METRICS:
        raise InputError(f'There is no metric of tracks "{name}"; there are: {", ".join(FILM_METRICS)}.')
    return FILM_METRICS[name]


def evaluate_films(
    found: str | Path, truth: str | Path, *, metric: str = "ctc", report: Callable[[], None] = lambda: None
) -> FilmEvaluation:
    """The scores of found tracks.

    Args:
        found: a folder with results such as `01_RES`, or one of these.
        truth: a folder with truths such as `01_GT`, or one of these.
        metric: a name in `attractor.metrics.FILM_METRICS`.
        report: is called after each frame.

    Raises:
        InputError: if there is nothing to score, a film has no truth or no result, its files cannot be read, or truth
            and result differ in number or size of frames.
    """
    scoring = film_metric_named(metric)
    pairs = paired(found, truth)
    return FilmEvaluation(tuple(scoring.score(_film(one, true, report)) for one, true in pairs), scoring)


def paired(found: str | Path, truth: str | Path) -> list[tuple[TrackedFilm, TrackedFilm]]:
    """Each result with its truth, by the name of the film; a single one of each is a pair whatever the names.

    Raises:
        InputError: as `evaluate_films`.
    """
    results = [read_result(folder) for folder in _results(Path(found))]
    truths = [read_truth(folder) for folder in _truths(Path(truth))]
    if len(results) == len(truths) == 1:
        return [(results[0], truths[0])]
    by_name = {film.name: film for film in results}
    if missing := [film.name for film in truths if film.name not in by_name]:
        raise InputError(
            f"{found}: has no result for the {'film' if len(missing) == 1 else 'films'} {', '.join(missing[:5])} of "
            f"{truth}; results are folders named {missing[0]}_RES."
        )
    return [(by_name[film.name], film) for film in truths]


def n_frames(found: str | Path, truth: str | Path) -> int:
    """Frames of all films that `evaluate_films` scores."""
    return sum(len(true.files) for _, true in paired(found, truth))


def _film(found: TrackedFilm, truth: TrackedFilm, report: Callable[[], None]) -> Film:
    """Compare the masks of a film."""
    if len(found.files) != len(truth.files):
        raise InputError(
            f"{found.files[0].parent}: has masks of {len(found.files)} frames, but the truth in "
            f"{truth.files[0].parent} of {len(truth.files)}; there must be one for each frame."
        )
    frames, outlined = [], []
    outlines = dict(truth.outlined)
    for number, (true, one) in enumerate(zip(truth.frames(), found.frames(), strict=True)):
        name = f"{found.files[number]}: the images"
        frames.append(Frame.of(true, one, name))
        if number in outlines:
            outlined.append(Frame.of(read_labels(outlines[number]), one, name))
        report()
    return Film(truth.name, truth.tracks, found.tracks, frames, outlined if truth.outlined else None)


def _results(folder: Path) -> Iterator[Path]:
    """The folders of results in a folder, or the folder itself."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds results such as 01_RES.")
    if (folder / LISTS[RESULT]).exists():
        yield folder
        return
    inside = sorted(path for path in folder.iterdir() if path.is_dir() and path.name.endswith("_RES"))
    if not inside:
        raise InputError(
            f"{folder}: holds no tracks: neither {LISTS[RESULT]} nor a folder such as 01_RES; `attractor track` writes "
            "them."
        )
    yield from inside


def _truths(folder: Path) -> Iterator[Path]:
    """The folders of truths in a folder, or the folder itself."""
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds true tracks such as 01_GT.")
    if (folder / "TRA").is_dir():
        yield folder
        return
    inside = sorted(path for path in folder.iterdir() if (path / "TRA").is_dir())
    if not inside:
        raise InputError(
            f"{folder}: holds no true tracks: neither a folder TRA nor one such as 01_GT that has it; see the Cell "
            "Tracking Challenge's layout in docs/track.md."
        )
    yield from inside
