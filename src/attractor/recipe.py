"""A training run as data: a strict TOML file, whose keys are the arguments of the floors below.

Sections: `data` (which images), `model` (method, network, normalisation), `training` and `augmentation`. An
unknown key is refused with the nearest right one.
"""

from __future__ import annotations

import dataclasses
import difflib
import math
import reprlib
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field
from pydantic_core import ErrorDetails

from attractor.augmentation import Augmentation
from attractor.datasets import Dataset, open_dataset
from attractor.datasets.classes import with_classes
from attractor.datasets.held import Held, hold
from attractor.datasets.in_front import drawn_by, suggested_rule
from attractor.description import MOST_CHANNELS, Description, Values, find_model, read_description
from attractor.errors import InputError
from attractor.images import atomic
from attractor.methods import METHODS
from attractor.methods.contract import Follows, Suggestions
from attractor.networks import NETWORKS, SuggestsOptions
from attractor.networks.contract import JoinsFrames
from attractor.normalisation import Normalisation
from attractor.settings import Settings
from attractor.statistics import ObjectStatistics

MOST_BYTES = 1 << 20  # of a recipe's file
DEEPEST = 8  # levels of tables and lists inside each other
LONGEST_TEXT, LONGEST_KEY, LONGEST_MESSAGE = 4096, 100, 800  # characters
PIXELS_OF_BATCH = {2: 8 * 256**2, 3: 1 << 19}  # by number of axes; a voxel takes a third of what a pixel takes
ENOUGH_OBJECTS = 125  # in the volumes to validate on: somewhat more than thresholds are tuned with
FEW_IMAGES = 50  # with fewer, a larger part of them is validated on
LONGEST_UNASKED = 120.0  # minutes; a training that was not given a time or a number of epochs ends by then
OF_DATA = ("min_size",)  # options of a method that follow new data where training goes on from a model
LARGEST_INTEGER = 2**63 - 1  # the largest that TOML promises

Content: TypeAlias = dict[str, object]  # of a recipe or a part of it, as TOML has it, before it is checked

_STRICT = ConfigDict(extra="forbid")


# The arguments that the floors below take, checked key by key.
@pydantic.dataclasses.dataclass(config=_STRICT, frozen=True)
class NormalisationSection(Normalisation):
    """How images are normalised."""


@pydantic.dataclasses.dataclass(config=_STRICT, frozen=True)
class TrainingSection(Settings):
    """How to train."""


@pydantic.dataclasses.dataclass(config=_STRICT, frozen=True)
class AugmentationSection(Augmentation):
    """How crops are changed at random."""


class Data(BaseModel):
    """Which images to learn from, and which to validate on."""

    model_config = _STRICT

    train: str  # a data set
    classes: list[str] | None = None  # the only ones to learn, in this order; objects of others are background
    validation: float | str = 0.1  # a share of the training images, or another data set
    overlap: Literal["ignore", "smaller in front", "later in front"] = "ignore"  # see `datasets.in_front`
    split_by: str | None = None  # a column of images.csv; each group of its values is split in that share
    # images of one group are never in both parts: a column of images.csv, or "alike" for groups that look alike
    groups: str | None = None
    split_seed: int = Field(default=0, ge=0, lt=2**32)
    folds: int = Field(default=0, ge=0, le=100)  # parts that are validated on in turn; 0: only one part is
    crop: int | None = Field(
        default=None, ge=1, lt=2**31
    )  # validate on crops of this side, for methods that can find only a limited number of objects
    max_objects: int | None = Field(
        default=None, ge=1, lt=2**31
    )  # and only on crops with at most this many objects; by default as many as the method can find


class ModelSection(BaseModel):
    """What to train."""

    model_config = _STRICT

    method: str = "spatial-embeddings"
    network: str = "erfnet"
    channels: int = Field(default=3, ge=1, le=MOST_CHANNELS)
    axes: int = Field(default=2, ge=2, le=3)  # two for images, three for volumes
    spacing: list[float] | None = None  # of volumes: micrometres along planes, rows and columns; all alike if left out
    scale: float = Field(default=1.0, ge=0.01, le=100)  # images are magnified by this before the network sees them
    classes: list[str] | None = None  # names, in the order of the data's classes; by default those of the data
    start: str | None = None  # name or file of a model whose weights to start from
    encoder_weights: str | None = None  # file of ImageNet weights, as torchvision names them, for a ResNet encoder
    about: str = ""  # a sentence on data and licence, kept in the model file
    normalisation: NormalisationSection = Field(default_factory=NormalisationSection)
    options: Values = {}  # arguments of the method
    network_options: Values = {}  # arguments of the network


