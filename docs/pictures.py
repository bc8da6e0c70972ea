"""Makes the pictures of these pages, from what attractor finds in real images.

    python docs/pictures.py maps                              what the four methods say of one picture of the package
    python docs/pictures.py demo                              what `attractor demo` draws
    python docs/pictures.py gallery --data DIR                a typical image of each kind
    python docs/pictures.py walk --data DIR --model MODEL     from twenty annotated images to a model

DIR holds the folders nuclei, fibroblasts and street. MODEL is what training on twenty of the fibroblasts gave.

Shapes: `h` rows, `w` columns, `n` pixels of objects, `d` dimensions of an embedding.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import hsv_to_rgb
from matplotlib.figure import Figure
from PIL import Image
from skimage.metrics import contingency_table
from skimage.segmentation import find_boundaries

import attractor
from attractor.cli import main as main_of_attractor
from attractor.cli.models import STRANGE
from attractor.datasets import Sample, open_dataset
from attractor.demo import FOLDER, PICTURES
from attractor.images import read_image
from attractor.instances import Instances
from attractor.overlays import overlay
from attractor.prediction.image import Segmenter

IMAGES = Path(__file__).parent / "images"
PART = (slice(330, 490), slice(100, 340))  # of the fluorescence picture: two nuclei touch in it
SMALL_PART = (slice(362, 490), slice(100, 228))  # of the size that RSIS was trained on
GAP = 8  # white pixels between pictures side by side


def main() -> None:
    """Make the pictures that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["maps", "demo", "gallery", "walk"])
    parser.add_argument("--data", type=Path, help="the folder of nuclei, fibroblasts and street")
    parser.add_argument("--model", type=Path, help="trained on twenty of the fibroblasts")
    arguments = parser.parse_args()
    match arguments.what:
        case "maps":
            draw_maps()
        case "demo":
            draw_demo()
        case "gallery":
            draw_gallery(arguments.data)
        case "walk":
            draw_walk(arguments.data / "fibroblasts", arguments.model)


# --- maps of the four methods


@dataclass(frozen=True)
class Panel:
    """One picture of a figure: (h, w) numbers, (h, w, 3) colours, or (n, 3) dots of place and object."""

    title: str
    values: np.ndarray
    options: dict[str, Any] = field(default_factory=dict)  # of matplotlib's imshow

    def draw(self, axes: Axes) -> None:
        """Into axes without numbers; a bar beside it says what the colours of numbers mean."""
        axes.set_title(self.title, fontsize=11)
        axes.set_xticks([])
        axes.set_yticks([])
        if self.values.shape[1] == 3 and self.values.ndim == 2:
            x, y, number = self.values.T
            axes.scatter(x, y, c=number % 10, cmap="tab10", s=2, linewidths=0)
            return
        axes.set_facecolor("black")
        shown = axes.imshow(self.values, interpolation="nearest", **self.options)
        if self.values.ndim == 2:
            axes.figure.colorbar(shown, ax=axes, shrink=0.8)


PROBABILITY = {"cmap": "magma", "vmin": 0, "vmax": 1}


def draw_maps() -> None:
    """A figure for each method: the picture, what the network says of each pixel, and the objects."""
    spatial_embeddings()
    embeddings("nuclei-discriminative")
    embeddings("nuclei-recurrent")
    rsis()


def spatial_embeddings() -> None:
    """Where each pixel points, how far its object reaches, and how sure it is to be the middle of one."""
    segmenter, picture, (embedding, concentration, seed) = decoded("nuclei", PART)
    method = segmenter.model.method
    found = segmenter.segment(picture)
    step = np.array(method.grid_step[::-1])[:, None, None]  # along x and y
    rows, columns = np.indices(seed.shape[1:])
    target = embedding / step  # (x, y) in pixels
    offset = target - np.stack([columns, rows])
    foreground = seed[0] > method.thresholds["foreground_threshold"]
    offset -= offset[:, foreground].mean(1)[:, None, None]  # a network may move all targets by one vector
    reach = np.where(foreground, (np.sqrt(np.log(2) / concentration) / step).mean(0), np.nan)
    target[1] *= -1  # up is up
    panels = [
        Panel("the picture", plain(picture)),
        Panel("offset: hue is its direction", as_hue(offset, foreground)),
        Panel("where pixels point", dots(target, found)),
        Panel("margin, in pixels", reach, {"cmap": "viridis", "vmin": 0, "vmax": np.nanpercentile(reach, 99)}),
        Panel("seed score", seed[0], PROBABILITY),
        Panel("the objects", overlay(picture, found)),
    ]
    save_figure(panels, 3, IMAGES / "maps-nuclei.png")


