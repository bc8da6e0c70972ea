"""A folder of tiles, as microscopes and viewers write them: a file for each part of one image.

Names say where a tile lies: `r03_c12`, `row3_col12` or `y3_x12` in either order, or else the last two numbers, which
are row and column. Numbers count tiles, from anywhere, or pixels. Tiles must fill a grid, and not overlap.

Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a part.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images.files import images_in
from attractor.images.parts import in_parts
from attractor.images.reading import image_shape, read_image

NAMED = (("row", "col"), ("row", "column"), ("y", "x"), ("r", "c"))  # what stands in front of the numbers
HELD = 1 << 27  # bytes of tiles that are kept, since neighbouring blocks read the same ones
DEEP_ZOOM = "_files"  # how the folder above the levels of such an image ends


class TileFolder:
    """The image that the tiles of a folder make up; a tile is read when a part of it is asked for."""

    def __init__(self, folder: str | Path) -> None:
        """Find out where the tiles lie; the sizes of those along two edges are read.

        Raises:
            InputError: if names do not say where tiles lie, one is missing or there twice, or tiles overlap.
        """
        self.folder = Path(folder)
        if self.folder.parent.name.endswith(DEEP_ZOOM):
            raise InputError(
                f"{folder}: is a level of a Deep Zoom image, whose tiles overlap; give the image that it was made from."
            )
        self._tiles = _grid(self.folder)
        rows, columns = (sorted({place[axis] for place in self._tiles}) for axis in (0, 1))
        heights = [image_shape(self._tiles[row, columns[0]])[0] for row in rows]
        widths = [image_shape(self._tiles[rows[0], column])[1] for column in columns]
        for name, numbers, sides in (("rows", rows, heights), ("columns", columns, widths)):
            self._check_steps(name, numbers, sides)
        self.tops, self.lefts = (np.cumsum([0, *sides]).tolist() for sides in (heights, widths))
        self._names = rows, columns
        self._held: OrderedDict[tuple[int, int], Any] = OrderedDict()

    @cached_property
    def _first(self) -> Shaped[np.ndarray, "h w c"]:
        return read_image(self._tiles[self._names[0][0], self._names[1][0]])[:1, :1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels."""
        return self.tops[-1], self.lefts[-1], self._first.shape[2]

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of the pixels."""
        return self._first.dtype

    @property
    def first_file(self) -> Path:
        """The tile in the upper left corner."""
        return self._tiles[self._names[0][0], self._names[1][0]]

    def __str__(self) -> str:
        """How the names were understood."""
        return f"{len(self.tops) - 1} x {len(self.lefts) - 1} tiles (rows x columns)"

    def __getitem__(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j c"]:
        """The pixels in some rows and columns.

        Raises:
            InputError: if a tile cannot be read, or has not the size or type that its place asks for.
        """
        rows, columns = (slice(*one.indices(n)[:2]) for one, n in zip(part, self.shape, strict=False))
        sides = max(0, rows.stop - rows.start), max(0, columns.stop - columns.start)
        taken = np.empty((*sides, self.shape[2]), self.dtype)
        for row in _meeting(self.tops, rows):
            for column in _meeting(self.lefts, columns):
                down = _common(rows, self.tops[row], self.tops[row + 1])
                across = _common(columns, self.lefts[column], self.lefts[column + 1])
                there = tuple(
                    slice(s.start - first, s.stop - first)
                    for s, first in ((down, self.tops[row]), (across, self.lefts[column]))
                )
                here = tuple(slice(s.start - w.start, s.stop - w.start) for s, w in ((down, rows), (across, columns)))
                taken[here] = self._tile(row, column)[there[0], there[1]]
        return taken

    def _tile(self, row: int, column: int) -> Any:
        """Pixels of a tile, or a file that they can be taken from."""
        if (row, column) in self._held:
            self._held.move_to_end((row, column))
            return self._held[row, column]
        path = self._tiles[self._names[0][row], self._names[1][column]]
        parts = in_parts(path)
        tile = read_image(path) if parts is None else parts.levels[0]
        expected = self.tops[row + 1] - self.tops[row], self.lefts[column + 1] - self.lefts[column], self.shape[2]
        if tile.shape != expected or tile.dtype != self.dtype:
            raise InputError(
                f"{path}: is {' x '.join(map(str, tile.shape))} {tile.dtype}, and its place among the other tiles asks "
                f"for {' x '.join(map(str, expected))} {self.dtype}; export the tiles again."
            )
        self._held[row, column] = tile
        while len(self._held) > 1 and sum(getattr(one, "nbytes", 0) for one in self._held.values()) > HELD:
            self._held.popitem(last=False)
        return tile

    def _check_steps(self, name: str, numbers: Sequence[int], sides: Sequence[int]) -> None:
        """Refuse numbers that count pixels, and say that tiles overlap or leave a gap."""
        steps = np.diff(numbers).tolist()
        if set(steps) <= {1} or steps == list(sides[:-1]):
            return
        step, side = next((step, side) for step, side in zip(steps, sides, strict=False) if step != side)
        raise InputError(
            f"{self.folder}: the {name} of its tiles go up by {step} in their names, and a tile has {side} pixels "
            "there. Number the tiles one by one, or by pixels without overlap; stitch tiles that overlap first."
        )


def _grid(folder: Path) -> dict[tuple[int, int], Path]:
    """The file at each row and column, as numbered in the names.

    Raises:
        InputError: if a name has no place, or a place has no file, or two.
    """
    tiles: dict[tuple[int, int], Path] = {}
    for path in images_in(folder):
        place = _place(path.stem)
        if place is None:
            raise InputError(
                f"{path}: the name does not say which row and column of tiles this is; name tiles such as "
                "r03_c12.tif. (To segment a folder of separate images, give an --out that is no .zarr.)"
            )
        if place in tiles:
            raise InputError(f"{path} and {tiles[place].name} are both the tile of row {place[0]}, column {place[1]}.")
        tiles[place] = path
    rows, columns = (sorted({place[axis] for place in tiles}) for axis in (0, 1))
    for row in rows:
        for column in columns:
            if (row, column) not in tiles:
                raise InputError(
                    f"{folder}: there is no tile of row {row}, column {column}, but others of both; "
                    "add it, or take out what does not belong to this image."
                )
    return tiles


def _place(stem: str) -> tuple[int, int] | None:
    """Row and column that a name says."""
    for down, across in NAMED:
        row, column = (re.search(rf"(?<![a-z]){word}[_-]?(\d+)", stem, re.IGNORECASE) for word in (down, across))
        if row and column:
            return int(row[1]), int(column[1])
    numbers = re.findall(r"\d+", stem)
    return (int(numbers[-2]), int(numbers[-1])) if len(numbers) > 1 else None


def _meeting(edges: Sequence[int], side: slice) -> range:
    """Which of the spans between edges meet a side."""
    if side.stop <= side.start:
        return range(0)
    first = int(np.searchsorted(edges, side.start, "right")) - 1
    return range(first, int(np.searchsorted(edges, side.stop, "left")))


def _common(side: slice, start: int, stop: int) -> slice:
    return slice(max(side.start, start), min(side.stop, stop))
