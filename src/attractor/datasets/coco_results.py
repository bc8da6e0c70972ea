"""COCO's results files: what was found in the images of a COCO data set, as its official tool reads it.

A list of entries with `image_id`, `category_id`, `segmentation` and `score`, one for each object found.

Source: https://cocodataset.org/#format-results.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from attractor.datasets.coco_entries import Picture, Problems, as_number, is_id, is_whole, parsed, read_outline, shown
from attractor.datasets.coco_masks import Outline, decode_columns, runs_of, segmentation
from attractor.datasets.sample import refuse
from attractor.errors import InputError
from attractor.images import atomic
from attractor.instances import Instances


@dataclass(frozen=True)
class _Found:
    """One entry of a results file."""

    position: int  # in the file
    class_number: int
    outline: Outline
    score: float


def write_coco_results(
    path: str | Path, results: Iterable[tuple[int | str, Instances]], category_ids: Sequence[int]
) -> None:
    """Write what was found as COCO's results file, one image after another; whole masks where objects overlap.

    Args:
        path: the JSON to write.
        results: images' ids, as in `Coco.image_ids`, each with what was found there.
        category_ids: of class 1, 2, …, as in `Coco.category_ids`.

    Raises:
        InputError: if an object has a class without an id, or the file cannot be written.
    """
    with atomic(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        separator = "[\n"
        for image_id, found in results:
            for entry in _entries_of(image_id, found, category_ids):
                file.write(separator + json.dumps(entry))
                separator = ",\n"
        file.write("[]\n" if separator.startswith("[") else "\n]\n")


def read_coco_results(
    path: str | Path, pictures: Sequence[Picture], category_ids: tuple[int, ...]
) -> Iterator[Instances]:
    """What a COCO results file says was found in each image of a data set, in the data set's order.

    Masks stay whole; in the label image the higher score wins, then the earlier object. Boxes and areas in the file
    are passed over: what an object covers is its mask.

    Args:
        path: the JSON to read.
        pictures: the images of the data set.
        category_ids: of class 1, 2, …

    Raises:
        InputError: if the file cannot be read, or names an image or category that the data set lacks, or an object
            has no mask of its image's size or no score; runs are looked at when their image's turn comes.
    """
    file = Path(path)
    results, problems = parsed(file, "a JSON of results"), Problems(file)
    if not isinstance(results, list):
        raise InputError(
            f"{file}: is no list of results; give objects of image_id, category_id, segmentation and score in a list."
        )
    places = {picture.number: index for index, picture in enumerate(pictures)}
    found: list[list[_Found]] = [[] for _ in pictures]
    for position, entry in enumerate(results):
        try:
            index = _place_of(entry, places)
            found[index].append(_read_entry(entry, position, pictures[index].size, category_ids))
        except InputError as error:
            problems.add(f"result {position}", str(error))
    refuse(problems.sentences)
    return (_instances(own, picture.shape, file) for own, picture in zip(found, pictures, strict=True))


def _entries_of(image_id: int | str, found: Instances, category_ids: Sequence[int]) -> Iterator[dict[str, object]]:
    """The results of one image."""
    if len(found) and not 1 <= found.classes.min() <= found.classes.max() <= len(category_ids):
        raise InputError(
            f"Image {image_id}: objects have the classes {found.classes.min()} to {found.classes.max()}, but there are "
            f"{len(category_ids)} category ids; give one for each class."
        )
    shape = found.labels.shape[0], found.labels.shape[1]
    for runs, class_number, score in zip(runs_of(found), found.classes.tolist(), found.scores.tolist(), strict=True):
        yield {
            "image_id": image_id,
            "category_id": int(category_ids[class_number - 1]),
            "segmentation": segmentation(runs, shape),
            "score": score,
        }


def _place_of(entry: object, places: dict[int | str, int]) -> int:
    """Index of the image that a result belongs to."""
    if not isinstance(entry, dict):
        raise InputError("must be an object of image_id, category_id, segmentation and score")
    number = entry.get("image_id")
    if not is_id(number) or number not in places:
        raise InputError(f"its image_id {shown(number)} is not in the data set")
    return places[number]


def _read_entry(
    entry: dict[str, object], position: int, size: tuple[int, int] | None, category_ids: tuple[int, ...]
) -> _Found:
    """One result, its runs not yet expanded."""
    category, score = entry.get("category_id"), as_number(entry.get("score"))
    if not is_whole(category) or category not in category_ids:
        known = ", ".join(map(str, category_ids[:10])) + (", …" if len(category_ids) > 10 else "")
        raise InputError(f"its category_id {shown(category)} is not in the data set, which has {known}")
    if score is None:
        raise InputError(f"its score {shown(entry.get('score'))} is no number")
    if not 0 <= score <= 1:
        raise InputError(f"its score {score:g} does not lie between 0 and 1")
    return _Found(position, category_ids.index(category) + 1, read_outline(entry.get("segmentation"), size), score)


def _instances(found: list[_Found], shape: tuple[int, int], file: Path) -> Instances:
    """The objects of one image."""
    masks = []
    for one in found:
        try:
            masks.append(one.outline.runs_as_coco(shape))
        except InputError as error:
            raise InputError(f"{file}: result {one.position}: {error}") from error
    scores = np.array([one.score for one in found], np.float64)
    labels = np.zeros(shape, np.int32)
    for k in np.argsort(-scores, kind="stable")[::-1]:
        mask, place = decode_columns(masks[k], shape)
        labels[place][mask] = k + 1
    classes = np.array([one.class_number for one in found], np.int32)
    return Instances(labels, classes, scores, tuple(masks))
