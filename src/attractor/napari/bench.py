"""A session beside a viewer: which of its images the viewer shows, and what the server is doing.

What takes time runs in a thread; what comes of it, and what the server tells, is taken over by `tick`, which is called
in the viewer's own thread, a few times a second.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from napari.layers import Image
from napari.utils.notifications import show_warning

from attractor.errors import InputError
from attractor.napari.client import ENDED, Client
from attractor.napari.correction import Content, Correction
from attractor.napari.files import UNIT, image_layer
from attractor.napari.planes import shown_plane
from attractor.wording import share

if TYPE_CHECKING:
    from napari.components import ViewerModel


class Bench:
    """What a widget is the face of."""

    def __init__(self, viewer: ViewerModel, *, tell: Callable[[str], object] = show_warning) -> None:
        """Begin without a session.

        Args:
            viewer: whose layers are segmented and corrected.
            tell: is told what cannot be done.
        """
        self.viewer, self._tell = viewer, tell
        self.client: Client | None = None
        self.session: Mapping[str, Any] = {}  # what the server last said of it
        self.job: Mapping[str, Any] | None = None  # the one that runs, or ended last
        self.doing = ""  # what is waited for
        self.class_number = 1  # of what is painted next
        self._corrections: dict[str, Correction] = {}
        self._planes: dict[tuple[Image, str], str] = {}  # layer and plane: the image of the session that it became
        self._threads = ThreadPoolExecutor(1)
        self._waiting: list[tuple[Future[Any], Callable[[Any], None], Client | None]] = []

    # ---------------------------------------------------------------------- images

    def open(self, project: str | Path, *, model: str = "nuclei", device: str = "auto", who: str = "napari") -> None:
        """Open a session, as `Client.open`."""
        if self.doing:
            return
        self.leave()

        def opened(client: Client) -> None:
            self.client, self.session = client, client.session()
            self.job = next((job for job in self.session["jobs"] if job["state"] not in ENDED), None)

        self._later("Opening …", lambda: Client.open(project, model=model, device=device, who=who), opened)

    def segment(self, layer: object) -> None:
        """Find the objects of what the viewer shows of an image layer, again if it is in the session already."""
        if self.client is None or not isinstance(layer, Image):
            self._tell("Choose an image layer to segment." if self.client else "Open a session first.")
            return
        if self.doing:
            return
        client, dims = self.client, self.viewer.dims

        def added() -> tuple[str, Content]:
            pixels, plane = shown_plane(layer, dims)
            name = self._planes.get((layer, plane))
            if name is not None:
                client.segment([name])
            else:
                name = self._planes[layer, plane] = client.add(plane, pixels)
            return name, Content.of(client, name)

        self._later("Sending the image …", added, lambda result: self._show(result[0], layer, result[1]))

    def show(self, name: str) -> None:
        """Show an image of the session, and its objects."""
        if self.client is None or name in self._corrections:
            self._select(name)
            return
        if self.doing:
            return
        client = self.client

        def asked() -> tuple[Any, Content]:
            return (client.pixels(name), client.image(name)["pixel_size"]), Content.of(client, name)

        def shown(result: tuple[Any, Content]) -> None:
            (pixels, size), content = result
            place = {} if size is None else {"scale": size, "units": (UNIT, UNIT)}
            data, options, _ = image_layer(pixels, name, **place)
            layers = self.viewer.add_image(data, **options)
            layer = layers[0] if isinstance(layers, list) else layers
            self._planes[layer, layer.name] = name
            self._show(name, layer, content)

        self._later("Reading the image …", asked, shown)

    def _show(self, name: str, layer: Image, content: Content) -> None:
        assert self.client is not None
        if name not in self._corrections:
            made = Correction(self.viewer, self.client, name, layer, content, tell=self._tell)
            self._corrections[name] = made
        self._later("", self.client.session, self._say)
        self._select(name)

    def _select(self, name: str) -> None:
        if name in self._corrections:
            self.viewer.layers.selection.active = self._corrections[name].found

    @property
    def current(self) -> Correction | None:
        """The image whose layer is active; else the one that was shown last."""
        active = self.viewer.layers.selection.active
        for one in self._corrections.values():
            if active in (one.found, one.reviewed, one.image):
                return one
        return next(reversed(self._corrections.values()), None)

    def paint_class(self, number: int) -> None:
        """The class of objects that are painted from now on."""
        self.class_number = number
        for one in self._corrections.values():
            one.class_number = number

    # ------------------------------------------------------------------------ jobs

    def train(self, minutes: float) -> None:
        """Train on what was reviewed."""
        if self.client is None:
            self._tell("Open a session first.")
            return
        client = self.client
        self._later("", lambda: client.train(minutes), lambda job: None)

    def cancel(self) -> None:
        """End the job that runs."""
        if self.client is not None and self.job is not None:
            client, number = self.client, int(self.job["number"])
            self._later("", lambda: client.cancel(number), lambda job: None)

    @property
    def words(self) -> str:
        """What is going on, in a sentence."""
        if self.doing or self.client is None:
            return self.doing or "No session is open."
        if self.job is not None and self.job["state"] not in ENDED:
            what = {"segment": "Finding objects", "train": "Training"}[self.job["kind"]]
            return f"{what} … {share(self.job['progress'])}" if self.job["progress"] else f"{what} …"
        if self.job is not None and (self.job["words"] or self.job["state"] != "done"):
            return str(self.job["words"] or f"The job was {self.job['state']}.")
        return f"Model in use: {self.session['in_use'] or 'none yet'}"

    # ---------------------------------------------------------------- keeping step

    def tick(self) -> bool:
        """Take over what has come meanwhile; gives whether anything has."""
        done = [one for one in self._waiting if one[0].done()]
        for future, then, client in done:
            self._waiting.remove((future, then, client))
            self.doing = self.doing if self._waiting else ""
            try:
                if client is self.client:
                    then(future.result())
            except InputError as error:
                self._tell(str(error))
        for name, one in list(self._corrections.items()):
            one.tidy()
            if one.found not in self.viewer.layers:
                self._corrections.pop(name).leave()
            elif one.is_stale and self.client is not None and not self._waiting:
                one.is_stale = False
                self._later("", partial(self.client.objects, name), one.describe)
        return self._listen() or bool(done)

    def _listen(self) -> bool:
        heard = is_other = False
        while self.client is not None:
            try:
                event = self.client.events.get_nowait()
            except queue.Empty:
                break
            heard = True
            is_other |= event.kind == "image" or event.content.get("state") in ENDED
            if event.kind == "job":
                self.job = event.content
            elif event.kind == "end":
                self.leave()
                self._tell("The server of attractor has ended; open the session again. Everything is kept.")
                break
            for one in self._corrections.values():
                one.follow(event.kind, event.content)
        if is_other and self.client is not None:
            self._later("", self.client.session, self._say)
        return heard

    def _say(self, session: Mapping[str, Any]) -> None:
        self.session = session

    def _later(self, doing: str, work: Callable[[], Any], then: Callable[[Any], None]) -> None:
        """Do something in the thread; what comes of it is forgotten if another session is open by then."""
        self.doing = doing or self.doing
        self._waiting.append((self._threads.submit(work), then, self.client))

    def leave(self) -> None:
        """Leave the session; its layers stay as they are, but no longer belong to it."""
        for one in self._corrections.values():
            one.leave()
        self._corrections.clear()
        self._planes.clear()
        client, self.client, self.session, self.job = self.client, None, {}, None
        if client is not None:
            client.close()

    def close(self) -> None:
        """Leave the session, and end the thread."""
        self._threads.shutdown()
        for future, _, _ in self._waiting:  # a session that was being opened
            if future.exception() is None and isinstance(future.result(), Client):
                future.result().close()
        self._waiting.clear()
        self.leave()
