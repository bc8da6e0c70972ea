"""The objects in each frame of a film, and where each of their pixels was one frame ago.

Frames go through the network in short runs, each with the last frame of the run before: all but that one are encoded
once.

Shapes: `f` frames, `c` channels, `a` axes, `s` the lengths of a frame along them, `t` those that the network sees.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float32
from torch import Tensor
from torch.nn import functional as F

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.methods.contract import Follows, each_changed
from attractor.prediction.batches import Given, in_groups
from attractor.prediction.image import Segmenter, is_constant
from attractor.prediction.resampling import resized

MOST_FRAMES = 8  # in a run, besides the last one of the run before


class Followed(NamedTuple):
    """What was found in a frame."""

    found: Instances
    steps: Float32[np.ndarray, "a *s"] | None  # from each pixel to where its object was; None in the first frame


def followed(
    segmenter: Segmenter,
    frames: Iterable[Given],
    *,
    tta: bool = False,
    object_size: float | None = None,
    tile: int | None = None,
) -> Iterator[Followed]:
    """What is found in each frame of a film, one after another.

    Args:
        segmenter: of a model that follows objects.
        frames: of one size, in the order of time; they are taken shortly before they are needed.
        tta: as for `Segmenter.segment`, like the next two.
        object_size: typical diameter of the objects, in pixels.
        tile: side in pixels of the tiles to compute one after another.

    Raises:
        InputError: if the model does not follow objects, an option is impossible, or a frame cannot be used.
    """
    if not segmenter.follows:
        raise InputError("This model does not follow objects from frame to frame; take one that was trained on films.")
    segmenter.check_options(tta=tta, object_size=object_size, tile=tile)
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return
    shape = np.shape(first.image)[: segmenter.n_axes]
    seen = tuple(math.ceil(n * segmenter.magnification(object_size)) for n in shape)
    tile = tile or segmenter.chosen_tile((2 * seen[0], *seen[1:]), tta=tta)  # two frames are seen at once
    n_frames = segmenter.most_pixels() // math.prod(seen) - 1 if tile is None else 1
    before: Tensor | None = None
    for group in in_groups(chain([first], frames), min(max(n_frames, 1), MOST_FRAMES)):
        run = [segmenter.prepared(one.image, object_size=object_size, name=one.name) for one in group]
        maps = segmenter.maps(torch.cat(run if before is None else [before, *run]), tta=tta, tile=tile)
        yield from _in_frames(segmenter, maps, group, is_first=before is None)
        before = run[-1]


def _in_frames(segmenter: Segmenter, maps: Any, group: Sequence[Given], *, is_first: bool) -> Iterator[Followed]:
    """What the maps of a run say of its own frames."""
    method = segmenter.model.method
    assert isinstance(method, Follows)
    own = each_changed(maps, itemgetter(slice(0 if is_first else 1, None)))
    steps = method.steps(maps)[0 if is_first else 1 :]
    for place, (one, found) in enumerate(zip(group, method.group(own), strict=True)):
        image = np.asarray(one.image)
        shape = image.shape[: segmenter.n_axes]
        if is_constant(image if image.ndim > segmenter.n_axes else image[..., None]):  # nothing can be told apart
            found = Instances.from_labels(np.zeros(shape, np.int32))
        known = not (is_first and place == 0)
        yield Followed(resized(found, shape), _in_pixels(steps[place : place + 1], shape) if known else None)


def _in_pixels(steps: Float[Tensor, "1 a *t"], shape: tuple[int, ...]) -> Float32[np.ndarray, "a *s"]:
    """Steps in the pixels of a frame of this shape, from those on the network's grid."""
    steps = steps.float().cpu()
    seen = steps.shape[2:]
    if tuple(seen) != shape:
        steps = F.interpolate(steps, shape, mode="bilinear" if len(shape) == 2 else "trilinear", align_corners=False)
        factors = torch.tensor([own / n for own, n in zip(shape, seen, strict=True)])
        steps = steps * factors.view(-1, *[1] * len(shape))
    in_pixels: Float32[np.ndarray, "a *s"] = steps[0].numpy()
    return in_pixels
