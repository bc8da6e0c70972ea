"""COCO: polygons and run lengths against pycocotools, and what is said of files that cannot be used."""

import contextlib
import io
import json
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official
from pycocotools.coco import COCO

from attractor.datasets import Sample, coco_masks, open_dataset
from attractor.datasets.coco import Coco, write_coco
from attractor.datasets.coco_masks import compress_runs, expand_runs, polygon_runs_as_coco
from attractor.datasets.coco_results import write_coco_results
from attractor.datasets.polygons import fill_polygon
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask, encode_mask

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


# --- masks as pycocotools draws them


def official_counts(points: np.ndarray, shape: tuple[int, int]) -> str:
    """Compressed runs of a polygon."""
    return official.frPyObjects([points.ravel().tolist()], *shape)[0]["counts"].decode()


@pytest.mark.parametrize("extent", [2, 20, 60, 400])
@pytest.mark.parametrize("step", [0, 0.1, 0.5, 1])  # coordinates are multiples of it, or any numbers
def test_polygons_are_those_of_pycocotools_to_the_pixel(extent, step):
    generator = np.random.default_rng(0)
    for _ in range(60):
        shape = int(generator.integers(1, 70)), int(generator.integers(1, 70))
        middle = generator.uniform(-20, 80, 2) * (generator.random() < 0.7)
        points = middle + generator.uniform(-0.5 * extent, extent, (int(generator.integers(3, 12)), 2))
        points = np.round(points / step) * step if step else points
        runs = polygon_runs_as_coco(points, shape)
        assert compress_runs(runs) == official_counts(points, shape)


def test_polygons_that_reach_far_out_are_those_of_pycocotools():
    generator = np.random.default_rng(0)
    for _ in range(10):
        points = generator.uniform(-40_000, 40_000, (5, 2))
        assert compress_runs(polygon_runs_as_coco(points, (50, 60))) == official_counts(points, (50, 60))
    assert polygon_runs_as_coco(np.array([[-9e6, -9e6], [9e6, -9e6], [0, 9e6]]), (2, 3)).tolist() == [0, 6]


def test_a_polygon_without_a_pixel_has_one_run():
    for points in ([[2, 2], [2, 2], [2, 2]], [[2, 2], [2.3, 2.1], [2.1, 2.4]], [[-9, 1], [-4, 1], [-4, 4]]):
        assert polygon_runs_as_coco(np.array(points, float), (6, 8)).tolist() == [48]


def test_several_polygons_are_united_as_in_pycocotools(tmp_path):
    generator = np.random.default_rng(0)
    for _ in range(30):
        polygons = [
            np.round(generator.uniform(-3, 10, (int(generator.integers(3, 6)), 2)), 1).ravel().tolist()
            for _ in range(generator.integers(1, 5))
        ]
        truth = annotated(write(tmp_path, [annotation(outline=polygons)]))
        merged = official.merge(official.frPyObjects(polygons, 6, 8))
        assert compress_runs(truth.masks[0]) == merged["counts"].decode()
        assert truth.areas.tolist() == [official.area(merged)]


# --- annotations


def annotated(path: Path) -> Annotations:
    """What is annotated in the one image of a data set."""
    sample = Coco(path)[0]
    assert sample.annotate is not None
    return sample.annotate()


def test_every_annotation_is_there_whole(tmp_path):
    runs = {"size": [6, 8], "counts": [0, 48]}
    truth = annotated(
        write(
            tmp_path,
            [
                annotation(3, area=7.5),
                annotation(1, category=3, outline=runs, iscrowd=1, area=40),
                annotation(2, outline=[[2, 2, 3, 2, 3, 3, 2, 3], [5, 5, 7, 5, 7, 6, 5, 6, 5, 5.5]]),
            ],
        )
    )
    assert truth.classes.tolist() == [2, 1, 2]
    assert truth.is_crowd.tolist() == [False, True, False]
    assert truth.areas.tolist() == [7.5, 40, 3]  # the last one's is that of its mask
    assert [decode_mask(mask, (6, 8)).sum() for mask in truth.masks] == [9, 48, 3]
    assert np.isnan(truth.distances).all()
    assert truth.void.shape == (6, 8)
    assert not truth.void.any()


