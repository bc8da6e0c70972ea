"""The ablation's own arithmetic: smaller images, the score seeded by the truth, and what may be said of an order."""

from pathlib import Path

import numpy as np
import pytest
from benchmarks.ablation import (
    ROWS,
    above,
    correlation_interval,
    recipe_of_row,
    scaled,
    scaled_copy,
    seeded_scores,
    train_once,
    write_start,
)

from attractor.datasets import Sample, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.errors import InputError
from attractor.instances import Instances
from attractor.model import Model
from attractor.recipe import write_recipe


def sample_of(labels: np.ndarray, image: np.ndarray | None = None, ignore: np.ndarray | None = None) -> Sample:
    labels = np.asarray(labels, np.int32)
    image = np.zeros((*labels.shape, 1), np.uint8) if image is None else image
    ignore = np.zeros(labels.shape, bool) if ignore is None else ignore
    return Sample("a", image, labels, np.ones(labels.max(initial=0), np.int32), ignore)


def instances_of(masks: list[np.ndarray]) -> Instances:
    n = len(masks)
    return Instances.from_masks(masks, np.ones(n, np.int32), np.ones(n, np.float32), masks[0].shape)


# ---------------------------------------------------------------- images


def test_a_halved_image_is_the_mean_of_each_four_pixels():
    image = np.array([[0, 4, 10, 10], [4, 8, 10, 10]], np.uint8)[..., None]
    halved = scaled(sample_of(np.zeros((2, 4)), image), 0.5)
    assert halved.image.dtype == np.uint8
    assert halved.image[..., 0].tolist() == [[4, 10]]


def test_halving_keeps_labels():
    labels = np.kron(np.array([[1, 0, 2], [1, 3, 2]]), np.ones((2, 2), int))
    halved = scaled(sample_of(labels), 0.5)
    assert halved.labels.tolist() == [[1, 0, 2], [1, 3, 2]]
    assert halved.labels.dtype == np.int32
    assert len(halved.classes) == 3


def test_an_object_that_keeps_no_pixel_is_left_out():
    labels = np.zeros((4, 4), int)
    labels[0, 0], labels[2:, 2:] = 1, 2
    halved = scaled(sample_of(labels), 0.5)
    assert halved.labels.tolist() == [[0, 0], [0, 1]]
    assert len(halved.classes) == 1


@pytest.mark.parametrize("scale", [0.3, 0.5, 0.77, 1.0])
def test_the_mean_of_an_image_stays_at_any_scale(scale: float):
    image = np.random.default_rng(0).random((13, 17, 2)).astype(np.float32)
    smaller = scaled(sample_of(np.zeros((13, 17)), image), scale)
    assert smaller.image.shape == (round(13 * scale), round(17 * scale), 2)
    np.testing.assert_allclose(smaller.image.mean((0, 1)), image.mean((0, 1)), rtol=1e-5)


def test_a_copy_is_made_once(tmp_path: Path):
    write_label_images(tmp_path / "data", [sample_of(np.eye(8))], columns={"stain": {"a": "blue"}})
    copy = scaled_copy(str(tmp_path / "data"), tmp_path / "out", "train", 0.5)
    dataset = open_dataset(copy)
    assert dataset[0].labels.shape == (4, 4)
    assert dataset.columns == {"stain": {"a": "blue"}}
    before = (Path(copy) / "images" / "a.png").stat().st_mtime_ns
    assert scaled_copy(str(tmp_path / "data"), tmp_path / "out", "train", 0.5) == copy
    assert (Path(copy) / "images" / "a.png").stat().st_mtime_ns == before
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["train_0.5"]


def test_at_full_scale_nothing_is_copied(tmp_path: Path):
    assert scaled_copy("somewhere", tmp_path / "out", "train", 1.0) == "somewhere"
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("scale", [0.0, -1.0, 2.0])
def test_images_are_not_enlarged(scale: float, tmp_path: Path):
    with pytest.raises(InputError, match="factor above 0 and up to 1"):
        scaled_copy("somewhere", tmp_path, "train", scale)


# ---------------------------------------------------------------- seeded by the truth


def test_half_of_the_objects_right_is_a_third():
    labels = np.array([[1, 1, 1, 1, 0, 2, 2, 2, 2, 0]])
    three_of_four = labels == 1
    three_of_four[0, 0] = False  # IoU 3 / 4
    too_large = labels > 0  # IoU 4 / 8
    too_large[0, 4] = True  # 4 / 9
    scores = seeded_scores(
        sample_of(labels), instances_of([three_of_four, too_large]), thresholds=(0.4, 0.5, 0.75, 0.8)
    )
    assert scores.tp.tolist() == [2, 1, 1, 0]
    assert scores.fp.tolist() == scores.fn.tolist() == [0, 1, 1, 2]
    np.testing.assert_allclose(scores.average_precision, [1, 1 / 3, 1 / 3, 0])
    np.testing.assert_allclose(scores.matched_iou, [3 / 4 + 4 / 9, 3 / 4, 3 / 4, 0])


