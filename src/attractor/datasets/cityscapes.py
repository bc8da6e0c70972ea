"""Cityscapes: street scenes of 1024 x 2048 pixels with eight classes of objects, as downloaded.

ROOT/leftImg8bit/SPLIT/CITY/CITY_SEQUENCE_FRAME_leftImg8bit.png are the pictures (leftImg8bit_trainvaltest.zip), and
ROOT/gtFine/SPLIT/CITY/…_gtFine_instanceIds.png say what is on them (gtFine_trainvaltest.zip), 16 bits a pixel. A number
from 1000 on is an object of label number // 1000; a smaller one is a label. The label of an object's class marks a
group, in which objects were not told apart: a crowd. The other labels are background, or void: what the benchmark
leaves out.

For training, `Sample.ignore` holds whatever is neither a known object nor certainly background: void, groups, and the
caravans and trailers, which resemble trucks but are void to the benchmark. `annotate` gives what the official script
counts instead: groups as crowds, and as void only those numbers that are themselves void labels, so that a truck
found in a single caravan (29000) is wrong. It also gives each object's distance, the median over its pixels, if
ROOT/disparity and ROOT/camera exist and at least half of the pixels have a disparity; NaN otherwise.

ROOT/gtCoarse is read in the same way: rough outlines well inside objects, and most pixels unlabelled, hence ignored.
It serves to train on more pictures (train_extra has 20,000) before the fine annotations. It cannot measure outlines,
and most of what is found beside its objects is left out of the score. Pictures with both are read with gtFine; give
ROOT/gtCoarse/SPLIT for the other.

Results for the official script are one text file for each image, NAME_pred.txt, with a line for each object: the path
of its mask relative to the file, the number of its label, and its score. Masks are 8-bit images in which all but 0 is
the object.

Source: Cordts et al. 2016; https://github.com/mcordts/cityscapesScripts, `helpers/labels.py` for the labels and
`evaluation/evalInstanceLevelSemanticLabeling.py` for results.

Shapes: `h` rows, `w` columns, `k` objects, `n` numbers, `r` rows and `c` columns of a part of the image.
"""

from __future__ import annotations

import glob
import json
import math
import os
import re
import reprlib
import struct
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float, Int, Int32, UInt8
from PIL import Image
from scipy import ndimage

from attractor.datasets.layout import Evidence, Holds, ResultsForm, several_splits
from attractor.datasets.names import check_stem
from attractor.datasets.polygons import Box, encode_in_box
from attractor.datasets.sample import Dataset, Sample
from attractor.errors import InputError
from attractor.images import atomic, image_suffix, made, read_image, read_labels, write_image, write_labels
from attractor.instances import Annotations, Instances, decode_mask, encode_masks, relabel

LABELS = {"person": 24, "rider": 25, "car": 26, "truck": 27, "bus": 28, "train": 31, "motorcycle": 32, "bicycle": 33}
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)  # "ignoreInEval" of the official table
LAST_LABEL = 33
ROAD = 7  # what background is written as: a label that counts and has no objects
MOST_OF_A_CLASS = 999  # objects of an image that can be numbered

_PICTURES, _TRUTHS = "leftImg8bit", ("gtFine", "gtCoarse")
_PICTURE_ENDING = "_leftImg8bit.png"
_PNG = b"\x89PNG\r\n\x1a\n"
_MOST_PIXELS = 1 << 26  # of a mask that is read the fast way


@dataclass(frozen=True)
class _Place:
    """What a path says about where to look."""

    root: Path
    folder: str | None = None  # leftImg8bit, gtFine or gtCoarse, where the path leads into one
    split: str | None = None
    city: str | None = None


@dataclass(frozen=True)
class _Files:
    """The files of one picture; the last two need not exist."""

    picture: Path
    numbers: Path
    disparity: Path
    camera: Path


