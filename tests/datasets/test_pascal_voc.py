"""Pascal VOC and SBD: indices become objects with classes, and what is said of files that cannot be used."""

import struct
import tracemalloc
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import loadmat, savemat

from attractor.datasets import DATASETS, Sample, layout_of, open_dataset
from attractor.datasets.coco import write_coco
from attractor.datasets.pascal_voc import VOC_CLASSES, PascalVoc, _read_mat, write_pascal_voc
from attractor.errors import InputError

OBJECTS = np.array([[255, 255, 255, 0], [255, 1, 1, 0], [255, 1, 2, 2]])
CLASSES = np.array([[255, 255, 255, 0], [255, 15, 15, 0], [255, 15, 7, 7]])


def palette(path: Path, indices: np.ndarray) -> None:
    """A palette PNG whose colours say nothing: all indices look the same."""
    image = Image.fromarray(indices.astype(np.uint8))
    image.putpalette([9, 9, 9] * 256)
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path)


def add_image(root: Path, stem: str, objects: np.ndarray = OBJECTS, classes: np.ndarray = CLASSES) -> None:
    """An image of VOC with its annotations."""
    (root / "JPEGImages").mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*objects.shape, 3), np.uint8)).save(root / "JPEGImages" / f"{stem}.jpg")
    palette(root / "SegmentationObject" / f"{stem}.png", objects)
    palette(root / "SegmentationClass" / f"{stem}.png", classes)


def add_list(root: Path, name: str, *stems: str) -> Path:
    """A list of stems as VOC has it."""
    file = root / "ImageSets" / "Segmentation" / f"{name}.txt"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{stem}\n" for stem in stems), encoding="utf-8")
    return file


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """VOCdevkit/VOC2012 with one image for training and two to validate on, and one that no list names."""
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for stem in ("2007_a", "2007_b", "2007_c", "2007_d"):
        add_image(root, stem)
    add_list(root, "train", "2007_b")
    add_list(root, "val", "2007_a", "2007_c")
    add_list(root, "trainval", "2007_a", "2007_b", "2007_c")
    return root


def add_mat(root: Path, stem: str, segmentation: Any, categories: Any, *, compressed: bool = True) -> Path:
    """An image of SBD with its annotations."""
    for part in ("img", "cls", "inst"):
        (root / part).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*np.shape(segmentation)[:2], 3), np.uint8)).save(root / "img" / f"{stem}.jpg")
    record = {"Segmentation": segmentation, "Boundaries": np.empty((2, 1), object), "Categories": categories}
    record["Boundaries"][:] = 0
    savemat(root / "inst" / f"{stem}.mat", {"GTinst": record}, do_compression=compressed)
    return root / "inst" / f"{stem}.mat"


@pytest.fixture
def sbd(tmp_path: Path) -> Path:
    """benchmark_RELEASE/dataset with one image each for training and validation."""
    root = tmp_path / "benchmark_RELEASE" / "dataset"
    segmentation = np.array([[0, 1, 1, 2], [0, 1, 2, 2]], np.uint8)
    for stem in ("2008_a", "2008_b"):
        add_mat(root, stem, segmentation, np.array([[20], [1]], np.uint8))
    (root / "train.txt").write_text("2008_b\n")
    (root / "val.txt").write_text("2008_a\n")
    return root


# --- VOC


def test_indices_are_objects_and_void_is_ignored(voc):
    dataset = open_dataset(voc)
    assert isinstance(dataset, PascalVoc)
    assert dataset.class_names == VOC_CLASSES
    assert (len(VOC_CLASSES), VOC_CLASSES[14]) == (20, "person")
    sample = dataset[0]
    assert sample.name == "2007_a"
    assert sample.labels.tolist() == [[0, 0, 0, 0], [0, 1, 1, 0], [0, 1, 2, 2]]
    assert sample.classes.tolist() == [15, 7]
    np.testing.assert_array_equal(sample.ignore, OBJECTS == 255)
    assert sample.image.shape == (3, 4, 3)
    assert sample.annotate is None


