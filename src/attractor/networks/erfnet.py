"""ERFNet with one encoder and a decoder for each group of output channels or for all, for images and for volumes.

Factorised residual blocks at an eighth of the image's resolution see up to about 600 pixels away, and three
transposed convolutions bring their answer back to every pixel. In a volume, an axis whose steps are much longer than
the others' is not halved, and not convolved along, until theirs have become as long.

Source: Romera et al. 2018 (ERFNet); Neven et al. 2019, section 3.5, for the branches; Lalit et al. 2021 (EmbedSeg) for
volumes; Isensee et al. 2021 (nnU-Net) for the axes that wait.
Shapes: `b` images, `c` channels, `s` their lengths along each axis, (row, column) or (plane, row, column). Sides may
have any length: they are padded to multiples of the coarsest stride by reflection, and the result is cropped back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import check_number
from attractor.networks.convolutions import ALONG_ONE_AXIS, CONVOLUTION
from attractor.networks.grids import (
    DROPOUT,
    NORMALISATION,
    OF_IMAGES,
    POOLING,
    SQUARE,
    TRANSPOSED,
    WAITS_AT,
    Grid,
    Sides,
    products,
)
from attractor.networks.padding import cropped, padded


def _norm(channels: int, n_axes: int) -> nn.BatchNorm2d | nn.BatchNorm3d:
    layer: nn.BatchNorm2d | nn.BatchNorm3d = NORMALISATION[n_axes](channels, eps=1e-3)
    return layer


class Down(nn.Module):
    """Halve the resolution: a strided convolution beside max pooling."""

    def __init__(self, channels_in: int, channels_out: int, grid: Grid = OF_IMAGES) -> None:
        super().__init__()
        kernel, stride = grid.kernel, grid.stride
        padding = tuple(side // 2 for side in kernel)
        self.conv = CONVOLUTION[grid.n_axes](channels_in, channels_out - channels_in, kernel, stride, padding)
        self.pool = POOLING[grid.n_axes](stride)
        self.norm = _norm(channels_out, grid.n_axes)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """Features at half the resolution; sides that are halved must be even."""
        return F.relu(self.norm(torch.cat([self.conv(x), self.pool(x)], 1)), inplace=True)


class NonBottleneck1D(nn.Module):
    """A residual block of two convolutions, each split into one along each axis: 3x1 and 1x3, say."""

    def __init__(self, channels: int, dropout: float, dilation: int, grid: Grid = OF_IMAGES) -> None:
        super().__init__()
        self.stages: list[tuple[list[str], str]] = []  # names of convolutions, and of the normalisation behind them
        for stage, d in (("a", (1,) * grid.n_axes), ("b", grid.dilation(dilation))):
            names = [self._add_convolution(channels, axis, d, grid, stage) for axis in _wide(grid)]
            setattr(self, f"norm_{stage}", _norm(channels, grid.n_axes))
            self.stages.append((names, f"norm_{stage}"))
        self.normalised = tuple((names[-1], norm) for names, norm in self.stages)
        self.dropout = DROPOUT[grid.n_axes](dropout)

    def _add_convolution(self, channels: int, axis: int, dilation: Sides, grid: Grid, stage: str) -> str:
        """Add the convolution along an axis, and return its name."""
        own = [other == axis for other in range(grid.n_axes)]
        kernel = tuple(3 if is_own else 1 for is_own in own)
        d = tuple(each if is_own else 1 for each, is_own in zip(dilation, own, strict=True))
        padding = tuple(each if is_own else 0 for each, is_own in zip(d, own, strict=True))
        name = f"conv_{'x'.join(map(str, kernel))}_{stage}"
        setattr(self, name, ALONG_ONE_AXIS[grid.n_axes](channels, channels, kernel, padding=padding, dilation=d))
        return name

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """The features, refined; the shape stays."""
        (first, first_norm), (second, second_norm) = self.stages
        y = F.relu(self._normalised(x, first, first_norm), inplace=True)
        y = self.dropout(self._normalised(y, second, second_norm))
        return F.relu(y + x, inplace=True)

    def _normalised(self, x: Float[Tensor, "b c *s"], names: Sequence[str], norm: str) -> Float[Tensor, "b c *s"]:
        """The features after some convolutions, with rectifiers between them, and a normalisation."""
        for name in names[:-1]:
            x = F.relu(getattr(self, name)(x), inplace=True)
        features: Tensor = getattr(self, norm)(getattr(self, names[-1])(x))
        return features


def _wide(grid: Grid) -> list[int]:
    """The axes that convolutions go along."""
    return [axis for axis, side in enumerate(grid.kernel) if side == 3]


class Up(nn.Module):
    """Double the resolution by a transposed convolution."""

    normalised = (("conv", "norm"),)

    def __init__(self, channels_in: int, channels_out: int, grid: Grid = OF_IMAGES) -> None:
        super().__init__()
        kernel, stride = grid.kernel, grid.stride
        padding, more = tuple(side // 2 for side in kernel), tuple(times - 1 for times in stride)
        self.conv = TRANSPOSED[grid.n_axes](channels_in, channels_out, kernel, stride, padding, output_padding=more)
        self.norm = _norm(channels_out, grid.n_axes)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """Features at twice the resolution."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class Heads(nn.ModuleList):
    """Linear last layers of one decoder, each with maps of its own."""

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """The maps of all, in their order."""
        return torch.cat([head(x) for head in self], 1)


