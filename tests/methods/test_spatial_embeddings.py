"""The published vectors of spatial embeddings, and the laws of its loss and grouping."""

import copy
import hashlib
import json
import math
import weakref
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn

from attractor.augmentation import VIEWS
from attractor.errors import InputError
from attractor.kernels.medoids import medoids
from attractor.losses import lovasz_hinge
from attractor.methods.points import joined_parts
from attractor.methods.spatial_embeddings import Maps, SpatialEmbeddings, class_weights, group_plain
from attractor.networks import ERFNet
from attractor.statistics import ObjectStatistics
from attractor.truth import Truth

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parents[1] / "vectors.json").read_text())["vectors"]}


def vectors(prefix):
    """Parameters for every vector whose id begins so."""
    chosen = [v for name, v in VECTORS.items() if name.startswith(prefix)]
    assert chosen
    return [pytest.param(v, id=v["id"]) for v in chosen]


class Given(nn.Module):
    """Stands where a network would: last layers that can be initialised."""

    def __init__(self, channels_out):
        super().__init__()
        self.heads = nn.ModuleList(nn.ConvTranspose2d(16, n, 2, stride=2) for n in channels_out)


def method(**options):
    return SpatialEmbeddings(Given, **options)


def truth_of(labels, classes=None, valid=None):
    labels = torch.tensor(labels, dtype=torch.int32)
    k = max(int(labels.max()), 1)
    classes = torch.ones(len(labels), k, dtype=torch.int32) if classes is None else torch.tensor(classes)
    valid = torch.ones_like(labels, dtype=torch.bool) if valid is None else torch.tensor(valid)
    return Truth(labels, classes, valid)


def formula_maps(b, n_sigma):
    """The raw maps of the loss vectors, 4x4, one image of the batch or both."""
    n = torch.arange(16, dtype=torch.float64).view(4, 4)
    offset = [0.002 * torch.sin(1.7 * n + 0.3 * (c + 1) + b) for c in (1, 0)]  # vectors have (x, y)
    sigma = [1.25 + 0.05 * torch.sin(0.9 * n + 0.5 * (j + 1) + b) for j in reversed(range(n_sigma))]
    seed = 2 * torch.sin(0.6 * n + b + 1)
    sigma = torch.stack(sigma)[None] if sigma else torch.zeros(1, 0, 4, 4, dtype=torch.float64)
    return Maps(torch.stack(offset)[None], sigma, seed[None, None])


def centres(labels, n):
    """Mean row and column of the pixels of each of n objects."""
    return np.array(ndimage.center_of_mass(labels > 0, labels, range(1, n + 1)))


def as_published(channels, n_sigma):
    """Channels of all maps in the order of the vectors, which have (x, y)."""
    offset, sigma, seed = channels.split([2, n_sigma, 1], 1)
    return torch.cat([offset.flip(1), sigma.flip(1), seed], 1)


def stacked(parts):
    maps = Maps(*(torch.cat([getattr(p, f) for p in parts]) for f in ("offset", "sigma", "seed")))
    for f in ("offset", "sigma", "seed"):
        getattr(maps, f).requires_grad_()
    return maps


def images_of(vector):
    return {"B2": (0, 1), "image0": (0,), "image1": (1,)}[vector["id"].rsplit("-", 1)[1]]


@pytest.mark.parametrize("vector", vectors("SE-LOV-"))
def test_lovasz_hinge(vector):
    scores = torch.tensor(vector["inputs"]["logits"], dtype=torch.float64, requires_grad=True)
    loss = lovasz_hinge(scores, torch.tensor(vector["inputs"]["labels"]) > 0)
    loss.backward()
    assert loss.item() == pytest.approx(vector["expected"]["loss"], abs=1e-6)
    np.testing.assert_allclose(scores.grad, vector["expected"]["grad_wrt_logits"], atol=1e-6)


