"""What names of images and classes are refused, in every writer."""

import numpy as np
import pytest

from attractor.datasets import DATASETS, open_dataset
from attractor.datasets.names import as_class_name, check_class_names, check_stem
from attractor.datasets.sample import Sample
from attractor.errors import InputError


def sample(name: str) -> Sample:
    """An image with an object."""
    labels = np.zeros((4, 5), np.int32)
    labels[1:3, 1:4] = 1
    return Sample(name, np.zeros((4, 5, 1), np.uint8), labels, np.ones(1, np.int32), np.zeros((4, 5), bool))


class Described:
    """What a writer asks of a data set."""

    def __init__(self, *class_names: str) -> None:
        self.class_names = class_names
        self.columns: dict[str, dict[str, str]] = {}
        self.names: tuple[str, ...] = ()

    def __len__(self) -> int:
        return 0

    def __getitem__(self, index: int) -> Sample:
        raise IndexError(index)


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("", "has no name"),
        ("..", "begins with a dot"),
        (".hidden", "begins with a dot"),
        ("a/b", "leads to another folder"),
        ("a\\b", "leads to another folder"),
        ("C:a", "leads to another folder"),
        ("a\0b", "leads to another folder"),
        ("\ud800", "cannot be written as UTF-8"),
        ("a\nb", "holds a line break"),
        ("a\u2028b", "holds a line break"),
    ],
)
@pytest.mark.parametrize("layout", DATASETS)
def test_an_image_that_no_file_can_be_named_after_is_refused(layout, name, fault, tmp_path):
    (tmp_path / "out").mkdir()
    with pytest.raises(
        InputError, match=rf"^{tmp_path / 'out'}.*: the name of the image '.*' {fault}.*; rename the image"
    ):
        DATASETS[layout].write(tmp_path / "out", [sample(name)], Described("car"))
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert not [path for path in (tmp_path / "out").rglob("*") if path.is_file()]


def test_names_that_files_have_are_kept():
    for name in ("a", "a b", "Größe", "t=10:30", "a..b", "a.", "名前", "x" * 5000):
        check_stem(name, "here")


@pytest.mark.parametrize(
    ("names", "fault"),
    [
        (("car", ""), "class 2, '', has no name"),
        (("\udfff",), "class 1, '.udfff', cannot be written as UTF-8"),
        (("car", "__ignore__"), "class 2, '__ignore__', has a name that means something else here"),
        (("car", "bus", "car"), "class 3, 'car', has the name of class 1"),
    ],
)
def test_a_class_that_could_not_be_read_again_is_refused(names, fault):
    with pytest.raises(InputError, match=f"^here: {fault}.*; rename the class"):
        check_class_names(names, "here", reserved=("__ignore__",))


@pytest.mark.parametrize(
    ("layout", "name"),
    [
        ("geojson", "Ignore*"), ("labelme", "__ignore__"),
        *((layout, name) for layout in ("geojson", "labelme", "pascal-voc") for name in ("", "\ud800")),
        *(("pascal-voc", name) for name in ("#a", " a", "a ", "a\nb", "a\u2028b")),
    ],
)  # fmt: skip
def test_classes_that_mean_something_else_in_a_layout_are_refused_before_anything_is_written(layout, name, tmp_path):
    with pytest.raises(InputError, match=f"^{tmp_path}: .*; rename the class"):
        DATASETS[layout].write(tmp_path, [sample("a")], Described(name))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", [None, 5, "", True, ["a"], "\ud800", {"a" * 99: [0] * 10_000}])
def test_an_impossible_class_name_is_quoted_in_few_words(name):
    with pytest.raises(InputError, match=r"^its label is .{1,150} where a name should be$"):
        as_class_name(name, "label")


@pytest.mark.parametrize("layout", DATASETS)
def test_a_class_of_70_000_letters_is_kept_or_refused_in_few_words(layout, tmp_path):
    try:
        DATASETS[layout].write(tmp_path, [sample("a")], Described("x" * 70_000))
        found = open_dataset(tmp_path)
    except InputError as error:
        said = str(error)
    else:
        said = f"The class has {len(found.class_names[0])} letters."
    kept = DATASETS[layout].holds.classes and layout != "cityscapes"
    assert said == "The class has 70000 letters." if kept else len(said) < 400