class ERFNetDecoder(nn.Sequential):
    """From an eighth of the resolution to maps at the full one; the last layer is linear.

    `channels_out` is the number of maps, or the numbers of several heads, which share all layers but the last.
    """

    def __init__(self, channels_out: int | Sequence[int], grid: Grid = OF_IMAGES, channels_in: int = 128) -> None:
        half, quarter = grid.coarser, grid.coarser.coarser

        def head(n: int) -> nn.Module:
            layer: nn.Module = TRANSPOSED[grid.n_axes](16, n, grid.stride, grid.stride)
            return layer

        super().__init__(
            Up(channels_in, 64, quarter),
            NonBottleneck1D(64, 0.0, 1, quarter),
            NonBottleneck1D(64, 0.0, 1, quarter),
            Up(64, 16, half),
            NonBottleneck1D(16, 0.0, 1, half),
            NonBottleneck1D(16, 0.0, 1, half),
            head(channels_out) if isinstance(channels_out, int) else Heads(head(n) for n in channels_out),
        )

    @property
    def heads(self) -> list[nn.ConvTranspose2d | nn.ConvTranspose3d]:
        """The last layers: one, unless several share this decoder."""
        last = self[-1]
        every = list(last) if isinstance(last, Heads) else [last]
        return [layer for layer in every if isinstance(layer, nn.ConvTranspose2d | nn.ConvTranspose3d)]


class Skips(nn.Module):
    """What a decoder adds of the encoder's finer features, as soon as it is back at their resolution.

    It begins as zero, so a network that starts from the weights of one without skips gives that one's maps at first.
    """

    def __init__(self, n_axes: int = 2) -> None:
        super().__init__()
        self.from_4 = CONVOLUTION[n_axes](64, 64, 1, bias=False)
        self.from_2 = CONVOLUTION[n_axes](16, 16, 1, bias=False)
        for conv in (self.from_4, self.from_2):
            nn.init.zeros_(conv.weight)

    def forward(self, decoder: ERFNetDecoder, features: Sequence[Float[Tensor, "b _ *_"]]) -> Float[Tensor, "b d *s"]:
        """The decoder's maps from the encoder's features, fine to coarse."""
        fine, middle, x = features
        added = iter((self.from_4(middle), self.from_2(fine)))
        for layer in decoder:
            x = layer(x)
            if isinstance(layer, Up):
                x = x + next(added)
        return x


