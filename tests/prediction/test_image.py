"""From the array to its objects: devices, views, tiles and sizes."""

import dataclasses

import numpy as np
import pytest
import torch

from attractor.description import Description
from attractor.errors import InputError
from attractor.instances import Instances, encode_mask
from attractor.methods import METHODS
from attractor.methods.spatial_embeddings import Maps, SpatialEmbeddings
from attractor.model import Model
from attractor.prediction.image import Segmenter, choose_device
from attractor.prediction.resampling import rescaled, resized
from attractor.prediction.tiles import tiled_maps


class Bright(SpatialEmbeddings):
    """A method whose objects are the bright squares of eight pixels: enough to test what is around a method."""

    def forward(self, images):
        b, _, h, w = images.shape
        bright = images[:, :1] > 0.5
        rows, columns = torch.arange(h)[:, None].expand(h, w), torch.arange(w).expand(h, w)
        offset = torch.stack([3.5 - rows % 8, 3.5 - columns % 8]) / 1024
        return Maps(torch.atanh(offset).expand(b, 2, h, w) * bright, torch.full((b, 2, h, w), 1.0), 16.0 * bright - 8)


@pytest.fixture
def segmenter(monkeypatch):
    monkeypatch.setitem(METHODS, "bright", Bright)
    model = Model(Description(method="bright", network="erfnet", channels=1, class_names=("object",), object_size=8.0))
    return Segmenter(model, device="cpu", dtype="float32")


@pytest.fixture
def squares():
    """Two rows of three bright squares on the lattice of eight pixels; dark frames between them."""
    image = np.zeros((40, 56), np.uint8)
    for row in (8, 24):
        for column in (8, 24, 40):
            image[row : row + 8, column : column + 8] = 200
    return image


def test_finds_what_is_there(segmenter, squares):
    found = segmenter.segment(squares)
    assert len(found) == 6
    assert np.array_equal(found.labels > 0, squares > 0)


def test_what_is_found_knows_the_names_of_its_classes(segmenter, squares):
    assert segmenter.segment(squares).class_names == segmenter.class_names
    assert segmenter.segment(np.zeros((8, 8))).class_names == segmenter.class_names


def test_the_image_is_not_modified(segmenter, squares):
    before = squares.copy()
    segmenter.segment(squares, tta=True)
    assert np.array_equal(squares, before)


def test_views_are_averaged(segmenter, squares):
    image = segmenter.prepared(squares)
    plain, averaged = segmenter.maps(image), segmenter.maps(image, tta=True)
    # sides are multiples of eight, so that the squares' lattice is the same in every view
    for name, value in vars(plain).items():
        torch.testing.assert_close(vars(averaged)[name], value, msg=name)


def test_several_scales_are_averaged_on_the_grid_of_the_image(segmenter):
    image = torch.rand(1, 1, 24, 40)
    scaled = Segmenter(segmenter.model, device="cpu", dtype="float32", tta_scales=(0.5, 1.0, 1.5, 0.5))
    seen, forward = [], Bright.forward
    scaled._method.forward = lambda images: seen.append(images.shape[-2:]) or forward(scaled._method, images)
    found = scaled.maps(image, tta=True)
    assert seen == [*[(24, 40), (40, 24)] * 4, *[(12, 20), (20, 12)] * 4, *[(36, 60), (60, 36)] * 4]
    parts = [segmenter.maps(rescaled(image, scale), tta=True) for scale in (1.0, 0.5, 1.5)]
    method = segmenter.model.method
    expected = method.averaged([parts[0], *(method.resampled(part, (24, 40)) for part in parts[1:])])
    for name, value in vars(expected).items():
        torch.testing.assert_close(vars(found)[name], value, msg=name)
    assert len(scaled.maps(image).seed) == 1
    assert len(seen) == 25  # scales are for views only


@pytest.mark.parametrize("scale", [0.2, 5.0, float("nan")])
def test_scales_that_no_image_is_seen_at_are_refused(segmenter, scale):
    with pytest.raises(InputError, match=r"tta_scales is .*; it must be between 0.25 and 4"):
        Segmenter(segmenter.model, device="cpu", tta_scales=(scale,))


def test_a_method_of_one_scale_refuses_others():
    model = Model(Description(method="rsis", network="erfnet", channels=1, class_names=("object",)))
    with pytest.raises(InputError, match="rsis looks at images in their own size only; leave the scales out"):
        Segmenter(model, device="cpu", tta_scales=(1.25,))


