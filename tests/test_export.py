"""Exported models give the same maps, and the example without torch the same objects."""

import ast
import importlib.util
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attractor
from attractor.description import Description
from attractor.errors import InputError
from attractor.export import EXPORTS, Exportable, Padded, described, export, program_of
from attractor.images import read_labels
from attractor.methods import METHODS
from attractor.methods.spatial_embeddings import group_plain
from attractor.model import Model
from attractor.networks.erfnet import ERFNet
from attractor.networks.normalised import Normalised, percentile
from attractor.networks.padding import padded
from attractor.networks.positions import _evenly
from attractor.normalisation import SAMPLE, Normalisation
from attractor.wording import install

RANDOM = np.random.default_rng(0)
EXAMPLE = Path(__file__).parents[1] / "examples" / "segment_without_torch.py"
SMALL = {"encoder": "resnet18", "width": 4, "decoder_width": 4}
OPTIONS = {
    "spatial-embeddings": {},
    "discriminative-loss": {"coordinates": "input"},
    "recurrent-pixel-embedding": {"coordinates": "phase"},
    "rsis": {"coordinates": True, "steps": 2, "hidden": 16},
}
SHAPES_OF_VOLUMES = [(2, 9, 33, 20), (1, 1, 9, 3), (1, 24, 8, 16)]  # torch.export wants more than one coarsest voxel
SHAPES = [(2, 64, 96), (1, 67, 53), (3, 5, 3), (1, 1, 1), (2, 3, 40)]


def model_of(method: str, channels: int = 1, **options: object) -> Model:
    """A small untrained model whose maps differ from pixel to pixel."""
    torch.manual_seed(0)
    names = ("round", "long") if channels > 1 else ("object",)
    model = Model(
        Description(
            method=method,
            network="unet",
            channels=channels,
            class_names=names,
            options=OPTIONS.get(method, {}) | options,
            network_options=SMALL,
        )
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.02 * torch.randn(parameter.shape)
    return model.eval()


def images_of(b: int, channels: int, *sides: int) -> np.ndarray:
    """Intensities as in a 16-bit file."""
    return np.floor(RANDOM.gamma(2.0, 200.0, (b, channels, *sides))).astype(np.float32)


def maps_of(model: Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """The maps as attractor itself makes them."""
    normalised = [model.description.normalisation(np.moveaxis(image, 0, -1)) for image in images]
    with torch.inference_mode():
        maps = vars(model(torch.from_numpy(np.stack(normalised)).movedim(-1, 1)))
    return {name: values.numpy() for name, values in maps.items() if values.shape[1]}


def assert_same_maps(model: Model, run: object) -> None:
    for b, *sides in SHAPES if model.description.axes == 2 else SHAPES_OF_VOLUMES:
        images = images_of(b, model.description.channels, *sides)
        expected, found = maps_of(model, images), run(images)
        assert list(found) == list(expected)
        for name in expected:
            np.testing.assert_allclose(found[name], expected[name], rtol=0, atol=1e-4, err_msg=f"{name} {sides}")


def onnx_session(path: Path):
    onnxruntime = pytest.importorskip("onnxruntime")
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])


def by_onnx(path: Path):
    session = onnx_session(path)
    names = [output.name for output in session.get_outputs()]
    return lambda images: dict(zip(names, session.run(names, {"images": images}), strict=True))


def by_torch(path: Path):
    module = torch.export.load(path).module()
    return lambda images: {name: x.numpy() for name, x in module(torch.from_numpy(images)).items()}


def by_openvino(path: Path):
    openvino = pytest.importorskip("openvino")
    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.compile_model(path, "CPU", settings)
    return lambda images: {output.get_any_name(): x for output, x in compiled(images).items()}


