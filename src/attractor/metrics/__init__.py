"""One benchmark a file, its matching rule written out there; `METRICS` lists them by name."""

from __future__ import annotations

from attractor.metrics import average_precision

METRICS = {"average_precision": average_precision.score}  # each takes (truth, found) pairs of label images
