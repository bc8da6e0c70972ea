"""One image in memory: from the array to its objects.

Shapes: `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

import copy
import logging
from functools import cached_property, partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from attractor.augmentation import UPRIGHT_VIEWS, VIEWS, View
from attractor.errors import InputError, check_thresholds
from attractor.images import as_channels, as_image
from attractor.instances import Instances, relabel
from attractor.model import Model
from attractor.prediction.engines import check_engine, dtype_of, engine_of
from attractor.prediction.tiles import check_tile, tiled_maps

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")


class Segmenter:
    """A model on a device, ready to be shown images."""

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        thresholds: dict[str, float] | None = None,
        engine: str = "torch",
        precision: str = "float32",
    ) -> None:
        """Move the model to the device.

        Args:
            model: made or loaded.
            device: "cpu", "cuda", "mps", or "auto" for the first of CUDA, MPS and CPU that is there.
            thresholds: to set in the model, by name.
            engine: what computes the network: "torch", "compiled" or "openvino".
            precision: of the network: "float32", "bfloat16", or "auto" for bfloat16 where the device is found to be
                much faster with it.

        Raises:
            InputError: if the device or engine is not there, or the method has no such threshold, or not of this value.
        """
        known = model.method.thresholds
        if unknown := [name for name in thresholds or {} if name not in known]:
            raise InputError(f"The model has no threshold {', '.join(unknown)}; its thresholds are {', '.join(known)}.")
        check_thresholds(thresholds or {}, model.method.threshold_ranges)
        known.update(thresholds or {})
        self.device = choose_device(device)
        check_engine(engine, precision, self.device)
        self.engine, self._precision = engine, precision
        self.model = model.to(self.device)

    @cached_property
    def precision(self) -> str:
        """That of the network, "float32" or "bfloat16"."""
        return str(dtype_of(self._precision, self.device)).removeprefix("torch.")

    @cached_property
    def _method(self) -> Any:
        """The model's method, with its network as the engine computes it."""
        method = self.model.eval().method
        twin = copy.copy(method)  # it shares all else, thresholds among it
        network = engine_of(method.network, name=self.engine, precision=self.precision, device=self.device)
        twin._modules = method._modules | {"network": network}
        return twin

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2 and so on."""
        return self.model.description.class_names

    @property
    def is_ordered(self) -> bool:
        """Whether labels are numbered in the order in which the objects were found."""
        return getattr(self.model.method, "ordered", False)

    @property
    def views(self) -> tuple[View, ...]:
        """The ways to lay an image that test-time augmentation averages: those that the model has seen in training."""
        augmentation = self.model.description.recipe.get("augmentation", {})
        return UPRIGHT_VIEWS if augmentation.get("upright") else VIEWS

    def segment(
        self,
        image: Shaped[np.ndarray, "h w *c"],
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
        name: str = "The image",
    ) -> Instances:
        """Every object of an image.

        Args:
            image: (h, w) or (h, w, c), of bool, any integer or float; it is not modified.
            tta: average over the eight ways to lay the image (test-time augmentation): better, eight times slower; over
                the image and its mirror image for a model of upright photographs.
            object_size: typical diameter of the objects in this image, in pixels. The image is rescaled so that
                they have the size the model was trained on, and the labels are scaled back.
            tile: side in pixels of the tiles to compute one after another, for images too large for the memory.
            name: of the image, for messages.

        Raises:
            InputError: if the image has not as many channels as the model, or NaN or infinite pixels.
        """
        pixels = self._pixels(image, name)
        shape = pixels.shape[:2]
        if (pixels == pixels[0, 0]).all():  # nothing can be told apart
            return Instances.from_labels(np.zeros(shape, np.int32))
        tensor = _rescaled(self._tensor(pixels), self._magnification(object_size))
        maps = self.maps(tensor, tta=tta, tile=tile)
        (found,) = self.model.method.group(maps)
        if (most := self.model.method.max_instances) is not None and self.model.method.is_full(maps)[0]:
            logger.warning("%s: this model finds at most %d objects in an image; there may be more.", name, most)
        return found if found.labels.shape == shape else _resized(found, shape)

    def propose(
        self, image: Shaped[np.ndarray, "h w *c"], n: int, *, tta: bool = False, name: str = "The image"
    ) -> Instances:
        """The best n proposals for objects of an image: masks that may overlap, each with its score.

        Args:
            image: as for `segment`.
            n: at most so many.
            tta: average over eight views of the image.
            name: of the image, for messages.

        Raises:
            InputError: if the method offers no proposals, or as `segment` does.
        """
        self._check_proposals()
        pixels = self._pixels(image, name)
        if (pixels == pixels[0, 0]).all():  # nothing can be told apart
            return Instances.from_labels(np.zeros(pixels.shape[:2], np.int32))
        (found,) = self.model.method.propose(self.maps(self._tensor(pixels), tta=tta), n)
        return found

    def prepared(self, image: Shaped[np.ndarray, "h w *c"], *, name: str = "The image") -> Float[Tensor, "1 c h w"]:
        """The image as the network wants it: normalised, a batch of one, on the device."""
        return self._tensor(self._pixels(image, name))

    def _pixels(self, image: Shaped[np.ndarray, "h w *c"], name: str) -> Shaped[np.ndarray, "h w c"]:
        pixels = as_channels(as_image(image, name=name), self.model.description.channels, name)
        if not min(pixels.shape[:2]):
            raise InputError(f"{name} has {pixels.shape[0]} x {pixels.shape[1]} pixels; at least one is needed.")
        return pixels

    def _tensor(self, pixels: Shaped[np.ndarray, "h w c"]) -> Float[Tensor, "1 c h w"]:
        normalised = torch.from_numpy(self.model.description.normalisation(pixels))
        return normalised.permute(2, 0, 1)[None].to(self.device)

    @torch.inference_mode()
    def maps(self, image: Float[Tensor, "1 c h w"], *, tta: bool = False, tile: int | None = None) -> Any:
        """The method's raw maps of a normalised image, averaged over its views with `tta`."""
        if tile is not None:
            self._check_tile(tile)
        predict = self._method if tile is None else partial(tiled_maps, self._method, tile=tile)
        if not tta:
            return predict(image)
        self._check_views()
        method = self.model.method
        return method.averaged([method.turned(predict(view.apply(image)), view) for view in self.views])

    def check_options(
        self,
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
        n_proposals: int = 0,
    ) -> None:
        """Raise what `segment`, or `propose` with proposals asked for, would raise about these, without an image."""
        self._magnification(object_size)
        if tile is not None:
            self._check_tile(tile)
        if tta:
            self._check_views()
        if n_proposals:
            self._check_proposals()

    def _check_tile(self, tile: int) -> None:
        if not getattr(self.model.method, "tileable", True):
            raise InputError(
                f"{self.model.description.method} sees each image as a whole here and cannot compute it in tiles; "
                "leave --tile out, or cut or shrink the image."
            )
        check_tile(tile, stride=getattr(self.model.method.network, "strides", (8,))[-1])

    def _check_proposals(self) -> None:
        if not hasattr(self.model.method, "propose"):
            raise InputError(
                f"{self.model.description.method} offers no proposals; take a model whose method does, or a metric "
                "that scores objects, such as average_precision."
            )

    def _check_views(self) -> None:
        if not hasattr(self.model.method, "turned"):
            raise InputError(f"{self.model.description.method} has no test-time augmentation; leave --tta out.")

    def _magnification(self, object_size: float | None) -> float:
        if object_size is None:
            return 1.0
        if not object_size > 0:
            raise InputError(f"The object size is {object_size}; it is a diameter in pixels, above 0.")
        trained = self.model.description.object_size
        if trained is None:
            raise InputError("This model does not say what object size it was trained on; leave the object size out.")
        return trained / object_size


