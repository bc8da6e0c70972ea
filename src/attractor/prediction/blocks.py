"""Images larger than memory, block by block: each object belongs to the block in which its seed pixel lies.

An image of any number of axes is divided into cores. Of each core, what grouping needs is gathered into a file. Then
objects are found in each core and a halo around it, from the files of the blocks there, and those whose seed lies in
the core are kept, whole; two blocks see the same numbers, so each object is found once, and nothing is merged. When all
are counted, a running sum numbers them in the order of the blocks. Last, each cell of the label image is painted from
the objects that reach into it.

The files are the ledger: what is there is done, and whoever begins again does what is missing. What was gathered of a
core is removed when no neighbour needs it any more. Nothing here knows of networks, image files or schedulers: a
`Finder` does what is particular, a `Canvas` takes the labels, and steps may be done by any process, in any order in
which what they need is there.

Shapes: `a` axes, `n` pixels, `k` objects.
"""

from __future__ import annotations

import itertools
import json
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped
from scipy import ndimage

from attractor.errors import InputError
from attractor.images import atomic, made
from attractor.methods.points import Box, Points, joined_parts

MOST_DOUBLED = 3  # times that a halo is doubled for objects that reach to the rim of what was seen
NUMBERS = "numbers.json"
Table = Mapping[str, Shaped[np.ndarray, " k"]]


