"""The commands, each a few lines over one call.

Exit codes: 0, all was done; 1, some images failed and each is named on stderr, or a data set has errors; 2, the call
itself is wrong; 130, stopped by Ctrl-C. What a user can mend is said in one line, without a traceback. What computes is
imported inside the commands, so that `attractor --help` is there at once.
"""

from __future__ import annotations

import gc
import importlib.util
import json
import shlex
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer
from rich.console import Console
from rich.table import Table

import attractor
from attractor.errors import InputError
from attractor.tables import count_with_interval, plain_table, three, with_interval

if TYPE_CHECKING:
    from attractor.comparison import Comparison
    from attractor.datasets import Dataset, Sample
    from attractor.instances import Instances
    from attractor.model import Description
    from attractor.prediction.folder import Outcome
    from attractor.prediction.image import Segmenter

T = TypeVar("T")

METRIC_NAMES = (
    "average_precision (of microscopy: AP over IoU, by image and pooled), coco, cityscapes, pascal_voc, panoptic (PQ), "
    "aji, boundary (F), cvppp (best Dice and counts, of leaves), average_recall (of the best n proposals)"
)

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


def run() -> int:
    """The command line as a process of its own; gives the exit code.

    Python's collector would look again and again at the libraries while they are loaded, and once more at the end:
    nearly half the time of a short call.
    """
    gc.set_threshold(100_000)
    code = main()
    gc.freeze()
    return code


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default that of the process; gives the exit code."""
    try:
        app(arguments, prog_name="attractor")
    except InputError as error:
        _complain(str(error))
        return 2
    except KeyboardInterrupt:
        return 130
    except SystemExit as end:
        return 130 if _is_interrupt(end) else int(end.code or 0)
    return 0


def _is_interrupt(error: BaseException | None) -> bool:
    """Whether Ctrl-C stands behind it: Typer and Lightning end the process then, each by a code of its own."""
    while error is not None and not isinstance(error, KeyboardInterrupt):
        error = error.__context__
    return error is not None


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


# --- segment ----------------------------------------------------------------------------------------------------------


@app.command()
def segment(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE|FOLDER", help="Images, and folders of images.")],
    model: Annotated[
        str, typer.Option(help="A model's name (see `attractor models`), file, or training folder.")
    ] = "nuclei",
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("out"),
    device: Device = "auto",
    engine: Engine = "torch",
    precision: Precision = "auto",
    object_size: Annotated[float | None, typer.Option(help="Typical diameter of your objects in pixels.")] = None,
    tile: Annotated[
        int | None, typer.Option(help="Compute in tiles of this side, a multiple of 8, to save memory.")
    ] = None,
    tta: Views = False,
    thresholds: Annotated[
        list[str] | None,
        typer.Option("--threshold", metavar="NAME=VALUE", help="Change one, as in seed_threshold=0.6 to find more."),
    ] = None,
    formats: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="LIST",
            help="What to write of each image, commas between: labels, overlay, csv, parquet, coco, geojson, rois "
            "(ImageJ), cityscapes.",
        ),
    ] = "labels,overlay,csv",
    pixel_size: Annotated[
        str | None,
        typer.Option(
            metavar="UM",
            help="Micrometres a pixel, 0.5 or 0.5x0.25 (row x column), for lengths in the table.",
            show_default="the file's own",
        ),
    ] = None,
) -> None:
    """Find the objects of images: label image, picture with outlines, and table of objects for each."""
    from attractor.images import find_images
    from attractor.prediction.folder import segment_files
    from attractor.prediction.formats import DEFAULT_FORMATS

    chosen = [name.strip() for name in formats.split(",") if name.strip()]
    size = _sides(pixel_size)
    files = find_images(images)
    segmenter = attractor.load(
        model, device=device, thresholds=_numbers(thresholds or ()), engine=engine, precision=precision
    )
    with _progress("segmenting", len(files)) as (advance, console):

        def report(outcome: Outcome) -> None:
            advance()
            if outcome.problem is not None:
                _complain(outcome.problem, console)

        outcomes = segment_files(
            segmenter,
            files,
            out,
            tta=tta,
            object_size=object_size,
            tile=tile,
            formats=chosen,
            pixel_size=size,
            report=report,
        )
    done = [outcome for outcome in outcomes if outcome.problem is None]
    n_objects = sum(outcome.n_objects for outcome in done)
    if done:
        found = f"Found {_many(n_objects, 'object')} in {_many(len(done), 'image')}"
        is_usual = tuple(chosen) == DEFAULT_FORMATS
        _say(
            f"{found}; {'labels, overlays and tables' if is_usual else 'results as ' + ', '.join(chosen)} are in {out}."
        )
    if len(done) < len(outcomes):
        _complain(f"{len(outcomes) - len(done)} of {_many(len(outcomes), 'image')} could not be segmented.")
        raise typer.Exit(1)


def _sides(size: str | None) -> tuple[float, float] | None:
    """Micrometres along a pixel's height and width, given as one number, or two with an x between."""
    if size is None:
        return None
    try:
        sides = [float(side) for side in size.lower().split("x")]
        height, width = sides if len(sides) > 1 else sides * 2
    except ValueError as error:
        raise InputError(
            f"--pixel-size {size}: give micrometres a pixel, as in 0.5, or 0.5x0.25 for row and column."
        ) from error
    return height, width


