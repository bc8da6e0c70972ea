"""Folders in the layout of Cityscapes, results for the official script, and what is wrong with either."""

import json
import pickle
import struct
import zlib

import numpy as np
import pytest
from cityscapesscripts.helpers.labels import id2label, labels, name2label
from PIL import Image

from attractor.datasets import Cityscapes, Sample, open_dataset
from attractor.datasets.cityscapes import (
    LABELS,
    LAST_LABEL,
    MOST_OF_A_CLASS,
    ROAD,
    VOID,
    read_cityscapes_results,
    write_cityscapes,
    write_cityscapes_results,
)
from attractor.errors import InputError
from attractor.images import read_image, read_labels
from attractor.instances import Instances, decode_mask

ULM = "ulm_000001_000019"
NUMBERS = np.array(
    [
        [26000, 26000, 26001, 26001, 7, 7],  # two cars that touch, and road
        [26000, 26000, 26, 26, 7, 0],  # a group of cars; unlabelled
        [24003, 4, 29000, 29, 25, 11],  # a person; static; a caravan, caravans; a group of riders; building
    ],
    np.uint16,
)


def street(root, *, split="val", stem=ULM, numbers=NUMBERS, truth="gtFine", picture=True):
    """One picture and its annotation."""
    city = stem.split("_")[0]
    for folder in ("leftImg8bit", truth):
        (root / folder / split / city).mkdir(parents=True, exist_ok=True)
    if picture:
        image = np.arange(numbers.size * 3, dtype=np.uint8).reshape(*numbers.shape, 3)
        Image.fromarray(image).save(root / "leftImg8bit" / split / city / f"{stem}_leftImg8bit.png")
    Image.fromarray(numbers).save(root / truth / split / city / f"{stem}_{truth}_instanceIds.png")
    return root


def with_distances(root, disparity, *, camera=None, split="val", stem=ULM):
    """Disparity and camera of a picture; 0.2 m times 2,560 pixels unless told otherwise."""
    city = stem.split("_")[0]
    for folder in ("disparity", "camera"):
        (root / folder / split / city).mkdir(parents=True, exist_ok=True)
    Image.fromarray(disparity.astype(np.uint16)).save(root / "disparity" / split / city / f"{stem}_disparity.png")
    document = {"extrinsic": {"baseline": 0.2}, "intrinsic": {"fx": 2560}} if camera is None else camera
    file = root / "camera" / split / city / f"{stem}_camera.json"
    file.write_text(document if isinstance(document, str) else json.dumps(document))


def masks_of(annotations):
    """The masks as one array."""
    return np.array([decode_mask(mask, annotations.void.shape) for mask in annotations.masks])


# --- labels


def test_the_labels_are_those_of_the_official_table():
    assert VOID == tuple(label.id for label in labels if label.ignoreInEval and label.id >= 0)
    assert {label.name: label.id for label in labels if label.hasInstances and not label.ignoreInEval} == LABELS
    assert max(id2label) == LAST_LABEL
    assert not name2label["road"].ignoreInEval
    assert name2label["road"].id == ROAD


# --- samples


def test_a_sample_has_the_objects_and_ignores_groups_void_and_caravans(tmp_path):
    dataset = open_dataset(street(tmp_path) / "leftImg8bit" / "val")
    assert isinstance(dataset, Cityscapes)
    assert dataset.class_names == ("person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle")
    assert (len(dataset), dataset.names) == (1, (f"{ULM}_leftImg8bit",))
    assert dataset.columns == {"city": {f"{ULM}_leftImg8bit": "ulm"}}
    sample = dataset[0]
    assert sample.image.shape == (3, 6, 3)
    assert sample.labels.tolist() == [[2, 2, 3, 3, 0, 0], [2, 2, 0, 0, 0, 0], [1, 0, 0, 0, 0, 0]]
    assert sample.classes.tolist() == [1, 3, 3]
    assert sample.ignore.astype(int).tolist() == [[0] * 6, [0, 0, 1, 1, 0, 1], [0, 1, 1, 1, 1, 0]]


