"""`attractor track`: give each object one number through a film."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import attractor
from attractor.cli.app import (
    Device,
    Dtype,
    Engine,
    ModelName,
    ObjectSize,
    Scales,
    Thresholds,
    Tile,
    Views,
    check_scales,
    names_of,
    numbers_of,
    scales_of,
    sides_of,
)
from attractor.cli.printing import progress, say, write_json
from attractor.errors import InputError
from attractor.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from attractor.prediction.image import Segmenter
    from attractor.tracking.films import Frames
    from attractor.tracking.linking import Frame
    from attractor.tracking.tables import Scale
    from attractor.tracks import Track

LINKING = "Linking"


def track(
    film: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER|STACK|FILE...", help="A folder of frames, a TIFF stack, or the files of frames in order."
        ),
    ],
    model: ModelName = "nuclei",
    found: Annotated[
        Path | None,
        typer.Option(
            metavar="LABELS",
            help="Link these label images, a folder or a stack, instead of segmenting the frames.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("tracks"),
    device: Device = "auto",
    engine: Engine = "torch",
    dtype: Dtype = "auto",
    object_size: ObjectSize = None,
    tile: Tile = None,
    tta: Views = False,
    tta_scales: Scales = "",
    thresholds: Thresholds = None,
    formats: Annotated[
        str, typer.Option("--format", metavar="LIST", help="What to write, separated by commas. {track_outputs}.")
    ] = "ctc,csv,gif",
    pixel_size: Annotated[
        str | None,
        typer.Option(
            metavar="UM",
            help="Micrometres per pixel for lengths in the tables: 0.5, or 0.5x0.25 for height x width.",
            show_default="the file's own",
        ),
    ] = None,
    interval: Annotated[
        float | None,
        typer.Option(metavar="S", help="Seconds from one frame to the next, for times and speeds.", show_default=False),
    ] = None,
    axes: Annotated[
        str,
        typer.Option(
            metavar="LETTERS", help="Axes of a stack, such as TYX or TCYX.", show_default="what the stack says"
        ),
    ] = "",
    max_distance: Annotated[
        float | None,
        typer.Option(
            metavar="PX",
            help="How far an object may move from frame to frame.",
            show_default="twice its diameter",
            rich_help_panel=LINKING,
        ),
    ] = None,
    max_gap: Annotated[
        int,
        typer.Option(
            metavar="N",
            help="For how many frames an object may be missed, or in pieces; it is mended there.",
            rich_help_panel=LINKING,
        ),
    ] = 2,
    no_divisions: Annotated[
        bool, typer.Option("--no-divisions", help="Objects cannot divide.", rich_help_panel=LINKING)
    ] = False,
    no_motion: Annotated[
        bool,
        typer.Option(
            "--no-motion",
            help="Link by overlap alone, even if the model, trained on films, says where objects were one frame ago.",
            rich_help_panel=LINKING,
        ),
    ] = False,
) -> None:
    """Segment the frames of a film, and give each object one number through all of them, with its divisions.

    For a film called 01 this writes masks and a list of tracks in the form of the Cell Tracking Challenge (01_RES),
    tables of tracks and of objects, and the film with coloured outlines.
    """
    from attractor.tracking.films import open_film, open_labels
    from attractor.tracking.outputs import check_track_outputs
    from attractor.tracking.tables import Scale

    names, scales, numbers = names_of(formats), scales_of(tta_scales), numbers_of(thresholds or ())
    check_scales(scales, tta=tta)
    check_track_outputs(names)
    images = open_film(film, axes=axes)
    labels = None if found is None else open_labels([found], axes=axes, name=images.name)
    scale = Scale(_sides(pixel_size) or _size_in(images), interval)
    options: dict[str, Any] = {"tta": tta, "object_size": object_size, "tile": tile}
    linking: dict[str, Any] = {"max_distance": max_distance, "max_gap": max_gap, "divisions": not no_divisions}
    follows = False
    if labels is None:
        segmenter = attractor.load(
            model, device=device, thresholds=numbers, engine=engine, dtype=dtype, tta_scales=scales
        )
        segmenter.check_options(**options)
        follows = segmenter.follows and not no_motion
        pairs = (_followed if follows else _segmented)(images, segmenter, options)
    else:
        _check_length(labels, images, str(found))
        pairs = _given(images, labels)
    tracks = _tracked(pairs, images, linking, out, names, scale)
    call = {
        "film": [str(path) for path in film],
        "found": found and str(found),
        "model": model if found is None else None,
        "thresholds": numbers,
        **options,
        **linking,
        "motion": follows,
        "pixel_size": scale.pixel_size,
        "interval": interval,
        "formats": names,
    }
    write_json(out / f"{images.name}_run.json", {"attractor": attractor.__version__, "call": call})
    n_divided = len({track.parent for track in tracks if track.parent})
    say(
        f"Found {counted(len(tracks), 'track')} and {counted(n_divided, 'division')} in "
        f"{counted(len(images), 'frame')}; results as {', '.join(names)} are in {out}."
    )


def _tracked(
    pairs: Iterable[tuple[np.ndarray, Frame]],
    images: Frames,
    linking: dict[str, Any],
    out: Path,
    names: Sequence[str],
    scale: Scale,
) -> list[Track]:
    """Link the objects of each frame, given with its image, and write what was asked for; frames are a stream."""
    from attractor.tracking import link
    from attractor.tracking.filling import filled
    from attractor.tracking.outputs import write_tracks
    from attractor.tracking.rejoining import Rejoined

    seen: deque[np.ndarray] = deque()  # images of frames that are not written yet
    with progress("tracking", len(images)) as (advance, _):

        def objects() -> Iterator[Frame]:
            for image, one in pairs:
                seen.append(image)
                yield one
                advance()

        tracked = Rejoined(link(objects(), **linking), linking["max_gap"])
        frames = ((seen.popleft(), frame) for frame in filled(tracked, linking["max_gap"]))
        write_tracks(out, images.name, frames, lambda: tracked.tracks, formats=names, scale=scale)
    return list(tracked.tracks)


def _segmented(images: Frames, segmenter: Segmenter, options: dict[str, Any]) -> Iterator[tuple[np.ndarray, Frame]]:
    """Each frame's image, and the objects that the model finds in it; several frames are computed at once."""
    from attractor.prediction.batches import Given

    frames = zip(images.sources, images, strict=True)
    for (_, image), prediction in segmenter.predict_many(frames, lambda one: Given(*one), len(images), **options):
        yield image, prediction.found.labels


