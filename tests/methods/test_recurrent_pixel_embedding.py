"""The published vectors of recurrent pixel embedding, and the laws of its loss and grouping."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attractor.errors import InputError
from attractor.methods.recurrent_pixel_embedding import (
    Maps,
    RecurrentPixelEmbedding,
    most_groups,
    pair_loss,
    pair_weights,
    points_that_meet,
    shift,
    shifted,
)
from attractor.truth import Truth

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["vectors"]}
GROUPS = torch.tensor([1, 1, 1, 2, 2, 0])


def expected(name):
    return VECTORS[name]["expected"]


def method(**options):
    return RecurrentPixelEmbedding(lambda channels: nn.Conv2d(1, sum(channels), 1), **options)


def six_points():
    """z_nc = sin(1.3 n + 2.1 c + 0.5), unit length: six points on a sphere in three dimensions."""
    n, c = np.arange(6)[:, None], np.arange(3)
    z = torch.tensor(np.sin(1.3 * n + 2.1 * c + 0.5))
    return z / z.norm(dim=1, keepdim=True)


def as_maps(x):
    """Points in one row of an image."""
    return Maps(x.T[None, :, None], torch.zeros(1, 2, 1, len(x), dtype=x.dtype))


def truth_of(labels):
    labels = torch.as_tensor(labels, dtype=torch.int32)
    labels = labels[None] if labels.ndim == 2 else labels
    classes = torch.ones(len(labels), max(1, int(labels.max())), dtype=torch.int64)
    return Truth(labels, classes, torch.ones_like(labels, dtype=torch.bool))


def test_pairs_weigh_as_in_the_vector():
    torch.testing.assert_close(pair_weights(GROUPS), torch.tensor(expected("RPE-WEIGHT")["pairwise_weight"]).double())
    assert pair_weights(GROUPS).sum().item() == pytest.approx(1)
    similarity = (1 + six_points() @ six_points().T) / 2
    reference = torch.tensor(expected("RPE-WEIGHT")["similarity_calibrated"]).double()
    torch.testing.assert_close(similarity, reference, atol=1e-6, rtol=0)


@pytest.mark.parametrize("margin", [0.5, 0.1])
def test_pair_loss_and_its_gradient_are_those_of_the_vector(margin):
    values = expected(f"RPE-PAIR-alpha{margin}")
    same, weight = GROUPS[:, None] == GROUPS, pair_weights(GROUPS)
    x = six_points().requires_grad_()
    positive, negative = pair_loss(x, same, weight, margin=margin)
    (positive + 5 * negative).backward()
    assert positive.item() == pytest.approx(values["pos"], abs=1e-6)
    assert negative.item() == pytest.approx(values["neg"], abs=1e-6)
    torch.testing.assert_close(x.grad, torch.tensor(values["grad_lambda5_wrt_unit_embeddings"]).double())
    squared = values["effective_objective_lambda5"]
    x = six_points().requires_grad_()
    positive, negative = pair_loss(x, same, weight, margin=margin, squared=True)
    (positive + 5 * negative).backward()
    assert positive.item() == pytest.approx(squared["pos"], abs=1e-6)
    assert negative.item() == pytest.approx(squared["neg"], abs=1e-6)
    torch.testing.assert_close(x.grad, torch.tensor(squared["grad"]).double(), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("delta", [0.1, 0.2, 0.5])
def test_mean_shift_and_its_gradient_are_those_of_the_vector(delta):
    values = expected(f"RPE-MS-delta{delta}")
    kappa = torch.tensor(1 / delta**2).double()
    x = six_points()
    for loop in values["loops"]:
        x = shift(x, x, kappa, 1.0)
        torch.testing.assert_close(x, torch.tensor(loop["X"]).double(), atol=1e-6, rtol=0)
    x = six_points().requires_grad_()
    a = torch.cos(0.7 * torch.arange(18).double()).view(6, 3)
    (a * shift(x, x, kappa, 1.0)).sum().backward()
    torch.testing.assert_close(x.grad, torch.tensor(values["grad_loop1_of_sum_A_Z"]).double(), atol=1e-6, rtol=1e-6)
    wrong = torch.tensor(values["reference_code_grad_loop1"]).double()
    assert (x.grad - wrong).abs().max() > 0.05


def test_half_a_step_is_that_of_the_vector():
    x = shift(six_points(), six_points(), torch.tensor(25.0).double(), 0.5)
    torch.testing.assert_close(x, torch.tensor(expected("RPE-MS-eta0.5")["X1"]).double(), atol=1e-6, rtol=0)


def test_the_loss_of_all_loops_and_its_gradient_are_those_of_the_vector():
    values = expected("RPE-MULTILOOP")
    own = method(dimension=3, groups=3, loops=2, bandwidth=0.2, pair_loss="linear")
    x = six_points().requires_grad_()
    near = torch.ones(2, 2, dtype=torch.bool)
    total = own._loss_of_image(x, GROUPS, near)
    total.backward()
    assert total.item() == pytest.approx(values["total"], abs=1e-6)
    torch.testing.assert_close(x.grad, torch.tensor(values["grad"]).double(), atol=1e-6, rtol=1e-5)
    # the method's own loss is this, up to the length's epsilon
    terms = own.loss(as_maps(six_points()), truth_of(GROUPS[None]))
    assert terms["embedding"].item() == pytest.approx(values["total"], abs=1e-3)


def eight_points():
    n, c = np.arange(8)[:, None], np.arange(4)
    z = np.eye(4)[[0, 0, 1, 1, 1, 2, 2, 2]] + 0.45 * np.sin(1.7 * n + 0.9 * c + 0.2)
    z = torch.tensor(z)
    return z / z.norm(dim=1, keepdim=True)


@pytest.mark.parametrize("kappa", ["6.0", "25.0", "100.0"])
def test_loops_move_points_as_in_the_vector(kappa):
    values = expected("RPE-GROUP8")[kappa]
    x, concentration = eight_points(), torch.tensor(float(kappa)).double()
    for _ in range(10):
        x = shift(x, x, concentration, 1.0)
    torch.testing.assert_close(x, torch.tensor(values["X10"]).double(), atol=1e-6, rtol=0)
    if kappa == "6.0":
        found = points_that_meet(x, torch.zeros(8), 0.9)
        assert found.tolist() == values["groups_cos_gt_0_9"]


def test_shifting_ends_where_points_rest_and_anchors_stand_for_all():
    x = torch.nn.functional.normalize(torch.tensor([[1.0, 0.1, 0], [1, 0, 0], [0, 1, 0.1], [0, 1, 0]]), dim=1)
    once, density = shifted(x, 100.0, 1.0, 1, 4)
    few, _ = shifted(x, 100.0, 1.0, 3, 4)
    many, _ = shifted(x, 100.0, 1.0, 1000, 4)
    assert not torch.equal(once, few)
    assert torch.equal(few, many)  # the loops ended by themselves
    doubled, twice = shifted(x.repeat_interleave(2, 0), 100.0, 1.0, 1, 8)
    torch.testing.assert_close(doubled[::2], once)
    torch.testing.assert_close(twice[::2], 2 * density)
    assert shifted(x, 100.0, 1.0, 1, 2)[0].shape == x.shape


@pytest.mark.parametrize(
    ("margin", "dimension", "most"),
    [
        (0.1, 3, 2),
        (0.25, 8, 3),
        (0.4, 8, 6),
        (0.45, 16, 11),
        (0.475, 64, 21),
        (0.475, 8, 9),
        (0.5, 3, 6),
        (0.5, 64, 128),
        (0.75, 2, 6),
        (0.75, 8, 788),
    ],
)
def test_the_packing_bound_is_the_known_one(margin, dimension, most):
    assert most_groups(margin, dimension) == most


def test_a_sphere_too_small_is_refused():
    with pytest.raises(InputError, match="at most 6 groups apart, and groups = 7"):
        method(margin=0.5, dimension=3, groups=7)
    method(margin=0.5, dimension=3, groups=6)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"bandwidth": 0.0}, "0.02 to 2"),
        ({"dimension": 1}, "2 to 256"),
        ({"margin": 1.0}, "below 1"),
        ({"step": 0.0}, "above 0"),
        ({"loops": -1}, "between 0 and 1000"),
        ({"pixels": 1}, "between 2 and 65536"),
        ({"coordinates": "input"}, "none, phase"),
        ({"coordinates": "phase", "dimension": 3, "groups": 4}, "four dimensions"),
        ({"similarity_threshold": 1.0}, "between -1 and 0.999"),
        ({"pair_loss": "cubic"}, "linear, squared"),
    ],
)
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        method(**options)


def test_sampling_is_even_over_pixels_or_over_groups():
    owner = torch.cat([torch.zeros(900), torch.ones(100), -torch.ones(50)]).long()
    torch.manual_seed(0)
    uniform = owner[method(pixels=200)._sample(owner)]
    balanced = owner[method(pixels=100, sampling="balanced")._sample(owner)]
    assert len(uniform) == 200
    assert len(balanced) == 100
    assert set(uniform.tolist()) == set(balanced.tolist()) == {0, 1}
    assert 5 <= (uniform == 1).sum() <= 40
    assert 35 <= (balanced == 1).sum() <= 65
    few = method(pixels=2000)._sample(owner)
    assert few.tolist() == list(range(1000))


def test_only_objects_within_reach_are_held_apart():
    labels = np.zeros((1, 9), int)
    labels[0, [0, 1]], labels[0, [2, 3]], labels[0, [7, 8]] = 1, 2, 3
    x = torch.eye(4).double()[[0, 0, 1, 1, 3, 3, 3, 0, 0]]  # 1 and 3 are alike
    near, far = (
        method(dimension=4, groups=4, reach=reach, loops=0).loss(as_maps(x), truth_of(labels)) for reach in (1.5, None)
    )
    assert near["embedding"].item() == pytest.approx(0, abs=1e-4)
    assert far["embedding"].item() == pytest.approx(5 * 2 / 16 * 0.25, abs=1e-3)


def test_loops_take_part_from_their_epoch_on():
    own = method(dimension=3, groups=3, loops=2, loops_from=4)
    without = method(dimension=3, groups=3, loops=0)
    given = as_maps(six_points()), truth_of(GROUPS[None])
    own.at_epoch(3)
    early = own.loss(*given)["embedding"]
    own.at_epoch(4)
    assert early == without.loss(*given)["embedding"]
    assert own.loss(*given)["embedding"] > early


def test_a_place_can_be_part_of_the_embedding():
    own = method(dimension=5, groups=3, coordinates="phase", coordinate_period=8.0)
    raw = torch.zeros(1, 3, 4, 16)
    raw[0, 1] = 0.25  # a quarter of the period to the right
    (x,) = own.decode(Maps(raw, torch.zeros(1, 2, 4, 16)))[0]
    assert x.shape == (5, 4, 16)
    torch.testing.assert_close(x[:, :, 0], x[:, :, 8])  # after a period
    torch.testing.assert_close(x[:, 0, 0], torch.tensor([1.0, 0, 0, 1, 0]) / 2**0.5, atol=1e-4, rtol=0)
    torch.testing.assert_close(x[:, 2, 2], torch.tensor([0.0, -1, 1, 0, 0]) / 2**0.5, atol=1e-4, rtol=0)
    raw[0, 1] -= torch.arange(16) / 8 - 0.5  # all pixels point at one column
    (x,) = own.decode(Maps(raw, torch.zeros(1, 2, 4, 16)))[0]
    torch.testing.assert_close(x[:, 0], x[:, 0, :1].expand(5, 16), atol=1e-5, rtol=0)


def test_the_bandwidth_can_be_learned():
    own = method(dimension=3, groups=3, loops=2, learn_bandwidth=True, bandwidth=0.5)
    assert own.kappa == pytest.approx(4)
    own.loss(as_maps(six_points()), truth_of(GROUPS[None]))["embedding"].backward()
    assert own.log_kappa.grad.abs() > 0
    assert not list(method().named_buffers(recurse=False)) == []


def kept_for_backward(loops):
    """Matrices of all pairs of 200 points that are kept until the backward pass."""
    matrices = []

    def pack(tensor):
        if tensor.numel() == 200 * 200:
            matrices.append(tensor.data_ptr())
        return tensor

    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.randn(200, 8), dim=1).requires_grad_()
    own = method(dimension=8, groups=2, loops=loops)
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        own._loss_of_image(x, torch.arange(200) % 2, torch.zeros(1, 1, dtype=torch.bool)).backward()
    return len(set(matrices))


def test_memory_does_not_grow_with_loops():
    """A loop keeps its points, and makes its kernel again when it is needed: one loop's at a time."""
    assert kept_for_backward(8) <= kept_for_backward(1) + 4


