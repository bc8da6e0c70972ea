"""ResNet 18, 34, 50 and 101 as a pyramid of features, from half the resolution of an image or volume down.

Each block adds a correction to its input, so that a hundred layers can be trained. Where finer features are
wanted than the last layers give, these layers keep the resolution and spread their kernels instead (dilation): they
then see as far as before and compute the same at the pixels that the strides would have kept. The classifier is left
out.

Parameters have the names that torchvision gives them, so that weights trained on ImageNet fit.

Source: He et al. 2016, "Deep Residual Learning for Image Recognition", with the stride of a bottleneck on its 3x3
convolution, as in torchvision; Yu & Koltun 2016 for dilation; Isensee et al. 2021 (nnU-Net) for the axes that wait.
Shapes: `b` images, `c` channels, `s` their lengths along each axis, (row, column) or (plane, row, column).
"""

from __future__ import annotations

import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import safetensors
import safetensors.torch
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import InputError, check_number
from attractor.networks.convolutions import CONVOLUTION
from attractor.networks.grids import (
    NORMALISATION,
    POOLING,
    SQUARE,
    WAITS_AT,
    Grid,
    Sides,
    products,
)

STRIDES = (32, 16, 8)  # that the coarsest features may have
MOST_CHANNELS = 512  # of a first layer
NAMED = 3  # parameters that a message names before it only counts the rest