@pytest.mark.parametrize("vector", vectors("SE-LOSS-"))
def test_loss(vector):
    given, expected = vector["inputs"], vector["expected"]
    n_sigma = given["n_sigma"]
    step = given["coordinate_step"]
    se = method(
        margin={1: "circular", 2: "elliptical"}[n_sigma], centre=given["center"], grid_step=(step["dy"], step["dx"])
    )
    maps = stacked([formula_maps(b, n_sigma) for b in images_of(vector)])
    terms = se.loss(maps, truth_of(given["instances"]))
    total = sum(se.weights[name] * value for name, value in terms.items())
    total.backward()
    for ours, theirs in (("instance", "inst"), ("smoothness", "var"), ("seed", "seed")):
        assert terms[ours].item() == pytest.approx(expected[theirs], abs=1e-6)
    assert total.item() == pytest.approx(expected["total"], abs=1e-6)
    grad = torch.cat([maps.offset.grad, maps.sigma.grad, maps.seed.grad], 1)
    # Steps are given to ten digits, and one grid unit is 1024 pixels: the gradients carry a relative 1e-6.
    grad = as_published(grad, n_sigma)
    np.testing.assert_allclose(grad.abs().sum((0, 2, 3)), expected["grad_abs_sum_per_channel"], rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(grad.sum((0, 2, 3)), expected["grad_sum_per_channel"], rtol=1e-6, atol=2e-5)


def test_loss_with_medoids():
    vector = VECTORS["ES-LOSS"]
    given, expected = vector["inputs"], vector["expected"]
    step = given["coordinate_step"]
    maps = stacked([formula_maps(b, 2) for b in (0, 1)])
    totals = {}
    for centre in ("medoid", "centroid"):
        se = method(centre=centre, grid_step=(step["dy"], step["dx"]))
        terms = se.loss(maps, truth_of(given["instances"]))
        totals[centre] = sum(se.weights[name] * value for name, value in terms.items())
        if centre == "medoid":
            for ours, theirs in (("instance", "inst"), ("smoothness", "var"), ("seed", "seed")):
                assert terms[ours].item() == pytest.approx(expected[theirs], abs=1e-6)
    assert totals["medoid"].item() == pytest.approx(expected["total"], abs=1e-6)
    assert totals["centroid"].item() == pytest.approx(
        expected["total_if_center_image_empty_fallback_centroid"], abs=1e-6
    )
    totals["medoid"].backward()
    grad = torch.cat([maps.offset.grad, maps.sigma.grad, maps.seed.grad], 1)
    grad = as_published(grad, 2).abs().sum((0, 2, 3))
    np.testing.assert_allclose(grad, expected["grad_abs_sum_per_channel"], rtol=1e-6)


def test_centre_pixels():
    vector = VECTORS["ES-CENTRE"]
    labels = torch.tensor(vector["inputs"]["instances"], dtype=torch.int32)
    expected = vector["expected"]
    assert medoids(labels[None], 3).tolist() == expected["medoid"]
    assert medoids(labels[None], 3, approximate=True).tolist() == expected["approximate-medoid"]
    assert np.round(centres(labels.numpy(), 3)).astype(int).tolist() == expected["centroid"]


def test_regression_and_hinge_baselines():
    vector = VECTORS["SE-BASE-reg-hinge"]
    maps = stacked([formula_maps(0, 0)])
    truth = truth_of(vector["inputs"]["instances"])
    regression = method(objective="regression", margin="fixed", centre="centroid")
    expected = vector["expected"]
    assert 8 * regression.loss(maps, truth)["instance"].item() == pytest.approx(expected["regression_sum_px"], abs=1e-6)
    for delta, values in expected["hinge"].items():
        hinge = method(objective="hinge", margin="fixed", centre="centroid", fixed_margin=float(delta))
        loss = hinge.loss(maps, truth)["instance"].item()
        assert loss == pytest.approx(values["hinge_mean_px"], abs=1e-6)
        assert 8 * loss == pytest.approx(values["hinge_sum_px"], abs=1e-6)


@pytest.mark.parametrize("vector", vectors("SE-BASE-fixed"))
def test_fixed_margin(vector):
    pixels = float(vector["id"].split("-")[-1].removesuffix("px"))
    se = method(margin="fixed", centre="centroid", fixed_margin=pixels)
    assert se._sigma_of(pixels) == pytest.approx([vector["inputs"]["raw_s"]] * 2, abs=1e-9)
    terms = se.loss(stacked([formula_maps(0, 0)]), truth_of(vector["inputs"]["instances"]))
    assert terms["instance"].item() == pytest.approx(vector["expected"]["inst"], abs=1e-6)
    assert terms["seed"].item() == pytest.approx(vector["expected"]["seed"], abs=1e-6)
    assert "smoothness" not in terms


def test_constants():
    expected = VECTORS["SE-CONST"]["expected"]
    se = method()
    for pixels, raw in expected["raw_s_for_margin_px"].items():
        assert se._sigma_of(float(pixels)) == pytest.approx((raw, raw), abs=1e-9)
    assert se._sigma_of(expected["init_s1_margin_px"]) == pytest.approx((1, 1), abs=1e-9)
    assert expected["init_s1_margin_px"] / math.sqrt(2 * math.log(2)) == pytest.approx(
        expected["init_s1_sigma_px"], abs=1e-8
    )
    assert 10 * expected["fp16_overflow_s"] == pytest.approx(math.log(torch.finfo(torch.float16).max), abs=1e-4)


def maps_of(raw, n_sigma):
    offset, sigma, seed = torch.tensor(raw, dtype=torch.float64)[None].split([2, n_sigma, 1], 1)
    return Maps(offset, sigma, seed)


def maps_of_vector(raw):
    """Maps of the vectors, whose channels are (x, y)."""
    maps = maps_of(raw, 2)
    return Maps(maps.offset.flip(1), maps.sigma.flip(1), maps.seed)


@pytest.mark.parametrize("vector", vectors("SE-CLUST8-seed"))
def test_grouping(vector):
    given = vector["inputs"]
    se = method(
        grid_step=(1 / 1023, 1 / 1023),
        seed_threshold=given["seed_thresh"],
        foreground_threshold=given["fg_thresh"],
        min_size=given["min_object_size"] + 1,  # "more than" there
    )
    maps = maps_of_vector(given["prediction"])
    (found,) = se.group(maps)
    assert found.labels.tolist() == vector["expected"]["label_map"]


def test_in_the_seed_loss_objects_count_alike_if_asked_for():
    labels = np.zeros((1, 8, 8), np.int32)
    labels[0, :4, :6], labels[0, 6:, 6:] = 1, 2  # 24 and 4 pixels
    offset = torch.zeros(1, 2, 8, 8)
    maps = Maps(offset, offset, torch.zeros(1, 1, 8, 8, requires_grad=True))
    gradients = {}
    for mean in ("pixels", "objects"):
        (gradients[mean],) = torch.autograd.grad(method(seed_mean=mean).loss(maps, truth_of(labels))["seed"], maps.seed)
    ratio = (gradients["objects"] / gradients["pixels"])[0, 0]
    expected = torch.ones(8, 8)
    expected[:4, :6], expected[6:, 6:] = 14 / 24, 14 / 4  # the mean area, over its own
    torch.testing.assert_close(ratio, expected)


def test_seed_scores_learn_how_deep_in_its_object_a_pixel_lies_if_asked_for():
    labels = np.zeros((1, 7, 9), np.int32)
    labels[0, 1:6, 1:6], labels[0, 1:6, 6:8] = 1, 2  # a square of 5, and a strip of 2 that touches it
    deep = torch.zeros(7, 9, dtype=torch.float64)
    deep[1:6, 1:6], deep[2:5, 2:5], deep[3, 3] = 1 / 3, 2 / 3, 1.0
    deep[1:6, 6:8] = 1.0
    target = torch.where(torch.from_numpy(labels[0]) > 0, (1 + deep) / 2, 0)
    offset = torch.zeros(1, 2, 7, 9)
    maps = Maps(offset, offset, torch.logit(target)[None, None].float())
    assert method(seed_target="distance").loss(maps, truth_of(labels))["seed"] < 1e-12
    assert method().loss(maps, truth_of(labels))["seed"] > 0.1


def test_in_the_first_epochs_seeds_are_learned_alone_if_asked_for():
    labels = VECTORS["SE-LOSS-grid1024-ns2-learnable-image0"]["inputs"]["instances"]
    se, maps = method(seed_epochs=2), stacked([formula_maps(0, 2)])
    plain = {name: term.item() for name, term in method().loss(maps, truth_of(labels)).items()}
    for epoch, alone in ((0, True), (1, True), (2, False)):
        se.at_epoch(epoch)
        found = {name: term.item() for name, term in se.loss(maps, truth_of(labels)).items()}
        assert found == ({name: 0 for name in plain} | {"seed": plain["seed"]} if alone else plain)


def test_seeded_grouping():
    vector = VECTORS["SE-CLUST8-gtseeded"]
    se = method(grid_step=(1 / 1023, 1 / 1023))
    maps = maps_of_vector(VECTORS["SE-CLUST8-seed0.9_fg0.5_min0"]["inputs"]["prediction"])
    (found,) = se.group_seeded(maps, truth_of([vector["inputs"]["gt"]]))
    painted = np.zeros((8, 8), int)  # the vector's map: overlapping pixels go to the later object
    for k in range(1, len(found) + 1):
        painted[found.mask(k)] = k
    assert painted.tolist() == vector["expected"]["label_map"]
    concentration = np.exp(10 * maps.sigma[0, :, 0, 0].numpy())
    assert np.sqrt(np.log(2) / concentration)[::-1] * 1023 == pytest.approx(
        vector["expected"]["margin_px_xy"], abs=1e-6
    )


def test_grouping_of_the_published_code():
    vector = VECTORS["SE-CLUST48"]
    y, x = np.mgrid[:48, :48].astype(np.float64)
    n = 48 * y + x
    target = np.stack([y, x])
    seed = np.full((48, 48), 0.05)
    for (cx, cy, r), p in zip([(12, 12, 9), (34, 32, 10), (36, 8, 5)], (0.99, 0.97, 0.98), strict=True):
        square = (x - cx) ** 2 + (y - cy) ** 2
        disc = square <= r**2
        target[:, disc] = np.array([cy, cx])[:, None]
        seed[disc] = 0.6 + (p - 0.6) * np.exp(-square[disc] / 50)
    target += np.stack([0.5 * np.cos(1.3 * n), 0.5 * np.sin(1.1 * n)])
    step = np.array([1 / 1023, 2 / 2047])[:, None, None]
    offset = np.arctanh((target - np.stack([y, x])) * step)
    sigma = (1.1 + 0.02 * np.sin(0.01 * n))[None]
    maps = maps_of(np.concatenate([offset, sigma, np.log(seed / (1 - seed))[None]]), 1)
    se = method(
        margin="circular",
        grid_step=(1 / 1023, 2 / 2047),
        seed_threshold=0.9,
        min_size=129,
        min_foreground=128,
        min_free=128,
    )
    (found,) = se.group(maps)
    expected = vector["expected"]
    assert np.bincount(found.labels.ravel()).tolist() == list(expected["counts"].values())
    np.testing.assert_allclose(found.scores, expected["scores"], atol=1e-6)
    assert hashlib.sha256(found.labels.astype(np.uint8).tobytes()).hexdigest() == expected["sha256_uint8_Corder"]


def perfect_maps(labels, classes=None, n_classes=1):
    """Maps of somebody who knows the answer: every pixel points at its object's centre."""
    h, w = labels.shape
    offset = torch.zeros(1, 2, h, w)
    seed = torch.full((1, n_classes, h, w), -8.0)
    for k, (row, column) in enumerate(centres(labels, int(labels.max())), 1):
        rows, columns = np.nonzero(labels == k)
        offset[0, 0, rows, columns] = torch.tensor(row - rows, dtype=torch.float32) / 1024
        offset[0, 1, rows, columns] = torch.tensor(column - columns, dtype=torch.float32) / 1024
        seed[0, 0 if classes is None else classes[k - 1] - 1, rows, columns] = 6
    return Maps(torch.atanh(offset), torch.full((1, 2, h, w), 1.2), seed)


def test_three_hundred_objects_keep_their_labels():
    labels = np.zeros((40, 120), np.int32)
    for k in range(300):
        row, column = divmod(k, 30)
        labels[4 * row : 4 * row + 3, 4 * column : 4 * column + 3] = k + 1
    (found,) = method().group(perfect_maps(labels))
    assert len(found) == 300
    assert len(np.unique(found.labels[labels > 0])) == 300


def test_classes_are_grouped_on_their_own():
    labels = np.zeros((12, 24), np.int32)
    labels[2:9, 2:9], labels[2:9, 13:20] = 1, 2
    (found,) = method(n_classes=2).group(perfect_maps(labels, classes=[2, 1], n_classes=2))
    assert found.classes[found.labels[5, 5] - 1] == 2
    assert found.classes[found.labels[5, 16] - 1] == 1


def test_where_two_classes_claim_a_pixel_the_higher_seed_wins():
    labels = np.zeros((12, 12), np.int32)
    labels[2:9, 2:9] = 1
    maps = perfect_maps(labels, classes=[2], n_classes=2)
    maps.seed[0, 0] = torch.where(maps.seed[0, 1] > 0, 3.0, -8.0)  # the other class claims it too, less surely
    (found,) = method(n_classes=2).group(maps)
    assert found.classes.tolist() == [2]


def test_one_pixel_is_an_object_only_when_its_seed_counts():
    labels = np.zeros((8, 8), np.int32)
    labels[3, 4] = 1
    maps = perfect_maps(labels)
    assert len(method().group(maps)[0]) == 0
    assert len(method(count_seed=True).group(maps)[0]) == 1


def test_first_object_keeps_its_pixels_without_overwriting():
    embedding = torch.tensor([[[0.0, 0.6, 1.2, 2.0]], [[0.0, 0.0, 0.0, 0.0]]])
    concentration = torch.full(
        (2, 1, 4), math.log(2) / 0.9**2
    )  # a margin of 0.9: the first claims two, the third three
    seed = torch.tensor([[0.9, 0.6, 0.8, 0.7]])
    rules = {"foreground_threshold": 0.5, "seed_threshold": 0.5, "min_size": 0, "min_foreground": 0, "min_free": 0}
    for overwrite, expected in ((True, [[1, 2, 2, 2]]), (False, [[1, 1, 2, 2]])):
        labels, scores = group_plain(embedding, concentration, seed, count_seed=True, overwrite=overwrite, **rules)
        assert labels.tolist() == expected
        assert scores.tolist() == pytest.approx([0.9, 0.8])


def overlapping(n_classes=1):
    """A row of pixels that point at themselves and claim two on either side, and two of them that begin objects."""
    sigma = torch.full((1, 2, 1, 8), math.log(math.log(2) / (2.5 / 1024) ** 2) / 10)
    seed = torch.tensor([0.6, 0.6, 0.9, 0.6, 0.6, 0.8, 0.6, 0.6]).logit().expand(1, n_classes, 1, 8)
    return Maps(torch.zeros(1, 2, 1, 8), sigma, seed)


@pytest.mark.parametrize(("overwrite", "labels"), [(True, [1, 1, 1, 2, 2, 2, 2, 2]), (False, [1, 1, 1, 1, 1, 2, 2, 2])])
def test_objects_that_claim_the_same_pixels_keep_whole_masks_if_asked_for(overwrite, labels):
    options = {"count_seed": True, "seed_threshold": 0.7, "overwrite": overwrite}
    (cut,), (whole,) = (method(whole_masks=asked, **options).group(overlapping()) for asked in (False, True))
    assert cut.labels.tolist() == whole.labels.tolist() == [labels]
    assert cut.scores.tolist() == whole.scores.tolist() == pytest.approx([0.9, 0.8])
    assert cut.masks is None
    assert whole.mask(1).astype(int).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert whole.mask(2).astype(int).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]


