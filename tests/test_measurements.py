"""The table of objects: scikit-image's measures, tiny objects, and the size of a pixel."""

import numpy as np
import pytest
from skimage.draw import disk, ellipse
from skimage.measure import perimeter_crofton, regionprops, regionprops_table

from attractor import measurements
from attractor.errors import InputError
from attractor.instances import Instances
from attractor.measurements import check_pixel_size, object_table, perimeters

RANDOM = np.random.default_rng(0)
GREY = np.ones((9, 9, 1), np.uint8)

LENGTHS = ["perimeter", "major_axis", "minor_axis", "centroid_row", "centroid_column"]
THEIRS = {  # scikit-image's names of our columns
    "label": "label", "area": "area", "perimeter": "perimeter_crofton",
    "major_axis": "axis_major_length", "minor_axis": "axis_minor_length", "orientation": "orientation",
    "solidity": "solidity", "centroid_row": "centroid-0", "centroid_column": "centroid-1",
    "min_row": "bbox-0", "min_column": "bbox-1", "max_row": "bbox-2", "max_column": "bbox-3",
}  # fmt: skip


def blobs(n: int = 12) -> np.ndarray:
    """A label image of touching squares with holes and frayed borders."""
    labels = np.kron(np.arange(n).reshape(3, -1), np.ones((7, 8), int)).astype(np.int32)
    labels[RANDOM.random(labels.shape) < 0.3] = 0
    return labels


def table_of(drawn: list[list[int]], **options: object) -> dict[str, list]:
    """The table of a small label image."""
    labels = np.array(drawn, np.int32)
    return object_table(np.ones((*labels.shape, 1), np.uint8), Instances.from_labels(labels), ("object",), **options)


@pytest.mark.parametrize("n_channels", [1, 3])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.float32])
def test_the_table_says_what_scikit_image_measures(n_channels, kind):
    labels = blobs()
    image = RANDOM.integers(0, 256, (*labels.shape, n_channels)).astype(kind)
    found = Instances(labels, np.tile([1, 2], 6)[:11], np.linspace(1, 0, 11))
    table = object_table(image, found, ("round", "long, thin"))
    theirs = dict(THEIRS)
    for measure, name in [("intensity_mean", "mean_intensity"), ("intensity_max", "max_intensity")]:
        theirs |= {name if n_channels == 1 else f"{name}_{c}": f"{measure}-{c}" for c in range(n_channels)}
    expected = regionprops_table(labels, image, sorted({name.partition("-")[0] for name in theirs.values()}))
    assert list(table) == ["label", "class", "score", *[name for name in theirs if name != "label"]]
    for ours, name in theirs.items():
        np.testing.assert_allclose(table[ours], expected[name], rtol=1e-6, err_msg=ours)
    assert table["class"][:2] == ["round", "long, thin"]
    assert table["score"] == found.scores.tolist()


def test_numbers_are_python_numbers_whole_where_they_count():
    kinds = {name: type(values[0]) for name, values in table_of([[1, 1], [0, 0]], pixel_size=(1.0, 1.0)).items()}
    assert kinds.pop("class") is str
    whole = {name for name, kind in kinds.items() if kind is int}
    assert whole == {"label", "area", "min_row", "min_column", "max_row", "max_column"}
    assert set(kinds.values()) == {int, float}


@pytest.mark.parametrize(
    ("drawn", "solidity", "major_axis"),
    [
        ([[1]], 1, 0),
        ([[0, 0, 0], [0, 1, 0], [0, 0, 0]], 1, 0),
        ([[1, 1, 1]], 1, 4 * np.sqrt(2 / 3)),
        ([[1], [1], [1]], 1, 4 * np.sqrt(2 / 3)),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], 1, 4 * np.sqrt(4 / 3)),
        ([[1, 0, 0, 0, 1]], 2 / 5, 8),
    ],
)
def test_single_pixels_and_lines_are_measured_without_a_warning(drawn, solidity, major_axis):
    table = table_of(drawn, pixel_size=(0.5, 0.5))
    assert table["solidity"] == [pytest.approx(solidity)]
    assert table["major_axis"] == [pytest.approx(major_axis)]
    assert table["minor_axis"] == [0]
    assert table["perimeter"][0] > 0
    assert all(np.isfinite(values[0]) for name, values in table.items() if name != "class")


