"""`attractor segment`: the objects of images, written beside each other."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import attractor
from attractor.cli.app import Device, Engine, Precision, Views
from attractor.cli.printing import complain, progress, say
from attractor.errors import InputError
from attractor.wording import counted

if TYPE_CHECKING:
    from attractor.prediction.folder import Outcome


def segment(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER", help="Images, and folders of images.")],
    model: Annotated[
        str, typer.Option(help="A model's name (see `attractor models`), file, or training folder.")
    ] = "nuclei",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    device: Device = "auto",
    engine: Engine = "torch",
    precision: Precision = "auto",
    object_size: Annotated[float | None, typer.Option(help="Typical diameter of your objects in pixels.")] = None,
    tile: Annotated[
        int | None, typer.Option(help="Compute in tiles of this side, a multiple of 8, to save memory.")
    ] = None,
    tta: Views = False,
    thresholds: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="NAME=VALUE", help="Change one, as in seed_threshold=0.6 to find more."),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="What to write of each image, commas between: {outputs}.",
        ),
    ] = "labels,overlay,csv",
    pixel_size: Annotated[
        str | None,
        typer.Option(
            metavar="UM",
            help="Micrometres a pixel, 0.5 or 0.5x0.25 (row x column), for lengths in the table.",
            show_default="the file's own",
        ),
    ] = None,
) -> None:
    """Find the objects of images: label image, picture with outlines, and table of objects for each."""
    from attractor.images import find_images
    from attractor.prediction.folder import segment_files
    from attractor.prediction.outputs import DEFAULT_OUTPUTS, written_endings

    chosen = [name.strip() for name in formats.split(",") if name.strip()]
    size = _sides(pixel_size)
    given = find_images(images, written=written_endings())
    segmenter = attractor.load(
        model, device=device, thresholds=_numbers(thresholds or ()), engine=engine, precision=precision
    )
    with progress("segmenting", len(given.images) + len(given.problems)) as (advance, console):

        def report(outcome: Outcome) -> None:
            advance()
            if outcome.problem is not None:
                complain(outcome.problem, console)

        outcomes = segment_files(
            segmenter,
            images,
            out,
            tta=tta,
            object_size=object_size,
            tile=tile,
            formats=chosen,
            pixel_size=size,
            report=report,
        )
    done = [outcome for outcome in outcomes if outcome.problem is None]
    n_objects = sum(outcome.n_objects for outcome in done)
    if done:
        found = f"Found {counted(n_objects, 'object')} in {counted(len(done), 'image')}"
        is_usual = tuple(chosen) == DEFAULT_OUTPUTS
        say(
            f"{found}; {'labels, overlays and tables' if is_usual else 'results as ' + ', '.join(chosen)} are in {out}."
        )
    if len(done) < len(outcomes):
        complain(f"{len(outcomes) - len(done)} of {counted(len(outcomes), 'image')} could not be segmented.")
        raise typer.Exit(1)


def _sides(size: str | None) -> tuple[float, float] | None:
    """Micrometres along a pixel's height and width, given as one number, or two with an x between."""
    if size is None:
        return None
    try:
        sides = [float(side) for side in size.lower().split("x")]
        height, width = sides if len(sides) > 1 else sides * 2
    except ValueError as error:
        raise InputError(
            f"--pixel-size {size}: give micrometres a pixel, as in 0.5, or 0.5x0.25 for row and column."
        ) from error
    return height, width


def _numbers(settings: Sequence[str]) -> dict[str, float]:
    """Numbers given as name=value."""
    numbers = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise InputError(f"--threshold {setting}: write it as name=number, as in seed_threshold=0.6.") from error
    return numbers