def test_whole_masks_are_given_only_where_some_overlap():
    labels = np.zeros((16, 24), np.int32)
    labels[2:9, 2:9], labels[2:9, 10:17] = 1, 2
    (found,) = method(whole_masks=True).group(perfect_maps(labels))
    assert found.masks is None
    assert np.array_equal(found.labels, labels)


def test_an_object_that_another_class_hides_is_left_out_and_takes_no_others_mask():
    maps = overlapping(n_classes=2)
    seed = maps.seed.clone()
    seed[0, 1, 0] = torch.tensor([-9.0] * 3 + [1.0, 1.0, 3.0, 1.0, 1.0])  # the other class is surer of one object
    options = {"n_classes": 2, "count_seed": True, "seed_threshold": 0.7}
    (found,) = method(whole_masks=True, **options).group(Maps(maps.offset, maps.sigma, seed))
    assert found.labels.tolist() == [[1, 1, 1, 2, 2, 2, 2, 2]]
    assert found.classes.tolist() == [1, 2]
    assert found.mask(1).astype(int).tolist() == [[1, 1, 1, 1, 1, 0, 0, 0]]
    assert found.mask(2).astype(int).tolist() == [[0, 0, 0, 1, 1, 1, 1, 1]]


def test_whole_masks_of_strips_are_those_of_the_image():
    options = {"count_seed": True, "seed_threshold": 0.7, "whole_masks": True, "grid_step": (1 / 1024, 1 / 1024)}
    se, maps = method(**options), overlapping()
    maps = Maps(*(values.mT.contiguous() for values in vars(maps).values()))  # a column, so that strips cut it
    parts = []
    for rows in (slice(0, 3), slice(3, 8)):
        strip = Maps(*(x[:, :, rows] for x in vars(maps).values()))
        parts.append(((rows, slice(0, 1)), se.gathered(strip, corner=(rows.start, 0))))
    found = se.group_gathered(joined_parts(parts, (slice(0, 8), slice(0, 1))), (8, 1)).found
    (expected,) = se.group(maps)
    assert np.array_equal(found.labels, expected.labels)
    assert (
        [runs.tolist() for runs in found.masks] == [runs.tolist() for runs in expected.masks] == [[0, 5, 3], [3, 5, 0]]
    )


