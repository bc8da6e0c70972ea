"""What a call of `attractor segment` asks for. No torch is needed to know it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """A part of `run.json`; it holds what is named here and nothing else."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Options(Record):
    """What was asked for: the arguments and options of the command."""

    images: tuple[str, ...]  # files and folders
    model: str
    out: str
    device: str
    engine: str
    dtype: str
    object_size: float | None
    tile: int | None
    tta: bool
    tta_scales: tuple[float, ...]
    whole_masks: bool
    thresholds: dict[str, float]  # that were changed
    formats: tuple[str, ...]
    pixel_size: tuple[float, ...] | None
    axes: str = ""  # of stacks that do not name theirs
    slices: bool = False

    def with_whole_paths(self) -> Options:
        """The same with absolute paths, which mean the same in any folder."""
        model = str(Path(self.model).absolute()) if Path(self.model).exists() else self.model
        images = tuple(str(Path(image).absolute()) for image in self.images)
        return self.model_copy(update={"images": images, "model": model, "out": str(Path(self.out).absolute())})
