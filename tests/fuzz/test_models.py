"""Model files, damaged: a model that can be used, or a sentence."""

import json
from pathlib import Path
from random import Random

import numpy as np
import pytest
import safetensors.torch
import torch
from tests.fuzz.mutation import Guard, cases, mutants

from attractor.description import Description
from attractor.model import Model
from attractor.prediction.image import Segmenter

SMALL = {"encoder": "resnet18", "width": 2, "decoder_width": 2}
OPTIONS = {
    "spatial-embeddings": {"margin": "elliptical", "grid_step": [0.001, 0.001], "foreground_weight": [10.0]},
    "discriminative-loss": {"dimension": 4, "coordinates": "output", "connected": True, "class_weights": [1.0, 2.0]},
    "recurrent-pixel-embedding": {"dimension": 4, "groups": 3, "margin": 0.5, "learn_bandwidth": True},
    "rsis": {"hidden": 32, "steps": 3, "skip": "sum"},
}
SCALARS = (
    None,
    True,
    -1,
    0,
    1,
    3,
    10**30,
    1 << 31,
    0.5,
    -1e300,
    float("nan"),
    float("inf"),
    "",
    "x",
    "0.5",
    "\x00",
    "é" * 50,
)
IMAGE = (np.add.outer(np.arange(20), np.arange(24)) * 5).astype(np.uint8)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A small model of each method."""
    folder = tmp_path_factory.mktemp("models")
    torch.manual_seed(0)
    for method, options in OPTIONS.items():
        description = Description(
            method=method,
            network="unet",
            channels=1,
            class_names=("cell",),
            options=options,
            network_options=SMALL,
            object_size=12.0,
            recipe={"training": {"epochs": 3}, "augmentation": {"upright": True}},
            scores={"validation": {"mean": 0.5}},
        )
        Model(description).save(folder / f"{method}.safetensors")
        use(folder / f"{method}.safetensors")  # whatever libraries prepare at first is not the file's doing
    return {path.stem: path.read_bytes() for path in sorted(folder.iterdir())}


def use(path: Path) -> None:
    """Load a model and show it an image."""
    Segmenter(Model.load(path), device="cpu").segment(IMAGE)


def test_damaged_files(files: dict[str, bytes], guarded: Guard, tmp_path: Path) -> None:
    for number, (name, content) in enumerate(mutants(files, 200)):
        path = tmp_path / "m.safetensors"
        path.write_bytes(content)
        guarded(lambda path=path: use(path), what=f"{name}, case {number}")


def places(value: object, here: tuple[object, ...] = ()) -> list[tuple[object, ...]]:
    """Where a value can be changed in nested dicts and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [here, *(place for key, part in inner for place in places(part, (*here, key)))]


def changed(header: dict, random: Random) -> dict:
    """A description with one to three values replaced, moved, left out or added."""
    for _ in range(random.randint(1, 3)):
        *way, last = random.choice(places(header)[1:])
        owner = header
        for key in way:
            owner = owner[key]
        kind = random.random()
        if kind < 0.15:
            del owner[last]
        elif kind < 0.25 and isinstance(owner, dict):
            owner["unknown"] = owner[last]
        else:
            scalar = random.choice(SCALARS)
            owner[last] = random.choice([scalar, scalar, scalar, [scalar], [], {}, {"a": scalar}, [scalar] * 3])
    return header


def test_descriptions_that_say_something_else(files: dict[str, bytes], guarded: Guard, tmp_path: Path) -> None:
    contents = {}
    for name, whole in files.items():
        (tmp_path / "whole.safetensors").write_bytes(whole)
        with safetensors.safe_open(tmp_path / "whole.safetensors", "pt") as file:
            header = json.loads(file.metadata()["attractor"])
        contents[name] = header, safetensors.torch.load(whole)
    names = sorted(contents)
    path = tmp_path / "m.safetensors"
    for number in range(cases(250)):
        random = Random(f"description {number}")
        header, weights = contents[names[number % len(names)]]
        text = json.dumps(changed(json.loads(json.dumps(header)), random))
        safetensors.torch.save_file(weights, path, {"attractor": text})
        guarded(lambda: use(path), what=f"case {number}: {text[:600]}")


@pytest.mark.parametrize(
    "text", ["", "{", "[" * 100_000, "null", "[]", '{"format": 2}', '{"format": 1e400}', "9" * 10_000]
)
def test_headers_that_are_no_description(files: dict[str, bytes], guarded: Guard, tmp_path: Path, text: str) -> None:
    path = tmp_path / "m.safetensors"
    safetensors.torch.save_file({"a": torch.zeros(1)}, path, {"attractor": text})
    assert guarded(lambda: use(path), what=text[:50]) is None
