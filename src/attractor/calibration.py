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
from attractor.networks.eight_bits import observed
from attractor.networks.folding import folded
from attractor.prediction.image import Segmenter

CROPS = 300
MOST_CROPS = 10_000
SIDE = 256  # of a crop, in pixels of the image as the network sees it


def calibrate(
    model: Model,
    images: Sequence[str | Path],
    *,
    crops: int = CROPS,
    report: Callable[[int], None] = lambda n: None,
) -> dict[str, tuple[float, float]]:
    """The ranges of a model's network; `model.save(path, ranges=...)` keeps them, and `dtype="int8"` uses them.

    Args:
        model: for images, not for volumes.
        images: files of images like those that will be segmented; nobody need have annotated them.
        crops: how many crops of at most 256 x 256 pixels are looked at, drawn at random from images spread evenly over
            those given; the same ones each time.
        report: is called with the number of crops that have been drawn.

    Raises:
        InputError: if the model takes volumes, no image or crop is asked for, or an image cannot be read.
    """
    if model.description.axes == 3:
        raise InputError("The model takes volumes; only models for images can be computed in eight bits.")
    check_number("crops", crops, 1, MOST_CROPS)
    if not images:
        raise InputError("There is no image to calibrate on; give one at least.")
    drawn = _drawn(model, images, crops, report)
    assert isinstance(model.method.network, nn.Module)
    network = folded(model.method.network)
    method = with_network(model.method, network)

    @torch.inference_mode()
    def show() -> None:
        for crop in drawn:
            method(crop)

    return observed(network, show)


def _drawn(
    model: Model, images: Sequence[str | Path], crops: int, report: Callable[[int], None]
) -> list[Float[Tensor, "1 c h w"]]:
    """Crops of images as the network sees them."""
    random = np.random.default_rng(0)
    segmenter = Segmenter(model, device="cpu", dtype="float32", copies=False)
    drawn: list[Tensor] = []
    places = np.linspace(0, len(images), crops, endpoint=False).astype(int)
    for place, n in zip(*np.unique(places, return_counts=True), strict=True):
        image = segmenter.prepared(read_image(images[place]), name=str(images[place]))
        rows, columns = (max(1, side - SIDE + 1) for side in image.shape[2:])
        for _ in range(n):
            row, column = random.integers(rows), random.integers(columns)
            drawn.append(image[..., row : row + SIDE, column : column + SIDE].clone())
        report(len(drawn))
    return drawn
