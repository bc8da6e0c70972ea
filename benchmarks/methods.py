"""Network and grouping of every method on one picture of 512 x 512 with 60 cells, by the models in the package.

`python -m benchmarks.methods [--json FILE]`. Plain is the network as it is trained, in float32; fast is the network as
`attractor segment` computes it here. Grouping is timed as it is, and with the plain form of mean shift, where that has
one, after both were found to give the same labels; its floor is the time of reading its maps once. More forms are
compared by `benchmarks.grouping` and `benchmarks.mean_shift`.
"""

from __future__ import annotations

import statistics
import time
from unittest.mock import patch

import numpy as np
import torch

import attractor
from attractor.methods import discriminative_loss, recurrent_pixel_embedding
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
# method's module and the name of its fast mean shift, in whose place its `group_plain` can stand
MEAN_SHIFTS = {
    "nuclei-discriminative": (discriminative_loss, "mean_shift"),
    "nuclei-recurrent": (recurrent_pixel_embedding, "meeting_directions"),
}


def group_plainly(name, maps, method):
    """Objects of the first image, grouped by the plain mean shift of the method."""
    module, fast = MEAN_SHIFTS[name]

    def plain(*arrays, **options):
        return module.group_plain(*(torch.from_numpy(np.ascontiguousarray(x)) for x in arrays), **options).numpy()

    with patch.object(module, fast, plain):
        return method.group(maps)[0]


def in_turns(*functions):
    """Median seconds of each function, called one after the other, after a first round that does not count."""
    times = []
    for _ in range(REPEATS + 1):
        times.append([])
        for function in functions:
            start = time.perf_counter()
            function()
            times[-1].append(time.perf_counter() - start)
    return [statistics.median(column) for column in zip(*times[1:], strict=True)]


def grouped(name, method, maps):
    """Seconds of grouping, and of its plain form, if there is one."""
    if name not in MEAN_SHIFTS:
        return {"grouping": in_turns(lambda: method.group(maps))[0]}
    assert np.array_equal(method.group(maps)[0].labels, group_plainly(name, maps, method).labels), "labels differ"
    fast, plain = in_turns(lambda: method.group(maps), lambda: group_plainly(name, maps, method))
    return {"grouping": fast, "plain grouping": plain}


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
        **grouped(name, method, maps),
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
            "plain grouping": milliseconds(r["plain grouping"]) if "plain grouping" in r else "",
            "grouping": milliseconds(r["grouping"]),
            "ratio of grouping": f"{r['plain grouping'] / r['grouping']:.1f}x" if "plain grouping" in r else "",
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
    headlines += [
        Headline(f"grouping of {name}, {SIZE}x{SIZE}", r["plain grouping"], r["grouping"], "", r["floor"])
        for name, r in results.items()
        if "plain grouping" in r
    ]
    keep(file, results, headlines)


if __name__ == "__main__":
    main()
