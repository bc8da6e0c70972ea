"""How good a model, or a set of results, is on annotated images; validation and the final score both use this."""

from __future__ import annotations

import dataclasses
import logging
import math
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path

import numpy as np

from attractor.datasets import Dataset, Sample, open_dataset
from attractor.datasets.classes import renumbered_objects
from attractor.errors import InputError
from attractor.instances import Instances
from attractor.likeness import Strangers, traits
from attractor.metrics import FILM_METRICS, METRICS, Metric
from attractor.metrics.metric import Overview, Pair, Row, Scores, Summary, Table
from attractor.model import Model
from attractor.prediction.batches import Given
from attractor.prediction.image import Segmenter
from attractor.tables import as_text

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluation:
    """Scores of each image, of all images together, and of groups of images, as records of the metric.

    As text, they are the tables that `attractor evaluate` prints.
    """

    images: tuple[Scores, ...]  # without those that the metric leaves out
    summary: Summary
    groups: dict[str, Summary]  # value of the column to its summary; empty without one
    class_names: tuple[str, ...] = ()
    column: str = ""  # the one that the groups come from

    def tables(self) -> list[Table]:
        """The main values, with a row for each group; then the metric's further tables on all images."""
        every = "all images" if "all" in self.groups else "all"
        short = [
            Table(_title(overview), {every: self._row(self.summary, place), **self._of_groups(place)}, self.column)
            for place, overview in enumerate(self.summary.overviews())
            if self.groups or not overview.is_in_tables
        ]
        return [*short, *self.summary.tables(self.class_names)]

    def _of_groups(self, place: int) -> dict[str, Row]:
        return {name or "(no value)": self._row(group, place) for name, group in self.groups.items()}

    @staticmethod
    def _row(summary: Summary, place: int) -> Row:
        return {"images": summary.n_images, **summary.overviews()[place].row}

    def as_json(self) -> dict[str, object]:
        """Every number in it as plain JSON, except what a record marks as too large for a file."""
        return {name: plain(getattr(self, name)) for name in ("images", "summary", "groups")}

    def __str__(self) -> str:
        return as_text(self.tables())


def _title(overview: Overview) -> str:
    return f"{overview.title}, with 95 % intervals" + (f"; {overview.note}" if overview.note else "")


def metric_named(name: str) -> Metric:
    """The entry of METRICS.

    Raises:
        InputError: if there is no metric of this name; the message lists the metrics there are.
    """
    if name not in METRICS:
        raise InputError(f'There is no metric "{name}"; there are: {", ".join([*METRICS, *FILM_METRICS])}.')
    return METRICS[name]


def groups_of(dataset: Dataset, column: str | None) -> Mapping[str, str] | None:
    """The group of each image, group by group in their order, taken from a column of the data set; None without one.

    Args:
        dataset: that has the column.
        column: its name; with numbers behind a colon, as in "objects:16,64", images are grouped by whether their value
            is up to 16, up to 64 or more.

    Raises:
        InputError: if there is no such column, or a value or a limit is no number where it must be one.
    """
    if column is None:
        return None
    column, colon, limits = column.partition(":") if column not in dataset.columns else (column, "", "")
    if column not in dataset.columns:
        known = ", ".join(dataset.columns) or "none; write some into images.csv beside the images"
        raise InputError(f"The data set has no column {column!r} to score by; its columns: {known}.")
    values = dataset.columns[column]
    return _binned(values, column, limits) if colon else dict(sorted(values.items(), key=itemgetter(1)))


def _binned(values: Mapping[str, str], column: str, limits: str) -> Mapping[str, str]:
    """For each image the range of numbers that its value lies in."""
    try:
        edges = sorted({float(limit) for limit in limits.split(",")})
        numbers = {name: float(value) for name, value in values.items()}
    except ValueError as error:
        raise InputError(
            f"--by {column}:{limits}: groups images by numbers, as in --by {column}:16, and needs a number in each "
            f"image's {column}: {error}."
        ) from error
    names = [f"{column} up to {edge:g}" for edge in edges] + [f"{column} above {edges[-1]:g}"]
    rising = sorted(numbers.items(), key=itemgetter(1))
    return {name: names[bisect_left(edges, number)] for name, number in rising}


def evaluate_model(
    model: str | Path | Segmenter,
    data: str | Path | Dataset,
    *,
    metric: str = "average_precision",
    by: str | None = None,
    tta: bool = False,
    results: Callable[[Iterable[tuple[str, Instances]]], None] | None = None,
    report: Callable[[], None] = lambda: None,
) -> Evaluation:
    """The scores of a model on annotated images, as `attractor evaluate` gives them.

    Args:
        model: a model's name, file or training folder, whose network then runs in float32 on the best device there is;
            or a segmenter from `attractor.load`.
        data: a data set's path, or the data set.
        metric: a name in `attractor.metrics.METRICS`.
        by: a column of the data set's images.csv; each group of images with the same value is scored, too.
        tta: average over eight views of each image.
        results: is given the name of each image and what was found in it, one after another, to write them.
        report: is called after each image.

    Raises:
        InputError: if the model, data set, metric or column does not exist, or the model cannot be used on these images
            or offers no proposals although the metric ranks them.

    >>> import attractor
    >>> from attractor.demo import FOLDER  # two annotated pictures
    >>> scores = attractor.evaluate("nuclei", FOLDER, metric="panoptic")
    >>> round(scores.summary.panoptic_quality.value, 2)
    0.74
    >>> print(str(scores).split(",")[0])  # print(scores) shows the tables that the command prints
    Panoptic quality
    """
    scoring = metric_named(metric)
    dataset = open_dataset(data) if isinstance(data, str | Path) else data
    groups = groups_of(dataset, by)
    if not isinstance(model, Segmenter):
        model = Segmenter(Model.load(model), dtype="float32")
    model.check_options(tta=tta, n_proposals=scoring.n_proposals)

    description = model.model.description
    strangers = Strangers(description.seen)

    def watched() -> Iterator[tuple[Sample, Instances]]:
        for sample, found in scored_by(metric, model, dataset, tta=tta):
            if description.seen:
                strangers.look_at(traits(sample.image, sample.labels, description.normalisation))
            yield sample, found
            report()

    scores = evaluate(
        watched(), by=groups, column=by or "", class_names=dataset.class_names, metric=metric, results=results
    )
    if note := strangers.in_words():
        logger.warning(note)
    return scores


