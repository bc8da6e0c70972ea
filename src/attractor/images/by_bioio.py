"""Images in the formats of microscopes (CZI, ND2, LIF and more), read by `bioio` where that is installed.

How much is read for a part depends on bioio's reader for the format; some read a whole plane.

Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a part.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images.arrays import as_image

PLUGINS = {".czi": "bioio-czi", ".nd2": "bioio-nd2", ".lif": "bioio-lif", ".dv": "bioio-dv", ".sldy": "bioio-sldy"}


@dataclass(frozen=True)
class Microscopy:
    """One resolution of an image that bioio reads."""

    path: Path
    lazy: Any  # (h, w, c), whose parts are read when they are computed
    pixel_size: tuple[float, float] | None  # micrometres along a pixel's height and width

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows, columns and channels."""
        return tuple(self.lazy.shape)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what is taken out."""
        return as_image(np.zeros((1, 1), self.lazy.dtype)).dtype

    def __getitem__(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j c"]:
        """The pixels in some rows and columns.

        Raises:
            InputError: if bioio cannot read them.
        """
        try:
            taken = np.asarray(self.lazy[part].compute(scheduler="synchronous"))
        except Exception as error:  # each reader has errors of its own
            raise _unreadable(self.path, error) from error
        return as_image(taken, name=str(self.path))


def is_for_bioio(path: str | Path) -> bool:
    """Whether a file has a format of microscopes that attractor itself does not read."""
    return Path(path).suffix.lower() in PLUGINS and Path(path).is_file()


def open_by_bioio(
    path: str | Path,
    *,
    image: str | None = None,
    level: int = 0,
    channels: Sequence[str] = (),
    plane: Mapping[str, int] | None = None,
) -> Microscopy:
    """One resolution of an image; nothing but its metadata is read.

    Args:
        path: file.
        image: number or name of a scene, if there are several.
        level: resolution, 0 for the finest.
        channels: numbers or names; all if none is given.
        plane: place along t and z.

    Raises:
        InputError: if bioio or its plugin for the format is missing, or there is no such scene, level, channel or
            place.
    """
    path = Path(path)
    plugin = PLUGINS[path.suffix.lower()]
    if importlib.util.find_spec("bioio") is None:
        raise InputError(
            f"{path}: is read by bioio, which is not installed: pip install bioio {plugin}; or save the image as "
            "OME-Zarr or OME-TIFF."
        )
    try:
        opened = importlib.import_module("bioio").BioImage(path)
        scenes = list(opened.scenes)
    except Exception as error:  # as in reading: what bioio's plugins raise is not known
        raise _unreadable(path, error, f"; {plugin} must be installed, too") from error
    scene = _place(path, "--image", image, scenes)
    if len(scenes) > 1 and image is None:
        raise InputError(f"{path}: holds {len(scenes)} images, {', '.join(scenes[:8])}; choose one by --image.")
    opened.set_scene(scene)
    levels = list(opened.resolution_levels)
    if level not in levels:
        raise InputError(f"{path}: there is no level {level}; there are {len(levels)}, from 0.")
    opened.set_resolution_level(level)
    names = [str(name) for name in opened.channel_names or range(opened.dims.C)]
    chosen = [_place(path, "--channels", name, names) for name in channels] or list(range(len(names)))
    lengths = {"t": opened.dims.T, "z": opened.dims.Z}
    places = {axis: 0 for axis in lengths} | dict(plane or {})
    for axis, place in places.items():
        if axis not in lengths:
            raise InputError(f"{path}: has no axis {axis}; --plane takes t and z.")
        if not 0 <= place < lengths[axis]:
            raise InputError(f"{path}: --plane {axis}={place} is not there; {axis} goes from 0 to {lengths[axis] - 1}.")
        if lengths[axis] > 1 and axis not in (plane or {}):
            raise InputError(f"{path}: has {lengths[axis]} places along {axis}; choose one, such as --plane {axis}=0.")
    is_colour = "S" in opened.dims.order
    lazy = opened.get_image_dask_data("YXS" if is_colour else "YXC", T=places["t"], Z=places["z"])
    return Microscopy(path, lazy if is_colour else lazy[..., chosen], _pixel_size(opened))


def _pixel_size(opened: Any) -> tuple[float, float] | None:
    """Micrometres along a pixel's height and width, where the file says them."""
    sizes = opened.physical_pixel_sizes
    return (float(sizes.Y), float(sizes.X)) if sizes.Y and sizes.X else None


def _place(path: Path, option: str, wanted: str | None, names: Sequence[str]) -> int:
    """The place of what is wanted, by its name or number."""
    if wanted is None:
        return 0
    if wanted in names:
        return names.index(wanted)
    if wanted.isdigit() and int(wanted) < len(names):
        return int(wanted)
    raise InputError(f"{path}: {option} {wanted} is not there; there are {', '.join(names[:8])}.")


def _unreadable(path: Path, error: Exception, remark: str = "") -> InputError:
    reason = str(error).strip().split("\n")[0].split(". ")[0].rstrip(".") or type(error).__name__
    return InputError(f"{path}: bioio cannot read it ({reason}){remark}. Or save the image as OME-Zarr or OME-TIFF.")
