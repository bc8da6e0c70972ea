"""Networks in eight bits: what is rounded and how, and the ranges that lose least."""

import pytest
import torch
from torch import nn

from attractor.errors import InputError
from attractor.networks import NETWORKS
from attractor.networks.eight_bits import InEightBits, check_ranges, in_eight_bits, observed
from attractor.networks.folding import folded


def with_weights(convolution, *weights):
    with torch.no_grad():
        convolution.weight.copy_(torch.tensor(weights).reshape(convolution.weight.shape))
        convolution.bias.fill_(0.25)
    return convolution


def test_numbers_and_weights_are_rounded_to_even_steps_between_their_ends():
    plain = with_weights(nn.Conv2d(1, 2, 1), 63.0, -126.0 / 5)  # steps of 1 and of .4
    x = torch.tensor([-7.0, -0.6, 0.0, 3.4, 3.6, 250.0, 300.0])
    found = InEightBits(plain, -5.0, 250.0)(x.reshape(1, 1, 1, -1))[0, :, 0]
    rounded = torch.tensor([-5.0, -1.0, 0.0, 3.0, 4.0, 250.0, 250.0])
    torch.testing.assert_close(found[0], 63 * rounded + 0.25)
    torch.testing.assert_close(found[1], -25.2 * rounded + 0.25)
    between = with_weights(nn.Conv2d(2, 1, 1), 63.0, 7.4)
    found = InEightBits(between, 0.0, 255.0)(torch.ones(1, 2, 1, 1))
    assert found.item() == pytest.approx(63 + 7 + 0.25)


@pytest.mark.parametrize(
    "plain",
    [
        nn.Conv2d(4, 6, (3, 1), padding=(2, 0), dilation=(2, 1)),
        nn.Conv2d(4, 6, 3, stride=2, padding=1, groups=2),
        nn.ConvTranspose2d(4, 6, 3, 2, 1, output_padding=1),
        nn.ConvTranspose2d(4, 4, 2, 2, bias=False),
    ],
)
def test_it_is_the_convolution_but_for_the_rounding(plain):
    torch.manual_seed(0)
    x = torch.rand(2, 4, 9, 11) - 0.2
    with torch.no_grad():
        plain.weight.copy_(torch.randint(-63, 64, plain.weight.shape).float())
        plain.weight.transpose(0, 1 if isinstance(plain, nn.ConvTranspose2d) else 0)[:, 0, 0, 0] = 63.0  # steps of 1
        whole = (x * 255).round() / 255
        torch.testing.assert_close(InEightBits(plain, -0.2, 0.8)(x), plain(whole), atol=0.05, rtol=0)
        assert not torch.allclose(plain(whole), plain(x), atol=0.05)


def test_a_channel_without_weights_gives_its_bias():
    plain = with_weights(nn.Conv2d(1, 2, 1), 0.0, 1.0)
    assert InEightBits(plain, 0.0, 1.0)(torch.ones(1, 1, 1, 1)).flatten().tolist() == pytest.approx([0.25, 1.25])


@pytest.mark.parametrize(("name", "options"), [*((name, {}) for name in NETWORKS), ("erfnet", {"one_decoder": True})])
def test_all_convolutions_but_the_first_and_the_heads_are_rounded(name, options):
    torch.manual_seed(0)
    plain = folded(NETWORKS[name](3, (4, 1), **options))
    images = torch.rand(2, 3, 64, 64)
    with torch.inference_mode():
        expected = plain(images)
        ranges = observed(plain, lambda: plain(images))
        assert torch.equal(plain(images), expected)  # it was only looked at
        made = in_eight_bits(plain, ranges)
        found = made(images)
    convolutions = [module for module in made.modules() if isinstance(module, nn.Conv2d | nn.ConvTranspose2d)]
    wrapped = [module.convolution for module in made.modules() if isinstance(module, InEightBits)]
    left = {id(module) for module in convolutions} - {id(module) for module in wrapped}
    assert left == {id(convolutions[0]), *map(id, made.heads)}
    assert len(wrapped) == len(ranges) > 10
    assert 0 < float((found - expected).abs().mean() / expected.std()) < 0.1


class Two(nn.Module):
    """A network whose second convolution sees the images as they are."""

    heads = ()

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(1, 1, 1), nn.Conv2d(1, 1, 1)

    def forward(self, images):
        return self.second(images)


def test_a_range_holds_what_comes_in_but_for_numbers_that_cost_more_than_they_are_worth():
    network, evenly = Two(), torch.linspace(-0.5, 1, 160 * 160).reshape(1, 1, 160, 160)
    stray = evenly.clone()
    stray[0, 0, 0, 0] = 3.0

    @torch.inference_mode()
    def range_of(*images):
        return observed(network, lambda: [network(x) for x in images])["second"]

    assert range_of(evenly) == pytest.approx((-0.5, 1), abs=0.02)
    assert range_of(evenly, 2 * evenly) == pytest.approx((-1, 2), abs=0.04)
    assert range_of(stray) == pytest.approx((-0.5, 3), abs=0.2)
    low, high = range_of(stray, *300 * [evenly])
    assert low == pytest.approx(-0.5, abs=0.02)
    assert 1 <= high < 2.5
    assert range_of(0 * evenly) == (0.0, 1.0)
    assert range_of(-evenly.abs()) == (-1.0, 1.0)


@torch.inference_mode()
def test_a_range_has_the_least_squared_error():
    torch.manual_seed(0)
    network, x = Two(), torch.randn(1, 1, 160, 160).relu() ** 3
    high = observed(network, lambda: network(x))["second"][1]

    def error(end):
        return float((torch.fake_quantize_per_tensor_affine(x, end / 255, 0, 0, 255) - x).square().mean())

    best = min(error(float(x.max()) * share / 100) for share in range(1, 101))
    assert error(high) < 1.05 * best


def test_ranges_of_another_network_and_impossible_ones_are_refused():
    network = Two()
    with pytest.raises(InputError, match="do not fit the network: second is the first that does not"):
        check_ranges(network, {})
    with pytest.raises(InputError, match="the network: third is the first"):
        in_eight_bits(network, {"second": (0.0, 1.0), "third": (0.0, 1.0)})
    for wrong in ((0.0, 0.0), (0.5, 1.0), (1.0, 0.0), (0.0, 1e-320), (-1e300, 1e300)):
        with pytest.raises(InputError, match=r"of second is .*; 0 must be in it, but not last"):
            check_ranges(network, {"second": wrong})
    assert isinstance(network.second, nn.Conv2d)
