"""The study of components: what is found where parts of the truth are put in."""

import numpy as np
import torch
from benchmarks.components import truth_of, with_truth

from attractor.datasets.sample import Sample
from attractor.description import Description
from attractor.model import Model
from attractor.prediction.image import Segmenter


def test_true_semantics_and_centres_find_what_the_network_does_not_know():
    torch.manual_seed(0)
    labels = np.zeros((16, 32), np.int32)
    labels[2:12, 2:12], labels[2:12, 20:30] = 1, 2
    sample = Sample("a", (labels > 0)[..., None].astype(np.uint8), labels, np.ones(2, np.int32), labels < 0)
    options = {"coordinates": "output", "coordinate_scale": 8.0, "foreground_threshold": 1.0}
    description = Description(
        method="discriminative-loss", network="erfnet", channels=1, class_names=("object",), options=options
    )
    segmenter = Segmenter(Model(description), device="cpu")
    with torch.no_grad():
        segmenter.model.method.network.heads[0].weight.zero_()
        segmenter.model.method.network.heads[0].bias.zero_()
    found = {
        (semantics, centres): next(with_truth(segmenter, [sample], semantics, centres))[1]
        for semantics in ("predicted", "true")
        for centres in ("mean-shift", "true")
    }
    assert len(found["predicted", "mean-shift"]) == 0  # no pixel is surer than certain
    assert len(found["true", "mean-shift"]) == 2
    assert np.array_equal(found["true", "true"].labels, labels)


def test_an_image_without_objects_has_a_truth():
    nothing = np.zeros((4, 4), np.int32)
    truth = truth_of(Sample("a", nothing[..., None], nothing, np.zeros(0, np.int32), nothing > 0))
    assert truth.classes.shape == (1, 1)
    assert truth.valid.all()
