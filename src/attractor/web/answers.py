"""Single images that programs send to be segmented: each has its turn on the device, and leaves nothing behind.

The process that segments stays for a while, because loading a model takes longer than most images.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote

from fastapi import HTTPException, Request, Response, UploadFile

from attractor.errors import InputError
from attractor.images import temporary_folder
from attractor.session import Session
from attractor.web.export import file_output
from attractor.web.jobs import model_of
from attractor.web.line import Line
from attractor.web.process import Worker
from attractor.web.uploads import Looks, given_name, safe_stem, saved, told

MOST_WAITING = 32  # images, with the one that is being segmented
LONGEST = 3600.0  # seconds for one
IDLE = 60.0  # seconds that the process waits for another image
CLIENT_IS_GONE = 499  # which nobody reads
MEDIA = {  # by the endings of files
    ".tif": "image/tiff",
    ".png": "image/png",
    ".csv": "text/csv; charset=utf-8",
    ".json": "application/json",
    ".geojson": "application/geo+json",
    ".parquet": "application/vnd.apache.parquet",
    ".zip": "application/zip",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Wanted:
    """What is to be done with an image."""

    form: str  # of `OUTPUTS`, one for single images
    model: str  # "" for that of the session
    tta: bool
    object_size: float | None


class Answers:
    """Segments images for programs, one at a time."""

    def __init__(self, session: Session, looks: Looks, line: Line, device: str) -> None:
        """Begin without a process."""
        self._session, self._looks, self._line, self._device = session, looks, line, device
        self._worker: Worker | None = None
        self._mutex = threading.Lock()
        self._is_asked = False
        self._rest: threading.Timer | None = None
        self._present = 0

    async def __call__(self, file: UploadFile, wanted: Wanted) -> Response:
        """The objects of an image, in the form that is wanted.

        Raises:
            InputError: if the image, the form or an option is not possible.
            HTTPException: 503 if too many wait already, or the process ended.
        """
        output = file_output(wanted.form, self._session.class_names)
        model = model_of(self._session, wanted.model)
        if self._present >= MOST_WAITING:
            words = f"{MOST_WAITING} images are waiting already; ask again later."
            raise HTTPException(503, words, {"retry-after": "10"})
        self._present += 1
        try:
            with temporary_folder(self._session.folder) as work:
                path = await self._looked_at(file, work)
                result, given = work / "result", given_name(file)
                request = {**vars(wanted), "kind": "answer", "model": model, "device": self._device}
                request |= {"path": str(path), "name": given, "out": str(result)}
                await self._segmented(request, path)
                content = result.read_bytes()
        finally:
            self._present -= 1
        name = f"{safe_stem(given)}{output.ending}"
        headers = {"content-disposition": f"attachment; filename*=utf-8''{quote(name)}"}
        return Response(content, media_type=MEDIA[Path(output.ending).suffix], headers=headers)

    async def _looked_at(self, file: UploadFile, work: Path) -> Path:
        async with self._looks.free:
            path = await _through(lambda: saved(file, work), lambda: None)
            await _through(lambda: self._looks(path, given_name(file)), lambda: None)
        return path

    async def _segmented(self, request: dict[str, Any], path: Path) -> None:
        """Have the process write the result, once it is this image's turn."""
        place = self._line.join()
        try:
            await asyncio.wrap_future(place)
            said, is_well = await _through(lambda: self._ask(request), self.end)
        finally:
            self._line.leave(place)
        if "error" in said:
            words = told(str(said["error"]), path, request["name"])
            raise InputError(words) if is_well else HTTPException(503, words)

    def _ask(self, request: dict[str, Any]) -> tuple[dict[str, Any], bool]:
        """What the process says, and whether it is still there."""
        with self._mutex:
            if self._rest is not None:
                self._rest.cancel()
            self._is_asked = True
            worker = self._worker = self._worker or Worker()
        said = worker.ask(request, LONGEST)
        with self._mutex:
            self._is_asked = False
            is_well = worker.is_well
            self._rest = threading.Timer(IDLE, self.make_room)
            self._rest.daemon = True
            self._rest.start()
        if not is_well:
            self.end()
        return said, is_well

    def make_room(self) -> None:
        """End the process, if it does nothing: it keeps a model in the memory of the device."""
        with self._mutex:
            is_idle = not self._is_asked
        if is_idle:
            self.end()

    def end(self) -> None:
        """End the process, whatever it does."""
        with self._mutex:
            worker, self._worker = self._worker, None
            if self._rest is not None:
                self._rest.cancel()
        if worker is not None:
            worker.end()


async def _through(work: Callable[[], T], stop: Callable[[], None]) -> T:
    """Do something in a thread; if it is cancelled, stop it and wait for its end, as it uses files that go next."""
    task = asyncio.ensure_future(asyncio.to_thread(work))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        stop()
        await asyncio.wait({task})
        raise


async def unless_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """What the work gives; it is cancelled as soon as the client has gone away."""
    task, gone = asyncio.ensure_future(work), asyncio.ensure_future(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        return task.result() if task.done() else Response(status_code=CLIENT_IS_GONE)
    finally:
        task.cancel()
        gone.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
