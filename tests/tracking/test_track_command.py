"""`attractor track`, and `attractor evaluate` on what it writes, as a user calls them."""

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from tests.tracking.conftest import frame

from attractor.datasets.tracked import read_result
from attractor.description import Description
from attractor.images import write_labels
from attractor.model import Model
from attractor.prediction import following
from attractor.prediction.following import followed


def test_a_film_is_segmented_and_tracked(film, tiny_model, attractor_command):
    answer = attractor_command("track", "films/01", "--model", tiny_model, "--device", "cpu")
    assert answer.code == 0, answer.error
    assert answer.out.startswith("Found ")
    assert "in 5 frames; results as ctc, csv, gif are in tracks." in answer.out
    written = ["01.gif", "01_RES", "01_objects.csv", "01_run.json", "01_tracks.csv"]
    assert sorted(path.name for path in Path("tracks").iterdir()) == written
    assert len(list(read_result("tracks/01_RES").frames())) == 5


@pytest.mark.parametrize("uses_motion", [True, False])
def test_a_model_that_follows_says_where_objects_were(uses_motion, film, attractor_command, monkeypatch):
    options = {"follows": True, "foreground_threshold": 0.4, "seed_threshold": 0.4}
    of_films = Description(
        method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",), options=options
    )
    Model(of_films).save("follows.safetensors")
    asked = []
    monkeypatch.setattr(following, "followed", lambda *given, **how: asked.append(how) or followed(*given, **how))
    how = [] if uses_motion else ["--no-motion"]
    answer = attractor_command("track", "films/01", "--model", "follows.safetensors", "--device", "cpu", *how)
    assert answer.code == 0, answer.error
    assert bool(asked) == uses_motion
    assert json.loads(Path("tracks/01_run.json").read_text())["call"]["motion"] == uses_motion
    assert len(list(read_result("tracks/01_RES").frames())) == 5


def test_given_objects_are_linked_and_scored(film, attractor_command):
    answer = attractor_command("track", "films/01", "--found", "films/labels", "--out", "linked")
    assert answer.out == "Found 4 tracks and 1 division in 5 frames; results as ctc, csv, gif are in linked.\n"
    answer = attractor_command("evaluate", "--found", "linked", "--truth", "films", "--metric", "ctc")
    assert answer.code == 0
    assert "TRA" in answer.out
    scores = json.loads(Path("evaluation.json").read_text())
    assert scores["call"] == {"found": "linked", "truth": "films", "metric": "ctc"}
    assert scores["films"][0]["tra"] == 1
    assert scores["films"][0]["divisions"][0]["true_positives"] == 1
    answer = attractor_command("evaluate", "--found", "linked", "--truth", "films", "--metric", "mots")
    assert "HOTA" in answer.out


def test_a_stack_and_a_stack_of_labels_will_do(film, attractor_command):
    stack = np.stack([frame(t) for t in range(5)]).astype(np.uint16)
    tifffile.imwrite("film.tif", stack * 50, imagej=True, metadata={"axes": "TYX", "unit": "um"}, resolution=(2, 2))
    tifffile.imwrite("labels.tif", stack, metadata={"axes": "TYX"})
    answer = attractor_command("track", "film.tif", "--found", "labels.tif", "--interval", 60, "--format", "csv")
    assert answer.code == 0, answer.error
    assert "path_um" in Path("tracks/film_tracks.csv").read_text()
    assert "speed_um_per_s" in Path("tracks/film_tracks.csv").read_text()


def test_options_of_linking_are_used(film, attractor_command):
    answer = attractor_command("track", "films/01", "--found", "films/labels", "--no-divisions", "--format", "csv")
    assert "0 divisions" in answer.out
    answer = attractor_command("track", "films/01", "--found", "films/labels", "--max-distance", 0.5, "--format", "csv")
    assert "0 divisions" in answer.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nowhere"], "nowhere: no such file"),
        (["films"], "films: holds no image, but the folders 01, 01_GT, labels; give the one that holds the frames"),
        (["films/01", "--format", "avi"], "There is no format 'avi'"),
        (["films/01", "--max-gap", "-1", "--found", "films/labels"], "max_gap is -1"),
        (["films/01", "--pixel-size", "0", "--found", "films/labels"], "pixel_size is 0.0"),
        (["films/01", "--pixel-size", "2x1x1", "--found", "films/labels"], "2x1x1: a film has pixels with two sides"),
        (["films/01", "--interval", "0", "--found", "films/labels"], "interval is 0.0"),
        (["films/01", "--found", "few"], "few: holds 2 label images, but the film has 5 frames"),
        (
            ["films/01", "--found", "small"],
            "small/t000.png: has 10 x 48 pixels, but its frame films/01/t000.png has 40",
        ),
        (["films/01", "--model", "nothing"], "nothing"),
        (["films/01", "--tta-scales", "1.1"], "--tta-scales adds to the views"),
    ],
)
def test_wrong_calls_are_answered_in_a_sentence(film, attractor_command, arguments, message):
    for folder, n, labels in (("few", 2, frame(0)), ("small", 5, frame(0)[:10])):
        Path(folder).mkdir()
        for t in range(n):
            write_labels(f"{folder}/t{t:03}.png", labels)
    answer = attractor_command("track", *arguments)
    assert answer.code == 2
    assert message in answer.error
    assert not Path("tracks").exists() or not list(Path("tracks").iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nuclei", "films"], "ctc scores the tracks of films: give --found"),
        (["--found", "films"], "ctc scores the tracks of films: give --found"),
        (["--found", "films", "--truth", "films"], "films: holds no tracks: neither res_track.txt nor a folder"),
        (["--found", "films", "--truth", "films", "--out", "no/e.json"], "there is no such folder; make it"),
    ],
)
def test_tracks_that_cannot_be_scored_are_answered_in_a_sentence(film, attractor_command, arguments, message):
    answer = attractor_command("evaluate", *arguments, "--metric", "ctc")
    assert answer.code == 2
    assert message in answer.error
    assert not Path("evaluation.json").exists()


def test_help_lists_formats_and_metrics(attractor_command):
    assert "lineage" in attractor_command("track", "--help").out
    assert "mots" in attractor_command("evaluate", "--help").out
