"""Training: crops around objects, Adam with a polynomial schedule, validation by the final score.

All randomness comes from (seed, epoch, index), so a run that was killed and resumed ends with the same weights as one
that was not. Lightning drives the loop; it is imported here and nowhere else.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
import math
import pickle
import struct
import sys
import time
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Literal, TypeAlias, TypeVar

import lightning
import numpy as np
import pydantic
import torch
from jaxtyping import Bool, Float, Float16, Int32
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attractor.augmentation import Augmentation
from attractor.datasets import Dataset, Sample, Subset
from attractor.datasets.held import Held
from attractor.description import Description
from attractor.errors import InputError
from attractor.evaluation import pair_of, predicted, score_pair
from attractor.images import as_channels, atomic
from attractor.methods.contract import HasCurriculum, each_changed
from attractor.metrics.average_precision import SHOWN, THRESHOLDS, score_image
from attractor.model import Model
from attractor.prediction.engines import dtype_of
from attractor.prediction.image import Segmenter, choose_device, nearest, rescaled
from attractor.prediction.memory import free_memory
from attractor.settings import Settings
from attractor.shortage import is_for_memory
from attractor.truth import Objects, Truth
from attractor.tuning import headline_of, tune
from attractor.wording import counted, duration

logger = logging.getLogger(__name__)

M = TypeVar("M")  # a method's maps
Weights: TypeAlias = tuple[Tensor, ...] | list[Tensor]
VALIDATION_SHARE, VALIDATIONS = (
    0.1,
    12,
)  # of the time of a run that time rules: the most, and into how many it is divided
SHORT = 1 << 24  # pixels of all crops together; so few take less than a minute
HARDLY = 100  # steps; a model that has seen fewer is hardly trained
# pixels, labels, where labels are valid, and the sample that all of it is from
Crop: TypeAlias = tuple[Tensor, Int32[Tensor, "s s"], Bool[Tensor, "s s"], Sample]


@dataclass(frozen=True)
class Batch:
    """Crops to learn from."""

    images: Float[Tensor, "b c h w"]
    truth: Truth
    names: tuple[str, ...]  # of the images the crops are from

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        truth = Truth(**{f.name: getattr(self.truth, f.name).to(device) for f in dataclasses.fields(Truth)})
        return Batch(self.images.to(device), truth, self.names)


class RandomCrops(torch.utils.data.Dataset[Crop]):
    """Random crops of the training images; (seed, epoch, index) decides each."""

    def __init__(
        self,
        model: Model,
        images: Held,
        settings: Settings,
        augmentation: Augmentation,
        device: torch.device | None = None,
    ) -> None:
        """Normalise the images that are held in memory; if there are too many, a crop reads its image when it is made.

        If a device is given and has room for the images held, they lie there, and crops are made there.
        """
        self.settings, self.augmentation = settings, augmentation
        self.source, self.description = images.source, model.description
        scale = model.description.scale
        sizes = [max(1, round(size * scale**2)) for size in images.statistics.image_sizes.prod(axis=1).tolist()]
        self.weights = torch.from_numpy(image_weights(images, sizes, settings))
        if not images.statistics.count:
            raise InputError("None of the training images has an object, so there is nothing to learn from.")
        _check_classes(images, self.description)
        self.held = None if images.samples is None else [self._prepared(sample) for sample in images.samples]
        if self.held is None:
            logger.warning(
                "The training images have %d million pixels, too many to hold: each crop reads its image again. More "
                "training.workers may keep up with the network (now %d).",
                *(sum(sizes) // 10**6, settings.workers),
            )
        n_bytes = sum(sizes) * (2 * model.description.channels + 5)
        fits = device is not None and self.held is not None and 2 * n_bytes < free_memory(device)
        self.there = [self._tensors(*held, device) for held in self.held or ()] if fits else None

    @property
    def workers(self) -> int:
        """Processes that make crops; 0 if crops are made on a device."""
        return 0 if self.there is not None else self.settings.workers

    @staticmethod
    def _tensors(
        image: Float16[np.ndarray, "c h w"], sample: Sample, device: torch.device | None = None
    ) -> tuple[Float16[Tensor, "c h w"], Int32[Tensor, "h w"], Bool[Tensor, "h w"]]:
        """An image, its labels, and whether each pixel counts."""
        arrays = image, sample.labels, ~sample.ignore
        image_there, labels, valid = (torch.from_numpy(array).to(device or "cpu") for array in arrays)
        return image_there, labels, valid

    def _prepared(self, sample: Sample) -> tuple[Float16[np.ndarray, "c h w"], Sample]:
        """The image as the network will see it, and its sample without pixels, so that they are not held twice."""
        # arrays, since each tensor would cost the worker process a file descriptor
        image = _normalised(self.description, sample).numpy()
        shape = image.shape[1], image.shape[2]
        labels, ignore = (nearest(array, shape) for array in (sample.labels, sample.ignore))
        nothing = np.empty((*shape, 0), np.uint8)
        return image, dataclasses.replace(sample, image=nothing, labels=labels, ignore=ignore, annotate=None)

    def __len__(self) -> int:
        """Number of crops in an epoch."""
        return self.settings.crops_per_epoch

    def __getitem__(self, place: tuple[int, int]) -> Crop:
        """The crop of an (epoch, index)."""
        generator = torch.Generator().manual_seed(_seed(self.settings.seed, *place))
        i = int(torch.multinomial(self.weights, 1, generator=generator))
        image, sample = self.held[i] if self.held is not None else self._prepared(self.source[i])
        pixels, labels, valid = self._tensors(image, sample) if self.there is None else self.there[i]
        centre = self._centre(sample, generator)
        crop = self.augmentation.crop(pixels.float(), labels, valid, centre, self.settings.crop_size, generator)
        return *crop, sample

    def _centre(self, sample: Sample, generator: torch.Generator) -> tuple[float, float]:
        """A place anywhere or, more often, one that puts an object in the middle half of the crop."""
        by_object, row, column = torch.rand(3, generator=generator).tolist()
        h, w = sample.labels.shape
        if by_object >= self.settings.around_objects or not len(sample.classes):
            return row * h, column * w
        label = 1 + int(torch.randint(len(sample.classes), (), generator=generator))
        rows, columns = np.nonzero(sample.labels == label)
        if not len(rows):
            return row * h, column * w
        reach = self.settings.crop_size / 2
        return rows.mean() + (row - 0.5) * reach, columns.mean() + (column - 0.5) * reach


class _Places(torch.utils.data.Sampler[tuple[int, int]]):
    """The (epoch, index) of each crop of the current epoch."""

    def __init__(self, n: int) -> None:
        self.n, self.epoch = n, 0

    def __len__(self) -> int:
        return self.n

    def __iter__(self) -> Iterator[tuple[int, int]]:
        return ((self.epoch, index) for index in range(self.n))


def _freeze_statistics(model: torch.nn.Module) -> None:
    """Let batch normalisation use its running statistics without changing them; its scale and shift still learn."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


