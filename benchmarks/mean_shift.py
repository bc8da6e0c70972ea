"""Mean shift at 512 x 512: the plain loop of the discriminative loss against the fast form.

`python -m benchmarks.mean_shift [--json FILE]`. Every pair of times is of the same maps in the same run, after labels
were found to be identical. The floor is the time of reading the maps once.
"""

from __future__ import annotations

import numpy as np
import torch

from attractor.kernels.mean_shift import mean_shift
from benchmarks.harness import (
    Headline,
    keep,
    median_seconds,
    milliseconds,
    options,
    print_machine,
    print_table,
    scattered_discs,
)

SIZE = 512
DIMENSION = 8
BANDWIDTH = 1.5
APART = 3.0  # least distance between means: what the loss asks for
NOISE = 0.15  # in each channel, so that most pixels are within 0.5 of their mean: likewise
HALF_WIDTH = 5.0  # of the cube that means are in


def discs(n_objects):
    """Object of each foreground pixel, from 0: discs that cover 60 % of the image."""
    labels = scattered_discs(SIZE, SIZE, n_objects, 0.6, np.random.default_rng(n_objects)).labels
    return labels[labels > 0] - 1


def tiles(n_objects):
    """Object of each pixel, from 0: rectangles that fill the image, the last of which takes what is left."""
    side = int(np.ceil(np.sqrt(n_objects)))
    y, x = np.mgrid[:SIZE, :SIZE] * side // SIZE
    return np.minimum(y * side + x, n_objects - 1).ravel()


def distant_means(n, random):
    """(n, d) points that are at least APART from each other."""
    means = np.empty((0, DIMENSION))
    while len(means) < n:
        new = random.uniform(-HALF_WIDTH, HALF_WIDTH, DIMENSION)
        if not (np.linalg.norm(means - new, axis=1) < APART).any():
            means = np.vstack([means, new])
    return means


def maps_of(owner, objects_per_region=None):
    """Embedding, priority and region of pixels; by default there is one region."""
    random = np.random.default_rng(0)
    mean = distant_means(owner.max() + 1, random)[owner].T
    embedding = mean + random.normal(0, NOISE, mean.shape)
    region = np.zeros_like(owner) if objects_per_region is None else owner // objects_per_region
    return embedding.astype(np.float32), random.random(owner.size, np.float32), region.astype(np.int32)


def floor(maps):
    """Read every map once."""
    return [x.sum() for x in maps]


def fast_alone(layout, owner, objects_per_region=None):
    """The fast form and the floor on the same maps, seconds."""
    maps = maps_of(owner, objects_per_region)
    labels = mean_shift(*maps, bandwidth=BANDWIDTH, min_size=0)
    return {
        "layout": layout,
        "pixels": owner.size,
        "regions": len(np.unique(maps[2])),
        "objects": int(owner.max()) + 1,
        "found": int(labels.max()),
        "fast": median_seconds(lambda: mean_shift(*maps, bandwidth=BANDWIDTH, min_size=0), 15),
        "floor": median_seconds(lambda: floor(maps), 15),
    }


def against_plain(layout, owner, objects_per_region=None, repeats=3):
    """Plain and fast form on the same maps, seconds."""
    from attractor.methods.discriminative_loss import group_plain

    maps = maps_of(owner, objects_per_region)
    tensors = [torch.from_numpy(x) for x in maps]

    def plain():
        return group_plain(*tensors, bandwidth=BANDWIDTH, min_size=0)

    labels = mean_shift(*maps, bandwidth=BANDWIDTH, min_size=0)
    assert np.array_equal(labels, plain()), "the fast form differs from the plain one"
    return {
        **fast_alone(layout, owner, objects_per_region),
        "plain": median_seconds(plain, repeats, warm_up=False),
    }


def row_of(result):
    """One line of the table."""
    row = {name: result[name] for name in ("layout", "pixels", "regions", "objects", "found")}
    if "plain" in result:
        row["plain"] = milliseconds(result["plain"])
    row["fast"] = milliseconds(result["fast"])
    if "plain" in result:
        row["ratio"] = f"{result['plain'] / result['fast']:.0f}x"
    return row | {"floor": milliseconds(result["floor"]), "fast/floor": f"{result['fast'] / result['floor']:.1f}"}


def main():
    """Print the tables."""
    file = options(__doc__.splitlines()[0]).json
    print_machine()
    plain = [
        against_plain("discs", discs(50)),
        against_plain("tiles", tiles(50)),
        against_plain("discs", discs(300)),
        against_plain("discs", discs(1_000), objects_per_region=2, repeats=1),
    ]
    print_table("Plain loop against fast form, labels identical", [row_of(r) for r in plain])
    scale = [fast_alone("discs", discs(n)) for n in (10, 100, 1_000)]
    scale += [fast_alone("discs", discs(n), objects_per_region=2) for n in (1_000, 5_000)]
    print_table("More objects, the same foreground", [row_of(r) for r in scale])
    headlines = [
        Headline(
            f"mean shift, {SIZE}x{SIZE}, {r['objects']} {r['layout']}, {r['regions']} regions",
            r["plain"],
            r["fast"],
            "",
            r["floor"],
        )
        for r in plain
    ]
    keep(file, {"against plain": plain, "more objects": scale}, headlines)


if __name__ == "__main__":
    main()
