"""The one result: which pixel belongs to which object, and what is known of each object.

Label images are int32 with 0 for background and 1 to k for k objects. Where masks overlap (ground
truth in COCO form, ground-truth-seeded grouping) the whole masks are kept beside the label image as
run lengths, and the label image is the view in which one object owns each pixel.

Shapes: `h` rows, `w` columns, `k` instances, `r` runs. Coordinates are (row, column).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float, Int, Int32
from scipy import ndimage

from attractor.errors import InputError


@dataclass(frozen=True)
class Instances:
    """The objects of one image; row i of `classes` and `scores` belongs to label i + 1."""

    labels: Int32[np.ndarray, "h w"]  # 0 is background, 1 to k are objects
    classes: Int[np.ndarray, " k"]  # number of the class, counted from 1
    scores: Float[np.ndarray, " k"]  # 0 to 1; 1 for ground truth
    masks: tuple[Int[np.ndarray, "_"], ...] | None = None  # run lengths, where masks overlap

    def __post_init__(self) -> None:
        """Hold the parts to each other, so that no reader has to ask."""
        found = int(self.labels.max(initial=0))
        if found > len(self.classes):
            raise InputError(
                f"The label image has label {found}, but classes are given for {len(self.classes)} "
                "objects. Labels must run from 1 to the number of objects: see relabel()."
            )
        if len(self.classes) != len(self.scores):
            raise InputError(
                f"{len(self.classes)} classes but {len(self.scores)} scores were given; each object has one of both."
            )
        if self.masks is not None and len(self.masks) != len(self.classes):
            raise InputError(
                f"{len(self.masks)} masks but {len(self.classes)} classes were given; each object has one of both."
            )

    def __len__(self) -> int:
        """Number of objects."""
        return len(self.classes)

    def mask(self, label: int) -> Bool[np.ndarray, "h w"]:
        """The whole mask of one object, also where another one hides it in the label image."""
        if self.masks is None:
            return self.labels == label
        return decode_mask(self.masks[label - 1], self.labels.shape)

    @classmethod
    def from_labels(cls, labels: Int[np.ndarray, "h w"], *, class_number: int = 1) -> Instances:
        """Objects of one class from any label image of non-negative integers, each with score 1."""
        labels, ids = relabel(labels)
        return cls(labels, np.full(len(ids), class_number, np.int32), np.ones(len(ids), np.float32))

    @classmethod
    def from_masks(
        cls,
        masks: Sequence[Bool[np.ndarray, "h w"]],
        classes: Int[np.ndarray, " k"],
        scores: Float[np.ndarray, " k"],
        shape: tuple[int, int],
    ) -> Instances:
        """Objects that may overlap; in the label image the higher score wins, then the earlier mask."""
        labels = np.zeros(shape, np.int32)
        for k in np.argsort(-scores, kind="stable")[::-1]:
            labels[masks[k]] = k + 1
        return cls(labels, classes, scores, tuple(encode_mask(mask) for mask in masks))


@dataclass(frozen=True)
class Annotations:
    """The true objects of one image as they were annotated, for benchmarks that count each one and each crowd."""

    masks: tuple[Int[np.ndarray, "_"], ...]  # run lengths; masks may overlap
    classes: Int[np.ndarray, " k"]  # number of the class, counted from 1
    is_crowd: Bool[np.ndarray, " k"]  # a region of several objects of the class: who finds one there is not wrong
    areas: Float[np.ndarray, " k"]  # in pixels, as the annotation says, which may differ from the mask's
    distances: Float[np.ndarray, " k"]  # from the camera in metres; NaN where it is not known
    void: Bool[np.ndarray, "h w"]  # pixels that are neither object, crowd nor background

    @classmethod
    def of(cls, truth: Instances, void: Bool[np.ndarray, "h w"]) -> Annotations:
        """Those of a data set that says no more than which objects there are and where nothing counts."""
        masks = tuple(truth.masks if truth.masks is not None else encode_masks(truth.labels, len(truth)))
        areas = np.array([mask[1::2].sum() for mask in masks], float)
        return cls(masks, truth.classes, np.zeros(len(masks), bool), areas, np.full(len(masks), np.nan), void)


def relabel(labels: Int[np.ndarray, "h w"]) -> tuple[Int32[np.ndarray, "h w"], Int[np.ndarray, " k"]]:
    """Labels renumbered 1 to k in the order of their old numbers, and those old numbers.

    Raises:
        InputError: if there are negative labels, which mean "ignore" in some data sets.
    """
    if labels.size and labels.min() < 0:
        raise InputError(
            f"A label image has the negative label {labels.min()}; labels are 0 for background and 1, 2, … for objects."
        )
    highest = int(labels.max(initial=0))
    if highest <= max(4 * labels.size, 1 << 16):  # a table is faster than sorting all pixels
        present = np.zeros(highest + 1, bool)
        for row in labels:  # not all at once: places take twice the memory of labels
            present[row] = True
        present[0] = False
        ids = np.flatnonzero(present)
        if len(ids) == highest:  # nothing is missing
            return labels.astype(np.int32), ids
        table = np.zeros(highest + 1, np.int32)
        table[ids] = np.arange(1, len(ids) + 1)
        return table[labels], ids
    ids, flat = np.unique(labels, return_inverse=True)
    shift = 0 if ids[0] == 0 else 1
    return (flat.reshape(labels.shape) + shift).astype(np.int32), ids[ids > 0].astype(np.int64)


def overlap(truth: Int32[np.ndarray, "h w"], found: Int32[np.ndarray, "h w"]) -> Int[np.ndarray, "k j"]:
    """Pixels that each true label shares with each found label; row and column 0 are background.

    Raises:
        InputError: if the two images differ in shape.
    """
    if truth.shape != found.shape:
        raise InputError(f"The label images to compare differ in shape: truth {truth.shape}, found {found.shape}.")
    rows, columns = int(truth.max(initial=0)) + 1, int(found.max(initial=0)) + 1
    pairs = truth.ravel().astype(np.int64) * columns + found.ravel()
    if rows * columns <= max(16 * truth.size, 1 << 20):
        return np.bincount(pairs, minlength=rows * columns).reshape(rows, columns)
    table = np.zeros((rows, columns), np.int64)
    ids, counts = np.unique(pairs, return_counts=True)
    table.ravel()[ids] = counts
    return table


def areas(labels: Int32[np.ndarray, "h w"], n: int) -> Int[np.ndarray, " n"]:
    """Pixels of labels 1 to n."""
    return np.bincount(labels.ravel(), minlength=n + 1)[1 : n + 1]


def centres(labels: Int32[np.ndarray, "h w"], n: int) -> Float[np.ndarray, "n 2"]:
    """Mean (row, column) of labels 1 to n in pixels; NaN for a label without a pixel."""
    counts = areas(labels, n)
    rows, columns = np.nonzero(labels)
    owner = labels[rows, columns]
    sums = np.stack([np.bincount(owner, axis, minlength=n + 1)[1 : n + 1] for axis in (rows, columns)], 1)
    with np.errstate(invalid="ignore"):
        return sums / np.where(counts > 0, counts, np.nan)[:, None]


def outlines(labels: Int32[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The pixels of objects that touch another label or the background, seen from above, below and the sides."""
    smallest = ndimage.minimum_filter(labels, footprint=ndimage.generate_binary_structure(2, 1), mode="nearest")
    largest = ndimage.maximum_filter(labels, footprint=ndimage.generate_binary_structure(2, 1), mode="nearest")
    return (labels > 0) & ((smallest != labels) | (largest != labels))


