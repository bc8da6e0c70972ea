"""The fast grouping of directions finds the groups of the plain one."""

import numpy as np
import pytest
import torch

from attractor.kernels.meeting_directions import meeting_directions
from attractor.methods.recurrent_pixel_embedding import group_plain

OPTIONS = {"kappa": 6.0, "step": 1.0, "loops": 10, "most_anchors": 256, "similarity": 0.9, "min_size": 0}


def directions(random, d, n, k, noise):
    """(d, n) unit vectors around k random ones."""
    x = random.normal(size=(d, k))[:, random.integers(0, k, n)] + random.normal(0, noise, (d, n))
    return (x / np.linalg.norm(x, axis=0)).astype(np.float32)


def assert_groups_are_those_of_the_plain_form(points, region=None, **options):
    """Group both ways; of two groups that are equally dense either may come first. Gives what the fast form found."""
    region = np.ones(points.shape[1], np.int32) if region is None else np.asarray(region, np.int32)
    before = points.copy(), region.copy()
    found = meeting_directions(points, region, **OPTIONS | options)
    plain = group_plain(torch.from_numpy(points), torch.from_numpy(region), **OPTIONS | options).numpy()
    assert found.dtype == np.int32
    assert np.array_equal(found > 0, plain > 0)
    pairs = set(zip(found.tolist(), plain.tolist(), strict=True))
    assert len(pairs) == len(set(found.tolist())) == len(set(plain.tolist()))
    for given, original in zip((points, region), before, strict=True):
        assert np.array_equal(given, original)
    return found


def test_directions_that_meet_are_one_group():
    """The densest group goes first."""
    points = np.array([[0, 1, 0, 0.96, 1, -1], [1, 0, 1, 0.28, 0, 0]], np.float32)
    assert assert_groups_are_those_of_the_plain_form(points).tolist() == [2, 1, 2, 1, 1, 3]
    assert assert_groups_are_those_of_the_plain_form(points, min_size=2).tolist() == [2, 1, 2, 1, 1, 0]


def test_regions_never_meet_and_go_by_their_number():
    points = np.repeat(np.array([[1], [0], [0]], np.float32), 6, axis=1)
    region = [7, -3, 7, 2, -3, 7]
    assert assert_groups_are_those_of_the_plain_form(points, region).tolist() == [3, 1, 3, 2, 1, 3]
    assert assert_groups_are_those_of_the_plain_form(points, region, min_size=2).tolist() == [2, 1, 2, 0, 1, 2]


def test_no_points_have_no_groups():
    assert meeting_directions(np.empty((4, 0), np.float32), np.empty(0, np.int32), **OPTIONS).tolist() == []


@pytest.mark.parametrize("most_anchors", [1, 7, 64, 256])
@pytest.mark.parametrize("n", [1, 31, 32, 33, 300, 1000])
def test_any_number_of_points_and_anchors(n, most_anchors):
    points = directions(np.random.default_rng(n), 5, n, 3, 0.05)
    assert_groups_are_those_of_the_plain_form(points, most_anchors=most_anchors)


@pytest.mark.parametrize("kappa", [0.75, 6.0, 100.0, 2500.0])
@pytest.mark.parametrize("d", [2, 3, 16, 64])
def test_any_dimension_and_concentration(d, kappa):
    random = np.random.default_rng(d)
    points, region = directions(random, d, 800, 4, 0.1), random.integers(0, 5, 800)
    assert_groups_are_those_of_the_plain_form(points, region, kappa=kappa, min_size=10)


@pytest.mark.parametrize(
    "options", [{"step": 0.5}, {"loops": 0}, {"loops": 1}, {"similarity": -1.0}, {"similarity": 0.999}]
)
def test_any_step_and_end(options):
    points = directions(np.random.default_rng(0), 8, 500, 4, 0.05)
    assert_groups_are_those_of_the_plain_form(points, **options)


def test_points_without_a_direction_are_a_group():
    """Vectors of length 0 are what an embedding of zeros gives."""
    points = np.zeros((3, 40), np.float32)
    points[0, :20] = 1
    found = assert_groups_are_those_of_the_plain_form(points, min_size=20)
    assert found[0] == found[19] > 0


def test_the_number_of_threads_does_not_matter():
    random = np.random.default_rng(0)
    points, region = directions(random, 8, 2000, 6, 0.2), np.sort(random.integers(0, 30, 2000)).astype(np.int32)
    before = torch.get_num_threads()
    found = []
    for n in (1, 2, 5):
        torch.set_num_threads(n)
        found.append(meeting_directions(points, region, **OPTIONS))
    torch.set_num_threads(before)
    assert np.array_equal(found[0], found[1])
    assert np.array_equal(found[0], found[2])
