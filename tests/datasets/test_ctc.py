"""Films of the Cell Tracking Challenge as annotated images."""

from pathlib import Path

import numpy as np
import pytest
import tifffile

from attractor import InputError
from attractor.datasets import layout_of, open_dataset
from attractor.datasets.classes import WithClasses
from attractor.datasets.ctc import Ctc
from attractor.datasets.held import hold
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Sample
from attractor.datasets.small import WithoutSmall


def write_mask(file: Path, labels: np.ndarray) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    tifffile.imwrite(file, labels.astype(np.uint16))


def bars(*spans: tuple[int, int, int], shape: tuple[int, int] = (6, 20)) -> np.ndarray:
    """Labels of upright bars, each (number, first column, last column)."""
    labels = np.zeros(shape, np.int32)
    for number, first, last in spans:
        labels[1:5, first : last + 1] = number
    return labels


@pytest.fixture
def film(tmp_path: Path) -> Path:
    """Three frames; object 4 divides into 7 and 9, object 2 stays, and 8 comes into the last frame."""
    frames = [bars((4, 2, 7), (2, 12, 15)), bars((7, 1, 3), (9, 5, 7), (2, 12, 15)), bars((9, 5, 7), (8, 17, 18))]
    for t, labels in enumerate(frames):
        write_mask(tmp_path / f"01/t{t:03}.tif", 40 + 100 * (labels > 0))
        write_mask(tmp_path / f"01_GT/TRA/man_track{t:03}.tif", labels)
    (tmp_path / "01_GT/TRA/man_track.txt").write_text("2 0 1 0\n4 0 0 0\n7 1 1 4\n8 2 2 0\n9 1 2 4\n")
    return tmp_path


def test_objects_know_where_they_were(film):
    assert layout_of(film) == "ctc"
    frames = open_dataset(film)
    assert isinstance(frames, Ctc)
    assert frames.names == ("01_t000", "01_t001", "01_t002")
    first, second, third = frames
    assert first.earlier is None
    assert second.earlier.name == "01_t000"
    np.testing.assert_array_equal(np.unique(second.labels), [0, 1, 2, 3])  # 2, 7 and 9
    np.testing.assert_array_equal(second.earlier.labels, [1, 2, 2])  # 7 and 9 were 4
    np.testing.assert_array_equal(third.earlier.labels, [0, 3])  # 8 is new
    assert hold(frames).is_film
    assert hold(frames).part([0]).is_film


def test_outlines_take_their_numbers_from_the_markers_in_them(film):
    for t in range(3):
        outline = open_dataset(film)[t].labels
        file = film / f"01_GT/TRA/man_track{t:03}.tif"
        marker = tifffile.imread(file)
        marker[:3] = 0  # a marker covers a part of its object
        tifffile.imwrite(film / f"outlines{t}.tif", outline.astype(np.uint16))
        tifffile.imwrite(file, marker)
    outline = tifffile.imread(film / "outlines1.tif")
    write_mask(film / "01_GT/SEG/man_seg001.tif", np.where(outline > 0, 50 - outline, 0))
    only = open_dataset(film)
    assert only.names == ("01_t001",)
    assert only[0].earlier is None
    for t in (0, 1):
        write_mask(film / f"01_ST/SEG/man_seg{t:03}.tif", tifffile.imread(film / f"outlines{t}.tif"))
    both = open_dataset(film)
    assert both.names == ("01_t000", "01_t001")
    np.testing.assert_array_equal(both[1].earlier.labels, [2, 2, 1])  # numbered the other way round


def test_an_object_without_a_marker_comes_from_nowhere(film):
    file = film / "01_GT/TRA/man_track001.tif"
    outline, marker = tifffile.imread(file), tifffile.imread(file)
    write_mask(film / "01_GT/SEG/man_seg001.tif", outline)
    write_mask(film / "01_GT/SEG/man_seg000.tif", tifffile.imread(film / "01_GT/TRA/man_track000.tif"))
    tifffile.imwrite(file, np.where(marker == 7, 0, marker))
    np.testing.assert_array_equal(open_dataset(film)[1].earlier.labels, [1, 0, 2])