def test_annotations_have_groups_as_crowds_and_void_as_the_official_script_counts_it(tmp_path):
    sample = Cityscapes(street(tmp_path))[0]
    found = sample.annotate()
    assert found.classes.tolist() == [1, 3, 3, 2, 3]
    assert found.is_crowd.tolist() == [False, False, False, True, True]
    assert found.areas.tolist() == [1, 4, 2, 1, 2]
    assert found.void.astype(int).tolist() == [[0] * 6, [0, 0, 0, 0, 0, 1], [0, 1, 0, 1, 0, 0]]
    assert np.isnan(found.distances).all()
    numbers = [24003, 26000, 26001, 25, 26]
    np.testing.assert_array_equal(masks_of(found), [number == NUMBERS for number in numbers])
    assert len(pickle.loads(pickle.dumps(sample)).annotate().masks) == 5  # as a loader's processes send it


def test_a_picture_of_nothing_has_no_object(tmp_path):
    sample = Cityscapes(street(tmp_path, numbers=np.full((3, 4), 7, np.uint16)))[0]
    assert (len(sample.classes), sample.labels.any(), sample.ignore.any()) == (0, False, False)
    found = sample.annotate()
    assert (len(found.masks), found.void.any()) == (0, False)


def test_the_distance_is_the_median_over_pixels_that_have_one(tmp_path):
    numbers = np.array([[26000, 26000, 26000, 26001, 26001, 26001, 24000, 25]], np.uint16)
    stored = np.array([[2 * 256 + 1, 4 * 256 + 1, 0, 8 * 256 + 1, 0, 0, 0, 1]])  # 2, 4 and 8 pixels, and 0
    with_distances(street(tmp_path, numbers=numbers), stored)
    found = Cityscapes(tmp_path)[0].annotate()
    assert found.classes.tolist() == [1, 3, 3, 2]
    expected = [np.nan, (512 / 2 + 512 / 4) / 2, np.nan, np.inf]  # 1 of 3 pixels is too few
    np.testing.assert_array_equal(found.distances, expected)


def test_coarse_annotations_are_read_where_there_are_no_others_or_they_are_asked_for(tmp_path):
    coarse = np.where(NUMBERS == 7, 0, NUMBERS)
    street(street(tmp_path), numbers=coarse, truth="gtCoarse")
    street(tmp_path, split="train_extra", stem="bonn_000000_000019", numbers=coarse, truth="gtCoarse")
    assert not Cityscapes(tmp_path / "leftImg8bit" / "val")[0].ignore[0].any()
    assert not Cityscapes(tmp_path)[0].ignore[0].any()
    assert Cityscapes(tmp_path / "gtCoarse" / "val")[0].ignore[0].tolist() == [False] * 4 + [True] * 2
    assert Cityscapes(tmp_path / "leftImg8bit" / "train_extra").names == ("bonn_000000_000019_leftImg8bit",)


# --- paths


def test_split_city_and_root_are_accepted(tmp_path, monkeypatch):
    street(street(tmp_path), stem="bonn_000000_000019")
    (tmp_path / "leftImg8bit" / "val" / "ulm" / "._ulm_000001_000019_leftImg8bit.png").touch()
    for path in ("", "leftImg8bit", "gtFine", "leftImg8bit/val", "gtFine/val"):
        assert Cityscapes(tmp_path / path).names == ("bonn_000000_000019_leftImg8bit", f"{ULM}_leftImg8bit")
    for path in ("leftImg8bit/val/ulm", "gtFine/val/ulm"):
        assert Cityscapes.recognises(tmp_path / path)
        assert Cityscapes(tmp_path / path).names == (f"{ULM}_leftImg8bit",)
    monkeypatch.chdir(tmp_path / "gtFine" / "val")
    assert Cityscapes.recognises(".")
    assert len(Cityscapes("ulm")) == 1
    assert not Cityscapes.recognises("nowhere")


def test_of_several_splits_one_must_be_chosen(tmp_path):
    street(street(street(tmp_path), split="train"), split="test", numbers=np.full((3, 6), 3, np.uint16))
    message = (
        r"the splits train, val; choose one with --split train .*, or give its folder, such as .*leftImg8bit/train"
    )
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path)
    with pytest.raises(InputError, match=r"or give its folder, such as .*gtFine/train"):
        open_dataset(tmp_path / "gtFine")


