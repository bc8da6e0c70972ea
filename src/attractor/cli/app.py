"""The application that commands are added to, and the options that several of them have."""

from __future__ import annotations

import importlib.util
from typing import Annotated

import typer

import attractor
from attractor.errors import InputError

app = typer.Typer(
    name="attractor",
    help="Segment every single object of an image: nuclei, cells, leaves, cars.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps; auto takes the first of cuda, mps and cpu.")]
Engine = Annotated[
    str,
    typer.Option(
        help="What computes the network: torch, compiled (by torch, for each size of images: slow at first, then "
        "faster), or openvino (on a processor)."
    ),
]
Precision = Annotated[
    str,
    typer.Option(
        help="Of the network: float32, bfloat16, or auto for bfloat16 where the device is found to be much faster so."
    ),
]
Views = Annotated[
    bool,
    typer.Option("--tta", help="Average over eight views of the image (two of a photograph): better, but slower."),
]
Crop = Annotated[
    int | None, typer.Option(help="Score crops of this side in pixels, cut from the images, instead of the images.")
]
MaxObjects = Annotated[
    int | None, typer.Option(metavar="N", help="With --crop: leave out crops with more objects than this.")
]


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"attractor {attractor.__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def need_for_training() -> None:
    """Refuse to begin where what trains is not installed."""
    missing = [name for name in ("lightning", "tensorboard") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'Training needs {" and ".join(missing)}, not installed here: pip install "attractor[train]".')
