"""GeoJSON in the forms that QuPath has written, and what is said of files that cannot be used."""

import json
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from attractor.datasets import open_dataset
from attractor.datasets.geojson import GeoJson, encode_geojson
from attractor.errors import InputError
from attractor.instances import Instances

SQUARE = [[1, 1], [4, 1], [4, 4], [1, 4], [1, 1]]  # columns and rows 1 to 3


def feature(geometry: Any = None, classification: Any = "cell", kind: str | None = "annotation", **rest: Any) -> Any:
    """A square of 3 x 3 pixels unless told otherwise."""
    properties = {"objectType": kind, "classification": classification, **rest.pop("properties", {})}
    return {
        "type": "Feature",
        "geometry": geometry or {"type": "Polygon", "coordinates": [SQUARE]},
        "properties": {key: value for key, value in properties.items() if value is not None},
        **rest,
    }


def polygon(*rings: Any) -> dict[str, Any]:
    """A geometry."""
    return {"type": "Polygon", "coordinates": list(rings)}


def box(left: float, top: float, right: float, bottom: float) -> list[list[float]]:
    """A rectangle as a ring."""
    return [[left, top], [right, top], [right, bottom], [left, bottom]]


def write(folder: Path, document: Any) -> Path:
    """A data set of one image of 6 rows and 8 columns."""
    Image.fromarray(np.zeros((6, 8, 3), np.uint8)).save(folder / "a.png")
    document = {"type": "FeatureCollection", "features": document} if isinstance(document, list) else document
    (folder / "a.geojson").write_text(json.dumps(document), encoding="utf-8")
    return folder


def test_a_polygon_is_an_object_of_its_class(tmp_path):
    dataset = open_dataset(write(tmp_path, [feature()]))
    assert isinstance(dataset, GeoJson)
    assert dataset.class_names == ("cell",)
    sample = dataset[0]
    expected = np.zeros((6, 8), int)
    expected[1:4, 1:4] = 1
    np.testing.assert_array_equal(sample.labels, expected)
    assert sample.classes.tolist() == [1]
    assert not sample.ignore.any()


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [feature()]},
        {"features": [feature()]},
        feature(),
    ],
)
def test_features_come_in_a_collection_or_alone(tmp_path, document):
    assert len(GeoJson(write(tmp_path, document))[0].classes) == 1


def test_features_come_in_a_bare_list(tmp_path):
    write(tmp_path, [])
    (tmp_path / "a.geojson").write_text(json.dumps([feature(), feature(polygon(box(5, 0, 7, 2)))]))
    assert len(GeoJson(tmp_path)[0].classes) == 2


@pytest.mark.parametrize(
    ("classification", "name"),
    [
        ("Tumor", "Tumor"),
        ({"name": "Tumor", "color": [200, 0, 0]}, "Tumor"),
        ({"name": "Tumor", "colorRGB": -3670016}, "Tumor"),
        ({"names": ["Tumor", "Positive"], "color": [200, 0, 0]}, "Tumor: Positive"),
        ("Größe é", "Größe é"),
        (None, "object"),
        ("", "object"),
        ({}, "object"),
        ({"name": None}, "object"),
    ],
)
def test_classes_come_in_many_forms(tmp_path, classification, name):
    assert GeoJson(write(tmp_path, [feature(classification=classification)])).class_names == (name,)


def test_classes_are_those_of_all_files_in_order(tmp_path):
    write(tmp_path, [feature(classification="b"), feature(polygon(box(5, 0, 7, 2)), classification=None)])
    for part in ("a.png", "a.geojson"):
        (tmp_path / part).rename(tmp_path / part.replace("a.", "z."))
    write(tmp_path, [feature(classification="a")])
    dataset = GeoJson(tmp_path)
    assert dataset.class_names == ("a", "b", "object")
    assert [sample.classes.tolist() for sample in dataset] == [[1], [2, 3]]


def test_holes_are_no_part_of_the_object(tmp_path):
    sample = GeoJson(write(tmp_path, [feature(polygon(SQUARE, box(2, 2, 3, 3)))]))[0]
    assert sample.labels.sum() == 8
    assert sample.labels[2, 2] == 0


def test_an_object_may_lie_in_the_hole_of_another(tmp_path):
    inner = feature(polygon(box(2, 2, 3, 3)), "nucleus")
    sample = GeoJson(write(tmp_path, [feature(polygon(SQUARE, box(2, 2, 3, 3))), inner]))[0]
    assert sample.labels[2, 2] == 2
    assert not sample.ignore.any()


