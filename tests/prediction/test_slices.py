"""Volumes by a model for images: slices are segmented one by one, and what overlaps is joined."""

import numpy as np
import pytest
import tifffile
from tests.prediction.test_blocks import assert_same_objects

import attractor
from attractor.demo import PICTURES
from attractor.errors import InputError
from attractor.images import read_image
from attractor.instances import Instances
from attractor.prediction.folder import segment_files
from attractor.prediction.slices import joined


def a_slice(*rows, classes=None, scores=None):
    """A slice of objects from pictures of their labels."""
    labels = np.array([list(map(int, row)) for row in rows], np.int32)
    k = labels.max(initial=0)
    return Instances(labels, np.array(classes or [1] * k, np.int32), np.array(scores or [0.5] * k, np.float32))


def test_what_overlaps_from_slice_to_slice_is_one_object():
    volume = joined(
        [
            a_slice("110022", "110022", scores=[1.0, 0.5]),
            a_slice("220011", "220000", scores=[0.25, 0.5]),
            a_slice("000000", "000000"),
            a_slice("110000", "110000"),
        ]
    )
    assert volume.labels[:, 0].tolist() == [
        [1, 1, 0, 0, 2, 2],
        [1, 1, 0, 0, 2, 2],
        [0, 0, 0, 0, 0, 0],
        [3, 3, 0, 0, 0, 0],  # with nothing between, it is another one
    ]
    assert volume.scores.tolist() == pytest.approx([0.75, 2.5 / 6, 0.5])  # means over pixels


def test_the_class_is_that_of_most_pixels():
    one, other = a_slice("1110", classes=[2]), a_slice("1100", classes=[1])
    assert joined([one, other]).classes.tolist() == [2]
    assert len(joined([a_slice("00"), a_slice("00")])) == 0


@pytest.fixture(scope="module")
def segmenter():
    return attractor.load("nuclei", device="cpu", dtype="float32")


def test_a_stack_of_one_picture_has_its_objects_in_every_slice(segmenter, tmp_path):
    picture = read_image(PICTURES["fluorescence"])[160:300, 240:460, 0]
    expected = segmenter.segment(picture).labels
    assert expected.max() > 2
    tifffile.imwrite(tmp_path / "a.tif", np.stack([picture] * 3), imagej=True, metadata={"axes": "ZYX"})
    (outcome,) = segment_files(segmenter, [tmp_path / "a.tif"], tmp_path / "out", slices=True)
    assert (outcome.problem, outcome.n_objects) == (None, expected.max())
    assert outcome.shape == (3, *picture.shape)
    for plane in tifffile.imread(tmp_path / "out" / "a_labels.tif"):
        assert_same_objects(plane.astype(np.int32), expected)


def test_slices_are_for_volumes(segmenter, tmp_path, attractor_command):
    tifffile.imwrite(tmp_path / "flat.tif", np.zeros((20, 30), np.uint8))
    (outcome,) = segment_files(segmenter, [tmp_path / "flat.tif"], tmp_path / "out", slices=True)
    assert "flat.tif" in outcome.problem
    stack = np.random.default_rng(0).integers(0, 255, (2, 40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "stack.tif", stack, imagej=True, metadata={"axes": "ZYX"})
    answer = attractor_command("segment", tmp_path / "stack.tif", "--slices", "--out", tmp_path / "found")
    assert answer.code == 0
    assert "Each slice was segmented by itself" in answer.out
    assert '"slices": true' in (tmp_path / "found" / "run.json").read_text()


def test_a_model_for_volumes_needs_no_slices(segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(type(segmenter), "n_axes", 3)
    with pytest.raises(InputError, match="takes volumes as they are; leave --slices out"):
        segment_files(segmenter, [tmp_path], tmp_path / "out", slices=True)
