"""Volumes: the published vectors, and the law that a volume of one slice gives what an image gives."""

import io
import json
import math
import zipfile
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from torch import nn

from attractor.augmentation import VIEWS, Augmentation, View, views_of
from attractor.datasets import Crops, open_dataset
from attractor.datasets.checking import check
from attractor.datasets.converting import convert
from attractor.datasets.imagej import encode_rois
from attractor.description import Description, read_description
from attractor.errors import InputError
from attractor.evaluation import evaluate_model
from attractor.images import n_axes_of, pixel_size, read_image, read_labels, write_image, write_labels
from attractor.instances import Instances
from attractor.kernels.lovasz_gaussians import lovasz_gaussians
from attractor.kernels.medoids import medoids
from attractor.methods.discriminative_loss import DiscriminativeLoss
from attractor.methods.discriminative_loss import Maps as DiscriminativeMaps
from attractor.methods.points import joined_parts
from attractor.methods.recurrent_pixel_embedding import Maps as RecurrentMaps
from attractor.methods.recurrent_pixel_embedding import RecurrentPixelEmbedding
from attractor.methods.spatial_embeddings import Maps, SpatialEmbeddings, group_plain, instance_loss_plain
from attractor.metrics import average_precision
from attractor.model import Model
from attractor.networks import ERFNet, UNet
from attractor.networks.convolutions import AlongOneAxis, Convolution3d
from attractor.networks.positions import places
from attractor.overlays import overlay_of_volume
from attractor.prediction.folder import segment_files
from attractor.prediction.image import Segmenter
from attractor.recipe import recipe_for
from attractor.runs import train
from attractor.truth import Truth

VECTORS = {v["id"]: v for v in json.loads((Path(__file__).parent / "vectors3d.json").read_text())["vectors"]}
STEP = 1 / 1024  # grid units of a pixel


class Given(nn.Module):
    """Stands where a network would: last layers that can be initialised."""

    def __init__(self, channels_out):
        super().__init__()
        self.heads = nn.ModuleList(nn.ConvTranspose3d(16, n, 2, stride=2) for n in channels_out)


def method(**options):
    return SpatialEmbeddings(Given, **options)


def truth_of(labels):
    labels = torch.as_tensor(labels, dtype=torch.int32)
    k = max(int(labels.max()), 1)
    return Truth(labels, torch.ones(len(labels), k, dtype=torch.int64), torch.ones_like(labels, dtype=torch.bool))


# -------------------------------------------------------------------- the published vectors


def in_our_order(margin):
    """Places of the channels of the vectors, which have (x, y, z), in the order of the axes."""
    sigma = {"circular": [3], "planar": [4, 3], "elliptical": [5, 4, 3]}[margin]
    return [2, 1, 0, *sigma, 3 + len(sigma)]


def published_maps(b, margin):
    """The raw maps of the loss vectors, with the vectors' channels."""
    n_sigma = {"circular": 1, "planar": 2, "elliptical": 3}[margin]
    n = torch.arange(48, dtype=torch.float64).view(3, 4, 4)
    offset = [0.002 * torch.sin(1.7 * n + 0.3 * (c + 1) + b) for c in range(3)]
    sigma = [1.25 + 0.05 * torch.sin(0.9 * n + 0.5 * (j + 1) + b) for j in range(n_sigma)]
    return torch.stack([*offset, *sigma, 2 * torch.sin(0.6 * n + b + 1)])


def split(channels, margin):
    """Maps of the vectors' channels."""
    ours = channels[:, in_our_order(margin)]
    return Maps(ours[:, :3], ours[:, 3:-1], ours[:, -1:])


def loss_method(vector, margin, centre):
    step = vector["inputs"]["step_zyx"]
    spacing = [along / step[-1] for along in step]
    return method(spacing=spacing, grid_step=step, margin=margin, centre=centre, foreground_weight=5.5)


def test_grid():
    vector = VECTORS["SE3-GRID"]
    given, expected = vector["inputs"], vector["expected"]
    se = method(spacing=given["voxel_size_zyx"], margin="circular")
    assert se.grid_step == pytest.approx(expected["step_zyx"], abs=1e-9)
    place = se.coordinates(torch.zeros(1, 1, 11, 21, 31, dtype=torch.float64))[:, 10, 20, 30]
    assert place.flip(0).tolist() == pytest.approx(expected["coordinate_xyz_of_voxel_z10_y20_x30"], abs=1e-9)
    sigma = se._sigma_of(given["margin_x_steps"])
    assert sigma == pytest.approx([expected["raw_sigma_of_margin"]] * 3, abs=1e-9)
    margin = math.sqrt(math.log(2) / math.exp(10 * sigma[0])) / se.grid_step[0]
    assert margin == pytest.approx(expected["margin_in_z_slices"], abs=1e-4)


def test_loss_and_its_gradient():
    vector = VECTORS["SE3-LOSS-elliptical-medoid-B2"]
    given, expected = vector["inputs"], vector["expected"]
    se = loss_method(vector, given["margin"], given["center"])
    channels = torch.stack([published_maps(b, "elliptical") for b in (0, 1)]).requires_grad_()
    terms = se.loss(split(channels, "elliptical"), truth_of(given["instances"]))
    total = sum(se.weights[name] * value for name, value in terms.items())
    total.backward()
    for ours, theirs in (("instance", "inst"), ("smoothness", "var"), ("seed", "seed")):
        assert terms[ours].item() == pytest.approx(expected["mean"][theirs], abs=1e-6)
    assert total.item() == pytest.approx(expected["mean"]["total"], abs=1e-6)
    axes = (0, 2, 3, 4)
    np.testing.assert_allclose(channels.grad.sum(axes), expected["grad_sum_per_channel"], atol=1e-6)
    np.testing.assert_allclose(channels.grad.abs().sum(axes), expected["grad_abs_sum_per_channel"], atol=1e-6)


@pytest.mark.parametrize("name", VECTORS["SE3-LOSS-margins"]["expected"]["terms"])
def test_every_margin_and_centre(name):
    vector = VECTORS["SE3-LOSS-margins"]
    margin, centre = name.split("-")
    maps = split(published_maps(0, margin)[None], margin)
    truth = truth_of([vector["inputs"]["instances"]])
    terms = loss_method(vector, margin, centre).loss(maps, truth)
    expected = vector["expected"]["terms"][name]
    found = {"inst": terms["instance"], "var": terms["smoothness"], "seed": terms["seed"]}
    assert {key: value.item() for key, value in found.items()} == pytest.approx(
        {key: expected[key] for key in found}, abs=1e-6
    )
    if centre == "centroid":  # and what comes out if planes are taken to be as far apart as pixels
        flat = method(
            spacing=(1.0, 1.0, 1.0), grid_step=[STEP] * 3, margin=margin, centre=centre, foreground_weight=5.5
        )
        wrong = flat.loss(maps, truth)
        total = sum(flat.weights[key] * value for key, value in wrong.items())
        assert total.item() == pytest.approx(
            vector["expected"]["total_centroid_if_the_z_step_is_wrongly_that_of_x"][margin], abs=1e-6
        )


