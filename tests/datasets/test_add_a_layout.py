"""The page on adding a layout does what it says: its code is run as it stands there."""

import json

import numpy as np
import pytest
from PIL import Image
from tests.pages import run_page

from attractor.datasets import DATASETS, layout_of, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.datasets.layout import Layout
from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError


@pytest.fixture
def numpy_labels(monkeypatch):
    """The page's layout, listed as the page says."""
    names = run_page("add_a_layout")
    monkeypatch.setitem(DATASETS, "numpy", names["NumpyLabels"])
    return names["NumpyLabels"]


def sample(name: str) -> Sample:
    """An image of two objects."""
    labels = np.zeros((12, 16), np.int32)
    labels[1:5, 1:5], labels[7:11, 8:15] = 1, 2
    image = np.arange(192, dtype=np.uint8).reshape(12, 16, 1)
    return Sample(name, image, labels, np.ones(2, np.int32), np.zeros((12, 16), bool))


@pytest.fixture
def folder(numpy_labels, tmp_path):
    """Two images in the page's layout."""
    (tmp_path / "cells").mkdir()
    write_label_images(tmp_path / "other", [sample("a")])
    numpy_labels.write(tmp_path / "cells", [sample("a"), sample("b")], open_dataset(tmp_path / "other"))
    return tmp_path / "cells"


@pytest.mark.parametrize("layout", [*DATASETS, "numpy"])
def test_it_has_what_each_layout_has(layout, numpy_labels):
    assert isinstance(DATASETS[layout], Layout)


def test_the_help_names_it(numpy_labels, attractor_command):
    shown = " ".join(attractor_command("convert", "--help").out.replace("│", " ").split())
    assert "session or numpy." in shown


def test_a_folder_is_recognised_and_read(folder):
    assert layout_of(folder) == "numpy"
    dataset = open_dataset(folder)
    assert isinstance(dataset, Dataset)
    assert dataset.names == ("a", "b")
    np.testing.assert_array_equal(dataset[1].labels, sample("b").labels)
    np.testing.assert_array_equal(dataset[1].image, sample("b").image)


def test_check_reads_it_and_says_what_has_no_partner(folder, attractor_command):
    answer = attractor_command("check", folder)
    assert answer.code == 0
    assert "cells: numpy, 2 readable images" in answer.out
    (folder / "b.npy").unlink()
    (folder / "a.npy").write_bytes(b"\x93NUMPY")
    answer = attractor_command("check", folder)
    assert answer.code == 1
    assert "b.png: has no labels, b.npy." in answer.out
    assert "a.npy: cannot be read as an array" in answer.out


@pytest.mark.parametrize("other", ["label-images", "coco", "geojson"])
def test_convert_reads_it_and_writes_it(folder, other, attractor_command, tmp_path):
    assert attractor_command("convert", folder, tmp_path / "there", "--to", other).code == 0
    assert attractor_command("convert", tmp_path / "there", tmp_path / "back", "--to", "numpy").code == 0
    assert layout_of(tmp_path / "back") == "numpy"
    np.testing.assert_array_equal(open_dataset(tmp_path / "back")[0].labels > 0, sample("a").labels > 0)


def test_convert_says_what_it_cannot_keep(folder, numpy_labels, attractor_command, tmp_path):
    write_label_images(tmp_path / "more", [sample("a")], columns={"stain": {"a": "HE"}})
    answer = attractor_command("convert", tmp_path / "more", tmp_path / "out", "--to", "numpy")
    assert "Not kept: The columns stain of the images are not kept." in answer.out


def test_evaluate_scores_on_it(folder, attractor_command, tmp_path):
    (tmp_path / "found").mkdir()
    for name in ("a", "b"):
        Image.fromarray(sample(name).labels.astype(np.uint8)).save(tmp_path / "found" / f"{name}.png")
    numbers = tmp_path / "numbers.json"
    answer = attractor_command("evaluate", "--found", tmp_path / "found", "--truth", folder, "--out", numbers)
    assert answer.code == 0
    assert json.loads(numbers.read_text())["summary"]["mean_average_precision"]["value"] == 1


def test_messages_about_other_data_list_it(numpy_labels, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"numpy: a folder with images NAME\.png and, beside each, its labels"):
        open_dataset(tmp_path / "empty")


@pytest.mark.parametrize("labels", [np.zeros((3, 4), int), np.zeros((12, 16)), np.array({})])
def test_labels_that_cannot_be_are_refused(folder, labels):
    np.save(folder / "a.npy", labels)
    with pytest.raises(InputError, match=r"a\.npy: (is .*; it must be whole numbers|cannot be read as an array)"):
        open_dataset(folder)[0]
