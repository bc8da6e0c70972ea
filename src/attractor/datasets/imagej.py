"""ImageJ's regions of interest: for each image a zip of ROI files, as the ROI Manager saves them, or one ROI file.

`NAME.zip`, `NAME_rois.zip`, `NAME_RoiSet.zip` or `NAME.roi` lies beside its image or in `rois/`. Polygons, freehand and
traced outlines, rectangles, ovals, ellipses and rotated rectangles are objects, and so are composite ROIs, which may
have holes and several parts; a line or point has no pixels inside and is named as a problem. ImageJ knows no classes:
all objects are of class "object".

Pixels are those that ImageJ fills. Coordinates are x, y in pixels, whole numbers being pixel edges. A pixel belongs to
an outline if its centre lies inside by the even-odd rule; a centre on an edge counts on the outline's right, not on its
left. A pixel belongs to an oval if its centre lies inside the ellipse or on it. Rectangles and ovals count with their
bounds in whole pixels. Curves of composite ROIs are followed in short lines. Nothing is ever unpacked to disk.

Source: ImageJ's RoiDecoder, PolygonFiller and OvalRoi, https://github.com/imagej/ImageJ.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int32, Shaped

from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.names import leads_out
from attractor.datasets.outlined import (
    CLASS,
    Outline,
    OutlinedImages,
    Picture,
    Problems,
    objects_of,
    visible,
    with_images,
    write_outlined,
)
from attractor.datasets.polygons import Ellipse, Part, Polygon, Ring, as_points
from attractor.datasets.sample import Dataset, Sample, whole
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES
from attractor.instances import Instances
from attractor.wording import install

ENDINGS = (".roi", ".zip", "_rois.zip", "_RoiSet.zip")
MOST_BYTES = 1 << 28  # of a zip's entries together; 50,000 cells are some 13 MB
MOST_ENTRIES = 1_000_000
MOST_RATIO = 50  # how many bytes one byte of a zip may become; those of ROIs become 2 to 7
SMALL, SMALL_ZIP = 1 << 20, 1 << 24  # bytes of an entry, and of all together, that do no harm at any ratio
LONGEST_NAME = 100  # letters of a class in the name of a ROI, which becomes a file's when a zip is unpacked
RECTANGLE, OVAL = 1, 2
OUTLINES = (0, 7, 8)  # polygon, freehand, traced
WITHOUT_AREA = {
    3: "a line", 4: "a freehand line", 5: "a polyline", 6: "a ROI of no type", 9: "an angle", 10: "a point",
}  # fmt: skip
TEXT, PICTURE = 1, 4  # subtypes that are drawn over an image
SPLINE = 1  # option: the outline is a curve through its points
TIE = 1e-8  # how far ImageJ moves outlines to the right
MOVE, LINE, CLOSE = 0, 1, 4
POINTS_OF_STEP = {MOVE: 1, LINE: 1, 2: 2, 3: 3, CLOSE: 0}  # of a path; 2 and 3 are quadratic and cubic curves
N_LINES = 16  # that a curve is made of
HIGHEST_SHORT = 32767
_DECODER_ERRORS = (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError, MemoryError, struct.error)
_ZIP_ERRORS = (zipfile.BadZipFile, OSError, RuntimeError, ValueError, EOFError, zlib.error, struct.error)


@runtime_checkable
class Roi(Protocol):
    """What is read and written of roifile's `ImagejRoi`; roifile comes only with an extra."""

    roitype: int
    subtype: int
    options: int
    name: str
    left: int
    top: int
    right: int
    bottom: int
    position: int
    z_position: int
    t_position: int
    rounded_rect_arc_size: int
    n_coordinates: int
    integer_coordinates: Int32[np.ndarray, "n 2"] | None
    subpixel_coordinates: Float[np.ndarray, "n 2"] | None
    multi_coordinates: Float[np.ndarray, " m"] | None
    shape_roi_size: int

    @property
    def composite(self) -> bool:
        """Whether it is a path of steps, `multi_coordinates`."""

    def coordinates(self) -> Shaped[np.ndarray, "n 2"]:
        """Points of the outline as x, y."""

    def tobytes(self) -> bytes:
        """The content of its file."""


