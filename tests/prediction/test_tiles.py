"""An image in tiles has the objects of the whole image, and is computed so where memory demands it."""

import numpy as np
import pytest
import torch

import attractor
from attractor.description import Description
from attractor.errors import InputError
from attractor.instances import overlap
from attractor.model import Model
from attractor.networks import NETWORKS
from attractor.prediction import memory
from attractor.prediction.image import Segmenter, Source
from attractor.prediction.tiles import maps_within, strips, tiled_maps

CPU = torch.device("cpu")


def cells(side, spacing, random):
    """A grey picture of bright discs on a dark ground, one centred on every multiple of the spacing."""
    picture = random.integers(10, 24, (side, side)).astype(np.uint8)
    rows, columns = np.mgrid[:side, :side]
    for row in range(spacing, side, spacing):
        for column in range(spacing, side, spacing):
            picture[np.hypot(rows - row, columns - column) < random.uniform(9, 12)] += 130
    return picture


def agreement(first, second):
    """Share of pixels that belong to the same object in both, or to none."""
    table = overlap(first.labels, second.labels)
    partner = np.concatenate([[0], table[1:, 1:].argmax(1) + 1])
    return (partner[first.labels] == second.labels).mean()


@pytest.mark.slow
def test_objects_on_every_seam_are_those_of_the_whole_image():
    picture = cells(960, 64, np.random.default_rng(0))
    segmenter = attractor.load("nuclei", device="cpu", dtype="float32")
    whole = segmenter.segment(picture)
    tiled = segmenter.segment(picture, tile=448)  # the seventh and fourteenth row and column of discs lie on a seam
    assert len(whole) == len(tiled) == 14 * 14
    assert agreement(whole, tiled) > 0.9999  # a halo of 64 pixels gives .9998, none .9993
    for label in range(1, len(whole) + 1):
        (own,) = np.unique(tiled.labels[whole.labels == label])[-1:]
        assert (tiled.labels == own).sum() == pytest.approx((whole.labels == label).sum(), rel=0.05)


def untrained(n_classes=2, **options):
    """A segmenter whose network says something of every pixel, and something else everywhere."""
    torch.manual_seed(0)
    names = tuple(f"class {n}" for n in range(n_classes))
    model = Model(
        Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=names, options=options)
    )
    for head in model.method.network.heads:
        torch.nn.init.normal_(head.weight, std=0.3)
    easy = {"foreground_threshold": 0.3, "seed_threshold": 0.3, "min_size": 0.0}
    return Segmenter(model.eval(), device="cpu", thresholds=easy, dtype="float32")


@pytest.mark.parametrize(
    "options", [{}, {"margin": "circular"}, {"objective": "regression", "margin": "fixed", "centre": "centroid"}]
)
@pytest.mark.parametrize("n_classes", [1, 2])
def test_what_is_gathered_of_strips_groups_as_the_stitched_maps(options, n_classes):
    segmenter = untrained(n_classes, **options)
    picture = np.random.default_rng(0).integers(0, 255, (100, 76)).astype(np.uint8)
    tiled = segmenter.segment(picture, tile=32)
    (stitched,) = segmenter.model.method.group(segmenter.maps(segmenter.prepared(picture), tile=32))
    assert len(tiled) > 5
    np.testing.assert_array_equal(tiled.labels, stitched.labels)
    np.testing.assert_array_equal(tiled.scores, stitched.scores)
    np.testing.assert_array_equal(tiled.classes, stitched.classes)


def test_strips_are_rows_of_the_stitched_maps():
    segmenter = untrained()
    image = torch.rand(1, 1, 100, 76)
    whole = vars(tiled_maps(segmenter.model.method, image, 32, halo=32))
    at = 0
    for rows, maps in strips(segmenter.model.method, image, 32, halo=32):
        assert rows.start == at
        for name, part in vars(maps).items():
            assert torch.equal(part, whole[name][..., rows, :])
        at = rows.stop
    assert at == 100


def test_maps_of_a_part_are_those_of_the_whole():
    segmenter = untrained()
    image = torch.rand(1, 1, 100, 76)
    whole = vars(tiled_maps(segmenter.model.method, image, 32, halo=32))
    part = maps_within(segmenter.model.method, image, slice(32, 100), slice(64, 76), 32, halo=32)
    for name, values in vars(part).items():
        assert torch.equal(values, whole[name][..., 32:100, 64:76])


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_parts_of_an_image_are_normalised_as_the_whole(kind, tiny_model):
    pixels = np.random.default_rng(0).integers(0, 200, (30, 40, 3)).astype(kind)
    normalisation = Model.load(tiny_model).description.normalisation
    source = Source(pixels, normalisation, CPU)
    whole = torch.from_numpy(normalisation(pixels)).permute(2, 0, 1)[None]
    assert source.shape == whole.shape == (1, 3, 30, 40)
    assert torch.equal(source[..., :, :], whole)
    assert torch.equal(source[..., 4:20, 8:16], whole[..., 4:20, 8:16])
    assert source[..., :, :].dtype == torch.float32