def test_the_test_split_has_no_public_truth(tmp_path):
    street(tmp_path, split="test", numbers=np.array([[0, 1], [2, 3]], np.uint16))
    for path in ("", "leftImg8bit/test", "gtFine/test/ulm"):
        with pytest.raises(InputError, match="gtFine/test: the test split has no public truth"):
            open_dataset(tmp_path / path)
    street(tmp_path, split="test")
    assert len(Cityscapes(tmp_path)) == 1  # somebody's own


def test_folders_that_are_missing_are_named(tmp_path):
    (tmp_path / "leftImg8bit" / "val" / "ulm").mkdir(parents=True)
    with pytest.raises(InputError, match=r"there is no .*gtFine/val/CITY/\*_gtFine_instanceIds.png; unpack"):
        open_dataset(tmp_path / "leftImg8bit" / "val")
    street(tmp_path, picture=False)
    with pytest.raises(InputError, match="leftImg8bit/val: no such folder, or no picture or annotation"):
        open_dataset(tmp_path)


def test_files_without_a_partner_are_named_and_left_out_of_what_is_salvaged(tmp_path):
    for k in range(5):
        street(tmp_path, stem=f"bonn_00000{k}_000019")
        (tmp_path / "gtFine" / "val" / "bonn" / f"bonn_00000{k}_000019_gtFine_instanceIds.png").unlink()
    street(street(tmp_path), stem="ulm_000002_000019", picture=False)
    message = (
        r"(?s)leftImg8bit/val: 5 files have no \*_gtFine_instanceIds.png in .*gtFine/val, in a folder of the same "
        r"city: bonn_000000_000019_leftImg8bit.png, .* and 2 more.*gtFine/val: 1 file has no \*_leftImg8bit.png"
    )
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path)
    dataset, problems = Cityscapes.salvage(tmp_path)
    assert dataset.names == (f"{ULM}_leftImg8bit",)
    assert len(problems) == 2


# --- files that cannot be used


@pytest.mark.parametrize(
    ("numbers", "message"),
    [
        (NUMBERS[:2], r"_instanceIds.png: has 2 x 6 pixels, but its image ulm_.*_leftImg8bit.png has 3 x 6"),
        ((NUMBERS % 34).astype(np.uint8), "has 8 bits a pixel, too few for an object's number"),
        (
            np.full((3, 6), 255, np.uint16),
            "the number 255 does not occur in Cityscapes; numbers are labels from 0 to 33",
        ),
        (np.full((3, 6), 34000, np.uint16), "the number 34000 does not occur in Cityscapes"),
    ],
)
def test_an_annotation_that_cannot_be_used_is_named(tmp_path, numbers, message):
    street(tmp_path)
    Image.fromarray(numbers).save(tmp_path / "gtFine" / "val" / "ulm" / f"{ULM}_gtFine_instanceIds.png")
    with pytest.raises(InputError, match=message):
        Cityscapes(tmp_path)[0]


def test_an_annotation_in_another_format_is_named(tmp_path):
    street(tmp_path)
    file = tmp_path / "gtFine" / "val" / "ulm" / f"{ULM}_gtFine_instanceIds.png"
    Image.fromarray(NUMBERS).save(file, "TIFF")
    with pytest.raises(InputError, match=r"_instanceIds.png: is not a PNG"):
        Cityscapes(tmp_path)[0]
    dataset = Cityscapes(tmp_path)
    file.unlink()
    with pytest.raises(InputError, match=r"_instanceIds.png: cannot be read: No such file"):
        dataset.size(0)


@pytest.mark.parametrize(
    ("camera", "message"),
    [
        ({"extrinsic": {"baseline": 10**400}, "intrinsic": {"fx": 1}}, "does not give extrinsic.baseline and"),
        ({"extrinsic": {"baseline": "0.2"}, "intrinsic": {"fx": 1}}, "does not give extrinsic.baseline and"),
        ({"extrinsic": {"baseline": True}, "intrinsic": {"fx": 1}}, "does not give extrinsic.baseline and"),
        ("{", "_camera.json: does not give extrinsic.baseline and intrinsic.fx"),
        ({"extrinsic": {}, "intrinsic": {"fx": 1}}, "does not give extrinsic.baseline"),
        ({"extrinsic": {"baseline": 0}, "intrinsic": {"fx": 1}}, "baseline times fx is 0.0; both must be above 0"),
    ],
)
def test_a_camera_that_cannot_be_used_is_named(tmp_path, camera, message):
    with_distances(street(tmp_path), np.ones_like(NUMBERS), camera=camera)
    with pytest.raises(InputError, match=message):
        Cityscapes(tmp_path)[0].annotate()


