"""What a network is: maps of an image at its size, from one encoder and any number of decoders.

All networks are made and used in the same way, so a method need not know which one it has. Each of them is a `Network`;
the other protocols are what only some can do, and callers ask for them with `isinstance`.

Shapes: `b` images, `c` channels, `s` their lengths along each axis: rows and columns or, of volumes, planes, rows and
columns.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from jaxtyping import Float
from torch import Tensor, nn


@runtime_checkable
class Network(Protocol):
    """A torch module that is made from the number of image channels and, for each decoder, of output channels."""

    channels: tuple[int, ...]
    """Of the encoder's features, from fine to coarse."""

    strides: tuple[int, ...]
    """Of these features, in pixels."""

    def __init__(self, channels_in: int, channels_out: Sequence[int], **options: object) -> None:
        """Build the layers; options are keyword-only, with the paper's values as defaults.

        Args:
            channels_in: channels of the image.
            channels_out: output channels of each decoder; none for the encoder alone.
            options: the network's own.
        """

    @property
    def heads(self) -> Sequence[nn.ConvTranspose2d | nn.ConvTranspose3d]:
        """The last layer of each decoder, linear and with a bias."""

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The encoder's features from fine to coarse, for a method with a decoder of its own.

        The images are padded first, at the right and below, to multiples of the coarsest stride.
        """

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """The maps of all decoders, in their order, at the image's size, whatever that is."""

    # What every torch module has.

    def __call__(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """As `forward`."""

    def modules(self) -> Iterator[nn.Module]:
        """The network and all its parts."""


@runtime_checkable
class TakesVolumes(Protocol):
    """A method or network for volumes, too; it is then made with `spacing`, the length of a step along three axes."""

    takes_volumes: ClassVar[bool]


@runtime_checkable
class StridesByAxis(Protocol):
    """A network whose features may be coarser along one axis than along another."""

    strides_by_axis: tuple[tuple[int, ...], ...]
    """Of the features from fine to coarse, along each axis."""


@runtime_checkable
class JoinsFrames(Protocol):
    """A network that can have one decoder more, which sees each image's features beside those of the image before it.

    It is then made with `joint_channels`, the output channels of that decoder; its maps come last. The image before the
    first one of a batch is the last one. In training a batch holds pairs, of which only the second image is compared.
    """

    joins_frames: ClassVar[bool]


def strides_along(network: Network, n_axes: int) -> tuple[tuple[int, ...], ...]:
    """The strides of a network's features along each axis, from fine to coarse."""
    if isinstance(network, StridesByAxis):
        return network.strides_by_axis
    return tuple((stride,) * n_axes for stride in network.strides)


@runtime_checkable
class TakesPretrainedEncoder(Protocol):
    """A network whose encoder can start from pretrained weights (`model.encoder_weights` of a recipe)."""

    def load_encoder(self, path: str | Path, image_channels: int) -> None:
        """Take over the weights of a file.

        Args:
            path: of the weights.
            image_channels: how many of the input channels are the image's; they come first.

        Raises:
            InputError: if the file is missing, damaged, or holds other weights than the encoder has.
        """


@runtime_checkable
class NamesNormalised(Protocol):
    """A block that knows which of its convolutions are directly followed by a normalisation; prediction merges them."""

    normalised: tuple[tuple[str, str], ...]
    """Names of each such convolution and of its normalisation."""


@runtime_checkable
class SuggestsOptions(Protocol):
    """A network that suggests values other than the paper's for some options, to recipes made for a data set."""

    @staticmethod
    def suggestions() -> Mapping[str, float | int | str | bool]:
        """Options and their values."""
