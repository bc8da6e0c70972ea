"""What a model file says about itself: one schema, which every file must meet before anything is made from it.

The file is safetensors: weights, and a JSON header with everything that is needed to use them. It holds no code, and
none is run.
"""

from __future__ import annotations

import dataclasses
import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import pydantic
import pydantic_core
import safetensors

from attractor.errors import InputError
from attractor.normalisation import Normalisation
from attractor.weights import MODELS

FORMAT = 4  # of the model file; newer formats are refused, older ones are brought up to date
NOT_CALIBRATED = 3  # the format of models without ranges
OF_IMAGES = 2  # the format of those for images, which has no word for axes either
MOST_CHANNELS = 1 << 12  # of an image

Length = Annotated[float, pydantic.Field(gt=0, le=1e6, allow_inf_nan=False)]  # pixels
Scale = Annotated[float, pydantic.Field(ge=0.01, le=100, allow_inf_nan=False)]
Finite = Annotated[float, pydantic.Field(allow_inf_nan=False)]
Names = Annotated[tuple[str, ...], pydantic.Field(min_length=1)]
Values = dict[str, pydantic.JsonValue]


@dataclass(frozen=True, kw_only=True)
class Description:
    """What a model file says about itself."""

    __pydantic_config__: ClassVar[pydantic.ConfigDict] = {"extra": "forbid", "strict": True}

    method: str
    network: str
    channels: Annotated[int, pydantic.Field(ge=1, le=MOST_CHANNELS)]  # of the image
    class_names: Names
    normalisation: Normalisation = field(default_factory=Normalisation)
    options: Values = field(default_factory=dict)  # arguments of the method
    network_options: Values = field(default_factory=dict)  # arguments of the network
    object_size: Length | None = None  # typical diameter of the objects that it was trained on
    scale: Scale = 1.0  # images are magnified by this before the network sees them, and what is found is scaled back
    # lowest and highest value of each trait of the training images: see `attractor.likeness`
    seen: dict[str, tuple[Finite, Finite]] = field(default_factory=dict)
    axes: Annotated[int, pydantic.Field(ge=2, le=3)] = 2  # two for images, three for volumes
    # of volumes: length of a step along (plane, row, column), in micrometres where the files said so; all alike if None
    spacing: Annotated[tuple[Length, ...], pydantic.Field(min_length=3, max_length=3)] | None = None
    # for computing in eight bits: lowest and highest number that comes into each convolution, by the convolution's name
    ranges: dict[str, tuple[Finite, Finite]] = field(default_factory=dict)
    upright: bool = False  # trained on images that have an up and a down, such as photographs
    recipe: Values = field(default_factory=dict)  # that it was trained by
    scores: Values = field(default_factory=dict)
    about: str = ""  # one sentence: what it was trained on, and the licence in brackets

    @property
    def steps(self) -> tuple[float, ...]:
        """Length of a step along each axis, as methods and networks take it."""
        return self.spacing or (1.0,) * self.axes

    @property
    def licence(self) -> str:
        """The licence of the images that it was trained on: what stands in the last brackets of `about`."""
        return next(reversed(re.findall(r"\(([^()]+)\)", self.about)), "")

    def score(self, images: str, name: str) -> float | None:
        """A score on some images, such as "validation" and "mean"; None if it is not known."""
        scores = self.scores.get(images)
        value = scores.get(name) if isinstance(scores, dict) else None
        return float(value) if isinstance(value, int | float) else None


def find_model(name_or_path: str | Path) -> Path:
    """The file of a model given by name or path.

    Raises:
        InputError: if there is no such model.
    """
    path = Path(name_or_path)
    try:
        if path.is_dir() and (path / "model.safetensors").exists():
            return path / "model.safetensors"
        if path.is_file():
            return path
    except (OSError, ValueError):  # a name that no file can have
        pass
    if str(name_or_path) in MODELS:
        return MODELS[str(name_or_path)]
    raise InputError(
        f"{name_or_path}: there is no such model. Give the file of a model (model.safetensors in the folder of a "
        f"training), or the name of one that comes with attractor: {', '.join(MODELS) or 'none yet'}."
    )


