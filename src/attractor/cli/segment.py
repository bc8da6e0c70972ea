"""`attractor segment`: find the objects in images and write them to files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

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
    WholeMasks,
    check_scales,
    names_of,
    numbers_of,
    scales_of,
    sides_of,
)
from attractor.cli.printing import complain, progress, say
from attractor.cli.slide import Asked, is_for_slide, segment_slide
from attractor.errors import InputError
from attractor.wording import counted

LARGE = "Images larger than memory (OME-Zarr)"

if TYPE_CHECKING:
    from attractor.prediction.folder import Outcome
    from attractor.prediction.options import Options
    from attractor.prediction.run import Run


def segment(
    context: typer.Context,
    images: Annotated[
        list[str] | None,  # no paths, which would take a slash out of an address
        typer.Argument(metavar="IMAGE|FOLDER...", help="Images and folders of images.", show_default=False),
    ] = None,
    model: ModelName = "nuclei",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    device: Device = "auto",
    engine: Engine = "torch",
    dtype: Dtype = "auto",
    object_size: ObjectSize = None,
    tile: Tile = None,
    tta: Views = False,
    tta_scales: Scales = "",
    whole_masks: WholeMasks = False,
    thresholds: Thresholds = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="What to write for each image, separated by commas: {outputs}.",
        ),
    ] = "labels,overlay,csv",
    pixel_size: Annotated[
        str | None,
        typer.Option(
            "--pixel-size",
            "--spacing",
            metavar="UM",
            help="Micrometres per pixel: 0.5, 0.5x0.25 for height x width, or 1.75x0.8x0.8 for depth x height x width.",
            show_default="the file's own",
        ),
    ] = None,
    axes: Annotated[
        str,
        typer.Option(
            metavar="LETTERS",
            help="Axes of volumes whose files do not name them, such as ZYX or ZCYX.",
            show_default="the file's own",
        ),
    ] = "",
    slices: Annotated[
        bool,
        typer.Option("--slices", help="Show a model for images the slices of volumes, and join what is found in them."),
    ] = False,
    like: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Repeat the call in this run.json; images and options given here replace those in the file.",
            show_default=False,
        ),
    ] = None,
    level: Annotated[
        int, typer.Option(metavar="N", help="Resolution to look at, 0 for the finest.", rich_help_panel=LARGE)
    ] = 0,
    channels: Annotated[
        str,
        typer.Option(
            metavar="LIST",
            help="Channels by number or name: 0 or DAPI, say.",
            show_default="all",
            rich_help_panel=LARGE,
        ),
    ] = "",
    plane: Annotated[
        str, typer.Option(metavar="AXIS=N", help="Place along t and z, such as t=0,z=3.", rich_help_panel=LARGE)
    ] = "",
    image: Annotated[
        str | None, typer.Option(metavar="NAME", help="Which image, where a file holds several.", rich_help_panel=LARGE)
    ] = None,
    into: Annotated[
        bool, typer.Option("--into", help="Write the labels into the image, not into a copy.", rich_help_panel=LARGE)
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace labels that are there.", rich_help_panel=LARGE)
    ] = False,
    block: Annotated[
        int | None,
        typer.Option(metavar="PX", help="Side of a block, a multiple of the tile.", rich_help_panel=LARGE),
    ] = None,
    workers: Annotated[
        int, typer.Option(metavar="N", help="Processes that share the work.", rich_help_panel=LARGE)
    ] = 1,
    scheduler: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="A Dask scheduler, such as tcp://node1:8786.", rich_help_panel=LARGE),
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(metavar="I/N", help="Do one of N parts, 0/N to N-1/N: for job arrays.", rich_help_panel=LARGE),
    ] = None,
    finish: Annotated[
        bool, typer.Option("--finish", help="Put the parts together, once all are done.", rich_help_panel=LARGE)
    ] = False,
) -> None:
    """Find the objects in images; write a label image, a picture with outlines and a table for each.

    The file run.json beside the results says what was done, with which model and options.

    OME-Zarr images of any size, and large TIFF files, are read in blocks with --out NAME.ome.zarr.
    """
    from attractor.prediction.options import Options

    options = Options(
        images=tuple(images or ()),
        model=model,
        out=str(out),
        device=device,
        engine=engine,
        dtype=dtype,
        object_size=object_size,
        tile=tile,
        tta=tta,
        tta_scales=scales_of(tta_scales),
        whole_masks=whole_masks,
        thresholds=numbers_of(thresholds or ()),
        formats=names_of(formats),
        pixel_size=sides_of(pixel_size),
        axes=axes,
        slices=slices,
    )
    former = None
    if like is not None:
        from attractor.prediction.run import read_run

        former = read_run(like)
        options = former.again(options, changed=_given(context))
    check_scales(options.tta_scales, tta=options.tta)
    if not options.images:
        raise InputError("No image is given; give files or folders of images, or --like run.json to repeat a call.")
    asked = Asked(level, channels, plane, image, into, overwrite, block, workers, scheduler, part, finish)
    if is_for_slide(options, asked):
        return segment_slide(options, asked, formats_given="formats" in _given(context))
    outcomes = _segmented(options, former)
    done = [outcome for outcome in outcomes if outcome.problem is None]
    if done:
        _say_what_was_found(done, options)
    if len(done) < len(outcomes):
        complain(f"{len(outcomes) - len(done)} of {counted(len(outcomes), 'image')} could not be segmented.")
        raise typer.Exit(1)


def _segmented(options: Options, former: Run | None) -> list[Outcome]:
    """Segment all images and keep a record of it; with the model of the former run, if one is repeated."""
    from attractor.description import find_model, read_description
    from attractor.prediction.folder import find_files, segment_files
    from attractor.prediction.run import ModelFile, Run, recorded

    file = find_model(options.model)
    given = find_files(options.images, 3 if options.slices else read_description(file).axes, options.axes)
    model = ModelFile.of(options.model, file)
    if former is not None:
        former.check_model(model)
    segmenter = attractor.load(
        file,
        device=options.device,
        thresholds=options.thresholds,
        engine=options.engine,
        dtype=options.dtype,
        whole_masks=options.whole_masks,
        tta_scales=options.tta_scales,
    )
    outcomes = segment_files(
        segmenter,
        options.images,
        options.out,
        tta=options.tta,
        object_size=options.object_size,
        tile=options.tile,
        formats=options.formats,
        pixel_size=options.pixel_size,
        axes=options.axes,
        slices=options.slices,
    )
    with (
        recorded(Run.of(segmenter, model, options), outcomes, Path(options.out)) as noted,
        progress("segmenting", len(given.images) + len(given.problems)) as (advance, console),
    ):
        done = []
        for outcome in noted:
            advance()
            if outcome.problem is not None:
                complain(outcome.problem, console)
            done.append(outcome)
        return done


def _say_what_was_found(done: Sequence[Outcome], options: Options) -> None:
    from attractor.prediction.outputs import DEFAULT_OUTPUTS

    found = f"Found {counted(sum(outcome.n_objects for outcome in done), 'object')} in {counted(len(done), 'image')}"
    is_usual = options.formats == DEFAULT_OUTPUTS
    results = "labels, overlays and tables" if is_usual else "results as " + ", ".join(options.formats)
    say(f"{found}; {results} are in {options.out}.")
    if options.slices:
        say("Each slice was segmented by itself, and what overlaps from one to the next is one object.")


def _given(context: typer.Context) -> set[str]:
    """Names of the options that the call itself gives."""
    sources = {name: context.get_parameter_source(name) for name in context.params}
    return {name for name, source in sources.items() if source is not None and source.name == "COMMANDLINE"}
