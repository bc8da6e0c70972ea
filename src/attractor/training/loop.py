"""Training: crops around objects, Adam with a polynomial schedule, validation by the final score.

All randomness comes from (seed, epoch, index), so a run that was killed and resumed ends with the same weights as one
that was not. Lightning drives the loop; it is imported here and nowhere else.
"""

from __future__ import annotations

import copy
import dataclasses
import itertools
import logging
import math
import sys
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar

import lightning
import numpy as np
import pydantic
import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.callbacks.progress.progress_bar import ProgressBar
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.multiprocessing.spawn import ProcessRaisedException
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from attractor.augmentation import Augmentation
from attractor.datasets import Dataset, Subset
from attractor.datasets.held import Held
from attractor.errors import InputError
from attractor.evaluation import pair_of, predicted, score_pair
from attractor.images import atomic, temporary_folder
from attractor.methods.contract import HasCurriculum, HasFallbacks, each_changed
from attractor.metrics.average_precision import SHOWN, THRESHOLDS, ImageScores, score_image
from attractor.metrics.metric import Scores
from attractor.model import Model
from attractor.prediction.engines import channels_last, dtype_of
from attractor.prediction.image import Segmenter, choose_device
from attractor.settings import Settings
from attractor.shortage import is_for_memory
from attractor.training import ranks
from attractor.training.batches import Batch, Places, RandomCrops, Room, collate, seed_of
from attractor.training.checkpoints import DAMAGE, read_checkpoint, unusable
from attractor.training.clock import AT_THE_END, VALIDATION_SHARE, Clock
from attractor.training.missed import Missed, not_found
from attractor.truth import Objects, Truth
from attractor.tuning import headline_of, tune
from attractor.wording import counted, duration

logger = logging.getLogger(__name__)

M = TypeVar("M")  # a method's maps
Weights: TypeAlias = tuple[Tensor, ...] | list[Tensor]
SHARE_AT_THE_END = 0.2  # the most of the time of a run that time rules, for tuning and scoring the result
VALIDATIONS = 12  # of a run that time rules, at least if each takes its share
SHORT = 1 << 24  # pixels of all crops together; so few take less than a minute
HARDLY = 100  # steps; a model that has seen fewer is hardly trained
CLEAR_GAIN = 0.05  # of the score, by which few objects can tell that a model has learned too little for its thresholds


def _freeze_statistics(model: torch.nn.Module) -> None:
    """Let batch normalisation use its running statistics without changing them; its scale and shift still learn."""
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.eval()


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
    devices: str | int = 1,
    nodes: int = 1,
) -> Model:
    """Train a model; gives the one with the best validation score.

    After each epoch the thresholds are tuned, if the validation images have `settings.few_objects`, and the model is
    scored on those images, so that it is chosen by what it will do in use. `out` gets `last.ckpt` (to resume from),
    `best.safetensors` (the best so far), `model.safetensors` (the result, with thresholds tuned once more), and
    `logs/`, as CSV and for TensorBoard.

    With several devices, or several machines with as many each, the batches are those of one device, shared out.

    Raises:
        InputError: if the data cannot be learned from, the loss stops being finite, `out` cannot be written, or there
            are not so many devices.
    """
    out = Path(out)
    chosen = choose_device(device)
    ranks.check_nodes(nodes)
    n_devices = ranks.number_of_devices(devices, chosen)
    ranks.share_of_batch(settings.batch_size, n_devices * nodes * settings.accumulate)
    there = chosen if chosen.type == "cuda" and n_devices * nodes == 1 else None
    run = _Run(model, settings, Places(settings.crops_per_epoch, settings.batch_size), validation, out)
    run.devices, run.nodes = n_devices, nodes
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    with ExitStack() as leaving:
        room = Room(out, lambda: leaving.enter_context(temporary_folder(out)))
        crops = RandomCrops(model, training, settings, augmentation, there, room)
        run.learned_from, run.missed = training, crops.missed
        run.clock.start()
        if not resume:
            _with_less_memory(run, lambda: _plan(run, crops, chosen))
        _with_less_memory(run, lambda: _fit(run, crops, chosen, _checkpoint(out) if resume else None))
    if run.clock.rules and run.steps < HARDLY:
        logger.warning("The model saw only %s: it is hardly trained. Give it more time.", counted(run.steps, "step"))
    best = Model.load(out / "best.safetensors")
    segmenter = Segmenter(best, device=device, dtype="float32", record=False)
    run.validate_on(run.at_the_end)
    if _has_objects(run.validation, settings.few_objects):
        best.method.thresholds.update(tune(segmenter, run.validation, metric=settings.metric))
    else:
        best.method.thresholds.update(_lowered(segmenter, run.begun, run.validation, settings.metric))
        logger.warning(
            "There are fewer than %d objects, too few to choose thresholds by; %s.",
            settings.few_objects,
            "those that training began with stay"
            if best.method.thresholds == run.begun
            else "they are lower than training began with, as the model has learned little",
        )
    scores = _scores(segmenter, run.validation, settings.metric)
    best.description = best.described(scores=best.description.scores | {"validation": scores})
    best.save(out / "model.safetensors")
    return best


