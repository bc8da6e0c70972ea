"""Scores of models and of label images, and thresholds tuned on validation images."""

import dataclasses
import inspect
import json

import numpy as np
import pytest
import torch

from attractor import evaluation
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.evaluation import as_json, evaluate
from attractor.instances import Instances


def sample(name, labels):
    labels = np.array(labels, np.int32)
    n = int(labels.max(initial=0))
    return Sample(
        name, np.zeros((*labels.shape, 1), np.uint8), labels, np.ones(n, np.int32), np.zeros(labels.shape, bool)
    )


tune = inspect.unwrap(evaluation.tune)  # without the check of types: a stand-in takes the place of the model
TWO = [[1, 1, 0, 2], [1, 1, 0, 2]]
ONE = [[1, 1, 0, 0], [1, 1, 0, 0]]


def found(labels):
    return Instances.from_labels(np.array(labels, np.int32))


def test_perfect_and_half_right():
    evaluation = evaluate([(sample("a", TWO), found(TWO)), (sample("b", TWO), found(ONE))])
    assert evaluation.summary.by_image.value[0] == pytest.approx(0.75)
    assert evaluation.summary.recall.value[0] == pytest.approx(0.75)
    assert [image.name for image in evaluation.images] == ["a", "b"]
    assert evaluation.groups == {}


def test_groups_are_summarised_on_their_own():
    pairs = [(sample("a", TWO), found(TWO)), (sample("b", TWO), found(ONE)), (sample("c", TWO), found(ONE))]
    evaluation = evaluate(pairs, by={"a": "easy", "b": "hard", "c": "hard"})
    assert {name: group.by_image.value[0] for name, group in evaluation.groups.items()} == {"easy": 1.0, "hard": 0.5}


def test_ignored_pixels_do_not_count():
    given = sample("a", TWO)
    given.ignore[:, 3] = True
    assert evaluate([(given, found(ONE))]).summary.by_image.value[0] == 1


def test_another_shape():
    with pytest.raises(InputError, match=r"a: the label image found has shape \(1, 4\), the true one \(2, 4\)"):
        evaluate([(sample("a", TWO), found([[1, 1, 0, 0]]))])


def test_json_holds_plain_numbers():
    text = json.dumps(as_json(evaluate([(sample("a", TWO), found(TWO))], by={"a": "x"})))
    assert json.loads(text)["groups"]["x"]["by_image"]["value"][0] == 1.0


class Listed(list):
    """Samples in memory, as a data set."""

    class_names = ("object",)
    columns: dict[str, dict[str, str]] = {}  # noqa: RUF012

    @property
    def names(self):
        return tuple(sample.name for sample in self)


@dataclasses.dataclass(frozen=True)
class Grey:
    """The image itself as a map."""

    grey: torch.Tensor


class Thresholded:
    """A segmenter whose only threshold cuts a grey image; 100 is the right place."""

    class Method:
        def __init__(self):
            self.thresholds = {"cut": 50}
            self.threshold_candidates = {"cut": (25, 50, 100, 150)}

        def group(self, maps):
            return [found((maps.grey > self.thresholds["cut"]).int().numpy())]

    def __init__(self):
        self.model = type("Model", (), {"method": self.Method()})()

    def prepared(self, image, name):
        return Grey(torch.from_numpy(image[..., 0]))

    def maps(self, image, tta=False):
        return image


def test_tuning_finds_the_best_threshold():
    given = sample("a", ONE)
    given.image[..., 0] = np.where(given.labels > 0, 120, 80)
    segmenter = Thresholded()
    assert tune(segmenter, Listed([given])) == {"cut": 100}
    assert segmenter.model.method.thresholds == {"cut": 100}


def test_tuning_keeps_what_cannot_be_bettered():
    given = sample("a", ONE)
    given.image[..., 0] = np.where(given.labels > 0, 120, 20)
    assert tune(Thresholded(), Listed([given])) == {"cut": 50}
