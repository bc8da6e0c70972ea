"""Twenty annotated images: a model trained from scratch on them against one that starts from `nuclei`.

    python -m benchmarks.fine_tuning DATA --test TEST [--out runs/fine_tuning] [--set key=value ...]

Both get the recipe that `attractor train` makes for the twenty images, with the changes given; each model is then
scored on the test images. A run whose model is already in the output folder is not repeated.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np

from attractor.datasets import Subset, open_dataset
from attractor.datasets.label_images import write_label_images
from attractor.evaluation import evaluate, predicted
from attractor.metrics.average_precision import paired_difference
from attractor.model import Model
from attractor.prediction.image import Segmenter
from attractor.recipe import recipe_for
from attractor.runs import run

N_IMAGES = 20


def main() -> None:
    """Train both, score both, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", help="a data set of at least 20 images")
    parser.add_argument("--test", required=True, help="the data set to score on")
    parser.add_argument("--out", default="runs/fine_tuning", type=Path)
    parser.add_argument("--model", default="nuclei", help="the model to begin with")
    parser.add_argument("--set", action="append", default=[], dest="changes")
    parser.add_argument("--only", choices=["scratch", "fine_tuned"])
    arguments = parser.parse_args()
    twenty = twenty_images(arguments.data, arguments.out / "images")
    images = {}
    for name, start in (("scratch", None), ("fine_tuned", arguments.model)):
        if arguments.only not in (None, name):
            continue
        folder = arguments.out / name
        if not (folder / "model.safetensors").exists():
            run(recipe_for(twenty, arguments.changes, start=start), folder)
        evaluation = evaluate(predicted(Segmenter(Model.load(folder), dtype="float32"), open_dataset(arguments.test)))
        images[name] = evaluation.images
        ap = evaluation.summary.by_image.value
        print(f"{name:12} AP .50 {ap[0]:.3f}   .75 {ap[5]:.3f}   .90 {ap[8]:.3f}", flush=True)
    if len(images) == 2:
        difference = paired_difference(images["fine_tuned"], images["scratch"])
        gain = difference.by_image.at(0)
        print(f"fine-tuned minus scratch, by image at .50: {gain.value:+.3f} ({gain.low:+.3f} to {gain.high:+.3f})")
        text = json.dumps(dataclasses.asdict(difference), default=np.ndarray.tolist, indent=1)
        (arguments.out / "difference.json").write_text(text)


def twenty_images(data: str, folder: Path) -> Path:
    """A folder with twenty of the images, evenly spread over the data set."""
    if not folder.exists():
        dataset = open_dataset(data)
        chosen = np.linspace(0, len(dataset) - 1, N_IMAGES).round().astype(int)
        part = Subset(dataset, [int(i) for i in chosen])
        write_label_images(folder, [part[i] for i in range(len(part))])
    return folder


if __name__ == "__main__":
    main()
