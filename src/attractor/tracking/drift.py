"""How far a whole picture has moved from one frame to the next.

Shapes: `a` axes.
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Float, Int
from scipy import fft

COARSE = 256  # pixels along each axis of the frames that drift is measured in
CLEARLY = 1.2  # times the overlap without drift: less is chance


def drift_between(before: Int[np.ndarray, "*axes"], after: Int[np.ndarray, "*axes"]) -> Float[np.ndarray, " a"]:
    """The shift in pixels at which the objects of one frame lie best on those of the next; frames are of one shape.

    It is 0 unless that is clearly better than no shift. Large frames are looked at more coarsely.
    """
    strides = [max(1, -(-length // COARSE)) for length in before.shape]
    view = tuple(slice(None, None, stride) for stride in strides)
    first, second = np.float32(before[view] > 0), np.float32(after[view] > 0)
    sides: tuple[int, ...] = first.shape
    lengths = [fft.next_fast_len(2 * side, real=True) for side in sides]  # so that no shift comes round
    overlap = fft.irfftn(fft.rfftn(second, lengths) * np.conj(fft.rfftn(first, lengths)), lengths)
    best = np.unravel_index(int(overlap.argmax()), overlap.shape)
    if overlap[best] <= max(CLEARLY * overlap[(0,) * first.ndim], 0.5):
        return np.zeros(first.ndim)
    back = [place - length if 2 * place > length else place for place, length in zip(best, lengths, strict=True)]
    return np.array(back, float) * strides
