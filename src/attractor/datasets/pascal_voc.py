"""Pascal VOC 2012 as downloaded, and SBD, which annotates more images of VOC in the same classes.

VOC has two palette PNGs for each image whose indices count, not their colours: `SegmentationObject` numbers the
objects, `SegmentationClass` has the class of each pixel. In both, 0 is background and 255 void: the band around
objects and what was too hard to label. The class of an object is the one that most of its pixels have, void aside, and
the lower number in a tie. Void becomes `ignore`, as do pixels of a class that belong to no object. Where the folder
has a `labelmap.txt`, a line `name:colour:parts:actions` for each index from the background on, its names replace VOC's.

SBD has one MATLAB file for each image, in which `GTinst.Segmentation` numbers the objects and `GTinst.Categories` has
the class of each. It knows no void: 255 is an object like any other. Its lists are not VOC's: SBD's train.txt holds
images of VOC's val.txt. Any list of stems in the folder can be read, train_noval.txt for one, which leaves those out.

Source: Everingham et al. 2010 (doi:10.1007/s11263-009-0275-4) and the VOC 2012 development kit; Hariharan et al. 2011
(doi:10.1109/ICCV.2011.6126343) for SBD.

Shapes: `h` rows, `w` columns, `k` objects.
"""

from __future__ import annotations

import reprlib
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path, PureWindowsPath
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Int, Int32, Shaped, UInt8
from PIL import Image

from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.names import check_class_names
from attractor.datasets.sample import Dataset, Sample, distinct, refuse
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, atomic, image_suffix, made, read_image, read_labels, write_image
from attractor.instances import relabel

VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor",
)  # fmt: skip
VOID = 255

_NUMBERS = {1: "i1", 2: "u1", 3: "<i2", 4: "<u2", 5: "<i4", 6: "<u4", 7: "<f4", 9: "<f8", 12: "<i8", 13: "<u8"}
_LONGEST_NAME = 255  # bytes of a file's name, on any system
_MOST_BYTES = 1 << 24  # that the compressed data of a MATLAB file may become; images of SBD have 500 x 500 pixels
_COMPRESSED = 15  # the type of an element of a MATLAB file; _NUMBERS has those of numbers
_STRUCT, _NUMERIC = 2, range(6, 16)  # the classes of an array of a MATLAB file


@dataclass(frozen=True)
class _Layout:
    """Where a data set keeps its files, relative to its folder."""

    images: str
    truth: tuple[tuple[str, str], ...]  # folder and suffix of each file of an image's annotations
    lists: str

    def fits(self, root: Path) -> bool:
        """Whether a folder is laid out like this, as far as a first look tells."""
        return (root / self.images).is_dir() and (root / self.truth[0][0]).is_dir()

    def image(self, root: Path, stem: str) -> Path | None:
        """The image of that stem; VOC's own suffix first."""
        files = (root / self.images / (stem + suffix) for suffix in (".jpg", *IMAGE_SUFFIXES))
        return next((file for file in files if file.is_file()), None)

    def annotations(self, root: Path, stem: str) -> tuple[Path, ...]:
        """The files that annotate the image of that stem."""
        return tuple(root / folder / (stem + suffix) for folder, suffix in self.truth)


_VOC = _Layout("JPEGImages", (("SegmentationObject", ".png"), ("SegmentationClass", ".png")), "ImageSets/Segmentation")
_SBD = _Layout("img", (("inst", ".mat"),), "")


