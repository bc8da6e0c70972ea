"""SEG of label images on a film of the Cell Tracking Challenge.

    attractor segment FILM/01 --model nuclei --object-size 55 --out found --format labels
    python -m benchmarks.films found FILM/01_GT/SEG [--json FILE]

SEG is the mean over true objects of the IoU with the found object that covers more than half of it, and 0 where none
does. Truth is `man_segT.tif`, and `tT_labels.tif` was found in frame T; only annotated frames count.
"""

from __future__ import annotations

import re
from pathlib import Path

from attractor.errors import InputError
from attractor.images import read_labels
from attractor.metrics import segmentation_accuracy
from benchmarks.harness import keep, options, print_table


def seg(folder, truth):
    """SEG over all annotated frames.

    Raises:
        InputError: if there is no annotated frame, or one was not segmented.
    """
    frames = {re.sub(r"\D", "", file.stem): file for file in sorted(Path(truth).glob("man_seg*.tif"))}
    if not frames:
        raise InputError(f"{truth}: holds no man_seg*.tif; give the SEG folder of a film's truth.")
    true, found = [], []
    for number, file in frames.items():
        labels = Path(folder) / f"t{number}_labels.tif"
        if not labels.exists():
            raise InputError(f"{labels}: is not there; segment the film with --format labels and --out {folder}.")
        true.append(read_labels(file))
        found.append(read_labels(labels))
    return segmentation_accuracy(true, found)


def main():
    """Print SEG."""
    given = options(
        __doc__.splitlines()[0],
        ("found", {"type": Path, "help": "folder of t*_labels.tif"}),
        ("truth", {"type": Path, "help": "folder of man_seg*.tif"}),
    )
    found = seg(given.found, given.truth)
    row = {"objects": found.n_truth, "found": found.n_found, "SEG": f"{found.seg.value:.3f}"}
    print_table("Cell Tracking Challenge", [row])
    keep(given.json, row | {"SEG": found.seg.value})


if __name__ == "__main__":
    main()
