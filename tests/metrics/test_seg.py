"""SEG against py-ctcmetrics, against a loop that says what the definition says, by hand, and by law."""

import warnings

import numpy as np
import pytest
import tifffile

from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics import segmentation_accuracy
from attractor.metrics.metric import Pair
from attractor.metrics.seg import paired_difference, score_image, summarise


def random_labels(seed: int, shape: tuple[int, ...] = (20, 24), n: int = 9) -> np.ndarray:
    """Boxes of all sizes from one pixel on, that touch and hide each other."""
    draw = np.random.default_rng(seed)
    labels = np.zeros(shape, np.int32)
    for label in range(1, draw.integers(1, n + 1) + 1):
        starts, sizes = draw.integers(shape), draw.integers(1, 12, len(shape))
        box = tuple(slice(start, start + size) for start, size in zip(starts, sizes, strict=True))
        labels[box] = 3 * label
    return labels


def moved(labels: np.ndarray, seed: int) -> np.ndarray:
    """The labels a pixel or two further, some of them lost or joined."""
    draw = np.random.default_rng(1000 + seed)
    found = np.roll(labels, tuple(draw.integers(-2, 3, labels.ndim)), tuple(range(labels.ndim)))
    for label in np.unique(found)[1:]:
        if draw.random() < 0.3:
            found = np.where(found == label, draw.choice([0, 3, 6]), found)
    return found


def plain(truth: np.ndarray, found: np.ndarray) -> tuple[float, int]:
    """The sum of IoU over true objects, and how many there are."""
    total = 0.0
    for i in np.unique(truth[truth > 0]):
        for j in np.unique(found[found > 0]):
            shared = ((truth == i) & (found == j)).sum()
            if shared > 0.5 * (truth == i).sum():
                total += shared / ((truth == i) | (found == j)).sum()
    return total, len(np.unique(truth[truth > 0]))


def scored(truth, found, ignore=None, name="image"):
    return score_image(Pair(name, *(Instances.from_labels(array) for array in (truth, found)), ignore))


@pytest.mark.parametrize("shape", [(20, 24), (6, 10, 11)], ids=str)
def test_it_is_the_definition_on_random_images(shape):
    positive = 0
    for seed in range(40):
        truth = random_labels(seed, shape)
        found = moved(truth, seed)
        scores = scored(truth, found)
        total, n = plain(truth, found)
        assert (scores.total, scores.n_truth) == (pytest.approx(total), n)
        positive += 0 < total < n
    assert positive > 10  # some objects are matched and some are not


def test_the_challenge_s_tool_says_the_same(tmp_path):
    pytest.importorskip("ctc_metrics")
    result, truth = tmp_path / "01_RES", tmp_path / "01_GT"
    for part in (result, truth / "TRA", truth / "SEG"):
        part.mkdir(parents=True)
    true = [random_labels(seed) for seed in range(12)]
    found = [moved(labels, seed) for seed, labels in enumerate(true)]
    for t, (one, other) in enumerate(zip(true, found, strict=True)):
        tifffile.imwrite(truth / f"TRA/man_track{t:03}.tif", one.astype(np.uint16))
        tifffile.imwrite(truth / f"SEG/man_seg{t:03}.tif", one.astype(np.uint16))
        tifffile.imwrite(result / f"mask{t:03}.tif", other.astype(np.uint16))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # its own
        from ctc_metrics.metrics import seg
        from ctc_metrics.scripts.evaluate import match_computed_to_reference_masks

        masks = [[str(folder / name.format(t)) for t in range(12)] for folder, name in
                 ((truth / "SEG", "man_seg{:03}.tif"), (result, "mask{:03}.tif"))]  # fmt: skip
        matched = match_computed_to_reference_masks(*masks, threads=1)
        expected = seg(matched["labels_ref"], matched["ious"])
    assert segmentation_accuracy(true, found).seg.value == pytest.approx(expected, abs=1e-12)


def test_ignored_pixels_are_no_objects():
    truth = np.array([[1, 1, 1, 1, 2, 2]])
    found = np.array([[1, 1, 1, 0, 0, 0]])
    ignore = np.array([[0, 0, 0, 1, 1, 1]], bool)
    scores = scored(truth, found, ignore)
    assert (scores.total, scores.n_truth) == (1.0, 1)


def test_an_image_without_a_true_object_is_left_out():
    empty = np.zeros((3, 4), np.int32)
    assert scored(empty, empty + 1) is None
    with pytest.raises(InputError, match="There is no image with a true object"):
        segmentation_accuracy(empty, empty)


def test_it_is_a_mean_over_objects_and_over_images():
    one, three = np.array([[1, 0, 0, 0, 0]]), np.array([[1, 0, 2, 0, 3]])
    images = [scored(one, one, name="a"), scored(three, np.array([[1, 0, 0, 0, 0]]), name="b")]
    summary = summarise(images)
    assert (summary.seg.value, summary.by_image.value) == (2 / 4, (1 + 1 / 3) / 2)
    assert summary.by_image.low <= summary.by_image.value <= summary.by_image.high
    better = [images[0], scored(three, three, name="b")]
    assert paired_difference(better, images).by_image.value == pytest.approx(1 / 3)
    assert paired_difference(images, images).by_image.value == 0


def test_a_larger_object_may_match_several_and_too_many_cost_nothing():
    truth = np.array([[1, 1, 0, 2, 2, 0, 0]])
    all_in_one = np.array([[1, 1, 1, 1, 1, 0, 2]])
    assert scored(truth, all_in_one).total == pytest.approx(2 / 5 + 2 / 5)
