"""`attractor track`: give each object one number through a film."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

import attractor
from attractor.cli.app import Device, Dtype, Engine, Scales, Views, check_scales, scales_of
from attractor.cli.printing import progress, say, write_json
from attractor.cli.segment import numbers_of, sides_of
from attractor.errors import InputError
from attractor.wording import counted

if TYPE_CHECKING:
    import numpy as np

    from attractor.prediction.image import Segmenter
    from attractor.tracking.films import Frames

LINKING = "Linking"


def track(
    film: Annotated[
        list[Path],
        typer.Argument(
            metavar="FOLDER|STACK|FILE...", help="A folder of frames, a TIFF stack, or the files of frames in order."
        ),
    ],
    model: Annotated[
        str, typer.Option(help="A model's name (see `attractor models`), file, or training folder.")
    ] = "nuclei",
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
    object_size: Annotated[
        float | None, typer.Option(metavar="PX", help="Typical diameter of your objects in pixels.")
    ] = None,
    tile: Annotated[
        int | None, typer.Option(metavar="PX", help="To save memory, use tiles of this side, a multiple of 8.")
    ] = None,
    tta: Views = False,
    tta_scales: Scales = "",
    thresholds: Annotated[
        list[str] | None,
        typer.Option(
            "--threshold", metavar="NAME=VALUE", help="Change a threshold; seed_threshold=0.6 finds more, say."
        ),
    ] = None,
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
) -> None:
    """Segment the frames of a film, and give each object one number through all of them, with its divisions.

    For a film called 01 this writes masks and a list of tracks in the form of the Cell Tracking Challenge (01_RES),
    tables of tracks and of objects, and the film with coloured outlines.
    """
    from attractor.tracking import link
    from attractor.tracking.filling import filled
    from attractor.tracking.films import open_film, open_labels
    from attractor.tracking.outputs import check_track_outputs, write_tracks
    from attractor.tracking.rejoining import Rejoined
    from attractor.tracking.tables import Scale

    names = tuple(name.strip() for name in formats.split(",") if name.strip())
    scales = scales_of(tta_scales)
    check_scales(scales, tta=tta)
    check_track_outputs(names)
    images = open_film(film, axes=axes)
    labels = None if found is None else open_labels([found], axes=axes, name=images.name)
    if labels is not None and len(labels) != len(images):
        raise InputError(
            f"{found}: holds {counted(len(labels), 'label image')}, but the film has {counted(len(images), 'frame')}; "
            "there must be one for each frame."
        )
    scale = Scale(sides_of(pixel_size) or _size_in(images), interval)
    segmenter = None
    if labels is None:
        segmenter = attractor.load(
            model,
            device=device,
            thresholds=numbers_of(thresholds or ()),
            engine=engine,
            dtype=dtype,
            tta_scales=scales,
        )
        segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    options: dict[str, Any] = {"tta": tta, "object_size": object_size, "tile": tile}
    seen: list[np.ndarray] = []  # images of frames that are not written yet
    with progress("tracking", len(images)) as (advance, _):

        def objects() -> Iterator[np.ndarray]:
            for image, one in _frames(images, labels, segmenter, options):
                seen.append(image)
                yield one
                advance()

        linked = link(objects(), max_distance=max_distance, max_gap=max_gap, divisions=not no_divisions)
        tracked = Rejoined(linked, max_gap)
        frames = ((seen.pop(0), frame) for frame in filled(tracked, max_gap))
        write_tracks(out, images.name, frames, lambda: tracked.tracks, formats=names, scale=scale)
    call = {
        "film": [str(path) for path in film],
        "found": found and str(found),
        "model": None if segmenter is None else model,
        "thresholds": numbers_of(thresholds or ()),
        **options,
        "max_distance": max_distance,
        "max_gap": max_gap,
        "divisions": not no_divisions,
        "pixel_size": scale.pixel_size,
        "interval": interval,
        "formats": names,
    }
    write_json(
        out / f"{images.name}_run.json", {"attractor": attractor.__version__, "call": json.loads(json.dumps(call))}
    )
    n_divided = len({track.parent for track in tracked.tracks if track.parent})
    say(
        f"Found {counted(len(tracked.tracks), 'track')} and {counted(n_divided, 'division')} in "
        f"{counted(len(images), 'frame')}; results as {', '.join(names)} are in {out}."
    )


def _frames(
    images: Frames, labels: Frames | None, segmenter: Segmenter | None, options: dict[str, Any]
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Each frame's image and its objects: as they are given, or as the model finds them."""
    if labels is not None:
        for place, (image, frame) in enumerate(zip(images, labels, strict=True)):
            if image.shape[:2] != frame.shape:
                raise InputError(
                    f"{labels.sources[place]}: has {frame.shape[0]} x {frame.shape[1]} pixels, but its frame "
                    f"{images.sources[place]} has {image.shape[0]} x {image.shape[1]}; both must be of one size."
                )
            yield image, frame
    elif segmenter is not None:
        for source, image in zip(images.sources, images, strict=True):
            yield image, segmenter.segment(image, name=source, **options).labels


def _size_in(images: Frames) -> tuple[float, ...] | None:
    """Micrometres along a pixel's sides, if the film's own file says so."""
    from attractor.images import pixel_size

    return pixel_size(images.file)