class Cityscapes:
    """One split of Cityscapes, or one city of it."""

    layout: ClassVar[str] = (
        "a folder with leftImg8bit/ and gtFine/ or gtCoarse/, or a split in it such as leftImg8bit/train"
    )
    holds: ClassVar[Holds] = Holds(ignore=True, crowds=True)
    results: ClassVar[ResultsForm] = ResultsForm(
        "a folder of *_pred.txt and masks",
        recognises=lambda path: any(re.match(r"[^_]+_\d+_\d+", file.name) for file in path.rglob("*.txt")),
        takes=lambda path: not path.is_file(),
    )
    class_names: tuple[str, ...] = tuple(LABELS)

    def __init__(self, path: str | Path) -> None:
        """Pair the files.

        Args:
            path: ROOT/leftImg8bit/SPLIT, ROOT/gtFine/SPLIT or ROOT/gtCoarse/SPLIT, a city's folder in one of these, or
                ROOT itself if only one split is annotated.

        Raises:
            InputError: if folders or partners are missing, there are several splits to choose from, or there is no
                public truth.
        """
        problems = self._pair(Path(path), shown=3)
        if problems:
            raise InputError("\n".join(problems))

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[Cityscapes, list[str]]:
        """The data set of those pictures that are annotated, and what is wrong with the others."""
        dataset = cls.__new__(cls)
        return dataset, dataset._pair(Path(path), shown=10)

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder of Cityscapes, or lies in one."""
        root = _placed(Path(path)).root
        is_such = Path(path).is_dir() and any((root / folder).is_dir() for folder in (_PICTURES, *_TRUTHS))
        return Evidence.STRUCTURE if is_such else Evidence.NONE

    @staticmethod
    def splits(path: str | Path) -> dict[str, Path]:
        """The annotated splits of a root folder."""
        place = _placed(Path(path))
        if place.split is not None:
            return {}
        names = dict.fromkeys(split for _, split in _public(place))
        return {split: place.root / (place.folder or _PICTURES) / split for split in names}

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_cityscapes` does."""
        write_cityscapes(folder, samples, described.class_names)

    def _pair(self, path: Path, shown: int) -> list[str]:
        """Find the pictures and their annotations, and say what has no partner."""
        place = _placed(path)
        truth, split = _chosen(place)
        picture_folder, number_folder = place.root / _PICTURES / split, place.root / truth / split
        number_ending = f"_{truth}_instanceIds.png"
        pictures = _by_stem(picture_folder, place.city, _PICTURE_ENDING)
        numbers = _by_stem(number_folder, place.city, number_ending)
        self._files = []
        for city, stem in sorted(pictures.keys() & numbers.keys()):
            beside = [
                place.root / kind / split / city / f"{stem}_{kind}{suffix}"
                for kind, suffix in (("disparity", ".png"), ("camera", ".json"))
            ]
            self._files.append(_Files(pictures[city, stem], numbers[city, stem], *beside))
        self.names = tuple(files.picture.stem for files in self._files)
        self.columns = {"city": {files.picture.stem: files.picture.parent.name for files in self._files}}
        return [
            *_unpaired(pictures, numbers, picture_folder, f"*{number_ending} in {number_folder}", shown),
            *_unpaired(numbers, pictures, number_folder, f"*{_PICTURE_ENDING} in {picture_folder}", shown),
        ]

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its objects, numbered 1 to k.

        Raises:
            InputError: if a file cannot be read, the two differ in size, or a number is not a label's.
        """
        files = self._files[index]
        image, (places, numbers) = read_image(files.picture), _read_numbers(files.numbers)
        if image.shape[:2] != places.shape:
            raise InputError(
                f"{files.numbers}: has {places.shape[0]} x {places.shape[1]} pixels, but its image "
                f"{files.picture.name} has {image.shape[0]} x {image.shape[1]}; both must have the same rows and "
                "columns."
            )
        classes, is_object = _class_numbers(numbers), numbers >= 1000
        is_known = (classes > 0) & is_object
        own = np.where(is_known, np.cumsum(is_known), 0).astype(np.int32)
        ignored = np.isin(_labels(numbers), VOID) | ((classes > 0) & ~is_object)
        return Sample(
            self.names[index],
            image,
            own[places],
            classes[is_known],
            ignored[places],
            partial(_annotations, files),
        )

    def read_results(self, path: Path) -> Iterator[Instances]:
        """What a folder of results says was found in each image, as `read_cityscapes_results` reads it."""
        return read_cityscapes_results(path, self)

    def write_results(self, path: Path, found: Iterable[tuple[str, Instances]]) -> None:
        """Write what was found as `write_cityscapes_results` does."""
        for name, one in found:
            write_cityscapes_results(path, name, one, self.class_names)

    def annotations(self, index: int) -> Annotations:
        """The objects of one image, then its groups, as the official script counts them.

        Raises:
            InputError: if a file cannot be read, a number is not a label's, or distances lack this image.
        """
        return _annotations(self._files[index])

    def size(self, index: int) -> tuple[int, int]:
        """Rows and columns of an image, without reading it whole.

        Raises:
            InputError: if its instanceIds file is missing or not a PNG.
        """
        height, width, _ = _png_header(self._files[index].numbers)
        return height, width


def write_cityscapes(path: str | Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Write samples as the split train of a folder in this layout, each named CITY_SEQUENCE_FRAME.

    Ignored pixels become unlabelled, which is void; background becomes road, as its true label is not known. A name in
    another form becomes the CITY, followed by 000000 twice, and its image goes to the folder of a city "images".

    Raises:
        InputError: if Cityscapes lacks a class, two samples have the same name, an image has more than MOST_OF_A_CLASS
            objects of a class or cannot be a PNG, or a file cannot be written.
    """
    path, labels = Path(path), _label_numbers(class_names, str(path))
    written: set[str] = set()
    for sample in samples:
        check_stem(sample.name, path)
        city, stem = _official_name(sample.name)
        if stem in written:
            raise InputError(
                f"{path}: two images are named {stem}, one of them from {sample.name!r}; rename it, as the second "
                "would replace the first."
            )
        written.add(stem)
        if image_suffix(sample.image) != ".png":
            raise InputError(
                f"{path}: {sample.name} has {sample.image.shape[2]} channels of {sample.image.dtype}, but pictures of "
                "Cityscapes are PNG: 8-bit grey or RGB, or 16-bit grey; turn it into one of these."
            )
        numbers = _numbers_of(sample, labels, path)
        write_image(made(path / _PICTURES / "train" / city) / (stem + _PICTURE_ENDING), sample.image)
        write_labels(made(path / "gtFine" / "train" / city) / f"{stem}_gtFine_instanceIds.png", numbers)


