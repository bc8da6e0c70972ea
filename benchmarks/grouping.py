"""Grouping of spatial embeddings at 1024 x 2048: the plain loop of the paper against the fast form.

`python -m benchmarks.grouping [--json FILE]`. Every pair of times is of the same maps in the same run, after
labels and scores were found to be identical. The floor is the time of reading the maps once. With CUDA, the kernel for
GPUs is measured, too.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from attractor.kernels.seeded_gaussians import seeded_gaussians
from attractor.methods.spatial_embeddings import group_plain
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
    """Embedding, concentration and seed score of equal discs that cover the same share of the image, however many.

    Pixels of a disc point at its centre, give or take a tenth of the radius; the margin is the radius, and the seed
    score falls from 0.99 to 0.61 at the rim. Some background pixels stray above the foreground threshold.
    """
    random = np.random.default_rng(n_objects)
    discs = scattered_discs(HEIGHT, WIDTH, n_objects, COVERAGE, random)
    inside, radius = discs.labels > 0, discs.radius
    stray = random.choice(np.flatnonzero(~inside), N_STRAY, replace=False)

    embedding = discs.coordinates + discs.to_centre + random.normal(0, 0.1 * radius, discs.to_centre.shape)
    distance = np.hypot(*discs.to_centre) / radius
    seed = np.where(inside, 0.99 * np.exp(-0.7 * math.log(2) * distance**2), 0.05)
    seed += random.normal(0, 0.01, seed.shape)
    seed.flat[stray] = random.uniform(0.5, 0.89, N_STRAY)
    margin = radius * np.exp(random.normal(0, 0.05, embedding.shape))
    maps = embedding * STEP, math.log(2) / (margin * STEP) ** 2, seed.clip(0, 1)
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


def on_cuda(n_objects):
    """The kernel for GPUs on the same maps, seconds; labels and scores were found to be identical."""
    from attractor.kernels.seeded_gaussians_cuda import seeded_gaussians_cuda

    maps = disc_maps(n_objects)
    tensors = [torch.from_numpy(x).cuda() for x in maps]
    labels, scores = seeded_gaussians(*maps, **GROUPING)
    found, found_scores = seeded_gaussians_cuda(*tensors, **GROUPING)
    assert np.array_equal(labels, found.cpu()), "the form on the GPU differs from that on the processor"
    assert np.array_equal(scores, found_scores.cpu()), "the form on the GPU differs from that on the processor"

    def wait(function):
        function()
        torch.cuda.synchronize()

    return {
        "objects": n_objects,
        "fast": median_seconds(lambda: wait(lambda: seeded_gaussians_cuda(*tensors, **GROUPING)), 15),
        "floor": median_seconds(lambda: wait(lambda: floor(tensors)), 15),
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
    there = [on_cuda(n) for n in (60, 200, 2_000)] if torch.cuda.is_available() else []
    if there:
        rows = [{name: x if name == "objects" else milliseconds(x) for name, x in r.items()} for r in there]
        print_table(f"On {torch.cuda.get_device_name()}, labels identical", rows)
    headlines = [
        Headline(
            f"grouping of spatial embeddings, {HEIGHT}x{WIDTH}, {r['objects']} objects",
            r["plain"],
            r["fast"],
            f"{least}x, at most 8 floors",
            r["floor"],
        )
        for r, least in zip(plain, (20, 60), strict=True)
    ]
    keep(file, {"against plain": plain, "more objects": scale, "on cuda": there}, headlines)


if __name__ == "__main__":
    main()
