"""What a training step learns from: random crops of the annotated images, in batches.

All randomness comes from (seed, epoch, index), whatever number of processes makes the crops.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from numpy.typing import ArrayLike
from torch import Tensor

from attractor.augmentation import Augmentation, pasted
from attractor.datasets import Dataset, Sample
from attractor.datasets.held import Held
from attractor.description import Description
from attractor.errors import InputError
from attractor.images import as_channels
from attractor.methods.contract import Follows
from attractor.model import Model
from attractor.prediction.memory import free_memory
from attractor.prediction.resampling import nearest, rescaled, to_spacing_of
from attractor.settings import Settings
from attractor.statistics import to_other_sizes
from attractor.training.missed import Missed
from attractor.training.ready import InMemory, Ready, Tensors, kept_on_disk
from attractor.truth import Truth

logger = logging.getLogger(__name__)

TRIES = 20  # places that are drawn until one counts: of an image that was reviewed only in part, few may


class Crop(NamedTuple):
    """A part of an image."""

    image: Float[Tensor, "c *t"]
    labels: Int32[Tensor, "*t"]
    valid: Bool[Tensor, "*t"]  # where labels count
    sample: Sample  # that it is from
    classes: Int[np.ndarray, " k"]  # of its objects
    earlier: Int[np.ndarray, " k"] | None = None  # label that each object has in the crop before


Crops: TypeAlias = tuple[Crop, ...]  # of one image or, where a method follows objects, of two frames of a film


@dataclass(frozen=True)
class Batch:
    """Crops to learn from."""

    images: Float[Tensor, "b c *t"]
    truth: Truth
    names: tuple[str, ...]  # of the images the crops are from

    def to(self, device: torch.device) -> Batch:
        """The same batch on a device."""
        there: dict[str, Any] = {
            name: value if value is None else value.to(device) for name, value in vars(self.truth).items()
        }
        truth = Truth(**there)
        return Batch(self.images.to(device), truth, self.names)


@dataclass(frozen=True)
class Room:
    """A folder for images that memory does not hold."""

    place: Path  # an existing folder on the same disk
    make: Callable[[], Path]  # makes the folder


class RandomCrops(torch.utils.data.Dataset[Crops]):
    """Random crops of the training images; (seed, epoch, index) decides each.

    Where the method follows objects through films, each crop comes with that of the frame before at the same place, or
    with one of the same frame where there is none before: its objects have not moved.
    """

    def __init__(
        self,
        model: Model,
        images: Held,
        settings: Settings,
        augmentation: Augmentation,
        device: torch.device | None = None,
        room: Room | None = None,
    ) -> None:
        """Have the images ready: in memory, or on a disk with enough room for them; else each crop reads its image.

        If a device is given and has room for the images held in memory, they lie there, and crops are made there.
        """
        self.settings, self.augmentation = settings, augmentation
        self.source, self.description = images.source, model.description
        self.follows = isinstance(model.method, Follows) and model.method.follows
        self.factors = to_other_sizes(images.measured, augmentation.even_sizes)
        self.places = {name: place for place, name in enumerate(images.names)}
        scale, n_axes = model.description.scale, model.description.axes
        if images.statistics.n_axes != n_axes:
            raise InputError(_unlike(images.statistics.n_axes))
        sizes = [max(1, round(size * scale**n_axes)) for size in images.statistics.image_sizes.prod(axis=1).tolist()]
        self.weights = torch.from_numpy(image_weights(images, sizes, settings, n_axes))
        if not images.statistics.count:
            raise InputError("None of the training images has an object, so there is nothing to learn from.")
        _check_classes(images, self.description)
        counts = [len(part.classes) for part in images.measured]
        self.missed = Missed(counts) if settings.around_missed else None
        self.by_class = _objects_by_class(images) if settings.even_classes else None
        n_bytes = sum(sizes) * (2 * model.description.channels + 5)
        self.ready: Sequence[Ready] | None
        if images.samples is not None:
            held = [self._prepared(sample) for sample in images.samples]
            fits = device is not None and 2 * n_bytes < free_memory(device)
            self.there = [image.tensors(device) for image in held] if fits else None
            self.ready = held
            return
        self.there = None
        prepared = (self._prepared(self.source[index]) for index in range(len(images)))
        self.ready = None if room is None else kept_on_disk(prepared, n_bytes, room.make, room.place)
        many = f"The training images have {sum(sizes) // 10**6:,} million pixels, too many to hold"
        if self.ready is None:
            logger.warning(
                "%s, and the disk has no %.0f GB for them: each crop reads its image again. More training.workers may "
                "keep up with the network (now %d).",
                *(many, n_bytes / 1e9, settings.workers),
            )
        else:
            logger.warning("%s: while training they take %.1f GB on the disk.", many, n_bytes / 1e9)

    @property
    def workers(self) -> int:
        """Processes that make crops; 0 if crops are made on a device."""
        return 0 if self.there is not None else self.settings.workers

    def _prepared(self, sample: Sample) -> InMemory:
        """The image as the network will see it."""
        image = normalised(self.description, sample).numpy()
        shape = image.shape[1:]
        labels, ignore = (nearest(array, shape) for array in (sample.labels, sample.ignore))
        return InMemory.of(image, labels, ignore, sample)

    def __len__(self) -> int:
        """Number of crops in an epoch."""
        return self.settings.crops_per_epoch

    def __getitem__(self, place: tuple[int, int]) -> Crops:
        """The crop of an (epoch, index), and before it that of the frame before, if the method follows objects."""
        generator = torch.Generator().manual_seed(seed_of(self.settings.seed, *place))
        found, share = self._found(generator), self.augmentation.paste
        if share and not self.follows and float(torch.rand((), generator=generator)) < share:
            (own,), (other,) = found, self._found(generator)
            crop, labels = pasted(own[:3], other[:3], len(own.classes), generator)
            classes = np.append(own.classes, other.classes[np.array(labels, int) - 1])
            return (Crop(*crop, own.sample, classes),)
        return found

    def _found(self, generator: torch.Generator) -> Crops:
        """What is annotated at a random place."""
        i, label = self._drawn(generator)
        ready, tensors = self._whole(i)
        least, most = self.factors[i]
        centre = self._centre(ready, label, most, generator)
        frames, earlier = [(ready, tensors)], None
        if self.follows:
            before, earlier = self._before(i, ready.sample)
            frames.insert(0, self._whole(before))
        shape, spacing = self.settings.crop_shape(len(ready.shape)), self.description.steps
        augmentation = self.augmentation.between(least, most)
        crops = augmentation.crop_alike([own for _, own in frames], centre, shape, generator, spacing=spacing)
        found = [Crop(*crop, own.sample, own.sample.classes) for crop, (own, _) in zip(crops, frames, strict=True)]
        return *found[:-1], found[-1]._replace(earlier=earlier)

    def _whole(self, i: int) -> tuple[Ready, Tensors]:
        """An image with its annotation."""
        ready = self._prepared(self.source[i]) if self.ready is None else self.ready[i]
        return ready, ready.tensors() if self.there is None else self.there[i]

    def _before(self, i: int, sample: Sample) -> tuple[int, Int[np.ndarray, " k"]]:
        """The place of the frame before an image, and the label there of each object."""
        earlier = sample.earlier
        if earlier is None or earlier.name not in self.places:
            return i, np.arange(1, len(sample.classes) + 1)
        return self.places[earlier.name], earlier.labels

    def _drawn(self, generator: torch.Generator) -> tuple[int, int | None]:
        """An image, and the label of the object to show; 0 for a place anywhere, None to choose in the image."""
        if self.missed is not None and float(torch.rand((), generator=generator)) < self.settings.around_missed:
            missed = self.missed.drawn(generator)
            if missed is not None:
                return missed
        i = int(torch.multinomial(self.weights, 1, generator=generator))
        if self.by_class is None:
            return i, None
        if float(torch.rand((), generator=generator)) >= self.settings.around_objects:
            return i, 0
        objects = self.by_class[int(torch.randint(len(self.by_class), (), generator=generator))]
        i, label = objects[int(torch.randint(len(objects), (), generator=generator))].tolist()
        return i, label

    def _centre(self, ready: Ready, label: int | None, most: float, generator: torch.Generator) -> tuple[float, ...]:
        """A place anywhere that counts or, more often, one that puts an object in the middle half of the crop.

        That half is smaller in an image that may be magnified by `most` on top of what all images are.
        """
        by_object, *place = torch.rand(1 + len(ready.shape), generator=generator).tolist()
        n = len(ready.centres)
        if label is None and by_object < self.settings.around_objects and n:
            label = 1 + int(torch.randint(n, (), generator=generator))
        if not label or np.isnan(ready.centres[label - 1]).any():
            for _ in range(TRIES):
                anywhere = tuple(own * side for own, side in zip(place, ready.shape, strict=True))
                if ready.counts(tuple(map(int, anywhere))):
                    break
                place = torch.rand(len(ready.shape), generator=generator).tolist()
            return anywhere
        sides = self.settings.crop_shape(len(ready.shape))
        around = zip(ready.centres[label - 1], place, sides, strict=True)
        return tuple(float(middle + (own - 0.5) * (side / (2 * most))) for middle, own, side in around)


class Places(torch.utils.data.Sampler[tuple[int, int]]):
    """The (epoch, index) of each crop of the current epoch, in whole batches; of each batch, one rank's share."""

    def __init__(self, n: int, batch_size: int) -> None:
        self.n, self.batch_size, self.epoch = n - n % batch_size, batch_size, 0
        self.rank, self.ranks = 0, 1

    def __len__(self) -> int:
        return self.n // self.ranks

    def __iter__(self) -> Iterator[tuple[int, int]]:
        share = self.batch_size // self.ranks
        own = (range(start + self.rank * share, start + (self.rank + 1) * share) for start in self._batches())
        return ((self.epoch, index) for part in own for index in part)

    def _batches(self) -> range:
        return range(0, self.n, self.batch_size)