@pytest.fixture(scope="module")
def example():
    """The example, as a module."""
    pytest.importorskip("onnxruntime")
    spec = importlib.util.spec_from_file_location("segment_without_torch", EXAMPLE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# --- parts ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("percent", [0.0, 1.0, 50.0, 99.8, 100.0])
@pytest.mark.parametrize("n", [1, 2, 3, 10, 501, 1000])
def test_percentiles_are_those_of_numpy(percent, n):
    values = RANDOM.normal(100.0, 30.0, (2, 3, n)).astype(np.float32)
    found = percentile(torch.from_numpy(values), percent)
    np.testing.assert_allclose(found.numpy(), np.percentile(values, percent, axis=2, keepdims=True), rtol=1e-6)


def test_normalisation_of_whole_numbers_is_exactly_that_of_attractor():
    normalisation = Normalisation()
    images = images_of(2, 3, 40, 50)
    images[0, 0] = 7.0  # one value only
    images[1, 1] = 0.0
    images[1, 1, 3, 4] = 9.0  # both percentiles agree
    expected = [normalisation(image.astype(np.uint16).transpose(1, 2, 0)).transpose(2, 0, 1) for image in images]
    np.testing.assert_array_equal(Normalised(normalisation)(torch.from_numpy(images)).numpy(), np.stack(expected))


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.float32])
def test_limits_are_the_same_whatever_the_type(kind):
    image = RANDOM.integers(0, 200, (30, 41, 3)).astype(kind)
    image[..., 2] = 5  # one value only
    given = image.astype(np.uint16) if kind == np.int32 else image  # which torch does not know
    found = Normalised(Normalisation()).limits(torch.from_numpy(image).permute(2, 0, 1)[None])
    for ours, expected in zip(found, Normalisation().limits(given), strict=True):
        np.testing.assert_array_equal(ours.flatten().numpy(), expected)


def test_each_channel_of_a_volume_has_its_own_limits():
    volumes = images_of(2, 3, 4, 5, 6) * np.array([1, 10, 100], np.float32).reshape(1, 3, 1, 1, 1)
    expected = [np.moveaxis(Normalisation()(np.moveaxis(volume, 0, -1)), -1, 0) for volume in volumes]
    found = Normalised(Normalisation())(torch.from_numpy(volumes))
    np.testing.assert_allclose(found.numpy(), np.stack(expected), rtol=0, atol=1e-6)


def test_large_images_are_judged_by_the_same_sample():
    images = images_of(1, 1, 2, SAMPLE)
    expected = Normalisation()(images[0].transpose(1, 2, 0)).transpose(2, 0, 1)
    found = Normalised(Normalisation())(torch.from_numpy(images))[0]
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("shape", [(8, 16), (9, 15), (5, 8), (4, 16), (1, 1), (3, 40), (40, 4), (5, 5)])
def test_padding_is_that_of_the_networks(shape):
    network = ERFNet(1, [1])
    network.forward = lambda images: images
    images = torch.from_numpy(images_of(2, 1, *shape))
    assert torch.equal(Padded(network)._padded(images), padded(images, 8))
    assert torch.equal(Padded(network)(images), images)


@pytest.mark.parametrize("n", [1, 2, 3, 8, 33, 100])
def test_positions_agree_with_those_made_while_exporting(n):
    class Positions(torch.nn.Module):
        def forward(self, x):
            return _evenly(x, 0)

    free = ({0: torch.export.Dim("n", min=1)},)
    program = torch.export.export(Positions(), (torch.zeros(7),), dynamic_shapes=free, strict=False)
    found = program.module()(torch.zeros(n))
    torch.testing.assert_close(found, torch.linspace(-1, 1, n), rtol=0, atol=1e-6)


def test_the_model_stays_as_it_is():
    model = model_of("spatial-embeddings").train()
    before = [name for name, _ in model.named_modules()]
    Exportable(model)
    assert [name for name, _ in model.named_modules()] == before
    assert model.method.training
    assert all(parameter.requires_grad for parameter in model.parameters())


# --- formats ----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_torch_gives_the_same_maps(method, tmp_path):
    model, path = model_of(method, channels=3), tmp_path / "model.pt2"
    assert export(model, path, target="torch-export") == list(by_torch(path)(images_of(1, 3, 8, 8)))
    assert_same_maps(model, by_torch(path))


