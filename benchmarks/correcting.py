"""Correcting what a model finds, and training on it, against drawing everything by hand: scores against operations.

    python -m benchmarks.correcting --data DATA [--out runs/correcting] [--images 20] [--model nuclei] [--seed 0]

DATA holds `train` and `test`. Somebody who knows the truth works in two sessions. In one they draw every object of some
images of `train`. In the other a model has found objects, and they spend a third of those operations on mending what
is wrong, from the top of an image down, and after so many operations go on to the next; what they have gone through
counts as reviewed. Where hardly anything found is right, they begin by deleting all of it at once. After
each round the new model finds the objects of the images to come. They begin with the images that were drawn in the
other session, then open the rest of `train` and, when all are open, go once more through all images where they left
off. Both train as `attractor train PROJECT` does, in the same number of steps, and each model is scored on all of
`test`. Such a person flatters: real ones hesitate and err.

What is done is kept in the folder `--out`, and not done again.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import ndimage

from attractor.datasets import Dataset, Subset, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.datasets.polygons import rings
from attractor.errors import InputError
from attractor.evaluation import evaluate_model
from attractor.images import made
from attractor.instances import overlap
from attractor.model import Model
from attractor.prediction.image import Segmenter
from attractor.session import Accept, Delete, Draw, Merge, Redraw, Session, Split
from attractor.session.operations import Operation, gives_way
from attractor.session.progress import REVIEWED
from attractor.session.rounds import train_round
from benchmarks.harness import print_machine, print_table

RIGHT = 0.55  # IoU from which an object is left as it is
WORTH_KEEPING = 1 / 3  # share of right objects among those found, below which all are deleted at once
INSIDE = 0.5  # share of an object that lies in another one, from which it is a part of it
FIELD = 512  # columns, at most, that are looked at together: a wide image is gone down several times, from the left
BANDS = 10  # parts of an image, from top to bottom, that are mended one after the other
CROPS = 320  # of an epoch
CHANGES = (
    f"training.crops_per_epoch={CROPS}",
    "training.batch_size=8",
    "training.crop_size=256",
    "training.minutes=0",
)
ROUNDS = ((1 / 6, 9), (3 / 8, 13.5), (2 / 3, 18), (1, 9))  # share of all operations; how many for an image, at most
FEWEST_IMAGES = 3  # that are opened, whatever that takes: fewer cannot be trained on
WORTH_OPENING = 8  # operations that must be left for another image
WORTH_GOING_ON = 3  # the same for the next columns of an image
BY_HAND, LOOP = "by hand", "the loop"


@dataclass(frozen=True)
class Point:
    """A model on the way: what it took, and its AP by image at IoU .50 and .75."""

    way: str
    images: int
    operations: int
    ap50: float
    ap75: float


@dataclass(frozen=True)
class Compared:
    """The objects of an image and of the truth; index k is label k + 1."""

    shared: np.ndarray  # (true, found), pixels
    of_truth: np.ndarray  # pixels
    of_found: np.ndarray

    @classmethod
    def of(cls, truth: np.ndarray, found: np.ndarray) -> Compared:
        """Compare two label images."""
        table = overlap(truth, found)
        return cls(table[1:, 1:], table.sum(1)[1:], table.sum(0)[1:])

    @property
    def iou(self) -> np.ndarray:
        """Of each true object with each found one."""
        return self.shared / np.maximum(self.of_truth[:, None] + self.of_found - self.shared, 1)

    def parts(self, true: int) -> np.ndarray:
        """The found objects that lie mostly in a true one."""
        return np.flatnonzero(self.shared[true] > INSIDE * self.of_found)

    def covered(self, found: int) -> np.ndarray:
        """The true objects that lie mostly in a found one, the one that has most of it first."""
        inside = np.flatnonzero(self.shared[:, found] > INSIDE * self.of_truth)
        return inside[np.argsort(-self.shared[inside, found], kind="stable")]

    def gives_way(self, true: int) -> np.ndarray:
        """The found objects in whose place a true one is put when it is redrawn."""
        return np.flatnonzero(gives_way(self.shared[true], self.of_found, int(self.of_truth[true])))

    def is_right_together(self, true: int, found: np.ndarray) -> bool:
        """Whether found objects would be right, were they one."""
        common = self.shared[true, found].sum()
        return bool(common >= RIGHT * (self.of_truth[true] + self.of_found[found].sum() - common))


@dataclass
class Annotator:
    """Somebody who knows the truth of an image and mends its labels, one operation at a time."""

    session: Session
    name: str
    truth: np.ndarray  # (h, w) int32, 0 is background
    drawn: set[int] = field(default_factory=set)  # objects of the truth
    left: set[int] = field(default_factory=set)  # labels that are not touched again

    def correct(self, most: float = np.inf) -> None:
        """Mend band after band until that many operations are done, and accept what was gone through."""
        height, width = self.truth.shape
        begun, seen = operations(self.session), np.zeros(self.truth.shape, bool)
        self._clear()
        edges = np.linspace(0, width, -(-width // FIELD) + 1).round().astype(int).tolist()
        for left, right in itertools.pairwise(edges):
            for stop in np.linspace(0, height, BANDS + 1).round().astype(int)[1:].tolist():
                seen[:stop, left:right] = True
                while any(self._try(operation) for operation in self.wanted(seen)):
                    pass
                if operations(self.session) - begun >= most - 1:  # one is to accept
                    break
            box = (0, 0 if stop == height else left, stop, right)
            if not self.session.canvas(self.name).reviewed[box[0] : box[2], box[1] : box[3]].all():
                self.session.apply(Accept(self.name, box=box))
            if operations(self.session) - begun >= most - WORTH_GOING_ON:
                break

    def _clear(self) -> None:
        """Delete everything at once, if hardly anything is right."""
        canvas = self.session.canvas(self.name)
        if canvas.things:
            right = (Compared.of(self.truth, canvas.labels).iou.max(0, initial=0) >= RIGHT).sum()
            if right < WORTH_KEEPING * len(canvas.things):
                self.session.apply(Delete(self.name, tuple(canvas.things)))

    def wanted(self, seen: np.ndarray) -> Iterator[Operation]:
        """What would mend an object of which a pixel was seen, most welcome first."""
        found = self.session.canvas(self.name).labels
        both = Compared.of(self.truth, found)
        wrong = (both.iou.max(0, initial=0) < RIGHT) & is_in(found, seen, len(both.of_found))
        missing = (both.iou.max(1, initial=0) < RIGHT) & is_in(self.truth, seen, len(both.of_truth))
        wrong[[label - 1 for label in self.left]] = False
        missing[[label - 1 for label in self.drawn]] = False
        for j in np.flatnonzero(wrong):
            if len(inside := both.covered(j)) > 1:
                yield Split(self.name, int(j) + 1, self._line(int(j) + 1, *(inside[:2] + 1).tolist()))
        for t in np.flatnonzero(missing):
            if len(parts := both.parts(t)) > 1 and both.is_right_together(t, parts):
                yield Merge(self.name, tuple((parts + 1).tolist()))
        for t in np.flatnonzero(missing):
            if len(way := both.gives_way(t)) and wrong[way].all():
                yield self._drawing(Redraw, int(t) + 1)
        for j in np.flatnonzero(wrong):
            yield Delete(self.name, (int(j) + 1,))
        for t in np.flatnonzero(missing):
            yield self._drawing(Draw, int(t) + 1)

    def _drawing(self, kind: type[Draw | Redraw], true: int) -> Operation:
        """Draw an object of the truth, which is not tried again."""
        self.drawn.add(true)
        return kind(self.name, outline_of(self.truth == true))

    def _try(self, operation: Operation) -> bool:
        """Whether an operation could be done."""
        try:
            record = self.session.apply(operation)
        except InputError:  # a line that does not divide the object, or no pixel left for a new one
            return False
        if isinstance(operation, Draw | Redraw):
            things = self.session.change(record).things[1]
            self.left |= {label for label, thing in things.items() if thing is not None}
        return True

    def _line(self, label: int, one: int, other: int) -> tuple[tuple[float, float], ...]:
        """Where two true objects meet in a found one, and a little further on both sides."""
        own = self.session.canvas(self.name).labels == label
        apart = ndimage.distance_transform_edt(self.truth != one) - ndimage.distance_transform_edt(self.truth != other)
        seam = np.argwhere(own & (np.abs(apart) <= 1)) + 0.5
        if len(seam) < 2:
            return (0.0, 0.0), (0.0, 1.0)
        middle = seam.mean(0)
        along = (seam - middle) @ np.linalg.svd(seam - middle, full_matrices=False)[2][0]
        line = seam[np.argsort(along)][:: max(1, len(seam) // 12)]
        ends = line[0] - 4 * unit(line[-1] - line[0]), line[-1] + 4 * unit(line[-1] - line[0])
        return tuple((float(row), float(column)) for row, column in [ends[0], *line, ends[1]])


def is_in(labels: np.ndarray, seen: np.ndarray, n: int) -> np.ndarray:
    """Which of the labels 1 to n have a pixel that was seen."""
    return np.bincount(labels[seen], minlength=n + 1)[1:] > 0


def unit(vector: np.ndarray) -> np.ndarray:
    """The vector at length 1; one of length 0 stays as it is."""
    return vector / (np.linalg.norm(vector) or 1.0)


def outline_of(mask: np.ndarray) -> tuple[tuple[float, float], ...]:
    """The outline of an object, or of its longest part, as (row, column)."""
    ring = max((part[0] for part in rings(mask)), key=len)
    return tuple((float(y), float(x)) for x, y in ring)


def main() -> None:
    """Work in both ways, and print what each model scores after how many operations."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, type=Path, help="a folder with train and test")
    parser.add_argument("--out", type=Path, help="by default a folder in runs, named after the data and the seed")
    parser.add_argument("--model", default="nuclei", help="finds objects at first, and is trained on from")
    parser.add_argument("--images", default=20, type=int, help="drawn by hand: training images, evenly spread")
    parser.add_argument("--rounds", default=1, type=int, help="by hand")
    parser.add_argument("--steps", default=200, type=int, help="of each training, of eight crops")
    parser.add_argument("--seed", default=0, type=int, help="of each training")
    parser.add_argument("--plot", type=Path, help="a PNG file for the curve")
    given = parser.parse_args()
    out = given.out or Path("runs") / f"correcting-{given.data.resolve().name}-{given.seed}"
    check_kept(out, {key: value for key, value in vars(given).items() if key not in ("out", "plot", "data")})
    print_machine()
    changes = [*CHANGES, f"training.epochs={round(given.steps * 8 / CROPS)}", f"training.seed={given.seed}"]
    points = measured(given.data, out, given.model, given.images, given.rounds, changes)
    print_table(
        f"{given.data.name}, on all test images: {given.images} images drawn by hand, seed {given.seed}",
        [{**dataclasses.asdict(p), "ap50": f"{p.ap50:.3f}", "ap75": f"{p.ap75:.3f}"} for p in points],
    )
    print(verdict(points))
    if given.plot:
        plot(points, given.plot)


