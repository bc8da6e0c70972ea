"""Training: the same seed gives the same run, a killed run resumes exactly, and what cannot be learned is refused."""

import dataclasses
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torch.multiprocessing import ProcessRaisedException

from attractor.augmentation import Augmentation
from attractor.datasets import Subset, open_dataset, split
from attractor.datasets.held import hold
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Sample
from attractor.description import Description
from attractor.errors import InputError
from attractor.images import made
from attractor.model import Model
from attractor.settings import Settings
from attractor.training import loop as training
from attractor.training import ready
from attractor.training.batches import Places, RandomCrops, Room, collate, image_weights, normalised
from attractor.training.checkpoints import read_checkpoint
from attractor.training.loop import train
from attractor.training.missed import Missed, not_found

SETTINGS = {"epochs": 2, "crops_per_epoch": 4, "crop_size": 32, "batch_size": 2, "workers": 0, "dtype": "float32"}


def sample(name, seed=0, side=40, n_objects=3):
    random = np.random.default_rng(seed)
    rows, columns = np.mgrid[:side, :side]
    labels = np.zeros((side, side), np.int32)
    for k in range(1, n_objects + 1):
        row, column = random.uniform(6, side - 6, 2)
        labels[(rows - row) ** 2 + (columns - column) ** 2 < 25] = k
    image = (160 * (labels > 0) + random.integers(0, 40, labels.shape)).astype(np.uint8)[..., None]
    return Sample(name, image, labels, np.ones(n_objects, np.int32), np.zeros(labels.shape, bool))


@pytest.fixture
def folder(tmp_path):
    samples = [sample(f"image_{i}", seed=i) for i in range(4)]
    kinds = {s.name: "rare" if i == 0 else "common" for i, s in enumerate(samples)}
    write_label_images(tmp_path / "data", samples, columns={"kind": kinds})
    return tmp_path / "data"


def new_model(**options):
    torch.manual_seed(0)
    given = {"method": "spatial-embeddings", "channels": 1, "class_names": ("object",)}
    return Model(Description(network="erfnet", options=options, **given))


def parts_of(folder):
    images = hold(open_dataset(folder))
    return [images.part(part.indices) for part in split(images, 0.25, 0)]


def run(folder, out, **changes):
    resume, options = changes.pop("resume", False), changes.pop("options", {})
    settings = Settings(**SETTINGS | changes)
    model, given = new_model(**options), {"settings": settings, "augmentation": Augmentation(), "resume": resume}
    train(model, *parts_of(folder), out=out, device="cpu", **given)
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_same_seed_gives_the_same_run_whatever_makes_the_crops(folder, tmp_path):
    first = run(folder, tmp_path / "a", epochs=1)
    assert same(first, run(folder, tmp_path / "b", epochs=1, workers=1))
    assert not same(first, run(folder, tmp_path / "c", epochs=1, seed=1))


def test_what_a_run_leaves_behind(folder, tmp_path):
    run(folder, tmp_path / "out", epochs=1)
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"last.ckpt", "best.safetensors", "model.safetensors", "logs"} <= names
    (csv,) = (tmp_path / "out").glob("logs/csv/*/metrics.csv")
    assert "validation/mean" in csv.read_text().splitlines()[0]
    assert list((tmp_path / "out").glob("logs/tensorboard/*/events*"))
    scores = Model.load(tmp_path / "out").description.scores["validation"]
    assert set(scores) == {"mean", "ap50", "ap75", "ap90"}


def test_patience_ends_a_run_that_no_longer_improves(folder, tmp_path, monkeypatch):
    validations = []

    def worse_and_worse(*_):
        validations.append(1)
        return {"mean": 1 / len(validations), "ap50": 0.0, "ap75": 0.0}

    monkeypatch.setattr(training, "_scores", worse_and_worse)
    run(folder, tmp_path / "out", epochs=9, patience=2)
    assert len(validations) == 3 + 1  # three epochs, and the model that is kept


def test_validation_can_be_rarer_but_comes_at_the_end(folder, tmp_path, monkeypatch):
    validated = []
    tune = training.tune
    monkeypatch.setattr(training, "tune", lambda *given, **options: validated.append(1) or tune(*given, **options))
    run(folder, tmp_path / "a", epochs=3, validate_every=2, few_objects=1)
    assert len(validated) == 3  # after the second epoch and the last, and for the result
    assert (tmp_path / "a" / "model.safetensors").exists()


