"""Network and grouping of every method on one picture of 512 x 512 with 60 cells, by the models in the package.

`python -m benchmarks.methods [--json FILE]`. Plain is the network as it is trained, in float32; fast is the network as
`attractor segment` computes it here. Grouping is timed as it is; its floor is the time of reading its maps once. Where
grouping also has a plain form, `benchmarks.grouping` and `benchmarks.mean_shift` compare the two.
"""

from __future__ import annotations

import numpy as np
import torch

import attractor
from benchmarks.harness import (
    Headline,
    keep,
    median_seconds,
    milliseconds,
    options,
    picture_of_cells,
    print_machine,
    print_table,
)

SIZE, N_CELLS = 512, 60
MODELS = ("nuclei", "nuclei-discriminative", "nuclei-recurrent", "nuclei-rsis")
REPEATS = 5


def measured(name, picture):
    """Seconds of network and grouping."""
    segmenter = attractor.load(name)
    method, images = segmenter.model.method, segmenter.prepared(picture)
    with torch.inference_mode():
        plain = median_seconds(lambda: method(images), REPEATS)
    maps = segmenter.maps(images)
    return {
        "found": len(method.group(maps)[0]),
        "plain network": plain,
        "fast network": median_seconds(lambda: segmenter.maps(images), REPEATS),
        "grouping": median_seconds(lambda: method.group(maps), REPEATS),
        "floor": median_seconds(lambda: [x.sum() for x in vars(maps).values()], REPEATS),
        "dtype": segmenter.dtype,
    }


def main():
    """Print the table."""
    file = options(__doc__.splitlines()[0]).json
    print_machine()
    picture = picture_of_cells(SIZE, SIZE, N_CELLS, np.random.default_rng(0))
    results = {name: measured(name, picture) for name in MODELS}
    rows = [
        {
            "model": name,
            "found": r["found"],
            "network": milliseconds(r["plain network"]),
            f"in {r['dtype']}": milliseconds(r["fast network"]),
            "ratio": f"{r['plain network'] / r['fast network']:.1f}x",
            "grouping": milliseconds(r["grouping"]),
            "floor": milliseconds(r["floor"]),
            "grouping/floor": f"{r['grouping'] / r['floor']:.0f}",
        }
        for name, r in results.items()
    ]
    print_table(f"{SIZE}x{SIZE}, {N_CELLS} cells", rows)
    headlines = [
        Headline(f"network of {name}, {SIZE}x{SIZE}", r["plain network"], r["fast network"], "")
        for name, r in results.items()
    ]
    keep(file, results, headlines)


if __name__ == "__main__":
    main()
