"""What every method promises: a newcomer is tested by being listed."""

import inspect
import math
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from attractor.augmentation import VIEWS
from attractor.description import Description
from attractor.errors import InputError
from attractor.methods import METHODS
from attractor.methods.contract import HasCurriculum, Method, Turns, lacking
from attractor.model import Model
from attractor.networks import NETWORKS
from attractor.statistics import ObjectStatistics
from attractor.truth import Truth

# Small, so that the tests are quick.
SMALL = {
    "rsis": {"hidden": 32, "steps": 5},
    "recurrent-pixel-embedding": {"dimension": 8, "groups": 8, "pixels": 300, "loops_from": 8},
}

# Learning rate and greatest norm of a gradient: RSIS emits one object after another, and a long step can lose one.
STEPS_OF = {"rsis": (1e-3, 0.5)}


def make(name, **options):
    torch.manual_seed(0)
    return METHODS[name](partial(NETWORKS["erfnet"], 1), **(SMALL.get(name, {}) | options))


def discs(*places, side=64):
    """A picture of bright discs, (row, column, radius) each, and its labels."""
    rows, columns = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for number, (row, column, radius) in enumerate(places, 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 <= radius**2] = number
    image = (labels > 0) + 0.1 * np.random.default_rng(0).normal(size=labels.shape)
    for number, (row, column, _) in enumerate(places, 1):  # shaded, so that touching discs can be told apart
        distance = np.hypot(rows - row, columns - column)
        image -= np.where(labels == number, 0.05 * distance, 0)
    return torch.tensor(image, dtype=torch.float32)[None, None], labels


def truth_of(labels):
    labels = torch.from_numpy(np.atleast_3d(labels.T).T.reshape(-1, *labels.shape[-2:]).copy())
    k = max(1, int(labels.max()))
    return Truth(labels, torch.ones(len(labels), k, dtype=torch.int64), torch.ones_like(labels, dtype=torch.bool))


def shaken(maps):
    """Maps that no network gives: those of one that has just been made say the same everywhere."""
    return type(maps)(**{name: value + 0.2 * torch.randn_like(value) for name, value in vars(maps).items()})


def are_found(found, labels):
    """Whether each object is one of those found, with an IoU above 0.7."""
    return all(
        any(
            (mask & own).sum() > 0.7 * (mask | own).sum()
            for mask in (found.labels == k for k in range(1, len(found) + 1))
        )
        for own in (labels == k for k in range(1, labels.max() + 1))
    )


@pytest.mark.parametrize("name", METHODS)
def test_is_a_method(name):
    method = make(name)
    assert isinstance(method, Method)
    assert lacking(method) == []
    options = inspect.signature(METHODS[name]).parameters
    assert {*(f"{term}_weight" for term in method.weights), *method.thresholds} <= set(options)
    assert set(method.thresholds) == set(method.threshold_ranges) == set(method.threshold_candidates)
    for threshold, (low, high) in method.threshold_ranges.items():
        assert low <= method.thresholds[threshold] <= high
        assert all(low <= candidate <= high for candidate in method.threshold_candidates[threshold])


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1e9])
def test_numbers_that_cannot_be_are_refused(name, value):
    """Every weight and threshold, in one sentence that names it."""
    method = make(name)
    numbers = {f"{term}_weight": weight for term, weight in method.weights.items()} | method.thresholds
    for option, usual in numbers.items():
        if isinstance(usual, int):
            value = -(10**9)  # whole numbers are neither infinite nor none
        with pytest.raises(InputError, match=f"{option} is "):
            make(name, **{option: value})


@pytest.mark.parametrize("name", METHODS)
def test_learns_one_image_by_heart(name):
    """No disc is as bright as another: such small networks need long to tell equal ones apart by their places alone."""
    image, labels = discs((16, 16, 9), (16, 36, 9), (45, 20, 12), (48, 50, 7))
    image += 0.3 * torch.from_numpy(labels - 1).clamp(min=0)
    method, truth = make(name), truth_of(labels)
    rate, longest = STEPS_OF.get(name, (2e-3, math.inf))
    optimizer = torch.optim.Adam(method.parameters(), rate)
    for step in range(240):
        if isinstance(method, HasCurriculum):
            method.at_epoch(step // 10)
        terms = method.train().loss(method(image), truth)
        optimizer.zero_grad()
        sum(method.weights[key] * value for key, value in terms.items()).backward()
        nn.utils.clip_grad_norm_(method.parameters(), longest)
        optimizer.step()
        if step in (119, 179, 239):
            with torch.no_grad():
                (found,) = method.eval().group(method(image))
            if are_found(found, labels):
                return
    pytest.fail(f"{len(found)} objects were found, and not the four that were shown")


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("case", ["empty", "one object", "one pixel", "whole image", "all ignored"])
def test_losses_and_gradients_are_finite(name, case):
    labels = np.zeros((1, 16, 24), np.int32)
    if case == "one object":
        labels[0, 3:9, 4:12] = 1
    if case == "one pixel":
        labels[0, 5, 5] = 1
    if case == "whole image":
        labels[:] = 1
    truth = truth_of(labels)
    if case == "all ignored":
        truth = Truth(truth.labels, truth.classes, torch.zeros_like(truth.valid))
    method = make(name)
    terms = method.loss(method(torch.rand(1, 1, 16, 24)), truth)
    assert set(terms) == set(method.weights)
    sum(method.weights[key] * value for key, value in terms.items()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    assert all(torch.isfinite(p.grad).all() for p in method.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", METHODS)
def test_ignored_pixels_do_not_count(name):
    labels = np.zeros((1, 16, 24), np.int32)
    labels[0, 2:8, 2:8] = 1
    truth = truth_of(labels)
    truth.valid[0, :, 16:] = False
    method = make(name).eval()
    maps = method(torch.rand(1, 1, 16, 24))
    changed = type(maps)(
        **{
            key: torch.cat([value[..., :16], torch.rand_like(value[..., 16:])], -1) if value.ndim == 4 else value
            for key, value in vars(maps).items()
        }
    )
    other = truth_of(np.where(truth.valid.numpy(), labels, 1).astype(np.int32))
    other = Truth(other.labels, other.classes, truth.valid)
    losses = []
    for given in ((maps, truth), (changed, other)):
        torch.manual_seed(0)  # for losses of sampled pixels
        losses.append(method.loss(*given))
    for key, value in losses[0].items():
        assert torch.equal(value, losses[1][key])


@pytest.mark.parametrize("name", METHODS)
def test_labels_do_not_depend_on_the_batch(name):
    method = make(name).eval()
    images = torch.rand(3, 1, 24, 32)
    with torch.no_grad():
        together = method.group(method(images))
        alone = [method.group(method(image[None]))[0] for image in images]
    for a, b in zip(together, alone, strict=True):
        assert np.array_equal(a.labels, b.labels)


@pytest.mark.parametrize("name", METHODS)
def test_a_saved_and_loaded_model_gives_the_same_labels(name, tmp_path):
    torch.manual_seed(0)
    options = SMALL.get(name, {})
    model = Model(Description(method=name, network="erfnet", channels=1, class_names=("object",), options=options))
    model.eval().save(tmp_path / "model.safetensors")
    images = torch.rand(1, 1, 24, 32)
    loaded = Model.load(tmp_path / "model.safetensors")
    with torch.no_grad():
        (own,), (other,) = (one.method.group(one(images)) for one in (model, loaded))
    assert np.array_equal(own.labels, other.labels)
    assert np.array_equal(own.scores, other.scores)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 33)])