def test_a_model_of_upright_pictures_never_sees_one_upside_down():
    model = Model(
        Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",), upright=True)
    )
    seen = []
    upright = Segmenter(model, device="cpu", dtype="float32")
    upright.model.method.network.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    image = torch.arange(64.0).view(1, 1, 8, 8)
    upright.maps(image, tta=True)
    assert [x.tolist() for x in seen] == [image.tolist(), image.flip(-1).tolist()]


@pytest.mark.parametrize("tile", [8, 16, 64])
def test_tiles_give_the_maps_of_the_whole(segmenter, squares, tile):
    image = segmenter.prepared(squares)
    whole = segmenter.maps(image)
    for name, value in vars(tiled_maps(segmenter.model.method, image, tile, halo=8)).items():
        assert torch.equal(value, vars(whole)[name])
    assert np.array_equal(segmenter.segment(squares, tile=tile).labels, segmenter.segment(squares).labels)


def test_a_real_network_agrees_in_tiles_and_whole():
    torch.manual_seed(0)
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",)))
    last = model.method.network.decoders[0][-1]
    torch.nn.init.normal_(last.weight, std=0.1)  # an untrained network would answer the same everywhere
    model.eval()
    image = torch.rand(1, 1, 16, 640)
    with torch.inference_mode():
        whole = model.method(image)
        errors = {
            halo: max(
                (vars(tiled_maps(model.method, image, 64, halo=halo))[name] - value).abs().max().item()
                for name, value in vars(whole).items()
            )
            for halo in (0, 128, 640)
        }
    assert errors[640] < 1e-5  # all of the image is seen
    assert errors[128] < 0.05 * errors[0]


def test_a_method_that_sees_the_whole_image_refuses_tiles(segmenter, squares):
    segmenter.model.method.tileable = False
    with pytest.raises(InputError, match="cannot compute it in tiles; leave --tile out"):
        segmenter.segment(squares, tile=16)
    with pytest.raises(InputError, match="cannot compute it in tiles"):
        segmenter.check_options(tile=16)


def test_tiles_lie_on_the_grid_of_the_network(segmenter, squares):
    segmenter.model.method.network.strides = (2, 32)
    with pytest.raises(InputError, match="both must be multiples of 32"):
        segmenter.check_options(tile=48)
    segmenter.check_options(tile=64)


def test_as_many_objects_as_the_method_holds_are_remarked_upon(segmenter, squares, caplog):
    segmenter.model.method.max_instances = 6
    segmenter.model.method.is_full = lambda maps: [False]
    segmenter.segment(squares, name="cells.png")
    assert not caplog.records
    segmenter.model.method.is_full = lambda maps: [True]
    segmenter.segment(squares, name="cells.png")
    assert "cells.png: this model finds at most 6 objects in an image; there may be more." in caplog.text


@pytest.mark.parametrize("value", [-0.1, 1.5, float("nan")])
def test_thresholds_out_of_range_are_refused(segmenter, value):
    with pytest.raises(InputError, match=r"seed_threshold is .*; it must be between 0 and 1"):
        Segmenter(segmenter.model, device="cpu", thresholds={"seed_threshold": value})


def untrained():
    torch.manual_seed(0)
    names = {"method": "spatial-embeddings", "network": "erfnet", "channels": 1, "class_names": ("object",)}
    model = Model(Description(**names))
    torch.nn.init.normal_(model.method.network.heads[0].weight, std=0.3)
    torch.nn.init.normal_(model.method.network.heads[1].weight, std=0.3)
    return model


def test_each_segmenter_of_a_model_has_its_own_thresholds():
    model = untrained()
    before = dict(model.method.thresholds)
    image = np.random.default_rng(0).integers(0, 255, (40, 56)).astype(np.uint8)
    few, many = (
        Segmenter(model, device="cpu", thresholds={"seed_threshold": value, "foreground_threshold": 0.3, "min_size": 0})
        for value in (0.9, 0.4)
    )
    assert len(few.segment(image)) < len(many.segment(image))
    assert len(few.segment(image)) < len(many.segment(image))
    assert model.method.thresholds == before


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_the_model_given_stays_as_it_is_and_can_be_trained_on(dtype):
    model = untrained().train()
    method, network, thresholds = model.method, model.method.network, model.method.thresholds
    before = {key: value.clone() for key, value in model.state_dict().items()}
    image = np.random.default_rng(0).integers(0, 255, (40, 56)).astype(np.uint8)
    segmenter = Segmenter(model, device="cpu", dtype=dtype)
    labels = segmenter.segment(image).labels
    assert (model.method, model.method.network, model.method.thresholds) == (method, network, thresholds)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
    optimiser = torch.optim.SGD(model.parameters(), lr=10.0)
    model(torch.rand(2, 1, 40, 56)).seed.square().mean().backward()
    optimiser.step()
    assert any(not torch.equal(value, before[key]) for key, value in model.state_dict().items())
    assert np.array_equal(segmenter.segment(image).labels, labels)


