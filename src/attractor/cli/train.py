"""`attractor train`: train a model by a recipe, or on a data set."""

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
        Path, typer.Argument(metavar="RECIPE.toml|DATASET", help="A recipe, or just the data.", show_default=False)
    ],
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Start from the weights of this model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for everything that is written.", show_default="runs/<name>")
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="N", help="Train for N minutes, whatever the epochs of the recipe.")
    ] = None,
    folds: Annotated[
        int,
        typer.Option(metavar="N", help="Validate on N parts in turn, then train on all images."),
    ] = 0,
    split: Split = None,
    resume: Annotated[bool, typer.Option("--resume", help="Continue the training in the --out folder.")] = False,
    device: Device = "auto",
    devices: Annotated[
        str, typer.Option(metavar="N|auto", help="How many devices share each batch; auto is all GPUs.")
    ] = "1",
    nodes: Annotated[
        int, typer.Option(metavar="M", help="Machines on which torchrun or SLURM starts this command.")
    ] = 1,
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Change a key of the recipe, such as training.epochs=2."),
    ] = None,
) -> None:
    """Train a model by a recipe, or on a data set; a recipe is then written for it.

    For a session of `attractor correct`, without --out, this is a round: its model is replaced only by a better one.
    """
    from attractor import runs
    from attractor.datasets import split_path
    from attractor.datasets.session import SessionImages

    if split is not None and source.suffix == ".toml":
        raise InputError(f"{source}: a recipe names its own images, in data.train; leave out --split.")
    if out is None and SessionImages.recognises(source):
        if devices != "1" or nodes != 1:
            raise InputError(f"{source}: is a session, whose rounds are trained on one device; leave --devices out.")
        return _round(source, start, minutes, device, changes or [], folds=folds, resume=resume)
    data, recipe = (None, source) if source.suffix == ".toml" else (split_path(source, split), None)
    folder = out if out is not None else runs.default_folder(source)
    segmenter = runs.train(
        data,
        recipe=recipe,
        minutes=minutes,
        start=start,
        folds=folds,
        out=folder,
        changes=changes or (),
        resume=resume,
        device=device,
        devices=int(devices) if devices.isdigit() else devices,
        nodes=nodes,
    )
    from attractor.training.ranks import is_first_process  # imports Lightning, which is not always installed

    if not is_first_process():
        return
    score = segmenter.model.description.score("validation", "mean")
    measured = "" if score is None else f" On the validation images its mean AP is {score:.3f}."
    say(f"The model is {folder / 'model.safetensors'}.{measured}")
    say(f"Use it: attractor segment IMAGE --model {shlex.quote(str(folder))}")


def _round(
    folder: Path, start: str | None, minutes: float | None, device: str, changes: list[str], *, folds: int, resume: bool
) -> None:
    """A round of training in a session."""
    from attractor.session import Session
    from attractor.session.rounds import MINUTES, train_round

    if folds or resume:
        raise InputError(
            f"{folder}: is a session; its rounds have neither --folds nor --resume. Give --out to train outside of it."
        )
    with Session(folder) as session:
        result = train_round(
            session, start=start, minutes=MINUTES if minutes is None else minutes, device=device, changes=changes
        )
    say(str(result))
    model = folder / "models" / f"round-{result.number}.safetensors"
    say(f"The new model is {model}.")
