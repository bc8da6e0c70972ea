"""A folder of images in, files out: for each image its label image, a picture with outlines, and a table of objects.

Other formats may be asked for. Of one image all files appear, each whole, or none. An image that cannot be used does
not stop the others. While the network computes one image, the next is read, and the last is grouped and written.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Condition
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images import atomic, find_images, read_image
from attractor.images import pixel_size as pixel_size_in
from attractor.instances import Instances
from attractor.measurements import check_pixel_size
from attractor.prediction.formats import DEFAULT_FORMATS, FORMATS, Result, check_formats
from attractor.prediction.image import Segmenter
from attractor.prediction.memory import is_for_memory

ROOM = 1 << 26  # values (pixels times channels) of the images under way at once: their maps take some ten times as much

S = TypeVar("S")
T = TypeVar("T")


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
    formats: Sequence[str] = DEFAULT_FORMATS,
    pixel_size: tuple[float, float] | None = None,
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
        formats: names in `attractor.prediction.formats.FORMATS` of what to write.
        pixel_size: micrometres along a pixel's height and width; by default each file's own, where it has one.
        report: called with the outcome of each image as soon as it is there.

    Raises:
        InputError: if there is no such file, a folder has no image, two images share a stem, an option cannot be, or
            the folder cannot be written to. What is wrong with one image stands in its outcome.
    """
    segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    check_formats(formats, segmenter.class_names)
    if pixel_size is not None:
        check_pixel_size(pixel_size)
    images = find_images(paths)
    out = Path(out)
    make_writable(out)
    room = _Room(ROOM)

    def begin(path: Path, read: Future[Any]) -> Callable[[], int]:
        image = read.result()
        room.enter(image.size)
        with ExitStack() as on_error:
            on_error.callback(room.leave, image.size)
            group = segmenter.begin(image, tta=tta, object_size=object_size, tile=tile, name=str(path))
            size = pixel_size or pixel_size_in(path)
            leave = on_error.pop_all()

        def finish() -> int:
            with leave:
                found = group()
                whole = Result(path.name, image, found, segmenter.class_names, size, segmenter.is_ordered)
                write_files(whole, out, formats)
                return len(found)

        return finish

    outcomes = []
    with ThreadPoolExecutor(1) as reader, ThreadPoolExecutor(1) as writer:
        read = _ahead(reader, read_image, images)
        begun = (_called(begin, path, image) for path, image in zip(images, read, strict=True))
        for path, written in zip(images, _ahead(writer, lambda one: one.result()(), begun), strict=True):
            outcomes.append(_outcome(path, written, object_size))
            report(outcomes[-1])
    return outcomes


class _Room:
    """So many pixels may be under way at once; an image with more goes alone."""

    def __init__(self, most: int) -> None:
        self.most, self.taken, self.changed = most, 0, Condition()

    def enter(self, n: int) -> None:
        """Wait until there is room for n pixels, and take it."""
        with self.changed:
            self.changed.wait_for(lambda: not self.taken or self.taken + n <= self.most)
            self.taken += n

    def leave(self, n: int) -> None:
        """Give up the room of n pixels."""
        with self.changed:
            self.taken -= n
            self.changed.notify_all()


def _ahead(pool: Executor, function: Callable[[S], T], items: Iterable[S]) -> Iterator[Future[T]]:
    """What the function makes of each item, in another thread: of the next while the last is in use here."""
    before: Future[T] | None = None
    for item in items:
        latest = pool.submit(function, item)
        if before is not None:
            yield before
        before = latest
    if before is not None:
        yield before


def _called(function: Callable[..., T], *arguments: Any) -> Future[T]:
    """A call made at once, with its result or error kept for whoever asks."""
    future: Future[T] = Future()
    try:
        future.set_result(function(*arguments))
    except Exception as error:
        future.set_exception(error)
    return future


def _outcome(image: Path, written: Future[int], object_size: float | None) -> Outcome:
    """What became of an image, once it is known."""
    try:
        return Outcome(image, written.result(), None)
    except InputError as error:
        return Outcome(image, 0, str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_for_memory(error):
            raise
        cure = "cut it into parts" + (", or give a larger --object-size" if object_size else "")
        return Outcome(image, 0, f"{image}: needs more memory than there is, in small tiles, too; {cure}.")


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


def write_result(
    image: Shaped[np.ndarray, "h w c"],
    found: Instances,
    class_names: tuple[str, ...],
    out: Path,
    name: str,
) -> None:
    """Write label image, picture with outlines, and table of objects of the image of that name: all three or none."""
    write_files(Result(name, image, found, class_names), out)


def write_files(result: Result, out: Path, formats: Sequence[str] = DEFAULT_FORMATS) -> None:
    """Write one image's result to a folder that is there; what goes into folders of their own is written last.

    Raises:
        InputError: if a file cannot be written; the others are then not there, or as they were.
    """
    chosen = [FORMATS[name] for name in dict.fromkeys(formats)]
    contents = {out / (result.stem + one.ending): one.encode(result) for one in chosen if one.encode is not None}
    for path in contents:
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: a folder has this name; choose another output folder.")
    with ExitStack() as stack:  # all are written before the first appears under its name
        for path, content in contents.items():
            stack.enter_context(atomic(path)).write_bytes(content)
        for one in chosen:
            if one.write is not None:
                one.write(out / one.ending, result)
