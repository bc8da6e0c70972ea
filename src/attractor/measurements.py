"""What can be measured of each object, as a table: a row for each object, a column for each measure.

Measures are scikit-image's (`regionprops`), except the perimeter: that is Crofton's, which is accurate for discs of any
size, never 0, and works with pixels that are not square. It counts how often lines in four directions enter an object:
the longer an outline, the more lines cross it.

Source: the perimeter, Legland et al. 2007, "Computation of Minkowski measures on 2D and 3D binary images".
Shapes: `h` rows, `w` columns, `c` channels, `k` objects.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
from jaxtyping import Float, Int32, Shaped
from skimage.measure import regionprops_table

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.kernels.hulls import hull_areas

Column: TypeAlias = list[int] | list[float] | list[str]
Values: TypeAlias = Shaped[np.ndarray, " k"]

# columns of whole numbers; `class` is text, and all others are fractions
WHOLE = frozenset({"label", "area", "min_row", "min_column", "max_row", "max_column"})

_NAMES = {  # from scikit-image's names to our columns
    "label": "label",
    "area": "area",
    "axis_major_length": "major_axis",
    "axis_minor_length": "minor_axis",
    "orientation": "orientation",
    "centroid-0": "centroid_row",
    "centroid-1": "centroid_column",
    "bbox-0": "min_row",
    "bbox-1": "min_column",
    "bbox-2": "max_row",
    "bbox-3": "max_column",
}
_COLUMNS = ("label", "area", "major_axis", "minor_axis", "orientation", "solidity", *list(_NAMES.values())[5:])
_SHAPE = ("label", "area", "axis_major_length", "axis_minor_length", "orientation", "centroid", "bbox")


def object_table(
    image: Shaped[np.ndarray, "h w c"] | None,
    instances: Instances,
    class_names: tuple[str, ...],
    *,
    pixel_size: tuple[float, float] | None = None,
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

    Args:
        image: of any number type; without one, intensities are left out.
        instances: of the same size.
        class_names: of classes 1, 2, ….
        pixel_size: micrometres along a row's height and a column's width. Adds `area_um2`, `perimeter_um`,
            `major_axis_um`, `minor_axis_um`, `centroid_row_um` and `centroid_column_um`; `orientation` remains that in
            the grid of pixels.

    Raises:
        InputError: if image and label image differ in size, or the pixel size is not above 0.
    """
    labels = instances.labels
    _check(image, labels, pixel_size)
    shape = {_NAMES[name]: values for name, values in regionprops_table(labels, properties=_SHAPE).items()}
    rows = shape["label"] - 1  # of the objects that have a pixel
    shape["solidity"] = shape["area"] / hull_areas(labels, len(instances))[rows]
    columns: dict[str, Values] = {
        "label": shape["label"],
        "class": np.array([class_names[number - 1] for number in instances.classes[rows]], object),
        "score": instances.scores[rows],
        "area": shape["area"],
        "perimeter": perimeters(labels, len(instances))[rows],
        **{name: shape[name] for name in _COLUMNS},
        **(_intensities(image, labels) if image is not None else {}),
    }
    if pixel_size is not None:
        columns |= _in_micrometres(columns, labels, pixel_size)
    return {name: _as_list(name, values) for name, values in columns.items()}


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
    image: Shaped[np.ndarray, "h w c"] | None,
    labels: Int32[np.ndarray, "rows columns"],
    pixel_size: tuple[float, ...] | None,
) -> None:
    if image is not None and image.shape[:2] != labels.shape:
        raise InputError(
            f"The image has {image.shape[0]} x {image.shape[1]} pixels, but its label image has "
            f"{labels.shape[0]} x {labels.shape[1]}."
        )
    if pixel_size is not None:
        check_pixel_size(pixel_size)


def check_pixel_size(pixel_size: tuple[float, ...]) -> None:
    """Refuse what cannot be the size of a pixel.

    Raises:
        InputError: if a side is not a finite number above 0.
    """
    if not all(np.isfinite(side) and side > 0 for side in pixel_size):
        given = " x ".join(f"{side:g}" for side in pixel_size)
        raise InputError(f"The pixel size is {given} micrometres; give numbers above 0, 0.5 for example.")


def _intensities(image: Shaped[np.ndarray, "h w c"], labels: Int32[np.ndarray, "h w"]) -> dict[str, Values]:
    """Mean and maximum of each channel; much faster than scikit-image's, which looks at object after object."""
    inside = np.flatnonzero(labels)
    order = inside[np.argsort(labels.ravel()[inside], kind="stable")]
    starts = np.flatnonzero(np.diff(labels.ravel()[order], prepend=0))
    columns: dict[str, Values] = {}
    for c, channel in enumerate(np.moveaxis(image, -1, 0)):
        values, suffix = channel.ravel()[order], f"_{c}" if image.shape[2] > 1 else ""
        if not len(values):
            values, starts = np.zeros(0), np.zeros(0, int)
        counts = np.diff(starts, append=len(values))
        columns[f"mean_intensity{suffix}"] = np.add.reduceat(values, starts, dtype=np.float64) / counts
        columns[f"max_intensity{suffix}"] = np.maximum.reduceat(values, starts)
    return dict(sorted(columns.items(), key=lambda column: "max" in column[0]))


def _in_micrometres(
    columns: dict[str, Values], labels: Int32[np.ndarray, "h w"], pixel_size: tuple[float, float]
) -> dict[str, Values]:
    """The measures that are lengths or areas, in micrometres."""
    height, width = pixel_size
    axes = regionprops_table(labels, properties=("axis_major_length", "axis_minor_length"), spacing=pixel_size)
    return {
        "area_um2": columns["area"] * height * width,
        "perimeter_um": perimeters(labels, int(labels.max(initial=0)), pixel_size)[columns["label"] - 1],
        "major_axis_um": axes["axis_major_length"],
        "minor_axis_um": axes["axis_minor_length"],
        "centroid_row_um": columns["centroid_row"] * height,
        "centroid_column_um": columns["centroid_column"] * width,
    }


def _as_list(name: str, values: Values) -> Column:
    """A column as plain numbers or text."""
    if name == "class":
        return values.tolist()
    return values.astype(int if name in WHOLE else float).tolist()