@pytest.mark.slow
@pytest.mark.parametrize("network", [{"network": "erfnet"}, {"network_options": {**SMALL, "stride": 8}}])
def test_every_network_can_be_exported(network, tmp_path):
    described = Description(
        method="spatial-embeddings", channels=1, class_names=("object",), **{"network": "unet"} | network
    )
    model, path = Model(described).eval(), tmp_path / "model.pt2"
    export(model, path, target="torch-export")
    assert_same_maps(model, by_torch(path))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_onnx_gives_the_same_maps(method, tmp_path):
    pytest.importorskip("onnxscript")
    model, path = model_of(method, channels=3), tmp_path / "model.onnx"
    export(model, path)
    assert_same_maps(model, by_onnx(path))


@pytest.mark.slow
def test_openvino_gives_the_same_maps(tmp_path):
    openvino = pytest.importorskip("openvino")
    model, path = model_of("spatial-embeddings"), tmp_path / "model.xml"
    export(model, path, target="openvino")
    assert sorted(file.name for file in tmp_path.iterdir()) == ["model.bin", "model.xml"]
    assert_same_maps(model, by_openvino(path))
    about = openvino.Core().read_model(path).get_rt_info("attractor").astype(str)
    assert json.loads(about) == json.loads(json.dumps(described(model)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("network", "target", "run"),
    [("erfnet", "torch-export", by_torch), ("erfnet", "onnx", by_onnx), ("unet", "openvino", by_openvino)],
)
def test_models_for_volumes_give_the_same_maps(network, target, run, tmp_path):
    for package in EXPORTS[target].packages:
        pytest.importorskip(package)
    torch.manual_seed(0)
    base = {"method": "spatial-embeddings", "channels": 2, "class_names": ("object",), "axes": 3}
    options = {"network_options": SMALL} if network == "unet" else {}
    model = Model(Description(**base, network=network, spacing=(3.0, 1.0, 1.0), **options)).eval()
    path = tmp_path / f"model{EXPORTS[target].suffix}"
    export(model, path, target=target)
    assert_same_maps(model, run(path))
    assert (described(model)["axes"], described(model)["spacing"]) == (3, (3.0, 1.0, 1.0))


@pytest.fixture(scope="module")
def tiny_onnx(tmp_path_factory) -> tuple[Model, Path]:
    pytest.importorskip("onnxscript")
    model, path = model_of("spatial-embeddings", margin="fixed", channels=3), tmp_path_factory.mktemp("m") / "m.onnx"
    export(model, path)
    return model, path


def test_an_onnx_file_says_what_it_holds(tiny_onnx):
    model, path = tiny_onnx
    session = onnx_session(path)
    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "images": ["batch", 3, "height", "width"],
        "offset": ["batch", 2, "height", "width"],
        "seed": ["batch", 2, "height", "width"],  # and no sigma, which a fixed margin does not have
    }
    about = json.loads(session.get_modelmeta().custom_metadata_map["attractor"])
    assert about == json.loads(json.dumps(described(model)))
    assert about["class_names"] == ["round", "long"]
    assert about["options"]["fixed_margin"] == 20.0
    assert about["attractor"] == attractor.__version__


def test_a_fixed_margin_gives_the_same_maps_by_onnx(tiny_onnx):
    model, path = tiny_onnx
    assert_same_maps(model, by_onnx(path))


def test_no_path_of_this_machine_is_in_a_file(tiny_onnx, tmp_path):
    here = str(Path(attractor.__file__).parent).encode()
    assert here not in tiny_onnx[1].read_bytes()
    export(tiny_onnx[0], tmp_path / "m.pt2", target="torch-export")
    with zipfile.ZipFile(tmp_path / "m.pt2") as archive:
        assert not any(here in archive.read(name) or ".part" in name for name in archive.namelist())


def test_a_torch_file_describes_itself(tmp_path):
    model = model_of("recurrent-pixel-embedding")
    export(model, tmp_path / "m.pt2", target="torch-export")
    extra = {"attractor.json": ""}
    torch.export.load(tmp_path / "m.pt2", extra_files=extra)
    about = json.loads(extra["attractor.json"])
    assert about["thresholds"] == model.method.thresholds
    assert about["options"]["kappa"] == model.method.kappa


