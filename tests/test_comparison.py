"""Models side by side: each alone in its process, tested in pairs, and shown on one page."""

import dataclasses
import importlib
import inspect
import io
import json
import multiprocessing
import os
import re

import numpy as np
import pytest
from PIL import Image

import attractor
from attractor import comparison
from attractor.comparison import as_json, compare, computing, pictures, running, write_page
from attractor.comparison.records import Measured, headline_in
from attractor.comparison.verdict import FEWEST, verdict_on_counts, verdict_on_headline, verdict_on_time
from attractor.datasets import Subset, open_dataset
from attractor.datasets.sample import Sample
from attractor.description import Description
from attractor.errors import InputError
from attractor.evaluation import evaluate_model, plain
from attractor.images import write_image, write_labels
from attractor.methods import METHODS
from attractor.methods.spatial_embeddings import SpatialEmbeddings
from attractor.metrics import METRICS
from attractor.metrics.average_precision import Difference
from attractor.metrics.bootstrap import Estimate, Interval
from attractor.model import Model
from attractor.prediction.image import Segmenter
from attractor.wording import share

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Three grey pictures of squares, with a column `kind`, as files."""
    folder = tmp_path_factory.mktemp("data") / "squares"
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for k in range(3):
        labels = np.zeros((32, 40), np.int32)
        labels[4:14, 4:14], labels[18:28, 12 + k : 22 + k] = 1, 2
        pixels = (labels > 0) * 200 + RANDOM.integers(0, 40, labels.shape)
        write_image(folder / f"images/i{k}.png", pixels.astype(np.uint8)[..., None])
        write_labels(folder / f"labels/i{k}.png", labels)
    (folder / "images.csv").write_text("image,kind\ni0,even\ni1,odd\ni2,even\n")
    return folder


@pytest.fixture(scope="module")
def models(tiny_model, tmp_path_factory):
    """The tiny model and one that finds nothing smaller than 60 pixels."""
    model = Model.load(tiny_model)
    model.method.thresholds["min_size"] = 60
    training = tmp_path_factory.mktemp("models") / "picky"
    training.mkdir()
    model.save(training / "model.safetensors")
    return [tiny_model, training]


@pytest.fixture(scope="module")
def compared(models, folder):
    dataset = open_dataset(folder)
    by = dataset.columns["kind"]
    return compare(models, dataset, title="squares", by=by, device="cpu", n_shown=2, own_process=False)


def described(path, **changes):
    """A model file of another description, with new weights."""
    known = {"method": "spatial-embeddings", "network": "erfnet", "channels": 1, "class_names": ("object",)}
    Model(Description(**known | changes)).save(path)
    return path


# --- what is measured -------------------------------------------------------------------------------------------------


def test_each_model_scores_as_in_an_evaluation(compared, models, folder):
    from attractor.evaluation import evaluate, predicted

    dataset = open_dataset(folder)
    for model, part in zip(models, compared.models, strict=True):
        expected = evaluate(
            predicted(attractor.load(model, device="cpu", dtype="float32"), dataset), by=dataset.columns["kind"]
        )
        np.testing.assert_array_equal(part.summary.by_image.value, expected.summary.by_image.value)
        assert part.summary.n_found == expected.summary.n_found > 0
        assert part.groups.keys() == expected.groups.keys() == {"even", "odd"}
    assert [part.name for part in compared.models] == ["tiny", "picky"]


def test_a_picture_of_one_colour_is_left_empty_as_segment_does(tiny_model):
    dataset = type("One", (list,), {"names": ("a",), "class_names": ("object",), "columns": {}})()
    zeros = np.zeros((16, 16), np.int32)
    dataset.append(Sample("a", np.full((16, 16, 1), 7, np.uint8), zeros, np.ones(0, np.int32), zeros > 0))
    done = compare([tiny_model, tiny_model], dataset, device="cpu", own_process=False)
    assert [model.summary.mean_average_precision.value for model in done.models] == [1, 1]


def test_a_process_of_its_own_finds_the_same_and_knows_its_memory(compared, models, folder):
    alone = compare(models, open_dataset(folder), device="cpu", n_shown=0)
    assert alone.models[0].footprint.memory > 1e8
    assert compared.models[0].footprint.memory is None
    for a, b in zip(alone.models, compared.models, strict=True):
        assert [image.leaves for image in a.images] == [image.leaves for image in b.images]
        assert a.seconds > 0
    assert multiprocessing.active_children() == []


def test_an_error_in_a_process_is_reported(models, folder, tmp_path):
    content = models[0].read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content.replace(b"decoders.0", b"decoders.7", 1))
    with pytest.raises(InputError, match="the weights do not fit the model"):
        compare([tmp_path / "cut.safetensors", models[0]], open_dataset(folder), device="cpu")


class Deadly(Subset):
    """A data set that ends the process which it is sent to."""

    def __reduce__(self):
        return os._exit, (3,)


def test_a_process_that_dies_is_told(models, folder):
    dataset = Deadly(open_dataset(folder), [0])
    with pytest.raises(InputError, match=r"tiny: its process ended before its work was done \(exit code 3\)"):
        compare(models, dataset, device="cpu")


def test_want_of_memory_is_told_with_a_cure(monkeypatch):
    def work(job):
        raise MemoryError

    monkeypatch.setattr(running, "work", work)
    receiver, sender = multiprocessing.Pipe(duplex=False)
    inspect.unwrap(running.send)(type("Job", (), {"name": "tiny"})(), sender)
    assert str(receiver.recv()) == "tiny: memory ran out; compare on crops, as with --crop 512."


def test_progress_is_reported_for_each_image_of_each_model(models, folder):
    calls = []
    compare(models, open_dataset(folder), device="cpu", own_process=False, report=lambda: calls.append(1))
    assert len(calls) == 6


def test_models_of_one_name_are_numbered(tiny_model, models, tmp_path):
    names = computing._shown_names([tiny_model, "nuclei", tmp_path / "nuclei", models[1] / "model.safetensors"])
    assert names == ["tiny", "nuclei (1)", "nuclei (2)", "picky"]


@pytest.mark.parametrize("metric", METRICS)
def test_models_are_compared_by_every_metric(models, folder, tmp_path, metric, monkeypatch):
    for module in ("bootstrap", "coco", "cityscapes"):
        monkeypatch.setattr(importlib.import_module(f"attractor.metrics.{module}"), "N_SAMPLES", 20)

    class Proposing(METHODS["spatial-embeddings"]):
        def propose(self, maps, n):
            return self.group(maps)

    monkeypatch.setitem(METHODS, "spatial-embeddings", Proposing)
    dataset, scoring = open_dataset(folder), METRICS[metric]
    done = compare(models, dataset, metric=metric, device="cpu", own_process=False, n_shown=1)
    first, other = done.models
    expected = evaluate_model(models[0], dataset, metric=metric)
    assert plain(first.summary) == plain(expected.summary)
    change = done.pairs[0].difference.row()[scoring.headline]
    values = [headline_in(model.summary, scoring.headline).value for model in (other, first)]
    assert change.value == pytest.approx(values[0] - values[1], nan_ok=True)
    assert f"its {scoring.headline} is" in done.pairs[0].verdict or "score the same" in done.pairs[0].verdict
    write_page(done, tmp_path / "page.html")
    text = words(tmp_path / "page.html")
    assert scoring.about in text
    for heading in scoring.terms:
        assert heading.replace("|", "") in text.replace("|", "")


def test_a_method_without_proposals_is_not_ranked_by_them(models, folder):
    with pytest.raises(InputError, match=r"tiny\.safetensors: .* offers no proposals"):
        compare(models, open_dataset(folder), metric="average_recall", device="cpu", own_process=False)


def test_a_metric_that_is_not_there(models, folder):
    with pytest.raises(InputError, match='no metric "ap"'):
        compare(models, open_dataset(folder), metric="ap", device="cpu")


def test_where_memory_runs_out_images_are_computed_in_tiles_as_segment_does(tiny_model, folder, monkeypatch):
    dataset = Subset(open_dataset(folder), [0])
    expected = len(attractor.load(tiny_model, device="cpu", dtype="float32").segment(dataset[0].image))
    monkeypatch.setattr("attractor.prediction.memory.TILES", (32,))
    maps_of, tiles = Segmenter.maps, []

    def maps(self, image, *, tta=False, tile=None):
        tiles.append(tile)
        if tile is None:
            raise MemoryError
        return maps_of(self, image, tta=tta, tile=tile)

    monkeypatch.setattr(Segmenter, "maps", maps)
    done = compare([tiny_model, tiny_model], dataset, device="cpu", own_process=False, n_shown=0)
    assert tiles[0] is None
    assert done.models[0].leaves.n_found == pytest.approx(expected, rel=0.2)


def test_on_a_gpu_images_go_through_the_network_together_and_score_as_one_by_one(compared, models, folder, monkeypatch):
    maps_of, passes = Segmenter.maps, []

    def maps(self, images, **options):
        passes.append(images.shape[0])
        return maps_of(self, images, **options)

    monkeypatch.setattr(Segmenter, "maps", maps)
    monkeypatch.setattr(Segmenter, "n_together", 3)
    dataset = open_dataset(folder)
    done = compare(models, dataset, device="cpu", n_shown=0, own_process=False)
    assert 3 in passes
    for part, alone in zip(done.models, compared.models, strict=True):
        assert [one.name for one in part.images] == list(dataset.names)
        np.testing.assert_array_equal([one.value for one in part.images], [one.value for one in alone.images])
        assert part.network_seconds > 0 < part.grouping_seconds


# --- verdicts ---------------------------------------------------------------------------------------------------------


def difference(value, low, high, n=20):
    estimate = Estimate(np.array([value]), np.array([low]), np.array([high]))
    return Difference(Interval(value, low, high), estimate, np.array([0.5]), n)


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (
            difference(0.05, 0.02, 0.08),
            r"^b is better than a: its mean AP is \.050 higher \(95 % .* \+\.020 to \+\.080\)",
        ),
        (difference(-0.05, -0.08, -0.02), r"^b is worse than a: its mean AP is \.050 lower"),
        (difference(0.01, -0.02, 0.04), r"^No clear difference between b and a: .* which includes 0\)\.$"),
        (difference(0.0, 0.0, 0.0), r"^b and a score the same on every picture\.$"),
        (difference(0.05, 0.02, 0.08, FEWEST - 1), r"^Too few pictures \(5\) to say whether b differs from a"),
    ],
)
def test_a_verdict_says_whether_there_is_a_difference(given, sentence):
    assert re.search(sentence, verdict_on_headline("a", "b", "mean AP", given))


def test_counts_and_time_are_judged_too():
    assert verdict_on_counts(Interval(-1.5, -2.0, -1.0), 20).startswith("It miscounts 1.50 fewer objects per picture")
    assert verdict_on_counts(Interval(0.5, -1.0, 2.0), 20).startswith("No clear difference in counts")
    assert verdict_on_counts(Interval(0.0, 0.0, 0.0), 20).startswith("On every picture their counts are equally far")
    assert verdict_on_counts(Interval(-1.5, -2.0, -1.0), FEWEST - 1) == ""
    assert verdict_on_time(1.0, 2.0) == "It takes 2.0 times as long."
    assert verdict_on_time(3.0, 1.0) == "It is 3.0 times as fast."
    assert verdict_on_time(1.0, 1.05) == "Both are about equally fast."


def test_a_model_does_not_differ_from_itself(tiny_model, folder):
    done = compare([tiny_model, tiny_model], open_dataset(folder), device="cpu", own_process=False, n_shown=1)
    (pair,) = done.pairs
    assert pair.difference.mean_average_precision == Interval(0.0, 0.0, 0.0)
    assert pair.leaves.symmetric_best_dice == Interval(0.0, 0.0, 0.0)
    assert not pair.is_difference
    assert pair.verdict.startswith("tiny (2) and tiny (1) score the same on every picture.")
    assert done.shown[0].lowest == done.shown[0].highest


def test_few_pictures_give_no_verdict(compared):
    assert len(compared.models[0].images) < FEWEST
    assert not compared.pairs[0].is_difference


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_the_greatest_disagreement_comes_first(compared, models):
    scores = np.array([[image.value for image in model.images] for model in compared.models])
    spread = np.ptp(scores, axis=0)
    assert [image.highest - image.lowest for image in compared.shown] == sorted(spread, reverse=True)[:2]
    first = compared.shown[0]
    assert [panel.title for panel in first.panels] == ["Picture", "Truth", "tiny", "picky"]
    assert first.panels[2].below[0].endswith(" found, 2 true")


def test_pictures_shrink_until_they_fit():
    pixels = RANDOM.integers(0, 255, (300, 600, 3), np.uint8)
    sizes = [
        Image.open(io.BytesIO(pictures.drawn(pixels, np.ones((300, 600), np.int32), allowed))).size
        for allowed in (10**6, 80_000, 1)
    ]
    assert sizes[0] == (420, 210)
    assert 160 < sizes[1][0] < 420
    assert sizes[2] == (160, 80)


def test_an_order_of_finding_is_drawn_where_a_method_keeps_one(models, folder, tmp_path, monkeypatch):
    drawn = []
    plain_overlay = pictures.overlay

    def overlay(*arguments, order=False, **options):
        drawn.append(order)
        return plain_overlay(*arguments, order=order, **options)

    monkeypatch.setattr(pictures, "overlay", overlay)
    work = running.work

    def ordered(job):
        for part in work(job):
            is_picky = job.name == "picky" and not isinstance(part, Measured)
            yield dataclasses.replace(part, is_ordered=True, max_instances=1) if is_picky else part

    monkeypatch.setattr(running, "work", ordered)
    done = compare(models, open_dataset(folder), device="cpu", own_process=False, n_shown=1)
    assert drawn.count(True) == 1
    write_page(done, tmp_path / "page.html")
    text = words(tmp_path / "page.html")
    assert "Outlines of picky instead run from yellow through red and violet to cyan" in text
    assert "picky can find at most 1 object in a picture; 3 of the 3 pictures have more." in text


# --- the page ---------------------------------------------------------------------------------------------------------


def words(page):
    """The text of a page, with single spaces."""
    text = re.sub(r"<style>.*?</style>|<[^>]+>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return " ".join(text.split())


def test_the_page_has_all_and_needs_nothing_else(compared, tmp_path):
    write_page(compared, tmp_path / "page.html", command="attractor compare <a> b")
    page, text = (tmp_path / "page.html").read_text(encoding="utf-8"), words(tmp_path / "page.html")
    for model in compared.models:
        assert share(model.summary.mean_average_precision.value) in text
        assert f"{model.leaves.absolute_difference_in_count.value:.2f}" in text
    assert compared.pairs[0].verdict.split(":")[0] in text
    assert "even" in text
    assert "attractor compare &lt;a&gt; b" in text
    assert page.count("data:image/jpeg;base64,") == 2 * 4
    assert "<script" not in page
    addresses = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'\s)]+)""", page)
    assert {address.split(":")[0].split("m")[0] for address in addresses} <= {"data", "#"}
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


