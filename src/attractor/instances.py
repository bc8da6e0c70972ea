"""The one result: which pixel belongs to which object, and what is known of each object.

Label images are int32 with 0 for background and 1 to k for k objects. Where masks overlap (ground
truth in COCO form, grouping that is asked for it) the whole masks are kept beside the label image as
run lengths, and the label image is the view in which one object owns each pixel.

What can be made of a result (`table`, `to_geojson`, …) is on higher floors, and imported when it is asked for.

Shapes: `s` the lengths of an image, rows and columns, or of a volume, planes, rows and columns; `k` instances, `r`
runs. Coordinates are (row, column) or (plane, row, column).
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, Shaped, UInt16
from PIL import Image

from attractor.errors import InputError

LABEL_SHAPE = "shape (h, w), or (d, h, w) for a volume"


@dataclass(frozen=True)
class Instances:
    """The objects of one image or volume; row i of `classes` and `scores` belongs to label i + 1.

    Raises:
        InputError: if a part has the wrong type or length, a label is negative or has no class, a class is below 1 or
            lacks a name, or a score does not lie between 0 and 1.

    Example:
        >>> import numpy as np
        >>> labels = np.array([[0, 1, 1], [2, 2, 2]], np.int32)
        >>> found = Instances(labels, np.array([1, 2]), np.array([0.9, 0.8]), class_names=("cell", "debris"))
        >>> len(found)
        2
        >>> found.table()["class"]
        ['cell', 'debris']
    """

    labels: Int32[np.ndarray, "*s"]  # 0 is background, 1 to k are objects
    classes: Int[np.ndarray, " k"]  # number of the class, counted from 1
    scores: Float[np.ndarray, " k"]  # 0 to 1; 1 for ground truth
    masks: tuple[Int[np.ndarray, "_"], ...] | None = None  # run lengths, where masks overlap
    class_names: tuple[str, ...] = ()  # of classes 1, 2, …, where they are known

    def __post_init__(self) -> None:
        """Refuse what cannot be, so that nothing that takes objects has to check."""
        _check_kind("labels", self.labels, (np.int32,), f"an array of int32 of {LABEL_SHAPE}", n_axes=(2, 3))
        _check_kind("classes", self.classes, (np.integer,), "whole numbers, one for each object", n_axes=(1,))
        _check_kind("scores", self.scores, (np.floating,), "fractions, one for each object", n_axes=(1,))
        _check_labels(self.labels, len(self.classes))
        _check_counts(self)
        _check_classes(self.classes, self.class_names)
        _check_scores(self.scores)

    def __len__(self) -> int:
        """Number of objects.

        Example:
            >>> import numpy as np
            >>> len(Instances.from_labels(np.array([[0, 1], [2, 2]])))
            2
        """
        return len(self.classes)

    def mask(self, label: int) -> Bool[np.ndarray, "*s"]:
        """The whole mask of one object, including what another one hides in the label image.

        Example:
            >>> import numpy as np
            >>> Instances.from_labels(np.array([[0, 1], [2, 2]])).mask(2)
            array([[False, False],
                   [ True,  True]])
        """
        if self.masks is None:
            return self.labels == label
        return decode_mask(self.masks[label - 1], self.labels.shape)

    def plane(self, number: int) -> Instances:
        """One plane of a volume: an image with the same objects, of which some may have no pixel there.

        Example:
            >>> import numpy as np
            >>> Instances.from_labels(np.array([[[0, 1]], [[1, 2]]])).plane(1).labels
            array([[1, 2]], dtype=int32)
        """
        return Instances(self.labels[number], self.classes, self.scores, class_names=self.class_names)

    def table(
        self, image: Shaped[np.ndarray, "..."] | None = None, *, pixel_size: tuple[float, ...] | None = None
    ) -> dict[str, list[int] | list[float] | list[str]]:
        """What can be measured of each object, column by column, as `pandas.DataFrame` takes it.

        `attractor.measurements.object_table` says what the columns mean.

        Args:
            image: of the same size, with channels last if it has several; mean and maximum intensity are measured in
                it.
            pixel_size: micrometres along a pixel's height and width, for a volume along a voxel's depth, height and
                width; adds lengths, areas and volumes in micrometres.

        Raises:
            InputError: if the image has another size, or the pixel size is not above 0.

        Example:
            >>> import numpy as np
            >>> found = Instances.from_labels(np.array([[0, 1, 1], [2, 2, 2]]))
            >>> found.table()["area"]
            [2, 3]
            >>> found.table(np.array([[0, 7, 9], [1, 1, 4]]))["mean_intensity"]
            [8.0, 2.0]
        """
        from attractor.measurements import object_table

        channels = image[..., None] if image is not None and image.ndim == self.labels.ndim else image
        return object_table(channels, self, self._names(), pixel_size=pixel_size)

    def to_geojson(self) -> dict[str, Any]:
        """The outlines as a FeatureCollection that QuPath reads, each with its class and score.

        In a volume, an object has an outline in each plane that it meets.

        Raises:
            InputError: if a class has a name that QuPath would take for something else.

        Example:
            >>> import numpy as np
            >>> found = Instances.from_labels(np.array([[0, 1, 1], [0, 1, 1]]))
            >>> found.to_geojson()["features"][0]["geometry"]["type"]
            'Polygon'
        """
        from attractor.datasets.geojson import encode_geojson

        return json.loads(encode_geojson(self, self._names()))

    def to_coco(self, image_name: str = "image.png") -> dict[str, Any]:
        """The objects as a COCO document of one image, with masks as compressed runs, and scores.

        Args:
            image_name: the file name that the document gives the image.

        Raises:
            InputError: for a volume.

        Example:
            >>> import numpy as np
            >>> found = Instances.from_labels(np.array([[0, 1, 1], [2, 2, 2]]))
            >>> [annotation["bbox"] for annotation in found.to_coco()["annotations"]]
            [[1, 0, 2, 1], [0, 1, 3, 1]]
        """
        from attractor.prediction.encoding import encode_coco

        if self.labels.ndim == 3:
            raise InputError(
                f"COCO is for images, and this is a volume of {self.labels.shape[0]} planes; give one of its planes."
            )
        return json.loads(encode_coco(self, self._names(), image_name))

    def _repr_png_(self) -> bytes:
        """A picture for notebooks, in which each object has a colour that its neighbours do not have."""
        from attractor.overlays import label_picture

        file = io.BytesIO()
        Image.fromarray(label_picture(self)).save(file, "PNG")
        return file.getvalue()

    def _names(self) -> tuple[str, ...]:
        """Names of the classes, made up where none are given."""
        if self.class_names:
            return self.class_names
        highest = int(self.classes.max(initial=1))
        return tuple(f"class {number}" for number in range(1, highest + 1)) if highest > 1 else ("object",)

    @classmethod
    def from_labels(cls, labels: Int[np.ndarray, "*s"], *, class_number: int = 1) -> Instances:
        """Objects of one class from any label image of whole numbers from 0 on, each with score 1.

        Labels are renumbered where some are missing.

        Raises:
            InputError: if a label is negative, or it is a mask, which does not say which object a pixel belongs to.

        Example:
            >>> import numpy as np
            >>> found = Instances.from_labels(np.array([[0, 7], [9, 9]]))
            >>> found.labels
            array([[0, 1],
                   [2, 2]], dtype=int32)
        """
        labels, ids = relabel(labels)
        return cls(labels, np.full(len(ids), class_number, np.int32), np.ones(len(ids), np.float32))

    @classmethod
    def from_masks(
        cls,
        masks: Sequence[Bool[np.ndarray, "*s"]],
        classes: Int[np.ndarray, " k"],
        scores: Float[np.ndarray, " k"],
        shape: tuple[int, ...],
    ) -> Instances:
        """Objects that may overlap; in the label image the higher score wins, then the earlier mask.

        Example:
            >>> import numpy as np
            >>> masks = [np.array([[True, True, False]]), np.array([[False, True, True]])]
            >>> found = Instances.from_masks(masks, np.array([1, 1]), np.array([0.5, 0.9]), (1, 3))
            >>> found.labels
            array([[1, 2, 2]], dtype=int32)
            >>> found.mask(1)
            array([[ True,  True, False]])
        """
        labels = np.zeros(shape, np.int32)
        for k in np.argsort(-scores, kind="stable")[::-1]:
            labels[masks[k]] = k + 1
        return cls(labels, classes, scores, tuple(encode_mask(mask) for mask in masks))


def _check_kind(name: str, array: object, kinds: tuple[type, ...], wanted: str, *, n_axes: tuple[int, ...]) -> None:
    """Refuse a part that is not an array of this kind and of one of these numbers of axes."""
    if not isinstance(array, np.ndarray):
        raise InputError(f"The {name} of objects are a {type(array).__name__}; give {wanted}.")
    if array.ndim not in n_axes or not any(np.issubdtype(array.dtype, kind) for kind in kinds):
        raise InputError(f"The {name} of objects are an array of {array.dtype} of shape {array.shape}; give {wanted}.")


def _check_labels(labels: Int32[np.ndarray, "*s"], n: int) -> None:
    """Refuse labels outside 0 to n."""
    refuse_negative(labels)
    highest = int(labels.max(initial=0))
    if highest > n:
        raise InputError(
            f"The label image has label {highest}, but classes are given for {n} "
            "objects. Labels must run from 1 to the number of objects: see relabel()."
        )


def _check_counts(instances: Instances) -> None:
    """Refuse parts of different length."""
    n = len(instances.classes)
    if n != len(instances.scores):
        raise InputError(f"{n} classes but {len(instances.scores)} scores were given; each object has one of each.")
    if instances.masks is not None and len(instances.masks) != n:
        raise InputError(f"{len(instances.masks)} masks but {n} classes were given; each object has one of each.")


def _check_classes(classes: Int[np.ndarray, " k"], names: tuple[str, ...]) -> None:
    """Refuse class numbers below 1, and those without a name where there are names."""
    lowest, highest = int(classes.min(initial=1)), int(classes.max(initial=1))
    if lowest < 1:
        raise InputError(f"An object has the class {lowest}; classes are counted from 1.")
    if names and len(classes) and highest > len(names):
        raise InputError(f"An object has the class {highest}, but there are names for {len(names)} classes only.")


def _check_scores(scores: Float[np.ndarray, " k"]) -> None:
    """Refuse scores outside 0 to 1."""
    is_score = (scores >= 0) & (scores <= 1)  # neither holds for NaN
    if not is_score.all():
        raise InputError(f"An object has the score {scores[~is_score][0]:g}; scores lie between 0 and 1.")


@dataclass(frozen=True)
class Annotations:
    """The true objects of one image as they were annotated, for benchmarks that count each one and each crowd."""

    masks: tuple[Int[np.ndarray, "_"], ...]  # run lengths; masks may overlap
    classes: Int[np.ndarray, " k"]  # number of the class, counted from 1
    is_crowd: Bool[np.ndarray, " k"]  # a region of several objects of the class: one found there is not wrong
    areas: Float[np.ndarray, " k"]  # in pixels, as the annotation says, which may differ from the mask's
    distances: Float[np.ndarray, " k"]  # from the camera in metres; NaN where not known
    void: Bool[np.ndarray, "*s"]  # pixels that are neither object, crowd nor background

    @classmethod
    def of(cls, truth: Instances, void: Bool[np.ndarray, "*s"]) -> Annotations:
        """Annotations of a data set that says only which objects there are and which pixels do not count."""
        masks = tuple(truth.masks if truth.masks is not None else encode_masks(truth.labels, len(truth)))
        areas = np.array([mask[1::2].sum() for mask in masks], float)
        return cls(masks, truth.classes, np.zeros(len(masks), bool), areas, np.full(len(masks), np.nan), void)


def drawn_whole(
    annotations: Annotations, order: Iterable[int]
) -> tuple[Int32[np.ndarray, "*s"], UInt16[np.ndarray, "*s"], Bool[np.ndarray, "*s"]]:
    """Whole masks drawn one over the other.

    Args:
        annotations: the objects and crowds.
        order: their places, those in front last.

    Returns:
        For each pixel 1 + the place of the last object that claims it, how many claim it, and whether a crowd does.
    """
    shape = annotations.void.shape
    drawn, claims, crowd = np.zeros(shape, np.int32), np.zeros(shape, np.uint16), np.zeros(shape, bool)
    for k in order:
        mask = decode_mask(annotations.masks[k], shape)
        if annotations.is_crowd[k]:
            crowd |= mask
        else:
            drawn[mask] = k + 1
            claims += mask
    return drawn, claims, crowd


def _refuse_mask(labels: object) -> None:
    """Refuse booleans, as scikit-image does."""
    if isinstance(labels, np.ndarray) and labels.dtype == bool:
        raise InputError(
            "A mask does not say which pixels belong to one object: give skimage.measure.label(mask), in which each "
            "connected part is an object, or mask.astype(int), in which the whole mask is one."
        )


def refuse_negative(labels: Int[np.ndarray, "*s"]) -> None:
    """Refuse a label image with negative labels, which mean "ignore" in some data sets.

    Raises:
        InputError: if there are any.
    """
    if labels.size and labels.min() < 0:
        raise InputError(
            f"A label image has the negative label {labels.min()}; labels are 0 for background and 1, 2, … for objects."
        )


def relabel(labels: Int[np.ndarray, "*s"]) -> tuple[Int32[np.ndarray, "*s"], Int[np.ndarray, " k"]]:
    """Labels renumbered 1 to k in the order of their old numbers, and those old numbers.

    Raises:
        InputError: if a label is negative, or it is not a label image of whole numbers.
    """
    _refuse_mask(labels)
    _check_kind("labels", labels, (np.integer,), f"an array of whole numbers of {LABEL_SHAPE}", n_axes=(2, 3))
    refuse_negative(labels)
    highest = int(labels.max(initial=0))
    if highest <= max(4 * labels.size, 1 << 16):  # a table is faster than sorting all pixels
        present = np.zeros(highest + 1, bool)
        for row in labels:  # not all at once: indices take twice the memory of labels
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


def overlap(truth: Int32[np.ndarray, "*s"], found: Int32[np.ndarray, "*s"]) -> Int[np.ndarray, "k j"]:
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


def areas(labels: Int32[np.ndarray, "*s"], n: int) -> Int[np.ndarray, " n"]:
    """Pixels of labels 1 to n."""
    return np.bincount(labels.ravel(), minlength=n + 1)[1 : n + 1]


def rims(labels: Int[np.ndarray, "*s"]) -> Bool[np.ndarray, "*s"]:
    """Where a neighbour along an axis has another label; pixels below 0, to leave out, are nobody's neighbours."""
    found = np.zeros(labels.shape, bool)
    for axis in range(labels.ndim):
        along, here = np.moveaxis(found, axis, 0), np.moveaxis(labels, axis, 0)
        differ = (here[1:] != here[:-1]) & (here[1:] >= 0) & (here[:-1] >= 0)
        along[1:] |= differ
        along[:-1] |= differ
    return found