def image_weights(dataset: Dataset, sizes: Sequence[int], settings: Settings) -> Float[np.ndarray, " m"]:
    """How often each image is drawn: in proportion to the square root of the crops it holds, and of its group's rarity.

    With `settings.balance`, a group of images that is n times as large as another is drawn sqrt(n) times as often.
    """
    crops = np.array([max(1.0, size / settings.crop_size**2) for size in sizes])
    weights = np.sqrt(crops)
    if settings.balance:
        if settings.balance not in dataset.columns:
            raise InputError(
                f'training.balance is "{settings.balance}", but images.csv has '
                f"{', '.join(dataset.columns) or 'no columns (is it there?)'}; name one of them, or leave it out."
            )
        groups = np.array([dataset.columns[settings.balance].get(name, "") for name in dataset.names])
        for group in np.unique(groups):
            weights[groups == group] /= np.sqrt(weights[groups == group].sum())
    shares: Float[np.ndarray, " m"] = weights / weights.sum()
    return shares


def collate(crops: Sequence[Crop]) -> Batch:
    """Crops as a batch; rows of classes are padded with 0."""
    images, labels, valid, samples = zip(*crops, strict=True)
    most = max(1, *(len(sample.classes) for sample in samples))
    classes = torch.zeros(len(samples), most, dtype=torch.int64)
    for row, sample in zip(classes, samples, strict=True):
        row[: len(sample.classes)] = torch.from_numpy(np.asarray(sample.classes, np.int64))
    truth = Truth(torch.stack(labels), classes, torch.stack(valid))
    return Batch(torch.stack(images), truth, tuple(sample.name for sample in samples))


