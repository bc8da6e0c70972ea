"""AP^r against a plain loop, by hand, and by law."""

import numpy as np
import pytest
from tests.metrics.pairing import scoring

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.bootstrap import Interval, bootstrap_weights
from attractor.metrics.pascal_voc import THRESHOLDS, VocScores, paired_difference, summarise
from attractor.metrics.pascal_voc import score_image as score_pair

score_image = scoring(score_pair)

SIDE = 24
CLASSES = 3


def objects(rows: list[list[int]], scores: list[float] | None = None, classes: list[int] | None = None) -> Instances:
    labels = np.array(rows, np.int32)
    n = int(labels.max(initial=0))
    return Instances(labels, np.array(classes or [1] * n, np.int32), np.array(scores or [1.0] * n, np.float32))


def random_truth(seed: int) -> Instances:
    """Rectangles that touch and hide each other."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int32)
    for label in range(1, draw.integers(7)):
        top, left = draw.integers(SIDE - 2, size=2)
        height, width = draw.integers(1, 14, size=2)
        labels[top : top + height, left : left + width] = label
    k = int(labels.max(initial=0))
    return Instances(labels, draw.integers(1, CLASSES + 1, size=k), np.ones(k, np.float32))


def random_found(truth: Instances, seed: int) -> Instances:
    """Masks near the true ones, which may overlap, with scores of their own."""
    draw = np.random.default_rng(seed + 5000)
    masks, classes = [], []
    for label in range(1, len(truth) + 1):
        for _ in range(draw.integers(4)):
            mask = np.roll(truth.labels == label, draw.integers(-2, 3, size=2), (0, 1))
            if mask.any():
                masks.append(mask)
                wrong = draw.random() < 0.2
                classes.append(draw.integers(1, CLASSES + 2) if wrong else truth.classes[label - 1])
    scores = draw.random(len(masks)).astype(np.float32)
    return Instances.from_masks(masks, np.array(classes, np.int64), scores, truth.labels.shape)


def images(n: int = 60) -> list[tuple[Instances, Instances]]:
    return [(truth := random_truth(seed), random_found(truth, seed)) for seed in range(n)]


def random_ignore(seed: int) -> np.ndarray:
    draw = np.random.default_rng(seed)
    ignore = np.zeros((SIDE, SIDE), bool)
    top, left = draw.integers(SIDE - 6, size=2)
    ignore[top : top + draw.integers(1, 14), left : left + draw.integers(1, 14)] = True
    return ignore


def scores_of(pairs: list[tuple[Instances, Instances]], ignore: list[np.ndarray] | None = None) -> list[VocScores]:
    return [
        score_image(truth, found, name=f"image {i}", ignore=None if ignore is None else ignore[i])
        for i, (truth, found) in enumerate(pairs)
    ]


def plain_ap(
    pairs: list[tuple[Instances, Instances]],
    ignore: list[np.ndarray] | None,
    number: int,
    threshold: float,
) -> float | None:
    """AP of one class as the paper has it, object by object; None without a true object."""
    true_masks, ranked = [], []
    for i, (truth, found) in enumerate(pairs):
        counted = np.ones(truth.labels.shape, bool) if ignore is None else ~ignore[i]
        own = [(truth.labels == k + 1) & counted for k in range(len(truth)) if truth.classes[k] == number]
        true_masks.append([mask for mask in own if mask.any()])
        for k in range(len(found)):
            mask = found.mask(k + 1)
            if found.classes[k] == number and mask.any():
                ranked.append((-found.scores[k], i, k, mask & counted, 2 * (mask & ~counted).sum() > mask.sum()))
    n_truth = sum(len(masks) for masks in true_masks)
    if not n_truth:
        return None
    taken, hits = set(), []
    for _, i, _, mask, forgiven in sorted(ranked, key=lambda entry: entry[:3]):
        ious = [(mask & other).sum() / (mask | other).sum() for other in true_masks[i]]
        best = int(np.argmax(ious)) if ious else -1
        if ious and ious[best] >= threshold and (i, best) not in taken:
            taken.add((i, best))
            hits.append(True)
        elif not forgiven:
            hits.append(False)
    precision = [sum(hits[: m + 1]) / (m + 1) for m in range(len(hits))]
    return sum(max(precision[m:]) for m in range(len(hits)) if hits[m]) / n_truth


def plain_mean(pairs: list[tuple[Instances, Instances]], ignore: list[np.ndarray] | None = None) -> list[float]:
    """Mean over classes at each threshold."""
    means = []
    for threshold in THRESHOLDS:
        values = [plain_ap(pairs, ignore, number, threshold) for number in range(1, CLASSES + 1)]
        means.append(float(np.mean([value for value in values if value is not None])))
    return means


@pytest.mark.parametrize("with_ignored", [False, True])
def test_ap_is_the_definition_on_random_data_sets(with_ignored, monkeypatch):
    monkeypatch.setattr("attractor.metrics.bootstrap.N_SAMPLES", 2)
    for start in range(0, 60, 12):
        pairs = images()[start : start + 12]
        ignore = [random_ignore(start + i) for i in range(12)] if with_ignored else None
        summary = summarise(scores_of(pairs, ignore))
        np.testing.assert_allclose(summary.average_precision.value, plain_mean(pairs, ignore))
        assert summary.volume.value == pytest.approx(np.mean(plain_mean(pairs, ignore)))
        for number, each in summary.by_class.items():
            expected = [plain_ap(pairs, ignore, number, threshold) for threshold in THRESHOLDS]
            np.testing.assert_allclose(each.average_precision.value, expected)


def test_a_bootstrap_sample_is_the_data_set_with_images_so_often(monkeypatch):
    monkeypatch.setattr("attractor.metrics.bootstrap.N_SAMPLES", 5)
    monkeypatch.setattr("attractor.metrics.pascal_voc.NUMBERS_AT_ONCE", 60)
    pairs = images(10)
    ignore = [random_ignore(seed) for seed in range(10)]
    expected = []
    for often in bootstrap_weights(10, 0):
        drawn = np.repeat(np.arange(10), often.astype(int))
        expected.append(plain_mean([pairs[i] for i in drawn], [ignore[i] for i in drawn]))
    low, high = np.quantile(expected, (0.025, 0.975), axis=0)
    average_precision = summarise(scores_of(pairs, ignore)).average_precision
    np.testing.assert_allclose(average_precision.low, low)
    np.testing.assert_allclose(average_precision.high, high)


TRUTH = objects([[1, 1, 1, 1, 0, 2, 2, 2, 2, 2]])


def at(summary_of: list[VocScores], *thresholds: float) -> list[float]:
    return summarise(summary_of, thresholds=thresholds).average_precision.value.tolist()


def test_by_hand():
    # ranked: 2 fits the second with 4/5, 1 nothing, 3 the first with 1/4
    found = objects([[3, 0, 0, 0, 1, 2, 2, 2, 2, 0]], [0.5, 0.9, 0.2])
    scores = score_image(TRUTH, found, name="row")
    assert scores.iou.tolist() == [0, 0.8, 0.25]
    assert at([scores], 0.2, 0.5, 0.8, 0.9) == pytest.approx([(1 + 2 / 3) / 2, 1 / 2, 1 / 2, 0])
    assert (scores.n_truth, scores.n_found) == (2, 3)


def test_precision_is_raised_to_the_highest_of_any_higher_recall():
    found = objects([[2, 2, 2, 2, 1, 3, 3, 3, 3, 3]], [0.9, 0.8, 0.7])  # false, true, true
    assert at([score_image(TRUTH, found, name="row")], 0.5) == pytest.approx([2 / 3])


def test_a_second_one_of_the_same_object_is_wrong_and_does_not_go_to_another():
    truth = objects([[1, 1, 1, 2, 2, 0]])
    masks = [np.array([[1, 1, 1, 1, 0, 0]], bool), np.array([[1, 1, 1, 1, 1, 0]], bool)]
    found = Instances.from_masks(masks, np.array([1, 1]), np.array([0.9, 0.8], np.float32), (1, 6))
    scores = score_image(truth, found, name="row")
    assert scores.iou.tolist() == [3 / 4, 3 / 5]  # both fit the first best; the other, which is free, 1/5 and 2/5
    assert scores.rival_iou.tolist() == [0, 3 / 4]
    assert at([scores], 0.4, 0.7, 0.8) == [1 / 2, 1 / 2, 0]


def test_a_better_ranked_one_takes_an_object_only_where_it_reaches_the_threshold():
    truth = objects([[1, 1, 1, 1, 1, 0]])
    masks = [np.array([[1, 1, 1, 0, 0, 0]], bool), np.array([[1, 1, 1, 1, 0, 0]], bool)]
    found = Instances.from_masks(masks, np.array([1, 1]), np.array([0.9, 0.8], np.float32), (1, 6))
    assert at([score_image(truth, found, name="row")], 0.6, 0.7, 0.9) == [1, 1 / 2, 0]


def test_objects_are_ranked_over_all_images():
    right = score_image(TRUTH, objects(TRUTH.labels.tolist(), [0.9, 0.2]), name="a")
    wrong = score_image(objects([[0, 0, 0]]), objects([[1, 0, 0]], [0.5]), name="b")
    assert at([right, wrong], 0.5) == pytest.approx([(1 + 2 / 3) / 2])


def test_of_equal_scores_the_earlier_image_and_the_lower_label_go_first():
    right = score_image(objects([[1, 1, 0]]), objects([[1, 1, 0]]), name="a")
    wrong = score_image(objects([[0, 0, 0]]), objects([[1, 0, 0]]), name="b")
    assert at([right, wrong], 0.5) == [1]
    assert at([wrong, right], 0.5) == [1 / 2]
    truth = objects([[1, 1, 0, 0]])
    assert at([score_image(truth, objects([[1, 1, 0, 2]]), name="a")], 0.5) == [1]
    assert at([score_image(truth, objects([[2, 2, 0, 1]]), name="a")], 0.5) == [1 / 2]


def test_objects_of_another_class_do_not_match():
    found = objects([[1, 1, 1, 1, 0, 2, 2, 2, 2, 2]], [0.9, 0.8], [1, 2])
    summary = summarise([score_image(TRUTH, found, name="row")])
    assert list(summary.by_class) == [1]  # nothing of class 2 is there
    assert summary.average_precision.value.tolist() == [1 / 2] * 9
    assert (summary.by_class[1].n_truth, summary.by_class[1].n_found, summary.n_found) == (2, 1, 2)


def test_whole_masks_count_where_the_label_image_hides_them():
    found = Instances.from_masks(
        [TRUTH.labels > 0, TRUTH.labels == 2], np.array([1, 1]), np.array([0.9, 0.1], np.float32), (1, 10)
    )
    assert score_image(TRUTH, found, name="row").iou.tolist() == [5 / 9, 1]


def test_without_overlaps_the_label_image_will_do():
    for seed in range(20):
        truth, found = random_truth(seed), random_truth(seed + 100)
        masks = [found.labels == label for label in range(1, len(found) + 1)]
        same = Instances.from_masks(masks, found.classes, found.scores, found.labels.shape)
        one, other = (score_image(truth, each, name="a", ignore=random_ignore(seed)) for each in (found, same))
        for part in ("classes", "scores", "iou", "rival_iou", "forgiven"):
            np.testing.assert_array_equal(getattr(one, part), getattr(other, part))


def test_ignored_pixels_are_taken_out():
    ignore = np.array([[0, 0, 1, 1, 0, 1, 1, 1, 1, 1]], bool)
    found = objects([[1, 1, 1, 0, 0, 2, 2, 2, 0, 0]], [0.5, 0.9])  # 2 lies where nothing counts, as the second true one
    scores = score_image(TRUTH, found, name="row", ignore=ignore)
    assert (scores.iou.tolist(), scores.forgiven.tolist()) == ([1, 0], [False, True])
    assert (scores.n_truth, scores.n_found) == (1, 2)
    assert at([scores], 0.9) == [1]


def test_only_more_than_half_on_ignored_pixels_is_forgiven_and_a_match_still_counts():
    ignore = np.array([[0, 1, 1, 0, 0, 0, 1, 1]], bool)
    found = objects([[1, 1, 1, 0, 2, 2, 2, 2]])
    nothing = score_image(objects([[0] * 8]), found, name="a", ignore=ignore)
    assert nothing.forgiven.tolist() == [True, False]
    assert at([score_image(found, found, name="b", ignore=ignore)], 0.9) == [1]


def test_an_object_without_a_pixel_is_left_out():
    gap = Instances(np.array([[1, 1, 0, 3]], np.int32), np.ones(3, np.int32), np.ones(3, np.float32))
    assert score_image(gap, gap, name="a").n_found == score_image(gap, gap, name="a").n_truth == 2
    empty = Instances.from_masks([np.zeros((1, 4), bool)], np.array([1]), np.array([0.5], np.float32), (1, 4))
    assert score_image(gap, empty, name="a").n_found == 0


def test_where_nothing_is_there():
    nothing, one = objects([[0, 0, 0]]), objects([[0, 1, 0]])
    for truth, found, expected in [(nothing, nothing, 1), (nothing, one, 0), (one, nothing, 0), (one, one, 1)]:
        summary = summarise([score_image(truth, found, name="a")])
        assert summary.volume == Interval(*[float(expected)] * 3)
        assert len(summary.by_class) == len(truth)
    one_pixel = np.array([[0, 1, 0]], bool)
    assert summarise([score_image(nothing, one, name="a", ignore=one_pixel)]).volume.value == 1


def test_a_perfect_result_scores_one_also_with_ignored_pixels():
    pairs = [(truth, truth) for truth, _ in images(40)]
    for ignore in (None, [random_ignore(seed) for seed in range(40)]):
        summary = summarise(scores_of(pairs, ignore))
        assert summary.volume == Interval(1.0, 1.0, 1.0)
        np.testing.assert_array_equal(summary.average_precision.low, 1)


def test_the_order_of_images_does_not_matter_where_scores_differ():
    scores = scores_of(images())
    first, second = summarise(scores), summarise(scores[::-1])
    np.testing.assert_allclose(first.average_precision.value, second.average_precision.value)


def test_intervals_are_the_same_each_time_and_hold_their_value():
    scores = scores_of(images())
    first, second, other = summarise(scores), summarise(scores), summarise(scores, seed=1)
    for part in ("low", "high"):
        np.testing.assert_array_equal(getattr(first.average_precision, part), getattr(second.average_precision, part))
    assert (first.average_precision.low < first.average_precision.value).all()
    assert (first.average_precision.value < first.average_precision.high).all()
    assert first.volume.low < first.volume.value < first.volume.high
    assert first.volume.low != other.volume.low
    assert first.volume.low == pytest.approx(other.volume.low, abs=0.02)


def test_a_paired_difference_is_that_of_the_values_and_narrower():
    pairs = images()
    worse, perfect = scores_of(pairs), scores_of([(truth, truth) for truth, _ in pairs])
    difference, summary = paired_difference(perfect, worse[::-1]), summarise(worse)
    np.testing.assert_allclose(difference.average_precision.value, 1 - summary.average_precision.value)
    assert difference.volume.value == pytest.approx(1 - summary.volume.value)
    assert difference.volume.low > 0
    assert difference.n_images == 60
    assert paired_difference(worse, worse).volume == Interval(0.0, 0.0, 0.0)


def test_inputs_are_left_alone():
    truth, found = images()[3]
    copies = truth.labels.copy(), found.labels.copy()
    score_image(truth, found, name="a", ignore=truth.labels == 1)
    np.testing.assert_array_equal(truth.labels, copies[0])
    np.testing.assert_array_equal(found.labels, copies[1])


def test_what_cannot_be_scored_is_refused():
    scores = score_image(TRUTH, TRUTH, name="a")
    with pytest.raises(InputError, match="a data set needs at least one"):
        summarise([])
    with pytest.raises(InputError, match="a data set needs at least one"):
        paired_difference([], [])
    with pytest.raises(InputError, match="only one of the two has a"):
        paired_difference([scores], [score_image(TRUTH, TRUTH, name="b")])
    with pytest.raises(InputError, match="share a name"):
        paired_difference([scores, scores], [scores, scores])
    with pytest.raises(InputError, match=r"cells: .* truth \(1, 10\), found \(1, 1\)"):
        score_image(TRUTH, objects([[1]]), name="cells")
    with pytest.raises(InputError, match="negative"):
        score_image(Instances(-TRUTH.labels, TRUTH.classes, TRUTH.scores), TRUTH, name="a")
    with pytest.raises(InputError, match="negative"):
        score_image(TRUTH, Instances(-TRUTH.labels, TRUTH.classes, TRUTH.scores), name="a")
    with pytest.raises(InputError, match="above 0 and up to 1"):
        summarise([scores], thresholds=(0.0,))
    with pytest.raises(InputError, match="above 0 and up to 1"):
        paired_difference([scores], [scores], thresholds=(1.1,))
    with pytest.raises(InputError, match=r"Nothing was measured at IoU 0\.55"):
        summarise([scores]).index(0.55)
    assert summarise([scores]).index(0.7) == 6
