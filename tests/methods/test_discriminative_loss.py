"""The published vectors of the discriminative loss, and the laws of its loss and grouping."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from attractor.errors import InputError
from attractor.methods.discriminative_loss import DiscriminativeLoss, Maps, group_plain
from attractor.truth import Truth

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["vectors"]}
LABELS = torch.tensor([[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 2], [0, 3, 0, 0]], dtype=torch.int32)


def method(**options):
    return DiscriminativeLoss(lambda channels: nn.Conv2d(1, sum(channels), 1), **options)


def truth_of(labels, classes=None, valid=None):
    labels = torch.as_tensor(labels, dtype=torch.int32)
    labels = labels[None] if labels.ndim == 2 else labels
    k = max(1, int(labels.max()))
    classes = torch.ones(len(labels), k, dtype=torch.int64) if classes is None else torch.tensor(classes)
    return Truth(labels, classes, torch.ones_like(labels, dtype=torch.bool) if valid is None else valid)


def maps_of(embedding, n_classes=1):
    embedding = torch.as_tensor(embedding)
    b, _, h, w = embedding.shape
    return Maps(embedding, torch.zeros(b, n_classes + 1, h, w, dtype=embedding.dtype))


def wave():
    """x_c(n) = 1.5 sin(0.8 n + 1.1 c), n = 4 y + x, on a 4x4 image with three channels."""
    n, c = np.arange(16), np.arange(3)
    return torch.tensor(1.5 * np.sin(0.8 * n + 1.1 * c[:, None])).view(1, 3, 4, 4)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("DISC-paper_L2", {}),
        ("DISC-paper_L1", {"norm": 1}),
        ("DISC-paper_L2_delta_v0.25", {"pull_margin": 0.25}),
        ("DISC-one_instance", {}),
        ("DISC-no_instance", {}),
    ],
)
def test_loss_is_that_of_the_vectors(name, options):
    expected = VECTORS[name]["expected"]
    labels = {"DISC-one_instance": LABELS * (LABELS == 1), "DISC-no_instance": LABELS * 0}.get(name, LABELS)
    embedding = wave().requires_grad_()
    own = method(dimension=3, **options)
    terms = own.loss(maps_of(embedding), truth_of(labels))
    for key, ours in (("var", "pull"), ("dist", "push"), ("reg", "regularisation")):
        assert terms[ours].item() == pytest.approx(expected[key], abs=1e-6)
    total = sum(own.weights[key] * terms[key] for key in ("pull", "push", "regularisation"))
    assert total.item() == pytest.approx(expected["total"], abs=1e-6)
    if "grad_abs_sum" in expected:
        total.backward()
        assert embedding.grad.abs().sum().item() == pytest.approx(expected["grad_abs_sum"], abs=1e-6)


def test_it_differs_from_the_published_variants():
    terms = method(dimension=3).loss(maps_of(wave()), truth_of(LABELS))
    total = sum(terms[key].item() for key in ("pull", "push"))
    for variant in VECTORS["DISC-variants"]["expected"].values():
        assert abs(total - variant["var"] - variant["dist"]) > 0.1


def test_classes_are_added_each_on_its_own():
    two = truth_of(LABELS, [[1, 2, 1]])
    own = method(dimension=3, n_classes=2)
    both = own.loss(maps_of(wave(), 2), two)
    first = own.loss(maps_of(wave(), 2), truth_of(LABELS * (LABELS != 2)))
    second = own.loss(maps_of(wave(), 2), truth_of(LABELS * (LABELS == 2)))
    for key in ("pull", "push", "regularisation"):
        assert both[key].item() == pytest.approx((first[key] + second[key]).item())


def test_an_image_without_objects_counts_in_the_mean():
    own = method(dimension=3)
    alone = own.loss(maps_of(wave()), truth_of(LABELS))
    empty = torch.stack([LABELS, LABELS * 0])
    two = own.loss(maps_of(wave().expand(2, -1, -1, -1)), truth_of(empty))
    for key in ("pull", "push", "regularisation"):
        assert two[key].item() == pytest.approx(alone[key].item() / 2)


def test_objects_in_place_are_left_alone():
    labels = np.array([[1, 1, 2, 2]])
    embedding = torch.tensor([[[[0.0, 0.4, 3.4, 3.8]]]]).double().requires_grad_()
    terms = method(dimension=1, regularisation_weight=0.0).loss(maps_of(embedding), truth_of(labels))
    (terms["pull"] + terms["push"]).backward()
    assert terms["pull"] == terms["push"] == 0
    assert not embedding.grad.any()


def test_only_objects_within_reach_are_pushed_apart():
    labels = np.zeros((1, 9), int)
    labels[0, [0, 1]], labels[0, [2, 3]], labels[0, [7, 8]] = 1, 2, 3
    embedding = torch.zeros(1, 1, 1, 9).double()
    near, far = (method(dimension=1, reach=reach).loss(maps_of(embedding), truth_of(labels)) for reach in (1.5, None))
    assert near["push"].item() == far["push"].item() == 9  # the mean over pairs: all lie upon each other
    embedding[0, 0, 0, 2:4] = 3  # 2 is away from its neighbour 1, but 3 still lies upon the distant 1
    near, far = (method(dimension=1, reach=reach).loss(maps_of(embedding), truth_of(labels)) for reach in (1.5, None))
    assert near["push"] == 0
    assert far["push"].item() == pytest.approx(3)


def cluster6():
    """The embedding of the clustering vector: object means, and a small wave."""
    labels = np.array(VECTORS["DISC-CLUSTER6"]["inputs"]["gt"])
    n = np.arange(36).reshape(6, 6)
    means = np.array([(0, 0), (2, 0), (-1.5, 2), (-0.5, -2.5)])[labels]
    wave = np.stack([0.3 * np.sin(1.9 * n), 0.3 * np.cos(2.3 * n)], -1)
    return (means + wave).transpose(2, 0, 1).astype(np.float32), labels


@pytest.mark.parametrize(("bandwidth", "key"), [(1.5, "label_map"), (0.5, "label_map_bandwidth_0_5")])
def test_plain_grouping_gives_the_partition_of_the_vector(bandwidth, key):
    embedding, labels = cluster6()
    mask = labels > 0
    n = int(mask.sum())
    found = np.zeros_like(labels)
    region = torch.ones(n, dtype=torch.int32)
    found[mask] = group_plain(
        torch.from_numpy(embedding[:, mask]), torch.zeros(n), region, bandwidth=bandwidth, min_size=0
    )
    assert np.array_equal(found, VECTORS["DISC-CLUSTER6"]["expected"][key])


def surely(labels, scale=10.0):
    """Logits that are sure of a class map."""
    return torch.from_numpy(np.where(np.stack([labels == 0, labels > 0]), scale, -scale)[None]).float()


def test_grouping_reads_objects_classes_and_scores():
    embedding, labels = cluster6()
    maps = Maps(torch.from_numpy(embedding)[None], surely(labels, 2.0))
    (found,) = method(dimension=2).group(maps)
    partition = {tuple(np.flatnonzero(found.labels == k)) for k in range(1, 4)}
    assert partition == {tuple(np.flatnonzero(labels == k)) for k in range(1, 4)}
    assert found.classes.tolist() == [1, 1, 1]
    assert found.scores == pytest.approx([1 / (1 + np.exp(-4))] * 3)


def test_connected_objects_are_parted_where_their_embeddings_agree():
    labels = np.zeros((4, 9), int)
    labels[:, :4], labels[:, 5:] = 1, 2
    maps = Maps(torch.zeros(1, 2, 4, 9), surely(labels))
    (apart,), (together,) = (method(dimension=2, connected=c).group(maps) for c in (True, False))
    assert len(together) == 1
    assert np.array_equal(apart.labels > 0, labels > 0)
    assert len(apart) == 2


def test_pixels_of_a_group_too_small_go_to_their_neighbour_of_one_piece():
    labels = np.ones((4, 6), int)
    embedding = torch.zeros(1, 1, 4, 6)
    embedding[..., 1, 1] = 9
    maps = Maps(embedding, surely(labels))
    (connected,), (free,) = (method(dimension=1, connected=c, min_size=2).group(maps) for c in (True, False))
    assert (connected.labels == 1).all()
    assert free.labels[1, 1] == 0
    assert (free.labels == 1).sum() == 23


def test_components_of_the_truth_can_be_put_in():
    embedding, labels = cluster6()
    maps = Maps(torch.from_numpy(embedding)[None], torch.zeros(1, 2, 6, 6))  # knows nothing of classes
    own, truth = method(dimension=2, foreground_threshold=0.6), truth_of(labels)
    assert len(own.group(maps)[0]) == 0
    for centres in ("true", "mean-shift"):
        (found,) = own.group_seeded(maps, truth, semantics="true", centres=centres)
        assert {tuple(np.flatnonzero(found.mask(k))) for k in (1, 2, 3)} == {
            tuple(np.flatnonzero(labels == k)) for k in (1, 2, 3)
        }
        assert sum(found.mask(k).sum() for k in (1, 2, 3)) == 25
    with pytest.raises(InputError, match="predicted, true"):
        own.group_seeded(maps, truth, semantics="guessed")


def test_coordinates_are_two_more_channels():
    seen = []

    class Network(nn.Module):
        def __init__(self, channels_out, extra_channels=0):
            super().__init__()
            self.layer = nn.Conv2d(1 + extra_channels, sum(channels_out), 1)

        def forward(self, x):
            seen.append(x)
            return self.layer(x)

    own = DiscriminativeLoss(Network, coordinates="input")
    own(torch.zeros(2, 1, 3, 5))
    assert seen[0].shape == (2, 3, 3, 5)
    assert seen[0][1, 1, :, 0].tolist() == [-1, 0, 1]
    assert seen[0][1, 2, 0].tolist() == [-1, -0.5, 0, 0.5, 1]
    assert not own.tileable


def test_candidates_of_the_bandwidth_grow_with_the_margin():
    for push_margin in (0.6, 1.5, 8.0):
        own = method(push_margin=push_margin)
        for bandwidth in own.threshold_candidates["bandwidth"]:
            assert method(push_margin=push_margin, bandwidth=bandwidth)
        assert any(bandwidth == pytest.approx(push_margin) for bandwidth in own.threshold_candidates["bandwidth"])


def test_a_position_can_be_part_of_the_embedding():
    own = method(dimension=2, coordinates="output", coordinate_scale=4.0)
    embedding, _ = own.decode(Maps(torch.ones(1, 2, 3, 5), torch.zeros(1, 2, 3, 5)))
    assert embedding[0, 0, :, 0].tolist() == [1, 1.25, 1.5]
    assert embedding[0, 1, 0].tolist() == [1, 1.25, 1.5, 1.75, 2]
    labels = np.zeros((4, 40), np.int32)
    labels[:, :4], labels[:, 30:] = 1, 2
    given = maps_of(torch.zeros(1, 2, 4, 40)), truth_of(labels)
    assert own.loss(*given)["push"] == 0  # apart by where they are
    assert method(dimension=2).loss(*given)["push"] == 9
    assert own.loss(*given)["regularisation"] == 0  # where the image begins is nobody's business


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"dimension": 0}, "1 to 256"),
        ({"norm": 3}, "norm 1 or 2"),
        ({"pull_margin": 2.0}, "below the second"),
        ({"bandwidth": 4.0}, "between 0.015 and 3"),
        ({"bandwidth": 0.0}, "between 0.015 and 3"),
        ({"reach": 0.0}, "above 0"),
        ({"coordinates": "both"}, "none, input, output"),
        ({"coordinates": "output", "coordinate_scale": 0.0}, "between 0.001 and"),
        ({"class_weights": [1.0]}, "give 2"),
    ],
)
def test_numbers_out_of_range_are_refused(options, words):
    with pytest.raises(InputError, match=words):
        method(**options)