def test_distances_of_some_images_alone_are_refused(tmp_path):
    street(street(tmp_path), stem="ulm_000002_000019")
    with_distances(tmp_path, np.ones((2, 2)))
    with pytest.raises(InputError, match=r"_disparity.png: has 2 x 2 pixels, but .*_instanceIds.png has 3 x 6"):
        Cityscapes(tmp_path)[0].annotate()
    with pytest.raises(InputError, match=r"ulm_000002_000019_disparity.png: no such file"):
        Cityscapes(tmp_path)[1].annotate()
    with_distances(tmp_path, np.ones_like(NUMBERS), stem="ulm_000002_000019")
    (tmp_path / "camera" / "val" / "ulm" / "ulm_000002_000019_camera.json").unlink()
    with pytest.raises(InputError, match=r"_camera.json: cannot be read: No such file.*do without distances"):
        Cityscapes(tmp_path)[1].annotate()


# --- writing a data set


def a_sample(name, draw, n=4, n_classes=3):
    """Bands of objects, some pixels of the background ignored."""
    labels = np.repeat(draw.permutation(n + 1)[:, None], 7, 1).repeat(3, 0).astype(np.int32)
    ignore = (draw.random(labels.shape) < 0.2) & (labels == 0)
    image = draw.integers(0, 256, (*labels.shape, 3)).astype(np.uint8)
    return Sample(name, image, labels, draw.integers(1, n_classes + 1, n), ignore)


def test_samples_written_come_back(tmp_path):
    draw = np.random.default_rng(0)
    names = ("bus", "person", "car")
    samples = [a_sample("field_7", draw), a_sample("ulm_000000_000019_leftImg8bit", draw), a_sample("bonn_1_2", draw)]
    write_cityscapes(tmp_path, samples, names)
    dataset = open_dataset(tmp_path)
    by_name = {name: dataset[k] for k, name in enumerate(dataset.names)}
    written = ("field-7_000000_000000", "ulm_000000_000019", "bonn_1_2")
    assert set(by_name) == {f"{name}_leftImg8bit" for name in written}
    assert set(dataset.columns["city"].values()) == {"images", "ulm", "bonn"}
    for sample, name in zip(samples, written, strict=True):
        found = by_name[f"{name}_leftImg8bit"]
        np.testing.assert_array_equal(found.image, sample.image)
        np.testing.assert_array_equal(found.ignore, sample.ignore)
        np.testing.assert_array_equal(found.labels > 0, sample.labels > 0)
        for k, class_number in enumerate(sample.classes, 1):
            (label,) = np.unique(found.labels[sample.labels == k])
            assert dataset.class_names[found.classes[label - 1] - 1] == names[class_number - 1]
            np.testing.assert_array_equal(found.labels == label, sample.labels == k)


def test_cityscapes_written_again_is_what_it_was(tmp_path):
    sample = Cityscapes(street(tmp_path / "one"))[0]
    write_cityscapes(tmp_path / "two", [sample], Cityscapes.class_names)
    again = Cityscapes(tmp_path / "two")[0]
    assert again.name == sample.name
    for part in ("image", "labels", "classes", "ignore"):
        np.testing.assert_array_equal(getattr(again, part), getattr(sample, part))


def test_as_many_objects_as_can_be_numbered_are_written_and_no_more(tmp_path):
    n = MOST_OF_A_CLASS + 1
    labels = np.arange(1, n + 1, dtype=np.int32).reshape(2, -1)
    sample = Sample("a", np.zeros((*labels.shape, 1), np.uint8), labels, np.ones(n, int), labels < 0)
    with pytest.raises(InputError, match="a has 1000 objects of one class, but Cityscapes can number 999"):
        write_cityscapes(tmp_path, [sample], ("car",))
    fewer = Sample("a", sample.image, np.where(labels < n, labels, 0), np.ones(n - 1, int), labels < 0)
    write_cityscapes(tmp_path, [fewer], ("car",))
    assert len(Cityscapes(tmp_path)[0].classes) == n - 1


