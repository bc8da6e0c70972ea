"""The files of a result, each read back by those who will read it."""

import csv
import importlib.util
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pyarrow import parquet
from pycocotools import mask as official
from pycocotools.coco import COCO

from attractor.datasets.coco import Coco
from attractor.errors import InputError
from attractor.images import IMAGE_SUFFIXES, OUTPUT_ENDINGS, write_image
from attractor.instances import Instances
from attractor.prediction.encoding import encode_coco, encode_csv, encode_parquet
from attractor.prediction.outputs import DEFAULT_OUTPUTS, OUTPUTS, check_outputs, written_endings
from attractor.prediction.result import FileOutput, Result

RANDOM = np.random.default_rng(0)


def scattered(n: int, shape: tuple[int, int] = (11, 13)) -> Instances:
    """Objects of loose pixels, some of which may have none."""
    labels = RANDOM.integers(0, n + 1, shape).astype(np.int32) * (RANDOM.random(shape) < 0.7)
    return Instances(labels.astype(np.int32), RANDOM.integers(1, 3, n), RANDOM.random(n))


def result_of(found: Instances, **options: object) -> Result:
    image = RANDOM.integers(0, 256, (*found.labels.shape, 1), np.uint8)
    return Result("cells.png", image, found, ("person", "car"), **options)


# --- all --------------------------------------------------------------------------------------------------------------


def test_images_in_a_folder_are_told_from_what_was_written_there():
    assert [ending for ending in written_endings() if Path(ending).suffix in IMAGE_SUFFIXES] == list(OUTPUT_ENDINGS)


@pytest.mark.parametrize("name", OUTPUTS)
@pytest.mark.parametrize("n", [0, 5])
def test_every_format_writes_a_result_with_and_without_objects(tmp_path, name, n):
    output, result = OUTPUTS[name], result_of(scattered(n))
    if isinstance(output, FileOutput):
        assert output.encode(result)
    else:
        output.write(tmp_path / output.folder, result)
        assert list((tmp_path / output.folder).iterdir())


def test_every_format_is_accepted_for_classes_that_it_knows():
    check_outputs(list(OUTPUTS), ("person", "car"))
    check_outputs(DEFAULT_OUTPUTS, ("nucleus",))


@pytest.mark.parametrize(
    ("formats", "message"),
    [
        (["labels", "xls", "png"], "There is no format 'xls', 'png'; the formats are labels, overlay, csv, parquet"),
        ([], "No format is given; the formats are labels"),
        (
            ["cityscapes"],
            "The format cityscapes has no class 'nucleus', which the model finds; its classes are person",
        ),
    ],
)
def test_formats_that_cannot_be_written_are_refused(formats, message):
    with pytest.raises(InputError, match=message):
        check_outputs(formats, ("nucleus",))


@pytest.mark.parametrize(("name", "package"), [("parquet", "pyarrow"), ("rois", "roifile")])
def test_a_format_that_needs_more_says_what_to_install(monkeypatch, name, package):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf'The format {name} needs {package}.*pip install "\.\[formats\]"'):
        check_outputs([name], ("nucleus",))
    check_outputs(DEFAULT_OUTPUTS, ("nucleus",))


def test_a_result_is_measured_once(monkeypatch):
    result = result_of(scattered(3), pixel_size=(0.5, 0.5))
    assert result.table is result.table
    assert "area_um2" in result.table


# --- tables -----------------------------------------------------------------------------------------------------------


def test_a_table_as_text_has_six_digits():
    table = {"label": [1, 2], "class": ["a, b", 'c"'], "score": [0.25, 1 / 3], "area_um2": [1234567.8, 2.0]}
    expected = 'label,class,score,area_um2\n1,"a, b",0.25,1.23457e+06\n2,"c""",0.333333,2\n'
    assert encode_csv(table).decode() == expected


