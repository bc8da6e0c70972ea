"""Volumes that are no TIFF stack: folders of slices, OME-Zarr and HDF5.

A folder of slices holds an image for each, in the order of the numbers in their names. Of OME-Zarr the finest
resolution is read. Of an HDF5 file, it is the only array of three axes or more, or the one whose name says what it is:
`raw`, or `label` among labels, as ilastik and PlantSeg write them, with the size of a voxel as `element_size_um`.

Shapes: `d` planes, `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images.damage import decoding, refuse_too_large
from attractor.images.files import Found, by_number, existing, find_images, images_in, is_zarr
from attractor.images.ome_zarr import open_ome_zarr
from attractor.images.tiff import FEW_PLANES, channels_last, is_tiff, n_axes_of_tiff
from attractor.wording import install

HDF5 = (".h5", ".hdf5")
IMAGES = ("raw", "image", "images", "volume", "data")  # names of arrays in HDF5, the likeliest first
LABELS = ("label", "labels", "segmentation", "mask", "masks")

Reader = Callable[[Path], Shaped[np.ndarray, "h w *c"]]


def is_volume(path: Path) -> bool:
    """Whether a path is read here: a folder, or an HDF5 file."""
    return path.suffix.lower() in HDF5 or path.is_dir()


def find_volumes(paths: Iterable[str | Path], axes: str, *, written: tuple[str, ...]) -> Found:
    """Volumes as given, and those directly in given folders.

    A folder of single images is a volume itself if axes are given, and "Z" is among them.

    Args:
        paths: files and folders.
        axes: letters for the axes of volumes, where they do not name them.
        written: endings of the names of what was written.

    Raises:
        InputError: as `find_images`.
    """
    return find_images(paths, written=written, inside=partial(_inside, axes=axes))


def volumes_in(folder: Path) -> list[Path]:
    """The volumes directly in a folder that are read here: HDF5, OME-Zarr, and folders of slices."""
    return sorted(
        path
        for path in folder.iterdir()
        if not path.name.startswith(".") and (path.suffix.lower() in HDF5 or is_zarr(path) or _images_of(path))
    )


def read_volume(path: Path, axes: str, *, labels: bool, read: Reader) -> Shaped[np.ndarray, "d h w c"]:
    """The numbers of a volume.

    Args:
        path: of a folder or an HDF5 file.
        axes: letters for its axes, where it does not name them.
        labels: whether it holds labels.
        read: what a slice is read by.

    Raises:
        InputError: if it is no volume that can be read here.
    """
    if is_zarr(path):
        return open_ome_zarr(path).volume()
    if path.is_dir():
        return _stacked(path, read)
    return _of_hdf5(existing(path), axes, LABELS if labels else IMAGES)


def spacing_of(path: Path) -> tuple[float, ...] | None:
    """Micrometres from plane to plane, row to row and column to column, if the file says so."""
    if is_zarr(path):
        return open_ome_zarr(path).voxel_size()
    return None if path.is_dir() else _spacing_of_hdf5(existing(path))


def _inside(folder: Path, written: tuple[str, ...], *, axes: str) -> list[Path]:
    """The volumes of a folder, which may be one itself."""
    if is_zarr(folder) or ("Z" in axes.upper() and _is_of_slices(folder)):
        return [folder]
    others = [path for path in volumes_in(folder) if is_zarr(path) or not path.is_dir()]
    try:
        return sorted([*images_in(folder, written), *others])
    except InputError:
        if others:
            return others
        if (folder / "images").is_dir():
            return _inside(folder / "images", written, axes=axes)
        raise


def _images_of(path: Path) -> list[Path]:
    """The images directly in a folder; none of anything else."""
    try:
        return images_in(path) if path.is_dir() else []
    except InputError:
        return []


# -------------------------------------------------------------------- folders of slices


def _is_of_slices(folder: Path) -> bool:
    """Whether a folder holds several images, the first of which is a single one."""
    files = _images_of(folder)
    return len(files) > 1 and not (is_tiff(files[0]) and n_axes_of_tiff(files[0]) == 3)


def _stacked(folder: Path, read: Reader) -> Shaped[np.ndarray, "d h w c"]:
    """The slices of a folder, one upon the other."""
    files = sorted(images_in(folder, ()), key=by_number)
    volume: Shaped[np.ndarray, "d h w c"] | None = None
    for place, file in enumerate(files):
        plane = np.atleast_3d(read(file))
        if volume is None:
            volume = np.empty((len(files), *plane.shape), plane.dtype)
        if plane.shape != volume.shape[1:] or plane.dtype != volume.dtype:
            raise InputError(
                f"{file}: has the shape {plane.shape} and the type {plane.dtype}, but {files[0].name} has "
                f"{volume.shape[1:]} and {volume.dtype}; the slices of a volume are alike."
            )
        volume[place] = plane
    assert volume is not None  # images_in
    return volume


# -------------------------------------------------------------------- HDF5


def _of_hdf5(path: Path, axes: str, names: tuple[str, ...]) -> Shaped[np.ndarray, "d h w c"]:
    with decoding(path), _opened(path) as file:
        array = _chosen(file, path, names)
        letters = _axes_of(array, path, axes)
        lengths = dict(zip(letters, array.shape, strict=True))
        n_bytes = array.dtype.itemsize * array.size // max(1, lengths["Y"] * lengths["X"])
        refuse_too_large(path, lengths["Y"], lengths["X"], n_bytes)
        return channels_last(array[()], letters, n_axes=3)


def _spacing_of_hdf5(path: Path) -> tuple[float, ...] | None:
    with decoding(path), _opened(path) as file:
        array = _chosen(file, path, (*IMAGES, *LABELS))
        sides = tuple(float(side) for side in np.ravel(array.attrs.get("element_size_um", ())))
    return sides if len(sides) == 3 and all(np.isfinite(side) and side > 0 for side in sides) else None


def _opened(path: Path) -> Any:
    if importlib.util.find_spec("h5py") is None:
        raise InputError(f"{path}: HDF5 needs h5py, which is not installed. {install('hdf5')}")
    import h5py

    return h5py.File(path, "r")


def _chosen(file: Any, path: Path, names: tuple[str, ...]) -> Any:
    """The array that is meant."""
    found: dict[str, Any] = {}

    def note(name: str, item: Any) -> None:
        if hasattr(item, "shape") and len(item.shape) >= 3:
            found[name] = item

    file.visititems(note)
    if len(found) == 1:
        return next(iter(found.values()))
    by_name = {name.rpartition("/")[2].lower(): item for name, item in found.items()}
    if chosen := next((by_name[name] for name in names if name in by_name), None):
        return chosen
    held = f"holds the arrays {', '.join(sorted(found)[:6])}" if found else "holds no array of three axes"
    raise InputError(f"{path}: {held}; write one volume to a file, or call it {names[0]}.")


def _axes_of(array: Any, path: Path, given: str) -> str:
    """Letters for the axes of an array."""
    if len(given) == len(array.shape):
        return given.upper()
    if len(array.shape) == 3 and not given:
        return "ZYX"
    if len(array.shape) == 4 and not given and (array.shape[0] <= FEW_PLANES) != (array.shape[3] <= FEW_PLANES):
        return "CZYX" if array.shape[0] <= FEW_PLANES else "ZYXC"
    raise InputError(
        f"{path}: has the shape {tuple(array.shape)}; say what its axes are, a letter for each: --axes ZYX or "
        "--axes CZYX, say."
    )
