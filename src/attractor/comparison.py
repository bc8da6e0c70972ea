"""Several models on the same annotated images: who finds more, who counts better, who is faster, where they disagree.

Each model runs in a process of its own, so that its peak of memory is its own, and times are not those of a machine
that another model has warmed up. The first image is segmented once before the clock runs. Every other model is then
tested against the first one, image by image: what counts is not how far two means lie apart, but whether the
difference holds from image to image.

Label images wait in a temporary folder until it is known on which images the models disagree most; those are drawn.

Shapes: `h` rows, `w` columns, `t` thresholds.
"""

from __future__ import annotations

import base64
import dataclasses
import datetime
import io
import multiprocessing
import platform
import re
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Int32, Shaped
from PIL import Image

import attractor
from attractor.datasets import Dataset, Sample
from attractor.description import Description, find_model, read_description
from attractor.errors import InputError
from attractor.evaluation import pair_of, plain
from attractor.images import as_channels, atomic, read_labels, write_labels
from attractor.instances import Instances
from attractor.methods.contract import Ordered
from attractor.metrics import cvppp
from attractor.metrics.average_precision import (
    SHOWN,
    Difference,
    ImageScores,
    Summary,
    paired_difference,
    score_image,
    summarise,
)
from attractor.metrics.bootstrap import Interval
from attractor.metrics.cvppp import LeafDifference, LeafScores, LeafSummary
from attractor.model import Model
from attractor.overlays import overlay
from attractor.prediction.folder import is_for_memory
from attractor.prediction.image import Segmenter, choose_device
from attractor.wording import counted, install, share

FEWEST = 6  # images for a verdict: that five of five favour one model happens to equal models once in 16 times
SIDES = (420, 320, 240, 160)  # pixels of a drawn picture's longer side; the first that fits the page is taken
PAGE_BYTES = 4_000_000  # of all pictures; as text in the page they take a third more
QUALITY = 88  # of JPEG
MINUS = "\N{MINUS SIGN}"


# --- what comes out ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Measured:
    """What one model did on one image."""

    name: str
    mean_average_precision: float  # over the thresholds
    precision: ImageScores
    leaves: LeafScores
    network_seconds: float  # preparing the image, and the network
    grouping_seconds: float  # from the network's maps to objects


@dataclass(frozen=True)
class Footprint:
    """What a model is, and what it took to run it on all images."""

    device: str  # in words
    n_parameters: int
    is_ordered: bool  # labels are numbered in the order in which objects are found
    max_instances: int | None  # that it can find in an image; None for any number
    memory: int | None  # most bytes its process held; None where it had no process of its own, or nobody counts
    device_memory: int | None  # most bytes it held on the GPU; None without one


@dataclass(frozen=True)
class Compared:
    """One model's part of the comparison."""

    name: str  # as shown
    file: str
    file_bytes: int
    method: str
    network: str
    footprint: Footprint
    images: tuple[Measured, ...]
    summary: Summary
    groups: dict[str, Summary]  # value of a column to the summary of its images; empty without a column
    leaves: LeafSummary
    network_seconds: float  # median over images
    grouping_seconds: float  # median over images

    @property
    def seconds(self) -> float:
        """Seconds that a typical image takes."""
        return self.network_seconds + self.grouping_seconds


@dataclass(frozen=True)
class Pair:
    """A model against the first one; all differences are its scores less those of the first."""

    first: str
    other: str
    average_precision: Difference
    leaves: LeafDifference
    is_difference: bool  # in mean AP, beyond what the choice of images explains
    verdict: str  # three sentences: on AP, counts and time


@dataclass(frozen=True)
class Panel:
    """A picture with what stands below it."""

    title: str
    below: tuple[str, ...]
    model: int | None  # whose objects are outlined, counted from 0
    jpeg: bytes


@dataclass(frozen=True)
class Shown:
    """One image as all models see it."""

    name: str
    lowest: float  # mean AP of the model that does worst on it
    highest: float
    panels: tuple[Panel, ...]  # the picture, the truth, and each model


@dataclass(frozen=True)
class Comparison:
    """All that was measured."""

    dataset: str  # what to call it
    remark: str  # on the data set; may be empty
    class_names: tuple[str, ...]
    tta: bool
    date: str
    versions: dict[str, str]
    models: tuple[Compared, ...]
    pairs: tuple[Pair, ...]  # each model but the first, against the first
    shown: tuple[Shown, ...]  # the images with the greatest disagreement first


