"""ImageJ's ROIs as roifile writes them, filled as ImageJ fills them, and what is said of files that cannot be used."""

import io
import struct
import sys
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
from PIL import Image
from roifile import ROI_OPTIONS, ROI_SUBTYPE, ROI_TYPE, ImagejRoi

from attractor.datasets import Sample, imagej, open_dataset
from attractor.datasets.imagej import ImageJ, encode_rois, write_rois
from attractor.errors import InputError
from attractor.instances import Instances

SHAPE = (20, 30)
SQUARE = [[2, 1], [6, 1], [6, 4], [2, 4]]


def outline(points: Any, kind: ROI_TYPE = ROI_TYPE.POLYGON, **rest: Any) -> ImagejRoi:
    """A ROI of these points, with whole numbers or floats."""
    roi = ImagejRoi.frompoints(np.array(points))
    roi.roitype = kind
    for key, value in rest.items():
        setattr(roi, key, value)
    return roi


def bounds(kind: ROI_TYPE, left: int, top: int, right: int, bottom: int, **rest: Any) -> ImagejRoi:
    """A ROI that is only its bounds."""
    return ImagejRoi(roitype=kind, left=left, top=top, right=right, bottom=bottom, **rest)


def composite(*steps: float) -> ImagejRoi:
    """A ROI of a path."""
    path = np.array(steps, np.float32)
    return bounds(ROI_TYPE.RECT, 0, 0, 30, 20, multi_coordinates=path, shape_roi_size=len(path))


@contextmanager
def at_most(n_bytes: int) -> Iterator[None]:
    """Fail if more is allocated at one time than that."""
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < n_bytes
    finally:
        tracemalloc.stop()


def write(folder: Path, *rois: Any, name: str = "a_rois.zip") -> Path:
    """A data set of one image; what is no ROI is written as it is."""
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(folder / "a.png")
    contents = [roi if isinstance(roi, bytes) else roi.tobytes() for roi in rois]
    with zipfile.ZipFile(folder / name, "w") as archive:
        for k, content in enumerate(contents):
            archive.writestr(f"{k}.roi", content)
    return folder


def filled(folder: Path, *rois: Any) -> np.ndarray:
    """The label image of ROIs."""
    return ImageJ(write(folder, *rois))[0].labels


def as_imagej_fills(points: np.ndarray) -> np.ndarray:
    """Row by row: of the crossings in their order, each second gap is inside, its right end included, its left not."""
    mask = np.zeros(SHAPE, bool)
    for row in range(SHAPE[0]):
        crossings = []
        for (x, y), (other_x, other_y) in zip(points, np.roll(points, -1, axis=0), strict=True):
            if min(y, other_y) <= row + 0.5 < max(y, other_y):
                crossings.append(x + (row + 0.5 - y) / (other_y - y) * (other_x - x))
        crossings.sort()
        for start, end in zip(crossings[::2], crossings[1::2], strict=True):
            centres = np.arange(SHAPE[1]) + 0.5
            mask[row] |= (centres > start) & (centres <= end)
    return mask


def test_polygons_are_filled_as_imagej_fills_them(tmp_path):
    generator = np.random.default_rng(0)
    for kind in (ROI_TYPE.POLYGON, ROI_TYPE.FREEHAND, ROI_TYPE.TRACED):
        for k in range(40):
            points = generator.integers(0, 40, (7, 2)) / (2 if k % 2 else 1)  # halves hit the centres
            points = points if k % 2 else points.astype(np.int64)
            np.testing.assert_array_equal(filled(tmp_path, outline(points, kind)) > 0, as_imagej_fills(points))


def test_rectangles_are_filled_to_their_bounds(tmp_path):
    expected = np.zeros(SHAPE, int)
    expected[1:4, 2:6] = 1
    np.testing.assert_array_equal(filled(tmp_path, bounds(ROI_TYPE.RECT, 2, 1, 6, 4)), expected)
    fine = bounds(ROI_TYPE.RECT, 2, 1, 6, 4, xd=2.3, yd=1.2, widthd=3.1, heightd=2.2)
    fine.options = ROI_OPTIONS.SUB_PIXEL_RESOLUTION
    np.testing.assert_array_equal(filled(tmp_path, fine), expected)