def image_weights(
    dataset: Dataset, sizes: Sequence[int], settings: Settings, n_axes: int = 2
) -> Float[np.ndarray, " m"]:
    """How often each image is drawn: in proportion to the square root of the crops it holds, and of its group's rarity.

    With `settings.balance`, a group of images that is n times as large as another is drawn sqrt(n) times as often.
    """
    n_pixels = math.prod(settings.crop_shape(n_axes))
    crops = np.array([max(1.0, size / n_pixels) for size in sizes])
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


def _objects_by_class(images: Held) -> list[Int[np.ndarray, "k 2"]]:
    """For each class that has objects, image and label of every one of them."""
    places = [
        np.stack([np.full_like(part.classes, i), 1 + np.arange(len(part.classes))], axis=1)
        for i, part in enumerate(images.measured)
    ]
    objects, classes = np.concatenate(places), np.concatenate([part.classes for part in images.measured])
    return [objects[classes == number] for number in np.unique(classes)]


def collate(crops: Sequence[Crops]) -> Batch:
    """Crops as a batch; rows of classes are padded with 0."""
    images, labels, valid, samples, classes, earlier = zip(*(crop for frames in crops for crop in frames), strict=True)
    most = max(1, *map(len, classes))
    came = None if all(own is None for own in earlier) else _rows([() if own is None else own for own in earlier], most)
    truth = Truth(torch.stack(labels), _rows(classes, most), torch.stack(valid), came)
    return Batch(torch.stack(images), truth, tuple(sample.name for sample in samples))


