"""COCO: polygons and run lengths against pycocotools, and what is said of files that cannot be used."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official

from attractor.datasets import Sample, open_dataset
from attractor.datasets.coco import Coco, compress_runs, expand_runs, fill_polygon, write_coco
from attractor.errors import InputError
from attractor.instances import encode_mask

SQUARE = [1, 1, 4, 1, 4, 4, 1, 4]  # x, y: columns and rows 1 to 3


def annotation(
    number: int = 1, *, image: Any = 1, category: Any = 7, outline: Any = None, **rest: Any
) -> dict[str, Any]:
    """One object, a square of 3 x 3 pixels unless told otherwise."""
    return {"id": number, "image_id": image, "category_id": category, "segmentation": outline or [SQUARE], **rest}


def write(
    folder: Path, annotations: list[Any], images: list[Any] | None = None, categories: list[Any] | None = None
) -> Path:
    """A data set of one image of 6 rows and 8 columns, with the categories 7 and 3."""
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "a.png")
    document = {
        "images": [{"id": 1, "file_name": "a.png", "height": 6, "width": 8}] if images is None else images,
        "annotations": annotations,
        "categories": [{"id": 7, "name": "car"}, {"id": 3, "name": "tree"}] if categories is None else categories,
    }
    (folder / "annotations.json").write_text(json.dumps(document))
    return folder


def mask_of(points: list[float], shape: tuple[int, int]) -> np.ndarray:
    """A filled polygon in the whole image."""
    whole = np.zeros(shape, bool)
    mask, place = fill_polygon(np.array(points, float).reshape(-1, 2), shape)
    whole[place] = mask
    return whole


# --- masks


def test_a_square_of_whole_coordinates_has_its_pixels():
    expected = np.zeros((6, 8), bool)
    expected[1:4, 1:4] = True
    np.testing.assert_array_equal(mask_of(SQUARE, (6, 8)), expected)
    np.testing.assert_array_equal(mask_of(SQUARE[::-1], (6, 8)), expected)


def test_a_centre_on_an_edge_belongs_to_one_side_only():
    left = mask_of([0, 0, 2.5, 0, 2.5, 4, 0, 4], (4, 5))
    right = mask_of([2.5, 0, 5, 0, 5, 4, 2.5, 4], (4, 5))
    assert not (left & right).any()
    assert (left | right).all()


def test_a_bow_tie_is_filled_by_the_even_odd_rule():
    twice_around = SQUARE + SQUARE
    assert not mask_of(twice_around, (6, 8)).any()


def test_triangles_that_share_edges_cover_each_pixel_once():
    generator = np.random.default_rng(0)
    for _ in range(200):
        corners, middle = [(0, 0), (30, 0), (30, 20), (0, 20)], tuple(generator.uniform(1, 19, 2))
        total = sum(mask_of([*corners[k], *corners[k - 1], *middle], (20, 30)).astype(int) for k in range(4))
        assert (total == 1).all()


def test_polygons_agree_with_pycocotools_but_for_the_outline():
    generator = np.random.default_rng(0)
    for _ in range(100):
        angles = np.sort(generator.uniform(0, 2 * np.pi, 9))
        radii = generator.uniform(20, 60, 9)
        points = np.stack([50 + radii * np.cos(angles), 40 + radii * np.sin(angles)], 1)  # some beyond the image
        ours = mask_of(points.ravel().tolist(), (80, 100))
        theirs = official.decode(official.frPyObjects([points.ravel().tolist()], 80, 100))[..., 0].astype(bool)
        inside = theirs & ours
        assert inside.sum() > 0.95 * (theirs | ours).sum()


def test_a_polygon_outside_of_the_image_has_no_pixel():
    for shift in (-100, 100):
        assert not mask_of([value + shift for value in SQUARE], (6, 8)).any()
    assert mask_of([-9, -9, 90, -9, 90, 90, -9, 90], (6, 8)).all()


def test_compressed_runs_are_those_of_pycocotools():
    generator = np.random.default_rng(0)
    for _ in range(300):
        shape = tuple(generator.integers(1, 60, 2))
        mask = generator.random(shape) < generator.random()
        text = official.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        runs = expand_runs(text)
        np.testing.assert_array_equal(runs, encode_mask(mask))
        assert compress_runs(runs) == text


def test_large_numbers_in_runs_survive():
    runs = np.array([2**31, 5, 2**40, 1, 0, 7])
    np.testing.assert_array_equal(expand_runs(compress_runs(runs)), runs)
    assert len(expand_runs("")) == 0


def test_runs_in_either_form_give_the_mask(tmp_path):
    for mask in (np.eye(6, 8) > 0, np.ones((6, 8), bool), np.arange(48).reshape(6, 8) == 47):
        runs = encode_mask(mask)
        for counts in (runs.tolist(), compress_runs(runs)):
            write(tmp_path, [annotation(outline={"size": [6, 8], "counts": counts})])
            np.testing.assert_array_equal(Coco(tmp_path)[0].labels > 0, mask)


def test_runs_of_nothing_are_no_object(tmp_path):
    write(tmp_path, [annotation(outline={"size": [6, 8], "counts": [48]})])
    assert len(Coco(tmp_path)[0].classes) == 0


# --- samples


def test_categories_become_classes_in_the_order_of_their_ids(tmp_path):
    dataset = open_dataset(
        write(tmp_path, [annotation(900, category=7), annotation(5, category=3, outline=[[5, 5, 8, 5, 8, 6, 5, 6]])])
    )
    assert isinstance(dataset, Coco)
    assert dataset.class_names == ("tree", "car")
    sample = dataset[0]
    assert sample.name == "a"
    assert sample.classes.tolist() == [2, 1]
    assert (sample.labels == 1).sum() == 9
    assert (sample.labels == 2).sum() == 3
    assert not sample.ignore.any()


def test_parts_of_one_object_are_united(tmp_path):
    sample = Coco(write(tmp_path, [annotation(outline=[SQUARE, [3, 3, 6, 3, 6, 5, 3, 5]])]))[0]
    assert sample.classes.tolist() == [2]
    assert (sample.labels == 1).sum() == 9 + 6 - 1
    assert not sample.ignore.any()


def test_pixels_that_two_objects_claim_are_ignored(tmp_path):
    dataset = Coco(write(tmp_path, [annotation(1), annotation(2, category=3, outline=[[3, 1, 6, 1, 6, 4, 3, 4]])]))
    sample = dataset[0]
    assert sample.labels[1].tolist() == [0, 1, 1, 0, 2, 2, 0, 0]
    assert np.flatnonzero(sample.ignore[1]).tolist() == [3]
    assert dataset.overlap_share(0) == 3 / 15


def test_an_object_without_a_pixel_of_its_own_is_dropped(tmp_path):
    inner = annotation(1, category=3, outline=[[2, 2, 3, 2, 3, 3, 2, 3]])
    dataset = Coco(write(tmp_path, [inner, annotation(2)]))
    sample = dataset[0]
    assert sample.classes.tolist() == [2]
    assert (sample.labels == 1).sum() == 8
    assert sample.ignore.sum() == 1
    assert dataset.object_count(0) == 2


def test_a_crowd_is_ignored_where_no_object_is(tmp_path):
    crowd = annotation(2, outline={"size": [6, 8], "counts": [0, 48]}, iscrowd=1)
    dataset = Coco(write(tmp_path, [annotation(1), crowd]))
    sample = dataset[0]
    assert sample.classes.tolist() == [2]
    np.testing.assert_array_equal(sample.ignore, sample.labels == 0)
    assert dataset.overlap_share(0) == 0


def test_an_image_without_annotations_is_background(tmp_path):
    sample = Coco(write(tmp_path, []))[0]
    assert not sample.labels.any()
    assert sample.classes.shape == (0,)
    assert Coco(tmp_path).overlap_share(0) == 0


def test_images_lie_in_subfolders_or_elsewhere(tmp_path):
    for folder in ("x", "y", "images"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / folder / "b.png")
    write(tmp_path, [], images=[{"id": 1, "file_name": "x/b.png"}, {"id": "two", "file_name": "y\\b.png"}])
    assert Coco(tmp_path).names == ("x_b", "y_b")
    write(tmp_path, [], images=[{"id": 1, "file_name": "b.png"}])
    assert Coco(tmp_path / "annotations.json").names == ("b",)
    assert Coco(tmp_path, images=tmp_path / "x")[0].image.shape == (6, 8, 1)


def test_a_json_by_any_name_is_found_if_it_is_the_only_one(tmp_path):
    (write(tmp_path, []) / "annotations.json").rename(tmp_path / "train.json")
    assert len(open_dataset(tmp_path)) == 1
    (tmp_path / "other.json").touch()
    assert not Coco.recognises(tmp_path)
    with pytest.raises(InputError, match="holds 2 JSON files; give the one to read"):
        Coco(tmp_path)
    assert len(open_dataset(tmp_path / "train.json")) == 1


@pytest.mark.parametrize("in_folder", [True, False])
def test_samples_written_come_back(tmp_path, in_folder):
    generator = np.random.default_rng(0)
    samples = []
    for name, shape in (("a", (30, 20)), ("b", (7, 9))):
        bands = generator.permutation(5)[np.arange(shape[0]) * 5 // shape[0]]
        labels = np.repeat(bands[:, None], shape[1], axis=1).astype(np.int32)
        samples.append(
            Sample(
                name,
                generator.integers(0, 65536, (*shape, 3)).astype(np.uint16),
                labels,
                generator.integers(1, 3, labels.max()).astype(np.int32),
                (generator.random(shape) < 0.1) & (labels == 0),
            )
        )
    path = tmp_path / "set" if in_folder else tmp_path / "set" / "train.json"
    write_coco(path, samples, ("tree", "car"))
    dataset = open_dataset(path)
    assert dataset.class_names == ("tree", "car")
    for truth, found in zip(samples, dataset, strict=True):
        assert found.name == truth.name
        for part in ("image", "labels", "classes", "ignore"):
            np.testing.assert_array_equal(getattr(found, part), getattr(truth, part))


def test_what_is_written_is_what_pycocotools_reads(tmp_path):
    labels = np.array([[1, 1, 0], [2, 1, 0]], np.int32)
    write_coco(tmp_path, [Sample("a", np.zeros((2, 3, 1), np.uint8), labels, np.array([1, 1]), labels < 0)], ("cell",))
    document = json.loads((tmp_path / "annotations.json").read_text())
    for k, entry in enumerate(document["annotations"], 1):
        np.testing.assert_array_equal(official.decode(entry["segmentation"]), labels == k)
        assert entry["area"] == official.area(entry["segmentation"])
        assert entry["bbox"] == official.toBbox(entry["segmentation"]).tolist()


def test_two_samples_of_one_name_or_a_folder_that_cannot_be_made_are_refused(tmp_path):
    sample = Sample(
        "a", np.zeros((2, 3, 1), np.uint8), np.zeros((2, 3), np.int32), np.zeros(0, int), np.zeros((2, 3), bool)
    )
    with pytest.raises(InputError, match="two images are named 'a'"):
        write_coco(tmp_path, [sample, sample], ("cell",))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        write_coco(tmp_path / "file" / "deeper", [sample], ("cell",))


# --- files that cannot be used


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (annotation(4, image=2), "annotation 4: its image_id 2 does not exist"),
        (annotation(4, image=None), "annotation 4: its image_id None does not exist"),
        (annotation(4, category=8), "annotation 4: its category_id 8 does not exist"),
        (annotation(4, outline=[[1, 1, 2, 2]]), "annotation 4: it has a polygon with fewer than three points"),
        (annotation(4, outline=[[1, 1, 2, 2, 3, 3, 4]]), "odd number of coordinates"),
        (annotation(4, outline=[[1, 1, 2, 2, 3, "x"]]), "coordinates that are no numbers"),
        (annotation(4, outline=[[1, 1, 2, 2, 3, float("nan")]]), "no numbers or far outside"),
        ({"id": 4, "image_id": 1, "category_id": 7, "bbox": [1, 1, 2, 2]}, "no outline .segmentation.; boxes alone"),
        (
            annotation(4, outline={"size": [8, 6], "counts": [48]}),
            "its runs fill 8 x 6 pixels, but its image has 6 x 8",
        ),
        (annotation(4, outline={"counts": [48]}), "its runs have the size None where"),
        (annotation(4, outline={"size": [6, 8], "counts": [4.5]}), "neither a string nor a list of whole numbers"),
        (annotation(4, outline={"size": [6, 8], "counts": "a b"}), "characters that no COCO run has"),
        (17, r"annotations\[0\]: must be an object"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(tmp_path, wrong, message):
    write(tmp_path, [wrong])
    with pytest.raises(InputError, match=rf"annotations\.json: .*{message}"):
        Coco(tmp_path)


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([40], "its runs cover 40 pixels, but its image has 6 x 8"),
        ("o", "its runs are cut short"),
        ("o" * 12 + "0", "its runs hold a number that no image"),
    ],
)
def test_runs_that_do_not_fill_the_image_are_refused_when_read(tmp_path, counts, message):
    write(tmp_path, [annotation(4, outline={"size": [6, 8], "counts": counts})])
    with pytest.raises(InputError, match=rf"annotations\.json: annotation 4: {message}"):
        Coco(tmp_path)[0]


def test_runs_of_another_size_are_refused_where_the_json_gives_no_size(tmp_path):
    write(tmp_path, [annotation(4, outline={"size": [8, 6], "counts": [48]})], images=[{"id": 1, "file_name": "a.png"}])
    with pytest.raises(InputError, match="annotation 4: its runs fill 8 x 6 pixels, but its image has 6 x 8"):
        Coco(tmp_path)[0]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        ([{"id": 1, "file_name": "z.png"}], "image 1: its file z.png is not in"),
        ([{"id": 1, "file_name": "../a.png"}], "image 1: its file_name '../a.png' leads out of the data set's folder"),
        ([{"id": 1, "file_name": "/etc/passwd"}], "leads out"),
        ([{"id": 1, "file_name": "C:\\a.png"}], "leads out"),
        ([{"id": 1, "file_name": "x\\..\\..\\a.png"}], "leads out"),
        ([{"id": 1, "file_name": "a\0.png"}], "leads out"),
        ([{"id": 1}], "image 1: it has no file_name"),
        ([{"file_name": "a.png"}], "image None: it has no id"),
        ([{"id": 1, "file_name": "a.png"}] * 2, "image 1: its id is there twice"),
        ([{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}], "two images have the same name"),
        ([], "names no image"),
        ({}, "images: must be a list"),
    ],
)
def test_an_image_that_cannot_be_used_is_named(tmp_path, images, message):
    write(tmp_path, [], images=images)
    with pytest.raises(InputError, match=message):
        Coco(tmp_path)


@pytest.mark.parametrize(
    ("categories", "message"),
    [
        ([], "categories: there is none"),
        ([{"id": "x"}], "the id 'x' is not a whole number"),
        ([{"id": 7}, {"id": 7}], "the id 7 is there twice"),
    ],
)
def test_categories_that_cannot_be_used_are_named(tmp_path, categories, message):
    write(tmp_path, [], categories=categories)
    with pytest.raises(InputError, match=message):
        Coco(tmp_path)


def test_of_many_problems_three_are_named(tmp_path):
    write(tmp_path, [annotation(k, image=9) for k in range(5)])
    with pytest.raises(InputError, match=r"(?s)annotation 0.*annotation 2.*and 2 more like these"):
        Coco(tmp_path)


def test_an_image_of_another_size_is_refused_when_read(tmp_path):
    write(tmp_path, [], images=[{"id": 1, "file_name": "a.png", "height": 60, "width": 80}])
    with pytest.raises(InputError, match=r"a\.png: has 6 x 8 pixels, but annotations\.json says 60 x 80"):
        Coco(tmp_path)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'{"images": [{"id": 1', "is cut short or not JSON .line 1, column 21"),
        (b"", "is cut short or not JSON"),
        (b"\x80\x81{", "is not JSON"),
        (b"[" * 100_000, "is not JSON"),
        (b"[]", "is not in COCO's form: images, annotations, categories missing"),
        (b'{"images": []}', "is not in COCO's form: annotations, categories missing"),
    ],
)
def test_a_file_that_is_not_coco_is_refused(tmp_path, content, message):
    (tmp_path / "annotations.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"annotations\.json: {message}"):
        Coco(tmp_path)


def test_a_path_without_a_json_is_refused(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file; give a COCO JSON"):
        Coco(tmp_path / "nowhere")
    with pytest.raises(InputError, match="holds 0 JSON files"):
        Coco(tmp_path)


def test_a_json_that_cannot_be_opened_is_an_input_error(tmp_path, monkeypatch):
    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, [])
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match=r"annotations\.json: cannot be read: Permission denied"):
        Coco(tmp_path)