# --- comparing --------------------------------------------------------------------------------------------------------


def compare(
    models: Sequence[str | Path],
    dataset: Dataset,
    *,
    title: str = "the data set",
    remark: str = "",
    by: Mapping[str, str] | None = None,
    tta: bool = False,
    device: str = "auto",
    n_shown: int = 6,
    own_process: bool = True,
    report: Callable[[], None] = lambda: None,
) -> Comparison:
    """Run each model on every image, score, time and test them.

    A script that calls this with processes of their own must guard its main part by `if __name__ == "__main__":`,
    since such a process begins by importing the script.

    Args:
        models: names, files or training folders; at least two. Each one is tested against the first.
        dataset: annotated images; the same for all.
        title: what to call the data set.
        remark: a sentence on the data set, for the page.
        by: image name to the group it is summarised with.
        tta: average over eight views of each image.
        device: as for `Segmenter`.
        n_shown: how many images to draw, those with the greatest disagreement first.
        own_process: whether each model gets a process of its own; its memory is unknown otherwise.
        report: called after each image of each model.

    Raises:
        InputError: if there are fewer than two models or one cannot be used on these images, or memory runs out.
    """
    files = check_models(models, dataset, device=device, tta=tta)
    if n_shown < 0:
        raise InputError(f"The number of images to show is {n_shown}; give 0 or more.")
    names = _shown_names(models)
    with tempfile.TemporaryDirectory(prefix="attractor-") as folder:
        jobs = [
            _Job(name, file, dataset, device, tta, Path(folder) / str(index))
            for index, (name, file) in enumerate(zip(names, files, strict=True))
        ]
        compared = tuple(_compared(job, by, own_process, report) for job in jobs)
        shown = _disagreements(compared, dataset, [job.found for job in jobs], n_shown)
    return Comparison(
        dataset=title,
        remark=remark,
        class_names=dataset.class_names,
        tta=tta,
        date=datetime.datetime.now().astimezone().isoformat(timespec="minutes"),
        versions=_versions(),
        models=compared,
        pairs=tuple(_pair(compared[0], other) for other in compared[1:]),
        shown=shown,
    )


def check_models(
    models: Sequence[str | Path], dataset: Dataset, *, device: str = "auto", tta: bool = False
) -> list[Path]:
    """The files of the models, if these can be compared on the data set; no weights are loaded and nothing runs.

    Raises:
        InputError: if there are fewer than two models, a file cannot be read, there is no such device, classes differ
            where there are several, the first image's channels do not fit, or a method lacks test-time augmentation.
    """
    if len(models) < 2:
        raise InputError(
            f"{len(models)} model{'s' * (len(models) != 1)} given; a comparison needs at least two. "
            "For one alone there is `attractor evaluate`."
        )
    choose_device(device)
    files = [find_model(model).resolve() for model in models]
    described = dict(zip(map(str, models), map(read_description, files), strict=True))
    _check_classes({name: description.class_names for name, description in described.items()}, dataset)
    image = dataset[0].image
    for name, description in described.items():
        as_channels(image[:1, :1], description.channels, f"{name}: {dataset.names[0]}")
        if tta:
            _check_views(name, description)
    return files


def _check_classes(of_models: dict[str, tuple[str, ...]], dataset: Dataset) -> None:
    """Refuse classes that differ, unless there is but one everywhere, whatever it is called."""
    known = of_models | {"the data set": dataset.class_names}
    (first, expected), *others = known.items()
    for name, classes in others:
        if classes != expected and max(map(len, known.values())) > 1:
            raise InputError(
                f"The classes differ: {first} has {', '.join(expected)}, {name} has {', '.join(classes)}. "
                "Only models of the same classes, in the same order, can be compared, on images with those."
            )


def _check_views(name: str, description: Description) -> None:
    try:
        Segmenter(Model(description), device="cpu").check_options(tta=True)
    except InputError as error:
        raise InputError(f"{name}: {error}") from error


def _shown_names(models: Sequence[str | Path]) -> list[str]:
    """What to call each: the stem of a file, or its folder where a training gave that name; doubles are numbered."""
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


