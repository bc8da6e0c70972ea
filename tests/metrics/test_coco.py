"""COCO's twelve numbers against pycocotools, by hand, and by law."""

import contextlib
import io
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from tests.metrics.pairing import scoring

from attractor.datasets.coco import Coco
from attractor.datasets.coco_masks import compress_runs
from attractor.datasets.coco_results import write_coco_results
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask, encode_mask
from attractor.metrics import coco
from attractor.metrics.coco import ROWS, CocoSummary, paired_difference, summarise
from attractor.metrics.coco import score_image as score_pair

score_image = scoring(score_pair)

Pair = tuple[Annotations, Instances]
ROW = (1, 10)  # the image of the cases by hand


@pytest.fixture
def few_samples(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hardly any bootstrap samples, where intervals do not matter."""
    monkeypatch.setattr(coco, "N_SAMPLES", 2)


def part(start: int, stop: int) -> np.ndarray:
    """A part of a row of ten pixels."""
    inside = np.zeros(ROW, bool)
    inside[0, start:stop] = True
    return inside


def annotated(
    masks: list[np.ndarray],
    classes: list[int] | None = None,
    crowds: tuple[int, ...] = (),
    areas: list[float] | None = None,
    void: np.ndarray | None = None,
    shape: tuple[int, int] = ROW,
) -> Annotations:
    """True objects, of class 1 unless told otherwise."""
    k = len(masks)
    return Annotations(
        tuple(encode_mask(mask) for mask in masks),
        np.array(classes or [1] * k, np.int32),
        np.isin(np.arange(k), crowds),
        np.array(areas if areas is not None else [mask.sum() for mask in masks], float),
        np.full(k, np.nan),
        np.zeros(shape, bool) if void is None else void,
    )


def detected(
    masks: list[np.ndarray], scores: list[float], classes: list[int] | None = None, shape: tuple[int, int] = ROW
) -> Instances:
    """Found objects, of class 1 unless told otherwise."""
    return Instances.from_masks(
        masks, np.array(classes or [1] * len(masks), np.int32), np.array(scores, np.float64), shape
    )


def summary_of(*pairs: Pair) -> CocoSummary:
    return summarise([score_image(*pair, name=f"image {i}") for i, pair in enumerate(pairs)])


def values(summary: CocoSummary) -> np.ndarray:
    return np.array([getattr(summary, row).value for row in ROWS])


# --- against pycocotools


def random_box(draw: np.random.Generator, shape: tuple[int, int], smallest: int = 1) -> np.ndarray:
    """A rectangle or a part of one; sometimes a single pixel."""
    mask = np.zeros(shape, bool)
    top, left = (int(draw.integers(side)) for side in shape)
    height, width = draw.integers(smallest, max(shape) // 2 + 2, 2) if draw.random() < 0.8 else (1, 1)
    mask[top : top + height, left : left + width] = True
    return mask & (draw.random(shape) < 0.9) if draw.random() < 0.3 else mask


def random_image(draw: np.random.Generator, shape: tuple[int, int], n_classes: int) -> Pair:
    """True objects with crowds and areas of their own, and shifted ones found, with equal scores among them."""
    masks = [random_box(draw, shape) for _ in range(draw.integers(0, 7))]
    found = [np.roll(mask, draw.integers(-1, 2, 2), (0, 1)) for mask in masks for _ in range(draw.integers(0, 4))]
    found += [random_box(draw, shape) for _ in range(draw.integers(0, 4))]
    order = draw.permutation(len(found))
    found = [found[k] for k in order]
    areas = [float(mask.sum()) if draw.random() < 0.5 else float(draw.integers(0, 20000)) for mask in masks]
    truth = annotated(
        masks,
        draw.integers(1, n_classes + 1, len(masks)).tolist(),
        tuple(np.flatnonzero(draw.random(len(masks)) < 0.2)),
        [float(draw.choice([1024, 9216])) if draw.random() < 0.1 else area for area in areas],
        shape=shape,
    )
    classes = draw.integers(1, n_classes + 1, len(found)).tolist()
    return truth, detected(found, (draw.integers(0, 6, len(found)) / 5).tolist(), classes, shape)


def documents(pairs: list[Pair], n_classes: int) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The data set and the results as pycocotools takes them."""
    images, annotations, results = [], [], []
    for i, (truth, found) in enumerate(pairs, 1):
        size = [int(side) for side in truth.void.shape]
        images.append({"id": i, "height": size[0], "width": size[1]})
        for k, mask in enumerate(truth.masks):
            entry = {"image_id": i, "category_id": int(truth.classes[k]), "iscrowd": int(truth.is_crowd[k])}
            outline = {"size": size, "counts": compress_runs(mask)}
            annotations.append(
                {"id": len(annotations) + 1, "segmentation": outline, "area": float(truth.areas[k]), **entry}
            )
        for k in range(len(found)):
            outline = {"size": size, "counts": compress_runs(encode_mask(found.mask(k + 1)))}
            entry = {"image_id": i, "category_id": int(found.classes[k]), "score": float(found.scores[k])}
            results.append({"segmentation": outline, **entry})
    categories = [{"id": k} for k in range(1, n_classes + 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}, results


def official(truth: COCO, results: Any) -> COCOeval:
    """What pycocotools makes of it."""
    with contextlib.redirect_stdout(io.StringIO()):
        if results:
            found = truth.loadRes(results)
        else:  # which loadRes does not take
            found = COCO()
            found.dataset = {**truth.dataset, "annotations": []}
            found.createIndex()
        evaluation = COCOeval(truth, found, "segm")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def assert_equal(summary: CocoSummary, evaluation: COCOeval) -> None:
    """All twelve numbers, and those by class."""
    expected = np.where(evaluation.stats == -1, np.nan, evaluation.stats)
    np.testing.assert_allclose(values(summary), expected, rtol=0, atol=1e-12)
    precision, recall = evaluation.eval["precision"], evaluation.eval["recall"]
    for k, number in enumerate(evaluation.params.catIds):
        ours = summary.by_class.get(number)
        assert (ours is None) == (precision[0, 0, k, 0, 2] == -1)
        if ours is not None:
            levels = precision[:, :, k, 0, 2].mean(1)
            theirs = [levels.mean(), levels[0], levels[5], *recall[:, k, 0].mean(0)]
            own = [ours[row] for row in ("AP", "AP50", "AP75", "AR1", "AR10", "AR100")]
            np.testing.assert_allclose(own, theirs, rtol=0, atol=1e-12)


def compare(pairs: list[Pair], n_classes: int) -> CocoSummary:
    dataset, results = documents(pairs, n_classes)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
    summary = summary_of(*pairs)
    assert_equal(summary, official(truth, results))
    assert summary.n_truth == sum(not entry["iscrowd"] for entry in dataset["annotations"])
    assert summary.n_found == len(results)
    return summary


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("seed", range(8))
def test_random_cases_equal_pycocotools(seed):
    draw = np.random.default_rng(seed)
    for _ in range(30):
        side = 24 if draw.random() < 0.8 else 130  # the larger has objects of every size
        n_classes = int(draw.integers(1, 4))
        pairs = [
            random_image(draw, (side, side - int(draw.integers(10))), n_classes) for _ in range(draw.integers(1, 5))
        ]
        compare(pairs, n_classes)


@pytest.mark.usefixtures("few_samples")
def test_only_a_hundred_objects_of_a_class_are_looked_at():
    draw = np.random.default_rng(0)
    shape = (24, 24)
    masks = [random_box(draw, shape) for _ in range(130)]
    found = [np.roll(mask, draw.integers(0, 2), 0) for mask in masks for _ in range(2)]
    classes = draw.integers(1, 3, len(masks)).tolist()
    scores = (draw.integers(0, 50, len(found)) / 50).tolist()
    truth = annotated(masks, classes, shape=shape)
    summary = compare([(truth, detected(found, scores, np.repeat(classes, 2).tolist(), shape))], 2)
    assert summary.n_found == 260
    scored = score_image(truth, detected(found, scores, shape=shape), name="a")
    assert (len(scored.scores), scored.n_found) == (100, 260)


@pytest.mark.usefixtures("few_samples")
def test_a_polygon_that_nobody_sees_equals_pycocotools():
    nothing = np.zeros((8, 8), bool)
    shape = (8, 8)
    truth = annotated([nothing, np.eye(8) > 0], areas=[40.0, 8.0], shape=shape)
    summary = compare([(truth, detected([np.eye(8) > 0, nothing], [0.5, 0.9], shape=shape))], 1)
    assert summary.AR100.value == 0.5


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("found", [[], [part(0, 5)]])
@pytest.mark.parametrize("true", [[], [part(0, 5)]])
def test_nothing_there_or_nothing_found_equals_pycocotools(true, found):
    compare([(annotated(true), detected(found, [0.5] * len(found)))], 2)


@pytest.mark.usefixtures("few_samples")
def test_the_annotation_of_id_zero_counts_here_though_not_in_pycocotools():
    pair = annotated([part(0, 4)]), detected([part(0, 4)], [0.5])
    dataset, results = documents([pair], 1)
    dataset["annotations"][0]["id"] = 0
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = dataset
        truth.createIndex()
    assert official(truth, results).stats[0] == 0
    assert summary_of(pair).AP.value == 1


# --- from files


def polygon(draw: np.random.Generator) -> list[float]:
    """Corners around a point that may lie outside of the image."""
    n, middle = int(draw.integers(3, 9)), draw.uniform(-5, 55, 2)
    angles = np.sort(draw.uniform(0, 2 * np.pi, n))
    corners = middle + draw.uniform(1, 20, (n, 1)) * np.stack([np.cos(angles), np.sin(angles)], 1)
    return np.round(corners, 2).ravel().tolist()


def written(folder: Path, draw: np.random.Generator) -> Path:
    """A data set of polygons, several an object, and crowds, whose images are not in the order of their ids."""
    images, annotations = [], []
    (folder / "val2017").mkdir()
    for number in (30, 4, 17, 2):
        Image.fromarray(np.zeros((40, 50), np.uint8)).save(folder / "val2017" / f"{number}.png")
        images.append({"id": number, "file_name": f"{number}.png", "height": 40, "width": 50})
        for _ in range(8):
            crowd = draw.random() < 0.2
            mask = random_box(draw, (40, 50), smallest=4)
            runs = {"size": [40, 50], "counts": encode_mask(mask).tolist()}
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(draw.choice([3, 90])),
                    "segmentation": runs if crowd else [polygon(draw) for _ in range(draw.integers(1, 4))],
                    "area": float(draw.integers(1, 3000)),
                    "iscrowd": int(crowd),
                }
            )
    categories = [{"id": 90, "name": "car"}, {"id": 3, "name": "tree"}]
    document = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations").mkdir()
    file = folder / "annotations" / "instances_val2017.json"
    file.write_text(json.dumps(document))
    return file


