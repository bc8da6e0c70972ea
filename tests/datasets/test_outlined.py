"""What the layouts with a file of outlines for each image have in common, for each of them."""

import pickle
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from attractor.datasets import DATASETS, Sample, open_dataset
from attractor.datasets.geojson import encode_geojson, write_geojson
from attractor.datasets.imagej import encode_rois, write_rois
from attractor.datasets.labelme import write_labelme
from attractor.datasets.names import leads_out
from attractor.datasets.outlined import read_json
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask, encode_mask


@dataclass(frozen=True)
class Format:
    """One layout and how it is written."""

    layout: str
    ending: str
    within: str  # the folder for outlines
    write: Callable[..., None]
    encode: Callable[[Instances, tuple[str, ...]], bytes]
    has_classes: bool
    has_ignore: bool


def encode_labelme(found: Instances, names: tuple[str, ...]) -> bytes:
    """The JSON that is written for an image with these objects."""
    nowhere = np.zeros(found.labels.shape, bool)
    is_twice = sum((found.mask(k + 1).astype(int) for k in range(len(found))), nowhere.astype(int)) > 1
    image = np.zeros((*found.labels.shape, 1), np.uint8)
    one = Sample("a", image, found.labels, found.classes, is_twice, lambda: Annotations.of(found, nowhere))
    with TemporaryDirectory() as folder:
        write_labelme(folder, [one], names)
        return (Path(folder) / "a.json").read_bytes()


FORMATS = [
    Format("geojson", ".geojson", "annotations", write_geojson, encode_geojson, True, True),
    Format("imagej", "_rois.zip", "rois", write_rois, encode_rois, False, False),
    Format("labelme", ".json", "annotations", write_labelme, encode_labelme, True, True),
]  # fmt: skip


@pytest.fixture(params=FORMATS, ids=lambda form: form.layout)
def form(request: pytest.FixtureRequest) -> Any:
    """Each layout in turn."""
    return request.param


def sample(name: str = "a", seed: int = 0, shape: tuple[int, int] = (30, 40), n_classes: int = 2) -> Sample:
    """Objects with holes, of several parts, touching each other and the border."""
    generator = np.random.default_rng(seed)
    patches = ndimage.gaussian_filter(generator.random((7, *shape)), (0, 2, 2))
    labels = patches.argmax(axis=0).astype(np.int32)
    labels[ndimage.gaussian_filter(generator.random(shape), 1) > 0.6] = 0
    classes = generator.integers(1, n_classes + 1, 6)
    image = generator.integers(0, 255, (*shape, 3)).astype(np.uint8)
    return Sample(name, image, labels, classes.astype(np.int32), (generator.random(shape) < 0.05) & (labels == 0))


def squares(*corners: tuple[int, int], shape: tuple[int, int] = (12, 16)) -> Instances:
    """Squares of 5 x 5 pixels, which may overlap."""
    masks = np.zeros((len(corners), *shape), bool)
    for mask, (row, column) in zip(masks, corners, strict=True):
        mask[row : row + 5, column : column + 5] = True
    labels = np.zeros(shape, np.int32)
    for k, mask in enumerate(masks, 1):
        labels[mask] = k
    return Instances(
        labels, np.ones(len(masks), np.int32), np.ones(len(masks), np.float32), tuple(map(encode_mask, masks))
    )


def place(folder: Path, name: str, content: bytes, shape: tuple[int, int] = (12, 16)) -> None:
    """An image and its file."""
    Image.fromarray(np.zeros(shape, np.uint8)).save(folder / "a.png")
    (folder / name).parent.mkdir(exist_ok=True)
    (folder / name).write_bytes(content)


def test_samples_written_come_back(form, tmp_path):
    samples = [sample("a b", 1), sample("Größe é", 2, (17, 23)), sample("c", 3)]
    names = ("cell", "nucleus")
    form.write(tmp_path / "set", samples, names)
    dataset = open_dataset(tmp_path / "set")
    assert isinstance(dataset, DATASETS[form.layout])
    assert dataset.class_names == (names if form.has_classes else ("object",))
    assert dataset.columns == {}
    by_name = {one.name: one for one in samples}
    assert sorted(dataset.names) == sorted(by_name)
    for found in dataset:
        truth = by_name[found.name]
        np.testing.assert_array_equal(found.image, truth.image)
        np.testing.assert_array_equal(found.labels, truth.labels)
        np.testing.assert_array_equal(found.classes, truth.classes if form.has_classes else np.ones(6, int))
        np.testing.assert_array_equal(found.ignore, truth.ignore & form.has_ignore)


def test_many_random_label_images_come_back(form, tmp_path):
    generator = np.random.default_rng(0)
    for _ in range(15):
        shape = tuple(generator.integers(1, 15, 2).tolist())
        found = Instances.from_labels(generator.integers(0, 4, shape).astype(np.int32))
        place(tmp_path, "a" + form.ending, form.encode(found, ("cell",)), shape)
        np.testing.assert_array_equal(open_dataset(tmp_path)[0].labels, found.labels)


