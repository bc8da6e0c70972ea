"""Values against the official script's functions, and against the whole script on a folder; cases by hand; laws."""

import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from cityscapesscripts.evaluation import evalInstanceLevelSemanticLabeling as official  # noqa: N813
from cityscapesscripts.evaluation import instances2dict as official_truth
from PIL import Image
from tests.metrics.pairing import scoring

from attractor.datasets.cityscapes import (
    LABELS,
    VOID,
    Cityscapes,
    read_cityscapes_results,
    write_cityscapes_results,
)
from attractor.errors import InputError
from attractor.evaluation import evaluate
from attractor.instances import Annotations, Instances, encode_mask
from attractor.metrics import cityscapes as metric
from attractor.metrics.bootstrap import bootstrap_weights
from attractor.metrics.cityscapes import paired_difference, summarise
from attractor.metrics.cityscapes import score_image as score_pair

score_image = scoring(score_pair)

NAMES = tuple(LABELS)
SHAPE = (80, 112)
FIELDS = ("average_precision", "average_precision_50", "average_precision_100m", "average_precision_50m")


def write_json(content, file):
    """The script's own, but for numbers of numpy, which counting gives now."""
    Path(file).write_text(json.dumps(content, default=int))


@pytest.fixture
def script(monkeypatch):
    """The official module as it was with an older numpy; its arguments are put back afterwards."""
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)
    monkeypatch.setattr(official, "writeDict2JSON", write_json)
    monkeypatch.setattr(official.args, "quiet", True)
    for name in ("distanceAvailable", "gtInstancesFile", "exportFile", "predictionPath", "predictionWalk"):
        monkeypatch.setattr(official.args, name, getattr(official.args, name))
    official.setInstanceLabels(official.args)
    return official


# --- random cases


def rectangle(draw, highest=46):
    """A random part of the image, sometimes a pixel."""
    row, column = draw.integers(0, SHAPE[0] - 1), draw.integers(0, SHAPE[1] - 1)
    height, width = (1, 1) if draw.random() < 0.08 else draw.integers(2, highest, 2)
    return slice(row, row + height), slice(column, column + width)


def true_numbers(draw, labels):
    """An instanceIds image: labels with and without objects, void, groups, and objects that hide each other."""
    numbers = np.full(SHAPE, draw.choice([7, 11, 23, 0]), np.uint16)
    for _ in range(draw.integers(0, 5)):
        numbers[rectangle(draw)] = draw.choice([0, 1, 4, 10, 29, 29000, 5003, 8, *labels])
    if draw.random() < 0.85:
        for k in range(draw.integers(1, 8)):
            numbers[rectangle(draw)] = draw.choice(labels) * 1000 + k
    return numbers


def found_masks(draw, numbers, labels):
    """Masks, labels and scores: true regions shifted or cut, some twice, and anything anywhere; ties in score."""
    masks, own = [], []
    for number in np.unique(numbers) if draw.random() < 0.9 else ():
        for _ in range(draw.choice(4, p=(0.2, 0.5, 0.2, 0.1))):
            mask = np.roll(numbers == number, draw.integers(-3, 4, 2), (0, 1))
            mask[: draw.integers(0, 12)] = False
            masks.append(mask | (np.zeros(SHAPE, bool) if draw.random() < 0.8 else numbers == numbers[0, 0]))
            label = number // 1000 if number >= 1000 else number
            own.append(label if label in labels and draw.random() < 0.9 else draw.choice(labels))
    for _ in range(draw.integers(0, 5) if draw.random() < 0.9 else 0):
        mask = np.zeros(SHAPE, bool)
        mask[rectangle(draw)] = draw.random() < 0.9  # else one without a pixel
        masks.append(mask)
        own.append(draw.choice(labels))
    scores = np.where(draw.random(len(masks)) < 0.5, draw.choice([0.25, 0.5, 0.9], len(masks)), draw.random(len(masks)))
    return masks, np.array(own, int), scores


