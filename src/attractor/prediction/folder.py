"""A folder of images in, files out: for each image its label image, a picture with outlines, and a table of objects.

Other formats may be asked for. Of one image all files appear, each whole, or none. An image that cannot be used does
not stop the others. Several images are under way at once: on a processor each on a core of its own, which is faster
than all cores on one; else one is read and another written while the network computes a third.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Condition, Lock
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Shaped

from attractor.errors import InputError
from attractor.images import atomic, find_images, read_image
from attractor.images import pixel_size as pixel_size_in
from attractor.instances import Instances
from attractor.measurements import check_pixel_size
from attractor.prediction.image import Segmenter
from attractor.prediction.memory import is_for_memory
from attractor.prediction.outputs import DEFAULT_OUTPUTS, OUTPUTS, check_outputs, written_endings
from attractor.prediction.result import FileOutput, FolderOutput, Result

ROOM = 1 << 23  # pixels of the images under way at once, where memory is not the limit
STAGES = 3  # images under way where they share one device: one is read, one computed, one written

S = TypeVar("S")
T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    image: Path  # or a folder that holds none
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
    formats: Sequence[str] = DEFAULT_OUTPUTS,
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
        formats: names in `attractor.prediction.outputs.OUTPUTS` of what to write.
        pixel_size: micrometres along a pixel's height and width; by default each file's own, where it has one.
        report: called with the outcome of each image as soon as it and those before it are there.

    Raises:
        InputError: if there is no such file or no image at all, two images share a stem, an option cannot be, or the
            folder cannot be written to. What is wrong with one image stands in its outcome, and so does a folder
            without images among others.
    """
    segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    check_outputs(formats, segmenter.class_names)
    if pixel_size is not None:
        check_pixel_size(pixel_size)
    given = find_images(paths, written=written_endings())
    images = given.images
    out = Path(out)
    make_writable(out)
    room, reading = _Room(min(ROOM, segmenter.most_pixels())), Lock()

    def one(path: Path) -> int:
        with ExitStack() as leaving:
            with reading:  # no more than one image waits for room
                image = read_image(path)
                n_pixels = image.shape[0] * image.shape[1]
                leaving.enter_context(room.taken(n_pixels))
            at_once = min(n_workers, max(1, room.most // n_pixels)) if segmenter.computes_side_by_side else 1
            torch.set_num_threads(max(1, n_cores // at_once))
            found = segmenter.segment(image, tta=tta, object_size=object_size, tile=tile, name=str(path))
            size = pixel_size or pixel_size_in(path)
            whole = Result(path.name, image, found, segmenter.class_names, size, segmenter.is_ordered)
            write_files(whole, out, formats)
            return len(found)

    outcomes = [Outcome(folder, 0, problem) for folder, problem in given.problems.items()]
    for outcome in outcomes:
        report(outcome)
    n_cores = torch.get_num_threads()
    n_workers = min(len(images), n_cores if segmenter.computes_side_by_side else STAGES)
    try:
        with ThreadPoolExecutor(n_workers) as pool:
            for path, written in zip(images, _ahead(pool, one, images, n_workers), strict=True):
                outcomes.append(_outcome(path, written, object_size))
                report(outcomes[-1])
    finally:
        torch.set_num_threads(n_cores)
    return outcomes


class _Room:
    """So many pixels may be under way at once; an image with more goes alone."""

    def __init__(self, most: int) -> None:
        self.most, self.used, self.changed = most, 0, Condition()

    @contextmanager
    def taken(self, n: int) -> Iterator[None]:
        """Room for n pixels, as soon as there is so much."""
        with self.changed:
            self.changed.wait_for(lambda: not self.used or self.used + n <= self.most)
            self.used += n
        try:
            yield
        finally:
            with self.changed:
                self.used -= n
                self.changed.notify_all()


def _ahead(pool: Executor, function: Callable[[S], T], items: Iterable[S], n: int) -> Iterator[Future[T]]:
    """What the function makes of each item, in other threads; n of them are begun before the first is asked for."""
    begun: deque[Future[T]] = deque()
    for item in items:
        begun.append(pool.submit(function, item))
        if len(begun) > n:
            yield begun.popleft()
    yield from begun


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
        return Outcome(image, 0, f"{image}: needs more memory than there is; {cure}.")


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


def write_files(result: Result, out: Path, formats: Sequence[str] = DEFAULT_OUTPUTS) -> None:
    """Write one image's result to a folder that is there; what goes into folders of their own is written last.

    Raises:
        InputError: if a file cannot be written; the others are then not there, or as they were.
    """
    chosen = [OUTPUTS[name] for name in dict.fromkeys(formats)]
    files = [output for output in chosen if isinstance(output, FileOutput)]
    folders = [output for output in chosen if isinstance(output, FolderOutput)]
    contents = {out / (result.stem + output.ending): output.encode(result) for output in files}
    for path in contents:
        if path.is_dir():
            raise InputError(f"{path}: cannot be written: a folder has this name; choose another output folder.")
    with ExitStack() as stack:  # all are written before the first appears under its name
        for path, content in contents.items():
            stack.enter_context(atomic(path)).write_bytes(content)
        for output in folders:
            output.write(out / output.folder, result)
