"""Scores of models and of label images, and thresholds tuned on validation images."""

import dataclasses
import doctest
import inspect
import json

import numpy as np
import pytest
import torch

import attractor
from attractor import tuning
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.evaluation import evaluate, evaluate_model, metric_named, scored_by
from attractor.instances import Instances
from attractor.metrics import METRICS
from attractor.model import Model
from attractor.prediction.image import Segmenter


def sample(name, labels):
    labels = np.array(labels, np.int32)
    n = int(labels.max(initial=0))
    return Sample(
        name, np.zeros((*labels.shape, 1), np.uint8), labels, np.ones(n, np.int32), np.zeros(labels.shape, bool)
    )


tune = inspect.unwrap(tuning.tune)  # without the check of types: a stand-in takes the place of the model
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
    with pytest.raises(InputError, match=r"^a: the images to compare .* truth \(2, 4\), found \(1, 4\).* same size"):
        evaluate([(sample("a", TWO), found([[1, 1, 0, 0]]))])


def test_json_holds_plain_numbers():
    text = json.dumps(evaluate([(sample("a", TWO), found(TWO))], by={"a": "x"}).as_json())
    assert json.loads(text)["groups"]["x"]["by_image"]["value"][0] == 1.0


def test_json_has_null_where_there_is_no_number():
    assert evaluate([(sample("a", TWO), found(TWO))], metric="coco").as_json()["summary"]["APl"]["value"] is None


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

    def maps_of_each(self, given, tta=False):
        return (Grey(torch.from_numpy(image[..., 0])) for _, image, _ in given)


def test_tuning_finds_the_best_threshold():
    given = sample("a", ONE)
    given.image[..., 0] = np.where(given.labels > 0, 120, 80)
    segmenter = Thresholded()
    assert tune(segmenter, Listed([given])) == {"cut": 100}
    assert segmenter.model.method.thresholds == {"cut": 100}


def test_tuning_can_ask_for_a_gain_and_try_other_values():
    given = sample("a", ONE)
    given.image[..., 0] = np.where(given.labels > 0, 120, 80)
    assert tune(Thresholded(), Listed([given]), least_gain=1.0) == {"cut": 50}
    assert tune(Thresholded(), Listed([given]), candidates={"cut": (110,)}) == {"cut": 110}


def test_tuning_keeps_what_cannot_be_bettered():
    given = sample("a", ONE)
    given.image[..., 0] = np.where(given.labels > 0, 120, 20)
    assert tune(Thresholded(), Listed([given])) == {"cut": 50}


# --- every metric


@pytest.mark.parametrize("metric", METRICS)
def test_every_metric_scores_images_groups_and_differences(metric):
    two, one = (np.kron(labels, np.ones((12, 12), int)) for labels in (TWO, ONE))  # some leave out small objects
    pairs = [(sample("a", two), found(two)), (sample("b", two), found(one)), (sample("c", two), found(one))]
    evaluation = evaluate(pairs, by={"a": "easy", "b": "hard", "c": "hard"}, metric=metric)
    assert [image.name for image in evaluation.images] == ["a", "b", "c"]
    assert (evaluation.summary.n_images, evaluation.summary.n_truth) == (3, 6)
    assert {name: group.n_images for name, group in evaluation.groups.items()} == {"easy": 1, "hard": 2}
    plain = json.loads(json.dumps(evaluation.as_json(), allow_nan=False))
    assert [image["name"] for image in plain["images"]] == ["a", "b", "c"]
    assert METRICS[metric].paired_difference(evaluation.images, evaluation.images).n_images == 3


# the official script of Cityscapes has void where no object is, and takes nothing from objects
@pytest.mark.parametrize("metric", [metric for metric in METRICS if metric != "cityscapes"])
def test_ignored_pixels_count_for_no_metric(metric):
    given, smaller = sample("a", TWO), sample("a", ONE)
    given.ignore[:, 3] = smaller.ignore[:, 3] = True
    one, two = (evaluate([(each, found(ONE))], metric=metric).as_json() for each in (given, smaller))
    assert one == two


def test_leaves_are_scored_by_best_dice_and_count():
    evaluation = evaluate([(sample("a", TWO), found(ONE))], metric="cvppp")
    assert evaluation.summary.symmetric_best_dice.value == 0.5
    assert evaluation.summary.difference_in_count.value == -1


def test_images_without_truth_say_nothing_of_recall():
    pairs = [(sample("a", TWO), found(TWO)), (sample("b", [[0, 0]]), found([[1, 1]]))]
    evaluation = evaluate(pairs, by={"a": "x", "b": "y"}, metric="average_recall")
    assert [image.name for image in evaluation.images] == ["a"]
    assert list(evaluation.groups) == ["x"]
    with pytest.raises(InputError, match="No image has a true object"):
        evaluate(pairs[1:], metric="average_recall")


