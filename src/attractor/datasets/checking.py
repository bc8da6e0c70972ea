"""What is wrong with a data set, and which settings suit it.

Every image is read once. Errors are what training would stop at; warnings are what it would learn wrongly or never
find. After an error the rest is still checked, so that one run lists everything, at most ten of a kind.

Shapes: `k` objects, `m` images.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32
from scipy import ndimage
from skimage.measure import label as connected_parts

from attractor.datasets import DATASETS, layout_of
from attractor.datasets.in_front import drawn_by, suggested_rule
from attractor.datasets.layout import Overlapping
from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError
from attractor.instances import areas
from attractor.statistics import COARSE, TINY, ObjectStatistics, joined
from attractor.wording import counted

MOST_OF_A_KIND = 10


@dataclass(frozen=True)
class Report:
    """What `check` found, in sentences."""

    errors: tuple[str, ...]
    warnings: tuple[str, ...]
    facts: tuple[str, ...]
    suggestions: tuple[str, ...]
    counts: dict[str, int]  # of errors and warnings, listed or not, and of images and objects
    statistics: ObjectStatistics
    class_names: tuple[str, ...]
    class_counts: dict[str, int]  # class to its number of objects
    object_counts: dict[str, int]  # image to its number of objects

    def for_model(self, class_names: tuple[str, ...], max_instances: int | None, n_axes: int = 2) -> Report:
        """The report, with what a model cannot handle in these data added.

        Args:
            class_names: the model's; where it or the data have only one class, names do not matter.
            max_instances: the most objects that the model can find in an image; None for any number.
            n_axes: two for a model of images, three for one of volumes.
        """
        errors = list(_lacking(self.class_names, self.class_counts, class_names))
        if self.statistics.images and self.statistics.n_axes != n_axes:
            own, other = ("volumes", "images") if n_axes == 3 else ("images", "volumes")
            errors.append(f"The model takes {own}, and the data are {other}; take a model for {other}.")
        warnings = list(_too_many(self.object_counts, max_instances))
        more = {"errors": len(errors), "warnings": len(warnings)}
        return replace(
            self,
            errors=(*self.errors, *errors),
            warnings=(*self.warnings, *warnings),
            counts={what: n + more.get(what, 0) for what, n in self.counts.items()},
        )

    def lines(self) -> list[str]:
        """The report as text, with the worst last, where one looks in a terminal."""
        text = list(self.facts)
        for title, sentences in (
            ("Suggested settings", self.suggestions),
            ("Warnings", self.warnings),
            ("Errors", self.errors),
        ):
            if sentences:
                text += ["", f"{title}:", *(f"  {line}" for sentence in sentences for line in sentence.splitlines())]
        verdict = "This data set cannot be used as it is." if self.errors else "This data set can be used."
        n_errors, n_warnings = self.counts["errors"], self.counts["warnings"]
        return [*text, "", f"{verdict} {counted(n_errors, 'error')}, {counted(n_warnings, 'warning')}."]


def check(path: str | Path, *, overlap: str | None = None) -> Report:
    """Read a whole data set and say what is wrong with it, what is in it, and which settings suit it.

    Objects that overlap are drawn as in a training: by `overlap`, a rule of `attractor.datasets.in_front`, or by that
    of a recipe made from these data.

    Nothing is raised for what is wrong with the data: it is listed in `errors`.
    """
    findings = _Findings()
    try:
        layout = layout_of(path)
        whole, problems = DATASETS[layout].salvage(Path(path))
        rule = _rule_for(whole) if overlap is None else overlap
        dataset = drawn_by(whole, rule)
    except InputError as error:
        findings.errors.append(str(error))
        return findings.report([], [])
    findings.errors += problems
    for index in range(len(dataset)):
        try:
            findings.look_at(dataset[index], dataset, index)
        except InputError as error:
            findings.errors.append(str(error))
    if len(dataset) < 2:
        findings.errors.append(
            f"{path}: has {counted(len(dataset), 'usable image')}; training needs at least 2, one to validate on."
        )
    head = [f"{path}: {layout}, {counted(len(findings.measured), 'readable image')}"]
    if rule != "ignore":
        head.append(f"overlaps: {rule}, {'as in training' if overlap is None else 'as asked for'} (data.overlap)")
    return findings.report(head, dataset.class_names)


def _rule_for(dataset: Dataset) -> str:
    """Who is in front by the recipe that would be made; "ignore" if the first image is damaged, an error of its own."""
    try:
        return suggested_rule(dataset)
    except InputError:
        return "ignore"


def object_statistics(dataset: Dataset) -> ObjectStatistics:
    """Sizes of the objects of a data set, reading each image once.

    Raises:
        InputError: if an image cannot be read.
    """
    n_classes = len(dataset.class_names)
    return joined([statistics_of(dataset[index], n_classes) for index in range(len(dataset))], n_classes)


def statistics_of(sample: Sample, n_classes: int) -> ObjectStatistics:
    """Sizes of the objects of one image or volume."""
    boxes = ndimage.find_objects(sample.labels)
    extents = [[part.stop - part.start for part in box] for box in boxes]
    return ObjectStatistics(
        areas=areas(sample.labels, len(boxes)),
        extents=np.array(extents, np.int64).reshape(-1, sample.labels.ndim),
        image_sizes=np.array([sample.labels.shape], np.int64),
        classes=sample.classes[: len(boxes)],
        n_classes=n_classes,
        spacings=(sample.spacing,) if sample.labels.ndim == 3 else (),
    )


def _pieces(labels: Int32[np.ndarray, "*s"]) -> Int[np.ndarray, " k"]:
    """Number of separate pieces of each label; diagonal neighbours belong to one piece."""
    parts = connected_parts(labels, connectivity=labels.ndim)
    _, first = np.unique(parts, return_index=True)  # a pixel of each piece
    return np.bincount(labels.ravel()[first], minlength=int(labels.max(initial=0)) + 1)[1:]


@dataclass
class _Findings:
    """What was seen so far, image by image."""

    errors: list[str] = field(default_factory=list)
    object_counts: dict[str, int] = field(default_factory=dict)  # image to its number of objects
    measured: list[ObjectStatistics] = field(default_factory=list)  # of each image
    kinds: Counter[tuple[int, str]] = field(default_factory=Counter)  # channels and type of the pixels
    classes: Counter[int] = field(default_factory=Counter)
    empty: list[str] = field(default_factory=list)
    tiny: Counter[str] = field(default_factory=Counter)
    in_pieces: list[tuple[int, str]] = field(default_factory=list)  # pieces, where
    ignored: list[float] = field(default_factory=list)  # part of each image
    claimed_twice: list[tuple[float, str]] = field(default_factory=list)
    lost: Counter[str] = field(default_factory=Counter)  # annotated objects without a pixel of their own

    def look_at(self, sample: Sample, dataset: Dataset, index: int) -> None:
        """Add one sample."""
        self.kinds[sample.image.shape[-1], str(sample.image.dtype)] += 1
        self.classes.update(sample.classes.tolist())
        self.ignored.append(float(sample.ignore.mean()))
        self.measured.append(statistics_of(sample, len(dataset.class_names)))
        area = self.measured[-1].areas
        self.object_counts[sample.name] = len(area)
        if not len(area):
            self.empty.append(sample.name)
        if n_tiny := int((area <= TINY).sum()):
            self.tiny[sample.name] = n_tiny
        pieces, boxes = _pieces(sample.labels), ndimage.find_objects(sample.labels)
        for k in np.flatnonzero(pieces > 1):
            self.in_pieces.append(
                (int(pieces[k]), f"{sample.name} at {_first_place(sample.labels, boxes[k], int(k) + 1)}")
            )
        if isinstance(dataset, Overlapping):
            if share := dataset.overlap_share(index):
                self.claimed_twice.append((share, sample.name))
            if n_lost := dataset.object_count(index) - len(area):
                self.lost[sample.name] = n_lost

    def report(self, head: list[str], class_names: Iterable[str]) -> Report:
        """Everything in sentences."""
        class_names = tuple(class_names)
        try:
            statistics = joined(self.measured, len(class_names))
        except InputError as error:
            self.errors.append(str(error))
            statistics = joined([], len(class_names))
        warnings = list(self._warnings(statistics, class_names))
        return Report(
            errors=tuple(_shortened(self.errors)),
            warnings=tuple(warnings),
            facts=tuple(head + list(self._facts(statistics, class_names))),
            suggestions=tuple(_suggestions(statistics)),
            counts={
                "errors": len(self.errors),
                "warnings": len(warnings),
                "images": statistics.images,
                "objects": statistics.count,
            },
            statistics=statistics,
            class_names=class_names,
            class_counts={name: self.classes[number] for number, name in enumerate(class_names, 1)},
            object_counts=self.object_counts,
        )

    def _warnings(self, statistics: ObjectStatistics, class_names: tuple[str, ...]) -> Iterator[str]:
        """What training would learn wrongly or never find."""
        if len({channels for channels, _ in self.kinds}) > 1:
            yield (
                f"Images differ in channels: {self._kinds()}. A model takes only one number of them; grey and RGB are "
                "turned into each other."
            )
        elif len(self.kinds) > 1:
            yield f"Images differ in the type of their pixels: {self._kinds()}. Intensities may not be comparable."
        if self.empty:
            found = f"{counted(len(self.empty), 'image')} without an object: {_listed(self.empty)}"
            yield f"{found}. This is right if there is no object to see."
        if self.in_pieces:
            worst = [f"{place} ({n} pieces)" for n, place in sorted(self.in_pieces, key=lambda found: -found[0])]
            yield (
                f"{counted(len(self.in_pieces), 'object')} in several pieces: {_listed(worst, 3)}. "
                "This is right if something lies across them; else two objects share a label, or some pixels are stray."
            )
        if self.tiny:
            where = [f"{name} ({n})" for name, n in self.tiny.most_common()]
            found = f"{counted(self.tiny.total(), 'object')} of {TINY} pixels or fewer"
            yield f"{found}, too small to be found: {_listed(where, 5)}."
        if self.claimed_twice:
            where = [f"{name} ({share:.0%})" for share, name in sorted(self.claimed_twice, key=lambda found: -found[0])]
            yield (
                f"{counted(len(self.claimed_twice), 'image')} with pixels that two objects claim; they are ignored in "
                f"training, unless data.overlap says who is in front: {_listed(where, 5)}."
            )
        if self.lost:
            where = [f"{name} ({n})" for name, n in self.lost.most_common()]
            yield (
                f"{counted(self.lost.total(), 'annotated object')} left out, as others claim all of their pixels: "
                f"{_listed(where, 5)}."
            )
        without = [name for number, name in enumerate(class_names, 1) if not self.classes[number]]
        if without and statistics.count:
            yield f"{counted(len(without), 'class', 'classes')} without an object: {_listed(without)}."

    def _facts(self, statistics: ObjectStatistics, class_names: tuple[str, ...]) -> Iterator[str]:
        """What is in the data set."""
        if not statistics.images:
            return
        low, high = statistics.image_sizes.min(axis=0), statistics.image_sizes.max(axis=0)
        span = _by(low) + (f" to {_by(high)}" if (low != high).any() else "")
        what, element = ("volumes", "voxels") if statistics.n_axes == 3 else ("images", "pixels")
        yield f"{what}: {span} {element}; {self._kinds()}"
        if statistics.n_axes == 3:
            yield from self._spacing(statistics)
        per_image = sorted(image.count for image in self.measured)
        yield (
            f"objects: {statistics.count}, {per_image[0]} to {per_image[-1]} in an image, "
            f"{np.median(per_image):g} in the median image"
        )
        if len(class_names) > 1:
            yield from self._by_class(statistics, class_names)
        if statistics.count:
            share = statistics.area_percentiles
            size, element = ("volume", "voxels") if statistics.n_axes == 3 else ("area", "pixels")
            yield f"{size}: {share[50]:.0f} {element} in the median, {share[5]:.0f} to {share[95]:.0f} for nine in ten"
            *planes, rows, columns = np.percentile(statistics.extents, 95, axis=0)
            sides = "".join(f"{n:.0f} planes, " for n in planes) + f"{rows:.0f} rows and {columns:.0f} columns"
            yield f"extent: 95 % of objects extend over at most {sides}"
        if any(self.ignored):
            touched = sum(share > 0 for share in self.ignored)
            where = f"{counted(touched, 'image')} (crowds, void, and what two objects claim)"
            yield f"ignored: {np.mean(self.ignored):.1%} of all pixels, in {where}"

    @staticmethod
    def _spacing(statistics: ObjectStatistics) -> Iterator[str]:
        """How long the steps of volumes are."""
        unknown = sum(spacing is None for spacing in statistics.spacings)
        if statistics.spacing is None:
            yield "voxels: no file says how large they are, so steps along all axes are taken to be alike"
            return
        known = np.array([spacing for spacing in statistics.spacings if spacing is not None])
        low, high = (_by(f"{side:.3g}" for side in sides) for sides in (known.min(0), known.max(0)))
        span = f"{low} um" if low == high else f"{low} to {high} um"
        yield f"voxels: {span} (planes, rows, columns)" + (f"; unknown in {unknown}" if unknown else "")

    def _by_class(self, statistics: ObjectStatistics, class_names: tuple[str, ...]) -> Iterator[str]:
        """A table with a row for each class."""
        images = Counter(number for image in self.measured for number in set(image.classes.tolist()))
        rows = [("class", "objects", "images", "of all pixels", "median area")]
        for number, name in enumerate(class_names, 1):
            own = statistics.areas[statistics.classes == number]
            share = statistics.class_shares[number - 1]
            area = f"{np.median(own):.0f}" if len(own) else "-"
            rows.append((name, str(self.classes[number]), str(images[number]), f"{share:.2%}", area))
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        for name, *numbers in rows:
            cells = [number.rjust(width) for number, width in zip(numbers, widths[1:], strict=True)]
            yield "  ".join([f"  {name.ljust(widths[0])}", *cells])

    def _kinds(self) -> str:
        """The images by channels and type."""
        one = len(self.kinds) == 1
        return ", ".join(
            ("" if one else f"{n} with ") + f"{counted(channels, 'channel')} {dtype}"
            for (channels, dtype), n in self.kinds.most_common()
        )


def _suggestions(statistics: ObjectStatistics) -> Iterator[str]:
    """Settings that follow from the objects' sizes."""
    if not statistics.count:
        return
    seen = statistics.scaled(statistics.scale)
    if statistics.scale != 1:
        yield (
            f"scale {statistics.scale:g}: from scratch, the network sees such large objects {COARSE} pixels across, in "
            "crops of that scale; with --from, it keeps the scale of the model"
        )
    if statistics.n_axes == 3:
        yield (
            f"crop size {seen.crop_size}, crop depth {seen.crop_depth}: about twice the extent of large "
            "objects, and never more than the volumes"
        )
    else:
        yield (
            f"crop size {seen.crop_size}: about twice the extent of large objects, 128 to 512 pixels, and never "
            "more than the images"
        )
    element = "voxels" if statistics.n_axes == 3 else "pixels"
    yield f"minimum object {statistics.min_object} {element}: 99.5 % of the objects here are at least this large"
    yield f"typical object size {statistics.typical_size:.1f} pixels: the median diameter"


