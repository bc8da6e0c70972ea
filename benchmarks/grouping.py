"""Grouping of spatial embeddings at 1024 x 2048: the plain loop of the paper against the fast form.

`python -m benchmarks.grouping [--json FILE]`. Every pair of times is of the same maps in the same run, after
labels and scores were found to be identical. The floor is the time of reading the maps once.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from attractor.kernels.seeded_gaussians import seeded_gaussians
from attractor.methods.spatial_embeddings import group_plain
from benchmarks.harness import keep, median_seconds, milliseconds, options, print_machine, print_table

HEIGHT, WIDTH = 1024, 2048
STEP = 1 / 1024  # grid units a pixel
COVERAGE = 0.28
N_STRAY = 200
GROUPING = {
    "foreground_threshold": 0.5,
    "seed_threshold": 0.9,
    "min_size": 0,
    "min_foreground": 0,
    "min_free": 0,
    "count_seed": False,
    "overwrite": True,
}


def disc_maps(n_objects):
    """Embedding, precision and seed score of equal discs that cover the same share of the image, however many.

    Each disc lies somewhere in its own cell of a grid. Its pixels point at its centre but for a tenth of the
    radius, the margin is the radius, and the seed score falls from 0.99 to 0.61 at the rim. Some background
    pixels stray above the foreground threshold and point at random.
    """
    random = np.random.default_rng(n_objects)
    columns = math.ceil(math.sqrt(n_objects * WIDTH / HEIGHT))
    rows = math.ceil(n_objects / columns)
    radius = math.sqrt(COVERAGE * HEIGHT * WIDTH / n_objects / math.pi)
    used = random.permutation(np.arange(rows * columns) < n_objects).reshape(rows, columns)
    sides = np.array([HEIGHT / rows, WIDTH / columns])
    slack = np.maximum(sides / 2 - radius, 0)
    middles = (np.stack(np.mgrid[:rows, :columns], -1) + 0.5) * sides
    centres = middles + random.uniform(-slack, slack, middles.shape)

    y, x = np.mgrid[:HEIGHT, :WIDTH]
    cell = y * rows // HEIGHT, x * columns // WIDTH
    offset = centres[cell] - np.stack([y, x], -1)  # (h, w, 2)
    relative = np.hypot(offset[..., 0], offset[..., 1]) / radius
    inside = used[cell] & (relative < 1)
    stray = random.choice(np.flatnonzero(~inside), N_STRAY, replace=False)

    offset = np.where(inside[..., None], offset, 0) + random.normal(0, 0.1 * radius, offset.shape)
    seed = np.where(inside, 0.99 * np.exp(-0.7 * math.log(2) * relative**2), 0.05) + random.normal(
        0, 0.01, inside.shape
    )
    seed.flat[stray] = random.uniform(0.5, 0.89, N_STRAY)
    margin = radius * STEP * np.exp(random.normal(0, 0.05, (2, HEIGHT, WIDTH)))
    embedding = (offset + np.stack([y, x], -1))[..., ::-1].transpose(2, 0, 1) * STEP
    maps = embedding, math.log(2) / margin**2, seed.clip(0, 1)
    return [np.ascontiguousarray(x, np.float32) for x in maps]


def floor(maps):
    """Read every map once."""
    return [x.sum() for x in maps]


def against_plain(n_objects):
    """Plain and fast form on the same maps, seconds."""
    maps = disc_maps(n_objects)
    tensors = [torch.from_numpy(x) for x in maps]
    labels, scores = seeded_gaussians(*maps, **GROUPING)
    plain_labels, plain_scores = group_plain(*tensors, **GROUPING)
    assert np.array_equal(labels, plain_labels), "the fast form differs from the plain one"
    assert np.array_equal(scores, plain_scores), "the fast form differs from the plain one"
    plain = median_seconds(lambda: group_plain(*tensors, **GROUPING), 3, warm_up=False)
    return {**fast_alone(n_objects), "plain": plain}


def fast_alone(n_objects):
    """The fast form and the floor on the same maps, seconds."""
    maps = disc_maps(n_objects)
    _, scores = seeded_gaussians(*maps, **GROUPING)
    return {
        "objects": n_objects,
        "found": len(scores),
        "foreground": float((maps[2] > GROUPING["foreground_threshold"]).mean()),
        "fast": median_seconds(lambda: seeded_gaussians(*maps, **GROUPING), 15),
        "floor": median_seconds(lambda: floor(maps), 15),
    }


def row_of(result):
    """One line of the table."""
    row = {
        "size": f"{HEIGHT}x{WIDTH}",
        "objects": result["objects"],
        "found": result["found"],
        "foreground": f"{result['foreground']:.0%}",
    }
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
    plain = [against_plain(n) for n in (60, 200)]
    print_table("Plain loop against fast form, labels identical", [row_of(r) for r in plain])
    scale = [fast_alone(n) for n in (10, 20, 100, 1_000, 10_000, 50_000)]
    print_table("More objects, the same foreground", [row_of(r) for r in scale])
    time_of = {r["objects"]: r["fast"] for r in scale}
    print(f"\n1,000 objects take {time_of[1_000] / time_of[20]:.2f} times as long as 20 (at most 2).")
    keep(file, {"against plain": plain, "more objects": scale})


if __name__ == "__main__":
    main()
