"""A folder of images in, files out."""

import csv
import errno
import os
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image
from skimage.measure import regionprops_table

import attractor
from attractor.errors import InputError
from attractor.images import read_image, read_labels
from attractor.instances import Instances
from attractor.prediction.folder import object_table, segment_files

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def segmenter(tiny_model):
    return attractor.load(tiny_model, device="cpu")


def picture(path: Path, *shape: int) -> Path:
    Image.fromarray(RANDOM.integers(0, 255, shape or (40, 50), np.uint8)).save(path)
    return path


def names(folder: Path) -> list[str]:
    return sorted(file.name for file in folder.iterdir())


def test_an_image_gives_labels_overlay_and_table(segmenter, tmp_path):
    image = picture(tmp_path / "cells.png")
    (outcome,) = segment_files(segmenter, [image], tmp_path / "new" / "out")
    assert outcome.problem is None
    assert names(tmp_path / "new" / "out") == ["cells_labels.tif", "cells_objects.csv", "cells_overlay.png"]
    labels = tifffile.imread(tmp_path / "new/out/cells_labels.tif")
    assert labels.dtype == np.uint16
    expected = segmenter.segment(read_image(image))
    np.testing.assert_array_equal(labels, expected.labels)
    assert outcome.n_objects == len(expected) > 3
    assert read_image(tmp_path / "new/out/cells_overlay.png").shape == (40, 50, 3)
    with (tmp_path / "new/out/cells_objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == list(range(1, outcome.n_objects + 1))
    assert [int(row["area"]) for row in rows] == np.bincount(labels.ravel())[1:].tolist()
    assert {row["class"] for row in rows} == {"object"}
    assert all(0 < float(row["score"]) < 1 for row in rows)


@pytest.mark.parametrize("n_channels", [1, 3])
def test_the_table_says_what_scikit_image_measures(n_channels):
    labels = np.kron(np.arange(12).reshape(3, 4), np.ones((5, 6), int)).astype(np.int32)
    labels[RANDOM.random(labels.shape) < 0.3] = 0
    image = RANDOM.integers(0, 60000, (*labels.shape, n_channels), np.uint16)
    found = Instances(labels, np.tile([1, 2], 6)[:11], np.linspace(1, 0, 11))
    table = object_table(image, found, ("round", "long, thin"))
    expected = regionprops_table(labels, image, ["label", "area", "centroid", "bbox", "intensity_mean"])
    ours = ["label", "area", "centroid_row", "centroid_column", "min_row", "min_column", "max_row", "max_column"]
    ours += ["mean_intensity"] if n_channels == 1 else [f"mean_intensity_{c}" for c in range(n_channels)]
    assert set(table) == {*ours, "class", "score"}
    for name, (theirs, values) in zip(ours, expected.items(), strict=True):
        np.testing.assert_allclose(np.array(table[name], float), values, rtol=1e-5, atol=0.006, err_msg=theirs)
    assert table["class"][:2] == ["round", "long, thin"]


def test_an_object_that_others_hide_has_no_row():
    labels = np.zeros((4, 4), np.int32)
    labels[1:3, 1:3] = 2
    found = Instances(labels, np.ones(2, int), np.array([0.5, 0.25]))
    table = object_table(np.ones((4, 4, 1), np.uint8), found, ("object",))
    assert (table["label"], table["area"], table["score"], table["min_row"]) == ([2], [4], ["0.2500"], [1])


def test_a_table_without_objects_has_its_head():
    found = Instances.from_labels(np.zeros((4, 4), np.int32))
    table = object_table(np.ones((4, 4, 1), np.uint8), found, ("object",))
    assert list(table)[:3] == ["label", "class", "score"]
    assert not any(table.values())


def test_a_folder_is_segmented_and_its_results_are_not(segmenter, tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    reported = []
    first = segment_files(segmenter, [tmp_path], tmp_path, report=reported.append)
    assert [outcome.image.name for outcome in first] == ["a.png", "b.png"]
    assert reported == first
    assert segment_files(segmenter, [tmp_path], tmp_path) == first
    assert len(names(tmp_path)) == 8


def test_an_image_that_fails_does_not_stop_the_others(segmenter, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing of the kind")
    picture(tmp_path / "c.png")
    outcomes = segment_files(segmenter, [tmp_path], tmp_path / "out")
    assert [outcome.problem is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].problem.startswith(f"{tmp_path / 'b.png'}: is not an image")
    assert {name[0] for name in names(tmp_path / "out")} == {"a", "c"}


@pytest.mark.parametrize("ending", ["_labels.tif", "_overlay.png", "_objects.csv"])
def test_of_an_image_all_files_are_there_or_none(segmenter, tmp_path, monkeypatch, ending):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b_labels.tif").write_text("from an earlier run")
    calls = iter(range(9))
    failing = 3 + ["_labels.tif", "_overlay.png", "_objects.csv"].index(ending)
    write = Path.write_bytes

    def write_until_full(path, content):
        if next(calls) == failing:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    outcomes = segment_files(segmenter, [tmp_path], tmp_path / "out")
    assert [outcome.problem for outcome in outcomes] == [
        None,
        f"{tmp_path / 'out' / ('b' + ending)}: cannot be written: No space left on device; make room, or write to "
        "another folder.",
        None,
    ]
    assert len(names(tmp_path / "out")) == 7
    assert (tmp_path / "out/b_labels.tif").read_text() == "from an earlier run"


def test_a_folder_in_the_way_of_a_result_is_named(segmenter, tmp_path):
    image = picture(tmp_path / "a.png")
    (tmp_path / "out/a_overlay.png").mkdir(parents=True)
    (outcome,) = segment_files(segmenter, [image], tmp_path / "out")
    assert "a_overlay.png: cannot be written: a folder has this name" in outcome.problem
    assert names(tmp_path / "out") == ["a_overlay.png"]


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")]
)
def test_an_image_beyond_the_memory_is_named(segmenter, tmp_path, monkeypatch, error):
    def segment(self, image, **options):
        raise error

    monkeypatch.setattr(type(segmenter), "segment", segment)
    (outcome,) = segment_files(segmenter, [picture(tmp_path / "a.png")], tmp_path / "out", object_size=2.0)
    assert "a.png: needs more memory than there is" in outcome.problem
    assert "--tile" in outcome.problem
    assert "--object-size" in outcome.problem


def test_an_error_of_our_own_is_not_hidden(segmenter, tmp_path, monkeypatch):
    def segment(self, image, **options):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(type(segmenter), "segment", segment)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        segment_files(segmenter, [picture(tmp_path / "a.png")], tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, "A tile has 100 pixels a side .* multiples of 8"),
        ({"tile": 0}, "A tile has 0 pixels"),
        ({"object_size": -1.0}, "The object size is -1.0; .* above 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_read(segmenter, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        segment_files(segmenter, [tmp_path / "none.png"], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_options_reach_the_model(segmenter, tmp_path):
    image = picture(tmp_path / "a.png")
    options = {"tta": True, "object_size": 20.0, "tile": 16}
    (outcome,) = segment_files(segmenter, [image], tmp_path / "out", **options)
    expected = segmenter.segment(read_image(image), **options)
    np.testing.assert_array_equal(read_labels(tmp_path / "out/a_labels.tif"), expected.labels)
    assert outcome.n_objects == len(expected)