@pytest.mark.parametrize("name", VECTORS["SE3-MEDOID"]["inputs"]["objects_zyx"])
@pytest.mark.parametrize("anisotropy", [1, 5])
def test_medoids(name, anisotropy):
    vector = VECTORS["SE3-MEDOID"]
    places = vector["inputs"]["objects_zyx"][name]
    owner = torch.zeros(1, 5, 5, 5, dtype=torch.int64)
    owner[0][tuple(torch.tensor(places).T)] = 1
    for approximate in (False, True):
        found = medoids(owner, 1, spacing=(anisotropy, 1, 1), approximate=approximate)
        kind = "approximate_medoid" if approximate else "medoid"
        assert found[0].tolist() == vector["expected"][name][f"{kind}_anisotropy_{anisotropy}"]


def grouping_maps(step):
    """The maps of the grouping vector, for any step of the planes."""
    vector = VECTORS["SE3-GROUP"]
    labels = np.array(vector["inputs"]["objects"])
    place = np.stack(np.meshgrid(*(np.arange(n) for n in labels.shape), indexing="ij")) * np.array(step).reshape(
        3, 1, 1, 1
    )
    offset, seed = np.zeros((3, *labels.shape)), np.full(labels.shape, 0.1)
    for label, top in zip((1, 2, 3), (0.97, 0.94, 0.92), strict=True):
        inside = labels == label
        centre = place[:, inside].mean(1, keepdims=True)
        offset[:, inside] = -0.7 * (place[:, inside] - centre)
        seed[inside] = top - 0.01 * np.arange(inside.sum())
    sigma = math.log(math.log(2) / (2.5 / 64) ** 2) / 10
    return Maps(
        torch.atanh(torch.from_numpy(offset))[None],
        torch.full((1, 3, *labels.shape), sigma, dtype=torch.float64),
        torch.logit(torch.from_numpy(seed))[None, None],
    )


def test_grouping():
    vector = VECTORS["SE3-GROUP"]
    expected, step = vector["expected"], vector["inputs"]["step_zyx"]
    chosen = {"foreground_threshold": 0.5, "seed_threshold": 0.9, "spacing": (2.0, 1.0, 1.0)}

    def grouped(*, planes=step[0], **options):
        given = [planes, *step[1:]]
        (found,) = method(grid_step=given, **(chosen | options)).group(grouping_maps(step))
        return found

    for options, case in (({}, "default"), ({"count_seed": True}, "count_seed")):
        found = grouped(**options)
        assert found.labels.tolist() == expected[case]["labels"]
        assert found.scores == pytest.approx(expected[case]["scores"], abs=1e-6)
    assert np.bincount(grouped().labels.ravel())[1:].tolist() == expected["sizes_default"]
    assert len(grouped(min_size=32)) == expected["n_objects_min_size_31"]  # ours is at least, theirs more than
    assert len(grouped(min_size=33)) == expected["n_objects_min_size_32"]


def channels_of(maps):
    """The vectors' channels of maps."""
    return torch.cat([maps.offset.flip(1), maps.sigma.flip(1), maps.seed], 1)[0]


def test_views_turn_back():
    vector = VECTORS["SE3-TTA"]
    n = torch.arange(18, dtype=torch.float64).view(2, 3, 3)
    image_maps = torch.stack([torch.sin(0.7 * n + 0.9 * c) for c in range(7)])
    se = method(spacing=(2.0, 1.0, 1.0))
    for given in vector["inputs"]["view_maps"]:
        view = View(given["flip_x"], given["quarter_turns"], given["flip_z"])
        seen = torch.tensor(given["maps"], dtype=torch.float64)[None]
        back = se.turned(Maps(seen[:, [2, 1, 0]], seen[:, [5, 4, 3]], seen[:, 6:]), view)
        torch.testing.assert_close(channels_of(back), image_maps, atol=1e-9, rtol=0)
    names = ["ox", "oy", "oz", "sx", "sy", "sz", "seed"]
    of_channel = torch.arange(1.0, 8)[:, None, None, None].expand(7, 2, 3, 3)[None]
    for row in vector["expected"]["table"]:
        view = View(row["flip_x"], row["quarter_turns"], row["flip_z"])
        back = channels_of(se.turned(Maps(of_channel[:, [2, 1, 0]], of_channel[:, [5, 4, 3]], of_channel[:, 6:]), view))
        for name, value in zip(names, back[:, 0, 0, 0].tolist(), strict=True):
            source = names[abs(int(value)) - 1]
            assert ("-" if value < 0 else "") + source == row["image_channel_from_view_channel"][name]


def test_parameters_and_operations_of_erfnet():
    vector = VECTORS["ERF3-PARAMS"]
    expected = vector["expected"]
    network = ERFNet(vector["inputs"]["channels_in"], vector["inputs"]["channels_out"], spacing=(1.0, 1.0, 1.0))
    count = [sum(p.numel() for p in part.parameters()) for part in (network.encoder, *network.decoders, network)]
    assert count == [expected[key] for key in ("encoder", "decoder_6", "decoder_1", "total")]
    assert multiply_adds(network, (16, 16, 16)) == pytest.approx(expected["multiply_adds_per_voxel"])


def multiply_adds(network, shape):
    """Of each pixel or voxel, counted while the network sees one image."""
    total = 0

    def counted(layer, given, found):
        nonlocal total
        places = given[0] if layer.transposed else found
        total += places[0, 0].numel() * layer.in_channels * layer.out_channels * math.prod(layer.kernel_size)

    layers = [layer for layer in network.modules() if hasattr(layer, "transposed")]
    hooks = [layer.register_forward_hook(counted) for layer in layers]
    with torch.no_grad():
        network.eval()(torch.zeros(1, 1, *shape))
    for hook in hooks:
        hook.remove()
    return total / math.prod(shape)


def test_a_voxel_costs_a_third_of_a_pixel():
    flat = multiply_adds(ERFNet(1, [5, 1]), (64, 64))
    for spacing, options in (((1.0, 1.0, 1.0), {}), ((1.75, 0.8, 0.8), {"waits_at": 2.5})):
        assert multiply_adds(ERFNet(1, [6, 1], spacing=spacing, **options), (32, 64, 64)) <= 0.35 * flat


# -------------------------------------------------------------------- kernels against their definitions


def random_objects(generator, shape, k=4):
    n, a = math.prod(shape), len(shape)
    owner = torch.randint(-1, k + 1, (1, n), generator=generator)
    return torch.rand(1, a, n, generator=generator), owner, torch.rand(k, a, generator=generator)


