"""`attractor train`: a model by a recipe, or on a data set."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from attractor.cli.app import Device, need_for_training
from attractor.cli.printing import say

if TYPE_CHECKING:
    pass


def train(
    recipe: Annotated[
        Path, typer.Argument(metavar="RECIPE.toml|DATASET", help="How to train, or just the data.", show_default=False)
    ],
    start: Annotated[
        str | None, typer.Option("--from", metavar="MODEL", help="Begin with the weights of this model.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for all that is written.", show_default="runs/<name>")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the training in that folder.")] = False,
    device: Device = "auto",
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a key, as in training.epochs=2.")
    ] = None,
) -> None:
    """Train a model by a recipe, or on a data set, for which a recipe is then written."""
    need_for_training()
    from attractor.model import find_model, read_description
    from attractor.recipe import read_recipe, recipe_for, run

    if start is not None:
        find_model(start)
    if recipe.suffix == ".toml":
        begin = [f"model.start={json.dumps(start)}"] if start is not None else []
        wanted = read_recipe(recipe, [*(changes or ()), *begin])
    else:
        wanted = recipe_for(recipe, changes or (), start=start)
    folder = out if out is not None else Path("runs") / recipe.resolve().stem
    run(wanted, folder, resume=resume, device=device)
    scores = read_description(folder / "model.safetensors").scores.get("validation", {})
    measured = f" On the validation images its mean AP is {scores['mean']:.3f}." if "mean" in scores else ""
    say(f"The model is {folder / 'model.safetensors'}.{measured}")
    say(f"Use it: attractor segment IMAGE --model {shlex.quote(str(folder))}")
