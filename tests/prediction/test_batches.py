"""Images that go through the network together: which do, and that each gets what it gets alone."""

import numpy as np
import pytest
import tifffile
import torch

import attractor
from attractor.demo import PICTURES
from attractor.errors import InputError
from attractor.images import read_image
from attractor.prediction import batches
from attractor.prediction.batches import Given, in_groups
from attractor.prediction.folder import segment_files
from attractor.prediction.image import Segmenter

MODELS = ("nuclei", "nuclei-discriminative", "nuclei-recurrent", "nuclei-rsis")  # one of each method


def test_images_of_one_size_go_together_and_the_others_do_not():
    sizes = [(8, 8), (8, 9), (8, 8), None, (8, 9), (8, 8), (90, 90)]
    assert batches.batches(sizes) == [[0, 2, 5], [1, 4], [3], [6]]
    assert batches.batches(sizes, most_pixels=2 * 8 * 8 + 1) == [[0, 2], [1], [3], [4], [5], [6]]
    assert batches.batches([]) == []
    assert [len(places) for places in batches.batches([(1, 1)] * 40)] == [16, 16, 8]


def test_groups_end_where_they_are_large_enough(monkeypatch):
    monkeypatch.setattr(batches, "MOST_PIXELS", 10)
    assert list(in_groups([4, 5, 6, 20, 1, 1], 3, size=int)) == [[4, 5, 6], [20], [1, 1]]
    assert list(in_groups("abcde", 2)) == [["a", "b"], ["c", "d"], ["e"]]
    assert list(in_groups([], 2)) == []


def test_items_are_taken_when_their_group_is_asked_for():
    taken = []
    groups = in_groups((taken.append(n) or n for n in range(9)), 3)
    assert not taken
    assert (next(groups), taken) == ([0, 1, 2], [0, 1, 2])


@pytest.fixture
def together(monkeypatch):
    """Let images go together on a CPU, too; gives the number of images in each pass of the network."""
    passes = []
    maps = Segmenter.maps

    def counted(self, images, **options):
        passes.append(images.shape[0])
        return maps(self, images, **options)

    monkeypatch.setattr(Segmenter, "n_together", 6)
    monkeypatch.setattr(Segmenter, "computes_side_by_side", False)
    monkeypatch.setattr(Segmenter, "maps", counted)
    return passes


@pytest.fixture(scope="module")
def images():
    """Parts of a picture of nuclei, of two sizes; one of them is black."""
    whole = read_image(PICTURES["fluorescence"])
    parts = [whole[row : row + 72, 300:380] for row in (100, 200, 300)] + [
        whole[160:232, 0:64],
        whole[250:322, 400:464],
    ]
    return [parts[0], parts[3], np.zeros_like(parts[0]), parts[1], parts[4], parts[2]]


@pytest.mark.parametrize(
    ("name", "options"),
    [*((name, options) for name in MODELS for options in ({}, {"object_size": 30.0})), ("nuclei", {"tta": True})],
)
def test_each_image_gets_what_it_gets_alone(name, options, images, together):
    segmenter = attractor.load(name, device="cpu", dtype="float32")
    alone = [segmenter.segment(image, **options) for image in images]
    together.clear()
    found = list(segmenter.segment_many(images, **options))
    assert together == [3, 2]  # of each size, without the black one
    assert sum(map(len, alone)) > 6
    for one, expected in zip(found, alone, strict=True):
        np.testing.assert_array_equal(one.labels, expected.labels)
        np.testing.assert_allclose(one.scores, expected.scores, atol=1e-5)


def test_an_image_that_cannot_be_used_does_not_harm_those_that_it_goes_with(images, together):
    segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    expected = segmenter.segment(images[0]).labels
    found = segmenter.segment_many([images[0], images[0][None, None], images[0]])
    np.testing.assert_array_equal(next(found).labels, expected)
    with pytest.raises(InputError, match="Image 2: an array of shape"):
        next(found)


def test_where_memory_runs_out_fewer_go_together(images, together, monkeypatch):
    segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    expected = segmenter.segment(images[0]).labels
    maps, sizes = Segmenter.maps, []

    def tight(self, given, **options):
        sizes.append(given.shape[0])
        if given.shape[0] > 1:
            raise MemoryError
        return maps(self, given, **options)

    monkeypatch.setattr(Segmenter, "maps", tight)
    found = list(segmenter.segment_many([images[0]] * 3))
    assert sizes == [3, 1, 2, 1, 1]
    assert all(np.array_equal(one.labels, expected) for one in found)


def test_a_folder_gives_the_same_files_whether_images_go_together_or_not(images, together, tmp_path, monkeypatch):
    segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    (tmp_path / "in").mkdir()
    for n, image in enumerate(images):
        tifffile.imwrite(tmp_path / "in" / f"{n}.tif", image)
    (tmp_path / "in" / "1b.png").write_bytes(b"no picture")
    outcomes = list(segment_files(segmenter, [tmp_path / "in"], tmp_path / "together"))
    assert max(together) > 1
    monkeypatch.setattr(Segmenter, "n_together", 1)
    assert outcomes == list(segment_files(segmenter, [tmp_path / "in"], tmp_path / "alone"))
    assert [outcome.problem is None for outcome in outcomes] == [True, True, False, True, True, True, True]
    assert all(outcome.seconds > 0 for outcome in outcomes if outcome.problem is None)
    for n in range(len(images)):
        pair = [tifffile.imread(tmp_path / folder / f"{n}_labels.tif") for folder in ("together", "alone")]
        np.testing.assert_array_equal(*pair)


def test_maps_of_each_image_are_those_that_it_has_alone(images, together):
    segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    alone = [segmenter.maps(segmenter.prepared(image)) for image in images]
    together.clear()
    for one, expected in zip(
        segmenter.maps_of_each(Given(str(n), image) for n, image in enumerate(images)), alone, strict=True
    ):
        for name, values in vars(one).items():
            torch.testing.assert_close(values, getattr(expected, name), atol=1e-4, rtol=1e-4)
    assert together == [4, 2]
