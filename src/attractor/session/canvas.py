"""The labels of one image while they are corrected, and the changes made to them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage

from attractor.errors import InputError

Box: TypeAlias = tuple[int, int, int, int]  # first row and column, and those after the last
MOST_LABELS = 1 << 24  # that an image can have had; a page shows them as colours of 24 bits


@dataclass(frozen=True)
class Thing:
    """What is known of an object besides its pixels."""

    class_number: int = 1  # 1 is the first class
    score: float | None = None  # of the model that found it; None for one that a person drew


Things: TypeAlias = Mapping[int, Thing | None]  # by label; None where there is none


@dataclass(frozen=True)
class Change:
    """What an operation changed, before and after; one side is empty where only the other knows."""

    box: Box
    labels: tuple[Int32[np.ndarray, "r c"], Int32[np.ndarray, "r c"]]
    reviewed: tuple[Bool[np.ndarray, "r c"], Bool[np.ndarray, "r c"]]
    things: tuple[Things, Things] = field(default=({}, {}))

    def inverse(self) -> Change:
        """The change that takes this one back."""
        return Change(self.box, self.labels[::-1], self.reviewed[::-1], self.things[::-1])

    def as_json(self) -> dict[str, Any]:
        """The change as plain JSON, its pixels packed."""
        return {
            "box": list(self.box),
            "labels": [_packed(labels) for labels in self.labels],
            "reviewed": [_packed(np.packbits(reviewed)) for reviewed in self.reviewed],
            "things": [_plain(things) for things in self.things],
        }

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Change:
        """The change that `as_json` wrote.

        Raises:
            ValueError, KeyError or TypeError: if it is not such JSON.
        """
        top, left, bottom, right = (int(n) for n in content["box"])
        shape = bottom - top, right - left
        if min(shape) < 1 or min(top, left) < 0:
            raise ValueError(f"the box {content['box']} is empty")
        n = shape[0] * shape[1]
        before, after = (_unpacked(text, 4 * n).view(np.int32).reshape(shape) for text in content["labels"])
        looks = [
            np.unpackbits(_unpacked(text, -(-n // 8)), count=n).reshape(shape).astype(bool)
            for text in content["reviewed"]
        ]
        things = [_things(part) for part in content["things"]]
        return cls((top, left, bottom, right), (before, after), (looks[0], looks[1]), (things[0], things[1]))


def _packed(array: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(np.ascontiguousarray(array).tobytes(), 1)).decode()


def _unpacked(text: str, n_bytes: int) -> np.ndarray:
    """Bytes of a known number; a text that holds more is not unpacked any further."""
    try:
        content = zlib.decompressobj().decompress(base64.b64decode(text, validate=True), n_bytes + 1)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if len(content) != n_bytes:
        raise ValueError(f"{len(content)} bytes where {n_bytes} should be")
    return np.frombuffer(content, np.uint8).copy()


def _plain(things: Things) -> dict[str, list[float | int | None] | None]:
    return {str(label): None if thing is None else [thing.class_number, thing.score] for label, thing in things.items()}


def _things(content: Mapping[str, Any]) -> dict[int, Thing | None]:
    return {
        int(label): None if parts is None else Thing(int(parts[0]), None if parts[1] is None else float(parts[1]))
        for label, parts in content.items()
    }


class Canvas:
    """One image's labels, which pixels were reviewed, and class and score of each object."""

    def __init__(
        self, labels: Int32[np.ndarray, "h w"], reviewed: Bool[np.ndarray, "h w"], things: Mapping[int, Thing]
    ) -> None:
        """Keep the arrays, which are changed in place."""
        self.labels, self.reviewed, self.things = labels, reviewed, dict(things)
        self._boxes = {
            label: (box[0].start, box[1].start, box[0].stop, box[1].stop)
            for label, box in enumerate(ndimage.find_objects(labels), 1)
            if box is not None
        }
        for label in self._boxes:
            self.things.setdefault(label, Thing())
        self.last_label = max(self.things, default=0)  # the highest that there ever was

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.labels.shape[0], self.labels.shape[1]

    def box(self, labels: Iterable[int], rim: int = 0) -> Box:
        """A box around objects, with a rim as far as the image has one.

        Raises:
            InputError: if one of them is not there.
        """
        boxes = []
        for label in labels:
            if label not in self._boxes:
                raise InputError(f"There is no object {label} in this image; somebody may have removed it.")
            boxes.append(self._boxes[label])
        tops, lefts, bottoms, rights = zip(*boxes, strict=True)
        return self.within((min(tops) - rim, min(lefts) - rim, max(bottoms) + rim, max(rights) + rim))

    def within(self, box: Box) -> Box:
        """The part of a box that lies in the image.

        Raises:
            InputError: if none does.
        """
        (height, width), (top, left, bottom, right) = self.shape, box
        inside = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
        if inside[0] >= inside[2] or inside[1] >= inside[3]:
            raise InputError(
                f"Rows {top} to {bottom} and columns {left} to {right} lie outside of the image, which has {height} "
                f"rows and {width} columns."
            )
        return inside

    def new_label(self) -> int:
        """A number that no object of this image has or had.

        Raises:
            InputError: if there have been too many.
        """
        if self.last_label + 1 >= MOST_LABELS:
            raise InputError(f"An image can have at most {MOST_LABELS:,} objects.")
        self.last_label += 1
        return self.last_label

    def changed(
        self,
        box: Box,
        labels: Int32[np.ndarray, "r c"],
        reviewed: Bool[np.ndarray, "r c"],
        things: Things | None = None,
    ) -> Change:
        """Put new labels and reviewed pixels into a box, and give the change; objects left without a pixel are gone.

        Args:
            box: in the image.
            labels: all those in the box.
            reviewed: in the box.
            things: of objects that are new or have another class.
        """
        place = _place(box)
        before = self.labels[place].copy(), self.reviewed[place].copy()
        known = {label: self.things.get(label) for label in things or {}}
        after: dict[int, Thing | None] = dict(things or {})
        for label in set(np.unique(before[0]).tolist()) - set(np.unique(labels).tolist()) - {0}:
            if not self._is_elsewhere(label, box):
                known[label], after[label] = self.things.get(label), None
        change = Change(box, (before[0], labels.astype(np.int32)), (before[1], reviewed), (known, after))
        self.write(change)
        return change

    def lies_in(self, label: int, box: Box) -> bool:
        """Whether an object lies wholly in a box."""
        own = self._boxes[label]
        return bool(box[0] <= own[0] and box[1] <= own[1] and own[2] <= box[2] and own[3] <= box[3])

    def _is_elsewhere(self, label: int, box: Box) -> bool:
        """Whether an object has pixels outside of a box."""
        own = self._boxes[label]
        if self.lies_in(label, box):
            return False
        n_inside = np.count_nonzero(self.labels[_place(box)] == label)
        return bool(np.count_nonzero(self.labels[_place(own)] == label) > n_inside)

    def write(self, change: Change) -> None:
        """Write what a change says is there afterwards; writing it twice changes nothing."""
        place = _place(change.box)
        there = set(np.unique(self.labels[place]).tolist())
        self.labels[place], self.reviewed[place] = change.labels[1], change.reviewed[1]
        for label, thing in change.things[1].items():
            if thing is None:
                self.things.pop(label, None)
                self._boxes.pop(label, None)
            else:
                self.things[label] = thing
        after = set(np.unique(change.labels[1]).tolist()) - {0}
        for label in after:  # an object that came back with a part of it, when somebody else had removed the rest
            self.things.setdefault(label, Thing())
        for label in (there | after) - {0}:
            if label in self.things:
                self._fit_box(label, change.box)
        self.last_label = max(self.last_label, *change.things[1], 0)

    def _fit_box(self, label: int, changed: Box) -> None:
        """The box of an object after something in another box has changed."""
        own = self._boxes.get(label, changed)
        box = min(own[0], changed[0]), min(own[1], changed[1]), max(own[2], changed[2]), max(own[3], changed[3])
        rows, columns = (np.flatnonzero((self.labels[_place(box)] == label).any(axis)) for axis in (1, 0))
        if len(rows):
            top, left = int(rows[0]) + box[0], int(columns[0]) + box[1]
            self._boxes[label] = top, left, int(rows[-1]) + box[0] + 1, int(columns[-1]) + box[1] + 1


def _place(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])
