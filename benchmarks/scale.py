"""An image larger than memory, block by block: time, memory, disk and seams, on a slide of drawn cells.

    python -m benchmarks.scale [--side 16384] [--workers 2] [--seams 4096] [--speedup 0] [--kills 0] [--json FILE]

The slide is drawn block by block, so its side is only limited by the disk: an ellipse in every 70 x 70 pixels. Because
each cell can be drawn again, the labels are compared with the truth in windows spread over the slide. `attractor
segment` runs as a user would call it, in processes of its own, which are watched from outside (Linux only).
"""

from __future__ import annotations

import heapq
import multiprocessing
import os
import shutil
import signal
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import numpy as np
import psutil
import torch
import zarr

from attractor.description import find_model
from attractor.instances import Instances
from attractor.metrics.average_precision import score_image, summarise
from attractor.metrics.metric import Pair
from attractor.prediction.blocks import Grid, Ledger
from attractor.prediction.schedulers import find_objects
from attractor.prediction.slide import Task, begun, do, planned
from benchmarks.harness import Headline, keep, options, print_machine, print_table

SPACING = 70  # pixels from cell to cell, more or less
REACH = 20  # pixels around a middle that a cell can have
SHARD, CHUNK = 2048, 512
LEVELS = 4
WINDOW, WINDOWS = 1024, 16  # side and number of the parts that are compared with the truth
EVERY = 0.5  # seconds between two looks at memory and disk
MODEL = "nuclei"
ASKED = {16384: "3 GB a worker", 50000: "3 h; 3 GB a worker; 1 byte a pixel"}