@pytest.mark.parametrize("size", [(1, 1), (2, 2), (3, 5), (8, 8), (11, 6)])
def test_ovals_have_the_pixels_whose_centres_lie_in_the_ellipse(tmp_path, size):
    width, height = size
    mask = filled(tmp_path, bounds(ROI_TYPE.OVAL, 3, 2, 3 + width, 2 + height)) > 0
    for row in range(SHAPE[0]):
        for column in range(SHAPE[1]):
            x, y = column - 3 - (width / 2 - 0.5), row - 2 - (height / 2 - 0.5)
            assert mask[row, column] == (x * x / (width / 2) ** 2 + y * y / (height / 2) ** 2 <= 1)


def test_fitted_ellipses_and_rotated_rectangles_are_their_points(tmp_path):
    for subtype in (ROI_SUBTYPE.ELLIPSE, ROI_SUBTYPE.ROTATED_RECT):
        labels = filled(tmp_path, outline(np.array(SQUARE, float), ROI_TYPE.FREEHAND, subtype=subtype, x1=1.0))
        assert labels.sum() == 12


def test_composites_have_holes_and_several_parts(tmp_path):
    path = [0, 2, 1, 1, 8, 1, 1, 8, 8, 1, 2, 8, 4]
    hole = [0, 4, 3, 1, 4, 5, 1, 6, 5, 1, 6, 3, 4]
    apart = [0, 20, 10, 1, 22, 10, 1, 22, 12, 1, 20, 12]  # not closed
    labels = filled(tmp_path, composite(*path, *hole, *apart))
    assert labels.max() == 1
    assert labels.sum() == 42 - 4 + 4
    assert labels[3, 4] == 0


def test_curves_of_composites_are_followed(tmp_path):
    k = 4 * 0.5523  # of a circle of radius 4 around 10, 10
    circle = [0, 14, 10, 3, 14, 10 + k, 10 + k, 14, 10, 14, 3, 10 - k, 14, 6, 10 + k, 6, 10]
    circle += [3, 6, 10 - k, 10 - k, 6, 10, 6, 3, 10 + k, 6, 14, 10 - k, 14, 10, 4]
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]] + 0.5
    np.testing.assert_array_equal(filled(tmp_path, composite(*circle)) > 0, np.hypot(x - 10, y - 10) < 4)
    arch = composite(0, 2, 8, 2, 10, -8, 18, 8, 4)  # the parabola's top lies at y = 0
    assert filled(tmp_path, arch)[0, 10] == 1
    assert filled(tmp_path, arch)[0, 2] == 0


@pytest.mark.parametrize(
    "roi",
    [
        bounds(ROI_TYPE.RECT, 4, 4, 4, 9),
        bounds(ROI_TYPE.OVAL, 4, 9, 8, 4),
        bounds(ROI_TYPE.OVAL, 100, 100, 140, 130),
        outline([[100, 100], [120, 100], [120, 120]]),
        outline([[-50, -50], [-40, -50], [-40, -40]]),
        outline([[1, 1], [5, 5], [9, 9]]),
        composite(0, 2, 2, 1, 5, 5, 4),
    ],
)
def test_a_roi_that_encloses_no_pixel_is_no_object(tmp_path, roi):
    assert filled(tmp_path, roi, bounds(ROI_TYPE.RECT, 2, 1, 6, 4)).max() == 1


def test_a_huge_oval_needs_no_more_than_the_image(tmp_path):
    assert filled(tmp_path, bounds(ROI_TYPE.OVAL, -4900, -4900, 5000, 5000)).all()


@pytest.mark.parametrize("name", ["a.roi", "a.zip", "a_rois.zip", "a_RoiSet.zip", "a.png.zip"])
def test_rois_go_by_the_name_of_their_image(tmp_path, name):
    write(tmp_path, outline(SQUARE), name="b.zip")
    if name == "a.roi":
        (tmp_path / name).write_bytes(outline(SQUARE).tobytes())
        (tmp_path / "b.zip").unlink()
    else:
        (tmp_path / "b.zip").rename(tmp_path / name)
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, ImageJ)
    assert dataset[0].labels.sum() == 12


