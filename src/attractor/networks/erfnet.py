"""ERFNet with one encoder and one decoder for each group of output channels.

Factorised residual blocks at an eighth of the image's resolution see up to about 600 pixels away, and three
transposed convolutions bring their answer back to every pixel.

Source: Romera et al. 2018 (ERFNet); Neven et al. 2019, section 3.5, for the branches.
Shapes: `b` images, `c` channels, `h` rows, `w` columns. Sides may have any length: they are padded to
multiples of 8 by reflection, and the result is cropped back.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import check_number
from attractor.networks.padding import padded


def _norm(channels: int) -> nn.BatchNorm2d:
    return nn.BatchNorm2d(channels, eps=1e-3)


class Down(nn.Module):
    """Halve the resolution: a strided convolution beside max pooling."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels_in, channels_out - channels_in, 3, stride=2, padding=1)
        self.pool = nn.MaxPool2d(2)
        self.norm = _norm(channels_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Features at half the resolution; both sides must be even."""
        return F.relu(self.norm(torch.cat([self.conv(x), self.pool(x)], 1)), inplace=True)


class NonBottleneck1D(nn.Module):
    """A residual block of two 3x3 convolutions, each split into 3x1 and 1x3."""

    normalised = (("conv_1x3_a", "norm_a"), ("conv_1x3_b", "norm_b"))

    def __init__(self, channels: int, dropout: float, dilation: int) -> None:
        super().__init__()
        d = dilation
        self.conv_3x1_a = nn.Conv2d(channels, channels, (3, 1), padding=(1, 0))
        self.conv_1x3_a = nn.Conv2d(channels, channels, (1, 3), padding=(0, 1))
        self.norm_a = _norm(channels)
        self.conv_3x1_b = nn.Conv2d(channels, channels, (3, 1), padding=(d, 0), dilation=(d, 1))
        self.conv_1x3_b = nn.Conv2d(channels, channels, (1, 3), padding=(0, d), dilation=(1, d))
        self.norm_b = _norm(channels)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
        """The features, refined; the shape stays."""
        y = F.relu(self.conv_3x1_a(x), inplace=True)
        y = F.relu(self.norm_a(self.conv_1x3_a(y)), inplace=True)
        y = F.relu(self.conv_3x1_b(y), inplace=True)
        y = self.dropout(self.norm_b(self.conv_1x3_b(y)))
        return F.relu(y + x, inplace=True)


class Up(nn.Module):
    """Double the resolution by a transposed convolution."""

    normalised = (("conv", "norm"),)

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(channels_in, channels_out, 3, stride=2, padding=1, output_padding=1)
        self.norm = _norm(channels_out)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """Features at twice the resolution."""
        return F.relu(self.norm(self.conv(x)), inplace=True)


class ERFNetDecoder(nn.Sequential):
    """From an eighth of the resolution to `channels_out` maps at the full one; the last layer is linear."""

    def __init__(self, channels_out: int) -> None:
        super().__init__(
            Up(128, 64),
            NonBottleneck1D(64, 0.0, 1),
            NonBottleneck1D(64, 0.0, 1),
            Up(64, 16),
            NonBottleneck1D(16, 0.0, 1),
            NonBottleneck1D(16, 0.0, 1),
            nn.ConvTranspose2d(16, channels_out, 2, stride=2),
        )

    @property
    def head(self) -> nn.ConvTranspose2d:
        """The last layer."""
        layer = self[-1]
        assert isinstance(layer, nn.ConvTranspose2d)
        return layer


class Skips(nn.Module):
    """What a decoder adds of the encoder's finer features, as soon as it is back at their resolution.

    It begins as zero, so a network that starts from the weights of one without skips gives that one's maps at first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.from_4 = nn.Conv2d(64, 64, 1, bias=False)
        self.from_2 = nn.Conv2d(16, 16, 1, bias=False)
        for conv in (self.from_4, self.from_2):
            nn.init.zeros_(conv.weight)

    def forward(self, decoder: ERFNetDecoder, features: Sequence[Float[Tensor, "b _ _ _"]]) -> Float[Tensor, "b d h w"]:
        """The decoder's maps from the encoder's features, fine to coarse."""
        fine, middle, x = features
        added = iter((self.from_4(middle), self.from_2(fine)))
        for layer in decoder:
            x = layer(x)
            if isinstance(layer, Up):
                x = x + next(added)
        return x


class ERFNet(nn.Module):
    """One encoder for `channels_in` image channels, one decoder for each entry of `channels_out`."""

    channels: tuple[int, ...] = (16, 64, 128)
    strides: tuple[int, ...] = (2, 4, 8)

    def __init__(
        self, channels_in: int, channels_out: Sequence[int], *, dropout: float = 0.3, skips: bool = False
    ) -> None:
        """Build the layers.

        Args:
            channels_in: channels of the image.
            channels_out: output channels of each decoder; none for the encoder alone.
            dropout: share of the channels dropped in the deepest blocks; the paper's value is the default,
                and a tenth of it is used in the shallower ones.
            skips: whether the decoders also see the encoder's features at a half and a quarter of the resolution, which
                the paper's do not: small objects and outlines gain.

        Raises:
            InputError: if the share is not at least 0 and below 1.
        """
        super().__init__()
        check_number("dropout", dropout, 0, 0.99)
        self.encoder = nn.Sequential(
            Down(channels_in, 16),
            Down(16, 64),
            *(NonBottleneck1D(64, dropout / 10, 1) for _ in range(5)),
            Down(64, 128),
            *(NonBottleneck1D(128, dropout, d) for _ in range(2) for d in (2, 4, 8, 16)),
        )
        self.decoders = nn.ModuleList(ERFNetDecoder(n) for n in channels_out)
        self.skips = nn.ModuleList(Skips() for _ in channels_out) if skips else None

    @staticmethod
    def suggestions() -> dict[str, float]:
        """Less dropout than the paper uses for Cityscapes, as most data sets are easier."""
        return {"dropout": 0.1}

    @property
    def heads(self) -> list[nn.ConvTranspose2d]:
        """The last layer of each decoder."""
        return [decoder.head for decoder in self.decoders if isinstance(decoder, ERFNetDecoder)]

    def pyramid(self, images: Float[Tensor, "b c h w"]) -> list[Float[Tensor, "b _ _ _"]]:
        """The encoder's features from fine to coarse, of the image padded to multiples of the coarsest stride."""
        x = padded(images, self.strides[-1])
        features = []
        for layer in self.encoder:
            if isinstance(layer, Down):  # here one resolution ends; the first to end is the image's own
                features.append(x)
            x = layer(x)
        return [*features[1:], x]

    def forward(self, images: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d h w"]:
        """The maps of all decoders, in their order, at the image's size."""
        h, w = images.shape[-2:]
        if not self.decoders:
            return images[:, :0]
        features = self.pyramid(images)
        if self.skips is None:
            maps = [decoder(features[-1]) for decoder in self.decoders]
        else:
            maps = [skip(decoder, features) for skip, decoder in zip(self.skips, self.decoders, strict=True)]
        return torch.cat(maps, 1)[..., :h, :w]
