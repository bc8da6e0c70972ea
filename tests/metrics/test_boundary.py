"""Boundary F against its definition and that of DAVIS, by hand, and by law."""

import numpy as np
import pytest
from tests.metrics.pairing import scoring

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.bootstrap import Interval
from attractor.metrics.boundary import BoundaryScores, boundaries, paired_difference, summarise
from attractor.metrics.boundary import score_image as score_pair

score_image = scoring(score_pair)

SIDE = 22


def objects(rows: list[list[int]]) -> Instances:
    return Instances.from_labels(np.array(rows, np.int32))


def block(top: int, left: int, bottom: int, right: int, size: int = 20) -> Instances:
    """One object."""
    labels = np.zeros((size, size), np.int32)
    labels[top:bottom, left:right] = 1
    return Instances.from_labels(labels)


def random_objects(seed: int, n: int = 7) -> Instances:
    """Rectangles of all sizes from one pixel on, that touch and hide each other."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE + 3), np.int32)
    for label in range(1, draw.integers(n + 1) + 1):
        top, left = draw.integers(SIDE, size=2)
        height, width = draw.integers(1, 12, size=2)
        labels[top : top + height, left : left + width] = label
    return Instances.from_labels(labels)


def random_ignore(seed: int) -> np.ndarray:
    ignore = np.zeros((SIDE, SIDE + 3), bool)
    top, left = np.random.default_rng(seed).integers(SIDE - 8, size=2)
    ignore[top : top + 8, left : left + 10] = True
    return ignore


def plain_boundary(labels: np.ndarray, ignore: np.ndarray) -> set[tuple[int, int]]:
    """Pixel by pixel."""
    height, width = labels.shape
    return {
        (row, column)
        for row in range(height)
        for column in range(width)
        for down, right in ((0, 1), (1, 0), (1, 1))
        if row + down < height
        and column + right < width
        and not ignore[row, column]
        and not ignore[row + down, column + right]
        and labels[row, column] != labels[row + down, column + right]
    }


def plain_scores(
    truth: np.ndarray, found: np.ndarray, ignore: np.ndarray, tolerance: float
) -> tuple[float, float, float]:
    """F, precision and recall, each pixel with each other."""
    true, own = (plain_boundary(np.where(ignore, 0, labels), ignore) for labels in (truth, found))
    if not true and not own:
        same = float((truth[~ignore] > 0).any() == (found[~ignore] > 0).any())
        return same, same, same

    def share(pixels: set[tuple[int, int]], others: set[tuple[int, int]]) -> float:
        met = [any((r - s) ** 2 + (c - d) ** 2 <= tolerance**2 for s, d in others) for r, c in pixels]
        return sum(met) / len(met) if met else 0.0

    precision, recall = share(own, true), share(true, own)
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0, precision, recall


def values(scores: BoundaryScores) -> tuple[float, float, float]:
    return scores.boundary_f, scores.precision, scores.recall


def pairs() -> list[tuple[Instances, Instances]]:
    return [(random_objects(seed), random_objects(seed + 1000)) for seed in range(100)]


def scores_of(given: list[tuple[Instances, Instances]]) -> list[BoundaryScores]:
    return [score_image(truth, found, name=f"image {i}", tolerance=1.5) for i, (truth, found) in enumerate(given)]


@pytest.mark.parametrize("tolerance", [0.0, 1.0, 1.5, 2.0, 3.0, 5.0])
def test_values_are_the_definition_on_random_images(tolerance):
    none = np.zeros((SIDE, SIDE + 3), bool)
    for seed in range(12):
        truth, found = random_objects(seed), random_objects(seed + 1000)
        scores = score_image(truth, found, name="a", tolerance=tolerance)
        assert values(scores) == pytest.approx(plain_scores(truth.labels, found.labels, none, tolerance))


def test_values_are_the_definition_with_ignored_pixels():
    for seed in range(40):
        truth, found, ignore = random_objects(seed), random_objects(seed + 1000), random_ignore(seed)
        scores = score_image(truth, found, name="a", ignore=ignore, tolerance=2.0)
        assert values(scores) == pytest.approx(plain_scores(truth.labels, found.labels, ignore, 2.0))


def davis_boundary(mask: np.ndarray) -> np.ndarray:
    """The boundary of one mask as DAVIS draws it: by exclusive or, the last row and column by one neighbour only."""
    padded = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    boundary = (mask ^ padded[:-1, 1:]) | (mask ^ padded[1:, :-1]) | (mask ^ padded[1:, 1:])
    boundary[-1, -1] = False
    return boundary


def davis_f(truth: np.ndarray, found: np.ndarray, radius: int) -> float:
    """The F of DAVIS: each boundary against the other one dilated by a disk."""
    steps = range(-radius, radius + 1)
    disk = [(r, c) for r in steps for c in steps if r * r + c * c <= radius * radius]

    def dilated(mask: np.ndarray) -> np.ndarray:
        height, width = mask.shape
        wide = np.pad(mask, radius)
        parts = [wide[radius + r : radius + r + height, radius + c : radius + c + width] for r, c in disk]
        return np.any(parts, axis=0)

    true, own = davis_boundary(truth), davis_boundary(found)
    precision, recall = (own & dilated(true)).sum() / own.sum(), (true & dilated(own)).sum() / true.sum()
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_one_object_scores_as_in_davis():
    for seed in range(60):
        draw = np.random.default_rng(seed)
        truth, found = (block(*draw.integers(0, 8, size=2), *draw.integers(9, 19, size=2)) for _ in range(2))
        for radius in (1, 2, 3):
            expected = davis_f(truth.labels > 0, found.labels > 0, radius)
            assert score_image(truth, found, name="a", tolerance=float(radius)).boundary_f == pytest.approx(expected)


def test_by_hand():
    truth = objects([[1, 1, 2, 2, 0, 0, 0, 0]])  # boundary at 1 and 3
    found = objects([[1, 1, 1, 1, 1, 0, 2, 2]])  # at 4 and 5
    scores = score_image(truth, found, name="row", tolerance=1.0)
    assert values(scores) == (0.5, 0.5, 0.5)
    assert (scores.n_truth, scores.n_found, scores.tolerance) == (2, 2, 1)
    assert values(score_image(truth, found, name="row", tolerance=0.5)) == (0, 0, 0)
    assert values(score_image(truth, found, name="row", tolerance=2.0)) == pytest.approx((2 / 3, 1, 0.5))


def test_touching_objects_share_one_boundary_and_merged_ones_lack_it():
    touching = objects([[0, 0, 1, 1, 2, 2, 0, 0]])
    assert np.flatnonzero(boundaries(touching.labels)).tolist() == [1, 3, 5]
    merged = objects([[0, 0, 1, 1, 1, 1, 0, 0]])
    assert values(score_image(touching, merged, name="row", tolerance=0.0)) == pytest.approx((0.8, 1, 2 / 3))


def test_the_tolerance_follows_the_diagonal():
    wide = np.zeros((300, 400), np.int32)
    wide[100:200, 100:200] = 1
    truth = Instances.from_labels(wide)
    assert score_image(truth, truth, name="a").tolerance == pytest.approx(0.0075 * 500)
    shifted = [Instances.from_labels(np.roll(wide, n, 1)) for n in (3, 4)]
    assert score_image(truth, shifted[0], name="a").boundary_f == 1
    assert score_image(truth, shifted[1], name="a").boundary_f < 1


def test_a_distance_that_equals_the_tolerance_is_within_it():
    truth, found = block(5, 5, 15, 15), block(8, 9, 18, 19)
    assert score_image(truth, found, name="a", tolerance=5.0).boundary_f == 1
    assert score_image(truth, found, name="a", tolerance=4.99).boundary_f < 1


def test_more_tolerance_never_scores_less():
    for truth, found in pairs()[:30]:
        fs = [score_image(truth, found, name="a", tolerance=t).boundary_f for t in (0.0, 1.0, 2.0, 4.0, 8.0)]
        assert fs == sorted(fs)


def test_truth_and_found_exchanged_exchange_precision_and_recall():
    for truth, found in pairs()[:30]:
        one, other = (score_image(*each, name="a", tolerance=1.0) for each in ((truth, found), (found, truth)))
        assert (one.precision, one.recall) == (other.recall, other.precision)
        assert one.boundary_f == pytest.approx(other.boundary_f)


def test_where_there_is_no_boundary():
    nothing, full = objects([[0, 0], [0, 0]]), objects([[1, 1], [1, 1]])
    part = objects([[1, 0], [0, 0]])
    cases = [(nothing, nothing, 1), (full, full, 1), (nothing, full, 0), (full, nothing, 0), (part, nothing, 0)]
    for truth, found, expected in [*cases, (nothing, part, 0), (part, part, 1)]:
        assert values(score_image(truth, found, name="a")) == (expected, expected, expected)


def test_the_edge_of_ignored_pixels_is_no_boundary():
    truth = objects([[1, 1, 1, 0, 0, 0]])
    ignore = np.array([[0, 0, 1, 1, 0, 0]], bool)
    scores = score_image(truth, objects([[0, 0, 0, 0, 0, 0]]), name="row", ignore=ignore)
    assert values(scores) == (0, 0, 0)  # neither has a boundary, but one an object
    assert values(score_image(truth, objects([[1, 1, 0, 2, 0, 0]]), name="row", ignore=ignore)) == (1, 1, 1)
    assert not boundaries(truth.labels, ignore).any()


def test_a_perfect_result_scores_one_also_with_ignored_pixels():
    for seed in range(20):
        truth = random_objects(seed)
        for ignore in (None, random_ignore(seed)):
            assert values(score_image(truth, truth, name="a", ignore=ignore, tolerance=0.0)) == (1, 1, 1)


def test_label_numbers_do_not_matter():
    for truth, found in pairs()[:20]:
        turned = Instances.from_labels(np.where(found.labels > 0, len(found) + 1 - found.labels, 0))
        assert score_image(truth, found, name="a") == score_image(truth, turned, name="a")


def test_a_summary_means_over_images():
    truth = block(5, 5, 15, 15)
    nothing = Instances.from_labels(np.zeros((20, 20), np.int32))
    summary = summarise([score_image(truth, truth, name="a"), score_image(truth, nothing, name="b")])
    for measure in ("boundary_f", "precision", "recall"):
        assert getattr(summary, measure) == Interval(0.5, 0.0, 1.0)
    assert (summary.n_truth, summary.n_found, summary.n_images) == (2, 1, 2)


def test_intervals_are_as_wide_as_the_standard_error_says():
    scores = scores_of(pairs())
    summary = summarise(scores)
    error = np.std([image.boundary_f for image in scores]) / 10
    assert (summary.boundary_f.high - summary.boundary_f.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert summarise(scores) == summary


def test_a_paired_difference_is_that_of_the_means():
    worse, perfect = scores_of(pairs()), scores_of([(truth, truth) for truth, _ in pairs()])
    difference, mean = paired_difference(perfect, worse[::-1]), summarise(worse)
    for measure in ("boundary_f", "precision", "recall"):
        assert getattr(difference, measure).value == pytest.approx(1 - getattr(mean, measure).value)
    assert difference.boundary_f.low > 0
    assert difference.n_images == 100
    assert paired_difference(worse, worse).boundary_f == Interval(0.0, 0.0, 0.0)


def test_what_cannot_be_scored_is_refused():
    one = block(5, 5, 15, 15)
    scores = score_image(one, one, name="a")
    with pytest.raises(InputError, match="a data set needs at least one"):
        summarise([])
    with pytest.raises(InputError, match="a data set needs at least one"):
        paired_difference([], [])
    with pytest.raises(InputError, match="only one of the two has a"):
        paired_difference([scores], [score_image(one, one, name="b")])
    with pytest.raises(InputError, match="share a name"):
        paired_difference([scores, scores], [scores, scores])
    with pytest.raises(InputError, match=r"a was scored with a tolerance of 0\.212\d* pixels .* of 3 in the other"):
        paired_difference([scores], [score_image(one, one, name="a", tolerance=3.0)])
    with pytest.raises(InputError, match=r"cells: .* truth \(20, 20\), found \(1, 1\)"):
        score_image(one, objects([[1]]), name="cells")
    with pytest.raises(InputError, match="negative"):
        score_image(one, Instances(-one.labels, one.classes, one.scores), name="a")


@pytest.mark.parametrize("tolerance", [-1.0, float("nan")])
def test_a_tolerance_below_zero_is_refused(tolerance):
    with pytest.raises(InputError, match=r"tolerance of a boundary is .* it must be 0 or more"):
        score_image(block(5, 5, 15, 15), block(5, 5, 15, 15), name="a", tolerance=tolerance)
