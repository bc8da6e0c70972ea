"""`attractor segment` for an image of any size: OME-Zarr, or a TIFF file whose labels go to OME-Zarr."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from attractor.cli.printing import bar, complain, say
from attractor.errors import InputError
from attractor.wording import counted, install

if TYPE_CHECKING:
    from attractor.prediction.options import Options
    from attractor.prediction.schedulers import Progress
    from attractor.prediction.slide import Plan


@dataclass(frozen=True)
class Asked:
    """The options that only such images have."""

    level: int = 0
    channels: str = ""
    plane: str = ""
    image: str | None = None
    into: bool = False
    overwrite: bool = False
    block: int | None = None
    workers: int = 1
    scheduler: str | None = None
    part: str | None = None
    finish: bool = False


def is_for_slide(options: Options, asked: Asked) -> bool:
    """Whether a call means an image that is read in blocks.

    Raises:
        InputError: if options for such images are given, and the image is none.
    """
    from attractor.images.ome_zarr import is_ome_zarr

    given = [name for name, value in vars(asked).items() if value != getattr(Asked(), name)]
    if any(is_ome_zarr(image) for image in options.images) or options.out.endswith(".zarr"):
        if not _takes_volumes(options):
            return True
        _refuse_blocks(options, given)
        return False
    if given and options.images:
        raise InputError(
            f"--{given[0]} is for OME-Zarr images, and for other images whose results go to OME-Zarr; give --out "
            "NAME.ome.zarr, too, or leave it out."
        )
    return False


def _refuse_blocks(options: Options, given: Sequence[str]) -> None:
    """Refuse, for volumes, what only images have that are read in blocks."""
    if options.out.endswith(".zarr"):
        raise InputError(f"--out {options.out}: the labels of volumes are TIFF stacks; give a folder.")
    if given:
        raise InputError(f"--{given[0]} is for images; volumes are read whole, at the finest resolution; leave it out.")
    if addresses := [image for image in options.images if "://" in image]:
        raise InputError(f"{addresses[0]}: volumes are read from this machine; copy it, and give the folder.")


def _takes_volumes(options: Options) -> bool:
    """Whether the model sees volumes, which are read whole."""
    from attractor.description import find_model, read_description

    return options.slices or read_description(find_model(options.model)).axes == 3


def segment_slide(options: Options, asked: Asked, *, formats_given: bool) -> None:
    """Segment one image block by block.

    Raises:
        InputError: if an option cannot be used, or the image cannot be read, or the output written.
    """
    from attractor.images.files import existing
    from attractor.prediction.clients import connected

    part, parts = _part(asked)
    for image in options.images:  # before processes start
        if "://" not in image and not Path(image).is_dir():
            existing(image)
    is_part = asked.part is not None
    with connected(workers=asked.workers, scheduler=asked.scheduler) as client:
        from attractor.prediction.schedulers import find_objects, paint_labels, pool_for  # torch, as workers do now
        from attractor.prediction.slide import begun, finished

        plan = _plan(options, asked, formats_given)
        with begun(plan, overwrite=asked.overwrite, part=part if is_part else None) as plan:
            own = _own(plan, asked, part, parts)
            pool = pool_for(plan, client())
            _shown(find_objects(plan.ledger, pool, own))
            if not is_part:
                _shown(paint_labels(plan, pool))
                numbers = finished(plan)
    if is_part:
        say(f"Part {part} of {parts} is done; when all are, run the same command with --finish in place of --part.")
        return
    _say_what_was_found(plan, numbers.total, numbers.cut)


def _plan(options: Options, asked: Asked, formats_given: bool) -> Plan:
    from attractor.description import find_model
    from attractor.prediction.slide import planned

    if len(options.images) > 1:
        raise InputError(
            f"{options.images[0]}: an image that is read in blocks is segmented alone; give one at a time."
        )
    if options.whole_masks:
        raise InputError("--whole-masks cannot be written to OME-Zarr, where a pixel has one label; leave it out.")
    image = options.images[0]
    if asked.into and options.out != "out":
        raise InputError("--into writes the labels into the image itself; leave --out out.")
    out = _own_place(image, asked.image) if asked.into else options.out
    if not out.endswith(".zarr") and not asked.into:
        raise InputError(f"--out {out}: give a name that ends in .ome.zarr, or --into to write labels into the image.")
    if Path(out).is_file() or "://" in out:
        raise InputError(f"{out}: labels are written to a folder on this machine; give --out NAME.ome.zarr.")
    return planned(
        image,
        Path(out),
        find_model(options.model),
        image_name=asked.image,
        level=asked.level,
        channels=_list(asked.channels),
        plane=_places(asked.plane),
        thresholds=options.thresholds,
        device=options.device,
        engine=options.engine,
        dtype=options.dtype,
        object_size=options.object_size,
        tta=options.tta,
        tta_scales=options.tta_scales,
        tile=options.tile,
        block=asked.block,
        pixel_size=_two(options.pixel_size),
        formats=_formats(options.formats, formats_given),
    )


def _two(sides: tuple[float, ...] | None) -> tuple[float, float] | None:
    """Micrometres along a pixel's height and width.

    Raises:
        InputError: if there are three, as of a volume.
    """
    if sides is None:
        return None
    if len(sides) != 2:
        raise InputError("Blocks are for images; --pixel-size takes their height and width, as in 0.5x0.25.")
    height, width = sides
    return height, width


def _own_place(image: str, name: str | None) -> str:
    """The group of an image, which is to get the labels."""
    from attractor.images.ome_zarr import is_ome_zarr, open_ome_zarr

    if not is_ome_zarr(image):
        raise InputError(f"{image}: --into writes labels into OME-Zarr images, and this is none; give --out instead.")
    return open_ome_zarr(image, name).path


def _formats(formats: Sequence[str], given: bool) -> Sequence[str]:
    """What is written: by default a table, too, if it can be."""
    from attractor.prediction.slide import FORMATS

    has_parquet = importlib.util.find_spec("pyarrow") is not None
    if not given:
        return ("labels", "parquet") if has_parquet else ("labels",)
    if unknown := [name for name in formats if name not in FORMATS]:
        raise InputError(f"--format {unknown[0]} is not written for OME-Zarr; the formats are {', '.join(FORMATS)}.")
    if "parquet" in formats and not has_parquet:
        raise InputError(f"The format parquet needs pyarrow, which is not installed. {install('scale')}")
    return tuple(dict.fromkeys(formats))


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _places(text: str) -> Mapping[str, int]:
    """Places along axes, given as t=0,z=3."""
    places = {}
    for setting in _list(text):
        axis, _, place = setting.partition("=")
        if not place.isdigit():
            raise InputError(f"--plane {text}: write it as axis=place, such as z=3, or t=0,z=3.")
        places[axis] = int(place)
    return places


def _part(asked: Asked) -> tuple[int, int]:
    """Number of a part, from 0, and how many there are.

    Raises:
        InputError: if they cannot be.
    """
    if asked.part is None:
        return 0, 1
    if asked.finish:
        raise InputError("--finish comes after all parts; leave --part out.")
    number, _, total = asked.part.partition("/")
    if not (number.isdigit() and total.isdigit()):
        raise InputError(f"--part {asked.part}: write it as number/total, such as 0/16 for the first of sixteen.")
    if not int(number) < int(total):
        raise InputError(f"--part {asked.part}: of {total} parts, the first is 0 and the last {int(total) - 1}.")
    return int(number), int(total)


def _own(plan: Plan, asked: Asked, part: int, parts: int) -> range | None:
    """The blocks of a part; None for all.

    Raises:
        InputError: if the work is to be finished, and parts of it have not been done.
    """
    from attractor.prediction.schedulers import blocks_of_part

    ledger = plan.ledger
    if asked.finish:
        missing = [block for block in range(len(ledger.blocks)) if ledger.needs_gathering(block)]
        if missing:
            raise InputError(
                f"{plan.out}: {len(missing)} of {counted(len(ledger.blocks), 'block')} are still to be done, such as "
                f"number {missing[0]}; let every part run to its end first."
            )
    return None if asked.part is None else blocks_of_part(len(ledger.blocks), part, parts)


def _shown(steps: Iterable[Progress]) -> None:
    """Go through steps with a bar."""
    with bar("") as (update, _):
        for step in steps:
            update(description=step.stage, completed=step.done, total=step.total)


def _say_what_was_found(plan: Plan, total: int, cut: int) -> None:
    from attractor.prediction.slide import NAME, outline_file, table_file

    places = [f"the labels are in {plan.out}/labels/{NAME}"]
    places += [f"their table is {table_file(plan)}"] if "parquet" in plan.formats else []
    places += [f"their outlines are in {outline_file(plan, 0).parent}"] if "geojson" in plan.formats and total else []
    say(f"Found {counted(total, 'object')}; {', and '.join(places)}.")
    if cut:
        complain(
            f"{counted(cut, 'object')} may be cut: they reach further around their block than was looked at; a larger "
            "--block sees them whole."
        )
