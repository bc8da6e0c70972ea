"""What every metric gives, and its function on arrays."""

import dataclasses
import doctest
import importlib
from inspect import unwrap

import numpy as np
import pytest

from attractor import metrics
from attractor.errors import InputError
from attractor.instances import Instances
from attractor.metrics import METRICS
from attractor.metrics.bootstrap import Interval
from attractor.metrics.metric import Amount, Curved, Difference, Metric, Pair, Scores, Summary

FUNCTIONS = [name for name in metrics.__all__ if name.islower()]  # not the lists, nor the protocols


def squares(*places: tuple[int, int], side: int = 12) -> np.ndarray:
    """A label image with a square at each place."""
    labels = np.zeros((60, 60), np.int32)
    for label, (row, column) in enumerate(places, 1):
        labels[row : row + side, column : column + side] = label
    return labels


TRUTH = [squares((2, 2), (30, 30)), squares((5, 5), (40, 20)), squares((8, 40))]
BETTER = [squares((2, 2), (31, 30)), squares((5, 6), (40, 20)), squares((8, 40))]
WORSE = [squares((4, 2)), squares((5, 5), (43, 20)), squares((10, 42), (30, 10))]


def scored(metric: Metric, found: list[np.ndarray]) -> list[Scores]:
    pairs = (
        Pair(f"image {k}", Instances.from_labels(truth), Instances.from_labels(own))
        for k, (truth, own) in enumerate(zip(TRUTH, found, strict=True))
    )
    return [scores for pair in pairs if (scores := metric.score_image(pair)) is not None]


@pytest.fixture(autouse=True)
def few_samples(monkeypatch):
    """Intervals are not what is looked at."""
    for module in ("bootstrap", "coco", "cityscapes"):
        monkeypatch.setattr(importlib.import_module(f"attractor.metrics.{module}"), "N_SAMPLES", 20)


@pytest.fixture(params=METRICS)
def metric(request):
    return METRICS[request.param]


def test_a_metric_is_one(metric):
    assert isinstance(metric, Metric)
    assert len(metric.about) < 80
    assert metric.about == metric.about.rstrip(".")


def test_the_headline_is_a_share_in_an_overview_and_in_differences(metric):
    images = scored(metric, BETTER)
    summary, difference = metric.summarise(images), metric.paired_difference(images, scored(metric, WORSE))
    assert isinstance(summary, Summary)
    assert isinstance(difference, Difference)
    rows = [overview.row for overview in summary.overviews()]
    (value,) = (row[metric.headline] for row in rows if metric.headline in row)
    assert isinstance(value, Interval)
    assert value.value == pytest.approx(metric.value(images))
    assert isinstance(difference.row()[metric.headline], Interval)


def test_the_better_result_has_the_higher_headline_also_in_pairs(metric):
    better, worse = scored(metric, BETTER), scored(metric, WORSE)
    assert metric.value(better) > metric.value(worse)
    change = metric.paired_difference(better, worse[::-1]).row()[metric.headline]
    assert change.value == pytest.approx(metric.value(better) - metric.value(worse))
    assert metric.paired_difference(worse, worse).row()[metric.headline] == Interval(0.0, 0.0, 0.0)


def test_differences_have_the_headings_of_overviews(metric):
    images = scored(metric, BETTER)
    rows = [overview.row for overview in metric.summarise(images).overviews()]
    headings = {heading: cell for row in rows for heading, cell in row.items()}
    assert len(headings) == sum(map(len, rows))
    row = metric.paired_difference(images, images).row()
    assert set(row) <= set(headings)
    for heading, cell in row.items():
        assert isinstance(cell, Amount) == isinstance(headings[heading], Amount)


def test_tables_have_the_same_headings_in_each_row(metric):
    for table in metric.summarise(scored(metric, BETTER)).tables(("cell", "nucleus")):
        assert table.rows
        assert len({tuple(row) for row in table.rows.values()}) == 1


