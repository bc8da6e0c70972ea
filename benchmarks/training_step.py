"""A step of training: 8 crops of 256 x 256 with 20 objects each, spatial embeddings on ERFNet.

`python -m benchmarks.training_step [--json FILE]`. Forward, loss, backward and the optimiser's step. Plain has the loss
of the paper, object by object; fast is what `attractor train` runs; the floor is the same step with the sum of the maps
as its loss. With CUDA, the device is measured, too.
"""

from __future__ import annotations

import numpy as np
import torch

from attractor.methods.spatial_embeddings import SpatialEmbeddings
from attractor.networks import ERFNet
from attractor.truth import Truth
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
from benchmarks.loss import PlainSpatialEmbeddings

SIZE, BATCH, N_OBJECTS = 256, 8, 20
COVERAGE = 0.28
REPEATS = 5


def batch(device):
    """Images and truth."""
    random = np.random.default_rng(0)
    labels = np.stack([scattered_discs(SIZE, SIZE, N_OBJECTS, COVERAGE, random).labels for _ in range(BATCH)])
    images = (labels > 0) + random.normal(0, 0.1, labels.shape)
    truth = Truth(
        torch.from_numpy(labels).to(device),
        torch.ones(BATCH, N_OBJECTS, dtype=torch.int32, device=device),
        torch.ones(labels.shape, dtype=torch.bool, device=device),
    )
    return torch.tensor(images[:, None], dtype=torch.float32, device=device), truth


def step_of(form, device):
    """A function that makes one step."""
    torch.manual_seed(0)
    kind = PlainSpatialEmbeddings if form == "plain" else SpatialEmbeddings
    method = kind(lambda channels_out: ERFNet(1, channels_out)).to(device).train()
    optimiser = torch.optim.Adam(method.parameters(), lr=5e-4)
    images, truth = batch(device)

    def step():
        maps = method(images)
        if form == "floor":
            total = sum(x.sum() for x in vars(maps).values())
        else:
            terms = method.loss(maps, truth)
            total = sum(method.weights[name] * value for name, value in terms.items())
        optimiser.zero_grad()
        total.backward()
        optimiser.step()
        return total.item()  # which waits for the device

    return step


def main():
    """Print the table."""
    file = options(__doc__.splitlines()[0]).json
    print_machine()
    devices = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]
    times = {
        device: {form: median_seconds(step_of(form, device), REPEATS) for form in ("plain", "fast", "floor")}
        for device in devices
    }
    rows = [
        {
            "device": device,
            **{form: milliseconds(seconds) for form, seconds in of_device.items()},
            "ratio": f"{of_device['plain'] / of_device['fast']:.1f}x",
            "fast/floor": f"{of_device['fast'] / of_device['floor']:.2f}",
            "steps a second": f"{1 / of_device['fast']:.2f}",
        }
        for device, of_device in times.items()
    ]
    print_table(f"{BATCH} crops of {SIZE}x{SIZE}, {N_OBJECTS} objects each", rows)
    headlines = [
        Headline(f"training step on {device}, {BATCH} crops of {SIZE}x{SIZE}", t["plain"], t["fast"], "", t["floor"])
        for device, t in times.items()
    ]
    keep(file, times, headlines)


if __name__ == "__main__":
    main()
