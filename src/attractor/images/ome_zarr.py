"""OME-Zarr, versions 0.4 and 0.5: images of several resolutions, read part by part, and label images beside them.

Nothing is read whole. A chunk that is not stored has the array's fill value, as zarr defines it. Labels are written in
the version of their image, uint32, with as many resolutions as the image has.

Source: https://ngff.openmicroscopy.org/0.5/ and /0.4/.
Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a part.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images.arrays import as_image
from attractor.images.files import ZARR, is_zarr
from attractor.images.tiff import channels_last
from attractor.shortage import cure
from attractor.wording import counted, install, printable

CHUNK, SHARD = 512, 2048  # sides of what is compressed together, and of a file, in version 0.5
SPACE = "yx"
MICROMETRES = {"nanometer": 1e-3, "micrometer": 1.0, "millimeter": 1e3, "centimeter": 1e4, "meter": 1e6}


def is_ome_zarr(path: str | Path) -> bool:
    """Whether a path is a Zarr group or array: a folder that says so, or an address."""
    return "://" in str(path) or is_zarr(Path(path))


@dataclass(frozen=True)
class OmeZarr:
    """An image of several resolutions."""

    path: str  # of the image's own group
    version: str  # "0.4" or "0.5"
    axes: tuple[Mapping[str, str], ...]  # name, and where known type and unit
    datasets: tuple[str, ...]  # of the resolutions, finest first
    scales: tuple[tuple[float, ...] | None, ...]  # of each, along all axes
    channel_names: tuple[str, ...] = ()
    arrays: tuple[Any, ...] = field(default=(), repr=False, compare=False)

    @property
    def names(self) -> str:
        """The axes in one word, such as "tczyx"."""
        return "".join(axis["name"] for axis in self.axes)

    def sides(self, level: int) -> tuple[int, int]:
        """Rows and columns of a resolution."""
        shape = dict(zip(self.names, self.arrays[level].shape, strict=True))
        return int(shape["y"]), int(shape["x"])

    def pixel_size(self, level: int) -> tuple[float, float] | None:
        """Micrometres along a pixel's height and width; None if the file does not say."""
        height, width = self._lengths(level, SPACE) or (0.0, 0.0)
        return (height, width) if height else None

    def voxel_size(self) -> tuple[float, ...] | None:
        """Micrometres along a voxel's depth, height and width at the finest resolution; None if it does not say."""
        return self._lengths(0, "zyx") if "z" in self.names else None

    def _lengths(self, level: int, names: str) -> tuple[float, ...] | None:
        """Micrometres of a step along each of these axes, in their order; None if one is not known."""
        scale = self.scales[level] or (float("nan"),) * len(self.axes)
        lengths = {
            axis["name"]: length * MICROMETRES.get(axis.get("unit", ""), float("nan"))
            for axis, length in zip(self.axes, scale, strict=True)
        }
        sides = tuple(lengths[name] for name in names)
        return sides if all(np.isfinite(side) and side > 0 for side in sides) else None

    def volume(self) -> Shaped[np.ndarray, "d h w c"]:
        """The finest resolution, whole: planes, rows, columns and channels.

        Raises:
            InputError: if it is one plane or a film, or a chunk is damaged.
        """
        array = self.arrays[0]
        lengths = dict(zip(self.names, array.shape, strict=True))
        if lengths.get("t", 1) > 1:
            raise InputError(f"{self.path}: is a film of {lengths['t']} volumes; write one of them as an image.")
        if "z" not in lengths:
            raise InputError(f"{self.path}: is one image and no volume; its axes are {self.names}.")
        try:
            values = np.asarray(array[...])
        except MemoryError as error:
            shape = " x ".join(map(str, array.shape))
            raise InputError(
                f"{self.path}: {shape} values need more memory than there is; cut it into parts."
            ) from error
        except Exception as error:  # codecs and stores throw what they like
            reason = cure(error) or error
            raise InputError(f"{self.path}: cannot be read: {reason}; copy the volume again, or repair it.") from error
        return channels_last(values, self.names.upper(), n_axes=3)

    def level(
        self, number: int = 0, *, channels: Sequence[str] = (), plane: Mapping[str, int] | None = None
    ) -> OmeZarrLevel:
        """One resolution, as an image of rows, columns and channels.

        Args:
            number: of the resolution, 0 for the finest.
            channels: numbers from 0, or names; all if none is given.
            plane: which place along further axes, such as {"z": 3}; needed where there is more than one.

        Raises:
            InputError: if there is no such resolution, channel or place, or one must be chosen.
        """
        if not 0 <= number < len(self.datasets):
            raise InputError(
                f"{self.path}: has no level {number}; it has {counted(len(self.datasets), 'level')}, from 0."
            )
        array, wanted = self.arrays[number], dict(plane or {})
        if unknown := [axis for axis in wanted if axis not in self.names or axis in SPACE + "c"]:
            raise InputError(
                f"{self.path}: has no axis {unknown[0]!r} to choose a place on; its axes are {self.names}."
            )
        places = {}
        for axis, n in zip(self.names, array.shape, strict=True):
            if axis in SPACE + "c":
                continue
            place = wanted.get(axis, 0)
            if axis not in wanted and n > 1:
                raise InputError(f"{self.path}: has {n} places along {axis}; choose one, as by --plane {axis}=0.")
            if not 0 <= place < n:
                raise InputError(f"{self.path}: has no place {place} along {axis}; there are {n}, from 0.")
            places[axis] = place
        n_channels = array.shape[self.names.index("c")] if "c" in self.names else 1
        chosen = tuple(self._channel(name, n_channels) for name in channels) or tuple(range(n_channels))
        return OmeZarrLevel(self.path, array, self.names, places, chosen)

    def _channel(self, name: str, n: int) -> int:
        if name in self.channel_names:
            return self.channel_names.index(name)
        if name.isdigit() and int(name) < n:
            return int(name)
        named = f", or by name: {', '.join(map(printable, self.channel_names))}" if self.channel_names else ""
        raise InputError(f"{self.path}: has no channel {name!r}; channels are 0 to {n - 1}{named}.")


