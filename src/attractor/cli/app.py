"""The application that commands are added to, and the options that several commands share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer
import typer.core

import attractor
from attractor.errors import InputError

app = typer.Typer(
    name="attractor",
    help="Find and outline every single object in an image: nuclei, cells, leaves, cars.",
    context_settings={"help_option_names": ["-h", "--help"]},
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ModelName = Annotated[str, typer.Option(help="A model's name (see `attractor models`), file, or training folder.")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda or mps; auto is the first available of cuda, mps and cpu.")]
Engine = Annotated[
    str,
    typer.Option(
        help="What runs the network: torch, compiled (by torch, once for each image size: slow at first, then "
        "faster), or openvino (on the CPU)."
    ),
]
Dtype = Annotated[
    str,
    typer.Option(
        help="Type of the numbers in the network: float32, bfloat16, or auto, which is bfloat16 on devices that "
        "have instructions for it, and float32 elsewhere. int8 needs --engine openvino and a calibrated model "
        "(attractor calibrate)."
    ),
]
ObjectSize = Annotated[float | None, typer.Option(metavar="PX", help="Typical diameter of your objects in pixels.")]
Tile = Annotated[
    int | None, typer.Option(metavar="PX", help="To save memory, use tiles of this side, a multiple of 8.")
]
Thresholds = Annotated[
    list[str] | None,
    typer.Option("--threshold", metavar="NAME=VALUE", help="Change a threshold; seed_threshold=0.6 finds more, say."),
]
Views = Annotated[
    bool,
    typer.Option("--tta", help="Average over eight views of the image (two for photographs): better, but slower."),
]
Scales = Annotated[
    str,
    typer.Option(
        "--tta-scales",
        metavar="LIST",
        help="With --tta: also look at the image magnified so often, such as 1.1,1.25.",
        show_default=False,
    ),
]
WholeMasks = Annotated[
    bool,
    typer.Option(
        "--whole-masks",
        help="Where objects overlap, keep whole masks beside the label image (coco, geojson, rois, COCO's score).",
    ),
]
Metric = Annotated[str, typer.Option(metavar="NAME", help="How to score. {metrics}.")]
Crop = Annotated[
    int | None, typer.Option(metavar="PX", help="Score square crops with sides of PX pixels instead of whole images.")
]
Overlap = Annotated[
    str | None,
    typer.Option(
        metavar="RULE",
        help='Who is in front where objects overlap: "ignore", "smaller in front" or "later in front".',
        show_default="as a recipe made from the data has it",
    ),
]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Which split to read if a folder holds several, such as val.",
        show_default=False,
    ),
]
MaxObjects = Annotated[
    int | None, typer.Option(metavar="N", help="With --crop: leave out crops with more objects than this.")
]


def sides_of(size: str | None) -> tuple[float, ...] | None:
    """Micrometres along a pixel's sides, given as one number or as two or three with an x between them."""
    if size is None:
        return None
    try:
        sides = tuple(float(side) for side in size.lower().split("x"))
    except ValueError:
        sides = ()
    if len(sides) not in (1, 2, 3):
        raise InputError(
            f"--pixel-size {size}: give micrometres per pixel, such as 0.5, or 0.5x0.25 for height x width."
        )
    return sides if len(sides) > 1 else sides * 2


def numbers_of(settings: Sequence[str]) -> dict[str, float]:
    """Numbers given as name=value."""
    numbers = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise InputError(f"--threshold {setting}: write it as name=number, such as seed_threshold=0.6.") from error
    return numbers


def names_of(text: str) -> tuple[str, ...]:
    """Names separated by commas."""
    return tuple(name.strip() for name in text.split(",") if name.strip())


def scales_of(text: str) -> tuple[float, ...]:
    """The numbers that `--tta-scales` gives."""
    try:
        return tuple(float(part) for part in text.split(",") if part.strip())
    except ValueError as error:
        raise InputError(f"--tta-scales {text}: write numbers separated by commas, such as 1.1,1.25.") from error


def check_scales(scales: tuple[float, ...], *, tta: bool) -> None:
    """Refuse scales without views that they add to."""
    if scales and not tta:
        raise InputError("--tta-scales adds to the views that --tta averages over; give --tta, too.")


def _layouts() -> str:
    from attractor.datasets import DATASETS

    *most, last = DATASETS
    return f"{', '.join(most)} or {last}"


def _results_forms() -> str:
    from attractor.datasets.results import results_forms

    return "; ".join(f"{name}: {words}" for name, words in results_forms().items())


def _metrics() -> str:
    from attractor.metrics import FILM_METRICS, METRICS

    of_images = [f"{name}: {metric.about}" for name, metric in METRICS.items()]
    return "; ".join([*of_images, *(f"{name}: {metric.about} (of films)" for name, metric in FILM_METRICS.items())])


def _outputs() -> str:
    from attractor.prediction.outputs import outputs_in_words

    return outputs_in_words()


def _track_outputs() -> str:
    from attractor.tracking.outputs import track_outputs_in_words

    return track_outputs_in_words()


def _exports() -> str:
    from attractor.export import exports_in_words

    return exports_in_words()


NAMES: dict[str, Callable[[], str]] = {
    "layouts": _layouts,
    "results_forms": _results_forms,
    "metrics": _metrics,
    "outputs": _outputs,
    "track_outputs": _track_outputs,
    "exports": _exports,
}


class Command(typer.core.TyperCommand):
    """A command whose help may contain `{layouts}` or another key of NAMES, which stands for the names available.

    They are looked up only when somebody asks for help, because the modules that hold them are slow to import.
    """

    def format_help(self, ctx: Any, formatter: Any) -> None:  # Typer does not publish their types
        """Write the help with all names filled in."""
        for option in self.params:
            if isinstance(option, typer.core.TyperOption) and option.help:
                for name, names in NAMES.items():
                    if (place := f"{{{name}}}") in option.help:
                        option.help = option.help.replace(place, names())
        super().format_help(ctx, formatter)


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
