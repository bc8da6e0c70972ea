"""Whatever computes a network gives its maps; faster only by as much as a dtype may change them."""

import importlib.util
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from attractor.description import Description
from attractor.errors import InputError
from attractor.kernels import devices
from attractor.methods import METHODS
from attractor.model import Model
from attractor.networks import NETWORKS
from attractor.networks.eight_bits import in_eight_bits, observed
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
@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-5), ("bfloat16", 0.05)])
def test_engines_give_the_maps_of_the_network(engine, name, dtype, tolerance):
    plain = network(name)
    made = engines.engine_of(plain, name=engine, dtype=dtype, device=CPU)
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
    made = engines.engine_of(plain, name=engine, dtype="float32", device=CPU)
    images = torch.rand(1, 3, *SIZE)
    with torch.inference_mode():
        for found, expected in zip(made.pyramid(images), plain.pyramid(images), strict=True):
            assert relative(found, expected) < 1e-5


def test_a_compiled_network_gives_the_same_maps(monkeypatch):
    compiled = []
    monkeypatch.setattr(torch, "compile", lambda function, **_: compiled.append(function) or function)
    plain = network("erfnet")
    made = engines.engine_of(plain, name="compiled", dtype="float32", device=CPU)
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
    plain, fast = (Segmenter(model, device="cpu", engine=name, dtype="float32") for name in ("torch", engine))
    x = plain.prepared(image)
    with torch.inference_mode():
        expected = vars(model.method(x))
    for name, value in vars(fast.maps(x)).items():
        torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-4)
    assert (fast.engine, fast.dtype) == (engine, "float32")


def test_pooling_is_that_of_torch():
    x = torch.randn(2, 3, 8, 12)
    x[0, 0, 2, 5] = torch.nan
    for image in (x, x[..., :7, :11]):
        expected = torch.nn.MaxPool2d(2)(image)
        torch.testing.assert_close(engines.LargestOfFour()(image), expected, rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize(
    ("options", "n_fast"),
    [
        ({"kernel_size": 2}, 2),
        ({"kernel_size": (2, 2), "stride": (2, 2)}, 2),
        ({"kernel_size": 3}, 0),
        ({"kernel_size": 3, "stride": 2, "padding": 1}, 0),
        ({"kernel_size": 2, "stride": 1}, 0),
        ({"kernel_size": 2, "dilation": 2}, 0),
        ({"kernel_size": 2, "padding": 1}, 0),
        ({"kernel_size": 2, "ceil_mode": True}, 0),
    ],
)
def test_a_network_may_pool_in_any_way(options, n_fast):
    class Pooling(torch.nn.Module):
        strides = (2,)

        def __init__(self):
            super().__init__()
            self.pool = torch.nn.MaxPool2d(**options)
            self.rest = torch.nn.Sequential(torch.nn.MaxPool2d(**options))

        def forward(self, images):
            return torch.nn.functional.interpolate(self.rest(self.pool(images)), images.shape[-2:])

    plain, image = Pooling(), torch.rand(1, 3, 21, 27)
    made = engines.engine_of(plain, name="torch", dtype="float32", device=CPU)
    assert torch.equal(made(image), plain(image))
    n_replaced = sum(isinstance(module, engines.LargestOfFour) for module in made.modules())
    assert n_replaced == n_fast


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", [(40, 56), (37, 53), (1, 3)])
def test_images_of_any_size_are_computed_in_bfloat16(method, size):
    torch.manual_seed(0)
    model = Model(Description(method=method, network="erfnet", channels=1, class_names=("object",))).eval()
    x = torch.rand(1, 1, *size)
    with torch.inference_mode():
        expected = vars(model.method(x))
    for name, value in vars(Segmenter(model, device="cpu", dtype="bfloat16").maps(x)).items():
        torch.testing.assert_close(value.float(), expected[name], atol=0.05, rtol=0.05)


def test_on_a_processor_rsis_has_its_network_in_bfloat16_and_its_gates_in_float32():
    torch.manual_seed(0)
    model = Model(Description(method="rsis", network="erfnet", channels=1, class_names=("object",))).eval()
    found = set()
    fast = Segmenter(model, device="cpu", dtype="bfloat16")
    fast.model.method.decoder.stop.register_forward_hook(lambda module, given, answer: found.add(given[0].dtype))
    x = torch.rand(1, 1, *SIZE)
    maps = fast.maps(x)
    assert found == {torch.float32}
    with torch.inference_mode():
        assert 0 < relative(maps.mask.float(), model.method(x).mask) < 0.05


@pytest.mark.parametrize(
    ("instructions", "expected"),
    [
        ({"avx512_f", "avx512_bf16"}, torch.bfloat16),
        ({"amx_tile", "amx_bf16"}, torch.bfloat16),
        ({"avx2", "avx512_f"}, torch.float32),
        (set(), torch.float32),
    ],
)
def test_a_precision_left_open_follows_from_the_instructions_of_the_processor(monkeypatch, instructions, expected):
    monkeypatch.setattr(devices, "cpu_instructions", lambda: frozenset(instructions))
    assert engines.dtype_of("auto", CPU) == expected
    assert engines.dtype_of("float32", CPU) == torch.float32
    assert engines.dtype_of("bfloat16", CPU) == torch.bfloat16


@pytest.mark.parametrize(("capability", "expected"), [((7, 5), torch.float32), ((8, 0), torch.bfloat16)])
def test_a_precision_left_open_follows_from_the_capability_of_a_gpu(monkeypatch, capability, expected):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: capability)
    assert engines.dtype_of("auto", torch.device("cuda")) == expected
    assert engines.dtype_of("auto", torch.device("mps")) == torch.float32


