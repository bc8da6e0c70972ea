"""GeoJSON as QuPath writes it: for each image a file of features, each with a polygon or several, and a class.

`NAME.geojson` lies beside its image or in `annotations/`. The class is `properties.classification`, a word or an object
with `name` or `names`; features without one are of class "object". Polygons may have holes; several polygons of one
feature are united. Coordinates are x, y in pixels of the image at full resolution, whole numbers being pixel edges. Of
a cell its outline counts, not its nucleus (`nucleusGeometry`). An empty geometry is no object.

QuPath finds cells within annotations, and exports both. Where a file has detections or cells, an annotation whose box
holds the box of one is therefore a region, not an object; neither are cores of tissue arrays. QuPath's class "Ignore*"
marks what is neither object nor background.

Source: RFC 7946 and https://qupath.readthedocs.io/en/stable/docs/advanced/exporting_annotations.html.
"""

from __future__ import annotations

import colorsys
import json
import reprlib
import uuid
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Float

from attractor.datasets.layout import Evidence, Holds
from attractor.datasets.names import as_class_name, check_class_names
from attractor.datasets.outlined import (
    CLASS,
    Outline,
    OutlinedImages,
    Picture,
    Problems,
    objects_of,
    read_json,
    visible,
    with_images,
    write_outlined,
)
from attractor.datasets.polygons import Part, Polygon, as_points, rings
from attractor.datasets.sample import Dataset, Sample, whole
from attractor.errors import InputError
from attractor.instances import Instances

ENDING = ".geojson"
IGNORED = "Ignore*"
FOUND = ("detection", "cell", "tile")  # what QuPath finds; all else is drawn, or a region
REGIONS = ("tma", "root")


class GeoJson(OutlinedImages):
    """A folder of images with a GeoJSON file for each."""

    layout = "a folder with images and, beside each or in annotations/, its NAME.geojson (QuPath)"
    ignored_class = IGNORED
    holds: ClassVar[Holds] = Holds(ignore=True, overlaps=True)

    @staticmethod
    def recognises(path: str | Path) -> Evidence:
        """Whether the path is a folder with a GeoJSON file where one may lie."""
        places = (Path(path), Path(path) / "images", Path(path) / "annotations")
        is_such = any(file.name.endswith(ENDING) for place in places if place.is_dir() for file in visible(place))
        return Evidence.FILE_NAME if is_such else Evidence.NONE

    @staticmethod
    def write(folder: Path, samples: Iterable[Sample], described: Dataset) -> None:
        """Write samples as `write_geojson` does."""
        write_geojson(folder, samples, described.class_names)

    def _find(self, folder: Path, problems: Problems) -> list[Picture]:
        """The images that have a file that can be read."""
        found = []
        for name, image, file in with_images(folder, "annotations", (ENDING,), lambda _: True, problems):
            try:
                found.append(Picture(name, image, file, _read(file, problems)))
            except InputError as error:
                problems.sentences.append(str(error))
        return found


def write_geojson(folder: str | Path, samples: Iterable[Sample], class_names: Sequence[str]) -> None:
    """Write samples as images and, beside each, NAME.geojson, every object whole; ignored pixels become "Ignore*".

    Raises:
        InputError: if a file cannot be written, two samples have the same name, or a class has none.
    """
    check_class_names(class_names, folder, reserved=(IGNORED,))

    def encode(sample: Sample, _: str) -> bytes:
        objects, ignored = whole(sample)
        return _collection([*_features(objects, class_names), *_ignored_feature(ignored)])

    write_outlined(folder, samples, ENDING, encode)


