"""Every layout is written so that it reads the same again, and what it cannot hold is said."""

import dataclasses

import numpy as np
import pytest

from attractor.datasets import DATASETS, layout_of, open_dataset
from attractor.datasets.checking import check
from attractor.datasets.coco import Coco, write_coco
from attractor.datasets.converting import convert
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask


def sample(name="first image é", classes=(1, 2, 1)):
    labels = np.zeros((12, 16), np.int32)
    labels[1:5, 1:6] = 1
    labels[5:9, 2:6] = 2  # touches the first
    labels[2:11, 9:15] = 3
    labels[4:6, 11:13] = 0  # a hole
    image = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    return Sample(name, image, labels, np.array(classes, np.int32), np.zeros(labels.shape, bool))


@pytest.fixture
def street(tmp_path):
    """A data set in COCO's form of two images, the second without an object."""
    empty = np.zeros((12, 16), np.int32)
    second = dataclasses.replace(sample("second"), labels=empty, classes=np.zeros(0, np.int32))
    write_coco(tmp_path / "coco", [sample(), second], ["car", "bus"])
    return open_dataset(tmp_path / "coco")


def objects(one):
    """The objects of a sample as sets of pixels, which have no order."""
    return {tuple(np.flatnonzero(one.labels == k + 1).tolist()) for k in range(len(one.classes))}


@pytest.mark.parametrize("layout", DATASETS)
def test_what_is_converted_reads_the_same(layout, street, tmp_path):
    convert(street, tmp_path / "out", layout)
    assert layout_of(tmp_path / "out") == layout
    found = open_dataset(tmp_path / "out")
    assert len(found) == 2
    first, second = sorted((found[i] for i in range(2)), key=lambda one: -len(one.classes))
    assert objects(first) == objects(sample())
    assert np.array_equal(first.image, sample().image)
    assert (len(second.classes), second.ignore.any()) == (0, False)
    if DATASETS[layout].holds.classes:
        names = {found.class_names[number - 1] for number in first.classes}
        assert names == {"car", "bus"}


@pytest.mark.parametrize("layout", DATASETS)
def test_every_layout_is_checked(layout, street, tmp_path):
    convert(street, tmp_path / "out", layout)
    report = check(tmp_path / "out")
    assert report.errors == ()
    assert report.facts[0].startswith(f"{tmp_path / 'out'}: {layout}, 2 readable images")
    assert report.counts["objects"] == 3


@pytest.mark.parametrize("layout", [name for name, layout in DATASETS.items() if not layout.holds.classes])
def test_classes_that_become_one_are_named(layout, street, tmp_path):
    assert "2 classes became one: car, bus." in convert(street, tmp_path / "out", layout)


def test_a_layout_that_keeps_everything_says_nothing(street, tmp_path):
    assert convert(street, tmp_path / "out", "coco") == ()


def test_ignored_pixels_and_columns_that_are_lost_are_said(tmp_path):
    ignore = np.zeros((12, 16), bool)
    ignore[0, 0] = True
    write_coco(tmp_path / "coco", [dataclasses.replace(sample(), ignore=ignore)], ["car", "bus"])
    lost = convert(open_dataset(tmp_path / "coco"), tmp_path / "out", "label-images")
    assert "1 image with ignored pixels, which became background." in lost
    write_label_images(tmp_path / "labels", [sample("a")], columns={"kind": {"a": "day"}})
    lost = convert(open_dataset(tmp_path / "labels"), tmp_path / "plants", "cvppp")
    assert lost == ("The columns kind of the images are not kept.",)
    assert convert(open_dataset(tmp_path / "labels"), tmp_path / "labels out", "label-images") == ()


def overlapping(folder):
    """Two cars of which one covers a part of the other, and a third that lies within the second."""
    boxes = [(1, 1, 6, 8), (4, 5, 10, 14), (5, 9, 7, 12)]
    masks = [np.zeros((12, 16), bool) for _ in boxes]
    for mask, (top, left, bottom, right) in zip(masks, boxes, strict=True):
        mask[top:bottom, left:right] = True
    truth = Instances.from_masks(masks, np.ones(3, np.int32), np.ones(3, np.float32), (12, 16))
    given = dataclasses.replace(
        sample("one", (1, 1)),
        labels=np.where(sum(mask.astype(int) for mask in masks) == 1, np.minimum(truth.labels, 2), 0).astype(np.int32),
        annotate=lambda: Annotations.of(truth, np.zeros((12, 16), bool)),
        ignore=sum(mask.astype(int) for mask in masks) > 1,
    )
    write_coco(folder, [given], ["car"])
    return masks