def test_a_list_the_folder_and_the_devkit_are_accepted(voc):
    lists = voc / "ImageSets" / "Segmentation"
    for path, names in (
        (lists / "val.txt", ("2007_a", "2007_c")),
        (lists / "train.txt", ("2007_b",)),
        (voc, ("2007_a", "2007_b", "2007_c")),
        (voc.parent, ("2007_a", "2007_b", "2007_c")),
    ):
        assert layout_of(path) == "pascal-voc"
        assert open_dataset(path).names == names
    assert open_dataset(lists / "val.txt").columns == {}


def test_of_a_folder_a_column_tells_the_split(voc):
    split = {"2007_a": "val", "2007_b": "train", "2007_c": "val"}
    assert PascalVoc(voc).columns == {"split": split}
    (voc / "ImageSets" / "Segmentation" / "trainval.txt").unlink()
    assert PascalVoc(voc).names == ("2007_b", "2007_a", "2007_c")
    assert PascalVoc(voc).columns == {"split": split}


def test_a_devkit_of_two_years_is_not_guessed_at(voc):
    add_image(voc.parent / "VOC2007", "000032")
    with pytest.raises(InputError, match="holds VOC2007 and VOC2012; give one of them"):
        open_dataset(voc.parent)


def test_other_folders_are_not_taken_for_voc(tmp_path):
    labels = np.zeros((2, 3), np.int32)
    sample = Sample("a", np.zeros((2, 3, 3), np.uint8), labels, np.zeros(0, np.int32), labels > 0)
    write_coco(tmp_path, [sample], ("car",))
    (tmp_path / "list.txt").touch()
    for path in (tmp_path, tmp_path / "annotations.json", tmp_path / "list.txt"):
        assert not PascalVoc.recognises(path)
    with pytest.raises(
        InputError, match=r"is not laid out like Pascal VOC or SBD. Accepted is Pascal VOC: a list such as"
    ):
        PascalVoc(tmp_path / "list.txt")


def test_the_class_is_that_of_most_pixels_but_void(voc):
    objects = np.array([[1, 1, 1, 1, 1], [2, 2, 0, 9, 9]])
    classes = np.array([[3, 3, 5, 255, 255], [8, 6, 4, 255, 2]])
    add_image(voc, "2007_a", objects, classes)
    sample = PascalVoc(voc)[0]
    assert sample.labels.tolist() == [[1, 1, 1, 1, 1], [2, 2, 0, 3, 3]]
    assert sample.classes.tolist() == [3, 6, 2]  # of a tie the lower
    assert np.argwhere(sample.ignore).tolist() == [[1, 2]]  # of a class, but of no object


def test_an_image_of_background_has_no_object(voc):
    add_image(voc, "2007_a", np.zeros((2, 2), int), np.zeros((2, 2), int))
    sample = PascalVoc(voc)[0]
    assert sample.classes.shape == (0,)
    assert not sample.labels.any()
    assert not sample.ignore.any()


def test_names_may_have_spaces_and_letters_of_any_language(voc):
    for stem in ("straße 1", "日本", "a.b"):
        add_image(voc, stem)
    file = add_list(voc, "mine", "", "straße 1", "日本  ", "a.b", "")
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    dataset = open_dataset(file)
    assert dataset.names == ("straße 1", "日本", "a.b")
    assert [sample.classes.tolist() for sample in dataset] == [[15, 7]] * 3


def random_samples(n_classes: int) -> list[Sample]:
    """Three images with objects, void around some, and none in the last."""
    generator = np.random.default_rng(0)
    samples = []
    for name, shape, n in (("a", (20, 30), 12), ("b c", (9, 7), 3), ("ü", (4, 4), 0)):
        labels = np.zeros(shape, np.int32)
        labels.ravel()[: 3 * n] = np.repeat(np.arange(1, n + 1), 3)
        ignore = (generator.random(shape) < 0.3) & (labels == 0)
        image = generator.integers(0, 256, (*shape, 3)).astype(np.uint8)
        samples.append(Sample(name, image, labels, generator.integers(1, n_classes + 1, n).astype(np.int32), ignore))
    return samples


