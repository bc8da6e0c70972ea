"""Images that programs send to be segmented: what comes back, whose turn it is, and what is left behind."""

import io
import json
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
import tifffile
from tests.web.conftest import picture, serving
from tests.web.test_app import png

import attractor
from attractor.prediction.outputs import OUTPUTS
from attractor.prediction.result import FileOutput
from attractor.web import answers
from attractor.web.line import Line

FORMS = [name for name, output in OUTPUTS.items() if isinstance(output, FileOutput)]
PIXELS = picture(3)[..., 0]


def send(client, name="x y.png", content=None, **options):
    return client.post("/api/segment", files={"file": (name, content or png(PIXELS))}, params=options)


def files(folder):
    return sorted(path.name for path in folder.rglob("*"))


def test_an_image_comes_back_segmented_in_every_form(client, folder, session):
    session.note(model="nuclei")
    before = files(folder)
    found = attractor.load("nuclei", device="cpu").segment(PIXELS)
    assert len(found) > 0
    for form in FORMS:
        answer = send(client, form=form)
        assert answer.status_code == 200, answer.json()
        ending = OUTPUTS[form].ending
        assert answer.headers["content-type"] == answers.MEDIA[Path(ending).suffix]
        assert answer.headers["content-disposition"].endswith(f"''x%20y{ending}")
        if form == "labels":
            np.testing.assert_array_equal(tifffile.imread(io.BytesIO(answer.content)), found.labels)
        if form == "coco":
            assert len(answer.json()["annotations"]) == len(found)
        if form == "geojson":
            assert len(answer.json()["features"]) == len(found)
    larger = send(client, model="fibroblasts", object_size=100, tta=True)
    assert tifffile.imread(io.BytesIO(larger.content)).shape == PIXELS.shape
    assert send(client, object_size=-1).json()["detail"].startswith("x y.png: The object size is -1")
    assert session.images == ("a", "b", "c d")
    assert files(folder) == before


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"form": "exe"}, "There is no format 'exe'"),
        ({"form": "cityscapes"}, "is not for single images; there are labels"),
        ({"model": "../../x.safetensors"}, "There is no model"),
        ({"tta": "perhaps"}, "tta: "),
        ({"object_size": "large"}, "object_size: "),
        ({"name": "x.exe"}, "x.exe: is no image that can be read here"),
        ({"content": b"hello"}, "x y.png: is not an image"),
        ({}, "This session has no model yet"),
    ],
)
def test_what_cannot_be_segmented_is_refused(client, folder, session, options, words):
    if options:
        session.note(model="nuclei")
    before = files(folder)
    answer = send(client, **options)
    assert answer.status_code == 400
    assert words in answer.json()["detail"]
    assert str(folder) not in answer.json()["detail"]
    assert files(folder) == before


def test_a_request_without_a_file_is_refused(client):
    answer = client.post("/api/segment", json={})
    assert (answer.status_code, answer.json()) == (400, {"detail": "file: Field required."})


def test_strangers_are_turned_away(stranger):
    assert send(stranger).status_code == 401


def test_too_many_are_told_to_come_later(client, session, monkeypatch):
    session.note(model="nuclei")
    monkeypatch.setattr(answers, "MOST_WAITING", 0)
    answer = send(client)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "10")
    assert answer.json()["detail"] == "0 images are waiting already; ask again later."


def test_an_image_that_takes_too_long_is_given_up(client, folder, session, monkeypatch):
    session.note(model="nuclei")
    before = files(folder)
    monkeypatch.setattr(answers, "LONGEST", 0.0)
    answer = send(client)
    assert (answer.status_code, answer.json()["detail"]) == (503, "x y.png: It took longer than 0 seconds.")
    assert files(folder) == before


def test_each_has_its_turn_in_the_order_in_which_they_came():
    line = Line()
    first, second, third = line.join(), line.join(), line.join()
    assert [place.done() for place in (first, second, third)] == [True, False, False]
    line.leave(second)  # who has gone away
    line.leave(first)
    assert third.done()
    with ThreadPoolExecutor(1) as threads:

        def wait():
            with line.turn():
                return "now"

        waiting = threads.submit(wait)
        time.sleep(0.1)  # for as long as the third has its turn
        assert not waiting.done()
        line.leave(third)
        assert waiting.result(10) == "now"


@pytest.mark.slow
def test_images_that_are_sent_and_jobs_take_turns(client, session):
    session.note(model="nuclei")
    number = client.post("/api/jobs", json={"kind": "segment", "arguments": {"images": ["a"]}}).json()["number"]
    with ThreadPoolExecutor(3) as threads:
        codes = [answer.status_code for answer in threads.map(lambda _: send(client), range(3))]
    assert codes == [200, 200, 200]
    assert client.get(f"/api/jobs/{number}").json()["state"] == "done"  # it came first
    again = client.post("/api/jobs", json={"kind": "segment", "arguments": {"images": ["b"]}}).json()["number"]
    for _ in range(600):
        if client.get(f"/api/jobs/{again}").json()["state"] == "done":
            break
        time.sleep(0.1)  # it needs the process that stayed to end first
    assert client.get(f"/api/jobs/{again}").json()["state"] == "done"


def processes():
    """Those that the server has started."""
    (server,) = (child for child in psutil.Process().children() if "serve" in child.cmdline())
    return server.children()


def test_nothing_goes_on_when_the_client_has_gone_away(folder, tmp_path):
    content = png(np.tile(PIXELS, (40, 30)))  # for minutes, with test-time augmentation
    with serving(folder) as address:
        where, token = urlsplit(address), address.partition("#token=")[2]
        head = '--part\r\ncontent-disposition: form-data; name="file"; filename="a.png"\r\n\r\n'
        body = head.encode() + content + b"\r\n--part--\r\n"
        headers = {"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=part"}
        connection = HTTPConnection(where.hostname, where.port, timeout=60)
        connection.request("POST", "/api/segment?tta=true&model=nuclei", body, headers)
        while len(processes()) < 2:  # one looks at it, one segments it
            time.sleep(0.02)
        connection.close()
        for _ in range(300):
            if len(processes()) == 1 and not list(folder.glob(".*.part*")):
                break
            time.sleep(0.1)  # the server is told that the client has gone
        assert len(processes()) == 1
        assert not list(folder.glob(".*.part*"))
        connection = HTTPConnection(where.hostname, where.port, timeout=60)
        connection.request("GET", "/api/health")
        assert json.load(connection.getresponse()) == {"state": "well"}
        connection.close()