@pytest.mark.parametrize(
    ("drawn", "orientation"),
    [
        ([[1], [1], [1]], 0),
        ([[1, 1, 1]], np.pi / 2),
        ([[1, 0, 0], [0, 1, 0], [0, 0, 1]], np.pi / 4),
        ([[0, 0, 1], [0, 1, 0], [1, 0, 0]], -np.pi / 4),
    ],
)
def test_orientation_is_counted_from_down_the_rows(drawn, orientation):
    assert table_of(drawn)["orientation"] == [pytest.approx(orientation)]


@pytest.mark.parametrize("strip", [1, 300, 1 << 22])
def test_an_object_measures_the_same_wherever_it_lies(strip, monkeypatch):
    monkeypatch.setattr(measurements, "STRIP", strip)
    drawn = np.zeros((11, 14), np.int32)
    drawn[ellipse(5, 6, 3.2, 5.5, rotation=0.4)] = 1
    near, far = np.zeros((2, 40, 3000), np.int32)
    near[:11, :14], far[29:, 2986:] = drawn, drawn
    tables = [object_table(None, Instances.from_labels(labels), ("object",)) for labels in (near, far)]
    for name in ("area", "major_axis", "minor_axis", "orientation"):
        assert tables[0][name] == tables[1][name], name
    assert tables[1]["centroid_column"][0] - tables[0]["centroid_column"][0] == pytest.approx(2986, abs=1e-9)


def test_what_is_as_wide_as_high_has_no_orientation_and_a_bar_lies_across():
    labels = np.zeros((40, 90), np.int32)
    labels[3:10, 80:87], labels[20:23, 5:70] = 1, 2
    table = object_table(None, Instances.from_labels(labels), ("object",))
    assert table["orientation"] == [-np.pi / 4, np.pi / 2]
    assert table["major_axis"][0] == table["minor_axis"][0] == pytest.approx(8)


def test_an_object_that_others_hide_has_no_row():
    labels = np.zeros((9, 9), np.int32)
    labels[1:3, 1:3] = 2
    found = Instances(labels, np.ones(2, int), np.array([0.5, 0.25]))
    table = object_table(GREY, found, ("object",), pixel_size=(1.0, 1.0))
    assert (table["label"], table["area"], table["score"], table["min_row"]) == ([2], [4], [0.25], [1])
    assert table["perimeter"] == table["perimeter_um"] == [pytest.approx(perimeter_crofton(labels))]


def test_last_objects_that_others_hide_change_nothing():
    labels = np.zeros((9, 9), np.int32)
    labels[1:3, 1:3] = 1
    hidden = Instances(labels, np.ones(4, int), np.ones(4))
    options = {"class_names": ("object",), "pixel_size": (2.0, 1.0)}
    assert object_table(GREY, hidden, **options) == object_table(GREY, Instances.from_labels(labels), **options)


def test_a_table_without_objects_has_its_head():
    full, empty = (table_of(drawn, pixel_size=(1.0, 1.0)) for drawn in ([[1, 0]], [[0, 0]]))
    assert list(empty) == list(full)
    assert not any(empty.values())


# --- perimeter --------------------------------------------------------------------------------------------------------


def test_with_square_pixels_the_perimeter_is_scikit_images():
    for _ in range(50):
        labels = blobs()
        expected = [region.perimeter_crofton for region in regionprops(labels)]
        np.testing.assert_allclose(perimeters(labels, len(expected)), expected, rtol=1e-12)


