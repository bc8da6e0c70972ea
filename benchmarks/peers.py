"""Files to label images, by attractor and by other programs that are installed: the same files, in turns, in one run.

    pip install '.[peers]'
    python -m benchmarks.peers --data nuclei/test --train nuclei/train [--files N] [--only NAME …] [--json FILE]

Only times are compared: of the clock, and of the processor, which says more where other programs run beside. No weights
are downloaded. StarDist has its default architecture (32 rays, grid 2) with three channels, and is taught here for as
many steps as asked for. Until it finds objects, which the table says, it has none to suppress or draw, and its time is
less than it takes. Cellpose cannot be trained from scratch: its network has random weights, and is timed alone, without
flows being followed, which again is less than it takes.
"""

from __future__ import annotations

import importlib.util
import statistics
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tifffile
import torch

import attractor
from attractor.datasets import open_dataset
from attractor.errors import InputError
from attractor.images import find_images, read_image
from attractor.prediction.folder import segment_files
from benchmarks.harness import Headline, keep, milliseconds, options, print_machine, print_table

REPEATS = 3
PATCH, BATCH = 128, 4  # of StarDist's training
OURS = "attractor"


@dataclass
class Times:
    """What was measured of one program."""

    remark: str  # what was computed, if it is not labels by a trained model
    objects: int = 0  # found in all files
    seconds: list[float] = field(default_factory=list)  # a file, of each repeat
    processor: list[float] = field(default_factory=list)  # the same, of all cores together


def colour(image):
    """An image (h, w, c) in three channels; grey is repeated, and further channels are left out."""
    return np.repeat(image, 3, 2) if image.shape[2] < 3 else image[..., :3]


def write(labels, out, file):
    """Write a label image, and give how many objects it has."""
    tifffile.imwrite(out / f"{file.stem}_labels.tif", labels.astype(np.int32))
    return len(np.unique(labels)) - 1


# --- the programs: each gives a function of files and a folder, which tells how many objects it found ----------------


def with_attractor(given, scratch):
    """Ours, as `attractor segment --format labels` has it."""
    segmenter = attractor.load("nuclei", device="cpu")

    def run(files, out):
        return sum(outcome.n_objects for outcome in segment_files(segmenter, files, out, formats=("labels",)))

    return run, ""


def with_stardist(given, scratch):
    """StarDist, taught for a while on a data set."""
    if given.train is None:
        raise InputError("StarDist has no weights here; give annotated images to teach it with, as --train DATASET.")
    from csbdeep.utils import normalize
    from stardist.models import Config2D, StarDist2D

    samples = list(open_dataset(given.train))
    images = [normalize(colour(sample.image), 1, 99.8, axis=(0, 1)) for sample in samples]
    large = [k for k, image in enumerate(images) if min(image.shape[:2]) >= PATCH]
    config = Config2D(
        n_rays=32,
        grid=(2, 2),
        n_channel_in=3,
        train_patch_size=(PATCH, PATCH),
        train_batch_size=BATCH,
        train_epochs=1,
        train_steps_per_epoch=given.steps,
        train_tensorboard=False,
        train_checkpoint=None,
        train_checkpoint_last=None,
        train_checkpoint_epoch=None,
    )
    model = StarDist2D(config, name="stardist", basedir=str(scratch))
    held_out = large[-4:]
    model.train(
        [images[k] for k in large[:-4]],
        [samples[k].labels for k in large[:-4]],
        validation_data=([images[k] for k in held_out], [samples[k].labels for k in held_out]),
    )

    def run(files, out):
        n = 0
        for file in files:
            picture = normalize(colour(read_image(file)), 1, 99.8, axis=(0, 1))
            n += write(model.predict_instances(picture)[0], out, file)
        return n

    return run, f"after {given.steps} steps of training"


def with_cellpose(given, scratch):
    """The network of Cellpose with random weights."""
    from cellpose.models import CellposeModel
    from cellpose.vit import CPSAM

    weights = scratch / "cpsam"
    torch.save(CPSAM().state_dict(), weights)
    model = CellposeModel(gpu=False, pretrained_model=str(weights))

    def run(files, out):
        for file in files:
            model.eval(colour(read_image(file)), channel_axis=2, compute_masks=False)
        return 0

    return run, "network alone, random weights"