@dataclass(frozen=True)
class Grid:
    """An image divided into boxes of equal sides, except at its far edges."""

    shape: tuple[int, ...]  # of the image
    sides: tuple[int, ...]  # of a box

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Boxes along each axis."""
        return tuple(-(-n // side) for n, side in zip(self.shape, self.sides, strict=True))

    def __len__(self) -> int:
        """How many boxes there are."""
        return int(np.prod(self.counts, dtype=object))

    def box(self, index: int) -> Box:
        """A box by its number; the last axis runs fastest."""
        place = np.unravel_index(index, self.counts)
        return tuple(
            slice(int(i) * side, min((int(i) + 1) * side, n))
            for i, side, n in zip(place, self.sides, self.shape, strict=True)
        )

    def grown(self, box: Box, halo: Sequence[int]) -> Box:
        """The box with a halo, as far as the image reaches."""
        return tuple(
            slice(max(0, side.start - more), min(n, side.stop + more))
            for side, more, n in zip(box, halo, self.shape, strict=True)
        )

    def meeting(self, box: Box) -> list[int]:
        """Numbers of the boxes that share pixels with this one, rising."""
        along = [range(one.start // side, -(-one.stop // side)) for one, side in zip(box, self.sides, strict=True)]
        return [int(np.ravel_multi_index(place, self.counts)) for place in itertools.product(*along)]


@dataclass(frozen=True)
class Seen:
    """The objects of a window, on the grid of the label image, which need not be the one of the blocks."""

    labels: Int32[np.ndarray, "..."]
    scores: Float[np.ndarray, " k"]
    classes: Int[np.ndarray, " k"]
    corner: tuple[int, ...]  # of the window in the label image
    seeds: Int[np.ndarray, "k a"]  # pixel that each grew from, on the grid of the blocks
    is_cut: Bool[np.ndarray, " k"]  # whether it reaches to the rim of the window, inside the image
    measured: Callable[[Int[np.ndarray, " j"]], Table]  # what is known of some of them, by number from 0


@runtime_checkable
class Finder(Protocol):
    """What a method does with a part of an image."""

    def gathered(self, core: Box) -> Sequence[Points]:
        """What grouping needs of a core, for each class."""

    def seen(self, of_classes: Sequence[Points], window: Box) -> Seen:
        """The objects of a window, from what was gathered of all of it."""


@runtime_checkable
class Canvas(Protocol):
    """Where labels go."""

    def paint(self, cell: Box, labels: Shaped[np.ndarray, "..."]) -> None:
        """Write the labels of a cell, which is all that any other call does not write."""


@dataclass(frozen=True)
class Ledger:
    """What has been done, as files in a folder."""

    folder: Path
    blocks: Grid
    halo: tuple[int, ...]  # around a core, in which objects are found
    cells: Grid  # of the label image

    def gathered_file(self, block: int) -> Path:
        """What grouping needs of a core."""
        return self.folder / "gathered" / f"{block:06d}.npz"

    def objects_file(self, block: int) -> Path:
        """The objects that a block owns."""
        return self.folder / "objects" / f"{block:06d}.npz"

    def painted_file(self, cell: int) -> Path:
        """An empty file: the cell has its labels."""
        return self.folder / "painted" / f"{cell:06d}"

    def around(self, block: int) -> list[int]:
        """The blocks whose files are needed to find the objects of one, which is among them."""
        return self.blocks.meeting(self.blocks.grown(self.blocks.box(block), self.halo))

    def is_found(self, block: int) -> bool:
        """Whether a block's objects are known."""
        return self.objects_file(block).exists()

    def needs_gathering(self, block: int) -> bool:
        """Whether a block's pixels are still to be gathered: for itself or for a neighbour."""
        return not self.gathered_file(block).exists() and not all(map(self.is_found, self.around(block)))

    def can_be_found(self, block: int) -> bool:
        """Whether all is there that is needed to find a block's objects, which are not known yet."""
        return not self.is_found(block) and all(self.gathered_file(near).exists() for near in self.around(block))

    # ---------------------------------------------------------------- steps

    def gather(self, finder: Finder, block: int) -> None:
        """Write what grouping needs of a core."""
        arrays: dict[str, Shaped[np.ndarray, "..."]] = {}
        for number, points in enumerate(finder.gathered(self.blocks.box(block))):
            arrays |= {f"{number}/pixel": points.pixel}
            arrays |= {f"{number}/{name}": values for name, values in points.values.items()}
        _write(self.gathered_file(block), arrays)

    def find(self, finder: Finder, block: int) -> None:
        """Write the objects that a block owns, and remove what no block needs any more.

        If one of them reaches to the rim of what was seen, the halo is doubled, at most `MOST_DOUBLED` times. The
        blocks in a doubled halo are gathered anew where their files are gone.
        """
        core, halo = self.blocks.box(block), self.halo
        for doubled in range(MOST_DOUBLED + 1):
            window = self.blocks.grown(core, halo)
            parts = [self._part(finder, near) for near in self.blocks.meeting(window)]
            owned = owned_by(core, finder.seen(joined_parts(parts, window), window))
            if not owned.is_cut.any() or doubled == MOST_DOUBLED or window == self._everything:
                break
            halo = tuple(2 * more for more in halo)
        _write(self.objects_file(block), owned.as_arrays())
        self.tidy(block)

    @property
    def _everything(self) -> Box:
        return tuple(slice(0, n) for n in self.blocks.shape)

    def _part(self, finder: Finder, block: int) -> tuple[Box, Sequence[Points]]:
        """A block's core, and what was gathered of it."""
        core, file = self.blocks.box(block), self.gathered_file(block)
        try:
            arrays = _read(file)
        except FileNotFoundError:  # it lies further away than any halo reaches that was not doubled
            return core, finder.gathered(core)
        classes: dict[int, dict[str, Any]] = {}
        for key, values in arrays.items():
            number, name = key.split("/")
            classes.setdefault(int(number), {})[name] = values
        return core, [Points(of_class.pop("pixel"), of_class) for of_class in classes.values()]

    def tidy(self, block: int) -> None:
        """Remove what was gathered around a block where no block needs it any more."""
        for near in self.around(block):
            if all(map(self.is_found, self.around(near))):
                self.gathered_file(near).unlink(missing_ok=True)

    def number(self) -> Numbers:
        """Number all objects; every block must have been found.

        Raises:
            InputError: if some were not.
        """
        file = self.folder / NUMBERS
        if file.exists():
            return Numbers(**json.loads(file.read_text(encoding="utf-8")))
        if missing := [block for block in range(len(self.blocks)) if not self.is_found(block)]:
            raise InputError(
                f"{self.folder}: {len(missing)} of {len(self.blocks)} blocks are still to be done, such as number "
                f"{missing[0]}; let every part run to its end first."
            )
        counts, low, high, cut = [], [], [], 0
        for block in range(len(self.blocks)):
            arrays = _read(self.objects_file(block))
            counts.append(len(arrays["low"]))
            low.append(arrays["low"].min(0).tolist() if counts[-1] else [])
            high.append(arrays["high"].max(0).tolist() if counts[-1] else [])
            cut += int(arrays["is_cut"].sum())
        numbers = Numbers(counts, low, high, cut)
        with atomic(file) as temporary:
            temporary.write_text(json.dumps(vars(numbers)), encoding="utf-8")
        return numbers

    def paint(self, canvas: Canvas, numbers: Numbers, cell: int) -> None:
        """Write the labels of a cell; where objects share a pixel, the one with the higher score has it."""
        box = self.cells.box(cell)
        labels = np.zeros([side.stop - side.start for side in box], np.uint32)
        best = np.zeros(labels.shape, np.float32)
        for block in numbers.reaching(box):
            owned = Owned.from_arrays(_read(self.objects_file(block)))
            owned.draw(labels, best, box, numbers.firsts[block])
        canvas.paint(box, labels)
        with atomic(made(self.painted_file(cell).parent) / self.painted_file(cell).name) as temporary:
            temporary.touch()

    def picture(self, numbers: Numbers, block: int) -> tuple[Int32[np.ndarray, "..."], Owned, tuple[int, ...]]:
        """A block's objects, drawn with numbers from 1, with what is known of them, and the corner of the drawing."""
        owned = Owned.from_arrays(_read(self.objects_file(block)))
        box = tuple(slice(a, b) for a, b in zip(numbers.low[block], numbers.high[block], strict=True))
        labels = np.zeros([side.stop - side.start for side in box], np.uint32)
        owned.draw(labels, np.zeros(labels.shape, np.float32), box, 1)
        return labels.astype(np.int32), owned, tuple(side.start for side in box)

    def table(self, numbers: Numbers) -> Iterator[dict[str, Shaped[np.ndarray, " k"]]]:
        """What is known of the objects of each block that has some, with their numbers."""
        for block, first in enumerate(numbers.firsts):
            if numbers.counts[block]:
                arrays = _read(self.objects_file(block))
                label = np.arange(first, first + numbers.counts[block], dtype=np.uint32)
                rows = {key.removeprefix("table/"): each for key, each in arrays.items() if key.startswith("table/")}
                yield {"label": label, **rows}


