"""Smaller versions of large images, made once and kept as plain files, so that no server holds such an image in memory.

Each image has a folder of its own, with `about.json` and a `level-N.npy` for some of its levels; what lies between is
halved when it is asked for. A folder is made anew if its image is another file by now, and may be deleted at any time.

Shapes: `h` rows, `w` columns, `c` channels; `i` rows and `j` columns of a part.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images import made, temporary_folder
from attractor.images.parts import Level, Mapped
from attractor.normalisation import SAMPLE, Normalisation
from attractor.shortage import cure

FORMAT = 1
ABOUT = "about.json"
BAND = 512  # rows that are read and halved at once; more where there are levels of fewer rows
FEW = 1 << 22  # pixels of a level that is read to find its values


@dataclass(frozen=True)
class Values:
    """What there is in each channel of an image."""

    low: list[float]  # the values that are shown as black and as white, unless somebody wants others
    high: list[float]
    auto_low: list[float]  # percentiles
    auto_high: list[float]
    least: list[float]  # the range of a slider: of the type, or of the values that were seen, with 0
    greatest: list[float]


def values_of(sample: Shaped[np.ndarray, "h w c"]) -> Values:
    """The values of an image or a sample of it: colours of 8 bits are shown as they are, others by percentiles."""
    channels, flat = sample.shape[2], sample.reshape(-1, sample.shape[2])
    if sample.dtype == np.uint8:
        least, greatest = np.zeros(channels), np.full(channels, 255.0)
    else:
        least, greatest = np.minimum(flat.min(0), 0).astype(float), flat.max(0).astype(float)
    dark, scale = (np.broadcast_to(np.ravel(x), channels).astype(float) for x in Normalisation().limits(sample))
    bright = np.where(np.isfinite(scale), dark + scale, dark)
    low, high = (least, greatest) if sample.dtype == np.uint8 and channels == 3 else (dark, bright)
    return Values(*(x.tolist() for x in (low, high, dark, bright, least, greatest)))


def halved(image: Shaped[np.ndarray, "h w c"]) -> Shaped[np.ndarray, "i j c"]:
    """The mean of each two by two pixels; where the last row or column has no partner, it is its own."""
    if image.shape[0] % 2 or image.shape[1] % 2:
        image = np.pad(image, ((0, image.shape[0] % 2), (0, image.shape[1] % 2), (0, 0)), "edge")
    wide = {"uint8": np.uint16, "uint16": np.uint32}.get(image.dtype.name, np.float32)
    total = np.add(image[::2, ::2], image[::2, 1::2], dtype=wide)
    total += image[1::2, ::2]
    total += image[1::2, 1::2]
    return np.asarray((total // 4 if image.dtype.kind == "u" else total / 4).astype(image.dtype))


def shape_at(shape: tuple[int, ...], level: int) -> tuple[int, ...]:
    """Rows, columns and channels of a level."""
    return (*(-(-n // (1 << level)) for n in shape[:2]), *shape[2:])


def part_of(levels: Mapping[int, Level], level: int, rows: slice, columns: slice) -> Shaped[np.ndarray, "i j c"]:
    """Pixels of a level, made from the next finer one that there is.

    Args:
        levels: by how often sides are halved, with 0.
        level: of the part.
        rows: with start and stop, in the level.
        columns: likewise.
    """
    source = max(there for there in levels if there <= level)
    times = level - source
    taken = np.asarray(levels[source][_grown(rows, times), _grown(columns, times)])
    for _ in range(times):
        taken = halved(taken)
    height, width = rows.stop - rows.start, columns.stop - columns.start
    if taken.shape[:2] != (height, width):  # a file that leaves out the last row or column when it halves
        missing = (0, max(0, height - taken.shape[0])), (0, max(0, width - taken.shape[1])), (0, 0)
        taken = np.pad(taken, missing, "edge")[:height, :width]
    return taken


def _grown(part: slice, times: int) -> slice:
    return slice(part.start << times, part.stop << times)


def lacking(levels: Iterable[int], top: int) -> list[int]:
    """The levels to be stored, so that a part needs no level that is finer by more than one."""
    there, wanted = set(levels), []
    for level in range(top + 1):
        if not there & {level, level - 1}:
            wanted.append(level)
            there.add(level)
    return wanted


def stored(
    path: Path, given: Mapping[int, Level], top: int, folder: Path, *, is_quick: bool
) -> tuple[dict[int, Level], Values]:
    """All levels of an image that are needed, and its values; those that it lacks are made in a folder, once.

    Args:
        path: of the image.
        given: levels that there are, 0 among them.
        top: the coarsest level.
        folder: of this image alone; it is made if it is needed.
        is_quick: whether the given levels can be read at any place; otherwise they are only read to store others.

    Raises:
        InputError: if the image is damaged, or the folder cannot be written.
    """
    kept = dict(given) if is_quick else {}
    wanted = lacking(kept, top)
    if not wanted:
        return kept, values_of(_sample(kept))
    found = opened(path, folder)
    if found is None or not set(wanted) <= set(found[0]):
        make(path, given, wanted, folder)
        found = opened(path, folder)
        if found is None:
            raise InputError(f"{folder}: was changed while it was made; remove it, and open the image again.")
    return kept | found[0], found[1]


def opened(path: Path, folder: Path) -> tuple[dict[int, Level], Values] | None:
    """What is stored of an image, if it is of the file as it is now."""
    try:
        about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
        if about["format"] != FORMAT or about["file"] != _mark(path):
            return None
        levels = {int(level): _mapped(folder / f"level-{level}.npy") for level in about["levels"]}
        return levels, Values(**about["values"])
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _mark(path: Path) -> dict[str, Any]:
    """By which a file is told from another one of its name."""
    status = path.stat()
    return {"name": path.name, "bytes": status.st_size, "time": status.st_mtime_ns}


def _mapped(path: Path) -> Level:
    """The pixels of a .npy file, once it was found to hold all of them."""
    with path.open("rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        offset = file.tell()
    if len(shape) != 3 or path.stat().st_size != offset + int(np.prod(shape, dtype=object)) * dtype.itemsize:
        raise ValueError(f"{path} is cut short")
    return Mapped(path, shape, dtype, offset)


def make(path: Path, given: Mapping[int, Level], wanted: Sequence[int], folder: Path) -> None:
    """Write levels to a folder, which appears whole or not at all.

    Args:
        path: of the image.
        given: levels that can be read, 0 among them.
        wanted: levels to be written.
        folder: of this image alone.

    Raises:
        InputError: if the image is damaged, or the folder cannot be written.
    """
    source = max(level for level in given if level <= min(wanted))
    try:
        with temporary_folder(made(folder.parent)) as work:
            files = {level - source: work / f"level-{level}.npy" for level in wanted}
            values = values_of(_write(given[source], files))
            about = {"format": FORMAT, "file": _mark(path), "levels": list(wanted), "values": asdict(values)}
            (work / ABOUT).write_text(json.dumps(about), encoding="utf-8")
            if folder.exists():
                shutil.rmtree(folder)
            work.rename(folder)
    except OSError as error:
        raise InputError(
            f"{folder}: cannot be written: {error.strerror or error}; {cure(error) or 'check the folder'}. Smaller "
            "versions of large images are kept there."
        ) from error


def _write(pixels: Level, files: Mapping[int, Path]) -> Shaped[np.ndarray, "n 1 c"]:
    """Write halved versions of pixels, band by band, and give an evenly spread sample of those pixels.

    Args:
        pixels: that are read once, from top to bottom.
        files: by how often sides are halved.
    """
    shape, top = pixels.shape, max(files)
    band, step = max(BAND, 1 << top), max(1, shape[0] * shape[1] // SAMPLE)
    sample = []
    with ExitStack() as open_ones:
        written = {level: open_ones.enter_context(file.open("wb")) for level, file in files.items()}
        for level, file in written.items():
            header = {"descr": pixels.dtype.str, "fortran_order": False, "shape": shape_at(shape, level)}
            np.lib.format.write_array_header_1_0(file, header)
        for first, part in _bands(pixels, band):
            sample.append(part.reshape(-1, shape[2])[-(first * shape[1]) % step :: step].copy())
            for level in range(top + 1):
                part = halved(part) if level else part
                if level in written:
                    written[level].write(np.ascontiguousarray(part).data)
    return np.concatenate(sample)[:, None]


def _bands(pixels: Level, band: int) -> Iterator[tuple[int, Shaped[np.ndarray, "i w c"]]]:
    """Bands of so many rows from top to bottom, each with its first row; the next is read while one is worked on."""
    height, width, _ = pixels.shape

    def read(first: int) -> Shaped[np.ndarray, "i w c"]:
        return np.asarray(pixels[first : min(first + band, height), 0:width])

    with ThreadPoolExecutor(1) as reading:
        coming = reading.submit(read, 0)
        for first in range(0, height, band):
            part = [coming.result()]
            if first + band < height:
                coming = reading.submit(read, first + band)
            yield first, part.pop()  # not held here while it is worked on


def _sample(levels: Mapping[int, Level]) -> Shaped[np.ndarray, "n 1 c"]:
    """Pixels of the finest level that has few enough, or else some of the coarsest."""
    few = [n for n in sorted(levels) if np.prod(levels[n].shape[:2], dtype=object) <= FEW]
    pixels = levels[few[0] if few else max(levels)]
    height, width, channels = pixels.shape
    step = max(1, height * width // SAMPLE)
    bands = [np.asarray(pixels[first : min(first + BAND, height), 0:width]) for first in range(0, height, BAND)]
    return np.concatenate([band.reshape(-1, channels)[::step] for band in bands])[:, None]
