"""Laws of label images, and small ones by hand."""

import io
from inspect import unwrap

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import array_shapes, arrays
from PIL import Image
from pycocotools import mask as coco_mask

from attractor.errors import InputError
from attractor.instances import (
    Instances,
    areas,
    decode_mask,
    encode_mask,
    encode_masks,
    encode_pixels,
    overlap,
    relabel,
)

SHAPES = array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=12)
LABELS = arrays(np.int32, SHAPES, elements=st.integers(0, 6))
MASKS = arrays(bool, SHAPES)


def in_image(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.int32)


# ---- relabel


def test_relabel_keeps_the_order_of_labels():
    labels, ids = relabel(in_image([[0, 9, 9], [4, 0, 700]]))
    assert labels.tolist() == [[0, 2, 2], [1, 0, 3]]
    assert ids.tolist() == [4, 9, 700]


@pytest.mark.parametrize("highest", [70_000, 2_000_000_000])  # a table, and sorting
def test_relabel_takes_any_number(highest):
    labels, ids = relabel(in_image([[0, highest], [3, 3]]))
    assert labels.tolist() == [[0, 2], [1, 1]]
    assert ids.tolist() == [3, highest]


def test_relabel_without_background():
    assert relabel(in_image([[2_000_000_000, 5]]))[0].tolist() == [[2, 1]]


@given(LABELS)
def test_relabel_gives_each_object_back_by_its_number(labels):
    before = labels.copy()
    new, ids = relabel(labels)
    assert new.dtype == np.int32
    np.testing.assert_array_equal(np.concatenate([[0], ids])[new], labels)
    np.testing.assert_array_equal(np.unique(new[new > 0]), np.arange(1, len(ids) + 1))
    np.testing.assert_array_equal(relabel(new)[0], new)
    np.testing.assert_array_equal(labels, before)


def test_relabel_refuses_negative_labels():
    with pytest.raises(InputError, match="negative label -1"):
        relabel(in_image([[0, -1]]))


def test_three_hundred_objects_stay_three_hundred():
    assert len(Instances.from_labels(np.arange(301, dtype=np.int32)[None])) == 300


# ---- overlap, areas, centres


def test_overlap_counts_shared_pixels():
    table = overlap(in_image([[0, 1, 1, 2]]), in_image([[1, 1, 1, 0]]))
    assert table.tolist() == [[0, 1], [0, 2], [1, 0]]


@given(LABELS, st.integers(0, 3))
def test_overlap_sums_to_areas_and_turns_with_its_arguments(truth, shift):
    found = np.roll(truth, shift)
    table = overlap(truth, found)
    assert table.sum() == truth.size
    np.testing.assert_array_equal(table.sum(1), np.bincount(truth.ravel()))
    np.testing.assert_array_equal(table.T, overlap(found, truth))


def test_overlap_of_many_labels_on_few_pixels():
    truth, found = in_image([[0, 3000], [5, 5]]), in_image([[2000, 2000], [0, 1]])
    table = overlap(truth, found)
    assert table.shape == (3001, 2001)
    assert (table[0, 2000], table[3000, 2000], table[5, 0], table[5, 1]) == (1, 1, 1, 1)
    assert table.sum() == 4


def test_overlap_refuses_images_of_different_shape():
    with pytest.raises(InputError, match=r"truth \(1, 2\), found \(2, 1\)"):
        unwrap(overlap)(np.zeros((1, 2), np.int32), np.zeros((2, 1), np.int32))  # the checker of shapes would be first


def test_areas_count_pixels_also_of_labels_without_one():
    assert areas(in_image([[1, 1, 0], [0, 0, 3]]), 3).tolist() == [2, 0, 1]


# ---- run lengths


@given(MASKS)
def test_decoding_gives_the_encoded_mask(mask):
    runs = encode_mask(mask)
    assert runs.sum() == mask.size
    np.testing.assert_array_equal(decode_mask(runs, mask.shape), mask)


@given(MASKS)
def test_runs_are_those_of_coco(mask):
    runs = {"counts": encode_mask(mask).tolist(), "size": list(mask.shape)}
    packed = coco_mask.frPyObjects(runs, *mask.shape)
    np.testing.assert_array_equal(coco_mask.decode(packed).astype(bool), mask)
    assert packed["counts"] == coco_mask.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"]


def test_runs_by_hand():
    mask = np.array([[1, 0], [1, 1]], bool)
    assert encode_mask(mask).tolist() == [0, 2, 1, 1]  # down the columns, zeros first


