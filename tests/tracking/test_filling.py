"""Objects that were missed, drawn where they must have been."""

import numpy as np

from attractor.tracking.filling import filled


def fill(*frames, max_gap=1):
    return [frame[0].tolist() for frame in filled([np.array([frame], np.int32) for frame in frames], max_gap)]


def test_a_missed_object_is_drawn_halfway():
    assert fill([1, 1, 0, 0, 0, 0], [0] * 6, [0, 0, 0, 0, 1, 1])[1] == [0, 0, 1, 1, 0, 0]


def test_longer_gaps_are_filled_if_asked_for():
    frames = [1, 1, 0, 0, 0, 0, 0], [0] * 7, [0] * 7, [0, 0, 0, 1, 1, 0, 0]
    assert fill(*frames)[1:3] == [[0] * 7] * 2
    assert fill(*frames, max_gap=2)[1:3] == [[0, 1, 1, 0, 0, 0, 0], [0, 0, 1, 1, 0, 0, 0]]


def test_an_object_is_drawn_beside_others():
    assert fill([1, 1, 1, 0], [0, 0, 2, 2], [1, 1, 1, 0])[1] == [1, 1, 2, 2]


def test_an_object_taken_for_a_part_of_another_is_drawn_on_it():
    assert fill([1, 1, 2, 2], [1, 1, 1, 1], [1, 1, 2, 2])[1] == [1, 1, 2, 2]


def test_no_other_object_loses_more_than_half():
    assert fill([2, 2, 2, 0], [0, 1, 1, 0], [2, 2, 2, 0])[1] == [2, 1, 1, 0]
    assert fill([0, 2, 2, 0], [0, 1, 1, 0], [0, 2, 2, 0])[1] == [0, 1, 1, 0]


def test_all_frames_come_in_order_and_stay_as_they_were():
    frames = [np.array([[k]], np.int32) for k in (1, 0, 1, 2, 3)]
    copies = [frame.copy() for frame in frames]
    for max_gap in range(7):
        assert len(list(filled(frames, max_gap))) == 5
    assert all((one == other).all() for one, other in zip(frames, copies, strict=True))
    assert fill([1], [0], [1], max_gap=0) == [[1], [0], [1]]
