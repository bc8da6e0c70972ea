"""RSIS: a recurrent network that emits one object after another, and says when to stop.

An encoder sees the image once. A chain of convolutional LSTMs, coarse to fine with skip connections, then runs once for
each object: each run gives a mask, a class, and whether there is anything left; only the LSTMs' memory knows what was
found before. Training does not prescribe an order: Hungarian matching assigns objects to the masks they fit best.

Source: Salvador et al., "Recurrent Neural Networks for Semantic Instance Segmentation", 2017.
Shapes: `b` images, `c` classes, `h` rows, `w` columns, `t` steps, `k` objects, `n` pixels, `d` features.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Float32, Int
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import InputError, check_choice, check_number, check_thresholds
from attractor.instances import Instances, relabel
from attractor.kernels import parts
from attractor.losses import soft_iou_cost
from attractor.methods.contract import NetworkMaker, Suggestions, checked_weights
from attractor.networks.positions import positions
from attractor.statistics import ObjectStatistics
from attractor.truth import Truth

SKIPS = ("concat", "sum", "mul", "none")
STOP_LOSSES = ("all", "published")
STOP_MODES = ("break", "skip")
MOST_STEPS = 1000
MOST_HIDDEN = 1 << 10  # features
State = tuple[Float[Tensor, "b _ _ _"], Float[Tensor, "b _ _ _"]]

Prepared = tuple[Float[Tensor, "b _ _ _"], Float[Tensor, "_ _ 3 3"], torch.dtype | None]


@dataclass(frozen=True)
class Maps:
    """What each step says, raw."""

    mask: Float[Tensor, "b t h w"]  # logits
    classes: Float[Tensor, "b t _"]  # logits of "nothing" and the c classes
    stop: Float[Tensor, "b t"]  # logit of there being an object at all


class RSIS(nn.Module):
    """The method of Salvador et al. 2017 on the features of any network."""

    ordered: ClassVar[bool] = True  # labels are numbered in the order in which the objects were found
    tileable: ClassVar[bool] = False  # each object is found once in an image, and its step depends on all others
    # What a threshold can be, and what validation tries; sizes are pixels.
    threshold_ranges: ClassVar[dict[str, tuple[float, float]]] = {
        "stop_threshold": (0.0, 1.0),
        "mask_threshold": (0.0, 1.0),
        "min_size": (0, 1 << 30),
    }
    threshold_candidates: ClassVar[dict[str, tuple[float, ...]]] = {
        "stop_threshold": (0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8),
        "mask_threshold": (0.3, 0.4, 0.5, 0.6, 0.7),
        "min_size": (0, 8, 16, 32, 64),
    }

    def __init__(
        self,
        make_network: NetworkMaker,
        *,
        n_classes: int = 1,
        steps: int = 20,
        hidden: int = 128,
        skip: str = "concat",
        coordinates: bool = False,
        mask_weight: float = 1.0,
        class_weight: float = 0.1,
        stop_weight: float = 0.5,
        stop_loss: str = "all",
        stop_mode: str = "break",
        first_steps: int | None = None,
        epochs_per_step: float = 1.0,
        stop_threshold: float = 0.5,
        mask_threshold: float = 0.5,
        min_size: int = 0,
        connected: bool = False,
    ) -> None:
        """Build the network and keep the numbers of the paper.

        Args:
            make_network: gives a network for a list of output channels; only its pyramid of features is used.
            n_classes: classes of objects.
            steps: the longest sequence, which limits the objects found in an image. The paper has 10 for Pascal VOC,
                20 for leaves and Cityscapes.
            hidden: features of the coarsest LSTM; each finer one has half as many.
            skip: how a level's features join what comes from the coarser LSTM: "concat", "sum", "mul", or "none".
            coordinates: whether the features also hold each pixel's position, from -1 to 1 along each side of the
                image; not in the paper, but it helps if objects look alike.
            mask_weight: of the soft IoU of the masks.
            class_weight: of the cross entropy of the classes.
            stop_weight: of the cross entropy of stopping.
            stop_loss: "all", over all steps, as in the paper, or "published": over the steps up to the first after
                the last object, each side halved, as in the published code.
            stop_mode: "break": the first step without an object ends the sequence, as in the paper; or "skip": such
                steps are left out, and later ones may still find objects, as in the published code.
            first_steps: the curriculum: length of the sequences in the first epoch of training; None for full length.
            epochs_per_step: the curriculum: epochs after which sequences grow by one step.
            stop_threshold: probability of an object from which a step counts.
            mask_threshold: probability from which a pixel is part of the mask.
            min_size: objects have at least this many pixels.
            connected: whether objects are of one piece; if so, the largest part of each mask is kept.

        Raises:
            InputError: if a name is not one of these, or a number is out of its range.
        """
        super().__init__()
        for name, value, choices in (
            ("skip", skip, SKIPS),
            ("stop_loss", stop_loss, STOP_LOSSES),
            ("stop_mode", stop_mode, STOP_MODES),
        ):
            check_choice(name, value, choices)
        if steps < 1 or (first_steps is not None and not 1 <= first_steps <= steps):
            raise InputError(f"steps is {steps} and first_steps {first_steps}; give 1 <= first_steps <= steps.")
        check_number("steps", steps, 1, MOST_STEPS)
        check_number("hidden", hidden, 1, MOST_HIDDEN)
        check_number("epochs_per_step", epochs_per_step, 1e-3)
        self.n_classes, self.steps, self.max_instances = n_classes, steps, steps
        self.stop_loss, self.stop_mode, self.connected = stop_loss, stop_mode, connected
        self.first_steps, self.epochs_per_step = first_steps, epochs_per_step
        self.limit = steps  # of the sequences in training: see at_epoch
        self.weights = checked_weights(mask=mask_weight, **{"class": class_weight}, stop=stop_weight)
        self.thresholds: dict[str, float] = {
            "stop_threshold": stop_threshold,
            "mask_threshold": mask_threshold,
            "min_size": min_size,
        }
        check_thresholds(self.thresholds, self.threshold_ranges)
        self.network = make_network([])
        self.decoder = RecurrentDecoder(self.network.channels, n_classes, hidden, skip, coordinates)

    @staticmethod
    def suggestions(statistics: ObjectStatistics) -> Suggestions:
        """Keys of a recipe that suit such objects: crops that seldom hold more objects than there are steps."""
        per_pixel = statistics.count / statistics.image_sizes.prod(1).sum()
        side = int(np.clip(8 * (math.sqrt(10 / per_pixel) // 8), 32, 256))  # ten objects in a crop, on average
        return {
            "data": {"crop": side},
            "model": {
                "options": {"steps": 20, "hidden": 64, "connected": True, "min_size": statistics.min_object // 4}
            },
            "training": {"crop_size": side},
        }

    def at_epoch(self, epoch: int) -> None:
        """Set the length of the sequences in this epoch of training, counted from 0."""
        if self.first_steps is not None:
            self.limit = min(self.steps, self.first_steps + int(epoch / self.epochs_per_step))

    # ---------------------------------------------------------------- the network's answer

    def forward(self, images: Float[Tensor, "b i h w"]) -> Maps:
        """What all steps say of normalised images; in training, as many steps as the curriculum has reached.

        Where nothing is to be learned, steps are left out that no threshold which can be tuned would let count.
        """
        steps = self.limit if self.training else self.steps
        ends = self.stop_mode == "break" and not (torch.is_grad_enabled() or torch.compiler.is_compiling())
        least = min(self.thresholds["stop_threshold"], *self.threshold_candidates["stop_threshold"]) if ends else None
        maps: Maps = self.decoder(self.network.pyramid(images), images.shape[-2:], steps, least)
        return maps

    def decode(self, maps: Maps) -> tuple[Float[Tensor, "b t h w"], Float[Tensor, "b t _"], Float[Tensor, "b t"]]:
        """Probability of each pixel's being in the mask, of each class, and of there being an object."""
        return maps.mask.sigmoid(), maps.classes.softmax(-1), maps.stop.sigmoid()

    # ---------------------------------------------------------------- loss

    def loss(self, maps: Maps, truth: Truth) -> dict[str, Float[Tensor, ""]]:
        """`mask`, `class` and `stop`, each the mean over an image's steps, then over images.

        If an image has more objects than there are steps, the largest ones are taught.
        """
        with torch.autocast(maps.mask.device.type, enabled=False):
            mask, classes, stop = (x if x.dtype == torch.float64 else x.float() for x in vars(maps).values())
            terms = []
            for i in range(len(mask)):
                objects, of_object = self._objects(truth, i)
                probability = mask[i].sigmoid()[:, truth.valid[i]]
                cost = soft_iou_cost(probability[: len(objects)], objects)
                step, target = match(cost)
                wrong = F.cross_entropy(classes[i, step], of_object[target], reduction="none")
                n = max(1, len(step))
                terms.append([cost[step, target].sum() / n, wrong.sum() / n, self._stop_loss(stop[i], len(objects))])
            means = torch.stack([torch.stack(values) for values in terms]).mean(0)
            return dict(zip(self.weights, means, strict=True))

    def _objects(self, truth: Truth, image: int) -> tuple[Float[Tensor, "k n"], Int[Tensor, " k"]]:
        """Masks and classes of an image's objects, the largest first, no more than there are steps."""
        labels = truth.labels[image][truth.valid[image]].long()
        areas = torch.bincount(labels, minlength=1)[1:]
        largest = torch.argsort(areas, descending=True, stable=True)[: min(self.steps, int((areas > 0).sum()))]
        masks = labels == largest[:, None] + 1
        return masks.to(torch.float32), truth.classes[image, largest].long()

    def _stop_loss(self, stop: Float[Tensor, " t"], n_objects: int) -> Float[Tensor, ""]:
        target = (torch.arange(len(stop), device=stop.device) < n_objects).to(stop.dtype)
        if self.stop_loss == "all":
            return F.binary_cross_entropy_with_logits(stop, target)
        steps = n_objects + 1
        return 0.5 * F.binary_cross_entropy_with_logits(stop[:steps], target[:steps])

    # ---------------------------------------------------------------- reading off

    @torch.no_grad()
    def group(self, maps: Maps) -> list[Instances]:
        """Objects of each image in the order found; the score is the probability of an object times that of its class.

        A pixel that several masks claim goes to the one that is surest of it.
        """
        decoded = self.decode(Maps(*(x.float().cpu() for x in vars(maps).values())))
        return [self._read(*(x.numpy() for x in image)) for image in zip(*decoded, strict=True)]

    def is_full(self, maps: Maps) -> list[bool]:
        """Whether each image's sequence was used up, so that there may be more objects than were found."""
        return [bool(self._counts(stop).all()) for stop in maps.stop.float().sigmoid().cpu().numpy()]

    def _counts(self, stop: Float32[np.ndarray, " t"]) -> Bool[np.ndarray, " t"]:
        """The steps that emit an object."""
        counts = stop > self.thresholds["stop_threshold"]
        return np.logical_and.accumulate(counts) if self.stop_mode == "break" else counts

    def _read(
        self,
        mask: Float32[np.ndarray, "t h w"],
        classes: Float32[np.ndarray, "t _"],
        stop: Float32[np.ndarray, " t"],
    ) -> Instances:
        steps = np.flatnonzero(self._counts(stop))
        labels = np.zeros(mask.shape[1:], np.int32)
        if len(steps):
            owner = mask[steps].argmax(0)
            inside = mask[steps].max(0) > self.thresholds["mask_threshold"]
            labels[inside] = owner[inside] + 1
        if self.connected:
            labels = parts.largest(labels)
        labels, kept = relabel(parts.without_small(labels, int(self.thresholds["min_size"])))
        chosen = steps[kept - 1]
        of_class = np.nan_to_num(classes[chosen, 1:])  # if a class's probability is NaN, the score is 0
        scores = stop[chosen] * of_class.max(1, initial=0)
        return Instances(labels, 1 + of_class.argmax(1).astype(np.int32), scores.astype(np.float32))


