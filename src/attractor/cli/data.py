"""`attractor check` and `attractor convert`: look at annotated images, and write them in another layout."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attractor.cli.annotated import annotated_images
from attractor.cli.app import Overlap, Split
from attractor.cli.printing import progress, say
from attractor.errors import InputError
from attractor.wording import counted

if TYPE_CHECKING:
    from attractor.description import Description


def check(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Annotated images.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|RECIPE.toml",
            help="Also say what in the data this model, or a model trained by this recipe, cannot handle.",
            show_default=False,
        ),
    ] = None,
    overlap: Overlap = None,
    split: Split = None,
) -> None:
    """Say what is wrong with a data set, what is in it, and which settings suit it."""
    from attractor.datasets import checking, split_path

    if not dataset.exists():
        raise InputError(f"{dataset}: there is no such data set; check the name and the folder you are in.")
    description = _described(model) if model is not None else None
    report = checking.check(split_path(dataset, split), overlap=overlap)
    if description is not None and report.class_names:
        report = report.for_model(*_holds(description, report.class_names), n_axes=description.axes)
    for line in report.lines():
        say(line)
    if report.errors:
        raise typer.Exit(1)


def _described(model: str) -> Description:
    """The description of a model, or of the model in a recipe; without class names if the recipe gives none."""
    from attractor.description import Description, find_model, read_description

    if Path(model).suffix != ".toml":
        return read_description(find_model(model))
    from attractor.recipe import read_recipe

    recipe = read_recipe(model)
    section = recipe.model
    return Description(
        method=section.method,
        network=section.network,
        channels=section.channels,
        class_names=tuple(section.classes or recipe.data.classes or ()),
        options=section.options,
        network_options=section.network_options,
        axes=section.axes,
        spacing=None if section.spacing is None else tuple(section.spacing),
    )


def _holds(description: Description, of_data: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The classes that a model tells apart, by default those of the data, and how many objects an image may have."""
    from attractor.model import Model

    described = dataclasses.replace(description, class_names=description.class_names or of_data)
    return described.class_names, Model(described).method.max_instances


def convert(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Annotated images.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write, new or empty.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT",
            help="The layout to write: {layouts}.",
            show_default=False,
        ),
    ],
    classes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Keep only these classes, separated by commas.")
    ] = None,
    overlap: Overlap = None,
    split: Split = None,
) -> None:
    """Write a data set in another layout, and say what that layout cannot keep."""
    from attractor.datasets import converting, split_path

    images = annotated_images(split_path(dataset, split), None, None, classes, overlap=overlap)
    with progress("converting", len(images)) as (advance, _):
        lost = converting.convert(images, out, to, report=advance)
    say(f"{counted(len(images), 'image')} written to {out} as {to}.")
    for sentence in lost:
        say(f"Not kept: {sentence}")