def test_fast_loss_equals_the_plain_one():
    generator = torch.Generator().manual_seed(0)
    embedding, owner, centre = random_objects(generator, (3, 8, 9))
    concentration = 40 * torch.rand(4, 3, generator=generator)
    weight = torch.rand(4, generator=generator)
    results = []
    for fast in (True, False):
        given = [x.clone().requires_grad_() for x in (embedding, centre, concentration)]
        if fast:
            value = lovasz_gaussians(given[0], owner, *given[1:], torch.zeros(4, dtype=torch.int64), weight)
        else:
            value = (instance_loss_plain(given[0][0], owner[0], *given[1:]) * weight).sum()
        results.append([value, *torch.autograd.grad(value, given)])
    for fast, plain in zip(*results, strict=True):
        torch.testing.assert_close(fast, plain, atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("recentre", [0, 2])
@pytest.mark.parametrize("seed", range(6))
def test_fast_grouping_equals_the_plain_one(recentre, seed):
    generator = torch.Generator().manual_seed(seed)
    shape = (4, 11, 12)
    place = torch.stack(torch.meshgrid(*(torch.arange(float(n)) for n in shape), indexing="ij")) / 64
    maps = Maps(
        0.03 * torch.randn(1, 3, *shape, generator=generator),
        0.55 + 0.1 * torch.rand(1, 3, *shape, generator=generator),
        3 * torch.randn(1, 1, *shape, generator=generator),
    )
    se = method(spacing=(1.0, 1.0, 1.0), grid_step=[1 / 64] * 3, recentre=recentre, min_size=3, seed_threshold=0.6)
    (found,) = se.group(maps)
    torch.testing.assert_close(se.coordinates(maps.seed), place)
    embedding, concentration, scores = se.decode(maps)
    labels, _ = group_plain(
        embedding[0], concentration[0], scores[0, 0], **se.thresholds, **se.grouping, recentre=recentre
    )
    assert len(found) > 3
    for label in range(1, len(found) + 1):  # the same objects, whatever their numbers
        inside = torch.from_numpy(found.labels == label)
        assert len(labels[inside].unique()) == 1
        assert torch.equal(labels == labels[inside][0], inside)


# -------------------------------------------------------------------- a volume of one slice is an image


def flat_and_deep(**options):
    """The same method for images and for volumes whose only slice they are."""
    flat = SpatialEmbeddings(lambda channels: ERFNet(1, channels), **options)
    deep = SpatialEmbeddings(
        lambda channels: ERFNet(1, channels, spacing=(100.0, 1.0, 1.0)), spacing=(100.0, 1.0, 1.0), **options
    )
    return flat, deep


def random_maps(generator, n_sigma, shape):
    return Maps(
        0.01 * torch.randn(2, 2, *shape, generator=generator),
        1 + 0.2 * torch.rand(2, n_sigma, *shape, generator=generator),
        2 * torch.randn(2, 1, *shape, generator=generator),
    )


def raised(maps):
    """Maps of volumes of one slice that say what these maps of images say."""
    deep = Maps(*(x.unsqueeze(2) for x in (maps.offset, maps.sigma, maps.seed)))
    sigma = deep.sigma if deep.sigma.shape[1] != 2 else torch.cat([torch.ones_like(deep.sigma[:, :1]), deep.sigma], 1)
    return Maps(torch.cat([torch.zeros_like(deep.offset[:, :1]), deep.offset], 1), sigma, deep.seed)


@pytest.mark.parametrize("margin", ["circular", "elliptical", "fixed"])
@pytest.mark.parametrize("centre", ["learnable", "centroid", "medoid"])
def test_the_loss_of_one_slice_is_that_of_the_image(margin, centre):
    flat, deep = flat_and_deep(margin=margin, centre=centre)
    generator = torch.Generator().manual_seed(1)
    maps = random_maps(generator, flat.n_sigma, (12, 10))
    labels = torch.zeros(2, 12, 10, dtype=torch.int32)
    labels[0, 2:6, 2:7], labels[0, 6:9, 3:5], labels[1, 1:4, 6:9] = 1, 2, 1
    truth = truth_of(labels)
    lifted = Truth(labels[:, None], truth.classes, truth.valid[:, None])
    own, other = flat.loss(maps, truth), deep.loss(raised(maps), lifted)
    for name, value in own.items():
        # the sigma across the only slice varies for nobody: it takes its share of the mean over axes
        factor = 1.5 if name == "smoothness" and margin == "elliptical" else 1
        torch.testing.assert_close(factor * other[name], value, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("margin", ["circular", "elliptical"])
def test_the_objects_of_one_slice_are_those_of_the_image(margin):
    flat, deep = flat_and_deep(margin=margin, seed_threshold=0.6)
    maps = random_maps(torch.Generator().manual_seed(2), flat.n_sigma, (40, 37))
    for own, other in zip(flat.group(maps), deep.group(raised(maps)), strict=True):
        assert len(own) > 5
        np.testing.assert_array_equal(other.labels[0], own.labels)
        np.testing.assert_array_equal(other.scores, own.scores)


@pytest.mark.parametrize(
    "network",
    [ERFNet, partial(UNet, width=4, decoder_width=4), partial(UNet, width=4, encoder="resnet50", stride=8)],
    ids=["erfnet", "unet", "unet, dilated"],
)
def test_a_network_gives_one_slice_the_maps_of_the_image(network):
    flat, deep = network(1, [5, 1]).eval(), network(1, [5, 1], spacing=(100.0, 1.0, 1.0)).eval()
    weights = {}
    for (name, given), (_, wanted) in zip(flat.state_dict().items(), deep.state_dict().items(), strict=True):
        weights[name] = given.view(wanted.shape)
    deep.load_state_dict(dict(zip(deep.state_dict(), weights.values(), strict=True)))
    images = torch.randn(1, 1, 27, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        torch.testing.assert_close(deep(images[:, :, None])[:, :, 0], flat(images), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("coordinates", ["none", "phase"])
def test_recurrent_pixel_embedding_treats_one_slice_as_the_image(coordinates):
    options = {
        "dimension": 8,
        "pixels": 60,
        "groups": 4,
        "coordinates": coordinates,
        "bandwidth": 0.2,
        "reach": 3.0,
        "min_size": 4,
    }
    flat = RecurrentPixelEmbedding(Given, **options)
    deep = RecurrentPixelEmbedding(Given, spacing=(100.0, 1.0, 1.0), **options)
    generator = torch.Generator().manual_seed(4)
    labels = torch.zeros(1, 12, 11, dtype=torch.int32)
    labels[0, 1:5, 2:8], labels[0, 6:11, 1:6], labels[0, 6:10, 7:10] = 1, 2, 3
    of_object = torch.randn(4, flat.channels, generator=generator)
    embedding = of_object[labels[0].long()].permute(2, 0, 1)[None] + 0.1 * torch.randn(
        1, flat.channels, 12, 11, generator=generator
    )
    semantic = torch.stack([-4.0 * (labels > 0), 4.0 * (labels > 0) - 2], 1).float()
    maps = RecurrentMaps(embedding, semantic)
    lifted = RecurrentMaps(embedding[:, :, None], semantic[:, :, None])
    if coordinates == "phase":  # one more channel: the place across planes, where all pixels point at the only one
        lifted = RecurrentMaps(torch.cat([torch.zeros(1, 1, 1, 12, 11), lifted.embedding], 1), lifted.semantic)
        deep = RecurrentPixelEmbedding(Given, spacing=(100.0, 1.0, 1.0), **options | {"dimension": 10})
    truth = truth_of(labels)
    (own,), (other,) = flat.group(maps), deep.group(lifted)
    assert len(own) == 3
    np.testing.assert_array_equal(other.labels[0], own.labels)
    if coordinates == "none":  # otherwise all pixels are more alike by the place that they share
        terms = []
        for method, given, wanted in (
            (flat, maps, truth),
            (deep, lifted, Truth(labels[:, None], truth.classes, truth.valid[:, None])),
        ):
            torch.manual_seed(0)
            terms.append(method.loss(given, wanted))
        for name, value in terms[0].items():
            torch.testing.assert_close(terms[1][name], value)


# -------------------------------------------------------------------- laws


@pytest.mark.parametrize(
    ("spacing", "n"), [((1.0, 1.0, 1.0), 48), ((2.0, 1.0, 1.0), 16), ((3.0, 2.0, 1.0), 8), ((1.0, 1.0), 8)]
)
def test_views_are_as_many_as_the_steps_allow(spacing, n):
    views = views_of(spacing)
    image = torch.arange(27.0).view(3, 3, 3)[: 3 if len(spacing) == 3 else 1].squeeze()
    assert len(views) == n
    assert len({tuple(view.apply(image).flatten().tolist()) for view in views}) == n
    assert all(torch.equal(view.undo(view.apply(image)), image) for view in views)
    assert views[:1] == VIEWS[:1]  # the first is the image itself


@pytest.mark.parametrize("margin", ["circular", "planar", "elliptical"])
@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 1.0), (3.0, 2.0, 1.0)], ids=str)
def test_turned_maps_point_to_where_the_image_does(margin, spacing):
    se = method(spacing=spacing, margin=margin)
    shape = (3, 4, 5)
    generator = torch.Generator().manual_seed(0)
    place = se.coordinates(torch.zeros(1, 1, *shape))
    target = torch.tensor([se.grid_step[axis] * n for axis, n in enumerate((1, 2, 2))])[:, None, None, None]
    sigma = torch.rand(1, se.n_sigma, *shape, generator=generator)
    own = Maps(torch.atanh(target - place)[None], sigma, torch.rand(1, 1, *shape, generator=generator))
    for view in views_of(spacing):
        axes = view.axes(3)
        seen = [torch.empty(0)] * 3
        for axis, (of_view, sign) in enumerate(axes):
            seen[of_view] = sign * own.offset[:, axis]
        offset = view.apply(torch.stack(seen, 1))
        if margin == "elliptical":
            along = [torch.empty(0)] * 3
            for axis, (of_view, _) in enumerate(axes):
                along[of_view] = own.sigma[:, axis]
            of_view_sigma = view.apply(torch.stack(along, 1))
        elif view.first_axis and margin == "planar":
            continue  # what it says of its own planes is not what the image says of its own
        else:
            of_view_sigma = view.apply(own.sigma)
        back = se.turned(Maps(offset, of_view_sigma, view.apply(own.seed)), view)
        torch.testing.assert_close(back.offset, own.offset)
        torch.testing.assert_close(se._full_sigma(back), se._full_sigma(own))
        torch.testing.assert_close(back.seed, own.seed)


def test_a_volume_is_grouped_from_its_parts():
    se = method(spacing=(2.0, 1.0, 1.0), seed_threshold=0.6)
    generator = torch.Generator().manual_seed(3)
    shape = (6, 12, 11)
    maps = Maps(
        0.004 * torch.randn(1, 3, *shape, generator=generator),
        1.1 + 0.2 * torch.rand(1, 3, *shape, generator=generator),
        2 * torch.randn(1, 1, *shape, generator=generator),
    )
    window = tuple(slice(0, n) for n in shape)
    parts = []
    for planes in (slice(0, 4), slice(4, 6)):
        for columns in (slice(0, 5), slice(5, 11)):
            box = (planes, window[1], columns)
            part = Maps(*(x[(..., *box)] for x in (maps.offset, maps.sigma, maps.seed)))
            parts.append((box, se.gathered(part, corner=(planes.start, 0, columns.start))))
    whole = se.group(maps)[0]
    found = se.group_gathered(joined_parts(parts, window), shape).found
    assert len(whole) > 5
    np.testing.assert_array_equal(found.labels, whole.labels)


def test_planar_margins_are_for_volumes():
    with pytest.raises(InputError, match="it is for volumes alone"):
        method(margin="planar")
    with pytest.raises(InputError, match="grid_step has 4 numbers; give two"):
        method(spacing=(1.0, 1.0, 1.0), grid_step=[STEP] * 4)
    with pytest.raises(InputError, match="no masks beside the label image"):
        method(spacing=(1.0, 1.0, 1.0), whole_masks=True)


# -------------------------------------------------------------------- files


def blobs(shape=(8, 32, 30), spacing=(2.0, 1.0, 1.0)):
    """Labels of some ellipsoids that are balls in micrometres, in a volume."""
    labels = np.zeros(shape, np.int32)
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * np.array(spacing)
    for label, centre in enumerate([(4, 6, 6), (10, 8, 22), (6, 22, 8), (10, 24, 22)], 1):
        labels[((place - centre) ** 2).sum(-1) < 4.5**2] = label
    return labels


def written(folder, n=6, spacing=(2.0, 1.0, 1.0)):
    """A data set of volumes, in which the objects are bright."""
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    generator = np.random.default_rng(0)
    for index in range(n):
        labels = np.roll(blobs(), index, 2)
        image = (200 * (labels > 0) + generator.integers(0, 50, labels.shape)).astype(np.uint16)
        write_image(folder / "images" / f"v{index}.tif", image[..., None], n_axes=3, spacing=spacing)
        write_labels(folder / "labels" / f"v{index}.tif", labels, spacing=spacing)
    return folder


def test_stacks_keep_their_voxels_axes_and_spacing(tmp_path):
    image = np.arange(3 * 5 * 6 * 2, dtype=np.uint16).reshape(3, 5, 6, 2)
    write_image(tmp_path / "a.tif", image, n_axes=3, spacing=(1.75, 0.8, 0.4))
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif", n_axes=3), image)
    assert pixel_size(tmp_path / "a.tif", n_axes=3) == pytest.approx((1.75, 0.8, 0.4))
    assert n_axes_of(tmp_path / "a.tif") == 3
    labels = image[..., 0].astype(np.int32)
    write_labels(tmp_path / "b.tif", labels, spacing=(1.75, 0.8, 0.4))
    np.testing.assert_array_equal(read_labels(tmp_path / "b.tif", n_axes=3), labels)
    with tifffile.TiffFile(tmp_path / "b.tif") as file:
        assert (file.is_imagej, file.series[0].axes, file.series[0].dtype) == (True, "ZYX", np.uint16)
    many = labels + 70_000
    write_labels(tmp_path / "c.tif", many, spacing=(1.75, 0.8, 0.4))  # ImageJ has no such numbers
    np.testing.assert_array_equal(read_labels(tmp_path / "c.tif", n_axes=3), many)
    with pytest.raises(InputError, match="PNG holds one plane"):
        write_labels(tmp_path / "d.png", labels)


def test_axes_are_those_of_the_file_or_those_given(tmp_path):
    stack = np.arange(3 * 8 * 9, dtype=np.uint8).reshape(3, 8, 9)
    tifffile.imwrite(tmp_path / "unnamed.tif", stack, photometric="minisblack")
    with pytest.raises(InputError, match=r"3 planes are slices or channels; say so by --axes ZYX or --axes CYX"):
        read_image(tmp_path / "unnamed.tif", n_axes=3)
    np.testing.assert_array_equal(read_image(tmp_path / "unnamed.tif", n_axes=3, axes="ZYX")[..., 0], stack)
    np.testing.assert_array_equal(read_image(tmp_path / "unnamed.tif", axes="cyx"), np.moveaxis(stack, 0, -1))
    with pytest.raises(InputError, match=r"has the shape \(3, 8, 9\), so ZCYX cannot name its axes"):
        read_image(tmp_path / "unnamed.tif", n_axes=3, axes="ZCYX")
    thick = np.arange(7 * 8 * 9, dtype=np.uint8).reshape(7, 8, 9)
    tifffile.imwrite(tmp_path / "thick.tif", thick, photometric="minisblack")
    np.testing.assert_array_equal(read_image(tmp_path / "thick.tif", n_axes=3)[..., 0], thick)
    tifffile.imwrite(tmp_path / "film.tif", thick, imagej=True, metadata={"axes": "TYX"})
    with pytest.raises(InputError, match=r"is a film of 7 frames .* say so by --axes ZYX"):
        read_image(tmp_path / "film.tif", n_axes=3)
    np.testing.assert_array_equal(read_image(tmp_path / "film.tif", n_axes=3, axes="ZYX")[..., 0], thick)
    tifffile.imwrite(tmp_path / "flat.tif", thick[0])
    with pytest.raises(InputError, match="is one image of 8 x 9 pixels, and no volume"):
        read_image(tmp_path / "flat.tif", n_axes=3)
    with pytest.raises(InputError, match=r"is a stack of shape .* take a model for volumes"):
        read_image(tmp_path / "thick.tif")


def test_ome_says_how_far_apart_slices_are(tmp_path):
    sizes = {"PhysicalSizeX": 500, "PhysicalSizeXUnit": "nm", "PhysicalSizeY": 0.5, "PhysicalSizeZ": 2.0}
    tifffile.imwrite(tmp_path / "a.ome.tif", np.zeros((6, 8, 9), np.uint8), metadata={"axes": "ZYX", **sizes})
    assert pixel_size(tmp_path / "a.ome.tif", n_axes=3) == pytest.approx((2.0, 0.5, 0.5))


def test_a_data_set_of_volumes_is_checked_and_measured(tmp_path):
    report = check(written(tmp_path))
    assert not report.errors
    assert "volumes: 8 x 32 x 30 voxels; 1 channel uint16" in report.facts
    assert "voxels: 2 x 1 x 1 um (planes, rows, columns)" in report.facts
    statistics = report.statistics
    assert (statistics.n_axes, statistics.spacing, statistics.count) == (3, (2.0, 1.0, 1.0), 24)
    assert statistics.typical_size == pytest.approx(9, abs=0.5)  # as wide as the balls are in micrometres
    recipe = recipe_for(tmp_path)
    assert (recipe.model.axes, recipe.model.spacing) == (3, [2.0, 1.0, 1.0])
    assert (recipe.training.crop_depth, recipe.training.crop_size) == (8, 24)


def test_labels_of_another_depth_are_refused(tmp_path):
    write_labels(written(tmp_path) / "labels" / "v0.tif", blobs()[:7])
    with pytest.raises(InputError, match=r"has 7 x 32 x 30 pixels, but its image v0.tif has 8 x 32 x 30"):
        open_dataset(tmp_path)[0]


def test_images_and_volumes_do_not_go_together(tmp_path):
    write_image(written(tmp_path) / "images" / "flat.tif", np.ones((9, 9, 1), np.uint16))
    write_labels(tmp_path / "labels" / "flat.tif", np.ones((9, 9), np.int32))
    (error,) = check(tmp_path).errors
    assert "has both images and volumes" in error


# -------------------------------------------------------------------- training and prediction


def crops_of(image, labels, *, spacing, size, n=8, **options):
    tensors = (
        torch.from_numpy(image).float()[None],
        torch.from_numpy(labels),
        torch.ones(labels.shape, dtype=torch.bool),
    )
    augmentation = Augmentation(scale=(1.0, 1.0), stretch=1.0, rotate=False, **options)
    centre = tuple(side / 2 for side in labels.shape)
    for seed in range(n):
        generator = torch.Generator().manual_seed(seed)
        yield augmentation.crop(*tensors, centre, size, generator, spacing=spacing)


@pytest.mark.parametrize(("spacing", "most"), [((2.0, 1.0, 1.0), 16), ((3.0, 2.0, 1.0), 8), ((1.0, 1.0, 1.0), 16)])
def test_crops_are_turned_where_steps_agree(spacing, most):
    labels = np.arange(1, 1 + 4 * 6 * 6, dtype=np.int32).reshape(4, 6, 6)
    still = {name: 0.0 for name in ("brightness", "contrast", "gamma", "colour", "noise", "blur")}
    seen = set()
    for image, own, valid in crops_of(labels, labels, spacing=spacing, size=(4, 6, 6), n=80, **still):
        assert valid.all()
        torch.testing.assert_close(image[0].round().int(), own)  # image and labels are turned alike
        seen.add(tuple(own.flatten().tolist()))
    assert len(seen) <= most
    assert len(seen) > most / 2


@pytest.mark.parametrize("method", ["discriminative-loss", "recurrent-pixel-embedding"])
def test_other_embeddings_learn_from_volumes(method, tmp_path):
    changes = ["training.epochs=1", "training.crops_per_epoch=4", "training.batch_size=2", "training.workers=0"]
    changes += ["training.crop_size=16", "training.crop_depth=8", "data.validation=0.34"]
    changes += ["model.network=unet", "model.network_options.width=4", "model.network_options.decoder_width=4"]
    segmenter = train(
        written(tmp_path / "data"), out=tmp_path / "run", changes=[*changes, f"model.method={method}"], device="cpu"
    )
    assert segmenter.segment(np.zeros((8, 32, 30), np.uint8)).labels.shape == (8, 32, 30)
    assert evaluate_model(segmenter, tmp_path / "data").summary.n_truth == 24


def test_a_volume_is_segmented_as_it_was_trained(tmp_path):
    """The whole way, with a network that has seen little: files in, files out, scores."""
    changes = ["training.epochs=1", "training.crops_per_epoch=4", "training.batch_size=2", "training.workers=0"]
    changes += ["training.crop_size=16", "training.crop_depth=8", "data.validation=0.34"]
    segmenter = train(written(tmp_path / "data"), out=tmp_path / "run", changes=changes, device="cpu")
    description = read_description(tmp_path / "run" / "model.safetensors")
    assert (description.axes, description.spacing) == (3, (2.0, 1.0, 1.0))
    files = [tmp_path / "data" / "images" / f"v{index}.tif" for index in (0, 1)]
    outcomes = list(segment_files(segmenter, files, tmp_path / "out", tta=True))
    assert [outcome.problem for outcome in outcomes] == [None, None]
    assert outcomes[0].shape == (8, 32, 30)
    labels = read_labels(tmp_path / "out" / "v0_labels.tif", n_axes=3)
    assert pixel_size(tmp_path / "out" / "v0_labels.tif", n_axes=3) == pytest.approx((2.0, 1.0, 1.0))
    found = segmenter.segment(read_image(files[0], n_axes=3), tta=True, spacing=(2.0, 1.0, 1.0))
    np.testing.assert_array_equal(found.labels, labels)
    scores = evaluate_model(segmenter, tmp_path / "data")
    assert scores.summary.n_truth == 24


@pytest.fixture
def segmenter():
    """A model of volumes that finds small balls everywhere."""
    torch.manual_seed(0)
    description = Description(
        method="spatial-embeddings",
        network="erfnet",
        channels=1,
        class_names=("object",),
        axes=3,
        spacing=(2.0, 1.0, 1.0),
        options={"initial_margin": 3.0},
        object_size=6.0,
    )
    model = Model(description)
    with torch.no_grad():
        model.method.network.decoders[1][-1].bias.fill_(2.0)  # of the seed score: all is foreground
    return Segmenter(model, device="cpu", dtype="float32")


def test_model_files_keep_axes_and_spacing(segmenter, tmp_path):
    segmenter.model.save(tmp_path / "a.safetensors")
    loaded = Model.load(tmp_path / "a.safetensors")
    assert loaded.description == segmenter.model.described()
    assert loaded.method.grid_step == pytest.approx((2 * STEP, STEP, STEP))


def test_tiles_give_the_maps_of_the_whole_volume(segmenter):
    volume = segmenter.prepared(np.random.default_rng(0).random((24, 40, 36), np.float32))
    whole, tiled = segmenter.maps(volume), segmenter.maps(volume, tile=16)
    for own, other in zip(vars(whole).values(), vars(tiled).values(), strict=True):
        torch.testing.assert_close(other, own, atol=1e-4, rtol=1e-4)  # the halo holds all of so small a volume
    assert segmenter._tile_along(16) == (8, 16, 16)
    assert segmenter._halo == (32, 64, 64)
    with pytest.raises(InputError, match="A tile has 7 pixels"):
        segmenter.check_options(tile=7)


def test_objects_are_balls_in_micrometres(segmenter):
    found = segmenter.segment(np.random.default_rng(0).random((20, 40, 40), np.float32))
    table = found.table(pixel_size=(2.0, 1.0, 1.0))
    inner = [k for k, v in enumerate(table["min_plane"]) if v > 2 and table["max_plane"][k] < 18]
    depth = [2 * (table["max_plane"][k] - table["min_plane"][k]) for k in inner]
    width = [table["max_column"][k] - table["min_column"][k] for k in inner]
    assert np.median(depth) == pytest.approx(np.median(width), abs=2.5)


def test_a_volume_with_other_steps_is_resampled(segmenter, caplog):
    volume = np.random.default_rng(0).random((10, 20, 20), np.float32)
    found = segmenter.segment(volume, spacing=(5.0, 1.0, 1.0), name="a.tif")
    assert found.labels.shape == volume.shape
    assert "a.tif: its voxels are 5 x 1 x 1 um, the model's 2 x 1 x 1 um; it is resampled" in caplog.text
    caplog.clear()
    segmenter.segment(volume, spacing=(3.0, 1.5, 0.6), name="a.tif")
    assert not caplog.text
    assert segmenter.prepared(volume, spacing=(5.0, 1.0, 1.0)).shape == (1, 1, 25, 20, 20)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((8, 9)), r"an array of shape \(8, 9\), and this model takes volumes, of shape \(d, h, w\)"),
        (np.zeros((2, 3, 4, 5, 6)), r"give one volume of shape \(d, h, w\) or \(d, h, w, c\)"),
        (np.zeros((4, 8, 9, 2)), "has 2 channels, the model takes 1"),
        (np.full((4, 8, 9), np.nan), "288 values are NaN"),
    ],
)
def test_what_is_no_volume_is_refused(segmenter, array, words):
    with pytest.raises(InputError, match=words):
        segmenter.segment(array)


