"""The grouping for a GPU equals the plain one, pixel for pixel; without a GPU Triton's interpreter runs it."""

import logging
import math
import os
import subprocess
import sys
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.kernels.test_seeded_gaussians import (
    DEFAULTS,
    STEP,
    both_precisions,
    by_triton,
    coordinates,
    disc_maps,
    random_maps,
)
from tests.kernels.test_seeded_gaussians import assert_equal_to_plain as assert_form_equal_to_plain
from tests.methods.test_spatial_embeddings import method, perfect_maps

from attractor.kernels import devices
from attractor.methods import spatial_embeddings

kernel = pytest.importorskip("attractor.kernels.seeded_gaussians_cuda", reason="needs Triton, which is for Linux")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"


assert_equal_to_plain = partial(assert_form_equal_to_plain, form=by_triton)


def in_small_steps(monkeypatch):
    """Several cells, blocks and parts also for small images."""
    for name, value in {"PIXELS_PER_CELL": 6, "BLOCK": 8, "CELLS": 4, "PARTS": 3, "ROUNDS": 2, "SAMPLE": 20}.items():
        monkeypatch.setattr(kernel, name, value)


def drawn(data):
    """Maps of a few pixels and options, all at random."""
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    h, w = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 7))
    dtype = data.draw(st.sampled_from([np.float32, np.float64]))
    maps = random_maps(
        random, h, w, dtype, data.draw(st.sampled_from([0.1, 3, 50])), data.draw(st.sampled_from([0.3, 3, 40]))
    )
    return maps, {
        "foreground_threshold": data.draw(st.sampled_from([-1.0, 0.0, 0.3, 0.5, 0.9])),
        "seed_threshold": data.draw(st.sampled_from([0.0, 0.5, 0.7, 0.9, 1.0])),
        "min_size": data.draw(st.sampled_from([0, 1, 4, 30])),
        "min_foreground": data.draw(st.sampled_from([0, 5])),
        "min_free": data.draw(st.sampled_from([0, 5, 20])),
        "count_seed": data.draw(st.booleans()),
        "overwrite": data.draw(st.booleans()),
    }


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_maps(data):
    maps, options = drawn(data)
    assert_equal_to_plain(*maps, **options)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_maps_in_small_steps(data):
    maps, options = drawn(data)
    with pytest.MonkeyPatch.context() as monkeypatch:
        in_small_steps(monkeypatch)
        assert_equal_to_plain(*maps, **options)


@both_precisions
@pytest.mark.parametrize(("count_seed", "overwrite"), [(False, True), (True, False)])
def test_discs(dtype, count_seed, overwrite):
    maps = disc_maps(np.random.default_rng(0), dtype, size=20, n=5, radius=4)
    labels, _ = assert_equal_to_plain(*maps, seed_threshold=0.7, count_seed=count_seed, overwrite=overwrite, min_size=8)
    assert labels.max() >= 3


@both_precisions
@pytest.mark.parametrize("levels", [1, 2])
def test_the_first_of_equal_seeds_goes_first(dtype, levels, monkeypatch):
    in_small_steps(monkeypatch)
    embedding, concentration, seed = random_maps(np.random.default_rng(levels), 4, 8, dtype)
    seed = (0.6 + 0.4 * np.floor(seed * levels) / levels).astype(dtype)
    assert_equal_to_plain(embedding, concentration, seed, overwrite=False)


@both_precisions
@pytest.mark.parametrize("value", [np.inf, np.nan, 0.0, 1e-45, 1e30, 3e38], ids=str)
def test_any_concentration(dtype, value, monkeypatch):
    in_small_steps(monkeypatch)
    random = np.random.default_rng(0)
    embedding, concentration, seed = random_maps(random, 4, 5, dtype)
    with np.errstate(under="ignore"):
        concentration = np.where(random.random((2, 4, 5)) < 0.3, value, concentration).astype(dtype)
    assert_equal_to_plain(embedding, concentration, seed, count_seed=True)