@pytest.mark.parametrize("class_names", [VOC_CLASSES, ("nucleus", "a: b", "Größe")], ids=["voc", "own"])
def test_samples_written_come_back(tmp_path, class_names):
    samples = random_samples(len(class_names))
    write_pascal_voc(tmp_path / "VOC", samples, class_names)
    dataset = open_dataset(tmp_path / "VOC")
    assert dataset.class_names == class_names
    for truth, found in zip(samples, dataset, strict=True):
        assert found.name == truth.name
        for part in ("image", "labels", "classes", "ignore"):
            np.testing.assert_array_equal(getattr(found, part), getattr(truth, part))


def test_classes_of_voc_keep_its_numbers(tmp_path):
    labels = np.array([[1, 2]], np.int32)
    sample = Sample("a", np.zeros((1, 2, 3), np.uint8), labels, np.array([1, 2]), np.zeros((1, 2), bool))
    write_pascal_voc(tmp_path, [sample], ("person", "car"), split="train")
    assert (tmp_path / "ImageSets" / "Segmentation" / "train.txt").read_text() == "a\n"
    dataset = PascalVoc(tmp_path)
    assert dataset[0].classes.tolist() == [15, 7]
    assert dataset.columns == {"split": {"a": "train"}}


def test_colours_are_those_of_voc(tmp_path):
    classes = np.arange(1, 21)
    labels = classes[None].astype(np.int32)
    ignore = np.zeros((1, 20), bool)
    write_pascal_voc(tmp_path, [Sample("a", np.zeros((1, 20, 3), np.uint8), labels, classes, ignore)], VOC_CLASSES)
    with Image.open(tmp_path / "SegmentationClass" / "a.png") as image:
        assert image.mode == "P"
        colours = np.array(image.getpalette()).reshape(256, 3).tolist()
    assert [colours[k] for k in (0, 1, 7, 15, 255)] == [
        [0, 0, 0],
        [128, 0, 0],
        [128, 128, 128],
        [192, 128, 128],
        [224, 224, 192],
    ]


def test_what_palette_images_cannot_hold_is_not_written(tmp_path):
    labels = np.arange(256, dtype=np.int32).reshape(16, 16)
    sample = Sample("a", np.zeros((16, 16, 1), np.uint8), labels, np.ones(255, np.int32), labels < 0)
    with pytest.raises(InputError, match="a has 255 objects; the palette images of Pascal VOC hold 254 at most"):
        write_pascal_voc(tmp_path, [sample], ("cell",))
    with pytest.raises(InputError, match="255 classes; the palette images of Pascal VOC hold 254 at most"):
        write_pascal_voc(tmp_path, [], [str(k) for k in range(255)])
    assert not list(tmp_path.glob("Segmentation*/*"))


def test_254_objects_come_back(tmp_path):
    labels = (np.arange(256, dtype=np.int32) % 255).reshape(16, 16)
    sample = Sample("a", np.zeros((16, 16, 1), np.uint8), labels, np.ones(254, np.int32), labels < 0)
    write_pascal_voc(tmp_path, [sample], ("cell",))
    np.testing.assert_array_equal(PascalVoc(tmp_path)[0].labels, labels)


def test_two_samples_of_one_name_or_a_folder_that_cannot_be_made_are_refused(tmp_path):
    samples = random_samples(1)[:1] * 2
    with pytest.raises(InputError, match="two images are named 'a'"):
        write_pascal_voc(tmp_path, samples, ("cell",))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="JPEGImages: cannot be made"):
        write_pascal_voc(tmp_path / "file", samples, ("cell",))


# --- SBD


def test_objects_of_sbd_have_the_classes_of_their_categories(sbd):
    for path, names in (
        (sbd / "val.txt", ("2008_a",)),
        (sbd, ("2008_b", "2008_a")),
        (sbd.parent, ("2008_b", "2008_a")),
    ):
        assert layout_of(path) == "pascal-voc"
        assert open_dataset(path).names == names
    dataset = open_dataset(sbd)
    assert dataset.columns == {"split": {"2008_a": "val", "2008_b": "train"}}
    assert dataset.class_names == VOC_CLASSES
    sample = dataset[1]
    assert sample.labels.tolist() == [[0, 1, 1, 2], [0, 1, 2, 2]]
    assert sample.classes.tolist() == [20, 1]
    assert not sample.ignore.any()


