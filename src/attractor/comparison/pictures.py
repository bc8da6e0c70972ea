"""The images on which models disagree most, drawn; of a volume, the plane that meets the most true objects.

Shapes: `h` rows, `w` columns.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from types import EllipsisType

import numpy as np
from jaxtyping import Int32, Shaped
from PIL import Image

from attractor.comparison.records import Compared, Measured, Panel, Shown
from attractor.datasets import Dataset, Sample
from attractor.images import read_labels
from attractor.instances import Instances
from attractor.metrics import Metric
from attractor.metrics.bootstrap import Interval
from attractor.overlays import fullest, overlay
from attractor.wording import counted, share

SIDES = (420, 320, 240, 160)  # pixels along a drawn picture's longer side; the first that fits the page is used
PAGE_BYTES = 4_000_000  # for all pictures; as text in the page they take a third more
QUALITY = 88  # of JPEG


def disagreements(
    compared: Sequence[Compared], metric: Metric, dataset: Dataset, found: Sequence[Path], n_shown: int
) -> tuple[Shown, ...]:
    """The images on which the models' headlines lie farthest apart, drawn; if they tie, the earlier image first."""
    values = np.array([[image.value for image in model.images] for model in compared])
    spread = np.nan_to_num(values.max(0) - values.min(0), nan=-1.0)  # what cannot be scored comes last
    chosen = np.argsort(-spread, kind="stable")[:n_shown]
    allowed = PAGE_BYTES // max(1, len(chosen) * (len(compared) + 2))
    return tuple(
        Shown(
            dataset.names[index],
            float(values[:, index].min()),
            float(values[:, index].max()),
            _panels(dataset[index], index, compared, metric, found, allowed),
        )
        for index in map(int, chosen)
    )


def _panels(
    sample: Sample, index: int, compared: Sequence[Compared], metric: Metric, found: Sequence[Path], allowed: int
) -> tuple[Panel, ...]:
    """The picture, the true objects, and the objects of each model."""
    image, truth, n_truth = sample.image, sample.labels, compared[0].images[index].leaves.n_truth
    n_axes, size = truth.ndim, f"{image.shape[-2]} x {image.shape[-3]} pixels"
    plane: int | EllipsisType = ...
    if n_axes == 3:
        plane = fullest(truth)[0]
        size = f"plane {plane + 1} of {len(truth)}, {size}"
    panels = [
        Panel("Picture", (size,), None, drawn(image[plane], None, allowed)),
        Panel("Truth", (counted(n_truth, "object"),), None, drawn(image[plane], truth[plane], allowed)),
    ]
    for place, (model, folder) in enumerate(zip(compared, found, strict=True)):
        measured = model.images[index]
        below = (f"{measured.leaves.n_found:,} found, {n_truth:,} true", _values(measured, metric))
        labels = read_labels(folder / f"{index}.tif", n_axes=n_axes)[plane]
        jpeg = drawn(image[plane], labels, allowed, order=model.footprint.is_ordered)
        panels.append(Panel(model.name, below, place, jpeg))
    return tuple(panels)


def _values(measured: Measured, metric: Metric) -> str:
    """The first value of an image's scores, and its headline."""
    if measured.scores is None:
        return f"not scored by {metric.headline}"
    row = metric.summarise([measured.scores]).overviews()[0].row
    shares = {heading: cell.value for heading, cell in row.items() if isinstance(cell, Interval)}
    first = next(iter(shares))
    shown = dict.fromkeys([first, metric.headline])
    return ", ".join(f"{heading} {share(shares[heading])}" for heading in shown if heading in shares)


def drawn(
    image: Shaped[np.ndarray, "h w c"], labels: Int32[np.ndarray, "h w"] | None, allowed: int, *, order: bool = False
) -> bytes:
    """The picture, with outlines if there are labels, as a JPEG of at most `allowed` bytes, or as small as possible."""
    bare = overlay(image, Instances.from_labels(np.zeros(image.shape[:2], np.int32)))
    for side in SIDES:
        size = _size(image.shape[:2], side)
        picture = np.asarray(Image.fromarray(bare).resize(size[::-1], Image.Resampling.LANCZOS))
        if labels is not None:  # drawn at this size, as a line would not survive shrinking
            picture = overlay(picture, Instances.from_labels(_nearest(labels, size)), order=order, thick=True)
        file = io.BytesIO()
        Image.fromarray(picture).save(file, "JPEG", quality=QUALITY, subsampling=0)
        if file.tell() <= allowed:
            break
    return file.getvalue()


def _size(shape: tuple[int, ...], side: int) -> tuple[int, int]:
    """Rows and columns of a picture whose longer side has this length; small pictures are enlarged, for fine lines."""
    factor = side / max(shape)
    return max(1, round(shape[0] * factor)), max(1, round(shape[1] * factor))


def _nearest(labels: Int32[np.ndarray, "h w"], size: tuple[int, int]) -> Int32[np.ndarray, "_ _"]:
    """The label image at another size."""
    rows, columns = (((np.arange(n) + 0.5) * m / n).astype(int) for n, m in zip(size, labels.shape, strict=True))
    return labels[np.ix_(rows, columns)]