def _has_objects(images: Dataset, enough: int) -> bool:
    """Whether there are that many objects in images, of which no more are read than it takes."""
    counts = itertools.accumulate((len(images[index].classes) for index in range(len(images))), initial=0)
    return any(n >= enough for n in counts)


def _lowered(
    segmenter: Segmenter, begun: Mapping[str, float], images: Dataset, metric: str, **share: Any
) -> dict[str, float]:
    """The thresholds that training began with, or lower ones if the score is clearly better for it.

    It is for a model that has learned little.
    """
    method = segmenter.model.method
    method.thresholds.update(begun)
    if isinstance(method, HasFallbacks):
        candidates = {
            name: lower
            for name, values in method.threshold_fallbacks.items()
            if (lower := tuple(value for value in values if value < begun[name]))
        }
        if candidates:
            tune(segmenter, images, rounds=1, metric=metric, candidates=candidates, least_gain=CLEAR_GAIN, **share)
    return dict(method.thresholds)


def _with_less_memory(run: _Run, do: Callable[[], None]) -> None:
    """Halve the batch as long as memory runs out before an epoch is done.

    Raises:
        InputError: if the batch cannot be halved any more.
    """
    while True:
        try:
            return do()
        except (MemoryError, RuntimeError) as error:  # torch has no class of its own for the CPU's memory
            if not is_for_memory(error):
                raise
            settings = run.settings
            parts = run.devices * run.nodes * settings.accumulate
            half = settings.batch_size // 2 // parts * parts
            if not half or run.has_saved:
                raise InputError(
                    "Training needs more memory than there is; lower training.batch_size (now "
                    f"{settings.batch_size}) or training.crop_size (now {settings.crop_size})."
                ) from error
        run.settings = dataclasses.replace(settings, batch_size=half)
        run.places = Places(settings.crops_per_epoch, run.settings.batch_size)
        logger.warning(
            "There is too little memory for batches of %d crops; training goes on with batches of %d.",
            *(settings.batch_size, run.settings.batch_size),
        )


