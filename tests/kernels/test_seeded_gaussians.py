"""The fast grouping equals the plain one, pixel for pixel, whatever the network says."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from attractor.kernels.seeded_gaussians import at, foreground, seeded_claims, seeded_gaussians
from attractor.methods.spatial_embeddings import claims_plain, group_plain

DEFAULTS = {
    "foreground_threshold": 0.5,
    "seed_threshold": 0.5,
    "min_size": 0,
    "min_foreground": 0,
    "min_free": 0,
    "count_seed": False,
    "overwrite": True,
}
STEP = 1 / 1024

both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def by_numba(maps, options):
    """The form for a processor, from and to arrays."""
    labels, scores = seeded_gaussians(*maps, **options)
    assert labels.dtype == np.int32
    return labels, scores


def by_triton(maps, options):
    """The form for a GPU, from and to arrays; without a GPU Triton's interpreter runs it."""
    kernel = pytest.importorskip("attractor.kernels.seeded_gaussians_cuda", reason="needs Triton, which is for Linux")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    there = [torch.from_numpy(x).to(device, copy=True) for x in maps]
    with np.errstate(all="ignore"):  # the interpreter computes with NumPy
        labels, scores = kernel.seeded_gaussians_cuda(*there, **options)
    assert (labels.device.type, scores.device.type, labels.dtype) == (device, device, torch.int32)
    for ours, before in zip(there, maps, strict=True):
        np.testing.assert_array_equal(ours.cpu(), before)
    return labels.cpu().numpy(), scores.cpu().numpy()


both_forms = pytest.mark.parametrize("form", [by_numba, by_triton])


def assert_equal_to_plain(embedding, concentration, seed, form=by_numba, **options):
    """Group both ways, and give what both found."""
    options = DEFAULTS | options
    maps = [np.ascontiguousarray(x) for x in (embedding, concentration, seed)]
    before = [x.copy() for x in maps]
    labels, scores = form(maps, options)
    plain_labels, plain_scores = group_plain(*(torch.from_numpy(x) for x in before), **options)
    np.testing.assert_array_equal(labels, plain_labels)
    np.testing.assert_array_equal(scores, plain_scores)
    assert scores.dtype == seed.dtype
    for ours, given_to_it in zip(maps, before, strict=True):
        np.testing.assert_array_equal(ours, given_to_it)
    return labels, scores


def assert_claims_equal_to_plain(embedding, concentration, seed, **options):
    """Claim both ways, and give the masks that both found."""
    options = DEFAULTS | options
    pixel, score = foreground(seed, options["foreground_threshold"])
    of_pixels = pixel, score, at(embedding, pixel), at(concentration, pixel)
    rules = {name: value for name, value in options.items() if name != "foreground_threshold"}
    labels, grown, claims = seeded_claims(*of_pixels, seed.shape, **rules)
    scores = score[grown]
    masks = np.zeros((len(scores), seed.size), bool)
    for mask, pixels in zip(masks, claims, strict=True):
        assert len(np.unique(pixels)) == len(pixels)
        mask[pixels] = True
    masks = masks.reshape(-1, *seed.shape)
    del options["overwrite"]
    plain, plain_scores = claims_plain(*(torch.from_numpy(x) for x in (embedding, concentration, seed)), **options)
    np.testing.assert_array_equal(masks, plain)
    np.testing.assert_array_equal(scores, plain_scores)
    expected, expected_scores = seeded_gaussians(embedding, concentration, seed, **DEFAULTS | options | rules)
    np.testing.assert_array_equal(labels, expected)
    np.testing.assert_array_equal(scores, expected_scores)
    return masks


def coordinates(h, w):
    y, x = np.mgrid[:h, :w]
    return np.stack([y, x]) * STEP


def random_maps(random, h, w, dtype, spread=3.0, margin=3.0):
    """Pixels that point somewhere near, with margins of some pixels, and any seed score."""
    embedding = coordinates(h, w) + random.normal(0, spread * STEP, (2, h, w))
    margin = margin * STEP * np.exp(random.normal(0, 0.5, (2, h, w)))
    return [x.astype(dtype) for x in (embedding, math.log(2) / margin**2, random.uniform(0, 1, (h, w)))]