# --- finding the files ------------------------------------------------------------------------------------------------


def _placed(path: Path) -> _Place:
    """Root, split and city from the last three folders of a path."""
    path = Path(os.path.abspath(path))  # "val" alone is looked up in the current folder
    for above in (path, *path.parents[:2]):
        if above.name in (_PICTURES, *_TRUTHS):
            return _Place(above.parent, above.name, *path.relative_to(above).parts)
    return _Place(path)


def _chosen(place: _Place) -> tuple[str, str]:
    """The folder of annotations and the split that a path stands for."""
    annotated = _annotated(place)
    public = _public(place)
    if annotated and not public:
        raise InputError(
            f"{place.root / annotated[0][0] / annotated[0][1]}: the test split has no public truth: all its pixels are "
            "void; use val, or have results scored on https://www.cityscapes-dataset.com."
        )
    if not public:
        truth = _truths(place)[0]
        wanted = place.root / truth / (place.split or "SPLIT") / "CITY"
        raise InputError(
            f"{place.root}: there is no {wanted / f'*_{truth}_instanceIds.png'}; unpack gtFine_trainvaltest.zip "
            "(or gtCoarse.zip) and leftImg8bit_trainvaltest.zip into one folder."
        )
    splits = [split for truth, split in public if truth == public[0][0]]  # gtFine wins
    if len(splits) > 1:
        folders = {split: place.root / (place.folder or _PICTURES) / split for split in splits}
        raise InputError(f"{place.root}: {several_splits(folders)}, or give its folder, such as {folders[splits[0]]}.")
    return public[0]


