"""Run each model, score it, and test it against the first."""

from __future__ import annotations

import dataclasses
import datetime
import platform
import statistics
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

import attractor
from attractor.comparison import running
from attractor.comparison.pictures import disagreements
from attractor.comparison.records import Compared, Comparison, Footprint, Measured
from attractor.comparison.verdict import against_first
from attractor.datasets import Dataset
from attractor.description import Description, find_model, read_description
from attractor.errors import InputError
from attractor.evaluation import metric_named, summaries_of
from attractor.images import as_channels
from attractor.metrics import Metric, cvppp
from attractor.model import Model
from attractor.prediction.engines import EIGHT_BITS, check_engine
from attractor.prediction.image import Segmenter, check_calibrated, choose_device


def compare(
    models: Sequence[str | Path],
    dataset: Dataset,
    *,
    title: str = "the data set",
    remark: str = "",
    metric: str = "average_precision",
    by: Mapping[str, str] | None = None,
    tta: bool = False,
    device: str = "auto",
    engine: str = "torch",
    dtype: str = "float32",
    n_shown: int = 6,
    own_process: bool = True,
    report: Callable[[], None] = lambda: None,
) -> Comparison:
    """Run each model on every image; score, time and test the models.

    If each model has its own process, the calling script must guard its main part with `if __name__ == "__main__":`,
    since such a process begins by importing the script.

    Args:
        models: names, files or training folders; at least two. Each one is tested against the first.
        dataset: annotated images; the same for all.
        title: what to call the data set.
        remark: a sentence on the data set, for the page.
        metric: a name in METRICS.
        by: from image name to the group it is summarised in.
        tta: average over eight views of each image.
        device: as for `Segmenter`.
        engine: as for `Segmenter`.
        dtype: as for `Segmenter`; in "float32" scores are those of `attractor evaluate`.
        n_shown: how many images to draw, those with the greatest disagreement first.
        own_process: whether each model gets a process of its own; otherwise its memory is not known.
        report: called after each image of each model.

    Raises:
        InputError: if there are fewer than two models or one cannot be used on these images, or memory runs out.
    """
    how = {"device": device, "engine": engine, "dtype": dtype}
    scoring, files = metric_named(metric), check_models(models, dataset, metric=metric, tta=tta, **how)
    if n_shown < 0:
        raise InputError(f"The number of images to show is {n_shown}; give 0 or more.")
    names = _shown_names(models)
    with tempfile.TemporaryDirectory(prefix="attractor-") as folder:
        jobs = [
            running.Job(name, file, dataset, metric, tta, Path(folder) / str(index), **how)
            for index, (name, file) in enumerate(zip(names, files, strict=True))
        ]
        compared = tuple(_compared(job, scoring, by, own_process, report) for job in jobs)
        shown = disagreements(compared, scoring, dataset, [job.found for job in jobs], n_shown)
    return Comparison(
        dataset=title,
        remark=remark,
        class_names=dataset.class_names,
        metric=metric,
        headline=scoring.headline,
        tta=tta,
        date=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        versions=_versions(),
        models=compared,
        pairs=tuple(against_first(compared[0], other, scoring) for other in compared[1:]),
        shown=shown,
    )


def check_models(
    models: Sequence[str | Path],
    dataset: Dataset,
    *,
    metric: str = "average_precision",
    device: str = "auto",
    engine: str = "torch",
    dtype: str = "float32",
    tta: bool = False,
) -> list[Path]:
    """The files of the models, once it is clear that they can be compared; no weights are loaded and nothing runs.

    Raises:
        InputError: if there are fewer than two models, a file cannot be read, there is no such device, engine or
            dtype, classes differ where there are several, the first image's channels do not fit, a method lacks
            test-time augmentation or the proposals that the metric ranks, or eight bits are asked of a model that is
            not calibrated.
    """
    n_proposals = metric_named(metric).n_proposals
    if len(models) < 2:
        raise InputError(
            f"{len(models)} model{'s' * (len(models) != 1)} given; a comparison needs at least two. "
            "To score a single model, use `attractor evaluate`."
        )
    check_engine(engine, dtype, choose_device(device))
    files = [find_model(model).resolve() for model in models]
    described = dict(zip(map(str, models), map(read_description, files), strict=True))
    _check_classes({name: description.class_names for name, description in described.items()}, dataset)
    image = dataset[0].image
    for name, description in described.items():
        as_channels(image[:1, :1], description.channels, f"{name}: {dataset.names[0]}")
        _check_method(name, description, tta, n_proposals, in_eight_bits=dtype == EIGHT_BITS)
    return files


def _check_classes(of_models: dict[str, tuple[str, ...]], dataset: Dataset) -> None:
    """Refuse classes that differ, unless there is only one everywhere, whatever its name."""
    known = of_models | {"the data set": dataset.class_names}
    (first, expected), *others = known.items()
    for name, classes in others:
        if classes != expected and max(map(len, known.values())) > 1:
            raise InputError(
                f"The classes differ: {first} has {', '.join(expected)}, {name} has {', '.join(classes)}. "
                "Models can be compared only if they and the images have the same classes, in the same order."
            )


def _check_method(name: str, description: Description, tta: bool, n_proposals: int, *, in_eight_bits: bool) -> None:
    """Refuse a model that lacks what is asked of it."""
    if not (tta or n_proposals or in_eight_bits):
        return
    try:
        model = Model(description)
        if in_eight_bits:
            check_calibrated(model)
        Segmenter(model, device="cpu").check_options(tta=tta, n_proposals=n_proposals)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _shown_names(models: Sequence[str | Path]) -> list[str]:
    """What to call each model: its file's stem, or its folder if training named the file; equal names are numbered."""
    names = [_shown_name(model) for model in models]
    times, seen = Counter(names), Counter[str]()
    for place, name in enumerate(names):
        seen[name] += 1
        if times[name] > 1:
            names[place] = f"{name} ({seen[name]})"
    return names


def _shown_name(model: str | Path) -> str:
    path = Path(model)
    if path.suffix != ".safetensors":
        return path.resolve().name
    return path.resolve().parent.name if path.stem == "model" else path.stem


def _compared(
    job: running.Job, metric: Metric, by: Mapping[str, str] | None, own_process: bool, report: Callable[[], None]
) -> Compared:
    """One model on all images."""
    job.found.mkdir()
    measured: list[Measured] = []
    for part in running.in_own_process(job) if own_process else running.work(job):
        if isinstance(part, Footprint):
            footprint = part if own_process else dataclasses.replace(part, memory=None)
        else:
            measured.append(part)
            report()
    description = read_description(job.file)
    scores = [image.scores for image in measured if image.scores is not None]
    return Compared(
        name=job.name,
        file=str(job.file),
        file_bytes=job.file.stat().st_size,
        method=description.method,
        network=description.network,
        footprint=footprint,
        images=tuple(measured),
        summary=metric.summarise(scores),
        groups=summaries_of(metric, scores, by),
        leaves=cvppp.summarise([image.leaves for image in measured]),
        network_seconds=statistics.median(image.network_seconds for image in measured),
        grouping_seconds=statistics.median(image.grouping_seconds for image in measured),
    )


def _versions() -> dict[str, str]:
    return {
        "attractor": attractor.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }
