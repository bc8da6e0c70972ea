"""`attractor evaluate`: the score of a model, or of results made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import attractor
from attractor.cli.annotated import annotated_images
from attractor.cli.app import (
    Crop,
    Device,
    Dtype,
    Engine,
    MaxObjects,
    Metric,
    Scales,
    Split,
    Views,
    WholeMasks,
    check_scales,
    scales_of,
)
from attractor.cli.printing import complain, progress, say, show, with_progress, write_json
from attractor.errors import InputError
from attractor.wording import counted

if TYPE_CHECKING:
    from attractor.datasets import Dataset
    from attractor.evaluation import Evaluation
    from attractor.instances import Instances
    from attractor.prediction.image import Segmenter


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
            help="Score these results instead of a model: a folder of label images, or, for {results_forms}.",
        ),
    ] = None,
    truth: Annotated[Path | None, typer.Option(help="The annotated images that --found is scored against.")] = None,
    metric: Metric = "average_precision",
    classes: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Score only these classes, separated by commas; the rest is background."),
    ] = None,
    ignore_classes: Annotated[
        bool, typer.Option("--ignore-classes", help="Disregard classes: treat all objects as one class.")
    ] = False,
    results: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH",
            help="Also write what was found in the form that the official tool reads. For {results_forms}.",
        ),
    ] = None,
    split: Split = None,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="COLUMN",
            help="Also score each group of images with the same value in this column of images.csv; with COLUMN:16,64, "
            "with values up to 16, up to 64, and above.",
        ),
    ] = None,
    smallest: Annotated[
        int | None,
        typer.Option(metavar="N", help="True objects of fewer than N pixels count for nothing.", show_default=False),
    ] = None,
    crop: Crop = None,
    max_objects: MaxObjects = None,
    tta: Views = False,
    tta_scales: Scales = "",
    whole_masks: WholeMasks = False,
    device: Device = "auto",
    engine: Engine = "torch",
    dtype: Dtype = "float32",
    out: Annotated[Path, typer.Option(metavar="FILE.json", help="File for the numbers.")] = Path("evaluation.json"),
) -> None:
    """Score a model, or results made elsewhere (--found PATH --truth DATASET), on annotated images."""
    if _is_of_films(metric):
        return _evaluate_tracks(model, dataset, found, truth, metric, out)
    _check_what_is_scored(model, dataset, found, truth, tta or whole_masks)
    scales = scales_of(tta_scales)
    check_scales(scales, tta=tta)
    _check_files(out, results, whole=crop is None and found is None)
    _check_metric(metric, found)
    from attractor.datasets import split_path

    path = split_path(truth or dataset or "", split)
    images = annotated_images(path, crop, max_objects, classes, ignore_classes, smallest=smallest)
    call = {"model": model, "dataset": str(path), "found": found and str(found), "metric": metric, "by": by, "tta": tta}
    if model is not None:
        if results is not None:
            _check_results(results, images)
        segmenter = attractor.load(
            model, device=device, engine=engine, dtype=dtype, whole_masks=whole_masks, tta_scales=scales
        )
        result = _score_model(segmenter, images, metric, by, tta, results)
        call |= {"device": segmenter.device.type, "engine": segmenter.engine, "dtype": segmenter.dtype}
    else:
        images = _without_unknown_classes(images, str(found))
        result = _score_files(str(found), images, metric, by)
    asked = {"tta_scales": scales, "whole_masks": whole_masks}
    cut = {} if crop is None else {"crop": crop, "max_objects": max_objects}
    cut |= {} if smallest is None else {"smallest": smallest}
    chosen = {"classes": classes, "ignore_classes": ignore_classes, "class_names": list(images.class_names)}
    write_json(out, {"attractor": attractor.__version__, "call": call | asked | cut | chosen, **result.as_json()})
    _show(result, len(images), results, out)


def _is_of_films(metric: str) -> bool:
    from attractor.metrics import FILM_METRICS

    return metric in FILM_METRICS


def _evaluate_tracks(
    model: str | None, dataset: Path | None, found: Path | None, truth: Path | None, metric: str, out: Path
) -> None:
    """Score the tracks of films, print the tables, and write all numbers."""
    from attractor.evaluation import plain
    from attractor.tables import rendered
    from attractor.tracking.scoring import evaluate_films, n_frames

    if model is not None or dataset is not None or found is None or truth is None:
        raise InputError(
            f"{metric} scores the tracks of films: give --found with what `attractor track` wrote, and --truth with "
            "the true tracks."
        )
    _check_files(out, None, whole=False)
    with progress("scoring", n_frames(found, truth)) as (advance, _):
        result = evaluate_films(found, truth, metric=metric, report=advance)
    call = {"found": str(found), "truth": str(truth), "metric": metric}
    write_json(out, {"attractor": attractor.__version__, "call": call, "films": plain(result.films)})
    show(*map(rendered, result.tables()))
    say(f"All numbers are in {out}.")


def _score_model(
    segmenter: Segmenter, images: Dataset, metric: str, by: str | None, tta: bool, results: Path | None
) -> Evaluation:
    """The scores of a model; what it finds is also written, if wanted."""
    from attractor.datasets.results import write_results
    from attractor.evaluation import evaluate_model, metric_named

    if note := _note_on_classes(segmenter.class_names, images.class_names, metric_named(metric).has_classes, metric):
        complain(f"Note: {note}")

    def write(found: Iterable[tuple[str, Instances]]) -> None:
        write_results(str(results), found, images)

    with progress("scoring", len(images)) as (advance, _):
        return evaluate_model(
            segmenter, images, metric=metric, by=by, tta=tta, results=write if results else None, report=advance
        )


def _score_files(found: str, images: Dataset, metric: str, by: str | None) -> Evaluation:
    """The scores of results made elsewhere."""
    from attractor import evaluation
    from attractor.datasets.results import found_in

    groups = evaluation.groups_of(images, by)
    pairs = with_progress("scoring", found_in(found, images), len(images))
    return evaluation.evaluate(pairs, by=groups, column=by or "", class_names=images.class_names, metric=metric)


def _without_unknown_classes(images: Dataset, found: str) -> Dataset:
    """The images; without classes if the results are label images, which hold none."""
    from attractor.datasets.classes import as_one_class
    from attractor.datasets.results import holds_no_classes

    if len(images.class_names) < 2 or not holds_no_classes(found, images):
        return images
    complain("Note: label images hold no classes, so the classes of the data set are disregarded.")
    return as_one_class(images)


def _show(result: Evaluation, n_images: int, results: Path | None, out: Path) -> None:
    """Print the tables and say where everything is."""
    from attractor.tables import rendered

    show(*map(rendered, result.tables()))
    if n_left_out := n_images - len(result.images):
        say(f"Left out {counted(n_left_out, 'image')} without a true object.")
    if results is not None:
        say(f"What was found is in {results}.")
    say(f"All numbers are in {out}.")


def _check_what_is_scored(
    model: str | None, dataset: Path | None, found: Path | None, truth: Path | None, of_model: bool
) -> None:
    """Refuse anything but a model and a data set, or somebody's results and the truth without options of a model."""
    if found is None and (model is None or dataset is None or truth is not None):
        raise InputError("Give a model and a data set, or --found with results and --truth with a data set.")
    if found is not None and (truth is None or model is not None or of_model):
        raise InputError("--found needs --truth, the annotated images, and takes no model, --tta or --whole-masks.")