def test_a_metric_that_is_not_there():
    with pytest.raises(InputError, match='There is no metric "ap"; there are: average_precision, '):
        metric_named("ap")
    with pytest.raises(InputError, match='no metric "ap"'):
        evaluate([(sample("a", TWO), found(TWO))], metric="ap")


@pytest.fixture
def proposing(tiny_model):
    """A segmenter whose method proposes the left half and then the whole of every image."""

    def propose(maps, n):
        h, w = maps.seed.shape[-2:]
        left = np.arange(w) < w // 2
        masks = [np.broadcast_to(inside, (h, w)) for inside in (left, np.ones(w, bool))][:n]
        scores = np.array([0.9, 0.8], np.float32)[:n]
        return [Instances.from_masks(masks, np.ones(len(masks), np.int32), scores, (h, w))]

    segmenter = Segmenter(Model.load(tiny_model), device="cpu")
    segmenter.model.method.propose = propose
    return segmenter


def test_proposals_are_asked_for_where_the_metric_ranks_them(proposing):
    labels = np.zeros((16, 24), np.int32)
    labels[:, :12] = 1
    given = sample("a", labels)
    given.image[..., 0] = np.random.default_rng(0).integers(0, 255, labels.shape)
    evaluation = evaluate(scored_by("average_recall", proposing, Listed([given])), metric="average_recall")
    assert evaluation.summary.by_image.value.tolist() == [1] * 4
    assert evaluation.images[0].n_proposals == 2
    ((_, objects),) = scored_by("cvppp", proposing, Listed([given]))
    assert len(objects) > 2


def test_proposals_overlap_and_are_as_many_as_asked_for(proposing):
    image = np.random.default_rng(0).integers(0, 255, (16, 24)).astype(np.uint8)
    both = proposing.propose(image, 5)
    assert [int(both.mask(label).sum()) for label in (1, 2)] == [16 * 12, 16 * 24]
    assert len(proposing.propose(image, 1, tta=True)) == 1
    assert len(proposing.propose(np.zeros((5, 6), np.uint8), 5)) == 0


def test_a_method_without_proposals_says_so(tiny_model):
    segmenter = Segmenter(Model.load(tiny_model), device="cpu")
    with pytest.raises(InputError, match=r"^spatial-embeddings offers no proposals; take"):
        segmenter.propose(np.zeros((5, 6), np.uint8), 5)
    with pytest.raises(InputError, match="offers no proposals"):
        segmenter.check_options(n_proposals=1)


# --- a model and a data set by name


def test_the_example_is_true():
    runner = doctest.DocTestRunner()
    for example in doctest.DocTestFinder(recurse=False).find(inspect.unwrap(evaluate_model), "evaluate", False, {}):
        runner.run(example)
    assert runner.summarize(verbose=False) == (0, 5)


def noisy(n):
    """Images of noise with a square each, in two groups."""
    labels = np.zeros((24, 24), np.int32)
    labels[4:14, 4:14] = 1
    samples = [sample(name, labels) for name in "abcdef"[:n]]
    for seed, given in enumerate(samples):
        given.image[..., 0] = np.random.default_rng(seed).integers(0, 255, labels.shape)
    dataset = Listed(samples)
    dataset.columns = {"kind": {name: "even" if place % 2 == 0 else "odd" for place, name in enumerate(dataset.names)}}
    return dataset


def test_a_model_is_evaluated_by_name_or_ready_made(tiny_model):
    dataset, calls = noisy(3), []
    by_name = attractor.evaluate(tiny_model, dataset, by="kind", report=lambda: calls.append(1))
    ready = attractor.evaluate(attractor.load(tiny_model, dtype="float32"), dataset, by="kind")
    assert by_name.as_json() == ready.as_json()
    assert list(by_name.groups) == ["even", "odd"]
    assert len(calls) == 3


def test_scores_print_as_tables(tiny_model):
    text = str(attractor.evaluate(tiny_model, noisy(3), by="kind", metric="cvppp"))
    assert text.startswith("Best Dice and counts, by image, with 95 % intervals; 3 true, ")
    assert [line.split()[0] for line in text.splitlines() if line.strip()[:3] in ("all", "eve", "odd", "kin")] == [
        "kind", "all", "even", "odd",
    ]  # fmt: skip


def test_a_group_called_all_has_a_row_of_its_own():
    scores = evaluate([(sample("a", TWO), found(TWO)), (sample("b", TWO), found(ONE))], by={"a": "all", "b": "some"})
    assert list(scores.tables()[0].rows) == ["all images", "all", "some"]


def test_a_column_that_is_not_there(tiny_model):
    with pytest.raises(InputError, match="no column 'colour' to score by; its columns: kind"):
        attractor.evaluate(tiny_model, noisy(1), by="colour")


def test_a_model_without_proposals_is_not_ranked_by_them(tiny_model):
    with pytest.raises(InputError, match="offers no proposals"):
        attractor.evaluate(tiny_model, noisy(1), metric="average_recall")