def check_kept(out: Path, settings: dict[str, object]) -> None:
    """Refuse a folder that holds the results of other settings; in a new one, note them.

    Raises:
        InputError: in that case.
    """
    file = made(out) / "settings.json"
    if not file.exists():
        file.write_text(json.dumps(settings))
    elif (kept := json.loads(file.read_text())) != settings:
        raise InputError(f"{out}: holds results of other settings, {kept}; give another --out.")


def measured(data: Path, out: Path, model: str, n_images: int, rounds: int, changes: Sequence[str]) -> list[Point]:
    """All points of both ways; those that the folder holds are not made again."""
    train, test = open_dataset(data / "train"), open_dataset(data / "test")
    some = np.linspace(0, len(train) - 1, n_images).round().astype(int).tolist()
    others = sorted(set(range(len(train))) - set(some))
    training = Training(model, test, changes)
    points: list[Point] = []
    with opened(out / "by-hand", drawn := Subset(train, some), None) as session:
        for number in range(1, rounds + 1):
            images = Subset(drawn, range(round(n_images * number / rounds)))
            points += training.round(number, session, images, BY_HAND)
    budget = points[-1].operations / 3
    with opened(out / "loop", every := Subset(train, [*some, *others]), model) as session:
        for number, (share, most) in enumerate(ROUNDS, 1):
            points += training.round(number, session, every, LOOP, share * budget, most)
    return points


