"""The published recipe end to end on a small street: both stages, the score, and the official script's answer to it."""

import json
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.metrics.test_cityscapes import script  # noqa: F401  (a fixture)

from attractor.datasets.cityscapes import LABELS

RECIPE = Path(__file__).parents[1] / "recipes" / "cityscapes.toml"
COLOURS = {"person": (0, 220, 0), "car": (230, 0, 0), "bus": (0, 0, 240)}
SHAPE = (320, 272)


def street(root, split, stem, *, seed):
    """A picture of 320 cars, people and buses of 11 x 11 pixels, a group of cars and a corner of void."""
    draw = np.random.default_rng(seed)
    numbers, picture = np.zeros(SHAPE, np.uint16), np.full((*SHAPE, 3), 60, np.uint8)
    numbers[:] = 7  # road
    for k in range(320):
        name = list(COLOURS)[draw.integers(3)]
        row, column = 16 * (k // 16) + draw.integers(4), 16 * (k % 16) + draw.integers(4)
        numbers[row : row + 11, column : column + 11] = LABELS[name] * 1000 + k
        picture[row : row + 11, column : column + 11] = COLOURS[name]
    numbers[:, 258:] = LABELS["car"]  # a group
    picture[:, 258:] = COLOURS["car"]
    numbers[:10, 258:] = 0  # void
    for kind, ending, content in (("leftImg8bit", "leftImg8bit", picture), ("gtFine", "gtFine_instanceIds", numbers)):
        folder = root / kind / split / "ulm"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(folder / f"{stem}_{ending}.png")


@pytest.mark.slow
def test_both_stages_train_and_the_official_script_prints_our_number(script, attractor_command, monkeypatch, tmp_path):  # noqa: F811
    root = tmp_path / "cityscapes"
    for k in range(2):
        street(root, "train", f"ulm_00000{k}_000019", seed=k)
    street(root, "val", "ulm_000002_000019", seed=2)
    monkeypatch.chdir(tmp_path)
    stages = [
        "{training = {epochs = 2, crops_per_epoch = 160, crop_size = 64, batch_size = 4, learning_rate = 2e-3}}",
        "{training = {epochs = 1, crops_per_epoch = 4, crop_size = 128, batch_size = 2, freeze_normalisation = true}}",
    ]
    settings = [
        f"data.train={root}/gtFine/train",
        f"data.validation={root}/gtFine/val",
        f"stages=[{', '.join(stages)}]",
        "training.workers=0",
        "training.validate_every=2",
        "model.options.initial_margin=4.0",
        *(f"model.options.{name}=20" for name in ("min_size", "min_foreground", "min_free")),
        "model.network_options.dropout=0.0",
    ]
    changes = [word for setting in settings for word in ("--set", setting)]
    trained = attractor_command("train", RECIPE, "--from", "nuclei", "--out", "run", *changes)
    assert trained.code == 0, trained.error
    assert (Path("run") / "stage_2" / "model.safetensors").exists()

    scored = attractor_command(
        "evaluate", "run", root / "gtFine" / "val", "--metric", "cityscapes", "--results", "results"
    )
    assert scored.code == 0, scored.error
    summary = json.loads(Path("evaluation.json").read_text())["summary"]
    official = averages(script, monkeypatch, root, tmp_path / "results")
    assert summary["average_precision"]["value"] == pytest.approx(official["allAp"], abs=1e-9)
    assert summary["average_precision_50"]["value"] == pytest.approx(official["allAp50%"], abs=1e-9)
    assert official["allAp50%"] > 0.3, "the model has learned nothing, which would make the two equal too easily"

    again = attractor_command(
        "evaluate", "--found", "results", "--truth", root / "gtFine" / "val", "--metric", "cityscapes"
    )
    assert again.code == 0, again.error
    read = json.loads(Path("evaluation.json").read_text())["summary"]
    assert read["average_precision"]["value"] == pytest.approx(official["allAp"], abs=1e-9)


def averages(script, monkeypatch, root, results):  # noqa: F811
    """What the official script says of a results folder."""
    monkeypatch.setattr(script.args, "predictionPath", str(results))
    monkeypatch.setattr(script.args, "predictionWalk", None)
    monkeypatch.setattr(script.args, "gtInstancesFile", str(results.parent / "gtInstances.json"))
    monkeypatch.setattr(script.args, "exportFile", str(results.parent / "export" / "result.json"))
    truths = sorted(str(path) for path in (root / "gtFine" / "val").glob("*/*_instanceIds.png"))
    found = [script.getPrediction(path, script.args) for path in truths]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        return script.evaluateImgLists(found, truths, script.args)["averages"]