def test_instructions_are_read_where_torch_does_not_tell_them(monkeypatch, tmp_path):
    monkeypatch.setattr(devices, "CPU_DETAILS", tmp_path / "cpuinfo")
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    read = devices.cpu_instructions.__wrapped__
    assert read() == frozenset()
    (tmp_path / "cpuinfo").write_text(
        "processor : 0\nmodel name : Some CPU\nflags : fpu avx512_bf16\n\nprocessor : 1\n"
    )
    assert read() == {"fpu", "avx512_bf16"}
    assert devices.device_name(CPU) == "Some CPU"


def test_engines_and_precisions_that_are_not_there_are_refused(tiny_model, monkeypatch):
    model = Model.load(tiny_model)
    with pytest.raises(InputError, match='engine = "fast" is not known; it can be torch, compiled, openvino'):
        Segmenter(model, device="cpu", engine="fast")
    with pytest.raises(InputError, match='dtype = "half" is not known; it can be auto, float32, bfloat16'):
        Segmenter(model, device="cpu", dtype="half")
    with pytest.raises(InputError, match="openvino runs on the CPU, not on cuda; add --device cpu"):
        engines.check_engine("openvino", "float32", torch.device("cuda"))
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r'openvino is not installed. .*pip install "\.\[openvino\]"'):
        Segmenter(model, device="cpu", engine="openvino")


class Shallow(torch.nn.Module):
    """A network with a single convolution that rounds."""

    strides, decoders = (1,), (1,)

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(*(torch.nn.Conv2d(3, 3, 3, padding=1) for _ in range(3)))

    @property
    def heads(self):
        return (self.layers[2],)

    def forward(self, images):
        return self.layers(images)


@needs_openvino
@pytest.mark.parametrize(("name", "close"), [("shallow", 0.02), *((name, 0.5) for name in NETWORKS)])
def test_openvino_computes_in_eight_bits_what_the_definition_says(name, close):
    torch.manual_seed(0)
    plain = Shallow() if name == "shallow" else network(name)
    twin, images = folded(plain), torch.rand(2, 3, *SIZE)
    with torch.inference_mode():
        expected = plain(images)
        ranges = observed(twin, lambda: twin(images))
        rounded = in_eight_bits(twin, ranges)(images)
        made = engines.engine_of(plain, name="openvino", dtype="int8", device=CPU, ranges=ranges)
        found = made(images)
    assert found.shape == expected.shape
    lost = float((rounded - expected).abs().mean())
    # a number halfway between two steps may be rounded the other way, and then so may others behind it
    assert float((found - rounded).abs().mean()) < close * lost < 0.1 * close * float(expected.std())
    layers = [layer.get_rt_info() for layer in made.at_once[1].get_runtime_model().get_ops()]
    kinds = [(layer["layerType"].astype(str), layer["runtimePrecision"].astype(str)) for layer in layers]
    whole = [layer for layer, kind in kinds if kind in ("u8", "i8")]
    transposed = sum(isinstance(twin.get_submodule(name).convolution, torch.nn.ConvTranspose2d) for name in ranges)
    assert whole.count("Convolution") == len(ranges) - transposed
    if "avx512_f" in devices.cpu_instructions():
        assert whole.count("Deconvolution") == transposed


@needs_openvino
@pytest.mark.parametrize(("cores", "expected"), [(1, 1), (2, 2), (7, 4)])
def test_openvino_gives_each_of_several_threads_its_own_answer(cores, expected):
    plain = network("erfnet")
    made = engines.engine_of(plain, name="openvino", dtype="float32", device=CPU, cores=cores)
    images = [torch.rand(1, 3, *SIZE) for _ in range(8)]

    @torch.inference_mode()
    def maps_of(image):
        torch.set_num_threads(1)
        return made(image)

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(maps_of, images))
    with torch.inference_mode():
        for image, own in zip(images, found, strict=True):
            assert relative(own, plain(image)) < 1e-5
    assert list(made.at_once) == [expected]