def test_the_same_objects_give_the_same_bytes(form):
    found = squares((1, 1), (4, 4))
    assert form.encode(found, ("cell",)) == form.encode(found, ("cell",))


def test_masks_that_overlap_are_written_whole_and_read_as_annotated(form, tmp_path):
    found = squares((1, 1), (4, 4))
    place(tmp_path, "a" + form.ending, form.encode(found, ("cell",)))
    dataset = open_dataset(tmp_path)
    one = dataset[0]
    both = found.mask(1) & found.mask(2)
    np.testing.assert_array_equal(one.ignore, both)
    np.testing.assert_array_equal(one.labels, np.where(both, 0, found.labels))
    annotations = one.annotate()
    assert annotations.classes.tolist() == [1, 1]
    assert annotations.areas.tolist() == [25, 25]
    assert not annotations.is_crowd.any()
    assert not annotations.void.any()
    assert np.isnan(annotations.distances).all()
    for k, runs in enumerate(annotations.masks, 1):
        np.testing.assert_array_equal(decode_mask(runs, one.labels.shape), found.mask(k))
    assert dataset.overlap_share(0) == 4 / 46
    assert dataset.object_count(0) == 2


def test_an_object_without_a_pixel_of_its_own_is_dropped_but_annotated(form, tmp_path):
    place(tmp_path, "a" + form.ending, form.encode(squares((1, 1), (1, 1), (6, 8)), ("cell",)))
    one = open_dataset(tmp_path)[0]
    assert one.labels.max() == 1
    assert len(one.classes) == 1
    assert len(one.annotate().masks) == 3


def test_a_sample_can_be_sent_to_another_process(form, tmp_path):
    form.write(tmp_path, [sample()], ("cell", "nucleus"))
    one = pickle.loads(pickle.dumps(open_dataset(tmp_path)[0]))
    assert len(one.annotate().masks) == 6


def test_names_that_end_as_files_of_outlines_do_come_back(form, tmp_path):
    stems = ["a", "a_rois", "a.png", "a_rois_rois"]
    form.write(tmp_path, [sample(stem, k) for k, stem in enumerate(stems)], ("cell", "nucleus"))
    found = open_dataset(tmp_path)
    assert sorted(found.names) == sorted(stems)
    for one in found:
        np.testing.assert_array_equal(one.labels, sample(one.name, stems.index(one.name)).labels)


def test_a_name_that_segment_gives_its_results_is_refused(form, tmp_path):
    with pytest.raises(InputError, match=r"a_overlay\.png: an image of this name would be passed over when read"):
        form.write(tmp_path / "out", [sample("a_overlay")], ("cell", "nucleus"))


def test_ignored_pixels_outside_objects_are_void(tmp_path):
    for form in FORMATS:
        if form.has_ignore:
            truth = sample(form.layout)
            form.write(tmp_path / form.layout, [truth], ("cell", "nucleus"))
            np.testing.assert_array_equal(open_dataset(tmp_path / form.layout)[0].annotate().void, truth.ignore)


def test_an_image_whose_file_has_no_object_is_empty(form, tmp_path):
    nothing = Instances.from_labels(np.zeros((12, 16), np.int32))
    place(tmp_path, "a" + form.ending, form.encode(nothing, ("cell",)))
    dataset = open_dataset(tmp_path)
    assert dataset.class_names == ("object",)
    assert not dataset[0].labels.any()
    assert dataset[0].classes.shape == (0,)
    assert dataset[0].annotate().masks == ()
    assert dataset.overlap_share(0) == 0


def test_what_lies_beyond_the_image_is_cut_off(form, tmp_path):
    found = squares((1, 1), (8, 8), (14, 20), shape=(20, 30))
    place(tmp_path, "a" + form.ending, form.encode(found, ("cell",)).replace(b'"imageHeight": 20', b'"imageHeight": 12')
          .replace(b'"imageWidth": 30', b'"imageWidth": 16'))  # fmt: skip
    one = open_dataset(tmp_path)[0]
    np.testing.assert_array_equal(one.labels, np.where(found.labels < 3, found.labels, 0)[:12, :16])
    assert len(one.annotate().masks) == 2


def test_images_and_outlines_may_lie_in_folders_of_their_own(form, tmp_path):
    form.write(tmp_path, [sample()], ("cell", "nucleus"))
    for inner, name in (("images", "a.png"), (form.within, "a" + form.ending)):
        (tmp_path / inner).mkdir()
        (tmp_path / name).rename(tmp_path / inner / name)
    np.testing.assert_array_equal(open_dataset(tmp_path)[0].labels, sample().labels)


def test_files_without_a_partner_are_named(form, tmp_path):
    form.write(tmp_path, [sample(name) for name in "abcdefgh"], ("cell", "nucleus"))
    for name in "bcde":
        (tmp_path / f"{name}{form.ending}").unlink()
    (tmp_path / "f.png").unlink()
    with pytest.raises(InputError) as caught:
        DATASETS[form.layout](tmp_path)
    assert "4 images have no " in str(caught.value)
    assert "Alone: b.png, c.png, d.png and 1 more." in str(caught.value)
    assert f"has no image{':' if form.layout == 'labelme' else ','}" in str(caught.value)
    assert f"Alone: f{form.ending}." in str(caught.value)
    dataset, problems = DATASETS[form.layout].salvage(tmp_path)
    assert dataset.names == ("a", "g", "h")
    assert len(problems) == 2
    assert any("Alone: b.png, c.png, d.png, e.png." in problem for problem in problems)
    assert len(dataset[0].classes) == 6