@pytest.mark.usefixtures("few_samples")
@pytest.mark.parametrize("seed", range(4))
def test_a_folder_and_a_results_file_give_the_numbers_of_pycocotools(tmp_path, seed):
    draw = np.random.default_rng(seed)
    file = written(tmp_path, draw)
    dataset = Coco(tmp_path)
    truths = [sample.annotate() for sample in dataset if sample.annotate is not None]
    found = []
    for truth in truths:
        masks = [np.roll(decoded, draw.integers(-1, 2), 1) for decoded in masks_of(truth)]
        found.append(detected(masks, (draw.integers(0, 4, len(masks)) / 3).tolist(), truth.classes.tolist(), (40, 50)))
    write_coco_results(
        tmp_path / "results.json", zip(dataset.image_ids, found, strict=True), category_ids=dataset.category_ids
    )
    summary = summary_of(*zip(truths, found, strict=True))
    read = list(dataset.read_results(tmp_path / "results.json"))
    np.testing.assert_array_equal(values(summary_of(*zip(truths, read, strict=True))), values(summary))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(file))
    evaluation = official(truth, str(tmp_path / "results.json"))
    expected = np.where(evaluation.stats == -1, np.nan, evaluation.stats)
    np.testing.assert_allclose(values(summary), expected, rtol=0, atol=1e-12)
    assert 0.1 < summary.AP.value < 0.9