def test_a_few_objects_do_not_choose_thresholds(folder, tmp_path, monkeypatch, caplog):
    changed = {"seed_threshold": 0.123}
    monkeypatch.setattr(training, "tune", lambda *given, **options: changed)
    before = new_model().method.thresholds["seed_threshold"]
    run(folder, tmp_path / "few")
    assert Model.load(tmp_path / "few" / "model.safetensors").method.thresholds["seed_threshold"] == before
    assert "fewer than 100 objects, too few to choose thresholds by" in caplog.text
    run(folder, tmp_path / "enough", few_objects=1)
    assert Model.load(tmp_path / "enough" / "model.safetensors").method.thresholds["seed_threshold"] == 0.123


@pytest.mark.parametrize(("start", "lower_ones"), [(0.9, (0.7, 0.5)), (0.6, (0.5,))])
def test_a_model_that_has_learned_little_gets_lower_thresholds(
    start, lower_ones, folder, tmp_path, monkeypatch, caplog
):
    began = []

    def lower(segmenter, images, *, candidates, least_gain, **_):
        assert candidates == {"seed_threshold": lower_ones}
        assert least_gain > 0
        began.append(segmenter.model.method.thresholds["seed_threshold"])
        segmenter.model.method.thresholds["seed_threshold"] = 0.2

    monkeypatch.setattr(training, "tune", lower)
    run(folder, tmp_path / "out", options={"seed_threshold": start})
    assert set(began) == {start}  # each time what training began with
    assert Model.load(tmp_path / "out" / "model.safetensors").method.thresholds["seed_threshold"] == 0.2
    assert "lower than training began with" in caplog.text


def test_a_low_threshold_is_not_raised_by_a_few_objects(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "tune", lambda *given, **options: pytest.fail("there is nothing lower to try"))
    run(folder, tmp_path / "out", options={"seed_threshold": 0.5})
    assert Model.load(tmp_path / "out" / "model.safetensors").method.thresholds["seed_threshold"] == 0.5


