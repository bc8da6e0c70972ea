"""Files as layers and back: the folder of a session, label images, and two pictures to try things on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
from jaxtyping import Shaped

from attractor.datasets.session import SessionImages, read_objects, read_project, read_reviewed
from attractor.demo import PICTURES
from attractor.errors import InputError
from attractor.images import images_in, pixel_size, read_image, read_labels, write_labels

LayerData: TypeAlias = tuple[Any, dict[str, Any], str]  # what napari makes a layer of: data, options, kind
MOST_IMAGES = 20  # that are opened at once
UNIT = "micrometer"


def session_reader(path: str | list[str]) -> Callable[[str], list[LayerData]] | None:
    """What reads the folder of a session; None for anything else."""
    if isinstance(path, list) or not SessionImages.recognises(path):
        return None
    return read_session


def read_session(path: str) -> list[LayerData]:
    """The images of a session, and of each the objects and the reviewed pixels; the first is visible.

    These are copies to look at: to correct them, open the session in the widget.

    Raises:
        InputError: if a file cannot be read, or there are more images than one wants to open at once.
    """
    folder = Path(path)
    classes, files = read_project(folder)["classes"], images_in(folder / "images", written=())
    if len(files) > MOST_IMAGES:
        raise InputError(f"{path}: has {len(files)} images; open it by the widget of attractor, one image at a time.")
    layers: list[LayerData] = []
    for number, file in enumerate(files):
        place = {"visible": number == 0, **calibrated(file)}
        layers.append(image_layer(read_image(file), file.stem, **place))
        label_file = folder / "labels" / f"{file.stem}.tif"
        if label_file.exists():
            labels, known = read_labels(label_file), read_objects(folder, file.stem)[0]
            features = {
                "index": list(known),
                "class": [classes[min(number, len(classes)) - 1] for number, _ in known.values()],
                "score": [np.nan if score is None else score for _, score in known.values()],
            }
            reviewed = read_reviewed(folder, file.stem, labels.shape).astype(np.uint8)
            layers.append((reviewed, {"name": f"{file.stem} reviewed", "opacity": 0.3, **place}, "labels"))
            layers.append((labels, {"name": f"{file.stem} found", "features": features, **place}, "labels"))
    return layers


def image_layer(image: Shaped[np.ndarray, "h w c"], name: str, **options: Any) -> LayerData:
    """An image as a layer; other numbers of channels than 1 and 3 become an axis before rows and columns."""
    if image.shape[2] in (1, 3):
        return image[..., 0] if image.shape[2] == 1 else image, {"name": name, **options}, "image"
    return image, {"name": name, "channel_axis": 2, **options}, "image"


def calibrated(path: Path) -> dict[str, Any]:
    """Scale and units of a layer, if the file says how large its pixels are."""
    size = pixel_size(path)
    return {} if size is None else {"scale": size, "units": (UNIT, UNIT)}


def write_label_image(path: str, data: Any, meta: dict[str, Any]) -> list[str]:
    """Write a Labels layer as a label image, TIFF or PNG by the suffix, and give its path.

    Raises:
        InputError: if it is no plane, or cannot be written.
    """
    labels = np.asarray(data)
    if labels.ndim != 2:
        raise InputError(
            f"{path}: the layer {meta.get('name', '')} has {labels.ndim} axes; a label image is one plane of rows and "
            "columns."
        )
    write_labels(path, labels)
    return [path]


def fluorescence() -> list[LayerData]:
    """Nuclei in fluorescence."""
    return [image_layer(read_image(PICTURES["fluorescence"]), "fluorescence")]


def stained() -> list[LayerData]:
    """Nuclei in stained tissue."""
    return [image_layer(read_image(PICTURES["stained"]), "stained")]