def _rows(values: Sequence[ArrayLike], length: int) -> Int[Tensor, "b k"]:
    """Whole numbers of each image, padded with 0."""
    rows = torch.zeros(len(values), length, dtype=torch.int64)
    for row, own in zip(rows, values, strict=True):
        numbers = torch.from_numpy(np.asarray(own, np.int64))
        row[: len(numbers)] = numbers
    return rows


def normalised(description: Description, sample: Sample) -> Float[Tensor, "c *t"]:
    """The image as the network will see it, at the model's scale, in half precision to save memory."""
    pixels = as_channels(sample.image, description.channels, sample.name)
    image = torch.from_numpy(description.normalisation(pixels)).movedim(-1, 0)[None]
    factors = to_spacing_of(description, sample.spacing, sample.name)
    return rescaled(image, factors)[0].clamp(-6e4, 6e4).half()


def _unlike(n_axes: int) -> str:
    """Why data with so many axes do not suit a model with another number of them."""
    if n_axes == 3:
        return "The data are volumes, and the model takes images; give model.axes = 3, or begin with another model."
    return "The data are images, and the model takes volumes; give model.axes = 2, or begin with another model."


def _check_classes(images: Held, description: Description) -> None:
    """Refuse objects of a class that the model lacks."""
    for name, measured in zip(images.names, images.measured, strict=True):
        if measured.classes.max(initial=0) > len(description.class_names):
            raise InputError(
                f"{name}: has class {images.class_names[measured.classes.max() - 1]}, but the model knows "
                f"{', '.join(description.class_names)} only; train a model for all classes of the data."
            )


def seed_of(*numbers: int) -> int:
    """One well-mixed seed from several numbers."""
    return int(np.random.SeedSequence([n & 0xFFFFFFFF for n in numbers]).generate_state(1, np.uint64)[0] >> 1)
