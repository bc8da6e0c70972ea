"""Leaves of the CVPPP challenge: sets and folders of sets, foreground against labels, files that cannot be used."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from attractor.datasets import DATASETS, Sample, layout_of, open_dataset
from attractor.datasets.cvppp import Cvppp, write_cvppp
from attractor.errors import InputError

LABELS = np.array([[0, 1, 1, 0], [4, 4, 0, 0]])


def add_plant(folder: Path, stem: str, labels: np.ndarray = LABELS, foreground: np.ndarray | None = None) -> None:
    """A plant as the challenge has it: an image with alpha, palette labels, a grey foreground."""
    folder.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*labels.shape, 4), 7, np.uint8)).save(folder / f"{stem}_rgb.png")
    label = Image.fromarray(labels.astype(np.uint8))
    label.putpalette([9, 9, 9] * 256)
    label.save(folder / f"{stem}_label.png")
    Image.fromarray(labels > 0).save(folder / f"{stem}_centers.png")
    is_plant = labels > 0 if foreground is None else foreground
    Image.fromarray(np.where(is_plant, 255, 0).astype(np.uint8)).save(folder / f"{stem}_fg.png")


def test_labels_are_leaves_and_alpha_is_dropped(tmp_path):
    add_plant(tmp_path, "plant001")
    assert layout_of(tmp_path) == "cvppp"
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, Cvppp)
    assert dataset.class_names == ("leaf",)
    assert dataset.columns == {}
    sample = dataset[0]
    assert sample.name == "plant001"
    assert sample.labels.tolist() == [[0, 1, 1, 0], [2, 2, 0, 0]]
    assert sample.classes.tolist() == [1, 1]
    assert not sample.ignore.any()
    assert sample.image.shape == (2, 4, 3)


def test_a_folder_of_sets_tells_the_set_in_a_column(tmp_path):
    for subset, stem in (("A1", "plant001"), ("A2", "plant001"), ("A4", "plant0003")):
        add_plant(tmp_path / subset, stem)
    (tmp_path / "A5").mkdir()
    add_plant(tmp_path / "old", "plant009")
    dataset = open_dataset(tmp_path)
    assert dataset.names == ("A1_plant001", "A2_plant001", "A4_plant0003")
    assert dataset.columns == {"subset": {"A1_plant001": "A1", "A2_plant001": "A2", "A4_plant0003": "A4"}}
    assert [sample.name for sample in dataset] == list(dataset.names)


def test_foreground_without_a_leaf_is_ignored_and_a_leaf_without_foreground_stays(tmp_path):
    foreground = np.array([[1, 1, 0, 0], [1, 1, 0, 1]])
    add_plant(tmp_path, "plant001", foreground=foreground > 0)
    sample = Cvppp(tmp_path)[0]
    assert sample.labels.tolist() == [[0, 1, 1, 0], [2, 2, 0, 0]]
    assert np.argwhere(sample.ignore).tolist() == [[0, 0], [1, 3]]


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA"])
def test_a_foreground_of_any_kind_is_read(tmp_path, mode):
    add_plant(tmp_path, "plant001")
    picture = Image.fromarray(np.array([[255, 0, 0, 0], [0, 0, 0, 255]], np.uint8)).convert(mode)
    picture.save(tmp_path / "plant001_fg.png")
    assert np.argwhere(Cvppp(tmp_path)[0].ignore).tolist() == [[0, 0], [1, 3]]


def test_without_a_foreground_nothing_is_ignored(tmp_path):
    add_plant(tmp_path, "plant001")
    (tmp_path / "plant001_fg.png").unlink()
    assert not Cvppp(tmp_path)[0].ignore.any()


def test_names_may_have_spaces_and_letters_of_any_language(tmp_path):
    for stem in ("ara2012_plant001", "Blätter von oben", "日本"):
        add_plant(tmp_path / "mine", stem)
    add_plant(tmp_path / "mine", "._plant002")
    assert open_dataset(tmp_path / "mine").names == ("Blätter von oben", "ara2012_plant001", "日本")


@pytest.mark.parametrize("n", [0, 3, 255, 256, 700])
def test_samples_written_come_back(tmp_path, n):
    generator = np.random.default_rng(n)
    labels = np.zeros((30, 40), np.int32)
    labels.ravel()[:n] = np.arange(1, n + 1)
    ignore = (generator.random(labels.shape) < 0.2) & (labels == 0)
    images = [generator.integers(0, 65536, (30, 40, c)).astype(dtype) for c, dtype in ((3, np.uint8), (3, np.uint16))]
    samples = [
        Sample(name, image, labels, np.ones(n, np.int32), ignore)
        for name, image in zip(("plant 1", "plant2"), images, strict=True)
    ]
    write_cvppp(tmp_path / "new" / "set", samples, ("leaf",))
    for truth, found in zip(samples, open_dataset(tmp_path / "new" / "set"), strict=True):
        assert found.name == truth.name
        for part in ("image", "labels", "classes", "ignore"):
            np.testing.assert_array_equal(getattr(found, part), getattr(truth, part))
    with Image.open(tmp_path / "new" / "set" / "plant 1_label.png") as label:
        assert label.mode == ("L" if n <= 255 else "I;16")


def test_two_samples_of_one_name_or_a_folder_that_cannot_be_made_are_refused(tmp_path):
    labels = np.zeros((2, 3), np.int32)
    sample = Sample("a", np.zeros((2, 3, 1), np.uint8), labels, np.zeros(0, np.int32), labels > 0)
    with pytest.raises(InputError, match="two images are named 'a'"):
        write_cvppp(tmp_path, [sample, sample])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        write_cvppp(tmp_path / "file" / "deeper", [sample])


def test_a_testing_set_has_no_truth(tmp_path):
    for k in range(3):
        add_plant(tmp_path / "A1", f"plant00{k}")
        (tmp_path / "A1" / f"plant00{k}_label.png").unlink()
    for path in (tmp_path, tmp_path / "A1"):
        assert layout_of(path) == "cvppp"
        with pytest.raises(InputError, match=r"has no label image, .* The leaves of the testing sets are not public"):
            open_dataset(path)


def test_files_without_a_partner_are_named_up_to_three(tmp_path):
    for k in range(6):
        add_plant(tmp_path, f"plant{k}")
    for k in (0, 2, 3, 4):
        (tmp_path / f"plant{k}_label.png").unlink()
    (tmp_path / "plant5_rgb.png").unlink()
    with pytest.raises(InputError) as caught:
        Cvppp(tmp_path)
    assert str(caught.value).splitlines() == [
        *(f"{tmp_path / f'plant{k}_rgb.png'}: has no label image beside it." for k in (0, 2, 3)),
        "and 2 more like these",
    ]
    dataset, problems = Cvppp.salvage(tmp_path)
    assert dataset.names == ("plant1",)
    assert problems[-1] == f"{tmp_path / 'plant5_label.png'}: has no image beside it."


def test_pictures_of_plants_that_are_annotated_in_another_form_are_that(tmp_path):
    add_plant(tmp_path, "plant001")
    (tmp_path / "plant001_label.png").unlink()
    (tmp_path / "plant001_rgb.geojson").write_text("[]")
    for other in tmp_path.glob("*_fg.png"):
        other.unlink()
    assert layout_of(tmp_path) == "geojson"


def test_a_folder_without_plants_is_refused(tmp_path):
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "street_rgb.png")
    assert not Cvppp.recognises(tmp_path)
    with pytest.raises(InputError, match=r"holds no plant\. Accepted is CVPPP leaves: a set such as A1"):
        Cvppp(tmp_path / "nowhere")


@pytest.mark.parametrize("kind", ["label", "fg"])
def test_files_of_another_size_are_refused_when_read(tmp_path, kind):
    add_plant(tmp_path, "plant001")
    Image.fromarray(np.zeros((5, 6), np.uint8)).save(tmp_path / f"plant001_{kind}.png")
    with pytest.raises(InputError, match=rf"_{kind}\.png: has 5 x 6 pixels, but its image plant001_rgb\.png has 2 x 4"):
        Cvppp(tmp_path)[0]


def test_cvppp_is_listed():
    assert DATASETS["cvppp"] is Cvppp