def train(
    model: Model,
    training: Held,
    validation: Dataset,
    *,
    out: str | Path,
    settings: Settings,
    augmentation: Augmentation,
    resume: bool = False,
    device: str = "auto",
) -> Model:
    """Train a model; gives the one with the best validation score.

    After each epoch the thresholds are tuned and the model is scored on the validation images, so that it is chosen by
    what it will do in use. `out` gets `last.ckpt` (to resume from), `best.safetensors` (the best so far),
    `model.safetensors` (the result, with thresholds tuned once more), and `logs/`, as CSV and for TensorBoard.

    Raises:
        InputError: if the data cannot be learned from, the loss stops being finite, or `out` cannot be written.
    """
    out = Path(out)
    chosen = choose_device(device)
    crops = RandomCrops(model, training, settings, augmentation, chosen if chosen.type == "cuda" else None)
    run = _Run(model, settings, _Places(settings.crops_per_epoch), validation, out)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    run.clock.start()
    if not resume:
        _with_less_memory(run, lambda: _plan(run, crops, chosen))
    _with_less_memory(run, lambda: _fit(run, crops, chosen, _checkpoint(out) if resume else None))
    if run.clock.rules and run.steps < HARDLY:
        logger.warning("The model saw only %s: it is hardly trained. Give it more time.", counted(run.steps, "step"))
    best = Model.load(out / "best.safetensors")
    segmenter = Segmenter(best, device=device, dtype="float32", record=False)
    best.method.thresholds.update(tune(segmenter, run.validation, metric=settings.metric))
    scores = _scores(segmenter, run.validation, settings.metric)
    best.description = best.described(scores=best.description.scores | {"validation": scores})
    best.save(out / "model.safetensors")
    return best


