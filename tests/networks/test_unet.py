"""U-Net: what it makes of the features, images of any size, and a shifted image."""

import pytest
import torch

from attractor.errors import InputError
from attractor.networks import UNet


def tiny(channels_out=(3, 1), **options):
    return UNet(2, channels_out, **({"width": 4, "decoder_width": 4} | options))


@pytest.mark.parametrize("encoder", ["resnet18", "resnet34", "resnet50", "resnet101"])
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_any_encoder_and_stride(encoder, stride):
    torch.manual_seed(0)
    net = tiny(encoder=encoder, stride=stride).eval()
    assert net.strides[-1] == stride
    assert net(torch.rand(1, 2, 37, 20)).shape == (1, 4, 37, 20)


def test_decoders_are_no_wider_than_the_encoder():
    with torch.device("meta"):
        wide, deep, slim = UNet(3, [1]), UNet(3, [1], encoder="resnet50"), UNet(3, [1], width=8)
    assert [merge.convs[0][0].out_channels for merge in wide.decoders[0].merges] == [32, 64, 128, 256]
    assert [merge.convs[0][0].out_channels for merge in deep.decoders[0].merges] == [32, 64, 128, 256]
    assert [merge.convs[0][0].out_channels for merge in slim.decoders[0].merges] == [8, 8, 16, 32]


def test_a_shifted_image_gives_shifted_maps():
    torch.manual_seed(0)
    net = tiny().double().eval()
    strip = torch.rand(1, 2, 32, 1024 + 32, dtype=torch.float64)
    left, right = net(strip[..., :1024]), net(strip[..., 32:])
    margin = 400  # further than the network sees from the borders
    torch.testing.assert_close(left[..., margin + 32 : -margin], right[..., margin : -margin - 32])


def test_each_image_of_a_batch_is_on_its_own():
    torch.manual_seed(0)
    net = tiny().double().eval()
    images = torch.rand(2, 2, 20, 33, dtype=torch.float64)
    torch.testing.assert_close(net(images)[1:], net(images[1:]))


def test_dropout_drops_the_coarsest_features_in_training_only():
    torch.manual_seed(0)
    net = tiny(width=16, dropout=0.5)
    images = torch.rand(4, 2, 32, 64)
    dropped = (net.pyramid(images)[-1] == 0).flatten(2).all(2).float().mean()
    assert 0.3 < dropped < 0.9
    net.eval()
    assert torch.equal(net.pyramid(images)[-1], net.encoder(images)[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"encoder": "vgg16"}, 'encoder = "vgg16" is not known; it can be resnet18, resnet34, resnet50, resnet101'),
        ({"stride": 64}, "stride is 64; it can be 32, 16, 8"),
        ({"width": 0}, "width is 0"),
        ({"decoder_width": 0}, "decoder_width is 0"),
        ({"dropout": 1.0}, "dropout is 1.0; it must be between 0 and 0.99"),
    ],
)
def test_wrong_options_are_answered_with_the_right_ones(options, message):
    with pytest.raises(InputError, match=message):
        UNet(3, [1], **options)