def _compared(job: _Job, by: Mapping[str, str] | None, own_process: bool, report: Callable[[], None]) -> Compared:
    """One model on all images."""
    job.found.mkdir()
    measured: list[Measured] = []
    for part in _in_own_process(job) if own_process else _work(job):
        if isinstance(part, Footprint):
            footprint = part if own_process else dataclasses.replace(part, memory=None)
        else:
            measured.append(part)
            report()
    description = read_description(job.file)
    return Compared(
        name=job.name,
        file=str(job.file),
        file_bytes=job.file.stat().st_size,
        method=description.method,
        network=description.network,
        footprint=footprint,
        images=tuple(measured),
        summary=summarise([image.precision for image in measured]),
        groups=_groups(measured, by),
        leaves=cvppp.summarise([image.leaves for image in measured]),
        network_seconds=statistics.median(image.network_seconds for image in measured),
        grouping_seconds=statistics.median(image.grouping_seconds for image in measured),
    )


def _groups(images: Sequence[Measured], by: Mapping[str, str] | None) -> dict[str, Summary]:
    """Scores of each group of images."""
    groups: dict[str, list[ImageScores]] = {}
    if by is not None:
        for image in images:
            groups.setdefault(by.get(image.name, ""), []).append(image.precision)
    return {name: summarise(groups[name]) for name in sorted(groups)}


def _versions() -> dict[str, str]:
    return {
        "attractor": attractor.__version__,
        "torch": torch.__version__,
        "Python": platform.python_version(),
        "system": f"{platform.system()} {platform.machine()}",
    }


# --- one model --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Job:
    """What a process needs to know to run one model."""

    name: str
    file: Path
    dataset: Dataset
    device: str
    tta: bool
    found: Path  # folder for label images, by the image's index


