"""How good a model, or somebody's label images, are on annotated images: validation and final score alike."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from attractor.datasets import Dataset, Sample
from attractor.datasets.cityscapes import Cityscapes, read_cityscapes_results, write_cityscapes_results
from attractor.datasets.classes import WithClasses
from attractor.datasets.coco import Coco, read_coco_results, write_coco_results
from attractor.datasets.dsb2018 import Dsb2018, read_dsb_submission, write_dsb_submission
from attractor.errors import InputError
from attractor.images import read_labels
from attractor.instances import Annotations, Instances, decode_mask
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
        pairs = proposed(segmenter, dataset, n, tta=tta)
    else:
        pairs = predicted(segmenter, dataset, tta=tta)
    numbers = class_numbers(segmenter.class_names, dataset.class_names)
    return pairs if numbers is None else ((sample, renumbered(found, numbers)) for sample, found in pairs)


def class_numbers(own: Sequence[str], true: Sequence[str]) -> tuple[int, ...] | None:
    """For each class of a model, the number of the data set's class of the same name; 0 where it has none.

    A single class that the model does not know is that of all its objects. Where no name is on both sides, numbers are
    taken to mean the same; None where they do.
    """
    if len(true) == 1 < len(own) and true[0] not in own:
        return (1,) * len(own)
    if not set(own) & set(true):
        return None if len(own) <= len(true) else tuple(n if n <= len(true) else 0 for n in range(1, len(own) + 1))
    if len(own) == len(true) == 1:
        return None
    return tuple(true.index(name) + 1 if name in true else 0 for name in own)


def renumbered(found: Instances, numbers: Sequence[int]) -> Instances:
    """What was found with class c as number c of these, counted from 1; a class with number 0 is left out."""
    classes = np.array([0, *numbers], np.int32)[found.classes]
    kept = classes > 0
    table = np.concatenate([[0], np.where(kept, np.cumsum(kept), 0)]).astype(np.int32)
    if found.masks is None or kept.all():
        return Instances(table[found.labels], classes[kept], found.scores[kept], found.masks)
    shape = found.labels.shape  # what an object that is left out hid comes to light
    masks = [decode_mask(mask, shape) for mask, keep in zip(found.masks, kept, strict=True) if keep]
    return Instances.from_masks(masks, classes[kept], found.scores[kept], (shape[0], shape[1]))


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


def found_in(path: str | Path, dataset: Dataset) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with the objects that somebody's results have for it.

    Args:
        path: what the official tool of the data set's layout reads (a results JSON of COCO, a results folder of
            Cityscapes, a submission CSV of the Data Science Bowl), or a folder of label images, named as in
            FOUND_ENDINGS. Those know no classes: every object, true or found, gets class 1.
        dataset: the truth.

    Raises:
        InputError: if there is nothing at the path, an image has no file in a folder of label images, or a file of
            results cannot be read, is of another data set, or of another layout.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give the one that holds the results to score.")
    whole = dataset.whole if isinstance(dataset, WithClasses) else dataset
    if (read := _reader(path, whole)) is None:
        return _label_images_in(path, dataset)
    numbers = dataset.numbers if isinstance(dataset, WithClasses) else None
    found = read(path, whole) if numbers is None else (renumbered(one, numbers) for one in read(path, whole))
    return ((dataset[index], one) for index, one in enumerate(found))


def _reader(path: Path, dataset: Dataset) -> Callable[[Path, Any], Iterator[Instances]] | None:
    """What reads results in the form of the data set's benchmark; None for a folder of label images.

    Raises:
        InputError: if the path is a file that none of them reads.
    """
    for kind, benchmark in RESULTS.items():
        if isinstance(dataset, kind) and benchmark.recognises(path):
            return benchmark.read
    if path.is_dir():
        return None
    forms = "; ".join(f"{kind.__name__}: {benchmark.form}" for kind, benchmark in RESULTS.items())
    raise InputError(
        f"{path}: results of a data set in the layout {type(dataset).__name__} cannot be read from such a file; give a "
        f"folder of label images, or for {forms}."
    )


def holds_no_classes(path: Path, dataset: Dataset) -> bool:
    """Whether somebody's results are label images, which say nothing of classes."""
    whole = dataset.whole if isinstance(dataset, WithClasses) else dataset
    return path.is_dir() and _reader(path, whole) is None


