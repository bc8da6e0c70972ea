"""What a method is: three calls, and what only some methods can do besides.

A method is a torch module made from a maker of its network, the number of classes, and its options. `forward` gives
maps: what the network says of each pixel, as a frozen dataclass of the method's own. `loss` compares them with the
truth, and `group` makes objects of them. That is `Method`. Each of the other protocols is one more thing that a method
may be able to do; callers ask for it with `isinstance`, and never ask for a method by its name.

Type variable: `M`, the method's own maps; every field is a tensor whose first axis is the batch.
Shapes: `b` images, `c` channels, `s` their lengths along each axis: rows and columns or, of volumes, planes, rows and
columns.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import ClassVar, Protocol, TypeVar, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn

from attractor.augmentation import View
from attractor.errors import InputError, check_number
from attractor.instances import Instances
from attractor.methods.points import Grown, Points
from attractor.networks import Network
from attractor.statistics import ObjectStatistics
from attractor.truth import Truth

M = TypeVar("M")  # given and taken
Given = TypeVar("Given", contravariant=True)  # maps that are only taken
Suggestions = dict[str, dict[str, object]]  # section of a recipe, key, value


@runtime_checkable
class NetworkMaker(Protocol):
    """The function that makes a method's network, of whatever architecture the recipe names."""

    def __call__(self, channels_out: Sequence[int], extra_channels: int = 0, joint_channels: int = 0) -> Network:
        """A network with new weights.

        Args:
            channels_out: output channels of each decoder; none for the encoder alone.
            extra_channels: that the method adds to those of the image, such as positions.
            joint_channels: output channels of one decoder more, which compares each image with the one before it in the
                batch; none for no such decoder.

        Raises:
            InputError: if the network has no such decoder.
        """


@runtime_checkable
class Method(Protocol[M]):
    """What every method is: a torch module with these."""

    network: Network

    weights: dict[str, float]
    """Factor of each term of the loss, as the options set it."""

    thresholds: dict[str, float]
    """What decides in grouping and can be tuned after training; kept in the model file. Each is an option, too."""

    @property
    def threshold_ranges(self) -> Mapping[str, tuple[float, float]]:
        """The lowest and highest value of each threshold."""

    @property
    def threshold_candidates(self) -> Mapping[str, tuple[float, ...]]:
        """The values that validation tries for each threshold, one threshold after another."""

    @property
    def max_instances(self) -> int | None:
        """The most objects of an image that the method can find; None for any number."""

    @property
    def tileable(self) -> bool:
        """Whether stitched maps of tiles equal those of the image; False for a method that must see the whole image."""

    def __init__(self, make_network: NetworkMaker, *, n_classes: int = 1, **options: object) -> None:
        """Build the network.

        Args:
            make_network: the function that makes it.
            n_classes: classes of objects, besides background.
            options: the paper's numbers, keyword-only, with the paper's values as defaults; a recipe sets them by name.
        """

    def forward(self, images: Float[Tensor, "b c *s"]) -> M:
        """Raw maps of a batch of normalised images."""

    def loss(self, maps: M, truth: Truth) -> dict[str, Float[Tensor, ""]]:
        """The terms of the loss, under the names used in `weights`; unweighted, each a mean over images."""

    def group(self, maps: M) -> list[Instances]:
        """The objects of each image: the paper's clustering."""

    @staticmethod
    def suggestions(statistics: ObjectStatistics) -> Suggestions:
        """Keys of a recipe that suit such objects."""

    # What every torch module has.

    def __call__(self, images: Float[Tensor, "b c *s"]) -> M:
        """As `forward`."""

    def parameters(self) -> Iterator[nn.Parameter]:
        """Everything that is learned."""

    def state_dict(self) -> dict[str, Tensor]:
        """Weights by name."""

    def load_state_dict(self, state_dict: Mapping[str, Tensor]) -> object:
        """Take over weights by name."""


# -------------------------------------------------------------------- what only some can do


@runtime_checkable
class Turns(Protocol[M]):
    """Test-time augmentation: an image is seen in several views, and what they say is averaged."""

    def turned(self, maps: M, view: View) -> M:
        """Maps of the image itself, from the maps of a view of it."""

    def averaged(self, views: Iterable[M]) -> M:
        """Mean of several maps of one image; of an iterator, no two are held at once."""