def test_annotations_are_drawn_when_asked_for(tmp_path, monkeypatch):
    drawn = []
    plain = coco_masks.polygon_runs_as_coco
    monkeypatch.setattr(coco_masks, "polygon_runs_as_coco", lambda *given: drawn.append(1) or plain(*given))
    sample = Coco(write(tmp_path, [annotation()]))[0]
    assert sample.annotate is not None
    assert not drawn
    sample.annotate()
    assert drawn


def test_a_sample_goes_to_another_process_without_its_data_set(tmp_path):
    write(tmp_path, [annotation()])
    sample = pickle.loads(pickle.dumps(Coco(tmp_path)[0]))
    assert sample.annotate().areas.tolist() == [9]
    assert len(pickle.dumps(sample)) < 3000


def test_an_image_without_annotations_has_none(tmp_path):
    truth = annotated(write(tmp_path, []))
    assert (truth.masks, len(truth.classes), truth.void.shape) == ((), 0, (6, 8))


def test_an_object_outside_of_the_image_is_annotated_but_in_no_label_image(tmp_path):
    outside = [value + 100 for value in SQUARE]
    write(tmp_path, [annotation(1, outline=[outside], area=9), annotation(2)])
    assert Coco(tmp_path)[0].classes.tolist() == [2]
    truth = annotated(tmp_path)  # pycocotools counts it as missed
    assert truth.areas.tolist() == [9, 9]
    assert truth.masks[0].tolist() == [48]


# --- results


def found(*masks: np.ndarray, scores: list[float], classes: list[int]) -> Instances:
    return Instances.from_masks(list(masks), np.array(classes, np.int32), np.array(scores), (6, 8))


LEFT, RIGHT = (np.arange(8) < 5) & np.ones((6, 1), bool), (np.arange(8) >= 3) & np.ones((6, 1), bool)


def test_results_written_come_back(tmp_path):
    images = [{"id": number, "file_name": "a.png"} for number in (12,)]
    dataset = Coco(write(tmp_path, [], images=images))
    given = found(LEFT, RIGHT, scores=[0.1, 1 / 3], classes=[1, 2])
    write_coco_results(tmp_path / "found.json", [(12, given)], dataset.category_ids)
    (read,) = dataset.read_results(tmp_path / "found.json")
    for part in ("labels", "classes", "scores"):
        np.testing.assert_array_equal(getattr(read, part), getattr(given, part))
    np.testing.assert_array_equal(read.mask(1), LEFT)
    np.testing.assert_array_equal(read.mask(2), RIGHT)


def test_results_are_what_pycocotools_loads(tmp_path):
    dataset = Coco(write(tmp_path, [annotation()]))
    labels = np.array([[1, 2, 2, 0, 0, 0, 0, 0]] * 6, np.int32)
    flat = Instances(labels, np.array([2, 1], np.int32), np.array([0.5, 0.25], np.float32))
    write_coco_results(tmp_path / "found.json", [(1, flat)], dataset.category_ids)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(tmp_path / "annotations.json"))
        results = truth.loadRes(str(tmp_path / "found.json"))
    entries = results.loadAnns(results.getAnnIds())
    assert [(entry["category_id"], entry["score"], entry["area"]) for entry in entries] == [(7, 0.5, 6), (3, 0.25, 12)]
    for k, entry in enumerate(entries, 1):
        np.testing.assert_array_equal(results.annToMask(entry), labels == k)


def test_no_results_are_an_empty_list(tmp_path):
    dataset = Coco(write(tmp_path, []))
    write_coco_results(tmp_path / "found.json", [], dataset.category_ids)
    assert json.loads((tmp_path / "found.json").read_text()) == []
    (read,) = dataset.read_results(tmp_path / "found.json")
    assert (len(read), read.labels.shape) == (0, (6, 8))