def encode_mask(mask: Bool[np.ndarray, "*s"]) -> Int[np.ndarray, " r"]:
    """Lengths of the runs of zeros and ones in turn, down the columns, zeros first: COCO's order."""
    flat = mask.ravel(order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    bounds = np.concatenate([[0], edges, [flat.size]])
    lengths = np.diff(bounds)
    return np.concatenate([[0], lengths]) if flat.size and flat[0] else lengths


def encode_pixels(pixels: Int[np.ndarray, " n"], shape: tuple[int, int]) -> Int[np.ndarray, " r"]:
    """The run lengths, as `encode_mask` gives them, of different pixels that are counted row by row, in any order."""
    height, width = shape
    places = np.sort(pixels.astype(np.int64) % width * height + pixels // width)
    starts = places[np.diff(places, prepend=-2) > 1]
    ends = places[np.diff(places, append=height * width + 1) > 1] + 1
    edges = np.stack([starts, ends], 1).ravel()
    return np.diff(np.concatenate([[0], edges, [height * width]]))  # a last run of 0 zeros is allowed


def encode_masks(labels: Int32[np.ndarray, "*s"], n: int) -> list[Int[np.ndarray, "_"]]:
    """The run lengths of labels 1 to n, as `encode_mask` gives them, in one pass over the image."""
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


def decode_mask(runs: Int[np.ndarray, " r"], shape: tuple[int, ...]) -> Bool[np.ndarray, "*s"]:
    """The mask whose runs `encode_mask` gave.

    Raises:
        InputError: if the runs do not fill the shape.
    """
    if runs.sum() != np.prod(shape) or (runs < 0).any():
        raise InputError(f"The runs of a mask cover {runs.sum()} pixels, but the image has {shape[0]} x {shape[1]}.")
    return np.repeat(np.arange(len(runs)) % 2 == 1, runs).reshape(shape, order="F")
