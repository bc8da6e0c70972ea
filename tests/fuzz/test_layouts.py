"""Damaged annotation files: each is refused in a sentence, or is a data set whose samples can be read.

The corpus is written by our own writers, and by hand where others write what ours do not.
"""

import base64
import json
import shutil
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat
from tests.fuzz.mutation import LONGEST_MESSAGE, Guard, cases, edits, mutants

from attractor.datasets import DATASETS
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.images import write_image
from attractor.instances import Annotations, Instances

SHAPE = (12, 16)
CLASSES = ("car", "bus")


class Described:
    """What a writer asks of a data set."""

    class_names, names = CLASSES, ("a",)
    columns: dict[str, dict[str, str]]

    def __init__(self) -> None:
        self.columns = {}

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Sample:
        return sample()


def sample() -> Sample:
    """Three objects, one with a hole and one in two parts, two of them overlapping, and pixels to ignore."""
    masks = np.zeros((3, *SHAPE), bool)
    masks[0, 1:6, 1:6], masks[0, 3, 3] = True, False
    masks[1, 4:9, 4:9] = True
    masks[2, 1:3, 10:14] = masks[2, 8:11, 11:14] = True
    void = np.zeros(SHAPE, bool)
    void[11] = True
    truth = Instances.from_masks(list(masks), np.array([1, 2, 1], np.int32), np.ones(3, np.float32), SHAPE)
    is_twice = masks.sum(axis=0) > 1
    labels = np.where(is_twice, 0, truth.labels).astype(np.int32)
    image = np.arange(SHAPE[0] * SHAPE[1] * 3, dtype=np.uint8).reshape(*SHAPE, 3)
    return Sample("a", image, labels, truth.classes, is_twice | void, lambda: Annotations.of(truth, void))


def written(layout: str, folder: Path) -> None:
    """The sample as our own writer has it."""
    DATASETS[layout].write(folder, [sample()], Described())


def as_geojson(folder: Path) -> None:
    """With a class within a class, an annotation, and a cell within it."""
    written("geojson", folder)
    document = json.loads((folder / "a.geojson").read_bytes())
    document["features"][0]["properties"]["classification"] = {"names": ["car", "red"]}
    document["features"][1]["properties"]["childObjects"] = [document["features"][2]]
    (folder / "a.geojson").write_text(json.dumps(document))


def as_labelme(folder: Path) -> None:
    """With shapes of every kind, and with the image in it."""
    written("labelme", folder)
    document = json.loads((folder / "a.json").read_bytes())
    for kind in ("circle", "rectangle"):
        document["shapes"].append({"label": "car", "points": [[2, 3], [5.5, 6]], "shape_type": kind, "group_id": "b"})
    document["imageData"] = base64.b64encode((folder / "a.png").read_bytes()).decode()
    document["imagePath"] = "..\\a.png"
    (folder / "a.png").unlink()
    (folder / "a.json").write_text(json.dumps(document))


def as_roi(folder: Path) -> None:
    """A single ROI beside the image."""
    import roifile

    written("imagej", folder)
    (folder / "a_rois.zip").unlink()
    points = np.array([[1.5, 1], [9, 2], [8, 9.5], [2, 8]], np.float32)
    (folder / "a.roi").write_bytes(roifile.ImagejRoi.frompoints(points, name="cell").tobytes())


def as_sbd(folder: Path) -> None:
    """A file of SBD that is not compressed, so that damage reaches its numbers."""
    for part in ("img", "inst"):
        (folder / part).mkdir()
    write_image(folder / "img" / "a.png", sample().image)
    fields = {"Segmentation": sample().labels.astype(np.uint8), "Categories": np.array([[1], [6], [1]], np.uint8)}
    savemat(folder / "inst" / "a.mat", {"GTinst": fields})
    (folder / "val.txt").write_text("a\n")


