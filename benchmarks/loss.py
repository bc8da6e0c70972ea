"""Loss of spatial embeddings, 100 objects in crops of 512 x 512: the plain loop over objects against the method's.

`python -m benchmarks.loss [--json FILE]`. Times are those of forward and backward on the same maps in the same run,
after value and gradients were found to be equal. `torch only` is the form that other devices run. Memory is that of
forward and backward in a fresh process (Linux only).
"""

from __future__ import annotations

import math
from functools import cache
from unittest import mock

import numpy as np
import torch

from attractor.kernels import lovasz_gaussians
from attractor.methods.spatial_embeddings import Maps, SpatialEmbeddings, instance_loss_plain
from attractor.networks import ERFNet
from attractor.truth import Truth
from benchmarks.harness import (
    Headline,
    forget_peak,
    in_a_fresh_process,
    keep,
    median_seconds,
    memory_of_this_process,
    milliseconds,
    options,
    print_machine,
    print_table,
    scattered_discs,
    tells_memory,
)

SIZE, BATCH = 512, 4
STEP = 1 / 1024  # grid units a pixel
COVERAGE = 0.28
TOLERANCE = 1e-5  # of the largest


class PlainSpatialEmbeddings(SpatialEmbeddings):
    """The same loss with the instance term of the paper: every object against every pixel of its image."""

    def _instance_term(self, embedding, centre, concentration, own_distance, objects):
        losses = []
        for b in range(len(embedding)):
            own = torch.nonzero(objects.image == b)[:, 0]
            owner = objects.owner[b].flatten()
            owner = torch.where(owner > 0, owner - own[0], owner)
            losses.append(instance_loss_plain(embedding[b].flatten(1), owner, centre[own], concentration[own]))
        return objects.mean_over_images(torch.cat(losses))


@cache
def method_of(form):
    """The method that a form of the loss belongs to; its network is not used."""
    cls = PlainSpatialEmbeddings if form == "plain" else SpatialEmbeddings
    return cls(lambda channels_out: ERFNet(1, channels_out))


def half_learned(n_objects, size=SIZE):
    """Raw maps of a half-trained network, and the truth: pixels of a disc point roughly halfway to its centre."""
    random = np.random.default_rng(n_objects)
    crops = [scattered_discs(size, size, n_objects, COVERAGE, random) for _ in range(BATCH)]
    offset = np.stack([0.5 * discs.to_centre for discs in crops]) + random.normal(0, 2, (BATCH, 2, size, size))
    margin = crops[0].radius * STEP
    sigma = np.log(math.log(2) / margin**2) / 10 + random.normal(0, 0.02, offset.shape)
    seed = random.normal(0, 1, (BATCH, 1, size, size))
    raw = (np.arctanh(offset * STEP), sigma, seed)
    maps = Maps(*(torch.tensor(x, dtype=torch.float32, requires_grad=True) for x in raw))
    labels = torch.from_numpy(np.stack([discs.labels for discs in crops]))
    classes = torch.ones(BATCH, n_objects, dtype=torch.int32)
    return maps, Truth(labels, classes, torch.ones_like(labels, dtype=torch.bool))


def call(form, maps, truth):
    """Forward and backward: the value, and the gradient of each map."""
    method = method_of(form)
    by_form = lovasz_gaussians._by_torch if form == "torch only" else lovasz_gaussians._by_numba
    with mock.patch.object(lovasz_gaussians, "_by_numba", by_form):
        terms = method.loss(maps, truth)
    total = sum(method.weights[name] * value for name, value in terms.items())
    return total.detach(), *torch.autograd.grad(total, (maps.offset, maps.sigma, maps.seed))


def assert_equal(found, expected):
    """Check the value and each gradient, within the tolerance of its largest number."""
    for name, x, y in zip(("value", "offset", "sigma", "seed"), found, expected, strict=True):
        difference = float((x - y).abs().max() / y.abs().max())
        assert difference <= TOLERANCE, f"{name} differs by {difference:.1e} of its largest"


def seconds(n_objects):
    """Time of each form on the same maps."""
    maps, truth = half_learned(n_objects)
    expected = call("plain", maps, truth)
    for form in ("fast", "torch only"):
        assert_equal(call(form, maps, truth), expected)
    return {
        "plain": median_seconds(lambda: call("plain", maps, truth), 3, warm_up=False),
        "fast": median_seconds(lambda: call("fast", maps, truth), 9),
        "torch only": median_seconds(lambda: call("torch only", maps, truth), 3, warm_up=False),
    }


def peak_growth(form, n_objects):
    """Bytes by which the peak memory of this process grows in one call, once code is loaded and compiled."""
    call(form, *half_learned(2, size=32))
    maps, truth = half_learned(n_objects)
    forget_peak()
    before = memory_of_this_process("VmRSS")
    call(form, maps, truth)
    return memory_of_this_process("VmHWM") - before


def main():
    """Print the tables."""
    file = options(__doc__.splitlines()[0]).json
    print_machine()
    times = seconds(100)
    rows = [
        {"form": form, "time": milliseconds(time), "ratio": f"{times['plain'] / time:.1f}x"}
        for form, time in times.items()
    ]
    print_table(f"Forward and backward, {BATCH} crops of {SIZE}x{SIZE} with 100 objects each, results equal", rows)
    memory = {}
    if tells_memory():
        memory = {
            n: {x: in_a_fresh_process(peak_growth, x, n) for x in ("fast", "torch only")} for n in (10, 100, 1_000)
        }
        in_words = [
            {"objects": n} | {x: f"{grown / 2**20:.0f} MiB" for x, grown in m.items()} for n, m in memory.items()
        ]
        print_table("Memory of one call at its peak", in_words)
    headline = Headline("loss forward and backward, 4 crops of 512x512, 100 objects", times["plain"], times["fast"], "")
    keep(file, {"seconds": times, "bytes": memory}, [headline])


if __name__ == "__main__":
    main()