def test_several_films_have_a_column(film):
    for t in range(2):
        write_mask(film / f"02/t{t:03}.tif", bars((1, 1, 3)))
        write_mask(film / f"02_GT/SEG/man_seg{t:03}.tif", bars((1, 1, 3)))
    frames = open_dataset(film)
    assert len(frames) == 5
    assert frames.columns["film"]["02_t001"] == "02"
    np.testing.assert_array_equal(frames[4].earlier.labels, [0])  # nobody says that they are the same


def test_a_film_is_written_and_read_again(film, tmp_path):
    frames = list(open_dataset(film))
    out = tmp_path / "again"
    Ctc.write(out, frames, open_dataset(film))
    for own, again in zip(frames, open_dataset(out), strict=True):
        np.testing.assert_array_equal(own.image, again.image)
        assert len(own.classes) == len(again.classes)
        assert (own.earlier is None) == (again.earlier is None)
        if own.earlier is None:
            continue
        came = {tuple(np.argwhere(own.labels == k)[0]): n for k, n in enumerate(own.earlier.labels.tolist(), 1)}
        for place, before in came.items():
            assert (again.earlier.labels[again.labels[place] - 1] == 0) == (before == 0)
    text = (out / "01_GT/TRA/man_track.txt").read_text()
    assert sorted(line.split()[1:] for line in text.splitlines()) == [
        ["0", "0", "0"], ["0", "1", "0"], ["1", "1", "2"], ["1", "2", "2"], ["2", "2", "0"],
    ]  # fmt: skip


def test_images_of_no_film_are_frames_of_one(tmp_path):
    samples = [
        Sample(name, np.full((6, 20, 1), 7, np.uint8), bars((1, 2, 4)), np.ones(1, np.int32), np.zeros((6, 20), bool))
        for name in ("b", "a")
    ]
    write_label_images(tmp_path / "set", samples)
    Ctc.write(tmp_path / "film", samples, open_dataset(tmp_path / "set"))
    assert [one.earlier and one.earlier.labels.tolist() for one in open_dataset(tmp_path / "film")] == [None, [0]]


def test_small_objects_that_are_ignored_belong_to_no_film(film):
    small = WithoutSmall(open_dataset(film), 10)
    assert [one.earlier for one in small] == [None] * 3


def test_where_classes_are_left_out_numbers_of_the_frame_before_are_unknown(film):
    frames = open_dataset(film)
    assert WithClasses(frames, ["object"], [1])[1].earlier is not None
    assert WithClasses(frames, ["other"], [0])[1].earlier is None


def test_masks_of_two_sizes_are_named_with_the_frame(film):
    write_mask(film / "01_GT/SEG/man_seg001.tif", bars((7, 1, 3)))
    write_mask(film / "01_GT/TRA/man_track001.tif", bars((7, 1, 3), shape=(6, 21)))
    with pytest.raises(InputError, match=r"man_track001.tif: has 6 x 21 pixels, but its frame t001.tif has 6 x 20"):
        open_dataset(film)[0]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda film: (film / "01/t001.tif").unlink(), "man_track001.tif: is of frame 1, but .*01 has no such frame"),
        (lambda film: (film / "01_GT/TRA/man_track.txt").write_text("2 0\n"), "line 1 is '2 0'; it must be four whole"),
        (lambda film: write_mask(film / "01/t0001.tif", bars()), "t0001.tif and t001.tif are both frame"),
        (lambda film: [file.unlink() for file in film.rglob("man_track0*")], "holds no mask"),
    ],
)
def test_what_is_wrong_is_said_and_the_rest_can_be_used(film, damage, said):
    damage(film)
    with pytest.raises(InputError, match=said):
        open_dataset(film)
    rest, problems = Ctc.salvage(film)
    assert any(problems)
    for one in rest:
        assert one.labels.shape == (6, 20)


def test_a_mask_of_another_size_is_refused(film):
    write_mask(film / "01_GT/TRA/man_track001.tif", bars((7, 1, 3), shape=(6, 21)))
    with pytest.raises(InputError, match=r"man_track001.tif: has 6 x 21 pixels, but its frame t001.tif has 6 x 20"):
        open_dataset(film)[1]
    assert open_dataset(film)[2].earlier is None