def test_while_nothing_is_found_the_latest_model_is_kept(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_scores", lambda *_: {"mean": 0.0})
    final = run(folder, tmp_path / "out", epochs=3, patience=1)
    kept = Model.load(tmp_path / "out" / "best.safetensors").state_dict()
    assert same(kept, final)


def test_a_run_whose_patience_had_ended_is_not_continued(folder, tmp_path, monkeypatch):
    scores = iter([{"mean": 0.5}, {"mean": 0.4}, {"mean": 0.4}, {"mean": 0.4}])
    monkeypatch.setattr(training, "_scores", lambda *_: next(scores))
    ended = run(folder, tmp_path / "out", epochs=9, patience=1)
    assert same(run(folder, tmp_path / "out", epochs=9, patience=1, resume=True), ended)


def test_a_hot_pixel_does_not_overflow():
    image = np.zeros((8, 8, 1), np.uint16)
    image[::2], image[0, 0] = 1, 65535
    hot = dataclasses.replace(
        sample("hot"), image=image, labels=np.zeros((8, 8), np.int32), ignore=np.zeros((8, 8), bool)
    )
    assert torch.isfinite(normalised(new_model().description, hot)).all()


def test_many_images_reach_the_worker(folder):
    """A tensor an image would cost a file descriptor each, of which there may be only a thousand."""
    crops = RandomCrops(new_model(), hold(open_dataset(folder)), Settings(**SETTINGS), Augmentation())
    assert not any(isinstance(value, torch.Tensor) for ready in crops.ready for value in vars(ready).values())


def test_crops_made_on_a_device_are_the_same(folder, monkeypatch):
    given = new_model(), hold(open_dataset(folder)), Settings(**SETTINGS), Augmentation()
    here, there = RandomCrops(*given), RandomCrops(*given, torch.device("cpu"))
    assert here.there is None
    assert there.there is not None
    assert there.workers == 0
    for place in ((0, 0), (0, 1), (3, 2)):
        for a, b in zip(here[place][0][:3], there[place][0][:3], strict=True):
            assert torch.equal(a, b)
    monkeypatch.setattr("attractor.training.batches.free_memory", lambda device: 0)
    assert RandomCrops(*given, torch.device("cpu")).there is None  # no room


def test_images_that_are_too_many_to_hold_are_read_when_asked_for(folder, caplog):
    given = new_model(), hold(open_dataset(folder)), Settings(**SETTINGS), Augmentation()
    held = RandomCrops(*given)
    read = RandomCrops(new_model(), hold(open_dataset(folder), 3 * 40 * 40), *given[2:])
    assert (held.ready is None, read.ready is None) == (False, True)
    assert "too many to hold" in caplog.text
    for place in [(0, 0), (0, 1), (3, 2)]:
        assert all(torch.equal(a, b) for a, b in zip(held[place][0][:3], read[place][0][:3], strict=True))


def test_images_that_are_too_many_to_hold_lie_on_the_disk_while_training(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(ready, "SPARE", 0)
    given = hold(open_dataset(folder), 3 * 40 * 40), Settings(**SETTINGS), Augmentation()
    held = RandomCrops(new_model(), hold(open_dataset(folder)), *given[1:])
    mapped = RandomCrops(new_model(), *given, None, Room(tmp_path, lambda: made(tmp_path / "images")))
    assert "while training they take" in caplog.text
    assert all(isinstance(image, ready.OnDisk) for image in mapped.ready)
    again = pickle.loads(pickle.dumps(mapped))  # as for a process that makes crops
    for place in [(0, 0), (0, 1), (3, 2)]:
        for crops in (mapped, again):
            assert all(torch.equal(a, b) for a, b in zip(held[place][0][:3], crops[place][0][:3], strict=True))
    monkeypatch.setattr(ready, "SPARE", 1 << 60)
    full = RandomCrops(new_model(), *given, None, Room(tmp_path, lambda: made(tmp_path / "more")))
    assert full.ready is None
    assert "the disk has no" in caplog.text
    assert not (tmp_path / "more").exists()


def test_images_on_the_disk_are_removed_after_training(folder, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(ready, "SPARE", 0)
    images = hold(open_dataset(folder), 3 * 40 * 40)
    train(
        new_model(),
        images,
        open_dataset(folder),
        out=made(tmp_path / "out"),
        settings=Settings(**SETTINGS),
        augmentation=Augmentation(),
        device="cpu",
    )
    assert "while training they take" in caplog.text
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == sorted(
        ["best.safetensors", "last.ckpt", "logs", "model.safetensors"]
    )


def test_the_middle_of_an_object_is_the_mean_of_its_pixels():
    labels = np.array([[0, 1, 1], [3, 1, 0]], np.int32)
    found = ready.InMemory.of(np.zeros((1, 2, 3), np.float16), labels, labels < 0, sample("a")).centres
    assert found[0].tolist() == pytest.approx([1 / 3, 4 / 3])
    assert np.isnan(found[1]).all()
    assert found[2].tolist() == [1, 0]


def test_a_loss_that_is_not_finite_names_the_image(folder, tmp_path, monkeypatch):
    given = normalised

    def with_one_broken(model, sample):
        image = given(model, sample)
        return image * torch.nan if sample.name == "image_2" else image

    monkeypatch.setattr("attractor.training.batches.normalised", with_one_broken)
    with pytest.raises(InputError, match=r"The loss stopped being finite in epoch 1 at image .*image_2"):
        run(folder, tmp_path / "out", crops_per_epoch=16)
    assert not (tmp_path / "out" / "model.safetensors").exists()


def test_crops_with_more_objects_than_the_method_holds_are_counted(folder, tmp_path, caplog):
    torch.manual_seed(0)
    options = {"steps": 1, "hidden": 16}
    model = Model(Description(method="rsis", network="erfnet", channels=1, class_names=("object",), options=options))
    parts = parts_of(folder)
    settings = Settings(**SETTINGS | {"epochs": 1, "crop_size": 40})
    train(model, *parts, out=tmp_path / "a", settings=settings, augmentation=Augmentation(), device="cpu")
    assert "of 4 crops had more objects than the 1 that this method can find" in caplog.text


@pytest.mark.parametrize("frozen", [False, True])
def test_frozen_normalisation_keeps_its_statistics_and_goes_on_learning(folder, tmp_path, frozen):
    before = new_model().state_dict()
    after = run(folder, tmp_path / "run", freeze_normalisation=frozen)
    statistics = [name for name in before if name.endswith(("running_mean", "running_var"))]
    assert all(torch.equal(before[name], after[name]) == frozen for name in statistics)
    learned = next(name for name in before if name.endswith("norm.weight"))
    assert not torch.equal(before[learned], after[learned])


@pytest.mark.parametrize("average", [0.0, 0.5])
def test_the_model_kept_is_the_average_if_one_is_asked_for(folder, tmp_path, monkeypatch, average):
    monkeypatch.setattr(training, "_scores", lambda *_: {"mean": 0.0})  # the last is kept
    run(folder, tmp_path / "out", average=average)
    state = read_checkpoint(tmp_path / "out" / "last.ckpt")["state_dict"]
    kept = Model.load(tmp_path / "out" / "best.safetensors").state_dict()
    last = {name: state[f"model.{name}"] for name in kept}
    assert same(kept, last) == (average == 0.0)
    if average:
        assert same(kept, {name: state[f"average.module.{name}"] for name in kept})


def test_an_average_forgets_where_training_began():
    average, weight = [torch.zeros(1)], [torch.ones(1)]
    update = training._drawn_to(0.999)
    for n in range(50):
        update(average, weight, n)
    assert average[0].item() > 0.99


def test_a_run_with_an_average_resumes_exactly(folder, tmp_path):
    options = {"average": 0.9, "optimizer": "adamw", "schedule": "cosine", "accumulate": 2}
    whole = run(folder, tmp_path / "whole", epochs=2, **options)
    kept = Model.load(tmp_path / "whole" / "model.safetensors").state_dict()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Run, "_out_of_patience", lambda run, epoch: epoch == 0)
        run(folder, tmp_path / "halves", epochs=2, **options)
    resumed = run(folder, tmp_path / "halves", epochs=2, resume=True, **options)
    assert same(whole, resumed)
    assert same(kept, Model.load(tmp_path / "halves" / "model.safetensors").state_dict())


def test_a_run_that_shows_what_was_missed_resumes_exactly(folder, tmp_path):
    options = {"around_missed": 0.9, "workers": 1}
    whole = run(folder, tmp_path / "whole", epochs=2, **options)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training._Run, "_out_of_patience", lambda run, epoch: epoch == 0)
        run(folder, tmp_path / "halves", epochs=2, **options)
    assert read_checkpoint(tmp_path / "halves" / "last.ckpt")["attractor"]["missed"]
    assert same(whole, run(folder, tmp_path / "halves", epochs=2, resume=True, **options))
    assert same(whole, run(folder, tmp_path / "here", epochs=2, **options | {"workers": 0}))
    assert not same(whole, run(folder, tmp_path / "plain", epochs=2))


def test_crops_show_objects_that_were_missed(folder):
    settings = Settings(**SETTINGS | {"crop_size": 8, "around_missed": 1.0})
    crops = RandomCrops(new_model(), hold(open_dataset(folder)), settings, Augmentation(scale=(1.0, 1.0)))
    crops.missed.look(2, np.array([1, 3]))
    shown = [crops[0, index][0] for index in range(40)]
    assert {crop.sample.name for crop in shown} == {"image_2"}
    assert all(np.isin([1, 3], crop.labels.numpy()).any() for crop in shown)
    assert {label for crop in shown for label in (1, 3) if (crop.labels == label).any()} == {1, 3}
    crops.missed.look(2, np.array([], int))
    assert len({crops[0, index][0].sample.name for index in range(40)}) == 4  # nothing was missed: any image


def test_what_was_missed_is_known_by_its_place():
    missed = Missed([2, 0, 3])
    missed.look(0, np.array([2]))
    missed.look(2, np.array([1, 3]))
    assert missed.places == [1, 2, 4]
    generator = torch.Generator().manual_seed(0)
    assert {missed.drawn(generator) for _ in range(50)} == {(0, 2), (2, 1), (2, 3)}
    other = Missed([2, 0, 3])
    assert other.drawn(generator) is None
    other.places = missed.places
    assert other.places == [1, 2, 4]
    with pytest.raises(ValueError, match="do not have"):
        other.places = [5]


def test_an_object_is_missed_if_nothing_found_covers_it():
    truth, found = np.zeros((4, 12), np.int32), np.zeros((4, 12), np.int32)
    truth[:, :4], truth[:, 4:8], truth[:, 8:] = 1, 2, 4
    found[:, :4], found[:, 4:6], found[:1, 8:] = 2, 3, 1
    assert not_found(truth, found).tolist() == [4]  # half of the second is enough
    assert not_found(truth, 0 * found).tolist() == [1, 2, 4]


def test_where_time_decides_the_run_is_planned_and_ends_with_a_model_that_works(folder, tmp_path, caplog):
    run(folder, tmp_path / "out", epochs=0, minutes=0.02)
    assert "Training ends after 1 second: some" in caplog.text
    assert "it is hardly trained. Give it more time." in caplog.text
    assert Model.load(tmp_path / "out").description.scores["validation"]
    progress = read_checkpoint(tmp_path / "out" / "last.ckpt")["attractor"]
    assert progress["timed"]
    assert progress["validated"] == 1
    steps = read_checkpoint(tmp_path / "out" / "last.ckpt")["global_step"]
    run(folder, tmp_path / "out", epochs=0, minutes=0.02, resume=True)  # nothing is left of the time
    assert read_checkpoint(tmp_path / "out" / "last.ckpt")["global_step"] == steps


def test_a_run_that_is_resumed_knows_its_steps_and_what_validating_took(folder, tmp_path, caplog, monkeypatch):
    run(folder, tmp_path / "out", epochs=0, minutes=0.02)
    checkpoint = read_checkpoint(tmp_path / "out" / "last.ckpt")
    monkeypatch.setattr(training, "HARDLY", checkpoint["global_step"])
    caplog.clear()
    run(folder, tmp_path / "out", epochs=0, minutes=0.02, resume=True)
    assert "hardly trained" not in caplog.text
    settings = Settings(**SETTINGS, minutes=0.02)
    resumed = training._Run(new_model(), settings, Places(4, 2), parts_of(folder)[1], tmp_path)
    resumed.on_load_checkpoint(checkpoint)
    assert resumed.steps == checkpoint["global_step"]
    assert resumed.clock.last == checkpoint["attractor"]["last"] > 0
    assert resumed.clock.validations == checkpoint["attractor"]["validations"] >= resumed.clock.last


def test_the_result_is_tuned_on_as_many_volumes_as_there_is_time_for(folder, tmp_path):
    images = open_dataset(folder)
    wanted = training._Run(new_model(), Settings(**SETTINGS, minutes=2), Places(4, 2), images, tmp_path)
    wanted.validate_on(1)
    wanted.afford_at_the_end(1.0)
    assert wanted.at_the_end == 1  # of images, what is validated on is enough
    wanted.model.description = wanted.model.described(axes=3)
    wanted.afford_at_the_end(4.0)  # a fifth of two minutes is 24 seconds: three times tuning and scoring
    assert wanted.at_the_end == 3
    wanted.clock.last = 4.0
    wanted.clock.before = 120 - 4 - 2 * 12  # nothing is left but the last validation, and what comes after
    assert wanted.clock.measured() == 1
    wanted.afford_at_the_end(0.1)
    assert wanted.at_the_end == 4  # there are no more
    wanted.afford_at_the_end(100.0)
    assert wanted.at_the_end == 1


def test_a_validation_that_takes_longer_than_the_run_is_said(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(training._Run, "seconds_of_a_validation", lambda *_: 90.0)
    run(folder, tmp_path / "out", epochs=0, minutes=0.02)
    assert "Validating on a single image takes some 90 seconds, and the run has 1 second: it may take" in caplog.text


def test_epochs_that_take_too_long_are_cut_to_fit(folder, tmp_path, caplog):
    run(folder, tmp_path / "out", epochs=100_000, minutes=0.02)
    assert "100,000 epochs would take about" in caplog.text
    assert "Training ends after 1 second, its schedule cut to fit; --minutes N gives it another time." in caplog.text


def test_how_long_a_run_takes_is_said_before_its_first_step(folder, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(training, "SHORT", 0)
    before = run(folder, tmp_path / "a")
    assert "Training takes about" in caplog.text
    monkeypatch.undo()
    assert same(before, run(folder, tmp_path / "b"))  # measuring it has changed nothing


def test_what_the_first_crop_waits_for_is_no_part_of_a_step(folder, tmp_path, monkeypatch):
    images = open_dataset(folder)
    model, settings = new_model(), Settings(**SETTINGS)
    crops = RandomCrops(model, hold(images), settings, Augmentation())
    real, passed, made_before = training.time.monotonic, [0], RandomCrops.__getitem__

    def made_slowly(self, place):
        passed[0] = 1000  # seconds, once
        return made_before(self, place)

    monkeypatch.setattr(RandomCrops, "__getitem__", made_slowly)
    monkeypatch.setattr(training.time, "monotonic", lambda: real() + passed[0])
    planned = training._Run(model, settings, Places(4, 2), images, tmp_path)
    assert planned.seconds_of_a_step(crops, torch.device("cpu"), torch.float32) < 1000


def test_where_validation_is_faster_than_it_seemed_more_images_are_validated_on(folder, tmp_path):
    images = open_dataset(folder)
    wanted = training._Run(new_model(), Settings(**SETTINGS, minutes=2), Places(4, 2), images, tmp_path)
    wanted.clock.rules = True
    wanted.validate_on(1)
    wanted.best = 0.7
    assert wanted.affordable(0.5) == 2  # a tenth of two minutes, twelve times
    wanted._validate_on_more(0.9)
    assert (len(wanted.validation), wanted.best) == (1, 0.7)
    wanted._validate_on_more(0.3)
    assert (len(wanted.validation), wanted.best) == (3, -1.0)
    wanted._validate_on_more(0.001)
    assert len(wanted.validation) == 3  # a third more is not worth another set of images


def test_validation_images_are_spread_over_all_of_them(folder):
    images = open_dataset(folder)
    assert training._some(images, 4) is images
    assert training._some(images, 1).names == ("image_2",)
    assert training._some(images, 2).names == ("image_1", "image_2")


def test_where_memory_runs_out_the_batch_is_halved(folder, tmp_path, caplog, monkeypatch):
    forward = Model.forward

    def too_much(model, images):
        if model.training and len(images) > 2:
            raise RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 1 bytes.")
        return forward(model, images)

    monkeypatch.setattr(Model, "forward", too_much)
    run(folder, tmp_path / "out", epochs=1, crops_per_epoch=8, batch_size=8)
    assert "batches of 8 crops; training goes on with batches of 4" in caplog.text
    assert "batches of 4 crops; training goes on with batches of 2" in caplog.text
    run(folder, tmp_path / "odd", epochs=1, crops_per_epoch=8, batch_size=3)
    assert "batches of 3 crops; training goes on with batches of 1" in caplog.text
    assert read_checkpoint(tmp_path / "out" / "last.ckpt")["global_step"] == 4


def test_memory_that_another_process_lacks_is_known_as_such():
    for last in ("RuntimeError: CUDA error: out of memory", "MemoryError", "numpy._ArrayMemoryError: Unable to"):
        raised = ProcessRaisedException(f"-- Process 1 terminated:\n{last}", 1, 4711)
        assert isinstance(training._sentence_of(raised), MemoryError)
    raised = ProcessRaisedException("-- Process 1 terminated:\nRuntimeError: no", 1, 4711)
    assert training._sentence_of(raised) is raised


def test_where_even_one_crop_is_too_much_the_cure_is_said(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Model, "forward", lambda *_: (_ for _ in ()).throw(MemoryError()))
    with pytest.raises(InputError, match=r"lower training.batch_size \(now 1\) or training.crop_size \(now 32\)"):
        run(folder, tmp_path / "out")


def test_crops_are_made_at_the_scale_of_the_model(folder):
    images = hold(open_dataset(folder))
    whole = RandomCrops(new_model(), images, Settings(**SETTINGS), Augmentation())
    model = new_model()
    model.description = dataclasses.replace(model.description, scale=0.5)
    half = RandomCrops(model, images, Settings(**SETTINGS), Augmentation())
    for large, small in zip(whole.ready, half.ready, strict=True):
        assert large.image.shape == (1, 40, 40)
        assert small.image.shape == (1, 20, 20)
        assert small.labels.shape == small.valid.shape == (20, 20)
        assert np.array_equal(small.labels, large.labels[1::2, 1::2])
        assert np.abs(small.image - large.image.reshape(1, 20, 2, 20, 2).mean((2, 4))).max() < 0.3


def test_a_model_of_another_scale_is_validated_at_full_resolution(folder, tmp_path):
    images, model = hold(open_dataset(folder)), new_model()
    model.description = dataclasses.replace(model.description, scale=0.5)
    settings = Settings(**SETTINGS | {"epochs": 1})
    best = train(model, images, images, out=tmp_path, settings=settings, augmentation=Augmentation(), device="cpu")
    assert best.description.scale == 0.5
    assert best.description.scores["validation"]["mean"] >= 0
    assert Model.load(tmp_path).description.scale == 0.5


def test_nothing_to_resume(folder, tmp_path):
    with pytest.raises(
        InputError, match=r"last\.ckpt: there is nothing to resume; start the training without --resume"
    ):
        run(folder, tmp_path / "out", resume=True)


def test_images_without_any_object_teach_nothing(tmp_path):
    empty = [
        dataclasses.replace(sample(n), labels=np.zeros((40, 40), np.int32), classes=np.zeros(0, np.int32)) for n in "ab"
    ]
    write_label_images(tmp_path / "data", empty)
    with pytest.raises(InputError, match="None of the training images has an object"):
        run(tmp_path / "data", tmp_path / "out")


def test_class_that_the_model_lacks(folder):
    class Streets(Subset):
        def __getitem__(self, index):
            return dataclasses.replace(super().__getitem__(index), classes=np.array([1, 2, 1], np.int32))

    streets = Streets(open_dataset(folder), [1])
    streets.class_names = ("window", "car")
    with pytest.raises(InputError, match="image_1: has class car, but the model knows object only"):
        RandomCrops(new_model(), hold(streets), Settings(**SETTINGS), Augmentation())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"epochs": -1}, "training.epochs is -1; it must be between 0 and 1,000,000"),
        ({"epochs": 0}, "training.epochs is 0; it must be at least 1, or training.minutes must say how long to train"),
        ({"batch_size": 0}, "training.batch_size is 0"),
        ({"crop_size": 100}, "training.crop_size is 100; it must be a multiple of 8"),
        ({"around_objects": 1.5}, "training.around_objects is 1.5; it must be between 0 and 1"),
        ({"dtype": "fp8"}, 'training.dtype = "fp8" is not known; it can be auto, float32, bfloat16'),
        ({"crops_per_epoch": 4}, "training.batch_size is 8, more than the 4 crops of an epoch"),
        ({"schedule": "linear"}, 'training.schedule = "linear" is not known; it can be polynomial, cosine'),
        ({"optimizer": "sgd"}, 'training.optimizer = "sgd" is not known; it can be adam, adamw'),
        ({"average": 1.0}, "training.average is 1.0; it must be between 0 and 0.99999"),
        ({"metric": "foo"}, 'training.metric: There is no metric "foo"; there are: average_precision'),
        (
            {"metric": "average_recall"},
            'training.metric: The metric "average_recall" cannot choose a model or thresholds; these',
        ),
        ({"learning_rate": 0.0}, "training.learning_rate is 0.0; it must be above 0"),
        ({"learning_rate": np.inf}, "training.learning_rate is inf; it must be between 0 and 10"),
        ({"weight_decay": np.nan}, "training.weight_decay is nan; it must be between 0 and 10"),
        ({"power": -5.0}, "training.power is -5.0; it must be between 0 and 10"),
        ({"power": np.nan}, "training.power is nan"),
        ({"crop_size": 80_000_000}, "training.crop_size is 80000000; it must be between 8 and 8,192"),
        ({"seed": 2**70}, "training.seed is 1180591620717411303424; it must be between 0 and 4,294,967,295"),
    ],
)
def test_settings_that_cannot_be(changes, message):
    with pytest.raises(InputError, match=message):
        Settings(**changes)