def test_archives_of_other_things_are_left_alone(tmp_path):
    write(tmp_path, outline(SQUARE))
    with zipfile.ZipFile(tmp_path / "download.zip", "w") as archive:
        archive.writestr("readme.txt", "")
    assert len(ImageJ(tmp_path)) == 1
    (tmp_path / "a_rois.zip").unlink()
    (tmp_path / "download.zip").rename(tmp_path / "a.zip")
    assert not ImageJ.recognises(tmp_path)
    with pytest.raises(InputError, match=r"a\.zip: holds no ROI; its entries must end in \.roi"):
        ImageJ(tmp_path)


def test_what_macos_adds_to_an_archive_is_passed_over(tmp_path):
    write(tmp_path, outline(SQUARE))
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "a") as archive:
        archive.writestr("__MACOSX/._0.roi", b"no roi")
        archive.writestr("rois/", b"")
        archive.writestr("rois/1.roi", bounds(ROI_TYPE.RECT, 10, 10, 12, 12).tobytes())
        archive.writestr("readme.txt", b"no roi")
    assert ImageJ(tmp_path)[0].labels.max() == 2


# --- writing


def test_rois_are_named_by_label_and_class_and_have_imagejs_types():
    labels = np.zeros((12, 16), np.int32)
    labels[1:4, 2:6], labels[6:11, 1:6], labels[8, 3], labels[10, 14], labels[5, 10] = 1, 2, 0, 3, 3
    found = Instances(labels, np.array([1, 2, 2]), np.ones(3, np.float32))
    with zipfile.ZipFile(io.BytesIO(encode_rois(found, ("cell", "a/b\\ü:😀")))) as archive:
        assert archive.namelist() == ["0001-cell.roi", "0002-a_b_ü__.roi", "0003-a_b_ü__.roi"]
        rois = [ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
    assert rois[0].name == "0001-cell"
    assert rois[0].roitype == ROI_TYPE.TRACED
    assert (rois[0].left, rois[0].top, rois[0].right, rois[0].bottom) == (2, 1, 6, 4)
    assert rois[0].coordinates().tolist() == SQUARE
    assert all(roi.composite for roi in rois[1:])
    assert [len(roi.coordinates(multi=True)) for roi in rois[1:]] == [2, 2]


def test_coordinates_beyond_whole_numbers_of_16_bits_are_floats(tmp_path):
    labels = np.zeros((2, 70_000), np.int32)
    labels[:, 100:200], labels[0, 40_000:40_009], labels[:, 69_000:], labels[1, 40_000:69_000] = 1, 2, 3, 4
    labels[0, [50_000, 50_002]] = 5
    write_rois(tmp_path, [_sample(labels)], ("cell",))
    np.testing.assert_array_equal(ImageJ(tmp_path)[0].labels, labels)


def test_outlines_of_more_than_65535_corners_or_many_holes_come_back(tmp_path):
    comb = np.ones((2, 40_000), np.int32)
    comb[1, ::2] = 0
    sieve = np.ones((41, 41), np.int32)
    sieve[1::2, 1::2] = 0
    for k, labels in enumerate((comb, sieve)):
        write_rois(tmp_path / str(k), [_sample(labels)], ("cell",))
        np.testing.assert_array_equal(ImageJ(tmp_path / str(k))[0].labels, labels)


def _sample(labels: np.ndarray) -> Sample:
    """An image of these objects."""
    n = int(labels.max())
    image = np.zeros((*labels.shape, 1), np.uint8)
    return Sample("a", image, labels.astype(np.int32), np.ones(n, np.int32), np.zeros(labels.shape, bool))


# --- files that cannot be used


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (bounds(ROI_TYPE.LINE, 0, 0, 3, 3), "it is a line, which has no pixels inside"),
        (outline(SQUARE, ROI_TYPE.POLYLINE), "it is a polyline"),
        (outline(SQUARE, ROI_TYPE.POINT), "it is a point"),
        (outline(SQUARE, ROI_TYPE.FREELINE), "it is a freehand line"),
        (outline(SQUARE, ROI_TYPE.ANGLE), "it is an angle"),
        (outline(SQUARE, ROI_TYPE(77)), "it is of type 77, which is not known"),
        (outline(SQUARE, options=ROI_OPTIONS.SPLINE_FIT), "it is a curve through its points"),
        (bounds(ROI_TYPE.RECT, 0, 0, 3, 3, rounded_rect_arc_size=5), "a rectangle with round corners"),
        (bounds(ROI_TYPE.RECT, 0, 0, 3, 3, subtype=ROI_SUBTYPE.TEXT), "a text or picture drawn over"),
        (outline([[1, 1], [4, 4]]), "an outline with fewer than three points"),
        (outline(np.array(SQUARE) / 2, subpixel_coordinates=np.full((4, 2), np.inf, np.float32)), "no numbers or far"),
        (composite(7, 1, 1), "a step that no path has"),
        (composite(float("nan"), 1, 1), "coordinates that are no numbers"),
        (composite(1, 1, 1), "a step that no path has"),
        (composite(0, 1, 1, 3, 1, 1), "a step that no path has"),
        (composite(0, 1, 1, 1, 5, 5, 1, float("nan"), 9, 4), "coordinates that are no numbers"),
        (composite(0, 1, 1, 1, 5, 5, 3, float("inf"), 9, 4, 4, 9, 9, 4), "coordinates that are no numbers"),
        (b"", "cut short or no ROI"),
        (b"Iout", "cut short or no ROI"),
        (b"x" * 100, "cut short or no ROI"),
        (outline(SQUARE).tobytes()[:70], "cut short or damaged"),
        (outline(SQUARE).tobytes()[:16] + b"\xff\xff" + outline(SQUARE).tobytes()[18:], "cut short or damaged"),
        (composite(0, 1, 1, 4).tobytes()[:36] + struct.pack(">i", 2**30) + bytes(60), "cut short or damaged"),
    ],
)
def test_a_roi_that_cannot_be_used_is_named_and_left_out(tmp_path, wrong, message):
    write(tmp_path, outline(SQUARE), wrong)
    with pytest.raises(InputError, match=rf"a_rois\.zip: 1\.roi: .*{message}"):
        ImageJ(tmp_path)
    dataset, problems = ImageJ.salvage(tmp_path)
    assert len(problems) == 1
    assert dataset[0].labels.sum() == 12


