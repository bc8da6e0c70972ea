"""What costs a discriminative-loss model its score: its classes, its grouping, or the embedding itself.

    python -m benchmarks.components MODEL DATA

Parts of the truth take the place of predicted ones, as in the paper's table of components: semantics (which pixels are
foreground, and of which class) and centres (the mean embedding of each object, in place of mean shift).

Source: De Brabandere et al. 2017, section 4.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from attractor.datasets import Dataset, Sample, open_dataset
from attractor.errors import InputError
from attractor.evaluation import evaluate
from attractor.instances import Instances
from attractor.methods.discriminative_loss import DiscriminativeLoss
from attractor.model import Model
from attractor.prediction.image import Segmenter
from attractor.truth import Truth


def main() -> None:
    """Score the four combinations, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="name, file or training folder of a discriminative-loss model")
    parser.add_argument("data", type=Path, help="annotated images that it was not trained on")
    arguments = parser.parse_args()
    segmenter = Segmenter(Model.load(arguments.model), dtype="float32")
    if not isinstance(segmenter.model.method, DiscriminativeLoss):
        raise InputError(f"{arguments.model}: this study is for discriminative-loss models only.")
    dataset = open_dataset(arguments.data)
    print("semantics  centres        AP .50  AP .75  mean AP")
    for semantics, centres in itertools.product(("predicted", "true"), ("mean-shift", "true")):
        summary = evaluate(with_truth(segmenter, dataset, semantics, centres)).summary
        ap = summary.by_image.value
        row = f"{ap[0]:7.3f} {ap[5]:7.3f} {summary.mean_average_precision.value:8.3f}"
        print(f"{semantics:10} {centres:12} {row}", flush=True)


def with_truth(
    segmenter: Segmenter, dataset: Dataset, semantics: str, centres: str
) -> Iterator[tuple[Sample, Instances]]:
    """Each annotated image with what is found when parts of the truth are put in."""
    for i in range(len(dataset)):
        sample = dataset[i]
        maps = segmenter.maps(segmenter.prepared(sample.image, name=sample.name))
        (found,) = segmenter.model.method.group_seeded(maps, truth_of(sample), semantics=semantics, centres=centres)
        yield sample, found


def truth_of(sample: Sample) -> Truth:
    """The truth of one image as a batch."""
    classes = np.asarray(sample.classes, np.int64) if len(sample.classes) else np.zeros(1, np.int64)
    return Truth(*(torch.from_numpy(x)[None] for x in (sample.labels, classes, ~sample.ignore)))


if __name__ == "__main__":
    main()
