"""SEG of label images on a film of the Cell Tracking Challenge.

    attractor segment FILM/01 --model nuclei --object-size 55 --out found --format labels
    python -m benchmarks.films found FILM/01_GT/SEG [--json FILE]

SEG is the mean over true objects of the IoU with the found object that covers more than half of it, and 0 where none
does. Truth is `man_segT.tif`, and `tT_labels.tif` was found in frame T; only annotated frames count.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np

from attractor.errors import InputError
from attractor.images import read_labels
from attractor.instances import overlap
from benchmarks.harness import keep, options, print_table


def seg_of(truth, found):
    """The IoU of each true object with the found one that covers more than half of it; 0 where none does.

    `truth` and `found` are (h, w) label images; 0 is background.
    """
    shared = overlap(truth, found)
    area, size = shared.sum(1)[1:], shared.sum(0)[1:]
    most = shared[1:, 1:].max(1, initial=0)
    match = shared[1:, 1:].argmax(1) if len(size) else np.zeros(len(area), int)
    union = area + np.append(size, 0)[match] - most
    return np.where(2 * most > area, most / np.maximum(union, 1), 0.0)[area > 0]


def seg(folder, truth):
    """The IoU of every true object of all annotated frames.

    Raises:
        InputError: if there is no annotated frame, or one was not segmented.
    """
    frames = {re.sub(r"\D", "", file.stem): file for file in sorted(Path(truth).glob("man_seg*.tif"))}
    if not frames:
        raise InputError(f"{truth}: holds no man_seg*.tif; give the SEG folder of a film's truth.")
    values = []
    for number, file in frames.items():
        found = Path(folder) / f"t{number}_labels.tif"
        if not found.exists():
            raise InputError(f"{found}: is not there; segment the film with --format labels and --out {folder}.")
        values.append(seg_of(read_labels(file), read_labels(found)))
    return np.concatenate(values)


def main():
    """Print SEG."""
    given = options(
        __doc__.splitlines()[0],
        ("found", {"type": Path, "help": "folder of t*_labels.tif"}),
        ("truth", {"type": Path, "help": "folder of man_seg*.tif"}),
    )
    values = seg(given.found, given.truth)
    row = {"objects": len(values), "found": int((values > 0).sum()), "SEG": f"{values.mean():.3f}"}
    print_table("Cell Tracking Challenge", [row])
    keep(given.json, {"SEG": values.mean(), **row})


if __name__ == "__main__":
    main()
