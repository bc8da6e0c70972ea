"""A round of training on what was corrected: a new model is kept only if it is better where nobody trained.

Every round starts from the same model, on all that has been reviewed so far: a model that is trained from its own last
version unlearns. Some of the reviewed images are held out of all rounds; the model that is in use and the new one are
compared on those.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from attractor import runs
from attractor.datasets.sample import Dataset, Sample
from attractor.datasets.session import SessionImages
from attractor.datasets.splitting import Subset
from attractor.errors import InputError
from attractor.evaluation import evaluate_model
from attractor.images import atomic, made, temporary_folder
from attractor.metrics.average_precision import Difference, ImageScores, Summary, paired_difference, summarise
from attractor.metrics.bootstrap import Interval
from attractor.metrics.overlaps import place_of
from attractor.model import Model
from attractor.prediction.image import Segmenter
from attractor.session.differences import draw_differences, pictures_of_round
from attractor.session.models import model_of_round
from attractor.session.session import Session, image_files
from attractor.wording import counted, share

HELD_OUT = 0.2  # share of the reviewed images
FEWEST = 3  # reviewed images: two to learn from, and one that is held out
MINUTES = 10.0
# Much of what was reviewed is what a model found with its own thresholds, so fewer objects than this choose no others.
FEW_OBJECTS = 1000
MANY_OBJECTS = 10 * FEW_OBJECTS  # from which on some images are set aside to validate on, and may choose thresholds
DIVIDING = (
    *("data.validation", "data.split_by", "data.split_seed", "data.groups", "data.folds"),
    "training.few_objects",
)
LOOKED_AT = 12  # images besides those held out in which both models find objects, to show where they differ
LOOKING = 0.1  # of the minutes of training, at most, for that

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Round:
    """What a round of training did. Scores are AP at an IoU of .50, by image, on the images held out.

    Many outlines there are those of the model in use, which were left as they are; higher IoUs would favour that model.
    """

    number: int
    kept: bool  # whether the new model is in use now
    before: Interval | None  # of the model that was in use; None if there was none
    after: Interval
    gain: Interval | None
    learned_from: tuple[str, ...]
    held_out: tuple[str, ...]
    shown: tuple[str, ...] = ()  # images on which both models differ most, of which there are pictures

    def as_json(self) -> dict[str, Any]:
        """The round as plain JSON, without what there is not."""
        return {key: value for key, value in dataclasses.asdict(self).items() if value is not None}

    def __str__(self) -> str:
        """Two sentences: the scores, and which model is in use."""
        on = f"on {counted(len(self.held_out), 'reviewed image')} that no training has seen"
        if self.before is None or self.gain is None:
            return f"Round {self.number}: AP {_in_words(self.after)} at IoU .50 {on}. The new model is in use."
        difference = f"{self.gain.value:+.3f} ({self.gain.low:+.3f} to {self.gain.high:+.3f})"
        return (
            f"Round {self.number}: AP {_in_words(self.after)} at IoU .50, {_in_words(self.before)} before, {on}; the "
            f"difference is {difference}. The {'new' if self.kept else 'old'} model is in use."
        )


def _in_words(value: Interval) -> str:
    return f"{share(value.value)} ({share(value.low)} to {share(value.high)})"


def train_round(session: Session, **how: Any) -> Round:
    """Train a model on what was reviewed, as `trained` does, and keep the better of the new one and the one in use."""
    result = trained(session.folder, session.project, **how)
    session.adopt(result.as_json(), start=how.get("start"))
    return result


def trained(
    folder: Path,
    project: Mapping[str, Any],
    *,
    start: str | None = None,
    minutes: float = MINUTES,
    device: str = "auto",
    changes: Sequence[str] = (),
    begun: Callable[[Path], None] = lambda run: None,
) -> Round:
    """Train a model in a session's folder, which another process may have open, and compare it with the one in use.

    Args:
        folder: of a session, at least three images of which were reviewed, in whole or in part.
        project: what its project.toml says.
        start: name or file of the model that this and later rounds start from; by default the one that the session was
            made with, or none.
        minutes: for the training; the comparison comes on top.
        device: as for `attractor.train`.
        changes: keys of the recipe to change.
        begun: is called with the folder of the training, whose logs tell how far it is.

    Raises:
        InputError: if too little was reviewed, or the model or a key cannot be used.
    """
    data, past = SessionImages(folder), list(project.get("rounds", []))
    start = start if start is not None else project.get("model") or None
    in_use = project.get("in_use") or start
    held = held_out(data.names, past)
    learned = tuple(name for name in data.names if name not in held)
    number = len(past) + 1
    with temporary_folder(folder) as work:
        counts: list[int] = []

        def counted_in(sample: Sample) -> Sample:
            counts.append(len(sample.classes))
            return sample

        samples = (counted_in(data[place]) for place in _places(data, learned))
        SessionImages.write(made(work / "learn"), samples, data)
        begun(work / "run")
        runs.train(
            work / "learn",
            start=None if start is None else str(_file(folder, start)),
            minutes=minutes,
            out=work / "run",
            changes=[*_validation(work / "learn", sum(counts), changes), *changes],
            device=device,
        )
        new = work / "run" / "model.safetensors"
        images = Subset(data, _places(data, held))
        after = _scores(new, images, device)
        before = None if in_use is None else _scores(_file(folder, in_use), images, device)
        result = _judged(number, before, after, learned, held)
        if in_use is not None:
            result = dataclasses.replace(
                result, shown=_shown(folder, in_use, new, result, device, 60 * minutes * LOOKING)
            )
        target = made(folder / "models") / Path(model_of_round(number)).name
        with atomic(target) as temporary:
            shutil.copyfile(new, temporary)
    return result


def held_out(names: Sequence[str], past: Sequence[dict[str, object]]) -> tuple[str, ...]:
    """The reviewed images that no round learns from: those of earlier rounds, and new ones up to a fifth of all.

    Raises:
        InputError: if there are too few to hold any out.
    """
    if len(names) < FEWEST:
        raise InputError(
            f"{counted(len(names), 'image')} reviewed so far; training needs {FEWEST}: two to learn from, and one that "
            "shows whether the new model is better."
        )
    held = [name for name in names if any(name in _names(entry, "held_out") for entry in past)]
    learned = {name for entry in past for name in _names(entry, "learned_from")}
    order = sorted(set(names) - set(held) - learned, key=lambda name: hashlib.sha256(name.encode()).digest())
    missing = max(1, round(HELD_OUT * len(names))) - len(held)
    chosen = tuple(sorted([*held, *order[: max(0, missing)]]))
    if not chosen:
        raise InputError(
            "Every image that is reviewed was learned from in an earlier round; review another one, which will show "
            "whether a new model is better."
        )
    return chosen


def _validation(learn: Path, n_objects: int, changes: Sequence[str]) -> list[str]:
    """Keys by which all images are learned from and thresholds stay, unless there are very many objects.

    Then the score that tells epochs apart is that of the images learned from. It is not so if changes have a key that
    says how to divide the images, or how many objects choose thresholds.
    """
    divided = any(change.split("=")[0].strip() in DIVIDING for change in changes)
    if divided or n_objects >= MANY_OBJECTS:
        return [f"training.few_objects={FEW_OBJECTS}"]
    path = json.dumps(str(learn), ensure_ascii=False)
    return [f"training.few_objects={MANY_OBJECTS}", f"data.validation={path}"]


def _names(entry: dict[str, object], key: str) -> Collection[str]:
    names = entry.get(key, ())
    return names if isinstance(names, list | tuple) else ()


def _places(data: Dataset, names: Collection[str]) -> list[int]:
    return [index for index, name in enumerate(data.names) if name in names]


def _file(folder: Path, model: str) -> str | Path:
    """A model of the session's own, or another one by its name or file."""
    own = folder / model
    return own if own.exists() else model


