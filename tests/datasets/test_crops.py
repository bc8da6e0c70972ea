"""Crops as a data set: where they lie, what is in them, and which are left out."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from attractor.datasets import Crops, Dataset, Sample, cropped, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask

LABELS = np.array(
    [
        [1, 1, 1, 0, 0, 0, 5],
        [1, 1, 1, 0, 0, 0, 5],
        [0, 0, 0, 0, 0, 0, 5],
        [2, 0, 3, 4, 0, 0, 5],
        [9, 9, 9, 9, 9, 9, 9],
    ],
    np.int32,
)


class Listed:
    """Samples in memory as a data set that counts how often it is read."""

    class_names = ("stone", "leaf")

    def __init__(self, *labels: np.ndarray) -> None:
        self.labels, self.n_read = labels, 0
        self.names = tuple("abc"[: len(labels)])
        self.columns = {"kind": {"a": "x"}}

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> Sample:
        self.n_read += 1
        labels = self.labels[index]
        image = np.arange(labels.size, dtype=np.uint8).reshape(*labels.shape, 1)
        classes = 1 + np.arange(int(labels.max(initial=0))) % 2  # odd labels are stones, even ones leaves
        return Sample(self.names[index], image, labels, classes.astype(np.int32), labels == 3)


def test_crops_lie_on_a_grid_and_hold_their_own_objects():
    crops = Crops(Listed(LABELS), 2)
    assert isinstance(crops, Dataset)
    assert crops.names == ("a_r0_c0", "a_r0_c2", "a_r2_c0", "a_r2_c2")  # column 6 and row 4 make no whole crop
    assert crops.class_names == ("stone", "leaf")
    third, last = crops[2], crops[3]
    assert (third.name, last.name) == ("a_r2_c0", "a_r2_c2")
    assert third.labels.tolist() == [[0, 0], [1, 0]]
    assert last.labels.tolist() == [[0, 0], [1, 2]]
    assert (third.classes.tolist(), last.classes.tolist()) == ([2], [1, 2])
    assert last.image[..., 0].tolist() == [[16, 17], [23, 24]]
    assert last.ignore.tolist() == [[False, False], [True, False]]


def test_crops_with_too_few_or_too_many_objects_are_left_out_and_counted():
    crops = Crops(Listed(LABELS), 2, max_objects=1)
    assert crops.names == ("a_r0_c0", "a_r0_c2", "a_r2_c0")
    assert (crops.left_out_empty, crops.left_out_crowded) == (2, 1)
    assert crops.in_words() == ("3 crops of 2 x 2 pixels; 2 without an object and 1 with more than 1 objects left out.")
    every = Crops(Listed(LABELS), 2, min_objects=0)
    assert (len(every), every.in_words()) == (6, "6 crops of 2 x 2 pixels; none left out.")
    two = Crops(Listed(LABELS), 2, min_objects=2)
    assert two.in_words() == "1 crop of 2 x 2 pixels; 5 with fewer than 2 objects left out."


def test_a_smaller_image_gives_crops_of_its_whole_axis():
    crops = Crops(Listed(LABELS), 6)
    assert [crops[i].labels.shape for i in range(len(crops))] == [(5, 6)]
    assert Crops(Listed(LABELS), 500)[0].labels.shape == LABELS.shape


def test_a_crop_of_the_whole_image_is_the_image():
    labels = np.arange(16, dtype=np.int32).reshape(4, 4)
    dataset = Listed(labels)
    crop, whole = Crops(dataset, 4)[0], dataset[0]
    for part in ("image", "labels", "classes", "ignore"):
        np.testing.assert_array_equal(getattr(crop, part), getattr(whole, part))


def test_each_image_is_read_once_to_count_and_once_to_use():
    dataset = Listed(LABELS, LABELS)
    crops = Crops(dataset, 2)
    assert dataset.n_read == 2
    names = [crops[i].name for i in range(len(crops))]
    assert (names, dataset.n_read) == (list(crops.names), 4)


def test_a_changed_crop_changes_no_other():
    crops = Crops(Listed(LABELS), 4)
    crops[0].image[:] = 0
    crops[0].ignore[:] = True
    assert crops[0].image.any()
    assert not crops[0].ignore.all()


def test_columns_come_along():
    crops = Crops(Listed(LABELS, LABELS), 4)
    assert crops.columns == {"kind": {"a_r0_c0": "x"}}  # b has none


def test_crops_are_written_as_any_data_set(tmp_path: Path):
    write_label_images(tmp_path, [Listed(LABELS)[0]])
    crops = Crops(open_dataset(tmp_path), 2)
    write_label_images(tmp_path / "crops", (crops[i] for i in range(len(crops))))
    again = open_dataset(tmp_path / "crops")
    assert again.names == crops.names
    for i in range(len(crops)):
        np.testing.assert_array_equal(again[i].labels, crops[i].labels)


def test_without_a_size_the_data_set_stays_as_it_is():
    dataset = Listed(LABELS)
    assert cropped(dataset, None, None) is dataset
    assert len(cropped(dataset, 2, 1)) == 3
    with pytest.raises(InputError, match="give their size, too, as in --crop 128"):
        cropped(dataset, None, 20)


def test_what_cannot_be_cut_is_refused():
    with pytest.raises(InputError, match="size of crops is 0"):
        Crops(Listed(LABELS), 0)
    with pytest.raises(InputError, match="at least 1 objects and at most 0"):
        Crops(Listed(LABELS), 2, max_objects=0)
    with pytest.raises(InputError, match="No crop of 2 pixels is left of 1 image: 6 have too few objects and 0"):
        Crops(Listed(np.zeros_like(LABELS)), 2)


def test_a_crop_has_its_part_of_the_annotations():
    class Annotated(Listed):
        def __getitem__(self, index):
            masks = [np.zeros((4, 8), bool) for _ in range(3)]
            masks[0][0:2, 0:2], masks[1][1:3, 1:6], masks[2][:, 6:] = True, True, True
            truth = Instances.from_masks(masks, np.array([1, 2, 2]), np.ones(3, np.float32), (4, 8))
            given = Annotations.of(truth, np.zeros((4, 8), bool))
            crowd = np.array([False, False, True])
            areas = np.array([4.5, 10.0, 8.0])
            given = dataclasses.replace(given, is_crowd=crowd, areas=areas)
            sample = super().__getitem__(index)
            return dataclasses.replace(sample, labels=truth.labels, classes=truth.classes, annotate=lambda: given)

    crops = Crops(Annotated(np.zeros((4, 8), np.int32)), 4)
    left, right = (crops[k].annotate() for k in range(2))
    assert [decode_mask(mask, (4, 4)).sum() for mask in left.masks] == [4, 6]
    assert (left.classes.tolist(), left.areas.tolist()) == ([1, 2], [4.5, 6.0])  # whole, and cut
    assert (right.classes.tolist(), right.is_crowd.tolist()) == ([2, 2], [False, True])
