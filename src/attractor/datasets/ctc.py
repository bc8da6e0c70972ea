"""Films of the Cell Tracking Challenge as annotated images: every frame with outlines is one, and knows its objects.

    01/           t000.tif …                          the frames
    01_GT/SEG/    man_seg000.tif …                    outlines, of all frames or of some
    01_GT/TRA/    man_track000.tif …, man_track.txt   numbers that objects keep, and who divided
    01_ST/SEG/    man_seg000.tif …                    outlines that computers have agreed on, for the other frames

Where there are no outlines, the masks of the tracks are taken for them. An object's number is that of the mask of
tracks which covers most of it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import tifffile
from jaxtyping import Int, Int32

from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.sample import Dataset, Earlier, Sample, distinct, refuse
from attractor.datasets.tracked import LISTS, MOST_TRACKS, OUTLINES, TRUTH, listed, numbered, read_list
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, made, read_image, read_labels, write_image
from attractor.instances import overlap, relabel
from attractor.tracks import Track

GOLD, SILVER = "_GT", "_ST"  # after the name of a film: outlines by people, and by computers


@dataclass(frozen=True)
class _Film:
    """The files of a film, by frame."""

    name: str
    images: Mapping[int, Path]
    outlines: Mapping[int, Path]
    masks: Mapping[int, Path]  # of tracks
    parents: Mapping[int, int]  # of tracks that have one

    def labelled(self, frame: int) -> tuple[Int32[np.ndarray, "h w"], Int[np.ndarray, " k"]]:
        """The objects of a frame, and the number of each in all frames; 0 where it is not known."""
        file = self.outlines[frame]
        labels, ids = relabel(read_labels(file))
        if file != self.masks.get(frame):
            ids = np.zeros(len(ids), np.int64)
            if (mask_file := self.masks.get(frame)) is not None:
                mask = read_labels(mask_file)
                _check_size(mask_file, mask.shape, self.images[frame], labels.shape)
                ids = _numbers(labels, mask)
        return labels, ids


class Ctc:
    """The frames of one film or several."""

    layout: ClassVar[str] = (
        "films of the Cell Tracking Challenge: a folder with 01/t000.tif, 01_GT/TRA/man_track000.tif and so on"
    )
    holds: ClassVar[Holds] = Holds(classes=False)
    class_names: tuple[str, ...] = ("object",)

    def __init__(self, path: str | Path) -> None:
        """Find the frames that have outlines.

        Raises:
            InputError: if there is none, a mask has no frame, or a list of tracks cannot be; three problems are named.
        """
        refuse(self._open(Path(path)))

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[Ctc, list[str]]:
        """The data set of the frames that have outlines, and what is wrong with the rest."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path))

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder with a film and its truth."""
        return Evidence.STRUCTURE if _films_in(Path(path)) else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as the frames of one film, `01`, in their order; objects keep numbers where they are known.

        Raises:
            InputError: if a file cannot be written, two samples share a name, or there are more tracks than 16 bits
                hold.
        """
        images, tracks, outlines = (made(folder / part) for part in ("01", f"01{GOLD}/TRA", f"01{GOLD}/SEG"))
        known, before = dict[int, Track](), ("", np.zeros(0, np.int64))
        for frame, sample in enumerate(distinct(samples, folder)):
            ids = _continued(sample, frame, *before, known)
            if len(known) > MOST_TRACKS:
                raise InputError(
                    f"{folder}: the film has more than {MOST_TRACKS:,} tracks, which 16-bit masks cannot number; "
                    "write it in parts, or in another layout."
                )
            mask = np.append(0, ids).astype(np.uint16)[sample.labels]
            write_image(images / f"t{frame:03}.tif", sample.image)
            for file in (tracks / f"{TRUTH}{frame:03}.tif", outlines / f"{OUTLINES}{frame:03}.tif"):
                tifffile.imwrite(file, mask, compression="zlib", photometric="minisblack")
            before = sample.name, ids
        (tracks / LISTS[TRUTH]).write_text(listed(known.values()), encoding="ascii")

    def _open(self, path: Path) -> list[str]:
        """Find the files; what is wrong is returned, and left out."""
        films = _films_in(path)
        if not films:
            raise InputError(f"{path}: holds no film with its truth. Accepted is {self.layout}.")
        problems: list[str] = []
        self._films = [_film(folder, problems) for folder in films]
        self._frames = [(film, frame) for film in self._films for frame in sorted(film.outlines)]
        if not self._frames:
            problems.append(f"{path}: no frame has a mask with outlines.")
        self.names = tuple(_name(film, frame) for film, frame in self._frames)
        of_film = {name: film.name for name, (film, _) in zip(self.names, self._frames, strict=True)}
        self.columns = {"film": of_film} if len(films) > 1 else {}
        return problems

    def __len__(self) -> int:
        """Number of frames with outlines."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one frame and its objects, renumbered 1 to k.

        Raises:
            InputError: if a file cannot be read, or image and masks differ in size.
        """
        film, frame = self._frames[index]
        image, (labels, ids) = read_image(film.images[frame]), film.labelled(frame)
        _check_size(film.outlines[frame], labels.shape, film.images[frame], image.shape)
        earlier = None
        if frame - 1 in film.outlines:
            before, ids_before = film.labelled(frame - 1)
            if before.shape == labels.shape:
                earlier = Earlier(_name(film, frame - 1), _labels_before(film, ids, ids_before))
        classes, ignore = np.ones(len(ids), np.int32), np.zeros(labels.shape, bool)
        return Sample(self.names[index], image, labels, classes, ignore, earlier=earlier)