def _shown(folder: Path, old: str, new: Path, result: Round, device: str, seconds: float) -> tuple[str, ...]:
    """Draw where the models differ, on images that neither the training nor, mostly, anybody has seen."""
    files = image_files(folder / "images")
    others = sorted(files.keys() - set(result.learned_from) - set(result.held_out))
    step = max(1, -(-len(others) // LOOKED_AT))
    images = [(name, files[name]) for name in (*result.held_out, *others[::step]) if name in files]
    one, other = (Segmenter(Model.load(model), device=device, copies=False) for model in (_file(folder, old), new))
    return draw_differences(pictures_of_round(folder, result.number), one, other, images, seconds=seconds)


def _scores(model: str | Path, images: Dataset, device: str) -> list[ImageScores]:
    found = evaluate_model(Segmenter(Model.load(model), device=device, copies=False), images).images
    return [scores for scores in found if isinstance(scores, ImageScores)]


def _judged(
    number: int,
    before: list[ImageScores] | None,
    after: list[ImageScores],
    learned: tuple[str, ...],
    held: tuple[str, ...],
) -> Round:
    """The round, in which the new model is kept if it is better."""
    now = _ap50(summarise(after))
    if before is None:
        return Round(number, True, None, now, None, learned, held)
    difference = paired_difference(after, before)
    gain = _ap50(difference)
    kept = (gain.value, difference.mean_average_precision.value) > (0, 0)  # at higher IoUs where .50 sees no difference
    return Round(number, kept, _ap50(summarise(before)), now, gain, learned, held)


def _ap50(scores: Summary | Difference) -> Interval:
    return scores.by_image.at(place_of(0.5, scores.thresholds))
