"""AP of Cityscapes at 1024 x 2048: the official script against ours, on the same folders.

`python -m benchmarks.cityscapes_metric [--images N] [--json FILE]`; the validation set has 500 images. Both read a
results folder and the annotations in the same run, and their scores must be equal. Ours also computes intervals, which
the script does not. The last row adds what `attractor evaluate` also reads: the pictures.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
import time
from functools import partial
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from attractor.datasets.cityscapes import LABELS, Cityscapes, read_cityscapes_results, write_cityscapes_results
from attractor.evaluation import evaluate
from attractor.instances import Instances
from attractor.metrics.cityscapes import score_image, summarise
from attractor.metrics.metric import Pair
from benchmarks.harness import Headline, keep, milliseconds, print_machine, print_table, scattered_discs

HEIGHT, WIDTH = 1024, 2048
N_OBJECTS = 30
COVERAGE = 0.15
FARTHEST_OFF = 6  # pixels that a found object is shifted by, at most


def make_image(root, results, index):
    """Write a picture, its annotation with void and a group, and results: the objects shifted, some misclassified."""
    random = np.random.default_rng(index)
    labels = scattered_discs(HEIGHT, WIDTH, N_OBJECTS, COVERAGE, random).labels
    classes = random.integers(1, 9, N_OBJECTS)
    of_class = np.array(list(LABELS.values()))[classes - 1]
    numbers = np.concatenate([[7], 1000 * of_class + np.arange(N_OBJECTS)])[labels]
    numbers[:100][labels[:100] == 0] = 23  # sky
    numbers[-60:] = 1  # the bonnet of the car
    numbers[400:500, :300][labels[400:500, :300] == 0] = 24  # people

    stem = f"town_{index:06}_000019"
    noise = Image.fromarray(random.integers(0, 256, (HEIGHT // 8, WIDTH // 8, 3)).astype(np.uint8))
    write(noise.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), root / "leftImg8bit", f"{stem}_leftImg8bit.png")
    write(Image.fromarray(numbers.astype(np.uint16)), root / "gtFine", f"{stem}_gtFine_instanceIds.png")

    shifts = random.integers(-FARTHEST_OFF, FARTHEST_OFF + 1, (N_OBJECTS, 2))
    masks = [np.roll(labels == k + 1, shift, (0, 1)) for k, shift in enumerate(shifts)]
    found_classes = np.where(random.random(N_OBJECTS) < 0.9, classes, random.integers(1, 9, N_OBJECTS))
    found = Instances.from_masks(masks, found_classes, random.random(N_OBJECTS), (HEIGHT, WIDTH))
    write_cityscapes_results(results, f"{stem}_leftImg8bit", found, tuple(LABELS))


def write(image, folder, name):
    """Write a file of the split val."""
    (folder / "val" / "town").mkdir(parents=True, exist_ok=True)
    image.save(folder / "val" / "town" / name)


def ours(root, results):
    """AP from annotations and results."""
    dataset = Cityscapes(root)
    found = read_cityscapes_results(results, dataset)
    nothing = Instances.from_labels(
        np.zeros(dataset.annotations(0).void.shape, np.int32)
    )  # annotations say what is there
    scores = [
        score_image(Pair(dataset.names[k], nothing, own, annotate=partial(dataset.annotations, k)))
        for k, own in enumerate(found)
    ]
    return summarise(scores).average_precision.value


def ours_with_pictures(root, results):
    """AP as the command evaluates it."""
    dataset = Cityscapes(root)
    samples = (dataset[k] for k in range(len(dataset)))
    pairs = zip(samples, read_cityscapes_results(results, dataset), strict=True)
    return evaluate(pairs, metric="cityscapes").summary.average_precision.value


def official(root, results, scratch):
    """AP by the official script, which finds the results by itself."""
    from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as script  # noqa: N813

    script.args.quiet = True
    script.args.predictionPath, script.args.predictionWalk = str(results), None
    script.args.gtInstancesFile = str(scratch / "gtInstances.json")
    script.args.exportFile = str(scratch / "result.json")
    Path(script.args.gtInstancesFile).unlink(missing_ok=True)
    truths = sorted(str(file) for file in (root / "gtFine" / "val").glob("*/*_instanceIds.png"))
    with (
        contextlib.chdir(scratch),  # it leaves a file in the current folder
        mock.patch.object(np, "in1d", np.isin, create=True),  # which numpy has dropped
        mock.patch.object(script, "writeDict2JSON", write_json),
    ):
        found = [script.getPrediction(file, script.args) for file in truths]
        return script.evaluateImgLists(found, truths, script.args)["averages"]["allAp"]


def write_json(content, file):
    """Write JSON as the script does, but also numpy's numbers, which counting now gives."""
    Path(file).write_text(json.dumps(content, default=int, sort_keys=True, indent=4))


def seconds(function, *arguments):
    """Value and time of one call."""
    start = time.perf_counter()
    value = function(*arguments)
    return value, time.perf_counter() - start


def main():
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", metavar="N", type=int, default=20, help="how many images (20)")
    parser.add_argument("--json", metavar="FILE", type=Path, help="keep the numbers in this file")
    given = parser.parse_args()
    print_machine()
    with tempfile.TemporaryDirectory() as folder:
        root, results, scratch = (Path(folder) / name for name in ("data", "results", "scratch"))
        scratch.mkdir()
        for index in range(given.images):
            make_image(root, results, index)
        expected, by_script = seconds(official, root, results, scratch)
        value, by_us = seconds(ours, root, results)
        same, with_pictures = seconds(ours_with_pictures, root, results)
    assert abs(value - expected) < 1e-9, f"AP is {value}, by the official script {expected}"
    assert value == same
    times = {"official script": by_script, "ours": by_us, "ours, with pictures": with_pictures}
    rows = [
        {
            "": name,
            "an image": milliseconds(time_of / given.images),
            "all": milliseconds(time_of),
            "of the script's": f"{time_of / by_script:.2f}",
        }
        for name, time_of in times.items()
    ]
    print_table(f"{given.images} images of {HEIGHT}x{WIDTH} with {N_OBJECTS} objects; AP {value:.4f} by all", rows)
    print(f"\nOurs takes {by_us / by_script:.2f} of the script's time (at most 0.5).")
    numbers = {"images": given.images, "objects": N_OBJECTS, "average precision": value, "seconds": times}
    what = f"Cityscapes AP of {given.images} images, against the official script"
    keep(given.json, numbers, [Headline(what, by_script, by_us, "2x")])


if __name__ == "__main__":
    main()