class PascalVoc:
    """Images annotated as in Pascal VOC, or by SBD."""

    layout: ClassVar[str] = (
        "Pascal VOC: a list such as VOC2012/ImageSets/Segmentation/val.txt, a folder such as VOC2012, or the VOCdevkit "
        "that holds it; of SBD, benchmark_RELEASE, its dataset/, or a list in that"
    )
    holds: ClassVar[Holds] = Holds(ignore=True)

    def __init__(self, path: str | Path) -> None:
        """Look for the files of every image that the lists name.

        Args:
            path: a list of stems, or a folder: then trainval.txt is read, or train.txt and val.txt if it is missing,
                and the column `split` says which of these two an image is in.

        Raises:
            InputError: if a list cannot be read, or an image or its annotations are missing; the first three are named.
        """
        problems = self._open(Path(path))
        refuse(problems)
        if not self.names:
            raise InputError(f"{path}: names no image; a list has one stem on each line, such as 2007_000032.")

    @classmethod
    def salvage(cls, path: str | Path) -> tuple[PascalVoc, list[str]]:
        """The data set of those images that are there with their annotations, and what is wrong with the others."""
        dataset = cls.__new__(cls)
        return dataset, dataset._open(Path(path))

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a list or a folder of VOC or SBD."""
        return Evidence.STRUCTURE if _places(Path(path)) else Evidence.NONE

    @staticmethod
    def splits(path: str | Path) -> dict[str, Path]:
        """The lists of a folder."""
        if Path(path).is_file():
            return {}
        layout, root = _place(Path(path))
        return {file.stem: file for file in sorted((root / layout.lists).glob("*.txt"))}

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_pascal_voc` does."""
        write_pascal_voc(folder, samples, described.class_names)

    def _open(self, path: Path) -> list[str]:
        """Find the files; what is wrong is returned, and left out."""
        layout, root = _place(path)
        self._read = _read_voc if layout is _VOC else _read_sbd
        splits = _splits(path, root / layout.lists)
        problems: list[str] = []
        stems = {name: _read_list(file, problems) for name, file in splits.items()}
        every = stems["trainval"] if "trainval" in stems else [stem for part in stems.values() for stem in part]
        self._files = _find_files(layout, root, dict.fromkeys(every), problems)
        self.names = tuple(self._files)
        self.class_names = _read_class_names(root / "labelmap.txt")
        by_stem = {stem: part for part in stems if part in ("train", "val") for stem in stems[part]}
        split = {name: by_stem[name] for name in self.names if name in by_stem}
        self.columns = {"split": split} if split and path.is_dir() else {}
        return problems

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        """Read one image and its objects.

        Raises:
            InputError: if a file cannot be read, files differ in size, or an object has no class or one out of range.
        """
        name = self.names[index]
        file, truth = self._files[name]
        image, n = read_image(file), len(self.class_names)
        labels, classes, ignore = self._read(truth, n)
        if labels.shape != image.shape[:2]:
            raise InputError(_sizes_differ(truth[0], labels.shape, f"its image {file.name}", image.shape))
        return Sample(name, image, labels, classes, ignore)


def write_pascal_voc(
    folder: str | Path, samples: Iterable[Sample], class_names: Sequence[str], *, split: str = "trainval"
) -> None:
    """Write samples as in VOC2012, with a list named by `split` and the classes in labelmap.txt.

    Classes have VOC's numbers where all names are VOC's, and else count from 1. Images are kept without loss, as PNG or
    TIFF; programs that look for .jpg alone need them converted.

    Raises:
        InputError: if a file cannot be written, two samples have the same name, or there are more than 254 classes, or
            objects in an image: indices end at 254, as 255 is void.
    """
    folder, written = Path(folder), list[str]()
    check_class_names(class_names, folder)
    if unfit := [name for name in class_names if name.startswith("#") or [name] != name.strip().splitlines()]:
        raise InputError(
            f"{folder}: {reprlib.repr(unfit[0])} cannot stand in labelmap.txt, where a line is a class and # begins a "
            "comment; rename the class."
        )
    names = VOC_CLASSES if set(class_names) <= set(VOC_CLASSES) else tuple(class_names)
    if len(names) >= VOID:
        raise InputError(f"{folder}: {len(names)} classes; the palette images of Pascal VOC hold {VOID - 1} at most.")
    numbers = np.array([0, *(names.index(name) + 1 for name in class_names)])
    for part in (_VOC.images, *(name for name, _ in _VOC.truth), _VOC.lists):
        made(folder / part)
    for sample in distinct(samples, folder):
        if sample.name != sample.name.strip().removeprefix("\ufeff"):
            raise InputError(
                f"{folder}: the image {sample.name!r} cannot stand in a list of stems, as spaces around them are not "
                "kept; rename the image."
            )
        _write_sample(folder, sample, numbers)
        written.append(sample.name)
    colours = [":".join([name, ",".join(map(str, _palette()[k])), "", ""]) for k, name in enumerate(names, 1)]
    _write_lines(folder / "labelmap.txt", ["background:0,0,0::", *colours])
    _write_lines(folder / _VOC.lists / f"{split}.txt", written)


