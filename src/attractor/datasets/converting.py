"""Any data set in any other layout, with a list of what was lost on the way.

The folder appears under its name only when all of it is written.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int

from attractor.datasets import DATASETS, layout_of, open_dataset
from attractor.datasets.in_front import InFront
from attractor.datasets.layout import Holds
from attractor.datasets.sample import Dataset, Sample, whole
from attractor.errors import InputError
from attractor.images import temporary_folder
from attractor.instances import decode_mask
from attractor.wording import counted


def convert(
    dataset: Dataset, out: str | Path, layout: str, *, report: Callable[[], None] = lambda: None
) -> tuple[str, ...]:
    """Write a data set in another layout, and return what could not be kept, in sentences.

    Args:
        dataset: what to read; one image at a time is in memory.
        out: folder to write, which must be new or empty.
        layout: a name in DATASETS.
        report: called after each image.

    Raises:
        InputError: if there is no such layout, `out` is in use, an image cannot be read, or the layout cannot hold
            what must be kept, such as a class that it has no number for. Nothing is written then.
    """
    if layout not in DATASETS:
        raise InputError(f'There is no layout "{layout}" to write; there are: {", ".join(DATASETS)}.')
    out, target = Path(out).resolve(), DATASETS[layout]
    if out.is_file() or (out.is_dir() and any(out.iterdir())):
        raise InputError(f"{out}: is there already; give a folder that is new or empty.")
    lost = _Lost(target.holds)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(out.parent) as unfinished:
            part = unfinished / out.name
            part.mkdir()
            try:
                target.write(part, lost.watched(dataset, report), dataset)
                _check(part, layout, len(dataset))
            except InputError as error:  # the user knows nothing of the temporary folder
                raise InputError(str(error).replace(str(part), str(out))) from error
            if out.is_dir():
                out.rmdir()
            part.chmod(0o777 & ~_umask())
            os.rename(part, out)
    except OSError as error:
        raise InputError(f"{out}: cannot be written: {error.strerror}; choose another folder.") from error
    return tuple(lost.sentences(dataset))


def _check(folder: Path, layout: str, n_images: int) -> None:
    """Refuse what would not be read back as it was written, because of the images' names."""
    if (found := layout_of(folder)) != layout:
        raise InputError(
            f"{folder}: would be taken for a data set in the layout {found}, because of its images' names; rename "
            "them, or choose another layout."
        )
    if (n_found := len(open_dataset(folder))) != n_images:
        raise InputError(
            f"{folder}: only {n_found} of {counted(n_images, 'image')} could be read again, because of their names; "
            "rename them, or choose another layout."
        )


def _umask() -> int:
    """The permissions that new files lack; they can only be read by setting them."""
    mask = os.umask(0)
    os.umask(mask)
    return mask


@dataclass
class _Lost:
    """What the samples have that the layout cannot hold."""

    holds: Holds
    ignored: int = 0  # images
    overlapping: int = 0  # images
    covered: int = 0  # objects without a pixel of their own
    crowded: int = 0  # images

    def watched(self, dataset: Dataset, report: Callable[[], None]) -> Iterator[Sample]:
        """The samples unchanged, each looked at as it goes by."""
        for index in range(len(dataset)):
            sample = dataset[index]
            self._look_at(sample)
            yield sample
            report()

    def _look_at(self, sample: Sample) -> None:
        if sample.labels.ndim == 3 and not self.holds.volumes:
            able = ", ".join(name for name, one in DATASETS.items() if one.holds.volumes)
            raise InputError(f"{sample.name}: is a volume, and this layout holds images only; these hold both: {able}.")
        if not self.holds.ignore:
            _, ignored = whole(sample) if self.holds.overlaps else (None, sample.ignore)
            self.ignored += bool(ignored.any())
        if not self.holds.overlaps and sample.annotate is not None:
            annotations = sample.annotate()
            covered = int((~annotations.is_crowd).sum()) - len(sample.classes)
            objects = [mask for mask, crowd in zip(annotations.masks, annotations.is_crowd, strict=True) if not crowd]
            self.covered += max(covered, 0)
            self.overlapping += _overlap(objects, sample.labels.shape)
        if not self.holds.crowds and sample.annotate is not None:
            self.crowded += bool(sample.annotate().is_crowd.any())

    def sentences(self, dataset: Dataset) -> Iterator[str]:
        """What could not be kept."""
        if not self.holds.classes and len(dataset.class_names) > 1:
            yield f"{len(dataset.class_names)} classes became one: {', '.join(dataset.class_names)}."
        if self.overlapping or self.covered:
            left_out = (
                f"; {counted(self.covered, 'object')} without a pixel of their own left out" if self.covered else ""
            )
            whose = f"went to the {dataset.rule.split()[0]} one" if isinstance(dataset, InFront) else "became neither's"
            yield f"{counted(self.overlapping, 'image')} with pixels of two objects, which {whose}{left_out}."
        if self.crowded:
            became = "ignored pixels without a class" if self.holds.ignore else "background"
            yield f"{counted(self.crowded, 'image')} with crowds, which became {became}."
        if self.ignored:
            yield f"{counted(self.ignored, 'image')} with ignored pixels, which became background."
        if not self.holds.columns and dataset.columns:
            yield f"The columns {', '.join(dataset.columns)} of the images are not kept."


def _overlap(masks: list[Int[np.ndarray, "_"]], shape: tuple[int, ...]) -> bool:
    """Whether two of these masks, given as run lengths, share a pixel."""
    seen = np.zeros(shape, bool)
    for runs in masks:
        mask = decode_mask(runs, shape)
        if (seen & mask).any():
            return True
        seen |= mask
    return False