def test_a_model_for_images_refuses_a_volume(tiny_model):
    import attractor

    with pytest.raises(
        InputError, match=r"give one image of shape \(h, w\) or \(h, w, c\), or take a model for volumes"
    ):
        attractor.load(tiny_model, device="cpu").segment(np.zeros((9, 8, 30)))


def test_what_takes_no_volumes_says_so():
    base = {"channels": 1, "class_names": ("object",), "axes": 3}
    with pytest.raises(
        InputError, match="rsis takes images, and no volumes; what takes volumes is spatial-embeddings, discr"
    ):
        Model(Description(method="rsis", network="unet", **base))
    with pytest.raises(InputError, match="has a spacing, but two axes"):
        Model(
            Description(
                method="spatial-embeddings",
                network="erfnet",
                channels=1,
                class_names=("object",),
                spacing=(1.0, 1.0, 1.0),
            )
        )


def test_options_that_are_for_images_are_refused(segmenter, tmp_path):
    (path,) = [written(tmp_path, n=1) / "images" / "v0.tif"]
    with pytest.raises(
        InputError, match=r"The format coco is for images.*labels, overlay, csv, parquet, geojson, rois"
    ):
        segment_files(segmenter, [path], tmp_path / "out", formats=("labels", "coco"))
    with pytest.raises(InputError, match=r"The pixel size has 2 numbers; give three, as in 1\.75x0\.8x0\.8"):
        segment_files(segmenter, [path], tmp_path / "out", pixel_size=(1.0, 1.0))
    with pytest.raises(InputError, match="The pixel size is 0 x 1 x 1 micrometres; give numbers above 0"):
        segment_files(segmenter, [path], tmp_path / "out", pixel_size=(0.0, 1.0, 1.0))
    with pytest.raises(InputError, match="--axes ZQ: give a letter for each axis"):
        segment_files(segmenter, [path], tmp_path / "out", axes="ZQ")
    with pytest.raises(InputError, match="Volumes are looked at in their own size only"):
        Segmenter(segmenter.model, device="cpu", tta_scales=(1.5,))


