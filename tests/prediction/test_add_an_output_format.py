"""The page on adding an output format does what it says: its code is run as it stands there."""

import csv

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from tests.pages import run_page

from attractor.images import read_labels
from attractor.instances import Instances
from attractor.prediction import outputs
from attractor.prediction.result import Result


@pytest.fixture
def points(monkeypatch):
    """The page's output, listed as the page says."""
    names = run_page("add_an_output_format")
    monkeypatch.setitem(outputs.OUTPUTS, "points", names["POINTS"])
    return names["POINTS"]


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8)).save(tmp_path / "cells.png")
    return tmp_path / "cells.png"


def test_the_help_names_it(points, attractor_command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("TERMINAL_WIDTH", "200")
    answer = attractor_command("segment", "--help")
    assert answer.code == 0
    assert "points (napari)" in answer.out


def test_the_command_writes_it(points, attractor_command, tiny_model, picture, tmp_path):
    out = tmp_path / "out"
    call = ("segment", picture, "--model", tiny_model, "--device", "cpu", "--out", out)
    assert attractor_command(*call, "--format", "labels,points").code == 0
    labels = read_labels(out / "cells_labels.tif")
    with (out / "cells_points.csv").open(newline="") as file:
        found = [(float(row["axis-0"]), float(row["axis-1"])) for row in csv.DictReader(file)]
    expected = ndimage.center_of_mass(labels > 0, labels, range(1, labels.max() + 1))
    assert len(found) > 3
    np.testing.assert_allclose(found, expected, rtol=1e-4)


def test_a_message_about_an_unknown_format_names_it(points, attractor_command, tiny_model, picture):
    answer = attractor_command("segment", picture, "--model", tiny_model, "--device", "cpu", "--format", "xls")
    assert answer.code == 2
    assert "cityscapes, points" in answer.error


def test_files_that_were_written_are_not_taken_for_images(points):
    assert points.ending in outputs.written_endings()


def test_an_image_without_objects_gives_a_valid_file(points):
    empty = Result("a.png", np.zeros((4, 5, 1), np.uint8), Instances.from_labels(np.zeros((4, 5), np.int32)), ("cell",))
    assert points.encode(empty) == b"index,axis-0,axis-1\n"