def test_masks_that_overlap_are_scored_whole():
    labels = np.array([[1, 1, 2, 2]])
    both_too_large = [np.array([[True, True, True, False]]), np.array([[False, True, True, True]])]
    scores = seeded_scores(sample_of(labels), instances_of(both_too_large), thresholds=(0.6,))  # 2 / 3 each
    assert scores.tp.tolist() == [2]


def test_an_object_on_the_place_of_another_is_wrong():
    labels = np.array([[1, 1, 2, 2]])
    scores = seeded_scores(sample_of(labels), instances_of([labels == 2, labels == 1]))
    assert scores.average_precision.tolist() == [0] * 10


def test_an_image_without_objects_is_right():
    empty = Instances.from_labels(np.zeros((2, 3), np.int32))
    assert seeded_scores(sample_of(np.zeros((2, 3))), empty).average_precision.tolist() == [1] * 10


def test_ignored_pixels_count_for_nothing():
    labels = np.array([[1, 2, 2, 0]])
    ignore = np.array([[True, False, False, True]])  # all of object 1
    found = instances_of([np.array([[False, True, True, True]])])
    assert seeded_scores(sample_of(labels, ignore=ignore), found).average_precision.tolist() == [1] * 10


# ---------------------------------------------------------------- the order


def test_a_row_is_above_another_only_where_the_ranges_part():
    values = {"a": [0.5, 0.6], "b": [0.3, 0.55], "c": [0.1, 0.29]}
    assert above(values) == [("a", "c"), ("b", "c")]


def test_one_seed_says_nothing():
    assert above({"a": [0.9], "b": [0.1]}) == []
    assert above({"a": [0.9, 0.8], "b": [0.1]}) == []


def test_equal_ends_overlap():
    assert above({"a": [0.5, 0.6], "b": [0.4, 0.5]}) == []


def test_the_interval_of_a_perfect_order_has_no_width():
    sizes = np.arange(1.0, 13.0)
    low, high = correlation_interval(sizes, sizes**2, np.repeat(np.arange(4), 3))
    assert low == pytest.approx(1)
    assert high == pytest.approx(1)


# ---------------------------------------------------------------- the runs


def test_rows_differ_in_two_options_alone(tmp_path: Path):
    write_label_images(tmp_path, [sample_of(np.eye(8))])
    changes = ["training.epochs=2", 'model.options.margin="fixed"', "training.seed=9"]
    recipes = [
        recipe_of_row(str(tmp_path), row, 3, margin=10.0, start=None, changes=changes).model_dump()
        for row in ROWS.values()
    ]
    assert {recipe["training"]["epochs"] for recipe in recipes} == {2}
    assert {recipe["training"]["seed"] for recipe in recipes} == {3}
    options = [(r["model"]["options"].pop("margin"), r["model"]["options"].pop("centre")) for r in recipes]
    assert options == [(row.margin, row.centre) for row in ROWS.values()]
    assert all(recipe == recipes[0] for recipe in recipes)


def test_a_start_has_the_encoder_and_new_decoders(tmp_path: Path, tiny_model: Path):
    write_label_images(tmp_path / "data", [sample_of(np.eye(8))])
    given = Model.load(tiny_model).method.network.state_dict()
    for name, row in ROWS.items():
        recipe = recipe_of_row(str(tmp_path / "data"), row, 0, margin=10.0, start=str(tiny_model), changes=[])
        write_start(recipe, str(tiny_model), tmp_path / f"{name}.safetensors")
        own = Model.load(tmp_path / f"{name}.safetensors").method.network.state_dict()
        assert all((own[key] == given[key]).all() for key in given if key.startswith("encoder"))
        assert own["decoders.1.6.bias"] != given["decoders.1.6.bias"]
        assert len(own["decoders.0.6.bias"]) == {"fixed": 2, "circular": 3, "elliptical": 4}[row.margin]


def test_a_model_of_other_settings_is_refused(tmp_path: Path, tiny_model: Path):
    write_label_images(tmp_path / "data", [sample_of(np.eye(8))])
    data, row = str(tmp_path / "data"), ROWS["fixed"]
    recipe = recipe_of_row(data, row, 0, margin=10.0, start=None, changes=[])
    folder = tmp_path / "fixed-0"
    folder.mkdir()
    (folder / "model.safetensors").touch()
    write_recipe(folder / "recipe.toml", recipe)
    train_once(recipe, folder, None)  # is not repeated
    other = recipe_of_row(data, row, 0, margin=10.0, start=None, changes=["training.epochs=3"])
    with pytest.raises(InputError, match="was trained with other settings"):
        train_once(other, folder, None)
    with pytest.raises(InputError, match="was trained with other settings"):
        train_once(recipe, folder, str(tiny_model))