def test_views_of_tiles_are_averaged(tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu", dtype="float32")
    image = torch.rand(1, 1, 48, 48)
    whole, tiled = segmenter.maps(image, tta=True), segmenter.maps(image, tta=True, tile=16)
    for name, value in vars(whole).items():  # the halo holds all of the image
        torch.testing.assert_close(vars(tiled)[name], value, atol=1e-4, rtol=1e-4)


# --- memory -----------------------------------------------------------------------------------------------------------


def test_tiles_are_chosen_by_the_size_of_the_image_and_the_network(monkeypatch):
    network = untrained().model.method.network
    pixel = memory.bytes_per_pixel(network)

    def tile_with(pixels, height=10_000, width=10_000):
        monkeypatch.setattr(memory, "MOST_BYTES", int(pixels * pixel) + 1)
        return memory.chosen_tile(height, width, network)

    assert tile_with(10_000**2) is None
    assert tile_with(10_000**2 - 1000) == 2048
    assert tile_with(2000**2) == 1024
    assert tile_with(1300**2) == 512
    assert tile_with(0) == 256
    assert tile_with(512 * 512, 512, 512) is None
    assert memory.chosen_tile(512, 512, network, magnification=1.25) == 256  # for the network, 640 x 640 pixels


@pytest.mark.parametrize("name", NETWORKS)
def test_ordinary_images_are_computed_whole_whatever_memory_is_free(monkeypatch, name):
    monkeypatch.setattr(memory, "free_memory", lambda device: 0)
    network = NETWORKS[name](3, (3, 1))
    assert memory.chosen_tile(2048, 2048, network) is None
    assert memory.chosen_tile(20_000, 20_000, network) is not None


def test_free_memory_is_what_a_container_has_left(monkeypatch, tmp_path):
    everything = memory.free_memory(CPU)
    assert 0 < everything < 1 << 50
    limit, used, kinds = (tmp_path / name for name in ("memory.max", "memory.current", "memory.stat"))
    monkeypatch.setattr(memory, "CGROUPS", ((limit, used, kinds),))
    used.write_text("900\n")
    kinds.write_text("anon 700\ninactive_file 150\nactive_file 50\n")  # files are given back when asked for
    for text, free in (("1000\n", 300), ("500\n", 0)):
        limit.write_text(text)
        assert memory.free_memory(CPU) == free
    limit.write_text("max\n")
    assert memory.free_memory(CPU) > 1000


def test_large_images_are_tiled_without_being_asked(monkeypatch, tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu", dtype="float32")
    picture = np.random.default_rng(0).integers(0, 255, (300, 280)).astype(np.uint8)
    tiled = segmenter.segment(picture, tile=256).labels
    monkeypatch.setattr(memory, "MOST_BYTES", 0)
    prediction = segmenter.predict(picture)
    np.testing.assert_array_equal(prediction.found.labels, tiled)
    assert prediction.tile == 256


def test_smaller_tiles_are_taken_when_memory_runs_out_and_that_is_said(monkeypatch, caplog, tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu", dtype="float32")
    picture = np.random.default_rng(0).integers(0, 255, (600, 520)).astype(np.uint8)
    expected = segmenter.segment(picture, tile=256).labels
    asked = []
    compute = type(segmenter)._mapped

    def with_little_memory(self, source, tta, name, tile):
        asked.append(tile)
        if tile is None or tile > 256:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        return compute(self, source, tta, name, tile)

    monkeypatch.setattr(type(segmenter), "_mapped", with_little_memory)
    prediction = segmenter.predict(picture, name="cells.png")
    np.testing.assert_array_equal(prediction.found.labels, expected)
    assert prediction.tile == 256
    assert asked == [None, 512, 256]
    np.testing.assert_array_equal(segmenter.segment(picture).labels, expected)
    assert asked == [None, 512, 256, 256]
    assert [record.getMessage() for record in caplog.records] == [
        "cells.png: memory ran out on cpu; computed in tiles of 512 now.",
        "cells.png: memory ran out on cpu; computed in tiles of 256 now.",
    ]


def test_memory_that_is_not_enough_for_the_smallest_tiles_is_an_error(monkeypatch, tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu")

    def never(self, *arguments):
        raise MemoryError

    monkeypatch.setattr(type(segmenter), "_mapped", never)
    with pytest.raises(MemoryError):
        segmenter.segment(np.random.default_rng(0).integers(0, 255, (600, 520)).astype(np.uint8))


def test_an_image_with_more_pixels_than_can_be_numbered_is_refused(tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu")
    huge = np.broadcast_to(np.uint8(1), (1 << 16, 1 << 15))  # takes no memory
    with pytest.raises(
        InputError, match=r"65536 x 32768 pixels; .* fewer than 2,147,483,648 .* in blocks with --out NAME"
    ):
        segmenter.segment(huge)
