"""Training crops of images that memory does not hold: read again for each crop, or kept ready on the disk.

    python -m benchmarks.crops [--side 4096] [--images 4] [--json FILE]

The crops are the same, bit for bit; plain is the image read again. One thread makes them, as in training.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from attractor.augmentation import Augmentation
from attractor.datasets import open_dataset
from attractor.datasets.held import hold
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Sample
from attractor.description import Description
from attractor.images import made
from attractor.model import Model
from attractor.settings import Settings
from attractor.training.batches import RandomCrops, Room
from benchmarks.harness import Headline, keep, milliseconds, options, picture_of_cells, print_machine, print_table

SETTINGS = Settings(crop_size=256)
CELLS = 2e-4  # a pixel
CROPS = {"read again": 4, "on the disk": 64, "in memory": 64}  # that are timed


def annotated(side, seed):
    """A picture of cells, in which all that is bright counts as one object in each square of 64 pixels."""
    picture = picture_of_cells(side, side, round(CELLS * side**2), np.random.default_rng(seed))
    y, x = np.mgrid[:side, :side] // 64
    squares = (y * (side // 64) + x + 1) * (picture > 80)
    labels = np.unique(squares, return_inverse=True)[1].reshape(squares.shape).astype(np.int32)
    return Sample(f"{seed}", picture[..., None], labels, np.ones(labels.max(), np.int32), np.zeros(labels.shape, bool))


def seconds_of_a_crop(crops, n):
    """The mean over n crops."""
    crops[0, n]
    start = time.perf_counter()
    for index in range(n):
        crops[0, index]
    return (time.perf_counter() - start) / n


def main():
    """Print a table."""
    given = options(
        __doc__.splitlines()[0],
        ("--side", {"type": int, "default": 4096}),
        ("--images", {"type": int, "default": 4}),
    )
    torch.set_num_threads(1)
    print_machine()
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=("cell",)))
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        write_label_images(folder / "data", (annotated(given.side, seed) for seed in range(given.images)))
        data = open_dataset(folder / "data")
        room = Room(folder, lambda: made(folder / "ready"))
        many, few = hold(data, 0), hold(data, 1 << 62)
        ways = {
            "read again": RandomCrops(model, many, SETTINGS, Augmentation()),
            "on the disk": RandomCrops(model, many, SETTINGS, Augmentation(), None, room),
            "in memory": RandomCrops(model, few, SETTINGS, Augmentation()),
        }
        first = [crops[0, 0][0].image for crops in ways.values()]
        assert all(torch.equal(first[0], other) for other in first)
        seconds = {way: seconds_of_a_crop(crops, CROPS[way]) for way, crops in ways.items()}
    rows = [{"images": way, "a crop": milliseconds(value)} for way, value in seconds.items()]
    print_table(f"Crops of 256 from {given.images} images of {given.side} x {given.side}", rows)
    headline = Headline("crop of a large image", seconds["read again"], seconds["on the disk"], "")
    keep(given.json, seconds, [headline])


if __name__ == "__main__":
    main()
