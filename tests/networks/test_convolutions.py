"""Convolutions that go round faults of torch's own on a CPU, against torch's own."""

import pytest
import torch
from torch import nn

from attractor.networks.convolutions import NARROW, Convolution2d


@pytest.mark.parametrize("stride", [2, (1, 2), (3, 1)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_narrow_strided_pixels_are_convolved_as_torch_does_without_a_stride(stride, layout):
    torch.manual_seed(0)
    own, theirs = Convolution2d(4, 8, 1, stride), nn.Conv2d(4, 8, 1, stride)
    theirs.load_state_dict(own.state_dict())
    given = torch.randn(2, 4, 9, 8)
    results = []
    for layer, x in ((own, given.to(memory_format=layout)), (theirs, given.clone())):
        x.requires_grad_()
        found = layer(x)
        found.square().sum().backward()
        results.append([found, x.grad, layer.weight.grad, layer.bias.grad])
    for one, wanted in zip(*results, strict=True):
        torch.testing.assert_close(one, wanted)
    assert results[0][0].grad_fn._saved_stride == (1, 1)  # in oneDNN, a stride overwrites the memory of others


@pytest.mark.parametrize(
    ("channels", "kernel", "stride"), [(NARROW, 1, 2), (4, 3, 2), (4, 1, 1)], ids=["wide", "larger", "every pixel"]
)
def test_other_convolutions_are_torchs_own(channels, kernel, stride):
    layer = Convolution2d(channels, 8, kernel, stride)
    assert layer(torch.randn(1, channels, 9, 8)).grad_fn._saved_stride == (stride, stride)