# --- which files there are --------------------------------------------------------------------------------------------


def _places(path: Path) -> list[tuple[_Layout, Path]]:
    """The layouts and folders that a list, a folder, or a folder around it may mean."""
    if path.is_file():
        if path.suffix.lower() != ".txt":
            return []
        folders = [(_VOC, path.parent.parent.parent), (_SBD, path.parent)]
        return [(kind, root) for kind, root in folders if root / kind.lists == path.parent and kind.fits(root)]
    for roots in ([path], sorted(path.glob("VOC20??")), [path / "dataset"]):
        if found := [(kind, root) for root in roots for kind in (_VOC, _SBD) if kind.fits(root)]:
            return found
    return []


def _place(path: Path) -> tuple[_Layout, Path]:
    """The one layout and folder that a path means."""
    found = _places(path)
    if not found:
        raise InputError(f"{path}: is not laid out like Pascal VOC or SBD. Accepted is {PascalVoc.layout}.")
    if len(found) > 1:
        raise InputError(f"{path}: holds {' and '.join(root.name for _, root in found)}; give one of them.")
    return found[0]


def _splits(path: Path, folder: Path) -> dict[str, Path]:
    """The lists to read, by name."""
    if path.is_file():
        return {path.stem: path}
    names = ("trainval", "train", "val")
    found = {name: folder / f"{name}.txt" for name in names if (folder / f"{name}.txt").is_file()}
    if not found:
        raise InputError(f"{folder}: holds none of trainval.txt, train.txt and val.txt; give the list to read.")
    return found


def _read_list(file: Path, problems: list[str]) -> list[str]:
    """The stems in a list, one on each line; those that cannot be used are added to the problems."""
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a list of stems ({error}); save it as text in UTF-8.") from error
    stems: dict[str, None] = {}
    for stem in filter(None, lines):
        if stem in stems:
            problems.append(f"{file}: names {stem!r} twice; remove one.")
        elif _is_too_long(stem):
            problems.append(f"{file}: its entry {reprlib.repr(stem)} is longer than a file's name can be.")
        elif _leaves_folder(stem):
            problems.append(f"{file}: its entry {reprlib.repr(stem)} leads out of the folder; a list has only stems.")
        else:
            stems[stem] = None
    return list(stems)


def _leaves_folder(stem: str) -> bool:
    """Whether an entry is more than a file's name, on any system."""
    return stem == ".." or "\0" in stem or PureWindowsPath(stem).name != stem


def _is_too_long(stem: str) -> bool:
    """Whether no file system can have a file of that stem."""
    return len(stem.encode()) > _LONGEST_NAME


def _find_files(
    layout: _Layout, root: Path, stems: Iterable[str], problems: list[str]
) -> dict[str, tuple[Path, tuple[Path, ...]]]:
    """Image and annotations of each stem; those that lack a file are added to the problems."""
    found: dict[str, tuple[Path, tuple[Path, ...]]] = {}
    for stem in stems:
        image, truth = layout.image(root, stem), layout.annotations(root, stem)
        missing = [f"no {file.relative_to(root)}" for file in truth if not file.is_file()]
        if image is None:
            problems.append(f"{root}: the list names {stem!r}, but {layout.images}/ holds no image of that stem.")
        elif missing:
            problems.append(f"{root}: the list names {stem!r}, but there is {' and '.join(missing)}.")
        else:
            found[stem] = image, truth
    return found


def _read_class_names(file: Path) -> tuple[str, ...]:
    """The names in a labelmap.txt except the background's, or VOC's if there is no such file."""
    if not file.is_file():
        return VOC_CLASSES
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as a list of classes ({error}); save it as text in UTF-8.") from error
    # a name may hold colons itself
    names = [line.rsplit(":", 3)[0] for line in lines if line and not line.startswith("#")]
    if names[:1] != ["background"] or not 2 <= len(names) <= VOID:
        first = reprlib.repr(names[0] if names else "")
        raise InputError(
            f"{file}: begins with {first} and has {len(names)} lines; it must name `background` "
            f"first, then 1 to {VOID - 1} classes in the order of their indices."
        )
    if not all(names) or len(set(names)) < len(names):
        wrong = next(name for name in names if not name or names.count(name) > 1)
        raise InputError(f"{file}: the class {reprlib.repr(wrong)} has no name or is there twice; name each once.")
    return tuple(names[1:])


