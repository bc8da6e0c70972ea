"""`attractor compare`: several models on the same images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

import attractor
from attractor.cli.annotated import annotated_images
from attractor.cli.app import Crop, Device, MaxObjects, Split, Views
from attractor.cli.printing import progress, say, show, write_json
from attractor.wording import share

if TYPE_CHECKING:
    from attractor.comparison import Comparison


def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Names, files or training folders; at least two.", show_default=False),
    ],
    data: Annotated[Path, typer.Option(metavar="DATASET", help="Annotated images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the page and all numbers.")] = Path("comparison"),
    split: Split = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Score each value of this column of images.csv, too.")
    ] = None,
    n_shown: Annotated[
        int, typer.Option("--images", metavar="N", min=0, help="Show this many images, greatest disagreement first.")
    ] = 6,
    crop: Crop = None,
    max_objects: MaxObjects = None,
    tta: Views = False,
    device: Device = "auto",
) -> None:
    """Compare models on the same annotated images: scores, speed, memory and pictures on one page.

    Each model is tested against the first one given.
    """
    from attractor import comparison, evaluation
    from attractor.datasets import split_path
    from attractor.prediction.folder import make_writable

    comparison.check_page()
    data = split_path(data, split)
    images = annotated_images(data, crop, max_objects)
    groups = evaluation.groups_of(images, by)
    comparison.check_models(models, images, device=device, tta=tta)
    make_writable(out)
    with progress("comparing", len(models) * len(images)) as (advance, _):
        result = comparison.compare(
            models,
            images,
            title=data.resolve().name,
            remark="" if crop is None else _about_crops(crop),
            by=groups,
            tta=tta,
            device=device,
            n_shown=n_shown,
            report=advance,
        )
    command = _typed(
        models, {"data": data, "out": out, "by": by, "images": n_shown, "crop": crop, "max-objects": max_objects,
                 "tta": tta, "device": device}
    )  # fmt: skip
    comparison.write_page(result, out / "index.html", command=command)
    content = {"attractor": attractor.__version__, "command": command, **comparison.as_json(result)}
    write_json(out / "comparison.json", content)
    show(_side_by_side(result))
    for pair in result.pairs:
        say(pair.verdict)
    say(f"The page is {out / 'index.html'}; all numbers are in {out / 'comparison.json'}.")


def _about_crops(size: int) -> str:
    return (
        f"The pictures are crops of {size} x {size} pixels. Crops of one image resemble each other, so intervals are "
        "narrower than those over images would be."
    )


def _typed(arguments: Sequence[str], options: dict[str, Any]) -> str:
    """The command that gives this comparison again."""
    words = ["attractor", "compare", *arguments]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _side_by_side(result: Comparison) -> Table:
    """A row for each model."""
    from attractor.metrics.average_precision import SHOWN
    from attractor.metrics.metric import Amount
    from attractor.tables import plain_table, shown

    table = plain_table("AP by image, with 95 % intervals; |DiC| is objects miscounted an image")
    table.add_column("", max_width=20, overflow="fold")
    for name in (*(f"AP {share(t)[:-1]}" for t in SHOWN), "mean AP", "|DiC|", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in result.models:
        summary = model.summary
        at = [summary.by_image.at(summary.index(threshold)) for threshold in SHOWN]
        shares = [shown(value) for value in (*at, summary.mean_average_precision)]
        counts = shown(Amount(model.leaves.absolute_difference_in_count))
        table.add_row(model.name, *shares, counts, f"{model.seconds:.2f} s")
    return table