@dataclass(frozen=True)
class Numbers:
    """How many objects each block owns, and between which corners they lie."""

    counts: list[int]
    low: list[list[int]]  # empty where there are none
    high: list[list[int]]
    cut: int  # objects that reached to the rim of all that was seen

    @cached_property
    def firsts(self) -> list[int]:
        """Number of the first object of each block."""
        return [1, *(1 + np.cumsum(self.counts)).tolist()][:-1]

    @property
    def total(self) -> int:
        """How many objects there are."""
        return sum(self.counts)

    def reaching(self, box: Box) -> list[int]:
        """The blocks that may have objects in a box, rising."""
        low, high = self._corners
        starts, stops = (np.array([getattr(side, end) for side in box]) for end in ("start", "stop"))
        reach = ((low < stops) & (high > starts)).all(1)
        return [self._filled[place] for place in np.flatnonzero(reach).tolist()]

    @cached_property
    def _filled(self) -> list[int]:
        """The blocks that have objects."""
        return [block for block, count in enumerate(self.counts) if count]

    @cached_property
    def _corners(self) -> tuple[Int[np.ndarray, "n a"], Int[np.ndarray, "n a"]]:
        """Those between which their objects lie."""
        n_axes = max([1, *map(len, self.low)])
        low, high = (
            np.array([corners[block] for block in self._filled], np.int64).reshape(-1, n_axes)
            for corners in (self.low, self.high)
        )
        return low, high


