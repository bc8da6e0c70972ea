"""The server as a process: programs use it, it survives being killed, and many may ask at once."""

import json
import random
import re
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from http.client import HTTPException
from pathlib import Path
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import numpy as np
import psutil
import pytest
from tests.web.conftest import EFFORT, picture, serving
from tests.web.test_app import png

from attractor.session import Session
from attractor.session.operations import from_json

PAGE = Path(__file__).parents[2] / "docs" / "correct.md"


def ask(address, path, content=None, *, body=None, kind="application/json", method=None):
    """The answer of a server to a request with its token."""
    base, _, token = address.partition("#token=")
    data = body if body is not None else None if content is None else json.dumps(content).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": kind}
    with urlopen(Request(f"{base}api/{path}", data, headers, method=method), timeout=60) as answer:
        return json.load(answer)


def test_the_example_of_the_page_runs(folder, capsys):
    (text,) = re.findall(r"^```py\n(.*?)^```$", PAGE.read_text(), re.M | re.S)
    with serving(folder) as address:
        base, _, token = address.partition("#token=")
        text = text.replace("http://127.0.0.1:8765/", base).replace("TOKEN", token).replace('"cells"', '"a"')
        exec(compile(text, str(PAGE), "exec"), {})
    assert capsys.readouterr().out == "['a', 'b', 'c d']\n"
    with Session(folder) as session:
        assert set(session.canvas("a").things) == {1, 2}


def script(seed):
    """What a person does: operations on two images, and some of them taken back and done again."""
    random = np.random.default_rng(seed)
    while True:
        image, (row, column) = str(random.choice(["a", "b"])), random.integers(2, 55, 2).tolist()
        stroke = [[row, column], [row + 3, column + 2]]
        kind = random.choice(["paint", "paint", "erase", "draw", "accept", "delete", "undo", "redo"])
        if kind == "paint":
            yield image, {"kind": "paint", "image": image, "stroke": stroke, "radius": 1.5, "over": True}
        elif kind == "erase":
            yield image, {"kind": "erase", "image": image, "stroke": stroke, "radius": 2.0}
        elif kind == "draw":
            outline = [[row, column], [row, column + 6], [row + 5, column + 6], [row + 5, column]]
            yield image, {"kind": "draw", "image": image, "outline": outline}
        elif kind == "accept":
            yield image, {"kind": "accept", "image": image, "box": [row, column, row + 5, column + 5]}
        elif kind == "delete":
            yield image, {"kind": "delete", "image": image, "labels": [int(random.integers(1, 12))]}
        else:
            yield image, kind


def corrected(address, steps, confirmed):
    """Send the steps until the server is killed; those that cannot be done are refused, the others confirmed."""
    for image, step in steps:
        try:
            if isinstance(step, str):
                answer = ask(address, step, {"image": image, "who": "Ada"})
            else:
                answer = ask(address, "edits", {"operation": step, "who": "Ada"})
        except HTTPError as error:
            if error.code != 400:
                raise
        except (OSError, HTTPException):
            return
        else:
            confirmed.append((image, step, answer["revision"]))


def repeated(session, confirmed):
    """The same operations on a session that nobody kills."""
    for image, step, _ in confirmed:
        if isinstance(step, str):
            getattr(session, step)(image, who="Ada")
        else:
            session.apply(from_json(step), who="Ada")


@pytest.mark.parametrize("seed", range(round(3 * EFFORT)))
def test_every_confirmed_operation_survives_a_kill(folder, tmp_path, seed):
    shutil.copytree(folder, tmp_path / "twin")
    confirmed = []
    with serving(folder, kill=True) as address:
        thread = threading.Thread(target=corrected, args=(address, script(seed), confirmed))
        thread.start()
        while thread.is_alive() and not confirmed:
            time.sleep(0.01)  # the server needs a core
        time.sleep(random.Random(seed).uniform(0, 1.5))  # the moment of the kill
    thread.join()
    with Session(folder) as session, Session(tmp_path / "twin") as twin:
        repeated(twin, confirmed)
        last = confirmed[-1][2]
        assert last <= session.revision <= last + 1  # one may have been written, but not confirmed any more
        if session.revision > last:
            record = next(one for name in "ab" for one in session.history(name) if one.revision > last)
            repeated(twin, [(record.image, again(record), record.revision)])
        for image in "ab":
            np.testing.assert_array_equal(session.canvas(image).labels, twin.canvas(image).labels)
            np.testing.assert_array_equal(session.canvas(image).reviewed, twin.canvas(image).reviewed)
            assert session.canvas(image).things == twin.canvas(image).things


def again(record):
    """An operation of the journal as the step that it came of."""
    return record.kind if record.kind in ("undo", "redo") else record.operation


def test_a_server_finds_the_queue_of_one_that_was_killed(folder):
    with serving(folder, kill=True) as address:
        arguments = {"images": ["a"], "model": "nuclei"}
        numbers = [ask(address, "jobs", {"kind": "segment", "arguments": arguments})["number"] for _ in range(3)]
        ask(address, f"jobs/{numbers[1]}", method="DELETE")
        while ask(address, f"jobs/{numbers[0]}")["state"] == "queued":
            time.sleep(0.01)  # a process is being started for it
    with serving(folder) as address:
        content = ask(address, "session")
        assert [(job["number"], job["arguments"]["images"]) for job in content["jobs"]] == [(n, ["a"]) for n in numbers]
        assert len(content["images"]) == 3
        for _ in range(600):
            states = [ask(address, f"jobs/{number}")["state"] for number in numbers]
            if states == ["done", "cancelled", "done"]:
                break
            time.sleep(0.1)  # processes work on them
        assert states == ["done", "cancelled", "done"]


def upload(address, number, content):
    """The name of an image that is sent."""
    boundary = "part"
    head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="up {number}.png"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
    return ask(address, "images", body=body, kind=f"multipart/form-data; boundary={boundary}")["image"]


def memory_of_children():
    """Bytes that the server and its processes hold now."""
    total = 0
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):  # it has just ended
            total += process.memory_info().rss
    return total


def test_two_hundred_uploads_and_fifty_listeners_at_once(tmp_path):
    """None is lost, none is answered by an error, and the server answers others meanwhile, in little memory."""
    content = png(picture(5)[..., 0])
    Session.create(tmp_path / "project", [], model="nuclei").close()
    with serving(tmp_path / "project") as address, ThreadPoolExecutor(200) as threads:
        base, _, token = address.partition("#token=")
        headers = {"authorization": f"Bearer {token}"}
        listeners = [urlopen(Request(f"{base}api/events", headers=headers), timeout=60) for _ in range(50)]
        uploads = [threads.submit(upload, address, number, content) for number in range(200)]
        waits, memory = [], 0
        while not all(one.done() for one in uploads):
            begun = time.monotonic()
            assert ask(address, "health") == {"state": "well"}
            waits.append(time.monotonic() - begun)
            memory = max(memory, memory_of_children())
            time.sleep(0.05)  # between two questions
        assert {one.result() for one in uploads} == {f"up {number}" for number in range(200)}
        assert len(ask(address, "session")["images"]) == 200
        for listener in listeners:
            told = set()
            while len(told) < 200:
                line = listener.readline().decode()
                if line.startswith("data:") and list(news := json.loads(line[5:])) == ["image"]:
                    told.add(news["image"])
            listener.close()
    assert memory < 2e9
    assert sorted(waits)[len(waits) // 2] < 0.2  # the slowest depends on what else the machine does
    assert max(waits) < 2