def test_results_that_fail_halfway_leave_no_file(tmp_path):
    def results() -> Iterator[tuple[int, Instances]]:
        yield 1, found(LEFT, scores=[0.5], classes=[1])
        yield 1, found(LEFT, scores=[0.5], classes=[3])

    with pytest.raises(InputError, match="Image 1: objects have the classes 3 to 3, but there are 2 category ids"):
        write_coco_results(tmp_path / "found.json", results(), (3, 7))
    assert list(tmp_path.iterdir()) == []


def test_results_in_any_order_go_to_their_images(tmp_path):
    images = [{"id": number, "file_name": f"{number}.png"} for number in (1, 2, 3)]
    for entry in images:
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / entry["file_name"])
    dataset = Coco(write(tmp_path, [], images=images))
    entries = [result(image_id=3, score=0.1), result(image_id=1, score=0.2), result(image_id=3, score=0.9, bbox=[])]
    (tmp_path / "found.json").write_text(json.dumps(entries))
    read = list(dataset.read_results(tmp_path / "found.json"))
    assert [one.scores.tolist() for one in read] == [[0.2], [], [0.1, 0.9]]
    assert set(np.unique(read[2].labels)) == {0, 2}  # the better hides the other


def result(**changed: Any) -> dict[str, Any]:
    """One entry of a results file; a polygon will do for a mask."""
    return {"image_id": 1, "category_id": 7, "segmentation": [SQUARE], "score": 0.5, **changed}


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (result(image_id=5), "result 1: its image_id 5 is not in the data set"),
        (result(image_id=[1]), r"result 1: its image_id \[1\] is not in the data set"),
        (result(category_id=8), "result 1: its category_id 8 is not in the data set, which has 3, 7"),
        (result(score=None), "result 1: its score None is no number"),
        (result(score=float("nan")), "result 1: its score nan is no number"),
        (result(score=True), "result 1: its score True is no number"),
        (result(score=7), "result 1: its score 7 does not lie between 0 and 1"),
        (result(segmentation={"size": [8, 6], "counts": [48]}), "result 1: its runs fill 8 x 6 pixels, but its image"),
        (result(segmentation=None), "result 1: it has no outline"),
        (17, "result 1: must be an object of image_id, category_id, segmentation and score"),
    ],
)
def test_a_result_that_cannot_be_used_is_named(tmp_path, wrong, message):
    dataset = Coco(write(tmp_path, []))
    (tmp_path / "found.json").write_text(json.dumps([result(), wrong]))
    with pytest.raises(InputError, match=rf"found\.json: {message}"):
        dataset.read_results(tmp_path / "found.json")


