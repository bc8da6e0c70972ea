"""`attractor calibrate`: a model that can be computed in eight bits."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from attractor.cli.printing import bar, say
from attractor.errors import InputError


def calibrate(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, file, or training folder.", show_default=False)
    ],
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE|FOLDER...", help="Images like those to segment; no annotations needed.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The model file to write.", show_default=False)],
    crops: Annotated[int, typer.Option(metavar="N", help="Crops of the images to look at.")] = 300,
) -> None:
    """Let a model be computed in eight bits, by --engine openvino --dtype int8: 1.7 times as fast as in bfloat16."""
    from attractor.calibration import calibrate
    from attractor.description import find_model, is_half
    from attractor.images import find_images
    from attractor.model import Model

    if out.suffix != ".safetensors":
        raise InputError(f"{out}: model files end in .safetensors; name it {out.stem}.safetensors.")
    if not out.resolve().parent.is_dir():
        raise InputError(f"{out}: there is no such folder; make it, or give another --out.")
    file = find_model(model)
    loaded = Model.load(file)
    paths = list(find_images(images).images)
    with bar("drawing crops", crops) as (update, _):
        ranges = calibrate(loaded, paths, crops=crops, report=lambda n: update(completed=n))
    loaded.save(out, half=is_half(file), ranges=ranges)
    say(f"The model is {out}: use it with --engine openvino --dtype int8.")