@both_precisions
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 1e30, 1e200], ids=str)
def test_any_embedding(dtype, value, monkeypatch):
    in_small_steps(monkeypatch)
    random = np.random.default_rng(0)
    embedding, concentration, seed = random_maps(random, 4, 5, dtype)
    with np.errstate(over="ignore"):
        embedding[:, random.random((4, 5)) < 0.3] = dtype(value)
    concentration[random.random(concentration.shape) < 0.2] = 0
    assert_equal_to_plain(embedding, concentration, seed, min_free=3, foreground_threshold=0.2)


@both_precisions
@pytest.mark.parametrize("concentration", [1e-45, 0.0, 1e38])
def test_infinite_embeddings_beside_endless_margins(dtype, concentration):
    random = np.random.default_rng(0)
    embedding, _, seed = random_maps(random, 4, 5, dtype)
    embedding[:, random.random((4, 5)) < 0.3] = np.inf
    with np.errstate(under="ignore"):
        concentration = np.full_like(embedding, concentration)
    assert_equal_to_plain(embedding, concentration, seed)


@both_precisions
@pytest.mark.parametrize("values", [[np.nan, 0.7], [np.inf, 0.7, 0.8], [0.0, 1.0], [3.0, 0.6, -0.5]], ids=str)
def test_any_seed_score(dtype, values):
    random = np.random.default_rng(0)
    embedding, concentration, _ = random_maps(random, 4, 5, dtype)
    seed = random.choice(values, (4, 5)).astype(dtype)
    assert_equal_to_plain(embedding, concentration, seed)
    assert_equal_to_plain(embedding, concentration, seed, foreground_threshold=-0.6, seed_threshold=0.0)


@both_precisions
@pytest.mark.parametrize("shape", [(1, 20), (20, 1), (2, 1)], ids=str)
def test_strips(dtype, shape, monkeypatch):
    in_small_steps(monkeypatch)
    assert_equal_to_plain(*random_maps(np.random.default_rng(1), *shape, dtype))


@both_precisions
@pytest.mark.parametrize("far", [10, 1e4, 1e8])
def test_embeddings_far_outside_the_image(dtype, far, monkeypatch):
    in_small_steps(monkeypatch)
    random = np.random.default_rng(0)
    embedding, concentration, seed = random_maps(random, 4, 5, dtype)
    embedding[:, random.random((4, 5)) < 0.3] += (far * random.choice([-1, 1], (2, 1))).astype(dtype)
    assert_equal_to_plain(embedding + dtype(far), concentration, seed)


@both_precisions
def test_seeds_that_point_nowhere_have_their_turn(dtype):
    """They come first and claim nothing, so that three of ten pixels are no more free when the others' turn comes."""
    embedding, concentration = np.zeros((2, 1, 10), dtype), np.ones((2, 1, 10), dtype)
    embedding[:, 0, :3] = np.nan
    seed = np.where(np.isnan(embedding[0]), 0.9, 0.8).astype(dtype)
    for min_free, n_objects in ((6, 1), (7, 0)):
        _, scores = assert_equal_to_plain(embedding, concentration, seed, min_free=min_free)
        assert len(scores) == n_objects


@pytest.mark.parametrize("shape", [(1, 50), (50, 1)], ids=str)
def test_pixels_just_inside_the_margin_are_claimed_from_other_cells(shape, monkeypatch):
    monkeypatch.setattr(kernel, "PIXELS_PER_CELL", 1)
    monkeypatch.setattr(kernel, "ROUNDS", 1)
    embedding = coordinates(*shape).astype(np.float32)
    concentration = np.full_like(embedding, math.log(2) / (12.03 * STEP) ** 2)
    seed = np.where(np.arange(50) % 25 == 12, 0.9, 0.6).astype(np.float32).reshape(shape)
    labels, _ = assert_equal_to_plain(embedding, concentration, seed)
    assert labels.ravel().tolist() == [1] * 25 + [2] * 25


@both_precisions
def test_all_pixels_point_at_one_place_with_one_huge_margin(dtype):
    embedding, concentration, seed = random_maps(np.random.default_rng(0), 50, 50, dtype)
    for place in (0.1, 1e5):
        labels, _ = assert_equal_to_plain(np.full_like(embedding, place), concentration * dtype(1e-9), seed)
        assert labels.max() == 1


