"""Outlines where they belong, in colours that differ, on a picture of any type."""

import numpy as np
import pytest

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.overlays import COLOURS, FIRST_TO_LAST, overlay

EMPTY = Instances.from_labels(np.zeros((20, 30), np.int32))
RAMP = np.linspace(0, 1, 600).reshape(20, 30, 1)


def instances_of(labels: np.ndarray) -> Instances:
    return Instances.from_labels(labels.astype(np.int32))


def outlines(labels: np.ndarray) -> np.ndarray:
    """The pixels of objects beside another label or the background."""
    padded = np.pad(labels, 1, mode="edge")
    beside = [padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:]]
    return (labels > 0) & np.any([other != labels for other in beside], 0)


def colour_of(picture: np.ndarray, labels: np.ndarray, label: int) -> tuple[int, ...]:
    colours = np.unique(picture[outlines(labels) & (labels == label)], axis=0)
    assert len(colours) == 1
    return tuple(colours[0].tolist())


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int16, np.uint16, np.int32, np.uint64, np.float16, np.float64])
@pytest.mark.parametrize("channels", [1, 2, 3, 4, 7])
def test_any_type_and_number_of_channels(dtype, channels):
    highest = 1 if dtype is bool or np.issubdtype(dtype, np.floating) else 100
    image = np.repeat(np.rint(RAMP * highest) if highest > 1 else RAMP > 0.5, channels, -1).astype(dtype)
    picture = overlay(image, EMPTY)
    assert picture.shape == (20, 30, 3)
    assert picture.dtype == np.uint8
    assert (picture.min(), picture.max()) == (0, 255)


def test_grey_stays_grey():
    picture = overlay(RAMP, EMPTY)
    assert (picture == picture[..., :1]).all()


def test_a_picture_is_stretched_between_its_percentiles():
    picture = overlay(np.arange(1000, dtype=np.uint16).reshape(20, 50, 1), instances_of(np.zeros((20, 50))))
    flat = picture[..., 0].ravel().astype(int)
    assert (np.diff(flat) >= 0).all()
    assert flat[9] == 0
    assert flat[13] > 0
    assert flat[990] < 255
    assert flat[998] == 255


def test_photographs_keep_their_colours():
    image = np.stack([np.tile(np.arange(100), (10, 1)), np.full((10, 100), 50), np.zeros((10, 100))], -1).astype(
        np.uint8
    )
    picture = overlay(image, instances_of(np.zeros((10, 100))))
    assert (picture[..., 2] == 0).all()
    assert (picture[..., 1] == picture[0, 50, 0]).all()


def test_channels_of_other_types_fill_their_own_range():
    image = np.concatenate([RAMP, RAMP * 1e-3, RAMP * 1e6], -1)
    picture = overlay(image, EMPTY)
    assert (picture == picture[..., :1]).all()


def test_a_few_bright_pixels_on_black_are_seen():
    image = np.zeros((100, 100, 1), np.uint16)
    image[50, 50] = 9
    assert overlay(image, instances_of(np.zeros((100, 100))))[50, 50].tolist() == [255, 255, 255]


@pytest.mark.parametrize("value", [0, 7, 255])
@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 1, 3), (5, 4, 1)])
def test_a_constant_image_is_black(value, shape):
    assert not overlay(np.full(shape, value, np.uint8), instances_of(np.zeros(shape[:2]))).any()


def test_values_that_are_not_finite_are_black():
    image = RAMP.copy()
    image[3, 4], image[5, 6] = np.nan, np.inf
    picture = overlay(image, EMPTY)
    assert picture[3, 4, 0] == picture[5, 6, 0] == 0
    assert picture.max() == 255
    assert not overlay(np.full_like(RAMP, np.nan), EMPTY).any()


def test_one_pixel_that_is_an_object():
    assert overlay(np.zeros((1, 1, 1), np.uint8), instances_of(np.ones((1, 1)))).shape == (1, 1, 3)


