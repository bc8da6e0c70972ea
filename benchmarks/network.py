"""The network's forward pass at 1024 x 2048: as it is trained, in float32 without any change, against every engine.

`python -m benchmarks.network [--compiled] [--json FILE]`. The weights are those of the model `nuclei`; the maps of
every engine must be close to those of the plain network. The floor is the number of operations over the measured peak
of a matrix product of that type; torch has none in eight bits. On a machine with CUDA, the device is measured, too.
"""

from __future__ import annotations

import importlib.util

import torch
from torch.utils.flop_counter import FlopCounterMode

from attractor.model import Model
from attractor.prediction.engines import engine_of
from benchmarks.harness import Headline, keep, median_seconds, milliseconds, options, peak, print_machine, print_table

HEIGHT, WIDTH = 1024, 2048
TYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
TOLERANCES = {"float32": 1e-4, "bfloat16": 0.1, "int8": 0.3}  # of the largest number, in an image of nothing but noise
REPEATS = 5
ASKED = {"bfloat16": "4.5x with AMX", "int8": "10x"}


def measured(network, images, name, dtype, device, ranges=None):
    """Seconds of an engine, whose maps must be close to the plain network's."""
    engine = engine_of(network, name=name, dtype=dtype, device=device, ranges=ranges)
    expected = network(images)
    difference = float((engine(images) - expected).abs().max() / expected.abs().max())
    assert difference < TOLERANCES[dtype], f"{name} in {dtype} is off by {difference:.1e} of the largest number"
    return {"seconds": median_seconds(lambda: _done(engine(images)), REPEATS), "largest difference": difference}


def _done(maps):
    """Wait for the device."""
    if maps.is_cuda:
        torch.cuda.synchronize()


@torch.inference_mode()
def main():
    """Print the table."""
    given = options(__doc__.splitlines()[0], ("--compiled", {"action": "store_true", "help": "torch's compiler, too"}))
    print_machine()
    model = Model.load("nuclei")
    network = model.method.network.eval()
    images = torch.rand(1, 3, HEIGHT, WIDTH)
    with FlopCounterMode(display=False) as counter:
        network(images)
    operations = counter.get_total_flops()
    plain = median_seconds(lambda: network(images), REPEATS)
    engines = ["torch", *(["openvino"] if importlib.util.find_spec("openvino") else [])]
    engines += ["compiled"] if given.compiled else []
    results = {
        f"{name} {dtype}": measured(network, images, name, dtype, torch.device("cpu"))
        | {"floor": operations / peak(TYPES[dtype])}
        for name in engines
        for dtype in TYPES
    }
    if "openvino" in engines:
        ranges = model.description.ranges
        eight = measured(network, images, "openvino", "int8", torch.device("cpu"), ranges)
        results["openvino int8"] = eight | {"floor": None}
    if torch.cuda.is_available():
        device = torch.device("cuda")
        network, images = network.to(device), images.to(device)
        for name in ("torch", "compiled"):
            results[f"cuda {name} bfloat16"] = measured(network, images, name, "bfloat16", device) | {"floor": None}
    rows = [
        {"network": "plain", "time": milliseconds(plain), "ratio": "1.0x", "floor": "", "time/floor": "", "off": ""}
    ]
    for name, result in results.items():
        floor = result["floor"]
        rows.append(
            {
                "network": name,
                "time": milliseconds(result["seconds"]),
                "ratio": f"{plain / result['seconds']:.1f}x",
                "floor": "" if floor is None else milliseconds(floor),
                "time/floor": "" if floor is None else f"{result['seconds'] / floor:.1f}",
                "off": f"{result['largest difference']:.0e}",
            }
        )
    print_table(f"ERFNet with two decoders, {HEIGHT}x{WIDTH}, {operations / 1e9:.0f} billion operations", rows)
    headlines = [
        Headline(f"network, {HEIGHT}x{WIDTH}, {name}", plain, r["seconds"], ASKED.get(name.split()[-1], ""), r["floor"])
        for name, r in results.items()
    ]
    keep(given.json, {"plain": plain, "operations": operations, "engines": results}, headlines)


if __name__ == "__main__":
    main()
