"""Runs: every image is read once, validation has objects, a false start leaves nothing, and time can be limited."""

import dataclasses

import numpy as np
import pytest
from tests.test_training import new_model, sample

import attractor
from attractor import runs
from attractor.datasets.label_images import LabelImages, write_label_images
from attractor.datasets.sample import Sample
from attractor.errors import InputError
from attractor.model import Model
from attractor.recipe import recipe_for, recipe_of, write_recipe
from attractor.training.clock import Clock
from attractor.training.loop import _Run

QUICK = [
    "training.epochs=1",
    "training.crops_per_epoch=2",
    "training.batch_size=2",
    "training.crop_size=32",
    "training.workers=0",
]


@pytest.fixture(autouse=True)
def _thresholds_as_they_are(monkeypatch):
    """Tuning them takes half of so small a run."""
    monkeypatch.setattr("attractor.training.loop.tune", lambda *_, **__: {})


def write_images(folder, n_objects):
    """Images image_0, image_1, … with so many objects."""
    samples = []
    for index, n in enumerate(n_objects):
        drawn = sample(f"image_{index}", seed=index)
        labels = np.where(drawn.labels <= n, drawn.labels, 0)
        samples.append(dataclasses.replace(drawn, labels=labels, classes=np.ones(n, np.int32)))
    write_label_images(folder, samples)
    return folder


class FirstStepError(Exception):
    """The first step has come."""


def test_every_image_is_read_once_before_the_first_step(tmp_path, monkeypatch):
    data, reads = write_images(tmp_path / "data", [3, 3, 3, 3]), []
    read = LabelImages.__getitem__

    def counting(self, index):
        reads.append(self.names[index])
        return read(self, index)

    def first_step(*_):
        raise FirstStepError

    monkeypatch.setattr(LabelImages, "__getitem__", counting)
    monkeypatch.setattr(_Run, "training_step", first_step)
    with pytest.raises(FirstStepError):
        attractor.train(data, out=tmp_path / "out", device="cpu", changes=QUICK)
    assert sorted(reads) == [f"image_{i}" for i in range(4)]
    assert not (tmp_path / "out").exists()  # neither a recipe nor logs, as nothing has been learned


@pytest.mark.parametrize(
    "change", ["model.channels=2", "training.balance=kind", "model.network_options.dropout=5.0", "data.crop=4000000000"]
)
def test_a_run_that_cannot_begin_leaves_nothing_behind(tmp_path, change):
    data = write_images(tmp_path / "data", [3, 3])
    with pytest.raises(InputError):
        attractor.train(data, out=tmp_path / "runs" / "out", device="cpu", changes=[*QUICK, change])
    assert [path.name for path in tmp_path.iterdir()] == ["data"]


def test_a_false_start_leaves_what_was_there_before(tmp_path, monkeypatch):
    data = write_images(tmp_path / "data", [3, 3])
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "notes.txt").write_text("mine")

    def fails(*_):
        raise FirstStepError

    monkeypatch.setattr(_Run, "training_step", fails)
    with pytest.raises(FirstStepError):
        attractor.train(data, out=tmp_path / "out", device="cpu", changes=QUICK)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["notes.txt"]


def test_a_training_ends_when_its_time_is_over(tmp_path, monkeypatch):
    data = write_images(tmp_path / "data", [3, 3])
    steps, rates = [], []
    step = _Run.training_step

    def training_step(self, batch, index):
        steps.append(index)
        rates.append(self.optimizers().param_groups[0]["lr"])
        return step(self, batch, index)

    monkeypatch.setattr(_Run, "training_step", training_step)
    monkeypatch.setattr(Clock, "measured", lambda self: len(steps) / 4)  # a step is a quarter of the time
    long = ["training.epochs=900", "training.crops_per_epoch=600", "training.warmup=0.0"]
    segmenter = attractor.train(data, minutes=1, out=tmp_path / "out", device="cpu", changes=[*QUICK, *long])
    assert len(steps) == 4
    assert np.all(np.diff(rates) < 0)
    assert rates[-1] < 0.4 * rates[0]
    assert segmenter.model.description.scores["validation"].keys() >= {"mean"}
    assert (tmp_path / "out" / "last.ckpt").exists()


