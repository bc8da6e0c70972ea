"""What the server answers: the page, and the HTTP API that it uses, which programs may use as well.

Every answer but an image is JSON. Errors have the status 400 and a sentence in "detail", which a page can show.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Annotated, Any

import numpy as np
from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response, UploadFile
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, find_images, read_image, temporary_folder
from attractor.images.calibration import pixel_size
from attractor.instances import Instances, relabel
from attractor.prediction.outputs import OUTPUTS, check_outputs
from attractor.prediction.result import FileOutput, Result
from attractor.session import Session
from attractor.session.journal import Record
from attractor.session.operations import from_json
from attractor.web.jobs import Jobs
from attractor.web.security import HOSTS, Door, Guard, SafeHeaders
from attractor.web.tiles import SIDE, Pictures, label_tile, shown

PAGE = Path(__file__).parent / "page"
PYRAMIDS = "pyramids"  # the folder in a session with smaller versions of large images
LARGEST_BODY = 2 << 30  # bytes of an upload
LARGEST_REQUEST = 1 << 23  # bytes of everything else
MOST_PIXELS = 1 << 28  # of an uploaded image
DECODING_BYTES = 8 << 30  # of memory for looking at one
DECODING_SECONDS = 60.0
LOOKING = 2  # uploads that are looked at at once
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
KEEP_ALIVE = 15.0  # seconds between two signs of life in a stream of events
MOST_IN_MEMORY = 1 << 24  # bytes of a zip; larger ones are written to the disk
WHO = 60  # characters of a person's name

Name = Annotated[str, Query(max_length=300)]


class Events:
    """Everything that changes, told to all pages that listen."""

    def __init__(self) -> None:
        """Begin with no listener."""
        self._listeners: set[asyncio.Queue[str]] = set()
        self._over = False
        self._loop: asyncio.AbstractEventLoop | None = None

    def begin(self) -> None:
        """Tell events in the loop that runs now, whatever thread they come from."""
        self._loop = asyncio.get_running_loop()

    def tell(self, kind: str, content: Mapping[str, Any]) -> None:
        """Tell all listeners; one that does not keep up misses some."""
        if self._loop is not None and not self._loop.is_closed():
            text = f"event: {kind}\ndata: {json.dumps(content)}\n\n"
            self._loop.call_soon_threadsafe(self._put, text)

    def end(self) -> None:
        """End all streams, so that the server need not wait for them."""
        self._over = True
        self.tell("end", {})

    def _put(self, text: str) -> None:
        for listener in self._listeners:
            if not listener.full():
                listener.put_nowait(text)

    async def stream(self, request: Request) -> AsyncIterator[str]:
        """The events from now on, as a browser reads them."""
        queue: asyncio.Queue[str] = asyncio.Queue(1000)
        self._listeners.add(queue)
        try:
            yield ": here\n\n"
            while not self._over and not await request.is_disconnected():
                try:
                    yield await asyncio.wait_for(queue.get(), KEEP_ALIVE)
                except TimeoutError:
                    yield ": still here\n\n"
        finally:
            self._listeners.discard(queue)


@dataclass(frozen=True)
class Server:
    """What all requests share."""

    session: Session
    events: Events
    jobs: Jobs
    guard: Guard
    device: str
    pictures: Pictures
    looking: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKING))

    def answered(self, entry: Record) -> dict[str, Any]:
        """The answer to an operation, which all pages are told, too."""
        content = {
            "image": entry.image,
            "revision": entry.revision,
            "kind": entry.kind,
            "who": entry.who,
            "box": entry.box,
            "progress": _state(self.session, entry.image),
        }
        self.events.tell("edit", content)
        return content


def create_app(
    session: Session,
    *,
    token: str,
    port: int,
    hosts: tuple[str, ...] = (),
    device: str = "auto",
    segments: bool = False,
) -> FastAPI:
    """The application for a session.

    Args:
        session: that is shown and corrected.
        token: without which nothing is answered but the page itself.
        port: that the server listens on.
        hosts: names by which it may be called, besides this machine's own.
        device: for segmentation and training.
        segments: whether to begin by finding the objects of all images.
    """
    events = Events()
    jobs, pictures = Jobs(session, events.tell), Pictures(session.folder / PYRAMIDS)
    server = Server(session, events, jobs, Guard(token, port), device, pictures)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        events.begin()
        if segments:
            server.jobs.add("segment", {"device": device})
        yield
        await asyncio.to_thread(server.jobs.close)

    app = FastAPI(
        lifespan=life, docs_url=None, redoc_url=None, openapi_url=None, max_body_size=LARGEST_BODY, title="attractor"
    )
    app.state.events = events
    app.add_middleware(Door, guard=server.guard, largest=LARGEST_REQUEST, uploads="/api/images")
    app.add_middleware(SafeHeaders)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS, *hosts], www_redirect=False)
    app.add_exception_handler(InputError, _refused)
    app.include_router(_open_routes(server.guard))
    for routes in (_looking, _tiling, _correcting, _working):
        app.include_router(routes(server), dependencies=[Depends(server.guard.allowed)])
    return app


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


def _open_routes(guard: Guard) -> APIRouter:
    """The page itself, which holds no secret, and the way to log in."""
    routes = APIRouter()

    @routes.get("/")
    def index() -> FileResponse:
        return FileResponse(PAGE / "index.html", headers={"cache-control": "no-cache"})

    @routes.get("/page/{name:path}")
    def page(name: str) -> Response:
        if "\0" in name:
            return JSONResponse({"detail": "There is no such file."}, 404)
        path = (PAGE / name).resolve()
        if not path.is_relative_to(PAGE.resolve()) or path.suffix not in KINDS or not path.is_file():
            return JSONResponse({"detail": "There is no such file."}, 404)
        return FileResponse(path, media_type=KINDS[path.suffix], headers={"cache-control": "no-cache"})

    @routes.post("/api/login", dependencies=[Depends(guard.from_here)])
    def login(token: Annotated[str, Body(embed=True, max_length=200)]) -> Response:
        response = JSONResponse({})
        guard.let_in(token, response)
        return response

    @routes.get("/api/health")
    async def health() -> dict[str, str]:
        return {"state": "well"}

    return routes


def _looking(server: Server) -> APIRouter:
    """What there is to see."""
    routes = APIRouter()

    @routes.get("/api/session")
    def whole_session() -> dict[str, Any]:
        project = server.session.project
        return {
            "folder": server.session.folder.name,
            "classes": list(server.session.class_names),
            "model": project.get("model", ""),
            "in_use": project.get("in_use", "") or project.get("model", ""),
            "rounds": project.get("rounds", []),
            "revision": server.session.revision,
            "images": [_state(server.session, name) for name in server.session.images],
            "jobs": [vars(job) for job in server.jobs.all()],
            "side": SIDE,
        }

    @routes.get("/api/image")
    def image(name: Name) -> dict[str, Any]:
        picture = server.pictures(server.session.path(name))
        size = pixel_size(server.session.path(name))
        return {
            **_state(server.session, name),
            "height": picture.shape[0],
            "width": picture.shape[1],
            "channels": picture.channels,
            "levels": picture.levels,
            **vars(picture.values),
            "pixel_size": size,
            "revision": _revision(server.session, name),
        }

    @routes.get("/api/objects")
    def objects(name: Name) -> Response:
        with server.session.looking(name) as canvas:
            looked_at = canvas.looked_at()
            found = [
                {
                    "label": label,
                    "class_number": thing.class_number,
                    "score": thing.score,
                    "area": canvas.area(label),
                    "box": canvas.box([label]),
                    "reviewed": label in looked_at,
                }
                for label, thing in sorted(canvas.things.items())
            ]
        return JSONResponse(found)

    @routes.get("/api/events")
    async def stream(request: Request) -> StreamingResponse:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(server.events.stream(request), media_type="text/event-stream", headers=headers)

    return routes


def _tiling(server: Server) -> APIRouter:
    """Pictures and labels, piece by piece."""
    routes = APIRouter()

    @routes.get("/api/tile")
    def tile(
        name: Name, level: int, row: int, column: int, channels: Annotated[str, Query(max_length=1000)] = ""
    ) -> Response:
        content = server.pictures(server.session.path(name)).tile(level, row, column, shown(channels))
        return Response(content, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    @routes.get("/api/thumbnail")
    def thumbnail(name: Name) -> Response:
        picture = server.pictures(server.session.path(name))
        content = picture.tile(picture.levels - 1, 0, 0)
        return Response(content, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

    @routes.get("/api/labels")
    def labels(name: Name, level: int, row: int, column: int) -> Response:
        with server.session.looking(name) as canvas:
            return _packed(label_tile(canvas.labels, level, row, column))

    @routes.get("/api/reviewed")
    def reviewed(name: Name, level: int, row: int, column: int) -> Response:
        with server.session.looking(name) as canvas:
            return _packed(label_tile(canvas.reviewed, level, row, column))

    return routes


def _packed(content: bytes) -> Response:
    """A tile of labels, which may be another one at any moment."""
    headers = {"content-encoding": "deflate", "cache-control": "no-store"}
    return Response(content, media_type="application/octet-stream", headers=headers)


def _correcting(server: Server) -> APIRouter:
    """Operations, and taking them back."""
    routes = APIRouter()

    @routes.post("/api/edits")
    def edit(operation: Annotated[Any, Body(embed=True)], who: Annotated[str, Body(max_length=WHO)] = "") -> Any:
        return server.answered(server.session.apply(from_json(operation), who=who))

    @routes.post("/api/undo")
    def undo(image: Annotated[str, Body()], who: Annotated[str, Body(max_length=WHO)] = "") -> Any:
        return server.answered(server.session.undo(image, who=who))

    @routes.post("/api/redo")
    def redo(image: Annotated[str, Body()], who: Annotated[str, Body(max_length=WHO)] = "") -> Any:
        return server.answered(server.session.redo(image, who=who))

    return routes


def _working(server: Server) -> APIRouter:
    """Images that are added, jobs, and what is taken away as files."""
    routes = APIRouter()

    @routes.post("/api/images")
    async def upload(file: UploadFile) -> dict[str, Any]:
        async with server.looking:
            added = await asyncio.to_thread(_added, server.session, file)
        await asyncio.to_thread(_begun, server, [added])
        return {"image": added}

    @routes.post("/api/demo")
    def demo() -> dict[str, Any]:
        from attractor.demo import FOLDER

        paths = [path for path in find_images([FOLDER / "images"]).images if path.stem not in server.session.images]
        added = [server.session.copy(path) for path in paths]
        _begun(server, added)
        return {"images": added}

    @routes.post("/api/jobs")
    def add_job(kind: Annotated[str, Body()], arguments: Annotated[dict[str, Any] | None, Body()] = None) -> Any:
        return vars(server.jobs.add(kind, {"device": server.device, **_checked(kind, arguments or {})}))

    @routes.get("/api/jobs/{number}")
    def job(number: int) -> Any:
        return {**vars(server.jobs.get(number)), "log": server.jobs.log}

    @routes.delete("/api/jobs/{number}")
    def cancel(number: int) -> Any:
        return vars(server.jobs.cancel(number))

    @routes.get("/api/export")
    def export(form: Annotated[str, Query(max_length=30)] = "labels", name: Name = "") -> Response:
        names = [name] if name else list(server.session.images)
        headers = {"content-disposition": f'attachment; filename="{form}.zip"'}
        content = _parts_of(_exported(server.session, names, form))
        return StreamingResponse(content, media_type="application/zip", headers=headers)

    return routes


def _begun(server: Server, names: list[str]) -> None:
    """Show images that were added, and find their objects, if the session has a model."""
    for name in names:
        server.session.segment(name, None)
        server.events.tell("image", {"image": name})
    project = server.session.project
    if names and (project.get("in_use") or project.get("model")):
        server.jobs.add("segment", {"images": names, "device": server.device})


def _state(session: Session, name: str) -> dict[str, Any]:
    """How far an image is, and a mark by which a browser tells its picture from one of the same name."""
    try:
        own = vars(session.progress(name))
    except InputError as error:  # one damaged file must not hide the other images
        own = {"image": name, "state": "damaged", "objects": 0, "reviewed": 0.0, "edits": 0, "least_score": None}
        own["problem"] = str(error)
    return {**own, "mark": str(session.path(name).stat().st_mtime_ns)}


def _revision(session: Session, name: str) -> int:
    history = session.history(name)
    return history[-1].revision if history else 0


def _checked(kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of a job that a page may give.

    Raises:
        InputError: if one is unknown, or of another kind than it should be.
    """
    allowed: dict[str, type | tuple[type, ...]] = {
        "images": list,
        "model": str,
        "tta": bool,
        "object_size": (int, float),
    }
    if kind == "train":
        allowed = {"minutes": (int, float), "start": str}
    for name, value in arguments.items():
        if name not in allowed or not isinstance(value, allowed[name]):
            raise InputError(f"{str(name)[:50]}: cannot be given to this job like this; it takes {', '.join(allowed)}.")
    given = dict(arguments)
    for name in ("model", "start"):
        if name in given:
            _check_model(given[name])
    if kind == "train":
        given.setdefault("minutes", 10)
        if not 0 < given["minutes"] <= 24 * 60:
            raise InputError(f"minutes is {given['minutes']}; it must be above 0 and at most {24 * 60:,}.")
    return given