def test_regression_gives_pixels_to_the_nearest_centroid():
    labels = np.zeros((8, 24), np.int32)
    labels[2:6, 1:11], labels[2:6, 12:22] = 1, 2
    se = method(objective="regression", margin="fixed", centre="centroid", fixed_margin=2.0)
    maps = perfect_maps(labels)
    maps = Maps(maps.offset * 0.7, maps.sigma[:, :0], maps.seed)  # only part of the way: a margin of 2 misses the ends
    (found,) = se.group(maps)
    assert np.array_equal(found.labels > 0, labels > 0)
    (seeded,) = se.group_seeded(maps, truth_of(labels[None]))
    assert np.array_equal(seeded.labels, labels)


def test_loss_of_many_images_is_the_mean_of_their_losses():
    maps = stacked([formula_maps(b, 2) for b in (0, 1)])
    labels = VECTORS["SE-LOSS-grid1024-ns2-learnable-B2"]["inputs"]["instances"]
    se = method()
    together = se.loss(maps, truth_of(labels))
    for name, value in together.items():
        alone = [se.loss(stacked([formula_maps(b, 2)]), truth_of(labels[b : b + 1]))[name] for b in (0, 1)]
        assert value.item() == pytest.approx(sum(x.item() for x in alone) / 2)


def test_gaps_in_the_labels_do_not_matter():
    labels = torch.tensor(VECTORS["SE-LOSS-grid1024-ns2-learnable-image0"]["inputs"]["instances"], dtype=torch.int32)
    maps = stacked([formula_maps(0, 2)])
    se = method()
    expected = se.loss(maps, truth_of(labels.tolist()))
    renamed = torch.tensor([0, 7, 2, 5])[labels.long()].tolist()
    for name, value in se.loss(maps, truth_of(renamed)).items():
        assert value.item() == pytest.approx(expected[name].item(), abs=1e-12)


