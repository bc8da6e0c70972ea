"""Images of any size, read and labelled block by block: OME-Zarr, TIFF files, folders of tiles, and what bioio reads.

The model's grid of tiles is the image's own, or a coarser or finer one where objects are to be seen at another size;
blocks are on that grid, and labels on the image's. A plan says all that decides about the result. It is written
before the first block, and a call that would not have the same plan does not go on with what another one began.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cached_property, partial
from importlib import metadata
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Int, Int32, Shaped
from torch import Tensor
from torch.nn import functional as F

from attractor.datasets.geojson import encode_geojson
from attractor.description import read_description
from attractor.errors import InputError
from attractor.images import as_channels, atomic, made, read_image
from attractor.images import pixel_size as pixel_size_in
from attractor.images.by_bioio import is_for_bioio, open_by_bioio
from attractor.images.ome_zarr import (
    LabelLevel,
    OmeZarr,
    consolidate_again,
    copy_without_labels,
    has_labels,
    is_ome_zarr,
    make_labels,
    open_labels,
    open_ome_zarr,
)
from attractor.images.parts import Level, in_parts
from attractor.images.tile_folder import TileFolder
from attractor.instances import Instances, relabel
from attractor.measurements import object_table
from attractor.methods.points import Box, Points
from attractor.model import Model
from attractor.normalisation import SAMPLE
from attractor.prediction.blocks import Grid, Ledger, Numbers, Seen, Table, touches_rim
from attractor.prediction.image import Segmenter
from attractor.prediction.resampling import nearest
from attractor.prediction.tiles import Part, sides_of
from attractor.shortage import cure

NAME = "attractor"  # of the label image
UNIT = 128  # pixels of the model's grid that are a whole number of the image's; divides halos and tiles
ENDLESS = 1 << 20, 1 << 20  # rows and columns of an image that is not computed whole
REACH = 256  # pixels around a core in which objects are found: twice the radius of the largest, mostly
CELL = 2048  # side of what is painted at once: a file of labels
SAMPLES = 8  # windows along each side of an image from which percentiles are taken
WINDOW = 512  # side of such a window
FORMAT = 1  # of a plan
FORMATS = ("labels", "parquet", "geojson")
SHIFTED = {"row": 0, "column": 1}  # last word of a coordinate's name, and its axis


@dataclass(frozen=True)
class Plan:
    """All that decides about the result."""

    format: int
    attractor: str  # version
    image: str
    image_name: str | None  # in a group of several
    level: int
    channels: list[str]
    plane: dict[str, int]
    shape: list[int]  # rows, columns and channels
    model: str  # file
    sha256: str
    thresholds: dict[str, float]
    dtype: str
    engine: str
    device: str
    tta: bool
    tta_scales: list[float]
    unit: int  # pixels of the image that are UNIT of the model's grid
    tile: int
    core: int
    halo: int
    low: list[float]  # of each of the model's channels: what is subtracted, and what it is then divided by
    scale: list[float]
    pixel_size: list[float] | None
    formats: list[str]  # of FORMATS
    out: str  # the hierarchy that the labels lie in

    @property
    def folder(self) -> Path:
        """Where the ledger is kept until all is done."""
        return Path(f"{self.out.rstrip('/')}.unfinished")

    @cached_property
    def seen_shape(self) -> tuple[int, int]:
        """Rows and columns of the model's grid."""
        height, width = (-(-n * UNIT // self.unit) for n in self.shape[:2])
        return height, width

    @cached_property
    def ledger(self) -> Ledger:
        """What was done, and what is to be done."""
        sides = self.shape[0], self.shape[1]
        halo = self.halo, self.halo
        return Ledger(self.folder, Grid(self.seen_shape, (self.core, self.core)), halo, Grid(sides, (CELL, CELL)))

    def source(self, box: Box) -> tuple[slice, slice]:
        """The rows and columns of the image that a part of the model's grid stands for."""
        rows, columns = (
            slice(*(n if i >= m else i // UNIT * self.unit for i in (side.start, side.stop)))
            for side, n, m in zip(box, self.shape, self.seen_shape, strict=False)
        )
        return rows, columns


@dataclass(frozen=True)
class Slide:
    """An image that is read part by part."""

    pixels: Level
    pixel_size: tuple[float, float] | None
    hierarchy: OmeZarr | None  # None for a TIFF file


def open_slide(
    path: str,
    *,
    image: str | None = None,
    level: int = 0,
    channels: Sequence[str] = (),
    plane: Mapping[str, int] | None = None,
) -> Slide:
    """An image by its path or address, or a folder of tiles; of a file that is small enough, all pixels are read.

    Raises:
        InputError: if it cannot be opened, or has no such image, level, channel or place.
    """
    if is_ome_zarr(path):
        hierarchy = open_ome_zarr(path, image)
        return Slide(hierarchy.level(level, channels=channels, plane=plane), hierarchy.pixel_size(level), hierarchy)
    if is_for_bioio(path):
        read = open_by_bioio(path, image=image, level=level, channels=channels, plane=plane)
        return Slide(read, read.pixel_size, None)
    if given := [
        name
        for name, value in (("--image", image), ("--channels", channels), ("--plane", plane), ("--level", level))
        if value
    ]:
        raise InputError(f"{path}: {given[0]} is for OME-Zarr images, and this is none; leave it out.")
    if Path(path).is_dir():
        tiles = TileFolder(path)
        return Slide(tiles, pixel_size_in(tiles.first_file), None)
    parts = in_parts(path)
    pixels = cast(Level, read_image(path)) if parts is None else parts.levels[0]
    return Slide(pixels, pixel_size_in(path), None)


class Seeing:
    """An image on the model's grid, normalised; parts are read when they are asked for."""

    def __init__(self, plan: Plan, pixels: Level) -> None:
        """Read nothing yet."""
        self.plan, self.pixels = plan, pixels
        self.shape = 1, len(plan.low), *plan.seen_shape
        self._low, self._scale = (np.array(values, np.float32) for values in (plan.low, plan.scale))

    def __getitem__(self, part: Part) -> Float[Tensor, "1 c i j"]:
        """The part `[..., rows, columns]`."""
        box = tuple(slice(*side.indices(n)[:2]) for side, n in zip(sides_of(part), self.shape[2:], strict=True))
        read = as_channels(np.asarray(self.pixels[self.plan.source(box)]), self.shape[1], self.plan.image)
        seen = torch.from_numpy((read - self._low) / self._scale).permute(2, 0, 1)[None]
        size = [side.stop - side.start for side in box]
        if self.plan.unit == UNIT:
            return seen
        is_smaller = self.plan.unit > UNIT
        return F.interpolate(seen, size, mode="bilinear", antialias=is_smaller, align_corners=False)


class ModelFinder:
    """Finds objects in parts of an image with a model."""

    def __init__(self, plan: Plan) -> None:
        """Load the model, and open the image."""
        self.plan = plan
        self.slide = open_slide(
            plan.image, image=plan.image_name, level=plan.level, channels=plan.channels, plane=plan.plane
        )
        self.segmenter = Segmenter(
            Model.load(plan.model),
            device=plan.device,
            thresholds=plan.thresholds,
            engine=plan.engine,
            dtype=plan.dtype,
            tta_scales=plan.tta_scales,
            copies=False,
        )
        self.seeing = Seeing(plan, self.slide.pixels)

    def gathered(self, core: Box) -> list[Points]:
        """What grouping needs of a core, for each class."""
        rows, columns = core
        return self.segmenter.gathered(self.seeing, rows, columns, self.plan.tile, tta=self.plan.tta)

    def seen(self, of_classes: Sequence[Points], window: Box) -> Seen:
        """The objects of a window, from what was gathered of all of it."""
        height, width = (side.stop - side.start for side in window)
        grown = self.segmenter.grown(of_classes, (height, width))
        found, corner = grown.found, [side.start for side in window]
        seeds = np.stack(np.unravel_index(grown.seeds, (height, width)), 1) + corner
        is_cut = touches_rim(found.labels, len(found), window, self.plan.seen_shape)
        rows, columns = self.plan.source(window)
        labels, kept = found.labels, np.arange(len(found))
        if self.plan.unit != UNIT:
            labels, numbers = relabel(nearest(labels, (rows.stop - rows.start, columns.stop - columns.start)))
            kept = numbers - 1
        classes, scores, begin = found.classes[kept], found.scores[kept], (rows.start, columns.start)
        measured = partial(self._measured, labels, classes, scores, begin)
        return Seen(labels, scores, classes, begin, seeds[kept], is_cut[kept], measured)

    def _measured(
        self,
        labels: Int32[np.ndarray, "h w"],
        classes: Int[np.ndarray, " n"],
        scores: Float[np.ndarray, " n"],
        corner: tuple[int, int],
        own: Int[np.ndarray, " j"],
    ) -> Table:
        """The table of some objects, whose coordinates are counted in the whole image."""
        if "parquet" not in self.plan.formats or not len(own):
            return {}
        number_of = np.zeros(len(classes) + 1, np.int32)
        number_of[own + 1] = np.arange(1, len(own) + 1)
        owned = number_of[labels]
        there = tuple(
            slice(int(line.argmax()), len(line) - int(line[::-1].argmax())) for line in (owned.any(1), owned.any(0))
        )
        low = [begin + side.start for begin, side in zip(corner, there, strict=True)]
        rows, columns = (slice(a, a + s.stop - s.start) for a, s in zip(low, there, strict=True))
        names = self.segmenter.class_names
        sides = None if self.plan.pixel_size is None else (self.plan.pixel_size[0], self.plan.pixel_size[1])
        found = Instances(owned[there], classes[own], scores[own])
        table = object_table(np.asarray(self.slide.pixels[rows, columns]), found, names, pixel_size=sides)
        return {name: _shifted(name, values, low, sides) for name, values in table.items() if name != "label"}


def _shifted(
    name: str, values: Sequence[Any], low: Sequence[int], sides: tuple[float, float] | None
) -> Shaped[np.ndarray, " k"]:
    """A column of a table, with coordinates counted from another corner."""
    words = name.removesuffix("_um").split("_")
    if words[-1] not in SHIFTED:
        return np.array(values)
    axis = SHIFTED[words[-1]]
    step = sides[axis] if sides is not None and name.endswith("_um") else 1
    return np.array(values) + low[axis] * step


# -------------------------------------------------------------------- the plan


def planned(
    image: str,
    out: Path,
    model: Path,
    *,
    image_name: str | None = None,
    level: int = 0,
    channels: Sequence[str] = (),
    plane: Mapping[str, int] | None = None,
    thresholds: Mapping[str, float] | None = None,
    device: str = "auto",
    engine: str = "torch",
    dtype: str = "auto",
    object_size: float | None = None,
    tta: bool = False,
    tta_scales: Sequence[float] = (),
    tile: int | None = None,
    block: int | None = None,
    pixel_size: tuple[float, float] | None = None,
    formats: Sequence[str] = ("labels", "parquet"),
) -> Plan:
    """What is to be done with an image; of its pixels, some are read for the percentiles.

    Args:
        image: file, folder or address.
        out: the hierarchy that the labels will lie in; the image itself, if it is to get them.
        model: file.
        image_name: of one of several images.
        level: resolution, 0 for the finest.
        channels: numbers or names; all if none is given.
        plane: place along further axes.
        thresholds: to use instead of the model's own.
        device: as for `Segmenter`, like the next two.
        engine: what runs the network.
        dtype: of the numbers in the network.
        object_size: typical diameter of the objects, in pixels of the level.
        tta: average over views of each tile.
        tta_scales: magnifications for these.
        tile: side of what the network adds in one pass, a multiple of 128; by default as large as the memory that a
            pass may need allows, 2,048 with the networks here.
        block: side of what is one step, a multiple of the tile.
        pixel_size: micrometres along a pixel's height and width, if the image's own is not to be used.
        formats: what to write, of FORMATS; labels in any case.

    Raises:
        InputError: if the image or the model cannot be used so.
    """
    if tile and (tile % UNIT or tile < UNIT):
        raise InputError(f"The tile is {tile}; for an image that is read in blocks it is a multiple of {UNIT}.")
    slide = open_slide(image, image=image_name, level=level, channels=channels, plane=plane)
    segmenter = Segmenter(
        Model.load(model),
        device=device,
        thresholds=dict(thresholds or {}),
        engine=engine,
        dtype=dtype,
        tta_scales=tta_scales,
        copies=False,
    )
    segmenter.check_gathers()
    tile = tile or segmenter.chosen_tile(ENDLESS, tta=tta) or UNIT
    block = block or tile
    if block % tile or block < tile:
        raise InputError(f"The block is {block}; it is a multiple of the tile, {tile}.")
    segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    n_channels = segmenter.model.description.channels
    sample = as_channels(_sampled(slide.pixels), n_channels, image)
    low, scale = segmenter.model.description.normalisation.limits(sample)
    sides = pixel_size or slide.pixel_size
    return Plan(
        format=FORMAT,
        attractor=metadata.version("attractor"),
        image=image if "://" in image else str(Path(image).absolute()),
        image_name=image_name,
        level=level,
        channels=list(channels),
        plane=dict(plane or {}),
        shape=list(slide.pixels.shape),
        model=str(model.absolute()),
        sha256=_checksum(model),
        thresholds=dict(segmenter.model.method.thresholds),
        dtype=segmenter.dtype,
        engine=engine,
        device=segmenter.device.type,
        tta=tta,
        tta_scales=list(tta_scales),
        unit=max(1, round(UNIT / segmenter.magnification(object_size))),
        tile=tile,
        core=block,
        halo=REACH,
        low=low.tolist(),
        scale=scale.tolist(),
        pixel_size=None if sides is None else list(sides),
        formats=list(formats),
        out=str(out.absolute()),
    )


def _checksum(model: Path) -> str:
    with model.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _sampled(pixels: Level) -> Shaped[np.ndarray, "n 1 c"]:
    """Pixels of windows that are spread evenly over an image; all of them, if there are few."""
    height, width, channels = pixels.shape
    places = [
        (slice(top, min(top + WINDOW, height)), slice(left, min(left + WINDOW, width)))
        for top in _spread(height)
        for left in _spread(width)
    ]
    step = max(1, sum((r.stop - r.start) * (c.stop - c.start) for r, c in places) // SAMPLE)
    taken = [np.asarray(pixels[place]).reshape(-1, channels)[::step] for place in places]
    return np.concatenate(taken)[:, None]


def _spread(n: int) -> list[int]:
    """Where windows begin along a side."""
    if n <= WINDOW * SAMPLES:
        return list(range(0, n, WINDOW))
    return [round(place) for place in np.linspace(0, n - WINDOW, SAMPLES).tolist()]


# -------------------------------------------------------------------- from the first step to the last


@contextmanager
def begun(plan: Plan, *, overwrite: bool = False, part: int | None = None) -> Iterator[Plan]:
    """Hold the output while working on it: everything that must be there before the first step is made, once.

    Args:
        plan: of this call.
        overwrite: whether labels that are there may be replaced, and another call's unfinished work be dropped.
        part: number of a part that other processes do not do; None for the whole.

    Returns:
        The plan that the work follows, which is the one of the call that began it.

    Raises:
        InputError: if another process works on the same, the plan differs, or labels are there.
    """
    folder = plan.folder
    with ExitStack() as held:
        held.enter_context(_held(made(folder) / "lock", shared=part is not None, what=plan.out))
        if part is not None:
            held.enter_context(_held(folder / f"part-{part}", shared=False, what=plan.out))
        with _held(folder / "beginning", shared=False, what=plan.out, wait=True):  # parts may begin at once
            plan = _begin(plan, overwrite)
        yield plan


def _begin(plan: Plan, overwrite: bool) -> Plan:
    """Make the output, or find that it was made for the same plan; the plan that it was made for."""
    folder = plan.folder
    known = _known(folder)
    key = None if known is None else _difference(known, plan)
    if known is not None and key is None:
        return known
    if key is not None and not overwrite:
        raise InputError(
            f"{folder}: was begun with {key} {getattr(known, key)!r:.60}, and now it is {getattr(plan, key)!r:.60}; "
            "repeat the first call, or give --overwrite to begin anew."
        )
    if known is None and has_labels(plan.out, NAME) and not overwrite:
        _forget(folder)
        raise InputError(
            f"{plan.out}: has labels {NAME!r} already; give --overwrite to replace them, or another --out."
        )
    _emptied(folder)
    _make_output(plan)
    shutil.rmtree(outline_file(plan, 0).parent, ignore_errors=True)
    with atomic(folder / "plan.json") as temporary:
        temporary.write_text(json.dumps(dataclasses.asdict(plan), indent=1), encoding="utf-8")
    return plan


def _known(folder: Path) -> Plan | None:
    """The plan that was begun; None if there is none that is whole."""
    try:
        content = json.loads((folder / "plan.json").read_text(encoding="utf-8"))
        return Plan(**content)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise InputError(f"{folder}: was begun by another version of attractor; remove it to begin anew.") from error


def _difference(known: Plan, plan: Plan) -> str | None:
    """The first key in which two plans differ."""
    fields = [field.name for field in dataclasses.fields(Plan)]
    return next((name for name in fields if getattr(known, name) != getattr(plan, name)), None)


def _emptied(folder: Path) -> None:
    for path in folder.iterdir():
        if path.is_dir():
            shutil.rmtree(path)
        elif path.suffix == ".json":
            path.unlink()


def _forget(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)


def _make_output(plan: Plan) -> None:
    """The hierarchy with empty labels."""
    slide = open_slide(plan.image, image=plan.image_name, level=plan.level, channels=plan.channels, plane=plan.plane)
    root, hierarchy = Path(plan.out), slide.hierarchy
    if hierarchy is not None and "://" not in hierarchy.path and Path(hierarchy.path).absolute() != root:
        copy_without_labels(hierarchy, root)
    sides = None if plan.pixel_size is None else (plan.pixel_size[0], plan.pixel_size[1])
    version = "0.5" if hierarchy is None else hierarchy.version
    make_labels(root, NAME, _shapes(plan, hierarchy), version=version, image=hierarchy, pixel_size=sides)


def _shapes(plan: Plan, hierarchy: OmeZarr | None) -> list[tuple[int, int]]:
    """Rows and columns of each resolution of the labels: those of the image, or halved ones down to a small one."""
    if hierarchy is not None:
        return [hierarchy.sides(level) for level in range(len(hierarchy.datasets))]
    shapes = [(plan.shape[0], plan.shape[1])]
    while max(shapes[-1]) > CELL:
        shapes.append((-(-shapes[-1][0] // 2), -(-shapes[-1][1] // 2)))
    return shapes


@contextmanager
def _held(path: Path, *, shared: bool, what: str, wait: bool = False) -> Iterator[None]:
    """Hold a lock that ends with the process.

    Raises:
        InputError: if another process holds it.
    """
    if sys.platform == "win32":
        yield
        return
    import fcntl

    with path.open("a") as file:
        try:
            fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
        except OSError as error:
            raise InputError(
                f"{what}: another process is working on it; wait until it has ended, or give another --out."
            ) from error
        yield


@dataclass(frozen=True)
class Task:
    """One step of the work."""

    step: str  # "gather", "find", "paint", "outline", or "level"
    number: int  # of a block or cell
    level: int = 0  # of the labels, for the last


def do(plan: Plan, task: Task) -> Task:
    """Do a step, in whatever process; what it needs must have been done."""
    work = _work(json.dumps(dataclasses.asdict(plan)))
    ledger = plan.ledger
    if task.step == "gather":
        ledger.gather(work.finder, task.number)
    elif task.step == "find":
        ledger.find(work.finder, task.number)
    elif task.step == "paint":
        ledger.paint(work, work.numbers, task.number)
    elif task.step == "outline":
        work.outline(task.number)
    else:
        work.resize(task.level, task.number)
    return task


class _Work:
    """What a process keeps from step to step."""

    def __init__(self, plan: Plan) -> None:
        if (here := metadata.version("attractor")) != plan.attractor:
            raise InputError(
                f"A worker has attractor {here}, and the call came from {plan.attractor}; install the same version on "
                "all machines."
            )
        self.plan = plan

    @cached_property
    def finder(self) -> ModelFinder:
        if _checksum(Path(self.plan.model)) != self.plan.sha256:
            raise InputError(
                f"{self.plan.model}: is another model now, or on this machine; put back the one that the work began "
                "with, or give --overwrite to begin anew."
            )
        return ModelFinder(self.plan)

    @cached_property
    def numbers(self) -> Numbers:
        return self.plan.ledger.number()

    @cached_property
    def labels(self) -> list[LabelLevel]:
        return open_labels(self.plan.out, NAME)

    def paint(self, cell: Box, labels: Shaped[np.ndarray, "i j"]) -> None:
        """Write the labels of a cell."""
        rows, columns = cell
        with _writing(self.plan.out):
            self.labels[self.plan.level][rows, columns] = labels

    def outline(self, block: int) -> None:
        """Write the outlines of a block's objects."""
        labels, owned, corner = self.plan.ledger.picture(self.numbers, block)
        found = Instances(labels, owned.classes, owned.scores)
        names = read_description(self.plan.model).class_names
        first = self.numbers.firsts[block]
        content = encode_geojson(found, names, corner=(corner[0], corner[1]), first=first)
        file = outline_file(self.plan, block)
        with _writing(self.plan.out), atomic(made(file.parent) / file.name) as temporary:
            temporary.write_bytes(content)

    def resize(self, level: int, cell: int) -> None:
        """Write a cell of another resolution, from the one next to it that is nearer to what was painted."""
        source = self.labels[level - 1 if level > self.plan.level else level + 1]
        target = self.labels[level]
        rows, columns = Grid(target.shape, (CELL, CELL)).box(cell)
        places = [
            np.minimum((np.arange(side.start, side.stop) * m) // n, m - 1)
            for side, n, m in zip((rows, columns), target.shape, source.shape, strict=True)
        ]
        down, across = (slice(int(place[0]), int(place[-1]) + 1) for place in places)
        read = source[down, across]
        with _writing(self.plan.out):
            target[rows, columns] = read[np.ix_(*(place - place[0] for place in places))]
        with atomic(made(self.plan.folder / f"level-{level}") / f"{cell:06d}") as temporary:
            temporary.touch()


@functools.lru_cache(maxsize=1)
def _work(plan: str) -> _Work:
    return _Work(Plan(**json.loads(plan)))


def painting(plan: Plan) -> list[list[Task]]:
    """What is to be done once all objects are known: lists of steps, each list after the one before."""
    ledger = plan.ledger
    cells = [cell for cell in range(len(ledger.cells)) if not ledger.painted_file(cell).exists()]
    n_levels = len(open_labels(plan.out, NAME))
    stages = [[Task("paint", cell) for cell in cells]]
    if "geojson" in plan.formats:
        counts = ledger.number().counts
        stages.append([Task("outline", n) for n, k in enumerate(counts) if k and not outline_file(plan, n).exists()])
    for level in [*range(plan.level + 1, n_levels), *reversed(range(plan.level))]:
        grid = Grid(open_labels(plan.out, NAME)[level].shape, (CELL, CELL))
        missing = (n for n in range(len(grid)) if not (plan.folder / f"level-{level}" / f"{n:06d}").exists())
        stages.append([Task("level", n, level) for n in missing])
    return stages


def table_file(plan: Plan) -> Path:
    """Where the table of objects goes."""
    return _beside(plan, "_objects.parquet")


def outline_file(plan: Plan, block: int) -> Path:
    """Where the outlines of a block's objects go; blocks without objects have no such file."""
    return _beside(plan, "_objects.geojson") / f"{block:06d}.geojson"


def _beside(plan: Plan, ending: str) -> Path:
    name = Path(plan.out).name
    for known in (".zarr", ".ome"):
        name = name.removesuffix(known)
    return Path(plan.out).with_name(name + ending)


def finished(plan: Plan) -> Numbers:
    """Write the table, and remove what was kept for going on; every step must have been done.

    Raises:
        InputError: if a file cannot be written.
    """
    numbers = plan.ledger.number()
    with _writing(plan.out):
        if "parquet" in plan.formats:
            _write_table(plan, numbers)
        consolidate_again(plan.out)
        with atomic(Path(plan.out).with_name(f"{Path(plan.out).name}.json")) as temporary:
            about = dataclasses.asdict(plan) | {"objects": numbers.total, "objects_cut": numbers.cut}
            temporary.write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    _forget(plan.folder)
    return numbers


@contextmanager
def _writing(out: str) -> Iterator[None]:
    """Say in one sentence why something cannot be written.

    Raises:
        InputError: in that case.
    """
    try:
        yield
    except OSError as error:
        what_to_do = cure(error) or "check the folder and its permissions"
        raise InputError(
            f"{out}: cannot be written: {error.strerror or error}; {what_to_do}, and give the same command again."
        ) from error


def _write_table(plan: Plan, numbers: Numbers) -> None:
    """A row for each object, block after block, as Parquet."""
    import pyarrow
    from pyarrow import parquet

    with atomic(table_file(plan)) as temporary:
        writer = None
        for rows in plan.ledger.table(numbers):
            columns = pyarrow.table({name: pyarrow.array(values) for name, values in rows.items()})
            if writer is None:
                writer = parquet.ParquetWriter(temporary, columns.schema)
            writer.write_table(columns.cast(writer.schema))
        if writer is None:
            parquet.write_table(pyarrow.table({"label": pyarrow.array([], pyarrow.uint32())}), temporary)
        else:
            writer.close()