def disc_maps(random, dtype, size=64, n=6, radius=8):
    """Discs, some of which overlap, whose pixels point near their centres."""
    position = coordinates(size, size)
    embedding, seed = position.copy(), random.uniform(0, 0.6, (size, size))
    for centre in random.uniform(0, size, (n, 2)) * STEP:
        distance = np.hypot(*(position - centre[:, None, None])) / (radius * STEP)
        inside = distance < 1
        embedding[:, inside] = centre[:, None] + random.normal(0, radius * STEP / 10, (2, inside.sum()))
        seed[inside] = np.exp(-math.log(2) * distance[inside] ** 2)
    concentration = np.full_like(embedding, math.log(2) / (radius * STEP) ** 2)
    return [x.astype(dtype) for x in (embedding, concentration, seed)]


@both_precisions
@pytest.mark.parametrize("check", [assert_equal_to_plain, assert_claims_equal_to_plain], ids=["labels", "claims"])
@settings(max_examples=60, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_maps(dtype, check, data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    h, w = data.draw(st.integers(1, 24)), data.draw(st.integers(1, 24))
    maps = random_maps(
        random, h, w, dtype, data.draw(st.sampled_from([0.1, 3, 50])), data.draw(st.sampled_from([0.3, 3, 40]))
    )
    check(
        *maps,
        foreground_threshold=data.draw(st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.9])),
        seed_threshold=data.draw(st.sampled_from([0.0, 0.5, 0.7, 0.9, 1.0])),
        min_size=data.draw(st.sampled_from([0, 1, 4, 30])),
        min_foreground=data.draw(st.sampled_from([0, 5, 128])),
        min_free=data.draw(st.sampled_from([0, 5, 128])),
        count_seed=data.draw(st.booleans()),
        overwrite=data.draw(st.booleans()),
        recentre=data.draw(st.sampled_from([0, 0, 1, 2])),
    )


@both_precisions
def test_claims_are_whole_where_they_overlap(dtype):
    position = np.arange(8.0)
    embedding = np.stack([np.zeros(8), position])[:, None].astype(dtype)  # each pixel points at itself
    concentration = np.full_like(embedding, math.log(2) / 2.5**2)  # and claims two on either side
    seed = np.array([[0.6, 0.6, 0.9, 0.6, 0.6, 0.8, 0.6, 0.6]], dtype)
    masks = assert_claims_equal_to_plain(embedding, concentration, seed, seed_threshold=0.7, count_seed=True)
    assert masks[:, 0].astype(int).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0], [0, 0, 0, 1, 1, 1, 1, 1]]
    nothing = assert_claims_equal_to_plain(embedding, concentration, seed, seed_threshold=0.95)
    assert len(nothing) == 0


@both_precisions
@pytest.mark.parametrize("overwrite", [True, False])
@pytest.mark.parametrize("count_seed", [True, False])
@pytest.mark.parametrize("recentre", [0, 2])
def test_discs(dtype, count_seed, overwrite, recentre):
    options = {"count_seed": count_seed, "overwrite": overwrite, "recentre": recentre, "min_size": 8}
    for random in map(np.random.default_rng, range(4)):
        labels, _ = assert_equal_to_plain(*disc_maps(random, dtype), **options)
        assert labels.max() >= 3


@both_precisions
def test_a_claim_around_a_seed_beside_the_centre_becomes_whole_once_it_is_centred(dtype):
    size, radius = 40, 10
    centre = np.full((2, 1, 1), 20.0)
    away = np.mgrid[:size, :size] - centre
    inside = np.hypot(*away) < radius
    embedding, margin = (centre + 0.4 * away) * STEP, np.full((size, size), radius * STEP)
    seed = np.where(inside, 0.8, 0.1)
    embedding[1, 20, 20], margin[20, 20], seed[20, 20] = 26 * STEP, 6 * STEP, 0.95  # the best seed is wrong about both
    maps = [x.astype(dtype) for x in (embedding, np.stack([math.log(2) / margin**2] * 2), seed)]
    labels, _ = assert_equal_to_plain(*maps, count_seed=True)
    assert not np.array_equal(labels == 1, inside)
    labels, scores = assert_equal_to_plain(*maps, count_seed=True, recentre=1)
    assert np.array_equal(labels == 1, inside)
    assert len(scores) == 1


