"""Layers and session stay equal, whatever is painted, merged, split and taken back, by whomever."""

import numpy as np
import pytest
from tests.web.conftest import LABELS

from attractor.instances import Instances
from attractor.napari.client import Client
from attractor.session import Session


@pytest.fixture
def told():
    return []


@pytest.fixture
def correction(viewer, client, pixels, told):
    from attractor.napari.correction import Correction  # needs napari, without which `viewer` skips

    layer = viewer.add_image(pixels, name="a", scale=(2, 2), translate=(5, 6), units=("um", "um"))
    return Correction(viewer, client, "a", layer, tell=told.append)


@pytest.fixture
def press(correction, viewer):
    from napari.utils.key_bindings import KeymapHandler

    keys = KeymapHandler()
    keys.keymap_providers = [correction.found, viewer]
    return keys.press_key


def follow(correction):
    """Take over what the server has told so far."""
    while not correction.client.events.empty():
        event = correction.client.events.get()
        correction.follow(event.kind, event.content)


def check(correction, session):
    canvas = session.canvas("a")
    if correction.is_stale:
        correction.describe(correction.client.objects("a"))
    np.testing.assert_array_equal(correction.found.data, canvas.labels)
    np.testing.assert_array_equal(correction.reviewed.data, canvas.reviewed)
    assert set(correction.found.features["index"]) == set(canvas.things)


def test_the_layers_lie_where_the_image_does(correction, session, viewer):
    check(correction, session)
    for layer in (correction.found, correction.reviewed):
        np.testing.assert_array_equal(layer.data_to_world((3, 4)), viewer.layers["a"].data_to_world((3, 4)))
        assert layer.units == viewer.layers["a"].units
    row = correction.found.features.iloc[2]
    assert (row["class"], round(row["score"], 3), row["area"]) == ("debris", 0.7, 750)


def test_what_is_painted_is_in_the_session_pixel_by_pixel(correction, session):
    correction.found.selected_label = 3
    correction.found.paint((35, 44), 3)
    wanted = correction.found.data.copy()
    assert (wanted != LABELS).any()
    np.testing.assert_array_equal(session.canvas("a").labels, wanted)
    correction.found.fill((30, 20), 0)  # an object is erased
    assert set(session.canvas("a").things) == {1, 3}
    check(correction, session)


def test_a_new_object_gets_a_number_that_none_ever_had(correction, session):
    correction.delete(3)
    correction.class_number = 2
    correction.found.selected_label = 3
    correction.found.paint((50, 5), 3)
    assert correction.found.selected_label == 4
    correction.found.paint((50, 8), 4)  # the next stroke extends it
    assert session.canvas("a").things[4].class_number == 2
    check(correction, session)


def test_a_polygon_over_several_objects_is_one_object(correction, session):
    correction.found.paint_polygon([[0, 0], [0, 70], [59, 70], [59, 0]], 1)
    check(correction, session)
    assert set(session.canvas("a").things) == {1}


def test_ctrl_z_takes_back_merge_and_split_with_class_and_score(correction, session, press):
    before = session.canvas("a").things.copy()
    correction.merge([1, 2])
    correction.split(3, np.array([(35, 40), (35, 75)]))
    assert set(session.canvas("a").things) == {1, 3, 4}
    check(correction, session)
    assert press("Control-Z")
    assert press("Control-Z")
    assert session.canvas("a").things == before
    np.testing.assert_array_equal(correction.found.data, LABELS)
    press("Control-Shift-Z")
    assert set(session.canvas("a").things) == {1, 3}
    check(correction, session)


def test_ctrl_z_takes_back_a_stroke_and_says_when_there_is_none(correction, session, press, told):
    correction.found.paint((35, 44), 3)
    press("Control-Z")
    np.testing.assert_array_equal(correction.found.data, LABELS)
    press("Control-Z")
    assert told == ["There is nothing to undo in this image."]
    check(correction, session)


def test_accepted_objects_and_boxes_are_reviewed(correction, session):
    correction.accept([2])
    assert correction.reviewed.data[LABELS == 2].all()
    check(correction, session)
    assert correction.found.features["reviewed"].tolist() == [False, True, False]
    correction.accept(box=correction.in_view())
    check(correction, session)
    correction.accept()
    assert correction.reviewed.data.all()
    correction.set_class(1, 2)
    check(correction, session)
    assert correction.found.features["class"][0] == "debris"


def test_a_drawn_line_merges_and_splits(correction, session, viewer):
    correction.draw_line(correction.merge_along, "merge")
    line = viewer.layers["merge"]
    assert viewer.layers.selection.active is line
    line.add_lines([[10, 10], [35, 20]])
    assert set(session.canvas("a").things) == {1, 3}
    correction.tidy()
    assert line not in viewer.layers
    assert viewer.layers.selection.active is correction.found
    correction.draw_line(correction.split_along, "split")
    viewer.layers["split"].add_lines([[35, 30], [35, 79]])
    correction.tidy()
    assert set(session.canvas("a").things) == {1, 3, 4}
    check(correction, session)


def test_a_line_beside_all_objects_does_nothing(correction, session, told):
    correction.split_along(np.array([(0, 0), (1, 60)]))
    correction.merge_along(np.array([(-5, 0), (1, 60)]))
    assert told == ["There is no object under the line.", "To merge, choose at least two objects."]
    check(correction, session)


def test_what_the_session_refuses_is_not_left_in_the_layer(correction, session, told):
    correction.class_number = 9
    correction.found.paint((50, 5), 8)
    assert told == ["There is no class 9; the classes are cell, debris."]
    np.testing.assert_array_equal(correction.found.data, LABELS)
    check(correction, session)


def test_what_others_do_is_seen_and_ones_own_is_not_asked_for_twice(correction, session, address):
    with Client(address, who="Ada") as other:
        other.apply("a", "delete", labels=[1])
        other.apply("b", "delete", labels=[1])
        correction.delete(2)
        while other.events.qsize() < 3:
            pass
    follow(correction)
    assert set(session.canvas("a").things) == {3}
    check(correction, session)


def test_objects_that_are_found_anew_are_seen(correction, session):
    found = np.zeros_like(LABELS)
    found[2:9, 2:9] = 1
    session.put("a", Instances(found, np.ones(1, np.int32), np.ones(1, np.float32)))
    correction.follow("image", {"image": "a"})
    check(correction, session)
    assert len(correction.found.features) == 1


def test_layers_that_were_left_are_no_longer_sent(correction, session):
    correction.leave()
    correction.found.paint((35, 44), 3)
    np.testing.assert_array_equal(session.canvas("a").labels, LABELS)


@pytest.mark.parametrize("seed", range(3))
def test_layer_session_and_files_are_equal_after_anything(correction, session, folder, seed, told):
    random = np.random.default_rng(seed)
    for _ in range(25):
        row, column = random.integers(0, (60, 80)).tolist()
        label = int(random.integers(0, 7))
        act = random.integers(0, 8)
        if act < 3:
            correction.found.brush_size = int(random.integers(1, 20))
            correction.found.paint((row, column), label)
        elif act == 3:
            correction.found.fill((row, column), label)
        elif act == 4:
            correction.split_along(random.uniform(0, 60, (2, 2)))
        elif act == 5:
            correction.merge_along(random.uniform(0, 60, (2, 2)))
        else:
            (correction.undo, correction.redo)[act - 6]()
        follow(correction)
        check(correction, session)
    correction.client.close()
    held = correction.found.data.copy()
    session.close()
    with Session(folder) as again:
        np.testing.assert_array_equal(again.canvas("a").labels, held)
