"""Some classes of a data set, or all as one."""

import dataclasses

import numpy as np
import pytest

from attractor.datasets.classes import as_one_class, with_classes
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.instances import Annotations, Instances


class Street:
    """One image: a car, a crowd of trams and another car."""

    class_names = ("car", "tram", "bicycle")
    names = ("street",)
    columns: dict[str, dict[str, str]] = {}  # noqa: RUF012

    def __len__(self):
        return 1

    def __getitem__(self, index):
        masks = [np.arange(5)[None] == column for column in (0, 1, 2)]
        whole = Instances.from_masks(masks, np.array([1, 2, 1]), np.ones(3, np.float32), (1, 5))
        void = np.array([[False, False, False, False, True]])

        def annotate():
            return dataclasses.replace(Annotations.of(whole, void), is_crowd=np.array([False, True, False]))

        labels, ignore = np.array([[1, 0, 2, 0, 0]], np.int32), np.array([[False, True, False, False, True]])
        return Sample("street", np.zeros((1, 5, 3), np.uint8), labels, np.array([1, 1]), ignore, annotate)


def test_objects_of_other_classes_are_background():
    (sample,) = (with_classes(Street(), ["car"])[i] for i in range(1))
    assert sample.labels.tolist() == [[1, 0, 2, 0, 0]]
    assert sample.classes.tolist() == [1, 1]
    assert sample.ignore.tolist() == [[False, False, False, False, True]]


def test_classes_are_numbered_in_the_order_given():
    dataset = with_classes(Street(), ["tram", "car"])
    assert dataset.class_names == ("tram", "car")
    assert dataset[0].classes.tolist() == [2, 2]
    assert dataset[0].ignore.tolist() == [[False, True, False, False, True]]
    assert dataset[0].annotate().classes.tolist() == [2, 1, 2]


def test_annotations_keep_the_same_classes():
    annotations = with_classes(Street(), ["tram"])[0].annotate()
    assert (annotations.classes.tolist(), annotations.is_crowd.tolist()) == ([1], [True])
    assert [mask.tolist() for mask in annotations.masks] == [[1, 1, 3]]
    assert annotations.void.sum() == 1


def test_what_a_class_that_is_left_out_covered_is_shown_again():
    class Covered(Street):
        def __getitem__(self, index):
            masks = [np.array([[True, True, False, False, False]]), np.array([[False, True, True, False, False]])]
            truth = Instances.from_masks(masks, np.array([1, 2]), np.ones(2, np.float32), (1, 5))
            ignore = np.array([[False, True, False, False, True]])
            labels = np.array([[1, 0, 2, 0, 0]], np.int32)
            void = np.array([[False, False, False, False, True]])
            return Sample(
                "a", np.zeros((1, 5, 3), np.uint8), labels, truth.classes, ignore, lambda: Annotations.of(truth, void)
            )

    sample = with_classes(Covered(), ["car"])[0]
    assert sample.labels.tolist() == [[1, 1, 0, 0, 0]]
    assert sample.ignore.tolist() == [[False, False, False, False, True]]
    assert len(sample.annotate().masks) == 1


def test_all_classes_as_one():
    dataset = as_one_class(Street())
    assert dataset.class_names == ("any class",)
    assert dataset[0].classes.tolist() == [1, 1]
    assert dataset[0].annotate().classes.tolist() == [1, 1, 1]


def test_a_class_that_is_not_there():
    with pytest.raises(InputError, match="no class 'ship'; its classes: car, tram, bicycle"):
        with_classes(Street(), ["car", "ship"])


@pytest.mark.parametrize("names", [[], ["car", "car"]])
def test_classes_are_given_once(names):
    with pytest.raises(InputError, match="give each once, and at least one"):
        with_classes(Street(), names)
