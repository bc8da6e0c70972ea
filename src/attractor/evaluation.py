"""How good a model, or somebody's label images, are on annotated images: validation and final score alike."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attractor.datasets import Dataset, Sample
from attractor.errors import InputError
from attractor.images import read_labels
from attractor.instances import Annotations, Instances
from attractor.metrics import METRICS, Metric
from attractor.prediction.image import Segmenter

FOUND_ENDINGS = ("_labels.tif", ".tif", ".tiff", ".png")  # of label images to score, in this order
SHOWN = (0.5, 0.75, 0.9)  # IoU thresholds of the table; the JSON has all ten
TUNING_PIXELS = 1 << 25  # of the images that thresholds are tuned on: their maps take some 700 MB


@dataclass(frozen=True)
class Evaluation:
    """Scores of every image, of all together, and of groups of them, in the records of the metric."""

    images: tuple[Any, ...]  # without those that the metric leaves out
    summary: Any
    groups: dict[str, Any]  # value of the column to its summary; empty without one


def metric_named(name: str) -> Metric:
    """The entry of METRICS.

    Raises:
        InputError: if there is none of this name; the message lists those that there are.
    """
    if name not in METRICS:
        raise InputError(f'There is no metric "{name}"; there are: {", ".join(METRICS)}.')
    return METRICS[name]


def scored_by(
    metric: str, segmenter: Segmenter, dataset: Dataset, *, tta: bool = False
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what of the model the metric scores: its proposals, or the objects it finds."""
    if n := metric_named(metric).n_proposals:
        return proposed(segmenter, dataset, n, tta=tta)
    return predicted(segmenter, dataset, tta=tta)


def predicted(segmenter: Segmenter, dataset: Dataset, *, tta: bool = False) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what the model finds in it."""
    for index in range(len(dataset)):
        sample = dataset[index]
        yield sample, segmenter.segment(sample.image, tta=tta, name=sample.name)


def proposed(
    segmenter: Segmenter, dataset: Dataset, n: int, *, tta: bool = False
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with the model's best n proposals, masks that may overlap."""
    for index in range(len(dataset)):
        sample = dataset[index]
        yield sample, segmenter.propose(sample.image, n, tta=tta, name=sample.name)


def found_in(folder: str | Path, dataset: Dataset) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with the objects of its label image in a folder.

    Such files know no classes: every object, true or found, gets class 1.

    Args:
        folder: holds a file named as in FOUND_ENDINGS for each image.
        dataset: the truth.

    Raises:
        InputError: if there is no such folder, or an image has no file in it.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one that holds the label images to score.")
    files = [_found_file(folder, name) for name in dataset.names]
    missing = [name for name, file in zip(dataset.names, files, strict=True) if file is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{folder}: {len(missing)} of {len(files)} images have no label image: {', '.join(missing[:3])}{more}. "
            f"Their names must be the image's stem and one of {', '.join(FOUND_ENDINGS)}."
        )
    return (_as_one_class(dataset[index], file) for index, file in enumerate(files) if file is not None)


def _found_file(folder: Path, name: str) -> Path | None:
    """The label image of an image's stem, if there is one."""
    return next((file for ending in FOUND_ENDINGS if (file := folder / (name + ending)).is_file()), None)


def _as_one_class(sample: Sample, file: Path) -> tuple[Sample, Instances]:
    """The sample and the objects in a file, all of class 1."""
    annotate = sample.annotate
    sample = dataclasses.replace(
        sample,
        classes=np.ones_like(sample.classes),
        annotate=annotate and (lambda: dataclasses.replace(a := annotate(), classes=np.ones_like(a.classes))),
    )
    return sample, Instances.from_labels(read_labels(file))


def evaluate(
    pairs: Iterable[tuple[Sample, Instances]], *, by: dict[str, str] | None = None, metric: str = "average_precision"
) -> Evaluation:
    """Score what was found against the truth.

    Args:
        pairs: each annotated image with what was found in it.
        by: image name to the group it is summarised with. A group whose images the metric leaves out is not there.
        metric: a name in METRICS.

    Raises:
        InputError: if there is no image to score, or no such metric.
    """
    summarise = metric_named(metric).summarise
    scored = (score_pair(sample, found, metric=metric) for sample, found in pairs)
    images = tuple(image for image in scored if image is not None)
    groups: dict[str, list[Any]] = {}
    if by is not None:
        for image in images:
            groups.setdefault(by.get(image.name, ""), []).append(image)
    return Evaluation(images, summarise(images), {name: summarise(groups[name]) for name in sorted(groups)})


def score_pair(sample: Sample, found: Instances, *, metric: str = "average_precision") -> Any:
    """Scores of one image, ignored pixels aside, in the metric's record; None where it leaves the image out."""
    if sample.labels.shape != found.labels.shape:
        raise InputError(
            f"{sample.name}: the label image found has shape {found.labels.shape}, the true one {sample.labels.shape}; "
            "they must be of the same image at the same size."
        )
    truth = Instances(sample.labels, sample.classes, np.ones(len(sample.classes), np.float32))
    scoring = metric_named(metric)
    if scoring.counts_annotations:
        annotations = sample.annotate() if sample.annotate is not None else Annotations.of(truth, sample.ignore)
        return scoring.score_image(annotations, found, name=sample.name)
    return scoring.score_image(truth, found, name=sample.name, ignore=sample.ignore)


def tune(segmenter: Segmenter, dataset: Dataset, *, rounds: int = 2, tta: bool = False) -> dict[str, Any]:
    """The thresholds of the method with the best mean AP on these images; they are set in the model.

    One threshold after another is tried over the method's candidates, with the others held. Of many or large images
    an evenly spread part is used, so that their maps fit into memory.

    Args:
        segmenter: the model; its thresholds as they stand are where the search begins.
        dataset: annotated images that were not trained on.
        rounds: how often to go around.
        tta: tune for prediction with test-time augmentation.
    """
    method = segmenter.model.method
    samples = _spread(dataset, TUNING_PIXELS)
    maps = [_on_cpu(segmenter.maps(segmenter.prepared(sample.image, name=sample.name), tta=tta)) for sample in samples]

    def mean_score() -> float:
        pairs = zip(samples, itertools.chain.from_iterable(map(method.group, maps)), strict=True)
        scores = [score_pair(*pair) for pair in pairs]
        return float(np.mean([s.average_precision.mean() for s in scores]))

    best = mean_score()
    for _ in range(rounds):
        for name, candidates in method.threshold_candidates.items():
            kept = method.thresholds[name]
            for candidate in candidates:
                method.thresholds[name] = candidate
                score = mean_score()
                if score > best:
                    best, kept = score, candidate
            method.thresholds[name] = kept
    return dict(method.thresholds)


def _on_cpu(maps: Any) -> Any:
    """A method's maps off the accelerator, whose memory all of them together may not fit."""
    return type(maps)(**{field.name: getattr(maps, field.name).cpu() for field in dataclasses.fields(maps)})


def _spread(dataset: Dataset, n_pixels: int) -> list[Sample]:
    """Images evenly spread over the data set, about as many as have this many pixels together, at least one."""
    first = dataset[0]
    n = min(len(dataset), max(1, n_pixels // first.labels.size))
    return [dataset[int(i)] for i in np.linspace(0, len(dataset) - 1, n).round()]


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything in it as plain numbers and lists."""
    return plain(evaluation)


def plain(value: Any) -> Any:
    """Records as dictionaries, and arrays as lists, however deep."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return value.tolist() if isinstance(value, np.ndarray | np.generic) else value
