"""`attractor export`: a model for programs without attractor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attractor.cli.printing import say


def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, file, or training folder.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="The format to write: {exports}."),
    ] = "onnx",
    out: Annotated[
        Path | None, typer.Option(metavar="FILE", help="File to write.", show_default="the model's name, here")
    ] = None,
) -> None:
    """Write a model for programs without attractor: images in, raw maps out, with all the numbers for grouping."""
    from attractor import export as exporting
    from attractor.description import find_model
    from attractor.model import Model

    file = find_model(model)
    name = file.resolve().parent.name if file.name == "model.safetensors" else file.stem
    path = out if out is not None else Path(name + exporting.suffix_of(target))
    exporting.check_export(path, target=target)
    maps = exporting.export(Model.load(file), path, target=target)
    say(f"The model is {path}: it takes {exporting.INPUT} and gives {', '.join(maps)}.")