# --- annotations ------------------------------------------------------------------------------------------------------


def _read_voc(
    files: tuple[Path, ...], n_classes: int
) -> tuple[Int32[np.ndarray, "h w"], Int[np.ndarray, " k"], Bool[np.ndarray, "h w"]]:
    """Objects numbered 1 to k, the class of each, and pixels to ignore."""
    object_file, class_file = files
    objects, classes = read_labels(object_file), read_labels(class_file)
    if objects.shape != classes.shape:
        raise InputError(_sizes_differ(class_file, classes.shape, str(object_file), objects.shape))
    is_void = (objects == VOID) | (classes == VOID)
    if (wrong := classes[(classes > n_classes) & ~is_void]).size:
        raise InputError(
            f"{class_file}: has the class {wrong.max()}; there are 0 for background, 1 to {n_classes}, {VOID} for void."
        )
    labels, ids = relabel(np.where(objects == VOID, 0, objects))
    votes = np.bincount((labels * 256 + classes)[~is_void], minlength=256 * (len(ids) + 1)).reshape(-1, 256)
    numbers = votes[1:].argmax(axis=1)
    if not numbers.all():
        raise InputError(
            f"{object_file}: object {ids[numbers.argmin()]} has no class: most of it is background or void in "
            f"{class_file}; both images must come from the same annotation."
        )
    return labels, numbers, (labels == 0) & (is_void | (classes > 0))


def _read_sbd(
    files: tuple[Path, ...], n_classes: int
) -> tuple[Int32[np.ndarray, "h w"], Int[np.ndarray, " k"], Bool[np.ndarray, "h w"]]:
    """Objects numbered 1 to k, the class of each, and no pixel to ignore."""
    (file,) = files
    segmentation, categories = _read_mat(file)
    labels, ids = relabel(segmentation)
    if len(ids) and ids[-1] > len(categories):
        raise InputError(
            f"{file}: has the object {ids[-1]}, but Categories has {len(categories)} classes, one for each."
        )
    numbers = categories[ids - 1]
    if (wrong := numbers[~np.isin(numbers, np.arange(1, n_classes + 1))]).size:
        raise InputError(f"{file}: has the class {wrong[0]} in Categories; there are 1 to {n_classes}.")
    return labels, numbers.astype(np.int64), np.zeros(labels.shape, bool)


def _read_mat(file: Path) -> tuple[Int[np.ndarray, "h w"], Shaped[np.ndarray, " _"]]:
    """Segmentation and Categories of a MATLAB file."""
    try:
        fields = _variable(file.read_bytes(), b"GTinst")
        segmentation, categories = (_array(fields[name]) for name in (b"Segmentation", b"Categories"))
    except (OSError, ValueError, LookupError, struct.error, zlib.error) as error:
        reason = " ".join(str(error).split())[:120]
        raise InputError(
            f"{file}: is damaged, or no annotation of SBD with GTinst, Segmentation and Categories ({reason}); "
            "copy or download it again."
        ) from error
    is_usable = segmentation.ndim == 2 and segmentation.dtype.kind in "ui"
    if not is_usable or segmentation.min(initial=0) < 0 or segmentation.max(initial=0) > np.iinfo(np.int32).max:
        raise InputError(
            f"{file}: Segmentation is {segmentation.dtype} of shape {segmentation.shape}; it must be whole numbers "
            "from 0 to 2**31 - 1, in rows and columns."
        )
    return segmentation.astype(np.int64), categories.ravel()


def _sizes_differ(file: Path, size: tuple[int, ...], other: str, other_size: tuple[int, ...]) -> str:
    """The sentence on two files that should have one size."""
    return (
        f"{file}: has {size[0]} x {size[1]} pixels, but {other} has {other_size[0]} x {other_size[1]}; both must have "
        "the same rows and columns."
    )


# --- MATLAB files -----------------------------------------------------------------------------------------------------
#
# Version 5, little-endian, as far as SBD needs it. scipy.io.loadmat reads more, but there (1.17) a damaged file that is
# not compressed can end the process; here it is an error like any other.