def test_runs_must_fill_the_image():
    with pytest.raises(InputError, match="cover 3 pixels, but the image has 2 x 2"):
        decode_mask(np.array([1, 2]), (2, 2))
    with pytest.raises(InputError, match="cover 4 pixels"):
        decode_mask(np.array([5, -1]), (2, 2))


# ---- Instances


def masks_of(*rows: list[int]) -> list[np.ndarray]:
    return [np.array([row], bool) for row in rows]


def test_where_masks_overlap_the_higher_score_wins():
    masks = masks_of([1, 1, 1, 0], [0, 1, 1, 1])
    instances = Instances.from_masks(masks, np.array([1, 2]), np.array([0.3, 0.9]), (1, 4))
    assert instances.labels.tolist() == [[1, 2, 2, 2]]
    np.testing.assert_array_equal(instances.mask(1), masks[0])
    np.testing.assert_array_equal(instances.mask(2), masks[1])


def test_of_equal_scores_the_earlier_mask_wins():
    masks = masks_of([1, 1, 0, 0], [0, 1, 1, 0], [0, 0, 1, 1])
    instances = Instances.from_masks(masks, np.ones(3, int), np.ones(3), (1, 4))
    assert instances.labels.tolist() == [[1, 1, 2, 3]]


def test_a_wholly_hidden_object_keeps_its_mask():
    masks = masks_of([1, 1], [0, 1])
    instances = Instances.from_masks(masks, np.ones(2, int), np.array([0.9, 0.1]), (1, 2))
    assert instances.labels.tolist() == [[1, 1]]
    assert len(instances) == 2
    np.testing.assert_array_equal(instances.mask(2), masks[1])


def test_no_masks_are_an_empty_image():
    instances = Instances.from_masks([], np.zeros(0, int), np.zeros(0), (2, 3))
    assert len(instances) == 0
    assert not instances.labels.any()


@given(LABELS)
def test_masks_that_do_not_overlap_give_their_label_image(labels):
    whole = Instances.from_labels(labels, class_number=3)
    masks = [whole.mask(label) for label in range(1, len(whole) + 1)]
    again = Instances.from_masks(masks, whole.classes, whole.scores, labels.shape)
    np.testing.assert_array_equal(again.labels, whole.labels)
    assert (whole.classes == 3).all()
    assert (whole.scores == 1).all()


ONE = in_image([[0, 1]])


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"labels": in_image([[1, 2]])}, "has label 2, but classes are given for 1"),
        ({"labels": in_image([[0, -1]])}, "has the negative label -1; labels are 0 for background"),
        (
            {"labels": ONE.astype(np.int64)},
            r"labels of objects are an array of int64 of shape \(1, 2\); give an array of",
        ),
        ({"labels": ONE.astype(np.float32)}, "an array of float32"),
        ({"labels": ONE[0]}, r"of shape \(2,\); give an array of int32 of shape \(h, w\), or \(d, h, w\) for a volume"),
        ({"labels": [[0, 1]]}, "labels of objects are a list; give an array"),
        ({"classes": np.ones(2, int)}, "2 classes but 1 scores"),
        ({"classes": np.zeros(1, int)}, "has the class 0; classes are counted from 1"),
        ({"classes": np.array([-3])}, "has the class -3"),
        ({"classes": np.ones(1)}, "classes of objects are an array of float64 .*; give whole numbers"),
        ({"classes": np.ones((1, 1), int)}, r"of shape \(1, 1\)"),
        ({"classes": np.array([True])}, "an array of bool"),
        ({"classes": np.array([3]), "class_names": ("cell", "debris")}, "has the class 3, but there are names for 2"),
        ({"scores": np.array([7.0])}, "has the score 7; scores lie between 0 and 1"),
        ({"scores": np.array([-0.1])}, "has the score -0.1"),
        ({"scores": np.array([np.nan])}, "has the score nan"),
        ({"scores": np.ones(1, int)}, "scores of objects are an array of int64 .*; give fractions"),
        ({"scores": [1.0]}, "scores of objects are a list"),
        ({"masks": (np.array([0, 2]), np.array([0, 2]))}, "2 masks but 1 classes"),
    ],
)
def test_what_cannot_be_is_refused(parts, message):
    with pytest.raises(InputError, match=message):
        unchecked(**parts).__post_init__()


def test_of_several_objects_the_one_that_cannot_be_is_named():
    with pytest.raises(InputError, match=r"has the score 1\.5"):
        Instances(in_image([[1, 2]]), np.ones(2, int), np.array([0.25, 1.5]))


