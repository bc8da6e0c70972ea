"""What every data set gives, whatever its files look like."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Int, Int32, Shaped

from attractor.instances import Annotations


@dataclass(frozen=True)
class Sample:
    """One annotated image."""

    name: str  # the image's stem
    image: Shaped[np.ndarray, "h w c"]  # as read: uint8, uint16 or float32
    labels: Int32[np.ndarray, "h w"]  # 0 is background, 1 to k are objects
    classes: Int[np.ndarray, " k"]  # class of label i + 1, counted from 1
    ignore: Bool[np.ndarray, "h w"]  # pixels that are neither object nor background
    annotate: Callable[[], Annotations] | None = (
        None  # draws objects that overlap, crowds and void, where there are any
    )


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
