"""One image in memory: from the array to its objects.

A model for volumes takes volumes by the same calls: nothing differs but the number of axes, and the step along each.

Shapes: `s` the lengths of an image, rows and columns, or of a volume, planes, rows and columns; `c` channels.
"""

from __future__ import annotations

import copy
import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence, Sized
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cached_property, partial
from itertools import chain
from operator import itemgetter
from threading import Lock
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Shaped
from numpy.typing import ArrayLike
from torch import Tensor, nn

from attractor.augmentation import UPRIGHT_VIEWS, VIEWS, View, views_of
from attractor.errors import InputError, check_number, check_thresholds
from attractor.images import as_channels, as_image
from attractor.images.tiff import FEW_PLANES
from attractor.instances import Instances
from attractor.methods.contract import (
    Follows,
    Gathers,
    KeepsWhole,
    KnowsWhenFull,
    Method,
    Ordered,
    Proposes,
    Rescales,
    Turns,
    each_changed,
    with_network,
)
from attractor.methods.points import Grown, Points, joined_parts
from attractor.model import Model
from attractor.networks.contract import strides_along
from attractor.networks.eight_bits import check_ranges
from attractor.networks.normalised import Normalised
from attractor.normalisation import Normalisation
from attractor.prediction import batches
from attractor.prediction.batches import Given, in_groups, known, n_pixels_of, settled
from attractor.prediction.crew import Crew
from attractor.prediction.engines import EIGHT_BITS, Graphed, check_engine, dtype_of, engine_of
from attractor.prediction.memory import chosen_tile, chosen_tile_of_volume, most_pixels, smaller_tile
from attractor.prediction.resampling import rescaled, resized, to_spacing_of
from attractor.prediction.tiles import (
    HALO,
    Part,
    Parts,
    check_tile,
    cut,
    maps_within,
    sides_of,
    strips,
    tiled_maps,
    whole_of,
)
from attractor.shortage import is_for_memory

logger = logging.getLogger(__name__)

DEVICES = ("auto", "cpu", "cuda", "mps")
TTA_SCALES = 0.25, 4.0  # the smallest and the largest: a network knows no object at others
MOST_PIXELS = 1 << 31  # in an image: positions in it are 32-bit numbers
FEW_COLUMNS = 16  # what has more along its last axis is no image with channels
HALO_OF_VOLUMES = (
    64  # voxels along rows and columns; a volume that is seen so far around a tile has 27 times its voxels
)

T = TypeVar("T")


class Source:
    """A normalised image (1, c, *s) on a device; parts of it are made when they are asked for."""

    def __init__(self, pixels: Shaped[np.ndarray, "*s c"], normalisation: Normalisation, device: torch.device) -> None:
        """Look at the whole image; no part is made yet."""
        self.shape = 1, pixels.shape[-1], *pixels.shape[:-1]
        self._part: Callable[[tuple[slice, ...]], Tensor] = (
            _parts_here(pixels, normalisation) if device.type == "cpu" else _parts_there(pixels, normalisation, device)
        )

    def __getitem__(self, part: Part) -> Float[Tensor, "1 c *t"]:
        """The part `[..., rows, columns]`; of a volume, planes come first."""
        return self._part(sides_of(part))


def _parts_here(
    pixels: Shaped[np.ndarray, "*s c"], normalisation: Normalisation
) -> Callable[[tuple[slice, ...]], Tensor]:
    """The function that normalises a part of the image with NumPy."""
    low, scale = normalisation.limits(pixels)
    return lambda box: torch.from_numpy((pixels[box] - low) / scale).movedim(-1, 0)[None]


def _parts_there(
    pixels: Shaped[np.ndarray, "*s c"], normalisation: Normalisation, device: torch.device
) -> Callable[[tuple[slice, ...]], Tensor]:
    """The function that normalises a part of the image on the device; the raw image goes there, as it is smaller."""
    known = pixels.astype(np.int32) if pixels.dtype == np.uint16 else pixels  # torch does little with uint16
    there = torch.tensor(known, device=device).movedim(-1, 0)[None]
    low, scale = Normalised(normalisation).limits(there)
    return lambda box: (cut(there, box) - low) / scale