def test_names_cannot_break_the_page(compared, tmp_path):
    first = dataclasses.replace(compared.models[0], name="<b>&")
    write_page(dataclasses.replace(compared, models=(first, compared.models[1])), tmp_path / "page.html")
    assert "<b>&" not in (tmp_path / "page.html").read_text(encoding="utf-8")


def test_a_page_without_pictures_and_groups(models, folder, tmp_path):
    done = compare(models, open_dataset(folder), device="cpu", own_process=False, n_shown=0)
    write_page(done, tmp_path / "page.html")
    text = words(tmp_path / "page.html")
    assert "Where they disagree" not in text
    assert "Group by group" not in text


def test_json_has_every_number(compared):
    content = json.loads(json.dumps(as_json(compared)))
    first = content["models"][0]
    assert {"name", "method", "network", "file_bytes", "footprint", "summary", "groups", "leaves"} <= set(first)
    assert [image["name"] for image in first["images"]] == ["i0", "i1", "i2"]
    assert {"value", "scores", "leaves", "network_seconds"} <= set(first["images"][0])
    assert set(content["pairs"][0]["difference"]["mean_average_precision"]) == {"value", "low", "high"}
    assert [set(image) for image in content["shown"]] == [{"name", "lowest", "highest"}] * 2


def test_without_jinja2_the_cure_is_said(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "jinja2", None)
    with pytest.raises(InputError, match=r'pip install "\.\[report\]"'):
        comparison.check_page()