def _truths(place: _Place) -> tuple[str, ...]:
    """The folders of annotations that a path may mean, the better ones first."""
    return (place.folder,) if place.folder in _TRUTHS else _TRUTHS


def _annotated(place: _Place) -> list[tuple[str, str]]:
    """The folders of annotations that a path may mean, each with a split that is annotated there."""
    found = [(truth, split) for truth in _truths(place) for split in _splits(place.root / truth)]
    return [one for one in found if place.split in (None, one[1])]


def _public(place: _Place) -> list[tuple[str, str]]:
    """Those of them whose truth is public."""
    return [(truth, split) for truth, split in _annotated(place) if not _is_withheld(place.root / truth / split)]


def _splits(folder: Path) -> list[str]:
    """The folders below that hold annotations."""
    return sorted(split.name for split in folder.glob("[!.]*/") if _first_numbers(split) is not None)


def _first_numbers(split: Path) -> Path | None:
    """Some instanceIds file of a split."""
    return next((file for file in split.glob("[!.]*/[!.]*_instanceIds.png")), None)


def _is_withheld(split: Path) -> bool:
    """Whether it is the test split as downloaded: everything on its pictures is void."""
    file = _first_numbers(split) if split.name == "test" else None
    return file is not None and bool(np.isin(_read_numbers(file)[1][1:], VOID).all())


def _by_stem(split: Path, city: str | None, ending: str) -> dict[tuple[str, str], Path]:
    """The files of a split, or of one city in it, by city and the name that pictures and annotations share."""
    files = split.glob(f"{glob.escape(city) if city else '[!.]*'}/[!.]*{ending}")
    return {(file.parent.name, file.name.removesuffix(ending)): file for file in files}


def _unpaired(
    files: dict[tuple[str, str], Path], partners: dict[tuple[str, str], Path], folder: Path, lack: str, shown: int
) -> list[str]:
    """One sentence on the files without a partner, or on there being none at all."""
    if not files:
        return [f"{folder}: no such folder, or no picture or annotation of this split in it; unpack all of the data."]
    alone = [files[key].name for key in sorted(files.keys() - partners.keys())]
    if not alone or not partners:  # without any partner, the other folder's sentence says so
        return []
    more = f" and {len(alone) - shown} more" if len(alone) > shown else ""
    have = "1 file has" if len(alone) == 1 else f"{len(alone)} files have"
    return [f"{folder}: {have} no {lack}, in a folder of the same city: {', '.join(alone[:shown])}{more}."]


# --- annotations ------------------------------------------------------------------------------------------------------


def _read_numbers(file: Path) -> tuple[Int32[np.ndarray, "h w"], Int[np.ndarray, " n"]]:
    """Each pixel's place in a list of numbers, and that list, from 0 on."""
    places, numbers = relabel(read_labels(file))
    _, _, depth = _png_header(file)
    if depth != 16:
        raise InputError(
            f"{file}: has {depth} bits a pixel, too few for an object's number (24000 and more); it may be a "
            "*_labelIds.png under another name: give the 16-bit *_instanceIds.png."
        )
    numbers = np.concatenate([[0], numbers])
    unknown = numbers[_labels(numbers) > LAST_LABEL]
    if len(unknown):
        raise InputError(
            f"{file}: the number {unknown[0]} does not occur in Cityscapes; numbers are labels from 0 to "
            f"{LAST_LABEL}, or 1000 times one of them and the object's own number."
        )
    return places, numbers


