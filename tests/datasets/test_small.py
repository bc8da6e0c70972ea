"""Objects too small to count: ignored in scores, and nothing else."""

import numpy as np
import pytest

from attractor.datasets import open_dataset
from attractor.datasets.sample import Sample
from attractor.datasets.small import WithoutSmall
from attractor.errors import InputError
from attractor.evaluation import evaluate, groups_of
from attractor.images import write_image, write_labels
from attractor.instances import Instances


@pytest.fixture
def dataset(tmp_path):
    for part in ("images", "labels"):
        (tmp_path / part).mkdir()
    labels = np.zeros((20, 20), np.int32)
    labels[1:3, 1:3], labels[5:15, 5:15], labels[18, 18] = 1, 2, 3
    write_image(tmp_path / "images/a.png", np.zeros((20, 20, 1), np.uint8))
    write_labels(tmp_path / "labels/a.png", labels)
    return open_dataset(tmp_path)


def test_small_objects_become_ignored_pixels(dataset):
    sample = WithoutSmall(dataset, 5)[0]
    assert (sample.labels.max(), len(sample.classes), sample.ignore.sum()) == (1, 1, 5)
    assert (sample.labels == 1).sum() == 100
    same = WithoutSmall(dataset, 1)[0]
    np.testing.assert_array_equal(same.labels, dataset[0].labels)


@pytest.mark.parametrize("metric", ["average_precision", "seg", "aji", "panoptic"])
def test_it_does_not_matter_whether_they_are_found(dataset, metric):
    images = WithoutSmall(dataset, 5)
    values = []
    for n in (1, 2, 3):  # found objects
        labels = np.where(dataset[0].labels == 2, 1, 0)
        labels[1:3, 1:3] = 2 * (n > 1)
        labels[18, 18] = 3 * (n > 2)
        result = evaluate([(images[0], Instances.from_labels(labels))], metric=metric)
        values.append(next(iter(result.tables())).rows)
    assert evaluate([(dataset[0], Instances.from_labels(labels))], metric=metric).summary.n_truth == 3
    assert result.summary.n_truth == 1
    first = [value for key, value in next(iter(values[0].values())).items() if key not in ("objects", "found")]
    for other in values[1:]:
        assert [v for k, v in next(iter(other.values())).items() if k not in ("objects", "found")] == first


def test_what_cannot_be(dataset):
    with pytest.raises(InputError, match="The least number of pixels of an object is 0; give 1 or more"):
        WithoutSmall(dataset, 0)
    sample = dataset[0]
    overlapping = type("Two", (list,), {"class_names": ("a",), "names": ("a",), "columns": {}})()
    overlapping.append(
        Sample(sample.name, sample.image, sample.labels, sample.classes, sample.ignore, annotate=lambda: None)
    )
    with pytest.raises(InputError, match="has objects that overlap"):
        WithoutSmall(overlapping, 3)[0]


def test_images_are_grouped_by_numbers(dataset):
    dataset.columns = {"objects": {"a": "3", "b": "16", "c": "17", "d": "64.5"}, "kind": {"a": "x"}}
    assert groups_of(dataset, "objects:16") == {
        "a": "objects up to 16", "b": "objects up to 16", "c": "objects above 16", "d": "objects above 16",
    }  # fmt: skip
    dataset.columns["objects"] |= {"d": "100", "e": "2"}
    assert list(dict.fromkeys(groups_of(dataset, "objects:64,16").values())) == [
        "objects up to 16", "objects up to 64", "objects above 64",
    ]  # fmt: skip
    assert groups_of(dataset, "objects")["a"] == "3"
    for column, words in (
        ("kind:16", "needs a number in each image's kind"),
        ("objects:many", "groups images by numbers"),
        ("objects:", "groups images by numbers"),
        ("none:16", "has no column 'none'"),
    ):
        with pytest.raises(InputError, match=words):
            groups_of(dataset, column)