@pytest.mark.parametrize("pixel_size", [(1.0, 1.0), (0.5, 0.25), (0.1, 0.2), (0.3, 0.2)])
@pytest.mark.parametrize("radius", [3.0, 10.0])
def test_a_disc_measures_the_same_whatever_the_pixels(pixel_size, radius):
    height, width = pixel_size
    side = 2 * radius + 1
    labels = np.zeros((int(side / height), int(side / width)), np.int32)
    middle = (radius + 0.5) / height - 0.5, (radius + 0.5) / width - 0.5
    labels[ellipse(*middle, radius / height, radius / width, shape=labels.shape)] = 1
    image = np.ones((*labels.shape, 1), np.uint8)
    table = object_table(image, Instances.from_labels(labels), ("disc",), pixel_size=pixel_size)
    expected = {"perimeter_um": 2 * np.pi * radius, "major_axis_um": 2 * radius, "minor_axis_um": 2 * radius}
    for name, value in expected.items():
        assert table[name] == [pytest.approx(value, rel=0.06)], name
    assert table["area_um2"] == [pytest.approx(np.pi * radius**2, rel=0.12)]


def test_an_object_at_the_border_is_closed_there():
    labels = np.ones((4, 4), np.int32)
    assert perimeters(labels, 1) == pytest.approx(perimeters(np.pad(labels, 3), 1))


def test_a_label_without_a_pixel_has_no_perimeter():
    assert perimeters(np.array([[0, 3]], np.int32), 4)[[0, 1, 3]].tolist() == [0, 0, 0]
    assert perimeters(np.zeros((2, 2), np.int32), 0).shape == (0,)


# --- the size of a pixel ----------------------------------------------------------------------------------------------


def test_square_pixels_scale_every_length():
    labels = blobs()
    image = np.ones((*labels.shape, 1), np.uint8)
    table = object_table(image, Instances.from_labels(labels), ("object",), pixel_size=(0.5, 0.5))
    for name in LENGTHS:
        np.testing.assert_allclose(table[f"{name}_um"], np.array(table[name]) / 2, rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(table["area_um2"], np.array(table["area"]) / 4)


def test_an_image_turned_with_its_pixels_measures_the_same():
    labels = blobs()
    image = RANDOM.integers(0, 256, (*labels.shape, 1), np.uint8)
    upright = object_table(image, Instances.from_labels(labels), ("object",), pixel_size=(0.5, 0.2))
    turned = object_table(
        image.swapaxes(0, 1), Instances.from_labels(np.ascontiguousarray(labels.T)), ("object",), pixel_size=(0.2, 0.5)
    )
    for name in ("area_um2", "perimeter_um", "major_axis_um", "minor_axis_um", "solidity", "mean_intensity"):
        np.testing.assert_allclose(upright[name], turned[name], rtol=1e-6, err_msg=name)
    np.testing.assert_allclose(upright["centroid_row_um"], turned["centroid_column_um"])


def test_pixels_need_not_be_square():
    table = table_of([[0, 0, 0], [0, 1, 1]], pixel_size=(2.0, 0.5))
    assert table["area_um2"] == [2]
    assert (table["centroid_row_um"], table["centroid_column_um"]) == ([2], [0.75])
    assert table["major_axis_um"] == [pytest.approx(table["major_axis"][0] / 2)]


@pytest.mark.parametrize("size", [(0.0, 1.0), (1.0, -1.0), (np.nan, 1.0), (1.0, np.inf)])
def test_a_size_that_no_pixel_has_is_refused(size):
    with pytest.raises(InputError, match=r"The pixel size is .* x .* micrometres; give numbers above 0"):
        check_pixel_size(size)
    with pytest.raises(InputError, match="The pixel size is"):
        table_of([[1]], pixel_size=size)


def test_an_image_of_another_size_is_refused():
    found = Instances.from_labels(np.zeros((3, 4), np.int32))
    with pytest.raises(InputError, match="The image has 9 x 9 pixels, but its label image has 3 x 4"):
        object_table(GREY, found, ("object",))


def test_a_thousand_objects_on_a_large_image_are_measured():
    labels = np.zeros((1024, 2048), np.int32)
    for k in range(1000):
        labels[disk((16 + 32 * (k // 40), 20 + 48 * (k % 40)), 5 + k % 9)] = k + 1
    table = object_table(np.ones((1024, 2048, 3), np.uint8), Instances.from_labels(labels), ("object",))
    assert len(table["label"]) == 1000
    assert min(table["solidity"]) > 0.9
