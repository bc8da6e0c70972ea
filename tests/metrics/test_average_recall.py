"""AR(n) against pycocotools, by hand, and by law."""

import contextlib
import io

import numpy as np
import pytest
from pycocotools import mask as official
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.metrics.pairing import scoring

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics.average_recall import LIMITS, RecallScores, paired_difference, summarise
from attractor.metrics.average_recall import score_image as score_pair

score_image = scoring(score_pair)

SIDE = 32
TRUTH = np.array([[1, 1, 1, 1, 0, 7, 7, 7, 7, 7]], np.int32)


def proposals(masks: list[np.ndarray], scores: list[float]) -> Instances:
    shape = masks[0].shape if masks else TRUTH.shape
    classes = np.ones(len(masks), np.int32)
    return Instances.from_masks([mask.astype(bool) for mask in masks], classes, np.array(scores, np.float32), shape)


def mask(start: int, stop: int) -> np.ndarray:
    """A part of the row that TRUTH is."""
    inside = np.zeros(TRUTH.shape, bool)
    inside[0, start:stop] = True
    return inside


def random_image(seed: int) -> tuple[np.ndarray, Instances]:
    """Rectangles that hide each other, and rectangles near them as proposals, in random order."""
    draw = np.random.default_rng(seed)
    truth, masks = np.zeros((SIDE, SIDE), np.int32), []
    for label in range(1, draw.integers(2, 12)):
        top, left = draw.integers(SIDE - 8, size=2)
        height, width = draw.integers(5, 14, size=2)
        truth[top : top + height, left : left + width] = label
        for _ in range(draw.integers(0, 12)):
            a, b, c, d = draw.integers(-2, 3, size=4)
            near = np.zeros(truth.shape, bool)
            near[max(top + a, 0) : top + height + b, max(left + c, 0) : left + width + d] = True
            masks.append(near)
    scores = draw.permutation(len(masks)) / max(len(masks), 1)
    return truth, Instances.from_masks(masks, np.ones(len(masks), np.int32), scores.astype(np.float32), truth.shape)


def scores_of(images: list[tuple[np.ndarray, Instances]]) -> list[RecallScores]:
    scored = [score_image(truth, found, name=f"image {i}") for i, (truth, found) in enumerate(images)]
    return [image for image in scored if image is not None]


def coco_recall(images: list[tuple[np.ndarray, Instances]]) -> np.ndarray:
    """Recall of pycocotools, one row a threshold and one column a number of proposals."""
    annotations, detections = [], []
    for i, (truth, found) in enumerate(images, 1):
        for label in np.unique(truth[truth > 0]):
            runs = official.encode(np.asfortranarray(truth == label).astype(np.uint8))
            area = int((truth == label).sum())
            common = {"image_id": i, "category_id": 1, "segmentation": runs, "area": area, "iscrowd": 0}
            annotations.append({"id": len(annotations) + 1, "bbox": official.toBbox(runs).tolist(), **common})
        for label in range(1, len(found) + 1):
            runs = official.encode(np.asfortranarray(found.mask(label)).astype(np.uint8))
            score = float(found.scores[label - 1])
            detections.append({"image_id": i, "category_id": 1, "segmentation": runs, "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "info": {},
            "images": [{"id": i, "height": SIDE, "width": SIDE} for i in range(1, len(images) + 1)],
            "annotations": annotations,
            "categories": [{"id": 1, "name": "object"}],
        }
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(detections), "segm")
        evaluation.params.maxDets = list(LIMITS)
        evaluation.params.useCats = 0
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["recall"][:, 0, 0]  # the area range "all"


def test_pooled_recall_equals_pycocotools():
    images = [random_image(seed) for seed in range(60)]
    assert any(len(found) > 60 for _, found in images)
    scores = scores_of(images)
    recall = sum(image.matched for image in scores) / sum(image.n_truth for image in scores)
    expected = coco_recall(images)
    np.testing.assert_allclose(recall.T, expected)
    np.testing.assert_allclose(summarise(scores).pooled.value, expected.mean(0))


def test_by_hand():
    # the best fits the second object with IoU 4/5, the next the same one with 3/5, the last the first with 2/4
    found = proposals([mask(0, 2), mask(5, 9), mask(5, 8)], [0.1, 0.9, 0.5])
    scores = score_image(TRUTH, found, name="row", limits=(1, 2, 3, 100), thresholds=(0.5, 0.6, 0.8, 0.9))
    assert scores is not None
    assert scores.matched.tolist() == [[1, 1, 1, 0], [1, 1, 1, 0], [2, 1, 1, 0], [2, 1, 1, 0]]
    assert scores.average_recall.tolist() == [3 / 8, 3 / 8, 4 / 8, 4 / 8]
    assert (scores.n_truth, scores.n_proposals) == (2, 3)


def test_an_object_is_taken_only_once_and_the_next_best_then():
    truth = np.array([[1, 1, 2, 2]], np.int32)
    whole = np.ones((1, 4), bool)  # IoU 1/2 with both
    scores = score_image(truth, proposals([whole, whole, whole], [0.3, 0.2, 0.1]), name="row", thresholds=(0.5,))
    assert scores is not None
    assert scores.matched.ravel().tolist() == [1, 2, 2, 2]