@dataclass(frozen=True)
class Prediction:
    """What was found in an image, and how it was computed."""

    found: Instances
    tile: int | None  # side of the tiles the image was computed in; None if it was computed whole
    network_seconds: float = 0.0  # for preparing the image, and for the network
    grouping_seconds: float = 0.0  # from the network's maps to objects


class Segmenter:
    """A model on a device, ready to be shown images.

    >>> import attractor
    >>> segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    >>> segmenter.class_names, segmenter.dtype
    (('nucleus',), 'float32')
    """

    def __init__(
        self,
        model: Model,
        *,
        device: str = "auto",
        thresholds: dict[str, float] | None = None,
        engine: str = "torch",
        dtype: str = "auto",
        whole_masks: bool = False,
        tta_scales: Sequence[float] = (),
        record: bool = True,
        copies: bool = True,
    ) -> None:
        """Copy the model to the device; the model given stays as it is, and later changes to it have no effect here.

        Args:
            model: made or loaded.
            device: "cpu", "cuda", "mps", or "auto" for the first of CUDA, MPS and CPU that is there.
            thresholds: to use instead of the model's own, by name.
            engine: what runs the network: "torch", "compiled" or "openvino".
            dtype: the type of the numbers in the network: "float32", as for all published scores, "bfloat16", or
                "auto", which is bfloat16 on devices that have instructions for it. OpenVINO also has "int8", for a
                model that was calibrated.
            whole_masks: whether objects that overlap keep whole masks beside the label image.
            tta_scales: magnifications at which test-time augmentation looks at an image, besides its own size.
            record: on CUDA, launch all kernels at once for an image size seen before; this holds on to memory.
            copies: whether to copy the model; there is no need to where nothing else will use it.

        Raises:
            InputError: if the device, engine or dtype is not available, a threshold or scale is unknown or out of
                range, the method cannot give whole masks or look at several scales, or int8 is asked of a model that
                was not calibrated.
        """
        model = (copy.deepcopy(model) if copies else model).eval()
        known = model.method.thresholds
        if unknown := [name for name in thresholds or {} if name not in known]:
            raise InputError(f"The model has no threshold {', '.join(unknown)}; its thresholds are {', '.join(known)}.")
        check_thresholds(thresholds or {}, model.method.threshold_ranges)
        known.update(thresholds or {})
        if whole_masks:
            _keep_whole_masks(model)
        _check_scales(model, tta_scales)
        self.tta_scales = tuple(dict.fromkeys(float(scale) for scale in tta_scales if scale != 1))
        self.device = choose_device(device)
        check_engine(engine, dtype, self.device)
        if engine == "openvino" and model.description.axes == 3:
            raise InputError("The engine openvino computes images only, and this model takes volumes; use torch.")
        if dtype == EIGHT_BITS:
            check_calibrated(model)
        self.engine, self._dtype, self._record = engine, dtype, record
        self._cores = torch.get_num_threads()  # before threads that share them ask for fewer
        self._making = Lock()
        self._tried: int | None = None  # once memory ran out: the side of tiles for which it was enough
        self.model = model.to(self.device)

    @cached_property
    def dtype(self) -> str:
        """The type of the numbers in the network, "float32", "bfloat16" or "int8"."""
        return str(dtype_of(self._dtype, self.device)).removeprefix("torch.")

    @property
    def computes_side_by_side(self) -> bool:
        """Whether several images can be computed at once, each by its own thread."""
        return self.device.type == "cpu" and self.engine != "compiled"

    @property
    def n_together(self) -> int:
        """How many images of one size go through the network together; on a CPU each has a core of its own instead."""
        return batches.MOST_IMAGES if self.device.type != "cpu" and self.engine == "torch" and self.n_axes == 2 else 1

    @property
    def _method(self) -> Method[Any]:
        """The model's method, with its network as the engine computes it."""
        with self._making:  # several threads may be the first to ask
            return self._made

    @cached_property
    def _made(self) -> Method[Any]:
        method = self.model.method
        network = method.network
        assert isinstance(network, nn.Module)
        computed = engine_of(
            network,
            name=self.engine,
            dtype=self.dtype,
            device=self.device,
            record=self._record,
            ranges=self.model.description.ranges,
            cores=self._cores,
        )
        return with_network(method, computed)  # which shares everything else, such as thresholds

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2 and so on."""
        return self.model.description.class_names

    @property
    def is_ordered(self) -> bool:
        """Whether labels are numbered in the order in which the objects were found."""
        return isinstance(self.model.method, Ordered)

    @property
    def follows(self) -> bool:
        """Whether the model can tell where each pixel's object was one frame ago."""
        method = self.model.method
        return isinstance(method, Follows) and method.follows

    @property
    def views(self) -> tuple[View, ...]:
        """The flips and turns that test-time augmentation averages over: those that the model has seen in training.

        Of a volume, these are 8, 16 or 48, as many as its steps along the three axes allow.
        """
        if self.model.description.upright:
            return UPRIGHT_VIEWS
        return views_of(self.model.description.steps) if self.n_axes == 3 else VIEWS

    @property
    def n_axes(self) -> int:
        """Two for a model of images, three for one of volumes."""
        return self.model.description.axes

    def segment(
        self,
        image: ArrayLike,
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
        spacing: Sequence[float] | None = None,
        name: str = "The image",
    ) -> Instances:
        """Every object of an image.

        >>> import attractor, numpy as np
        >>> segmenter = attractor.load("nuclei", device="cpu")
        >>> image = np.zeros((64, 64), np.uint8)
        >>> image[20:40, 20:40] = 200
        >>> found = segmenter.segment(image)
        >>> len(found), found.labels.shape
        (1, (64, 64))

        Args:
            image: (h, w) or (h, w, c), of bool, any integer or float type; it is not modified. Anything that NumPy can
                turn into an array, such as a list of rows, will do. A model for volumes takes (d, h, w) or
                (d, h, w, c).
            tta: average over the eight flips and turns of the image (test-time augmentation): better, but eight times
                slower; for a model of upright photographs, over the image and its mirror image; of a volume, over 8, 16
                or 48 views, as many as its steps allow.
            object_size: typical diameter of the objects in this image, in pixels. The image is rescaled so that
                they have the size the model was trained on, and the labels are scaled back.
            tile: side in pixels of the tiles to compute one after another. By default an image is computed whole up to
                `attractor.prediction.memory.most_pixels`, and a larger one in tiles.
            spacing: micrometres along each axis of a volume; where they are unlike the model's by more than a factor of
                two, it is resampled.
            name: of the image, for messages.

        Raises:
            InputError: if the image's axes or channels do not suit the model, or it has NaN, infinite or too many
                pixels.
        """
        found = self.predict(image, tta=tta, object_size=object_size, tile=tile, spacing=spacing, name=name).found
        return replace(found, class_names=self.class_names)

    def segment_many(
        self,
        images: Iterable[ArrayLike],
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
    ) -> Iterator[Instances]:
        """The objects of each image, in order; several images are computed at once.

        On a CPU each image has a core of its own; on a GPU images of one size go through the network together. Either
        is faster than `segment` in a loop, and finds the same. Images are taken shortly before they are needed, so
        `images` may be a generator of more images than fit into memory.

        >>> import attractor, numpy as np
        >>> segmenter = attractor.load("nuclei", device="cpu")
        >>> images = (np.full((32, 32), value, np.uint8) for value in range(3))
        >>> [len(found) for found in segmenter.segment_many(images)]
        [0, 0, 0]

        Args:
            images: each as for `segment`.
            tta: as for `segment`, like the next two.
            object_size: typical diameter of the objects, in pixels.
            tile: side in pixels of the tiles to compute one after another.

        Raises:
            InputError: at once if an option is impossible; and as `segment` does, when an image's turn comes.
        """
        n_images = len(images) if isinstance(images, Sized) else None
        options: dict[str, Any] = {"tta": tta, "object_size": object_size, "tile": tile}
        found = self.predict_many(
            enumerate(images, 1), lambda numbered: Given(f"Image {numbered[0]}", numbered[1]), n_images, **options
        )
        return (replace(one.found, class_names=self.class_names) for _, one in found)

    def predict_many(
        self,
        items: Iterable[T],
        given: Callable[[T], Given],
        n_images: int | None = None,
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
    ) -> Iterator[tuple[T, Prediction]]:
        """Each item with what `predict` gives for its image, in order; several are computed at once.

        Args:
            items: that have an image each.
            given: the image of an item, and its name.
            n_images: how many there are, if that is known.
            tta: as for `segment`, like the next two.
            object_size: typical diameter of the objects, in pixels.
            tile: side in pixels of the tiles to compute one after another.
        """
        self.check_options(tta=tta, object_size=object_size, tile=tile)
        crew, taken = self.crew(n_images), deque[T]()
        predict = partial(self.predict_group, tta=tta, object_size=object_size, tile=tile)

        def drawn() -> Iterator[Given]:
            for item in items:
                taken.append(item)
                yield given(item)

        def some(group: Sequence[Given]) -> list[Future[Prediction]]:
            with crew.place(sum(map(n_pixels_of, group))):
                return predict(group)

        groups = in_groups(drawn(), self.n_together, size=n_pixels_of)
        return ((taken.popleft(), one.result()) for one in crew.each_of_groups(some, groups))

    def crew(self, n_images: int | None = None) -> Crew:
        """Threads for this many images."""
        return Crew(side_by_side=self.computes_side_by_side, most_pixels=self.most_pixels(), n_images=n_images)

    def predict_group(
        self,
        images: Sequence[Given],
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
    ) -> list[Future[Prediction]]:
        """What `predict` gives or raises for each image; those that can go through the network together do."""
        predict = partial(self.predict, tta=tta, object_size=object_size, tile=tile)

        def alone(one: Given) -> Future[Prediction]:
            return settled(partial(predict, one.image, spacing=one.spacing, name=one.name))

        if self.n_together == 1 or tile is not None or len(images) == 1:
            return [alone(one) for one in images]
        factor, magnification = self.magnification(object_size), max((1.0, *self.tta_scales)) if tta else 1.0
        most = int(min(batches.MOST_PIXELS, self.most_pixels() / magnification**2) / factor**2)
        pixels = [self._pixels_if_valid(one.image, one.name) for one in images]
        sizes = [None if one is None or is_constant(one) else one.shape[:-1] for one in pixels]
        predicted = dict[int, Future[Prediction]]()
        for places in batches.batches(sizes, most):
            if len(places) == 1:  # or what is wrong with it
                predicted[places[0]] = alone(images[places[0]])
            else:
                some = [Given(images[place].name, one) for place in places if (one := pixels[place]) is not None]
                predicted.update(zip(places, self._together(some, factor, tta, alone), strict=True))
        return [predicted[place] for place in range(len(images))]

    def _together(
        self, images: Sequence[Given], factor: float, tta: bool, alone: Callable[[Given], Future[Prediction]]
    ) -> list[Future[Prediction]]:
        """What is found in images of one size, from one pass of the network; from several if memory runs out."""
        if len(images) == 1:
            return [alone(images[0])]
        try:
            return [known(one) for one in self._in_one_pass(images, factor, tta)]
        except (MemoryError, RuntimeError) as error:
            if not is_for_memory(error):
                raise
        self.free_memory()
        half = len(images) // 2
        return [one for some in (images[:half], images[half:]) for one in self._together(some, factor, tta, alone)]

    def _in_one_pass(self, images: Sequence[Given], factor: float, tta: bool) -> list[Prediction]:
        """What is found in images of one size, from one pass of the network."""
        start, normalisation = clock(self.device), self.model.description.normalisation
        sources = [Source(np.asarray(one.image), normalisation, self.device)[..., :, :] for one in images]
        maps = self.maps(rescaled(torch.cat(sources), factor), tta=tta)
        for place, one in enumerate(images):
            self._warn_if_full(maps, one.name, place)
        between = clock(self.device)
        shape = np.shape(images[0].image)[:-1]
        found = [resized(one, shape) for one in self.model.method.group(maps)]
        each = (between - start) / len(images), (clock(self.device) - between) / len(images)
        return [Prediction(one, None, *each) for one in found]

    def predict(
        self,
        image: ArrayLike,
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
        spacing: Sequence[float] | None = None,
        name: str = "The image",
    ) -> Prediction:
        """What `segment` finds, and how it was computed; the arguments are those of `segment`."""
        start = clock(self.device)
        pixels = self._pixels(image, name)
        shape = pixels.shape[:-1]
        if is_constant(pixels):  # nothing can be told apart
            return Prediction(self._nothing(shape), None, clock(self.device) - start)
        source: Parts = Source(pixels, self.model.description.normalisation, self.device)
        factor = to_spacing_of(self.model.description, spacing, name, self.magnification(object_size))
        if factor != 1:
            source = rescaled(source[(..., *whole_of(source))], factor)
        compute = partial(self._mapped, source, tta, name)
        group, tile = self._within_memory(compute, tuple(source.shape[2:]), tile, name, tta=tta)
        between = clock(self.device)
        found = resized(group(), shape)
        return Prediction(found, tile, between - start, clock(self.device) - between)

    def _nothing(self, shape: tuple[int, ...]) -> Instances:
        """The result for an image without objects."""
        return Instances.from_labels(np.zeros(shape, np.int32))

    def _mapped(self, source: Parts, tta: bool, name: str, tile: int | None) -> Callable[[], Instances]:
        """Compute the maps of a normalised image, and return the function that groups them into objects."""
        method = self.model.method
        shape = tuple(source.shape[2:])
        if tile is not None and isinstance(method, Gathers):  # keep only what grouping needs of each strip
            self._check_tile(tile)
            with torch.inference_mode():
                whole = whole_of(source)
                corner = (0,) * (len(shape) - 1)
                sides, halo = self._tile_along(tile), self._halo
                parts = [
                    ((first, *whole[1:]), method.gathered(maps, corner=(first.start, *corner)))
                    for first, maps in strips(self._predict(tta), source, sides, halo=halo)
                ]
                of_classes = joined_parts(parts, whole)
            return lambda: method.group_gathered(of_classes, shape).found
        maps = self.maps(source, tta=tta, tile=tile)
        self._warn_if_full(maps, name, 0)
        return lambda: method.group(maps)[0]

    def _warn_if_full(self, maps: Any, name: str, place: int) -> None:
        """Say if the image at this place of a batch may have more objects than the method can find."""
        method = self.model.method
        if isinstance(method, KnowsWhenFull) and method.is_full(maps)[place]:
            most = method.max_instances
            logger.warning("%s: this model finds at most %d objects in an image; there may be more.", name, most)

    def _within_memory(
        self,
        compute: Callable[[int | None], T],
        shape: tuple[int, ...],
        tile: int | None,
        name: str,
        *,
        tta: bool,
    ) -> tuple[T, int | None]:
        """The result of `compute`, and the side of the tiles it used: this one, or one that suits the size it sees.

        None means the whole image. If memory runs out, smaller tiles are tried; later images then begin with those.
        """
        is_tileable = self.model.method.tileable
        if tile is None and is_tileable:
            chosen = self.chosen_tile(shape, tta=tta)
            tile = min((side for side in (chosen, self._tried) if side is not None), default=None)
        while True:
            try:
                return compute(tile), tile
            except (MemoryError, RuntimeError) as error:
                smaller = smaller_tile(tile, shape)
                if not is_for_memory(error) or not is_tileable or smaller is None:
                    raise
                self._tried = tile = smaller
                logger.warning("%s: memory ran out on %s; computed in tiles of %d now.", name, self.device.type, tile)
            self.free_memory()

    def free_memory(self) -> None:
        """Give back what the device holds for later use."""
        if self.device.type == "cuda":
            network = self._method.network
            if isinstance(network, Graphed):
                network.forget()
            torch.cuda.empty_cache()

    def chosen_tile(self, shape: tuple[int, ...], *, tta: bool) -> int | None:
        """Side of the tiles that suit an image of this shape; None if it is computed whole."""
        network = self.model.method.network
        if len(shape) == 2:
            magnification = max((1.0, *self.tta_scales)) if tta else 1.0
            return chosen_tile(shape[0], shape[1], network, magnification=magnification)

        def seen(tile: int) -> tuple[int, ...]:
            return tuple(side + 2 * more for side, more in zip(self._tile_along(tile), self._halo, strict=True))

        return chosen_tile_of_volume(shape, network, seen, tta=tta)

    def _tile_along(self, tile: int) -> tuple[int, ...]:
        """Sides of tiles along each axis; those of a volume are as long along all, in multiples of the strides."""
        if self.n_axes == 2:
            return tile, tile
        return self._along_axes(tile)

    @property
    def _halo(self) -> tuple[int, ...]:
        """How far each tile is seen around, along each axis."""
        return (HALO, HALO) if self.n_axes == 2 else self._along_axes(HALO_OF_VOLUMES)

    def _along_axes(self, length: int) -> tuple[int, ...]:
        """Steps along each axis of a volume that are together as long as this many along its columns."""
        strides = strides_along(self.model.method.network, self.n_axes)[-1]
        steps = self.model.description.steps
        wanted = (length * steps[-1] / step for step in steps)
        return tuple(max(1, math.ceil(n / stride - 1e-6)) * stride for n, stride in zip(wanted, strides, strict=True))

    def propose(self, image: ArrayLike, n: int, *, tta: bool = False, name: str = "The image") -> Instances:
        """The best n proposals for objects of an image: masks that may overlap, each with its score.

        Args:
            image: as for `segment`.
            n: the most proposals to give.
            tta: average over eight views of the image.
            name: of the image, for messages.

        Raises:
            InputError: if the method offers no proposals, or as `segment` does.
        """
        method = self.model.method
        if not isinstance(method, Proposes):
            raise self._no_proposals()
        pixels = self._pixels(image, name)
        if is_constant(pixels):
            return self._nothing(pixels.shape[:-1])
        (found,) = method.propose(self.maps(self.prepared(pixels, name=name), tta=tta), n)
        return resized(found, pixels.shape[:-1])

    def prepared(
        self,
        image: ArrayLike,
        *,
        object_size: float | None = None,
        spacing: Sequence[float] | None = None,
        name: str = "The image",
    ) -> Float[Tensor, "1 c *t"]:
        """The image as the network wants it: normalised, at the model's scale, a batch of one, on the device."""
        source = Source(self._pixels(image, name), self.model.description.normalisation, self.device)
        factor = to_spacing_of(self.model.description, spacing, name, self.magnification(object_size))
        return rescaled(source[(..., *whole_of(source))], factor)

    def _pixels_if_valid(self, image: ArrayLike, name: str) -> Shaped[np.ndarray, "*s c"] | None:
        """The image as an array, unless something is wrong with it."""
        try:
            return self._pixels(image, name)
        except InputError:
            return None

    def _pixels(self, image: ArrayLike, name: str) -> Shaped[np.ndarray, "*s c"]:
        try:
            array = np.asarray(image)
        except (TypeError, ValueError) as error:
            raise InputError(
                f"{name} is a {type(image).__name__} that NumPy cannot make an array of; give rows of equal length, or "
                "an array of shape (h, w) or (h, w, c)."
            ) from error
        self._check_axes(array, name)
        if array.ndim in (self.n_axes, self.n_axes + 1):
            self._check_size(array.shape[: self.n_axes], name)
        image = as_image(array, name=name, n_axes=self.n_axes)
        return as_channels(image, self.model.description.channels, name)

    def _check_axes(self, array: Shaped[np.ndarray, "..."], name: str) -> None:
        """Refuse an image for a model of volumes, and a volume for one of images."""
        shape, channels = array.shape, self.model.description.channels
        if self.n_axes == 3 and (len(shape) == 2 or (len(shape) == 3 and shape[2] <= FEW_PLANES)):
            raise InputError(
                f"{name}: an array of shape {shape}, and this model takes volumes, of shape (d, h, w) or (d, h, w, c); "
                "give a stack of slices, or take a model for images."
            )
        if self.n_axes == 2 and (len(shape) == 4 or (len(shape) == 3 and shape[2] > FEW_COLUMNS >= channels)):
            raise InputError(
                f"{name}: an array of shape {shape}; give one image of shape (h, w) or (h, w, c), or take a model for "
                "volumes."
            )

    @staticmethod
    def _check_size(shape: tuple[int, ...], name: str) -> None:
        n_pixels = math.prod(shape)
        if not 0 < n_pixels < MOST_PIXELS:
            raise InputError(
                f"{name} has {' x '.join(map(str, shape))} pixels; at least one is needed, and fewer than "
                f"{MOST_PIXELS:,} can be numbered. `attractor segment` works on it in blocks with --out NAME.ome.zarr."
            )

    @torch.inference_mode()
    def maps(self, image: Parts, *, tta: bool = False, tile: int | None = None) -> Any:
        """The method's raw maps of normalised images or volumes, in batches; with `tta`, averaged over their views.

        With a `tile` there is one image, and each tile has its own views.
        """
        if tile is None:
            return self._predict(tta)(image[(..., *whole_of(image))])
        self._check_tile(tile)
        return tiled_maps(self._predict(tta), image, self._tile_along(tile), halo=self._halo)

    def maps_of_each(self, images: Iterable[Given], *, tta: bool = False) -> Iterator[Any]:
        """The method's raw maps of each image, in order; images that can go together do."""
        for group in in_groups(images, self.n_together, size=n_pixels_of):
            seen = [self.prepared(one.image, name=one.name, spacing=one.spacing) for one in group]
            found = dict[int, Any]()
            for places in batches.batches([tuple(image.shape[2:]) for image in seen]):
                together = self.maps(torch.cat([seen[place] for place in places]), tta=tta)
                for n, place in enumerate(places):
                    found[place] = each_changed(together, itemgetter(slice(n, n + 1)))
            yield from (found[place] for place in range(len(group)))

    def _predict(self, tta: bool) -> Callable[[Float[Tensor, "b c *s"]], object]:
        """The function that gives the maps of images, or of parts of them."""
        method = self._method

        def maps_of(images: Float[Tensor, "b c *s"]) -> object:
            # RSIS has layers of its own besides its network
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.dtype == "bfloat16"):
                return method(images)

        if not tta:
            return maps_of
        if not isinstance(method, Turns):
            raise self._no_views()

        def over_views(images: Float[Tensor, "b c *s"]) -> object:
            return method.averaged(method.turned(maps_of(view.apply(images)), view) for view in self.views)

        if not self.tta_scales or not isinstance(method, Rescales):
            return over_views

        def over_scales(images: Float[Tensor, "b c h w"]) -> object:
            shape = images.shape[-2], images.shape[-1]
            others = (over_views(rescaled(images, scale)) for scale in self.tta_scales)
            return method.averaged(chain([over_views(images)], (method.resampled(maps, shape) for maps in others)))

        return over_scales

    def check_gathers(self) -> None:
        """Refuse methods that cannot be grouped from parts of their maps.

        Raises:
            InputError: if the model's method is one of them.
        """
        if self.n_axes == 3:
            raise InputError(
                "Blocks are for images, and this model takes volumes; give the volume as a TIFF stack, without .zarr."
            )
        if not isinstance(self.model.method, Gathers):
            raise InputError(
                f"{self.model.description.method} cannot group an image block by block; take a model of spatial "
                "embeddings, or cut the image into parts."
            )

    @torch.inference_mode()
    def gathered(self, image: Parts, rows: slice, columns: slice, tile: int, *, tta: bool = False) -> list[Points]:
        """What grouping needs of a part of a normalised image, for each class; the part lies on the grid of tiles."""
        method = self.model.method
        assert isinstance(method, Gathers)
        self._check_tile(tile)
        maps = maps_within(self._predict(tta), image, rows, columns, tile)
        return method.gathered(maps, corner=(rows.start, columns.start))

    def grown(self, of_classes: Sequence[Points], shape: tuple[int, ...]) -> Grown:
        """The objects of an image or window of this shape, from what was gathered of all of it."""
        method = self.model.method
        assert isinstance(method, Gathers)
        return method.group_gathered(of_classes, shape)

    def most_pixels(self) -> int:
        """How many pixels are computed at once; larger images are computed in tiles."""
        return most_pixels(self.model.method.network, self.n_axes)

    def check_options(
        self,
        *,
        tta: bool = False,
        object_size: float | None = None,
        tile: int | None = None,
        n_proposals: int = 0,
    ) -> None:
        """Raise what `segment`, or `propose` if proposals are wanted, would raise about these options for any image."""
        self.magnification(object_size)
        if tile is not None:
            self._check_tile(tile)
        if tta and not isinstance(self.model.method, Turns):
            raise self._no_views()
        if n_proposals and not isinstance(self.model.method, Proposes):
            raise self._no_proposals()

    def _check_tile(self, tile: int) -> None:
        if not self.model.method.tileable:
            raise InputError(
                f"{self.model.description.method} needs to see each image as a whole and cannot compute it in tiles; "
                "leave --tile out, or cut or shrink the image."
            )
        if self.n_axes == 2:
            check_tile(tile, stride=self.model.method.network.strides[-1])
        else:
            check_tile(tile, HALO_OF_VOLUMES, stride=max(strides_along(self.model.method.network, 3)[-1]))

    def _no_proposals(self) -> InputError:
        return InputError(
            f"{self.model.description.method} offers no proposals; take a model whose method does, or a metric "
            "that scores objects, such as average_precision."
        )

    def _no_views(self) -> InputError:
        return InputError(f"{self.model.description.method} has no test-time augmentation; leave --tta out.")

    def magnification(self, object_size: float | None) -> float:
        """How much larger the network sees an image whose objects have this size.

        Raises:
            InputError: if the size is not above 0, or the model does not say what it was trained on.
        """
        scale = self.model.description.scale
        if object_size is None:
            return scale
        if not object_size > 0:
            raise InputError(f"The object size is {object_size}; it is a diameter in pixels, above 0.")
        trained = self.model.description.object_size
        if trained is None:
            raise InputError("This model does not say what object size it was trained on; leave the object size out.")
        return scale * trained / object_size