def _films_in(folder: Path) -> list[Path]:
    """The films of a folder that have a truth, each the folder of its frames."""
    if not folder.is_dir():
        return []
    truths = [part for part in sorted(folder.glob(f"?*{GOLD}")) if (part / "TRA").is_dir() or (part / "SEG").is_dir()]
    films = [part.with_name(part.name.removesuffix(GOLD)) for part in truths]
    return [film for film in films if film.is_dir()]


def _film(folder: Path, problems: list[str]) -> _Film:
    """The files of a film; what is wrong with them is added to the problems."""
    gold, silver = (folder.with_name(folder.name + ending) for ending in (GOLD, SILVER))
    images, masks = _numbered_images(folder, problems), _masks(gold / "TRA", TRUTH, problems)
    outlines = _masks(silver / "SEG", OUTLINES, problems) | _masks(gold / "SEG", OUTLINES, problems) or masks
    problems += [
        f"{file}: is of frame {frame}, but {folder} has no such frame."
        for frame, file in outlines.items()
        if frame not in images
    ]
    parents = dict[int, int]()
    if (file := gold / "TRA" / LISTS[TRUTH]).exists():
        try:
            parents = {track.id: track.parent for track in read_list(file, max(masks, default=-1) + 1) if track.parent}
        except InputError as error:
            problems.append(str(error))
    return _Film(folder.name, images, {k: file for k, file in outlines.items() if k in images}, masks, parents)


def _masks(folder: Path, prefix: str, problems: list[str]) -> dict[int, Path]:
    """The masks of a folder by frame; none if there is no such folder."""
    try:
        return numbered(folder, prefix) if folder.is_dir() else {}
    except InputError as error:
        problems.append(str(error))
        return {}


def _numbered_images(folder: Path, problems: list[str]) -> dict[int, Path]:
    """The frames of a film by number."""
    found = dict[int, Path]()
    for file in sorted(folder.iterdir()):
        match = re.fullmatch(r"\D*(\d+)", file.stem)
        if match is None or file.suffix.lower() not in IMAGE_SUFFIXES or file.name.startswith("."):
            continue
        other = found.setdefault(int(match[1]), file)
        if other is not file:
            problems.append(f"{folder}: {other.name} and {file.name} are both frame {match[1]}; remove one.")
    return found


def _name(film: _Film, frame: int) -> str:
    """What a frame is called among those of all films."""
    return f"{film.name}_{film.images[frame].stem}"


def _check_size(mask: Path, shape: tuple[int, ...], file: Path, image: tuple[int, ...]) -> None:
    if shape != image[:2]:
        raise InputError(
            f"{mask}: has {shape[0]} x {shape[1]} pixels, but its frame {file.name} has {image[0]} x {image[1]}; both "
            "must be of one size."
        )


def _numbers(labels: Int32[np.ndarray, "h w"], mask: Int32[np.ndarray, "h w"]) -> Int[np.ndarray, " k"]:
    """The number of the track whose mask covers most of each object; 0 if none covers any of it."""
    markers, ids = relabel(mask)
    table = overlap(labels, markers)[1:, 1:]
    if not len(ids):
        return np.zeros(len(table), np.int64)
    return np.where(table.any(1), ids[table.argmax(1)], 0).astype(np.int64)


def _labels_before(film: _Film, ids: Int[np.ndarray, " k"], before: Int[np.ndarray, " j"]) -> Int[np.ndarray, " k"]:
    """The label that each object, or the one that divided into it, has in the frame before; 0 if it is not there."""
    label_of = {number: label for label, number in enumerate(before.tolist(), 1) if number}
    return np.array([label_of.get(own) or label_of.get(film.parents.get(own, 0), 0) for own in ids.tolist()], np.int64)


def _continued(
    sample: Sample, frame: int, before: str, ids_before: Int[np.ndarray, " j"], tracks: dict[int, Track]
) -> Int[np.ndarray, " k"]:
    """An id for each object of a frame; the tracks go on, or new ones begin."""
    came = np.zeros(len(sample.classes), np.int64)  # the track that each comes from
    if sample.earlier is not None and sample.earlier.name == before:
        came = np.append(0, ids_before)[sample.earlier.labels]
    n_children = np.bincount(came, minlength=1)
    ids = came.copy()
    for k, origin in enumerate(came.tolist()):
        if origin and n_children[origin] == 1:
            tracks[origin] = replace(tracks[origin], end=frame)
        else:
            ids[k] = len(tracks) + 1
            tracks[int(ids[k])] = Track(int(ids[k]), frame, frame, origin)
    return ids
