"""The client of the HTTP API: what it brings, sends and refuses, and the server that it starts."""

import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from tests.web.conftest import LABELS, picture

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.napari.client import Client
from attractor.session import Session

PAGE = Path(__file__).parents[2] / "docs" / "napari.md"


def test_a_session_is_looked_at(client, session):
    assert client.images == ["a", "b", "c d"]
    assert client.image("c d")["height"] == 60
    np.testing.assert_array_equal(client.labels("c d"), LABELS)
    np.testing.assert_array_equal(client.labels("a", (10, 15, 30, 50)), LABELS[10:30, 15:50])
    assert [thing["class_number"] for thing in client.objects("a")] == [1, 1, 2]
    assert client.pixels("a").shape == (60, 80, 1)  # of a server elsewhere only the picture is known
    client.folder = session.folder
    np.testing.assert_array_equal(client.pixels("a"), picture(0))


def test_labels_are_put_together_from_tiles(client, session):
    labels = np.random.default_rng(0).integers(0, 9, (600, 1100)).astype(np.int32)
    name = client.add("large", np.zeros((600, 1100, 1), np.uint8))
    session.put(name, Instances(labels, np.ones(8, np.int32), np.ones(8, np.float32)))
    held = client.labels(name)
    assert held.shape == labels.shape
    pairs = np.unique(np.stack([labels.ravel(), held.ravel()]), axis=1)
    assert pairs.shape[1] == 9  # the session has numbers of its own
    np.testing.assert_array_equal(client.labels(name, (500, 400, 530, 1050)), held[500:530, 400:1050])


def test_operations_are_taken_back_and_done_again(client):
    done = client.apply("a", "merge", labels=[1, 2])
    assert done["box"] == [2, 2, 48, 33]
    assert len(client.objects("a")) == 2
    client.undo("a")
    np.testing.assert_array_equal(client.labels("a"), LABELS)
    client.redo("a")
    assert len(client.objects("a")) == 2
    client.apply("a", "accept")
    assert client.reviewed("a").all()


def test_what_others_do_is_told(client, address):
    with Client(address, who="Ada") as other:
        done = other.apply("b", "delete", labels=[3])
        heard = client.events.get(timeout=20)
        assert (heard.kind, heard.content["who"], heard.content["revision"]) == ("edit", "Ada", done["revision"])
        with pytest.raises(InputError, match="nothing to undo"):
            client.undo("b")


def test_an_image_gets_a_free_and_harmless_name(client):
    assert client.add("a", picture(7)) == "a 2"
    assert client.add('../"ä"\n7 µm', picture(7)) == "__ä__7 µm"
    np.testing.assert_array_equal(client.labels("a 2"), 0)


def test_what_cannot_be_done_is_said(client, address):
    with pytest.raises(InputError, match="There is no object 9 in this image"):
        client.apply("a", "delete", labels=[9])
    with pytest.raises(InputError, match="There is no image 'nowhere'"):
        client.labels("nowhere")
    with pytest.raises(InputError, match="number: Input should be a valid integer"):
        client.wait("one")
    with pytest.raises(InputError, match="This needs the token"):
        Client(address[:-1])
    with pytest.raises(InputError, match=r"there is no answer .* Open the session again"):
        Client("http://127.0.0.1:9/#token=x")


def test_jobs_are_waited_for_and_cancelled(client, session, tiny_model):
    session.note(model=str(tiny_model))
    job = client.train(1)
    with pytest.raises(InputError, match="nobody has reviewed anything yet"):
        client.wait(job["number"], 100)
    job = client.segment(["a"])
    with pytest.raises(InputError, match="has not ended within 0 seconds"):
        client.wait(job["number"], 0)
    assert client.cancel(job["number"])["state"] == "cancelled"
    assert client.wait(job["number"])["state"] == "cancelled"
    assert client.last_job()["number"] == job["number"]


def test_a_server_is_started_and_ends_with_its_client(folder):
    client = Client.open(folder, device="cpu", who="Ada")
    client.apply("a", "delete", labels=[1])
    with pytest.raises(InputError, match="is open in another program"):
        Client.open(folder)
    client.close()
    with Session(folder) as session:  # nobody else has it open
        assert session.history("a")[-1].who == "Ada"


def test_no_server_outlives_the_program_that_started_it(folder):
    code = f"from attractor.napari.client import Client; import os; Client.open({str(folder)!r}); os._exit(1)"
    subprocess.run([sys.executable, "-c", code], check=False)
    until = time.monotonic() + 30
    while True:
        try:
            return Session(folder).close()
        except InputError:
            assert time.monotonic() < until
            time.sleep(0.1)


def test_the_example_of_the_page_runs(tmp_path, tiny_model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Session.create("project", [], model=str(tiny_model)).close()
    (text,) = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    exec(compile(text, str(PAGE), "exec"), names := {"image": picture(0)})
    assert names["labels"].max() > 1
    with Session("project") as session:
        assert [entry.kind for entry in session.history("cells")] == ["segment", "merge", "undo"]


def test_neither_torch_nor_qt_is_imported(address):
    pytest.importorskip("napari", reason="napari is not installed: pip install napari")
    code = """
import sys, warnings
warnings.simplefilter("ignore")
from napari.components import ViewerModel
from attractor.napari.bench import Bench
from attractor.napari.files import fluorescence, session_reader, write_label_image
viewer = ViewerModel()
bench = Bench(viewer)
bench.open(sys.argv[1])
while bench.client is None:
    bench.tick()
bench.show("a")
while bench.current is None:
    bench.tick()
bench.current.merge([1, 2])
bench.current.undo()
viewer.add_image(fluorescence()[0][0])
bench.close()
print(len(viewer.layers), [name for name in ("torch", "qtpy", "PyQt6", "PySide6") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code, address], capture_output=True, text=True, check=False)
    assert done.stdout == "4 []\n", done.stderr