def test_a_list_of_ones_own_is_read(sbd):
    (sbd / "train_noval.txt").write_text("2008_a\n")
    assert open_dataset(sbd / "train_noval.txt").names == ("2008_a",)


def test_the_255th_object_of_sbd_is_no_void(sbd):
    for dtype, n in ((np.uint8, 255), (np.uint16, 300)):
        segmentation = np.arange(n + 1, dtype=dtype)[None]
        add_mat(sbd, "2008_a", segmentation, np.full((n, 1), 3.0))
        sample = PascalVoc(sbd / "val.txt")[0]
        np.testing.assert_array_equal(sample.labels, segmentation)
        assert sample.classes.tolist() == [3] * n
        assert not sample.ignore.any()


def test_an_object_of_sbd_without_a_pixel_is_left_out(sbd):
    add_mat(sbd, "2008_a", np.array([[0, 3]], np.uint8), np.array([[4], [5], [6]]))
    sample = PascalVoc(sbd / "val.txt")[0]
    assert sample.labels.tolist() == [[0, 1]]
    assert sample.classes.tolist() == [6]
    add_mat(sbd, "2008_a", np.array([[0, 0]], np.uint8), np.zeros((0, 0)))
    assert PascalVoc(sbd / "val.txt")[0].classes.shape == (0,)


@pytest.mark.parametrize(
    ("segmentation", "categories", "message"),
    [
        (np.array([[0, 2]], np.uint8), np.array([[1]]), "has the object 2, but Categories has 1 classes"),
        (np.array([[0, 1]], np.uint8), np.array([[21]]), "has the class 21 in Categories; there are 1 to 20"),
        (np.array([[0, 1]], np.uint8), np.array([[0]]), "has the class 0 in Categories"),
        (np.array([[0, 1]], np.uint8), np.array([[np.nan]]), "has the class nan in Categories"),
        (np.array([[0, 1]], np.uint8), np.array([[1.5]]), r"has the class 1\.5 in Categories"),
        (np.array([[0, -1]], np.int16), np.array([[1]]), "Segmentation is int16 of shape .1, 2."),
        (np.array([[0, 2**63]], np.uint64), np.array([[1]]), "Segmentation is uint64 of shape .1, 2."),
        (np.array([[0, 0.5]]), np.array([[1]]), "Segmentation is float64"),
        (np.zeros((2, 2, 2), np.uint8), np.array([[1]]), "Segmentation is uint8 of shape .2, 2, 2."),
        (
            np.array([[0, 1]], np.uint8),
            "car",
            "is damaged, or no annotation of SBD .*text, cells or a struct where numbers",
        ),
    ],
)
def test_annotations_of_sbd_that_cannot_be_used_are_named(sbd, segmentation, categories, message):
    add_mat(sbd, "2008_a", segmentation, categories)
    with pytest.raises(InputError, match=rf"2008_a\.mat: {message}"):
        PascalVoc(sbd / "val.txt")[0]


@pytest.mark.parametrize("compressed", [True, False])
def test_arrays_are_those_that_scipy_writes(sbd, compressed):
    generator = np.random.default_rng(0)
    for _ in range(25):
        shape, n = generator.integers(1, 40, 2), int(generator.integers(1, 300))
        segmentation = generator.integers(0, n + 1, shape).astype(np.uint8 if n < 256 else np.uint16)
        categories = generator.integers(1, 21, (n, 1)).astype(generator.choice(["u1", "i4", "i8", "f4", "f8"]))
        file = add_mat(sbd, "2008_a", segmentation, categories, compressed=compressed)
        found = _read_mat(file)
        record = loadmat(file)["GTinst"][0, 0]
        np.testing.assert_array_equal(found[0], record["Segmentation"])
        np.testing.assert_array_equal(found[1], record["Categories"].ravel())