def _label_images_in(folder: Path, dataset: Dataset) -> Iterator[tuple[Sample, Instances]]:
    files = [_found_file(folder, name) for name in dataset.names]
    missing = [name for name, file in zip(dataset.names, files, strict=True) if file is None]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{folder}: {len(missing)} of {len(files)} images have no label image: {', '.join(missing[:3])}{more}. "
            f"Their names must be the image's stem and one of {', '.join(FOUND_ENDINGS)}."
        )
    return (_as_one_class(dataset[index], file) for index, file in enumerate(files) if file is not None)


def check_results(path: str | Path, dataset: Dataset) -> None:
    """Refuse to write results that the official tool of the data set's layout could not read.

    Raises:
        InputError: if the layout is none of RESULTS, the path cannot be written, or classes were left out of account.
    """
    whole = dataset.whole if isinstance(dataset, WithClasses) else dataset
    benchmark = next((benchmark for kind, benchmark in RESULTS.items() if isinstance(whole, kind)), None)
    if benchmark is None:
        forms = ", ".join(kind.__name__ for kind in RESULTS)
        raise InputError(
            f"{path}: results files are known for {forms}, not for a data set in the layout {type(whole).__name__}; "
            "`attractor segment` writes label images and other forms."
        )
    path = Path(path)
    if not benchmark.takes(path):
        raise InputError(f"{path}: results for a data set in the layout {type(whole).__name__} are {benchmark.form}.")
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path}: there is no such folder; make it, or give another path for the results.")
    if isinstance(dataset, WithClasses) and len({n for n in dataset.numbers if n}) < sum(map(bool, dataset.numbers)):
        raise InputError(f"{path}: results have classes, which --ignore-classes leaves out; give one or the other.")


def write_results(path: str | Path, found: Iterable[tuple[str, Instances]], dataset: Dataset) -> None:
    """Write what was found in the images of a data set as the official tool of its layout reads it.

    Args:
        path: file or folder to write.
        found: names of images, each with what was found in it; consumed one by one.
        dataset: the truth, in a layout of RESULTS.

    Raises:
        InputError: as `check_results` does, or if nothing can be written.
    """
    check_results(path, dataset)
    whole = dataset
    if isinstance(dataset, WithClasses):
        whole, numbers = dataset.whole, dataset.numbers
        back = [numbers.index(number) + 1 for number in range(1, len(dataset.class_names) + 1)]
        found = ((name, renumbered(one, back)) for name, one in found)
    (benchmark,) = (benchmark for kind, benchmark in RESULTS.items() if isinstance(whole, kind))
    benchmark.write(Path(path), found, whole)


@dataclass(frozen=True)
class Results:
    """How a benchmark's official tool takes what was found."""

    form: str  # in words
    takes: Callable[[Path], bool]  # whether such a path can be written
    recognises: Callable[[Path], bool]
    read: Callable[[Path, Any], Iterator[Instances]]
    write: Callable[[Path, Iterable[tuple[str, Instances]], Any], None]


def _write_coco(path: Path, found: Iterable[tuple[str, Instances]], dataset: Coco) -> None:
    ids = dict(zip(dataset.names, dataset.image_ids, strict=True))
    write_coco_results(path, ((ids[name], one) for name, one in found), dataset.category_ids)


def _write_cityscapes(path: Path, found: Iterable[tuple[str, Instances]], dataset: Cityscapes) -> None:
    for name, one in found:
        write_cityscapes_results(path, name, one, dataset.class_names)


def _read_dsb(path: Path, dataset: Dsb2018) -> Iterator[Instances]:
    sizes = {name: dataset[index].labels.shape for index, name in enumerate(dataset.names)}
    found = read_dsb_submission(path, sizes, unscored=dataset.unscored)
    return (found[name] for name in dataset.names)


def _write_dsb(path: Path, found: Iterable[tuple[str, Instances]], dataset: Dsb2018) -> None:
    nothing = Instances.from_labels(np.zeros((1, 1), np.int32))
    write_dsb_submission(path, itertools.chain(found, ((name, nothing) for name in dataset.unscored)))


def _is_file(suffix: str) -> Callable[[Path], bool]:
    """Whether a path is, or can become, a file of this kind."""
    return lambda path: path.suffix.lower() == suffix and not path.is_dir()


