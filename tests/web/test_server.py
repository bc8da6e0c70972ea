"""The server as a process: programs use it, it survives being killed, and many may ask at once."""

import json
import random
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.request import Request, urlopen

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


def test_many_uploads_and_listeners_at_once(folder):
    """Few enough for a test; the server takes all, and answers others meanwhile."""
    content = png(picture(5)[..., 0])

    def upload(address, number):
        boundary = "part"
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="up {number}.png"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        return ask(address, "images", body=body, kind=f"multipart/form-data; boundary={boundary}")["image"]

    with serving(folder) as address, ThreadPoolExecutor(20) as threads:
        base, _, token = address.partition("#token=")
        listeners = [
            urlopen(Request(f"{base}api/events", headers={"authorization": f"Bearer {token}"})) for _ in range(10)
        ]
        uploads = [threads.submit(upload, address, number) for number in range(12)]
        slowest = 0.0
        while not all(one.done() for one in uploads):
            begun = time.monotonic()
            assert ask(address, "health") == {"state": "well"}
            slowest = max(slowest, time.monotonic() - begun)
            time.sleep(0.05)  # between two questions
        assert len({one.result() for one in uploads}) == 12
        assert len(ask(address, "session")["images"]) == 15
        for listener in listeners:
            listener.close()
    assert slowest < 5  # it never waits for an upload