def _check_model(name: str) -> None:
    """Only models that come with the package, or of the session: a page names no other files."""
    from attractor.weights import MODELS

    own = (
        name.startswith("models/round-") and name.removeprefix("models/round-").removesuffix(".safetensors").isdecimal()
    )
    if name not in MODELS and not own:
        raise InputError(f'There is no model "{name[:50]}" here; there are {", ".join(MODELS)}.')


def _added(session: Session, file: UploadFile) -> str:
    """Add an uploaded file, once a process of its own has found that it is an image; gives the image's name."""
    given = Path((file.filename or "image").replace("\\", "/")).name
    stem = "".join(c if c.isalnum() or c in "-_. " else "_" for c in Path(given).stem).strip(" .")[:100] or "image"
    suffix = Path(given).suffix.lower()
    if suffix not in IMAGE_SUFFIXES:
        raise InputError(
            f"{given[:100]}: is no image that can be read here; images end in {', '.join(IMAGE_SUFFIXES)}."
        )
    with temporary_folder(session.folder) as work:
        path = work / f"{_free(stem, session)}{suffix}"
        with path.open("wb") as target:
            while part := file.file.read(1 << 20):
                target.write(part)
        _look_at(path, given)
        return session.copy(path)


def _free(stem: str, session: Session) -> str:
    """The name, or one with a number, that no image of the session has."""
    taken, free, number = set(session.images), stem, 2
    while free in taken:
        free, number = f"{stem} {number}", number + 1
    return free


