"""A session beside a viewer: a server is started, an image sent and segmented, corrected, and learned from."""

import time

import numpy as np
import pytest
from tests.web.conftest import LABELS

from attractor.napari.client import Event
from attractor.session import Session


@pytest.fixture
def told():
    return []


@pytest.fixture
def bench(viewer, told):
    from attractor.napari.bench import Bench  # needs napari, without which `viewer` skips

    bench = Bench(viewer, tell=told.append)
    yield bench
    bench.close()


def until(bench, condition):
    begun = time.monotonic()
    while not condition():
        bench.tick()
        assert time.monotonic() < begun + 100, bench.words
        time.sleep(0.02)  # for the server


@pytest.mark.slow
def test_a_layer_is_segmented_corrected_and_learned_from(bench, viewer, told, pixels, tiny_model, tmp_path):
    assert bench.words == "No session is open."
    bench.segment(None)
    bench.train(1)
    assert told == ["Open a session first."] * 2
    bench.open(tmp_path / "project", model=str(tiny_model), device="cpu")
    assert bench.words == "Opening …"
    until(bench, lambda: bench.client is not None)
    assert bench.words == f"Model in use: {tiny_model}"
    layer = viewer.add_image(np.stack([pixels, pixels.T[:60, :60].repeat(2, 1)[:, :80]]), name="film", scale=(1, 2, 3))
    viewer.dims.current_step = (0, 0, 0)
    bench.segment(layer)
    until(bench, lambda: bench.current is not None)
    assert bench.current.name == "film 0"
    assert list(bench.current.found.scale) == [2, 3]
    until(bench, lambda: len(bench.current.found.features))  # they come by themselves once they are found
    assert bench.current.found.features["score"].notna().all()
    bench.current.accept()
    until(bench, lambda: bench.job["state"] == "done")
    bench.train(0.5)
    until(bench, lambda: bench.job["state"] == "failed")
    assert "training needs 3" in bench.words
    bench.segment(layer)  # again, and not a second time
    until(bench, lambda: bench.job["kind"] == "segment" and bench.job["state"] == "done")
    assert bench.client.images == ["film 0"]
    bench.close()
    with Session(tmp_path / "project") as session:
        assert session.progress("film 0").state == "reviewed"


def test_images_of_a_session_are_shown_and_left(bench, viewer, told, address):
    bench.open(address)
    until(bench, lambda: bench.client is not None)
    bench.segment(None)
    assert told == ["Choose an image layer to segment."]
    for name in ("a", "b"):
        bench.show(name)
        until(bench, lambda name=name: f"{name} found" in viewer.layers)
    np.testing.assert_array_equal(viewer.layers["b found"].data, LABELS)
    bench.show("a")
    assert bench.current.name == "a"
    bench.paint_class(2)
    assert {one.class_number for one in bench._corrections.values()} == {2}
    viewer.layers.remove("a found")
    bench.tick()
    assert bench.current.name == "b"
    bench.leave()
    assert bench.current is None


def test_a_session_that_cannot_be_opened_is_told_of(bench, told):
    bench.open("http://127.0.0.1:9/#token=x")
    until(bench, lambda: told)
    assert "there is no answer" in told[0]
    assert bench.words == "No session is open."


def test_a_server_that_ends_is_told_of(bench, told, address, session):
    bench.open(address)
    until(bench, lambda: bench.client is not None)
    bench.client.events.put(Event("end", {}))
    until(bench, lambda: told)
    assert told == ["The server of attractor has ended; open the session again. Everything is kept."]
    assert bench.client is None