RESULTS: dict[type, Results] = {
    Coco: Results("a results JSON, FILE.json", _is_file(".json"), _is_file(".json"), read_coco_results, _write_coco),
    Cityscapes: Results(
        "a folder of *_pred.txt and masks",
        lambda path: not path.is_file(),
        lambda path: any(re.match(r"[^_]+_\d+_\d+", file.name) for file in path.rglob("*.txt")),
        read_cityscapes_results,
        _write_cityscapes,
    ),
    Dsb2018: Results("a submission CSV, FILE.csv", _is_file(".csv"), _is_file(".csv"), _read_dsb, _write_dsb),
}


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
    pairs: Iterable[tuple[Sample, Instances]],
    *,
    by: dict[str, str] | None = None,
    metric: str = "average_precision",
    results: Callable[[Iterable[tuple[str, Instances]]], None] | None = None,
) -> Evaluation:
    """Score what was found against the truth.

    Args:
        pairs: each annotated image with what was found in it.
        by: image name to the group it is summarised with. A group whose images the metric leaves out is not there.
        metric: a name in METRICS.
        results: is given the name of each image and what was found there, one after another, to write it.

    Raises:
        InputError: if there is no image to score, or no such metric.
    """
    summarise = metric_named(metric).summarise
    scores: list[Any] = []

    def scored() -> Iterator[tuple[str, Instances]]:
        for sample, found in pairs:
            scores.append(score_pair(sample, found, metric=metric))
            yield sample.name, found

    deque(scored(), 0) if results is None else results(scored())
    images = tuple(image for image in scores if image is not None)
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


def headline_of(metric: str) -> Callable[[Sequence[Any]], float]:
    """The one number of a metric to choose by, of a list of images' scores.

    Raises:
        InputError: if there is no such metric, or it has no such number.
    """
    headline = metric_named(metric).headline
    if headline is None:
        able = ", ".join(name for name, one in METRICS.items() if one.headline is not None)
        raise InputError(f'Nothing can be chosen by the metric "{metric}"; by these it can: {able}.')
    return headline


def tune(
    segmenter: Segmenter,
    dataset: Dataset,
    *,
    rounds: int = 2,
    tta: bool = False,
    metric: str = "average_precision",
) -> dict[str, Any]:
    """The thresholds of the method with the best score on these images; they are set in the model.

    One threshold after another is tried over the method's candidates, with the others held. Of many or large images
    an evenly spread part is used, so that their maps fit into memory.

    Args:
        segmenter: the model; its thresholds as they stand are where the search begins.
        dataset: annotated images that were not trained on.
        rounds: how often to go around.
        tta: tune for prediction with test-time augmentation.
        metric: a name in METRICS that has a headline.
    """
    headline, method = headline_of(metric), segmenter.model.method
    samples = [_drawn(sample) for sample in _spread(dataset, TUNING_PIXELS)]
    maps = [_on_cpu(segmenter.maps(segmenter.prepared(sample.image, name=sample.name), tta=tta)) for sample in samples]

    def mean_score() -> float:
        pairs = zip(samples, itertools.chain.from_iterable(map(method.group, maps)), strict=True)
        return headline([score_pair(*pair, metric=metric) for pair in pairs])

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


def _drawn(sample: Sample) -> Sample:
    """The sample with its annotations drawn once, for those who ask often."""
    if sample.annotate is None:
        return sample
    annotate = functools.cache(sample.annotate)
    return dataclasses.replace(sample, annotate=annotate)


def _on_cpu(maps: Any) -> Any:
    """A method's maps off the accelerator, whose memory all of them together may not fit."""
    return type(maps)(**{field.name: getattr(maps, field.name).cpu() for field in dataclasses.fields(maps)})


def _spread(dataset: Dataset, n_pixels: int) -> list[Sample]:
    """Images evenly spread over the data set, about as many as have this many pixels together, at least one."""
    first = dataset[0]
    n = min(len(dataset), max(1, n_pixels // first.labels.size))
    return [dataset[int(i)] for i in np.linspace(0, len(dataset) - 1, n).round()]


def as_json(evaluation: Evaluation) -> dict[str, Any]:
    """Everything in it as plain numbers and lists, but for what a record says is too much for a file."""
    return plain(evaluation)


def plain(value: Any) -> Any:
    """Records as dictionaries, arrays as lists, and what is no number as None, however deep."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        shown = (field.name for field in dataclasses.fields(value) if field.metadata.get("json", True))
        return {name: plain(getattr(value, name)) for name in shown}
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, np.ndarray | np.generic):
        return plain(value.tolist())
    return None if isinstance(value, float) and math.isnan(value) else value