def masks_of(truth: Annotations) -> list[np.ndarray]:
    return [decode_mask(runs, truth.void.shape) for runs in truth.masks]


# --- by hand


def test_a_perfect_result_scores_one_and_an_empty_one_zero():
    truth = annotated([part(0, 4), part(5, 9)], [1, 2])
    perfect = summary_of((truth, detected([part(0, 4), part(5, 9)], [0.9, 0.1], [1, 2])))
    assert [getattr(perfect, row).value for row in ("AP", "AP50", "AP75", "APs", "AR1", "AR100", "ARs")] == [1] * 7
    assert math.isnan(perfect.APl.value)
    assert math.isnan(perfect.APl.low)
    assert (perfect.n_truth, perfect.n_found, perfect.n_images) == (2, 2, 1)
    empty = summary_of((truth, detected([], [])))
    assert (empty.AP.value, empty.AR100.value, empty.by_class[2]["AP"]) == (0, 0, 0)
    nothing = summary_of((annotated([]), detected([], [])))
    assert np.isnan(values(nothing)).all()
    assert nothing.by_class == {}


def test_a_false_one_costs_only_if_its_score_is_higher():
    truth, masks = annotated([part(0, 4)]), [part(0, 4), part(5, 9)]
    assert summary_of((truth, detected(masks, [0.9, 0.1]))).AP.value == 1
    assert summary_of((truth, detected(masks, [0.1, 0.9]))).AP.value == pytest.approx(0.5)
    assert summary_of((truth, detected(masks, [0.1, 0.9]))).AR1.value == 0


