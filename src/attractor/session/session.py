"""The session: images, their canvases, and every operation on them, first to last."""

from __future__ import annotations

import shutil
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol

import numpy as np
from jaxtyping import Int32, Shaped

from attractor.datasets.names import check_stem
from attractor.datasets.session import (
    EDITS,
    Known,
    read_objects,
    read_project,
    read_reviewed,
    read_summary,
    write_project,
    write_state,
)
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, durable, find_images, image_shape, made, read_image
from attractor.images.unfinished import hold
from attractor.instances import Instances
from attractor.session import trash
from attractor.session.canvas import Canvas, Change, Thing
from attractor.session.held import held_labels, let_go
from attractor.session.journal import Entry, Journal, Record, now, records
from attractor.session.models import check_model, model_of_round, models_of_images, suits
from attractor.session.operations import Operation, as_json
from attractor.session.progress import NEW, REVIEWED, Progress, state_of, summary, summary_of
from attractor.session.undoing import last_standing, meet, standing, undone_last
from attractor.wording import counted

LOCK = ".lock"
MOST_CANVASES = 16  # images that are held at once
MOST_BYTES = 1 << 30  # of their labels, unless one has more
AT_ONCE = 1 << 22  # pixels of an image whose files are written with each operation; larger ones wait for a pause
PAUSE = 3.0  # seconds
TAKES_BACK = ("undo", "redo")
MOST_LOST = 0.25  # of a found object's pixels, to what was reviewed beside it; one that loses more is there already


