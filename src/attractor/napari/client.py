"""The HTTP API of `attractor serve`, from Python: a session that a server has open, in this process's own terms.

Nothing here needs napari, nor imports torch: what computes is the server, a process of its own.

    with Client.open("project") as client:  # starts a server, unless the project is the address of one
        name = client.add("cells", image)
        client.wait(client.last_job())
        labels = client.labels(name)
        client.apply(name, "merge", labels=[1, 2])
        client.undo(name)

Shapes: `h` rows, `w` columns, `c` channels; `r` rows and `j` columns of a box.
"""

from __future__ import annotations

import io
import json
import queue
import re
import subprocess
import sys
import tempfile
import threading
import time
import uuid
import zlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from types import TracebackType
from typing import IO, Any, TypeAlias, cast
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, Request, build_opener

import numpy as np
from jaxtyping import Bool, Int32, Shaped
from PIL import Image

from attractor.errors import InputError
from attractor.images import images_in, read_image, write_image

Box: TypeAlias = tuple[int, int, int, int]  # first row and column, and those after the last
PATIENCE = 120.0  # seconds that one answer may take
GRACE = 20.0  # seconds that a server has to end
STARTING = 120.0  # seconds that a server has to start: a cold disk is slow
LOOKS = 0.2  # seconds between two looks at a job
ENDED = ("done", "failed", "cancelled")


@dataclass(frozen=True)
class Event:
    """Something that changed: an "edit" or an "image", a "job" that went on, or the "end" of the server."""

    kind: str
    content: Mapping[str, Any]


