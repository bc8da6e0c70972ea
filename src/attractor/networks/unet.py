"""U-Net on a ResNet: a pyramid of features brought back to maps of the size of the image or volume.

A decoder starts at the coarsest features, which see far, and doubles their resolution step by step; at each step
it adds the encoder's features of that resolution, which know exactly where things are.

Source: Ronneberger et al. 2015 (U-Net), with a residual network for the way down.
Shapes: `b` images, `c` channels, `s` their lengths along each axis, (row, column) or (plane, row, column). Sides may
have any length: they are padded to multiples of the encoder's strides by reflection, and the result is cropped back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import InputError, check_number
from attractor.networks.convolutions import CONVOLUTION
from attractor.networks.grids import DROPOUT, NORMALISATION, SQUARE, TRANSPOSED, WAITS_AT, Grid
from attractor.networks.padding import cropped, padded
from attractor.networks.resnet import DEPTHS, MOST_CHANNELS, ResNet, load_weights

ENCODERS = {f"resnet{depth}": depth for depth in DEPTHS}
INTERPOLATION = {2: "bilinear", 3: "trilinear"}  # by number of axes


def _conv(channels_in: int, channels_out: int, grid: Grid) -> nn.Sequential:
    padding = tuple(side // 2 for side in grid.kernel)
    conv = CONVOLUTION[grid.n_axes](channels_in, channels_out, grid.kernel, padding=padding, bias=False)
    return nn.Sequential(conv, NORMALISATION[grid.n_axes](channels_out), nn.ReLU())


class Merge(nn.Module):
    """Coarse features joined with fine ones, at the resolution of the fine ones."""

    def __init__(self, channels_coarse: int, channels_fine: int, channels_out: int, grid: Grid) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _conv(channels_coarse + channels_fine, channels_out, grid), _conv(channels_out, channels_out, grid)
        )

    def forward(self, coarse: Float[Tensor, "b c *t"], fine: Float[Tensor, "b d *s"]) -> Float[Tensor, "b e *s"]:
        """The joint features; `coarse` may already have the size of `fine`, as dilated layers do."""
        shape = fine.shape[2:]
        if coarse.shape[2:] != shape:
            coarse = F.interpolate(coarse, shape, mode=INTERPOLATION[len(shape)], align_corners=False)
        joint: Float[Tensor, "b e *s"] = self.convs(torch.cat([coarse, fine], 1))
        return joint


class UNetDecoder(nn.Module):
    """From features with these `channels`, fine to coarse, to `channels_out` maps; the last layer is linear.

    `grids` are the resolutions of these features, and `stride` is that of the finest.
    """

    def __init__(
        self, channels: Sequence[int], channels_out: int, width: int, grids: Sequence[Grid], stride: tuple[int, ...]
    ) -> None:
        super().__init__()
        fine = channels[:-1]
        widths = [min(width * 2**n, c) for n, c in enumerate(fine)]  # no wider than what they join
        joined = zip([*widths[1:], channels[-1]], fine, widths, grids[:-1], strict=True)
        self.merges = nn.ModuleList(Merge(*each) for each in joined)
        self.head: nn.ConvTranspose2d | nn.ConvTranspose3d
        self.head = TRANSPOSED[len(stride)](widths[0], channels_out, stride, stride)

    def forward(self, features: list[Float[Tensor, "b _ *_"]]) -> Float[Tensor, "b d *s"]:
        """The maps, at twice the resolution of the finest features."""
        x = features[-1]
        for merge, fine in zip(reversed(self.merges), reversed(features[:-1]), strict=True):
            x = merge(x, fine)
        maps: Float[Tensor, "b d *s"] = self.head(x)
        return maps


class UNet(nn.Module):
    """One ResNet for `channels_in` image channels, one decoder for each entry of `channels_out`."""

    takes_volumes: ClassVar[bool] = True

    def __init__(
        self,
        channels_in: int,
        channels_out: Sequence[int],
        *,
        spacing: Sequence[float] = SQUARE,
        encoder: str = "resnet18",
        stride: int = 32,
        width: int = 64,
        decoder_width: int = 32,
        dropout: float = 0.0,
        waits_at: float = WAITS_AT,
    ) -> None:
        """Build the layers.

        Args:
            channels_in: channels of the image.
            channels_out: output channels of each decoder; none for the encoder alone.
            spacing: length of a step along each axis: three numbers for volumes, along (plane, row, column).
            encoder: "resnet18", "resnet34", "resnet50" or "resnet101".
            stride: of the encoder's coarsest features, in pixels: 32, 16 or 8. Below 32 the last layers are dilated:
                they cost more and say more exactly where things are.
            width: channels of the encoder's first layer; pretrained weights need 64.
            decoder_width: channels of the decoder's finest features; it doubles with each step to coarser ones, up to
                the number that the encoder has there.
            dropout: share of the channels of the coarsest features that are dropped in training.
            waits_at: an axis of a volume whose steps are at least this many times as long as the shortest ones is not
                halved.

        Raises:
            InputError: if a name or number is not one of these.
        """
        super().__init__()
        if encoder not in ENCODERS:
            raise InputError(f'encoder = "{encoder}" is not known; it can be {", ".join(ENCODERS)}.')
        check_number("decoder_width", decoder_width, 1, MOST_CHANNELS)
        check_number("dropout", dropout, 0, 0.99)
        self.encoder = ResNet(
            channels_in, ENCODERS[encoder], stride=stride, width=width, spacing=spacing, waits_at=waits_at
        )
        self.dropout: nn.Module = DROPOUT[len(spacing)](dropout)
        self.channels: tuple[int, ...] = self.encoder.channels
        self.strides: tuple[int, ...] = self.encoder.strides
        self.strides_by_axis: tuple[tuple[int, ...], ...] = self.encoder.strides_by_axis
        grids, finest = self.encoder.grids, self.strides_by_axis[0]
        self.decoders = nn.ModuleList(UNetDecoder(self.channels, n, decoder_width, grids, finest) for n in channels_out)

    @staticmethod
    def suggestions() -> dict[str, float]:
        """Some dropout, as most data sets are small."""
        return {"dropout": 0.1}

    def load_encoder(self, path: str | Path, image_channels: int) -> None:
        """Start from the ResNet in a file, as trained on ImageNet; see `resnet.load_weights`."""
        load_weights(self.encoder, path, image_channels)

    @property
    def heads(self) -> list[nn.ConvTranspose2d | nn.ConvTranspose3d]:
        """The last layer of each decoder."""
        return [decoder.head for decoder in self.decoders if isinstance(decoder, UNetDecoder)]

    def pyramid(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """The encoder's features from fine to coarse, of the image padded to multiples of the coarsest stride."""
        *fine, coarse = self.encoder(padded(images, self.strides_by_axis[-1]))
        return [*fine, self.dropout(coarse)]

    def forward(self, images: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *s"]:
        """The maps of all decoders, in their order, at the image's size."""
        if not self.decoders:
            return images[:, :0]
        features = self.pyramid(images)
        maps = torch.cat([decoder(features) for decoder in self.decoders], 1)
        return cropped(maps, images.shape[2:])