def _variable(content: bytes, name: bytes) -> dict[bytes, bytes]:
    """The fields of the struct of that name, each an array still to be read."""
    if content[124:128] != b"\x00\x01IM":
        raise ValueError("not a MATLAB file of version 5")
    for kind, data in _elements(content[128:]):
        (_, array) = _elements(_decompressed(data))[0] if kind == _COMPRESSED else (kind, data)
        flags, _, found, *rest = (part for _, part in _elements(array))
        if found == name and flags[0] == _STRUCT:
            length, names, *arrays = int.from_bytes(rest[0], "little"), *rest[1:]
            fields = [names[k : k + length].split(b"\0")[0] for k in range(0, len(names), length)]
            return dict(zip(fields, arrays, strict=False))
    raise LookupError(f"there is no struct {name.decode()}")


def _decompressed(data: bytes) -> bytes:
    """Data unpacked, if they are of a size that an annotation can have."""
    stream = zlib.decompressobj()
    content = stream.decompress(data, _MOST_BYTES)
    if not stream.eof:
        raise ValueError(f"compressed data are cut short, or become more than {_MOST_BYTES >> 20} MB")
    return content


def _array(data: bytes) -> Shaped[np.ndarray, "..."]:
    """An array of numbers, in the type that the file stores them in; without data it is empty."""
    if not data:
        return np.zeros((0, 0), np.uint8)
    (_, flags), (_, shape), _, (kind, values) = _elements(data)[:4]
    if flags[0] not in _NUMERIC or kind not in _NUMBERS:
        raise ValueError("text, cells or a struct where numbers should be")
    lengths = np.frombuffer(shape, "<i4")
    if (lengths < 0).any():
        raise ValueError("an array with a length below 0")
    return np.frombuffer(values, _NUMBERS[kind]).reshape(lengths, order="F")


def _elements(content: bytes) -> list[tuple[int, bytes]]:
    """Type and data of successive elements; all but compressed ones begin at multiples of 8 bytes."""
    elements, position = [], 0
    while position + 8 <= len(content):
        kind, size = struct.unpack_from("<II", content, position)
        position += 8
        start = position
        if kind >> 16:  # up to 4 bytes of data stand in the place of the size
            kind, size, start = kind & 0xFFFF, kind >> 16, position - 4
        else:
            position += size + (0 if kind == _COMPRESSED else -size % 8)
        if start + size > len(content):
            raise ValueError("data lie beyond its end")
        elements.append((kind, content[start : start + size]))
    return elements


# --- writing ----------------------------------------------------------------------------------------------------------


def _write_sample(folder: Path, sample: Sample, numbers: Int[np.ndarray, " n"]) -> None:
    """Write an image, its objects and their classes."""
    if len(sample.classes) >= VOID:
        raise InputError(
            f"{folder}: {sample.name} has {len(sample.classes)} objects; the palette images of Pascal VOC hold "
            f"{VOID - 1} at most. Write to label images or COCO instead."
        )
    write_image(folder / _VOC.images / (sample.name + image_suffix(sample.image)), sample.image)
    classes = numbers[np.append(0, sample.classes)][sample.labels]
    is_void = sample.ignore & (sample.labels == 0)
    for file, indices in zip(_VOC.annotations(folder, sample.name), (sample.labels, classes), strict=True):
        _write_indices(file, np.where(is_void, VOID, indices).astype(np.uint8))


def _write_indices(file: Path, indices: UInt8[np.ndarray, "h w"]) -> None:
    """Write a palette PNG."""
    image = Image.fromarray(indices)
    image.putpalette(_palette().ravel().tolist())
    with atomic(file) as temporary:
        image.save(temporary, "PNG")


def _palette() -> UInt8[np.ndarray, "256 3"]:
    """VOC's colours: bits 0, 3 and 6 of an index are the highest bits of red, 1, 4 and 7 of green, 2 and 5 of blue."""
    indices = np.arange(256)[:, None]
    bits = [((indices >> (3 * k + np.arange(3))) & 1) << (7 - k) for k in range(3)]
    return np.sum(bits, axis=0).astype(np.uint8)


def _write_lines(file: Path, lines: Iterable[str]) -> None:
    """Write a text file."""
    with atomic(file) as temporary:
        temporary.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