def test_a_file_that_is_cut_short_is_named_and_its_image_left_out(form, tmp_path):
    form.write(tmp_path, [sample(name) for name in "abcde"], ("cell", "nucleus"))
    for name in "abcd":
        file = tmp_path / f"{name}{form.ending}"
        file.write_bytes(file.read_bytes()[:-30])
    with pytest.raises(InputError, match=rf"(?s)a{form.ending}: is cut short.*c{form.ending}: is cut.*\nand 1 more"):
        DATASETS[form.layout](tmp_path)
    dataset, problems = DATASETS[form.layout].salvage(tmp_path)
    assert dataset.names == ("e",)
    assert len(problems) == 4


@pytest.mark.parametrize("content", [b"", b"\x80\x81{", b"null", b"17", b"[" * 100_000, b"PK\x03\x04", b'"text"'])
def test_a_file_of_another_kind_is_refused(form, tmp_path, content):
    place(tmp_path, "a" + form.ending, content)
    with pytest.raises(InputError, match=rf"a{form.ending}: is "):
        DATASETS[form.layout](tmp_path)


def test_bytes_changed_anywhere_do_no_more_than_an_input_error(form, tmp_path):
    generator = np.random.default_rng(0)
    content = form.encode(squares((1, 1), (4, 4)), ("cell",))
    for _ in range(60):
        changed = bytearray(content)
        for place_of in generator.integers(0, len(content), 3):
            changed[place_of] = generator.integers(0, 256)
        place(tmp_path, "a" + form.ending, bytes(changed))
        dataset, _ = DATASETS[form.layout].salvage(tmp_path)
        for index in range(len(dataset)):
            with suppress(InputError):
                assert dataset[index].labels.shape == (12, 16)
                dataset[index].annotate()


def test_a_folder_without_a_usable_image_is_refused(form, tmp_path):
    layout = DATASETS[form.layout]
    with pytest.raises(InputError, match="nowhere: no such folder; give a folder with images and"):
        layout(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no (annotated )?image"):
        layout(tmp_path)
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / "a.png")
    assert not layout.recognises(tmp_path)


def test_hidden_files_are_passed_over(form, tmp_path):
    form.write(tmp_path, [sample()], ("cell", "nucleus"))
    (tmp_path / f"._a{form.ending}").touch()
    (tmp_path / "._a.png").touch()
    assert open_dataset(tmp_path).names == ("a",)


def test_an_object_of_a_class_without_a_name_is_refused(form, tmp_path):
    with pytest.raises(InputError, match="Object 1 is of class 1, but names are given for 0 classes"):
        form.encode(squares((1, 1)), ())


def test_two_samples_of_one_name_or_a_folder_that_cannot_be_made_are_refused(form, tmp_path):
    with pytest.raises(InputError, match="two images are named 'a'"):
        form.write(tmp_path, [sample(), sample()], ("cell", "nucleus"))
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        form.write(tmp_path / "file" / "deeper", [sample()], ("cell", "nucleus"))


@pytest.mark.parametrize("ending", [".geojson", "_rois.zip"])
def test_two_images_or_two_files_of_one_name_are_refused(ending, tmp_path):
    form = next(form for form in FORMATS if form.ending == ending)
    form.write(tmp_path, [sample()], ("cell", "nucleus"))
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.png").read_bytes())
    with pytest.raises(InputError, match=r"a\.tif: name: a\.png has the same stem"):
        DATASETS[form.layout](tmp_path)
    (tmp_path / "a.tif").unlink()
    (tmp_path / form.within).mkdir()
    (tmp_path / form.within / f"a.png{ending}").write_bytes(b"")
    with pytest.raises(InputError, match=rf"a\.png: outlines: it has 2 files of them, a{ending} and {form.within}/a"):
        DATASETS[form.layout](tmp_path)


def test_a_file_may_be_named_by_the_whole_name_of_its_image(tmp_path):
    for form in FORMATS[:2]:
        form.write(tmp_path / form.layout, [sample()], ("cell", "nucleus"))
        (tmp_path / form.layout / f"a{form.ending}").rename(tmp_path / form.layout / f"a.png{form.ending}")
        assert len(open_dataset(tmp_path / form.layout)[0].classes) == 6


def test_a_json_that_cannot_be_opened_is_an_input_error(tmp_path, monkeypatch):
    def forbidden(_: Path) -> bytes:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", forbidden)
    with pytest.raises(InputError, match=r"a\.json: cannot be read: Permission denied"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("name", ["../a", "a/../../b", "/a", "\\a", "..\\a", "C:\\a", "c:a", "a\0b"])
def test_names_that_lead_out_of_their_folder_are_told(name):
    assert leads_out(name)
    assert not leads_out("a/b..c/d.roi")
