"""How far the correction of an image has come, and the summary of it that stands in the image's files."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from attractor.session.canvas import Canvas

IN_WORK, NEW, REVIEWED, SEGMENTED = "in work", "new", "reviewed", "segmented"


@dataclass(frozen=True)
class Progress:
    """How far the correction of one image has come."""

    image: str
    state: str  # "new": not segmented yet; "segmented"; "in work"; "reviewed": every pixel is
    objects: int
    reviewed: float  # share of the pixels
    edits: int  # operations that count, those taken back not being among them
    least_score: float | None  # of the objects that nobody has reviewed; None without one


def summary(objects: int, reviewed: float, scores: Iterable[float | None]) -> dict[str, Any]:
    """What the list of images says, apart from the journal."""
    return {
        "objects": objects,
        "reviewed": reviewed,
        "least_score": min((score for score in scores if score is not None), default=None),
    }


def summary_of(canvas: Canvas) -> dict[str, Any]:
    """The summary of an image that is held."""
    looked_at = canvas.looked_at()
    scores = (thing.score for label, thing in canvas.things.items() if label not in looked_at)
    return summary(len(canvas.things), canvas.share_reviewed(), scores)


def state_of(reviewed: float) -> str:
    """The state of an image of which a share was reviewed."""
    return REVIEWED if reviewed == 1 else IN_WORK if reviewed else SEGMENTED
