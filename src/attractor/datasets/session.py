"""The folder of `attractor.session`: label images being corrected, of which only reviewed pixels count.

`project.toml` names the classes, `objects/` has a JSON for each image with class and score of its labels, and
`reviewed/` an image that is not 0 where somebody has looked. Pixels that nobody reviewed are ignored, and images
without any reviewed pixel are left out.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import tomli_w
from jaxtyping import Bool, Int32

from attractor.datasets.columns import write_columns
from attractor.datasets.label_images import LabelImages
from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.sample import Dataset, Sample, distinct
from attractor.errors import InputError
from attractor.images import (
    durable,
    flush,
    image_suffix,
    made,
    read_image,
    read_labels,
    write_image,
    write_labels,
    write_mask,
)
from attractor.instances import relabel

PROJECT = "project.toml"
EDITS = "edits.jsonl"
FORMAT = 1
LARGEST_PROJECT = 1 << 22  # bytes
LARGEST_OBJECTS = 1 << 30
LONGEST_SUMMARY = 1000  # characters of the file, at whose start it stands

Known = tuple[int, float | None]  # class, counted from 1, and score


class SessionImages(LabelImages):
    """The reviewed part of a session."""

    layout: ClassVar[str] = "a folder that `attractor correct` made"
    holds: ClassVar[Holds] = Holds(ignore=True, columns=True)

    def __init__(self, folder: str | Path) -> None:
        """Pair the files of those images that somebody has begun to review.

        Raises:
            InputError: if it is no session, or no image was reviewed yet.
        """
        self._folder = Path(folder)
        self.class_names = tuple(read_project(self._folder)["classes"])
        super().__init__(folder)

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[SessionImages, list[str]]:
        """The data set; files of a session are written together, so that there is nothing else to report."""
        return cls(path), []

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is the folder of a session."""
        folder = Path(path)
        is_such = (folder / PROJECT).is_file() and ((folder / "labels").is_dir() or (folder / EDITS).is_file())
        return Evidence.STRUCTURE if is_such else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as a session in which everything but ignored pixels has been reviewed."""
        names = []
        for sample in distinct(samples, folder):
            names.append(sample.name)
            write_image(made(folder / "images") / (sample.name + image_suffix(sample.image)), sample.image)
            known: dict[int, Known] = {label: (int(number), None) for label, number in enumerate(sample.classes, 1)}
            write_state(folder, sample.name, sample.labels, ~sample.ignore, known)
            write_reviewed(folder, sample.name, ~sample.ignore)
        write_columns(folder, described.columns, names)
        write_project(made(folder), {"classes": list(described.class_names)})

    def _pair(self, images: Path, labels: Path, shown: int = 3) -> list[str]:
        """Those files that somebody has begun to review."""
        super()._pair(images, labels, shown)
        begun = [path.stem for path in (self._folder / "reviewed").glob("*.png")]
        kept = [(name, pair) for name, pair in zip(self.names, self._pairs, strict=True) if name in set(begun)]
        if not kept:
            return [f"{self._folder}: nobody has reviewed anything yet; correct or accept some objects first."]
        self.names, self._pairs = tuple(name for name, _ in kept), [pair for _, pair in kept]
        return []

    def __getitem__(self, index: int) -> Sample:
        """Read one image, and of its labels what has been reviewed, renumbered 1 to k.

        Raises:
            InputError: if a file cannot be read, or sizes differ.
        """
        sample, name = super().__getitem__(index), self.names[index]
        reviewed = read_reviewed(self._folder, name, sample.labels.shape)
        stored = read_labels(self._pairs[index][1])
        in_part = np.unique(stored[~reviewed])  # objects that nobody has seen whole
        reviewed &= ~np.isin(stored, in_part[in_part > 0])
        labels, ids = relabel(np.where(reviewed, stored, 0))
        known, _ = read_objects(self._folder, name)
        classes = np.array([min(known.get(int(i), (1, None))[0], len(self.class_names)) for i in ids], np.int32)
        return Sample(name, sample.image, labels, classes, ~reviewed)


def read_project(folder: Path) -> dict[str, Any]:
    """What project.toml says; there are class names in any case.

    Raises:
        InputError: if it cannot be read, or is from a newer version.
    """
    path = folder / PROJECT
    try:
        with path.open("rb") as file:
            content = tomllib.loads(file.read(LARGEST_PROJECT).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); the folder of a session has this file.") from error
    if content.get("format") != FORMAT:
        raise InputError(f"{path}: has format {content.get('format')}; this version reads format {FORMAT}.")
    classes = content.get("classes")
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) and name for name in classes):
        raise InputError(f"{path}: classes must be a list of names, and have one at least.")
    return content


def write_project(folder: Path, content: Mapping[str, Any]) -> None:
    """Write project.toml."""
    with durable(folder / PROJECT) as temporary:
        temporary.write_text(tomli_w.dumps({"format": FORMAT, **content}), encoding="utf-8")


def read_reviewed(folder: Path, name: str, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """Which pixels of an image somebody has looked at; none without a file.

    Raises:
        InputError: if the file cannot be read, or has another size.
    """
    path = folder / "reviewed" / f"{name}.png"
    if not path.exists():
        return np.zeros(shape, bool)
    reviewed = np.asarray(read_image(path).all(2))
    if reviewed.shape != shape:
        raise InputError(f"{path}: has {reviewed.shape} pixels, but the label image has {shape}; it is of another one.")
    return reviewed


def write_reviewed(folder: Path, name: str, reviewed: Bool[np.ndarray, "h w"]) -> None:
    """Write which pixels were looked at."""
    write_mask(made(folder / "reviewed") / f"{name}.png", reviewed, through=durable)


def read_objects(folder: Path, name: str) -> tuple[dict[int, Known], int]:
    """Class and score of each label of an image, and the revision that its files are of; nothing without a file.

    Raises:
        InputError: if the file cannot be read.
    """
    path = folder / "objects" / f"{name}.json"
    if not path.exists():
        return {}, 0
    try:
        if path.stat().st_size > LARGEST_OBJECTS:
            raise ValueError("it is too large")
        content = json.loads(path.read_text(encoding="utf-8"))
        objects, revision = content["objects"], int(content["revision"])
        known = {int(label): (int(number), None if s is None else float(s)) for label, (number, s) in objects.items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise InputError(f"{path}: cannot be read ({error}); the page of a session writes it.") from error
    if any(label < 1 or number < 1 for label, (number, _) in known.items()):
        raise InputError(f"{path}: labels and classes are counted from 1.")
    return known, revision


def write_objects(
    folder: Path, name: str, known: Mapping[int, Known], revision: int = 0, summary: Mapping[str, Any] | None = None
) -> None:
    """Write class and score of each label, the revision that an image's files are of, and a summary of them."""
    objects = {str(label): list(values) for label, values in known.items()}
    with durable(made(folder / "objects") / f"{name}.json") as temporary:
        temporary.write_text(json.dumps({"revision": revision, "summary": dict(summary or {}), "objects": objects}))


