"""Rounds of training: some images are held out for good, and only a better model replaces the one in use."""

import numpy as np
import pytest
from PIL import Image
from tests.test_runs import QUICK
from typer.testing import CliRunner

from attractor.cli import app
from attractor.division import parts_of
from attractor.errors import InputError
from attractor.images import write_image
from attractor.instances import Instances
from attractor.metrics.average_precision import score_image, summarise
from attractor.metrics.metric import Pair
from attractor.model import Model
from attractor.recipe import Reader, _set, recipe_for
from attractor.session import Accept, Session, rounds
from attractor.session.differences import draw_differences, picture_file
from attractor.session.rounds import held_out, train_round
from attractor.settings import Settings


def test_a_fifth_is_held_out_and_stays_so():
    names = [f"{k:02}" for k in range(10)]
    first = held_out(names, [])
    assert len(first) == 2
    assert held_out(names, []) == first
    learned = [name for name in names if name not in first]
    past = [{"held_out": list(first), "learned_from": learned}]
    more = [*names, *(f"new {k}" for k in range(10))]
    second = held_out(more, past)
    assert len(second) == 4
    assert set(first) < set(second)
    assert not set(second) & set(learned)  # no image that a model in use may have learned from
    assert len(held_out(names[:3], [])) == 1
    with pytest.raises(InputError, match="Every image that is reviewed was learned from in an earlier round"):
        held_out(["a", "b", "c"], [{"held_out": ["d"], "learned_from": ["a", "b", "c"]}])
    with pytest.raises(InputError, match="2 images reviewed so far; training needs 3"):
        held_out(names[:2], [])


@pytest.fixture
def project(tmp_path):
    labels = np.zeros((48, 48), np.int32)
    labels[6:18, 6:20], labels[28:40, 24:40] = 1, 2
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for name in "abcd":
        image = (160 * (labels > 0) + random.integers(0, 40, labels.shape)).astype(np.uint8)[..., None]
        write_image(tmp_path / "pictures" / f"{name}.png", image)

    class Finder:
        class_names = ("cell",)

        def segment(self, image, name):
            return Instances(labels.copy(), np.ones(2, np.int32), np.ones(2, np.float32))

    with Session.create(tmp_path / "project", [tmp_path / "pictures"], Finder()) as session:
        for name in "abc":
            session.apply(Accept(name))
    return tmp_path / "project"


def scores_of(*ious):
    """Scores of images with one object each, found with such an IoU."""
    results = []
    for k, iou in enumerate(ious):
        truth, found = np.zeros((1, 100), np.int32), np.zeros((1, 100), np.int32)
        truth[0], found[0, : round(100 * iou)] = 1, 1
        one, other = (Instances(x, np.ones(1, np.int32), np.ones(1, np.float32)) for x in (truth, found))
        results.append(score_image(Pair(str(k), one, other, np.zeros((1, 100), bool))))
    return results


def test_outlines_that_the_model_in_use_has_found_itself_do_not_keep_it_in_use():
    own, new = scores_of(0.96, 0.4), scores_of(0.62, 0.62)  # the new one finds more, the old one its own outlines
    assert summarise(own).mean_average_precision.value > summarise(new).mean_average_precision.value
    better = rounds._judged(2, own, new, ("a",), ("0", "1"))
    assert better.kept
    assert (better.before.value, better.after.value, better.gain.value) == (0.5, 1.0, 0.5)
    assert not rounds._judged(2, new, own, ("a",), ("0", "1")).kept
    assert rounds._judged(2, scores_of(0.6), scores_of(0.7), ("a",), ("0",)).kept  # as many are found
    assert not rounds._judged(2, scores_of(0.7), scores_of(0.7), ("a",), ("0",)).kept


def test_it_takes_more_objects_to_choose_thresholds_than_elsewhere_unless_asked(project, monkeypatch):
    """Much of what was reviewed is what a model found with its own thresholds."""
    recipes, images = [], []
    real = rounds.runs.train

    def train(data, *, changes, **how):
        recipes.append(recipe_for(data, changes))
        images.append([len(part) for part in parts_of(recipes[-1], Reader())])
        return real(data, changes=changes, **how)

    monkeypatch.setattr(rounds.runs, "train", train)
    with Session(project) as session:
        train_round(session, changes=QUICK, device="cpu")
        train_round(session, changes=[*QUICK, "training.few_objects=1"], device="cpu")
    assert [recipe.training.few_objects for recipe in recipes] == [10_000, 1]
    assert Settings().few_objects < 1000
    assert images == [[2, 2], [1, 1]]  # all are learned from, as a part of them could choose nothing


def test_many_objects_choose_thresholds_on_images_of_their_own(tmp_path):
    assert rounds._validation(tmp_path, 10_000, []) == ["training.few_objects=1000"]
    all_learned_from = rounds._validation(tmp_path / "\N{PETRI DISH} cells", 9_999, ["training.epochs=1"])
    recipe = {"data": {"train": "x"}}
    for change in all_learned_from:
        _set(recipe, change)
    assert recipe["data"]["validation"] == str(tmp_path / "\N{PETRI DISH} cells")
    assert recipe["training"]["few_objects"] > 9_999  # what is learned from chooses no thresholds