def test_masks_count_where_the_label_image_hides_them():
    first, second = mask(0, 10), mask(0, 4)
    found = proposals([first, second], [0.9, 0.1])
    assert not (found.labels == 2).any()
    scores = score_image(TRUTH, found, name="row")
    assert scores is not None
    assert scores.matched[1, -1] == 1


def test_without_overlaps_the_label_image_will_do():
    for seed in range(5):
        truth, _ = random_image(seed)
        other = random_image(seed + 50)[0]
        plain = Instances.from_labels(other)
        masks = [plain.labels == label for label in range(1, len(plain) + 1)]
        one = score_image(truth, plain, name="a")
        two = score_image(truth, Instances.from_masks(masks, plain.classes, plain.scores, truth.shape), name="a")
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one.matched, two.matched)


def test_a_perfect_result_recalls_everything():
    for seed in range(5):
        truth, _ = random_image(seed)
        scores = score_image(truth, Instances.from_labels(truth), name="a", limits=(1, 100))
        assert scores is not None
        assert scores.average_recall.tolist() == pytest.approx([1 / scores.n_truth, 1])


def test_more_proposals_never_recall_less_and_no_proposal_recalls_nothing():
    for image in scores_of([random_image(seed) for seed in range(20)]):
        assert (np.diff(image.matched, axis=0) >= 0).all()
        assert (np.diff(image.matched, axis=1) <= 0).all()
    none = score_image(TRUTH, proposals([], []), name="row")
    assert none is not None
    assert none.average_recall.tolist() == [0] * len(LIMITS)


def test_an_image_without_truth_is_left_out():
    assert score_image(np.zeros_like(TRUTH), proposals([mask(0, 4)], [1.0]), name="row") is None
    assert score_image(TRUTH, proposals([mask(0, 4)], [1.0]), name="row", ignore=TRUTH > 0) is None


def test_ignored_pixels_count_for_nothing():
    ignore = mask(2, 5) | mask(5, 10)
    scores = score_image(TRUTH, proposals([mask(0, 4)], [1.0]), name="row", ignore=ignore)
    assert scores is not None
    assert (scores.n_truth, scores.matched[0].tolist()) == (1, [1] * 10)  # both are of two pixels then
    for seed in range(5):
        truth, found = random_image(seed)
        one = score_image(truth, found, name="a")
        two = score_image(truth, found, name="a", ignore=np.zeros(truth.shape, bool))
        assert one is not None
        assert two is not None
        np.testing.assert_array_equal(one.matched, two.matched)


def test_by_image_is_the_mean_of_images_and_pooled_that_of_objects():
    one = score_image(TRUTH, proposals([mask(0, 4)], [1.0]), name="a")  # one of two
    single = np.where(TRUTH == 1, 1, 0).astype(np.int32)
    two = score_image(single, proposals([mask(0, 4)], [1.0]), name="b")  # all of one
    assert one is not None
    assert two is not None
    summary = summarise([one, two])
    assert summary.by_image.value.tolist() == pytest.approx([0.75] * 4)
    assert summary.pooled.value.tolist() == pytest.approx([2 / 3] * 4)
    assert (summary.n_images, summary.n_truth, summary.n_proposals) == (2, 3, 2)
    assert summary.index(60) == 2
    with pytest.raises(
        InputError, match=r"Nothing was measured with 50 proposals; these were measured: \[1, 10, 60, 100\]"
    ):
        summary.index(50)


def test_intervals_hold_their_value_and_a_paired_difference_is_that_of_the_means():
    images = [random_image(seed) for seed in range(60)]
    scores = scores_of(images)
    perfect = scores_of([(truth, Instances.from_labels(truth)) for truth, _ in images])
    summary = summarise(scores)
    for estimate in (summary.by_image, summary.pooled):
        assert (estimate.low < estimate.value).all()
        assert (estimate.value < estimate.high).all()
    difference = paired_difference(perfect, scores[::-1])
    expected = summarise(perfect).by_image.value - summary.by_image.value
    np.testing.assert_allclose(difference.by_image.value, expected)
    assert difference.n_images == 60


def test_what_cannot_be_scored_is_refused():
    found = proposals([mask(0, 4)], [1.0])
    with pytest.raises(InputError, match="No image has a true object"):
        summarise([])
    with pytest.raises(InputError, match=r"at least one n, each of 1 or more; found \[0\]"):
        score_image(TRUTH, found, name="row", limits=(0,))
    with pytest.raises(InputError, match="above 0 and up to 1"):
        score_image(TRUTH, found, name="row", thresholds=(0.0,))
    with pytest.raises(InputError, match=r"row: .* truth \(2, 2\), found \(1, 10\)"):
        score_image(np.ones((2, 2), np.int32), found, name="row")
    one, two = score_image(TRUTH, found, name="a"), score_image(TRUTH, found, name="b", limits=(5,))
    with pytest.raises(InputError, match=r"a was scored with \[1, 10, 60, 100\] proposals .* but b with \[5\]"):
        summarise([one, two])
    with pytest.raises(InputError, match="only one of the two has"):
        paired_difference([one], [score_image(TRUTH, found, name="c")])
