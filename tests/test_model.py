"""A model file says everything that is needed to use it, and nothing that is not a model is taken for one."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from attractor.description import Description, find_model, read_description
from attractor.errors import InputError
from attractor.model import Model
from attractor.normalisation import Normalisation

DESCRIPTION = Description(
    method="spatial-embeddings",
    network="erfnet",
    channels=2,
    class_names=("cell", "nucleus"),
    normalisation=Normalisation(low=2.0, high=99.0),
    options={"margin": "circular", "grid_step": [1 / 512, 1 / 512]},
    network_options={"dropout": 0.1},
    object_size=21.5,
    about="Made for a test.",
)


@pytest.fixture
def model():
    torch.manual_seed(0)
    return Model(DESCRIPTION).eval()


def test_saved_and_loaded_model_is_the_same(model, tmp_path):
    model.method.thresholds["seed_threshold"] = 0.7
    model.save(tmp_path / "a.safetensors", scores={"ap": 0.5})
    loaded = Model.load(tmp_path / "a.safetensors")
    assert loaded.method.thresholds == model.method.thresholds
    assert loaded.description.scores == {"ap": 0.5}
    assert loaded.description.class_names == DESCRIPTION.class_names
    assert loaded.description.normalisation == DESCRIPTION.normalisation
    assert loaded.description.object_size == 21.5
    image = torch.rand(1, 2, 16, 24)
    with torch.no_grad():
        for a, b in zip(vars(model(image)).values(), vars(loaded(image)).values(), strict=True):
            assert torch.equal(a, b)
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_model_in_half_precision_is_half_as_large_and_nearly_the_same(model, tmp_path):
    model.save(tmp_path / "whole.safetensors")
    model.save(tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * (tmp_path / "whole.safetensors").stat().st_size
    loaded = Model.load(tmp_path / "half.safetensors")
    assert {p.dtype for p in loaded.parameters()} == {torch.float32}
    image = torch.rand(1, 2, 16, 24)
    with torch.no_grad():
        for a, b in zip(vars(model(image)).values(), vars(loaded(image)).values(), strict=True):
            torch.testing.assert_close(a, b, atol=0.01, rtol=0.01)


def test_a_folder_of_a_training_is_its_model(model, tmp_path):
    model.save(tmp_path / "model.safetensors")
    assert find_model(tmp_path) == tmp_path / "model.safetensors"


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"margins": "circular"}, "has no option margins; its options are margin, centre"),
        ({"fixed_margin": "wide"}, "The option fixed_margin .* is 'wide': input should be a valid number"),
        ({"min_size": 1.5}, "The option min_size .* is 1.5: input should be a valid integer"),
        ({"min_size": "8"}, "The option min_size .* is '8': input should be a valid integer"),
        ({"seed_threshold": 5.0}, "seed_threshold is 5.0; it must be between 0 and 1"),
        ({"grid_step": [0.001]}, "grid_step has 1 numbers; give two"),
        ({"grid_step": [0.001, float("nan")]}, "grid_step is nan"),
        ({"fixed_margin": float("inf")}, "fixed_margin is inf"),
        ({"seed_weight": -1.0}, "seed_weight is -1.0; it must be a finite number of at least 0"),
        ({"foreground_weight": [1.0, float("inf")]}, "foreground_weight is inf"),
    ],
)
def test_options_that_cannot_be(options, words):
    with pytest.raises(InputError, match=words):
        Model(dataclasses.replace(DESCRIPTION, options=options))


def test_unknown_model():
    with pytest.raises(
        InputError, match=r"nucleii: there is no such model.*or the name of one that comes with attractor"
    ):
        find_model("nucleii")


def test_truncated_model(model, tmp_path):
    path = tmp_path / "a.safetensors"
    model.save(path)
    whole = path.read_bytes()
    for size in (0, 5, 2000, len(whole) - 100):
        path.write_bytes(whole[:size])
        with pytest.raises(InputError, match=r"a\.safetensors: this is not a whole model file"):
            Model.load(path)


def test_model_of_another_program(tmp_path):
    path = tmp_path / "other.safetensors"
    safetensors.torch.save_file({"weight": torch.zeros(2)}, path)
    with pytest.raises(InputError, match="this safetensors file was not written by attractor"):
        read_description(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"format": 5},
            "has format 5, and this attractor reads formats 1 to 4. If it is a newer one, update attractor",
        ),
        ({"format": [1]}, r"has format \[1\], and this"),
        ({"method": "magic"}, 'There is no method "magic"; there are: spatial-embeddings'),
        ({"network": "magic"}, 'There is no network "magic"; there are: erfnet'),
        (
            {"options": {"magic": 1}},
            "The method spatial-embeddings has no option magic; its options are margin, centre",
        ),
        ({"channels": 3}, "the weights do not fit the model that the file describes"),
        ({"normalisation": {"middle": 1}}, 'the key "normalisation.middle" of the model.s description is unknown'),
        (
            {"normalisation": {"low": 99, "high": 1}},
            r"normalisation.low is 99.0 and normalisation.high 1.0; they are percentiles .* first\. The file",
        ),
        (
            {"normalisation": {"low": float("nan")}},
            r"normalisation.low is nan and normalisation.high 99.8; they are percentiles",
        ),
        ({"class_names": [["cell"]]}, r'the key "class_names.0" of the model.s description is'),
        ({"class_names": []}, 'the key "class_names" of the model.s description is'),
        ({"channels": "2"}, 'the key "channels" of the model.s description is .2.: input should be a valid integer'),
        ({"channels": 10**9}, 'the key "channels" of the model.s description is 1000000000: .* less than or equal'),
        ({"object_size": float("inf")}, 'the key "object_size" of the model.s description is inf'),
        ({"object_size": -3.0}, 'the key "object_size" of the model.s description is -3.0'),
        ({"options": {"min_size": 10**30}}, "min_size is 10{30}; it must be between 0 and 1.07374e.09"),
        ({"options": {"seed_threshold": float("nan")}}, "seed_threshold is nan; it must be between 0 and 1"),
        (
            {"options": {"seed_threshold": "0.5"}},
            "The option seed_threshold .* is '0.5': input should be a valid number",
        ),
    ],
)
def test_header_that_cannot_be_used(model, tmp_path, change, message):
    path = tmp_path / "a.safetensors"
    model.save(path)
    with safetensors.safe_open(path, "pt") as file:
        header = json.loads(file.metadata()["attractor"]) | change
        weights = {name: file.get_tensor(name) for name in file.keys()}
    safetensors.torch.save_file(weights, path, {"attractor": json.dumps(header)})
    with pytest.raises(InputError, match=message):
        Model.load(path)


def test_percentiles_become_zero_and_one():
    image = np.stack([np.arange(101.0), 5 * np.arange(101.0)], -1)[None].astype(np.float32)
    found = Normalisation(low=10.0, high=90.0)(image)
    assert found[0, 10].tolist() == pytest.approx([0, 0])
    assert found[0, 90].tolist() == pytest.approx([1, 1])
    assert found.max() > 1  # not clipped
    assert found.dtype == np.float32


def test_a_few_bright_pixels_on_black_use_the_whole_range():
    image = np.zeros((100, 100, 1), np.uint8)
    image[0, :5] = 200
    assert Normalisation()(image).max() == 1


def test_a_constant_channel_becomes_zero():
    assert not Normalisation()(np.full((4, 4, 1), 7, np.uint16)).any()


def test_a_description_of_any_depth_is_refused_or_read(model, tmp_path):
    path = tmp_path / "a.safetensors"
    model.save(path)
    weights = safetensors.torch.load_file(path)
    safetensors.torch.save_file(weights, path, {"attractor": '{"format": ' + "[" * 100_000 + "]" * 100_000 + "}"})
    with pytest.raises(InputError, match=r"a\.safetensors: the model's description is not JSON"):
        Model.load(path)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers(model, tmp_path, value):
    with torch.no_grad():
        next(model.method.parameters()).view(-1)[3] = value
    model.save(tmp_path / "a.safetensors")
    with pytest.raises(InputError, match=r"a\.safetensors: the weights network\.encoder.* are infinite or not numbers"):
        Model.load(tmp_path / "a.safetensors")


def test_a_model_whose_layers_would_fill_the_memory_is_refused_before_they_are_made(model, tmp_path):
    path = tmp_path / "a.safetensors"
    model.save(path, method="rsis", options={"hidden": 1024, "steps": 1000})
    with pytest.raises(InputError, match="the weights do not fit the model that the file describes"):
        Model.load(path)


def test_a_file_of_format_1_gives_the_same_objects(model, tmp_path):
    """There offsets were (x, y), and objects had to be larger than min_size."""
    path = tmp_path / "old.safetensors"
    weights = {name: value.clone() for name, value in model.method.state_dict().items()}
    (last,) = (name.removesuffix("bias") for name in weights if name.startswith("network.decoders.0.6.bias"))
    for end in ("weight", "bias"):
        old = weights[last + end]
        swapped = [1, 0, 2]
        weights[last + end] = old[:, swapped].contiguous() if end == "weight" else old[swapped]
    header = dataclasses.asdict(model.described()) | {"format": 1}
    header["options"]["min_size"] = 7
    header["recipe"] = {"augmentation": {"upright": True}}
    del header["upright"]
    safetensors.torch.save_file(weights, path, {"attractor": json.dumps(header)})
    loaded = Model.load(path)
    assert loaded.method.thresholds["min_size"] == 8
    assert loaded.description.upright
    image = torch.rand(1, 2, 16, 24)
    with torch.no_grad():
        for a, b in zip(vars(model(image)).values(), vars(loaded(image)).values(), strict=True):
            assert torch.equal(a, b)