def test_images_of_any_size_are_answered(name, network, size):
    torch.manual_seed(0)
    method = METHODS[name](partial(NETWORKS[network], 1), **SMALL.get(name, {})).eval()
    with torch.no_grad():
        (found,) = method.group(method(torch.rand(1, 1, *size)))
    assert found.labels.shape == size


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_grouping_ends_whatever_the_network_says(name, value):
    """Half of the image, a whole map, or all of it is no number; the rest is as it was."""
    method = make(name).eval()
    with torch.no_grad():
        maps = shaken(method(torch.rand(1, 1, 24, 32)))
    spoilt = [
        {key: torch.full_like(x, value) if key == wrong else x for key, x in vars(maps).items()} for wrong in vars(maps)
    ]
    half = torch.arange(32) < 16
    spoilt.append({key: torch.where(half, value, x) if x.ndim == 4 else x for key, x in vars(maps).items()})
    spoilt.append({key: torch.full_like(x, value) for key, x in vars(maps).items()})
    for content in spoilt:
        (found,) = method.group(type(maps)(**content))
        assert found.labels.shape == (24, 32)
        assert np.isfinite(found.scores).all()


@pytest.mark.parametrize("name", METHODS)
def test_three_hundred_objects_are_held_or_the_limit_is_said(name):
    """Three hundred squares in a row of twenty by fifteen; the loss takes them all, or the method names its limit."""
    labels = np.kron(np.arange(1, 301).reshape(15, 20), np.ones((4, 4), int)).astype(np.int32)
    labels[::4], labels[:, ::4] = 0, 0
    method, truth = make(name), truth_of(labels)
    maps = method(torch.rand(1, 1, *labels.shape))
    terms = method.loss(maps, truth)
    sum(method.weights[key] * value for key, value in terms.items()).backward()
    assert all(torch.isfinite(value) for value in terms.values())
    (found,) = method.eval().group(maps)
    if method.max_instances is not None:
        assert len(found) <= method.max_instances


@pytest.mark.parametrize("name", METHODS)
def test_methods_say_what_suits_a_data_set(name):
    statistics = ObjectStatistics(
        areas=np.array([100, 200]), extents=np.array([[10, 12], [12, 20]]), image_sizes=np.array([[256, 256]])
    )
    options = METHODS[name].suggestions(statistics)["model"]["options"]
    assert options["min_size"] >= 0
    make(name, **options)


@pytest.mark.parametrize("name", METHODS)
def test_thresholds_are_options_of_the_method_and_can_be_tuned(name):
    method = make(name)
    make(name, **method.thresholds)


TURNING = [name for name, method in METHODS.items() if issubclass(method, Turns)]


@pytest.mark.parametrize("name", TURNING)
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_maps_that_are_turned_back_say_of_the_image_what_they_said_of_the_view(name, view):
    """The loss of any maps of a view, with the view's truth, is that of the maps turned back, with the image's."""
    method = make(name).double().eval()
    _, labels = discs((8, 9, 6), (8, 22, 5), (20, 14, 4), side=30)
    truth = truth_of(labels[:26])
    seen = Truth(view.apply(truth.labels), truth.classes, view.apply(truth.valid))
    with torch.no_grad():
        maps = shaken(method(torch.rand(1, 1, *seen.labels.shape[-2:], dtype=torch.float64)))
        expected = method.loss(maps, seen)
        found = method.loss(method.turned(maps, view), truth)
    for term, value in expected.items():
        torch.testing.assert_close(found[term], value)


@pytest.mark.parametrize("name", TURNING)
def test_the_mean_of_equal_maps_is_each_of_them(name):
    method = make(name).double().eval()
    with torch.no_grad():
        maps = shaken(method(torch.rand(1, 1, 16, 24, dtype=torch.float64)))
        mean = method.averaged([maps, maps, maps])
    for key, value in vars(maps).items():
        torch.testing.assert_close(vars(mean)[key], value)
