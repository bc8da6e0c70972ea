"""The fast instance loss equals the plain one, in value and in every gradient."""

import math

import numpy as np
import pytest
import torch

from attractor.kernels import lovasz_gaussians as kernel
from attractor.methods.spatial_embeddings import instance_loss_plain

STEP = 1 / 1024


def case(n_images, side, n_objects, *, seed=0, gathered=0.5, margin=(0.3, 1.2)):
    """Discs on a lattice whose pixels point part of the way to their centre; some pixels count for nothing."""
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    embedding = np.tile(np.stack([columns, rows]).astype(np.float64), (n_images, 1, 1, 1))
    owner = np.zeros((n_images, side, side), np.int64)
    across = math.ceil(math.sqrt(n_objects))
    radius = 0.45 * side / across
    centre, concentration, image = [], [], []
    for b in range(n_images):
        for j in range(n_objects if b != 1 else 0):  # the second image, where there is one, is empty
            middle = (np.array([j % across, j // across]) + 0.5) * side / across
            disc = (columns - middle[0]) ** 2 + (rows - middle[1]) ** 2 <= radius**2
            image.append(b)
            owner[b][disc] = len(image)
            embedding[b][:, disc] += gathered * (middle[:, None] - embedding[b][:, disc])
            centre.append(middle + random.normal(size=2))
            concentration.append(math.log(2) / (radius * random.uniform(*margin, 2)) ** 2)
    embedding += random.normal(size=embedding.shape) * radius * 0.2
    owner[random.random(owner.shape) < 0.05] = -1
    numbers = torch.float32
    return (
        torch.tensor(embedding * STEP, dtype=numbers).flatten(2),
        torch.tensor(owner).flatten(1),
        torch.tensor(np.array(centre) * STEP, dtype=numbers),
        torch.tensor(np.array(concentration) / STEP**2, dtype=numbers),
        torch.tensor(image),
        torch.tensor(random.random(len(image)), dtype=numbers),
    )


def plain(embedding, owner, centre, concentration, image, weight):
    total = 0 * embedding.sum()
    for b in range(len(embedding)):
        own = torch.nonzero(image == b)[:, 0]
        if len(own):
            numbers = torch.where(owner[b] > 0, owner[b] - own[0], owner[b])
            total = (
                total
                + (instance_loss_plain(embedding[b], numbers, centre[own], concentration[own]) * weight[own]).sum()
            )
    return total


def with_gradients(loss, embedding, owner, centre, concentration, image, weight):
    leaves = [x.clone().requires_grad_() for x in (embedding, centre, concentration)]
    value = loss(leaves[0], owner, leaves[1], leaves[2], image, weight)
    value.backward()
    return [value.detach(), *(x.grad for x in leaves)]


def largest_difference(ours, theirs):
    return [((a - b).abs().max() / b.abs().max()).item() for a, b in zip(ours, theirs, strict=True)]


@pytest.mark.parametrize("gathered", [0.0, 0.5, 0.95])
@pytest.mark.parametrize(("n_images", "side", "n_objects"), [(1, 24, 1), (3, 40, 9), (2, 96, 30)])
def test_equal_to_the_plain_form(n_images, side, n_objects, gathered):
    given = case(n_images, side, n_objects, gathered=gathered, seed=n_objects)
    expected = with_gradients(plain, *given)
    assert max(largest_difference(with_gradients(kernel.lovasz_gaussians, *given), expected)) < 1e-5


@pytest.mark.parametrize("gathered", [0.0, 0.5, 0.95])
def test_equal_on_any_device(gathered):
    given = case(3, 40, 9, gathered=gathered)
    given = [x.double() if x.is_floating_point() else x for x in given]  # what is not single precision goes this way
    # Here far pixels are dropped although double precision would still see them: 2^-26 of each, and no more.
    differences = largest_difference(with_gradients(kernel.lovasz_gaussians, *given), with_gradients(plain, *given))
    assert max(differences) < 1e-5


def test_ties_are_ordered_as_in_the_plain_form():
    embedding, owner, centre, concentration, image, weight = case(1, 40, 9, gathered=0.0)
    embedding = (embedding / STEP).round() * STEP  # pixels on a lattice: equal distances everywhere
    centre = (centre / STEP).round() * STEP
    concentration = concentration[:, :1].expand(-1, 2).contiguous()
    given = embedding, owner, centre, concentration, image, weight
    expected = with_gradients(plain, *given)
    assert max(largest_difference(with_gradients(kernel.lovasz_gaussians, *given), expected)) < 1e-5


def test_a_few_objects_at_a_time_give_the_same(monkeypatch):
    given = case(1, 96, 30)
    expected = with_gradients(kernel.lovasz_gaussians, *given)
    monkeypatch.setattr(kernel, "BLOCK", 1)
    for found, wanted in zip(with_gradients(kernel.lovasz_gaussians, *given), expected, strict=True):
        assert torch.equal(found, wanted)


def test_embeddings_without_a_value_do_not_hang_or_spread():
    embedding, *others = case(1, 24, 4)
    embedding[0, :, 5] = math.inf
    owner = others[0]
    owner[0, 5] = 0
    value, by_pixel, *_ = with_gradients(kernel.lovasz_gaussians, embedding, *others)
    assert torch.isfinite(value)
    assert by_pixel[0, :, 5].tolist() == [0, 0]


def test_no_object_at_all():
    embedding = torch.zeros(2, 2, 9, requires_grad=True)
    empty = torch.zeros(0, 2)
    value = kernel.lovasz_gaussians(
        embedding, torch.zeros(2, 9, dtype=torch.long), empty, empty, torch.zeros(0, dtype=torch.long), torch.zeros(0)
    )
    value.backward()
    assert value.item() == 0
    assert not embedding.grad.any()


@pytest.mark.parametrize("n_objects", [1, 4, 30])
def test_single_precision_without_numba_is_as_exact(n_objects):
    given = case(1, 96, n_objects)
    found = kernel._by_torch(*(x.detach() for x in given))
    assert max(largest_difference(found, with_gradients(plain, *given))) < 1e-5
