"""The server as a process: programs use it, it survives being killed, and many may ask at once."""

import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from urllib.request import Request, urlopen

import psutil
import pytest
from tests.web.conftest import picture, serving
from tests.web.test_app import png

from attractor.session import Session

PAGE = Path(__file__).parents[2] / "docs" / "correct.md"


def ask(address, path, content=None, *, body=None, kind="application/json"):
    """The answer of a server to a request with its token."""
    base, _, token = address.partition("#token=")
    data = body if body is not None else None if content is None else json.dumps(content).encode()
    headers = {"authorization": f"Bearer {token}", "content-type": kind}
    with urlopen(Request(f"{base}api/{path}", data, headers), timeout=60) as answer:
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


@pytest.mark.parametrize("seed", range(3))
def test_every_confirmed_operation_survives_a_kill(folder, seed):
    confirmed = []

    def paint(address):
        for k in range(1000):
            operation = {"kind": "paint", "image": "a", "stroke": [[1.5 + k % 50, 75.5]], "radius": 0.6, "over": True}
            try:
                confirmed.append(ask(address, "edits", {"operation": operation})["revision"])
            except OSError:
                return

    with serving(folder, kill=True) as address:
        thread = threading.Thread(target=paint, args=(address,))
        thread.start()
        while thread.is_alive() and not confirmed:
            time.sleep(0.01)  # the server needs a core
        time.sleep(random.Random(seed).uniform(0, 0.5))  # the moment of the kill
    thread.join()
    with Session(folder) as session:
        assert confirmed[-1] <= session.revision <= confirmed[-1] + 1
        assert [entry.revision for entry in session.history("a")] == list(range(1, session.revision + 1))


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
                if line.startswith("data:") and list(content := json.loads(line[5:])) == ["image"]:
                    told.add(content["image"])
            listener.close()
    assert memory < 2e9
    assert sorted(waits)[len(waits) // 2] < 0.2  # the slowest depends on what else the machine does
    assert max(waits) < 2