def test_the_better_score_takes_the_object_and_the_next_is_wrong():
    truth = annotated([part(0, 10)])
    scores = score_image(truth, detected([part(0, 6), part(0, 10)], [0.9, 0.5]), name="row")
    assert scores.outcome[0, 0].tolist() == [1, -1]  # at .50 the first fits, too
    assert scores.outcome[0, 9].tolist() == [-1, 1]
    assert scores.scores.tolist() == [0.9, 0.5]


def test_another_class_is_wrong():
    summary = summary_of((annotated([part(0, 4)], [2]), detected([part(0, 4)], [0.5], [1])))
    assert summary.AP.value == 0
    assert list(summary.by_class) == [2]


def test_a_class_without_truth_does_not_count():
    summary = summary_of((annotated([part(0, 4)], [2]), detected([part(0, 4), part(5, 9)], [0.5, 0.9], [2, 1])))
    assert summary.AP.value == 1
    assert list(summary.by_class) == [2]


def test_a_crowd_takes_any_number_of_found_objects():
    truth = annotated([part(0, 6), part(7, 9)], crowds=(0,))
    scores = score_image(truth, detected([part(0, 2), part(2, 4), part(5, 8)], [0.9, 0.8, 0.7]), name="row")
    # of the third only a third lies in the crowd
    assert scores.outcome[0, 0].tolist() == [0, 0, -1]
    assert scores.n_truth == 1


def test_an_object_that_counts_goes_before_a_crowd_that_fits_better():
    truth = annotated([part(0, 10), part(0, 8)], crowds=(0,))
    scores = score_image(truth, detected([part(0, 10)], [0.5]), name="row")
    assert scores.outcome[0, :, 0].tolist() == [1] * 7 + [0] * 3


def test_of_two_that_fit_alike_the_later_is_taken():
    truth = annotated([part(0, 5), part(5, 10)], areas=[2000.0, 10.0])  # medium and small
    scores = score_image(truth, detected([part(0, 10)], [0.5]), name="row")
    assert scores.outcome[:, 0, 0].tolist() == [1, 1, 1, 0]
    twice = score_image(truth, detected([part(0, 10), part(0, 10)], [0.5, 0.5]), name="row")
    assert twice.outcome[0, 0].tolist() == [1, 1]
    both = score_image(annotated([part(0, 5), part(0, 5)]), detected([part(0, 5)] * 3, [0.5] * 3), name="row")
    assert both.outcome[0, 0].tolist() == [1, 1, -1]


