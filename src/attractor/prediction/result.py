"""What there is to write for one image, and the two kinds of output: a file for each image, or a shared folder.

Outputs are listed by name in `OUTPUTS` of `attractor.prediction.outputs`; the page `docs/add_an_output_format.md`
shows a complete one in a few lines.

Shapes: `s` the lengths of an image or volume along its axes, `c` channels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from attractor.instances import Instances
from attractor.measurements import Column, object_table

Table = dict[str, Column]  # columns by name, one row for each object


@dataclass(frozen=True)
class Result:
    """What there is to write for one image."""

    name: str  # of the image's file, as in cells.png
    image: Shaped[np.ndarray, "*s c"]
    found: Instances
    class_names: tuple[str, ...]
    pixel_size: tuple[float, ...] | None = None  # micrometres along height and width; of a volume, depth comes first
    is_ordered: bool = False  # whether labels are in the order in which the objects were found

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return Path(self.name).stem

    @cached_property
    def table(self) -> Table:
        """The table of objects, measured once for all outputs."""
        return object_table(self.image, self.found, self.class_names, pixel_size=self.pixel_size)


def _any_classes(class_names: Sequence[str]) -> None:
    """Accept all classes."""


@dataclass(frozen=True, kw_only=True)
class FileOutput:
    """One file for each image."""

    ending: str  # what follows the image's stem in the file's name, as in "_labels.tif"
    encode: Callable[[Result], bytes]  # the file's content: the same bytes for the same result
    reader: str = ""  # the program that it is for, if the name does not say so
    needs: str | None = None  # a package that a plain installation does not have
    check: Callable[[Sequence[str]], None] = _any_classes  # raises InputError for class names that it cannot hold
    of_volumes: bool = False  # whether it can be written for a volume


@dataclass(frozen=True, kw_only=True)
class FolderOutput:
    """Several files for each image, in a folder that all images share."""

    folder: str  # its name
    write: Callable[[Path, Result], None]  # the files of an image, into this folder
    reader: str = ""
    needs: str | None = None
    check: Callable[[Sequence[str]], None] = _any_classes
    of_volumes: bool = False


Output = FileOutput | FolderOutput
