"""The fast mean shift equals the plain one, pixel for pixel and number for number, whatever the network says."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from attractor.kernels.mean_shift import mean_shift
from attractor.methods.discriminative_loss import group_plain

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["vectors"]}


def fast(embedding, priority=None, region=None, *, bandwidth=1.5, min_size=0):
    """Group pixels of equal priority and one region, unless others are given."""
    embedding = np.asarray(embedding, np.float32)
    n = embedding.shape[1]
    priority = np.zeros(n, np.float32) if priority is None else np.asarray(priority, np.float32)
    region = np.ones(n, np.int32) if region is None else np.asarray(region, np.int32)
    return mean_shift(embedding, priority, region, bandwidth=bandwidth, min_size=min_size)


def assert_equal_to_plain(embedding, priority, region=None, *, bandwidth=1.5, min_size=0):
    """Group both ways, and give what both found."""
    region = np.ones(len(priority)) if region is None else region
    given_to_it = [
        np.ascontiguousarray(x, dtype)
        for x, dtype in ((embedding, np.float32), (priority, np.float32), (region, np.int32))
    ]
    before = [x.copy() for x in given_to_it]
    labels = mean_shift(*given_to_it, bandwidth=bandwidth, min_size=min_size)
    plain = group_plain(*(torch.from_numpy(x) for x in before), bandwidth=float(bandwidth), min_size=min_size)
    np.testing.assert_array_equal(labels, plain)
    assert labels.dtype == np.int32
    for ours, original in zip(given_to_it, before, strict=True):
        np.testing.assert_array_equal(ours, original)
    return labels


def crowds(random, d, n, k, noise, spread=5.0, stretch=1):
    """Pixels of k objects, of which some consecutive ones belong together."""
    owner = np.repeat(random.integers(0, k, -(-n // stretch)), stretch)[:n]
    return random.uniform(-spread, spread, (d, k))[:, owner] + random.normal(0, noise, (d, n))


def smooth(random, d, size, spread):
    """An embedding that changes slowly from pixel to pixel, as that of an untrained network does."""
    maps = np.stack([ndimage.gaussian_filter(random.normal(size=(size, size)), 4) for _ in range(d)])
    return (maps / maps.std() * spread).reshape(d, -1)


def test_two_crowds_and_a_pixel_alone():
    embedding = [[0, 9, 0.5, 9, 4, 1], [0, 0, 0.5, 1, 4, 0]]
    priority = [0.5, 0.9, 0.6, 0.8, 0.7, 0.1]
    assert fast(embedding, priority).tolist() == [3, 1, 3, 1, 2, 3]
    assert fast(embedding, priority, min_size=2).tolist() == [2, 1, 2, 1, 0, 2]
    assert fast(embedding, priority, min_size=3).tolist() == [1, 0, 1, 0, 0, 1]


def test_the_first_of_equal_priorities_goes_first():
    assert fast([[8, 0, 8, 4, 0]]).tolist() == [1, 2, 1, 3, 2]
    assert fast([[8, 0, 8, 4, 0]], [0.0, -0.0, 1.0, 1.0, 0.0]).tolist() == [1, 3, 1, 2, 3]


def test_regions_never_meet_and_go_by_their_number():
    embedding, priority = [[0, 0, 0, 5, 0]], [0.9, 0.1, 0.5, 0.2, 0.3]
    assert fast(embedding, priority, [7, -3, 7, -3, 7]).tolist() == [3, 2, 3, 1, 3]
    assert fast(embedding, priority, [2**31 - 1, -(2**31), 5, 5, 2**31 - 1]).tolist() == [4, 1, 2, 3, 4]


def test_a_pixel_at_exactly_the_bandwidth_is_outside():
    assert fast([[0, 1.5]], [1, 0]).tolist() == [1, 2]
    assert fast([[0, 1.4999]], [1, 0]).tolist() == [1, 1]


def test_a_seed_that_its_mean_has_left_goes_with_it():
    embedding = np.repeat([0.0, 0.9, 1.7], [1, 10, 100])[None]
    priority = (embedding[0] == 0).astype(np.float32)
    assert set(assert_equal_to_plain(embedding, priority, bandwidth=1.0)) == {1}
    assert set(assert_equal_to_plain(embedding, priority, bandwidth=1.0, min_size=112)) == {0}


def test_a_mean_rests_after_a_hundred_steps():
    slope = np.log1p(np.linspace(0, math.expm1(0.2), 4000)) / 0.02  # 0 to 10, a little denser upwards
    labels = assert_equal_to_plain(slope[None], -slope, bandwidth=1.0)
    assert labels[0] == 1
    assert labels[-1] > 1


def test_the_published_vector():
    vector = VECTORS["DISC-CLUSTER6"]
    truth = np.array(vector["inputs"]["gt"])
    n = np.arange(36).reshape(6, 6)
    mean = np.array([(0, 0), (2, 0), (-1.5, 2), (-0.5, -2.5)])[truth]
    embedding = mean.transpose(2, 0, 1) + 0.3 * np.stack([np.sin(1.9 * n), np.cos(2.3 * n)])
    for bandwidth, expected in ((vector["inputs"]["bandwidth"], "label_map"), (0.5, "label_map_bandwidth_0_5")):
        labels = np.zeros((6, 6), np.int32)
        labels[truth > 0] = fast(embedding[:, truth > 0], bandwidth=bandwidth)
        np.testing.assert_array_equal(labels, vector["expected"][expected])


@settings(max_examples=120, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_crowds(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    d, n = data.draw(st.integers(1, 16)), data.draw(st.sampled_from([1, 2, 3, 10, 50, 200, 700]))
    embedding = crowds(
        random,
        d,
        n,
        data.draw(st.integers(1, 12)),
        data.draw(st.sampled_from([0.0, 0.1, 0.3, 1.0])),
        data.draw(st.sampled_from([0.5, 2.0, 5.0, 100.0])),
        data.draw(st.sampled_from([1, 7, 100])),
    )
    assert_equal_to_plain(
        embedding,
        random.random(n),
        random.integers(0, data.draw(st.sampled_from([1, 3, 40])), n),
        bandwidth=data.draw(st.sampled_from([0.1, 0.5, 1.5, 20.0])),
        min_size=data.draw(st.sampled_from([0, 1, 2, 20])),
    )


@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_distances_that_often_equal_the_bandwidth(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    d, n = data.draw(st.integers(1, 4)), data.draw(st.integers(1, 400))
    embedding = random.integers(-4, 5, (d, n)) * 0.5
    levels = data.draw(st.sampled_from([1, 3, 1000]))
    assert_equal_to_plain(
        embedding,
        random.integers(0, levels, n) / levels,
        random.integers(0, 2, n),
        bandwidth=data.draw(st.sampled_from([0.5, 1.0, 1.5, math.sqrt(2), 2.0])),
        min_size=data.draw(st.sampled_from([0, 3])),
    )


@pytest.mark.parametrize("d", [1, 2, 3, 8])
def test_many_pixels(d):
    """Enough for bins, and for runs that leave them."""
    for random in map(np.random.default_rng, range(3)):
        n = 3000
        assert_equal_to_plain(crowds(random, d, n, 30, 0.15, stretch=40), random.random(n))
        assert_equal_to_plain(crowds(random, d, n, 30, 0.4, 2.0, stretch=3), random.random(n))
        assert_equal_to_plain(random.uniform(0, 8, (d, n)), random.random(n), bandwidth=2.0)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_smooth_embeddings(spread):
    for random in map(np.random.default_rng, range(3)):
        embedding = smooth(random, 4, 56, spread)
        assert_equal_to_plain(embedding, random.random(embedding.shape[1]), min_size=5)


def test_many_small_regions():
    random = np.random.default_rng(0)
    n = 2000
    embedding = crowds(random, 8, n, 5, 0.1)
    for numbers in (np.arange(200), random.choice(2**31, 200), -np.arange(200) * 10**6):
        assert_equal_to_plain(embedding, random.random(n), np.sort(random.choice(numbers, n)))
        assert_equal_to_plain(embedding, random.random(n), random.choice(numbers, n), min_size=3)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -1e19, 1e-30], ids=str)
@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("channels", [[0], [2], [0, 1, 2, 3]], ids=str)
def test_any_embedding(value, share, channels):
    random = np.random.default_rng(0)
    n = 300
    embedding = crowds(random, 4, n, 6, 0.1, stretch=5)
    embedding[np.ix_(channels, random.random(n) < share)] = value
    for min_size in (0, 2):
        assert_equal_to_plain(embedding, random.random(n), random.integers(0, 2, n), min_size=min_size)


def test_pixels_that_are_not_numbers_are_alone():
    assert fast([[np.nan, 0, np.inf, 0, np.nan]]).tolist() == [1, 2, 3, 2, 4]
    assert fast([[np.nan, 0, np.inf, 0, np.nan]], min_size=2).tolist() == [0, 1, 0, 1, 0]


def test_any_priority():
    random = np.random.default_rng(0)
    embedding = crowds(random, 3, 400, 40, 0.1)
    for values in ([np.nan, 0.5], [np.inf, 0.5, np.nan], [-0.0, 0.0], [1e-45, 0.0, -1e-45], [-3e38, 3e38], [-1, -2, 3]):
        assert_equal_to_plain(embedding, random.choice(np.array(values, np.float32), 400))
    assert fast([[0, 5, 10]], [-np.inf, 0, -np.inf]).tolist() == [2, 1, 3]


def test_all_pixels_at_one_place():
    for place in (0, 0.1, 1e5):
        assert set(assert_equal_to_plain(np.full((3, 500), place), np.arange(500))) == {1}


def test_no_pixels():
    for d in (1, 8):
        labels = fast(np.zeros((d, 0)))
        assert labels.shape == (0,)
        assert labels.dtype == np.int32


def test_the_same_every_time():
    random = np.random.default_rng(0)
    embedding, priority = crowds(random, 8, 3000, 30, 0.4, 2.0, stretch=5), random.random(3000)
    first = fast(embedding, priority)
    for _ in range(3):
        np.testing.assert_array_equal(fast(embedding, priority), first)


def test_maps_that_are_not_contiguous():
    random = np.random.default_rng(0)
    embedding, priority = crowds(random, 4, 300, 10, 0.1).astype(np.float32), random.random(300, np.float32)
    region = random.integers(0, 3, 300).astype(np.int32)
    expected = fast(embedding, priority, region)
    turned = np.asfortranarray(embedding), np.repeat(priority, 2)[::2], np.repeat(region, 2)[::2]
    np.testing.assert_array_equal(fast(*turned), expected)