def test_an_area_on_the_border_counts_on_both_sides():
    truth = annotated([part(0, 4), part(5, 9)], areas=[1024.0, 9216.0])
    assert score_image(truth, detected([], []), name="row").truth_counts.tolist() == [
        [True, True],
        [True, False],
        [True, True],
        [False, True],
    ]


def test_a_found_object_of_another_size_that_takes_nothing_has_no_effect():
    scores = score_image(annotated([part(0, 4)]), detected([part(5, 9)], [0.5]), name="row")
    assert scores.outcome[:, 0, 0].tolist() == [-1, -1, 0, 0]


def test_recall_is_of_the_first_of_each_image_and_class():
    truth = annotated([part(0, 4), part(5, 9)], [1, 1])
    summary = summary_of((truth, detected([part(0, 4), part(5, 9)], [0.9, 0.1])))
    assert (summary.AR1.value, summary.AR10.value) == (0.5, 1)
    summary = summary_of((annotated([part(0, 4), part(5, 9)], [1, 2]), detected([part(0, 4)], [0.5])))
    assert (summary.AR1.value, summary.by_class[1]["AR1"], summary.by_class[2]["AR1"]) == (0.5, 1, 0)


def test_masks_count_where_the_label_image_hides_them():
    found = detected([part(0, 10), part(0, 4)], [0.9, 0.5])
    assert not (found.labels == 2).any()
    assert summary_of((annotated([part(0, 4)]), found)).AR100.value == 1


def test_without_overlaps_the_label_image_will_do():
    for seed in range(20):
        draw = np.random.default_rng(seed)
        truth, found = random_image(draw, (24, 20), 2)
        plain = Instances(found.labels, found.classes, found.scores)
        whole = Instances(
            found.labels, found.classes, found.scores, tuple(encode_mask(plain.mask(k + 1)) for k in range(len(found)))
        )
        one, two = (score_image(truth, each, name="a") for each in (plain, whole))
        np.testing.assert_array_equal(one.outcome, two.outcome)


def test_equal_scores_count_in_the_order_of_the_images():
    right = annotated([part(0, 4)]), detected([part(0, 4)], [0.5])
    wrong = annotated([]), detected([part(0, 4)], [0.5])
    assert summary_of(right, wrong).AP.value == 1
    assert summary_of(wrong, right).AP.value == pytest.approx(0.5)


# --- void, which COCO has not


def test_void_pixels_are_taken_from_every_object():
    void = part(3, 5)
    summary = summary_of((annotated([part(0, 5)], void=void), detected([part(0, 3)], [0.5])))
    assert summary.AP.value == 1
    summary = summary_of((annotated([part(0, 3)], void=void), detected([part(0, 5)], [0.5])))
    assert summary.AP.value == 1


def test_an_object_all_in_void_is_left_out():
    scores = score_image(annotated([part(0, 3), part(6, 8)], void=part(5, 9)), detected([], []), name="row")
    assert (scores.n_truth, len(scores.truth_classes)) == (1, 1)
    # one without a pixel anywhere stays
    assert score_image(annotated([part(0, 0)], void=part(5, 9)), detected([], []), name="row").n_truth == 1


def test_a_found_object_mostly_in_void_has_no_effect_unless_it_takes_something():
    truth = annotated([part(0, 2)], void=part(5, 9))
    found = detected([part(4, 9), part(4, 7), part(4, 6)], [0.9, 0.8, 0.7])
    assert score_image(truth, found, name="row").outcome[0, 0].tolist() == [0, 0, -1]
    truth = annotated([part(3, 5)], void=part(5, 9))
    assert score_image(truth, detected([part(3, 9)], [0.5]), name="row").outcome[0, 9].tolist() == [1]


# --- intervals


