"""The files that a result can be written to: for each format its name's ending, and how its content is made.

Shapes: `h` rows, `w` columns, `c` channels, `k` objects, `r` runs.
"""

from __future__ import annotations

import csv
import importlib.util
import io
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped
from PIL import Image
from scipy import ndimage

from attractor.datasets.cityscapes import LABELS, write_cityscapes_results
from attractor.datasets.coco import compress_runs
from attractor.datasets.geojson import encode_geojson
from attractor.datasets.imagej import encode_rois
from attractor.datasets.polygons import encode_in_box
from attractor.errors import InputError
from attractor.images import encode_labels
from attractor.instances import Instances, decode_mask
from attractor.measurements import WHOLE, object_table
from attractor.overlays import overlay
from attractor.wording import install

DEFAULT_FORMATS = ("labels", "overlay", "csv")


@dataclass(frozen=True)
class Result:
    """What there is to write of one image."""

    name: str  # of the image's file, as in cells.png
    image: Shaped[np.ndarray, "h w c"]
    found: Instances
    class_names: tuple[str, ...]
    pixel_size: tuple[float, float] | None = None  # micrometres along height and width
    is_ordered: bool = False  # whether labels are in the order in which the objects were found

    @property
    def stem(self) -> str:
        """What the names of its files begin with."""
        return Path(self.name).stem

    @cached_property
    def table(self) -> dict[str, list[Any]]:
        """The table of objects, measured once for all formats."""
        return object_table(self.image, self.found, self.class_names, pixel_size=self.pixel_size)


@dataclass(frozen=True)
class Format:
    """One file an image or, with an ending in /, files in a folder that all images share."""

    ending: str  # what follows the image's stem in the file's name; of a folder, its whole name
    encode: Callable[[Result], bytes] | None = None  # the file's content
    write: Callable[[Path, Result], None] | None = None  # the files in a folder
    needs: str | None = None  # a package that a plain installation lacks
    check: Callable[[Sequence[str]], None] = lambda class_names: None  # refuses classes that it cannot hold


def check_formats(formats: Sequence[str], class_names: Sequence[str]) -> None:
    """Refuse, before anything is computed, formats that cannot be written for these classes.

    Raises:
        InputError: if there is no format, or one is unknown, needs what is not installed, or lacks a class.
    """
    if unknown := [name for name in formats if name not in FORMATS]:
        raise InputError(f"There is no format {', '.join(map(repr, unknown))}; the formats are {', '.join(FORMATS)}.")
    if not formats:
        raise InputError(f"No format is given; the formats are {', '.join(FORMATS)}.")
    for name in formats:
        needed = FORMATS[name].needs
        if needed is not None and importlib.util.find_spec(needed) is None:
            raise InputError(f"The format {name} needs {needed}, which is not installed. {install('formats')}")
        FORMATS[name].check(class_names)


def encode_csv(table: dict[str, list[Any]]) -> bytes:
    """A table as text in UTF-8, fractions with six digits."""
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table)
    for row in zip(*table.values(), strict=True):
        writer.writerow(f"{value:.6g}" if isinstance(value, float) else value for value in row)
    return file.getvalue().encode()


def encode_parquet(table: dict[str, list[Any]]) -> bytes:
    """A table for pandas, polars and the like; columns have the same types in each file, also without a row."""
    import pyarrow
    from pyarrow import parquet

    types = {name: pyarrow.int64() if name in WHOLE else pyarrow.float64() for name in table}
    types["class"] = pyarrow.string()
    file = io.BytesIO()
    parquet.write_table(pyarrow.table(table, pyarrow.schema(list(types.items()))), file)
    return file.getvalue()


def encode_coco(found: Instances, class_names: Sequence[str], name: str) -> bytes:
    """A COCO document of one image, whose annotations have scores, masks as compressed runs, and ids from 1.

    Where masks overlap they are written whole. An object without a pixel is left out.
    """
    height, width = found.labels.shape
    annotations = [
        {
            "id": number,
            "image_id": 1,
            "category_id": int(found.classes[k]),
            "segmentation": {"size": [height, width], "counts": compress_runs(runs)},
            "area": int(runs[1::2].sum()),
            "bbox": box,
            "iscrowd": 0,
            "score": float(found.scores[k]),
        }
        for number, (k, runs, box) in enumerate(_outlines(found), 1)
    ]
    document = {
        "images": [{"id": 1, "file_name": name, "width": width, "height": height}],
        "annotations": annotations,
        "categories": [{"id": k, "name": class_name} for k, class_name in enumerate(class_names, 1)],
    }
    return json.dumps(document).encode()


def encode_picture(picture: Shaped[np.ndarray, "h w 3"]) -> bytes:
    """A picture as PNG."""
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG", compress_level=3)  # a third of the time of level 6, 3 % larger
    return file.getvalue()


def _outlines(found: Instances) -> Iterator[tuple[int, Int[np.ndarray, " r"], list[int]]]:
    """Of each object that has a pixel: its index, its runs, and x, y, width and height of its box."""
    shape = found.labels.shape[0], found.labels.shape[1]
    boxes = ndimage.find_objects(found.labels, max_label=len(found))
    for k in range(len(found)):
        labels, label, box = found.labels, k + 1, boxes[k]
        if found.masks is not None:
            labels, label = decode_mask(found.masks[k], shape).astype(np.int32), 1
            box = ndimage.find_objects(labels, max_label=1)[0]
        if box is not None:
            (top, bottom), (left, right) = ((side.start, side.stop) for side in box)
            yield k, encode_in_box(labels[box] == label, box, shape), [left, top, right - left, bottom - top]


def _check_cityscapes(class_names: Sequence[str]) -> None:
    """Refuse classes without a number in Cityscapes."""
    if unknown := [name for name in class_names if name not in LABELS]:
        raise InputError(
            f"The format cityscapes has no class {', '.join(map(repr, unknown))}, which the model finds; its classes "
            f"are {', '.join(LABELS)}."
        )


FORMATS: dict[str, Format] = {
    "labels": Format("_labels.tif", lambda result: encode_labels(result.found.labels)),
    "overlay": Format(
        "_overlay.png",
        lambda result: encode_picture(overlay(result.image, result.found, order=result.is_ordered)),
    ),
    "csv": Format("_objects.csv", lambda result: encode_csv(result.table)),
    "parquet": Format("_objects.parquet", lambda result: encode_parquet(result.table), needs="pyarrow"),
    "coco": Format("_coco.json", lambda result: encode_coco(result.found, result.class_names, result.name)),
    "geojson": Format("_objects.geojson", lambda result: encode_geojson(result.found, result.class_names)),
    "rois": Format("_rois.zip", lambda result: encode_rois(result.found, result.class_names), needs="roifile"),
    "cityscapes": Format(
        "cityscapes/",
        write=lambda folder, result: write_cityscapes_results(folder, result.stem, result.found, result.class_names),
        check=_check_cityscapes,
    ),
}