class Stage(BaseModel):
    """What one stage of a run changes in two sections; it starts from the weights that the stage before found."""

    model_config = _STRICT

    training: Content = {}
    augmentation: Content = {}


class Recipe(BaseModel):
    """A whole run."""

    model_config = _STRICT

    data: Data
    model: ModelSection = Field(default_factory=lambda: ModelSection())
    training: TrainingSection = Field(default_factory=TrainingSection)
    augmentation: AugmentationSection = Field(default_factory=AugmentationSection)
    stages: list[Stage] = []

    @pydantic.model_validator(mode="after")
    def _stages_can_be(self) -> Recipe:
        """Refuse a wrong key or value in any stage before the first one is trained."""
        for number in range(1, len(self.stages) + 1):
            self.stage(number)
        return self

    def stage(self, number: int) -> Recipe:
        """The recipe of one stage, counted from 1, as if it were a run of its own.

        Raises:
            InputError: if a key, type or range in it is wrong.
        """
        changes = self.stages[number - 1]
        content = self.model_dump(mode="json", exclude={"stages"})
        for section in ("training", "augmentation"):
            content[section] |= getattr(changes, section)
        return recipe_of(content, f"Stage {number} of the recipe")


def read_recipe(path: str | Path, changes: Sequence[str] = ()) -> Recipe:
    """The recipe of a TOML file, with keys changed as in "training.epochs=2".

    Raises:
        InputError: if the file is not TOML, or a key, type or range is wrong.
    """
    content = _content(Path(path))
    for change in changes:
        _set(content, change)
        _refuse_without_effect(content, change)
    return recipe_of(content, str(path))


def _content(path: Path) -> Content:
    """What a TOML file holds, of whatever shape."""
    try:
        with path.open("rb") as file:
            text = file.read(MOST_BYTES + 1)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        reason = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path}: the recipe cannot be read: {reason}. Check the name.") from error
    if len(text) > MOST_BYTES:
        raise InputError(f"{path}: is larger than {MOST_BYTES:,} bytes, so it is not a recipe. Check the name.")
    try:
        return tomllib.loads(text.decode())
    except RecursionError as error:
        raise InputError(f"{path}: the recipe has tables or lists nested too deeply to be read.") from error
    except ValueError as error:  # not TOML, not UTF-8, or a number with thousands of digits
        raise InputError(f"{path}: the recipe is not TOML: {error}.") from error


def _refuse_without_effect(content: Content, change: str) -> None:
    """Refuse to change a key that every stage sets for itself."""
    section, _, key = change.partition("=")[0].strip().partition(".")
    stages = content.get("stages")
    if (
        isinstance(stages, list)
        and stages
        and all(
            isinstance(stage, dict) and isinstance(stage.get(section), dict) and key in stage[section]
            for stage in stages
        )
    ):
        raise InputError(
            f"--set {change}: would change nothing, as each of the {len(stages)} stages has its own {section}.{key}; "
            "change the recipe, or all stages by --set 'stages=[…]'."
        )


def recipe_of(content: Content, name: str = "The recipe") -> Recipe:
    """The recipe of a dictionary.

    Raises:
        InputError: if a key, type or range is wrong; for an unknown key, the message suggests the nearest right one.
    """
    _refuse_extremes(content, name)
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError(f"{name}: {' '.join(_sentence(part) for part in error.errors())}") from error


