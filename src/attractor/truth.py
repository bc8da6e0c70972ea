"""What a loss is told of a batch of annotated images, the same for every method.

Shapes: `b` images, `h` rows, `w` columns, `k` the most objects in any image of the batch.
"""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Int, Int32
from torch import Tensor


@dataclass(frozen=True)
class Truth:
    """Annotated objects of a batch."""

    labels: Int32[Tensor, "b h w"]  # 0 is background, objects of each image are 1, 2, …; gaps are allowed
    classes: Int[Tensor, "b k"]  # class of label i + 1, counted from 1; 0 where an image has fewer objects
    valid: Bool[Tensor, "b h w"]  # False where a pixel counts neither as object nor as background
