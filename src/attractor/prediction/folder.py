"""A folder of images in, files out: for each image its label image, a picture with outlines, and a table of objects.

Of one image all three files appear, each whole, or none. An image that cannot be used does not stop the others.

Shapes: `h` rows, `w` columns, `c` channels, `k` instances.
"""

from __future__ import annotations

import csv
import io
import tempfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Int32, Shaped
from PIL import Image
from scipy import ndimage

from attractor.errors import InputError
from attractor.images import OUTPUT_ENDINGS, atomic, encode_labels, find_images, read_image
from attractor.instances import Instances, areas, centres
from attractor.overlays import overlay
from attractor.prediction.image import Segmenter


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    image: Path
    n_objects: int  # 0 where it failed
    problem: str | None  # why there are no files; None where all was written


def segment_files(
    segmenter: Segmenter,
    paths: Iterable[str | Path],
    out: str | Path,
    *,
    tta: bool = False,
    object_size: float | None = None,
    tile: int | None = None,
    report: Callable[[Outcome], None] = lambda outcome: None,
) -> list[Outcome]:
    """Segment image files and write, for `cells.png`, `cells_labels.tif`, `cells_overlay.png` and `cells_objects.csv`.

    Args:
        segmenter: a model on a device.
        paths: images, and folders of images.
        out: folder for the files; it is made where there is none, and files of the same name are replaced.
        tta: as for `Segmenter.segment`, like the two that follow.
        object_size: typical diameter of the objects in these images, in pixels.
        tile: side in pixels of the tiles that large images are computed in.
        report: called with the outcome of each image as soon as it is there.

    Raises:
        InputError: if there is no such file, a folder has no image, two images share a stem, an option cannot be, or
            the folder cannot be written to. What is wrong with one image stands in its outcome.
    """
    segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    images = find_images(paths)
    out = Path(out)
    make_writable(out)
    outcomes = []
    for image in images:
        try:
            n_objects = _segment_file(segmenter, image, out, tta=tta, object_size=object_size, tile=tile)
            outcome = Outcome(image, n_objects, None)
        except InputError as error:
            outcome = Outcome(image, 0, str(error))
        except (MemoryError, RuntimeError) as error:
            if not is_for_memory(error):
                raise
            cure = "compute in tiles, as by --tile 1024" if tile is None else f"compute in tiles smaller than {tile}"
            cure += ", or give a larger --object-size" if object_size else ""
            outcome = Outcome(image, 0, f"{image}: needs more memory than there is; {cure}.")
        outcomes.append(outcome)
        report(outcome)
    return outcomes


def make_writable(folder: Path) -> None:
    """Make a folder where there is none, and try whether files can be made in it.

    Raises:
        InputError: if either fails.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        reason = "a file has this name" if isinstance(error, FileExistsError) else error.strerror
        raise InputError(f"{folder}: cannot be used as output folder: {reason}; choose another one.") from error


def object_table(
    image: Shaped[np.ndarray, "h w c"], instances: Instances, class_names: tuple[str, ...]
) -> dict[str, list[Any]]:
    """What can be said of each object, column by column, one row a label.

    Coordinates are pixels counted from 0; an object reaches from `min_row` up to, not including, `max_row`.
    Intensities are those of the image as it was read: `mean_intensity`, or `mean_intensity_0`, … of several channels.
    """
    labels, n = instances.labels, len(instances)
    area = areas(labels, n)
    seen = np.flatnonzero(area)  # an object that others hide has no row
    table: dict[str, list[Any]] = {
        "label": (seen + 1).tolist(),
        "class": [class_names[number - 1] for number in instances.classes[seen]],
        "score": [f"{score:.4f}" for score in instances.scores[seen]],
        "area": area[seen].tolist(),
    }
    for name, values in zip(("centroid_row", "centroid_column"), centres(labels, n)[seen].T, strict=True):
        table[name] = [f"{value:.2f}" for value in values]
    for name, places in zip(("min_row", "min_column", "max_row", "max_column"), _boxes(labels).T, strict=True):
        table[name] = places.tolist()
    n_channels = image.shape[2]
    for c in range(n_channels):
        name = "mean_intensity" if n_channels == 1 else f"mean_intensity_{c}"
        sums = np.bincount(labels.ravel(), image[..., c].ravel(), minlength=n + 1)[1:]
        table[name] = [f"{value:.6g}" for value in sums[seen] / area[seen]]
    return table


def _segment_file(segmenter: Segmenter, path: Path, out: Path, **options: Any) -> int:
    """Write the files of one image; gives the number of objects."""
    image = read_image(path)
    found = segmenter.segment(image, name=str(path), **options)
    write_result(image, found, segmenter.class_names, out, path.stem, order=segmenter.is_ordered)
    return len(found)


def write_result(
    image: Shaped[np.ndarray, "h w c"],
    found: Instances,
    class_names: tuple[str, ...],
    out: Path,
    stem: str,
    *,
    order: bool = False,
) -> None:
    """Write label image, picture with outlines, and table of objects of one image: all three or none.

    With `order`, outlines are coloured from the first label to the last.
    """
    table = object_table(image, found, class_names)
    contents = encode_labels(found.labels), _encode_picture(overlay(image, found, order=order)), _encode_table(table)
    _write_together({out / (stem + ending): content for ending, content in zip(OUTPUT_ENDINGS, contents, strict=True)})


def _write_together(contents: dict[Path, bytes]) -> None:
    """Write several files; all are written before the first appears under its name."""
    for path in contents:
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: a folder has this name; choose another output folder.")
    with ExitStack() as stack:
        for path, content in contents.items():
            stack.enter_context(atomic(path)).write_bytes(content)


def _encode_picture(picture: Shaped[np.ndarray, "h w 3"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    return file.getvalue()


def _encode_table(table: dict[str, list[Any]]) -> bytes:
    file = io.StringIO(newline="")
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table)
    writer.writerows(zip(*table.values(), strict=True))
    return file.getvalue().encode()


def _boxes(labels: Int32[np.ndarray, "h w"]) -> Int[np.ndarray, "k 4"]:
    """First row and column, and last plus one, of each label that has a pixel."""
    boxes = [box for box in ndimage.find_objects(labels) if box is not None]
    return np.array([[part.start for part in box] + [part.stop for part in box] for box in boxes], int).reshape(-1, 4)


def is_for_memory(error: BaseException) -> bool:
    """Whether an allocation failed, on whatever device; torch has no class of its own for the CPU's."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or "out of memory" in text or "allocate memory" in text
