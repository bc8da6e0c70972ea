"""ResNets against torchvision's names and counts, dilation against strides, and weights from files."""

import pytest
import torch
from safetensors.torch import save_file

from attractor.errors import InputError
from attractor.networks.resnet import ResNet, load_weights

# Parameters of torchvision's networks for colour images, without the classifier.
COUNTS = {18: 11_176_512, 34: 21_284_672, 50: 23_508_032, 101: 42_500_160}


def tiny(depth=18, channels_in=3, width=4, **options):
    return ResNet(channels_in, depth, width=width, **options)


def torchvisions(net):
    """A state dict as torchvision saves it: with a classifier."""
    features = 8 * net.channels[0] * (4 if net.depth >= 50 else 1)
    return net.state_dict() | {"fc.weight": torch.rand(1000, features), "fc.bias": torch.rand(1000)}


@pytest.mark.parametrize("depth", COUNTS)
def test_parameter_counts_are_the_published_ones(depth):
    with torch.device("meta"):
        net = ResNet(3, depth)
    assert sum(p.numel() for p in net.parameters()) == COUNTS[depth]


def test_taps_are_those_of_rsis():
    with torch.device("meta"):
        net = ResNet(3, 101)
        features = net(torch.empty(2, 3, 64, 96))
    assert net.channels == (64, 256, 512, 1024, 2048)
    assert [tuple(f.shape[-2:]) for f in features] == [(32, 48), (16, 24), (8, 12), (4, 6), (2, 3)]
    assert tuple(f.shape[1] for f in features) == net.channels


def test_parameters_have_torchvisions_names_and_shapes():
    with torch.device("meta"):
        basic, bottleneck = ResNet(3, 18).state_dict(), ResNet(3, 50).state_dict()
    assert len(basic) == 122 - 2  # two more are the classifier's
    assert len(bottleneck) == 320 - 2
    expected = {
        "conv1.weight": (64, 3, 7, 7),
        "bn1.running_mean": (64,),
        "layer1.0.conv1.weight": (64, 64, 3, 3),
        "layer2.0.downsample.0.weight": (128, 64, 1, 1),
        "layer2.0.downsample.1.num_batches_tracked": (),
        "layer4.1.conv2.weight": (512, 512, 3, 3),
    }
    assert {name: tuple(basic[name].shape) for name in expected} == expected
    expected = {
        "layer1.0.conv1.weight": (64, 64, 1, 1),
        "layer1.0.downsample.0.weight": (256, 64, 1, 1),
        "layer1.2.conv3.weight": (256, 64, 1, 1),
        "layer3.5.bn3.running_var": (1024,),
        "layer4.0.conv2.weight": (512, 512, 3, 3),
    }
    assert {name: tuple(bottleneck[name].shape) for name in expected} == expected
    assert not any(name.startswith(("layer1.0.downsample", "fc")) for name in basic)


def test_dilation_is_where_torchvision_has_it():
    net = ResNet(3, 50, stride=8, width=4)
    dilations = {name: m.dilation[0] for name, m in net.named_modules() if name.endswith("conv2")}
    strides = {name: m.stride[0] for name, m in net.named_modules() if name.endswith("conv2")}
    assert net.strides == (2, 4, 8, 8, 8)
    assert [dilations[f"layer3.{i}.conv2"] for i in range(6)] == [1, 2, 2, 2, 2, 2]
    assert [dilations[f"layer4.{i}.conv2"] for i in range(3)] == [2, 4, 4]
    assert [name for name, stride in strides.items() if stride == 2] == ["layer2.0.conv2"]