def _numbers(settings: Sequence[str]) -> dict[str, float]:
    """Numbers given as name=value."""
    numbers = {}
    for setting in settings:
        name, _, value = setting.partition("=")
        try:
            numbers[name] = float(value)
        except ValueError as error:
            raise InputError(f"--threshold {setting}: write it as name=number, as in seed_threshold=0.6.") from error
    return numbers


# --- train ------------------------------------------------------------------------------------------------------------


@app.command()
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
    _need_for_training()
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
    _say(f"The model is {folder / 'model.safetensors'}.{measured}")
    _say(f"Use it: attractor segment IMAGE --model {shlex.quote(str(folder))}")


def _need_for_training() -> None:
    missing = [name for name in ("lightning", "tensorboard") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f'Training needs {" and ".join(missing)}, not installed here: pip install "attractor[train]".')


# --- evaluate ---------------------------------------------------------------------------------------------------------


@app.command()
def evaluate(
    model: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help="A model's name, file, or training folder.", show_default=False),
    ] = None,
    dataset: Annotated[
        Path | None, typer.Argument(metavar="DATASET", help="Annotated images.", show_default=False)
    ] = None,
    found: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Score this instead of a model: a folder of label images, a COCO results JSON, a Cityscapes results "
            "folder, a Data Science Bowl submission.",
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="Annotated images, with --found.")] = None,
    metric: Annotated[str, typer.Option(metavar="NAME", help=f"How to score: {METRIC_NAMES}.")] = "average_precision",
    classes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Score these classes alone, commas between; all else is background."),
    ] = None,
    ignore_classes: Annotated[
        bool, typer.Option("--ignore-classes", help="Leave classes out of account: every object is of one class.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Also write what was found as the official tool reads it: a JSON for COCO, a folder for Cityscapes, a "
            "CSV for the Data Science Bowl.",
        ),
    ] = None,
    by: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Score each value of this column of images.csv, too.")
    ] = None,
    crop: Crop = None,
    max_objects: MaxObjects = None,
    tta: Views = False,
    device: Device = "auto",
    engine: Engine = "torch",
    precision: Precision = "float32",
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="File for all numbers.")] = Path("evaluation.json"),
) -> None:
    """Score a model, or results made elsewhere (--found PATH --truth DATASET), on annotated images."""
    _check_what_is_scored(model, dataset, found, truth, tta)
    _check_files(out, results, whole=crop is None and found is None)
    if classes is not None and ignore_classes:
        raise InputError(
            "--classes chooses classes, --ignore-classes leaves them out of account; give one or the other."
        )
    from attractor import evaluation, tables
    from attractor.datasets.classes import as_one_class

    scoring = evaluation.metric_named(metric)
    if found is not None and scoring.n_proposals:
        raise InputError(f"{metric} ranks a model's proposals, which label images do not hold; give a model instead.")
    path = Path(truth or dataset or "")
    images = _images(path, crop, max_objects, classes, ignore_classes)
    if found is not None and len(images.class_names) > 1 and evaluation.holds_no_classes(found, images):
        _complain("Note: label images hold no classes, so those of the data set are left out of account.")
        images = as_one_class(images)
    groups = _column(images, by, path)
    write = None if results is None else _writer(results, images)
    segmenter = model and attractor.load(model, device=device, engine=engine, precision=precision)
    pairs = _predictions(segmenter, images, metric, tta) if segmenter else evaluation.found_in(str(found), images)
    result = evaluation.evaluate(_shown("scoring", pairs, len(images)), by=groups, metric=metric, results=write)
    _print(*tables.TABLES[metric](result, by, images.class_names))
    if n_left_out := len(images) - len(result.images):
        _say(f"{_many(n_left_out, 'image')} without a true object left out.")
    call = {"model": model, "dataset": str(path), "found": found and str(found), "metric": metric, "by": by, "tta": tta}
    if segmenter:
        call |= {"device": segmenter.device.type, "engine": segmenter.engine, "precision": segmenter.precision}
    cut = {} if crop is None else {"crop": crop, "max_objects": max_objects}
    chosen = {"classes": classes, "ignore_classes": ignore_classes, "class_names": list(images.class_names)}
    _write_json(out, {"attractor": attractor.__version__, "call": call | cut | chosen, **evaluation.as_json(result)})
    if results is not None:
        _say(f"What was found is in {results}.")
    _say(f"All numbers are in {out}.")


