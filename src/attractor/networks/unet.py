"""U-Net on a ResNet: a pyramid of features brought back to maps of the image's size.

A decoder starts at the coarsest features, which see far, and doubles their resolution step by step; at each step
it adds the encoder's features of that resolution, which know exactly where things are.

Source: Ronneberger et al. 2015 (U-Net), with a residual network for the way down.
Shapes: `b` images, `c` channels, `h` rows, `w` columns. Sides may have any length: they are padded to multiples of
the encoder's stride by reflection, and the result is cropped back.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import InputError, check_number
from attractor.networks.padding import padded
from attractor.networks.resnet import DEPTHS, MOST_CHANNELS, ResNet, load_weights

ENCODERS = {f"resnet{depth}": depth for depth in DEPTHS}


def _conv(channels_in: int, channels_out: int) -> nn.Sequential:
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


class Merge(nn.Module):
    """Coarse features joined with fine ones, at the resolution of the fine ones."""

    def __init__(self, channels_coarse: int, channels_fine: int, channels_out: int) -> None:
        super().__init__()
        self.convs = nn.Sequential(
            _conv(channels_coarse + channels_fine, channels_out), _conv(channels_out, channels_out)
        )

    def forward(self, coarse: Float[Tensor, "b c i j"], fine: Float[Tensor, "b d h w"]) -> Float[Tensor, "b e h w"]:
        """The joint features; `coarse` may already have the size of `fine`, as dilated layers do."""
        if coarse.shape[-2:] != fine.shape[-2:]:
            coarse = F.interpolate(coarse, fine.shape[-2:], mode="bilinear", align_corners=False)
        joint: Float[Tensor, "b e h w"] = self.convs(torch.cat([coarse, fine], 1))
        return joint


class UNetDecoder(nn.Module):
    """From features with these `channels`, fine to coarse, to `channels_out` maps; the last layer is linear."""

    def __init__(self, channels: Sequence[int], channels_out: int, width: int) -> None:
        super().__init__()
        fine = channels[:-1]
        widths = [min(width * 2**n, c) for n, c in enumerate(fine)]  # no wider than what they join
        self.merges = nn.ModuleList(
            Merge(coarse, c, out) for coarse, c, out in zip([*widths[1:], channels[-1]], fine, widths, strict=True)
        )
        self.head = nn.ConvTranspose2d(widths[0], channels_out, 2, stride=2)

    def forward(self, features: list[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b d h w"]:
        """The maps, at twice the resolution of the finest features."""
        x = features[-1]
        for merge, fine in zip(reversed(self.merges), reversed(features[:-1]), strict=True):
            x = merge(x, fine)
        maps: Float[Tensor, "b d h w"] = self.head(x)
        return maps


class UNet(nn.Module):
    """One ResNet for `channels_in` image channels, one decoder for each entry of `channels_out`."""

    def __init__(
        self,
        channels_in: int,
        channels_out: Sequence[int],
        *,
        encoder: str = "resnet18",
        stride: int = 32,
        width: int = 64,
        decoder_width: int = 32,
        dropout: float = 0.0,
    ) -> None:
        """Build the layers.

        Args:
            channels_in: channels of the image.
            channels_out: output channels of each decoder; none for the encoder alone.
            encoder: "resnet18", "resnet34", "resnet50" or "resnet101".
            stride: of the encoder's coarsest features, in pixels: 32, 16 or 8. Below 32 the last layers are dilated:
                they cost more and say more exactly where things are.
            width: channels of the encoder's first layer; pretrained weights need 64.
            decoder_width: channels of the decoder's finest features; it doubles with each step to coarser ones, up to
                the number that the encoder has there.
            dropout: share of the channels of the coarsest features that are dropped in training.

        Raises:
            InputError: if a name or number is not one of these.
        """
        super().__init__()
        if encoder not in ENCODERS:
            raise InputError(f'encoder = "{encoder}" is not known; it can be {", ".join(ENCODERS)}.')
        check_number("decoder_width", decoder_width, 1, MOST_CHANNELS)
        check_number("dropout", dropout, 0, 0.99)
        self.encoder = ResNet(channels_in, ENCODERS[encoder], stride=stride, width=width)
        self.dropout = nn.Dropout2d(dropout)
        self.channels: tuple[int, ...] = self.encoder.channels
        self.strides: tuple[int, ...] = self.encoder.strides
        self.decoders = nn.ModuleList(UNetDecoder(self.channels, n, decoder_width) for n in channels_out)

    @staticmethod
    def suggestions() -> dict[str, float]:
        """Some dropout, as most data sets are small."""
        return {"dropout": 0.1}

    def load_encoder(self, path: str | Path, image_channels: int) -> None:
        """Start from the ResNet in a file, as trained on ImageNet; see `resnet.load_weights`."""
        load_weights(self.encoder, path, image_channels)

    @property
    def heads(self) -> list[nn.ConvTranspose2d]:
        """The last layer of each decoder."""
        return [decoder.head for decoder in self.decoders if isinstance(decoder, UNetDecoder)]

    def pyramid(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The encoder's features from fine to coarse, of the image padded to multiples of the coarsest stride."""
        *fine, coarse = self.encoder(padded(images, self.strides[-1]))
        return [*fine, self.dropout(coarse)]

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The maps of all decoders, in their order, at the image's size."""
        h, w = images.shape[-2:]
        if not self.decoders:
            return images[:, :0]
        features = self.pyramid(images)
        maps = torch.cat([decoder(features) for decoder in self.decoders], 1)
        return maps[..., :h, :w]