@pytest.mark.parametrize(
    ("counts", "message"),
    [("o", "its runs are cut short"), ([40], "its runs cover 40 pixels, but its image has 6 x 8")],
)
def test_a_result_whose_runs_do_not_fill_the_image_is_named_when_its_turn_comes(tmp_path, counts, message):
    dataset = Coco(write(tmp_path, []))
    entry = result(segmentation={"size": [6, 8], "counts": counts})
    (tmp_path / "found.json").write_text(json.dumps([entry]))
    with pytest.raises(InputError, match=rf"found\.json: result 0: {message}"):
        next(dataset.read_results(tmp_path / "found.json"))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b'[{"image_id": 1', "is cut short or not JSON"),
        (b"\x80\x81[", "is not JSON that can be read; give a JSON of results"),
        (b"{}", "is no list of results; give objects of image_id, category_id, segmentation and score in a list"),
    ],
)
def test_a_file_without_results_is_refused(tmp_path, content, message):
    dataset = Coco(write(tmp_path, []))
    (tmp_path / "found.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"found\.json: {message}"):
        dataset.read_results(tmp_path / "found.json")


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
    with pytest.raises(InputError, match="holds the splits other, train; choose one"):
        Coco(tmp_path)
    assert len(open_dataset(tmp_path / "train.json")) == 1


def test_json_files_beside_each_other_are_splits(tmp_path):
    (write(tmp_path, []) / "annotations.json").rename(tmp_path / "train.json")
    (write(tmp_path, [annotation()]) / "annotations.json").rename(tmp_path / "val.json")
    with pytest.raises(InputError, match="holds the splits train, val; choose one with --split train"):
        open_dataset(tmp_path)
    assert [len(open_dataset(tmp_path, split=split)[0].classes) for split in ("train", "val")] == [0, 1]


def downloaded(folder: Path, *parts: str) -> Path:
    """COCO's folder with some of its parts, each of one image."""
    (folder / "annotations").mkdir()
    for part in parts:
        (folder / part).mkdir()
        write(folder / part, [annotation()])
        (folder / part / "annotations.json").rename(folder / "annotations" / f"instances_{part}.json")
    return folder


def test_coco_is_read_as_it_is_downloaded(tmp_path):
    downloaded(tmp_path, "val2017")
    (tmp_path / "annotations" / "captions_val2017.json").touch()
    (tmp_path / "annotations" / "person_keypoints_val2017.json").touch()
    for path in (tmp_path, tmp_path / "annotations" / "instances_val2017.json"):
        dataset = open_dataset(path)
        assert dataset.names == ("a",)
        assert (dataset[0].labels > 0).sum() == 9


def test_of_several_parts_one_has_to_be_chosen(tmp_path):
    downloaded(tmp_path, "train2017", "val2017")
    assert Coco.recognises(tmp_path)
    for name in ("captions_train2017", "person_keypoints_train2017", "captions_val2017", "person_keypoints_val2017"):
        (tmp_path / "annotations" / f"{name}.json").write_text("{}")
    for path in (tmp_path, tmp_path / "annotations"):
        with pytest.raises(InputError, match="holds the splits train2017, val2017; choose one with --split train2017"):
            open_dataset(path)
        assert open_dataset(path, split="val2017")[0].labels.any()
        with pytest.raises(InputError, match='has no split "val"; there are: train2017, val2017'):
            open_dataset(path, split="val")
    one = tmp_path / "annotations" / "instances_train2017.json"
    assert len(open_dataset(one)) == 1
    with pytest.raises(InputError, match='holds no splits to choose from; leave out the split "val"'):
        open_dataset(one, split="val")


def test_a_folder_of_other_annotations_is_not_coco(tmp_path):
    (tmp_path / "annotations").mkdir()
    (tmp_path / "annotations" / "captions_val2017.json").touch()
    assert not Coco.recognises(tmp_path)


@pytest.mark.parametrize(
    ("json_file", "folder"),
    [
        ("instances_train2017.json", "train2017"),
        ("train.json", "train"),
        ("annotations/train.json", "images"),
        ("annotations/a_train.json", "train"),
    ],
)
def test_images_lie_in_a_folder_named_as_the_json_or_beside_it(tmp_path, json_file, folder):
    (tmp_path / folder / "x").mkdir(parents=True)
    (tmp_path / folder / "y").mkdir()
    (tmp_path / json_file).parent.mkdir(exist_ok=True)
    document = (write(tmp_path, []) / "annotations.json").read_text().replace('"a.png"', '"x/a.png"')
    (tmp_path / "a.png").rename(tmp_path / folder / "x" / "a.png")
    (tmp_path / "annotations.json").unlink()
    (tmp_path / json_file).write_text(document)
    assert Coco(tmp_path / json_file)[0].name == "a"
    twice = json.loads(document)
    twice["images"].append({"id": 2, "file_name": "y/a.png"})
    (tmp_path / folder / "y" / "a.png").write_bytes((tmp_path / folder / "x" / "a.png").read_bytes())
    (tmp_path / json_file).write_text(json.dumps(twice))
    assert Coco(tmp_path / json_file).names == (f"{folder}_x_a", f"{folder}_y_a")


def test_ids_are_kept_and_order_the_images(tmp_path):
    names = {30: "c.png", 4: "b.png", 17: "ä ö.png"}
    for name in names.values():
        Image.fromarray(np.zeros((6, 8), np.uint8)).save(tmp_path / name)
    dataset = Coco(write(tmp_path, [], images=[{"id": k, "file_name": name} for k, name in names.items()]))
    assert dataset.image_ids == (4, 17, 30)
    assert dataset.names == ("b", "ä ö", "c")
    assert dataset.category_ids == (3, 7)
    images = [{"id": "30", "file_name": "c.png"}, {"id": 4, "file_name": "b.png"}]
    assert Coco(write(tmp_path, [], images=images)).image_ids == ("30", 4)


def test_file_names_with_spaces_and_letters_of_any_alphabet_are_read(tmp_path):
    folder = tmp_path / "наборы данных"
    folder.mkdir()
    Image.fromarray(np.zeros((6, 8), np.uint8)).save(folder / "細胞 Größe 1.png")
    dataset = Coco(write(folder, [annotation()], images=[{"id": 1, "file_name": "細胞 Größe 1.png"}]))
    assert dataset[0].name == "細胞 Größe 1"


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
        (annotation(4, outline=[[1, 1, 2, 2, 3, 10**400]]), "coordinates that are no numbers"),
        (annotation(4, outline=[[True] * 6]), "coordinates that are no numbers"),
        (annotation(4, iscrowd=2), "annotation 4: its iscrowd is 2; it is 0 for an object and 1 for a crowd"),
        (annotation(4, iscrowd="no"), "annotation 4: its iscrowd is 'no'"),
        (annotation(4, category=True), "annotation 4: its category_id True does not exist"),
        (annotation(4, area="9"), "annotation 4: its area '9' is no number of pixels"),
        (annotation(4, area=-1), "annotation 4: its area -1 is no number of pixels"),
        (annotation(4, area=float("inf")), "annotation 4: its area inf is no number of pixels"),
        (annotation(4, area=10**400), r"annotation 4: its area 10+\.\.\.0+ is no number of pixels"),
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
        ([{"id": 1, "file_name": "z.png"}], "image 1: its file 'z.png' is not in"),
        ([{"id": 1, "file_name": "../a.png"}], "image 1: its file_name '../a.png' leads out of the data set's folder"),
        ([{"id": 1, "file_name": "/etc/passwd"}], "leads out"),
        ([{"id": 1, "file_name": "C:\\a.png"}], "leads out"),
        ([{"id": 1, "file_name": "x\\..\\..\\a.png"}], "leads out"),
        ([{"id": 1, "file_name": "a\0.png"}], "leads out"),
        ([{"id": 1, "file_name": "a" * 5000}], r"image 1: its file 'a+\.\.\.a+' is not in"),
        ([{"id": 1, "file_name": "\ud800.png"}], "image 1: its file .* is not in"),
        (
            [{"id": 1, "file_name": "a.png", "height": "6", "width": 8}],
            "its height is '6' and its width 8; both must be",
        ),
        ([{"id": 1, "file_name": "a.png", "height": 6}], "its height is 6 and its width None; both must be"),
        ([{"id": 1, "file_name": "a.png", "height": 10**9, "width": 10**9}], "its height is 10+ and its width 10+;"),
        ([{"id": True, "file_name": "a.png"}], "image True: it has no id"),
        ([{"id": 1}], "image 1: it has no file_name"),
        ([{"file_name": "a.png"}], "image None: it has no id"),
        ([{"id": 1, "file_name": "a.png"}] * 2, "image 1: its id is there twice"),
        ([{"id": 1, "file_name": "a.png"}, {"id": 2, "file_name": "a.png"}], "images: two have the same name"),
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
        ([], "categories: there are none"),
        ([{"id": 1, "name": "car"}, {"id": 2, "name": "car"}], "categories: two have the name 'car', and classes are"),
        ([{"id": 1}, {"id": 2, "name": "1"}], "categories: two have the name '1'"),
        ([{"id": 1, "name": 5}], "categories: the name of 1 is 5 where a text should be"),
        ([{"id": "x"}], "the id 'x' is not a whole number"),
        ([{"id": 7}, {"id": 7}], "the id 7 is there twice"),
    ],
)
def test_categories_that_cannot_be_used_are_named(tmp_path, categories, message):
    write(tmp_path, [], categories=categories)
    with pytest.raises(InputError, match=message):
        Coco(tmp_path)


