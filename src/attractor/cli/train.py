"""`attractor train`: a model by a recipe, or on a data set."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from attractor.cli.app import Device, Split
from attractor.cli.printing import say
from attractor.errors import InputError


def train(
    source: Annotated[
        Path, typer.Argument(metavar="RECIPE.toml|DATASET", help="How to train, or just the data.", show_default=False)
    ],
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Begin with the weights of this model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for all that is written.", show_default="runs/<name>")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Stop after N minutes, if all epochs are not done before.")
    ] = None,
    split: Split = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in that folder.")] = False,
    device: Device = "auto",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in training.epochs=2.")
    ] = None,
) -> None:
    """Train a model by a recipe, or on a data set, for which a recipe is then written."""
    from attractor import runs
    from attractor.datasets import split_path

    if split is not None and source.suffix == ".toml":
        raise InputError(f"{source}: a recipe names its images itself, in data.train; leave out --split.")
    data, recipe = (None, source) if source.suffix == ".toml" else (split_path(source, split), None)
    folder = out if out is not None else runs.default_folder(source)
    segmenter = runs.train(
        data,
        recipe=recipe,
        minutes=minutes,
        start=start,
        out=folder,
        changes=changes or (),
        resume=resume,
        device=device,
    )
    score = segmenter.model.description.score("validation", "mean")
    measured = "" if score is None else f" On the validation images its mean AP is {score:.3f}."
    say(f"The model is {folder / 'model.safetensors'}.{measured}")
    say(f"Use it: attractor segment IMAGE --model {shlex.quote(str(folder))}")
