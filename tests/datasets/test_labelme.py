"""Labelme's shapes, where its images are looked for, and what is said of files that cannot be used."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attractor.datasets import open_dataset
from attractor.datasets.coco import Coco, write_coco
from attractor.datasets.labelme import Labelme, write_labelme
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.instances import Instances

SQUARE = [[1, 1], [4, 1], [4, 4], [1, 4]]  # columns and rows 1 to 3


def shape(points: Any = None, label: Any = "cell", kind: Any = "polygon", group: Any = None, **rest: Any) -> Any:
    """A square of 3 x 3 pixels unless told otherwise."""
    points = SQUARE if points is None else points
    return {"label": label, "points": points, "group_id": group, "shape_type": kind, "flags": {}, **rest}


def png(array: np.ndarray) -> str:
    """An array as Labelme holds masks and images."""
    file = io.BytesIO()
    Image.fromarray(array).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def document(*shapes: Any, path: Any = "a.png", data: Any = None, **rest: Any) -> dict[str, Any]:
    """A JSON of an image of 6 rows and 8 columns."""
    size = {"imageHeight": 6, "imageWidth": 8}
    return {"version": "5.5.0", "flags": {}, "shapes": [*shapes], "imagePath": path, "imageData": data, **size, **rest}


def write(folder: Path, *shapes: Any, name: str = "a", **rest: Any) -> Path:
    """A data set of one image."""
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / f"{name}.png")
    (folder / f"{name}.json").write_text(json.dumps(document(*shapes, **rest)), encoding="utf-8")
    return folder


# --- shapes


def test_a_polygon_is_an_object_of_its_label(tmp_path):
    dataset = open_dataset(write(tmp_path, shape(), shape([[5, 0], [7, 0], [7, 2], [5, 2]], "Größe")))
    assert isinstance(dataset, Labelme)
    assert dataset.class_names == ("Größe", "cell")
    sample = dataset[0]
    expected = np.zeros((6, 8), int)
    expected[1:4, 1:4], expected[:2, 5:7] = 1, 2
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.classes.tolist() == [2, 1]
    assert not sample.ignore.any()


@pytest.mark.parametrize(
    ("points", "kind", "n_pixels"),
    [
        ([[4, 4], [1, 1]], "rectangle", 9),
        ([[1, 4], [4, 1]], "rectangle", 9),
        (SQUARE, "rectangle", 9),
        (SQUARE, "oriented_rectangle", 9),
        (SQUARE, "rotation", 9),
        (SQUARE, None, 9),
        ([[3, 3], [3, 5]], "circle", 12),
        ([[3, 3], [3, 3]], "circle", 0),
        ([[3, 3], [3, 900]], "circle", 48),
    ],
)
def test_other_shapes_have_the_pixels_whose_centres_lie_inside(tmp_path, points, kind, n_pixels):
    sample = Labelme(write(tmp_path, shape(points, kind=kind)))[0]
    assert (sample.labels == 1).sum() == n_pixels


@pytest.mark.parametrize("kind", [bool, np.uint8])
def test_a_mask_lies_where_its_first_point_says(tmp_path, kind):
    mask = np.array([[1, 0, 1], [1, 1, 1]]).astype(kind)
    sample = Labelme(write(tmp_path, shape([[2, 1], [4, 2]], kind="mask", mask=png(mask))))[0]
    np.testing.assert_array_equal(sample.labels[1:3, 2:5], mask)
    assert sample.labels.sum() == 5


@pytest.mark.parametrize(("x", "y", "n_pixels"), [(-1, -1, 4), (6, 5, 2), (90, 90, 0), (-90, 2, 0), (1.6, 2.4, 9)])
def test_a_mask_is_cut_off_at_the_border(tmp_path, x, y, n_pixels):
    mask = png(np.ones((3, 3), np.uint8))
    sample = Labelme(write(tmp_path, shape([[x, y], [x + 2, y + 2]], kind="mask", mask=mask)))[0]
    assert (sample.labels == 1).sum() == n_pixels


def test_shapes_of_one_label_and_group_are_one_object(tmp_path):
    other = [[5, 0], [7, 0], [7, 2], [5, 2]]
    sample = Labelme(write(tmp_path, shape(group=3), shape(other, group=3)))[0]
    assert sample.labels.max() == 1
    assert sample.labels.sum() == 13
    for shapes in (
        [shape(), shape(other)],
        [shape(group=3), shape(other, group=4)],
        [shape(group=3), shape(other, "b", group=3)],
    ):
        assert Labelme(write(tmp_path, *shapes))[0].labels.max() == 2


def test_parts_of_a_group_may_overlap(tmp_path):
    sample = Labelme(write(tmp_path, shape(group=0), shape([[3, 3], [6, 3], [6, 5], [3, 5]], group=0)))[0]
    assert sample.labels.sum() == 14
    assert not sample.ignore.any()


def test_ignored_regions_are_not_objects(tmp_path):
    dataset = Labelme(write(tmp_path, shape(), shape([[0, 0], [8, 6]], "__ignore__", "rectangle")))
    assert dataset.class_names == ("cell",)
    np.testing.assert_array_equal(dataset[0].ignore, dataset[0].labels == 0)


def test_shapes_beyond_the_image_or_without_extent_are_no_objects(tmp_path):
    beyond = [[x + 90, y] for x, y in SQUARE]
    assert Labelme(write(tmp_path, shape(beyond), shape([[1, 1], [2, 2], [3, 3]]), shape()))[0].labels.max() == 1


def test_objects_with_holes_are_written_as_masks_others_as_polygons(tmp_path):
    labels = np.zeros((6, 8), np.int32)
    labels[1:4, 1:4], labels[2, 2], labels[0, 6], labels[5, 6], labels[5, 0] = 1, 0, 2, 2, 3
    found = Instances.from_labels(labels)
    nowhere = np.zeros((6, 8), bool)
    write_labelme(
        tmp_path, [Sample("b c", np.zeros((6, 8, 1), np.uint8), found.labels, found.classes, nowhere)], ("é",)
    )
    content = json.loads((tmp_path / "b c.json").read_text(encoding="utf-8"))
    assert (content["imagePath"], content["imageHeight"], content["imageWidth"]) == ("b c.png", 6, 8)
    assert content["imageData"] is None
    shapes = [(one["shape_type"], one["group_id"], one["label"]) for one in content["shapes"]]
    assert shapes == [("mask", None, "é"), ("polygon", 2, "é"), ("polygon", 2, "é"), ("polygon", None, "é")]
    assert content["shapes"][0]["points"] == [[1, 1], [3, 3]]
    assert content["shapes"][3]["points"] == [[0, 5], [1, 5], [1, 6], [0, 6]]


# --- images


@pytest.mark.parametrize(
    "path", ["../images/a b.png", "..\\images\\a b.png", "C:\\x\\a b.png", "/x/y/a b.png", "x/a b.png"]
)
def test_the_image_is_found_by_its_path_or_its_name(tmp_path, path):
    for name in ("images", "annotations"):
        (tmp_path / name).mkdir()
    Image.fromarray(np.full((6, 8), 7, np.uint8)).save(tmp_path / "images" / "a b.png")
    (tmp_path / "annotations" / "other.json").write_text(json.dumps(document(shape(), path=path)))
    dataset = open_dataset(tmp_path)
    assert dataset.names == ("a b",)
    assert dataset[0].image[0, 0].tolist() == [7]


def test_an_image_outside_of_the_folder_is_not_read(tmp_path):
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / "secret.png")
    inner = tmp_path / "set"
    inner.mkdir()
    for path in ("../secret.png", str(tmp_path / "secret.png"), "..\\secret.png"):
        (inner / "a.json").write_text(json.dumps(document(path=path)))
        with pytest.raises(InputError, match=r"1 JSON has no image: imagePath names no file .* Alone: a\.json"):
            Labelme(inner)
    (inner / "link.png").symlink_to(tmp_path / "secret.png")
    (inner / "a.json").write_text(json.dumps(document(path="link.png")))
    with pytest.raises(InputError, match="1 JSON has no image"):
        Labelme(inner)


@pytest.mark.parametrize("path", [None, 7, "", "a\0.png", "x" * 5000, "missing.png", [], {}])
def test_the_image_within_the_json_is_used_where_there_is_no_file(tmp_path, path):
    image = np.arange(48, dtype=np.uint8).reshape(6, 8)
    (tmp_path / "k.json").write_text(json.dumps(document(shape(), path=path, data=png(image))))
    dataset = open_dataset(tmp_path)
    assert dataset.names == ("k",)
    np.testing.assert_array_equal(dataset[0].image[..., 0], image)
    assert dataset[0].labels.sum() == 9
    (tmp_path / "k.json").write_text(json.dumps(document(shape(), path=path)))
    with pytest.raises(InputError, match=r"1 JSON has no image.* Alone: k\.json"):
        Labelme(tmp_path)


@pytest.mark.parametrize("data", ["", "abc", "AAAA", png(np.zeros((6, 8), np.uint8))[:60]])
def test_a_damaged_image_within_the_json_is_named(tmp_path, data):
    (tmp_path / "k.json").write_text(json.dumps(document(shape(), path=None, data=data)))
    with pytest.raises(InputError, match=r"k\.json: imageData: "):
        Labelme(tmp_path)[0]


def test_an_image_of_another_size_is_refused_when_read(tmp_path):
    write(tmp_path, shape(), imageHeight=60)
    with pytest.raises(InputError, match=r"a\.png: has 6 x 8 pixels, but a\.json says 60 x 8; the outlines belong to"):
        Labelme(tmp_path)[0]


def test_a_size_may_be_left_out(tmp_path):
    write(tmp_path, shape(), imageHeight=None, imageWidth=None)
    assert Labelme(tmp_path)[0].labels.sum() == 9


@pytest.mark.parametrize(
    ("height", "width", "said"),
    [("6", 8, "'6' and 8"), (True, 8, "True and 8"), (6, 0, "6 and 0"), (6, None, "6 and None")],
)
def test_a_size_that_is_no_whole_number_is_named_and_the_image_still_there(tmp_path, height, width, said):
    write(tmp_path, shape(), imageHeight=height, imageWidth=width)
    with pytest.raises(InputError, match=rf"a\.json: imageHeight and imageWidth: they are {said} where whole numbers"):
        Labelme(tmp_path)
    dataset, problems = Labelme.salvage(tmp_path)
    assert len(problems) == 1
    assert dataset[0].labels.sum() == 9


def test_two_jsons_of_one_image_are_refused(tmp_path):
    (write(tmp_path, shape()) / "b.json").write_text(json.dumps(document()))
    with pytest.raises(InputError, match=r"b\.json: name: a\.json is of an image of the same name"):
        Labelme(tmp_path)


# --- files that cannot be used


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (7, "it must be an object with a label and points"),
        (shape(label=None), "its label is None where a name should be"),
        (shape(label=""), "its label is '' where"),
        (shape(label=[1]), r"its label is \[1\] where"),
        (shape(label="\ud800"), r"its label is '.ud800' where"),
        (shape(group=True), "its group_id is True where a whole number"),
        (shape(group=[1]), r"its group_id is \[1\] where a whole number"),
        (shape([[1, 1]], kind="point"), "it is a 'point', which has no pixels inside; remove it"),
        (shape(kind="linestrip"), "it is a 'linestrip'"),
        (shape(kind="line"), "it is a 'line'"),
        (shape(kind=["x"]), r"it is a \['x'\]"),
        (shape([[1, 1], [2, 2]]), "fewer than three points"),
        (shape([]), "fewer than three points"),
        (shape(7), "not a list of points"),
        ({"label": "cell"}, "not a list of points"),
        (shape([[1, 1], [2, "x"], [3, 3]]), "not a list of points"),
        (shape([[1, 1], [2, float("inf")], [3, 3]]), "no numbers or far outside"),
        (shape([[1, 1]], kind="circle"), "it is a circle of 1 points; it must have two"),
        (shape([[1, 1]], kind="rectangle"), "it is a rectangle of 1 points; it must have two"),
        (shape(kind="mask"), "it is a mask of 4 points; it must have two"),
        (shape([[1, 1], [2, 2]], kind="mask"), "its mask is no PNG"),
        (shape([[1, 1], [2, 2]], kind="mask", mask=7), "its mask is no PNG"),
        (shape([[1, 1], [2, 2]], kind="mask", mask="abc"), "its mask is no PNG"),
    ],
)
def test_a_shape_that_cannot_be_used_is_named_and_left_out(tmp_path, wrong, message):
    write(tmp_path, shape(), wrong)
    with pytest.raises(InputError, match=rf"a\.json: shapes\[1\]: .*{message}"):
        Labelme(tmp_path)
    dataset, problems = Labelme.salvage(tmp_path)
    assert len(problems) == 1
    assert dataset[0].labels.sum() == 9


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (png(np.ones((3, 3), np.uint8))[:60], "its mask is damaged or cut short"),
        (png(np.ones((3, 3, 3), np.uint8)), "its mask has 3 channels"),
        (png(np.ones((40, 3), np.uint8)), "its mask has 40 x 3 pixels, more than the image"),
    ],
)
def test_a_mask_that_cannot_be_used_is_named_when_read(tmp_path, mask, message):
    write(tmp_path, shape(), shape([[1, 1], [3, 3]], kind="mask", mask=mask))
    with pytest.raises(InputError, match=rf"a\.json: shapes\[1\]: {message}"):
        Labelme(tmp_path)[0]


@pytest.mark.parametrize("content", [{}, [], {"shapes": 7}, "x"])
def test_a_json_without_shapes_is_refused(tmp_path, content):
    write(tmp_path, shape())
    write(tmp_path, name="b", path="b.png")
    (tmp_path / "b.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"b\.json: is not in Labelme's form") as caught:
        Labelme(tmp_path)
    assert "Alone" not in str(caught.value)


# --- which layout it is


def test_a_folder_of_labelme_is_not_taken_for_coco_or_the_other_way_round(tmp_path):
    one = Sample("a", np.zeros((2, 3, 1), np.uint8), np.ones((2, 3), np.int32), np.array([1]), np.zeros((2, 3), bool))
    assert isinstance(open_dataset(write(tmp_path, shape())), Labelme)
    (tmp_path / "coco").mkdir()
    write_coco(tmp_path / "coco", [one], ("shapes",))
    assert isinstance(open_dataset(tmp_path / "coco"), Coco)
    (tmp_path / "coco" / "old.json").write_text(json.dumps(document()))
    assert isinstance(open_dataset(tmp_path / "coco"), Coco)
    assert not Labelme.recognises(tmp_path / "a.json")


def test_keys_in_any_order_are_recognised(tmp_path):
    content = document(shape(), data="A" * 100_000)
    for keys in (sorted(content), sorted(content, reverse=True), ["shapes", *content], ["imageData", *content]):
        (tmp_path / "a.json").write_text(json.dumps({key: content[key] for key in keys}))
        assert Labelme.recognises(tmp_path)


def test_a_json_that_cannot_be_opened_is_not_recognised(tmp_path, monkeypatch):
    def forbidden(*_: Any) -> Any:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, shape())
    monkeypatch.setattr(Path, "open", forbidden)
    assert not Labelme.recognises(tmp_path)
