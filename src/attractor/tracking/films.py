"""Films on the disk: a folder of frames, files in order, or a TIFF stack, read frame by frame.

Frames are in the order of the numbers in their names (`t2.png` comes before `t10.png`); where the numbers leave one
out, the film is refused, because an object would seem to jump.

Shapes: `h` rows, `w` columns, `c` channels, `t` frames.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import tifffile
from jaxtyping import Int32, Shaped

from attractor.errors import InputError
from attractor.images import as_image, images_in, read_image, read_labels
from attractor.images.damage import decoding
from attractor.images.files import by_number, existing
from attractor.images.tiff import FEW_PLANES, channels_last, is_tiff, opened
from attractor.wording import counted

LABELS_ENDING = "_labels.tif"
Array = Shaped[np.ndarray, "..."]


@dataclass(frozen=True)
class Frames:
    """The frames of a film, which are read when they are asked for."""

    name: str  # what results are called
    sources: tuple[str, ...]  # of each frame, for messages
    read: Callable[[int], Array]
    file: Path  # one that may say how large a pixel is

    def __len__(self) -> int:
        """Number of frames."""
        return len(self.sources)

    def __iter__(self) -> Iterator[Array]:
        """The frames, one after another.

        Raises:
            InputError: if one cannot be read, or differs in size or channels from the first.
        """
        first: tuple[int, ...] | None = None
        for place, source in enumerate(self.sources):
            frame = self.read(place)
            first = first or frame.shape
            if frame.shape != first:
                raise InputError(
                    f"{source}: has {_sides(frame.shape)}, but {self.sources[0]} has {_sides(first)}; all frames of a "
                    "film must be of one size."
                )
            yield frame


def open_film(paths: Sequence[str | Path], *, axes: str = "", name: str = "") -> Frames:
    """A film whose frames are images of shape (h, w, c).

    Args:
        paths: one folder, whose images are the frames; one TIFF stack; or the files of all frames, in order.
        axes: of a stack that does not say so itself, such as TYX or TCYX.
        name: what to call it; by default the folder's name, or the stack's without its ending.

    Raises:
        InputError: if there is no image, frames are missing or out of order, or a stack's axes are not clear.
    """
    return _open(paths, axes, name, read_image, lambda frame, source: as_image(frame, name=source), ())


def open_labels(paths: Sequence[str | Path], *, axes: str = "", name: str = "") -> Frames:
    """A film whose frames are label images of shape (h, w); the arguments are those of `open_film`.

    Of a folder that holds files ending in `_labels.tif`, only these are taken.
    """
    return _open(paths, axes, name, read_labels, _as_labels, (LABELS_ENDING,))


def _open(
    paths: Sequence[str | Path],
    axes: str,
    name: str,
    read: Callable[[Path], Array],
    convert: Callable[[Array, str], Array],
    preferred: tuple[str, ...],
) -> Frames:
    files = [Path(path) for path in paths]
    if not files:
        raise InputError("No film is given; give a folder of frames, or a TIFF stack.")
    if len(files) == 1 and files[0].is_dir():
        inside = _frames_in(files[0], preferred)
        return _of_files(_in_order(inside, files[0]), name or files[0].resolve().name, read)
    if len(files) == 1:
        return _stack(existing(files[0]), axes, name or files[0].stem, convert)
    _refuse_disorder(files)
    return _of_files([existing(file) for file in files], name or files[0].resolve().parent.name, read)


def _of_files(files: Sequence[Path], name: str, read: Callable[[Path], Array]) -> Frames:
    return Frames(name, tuple(map(str, files)), lambda place: read(files[place]), files[0])


# --- folders ----------------------------------------------------------------------------------------------------------


def _frames_in(folder: Path, preferred: tuple[str, ...]) -> list[Path]:
    """The images of a folder."""
    try:
        files = images_in(folder, ()) if preferred else images_in(folder)
    except InputError as error:
        sequences = sorted(path.name for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else []
        if not sequences:
            raise
        raise InputError(
            f"{folder}: holds no image, but the {'folder' if len(sequences) == 1 else 'folders'} "
            f"{', '.join(sequences[:4])}; give the one that holds the frames, such as {folder / sequences[0]}."
        ) from error
    return [file for file in files if file.name.endswith(preferred)] or files if preferred else files


def _in_order(files: Sequence[Path], folder: Path) -> list[Path]:
    """The files in the order of their numbers, if none is missing."""
    ordered = sorted(files, key=by_number)
    numbers = _counting([file.stem for file in ordered])
    if numbers is None:
        return ordered
    for (one, former), (other, latter) in pairwise(zip(ordered, numbers, strict=True)):
        if former == latter:
            raise InputError(f"{folder}: {one.name} and {other.name} are both frame {former}; remove one.")
    step = min((latter - former for former, latter in pairwise(numbers)), default=1)
    missing = sorted(set(range(numbers[0], numbers[-1], step)) - set(numbers))
    if missing and all((number - numbers[0]) % step == 0 for number in numbers):
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise InputError(
            f"{folder}: {counted(len(missing), 'frame')} between {ordered[0].name} and {ordered[-1].name} "
            f"{'is' if len(missing) == 1 else 'are'} missing: {', '.join(map(str, missing[:5]))}{more}. Add what is "
            "missing, or give the files one by one, in order, if nothing is."
        )
    return ordered


def _refuse_disorder(files: Sequence[Path]) -> None:
    """Refuse files whose numbers go back."""
    numbers = _counting([file.stem for file in files])
    for place, (former, latter) in enumerate(pairwise(numbers or ())):
        if latter <= former:
            raise InputError(
                f"{files[place].name} comes before {files[place + 1].name}, but its number is "
                f"{'the same' if former == latter else 'higher'}; give the frames in order, or their folder, which is "
                "read in the order of the numbers."
            )


def _counting(stems: Sequence[str]) -> list[int] | None:
    """The one number in which the names differ; None if they differ in more."""
    if len({re.sub(r"\d+", "#", stem) for stem in stems}) != 1:
        return None
    columns = list(zip(*([int(number) for number in re.findall(r"\d+", stem)] for stem in stems), strict=True))
    varying = [column for column in columns if len(set(column)) > 1]
    if not varying:  # a single file, or the same number written in different ways
        return list(columns[-1]) if columns and len(stems) > 1 else None
    return list(varying[0]) if len(varying) == 1 else None


# --- stacks -----------------------------------------------------------------------------------------------------------


def _stack(path: Path, axes: str, name: str, convert: Callable[[Array, str], Array]) -> Frames:
    """The frames of a TIFF stack."""
    with decoding(path):
        if not is_tiff(path):
            raise InputError(
                f"{path}: is one image; a film is a folder of frames, several files, or a TIFF stack of several frames."
            )
        with opened(path) as tiff:
            series = tiff.series[0]
            letters = _axes(axes.upper() or series.axes, series.shape, path, given=bool(axes))
            n_frames = dict(zip(letters, series.shape, strict=True))["T"]
        names = tuple(f"{path}, frame {place}" for place in range(n_frames))

    def read(place: int) -> Array:
        with decoding(path), opened(path) as tiff:
            return convert(_frame(tiff, letters, place), names[place])

    return Frames(name, names, read, path)


def _axes(letters: str, shape: tuple[int, ...], path: Path, *, given: bool) -> str:
    """The letters of a stack's axes, one of which is T."""
    sides = " x ".join(map(str, shape))
    if len(letters) != len(shape):
        raise InputError(f"{path}: has {len(shape)} axes ({sides}), but --axes {letters} names {len(letters)}.")
    if not given and "T" not in letters:
        unnamed = [letter for letter in letters if letter in "IQ"]
        if len(unnamed) == 1 and shape[letters.index(unnamed[0])] > FEW_PLANES:
            letters = letters.replace(unnamed[0], "T")
    long = {letter for letter, length in zip(letters, shape, strict=True) if length > 1}
    if (
        "T" not in letters
        or not {"Y", "X"} <= set(letters)
        or not long <= set("TYXCS")
        or len(set(letters)) < len(shape)
    ):
        raise InputError(
            f"{path}: is a stack of {sides} with the axes {letters}, which does not say what the frames are; give its "
            "axes, such as --axes TYX, or TCYX with channels."
        )
    return letters