@pytest.mark.parametrize("depth", [18, 50])
@pytest.mark.parametrize("stride", [16, 8])
def test_dilated_features_agree_with_strided_ones_where_both_are(depth, stride):
    torch.manual_seed(0)
    strided, dilated = tiny(depth).double().eval(), tiny(depth, stride=stride).double().eval()
    dilated.load_state_dict(strided.state_dict())
    images = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    for fine, coarse, a, b in zip(dilated(images), strided(images), dilated.strides, strided.strides, strict=True):
        torch.testing.assert_close(fine[..., :: b // a, :: b // a], coarse)


@pytest.mark.parametrize("depth", COUNTS)
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_features_have_the_channels_and_strides_they_claim(depth, stride):
    net = tiny(depth, stride=stride).eval()
    features = net(torch.rand(1, 3, 32, 64))
    expected = [(1, c, 32 // s, 64 // s) for c, s in zip(net.channels, net.strides, strict=True)]
    assert [tuple(f.shape) for f in features] == expected


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "no ResNet of depth 20; there are: 18, 34, 50, 101"),
        ({"stride": 4}, "stride is 4; it can be 32, 16, 8 pixels"),
        ({"width": 0}, "width is 0"),
    ],
)
def test_wrong_numbers_are_answered_with_the_right_ones(options, message):
    with pytest.raises(InputError, match=message):
        ResNet(3, **options)


# -------------------------------------------------------------------- weights of a file


@pytest.mark.parametrize("ending", ["pth", "pt", "safetensors"])
def test_weights_of_torchvision_come_back(tmp_path, ending):
    torch.manual_seed(0)
    source, target = tiny().eval(), tiny(stride=8).eval()
    weights = torchvisions(source)
    path = tmp_path / f"resnet18.{ending}"
    save_file(weights, path) if ending == "safetensors" else torch.save(weights, path)
    load_weights(target, path, 3)
    assert all(torch.equal(value, weights[name]) for name, value in target.state_dict().items())


def test_weights_without_counted_batches_come_back(tmp_path):
    source, target = tiny(), tiny()
    weights = {n: v for n, v in torchvisions(source).items() if not n.endswith("num_batches_tracked")}
    torch.save(weights, tmp_path / "old.pth")
    load_weights(target, str(tmp_path / "old.pth"), 3)
    assert torch.equal(target.layer4[1].conv2.weight, source.layer4[1].conv2.weight)


def test_a_grey_image_is_seen_as_one_with_equal_colours(tmp_path):
    torch.manual_seed(0)
    colour, grey = tiny().double().eval(), tiny(channels_in=1).double().eval()
    torch.save(torchvisions(colour), tmp_path / "resnet18.pth")
    load_weights(grey, tmp_path / "resnet18.pth", 1)
    image = torch.rand(1, 1, 32, 32, dtype=torch.float64)
    for a, b in zip(grey(image), colour(image.expand(1, 3, 32, 32)), strict=True):
        torch.testing.assert_close(a, b)


def test_channels_beside_the_image_begin_with_nothing(tmp_path):
    torch.save(ResNet(3, 18, width=8).state_dict(), tmp_path / "resnet18.pth")
    with_coordinates = ResNet(1 + 2, 18, width=8)
    load_weights(with_coordinates, tmp_path / "resnet18.pth", 1)
    given = torch.load(tmp_path / "resnet18.pth", weights_only=True)["conv1.weight"]
    torch.testing.assert_close(with_coordinates.conv1.weight[:, :1], given.sum(1, keepdim=True))
    assert not with_coordinates.conv1.weight[:, 1:].any()


@pytest.mark.parametrize(
    ("file", "net", "message"),
    [
        (
            tiny(50),
            tiny(18),
            r"not fit this ResNet-18 of width 4: unexpected: layer1\.0\.conv3\.weight, .* more; of an",
        ),
        (tiny(50), tiny(18), "They seem to be those of a ResNet-50: choose that depth"),
        (tiny(18), tiny(34), r"missing: layer1\.2\.conv1\.weight, .* and \d+ more\. They seem to be .* a ResNet-18"),
        (
            tiny(),
            tiny(channels_in=2),
            r"another shape: conv1\.weight \(4, 3, 7, 7\) instead of \(4, 2, 7, 7\)\. The dep",
        ),
        (tiny(), tiny(width=8), "The depth agrees: choose the width"),
        (torch.nn.Conv2d(3, 3, 3), tiny(), "unexpected: weight, bias. Give a state dict with the parameter names"),
    ],
)
def test_weights_that_do_not_fit_are_refused(tmp_path, file, net, message):
    before = {name: value.clone() for name, value in net.state_dict().items()}
    torch.save(file.state_dict(), tmp_path / "w.pth")
    with pytest.raises(InputError, match=message):
        load_weights(net, tmp_path / "w.pth", 3)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_files_without_weights_are_refused(tmp_path):
    torch.save({"epoch": 3, "state_dict": {}}, tmp_path / "checkpoint.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    torch.save(tiny().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:5000])
    (tmp_path / "empty.pt").touch()
    (tmp_path / "text.pth").write_text("not weights")
    (tmp_path / "text.safetensors").write_text("not weights")
    messages = {
        "gone.pth": "there is no such file",
        "weights.h5": r"end in \.pth, \.pt or \.safetensors",
        "checkpoint.pth": "holds entries epoch, state_dict, not weights by name",
        "list.pth": "holds list, not weights by name",
        "cut.pth": "not a whole file of weights",
        "empty.pt": "not a whole file of weights",
        "text.pth": "not a whole file of weights",
        "text.safetensors": "not a whole file of weights",
    }
    for name, message in messages.items():
        with pytest.raises(InputError, match=message):
            load_weights(tiny(), tmp_path / name, 3)


def test_no_code_of_a_file_is_run(tmp_path):
    torch.save({"conv1.weight": Trap(tmp_path / "sprung")}, tmp_path / "trap.pth")
    with pytest.raises(InputError, match="not a whole file of weights"):
        load_weights(tiny(), tmp_path / "trap.pth", 3)
    assert not (tmp_path / "sprung").exists()


class Trap:
    """Makes a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")
