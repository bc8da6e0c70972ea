"""Counts and values against stardist's; laws of the intervals."""

import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from stardist.matching import matching, matching_dataset
from tests.metrics.pairing import scoring

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.average_precision import (
    THRESHOLDS,
    ImageScores,
    Summary,
    average_precision,
    paired_difference,
    summarise,
)
from attractor.metrics.average_precision import score_image as score_pair
from attractor.metrics.bootstrap import Interval

score_image = scoring(score_pair)

VECTORS = {
    vector["id"]: vector
    for vector in json.loads((Path(__file__).parent.parent / "vectors.json").read_text(encoding="utf-8"))["vectors"]
}
ALL_THRESHOLDS = (0.1, 0.25, 0.3, 0.4, *THRESHOLDS, 1.0)


def blocks(seed: int, n: int = 12, side: int = 40) -> np.ndarray:
    """Rectangles that hide each other, with gaps in the label numbers."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for label in draw.permutation(5 * n)[: draw.integers(n + 1)] + 1:
        row, column = draw.integers(side - 4, size=2)
        height, width = draw.integers(1, 14, size=2)
        labels[row : row + height, column : column + width] = label
    return labels


def moved(labels: np.ndarray, seed: int) -> np.ndarray:
    """The same objects: some missing, some split, all shifted a little."""
    draw = np.random.default_rng(seed)
    found = np.roll(labels, draw.integers(-2, 3, size=2), (0, 1))
    ids = np.unique(found)[1:]
    found = np.where(np.isin(found, ids[draw.random(len(ids)) < 0.2]), 0, found)
    split = np.isin(found, ids[draw.random(len(ids)) < 0.3])
    split[: found.shape[0] // 2] = False
    return np.where(split, found + 1000, found).astype(np.int32)


def pairs() -> list[tuple[np.ndarray, np.ndarray]]:
    near = [(blocks(seed), moved(blocks(seed), seed)) for seed in range(100)]
    return near + [(blocks(seed), blocks(seed + 1000)) for seed in range(50)]


def in_image(rows: list[list[int]]) -> np.ndarray:
    return np.array(rows, np.int32)


NOTHING = np.zeros((4, 6), np.int32)
ONE = np.pad(in_image([[1, 1], [1, 1]]), ((1, 1), (1, 3)))
TOUCHING = np.pad(in_image([[1, 1, 2, 2], [1, 1, 2, 2]]), 1)
HALVES = np.pad(in_image([[1, 1, 1, 1], [2, 2, 2, 2]]), 1)
WHOLE = np.pad(in_image([[1, 1, 1, 1], [1, 1, 1, 1]]), 1)
PIXEL = np.pad(in_image([[7]]), ((2, 1), (2, 3)))
FULL = np.ones((4, 6), np.int32)


def score(pairs: Iterable[tuple[np.ndarray, np.ndarray]], **options: object) -> Summary:
    truth, found = zip(*pairs, strict=True)
    return average_precision(truth, found, **options)


def assert_like_stardist(truth: np.ndarray, found: np.ndarray) -> None:
    ours = score_image(truth, found, name="image", thresholds=ALL_THRESHOLDS)
    for i, theirs in enumerate(matching(truth, found, thresh=ALL_THRESHOLDS)):
        assert (ours.tp[i], ours.fp[i], ours.fn[i]) == (theirs.tp, theirs.fp, theirs.fn)
        assert ours.matched_iou[i] == pytest.approx(theirs.mean_matched_score * theirs.tp, abs=1e-5)
        if ours.n_truth or ours.n_found:
            assert ours.average_precision[i] == pytest.approx(theirs.accuracy)
    assert (ours.n_truth, ours.n_found) == (theirs.n_true, theirs.n_pred)


def test_counts_equal_stardist_on_random_pairs():
    for truth, found in pairs():
        assert_like_stardist(truth, found)


@pytest.mark.parametrize("truth", [NOTHING, ONE, TOUCHING, HALVES, WHOLE, PIXEL, FULL])
@pytest.mark.parametrize("found", [NOTHING, ONE, TOUCHING, HALVES, WHOLE, PIXEL, FULL])
def test_counts_equal_stardist_on_awkward_pairs(truth, found):
    assert_like_stardist(truth, found)


def test_pooled_values_equal_stardist():
    summary = score(pairs(), thresholds=ALL_THRESHOLDS)
    truth, found = zip(*pairs(), strict=True)
    for i, theirs in enumerate(matching_dataset(truth, found, thresh=ALL_THRESHOLDS, show_progress=False)):
        assert (summary.tp[i], summary.fp[i], summary.fn[i]) == (theirs.tp, theirs.fp, theirs.fn)
        assert summary.average_precision.value[i] == pytest.approx(theirs.accuracy)
        assert summary.precision.value[i] == pytest.approx(theirs.precision)
        assert summary.recall.value[i] == pytest.approx(theirs.recall)
        assert summary.f1.value[i] == pytest.approx(theirs.f1)
        assert summary.panoptic_quality.value[i] == pytest.approx(theirs.panoptic_quality, abs=1e-5)
        assert summary.mean_matched_iou.value[i] == pytest.approx(theirs.mean_matched_score, abs=1e-5)
    assert (summary.n_truth, summary.n_found) == (theirs.n_true, theirs.n_pred)


def test_values_by_image_equal_stardist_where_there_is_something():
    some = [(truth, found) for truth, found in pairs() if truth.any() or found.any()]
    truth, found = zip(*some, strict=True)
    theirs = matching_dataset(truth, found, thresh=THRESHOLDS, by_image=True, show_progress=False)
    summary = score(some)
    assert summary.n_images == len(some)
    np.testing.assert_allclose(summary.by_image.value, [each.accuracy for each in theirs])
    assert summary.mean_average_precision.value == pytest.approx(np.mean([each.accuracy for each in theirs]))


def test_values_on_real_images_equal_stardist(data_folder):
    names = sorted(path.name for path in (data_folder / "nuclei" / "test_stardist").glob("*.png"))
    truth, found = (
        [np.array(Image.open(data_folder / "nuclei" / folder / name)).astype(np.int32) for name in names]
        for folder in ("test/labels", "test_stardist")
    )
    summary = score(zip(truth, found, strict=True))
    for by_image, estimate in ((False, summary.average_precision), (True, summary.by_image)):
        theirs = matching_dataset(truth, found, thresh=THRESHOLDS, by_image=by_image, show_progress=False)
        np.testing.assert_allclose(estimate.value, [each.accuracy for each in theirs])


def test_vector_of_embedseg():
    vector = VECTORS["ES-APDSB"]
    expected = {float(threshold): values for threshold, values in vector["expected"].items()}
    pair = (in_image(vector["inputs"]["gt"]), in_image(vector["inputs"]["pred"]))
    summary = score([pair], thresholds=tuple(expected))
    for threshold, values in expected.items():
        i = summary.index(threshold)
        assert (summary.tp[i], summary.fp[i], summary.fn[i]) == (values["tp"], values["fp"], values["fn"])
        assert summary.by_image.value[i] == pytest.approx(values["accuracy"])
        assert summary.precision.value[i] == pytest.approx(values["precision"])
        assert summary.recall.value[i] == pytest.approx(values["recall"])
        assert summary.f1.value[i] == pytest.approx(values["f1"])


def test_by_hand():
    truth = in_image([[1, 1, 1, 1, 0, 2]])
    found = in_image([[1, 1, 1, 0, 3, 3]])  # IoU 3/4 and 1/2
    scores = score_image(truth, found, name="image", thresholds=(0.5, 0.75, 0.8))
    assert scores.tp.tolist() == [2, 1, 0]
    assert scores.fp.tolist() == [0, 1, 2]
    assert scores.fn.tolist() == [0, 1, 2]
    assert scores.matched_iou.tolist() == [1.25, 0.75, 0]
    assert scores.average_precision.tolist() == pytest.approx([1, 1 / 3, 0])


def test_a_match_reaches_its_threshold_exactly():
    truth = in_image([[1, 1, 1, 1, 1]])
    found = in_image([[1, 1, 1, 0, 0]])
    assert score_image(truth, found, name="image", thresholds=(0.6,)).tp == 1
    assert score_image(truth, found, name="image", thresholds=tuple(np.arange(0.5, 1, 0.05))).tp.sum() == 3


def test_label_numbers_do_not_matter():
    for truth, found in pairs()[:20]:
        draw = np.random.default_rng(1)
        numbers = np.concatenate([[0], draw.permutation(70_000)[:4000] + 1])
        ours = score_image(truth, found, name="image")
        other = score_image(numbers[truth], numbers[found], name="image")
        assert_same(ours, other)


def assert_same(first: ImageScores, second: ImageScores) -> None:
    for field in ("tp", "fp", "fn"):
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field))
    np.testing.assert_allclose(first.matched_iou, second.matched_iou)


def test_a_perfect_result_scores_one():
    summary = score([(truth, truth) for truth, _ in pairs()])
    for estimate in (summary.by_image, summary.average_precision, summary.f1, summary.panoptic_quality):
        np.testing.assert_array_equal([estimate.value, estimate.low, estimate.high], 1)


def test_nothing_there_and_nothing_found_scores_one():
    summary = score([(NOTHING, NOTHING)])
    assert summary.mean_average_precision == Interval(1.0, 1.0, 1.0)
    for measure in ("by_image", "average_precision", "precision", "recall", "f1", "panoptic_quality"):
        np.testing.assert_array_equal(getattr(summary, measure).value, 1)


def test_empty_images_count_by_image_but_not_pooled():
    summary = score([(NOTHING, NOTHING), (ONE, NOTHING), (NOTHING, ONE), (ONE, ONE)])
    np.testing.assert_array_equal(summary.by_image.value, 0.5)
    np.testing.assert_allclose(summary.average_precision.value, 1 / 3)


def test_ignored_pixels_count_for_nothing():
    truth = in_image([[1, 1, 1, 1, 0, 0, 2, 2]])
    found = in_image([[1, 1, 5, 0, 0, 0, 3, 0]])
    ignore = in_image([[0, 0, 1, 1, 0, 0, 1, 1]]).astype(bool)
    scores = score_image(truth, found, name="image", thresholds=(0.95,), ignore=ignore)
    assert (scores.tp[0], scores.fp[0], scores.fn[0]) == (1, 0, 0)  # 2, 3 and 5 lie on ignored pixels alone
    assert (scores.n_truth, scores.n_found) == (1, 3)


def test_found_objects_mostly_on_ignored_pixels_are_no_false_positives():
    found = in_image([[1, 1, 1, 0, 2, 2, 2, 2]])
    ignore = in_image([[0, 1, 1, 0, 0, 0, 1, 1]]).astype(bool)
    scores = score_image(np.zeros_like(found), found, name="image", thresholds=(0.3, 0.5), ignore=ignore)
    assert scores.fp.tolist() == [1, 1]  # 1 lies there with two of three pixels, 2 with only half


def test_a_match_mostly_on_ignored_pixels_still_counts():
    truth = in_image([[1, 1, 1, 0]])
    ignore = in_image([[0, 1, 1, 0]]).astype(bool)
    scores = score_image(truth, truth, name="image", thresholds=(0.3, 0.5), ignore=ignore)
    assert (scores.tp.tolist(), scores.fp.tolist(), scores.fn.tolist()) == ([1, 1], [0, 0], [0, 0])


def test_ignoring_nothing_changes_nothing():
    for truth, found in pairs()[:20]:
        ignore = np.zeros(truth.shape, bool)
        assert_same(score_image(truth, found, name="a"), score_image(truth, found, name="a", ignore=ignore))


def test_objects_of_different_classes_do_not_match():
    truth, found = (Instances(TOUCHING, np.array(classes), np.ones(2, np.float32)) for classes in ([1, 2], [1, 1]))
    scores = score_image(truth, found, name="image", thresholds=(0.2, 0.5))
    assert (scores.tp.tolist(), scores.fp.tolist(), scores.fn.tolist()) == ([1, 1], [1, 1], [1, 1])
    same = score_image(truth, truth, name="image")
    assert (same.tp == 2).all()


def test_inputs_are_left_alone():
    truth, found = blocks(1), blocks(2)
    copies = truth.copy(), found.copy()
    score_image(truth, found, name="image", ignore=truth == 3)
    np.testing.assert_array_equal(truth, copies[0])
    np.testing.assert_array_equal(found, copies[1])


def scores_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[ImageScores]:
    return [score_image(truth, found, name=f"image {i}") for i, (truth, found) in enumerate(pairs)]


def test_intervals_are_the_same_each_time_and_hold_their_value():
    images = scores_of(pairs()[:100])
    first, second, other = summarise(images), summarise(images), summarise(images, seed=1)
    for measure in (
        "by_image",
        "average_precision",
        "precision",
        "recall",
        "f1",
        "panoptic_quality",
        "mean_matched_iou",
    ):
        estimate, again = getattr(first, measure), getattr(second, measure)
        np.testing.assert_array_equal(estimate.low, again.low)
        np.testing.assert_array_equal(estimate.high, again.high)
        assert (estimate.low <= estimate.value).all()
        assert (estimate.value <= estimate.high).all()
        assert (estimate.low < estimate.high)[:5].all()
    assert first.by_image.low[0] != other.by_image.low[0]
    assert first.by_image.low[0] == pytest.approx(other.by_image.low[0], abs=0.01)


def test_intervals_are_as_wide_as_the_standard_error_says():
    images = scores_of(pairs()[:100])
    estimate = summarise(images).by_image.at(0)
    error = np.std([image.average_precision[0] for image in images]) / 10
    assert (estimate.high - estimate.low) / 2 == pytest.approx(1.96 * error, rel=0.1)


def test_one_image_has_no_spread():
    summary = summarise(scores_of(pairs()[:1]))
    np.testing.assert_array_equal(summary.by_image.low, summary.by_image.high)


def test_the_order_of_images_does_not_matter_to_values():
    images = scores_of(pairs()[:30])
    np.testing.assert_allclose(summarise(images).by_image.value, summarise(images[::-1]).by_image.value)


def test_a_paired_difference_is_that_of_the_means_and_narrower_than_either():
    images = scores_of(pairs()[:100])
    better = scores_of([(truth, np.where(found >= 1000, found - 1000, found)) for truth, found in pairs()[:100]])
    difference = paired_difference(better, images[::-1])
    mean, other = summarise(better), summarise(images)
    np.testing.assert_allclose(difference.by_image.value, mean.by_image.value - other.by_image.value)
    assert difference.n_images == 100
    assert difference.mean_average_precision.value > 0
    spread = mean.by_image.high[0] - mean.by_image.low[0]
    assert difference.by_image.high[0] - difference.by_image.low[0] < spread
    perfect = scores_of([(truth, truth) for truth, _ in pairs()[:100]])
    assert paired_difference(perfect, images).mean_average_precision.low > 0
    assert paired_difference(images, images).mean_average_precision == Interval(0.0, 0.0, 0.0)


def test_a_data_set_without_images_is_refused():
    with pytest.raises(InputError, match="at least one"):
        summarise([])
    with pytest.raises(InputError, match="at least one"):
        average_precision([], [])


def test_images_of_different_shape_are_refused():
    with pytest.raises(InputError, match=r"cells: .* truth \(4, 6\), found \(1, 1\)"):
        score_image(ONE, in_image([[1]]), name="cells")


@pytest.mark.parametrize("thresholds", [(), (0.0,), (0.5, 1.01), (float("nan"),)])
def test_thresholds_out_of_range_are_refused(thresholds):
    with pytest.raises(InputError, match="above 0 and up to 1"):
        score_image(ONE, ONE, name="image", thresholds=thresholds)


def test_negative_labels_are_refused():
    with pytest.raises(InputError, match="negative"):
        score_image(ONE, -ONE, name="image")


def test_thresholds_must_agree():
    images = [score_image(ONE, ONE, name="a"), score_image(ONE, ONE, name="b", thresholds=(0.5,))]
    with pytest.raises(InputError, match=r"a was scored at .* but b at"):
        summarise(images)
    with pytest.raises(InputError, match=r"Nothing was measured at IoU 0\.3"):
        summarise(images[:1]).index(0.3)


def test_only_results_on_the_same_images_are_compared():
    a, b = score_image(ONE, ONE, name="a"), score_image(ONE, ONE, name="b")
    with pytest.raises(InputError, match="only one of the two has b"):
        paired_difference([a, b], [a])
    with pytest.raises(InputError, match="share a name"):
        paired_difference([a, a], [a, a])