def encode_geojson(
    found: Instances, class_names: Sequence[str], *, corner: tuple[int, int] = (0, 0), first: int = 1
) -> bytes:
    """The objects as detections in a FeatureCollection that QuPath reads, each with class and score.

    The same label always gets the same id. Objects without a pixel are left out; where masks overlap, each is whole. In
    a volume, an object has a feature in each plane that it meets, named by its label.

    Args:
        found: the objects of an image, of a part of it, or of a volume.
        class_names: of classes 1, 2, ….
        corner: row and column of the image at which the part begins.
        first: the label in the image that label 1 stands for; the others follow.

    Raises:
        InputError: if an object's class has no name.
    """
    if found.labels.ndim == 2:
        return _collection(list(_features(found, class_names, corner, first)))
    planes = range(len(found.labels))
    return _collection([each for z in planes for each in _features(found.plane(z), class_names, plane=z)])


# --- reading ----------------------------------------------------------------------------------------------------------


def _read(file: Path, problems: Problems) -> list[Outline]:
    """The objects in one file; a feature that cannot be used is noted and left out."""
    found: list[tuple[bool, Outline]] = []
    for what, feature in _listed(read_json(file), file):
        try:
            kind, outline = _read_feature(what, feature)
        except InputError as error:
            problems.add(file, what, str(error))
            continue
        if outline.parts and not kind.startswith(REGIONS):
            found.append((kind in FOUND, outline))
    return _without_regions(found)


def _listed(document: object, file: Path) -> Iterator[tuple[str, object]]:
    """The features of a document, and those within them (`childObjects`), each with its place."""
    if isinstance(document, dict) and document.get("type") == "Feature":
        document = [document]
    elif isinstance(document, dict):
        document = document.get("features")
    if not isinstance(document, list):
        raise InputError(
            f"{file}: is not in GeoJSON's form: it must be a FeatureCollection with a list `features`, or such a list."
        )
    waiting = [(f"features[{k}]", feature) for k, feature in enumerate(document)][::-1]
    while waiting:  # ends: a document is finite
        what, feature = waiting.pop()
        yield what, feature
        properties = feature.get("properties") if isinstance(feature, dict) else None
        children = properties.get("childObjects") if isinstance(properties, dict) else None
        if isinstance(children, list):
            waiting += [(f"{what}.childObjects[{k}]", child) for k, child in enumerate(children)][::-1]


def _read_feature(what: str, feature: object) -> tuple[str, Outline]:
    """What kind of object it is to QuPath, and its outline."""
    if not isinstance(feature, dict):
        raise InputError("it must be an object with a geometry")
    properties = {} if feature.get("properties") is None else feature["properties"]
    if not isinstance(properties, dict):
        raise InputError("its properties must be an object")
    name = _class_name(properties.get("classification"))
    kind = properties.get("objectType") or properties.get("object_type") or feature.get("id")
    kind = (
        kind.lower().removeprefix("path").removesuffix("object") if isinstance(kind, str) else ""
    )  # as in version 0.2
    return kind, Outline(what, name, tuple(_read_geometry(feature.get("geometry"))))


def _class_name(classification: object) -> str:
    """The name of a class in any of the forms in which QuPath has written it."""
    if isinstance(classification, dict):
        names = classification.get("names")
        if isinstance(names, list) and names and all(isinstance(name, str) for name in names):
            return as_class_name(": ".join(names), "classification")
        classification = classification.get("name") if names is None else names
    if classification is None or classification == "":
        return CLASS
    return as_class_name(classification, "classification")


def _read_geometry(geometry: object) -> Iterator[Polygon]:
    """The polygons of a geometry; none of an empty one."""
    if geometry is None:
        return
    kind, polygons = (geometry.get("type"), geometry.get("coordinates")) if isinstance(geometry, dict) else (None, None)
    if kind not in ("Polygon", "MultiPolygon"):
        raise InputError(f"its geometry is {reprlib.repr(kind)}; only Polygon and MultiPolygon have pixels inside")
    polygons = [polygons] if kind == "Polygon" else polygons
    if not isinstance(polygons, list) or not all(isinstance(polygon, list) for polygon in polygons):
        raise InputError(f"its coordinates are no list of {'rings' if kind == 'Polygon' else 'polygons'}")
    for polygon in polygons:
        if outlines := [ring for ring in polygon if ring != []]:
            yield Polygon(tuple(as_points(ring) for ring in outlines))