def _in_own_process(job: _Job) -> Iterator[Measured | Footprint]:
    """What `_work` gives, from a new Python that has run nothing else."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_send, args=(job, sender), daemon=True)
    process.start()
    sender.close()
    try:
        while True:
            part = receiver.recv()
            if isinstance(part, InputError):
                raise part
            yield part
            if isinstance(part, Footprint):
                break
    except EOFError:
        process.join()
        raise InputError(
            f"{job.name}: its process ended before its work did (exit code {process.exitcode}). If nothing else is "
            "said above, the system stopped it for want of memory: compare on smaller pieces, as by --crop 512."
        ) from None
    finally:
        receiver.close()
        process.join(timeout=5)
        process.terminate()  # nothing happens where it has ended


def _send(job: _Job, sender: Connection) -> None:
    """Do the work and send each part of it, or what is wrong."""
    try:
        for part in _work(job):
            sender.send(part)
    except InputError as error:
        sender.send(error)
    except (MemoryError, RuntimeError) as error:
        if not is_for_memory(error):
            raise
        sender.send(InputError(f"{job.name}: memory ran out; compare on smaller pieces, as by --crop 512."))
    except (KeyboardInterrupt, BrokenPipeError):  # the process that waits is ending, too
        pass


def _work(job: _Job) -> Iterator[Measured | Footprint]:
    """What the model does on each image, and at the end what that took."""
    segmenter = Segmenter(Model.load(job.file), device=job.device, precision="float32", record=False)
    on_cuda = segmenter.device.type == "cuda"
    if on_cuda:
        torch.cuda.reset_peak_memory_stats(segmenter.device)
    _timed(segmenter, job.dataset[0], job.tta)  # compiles and loads what the first use does
    for index in range(len(job.dataset)):
        sample = job.dataset[index]
        found, network_seconds, grouping_seconds = _timed(segmenter, sample, job.tta)
        write_labels(job.found / f"{index}.tif", found.labels)
        pair = pair_of(sample, found)
        precision, leaves = score_image(pair), cvppp.score_image(pair)
        mean = float(precision.average_precision.mean())
        yield Measured(sample.name, mean, precision, leaves, network_seconds, grouping_seconds)
    method = segmenter.model.method
    yield Footprint(
        device=_device_in_words(segmenter.device),
        n_parameters=sum(weights.numel() for weights in method.parameters()),
        is_ordered=isinstance(method, Ordered),
        max_instances=method.max_instances,
        memory=_peak_memory(),
        device_memory=torch.cuda.max_memory_allocated(segmenter.device) if on_cuda else None,
    )


def _timed(segmenter: Segmenter, sample: Sample, tta: bool) -> tuple[Instances, float, float]:
    """What `segment` finds, with the seconds up to the maps and from there on."""
    start = _now(segmenter.device)
    if (sample.image == sample.image[0, 0]).all():  # `segment` runs no network on such an image
        found = segmenter.segment(sample.image, tta=tta, name=sample.name)
        return found, _now(segmenter.device) - start, 0.0
    maps = segmenter.maps(segmenter.prepared(sample.image, name=sample.name), tta=tta)
    between = _now(segmenter.device)
    (found,) = segmenter.model.method.group(maps)
    return found, between - start, _now(segmenter.device) - between


def _now(device: torch.device) -> float:
    """Seconds on a clock, once the device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def _device_in_words(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    n = torch.get_num_threads()
    return f"{device.type.upper()}, {n} thread{'s' * (n != 1)}" if device.type == "cpu" else device.type.upper()


def _peak_memory() -> int | None:
    """Most bytes that this process held at any time; None where the system does not say."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would begin with what the parent held (Linux keeps it over fork and exec)
        kilobytes = re.search(r"VmHWM:\s*(\d+) kB", status.read_text())
        return int(kilobytes[1]) * 1024 if kilobytes else None
    if sys.platform == "win32":
        return None
    import resource  # not on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


# --- verdicts ---------------------------------------------------------------------------------------------------------


def _pair(first: Compared, other: Compared) -> Pair:
    """The other model against the first, with the verdict."""
    precision = paired_difference(
        [image.precision for image in other.images], [image.precision for image in first.images]
    )
    leaves = cvppp.paired_difference([image.leaves for image in other.images], [image.leaves for image in first.images])
    sentences = [
        verdict_on_precision(first.name, other.name, precision),
        verdict_on_counts(leaves.absolute_difference_in_count, leaves.n_images),
        verdict_on_time(first.seconds, other.seconds),
    ]
    is_difference = precision.n_images >= FEWEST and _leaves_out_zero(precision.mean_average_precision)
    return Pair(first.name, other.name, precision, leaves, is_difference, " ".join(filter(None, sentences)))


def verdict_on_precision(first: str, other: str, difference: Difference) -> str:
    """Whether one finds objects better than the other, in a sentence or two."""
    change, n = difference.mean_average_precision, difference.n_images
    if not np.any([difference.by_image.low, difference.by_image.high]):
        return f"{other} and {first} score the same on every picture."
    measured = f"its mean AP is {share(abs(change.value))} {'higher' if change.value > 0 else 'lower'}"
    interval = f"95 % interval of the difference {_signed(change.low)} to {_signed(change.high)}"
    if n < FEWEST:
        return f"Too few pictures ({n}) to say whether {other} differs from {first}: {measured} on these."
    if _leaves_out_zero(change):
        word = "better" if change.value > 0 else "worse"
        return f"{other} is {word} than {first}: {measured} ({interval}); the choice of pictures hardly explains that."
    return (
        f"No difference can be told between {other} and {first}: {measured}, but the choice of pictures can explain "
        f"that ({interval}, which includes 0)."
    )


def verdict_on_counts(difference: Interval, n_images: int) -> str:
    """Whether one counts better than the other, in a sentence; nothing where there are too few images."""
    if n_images < FEWEST:
        return ""
    if difference.low == difference.high == 0:
        return "Their counts are equally far from the truth on every picture."
    interval = f"95 % interval {difference.low:+.2f} to {difference.high:+.2f}".replace("-", MINUS)
    if _leaves_out_zero(difference):
        word = "less" if difference.value < 0 else "more"
        return f"It miscounts by {abs(difference.value):.2f} objects a picture {word} ({interval})."
    return f"In counts no difference can be told ({interval} objects a picture)."


def verdict_on_time(first: float, other: float) -> str:
    """How long one takes against the other; a tenth is within what clocks vary by."""
    ratio = other / first if first > 0 else 1.0
    if 1 / 1.1 < ratio < 1.1:
        return "Both are about equally fast."
    return f"It takes {ratio:.1f} times as long." if ratio > 1 else f"It is {1 / ratio:.1f} times as fast."


def _leaves_out_zero(interval: Interval) -> bool:
    return interval.low > 0 or interval.high < 0


# --- pictures ---------------------------------------------------------------------------------------------------------


def _disagreements(
    compared: Sequence[Compared], dataset: Dataset, found: Sequence[Path], n_shown: int
) -> tuple[Shown, ...]:
    """The images on which the models' scores lie farthest apart, drawn; of equal ones the earlier first."""
    scores = np.array([[image.mean_average_precision for image in model.images] for model in compared])
    spread = scores.max(0) - scores.min(0)
    chosen = np.argsort(-spread, kind="stable")[:n_shown]
    allowed = PAGE_BYTES // max(1, len(chosen) * (len(compared) + 2))
    return tuple(
        Shown(
            dataset.names[index],
            float(scores[:, index].min()),
            float(scores[:, index].max()),
            _panels(dataset[index], index, compared, found, allowed),
        )
        for index in map(int, chosen)
    )


def _panels(
    sample: Sample, index: int, compared: Sequence[Compared], found: Sequence[Path], allowed: int
) -> tuple[Panel, ...]:
    """The picture, the true objects, and those of each model."""
    image, n_truth = sample.image, compared[0].images[index].precision.n_truth
    panels = [
        Panel("Picture", (f"{image.shape[1]} x {image.shape[0]} pixels",), None, _drawn(image, None, allowed)),
        Panel("Truth", (counted(n_truth, "object"),), None, _drawn(image, sample.labels, allowed)),
    ]
    for place, (model, folder) in enumerate(zip(compared, found, strict=True)):
        measured = model.images[index]
        half = measured.precision.average_precision[model.summary.index(0.5)]
        below = (
            f"{measured.precision.n_found:,} found, {n_truth:,} true",
            f"AP.50 {share(half)}, mean AP {share(measured.mean_average_precision)}",
        )
        labels = read_labels(folder / f"{index}.tif")
        drawn = _drawn(image, labels, allowed, order=model.footprint.is_ordered)
        panels.append(Panel(model.name, below, place, drawn))
    return tuple(panels)


def _drawn(
    image: Shaped[np.ndarray, "h w c"], labels: Int32[np.ndarray, "h w"] | None, allowed: int, *, order: bool = False
) -> bytes:
    """The picture, with outlines if there are labels, as a JPEG of at most so many bytes, or of the least size."""
    bare = overlay(image, Instances.from_labels(np.zeros(image.shape[:2], np.int32)))
    for side in SIDES:
        size = _size(image.shape[:2], side)
        picture = np.asarray(Image.fromarray(bare).resize(size[::-1], Image.Resampling.LANCZOS))
        if labels is not None:  # drawn at this size, as a line would not survive shrinking
            picture = overlay(picture, Instances.from_labels(_nearest(labels, size)), order=order, thick=True)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=0)
        if file.tell() <= allowed:
            break
    return file.getvalue()


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Rows and columns of a picture whose longer side is this one; small ones are enlarged, for fine lines."""
    factor = side / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _nearest(labels: Int32[np.ndarray, "h w"], size: tuple[int, int]) -> Int32[np.ndarray, "_ _"]:
    """The label image at another size."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]


