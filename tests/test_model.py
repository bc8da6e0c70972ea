"""A model file says everything that is needed to use it, and nothing that is not a model is taken for one."""

import dataclasses
import json

import numpy as np
import pytest
import safetensors.torch
import torch

from attractor.errors import InputError
from attractor.model import Description, Model, find_model, read_description
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
        ({"format": 2}, "has format 2, and this attractor reads format 1. Install the newest attractor"),
        ({"method": "magic"}, 'There is no method "magic"; there are: spatial-embeddings'),
        ({"network": "magic"}, 'There is no network "magic"; there are: erfnet'),
        (
            {"options": {"magic": 1}},
            "The method spatial-embeddings has no option magic; its options are margin, centre",
        ),
        ({"channels": 3}, "the weights do not fit the model that the file describes"),
        ({"normalisation": {"middle": 1}}, "description is not one that this attractor writes"),
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