def test_a_curve_has_a_value_at_each_place(metric):
    summary = metric.summarise(scored(metric, BETTER))
    if isinstance(summary, Curved):
        curve = summary.curve()
        assert len(curve.places) == len(curve.values.value) > 1


def test_records_are_frozen_dataclasses(metric):
    images = scored(metric, BETTER)
    for record in (images[0], metric.summarise(images), metric.paired_difference(images, images)):
        assert dataclasses.is_dataclass(record)
        with pytest.raises(dataclasses.FrozenInstanceError):
            record.n_images = 0


def test_scores_of_another_metric_are_refused():
    images = scored(METRICS["aji"], BETTER)
    with pytest.raises(TypeError, match="scores of another metric; here they must be LeafScores"):
        METRICS["cvppp"].summarise(images)


def test_images_of_different_shape_are_no_pair():
    one, other = (Instances.from_labels(np.zeros(shape, np.int32)) for shape in ((2, 3), (3, 2)))
    with pytest.raises(InputError, match=r"^cells: .* truth \(2, 3\), found \(3, 2\)\. They must be of the same image"):
        Pair("cells", one, other)
    with pytest.raises(InputError, match=r"found \(2, 3\), ignore \(3, 2\)"):
        Pair("cells", one, one, np.zeros((3, 2), bool))


# --- arrays -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FUNCTIONS)
def test_every_example_is_true(name):
    function = getattr(metrics, name)
    module = importlib.import_module(unwrap(function).__module__)
    examples = doctest.DocTestFinder(recurse=False).find(unwrap(function), name, module, {})
    runner = doctest.DocTestRunner()
    for example in examples:
        runner.run(example)
    assert runner.summarize(verbose=False).failed == 0
    assert sum(len(example.examples) for example in examples) > 2


def test_there_is_a_function_for_each_metric():
    summaries = {unwrap(getattr(metrics, name)).__annotations__["return"] for name in FUNCTIONS}
    assert len(summaries) == len(METRICS) == len(FUNCTIONS)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_one_image_is_a_list_of_one(name):
    function = getattr(metrics, name)
    one, several = function(TRUTH[0], WORSE[0]), function([TRUTH[0]], [WORSE[0]])
    assert one.n_images == several.n_images == 1
    assert repr(one) == repr(several)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arrays_score_as_the_metric_does(name):
    function = getattr(metrics, name)
    summary = function(np.stack(TRUTH), [Instances.from_labels(found) for found in WORSE])
    (metric,) = (one for one in METRICS.values() if isinstance(summary, type(one.summarise(scored(one, WORSE)))))
    assert repr(summary) == repr(metric.summarise(scored(metric, WORSE)))


@pytest.mark.parametrize("name", [name for name in FUNCTIONS if name != "cityscapes_average_precision"])
def test_ignored_pixels_of_arrays_count_for_nothing(name):
    function = getattr(metrics, name)
    truth, found = squares((2, 2), (30, 30)), squares((2, 2), (45, 45))
    perfect = squares((2, 2))
    assert repr(function(truth, perfect, ignore=truth == 2)) == repr(function(perfect, perfect, ignore=truth == 2))
    assert repr(function(truth, found)) != repr(function(truth, found, ignore=truth == 2))


def test_what_cannot_be_paired_is_refused():
    quality = unwrap(metrics.panoptic_quality)
    with pytest.raises(InputError, match="2 true images but 1 found"):
        quality(TRUTH[:2], WORSE[:1])
    with pytest.raises(InputError, match="3 images but 1 masks"):
        quality(TRUTH, WORSE, ignore=np.zeros((60, 60), bool))
    with pytest.raises(
        InputError, match=r"image 0, truth: an array of shape \(60, 60\) and type float64 is not a label"
    ):
        quality(TRUTH[0] + 0.5, WORSE[0])
    with pytest.raises(InputError, match=r"image 1, found: an array of shape \(60,\)"):
        quality(TRUTH[:2], [WORSE[0], WORSE[1][0]])
    with pytest.raises(InputError, match="negative label -1"):
        quality(TRUTH[0], -WORSE[0])