def embeddings(model: str) -> None:
    """How sure each pixel is to be part of an object, and its embedding as colour and as a place."""
    segmenter, picture, (embedding, probability) = decoded(model, PART)
    found = segmenter.segment(picture)
    panels = [
        Panel("the picture", plain(picture)),
        Panel("probability of a nucleus", 1 - probability[0], PROBABILITY),
        Panel("embedding: three components as colours", as_colour(embedding, probability[0] < 0.5)),
        Panel("two components, coloured by object", dots(flattened(embedding, found.labels > 0), found)),
        Panel("the objects", overlay(picture, found)),
        Panel("the objects that people outlined", overlay(picture, truth_of("fluorescence", PART))),
    ]
    save_figure(panels, 3, IMAGES / f"maps-{model}.png")


def rsis() -> None:
    """The masks of the first steps, one object each."""
    segmenter, picture, (mask, _, stop) = decoded("nuclei-rsis", SMALL_PART)
    found = segmenter.segment(picture)
    steps = [Panel(f"step {t + 1}: {stop[t]:.0%} sure of an object", mask[t].clip(1e-3), PROBABILITY) for t in range(6)]
    panels = [Panel("the picture", plain(picture)), *steps]
    panels.append(Panel("the objects, in their order", overlay(picture, found, order=True)))
    save_figure(panels, 4, IMAGES / "maps-nuclei-rsis.png")


def decoded(model: str, part: tuple[slice, slice]) -> tuple[Segmenter, np.ndarray, list[np.ndarray]]:
    """A model, a part of the fluorescence picture, and what the network says of it."""
    segmenter = attractor.load(model, device="cpu", dtype="float32")
    picture = read_image(PICTURES["fluorescence"])[part]
    with torch.inference_mode():
        maps = segmenter.maps(segmenter.prepared(picture))
        return segmenter, picture, [values[0].numpy() for values in segmenter.model.method.decode(maps)]


def truth_of(name: str, part: tuple[slice, slice]) -> Instances:
    """The objects that people outlined in a part of a picture of the package."""
    return Instances.from_labels(sample_of(FOLDER, name).labels[part])