@dataclass(frozen=True)
class OmeZarrLevel:
    """A plane of one resolution that can be taken out part by part."""

    path: str
    array: Any
    names: str
    places: Mapping[str, int]
    channels: tuple[int, ...]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Rows, columns and channels."""
        sides = dict(zip(self.names, self.array.shape, strict=True))
        return int(sides["y"]), int(sides["x"]), len(self.channels)

    @property
    def dtype(self) -> np.dtype[Any]:
        """The type of what is taken out."""
        return as_image(np.zeros((1, 1), self.array.dtype)).dtype

    def __getitem__(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j c"]:
        """Rows and columns.

        Raises:
            InputError: if a chunk is damaged or cannot be fetched.
        """
        chosen = {"y": part[0], "x": part[1], **self.places}
        try:
            planes = [
                np.asarray(self.array[tuple(chosen.get(axis, channel) for axis in self.names)])
                for channel in self.channels
            ]
        except Exception as error:  # codecs and stores throw what they like
            place = ", ".join(f"{name} {side.start} to {side.stop}" for name, side in zip("yx", part, strict=True))
            raise InputError(
                f"{self.path}: cannot be read at {place}: {cure(error) or error}; copy the image again, or repair it."
            ) from error
        flipped = self.names.index("y") > self.names.index("x")
        return as_image(np.stack([plane.T if flipped else plane for plane in planes], -1), name=self.path)


def open_ome_zarr(path: str | Path, image: str | None = None) -> OmeZarr:
    """An image's metadata and arrays; no pixel is read.

    Args:
        path: of a group, or an address that fsspec knows.
        image: the name of one of several images that the group holds, as bioformats2raw writes them.

    Raises:
        InputError: if zarr is missing, there is no such group, or it is no image that is understood.
    """
    group = _group(str(path))
    attributes = _attributes(group)
    if "multiscales" not in attributes:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's, about other files and folders there
            children = [name for name, child in group.groups() if "multiscales" in _attributes(child)]
        if image is None and len(children) == 1:
            image = children[0]
        if image is None or image not in children:
            raise InputError(_no_image(str(path), image, children, attributes))
        return open_ome_zarr(f"{str(path).rstrip('/')}/{image}")
    if image is not None:
        raise InputError(f"{path}: is a single image; leave --image out.")
    return _understood(str(path), group, attributes)


def _no_image(path: str, image: str | None, children: Sequence[str], attributes: Mapping[str, Any]) -> str:
    if children:
        asked = f"has no image {image!r}" if image is not None else f"holds {counted(len(children), 'image')}"
        return f"{path}: {asked}; choose one by --image: {', '.join(sorted(children)[:10])}."
    if "plate" in attributes:
        return f"{path}: is a plate; give the image of one field, such as {path}/A/1/0."
    return f"{path}: is no OME-Zarr image: its metadata have no multiscales; give the group that has them."


def _group(path: str) -> Any:
    """The group at a path, to be read.

    Raises:
        InputError: if zarr is not installed, or there is no group.
    """
    if importlib.util.find_spec("zarr") is None:
        raise InputError(f"{path}: OME-Zarr needs zarr, which is not installed. {install('scale')}")
    import zarr

    try:
        return zarr.open_group(path, mode="r")
    except ImportError as error:
        raise InputError(f"{path}: an address needs a package that is not installed: {error}.") from error
    except Exception as error:  # stores throw what they like
        if "://" not in path and not Path(path).exists():
            raise InputError(f"{path}: there is no such file or folder.") from error
        reason = "it is a single array" if isinstance(error, zarr.errors.ContainsArrayError) else cure(error) or error
        raise InputError(f"{path}: is no OME-Zarr image: {reason}; give a group with multiscales.") from error


def _attributes(group: Any) -> Mapping[str, Any]:
    """What OME-Zarr says of a group: version 0.5 under a key of its own."""
    attributes = dict(group.attrs)
    own = attributes.get("ome")
    return {**own, "is_0.5": True} if isinstance(own, dict) else attributes


def _understood(path: str, group: Any, attributes: Mapping[str, Any]) -> OmeZarr:
    try:
        first = attributes["multiscales"][0]
        version = str(attributes.get("version") or first.get("version") or ("0.5" if "is_0.5" in attributes else "0.4"))
        axes = tuple({"name": axis} if isinstance(axis, str) else dict(axis) for axis in first["axes"])
        datasets = tuple(str(dataset["path"]) for dataset in first["datasets"])
        scales = tuple(_scale(dataset, first, len(axes)) for dataset in first["datasets"])
        names = "".join(axis["name"] for axis in axes)
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise InputError(f"{path}: its OME-Zarr metadata lack {error}; write the image again.") from error
    if not version.startswith(("0.4", "0.5", "0.6")):
        raise InputError(f"{path}: is OME-Zarr {version}; versions 0.4 and 0.5 can be read.")
    if sorted(set(names) - set("tcz")) != sorted(SPACE) or len(set(names)) != len(axes):
        raise InputError(f"{path}: has the axes {names}; y and x are needed, and t, c and z are known besides.")
    arrays = []
    for dataset in datasets:
        try:
            array = group[dataset]
        except KeyError as error:
            raise InputError(f"{path}: its level {dataset!r} is missing; copy the image again.") from error
        if len(array.shape) != len(axes):
            raise InputError(f"{path}: level {dataset!r} has {len(array.shape)} axes, and the metadata name {names}.")
        arrays.append(array)
    channels = attributes.get("omero", {}).get("channels", []) if isinstance(attributes.get("omero"), dict) else []
    labels = tuple(str(channel.get("label", "")) for channel in channels if isinstance(channel, dict))
    return OmeZarr(path, "0.4" if version.startswith("0.4") else "0.5", axes, datasets, scales, labels, tuple(arrays))


def _scale(dataset: Mapping[str, Any], multiscale: Mapping[str, Any], n: int) -> tuple[float, ...] | None:
    """The lengths of a pixel: the level's scale, times that of all levels; None where there is none."""
    total = None
    for transformations in (dataset, multiscale):
        for transformation in transformations.get("coordinateTransformations", []):
            if transformation.get("type") == "scale" and len(transformation["scale"]) == n:
                total = np.array(transformation["scale"], float) * (1.0 if total is None else total)
    return None if total is None else tuple(total.tolist())


