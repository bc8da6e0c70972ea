"""Connected parts: one object a piece, and no pixel of a region left over."""

import numpy as np

from attractor.kernels.parts import largest, of_one_piece, regions


def array(*rows):
    return np.array([[int(c) for c in row] for row in rows], np.int32)


def test_regions_touch_at_corners():
    assert regions(array("1100", "0010", "0000", "1000") > 0).tolist() == array("1100", "0010", "0000", "2000").tolist()


def test_an_object_in_pieces_becomes_several():
    labels = array("1101", "1101")
    found = of_one_piece(labels, labels, 1)
    assert len(np.unique(found[:, :2])) == 1
    assert found[0, 3] == found[1, 3]
    assert len(np.unique(found)) == 3


def test_small_pieces_go_to_the_nearest_object_of_their_region():
    labels = array("1112", "1112", "0000", "0033")
    found = of_one_piece(labels, regions(labels > 0), 3)
    assert (found[:2] == found[0, 0]).all()  # the two pixels of 2 lie in the region of 1
    assert not found[3].any()  # those of 3 are a region without any object


def test_pixels_go_to_their_own_region_even_where_another_lies_nearer():
    labels = array("1110000000", "0000000000", "0000222222")
    region = array("1111111111", "0000000000", "0000222222")
    found = of_one_piece(labels, region, 2)
    assert (found[0] == found[0, 0]).all()
    assert found[0, 0] > 0


def test_the_largest_part_stays_and_of_equals_the_first():
    assert largest(array("11010", "00022", "20022")).tolist() == array("11000", "00022", "00022").tolist()
    assert largest(array("101")).tolist() == [[1, 0, 0]]