def choose_device(name: str) -> torch.device:
    """The device of a name; "auto" is the first of CUDA, MPS and CPU that is there."""
    if name not in DEVICES:
        raise InputError(f'There is no device "{name}"; it can be {", ".join(DEVICES)}.')
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, usable in there.items() if usable)
    if not there[name]:
        raise InputError(
            f"This machine has no {name} device that torch can use; leave the device to auto, or take cpu."
        )
    return torch.device(name)


def _rescaled(image: Float[Tensor, "1 c h w"], factor: float) -> Float[Tensor, "1 c i j"]:
    h, w = image.shape[-2:]
    size = max(1, round(h * factor)), max(1, round(w * factor))
    if size == (h, w):
        return image
    return F.interpolate(image, size, mode="bilinear", antialias=factor < 1, align_corners=False)


def _resized(found: Instances, shape: tuple[int, int]) -> Instances:
    """The same objects on a finer or coarser grid; one too small to keep a pixel is left out."""
    rows, columns = (
        np.minimum(((np.arange(n) + 0.5) * m / n).astype(int), m - 1)
        for n, m in zip(shape, found.labels.shape, strict=True)
    )
    labels, kept = relabel(found.labels[np.ix_(rows, columns)])
    return Instances(labels, found.classes[kept - 1], found.scores[kept - 1])