# -------------------------------------------------------------------- labels


@dataclass(frozen=True)
class LabelLevel:
    """One resolution of a label image, which is written and read by rows and columns."""

    array: Any
    before: tuple[int, ...]  # places along the axes in front of rows and columns

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.array.shape[-2]), int(self.array.shape[-1])

    def __getitem__(self, part: tuple[slice, slice]) -> Shaped[np.ndarray, "i j"]:
        """Rows and columns."""
        return np.asarray(self.array[(*self.before, *part)])

    def __setitem__(self, part: tuple[slice, slice], labels: Shaped[np.ndarray, "i j"]) -> None:
        """Write rows and columns; calls at once must not share a file, whose side is `SHARD`."""
        self.array[(*self.before, *part)] = labels


def copy_without_labels(image: OmeZarr, out: Path) -> None:
    """Copy an image's hierarchy; chunks become second names of the same files where the disk allows.

    Raises:
        InputError: if it cannot be written.
    """
    source = Path(image.path)
    try:
        for folder, folders, files in os.walk(source):
            place = out / Path(folder).relative_to(source)
            if Path(folder) == source and "labels" in folders:
                folders.remove("labels")
            place.mkdir(parents=True, exist_ok=True)
            for name in files:
                if not (place / name).exists():
                    _second_name(Path(folder) / name, place / name)
    except OSError as error:
        raise InputError(
            f"{out}: cannot be written: {error.strerror or error}; {cure(error) or 'check it'}."
        ) from error


def _second_name(file: Path, other: Path) -> None:
    if file.name not in (*ZARR, ".zmetadata"):
        try:
            other.hardlink_to(file)
        except OSError:  # another disk, or one that has no such names
            pass
        else:
            return
    shutil.copy2(file, other)


