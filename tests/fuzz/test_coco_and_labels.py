"""COCO, label images with their table, and crops of them, on damaged files: whole samples, or a sentence."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from tests.fuzz.mutation import Guard, cases, edits, mutants

from attractor.datasets import Dataset, Sample, cropped
from attractor.datasets.coco import Coco
from attractor.datasets.coco_masks import compress_runs
from attractor.datasets.label_images import LabelImages
from attractor.errors import InputError
from attractor.instances import encode_mask

# Pillow warns of EXIF that is damaged; the pixels beside it may be whole
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

SHAPE = (20, 30)
LABELS = np.kron(np.arange(6).reshape(2, 3), np.ones((10, 10), int)).astype(np.uint8)
MASK = LABELS == 3
ODD = (
    None, True, False, -1, 0, 1, 2, 1.5, 10**9, 10**400, 1e308, float("nan"), float("inf"),
    "", "x", "a" * 5000, "\ud800",
    "../a.png", "\0", [], [[]], {}, {"size": [20, 30], "counts": "0"}, {"size": [20, 30], "counts": [300, 300]},
    {"size": [10**9, 10**9], "counts": [10**18]}, [[1e6, -1e6, 9e6, 9e6, -9e6, 9e6]], [[1, 1, 2, 2, 3, 3]] * 3,
)  # fmt: skip


def square(x: float, y: float, side: float) -> list[float]:
    return [x, y, x + side, y, x + side, y + side, x, y + side]


def document() -> dict[str, Any]:
    """A document with every kind of outline."""
    runs = encode_mask(MASK)
    outlines = [
        [square(1, 1, 6)],
        [square(2.5, 2.5, 6), square(20, 3, 4)],
        {"size": [*SHAPE], "counts": runs.tolist()},
        {"size": [*SHAPE], "counts": compress_runs(runs)},
    ]
    annotations = [
        {"id": k, "image_id": 1, "category_id": 1 + k % 2, "segmentation": outline, "iscrowd": k % 2, "area": 36.0}
        for k, outline in enumerate(outlines)
    ]
    return {
        "images": [{"id": 1, "file_name": "a.png", "height": 20, "width": 30}, {"id": 2, "file_name": "b.png"}],
        "annotations": annotations,
        "categories": [{"id": 1, "name": "cell"}, {"id": 2, "name": "nucleus"}],
    }


def results() -> list[dict[str, Any]]:
    """What was found, in COCO's form."""
    return [
        {"image_id": entry["image_id"], "category_id": 1, "segmentation": entry["segmentation"], "score": 0.5}
        for entry in document()["annotations"]
    ]


def places(value: Any, way: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The way to each value within a JSON."""
    if isinstance(value, dict | list):
        for key, part in value.items() if isinstance(value, dict) else enumerate(value):
            yield (*way, key)
            yield from places(part, (*way, key))


def changed(random: Random, whole: Any) -> Any:
    """A JSON in which one to three values are odd ones, gone, or twice there."""
    whole = deepcopy(whole)
    for _ in range(random.randint(1, 3)):
        if not (ways := list(places(whole))):
            break
        *way, key = random.choice(ways)
        inside = whole
        for step in way:
            inside = inside[step]
        kind = random.random()
        if kind < 0.1:
            del inside[key]
        elif kind < 0.2 and isinstance(inside, list):
            inside.append(deepcopy(inside[key]))
        else:
            inside[key] = deepcopy(random.choice(ODD))
    return whole


def draw_images(folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for name in ("a", "b"):
        Image.fromarray(LABELS * 20).save(folder / f"{name}.png")
    return folder


def as_bytes(whole: Any) -> bytes:
    return json.dumps(whole).encode()


# --- COCO -------------------------------------------------------------------------------------------------------------


def read_all(dataset: Dataset) -> list[Sample]:
    """Every sample, its annotations drawn; those that cannot be read are left out."""
    found = []
    for index in range(len(dataset)):
        try:
            sample = dataset[index]
            if sample.annotate is not None:
                sample.annotate()
        except InputError:
            continue
        found.append(sample)
    return found


def check(guarded: Guard, opened: Callable[[], tuple[Dataset, list[str]]], what: str) -> None:
    """Hold a data set and its samples to the law."""
    given = guarded(opened, what=what)
    if given is None:
        return
    dataset, problems = given
    assert all(0 < len(sentence) < 2000 for sentence in problems), what
    for sample in guarded(lambda: read_all(dataset), what=what) or []:
        assert is_whole(sample, len(dataset.class_names)), what


def is_whole(sample: Sample, n_classes: int) -> bool:
    """Whether a sample's parts fit each other."""
    shape, k = sample.image.shape[:2], len(sample.classes)
    present = np.unique(sample.labels)
    is_numbered = sample.labels.shape == shape and np.array_equal(present[present > 0], np.arange(1, k + 1))
    has_classes = k == 0 or bool(1 <= sample.classes.min() and sample.classes.max() <= n_classes)
    is_apart = sample.ignore.shape == shape and not (sample.ignore & (sample.labels > 0)).any()
    return is_numbered and has_classes and is_apart


def check_coco(guarded: Guard, folder: Path, file: bytes, what: str) -> None:
    (folder / "annotations.json").write_bytes(file)
    check(guarded, lambda: Coco.salvage(folder), what)
    guarded(lambda: Coco(folder), what=what)


def test_the_document_is_read_before_it_is_damaged(tmp_path):
    folder = draw_images(tmp_path / "data")
    (folder / "annotations.json").write_bytes(as_bytes(document()))
    dataset = Coco(folder)
    assert [is_whole(sample, 2) for sample in read_all(dataset)] == [True, True]
    (folder / "found.json").write_bytes(as_bytes(results()))
    assert [len(one) for one in dataset.read_results(folder / "found.json")] == [4, 0]


def test_a_damaged_coco_file_gives_samples_or_sentences(tmp_path, guarded):
    folder = draw_images(tmp_path / "data")
    for number, (_, file) in enumerate(mutants({"coco": as_bytes(document())}, 250)):
        check_coco(guarded, folder, file, f"bytes, case {number}")


def test_odd_values_in_coco_give_samples_or_sentences(tmp_path, guarded):
    folder = draw_images(tmp_path / "data")
    for number in range(cases(200)):
        file = as_bytes(changed(Random(f"coco {number}"), document()))
        check_coco(guarded, folder, file, f"values, case {number}")


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(st.sampled_from(["size", "counts", "id"]), inner),
    max_leaves=8,
)


