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


def test_a_table_of_all_images_has_no_groups(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "SCORES", tmp_path)
    for name, value in (("nuclei.crops", 0.8), ("Other", 0.7)):
        (tmp_path / f"{name}.json").write_text(json.dumps(scores.digest(evaluation(value, ["stained"]))))
    lines = scores.written("<!-- scores of all: nuclei.crops Other -->\n<!-- end of scores -->\n").splitlines()
    assert [line.split(" | ")[:2] for line in lines[4:6]] == [["| all (9)", "`nuclei`"], ["| ", "Other"]]
    assert lines[6:] == ["", "<!-- end of scores -->"]


def test_a_metric_without_a_table_is_refused(scores):
    other = evaluation(0.5)
    other["call"]["metric"] = "panoptic"
    with pytest.raises(InputError, match="There is no table for the metric panoptic"):
        scores.digest(other)


def counts(value, low, high):
    """An evaluation by best Dice and counts, on crops."""
    estimate = {"value": value, "low": low, "high": high}
    names = ("symmetric_best_dice", "difference_in_count", "absolute_difference_in_count")
    call = {"metric": "cvppp", "tta": False, "crop": 128, "max_objects": 20, "ignore_classes": False}
    return {"call": call, "summary": {"n_images": 9, **dict.fromkeys(names, estimate)}, "groups": {}}


def test_numbers_of_objects_have_a_sign_and_the_one_nearest_to_0_is_best(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "SCORES", tmp_path)
    for name, values in (("nuclei.counts", (-1.5, -2.0, 0.1)), ("Other", (2.5, 2.0, 3.0))):
        (tmp_path / f"{name}.json").write_text(json.dumps(scores.digest(counts(*values))))
    lines = scores.table(["nuclei.counts", "Other"]).splitlines()
    assert lines[0] == r"| images |  | SBD | DiC | \|DiC\| |"
    assert lines[2].startswith("| all (9) | `nuclei` |")
    assert lines[2].endswith("| **\N{MINUS SIGN}1.50** (\N{MINUS SIGN}2.00 to 0.10) |")
    assert lines[3].endswith("| 2.50 (2.00\N{EN DASH}3.00) |")


def test_what_is_kept_says_how_it_was_measured_and_a_model_has_the_scores_that_it_is_listed_with(
    scores, tmp_path, monkeypatch
):
    monkeypatch.setattr(scores, "SCORES", tmp_path)
    (tmp_path / "nuclei.json").write_text(json.dumps(scores.digest(counts(0.5, 0.4, 0.6))))
    known = scores.in_model("nuclei")
    assert known["with"] == ["crops of 128", "at most 20 objects"]
    assert [name for name, value in known.items() if isinstance(value, list) and name != "with"] == ["SBD", "|DiC|"]


def test_classes_have_rows_of_their_own_the_best_first(scores, tmp_path, monkeypatch):
    monkeypatch.setattr(scores, "SCORES", tmp_path)
    names = ("AP", "AP50", "AP75")
    summary = {"n_images": 9, **{name: {"value": 0.3, "low": 0.2, "high": 0.4} for name in names}}
    summary["by_class"] = {"1": dict.fromkeys(names, 0.1), "3": dict.fromkeys(names, 0.5)}
    call = {"metric": "coco", "tta": False, "class_names": ["car", "fence", "window"]}
    (tmp_path / "street.json").write_text(json.dumps(scores.digest({"call": call, "summary": summary, "groups": {}})))
    lines = scores.written("<!-- scores of classes: street -->\n<!-- end of scores -->\n").splitlines()
    assert [line.split(" | ")[0] for line in lines[2:7]] == ["| class", "| ---", "| mean", "| window", "| car"]
    assert lines[5] == "| window | .500 | .500 | .500 |"