def _plan(run: _Run, crops: RandomCrops, device: torch.device) -> None:
    """Fit the run to its time, and say before the first step how long it takes on this machine, and how to change that.

    If the epochs fit into the time, the run is the same on every machine; else time decides.
    """
    settings, limit = run.settings, run.clock.limit
    crop = math.prod(settings.crop_shape(run.model.description.axes))
    if not limit and settings.epochs * settings.crops_per_epoch * crop < SHORT:
        return
    step = run.seconds_of_a_step(crops, device, dtype_of(settings.dtype, device))
    step /= run.devices * run.nodes if device.type != "cpu" else run.nodes  # a processor's cores are shared
    validation = run.seconds_of_a_validation(device)
    seconds = settings.epochs * settings.steps_per_epoch * step
    seconds += (settings.epochs // settings.validate_every + 2) * validation * len(run.validation)
    run.clock.rules = bool(limit) and (not settings.epochs or seconds > limit)
    if run.clock.rules:
        run.validate_on(run.affordable(validation))
        run.afford_at_the_end(validation)
        if (1 + AT_THE_END) * validation > limit / 2:
            logger.warning(
                "Validating on a single image takes some %s, and the run has %s: it may take longer than that. Give it "
                "more time, or smaller images to validate on.",
                *(duration(validation), duration(limit)),
            )
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
    often = min(10, settings.steps_per_epoch)
    trainer = lightning.Trainer(
        accelerator=device.type,
        devices=run.devices,
        num_nodes=run.nodes,
        strategy=ranks.strategy_of(run.devices * run.nodes, changes=isinstance(run.model.method, HasCurriculum)),
        use_distributed_sampler=False,  # which repeats images where ranks are uneven; `Places` has no need to
        accumulate_grad_batches=settings.accumulate,
        precision=_precision(settings, device),
        max_epochs=settings.epochs or -1,  # -1: until time is up
        num_sanity_val_steps=0,
        log_every_n_steps=often,
        logger=[
            CSVLogger(out / "logs", name="csv", flush_logs_every_n_steps=often),  # for whoever is watching
            TensorBoardLogger(out / "logs", name="tensorboard"),
        ],
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
        ranks.share_of_batch(settings.batch_size, run.devices * run.nodes * settings.accumulate),
        sampler=run.places,
        collate_fn=collate,
        drop_last=True,
        num_workers=crops.workers,
        persistent_workers=crops.workers > 0,
        multiprocessing_context="spawn" if crops.workers else None,  # numba and forked processes do not mix
    )
    with warnings.catch_warnings():
        ranks.hush()
        try:
            trainer.fit(run, loader, ckpt_path=checkpoint, weights_only=True)
        except InputError:
            raise
        except ProcessRaisedException as error:
            run.has_saved |= (out / "last.ckpt").exists()
            raise _sentence_of(error) from error
        except DAMAGE as error:
            if checkpoint is not None and not run.has_begun:
                raise unusable(checkpoint, error) from error
            raise

    if run.devices > 1 and not ranks.are_started_elsewhere():
        run.take_over(read_checkpoint(out / "last.ckpt"))  # what the first of the processes knew at the end


def _sentence_of(error: ProcessRaisedException) -> Exception:
    """What a user can mend, if that is why another process ended; else the error itself."""
    last = str(error).strip().splitlines()[-1]
    kind, _, sentence = last.partition(": ")
    if kind.endswith(MemoryError.__name__) or is_for_memory(error):
        return MemoryError(last)
    return InputError(sentence) if kind.endswith(InputError.__name__) else error


class _Progress(pydantic.BaseModel):
    """What a run must remember that Lightning does not know."""

    model_config = pydantic.ConfigDict(extra="forbid", strict=True)

    best: float
    best_epoch: int
    next_epoch: int = pydantic.Field(ge=1)
    seconds: float = pydantic.Field(ge=0, allow_inf_nan=False)
    timed: bool = False  # whether time decides
    reached: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)  # seconds: the limit at which steps ended
    last: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)  # seconds: the last validation
    validations: float = pydantic.Field(default=0.0, ge=0, allow_inf_nan=False)  # seconds: all of them
    validated: int = pydantic.Field(default=0, ge=0)  # images; 0 for all
    thresholds: dict[str, int | float]
    missed: list[int] = []  # objects of the training images