def _with_less_memory(run: _Run, do: Callable[[], None]) -> None:
    """Halve the batch as long as memory runs out before an epoch is done.

    Raises:
        InputError: if the batch cannot be halved any more.
    """
    while True:
        try:
            return do()
        except InputError:
            raise
        except Exception as error:
            if not is_for_memory(error):
                raise
            settings = run.settings
            if settings.batch_size == 1 or run.has_saved:
                raise InputError(
                    "Training needs more memory than there is; lower training.batch_size (now "
                    f"{settings.batch_size}) or training.crop_size (now {settings.crop_size})."
                ) from error
        run.settings = dataclasses.replace(settings, batch_size=settings.batch_size // 2)
        logger.warning(
            "There is too little memory for batches of %d crops; training goes on with batches of %d.",
            *(settings.batch_size, run.settings.batch_size),
        )


def _plan(run: _Run, crops: RandomCrops, device: torch.device) -> None:
    """Fit the run to its time, and say before the first step how long it takes on this machine, and how to change that.

    If the epochs fit into the time, the run is the same on every machine; else time decides.
    """
    settings, limit = run.settings, run.clock.limit
    if not limit and settings.epochs * settings.crops_per_epoch * settings.crop_size**2 < SHORT:
        return
    step = run.seconds_of_a_step(crops, device, dtype_of(settings.dtype, device))
    validation = run.seconds_of_a_validation()
    seconds = settings.epochs * settings.steps_per_epoch * step
    seconds += (settings.epochs // settings.validate_every + 2) * validation * len(run.validation)
    run.clock.rules = bool(limit) and (not settings.epochs or seconds > limit)
    if run.clock.rules:
        run.validate_on(run.affordable(validation))
    epochs = counted(settings.epochs, "epoch")
    if not settings.epochs:
        steps = counted(max(1, round((1 - VALIDATION_SHARE) * limit / step)), "step")
        logger.warning("Training ends after %s: some %s.", duration(limit), steps)
    elif run.clock.rules:
        logger.warning(
            "%s would take about %s on this machine. Training ends after %s, its schedule cut to fit; --minutes N "
            "gives it another time.",
            *(epochs, duration(seconds), duration(limit)),
        )
    else:
        logger.warning(
            "Training takes about %s on this machine (%s); --minutes N makes it shorter.", duration(seconds), epochs
        )


def _fit(run: _Run, crops: RandomCrops, device: torch.device, checkpoint: Path | None) -> None:
    """Go through the epochs, starting from a checkpoint if one is given.

    Raises:
        InputError: if the checkpoint cannot be used.
    """
    settings, out = run.settings, run.out
    trainer = lightning.Trainer(
        accelerator=device.type,
        devices=1,
        precision=_precision(settings, device),
        max_epochs=settings.epochs or -1,  # -1: until time is up
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, settings.steps_per_epoch),
        logger=[CSVLogger(out / "logs", name="csv"), TensorBoardLogger(out / "logs", name="tensorboard")],
        plugins=[_WholeCheckpoints()],
        callbacks=[
            ModelCheckpoint(out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False),
            *([_Countdown()] if sys.stderr.isatty() else []),
        ],
        enable_model_summary=False,
        enable_progress_bar=sys.stderr.isatty(),
    )
    loader = torch.utils.data.DataLoader(
        crops,
        settings.batch_size,
        sampler=run.places,
        collate_fn=collate,
        drop_last=True,
        num_workers=crops.workers,
        persistent_workers=crops.workers > 0,
        multiprocessing_context="spawn" if crops.workers else None,  # numba and forked processes do not mix
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")
        warnings.filterwarnings("ignore", message="The dirpath has changed.*")  # a folder may be moved
        warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.*")  # within Lightning
        try:
            trainer.fit(run, loader, ckpt_path=checkpoint, weights_only=True)
        except InputError:
            raise
        except _DAMAGE as error:
            if checkpoint is not None and not run.has_begun:
                raise _unusable(checkpoint, error) from error
            raise


# What reading a damaged checkpoint raises, in zipfile, pickle, torch or Lightning.
_DAMAGE = (
    *(ArithmeticError, AssertionError, AttributeError, EOFError, LookupError, MemoryError, OSError, RuntimeError),
    *(TypeError, ValueError, pickle.UnpicklingError, struct.error, zipfile.BadZipFile, zlib.error),
)


def read_checkpoint(path: Path) -> dict[str, object]:
    """What a checkpoint holds; reading it runs no code.

    Raises:
        InputError: if it is damaged; the message says what to do.
    """
    try:
        with zipfile.ZipFile(path) as archive:  # torch does not look at the checksums
            if any(record.compress_type != zipfile.ZIP_STORED for record in archive.infolist()):
                raise zipfile.BadZipFile("it is compressed, which torch never does")
            if broken := archive.testzip():
                raise zipfile.BadZipFile(f"{broken} is not what was written")
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise TypeError("it holds no training")
    except _DAMAGE as error:
        raise _unusable(path, error) from error
    return content


def _unusable(path: Path, error: BaseException) -> InputError:
    """The error for a checkpoint that training cannot continue from."""
    reason = "".join(filter(str.isprintable, next(iter(str(error).splitlines()), ""))) or "it ends too early"
    if isinstance(error, pickle.UnpicklingError):  # whose advice is to let it run code
        reason = "it holds something other than numbers"
    best = path.with_name("best.safetensors")
    cure = f", or add --from {best} to start from the best weights so far" if best.exists() else ""
    return InputError(
        f"{path}: training cannot continue from this checkpoint, which is damaged or of another version "
        f"({reason[:100]}). Remove it and start the training without --resume{cure}."
    )


class _Progress(pydantic.BaseModel):
    """What a run must remember that Lightning does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    best: float
    best_epoch: int
    next_epoch: int = pydantic.Field(ge=1)
    seconds: float = pydantic.Field(ge=0, allow_inf_nan=False)
    timed: bool = False  # whether time decides
    validated: int = pydantic.Field(default=0, ge=0)  # images; 0 for all
    thresholds: dict[str, int | float]


class _Clock:
    """How much of a run's time is spent; part of it is set aside for the validations at its end."""

    def __init__(self, limit: float) -> None:
        self.limit, self.before = limit, 0.0  # seconds: of the run, 0 for no limit; spent before an interruption
        self.rules = False  # whether all epochs would take longer than that, so that time decides
        self.started: float | None = None
        self.last = self.longest = self.validations = 0.0  # seconds: the last validation, the longest, and all of them

    def start(self) -> None:
        if self.started is None:
            self.started = time.monotonic()

    def spent(self) -> float:
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def _used(self) -> float:
        """The share of the time for steps that is over."""
        aside = min(3 * self.longest, self.limit / 2)  # the last epoch's, and the tuning and scoring of the result
        return min(self.spent() / (self.limit - aside), 1.0) if self.limit else 0.0

    def share(self) -> float:
        """The share of the time for steps that is over, if time decides; else 0."""
        return self._used() if self.rules else 0.0

    def is_up(self) -> bool:
        return self._used() >= 1

    def allows_validation(self) -> bool:
        """Whether another validation keeps all of them together within their share of the time, if time decides."""
        return not self.rules or self.validations + self.longest <= VALIDATION_SHARE * self.spent()

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Measure a validation."""
        begun = time.monotonic()
        yield
        self.last = time.monotonic() - begun
        self.longest, self.validations = max(self.longest, self.last), self.validations + self.last


class _Run(lightning.LightningModule):
    """The loop's steps: loss, optimiser, schedule, and validation after each epoch."""

    def __init__(self, model: Model, settings: Settings, places: _Places, validation: Dataset, out: Path) -> None:
        super().__init__()
        self.model, self.settings, self.places, self.out = model, settings, places, out
        self.every = self.validation = validation  # all images, and those that are validated on
        self.best, self.best_epoch = -1.0, 0
        self.crowded = 0  # crops of this epoch with more objects than the method can find
        self.has_begun = self.has_saved = False
        self.steps = 0  # that were taken
        self.average = None
        if settings.average:
            self.average = AveragedModel(model, multi_avg_fn=_drawn_to(settings.average), use_buffers=True)
        self.clock = _Clock(60 * settings.minutes)

    @property
    def kept(self) -> Model:
        """The model that is validated and saved."""
        kept = self.model if self.average is None else self.average.module
        assert isinstance(kept, Model)
        return kept

    def on_fit_start(self) -> None:
        self.model.to(memory_format=self._layout())  # type: ignore[call-overload]

    def _layout(self) -> torch.memory_format:
        """Channels last is faster, but normalisation's gradients are wrong in it on MPS."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    def on_train_start(self) -> None:
        self._check_parts()
        self.has_begun = True
        ended = self._out_of_patience(self.current_epoch - 1) or self.clock.is_up()
        self.trainer.should_stop = self.has_saved and ended  # a resumed run may have ended here

    def affordable(self, seconds: float) -> int:
        """On how many images there is time to validate, if one takes so long."""
        return max(1, int(VALIDATION_SHARE * self.clock.limit / VALIDATIONS / seconds))

    def validate_on(self, n: int) -> None:
        """Validate on so many of the images only."""
        self.validation = _some(self.every, n)

    def _validate_on_more(self, seconds: float) -> None:
        """Validate on more images from now on where it took less time than it seemed with untrained weights."""
        n = min(len(self.every), self.affordable(seconds / len(self.validation)))
        if n >= 2 * len(self.validation) and self.clock.share() < 0.5:
            self.validate_on(n)
            self.best = -1.0  # scores on other images do not compare

    def seconds_of_a_validation(self) -> float:
        """How long it takes on a single image, with the present weights."""
        thresholds, begun = dict(self.kept.method.thresholds), time.monotonic()
        self._validated_on(_some(self.validation, 1))
        self.kept.method.thresholds.update(thresholds)
        return time.monotonic() - begun

    def seconds_of_a_step(self, crops: RandomCrops, device: torch.device, dtype: torch.dtype) -> float:
        """How long a step takes, from one on a copy of the model after another one has warmed up."""
        model = copy.deepcopy(self.model).to(device).train()
        begun = time.monotonic()
        batch = collate([crops[0, index] for index in range(self.settings.batch_size)]).to(device)
        making = time.monotonic() - begun
        for _ in range(2):
            begun = time.monotonic()
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                maps = model(batch.images.contiguous(memory_format=torch.channels_last))
            total = torch.stack(list(model.method.loss(maps, batch.truth).values())).sum()
            total.backward()
            total.item()  # waits for a device that computes by itself
        learning = time.monotonic() - begun
        return max(learning, making) if crops.workers else learning + making

    def _check_parts(self) -> None:
        """Refuse a checkpoint whose parts are from different runs; torch would notice late, or never."""
        if self.current_epoch != self.places.epoch:
            raise ValueError("its epochs do not agree")
        for optimizer in self.trainer.optimizers:
            for weight, state in optimizer.state.items():
                if any(value.ndim and value.shape != weight.shape for value in state.values()):
                    raise ValueError("the optimiser's state belongs to another network")

    def _out_of_patience(self, epoch: int) -> bool:
        patience = self.settings.patience
        return bool(patience) and epoch - self.best_epoch >= patience

    def on_train_epoch_start(self) -> None:
        self.crowded = 0
        self.places.epoch = self.current_epoch
        if self.settings.freeze_normalisation:
            _freeze_statistics(self.model)
        if isinstance(self.model.method, HasCurriculum):
            self.model.method.at_epoch(self.current_epoch)

    def transfer_batch_to_device(self, batch: Batch, device: torch.device, dataloader_idx: int) -> Batch:
        return batch.to(device)

    def training_step(self, batch: Batch, index: int) -> Tensor:
        torch.manual_seed(_seed(self.settings.seed, self.current_epoch, index, -1))  # for dropout
        self.crowded += _crowded(batch.truth, self.model.method.max_instances)
        maps = self.model(batch.images.contiguous(memory_format=self._layout()))
        terms = self.model.method.loss(maps, batch.truth)
        total = torch.stack([self.model.method.weights[name] * value for name, value in terms.items()]).sum()
        if not torch.isfinite(total):
            raise InputError(self._where_not_finite(maps, batch))
        self.log("loss", total, prog_bar=True, batch_size=len(batch.names))
        self.log_dict({f"loss/{name}": value for name, value in terms.items()}, batch_size=len(batch.names))
        return total

    def on_train_batch_end(self, *_: object) -> None:
        self.steps = self.global_step
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.clock.is_up():
            self.trainer.should_stop = True

    def _where_not_finite(self, maps: M, batch: Batch) -> str:
        """A sentence that names the images whose loss is not finite."""
        culprits = []
        for i, name in enumerate(batch.names):
            own = slice(i, i + 1)
            truth = Truth(*(getattr(batch.truth, f.name)[own] for f in dataclasses.fields(Truth)))
            losses = self.model.method.loss(each_changed(maps, itemgetter(own)), truth)
            if not all(torch.isfinite(value) for value in losses.values()):
                culprits.append(name)
        return (
            f"The loss stopped being finite in epoch {self.current_epoch + 1} at image "
            f"{', '.join(culprits or batch.names)}. Look at it and its labels; if they are in order, lower "
            f"training.learning_rate (now {self.settings.learning_rate})."
        )

    def done(self, step: int) -> float:
        """The share of the run that is over after so many steps."""
        steps = self.settings.epochs * self.settings.steps_per_epoch  # 0 where time alone decides
        return max(step / steps if steps else 0.0, self.clock.share())

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        kind = torch.optim.AdamW if settings.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay)

        def factor(step: int) -> float:
            left = max(0.0, 1 - self.done(step))
            fallen = (1 - math.cos(math.pi * left)) / 2 if settings.schedule == "cosine" else left**settings.power
            return min(self.done(step + 1) / max(settings.warmup, 1e-9), fallen)

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_end(self) -> None:
        if self.crowded:
            logger.warning(
                "Epoch %d: %d of %d crops had more objects than the %d that this method can find; the largest of them "
                "were taught. A smaller training.crop_size avoids it.",
                *(self.current_epoch + 1, self.crowded, self.settings.crops_per_epoch, self.model.method.max_instances),
            )
        if not self._is_time_to_validate(self.current_epoch + 1):
            return
        with self.clock.validating():
            scores = self._validated()
        self.log_dict({f"validation/{name}": value for name, value in scores.items()})
        score = scores["mean" if self.settings.metric == "average_precision" else self.settings.metric]
        self.log("score", score, prog_bar=True, logger=False)
        if score > self.best or not self.best:  # as long as nothing is found, the latest is as good as any
            self.best, self.best_epoch = score, self.current_epoch
            self.kept.save(self.out / "best.safetensors")
        if self.clock.rules:
            self._validate_on_more(self.clock.last)
        if self._out_of_patience(self.current_epoch):
            self.trainer.should_stop = True

    def _is_time_to_validate(self, epoch: int) -> bool:
        """Whether this many epochs call for it: the last one always does."""
        if epoch == self.settings.epochs or self.clock.is_up():
            return True
        return epoch % self.settings.validate_every == 0 and self.clock.allows_validation()

    def _validated(self) -> dict[str, float]:
        """The scores after tuning the thresholds."""
        return self._validated_on(self.validation)

    def _validated_on(self, images: Dataset) -> dict[str, float]:
        segmenter = Segmenter(self.kept, device=self.device.type, dtype="float32", record=False)
        self.kept.method.thresholds.update(tune(segmenter, images, rounds=1, metric=self.settings.metric))
        return _scores(segmenter, images, self.settings.metric)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        self.has_saved = True
        progress = _Progress(
            best=self.best,
            best_epoch=self.best_epoch,
            next_epoch=self.current_epoch + 1,
            seconds=self.clock.spent(),
            timed=self.clock.rules,
            validated=len(self.validation),
            thresholds=dict(self.kept.method.thresholds),
        )
        checkpoint["attractor"] = progress.model_dump()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        progress = _Progress.model_validate(checkpoint["attractor"])
        if progress.thresholds.keys() != self.model.method.thresholds.keys():
            raise ValueError("its thresholds belong to another method")
        self.has_saved = True
        self.best, self.best_epoch, self.clock.before = progress.best, progress.best_epoch, progress.seconds
        self.clock.rules = progress.timed
        self.validate_on(progress.validated or len(self.every))
        self.kept.method.thresholds.update(progress.thresholds)
        self.places.epoch = progress.next_epoch  # the first crops are fetched before the epoch is announced


class _Countdown(ProgressBar):
    """A bar on stderr for the whole run, with the time that is left of it."""

    def __init__(self) -> None:
        super().__init__()
        columns = TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn()
        self.bar = Progress(*columns, console=Console(stderr=True), transient=True, speed_estimate_period=600)

    def on_train_start(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule) -> None:
        assert isinstance(pl_module, _Run)
        self.bar.start()
        self.task = self.bar.add_task("training", total=1.0)

    def on_train_batch_end(self, trainer: lightning.Trainer, pl_module: lightning.LightningModule, *_: object) -> None:
        assert isinstance(pl_module, _Run)
        shown = {"loss": trainer.callback_metrics.get("loss"), "score": trainer.callback_metrics.get("score")}
        words = [f"epoch {trainer.current_epoch + 1}"]
        words += [f"{name} {float(value):.3f}" for name, value in shown.items() if value is not None]
        done = pl_module.done(trainer.global_step)
        self.bar.update(self.task, completed=done, description=", ".join(words))

    def on_train_end(self, *_: object) -> None:
        self.bar.stop()

    def on_exception(self, *_: object) -> None:
        self.bar.stop()


class _WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear under their name only when complete, and whose damage is noticed."""

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
        with atomic(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)

    def load_checkpoint(self, path: str | Path, *_: object, **__: object) -> dict[str, object]:
        return read_checkpoint(Path(path))


def _drawn_to(decay: float) -> Callable[[Weights, Weights, Tensor | int], None]:
    """The function that draws averages to the present weights: sooner at first, so that they forget the start."""

    def update(averages: Weights, weights: Weights, n: Tensor | int) -> None:
        get_ema_multi_avg_fn(min(decay, (1 + int(n)) / (10 + int(n))))(averages, weights, n)

    return update


def _scores(segmenter: Segmenter, validation: Dataset, metric: str) -> dict[str, float]:
    """Mean over the validation images of TP / (TP + FP + FN), over IoU .50 to .95 and at some of these thresholds.

    If another metric chooses the model, its value is added under the metric's name.
    """
    images, others = [], []
    for pair in predicted(segmenter, validation):
        images.append(score_image(pair_of(*pair)))
        if metric != "average_precision" and (scores := score_pair(*pair, metric=metric)) is not None:
            others.append(scores)
    by_image = np.mean([image.average_precision for image in images], 0)
    shown = {f"ap{100 * t:.0f}": float(by_image[THRESHOLDS.index(t)]) for t in SHOWN}
    return {"mean": float(by_image.mean())} | shown | ({metric: headline_of(metric)(others)} if others else {})


def _some(dataset: Dataset, n: int) -> Dataset:
    """This many images, spread evenly over the data set; all of them if there are no more."""
    if n >= len(dataset):
        return dataset
    return Subset(dataset, np.linspace(0, len(dataset) - 1, n + 2)[1:-1].round().astype(int).tolist())


def _crowded(truth: Truth, most: int | None) -> int:
    """Number of images in a batch with more objects than a method can find."""
    if most is None:
        return 0
    return int((torch.bincount(Objects.of(truth).image, minlength=1) > most).sum())


def _checkpoint(out: Path) -> Path:
    path = out / "last.ckpt"
    if not path.exists():
        raise InputError(f"{path}: there is nothing to resume; start the training without --resume.")
    return path


def _precision(settings: Settings, device: torch.device) -> Literal["bf16-mixed", "32-true"]:
    """Lightning's name for the dtype of the network."""
    return "bf16-mixed" if dtype_of(settings.dtype, device) is torch.bfloat16 else "32-true"


def _normalised(description: Description, sample: Sample) -> Float[Tensor, "c i j"]:
    """The image as the network will see it, at the model's scale, in half precision to save memory."""
    pixels = as_channels(sample.image, description.channels, sample.name)
    image = torch.from_numpy(description.normalisation(pixels)).permute(2, 0, 1)[None]
    return rescaled(image, description.scale)[0].clamp(-6e4, 6e4).half()


def _check_classes(images: Held, description: Description) -> None:
    """Refuse objects of a class that the model lacks."""
    for name, measured in zip(images.names, images.measured, strict=True):
        if measured.classes.max(initial=0) > len(description.class_names):
            raise InputError(
                f"{name}: has class {images.class_names[measured.classes.max() - 1]}, but the model knows "
                f"{', '.join(description.class_names)} only; train a model for all classes of the data."
            )


def _seed(*numbers: int) -> int:
    """One well-mixed seed from several numbers."""
    return int(np.random.SeedSequence([n & 0xFFFFFFFF for n in numbers]).generate_state(1, np.uint64)[0] >> 1)