@pytest.mark.parametrize("compressed", [True, False])
def test_a_damaged_mat_is_an_input_error(sbd, compressed):
    generator = np.random.default_rng(0)
    segmentation = generator.integers(0, 9, (40, 50)).astype(np.uint8)
    file = add_mat(sbd, "2008_a", segmentation, np.ones((8, 1), np.uint8), compressed=compressed)
    whole, dataset = file.read_bytes(), PascalVoc(sbd / "val.txt")
    for length in (0, 3, 100, 127, 128, 130, 140, 200, len(whole) // 2, len(whole) - 100):
        file.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"2008_a\.mat: is damaged, or no annotation of SBD with GTinst"):
            dataset[0]
    n_read = 0
    for _ in range(150):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[generator.integers(0, min(len(whole), 600), 3)] = generator.integers(0, 256, 3)
        file.write_bytes(damaged.tobytes())
        try:
            dataset[0]
            n_read += 1  # text in the header was hit, or numbers that may be others
        except InputError as error:
            assert str(error).startswith(str(file))  # noqa: PT017
    assert 0 < n_read < 150


def test_compressed_data_are_unpacked_only_up_to_a_bound(sbd):
    file, dataset = sbd / "inst" / "2008_a.mat", PascalVoc(sbd / "val.txt")
    header = b"MATLAB".ljust(124) + b"\x00\x01IM"
    packed = zlib.compress(bytes(100 << 20), 9)
    file.write_bytes(header + struct.pack("<II", 15, len(packed)) + packed)
    tracemalloc.start()
    with pytest.raises(InputError, match=r"2008_a\.mat: is damaged, .* become more than 16 MB"):
        dataset[0]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40 << 20


def test_an_array_of_a_length_below_zero_is_an_input_error(sbd):
    file = add_mat(sbd, "2008_a", np.ones((4, 6), np.uint8), np.ones((1, 1), np.uint8), compressed=False)
    content, lengths = file.read_bytes(), struct.pack("<ii", 4, 6)
    assert content.count(lengths) == 1
    file.write_bytes(content.replace(lengths, struct.pack("<ii", -1, 6)))
    with pytest.raises(InputError, match=r"2008_a\.mat: is damaged, .*a length below 0"):
        PascalVoc(sbd / "val.txt")[0]


def test_a_mat_of_something_else_is_an_input_error(sbd):
    file, dataset = sbd / "inst" / "2008_a.mat", PascalVoc(sbd / "val.txt")
    for content in ({"GTcls": {"Segmentation": 1}}, {"GTinst": 1}):
        savemat(file, content)
        with pytest.raises(InputError, match="there is no struct GTinst"):
            dataset[0]
    savemat(file, {"GTinst": {"Segmentation": np.ones((2, 4), np.uint8)}})
    with pytest.raises(InputError, match=r"is damaged, or no annotation of SBD .*Categories"):
        dataset[0]
    file.write_bytes(b"MATLAB 7.3 MAT-file" * 20)
    with pytest.raises(InputError, match="not a MATLAB file of version 5"):
        dataset[0]


def test_an_image_of_sbd_of_another_size_is_refused(sbd):
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(sbd / "img" / "2008_a.jpg")
    with pytest.raises(InputError, match=r"2008_a\.mat: has 2 x 4 pixels, but its image 2008_a\.jpg has 5 x 6"):
        PascalVoc(sbd / "val.txt")[0]


# --- files that cannot be used


def test_files_that_are_missing_are_named_up_to_three(voc):
    (voc / "JPEGImages" / "2007_a.jpg").unlink()
    (voc / "SegmentationObject" / "2007_b.png").unlink()
    (voc / "SegmentationClass" / "2007_b.png").unlink()
    (voc / "SegmentationClass" / "2007_c.png").unlink()
    with pytest.raises(InputError) as caught:
        PascalVoc(voc)
    assert str(caught.value).splitlines() == [
        f"{voc}: the list names '2007_a', but JPEGImages/ holds no image of that stem.",
        f"{voc}: the list names '2007_b', but there is no SegmentationObject/2007_b.png and no "
        "SegmentationClass/2007_b.png.",
        f"{voc}: the list names '2007_c', but there is no SegmentationClass/2007_c.png.",
    ]
    add_list(voc, "val", "2007_d", *(f"z{k}" for k in range(5)))
    with pytest.raises(InputError, match=r"(?s)'z0'.*'z2'.*\nand 2 more like these$"):
        PascalVoc(voc / "ImageSets" / "Segmentation" / "val.txt")
    dataset, problems = PascalVoc.salvage(voc / "ImageSets" / "Segmentation" / "val.txt")
    assert dataset.names == ("2007_d",)
    assert len(problems) == 5


