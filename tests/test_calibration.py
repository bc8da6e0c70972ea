"""Models for eight bits: what their files say, and what the command does."""

import importlib.util
import json

import numpy as np
import pytest
import torch
from PIL import Image
from tests.prediction.test_engines import needs_openvino

from attractor.calibration import calibrate
from attractor.description import is_half, read_description, read_header
from attractor.errors import InputError
from attractor.model import Model
from attractor.networks.eight_bits import PASSES
from attractor.prediction.image import Segmenter


@pytest.fixture
def pictures(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "images").mkdir()
    for name, size in (("a", (40, 300)), ("b", (64, 48)), ("c", (3, 5))):
        Image.fromarray(random.integers(0, 255, size).astype(np.uint8)).save(tmp_path / f"images/{name}.png")
    return tmp_path / "images"


def test_a_model_keeps_its_ranges_and_its_weights(tiny_model, pictures, tmp_path):
    model, files = Model.load(tiny_model), sorted(pictures.iterdir())
    model.train()
    seen = []
    ranges = calibrate(model, files, crops=5, report=lambda: seen.append(1))
    assert len(seen) == PASSES * 5
    assert model.training  # it was not touched
    assert calibrate(model, files, crops=5) == ranges
    assert calibrate(model, files[1:2], crops=5) != ranges
    model.save(tmp_path / "new.safetensors", ranges=ranges)
    again = Model.load(tmp_path / "new.safetensors")
    assert again.description.ranges == ranges
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in again.state_dict().items())
    assert (read_header(tiny_model)[0], read_header(tmp_path / "new.safetensors")[0]) == (2, 4)


def test_the_command_writes_a_model_for_eight_bits(tiny_model, pictures, tmp_path, attractor_command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Model.load(tiny_model).save("half.safetensors", half=True)
    for file, name in ((tiny_model, "whole"), ("half.safetensors", "halved")):
        answer = attractor_command("calibrate", file, pictures, "--out", f"{name}.safetensors", "--crops", 3)
        assert (answer.code, answer.error) == (0, "")
        said = " ".join(answer.out.split())
        assert said == f"The model is {name}.safetensors: use it with --engine openvino --dtype int8."
        assert is_half(f"{name}.safetensors") == (name == "halved")
        assert len(read_description(f"{name}.safetensors").ranges) > 10


@needs_openvino
def test_what_the_command_wrote_segments_in_eight_bits(tiny_model, pictures, tmp_path, attractor_command, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert attractor_command("calibrate", tiny_model, pictures, "--out", "new.safetensors", "--crops", 3).code == 0
    how = "--model", "new.safetensors", "--engine", "openvino", "--dtype", "int8", "--device", "cpu"
    assert attractor_command("segment", pictures, *how, "--out", "out").code == 0
    assert json.loads((tmp_path / "out/run.json").read_text())["computed"]["dtype"] == "int8"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (("nuclei", "nowhere", "--out", "a.safetensors"), "nowhere: no such file"),
        (("nowhere", "images", "--out", "a.safetensors"), "there is no such model"),
        (("nuclei", "images", "--out", "a.onnx"), "a.onnx: model files end in .safetensors; name it a.safetensors"),
        (("nuclei", "images", "--out", "b/a.safetensors"), "there is no such folder"),
        (("nuclei", "images", "--out", "a.safetensors", "--crops", "0"), "crops is 0; it must be between 1 and 10000"),
        (("embryo", "images", "--out", "a.safetensors"), "only models for images can be computed in eight bits"),
    ],
)
def test_a_wrong_call_is_refused_and_leaves_nothing(pictures, tmp_path, attractor_command, monkeypatch, call, message):
    monkeypatch.chdir(tmp_path)
    answer = attractor_command("calibrate", *call)
    assert answer.code == 2
    assert message in answer.error
    assert not list(tmp_path.glob("*.safetensors"))


def test_eight_bits_without_ranges_or_with_those_of_another_network_are_refused(tiny_model, monkeypatch):
    model = Model.load(tiny_model)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    with pytest.raises(
        InputError, match="int8 needs a calibrated model, and this one is not: run attractor calibrate MODEL"
    ):
        Segmenter(model, device="cpu", engine="openvino", dtype="int8")
    model.description = model.described(ranges={"encoder.9": (0.0, 1.0)})
    with pytest.raises(InputError, match="ranges for eight bits do not fit the network"):
        Segmenter(model, device="cpu", engine="openvino", dtype="int8")
    with pytest.raises(InputError, match="int8 is for the engine openvino, not for torch; add --engine openvino"):
        Segmenter(model, device="cpu", dtype="int8")
    with pytest.raises(InputError, match="There is no image to calibrate on"):
        calibrate(model, [])
