"""What every benchmark shares: pictures and maps of discs, the machine in words, its limits, times, memory, a table."""

from __future__ import annotations

import argparse
import json
import math
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

import numba
import numpy as np
import torch

from attractor.freed_memory import keep_freed_memory


@dataclass(frozen=True)
class Discs:
    """Equal discs that do not touch; lengths are pixels, and two channels are (row, column)."""

    labels: np.ndarray  # (h, w) int32
    coordinates: np.ndarray  # (2, h, w)
    to_centre: np.ndarray  # (2, h, w), from each pixel to the centre of its disc; 0 outside
    radius: float


def scattered_discs(height: int, width: int, n: int, coverage: float, random: np.random.Generator) -> Discs:
    """Discs that together cover a share of the image, each somewhere in its own cell of a grid."""
    columns = math.ceil(math.sqrt(n * width / height))
    rows = math.ceil(n / columns)
    radius = math.sqrt(coverage * height * width / n / math.pi)
    sides = np.array([height / rows, width / columns])[:, None, None]
    middles = (np.mgrid[:rows, :columns] + 0.5) * sides
    slack = np.maximum(sides / 2 - radius, 0)
    centres = middles + random.uniform(-1, 1, middles.shape) * slack
    numbers = (random.permutation(rows * columns) + 1).reshape(rows, columns)

    y, x = np.mgrid[:height, :width]
    cell = y * rows // height, x * columns // width
    coordinates = np.stack([y, x])
    to_centre = centres[:, *cell] - coordinates
    inside = (numbers[cell] <= n) & (np.hypot(*to_centre) < radius)
    labels = np.where(inside, numbers[cell], 0).astype(np.int32)
    return Discs(labels, coordinates, np.where(inside, to_centre, 0), radius)


def picture_of_cells(height: int, width: int, n: int, random: np.random.Generator) -> np.ndarray:
    """A grey (h, w) uint8 picture of n bright discs on a dark ground, radius 9 to 13, each in its cell of a grid."""
    picture = random.integers(10, 24, (height, width), dtype=np.uint8)
    columns = max(1, round(math.sqrt(n * width / height)))
    rows = math.ceil(n / columns)
    y, x = np.mgrid[-13:14, -13:14]
    for k in range(n):
        row, column = ((np.array(divmod(k, columns)) + 0.5) * (height / rows, width / columns)).astype(int)
        row, column = (np.array([row, column]) + random.integers(-4, 5, 2)).clip(13, (height - 14, width - 14))
        picture[row - 13 : row + 14, column - 13 : column + 14][np.hypot(y, x) < random.uniform(9, 13)] += 130
    return picture


def options(description: str, *more: tuple[str, dict[str, object]]) -> argparse.Namespace:
    """Options of the command line: `--json`, the same for every benchmark, and more of its own.

    From here on, like the commands, a benchmark keeps the memory that it frees, and so do the processes it starts.
    """
    keep_freed_memory()
    parser = argparse.ArgumentParser(description=description)
    for name, how in more:
        parser.add_argument(name, **how)
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


# --- the limits of the machine ----------------------------------------------------------------------------------------


@cache
def bandwidth() -> float:
    """Bytes that one thread reads from memory in a second."""
    values = np.ones(1 << 26, np.float32)
    return values.nbytes / median_seconds(values.sum, 5)


@cache
def peak(dtype: torch.dtype) -> float:
    """Operations a second of a large matrix product on all threads, additions and multiplications counted."""
    n = 2048
    a, b = (torch.ones(n, n, dtype=dtype) for _ in range(2))
    return 2 * n**3 / median_seconds(lambda: a @ b, 5)


def in_a_fresh_process(function: Callable[..., object], *arguments: object) -> object:
    """The result of a function in a process that has done nothing else."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def memory_of_this_process(name: str) -> int:
    """Bytes, as Linux reports them: VmRSS now, VmHWM at the peak."""
    (line,) = (x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(name))
    return int(line.split()[1]) * 1024


def forget_peak() -> None:
    """Measure the peak anew from here (Linux only)."""
    Path("/proc/self/clear_refs").write_text("5")


def tells_memory() -> bool:
    """Whether this system says how much memory a process took."""
    return Path("/proc/self/clear_refs").exists()


# --- results ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Headline:
    """One line of the table of all benchmarks; times are seconds."""

    what: str
    plain: float
    fast: float
    asked: str  # what the ratio or the time must be
    floor: float | None = None


def headline_table(headlines: Sequence[Headline]) -> list[dict[str, object]]:
    """Rows to print."""
    return [
        {
            "what": line.what,
            "plain": milliseconds(line.plain),
            "fast": milliseconds(line.fast),
            "ratio": f"{line.plain / line.fast:.3g}x",
            "floor": "" if line.floor is None else milliseconds(line.floor),
            "asked": line.asked,
        }
        for line in headlines
    ]


def keep(path: Path | None, numbers: object, headlines: Sequence[Headline] = ()) -> None:
    """Write machine and numbers as JSON, if there is a file to write to."""
    if path is not None:
        content = {"machine": machine(), "results": numbers, "headlines": [asdict(line) for line in headlines]}
        path.write_text(json.dumps(content, indent=2) + "\n")