def test_what_cityscapes_cannot_hold_is_refused(tmp_path):
    draw = np.random.default_rng(0)
    with pytest.raises(InputError, match="'leaf' cannot be written, as Cityscapes has the classes person, rider, car"):
        write_cityscapes(tmp_path, [], ("leaf", "car"))
    with pytest.raises(InputError, match="two images are named a-b_000000_000000, one of them from 'a-b'"):
        write_cityscapes(tmp_path, [a_sample("a_b", draw), a_sample("a-b", draw)], ("car", "bus", "train"))
    sample = a_sample("a", draw)
    deep = Sample("a", sample.image.astype(np.uint16), sample.labels, sample.classes, sample.ignore)
    with pytest.raises(InputError, match="a has 3 channels of uint16, but pictures of Cityscapes are PNG"):
        write_cityscapes(tmp_path, [deep], ("car", "bus", "train"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        write_cityscapes(tmp_path / "file", [sample], ("car", "bus", "train"))


# --- results


def some_found(draw, shape=(24, 31), n=6):
    """Masks that overlap, one of them empty, some down to the last row."""
    masks = [np.zeros(shape, bool) for _ in range(n)]
    for mask in masks[1:]:
        row, column = draw.integers(0, shape[0]), draw.integers(0, shape[1])
        mask[row : row + draw.integers(1, 24), column : column + draw.integers(1, 20)] = True
        mask &= draw.random(shape) < draw.choice([0.5, 1.0])
    scores = np.where(draw.random(n) < 0.5, 0.5, draw.random(n))
    return masks, draw.integers(1, 9, n).astype(np.int32), scores


def blank(root, *stems, shape=(24, 31)):
    """Pictures of nothing."""
    for stem in stems:
        street(root, stem=stem, numbers=np.full(shape, 7, np.uint16))
    return Cityscapes(root)


def test_results_written_come_back_whole(tmp_path):
    draw = np.random.default_rng(0)
    dataset = blank(tmp_path / "data", *(f"ulm_{k:06}_000019" for k in range(30)))
    written = []
    for name in dataset.names:
        masks, classes, scores = some_found(draw)
        written.append(Instances.from_masks(masks, classes, scores, (24, 31)))
        write_cityscapes_results(tmp_path / "results", name, written[-1], dataset.class_names)
    for found, expected in zip(read_cityscapes_results(tmp_path / "results", dataset), written, strict=True):
        np.testing.assert_array_equal(found.labels, expected.labels)
        np.testing.assert_array_equal(found.classes, expected.classes)
        np.testing.assert_array_equal(found.scores, expected.scores)
        for label in range(1, len(expected) + 1):
            np.testing.assert_array_equal(found.mask(label), expected.mask(label))


def test_a_results_file_names_a_mask_a_label_and_a_score_in_each_line(tmp_path):
    labels = np.array([[1, 1, 0], [2, 0, 0]], np.int32)
    found = Instances(labels, np.array([2, 1]), np.array([0.1, 1], np.float32))
    write_cityscapes_results(tmp_path, ULM, found, ("person", "car"))
    lines = (tmp_path / f"{ULM}_pred.txt").read_text().splitlines()
    assert lines == [f"masks/{ULM}_0.png 26 {float(np.float32(0.1))!r}", f"masks/{ULM}_1.png 24 1.0"]
    with Image.open(tmp_path / "masks" / f"{ULM}_0.png") as mask:
        assert mask.mode == "L"
        assert np.asarray(mask).tolist() == [[255, 255, 0], [0, 0, 0]]


def test_more_than_255_objects_are_told(tmp_path):
    labels = np.arange(1, 301, dtype=np.int32).reshape(15, 20)
    dataset = blank(tmp_path / "data", ULM, shape=(15, 20))
    found = Instances(labels, np.full(300, 3), np.linspace(0, 1, 300))
    write_cityscapes_results(tmp_path / "results", ULM, found, dataset.class_names)
    (again,) = read_cityscapes_results(tmp_path / "results", dataset)
    np.testing.assert_array_equal(again.labels, labels)


def test_results_that_cannot_be_written_are_refused(tmp_path):
    nothing = Instances.from_masks([], np.zeros(0, int), np.zeros(0), (2, 2))
    with pytest.raises(InputError, match="'cell' cannot be written"):
        write_cityscapes_results(tmp_path, ULM, nothing, ("cell",))
    for name in ("my image", "a/b", ""):
        with pytest.raises(InputError, match="results can name no file with a space or slash"):
            write_cityscapes_results(tmp_path, name, nothing, ("car",))


def test_masks_of_any_kind_are_read(tmp_path):
    mask = np.zeros((24, 31), bool)
    mask[3:9, 30] = mask[20:, 4:6] = True
    dataset, results = blank(tmp_path / "data", ULM), tmp_path / "results"
    results.mkdir()
    grey, colours = mask * np.uint8(7), np.zeros((24, 31, 3), np.uint8)
    colours[mask] = (0, 0, 9)
    palette = Image.fromarray(grey).convert("P")
    images = [
        Image.fromarray(grey),
        Image.fromarray(mask),
        Image.fromarray(colours),
        Image.fromarray(mask * np.uint16(300)),
        palette,
    ]
    lines = []
    for k, image in enumerate(images):
        image.save(results / f"{k}.png")
        lines.append(f"{k}.png 26 0.{k}")
    images[0].save(results / "x.bmp")
    (results / f"{ULM}.txt").write_text("\n".join([*lines, "x.bmp 26 1e-3", ""]))
    (found,) = read_cityscapes_results(results, dataset)
    assert len(found) == 6
    for label in range(1, 7):
        np.testing.assert_array_equal(found.mask(label), mask)


def test_masks_packed_in_any_way_are_read_as_by_pillow(tmp_path):
    draw = np.random.default_rng(0)
    dataset = blank(tmp_path / "data", ULM, shape=(40, 50))
    results = tmp_path / "results"
    results.mkdir()
    y, x = np.mgrid[:40, :50]
    for k in range(60):
        row, column = draw.integers(0, 40), draw.integers(0, 50)
        mask = (np.hypot(y - row, x - column) < draw.integers(1, 30)) ^ (draw.random((40, 50)) < draw.choice([0, 0.02]))
        values = (mask * draw.choice([1, 255])).astype(np.uint8)
        if k % 2:
            (results / "mask.png").write_bytes(packed(values, draw.integers(0, 3, 40)))
        else:
            Image.fromarray(values).save(results / "mask.png", compress_level=int(draw.integers(0, 10)))
        (results / f"{ULM}_pred.txt").write_text("mask.png 26 1")
        with Image.open(results / "mask.png") as image:
            np.testing.assert_array_equal(np.asarray(image), values)
        (found,) = read_cityscapes_results(results, dataset)
        np.testing.assert_array_equal(found.mask(1), mask)


def packed(values, kinds):
    """A PNG whose rows are stored as they are (0), or as differences to the left (1) or to above (2)."""
    shifted = [np.zeros_like(values) for _ in range(3)]
    shifted[1][:, 1:], shifted[2][1:] = values[:, :-1], values[:-1]
    rows = [
        bytes([kind]) + (row - shifted[kind][k]).tobytes()
        for k, (kind, row) in enumerate(zip(kinds, values, strict=True))
    ]

    def chunk(name, content):
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    header = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], 8, 0, 0, 0, 0)
    body = zlib.compress(b"".join(rows))
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", body[:9]), chunk(b"IDAT", body[9:]), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def results_with(tmp_path, line):
    """What reading a results folder with one line raises or gives; a mask of the right and one of a wrong size."""
    dataset, results = blank(tmp_path / "data", ULM), tmp_path / "results"
    results.mkdir()
    for name, shape in (("mask", (24, 31)), ("small", (24, 30))):
        Image.fromarray(np.ones(shape, np.uint8)).save(results / f"{name}.png")
    Image.fromarray(np.ones((24, 31), np.uint8)).save(tmp_path / "outside.png")
    whole = (results / "mask.png").read_bytes()
    (results / "cut.png").write_bytes(whole[: len(whole) // 2])
    (results / f"{ULM}_pred.txt").write_text(f"mask.png 26 0.5\n\n{line}\n")
    return list(read_cityscapes_results(results, dataset))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("none.png 26 0.5", "none.png: no such file"),
        ("small.png 26 0.5", "small.png: has 24 x 30 pixels, but its image has 24 x 31"),
        ("cut.png 26 0.5", "cut.png: is damaged or cut short"),
        ("../outside.png 26 0.5", r"_pred.txt, line 3: the mask ../outside.png leads out of"),
        ("/outside.png 26 0.5", "line 3: the mask /outside.png leads out of"),
        (
            "mask.png 34 0.5",
            "line 3: the label 34 is not that of an object in Cityscapes; objects have 24 person, 25 rider",
        ),
        ("mask.png -1 0.5", "the label -1 is not that of an object in Cityscapes"),
        ("mask.png car 0.5", "line 3: 'mask.png car 0.5' cannot be read; a line is the mask's path"),
        ("mask.png 26", "cannot be read; a line is"),
        ("my mask.png 26 0.5", "cannot be read; a line is"),
        ("mask.png 26 nan", "cannot be read; a line is"),
        ("mask.png 26 7", "cannot be read; a line is"),
        ("mask.png inf 0.5", "cannot be read; a line is"),
        ("mask.png 26 0.5 1", "cannot be read; a line is"),
    ],
)
def test_a_line_that_cannot_be_used_is_named(tmp_path, line, message):
    with pytest.raises(InputError, match=message):
        results_with(tmp_path, line)