def test_an_entry_longer_than_a_file_name_is_refused_in_few_words(voc):
    with pytest.raises(InputError, match=r"val\.txt: its entry 'x.{1,40}x' is longer than a file's name can be\.$"):
        PascalVoc(add_list(voc, "val", "x" * 5000))


@pytest.mark.parametrize("entry", ["../2007_a", "..", "/etc/passwd", "C:2007_a", "..\\2007_a", "x/2007_a", "a\0b"])
def test_an_entry_that_leads_out_of_the_folder_is_refused(voc, entry):
    with pytest.raises(InputError, match=r"val\.txt: its entry .* leads out of the folder; a list has only stems"):
        PascalVoc(add_list(voc, "val", entry))


def test_an_image_named_twice_is_refused(voc):
    with pytest.raises(InputError, match="names '2007_a' twice; remove one"):
        PascalVoc(add_list(voc, "val", "2007_a", "2007_b", "2007_a"))


def test_lists_that_are_missing_empty_or_no_text_are_refused(voc):
    file = add_list(voc, "val")
    with pytest.raises(InputError, match=r"val\.txt: names no image; a list has one stem on each line"):
        PascalVoc(file)
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"val\.txt: cannot be read as a list of stems"):
        PascalVoc(file)
    for name in ("train", "val", "trainval"):
        (file.parent / f"{name}.txt").unlink()
    with pytest.raises(InputError, match=r"Segmentation: holds none of trainval\.txt, train\.txt and val\.txt"):
        PascalVoc(voc)


def test_files_of_another_size_are_refused_when_read(voc):
    palette(voc / "SegmentationClass" / "2007_a.png", CLASSES[:2])
    with pytest.raises(InputError, match=r"SegmentationClass/2007_a\.png: has 2 x 4 .*Object/2007_a\.png has 3 x 4"):
        PascalVoc(voc)[0]
    palette(voc / "SegmentationObject" / "2007_a.png", OBJECTS[:2])
    with pytest.raises(InputError, match=r"2007_a\.png: has 2 x 4 pixels, but its image 2007_a\.jpg has 3 x 4; both"):
        PascalVoc(voc)[0]


def test_a_class_out_of_range_is_refused_when_read(voc):
    palette(voc / "SegmentationClass" / "2007_a.png", np.where(CLASSES == 7, 21, CLASSES))
    with pytest.raises(InputError, match="has the class 21; there are 0 for background, 1 to 20, 255 for void"):
        PascalVoc(voc)[0]


@pytest.mark.parametrize("instead", [0, 255])
def test_an_object_without_a_class_is_refused_when_read(voc, instead):
    palette(voc / "SegmentationClass" / "2007_a.png", np.where(CLASSES == 7, instead, CLASSES))
    with pytest.raises(InputError, match=r"2007_a\.png: object 2 has no class: most of it is background or void in"):
        PascalVoc(voc)[0]


def test_colours_instead_of_indices_are_refused_when_read(voc):
    Image.fromarray(np.zeros((3, 4, 3), np.uint8)).save(voc / "SegmentationObject" / "2007_a.png")
    with pytest.raises(InputError, match="save the labels as numbers, one for each object, not as colours"):
        PascalVoc(voc)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"car:1,2,3::\nbackground:0,0,0::\n", "begins with 'car' and has 2 lines; it must name `background` first"),
        (b"# nothing\n", "begins with '' and has 0 lines"),
        (b"background:0,0,0::\n", "begins with 'background' and has 1 lines"),
        (b"background:::\ncar:::\ncar:::\n", "the class 'car' has no name or is there twice; name each once"),
        (b"background:::\n:0,0,0::\n", "the class '' has no name or is there twice"),
        (b"\xff\xfe\x00", "cannot be read as a list of classes"),
    ],
)
def test_a_labelmap_that_cannot_be_used_is_named(voc, content, message):
    (voc / "labelmap.txt").write_bytes(content)
    with pytest.raises(InputError, match=rf"labelmap\.txt: {message}"):
        PascalVoc(voc)


def test_pascal_voc_is_listed():
    assert DATASETS["pascal-voc"] is PascalVoc
