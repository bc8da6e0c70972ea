"""What a person does to the objects of an image; each operation is data, and knows what it changes on a canvas.

Points are (row, column) in pixels, whole numbers being pixel edges, as in all outlines here. Whatever an operation
touches counts as reviewed afterwards, with a rim of RIM pixels around each object, where its outline is learned.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, TypeAlias, cast

import numpy as np
from jaxtyping import Bool, Float, Int, Int32
from scipy import ndimage

from attractor.datasets.polygons import fill_polygon
from attractor.errors import InputError
from attractor.session.canvas import Box, Canvas, Change, Thing, Things, united

RIM = 3  # pixels around an object that are reviewed with it
CUT = 0.75  # pixels on both sides of a line that it takes away: enough to keep the two sides apart
LARGEST_BRUSH = 1000.0  # pixels
MOST_POINTS = 100_000  # of an outline or a stroke
MOST_COVERED = 1 << 28  # pixels that a stroke goes over, counted as often as it does
MOST_RUNS = 300_000  # of pixels that are given one by one; so many fit into a request

Point: TypeAlias = tuple[float, float]
Points: TypeAlias = tuple[Point, ...]
Run: TypeAlias = tuple[int, int, int]  # pixels of one row: the row, the first column, and how many


class Operation(Protocol):
    """An operation on one image."""

    kind: ClassVar[str]

    @property
    def image(self) -> str:
        """The name of the image."""

    def apply(self, canvas: Canvas) -> Change:
        """Change the canvas, and give the change.

        Raises:
            InputError: if it cannot be done on this canvas; nothing is changed then.
        """


@dataclass(frozen=True)
class Delete:
    """Remove objects."""

    kind: ClassVar[str] = "delete"
    image: str
    labels: tuple[int, ...]

    def apply(self, canvas: Canvas) -> Change:
        """Their pixels become background."""
        box, labels, chosen = _cut_out(canvas, _some(self.labels))
        return _changed(canvas, box, np.where(chosen, 0, labels), chosen)


@dataclass(frozen=True)
class Merge:
    """Make one object of several; it keeps the number and the class of the first."""

    kind: ClassVar[str] = "merge"
    image: str
    labels: tuple[int, ...]

    def apply(self, canvas: Canvas) -> Change:
        """All of their pixels go to the first one."""
        if len(set(self.labels)) < 2:
            raise InputError("To merge, choose at least two objects.")
        box, labels, chosen = _cut_out(canvas, self.labels)
        return _changed(canvas, box, np.where(chosen, self.labels[0], labels), chosen)


@dataclass(frozen=True)
class Split:
    """Divide an object along a line; the largest piece keeps its number, and the others become objects of its class."""

    kind: ClassVar[str] = "split"
    image: str
    label: int
    line: Points

    def apply(self, canvas: Canvas) -> Change:
        """Pixels on the line, and stray parts of the object that it does not meet, go to the piece that is nearest."""
        box, labels, own = _cut_out(canvas, (self.label,))
        line = _stroke(_checked(self.line, 2), CUT, box)
        parts, _ = ndimage.label(own)
        pieces, n = ndimage.label(own & ~line & np.isin(parts, parts[own & line]))
        if n < 2:  # it may go between parts that do not touch
            pieces, n = ndimage.label(own & ~line)
        if n < 2:
            raise InputError("The line does not divide the object; draw it from one side of the object to the other.")
        nearest = ndimage.distance_transform_edt(pieces == 0, return_distances=False, return_indices=True)
        pieces = np.where(own, pieces[tuple(nearest)], 0)
        largest_first = np.argsort(-np.bincount(pieces.ravel())[1:], kind="stable") + 1
        things: dict[int, Thing | None] = {}
        numbers = np.zeros(n + 1, np.int32)
        numbers[largest_first[0]] = self.label
        for piece in largest_first[1:].tolist():
            numbers[piece] = canvas.new_label()
            things[int(numbers[piece])] = Thing(canvas.things[self.label].class_number)
        return _changed(canvas, box, np.where(own, numbers[pieces], labels), own, things)


@dataclass(frozen=True)
class Draw:
    """Add an object that lies inside of an outline; other objects keep their pixels."""

    kind: ClassVar[str] = "draw"
    image: str
    outline: Points
    class_number: int = 1

    def apply(self, canvas: Canvas) -> Change:
        """The pixels whose centres lie inside and that belong to no object."""
        _check_class(self.class_number)
        box = canvas.within(_around(_checked(self.outline, 3), 0.0, RIM))
        return _added(canvas, box, _inside(self.outline, box), None, self.class_number)


@dataclass(frozen=True)
class Redraw:
    """Draw an object in place of what was found there, whose outline is wrong or which is in pieces.

    The objects that lie mostly inside of the outline give way, and the one that has most of what is inside; the new
    object has the number and the class of the one with most pixels there. Others keep their pixels. Where no object
    gives way, this is `Draw`.
    """

    kind: ClassVar[str] = "redraw"
    image: str
    outline: Points
    class_number: int = 1  # if no object gives way

    def apply(self, canvas: Canvas) -> Change:
        """The pixels whose centres lie inside become the object, and those that it had outside become background."""
        _check_class(self.class_number)
        box = canvas.within(_around(_checked(self.outline, 3), 0.0, RIM))
        inside = _inside(self.outline, box)
        found, shared = np.unique(canvas.labels[_place(box)][inside], return_counts=True)
        areas = np.array([canvas.area(label) for label in found.tolist()], np.int64)
        is_going = gives_way(shared, areas, int(inside.sum())) & (found > 0)
        way = found[is_going].tolist()
        if not way:
            return _added(canvas, box, inside, None, self.class_number)
        box = united(box, canvas.box(way, RIM))
        labels, inside = canvas.labels[_place(box)], _inside(self.outline, box)
        number = way[int(shared[is_going].argmax())]
        gone = np.isin(labels, way)
        own = inside & (gone | (labels == 0))
        things = {number: Thing(canvas.things[number].class_number)}  # without a score, as a person drew it
        return _changed(canvas, box, np.where(own, number, np.where(gone, 0, labels)), own | gone, things)


@dataclass(frozen=True)
class Paint:
    """Add the pixels under a brush to an object, or, without a label, make an object of them."""

    kind: ClassVar[str] = "paint"
    image: str
    stroke: Points
    radius: float
    label: int | None = None
    class_number: int = 1
    over: bool = False  # whether the brush also takes pixels of other objects

    def apply(self, canvas: Canvas) -> Change:
        """The pixels whose centres the brush covers and that belong to no object, or to any, as told."""
        _check_class(self.class_number)
        box, under = _brushed(canvas, self.stroke, self.radius, self.label)
        number = self.class_number if self.label is None else canvas.things[self.label].class_number
        return _added(canvas, box, under, self.label, number, over=self.over)


@dataclass(frozen=True)
class Erase:
    """Take the pixels under a brush away from an object, or from any."""

    kind: ClassVar[str] = "erase"
    image: str
    stroke: Points
    radius: float
    label: int | None = None

    def apply(self, canvas: Canvas) -> Change:
        """The pixels whose centres the brush covers become background."""
        box, under = _brushed(canvas, self.stroke, self.radius, None)
        labels = canvas.labels[_place(box)]
        touched = np.unique(labels[under]) if self.label is None else np.array([self.label])
        touched = touched[touched > 0]
        if not np.isin(labels[under], touched).any():
            raise InputError("There is no object under the brush.")
        box = united(box, canvas.box(touched.tolist(), RIM))
        labels, under = canvas.labels[_place(box)], _stroke(self.stroke, self.radius, box)
        own = np.isin(labels, touched)
        return _changed(canvas, box, np.where(under & own, 0, labels), under | own)


@dataclass(frozen=True)
class Assign:
    """Give pixels to an object or to the background, or, without a label, make an object of them.

    Programs whose own tools have painted say by this what came of it.
    """

    kind: ClassVar[str] = "assign"
    image: str
    runs: tuple[Run, ...]
    label: int | None = None  # 0 is the background
    class_number: int = 1

    def apply(self, canvas: Canvas) -> Change:
        """Exactly these pixels change."""
        _check_class(self.class_number)
        box = _run_box(canvas, self.runs)
        if self.label == 0:
            touched = np.unique(canvas.labels[_place(box)][_filled(self.runs, box)])
            if not touched.any():
                raise InputError("There is no object in these pixels.")
            touched = touched[touched > 0]
            box = united(box, canvas.box(touched.tolist(), RIM))
            labels, chosen = canvas.labels[_place(box)], _filled(self.runs, box)
            return _changed(canvas, box, np.where(chosen, 0, labels), chosen | np.isin(labels, touched))
        if self.label is not None:
            box = united(box, canvas.box((self.label,), RIM))
        number = self.class_number if self.label is None else canvas.things[self.label].class_number
        return _added(canvas, box, _filled(self.runs, box), self.label, number, over=True)


@dataclass(frozen=True)
class SetClass:
    """Give objects another class."""

    kind: ClassVar[str] = "class"
    image: str
    labels: tuple[int, ...]
    class_number: int

    def apply(self, canvas: Canvas) -> Change:
        """Their pixels stay as they are."""
        _check_class(self.class_number)
        box, labels, chosen = _cut_out(canvas, _some(self.labels))
        things = {k: dataclasses.replace(canvas.things[k], class_number=self.class_number) for k in self.labels}
        return _changed(canvas, box, labels.copy(), chosen, things)


@dataclass(frozen=True)
class Accept:
    """Say that objects are right, or that all within a box is, or the whole image."""

    kind: ClassVar[str] = "accept"
    image: str
    labels: tuple[int, ...] = ()
    box: Box | None = None

    def apply(self, canvas: Canvas) -> Change:
        """Objects are reviewed with their rims; in a box, every pixel is, but for those of objects that reach out."""
        if self.labels:
            box, labels, chosen = _cut_out(canvas, self.labels)
            return _changed(canvas, box, labels.copy(), chosen)
        box = canvas.within(self.box or (0, 0, *canvas.shape))
        labels = canvas.labels[_place(box)]
        inside = [label for label in np.unique(labels).tolist() if label and canvas.lies_in(label, box)]
        seen = canvas.reviewed[_place(box)] | (labels == 0) | np.isin(labels, inside)
        return canvas.changed(box, labels.copy(), seen)


KINDS: dict[str, type[Any]] = {
    operation.kind: operation
    for operation in (Delete, Merge, Split, Draw, Redraw, Paint, Erase, Assign, SetClass, Accept)
}


def as_json(operation: Operation) -> dict[str, Any]:
    """The operation as plain JSON."""
    assert dataclasses.is_dataclass(operation)
    return {"kind": operation.kind, **dataclasses.asdict(operation)}


def from_json(content: object) -> Operation:
    """The operation that JSON says, from a journal or a page.

    Raises:
        InputError: if there is no such operation, or a part of it is missing, unknown or of another kind.
    """
    if not isinstance(content, Mapping) or str(content.get("kind")) not in KINDS:
        raise InputError(f'There is no such operation; its "kind" is one of {", ".join(KINDS)}.')
    kind = KINDS[str(content["kind"])]
    fields = {field.name: field for field in dataclasses.fields(kind)}
    given = {name: value for name, value in content.items() if name != "kind"}
    needed = {name for name, field in fields.items() if field.default is dataclasses.MISSING}
    if unknown := sorted((given.keys() - fields.keys()) | (needed - given.keys())):
        raise InputError(f"{kind.kind}: has {', '.join(fields)}; {', '.join(map(str, unknown))} is wrong or missing.")
    try:
        return cast(Operation, kind(**{name: _read(name, value) for name, value in given.items()}))
    except (TypeError, ValueError, OverflowError) as error:
        raise InputError(f"{kind.kind}: cannot be read ({error}).") from error


def _read(name: str, value: Any) -> Any:
    """A part of an operation, from plain JSON."""
    if value is None and name in ("label", "box"):
        return None
    if name in ("line", "outline", "stroke"):
        return tuple((float(row), float(column)) for row, column in value)
    if name == "runs":
        return tuple((_integer(row), _integer(column), _integer(n)) for row, column, n in value)
    if name == "labels":
        return tuple(_integer(label) for label in value)
    if name == "box":
        top, left, bottom, right = (_integer(n) for n in value)
        return top, left, bottom, right
    kinds: dict[str, Any] = {"image": _text, "radius": float, "over": _truth}
    return kinds.get(name, _integer)(value)


def _integer(value: object) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or abs(value) > 1 << 40:
        raise TypeError(f"{str(value)[:30]} is not a whole number")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError("the name of the image is not text")
    return value


def _truth(value: object) -> bool:
    if not isinstance(value, bool):
        raise TypeError("over is true or false")
    return value


# --------------------------------------------------------------------- pixels


def _place(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])


def _some(labels: Sequence[int]) -> Sequence[int]:
    if not labels:
        raise InputError("Choose at least one object.")
    return labels


def _check_class(number: int) -> None:
    if number < 1:
        raise InputError(f"The class is {number}; classes are counted from 1.")


def _cut_out(canvas: Canvas, labels: Sequence[int]) -> tuple[Box, Int32[np.ndarray, "r c"], Bool[np.ndarray, "r c"]]:
    """A box around objects and their rims, the labels in it, and which of its pixels belong to these objects."""
    box = canvas.box(labels, RIM)
    there = canvas.labels[_place(box)]
    return box, there, np.isin(there, labels)


def _changed(
    canvas: Canvas,
    box: Box,
    labels: Int32[np.ndarray, "r c"],
    touched: Bool[np.ndarray, "r c"],
    things: Things | None = None,
) -> Change:
    """Put labels into a box, of which the touched pixels are reviewed, with a rim of background around them."""
    rim = ndimage.binary_dilation(touched, iterations=RIM) & (labels == 0)
    return canvas.changed(box, labels, canvas.reviewed[_place(box)] | touched | rim, things)


def _added(
    canvas: Canvas,
    box: Box,
    wanted: Bool[np.ndarray, "r c"],
    label: int | None,
    class_number: int,
    *,
    over: bool = False,
) -> Change:
    """Give pixels of a box to an object, or to a new one; other objects keep theirs, unless told otherwise."""
    labels = canvas.labels[_place(box)]
    taken = wanted if over else wanted & (labels == 0)
    if not taken.any():
        raise InputError("Nothing is left for the object: all the pixels there belong to other ones.")
    things = {} if label is not None else {canvas.new_label(): Thing(class_number)}
    number = next(iter(things)) if label is None else label
    return _changed(canvas, box, np.where(taken, number, labels), taken | (labels == number), things)


def _checked(points: Points, least: int) -> Points:
    """The points of a line or outline, if there are enough and all can be placed."""
    if not least <= len(points) <= MOST_POINTS:
        raise InputError(f"{len(points)} points were given; it takes {least} at least and {MOST_POINTS:,} at most.")
    if not np.isfinite(np.array(points)).all() or np.abs(np.array(points)).max() > 1e7:
        raise InputError("A point lies far outside of any image; give rows and columns in pixels.")
    return points


def _around(points: Points, reach: float, rim: int) -> Box:
    """The box of all pixels within reach of points, with a rim."""
    low, high = np.floor(np.min(points, axis=0) - reach) - rim, np.ceil(np.max(points, axis=0) + reach) + rim
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def gives_way(shared: Int[np.ndarray, " k"], areas: Int[np.ndarray, " k"], n_inside: int) -> Bool[np.ndarray, " k"]:
    """Which objects give way to one that is redrawn over them.

    Args:
        shared: pixels of each inside of the new outline.
        areas: all pixels of each.
        n_inside: pixels inside of the outline.
    """
    way: Bool[np.ndarray, " k"] = 2 * shared > np.minimum(areas, n_inside)
    return way


def _inside(outline: Points, box: Box) -> Bool[np.ndarray, "r c"]:
    """The pixels of a box whose centres lie inside of an outline."""
    inside = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    filled, place = fill_polygon(np.array(outline)[:, ::-1] - (box[1], box[0]), inside.shape)
    inside[place] = filled
    return inside


def _brushed(canvas: Canvas, stroke: Points, radius: float, label: int | None) -> tuple[Box, Bool[np.ndarray, "r c"]]:
    """A box around a stroke, the object if there is one, and their rims; and which pixels in it the brush covers."""
    if not 0 < radius <= LARGEST_BRUSH:
        raise InputError(f"The radius of the brush is {radius}; it must be above 0 and at most {LARGEST_BRUSH:.0f}.")
    box = canvas.within(_around(_checked(stroke, 1), radius, RIM))
    if label is not None:
        own = canvas.box((label,), RIM)
        box = united(box, own)
    return box, _stroke(stroke, radius, box)


def _run_box(canvas: Canvas, runs: Sequence[Run]) -> Box:
    """A box around runs of pixels and a rim, if all of them lie in the image."""
    if not 0 < len(runs) <= MOST_RUNS:
        raise InputError(f"{len(runs):,} runs of pixels were given; it takes 1 at least and {MOST_RUNS:,} at most.")
    rows, columns, lengths = np.array(runs, np.int64).T
    ends = columns + lengths
    if min(rows.min(), columns.min()) < 0 or lengths.min() < 1 or rows.max() >= canvas.shape[0]:
        raise InputError("A run of pixels lies outside of the image, or is empty.")
    if ends.max() > canvas.shape[1]:
        raise InputError(f"A run of pixels ends in column {ends.max()}; the image has {canvas.shape[1]} columns.")
    top, left, bottom, right = (int(n) for n in (rows.min(), columns.min(), rows.max() + 1, ends.max()))
    return canvas.within((top - RIM, left - RIM, bottom + RIM, right + RIM))


def _filled(runs: Sequence[Run], box: Box) -> Bool[np.ndarray, "r c"]:
    """Which pixels of a box the runs hold."""
    filled = np.zeros((box[2] - box[0], box[3] - box[1]), bool)
    for row, column, n in runs:
        filled[row - box[0], column - box[1] : column - box[1] + n] = True
    return filled


def _stroke(points: Points, radius: float, box: Box) -> Bool[np.ndarray, "r c"]:
    """The pixels of a box whose centres lie within a radius of a line through points, and those that points lie in."""
    top, left, bottom, right = box
    covered = np.zeros((bottom - top, right - left), bool)
    n_covered = 0
    for start, end in zip(points, points[1:] or points, strict=False):
        low = np.floor(np.minimum(start, end) - radius - (top, left)).astype(int).clip(0)
        high = np.ceil(np.maximum(start, end) + radius - (top, left)).astype(int).clip(0)
        part = covered[low[0] : high[0], low[1] : high[1]]
        n_covered += part.size
        if n_covered > MOST_COVERED:
            raise InputError("The stroke is too long for so large a brush; lift it in between.")
        if part.size:
            rows, columns = np.indices(part.shape) + (low + (top, left) + 0.5)[:, None, None]
            part |= _distance(rows, columns, start, end) <= radius
    row, column = np.floor(np.array(points) - (top, left)).astype(int).T
    inside = (row >= 0) & (column >= 0) & (row < covered.shape[0]) & (column < covered.shape[1])
    covered[row[inside], column[inside]] = True
    return covered


def _distance(
    rows: Float[np.ndarray, "r c"], columns: Float[np.ndarray, "r c"], start: Point, end: Point
) -> Float[np.ndarray, "r c"]:
    """Of each pixel's centre from a line between two points."""
    down, right = end[0] - start[0], end[1] - start[1]
    length = down * down + right * right
    along = ((rows - start[0]) * down + (columns - start[1]) * right) / length if length else np.zeros_like(rows)
    along = along.clip(0, 1)
    return np.asarray(np.hypot(rows - start[0] - along * down, columns - start[1] - along * right))
