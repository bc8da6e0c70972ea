"""What `attractor segment` can write for an image, by the names that `--format` takes.

Formats that are layouts of annotations, too, are imported when they are first written: all layouts come with them.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path

from attractor.errors import InputError
from attractor.images import encode_labels
from attractor.overlays import overlay, overlay_of_volume
from attractor.prediction.encoding import encode_coco, encode_csv, encode_parquet, encode_picture
from attractor.prediction.result import FileOutput, FolderOutput, Output, Result
from attractor.wording import install

DEFAULT_OUTPUTS = ("labels", "overlay", "csv")


def check_outputs(names: Sequence[str], class_names: Sequence[str], *, n_axes: int = 2) -> None:
    """Refuse, before anything is computed, outputs that cannot be written for these classes, or for volumes.

    Raises:
        InputError: if no output is given, or one is unknown, needs a package that is not installed, lacks a class, or
            is for images while there are three axes.
    """
    if unknown := [name for name in names if name not in OUTPUTS]:
        raise InputError(f"There is no format {', '.join(map(repr, unknown))}; the formats are {', '.join(OUTPUTS)}.")
    if not names:
        raise InputError(f"No format is given; the formats are {', '.join(OUTPUTS)}.")
    if n_axes == 3 and (flat := [name for name in names if not OUTPUTS[name].of_volumes]):
        able = ", ".join(name for name, output in OUTPUTS.items() if output.of_volumes)
        raise InputError(f"The format {flat[0]} is for images, and this model takes volumes; these can be: {able}.")
    for name in names:
        needed = OUTPUTS[name].needs
        if needed is not None and importlib.util.find_spec(needed) is None:
            raise InputError(f"The format {name} needs {needed}, which is not installed. {install('formats')}")
        OUTPUTS[name].check(class_names)


def written_endings() -> tuple[str, ...]:
    """What the names of written files end in, to tell them from images in the same folder."""
    return tuple(output.ending for output in OUTPUTS.values() if isinstance(output, FileOutput))


def outputs_in_words() -> str:
    """The names, each with the program that the output is for, if the name does not say so."""
    return ", ".join(f"{name} ({output.reader})" if output.reader else name for name, output in OUTPUTS.items())


def _labels(result: Result) -> bytes:
    return encode_labels(result.found.labels, spacing=result.pixel_size)


def _overlay(result: Result) -> bytes:
    if result.found.labels.ndim == 3:
        pictures = overlay_of_volume(result.image, result.found, spacing=result.pixel_size, order=result.is_ordered)
        return encode_picture(pictures)
    return encode_picture(overlay(result.image, result.found, order=result.is_ordered))


def _geojson(result: Result) -> bytes:
    from attractor.datasets.geojson import encode_geojson

    return encode_geojson(result.found, result.class_names)


def _rois(result: Result) -> bytes:
    from attractor.datasets.imagej import encode_rois

    return encode_rois(result.found, result.class_names, channels=result.image.shape[-1])


def _write_cityscapes(folder: Path, result: Result) -> None:
    from attractor.datasets.cityscapes import write_cityscapes_results

    write_cityscapes_results(folder, result.stem, result.found, result.class_names)


def _check_cityscapes(class_names: Sequence[str]) -> None:
    """Refuse classes without a number in Cityscapes."""
    from attractor.datasets.cityscapes import LABELS

    if unknown := [name for name in class_names if name not in LABELS]:
        raise InputError(
            f"The format cityscapes has no class {', '.join(map(repr, unknown))}, which the model finds; its classes "
            f"are {', '.join(LABELS)}."
        )


OUTPUTS: dict[str, Output] = {
    "labels": FileOutput(ending="_labels.tif", encode=_labels, of_volumes=True),
    "overlay": FileOutput(ending="_overlay.png", encode=_overlay, of_volumes=True),
    "csv": FileOutput(ending="_objects.csv", encode=lambda result: encode_csv(result.table), of_volumes=True),
    "parquet": FileOutput(
        ending="_objects.parquet",
        encode=lambda result: encode_parquet(result.table),
        needs="pyarrow",
        of_volumes=True,
    ),
    "coco": FileOutput(
        ending="_coco.json", encode=lambda result: encode_coco(result.found, result.class_names, result.name)
    ),
    "geojson": FileOutput(ending="_objects.geojson", encode=_geojson, reader="QuPath", of_volumes=True),
    "rois": FileOutput(ending="_rois.zip", encode=_rois, reader="ImageJ", needs="roifile", of_volumes=True),
    "cityscapes": FolderOutput(folder="cityscapes", write=_write_cityscapes, check=_check_cityscapes),
}
