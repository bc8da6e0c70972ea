"""A training run as data: a strict TOML file, whose keys are the arguments of the floors below.

Sections: `data` (which images), `model` (method, network, normalisation), `training` and `augmentation`. An
unknown key is refused with the nearest right one.
"""

from __future__ import annotations

import dataclasses
import difflib
import logging
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pydantic
import torch
from pydantic import BaseModel, ConfigDict, Field

from attractor.augmentation import Augmentation
from attractor.datasets import Crops, Dataset, open_dataset, split
from attractor.datasets.checking import ObjectStatistics, object_statistics
from attractor.datasets.classes import WithClasses, with_classes
from attractor.errors import InputError
from attractor.images import atomic
from attractor.methods import METHODS
from attractor.model import Description, Model, find_model, read_description
from attractor.networks.resnet import ResNet, load_weights
from attractor.normalisation import Normalisation
from attractor.training import Settings, train

logger = logging.getLogger(__name__)

_STRICT = ConfigDict(extra="forbid")

# The same arguments as the floors below take, checked key by key.
NormalisationSection: Any = pydantic.dataclasses.dataclass(Normalisation, config=_STRICT, frozen=True)
TrainingSection: Any = pydantic.dataclasses.dataclass(Settings, config=_STRICT, frozen=True)
AugmentationSection: Any = pydantic.dataclasses.dataclass(Augmentation, config=_STRICT, frozen=True)


class Data(BaseModel):
    """Which images to learn from, and which to validate on."""

    model_config = _STRICT

    train: str  # a data set
    classes: list[str] | None = None  # the only ones to learn, in this order; objects of others are background
    validation: float | str = 0.1  # a share of the training images, or another data set
    split_by: str | None = None  # a column of images.csv each of whose values is split in that share
    split_seed: int = 0
    crop: int | None = None  # validate on crops of this side, for methods that hold only so many objects
    max_objects: int | None = None  # and only on those with no more than these; by default what the method holds


class ModelSection(BaseModel):
    """What to train."""

    model_config = _STRICT

    method: str = "spatial-embeddings"
    network: str = "erfnet"
    channels: int = Field(default=3, ge=1)
    classes: list[str] | None = None  # names, in the order of the data's classes; by default those of the data
    start: str | None = None  # name or file of a model whose weights to begin with
    encoder_weights: str | None = None  # file of ImageNet weights, as torchvision names them, for a ResNet encoder
    about: str = ""  # a sentence on data and licence, kept in the model file
    normalisation: NormalisationSection = Field(default_factory=NormalisationSection)
    options: dict[str, Any] = {}  # arguments of the method
    network_options: dict[str, Any] = {}  # arguments of the network


class Stage(BaseModel):
    """What one stage of a run changes in two of its sections; it begins with the weights that the one before found."""

    model_config = _STRICT

    training: dict[str, Any] = {}
    augmentation: dict[str, Any] = {}


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
        """Refuse a wrong key or value of a stage before the first one has trained."""
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
    try:
        content = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: the recipe cannot be read: {error.strerror}. Check the name.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: the recipe is not TOML: {error}.") from error
    for change in changes:
        _set(content, change)
        _refuse_without_effect(content, change)
    return recipe_of(content, str(path))


def _refuse_without_effect(content: dict[str, Any], change: str) -> None:
    """Refuse a change of what every stage says for itself."""
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


def recipe_of(content: dict[str, Any], name: str = "The recipe") -> Recipe:
    """The recipe of a dictionary.

    Raises:
        InputError: if a key, type or range is wrong; an unknown key is answered with the nearest right one.
    """
    try:
        return Recipe.model_validate(content)
    except pydantic.ValidationError as error:
        raise InputError(f"{name}: {' '.join(_sentence(part) for part in error.errors())}") from error