@both_precisions
def test_a_claim_that_is_empty_once_it_is_centred_takes_nothing(dtype):
    embedding = np.zeros((2, 1, 8), dtype)
    embedding[1] = np.array([0, 1, *range(10, 16)]) * STEP
    margin = (
        np.array([1.5, 0.1, *[0.2] * 6]) * STEP
    )  # the seed claims its neighbour; around their mean there is no pixel
    concentration = np.stack([math.log(2) / margin[None] ** 2] * 2).astype(dtype)
    seed = np.array([[0.9, *[0.8] * 7]], dtype)
    _, scores = assert_equal_to_plain(
        embedding, concentration, seed, seed_threshold=0.85, count_seed=True, recentre=2, min_size=3
    )
    assert len(scores) == 0


@both_precisions
@pytest.mark.parametrize("levels", [1, 2, 5])
def test_the_first_of_equal_seeds_goes_first(dtype, levels):
    for random in map(np.random.default_rng, range(6)):
        embedding, concentration, seed = random_maps(random, 16, 40, dtype)
        seed = (0.6 + 0.4 * np.floor(seed * levels) / levels).astype(dtype)
        assert_equal_to_plain(embedding, concentration, seed, count_seed=random.random() < 0.5)


@both_precisions
@both_forms
def test_a_score_exactly_at_the_threshold_can_start_an_object_but_not_belong_to_one(dtype, form):
    embedding = np.zeros((2, 1, 3), dtype)
    concentration = np.ones((2, 1, 3), dtype)
    for threshold in (0.5, 0.7, 0.9):  # of these only 0.5 is the same number in both precisions
        seed = np.full((1, 3), threshold, dtype)
        labels, _ = assert_equal_to_plain(
            embedding, concentration, seed, form, seed_threshold=threshold, foreground_threshold=0.3
        )
        assert labels.tolist() == [[1, 1, 1]]
        labels, _ = assert_equal_to_plain(embedding, concentration, seed, form, foreground_threshold=threshold)
        assert not labels.any()


@both_precisions
@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0, 1e-45, 1e30, 3e38], ids=str)
@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("axes", [[0], [0, 1]], ids=["x", "xy"])
def test_any_concentration(dtype, value, share, axes):
    random = np.random.default_rng(0)
    embedding, concentration, seed = random_maps(random, 12, 20, dtype)
    with np.errstate(under="ignore"):
        concentration[axes] = np.where(random.random((12, 20)) < share, value, concentration[axes])
    assert_equal_to_plain(embedding, concentration, seed)
    assert_equal_to_plain(np.zeros_like(embedding), concentration, seed, count_seed=True)


@both_precisions
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30, -1e19, 1e200], ids=str)
@pytest.mark.parametrize("share", [0.2, 1.0])
@pytest.mark.parametrize("precise", [True, False])
def test_any_embedding(dtype, value, share, precise):
    random = np.random.default_rng(0)
    embedding, concentration, seed = random_maps(random, 12, 20, dtype)
    with np.errstate(over="ignore"):
        embedding[:, random.random((12, 20)) < share] = dtype(value)
    concentration[random.random(concentration.shape) < 0.2] *= precise
    assert_equal_to_plain(embedding, concentration, seed, count_seed=True)
    assert_equal_to_plain(embedding, concentration, seed)


@both_precisions
@pytest.mark.parametrize("concentration", [5e-324, 1e-45, 1e-30, 0.0, 1e38])
def test_infinite_embeddings_beside_endless_margins(dtype, concentration):
    random = np.random.default_rng(0)
    embedding, _, seed = random_maps(random, 12, 20, dtype)
    embedding[:, random.random((12, 20)) < 0.3] = np.inf
    with np.errstate(under="ignore"):
        concentration = np.full_like(embedding, concentration)
    assert_equal_to_plain(embedding, concentration, seed)