def test_other_labels_are_passed_over_and_a_mask_named_again_counts_once(tmp_path):
    (found,) = results_with(tmp_path, "./mask.png 24.0 0.75\nsmall.png 7 0.5\nnone.png 29 0.5")
    assert (found.classes.tolist(), found.scores.tolist()) == ([1], [0.75])


def test_a_results_file_is_found_below_the_folder_by_the_start_of_its_name(tmp_path):
    dataset = blank(tmp_path / "data", ULM, "ulm_000001_000020")
    (tmp_path / "results" / "deep").mkdir(parents=True)
    (tmp_path / "results" / "deep" / f"{ULM}.txt").touch()
    (tmp_path / "results" / "notes.txt").touch()
    with pytest.raises(InputError, match=r"1 of 2 images have no results: ulm_000001_000020\. There must be"):
        read_cityscapes_results(tmp_path / "results", dataset)
    (tmp_path / "results" / "ulm_000001_000020_any_pred.txt").touch()
    assert [len(found) for found in read_cityscapes_results(tmp_path / "results", dataset)] == [0, 0]
    (tmp_path / "results" / f"{ULM}_pred.txt").touch()
    with pytest.raises(InputError, match=f"{ULM}.txt and {ULM}_pred.txt are results of one image|{ULM}_pred.txt and"):
        read_cityscapes_results(tmp_path / "results", dataset)