def test_a_file_that_does_not_tell_its_spacing(segmenter, tmp_path, caplog):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((6, 8, 9), np.uint8), imagej=True, metadata={"axes": "ZYX"})
    (outcome,) = segment_files(segmenter, [tmp_path / "a.tif"], tmp_path / "out")
    assert outcome.problem is None
    assert "does not say how large its voxels are; they are taken to be as in training (2x1x1 um)" in caplog.text


# -------------------------------------------------------------------- results


def ball(radius, spacing, shape):
    place = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"), -1) * np.array(spacing)
    middle = (np.array(shape) - 1) / 2 * np.array(spacing)
    return (((place - middle) ** 2).sum(-1) < radius**2).astype(np.int32)


@pytest.mark.parametrize(("spacing", "shape"), [((1.0, 1.0, 1.0), (31, 31, 31)), ((2.0, 1.0, 0.5), (17, 31, 61))])
def test_a_ball_has_the_measures_of_a_ball(spacing, shape):
    table = Instances.from_labels(ball(12.0, spacing, shape)).table(pixel_size=spacing)
    assert table["volume_um3"][0] == pytest.approx(4 / 3 * math.pi * 12**3, rel=0.02)
    assert table["surface_um2"][0] == pytest.approx(4 * math.pi * 12**2, rel=0.03)
    for axis in ("major", "middle", "minor"):
        assert table[f"{axis}_axis_um"][0] == pytest.approx(24, rel=0.02)
    for name, n, step in zip(("plane", "row", "column"), shape, spacing, strict=True):
        assert table[f"centroid_{name}_um"][0] == pytest.approx((n - 1) / 2 * step)