class _Run(lightning.LightningModule):
    """The loop's steps: loss, optimiser, schedule, and validation after each epoch."""

    def __init__(self, model: Model, settings: Settings, places: Places, validation: Dataset, out: Path) -> None:
        super().__init__()
        self.model, self.settings, self.places, self.out = model, settings, places, out
        self.every = self.validation = validation  # all images, and those that are validated on
        self.at_the_end = len(validation)  # images that the result is tuned and scored on
        self.best, self.best_epoch = -1.0, 0
        self.crowded = 0  # crops of this epoch with more objects than the method can find
        self.has_begun = self.has_saved = False
        self.devices = self.nodes = 1
        self.steps = 0  # that were taken
        self.average = None
        if settings.average:
            self.average = AveragedModel(model, multi_avg_fn=_drawn_to(settings.average), use_buffers=True)
        self.begun = dict(model.method.thresholds)  # what they are before anything was learned
        self.learned_from: Dataset = validation  # where it looks for what it misses
        self.missed: Missed | None = None
        self.clock = Clock(60 * settings.minutes)

    @property
    def kept(self) -> Model:
        """The model that is validated and saved."""
        kept = self.model if self.average is None else self.average.module
        assert isinstance(kept, Model)
        return kept

    def setup(self, stage: str) -> None:
        """Have all ranks do the same."""
        self.places.rank, self.places.ranks = ranks.rank(), ranks.size()
        there = self.trainer.strategy.root_device
        if ranks.size() > 1 and there.type == "cpu":
            torch.set_num_threads(max(1, torch.get_num_threads() // self.devices))
        if self.clock.limit and ranks.size() > 1:
            self.clock.rules = bool(ranks.agreed(self.clock.rules, there))
            self.clock.told = ranks.agreed(self.clock.measured(), there)
            self.validate_on(int(ranks.agreed(len(self.validation), there)))

        # before DDP has laid out its buckets by the weights' strides: later, it would give gradients to other weights
        self.model.to(memory_format=self._layout(there))  # type: ignore[call-overload]

    def _layout(self, device: torch.device) -> torch.memory_format:
        """Channels last is faster, but normalisation's gradients are wrong in it on MPS."""
        return torch.contiguous_format if device.type == "mps" else channels_last(2 + self.model.description.axes)

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

    def afford_at_the_end(self, seconds: float) -> None:
        """Choose on how many volumes the result is tuned and scored, if one takes so long; there are few of them.

        Of images, those that are validated on are enough.
        """
        n = len(self.validation)
        if self.model.description.axes == 3:
            n = max(n, min(len(self.every), int(SHARE_AT_THE_END * self.clock.limit / AT_THE_END / seconds)))
        self.at_the_end, self.clock.more = n, n / len(self.validation)

    def _validate_on_more(self, seconds: float) -> None:
        """Validate on more images from now on where it took less time than it seemed with untrained weights."""
        each = seconds / len(self.validation)
        n = min(len(self.every), self.affordable(each))
        if n >= 2 * len(self.validation) and self.clock.share() < 0.5:
            self.validate_on(n)
            self.clock.last = each * n
            self.best = -1.0  # scores on other images do not compare
        self.afford_at_the_end(each)

    def seconds_of_a_validation(self, device: torch.device) -> float:
        """How long it takes on a single image, with the present weights."""
        thresholds, start = dict(self.kept.method.thresholds), time.monotonic()
        self._validated_on(_some(self.validation, 1), device)
        self.kept.method.thresholds.update(thresholds)
        return time.monotonic() - start

    def seconds_of_a_step(self, crops: RandomCrops, device: torch.device, dtype: torch.dtype) -> float:
        """How long a step takes one device, from one on a copy of the model after another one has warmed up.

        A first crop is made before, too: on a new installation it waits for what is compiled then.
        """
        parts = self.devices * self.nodes * self.settings.accumulate
        share = ranks.share_of_batch(self.settings.batch_size, parts)
        model = copy.deepcopy(self.model).to(device).train()
        crops[0, 0]
        begun = time.monotonic()
        batch = collate([crops[0, index] for index in range(share)]).to(device)
        making = time.monotonic() - begun
        for _ in range(2):
            begun = time.monotonic()
            with torch.autocast(device.type, dtype, enabled=dtype is not torch.float32):
                maps = model(batch.images.contiguous(memory_format=channels_last(batch.images.ndim)))
            total = torch.stack(list(model.method.loss(maps, batch.truth).values())).sum()
            total.backward()
            total.item()  # waits for a device that computes by itself
        learning = time.monotonic() - begun
        return parts * (max(learning, making) if crops.workers else learning + making)

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
        number = index * self.places.ranks + self.places.rank  # of this part of the epoch's crops
        torch.manual_seed(seed_of(self.settings.seed, self.current_epoch, number, -1))  # for dropout
        self.crowded += _crowded(batch.truth, self.model.method.max_instances)
        maps = self.model(batch.images.contiguous(memory_format=self._layout(self.device)))
        terms = self.model.method.loss(maps, batch.truth)
        total = torch.stack([self.model.method.weights[name] * value for name, value in terms.items()]).sum()
        if not torch.isfinite(total):
            raise InputError(self._where_not_finite(maps, batch))
        self.log("loss", total, prog_bar=True, batch_size=len(batch.names))
        self.log_dict({f"loss/{name}": value for name, value in terms.items()}, batch_size=len(batch.names))
        return total

    def on_train_batch_end(self, *_: object) -> None:
        if self.global_step == self.steps:  # only a part of a batch
            return
        self.steps = self.global_step
        if self.clock.limit and ranks.size() > 1:
            self.clock.told = ranks.agreed(self.clock.measured(), self.device)
        if self.average is not None:
            self.average.update_parameters(self.model)
        if self.clock.is_up():
            self.trainer.should_stop = True

    def _where_not_finite(self, maps: M, batch: Batch) -> str:
        """A sentence that names the images whose loss is not finite."""
        culprits = []
        for i, name in enumerate(batch.names):
            own = each_changed(maps, itemgetter(slice(i, i + 1)))
            losses = self.model.method.loss(own, batch.truth.of_image(i))
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
        ranks.average_statistics(self.kept)
        with self.clock.validating():
            scores = self._validated()
            if self.missed is not None:
                self._look_for(self.missed)
        self.clock.last = ranks.agreed(self.clock.last, self.device)
        self.log_dict({f"validation/{name}": value for name, value in scores.items()})
        score = scores["mean" if self.settings.metric == "average_precision" else self.settings.metric]
        self.log("score", score, prog_bar=True, logger=False)
        if score > self.best or not self.best:  # as long as nothing is found, the latest is as good as any
            self.best, self.best_epoch = score, self.current_epoch
            if self.global_rank == 0:
                self.kept.save(self.out / "best.safetensors")
        if self.clock.rules:
            self._validate_on_more(self.clock.last)
        if self._out_of_patience(self.current_epoch):
            self.trainer.should_stop = True

    def _is_time_to_validate(self, epoch: int) -> bool:
        """Whether this many epochs call for it: the last one always does."""
        if epoch == self.settings.epochs or self.clock.is_up():
            return True
        wanted = epoch % self.settings.validate_every == 0
        return wanted and bool(ranks.agreed(self.clock.allows_validation(), self.device))

    def _validated(self) -> dict[str, float]:
        """The scores after tuning the thresholds."""
        return self._validated_on(self.validation, self.device)

    def _validated_on(self, images: Dataset, device: torch.device) -> dict[str, float]:
        segmenter = Segmenter(self.kept, device=device.type, dtype="float32", record=False)
        thresholds, metric = self.kept.method.thresholds, self.settings.metric
        share: dict[str, Any] = {"deal": ranks.dealt, "gather": ranks.gathered}
        if _has_objects(images, self.settings.few_objects):
            thresholds.update(tune(segmenter, images, rounds=1, metric=metric, **share))
        else:
            thresholds.update(_lowered(segmenter, self.begun, images, metric, **share))
        return _scores(segmenter, images, metric)

    def _look_for(self, missed: Missed) -> None:
        """Look at as many training images as were validated on, the next ones, for what is missed in them."""
        n = min(len(self.validation), len(self.learned_from))
        images = [(self.current_epoch * n + k) % len(self.learned_from) for k in range(n)]
        segmenter = Segmenter(self.kept, device=self.device.type, dtype="float32", record=False)
        own = list(ranks.dealt(images))
        looked = zip(own, predicted(segmenter, Subset(self.learned_from, own)) if own else (), strict=True)
        found = [(image, not_found(sample.labels, instances.labels)) for image, (sample, instances) in looked]
        for image, labels in ranks.gathered(found):
            missed.look(image, labels)

    def take_over(self, checkpoint: Mapping[str, Any]) -> None:
        """Know what was known when a checkpoint was written: how far the run is, and what it validates on."""
        progress = _Progress.model_validate(checkpoint["attractor"])
        self.steps, self.clock.rules = int(checkpoint["global_step"]), progress.timed
        self.clock.last, self.clock.validations = progress.last, progress.validations
        self.validate_on(progress.validated or len(self.every))
        self.at_the_end = len(self.validation)
        if self.clock.rules and progress.last:
            self.afford_at_the_end(progress.last / len(self.validation))

    def on_save_checkpoint(self, checkpoint: dict[str, object]) -> None:
        self.has_saved = True
        progress = _Progress(
            best=self.best,
            best_epoch=self.best_epoch,
            next_epoch=self.current_epoch + 1,
            seconds=self.clock.spent(),
            timed=self.clock.rules,
            reached=self.clock.reached,
            last=self.clock.last,
            validations=self.clock.validations,
            validated=len(self.validation),
            thresholds=dict(self.kept.method.thresholds),
            missed=[] if self.missed is None else self.missed.places,
        )
        checkpoint["attractor"] = progress.model_dump()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        progress = _Progress.model_validate(checkpoint["attractor"])
        if progress.thresholds.keys() != self.model.method.thresholds.keys():
            raise ValueError("its thresholds belong to another method")
        self.has_saved = True
        self.best, self.best_epoch, self.clock.before = progress.best, progress.best_epoch, progress.seconds
        self.clock.reached = progress.reached
        self.take_over(checkpoint)
        if self.missed is not None:
            self.missed.places = progress.missed
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
    own = Subset(validation, list(ranks.dealt(range(len(validation)))))
    images, others = list[ImageScores](), list[Scores | None]()
    for pair in predicted(segmenter, own) if len(own) else ():
        images.append(score_image(pair_of(*pair)))
        others.append(None if metric == "average_precision" else score_pair(*pair, metric=metric))
    images, scored = ranks.gathered(images), [scores for scores in ranks.gathered(others) if scores is not None]
    by_image = np.mean([image.average_precision for image in images], 0)
    shown = {f"ap{100 * t:.0f}": float(by_image[THRESHOLDS.index(t)]) for t in SHOWN}
    return {"mean": float(by_image.mean())} | shown | ({metric: headline_of(metric)(scored)} if scored else {})


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