def _first_place(labels: Int32[np.ndarray, "*s"], box: tuple[slice, ...], label: int) -> str:
    """Where the first pixel of an object is, in words."""
    place = np.argwhere(labels[box] == label)[0] + [side.start for side in box]
    words = ("plane", "row", "column")[-labels.ndim :]
    return ", ".join(f"{word} {index}" for word, index in zip(words, place.tolist(), strict=True))


def _by(sides: Iterable[object]) -> str:
    """Lengths in words."""
    return " x ".join(map(str, sides))


def _lacking(of_data: tuple[str, ...], counts: dict[str, int], of_model: tuple[str, ...]) -> Iterator[str]:
    """Classes with objects that a model lacks."""
    if len(of_data) <= 1 and len(of_model) <= 1:
        return
    if lacking := [name for name in of_data if counts[name] and name not in of_model]:
        found = ", ".join(f"{name} ({counted(counts[name], 'object')})" for name in lacking)
        lacks = f"The model lacks {counted(len(lacking), 'class', 'classes')} of the data: {found}"
        yield f"{lacks}; it has {_listed([*of_model])}."


def _too_many(counts: dict[str, int], most: int | None) -> Iterator[str]:
    """Images with more objects than a model can find."""
    crowded = {name: n for name, n in counts.items() if most is not None and n > most}
    if crowded:
        where = [f"{name} ({n:,})" for name, n in sorted(crowded.items(), key=lambda item: -item[1])]
        yield (
            f"{counted(len(crowded), 'image')} with more than the {most:,} objects that the model can find, up to "
            f"{max(crowded.values()):,}: {_listed(where, 5)}; such images lose their smallest objects in training, and "
            f"at most {most:,} are found."
        )


def _shortened(sentences: list[str]) -> Iterator[str]:
    """At most ten sentences of a kind, and how many more; a kind is a sentence without its file and its numbers."""
    seen: Counter[str] = Counter()
    for sentence in sentences:
        seen[_kind(sentence)] += 1
        if seen[_kind(sentence)] <= MOST_OF_A_KIND:
            yield sentence
    for sentence in sentences:
        if (more := seen.pop(_kind(sentence), 0) - MOST_OF_A_KIND) > 0:
            yield f"and {more} more: {_kind(sentence, numbers='…')}"


def _kind(sentence: str, numbers: str = "#") -> str:
    """The sentence without what differs from file to file: names of files and numbers."""
    words = [word for word in sentence.split() if "/" not in word and "\\" not in word]
    return re.sub(r"\d[\d.]*\d|\d", numbers, re.sub(r"\S+\.(png|tiff?|jpe?g|webp)\b", "its file", " ".join(words)))


def _listed(names: list[str], shown: int = MOST_OF_A_KIND) -> str:
    """The first names, and how many more."""
    return ", ".join(names[:shown]) + (f" and {len(names) - shown} more" if len(names) > shown else "")
