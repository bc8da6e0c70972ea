"""Whatever computes a network gives its maps; faster only by as much as a precision may change them."""

import importlib.util

import numpy as np
import pytest
import torch

from attractor.errors import InputError
from attractor.methods import METHODS
from attractor.model import Description, Model
from attractor.networks import NETWORKS
from attractor.networks.folding import folded
from attractor.prediction import engines
from attractor.prediction.image import Segmenter

CPU = torch.device("cpu")
SIZE = (40, 56)  # no multiple of the strides of all networks
needs_openvino = pytest.mark.skipif(not importlib.util.find_spec("openvino"), reason="needs openvino")
every_engine = pytest.mark.parametrize("engine", ["torch", pytest.param("openvino", marks=needs_openvino)])


def network(name, decoders=(4, 1)):
    """Untrained, but with statistics and affine maps of its normalisations that are not those it began with."""
    torch.manual_seed(0)
    made = NETWORKS[name](3, decoders)
    for module in made.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.normal_(module.running_mean, std=0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.normal_(module.bias, std=0.1)
    return made.eval()


def relative(found, expected):
    """The largest difference in units of the largest number."""
    return float((found - expected).abs().max() / expected.abs().max())


@pytest.mark.parametrize("name", NETWORKS)
def test_a_folded_network_answers_as_before(name):
    plain = network(name)
    before = {key: value.clone() for key, value in plain.state_dict().items()}
    fast = folded(plain)
    images = torch.rand(2, 3, *SIZE)
    with torch.inference_mode():
        assert relative(fast(images), plain(images)) < 1e-5
    n_plain, n_fast = (sum(isinstance(m, torch.nn.BatchNorm2d) for m in x.modules()) for x in (plain, fast))
    assert n_fast <= (3 if name == "erfnet" else 0)  # ERFNet's are of a convolution beside a pooling
    assert n_plain > 10
    assert all(torch.equal(value, before[key]) for key, value in plain.state_dict().items())


@every_engine
@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize(("precision", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_engines_give_the_maps_of_the_network(engine, name, precision, tolerance):
    plain = network(name)
    made = engines.engine_of(plain, name=engine, precision=precision, device=CPU)
    with torch.inference_mode():
        for shape in ((1, 3, *SIZE), (2, 3, 64, 64), (1, 3, 1, 9)):
            images = torch.rand(shape)
            found, expected = made(images), plain(images)
            assert found.dtype == torch.float32
            assert found.is_contiguous()
            assert found.shape == expected.shape
            assert relative(found, expected) < tolerance


@every_engine
def test_engines_give_the_features_of_the_network(engine):
    plain = network("erfnet", decoders=())
    made = engines.engine_of(plain, name=engine, precision="float32", device=CPU)
    images = torch.rand(1, 3, *SIZE)
    with torch.inference_mode():
        for found, expected in zip(made.pyramid(images), plain.pyramid(images), strict=True):
            assert relative(found, expected) < 1e-5


def test_a_compiled_network_gives_the_same_maps(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    plain = network("erfnet")
    made = engines.engine_of(plain, name="compiled", precision="float32", device=CPU)
    images = torch.rand(1, 3, *SIZE)
    with torch.inference_mode():
        assert relative(made(images), plain(images)) < 1e-5
    assert len(compiled) == 2  # maps and features


@every_engine
@pytest.mark.parametrize("method", METHODS)
def test_every_method_can_be_computed_by_every_engine(engine, method):
    torch.manual_seed(0)
    model = Model(Description(method=method, network="erfnet", channels=1, class_names=("object",))).eval()
    image = np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8)
    plain, fast = Segmenter(model, device="cpu"), Segmenter(model, device="cpu", engine=engine)
    x = plain.prepared(image)
    with torch.inference_mode():
        expected = vars(model.method(x))
    for name, value in vars(fast.maps(x)).items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4)
    assert (fast.engine, fast.precision) == (engine, "float32")


def test_pooling_is_that_of_torch():
    x = torch.randn(2, 3, 8, 12)
    x[0, 0, 2, 5] = torch.nan
    torch.testing.assert_close(engines.LargestOfFour()(x), torch.nn.MaxPool2d(2)(x), rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(40, 56), (37, 53), (1, 3)])
def test_images_of_any_size_are_computed_in_bfloat16(method, size):
    torch.manual_seed(0)
    model = Model(Description(method=method, network="erfnet", channels=1, class_names=("object",))).eval()
    x = torch.rand(1, 1, *size)
    with torch.inference_mode():
        expected = vars(model.method(x))
    for name, value in vars(Segmenter(model, device="cpu", precision="bfloat16").maps(x)).items():
        torch.testing.assert_close(value.float(), expected[name], atol=0.05, rtol=0.05)


def test_layers_beside_the_network_are_computed_in_the_same_precision():
    torch.manual_seed(0)
    model = Model(Description(method="rsis", network="erfnet", channels=1, class_names=("object",))).eval()
    found = set()
    model.method.decoder.mask.register_forward_hook(lambda module, given, answer: found.add(answer.dtype))
    fast = Segmenter(model, device="cpu", precision="bfloat16")
    x = torch.rand(1, 1, *SIZE)
    maps = fast.maps(x)
    assert found == {torch.bfloat16}
    with torch.inference_mode():
        assert relative(maps.mask.float(), model.method(x).mask) < 0.05


def test_the_model_is_left_as_it_was():
    torch.manual_seed(0)
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",)))
    network, thresholds = model.method.network, model.method.thresholds
    before = {key: value.clone() for key, value in model.state_dict().items()}
    segmenter = Segmenter(model, device="cpu", precision="bfloat16")
    segmenter.segment(np.random.default_rng(0).integers(0, 255, SIZE).astype(np.uint8))
    assert model.method.network is network
    assert model.method.thresholds is thresholds
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_a_precision_left_open_is_chosen_by_trying(monkeypatch):
    for seconds, expected in ((2.0, torch.bfloat16), (1.1, torch.float32), (0.5, torch.float32)):
        engines.prefers_bfloat16.cache_clear()
        times = {torch.float32: seconds, torch.bfloat16: 1.0}
        monkeypatch.setattr(engines, "_seconds_of_convolution", lambda dtype, device, times=times: times[dtype])
        assert engines.dtype_of("auto", CPU) == expected
        assert engines.dtype_of("float32", CPU) == torch.float32
        assert engines.dtype_of("bfloat16", CPU) == torch.bfloat16
    engines.prefers_bfloat16.cache_clear()


def test_a_device_without_bfloat16_computes_in_float32(monkeypatch):
    def refuse(dtype, device):
        if dtype == torch.bfloat16:
            raise RuntimeError("no such type")
        return 1.0

    engines.prefers_bfloat16.cache_clear()
    monkeypatch.setattr(engines, "_seconds_of_convolution", refuse)
    assert engines.dtype_of("auto", CPU) == torch.float32
    engines.prefers_bfloat16.cache_clear()


def test_the_trial_takes_some_time():
    assert 0 < engines._seconds_of_convolution(torch.float32, "cpu") < 10


def test_engines_and_precisions_that_are_not_there_are_refused(tiny_model, monkeypatch):
    model = Model.load(tiny_model)
    with pytest.raises(InputError, match='engine = "fast" is not known; it can be torch, compiled, openvino'):
        Segmenter(model, device="cpu", engine="fast")
    with pytest.raises(InputError, match='precision = "half" is not known; it can be auto, float32, bfloat16'):
        Segmenter(model, device="cpu", precision="half")
    with pytest.raises(InputError, match="openvino computes on a processor, not on cuda; add --device cpu"):
        engines.check_engine("openvino", "float32", torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'openvino is not installed here: pip install "attractor\[openvino\]"'):
        Segmenter(model, device="cpu", engine="openvino")