def make_labels(
    root: Path,
    name: str,
    shapes: Sequence[tuple[int, int]],
    *,
    version: str = "0.5",
    image: OmeZarr | None = None,
    pixel_size: tuple[float, float] | None = None,
    finest: int = 0,
) -> None:
    """Make an empty label image of several resolutions in a hierarchy, with all metadata.

    Args:
        root: of the hierarchy; made if it is missing.
        name: of the label image.
        shapes: rows and columns of each resolution, finest first.
        version: of OME-Zarr, "0.4" or "0.5".
        image: whose axes and scales are taken over.
        pixel_size: micrometres along a pixel's height and width, where there is no image.
        finest: the image's level that the labels' finest belongs to.

    Raises:
        InputError: if it cannot be written.
    """
    import zarr

    is_new = version == "0.5"
    names = "".join(axis for axis in (image.names if image else SPACE) if axis != "c")
    axes = [dict(axis) for axis in (image.axes if image else ()) if axis["name"] != "c"]
    axes = axes or [{"name": axis, "type": "space", "unit": "micrometer"} for axis in SPACE]
    if image is None and pixel_size is None:
        axes = [{"name": axis, "type": "space"} for axis in SPACE]
    try:
        group: Any = zarr.open_group(str(root), mode="a", zarr_format=3 if is_new else 2, use_consolidated=False)
        labels = group.require_group("labels")
        own = labels.create_group(name, overwrite=True)
        datasets = []
        for level, sides in enumerate(shapes):
            shape = (*[1] * (len(names) - 2), *sides)
            before = [1] * (len(names) - 2)
            how: dict[str, Any] = {"shards": (*before, SHARD, SHARD), "dimension_names": list(names)}
            if not is_new:
                how = {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
            own.create_array(
                str(level), shape=shape, dtype="uint32", chunks=(*before, CHUNK, CHUNK), fill_value=0, **how
            )
            scale = _scale_of_labels(image, names, level + finest, pixel_size, shapes, level)
            datasets.append({"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]})
        multiscale = {"name": name, "axes": axes, "datasets": datasets}
        about: dict[str, Any] = {"image-label": {"version": version}}
        if image is not None and "://" not in image.path:
            about["image-label"]["source"] = {"image": "../../"}
        listed = labels.attrs.get("ome", {}).get("labels", []) if is_new else labels.attrs.get("labels", [])
        listed = [*dict.fromkeys([*listed, name])]
        if is_new:
            own.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale], **about}
            labels.attrs["ome"] = {"version": "0.5", "labels": listed}
        else:
            own.attrs.update({"multiscales": [multiscale | {"version": "0.4"}], **about})
            labels.attrs["labels"] = listed
    except OSError as error:
        raise InputError(
            f"{root}: cannot be written: {error.strerror or error}; {cure(error) or 'choose another place'}."
        ) from error


def _scale_of_labels(
    image: OmeZarr | None,
    names: str,
    level: int,
    pixel_size: tuple[float, float] | None,
    shapes: Sequence[tuple[int, int]],
    own: int,
) -> list[float]:
    known = image.scales[level] if image is not None and level < len(image.scales) else None
    if image is not None and known is not None:
        return [length for axis, length in zip(image.names, known, strict=True) if axis != "c"]
    sides = pixel_size or (1.0, 1.0)
    times = [round(first / now) for first, now in zip(shapes[0], shapes[own], strict=True)]
    return [*[1.0] * (len(names) - 2), *(side * n for side, n in zip(sides, times, strict=True))]


def has_labels(root: str | Path, name: str) -> bool:
    """Whether a hierarchy has a label image of this name."""
    return is_zarr(Path(root) / "labels" / name)


def open_labels(root: str | Path, name: str, place: Sequence[int] = ()) -> list[LabelLevel]:
    """The resolutions of a label image, to be written and read.

    Args:
        root: of the hierarchy.
        name: of the label image.
        place: along the axes in front of rows and columns; 0 if it is left out.
    """
    import zarr

    group: Any = zarr.open_group(str(root), mode="r+", path=f"labels/{name}", use_consolidated=False)
    levels = [group[path] for path in sorted((key for key, _ in group.arrays()), key=int)]
    n = levels[0].ndim - 2
    return [LabelLevel(array, tuple(place) or (0,) * n) for array in levels]


def consolidate_again(root: str | Path) -> None:
    """Bring the collected metadata of a hierarchy up to date, if it has any."""
    import zarr

    group = zarr.open_group(str(root), mode="r")
    if group.metadata.consolidated_metadata is not None:
        zarr.consolidate_metadata(str(root))
