"""AJI and AJI+ against their definitions, by hand, and by law."""

import itertools

import numpy as np
import pytest
from tests.metrics.pairing import scoring

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.aji import AjiScores, paired_difference, summarise
from attractor.metrics.aji import score_image as score_pair
from attractor.metrics.bootstrap import Interval

score_image = scoring(score_pair)

SIDE = 20


def objects(*rows: list[int]) -> Instances:
    return Instances.from_labels(np.array(rows, np.int32))


def random_objects(seed: int, n: int = 9, largest: int = 12) -> Instances:
    """Rectangles of all sizes from one pixel on, that touch and hide each other."""
    draw = np.random.default_rng(seed)
    labels = np.zeros((SIDE, SIDE), np.int32)
    for label in range(1, draw.integers(n + 1) + 1):
        top, left = draw.integers(SIDE, size=2)
        height, width = draw.integers(1, largest, size=2)
        labels[top : top + height, left : left + width] = label
    return Instances.from_labels(labels)


def random_ignore(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).random((SIDE, SIDE)) < 0.4


def masks_of(given: Instances, ignore: np.ndarray | None) -> tuple[list[np.ndarray], list[bool]]:
    """The mask of each object off ignored pixels, and whether more than half of it lies on them."""
    whole = [given.labels == label for label in range(1, len(given) + 1)]
    if ignore is None:
        return whole, [False] * len(whole)
    return [mask & ~ignore for mask in whole], [2 * (mask & ignore).sum() > mask.sum() for mask in whole]


def index_of(
    truth: list[np.ndarray], found: list[np.ndarray], forgiven: list[bool], partner: dict[int, int]
) -> tuple[int, int]:
    """Sums of intersections and unions where true objects have these partners."""
    intersection = union = 0
    for i, mask in enumerate(truth):
        if i in partner:
            intersection += (mask & found[partner[i]]).sum()
            union += (mask | found[partner[i]]).sum()
        else:
            union += mask.sum()
    for j, mask in enumerate(found):
        if j not in partner.values() and not forgiven[j]:
            union += mask.sum()
    return int(intersection), int(union)


def jaccard(a: np.ndarray, b: np.ndarray) -> float:
    return (a & b).sum() / (a | b).sum() if (a | b).any() else 0.0


def plain_aji(truth: Instances, found: Instances, ignore: np.ndarray | None = None) -> tuple[int, int]:
    """Kumar's algorithm 1, mask by mask."""
    true_masks = [mask for mask in masks_of(truth, ignore)[0] if mask.any()]
    masks, forgiven = masks_of(found, ignore)
    partner = {}
    for i, mask in enumerate(true_masks):
        overlaps = [(jaccard(mask, other), (mask & other).sum(), -j) for j, other in enumerate(masks)]
        if overlaps and max(overlaps)[0] > 0:
            partner[i] = -max(overlaps)[2]
    return index_of(true_masks, masks, forgiven, partner)


def plain_aji_plus(truth: Instances, found: Instances) -> set[tuple[int, int]]:
    """The sums for each of the best ways to pair objects, all ways being tried."""
    true_masks, masks = masks_of(truth, None)[0], masks_of(found, None)[0]
    iou = np.array([[jaccard(a, b) for b in masks] for a in true_masks]).reshape(len(true_masks), len(masks))
    ways = {}
    for places in itertools.permutations([*range(len(masks)), *[-1] * len(true_masks)], len(true_masks)):
        partner = {i: j for i, j in enumerate(places) if j >= 0 and iou[i, j] > 0}
        ways[tuple(sorted(partner.items()))] = sum(iou[i, j] for i, j in partner.items())
    best = max(ways.values())
    return {
        index_of(true_masks, masks, [False] * len(masks), dict(way))
        for way, total in ways.items()
        if total > best - 1e-9
    }


def pairs() -> list[tuple[Instances, Instances]]:
    return [(random_objects(seed), random_objects(seed + 1000)) for seed in range(100)]


def scores_of(given: list[tuple[Instances, Instances]]) -> list[AjiScores]:
    return [score_image(truth, found, name=f"image {i}") for i, (truth, found) in enumerate(given)]


def test_aji_is_the_definition_on_random_images():
    for seed in range(200):
        truth, found = random_objects(seed), random_objects(seed + 1000)
        scores = score_image(truth, found, name="cells")
        assert (scores.intersection, scores.union) == plain_aji(truth, found)
        assert scores.aji == (scores.intersection / scores.union if scores.union else 1)


def test_aji_is_the_definition_with_ignored_pixels():
    for seed in range(100):
        truth, found, ignore = random_objects(seed), random_objects(seed + 1000), random_ignore(seed)
        scores = score_image(truth, found, name="cells", ignore=ignore)
        assert (scores.intersection, scores.union) == plain_aji(truth, found, ignore)


def test_aji_plus_is_the_definition_on_random_images():
    differ = 0
    for seed in range(100):
        truth, found = random_objects(seed, 4, 16), random_objects(seed + 1000, 4, 16)
        scores = score_image(truth, found, name="cells")
        assert (scores.intersection_plus, scores.union_plus) in plain_aji_plus(truth, found)
        differ += scores.aji != scores.aji_plus
    assert differ > 10


def test_by_hand():
    truth = objects([1, 1, 1, 1, 2, 2, 0, 0, 3])
    found = objects([1, 1, 1, 1, 1, 1, 0, 2, 0])  # covers both, with IoU 4/6 and 2/6; and one too many
    scores = score_image(truth, found, name="row")
    assert (scores.intersection, scores.union) == (4 + 2, 6 + 6 + 1 + 1)
    assert (scores.intersection_plus, scores.union_plus) == (4, 6 + 2 + 1 + 1)
    assert (scores.n_truth, scores.n_found) == (3, 2)


