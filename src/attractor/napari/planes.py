"""Which pixels of an image layer are segmented, and where in the world they lie.

Taken is what the viewer shows of the layer: the image itself, or of a stack the plane that the sliders stand at, at the
finest level of a pyramid. Dask and zarr arrays are computed for that plane alone.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images import as_image

if TYPE_CHECKING:
    from napari.components import Dims
    from napari.layers import Image


def shown_plane(layer: Image, dims: Dims) -> tuple[Shaped[np.ndarray, "h w c"], str]:
    """The pixels of a layer that a viewer shows, and a name for them.

    Of four colour channels the last, which is opacity, is left out.

    Raises:
        InputError: if the viewer shows no plane of rows and columns, or the pixels are no image.
    """
    own = [axis - (dims.ndim - layer.ndim) for axis in dims.displayed]
    if own != [layer.ndim - 2, layer.ndim - 1]:
        raise InputError(
            f"{layer.name}: the viewer shows axes {', '.join(map(str, own))} of the layer; a plane of its last two is "
            "segmented. Switch to the 2D view, and put the axes in their order."
        )
    data = layer.data[0] if layer.multiscale else layer.data
    point = np.rint(layer.world_to_data(dims.point)[: layer.ndim - 2]).astype(int)
    index = tuple(int(np.clip(at, 0, n - 1)) for at, n in zip(point, data.shape, strict=False))
    pixels = np.asarray(data[index])
    name = " ".join([layer.name, *map(str, index)])
    return as_image(pixels[..., :3] if layer.rgb else pixels, name=name), name


def geometry(layer: Image) -> dict[str, Any]:
    """Where a plane of rows and columns lies: scale, translation, units and names of its axes, as layers take them."""
    place = {key: getattr(layer, key)[-2:] for key in ("scale", "translate", "units", "axis_labels")}
    turned = ("rotate", "shear", "affine") if layer.ndim == 2 else ()  # of a stack they may mix planes
    return place | {key: getattr(layer, key) for key in turned}