class ImageJ(OutlinedImages):
    """A folder of images with ImageJ's ROIs for each."""

    layout = "a folder with images and, beside each or in rois/, its NAME.zip, NAME_rois.zip or NAME.roi (ImageJ)"
    holds: ClassVar[Holds] = Holds(classes=False, overlaps=True)

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder in which an image has ROIs, as any other archive may lie there, too."""
        places = [place for place in (Path(path), Path(path) / "images", Path(path) / "rois") if place.is_dir()]
        files = [file for place in places for file in visible(place)]
        images = {name for file in files if file.suffix.lower() in IMAGE_SUFFIXES for name in (file.stem, file.name)}
        is_such = any(
            file.name.removesuffix(ending) in images and _holds_rois(file)
            for file in files
            for ending in ENDINGS
            if file.name.endswith(ending)
        )
        return Evidence.CONTENT if is_such else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_rois` does."""
        write_rois(folder, samples, described.class_names)

    def _find(self, folder: Path, problems: Problems) -> list[Picture]:
        """The images that have ROIs that can be read."""
        _roifile()
        found = []
        for name, image, file in with_images(folder, "rois", ENDINGS, _holds_rois, problems):
            try:
                found.append(Picture(name, image, file, _read(file, problems)))
            except InputError as error:
                problems.sentences.append(str(error))
        return found