def _frame(tiff: tifffile.TiffFile, letters: str, place: int) -> Array:
    """One frame of a stack, channels last, read without the others."""
    series = tiff.series[0]
    if series.dataoffset is not None and series.dtype is not None:  # stored in one piece
        whole = np.memmap(
            tiff.filehandle.path, series.dtype.newbyteorder(tiff.byteorder), "r", series.dataoffset, series.shape
        )
        part = np.array(whole.take(place, letters.index("T")))
        rest = letters.replace("T", "")
    else:
        n_leading = len(series.shape) - len(series.keyframe.shape)
        leading = letters[:n_leading]
        if "T" not in leading:
            part, rest = series.asarray().take(place, letters.index("T")), letters.replace("T", "")
        else:
            lengths = series.shape[:n_leading]
            wanted = [
                (place,) if letter == "T" else range(length) for letter, length in zip(leading, lengths, strict=True)
            ]
            pages = [series.pages[int(np.ravel_multi_index(index, lengths))] for index in product(*wanted)]
            planes = np.stack([page.asarray() for page in pages if page is not None])
            others = [length for letter, length in zip(leading, lengths, strict=True) if letter != "T"]
            part = planes.reshape(*others, *series.keyframe.shape)
            rest = letters.replace("T", "")
    return channels_last(part, rest)


def _as_labels(frame: Array, source: str) -> Int32[np.ndarray, "h w"]:
    if frame.ndim == 3 and frame.shape[2] == 1:
        frame = frame[..., 0]
    if frame.ndim != 2 or frame.dtype.kind not in "iub" or (frame.size and frame.min() < 0):
        raise InputError(
            f"{source}: is an array of {frame.dtype} of shape {frame.shape}; label images are whole numbers from 0 on, "
            "in one channel."
        )
    return frame.astype(np.int32)


def _sides(shape: tuple[int, ...]) -> str:
    channels = f" and {counted(shape[2], 'channel')}" if len(shape) > 2 else ""
    return f"{shape[0]} x {shape[1]} pixels{channels}"
