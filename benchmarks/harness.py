"""What every benchmark shares: the machine in words, times of repeated runs, a table, and the numbers kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numba
import numpy as np
import torch


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