@pytest.mark.parametrize("key", ['data.groups="alike"', "data.folds=2", "data.split_seed=1", "training.few_objects=5"])
def test_who_says_how_to_divide_the_images_is_heard(tmp_path, key):
    assert rounds._validation(tmp_path, 12, [key]) == ["training.few_objects=1000"]


def test_a_better_model_is_kept_and_a_worse_one_is_not(project, monkeypatch):
    monkeypatch.setattr("attractor.training.loop.tune", lambda *_, **__: {})
    with Session(project) as session:
        first = train_round(session, changes=QUICK, device="cpu")
        assert (first.number, first.kept, first.before) == (1, True, None)
        assert sorted(first.learned_from + first.held_out) == ["a", "b", "c"]
        assert Model.load(project / "models" / "round-1.safetensors").description.class_names == ("cell",)
        assert session.project["in_use"] == "models/round-1.safetensors"
        qualities = {"round-1": 0.82, "new": 0.7}

        def scores(model, *_):
            return scores_of(qualities.get(getattr(model, "stem", model), qualities["new"]))

        monkeypatch.setattr(rounds, "_scores", scores)
        monkeypatch.setattr(rounds, "LOOKING", 1.0)
        worse = train_round(session, changes=QUICK, device="cpu")
        assert not worse.kept
        assert worse.held_out == first.held_out
        assert worse.gain.value == pytest.approx(worse.after.value - worse.before.value)
        assert "The old model is in use." in str(worse)
        assert set(worse.shown) <= {"d", *worse.held_out}  # what was learned from shows little
        assert session.project["in_use"] == "models/round-1.safetensors"
        assert (project / "models" / "round-2.safetensors").exists()
        qualities["new"] = 0.93
        better = train_round(session, changes=QUICK, device="cpu")
        assert better.kept
        assert "The new model is in use." in str(better)
        assert session.project["in_use"] == "models/round-3.safetensors"
    with Session(project) as session:
        assert [own["kept"] for own in session.project["rounds"]] == [True, False, True]


def test_pictures_show_where_the_models_differ_most(tmp_path):
    random = np.random.default_rng(0)
    labels = np.zeros((40, 60), np.int32)
    labels[5:15, 5:25], labels[20:35, 30:50] = 1, 2
    images = [(name, tmp_path / f"{name}.png") for name in ("same", "a bit", "very", "too late")]
    for _, path in images:
        write_image(path, random.integers(0, 200, (40, 60, 1)).astype(np.uint8))

    class Finder:
        def __init__(self, lost):
            self.lost = lost

        def segment(self, image, name):
            found = labels * ~np.isin(labels, self.lost.get(name, ()))
            found[found > 0] = np.unique(found[found > 0], return_inverse=True)[1] + 1
            n = int(found.max())
            return Instances(found.astype(np.int32), np.ones(n, np.int32), np.ones(n, np.float32))

    old, new = Finder({}), Finder({"a bit": [1], "very": [1, 2]})
    folder = tmp_path / "pictures"
    assert draw_differences(folder, old, new, images[:3]) == ("very", "a bit")
    before, after = (np.asarray(Image.open(picture_file(folder, "very", which))) for which in ("before", "after"))
    assert before.shape == after.shape == (40, 60, 3)
    colourful = [np.ptp(picture.astype(int), axis=2) > 60 for picture in (before, after)]
    assert colourful[0].sum() > 40  # two outlines
    assert not colourful[1].any()
    assert not picture_file(folder, "same", "before").exists()
    assert draw_differences(folder, old, new, images, seconds=-1) == ()


def test_a_model_is_chosen_among_those_that_fit(project):
    (project / "models").mkdir()
    (project / "models" / "round-1.safetensors").touch()
    with Session(project) as session:
        session.note(rounds=[{"number": 1, "kept": False}, {"number": 2, "kept": True}])
        assert session.models[0] == "models/round-1.safetensors"  # the file of round 2 is gone
        assert {"nuclei", "fibroblasts"} <= set(session.models)
        assert "street" not in session.models  # it knows six classes
        assert "embryo" not in session.models  # it takes volumes
        session.use("fibroblasts")
        assert (session.model, session.project["model"]) == ("fibroblasts", "fibroblasts")
        session.use("models/round-1.safetensors")
        assert (session.model, session.project["model"]) == ("models/round-1.safetensors", "fibroblasts")
        for name in ("street", "../secret.safetensors", "models/round-2.safetensors"):
            with pytest.raises(InputError, match=r'There is no model ".*" here; there are models/round-1'):
                session.use(name)
    with Session(project) as session:
        assert session.model == "models/round-1.safetensors"


def test_the_command_trains_a_round_and_says_both_scores(project, monkeypatch):
    monkeypatch.setattr("attractor.training.loop.tune", lambda *_, **__: {})
    changes = [part for change in QUICK for part in ("--set", change)]
    ended = CliRunner().invoke(app, ["train", str(project), "--device", "cpu", *changes], catch_exceptions=False)
    assert ended.exit_code == 0, ended.output
    assert "Round 1: AP" in ended.output
    assert "round-1.safetensors" in ended.output


@pytest.mark.parametrize("option", [["--folds", "2"], ["--resume"]])
def test_options_that_rounds_lack(project, option):
    with pytest.raises(InputError, match="is a session; its rounds have neither --folds nor --resume"):
        CliRunner().invoke(app, ["train", str(project), *option], catch_exceptions=False)
