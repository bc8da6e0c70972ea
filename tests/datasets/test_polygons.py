"""Outlines along pixel edges: by hand, and by the law that filled again they give the same pixels."""

import tracemalloc

import numpy as np
import pytest
from scipy import ndimage

from attractor.datasets.polygons import (
    Ellipse,
    Polygon,
    as_points,
    encode_in_box,
    fill,
    fill_in_box,
    joined,
    label_rings,
    rings,
)
from attractor.errors import InputError
from attractor.instances import encode_mask


def mask_of(*rows: str) -> np.ndarray:
    """A mask from a drawing."""
    return np.array([[letter == "#" for letter in row] for row in rows])


def listed(parts: list) -> list:
    """Corners as plain lists."""
    return [[ring.tolist() for ring in part] for part in parts]


def doubled_area(ring: np.ndarray) -> int:
    """Twice the area within a ring, positive where it runs clockwise on the screen."""
    after = np.roll(ring, -1, axis=0)
    return int((ring[:, 0] * after[:, 1] - after[:, 0] * ring[:, 1]).sum())


def random_masks(n: int) -> list[np.ndarray]:
    """Masks of all densities, with holes, islands in holes and pixels that meet in a corner only."""
    generator = np.random.default_rng(0)
    noise = [generator.random(generator.integers(1, 14, 2)) < generator.random() for _ in range(n // 2)]
    smooth = [ndimage.gaussian_filter(generator.random((30, 40)), 1.5) > 0.5 for _ in range(n // 2)]
    return noise + smooth


def test_a_pixel_has_four_corners():
    assert listed(rings(mask_of("...", "..#"))) == [[[[2, 1], [3, 1], [3, 2], [2, 2]]]]


def test_corners_stand_only_where_an_outline_turns():
    assert listed(rings(np.ones((2, 5), bool))) == [[[[0, 0], [5, 0], [5, 2], [0, 2]]]]


def test_an_empty_mask_has_no_part():
    assert rings(np.zeros((3, 4), bool)) == []
    assert label_rings(np.zeros((3, 4), np.int32), 2) == [[], []]


def test_a_hole_runs_the_other_way():
    ((outline, hole),) = rings(mask_of("###", "#.#", "###"))
    assert outline.tolist() == [[0, 0], [3, 0], [3, 3], [0, 3]]
    assert hole.tolist() == [[2, 1], [1, 1], [1, 2], [2, 2]]


def test_an_island_in_a_hole_is_a_part():
    parts = rings(mask_of("#####", "#...#", "#.#.#", "#...#", "#####"))
    assert [len(part) for part in parts] == [2, 1]


def test_pixels_that_meet_in_a_corner_are_two_parts():
    assert listed(rings(mask_of("#.", ".#"))) == [
        [[[0, 0], [1, 0], [1, 1], [0, 1]]],
        [[[1, 1], [2, 1], [2, 2], [1, 2]]],
    ]


def test_a_part_that_meets_itself_in_a_corner_has_a_hole_there():
    ((outline, hole),) = rings(mask_of(".##", "#.#", "###"))
    assert outline.tolist() == [[1, 0], [3, 0], [3, 3], [0, 3], [0, 1], [1, 1]]
    assert hole.tolist() == [[2, 1], [1, 1], [1, 2], [2, 2]]


def test_filled_again_rings_give_exactly_their_pixels():
    for mask in random_masks(400):
        parts = rings(mask)
        np.testing.assert_array_equal(fill([ring for part in parts for ring in part], mask.shape), mask)
        covered = sum((fill(part, mask.shape).astype(int) for part in parts), np.zeros(mask.shape, int))
        np.testing.assert_array_equal(covered, mask)


def test_each_part_is_a_valid_polygon():
    for mask in random_masks(200):
        parts = rings(mask)
        assert len(parts) == ndimage.label(mask)[1]
        for outline, *holes in parts:
            assert doubled_area(outline) > 0
            corners = {tuple(corner) for corner in outline.tolist()}
            assert len(corners) == len(outline)  # it does not touch itself
            for hole in holes:
                own = {tuple(corner) for corner in hole.tolist()}
                assert len(own) == len(hole)
                assert doubled_area(hole) < 0
                assert len(own & corners) <= 1
            for ring in (outline, *holes):
                steps = np.diff(ring, axis=0, append=ring[:1])
                assert ((steps != 0).sum(axis=1) == 1).all()  # along the pixel edges
                assert ((steps * np.roll(steps, 1, axis=0)).sum(axis=1) == 0).all()  # and turning at each corner


def test_the_rings_of_labels_are_those_of_their_masks():
    generator = np.random.default_rng(0)
    for _ in range(50):
        labels = generator.integers(0, 5, generator.integers(1, 20, 2)).astype(np.int32)
        found = label_rings(labels, 6)
        assert len(found) == 6
        for k, parts in enumerate(found, 1):
            assert sorted(listed(parts)) == sorted(listed(rings(labels == k)))


def test_a_thousand_objects_take_no_loop_over_the_image():
    blocks = np.arange(1, 1001, dtype=np.int32).reshape(25, 40)
    labels = np.pad(np.kron(blocks, np.ones((8, 8), np.int32)), 2)
    found = label_rings(labels, 1000)
    assert all(len(parts) == 1 for parts in found)
    assert found[41][0][0].tolist() == [[10, 10], [18, 10], [18, 18], [10, 18]]


def test_a_box_holds_what_the_whole_image_would():
    generator = np.random.default_rng(0)
    for _ in range(100):
        ring = generator.uniform(-10, 30, (6, 2))
        hole = generator.uniform(0, 20, (4, 2))
        mask, box = fill_in_box([ring, hole], (18, 22))
        whole = np.zeros((18, 22), bool)
        whole[box] = mask
        np.testing.assert_array_equal(whole, fill([ring, hole], (18, 22)))


def test_masks_of_several_boxes_are_united():
    left = Polygon((np.array([[0.0, 0], [2, 0], [2, 2], [0, 2]]),)).draw((4, 6))
    right = Polygon((np.array([[1.0, 1], [5, 1], [5, 3], [1, 3]]),)).draw((4, 6))
    mask, box = joined([left, right], (4, 6))
    assert box == (slice(0, 3), slice(0, 5))
    np.testing.assert_array_equal(mask, mask_of("##...", "#####", ".####"))
    beyond = Polygon((np.array([[90.0, 90], [95, 90], [95, 95]]),)).draw((4, 6))
    assert not joined([beyond, beyond], (4, 6))[0].size
    assert joined([beyond, left, beyond], (4, 6))[1] == left[1]


def test_of_many_parts_one_at_a_time_is_in_memory():
    parts = (Polygon((np.array([[0.0, 0], [500, 0], [500, 400], [0, 400]]),)) for _ in range(100))
    tracemalloc.start()
    mask, _ = joined((part.draw((400, 500)) for part in parts), (400, 500))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert mask.all()
    assert peak < 10 << 20  # all together are 20 million bytes


def test_an_outline_that_goes_up_and_down_without_end_is_refused():
    x = np.arange(3000.0)
    zigzag = Polygon((np.stack([x, np.where(x % 2, 0, 2000)], 1),))
    with pytest.raises(InputError, match=r"it has an outline that crosses 6,000,000 rows in all"):
        zigzag.draw((2000, 3000))
    assert zigzag.draw((20, 3000))[0].any()


def test_the_runs_of_a_box_are_those_of_the_image():
    generator = np.random.default_rng(0)
    for _ in range(300):
        height, width = shape = tuple(generator.integers(1, 12, 2).tolist())
        top, bottom = sorted(generator.integers(0, height + 1, 2).tolist())
        left, right = sorted(generator.integers(0, width + 1, 2).tolist())
        whole = np.zeros(shape, bool)
        whole[top:bottom, left:right] = generator.random((bottom - top, right - left)) < 0.8
        runs = encode_in_box(whole[top:bottom, left:right], (slice(top, bottom), slice(left, right)), shape)
        np.testing.assert_array_equal(runs, encode_mask(whole))


def test_a_circle_has_the_pixels_whose_centres_lie_in_it():
    y, x = np.mgrid[:20, :30] + 0.5
    for centre, radius in (((15.0, 10.0), 6.5), ((2.0, 19.0), 8.0), ((40.0, 10.0), 5.0), ((15.0, 10.0), 1e6)):
        mask, box = Ellipse(*centre, radius, radius).draw((20, 30))
        whole = np.zeros((20, 30), bool)
        whole[box] = mask
        np.testing.assert_array_equal(whole, np.hypot(x - centre[0], y - centre[1]) <= radius)
    assert not Ellipse(5.0, 5.0, 0.0, 3.0).draw((20, 30))[0].any()


def test_points_come_without_what_closes_them_or_a_third_coordinate():
    assert as_points([[0, 0], [1, 0], [1, 1], [0, 0]]).tolist() == [[0, 0], [1, 0], [1, 1]]
    assert as_points([[0, 0, 7], [1.5, 0, 7], [1, 1, 7]]).tolist() == [[0, 0], [1.5, 0], [1, 1]]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([], "fewer than three points"),
        ([[0, 0], [1, 1]], "fewer than three points"),
        ([[0, 0], [1, 1], [0, 0]], "fewer than three points"),
        ([[0, 0], [1, 1], [2]], "not a list of points"),
        ([0, 1, 2, 3], "not a list of points"),
        ([[0], [1], [2]], "not a list of points"),
        ([[0, 0], [1, "1"], [2, 2]], "not a list of points"),
        ([["0", "0"], ["1", "1"], ["2", "2"]], "not a list of points"),
        ([[0, 0], [1, None], [2, 2]], "not a list of points"),
        ([[True, True], [False, True], [True, False]], "not a list of points"),
        ([[0, 0], [1, True], [2, 2]], "not a list of points"),
        ([[0, 0], [1, 10**400], [2, 2]], "no numbers or far outside"),
        ("outline", "not a list of points"),
        ({"x": 1}, "not a list of points"),
        (None, "not a list of points"),
        ([[0, 0], [1, float("nan")], [2, 2]], "no numbers or far outside"),
        ([[0, 0], [1, float("inf")], [2, 2]], "no numbers or far outside"),
        ([[0, 0], [1, 1e9], [2, 2]], "no numbers or far outside"),
        ([[0, 0], [1, 10**15], [2, 2]], "no numbers or far outside"),
    ],
)
def test_what_is_not_an_outline_is_refused(values, message):
    with pytest.raises(InputError, match=f"it has an outline .*{message}"):
        as_points(values)
