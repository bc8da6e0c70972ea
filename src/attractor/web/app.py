"""What the server answers: the page, and the HTTP API that it uses, which programs may use as well.

Every answer but an image is JSON. Errors have the status 400 and a sentence in "detail", which a page can show.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Thread
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Body, Depends, FastAPI, Query, Request, Response, UploadFile
from fastapi.exceptions import RequestValidationError
from fastapi.responses import FileResponse, JSONResponse, StreamingResponse
from starlette.middleware.trustedhost import TrustedHostMiddleware

from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, find_images
from attractor.images.calibration import pixel_size
from attractor.session import Session
from attractor.session.differences import picture_file, pictures_of_round
from attractor.session.journal import Record
from attractor.session.models import check_model, models_of_images
from attractor.session.operations import from_json
from attractor.session.progress import NEW
from attractor.web.answers import Answers, Wanted, unless_gone
from attractor.web.export import exported, forms, parts_of
from attractor.web.jobs import Jobs
from attractor.web.line import Line
from attractor.web.security import HOSTS, Door, Guard, SafeHeaders
from attractor.web.tiles import SIDE, Pictures, label_tile, shown
from attractor.web.uploads import Looks, Uploads

PAGE = Path(__file__).parent / "page"
PYRAMIDS = "pyramids"  # the folder in a session with smaller versions of large images
LARGEST_BODY = 2 << 30  # bytes of an upload
LARGEST_REQUEST = 1 << 23  # bytes of everything else
KINDS = {
    ".html": "text/html",
    ".css": "text/css",
    ".js": "text/javascript",
    ".svg": "image/svg+xml",
    ".txt": "text/plain",
}
EMPTYING = 3600.0  # seconds between two looks at what was removed long ago
KEEP_ALIVE = 15.0  # seconds between two signs of life in a stream of events
WHO = 60  # characters of a person's name

Name = Annotated[str, Query(max_length=300)]

logger = logging.getLogger(__name__)


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
    looks: Looks
    uploads: Uploads
    answers: Answers
    pictures: Pictures

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


def _read_ahead(session: Session, pictures: Pictures) -> None:
    """Read the image that a page shows first, the least sure one, while the browser still loads the page."""
    try:
        first = session.next()
        if first is not None and session.progress(first).state != NEW:
            session.canvas(first)
            pictures(session.path(first))
    except InputError as error:  # a page that asks for the image is told
        logger.debug("%s", error)


async def _emptied_again_and_again(session: Session, days: float) -> None:
    """Delete, every now and then, what was removed longer ago."""
    while True:
        try:
            await asyncio.to_thread(session.empty_old_trash, days)
        except InputError as error:
            logger.warning("%s", error)
        await asyncio.sleep(EMPTYING)


def create_app(
    session: Session,
    *,
    token: str,
    port: int,
    hosts: tuple[str, ...] = (),
    device: str = "auto",
    segments: bool = False,
    quota: int | None = None,
    trash_days: float | None = None,
) -> FastAPI:
    """The application for a session.

    Args:
        session: that is shown and corrected.
        token: without which nothing is answered but the page itself.
        port: that the server listens on.
        hosts: names by which it may be called, besides this machine's own.
        device: for segmentation and training.
        segments: whether to begin by finding the objects of all images.
        quota: bytes that images may take, with those that were removed; None for no limit.
        trash_days: after which images that were removed are deleted for good; None to keep them.
    """
    events = Events()
    looks, line = Looks(), Line()
    answers = Answers(session, looks, line, device)
    jobs = Jobs(session, events.tell, line, answers.make_room)
    pictures = Pictures(session.folder / PYRAMIDS)
    guard, uploads = Guard(token, port), Uploads(session, looks, quota)
    server = Server(session, events, jobs, guard, device, looks, uploads, answers, pictures)

    @asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        events.begin()
        if segments:
            server.jobs.add("segment", {"device": device})
        Thread(target=_read_ahead, args=(session, pictures), daemon=True).start()
        emptying = None if trash_days is None else asyncio.create_task(_emptied_again_and_again(session, trash_days))
        yield
        if emptying is not None:
            emptying.cancel()
        for end in (answers.end, jobs.close, looks.close):
            await asyncio.to_thread(end)

    app = FastAPI(
        lifespan=life, docs_url=None, redoc_url=None, openapi_url=None, max_body_size=LARGEST_BODY, title="attractor"
    )
    app.state.events = events
    app.add_middleware(Door, guard=server.guard, largest=LARGEST_REQUEST, uploads=("/api/images", "/api/segment"))
    app.add_middleware(SafeHeaders)
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[*HOSTS, *hosts], www_redirect=False)
    app.add_exception_handler(InputError, _refused)
    app.add_exception_handler(RequestValidationError, _misunderstood)
    app.include_router(_open_routes(server.guard))
    for routes in (_looking, _following, _tiling, _correcting, _keeping, _working):
        app.include_router(routes(server), dependencies=[Depends(server.guard.allowed)])
    return app


async def _refused(_: Request, error: Exception) -> Response:
    return JSONResponse({"detail": str(error)}, 400)


async def _misunderstood(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    first = error.errors()[0]
    where = ".".join(str(part) for part in first["loc"][1:]) or "The request"
    return JSONResponse({"detail": f"{where[:100]}: {first['msg']}."}, 400)


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
            "in_use": server.session.model,
            "models": server.session.models,
            "forms": forms(server.session.class_names),
            "rounds": project.get("rounds", []),
            "revision": server.session.revision,
            "images": [_state(server.session, name) for name in server.session.images],
            "removed": list(server.session.removed),
            "jobs": [vars(job) for job in server.jobs.all()],
            "side": SIDE,
            "takes": list(IMAGE_SUFFIXES),
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

    return routes


def _following(server: Server) -> APIRouter:
    """What has changed: by a round of training, and at any moment."""
    routes = APIRouter()

    @routes.get("/api/difference")
    def difference(number: int, name: Name, which: Literal["before", "after"]) -> FileResponse:
        shown = {entry["number"]: entry.get("shown", ()) for entry in server.session.project.get("rounds", [])}
        path = picture_file(pictures_of_round(server.session.folder, number), name, which)
        if name not in shown.get(number, ()) or not path.is_file():
            raise InputError(f"Round {number} has no picture of {name[:100]!r}.")
        return FileResponse(path, media_type="image/webp", headers={"cache-control": "private, max-age=86400"})

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


def _keeping(server: Server) -> APIRouter:
    """Images that come and go, and their objects as files."""
    routes = APIRouter()

    @routes.post("/api/images")
    async def upload(file: UploadFile) -> dict[str, Any]:
        async with server.looks.free:
            name = await asyncio.to_thread(server.uploads.add, file)
        await asyncio.to_thread(_begun, server, [name])
        return {"image": name}

    @routes.delete("/api/images")
    def remove(name: Name) -> dict[str, Any]:
        server.session.remove(name)
        return _renewed(server, name)

    @routes.post("/api/images/back")
    def bring_back(image: Annotated[str, Body(embed=True, max_length=300)]) -> dict[str, Any]:
        server.session.bring_back(image)
        return _renewed(server, image)

    @routes.delete("/api/trash")
    def empty_trash() -> dict[str, Any]:
        server.session.empty_trash()
        return _renewed(server, "")

    @routes.post("/api/demo")
    def demo() -> dict[str, Any]:
        from attractor.demo import FOLDER

        paths = [path for path in find_images([FOLDER / "images"]).images if path.stem not in server.session.images]
        added = [server.session.add(path) for path in paths]
        _begun(server, added)
        return {"images": added}

    @routes.get("/api/export")
    def export(form: Annotated[str, Query(max_length=30)] = "labels", name: Name = "") -> Response:
        names = [name] if name else list(server.session.images)
        headers = {"content-disposition": f'attachment; filename="{form}.zip"'}
        content = parts_of(exported(server.session, names, form))
        return StreamingResponse(content, media_type="application/zip", headers=headers)

    return routes


def _working(server: Server) -> APIRouter:
    """The model, and what it is put to."""
    routes = APIRouter()

    @routes.post("/api/model")
    def use(model: Annotated[str, Body(embed=True, max_length=1000)]) -> dict[str, str]:
        server.session.use(model)
        server.events.tell("model", {"model": model})
        return {"model": model}

    @routes.post("/api/segment")
    async def segment(
        request: Request,
        file: UploadFile,
        form: Annotated[str, Query(max_length=30)] = "labels",
        model: Name = "",
        tta: bool = False,
        object_size: float | None = None,
    ) -> Response:
        if model:
            check_model(model, (*models_of_images(), *server.session.models))
        return await unless_gone(request, server.answers(file, Wanted(form, model, tta, object_size)))

    @routes.post("/api/jobs")
    def add_job(kind: Annotated[str, Body()], arguments: Annotated[dict[str, Any] | None, Body()] = None) -> Any:
        return vars(server.jobs.add(kind, {"device": server.device, **_checked(server.session, kind, arguments or {})}))

    @routes.get("/api/jobs/{number}")
    def job(number: int) -> Any:
        return {**vars(server.jobs.get(number)), "log": server.jobs.log(number)}

    @routes.delete("/api/jobs/{number}")
    def cancel(number: int) -> Any:
        return vars(server.jobs.cancel(number))

    return routes


def _renewed(server: Server, name: str) -> dict[str, Any]:
    """The answer to a removal, of which all pages are told."""
    server.events.tell("image", {"image": name})
    return {"image": name, "removed": list(server.session.removed)}


def _begun(server: Server, names: list[str]) -> None:
    """Show images that were added, and find their objects, if the session has a model."""
    for name in names:
        server.events.tell("image", {"image": name})
    if names and server.session.model:
        server.jobs.add_images(names, {"device": server.device})


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


def _checked(session: Session, kind: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
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
            check_model(given[name], session.models)
    if kind == "train":
        given.setdefault("minutes", 10)
        if not 0 < given["minutes"] <= 24 * 60:
            raise InputError(f"minutes is {given['minutes']}; it must be above 0 and at most {24 * 60:,}.")
    return given