def test_one_voxel_and_an_object_that_is_hidden_are_measured():
    labels = np.zeros((3, 4, 5), np.int32)
    labels[1, 2, 3], labels[0, 0, :2] = 1, 3
    found = Instances(labels, np.ones(3, np.int32), np.ones(3, np.float32))
    table = found.table(np.full((3, 4, 5), 7))
    assert (table["label"], table["volume"]) == ([1, 3], [1, 2])
    assert (table["min_plane"], table["max_column"]) == ([1, 0], [4, 2])
    assert table["mean_intensity"] == [7.0, 7.0]
    assert table["major_axis"][0] == 0
    assert Instances.from_labels(np.zeros((2, 3, 4), int)).table()["volume"] == []
    with pytest.raises(InputError, match=r"The image has 3 x 4 x 4 pixels, but its label image has 3 x 4 x 5"):
        found.table(np.zeros((3, 4, 4)))
    with pytest.raises(InputError, match="COCO is for images, and this is a volume of 3 planes"):
        found.to_coco()


def test_outlines_lie_on_the_planes_that_an_object_meets():
    labels = np.zeros((4, 6, 7), np.int32)
    labels[1:3, 1:4, 1:5], labels[2, 4:6, 5:7] = 1, 2
    labels[2, 2, 2] = 0  # a hole
    found = Instances(labels, np.array([1, 2], np.int32), np.ones(2, np.float32), class_names=("cell", "other"))
    features = found.to_geojson()["features"]
    planes = [(one["geometry"]["plane"]["z"], one["properties"]["name"]) for one in features]
    assert planes == [(1, "1"), (2, "1"), (2, "2")]
    assert len({one["id"] for one in features}) == 3
    assert [one["properties"]["classification"]["name"] for one in features] == ["cell", "cell", "other"]
    for one, (z, name) in zip(features, planes, strict=True):
        rings = [np.array(ring, float) for ring in one["geometry"]["coordinates"]]
        areas = [abs((ring[:-1, 0] * ring[1:, 1] - ring[:-1, 1] * ring[1:, 0]).sum()) / 2 for ring in rings]
        assert areas[0] - sum(areas[1:]) == (labels[z] == int(name)).sum()


