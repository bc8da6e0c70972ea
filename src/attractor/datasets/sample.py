"""What every data set gives, whatever its files look like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Int32, Shaped

from attractor.datasets.names import check_stem
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask


@dataclass(frozen=True)
class Earlier:
    """Where the objects of a film's frame come from."""

    name: str  # of the frame before
    labels: Int[np.ndarray, " k"]  # there, of each object or of the one that divided into it; 0 if it was not there


@dataclass(frozen=True)
class Sample:
    """One annotated image or volume.

    Shapes: `s` the lengths of an image, rows and columns, or of a volume, planes, rows and columns; `c` channels.
    """

    name: str  # the image's stem
    image: Shaped[np.ndarray, "*s c"]  # as read: uint8, uint16 or float32
    labels: Int32[np.ndarray, "*s"]  # 0 is background, 1 to k are objects
    classes: Int[np.ndarray, " k"]  # class of label i + 1, counted from 1
    ignore: Bool[np.ndarray, "*s"]  # pixels that are neither object nor background
    annotate: Callable[[], Annotations] | None = (
        None  # draws objects that overlap, crowds and void, where there are any
    )
    spacing: tuple[float, ...] | None = None  # of a volume: micrometres along each axis, where known
    earlier: Earlier | None = None  # of a film's frame that another one precedes


@runtime_checkable
class Dataset(Protocol):
    """A sequence of samples, read when asked for."""

    class_names: tuple[str, ...]  # name of class 1, 2, …
    names: tuple[str, ...]  # stems, in order
    columns: dict[str, dict[str, str]]  # column of images.csv -> stem -> value; may be empty

    def __len__(self) -> int:
        """Number of images."""

    def __getitem__(self, index: int) -> Sample:
        """Read one sample."""


def whole(sample: Sample) -> tuple[Instances, Bool[np.ndarray, "*s"]]:
    """The objects, each with all of its pixels even if several claim one, and what else is ignored.

    Crowds are not objects. Scores are 1.
    """
    annotations = sample.annotate() if sample.annotate is not None else None
    kept = [] if annotations is None else np.flatnonzero(~annotations.is_crowd).tolist()
    if annotations is None or (len(kept) == len(sample.classes) and not sample.ignore.any()):
        return Instances(sample.labels, sample.classes, np.ones(len(sample.classes), np.float32)), sample.ignore
    masks = [decode_mask(annotations.masks[k], sample.labels.shape) for k in kept]
    scores = np.ones(len(kept), np.float32)
    found = Instances.from_masks(masks, annotations.classes[kept], scores, sample.labels.shape)
    return found, sample.ignore & (found.labels == 0)


def distinct(samples: Iterable[Sample], where: Path) -> Iterator[Sample]:
    """The samples, one after another, for a writer that cannot keep two of the same name.

    Raises:
        InputError: at a name that comes again, and at one that no file can have; the message begins with `where`.
    """
    seen: set[str] = set()
    for sample in samples:
        check_stem(sample.name, where)
        if sample.name in seen:
            raise InputError(
                f"{where}: two images are named {sample.name!r}; rename one, as the second would replace the first."
            )
        seen.add(sample.name)
        yield sample


def repeated(names: Iterable[str]) -> str | None:
    """The first name that occurs twice, if there is one."""
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None


def refuse(problems: Sequence[str]) -> None:
    """Raise an error with the first three things that are wrong with a data set, if there are any."""
    if problems:
        more = f"\nand {len(problems) - 3} more like these" if len(problems) > 3 else ""
        raise InputError("\n".join(problems[:3]) + more)