# --- page and JSON ----------------------------------------------------------------------------------------------------


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Every number as plain numbers and lists; of the pictures only which ones they are."""
    shown = [{"name": image.name, "lowest": image.lowest, "highest": image.highest} for image in comparison.shown]
    return plain(dataclasses.replace(comparison, shown=())) | {"shown": shown}


def write_page(comparison: Comparison, path: str | Path, *, command: str = "") -> None:
    """Write the one page that shows all of it; it needs no other file and no network.

    Args:
        comparison: what to show.
        path: the file, by custom `.html`.
        command: that it was made by, if by one.

    Raises:
        InputError: if the file cannot be written, or as `check_page` does.
    """
    columns = _columns(comparison.models)
    page = _template().render(
        comparison=comparison,
        first=comparison.models[0],
        command=command,
        made=datetime.datetime.fromisoformat(comparison.date).strftime("%d %B %Y, %H:%M").lstrip("0"),
        columns=columns,
        over=Counter(column.over for column in columns),
        by_picture=_by_picture(comparison.models),
        fewest=FEWEST,
    )
    with atomic(path) as temporary:
        temporary.write_text(page, encoding="utf-8")


def check_page() -> None:
    """See that a page can be made at all.

    Raises:
        InputError: if jinja2 is not installed.
    """
    _template()


@dataclass(frozen=True)
class _Column:
    """A column of the table of scores, a cell for each model."""

    over: str  # heading of it and its neighbours
    heading: str
    values: tuple[str, ...]
    intervals: tuple[str, ...]
    is_best: tuple[bool, ...]


def _columns(models: Sequence[Compared]) -> list[_Column]:
    """The table of scores."""
    places = [models[0].summary.index(threshold) for threshold in SHOWN]
    headings = [f"AP {share(threshold)[:3]}" for threshold in SHOWN]
    by_image, pooled, counts = "AP, mean over pictures", "AP, all objects together", "Counts, a picture"
    return [
        *(
            _shares(by_image, heading, [model.summary.by_image.at(place) for model in models])
            for heading, place in zip(headings, places, strict=True)
        ),
        _shares(by_image, "mean AP", [model.summary.mean_average_precision for model in models]),
        *(
            _shares(pooled, heading, [model.summary.average_precision.at(place) for model in models])
            for heading, place in zip(headings, places, strict=True)
        ),
        _counts(counts, "found less true", [model.leaves.difference_in_count for model in models], sign="+"),
        _counts(counts, "miscounted", [model.leaves.absolute_difference_in_count for model in models]),
        _shares("Overlap", "SBD", [model.leaves.symmetric_best_dice for model in models]),
    ]


def _shares(over: str, heading: str, cells: Sequence[Interval]) -> _Column:
    """A column of values from 0 to 1, the highest being the best."""
    values = tuple(share(cell.value) for cell in cells)
    intervals = tuple(_interval(cell) for cell in cells)
    return _Column(over, heading, values, intervals, _is(max(values, key=lambda v: "0" + v), values))


def _interval(interval: Interval) -> str:
    """Both ends of an interval of shares."""
    return f"{share(interval.low)}\N{EN DASH}{share(interval.high)}"


def _counts(over: str, heading: str, cells: Sequence[Interval], *, sign: str = "") -> _Column:
    """A column of numbers of objects, the one nearest to 0 being the best."""
    values = tuple(f"{cell.value:{sign}.2f}".replace("-", MINUS) for cell in cells)
    intervals = tuple(f"{cell.low:{sign}.2f} to {cell.high:{sign}.2f}".replace("-", MINUS) for cell in cells)
    nearest = min(zip(cells, values, strict=True), key=lambda cell: abs(cell[0].value))[1]
    return _Column(over, heading, values, intervals, _is(nearest, values))


def _is(best: str, values: Sequence[str]) -> tuple[bool, ...]:
    """Which values are the best as printed; none where all are."""
    return tuple(value == best and len(set(values)) > 1 for value in values)


def _by_picture(models: Sequence[Compared]) -> list[tuple[str, list[float]]]:
    """Each image with every model's mean AP, from hard to easy for the first."""
    scores = [[image.mean_average_precision for image in model.images] for model in models]
    names = [image.name for image in models[0].images]
    return sorted(zip(names, map(list, zip(*scores, strict=True)), strict=True), key=lambda image: image[1])


def _template() -> Any:
    """The page with gaps."""
    try:
        import jinja2  # torch brings it along, but does not promise to
    except ImportError as error:
        raise InputError(f"The page needs jinja2, which is not installed. {install('report')}") from error
    gaps = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    gaps.filters |= {
        "share": share, "interval": _interval, "seconds": _seconds, "bytes": _bytes, "counted": counted,
        "up": lambda value: round(270.0 - 260 * float(value), 1),  # where a share stands in a plot
        "inline": lambda jpeg: "data:image/jpeg;base64," + base64.b64encode(jpeg).decode(),
    }  # fmt: skip
    return gaps.get_template("comparison.html")


def _signed(value: float) -> str:
    """A difference of shares with its sign, as in +.052."""
    return (MINUS if round(value, 3) < 0 else "+") + share(abs(value))


def _seconds(value: float) -> str:
    """A time in milliseconds or seconds, to about three digits."""
    return f"{1000 * value:.0f} ms" if value < 0.9995 else f"{value:.1f} s"


def _bytes(value: int) -> str:
    return f"{value / 1e6:.1f} MB" if value < 1e8 else f"{value / 1e9:.2f} GB"