@pytest.mark.parametrize("channels", [1, 2])
def test_rois_lie_on_slices_as_imagej_counts_them(channels):
    roifile = pytest.importorskip("roifile")
    labels = np.zeros((4, 6, 7), np.int32)
    labels[1:3, 1:4, 1:5], labels[2, 4:6, 5:7] = 1, 2
    with zipfile.ZipFile(io.BytesIO(encode_rois(Instances.from_labels(labels), ("cell",), channels=channels))) as file:
        rois = [roifile.ImagejRoi.frombytes(file.read(name)) for name in file.namelist()]
    assert [roi.name for roi in rois] == ["0001-z0002-cell", "0001-z0003-cell", "0002-z0003-cell"]
    assert [roi.position if channels == 1 else roi.z_position for roi in rois] == [2, 3, 3]
    assert [roi.z_position if channels == 1 else roi.position for roi in rois] == [0, 0, 0]
    assert [(roi.top, roi.left, roi.bottom, roi.right) for roi in rois] == [(1, 1, 4, 5), (1, 1, 4, 5), (4, 5, 6, 7)]


def test_the_picture_shows_four_views_to_scale():
    labels = blobs()
    picture = overlay_of_volume(
        labels[..., None].astype(np.uint16), Instances.from_labels(labels), spacing=(2.0, 1.0, 1.0)
    )
    times = 384 // 32
    assert picture.shape == (2 * 32 * times + 6, (30 + 16) * times + 6 + 14 * times, 3)
    colours = {tuple(colour) for colour in picture.reshape(-1, 3).tolist()}
    assert {(255, 59, 48), (0, 200, 83)} <= colours  # outlines of the first two objects
    empty = overlay_of_volume(np.zeros((3, 4, 5, 1), np.uint8), Instances.from_labels(np.zeros((3, 4, 5), int)))
    assert empty.ndim == 3
    with pytest.raises(InputError, match="The volume has 3 x 4 x 4 voxels"):
        overlay_of_volume(np.zeros((3, 4, 4, 1)), Instances.from_labels(np.zeros((3, 4, 5), int)))


def test_volumes_are_scored_as_images_are():
    truth = blobs()
    found = truth.copy()
    found[found == 4] = 0
    scores = average_precision([truth], [found])
    assert (scores.tp[0], scores.fp[0], scores.fn[0]) == (3, 0, 1)
    flat = average_precision(truth[4], found[4])
    one_slice = average_precision([truth[4:5]], [found[4:5]])
    assert (flat.tp.tolist(), flat.fn.tolist()) == (one_slice.tp.tolist(), one_slice.fn.tolist())


def test_a_data_set_of_volumes_is_copied_but_not_turned_into_pictures(tmp_path):
    data = open_dataset(written(tmp_path / "data", n=2))
    convert(data, tmp_path / "copy", "label-images")
    for own, other in zip(data, open_dataset(tmp_path / "copy"), strict=True):
        np.testing.assert_array_equal(other.image, own.image)
        np.testing.assert_array_equal(other.labels, own.labels)
        assert other.spacing == own.spacing
    with pytest.raises(
        InputError, match="v0: is a volume, and this layout holds images only; these hold both: label-images"
    ):
        convert(data, tmp_path / "coco", "coco")
    assert not (tmp_path / "coco").exists()


def test_a_model_and_data_must_agree_on_the_axes(segmenter, tmp_path):
    report = check(written(tmp_path / "data", n=2))
    assert report.for_model(("object",), None, n_axes=3).counts["errors"] == report.counts["errors"]
    (error,) = report.for_model(("object",), None, n_axes=2).errors
    assert error == "The model takes images, and the data are volumes; take a model for volumes."
    with pytest.raises(InputError, match="this model takes volumes"):
        segmenter.segment(np.zeros((30, 40, 1)))


def test_crops_of_volumes_are_cubes(tmp_path):
    crops = Crops(open_dataset(written(tmp_path, n=1)), 8)
    assert crops[0].labels.shape == (8, 8, 8)
    assert crops[0].spacing == (2.0, 1.0, 1.0)
    assert crops.names[0].startswith("v0_z0_r0_c")


# -------------------------------------------------------------------- other methods


