"""A folder of images in, files out: for each image its label image, a picture with outlines, and a table of objects.

Other formats may be asked for. The files of an image appear all together, each whole, or not at all. An image that
cannot be used does not stop the others. Several images are worked on at once.

Shapes: `h` rows, `w` columns, `s` the lengths of an image or volume along its axes, `c` channels.
"""

from __future__ import annotations

import logging
import math
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from threading import Lock
from typing import NamedTuple

import numpy as np
from jaxtyping import Shaped

from attractor.description import Description
from attractor.errors import InputError
from attractor.images import Found, atomic, find_images, find_volumes, read_image
from attractor.images import pixel_size as pixel_size_in
from attractor.instances import Instances
from attractor.measurements import check_pixel_size
from attractor.prediction.batches import Given, in_groups, settled
from attractor.prediction.crew import Crew
from attractor.prediction.image import Prediction, Segmenter
from attractor.prediction.outputs import DEFAULT_OUTPUTS, OUTPUTS, check_outputs, written_endings
from attractor.prediction.result import FileOutput, FolderOutput, Result
from attractor.shortage import is_for_memory

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Outcome:
    """What became of one image."""

    image: Path  # or a folder that holds none
    n_objects: int  # 0 if it failed
    problem: str | None  # why there are no files; None if all were written
    shape: tuple[int, ...] | None = None  # height and width in pixels, of a volume depth first; None if it failed
    tile: int | None = None  # side of the tiles it was computed in; None if it was computed whole
    # from reading to writing; of images that went through the network together, a share
    seconds: float | None = field(default=None, compare=False)


def segment_files(
    segmenter: Segmenter,
    paths: Iterable[str | Path],
    out: str | Path,
    *,
    tta: bool = False,
    object_size: float | None = None,
    tile: int | None = None,
    formats: Sequence[str] = DEFAULT_OUTPUTS,
    pixel_size: tuple[float, ...] | None = None,
    axes: str = "",
    slices: bool = False,
) -> Iterator[Outcome]:
    """Segment image files and write, for `cells.png`, `cells_labels.tif`, `cells_overlay.png` and `cells_objects.csv`.

    Args:
        segmenter: a model on a device.
        paths: images, and folders of images.
        out: folder for the files; it is made if it does not exist, and files of the same name are replaced.
        tta: as for `Segmenter.segment`, like the two that follow.
        object_size: typical diameter of the objects in these images, in pixels.
        tile: side in pixels of the tiles that large images are computed in.
        formats: what to write: names in `attractor.prediction.outputs.OUTPUTS`.
        pixel_size: micrometres along a pixel's height and width, of a volume along depth, height and width; by default
            each file's own, if it has one.
        axes: a letter for each axis of stacks that do not name theirs, such as "ZYX".
        slices: whether the files are volumes, whose slices a model for images is shown one by one.

    Returns:
        What became of each image, as soon as it and all before it are written. Options, paths and folder are checked
        at once; the images are processed while the outcomes are iterated over.

    Raises:
        InputError: if there is no such file or no image at all, two images share a stem, an option is impossible, or
            the folder cannot be written to. A problem with a single image is in its outcome, and so is a folder
            without images among other paths.
    """
    segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    of_group: Callable[..., list[Future[Prediction]]] = segmenter.predict_group
    if slices:
        # rarely asked for, and slow to import
        from attractor.prediction.slices import check_slices, predict_slices

        check_slices(segmenter)
        of_group = partial(predict_slices, segmenter)
    n_axes = 3 if slices else segmenter.n_axes
    check_outputs(formats, segmenter.class_names, n_axes=n_axes)
    if pixel_size is not None:
        check_pixel_size(pixel_size, n_axes=n_axes)
    check_axes(axes)
    given = find_files(paths, n_axes, axes)
    make_writable(Path(out))
    predict = partial(of_group, tta=tta, object_size=object_size, tile=tile)
    crew = segmenter.crew(len(given.images))
    work = _Work(segmenter, predict, crew, Path(out), tuple(formats), pixel_size, n_axes, axes)
    groups = in_groups(given.images, segmenter.n_together)
    return _outcomes(given, crew.each_of_groups(work.several, groups), object_size)


def find_files(paths: Iterable[str | Path], n_axes: int, axes: str) -> Found:
    """The images or, with three axes, the volumes at these paths, without what was written there.

    Raises:
        InputError: if there is none, a path is missing, or two share a stem.
    """
    if n_axes == 2:
        return find_images(paths, written=written_endings())
    return find_volumes(paths, axes, written=written_endings())