def test_an_image_without_pixels_or_objects_is_well():
    assert len(Instances(np.zeros((0, 5), np.int32), np.ones(0, int), np.ones(0))) == 0
    assert len(Instances(np.zeros((2, 5), np.int32), np.ones(0, int), np.ones(0), class_names=("cell",))) == 0


def unchecked(**parts: object) -> Instances:
    """One object with parts that the checker of shapes would refuse before the message of ours is reached."""
    instances = object.__new__(Instances)
    whole = {"labels": ONE, "classes": np.ones(1, int), "scores": np.ones(1), "masks": None, "class_names": ()}
    for name, value in (whole | parts).items():
        object.__setattr__(instances, name, value)
    return instances


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.ones((2, 2), bool), r"A mask does not say .* skimage\.measure\.label\(mask\).* mask\.astype\(int\)"),
        (np.ones((2, 2)), "labels of objects are an array of float64"),
        (np.ones((2, 2, 2, 2), int), r"of shape \(2, 2, 2, 2\); give an array of whole numbers of shape \(h, w\), or"),
        ([[1, 2]], "labels of objects are a list"),
        (np.array([[0, -1]]), "has the negative label -1"),
    ],
)
def test_what_is_not_a_label_image_is_refused(labels, message):
    with pytest.raises(InputError, match=message):
        unwrap(relabel)(labels)  # of which from_labels makes its objects


@given(LABELS)
def test_masks_of_all_labels_are_those_of_each(labels):
    runs = encode_masks(labels, 7)  # one label more than there can be
    assert len(runs) == 7
    for k, own in enumerate(runs, 1):
        assert np.array_equal(decode_mask(own, labels.shape), labels == k)


@given(LABELS)
def test_masks_of_pixels_in_any_order_are_those_of_the_image(labels):
    pixels = np.random.default_rng(0).permutation(np.flatnonzero(labels))
    assert np.array_equal(decode_mask(encode_pixels(pixels, labels.shape), labels.shape), labels > 0)


# ---- what can be made of a result

TWO = Instances(
    in_image([[0, 1, 1], [2, 2, 2]]), np.array([1, 2]), np.array([0.5, 1.0]), class_names=("cell", "debris")
)


def test_the_table_names_classes_and_measures_the_image_that_is_given():
    assert TWO.table()["class"] == ["cell", "debris"]
    assert "mean_intensity" not in TWO.table()
    assert TWO.table(pixel_size=(0.5, 0.5))["area_um2"] == [0.5, 0.75]
    image = np.arange(12).reshape(2, 3, 2)
    assert TWO.table(image)["max_intensity_1"] == [5, 11]
    assert TWO.table(image[..., 0])["max_intensity"] == [4, 10]


def test_every_column_of_the_table_has_a_value_for_each_object():
    assert {len(column) for column in TWO.table().values()} == {2}
    assert {len(column) for column in Instances.from_labels(np.zeros((2, 3), int)).table().values()} == {0}


@pytest.mark.parametrize(
    ("classes", "names", "expected"),
    [
        ([1, 2], ("cell", "debris"), ["cell", "debris"]),
        ([1, 1], (), ["object"] * 2),
        ([1, 3], (), ["class 1", "class 3"]),
    ],
)
def test_classes_have_names_also_where_nobody_gave_any(classes, names, expected):
    found = Instances(TWO.labels, np.array(classes), TWO.scores, class_names=names)
    assert found.table()["class"] == expected
    features = found.to_geojson()["features"]
    assert [feature["properties"]["classification"]["name"] for feature in features] == expected
    document = found.to_coco("a.png")
    by_id = {category["id"]: category["name"] for category in document["categories"]}
    assert [by_id[annotation["category_id"]] for annotation in document["annotations"]] == expected
    assert document["images"][0]["file_name"] == "a.png"


def test_a_coco_document_has_the_masks_of_the_objects():
    for k, annotation in enumerate(TWO.to_coco()["annotations"], 1):
        np.testing.assert_array_equal(coco_mask.decode(annotation["segmentation"]), TWO.mask(k))


@pytest.mark.parametrize(("shape", "shown"), [((2, 3), (2, 3)), ((1500, 3), (750, 2))])
def test_a_notebook_shows_a_picture_of_the_labels(shape, shown):
    labels = np.zeros(shape, np.int32)
    labels[1, :2] = 1, 2
    png = Instances.from_labels(labels)._repr_png_()
    picture = np.asarray(Image.open(io.BytesIO(png)))
    assert picture.shape == (*shown, 3)
    if shape == shown:
        assert picture.any(-1).tolist() == [[False] * 3, [True, True, False]]
        assert (picture[1, 0] != picture[1, 1]).any()