def test_rois_of_several_planes_are_refused(tmp_path):
    write(tmp_path, outline(SQUARE), outline(SQUARE, position=1), outline(SQUARE, position=2))
    with pytest.raises(InputError, match=r"a_rois\.zip: its ROIs lie on 2 planes of a stack"):
        ImageJ(tmp_path)
    write(tmp_path, outline(SQUARE), outline(SQUARE, position=2))
    assert len(ImageJ(tmp_path)) == 1


@pytest.mark.parametrize("name", ["../0.roi", "/etc/0.roi", "x/../../0.roi", "C:/0.roi"])
def test_an_entry_that_leads_out_of_its_archive_is_refused(tmp_path, name):
    write(tmp_path, outline(SQUARE))
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "a") as archive:
        archive.writestr(name, outline(SQUARE).tobytes())
    with pytest.raises(InputError, match=rf"a_rois\.zip: '{name}': its name leads out of the archive"):
        ImageJ(tmp_path)


def test_archives_that_grow_beyond_measure_are_refused_before_they_are_read(tmp_path, monkeypatch):
    def forbidden(*_: Any) -> bytes:
        raise AssertionError("read")

    monkeypatch.setattr(zipfile, "ZipExtFile", forbidden)
    write(tmp_path, outline(SQUARE))
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.roi", bytes(20 << 20))
    with pytest.raises(InputError, match=r"a_rois\.zip: bomb\.roi: grows from .* to 20,971,520 bytes"):
        ImageJ(tmp_path)
    monkeypatch.setattr(imagej, "MOST_BYTES", 10 << 20)
    with pytest.raises(
        InputError, match=r"a_rois\.zip: holds 1 entries of 20 MB together; .* may be 1,000,000 and 10 MB"
    ):
        ImageJ(tmp_path)
    monkeypatch.setattr(imagej, "MOST_ENTRIES", 2)
    write(tmp_path, *[outline(SQUARE)] * 3)
    with pytest.raises(InputError, match=r"holds 3 entries of .* may be 2 and"):
        ImageJ(tmp_path)
    monkeypatch.undo()
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(20):  # each so small that it may grow as it likes
            archive.writestr(f"{k}.roi", bytes(1 << 20))
    with pytest.raises(InputError, match=r"a_rois\.zip: grows from .* to 20,971,520 bytes, as no ROIs do"):
        ImageJ(tmp_path)