def as_table(folder: Path) -> None:
    """An image without masks, and its table."""
    (folder / "a" / "images").mkdir(parents=True)
    write_image(folder / "a" / "images" / "a.png", sample().image)
    rows = ["a,1 3 15 4,12,16,Private", "a,14 6,12,16,Private", "a,100 1 120 5 150 7,12,16,Private"]
    (folder / "stage1_solution.csv").write_text("\n".join(["ImageId,EncodedPixels,Height,Width,Usage", *rows]))


def as_street(folder: Path) -> None:
    """With distances."""
    written("cityscapes", folder)
    (numbers,) = folder.rglob("*_instanceIds.png")
    stem, split = numbers.name.removesuffix("_gtFine_instanceIds.png"), numbers.parent.relative_to(folder / "gtFine")
    for kind in ("disparity", "camera"):
        (folder / kind / split).mkdir(parents=True)
    disparity = np.full((*SHAPE, 1), 7000, np.uint16)
    write_image(folder / "disparity" / split / f"{stem}_disparity.png", disparity)
    camera = {"extrinsic": {"baseline": 0.21}, "intrinsic": {"fx": 2262.5}}
    (folder / "camera" / split / f"{stem}_camera.json").write_text(json.dumps(camera))


@dataclass(frozen=True)
class Form:
    """A layout as someone has it, and the file of it that is damaged."""

    layout: str
    make: Callable[[Path], None]
    file: str  # a pattern


def by_our_writer(layout: str, file: str) -> Form:
    """A layout as we write it."""
    return Form(layout, lambda folder: written(layout, folder), file)


FORMS = {
    "geojson": Form("geojson", as_geojson, "a.geojson"),
    "labelme": Form("labelme", as_labelme, "a.json"),
    "imagej zip": by_our_writer("imagej", "a_rois.zip"),
    "imagej roi": Form("imagej", as_roi, "a.roi"),
    "pascal-voc list": by_our_writer("pascal-voc", "trainval.txt"),
    "pascal-voc classes": by_our_writer("pascal-voc", "labelmap.txt"),
    "pascal-voc indices": by_our_writer("pascal-voc", "SegmentationClass/a.png"),
    "sbd": Form("pascal-voc", as_sbd, "a.mat"),
    "cvppp": by_our_writer("cvppp", "a_label.png"),
    "dsb2018 masks": by_our_writer("dsb2018", "a_0001.png"),
    "dsb2018 table": Form("dsb2018", as_table, "stage1_solution.csv"),
    "cityscapes ids": by_our_writer("cityscapes", "*_instanceIds.png"),
    "ctc list": by_our_writer("ctc", "man_track.txt"),
    "ctc mask": by_our_writer("ctc", "man_seg000.tif"),
    "cityscapes camera": Form("cityscapes", as_street, "*_camera.json"),
}


@pytest.fixture(scope="module", params=FORMS)
def damaged(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path, Path]:
    """The layout, a folder in it, and the file that may be overwritten."""
    form, folder = FORMS[request.param], tmp_path_factory.mktemp("set")
    form.make(folder)
    (file,) = folder.rglob(form.file)
    return form.layout, folder, file


def read_all(dataset: Any) -> int:
    """Every sample and what is annotated in it; the number of objects."""
    n = 0
    for index in range(len(dataset)):
        one = dataset[index]
        assert one.labels.max(initial=0) == len(one.classes)
        n += len(one.classes)
        if one.annotate is not None:
            n += len(one.annotate().masks)
    return n


def check_sentences(sentences: Sequence[str]) -> None:
    """What is wrong with a data set is meant for a person to read."""
    for sentence in sentences:
        assert 0 < len(sentence) < LONGEST_MESSAGE, sentence[:200]
        assert sentence.replace("\n", "").isprintable(), repr(sentence[:200])


def hold_the_law(guarded: Guard, layout: str, folder: Path, what: str) -> bool:
    """Open the data set in both ways and read all of it; whether it could be."""
    writes_to = Path(tempfile.gettempdir()) if layout == "labelme" else None  # unpacks images that a JSON holds
    found = guarded(lambda: read_all(DATASETS[layout](folder)), what=what, writes_to=writes_to)
    if (salvaged := guarded(lambda: DATASETS[layout].salvage(folder), what=what)) is not None:
        check_sentences(salvaged[1])
    return found is not None