def _refuse_extremes(content: object, name: str, place: tuple[str, ...] = ()) -> None:
    """Refuse what no key can hold, and what could not even be quoted in a message."""
    key = reprlib.repr(".".join(place))
    if isinstance(content, dict | list):
        if len(place) == DEEPEST:
            raise InputError(f"{name}: {key} has tables or lists nested deeper than {DEEPEST}; no key needs that.")
        parts = content.items() if isinstance(content, dict) else enumerate(content)
        for own, value in parts:
            if isinstance(own, str) and not (own.isprintable() and len(own) < LONGEST_KEY):
                raise InputError(f"{name}: there is no key {own[:LONGEST_KEY]!a}; keys are short words.")
            _refuse_extremes(value, name, (*place, str(own)))
    elif isinstance(content, str) and (len(content) > LONGEST_TEXT or _is_broken(content)):
        raise InputError(f"{name}: {key} is longer than {LONGEST_TEXT:,} characters, or not text; give less, as UTF-8.")
    elif isinstance(content, float) and not math.isfinite(content):
        raise InputError(f"{name}: {key} is {content}; it must be a finite number.")
    elif isinstance(content, int) and abs(content) > LARGEST_INTEGER:
        raise InputError(f"{name}: {key} is an integer of more than 64 bits; no key needs one.")