# --- the command ------------------------------------------------------------------------------------------------------


def test_the_command_writes_page_and_numbers(attractor_command, models, folder, tmp_path, monkeypatch):
    monkeypatch.setattr(running, "in_own_process", running.work)
    options = ["--data", folder, "--by", "kind", "--images", 1, "--crop", 30, "--out", tmp_path / "out"]
    answer = attractor_command("compare", *models, *options, "--device", "cpu")
    assert (answer.code, answer.error) == (0, "")
    assert max(map(len, [line for line in answer.out.splitlines() if "/" not in line and "Too" not in line])) <= 80
    assert "Too few pictures (3)" in answer.out
    content = json.loads((tmp_path / "out/comparison.json").read_text())
    assert content["command"].startswith(f"attractor compare {models[0]} {models[1]} --data {folder}")
    assert len(content["shown"]) == 1
    assert "crops of 30 x 30 pixels" in words(tmp_path / "out/index.html")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"class_names": ("a", "b")}, r"tiny\.safetensors has object, .*other\.safetensors has a, b"),
        ({"channels": 2}, r"other\.safetensors: i0 has 1 channel, the model takes 2"),
    ],
)
def test_models_that_cannot_be_compared(attractor_command, tiny_model, folder, tmp_path, change, message):
    other = described(tmp_path / "other.safetensors", **change)
    answer = attractor_command("compare", tiny_model, other, "--data", folder, "--out", tmp_path / "out")
    assert answer.code == 2
    assert re.search(message, answer.error)
    assert not (tmp_path / "out").exists()