def encode_mask(mask: Bool[np.ndarray, "h w"]) -> Int[np.ndarray, " r"]:
    """Lengths of the runs of zeros and ones in turn, down the columns, zeros first: COCO's order."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    lengths = np.diff(bounds)
    return np.concatenate([[0], lengths]) if flat.size and flat[0] else lengths


def encode_masks(labels: Int32[np.ndarray, "h w"], n: int) -> list[Int[np.ndarray, "_"]]:
    """The run lengths of labels 1 to n, as `encode_mask` has them, in one pass over the image."""
    flat = labels.ravel(order="F")
    starts = np.concatenate([[0], np.flatnonzero(np.diff(flat)) + 1])
    ends = np.append(starts[1:], flat.size)
    owner = flat[starts]
    order = np.argsort(owner, kind="stable")  # runs of each label together, in the image's order
    bounds = np.searchsorted(owner[order], np.arange(1, n + 2))
    found = []
    for first, last in pairwise(bounds):
        own = order[first:last]
        edges = np.stack([starts[own], ends[own]], 1).ravel()
        found.append(np.diff(np.concatenate([[0], edges, [flat.size]])))  # a last run of 0 zeros is allowed
    return found


def decode_mask(runs: Int[np.ndarray, " r"], shape: tuple[int, ...]) -> Bool[np.ndarray, "h w"]:
    """The mask whose runs `encode_mask` gave.

    Raises:
        InputError: if the runs do not fill the shape.
    """
    if runs.sum() != np.prod(shape) or (runs < 0).any():
        raise InputError(f"The runs of a mask cover {runs.sum()} pixels, but the image has {shape[0]} x {shape[1]}.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape, order="F")