def _annotations(files: _Files) -> Annotations:
    """The objects of one image, then its groups; not a method, so that samples are cheap to send to other processes."""
    places, numbers = _read_numbers(files.numbers)
    classes, is_crowd = _class_numbers(numbers), numbers < 1000
    order = np.argsort(is_crowd, kind="stable")
    order = order[classes[order] > 0]
    own = np.zeros(len(numbers), np.int32)
    own[order] = np.arange(1, len(order) + 1)
    regions = own[places]
    masks = tuple(encode_masks(regions, len(order)))
    return Annotations(
        masks,
        classes[order],
        is_crowd[order],
        np.array([mask[1::2].sum() for mask in masks], float),
        _distances(regions, len(order), files),
        np.isin(numbers, VOID)[places],
    )


def _png_header(file: Path) -> tuple[int, int, int]:
    """Rows, columns and bits a channel of a PNG."""
    try:
        with file.open("rb") as opened:
            start = opened.read(25)
    except OSError as error:
        raise InputError(f"{file}: cannot be read: {error.strerror}.") from error
    if len(start) < 25 or not start.startswith(_PNG):
        raise InputError(f"{file}: is not a PNG; download it again.")
    width, height, depth = struct.unpack_from(">IIB", start, 16)
    return height, width, depth


def _labels(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The label of each number."""
    return np.where(numbers >= 1000, numbers // 1000, numbers)


def _class_numbers(numbers: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n"]:
    """The class of each number, from 1; 0 for those of no class."""
    table = np.zeros(LAST_LABEL + 1, np.int32)
    table[list(LABELS.values())] = np.arange(1, len(LABELS) + 1)
    return table[_labels(numbers)]


def _distances(regions: Int32[np.ndarray, "h w"], n: int, files: _Files) -> Float[np.ndarray, " k"]:
    """The median distance of each region's pixels in metres; NaN where less than half of them have a disparity."""
    distances = np.full(n, np.nan)
    if not (files.disparity.parent.is_dir() and files.camera.parent.is_dir()):
        return distances
    disparity, reach = read_labels(files.disparity), _read_camera(files.camera)
    if disparity.shape != regions.shape:
        raise InputError(
            f"{files.disparity}: has {disparity.shape[0]} x {disparity.shape[1]} pixels, but {files.numbers.name} has "
            f"{regions.shape[0]} x {regions.shape[1]}; both must have the same rows and columns."
        )
    for k, box in enumerate(ndimage.find_objects(regions, n)):
        own = disparity[box][regions[box] == k + 1]
        known = own[own > 0]  # 0 is an unknown disparity; 1 is a disparity of 0 pixels, infinitely far away
        if 2 * len(known) >= len(own):
            with np.errstate(divide="ignore"):
                distances[k] = np.median(reach / ((known - 1) / 256))
    return distances


def _read_camera(file: Path) -> float:
    """Baseline times focal length: the distance in metres at a disparity of one pixel."""
    try:
        camera = json.loads(file.read_bytes())
        numbers = camera["extrinsic"]["baseline"], camera["intrinsic"]["fx"]
        if not {type(number) for number in numbers} <= {int, float}:
            raise TypeError("text or a boolean where a number should be")
        reach = float(numbers[0]) * float(numbers[1])
    except OSError as error:
        raise InputError(
            f"{file}: cannot be read: {error.strerror}; unpack all of camera_trainvaltest.zip, or move the folder "
            "camera away to do without distances."
        ) from error
    except (ValueError, TypeError, LookupError, OverflowError, RecursionError) as error:
        raise InputError(f"{file}: does not give extrinsic.baseline and intrinsic.fx; download it again.") from error
    if not 0 < reach < math.inf:
        raise InputError(f"{file}: baseline times fx is {reach}; both must be above 0. Download it again.")
    return reach


# --- writing ----------------------------------------------------------------------------------------------------------


def _label_numbers(class_names: Sequence[str], where: str) -> Int[np.ndarray, " n"]:
    """The label of each class, from place 1 on; place 0 has that of background."""
    unknown = [name for name in class_names if name not in LABELS]
    if unknown:
        raise InputError(
            f"{where}: {', '.join(map(reprlib.repr, unknown[:3]))} cannot be written, as Cityscapes has the classes "
            f"{', '.join(LABELS)}; rename the classes, or leave others out."
        )
    return np.array([ROAD, *(LABELS[name] for name in class_names)])


def _official_name(name: str) -> tuple[str, str]:
    """A city's folder and CITY_SEQUENCE_FRAME, as the official script splits names."""
    stem = name.removesuffix(Path(_PICTURE_ENDING).stem)
    city, *numbers = stem.split("_")
    if city and len(numbers) == 2 and all(number.isdigit() for number in numbers):
        return city, stem
    return "images", f"{name.replace('_', '-')}_000000_000000"


def _numbers_of(sample: Sample, labels: Int[np.ndarray, " n"], path: Path) -> Int[np.ndarray, "h w"]:
    """What an instanceIds file holds."""
    numbers, counts = labels[np.concatenate([[0], sample.classes])], np.bincount(sample.classes, minlength=1)
    if counts.max() > MOST_OF_A_CLASS:
        raise InputError(
            f"{path}: {sample.name} has {counts.max()} objects of one class, but Cityscapes can number "
            f"{MOST_OF_A_CLASS}; cut the image into parts, or write another format."
        )
    for class_number in np.unique(sample.classes):
        own = 1 + np.flatnonzero(sample.classes == class_number)
        numbers[own] = 1000 * numbers[own] + np.arange(1, len(own) + 1)
    found = np.where(sample.ignore, 0, numbers[sample.labels])
    if sample.annotate is not None:
        given = sample.annotate()
        for k in np.flatnonzero(given.is_crowd):  # a group has the number of its label
            found[decode_mask(given.masks[k], found.shape) & (sample.labels == 0)] = labels[given.classes[k]]
    return found


# --- results ----------------------------------------------------------------------------------------------------------


def write_cityscapes_results(folder: str | Path, name: str, found: Instances, class_names: Sequence[str]) -> None:
    """Write what was found in one image as the official script reads it: NAME_pred.txt, masks/NAME_0.png and so on.

    The script finds the file by itself if the name begins with CITY_SEQUENCE_FRAME, as those of its pictures do. Each
    object has a mask of its own, so their number has no limit, and scores keep all their digits.

    Args:
        folder: is made if it is not there.
        name: the image's stem.
        found: the objects.
        class_names: name of class 1, 2, …

    Raises:
        InputError: if a class is not one of Cityscapes, the name has a space or a slash, or a file cannot be written.
    """
    folder, labels = Path(folder), _label_numbers(class_names, str(folder))
    if not name or any(sign.isspace() or sign in "/\\" for sign in name):
        raise InputError(
            f"{folder}: an image is named {name!r}; results can name no file with a space or slash: rename it."
        )
    masks, lines = made(folder / "masks"), []
    for k, (class_number, score) in enumerate(zip(found.classes, found.scores, strict=True)):
        file = masks / f"{name}_{k}.png"
        _write_mask(file, found.mask(k + 1))
        lines.append(f"{masks.name}/{file.name} {labels[class_number]} {float(score)!r}\n")
    with atomic(folder / f"{name}_pred.txt") as temporary:  # last, so that its masks are there
        temporary.write_text("".join(lines), encoding="utf-8")


def _write_mask(file: Path, mask: Bool[np.ndarray, "h w"]) -> None:
    """A mask as 0 and 255. It has only long runs to compress: looking for nothing else halves the time."""
    with atomic(file) as temporary:
        Image.fromarray(mask * np.uint8(255)).save(temporary, "PNG", compress_type=zlib.Z_RLE)


def read_cityscapes_results(folder: str | Path, dataset: Cityscapes) -> Iterator[Instances]:
    """What somebody's results folder says was found in each image, in the data set's order.

    As in the official script, an image's text file is any in the folder or below whose name begins with
    CITY_SEQUENCE_FRAME; of two lines with the same mask the second counts; and labels other than those of the eight
    classes are ignored. Masks may overlap.

    Raises:
        InputError: at once if an image has no text file or several; at each image if a line cannot be used.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder; give the one with a *_pred.txt for each image.")
    texts: dict[str, list[Path]] = {}
    for text in sorted(folder.rglob("*.txt")):
        texts.setdefault(_frame(text.stem), []).append(text)
    found = [texts.get(_frame(name), []) for name in dataset.names]
    missing = [_frame(name) for name, own in zip(dataset.names, found, strict=True) if not own]
    if missing:
        more = f" and {len(missing) - 3} more" if len(missing) > 3 else ""
        raise InputError(
            f"{folder}: {len(missing)} of {len(found)} images have no results: {', '.join(missing[:3])}{more}. There "
            "must be a text file for each, its name beginning so, empty if nothing was found."
        )
    for own in found:
        if len(own) > 1:
            raise InputError(f"{folder}: {own[0].name} and {own[1].name} are results of one image; remove one.")
    return (_read_results(own[0], folder, dataset.size(index)) for index, own in enumerate(found))


def _frame(name: str) -> str:
    """CITY_SEQUENCE_FRAME of a file's name."""
    return "_".join(name.split("_")[:3])


def _read_results(text: Path, folder: Path, shape: tuple[int, int]) -> Instances:
    """The objects that a text file lists."""
    lines = [(file, label, score) for file, (label, score) in _read_lines(text, folder).items() if label > 0]
    parts = [_read_mask(file, shape) for file, _, _ in lines]
    scores = np.array([score for _, _, score in lines], float)
    labels = np.zeros(shape, np.int32)
    for k in np.argsort(-scores, kind="stable")[::-1]:  # as Instances.from_masks does, without masks of all pixels
        mask, box = parts[k]
        labels[box][mask] = k + 1
    classes = np.array([class_number for _, class_number, _ in lines], np.int32)
    return Instances(labels, classes, scores, tuple(encode_in_box(*part, shape) for part in parts))


def _read_lines(text: Path, folder: Path) -> dict[Path, tuple[int, float]]:
    """Class and score of each mask; class 0 marks one to pass over."""
    try:
        lines = text.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{text}: cannot be read as text ({error}); write it in UTF-8.") from error
    objects: dict[Path, tuple[int, float]] = {}
    for number, line in enumerate(lines, 1):
        if line.strip():
            file, class_number, score = _read_line(line, text, f"{text}, line {number}")
            if os.path.isabs(line.split()[0]) or not file.is_relative_to(os.path.abspath(folder)):
                raise InputError(
                    f"{text}, line {number}: the mask {line.split()[0]} leads out of {folder}; give a path in it, "
                    "relative to the text file."
                )
            objects[file] = class_number, score
    return objects


def _read_line(line: str, text: Path, where: str) -> tuple[Path, int, float]:
    """Mask, class and score."""
    words = line.split()
    try:
        path, label, score = words[0], int(float(words[1])), float(words[2])
        is_usable = len(words) == 3 and 0 <= score <= 1 and "\0" not in path
    except (ValueError, LookupError, OverflowError):
        is_usable = False
    if not is_usable:
        raise InputError(
            f"{where}: {line[:80]!r} cannot be read; a line is the mask's path without spaces, the number of the label "
            "and the score, 0 to 1, as in masks/aachen_0.png 26 0.98."
        )
    if not 0 <= label <= LAST_LABEL:
        known = ", ".join(f"{number} {name}" for name, number in LABELS.items())
        raise InputError(f"{where}: the label {label} is not that of an object in Cityscapes; objects have {known}.")
    return Path(os.path.abspath(text.parent / path)), int(_class_numbers(np.array([label]))[0]), score


# --- masks ------------------------------------------------------------------------------------------------------------


def _read_mask(file: Path, shape: tuple[int, int]) -> tuple[Bool[np.ndarray, "r c"], Box]:
    """The object in a mask file, and the box of its pixels.

    Nearly all of a mask is empty, and a benchmark has thousands of them. So a PNG in the usual form is unpacked only
    where it has pixels, in a tenth of the time; any other, or one with a fault, goes to `read_image`.
    """
    packed = _packed_rows(file)
    if packed is not None and packed[:, 0].max() <= 2:
        own = len(packed), packed.shape[1] - 1
        mask, box = _unpacked(packed)
    else:
        mask = (read_image(file) != 0).any(2)
        own, box = mask.shape, (slice(0, len(mask)), slice(0, mask.shape[1]))
    if own != shape:
        raise InputError(
            f"{file}: has {own[0]} x {own[1]} pixels, but its image has {shape[0]} x {shape[1]}; a mask must have its "
            "image's rows and columns."
        )
    return mask, box


def _packed_rows(file: Path) -> UInt8[np.ndarray, "h _"] | None:
    """The rows of an 8-bit grey PNG as stored, each after a byte for its kind of packing; None for any other file."""
    try:
        import imagecodecs  # not installed everywhere, and slow to import

        content = file.read_bytes()
        signature, width, height, *form = struct.unpack_from(">8s8xIIBBBBB", content)
        if signature != _PNG or form != [8, 0, 0, 0, 0] or not 0 < width * height <= _MOST_PIXELS:
            return None
        size = height * (1 + width)
        rows = imagecodecs.deflate_decode(b"".join(_pixel_chunks(content)), out=size)  # tests the checksum, too
    except (ImportError, OSError, RuntimeError, ValueError, struct.error):
        return None
    return np.frombuffer(rows, np.uint8).reshape(height, 1 + width) if len(rows) == size else None


def _pixel_chunks(content: bytes) -> Iterator[bytes]:
    """The parts of a PNG that hold its pixels."""
    position = 8
    while position + 12 <= len(content):
        (length,) = struct.unpack_from(">I", content, position)
        if content[position + 4 : position + 8] == b"IDAT":
            yield content[position + 8 : position + 8 + length]
        position += 12 + length


def _unpacked(packed: UInt8[np.ndarray, "h _"]) -> tuple[Bool[np.ndarray, "r c"], Box]:
    """Where there are pixels, and the rows and columns that can have some.

    A row is stored as it is (0), as differences from the pixel on the left (1), or from the row above (2), modulo 256.
    Source: https://www.w3.org/TR/png-3/#9Filters.
    """
    kinds, used = packed[:, 0], np.flatnonzero(packed[:, 1:].any(1))
    if not len(used):
        return np.zeros((0, 0), bool), (slice(0, 0), slice(0, 0))
    top, last = int(used[0]), int(used[-1])
    ends = np.flatnonzero(kinds[last + 1 :] != 2)  # until then, rows repeat the last one
    bottom = last + 1 + int(ends[0]) if len(ends) else len(kinds)
    kinds, rows = kinds[top:bottom], packed[top:bottom, 1:].copy()
    rows[kinds == 1] = np.cumsum(rows[kinds == 1], axis=1, dtype=np.uint8)
    columns = np.flatnonzero(rows.any(0))
    left, right = int(columns[0]), int(columns[-1]) + 1
    sums = np.cumsum(rows[:, left:right], axis=0, dtype=np.uint8)
    start = np.maximum.accumulate(np.where(kinds == 2, 0, np.arange(len(kinds))))  # the row that each builds on
    before = np.concatenate([np.zeros_like(sums[:1]), sums])[start]
    return sums != before, (slice(top, bottom), slice(left, right))