def test_what_is_whole_is_read(guarded, damaged):
    layout, folder, file = damaged
    assert hold_the_law(guarded, layout, folder, file.name)


def test_damaged_files_are_refused_or_read(guarded, damaged):
    layout, folder, file = damaged
    whole = file.read_bytes()
    n_read = 0
    for number, (_, content) in enumerate(mutants({file.name: whole}, 180)):
        file.write_bytes(content)
        n_read += hold_the_law(guarded, layout, folder, f"{file.name}, case {number}")
    file.write_bytes(whole)
    assert n_read < cases(180)


def test_files_with_any_bytes_replaced_are_refused_or_read(guarded, damaged):
    layout, folder, file = damaged
    whole = file.read_bytes()

    @settings(max_examples=cases(30), deadline=None, database=None, derandomize=True)
    @given(content=edits({file.name: whole}) | st.binary(max_size=40))
    def hold(content: bytes) -> None:
        file.write_bytes(content)
        hold_the_law(guarded, layout, folder, file.name)

    hold()
    file.write_bytes(whole)


def covering(n_parts: int, n_objects: int) -> bytes:
    """A GeoJSON of objects that each cover the image of 1,000 x 1,000 pixels several times."""
    whole = [[[0, 0], [1000, 0], [1000, 1000], [0, 1000]]]
    one = {"geometry": {"type": "MultiPolygon", "coordinates": [whole] * n_parts}}
    return json.dumps({"features": [one] * n_objects}).encode()


def outlined_as(ring: list[Any]) -> bytes:
    """A GeoJSON of one object with that outline."""
    return json.dumps({"features": [{"geometry": {"type": "Polygon", "coordinates": [ring]}}]}).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (covering(1, 2_000), "its 2,000 outlines cover the image 101 times and more"),
        (outlined_as([[k % 1000, k % 2 * 1000] for k in range(70_000)]), "crosses 70,000,000 rows in all"),
        (outlined_as([["x" * 300_000, 1], *([[1, 2]] * 60_000)]), "not a list of points"),
    ],
    ids=["covering", "zigzag", "text"],
)
def test_small_files_that_are_made_to_do_harm_are_refused(guarded, content, said, tmp_path):
    assert len(content) < 1 << 20
    write_image(tmp_path / "a.png", np.zeros((1000, 1000, 1), np.uint8))
    (tmp_path / "a.geojson").write_bytes(content)

    def read() -> None:
        with pytest.raises(InputError, match=said):
            read_all(DATASETS["geojson"](tmp_path))

    guarded(read, what=said)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.just(10**400)
    | st.just("x" * 3000),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def places_in(value: Any, so_far: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The ways to each value within a JSON document."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [so_far, *(place for key, one in inner for place in places_in(one, (*so_far, key)))]


def replaced(value: Any, place: tuple[Any, ...], new: Any) -> Any:
    """The document with another value at a place."""
    if not place:
        return new
    inner = list(value) if isinstance(value, list) else dict(value)
    inner[place[0]] = replaced(value[place[0]], place[1:], new)
    return inner


@pytest.mark.parametrize("name", ["geojson", "labelme", "cityscapes camera"])
def test_json_with_any_value_in_any_place_is_refused_or_read(guarded, name, tmp_path):
    form = FORMS[name]
    form.make(tmp_path)
    (file,) = tmp_path.rglob(form.file)
    document = json.loads(file.read_bytes())

    @settings(max_examples=cases(150), deadline=None, database=None, derandomize=True)
    @given(place=st.sampled_from(places_in(document)), new=VALUES)
    def hold(place: tuple[Any, ...], new: Any) -> None:
        file.write_text(json.dumps(replaced(document, place, new)))
        hold_the_law(guarded, form.layout, tmp_path, f"{place} is {new!r}"[:300])

    hold()
    shutil.rmtree(tmp_path)
