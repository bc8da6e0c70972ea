"""Volumes by a model for images: each slice by itself, and then what lies upon one another is one object.

It asks for no training, and is a first look: a model for volumes sees what is above and below, and knows where one
object ends and the next begins.

Shapes: `d` slices, `h` rows, `w` columns, `c` channels.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Future
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int, Shaped

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.prediction.batches import Given, settled
from attractor.prediction.image import Prediction, Segmenter
from attractor.tracking import link


def check_slices(segmenter: Segmenter) -> None:
    """Refuse a model that sees volumes as a whole.

    Raises:
        InputError: if it is one.
    """
    if segmenter.n_axes == 3:
        raise InputError("This model takes volumes as they are; leave --slices out.")


def predict_slices(segmenter: Segmenter, volumes: Sequence[Given], **options: Any) -> list[Future[Prediction]]:
    """What is found in each volume, slice by slice.

    Args:
        segmenter: of a model for images.
        volumes: (d, h, w, c), with their names.
        options: as for `Segmenter.predict`.
    """
    return [settled(partial(_predicted, segmenter, volume, options)) for volume in volumes]


def _predicted(segmenter: Segmenter, volume: Given, options: dict[str, Any]) -> Prediction:
    planes: Shaped[np.ndarray, "d h w c"] = np.asarray(volume.image)
    given = [Given(f"{volume.name}, slice {number}", plane) for number, plane in enumerate(planes)]
    slices = [one.result() for one in segmenter.predict_group(given, **options)]
    return Prediction(
        joined([one.found for one in slices]),
        slices[0].tile,
        sum(one.network_seconds for one in slices),
        sum(one.grouping_seconds for one in slices),
    )


def joined(slices: Sequence[Instances]) -> Instances:
    """The objects of a volume, from those of its slices: what overlaps from one to the next is the same.

    An object's score is the mean over its pixels, and its class the one that most of them have.
    """
    labels = np.stack(list(link([one.labels for one in slices], max_gap=0, divisions=False, drift=False)))
    n = int(labels.max(initial=0))
    n_classes = max((int(one.classes.max(initial=0)) for one in slices), default=0)
    pixels, scores = np.zeros((n + 1, n_classes + 1)), np.zeros(n + 1)
    for one, plane in zip(slices, labels, strict=True):
        if len(one):
            own, area = _numbers(one.labels, plane)
            np.add.at(pixels, (own, one.classes), area)
            np.add.at(scores, own, area * one.scores)
    of_object = pixels[1:].sum(1)
    classes = pixels[1:].argmax(1).astype(np.int32) if n else np.zeros(0, np.int32)
    return Instances(labels, classes, (scores[1:] / np.maximum(of_object, 1)).astype(np.float32))


def _numbers(
    labels: Int[np.ndarray, "h w"], ids: Int[np.ndarray, "h w"]
) -> tuple[Int[np.ndarray, " k"], Float[np.ndarray, " k"]]:
    """The id that each object of a slice has in the volume, and its pixels."""
    found, first, area = np.unique(labels, return_index=True, return_counts=True)
    is_object = found > 0
    return ids.ravel()[first[is_object]], area[is_object].astype(float)