def test_outlines_are_one_pixel_wide_and_inside():
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = 1
    drawn = overlay(np.zeros((9, 9, 1), np.uint8), instances_of(labels)).any(-1)
    np.testing.assert_array_equal(drawn, outlines(labels))


@pytest.mark.parametrize("seed", range(20))
def test_outlines_separate_objects_that_touch_and_leave_the_border_free(seed):
    labels = np.random.default_rng(seed).integers(0, 4, (7, 9)).repeat(2, 0).repeat(3, 1).astype(np.int32)
    drawn = overlay(np.zeros((*labels.shape, 1), np.uint8), Instances(labels, np.ones(3, int), np.ones(3))).any(-1)
    np.testing.assert_array_equal(drawn, outlines(labels))
    assert not overlay(np.zeros((3, 3, 1), np.uint8), instances_of(np.ones((3, 3)))).any()


def test_outlines_are_two_pixels_wide_on_a_large_picture():
    labels = np.zeros((1501, 1502), np.int32)
    labels[100:200, 100:200] = 1
    drawn = overlay(np.zeros((1501, 1502, 1), np.uint8), instances_of(labels)).any(-1)
    expected = labels > 0
    expected[102:198, 102:198] = False
    np.testing.assert_array_equal(drawn, expected)


def test_neighbours_differ_in_colour():
    tiles = np.arange(1, 401).reshape(20, 20)
    labels = np.kron(tiles, np.ones((6, 6))).astype(np.int32)
    labels[::6] = labels[:, ::6] = 0  # a line of background between
    picture = overlay(np.zeros((120, 120, 1), np.uint8), instances_of(labels))
    colours = np.array([colour_of(picture, labels, label) for label in range(1, 401)]).reshape(20, 20, 3)
    assert (colours[1:] != colours[:-1]).any(-1).all()
    assert (colours[:, 1:] != colours[:, :-1]).any(-1).all()
    assert colours.any(-1).all()


def test_objects_that_touch_differ_in_colour_on_a_picture_seen_coarsely():
    last = len(COLOURS) + 1  # would take the colour of label 1 if they did not touch
    labels = np.zeros((3000, 3000), np.int32)
    labels[1000:1003, 1000:1002], labels[1000:1003, 1002:1004] = 1, last
    picture = overlay(np.zeros((3000, 3000, 1), np.uint8), Instances(labels, np.ones(last, int), np.ones(last)))
    assert (picture[1001, 1001] != picture[1001, 1002]).any()


def test_more_neighbours_than_colours():
    labels = np.zeros((40, 40), np.int32)
    labels[1::2, :] = 1
    labels[::2, ::2] = np.arange(2, 402).reshape(20, 20)
    picture = overlay(np.zeros((40, 40, 1), np.uint8), instances_of(labels))
    assert picture[labels > 0].any(-1).all()


def test_in_order_colours_run_from_first_to_last():
    labels = np.zeros((3, 11), np.int32)
    labels[1, 1::2] = [5, 1, 2, 3, 4]
    picture = overlay(np.zeros((3, 11, 1), np.uint8), instances_of(labels), order=True)
    assert picture[1, 3].tolist() == FIRST_TO_LAST[0].tolist()
    assert picture[1, 1].tolist() == FIRST_TO_LAST[-1].tolist()


def test_lines_are_thick_where_asked():
    labels = np.zeros((9, 9), np.int32)
    labels[1:8, 1:8] = 1
    picture = overlay(np.zeros((9, 9, 1), np.uint8), instances_of(labels), thick=True)
    assert picture[2, 4].any()
    assert not picture[3, 4].any()


def test_the_picture_given_is_left_alone():
    image = np.full((9, 9, 3), 100, np.uint8)
    labels = np.zeros((9, 9), np.int32)
    labels[2:7, 2:7] = 1
    overlay(image, instances_of(labels))
    assert (image == 100).all()


def test_a_picture_of_another_size_is_refused():
    with pytest.raises(InputError, match="20 x 29 pixels, but its label image has 20 x 30"):
        overlay(RAMP[:, 1:], EMPTY)
