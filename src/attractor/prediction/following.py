"""The objects in each frame of a film, and where each of their pixels was one frame ago.

Frames go through the network in short runs, each with the last frame of the run before: all but that one are encoded
once.

Shapes: `f` frames, `c` channels, `a` axes, `s` the lengths of a frame along them, `t` those that the network sees.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, islice
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
from attractor.prediction.batches import Given
from attractor.prediction.image import Segmenter, is_constant
from attractor.prediction.memory import smaller_tile
from attractor.prediction.resampling import resized
from attractor.shortage import is_for_memory

logger = logging.getLogger(__name__)

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
    frames = chain([first], frames)
    runs = _Runs.of(segmenter, first, tta=tta, object_size=object_size, tile=tile)
    before: Tensor | None = None
    is_first = True
    while group := list(islice(frames, runs.n_frames)):
        run = [segmenter.prepared(one.image, object_size=object_size, name=one.name) for one in group]
        for one, maps in zip(group, runs.maps(before, run), strict=True):
            yield _of_frame(segmenter, maps, one, is_first=is_first)
            is_first = False
        before = run[-1]


@dataclass
class _Runs:
    """Computes the maps of frames, several at once where there is memory for them."""

    segmenter: Segmenter
    tta: bool
    tile: int | None
    n_frames: int  # in a run

    @classmethod
    def of(cls, segmenter: Segmenter, first: Given, *, tta: bool, object_size: float | None, tile: int | None) -> _Runs:
        """What suits a film, by its first frame."""
        shape = np.shape(first.image)[: segmenter.n_axes]
        seen = tuple(math.ceil(n * segmenter.magnification(object_size)) for n in shape)
        tile = tile or segmenter.chosen_tile((2 * seen[0], *seen[1:]), tta=tta)  # two frames are seen at once
        magnification = max((1.0, *segmenter.tta_scales)) if tta else 1.0
        n_frames = 1
        if tile is None:
            most = segmenter.most_pixels() / magnification**2
            n_frames = int(np.clip(most // math.prod(seen) - 1, 1, MOST_FRAMES))
        return cls(segmenter, tta, tile, n_frames)

    def maps(self, before: Tensor | None, run: Sequence[Tensor]) -> Iterator[Any]:
        """The maps of each frame; if memory runs out, of half as many at once, and then in smaller tiles."""
        frames = torch.cat([*run] if before is None else [before, *run])
        try:
            maps = self.segmenter.maps(frames, tta=self.tta, tile=self.tile)
        except (MemoryError, RuntimeError) as error:
            if not is_for_memory(error):
                raise
            smaller = self.tile if len(run) > 1 else smaller_tile(self.tile, tuple(frames.shape[2:]))
            if len(run) == 1 and smaller is None:
                raise
        else:
            skipped = len(frames) - len(run)
            yield from (each_changed(maps, itemgetter(slice(n, n + 1))) for n in range(skipped, len(frames)))
            return
        self.segmenter.free_memory()
        if smaller != self.tile:
            logger.warning("Memory ran out on %s; computed in tiles of %d now.", self.segmenter.device.type, smaller)
        self.tile, half = smaller, max(1, len(run) // 2)
        self.n_frames = half
        yield from self.maps(before, run[:half])
        if run[half:]:
            yield from self.maps(run[half - 1], run[half:])


def _of_frame(segmenter: Segmenter, maps: Any, frame: Given, *, is_first: bool) -> Followed:
    """What the maps say of a frame."""
    method, image = segmenter.model.method, np.asarray(frame.image)
    assert isinstance(method, Follows)
    shape = image.shape[: segmenter.n_axes]
    (found,) = method.group(maps)
    if is_constant(image if image.ndim > segmenter.n_axes else image[..., None]):  # nothing can be told apart
        found = Instances.from_labels(np.zeros(shape, np.int32))
    return Followed(resized(found, shape), None if is_first else _in_pixels(method.steps(maps), shape))


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