def _check_files(out: Path, results: Path | None, *, whole: bool) -> None:
    """Refuse files that cannot be written, and results that are not what a model found in whole images."""
    from attractor.images import check_folder_of

    if results is not None and not whole:
        raise InputError("--results writes what a model found in whole images; leave out --crop and --found.")
    check_folder_of(out)
    if results is not None and results.resolve() == out.resolve():
        raise InputError(f"{out}: the numbers go to a file of this name, too; give --results or --out another name.")


def _check_results(results: Path, images: Dataset) -> None:
    """Refuse results that cannot be written, before the first image is computed."""
    from attractor.datasets.results import check_results

    check_results(results, images)


def _check_metric(metric: str, found: Path | None) -> None:
    """Refuse a metric that does not exist, or that scores what files do not hold."""
    from attractor.evaluation import metric_named

    if metric_named(metric).n_proposals and found is not None:
        raise InputError(f"{metric} ranks a model's proposals, which label images do not hold; give a model instead.")


def _note_on_classes(own: Sequence[str], true: Sequence[str], has_classes: bool, metric: str) -> str:
    """What to know if the classes of a model and a data set differ, or the metric has no classes."""
    if max(len(own), len(true)) == 1 or (has_classes and tuple(own) == tuple(true)):
        return ""
    if not has_classes:
        return f"{metric} has no classes, so they are disregarded."
    if len(true) == 1 and true[0] not in own:
        return "objects of all the model's classes are scored as one."
    if not set(own) & set(true):
        return (
            f"the model's classes are {', '.join(own)}, those of the data set {', '.join(true)}; they are compared in "
            "this order."
        )
    lacking = [name for name in true if name not in own]
    extra = [name for name in own if name not in true]
    parts = [f"the model cannot find {', '.join(lacking)}"] if lacking else []
    parts += [f"what it finds of {', '.join(extra)} is left out"] if extra else []
    return "; ".join(parts) + "." if parts else ""
