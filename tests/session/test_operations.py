"""Operations on hand-made labels: what becomes of pixels, classes and reviewed places, and what is refused."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from attractor.errors import InputError
from attractor.session import Accept, Assign, Delete, Draw, Erase, Merge, Paint, Redraw, SetClass, Split
from attractor.session.canvas import Canvas, Change, Thing
from attractor.session.operations import RIM, as_json, from_json

LABELS = np.array(
    [
        [0, 1, 1, 1, 1, 1, 1, 0],
        [0, 1, 1, 1, 1, 1, 1, 0],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [2, 2, 0, 0, 0, 3, 3, 3],
        [2, 2, 0, 0, 0, 3, 3, 3],
    ],
    np.int32,
)


@pytest.fixture
def canvas():
    things = {1: Thing(1, 0.9), 2: Thing(2, 0.5)}
    return Canvas(LABELS.copy(), np.zeros(LABELS.shape, bool), things)


def numbers(canvas):
    return sorted(set(np.unique(canvas.labels).tolist()) - {0})


def test_a_canvas_knows_its_objects(canvas):
    assert canvas.things == {1: Thing(1, 0.9), 2: Thing(2, 0.5), 3: Thing(1, None)}
    assert canvas.box([1]) == (0, 1, 2, 7)
    assert canvas.box([2, 3], rim=1) == (2, 0, 5, 8)


def test_delete(canvas):
    Delete("a", (1, 3)).apply(canvas)
    assert numbers(canvas) == [2]
    assert set(canvas.things) == {2}
    assert canvas.reviewed[LABELS == 1].all()
    assert canvas.reviewed[2].sum() > 0  # the rim
    assert not canvas.reviewed[LABELS == 2].any()
    with pytest.raises(InputError, match="There is no object 1 in this image"):
        Delete("a", (1,)).apply(canvas)


def test_merge_keeps_number_and_class_of_the_first(canvas):
    Merge("a", (2, 3)).apply(canvas)
    assert numbers(canvas) == [1, 2]
    assert canvas.things[2] == Thing(2, 0.5)
    assert canvas.box([2]) == (3, 0, 5, 8)
    np.testing.assert_array_equal(canvas.labels == 2, (LABELS == 2) | (LABELS == 3))


def test_split_gives_the_smaller_piece_a_new_number(canvas):
    Split("a", 1, ((-1.0, 3.0), (3.0, 3.0))).apply(canvas)
    assert numbers(canvas) == [1, 2, 3, 4]
    assert canvas.labels[0].tolist() == [0, 4, 4, 1, 1, 1, 1, 0]
    assert canvas.things[4] == Thing(1, None)
    assert canvas.box([1]) == (0, 3, 2, 7)
    with pytest.raises(InputError, match="does not divide the object"):
        Split("a", 2, ((0.0, 0.0), (0.0, 8.0))).apply(canvas)


def test_a_line_as_thin_as_can_be_divides_in_any_direction():
    for angle in np.linspace(0, np.pi, 37):
        canvas = Canvas(np.ones((40, 40), np.int32), np.zeros((40, 40), bool), {})
        way = 40 * np.array([np.sin(angle), np.cos(angle)])
        Split("a", 1, (tuple(20.3 - way), tuple(20.3 + way))).apply(canvas)
        assert numbers(canvas) == [1, 2]
        assert (canvas.labels > 0).all()
        assert 700 < (canvas.labels == 2).sum() <= 800


def test_draw_takes_free_pixels_alone(canvas):
    Draw("a", ((1.0, 2.0), (1.0, 5.0), (4.0, 5.0), (4.0, 2.0)), class_number=2).apply(canvas)
    assert canvas.things[4] == Thing(2, None)
    assert canvas.labels[2:4, 2:5].tolist() == [[4, 4, 4]] * 2
    np.testing.assert_array_equal(canvas.labels == 1, LABELS == 1)
    with pytest.raises(InputError, match="Nothing is left for the object"):
        Draw("a", ((0.0, 2.0), (0.0, 5.0), (1.0, 5.0))).apply(canvas)
    with pytest.raises(InputError, match="lie outside of the image, which has 5 rows and 8 columns"):
        Draw("a", ((50.0, 2.0), (60.0, 5.0), (50.0, 5.0))).apply(canvas)


def test_redraw_takes_the_place_of_what_lies_there(canvas):
    Redraw("a", ((3.0, 0.0), (3.0, 8.0), (5.0, 8.0), (5.0, 0.0))).apply(canvas)  # around two
    assert numbers(canvas) == [1, 3]
    np.testing.assert_array_equal(canvas.labels[3:], np.full((2, 8), 3))
    assert canvas.things[3] == Thing(1, None)
    assert canvas.reviewed[2:].all()
    Redraw("a", ((3.0, 4.0), (3.0, 8.0), (4.0, 8.0), (4.0, 4.0))).apply(canvas)  # what it was too large
    assert canvas.labels[3:].tolist() == [[0, 0, 0, 0, 3, 3, 3, 3], [0] * 8]
    np.testing.assert_array_equal(canvas.labels == 1, LABELS == 1)


def test_what_is_redrawn_keeps_its_class_and_not_its_score(canvas):
    Redraw("a", ((2.0, 0.0), (2.0, 3.0), (5.0, 3.0), (5.0, 0.0))).apply(canvas)
    assert canvas.things[2] == Thing(2, None)


def test_redraw_leaves_others_their_pixels_and_draws_where_nothing_lies(canvas):
    Redraw("a", ((1.0, 2.0), (1.0, 5.0), (4.0, 5.0), (4.0, 2.0)), class_number=2).apply(canvas)
    assert canvas.things[4] == Thing(2, None)
    assert canvas.labels[2:4, 2:5].tolist() == [[4, 4, 4]] * 2
    np.testing.assert_array_equal(canvas.labels == 1, LABELS == 1)


def test_paint_adds_to_an_object_and_takes_others_pixels_only_if_told(canvas):
    stroke = ((2.5, 0.5), (2.5, 6.5))
    Paint("a", stroke, 0.6, label=2).apply(canvas)
    assert canvas.labels[2].tolist() == [2] * 7 + [0]
    Paint("a", ((0.5, 1.5),), 0.6, label=2, over=True).apply(canvas)
    assert canvas.labels[0].tolist() == [0, 2, 1, 1, 1, 1, 1, 0]
    assert canvas.things[2] == Thing(2, 0.5)
    Paint("a", ((0.5, 0.5),), 0.6, class_number=2).apply(canvas)
    assert canvas.labels[0, 0] == 4
    assert canvas.things[4] == Thing(2, None)


def test_erase(canvas):
    Erase("a", ((3.5, 0.0), (3.5, 8.0)), 0.6, label=3).apply(canvas)
    np.testing.assert_array_equal(canvas.labels[3], [2, 2, 0, 0, 0, 0, 0, 0])
    Erase("a", ((4.0, 1.0),), 3.0).apply(canvas)
    assert 2 not in canvas.things  # all of its pixels are gone
    with pytest.raises(InputError, match="no object under the brush"):
        Erase("a", ((4.0, 1.0),), 1.0).apply(canvas)


def test_single_pixels_go_to_an_object_a_new_one_or_the_background(canvas):
    Assign("a", ((1, 0, 3), (3, 2, 1)), label=2).apply(canvas)
    assert canvas.labels[1].tolist() == [2, 2, 2, 1, 1, 1, 1, 0]
    assert canvas.labels[3].tolist() == [2, 2, 2, 0, 0, 3, 3, 3]
    assert canvas.things[2] == Thing(2, 0.5)
    assert canvas.reviewed[LABELS == 2].all()
    Assign("a", ((2, 7, 1),), class_number=2).apply(canvas)
    assert canvas.labels[2, 7] == 4
    assert canvas.things[4] == Thing(2, None)
    Assign("a", ((0, 0, 8),), label=0).apply(canvas)
    assert not canvas.labels[0].any()
    assert canvas.reviewed[canvas.labels == 1].all()
    with pytest.raises(InputError, match="no object in these pixels"):
        Assign("a", ((0, 0, 8),), label=0).apply(canvas)
    with pytest.raises(InputError, match="ends in column 9; the image has 8 columns"):
        Assign("a", ((0, 4, 5),)).apply(canvas)
    with pytest.raises(InputError, match="outside of the image, or is empty"):
        Assign("a", ((5, 0, 1),)).apply(canvas)
    with pytest.raises(InputError, match="0 runs of pixels were given"):
        Assign("a", ()).apply(canvas)


def test_an_object_half_taken_keeps_what_is_left():
    canvas = Canvas(np.ones((4, 4), np.int32), np.zeros((4, 4), bool), {1: Thing(1, 0.7)})
    Paint("a", ((0.5, 0.5), (0.5, 3.5)), 0.6, over=True).apply(canvas)
    assert canvas.things[1] == Thing(1, 0.7)
    assert canvas.box([1]) == (1, 0, 4, 4)


def test_a_split_leaves_stray_pixels_with_the_nearest_piece():
    labels = np.zeros((6, 12), np.int32)
    labels[1:5, 1:9], labels[0, 0], labels[5, 9] = 1, 1, 1
    canvas = Canvas(labels, np.zeros(labels.shape, bool), {})
    Split("a", 1, ((0.0, 6.0), (6.0, 6.0))).apply(canvas)
    assert numbers(canvas) == [1, 2]
    assert canvas.labels[0, 0] == 1
    assert canvas.labels[5, 9] == 2


def test_a_line_between_two_parts_of_an_object_divides_it():
    labels = np.zeros((4, 9), np.int32)
    labels[:, :3], labels[:, 6:] = 1, 1
    canvas = Canvas(labels, np.zeros(labels.shape, bool), {})
    Split("a", 1, ((0.0, 4.5), (4.0, 4.5))).apply(canvas)
    assert numbers(canvas) == [1, 2]


def test_set_class(canvas):
    SetClass("a", (1, 3), 2).apply(canvas)
    assert canvas.things[1] == Thing(2, 0.9)
    assert canvas.things[3] == Thing(2, None)
    np.testing.assert_array_equal(canvas.labels, LABELS)
    with pytest.raises(InputError, match="classes are counted from 1"):
        SetClass("a", (1,), 0).apply(canvas)


def test_accept(canvas):
    Accept("a", labels=(2,)).apply(canvas)
    assert canvas.reviewed[LABELS == 2].all()
    assert not canvas.reviewed[LABELS == 1].any()  # although the rim is wide
    assert not canvas.reviewed[:, 2 + RIM :].any()
    Accept("a", box=(0, 0, 3, 8)).apply(canvas)
    assert canvas.reviewed[:3].all()
    Accept("a").apply(canvas)
    assert canvas.reviewed.all()


@pytest.mark.parametrize(
    "operation",
    [
        Delete("a", ()),
        Merge("a", (1,)),
        Merge("a", (1, 9)),
        SetClass("a", (), 1),
        Accept("a", (7,)),
        Accept("a", box=(9, 9, 12, 12)),
        Paint("a", ((1.0, 1.0),), 0.0),
        Paint("a", ((1.0, 1.0),), float("nan")),
        Paint("a", (), 1.0),
        Paint("a", ((1.0, 1.0),), 2.0, label=8),
        Draw("a", ((1.0, 1.0), (2.0, 2.0))),
        Draw("a", ((1.0, float("inf")), (2.0, 2.0), (1.0, 2.0))),
        Redraw("a", ((1.0, 1.0), (2.0, 2.0))),
        Redraw("a", ((50.0, 2.0), (60.0, 5.0), (50.0, 5.0))),
        Split("a", 1, ((1.0, 1.0),)),
        Assign("a", ((0, 1, 0),)),
        Assign("a", ((-1, 1, 1),)),
        Assign("a", ((0, -1, 1),)),
        Assign("a", ((0, 1, 1),), label=7),
        Assign("a", ((0, 1, 1),), label=-1),
        Assign("a", ((0, 1, 1),), class_number=0),
    ],
)
def test_what_cannot_be_done_changes_nothing(canvas, operation):
    with pytest.raises(InputError):
        operation.apply(canvas)
    np.testing.assert_array_equal(canvas.labels, LABELS)
    assert not canvas.reviewed.any()


coordinates = st.floats(-2, 10)
points = st.lists(st.tuples(coordinates, coordinates), min_size=1, max_size=4).map(tuple)
runs = st.lists(st.tuples(st.integers(0, 5), st.integers(0, 7), st.integers(1, 4)), min_size=1, max_size=4).map(tuple)
labels = st.lists(st.integers(1, 6), max_size=3).map(tuple)
operations = st.one_of(
    st.builds(Delete, st.just("a"), labels),
    st.builds(Merge, st.just("a"), labels),
    st.builds(Split, st.just("a"), st.integers(1, 6), points),
    st.builds(Draw, st.just("a"), points, st.integers(1, 2)),
    st.builds(Redraw, st.just("a"), points, st.integers(1, 2)),
    st.builds(Paint, st.just("a"), points, st.floats(0.1, 3), st.none() | st.integers(1, 6), over=st.booleans()),
    st.builds(Erase, st.just("a"), points, st.floats(0.1, 3), st.none() | st.integers(1, 6)),
    st.builds(Assign, st.just("a"), runs, st.none() | st.integers(0, 6)),
    st.builds(SetClass, st.just("a"), labels, st.integers(1, 2)),
    st.builds(Accept, st.just("a"), labels),
)


def state(canvas):
    return canvas.labels.tolist(), canvas.reviewed.tolist(), dict(canvas.things)


@given(st.lists(operations, max_size=12))
def test_every_change_can_be_taken_back_and_done_again(given_operations):
    canvas = Canvas(LABELS.copy(), np.zeros(LABELS.shape, bool), {2: Thing(2, 0.5)})
    states, changes = [state(canvas)], []
    for operation in given_operations:
        try:
            change = operation.apply(canvas)
        except InputError:
            continue
        changes.append(Change.from_json(json.loads(json.dumps(change.as_json()))))
        states.append(state(canvas))
        assert set(numbers(canvas)) == set(canvas.things)
        for label in canvas.things:
            rows, columns = np.nonzero(canvas.labels == label)
            assert canvas.box([label]) == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)
    for change, before in zip(reversed(changes), reversed(states[:-1]), strict=True):
        canvas.write(change.inverse())
        assert state(canvas) == before
    for change, after in zip(changes, states[1:], strict=True):
        canvas.write(change)
        canvas.write(change)  # twice is once
        assert state(canvas) == after


@given(operations)
def test_operations_are_plain_json(operation):
    assert from_json(json.loads(json.dumps(as_json(operation)))) == operation


@pytest.mark.parametrize(
    "content",
    [
        None,
        [],
        {},
        {"kind": "explode"},
        {"kind": "delete"},
        {"kind": "delete", "image": 3, "labels": [1]},
        {"kind": "delete", "image": "a", "labels": ["1"]},
        {"kind": "delete", "image": "a", "labels": [True]},
        {"kind": "delete", "image": "a", "labels": [1], "more": 1},
        {"kind": "draw", "image": "a", "outline": [[1, 2, 3]]},
        {"kind": "draw", "image": "a", "outline": "abc"},
        {"kind": "paint", "image": "a", "stroke": [[1, 2]], "radius": "wide"},
        {"kind": "paint", "image": "a", "stroke": [[1, 2]], "radius": 1, "over": 1},
        {"kind": "accept", "image": "a", "box": [1, 2, 3]},
        {"kind": "assign", "image": "a", "runs": [[1, 2]]},
        {"kind": "assign", "image": "a", "runs": [[1, 2, 0.5]]},
        {"kind": "class", "image": "a", "labels": [1], "class_number": 10**30},
    ],
)
def test_json_that_is_no_operation_is_refused(content):
    with pytest.raises(InputError):
        from_json(content)


def test_a_stroke_that_would_take_minutes_is_refused():
    canvas = Canvas(np.zeros((3000, 3000), np.int32), np.zeros((3000, 3000), bool), {})
    with pytest.raises(InputError, match="too long for so large a brush"):
        Paint("a", ((1500.0, 1500.0),) * 2000, 1000.0).apply(canvas)