@dataclass(frozen=True)
class _Work:
    """What is done with each file, or with a few at a time."""

    segmenter: Segmenter
    predict: Callable[[Sequence[Given]], list[Future[Prediction]]]
    crew: Crew
    out: Path
    formats: tuple[str, ...]
    pixel_size: tuple[float, ...] | None  # instead of the files' own
    n_axes: int
    axes: str
    reading: Lock = field(default_factory=Lock)

    def several(self, paths: Sequence[Path]) -> list[Future[Outcome]]:
        """What becomes of some files, of which no more are in memory than go through the network together."""
        done = list[Future[Outcome]]()
        each = ((path, settled(partial(self.read, path))) for path in paths)
        groups = in_groups(each, len(paths), size=lambda one: _n_pixels(one[1]))
        while True:
            start = time.perf_counter()
            with ExitStack() as leaving:
                with self.reading:  # no more than one group waits for room
                    if (group := next(groups, None)) is None:
                        return done
                    leaving.enter_context(self.crew.place(sum(_n_pixels(content) for _, content in group)))
                able = {path: content.result() for path, content in group if not content.exception()}
                images = [Given(str(p), one.image, one.size if self.n_axes == 3 else None) for p, one in able.items()]
                predicted = dict(zip(able, self.predict(images), strict=True))
                seconds = (time.perf_counter() - start) / len(group)
                done += [settled(partial(self.write, p, one, predicted.get(p), seconds)) for p, one in group]

    def read(self, path: Path) -> Read:
        """What a file holds."""
        image = read_image(path, n_axes=self.n_axes, axes=self.axes)
        size = self.pixel_size or pixel_size_in(path, n_axes=self.n_axes)
        if self.segmenter.n_axes == 3 and size is None:
            tell_that_spacing_is_unknown(path, self.segmenter.model.description)
        return Read(image, size)

    def write(self, path: Path, content: Future[Read], predicted: Future[Prediction] | None, seconds: float) -> Outcome:
        """Write what was found, or raise what was wrong with the file."""
        start, (image, size) = time.perf_counter(), content.result()
        assert predicted is not None
        prediction, segmenter = predicted.result(), self.segmenter
        result = Result(path.name, image, prediction.found, segmenter.class_names, size, segmenter.is_ordered)
        write_files(result, self.out, self.formats)
        seconds += time.perf_counter() - start
        return Outcome(path, len(prediction.found), None, image.shape[:-1], prediction.tile, seconds)


class Read(NamedTuple):
    """What a file holds."""

    image: Shaped[np.ndarray, "*s c"]
    size: tuple[float, ...] | None  # micrometres along each axis


def _n_pixels(content: Future[Read]) -> int:
    """How many pixels an image has; none if it could not be read."""
    return 0 if content.exception() else math.prod(content.result().image.shape[:-1])


def check_axes(axes: str) -> None:
    """Refuse letters that name no axes.

    Raises:
        InputError: if there are others than Z, Y, X and C, one comes twice, or rows or columns are missing.
    """
    letters = axes.upper()
    if letters and (set(letters) - set("ZYXC") or len(set(letters)) < len(letters) or not {"Y", "X"} <= set(letters)):
        raise InputError(f"--axes {axes}: give a letter for each axis: Z, Y, X, and C for channels, as in ZYX or ZCYX.")


def tell_that_spacing_is_unknown(path: Path, description: Description) -> None:
    """Say what a volume whose file does not give its voxels' size is taken to be."""
    if description.spacing is not None:
        own = "x".join(f"{side:g}" for side in description.spacing)
        logger.warning(
            "%s: does not say how large its voxels are; they are taken to be as in training (%s um). Give them by "
            "--spacing, as in --spacing %s.",
            *(path, own, own),
        )


def _outcomes(given: Found, written: Iterator[Future[Outcome]], object_size: float | None) -> Iterator[Outcome]:
    """What became of the folders without images, and then of each image."""
    for folder, problem in given.problems.items():
        yield Outcome(folder, 0, problem)
    for path, outcome in zip(given.images, written, strict=True):
        yield _outcome(path, outcome, object_size)


def _outcome(image: Path, written: Future[Outcome], object_size: float | None) -> Outcome:
    """What became of an image, once it is known."""
    try:
        return written.result()
    except InputError as error:
        return Outcome(image, 0, str(error))
    except (MemoryError, RuntimeError) as error:
        if not is_for_memory(error):
            raise
        cure = "give --out NAME.ome.zarr to work on it in blocks" + (
            ", or give a larger --object-size" if object_size else ""
        )
        return Outcome(image, 0, f"{image}: needs more memory than there is; {cure}.")


def make_writable(folder: Path) -> None:
    """Make a folder if it does not exist, and check that files can be written to it.

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
    """Write an image's label image, picture with outlines and table of objects: all three or none."""
    write_files(Result(name, image, found, class_names), out)


def write_files(result: Result, out: Path, formats: Sequence[str] = DEFAULT_OUTPUTS) -> None:
    """Write one image's result to a folder that exists; outputs with subfolders of their own are written last.

    Raises:
        InputError: if a file cannot be written; the other files are then missing, or as they were before.
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
