"""The leaf segmentation challenge (CVPPP): rosettes of single plants seen from above, in the sets A1 to A4.

Each plant has `plant001_rgb.png`, `plant001_label.png` with a number for each leaf and 0 for background, and usually
`plant001_fg.png`, in which the whole plant is not black. Other files, such as plant001_centers.png, are passed over.

The labels are the truth, as the challenge scores by them alone: what has a label is a leaf, whatever the foreground
says. Foreground without a label is a part of the plant that was assigned to no leaf, neither object nor background: it
becomes `ignore`.

Source: Minervini et al. 2016 (doi:10.1016/j.patrec.2015.10.013) for the images, Scharr et al. 2016
(doi:10.1007/s00138-015-0737-3) for the challenge.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Integer
from PIL import Image

from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.sample import Dataset, Sample, distinct, refuse
from attractor.errors import InputError
from attractor.images import atomic, image_suffix, made, read_image, read_labels, write_image, write_labels
from attractor.instances import relabel

_SUFFIXES = (".png", ".tif")  # the challenge has only PNG; TIFF holds images that PNG cannot


@dataclass(frozen=True)
class _Plant:
    """The files of one plant."""

    image: Path
    label: Path
    foreground: Path | None


class Cvppp:
    """Plants with a label for each leaf, from one set or several."""

    layout: ClassVar[str] = (
        "CVPPP leaves: a set such as A1, with plant001_rgb.png and plant001_label.png, or a folder that holds A1 to A4"
    )
    holds: ClassVar[Holds] = Holds(classes=False, ignore=True)
    class_names: tuple[str, ...] = ("leaf",)

    def __init__(self, path: str | Path) -> None:
        """Pair the images with their labels.

        Args:
            path: one set, or the folder of several: then names begin with the set's, as in A1_plant001, and the column
                `subset` says which.

        Raises:
            InputError: if there is no image, or files have no partner; the first three are named.
        """
        problems = self._open(Path(path))
        refuse(problems)

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[Cvppp, list[str]]:
        """The data set of those images that have labels, and what is wrong with the others."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path))

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a set of plants, or a folder of such sets."""
        folders = [Path(path), *_sets_in(Path(path))]
        if any(_stems(folder, "rgb").keys() & _stems(folder, "label").keys() for folder in folders):
            return Evidence.STRUCTURE
        is_plant = any("plant" in stem for folder in folders for stem in _stems(folder, "rgb"))
        return Evidence.ANY_FILE if is_plant else Evidence.NONE  # pictures of the challenge, annotated in another form

    @staticmethod
    def splits(path: str | Path) -> dict[str, Path]:
        """The sets in a folder: A1, A2 and so on."""
        return {} if _stems(Path(path), "rgb") else {folder.name: folder for folder in _sets_in(Path(path))}

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_cvppp` does."""
        write_cvppp(folder, samples, described.class_names)

    def _open(self, path: Path) -> list[str]:
        """Find the files; what is wrong is returned, and left out."""
        folders = [path] if _stems(path, "rgb") else _sets_in(path)
        images = {(folder, stem): file for folder in folders for stem, file in _stems(folder, "rgb").items()}
        labels = {(folder, stem): file for folder in folders for stem, file in _stems(folder, "label").items()}
        if not images:
            raise InputError(f"{path}: holds no plant. Accepted is {Cvppp.layout}.")
        if not labels:
            raise InputError(
                f"{path}: has no label image, plant001_label.png for example. The leaves of the testing sets are not "
                "public; give a training set, or have the images segmented."
            )
        lacking = [f"{images[key]}: has no label image beside it." for key in images if key not in labels]
        lacking += [f"{labels[key]}: has no image beside it." for key in labels if key not in images]
        self._plants: list[_Plant] = []
        names, subsets = list[str](), list[str]()
        for folder, stem in sorted(images.keys() & labels.keys()):
            foreground = _stems_file(folder, stem, "fg")
            self._plants.append(_Plant(images[folder, stem], labels[folder, stem], foreground))
            names.append(stem if folder == path else f"{folder.name}_{stem}")
            subsets.append(folder.name)
        self.names = tuple(names)
        self.columns = {} if folders == [path] else {"subset": dict(zip(names, subsets, strict=True))}
        return lacking

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its leaves, renumbered 1 to k.

        Raises:
            InputError: if a file cannot be read or the files differ in size.
        """
        plant = self._plants[index]
        image, (labels, ids) = read_image(plant.image), relabel(read_labels(plant.label))
        _check_size(plant.label, labels.shape, plant.image, image.shape)
        is_plant = _read_foreground(plant, image.shape)
        return Sample(self.names[index], image, labels, np.ones(len(ids), np.int32), is_plant & (labels == 0))


def write_cvppp(folder: str | Path, samples: Iterable[Sample], class_names: Sequence[str] = ("leaf",)) -> None:
    """Write samples as one set: image, labels, and as foreground what is object or ignored.

    All objects become leaves, whatever `class_names` says. Labels have 8 bits, or 16 where there are more than 255.

    Raises:
        InputError: if a file cannot be written, two samples share a name, or an image has more than 65,535 objects.
    """
    folder = made(folder)
    for sample in distinct(samples, folder):
        write_image(folder / f"{sample.name}_rgb{image_suffix(sample.image)}", sample.image)
        _write_indices(folder / f"{sample.name}_label.png", sample.labels)
        is_plant = (sample.labels > 0) | sample.ignore
        write_image(folder / f"{sample.name}_fg.png", np.where(is_plant, 255, 0).astype(np.uint8)[..., None])


def _sets_in(folder: Path) -> list[Path]:
    """The folders named A1, A2, … that hold plants."""
    return [part for part in sorted(folder.glob("A[0-9]*/")) if _stems(part, "rgb")]


def _stems(folder: Path, kind: str) -> dict[str, Path]:
    """The files of a kind in a folder, by the part of their names before the kind."""
    files = sorted(file for suffix in _SUFFIXES for file in folder.glob(f"*_{kind}{suffix}"))
    return {file.stem.removesuffix(f"_{kind}"): file for file in files if not file.name.startswith(".")}


def _stems_file(folder: Path, stem: str, kind: str) -> Path | None:
    """The file of a kind for one plant, where there is one."""
    files = (folder / f"{stem}_{kind}{suffix}" for suffix in _SUFFIXES)
    return next((file for file in files if file.is_file()), None)


def _read_foreground(plant: _Plant, shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """The pixels that the foreground says are plant; none without such a file."""
    if plant.foreground is None:
        return np.zeros(shape[:2], bool)
    foreground = read_image(plant.foreground)
    _check_size(plant.foreground, foreground.shape, plant.image, shape)
    return foreground.max(axis=2) > 0


def _check_size(file: Path, size: tuple[int, ...], image: Path, image_size: tuple[int, ...]) -> None:
    """Refuse a file of another size than its image."""
    if size[:2] != image_size[:2]:
        raise InputError(
            f"{file}: has {size[0]} x {size[1]} pixels, but its image {image.name} has {image_size[0]} x "
            f"{image_size[1]}; both must have the same rows and columns."
        )


def _write_indices(file: Path, labels: Integer[np.ndarray, "h w"]) -> None:
    """Write labels as 8-bit grey PNG, which the challenge's scripts read, where they fit."""
    if labels.max(initial=0) > 255:
        write_labels(file, labels)
        return
    with atomic(file) as temporary:
        Image.fromarray(labels.astype(np.uint8)).save(temporary, "PNG")
