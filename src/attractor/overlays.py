"""Outlines of objects drawn on their picture, to judge a result by eye.

The picture is stretched to 8 bits between its own percentiles 1 and 99.8, so that dim microscopy shows.
Each object's outline lies inside the object and takes one of a few bright colours that its neighbours
do not have.

A volume is shown by three planes at right angles to each other, through where most objects are, and by its brightest
voxels along the line of sight. Steps along all axes are drawn to one scale.

Shapes: `h` rows, `w` columns, `d` planes, `c` channels, `k` instances, `m` colours, `e` pairs of neighbours; `s` the
lengths of an image or volume along its axes.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Int, Int32, Int64, Shaped, UInt8
from PIL import Image
from scipy import ndimage

from attractor.errors import InputError
from attractor.instances import Instances, rims

PERCENTILES = (1.0, 99.8)
LARGE = 1500  # pixels of the short side; one pixel of outline cannot be seen on a larger picture
SAMPLE = 1_000_000  # values, enough for percentiles
LARGEST_PICTURE = 1024  # pixels of the long side of a picture in a notebook
COARSE_VOLUME = 128  # likewise, of the longest side of a volume
SMALL_PICTURE = 384  # pixels of a plane of a volume; smaller ones are drawn larger
MARGIN = 6  # pixels between the pictures of a volume
COARSE = 512  # pixels of the long side of a label image in which neighbours are looked for

# Visible on dark and on white, and easy to tell apart; no grey and no violet, which stains have.
COLOURS = np.array(
    [
        (255, 59, 48),  # red
        (0, 200, 83),  # green
        (41, 121, 255),  # blue
        (255, 196, 0),  # amber
        (0, 209, 224),  # cyan
        (255, 109, 0),  # orange
        (124, 255, 0),  # lime
        (255, 92, 168),  # pink
    ],
    np.uint8,
)
FIRST_TO_LAST = np.array([(255, 234, 0), (255, 109, 0), (233, 30, 99), (124, 77, 255), (0, 209, 224)], np.uint8)


def overlay(
    image: Shaped[np.ndarray, "h w c"],
    instances: Instances,
    *,
    order: bool = False,
    thick: bool | None = None,
) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with an outline around each object.

    Args:
        image: of any number type; one channel is grey, of more than three the first three are shown.
        instances: of the same size; where masks overlap, outlines are those of the label image.
        order: colour by label, from yellow through red and violet to cyan, to show in which order objects
            were found, rather than to tell neighbours apart.
        thick: outlines are two pixels wide rather than one; by default, on large pictures.

    Raises:
        InputError: if image and label image differ in size.
    """
    if image.shape[:2] != instances.labels.shape:
        raise InputError(
            f"The image has {image.shape[0]} x {image.shape[1]} pixels, but its label image has "
            f"{instances.labels.shape[0]} x {instances.labels.shape[1]}."
        )
    picture = _to_rgb(image)
    labels = instances.labels
    lines = outlines(labels, thick=min(labels.shape) > LARGE if thick is None else thick)
    colours = _in_order(len(instances)) if order else COLOURS[_choose(labels, len(instances))]
    picture[lines] = colours[labels[lines] - 1]
    return picture


def overlay_of_volume(
    image: Shaped[np.ndarray, "d h w c"],
    instances: Instances,
    *,
    spacing: Sequence[float] | None = None,
    order: bool = False,
) -> UInt8[np.ndarray, "i j 3"]:
    """Four pictures of a volume with outlines: three planes through it, and its maximum along the line of sight.

    From the upper left, clockwise: the plane of rows and columns; that of planes and rows, seen from the right; the
    maximum, with the outlines of what lies in front of each other; and that of planes and columns, seen from below.

    Args:
        image: of any number type.
        instances: of the same size.
        spacing: length of a step along each axis; all alike by default.
        order: colour by label, as in `overlay`.

    Raises:
        InputError: if image and label image differ in size.
    """
    labels = instances.labels
    if image.shape[:-1] != labels.shape:
        sides, own = (" x ".join(map(str, shape)) for shape in (image.shape[:-1], labels.shape))
        raise InputError(f"The volume has {sides} voxels, but its label image has {own}.")
    colours = _in_order(len(instances)) if order else COLOURS[_choose(labels, len(instances))]
    picture = _to_rgb(image)
    steps = tuple(spacing) if spacing is not None else (1.0,) * 3
    sizes = _drawn_sizes(labels.shape, steps)
    plane, row, column = fullest(labels)
    views = [  # pixels and labels of each, and its sides in the picture
        (picture[plane], labels[plane], (sizes[1], sizes[2])),
        (picture[:, :, column].swapaxes(0, 1), labels[:, :, column].T, (sizes[1], sizes[0])),
        (picture[:, row], labels[:, row], (sizes[0], sizes[2])),
        (picture.max(0), _in_front(image, labels), (sizes[1], sizes[2])),
    ]
    front, side, below, brightest = (_outlined(pixels, own, size, colours) for pixels, own, size in views)
    gap = np.full((MARGIN, 1, 3), 255, np.uint8)
    height, width = front.shape[0] + MARGIN + max(below.shape[0], brightest.shape[0]), front.shape[1] + MARGIN
    whole = np.full((height, width + max(side.shape[1], brightest.shape[1]), 3), gap[0, 0], np.uint8)
    for part, top, left in (
        (front, 0, 0),
        (side, 0, width),
        (below, front.shape[0] + MARGIN, 0),
        (brightest, front.shape[0] + MARGIN, width),
    ):
        whole[top : top + part.shape[0], left : left + part.shape[1]] = part
    return whole