def test_several_polygons_are_one_object_also_where_they_overlap(tmp_path):
    several = {"type": "MultiPolygon", "coordinates": [[SQUARE], [box(3, 3, 6, 5)], [box(6, 0, 8, 2), box(7, 0, 8, 1)]]}
    sample = GeoJson(write(tmp_path, [feature(several)]))[0]
    assert (sample.labels == 1).sum() == 9 + 6 - 1 + 3
    assert not sample.ignore.any()


def test_rings_need_not_be_closed_and_may_have_a_third_coordinate(tmp_path):
    sample = GeoJson(write(tmp_path, [feature(polygon([[*point, 0] for point in SQUARE[:-1]]))]))[0]
    assert sample.labels.sum() == 9


def test_the_outline_of_a_cell_counts_not_its_nucleus(tmp_path):
    cell = feature(kind="cell", nucleusGeometry=polygon(box(2, 2, 3, 3)))
    assert GeoJson(write(tmp_path, [cell]))[0].labels.sum() == 9


@pytest.mark.parametrize(
    "geometry",
    [
        {"type": "Polygon", "coordinates": []},
        {"type": "Polygon", "coordinates": [[]]},
        {"type": "MultiPolygon", "coordinates": []},
        {"type": "MultiPolygon", "coordinates": [[], [[]]]},
        polygon(box(90, 90, 95, 95)),
        polygon(box(-9, -9, -5, -5)),
        polygon([[1, 1], [4, 4], [2, 2]]),
    ],
)
def test_a_geometry_that_encloses_no_pixel_is_no_object(tmp_path, geometry):
    dataset = GeoJson(write(tmp_path, [feature(geometry), feature()]))
    assert dataset[0].labels.max() == 1
    assert len(dataset[0].annotate().masks) == 1


def test_a_geometry_that_is_null_is_no_object(tmp_path):
    assert len(GeoJson(write(tmp_path, [{**feature(), "geometry": None}]))[0].classes) == 0


@pytest.mark.parametrize("kind", ["detection", "cell", "PathDetectionObject"])
def test_an_annotation_around_what_was_found_in_it_is_a_region(tmp_path, kind):
    tissue = feature(polygon(box(0, 0, 8, 6)), "tissue")
    found = feature(kind=kind) if not kind.startswith("Path") else feature(kind=None, id=kind)
    dataset = GeoJson(write(tmp_path, [tissue, found, feature(polygon(box(5, 1, 7, 4)), "corrected")]))
    assert dataset.class_names == ("cell", "corrected")
    assert dataset[0].labels.max() == 2
    assert not dataset[0].ignore.any()


def test_without_detections_every_annotation_is_an_object(tmp_path):
    dataset = GeoJson(write(tmp_path, [feature(polygon(box(0, 0, 8, 6)), "tissue"), feature()]))
    assert dataset.object_count(0) == 2
    assert dataset[0].ignore.sum() == 9


def test_cores_of_tissue_arrays_are_no_objects(tmp_path):
    cores = [feature(polygon(box(0, 0, 8, 6)), kind=kind) for kind in ("tmaCore", "TMACoreObject", "root")]
    assert GeoJson(write(tmp_path, [*cores, feature()])).object_count(0) == 1


def test_features_within_features_are_objects(tmp_path):
    child = feature(polygon(box(5, 0, 7, 2)), "inner")
    dataset = GeoJson(write(tmp_path, [feature(properties={"childObjects": [child]})]))
    assert dataset.class_names == ("cell", "inner")