def test_more_than_a_hundred_objects():
    h, w = 9, 12
    seed = 0.5 + 0.5 * np.random.default_rng(0).permutation(h * w).reshape(h, w).astype(np.float32) / (h * w)
    maps = coordinates(h, w).astype(np.float32), np.full((2, h, w), 4 / STEP**2, np.float32), seed
    _, scores = assert_equal_to_plain(*maps, count_seed=True, foreground_threshold=0.0)
    assert len(scores) == h * w


def test_maps_that_are_not_contiguous():
    maps = [torch.from_numpy(x).to(DEVICE) for x in random_maps(np.random.default_rng(0), 5, 6, np.float32)]
    turned = [x.mT.contiguous().mT for x in maps]
    assert not turned[0].is_contiguous()
    with np.errstate(all="ignore"):
        one, other = (kernel.seeded_gaussians_cuda(*given, **DEFAULTS) for given in (maps, turned))
    assert torch.equal(one[0], other[0])
    assert one[0].any()


def test_objects_that_lie_apart_take_a_few_rounds_however_many(monkeypatch):
    radius, spacing = 2, 6
    position = coordinates(6 * spacing, 10 * spacing)
    centre = (position // (spacing * STEP) + 0.5) * spacing * STEP
    random = np.random.default_rng(0)
    distance = np.hypot(*(position - centre)) / (radius * STEP)
    embedding = centre + random.normal(0, 0.1 * radius * STEP, position.shape)
    seed = np.exp(-math.log(2) * distance**2) * random.uniform(0.9, 1, distance.shape)
    concentration = np.full_like(position, math.log(2) / (radius * STEP) ** 2)
    rounds = []
    take_some = kernel._take_some
    monkeypatch.setattr(kernel, "ROUNDS", 1)
    monkeypatch.setattr(kernel, "_take_some", lambda *state: rounds.append(take_some(*state)))
    _, scores = assert_equal_to_plain(*(x.astype(np.float32) for x in (embedding, concentration, seed)))
    assert len(scores) == 60
    assert len(rounds) <= 4


def test_every_launch_forbids_fused_multiplication(monkeypatch):
    launcher, said = type(kernel._claim), []
    run = launcher.run
    monkeypatch.setattr(
        launcher, "run", lambda self, *given, **options: said.append(options) or run(self, *given, **options)
    )
    assert_equal_to_plain(*random_maps(np.random.default_rng(0), 3, 3, np.float32))
    assert len(said) >= 4
    assert all(options["enable_fp_fusion"] is False for options in said)


COMPILED = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from attractor.kernels import seeded_gaussians_cuda as kernel

integers = {"bounds": "*i32", "free": "*i1", "best": "*i32", "outcome": "*i32", "rank": "*i32", "owner": "*i32"}
integers |= {"key": "*i16", "is_seed": "*i1"} | dict.fromkeys(["n", "k", "n_cells", "rows", "columns"], "i32")
for function in (kernel._sort_key, kernel._best, kernel._claim, kernel._paint):
    names = function.arg_names
    constants = {name: 1024 for name in names if name in ("block", "cells", "overwrite")}
    types = {name: "constexpr" if name in constants else integers.get(name, "*fp32") for name in names}
    source = ASTSource(function, types, {(names.index(name),): value for name, value in constants.items()})
    for fuse in (False, True):
        made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"enable_fp_fusion": fuse})
        print(made.asm["ptx"].count("fma."), end=" ")
"""


def test_kernels_compile_for_a_gpu_without_fused_multiplication(tmp_path):
    """For each kernel, how often the compiled code multiplies and adds in one step: forbidden, and allowed."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    call = [sys.executable, "-c", COMPILED]
    counts = subprocess.run(call, env=environment, check=True, capture_output=True, text=True).stdout.split()
    forbidden, allowed = counts[::2], counts[1::2]
    assert forbidden == ["0"] * 4
    assert all(int(count) > 0 for count in allowed[2:])  # of the two kernels that decide membership


