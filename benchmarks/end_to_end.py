"""From the array to `Instances`, and from a folder of files to a folder of results, by the model `nuclei`.

`python -m benchmarks.end_to_end [--data DATASET] [--json FILE]`. One image: the plain network in float32, decoding of
every pixel and the paper's loop, against `Segmenter.segment`. A folder of generated pictures, or of a data set that you
have: one step after the other, network in float32, against `segment_files`; to labels, overlays and tables, and to
labels alone.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np
import torch

import attractor
from attractor.images import find_images, read_image, write_image
from attractor.methods.spatial_embeddings import group_plain
from attractor.model import Model
from attractor.prediction.folder import segment_files, write_files
from attractor.prediction.outputs import DEFAULT_OUTPUTS
from attractor.prediction.result import Result
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

HEIGHT, WIDTH, N_CELLS = 1024, 2048, 200
N_FILES, SIDE, CELLS_A_FILE = 40, 256, 30
LABELS = ("labels",)
UNIT = 256 * 256  # pixels: the unit in which speed is given


@torch.inference_mode()
def plainly(model, picture):
    """Labels as the paper computes them."""
    method, description = model.method, model.description
    colour = np.repeat(picture[..., None], description.channels, 2)
    image = torch.from_numpy(description.normalisation(colour)).permute(2, 0, 1)[None]
    embedding, concentration, seed = method.decode(method(image))
    return group_plain(embedding[0], concentration[0], seed[0, 0], **method.thresholds, **method.grouping)


def one_image():
    """Seconds, plain and fast, and how many objects both find."""
    picture = picture_of_cells(HEIGHT, WIDTH, N_CELLS, np.random.default_rng(0))
    model = Model.load("nuclei").eval()
    segmenter = attractor.load("nuclei", device="cpu")
    found = {"plain": len(plainly(model, picture)[1]), "fast": len(segmenter.segment(picture))}
    times = {
        "plain": median_seconds(lambda: plainly(model, picture), 3, warm_up=False),
        "fast": median_seconds(lambda: segmenter.segment(picture), 5),
    }
    if torch.cuda.is_available():
        there = attractor.load("nuclei", device="cuda")
        there.segment(picture)  # kernels are recorded for a size that comes again
        times["cuda"] = median_seconds(lambda: there.segment(picture), 15)
    return {"found": found, "dtype": segmenter.dtype, **times}


def one_after_the_other(segmenter, files, out, formats=DEFAULT_OUTPUTS):
    """Read, segment and write each file before the next is read."""
    for file in files:
        picture = read_image(file)
        found = segmenter.segment(picture, name=str(file))
        write_files(Result(file.name, picture, found, segmenter.class_names), out, formats)


def seconds(function, *arguments):
    """Time of one call."""
    start = time.perf_counter()
    function(*arguments)
    return time.perf_counter() - start


def folder(files, out):
    """Seconds for all files, plain and fast, after both have warmed up on two of them."""
    plain = attractor.load("nuclei", device="cpu", dtype="float32")
    fast = attractor.load("nuclei", device="cpu")
    one_after_the_other(plain, files[:2], out)
    list(segment_files(fast, files[:2], out))
    shapes = [read_image(file).shape for file in files]
    return {
        "files": len(files),
        "units": sum(h * w for h, w, _ in shapes) / UNIT,
        "plain": seconds(one_after_the_other, plain, files, out),
        "fast": seconds(lambda: list(segment_files(fast, files, out))),
        "plain, labels": seconds(one_after_the_other, plain, files, out, LABELS),
        "fast, labels": seconds(lambda: list(segment_files(fast, files, out, formats=LABELS))),
    }


def main():
    """Print both tables."""
    given = options(__doc__.splitlines()[0], ("--data", {"type": Path, "help": "annotated images, or just images"}))
    print_machine()
    single = one_image()
    row = {
        "size": f"{HEIGHT}x{WIDTH}",
        "found, plain": single["found"]["plain"],
        "found": single["found"]["fast"],
        "plain": milliseconds(single["plain"]),
        single["dtype"]: milliseconds(single["fast"]),
        "ratio": f"{single['plain'] / single['fast']:.1f}x",
    }
    if "cuda" in single:
        row[torch.cuda.get_device_name()] = milliseconds(single["cuda"])
    print_table("One image, array to objects", [row])
    with tempfile.TemporaryDirectory() as scratch:
        pictures, out = Path(scratch) / "in", Path(scratch) / "out"
        pictures.mkdir()
        out.mkdir()
        if given.data is None:
            for k in range(N_FILES):
                picture = picture_of_cells(SIDE, SIDE, CELLS_A_FILE, np.random.default_rng(k))
                write_image(pictures / f"{k}.png", picture[..., None])
        else:
            pictures = given.data / "images" if (given.data / "images").is_dir() else given.data
        many = folder(find_images([pictures]).images, out)
    cores = torch.get_num_threads()
    rows = [
        {
            "files": many["files"],
            "to": what,
            "plain": milliseconds(many[f"plain{key}"]),
            "fast": milliseconds(many[f"fast{key}"]),
            "ratio": f"{many[f'plain{key}'] / many[f'fast{key}']:.1f}x",
            "a file": milliseconds(many[f"fast{key}"] / many["files"]),
            "256x256 a second and core": f"{many['units'] / many[f'fast{key}'] / cores:.1f}",
        }
        for what, key in (("labels, overlays, tables", ""), ("labels alone", ", labels"))
    ]
    print_table("A folder, files to results", rows)
    headlines = [
        Headline(f"one image of {HEIGHT}x{WIDTH}, array to objects", single["plain"], single["fast"], ""),
        Headline(f"a folder of {many['files']} files", many["plain"], many["fast"], "5 of 256x256 a second and core"),
        Headline("the same, labels alone", many["plain, labels"], many["fast, labels"], ""),
    ]
    keep(given.json, {"one image": single, "folder": many}, headlines)


if __name__ == "__main__":
    main()
