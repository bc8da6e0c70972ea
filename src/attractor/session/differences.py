"""Where two models differ: pictures of what each of them finds, of those images on which they differ most."""

from __future__ import annotations

import time
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from PIL import Image

from attractor.images import atomic, made, read_image
from attractor.instances import Instances
from attractor.metrics.average_precision import score_image
from attractor.metrics.metric import Pair
from attractor.overlays import overlay
from attractor.session.models import model_of_round
from attractor.session.session import Finds

SHOWN = 4  # images
LARGEST = 1200  # pixels of the long side of a picture
BEFORE, AFTER = "before", "after"


def difference(one: Instances, other: Instances) -> float:
    """How far two results for the same image differ, from 0 to 1: what mean AP over IoU .50 to .95 lacks to 1."""
    scores = score_image(Pair("", one, other, np.zeros(one.labels.shape, bool)))
    return 1.0 - float(scores.average_precision.mean())


def draw_differences(
    folder: Path, old: Finds, new: Finds, images: Iterable[tuple[str, Path]], *, seconds: float = np.inf
) -> tuple[str, ...]:
    """Draw what two models find in those images on which they differ most.

    Args:
        folder: for the pictures, NAME-before.webp and NAME-after.webp.
        old: finds what is drawn as before.
        new: finds what is drawn as after.
        images: names and files, those to look at first in front.
        seconds: after which no further image is looked at.

    Returns:
        Names of the images that were drawn, those that differ most in front; equal results are not drawn.
    """
    end = time.monotonic() + seconds
    most: list[tuple[float, str, Path, Instances, Instances]] = []
    for name, path in images:
        if time.monotonic() > end:
            break
        image = read_image(path)
        before, after = (model.segment(image, name=name) for model in (old, new))
        most.append((difference(before, after), name, path, before, after))
        most = [one for one in sorted(most, key=lambda one: -one[0]) if one[0] > 0][:SHOWN]
    for _, name, path, before, after in most:
        image = read_image(path)
        for which, found in ((BEFORE, before), (AFTER, after)):
            _draw(picture_file(folder, name, which), image, found)
    return tuple(name for _, name, *_ in most)


def pictures_of_round(folder: Path, number: int) -> Path:
    """Where in a session's folder the pictures are that show what a round has changed."""
    return (folder / model_of_round(number)).with_suffix("")


def picture_file(folder: Path, name: str, which: str) -> Path:
    """The file of a picture."""
    return folder / f"{name}-{which}.webp"


def _draw(path: Path, image: np.ndarray, found: Instances) -> None:
    picture = Image.fromarray(overlay(image, found))
    picture.thumbnail((LARGEST, LARGEST))
    made(path.parent)
    with atomic(path) as temporary:
        picture.save(temporary, "WEBP", quality=85)
