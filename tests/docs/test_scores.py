"""Scores on the pages come from evaluation files."""

import importlib.util
import json
from pathlib import Path

import pytest

from attractor.description import read_description
from attractor.errors import InputError
from attractor.weights import MODELS

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture
def scores():
    spec = importlib.util.spec_from_file_location("scores", DOCS / "scores.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def evaluation(value, groups=()):
    estimate = {name: [value + change] * 10 for name, change in (("value", 0.0), ("low", -0.1), ("high", 0.1))}
    mean = {name: values[0] for name, values in estimate.items()}
    summary = {"n_images": 9, "by_image": estimate, "mean_average_precision": mean}
    call = {"metric": "average_precision", "tta": True}
    return {"call": call, "summary": summary, "groups": dict.fromkeys(groups, summary)}


def test_the_pages_and_models_say_what_the_files_of_scores_say(scores):
    for page in scores.PAGES:
        text = page.read_text()
        assert scores.written(text) == text, f"{page}: run python docs/scores.py write"
    kept = {file.stem for file in scores.SCORES.glob("*.json")} & MODELS.keys()
    assert kept >= {"nuclei", "fibroblasts", "street"}
    for name in kept:
        assert read_description(MODELS[name]).scores["test"] == scores.in_model(name)


def test_a_table_has_a_row_for_each_group_and_the_best_value_is_bold(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "SCORES", tmp_path)
    for name, value in (("nuclei", 0.8), ("Other", 0.7)):
        (tmp_path / f"{name}.json").write_text(json.dumps(scores.digest(evaluation(value, ["stained"]))))
    before = "Before.\n<!-- scores: nuclei Other -->\nold\n<!-- end of scores -->\nAfter.\n"
    after = scores.written(before)
    lines = after.splitlines()
    assert (lines[0], lines[-1]) == ("Before.", "After.")
    assert lines[3] == "| images |  | AP .50 | AP .75 | AP .90 | mean AP |"
    cell = ".800** (.700\N{EN DASH}.900)"
    assert lines[5] == f"| all (9) | `nuclei` | {' | '.join(['**' + cell] * 4)} |"
    assert [line.split(" |")[0] for line in lines[5:9]] == ["| all (9)", "| ", "| stained (9)", "| "]
    assert "old" not in after
    assert scores.written(after) == after


def test_a_metric_without_a_table_is_refused(scores):
    other = evaluation(0.5)
    other["call"]["metric"] = "cvppp"
    with pytest.raises(InputError, match="There is no table for the metric cvppp"):
        scores.digest(other)