def write_rois(folder: str | Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Write samples as images and, beside each, NAME_rois.zip; ignored pixels are not kept, classes only as names.

    Raises:
        InputError: if a file cannot be written, two samples share a name, a class has none, or roifile is missing.
    """
    _roifile()
    write_outlined(folder, samples, "_rois.zip", lambda sample, _: encode_rois(whole(sample)[0], class_names))


def encode_rois(found: Instances, class_names: Sequence[str], *, channels: int = 1) -> bytes:
    """The objects as a zip for ImageJ's ROI Manager, named by label and class, as in `0001-cell`.

    Objects with holes or several parts become composite ROIs. Those without a pixel are left out; where masks overlap,
    each is whole. In a volume, an object has a ROI on each slice that it meets, as in `0001-z0012-cell`, with slices
    counted from 1 as ImageJ does. The same objects give the same bytes.

    Args:
        found: the objects of an image or a volume.
        class_names: of classes 1, 2, ….
        channels: of the volume: ImageJ counts the slices of a stack with several in another way.

    Raises:
        InputError: if an object's class has no name, or roifile is missing.
    """
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for roi in _rois(_roifile(), found, class_names, channels):
            entry = zipfile.ZipInfo(roi.name + ".roi", date_time=(1980, 1, 1, 0, 0, 0))
            archive.writestr(entry, roi.tobytes(), compress_type=zipfile.ZIP_DEFLATED)
    return file.getvalue()


def _rois(roifile: ModuleType, found: Instances, class_names: Sequence[str], channels: int) -> Iterator[Roi]:
    """The ROIs of an image or, slice by slice, of a volume."""
    if found.labels.ndim == 3:
        for z in range(len(found.labels)):
            for roi in _rois(roifile, found.plane(z), class_names, channels):
                number, _, name = roi.name.partition("-")
                roi.name = f"{number}-z{z + 1:04}-{name}"
                setattr(roi, "position" if channels == 1 else "z_position", z + 1)
                yield roi
        return
    for label, class_name, _, parts in objects_of(found, class_names):
        is_simple = len(parts) == 1 and len(parts[0]) == 1
        roi = _traced(roifile, parts[0][0]) if is_simple else _composite(roifile, parts)
        roi.name = f"{label:04}-" + "".join(
            letter if letter.isprintable() and letter not in '/\\:*?"<>|' and ord(letter) < 1 << 16 else "_"
            for letter in class_name[:LONGEST_NAME]
        )
        yield roi


def _roifile() -> ModuleType:
    """The library that reads and writes the format."""
    try:
        import roifile  # comes only with an extra
    except ImportError as error:
        raise InputError(f"ImageJ's ROIs need roifile, which is not installed. {install('formats')}") from error
    return roifile


# --- archives ---------------------------------------------------------------------------------------------------------


def _holds_rois(file: Path) -> bool:
    """Whether a file is a ROI or a zip with any, judged by names; a zip that cannot be opened might be."""
    if file.name.endswith(".roi"):
        return True
    try:
        with zipfile.ZipFile(file) as archive:
            names = archive.namelist()
    except _ZIP_ERRORS:
        return True
    return not names or any(name.endswith(".roi") for name in names)


def _entries(file: Path) -> Iterator[tuple[str, bytes]]:
    """Name and content of each ROI in a file; none of an empty zip."""
    if file.name.endswith(".roi"):
        try:
            content = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file}: cannot be read: {error.strerror}.") from error
        yield file.name, content
        return
    try:
        archive = zipfile.ZipFile(file)
    except _ZIP_ERRORS as error:
        raise InputError(f"{file}: is cut short or no zip ({error}); save the ROIs again.") from error
    with archive:
        for entry in _checked(file, archive.infolist()):
            try:
                with archive.open(entry) as opened:
                    content = opened.read(entry.file_size)  # no more than it claims, whatever it would become
            except _ZIP_ERRORS as error:
                raise InputError(f"{file}: {entry.filename}: is damaged ({error}); save the ROIs again.") from error
            yield entry.filename, content


def _checked(file: Path, entries: list[zipfile.ZipInfo]) -> list[zipfile.ZipInfo]:
    """The ROIs of an archive, unless the archive was made to do harm."""
    total, size = sum(entry.file_size for entry in entries), file.stat().st_size
    if len(entries) > MOST_ENTRIES or total > MOST_BYTES:
        raise InputError(
            f"{file}: holds {len(entries):,} entries of {total / 2**20:,.0f} MB together; "
            f"ROIs of one image may be {MOST_ENTRIES:,} and {MOST_BYTES >> 20:,} MB. Save fewer, or cut the image."
        )
    for entry in entries:
        if leads_out(entry.filename):
            raise InputError(f"{file}: {entry.filename!r}: its name leads out of the archive; do not trust this file.")
        if entry.file_size > max(SMALL, MOST_RATIO * entry.compress_size):
            raise InputError(
                f"{file}: {entry.filename}: grows from {entry.compress_size:,} to {entry.file_size:,} bytes, as no "
                "ROI does; do not trust this file."
            )
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):  # others cannot unpack in pieces
            raise InputError(
                f"{file}: {entry.filename}: is packed by a method that ImageJ does not know; save the ROIs in ImageJ."
            )
    if total > max(SMALL_ZIP, MOST_RATIO * size):
        raise InputError(f"{file}: grows from {size:,} to {total:,} bytes, as no ROIs do; do not trust this file.")
    found = [entry for entry in entries if entry.filename.endswith(".roi") and not _is_hidden(entry.filename)]
    if entries and not found:
        raise InputError(f"{file}: holds no ROI; its entries must end in .roi, as ImageJ's ROI Manager saves them.")
    return found


def _is_hidden(name: str) -> bool:
    """Whether an entry is one of those that macOS puts beside the files."""
    return name.startswith("__MACOSX/") or name.rpartition("/")[2].startswith(".")


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(file: Path, problems: Problems) -> list[Outline]:
    """The objects in one file; a ROI that cannot be used is noted and left out."""
    roifile, found, planes = _roifile(), [], set[tuple[int, int, int]]()
    for name, content in _entries(file):
        try:
            roi = _decode(roifile, content)
            found.append(Outline(name, CLASS, tuple(_parts(roi))))
        except InputError as error:
            problems.add(file, name, str(error))
        else:
            planes.add((roi.position, roi.z_position, roi.t_position))
    if len(planes - {(0, 0, 0)}) > 1:
        raise InputError(
            f"{file}: its ROIs lie on {len(planes - {(0, 0, 0)})} planes of a stack; an image here is one plane: save "
            "each plane as an image, with its own ROIs."
        )
    return [outline for outline in found if outline.parts]


def _decode(roifile: ModuleType, content: bytes) -> Roi:
    """One ROI."""
    if len(content) < 64 or not content.startswith(b"Iout"):
        raise InputError("it is cut short or no ROI; save it again")
    if (kind := WITHOUT_AREA.get(content[6])) is not None:
        raise InputError(f"it is {kind}, which has no pixels inside; remove it, or outline the object")
    if content[6] not in (RECTANGLE, OVAL, *OUTLINES):
        raise InputError(f"it is of type {content[6]}, which is not known here; make it a polygon")
    try:
        roi: Roi = roifile.ImagejRoi.frombytes(content)
    except _DECODER_ERRORS as error:
        raise InputError(f"it is cut short or damaged ({' '.join(str(error).split())[:120]}); save it again") from error
    return roi


def _parts(roi: Roi) -> Iterator[Polygon | Ellipse]:
    """What a ROI encloses; nothing, if it has no extent."""
    if roi.roitype == RECTANGLE and roi.composite and roi.multi_coordinates is not None:
        if outlines := tuple(_nudged(ring) for ring in _follow(roi.multi_coordinates)):
            yield Polygon(outlines)
    elif roi.roitype in OUTLINES:
        if roi.options & SPLINE:
            raise InputError("it is a curve through its points; in ImageJ, choose Edit > Selection > Interpolate first")
        yield Polygon((_nudged(roi.coordinates().tolist()),))
    elif roi.subtype in (TEXT, PICTURE):
        raise InputError("it is a text or picture drawn over the image; remove it")
    elif roi.right > roi.left and roi.bottom > roi.top:
        yield _oval(roi) if roi.roitype == OVAL else _rectangle(roi)


def _oval(roi: Roi) -> Ellipse:
    """The ellipse within a ROI's bounds."""
    x, y = (roi.left + roi.right) / 2, (roi.top + roi.bottom) / 2
    return Ellipse(x, y, (roi.right - roi.left) / 2, (roi.bottom - roi.top) / 2)


def _rectangle(roi: Roi) -> Polygon:
    """A ROI's bounds."""
    if roi.rounded_rect_arc_size > 0:
        raise InputError("it is a rectangle with round corners; make it a polygon")
    corners = [[roi.left, roi.top], [roi.right, roi.top], [roi.right, roi.bottom], [roi.left, roi.bottom]]
    return Polygon((np.array(corners, float),))


def _nudged(points: list[list[int]] | list[list[float]]) -> Float[np.ndarray, "n 2"]:
    """Points of an outline, moved so that centres on an edge count as they do in ImageJ."""
    return as_points(points) + np.array([TIE, 0.0])


def _follow(path: Float[np.ndarray, " n"]) -> Iterator[list[list[float]]]:
    """The rings of a path of steps, each step a kind and its points; those that enclose nothing are left out."""
    if not np.isfinite(path).all():
        raise InputError("it is damaged: its outline has coordinates that are no numbers; save it again")
    values, ring, place = path.tolist(), list[list[float]](), 0
    while place < len(values):  # ends: each turn goes on by one at least
        step = values[place]
        end = place + 1 + 2 * POINTS_OF_STEP.get(step, len(values))
        if end > len(values) or (step != MOVE and not ring):
            raise InputError("it is damaged: its outline holds a step that no path has; save it again")
        points = [values[k : k + 2] for k in range(place + 1, end, 2)]
        place = end
        if step in (MOVE, CLOSE):
            yield from _enclosing(ring)
            ring = points or ring[:1]
        else:
            ring += points if step == LINE else _curve([ring[-1], *points])
    yield from _enclosing(ring)


def _enclosing(ring: list[list[float]]) -> Iterator[list[list[float]]]:
    """The ring, if it has three points."""
    if len({tuple(point) for point in ring}) > 2:
        yield ring


def _curve(points: list[list[float]]) -> list[list[float]]:
    """Points of a Bezier curve of any degree, without the first."""
    share = np.linspace(0, 1, N_LINES + 1)[1:, None, None]
    between = np.array(points)[None]  # (1, degree + 1, 2)
    while between.shape[1] > 1:  # ends: one point fewer each time
        between = between[:, :-1] * (1 - share) + between[:, 1:] * share
    return between[:, 0].tolist()


# --- writing ----------------------------------------------------------------------------------------------------------


def _traced(roifile: ModuleType, ring: Ring) -> Roi:
    """A ROI of one ring: traced, as by ImageJ's wand; with floats where whole numbers do not fit."""
    roi = _bounded(roifile, ring)
    roi.n_coordinates = len(ring)
    roi.integer_coordinates = (ring - [roi.left, roi.top]).astype(np.int32)
    if ring.max() <= HIGHEST_SHORT:
        roi.roitype = roifile.ROI_TYPE.TRACED
    else:
        roi.roitype = roifile.ROI_TYPE.POLYGON
        roi.options = roifile.ROI_OPTIONS.SUB_PIXEL_RESOLUTION
        roi.subpixel_coordinates = ring.astype(np.float32)
    return roi


def _composite(roifile: ModuleType, parts: list[Part]) -> Roi:
    """A ROI of several rings: a path that moves to each one's first corner, follows it and closes it."""
    every = [ring for part in parts for ring in part]
    path: list[float] = []
    for ring in every:
        steps = np.concatenate([np.ones((len(ring), 1), int), ring], axis=1)
        steps[0, 0] = 0
        path += [*steps.ravel().tolist(), 4]
    roi = _bounded(roifile, np.concatenate(every))
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def _bounded(roifile: ModuleType, ring: Ring) -> Roi:
    """A ROI with the bounds of these corners."""
    (left, top), (right, bottom) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    roi: Roi = roifile.ImagejRoi(left=left, top=top, right=right, bottom=bottom)
    return roi