class Finds(Protocol):
    """What finds the objects of an image: a `Segmenter`, or a process that has one."""

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2 and so on."""

    def segment(self, image: Shaped[np.ndarray, "h w c"], *, name: str) -> Instances:
        """Every object of an image."""


class Session:
    """A folder of images being corrected; one process at a time has it open, any number of its threads may use it."""

    def __init__(self, folder: str | Path, *, models: Iterable[str] = ()) -> None:
        """Open a session, and write again what its last operations say.

        Args:
            folder: of the session.
            models: files of models that can be used besides those that are known anyway.

        Raises:
            InputError: if the folder is no session, is open elsewhere, or a file in it is damaged.
        """
        self.folder = Path(folder)
        self._project = read_project(self.folder)
        self._others = tuple(models)
        self._mutex = threading.RLock()
        self._held: OrderedDict[str, Canvas] = OrderedDict()
        self._progress: dict[str, Progress] = {}
        self._written: dict[str, int] = {}  # the revision that an image's files are of
        self._writing = threading.Lock()  # is taken after the mutex, or alone
        self._timer: threading.Timer | None = None
        self._open = ExitStack()
        with ExitStack() as opening:
            opening.enter_context(
                hold(self.folder / LOCK, f"{self.folder}: is open in another program; close it there.")
            )
            self._journal = opening.enter_context(Journal(self.folder / EDITS))
            self._history: dict[str, list[Record]] = {}
            self.revision = 0
            for entry in records(self.folder / EDITS):
                self._history.setdefault(entry.image, []).append(entry)
                self.revision = entry.revision
            self._files = image_files(self.folder / "images")
            for name in set(trash.removed(self.folder)) - set(self._files):
                trash.remove(self.folder, name)  # what a killed program has not moved yet
            self._recover()
            self._open = opening.pop_all()

    @classmethod
    def create(
        cls,
        folder: str | Path,
        images: Iterable[str | Path],
        segmenter: Finds | None = None,
        *,
        model: str = "",
        class_names: Sequence[str] = ("object",),
        report: Callable[[str], None] = lambda name: None,
    ) -> Session:
        """Make a session of images, which are copied; with a segmenter, their objects are found at once.

        Args:
            folder: new or empty.
            images: files, and folders whose images are taken.
            segmenter: finds the objects; without one, images are new, and have none.
            model: its name or file, for training to start from.
            class_names: of the classes 1, 2 and so on, without a segmenter.
            report: is called with the name of each image that is done.

        Raises:
            InputError: if the folder is in use, or an image cannot be read.
        """
        folder, paths = Path(folder), list(images)
        found = find_images(paths).images if paths else ()
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"{folder}: is in use; give a new folder, or open the session that it holds.")
        made(folder)
        names = segmenter.class_names if segmenter is not None else class_names
        write_project(folder, {"classes": list(names), "model": model, "rounds": []})
        session = cls(folder)
        try:
            for path in found:
                name = session.copy(path)
                if segmenter is not None:
                    session.segment(name, segmenter)
                report(name)
        except BaseException:
            session.close()
            shutil.rmtree(folder, ignore_errors=True)  # it was new or empty
            raise
        return session

    def add(self, path: str | Path, segmenter: Finds | None = None) -> str:
        """Copy an image into the session, segment it, and give its name.

        Raises:
            InputError: if it cannot be read, or there is an image of that name.
        """
        read_image(path)
        name = self.copy(path)
        self.segment(name, segmenter)
        return name

    def copy(self, path: str | Path) -> str:
        """Copy an image into the session as it is, and give its name; it has to be segmented next.

        Raises:
            InputError: if there is an image of that name, or it cannot be copied.
        """
        path = Path(path)
        check_stem(path.stem, path)
        with self._mutex:
            if path.stem in self._files:
                raise InputError(f"{path}: the session has an image {path.stem!r}; rename the new one.")
            if self.is_taken(path.stem):
                raise InputError(
                    f"{path}: the session had an image {path.stem!r}, whose corrections it keeps; bring that one back, "
                    "or rename the new one."
                )
            target = made(self.folder / "images") / path.name
            with durable(target) as temporary:
                shutil.copyfile(path, temporary)
            self._files[path.stem] = target
        return path.stem

    def segment(self, name: str, segmenter: Finds | None) -> None:
        """Find the objects of an image anew; what was found before is replaced, except where somebody has reviewed it.

        Raises:
            InputError: if there is no such image, or the model cannot be used on it.
        """
        if segmenter is not None:
            self.put(name, segmenter.segment(read_image(self.path(name)), name=name))
            return
        labels = np.zeros(image_shape(self.path(name))[:2], np.int32)
        self.put(name, Instances(labels, np.zeros(0, np.int32), np.zeros(0, np.float32)))

    def put(self, name: str, found: Instances) -> None:
        """Put what was found in an image in place of what was found before, except where somebody has reviewed it.

        Raises:
            InputError: if there is no such image, or it has another size.
        """
        self.path(name)
        known = {k: (int(c), float(s)) for k, (c, s) in enumerate(zip(found.classes, found.scores, strict=True), 1)}
        with self._mutex:
            if self._label_file(name).exists():
                self._replace(name, found.labels, known)
                return
            own = summary(len(known), 0.0, (score for _, score in known.values()))
            write_state(self.folder, name, found.labels, np.zeros(found.labels.shape, bool), known, 0, own)
            self._progress.pop(name, None)

    def is_taken(self, name: str) -> bool:
        """Whether there is an image of that name, or was one: its corrections must not become those of another."""
        return name in self._files or name in self._history or name in self.removed

    @property
    def removed(self) -> tuple[str, ...]:
        """Names of the images in the trash, sorted."""
        return trash.removed(self.folder)

    def remove(self, name: str) -> None:
        """Move an image, and all that is known of it, to the folder `trash`, until it is brought back.

        Raises:
            InputError: if there is no such image, or it cannot be moved.
        """
        with self._mutex:
            self.path(name)
            trash.remove(self.folder, name)
            self._held.pop(name, None)
            self._progress.pop(name, None)
            self._files.pop(name)

    def bring_back(self, name: str) -> None:
        """Move an image, and all that is known of it, back from the trash.

        Raises:
            InputError: if it is not there, or cannot be moved.
        """
        with self._mutex:
            if name not in self.removed:
                raise InputError(f"There is no image {name[:100]!r} among those that were removed.")
            trash.bring_back(self.folder, name)
            self._files = image_files(self.folder / "images")

    def empty_trash(self) -> None:
        """Delete the images that were removed, for good.

        Raises:
            InputError: if they cannot be deleted.
        """
        with self._mutex:
            trash.empty(self.folder)

    def empty_old_trash(self, days: float) -> tuple[str, ...]:
        """Delete, for good, the images that were removed longer ago than that; gives their names.

        Raises:
            InputError: if they cannot be deleted.
        """
        with self._mutex:
            return trash.empty_older(self.folder, days)

    # ------------------------------------------------------------------ looking

    @property
    def images(self) -> tuple[str, ...]:
        """Names of the images, sorted."""
        return tuple(sorted(self._files))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes 1, 2 and so on."""
        return tuple(self._project["classes"])

    @property
    def project(self) -> dict[str, Any]:
        """What project.toml says."""
        return dict(self._project)

    def note(self, **values: Any) -> None:
        """Write values into project.toml."""
        with self._mutex:
            self._project |= values
            write_project(self.folder, {key: value for key, value in self._project.items() if key != "format"})

    def adopt(self, result: Mapping[str, Any], *, start: str | None = None) -> None:
        """Note a round of training, and use its model from now on, if it was better.

        Args:
            result: a `rounds.Round` as JSON.
            start: the model that this and later rounds start from, if it is another one.
        """
        values: dict[str, Any] = {"rounds": [*self._project.get("rounds", []), dict(result)]}
        if result["kept"]:
            values["in_use"] = model_of_round(result["number"])
        self.note(**values, **({} if start is None else {"model": start}))

    @property
    def model(self) -> str:
        """The model that finds objects now; empty without one."""
        return str(self._project.get("in_use") or self._project.get("model") or "")

    @property
    def models(self) -> tuple[str, ...]:
        """The models that can be used here: of its rounds, newest first; the first one; others; the package's."""
        own = [name for name in reversed(self._of_rounds) if (self.folder / name).is_file()]
        first = [self._project["model"]] if self._project.get("model") else []
        n_classes = len(self.class_names)
        others = [model for model in self._others if suits(model, n_classes)]
        return tuple(dict.fromkeys([*own, *first, *others, *models_of_images(n_classes)]))

    def use(self, model: str) -> None:
        """Find objects with another model from now on; training starts from it, too, unless a round has made it.

        Args:
            model: one of `models`.

        Raises:
            InputError: if it is none of them.
        """
        check_model(model, self.models)
        self.note(in_use=model, **({} if model in self._of_rounds else {"model": model}))

    @property
    def _of_rounds(self) -> list[str]:
        return [model_of_round(entry["number"]) for entry in self._project.get("rounds", [])]

    def path(self, name: str) -> Path:
        """The file of an image.

        Raises:
            InputError: if there is no such image.
        """
        if name not in self._files:
            raise InputError(f"There is no image {name[:100]!r} in this session.")
        return self._files[name]

    def canvas(self, name: str) -> Canvas:
        """Labels, reviewed pixels, classes and scores of an image, as they are now; not to be changed from outside.

        Raises:
            InputError: if there is no such image, or a file cannot be read.
        """
        self.path(name)
        with self._mutex:
            if name not in self._held:
                self._held[name] = self._read(name)
                self._let_go()
            self._held.move_to_end(name)
            return self._held[name]

    def _let_go(self) -> None:
        """Forget the canvases that were used longest ago, as long as there are too many; the last one is kept."""
        while len(self._held) > 1 and (
            len(self._held) > MOST_CANVASES or sum(canvas.n_bytes for canvas in self._held.values()) > MOST_BYTES
        ):
            name = next(iter(self._held))
            if name in self._behind():
                self._write(name)
            self._held.pop(name)

    @contextmanager
    def looking(self, name: str) -> Iterator[Canvas]:
        """The canvas of an image, which nobody changes within the block.

        Raises:
            InputError: as `canvas`.
        """
        with self._mutex:
            canvas = self.canvas(name)
            try:
                yield canvas
            finally:
                let_go(canvas.labels)

    def history(self, name: str) -> tuple[Record, ...]:
        """Every operation on an image, first to last."""
        return tuple(self._history.get(name, ()))

    def progress(self, name: str) -> Progress:
        """How far the correction of an image has come."""
        with self._mutex:
            if name not in self._progress:
                self._progress[name] = self._counted(name)
            return self._progress[name]

    def _counted(self, name: str) -> Progress:
        self.path(name)
        if not self._label_file(name).exists():
            return Progress(name, NEW, 0, 0.0, 0, None)
        edits = len(standing(self.history(name)))
        try:
            own = read_summary(self.folder, name) if name not in self._held else {}
            objects, share, least = int(own["objects"]), float(own["reviewed"]), own["least_score"]
            return Progress(name, state_of(share), objects, share, edits, None if least is None else float(least))
        except (KeyError, TypeError, ValueError):  # none, or written by something else
            own = summary_of(self.canvas(name))
            return Progress(name, state_of(own["reviewed"]), own["objects"], own["reviewed"], edits, own["least_score"])

    def next(self) -> str | None:
        """The image with the least sure object that nobody has reviewed; None if all are reviewed.

        That such images teach most is a rule of thumb.
        """
        open_ones = [own for own in map(self.progress, self.images) if own.state != REVIEWED]
        if not open_ones:
            return None
        return min(open_ones, key=lambda own: (1.0 if own.least_score is None else own.least_score, own.image)).image

    def change(self, record: Record) -> Change:
        """What an operation of the history changed."""
        return self._journal.change(record)

    # ----------------------------------------------------------------- changing

    def apply(self, operation: Operation, *, who: str = "") -> Record:
        """Do an operation; it is on disk when this returns.

        Args:
            operation: on one of the images.
            who: does it.

        Raises:
            InputError: if it cannot be done, or not be written; nothing is changed then.
        """
        with self._mutex:
            canvas = self.canvas(operation.image)
            if (number := getattr(operation, "class_number", 1)) > len(self.class_names):
                raise InputError(f"There is no class {number}; the classes are {', '.join(self.class_names)}.")
            change = operation.apply(canvas)
            return self._record(operation.image, as_json(operation), change, who)

    def undo(self, name: str, *, who: str = "") -> Record:
        """Take back the last operation of a person on an image.

        Raises:
            InputError: if there is none, or somebody has changed the same place since.
        """
        return self._take_back(name, who, "undo")

    def redo(self, name: str, *, who: str = "") -> Record:
        """Do again what the person's last undo took back, if they have done nothing else on the image since.

        Raises:
            InputError: if there is nothing, or somebody has changed the same place since.
        """
        return self._take_back(name, who, "redo")

    def _take_back(self, name: str, who: str, kind: str) -> Record:
        with self._mutex:
            canvas, history = self.canvas(name), self._history.get(name, [])
            own = [entry for entry in history if entry.who == who and entry.kind != "segment"]
            entry = undone_last(own) if kind == "redo" else last_standing(own)
            if entry is None:
                raise InputError(f"There is nothing to {kind} in this image.")
            since = standing([later for later in history if later.revision > entry.revision and later not in own])
            if in_the_way := [later for later in since if meet(entry.box, later.box)]:
                is_segmented = in_the_way[-1].kind == "segment"
                what = "The image was segmented" if is_segmented else "Somebody else has changed this place"
                raise InputError(f"{what} since; {kind} is not possible any more.")
            change = self._journal.change(entry)
            change = change if kind == "redo" else change.inverse()
            canvas.write(change)
            return self._record(name, {"kind": kind, "of": entry.revision}, change, who)

    def _record(self, name: str, operation: dict[str, Any], change: Change, who: str) -> Record:
        """Write what was done to the canvas; if the journal cannot be written, the canvas is as before."""
        entry = Entry(self.revision + 1, now(), who, name, operation, change)
        try:
            record = self._journal.append(entry)
        except BaseException:
            self._held.pop(name, None)
            raise
        self.revision += 1
        self._progress.pop(name, None)
        self._history.setdefault(name, []).append(record)
        if self._held[name].labels.size <= AT_ONCE:
            self._write(name)
        else:
            self._write_soon()
        return record

    def _replace(self, name: str, labels: Int32[np.ndarray, "h w"], known: Mapping[int, Known]) -> None:
        """Put found objects where nobody has reviewed anything; one that loses more than a rim by that is left out."""
        canvas = self.canvas(name)
        if labels.shape != canvas.shape:
            raise InputError(f"{name}: what was found has {labels.shape} pixels, but the image has {canvas.shape}.")
        kept = np.unique(canvas.labels[canvas.reviewed])
        after = np.where(np.isin(canvas.labels, kept), canvas.labels, 0)
        taken = canvas.reviewed | (after > 0)
        lost = np.bincount(labels[taken], minlength=int(labels.max(initial=0)) + 1)
        free = ~taken & (lost <= MOST_LOST * np.bincount(labels.ravel()))[labels]
        things: dict[int, Thing | None] = {}
        numbers = np.zeros(int(labels.max(initial=0)) + 1, np.int32)  # of each label that is put
        for label in np.unique(labels[free]).tolist():
            if label:
                numbers[label] = canvas.new_label()
                things[int(numbers[label])] = Thing(*known[label])
        after = np.where(free, numbers[labels], after)
        change = canvas.changed((0, 0, *canvas.shape), after, canvas.reviewed.copy(), things)
        self._record(name, {"kind": "segment"}, change, "")

    # -------------------------------------------------------------------- files

    def _label_file(self, name: str) -> Path:
        return self.folder / "labels" / f"{name}.tif"

    def _read(self, name: str) -> Canvas:
        """The canvas of an image from its files, and from what the journal says that they lack."""
        path = self._label_file(name)
        if not path.exists():
            self.segment(name, None)  # an image that is new has no objects
        labels = held_labels(path, self.folder)
        known, self._written[name] = read_objects(self.folder, name)
        things = {label: Thing(*values) for label, values in known.items()}
        canvas = Canvas(labels, read_reviewed(self.folder, name, labels.shape), things)
        for entry in self._history.get(name, ()):
            if entry.revision > self._written[name]:
                canvas.write(self._journal.change(entry))
            canvas.last_label = max(canvas.last_label, entry.last_label)  # what was given once is not given again
        return canvas

    def _write(self, name: str) -> None:
        """Write the files of an image as it is now."""
        self._put_on_disk(name, *self._state(name))

    def _state(self, name: str) -> tuple[Canvas, dict[int, Known], int, dict[str, Any]]:
        """What is written of an image: its canvas, what is known of the objects, the revision, and a summary."""
        canvas = self.canvas(name)
        known = {label: (thing.class_number, thing.score) for label, thing in canvas.things.items()}
        return canvas, known, self._last_revision(name), summary_of(canvas)

    def _put_on_disk(
        self, name: str, canvas: Canvas, known: Mapping[int, Known], revision: int, summary: Mapping[str, Any]
    ) -> None:
        """Write the files of an image, unless newer ones have been written.

        If somebody changes the canvas meanwhile, parts of the files are newer than the revision that they say, and what
        the journal has after it is done again when they are read.
        """
        with self._writing:
            if revision >= self._written.get(name, 0):
                write_state(self.folder, name, canvas.labels, canvas.reviewed, known, revision, summary)
                let_go(canvas.labels)
                self._written[name] = revision

    def _write_soon(self) -> None:
        """Write the files of large images as soon as nobody has changed anything for a while."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = threading.Timer(PAUSE, self._write_quietly)
        self._timer.daemon = True
        self._timer.start()

    def _write_quietly(self) -> None:
        """Write what is not on disk, while others go on."""
        for name in self._behind():
            with self._mutex:
                state = self._state(name)
            with suppress(InputError):  # the journal has it, and it is tried again
                self._put_on_disk(name, *state)

    def _behind(self) -> list[str]:
        """Images that are held and whose files lack something."""
        with self._mutex:
            return [name for name in self._held if self._written.get(name, 0) < self._last_revision(name)]

    def _last_revision(self, name: str) -> int:
        history = self._history.get(name)
        return history[-1].revision if history else 0

    def flush(self) -> None:
        """Write the files of all images as they are now, for other programs to read.

        Raises:
            InputError: if they cannot be written; nothing is lost then, as the journal has it.
        """
        with self._mutex:
            for name in self._behind():
                self._write(name)

    def _recover(self) -> None:
        """Do again what the files of an image lack: they are of an older revision, or newer in part."""
        for name, history in self._history.items():
            if name not in self._files or not self._label_file(name).exists():
                continue
            _, written = read_objects(self.folder, name)
            if written < history[-1].revision:
                self._held[name] = self._read(name)
                self._write(name)
                self._held.pop(name)

    def close(self) -> None:
        """Write what is not yet in the files, and let other programs open the session.

        Raises:
            InputError: if it cannot be written; the next who opens the session will do so.
        """
        if self._timer is not None:
            self._timer.cancel()
        try:
            self.flush()
        finally:
            self._open.close()

    def __enter__(self) -> Session:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Session({str(self.folder)!r}, {counted(len(self._files), 'image')}, revision {self.revision})"


def image_files(folder: Path) -> dict[str, Path]:
    """The files of a folder of images by their stems."""
    files = folder.iterdir() if folder.is_dir() else ()
    return {file.stem: file for file in files if file.suffix.lower() in IMAGE_SUFFIXES and file.name[0] != "."}