def read_description(path: str | Path) -> Description:
    """What a model file says about itself, without loading its weights.

    Raises:
        InputError: if the file is not a model, is cut short, has a newer format, or has an impossible key.
    """
    return read_header(path)[1]


def read_header(path: str | Path) -> tuple[int, Description]:
    """Format of a model file, and what it says about itself, up to date; see `read_description`."""
    header = _header(path)
    version = header.pop("format")
    if type(version) is not int or not 1 <= version <= FORMAT:
        raise InputError(
            f"{path}: the model file has format {version!r:.40}, and this attractor reads formats 1 to {FORMAT}. "
            "If it is a newer one, update attractor: run git pull and pip install . in its clone."
        )
    if version == 1:
        _from_format_1(header)
    try:
        description = pydantic.TypeAdapter(Description).validate_json(pydantic_core.to_json(header))
    except pydantic.ValidationError as error:
        raise InputError(f"{path}: {_sentence(error)}") from error
    return version, description


def is_half(path: str | Path) -> bool:
    """Whether a model file keeps its weights in half precision."""
    with safetensors.safe_open(path, "np") as file:
        return any(file.get_slice(name).get_dtype() == "F16" for name in file.keys())


def encoded(description: Description) -> str:
    """The JSON header of a file with this description."""
    version, left_out = FORMAT, set()
    if not description.ranges:
        version, left_out = (NOT_CALIBRATED if description.axes == 3 else OF_IMAGES), {"ranges"}
    if description.axes == 2:
        left_out |= {"axes", "spacing"}
    content = {name: value for name, value in dataclasses.asdict(description).items() if name not in left_out}
    return json.dumps({"format": version} | content)


def _header(path: str | Path) -> dict[str, object]:
    try:
        with safetensors.safe_open(path, "np") as file:
            text = (file.metadata() or {}).get("attractor", "null")
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path}: this is not a whole model file ({error}). It may have been cut short while copying: copy it "
            "again. Models are .safetensors files that `attractor train` writes."
        ) from error
    try:
        header = pydantic_core.from_json(text)
    except ValueError as error:
        raise InputError(f"{path}: the model's description is not JSON ({error}); train or copy it again.") from error
    if not isinstance(header, dict) or "format" not in header:
        raise InputError(
            f"{path}: this safetensors file was not written by attractor; `attractor train` writes models."
        )
    return header


def _from_format_1(header: dict[str, object]) -> None:
    """Bring a header of format 1 up to date.

    In that format, spatial embeddings also dropped objects of exactly `min_size` pixels, and only the recipe said
    whether training was on upright images.
    """
    options, recipe = header.get("options"), header.get("recipe")
    if header.get("method") == "spatial-embeddings" and isinstance(options, dict):
        size = options.get("min_size", 0)
        if type(size) is int and size > 0:
            options["min_size"] = size + 1
    augmentation = recipe.get("augmentation") if isinstance(recipe, dict) else None
    if isinstance(augmentation, dict) and augmentation.get("upright") is True:
        header["upright"] = True


def _sentence(error: pydantic.ValidationError) -> str:
    """The first thing that is wrong with a description."""
    first = error.errors(include_url=False)[0]
    key = ".".join(str(part) for part in first["loc"])
    if first["type"] in ("unexpected_keyword_argument", "missing"):
        what = "is unknown" if first["type"] == "unexpected_keyword_argument" else "is missing"
        return f'the key "{key}" of the model\'s description {what}; this attractor did not write the file.'
    reason = first["msg"].removeprefix("Value error, ").removesuffix(".")
    return (
        f'the key "{key}" of the model\'s description is {first["input"]!r:.60}: {reason[0].lower()}{reason[1:]}. '
        "The file is damaged, or was not written by attractor: copy or train it again."
    )