def test_rare_images_are_drawn_more_often_but_not_as_often_as_all_others(folder):
    dataset = open_dataset(folder)
    sizes = [dataset[i].labels.size for i in range(4)]
    assert image_weights(dataset, sizes, Settings(crop_size=32)).tolist() == pytest.approx([0.25] * 4)
    balanced = image_weights(dataset, sizes, Settings(crop_size=32, balance="kind"))
    assert balanced[0] / balanced[1:].sum() == pytest.approx(1 / np.sqrt(3))
    with pytest.raises(InputError, match=r'training.balance is "modality", but images.csv has kind'):
        image_weights(dataset, sizes, Settings(balance="modality"))


def test_crops_depend_on_seed_epoch_and_index_alone(folder):
    dataset = open_dataset(folder)

    def crop(seed, epoch, index):
        settings = Settings(**SETTINGS | {"seed": seed})
        return RandomCrops(new_model(), hold(dataset), settings, Augmentation())[epoch, index][0].image

    assert torch.equal(crop(0, 1, 2), crop(0, 1, 2))
    for other in ((1, 1, 2), (0, 2, 2), (0, 1, 3)):
        assert not torch.equal(crop(0, 1, 2), crop(*other))


@pytest.mark.parametrize("on_disk", [False, True])
def test_crops_lie_where_the_annotation_says_something(folder, tmp_path, on_disk):
    class Reviewed(Subset):
        """Images of which only a corner was looked at."""

        def __getitem__(self, index):
            found = super().__getitem__(index)
            ignore = np.ones_like(found.ignore)
            ignore[:16, :16] = False
            return dataclasses.replace(found, ignore=ignore)

    settings = Settings(**SETTINGS | {"crop_size": 8, "around_objects": 0.0})
    room = Room(tmp_path, lambda: tmp_path / "images")
    (tmp_path / "images").mkdir()
    images = hold(Reviewed(open_dataset(folder), range(4)), most_pixels=1 if on_disk else 1 << 20)
    plain = Augmentation(rotate=False, flip=False, scale=(1.0, 1.0))
    crops = RandomCrops(new_model(), images, settings, plain, None, room)
    counting = [crops[0, index][0].valid[3:5, 3:5].any().item() for index in range(100)]
    assert sum(counting) >= 95  # the corner is a sixth of the image; one crop in 40 finds it in no trial


