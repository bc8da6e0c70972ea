"""Large images in tiles: time, memory and agreement with the whole image, as images grow, by the model `nuclei`.

`python -m benchmarks.large_images [--largest SIDE] [--json FILE]`. Each size runs in a fresh process, whose peak memory
includes all that was loaded (Linux only). Pictures have 20 cells in each 100,000 pixels. Plain is the whole image at
once; agreement is the share of pixels that both give to the same object, or to none.
"""

from __future__ import annotations

import time

import numpy as np

import attractor
from attractor.instances import overlap
from benchmarks.harness import (
    Headline,
    forget_peak,
    in_a_fresh_process,
    keep,
    memory_of_this_process,
    milliseconds,
    options,
    picture_of_cells,
    print_machine,
    print_table,
    tells_memory,
)

SIDES = (256, 512, 1024, 2048, 4096, 8192)
LARGEST = 10_000
TILE = 1024
CELLS = 2e-4  # a pixel
WHOLE_UP_TO = 4096


def measured(side, tile):
    """Seconds and peak bytes of one square image."""
    picture = picture_of_cells(side, side, round(CELLS * side**2), np.random.default_rng(0))
    segmenter = attractor.load("nuclei", device="cpu")
    segmenter.segment(picture[:256, :256])
    if tells_memory():
        forget_peak()
    start = time.perf_counter()
    found = segmenter.segment(picture, tile=tile)
    seconds = time.perf_counter() - start
    return {
        "side": side,
        "cells": round(CELLS * side**2),
        "found": len(found),
        "seconds": seconds,
        "bytes": memory_of_this_process("VmHWM") if tells_memory() else None,
        "dtype": segmenter.dtype,
    }


def agreement(side):
    """Share of pixels on which whole image and tiles agree, and the objects of both."""
    picture = picture_of_cells(side, side, round(CELLS * side**2), np.random.default_rng(0))
    segmenter = attractor.load("nuclei", device="cpu")
    whole, tiled = segmenter.segment(picture), segmenter.segment(picture, tile=TILE)
    table = overlap(whole.labels, tiled.labels)
    partner = np.concatenate([[0], table[1:, 1:].argmax(1) + 1])
    return float((partner[whole.labels] == tiled.labels).mean()), len(whole), len(tiled)


def row_of(result, side):
    """One line of the table."""
    return {
        "size": f"{side}x{side}",
        "cells": result["cells"],
        "found": result["found"],
        "time": milliseconds(result["seconds"]),
        "us a pixel": f"{result['seconds'] / side**2 * 1e6:.3f}",
        "memory": "" if result["bytes"] is None else f"{result['bytes'] / 1e9:.2f} GB",
    }


def main():
    """Print the tables."""
    given = options(
        __doc__.splitlines()[0],
        ("--largest", {"type": int, "default": LARGEST, "help": f"side of the largest image ({LARGEST})"}),
    )
    print_machine()
    sides = [side for side in SIDES if side < given.largest] + [given.largest]
    tiled = {side: in_a_fresh_process(measured, side, TILE) for side in sides}
    whole = {side: in_a_fresh_process(measured, side, None) for side in sides if TILE < side <= WHOLE_UP_TO}
    print_table(f"In tiles of {TILE}, {tiled[sides[0]]['dtype']}", [row_of(r, side) for side, r in tiled.items()])
    if not whole:  # all fit into one tile
        return keep(given.json, {"tiled": tiled}, [])
    print_table("Whole", [row_of(r, side) for side, r in whole.items()])
    side = max(whole)
    share, n_whole, n_tiled = agreement(side)
    print(f"\n{side}x{side}, whole and in tiles: {share:.3%} of pixels agree, {n_whole} and {n_tiled} objects.")
    what = f"{side}x{side} in tiles, against the whole"
    headlines = [Headline(what, whole[side]["seconds"], tiled[side]["seconds"], "")]
    return keep(given.json, {"tiled": tiled, "whole": whole, "agreement": share}, headlines)


if __name__ == "__main__":
    main()