@pytest.mark.parametrize("n_anchors", [40, 400])
def test_an_object_without_an_anchor_is_not_lost(n_anchors):
    """Thirty large objects and ten small ones, one direction each: most of the small ones have no anchor."""
    sizes = [200] * 30 + [4] * 10
    owner = np.repeat(np.arange(40), sizes)
    torch.manual_seed(0)
    x = torch.nn.functional.normalize(torch.eye(40)[owner] + 0.02 * torch.randn(len(owner), 40), dim=1)
    found = points_that_meet(*shifted(x, 25.0, 1.0, 10, n_anchors), 0.9).numpy()
    assert len(set(zip(owner.tolist(), found.tolist(), strict=True))) == 40


def test_pixels_that_are_not_numbers_belong_to_no_object():
    maps, labels = halves()
    maps.embedding[0, :, 2, 1] = torch.nan
    (found,) = method(dimension=4, groups=2).group(maps)
    assert found.labels[2, 1] == 0
    assert len(found) == 2
    assert (found.labels > 0).sum() == labels.size - 1


def test_an_object_has_the_class_of_most_of_its_pixels():
    maps, labels = halves()
    classes = torch.full((1, 3, *labels.shape), -5.0)
    classes[:, 1], classes[:, 2, :, 3:5] = 5, 9
    (found,) = method(dimension=4, groups=2, n_classes=2).group(Maps(maps.embedding, classes))
    assert len(found) == 2
    assert found.classes.tolist() == [1, 1]