def test_foreground_weight_is_that_of_the_class():
    maps = stacked([formula_maps(0, 2)])
    maps = Maps(maps.offset, maps.sigma, maps.seed.repeat(1, 2, 1, 1))
    labels = VECTORS["SE-LOSS-grid1024-ns2-learnable-image0"]["inputs"]["instances"]

    def seed_loss(weights, classes):
        return method(n_classes=2, foreground_weight=weights).loss(maps, truth_of(labels, classes))["seed"].item()

    assert seed_loss((10.0, 3.0), [[2, 2, 2]]) == pytest.approx(seed_loss((3.0, 99.0), [[1, 1, 1]]))
    assert seed_loss((10.0, 3.0), [[2, 2, 2]]) != pytest.approx(seed_loss((10.0, 4.0), [[2, 2, 2]]))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"margin": "round"}, 'margin = "round" is not known; it can be fixed, circular, elliptical'),
        ({"centre": "middle"}, 'centre = "middle" is not known'),
        ({"objective": "l2"}, 'objective = "l2" is not known'),
        ({"seed_target": "depth"}, 'seed_target = "depth" is not known; it can be gaussian, distance'),
        ({"seed_epochs": -1}, "seed_epochs"),
        ({"objective": "hinge"}, 'learns no bandwidth and no centre: use it with margin = "fixed"'),
        ({"n_classes": 3, "foreground_weight": (1.0, 2.0)}, "foreground_weight has 2 numbers for 3 classes"),
        (
            {"objective": "regression", "margin": "fixed", "centre": "centroid", "whole_masks": True},
            'objective = "regression" gives each pixel to one object, so no masks overlap',
        ),
    ],
)
def test_options_that_cannot_be(options, message):
    with pytest.raises(InputError, match=message):
        method(**options)


