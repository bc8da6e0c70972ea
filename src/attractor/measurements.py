"""What can be measured of each object, as a table: a row for each object, a column for each measure.

Measures are those of scikit-image's `regionprops`, computed for all objects at once, except the perimeter: that is
Crofton's, which is accurate for discs of any size, never 0, and works with pixels that are not square. It counts how
often lines in four directions enter an object: the longer an outline, the more lines cross it. The surface of an object
of a volume is found likewise, from lines in thirteen directions.

Source: perimeter and surface, Legland et al. 2007, "Computation of Minkowski measures on 2D and 3D binary images".
Shapes: `h` rows, `w` columns, `c` channels, `k` objects; `s` the lengths of an image or volume along its axes, of which
there are `a`.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int, Int32, Shaped
from scipy import ndimage

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.kernels.hulls import hull_areas
from attractor.wording import counted

Column: TypeAlias = list[int] | list[float] | list[str]
Values: TypeAlias = Shaped[np.ndarray, " k"]

# columns of whole numbers; `class` is text, and all others are fractions
WHOLE = frozenset(
    {"label", "area", "volume", "min_plane", "min_row", "min_column", "max_plane", "max_row", "max_column"}
)

_PLACES = ("plane", "row", "column")
_AXES = ("major", "middle", "minor")
_DIRECTIONS = [step for step in itertools.product((0, 1, -1), repeat=3) if step > (0, 0, 0)]  # of each pair, one
SPHERE = 20_000  # points on it

STRIP = 1 << 22  # pixels whose places are summed at once
NEGLIGIBLE = 1e-12  # share of an axis' square that is rounding


def object_table(
    image: Shaped[np.ndarray, "*s c"] | None,
    instances: Instances,
    class_names: tuple[str, ...],
    *,
    pixel_size: tuple[float, ...] | None = None,
) -> dict[str, Column]:
    """What can be measured of each object, column by column, with a row for each label.

    An object is measured as it is in the label image; one that others hide entirely has no row. Lengths are in pixels,
    coordinates are counted from 0 at the middle of the first pixel; an object reaches from `min_row` up to, not
    including, `max_row`.

    - `perimeter`: Crofton's, in four directions; 2.68 for a single pixel.
    - `major_axis`, `minor_axis`: full axes of the ellipse with the same second moments; 0 across a line of pixels.
    - `orientation`: of the major axis in radians, -pi/2 to pi/2. 0 is down the rows, and pi/4 is from the upper left
      to the lower right. An object as long as it is wide has none; the value is then pi/4 or -pi/4.
    - `solidity`: share of the convex hull's pixels that are the object's, above 0 and up to 1.
    - `mean_intensity`, `max_intensity`: of the image as it was read; with several channels `mean_intensity_0`, ….

    An object of a volume has, instead of these:

    - `volume`: its voxels.
    - `surface`: Crofton's, in thirteen directions.
    - `major_axis`, `middle_axis`, `minor_axis`: full axes of the ellipsoid with the same second moments.
    - `centroid_plane`, `min_plane` and `max_plane` beside those of rows and columns.

    Args:
        image: of any number type; without one, intensities are left out.
        instances: of the same size.
        class_names: of classes 1, 2, ….
        pixel_size: micrometres along a row's height and a column's width. Adds `area_um2`, `perimeter_um`,
            `major_axis_um`, `minor_axis_um`, `centroid_row_um` and `centroid_column_um`; `orientation` remains that in
            the grid of pixels. Of a volume, micrometres along its planes, rows and columns; adds `volume_um3`,
            `surface_um2`, the three axes, and `centroid_plane_um` and so on.

    Raises:
        InputError: if image and label image differ in size, or the pixel size is not above 0.
    """
    labels = instances.labels
    _check(image, labels, pixel_size)
    if labels.ndim == 3:
        return _table_of_volume(image, instances, class_names, pixel_size)
    n, moments = len(instances), Moments.of(labels, len(instances))
    rows = np.flatnonzero(moments.size)  # of the objects that have a pixel
    axes = moments.axes()[rows]
    columns: dict[str, Values] = {
        "label": rows + 1,
        "class": np.array([class_names[number - 1] for number in instances.classes[rows]], object),
        "score": instances.scores[rows],
        "area": moments.size[rows],
        "perimeter": perimeters(labels, n)[rows],
        **_by_name(["major_axis", "minor_axis"], axes),
        "orientation": moments.orientation()[rows],
        "solidity": moments.size[rows] / hull_areas(labels, n)[rows],
        **_by_name(["centroid_row", "centroid_column"], moments.centroid[rows]),
        **_by_name(["min_row", "min_column", "max_row", "max_column"], moments.box[rows]),
        **(_intensities(image, labels) if image is not None else {}),
    }
    if pixel_size is not None:
        height, width = pixel_size
        columns |= {
            "area_um2": moments.size[rows] * height * width,
            "perimeter_um": perimeters(labels, n, (height, width))[rows],
            **_by_name(["major_axis_um", "minor_axis_um"], moments.axes(pixel_size)[rows]),
            **_by_name(["centroid_row_um", "centroid_column_um"], (moments.centroid * pixel_size)[rows]),
        }
    return {name: _as_list(name, values) for name, values in columns.items()}


@dataclass(frozen=True)
class Moments:
    """Size, place and spread of objects; zeros for one without a pixel."""

    size: Int[np.ndarray, " k"]  # pixels
    centroid: Float[np.ndarray, "k a"]
    spread: Float[np.ndarray, "k a a"]  # covariance of the places of an object's pixels
    box: Int[np.ndarray, "k _"]  # first place along each axis, then those after the last

    @classmethod
    def of(cls, labels: Int32[np.ndarray, "*s"], n: int) -> Moments:
        """Those of labels 1 to n.

        Places are counted from the middle of each object's box and summed as whole numbers, which floats hold exactly:
        a square is as wide as it is high, whatever the order of its pixels.
        """
        box = np.array([_bounds(found, labels.ndim) for found in ndimage.find_objects(labels, n)], np.int64)
        box = np.concatenate([np.zeros((1, 2 * labels.ndim), np.int64), box.reshape(n, 2 * labels.ndim)])
        middle = (box[:, : labels.ndim] + box[:, labels.ndim :]) // 2
        size, first, second = _summed(labels, middle)
        counts = np.maximum(size, 1)[:, None]
        mean = first / counts
        spread = (second - mean[:, :, None] * first[:, None, :]) / counts[..., None]
        return cls(size[1:], (middle + mean)[1:], spread[1:], box[1:])

    def axes(self, spacing: tuple[float, ...] | None = None) -> Float[np.ndarray, "k a"]:
        """Full axes of the ellipse or ellipsoid with the same spread, longest first, in the unit of the spacing."""
        steps = np.array(spacing or (1.0,) * self.centroid.shape[1])
        spread = self.spread * np.outer(steps, steps)
        squares = _of_two_axes(spread) if len(steps) == 2 else np.linalg.eigvalsh(spread)[:, ::-1].clip(0)
        squares[squares < NEGLIGIBLE * squares[:, :1]] = 0
        return 2 * np.sqrt((len(steps) + 2) * squares)

    def orientation(self) -> Float[np.ndarray, " k"]:
        """Of the major axis of objects of an image, in radians from down the rows."""
        longer, both = self.spread[:, 0, 0] - self.spread[:, 1, 1], self.spread[:, 0, 1]
        none = np.where(both > 0, np.pi / 4, -np.pi / 4)
        return np.where(longer == 0, none, np.arctan2(2 * both + 0.0, longer) / 2)  # -0 becomes 0


def _of_two_axes(spread: Float[np.ndarray, "k 2 2"]) -> Float[np.ndarray, "k 2"]:
    """Eigenvalues, the larger one first."""
    middle, half = (spread[:, 0, 0] + spread[:, 1, 1]) / 2, (spread[:, 0, 0] - spread[:, 1, 1]) / 2
    away = np.hypot(half, spread[:, 0, 1])
    return np.stack([middle + away, (middle - away).clip(0)], 1)


def _summed(
    labels: Int32[np.ndarray, "*s"], middle: Int[np.ndarray, "k a"]
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, "k a"], Float[np.ndarray, "k a a"]]:
    """For each label from 0, pixels, and the sums of their places from a middle and of the products of two of these."""
    k, n_axes = middle.shape
    size, first, second = np.zeros(k, np.int64), np.zeros((k, n_axes)), np.zeros((k, n_axes, n_axes))
    thick = max(1, STRIP // max(1, labels[:1].size))
    for start in range(0, len(labels), thick):
        part = labels[start : start + thick]
        inside = np.flatnonzero(part)
        owner = part.ravel()[inside]
        size += np.bincount(owner, minlength=k)
        away = []
        for axis, place in enumerate(np.unravel_index(inside, part.shape)):
            away.append((place + (start if axis == 0 else 0) - middle[owner, axis]).astype(float))
            first[:, axis] += np.bincount(owner, away[axis], k)
        for i, j in itertools.combinations_with_replacement(range(n_axes), 2):
            product = np.bincount(owner, away[i] * away[j], k)
            second[:, i, j] += product
            if i != j:
                second[:, j, i] += product
    return size, first, second


def perimeters(
    labels: Int32[np.ndarray, "h w"], n: int, pixel_size: tuple[float, float] = (1.0, 1.0)
) -> Float[np.ndarray, " n"]:
    """Crofton's perimeter of labels 1 to n, in the unit of the pixel size; 0 for a label without a pixel.

    The image's border counts as outline. With square pixels it is scikit-image's `perimeter_crofton`.
    """
    height, width = pixel_size
    angle = np.arctan2(height, width)  # between the diagonal and a row
    diagonal = height * width / np.hypot(height, width)  # distance between neighbouring diagonals
    lines = {  # step along a line: (distance between such lines, angle that they stand for)
        (0, 1): (height, angle),
        (1, 0): (width, np.pi / 2 - angle),
        (1, 1): (diagonal, np.pi / 4),
        (1, -1): (diagonal, np.pi / 4),
    }
    padded = np.pad(labels, 1)
    found = np.zeros(n)
    for (down, right), (distance, share) in lines.items():
        before = padded[1 - down : padded.shape[0] - 1 - down, 1 - right : padded.shape[1] - 1 - right]
        entered = np.bincount(labels[labels != before], minlength=n + 1)[1 : n + 1]
        found += share * distance * entered
    return found


def _check(
    image: Shaped[np.ndarray, "..."] | None,
    labels: Int32[np.ndarray, "*s"],
    pixel_size: tuple[float, ...] | None,
) -> None:
    if image is not None and image.shape[:-1] != labels.shape:
        sides, own = (" x ".join(map(str, shape)) for shape in (image.shape[:-1], labels.shape))
        raise InputError(f"The image has {sides} pixels, but its label image has {own}.")
    if pixel_size is not None:
        check_pixel_size(pixel_size, n_axes=labels.ndim)


def check_pixel_size(pixel_size: tuple[float, ...], *, n_axes: int = 2) -> None:
    """Refuse what cannot be the size of a pixel.

    Raises:
        InputError: if a side is not a finite number above 0, or there is not one for each axis.
    """
    if len(pixel_size) != n_axes:
        wanted = "two, its height and width" if n_axes == 2 else "three, as in 1.75x0.8x0.8 for depth, height and width"
        raise InputError(f"The pixel size has {counted(len(pixel_size), 'number')}; give {wanted}.")
    if not all(np.isfinite(side) and side > 0 for side in pixel_size):
        given = " x ".join(f"{side:g}" for side in pixel_size)
        raise InputError(f"The pixel size is {given} micrometres; give numbers above 0, 0.5 for example.")


def _table_of_volume(
    image: Shaped[np.ndarray, "d h w c"] | None,
    instances: Instances,
    class_names: tuple[str, ...],
    pixel_size: tuple[float, ...] | None,
) -> dict[str, Column]:
    """What can be measured of each object of a volume."""
    labels, n = instances.labels, len(instances)
    moments = Moments.of(labels, n)
    rows = np.flatnonzero(moments.size)  # of the objects that have a voxel
    columns: dict[str, Values] = {
        "label": rows + 1,
        "class": np.array([class_names[number - 1] for number in instances.classes[rows]], object),
        "score": instances.scores[rows],
        "volume": moments.size[rows],
        "surface": surfaces(labels, n)[rows],
        **_by_name([f"{name}_axis" for name in _AXES], moments.axes()[rows]),
        **_by_name([f"centroid_{name}" for name in _PLACES], moments.centroid[rows]),
        **_by_name([f"{end}_{name}" for end in ("min", "max") for name in _PLACES], moments.box[rows]),
        **(_intensities(image, labels) if image is not None else {}),
    }
    if pixel_size is not None:
        columns |= {
            "volume_um3": moments.size[rows] * np.prod(pixel_size),
            "surface_um2": surfaces(labels, n, pixel_size)[rows],
            **_by_name([f"{name}_axis_um" for name in _AXES], moments.axes(pixel_size)[rows]),
            **_by_name([f"centroid_{name}_um" for name in _PLACES], (moments.centroid * pixel_size)[rows]),
        }
    return {name: _as_list(name, values) for name, values in columns.items()}


def _by_name(names: Sequence[str], values: Shaped[np.ndarray, "k n"]) -> dict[str, Values]:
    """Columns of an array by name."""
    return dict(zip(names, values.T, strict=True))


def _bounds(box: tuple[slice, ...] | None, n_axes: int) -> list[int]:
    """First place along each axis, and those after the last; zeros for an object without a pixel."""
    if box is None:
        return [0] * 2 * n_axes
    return [*(side.start for side in box), *(side.stop for side in box)]


def surfaces(
    labels: Int32[np.ndarray, "d h w"], n: int, spacing: tuple[float, ...] = (1.0, 1.0, 1.0)
) -> Float[np.ndarray, " n"]:
    """Crofton's surface of labels 1 to n, in the square of the spacing's unit; 0 for a label without a voxel.

    The border of the volume counts as surface. A body's surface is four times its shadow, on average over directions;
    a shadow is known from how many parallel lines enter the body. Each of thirteen directions stands for the part of
    the sphere that is nearest to it.
    """
    shares = _shares_of_directions(spacing)
    padded, found = np.pad(labels, 1), np.zeros(n)
    for step, share in zip(_DIRECTIONS, shares, strict=True):
        before = padded[tuple(slice(1 - d, side - 1 - d) for d, side in zip(step, padded.shape, strict=True))]
        entered = np.bincount(labels[labels != before], minlength=n + 1)[1 : n + 1]
        length = np.linalg.norm(np.multiply(step, spacing))
        found += 4 * share * entered * np.prod(spacing) / length  # each line has this much of the shadow
    return found


@functools.cache
def _shares_of_directions(spacing: tuple[float, ...]) -> Float[np.ndarray, " m"]:
    """The part of the sphere that is nearest to each direction, or its opposite; found from points spread evenly."""
    directions = np.array(_DIRECTIONS) * np.array(spacing)
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    place = np.arange(SPHERE) + 0.5
    height, angle = 1 - 2 * place / SPHERE, np.pi * (1 + 5**0.5) * place
    ring = np.sqrt(1 - height**2)
    points = np.stack([height, ring * np.cos(angle), ring * np.sin(angle)], 1)
    nearest = np.abs(points @ directions.T).argmax(1)
    shares: Float[np.ndarray, " m"] = np.bincount(nearest, minlength=len(directions)) / SPHERE
    return shares


def _intensities(image: Shaped[np.ndarray, "*s c"], labels: Int32[np.ndarray, "*s"]) -> dict[str, Values]:
    """Mean and maximum of each channel; much faster than scikit-image's, which looks at object after object."""
    inside = np.flatnonzero(labels)
    order = inside[np.argsort(labels.ravel()[inside], kind="stable")]
    starts = np.flatnonzero(np.diff(labels.ravel()[order], prepend=0))
    columns: dict[str, Values] = {}
    for c, channel in enumerate(np.moveaxis(image, -1, 0)):
        values, suffix = channel.ravel()[order], f"_{c}" if image.shape[-1] > 1 else ""
        if not len(values):
            values, starts = np.zeros(0), np.zeros(0, int)
        counts = np.diff(starts, append=len(values))
        columns[f"mean_intensity{suffix}"] = np.add.reduceat(values, starts, dtype=np.float64) / counts
        columns[f"max_intensity{suffix}"] = np.maximum.reduceat(values, starts)
    return dict(sorted(columns.items(), key=lambda column: "max" in column[0]))


def _as_list(name: str, values: Values) -> Column:
    """A column as plain numbers or text."""
    if name == "class":
        return values.tolist()
    return values.astype(int if name in WHOLE else float).tolist()
