"""Arrays in memory as images: one shape, three types of numbers.

Shapes: `h` rows, `w` columns, `c` channels; `s` the lengths of an image, rows and columns, or of a volume, planes, rows
and columns.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Int32, Shaped

from attractor.errors import InputError

LUMINANCE = np.array([0.299, 0.587, 0.114], np.float32)  # ITU-R BT.601, as Pillow and scikit-image have it


def as_image(
    array: Shaped[np.ndarray, "..."], *, name: str = "The image", n_axes: int = 2
) -> Shaped[np.ndarray, "*s c"]:
    """An array of shape (h, w) or (h, w, c) by the rules of `read_image`; four channels stay four.

    With three axes, it is a volume of shape (d, h, w) or (d, h, w, c).

    Raises:
        InputError: if it has another shape or type, or a pixel is NaN or infinite; the message begins with `name`.
    """
    array = np.asarray(array)
    if array.ndim not in (n_axes, n_axes + 1):
        wanted = "image of shape (h, w) or (h, w, c)" if n_axes == 2 else "volume of shape (d, h, w) or (d, h, w, c)"
        raise InputError(f"{name}: an array of shape {array.shape}; give one {wanted}.")
    if array.size == 0:
        raise InputError(f"{name}: an array of shape {array.shape} holds no pixels; give an image of at least 1 x 1.")
    if array.dtype.kind not in "buif":
        raise InputError(f"{name}: pixels of type {array.dtype}; give integers, floats or booleans.")
    if array.dtype == bool:
        array = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        array = array.astype(array.dtype.newbyteorder("="), copy=False)
    else:
        with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
            array = array.astype(np.float32, copy=False)
        if not (np.isfinite(array.min()) and np.isfinite(array.max())):  # NaN spreads to both; this needs no memory
            raise InputError(
                f"{name}: {np.count_nonzero(~np.isfinite(array))} values are NaN or infinite; "
                "replace them, for example with the background's value."
            )
    return np.ascontiguousarray(array if array.ndim > n_axes else array[..., None])


def as_channels(
    image: Shaped[np.ndarray, "*s c"], channels: int, name: str = "The image"
) -> Shaped[np.ndarray, "*s channels"]:
    """The image with as many channels as a model takes: grey repeated to colour, colour averaged to grey.

    Raises:
        InputError: if neither applies; the message begins with `name`.
    """
    found = image.shape[-1]
    if found == channels:
        return image
    if found == 1 and channels == 3:
        return np.repeat(image, 3, axis=-1)
    if found == 3 and channels == 1:
        grey = image.astype(np.float32) @ LUMINANCE  # (*s)
        return (grey if image.dtype.kind == "f" else np.rint(grey)).astype(image.dtype)[..., None]
    raise InputError(
        f"{name} has {found} channel{'s' * (found != 1)}, the model takes {channels}. Grey and RGB are converted into "
        "each other; for other images, select the channels yourself, or use a model trained on such images."
    )


def as_labels(array: Shaped[np.ndarray, "*s"], name: str) -> Int32[np.ndarray, "*s"]:
    """Whole numbers of any type as int32.

    Raises:
        InputError: if there are fractions, negative labels or any above 2**31 - 1; the message begins with `name`.
    """
    if array.dtype.kind == "f" and not (np.isfinite(array).all() and (array == np.rint(array)).all()):
        raise InputError(f"{name}: a label image must hold whole numbers, this one has fractions; is it an image?")
    if array.dtype.kind not in "buif":
        raise InputError(f"{name}: a label image must hold whole numbers, this one has type {array.dtype}.")
    if array.size == 0:
        raise InputError(
            f"{name}: an array of shape {array.shape} holds no pixels; give a label image of its image's size."
        )
    lowest, highest = array.min(), array.max()
    if lowest < 0:
        raise InputError(
            f"{name}: has the negative label {lowest}; labels are 0 for background and 1, 2, … for objects."
        )
    if highest > np.iinfo(np.int32).max:
        raise InputError(
            f"{name}: has the label {highest}, above the largest possible, {np.iinfo(np.int32).max}; renumber them."
        )
    return np.ascontiguousarray(array.astype(np.int32, copy=False))
