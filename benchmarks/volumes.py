"""Volumes: what a voxel costs the network, a volume from pixels to objects, and the memory of a step of training.

`python -m benchmarks.volumes [--json FILE]`. The volume has 64 x 512 x 512 voxels with drawn nuclei of mouse embryos,
and the model is `embryo`; each run has a process of its own, whose peak memory includes all that was loaded (Linux
only). Plain is the network in float32; ours is what `attractor segment` does on this machine. The step of training is
one of the recipe of `embryo`, on drawn volumes, too.
"""

from __future__ import annotations

import math
import time

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

import attractor
from attractor.description import find_model, read_description
from attractor.methods.spatial_embeddings import SpatialEmbeddings
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
    tells_memory,
)

SHAPE = 64, 512, 512
SPACING = 1.75, 0.8, 0.8  # micrometres along planes, rows and columns, as the training data have it
RADIUS = 6.0  # micrometres
APART = 20.0  # micrometres from nucleus to nucleus, more or less
MODEL = "embryo"
REPEATS = 3
ASKED_COST = ".35 of a pixel"
ASKED_TIME = "45 s on two cores"
ASKED_MEMORY = "8 GB"


def nuclei(shape, random):
    """Labels of balls with drawn radii, one in each cell of a grid, and a picture of them: (d, h, w) both."""
    labels = np.zeros(shape, np.int32)
    cells = [max(1, int(n * step / APART)) for n, step in zip(shape, SPACING, strict=True)]
    for label, cell in enumerate(np.ndindex(*cells), 1):
        sides = [n * step / k for n, step, k in zip(shape, SPACING, cells, strict=True)]
        middle = (np.array(cell) + 0.5) * sides + random.uniform(-2, 2, 3)
        radius = RADIUS * random.uniform(0.8, 1.2)
        box = tuple(
            slice(max(0, int((m - radius) / step)), min(n, math.ceil((m + radius) / step) + 1))
            for m, step, n in zip(middle, SPACING, shape, strict=True)
        )
        place = np.stack(np.meshgrid(*(np.arange(b.start, b.stop) for b in box), indexing="ij"), -1) * SPACING
        labels[box][((place - middle) ** 2).sum(-1) < radius**2] = label
    picture = 300 + 1500 * (labels > 0) + random.normal(0, 60, shape)
    return labels, picture.clip(0, 65535).astype(np.uint16)


def cost(shape, **how):
    """Multiply-adds of a pixel or voxel in ERFNet with two decoders, one of whose maps is the seed."""
    network = ERFNet(1, [2 * len(shape), 1], **how).eval()
    with torch.device("meta"), torch.no_grad(), FlopCounterMode(display=False) as counter:
        network.to("meta")(torch.empty(1, 1, *shape))
    return counter.get_total_flops() / 2 / math.prod(shape)


def segmented(dtype):
    """Objects, seconds and peak bytes of the volume."""
    segmenter = attractor.load(MODEL, device="cpu", dtype=dtype)
    labels, picture = nuclei(SHAPE, np.random.default_rng(0))
    segmenter.segment(picture[:16, :64, :64], spacing=SPACING)
    if tells_memory():
        forget_peak()
    start = time.perf_counter()
    found = segmenter.segment(picture, spacing=SPACING)
    return {
        "dtype": segmenter.dtype,
        "nuclei": int(labels.max()),
        "found": len(found),
        "seconds": time.perf_counter() - start,
        "bytes": memory_of_this_process("VmHWM") if tells_memory() else None,
    }


def trained():
    """Seconds of a step of training, and peak bytes."""
    description = read_description(find_model(MODEL))
    training = description.recipe["training"]
    b, side = training["batch_size"], training["crop_size"]
    shape = training["crop_depth"], side, side
    random = np.random.default_rng(0)
    drawn = [nuclei(shape, random) for _ in range(b)]
    labels = torch.from_numpy(np.stack([labels for labels, _ in drawn]))
    images = torch.from_numpy(np.stack([(picture / 2000).astype(np.float32) for _, picture in drawn]))[:, None]
    classes, valid = torch.ones(b, int(labels.max()), dtype=torch.int32), torch.ones_like(labels, dtype=torch.bool)
    truth, how = Truth(labels, classes, valid), {"spacing": SPACING}
    method = SpatialEmbeddings(lambda n: ERFNet(1, n, **how, **description.network_options), **how).train()
    optimiser = torch.optim.Adam(method.parameters(), lr=5e-4)

    def step():
        with torch.autocast("cpu", torch.bfloat16):
            maps = method(images)
        terms = method.loss(maps, truth)
        optimiser.zero_grad()
        sum(method.weights[name] * value for name, value in terms.items()).backward()
        optimiser.step()

    seconds = median_seconds(step, REPEATS)
    crops = f"{b} x {'x'.join(map(str, shape))}"
    return {"crops": crops, "seconds": seconds, "bytes": memory_of_this_process("VmHWM") if tells_memory() else None}


def gigabytes(n_bytes):
    """In words; empty if it is not known."""
    return "" if n_bytes is None else f"{n_bytes / 1e9:.2f} GB"


def main():
    """Print the tables."""
    file = options(__doc__.splitlines()[0]).json
    print_machine()
    pixel, voxel = cost((512, 512)), cost(SHAPE, spacing=SPACING)
    row = {"a pixel": f"{pixel / 1e3:.1f}", "a voxel": f"{voxel / 1e3:.1f}", "ratio": f"{voxel / pixel:.2f}"}
    print_table("Thousand multiply-adds of the network", [row | {"asked": ASKED_COST}])
    runs = {dtype: in_a_fresh_process(segmented, dtype) for dtype in ("float32", "auto")}
    rows = [
        {
            "network": run["dtype"],
            "nuclei": run["nuclei"],
            "found": run["found"],
            "time": milliseconds(run["seconds"]),
            "us a voxel": f"{run['seconds'] / math.prod(SHAPE) * 1e6:.2f}",
            "memory": gigabytes(run["bytes"]),
            "asked": ASKED_TIME,
        }
        for run in runs.values()
    ]
    shape = "x".join(map(str, SHAPE))
    print_table(f"A volume of {shape}, from pixels to objects", rows)
    step = in_a_fresh_process(trained)
    row = {"crops": step["crops"], "time": milliseconds(step["seconds"]), "memory": gigabytes(step["bytes"])}
    print_table("A step of training in bfloat16", [row | {"asked": ASKED_MEMORY}])
    plain, ours = (runs[dtype]["seconds"] for dtype in ("float32", "auto"))
    headlines = [Headline(f"volume of {shape}, against float32", plain, ours, ASKED_TIME)]
    return keep(file, {"cost": {"pixel": pixel, "voxel": voxel}, "segmented": runs, "trained": step}, headlines)


if __name__ == "__main__":
    main()