def _check_what_is_scored(
    model: str | None, dataset: Path | None, found: Path | None, truth: Path | None, tta: bool
) -> None:
    """Refuse anything but a model and a data set, or somebody's results and the truth."""
    if found is None and (model is None or dataset is None or truth is not None):
        raise InputError("Give a model and a data set, or --found with results and --truth with a data set.")
    if found is not None and (truth is None or model is not None or tta):
        raise InputError("With --found goes --truth, the annotated images, and neither a model nor --tta.")


def _check_files(out: Path, results: Path | None, *, whole: bool) -> None:
    """Refuse files that cannot be written, or results of anything but what a model found in whole images."""
    if results is not None and not whole:
        raise InputError("--results writes what a model found in whole images; leave out --crop and --found.")
    if not out.resolve().parent.is_dir():
        raise InputError(f"{out}: there is no such folder; make it, or give another --out.")
    if results is not None and results.resolve() == out.resolve():
        raise InputError(f"{out}: is the file for all numbers, too; give --results or --out another name.")


def _images(
    path: Path, crop: int | None, max_objects: int | None, classes: str | None = None, ignore_classes: bool = False
) -> Dataset:
    """The data set at a path with the classes asked for, or its crops, of which one line then says how many."""
    from attractor.datasets import Crops, cropped, open_dataset
    from attractor.datasets.classes import as_one_class, with_classes

    dataset = open_dataset(path)
    if classes is not None:
        dataset = with_classes(dataset, [name.strip() for name in classes.split(",") if name.strip()])
    elif ignore_classes:
        dataset = as_one_class(dataset)
    images = cropped(dataset, crop, max_objects)
    if isinstance(images, Crops):
        _say(images.in_words())
    return images


def _writer(path: Path, images: Dataset) -> Callable[[Iterable[tuple[str, Instances]]], None]:
    """What writes results to a path; that it can is found out before the first image is computed."""
    from attractor import evaluation

    evaluation.check_results(path, images)
    return lambda found: evaluation.write_results(path, found, images)


def _predictions(segmenter: Segmenter, images: Dataset, metric: str, tta: bool) -> Iterator[tuple[Sample, Instances]]:
    """The true objects with those that a model finds or proposes."""
    from attractor.evaluation import metric_named, scored_by

    scoring = metric_named(metric)
    segmenter.check_options(tta=tta, n_proposals=scoring.n_proposals)
    if note := _note_on_classes(segmenter.class_names, images.class_names, scoring.has_classes, metric):
        _complain(f"Note: {note}")
    return scored_by(metric, segmenter, images, tta=tta)


def _note_on_classes(own: Sequence[str], true: Sequence[str], has_classes: bool, metric: str) -> str:
    """What to know where the classes of a model and a data set differ, or the metric knows none."""
    if max(len(own), len(true)) == 1 or (has_classes and tuple(own) == tuple(true)):
        return ""
    if not has_classes:
        return f"{metric} knows no classes, so they are left out of account."
    if len(true) == 1 and true[0] not in own:
        return "objects of all the model's classes are scored as one."
    if not set(own) & set(true):
        return (
            f"the model's classes are {', '.join(own)}, those of the data set {', '.join(true)}; they are compared in "
            "this order."
        )
    lacking = [name for name in true if name not in own]
    extra = [name for name in own if name not in true]
    parts = [f"the model lacks {', '.join(lacking)}, of which nothing can be found"] if lacking else []
    parts += [f"what it finds of {', '.join(extra)} is left out"] if extra else []
    return "; ".join(parts) + "." if parts else ""


def _column(dataset: Dataset, by: str | None, path: Path) -> dict[str, str] | None:
    """The group of each image."""
    if by is None:
        return None
    if by not in dataset.columns:
        known = ", ".join(dataset.columns) or "none; write some into images.csv beside the images"
        raise InputError(f"{path}: has no column {by!r} to score by; its columns: {known}.")
    return dataset.columns[by]