def test_views_that_move_all_embeddings_differently_keep_the_objects():
    labels = np.zeros((16, 24), np.int32)
    labels[2:9, 2:9], labels[2:9, 10:17] = 1, 2
    se, maps = method(), perfect_maps(labels)
    moved = [torch.tensor([x, y])[None, :, None, None] for x, y in ((0.9, 0.2), (-0.9, 0.1), (-0.3, 0.7), (0.3, -0.95))]
    views = [
        Maps(torch.atanh((torch.tanh(maps.offset) + by).clamp(-0.999, 0.999)), maps.sigma, maps.seed) for by in moved
    ]
    expected, _, _ = se.decode(maps)
    found, _, _ = se.decode(se.averaged(views))
    shift = (found - expected).flatten(2)
    torch.testing.assert_close(shift, shift[..., :1].expand_as(shift), atol=1e-5, rtol=0)
    assert np.array_equal(se.group(se.averaged(views))[0].labels, labels)


def drawn_maps(dtype):
    return Maps(*(torch.rand(1, n, 4, 6).to(dtype) for n in (2, 2, 1)))


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_mean_of_views_is_that_of_their_seeds_bandwidths_and_bounded_offsets(dtype):
    views = [drawn_maps(dtype) for _ in range(3)]
    before = copy.deepcopy(views)
    mean = method().averaged(views)
    assert mean.seed.dtype == torch.promote_types(dtype, torch.float32)
    for name in ("sigma", "seed"):
        expected = torch.stack([getattr(view, name).double() for view in views]).mean(0)
        torch.testing.assert_close(getattr(mean, name).double(), expected, atol=1e-6, rtol=0)
    expected = torch.stack([torch.tanh(view.offset).double() for view in views]).mean(0)
    torch.testing.assert_close(torch.tanh(mean.offset).double(), expected, atol=1e-6, rtol=0)
    assert all(torch.equal(view.seed, own.seed) for view, own in zip(views, before, strict=True))