def test_crops_show_each_class_equally_often_if_asked(folder):
    class Streets(Subset):
        """One car in the last image, at a corner, and windows in all."""

        def __getitem__(self, index):
            found = super().__getitem__(index)
            labels = np.zeros_like(found.labels)
            labels[3:5, 3:5], labels[20:24, 20:24] = 1, 2
            return dataclasses.replace(found, labels=labels, classes=np.array([1 + (index == 3), 1], np.int32))

    streets = Streets(open_dataset(folder), range(4))
    streets.class_names = ("window", "car")
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=("window", "car")))

    def shares(**changes):
        settings = Settings(**SETTINGS | {"crop_size": 8, "around_objects": 1.0} | changes)
        crops = RandomCrops(model, hold(streets), settings, Augmentation(rotate=False, flip=False, scale=(1.0, 1.0)))
        counts = Counter()
        for index in range(200):
            (crop,) = crops[0, index]
            counts.update(int(crop.classes[label - 1]) for label in crop.labels.unique() if label)
        return counts

    plain, even = shares(), shares(even_classes=True)
    assert plain[2] < 0.25 * plain[1]
    assert 0.7 * even[1] < even[2] < 1.4 * even[1]
    assert not shares(even_classes=True, around_objects=0.0)[2] > 40  # then any place