class ERFNet(nn.Module):
    """One encoder for `channels_in` image channels, one decoder or head for each entry of `channels_out`."""

    channels: tuple[int, ...] = (16, 64, 128)
    strides: tuple[int, ...] = (2, 4, 8)
    takes_volumes: ClassVar[bool] = True
    joins_frames: ClassVar[bool] = True

    def __init__(
        self,
        channels_in: int,
        channels_out: Sequence[int],
        *,
        joint_channels: int = 0,
        spacing: Sequence[float] = SQUARE,
        dropout: float = 0.3,
        skips: bool = False,
        one_decoder: bool = False,
        waits_at: float = WAITS_AT,
    ) -> None:
        """Build the layers.

        Args:
            channels_in: channels of the image.
            channels_out: output channels of each decoder; none for the encoder alone.
            joint_channels: output channels of a decoder that sees each image's features beside those of the image
                before it in the batch; none for no such decoder.
            spacing: length of a step along each axis: three numbers for volumes, along (plane, row, column).
            dropout: share of the channels dropped in the deepest blocks; the paper's value is the default,
                and a tenth of it is used in the shallower ones.
            skips: whether the decoders also see the encoder's features at a half and a quarter of the resolution, which
                the paper's do not: small objects and outlines gain.
            one_decoder: whether a single decoder ends in a head for each entry of `channels_out`, where Neven et al.
                have a decoder for each; with two entries it saves a sixth of all operations.
            waits_at: an axis of a volume whose steps are at least this many times as long as the shortest ones is not
                halved. nnU-Net has 2; with the default, voxels of 1.75 x 0.8 x 0.8 um cost half as much as by that.

        Raises:
            InputError: if the share is not at least 0 and below 1, or the other number is out of range.
        """
        super().__init__()
        check_number("dropout", dropout, 0, 0.99)
        check_number("waits_at", waits_at, 1.01, 100)
        grid = Grid(tuple(spacing), waits_at)
        half, quarter, eighth = grid.coarser, grid.coarser.coarser, grid.coarser.coarser.coarser
        self.strides_by_axis = products([grid.stride, half.stride, quarter.stride])
        self.encoder = nn.Sequential(
            Down(channels_in, 16, grid),
            Down(16, 64, half),
            *(NonBottleneck1D(64, dropout / 10, 1, quarter) for _ in range(5)),
            Down(64, 128, quarter),
            *(NonBottleneck1D(128, dropout, d, eighth) for _ in range(2) for d in (2, 4, 8, 16)),
        )
        of_decoders = [list(channels_out)] if one_decoder and channels_out else channels_out
        self.decoders = nn.ModuleList(ERFNetDecoder(each, grid) for each in of_decoders)
        self.skips = nn.ModuleList(Skips(grid.n_axes) for _ in self.decoders) if skips else None
        self.joint = ERFNetDecoder(joint_channels, grid, 2 * 128) if joint_channels else None

    @staticmethod
    def suggestions() -> dict[str, float]:
        """Less dropout than the paper uses for Cityscapes, as most data sets are easier."""
        return {"dropout": 0.1}

    @property
    def heads(self) -> list[nn.ConvTranspose2d | nn.ConvTranspose3d]:
        """The last layers, one for each entry of `channels_out`, then that of the joint decoder."""
        decoders = [each for each in (*self.decoders, self.joint) if isinstance(each, ERFNetDecoder)]
        return [head for decoder in decoders for head in decoder.heads]

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The encoder's features from fine to coarse, of the image padded to multiples of the coarsest stride."""
        x = padded(images, self.strides_by_axis[-1])
        features = []
        for layer in self.encoder:
            if isinstance(layer, Down):  # here one resolution ends; the first to end is the image's own
                features.append(x)
            x = layer(x)
        return [*features[1:], x]

    def _compared(self, coarse: Float[Tensor, "b c *t"], joint: ERFNetDecoder) -> Float[Tensor, "b d *s"]:
        """The maps of images compared with the ones before; in training, those of the first of each pair are 0."""
        if not self.training:
            maps: Tensor = joint(torch.cat([coarse, coarse.roll(1, 0)], 1))
            return maps
        second: Tensor = joint(torch.cat([coarse[1::2], coarse[::2]], 1))
        return torch.stack([torch.zeros_like(second), second], 1).flatten(0, 1)

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """The maps of all decoders, in their order, at the image's size."""
        if not self.decoders:
            return images[:, :0]
        features = self.pyramid(images)
        if self.skips is None:
            maps = [decoder(features[-1]) for decoder in self.decoders]
        else:
            maps = [skip(decoder, features) for skip, decoder in zip(self.skips, self.decoders, strict=True)]
        if self.joint is not None:
            maps.append(self._compared(features[-1], self.joint))
        return cropped(torch.cat(maps, 1), images.shape[2:])
