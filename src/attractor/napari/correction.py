"""An image of a session as layers of a viewer, which say what the session says, whoever changes it, and by what tool.

Ctrl+Z on the layer is the session's undo, not napari's. napari's own would bring back pixels, but neither class, score
and number of an object that was deleted or merged, nor which pixels were reviewed; it would take back what others did
meanwhile; and it forgets everything when the window closes.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Bool, Float, Int32
from napari.layers import Image, Shapes
from napari.utils.colormaps import DirectLabelColormap
from napari.utils.notifications import show_warning

from attractor.errors import InputError
from attractor.napari.client import Box, Client
from attractor.napari.planes import geometry

if TYPE_CHECKING:
    from napari.components import ViewerModel

MARK = "attractor"  # in the metadata of layers: the image of the session that they show
REVIEWED_COLOUR = (0.2, 0.8, 0.4, 0.35)
CONTOUR = 2  # pixels of an outline, through which one sees what is outlined
LINE_COLOUR = "#ffd43b"
STEP = 0.25  # pixels between two points of a line that are looked at
HALF = 0.5  # of a pixel: napari counts from centres, attractor from edges


@dataclass(frozen=True)
class Content:
    """What a session says of an image."""

    labels: Int32[np.ndarray, "h w"]
    reviewed: Bool[np.ndarray, "h w"]
    objects: Sequence[Mapping[str, Any]]

    @classmethod
    def of(cls, client: Client, name: str) -> Content:
        """Ask for it."""
        return cls(client.labels(name), client.reviewed(name), client.objects(name))


class Correction:
    """The layers of one image, in step with its session."""

    def __init__(
        self,
        viewer: ViewerModel,
        client: Client,
        name: str,
        image: Image,
        content: Content | None = None,
        *,
        tell: Callable[[str], object] = show_warning,
    ) -> None:
        """Add the layers.

        Args:
            viewer: that they are added to.
            client: of the session.
            name: of the image in it.
            image: the layer on which they lie.
            content: what the session says, if it was asked already.
            tell: is told what cannot be done.
        """
        self.viewer, self.client, self.name, self.image = viewer, client, name, image
        self.classes = tuple(client.session()["classes"])
        self.class_number = 1  # of what is painted next
        self._tell = tell
        self._own: set[int] = set()  # revisions that were made here
        self._line: Shapes | None = None
        self._is_drawn = self._is_pending = False
        content = content or Content.of(client, name)
        place = geometry(image) | {"metadata": {MARK: name}}
        image.metadata[MARK] = name
        self.reviewed = viewer.add_labels(content.reviewed.astype(np.uint8), name=f"{name} reviewed", **place)
        self.reviewed.colormap = DirectLabelColormap(color_dict={None: (0, 0, 0, 0), 1: REVIEWED_COLOUR})
        self.reviewed.editable = False
        self.found = viewer.add_labels(content.labels.copy(), name=f"{name} found", **place)
        self.found.contour = CONTOUR
        self._known = content.labels  # what the session last said, which nobody else changes
        self.is_stale = False  # whether the features are of an earlier revision
        self.describe(content.objects)
        events = self.found.events
        self._heard = {events.paint: self._painted, events.labels_update: self._updated, events.set_data: self._updated}
        for emitter, callback in self._heard.items():
            emitter.connect(callback)
        self.found.bind_key("Control-Z", lambda _: self.undo(), overwrite=True)
        self.found.bind_key("Control-Shift-Z", lambda _: self.redo(), overwrite=True)
        viewer.layers.selection.active = self.found

    # ------------------------------------------------------------- what was painted

    def _painted(self, event: object = None) -> None:
        """Send a stroke, which ends by this event; napari's other tools tell by it what they are about to do."""
        self._is_pending = not self.send()

    def _updated(self, event: object = None) -> None:
        """Send what a tool was about to do, and now has done."""
        if self._is_pending:
            self._is_pending = False
            self.send()

    def send(self) -> bool:
        """Send what differs from the session, pixel by pixel, and take over what becomes of it; whether it did."""
        place = _bounds(self.found.data != self._known)
        if place is None:
            return False
        after, before = np.array(self.found.data[place]), self._known[place].copy()
        corner, boxes, new = (place[0].start, place[1].start), [], None
        try:
            for value in np.unique(after[after != before]).tolist():
                runs = _runs((after == value) & (before != value), corner)
                is_known = value == 0 or bool((self._known == value).any())
                label = value if is_known else None
                done = self.client.apply(self.name, "assign", runs=runs, label=label, class_number=self.class_number)
                boxes.append(self._noted(done))
                if not is_known and value == self.found.selected_label:
                    new = runs[0]
        except InputError as error:
            self._tell(str(error))
        self.found.data[place] = before  # if it was refused, it is gone
        self._bring(*boxes)
        if new is not None:  # the session gives numbers that no object ever had
            self.found.selected_label = int(self._known[new[0], new[1]])
        return True

    # ------------------------------------------------------------------- operations

    def merge(self, labels: Sequence[int]) -> None:
        """Make one object of several."""
        self._change("merge", labels=list(labels))

    def merge_along(self, line: Float[np.ndarray, "k 2"]) -> None:
        """Make one object of all that a line goes through; it is the first one's class and number."""
        self.merge(list(self._under(line)))

    def split(self, label: int, line: Float[np.ndarray, "k 2"]) -> None:
        """Divide an object along a line of pixels."""
        self._change("split", label=label, line=(np.asarray(line) + HALF).tolist())

    def split_along(self, line: Float[np.ndarray, "k 2"]) -> None:
        """Divide the object that a line goes through, the longest way if there are several."""
        under = self._under(line)
        if under:
            self.split(max(under, key=lambda label: under[label]), line)
        else:
            self._tell("There is no object under the line.")

    def delete(self, label: int) -> None:
        """Remove an object."""
        self._change("delete", labels=[label])

    def set_class(self, label: int, number: int) -> None:
        """Give an object another class."""
        self._change("class", labels=[label], class_number=number)

    def accept(self, labels: Sequence[int] = (), box: Box | None = None) -> None:
        """Say that objects are right, or all that lies within a box, or the whole image."""
        self._change("accept", labels=list(labels), box=box)

    def undo(self) -> None:
        """Take back one's own last operation, whatever it was."""
        self._attempt(lambda: self.client.undo(self.name))

    def redo(self) -> None:
        """Do again what was taken back last."""
        self._attempt(lambda: self.client.redo(self.name))

    def in_view(self) -> Box:
        """The box of pixels that the viewer shows."""
        (top, left), (bottom, right) = np.asarray(self.found.corner_pixels)[:, -2:].tolist()
        return int(top), int(left), int(bottom) + 1, int(right) + 1

    # ------------------------------------------------------------------ a drawn line

    def draw_line(self, then: Callable[[Float[np.ndarray, "k 2"]], None], title: str) -> None:
        """Let the user draw a line, and call a function with its points; `tidy` removes the layer."""
        self.end_line()
        self._is_drawn = False
        line = self._line = self.viewer.add_shapes(
            ndim=2, name=title, edge_color=LINE_COLOUR, edge_width=2, opacity=1, **geometry(self.image)
        )
        line.mode = "add_line"

        def drawn(event: Any) -> None:
            if event.action == "added" and not self._is_drawn:
                self._is_drawn = True
                then(np.asarray(line.data[-1], float))

        line.events.data.connect(drawn)

    def end_line(self) -> None:
        """Remove the line that is drawn, and go back to the objects."""
        line, self._line, self._is_drawn = self._line, None, False
        if line is not None and line in self.viewer.layers:
            self.viewer.layers.remove(line)
            self.viewer.layers.selection.active = self.found

    # ------------------------------------------------------------------- keeping step

    def follow(self, kind: str, content: Mapping[str, Any]) -> None:
        """Take over what a server tells: an edit of somebody else, or objects that were found."""
        if content.get("image") != self.name:
            return
        if kind == "edit" and content["revision"] not in self._own:
            self._bring(_as_box(content["box"]))
        elif kind == "image":
            self._bring((0, 0, *self._known.shape))

    def tidy(self) -> None:
        """Remove a line that was drawn, which cannot be done while its layer tells of it; send what is left to send."""
        self._updated()
        if self._is_drawn:
            self.end_line()

    def leave(self) -> None:
        """Let the layers be, as they are; what is done to them from now on is not sent."""
        self.end_line()
        for emitter, callback in self._heard.items():
            emitter.disconnect(callback)
        for key in ("Control-Z", "Control-Shift-Z"):
            self.found.bind_key(key, None)

    def _change(self, kind: str, **operation: Any) -> None:
        self._attempt(lambda: self.client.apply(self.name, kind, **operation))

    def _attempt(self, ask: Callable[[], Mapping[str, Any]]) -> None:
        """Ask for a change, and take it over; if it cannot be done, tell."""
        self.send()
        try:
            box = self._noted(ask())
        except InputError as error:
            self._tell(str(error))
        else:
            self._bring(box)

    def _noted(self, done: Mapping[str, Any]) -> Box:
        """The box of an operation that was done here, of which the server will tell, too."""
        self._own.add(done["revision"])
        return _as_box(done["box"])

    def _bring(self, *boxes: Box) -> None:
        """Put what the session says of boxes into the layers."""
        try:
            for box in boxes:
                place = slice(box[0], box[2]), slice(box[1], box[3])
                self._known[place] = self.found.data[place] = self.client.labels(self.name, box)
                self.reviewed.data[place] = self.client.reviewed(self.name, box)
            self.is_stale = True
        except InputError as error:
            self._tell(str(error))
        self.found.refresh()
        self.reviewed.refresh()

    def describe(self, objects: Sequence[Mapping[str, Any]]) -> None:
        """Class, score and size of each object, as features of the layer.

        Among very many objects this takes longer than an edit; so whoever follows calls it, when `is_stale` says so.
        """
        self.found.features = {
            "index": [thing["label"] for thing in objects],
            "class": [self.classes[thing["class_number"] - 1] for thing in objects],
            "score": [np.nan if thing["score"] is None else thing["score"] for thing in objects],
            "area": [thing["area"] for thing in objects],
            "reviewed": [thing["reviewed"] for thing in objects],
        }

    def _under(self, line: Float[np.ndarray, "k 2"]) -> dict[int, int]:
        """Objects under a line, first to last, with how long it is in each."""
        line = np.asarray(line, float)
        length = np.hypot(*np.diff(line, axis=0).T)
        along = [
            np.linspace(start, end, max(2, int(n / STEP) + 1))
            for start, end, n in zip(line, line[1:], length, strict=False)
        ]
        pixels = np.rint(np.concatenate(along)).astype(int)
        inside = ((pixels >= 0) & (pixels < self._known.shape)).all(axis=1)
        labels = self._known[tuple(pixels[inside].T)]
        under: dict[int, int] = {}
        for label in labels[labels > 0].tolist():
            under[label] = under.get(label, 0) + 1
        return under


def _as_box(content: Sequence[int]) -> Box:
    top, left, bottom, right = content
    return top, left, bottom, right


def _bounds(chosen: Bool[np.ndarray, "h w"]) -> tuple[slice, slice] | None:
    """The rows and columns around chosen pixels; None without any."""
    rows, columns = np.flatnonzero(chosen.any(1)), np.flatnonzero(chosen.any(0))
    return (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1)) if len(rows) else None


def _runs(chosen: Bool[np.ndarray, "h w"], corner: tuple[int, int]) -> list[tuple[int, int, int]]:
    """Chosen pixels as row, first column and number of each run; the array's first pixel lies at a corner."""
    edges = np.diff(np.pad(chosen, ((0, 0), (1, 1))).astype(np.int8), axis=1)
    (rows, begins), (_, ends) = np.nonzero(edges == 1), np.nonzero(edges == -1)
    return list(zip((rows + corner[0]).tolist(), (begins + corner[1]).tolist(), (ends - begins).tolist(), strict=True))
