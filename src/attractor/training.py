"""Training: crops around objects, Adam with a polynomial schedule, validation by the final score.

All randomness comes from (seed, epoch, index), so a run that was killed and resumed ends with the same weights as one
that was not. Lightning drives the loop; it is imported here and nowhere else.
"""

from __future__ import annotations

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
from collections.abc import Iterable, Iterator, Sequence
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
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from attractor.augmentation import Augmentation
from attractor.datasets import Dataset, Sample
from attractor.datasets.held import Held
from attractor.description import Description
from attractor.errors import InputError
from attractor.evaluation import pair_of, predicted, score_pair
from attractor.images import as_channels, atomic
from attractor.methods.contract import HasCurriculum, each_changed
from attractor.metrics.average_precision import SHOWN, THRESHOLDS, score_image
from attractor.model import Model
from attractor.prediction.engines import dtype_of
from attractor.prediction.image import Segmenter, choose_device
from attractor.prediction.memory import free_memory
from attractor.settings import Settings
from attractor.shortage import is_for_memory
from attractor.truth import Objects, Truth
from attractor.tuning import headline_of, tune

logger = logging.getLogger(__name__)

M = TypeVar("M")  # a method's maps
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
        sizes = images.statistics.image_sizes.prod(axis=1).tolist()
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
        nothing = np.empty((*sample.labels.shape, 0), np.uint8)
        return image, dataclasses.replace(sample, image=nothing, annotate=None)

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
    places = _Places(settings.crops_per_epoch)
    steps = settings.steps_per_epoch
    run = _Run(model, settings, places, validation, out)
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    trainer = lightning.Trainer(
        accelerator=chosen.type,
        devices=1,
        precision=_precision(settings, chosen),
        max_epochs=settings.epochs,
        num_sanity_val_steps=0,
        log_every_n_steps=min(10, steps),
        logger=[CSVLogger(out / "logs", name="csv"), TensorBoardLogger(out / "logs", name="tensorboard")],
        plugins=[_WholeCheckpoints()],
        callbacks=[ModelCheckpoint(out, filename="last", save_on_train_epoch_end=True, enable_version_counter=False)],
        enable_model_summary=False,
        enable_progress_bar=sys.stdout.isatty(),
    )
    loader = torch.utils.data.DataLoader(
        crops,
        settings.batch_size,
        sampler=places,
        collate_fn=collate,
        drop_last=True,
        num_workers=crops.workers,
        persistent_workers=crops.workers > 0,
        multiprocessing_context="spawn" if crops.workers else None,  # numba and forked processes do not mix
    )
    _fit(trainer, run, loader, _checkpoint(out) if resume else None)
    best = Model.load(out / "best.safetensors")
    segmenter = Segmenter(best, device=device, dtype="float32", record=False)
    best.method.thresholds.update(tune(segmenter, validation, metric=settings.metric))
    scores = _scores(segmenter, validation, settings.metric)
    best.description = best.described(scores=best.description.scores | {"validation": scores})
    best.save(out / "model.safetensors")
    return best


def _fit(trainer: lightning.Trainer, run: _Run, loader: Iterable[Batch], checkpoint: Path | None) -> None:
    """Go through the epochs, starting from a checkpoint if one is given.

    Raises:
        InputError: if the checkpoint cannot be used, or memory runs out.
    """
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
            if not is_for_memory(error):
                raise
            settings = run.settings
            raise InputError(
                "Training needs more memory than there is; lower training.batch_size (now "
                f"{settings.batch_size}) or training.crop_size (now {settings.crop_size})."
            ) from error


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
    thresholds: dict[str, int | float]


class _Clock:
    """How much of a run's time is spent; part of it is set aside for the validations at its end."""

    def __init__(self, limit: float) -> None:
        self.limit, self.before = limit, 0.0  # seconds: of the run, 0 for no limit; spent before an interruption
        self.started: float | None = None
        self.validation = 0.0  # the longest so far

    def start(self) -> None:
        self.started = time.monotonic()

    def spent(self) -> float:
        return self.before + (0.0 if self.started is None else time.monotonic() - self.started)

    def share(self) -> float:
        """The share of the time for steps that is over; 0 if there is no limit."""
        aside = min(3 * self.validation, self.limit / 2)  # the last epoch's, and the tuning and scoring of the result
        return min(self.spent() / (self.limit - aside), 1.0) if self.limit else 0.0

    def is_up(self) -> bool:
        return self.share() >= 1

    @contextmanager
    def validating(self) -> Iterator[None]:
        """Measure a validation."""
        begun = time.monotonic()
        yield
        self.validation = max(self.validation, time.monotonic() - begun)


