"""Several models on the same annotated images: which finds more, counts better, is faster, and where they disagree.

Each model runs in a process of its own, so that its peak memory is its own, and no model gains from what another has
already loaded. The first image is segmented once before the clock starts. Every other model is then tested against the
first one, image by image: what counts is not how far apart two means lie, but whether the difference holds from image
to image.

`computing` runs the models with the help of `running`, `verdict` says what the numbers mean, `pictures` draws where
models disagree, and `page` shows all of it; `records` holds what they pass to each other.
"""

from __future__ import annotations

from attractor.comparison.computing import check_models, compare
from attractor.comparison.page import as_json, check_page, write_page
from attractor.comparison.records import Comparison

__all__ = ["Comparison", "as_json", "check_models", "check_page", "compare", "write_page"]
