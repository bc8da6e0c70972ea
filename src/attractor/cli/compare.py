"""`attractor compare`: several models on the same images."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

import attractor
from attractor.cli.annotated import annotated_images
from attractor.cli.app import Crop, Device, Dtype, Engine, MaxObjects, Metric, Split, Views
from attractor.cli.printing import progress, say, show, write_json

if TYPE_CHECKING:
    from attractor.comparison import Comparison
    from attractor.metrics.metric import Row, Summary

ROOM = 4  # columns of scores


def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="At least two names, files or training folders.", show_default=False),
    ],
    data: Annotated[Path, typer.Option(metavar="DATASET", help="Annotated images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the page and the numbers.")] = Path("comparison"),
    split: Split = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN", help="Also score each group of images with the same value in this column of images.csv."
        ),
    ] = None,
    n_shown: Annotated[
        int, typer.Option("--images", metavar="N", min=0, help="Show the N images on which models disagree most.")
    ] = 6,
    metric: Metric = "average_precision",
    crop: Crop = None,
    max_objects: MaxObjects = None,
    tta: Views = False,
    device: Device = "auto",
    engine: Engine = "torch",
    dtype: Dtype = "float32",
) -> None:
    """Compare models on the same annotated images: scores, speed, memory and pictures on one page.

    Each model is tested against the first one.
    """
    from attractor import comparison, evaluation
    from attractor.datasets import split_path
    from attractor.prediction.folder import make_writable

    comparison.check_page()
    data = split_path(data, split)
    images = annotated_images(data, crop, max_objects)
    groups = evaluation.groups_of(images, by)
    comparison.check_models(models, images, metric=metric, device=device, engine=engine, dtype=dtype, tta=tta)
    make_writable(out)
    with progress("comparing", len(models) * len(images)) as (advance, _):
        result = comparison.compare(
            models,
            images,
            title=data.resolve().name,
            remark="" if crop is None else _about_crops(crop),
            metric=metric,
            by=groups,
            tta=tta,
            device=device,
            engine=engine,
            dtype=dtype,
            n_shown=n_shown,
            report=advance,
        )
    command = _typed(
        models, {"data": data, "out": out, "by": by, "images": n_shown, "metric": metric, "crop": crop,
                 "max-objects": max_objects, "tta": tta, "device": device, "engine": engine, "dtype": dtype}
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
        "narrower than intervals over whole images would be."
    )


def _typed(arguments: Sequence[str], options: dict[str, object]) -> str:
    """The command that repeats this comparison."""
    words = ["attractor", "compare", *arguments]
    for name, value in options.items():
        if value is True:
            words.append(f"--{name}")
        elif value is not None and value is not False:
            words += [f"--{name}", str(value)]
    return shlex.join(words)


def _side_by_side(result: Comparison) -> Table:
    """A row for each model: the headline, the values beside it, counts and time."""
    from attractor.metrics.metric import Amount
    from attractor.tables import plain_table, shown

    rows = [_values(model.summary, result.headline) for model in result.models]
    table = plain_table("Scores with 95 % intervals; |DiC| is objects miscounted per image")
    table.add_column("", max_width=20, overflow="fold")
    for name in (*rows[0], "|DiC|", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for model, row in zip(result.models, rows, strict=True):
        counts = shown(Amount(model.leaves.absolute_difference_in_count))
        table.add_row(escape(model.name), *map(shown, row.values()), counts, f"{model.seconds:.2f} s")
    return table


def _values(summary: Summary, headline: str) -> Row:
    """The shares in the overview that has the headline: the headline and as many others as there is room for."""
    from attractor.metrics.bootstrap import Interval

    row = next(overview.row for overview in summary.overviews() if headline in overview.row)
    shares = [heading for heading, cell in row.items() if isinstance(cell, Interval)]
    others = [heading for heading in shares if heading != headline][: ROOM - 1]
    return {heading: row[heading] for heading in shares if heading in (headline, *others)}