def test_many_images_are_segmented_in_their_order(segmenter, squares):
    images = [squares[: 40 - n] for n in range(0, 24, 4)]
    expected = [segmenter.segment(image, tta=True).labels for image in images]
    for given in (images, iter(images), tuple(images)):
        found = list(segmenter.segment_many(given, tta=True))
        assert len(found) == len(images)
        assert all(np.array_equal(one.labels, labels) for one, labels in zip(found, expected, strict=True))
    assert list(segmenter.segment_many([])) == []


def test_images_are_drawn_shortly_before_they_are_needed(segmenter, squares):
    drawn = []

    def endless():
        while True:
            drawn.append(1)
            yield squares

    found = segmenter.segment_many(endless())
    assert not drawn
    assert len(next(found)) == 6
    assert len(drawn) <= 2 + torch.get_num_threads()
    found.close()


def test_of_many_images_the_one_that_cannot_be_used_is_named(segmenter, squares):
    found = segmenter.segment_many([squares, squares[None, None], squares])
    assert len(next(found)) == 6
    with pytest.raises(InputError, match="Image 2: an array of shape"):
        next(found)
    with pytest.raises(InputError, match="A tile has 7 pixels"):
        segmenter.segment_many([squares], tile=7)


def test_what_numpy_makes_an_array_of_will_do(segmenter, squares):
    expected = segmenter.segment(squares).labels
    for image in (squares.tolist(), torch.from_numpy(squares), squares.astype(np.int64), squares > 0):
        assert np.array_equal(segmenter.segment(image).labels, expected)


@pytest.mark.parametrize(
    ("image", "message"),
    [
        ([[1, 2], [3]], "The image is a list that NumPy cannot make an array of; give rows of equal length"),
        (np.array(7), r"The image: an array of shape \(\); give one image of shape"),
        ([1, 2, 3], r"The image: an array of shape \(3,\); give one image"),
        (np.zeros((2, 5, 5, 1)), r"The image: an array of shape \(2, 5, 5, 1\); give one image"),
        ("cells.png", r"The image: an array of shape \(\); give one image"),
        ([["a", "b"], ["c", "d"]], "The image: pixels of type <U1; give integers, floats or booleans"),
        (np.full((4, 4), None), "The image: pixels of type object; give integers"),
        (np.zeros((4, 4), complex), "The image: pixels of type complex128; give integers"),
        (np.zeros((0, 4)), "The image has 0 x 4 pixels; at least one is needed"),
        (np.full((4, 4), np.nan), "The image: 16 values are NaN or infinite"),
    ],
)
def test_what_is_not_an_image_is_refused_in_a_sentence(segmenter, image, message):
    for call in (segmenter.segment, segmenter.prepared):
        with pytest.raises(InputError, match=message):
            call(image)


def test_objects_of_another_size_are_rescaled(segmenter, squares):
    double = squares.repeat(2, 0).repeat(2, 1)
    found = segmenter.segment(double, object_size=16.0)
    assert found.labels.shape == double.shape
    assert len(found) == 6
    assert ((found.labels > 0) == (double > 0)).mean() > 0.98


def test_a_model_of_another_scale_finds_the_same_objects_at_full_resolution(segmenter, squares):
    half = dataclasses.replace(segmenter.model.description, scale=0.5)
    segmenter.model.description = dataclasses.replace(half, object_size=16.0)
    double = squares.repeat(2, 0).repeat(2, 1)
    assert segmenter.prepared(double).shape == (1, 1, *squares.shape)
    found = segmenter.segment(double)
    assert (len(found), found.labels.shape) == (6, double.shape)
    assert ((found.labels > 0) == (double > 0)).mean() > 0.98
    smaller = segmenter.segment(squares, object_size=8.0)  # objects half as large as those of training
    assert (len(smaller), smaller.labels.shape) == (6, squares.shape)


def test_masks_that_overlap_are_resized_whole():
    masks = [np.zeros((4, 4), bool), np.zeros((4, 4), bool)]
    masks[0][:3, :3] = masks[1][1:, 1:] = True
    found = Instances.from_masks(masks, np.ones(2, np.int32), np.array([0.9, 0.8], np.float32), (4, 4))
    double = resized(found, (8, 8))
    for label in (1, 2):
        assert np.array_equal(double.mask(label), found.mask(label).repeat(2, 0).repeat(2, 1))


