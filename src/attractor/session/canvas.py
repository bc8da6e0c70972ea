"""The labels of one image while they are corrected, and the changes made to them."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Bool, Int32
from scipy import ndimage

from attractor.errors import InputError
from attractor.session.held import let_go

Box: TypeAlias = tuple[int, int, int, int]  # first row and column, and those after the last
STRIP = 1 << 22  # pixels that are counted at once
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
        self._boxes: dict[int, Box] = {}
        self._areas = np.zeros(0, np.int64)  # pixels of each label
        self._seen = np.zeros(0, np.int64)  # those of them that were reviewed
        for strip in _strips(labels.shape):
            self._find(strip)
            self._count(strip, 1)
            let_go(labels)
        for label in self._boxes:
            self.things.setdefault(label, Thing())
        self.last_label = max(self.things, default=0)  # the highest that there ever was
        self.things = {label: thing for label, thing in self.things.items() if label in self._boxes}

    def _find(self, strip: Box) -> None:
        """Extend the boxes of the objects in a strip, which is as wide as the image."""
        for label, found in enumerate(ndimage.find_objects(self.labels[_place(strip)]), 1):
            if found is not None:
                own = strip[0] + found[0].start, found[1].start, strip[0] + found[0].stop, found[1].stop
                self._boxes[label] = united(self._boxes.get(label, own), own)

    def _count(self, box: Box, sign: int) -> None:
        """Add to the pixels of each label those in a box, or take them away."""
        labels, reviewed = self.labels[_place(box)], self.reviewed[_place(box)]
        counts = np.bincount(labels.ravel())
        if len(counts) > len(self._areas):
            room = (0, max(len(counts), 2 * len(self._areas)) - len(self._areas))
            self._areas, self._seen = np.pad(self._areas, room), np.pad(self._seen, room)
        self._areas[: len(counts)] += sign * counts
        if reviewed.any():
            seen = np.bincount(labels[reviewed])
            self._seen[: len(seen)] += sign * seen

    def area(self, label: int) -> int:
        """Pixels of an object."""
        return int(self._areas[label]) if label < len(self._areas) else 0

    def looked_at(self) -> set[int]:
        """Objects of which somebody has reviewed a pixel."""
        return set((np.flatnonzero(self._seen[1:]) + 1).tolist())

    def share_reviewed(self) -> float:
        """Share of the pixels that somebody has reviewed."""
        return float(self._seen.sum() / max(1, self.reviewed.size))

    @property
    def n_bytes(self) -> int:
        """What it takes in memory, or, if it is very large, mostly on the disk."""
        return self.labels.nbytes + self.reviewed.nbytes

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
        self._count(change.box, -1)
        self.labels[place], self.reviewed[place] = change.labels[1], change.reviewed[1]
        self._count(change.box, 1)
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
        box = united(own, changed)
        rows, columns = (np.flatnonzero((self.labels[_place(box)] == label).any(axis)) for axis in (1, 0))
        if len(rows):
            top, left = int(rows[0]) + box[0], int(columns[0]) + box[1]
            self._boxes[label] = top, left, int(rows[-1]) + box[0] + 1, int(columns[-1]) + box[1] + 1


def _strips(shape: tuple[int, ...]) -> Iterator[Box]:
    """Boxes from top to bottom that are as wide as the image, so that what is made of each is small."""
    rows = max(1, STRIP // max(1, shape[1]))
    for top in range(0, shape[0], rows):
        yield top, 0, min(top + rows, shape[0]), shape[1]


def united(one: Box, other: Box) -> Box:
    """The smallest box with both in it."""
    return min(one[0], other[0]), min(one[1], other[1]), max(one[2], other[2]), max(one[3], other[3])


def _place(box: Box) -> tuple[slice, slice]:
    return slice(box[0], box[2]), slice(box[1], box[3])
