"""Images beside label images: `images/` and `labels/` with equal stems, as most microscopy data sets come.

A label image is a PNG or TIFF whose numbers say which object a pixel belongs to, 0 being background. Volumes are TIFF
stacks, folders of slices, OME-Zarr or HDF5, images and labels alike. `images.csv` beside the two folders may tell more
about each image (see `columns`). All objects are of one class, and no pixel is ignored.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import ClassVar

import numpy as np

from attractor.datasets.columns import read_columns, write_columns
from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.sample import Dataset, Sample, distinct
from attractor.errors import InputError
from attractor.images import (
    IMAGE_SUFFIXES,
    image_suffix,
    made,
    n_axes_of,
    pixel_size,
    read_image,
    read_labels,
    volumes_in,
    write_image,
    write_labels,
)
from attractor.instances import relabel


class LabelImages:
    """A folder with `images/` and `labels/`, or these two folders wherever they are."""

    layout: ClassVar[str] = "a folder with images/ and labels/ (PNG or TIFF), paired by stem"
    holds: ClassVar[Holds] = Holds(classes=False, columns=True, volumes=True)
    class_names: tuple[str, ...] = ("object",)

    def __init__(
        self, folder: str | Path | None = None, *, images: str | Path | None = None, labels: str | Path | None = None
    ) -> None:
        """Pair the files of both folders; `images` and `labels` take precedence over `folder`.

        Raises:
            InputError: if a folder is missing, holds no image, or files have no partner.
        """
        problems = self._pair(*_folders(folder, images, labels))
        if problems:
            raise InputError("\n".join(problems))
        if not self.names:
            raise InputError(f"{self._images}: holds no image; files must end in one of {', '.join(IMAGE_SUFFIXES)}.")
        self.columns = read_columns(self._images.parent, self.names) if folder is not None else {}

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[LabelImages, list[str]]:
        """The data set of those files that have a partner, and what is wrong with the others."""
        dataset = cls.__new__(cls)
        problems = dataset._pair(*_folders(path, None, None), shown=10)
        try:
            dataset.columns = read_columns(Path(path), dataset.names)
        except InputError as error:
            dataset.columns = {}
            problems.append(str(error))
        return dataset, problems

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder laid out like this."""
        is_such = (Path(path) / "images").is_dir() and (Path(path) / "labels").is_dir()
        return Evidence.FOLDERS if is_such else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_label_images` does."""
        write_label_images(folder, samples, columns=described.columns)

    def _pair(self, images: Path, labels: Path, shown: int = 3) -> list[str]:
        """Find the pairs, and say what has no partner."""
        self._images = images
        image_files, label_files = _by_stem(images), _by_stem(labels)
        paired = image_files.keys() & label_files.keys()
        for files in (image_files, label_files):  # a folder without a partner is something else
            for name in [name for name, path in files.items() if path.is_dir() and name not in paired]:
                del files[name]
        self.names = tuple(sorted(paired))
        self._pairs = [(image_files[name], label_files[name]) for name in self.names]
        advice = "Image and label image must have the same stem."
        return _unpaired(image_files, label_files, f"no label image in {labels}. {advice}", images, "image", shown) + (
            _unpaired(label_files, image_files, f"no image in {images}. {advice}", labels, "label image", shown)
        )

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its labels, renumbered 1 to k.

        Raises:
            InputError: if a file cannot be read or the two differ in size.
        """
        image_file, label_file = self._pairs[index]
        n_axes = n_axes_of(image_file)
        image = read_image(image_file, n_axes=n_axes)
        labels, ids = relabel(read_labels(label_file, n_axes=n_axes))
        if image.shape[:-1] != labels.shape:
            sides = "rows and columns" if n_axes == 2 else "planes, rows and columns"
            raise InputError(
                f"{label_file}: has {_by(labels.shape)} pixels, but its image {image_file.name} has "
                f"{_by(image.shape[:-1])}; both must have the same {sides}."
            )
        spacing = None
        if n_axes == 3:
            spacing = pixel_size(image_file, n_axes=3) or pixel_size(label_file, n_axes=3)
        classes, ignore = np.ones(len(ids), np.int32), np.zeros(labels.shape, bool)
        return Sample(self.names[index], image, labels, classes, ignore, spacing=spacing)


def _by(shape: tuple[int, ...]) -> str:
    """Lengths in words."""
    return " x ".join(map(str, shape))


def write_label_images(
    folder: str | Path, samples: Iterable[Sample], *, columns: dict[str, dict[str, str]] | None = None
) -> None:
    """Write samples as `images/`, `labels/` and, given columns, `images.csv`; classes and ignored pixels are not kept.

    Raises:
        InputError: if a file cannot be written, or two samples have the same name.
    """
    folder, names = Path(folder), []
    for part in ("images", "labels"):
        made(folder / part)
    for sample in distinct(samples, folder):
        names.append(sample.name)
        n_axes = sample.labels.ndim
        name = sample.name + image_suffix(sample.image, n_axes=n_axes)
        write_image(folder / "images" / name, sample.image, n_axes=n_axes, spacing=sample.spacing)
        suffix = ".png" if sample.labels.max(initial=0) <= 65535 and n_axes == 2 else ".tif"
        write_labels(folder / "labels" / (sample.name + suffix), sample.labels, spacing=sample.spacing)
    write_columns(folder, columns or {}, names)


def _folders(folder: str | Path | None, images: str | Path | None, labels: str | Path | None) -> tuple[Path, Path]:
    """Where images and label images lie."""
    if folder is None and (images is None or labels is None):
        raise InputError("LabelImages: give the folder that holds images/ and labels/, or both as images= and labels=.")
    found = (
        Path(images) if images is not None else Path(folder or "") / "images",
        Path(labels) if labels is not None else Path(folder or "") / "labels",
    )
    for part in found:
        if not part.is_dir():
            raise InputError(f"{part}: no such folder; the data set must have {LabelImages.layout}.")
    return found


def _by_stem(folder: Path) -> dict[str, Path]:
    """The image files of a folder by stem."""
    try:
        files = sorted(file for file in folder.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES)
        files += volumes_in(folder)
    except OSError as error:
        raise InputError(f"{folder}: cannot be read: {error.strerror}.") from error
    by_stem: dict[str, Path] = {}
    for file in files:
        if file.name.startswith("."):
            continue
        other = by_stem.setdefault(file.stem, file)
        if other is not file:
            raise InputError(
                f"{folder}: {other.name} and {file.name} share a stem, by which files are paired; rename one."
            )
    return by_stem


def _unpaired(
    files: dict[str, Path], partners: dict[str, Path], lack: str, folder: Path, kind: str, shown: int
) -> list[str]:
    """One sentence on the files without a partner, if there are any."""
    alone = [files[stem].name for stem in sorted(files.keys() - partners.keys())]
    if not alone:
        return []
    more = f" and {len(alone) - shown} more" if len(alone) > shown else ""
    have = f"1 {kind} has" if len(alone) == 1 else f"{len(alone)} {kind}s have"
    return [f"{folder}: {have} {lack} Alone: {', '.join(alone[:shown])}{more}."]