# name to the modules that it needs, and what makes it ready
PROGRAMS = {
    OURS: ((), with_attractor),
    "StarDist": (("stardist", "tensorflow"), with_stardist),
    "Cellpose": (("cellpose",), with_cellpose),
}


def installed(names):
    """Those of the names whose modules are there; says which are left out.

    Raises:
        InputError: if a name is not known.
    """
    chosen = []
    for name in names:
        if name not in PROGRAMS:
            raise InputError(f"There is no program {name}; there are {', '.join(PROGRAMS)}.")
        missing = [module for module in PROGRAMS[name][0] if importlib.util.find_spec(module) is None]
        if missing:
            print(f"{name} is left out: {' and '.join(missing)} is not installed.")
        else:
            chosen.append(name)
    return chosen


def evenly(files, n):
    """At most n of the files, from the first to the last."""
    if n is None or n >= len(files):
        return files
    return [files[k] for k in np.linspace(0, len(files) - 1, n).round().astype(int)]


def in_turns(programs, files, out, repeats=REPEATS):
    """Times of each program, given as name to its function and a remark; one after the other in each repeat.

    Two of the files come first, and do not count: networks are compiled for what they see.
    """
    times = {name: Times(remark) for name, (_, remark) in programs.items()}
    for run, _ in programs.values():
        run(evenly(files, 2), out)
    for _ in range(repeats):
        for name, (run, _) in programs.items():
            start, busy = time.perf_counter(), time.process_time()
            times[name].objects = run(files, out)
            times[name].seconds.append((time.perf_counter() - start) / len(files))
            times[name].processor.append((time.process_time() - busy) / len(files))
    return times


def rows_of(times):
    """Lines of the table; the ratio is to ours, over the repeats its median, least and most."""
    rows = []
    for name, own in times.items():
        ratios = [theirs / ours for theirs, ours in zip(own.seconds, times[OURS].seconds, strict=True)]
        rows.append(
            {
                "program": name,
                "a file": milliseconds(statistics.median(own.seconds)),
                "ratio": f"{statistics.median(ratios):.1f}x",
                "from": f"{min(ratios):.1f}",
                "to": f"{max(ratios):.1f}",
                "processor": milliseconds(statistics.median(own.processor)),
                "objects": own.objects,
                "": own.remark,
            }
        )
    return rows


def main():
    """Print the table."""
    given = options(
        __doc__.splitlines()[0],
        ("--data", {"type": Path, "required": True, "help": "a data set with a folder images, or a folder of images"}),
        ("--train", {"type": Path, "help": "a data set to teach StarDist with"}),
        ("--steps", {"type": int, "default": 4000, "help": "of StarDist's training"}),
        ("--files", {"type": int, "help": "how many of the files, evenly spread; by default all"}),
        ("--only", {"nargs": "+", "default": list(PROGRAMS)[1:], "help": f"some of: {', '.join(list(PROGRAMS)[1:])}"}),
    )
    print_machine()
    pictures = given.data / "images" if (given.data / "images").is_dir() else given.data
    files = evenly(find_images([pictures]).images, given.files)
    with ExitStack() as stack:
        scratch, out = (Path(stack.enter_context(tempfile.TemporaryDirectory())) for _ in range(2))
        names = installed(dict.fromkeys([OURS, *given.only]))
        times = in_turns({name: PROGRAMS[name][1](given, scratch) for name in names}, files, out)
    print_table(f"{len(files)} files to label images, {REPEATS} times in turns", rows_of(times))
    ours = statistics.median(times[OURS].seconds)
    headlines = [
        Headline(f"a file to labels, against {name}", statistics.median(own.seconds), ours, "")
        for name, own in times.items()
        if name != OURS
    ]
    keep(given.json, {name: vars(own) for name, own in times.items()}, headlines)


if __name__ == "__main__":
    main()