def test_views_are_averaged_without_holding_two_at_once():
    held = []

    def made():
        maps = drawn_maps(torch.float32)
        held.extend(weakref.ref(values) for values in vars(maps).values())
        return maps

    def views():
        for _ in range(3):
            assert not any(ref() is not None for ref in held)
            yield made()

    method().averaged(views())
    assert len(held) == 9


def test_untrained_network_points_nowhere_with_the_given_margin():
    se = SpatialEmbeddings(lambda outputs: ERFNet(1, outputs), initial_margin=8.0, grid_step=(1 / 512, 1 / 512)).eval()
    maps = se(torch.rand(1, 1, 16, 16))
    embedding, concentration, _ = se.decode(maps)
    torch.testing.assert_close(embedding[0], se.coordinates(maps.offset))
    assert torch.sqrt(math.log(2) / concentration).mean().item() * 512 == pytest.approx(8.0, rel=1e-5)


def test_rare_classes_weigh_more_and_the_most_frequent_has_the_papers_weight():
    """1 / ln(1.02 + .08) = 10.49 and 1 / ln(1.02) = 50.50, in tens of the first."""
    assert class_weights(np.array([0.08, 0.0])) == [10.0, 48.1]


def test_suggested_class_weights_come_one_a_class_also_without_objects():
    statistics = ObjectStatistics(
        areas=np.array([50, 50]),
        extents=np.array([[7, 7], [7, 7]]),
        image_sizes=np.array([[100, 100]]),
        classes=np.array([1, 1]),
        n_classes=3,
    )
    options = SpatialEmbeddings.suggestions(statistics)["model"]["options"]
    assert options["foreground_weight"] == [10.0, 14.9, 14.9]


@pytest.mark.parametrize("n_classes", [1, 3])
def test_objects_of_a_single_class_start_where_the_seed_score_is_sure(n_classes):
    statistics = ObjectStatistics(
        areas=np.array([50, 50]),
        extents=np.array([[7, 7], [7, 7]]),
        image_sizes=np.array([[100, 100]]),
        classes=np.array([1, 1]),
        n_classes=n_classes,
    )
    own = method(**SpatialEmbeddings.suggestions(statistics)["model"]["options"], n_classes=n_classes)
    assert own.thresholds["seed_threshold"] == (0.9 if n_classes == 1 else 0.5)


def test_what_another_class_leaves_of_an_object_must_be_large_enough_too():
    """A square of class 1 with 36 pixels, of which a better one of class 2 takes all but a column of six."""
    labels = np.zeros((10, 10), np.int32)
    labels[2:8, 2:8] = 1
    maps = perfect_maps(labels, classes=[1], n_classes=2)
    maps.seed[0, 1] = maps.seed[0, 0]
    maps.seed[0, 1, :, 2] = -20  # but for that column
    maps.seed[0, 1] += 0.5 * (maps.seed[0, 1] > 0)
    for min_size, sizes in ((6, {6, 30}), (7, {30})):
        (found,) = method(n_classes=2, min_size=min_size).group(maps)
        assert set(np.bincount(found.labels.ravel())[1:].tolist()) == sizes