class Client:
    """A session, by way of a server that has it open."""

    def __init__(self, address: str, *, who: str = "napari", server: subprocess.Popen[str] | None = None) -> None:
        """Speak to a server.

        Args:
            address: as `attractor serve` prints it, with the token.
            who: does what is done here; undo takes back only that.
            server: a process that is told to end by `close`.

        Raises:
            InputError: if nobody answers there, or the token is not the right one.
        """
        base, _, token = address.strip().partition("#token=")
        self.base, self.who = base.rstrip("/") + "/", who
        self._token, self._server, self._over = token, server, False
        self.folder: Path | None = None  # of the session, if it is on this machine
        self._open = build_opener(ProxyHandler({})).open  # whatever proxy there is, it does not know this machine
        self.events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        try:
            self.side = int(self.session()["side"])
            stream = self._ask("events")
        except BaseException:
            self.close()
            raise
        threading.Thread(target=self._listen, args=(stream,), daemon=True).start()

    @classmethod
    def open(cls, project: str | Path, *, model: str = "nuclei", device: str = "auto", who: str = "napari") -> Client:
        """Open a session: by the address of a server, or a folder, for which a server is started.

        Args:
            project: the folder is made, if there is none.
            model: finds the objects in a new session.
            device: to compute on.
            who: as above.

        Raises:
            InputError: if the server does not start, or does not answer.
        """
        if re.match("https?://", str(project)):
            return cls(str(project), who=who)
        arguments = ["serve", str(project), "--model", model, "--device", device, "--port", "0", "--until-input-ends"]
        server = subprocess.Popen(
            [sys.executable, "-m", "attractor", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            encoding="utf-8",
            errors="replace",
        )
        client = cls(_address(server), who=who, server=server)
        client.folder = Path(project)
        return client

    # ----------------------------------------------------------------- looking

    def session(self) -> dict[str, Any]:
        """Classes, models, images with how far each is, and jobs."""
        return cast(dict[str, Any], self._answer("session"))

    @property
    def images(self) -> list[str]:
        """Names of the images."""
        return [image["image"] for image in self.session()["images"]]

    def image(self, name: str) -> dict[str, Any]:
        """Height, width, state and revision of an image.

        Raises:
            InputError: if there is none of this name, as in all that follows.
        """
        return cast(dict[str, Any], self._answer("image", name=name))

    def objects(self, name: str) -> list[dict[str, Any]]:
        """Label, class number, score, area and box of each object, and whether it was reviewed."""
        return cast(list[dict[str, Any]], self._answer("objects", name=name))

    def pixels(self, name: str) -> Shaped[np.ndarray, "h w c"]:
        """The image: its own values if the session is a folder on this machine, else the picture that pages show."""
        if self.folder is not None:
            files = {path.stem: path for path in images_in(self.folder / "images", written=())}
            return read_image(files[name])
        picture = self._whole("tile", name, _picture)
        return picture[..., :1] if self.image(name)["channels"] == 1 else picture

    def labels(self, name: str, box: Box | None = None) -> Int32[np.ndarray, "r j"]:
        """The label image, or a box of it."""
        return self._whole("labels", name, self._tile, box)[..., 0].astype(np.int32)

    def reviewed(self, name: str, box: Box | None = None) -> Bool[np.ndarray, "r j"]:
        """Which pixels somebody has looked at."""
        return self._whole("reviewed", name, self._tile, box)[..., 0] > 0

    def _tile(self, content: bytes) -> Shaped[np.ndarray, "_ _ 1"]:
        """A tile of labels without its rim of one pixel."""
        tile = np.frombuffer(zlib.decompress(content), "<u4").reshape(self.side + 2, self.side + 2)
        return tile[1:-1, 1:-1, None]

    def _whole(
        self, what: str, name: str, decoded: Callable[[bytes], np.ndarray], box: Box | None = None
    ) -> Shaped[np.ndarray, "r j c"]:
        """A box, put together from the server's tiles; all by default."""
        if box is None:
            about = self.image(name)
            box = 0, 0, about["height"], about["width"]
        top, left, bottom, right = box
        rows = []
        for row in range(top // self.side, -(-bottom // self.side)):
            tiles = []
            for column in range(left // self.side, -(-right // self.side)):
                with self._ask(what, name=name, level=0, row=row, column=column) as answer:
                    tiles.append(decoded(answer.read()))
            rows.append(np.concatenate(tiles, axis=1))
        down, across = top - top % self.side, left - left % self.side  # of the first pixel there
        return np.concatenate(rows)[top - down : bottom - down, left - across : right - across]

    # --------------------------------------------------------------- correcting

    def apply(self, name: str, kind: str, **operation: Any) -> dict[str, Any]:
        """Do an operation of `attractor.session`, and give the revision and the box that changed.

        Args:
            name: of the image.
            kind: such as "merge".
            operation: its other fields.

        Raises:
            InputError: if it cannot be done.
        """
        content = {"operation": {"kind": kind, "image": name, **operation}, "who": self.who}
        return cast(dict[str, Any], self._answer("edits", content))

    def undo(self, name: str) -> dict[str, Any]:
        """Take back one's own last operation on an image.

        Raises:
            InputError: if there is none, or somebody has changed the same place since.
        """
        return cast(dict[str, Any], self._answer("undo", {"image": name, "who": self.who}))

    def redo(self, name: str) -> dict[str, Any]:
        """Do again what one's last undo took back.

        Raises:
            InputError: as `undo`.
        """
        return cast(dict[str, Any], self._answer("redo", {"image": name, "who": self.who}))

    # ------------------------------------------------------------------ working

    def add(self, name: str, image: Shaped[np.ndarray, "h w c"]) -> str:
        """Add an image, and give the name that it got; if the session has a model, its objects are looked for at once.

        Raises:
            InputError: if the server does not take it.
        """
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "image.tif"
            write_image(path, image)
            content = path.read_bytes()
        boundary, safe = uuid.uuid4().hex, "".join(c if c.isprintable() and c not in '"\\/' else "_" for c in name)
        head = f'--{boundary}\r\ncontent-disposition: form-data; name="file"; filename="{safe}.tif"\r\n\r\n'
        body = head.encode() + content + f"\r\n--{boundary}--\r\n".encode()
        with self._ask("images", body, kind=f"multipart/form-data; boundary={boundary}") as answer:
            return str(json.load(answer)["image"])

    def segment(self, names: list[str], **how: Any) -> dict[str, Any]:
        """Find the objects of images anew, except where they were reviewed; gives the job.

        Args:
            names: of the images.
            how: model, tta, object_size.

        Raises:
            InputError: if an argument cannot be used.
        """
        return self._job("segment", images=names, **how)

    def train(self, minutes: float) -> dict[str, Any]:
        """Train on what was reviewed, and use the new model if it is better; gives the job."""
        return self._job("train", minutes=minutes)

    def last_job(self) -> dict[str, Any] | None:
        """The job that was added last."""
        return next(iter(reversed(self.session()["jobs"])), None)

    def job(self, number: int) -> dict[str, Any]:
        """State, progress and words of a job."""
        return cast(dict[str, Any], self._answer(f"jobs/{number}"))

    def wait(self, number: int, seconds: float = float("inf")) -> dict[str, Any]:
        """Wait for a job to end.

        Raises:
            InputError: if it fails, or takes longer.
        """
        until = time.monotonic() + seconds
        while (job := self.job(number))["state"] not in ENDED:
            if time.monotonic() > until:
                raise InputError(f"Job {number} has not ended within {seconds:g} seconds; it goes on.")
            time.sleep(LOOKS)  # a server tells how far a job is only to those who listen to all events
        if job["state"] == "failed":
            raise InputError(job["words"])
        return job

    def cancel(self, number: int) -> dict[str, Any]:
        """End a job, or take it out of the queue."""
        with self._ask(f"jobs/{number}", method="DELETE") as answer:
            return cast(dict[str, Any], json.load(answer))

    def _job(self, kind: str, **arguments: Any) -> dict[str, Any]:
        return cast(dict[str, Any], self._answer("jobs", {"kind": kind, "arguments": arguments}))

    # ------------------------------------------------------------------- asking

    def _answer(self, path: str, content: object = None, **query: Any) -> Any:
        """What the server answers, as JSON."""
        body = None if content is None else json.dumps(content).encode()
        with self._ask(path, body, **query) as answer:
            return json.load(answer)

    def _ask(
        self,
        path: str,
        body: bytes | None = None,
        *,
        kind: str = "application/json",
        method: str | None = None,
        **query: Any,
    ) -> HTTPResponse:
        headers = {"authorization": f"Bearer {self._token}"} | ({} if body is None else {"content-type": kind})
        address = f"{self.base}api/{path}" + (f"?{urlencode(query)}" if query else "")
        try:
            request = Request(address, body, headers, method=method)
            return cast(HTTPResponse, self._open(request, timeout=PATIENCE))
        except HTTPError as error:
            raise InputError(_reason(error)) from error
        except (OSError, HTTPException, ValueError) as error:
            raise InputError(
                f"{self.base}: there is no answer ({error}). Open the session again; give the address that attractor "
                "serve prints, with its token, or the folder of the session."
            ) from error

    def _listen(self, stream: HTTPResponse) -> None:
        """Put what the server tells into the queue, until it ends."""
        kind = ""
        with suppress(OSError, HTTPException, ValueError, AttributeError), stream:  # closed here, or lost
            for line in stream:
                name, _, value = line.decode().strip().partition(": ")
                if name == "event":
                    kind = value
                elif name == "data" and kind != "end":
                    self.events.put(Event(kind, json.loads(value)))
                if self._over:
                    return
        self.events.put(Event("end", {}))

    def close(self) -> None:
        """Leave the session; a server that was started for it ends, and keeps everything."""
        self._over, server, self._server = True, self._server, None
        if server is not None:
            _end(server)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def _address(server: subprocess.Popen[str]) -> str:
    """The address that a server prints when it has started; what it prints later is read, so that it need not wait.

    Raises:
        InputError: if it ends before, with what it said, or takes too long.
    """
    assert server.stdout is not None
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def read(output: IO[str]) -> None:
        with output:
            for line in output:
                said.put(line)
        said.put("")

    threading.Thread(target=read, args=(server.stdout,), daemon=True).start()
    lines: list[str] = []
    with suppress(queue.Empty):
        while line := said.get(timeout=STARTING):
            if found := re.search(r"https?://\S+#token=\S+", line):
                return found.group()
            lines.append(line.strip())
    _end(server)
    raise InputError(next(filter(None, reversed(lines)), "The server of attractor does not start; it gave no reason."))


def _end(server: subprocess.Popen[str]) -> None:
    """Let a server end, which it does when its input ends, and make it, if it does not."""
    assert server.stdin is not None
    server.stdin.close()
    try:
        server.wait(GRACE)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()


def _picture(content: bytes) -> Shaped[np.ndarray, "_ _ c"]:
    """A tile of an image."""
    with Image.open(io.BytesIO(content)) as tile:
        return np.asarray(tile)


def _reason(error: HTTPError) -> str:
    """What a server says is wrong."""
    with error:
        try:
            detail = json.load(error)["detail"]
        except (OSError, ValueError, LookupError, TypeError):
            detail = None
    return detail if isinstance(detail, str) else f"The server answers {error.code} {error.reason}."