@both_precisions
def test_any_seed_score(dtype):
    random = np.random.default_rng(0)
    for values in ([np.nan, 0.7], [np.inf, 0.7, 0.8], [0.0, 1.0], [1e-45, 0.0], [3.0, 0.6, -0.5]):
        embedding, concentration, _ = random_maps(random, 12, 20, dtype)
        with np.errstate(under="ignore"):
            seed = random.choice(values, (12, 20)).astype(dtype)
        assert_equal_to_plain(embedding, concentration, seed)
        assert_equal_to_plain(embedding, concentration, seed, foreground_threshold=0.0, seed_threshold=0.0)


@both_precisions
def test_raw_sigma_that_overflows(dtype):
    random = np.random.default_rng(0)
    embedding, _, seed = random_maps(random, 12, 20, dtype)
    with np.errstate(over="ignore"):
        concentration = np.exp(10 * random.uniform(-20, 20, (2, 12, 20)).astype(dtype))
    assert_equal_to_plain(embedding, concentration, seed)
    assert_equal_to_plain(embedding, np.broadcast_to(np.exp(dtype(80)), embedding.shape), seed)


@both_precisions
@both_forms
def test_empty_foreground(dtype, form):
    embedding, concentration, seed = random_maps(np.random.default_rng(0), 5, 7, dtype)
    for min_foreground in (0, -1):
        labels, scores = assert_equal_to_plain(
            embedding, concentration, seed * dtype(0.5), form, min_foreground=min_foreground
        )
        assert not labels.any()
        assert len(scores) == 0


@both_precisions
@pytest.mark.parametrize("shape", [(1, 1), (1, 50), (50, 1), (2, 1), (1, 65), (3, 64)], ids=str)
def test_strips(dtype, shape):
    for seed in range(5):
        maps = random_maps(np.random.default_rng(seed), *shape, dtype)
        assert_equal_to_plain(*maps)
        assert_equal_to_plain(*maps, count_seed=True, overwrite=False)


@both_precisions
@both_forms
def test_one_pixel_is_an_object_only_if_its_seed_counts(dtype, form):
    maps = np.zeros((2, 1, 1), dtype), np.ones((2, 1, 1), dtype), np.full((1, 1), 0.9, dtype)
    assert assert_equal_to_plain(*maps, form=form, count_seed=True)[0].tolist() == [[1]]
    assert assert_equal_to_plain(*maps, form=form, count_seed=False)[0].tolist() == [[0]]


@both_precisions
def test_embeddings_far_outside_the_image(dtype):
    random = np.random.default_rng(0)
    for far in (10, 1e4, 1e8):
        embedding, concentration, seed = random_maps(random, 16, 24, dtype)
        some = random.random((16, 24)) < 0.3
        embedding[:, some] += (far * random.choice([-1, 1], (2, 1))).astype(dtype)
        assert_equal_to_plain(embedding, concentration, seed)
        assert_equal_to_plain(embedding + dtype(far), concentration, seed)


@both_precisions
def test_all_pixels_point_at_one_place(dtype):
    embedding, concentration, seed = random_maps(np.random.default_rng(0), 30, 30, dtype)
    for place in (0, 0.1, 1e5):
        labels, _ = assert_equal_to_plain(np.full_like(embedding, place), concentration, seed)
        assert labels.max() == 1


def test_more_objects_than_sixteen_bits_count():
    h, w = 257, 300
    concentration = np.full((2, h, w), 4 / STEP**2, np.float32)  # a margin of less than half a pixel
    seed = np.random.default_rng(0).permutation(h * w).reshape(h, w) / np.float32(h * w) * np.float32(0.5) + np.float32(
        0.5
    )
    labels, scores = seeded_gaussians(
        coordinates(h, w).astype(np.float32),
        concentration,
        seed,
        **DEFAULTS | {"count_seed": True, "foreground_threshold": 0.0},
    )
    assert len(scores) == h * w > 2**16
    np.testing.assert_array_equal(scores, np.sort(seed, axis=None)[::-1])
    np.testing.assert_array_equal(labels.ravel()[np.argsort(-seed, axis=None, kind="stable")], np.arange(1, h * w + 1))


def test_maps_that_are_not_contiguous():
    maps = random_maps(np.random.default_rng(0), 12, 20, np.float32)
    labels, _ = assert_equal_to_plain(*maps)
    turned = [np.asfortranarray(x) for x in maps]
    np.testing.assert_array_equal(seeded_gaussians(*turned, **DEFAULTS)[0], labels)
