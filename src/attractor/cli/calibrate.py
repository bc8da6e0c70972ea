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
            metavar="IMAGE|FOLDER...",
            help="Images like those to segment; they need no annotations.",
            show_default=False,
        ),
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The model file to write.", show_default=False)],
    crops: Annotated[int, typer.Option(metavar="N", help="Crops of the images to look at.")] = 300,
) -> None:
    """Prepare a model for computing in eight bits (--engine openvino --dtype int8)."""
    from attractor.calibration import calibrate
    from attractor.description import find_model, is_half
    from attractor.images import check_folder_of, find_images
    from attractor.model import Model
    from attractor.networks.eight_bits import PASSES

    if out.suffix != ".safetensors":
        raise InputError(f"{out}: model files end in .safetensors; name it {out.stem}.safetensors.")
    check_folder_of(out)
    file = find_model(model)
    loaded = Model.load(file)
    files = [file for path in images for file in find_images([path]).images]  # those of two folders may share a name
    with bar("looking at crops", PASSES * crops) as (update, _):
        ranges = calibrate(loaded, files, crops=crops, report=lambda: update(advance=1))
    loaded.save(out, half=is_half(file), ranges=ranges)
    say(f"The model is {out}: use it with --engine openvino --dtype int8.")
