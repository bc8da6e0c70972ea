"""The metric of the page on adding one, as it stands there."""

import json
import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from attractor.comparison import running
from attractor.images import write_image, write_labels
from attractor.metrics import METRICS
from attractor.metrics.metric import Metric
from attractor.model import Model

PAGE = Path(__file__).parents[2] / "docs" / "add_a_metric.md"


@pytest.fixture
def counts(monkeypatch):
    """The metric, listed."""
    code, line = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    module = types.ModuleType("attractor.metrics.counts")
    monkeypatch.setitem(sys.modules, module.__name__, module)  # where its dataclasses look for their types
    exec(compile(code, str(PAGE), "exec"), module.__dict__)
    assert line.strip() == '"counts": COUNTS,'
    monkeypatch.setitem(METRICS, "counts", module.COUNTS)
    return module


@pytest.fixture
def images(tmp_path):
    """Six noisy pictures with two squares each, in two groups."""
    random = np.random.default_rng(0)
    for part in ("images", "labels"):
        (tmp_path / "squares" / part).mkdir(parents=True)
    for k in range(6):
        labels = np.zeros((24, 32), np.int32)
        labels[2:10, 2:10], labels[12:22, 14 + k : 24 + k] = 1, 2
        pixels = (labels > 0) * 200 + random.integers(0, 40, labels.shape)
        write_image(tmp_path / f"squares/images/i{k}.png", pixels.astype(np.uint8)[..., None])
        write_labels(tmp_path / f"squares/labels/i{k}.png", labels)
    rows = [f"i{k},{'even' if k % 2 == 0 else 'odd'}" for k in range(6)]
    (tmp_path / "squares/images.csv").write_text("\n".join(["image,kind", *rows]))
    return tmp_path / "squares"


def test_it_is_a_metric(counts):
    assert isinstance(counts.COUNTS, Metric)


@pytest.mark.parametrize("command", ["evaluate", "compare"])
def test_the_help_names_it(counts, attractor_command, monkeypatch, command):
    monkeypatch.setenv("COLUMNS", "200")
    words = re.sub(r"[\s│]+", " ", attractor_command(command, "--help").out)
    assert "counts: agreement of counts" in words


def test_evaluate_scores_by_it(counts, attractor_command, images, tmp_path):
    arguments = ["--found", images / "labels", "--truth", images, "--by", "kind", "--out", tmp_path / "scores.json"]
    answer = attractor_command("evaluate", *arguments, "--metric", "counts")
    assert (answer.code, answer.error) == (0, "")
    assert re.search(r"Counts, by image.*agreement.*all .* 6 .* 12 .* 1\.00.*even.*odd", answer.out, re.S)
    scores = json.loads((tmp_path / "scores.json").read_text())
    assert scores["summary"]["agreement"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert [image["name"] for image in scores["images"]] == [f"i{k}" for k in range(6)]
    assert set(scores["groups"]) == {"even", "odd"}


def test_compare_tests_by_it(counts, attractor_command, images, tiny_model, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "in_own_process", running.work)  # another process would not know the metric
    model = Model.load(tiny_model)
    model.method.thresholds["min_size"] = 60
    model.save(tmp_path / "picky.safetensors")
    out = tmp_path / "out"
    arguments = [tiny_model, tmp_path / "picky.safetensors", "--data", images, "--out", out, "--device", "cpu"]
    answer = attractor_command("compare", *arguments, "--metric", "counts", "--by", "kind")
    assert (answer.code, answer.error) == (0, "")
    assert re.search(r"picky is (better|worse) than tiny: its agreement is|No difference .* its agreement", answer.out)
    page = (out / "index.html").read_text(encoding="utf-8")
    assert "<dt>agreement</dt>" in page
    assert "Counts, by image" in page
    content = json.loads((out / "comparison.json").read_text())
    assert content["headline"] == "agreement"
    assert content["pairs"][0]["difference"]["n_images"] == 6
    assert "--metric counts" in content["command"]