def test_an_entry_that_claims_to_be_small_is_read_no_further_than_that(tmp_path):
    write(tmp_path, outline(SQUARE))
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.roi", bytes(64 << 20))
    content = (tmp_path / "a_rois.zip").read_bytes()
    size = struct.pack("<I", 64 << 20)
    (tmp_path / "a_rois.zip").write_bytes(content.replace(size, struct.pack("<I", 200)))
    assert content.count(size) == 2  # in the entry's own header and in the directory
    with at_most(2 << 20), pytest.raises(InputError, match=r"a_rois\.zip: bomb\.roi: is damaged \(Bad CRC"):
        ImageJ(tmp_path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_an_entry_that_is_packed_in_a_way_that_knows_no_small_pieces_is_refused(tmp_path, method):
    write(tmp_path, outline(SQUARE))
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "w", method) as archive:
        archive.writestr("a.roi", outline(SQUARE).tobytes())
    with pytest.raises(InputError, match=r"a_rois\.zip: a\.roi: is packed by a method that ImageJ does not know"):
        ImageJ(tmp_path)


def test_very_regular_outlines_are_no_attack(tmp_path):
    stairs = np.repeat(np.arange(1, 3000), 2)[: 4 * 1499].reshape(-1, 2)
    with zipfile.ZipFile(tmp_path / "a_rois.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for k in range(200):
            archive.writestr(f"{k}.roi", outline(np.concatenate([stairs, stairs[::-1] + np.array([0, 2])])).tobytes())
    Image.fromarray(np.zeros(SHAPE, np.uint8)).save(tmp_path / "a.png")
    assert ImageJ(tmp_path).object_count(0) == 200


def test_a_long_class_makes_no_name_that_a_file_cannot_have():
    found = Instances.from_labels(np.ones((2, 2), np.int32))
    with zipfile.ZipFile(io.BytesIO(encode_rois(found, ("x" * 70_000,)))) as archive:
        assert archive.namelist() == [f"0001-{'x' * 100}.roi"]


def test_a_damaged_entry_is_named(tmp_path):
    write(tmp_path, outline(SQUARE), bounds(ROI_TYPE.RECT, 8, 8, 9, 9))
    content = bytearray((tmp_path / "a_rois.zip").read_bytes())
    content[60] ^= 255
    (tmp_path / "a_rois.zip").write_bytes(content)
    with pytest.raises(InputError, match=r"a_rois\.zip: 0\.roi: is damaged \(Bad CRC"):
        ImageJ(tmp_path)


def test_a_roi_that_cannot_be_opened_is_an_input_error(tmp_path, monkeypatch):
    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, outline(SQUARE))
    (tmp_path / "a_rois.zip").unlink()
    (tmp_path / "a.roi").touch()
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match=r"a\.roi: cannot be read: Permission denied"):
        ImageJ(tmp_path)


def test_without_roifile_it_is_said_how_to_install_it(tmp_path, monkeypatch):
    write(tmp_path, outline(SQUARE))
    monkeypatch.setitem(sys.modules, "roifile", None)
    with pytest.raises(InputError, match=r'need roifile, which is not installed. .*pip install "\.\[formats\]"'):
        ImageJ(tmp_path)
    with pytest.raises(InputError, match="need roifile"):
        write_rois(tmp_path, [], ("cell",))
    with pytest.raises(InputError, match="need roifile"):
        encode_rois(Instances.from_labels(np.ones((2, 2), np.int32)), ("cell",))
    assert ImageJ.recognises(tmp_path)


def test_roifile_reads_what_is_written_like_imagejs_own(tmp_path):
    labels = np.zeros(SHAPE, np.int32)
    labels[1:4, 2:6] = 1
    write_rois(tmp_path, [_sample(labels)], ("cell",))
    (roi,) = roifile.roiread(tmp_path / "a_rois.zip")
    assert roi.coordinates().tolist() == SQUARE