def cells_of(side, rows, columns):
    """Middle, radii along rows and columns, and brightness of each cell that can reach into some rows and columns."""
    n = side // SPACING
    found = []
    for i in range(max(0, (rows.start - REACH) // SPACING - 1), min(n, (rows.stop + REACH) // SPACING + 2)):
        random = np.random.default_rng([7, i])
        drawn = random.uniform(-1, 1, (n, 5))
        j = np.arange(max(0, (columns.start - REACH) // SPACING - 1), min(n, (columns.stop + REACH) // SPACING + 2))
        along = drawn[j]
        middle = (np.stack([np.full(len(j), i), j], 1) + 0.5) * SPACING + along[:, :2] * (SPACING / 2 - REACH + 4)
        radius, stretch = 10 + 3 * along[:, 2], 1 + 0.2 * along[:, 3]
        found.append(np.column_stack([middle, radius * stretch, radius / stretch, 140 + 50 * along[:, 4]]))
    return np.concatenate(found) if found else np.zeros((0, 5))


def drawn(side, rows, columns):
    """Grey picture and true labels of a part of the slide."""
    picture = np.random.default_rng([8, rows.start, columns.start]).normal(
        20, 4, (rows.stop - rows.start, columns.stop - columns.start)
    )
    labels = np.zeros(picture.shape, np.int32)
    for number, (y, x, along_rows, along_columns, brightness) in enumerate(cells_of(side, rows, columns), 1):
        top, left = max(rows.start, int(y) - REACH), max(columns.start, int(x) - REACH)
        bottom, right = min(rows.stop, int(y) + REACH + 1), min(columns.stop, int(x) + REACH + 1)
        if top >= bottom or left >= right:
            continue
        down, across = np.ogrid[top:bottom, left:right]
        distance = np.hypot((down - y) / along_rows, (across - x) / along_columns)
        here = slice(top - rows.start, bottom - rows.start), slice(left - columns.start, right - columns.start)
        picture[here] += brightness / (1 + np.exp((distance - 1) * 10))
        labels[here][distance < 1] = number
    return picture.clip(0, 255).astype(np.uint8), labels


def spans(side, step=SHARD):
    """Parts of a side."""
    return [slice(start, min(start + step, side)) for start in range(0, side, step)]


def _draw(path, side, place):
    rows, columns = place
    zarr.open_array(f"{path}/0", mode="r+")[rows, columns] = drawn(side, rows, columns)[0]


def _shrink(path, level, place):
    rows, columns = place
    finer = zarr.open_array(f"{path}/{level - 1}", mode="r")
    read = finer[2 * rows.start : 2 * rows.stop : 1, 2 * columns.start : 2 * columns.stop]
    zarr.open_array(f"{path}/{level}", mode="r+")[rows, columns] = read[::2, ::2]


def make_slide(path, side):
    """Draw a slide as OME-Zarr 0.5 with four resolutions."""
    group = zarr.open_group(path, mode="w", zarr_format=3)
    datasets = []
    for level in range(LEVELS):
        own = -(-side // 2**level)
        how = {"chunks": (CHUNK, CHUNK), "shards": (SHARD, SHARD), "dimension_names": ["y", "x"]}
        group.create_array(str(level), shape=(own, own), dtype="uint8", **how)
        scale = {"type": "scale", "scale": [0.5 * 2**level] * 2}
        datasets.append({"path": str(level), "coordinateTransformations": [scale]})
    axes = [{"name": axis, "type": "space", "unit": "micrometer"} for axis in "yx"]
    group.attrs["ome"] = {"version": "0.5", "multiscales": [{"name": "slide", "axes": axes, "datasets": datasets}]}
    with ProcessPoolExecutor(os.cpu_count(), multiprocessing.get_context("spawn")) as pool:
        places = [(rows, columns) for rows in spans(side) for columns in spans(side)]
        list(pool.map(partial(_draw, path, side), places))
        for level in range(1, LEVELS):
            own = -(-side // 2**level)
            places = [(rows, columns) for rows in spans(own) for columns in spans(own)]
            list(pool.map(partial(_shrink, path, level), places))


def bytes_in(folder):
    """Bytes of all files in a folder, those that vanish meanwhile left out."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.stat(os.path.join(parent, name)).st_size
            except FileNotFoundError:
                continue
    return total


def memory_of(process):
    """Bytes of a process that no other one shares, as far as the system tells."""
    try:
        return process.memory_full_info().uss
    except (psutil.Error, OSError):
        return 0


def is_over(process, seconds):
    """Whether a process has ended, after waiting for it for so long at most."""
    try:
        process.wait(seconds)
    except psutil.TimeoutExpired:
        return False
    return True


def segmented(slide, out, *arguments, threads=None, kill_after=None, every=EVERY):
    """Seconds, the most bytes of memory of a process and of disk besides the output; None if it was killed."""
    command = [
        sys.executable,
        "-m",
        "attractor",
        "segment",
        str(slide),
        "--out",
        str(out),
        "--model",
        MODEL,
        *arguments,
    ]
    environment = os.environ | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    start, memory, disk = time.monotonic(), 0, 0
    process = psutil.Popen(command, env=environment, start_new_session=True)
    while not is_over(process, every):
        try:
            memory = max(memory, *map(memory_of, [process, *process.children(recursive=True)]))
        except psutil.Error:
            continue
        disk = max(disk, bytes_in(f"{out}.unfinished"))
        if kill_after is not None and time.monotonic() - start > kill_after:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None
    if process.returncode:
        raise SystemExit(f"attractor segment failed with {process.returncode}")
    return {"seconds": time.monotonic() - start, "memory": memory, "disk": disk}


def warm_up(folder):
    """Segment a small slide: the first call of an installation compiles kernels, which later ones find on the disk."""
    slide = folder / "first.ome.zarr"
    make_slide(slide, WINDOW)
    segmented(slide, folder / "first-out.ome.zarr", "--workers", "2")


def labels_in(out):
    """The label image, which is not read yet."""
    return zarr.open_array(f"{out}/labels/attractor/0", mode="r")


def numbered(labels):
    """The objects of a label image whose numbers may have gaps."""
    rising = np.unique(np.append(labels.ravel(), 0), return_inverse=True)[1][:-1]
    return Instances.from_labels(rising.reshape(labels.shape).astype(np.int32))


def score_in_windows(out, side):
    """AP at IoU .50 and .75 by window, against the truth; objects that reach over a window's edge are cut there."""
    random, scores = np.random.default_rng(0), []
    for _ in range(WINDOWS):
        top, left = random.integers(0, max(1, side - WINDOW), 2).tolist()
        rows, columns = slice(top, min(side, top + WINDOW)), slice(left, min(side, left + WINDOW))
        _, truth = drawn(side, rows, columns)
        found = np.asarray(labels_in(out)[rows, columns]).astype(np.int64)
        scores.append(score_image(Pair("window", numbered(truth), numbered(found))))
    return summarise(scores).by_image.value


def whole_slide(folder, side, workers):
    """A slide from the first block to the last."""
    slide, out = folder / "slide.ome.zarr", folder / "out.ome.zarr"
    start = time.monotonic()
    make_slide(slide, side)
    print(f"drawn in {time.monotonic() - start:.0f} s", flush=True)
    result = segmented(slide, out, "--workers", str(workers))
    found = int(max(zarr.open_array(f"{out}/labels/attractor/0", mode="r")[rows, :].max() for rows in spans(side)))
    ap = score_in_windows(out, side)
    return result | {
        "side": side,
        "workers": workers,
        "cells": (side // SPACING) ** 2,
        "found": found,
        "ap50": float(ap[0]),
        "ap75": float(ap[5]),
        "input": bytes_in(slide),
        "output": bytes_in(out / "labels"),
    }


def same_objects(one, other):
    """Share of the objects of one label image that are pixel for pixel in the other, and of pixels that agree."""
    pairs, counts = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1, return_counts=True)
    both = (pairs > 0).all(0)
    size_one, size_other = np.bincount(one.ravel()), np.bincount(other.ravel())
    equal = both & (counts == size_one[pairs[0]]) & (counts == size_other[pairs[1]])
    n = max(len(np.unique(one)), len(np.unique(other))) - 1
    partner = np.full(len(size_one), -1)
    partner[0] = 0
    partner[pairs[0, both]] = pairs[1, both]
    return float(equal.sum() / n), float((partner[one] == other).mean())


def seams(folder, side):
    """The objects of several sizes of blocks, against the whole image at once."""
    slide = folder / "seams.ome.zarr"
    make_slide(slide, side)
    found, rows = {}, []
    for block in (1024, 2048, -(-side // 1024) * 1024):
        out = folder / f"seams-{block}.ome.zarr"
        segmented(slide, out, "--dtype", "float32", "--tile", "1024", "--block", str(block), "--format", "labels")
        found[block] = np.asarray(labels_in(out)[:, :]).astype(np.int64)
    whole = found[max(found)]
    for block, labels in found.items():
        objects, pixels = same_objects(whole, labels)
        rows.append({"block": block, "objects": int(labels.max()), "the same": objects, "pixels": pixels})
    return rows


def speedup(folder, side):
    """Seconds with one and with two workers, of one thread each."""
    slide = folder / "speedup.ome.zarr"
    make_slide(slide, side)
    seconds = {}
    for workers in (1, 2):
        out = folder / f"workers-{workers}.ome.zarr"
        arguments = "--workers", str(workers), "--format", "labels"
        # looking at memory twice a second takes a tenth of a core, which two workers need
        seconds[workers] = segmented(slide, out, *arguments, threads=1, every=5 * EVERY)["seconds"]
    return seconds


def kills(folder, n):
    """Kill the command and its workers at random moments until it is done; whether the files are those of one call."""
    slide, random = folder / "kills.ome.zarr", np.random.default_rng(0)
    make_slide(slide, 4096)
    expected, out = folder / "undisturbed.ome.zarr", folder / "killed.ome.zarr"
    arguments = "--tile", "512", "--workers", "2"
    seconds = segmented(slide, expected, *arguments)["seconds"]
    n_killed = 0
    while n_killed < n:
        if segmented(slide, out, *arguments, kill_after=random.uniform(4, seconds / 3)) is None:
            n_killed += 1
        else:
            shutil.rmtree(out)
    if not out.exists() or Path(f"{out}.unfinished").exists():
        segmented(slide, out, *arguments)
    files = [
        {str(file.relative_to(root)): file.read_bytes() for file in root.rglob("*") if file.is_file()}
        for root in (expected, out)
    ]
    return {"kills": n_killed, "files": len(files[0]), "equal": files[0] == files[1]}


def seconds_of_steps(folder):
    """Median seconds of each kind of step, by one worker of one thread."""
    slide, out = folder / "steps.ome.zarr", folder / "steps-out.ome.zarr"
    make_slide(slide, 3 * SHARD)
    threads, seconds = torch.get_num_threads(), {}
    torch.set_num_threads(1)
    with begun(planned(str(slide), out, find_model(MODEL))) as plan:
        for step in ("gather", "find", "paint"):
            taken = []
            for number in range(len(plan.ledger.blocks)):
                start = time.monotonic()
                do(plan, Task(step, number))
                taken.append(time.monotonic() - start)
            seconds[step] = statistics.median(taken)
    torch.set_num_threads(threads)
    return seconds


def seconds_of_a_task(n=500):
    """What it takes to give a task that does nothing to Dask and have it back, where many are under way."""
    from dask.distributed import Client, LocalCluster, as_completed

    with LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=None) as cluster, Client(cluster) as client:
        client.submit(abs, -1).result()
        start = time.monotonic()
        for future in as_completed([client.submit(abs, i, pure=False) for i in range(n)]):
            future.result()
        return (time.monotonic() - start) / n


@dataclass
class Simulated:
    """Workers that take their time by a clock of their own; a step does nothing but being done."""

    ledger: Ledger
    workers: int
    seconds: dict
    overhead: float  # seconds that the process which gives out the steps needs for each
    clock: float = 0.0
    running: list = field(default_factory=list)

    @property
    def has_room(self):
        """Whether a worker is idle."""
        return len(self.running) < self.workers

    @property
    def is_busy(self):
        """Whether one works."""
        return bool(self.running)

    def give(self, task):
        """Begin a step, once the process that gives them out has the time."""
        self.clock += self.overhead
        heapq.heappush(self.running, (self.clock + self.seconds[task.step], len(self.running), id(task), task))

    def wait(self):
        """Let the clock go on to the next step that is done."""
        end, *_, task = heapq.heappop(self.running)
        self.clock = max(self.clock, end) + self.overhead
        self.ledger.done.add((task.step, task.number))
        return task


class Imagined(Ledger):
    """A ledger whose files are only imagined."""

    def __init__(self, side, halo):
        super().__init__(Path(), Grid((side, side), (SHARD, SHARD)), (halo, halo), Grid((side, side), (SHARD, SHARD)))
        object.__setattr__(self, "done", set())

    def is_found(self, block):
        """Whether the objects of a block are known."""
        return ("find", block) in self.done

    def needs_gathering(self, block):
        """Whether its pixels are still to be gathered."""
        return ("gather", block) not in self.done

    def can_be_found(self, block):
        """Whether those of all blocks around are there."""
        return not self.is_found(block) and all(("gather", near) in self.done for near in self.around(block))


def simulated(side, workers, seconds, overhead):
    """Seconds until all labels are written, and the share of them that the workers are busy."""
    ledger = Imagined(side, 256)
    pool = Simulated(ledger, workers, seconds, overhead)
    for _ in find_objects(ledger, pool):
        pass
    n = len(ledger.blocks)
    pool.clock += n * overhead  # the objects are counted
    painting = max(n * overhead, -(-n // workers) * seconds["paint"])
    work = n * sum(seconds.values())
    return pool.clock + painting, work / workers / (pool.clock + painting)


def main():
    """Print what is asked for."""
    given = options(
        __doc__.splitlines()[0],
        ("--side", {"type": int, "default": 16384, "help": "of the slide; 0 for none"}),
        ("--workers", {"type": int, "default": 2}),
        (
            "--seams",
            {"type": int, "default": 4096, "help": "side of the image that is compared with the whole; 0 for none"},
        ),
        ("--speedup", {"type": int, "default": 0, "help": "side of the slide for one worker against two"}),
        ("--kills", {"type": int, "default": 0, "help": "how often to kill all processes"}),
        (
            "--simulate",
            {"type": int, "default": 0, "help": "side of a slide that up to 1,024 workers share in thought"},
        ),
        ("--folder", {"type": Path, "help": "where files go; by default a temporary folder"}),
    )
    print_machine()
    numbers, headlines = {}, []
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        folder = Path(folder)
        warm_up(folder)
        if given.side:
            numbers["slide"] = result = whole_slide(folder, given.side, given.workers)
            pixels = given.side**2
            row = {
                "side": result["side"],
                "cells": result["cells"],
                "found": result["found"],
                "AP .50": f"{result['ap50']:.3f}",
                "time": f"{result['seconds'] / 60:.1f} min",
                "us a pixel": f"{result['seconds'] / pixels * 1e6:.3f}",
                "memory of a process": f"{result['memory'] / 1e9:.2f} GB",
                "disk, bytes a pixel": f"{result['disk'] / pixels:.3f}",
                "asked": ASKED.get(given.side, ""),
            }
            print_table(f"A slide, {given.workers} workers", [row])
        if given.speedup:
            numbers["speedup"] = seconds = speedup(folder, given.speedup)
            headlines.append(Headline("segment, 1 worker against 2", seconds[1], seconds[2], "1.7x"))
            print(
                f"\none worker {seconds[1]:.0f} s, two {seconds[2]:.0f} s: {seconds[1] / seconds[2]:.2f}x (asked: 1.7)"
            )
        if given.seams:
            numbers["seams"] = rows = seams(folder, given.seams)
            shown = [row | {key: f"{row[key]:.4%}" for key in ("the same", "pixels")} for row in rows]
            print_table("Against the whole image in one block, float32 (asked: all objects, 99.99 % of pixels)", shown)
        if given.simulate:
            seconds, overhead = seconds_of_steps(folder), seconds_of_a_task()
            numbers["simulation"] = rows = [
                {"workers": workers, "seconds": total, "busy": busy}
                for workers in (1, 16, 64, 256, 1024)
                for total, busy in [simulated(given.simulate, workers, seconds, overhead)]
            ]
            times = ", ".join(f"{step} {value:.2f} s" for step, value in seconds.items())
            print(f"\nmeasured: {times}; {1000 * overhead:.1f} ms to give out a step")
            shown = [row | {"seconds": f"{row['seconds']:.0f} s", "busy": f"{row['busy']:.0%}"} for row in rows]
            print_table(f"Simulated, {given.simulate} x {given.simulate} pixels", shown)
        if given.kills:
            numbers["kills"] = result = kills(folder, given.kills)
            what = (
                "byte for byte those of an undisturbed call" if result["equal"] else "NOT those of an undisturbed call"
            )
            print(f"\nafter {result['kills']} kills, {result['files']} files are {what}")
    keep(given.json, numbers, headlines)


if __name__ == "__main__":
    main()