def _is_broken(text: str) -> bool:
    """Whether it holds half a character, as a command line that is not UTF-8 does."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


class Reader:
    """Reads the data sets of a run, each of them once."""

    def __init__(self) -> None:
        """Begin with none."""
        self._opened: dict[str, Dataset] = {}
        self._held: dict[tuple[str, tuple[str, ...] | None, str], Held] = {}

    def open(self, path: str) -> Dataset:
        """A data set, of which no image is read yet.

        Raises:
            InputError: if it cannot be read.
        """
        if path not in self._opened:
            self._opened[path] = open_dataset(path)
        return self._opened[path]

    def __call__(self, path: str, classes: tuple[str, ...] | None, overlap: str = "ignore") -> Held:
        """All images of a data set, or the objects of some of its classes.

        Args:
            path: of the data set.
            classes: the only ones to keep, in this order; None for all.
            overlap: who is in front where objects overlap, a rule of `attractor.datasets.in_front`.

        Raises:
            InputError: if the data set or one of its images cannot be read, or it has no such class or rule.
        """
        key = path, classes, overlap
        if key not in self._held:
            whole = self.open(path)
            self._held[key] = hold(drawn_by(whole if classes is None else with_classes(whole, classes), overlap))
        return self._held[key]


def recipe_for(
    dataset: str | Path, changes: Sequence[str] = (), *, start: str | None = None, read: Reader | None = None
) -> Recipe:
    """A recipe made for a data set: its objects and images decide crop size, margin, sampling and length.

    Args:
        dataset: folder or file of a data set.
        changes: keys to set, as in "training.epochs=2".
        start: name or file of a model to start from, whose method, channels and normalisation are kept.
        read: what reads the data set, and keeps it for the run.

    Raises:
        InputError: if the data cannot be learned from, or a key, type or range is wrong.
    """
    read = read or Reader()
    chosen: Content = {}
    for change in changes:
        _set(chosen, change)
    begun = None if start is None else read_description(find_model(start))
    method, classes = _method_and_classes(chosen, begun.method if begun else ModelSection().method)
    overlap = str(_given(chosen, "data", "overlap") or suggested_rule(read.open(str(dataset))))
    images = read(str(dataset), classes, overlap)
    statistics = images.statistics
    if not statistics.count:
        raise InputError(
            f"{dataset}: none of the {statistics.images} images has an object, so there is nothing to learn."
        )
    scale = _chosen_scale(chosen, begun.scale if begun else statistics.scale)
    statistics = statistics.scaled(scale)
    suggested = METHODS[method].suggestions(statistics)
    of_film = _of_film(method, images.is_film, chosen, begun)
    options = suggested.get("model", {}).get("options")
    options = (options if isinstance(options, dict) else {}) | of_film
    suggested["model"] = suggested.get("model", {}) | {"options": options}
    sections = _by_size(str(dataset), images, statistics, suggested)
    sections["data"]["overlap"] = overlap
    if _given(chosen, "training", "epochs") is None:
        sections["training"]["minutes"] = LONGEST_UNASKED
    sections["model"] |= {"method": method, "scale": scale, "network_options": _network_options(chosen)}
    if statistics.n_axes == 3:
        sections["model"] |= {"axes": 3, "spacing": None if statistics.spacing is None else list(statistics.spacing)}
    content: Mapping[str, object] = sections
    if begun is not None:
        content = _merged(content, _like(begun, str(start), method))
        if method == begun.method:  # what was learned depends on its options; few of them follow the new objects
            own = {name: options[name] for name in OF_DATA if name in options}
            suggested["model"] = {"options": own | of_film}
    return recipe_of(_merged(_merged(content, suggested), chosen), f"The recipe for {dataset}")


def _method_and_classes(chosen: Content, method: str) -> tuple[str, tuple[str, ...] | None]:
    """The method and the classes that the changes ask for; the rest of the recipe depends on them."""
    _refuse_extremes(chosen, "--set")
    name, classes = _given(chosen, "model", "method"), _given(chosen, "data", "classes")
    name = method if name is None else name
    if not isinstance(name, str) or name not in METHODS:
        raise InputError(f'There is no method "{str(name)[:50]}"; there are: {", ".join(METHODS)}.')
    if classes is not None and not (isinstance(classes, list) and all(isinstance(name, str) for name in classes)):
        raise InputError(f"data.classes is {reprlib.repr(classes)}; it is a list of names.")
    return name, None if classes is None else tuple(classes)


def _chosen_scale(chosen: Content, suggested: float) -> float:
    """The scale that the changes ask for, if it is possible, else this one."""
    scale = _given(chosen, "model", "scale")
    return float(scale) if isinstance(scale, int | float) and 0.01 <= scale <= 100 else suggested


def _given(chosen: Content, section: str, key: str) -> object:
    """The value that the changes give a key; None if they do not."""
    content = chosen.get(section)
    return content.get(key) if isinstance(content, dict) else None


def _by_size(dataset: str, images: Held, statistics: ObjectStatistics, suggested: Suggestions) -> Suggestions:
    """Keys of a recipe that depend on the size and number of images and objects, at the scale of the model."""
    crop = suggested.get("training", {}).get("crop_size")
    crop = crop if isinstance(crop, int) else statistics.crop_size
    depth = statistics.crop_depth
    batch = int(min(16, max(2, PIXELS_OF_BATCH[statistics.n_axes] // (crop**2 * max(depth, 1)))))
    crops = int(
        np.clip(20 * statistics.count, 4000, 60_000)
    )  # a crop shows several objects, and each object is shown often
    epochs = max(10, min(40, crops // 400))
    coverage = statistics.areas.sum() / statistics.image_sizes.prod(1).sum()
    return {
        "data": {"train": dataset, "validation": _validation_share(images)},
        "model": {"channels": max(images.channels)},  # grey ones are repeated
        "training": {
            "crop_size": crop,
            **({"crop_depth": depth} if depth else {}),
            "batch_size": batch,
            "epochs": epochs,
            "crops_per_epoch": -(-crops // epochs // batch) * batch,
            "around_objects": 0.8 if coverage > 0.05 else 0.95,
            "balance": _groups(images),
            "patience": max(5, epochs // 3),
        },
    }


def _validation_share(images: Held) -> float:
    """A tenth of many images, and a fifth of few; of volumes, of which there are fewest, enough to tune thresholds."""
    share = 0.1 if len(images) >= FEW_IMAGES else 0.2
    if images.statistics.n_axes == 3:
        share = float(np.clip(round(ENOUGH_OBJECTS / images.statistics.count, 2), share, 0.3))
    return share


def _of_film(method: str, is_film: bool, chosen: Content, begun: Description | None) -> Content:
    """Options that change where a model goes from pictures to films, or from films to pictures."""
    kind = METHODS[method]
    if not isinstance(kind, Follows) or is_film == bool(begun and begun.options.get("follows")):
        return {}
    name = _given(chosen, "model", "network") or (begun.network if begun else ModelSection().network)
    joins = isinstance(NETWORKS.get(str(name)), JoinsFrames)
    return (dict(kind.film_options) if is_film else {}) | ({"follows": is_film} if joins else {})


def _network_options(chosen: Content) -> Content:
    """Options that suit the network that the changes ask for."""
    name = _given(chosen, "model", "network")
    network = NETWORKS.get(ModelSection().network if name is None else str(name))
    return dict(network.suggestions()) if isinstance(network, SuggestsOptions) else {}


def _like(begun: Description, start: str, method: str) -> Content:
    """Keys of a recipe that continues from a model, by its own method or by another."""
    model: Content = {
        "start": start,
        "network": begun.network,
        "channels": begun.channels,
        "axes": begun.axes,
        "spacing": None if begun.spacing is None else list(begun.spacing),
        "scale": begun.scale,
        "normalisation": dataclasses.asdict(begun.normalisation),
        "network_options": begun.network_options,
    }
    if method == begun.method:
        model["options"] = begun.options
    return {"model": model, "training": {"learning_rate": 5e-4}}


def _merged(first: Mapping[str, object], given: Mapping[str, object]) -> Content:
    """Two parts of a recipe merged; where both have a key, the second one's value counts."""
    result = {**first, **given}
    for key in first.keys() & given.keys():
        before, after = first[key], given[key]
        if isinstance(before, dict) and isinstance(after, dict):
            result[key] = _merged(before, after)
    return result