def test_intervals_are_the_same_for_the_same_seed_and_hold_the_value():
    pairs = [random_image(np.random.default_rng(seed), (24, 24), 1) for seed in range(30)]
    scores = [score_image(*pair, name=str(i)) for i, pair in enumerate(pairs)]
    one, two, other = summarise(scores), summarise(scores), summarise(scores, seed=1)
    assert one == two
    assert one.AP != other.AP
    for row in ("AP", "AP50", "AP75", "AR1", "AR100"):
        interval = getattr(one, row)
        assert interval.low < interval.value < interval.high


def test_an_interval_is_that_of_the_samples_scored_one_by_one(monkeypatch):
    monkeypatch.setattr(coco, "N_SAMPLES", 20)
    monkeypatch.setattr(coco, "CHUNK", 64)
    pairs = [random_image(np.random.default_rng(seed), (24, 24), 2) for seed in range(6)]
    for i, (_, found) in enumerate(pairs):
        found.scores[:] += i / 1000 + np.arange(len(found)) / 1e5  # no ties, whose order repeated images would change
    scores = [score_image(*pair, name=str(i)) for i, pair in enumerate(pairs)]
    weights = coco.bootstrap_weights(6, 0)[:20]
    repeated = [[score for score, n in zip(scores, often, strict=True) for _ in range(int(n))] for often in weights]
    summary = summarise(scores)
    monkeypatch.setattr(coco, "N_SAMPLES", 1)
    samples = np.array([values(summarise(each)) for each in repeated])
    for row, sample in zip(ROWS, samples.T, strict=True):
        known = sample[~np.isnan(sample)]
        expected = np.quantile(known, [0.025, 0.975]) if len(known) else [np.nan] * 2
        np.testing.assert_allclose([getattr(summary, row).low, getattr(summary, row).high], expected, atol=1e-9)


def test_equal_images_leave_no_doubt():
    pair = annotated([part(0, 4), part(5, 9)]), detected([part(0, 4)], [0.5])
    summary = summary_of(*[pair] * 5)
    assert summary.AR100.low == summary.AR100.value == summary.AR100.high == 0.5


def test_a_difference_is_paired_by_name_and_signed():
    truth = annotated([part(0, 4), part(5, 9)])
    better, worse = detected([part(0, 4), part(5, 9)], [0.9, 0.8]), detected([part(0, 4)], [0.9])
    a = [score_image(truth, better, name=name) for name in "pqr"]
    b = [score_image(truth, worse, name=name) for name in "rqp"]
    difference = paired_difference(a, b)
    assert difference.AR100.value == difference.AR100.low == 0.5
    assert paired_difference(b, a).AR100.value == -0.5
    assert math.isnan(difference.APl.value)
    assert difference.n_images == 3
    assert paired_difference(a, a).AP.value == paired_difference(a, a).AP.high == 0


# --- what cannot be scored


def test_images_that_differ_in_size_are_refused():
    with pytest.raises(
        InputError, match=r"row: the images to compare differ in shape: truth \(1, 10\), found \(2, 5\)"
    ):
        score_image(annotated([]), detected([], [], shape=(2, 5)), name="row")


def test_runs_that_do_not_fill_the_image_are_refused():
    truth = annotated([part(0, 2)])
    wrong = Annotations(
        (np.array([3, 4]),), truth.classes, truth.is_crowd, truth.areas, truth.distances, np.zeros(ROW, bool)
    )
    with pytest.raises(InputError, match="row: the runs of true object 1 cover 7 pixels, but the image has 1 x 10"):
        score_image(wrong, detected([], []), name="row")


def test_no_image_is_refused():
    with pytest.raises(InputError, match="There is no image to score"):
        summarise([])
    with pytest.raises(InputError, match="There is no image to compare"):
        paired_difference([], [])


def test_a_difference_of_other_images_is_refused():
    truth = annotated([part(0, 4)])
    a, b = (score_image(truth, detected([], []), name=name) for name in "ab")
    with pytest.raises(InputError, match="only one of the two has a, b"):
        paired_difference([a], [b])
