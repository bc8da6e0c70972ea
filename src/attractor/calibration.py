"""What a model needs to be computed in eight bits: the ranges of the numbers in its network on typical images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from attractor.errors import InputError, check_number
from attractor.images import read_image
from attractor.methods.contract import with_network
from attractor.model import Model
from attractor.networks.eight_bits import check_ranges, observed
from attractor.networks.folding import folded
from attractor.prediction.image import Segmenter

CROPS = 300
MOST_CROPS = 10_000
SIDE = 256  # of a crop, in pixels of the image as the network sees it
MOVED = 4  # pixels down and to the left, from one frame to the next, for models that follow objects


def calibrate(
    model: Model,
    images: Sequence[str | Path],
    *,
    crops: int = CROPS,
    report: Callable[[], None] = lambda: None,
) -> dict[str, tuple[float, float]]:
    """The ranges of a model's network; `model.save(path, ranges=...)` keeps them, and `dtype="int8"` uses them.

    Args:
        model: for images, not for volumes.
        images: files of images like those that will be segmented; they need no annotations.
        crops: how many crops of at most 256 x 256 pixels are looked at, drawn at random from images spread evenly over
            those given; the same ones each time.
        report: is called each time that a crop was looked at, `eight_bits.PASSES` times for each.

    Raises:
        InputError: if the model takes volumes, no image or crop is asked for, an image cannot be read, or the network
            has a convolution that is never computed.
    """
    if model.description.axes == 3:
        raise InputError("The model takes volumes; only models for images can be computed in eight bits.")
    check_number("crops", crops, 1, MOST_CROPS)
    if not images:
        raise InputError("There is no image to calibrate on; give one at least.")
    segmenter = Segmenter(model, device="cpu", dtype="float32")
    drawn = _drawn(segmenter, images, crops)
    method = segmenter.model.method
    assert isinstance(method.network, nn.Module)
    network = folded(method.network)
    method = with_network(method, network)

    @torch.inference_mode()
    def show() -> None:
        for crop in drawn:
            method(torch.cat([crop.roll((MOVED, -MOVED), (2, 3)), crop]) if segmenter.follows else crop)
            report()

    ranges = observed(network, show)
    check_ranges(network, ranges)
    return ranges


def _drawn(segmenter: Segmenter, images: Sequence[str | Path], crops: int) -> list[Float[Tensor, "1 c h w"]]:
    """Crops of images as the network sees them."""
    random = np.random.default_rng(0)
    drawn: list[Tensor] = []
    places = np.linspace(0, len(images), crops, endpoint=False).astype(int)
    for place, n in zip(*np.unique(places, return_counts=True), strict=True):
        image = segmenter.prepared(read_image(images[place]), name=str(images[place]))
        rows, columns = (max(1, side - SIDE + 1) for side in image.shape[2:])
        for _ in range(n):
            row, column = random.integers(rows), random.integers(columns)
            drawn.append(image[..., row : row + SIDE, column : column + SIDE].clone())
    return drawn