def clock(device: torch.device) -> float:
    """Seconds on a clock, read once the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the first of CUDA, MPS and CPU that is available."""
    if name not in DEVICES:
        raise InputError(f'There is no device "{name}"; it can be {", ".join(DEVICES)}.')
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if name == "auto":
        name = next(device for device, usable in there.items() if usable)
    if not there[name]:
        raise InputError(f"This machine has no {name} device that torch can use; leave the device at auto, or use cpu.")
    return torch.device(name)


def _keep_whole_masks(model: Model) -> None:
    """Let the objects of a model overlap."""
    if not isinstance(model.method, KeepsWhole):
        raise InputError(f"{model.description.method} gives each pixel to one object; leave whole masks out.")
    model.method.keep_whole_masks()


def check_calibrated(model: Model) -> None:
    """Refuse to compute a model in eight bits without the ranges of its network.

    Raises:
        InputError: if it has none, or those of another network.
    """
    if not model.description.ranges:
        raise InputError(
            "int8 needs a calibrated model, and this one is not: run attractor calibrate MODEL IMAGES --out "
            "NEW.safetensors, and use NEW.safetensors."
        )
    assert isinstance(model.method.network, nn.Module)
    check_ranges(model.method.network, model.description.ranges)


def _check_scales(model: Model, scales: Sequence[float]) -> None:
    """Refuse scales that images cannot be seen at."""
    for scale in scales:
        check_number("tta_scales", scale, *TTA_SCALES)
    if scales and not isinstance(model.method, Rescales):
        raise InputError(f"{model.description.method} looks at images in their own size only; leave the scales out.")
    if scales and model.description.axes == 3:
        raise InputError("Volumes are looked at in their own size only; leave the scales out.")


def is_constant(pixels: Shaped[np.ndarray, "*s c"]) -> bool:
    """Whether all pixels are alike; checked row by row, since in most images the first row already differs."""
    first = pixels[(0,) * (pixels.ndim - 1)]
    return all((row == first).all() for row in pixels)