def test_a_folder_or_file_that_cannot_be_read_is_named(tmp_path):
    dataset = blank(tmp_path / "data", ULM)
    with pytest.raises(InputError, match="nowhere: no such folder; give the one with"):
        read_cityscapes_results(tmp_path / "nowhere", dataset)
    (tmp_path / f"{ULM}.txt").write_bytes(b"\xff\xfe\x80")
    with pytest.raises(InputError, match="cannot be read as text"):
        list(read_cityscapes_results(tmp_path, dataset))
    missing = blank(tmp_path / "more", *(f"bonn_{k}_0" for k in range(5)))
    with pytest.raises(InputError, match=r"5 of 5 images have no results: bonn_0_0, bonn_1_0, bonn_2_0 and 2 more\."):
        read_cityscapes_results(tmp_path, missing)


def test_what_is_written_is_a_picture_for_every_program(tmp_path):
    draw = np.random.default_rng(0)
    write_cityscapes(tmp_path, [a_sample("ulm_0_0", draw)], ("car", "bus", "train"))
    numbers = read_labels(tmp_path / "gtFine" / "train" / "ulm" / "ulm_0_0_gtFine_instanceIds.png")
    assert set(np.unique(numbers // 1000)) <= {0, LABELS["car"], LABELS["bus"], LABELS["train"]}
    assert read_image(tmp_path / "leftImg8bit" / "train" / "ulm" / "ulm_0_0_leftImg8bit.png").dtype == np.uint8