def _conv(channels_in: int, channels_out: int, kernel: Sides, stride: Sides = (), dilation: Sides = ()) -> Any:
    """A convolution that keeps the size, but for the stride; strides and dilations are 1 if not given."""
    ones = (1,) * len(kernel)
    padding = tuple(d * (side // 2) for d, side in zip(dilation or ones, kernel, strict=True))
    convolution = CONVOLUTION[len(kernel)]
    return convolution(channels_in, channels_out, kernel, stride or ones, padding, dilation or ones, bias=False)


def _norm(channels: int, n_axes: int) -> Any:
    return NORMALISATION[n_axes](channels)


def _shortcut(channels_in: int, channels_out: int, stride: Sides) -> nn.Module:
    if max(stride) == 1 and channels_in == channels_out:
        return nn.Identity()
    n_axes = len(stride)
    return nn.Sequential(_conv(channels_in, channels_out, (1,) * n_axes, stride), _norm(channels_out, n_axes))


class Step(NamedTuple):
    """What a convolution does along each axis."""

    kernel: Sides
    stride: Sides
    dilation: Sides


class Basic(nn.Module):
    """A residual block of two convolutions, the first with the stride."""

    expansion = 1
    normalised = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, channels_in: int, width: int, first: Step, after: Step) -> None:
        super().__init__()
        n_axes = len(first.kernel)
        self.conv1 = _conv(channels_in, width, first.kernel, first.stride, first.dilation)
        self.bn1 = _norm(width, n_axes)
        self.conv2 = _conv(width, width, after.kernel, dilation=after.dilation)
        self.bn2 = _norm(width, n_axes)
        self.downsample = _shortcut(channels_in, width, first.stride)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """The features, refined, at the resolution that the stride leaves."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.downsample(x))


class Bottleneck(nn.Module):
    """A residual block of 1x1, 3x3 and 1x1 convolutions, the 3x3 with the stride; it gives four times its width.

    In a volume, 1x1x1 and so on.
    """

    expansion = 4
    normalised = (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3"))

    def __init__(self, channels_in: int, width: int, first: Step, after: Step) -> None:
        super().__init__()  # nothing spatial comes after the 3x3, so `after` has no use here
        n_axes = len(first.kernel)
        self.conv1 = _conv(channels_in, width, (1,) * n_axes)
        self.bn1 = _norm(width, n_axes)
        self.conv2 = _conv(width, width, first.kernel, first.stride, first.dilation)
        self.bn2 = _norm(width, n_axes)
        self.conv3 = _conv(width, 4 * width, (1,) * n_axes)
        self.bn3 = _norm(4 * width, n_axes)
        self.downsample = _shortcut(channels_in, 4 * width, first.stride)

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """The features, refined, at the resolution that the stride leaves."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.bn3(self.conv3(y)) + self.downsample(x))


Block = type[Basic] | type[Bottleneck]
DEPTHS: dict[int, tuple[Block, tuple[int, int, int, int]]] = {  # kind of block, and blocks in each layer
    18: (Basic, (2, 2, 2, 2)),
    34: (Basic, (3, 4, 6, 3)),
    50: (Bottleneck, (3, 4, 6, 3)),
    101: (Bottleneck, (3, 4, 23, 3)),
}


def _layer(block: Block, n_blocks: int, channels_in: int, width: int, first: Step, after: Step) -> nn.Sequential:
    """Blocks of which the first takes over the resolution and dilation of the layer before."""
    rest = (block(block.expansion * width, width, after, after) for _ in range(n_blocks - 1))
    return nn.Sequential(block(channels_in, width, first, after), *rest)


class ResNet(nn.Module):
    """Features of an image at five depths; `channels` and `strides` are theirs, from fine to coarse.

    `grids` are the resolutions they have, as they would be without dilation, and `strides_by_axis` the strides along
    each axis.
    """

    normalised = (("conv1", "bn1"),)

    def __init__(
        self,
        channels_in: int,
        depth: int = 18,
        *,
        stride: int = 32,
        width: int = 64,
        spacing: Sequence[float] = SQUARE,
        waits_at: float = WAITS_AT,
    ) -> None:
        """Build the layers.

        Args:
            channels_in: channels of the image.
            depth: 18, 34, 50 or 101 layers, counting the classifier.
            stride: of the coarsest features, in pixels: 32, the paper's, or 16 or 8, where the last layers are dilated.
            width: channels of the first layer; all others have multiples of it. The paper's is 64.
            spacing: length of a step along each axis: three numbers for volumes, along (plane, row, column).
            waits_at: an axis of a volume whose steps are at least this many times as long as the shortest ones is not
                halved.

        Raises:
            InputError: if a number is not one of these.
        """
        super().__init__()
        _check(depth, stride, width)
        check_number("waits_at", waits_at, 1.01, 100)
        block, n_blocks = DEPTHS[depth]
        self.depth = depth
        self.channels = (width, *(block.expansion * width * n for n in (1, 2, 4, 8)))
        _, c1, c2, c3, _ = self.channels
        image = Grid(tuple(spacing), waits_at)
        self.grids = half, quarter, eighth, sixteenth, last = _resolutions(image)
        ones = (1,) * image.n_axes
        strides3, dilation3 = (eighth.stride, ones) if stride >= 16 else (ones, eighth.stride)
        strides4, dilation4 = (sixteenth.stride, ones) if stride == 32 else (ones, _times(dilation3, sixteenth.stride))
        self.strides_by_axis = products([image.stride, half.stride, quarter.stride, strides3, strides4])
        self.strides = tuple(max(strides) for strides in self.strides_by_axis)
        wide = tuple(7 if side == 3 else 1 for side in image.kernel)
        self.conv1 = _conv(channels_in, width, wide, image.stride)
        self.bn1 = _norm(width, image.n_axes)
        padding = tuple(side // 2 for side in half.kernel)
        self.pool = POOLING[image.n_axes](half.kernel, half.stride, padding)
        steps = (
            (Step(quarter.kernel, ones, ones), Step(quarter.kernel, ones, ones)),
            (Step(quarter.kernel, quarter.stride, ones), Step(eighth.kernel, ones, ones)),
            (Step(eighth.kernel, strides3, ones), Step(sixteenth.kernel, ones, dilation3)),
            (Step(sixteenth.kernel, strides4, dilation3), Step(last.kernel, ones, dilation4)),
        )
        self.layer1 = _layer(block, n_blocks[0], width, width, *steps[0])
        self.layer2 = _layer(block, n_blocks[1], c1, 2 * width, *steps[1])
        self.layer3 = _layer(block, n_blocks[2], c2, 4 * width, *steps[2])
        self.layer4 = _layer(block, n_blocks[3], c3, 8 * width, *steps[3])
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, images: Float[Tensor, "b c *s"]) -> list[Float[Tensor, "b _ *_"]]:
        """Features from fine to coarse; sides that a stride does not divide are rounded up."""
        features = [F.relu(self.bn1(self.conv1(images)))]
        x = self.pool(features[0])
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            features.append(x)
        return features


def _resolutions(image: Grid) -> tuple[Grid, Grid, Grid, Grid, Grid]:
    """A half of the image's, a quarter and so on."""
    half, quarter, eighth = image.coarser, image.coarser.coarser, image.coarser.coarser.coarser
    return half, quarter, eighth, eighth.coarser, eighth.coarser.coarser


def _times(first: Sides, second: Sides) -> Sides:
    return tuple(a * b for a, b in zip(first, second, strict=True))


def _check(depth: int, stride: int, width: int) -> None:
    if depth not in DEPTHS:
        raise InputError(f"There is no ResNet of depth {depth}; there are: {', '.join(map(str, DEPTHS))}.")
    if stride not in STRIDES:
        raise InputError(f"stride is {stride}; it can be {', '.join(map(str, STRIDES))} pixels.")
    check_number("width", width, 1, MOST_CHANNELS)


# -------------------------------------------------------------------- weights of a file


def load_weights(encoder: ResNet, path: str | Path, image_channels: int) -> None:
    """Give the encoder the weights of one of torchvision's files, as trained on ImageNet.

    The classifier in it is ignored. For an image of one channel, the first convolution is summed over its three: it
    then responds to a grey image as it did to one whose colours are equal. Channels besides the image's, such as
    coordinates, start with weights of 0.

    Args:
        encoder: is changed in place.
        path: a state dict as `torch.save` wrote it (.pth, .pt), from which no code is run, or .safetensors.
        image_channels: how many of its input channels are the image's; they come first.

    Raises:
        InputError: if the file is missing, damaged, or holds other weights than the encoder has, or the encoder is for
            volumes.
    """
    path = Path(path)
    if len(encoder.grids[0].spacing) == 3:
        raise InputError(f"{path}: pretrained weights are for networks that see images, and this one sees volumes.")
    own = encoder.state_dict()
    found = {name: value for name, value in _read(path).items() if not name.startswith("fc.")}
    first = found.get("conv1.weight")
    if first is not None and first.ndim == 4:
        first = first.sum(1, keepdim=True) if (first.shape[1], image_channels) == (3, 1) else first
        extra = max(0, own["conv1.weight"].shape[1] - image_channels)
        found["conv1.weight"] = torch.cat([first, first.new_zeros(len(first), extra, *first.shape[2:])], 1)
    if misfits := _misfits(own, found):
        raise InputError(
            f"{path}: the weights do not fit this ResNet-{encoder.depth} of width {encoder.channels[0]}: "
            f"{'; '.join(misfits)}. {_advice(encoder, found)}"
        )
    encoder.load_state_dict(own | found)  # old files lack the number of batches seen, which has no effect


def _read(path: Path) -> dict[str, Tensor]:
    if path.suffix not in (".pth", ".pt", ".safetensors"):
        raise InputError(f"{path}: weights are read from files that end in .pth, .pt or .safetensors.")
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; give one with a ResNet's weights.")
    try:
        if path.suffix == ".safetensors":
            return safetensors.torch.load_file(path)
        content: object = torch.load(path, map_location="cpu", weights_only=True)
    except (safetensors.SafetensorError, pickle.UnpicklingError, OSError, EOFError, RuntimeError) as error:
        reason = (str(error) or "it is empty").splitlines()[0]
        raise InputError(
            f"{path}: this is not a whole file of weights ({reason}). Copy it again, or save the network's state_dict."
        ) from error
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise InputError(
            f"{path}: this file holds {_described(content)}, not weights by name. Save the network's state_dict alone."
        )
    return content


def _described(content: object) -> str:
    return (
        f"entries {_first_few([str(key) for key in content])}" if isinstance(content, dict) else type(content).__name__
    )


def _misfits(own: dict[str, Tensor], found: dict[str, Tensor]) -> list[str]:
    """In what way the weights found do not match our own; empty if they fit."""
    missing = [name for name in own if name not in found and not name.endswith("num_batches_tracked")]
    unexpected = [name for name in found if name not in own]
    misshapen = [
        f"{name} {tuple(found[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in found and found[name].shape != own[name].shape
    ]
    kinds = {"missing": missing, "unexpected": unexpected, "of another shape": misshapen}
    return [f"{kind}: {_first_few(names)}" for kind, names in kinds.items() if names]


def _first_few(names: list[str]) -> str:
    more = len(names) - NAMED
    return ", ".join(names[:NAMED]) + (f" and {more} more" if more > 0 else "")


def _advice(encoder: ResNet, found: dict[str, Tensor]) -> str:
    """What to do about weights that do not fit."""
    depth = _depth_of(found)
    if depth is None:
        return "Give a state dict with the parameter names of torchvision's ResNet 18, 34, 50 or 101."
    if depth != encoder.depth:
        return f"They seem to be those of a ResNet-{depth}: choose that depth, or another file."
    return "The depth agrees: choose the width and the number of image channels that the file has, or another file."


def _depth_of(found: dict[str, Tensor]) -> int | None:
    """The depth that the weights belong to, told by kind and number of blocks; None for other weights."""
    starts = {".".join(name.split(".")[:2]) for name in found}
    n_blocks = tuple(sum(start.startswith(f"layer{n}.") for start in starts) for n in (1, 2, 3, 4))
    block = Bottleneck if "layer1.0.conv3.weight" in found else Basic
    return next((depth for depth, kind in DEPTHS.items() if kind == (block, n_blocks)), None)