@pytest.mark.parametrize("view", VIEWS, ids=str)
@pytest.mark.parametrize("margin", ["elliptical", "circular", "fixed"])
def test_views_of_an_image_whose_grid_steps_differ_are_turned_in_pixels(margin, view):
    """The loss of any maps of a view is that of the maps turned back: nothing is stretched on the way."""
    options = {"centre": "centroid"} if margin == "fixed" else {}
    se = method(margin=margin, grid_step=(1 / 256, 1 / 1024), fixed_margin=6.0, **options)
    labels = np.zeros((1, 18, 22), np.int32)
    labels[0, 2:8, 3:12], labels[0, 9:16, 10:20] = 1, 2
    truth = truth_of(labels)
    seen = Truth(view.apply(truth.labels), truth.classes, truth.valid.new_ones(view.apply(truth.valid).shape))
    h, w = seen.labels.shape[-2:]
    n_sigma = {"elliptical": 2, "circular": 1, "fixed": 0}[margin]
    torch.manual_seed(0)
    offset = 0.01 * torch.randn(1, 2, h, w).double()
    maps = Maps(offset, 0.8 + 0.05 * torch.randn(1, n_sigma, h, w).double(), torch.randn(1, 1, h, w).double())
    step = torch.tensor(se.grid_step)[:, None, None]
    turned = se.turned(maps, view)
    pixels = [torch.tanh(m.offset) / step for m in (maps, turned)]  # as long in pixels as before
    torch.testing.assert_close(view.undo(pixels[0].norm(dim=1)), pixels[1].norm(dim=1))
    if view.quarter_turns % 2 == 0 or margin == "fixed":
        expected, found = se.loss(maps, seen), se.loss(turned, truth)
        for term, value in expected.items():
            torch.testing.assert_close(found[term], value)


@pytest.mark.parametrize("margin", ["elliptical", "circular", "fixed"])
@pytest.mark.parametrize("factors", [(1, 1), (2, 2), (0.5, 0.5), (2, 0.5)], ids=str)
def test_maps_of_a_magnified_image_say_the_same_of_the_image(margin, factors):
    """All pixels point at one place of the image, from where the margin reaches nine pixels down and six across."""
    se = method(margin=margin, fixed_margin=9.0)
    h, w = 40, 48
    place, reach = np.array([17.0, 21.5]), np.array([9.0, 6.0 if margin == "elliptical" else 9.0])

    def maps_at(factors):
        seen = [round(n * factor) for n, factor in zip((h, w), factors, strict=True)]
        position = np.stack(np.meshgrid(*map(np.arange, seen), indexing="ij"))
        target = (place + 0.5) * factors - 0.5  # whole numbers are the middles of pixels
        offset = np.arctanh((target[:, None, None] - position) / 1024)
        sigma = np.log(math.log(2) / (reach * factors / 1024) ** 2) / 10
        sigma = {"elliptical": sigma, "circular": sigma.mean(keepdims=True), "fixed": sigma[:0]}[margin]
        sigma = np.broadcast_to(sigma[:, None, None], (len(sigma), *seen))
        return Maps(*(torch.tensor(x)[None] for x in (offset, sigma, np.full((1, *seen), 2.0))))

    found, expected = se.resampled(maps_at(factors), (h, w)), maps_at((1, 1))
    inside = (..., slice(2, -2), slice(2, -2))  # beyond the middles of the outermost pixels nothing is known
    for ours, true in zip(vars(found).values(), vars(expected).values(), strict=True):
        torch.testing.assert_close(ours[inside], true[inside])


def test_a_fixed_margin_is_one_in_pixels_along_both_axes():
    se = method(margin="fixed", centre="centroid", fixed_margin=6.0, grid_step=(1 / 256, 1 / 1024))
    zeros = torch.zeros(1, 2, 4, 4, dtype=torch.float64)
    _, concentration, _ = se.decode(Maps(zeros, zeros[:, :0], zeros[:, :1]))
    margin = torch.sqrt(math.log(2) / concentration[0, :, 0, 0]) / torch.tensor(se.grid_step)
    assert margin.tolist() == pytest.approx([6.0, 6.0])