def _write_json(path: Path, content: dict[str, Any]) -> None:
    from attractor.images import atomic

    with atomic(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


# --- compare ----------------------------------------------------------------------------------------------------------


@app.command()
def compare(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Names, files or training folders; at least two.", show_default=False),
    ],
    data: Annotated[Path, typer.Option(metavar="DATASET", help="Annotated images.", show_default=False)],
    out: Annotated[Path, typer.Option(help="Folder for the page and all numbers.")] = Path("comparison"),
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
    from attractor import comparison
    from attractor.prediction.folder import make_writable

    comparison.check_page()
    images = _images(data, crop, max_objects)
    groups = _column(images, by, data)
    comparison.check_models(models, images, device=device, tta=tta)
    make_writable(out)
    with _progress("comparing", len(models) * len(images)) as (advance, _):
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
    _write_json(out / "comparison.json", content)
    _print(_side_by_side(result))
    for pair in result.pairs:
        _say(pair.verdict)
    _say(f"The page is {out / 'index.html'}; all numbers are in {out / 'comparison.json'}.")


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
    from attractor.comparison import SHOWN

    table = plain_table("AP by image, with 95 % intervals; |DiC| is objects miscounted an image")
    table.add_column("", max_width=20, overflow="fold")
    for name in (*(f"AP {three(t)[:-1]}" for t in SHOWN), "mean AP", "|DiC|", "time"):
        table.add_column(name, justify="right", no_wrap=True)
    for model in result.models:
        summary = model.summary
        at = [summary.by_image.at(summary.index(threshold)) for threshold in SHOWN]
        shares = [with_interval(value) for value in (*at, summary.mean_average_precision)]
        counts = count_with_interval(model.leaves.absolute_difference_in_count)
        table.add_row(model.name, *shares, counts, f"{model.seconds:.2f} s")
    return table


# --- export -----------------------------------------------------------------------------------------------------------


@app.command()
def export(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, file, or training folder.", show_default=False)
    ],
    target: Annotated[
        str,
        typer.Option("--format", metavar="NAME", help="onnx, openvino (an .xml and a .bin) or torch-export (a .pt2)."),
    ] = "onnx",
    out: Annotated[Path | None, typer.Option(metavar="FILE", show_default="the model's name, here")] = None,
) -> None:
    """Write a model for programs without attractor: images in, raw maps out, all numbers for grouping in the file."""
    from attractor import export as exporting
    from attractor.model import Model, find_model

    file = find_model(model)
    name = file.resolve().parent.name if file.name == "model.safetensors" else file.stem
    path = out if out is not None else Path(name + exporting.suffix_of(target))
    exporting.check_export(path, target=target)
    maps = exporting.export(Model.load(file), path, target=target)
    _say(f"The model is {path}: it takes {exporting.INPUT} and gives {', '.join(maps)}.")


# --- check, convert, models, demo -------------------------------------------------------------------------------------


@app.command()
def check(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Annotated images.", show_default=False)],
    model: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|FILE|RECIPE.toml",
            help="Say, too, what of the data this model, or one trained by this recipe, cannot hold.",
            show_default=False,
        ),
    ] = None,
) -> None:
    """Say what is wrong with a data set, what is in it, and which settings suit it."""
    from attractor.datasets import checking

    if not dataset.exists():
        raise InputError(f"{dataset}: no such data set; check the name and the folder you are in.")
    description = _described(model) if model is not None else None
    report = checking.check(dataset)
    if description is not None and report.class_names:
        report = report.for_model(*_holds(description, report.class_names))
    for line in report.lines():
        _say(line)
    if report.errors:
        raise typer.Exit(1)


def _described(model: str) -> Description:
    """What a model says of itself, or a recipe of its model; without class names where the recipe names none."""
    from attractor.model import Description, find_model, read_description

    if Path(model).suffix != ".toml":
        return read_description(find_model(model))
    _need_for_training()
    from attractor.recipe import read_recipe

    recipe = read_recipe(model)
    section = recipe.model
    return Description(
        method=section.method,
        network=section.network,
        channels=section.channels,
        class_names=tuple(section.classes or recipe.data.classes or ()),
        options=section.options,
        network_options=section.network_options,
    )


def _holds(description: Description, of_data: tuple[str, ...]) -> tuple[tuple[str, ...], int | None]:
    """The classes that a model tells apart, by default those of the data, and how many objects of an image it holds."""
    import dataclasses

    from attractor.model import Model

    described = dataclasses.replace(description, class_names=description.class_names or of_data)
    return described.class_names, getattr(Model(described).method, "max_instances", None)