@runtime_checkable
class Rescales(Protocol[M]):
    """Test-time augmentation at several scales: what is seen of the magnified image is brought back to its own grid."""

    def resampled(self, maps: M, shape: tuple[int, ...]) -> M:
        """Maps of the image itself, which has this shape, from those of the image on a finer or coarser grid."""


@runtime_checkable
class Gathers(Protocol[Given]):
    """Large images: only what grouping needs is kept of each part of the maps."""

    def gathered(self, maps: Given, *, corner: tuple[int, ...] = ...) -> list[Points]:
        """What grouping needs of a part of one image that begins at this place, for each class."""

    def group_gathered(self, of_classes: Sequence[Points], shape: tuple[int, ...]) -> Grown:
        """The objects of an image or window of this shape, from what was gathered of all of it."""


@runtime_checkable
class Proposes(Protocol[Given]):
    """Proposals for average recall: more masks than there are objects; they may overlap."""

    def propose(self, maps: Given, n: int) -> list[Instances]:
        """The best `n` of each image, best first."""


@runtime_checkable
class KeepsWhole(Protocol):
    """Grouping in which several objects may claim a pixel: each can keep it in a mask of its own."""

    def keep_whole_masks(self) -> None:
        """From now on give objects that overlap whole masks, beside the same label image; raises if none overlap."""


@runtime_checkable
class GroupsSeeded(Protocol[Given]):
    """Grouping that is given part of the truth, as the papers do to find out what limits a method."""

    def group_seeded(self, maps: Given, truth: Truth) -> list[Instances]:
        """The objects of each image, given the same parts of the truth as in the paper; each has score 1."""


@runtime_checkable
class HasCurriculum(Protocol):
    """Training that changes from epoch to epoch."""

    def at_epoch(self, epoch: int) -> None:
        """Say which epoch it is, counted from 0."""


@runtime_checkable
class HasFallbacks(Protocol):
    """A method with thresholds for models that have learned little."""

    @property
    def threshold_fallbacks(self) -> Mapping[str, tuple[float, ...]]:
        """Values that are tried even where there are few objects to validate on."""


@runtime_checkable
class Follows(Protocol[Given]):
    """A method that can tell where each pixel's object was one frame ago, if a batch holds frames in their order."""

    follows: bool
    """Whether its options ask for that, so that its network was trained for it."""

    film_options: ClassVar[Mapping[str, object]]
    """Options that suit films, whether or not they ask for that."""

    def steps(self, maps: Given) -> Float[Tensor, "b a *s"]:
        """From each pixel to where its object was in the image before, in pixels along each axis.

        The image before the first one is the last one of the batch.
        """


@runtime_checkable
class Ordered(Protocol):
    """A method that numbers objects in the order in which it finds them; overlays colour them in that order."""

    ordered: ClassVar[bool]


@runtime_checkable
class KnowsWhenFull(Protocol[Given]):
    """A method that knows when there may be more objects than it can find."""

    def is_full(self, maps: Given) -> list[bool]:
        """Whether each image may have more objects than `max_instances`."""


@runtime_checkable
class LearnsNumbers(Protocol):
    """Grouping by numbers that training changes; other programs need them besides options and thresholds."""

    def learned_numbers(self) -> dict[str, float]:
        """The present values of these numbers, by name."""


def check_reach(reach: float) -> None:
    """Refuse a reach that `Objects.near` cannot have."""
    if not 0 < reach < math.inf:
        raise InputError(f"reach is {reach}; it is a number of radii above 0: 1 for objects that touch.")


def checked_weights(**weights: float) -> dict[str, float]:
    """The weights of a loss's terms, once it is clear that none is negative, infinite or NaN."""
    for name, weight in weights.items():
        check_number(f"{name}_weight", weight, 0)
    return weights


def each_changed(maps: M, change: Callable[[Tensor], Tensor]) -> M:
    """Maps of the same kind, with each tensor changed."""
    twin = copy.copy(maps)
    vars(twin).update({name: change(values) for name, values in vars(maps).items()})
    return twin


def with_network(method: Method[M], network: nn.Module) -> Method[M]:
    """A copy of a method that uses another network and shares everything else."""
    twin = copy.copy(method)
    assert isinstance(twin, nn.Module)
    vars(twin)["_modules"] = twin._modules | {"network": network}
    return twin


def lacking(method: object) -> list[str]:
    """The names of what an object lacks to be a `Method`."""
    named = {*Method.__annotations__, *vars(Method)} - {*vars(Protocol), "_is_runtime_protocol"}
    return sorted(name for name in named if not name.startswith("_") and not hasattr(method, name))