def test_parquet_holds_what_the_table_says():
    table = result_of(scattered(6), pixel_size=(0.5, 0.25)).table
    assert parquet.read_table(io.BytesIO(encode_parquet(table))).to_pydict() == table
    rows = list(csv.DictReader(io.StringIO(encode_csv(table).decode())))
    assert [row["class"] for row in rows] == table["class"]
    np.testing.assert_allclose([float(row["solidity"]) for row in rows], table["solidity"], rtol=1e-5)


def test_tables_with_and_without_rows_have_the_same_types():
    full, empty = (encode_parquet(result_of(scattered(n)).table) for n in (6, 0))
    assert parquet.read_schema(io.BytesIO(full)) == parquet.read_schema(io.BytesIO(empty))


# --- COCO -------------------------------------------------------------------------------------------------------------


def read_by_pycocotools(file: Path, content: bytes) -> COCO:
    file.write_bytes(content)
    return COCO(file)


def test_pycocotools_reads_the_same_masks_boxes_and_areas(tmp_path, capsys):
    for k in range(200):
        found = scattered(int(RANDOM.integers(0, 9)), tuple(RANDOM.integers(1, 12, 2).tolist()))
        coco = read_by_pycocotools(tmp_path / "a.json", encode_coco(found, ("person", "car"), "a.png"))
        seen = [label for label in range(1, len(found) + 1) if found.mask(label).any()]
        annotations = coco.loadAnns(coco.getAnnIds(imgIds=1))
        assert len(annotations) == len(seen), k
        for label, annotation in zip(seen, annotations, strict=True):
            np.testing.assert_array_equal(coco.annToMask(annotation), found.mask(label))
            assert annotation["bbox"] == official.toBbox(annotation["segmentation"]).tolist()
            assert annotation["area"] == official.area(annotation["segmentation"])
            assert annotation["score"] == found.scores[label - 1]
            assert annotation["category_id"] == found.classes[label - 1]
        assert [category["name"] for category in coco.loadCats([1, 2])] == ["person", "car"]


def test_masks_that_overlap_are_written_whole(tmp_path, capsys):
    masks = [np.zeros((5, 6), bool) for _ in range(4)]
    masks[0][1:4, 1:4] = masks[1][2:5, 2:5] = masks[2][2:3, 2:3] = True  # the third is hidden, the fourth empty
    found = Instances.from_masks(masks, np.ones(4, int), np.array([0.9, 0.8, 0.7, 0.6]), (5, 6))
    coco = read_by_pycocotools(tmp_path / "a.json", encode_coco(found, ("car",), "a.png"))
    annotations = coco.loadAnns(coco.getAnnIds())
    assert [annotation["area"] for annotation in annotations] == [9, 9, 1]
    assert [annotation["bbox"] for annotation in annotations] == [[1, 1, 3, 3], [2, 2, 3, 3], [2, 2, 1, 1]]
    for annotation, mask in zip(annotations, masks, strict=False):
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)


def test_our_own_reader_reads_the_same_objects(tmp_path):
    found = scattered(5)
    found = Instances(found.labels, found.classes, found.scores)
    write_image(tmp_path / "cells.png", np.zeros((*found.labels.shape, 1), np.uint8))
    (tmp_path / "cells_coco.json").write_bytes(encode_coco(found, ("person", "car"), "cells.png"))
    dataset = Coco(tmp_path / "cells_coco.json")
    assert dataset.class_names == ("person", "car")
    np.testing.assert_array_equal(dataset[0].labels, found.labels)
    np.testing.assert_array_equal(dataset[0].classes, found.classes)


def test_a_document_without_objects_has_its_image_and_classes():
    document = json.loads(encode_coco(scattered(0), ("car",), "a.png"))
    assert document["images"] == [{"id": 1, "file_name": "a.png", "width": 13, "height": 11}]
    assert document["annotations"] == []
    assert document["categories"] == [{"id": 1, "name": "car"}]