def test_ignored_regions_are_not_objects(tmp_path):
    dataset = GeoJson(write(tmp_path, [feature(kind="detection"), feature(polygon(box(0, 0, 8, 6)), "Ignore*")]))
    assert dataset.class_names == ("cell",)
    sample = dataset[0]
    np.testing.assert_array_equal(sample.ignore, sample.labels == 0)
    np.testing.assert_array_equal(sample.annotate().void, sample.ignore)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (17, "must be an object with a geometry"),
        (feature(polygon([[0, 0], [1, 1]])), "fewer than three points"),
        (feature(polygon([[0, 0], [1, "x"], [2, 2]])), "not a list of points"),
        (feature(polygon([[0, 0], [1, float("nan")], [2, 2]])), "no numbers or far outside"),
        (feature(polygon([[0, 0], [1, 1e12], [2, 2]])), "no numbers or far outside"),
        (feature(polygon(7)), "not a list of points"),
        (feature({"type": "Polygon", "coordinates": 7}), "its coordinates are no list of rings"),
        (feature({"type": "Polygon"}), "its coordinates are no list of rings"),
        (feature({"type": "MultiPolygon", "coordinates": [7]}), "its coordinates are no list of polygons"),
        (feature({"type": "Point", "coordinates": [1, 1]}), "its geometry is 'Point'; only Polygon and MultiPolygon"),
        (feature([1]), "its geometry is None; only"),
        (feature(classification=7), "its classification is 7 where a name should be"),
        (feature(classification={"names": 7, "name": "cell"}), "its classification is 7 where"),
        (feature(classification={"names": ["a", 1]}), r"its classification is \['a', 1\] where"),
        (feature(classification="\ud800"), "its classification is '.ud800' where"),
        ({**feature(), "properties": [1]}, "its properties must be an object"),
    ],
)
def test_a_feature_that_cannot_be_used_is_named_and_left_out(tmp_path, wrong, message):
    write(tmp_path, [feature(), wrong])
    with pytest.raises(InputError, match=rf"a\.geojson: features\[1\]: .*{message}"):
        GeoJson(tmp_path)
    dataset, problems = GeoJson.salvage(tmp_path)
    assert len(problems) == 1
    assert dataset[0].labels.sum() == 9


def test_of_many_problems_three_are_named(tmp_path):
    write(tmp_path, [17] * 5)
    with pytest.raises(InputError, match=r"(?s)features\[0\].*features\[2\].*and 2 more like these"):
        GeoJson(tmp_path)


@pytest.mark.parametrize("document", [{}, {"type": "FeatureCollection"}, {"features": 7}, "x", 7])
def test_a_document_that_is_no_collection_is_refused(tmp_path, document):
    write(tmp_path, [])
    (tmp_path / "a.geojson").write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"a\.geojson: is not in GeoJSON's form"):
        GeoJson(tmp_path)


def test_a_number_of_thousands_of_digits_is_refused(tmp_path):
    write(tmp_path, [])
    (tmp_path / "a.geojson").write_text("[" + "1" * 10_000 + "]")
    with pytest.raises(InputError, match=r"a\.geojson: is not JSON that can be read"):
        GeoJson(tmp_path)


def test_a_folder_of_geojson_is_not_taken_for_coco_or_the_other_way_round(tmp_path):
    (write(tmp_path, [feature()]) / "classes.json").write_text("{}")
    assert isinstance(open_dataset(tmp_path), GeoJson)
    (tmp_path / "a.geojson").unlink()
    assert not GeoJson.recognises(tmp_path)
    assert not GeoJson.recognises(tmp_path / "classes.json")


def test_what_is_written_has_all_that_qupath_reads():
    labels = np.array([[1, 1, 0, 2], [1, 1, 0, 0], [0, 0, 0, 2]], np.int32)
    found = Instances(labels, np.array([1, 2]), np.array([0.25, 1], np.float32))
    document = json.loads(encode_geojson(found, ("cell", "Tumor: Positive")))
    assert document["type"] == "FeatureCollection"
    first, second = document["features"]
    assert first["type"] == "Feature"
    assert first["geometry"] == {"type": "Polygon", "coordinates": [[[0, 0], [2, 0], [2, 2], [0, 2], [0, 0]]]}
    assert first["properties"]["objectType"] == "detection"
    assert first["properties"]["classification"]["name"] == "cell"
    assert all(0 <= value <= 255 for value in first["properties"]["classification"]["color"])
    assert first["properties"]["measurements"] == {"score": 0.25}
    assert second["geometry"]["type"] == "MultiPolygon"
    assert second["properties"]["classification"]["names"] == ["Tumor", "Positive"]
    ids = [uuid.UUID(one["id"]) for one in document["features"]]
    assert len(set(ids)) == 2
    assert json.loads(encode_geojson(found, ("cell", "b")))["features"][0]["id"] == str(ids[0])


def test_the_same_rings_stay_when_read_and_written_again(tmp_path):
    write(tmp_path, [feature(polygon(SQUARE, [[3, 2], [2, 2], [2, 3], [3, 3], [3, 2]]))])
    sample = GeoJson(tmp_path)[0]
    found = Instances(sample.labels, sample.classes, np.ones(1, np.float32))
    (again,) = json.loads(encode_geojson(found, ("cell",)))["features"]
    assert again["geometry"] == polygon(SQUARE, [[3, 2], [2, 2], [2, 3], [3, 3], [3, 2]])
