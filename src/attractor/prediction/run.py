"""What a call of `attractor segment` did: `run.json`, which lies beside the results and can repeat the call.

Only this file holds times: all others are the same, byte for byte, if the same call is made on the same machine.
"""

from __future__ import annotations

import hashlib
import platform
import time
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from pydantic import BaseModel, ValidationError

from attractor.errors import InputError
from attractor.images import atomic
from attractor.kernels.devices import device_name
from attractor.prediction.folder import Outcome
from attractor.prediction.image import Segmenter
from attractor.prediction.options import Options, Record

FILE = "run.json"


class Versions(Record):
    """What computed the results."""

    attractor: str
    torch: str
    numpy: str
    python: str

    @classmethod
    def here(cls) -> Versions:
        """Those of this process."""
        return cls(
            attractor=metadata.version("attractor"),
            torch=torch.__version__,
            numpy=np.__version__,
            python=platform.python_version(),
        )


class ModelFile(Record):
    """Which model, and its file's checksum."""

    name: str  # as given in the call
    file: str
    sha256: str

    @classmethod
    def of(cls, name: str, file: Path) -> ModelFile:
        """The model of this name and file."""
        with file.open("rb") as content:
            checksum = hashlib.file_digest(content, "sha256").hexdigest()
        return cls(name=name, file=str(file.absolute()), sha256=checksum)


class Computed(Record):
    """What was used where the options leave it open."""

    device: str
    device_name: str
    engine: str
    dtype: str
    thresholds: dict[str, int | float]  # all of the method

    @classmethod
    def by(cls, segmenter: Segmenter) -> Computed:
        """What the segmenter uses."""
        return cls(
            device=segmenter.device.type,
            device_name=device_name(segmenter.device),
            engine=segmenter.engine,
            dtype=segmenter.dtype,
            thresholds=segmenter.model.method.thresholds,
        )


class ImageRecord(Record):
    """What became of one image."""

    image: str
    objects: int
    height: int | None
    width: int | None
    depth: int | None = None  # planes of a volume
    tile: int | None
    seconds: float | None
    problem: str | None

    @classmethod
    def of(cls, outcome: Outcome) -> ImageRecord:
        """The outcome with its image's absolute path, so that it can be found from anywhere."""
        *depth, height, width = outcome.shape or (None, None)
        return cls(
            image=str(outcome.image.absolute()),
            objects=outcome.n_objects,
            height=height,
            width=width,
            depth=depth[0] if depth else None,
            tile=outcome.tile,
            seconds=None if outcome.seconds is None else round(outcome.seconds, 3),
            problem=outcome.problem,
        )


class Run(Record):
    """Everything that `run.json` says."""

    versions: Versions
    model: ModelFile
    options: Options
    computed: Computed
    images: tuple[ImageRecord, ...] = ()
    is_complete: bool = False  # whether every image had its turn; False if the call was stopped
    seconds: float | None = None  # of all images together

    @classmethod
    def of(cls, segmenter: Segmenter, model: ModelFile, options: Options) -> Run:
        """A run that is about to begin."""
        return cls(
            versions=Versions.here(),
            model=model,
            options=options.with_whole_paths(),
            computed=Computed.by(segmenter),
        )

    def again(self, options: Options, *, changed: Collection[str]) -> Options:
        """Options that repeat this run with nothing left open, except for those that the new call changes.

        Args:
            options: of the new call.
            changed: names of the options that the new call gives; thresholds are replaced one by one.
        """
        used = self.computed.model_dump(include={"device", "engine", "dtype", "thresholds"})
        changes = {name: getattr(options, name) for name in Options.model_fields if name in changed}
        changes["thresholds"] = used["thresholds"] | options.thresholds
        return self.options.model_copy(update=used | changes)

    def check_model(self, model: ModelFile) -> None:
        """Refuse a model other than the run's own.

        Raises:
            InputError: if the checksums differ.
        """
        if model.sha256 != self.model.sha256:
            raise InputError(
                f"{model.file}: is not the model of the run (SHA-256 {model.sha256[:12]}…, not "
                f"{self.model.sha256[:12]}…); give the run's model with --model, or leave --like out."
            )


@contextmanager
def recorded(run: Run, outcomes: Iterable[Outcome], out: Path) -> Iterator[Iterator[Outcome]]:
    """The outcomes as they come; at the end `run.json` in the folder holds them, even if the block is left early.

    From the start the file says that the run is not complete, so a run that is killed leaves no older file behind.
    """
    start, seen, is_complete = time.perf_counter(), list[Outcome](), False

    def noted() -> Iterator[Outcome]:
        nonlocal is_complete
        for outcome in outcomes:
            seen.append(outcome)
            yield outcome
        is_complete = True

    write_run(out / FILE, run)
    try:
        yield noted()
    finally:
        records = tuple(map(ImageRecord.of, seen))
        seconds = round(time.perf_counter() - start, 3)
        write_run(
            out / FILE, run.model_copy(update={"images": records, "is_complete": is_complete, "seconds": seconds})
        )


def write_run(path: Path, run: Run) -> None:
    """Write the file, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_text(run.model_dump_json(indent=1) + "\n", encoding="utf-8")


def read_run(path: str | Path) -> Run:
    """The run that a file records.

    Raises:
        InputError: if the file cannot be read, is not such a record, or was written by another version of attractor.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}; give the run.json beside the results.") from error
    _check_version(path, content)
    try:
        return Run.model_validate_json(content)
    except ValidationError as error:
        raise InputError(
            f"{path}: {_first_of(error)}; give a run.json just as `attractor segment` wrote it."
        ) from error


class _Head(BaseModel):
    """The part of the file that every version understands."""

    class Versions(BaseModel):
        attractor: str

    versions: Versions


def _check_version(path: str | Path, content: bytes) -> None:
    """Refuse a record of another version: its results may differ, and its options mean something else."""
    try:
        version = _Head.model_validate_json(content).versions.attractor
    except ValidationError as error:
        raise InputError(
            f"{path}: is not the record of a call of `attractor segment` ({_first_of(error)}); give the "
            "run.json beside its results."
        ) from error
    if version != (here := metadata.version("attractor")):
        raise InputError(
            f"{path}: was written by attractor {version}, and this is {here}, whose results may "
            f"differ; install attractor {version}, or give the images and options without --like."
        )


def _first_of(error: ValidationError) -> str:
    """What is wrong, and where, in a few words."""
    first = error.errors(include_url=False, include_input=False)[0]
    where = ".".join(map(str, first["loc"]))
    return f"{where}: {first['msg'].lower()}" if where else first["msg"].lower()
