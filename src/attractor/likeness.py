"""What images are like, to notice those that are unlike what a model has learned from.

Traits do not depend on exposure or bit depth: the typical size of the objects in pixels, the mean brightness between
the normalisation's two percentiles, and the contrast of neighbouring pixels in units of that of the whole image, which
is low where an image is blurred and high where it is noisy.

Shapes: `s` the lengths of an image or volume along its axes, `c` channels.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping

import numpy as np
from jaxtyping import Int32, Shaped
from scipy.cluster.hierarchy import fcluster, linkage

from attractor.instances import areas
from attractor.normalisation import Normalisation
from attractor.wording import counted

Traits = dict[str, float]
Ranges = dict[str, tuple[float, float]]
MARGINS = {"object size": 1.25, "brightness": 1.2, "sharpness": 1.2}  # factors by which an image may lie outside


def traits(image: Shaped[np.ndarray, "*s c"], labels: Int32[np.ndarray, "*s"], normalisation: Normalisation) -> Traits:
    """The traits of an image; without objects, it has no object size."""
    grey = normalisation(image).mean(axis=-1).clip(0, 1)
    spread = max(float(grey.std()), 1e-6)
    steps = [float(np.diff(grey, axis=axis).std()) for axis in range(grey.ndim) if grey.shape[axis] > 1]
    found = {"brightness": float(grey.mean()), "sharpness": float(np.mean(steps or [0.0])) / spread}
    size = areas(labels, int(labels.max(initial=0)))
    size = size[size > 0]
    diameters = 2 * np.sqrt(size / np.pi) if labels.ndim == 2 else np.cbrt(6 * size / np.pi)
    return ({"object size": float(np.median(diameters))} if len(size) else {}) | found


def alike(images: Iterable[Shaped[np.ndarray, "..."]], n: int) -> list[int]:
    """The number of a group for each image, so that images of one group look alike: fields of one well, for example.

    They are compared by their sides, their darkest, middle and brightest values as stored, which exposure and staining
    decide, and their sharpness.

    Args:
        images: two at least.
        n: the most groups to make.

    Source: Ward 1963, as SciPy has it.
    """
    looks = np.array([_looks(image) for image in images])
    spread = looks.std(axis=0)
    tree = linkage((looks - looks.mean(axis=0)) / np.where(spread > 0, spread, 1), "ward")
    return [int(group) for group in fcluster(tree, n, "maxclust")]


def _looks(image: Shaped[np.ndarray, "*s c"]) -> list[float]:
    """Numbers that are alike for images that were taken alike."""
    sides = image.shape[:-1]
    values = np.percentile(image.astype(np.float32), (1, 50, 99), axis=tuple(range(len(sides)))).mean(axis=1)
    sharpness = traits(image, np.zeros(sides, np.int32), Normalisation())["sharpness"]
    return [*map(math.log, sides), *np.log1p(np.maximum(values, 0)).tolist(), math.log(sharpness + 1e-3)]


def ranges(images: Iterable[Traits]) -> Ranges:
    """The lowest and the highest value of each trait."""
    every = list(images)
    known = {name: [one[name] for one in every if name in one] for name in MARGINS}
    return {name: (min(values), max(values)) for name, values in known.items() if values}


def outside(one: Traits, seen: Mapping[str, tuple[float, float]]) -> list[str]:
    """The traits of an image that lie clearly outside those of training."""
    places = {name: (one[name], *seen[name]) for name in one.keys() & seen.keys()}
    return [n for n, (value, low, high) in places.items() if not low / MARGINS[n] <= value <= high * MARGINS[n]]


class Strangers:
    """Counts images that are unlike those of training."""

    def __init__(self, seen: Mapping[str, tuple[float, float]]) -> None:
        """Begin to count.

        Args:
            seen: the ranges of the traits in training; nothing is strange if it is empty.
        """
        self.seen, self.n, self.strange = seen, 0, 0
        self.reasons: Counter[str] = Counter()

    def look_at(self, one: Traits) -> None:
        """Count an image."""
        reasons = outside(one, self.seen)
        self.n += 1
        self.strange += bool(reasons)
        self.reasons.update(_reason(name, one[name], *self.seen[name]) for name in reasons)

    def in_words(self) -> str:
        """A sentence on the images that are strange, and what to do; empty if there are none."""
        if not self.strange:
            return ""
        reasons = ", ".join(f"{reason} ({n})" for reason, n in self.reasons.most_common())
        return (
            f"{counted(self.strange, 'image')} of {self.n:,} unlike those that the model was trained on: {reasons}. "
            "If the scores are low, try --object-size of attractor segment where sizes differ, or train on such images "
            "with --from."
        )


def _reason(name: str, value: float, low: float, high: float) -> str:
    """How an image differs by a trait."""
    words = {
        "object size": (f"objects smaller than {low:.0f} pixels", f"objects larger than {high:.0f} pixels"),
        "brightness": ("darker", "brighter"),
        "sharpness": ("more blurred", "noisier or sharper"),
    }
    return words[name][value > high]