def recipe_for(dataset: str | Path, changes: Sequence[str] = (), *, start: str | None = None) -> Recipe:
    """A recipe made for a data set: what its objects and images say of crop, margin, sampling and length.

    Args:
        dataset: folder or file of a data set.
        changes: keys to set, as in "training.epochs=2".
        start: name or file of a model to begin with, whose method, channels and normalisation are kept.
    """
    chosen: dict[str, Any] = {}
    for change in changes:
        _set(chosen, change)
    data = chosen.get("data")
    classes = data.get("classes") if isinstance(data, dict) else None
    opened = _opened(str(dataset), classes if isinstance(classes, list) else None)
    statistics = object_statistics(opened)
    if not statistics.count:
        raise InputError(
            f"{dataset}: none of the {statistics.images} images has an object, so there is nothing to learn."
        )
    begun = None if start is None else read_description(find_model(start))
    section = chosen.get("model", {})
    method = begun.method if begun else ModelSection().method
    if isinstance(section, dict):  # else the recipe will say what is wrong with it
        method = section.get("method", method)
    suggested = _suggested(method, statistics)
    crop = suggested.get("training", {}).get("crop_size", statistics.crop_size)
    batch = int(min(16, max(2, 8 * 256**2 // crop**2)))
    crops = int(np.clip(20 * statistics.count, 4000, 60_000))  # a crop shows several objects, and each often
    epochs = max(10, min(40, crops // 400))
    coverage = statistics.areas.sum() / statistics.image_sizes.prod(1).sum()
    content: dict[str, Any] = {
        "data": {"train": str(dataset), "validation": 0.1 if len(opened) >= 50 else 0.2},
        "model": {"method": method, "channels": _channels(opened), "network_options": {"dropout": 0.1}},
        "training": {
            "crop_size": crop,
            "batch_size": batch,
            "epochs": epochs,
            "crops_per_epoch": -(-crops // epochs // batch) * batch,
            "around_objects": 0.8 if coverage > 0.05 else 0.95,
            "balance": _groups(opened),
            "patience": max(5, epochs // 3),
        },
    }
    if begun is not None:
        content = _merged(content, _like(begun, str(start), method))
        if method == begun.method:  # what was learned needs its options; only sizes are those of the new objects
            suggested["model"] = {"options": {"min_size": suggested["model"]["options"]["min_size"]}}
    content = _merged(_merged(content, suggested), chosen)
    return recipe_of(content, f"The recipe for {dataset}")


def _suggested(method: str, statistics: ObjectStatistics) -> dict[str, dict[str, Any]]:
    """Keys of a recipe that a method would have for such data."""
    if method not in METHODS:
        raise InputError(f'There is no method "{method}"; there are: {", ".join(METHODS)}.')
    suggested: dict[str, dict[str, Any]] = METHODS[method].suggestions(statistics)
    return suggested


def _like(begun: Description, start: str, method: str) -> dict[str, Any]:
    """Keys of a recipe that goes on from a model, with another method than its own or the same."""
    model: dict[str, Any] = {
        "start": start,
        "network": begun.network,
        "channels": begun.channels,
        "normalisation": dataclasses.asdict(begun.normalisation),
        "network_options": begun.network_options,
    }
    if method == begun.method:
        model["options"] = begun.options
    return {"model": model, "training": {"learning_rate": 5e-4}}


def _merged(first: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Two parts of a recipe in one; where both have a key, as given in the second."""
    result = first | given
    for key in first.keys() & given.keys():
        if isinstance(first[key], dict) and isinstance(given[key], dict):
            result[key] = _merged(first[key], given[key])
    return result


def _channels(dataset: Dataset) -> int:
    """Channels of the images; grey ones among coloured ones are repeated."""
    found = {dataset[i].image.shape[-1] for i in range(0, len(dataset), max(1, len(dataset) // 20))}
    return max(found)


def _groups(dataset: Dataset) -> str:
    """The first column of images.csv that sorts the images into a few groups, or ""."""
    for column, values in dataset.columns.items():
        if 2 <= len(set(values.values())) <= min(10, len(dataset) // 10):
            return column
    return ""


def run(recipe: Recipe, out: str | Path, *, resume: bool = False, device: str = "auto") -> Model:
    """Train by a recipe; the folder gets the recipe used, the checkpoints and the model.

    A recipe in stages has a folder below `out` for each; the model of the last one is the run's.

    Args:
        recipe: what to do.
        out: folder for everything that is written.
        resume: go on from the last checkpoint in `out`; stages that were finished are kept.
        device: as `attractor.prediction.image.choose_device` has it.
    """
    if recipe.stages:
        return _run_stages(recipe, Path(out), resume=resume, device=device)
    dataset = _opened(recipe.data.train, recipe.data.classes)
    training, validation = _parts(recipe, dataset)
    _check_names(recipe.model.classes, dataset.class_names, "model.classes")
    description = Description(
        method=recipe.model.method,
        network=recipe.model.network,
        channels=recipe.model.channels,
        class_names=tuple(recipe.model.classes or dataset.class_names),
        normalisation=Normalisation(**dataclasses.asdict(recipe.model.normalisation)),
        options=recipe.model.options,
        network_options=recipe.model.network_options,
        object_size=round(object_statistics(training).typical_size, 1),
        recipe=recipe.model_dump(mode="json"),
        about=recipe.model.about,
    )
    torch.manual_seed(recipe.training.seed)
    model = Model(description)
    validation = _crops(validation, recipe.data, model.method.max_instances)
    if recipe.model.encoder_weights is not None:
        _load_encoder(model, recipe.model.encoder_weights)
    if recipe.model.start is not None:
        _begin_with(model, Model.load(recipe.model.start))
    out = Path(out)
    _make_folder(out, recipe, resume)
    write_recipe(out / "recipe.toml", recipe)
    settings = Settings(**dataclasses.asdict(recipe.training))
    augmentation = Augmentation(**dataclasses.asdict(recipe.augmentation))
    return train(
        model, training, validation, out=out, settings=settings, augmentation=augmentation, resume=resume, device=device
    )


def _run_stages(recipe: Recipe, out: Path, *, resume: bool, device: str) -> Model:
    """Train one stage after another."""
    _parts(recipe, _opened(recipe.data.train, recipe.data.classes))  # an error in the data leaves no trace
    _make_folder(out, recipe, resume, begun=out / "recipe.toml")
    write_recipe(out / "recipe.toml", recipe)
    start = recipe.model.start
    for number in range(1, len(recipe.stages) + 1):
        folder = out / f"stage_{number}"
        own = recipe.stage(number)
        own = own.model_copy(update={"model": own.model.model_copy(update={"start": start})})
        start = str(folder / "model.safetensors")
        if resume and Path(start).exists():
            continue
        logger.warning("Stage %d of %d: %s", number, len(recipe.stages), folder)
        run(own, folder, resume=resume and (folder / "last.ckpt").exists(), device=device)
    model = Model.load(str(start))
    model.save(out / "model.safetensors", scores=model.description.scores)
    return model


def _opened(path: str, classes: list[str] | None) -> Dataset:
    """A data set, or those of its classes that are to be learned."""
    dataset = open_dataset(path)
    return dataset if classes is None else with_classes(dataset, classes)


def _parts(recipe: Recipe, dataset: Dataset) -> tuple[Dataset, Dataset]:
    if isinstance(recipe.data.validation, str):
        if recipe.data.split_by is not None:
            raise InputError("data.split_by says how to split data.train, but data.validation names its own images.")
        return dataset, _matched(open_dataset(recipe.data.validation), dataset.class_names, recipe.data.classes)
    return split(dataset, recipe.data.validation, recipe.data.split_seed, recipe.data.split_by)


def _matched(validation: Dataset, names: tuple[str, ...], chosen: list[str] | None) -> Dataset:
    """The images to validate on with the training data's classes, by name; single classes are the same by any name."""
    own = validation.class_names
    if own == names or len(own) == len(names) == 1:
        return validation
    if not set(own) & set(names):
        raise InputError(
            f"data.validation has the classes {', '.join(own)}, and the training data {', '.join(names)}: none is in "
            "both; give them the same names."
        )
    unknown = [name for name in own if name not in names]
    if unknown and chosen is None:
        raise InputError(
            f"data.validation has the classes {', '.join(unknown)}, which the training data has not (it has "
            f"{', '.join(names)}); give both the same names, or choose some by data.classes."
        )
    return WithClasses(validation, names, [names.index(name) + 1 if name in names else 0 for name in own])


def _crops(validation: Dataset, data: Data, most: int | None) -> Dataset:
    """The images to validate on, or their crops; by default those that the method can hold."""
    if data.crop is None:
        if data.max_objects is not None:
            raise InputError("data.max_objects says which crops to leave out; give their size, too: data.crop.")
        return validation
    crops = Crops(validation, data.crop, max_objects=data.max_objects or most)
    logger.warning("Validation is on crops: %s", crops.in_words())
    return crops


def _check_names(names: list[str] | None, of_data: tuple[str, ...], key: str) -> None:
    """A model's classes are told apart by number, so several names must come in the order of the data."""
    if names is not None and tuple(names) != of_data and (len(of_data) > 1 or len(names) > 1):
        raise InputError(
            f"{key} has the classes {', '.join(names)}, the training data {', '.join(of_data)}; they must be the same, "
            "in this order."
        )


def _make_folder(out: Path, recipe: Recipe, resume: bool, begun: Path | None = None) -> None:
    begun = begun or out / "last.ckpt"
    if not resume and begun.exists():
        raise InputError(f"{out}: a training was begun here; add --resume to go on with it, or give another --out.")
    if resume:
        if not begun.exists():
            raise InputError(f"{out}: there is nothing to resume; start the training without --resume.")
        if changed := _differences(read_recipe(out / "recipe.toml"), recipe):
            raise InputError(
                f"{out}: this training was begun with another recipe ({', '.join(changed)} differ); resume with the "
                f"same command, or with {out / 'recipe.toml'}; or give another --out to begin a new one."
            )
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: the folder cannot be made: {error.strerror}.") from error


def _differences(old: Recipe, new: Recipe) -> list[str]:
    """Keys whose values differ."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    stages = ["stages"] if before.pop("stages") != after.pop("stages") else []
    for content in (before, after):  # a stage begins with the one before, wherever their folder is
        start = Path(content["model"]["start"] or "").parts[-2:]
        if start and start[0].startswith("stage_"):
            content["model"]["start"] = "/".join(start)
    return [f"{s}.{key}" for s in after for key in after[s] if before[s].get(key) != after[s][key]] + stages


def _load_encoder(model: Model, path: str) -> None:
    encoder = getattr(model.method.network, "encoder", None)
    if not isinstance(encoder, ResNet):
        raise InputError(
            f'model.encoder_weights = "{path}" is for a ResNet, which the network {model.description.network} does not '
            'have; use model.network = "unet", or leave it out.'
        )
    load_weights(encoder, path, model.description.channels)


def _begin_with(model: Model, start: Model) -> None:
    """Take over every weight whose name and shape agree; the rest begins anew, and the log says which."""
    own, given = model.method.state_dict(), start.method.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InputError(
            f"The model to start from is {start.description.method} on {start.description.network} and shares no "
            f"weight with {model.description.method} on {model.description.network}; train the same method and network."
        )
    if anew := sorted({name.rsplit(".", 1)[0] for name in own if name not in fitting}):
        logger.warning(
            "Layers that the model to start from has in another shape, or not, begin anew: %s", ", ".join(anew)
        )
    model.method.load_state_dict(own | fitting)


def write_recipe(path: Path, recipe: Recipe) -> None:
    """Write a recipe as TOML; reading it gives the same recipe."""
    lines: list[str] = []
    content = recipe.model_dump(mode="json")
    stages = content.pop("stages")
    for title, values in [
        *((f"[{section}]", content[section]) for section in content),
        *(("[[stages]]", s) for s in stages),
    ]:
        lines.append(title)
        lines += [f"{key} = {_toml(value)}" for key, value in values.items() if value is not None]
        lines.append("")
    with atomic(path) as temporary:
        temporary.write_text("\n".join(lines), encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_toml(part) for part in value) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(part)}" for key, part in value.items() if part is not None) + " }"
    return repr(value)


def _set(content: dict[str, Any], change: str) -> None:
    """Change one key, as in "training.epochs=2"; the value is read as TOML, or else as text."""
    key, equals, text = change.partition("=")
    if not equals:
        raise InputError(f'--set {change}: write it as key=value, for example "--set training.epochs=2".')
    try:
        value = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        value = {"True": True, "False": False}.get(text, text)
    *sections, last = key.strip().split(".")
    for section in sections:
        content = content.setdefault(section, {})
        if not isinstance(content, dict):
            raise InputError(f"--set {change}: {section} is a value and has no keys below it.")
    content[last] = value


def _sentence(error: Any) -> str:
    """One validation error in words."""
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
    message = error["msg"].removeprefix("Value error, ")
    return (
        f'"{key}" is {error["input"]!r}: {message[0].lower()}{message[1:]}.'
        if key and "training." not in message
        else message
    )


def _keys(place: Sequence[str]) -> list[str]:
    """Names of the keys in a section."""
    kind: Any = Recipe
    for part in place:
        if part.isdigit():
            kind = Stage
            continue
        kind = kind.model_fields[part].annotation if part in getattr(kind, "model_fields", {}) else Any
    if hasattr(kind, "model_fields"):
        return list(kind.model_fields)
    return [field.name for field in dataclasses.fields(kind)] if dataclasses.is_dataclass(kind) else []
