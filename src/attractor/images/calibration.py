"""How large a pixel is, if a file says so in a way that can be trusted."""

from __future__ import annotations

from pathlib import Path
from typing import overload
from xml.etree import ElementTree

import numpy as np
from tifffile import TiffFile

from attractor.images.damage import decoding
from attractor.images.files import existing
from attractor.images.tiff import is_tiff, is_turned, opened
from attractor.images.volumes import is_volume, spacing_of

MICROMETRES = {  # in the units of length of OME and ImageJ
    **dict.fromkeys(("\u00b5m", "um", "micron", "microns", "micrometer", "micrometre"), 1.0),
    "\u00c5": 1e-4, "nm": 1e-3, "mm": 1e3, "cm": 1e4, "m": 1e6, **dict.fromkeys(("in", "inch"), 25400.0),
}  # fmt: skip


@overload
def pixel_size(path: str | Path) -> tuple[float, float] | None: ...


@overload
def pixel_size(path: str | Path, *, n_axes: int) -> tuple[float, ...] | None: ...


def pixel_size(path: str | Path, *, n_axes: int = 2) -> tuple[float, ...] | None:
    """Micrometres along a pixel's height and width, if the file says so in a way that can be trusted; else None.

    With three axes, for a volume, those from slice to slice come first.

    Trusted are OME-Zarr, HDF5's `element_size_um`, OME-TIFF (`PhysicalSizeY`, `PhysicalSizeX` and their units) and
    ImageJ's TIFF (resolution with a unit of length, and `spacing` between slices). The resolution in other TIFF files,
    PNG and JPEG is meant for printing, and most often a program's default; it is ignored. So is a size that is not a
    number above 0 or has an unknown unit.

    Raises:
        InputError: if the file is missing or a damaged TIFF.
    """
    if n_axes == 3 and is_volume(Path(path)):
        return spacing_of(Path(path))
    path = existing(path)
    with decoding(path):
        if not is_tiff(path):
            return None
        with opened(path) as tiff:
            axes = "ZYX"[-n_axes:]
            sides = _ome_sides(tiff, axes) if tiff.is_ome else _imagej_sides(tiff, axes) if tiff.is_imagej else (0.0,)
            sides = (*sides[:-2], *reversed(sides[-2:])) if is_turned(tiff.pages.first) else sides
    return sides if all(np.isfinite(side) and side > 0 for side in sides) else None


def _ome_sides(tiff: TiffFile, axes: str) -> tuple[float, ...]:
    """Length of a pixel of the first image along each axis in micrometres; 0 where OME does not say."""
    try:
        elements = ElementTree.fromstring(tiff.ome_metadata or "").iter()
        pixels = next(element for element in elements if element.tag.rpartition("}")[2] == "Pixels")
        sides = tuple(
            float(pixels.get(f"PhysicalSize{axis}", 0)) * _micrometres(pixels.get(f"PhysicalSize{axis}Unit", "um"))
            for axis in axes
        )
    except (ElementTree.ParseError, StopIteration, ValueError):
        return (0.0,)
    return sides


def _imagej_sides(tiff: TiffFile, axes: str) -> tuple[float, ...]:
    """Length of a pixel along each axis in micrometres; 0 where ImageJ's image is not calibrated."""
    notes, tags = tiff.imagej_metadata or {}, tiff.pages.first.tags
    unit = notes.get("unit", "pixel")
    between = notes.get("spacing", 0.0)
    between = float(between) if isinstance(between, int | float) else 0.0
    sides = [abs(between) * _micrometres(str(notes.get("zunit", unit)))] if "Z" in axes else []
    for axis, own in (("Y", notes.get("yunit", unit)), ("X", unit)):
        tag = tags.get(f"{axis}Resolution")
        resolution = tag.value if tag is not None else None  # pixels, and over how many units
        pixels, length = resolution if isinstance(resolution, tuple) and len(resolution) == 2 else (0, 0)
        sides.append(_micrometres(str(own)) * length / pixels if pixels else 0.0)
    return tuple(sides)


def _micrometres(unit: str) -> float:
    """Micrometres in a unit of length; 0 if the unit is not known."""
    return MICROMETRES.get(unit.strip().replace("\\u00B5", "\u00b5").replace("\u03bc", "\u00b5"), 0.0)
