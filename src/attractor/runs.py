"""A training run: from a recipe, or a data set alone, to a model in a folder.

The folder gets the recipe that was used, the checkpoints and the model; a run that fails before it has learned anything
leaves no folder behind.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import json
import logging
import shutil
import statistics
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch

from attractor import likeness
from attractor.augmentation import Augmentation
from attractor.datasets.held import Held
from attractor.description import Description, Values, find_model
from attractor.division import crops_of, folds_of, parts_of
from attractor.errors import InputError
from attractor.model import Model
from attractor.networks import TakesPretrainedEncoder
from attractor.normalisation import Normalisation
from attractor.prediction.image import Segmenter
from attractor.recipe import Reader, Recipe, read_recipe, recipe_for, write_recipe
from attractor.settings import RANGES, Settings
from attractor.wording import duration, install, share

MOST_LOOKED_AT = 200  # images whose traits a model remembers
MOST_MINUTES = int(RANGES["minutes"][1])

logger = logging.getLogger(__name__)


def train(
    data: str | Path | None = None,
    *,
    recipe: str | Path | None = None,
    minutes: float | None = None,
    start: str | None = None,
    folds: int = 0,
    out: str | Path | None = None,
    changes: Sequence[str] = (),
    resume: bool = False,
    device: str = "auto",
    devices: str | int = 1,
    nodes: int = 1,
) -> Segmenter:
    """Train a model on annotated images; it is kept in a folder, and comes back ready to segment.

    Args:
        data: a data set, in any layout that `attractor.read` knows.
        recipe: file of a recipe to train by; by default one is made to suit the data. If `data` is given, too, it
            replaces the recipe's own images.
        minutes: how long to train, whatever the epochs of the recipe: the schedule is fitted to it, and validation and
            the tuning of the result are included. Time spent reading the images beforehand does not count.
        start: name or file of a model whose weights to start from.
        folds: parts of the images that are validated on in turn, each by a model that was trained on the others: the
            score is then the mean over all images, and the model that comes back was trained on all of them. The time
            is divided among these trainings. 0 for a single part to validate on.
        out: folder for everything that is written; by default `runs/NAME`, named after the data or the recipe.
        changes: keys of the recipe to change, as in "training.epochs=2".
        resume: continue the training in that folder.
        device: "cpu", "cuda", "mps", or "auto" for the first of CUDA, MPS and CPU that is there.
        devices: how many of them share each batch, or "auto" for all GPUs. A script that asks for several must do its
            work under `if __name__ == "__main__":`, since each further process imports it.
        nodes: machines with as many devices each; torchrun or SLURM starts the same call once for each device.

    Raises:
        InputError: if the data cannot be learned from, or an argument or a key is impossible.

    Examples:
        A few steps on two drawings of discs; for real images, `attractor.train("my_images")` is all it takes.

        >>> import tempfile, numpy as np, attractor
        >>> from attractor.datasets import Sample
        >>> from attractor.datasets.label_images import write_label_images
        >>> folder = tempfile.TemporaryDirectory()
        >>> rows, columns = np.mgrid[:32, :32]
        >>> labels = ((rows - 9) ** 2 + (columns - 9) ** 2 < 30) + 2 * ((rows - 22) ** 2 + (columns - 20) ** 2 < 30)
        >>> image = (200 * (labels > 0)).astype(np.uint8)[..., None]
        >>> drawn = image, labels.astype(np.int32), np.array([1, 1]), np.zeros((32, 32), bool)
        >>> write_label_images(folder.name + "/discs", [Sample(name, *drawn) for name in "ab"])
        >>> quick = ["training.epochs=1", "training.crops_per_epoch=2", "training.batch_size=2", "training.workers=0"]
        >>> segmenter = attractor.train(
        ...     folder.name + "/discs", out=folder.name + "/run", changes=[*quick, "training.crop_size=32"]
        ... )
        >>> segmenter.segment(image).labels.shape
        (32, 32)
        >>> folder.cleanup()
    """
    _check_installed()
    if start is not None:
        find_model(start)
    source = recipe if recipe is not None else data
    if source is None:
        raise InputError("Give the images to learn from, or a recipe that names them.")
    own = [] if minutes is None else _timed(minutes, changes)
    own += [f"data.folds={folds}"] if folds else []
    read = Reader()
    if recipe is None:
        wanted = recipe_for(source, [*changes, *own], start=start, read=read)
    else:
        own += [] if start is None else [f"model.start={json.dumps(start)}"]
        own += [] if data is None else [f"data.train={json.dumps(str(data))}"]
        wanted = read_recipe(recipe, [*changes, *own])
    if minutes is not None and wanted.stages:
        raise InputError(f"{source}: has stages, each with its own time limit: set training.minutes in each of them.")
    folder = default_folder(source) if out is None else out
    trained = run(wanted, folder, resume=resume, device=device, devices=devices, nodes=nodes, read=read)
    return Segmenter(trained, device=device)


@dataclass(frozen=True)
class Together:
    """What trains a model: devices of a kind, on as many machines."""

    device: str  # a name that `attractor.prediction.image.choose_device` takes
    devices: str | int  # on each machine
    nodes: int

    def check(self, recipe: Recipe) -> None:
        """Refuse several devices for trainings that follow each other.

        Raises:
            InputError: if the recipe asks for such.
        """
        if (self.devices != 1 or self.nodes != 1) and (recipe.data.folds or recipe.stages):
            raise InputError("Folds and stages are trained one after another, on one device; leave --devices out.")


def _timed(minutes: float, changes: Sequence[str]) -> list[str]:
    """Keys of a recipe by which time alone decides, except for those that are changed by hand."""
    if not 0 < minutes <= MOST_MINUTES:
        raise InputError(f"minutes is {minutes:g}; it must be above 0 and at most {MOST_MINUTES:,}.")
    changed = {change.partition("=")[0].strip() for change in changes}
    keys = {"training.minutes": float(minutes), "training.epochs": 0, "training.patience": 0}
    return [f"{key}={value}" for key, value in keys.items() if key not in changed]


def _check_installed() -> None:
    """Refuse to begin if a package that training needs is missing."""
    missing = [name for name in ("lightning", "tensorboard") if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(f"Training needs {' and '.join(missing)}, not installed here. {install('train')}")


def default_folder(source: str | Path) -> Path:
    """The folder for a training if none is given: named after its data set or its recipe."""
    return Path("runs") / Path(source).resolve().stem


def run(
    recipe: Recipe,
    out: str | Path,
    *,
    resume: bool = False,
    device: str = "auto",
    devices: str | int = 1,
    nodes: int = 1,
    read: Reader | None = None,
) -> Model:
    """Train by a recipe; the folder gets the recipe used, the checkpoints and the model.

    For a recipe in stages, each stage has a folder below `out`; the model of the last one is the run's result.

    Args:
        recipe: what to do.
        out: folder for everything that is written.
        resume: continue from the last checkpoint in `out`; stages that were finished are kept.
        device: a name that `attractor.prediction.image.choose_device` takes.
        devices: how many of them share each batch, on each machine.
        nodes: machines.
        read: what reads the data sets.

    Raises:
        InputError: if the recipe, its data or the folder cannot be used, or there is nothing to resume.
    """
    out, read, together = Path(out), read or Reader(), Together(device, devices, nodes)
    together.check(recipe)
    _check_folder(out, recipe, resume)
    with _nothing_left_of_a_false_start(out):
        if recipe.data.folds:
            return _run_folds(recipe, out, resume=resume, together=together, read=read)
        if recipe.stages:
            return _run_stages(recipe, out, resume=resume, together=together, read=read)
        return _run_one(recipe, out, resume=resume, together=together, read=read)


def _run_one(recipe: Recipe, out: Path, *, resume: bool, together: Together, read: Reader) -> Model:
    """Train by a recipe without stages; nothing is written until all data have been read."""
    return _trained(recipe, out, *parts_of(recipe, read), resume=resume, together=together)


def _trained(recipe: Recipe, out: Path, training: Held, validation: Held, *, resume: bool, together: Together) -> Model:
    """Train on these images in a folder."""
    from attractor.training.loop import (
        train as fit,
    )  # imports Lightning, which takes three seconds and is not always installed

    model = _new_model(recipe, training)
    _make_folder(out)
    write_recipe(out / "recipe.toml", recipe)
    return fit(
        model,
        training,
        crops_of(validation, recipe.data, model.method.max_instances),
        out=out,
        settings=Settings(**dataclasses.asdict(recipe.training)),
        augmentation=Augmentation(**dataclasses.asdict(recipe.augmentation)),
        resume=resume,
        **dataclasses.asdict(together),
    )


def _run_folds(recipe: Recipe, out: Path, *, resume: bool, together: Together, read: Reader) -> Model:
    """Train once without each part of the images, and once on all of them; each training has a folder below `out`.

    The model that was trained on all images gets the thresholds that are the medians over the folds.
    """
    data = recipe.data
    if recipe.stages:
        raise InputError("data.folds and stages cannot be combined; leave out one of them.")
    images, parts = folds_of(data, read)
    _make_folder(out)
    write_recipe(out / "recipe.toml", recipe)
    names = [*(f"fold_{number}" for number in range(1, data.folds + 1)), "all_images"]
    training = dataclasses.replace(recipe.training, minutes=recipe.training.minutes / len(names))
    _say_together([training.minutes for name in names if _is_left(out / name, resume)])
    own = recipe.model_copy(update={"training": training, "data": data.model_copy(update={"folds": 0})})

    def trained(name: str, without: Sequence[int], validation: Sequence[int]) -> Model:
        folder = out / name
        if not _is_left(folder, resume):
            return Model.load(folder)
        logger.warning("%s: %s", name.replace("_", " ").capitalize(), folder)
        left = images.part([index for index in range(len(images)) if index not in set(without)])
        again = resume and (folder / "last.ckpt").exists()
        return _trained(own, folder, left, images.part(validation), resume=again, together=together)

    models = [trained(f"fold_{number}", part, part) for number, part in enumerate(parts, 1)]
    final = trained("all_images", [], parts[0])  # which only says that it has not gone wrong: it was trained on them
    for name, value in final.method.thresholds.items():
        median = statistics.median(model.method.thresholds[name] for model in models)
        final.method.thresholds[name] = type(value)(median)
    final.save(out / "model.safetensors", scores={"validation": _over_folds(models)})
    return Model.load(out)


def _is_left(folder: Path, resume: bool) -> bool:
    """Whether a part of a training in several has still to be trained."""
    return not (resume and (folder / "model.safetensors").exists())


def _say_together(limits: Sequence[float]) -> None:
    """How many trainings follow, and how long they take in all if each has a limit, in minutes."""
    if len(limits) > 1:
        limit = f"; together they take {duration(60 * sum(limits))} at most" if all(limits) else ""
        logger.warning("%d trainings follow, one after the other%s. Each says how long it takes.", len(limits), limit)


def _over_folds(models: Sequence[Model]) -> Values:
    """The mean of each score over the folds, and its standard deviation."""
    first = models[0].description.scores["validation"]
    assert isinstance(first, dict)
    values = {name: [model.description.score("validation", name) or 0.0 for model in models] for name in first}
    means: Values = {name: statistics.mean(each) for name, each in values.items()}
    logger.warning(
        "Over %d folds the mean AP is %s, with a standard deviation of %s.",
        *(len(models), share(statistics.mean(values["mean"])), share(statistics.stdev(values["mean"]))),
    )
    return means | {f"{name} deviation": statistics.stdev(each) for name, each in values.items()}


def _run_stages(recipe: Recipe, out: Path, *, resume: bool, together: Together, read: Reader) -> Model:
    """Train one stage after another."""
    parts_of(recipe, read)  # an error in the data leaves no trace
    _make_folder(out)
    write_recipe(out / "recipe.toml", recipe)
    numbers = range(1, len(recipe.stages) + 1)
    left = [number for number in numbers if _is_left(out / f"stage_{number}", resume)]
    _say_together([recipe.stage(number).training.minutes for number in left])
    start = recipe.model.start
    for number in numbers:
        folder = out / f"stage_{number}"
        own = recipe.stage(number)
        own = own.model_copy(update={"model": own.model.model_copy(update={"start": start})})
        start = str(folder / "model.safetensors")
        if number not in left:
            continue
        logger.warning("Stage %d of %d: %s", number, len(recipe.stages), folder)
        again = resume and (folder / "last.ckpt").exists()
        run(own, folder, resume=again, read=read, **dataclasses.asdict(together))
    model = Model.load(str(start))
    model.save(out / "model.safetensors", scores=model.description.scores)
    return model


def _new_model(recipe: Recipe, training: Held) -> Model:
    """The model that a recipe describes, with the weights it starts from."""
    section = recipe.model
    _check_names(section.classes, training.class_names, "model.classes")
    normalisation = Normalisation(**dataclasses.asdict(section.normalisation))
    description = Description(
        method=section.method,
        network=section.network,
        channels=section.channels,
        class_names=tuple(section.classes or training.class_names),
        normalisation=normalisation,
        options=section.options,
        network_options=section.network_options,
        object_size=round(training.statistics.typical_size, 1),
        scale=section.scale,
        axes=section.axes,
        spacing=None if section.spacing is None else tuple(section.spacing),
        seen=_seen(training, normalisation),
        upright=recipe.augmentation.upright,
        recipe=recipe.model_dump(mode="json"),
        about=section.about,
    )
    torch.manual_seed(recipe.training.seed)
    model = Model(description)
    if section.encoder_weights is not None:
        _load_encoder(model, section.encoder_weights)
    if section.start is not None:
        _begin_with(model, Model.load(section.start))
    return model


def _seen(training: Held, normalisation: Normalisation) -> likeness.Ranges:
    """The ranges of the traits of the training images; of many, some that are spread evenly."""
    some = (training[index] for index in range(0, len(training), -(-len(training) // MOST_LOOKED_AT)))
    return likeness.ranges(likeness.traits(sample.image, sample.labels, normalisation) for sample in some)


def _check_names(names: list[str] | None, of_data: tuple[str, ...], key: str) -> None:
    """Check names of classes: a model tells classes apart by number, so their order must be that of the data."""
    if names is not None and tuple(names) != of_data and (len(of_data) > 1 or len(names) > 1):
        raise InputError(
            f"{key} has the classes {', '.join(names)}, the training data {', '.join(of_data)}; they must be the same, "
            "in this order."
        )


# ---------------------------------------------------------------------- folder


def _check_folder(out: Path, recipe: Recipe, resume: bool) -> None:
    """Refuse a folder that holds another training, or that does not hold the training to be resumed."""
    begun = out / ("recipe.toml" if recipe.stages or recipe.data.folds else "last.ckpt")
    if not resume and begun.exists():
        raise InputError(
            f"{out}: holds a training that was begun earlier; add --resume to continue it, or give another --out."
        )
    if not resume:
        return
    if not begun.exists():
        raise InputError(f"{out}: there is nothing to resume; start the training without --resume.")
    if changed := _differences(read_recipe(out / "recipe.toml"), recipe):
        raise InputError(
            f"{out}: this training was begun with another recipe ({', '.join(changed)} differ); resume with the "
            f"same command, or with {out / 'recipe.toml'}; or give another --out to begin a new one."
        )


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{out}: the folder cannot be made: {error.strerror}.") from error


@contextmanager
def _nothing_left_of_a_false_start(out: Path) -> Iterator[None]:
    """If a run ends before it has saved any weights, remove the files and folders it made, with parent folders."""
    above = [folder for folder in (out, *out.parents) if not folder.exists()]
    before = set() if above else set(out.iterdir()) if out.is_dir() else None
    try:
        yield
    except BaseException:
        if before is not None and out.is_dir() and not _weights_in(out):
            for path in set(out.iterdir()) - before:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
            for folder in above:
                if not any(folder.iterdir()):
                    folder.rmdir()
        raise


def _weights_in(out: Path) -> bool:
    """Whether there is a checkpoint or a model, in the folder or in that of a stage or fold."""
    return any(path.suffix in (".ckpt", ".safetensors") for path in (*out.glob("*"), *out.glob("*/*")))


def _differences(old: Recipe, new: Recipe) -> list[str]:
    """Keys whose values differ."""
    before, after = old.model_dump(mode="json"), new.model_dump(mode="json")
    stages = ["stages"] if before.pop("stages") != after.pop("stages") else []
    for content in (before, after):  # a stage starts from the one before, wherever the folder is
        start = Path(content["model"]["start"] or "").parts[-2:]
        if start and start[0].startswith("stage_"):
            content["model"]["start"] = "/".join(start)
    return [f"{s}.{key}" for s in after for key in after[s] if before[s].get(key) != after[s][key]] + stages


def _load_encoder(model: Model, path: str) -> None:
    network = model.method.network
    if not isinstance(network, TakesPretrainedEncoder):
        raise InputError(
            f'model.encoder_weights = "{path}" is for a ResNet, which the network {model.description.network} does not '
            'have; use model.network = "unet", or leave model.encoder_weights out.'
        )
    network.load_encoder(path, model.description.channels)


def _begin_with(model: Model, start: Model) -> None:
    """Take over every weight whose name and shape agree; the rest starts from scratch, and the log says which."""
    own, given = model.method.state_dict(), start.method.state_dict()
    fitting = {name: value for name, value in given.items() if name in own and own[name].shape == value.shape}
    if not fitting:
        raise InputError(
            f"The model to start from is {start.description.method} on {start.description.network} and shares no "
            f"weight with {model.description.method} on {model.description.network}; train the same method and network."
        )
    if anew := sorted({_part_without(name, fitting) for name in own if name not in fitting}):
        logger.warning(
            "Layers that the model to start from lacks, or has in another shape, start from scratch: %s",
            ", ".join(anew),
        )
    model.method.load_state_dict(own | fitting)


def _part_without(name: str, fitting: Collection[str]) -> str:
    """The largest part of a network that has the weight of this name, and none that fits."""
    parts = name.split(".")
    wholes = (".".join(parts[:n]) for n in range(1, len(parts)))
    return next(whole for whole in wholes if not any(other.startswith(f"{whole}.") for other in fitting))
