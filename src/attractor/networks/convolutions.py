"""Convolutions of images and volumes, and what torch's own do wrong or slowly on a CPU.

Shapes: `b` images, `c` channels in and `d` out, `s` and `t` their lengths along each axis.
"""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

NARROW = 8  # channels, below which oneDNN's strided single pixels are not to be trusted


class Convolution2d(nn.Conv2d):
    """A convolution of images; one of single pixels with a stride drops the other pixels first, if it is narrow.

    With fewer than eight channels in channels-last order, on a CPU with AVX2 and without AVX-512, oneDNN's gradient of
    such weights writes beyond its memory (torch 2.13); the process dies then or later.
    """

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """The features."""
        strided = self.kernel_size == (1, 1) and self.padding == (0, 0) and max(self.stride) > 1
        if not strided or self.in_channels >= NARROW or torch.compiler.is_exporting():
            return super().forward(x)
        down, across = self.stride
        return F.conv2d(x[..., ::down, ::across], self.weight, self.bias, groups=self.groups)


class Convolution3d(nn.Conv3d):
    """A convolution of volumes, computed in float32 on a CPU where a volume is smaller than the kernel.

    In bfloat16, oneDNN's features and gradients of such volumes take in memory that nobody wrote, and it may write
    where it must not (torch 2.13).
    """

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b d *t"]:
        """The features, in the type of the image."""
        if x.device.type != "cpu" or torch.compiler.is_exporting() or not self._reaches_beyond(x):
            return super().forward(x)
        bias = None if self.bias is None else self.bias.float()
        with torch.autocast("cpu", enabled=False):
            found: Tensor = self._conv_forward(x.float(), self.weight.float(), bias).to(x.dtype)
        return found

    def _reaches_beyond(self, x: Float[Tensor, "b c *s"]) -> bool:
        reach = (d * (side - 1) + 1 for d, side in zip(self.dilation, self.kernel_size, strict=True))
        return any(length < side for length, side in zip(x.shape[2:], reach, strict=True))


class AlongOneAxis(nn.Conv3d):
    """A convolution of volumes along one axis, computed as one of images, to which volumes are folded without copying.

    Torch's own in three axes is slower on a CPU, and has the faults that `Convolution3d` goes round.
    """

    def forward(self, x: Float[Tensor, "b c *s"]) -> Float[Tensor, "b c *s"]:
        """The features, of the same shape."""
        if torch.compiler.is_exporting():  # other programs fold volumes as they like
            return super().forward(x)
        b, _, _, height, width = x.shape
        if self.kernel_size[0] > 1:  # planes as rows, and all the rest as columns
            sides = self.weight[..., 0], self.bias, 1, (int(self.padding[0]), 0), (self.dilation[0], 1)
            columns: Tensor = F.conv2d(x.flatten(3), *sides).unflatten(3, (height, width))
            return columns
        planes = x.transpose(1, 2).flatten(0, 1)  # each an image of its own
        padding = int(self.padding[1]), int(self.padding[2])
        found = F.conv2d(planes, self.weight[:, :, 0], self.bias, 1, padding, self.dilation[1:])
        volumes: Tensor = found.unflatten(0, (b, -1)).transpose(1, 2)
        return volumes


# By number of axes.
CONVOLUTION: dict[int, Any] = {2: Convolution2d, 3: Convolution3d}
ALONG_ONE_AXIS: dict[int, Any] = {2: nn.Conv2d, 3: AlongOneAxis}