@pytest.fixture
def now(monkeypatch):
    """The time in a list, for a test to change."""
    time = [100.0]
    monkeypatch.setattr("time.monotonic", lambda: time[0])
    return time


def ruling_clock(minutes):
    clock = Clock(60.0 * minutes)
    clock.rules = True
    clock.start()
    return clock


def test_a_clock_sets_time_aside_for_validation(now):
    clock = ruling_clock(1)
    now[0] += 10
    with clock.validating():
        now[0] += 5
    assert clock.share() == pytest.approx(15 / 45)
    now[0] += 30
    assert clock.is_up()
    assert not clock.allows_validation()  # another one would make it 10 of 45 seconds
    assert not Clock(0.0).is_up()  # no limit


def test_an_end_is_not_taken_back_by_a_quicker_last_validation(now):
    clock = ruling_clock(1)
    for seconds in (5, 1):
        now[0] += 30
        assert clock.is_up() == (seconds == 1)  # 65 of 60 seconds, or of 45
        with clock.validating():
            now[0] += seconds
    resumed = ruling_clock(2)
    resumed.before, resumed.reached = clock.spent(), clock.reached
    assert not resumed.is_up()  # it was given another minute
    resumed.limit = 60.0
    resumed.before = 50.0  # without the seconds that were set aside
    assert resumed.is_up()


def test_a_validation_that_was_held_up_does_not_shorten_the_training(now):
    clock = ruling_clock(60)
    for seconds in (600, 10):
        with clock.validating():
            now[0] += seconds
    assert clock.share() == pytest.approx(610 / 3570)


def test_while_the_epochs_fit_into_the_time_the_clock_does_not_change_the_schedule(monkeypatch):
    monkeypatch.setattr("time.monotonic", lambda: 0.0)
    clock = Clock(60.0)
    clock.before = 30.0
    assert clock.share() == 0
    assert clock.allows_validation()
    clock.rules = True
    assert clock.share() == 0.5


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([], (2.0, 0, 0)),
        (["training.epochs=7"], (2.0, 7, 0)),
        (["training.patience=3"], (2.0, 0, 3)),
    ],
)
def test_minutes_replace_the_number_of_epochs_unless_it_is_given(tmp_path, monkeypatch, changes, expected):
    data, wanted = write_images(tmp_path / "data", [3, 3]), []
    monkeypatch.setattr("attractor.runs.run", lambda recipe, *_, **__: wanted.append(recipe) or new_model())
    attractor.train(data, minutes=2, out=tmp_path / "out", device="cpu", changes=changes)
    training = wanted[0].training
    assert (training.minutes, training.epochs, training.patience) == expected