def as_hue(offset: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """Direction of each vector (x, y) as hue, its length as saturation; (h, w, 3)."""
    length = np.hypot(*offset)
    hue = (np.arctan2(offset[1], offset[0]) / (2 * np.pi)) % 1
    saturation = np.clip(length / np.percentile(length[foreground], 95), 0, 1)
    return hsv_to_rgb(np.stack([hue, saturation, foreground.astype(float)], -1))


def components(points: np.ndarray, count: int) -> np.ndarray:
    """Points (n, d) along the directions in which they vary most; (n, count)."""
    centred = points - points.mean(0)
    return centred @ np.linalg.svd(centred, full_matrices=False)[2][:count].T


def as_colour(embedding: np.ndarray, foreground: np.ndarray) -> np.ndarray:
    """The first three principal components of the foreground as red, green and blue; (h, w, 3)."""
    values = components(embedding[:, foreground].T, 3)
    low, high = np.percentile(values, [2, 98], axis=0)
    picture = np.zeros((*foreground.shape, 3))
    picture[foreground] = 0.15 + 0.85 * np.clip((values - low) / (high - low), 0, 1)
    return picture


def flattened(embedding: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """The first two principal components of what lies inside; (2, h, w), 0 elsewhere."""
    plane = np.zeros((2, *inside.shape))
    plane[:, inside] = components(embedding[:, inside].T, 2).T
    return plane


def dots(place: np.ndarray, found: Instances) -> np.ndarray:
    """The place (2, h, w) and the number of its object for each pixel of an object; (n, 3)."""
    inside = found.labels > 0
    return np.column_stack([*place[:, inside], found.labels[inside]])


def save_figure(panels: Sequence[Panel], n_columns: int, path: Path) -> None:
    """Panels in rows."""
    n_rows = len(panels) // n_columns
    figure = Figure(figsize=(12, 5 if n_columns == 3 else 5.6), dpi=100, layout="constrained")
    for axes, panel in zip(figure.subplots(n_rows, n_columns).flat, panels, strict=True):
        panel.draw(axes)
    figure.savefig(path)


# --- pictures with outlines


def draw_demo() -> None:
    """Parts of the first two pictures that `attractor demo` draws, side by side."""
    segmenter = attractor.load("nuclei")
    parts = {"fluorescence": (slice(60, 380), slice(100, 500)), "stained": (slice(256), slice(320))}
    drawn = []
    for name, part in parts.items():
        picture = read_image(PICTURES[name])
        found = segmenter.segment(picture)
        drawn.append(fitted(enlarged(picture[part], found.labels[part], 3), 512))
    save(drawn, IMAGES / "demo.jpg")


# Of each kind of test image the one whose AP at IoU .50 lies nearest to the median of its kind, and the model for it.
TYPICAL = {
    "fluorescence": ("nuclei/test", "8cdbdda8b3a64c97", "nuclei"),
    "stained": ("nuclei/test", "673baf65ae5c571d", "nuclei"),
    "brightfield": ("nuclei/test", "5d58600efa0c2667", "nuclei"),
    "fibroblasts": ("fibroblasts/test", "fibroblast_43", "fibroblasts"),
    "street": ("street/test", "20230329_203407_267_R_scaled_1", "street"),
}
SHOWN = 400  # pixels of each side of a picture that are shown at most


def draw_gallery(data: Path) -> None:
    """Of each kind a picture, what people outlined, and what the model finds."""
    part = (slice(SHOWN), slice(SHOWN))
    for kind, (folder, name, model) in TYPICAL.items():
        sample = sample_of(data / folder, name)
        found = attractor.load(model).segment(sample.image)
        drawn = [
            outlined(sample.image[part], labels[part]) for labels in (0 * found.labels, sample.labels, found.labels)
        ]
        save(drawn, IMAGES / f"gallery-{kind}.jpg")
    draw_strange_stain()


def draw_strange_stain() -> None:
    """The third picture of `attractor demo`."""
    with TemporaryDirectory() as folder:
        main_of_attractor(["demo", "--out", folder])
        drawn = [read_image(Path(folder, f"{STRANGE}{ending}.png"))[:SHOWN, :SHOWN] for ending in ("", "_overlay")]
    save(drawn, IMAGES / f"gallery-{STRANGE}.jpg")


def draw_walk(data: Path, model: Path) -> None:
    """Fibroblasts as `nuclei` sees them, as people outlined some, and as a model trained on those sees them."""
    part = (slice(300, 748), slice(300, 748))
    annotated, new = sample_of(data / "train", "fibroblast_01"), sample_of(data / "test", "fibroblast_37")
    before, after = (attractor.load(name).segment(new.image).labels for name in ("nuclei", model))
    for number, sample, labels in ((1, new, before), (2, annotated, annotated.labels), (3, new, after)):
        picture = sample.image[part]
        save([plain(picture), outlined(picture, labels[part])], IMAGES / f"walk-{number}.jpg")
    judged = judgement(new.image, new.labels, after)[part]
    save([outlined(new.image[part], new.labels[part]), judged], IMAGES / "walk-4.jpg")


FOUND, MISSED, MADE_UP = (0, 200, 83), (255, 59, 48), (255, 196, 0)


def judgement(picture: np.ndarray, truth: np.ndarray, found: np.ndarray) -> np.ndarray:
    """The picture with true objects that were found, missed ones, and found ones that are none, each in its colour."""
    shared = contingency_table(truth, found).toarray()  # pixels that each true object shares with each found one
    union = shared.sum(1, keepdims=True) + shared.sum(0) - shared
    matched = (shared / np.maximum(union, 1) > 0.5)[1:, 1:]
    drawn = plain(picture)
    for labels, colour, wanted in (
        (found, MADE_UP, ~matched.any(0)),
        (truth, MISSED, ~matched.any(1)),
        (truth, FOUND, matched.any(1)),
    ):
        shown = np.append(False, wanted)[labels]
        drawn[find_boundaries(np.where(shown, labels, 0), mode="inner")] = colour
    return drawn


def sample_of(data: Path, name: str) -> Sample:
    """One image of a data set."""
    dataset = open_dataset(data)
    return dataset[list(dataset.names).index(name)]


def outlined(picture: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The picture with an outline around each object; a small one is made twice as large."""
    return enlarged(picture, labels, 1 if len(picture) > 320 else 2)


def plain(picture: np.ndarray) -> np.ndarray:
    """The picture in 8 bit, as overlays show it."""
    return overlay(picture, Instances.from_labels(np.zeros(picture.shape[:2], np.int32)))


def enlarged(picture: np.ndarray, labels: np.ndarray, times: int) -> np.ndarray:
    """A small picture made larger, with outlines that are not."""
    larger = Image.fromarray(plain(picture)).resize((labels.shape[1] * times, labels.shape[0] * times), Image.BICUBIC)
    objects = Instances.from_labels(np.kron(labels, np.ones((times, times), np.int32)))
    return overlay(np.asarray(larger), objects, thick=times > 1)


def fitted(picture: np.ndarray, height: int) -> np.ndarray:
    """The picture at this height."""
    size = (round(picture.shape[1] * height / picture.shape[0]), height)
    return np.asarray(Image.fromarray(picture).resize(size, Image.LANCZOS))


def save(pictures: Sequence[np.ndarray], path: Path) -> None:
    """Pictures of one height side by side, as a JPEG."""
    gap = np.full((len(pictures[0]), GAP, 3), 255, np.uint8)
    parts = [part for picture in pictures for part in (gap, picture)][1:]
    Image.fromarray(np.concatenate(parts, 1)).save(path, quality=85)


if __name__ == "__main__":
    main()