def test_large_objects_are_also_seen_as_small_as_those_of_other_images(tmp_path):
    samples = [sample(f"image_{i}", seed=i, side=120, n_objects=1) for i in range(6)]
    large = [
        dataclasses.replace(
            s,
            image=np.kron(s.image, np.ones((3, 3, 1), np.uint8)),
            **{
                name: np.kron(getattr(s, name), np.ones((3, 3), getattr(s, name).dtype))
                for name in ("labels", "ignore")
            },
            name=f"large_{s.name}",
        )
        for s in samples[:3]
    ]
    write_label_images(tmp_path / "data", [*large, *samples[3:]])
    images, around = hold(open_dataset(tmp_path / "data")), dict(SETTINGS, crop_size=96, around_objects=1.0)

    def areas(even_sizes):
        augmentation = Augmentation(scale=(1.0, 1.0), stretch=1.0, even_sizes=even_sizes)
        crops = RandomCrops(new_model(), images, Settings(**around), augmentation)
        found = [crops[0, index][0] for index in range(60)]
        return {
            kind: [int((crop.labels > 0).sum()) for crop in found if crop.sample.name.startswith(kind)]
            for kind in ("large", "image")
        }

    plain, even = areas(1.0), areas(3.0)
    area = {"large": 9 * 77, "image": 77}  # a disc with a radius of five pixels
    assert all(np.median(plain[kind]) == pytest.approx(area[kind], rel=0.1) for kind in area)
    assert min(even["large"]) < area["large"] / 5
    assert max(even["image"]) > 5 * area["image"]
    assert max(even["large"]) < 1.1 * area["large"]  # nothing becomes larger than the largest