@app.command()
def convert(
    dataset: Annotated[Path, typer.Argument(metavar="DATASET", help="Annotated images.", show_default=False)],
    out: Annotated[Path, typer.Argument(metavar="OUT", help="Folder to write, new or empty.", show_default=False)],
    to: Annotated[
        str,
        typer.Option(
            metavar="LAYOUT",
            help="label-images, coco, cityscapes, pascal-voc, cvppp, dsb2018, geojson (QuPath), labelme or imagej.",
            show_default=False,
        ),
    ],
    classes: Annotated[
        str | None, typer.Option(metavar="LIST", help="Keep these classes alone, commas between.")
    ] = None,
) -> None:
    """Write a data set in another layout, and say what that cannot keep."""
    from attractor.datasets import converting

    images = _images(dataset, None, None, classes)
    with _progress("converting", len(images)) as (advance, _):
        lost = converting.convert(images, out, to, report=advance)
    _say(f"{_many(len(images), 'image')} written to {out} as {to}.")
    for sentence in lost:
        _say(f"Not kept: {sentence}")


@app.command()
def models() -> None:
    """List the models that come with attractor: what they were trained on, and how good they are."""
    from attractor.model import read_description
    from attractor.weights import MODELS

    if not MODELS:
        _say("No model comes with this installation; `attractor train DATASET` makes one.")
        return
    table = plain_table()
    for name in ("model", "method", "classes", "object size", "file"):
        table.add_column(name, overflow="fold")  # a name that is cut off cannot be given
    remarks = []
    for name, path in MODELS.items():
        description = read_description(path)
        size = f"{description.object_size:g} px" if description.object_size else "any"
        classes = ", ".join(description.class_names)
        file = f"{path.stat().st_size / 1e6:.1f} MB"
        table.add_row(name, description.method, classes, size, file)
        remarks.append(f"{name}: {description.about} {_scores_in_words(description.scores)}".strip())
    _print(table)
    for remark in remarks:
        Console().print(remark, markup=False, highlight=False)


def _scores_in_words(scores: dict[str, Any]) -> str:
    """Scores of each set of images, as in "Scores on test images: mean .55, ap50 .80."."""
    sets = [(name, values) for name, values in sorted(scores.items()) if isinstance(values, dict)]
    return " ".join(
        f"Scores on {name} images: {', '.join(f'{key} {three(value)}' for key, value in values.items())}."
        for name, values in sets
        if all(isinstance(value, int | float) for value in values.values())
    )


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("demo"), device: Device = "auto"
) -> None:
    """Segment the nuclei of a stained tissue section, an image that comes with scikit-image."""
    import skimage.data
    from skimage.color import rgb2hed

    from attractor.images import read_image, write_image
    from attractor.prediction.folder import make_writable, write_result

    # Nuclei are blue here and all else brown, which no training image was: the blue stain alone looks familiar, and the
    # threshold that was tuned for familiar images is lowered.
    segmenter = attractor.load("nuclei", device=device, thresholds={"seed_threshold": 0.5})
    make_writable(out)
    # read as a file, since skimage.data.immunohistochemistry() downloads it where it is not installed
    picture = read_image(Path(skimage.data.__file__).parent / "ihc.png")
    image = out / "immunohistochemistry.png"
    write_image(image, picture)
    found = segmenter.segment(rgb2hed(picture)[..., 0], tta=True)
    write_result(picture, found, segmenter.class_names, out, image.name)
    stem = out / image.stem
    _say(f"Found {len(found)} nuclei in {image}, a section of colon from scikit-image, by their blue stain.")
    _say(f"  {stem}_overlay.png   the picture with an outline around each\n  {stem}_labels.tif    the label image")
    _say(f"  {stem}_objects.csv   a table of all nuclei")


# --- what is printed --------------------------------------------------------------------------------------------------


def _say(line: str) -> None:
    """A line on stdout, as it is."""
    Console().print(line, markup=False, highlight=False, soft_wrap=True)


def _complain(line: str, console: Console | None = None) -> None:
    """One line on stderr."""
    console = console or Console(stderr=True)
    console.print(" ".join(line.splitlines()), markup=False, highlight=False, soft_wrap=True)


def _print(*tables: Table) -> None:
    for table in tables:
        Console().print(table)


def _many(n: int, noun: str) -> str:
    return f"{n:,} {noun}" + ("" if n == 1 else "s")


@contextmanager
def _progress(what: str, total: int) -> Iterator[tuple[Callable[[], None], Console]]:
    """A bar on stderr where that is a terminal: what to call after each step, and where to print meanwhile."""
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task), console


def _shown(what: str, items: Iterable[T], total: int) -> Iterator[T]:
    """The items, with a bar."""
    with _progress(what, total) as (advance, _):
        for item in items:
            yield item
            advance()