@pytest.mark.parametrize("layout", [name for name, layout in DATASETS.items() if layout.holds.overlaps])
def test_objects_that_overlap_stay_whole(layout, tmp_path):
    masks = overlapping(tmp_path / "coco")
    assert convert(open_dataset(tmp_path / "coco"), tmp_path / "out", layout) == ()
    annotations = open_dataset(tmp_path / "out")[0].annotate()
    found = {decode_mask(runs, (12, 16)).tobytes() for runs in annotations.masks}
    assert found == {mask.tobytes() for mask in masks}
    assert not annotations.is_crowd.any()


@pytest.mark.parametrize("layout", [name for name, layout in DATASETS.items() if not layout.holds.overlaps])
def test_overlaps_that_are_lost_are_said(layout, tmp_path):
    overlapping(tmp_path / "coco")
    said = "1 image with pixels of two objects, which became neither's; 1 object without a pixel of their own left out."
    assert said in convert(open_dataset(tmp_path / "coco"), tmp_path / "out", layout)


def with_a_crowd(folder):
    """A car, and a crowd of buses in a corner."""
    crowd = np.zeros((12, 16), bool)
    crowd[:, 12:] = True
    car = np.zeros((12, 16), bool)
    car[2:7, 3:9] = True
    truth = Instances.from_masks([car, crowd], np.array([1, 2], np.int32), np.ones(2, np.float32), (12, 16))
    given = dataclasses.replace(Annotations.of(truth, np.zeros((12, 16), bool)), is_crowd=np.array([False, True]))
    one = dataclasses.replace(sample("one", (1,)), labels=car.astype(np.int32), ignore=crowd, annotate=lambda: given)
    write_coco(folder, [one], ["car", "bus"])


@pytest.mark.parametrize("layout", [name for name, layout in DATASETS.items() if layout.holds.crowds])
def test_crowds_keep_their_class(layout, tmp_path):
    with_a_crowd(tmp_path / "coco")
    assert convert(open_dataset(tmp_path / "coco"), tmp_path / "out", layout) == ()
    found = open_dataset(tmp_path / "out")
    (crowd,) = np.flatnonzero(found[0].annotate().is_crowd)
    assert found.class_names[found[0].annotate().classes[crowd] - 1] == "bus"
    assert np.array_equal(found[0].ignore[:, 12:], np.ones((12, 4), bool))


@pytest.mark.parametrize("layout", [name for name, layout in DATASETS.items() if not layout.holds.crowds])
def test_crowds_that_are_lost_are_said(layout, tmp_path):
    with_a_crowd(tmp_path / "coco")
    became = "ignored pixels without a class" if DATASETS[layout].holds.ignore else "background"
    assert f"1 image with crowds, which became {became}." in convert(
        open_dataset(tmp_path / "coco"), tmp_path / "out", layout
    )


def test_void_is_a_crowd_of_every_class(tmp_path):
    ignore = np.zeros((12, 16), bool)
    ignore[0] = True
    write_coco(tmp_path / "coco", [dataclasses.replace(sample(), ignore=ignore)], ["car", "bus"])
    annotations = open_dataset(tmp_path / "coco")[0].annotate()
    assert annotations.classes[annotations.is_crowd].tolist() == [1, 2]


def test_polygons_that_touch_do_not_count_as_overlapping(tmp_path):
    write_coco(tmp_path / "coco", [sample()], ["car", "bus"])
    assert not any(
        "pixels of two" in said for said in convert(open_dataset(tmp_path / "coco"), tmp_path / "o", "cvppp")
    )


def test_an_error_leaves_nothing_behind(tmp_path):
    write_coco(tmp_path / "coco", [sample()], ["car", "spaceship"])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=rf"^{tmp_path / 'out'}: 'spaceship' cannot be written"):
        convert(open_dataset(tmp_path / "coco"), tmp_path / "out", "cityscapes")
    assert sorted(tmp_path.iterdir()) == before


def test_existing_files_are_not_replaced(street, tmp_path):
    with pytest.raises(InputError, match="is there already; give a folder that is new or empty"):
        convert(street, tmp_path / "coco", "coco")


def test_a_layout_that_is_not_there(street, tmp_path):
    with pytest.raises(InputError, match='There is no layout "yolo" to write; there are: label-images, coco'):
        convert(street, tmp_path / "out", "yolo")


def test_what_would_be_taken_for_another_layout_is_not_written(street, tmp_path):
    named = [dataclasses.replace(street[0], name=name) for name in ("a_rgb", "a_label")]
    write_coco(tmp_path / "named", named, ["car", "bus"])
    with pytest.raises(
        InputError, match=rf"^{tmp_path / 'out'}: would be taken for a data set in the layout cvppp, because"
    ):
        convert(Coco(tmp_path / "named"), tmp_path / "out", "geojson")
    assert not (tmp_path / "out").exists()
