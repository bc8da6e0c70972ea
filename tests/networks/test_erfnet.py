"""ERFNet's blocks and parameter counts against the published ones, and sides of any length."""

import json
from pathlib import Path

import pytest
import torch

from attractor.networks import NETWORKS, ERFNet
from attractor.networks.erfnet import Down, ERFNetDecoder, NonBottleneck1D, Up

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["vectors"]}
BLOCKS = {
    "ERF-downsampler_3_16": lambda: Down(3, 16),
    "ERF-nonbt_16_d1": lambda: NonBottleneck1D(16, 0.03, 1),
    "ERF-nonbt_16_d4": lambda: NonBottleneck1D(16, 0.3, 4),
    "ERF-upsampler_16_8": lambda: Up(16, 8),
}


def fill(block):
    """The vectors' closed form for the parameters."""
    norms = {name for name, module in block.named_modules() if isinstance(module, torch.nn.BatchNorm2d)}
    with torch.no_grad():
        for i, (name, parameter) in enumerate(block.named_parameters()):
            j = torch.arange(parameter.numel(), dtype=torch.float64)
            value = 0.1 * torch.sin(0.37 * j + 0.9 * i)
            module, kind = name.rsplit(".", 1)
            parameter.copy_((value + (1 if module in norms and kind == "weight" else 0)).view_as(parameter))