def _drawn_sizes(shape: tuple[int, ...], steps: tuple[float, ...]) -> tuple[int, ...]:
    """Pixels along each axis of the pictures of a volume: as many for each length, and several for a voxel if few."""
    finest = min(steps)
    sizes = [n * step / finest for n, step in zip(shape, steps, strict=True)]
    times = max(1, SMALL_PICTURE // max(1, round(max(sizes[1:]))))
    return tuple(max(1, round(size)) * times for size in sizes)


def fullest(labels: Int32[np.ndarray, "d h w"]) -> tuple[int, ...]:
    """The plane, row and column that meet the most objects' voxels; the middle ones where there is no object."""
    if not labels.any():
        return tuple(n // 2 for n in labels.shape)
    inside = labels > 0
    axes = range(3)
    return tuple(int(inside.sum(tuple(other for other in axes if other != axis)).argmax()) for axis in axes)


def _in_front(image: Shaped[np.ndarray, "d h w c"], labels: Int32[np.ndarray, "d h w"]) -> Int32[np.ndarray, "h w"]:
    """For each line of sight, the object whose voxel is the brightest of those in objects; 0 where there is none."""
    brightness = np.where(labels > 0, image.max(-1).astype(np.float64), -np.inf)
    place = brightness.argmax(0)
    front: Int32[np.ndarray, "h w"] = np.take_along_axis(labels, place[None], 0)[0]
    return front


def _outlined(
    pixels: UInt8[np.ndarray, "i j 3"],
    labels: Int32[np.ndarray, "i j"],
    size: tuple[int, int],
    colours: UInt8[np.ndarray, "k 3"],
) -> UInt8[np.ndarray, "p q 3"]:
    """A plane of a volume at the size at which it is drawn, with outlines that are a pixel wide there."""
    drawn = np.asarray(
        Image.fromarray(np.ascontiguousarray(pixels)).resize(size[::-1], Image.Resampling.BILINEAR)
    ).copy()
    rows, columns = (
        np.minimum((np.arange(n) + 0.5) * m / n, m - 1).astype(int) for n, m in zip(size, labels.shape, strict=True)
    )
    large = labels[np.ix_(rows, columns)]
    lines = _outermost(large)
    drawn[lines] = colours[large[lines] - 1]
    return drawn


def label_picture(instances: Instances) -> UInt8[np.ndarray, "i j 3"]:
    """The label image in colours that neighbours do not share, on black; a large one is shrunk.

    Of a volume, it shows the plane that meets the most objects.
    """
    labels, n = instances.labels, len(instances)
    chosen = COLOURS[_choose(labels, n)]
    if labels.ndim == 3:
        labels = labels[fullest(labels)[0]]
    step = -(-max(labels.shape) // LARGEST_PICTURE) or 1
    colours = np.vstack([np.zeros((1, 3), np.uint8), chosen])
    return colours[labels[::step, ::step]]


def _to_rgb(image: Shaped[np.ndarray, "*s c"]) -> UInt8[np.ndarray, "*s 3"]:
    """The picture in 8 bits with three channels.

    8-bit channels are stretched together, which keeps the colours of photographs; others each on its own, as
    the ranges of detectors have nothing in common.
    """
    shown = image[..., :3]
    if image.dtype == np.uint8:
        shown = _stretch(shown)
    else:
        shown = np.stack([_stretch(shown[..., channel]) for channel in range(shown.shape[-1])], -1)
    if shown.shape[-1] == 1:
        return np.repeat(shown, 3, -1)
    missing = np.zeros((*shown.shape[:-1], 3 - shown.shape[-1]), np.uint8)
    return np.concatenate([shown, missing], -1)


def _stretch(values: Shaped[np.ndarray, "h *rest"]) -> UInt8[np.ndarray, "h *rest"]:
    """Percentile 1 as 0 and 99.8 as 255; black where values are not finite or all the same."""
    low, high = _limits(values)
    scale = 255 / (high - low) if high > low else 0.0
    if values.dtype == np.uint8 and values.size > 256:
        table = np.rint(np.clip((np.arange(256) - low) * scale, 0, 255)).astype(np.uint8)
        return table[values]
    stretched = np.empty(values.shape, np.uint8)
    for row, line in enumerate(values):  # line by line, to save memory
        finite = np.where(np.isfinite(line), line, low)
        stretched[row] = np.rint(np.clip((finite - low) * scale, 0, 255))
    return stretched


def _limits(values: Shaped[np.ndarray, "..."]) -> tuple[float, float]:
    """The values to show as black and white; both 0 where no value is finite."""
    some = values.reshape(-1)[:: max(1, values.size // SAMPLE)].astype(float)
    some = some[np.isfinite(some)]
    low, high = np.percentile(some, PERCENTILES) if len(some) else (0.0, 0.0)
    if high <= low:  # a few bright pixels on a constant background, which the sample may have missed
        finite = values[np.isfinite(values)]
        low, high = (finite.min(), finite.max()) if len(finite) else (0.0, 0.0)
    return float(low), float(high)


def outlines(labels: Int[np.ndarray, "h w"], *, thick: bool) -> Bool[np.ndarray, "h w"]:
    """The outermost pixels of each object, or the two outermost; the border of the image is no outline."""
    lines = _outermost(labels)
    if thick:
        lines |= _outermost(np.where(lines, 0, labels))
    return lines


def _outermost(labels: Int[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """Pixels of objects with a pixel of another label, or of background, beside, above or below."""
    return rims(labels) & (labels > 0)


def _in_order(n: int) -> UInt8[np.ndarray, "n 3"]:
    """A colour for each of n labels, blending from the first to the last."""
    place = np.linspace(0, len(FIRST_TO_LAST) - 1, n)
    blend = [np.interp(place, np.arange(len(FIRST_TO_LAST)), channel) for channel in FIRST_TO_LAST.T]
    return np.rint(np.stack(blend, -1)).astype(np.uint8)


def _choose(labels: Int32[np.ndarray, "*s"], n: int) -> Int[np.ndarray, " n"]:
    """A colour number for each label: one that no neighbour has or, if there is none, one that the fewest have."""
    earlier: list[list[int]] = [[] for _ in range(n)]  # neighbours that have their colour already
    for first, second in (_neighbours(labels) - 1).tolist():
        earlier[second].append(first)
    chosen = np.zeros(n, int)
    for label in range(n):
        taken = np.bincount(chosen[earlier[label]], minlength=len(COLOURS))
        chosen[label] = (np.argmin(np.roll(taken, -label)) + label) % len(COLOURS)  # each starts elsewhere
    return chosen


def _neighbours(labels: Int32[np.ndarray, "*s"]) -> Int[np.ndarray, "e 2"]:
    """Pairs of labels, the lower first, that touch or have only background between them."""
    step = -(-max(labels.shape) // COARSE)
    if labels.ndim == 3:
        step = -(-max(labels.shape) // COARSE_VOLUME)
    coarse = labels[(slice(None, None, step),) * labels.ndim]
    if coarse.any():  # every background pixel goes to its nearest object
        nearest = ndimage.distance_transform_edt(coarse == 0, return_distances=False, return_indices=True)
        coarse = coarse[tuple(nearest)]
    codes = np.unique(np.concatenate([_touching(labels), _touching(coarse)]))
    return np.stack([codes >> 32, codes & 0xFFFFFFFF], 1)


def _touching(labels: Int32[np.ndarray, "*s"]) -> Int64[np.ndarray, " e"]:
    """Labels with pixels side by side or one above the other, the lower in the upper half of a number's bits.

    Numbers are made unique in a fraction of the time that pairs take.
    """
    codes = []
    for axis in reversed(range(labels.ndim)):
        before = (slice(None),) * axis
        first, second = labels[(*before, slice(None, -1))], labels[(*before, slice(1, None))]
        meet = (first != second) & (first > 0) & (second > 0)
        one, other = first[meet].astype(np.int64), second[meet]
        codes.append(np.unique(np.minimum(one, other) << 32 | np.maximum(one, other)))
    return np.concatenate(codes)