def opened(folder: Path, images: Dataset, model: str | None) -> Session:
    """The session in a folder, made first if it is not there."""
    if (folder / "session").exists():
        return Session(folder / "session")
    write_label_images(folder / "data", list(images))
    segmenter = None if model is None else Segmenter(Model.load(model))
    return Session.create(folder / "session", [folder / "data" / "images"], segmenter, model=model or "")


@dataclass(frozen=True)
class Training:
    """How all models are trained and scored."""

    model: str  # that they start from
    test: Dataset
    changes: Sequence[str]  # of the recipe

    def round(
        self, number: int, session: Session, images: Dataset, way: str, end: float = np.inf, most: float = np.inf
    ) -> list[Point]:
        """Correct images, train on all that were corrected so far, and score the new model.

        Args:
            number: of the round in its session.
            session: in which images are corrected.
            images: all of them, with the truth, in the order in which they are opened.
            way: which of the two ways of working this is.
            end: how many operations may have been done in all.
            most: operations for an image.

        Returns:
            The point, or none if too few operations are left to open an image.
        """
        kept = session.folder / f"point-{number}.json"
        if kept.exists():
            return [Point(**json.loads(kept.read_text()))]
        scored = [json.loads(file.read_text()) for file in session.folder.glob("point-*.json")]
        segmenter = None
        if way == LOOP and session.project.get("in_use"):
            segmenter = Segmenter(Model.load(session.folder / session.project["in_use"]))
        go_through(images, session, segmenter, end, most, FEWEST_IMAGES)
        if operations(session) == max((point["operations"] for point in scored), default=0):
            return []
        n_trained = len(session.project.get("rounds", []))
        if n_trained == len(scored):  # else it was interrupted after training
            n_trained = train_round(session, start=self.model, changes=self.changes).number
        new = Segmenter(Model.load(session.folder / "models" / f"round-{n_trained}.safetensors"))
        ap = evaluate_model(new, self.test).summary.by_image.value
        seen = sum(bool(session.history(name)) for name in session.images)
        point = Point(way, seen, operations(session), float(ap[0]), float(ap[5]))
        kept.write_text(json.dumps(dataclasses.asdict(point)))
        print(point, flush=True)
        return [point]


