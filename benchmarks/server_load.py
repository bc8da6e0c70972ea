"""The server of `attractor correct` under load: 200 uploads at once, 50 who listen, and how soon it answers others.

`python -m benchmarks.server_load [--uploads 200] [--listeners 50] [--side 64] [--json FILE]`. Those who upload and
listen are a process of their own, and so is the one who asks, so that neither waits for the other. Asked for: no upload
lost, none answered by an error, less than 2 GB, and `/api/health` within 200 ms.
"""

from __future__ import annotations

import io
import json
import multiprocessing
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import Request, urlopen

import numpy as np
import psutil
from PIL import Image

from attractor.session import Session
from benchmarks.harness import keep, milliseconds, options, picture_of_cells, print_machine, print_table
from benchmarks.page import serving

BETWEEN = 0.02  # seconds from an answer to the next question
PATIENCE = 120  # seconds
BOUNDARY = "part"


def upload(base, token, number, content):
    """Send an image; gives the name it has in the session."""
    name = f"up {number}"
    head = f'--{BOUNDARY}\r\ncontent-disposition: form-data; name="file"; filename="{name}.png"\r\n\r\n'
    body = head.encode() + content + f"\r\n--{BOUNDARY}--\r\n".encode()
    headers = {"authorization": f"Bearer {token}", "content-type": f"multipart/form-data; boundary={BOUNDARY}"}
    with urlopen(Request(f"{base}api/images", body, headers), timeout=PATIENCE) as answer:
        return json.load(answer)["image"] == name


def crowd(base, token, n_uploads, n_listeners, side, told):
    """Upload and listen all at once; says how many uploads were taken, and how many listeners heard of all of them."""
    content = io.BytesIO()
    Image.fromarray(picture_of_cells(side, side, side // 12, np.random.default_rng(0))).save(content, "PNG")

    def listened(stream):
        heard = set()
        while len(heard) < n_uploads:
            line = stream.readline()
            if line.startswith(b"data:") and list(news := json.loads(line[5:])) == ["image"]:
                heard.add(news["image"])
        return len(heard)

    headers = {"authorization": f"Bearer {token}"}
    streams = [urlopen(Request(f"{base}api/events", headers=headers), timeout=PATIENCE) for _ in range(n_listeners)]
    with ThreadPoolExecutor(n_uploads + n_listeners) as threads:
        hearing = [threads.submit(listened, stream) for stream in streams]
        sent = [threads.submit(upload, base, token, number, content.getvalue()) for number in range(n_uploads)]
        taken = sum(one.result() for one in sent)
        told.send((taken, sum(one.result() == n_uploads for one in hearing)))


def asked(connection, token):
    """Seconds until the server has said that it is well."""
    begun = time.perf_counter()
    connection.request("GET", "/api/health", headers={"authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    assert json.load(answer) == {"state": "well"}
    return time.perf_counter() - begun


def memory_of(process):
    """Bytes that a process and its children hold."""
    every = [process, *process.children(recursive=True)]
    return sum(one.memory_info().rss for one in every if one.is_running())


def main() -> None:
    """Start a server, send the crowd, ask meanwhile, and print what came of it."""
    given = options(
        __doc__.splitlines()[0],
        ("--uploads", {"type": int, "default": 200, "help": "images that are sent at once"}),
        ("--listeners", {"type": int, "default": 50, "help": "who hear of each change"}),
        ("--side", {"type": int, "default": 64, "help": "of an image, in pixels"}),
    )
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        project = Path(folder) / "project"
        Session.create(project, [], model="nuclei").close()
        with serving(project) as (process, address, _):
            base, token = address.split("#token=")
            told, tell = multiprocessing.Pipe(duplex=False)
            arguments = base, token, given.uploads, given.listeners, given.side, tell
            others = multiprocessing.get_context("spawn").Process(target=crowd, args=arguments)
            connection, server = HTTPConnection(urlsplit(base).netloc, timeout=PATIENCE), psutil.Process(process.pid)
            asked(connection, token)
            others.start()
            waits, most, begun = [], 0, time.perf_counter()
            while not told.poll(BETWEEN):
                waits.append(asked(connection, token))
                most = max(most, memory_of(server))
                assert others.is_alive() or told.poll(), "the crowd has ended before it told anything"
            seconds = time.perf_counter() - begun
            taken, heard = told.recv()
            others.join()
    row = {
        "uploads taken": f"{taken} of {given.uploads}",
        "listeners who heard of all": f"{heard} of {given.listeners}",
        "seconds": f"{seconds:.1f}",
        "questions": len(waits),
        "health, median": milliseconds(float(np.median(waits))),
        "95 of 100": milliseconds(float(np.quantile(waits, 0.95))),
        "slowest": milliseconds(max(waits)),
        "memory": f"{most / 1e9:.2f} GB",
    }
    print_table("the server under load (asked: 200 ms, 2 GB)", [row])
    keep(given.json, row)


if __name__ == "__main__":
    main()