def discriminative(**options):
    return DiscriminativeLoss(Given, spacing=(2.0, 1.0, 1.0), **options)


def test_discriminative_loss_knows_no_axes():
    vector = VECTORS["DISC3-FLAT"]
    given, expected = vector["inputs"], vector["expected"]
    labels = torch.tensor([given["labels"]], dtype=torch.int32)
    n = torch.arange(labels.numel(), dtype=torch.float64).view(labels.shape[1:])
    embedding = torch.stack([1.5 * torch.sin(0.8 * n + 1.1 * c) for c in range(3)])[None]
    method = discriminative(dimension=3, pull_margin=given["pull_margin"], push_margin=given["push_margin"])
    terms = method.loss(DiscriminativeMaps(embedding, torch.zeros(1, 2, *labels.shape[1:])), truth_of(labels))
    names = {"pull": "variance", "push": "distance", "regularisation": "regularisation"}
    for ours, theirs in names.items():
        assert terms[ours].item() == pytest.approx(expected[theirs], abs=1e-6)
    total = sum(method.weights[name] * terms[name] for name in names)
    assert total.item() == pytest.approx(expected["total"], abs=1e-6)


def test_discriminative_loss_groups_volumes_by_place():
    method = discriminative(dimension=3, coordinates="output", coordinate_scale=4.0, connected=True)
    labels = torch.from_numpy(blobs())
    place = method._placed(torch.zeros(1, 3, *labels.shape))
    assert place[0, :, 2, 3, 4].tolist() == [2 * 2 / 4, 3 / 4, 4 / 4]  # planes are two steps apart
    own = torch.zeros(1, 3, *labels.shape)
    for label in range(1, 5):
        inside = labels == label
        own[0][:, inside] = place[0][:, inside].mean(1, keepdim=True) - place[0][:, inside]
    semantic = torch.stack([-4.0 * (labels > 0), 4.0 * (labels > 0) - 2])[None].float()
    (found,) = method.group(DiscriminativeMaps(own, semantic))
    assert average_precision([labels.numpy()], [found.labels]).tp[0] == 4


def test_recurrent_pixel_embedding_groups_volumes_by_place():
    method = RecurrentPixelEmbedding(
        Given,
        spacing=(2.0, 1.0, 1.0),
        dimension=6,
        groups=4,
        coordinates="phase",
        coordinate_period=48.0,
        bandwidth=0.2,
    )
    assert method.channels == 3
    labels = torch.from_numpy(blobs())
    place = places(torch.zeros(1, 1, *labels.shape), method.spacing)
    assert place[:, 2, 3, 4].tolist() == [2 * 2, 3, 4]  # planes are two steps apart
    own = torch.zeros(1, 3, *labels.shape)
    for label in range(1, 5):
        inside = labels == label
        own[0][:, inside] = (place[:, inside].mean(1, keepdim=True) - place[:, inside]) / 48
    decoded = method.decode(RecurrentMaps(own, torch.zeros(1, 2, *labels.shape)))[0]
    torch.testing.assert_close(
        decoded[0].flatten(1), method._points(own[0], torch.arange(labels.numel())), atol=1e-5, rtol=0
    )
    semantic = torch.stack([-4.0 * (labels > 0), 4.0 * (labels > 0) - 2])[None].float()
    (found,) = method.group(RecurrentMaps(own, semantic))
    assert average_precision([labels.numpy()], [found.labels]).tp[0] == 4
    with pytest.raises(InputError, match="dimension is 5; places in the embedding need six dimensions"):
        RecurrentPixelEmbedding(Given, spacing=(2.0, 1.0, 1.0), dimension=5, groups=4, coordinates="phase")


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (3.0, 1.0, 1.0), (12.0, 1.0, 2.0)], ids=str)
@pytest.mark.parametrize("stride", [32, 8])
def test_a_unet_halves_an_axis_once_its_steps_are_as_short_as_others(spacing, stride):
    network = UNet(1, [2], width=4, decoder_width=4, stride=stride, spacing=spacing).eval()
    given = torch.zeros(1, 1, 5, 40, 33)
    with torch.no_grad():
        features = network.pyramid(given)
        assert network(given).shape == (1, 2, 5, 40, 33)
    padded = [-(-n // own) * own for n, own in zip(given.shape[2:], network.strides_by_axis[-1], strict=True)]
    for found, strides in zip(features, network.strides_by_axis, strict=True):
        assert list(found.shape[2:]) == [n // own for n, own in zip(padded, strides, strict=True)]
    waits = {1.0: 0, 3.0: 1, 12.0: 3}[spacing[0]]
    assert network.strides_by_axis[-1][0] == max(1, stride >> waits)
    assert network.strides[-1] == stride


def leave_memory_full_of_nan() -> None:
    for size in (2**10, 2**12, 2**14, 2**16, 2**18):
        del [torch.full((size,), torch.nan) for _ in range(4)][:]


@pytest.mark.parametrize(
    ("channels", "kernel", "stride", "shape"),
    [((3, 8), 3, 1, (1, 8, 8)), ((16, 48), 3, 1, (2, 8, 8)), ((16, 48), 3, 2, (4, 1, 1)), ((16, 16), 7, 2, (4, 4, 4))],
)
def test_volumes_smaller_than_the_kernel_are_convolved_in_bfloat16_from_written_memory_alone(
    channels, kernel, stride, shape
):
    torch.manual_seed(0)
    layer = Convolution3d(*channels, kernel, stride, kernel // 2)
    x = torch.randn(2, channels[0], *shape, requires_grad=True)
    results = []
    for in_bfloat16 in (False, True, True):
        leave_memory_full_of_nan()
        layer.zero_grad()
        x.grad = None
        with torch.autocast("cpu", torch.bfloat16, in_bfloat16):
            found = layer(x)
        found.float().square().sum().backward()
        results.append([found.detach().float(), x.grad.clone(), layer.weight.grad.clone()])
    for wanted, *given in zip(*results, strict=True):
        for one in given:
            torch.testing.assert_close(one, wanted, rtol=0.02, atol=0.02 * float(wanted.abs().max()))


@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d], ids=str)
def test_convolutions_along_an_axis_are_those_of_torch(axis, layout):
    kernel, dilation = ([value if other == axis else 1 for other in range(3)] for value in (3, 2))
    padding = [2 if other == axis else 0 for other in range(3)]
    torch.manual_seed(0)
    own = AlongOneAxis(4, 4, kernel, padding=padding, dilation=dilation)
    theirs = nn.Conv3d(4, 4, kernel, padding=padding, dilation=dilation)
    theirs.load_state_dict(own.state_dict())
    results = []
    for layer in (own, theirs):
        x = torch.sin(torch.arange(2 * 4 * 2 * 6 * 5.0)).view(2, 4, 2, 6, 5).to(memory_format=layout).requires_grad_()
        found = layer(x)
        (found * torch.cos(found.detach() + 1)).sum().backward()
        results.append([found, x.grad, layer.weight.grad, layer.bias.grad])
    for given, wanted in zip(*results, strict=True):
        torch.testing.assert_close(given, wanted)