def _look_at(path: Path, given: str) -> None:
    """Open an image in a process of its own, with bounds on memory and time.

    Raises:
        InputError: if it cannot be opened there.
    """
    request = {"kind": "look", "path": str(path), "bytes": DECODING_BYTES, "pixels": MOST_PIXELS}
    command = [sys.executable, "-m", "attractor.web.worker"]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=subprocess.DEVNULL, text=True) as process:
        assert process.stdin is not None
        process.stdin.write(json.dumps(request) + "\n")
        process.stdin.flush()
        try:
            assert process.stdout is not None
            process.wait(DECODING_SECONDS)
            line = process.stdout.readline()
        except subprocess.TimeoutExpired:
            process.kill()
            line = '{"error": "It took too long to open."}'
    said = json.loads(line or '{"error": "It cannot be opened."}')
    if "error" in said:
        raise InputError(f"{given[:100]}: {str(said['error']).replace(str(path), 'the file')}")


def _exported(session: Session, names: list[str], form: str) -> IO[bytes]:
    """A zip with the objects of images, in a form that `attractor segment` writes; it is removed when it is closed."""
    check_outputs([form], session.class_names)
    output = OUTPUTS[form]
    if not isinstance(output, FileOutput):
        able = [key for key, one in OUTPUTS.items() if isinstance(one, FileOutput)]
        raise InputError(f"The form {form} is not for single images; there are {', '.join(able)}.")
    file = tempfile.SpooledTemporaryFile(MOST_IN_MEMORY)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(f"{name}{output.ending}", output.encode(_result(session, name)))
    file.seek(0)
    return file


def _parts_of(file: IO[bytes]) -> Iterator[bytes]:
    """A file's content, after which it is closed."""
    with file:
        while part := file.read(1 << 20):
            yield part


def _result(session: Session, name: str) -> Result:
    """An image and its objects, as outputs take them."""
    path = session.path(name)
    with session.looking(name) as canvas:
        labels, ids = relabel(canvas.labels)
        things = [canvas.things[int(label)] for label in ids]
    classes = np.array([thing.class_number for thing in things], np.int32)
    scores = np.array([1.0 if thing.score is None else thing.score for thing in things], np.float32)
    found = Instances(labels, classes, scores)
    return Result(path.name, read_image(path), found, session.class_names, pixel_size(path))