def halves(h=6, w=8):
    labels = np.ones((h, w), np.int32)
    labels[:, w // 2 :] = 2
    embedding = torch.zeros(1, 4, h, w)
    embedding[0, 0][torch.from_numpy(labels == 1)] = 1
    embedding[0, 1][torch.from_numpy(labels == 2)] = 5
    return Maps(embedding, torch.tensor([-1.0, 1.0]).view(1, 2, 1, 1).expand(1, 2, h, w)), labels


@pytest.mark.parametrize("connected", [False, True])
def test_grouping_reads_what_points_one_way(connected):
    maps, labels = halves()
    (found,) = method(dimension=4, groups=2, connected=connected).group(maps)
    assert np.array_equal(found.labels == found.labels[0, 0], labels == 1)
    assert len(found) == 2
    assert found.scores == pytest.approx([1 / (1 + np.exp(-2))] * 2)


def test_proposals_are_ranked_and_may_overlap():
    maps, labels = halves()
    own = method(dimension=4, groups=2)
    (many,), (one,) = own.propose(maps, 10), own.propose(maps, 1)
    assert len(one) == 1
    assert (np.diff(many.scores) <= 0).all()
    masks = [many.mask(k) for k in range(1, len(many) + 1)]
    for k in (1, 2):
        assert any(np.array_equal(mask, labels == k) for mask in masks)


def test_a_region_without_a_number_beside_one_with_some():
    """Two regions in one image: of the first no embedding is a number, so that nothing of it can be grouped."""
    maps = Maps(torch.ones(1, 3, 8, 20), torch.zeros(1, 2, 8, 20))
    maps.semantic[0, 1] = -9.0
    maps.semantic[0, 1, 1:7, 1:7] = maps.semantic[0, 1, 1:7, 11:19] = 9.0
    maps.embedding[0, :, :, :9] = torch.nan
    (found,) = method(dimension=3, groups=2, connected=True, min_size=1).group(maps)
    assert len(found) == 1
    assert (found.labels[1:7, 11:19] == 1).all()
