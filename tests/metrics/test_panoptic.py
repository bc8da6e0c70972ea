"""Panoptic quality against torchmetrics, by hand, and by law."""

import numpy as np
import pytest
import torch
from tests.metrics.pairing import scoring
from torchmetrics.functional.detection import panoptic_quality

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.bootstrap import Interval
from attractor.metrics.panoptic import PanopticScores, paired_difference, summarise
from attractor.metrics.panoptic import score_image as score_pair

score_image = scoring(score_pair)

SIDE = 24
CLASSES = 3
VOID = 99  # a category that torchmetrics is not told of


def objects(rows: list[list[int]], classes: list[int] | None = None) -> Instances:
    labels = np.array(rows, np.int32)
    n = int(labels.max(initial=0))
    return Instances(labels, np.array(classes or [1] * n, np.int32), np.ones(n, np.float32))


def random_objects(seed: int, n: int = 8) -> Instances:
    """Rectangles of all sizes from one pixel on, that touch and hide each other."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int32)
    for label in range(1, draw.integers(n + 1) + 1):
        top, left = draw.integers(SIDE, size=2)
        height, width = draw.integers(1, 12, size=2)
        labels[top : top + height, left : left + width] = label
    k = int(labels.max(initial=0))
    return Instances(labels, draw.integers(1, CLASSES + 1, size=k), np.ones(k, np.float32))


def near(given: Instances, seed: int) -> Instances:
    """The same objects, shifted a little; some are gone, some of another class."""
    draw = np.random.default_rng(seed)
    labels = np.roll(given.labels, draw.integers(-1, 2, size=2), (0, 1))
    labels = np.where(draw.random(len(given) + 1)[labels] < 0.15, 0, labels)
    other = draw.random(len(given)) < 0.15
    classes = np.where(other, draw.integers(1, CLASSES + 1, size=len(given)), given.classes)
    return Instances(labels.astype(np.int32), classes, given.scores)


def images() -> list[tuple[Instances, Instances]]:
    alike = [(random_objects(seed), near(random_objects(seed), seed)) for seed in range(120)]
    return alike + [(random_objects(seed), random_objects(seed + 1000)) for seed in range(80)]


def random_ignore(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ignore = np.zeros((SIDE, SIDE), bool)
    top, left = draw.integers(SIDE - 6, size=2)
    ignore[top : top + draw.integers(1, 14), left : left + draw.integers(1, 14)] = True
    return ignore


def scores_of(pairs: list[tuple[Instances, Instances]], ignore: list[np.ndarray] | None = None) -> list[PanopticScores]:
    return [
        score_image(truth, found, name=f"image {i}", ignore=None if ignore is None else ignore[i])
        for i, (truth, found) in enumerate(pairs)
    ]


def coloured(given: Instances, ignore: np.ndarray | None = None) -> np.ndarray:
    """Category and number of each pixel; background is category 0."""
    category = np.concatenate([[0], given.classes])[given.labels]
    return np.stack([category if ignore is None else np.where(ignore, VOID, category), given.labels], -1)


def torchmetrics_of(pairs: list[tuple[Instances, Instances]], ignore: list[np.ndarray] | None = None) -> np.ndarray:
    """PQ, SQ and RQ of classes 1 to CLASSES, background being stuff."""
    target = np.stack([coloured(truth, None if ignore is None else ignore[i]) for i, (truth, _) in enumerate(pairs)])
    preds = np.stack([coloured(found) for _, found in pairs])
    values = panoptic_quality(
        torch.from_numpy(preds),
        torch.from_numpy(target),
        things=set(range(1, CLASSES + 1)),
        stuffs={0},
        return_sq_and_rq=True,
        return_per_class=True,
    )
    return values[:CLASSES].numpy()


def assert_like_torchmetrics(pairs: list[tuple[Instances, Instances]], ignore: list[np.ndarray] | None = None) -> None:
    summary, expected = summarise(scores_of(pairs, ignore)), torchmetrics_of(pairs, ignore)
    for number, each in summary.by_class.items():
        ours = (each.panoptic_quality, each.segmentation_quality, each.recognition_quality)
        assert [interval.value for interval in ours] == pytest.approx(expected[number - 1])
    absent = set(range(1, CLASSES + 1)) - set(summary.by_class)
    assert not expected[[number - 1 for number in absent]].any()
    if summary.by_class:
        means = expected[[number - 1 for number in summary.by_class]].mean(0)
        ours = (summary.panoptic_quality, summary.segmentation_quality, summary.recognition_quality)
        assert [interval.value for interval in ours] == pytest.approx(means)


@pytest.fixture
def few_samples(monkeypatch):
    """Intervals are not what is compared with the oracle."""
    monkeypatch.setattr("attractor.metrics.bootstrap.N_SAMPLES", 2)


def test_qualities_equal_torchmetrics_on_random_images(few_samples):
    for pair in images():
        assert_like_torchmetrics([pair])


def test_qualities_equal_torchmetrics_on_random_images_with_ignored_pixels(few_samples):
    for seed, pair in enumerate(images()):
        assert_like_torchmetrics([pair], [random_ignore(seed)])


def test_qualities_of_a_data_set_equal_torchmetrics():
    assert_like_torchmetrics(images())
    assert_like_torchmetrics(images(), [random_ignore(seed) for seed in range(200)])


NOTHING = objects([[0, 0, 0, 0], [0, 0, 0, 0]])
ONE = objects([[1, 1, 0, 0], [1, 1, 0, 0]])
TOUCHING = objects([[1, 1, 2, 2], [1, 1, 2, 2]], [1, 2])
OTHER_CLASS = objects([[1, 1, 2, 2], [1, 1, 2, 2]], [3, 2])
PIXEL = objects([[0, 0, 0, 0], [0, 0, 1, 0]])
HALF = objects([[1, 0, 0, 0], [1, 0, 0, 0]])
FULL = objects([[1, 1, 1, 1], [1, 1, 1, 1]])
AWKWARD = [NOTHING, ONE, TOUCHING, OTHER_CLASS, PIXEL, HALF, FULL]


@pytest.mark.parametrize("truth", AWKWARD)
@pytest.mark.parametrize("found", AWKWARD)
def test_qualities_equal_torchmetrics_on_awkward_images(truth, found, few_samples):
    assert_like_torchmetrics([(truth, found)])


def test_by_hand():
    truth = objects([[1, 1, 1, 1, 0, 2, 2, 0, 3]], [1, 1, 2])
    found = objects([[1, 1, 1, 0, 0, 2, 0, 0, 3]], [1, 1, 1])  # IoU 3/4, 1/2, and 1 with the wrong class
    scores = score_image(truth, found, name="row")
    assert scores.classes.tolist() == [1, 2]
    assert (scores.tp.tolist(), scores.fp.tolist(), scores.fn.tolist()) == ([1, 0], [2, 0], [1, 1])
    assert scores.matched_iou.tolist() == [0.75, 0]
    summary = summarise([scores])
    assert [each.panoptic_quality.value for each in summary.by_class.values()] == [0.75 / 2.5, 0]
    assert [each.segmentation_quality.value for each in summary.by_class.values()] == [0.75, 0]
    assert [each.recognition_quality.value for each in summary.by_class.values()] == [1 / 2.5, 0]
    assert summary.panoptic_quality.value == scores.panoptic_quality == pytest.approx(0.15)
    assert (summary.n_truth, summary.n_found, summary.n_images) == (3, 3, 1)


def test_half_an_object_is_no_match():
    scores = score_image(ONE, HALF, name="half")
    assert (scores.tp.tolist(), scores.fp.tolist(), scores.fn.tolist()) == ([0], [1], [1])


def test_ignored_pixels_are_taken_out_of_found_objects():
    truth, found = objects([[1, 1, 0, 0, 0, 0]]), objects([[1, 1, 1, 1, 1, 0]])
    ignore = np.array([[0, 0, 1, 1, 0, 0]], bool)
    assert score_image(truth, found, name="row", ignore=ignore).matched_iou.tolist() == [2 / 3]


def test_found_objects_mostly_on_ignored_pixels_are_no_false_positives():
    found = objects([[1, 1, 1, 0, 2, 2, 2, 2]])
    ignore = np.array([[0, 1, 1, 0, 0, 0, 1, 1]], bool)
    scores = score_image(objects([[0] * 8]), found, name="row", ignore=ignore)
    assert scores.fp.tolist() == [1]  # 1 lies there with two of three pixels, 2 with only half
    match = score_image(found, found, name="row", ignore=ignore)
    assert (match.tp.tolist(), match.fp.tolist()) == ([2], [0])


def test_a_class_of_forgiven_objects_alone_does_not_occur():
    found = objects([[1, 1, 0, 2]], [1, 2])
    ignore = np.array([[0, 0, 0, 1]], bool)
    scores = score_image(objects([[1, 1, 0, 0]]), found, name="row", ignore=ignore)
    assert (scores.classes.tolist(), scores.panoptic_quality) == ([1], 1.0)


def test_a_class_without_truth_counts_where_it_is_found():
    summary = summarise([score_image(ONE, objects([[1, 1, 0, 2], [1, 1, 0, 2]], [1, 2]), name="a")])
    assert list(summary.by_class) == [1, 2]
    assert summary.panoptic_quality.value == 0.5


def test_nothing_there_and_nothing_found_scores_one():
    summary = summarise([score_image(NOTHING, NOTHING, name="a")])
    for measure in ("panoptic_quality", "segmentation_quality", "recognition_quality", "by_image"):
        assert getattr(summary, measure) == Interval(1.0, 1.0, 1.0)
    assert summary.by_class == {}


def test_empty_images_count_by_image_but_not_pooled():
    scores = scores_of([(NOTHING, NOTHING), (ONE, NOTHING), (NOTHING, ONE), (ONE, ONE)])
    summary = summarise(scores)
    assert summary.by_image.value == 0.5
    assert summary.panoptic_quality.value == pytest.approx(1 / 2)  # TP 1, FP 1, FN 1
    assert summary.panoptic_quality.high == 1


def test_a_perfect_result_scores_one_also_with_ignored_pixels():
    pairs = [(truth, truth) for truth, _ in images()[:60]]
    for ignore in (None, [random_ignore(seed) for seed in range(60)]):
        summary = summarise(scores_of(pairs, ignore))
        assert summary.panoptic_quality == summary.by_image == Interval(1.0, 1.0, 1.0)


def test_label_numbers_do_not_matter():
    for truth, found in images()[:20]:
        turned = Instances(
            np.where(found.labels > 0, len(found) + 1 - found.labels, 0).astype(np.int32),
            found.classes[::-1],
            found.scores,
        )
        one, other = score_image(truth, found, name="a"), score_image(truth, turned, name="a")
        for part in ("classes", "tp", "fp", "fn"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))
        np.testing.assert_allclose(one.matched_iou, other.matched_iou)


def test_quality_is_segmentation_times_recognition_in_each_class():
    for each in summarise(scores_of(images())).by_class.values():
        product = each.segmentation_quality.value * each.recognition_quality.value
        assert each.panoptic_quality.value == pytest.approx(product)
        assert each.panoptic_quality.low < each.panoptic_quality.value < each.panoptic_quality.high


def test_intervals_are_the_same_each_time_and_by_image_as_wide_as_the_standard_error_says():
    scores = scores_of(images()[:100])
    summary = summarise(scores)
    assert summarise(scores) == summary
    assert summarise(scores, seed=1).panoptic_quality.low != summary.panoptic_quality.low
    error = np.std([image.panoptic_quality for image in scores]) / 10
    assert (summary.by_image.high - summary.by_image.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_a_class_that_few_images_have_gets_an_interval_from_the_samples_that_have_it():
    scores = [score_image(TOUCHING, TOUCHING, name="a"), *scores_of([(ONE, ONE), (ONE, NOTHING)])]
    assert summarise(scores).by_class[2].panoptic_quality == Interval(1.0, 1.0, 1.0)


def test_a_paired_difference_is_that_of_the_values_and_narrower():
    pairs = images()[:100]
    worse, better = scores_of(pairs), scores_of([(truth, truth) for truth, _ in pairs])
    difference, mean = paired_difference(better, worse[::-1]), summarise(worse)
    for measure in ("panoptic_quality", "segmentation_quality", "recognition_quality", "by_image"):
        assert getattr(difference, measure).value == pytest.approx(1 - getattr(mean, measure).value)
    assert difference.panoptic_quality.low > 0
    assert difference.n_images == 100
    same = paired_difference(worse, worse)
    assert same.panoptic_quality == same.by_image == Interval(0.0, 0.0, 0.0)


def test_inputs_are_left_alone():
    truth, found = images()[3]
    copies = truth.labels.copy(), found.labels.copy()
    score_image(truth, found, name="a", ignore=truth.labels == 1)
    np.testing.assert_array_equal(truth.labels, copies[0])
    np.testing.assert_array_equal(found.labels, copies[1])


def test_what_cannot_be_scored_is_refused():
    scores = score_image(ONE, ONE, name="a")
    with pytest.raises(InputError, match="a data set needs at least one"):
        summarise([])
    with pytest.raises(InputError, match="a data set needs at least one"):
        paired_difference([], [])
    with pytest.raises(InputError, match="only one of the two has a"):
        paired_difference([scores], [score_image(ONE, ONE, name="b")])
    with pytest.raises(InputError, match="share a name"):
        paired_difference([scores, scores], [scores, scores])
    with pytest.raises(InputError, match=r"cells: .* truth \(2, 4\), found \(1, 1\)"):
        score_image(ONE, objects([[1]]), name="cells")
    with pytest.raises(InputError, match="negative"):
        score_image(ONE, objects([[1, -1, 0, 0], [0, 0, 0, 0]]), name="a")
