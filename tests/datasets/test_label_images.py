"""Images beside label images, and what all data sets share: opening and splitting."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attractor.datasets import DATASETS, Sample, Subset, open_dataset
from attractor.datasets.label_images import LabelImages, write_label_images
from attractor.errors import InputError
from attractor.images import write_labels

LABELS = np.array([[0, 7, 7], [300, 0, 7]], np.int32)


def sample(name: str, labels: np.ndarray = LABELS) -> Sample:
    """A grey image of its labels' size, with as many objects as the highest label."""
    image = np.arange(labels.size, dtype=np.uint8).reshape(*labels.shape, 1)
    return Sample(name, image, labels, np.ones(labels.max(), np.int32), np.zeros(labels.shape, bool))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A data set of four images."""
    labels = np.array([[0, 1, 1], [2, 0, 1]], np.int32)
    write_label_images(
        tmp_path,
        [sample(name, labels) for name in "dbca"],
        columns={"kind": {"a": "x", "b": "x", "c": "y", "d": "y"}},
    )
    return tmp_path


def test_labels_are_renumbered_and_everything_else_comes_back(tmp_path):
    write_label_images(tmp_path, [sample("b"), sample("a")])
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, LabelImages)
    assert dataset.names == ("a", "b")
    assert dataset.class_names == ("object",)
    assert dataset.columns == {}
    found = dataset[0]
    assert found.name == "a"
    assert found.labels.tolist() == [[0, 1, 1], [2, 0, 1]]
    assert found.classes.tolist() == [1, 1]
    assert not found.ignore.any()
    np.testing.assert_array_equal(found.image, sample("a").image)


def test_more_labels_than_png_holds_are_written_to_tiff(tmp_path):
    write_label_images(
        tmp_path,
        [
            Sample(
                "a",
                np.zeros((1, 2, 1), np.uint8),
                np.array([[0, 70_000]], np.int32),
                np.ones(70_000, int),
                np.zeros((1, 2), bool),
            )
        ],
    )
    assert (tmp_path / "labels" / "a.tif").exists()


def test_two_samples_of_one_name_are_refused(tmp_path):
    with pytest.raises(InputError, match="two images are named 'a'"):
        write_label_images(tmp_path, [sample("a"), sample("a")])


def test_a_folder_that_cannot_be_made_is_an_input_error(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="images: cannot be made"):
        write_label_images(tmp_path / "file", [])


def test_the_two_folders_may_lie_anywhere(folder):
    dataset = LabelImages(images=folder / "images", labels=folder / "labels")
    assert len(dataset) == 4
    with pytest.raises(InputError, match="give the folder that holds images/ and labels/"):
        LabelImages(images=folder / "images")


def test_columns_are_read_by_stem(folder):
    assert open_dataset(folder).columns == {"kind": {"a": "x", "b": "x", "c": "y", "d": "y"}}


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("name,kind\na,x\n", "the first column is 'name'; it must be `image`"),
        ("", "the first column is ''"),
        ("image,kind\nz,x\n", "no row names an image that is there"),
        ("image,kind\na,x\nb,y\na,y\n", "has two rows for the image 'a'; keep the one that is right"),
        ("image,kind,kind\na,x,y\n", "the column 'kind' is there twice; rename or remove one"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(folder, table, message):
    (folder / "images.csv").write_text(table)
    with pytest.raises(InputError, match=message):
        open_dataset(folder)


def test_a_table_that_is_not_text_is_refused(folder):
    (folder / "images.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"images\.csv: cannot be read as a table"):
        open_dataset(folder)


def test_a_row_that_is_short_has_empty_values(folder):
    (folder / "images.csv").write_text("image,kind,place\na,x\n")
    assert open_dataset(folder).columns == {"kind": {"a": "x"}, "place": {"a": ""}}


def test_files_without_a_partner_are_named(folder):
    for name in "bcd":
        (folder / "labels" / f"{name}.png").unlink()
    (folder / "labels" / "z.png").touch()
    with pytest.raises(InputError, match=r"3 images have no label image .*Alone: b.png, c.png, d.png\.") as caught:
        LabelImages(folder)
    assert "1 label image has no image in" in str(caught.value)
    (folder / "labels" / "a.png").unlink()
    with pytest.raises(InputError, match=r"4 images have no .*Alone: a.png, b.png, c.png and 1 more"):
        LabelImages(folder)


def test_files_that_share_a_stem_are_refused(folder):
    (folder / "images" / "a.tif").touch()
    with pytest.raises(InputError, match=r"a\.png and a\.tif share a stem"):
        LabelImages(folder)


def test_hidden_files_are_passed_over(folder):
    (folder / "images" / "._a.png").touch()
    assert len(LabelImages(folder)) == 4


def test_folders_without_anything_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"images: no such folder; the data set must have a folder with images/"):
        LabelImages(tmp_path)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    with pytest.raises(InputError, match="images: holds no image"):
        LabelImages(tmp_path)


def test_labels_of_another_size_are_refused_when_read(folder):
    write_labels(folder / "labels" / "a.png", np.zeros((5, 6), np.int32))
    with pytest.raises(InputError, match=r"a\.png: has 5 x 6 pixels, but its image a\.png has 2 x 3"):
        LabelImages(folder)[0]


def test_a_layout_that_nothing_recognises_is_answered_with_those_that_are_known(tmp_path):
    with pytest.raises(InputError, match="no such data set"):
        open_dataset(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"label-images: a folder with images/ and labels/.*; coco: a COCO JSON"):
        open_dataset(tmp_path)
    write_label_images(tmp_path / "train", [sample("a")])
    with pytest.raises(InputError, match="There are data sets in it, though: train"):
        open_dataset(tmp_path)


@pytest.mark.parametrize("layout", DATASETS.values(), ids=DATASETS.keys())
def test_an_empty_folder_is_no_data_set(layout, tmp_path):
    assert not layout.recognises(tmp_path)
    assert not layout.recognises(tmp_path / "nowhere")
    assert layout.layout


def test_a_subset_keeps_names_columns_and_samples(folder):
    subset = Subset(open_dataset(folder), [2, 0])
    assert len(subset) == 2
    assert subset.names == ("c", "a")
    assert subset.columns == {"kind": {"c": "y", "a": "x"}}
    assert subset[0].name == "c"
    assert [one.name for one in subset] == ["c", "a"]


def test_a_label_image_in_colours_is_refused_when_read(folder):
    Image.fromarray(np.zeros((2, 3, 3), np.uint8)).save(folder / "labels" / "b.png")
    with pytest.raises(InputError, match="must have one channel"):
        LabelImages(folder)[1]