@dataclass(frozen=True)
class Owned:
    """Objects of a block, each as the smallest box around it and a mask in it."""

    low: Int[np.ndarray, "k a"]
    high: Int[np.ndarray, "k a"]  # behind the last pixel
    bits: Shaped[np.ndarray, " n"]  # the masks one after another, each filled up to whole bytes
    scores: Shaped[np.ndarray, " k"]
    classes: Shaped[np.ndarray, " k"]
    is_cut: Shaped[np.ndarray, " k"]  # whether it reaches to the rim of what was seen
    table: Table

    def as_arrays(self) -> dict[str, Shaped[np.ndarray, "..."]]:
        """For a file."""
        plain = {name: values for name, values in vars(self).items() if name != "table"}
        return plain | {f"table/{name}": values for name, values in self.table.items()}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> Owned:
        """From what a file holds."""
        plain = {name: values for name, values in arrays.items() if not name.startswith("table/")}
        return cls(**plain, table={})

    def draw(self, labels: Shaped[np.ndarray, "..."], best: Shaped[np.ndarray, "..."], box: Box, first: int) -> None:
        """Draw the objects into a box of the label image, where their scores are higher than what is there."""
        sizes = (np.prod(self.high - self.low, axis=1) + 7) // 8
        ends = np.cumsum(sizes)
        starts, stops = (np.array([getattr(side, end) for side in box]) for end in ("start", "stop"))
        meets = ((self.low < stops) & (self.high > starts)).all(1)
        for k in np.flatnonzero(meets):
            shape = self.high[k] - self.low[k]
            packed = self.bits[ends[k] - sizes[k] : ends[k]]
            mask = np.unpackbits(packed, count=int(shape.prod())).reshape(shape).astype(bool)
            low, high = np.maximum(self.low[k], starts), np.minimum(self.high[k], stops)
            here = tuple(slice(a, b) for a, b in zip(low - starts, high - starts, strict=True))
            mask = mask[tuple(slice(a, b) for a, b in zip(low - self.low[k], high - self.low[k], strict=True))]
            mask &= self.scores[k] > best[here]
            labels[here][mask] = first + k
            best[here][mask] = self.scores[k]


def owned_by(core: Box, seen: Seen) -> Owned:
    """Of the objects of a window those whose seed lies in the core."""
    own = np.flatnonzero(
        np.all([(seed >= side.start) & (seed < side.stop) for seed, side in zip(seen.seeds.T, core, strict=True)], 0)
    )
    corner, n_axes = np.array(seen.corner), len(core)
    all_boxes = ndimage.find_objects(seen.labels)
    boxes = [all_boxes[k] for k in own]
    low, high = (
        np.array([[getattr(side, end) for side in box] for box in boxes], np.int64).reshape(-1, n_axes) + corner
        for end in ("start", "stop")
    )
    bits = [np.packbits(seen.labels[box] == k + 1) for k, box in zip(own, boxes, strict=True)]
    return Owned(
        low,
        high,
        np.concatenate([*bits, np.zeros(0, np.uint8)]),
        seen.scores[own].astype(np.float32),
        seen.classes[own].astype(np.int32),
        seen.is_cut[own],
        seen.measured(own),
    )


def touches_rim(
    labels: Shaped[np.ndarray, "..."], n: int, window: Box, shape: Sequence[int]
) -> Bool[np.ndarray, "{n}"]:
    """Which of the labels 1 to n have a pixel at the rim of a window, where the image goes on behind it."""
    found = np.zeros(n + 1, bool)
    for axis, (side, length) in enumerate(zip(window, shape, strict=True)):
        for place, is_inside in ((0, side.start > 0), (-1, side.stop < length)):
            if is_inside:
                found[np.unique(labels.take(place, axis))] = True
    return found[1:]


def _write(file: Path, arrays: Mapping[str, Shaped[np.ndarray, "..."]]) -> None:
    with atomic(made(file.parent) / file.name) as temporary, temporary.open("wb") as stream:
        np.savez(stream, allow_pickle=False, **arrays)


def _read(file: Path) -> dict[str, Any]:
    """All arrays of a file.

    Raises:
        FileNotFoundError: if there is no such file.
        InputError: if it is damaged.
    """
    try:
        with file.open("rb") as stream, np.load(stream) as content:
            return {name: content[name] for name in content.files}
    except FileNotFoundError:
        raise
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: is damaged; remove it, and run the same command again.") from error