def go_through(
    images: Dataset, session: Session, segmenter: Segmenter | None, end: float, most: float, fewest: int = 0
) -> None:
    """Open image after image, those that were not opened before first, until so many operations are done in all.

    Args:
        images: with the truth.
        session: in which they are corrected.
        segmenter: finds the objects of each image before it is corrected.
        end: operations that may have been done in all.
        most: operations for an image.
        fewest: images that are opened in all, whatever that takes.
    """
    n_opened = sum(bool(session.history(name)) for name in images.names)
    for index in sorted(range(len(images)), key=lambda index: bool(session.history(images.names[index]))):
        left = end - operations(session) if n_opened >= fewest else np.inf
        if left < WORTH_OPENING or session.progress(images.names[index]).state == REVIEWED:
            continue
        n_opened += 1
        sample = images[index]
        if segmenter is not None:
            session.put(sample.name, segmenter.segment(sample.image, name=sample.name))
        Annotator(session, sample.name, sample.labels).correct(min(left, most))


def operations(session: Session) -> int:
    """How many operations somebody has done by hand."""
    return sum(entry.kind != "segment" for name in session.images for entry in session.history(name))


def verdict(points: Sequence[Point]) -> str:
    """Whether the loop comes as far as all drawing does, and with what share of the operations."""
    last = [point for point in points if point.way == BY_HAND][-1]
    equal = [point for point in points if point.way == LOOP and point.ap50 >= last.ap50]
    if not equal:
        return f"The loop does not reach the {last.ap50:.3f} of {last.images} images drawn by hand."
    first = min(equal, key=lambda point: point.operations)
    return (
        f"The loop reaches {first.ap50:.3f} after {first.operations} operations on {first.images} images; "
        f"{last.images} images drawn by hand reach {last.ap50:.3f} after {last.operations}: "
        f"{first.operations / last.operations:.2f} of the operations."
    )


def plot(points: Sequence[Point], file: Path) -> None:
    """Draw the curve of both ways."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 3.6), layout="constrained")
    axes = figure.subplots()
    for way, colour, marker in ((BY_HAND, "#555555", "s"), (LOOP, "#0072b2", "o")):
        own = [point for point in points if point.way == way]
        axes.plot([p.operations for p in own], [p.ap50 for p in own], marker=marker, color=colour, label=way)
        for p in own:
            axes.annotate(f"{p.images}", (p.operations, p.ap50), (4, -11), textcoords="offset points", color=colour)
    reached = [p.ap50 for p in points if p.way == BY_HAND][-1]
    axes.axhline(reached, color="#555555", linewidth=0.8, linestyle=":")
    axes.set(
        xlabel="operations (the numbers are images)", ylabel="AP at IoU .50, test images", xlim=(0, None), ylim=(0, 1)
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(file, dpi=150)


if __name__ == "__main__":
    main()