def test_a_training_that_was_given_no_time_asks_for_two_hours_at_most(tmp_path):
    data = write_images(tmp_path / "data", [3, 3])
    assert recipe_for(data).training.minutes == 120
    assert recipe_for(data, ["training.epochs=3"]).training.minutes == 0
    assert recipe_for(data, ["training.epochs=3", "training.minutes=5"]).training.minutes == 5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "Give the images to learn from, or a recipe that names them"),
        ({"data": "x", "minutes": 0}, "minutes is 0; it must be above 0"),
        ({"data": "x", "minutes": -3}, "minutes is -3; it must be above 0"),
        ({"data": "x", "minutes": 1e9}, r"minutes is 1e\+09; it must be above 0 and at most 1,000,000"),
        ({"data": "x", "minutes": np.nan}, "minutes is nan; it must be above 0"),
        ({"data": "nowhere"}, "nowhere: there is no such data set"),
        ({"data": "x", "start": "nothing"}, "nothing: there is no such model"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        attractor.train(**arguments)


def test_time_is_not_divided_among_stages(tmp_path):
    recipe = recipe_of({"data": {"train": "x"}, "stages": [{}]})
    write_recipe(tmp_path / "r.toml", recipe)
    with pytest.raises(InputError, match="has stages, each with its own time limit"):
        attractor.train(recipe=tmp_path / "r.toml", minutes=3)


def test_a_recipe_can_be_used_on_other_images(tmp_path, monkeypatch):
    write_recipe(tmp_path / "r.toml", recipe_of({"data": {"train": "x"}, "model": {"channels": 1}}))
    given = []

    def run(recipe, out, **_):
        given.append((recipe.data.train, recipe.training.epochs, str(out)))
        raise FirstStepError

    monkeypatch.setattr(runs, "run", run)
    with pytest.raises(FirstStepError):
        attractor.train('my "own" images', recipe=tmp_path / "r.toml", changes=["training.epochs=3"])
    assert given == [('my "own" images', 3, "runs/r")]


def test_a_recipe_for_large_objects_works_at_a_coarser_scale(tmp_path):
    labels = np.zeros((240, 240), np.int32)
    labels[20:100, 20:100], labels[130:220, 130:220] = 1, 2
    image, void = (labels > 0).astype(np.uint8)[..., None] * 200, np.zeros(labels.shape, bool)
    write_label_images(tmp_path / "data", [Sample(name, image, labels, np.array([1, 1]), void) for name in "abc"])
    recipe = recipe_for(tmp_path / "data")
    assert recipe.model.scale == 0.31
    assert recipe.training.crop_size == 72  # the image is that small now
    assert recipe_for(tmp_path / "data", ["model.scale=1.0"]).model.scale == 1
    assert recipe_for(tmp_path / "data", start="nuclei").model.scale == 1  # a model keeps its own
    model = runs.run(recipe_for(tmp_path / "data", QUICK), tmp_path / "out", device="cpu")
    assert model.description.scale == 0.31
    assert model.description.object_size == pytest.approx(96, abs=1)  # in pixels of the images


def test_folds_give_one_score_with_its_spread_and_a_model_trained_on_everything(tmp_path, caplog):
    data, seen = write_images(tmp_path / "data", [3, 3, 3]), []
    with pytest.MonkeyPatch.context() as patch:
        trained = runs._trained

        def watched(recipe, out, training, validation, **options):
            seen.append((out.name, training.names, validation.names))
            return trained(recipe, out, training, validation, **options)

        patch.setattr(runs, "_trained", watched)
        changes = [*QUICK, "training.minutes=2"]
        segmenter = attractor.train(data, folds=3, out=tmp_path / "out", device="cpu", changes=changes)
    assert [name for name, _, _ in seen] == ["fold_1", "fold_2", "fold_3", "all_images"]
    assert sorted(name for _, _, validation in seen[:3] for name in validation) == sorted(seen[3][1])
    assert seen[3][2] == seen[0][2]  # a part is enough to look at
    assert all(not set(training) & set(validation) for _, training, validation in seen[:3])
    scores = segmenter.model.description.scores["validation"]
    folds = [Model.load(tmp_path / "out" / f"fold_{k}") for k in (1, 2, 3)]
    assert scores["mean"] == pytest.approx(np.mean([fold.description.scores["validation"]["mean"] for fold in folds]))
    assert scores["mean deviation"] >= 0
    assert "Over 3 folds the mean AP is" in caplog.text
    assert "4 trainings follow, one after the other; together they take 2 minutes at most." in caplog.text
    chosen = segmenter.model.method.thresholds
    assert chosen == {name: np.median([fold.method.thresholds[name] for fold in folds]) for name in chosen}
    assert (tmp_path / "out" / "recipe.toml").exists()


def test_folds_are_resumed_where_they_were_left(tmp_path, monkeypatch):
    data, done = write_images(tmp_path / "data", [3, 3, 3]), []
    trained = runs._trained

    def interrupted(recipe, out, *parts, **options):
        done.append(out.name)
        if len(done) == 2:
            raise KeyboardInterrupt
        return trained(recipe, out, *parts, **options)

    monkeypatch.setattr(runs, "_trained", interrupted)
    call = {"folds": 2, "out": tmp_path / "out", "device": "cpu", "changes": QUICK}
    with pytest.raises(KeyboardInterrupt):
        attractor.train(data, **call)
    attractor.train(data, **call, resume=True)
    assert done == ["fold_1", "fold_2", "fold_2", "all_images"]


@pytest.mark.parametrize("change", ['data.validation="{data}"', 'data.split_by="kind"', "stages=[{{}}]"])
def test_folds_divide_the_training_images_alone(tmp_path, change):
    data = write_images(tmp_path / "data", [3, 3])
    with pytest.raises(InputError, match=r"data\.folds (divides data\.train|and stages)"):
        attractor.train(data, folds=2, out=tmp_path / "out", changes=[change.format(data=data)])
