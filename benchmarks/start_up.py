"""How long the command line takes from the start of the process to its end.

`python -m benchmarks.start_up [--json FILE]`. Plain is a process that imports torch and does nothing else.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from attractor.images import write_image
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

REPEATS = 5


def call(*arguments):
    """Run Python to its end."""
    subprocess.run([sys.executable, *map(str, arguments)], check=True, capture_output=True)


def main():
    """Print the table."""
    file = options(__doc__.splitlines()[0]).json
    print_machine()
    with tempfile.TemporaryDirectory() as scratch:
        image = Path(scratch) / "cells.png"
        write_image(image, picture_of_cells(256, 256, 30, np.random.default_rng(0))[..., None])
        calls = {
            "python": ("-c", "pass"),
            "import attractor": ("-c", "import attractor"),
            "import torch": ("-c", "import torch"),
            "attractor --help": ("-m", "attractor", "--help"),
            "attractor segment, one image of 256x256": ("-m", "attractor", "segment", image, "--out", scratch),
        }
        times = {what: median_seconds(lambda c=command: call(*c), REPEATS) for what, command in calls.items()}
    print_table("Whole processes", [{"call": what, "time": milliseconds(s)} for what, s in times.items()])
    *_, segment = calls
    keep(file, times, [Headline(f"{segment}, against import torch", times["import torch"], times[segment], "3 s")])


if __name__ == "__main__":
    main()