def read_summary(folder: Path, name: str) -> dict[str, Any]:
    """The summary of an image, if its other files have not been changed since it was written; else nothing."""
    path = folder / "objects" / f"{name}.json"
    others = folder / "labels" / f"{name}.tif", folder / "reviewed" / f"{name}.png"
    try:
        with path.open(encoding="utf-8") as file:
            start = file.read(LONGEST_SUMMARY)
        summary, _ = json.JSONDecoder().raw_decode(start, start.index('"summary": ') + len('"summary": '))
        written = path.stat().st_mtime_ns
        is_new = all(other.stat().st_mtime_ns <= written for other in others if other.exists())
        return summary if is_new and others[1].exists() == (summary["reviewed"] > 0) else {}
    except (OSError, ValueError, RecursionError, TypeError, KeyError):
        return {}


def write_state(
    folder: Path,
    name: str,
    labels: Int32[np.ndarray, "h w"],
    reviewed: Bool[np.ndarray, "h w"],
    known: Mapping[int, Known],
    revision: int = 0,
    summary: Mapping[str, Any] | None = None,
) -> None:
    """Write all that is known of an image; each file appears whole or not at all, the revision with the last.

    The others are on the disk before it, whatever happens to the power.
    """
    write_labels(made(folder / "labels") / f"{name}.tif", labels, through=durable)
    if reviewed.any():
        write_reviewed(folder, name, reviewed)
    else:
        (folder / "reviewed" / f"{name}.png").unlink(missing_ok=True)
    for part in ("labels", "reviewed"):
        if (folder / part).is_dir():
            flush(folder / part)
    write_objects(folder, name, known, revision, summary)