@pytest.mark.parametrize("name", BLOCKS)
def test_block(name):
    vector = VECTORS[name]
    block = BLOCKS[name]().double().eval()
    fill(block)
    shape = vector["inputs"]["input_shape"]
    images = torch.sin(0.21 * torch.arange(torch.tensor(shape).prod().item(), dtype=torch.float64)).view(shape)
    out = block(images)
    expected = vector["expected"]
    assert list(out.shape) == expected["shape"]
    flat = out.detach().flatten()
    found = [flat.sum(), flat.abs().sum(), flat[0], flat[-1], flat[len(flat) // 2]]
    wanted = [expected[key] for key in ("sum", "abs_sum", "first", "last", "mid")]
    assert [x.item() for x in found] == pytest.approx(wanted, abs=1e-6)


def count(module):
    return sum(p.numel() for p in module.parameters())


def test_parameter_counts():
    expected = VECTORS["ERF-PARAMS"]["expected"]
    blocks = {
        "Down3-16": Down(3, 16),
        "Down16-64": Down(16, 64),
        "Down64-128": Down(64, 128),
        "nb64": NonBottleneck1D(64, 0.0, 1),
        "nb128": NonBottleneck1D(128, 0.0, 1),
        "nb16": NonBottleneck1D(16, 0.0, 1),
        "Up128-64": Up(128, 64),
        "Up64-16": Up(64, 16),
    }
    assert {name: count(block) for name, block in blocks.items()} == expected["param_counts"]
    for outputs in ([3, 1], [4, 1], [4, 8]):
        whole = expected[f"params_[{outputs[0]},{outputs[1]}]"]
        net = ERFNet(3, outputs)
        # The published encoder owns a 1x1 output layer that nothing uses; ours does not.
        assert count(net.encoder) == whole["encoder"] - whole["encoder_unused_1x1"]
        assert [count(decoder) for decoder in net.decoders] == whole["decoders"]
        assert count(net) == whole["total"] - whole["encoder_unused_1x1"]
    assert isinstance(net.decoders[0], ERFNetDecoder)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(("h", "w"), [(1, 1), (7, 5), (8, 16), (3, 70), (33, 40)])
def test_any_size_and_number_of_channels(make, h, w):
    torch.manual_seed(0)
    net = make(2, [3, 1]).eval()
    assert net(torch.rand(2, 2, h, w)).shape == (2, 4, h, w)


# -------------------------------------------------------------------- what all networks have in common


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_heads_are_the_last_layers(make):
    net = make(1, [3, 2]).eval()
    assert all(isinstance(head, torch.nn.ConvTranspose2d) for head in net.heads)
    with torch.no_grad():
        for value, head in enumerate(net.heads, 1):
            head.weight.zero_()
            head.bias.fill_(value)
    maps = net(torch.rand(1, 1, 9, 6))
    assert maps[0, :, 0, 0].tolist() == [1, 1, 1, 2, 2]
    assert torch.equal(maps, maps[..., :1, :1].expand(1, 5, 9, 6))


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize(("h", "w"), [(1, 1), (7, 5), (32, 64), (3, 70)])
def test_pyramid_has_the_channels_and_strides_it_claims(make, h, w):
    net = make(2, []).eval()
    last = net.strides[-1]
    rows, columns = (-(-side // last) * last for side in (h, w))
    expected = [(1, c, rows // s, columns // s) for c, s in zip(net.channels, net.strides, strict=True)]
    assert [tuple(f.shape) for f in net.pyramid(torch.rand(1, 2, h, w))] == expected


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_a_network_without_decoders_is_an_encoder(make):
    net = make(1, []).eval()
    assert net.heads == []
    assert net(torch.rand(2, 1, 9, 6)).shape == (2, 0, 9, 6)


@pytest.mark.parametrize("make", NETWORKS.values(), ids=NETWORKS)
def test_gradients_reach_every_parameter(make):
    torch.manual_seed(0)
    # Not in training: batch normalisation would then take away what the biases before it add.
    net = make(1, [2, 1]).eval()
    maps = net(torch.rand(1, 1, 40, 33))
    (maps * torch.rand_like(maps)).sum().backward()
    assert [name for name, p in net.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_the_pyramid_of_erfnet_ends_in_what_its_encoder_gives():
    torch.manual_seed(0)
    net = ERFNet(1, [1]).eval()
    images = torch.rand(1, 1, 16, 24)
    *_, middle, coarsest = net.pyramid(images)
    assert torch.equal(coarsest, net.encoder(images))
    assert torch.equal(net.encoder[7](middle), net.encoder[:8](images))


def test_skips_begin_as_nothing_and_then_show_the_decoders_what_the_coarse_features_lack():
    torch.manual_seed(0)
    plain, skips = (ERFNet(1, [2, 1], dropout=0.0, skips=skips).eval() for skips in (False, True))
    missing, unexpected = skips.load_state_dict(plain.state_dict(), strict=False)
    assert not unexpected
    assert {name.split(".")[0] for name in missing} == {"skips"}
    images = torch.randn(2, 1, 21, 34)
    torch.testing.assert_close(skips(images), plain(images))
    skips(images)[:, :2].sum().backward()
    assert all(part.weight.grad.any() for part in skips.skips[0].children())
    assert not any(part.weight.grad.any() for part in skips.skips[1].children())


@pytest.mark.parametrize("skips", [False, True])
def test_heads_of_one_decoder_share_all_its_layers_but_the_last(skips):
    torch.manual_seed(0)
    two, one = (ERFNet(1, [3, 2], dropout=0.0, skips=skips, one_decoder=one).eval() for one in (False, True))
    assert [head.out_channels for head in one.heads] == [3, 2]
    of_head = {name for name, _ in two.named_parameters() if name.startswith(("decoders.1.", "skips.1."))}
    shared = {
        name: value for name, value in two.state_dict().items() if not name.startswith(("decoders.1.", "skips.1."))
    }
    renamed = {name.replace("decoders.0.6.", "decoders.0.6.0."): value for name, value in shared.items()}
    missing, unexpected = one.load_state_dict(renamed, strict=False)
    assert not unexpected
    assert missing == ["decoders.0.6.1.weight", "decoders.0.6.1.bias"]
    assert len(list(one.parameters())) == len(list(two.parameters())) - len(of_head) + 2
    images = torch.randn(2, 1, 21, 34)
    maps = one(images)
    assert maps.shape == (2, 5, 21, 34)
    torch.testing.assert_close(maps[:, :3], two(images)[:, :3])


def test_one_decoder_for_no_maps_is_none():
    net = ERFNet(1, [], one_decoder=True).eval()
    assert not net.decoders
    assert net(torch.rand(1, 1, 8, 8)).shape == (1, 0, 8, 8)