def test_masks_that_overlap_stay_in_front_where_they_were_and_leave_with_their_last_pixel():
    masks = [np.zeros((4, 6), bool) for _ in range(3)]
    masks[0][:3, :3] = masks[1][1:, 1:4] = masks[2][0, 5] = True
    labels = (masks[0] + 2 * (masks[1] & ~masks[0]) + 3 * masks[2]).astype(np.int32)
    scores = np.array([0.3, 0.8, 0.9])  # the less sure object is in front
    found = Instances(labels, np.array([1, 2, 3]), scores, tuple(map(encode_mask, masks)))
    half = resized(found, (2, 3))
    assert half.labels.tolist() == [[1, 2, 0], [2, 2, 0]]
    assert (half.classes.tolist(), half.scores.tolist()) == ([1, 2], [0.3, 0.8])
    for label in (1, 2):
        assert np.array_equal(half.mask(label), masks[label - 1][1::2, 1::2])
    double = resized(found, (8, 12))
    assert np.array_equal(double.labels, labels.repeat(2, 0).repeat(2, 1))
    for label, mask in enumerate(masks, 1):
        assert np.array_equal(double.mask(label), mask.repeat(2, 0).repeat(2, 1))


class Wide(Bright):
    """Pixels that point at themselves and claim six around them; of a square, two opposite corners are surest."""

    def forward(self, images):
        maps = super().forward(images)
        rows, columns = (torch.arange(n) % 8 for n in images.shape[-2:])
        is_corner = (rows[:, None] == columns) & (columns % 7 == 0)
        return Maps(
            torch.zeros_like(maps.offset), maps.sigma, torch.where(is_corner, maps.seed, maps.seed.clamp(max=2))
        )


def test_a_model_that_is_loaded_can_be_asked_for_whole_masks(monkeypatch, squares):
    monkeypatch.setitem(METHODS, "wide", Wide)
    options = {"seed_threshold": 0.95}
    model = Model(Description(method="wide", network="erfnet", channels=1, class_names=("object",), options=options))
    cut, whole = (Segmenter(model, device="cpu", dtype="float32", whole_masks=asked) for asked in (False, True))
    found, expected = whole.segment(squares), cut.segment(squares)
    assert np.array_equal(found.labels, expected.labels)
    assert expected.masks is None
    assert sum(found.mask(label).sum() for label in range(1, len(found) + 1)) > (found.labels > 0).sum()
    for label in range(1, len(found) + 1):
        assert found.mask(label)[found.labels == label].all()
    tiled = whole.segment(squares, tile=16)
    assert [runs.tolist() for runs in tiled.masks] == [runs.tolist() for runs in found.masks]


def test_a_method_whose_objects_cannot_overlap_refuses_whole_masks():
    model = Model(Description(method="rsis", network="erfnet", channels=1, class_names=("object",)))
    with pytest.raises(InputError, match="rsis gives each pixel to one object; leave whole masks out"):
        Segmenter(model, device="cpu", whole_masks=True)


def test_labels_of_an_image_do_not_depend_on_others(segmenter, squares):
    first = segmenter.segment(squares).labels
    segmenter.segment(np.random.default_rng(0).integers(0, 255, (9, 9)).astype(np.uint8))
    assert np.array_equal(segmenter.segment(squares).labels, first)


@pytest.mark.parametrize("value", [0, 7, 255])
def test_a_constant_image_is_empty(segmenter, value):
    found = segmenter.segment(np.full((12, 10), value, np.uint8))
    assert len(found) == 0
    assert found.labels.shape == (12, 10)


def test_devices():
    assert choose_device("cpu").type == "cpu"
    with pytest.raises(InputError, match='There is no device "gpu"; it can be auto, cpu, cuda, mps'):
        choose_device("gpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without CUDA")
def test_a_device_that_is_not_there():
    with pytest.raises(InputError, match="no cuda device that torch can use; leave the device at auto"):
        choose_device("cuda")


def test_auto_prefers_cuda_then_mps(monkeypatch):
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto").type == ("cuda" if torch.cuda.is_available() else "mps")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device("auto").type == "cuda"


def test_object_size_of_a_model_that_does_not_know_its_own(segmenter, squares):
    segmenter.model.description = Description(
        method="spatial-embeddings", network="erfnet", channels=1, class_names=("object",)
    )
    with pytest.raises(InputError, match="does not say what object size it was trained on"):
        segmenter.segment(squares, object_size=9.0)