def _followed(images: Frames, segmenter: Segmenter, options: dict[str, Any]) -> Iterator[tuple[np.ndarray, Frame]]:
    """The same, and where each pixel's object was one frame ago."""
    from attractor.prediction.batches import Given
    from attractor.prediction.following import followed
    from attractor.tracking import Pointing

    seen: deque[np.ndarray] = deque()

    def frames() -> Iterator[Given]:
        for source, image in zip(images.sources, images, strict=True):
            seen.append(image)
            yield Given(source, image)

    for found, steps in followed(segmenter, frames(), **options):
        yield seen.popleft(), found.labels if steps is None else Pointing(found.labels, steps)


def _given(images: Frames, labels: Frames) -> Iterator[tuple[np.ndarray, Frame]]:
    """Each frame's image, and the objects that somebody found in it."""
    for place, (image, frame) in enumerate(zip(images, labels, strict=True)):
        if image.shape[:2] != frame.shape:
            raise InputError(
                f"{labels.sources[place]}: has {frame.shape[0]} x {frame.shape[1]} pixels, but its frame "
                f"{images.sources[place]} has {image.shape[0]} x {image.shape[1]}; both must be of one size."
            )
        yield image, frame


def _check_length(labels: Frames, images: Frames, found: str) -> None:
    """Refuse label images that are more or fewer than the frames."""
    if len(labels) != len(images):
        raise InputError(
            f"{found}: holds {counted(len(labels), 'label image')}, but the film has {counted(len(images), 'frame')}; "
            "there must be one for each frame."
        )


def _sides(size: str | None) -> tuple[float, ...] | None:
    """Micrometres along a pixel's height and width."""
    sides = sides_of(size)
    if sides is not None and len(sides) != 2:
        raise InputError(f"--pixel-size {size}: a film has pixels with two sides; give 0.5, or 0.5x0.25, say.")
    return sides


def _size_in(images: Frames) -> tuple[float, ...] | None:
    """Micrometres along a pixel's sides, if the film's own file says so."""
    from attractor.images import pixel_size

    return pixel_size(images.file)