def _groups(dataset: Dataset) -> str:
    """The first column of images.csv that sorts the images into a few groups, or ""."""
    for column, values in dataset.columns.items():
        if 2 <= len(set(values.values())) <= min(10, len(dataset) // 10):
            return column
    return ""


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe as TOML; reading it gives the same recipe."""
    with atomic(path) as temporary:
        temporary.write_text(tomli_w.dumps(_without_none(recipe.model_dump(mode="json"))), encoding="utf-8", newline="")


def _without_none(content: Content) -> Content:
    """The keys that have a value; TOML has no word for None."""
    return {
        key: _without_none(value) if isinstance(value, dict) else value
        for key, value in content.items()
        if value is not None
    }


def _set(content: Content, change: str) -> None:
    """Change one key, as in "training.epochs=2"; the value is read as TOML if possible, else as text."""
    key, equals, text = change.partition("=")
    if not equals:
        raise InputError(f'--set {change}: write it as key=value, for example "--set training.epochs=2".')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except RecursionError as error:
        raise InputError(f"--set {key}=…: has lists or tables nested too deeply to be read.") from error
    except ValueError:  # not TOML, or a number with thousands of digits
        value = {"True": True, "False": False}.get(text, text)
    *sections, last = key.strip().split(".")
    for section in sections:
        below = content.setdefault(section, {})
        if not isinstance(below, dict):
            raise InputError(f"--set {change}: {section} is a value and has no keys below it.")
        content = below
    content[last] = value


def _sentence(error: ErrorDetails) -> str:
    """One validation error in words."""
    if error["type"] == "value_error":  # our own, which names its key
        message = "".join(c if c.isprintable() else "?" for c in error["msg"].removeprefix("Value error, "))
        return message if len(message) <= LONGEST_MESSAGE else f"{message[:LONGEST_MESSAGE]}…"
    place = [
        str(part) for part in error["loc"] if part not in ("float", "str") and not str(part).startswith("function-")
    ]
    key = ".".join(place)
    if error["type"] in ("extra_forbidden", "unexpected_keyword_argument"):
        known = _keys(place[:-1])
        near = difflib.get_close_matches(place[-1], known, 1, 0.0)
        return f'There is no key "{key}"; did you mean "{".".join([*place[:-1], *near])}"?'
    if error["type"] == "missing":
        return f'The key "{key}" is missing; add it to the recipe, or give it by --set {key}=…'
    return f'"{key}" is {reprlib.repr(error["input"])}: {error["msg"][0].lower()}{error["msg"][1:]}.'


def _keys(place: Sequence[str]) -> list[str]:
    """Names of the keys in a section."""
    kind: object = Recipe
    for part in place:
        kind = Stage if part.isdigit() else _kinds_of_keys(kind).get(part)
    return list(_kinds_of_keys(kind))


def _kinds_of_keys(section: object) -> dict[str, object]:
    """The keys in a section and what each of them is; none in what is no section."""
    if isinstance(section, type) and issubclass(section, BaseModel):
        return {name: field.annotation for name, field in section.model_fields.items()}
    if isinstance(section, type) and dataclasses.is_dataclass(section):
        return {field.name: field.type for field in dataclasses.fields(section)}
    return {}
