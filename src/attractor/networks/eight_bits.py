"""Networks in eight bits, which processors with instructions for them compute faster than in bfloat16.

What comes into a convolution is rounded to 256 evenly spaced numbers between a lowest and a highest one, and the
weights of each output channel to 127 around zero: with more of them, older processors would add up two products to more
than they can hold. The first convolution and the heads are not rounded: they are a small part of the work, and what is
lost there is lost in the maps.

`in_eight_bits` computes with rounded fractions, in any dtype; that is the definition. OpenVINO sees what is rounded and
how, and computes with whole numbers instead.

Source: Jacob et al., CVPR 2018, section 2; a range is chosen, as in TensorRT and NNCF, for the least squared error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from attractor.errors import InputError
from attractor.wording import printable

Ranges: TypeAlias = Mapping[str, tuple[float, float]]
"""Lowest and highest number that comes into each convolution, by its name in the network."""

STEPS = 255  # between the lowest and the highest number
MOST_WEIGHT = 63  # steps from zero to the largest weight of a channel: 2 * 63 * 255 is below 2 ** 15
BINS = 2048  # of the histogram of what comes into a convolution
SHARES = 100  # how many places of each end are tried, from a hundredth of the way from zero upwards
MOST = 1e30  # what no number in a network comes near
PASSES = 2  # over typical images: one for the ends of what comes into a convolution, one for its histogram
COUNTED = 1 << 15  # of the numbers that come into a convolution at a time, or a few more, evenly spread


class InEightBits(nn.Module):
    """A convolution that rounds what comes in, and its weights."""

    def __init__(self, convolution: nn.Conv2d | nn.ConvTranspose2d, low: float, high: float) -> None:
        """Wrap a convolution; numbers below `low`, which is at most 0, and above `high` count as these."""
        super().__init__()
        self.convolution = convolution
        self.step = (high - low) / STEPS
        self.zero = round(-low / self.step)
        self.axis = 1 if isinstance(convolution, nn.ConvTranspose2d) else 0  # of the output channels
        largest = convolution.weight.detach().abs().amax([axis for axis in range(4) if axis != self.axis])
        self.register_buffer("steps", (largest / MOST_WEIGHT).clamp(min=torch.finfo(torch.float32).tiny))
        self.register_buffer("zeros", torch.zeros_like(largest, dtype=torch.int32))

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b d i j"]:
        """The convolution of rounded numbers with rounded weights."""
        conv, steps, zeros = self.convolution, self.get_buffer("steps"), self.get_buffer("zeros")
        x = torch.fake_quantize_per_tensor_affine(x, self.step, self.zero, 0, STEPS)
        weight = torch.fake_quantize_per_channel_affine(conv.weight, steps, zeros, self.axis, -MOST_WEIGHT, MOST_WEIGHT)
        if isinstance(conv, nn.Conv2d):
            return F.conv2d(x, weight, conv.bias, conv.stride, conv.padding, conv.dilation, conv.groups)
        assert not isinstance(conv.padding, str)
        return F.conv_transpose2d(
            x, weight, conv.bias, conv.stride, conv.padding, conv.output_padding, conv.groups, conv.dilation
        )


def check_ranges(network: nn.Module, ranges: Ranges) -> None:
    """Refuse ranges that are not those of a network's convolutions, or impossible.

    Raises:
        InputError: in these cases.
    """
    names = {name for name, _ in _rounded(network)}
    if names != ranges.keys():
        wrong = printable(min(names ^ ranges.keys()))
        raise InputError(f"The ranges for eight bits do not fit the network: {wrong} is the first that does not.")
    for name, (low, high) in ranges.items():
        if not (-MOST < low <= 0 < 1 / MOST < high < MOST):
            raise InputError(
                f"The range for eight bits of {name} is {low:g} to {high:g}; 0 must be in it, but not last."
            )


def in_eight_bits(network: nn.Module, ranges: Ranges) -> nn.Module:
    """Let a network's convolutions round, in place.

    Args:
        network: for prediction, its normalisations folded into the convolutions before them.
        ranges: of every convolution that rounds, as `observed` gives them.

    Raises:
        InputError: as `check_ranges`.
    """
    check_ranges(network, ranges)
    for name, convolution in list(_rounded(network)):
        parent, _, own = name.rpartition(".")
        setattr(network.get_submodule(parent), own, InEightBits(convolution, *ranges[name]))
    return network


def observed(network: nn.Module, show: Callable[[], None]) -> dict[str, tuple[float, float]]:
    """The range of each convolution that loses least on typical images.

    Args:
        network: as for `in_eight_bits`.
        show: computes the network on these images, the same ones each of the `PASSES` times that it is called.
    """
    lowest: dict[str, float] = {}
    highest: dict[str, float] = {}
    counts: dict[str, Tensor] = {}

    def note_ends(name: str, x: Tensor) -> None:
        least, most = map(float, torch.aminmax(x))
        lowest[name] = min(lowest.get(name, 0.0), least)
        highest[name] = max(highest.get(name, 0.0), most)

    def count(name: str, x: Tensor) -> None:
        some = x.flatten()[:: x.numel() // COUNTED | 1]  # an odd number, so that no column is left out
        own = torch.histc(some.float(), BINS, lowest[name], highest[name]).double()
        counts[name] = counts[name] + own if name in counts else own

    for look in (note_ends, count):
        hooks = [
            convolution.register_forward_pre_hook(lambda _, given, name=name, look=look: look(name, given[0]))
            for name, convolution in _rounded(network)
        ]
        try:
            show()
        finally:
            for hook in hooks:
                hook.remove()
    return {name: _best_range(own, lowest[name], highest[name]) for name, own in counts.items()}


def _best_range(counts: Float[Tensor, "bins"], low: float, high: float) -> tuple[float, float]:
    """The range with the least squared error: what lies outside is moved to its end, what lies inside is rounded."""
    if high == 0:  # nothing but zeros, or numbers below, ever came
        return low, -low or 1.0
    middles = low + (high - low) * (torch.arange(BINS, dtype=torch.float64) + 0.5) / BINS

    def error(ends: tuple[float, float]) -> float:
        outside = middles - middles.clamp(*ends)
        rounding = ((ends[1] - ends[0]) / STEPS) ** 2 / 12
        return float((counts * torch.where(outside == 0, rounding, outside**2)).sum())

    shares = [share / SHARES for share in range(SHARES, 0, -1)]
    _, high = min(((low, high * share) for share in shares), key=error)
    return min(((low * share, high) for share in shares), key=error)


def _rounded(network: Any) -> Iterator[tuple[str, nn.Conv2d | nn.ConvTranspose2d]]:
    """The convolutions that round, with their names: all that are padded with zeros but the first one and the heads."""
    heads = {id(head) for head in network.heads}
    convolutions = [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.ConvTranspose2d) and id(module) not in heads
    ]
    yield from ((name, module) for name, module in convolutions[1:] if module.padding_mode == "zeros")