def _without_regions(found: list[tuple[bool, Outline]]) -> list[Outline]:
    """The outlines except drawn ones whose box holds the box of one that QuPath found."""
    boxes = np.array([_box(outline) for is_found, outline in found if is_found]).reshape(-1, 4)
    if len(boxes) in (0, len(found)):
        return [outline for _, outline in found]
    return [
        outline
        for is_found, outline in found
        if is_found or outline.class_name == IGNORED or not _holds_any(_box(outline), boxes)
    ]


def _box(outline: Outline) -> Float[np.ndarray, "4"]:
    """Lowest x and y, highest x and y."""
    points = np.concatenate([ring for part in outline.parts if isinstance(part, Polygon) for ring in part.rings])
    return np.concatenate([points.min(axis=0), points.max(axis=0)])


def _holds_any(box: Float[np.ndarray, "4"], boxes: Float[np.ndarray, "k 4"]) -> bool:
    """Whether a box holds any of the boxes."""
    is_within: Bool[np.ndarray, "k 2"] = (boxes[:, :2] >= box[:2]) & (boxes[:, 2:] <= box[2:])
    return bool(is_within.all(axis=1).any())


# --- writing ----------------------------------------------------------------------------------------------------------


def _collection(features: list[dict[str, object]]) -> bytes:
    """The file of these features."""
    return json.dumps({"type": "FeatureCollection", "features": features}, separators=(",", ":")).encode()


def _features(
    found: Instances,
    class_names: Sequence[str],
    corner: tuple[int, int] = (0, 0),
    first: int = 1,
    plane: int | None = None,
) -> Iterator[dict[str, object]]:
    """One feature for each object; in a plane of a volume, it is named by its label."""
    of_volume = plane is not None
    for label, name, score, parts in objects_of(found, class_names):
        names = name.split(": ")  # QuPath's classes within classes
        own = label + first - 1
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, f"label {own}" + (f" plane {plane}" if of_volume else ""))),
            "geometry": _geometry(parts, corner) | ({"plane": {"c": -1, "z": plane, "t": 0}} if of_volume else {}),
            "properties": {
                "objectType": "detection",
                **({"name": str(own)} if of_volume else {}),
                "classification": {
                    **({"name": name} if len(names) == 1 else {"names": names}),
                    "color": _colour(list(class_names).index(name)),
                },
                "measurements": {"score": round(score, 6)},
            },
        }


def _ignored_feature(is_ignored: Bool[np.ndarray, "h w"]) -> Iterator[dict[str, object]]:
    """What is neither object nor background, if anything is."""
    if parts := rings(is_ignored):
        yield {
            "type": "Feature",
            "id": str(uuid.uuid5(uuid.NAMESPACE_OID, "ignored")),
            "geometry": _geometry(parts),
            "properties": {"objectType": "annotation", "classification": {"name": IGNORED, "color": [180, 180, 180]}},
        }


def _geometry(parts: list[Part], corner: tuple[int, int] = (0, 0)) -> dict[str, object]:
    """One polygon, or several; each ring closed; counted from a corner at this row and column."""
    moved = [[np.asarray(ring) + corner[::-1] for ring in part] for part in parts]
    polygons = [[[*ring.tolist(), ring[0].tolist()] for ring in part] for part in moved]
    if len(polygons) == 1:
        return {"type": "Polygon", "coordinates": polygons[0]}
    return {"type": "MultiPolygon", "coordinates": polygons}


def _colour(index: int) -> list[int]:
    """Red, green and blue of a class; the hues of neighbours lie a golden angle apart."""
    return [round(255 * value) for value in colorsys.hsv_to_rgb(index * 0.381966 % 1, 0.8, 0.9)]