def test_one_class_may_be_called_anything(tiny_model, folder, tmp_path):
    other = described(tmp_path / "other.safetensors", class_names=("nucleus",))
    assert len(comparison.check_models([tiny_model, other], open_dataset(folder), device="cpu")) == 2


def test_wrong_calls_are_answered_in_one_line(attractor_command, tiny_model, folder, tmp_path):
    file = tmp_path / "file"
    file.write_text("")
    for arguments, message in [
        ([tiny_model, "--data", folder], "1 model given; a comparison needs at least two"),
        ([tiny_model, "nothing", "--data", folder], "nothing: there is no such model"),
        ([tiny_model, tiny_model, "--data", "nowhere"], "nowhere: there is no such data set"),
        ([tiny_model, tiny_model, "--data", folder, "--by", "colour"], "no column 'colour'"),
        ([tiny_model, tiny_model, "--data", folder, "--device", "tpu"], 'There is no device "tpu"'),
        ([tiny_model, tiny_model, "--data", folder, "--out", file], "cannot be used as output folder"),
    ]:
        answer = attractor_command("compare", *arguments)
        assert (answer.code, answer.error.count("\n")) == (2, 1)
        assert message in answer.error


def test_a_number_of_images_below_zero(models, folder):
    with pytest.raises(InputError, match="number of images to show is -1"):
        compare(models, open_dataset(folder), device="cpu", n_shown=-1)


def test_a_method_without_views_is_named(models, folder, monkeypatch):
    class WithoutViews(SpatialEmbeddings):
        turned = None

    monkeypatch.setitem(METHODS, "spatial-embeddings", WithoutViews)
    with pytest.raises(InputError, match=r"tiny\.safetensors: .* has no test-time augmentation"):
        comparison.check_models(models, open_dataset(folder), device="cpu", tta=True)


def test_a_model_without_ranges_for_eight_bits_is_named_before_any_runs(models, folder):
    pytest.importorskip("openvino")
    with pytest.raises(InputError, match=r"tiny\.safetensors: int8 needs a calibrated model"):
        comparison.check_models(models, open_dataset(folder), device="cpu", engine="openvino", dtype="int8")