def test_objects_of_another_crop_keep_their_class(folder):
    class Kinds(Subset):
        """Images of one kind of object each."""

        def __getitem__(self, index):
            found = super().__getitem__(index)
            return dataclasses.replace(found, classes=np.full_like(found.classes, 1 + index % 2))

    kinds = Kinds(open_dataset(folder), range(4))
    kinds.class_names = ("light", "dark")
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=kinds.class_names))

    def crops(paste):
        augmentation = dataclasses.replace(Augmentation(), paste=paste)
        return RandomCrops(model, hold(kinds), Settings(**SETTINGS), augmentation)

    plain, never, always = (crops(paste) for paste in (0.0, 1e-9, 1.0))
    n_mixed = 0
    for index in range(30):
        (crop,), (same,), (mixed,) = plain[0, index], never[0, index], always[0, index]
        n = len(crop.classes)
        assert torch.equal(same.image, crop.image)
        assert torch.equal(mixed.labels[crop.labels > 0], crop.labels[crop.labels > 0])
        assert mixed.classes[:n].tolist() == crop.classes.tolist()
        assert sorted(mixed.labels[mixed.labels > n].unique()) == list(range(n + 1, len(mixed.classes) + 1))
        n_mixed += len(set(mixed.classes.tolist())) == 2
    assert n_mixed > 0


def test_a_batch_fills_up_classes_with_zero(folder):
    crops = RandomCrops(new_model(), hold(open_dataset(folder)), Settings(**SETTINGS), Augmentation())
    (one,), (two,) = crops[0, 0], crops[0, 1]
    batch = collate([(one,), (two._replace(classes=np.array([1], np.int32)),)])
    assert batch.truth.classes.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert batch.images.shape == (2, 1, 32, 32)