def scored_by(
    metric: str, segmenter: Segmenter, dataset: Dataset, *, tta: bool = False
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what the metric scores: the model's proposals, or the objects it finds."""
    if n := metric_named(metric).n_proposals:
        pairs = proposed(segmenter, dataset, n, tta=tta)
    else:
        pairs = predicted(segmenter, dataset, tta=tta)
    numbers = class_numbers(segmenter.class_names, dataset.class_names)
    return pairs if numbers is None else ((sample, renumbered_objects(found, numbers)) for sample, found in pairs)


def class_numbers(own: Sequence[str], true: Sequence[str]) -> tuple[int, ...] | None:
    """For each class of a model, the number of the data set's class of the same name; 0 where it has none.

    If the data set has a single class that a model of several classes does not know, all the model's objects count as
    that class. If the two share no name, equal numbers mean the same class. None if all numbers can stay.
    """
    if len(true) == 1 < len(own) and true[0] not in own:
        return (1,) * len(own)
    if not set(own) & set(true):
        return None if len(own) <= len(true) else tuple(n if n <= len(true) else 0 for n in range(1, len(own) + 1))
    if len(own) == len(true) == 1:
        return None
    return tuple(true.index(name) + 1 if name in true else 0 for name in own)


def predicted(segmenter: Segmenter, dataset: Dataset, *, tta: bool = False) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what the model finds in it; several images are computed at once."""
    samples = map(dataset.__getitem__, range(len(dataset)))
    for sample, prediction in segmenter.predict_many(samples, as_given, len(dataset), tta=tta):
        yield sample, dataclasses.replace(prediction.found, class_names=segmenter.class_names)


def as_given(sample: Sample) -> Given:
    """The image of a sample, for a model."""
    return Given(sample.name, sample.image, sample.spacing)


def proposed(
    segmenter: Segmenter, dataset: Dataset, n: int, *, tta: bool = False
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with the model's best n proposals, masks that may overlap."""
    for index in range(len(dataset)):
        sample = dataset[index]
        yield sample, segmenter.propose(sample.image, n, tta=tta, name=sample.name)


def evaluate(
    pairs: Iterable[tuple[Sample, Instances]],
    *,
    by: Mapping[str, str] | None = None,
    column: str = "",
    class_names: Sequence[str] = (),
    metric: str = "average_precision",
    results: Callable[[Iterable[tuple[str, Instances]]], None] | None = None,
) -> Evaluation:
    """Score what was found against the truth, image by image; no image is kept in memory.

    Args:
        pairs: each annotated image with what was found in it.
        by: from image name to the group it is summarised in. A group whose images are all left out is missing.
        column: what to call the groups in tables.
        class_names: of classes 1, 2 and so on, for tables; a metric that has classes then shows each of them.
        metric: a name in METRICS.
        results: is given the name of each image and what was found in it, one after another, to write them.

    Raises:
        InputError: if there is no image to score, or no such metric.
    """
    scoring = metric_named(metric)
    images: list[Scores] = []

    def scored() -> Iterator[tuple[str, Instances]]:
        for sample, found in pairs:
            if (scores := scoring.score_image(pair_of(sample, found))) is not None:
                images.append(scores)
            yield sample.name, found

    deque(scored(), 0) if results is None else results(scored())
    summary = scoring.summarise(images)
    return Evaluation(tuple(images), summary, summaries_of(scoring, images, by), tuple(class_names), column)


def summaries_of(metric: Metric, images: Iterable[Scores], by: Mapping[str, str] | None) -> dict[str, Summary]:
    """The summary of each group of images, in the order in which they are given; none without groups."""
    if by is None:
        return {}
    groups: dict[str, list[Scores]] = {}
    for image in images:
        groups.setdefault(by.get(image.name, ""), []).append(image)
    ordered = dict.fromkeys(["", *by.values()])  # images that no group is given for come first
    return {name: metric.summarise(groups[name]) for name in ordered if name in groups}


def pair_of(sample: Sample, found: Instances) -> Pair:
    """An annotated image and what was found in it, as metrics take them."""
    truth = Instances(sample.labels, sample.classes, np.ones(len(sample.classes), np.float32))
    return Pair(sample.name, truth, found, sample.ignore, sample.annotate)


def score_pair(sample: Sample, found: Instances, *, metric: str = "average_precision") -> Scores | None:
    """Scores of one image without its ignored pixels, as the metric's record; None if it leaves the image out."""
    return metric_named(metric).score_image(pair_of(sample, found))


def plain(value: object) -> object:
    """Records as dictionaries, arrays as lists, and NaN as None, at any depth."""
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