def test_annotations_that_share_an_id_are_named(tmp_path):
    write(tmp_path, [annotation(4), annotation(5), annotation(4, category=3)])
    with pytest.raises(InputError, match="annotation 4: its id is there twice; number the annotations anew"):
        Coco(tmp_path)
    without = [{key: value for key, value in annotation().items() if key != "id"}] * 2
    assert Coco(write(tmp_path, without)).object_count(0) == 2


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
        (b'{"images": [{"id": ' + b"1" * 6000 + b"}]}", "is not JSON that can be read"),
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
    with pytest.raises(InputError, match="holds no JSON; give a COCO JSON"):
        Coco(tmp_path)


def test_a_json_that_cannot_be_opened_is_an_input_error(tmp_path, monkeypatch):
    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    write(tmp_path, [])
    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match=r"annotations\.json: cannot be read: Permission denied"):
        Coco(tmp_path)


READ_ALL = """
import re, resource, sys
from pathlib import Path
from attractor.datasets import open_dataset
dataset = open_dataset(sys.argv[1])
print(sum(len(dataset[index].annotate().masks) for index in range(len(dataset))))
if (status := Path("/proc/self/status")).exists():  # Linux's ru_maxrss begins with that of the process that started it
    print(int(re.search(r"VmHWM:\\s*(\\d+)", status.read_text())[1]) * 1024)
else:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024))
"""


