"""Who is in front where annotated objects overlap."""

import numpy as np
import pytest
from typer.testing import CliRunner

from attractor.cli import app
from attractor.datasets import open_dataset
from attractor.datasets.checking import check
from attractor.datasets.coco import write_coco
from attractor.datasets.in_front import InFront, drawn_by, suggested_rule
from attractor.datasets.sample import Sample
from attractor.division import parts_of
from attractor.errors import InputError
from attractor.instances import Annotations, Instances
from attractor.recipe import Reader, recipe_for

FACADE, WINDOW, SIGN = 1, 2, 3  # in the order of the file: the sign is last and larger than the window


def masks():
    facade, window, sign = (np.zeros((20, 20), bool) for _ in range(3))
    facade[2:18, 2:18] = True
    window[4:8, 4:8] = True
    sign[6:14, 6:14] = True
    return facade, window, sign


@pytest.fixture
def street(tmp_path):
    """A facade, a window in it, and a sign that hides a corner of the window; photographs have three channels."""
    found = Instances.from_masks(masks(), np.array([1, 2, 2], np.int32), np.ones(3, np.float32), (20, 20))
    image, void = np.full((20, 20, 3), 90, np.uint8), np.zeros((20, 20), bool)
    samples = [
        Sample(name, image, found.labels, found.classes, void, lambda: Annotations.of(found, void)) for name in "ab"
    ]
    write_coco(tmp_path / "street", samples, ("shop", "window"))
    return tmp_path / "street"


def by_rule(street, rule):
    sample = drawn_by(open_dataset(street), rule)[0]
    return [int(sample.labels[place]) for place in ((3, 3), (5, 5), (7, 7), (10, 10))], sample


def test_what_several_claim_is_ignored_and_an_object_without_a_pixel_of_its_own_is_gone(street):
    labels, sample = by_rule(street, "ignore")
    assert labels == [1, 0, 0, 0]
    assert sample.ignore.sum() == 16 + 64 - 4
    assert len(sample.classes) == 1


def test_the_smaller_one_is_in_front(street):
    labels, sample = by_rule(street, "smaller in front")
    assert labels == [FACADE, WINDOW, WINDOW, SIGN]
    assert not sample.ignore.any()
    assert sample.classes.tolist() == [1, 2, 2]


def test_the_later_one_is_in_front(street):
    labels, _ = by_rule(street, "later in front")
    assert labels == [FACADE, WINDOW, SIGN, SIGN]


@pytest.mark.parametrize("rule", ["ignore", "smaller in front"])
def test_benchmarks_score_every_object_whole_whatever_the_rule(street, rule):
    _, sample = by_rule(street, rule)
    assert sorted(sample.annotate().areas) == [16, 64, 256]


def test_an_unknown_rule_is_refused(street):
    with pytest.raises(InputError, match=r'data\.overlap = "front" is not known; it can be ignore, smaller in front'):
        drawn_by(open_dataset(street), "front")
    with pytest.raises(InputError, match=r"data\.overlap"):
        InFront(open_dataset(street), "ignore")


def test_check_counts_what_is_lost_by_the_rule(street):
    ignored = check(street, overlap="ignore")
    assert [text.split(" ")[1] for text in ignored.warnings[:2]] == ["images", "annotated"]
    assert not any("overlaps" in text for text in ignored.facts)
    assert not any("claim" in text for text in check(street, overlap="later in front").warnings)


def test_check_and_convert_draw_as_training_does(street, tmp_path):
    report = check(street)
    assert not any("claim" in text for text in report.warnings)
    assert "overlaps: smaller in front, as in training (data.overlap)" in report.facts
    calls = {
        (): (3, "went to the smaller one"),
        ("--overlap", "ignore"): (1, "became neither's"),
        ("--overlap", "later in front"): (3, "went to the later one"),
        ("--classes", "window"): (2, "went to the smaller one"),
    }
    for k, (given, (kept, lost)) in enumerate(calls.items()):
        out = tmp_path / f"out{k}"
        result = CliRunner().invoke(app, ["convert", str(street), str(out), "--to", "label-images", *given])
        assert result.exit_code == 0, result.output
        assert len(open_dataset(out)[0].classes) == kept
        assert f"2 images with pixels of two objects, which {lost}" in " ".join(result.output.split())


def test_a_first_image_that_cannot_be_read_is_one_error_of_check(street):
    next(street.rglob("a.png")).write_bytes(b"no image")
    report = check(street)
    assert ["a.png" in error for error in report.errors] == [True]
    assert "b" in report.object_counts


def test_a_recipe_for_photographs_puts_the_smaller_one_in_front_and_others_ignore(street):
    recipe = recipe_for(street)
    assert recipe.data.overlap == "smaller in front"
    training, _ = parts_of(recipe, Reader())
    assert training[0].labels.max() == 3
    assert recipe_for(street, ['data.overlap="ignore"']).data.overlap == "ignore"


def test_microscopy_ignores(tmp_path):
    labels = np.zeros((20, 20), np.int32)
    labels[2:6, 2:6], labels[10:15, 10:15] = 1, 2
    image, void = np.full((20, 20, 1), 90, np.uint8), np.zeros((20, 20), bool)
    write_coco(tmp_path, [Sample(name, image, labels, np.array([1, 2]), void) for name in "ab"], ("live", "dead"))
    assert suggested_rule(open_dataset(tmp_path)) == "ignore"