# --- the example ------------------------------------------------------------------------------------------------------


def test_the_example_needs_neither_torch_nor_attractor():
    nodes = list(ast.walk(ast.parse(EXAMPLE.read_text(encoding="utf-8"))))
    imported = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    imported |= {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    assert imported == {"json", "math", "sys", "numpy", "onnxruntime", "PIL"}


@pytest.mark.parametrize("case", range(60))
def test_the_example_groups_as_the_definition_does(example, case):
    random = np.random.default_rng(case)
    h, w = random.integers(1, 25, 2)
    centres = random.integers(0, 25, (6, 2)) / 1024
    embedding = centres[random.integers(0, 6, (h, w))].transpose(2, 0, 1) + random.normal(0, 2e-3, (2, h, w))
    options = {
        "foreground_threshold": random.choice([0.0, 0.5]),
        "seed_threshold": random.choice([0.0, 0.6]),
        "min_size": int(random.integers(0, 6)),
        "min_foreground": int(random.integers(0, 6)),
        "min_free": int(random.integers(0, 6)),
        "count_seed": bool(random.integers(2)),
        "overwrite": bool(random.integers(2)),
    }
    maps = [x.astype(np.float32) for x in (embedding, random.gamma(4, 4e4, (2, h, w)), random.random((h, w)).round(2))]
    labels, scores = example.group(*maps, options)
    expected, expected_scores = group_plain(*map(torch.from_numpy, maps), **options)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(scores, expected_scores)


@pytest.mark.parametrize("margin", ["elliptical", "circular", "fixed"])
def test_the_example_finds_the_same_objects_of_several_classes(example, margin):
    model = model_of("spatial-embeddings", channels=3, margin=margin, fixed_margin=4.0, min_size=2)
    n_sigma = {"elliptical": 2, "circular": 1, "fixed": 0}[margin]
    sigma = model.method._sigma_of(4.0)[0] + RANDOM.normal(0, 0.02, (1, n_sigma, 30, 40))
    maps = RANDOM.normal(0, 1e-3, (1, 2, 30, 40)), sigma, RANDOM.normal(0, 2, (1, 2, 30, 40))
    maps = dict(zip(("offset", "sigma", "seed"), (x.astype(np.float32) for x in maps), strict=True))
    raw = model(torch.zeros(1, 3, 8, 8)).__class__(**{name: torch.from_numpy(x) for name, x in maps.items()})
    (expected,) = model.method.group(raw)
    labels, classes, scores = example.objects_of(
        {name: x[0] for name, x in maps.items() if x.shape[1]}, described(model)["options"]
    )
    assert len(expected) > 5
    np.testing.assert_array_equal(labels, expected.labels)
    np.testing.assert_array_equal(classes, expected.classes)
    np.testing.assert_allclose(scores, expected.scores, rtol=1e-6)


@pytest.mark.parametrize("shape", [(20, 30), (20, 30, 3), (20, 30, 4)])
def test_the_example_reads_images_as_attractor_does(example, shape, tmp_path):
    pixels = RANDOM.integers(0, 256, shape).astype(np.uint8)
    Image.fromarray(pixels).save(tmp_path / "image.png")
    colour = pixels[..., :3] if len(shape) == 3 else np.stack([pixels] * 3, 2)
    np.testing.assert_array_equal(example.read(tmp_path / "image.png", 3), colour.transpose(2, 0, 1))
    grey = attractor.images.as_channels(attractor.images.read_image(tmp_path / "image.png"), 1)
    np.testing.assert_array_equal(example.read(tmp_path / "image.png", 1), grey.transpose(2, 0, 1))


def discs(h: int, w: int, n: int) -> np.ndarray:
    """A grey picture of blurred discs on a dark ground."""
    rows, columns = np.mgrid[:h, :w]
    picture = np.full((h, w), 12.0)
    for row, column, radius in zip(
        RANDOM.uniform(0, h, n), RANDOM.uniform(0, w, n), RANDOM.uniform(5, 11, n), strict=True
    ):
        picture += 120 / (1 + np.exp(np.hypot(rows - row, columns - column) - radius))
    return (picture + RANDOM.normal(0, 3, (h, w))).clip(0, 255).astype(np.uint8)


@pytest.mark.slow
def test_the_example_finds_the_nuclei_that_attractor_finds(example, attractor_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    answer = attractor_command("export", "nuclei")
    assert answer.code == 0, answer.error
    assert "nuclei.onnx: it takes images and gives offset, sigma, seed." in answer.out
    segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    for shape in ((203, 157), (96, 128), (61, 90)):
        picture = discs(*shape, 12)
        Image.fromarray(picture).save("nuclei.png")
        example.main("nuclei.onnx", "nuclei.png", "labels.tif")
        found = segmenter.segment(picture)
        assert len(found) > 3
        np.testing.assert_array_equal(read_labels("labels.tif"), found.labels)
    pair = np.stack([np.stack([discs(77, 101, 5)] * 3).astype(np.float32) for _ in range(2)])
    expected = maps_of(segmenter.model, pair)
    for name, values in by_onnx(tmp_path / "nuclei.onnx")(pair).items():
        np.testing.assert_allclose(values, expected[name], rtol=0, atol=1e-4)


def test_the_example_finds_nothing_in_an_image_of_one_value(example, tiny_onnx, tmp_path):
    Image.fromarray(np.full((9, 9), 5, np.uint8)).save(tmp_path / "flat.png")
    example.main(tiny_onnx[1], tmp_path / "flat.png", tmp_path / "labels.png")
    assert not read_labels(tmp_path / "labels.png").any()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_names_the_file_after_the_training(attractor_command, tmp_path, monkeypatch):
    (tmp_path / "runs/cells").mkdir(parents=True)
    model_of("spatial-embeddings").save(tmp_path / "runs/cells/model.safetensors")
    monkeypatch.chdir(tmp_path)
    answer = attractor_command("export", "runs/cells", "--format", "torch-export")
    assert answer.code == 0
    assert answer.out == "The model is cells.pt2: it takes images and gives offset, sigma, seed.\n"
    assert Path("cells.pt2").is_file()


def refused(answer, folder: Path) -> str:
    """The message of a call that wrote nothing."""
    assert answer.code == 2
    assert not list(folder.iterdir())
    return answer.error


@pytest.mark.parametrize("target", [name for name, wanted in EXPORTS.items() if wanted.packages])
def test_a_missing_package_is_named_with_what_installs_it(target, attractor_command, tmp_path, monkeypatch):
    wanted = EXPORTS[target]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    error = refused(attractor_command("export", "nuclei", "--format", target), tmp_path)
    assert f"Writing {target} needs {' and '.join(wanted.packages)}, not installed here" in error
    assert install(wanted.extra) in error


def test_an_unknown_format_is_answered_with_those_there_are(attractor_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    error = refused(attractor_command("export", "nuclei", "--format", "tflite"), tmp_path)
    assert 'format = "tflite" is not known; it can be onnx, openvino, torch-export.' in error


def test_an_unknown_model_is_answered_with_those_there_are(attractor_command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert "there is no such model" in refused(attractor_command("export", "nuclear"), tmp_path)


@pytest.mark.parametrize(
    ("out", "message"),
    [("there/m.pt2", "there is no such folder"), ("m.onnx", r"end in .pt2; name it m.pt2")],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_computed(out, message, tmp_path, monkeypatch):
    monkeypatch.setattr("attractor.export.program_of", lambda model: pytest.fail("computed"))
    with pytest.raises(InputError, match=message):
        export(model_of("spatial-embeddings"), tmp_path / out, target="torch-export")


def test_nothing_is_left_where_writing_fails(tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fail)
    with pytest.raises(InputError, match="cannot be written: No space left on device; make room on the disk"):
        export(model_of("spatial-embeddings"), tmp_path / "m.pt2", target="torch-export")
    assert not list(tmp_path.iterdir())


def test_the_graph_takes_any_size_from_one():
    program = program_of(model_of("spatial-embeddings"))
    assert [(bounds.lower, str(bounds.upper)) for bounds in program.range_constraints.values()] == [(1, "int_oo")] * 3