@pytest.mark.slow
def test_fifty_thousand_annotations_fit_into_memory(tmp_path):
    pytest.importorskip("resource")
    generator = np.random.default_rng(0)
    angles = np.linspace(0, 2 * np.pi, 30)
    images, annotations = [], []
    for number in range(500):
        Image.fromarray(np.zeros((64, 64), np.uint8)).save(tmp_path / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 64, "width": 64})
        for x, y in generator.uniform(5, 60, (100, 2)):
            outline = np.stack([x + 5 * np.cos(angles), y + 5 * np.sin(angles)], 1).ravel().tolist()
            annotations.append(annotation(len(annotations), image=number, outline=[outline], area=78.5))
    write(tmp_path, annotations, images=images)
    call = [sys.executable, "-c", READ_ALL, str(tmp_path)]
    n, most = subprocess.run(call, check=True, capture_output=True, text=True).stdout.split()
    assert int(n) == 50_000
    assert int(most) < 1 << 30  # all of the process


def test_two_classes_of_one_name_are_not_written(tmp_path):
    with pytest.raises(InputError, match="two of the classes car, car have the same name; rename one"):
        write_coco(tmp_path, [], ("car", "car"))


def test_a_box_is_that_of_the_pixels(tmp_path):
    generator = np.random.default_rng(3)
    for _ in range(50):
        mask = generator.random((7, 9)) < 0.05
        mask |= np.pad(np.ones((generator.integers(1, 4), generator.integers(1, 4)), bool), ((2, 5), (1, 7)))[:7, :9]
        x, y, width, height = coco_masks.bounding_box(encode_mask(mask), mask.shape)
        assert official.toBbox(official.encode(np.asfortranarray(mask.astype(np.uint8)))).tolist() == [
            x,
            y,
            width,
            height,
        ]
    assert coco_masks.bounding_box(np.array([63]), (7, 9)) == [0, 0, 0, 0]


def test_columns_beside_the_json_are_read_and_written(tmp_path):
    labels, image = np.zeros((4, 4), np.int32), np.zeros((4, 4, 1), np.uint8)
    one, two = (Sample(name, image, labels, np.zeros(0, np.int32), labels > 0) for name in ("a", "b.c"))
    columns = {"stain": {"a": "HE", "b.c": "none"}}
    write_coco(tmp_path / "data", [one, two], ["cell"], columns=columns)
    assert Coco(tmp_path / "data").columns == columns
    (tmp_path / "data" / "images.csv").write_text("name,stain\na,HE\n")
    with pytest.raises(InputError, match=r"images\.csv: the first column is 'name'"):
        Coco(tmp_path / "data")
    dataset, problems = Coco.salvage(tmp_path / "data")
    assert dataset.columns == {}
    assert len(problems) == 1
