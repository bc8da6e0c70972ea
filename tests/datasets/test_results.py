"""Results as the official tools read them: written from what was found, read back, and scored as the model is."""

import json

import numpy as np
import pytest

from attractor.datasets import open_dataset
from attractor.datasets.cityscapes import write_cityscapes
from attractor.datasets.classes import as_one_class, renumbered_objects, with_classes
from attractor.datasets.coco import write_coco
from attractor.datasets.dsb2018 import write_dsb2018
from attractor.datasets.label_images import write_label_images
from attractor.datasets.results import check_results, found_in, write_results
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.evaluation import class_numbers, evaluate
from attractor.instances import Instances

WRITERS = {"coco": write_coco, "cityscapes": write_cityscapes, "dsb2018": write_dsb2018}
PATHS = {"coco": "found.json", "cityscapes": "found", "dsb2018": "found.csv"}


def sample(name, seed):
    labels = np.zeros((40, 48), np.int32)
    labels[2:14, 3:20], labels[14:30, 3:20], labels[5:35, 25:45] = 1, 2, 3
    image = np.random.default_rng(seed).integers(0, 255, (40, 48, 3)).astype(np.uint8)
    return Sample(name, image, labels, np.array([1, 2, 1], np.int32), np.zeros(labels.shape, bool))


def found(one):
    """Two of the three objects, one of them smaller than it is, with different scores."""
    labels = np.where(one.labels == 2, 0, one.labels)
    labels[labels == 3] = 2
    labels[5:12, 25:45] = 0
    return Instances(labels.astype(np.int32), np.array([1, 1], np.int32), np.array([0.9, 0.25], np.float32))


@pytest.fixture(params=WRITERS)
def dataset(request, tmp_path):
    WRITERS[request.param](tmp_path / "data", [sample("one", 1), sample("two", 2)], ["car", "bus"])
    return request.param, open_dataset(tmp_path / "data")


def test_results_that_are_written_score_as_what_was_found(dataset, tmp_path):
    layout, images = dataset
    pairs = [(images[k], found(images[k])) for k in range(2)]
    path = tmp_path / PATHS[layout]
    given = evaluate(pairs, metric="pascal_voc", results=lambda found: write_results(path, found, images))
    read = evaluate(found_in(path, images), metric="pascal_voc")
    if layout == "dsb2018":  # which keeps no scores
        assert read.summary.n_found == given.summary.n_found
    else:
        assert read.summary.volume == given.summary.volume


def test_results_of_some_classes_have_the_numbers_of_all(tmp_path):
    write_coco(tmp_path / "data", [sample("one", 1)], ["car", "bus"])
    images = with_classes(open_dataset(tmp_path / "data"), ["bus"])
    only = Instances((images[0].labels > 0).astype(np.int32), np.array([1]), np.array([0.5], np.float32))
    write_results(tmp_path / "found.json", [("one", only)], images)
    (entry,) = json.loads((tmp_path / "found.json").read_text())
    assert entry["category_id"] == 2
    ((_, back),) = found_in(tmp_path / "found.json", images)
    assert back.classes.tolist() == [1]
    ((_, back),) = found_in(tmp_path / "found.json", as_one_class(open_dataset(tmp_path / "data")))
    assert back.classes.tolist() == [1]


def test_results_without_classes_cannot_be_written(tmp_path):
    write_coco(tmp_path / "data", [sample("one", 1)], ["car", "bus"])
    images = as_one_class(open_dataset(tmp_path / "data"))
    with pytest.raises(InputError, match="--ignore-classes leaves out; give one or the other"):
        check_results(tmp_path / "found.json", images)


def test_a_layout_without_an_official_form_has_no_results_file(tmp_path):
    write_label_images(tmp_path / "data", [sample("one", 1)])
    with pytest.raises(InputError, match="known for coco, cityscapes, dsb2018, not for a data set in the layout label"):
        check_results(tmp_path / "found.json", open_dataset(tmp_path / "data"))


def test_results_go_into_what_the_official_tool_reads(dataset, tmp_path):
    layout, images = dataset
    (tmp_path / "file").write_text("")
    wrong = tmp_path / {"coco": "found.txt", "cityscapes": "file", "dsb2018": "found.json"}[layout]
    with pytest.raises(InputError, match=r"results for a data set in the layout .* are a "):
        check_results(wrong, images)


def test_a_folder_that_is_not_there_is_refused_before_anything_is_computed(dataset, tmp_path):
    layout, images = dataset
    with pytest.raises(InputError, match="there is no such folder; make it"):
        check_results(tmp_path / "missing" / PATHS[layout], images)


def test_a_file_of_another_benchmark_is_refused(dataset, tmp_path):
    layout, images = dataset
    other = tmp_path / ("found.json" if layout != "coco" else "found.csv")
    other.write_text("[]")
    with pytest.raises(InputError, match="cannot be read from such a file; give a folder of label images, or for coco"):
        found_in(other, images)
    with pytest.raises(InputError, match="no such file or folder; give the one that holds the results"):
        found_in(tmp_path / "nowhere", images)


# --- classes


@pytest.mark.parametrize(
    ("own", "true", "numbers"),
    [
        (["cell"], ["nucleus"], None),  # one each: names do not matter
        (["car", "bus"], ["car", "bus"], (1, 2)),
        (["bus", "car", "tram"], ["car", "bus"], (2, 1, 0)),
        (["car", "bus"], ["car"], (1, 0)),
        (["car", "bus"], ["object"], (1, 1)),
        (["a", "b"], ["car", "bus"], None),
        (["a", "b", "c"], ["car", "bus"], (1, 2, 0)),
        (["object", "b"], ["any class"], (1, 1)),
    ],
)
def test_classes_are_compared_by_name(own, true, numbers):
    found = class_numbers(tuple(own), tuple(true))
    assert found == numbers


def test_objects_of_a_class_that_is_left_out_are_gone():
    labels = np.array([[1, 2, 3]], np.int32)
    given = Instances(labels, np.array([1, 2, 1]), np.array([0.5, 0.6, 0.7], np.float32))
    kept = renumbered_objects(given, (0, 1))
    assert (kept.labels.tolist(), kept.classes.tolist()) == ([[0, 1, 0]], [1])
    assert kept.scores.tolist() == pytest.approx([0.6])


def test_what_an_object_that_is_left_out_hid_comes_to_light():
    masks = [np.array([[True, True, True]]), np.array([[False, True, True]])]
    given = Instances.from_masks(masks, np.array([1, 2]), np.array([0.5, 0.9], np.float32), (1, 3))
    assert given.labels.tolist() == [[1, 2, 2]]
    assert renumbered_objects(given, (1, 0)).labels.tolist() == [[1, 1, 1]]
    assert renumbered_objects(given, (2, 1)).labels.tolist() == [[1, 2, 2]]
