"""What every benchmark shares: maps of discs, the machine in words, times of repeated runs, a table."""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numba
import numpy as np
import torch


@dataclass(frozen=True)
class Discs:
    """Equal discs that do not touch; lengths are pixels, and two channels are (x, y)."""

    labels: np.ndarray  # (h, w) int32
    coordinates: np.ndarray  # (2, h, w)
    to_centre: np.ndarray  # (2, h, w), from each pixel to the centre of its disc; 0 outside
    radius: float


def scattered_discs(height: int, width: int, n: int, coverage: float, random: np.random.Generator) -> Discs:
    """Discs that cover a share of the image together, each somewhere in its own cell of a grid."""
    columns = math.ceil(math.sqrt(n * width / height))
    rows = math.ceil(n / columns)
    radius = math.sqrt(coverage * height * width / n / math.pi)
    sides = np.array([width / columns, height / rows])[:, None, None]
    middles = (np.stack(np.mgrid[:rows, :columns][::-1]) + 0.5) * sides
    slack = np.maximum(sides / 2 - radius, 0)
    centres = middles + random.uniform(-1, 1, middles.shape) * slack
    numbers = (random.permutation(rows * columns) + 1).reshape(rows, columns)

    y, x = np.mgrid[:height, :width]
    cell = y * rows // height, x * columns // width
    coordinates = np.stack([x, y])
    to_centre = centres[:, *cell] - coordinates
    inside = (numbers[cell] <= n) & (np.hypot(*to_centre) < radius)
    labels = np.where(inside, numbers[cell], 0).astype(np.int32)
    return Discs(labels, coordinates, np.where(inside, to_centre, 0), radius)


def options(description: str) -> argparse.Namespace:
    """Options of the command line, the same for every benchmark."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", metavar="FILE", type=Path, help="keep the numbers in this file")
    return parser.parse_args()


def machine() -> dict[str, str | int]:
    """The processor, the versions that matter, and how many threads torch uses."""
    processor = platform.processor() or platform.machine()
    information = Path("/proc/cpuinfo")
    if information.exists():
        names = [line.split(":", 1)[1].strip() for line in information.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numba": numba.__version__,
        "numpy": np.__version__,
    }


def median_seconds(function: Callable[[], object], repeats: int, warm_up: bool = True) -> float:
    """Median time of a call, after one that does not count."""
    if warm_up:
        function()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def print_machine() -> None:
    """Print one line on the machine."""
    print(", ".join(f"{name} {value}" for name, value in machine().items()))


def print_table(title: str, rows: Sequence[Mapping[str, object]]) -> None:
    """Print rows under their names, right-aligned, with an empty line before."""
    cells = [list(rows[0]), *([str(value) for value in row.values()] for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    print(f"\n{title}")
    for row in cells:
        print("  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)))


def milliseconds(seconds: float) -> str:
    """A time in words; milliseconds below a second."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.2f} s"


def keep(path: Path | None, numbers: object) -> None:
    """Write machine and numbers as JSON, if there is a file to write to."""
    if path is not None:
        path.write_text(json.dumps({"machine": machine(), "results": numbers}, indent=2) + "\n")