def annotated(numbers, distances):
    """What our metric takes."""
    ids = [n for n in np.unique(numbers).tolist() if (n // 1000 if n >= 1000 else n) in LABELS.values()]
    label_of = [n // 1000 if n >= 1000 else n for n in ids]
    return Annotations(
        tuple(encode_mask(numbers == n) for n in ids),
        np.array([list(LABELS.values()).index(label) + 1 for label in label_of], int),
        np.array([n < 1000 for n in ids], bool),
        np.array([(numbers == n).sum() for n in ids], float),
        np.array([distances.get(n, np.nan) for n in ids], float),
        np.isin(numbers, VOID),
    )


def official_matches(script, monkeypatch, cases, distances):
    """What the official functions make of (numbers, masks, labels, scores), its files being pictures in memory."""
    pictures, matches = {}, {}
    for module in (official, official_truth):
        monkeypatch.setattr(module, "Image", SimpleNamespace(open=pictures.__getitem__))
    for k, (numbers, masks, labels, scores) in enumerate(cases):
        pictures[f"/truth{k}"] = Image.fromarray(numbers)
        truth = official_truth.instances2dict(f"/truth{k}")[f"/truth{k}"]
        for one in (one for own in truth.values() for one in own):
            one["medDist"], one["distConf"] = distances[k].get(one["instID"], (-1, 0.0))
        listed = {}
        for j, mask in enumerate(masks):
            pictures[f"/found{k}_{j}"] = Image.fromarray(mask.astype(np.uint8) * 255)
            listed[f"/found{k}_{j}"] = {"labelID": int(labels[j]), "conf": float(scores[j])}
        known = script.filterGtInstances(truth, script.args)
        true, found = script.assignGt2Preds(known, pictures[f"/truth{k}"], listed, script.args)
        matches[k] = {"groundTruth": true, "prediction": found}
    return matches


def official_values(script, monkeypatch, matches):
    """AP by range, class and threshold; 0 where the script fails, as all that was found is left out."""
    args = script.args
    try:
        return script.evaluateMatches(matches, args)
    except IndexError:
        pass
    values = np.zeros((3, len(args.instLabels), len(args.overlaps)))
    for d, k, t in np.ndindex(values.shape):
        one = SimpleNamespace(
            overlaps=args.overlaps[[t]],
            minRegionSizes=args.minRegionSizes[[d]],
            distanceThs=args.distanceThs[[d]],
            distanceConfs=args.distanceConfs[[d]],
            distanceAvailable=True,
            instLabels=[args.instLabels[k]],
        )
        try:
            values[d, k, t] = script.evaluateMatches(matches, one)[0, 0, 0]
        except IndexError:
            continue
    return values


def four(values):
    """AP, AP50, AP100m and AP50m of classes, from values by range, class and threshold."""
    return np.stack([values[0].mean(-1), values[0, :, 0], values[1].mean(-1), values[2].mean(-1)], -1)


@pytest.mark.parametrize("seed", range(7))
def test_random_cases_score_as_the_official_functions_say(script, monkeypatch, seed):
    draw = np.random.default_rng(seed)
    monkeypatch.setattr(metric, "N_SAMPLES", 2)
    monkeypatch.setattr(script.args, "distanceAvailable", True)
    n_scored = 0
    for _ in range(30):
        labels = draw.choice(list(LABELS.values()), draw.integers(1, 4), replace=False)
        names = [name for name in NAMES if LABELS[name] in labels]
        monkeypatch.setattr(script.args, "instLabels", names)  # the script is slow
        cases, distances = [], []
        for _ in range(draw.integers(1, 4)):
            numbers = true_numbers(draw, labels)
            cases.append((numbers, *found_masks(draw, numbers, labels)))
            known = np.unique(numbers).tolist() if draw.random() < 0.8 else []
            distances.append({n: (draw.choice([20.0, 50.0, 70.0, 100.0, 130.0]), draw.random()) for n in known})
        matches = official_matches(script, monkeypatch, cases, distances)
        expected = official_values(script, monkeypatch, matches)

        scores = []
        for k, ((numbers, masks, own, confidences), known) in enumerate(zip(cases, distances, strict=True)):
            classes = np.array([list(LABELS.values()).index(label) + 1 for label in own], int)
            found = Instances.from_masks(masks, classes, confidences, SHAPE)
            metres = {n: median for n, (median, confidence) in known.items() if confidence >= 0.5}
            scores.append(score_image(annotated(numbers, metres), found, name=str(k)))
        summary = summarise(scores)

        by_class = four(expected)
        for name, values in zip(names, by_class, strict=True):
            own = summary.by_class.get(NAMES.index(name) + 1)
            found = [getattr(own, field).value if own else np.nan for field in FIELDS]
            np.testing.assert_allclose(found, values, rtol=0, atol=1e-9)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean over no class is NaN
            averages = script.computeAverages(expected, script.args)
        wanted = [averages[name] for name in ("allAp", "allAp50%", "allAp100m", "allAp50m")]
        np.testing.assert_allclose([getattr(summary, field).value for field in FIELDS], wanted, rtol=0, atol=1e-9)
        n_scored += np.nanmax(by_class, initial=0) > 0
    assert n_scored > 15  # the cases are about something


# --- the whole script


def street(folder, stem, numbers):
    """One picture with its annotation in the layout of Cityscapes."""
    city = stem.split("_")[0]
    for kind in ("leftImg8bit", "gtFine"):
        (folder / kind / "val" / city).mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((*SHAPE, 3), np.uint8)).save(
        folder / "leftImg8bit" / "val" / city / f"{stem}_leftImg8bit.png"
    )
    Image.fromarray(numbers).save(folder / "gtFine" / "val" / city / f"{stem}_gtFine_instanceIds.png")


def test_the_official_script_on_our_folders_gives_our_number(script, monkeypatch, tmp_path):
    draw = np.random.default_rng(3)
    root, results, labels = tmp_path / "data", tmp_path / "results", list(LABELS.values())[:4]
    all_numbers = [true_numbers(draw, labels) for _ in range(5)]
    for k, numbers in enumerate(all_numbers):
        street(root, f"{'ulm' if k < 3 else 'bonn'}_00000{k}_000019", numbers)
    dataset = Cityscapes(root / "leftImg8bit" / "val")
    for name, numbers in zip(dataset.names, [*all_numbers[3:], *all_numbers[:3]], strict=True):
        masks, own, scores = found_masks(draw, numbers, labels)
        classes = np.array([NAMES.index(next(n for n in NAMES if LABELS[n] == label)) + 1 for label in own], int)
        write_cityscapes_results(results, name, Instances.from_masks(masks, classes, scores, SHAPE), NAMES)

    monkeypatch.chdir(tmp_path)  # where the script leaves its matches
    monkeypatch.setattr(script.args, "predictionPath", str(results))
    monkeypatch.setattr(script.args, "predictionWalk", None)
    monkeypatch.setattr(script.args, "gtInstancesFile", str(tmp_path / "gtInstances.json"))
    monkeypatch.setattr(script.args, "exportFile", str(tmp_path / "export" / "result.json"))
    truths = sorted(str(path) for path in (root / "gtFine" / "val").glob("*/*_instanceIds.png"))
    found = [script.getPrediction(path, script.args) for path in truths]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        averages = script.evaluateImgLists(found, truths, script.args)["averages"]

    samples = (dataset[index] for index in range(len(dataset)))
    pairs = zip(samples, read_cityscapes_results(results, dataset), strict=True)
    summary = evaluate(pairs, metric="cityscapes").summary
    assert 0.05 < summary.average_precision.value < 0.95
    assert summary.average_precision.value == pytest.approx(averages["allAp"], abs=1e-9)
    assert summary.average_precision_50.value == pytest.approx(averages["allAp50%"], abs=1e-9)
    for number, values in summary.by_class.items():
        expected = averages["classes"][NAMES[number - 1]]
        assert values.average_precision.value == pytest.approx(expected["ap"], abs=1e-9, nan_ok=True)
        assert values.average_precision_50.value == pytest.approx(expected["ap50%"], abs=1e-9, nan_ok=True)
    assert np.isnan(summary.average_precision_100m.value)


# --- by hand


def bands(*heights, width=20):
    """Masks of horizontal bands below each other, in an image of 100 rows."""
    masks, top = [], 0
    for height in heights:
        mask = np.zeros((100, width), bool)
        mask[top : top + height] = True
        masks.append(mask)
        top += height
    return masks


def truth_of(masks, *, classes=None, is_crowd=None, distances=None, void=None):
    """Annotations of masks."""
    n, shape = len(masks), masks[0].shape if masks else (100, 20)
    return Annotations(
        tuple(map(encode_mask, masks)),
        np.ones(n, int) if classes is None else np.array(classes),
        np.zeros(n, bool) if is_crowd is None else np.array(is_crowd),
        np.array([mask.sum() for mask in masks], float),
        np.full(n, np.nan) if distances is None else np.array(distances, float),
        np.zeros(shape, bool) if void is None else void,
    )


def found_of(masks, scores, classes=None, shape=(100, 20)):
    """Found objects of masks."""
    return Instances.from_masks(
        masks, np.ones(len(masks), int) if classes is None else np.array(classes, int), np.array(scores, float), shape
    )


def score_of(truth, found):
    """Summary of one image."""
    return summarise([score_image(truth, found, name="a")])


def test_a_false_positive_between_two_true_ones_costs_the_area_that_can_be_drawn():
    one, two, empty = bands(10, 10, 10)
    summary = score_of(truth_of([one, two]), found_of([one, empty, two], [0.9, 0.8, 0.7]))
    # recall 0 to .5 at precision 1; from there, straight from 1/2 to 2/3
    assert summary.average_precision.value == pytest.approx(0.5 + 0.5 * (1 / 2 + 2 / 3) / 2)
    assert (summary.n_truth, summary.n_found, summary.n_images) == (2, 3, 1)


def test_objects_with_equal_scores_are_not_ranked_among_themselves():
    one, two, empty = bands(10, 10, 10)
    for order in ([0, 1, 2], [2, 1, 0]):
        masks = [[one, two, empty][k] for k in order]
        summary = score_of(truth_of([one, two]), found_of(masks, [0.5] * 3))
        assert summary.average_precision.value == pytest.approx((1 + 2 / 3) / 2)


def test_of_two_that_find_one_object_the_better_score_keeps_it():
    (mask,) = bands(20)
    cut = mask.copy()
    cut[0] = False  # an IoU of .95, which no threshold exceeds but the lower nine
    summary = score_of(truth_of([mask]), found_of([mask, cut], [0.3, 0.6]))
    assert summary.average_precision_50.value == 1
    assert summary.average_precision.value == pytest.approx((9 * 1 + (0 + 1 / 2) / 2) / 10)  # last, a miss, then a hit


def test_an_overlap_of_just_the_threshold_is_too_little():
    large, small = bands(20)[0], bands(10)[0]
    assert score_of(truth_of([large]), found_of([small], [1.0])).average_precision_50.value == 0


def test_what_lies_on_a_crowd_or_void_counts_for_nothing_up_to_its_share():
    one, crowd, _, void = bands(10, 30, 10, 20)
    truth = truth_of([one, crowd], is_crowd=[False, True], void=void)
    partly = np.zeros_like(one)
    partly[34:44] = True  # 6 of 10 rows on the crowd
    for mask in (crowd, crowd & (np.arange(100) < 15)[:, None], void):
        assert score_of(truth, found_of([mask, one], [0.9, 0.8])).average_precision.value == 1
    summary = score_of(truth, found_of([partly, one], [0.9, 0.8]))
    assert summary.average_precision_50.value == 1
    assert summary.average_precision.value == pytest.approx((2 * 1 + 8 * (0 + 1 / 2) / 2) / 10)  # .6 is over two
    other = score_of(truth, found_of([crowd, one], [0.9, 0.8], [2, 1]))
    assert other.by_class[1].average_precision.value == 1
    assert np.isnan(other.by_class[2].average_precision.value)  # of another class, but that has no truth


def test_a_small_object_is_neither_missed_nor_wrongly_found():
    large, small = bands(10, 4)
    truth = truth_of([large, small])
    assert score_of(truth, found_of([large], [0.5])).average_precision.value == 1
    assert score_of(truth, found_of([large, small], [0.5, 0.9])).average_precision.value == 1
    assert score_of(truth, found_of([large], [0.5])).n_truth == 1


def test_distance_and_size_choose_the_objects_of_the_other_ranges():
    masks = bands(10, 10, 10, 5, width=110)
    truth = truth_of(masks, distances=[20, 80, np.nan, 20])
    summary = score_of(truth, found_of(masks[1:2], [1.0], shape=(100, 110)))
    assert summary.average_precision.value == pytest.approx(1 / 4)
    assert summary.average_precision_100m.value == pytest.approx(1 / 2)
    assert summary.average_precision_50m.value == 0
    unknown = score_of(truth_of(masks), found_of(masks, [1.0] * 4, shape=(100, 110)))
    assert unknown.average_precision.value == 1
    for field in FIELDS[2:]:
        assert np.isnan([getattr(unknown, field).value, getattr(unknown, field).low]).all()


def test_where_all_that_is_found_is_left_out_the_value_is_0():
    one, crowd = bands(10, 20)
    truth = truth_of([one, crowd], is_crowd=[False, True])
    assert score_of(truth, found_of([crowd], [0.5])).average_precision.value == 0


def test_images_without_objects_have_no_value():
    for found in (found_of([], []), found_of(bands(10), [0.5])):
        summary = score_of(truth_of([]), found)
        assert np.isnan(summary.average_precision.value)
    both = [
        score_image(truth_of(bands(10)), found_of([], []), name="a"),
        score_image(truth_of([]), found_of([], []), name="b"),
    ]
    assert summarise(both).average_precision.value == 0


# --- laws


def some_scores(seed, n=6):
    """Scores of a few random images."""
    draw = np.random.default_rng(seed)
    scores = []
    for k in range(n):
        numbers = true_numbers(draw, [24, 26])
        masks, own, confidences = found_masks(draw, numbers, [24, 26])
        found = Instances.from_masks(masks, np.where(own == 24, 1, 3), confidences, SHAPE)
        scores.append(score_image(annotated(numbers, {}), found, name=str(k)))
    return scores


def test_a_perfect_result_scores_1_whatever_the_scores():
    draw = np.random.default_rng(0)
    for _ in range(20):
        numbers = true_numbers(draw, [24, 26])
        truth = annotated(numbers, {})
        masks = [numbers == n for n in np.unique(numbers) if n // 1000 in (24, 26)]
        classes = [1 if n // 1000 == 24 else 3 for n in np.unique(numbers) if n // 1000 in (24, 26)]
        summary = score_of(truth, found_of(masks, draw.random(len(masks)), classes, SHAPE))
        if summary.n_truth:
            value = summary.average_precision
            assert (value.value, value.low, value.high) == (1, 1, 1)


def test_a_label_image_scores_as_its_masks_do():
    labels = np.zeros((100, 20), np.int32)
    labels[:10], labels[12:40], labels[60:] = 1, 2, 4  # 3 has no pixel
    classes, scores = np.array([1, 1, 1, 2]), np.array([0.9, 0.2, 0.95, 0.4])
    truth = truth_of(bands(10, 25, 65), classes=[1, 1, 2])
    plain = score_image(truth, Instances(labels, classes, scores), name="a")
    masked = score_image(truth, found_of([labels == k for k in range(1, 5)], scores, classes), name="a")
    for field in ("found_classes", "scores", "partner", "iou", "ignored"):
        np.testing.assert_array_equal(getattr(plain, field), getattr(masked, field))
    assert plain.partner.tolist() == [0, 1, 2]


def test_intervals_are_those_of_the_images_drawn(monkeypatch):
    monkeypatch.setattr(metric, "N_SAMPLES", 8)
    monkeypatch.setattr(metric, "_MOST_AT_ONCE", 40)  # so that samples are taken a few at a time
    images = some_scores(1, 4)
    drawn = [np.repeat(np.arange(4), row.astype(int)) for row in bootstrap_weights(4, 0)[:8]]
    samples = [summarise([images[k] for k in own]).average_precision.value for own in drawn]
    interval = summarise(images).average_precision
    np.testing.assert_allclose([interval.low, interval.high], np.quantile(samples, (0.025, 0.975)), atol=1e-12)
    assert interval.low < interval.value < interval.high


def test_a_class_that_few_images_have_gets_its_interval_from_samples_that_have_it():
    images = some_scores(1, 3)
    (mask,) = bands(10)
    images.append(score_image(truth_of([mask], classes=[5]), found_of([mask], [0.5], [5]), name="bus"))
    value = summarise(images).by_class[5].average_precision
    assert (value.value, value.low, value.high) == (1, 1, 1)


def test_a_result_differs_from_itself_by_nothing_and_from_a_worse_one_upwards():
    images = some_scores(2)
    same = paired_difference(images, images[::-1])
    assert (same.average_precision.value, same.average_precision.low, same.average_precision.high) == (0, 0, 0)
    assert same.n_images == 6
    (mask,) = bands(20)
    truth = truth_of([mask])
    good, bad = ([score_image(truth, found_of(m, [0.5] * len(m)), name="a")] for m in ([mask], []))
    assert paired_difference(good, bad).average_precision.value == 1


# --- what cannot be scored


def test_images_of_different_shape_are_refused():
    with pytest.raises(
        InputError, match=r"a: the images to compare differ in shape: truth \(100, 20\), found \(9, 9\)"
    ):
        score_image(truth_of([]), found_of([], [], shape=(9, 9)), name="a")


def test_no_image_or_other_images_are_refused():
    with pytest.raises(InputError, match="There is no image to score"):
        summarise([])
    with pytest.raises(InputError, match="There is no image to score"):
        paired_difference([], [])
    with pytest.raises(InputError, match="only one of the two has 0"):
        paired_difference(some_scores(0, 2), some_scores(0, 2)[1:])