class _Run(lightning.LightningModule):
    """The loop's steps: loss, optimiser, schedule, and validation after each epoch."""

    def __init__(self, model: Model, settings: Settings, places: _Places, validation: Dataset, out: Path) -> None:
        super().__init__()
        self.model, self.settings, self.places, self.validation, self.out = model, settings, places, validation, out
        self.best, self.best_epoch = -1.0, 0
        self.crowded = 0  # crops of this epoch with more objects than the method can find
        self.has_begun = False
        self.clock = _Clock(60 * settings.minutes)

    def on_fit_start(self) -> None:
        self.model.to(memory_format=self._layout())  # type: ignore[call-overload]

    def _layout(self) -> torch.memory_format:
        """Channels last is faster, but normalisation's gradients are wrong in it on MPS."""
        return torch.contiguous_format if self.device.type == "mps" else torch.channels_last

    def on_train_start(self) -> None:
        self._check_parts()
        self.has_begun = True
        self.clock.start()
        ended = self._out_of_patience(self.current_epoch - 1) or self.clock.is_up()  # a resumed run may have ended here
        self.trainer.should_stop = ended

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

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        settings = self.settings
        optimizer = torch.optim.Adam(
            self.model.parameters(), lr=settings.learning_rate, weight_decay=settings.weight_decay
        )
        steps = settings.epochs * settings.steps_per_epoch
        warmup = max(1, round(settings.warmup * steps))

        def factor(step: int) -> float:
            done = max(step / steps, self.clock.share())
            return min((step + 1) / warmup, math.pow(max(0.0, 1 - done), settings.power))

        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_train_epoch_end(self) -> None:
        if self.crowded:
            logger.warning(
                "Epoch %d: %d of %d crops had more objects than the %d that this method can find; the largest of them "
                "were taught. A smaller training.crop_size avoids it.",
                *(self.current_epoch + 1, self.crowded, self.settings.crops_per_epoch, self.model.method.max_instances),
            )
        epoch = self.current_epoch + 1
        if epoch % self.settings.validate_every and epoch < self.settings.epochs and not self.clock.is_up():
            return
        with self.clock.validating():
            scores = self._validated()
        self.log_dict({f"validation/{name}": value for name, value in scores.items()})
        score = scores["mean" if self.settings.metric == "average_precision" else self.settings.metric]
        self.log("score", score, prog_bar=True, logger=False)
        if score > self.best or not self.best:  # as long as nothing is found, the latest is as good as any
            self.best, self.best_epoch = score, self.current_epoch
            self.model.save(self.out / "best.safetensors")
        if self._out_of_patience(self.current_epoch):
            self.trainer.should_stop = True

    def _validated(self) -> dict[str, float]:
        """The scores after tuning the thresholds."""
        segmenter = Segmenter(self.model, device=self.device.type, dtype="float32", record=False)
        self.model.method.thresholds.update(tune(segmenter, self.validation, rounds=1, metric=self.settings.metric))
        return _scores(segmenter, self.validation, self.settings.metric)

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        progress = _Progress(
            best=self.best,
            best_epoch=self.best_epoch,
            next_epoch=self.current_epoch + 1,
            seconds=self.clock.spent(),
            thresholds=dict(self.model.method.thresholds),
        )
        checkpoint["attractor"] = progress.model_dump()

    def on_load_checkpoint(self, checkpoint: dict[str, object]) -> None:
        progress = _Progress.model_validate(checkpoint["attractor"])
        if progress.thresholds.keys() != self.model.method.thresholds.keys():
            raise ValueError("its thresholds belong to another method")
        self.best, self.best_epoch, self.clock.before = progress.best, progress.best_epoch, progress.seconds
        self.model.method.thresholds.update(progress.thresholds)
        self.places.epoch = progress.next_epoch  # the first crops are fetched before the epoch is announced


class _WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear under their name only when complete, and whose damage is noticed."""

    def save_checkpoint(self, checkpoint: dict[str, object], path: str | Path, storage_options: object = None) -> None:
        with atomic(Path(path)) as temporary:
            super().save_checkpoint(checkpoint, temporary, storage_options)

    def load_checkpoint(self, path: str | Path, *_: object, **__: object) -> dict[str, object]:
        return read_checkpoint(Path(path))


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


def _normalised(description: Description, sample: Sample) -> Float[Tensor, "c h w"]:
    """The image as the network will see it, in half precision to save memory."""
    pixels = as_channels(sample.image, description.channels, sample.name)
    return torch.from_numpy(description.normalisation(pixels)).permute(2, 0, 1).clamp(-6e4, 6e4).half()


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