def test_pairs_are_chosen_for_the_sum_of_iou_not_one_after_the_other():
    # the first true object fits 1 with 3/6 and 2 with 2/6, the second fits 1 alone with 2/7
    truth, found = objects([0, 2, 2, 1, 1, 1, 1, 1, 0]), objects([0, 1, 1, 1, 1, 1, 2, 2, 2])
    scores = score_image(truth, found, name="row")
    assert (scores.intersection, scores.union) == (3 + 2, 7 + 5 + 3)
    assert (scores.intersection_plus, scores.union_plus) == (2 + 2, 5 + 6)


def test_nothing_there_and_nothing_found_scores_one():
    nothing, one = objects([0, 0, 0]), objects([0, 1, 0])
    for truth, found, expected in [(nothing, nothing, 1), (one, nothing, 0), (nothing, one, 0), (one, one, 1)]:
        scores = score_image(truth, found, name="row")
        assert (scores.aji, scores.aji_plus) == (expected, expected)


def test_an_object_on_ignored_pixels_adds_nothing():
    truth, found = objects([1, 1, 0, 0, 2, 2]), objects([1, 1, 0, 2, 2, 2])
    ignore = np.array([[0, 0, 0, 0, 1, 1]], bool)
    scores = score_image(truth, found, name="row", ignore=ignore)
    assert (scores.aji, scores.aji_plus, scores.n_truth, scores.n_found) == (1, 1, 1, 2)
    half = np.array([[0, 0, 0, 0, 0, 1]], bool)
    assert score_image(objects([1, 1, 0, 0, 0, 0]), found, name="row", ignore=half).aji == 2 / 4


def test_a_perfect_result_scores_one_also_with_ignored_pixels():
    for seed in range(20):
        truth = random_objects(seed)
        for ignore in (None, random_ignore(seed)):
            scores = score_image(truth, truth, name="cells", ignore=ignore)
            assert (scores.aji, scores.aji_plus) == (1, 1)


def test_label_numbers_do_not_matter():
    for truth, found in pairs()[:30]:
        turned = Instances.from_labels(np.where(found.labels > 0, len(found) + 1 - found.labels, 0))
        one, other = score_image(truth, found, name="a"), score_image(truth, turned, name="a")
        assert one.aji == other.aji


def test_values_lie_between_0_and_1():
    for truth, found in pairs():
        scores = score_image(truth, found, name="a")
        assert 0 <= scores.aji <= 1
        assert 0 <= scores.aji_plus <= 1


def test_a_summary_means_over_images_and_pools_over_pixels():
    small = score_image(objects([1, 0, 0, 0, 0, 0]), objects([0, 0, 1, 0, 0, 0]), name="a")
    large = score_image(objects([1, 1, 1, 1, 1, 1]), objects([1, 1, 1, 1, 1, 1]), name="b")
    summary = summarise([small, large])
    assert summary.aji == summary.aji_plus == Interval(0.5, 0.0, 1.0)
    assert summary.pooled_aji == summary.pooled_aji_plus == Interval(6 / 8, 0.0, 1.0)
    assert (summary.n_truth, summary.n_found, summary.n_images) == (2, 2, 2)


def test_intervals_are_as_wide_as_the_standard_error_says():
    scores = scores_of(pairs())
    summary = summarise(scores)
    error = np.std([image.aji for image in scores]) / 10
    assert (summary.aji.high - summary.aji.low) / 2 == pytest.approx(1.96 * error, rel=0.1)
    assert summary.pooled_aji.low < summary.pooled_aji.value < summary.pooled_aji.high
    assert summarise(scores) == summary


def test_a_paired_difference_is_that_of_the_means():
    worse, perfect = scores_of(pairs()), scores_of([(truth, truth) for truth, _ in pairs()])
    difference = paired_difference(perfect, worse[::-1])
    assert difference.aji.value == pytest.approx(1 - summarise(worse).aji.value)
    assert difference.aji_plus.value == pytest.approx(1 - summarise(worse).aji_plus.value)
    assert difference.aji.low > 0
    assert difference.n_images == 100
    assert paired_difference(worse, worse).aji == Interval(0.0, 0.0, 0.0)


def test_inputs_are_left_alone():
    truth, found = pairs()[3]
    copies = truth.labels.copy(), found.labels.copy()
    score_image(truth, found, name="a", ignore=truth.labels == 1)
    np.testing.assert_array_equal(truth.labels, copies[0])
    np.testing.assert_array_equal(found.labels, copies[1])


def test_what_cannot_be_scored_is_refused():
    one = objects([1, 1, 0])
    scores = score_image(one, one, name="a")
    with pytest.raises(InputError, match="a data set needs at least one"):
        summarise([])
    with pytest.raises(InputError, match="a data set needs at least one"):
        paired_difference([], [])
    with pytest.raises(InputError, match="only one of the two has a"):
        paired_difference([scores], [score_image(one, one, name="b")])
    with pytest.raises(InputError, match="share a name"):
        paired_difference([scores, scores], [scores, scores])
    with pytest.raises(InputError, match=r"cells: .* truth \(1, 3\), found \(1, 1\)"):
        score_image(one, objects([1]), name="cells")
    with pytest.raises(InputError, match="negative"):
        score_image(one, Instances(-one.labels, one.classes, one.scores), name="a")