def test_any_value_as_an_annotation_gives_samples_or_sentences(tmp_path, guarded):
    folder = draw_images(tmp_path / "data")
    keys = sorted(document()["annotations"][0])

    @settings(max_examples=cases(60), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(st.sampled_from(keys), VALUES, st.lists(st.integers(-(2**31), 2**31) | st.floats(), min_size=6, max_size=8))
    def annotated(key: str, value: Any, polygon: list[float]) -> None:
        whole = document()
        whole["annotations"][0]["segmentation"] = [polygon]
        whole["annotations"][1][key] = value
        check_coco(guarded, folder, as_bytes(whole), f"{key} = {value!r}")

    annotated()


def test_damaged_results_give_objects_or_a_sentence(tmp_path, guarded):
    folder = draw_images(tmp_path / "data")
    (folder / "annotations.json").write_bytes(as_bytes(document()))
    dataset, file = Coco(folder), folder / "found.json"
    damaged = [whole for _, whole in mutants({"results": as_bytes(results())}, 100)]
    damaged += [as_bytes(changed(Random(f"results {number}"), results())) for number in range(cases(150))]
    for number, whole in enumerate(damaged):
        file.write_bytes(whole)
        found = guarded(lambda: list(dataset.read_results(file)), what=f"results, case {number}")
        assert found is None or [one.labels.shape for one in found] == [SHAPE, SHAPE]


# --- label images and crops -------------------------------------------------------------------------------------------


def table() -> bytes:
    file = io.StringIO(newline="")
    csv.writer(file).writerows([["image", "stain", "organ"], ["a", "HE", "liver, left"], ["b", "DAPI", 'a "b"']])
    return file.getvalue().encode()


def png(labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "PNG")
    return file.getvalue()


def tiff(labels: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(labels).save(file, "TIFF")
    return file.getvalue()


TABLES = {"table": table()}
LABEL_FILES = {"png": png(LABELS), "16 bits": png(LABELS.astype(np.uint16) * 9000), "tiff": tiff(LABELS)}


@pytest.fixture
def folder(tmp_path):
    """Two images with labels and a table."""
    draw_images(tmp_path / "images")
    (tmp_path / "labels").mkdir()
    for name in ("a", "b"):
        (tmp_path / "labels" / f"{name}.png").write_bytes(png(LABELS))
    return tmp_path


def check_labels(guarded: Guard, folder: Path, what: str) -> None:
    check(guarded, lambda: LabelImages.salvage(folder), what)
    dataset = guarded(lambda: LabelImages(folder), what=what)
    crops = dataset and guarded(lambda: cropped(dataset, 7, 2), what=what)
    if crops:
        assert all(is_whole(crop, 1) and len(crop.classes) in (1, 2) for crop in read_all(crops)), what


def test_a_damaged_table_gives_columns_or_a_sentence(folder, guarded):
    for number, (_, file) in enumerate(mutants(TABLES, 300)):
        (folder / "images.csv").write_bytes(file)
        dataset = guarded(lambda: LabelImages(folder), what=f"table, case {number}")
        for values in dataset.columns.values() if dataset else []:
            assert values.keys() <= {"a", "b"}


def test_edited_tables_give_columns_or_a_sentence(folder, guarded):
    @settings(max_examples=cases(150), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(edits(TABLES))
    def edited(file: bytes) -> None:
        (folder / "images.csv").write_bytes(file)
        guarded(lambda: LabelImages.salvage(folder), what=repr(file))

    edited()


def test_damaged_label_images_give_samples_and_crops_or_sentences(folder, guarded):
    for number, (name, file) in enumerate(mutants(LABEL_FILES, 150)):
        for old in (folder / "labels").glob("a.*"):
            old.unlink()
        (folder / "labels" / f"a.{'tif' if name == 'tiff' else 'png'}").write_bytes(file)
        check_labels(guarded, folder, f"labels, {name}, case {number}")