def test_nothing_imports_triton_on_a_cpu():
    code = """
import sys
import numpy as np
import attractor
image = np.random.default_rng(0).integers(0, 255, (48, 48)).astype(np.uint8)
attractor.load("nuclei", device="cpu").segment(image)
sys.exit("triton" in sys.modules)
"""
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


# -------------------------------------------------------------------- in the method


def grouped_there(se, maps, monkeypatch):
    """What the method finds where it takes the maps to be on a GPU."""
    monkeypatch.setattr(spatial_embeddings, "runs_triton", lambda device_type: True)
    there = type(maps)(*(x.to(DEVICE) for x in vars(maps).values()))
    with np.errstate(all="ignore"):
        return se.group(there)[0]


@pytest.mark.parametrize("n_classes", [1, 2])
@pytest.mark.parametrize("min_size", [0, 12])
def test_the_method_finds_the_same_objects_there(n_classes, min_size, monkeypatch):
    labels = np.zeros((12, 16), np.int32)
    labels[1:6, 1:6], labels[1:6, 8:13], labels[7:11, 3:7] = 1, 2, 3
    maps = perfect_maps(labels, classes=[1, 2, 1] if n_classes == 2 else None, n_classes=n_classes)
    torch.manual_seed(n_classes)
    maps.seed.add_(2 * torch.randn(maps.seed.shape))
    if n_classes == 2:
        maps.seed[0, 1, 1:6, 1:4] = 7.0  # the other class takes a part of the first object
    se = method(n_classes=n_classes, min_size=min_size)
    (here,) = se.group(maps)
    there = grouped_there(se, maps, monkeypatch)
    assert len(here) >= 3
    assert set(here.classes) == set(range(1, n_classes + 1))
    np.testing.assert_array_equal(there.labels, here.labels)
    np.testing.assert_array_equal(there.classes, here.classes)
    np.testing.assert_allclose(there.scores, here.scores, rtol=1e-5)  # a GPU's sigmoid is its own


def test_no_objects_are_found_there_either(monkeypatch):
    found = grouped_there(method(n_classes=2), perfect_maps(np.zeros((4, 5), np.int32), n_classes=2), monkeypatch)
    assert len(found) == 0
    assert found.labels.shape == (4, 5)


def test_regression_is_grouped_on_the_processor(monkeypatch):
    monkeypatch.setattr(kernel, "seeded_gaussians_cuda", None)
    labels = np.zeros((8, 24), np.int32)
    labels[2:6, 1:11], labels[2:6, 12:22] = 1, 2
    maps = perfect_maps(labels)
    maps = type(maps)(maps.offset, maps.sigma[:, :0], maps.seed)
    se = method(objective="regression", margin="fixed", centre="centroid", fixed_margin=6.0)
    found = grouped_there(se, maps, monkeypatch)
    assert np.array_equal(found.labels, labels)


def test_without_a_compiler_objects_are_grouped_on_the_processor_and_that_is_said(monkeypatch, caplog):
    runs_triton = devices.runs_triton.__wrapped__
    assert not runs_triton("cpu")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (6, 1))
    assert not runs_triton("cuda")
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (9, 0))
    monkeypatch.setenv("CC", "gcc")
    monkeypatch.setattr(devices.Path, "exists", lambda path: True)
    assert runs_triton("cuda")
    monkeypatch.delenv("CC")
    monkeypatch.setattr(devices, "which", lambda name: None)
    with caplog.at_level(logging.WARNING):
        assert not runs_triton("cuda")
    assert "Triton needs a C compiler (found: none) and Python's header files (found: /" in caplog.text


# -------------------------------------------------------------------- on a GPU


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@both_precisions
@pytest.mark.parametrize("overwrite", [True, False])
def test_large_maps_on_a_gpu(dtype, overwrite):
    for random in map(np.random.default_rng, range(3)):
        discs = disc_maps(random, dtype, size=256, n=40, radius=14)
        labels, _ = assert_equal_to_plain(*discs, min_size=8, overwrite=overwrite)
        assert labels.max() >= 20
        scattered = random_maps(random, 256, 256, dtype)
        assert_equal_to_plain(*scattered, seed_threshold=0.9, count_seed=True, overwrite=overwrite)
