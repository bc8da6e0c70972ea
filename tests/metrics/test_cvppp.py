"""The leaf challenge's metrics: a vector of the official scripts, cases by hand, and laws."""

import json
from pathlib import Path

import numpy as np
import pytest
from tests.metrics.pairing import scoring

from attractor.errors import InputError
from attractor.metrics.bootstrap import Interval
from attractor.metrics.cvppp import LeafScores, paired_difference, summarise
from attractor.metrics.cvppp import score_image as score_pair

score_image = scoring(score_pair)

VECTORS = {
    vector["id"]: vector
    for vector in json.loads((Path(__file__).parent.parent / "vectors.json").read_text(encoding="utf-8"))["vectors"]
}
NOTHING = np.zeros((3, 8), np.int32)
TWO = np.array([[1, 1, 1, 1, 0, 2, 2, 0]], np.int32)


def row(*labels: int) -> np.ndarray:
    return np.array([labels], np.int32)


def random_labels(seed: int, n: int = 9, side: int = 30) -> np.ndarray:
    """Rectangles that hide each other."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((side, side), np.int32)
    for label in range(1, draw.integers(1, n + 1) + 1):
        top, left = draw.integers(side - 4, size=2)
        height, width = draw.integers(1, 14, size=2)
        labels[top : top + height, left : left + width] = label
    return labels


def best_dice(of: np.ndarray, others: np.ndarray) -> float:
    """The definition, pixel by pixel."""
    best = []
    for a in set(of[of > 0].tolist()):
        dices = [
            2 * ((of == a) & (others == b)).sum() / ((of == a).sum() + (others == b).sum())
            for b in set(others[others > 0].tolist())
        ]
        best.append(max(dices, default=0.0))
    return float(np.mean(best))


def scores_of(pairs: list[tuple[np.ndarray, np.ndarray]]) -> list[LeafScores]:
    return [score_image(truth, found, name=f"image {i}") for i, (truth, found) in enumerate(pairs)]


def test_vector_of_the_official_scripts():
    vector = VECTORS["CVPPP-SBD"]
    truth, found = (np.array(vector["inputs"][name], np.int32) for name in ("gt", "pred"))
    expected, near = vector["expected"], vector["tolerance_abs"]
    scores = score_image(truth, found, name="plant")
    assert scores.best_dice_of_found == pytest.approx(expected["best_dice_pred_to_gt"], abs=near)
    assert scores.best_dice_of_truth == pytest.approx(expected["best_dice_gt_to_pred"], abs=near)
    assert scores.symmetric_best_dice == pytest.approx(expected["SBD"], abs=near)
    assert scores.foreground_dice == pytest.approx(expected["foreground_dice"], abs=near)
    assert scores.difference_in_count == expected["DiC"]
    assert abs(scores.difference_in_count) == expected["abs_DiC"]
    empty = score_image(truth, np.zeros_like(found), name="plant")
    assert empty.symmetric_best_dice == expected["SBD_empty_prediction"]
    # the official scripts answer 0.338 and 2 here: labels are compacted first
    renamed = score_image(truth, np.where(found == 2, 5, found), name="plant")
    assert renamed == scores


def test_by_hand():
    scores = score_image(TWO, row(7, 7, 0, 0, 0, 9, 9, 9), name="plant")  # Dice 4/6 and 4/5
    assert scores.symmetric_best_dice == pytest.approx((4 / 6 + 4 / 5) / 2)
    assert scores.foreground_dice == pytest.approx(2 * 4 / 11)
    assert (scores.difference_in_count, scores.n_truth, scores.n_found) == (0, 2, 2)


def test_both_directions_are_the_definition_on_random_images():
    for seed in range(40):
        truth, found = random_labels(seed), random_labels(seed + 1000)
        scores = score_image(truth, found, name="plant")
        assert scores.best_dice_of_truth == pytest.approx(best_dice(truth, found))
        assert scores.best_dice_of_found == pytest.approx(best_dice(found, truth))


def test_truth_and_found_exchanged_change_the_sign_of_the_count_alone():
    for seed in range(10):
        truth, found = random_labels(seed), random_labels(seed + 1000)
        one, other = score_image(truth, found, name="plant"), score_image(found, truth, name="plant")
        assert one.symmetric_best_dice == other.symmetric_best_dice
        assert one.foreground_dice == other.foreground_dice
        assert one.difference_in_count == -other.difference_in_count


def test_a_perfect_result_scores_one_also_with_ignored_pixels():
    for seed in range(10):
        truth = random_labels(seed)
        ignore = np.random.default_rng(seed).random(truth.shape) < 0.6
        for ignored in (None, ignore):
            scores = score_image(truth, truth, name="plant", ignore=ignored)
            assert (scores.symmetric_best_dice, scores.foreground_dice, scores.difference_in_count) == (1, 1, 0)


def test_label_numbers_do_not_matter():
    truth, found = random_labels(1), random_labels(2)
    numbers = np.concatenate([[0], np.random.default_rng(0).permutation(5000)[:20] + 1])
    assert score_image(numbers[truth], numbers[found], name="a") == score_image(truth, found, name="a")


@pytest.mark.parametrize(
    ("truth", "found", "dice", "count"),
    [(NOTHING, NOTHING, 1, 0), (NOTHING, NOTHING + 1, 0, 1), (NOTHING + 1, NOTHING, 0, -1)],
)
def test_where_nothing_is(truth, found, dice, count):
    scores = score_image(truth, found, name="plant")
    assert (scores.symmetric_best_dice, scores.foreground_dice) == (dice, dice)
    assert scores.difference_in_count == count


def test_ignored_pixels_count_for_nothing():
    ignore = row(0, 0, 1, 1, 0, 1, 1, 0).astype(bool)
    found = row(5, 5, 6, 6, 0, 0, 0, 0)  # 6 lies on ignored pixels alone, as true 2 does
    scores = score_image(TWO, found, name="plant", ignore=ignore)
    assert (scores.symmetric_best_dice, scores.foreground_dice) == (1, 1)
    assert (scores.n_truth, scores.n_found) == (1, 1)


def test_an_object_mostly_on_ignored_pixels_counts_only_as_a_match():
    ignore = row(0, 0, 0, 0, 1, 1, 1, 0).astype(bool)
    truth = row(1, 1, 1, 1, 0, 0, 0, 0)
    spilled = score_image(truth, row(1, 1, 1, 2, 2, 2, 2, 0), name="plant", ignore=ignore)
    assert (spilled.n_found, spilled.best_dice_of_found) == (1, pytest.approx(6 / 7))
    matching = score_image(truth, row(0, 0, 1, 1, 1, 1, 1, 0), name="plant", ignore=ignore)
    assert (matching.n_found, matching.best_dice_of_found) == (1, pytest.approx(4 / 6))


def test_inputs_are_left_alone():
    truth, found = random_labels(1), random_labels(2)
    copies = truth.copy(), found.copy()
    score_image(truth, found, name="plant", ignore=truth == 3)
    np.testing.assert_array_equal(truth, copies[0])
    np.testing.assert_array_equal(found, copies[1])


def test_a_summary_means_over_images():
    more = score_image(TWO, row(1, 1, 1, 1, 0, 2, 2, 3), name="a")
    fewer = score_image(TWO, row(1, 1, 1, 1, 0, 0, 0, 0), name="b")
    summary = summarise([more, fewer])
    assert summary.difference_in_count == Interval(0.0, -1.0, 1.0)
    assert summary.absolute_difference_in_count == Interval(1.0, 1.0, 1.0)
    assert summary.symmetric_best_dice.value == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert summary.foreground_dice.value == pytest.approx((12 / 13 + 8 / 10) / 2)
    assert (summary.n_truth, summary.n_found, summary.n_images) == (4, 4, 2)


def test_intervals_are_as_wide_as_the_standard_error_says():
    images = scores_of([(random_labels(seed), random_labels(seed + 1000)) for seed in range(100)])
    interval = summarise(images).symmetric_best_dice
    error = np.std([image.symmetric_best_dice for image in images]) / 10
    assert (interval.high - interval.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert summarise(images) == summarise(images)


def test_a_paired_difference_is_that_of_the_means():
    pairs = [(random_labels(seed), random_labels(seed + 1000)) for seed in range(30)]
    worse, perfect = scores_of(pairs), scores_of([(truth, truth) for truth, _ in pairs])
    difference = paired_difference(perfect, worse[::-1])
    for measure in ("symmetric_best_dice", "absolute_difference_in_count", "foreground_dice"):
        means = getattr(summarise(perfect), measure).value - getattr(summarise(worse), measure).value
        assert getattr(difference, measure).value == pytest.approx(means)
    assert difference.symmetric_best_dice.low > 0
    assert difference.n_images == 30
    assert paired_difference(worse, worse).difference_in_count == Interval(0.0, 0.0, 0.0)


def test_what_cannot_be_scored_is_refused():
    scores = score_image(TWO, TWO, name="a")
    with pytest.raises(InputError, match="a data set needs at least one"):
        summarise([])
    with pytest.raises(InputError, match="a data set needs at least one"):
        paired_difference([], [])
    with pytest.raises(InputError, match="only one of the two has a"):
        paired_difference([scores], [score_image(TWO, TWO, name="b")])
    with pytest.raises(InputError, match="share a name"):
        paired_difference([scores, scores], [scores, scores])
    with pytest.raises(InputError, match=r"plant: .* truth \(1, 8\), found \(3, 8\)"):
        score_image(TWO, NOTHING, name="plant")
    with pytest.raises(InputError, match="negative"):
        score_image(TWO, -TWO, name="plant")
