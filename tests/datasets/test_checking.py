"""What `check` says of data sets with one thing wrong each, and of sound ones."""

import dataclasses
import json
import math
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attractor.datasets import Sample, open_dataset
from attractor.datasets.checking import check, object_statistics
from attractor.datasets.coco import write_coco
from attractor.datasets.label_images import write_label_images
from attractor.errors import InputError
from attractor.images import write_labels
from attractor.recipe import recipe_for
from attractor.statistics import ObjectStatistics, to_other_sizes


def squares(side: int = 10, shape: tuple[int, int] = (100, 120)) -> np.ndarray:
    """Two squares, far from each other."""
    labels = np.zeros(shape, np.int32)
    labels[2 : 2 + side, 3 : 3 + side] = 1
    labels[60 : 60 + side, 70 : 70 + side] = 2
    return labels


def sample(name: str, labels: np.ndarray, channels: int = 1, kind: type = np.uint8) -> Sample:
    """A black image with these labels."""
    classes = np.ones(labels.max(), np.int32)
    return Sample(name, np.zeros((*labels.shape, channels), kind), labels, classes, np.zeros(labels.shape, bool))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A sound data set of three images."""
    write_label_images(tmp_path, [sample(name, squares()) for name in "abc"])
    return tmp_path


def test_a_sound_data_set_has_facts_and_suggestions(folder):
    report = check(folder)
    assert report.errors == ()
    assert report.warnings == ()
    assert report.counts == {"errors": 0, "warnings": 0, "images": 3, "objects": 6}
    text = "\n".join(report.lines())
    assert "label-images, 3 readable images" in text
    assert "images: 100 x 120 pixels; 1 channel uint8" in text
    assert "objects: 6, 2 to 2 in an image" in text
    assert "area: 100 pixels in the median" in text
    assert "crop size 96" in text
    assert "minimum object 100 pixels" in text
    assert "typical object size 11.3 pixels" in text
    assert text.endswith("This data set can be used. 0 errors, 0 warnings.")


def test_everything_wrong_is_listed_in_one_go(folder):
    (folder / "images" / "alone.png").write_bytes((folder / "images" / "a.png").read_bytes())
    (folder / "labels" / "single.png").write_bytes((folder / "labels" / "a.png").read_bytes())
    (folder / "images.csv").write_text("name\n")
    write_labels(folder / "labels" / "a.png", np.zeros((5, 6), np.int32))
    Image.fromarray(np.zeros((100, 120, 3), np.uint8)).save(folder / "labels" / "b.png")
    (folder / "images" / "c.png").write_bytes((folder / "images" / "c.png").read_bytes()[:60])
    report = check(folder)
    for expected in (
        "1 image has no label image in .* Alone: alone.png",
        "1 label image has no image in .* Alone: single.png",
        r"images\.csv: the first column is 'name'",
        r"a\.png: has 5 x 6 pixels, but its image a\.png has 100 x 120",
        r"b\.png: a label image must have one channel",
        r"c\.png: is damaged or cut short",
    ):
        assert sum(bool(re.search(expected, error)) for error in report.errors) == 1, expected
    assert report.counts["errors"] == 6
    assert report.lines()[-1] == "This data set cannot be used as it is. 6 errors, 0 warnings."


def test_of_one_kind_ten_are_listed(tmp_path):
    write_label_images(tmp_path, [sample(f"cell{k}", squares()) for k in range(14)])
    for k in range(13):
        (tmp_path / "images" / f"cell{k}.png").write_bytes(b"no image")
    report = check(tmp_path)
    assert len(report.errors) == 11
    assert report.errors[-1].startswith("and 3 more: is not an image")
    assert report.counts["errors"] == 13


@pytest.mark.parametrize("n", [0, 1])
def test_fewer_than_two_images_are_an_error(tmp_path, n):
    write_label_images(tmp_path, [sample("a", squares())] * n)
    assert any("training needs at least 2" in error for error in check(tmp_path).errors)


def test_a_path_that_is_no_data_set_is_an_error(tmp_path):
    assert "no such data set" in check(tmp_path / "nowhere").errors[0]
    assert "is not in any layout known here" in check(tmp_path).errors[0]
    (tmp_path / "annotations.json").write_text("{")
    report = check(tmp_path)
    assert "cut short or not JSON" in report.errors[0]
    assert report.statistics.images == 0


def test_pixels_that_differ_in_kind_are_warned_of(folder):
    Image.fromarray(np.zeros((100, 120, 3), np.uint8)).save(folder / "images" / "b.png")
    (warning,) = check(folder).warnings
    assert warning.startswith("Images differ in channels: 2 with 1 channel uint8, 1 with 3 channels uint8.")


def test_pixels_that_differ_in_type_are_warned_of(folder):
    Image.fromarray(np.zeros((100, 120), np.uint16)).save(folder / "images" / "b.png")
    (warning,) = check(folder).warnings
    assert warning.startswith("Images differ in the type of their pixels: 2 with 1 channel uint8")


def test_an_image_without_an_object_is_warned_of(folder):
    write_labels(folder / "labels" / "b.png", np.zeros((100, 120), np.int32))
    (warning,) = check(folder).warnings
    assert warning.startswith("1 image without an object: b.")


def test_an_object_in_pieces_is_warned_of_with_its_place(folder):
    labels = squares()
    labels[labels == 2] = 1  # one label for both squares
    labels[90, 100], labels[91, 101] = 2, 2  # diagonal neighbours are one piece
    labels[90:92, 103:106] = 2
    write_labels(folder / "labels" / "b.png", labels)
    (warning,) = check(folder).warnings
    assert warning.startswith(
        "2 objects in several pieces: b at row 2, column 3 (2 pieces), b at row 90, column 100 (2 pieces)"
    )


def test_objects_too_small_to_be_found_are_warned_of(folder):
    labels = squares()
    labels[90, 100:102], labels[95, 100], labels[98, 100:103] = 3, 4, 5
    write_labels(folder / "labels" / "b.png", labels)
    (warning,) = check(folder).warnings
    assert warning == "2 objects of 2 pixels or fewer, too small to be found: b (2)."


def test_truth_claimed_twice_and_lost_is_warned_of(tmp_path):
    write_coco(tmp_path, [sample("a", squares()), sample("b", squares())], ("cell", "vessel", "leaf"))
    file = tmp_path / "annotations.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["iscrowd"] = 1
    within = {"id": 99, "image_id": 2, "category_id": 2, "segmentation": [[4, 4, 7, 4, 7, 6, 4, 6]]}
    document["annotations"].append(within)
    file.write_text(json.dumps(document))
    report = check(tmp_path)
    assert report.errors == ()
    assert report.warnings[0].startswith(
        "1 image with pixels that two objects claim; they are ignored in training, unless data.overlap says who is in "
        "front: b (3%)"
    )
    assert report.warnings[1].startswith("1 annotated object left out, as others claim all of their pixels: b (1)")
    assert report.warnings[2] == "2 classes without an object: vessel, leaf."
    text = "\n".join(report.lines())
    assert [line.split() for line in text.splitlines() if line.startswith("  ")][:4] == [
        ["class", "objects", "images", "of", "all", "pixels", "median", "area"],
        ["cell", "3", "2", "1.23%", "100"],
        ["vessel", "0", "0", "0.00%", "-"],
        ["leaf", "0", "0", "0.00%", "-"],
    ]
    assert "ignored: 0.4% of all pixels, in 2 images" in text


def test_coco_annotations_that_cannot_be_used_are_listed_and_the_rest_is_read(tmp_path):
    write_coco(tmp_path, [sample(name, squares()) for name in "abc"], ("cell",))
    file = tmp_path / "annotations.json"
    document = json.loads(file.read_text())
    document["annotations"][0]["category_id"] = 5
    document["annotations"][1]["image_id"] = 77
    document["images"][2]["file_name"] = "gone.png"
    file.write_text(json.dumps(document))
    report = check(tmp_path)
    assert len(report.errors) == 3
    assert report.counts["images"] == 2
    assert report.counts["objects"] == 2


def test_statistics_of_objects(folder):
    statistics = object_statistics(open_dataset(folder))
    assert statistics.count == 6
    assert statistics.images == 3
    assert statistics.extents.tolist() == [[10, 10]] * 6
    assert statistics.area_percentiles[50] == 100
    assert statistics.typical_size == pytest.approx(2 * np.sqrt(100 / np.pi))
    assert statistics.min_object == 100
    (folder / "images" / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png"):
        object_statistics(open_dataset(folder))


@pytest.mark.parametrize(
    ("extent", "image", "crop"),
    [(10, 1000, 128), (66, 1000, 136), (64, 1000, 128), (400, 1000, 512), (400, 300, 296), (10, 50, 48), (10, 5, 8)],
)
def test_the_crop_covers_large_objects_twice_within_limits_and_the_image(extent, image, crop):
    statistics = ObjectStatistics(np.array([9]), np.array([[3, extent]]), np.array([[image, image + 40]]))
    assert statistics.crop_size == crop


def test_large_objects_are_shown_to_the_network_smaller():
    areas, extents, sizes = np.array([10_000] * 3), np.array([[100, 120]] * 3), np.array([[1000, 800]])
    large = ObjectStatistics(areas, extents, sizes)
    assert large.typical_size == pytest.approx(112.8, abs=0.1)
    assert large.scale == 0.27
    small = large.scaled(large.scale)
    assert small.typical_size == pytest.approx(30, abs=0.6)
    assert small.extents.tolist() == [[27, 32]] * 3
    assert small.image_sizes.tolist() == [[270, 216]]
    assert small.scale == 1
    assert ObjectStatistics(areas // 10, extents // 3, sizes).scale == 1


def disc(area):
    side = math.isqrt(area)
    return ObjectStatistics(np.array([area]), np.array([[side, side]]), np.array([[100, 100]]))


def test_the_crop_suggested_for_large_objects_is_that_of_the_scale_at_which_they_are_seen(tmp_path):
    labels = np.zeros((400, 400), np.int32)
    labels[50:150, 50:150] = 1
    write_label_images(tmp_path / "large", [sample("a", labels), sample("b", labels)])
    first, crop, *_ = check(tmp_path / "large").suggestions
    recipe = recipe_for(tmp_path / "large")
    assert first.startswith(
        f"scale {recipe.model.scale:g}: from scratch, the network sees such large objects 30 pixels"
    )
    assert recipe.model.scale < 0.5
    assert crop.startswith(f"crop size {recipe.training.crop_size}:")


def test_images_are_magnified_to_the_sizes_of_objects_in_the_others():
    small, usual = disc(100), disc(400)
    nothing = dataclasses.replace(usual, areas=np.zeros(0, int), extents=np.zeros((0, 2), int))
    images = [*[small] * 3, *[usual] * 3, nothing]
    assert np.allclose(to_other_sizes(images, 8.0), [*[(1, 2)] * 3, *[(0.5, 1)] * 3, (1, 1)])
    assert np.allclose(to_other_sizes(images, 1.6), [*[(1, 1.6)] * 3, *[(1 / 1.6, 1)] * 3, (1, 1)])
    assert to_other_sizes([nothing], 2.0) == [(1, 1)]


def test_no_image_is_magnified_to_the_sizes_of_a_few_that_are_unlike_all_others():
    factors = to_other_sizes([disc(10_000), *[disc(400)] * 30, disc(16)], 3.0)
    assert np.allclose(factors, [(1 / 3, 1), *[(1, 1)] * 30, (1, 3)])


def test_statistics_without_objects_or_images_are_defined():
    nothing = ObjectStatistics(np.zeros(0, int), np.zeros((0, 2), int), np.zeros((0, 2), int))
    assert (nothing.count, nothing.images, nothing.crop_size, nothing.min_object) == (0, 0, 256, 3)
    assert nothing.area_percentiles == {}
    assert np.isnan(nothing.typical_size)