class RecurrentDecoder(nn.Module):
    """The chain of convolutional LSTMs and its three heads."""

    def __init__(self, channels: tuple[int, ...], n_classes: int, hidden: int, skip: str, coordinates: bool) -> None:
        """Build the layers.

        Args:
            channels: of the pyramid, fine to coarse.
            n_classes: classes of objects.
            hidden: features of the coarsest LSTM.
            skip: see `RSIS`.
            coordinates: see `RSIS`.
        """
        super().__init__()
        levels = len(channels)
        if hidden < 1 or hidden % 2 ** (levels - 1):
            raise InputError(
                f"hidden is {hidden}; this network has {levels} levels, each with half the features of the one below, "
                f"so it must be a multiple of {2 ** (levels - 1)}."
            )
        self.skip, self.coordinates = skip, coordinates
        sizes = [hidden // 2**level for level in range(levels)]  # coarse to fine
        skips = [hidden, *sizes[:-1]]
        extra = 2 if coordinates else 0
        self.taps = nn.ModuleList(
            nn.Sequential(nn.Conv2d(c + extra, s, 3, padding=1), nn.BatchNorm2d(s))
            for c, s in zip(reversed(channels), skips, strict=True)
        )
        joined = 2 if skip == "concat" else 1
        inputs = [hidden, *(joined * size for size in sizes[:-1])]
        self.lstms = nn.ModuleList(ConvLSTM(i, size) for i, size in zip(inputs, sizes, strict=True))
        self.mask = nn.Conv2d(sizes[-1], 1, 3, padding=1)
        self.classes = nn.Linear(sum(sizes), n_classes + 1)
        self.stop = nn.Linear(sum(sizes), 1)

    def forward(
        self,
        pyramid: Sequence[Float[Tensor, "b _ _ _"]],
        size: Sequence[int | torch.SymInt],
        steps: int,
        least: float | None = None,
    ) -> Maps:
        """What each of this many steps says, with masks of the image's size; for `least` see `run`."""
        if pyramid[0].device.type == "cpu" and torch.is_autocast_enabled("cpu"):
            # the gates' convolutions are faster in bfloat16 there, and all else is slower
            dtype = torch.get_autocast_dtype("cpu")
            with torch.autocast("cpu", enabled=False):
                return self._said([x.float() for x in pyramid], size, steps, least, dtype)
        return self._said(pyramid, size, steps, least, None)

    def _said(
        self,
        pyramid: Sequence[Float[Tensor, "b _ _ _"]],
        size: Sequence[int | torch.SymInt],
        steps: int,
        least: float | None,
        dtype: torch.dtype | None,
    ) -> Maps:
        """As `forward`; the gates that are prepared are convolved in a dtype of their own, if one is given."""
        finest_first = [torch.cat([x, positions(x)], 1) if self.coordinates else x for x in pyramid]
        skips = [tap(x) for tap, x in zip(self.taps, reversed(finest_first), strict=True)]
        masks, classes, stops = self.run(skips, steps, ahead=self.skip == "concat", least=least, dtype=dtype)
        return Maps(masks[:, :, 0, : size[0], : size[1]], classes, stops)  # the finest features have half the size

    def run(
        self,
        skips: list[Float[Tensor, "b _ _ _"]],
        steps: int,
        *,
        ahead: bool,
        least: float | None = None,
        dtype: torch.dtype | None = None,
    ) -> tuple[Float[Tensor, "b t 1 _ _"], Float[Tensor, "b t _"], Float[Tensor, "b t"]]:
        """Masks at twice the size of the finest features, classes and stop of all steps.

        Args:
            skips: features of each level, coarse to fine.
            steps: how many.
            ahead: the gates' share from the skips, which is always the same, is computed once, not in every step.
            least: the last step is the first in which no image has a higher probability of an object; None for all.
            dtype: in which the gates' other channels are convolved; by default that of the skips.
        """
        prepared: list[Prepared | None] = [None] * len(skips)
        if ahead:
            prepared = [lstm.prepared(skip, dtype) for lstm, skip in zip(self._cells, skips, strict=True)]
        states: list[State | None] = [None] * len(skips)
        said = []
        for _ in range(steps):
            mask, sides, states = self._step(skips, states, prepared)
            stop = self.stop(sides)[:, 0]
            said.append((mask, self.classes(sides), stop))
            if least is not None and not bool((stop.sigmoid() > least).any()):
                break
        masks, classes, stops = (torch.stack(x, 1) for x in zip(*said, strict=True))
        return masks, classes, stops

    def _step(
        self,
        skips: list[Float[Tensor, "b _ _ _"]],
        states: Sequence[State | None],
        prepared: Sequence[Prepared | None],
    ) -> tuple[Float[Tensor, "b 1 _ _"], Float[Tensor, "b _"], list[State | None]]:
        """Mask, the strongest answer of each feature, and the memory, after one run from coarse to fine."""
        coarser: Tensor | None = None
        after: list[State | None] = []
        sides = []
        for level, lstm in enumerate(self._cells):
            ahead = prepared[level]
            if ahead is None:
                state = lstm(self._join(coarser, skips[level]), states[level])
            else:
                state = lstm.step(coarser, states[level], ahead)
            after.append(state)
            sides.append(state[0].amax((2, 3)))
            if level + 1 < len(skips):
                coarser = F.interpolate(state[0], skips[level + 1].shape[-2:], mode="bilinear", align_corners=True)
        mask = convolved_twice_as_large(state[0], self.mask)
        return mask, torch.cat(sides, 1), after

    @property
    def _cells(self) -> list[ConvLSTM]:
        return [lstm for lstm in self.lstms if isinstance(lstm, ConvLSTM)]

    def _join(self, x: Float[Tensor, "b d _ _"] | None, skip: Float[Tensor, "b _ _ _"]) -> Float[Tensor, "b _ _ _"]:
        if x is None:
            return skip
        if self.skip == "concat":
            return torch.cat([x, skip], 1)
        if self.skip == "none":
            return x
        return x + skip if self.skip == "sum" else x * skip


class ConvLSTM(nn.Module):
    """A long short-term memory whose gates are one 3x3 convolution of input and state."""

    def __init__(self, channels_in: int, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden
        self.gates = nn.Conv2d(channels_in + hidden, 4 * hidden, 3, padding=1)

    def forward(self, x: Float[Tensor, "b _ h w"], state: State | None) -> State:
        """Output and memory after one step; without a state, both were 0."""
        if state is None:
            zeros = x.new_zeros(x.shape[0], self.hidden, *x.shape[-2:])
            state = zeros, zeros
        h, c = state
        return _remembered(self.gates(torch.cat([x, h], 1)), c)

    def prepared(self, skip: Float[Tensor, "b _ h w"], dtype: torch.dtype | None = None) -> Prepared:
        """The gates' response to the last channels of their input, and their weights for the others with a dtype.

        The weights are rounded in every step, so that their gradients add up unrounded.
        """
        n_before = self.gates.in_channels - self.hidden - skip.shape[1]
        before, of_skip, of_state = self.gates.weight.split([n_before, skip.shape[1], self.hidden], 1)
        return F.conv2d(skip, of_skip, self.gates.bias, padding=1), torch.cat([before, of_state], 1), dtype

    def step(self, x: Float[Tensor, "b _ h w"] | None, state: State | None, prepared: Prepared) -> State:
        """Like `forward` of the input concatenated with the prepared skip; the coarsest level has only a skip."""
        fixed, weight, chosen = prepared
        dtype = chosen or weight.dtype
        if state is None:
            zeros = fixed.new_zeros(fixed.shape[0], self.hidden, *fixed.shape[-2:])
            state = zeros, zeros
        h, c = state
        varying = h if x is None else torch.cat([x, h], 1)
        return _remembered(fixed + F.conv2d(varying.to(dtype), weight.to(dtype), padding=1).to(fixed.dtype), c)


def convolved_twice_as_large(x: Float[Tensor, "b c h w"], layer: nn.Conv2d) -> Float[Tensor, "b d _ _"]:
    """A 3x3 convolution of features after their size is doubled by linear interpolation.

    It is the sum of nine products, one for each place of the kernel, and these may come before the interpolation. So
    there is less to compute, and libraries convolve slowly into a single channel. Under autocast nine roundings would
    add up, and the layer convolves as it is.
    """
    if torch.is_autocast_enabled(x.device.type):
        doubled = F.interpolate(x, [2 * side for side in x.shape[-2:]], mode="bilinear", align_corners=True)
        answer: Tensor = layer(doubled)
        return answer
    (h, w), n = x.shape[-2:], layer.out_channels
    by_place = layer.weight.permute(2, 3, 0, 1).flatten(0, 2)[..., None, None]  # (9 d, c, 1, 1)
    products = F.interpolate(F.conv2d(x, by_place), [2 * h, 2 * w], mode="bilinear", align_corners=True)
    padded = F.pad(products, (1, 1, 1, 1)).unflatten(1, (3, 3, n))
    answer = padded.new_zeros(n, 1, 1) if layer.bias is None else layer.bias[:, None, None]
    for i, j in itertools.product(range(3), range(3)):
        answer = answer + padded[:, i, j, :, i : i + 2 * h, j : j + 2 * w]
    return answer


def _remembered(gates: Float[Tensor, "b _ h w"], c: Float[Tensor, "b d h w"]) -> State:
    """Output and memory, from the gates and the memory before."""
    i, f, o, g = gates.chunk(4, 1)
    c = f.sigmoid() * c + i.sigmoid() * _tanh(g)
    return o.sigmoid() * _tanh(c), c


def _tanh(x: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """The hyperbolic tangent; on a processor by way of the sigmoid, which torch computes there three times as fast."""
    has_digits = x.dtype.itemsize > 2  # small numbers would be lost in half precision
    return 2 * (2 * x).sigmoid() - 1 if has_digits and x.device.type == "cpu" else x.tanh()


def match(cost: Float[Tensor, "t k"]) -> tuple[Int[Tensor, " m"], Int[Tensor, " m"]]:
    """Which step is taught which object, such that the sum of the costs is least.

    Args:
        cost: of teaching a step an object; if there are fewer steps than objects, some objects are left out.

    Returns:
        Steps, ascending, and the object of each.
    """
    from scipy.optimize import linear_sum_assignment  # training alone needs it, and it takes a tenth of a second

    step, target = linear_sum_assignment(cost.detach().nan_to_num(1.0).cpu().numpy())
    return torch.from_numpy(step).to(cost.device), torch.from_numpy(target).to(cost.device)
