"""What was found in the images of a data set, read and written in the form of its benchmark, or as label images."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from attractor.datasets import DATASETS
from attractor.datasets.classes import WithClasses, renumbered_objects
from attractor.datasets.layout import Benchmark
from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError
from attractor.images import read_labels
from attractor.instances import Instances

FOUND_ENDINGS = ("_labels.tif", ".tif", ".tiff", ".png")  # of label images to score, in this order


def results_forms() -> dict[str, str]:
    """The layouts whose benchmark has a form for results, each with that form in words."""
    return {name: layout.results.words for name, layout in DATASETS.items() if isinstance(layout, Benchmark)}


def found_in(path: str | Path, dataset: Dataset) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with the objects that somebody's results have for it.

    Args:
        path: what the official tool of the data set's layout reads (see `results_forms`), or a folder of label images,
            named as in FOUND_ENDINGS. Label images have no classes: every object, true or found, gets class 1.
        dataset: the truth.

    Raises:
        InputError: if there is nothing at the path, an image has no file in a folder of label images, or a file of
            results cannot be read, is of another data set, or of another layout.
    """
    path = Path(path)
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; give the one that holds the results to score.")
    if (benchmark := _benchmark_of(path, dataset)) is None:
        return _label_images_in(path, dataset)
    found = benchmark.read_results(path)
    if isinstance(dataset, WithClasses):
        numbers = dataset.numbers
        found = (renumbered_objects(one, numbers) for one in found)
    return ((dataset[index], one) for index, one in enumerate(found))


def holds_no_classes(path: str | Path, dataset: Dataset) -> bool:
    """Whether the results are label images, which say nothing about classes."""
    return Path(path).is_dir() and _benchmark_of(Path(path), dataset) is None


def check_results(path: str | Path, dataset: Dataset) -> None:
    """Refuse to write results that the official tool of the data set's layout could not read.

    Raises:
        InputError: if the layout has no form for results, the path cannot be written, or classes were ignored.
    """
    path, whole = Path(path), _whole(dataset)
    if not isinstance(whole, Benchmark):
        raise InputError(
            f"{path}: results files are known for {', '.join(results_forms())}, not for a data set in the layout "
            f"{_layout_of(whole)}; `attractor segment` writes label images and other forms."
        )
    if not whole.results.takes(path):
        raise InputError(f"{path}: results for a data set in the layout {_layout_of(whole)} are {whole.results.words}.")
    if not path.resolve().parent.is_dir():
        raise InputError(f"{path}: there is no such folder; make it, or give another path for the results.")
    if isinstance(dataset, WithClasses) and len({n for n in dataset.numbers if n}) < sum(map(bool, dataset.numbers)):
        raise InputError(f"{path}: results have classes, which --ignore-classes leaves out; give one or the other.")


def write_results(path: str | Path, found: Iterable[tuple[str, Instances]], dataset: Dataset) -> None:
    """Write what was found in the images of a data set as the official tool of its layout reads it.

    Args:
        path: file or folder to write.
        found: names of images, each with what was found in it; consumed one by one.
        dataset: the truth, in a layout of `results_forms`.

    Raises:
        InputError: as `check_results` does, or if nothing can be written.
    """
    check_results(path, dataset)
    if isinstance(dataset, WithClasses):
        numbers = dataset.numbers
        back = [numbers.index(number) + 1 for number in range(1, len(dataset.class_names) + 1)]
        found = ((name, renumbered_objects(one, back)) for name, one in found)
    whole = _whole(dataset)
    assert isinstance(whole, Benchmark)  # has been checked
    whole.write_results(Path(path), found)


def _whole(dataset: Dataset) -> Dataset:
    """The data set with all of its classes."""
    return dataset.whole if isinstance(dataset, WithClasses) else dataset


def _layout_of(dataset: Dataset) -> str:
    """The name of a data set's layout, or of its class where it is no layout's."""
    names: dict[object, str] = {layout: name for name, layout in DATASETS.items()}
    return names.get(type(dataset), type(dataset).__name__)


def _benchmark_of(path: Path, dataset: Dataset) -> Benchmark | None:
    """The data set, if its benchmark reads such results; None for a folder of label images.

    Raises:
        InputError: if the path is a file that it cannot read.
    """
    whole = _whole(dataset)
    if isinstance(whole, Benchmark) and whole.results.recognises(path):
        return whole
    if path.is_dir():
        return None
    forms = "; ".join(f"{name}: {words}" for name, words in results_forms().items())
    raise InputError(
        f"{path}: results of a data set in the layout {_layout_of(whole)} cannot be read from such a file; give a "
        f"folder of label images, or for {forms}."
    )


def _label_images_in(folder: Path, dataset: Dataset) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with its label image in a folder."""
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
    return sample, Instances.from_labels(read_labels(file, n_axes=sample.labels.ndim))
