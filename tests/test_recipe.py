"""Recipes: strict, answered with the right key, and the same after writing."""

import dataclasses
import inspect
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.test_training import sample

from attractor import division, runs
from attractor.datasets import open_dataset
from attractor.datasets.coco import write_coco
from attractor.datasets.label_images import write_label_images
from attractor.description import Description
from attractor.errors import InputError
from attractor.methods import METHODS
from attractor.model import Model
from attractor.networks.resnet import ResNet
from attractor.recipe import read_recipe, recipe_for, recipe_of, write_recipe
from attractor.runs import run

RECIPES = Path(__file__).parents[1] / "recipes"
MINIMAL = {"data": {"train": "cells"}}


@pytest.fixture(autouse=True)
def _thresholds_as_they_are(monkeypatch):
    """Tuning them takes half of so small a run."""
    monkeypatch.setattr("attractor.training.loop.tune", lambda *_, **__: {})


def test_defaults():
    recipe = recipe_of(MINIMAL)
    assert recipe.model.method == "spatial-embeddings"
    assert recipe.training.epochs == 30


def test_a_written_recipe_is_read_the_same(tmp_path):
    recipe = recipe_of(
        MINIMAL | {"model": {"about": 'a "quoted" \\ line\r\nmore\x00\x1b', "options": {"margin": "circular"}}}
    )
    write_recipe(tmp_path / "r.toml", recipe)
    assert read_recipe(tmp_path / "r.toml") == recipe


STAGES = [
    {"training": {"crop_size": 64, "learning_rate": 1e-3}},
    {"training": {"crop_size": 128, "freeze_normalisation": True}, "augmentation": {"blur": 0.0}},
]


def test_a_stage_changes_what_it_names_and_nothing_else(tmp_path):
    recipe = recipe_of(MINIMAL | {"training": {"epochs": 5}, "stages": STAGES})
    assert [recipe.stage(k).training.crop_size for k in (1, 2)] == [64, 128]
    assert [recipe.stage(k).training.freeze_normalisation for k in (1, 2)] == [False, True]
    assert [recipe.stage(k).augmentation.blur for k in (1, 2)] == [1.0, 0.0]
    assert {recipe.stage(k).training.epochs for k in (1, 2)} == {5}
    write_recipe(tmp_path / "r.toml", recipe)
    assert read_recipe(tmp_path / "r.toml") == recipe


def test_a_wrong_key_in_a_stage_is_refused_before_training():
    with pytest.raises(InputError, match=r'Stage 2 of the recipe: There is no key "training.epoch"; did you mean'):
        recipe_of(MINIMAL | {"stages": [{}, {"training": {"epoch": 2}}]})


@pytest.mark.parametrize("name", sorted(path.name for path in RECIPES.glob("*.toml")))
def test_published_recipes_are_valid(name):
    recipe = read_recipe(RECIPES / name)
    assert recipe.model.classes is None or recipe.data.classes is None


def test_set_changes_any_key(tmp_path):
    write_recipe(tmp_path / "r.toml", recipe_of(MINIMAL))
    changes = [
        "training.epochs=2",
        "data.train=other cells",
        'model.options.margin="circular"',
        "augmentation.scale=[1.0, 2.0]",
    ]
    recipe = read_recipe(tmp_path / "r.toml", changes)
    assert (recipe.training.epochs, recipe.data.train) == (2, "other cells")
    assert recipe.model.options == {"margin": "circular"}
    assert recipe.augmentation.scale == (1.0, 2.0)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("training.epoch=2", 'There is no key "training.epoch"; did you mean "training.epochs"'),
        ("trainin.epochs=2", 'There is no key "trainin"; did you mean "training"'),
        (
            "model.normalisation.hig=2",
            'There is no key "model.normalisation.hig"; did you mean "model.normalisation.high"',
        ),
        ("augmentation.rotat=false", 'did you mean "augmentation.rotate"'),
        ("training.epochs=many", "\"training.epochs\" is 'many': input should be a valid integer"),
        ("training.epochs=0", "training.epochs is 0; it must be at least 1, or training.minutes must say how long"),
        ("training.crop_size=100", "training.crop_size is 100; it must be a multiple of 8"),
        ("augmentation.stretch=x", "\"augmentation.stretch\" is 'x': input should be a valid number"),
        ("training.stride=3", 'There is no key "training.stride"'),
        ("augmentation.scale=[0.0, 1.0]", r"augmentation.scale is \(0.0, 1.0\); it is a range of magnifications"),
        ("augmentation.stretch=0.5", "augmentation.stretch is 0.5; it must be between 1 and 10"),
        ("augmentation.noise=-1", "augmentation.noise is -1.0; it must be between 0 and 10"),
        ("training.weight_decay=-1", "training.weight_decay is -1.0; it must be between 0 and 10"),
        ("model.channels=0", '"model.channels" is 0: input should be greater than or equal to 1'),
        ("training.dtype=bf16", 'training.dtype = "bf16" is not known; it can be auto, float32, bfloat16'),
        ("model.channels=1000000000", '"model.channels" is 1000000000: input should be less than or equal to 4096'),
        ("model.normalisation.low=100", "normalisation.low is 100.0 and normalisation.high 99.8; they are percentiles"),
        ("augmentation.scale=[2.0, 1.0]", r"augmentation.scale is \(2.0, 1.0\); it is a range .* the lower one first"),
        ("augmentation.scale=[nan, 1.0]", "augmentation.scale.0.* is nan; it must be a finite number"),
        ("training.seed=" + "1" * 10_000, "training.seed.* is longer than 4,096 characters"),
        ("training.seed=0x" + "1" * 10_000, "training.seed.* is an integer of more than 64 bits"),
        ("model.options.x=" + "[" * 9 + "]" * 9, "model.options.x.* has tables or lists nested deeper than 8"),
        ("model.options.x=" + "[" * 9000, "--set model.options.x=…: has lists or tables nested too deeply"),
        (".".join("x" * 9000) + "=1", "has tables or lists nested deeper than 8"),
        ("training", "--set training: write it as key=value"),
        ("data.train.x=1", "--set data.train.x=1: train is a value and has no keys below it"),
    ],
)
def test_wrong_keys_types_and_ranges(tmp_path, change, message):
    write_recipe(tmp_path / "r.toml", recipe_of(MINIMAL))
    with pytest.raises(InputError, match=message):
        read_recipe(tmp_path / "r.toml", [change])


def test_a_recipe_without_data(tmp_path):
    (tmp_path / "r.toml").write_text("[data]\n")
    with pytest.raises(InputError, match=r'The key "data.train" is missing; add it to the recipe, or give it by --set'):
        read_recipe(tmp_path / "r.toml")


def test_a_file_that_is_no_recipe(tmp_path):
    (tmp_path / "r.toml").write_text("epochs: 2")
    with pytest.raises(InputError, match="the recipe is not TOML"):
        read_recipe(tmp_path / "r.toml")
    with pytest.raises(InputError, match="the recipe cannot be read: No such file"):
        read_recipe(tmp_path / "none.toml")
    with pytest.raises(InputError, match="the recipe cannot be read: embedded null byte"):
        read_recipe("r\0.toml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = " + "[" * 9000, "tables or lists nested too deeply"),
        ("x = " + "1" * 10_000, "the recipe is not TOML: Exceeds the limit"),
        ("x = '\xe9'".encode("latin1"), "the recipe is not TOML: .* can't decode"),
        ("#" * 2**20 + "\n", "is larger than 1,048,576 bytes, so it is not a recipe"),
    ],
    ids=["deep", "digits", "latin", "long"],
)
def test_a_file_that_cannot_be_taken_for_a_recipe(tmp_path, text, message):
    (tmp_path / "r.toml").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(InputError, match=f"r.toml: .*{message}"):
        read_recipe(tmp_path / "r.toml")


@pytest.fixture
def folder(tmp_path):
    write_label_images(tmp_path / "data", [sample(f"image_{i}", seed=i, side=160) for i in range(3)])
    return tmp_path / "data"


SMALL = [
    "training.epochs=1",
    "training.crops_per_epoch=2",
    "training.batch_size=2",
    "training.crop_size=32",
    "training.workers=0",
]


def test_a_recipe_is_made_for_a_data_set(folder, tmp_path):
    recipe = recipe_for(folder, ["training.epochs=3"])
    assert recipe.training.epochs == 3
    assert recipe.model.channels == 1
    assert recipe.model.options["margin"] == "circular"
    assert recipe.training.crop_size % 8 == 0
    write_recipe(tmp_path / "r.toml", recipe)
    assert read_recipe(tmp_path / "r.toml") == recipe


@pytest.mark.parametrize("method", METHODS)
def test_every_method_trains_on_a_data_set_by_its_name_alone(method, folder, tmp_path):
    recipe = recipe_for(folder, [*SMALL, f"model.method={method}"])
    assert recipe.model.method == method
    assert recipe.training.crop_size == 32  # what was asked for, whatever the method suggests
    quick = recipe.model_copy(update={"data": recipe.data.model_copy(update={"crop": None, "max_objects": None})})
    model = run(quick, tmp_path / "out", device="cpu")
    assert set(model.method.thresholds) <= set(model.described().options)


def test_a_method_with_short_sequences_gets_crops_of_few_objects(folder):
    recipe = recipe_for(folder, ["model.method=rsis", "model.options.steps=12"])
    assert recipe.training.crop_size == recipe.data.crop
    assert recipe.model.options["steps"] == 12
    assert "margin" not in recipe.model.options


def test_a_model_of_another_method_can_be_started_from(folder, tmp_path, caplog):
    start = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("nucleus",)))
    start.save(tmp_path / "start.safetensors")
    changes = [*SMALL, "model.method=discriminative-loss"]
    recipe = recipe_for(folder, changes, start=str(tmp_path / "start.safetensors"))
    assert recipe.model.channels == 3
    assert "margin" not in recipe.model.options
    run(recipe, tmp_path / "out", device="cpu")
    assert "start from scratch: network.decoders.0.6, network.decoders.1.6" in caplog.text


def test_weights_of_an_encoder_are_read_from_a_file(folder, tmp_path):
    torch.manual_seed(1)
    encoder = ResNet(3, 18, width=8)
    torch.save(encoder.state_dict(), tmp_path / "resnet18.pth")
    changes = [*SMALL, "model.network=unet", "model.network_options.width=8", "model.channels=3"]
    still = ["training.learning_rate=1e-12", "training.weight_decay=0.0"]
    weights = f'model.encoder_weights="{tmp_path}/resnet18.pth"'
    model = run(recipe_for(folder, [*changes, *still, weights]), tmp_path / "out", device="cpu")
    torch.testing.assert_close(model.method.network.encoder.conv1.weight, encoder.conv1.weight, atol=1e-6, rtol=0)
    with pytest.raises(InputError, match="is for a ResNet, which the network erfnet does not have"):
        run(recipe_for(folder, [*SMALL, weights]), tmp_path / "other", device="cpu")


def test_a_run_writes_the_recipe_it_used_and_a_model_that_knows_it(folder, tmp_path):
    recipe = recipe_for(folder, SMALL)
    run(recipe, tmp_path / "out", device="cpu")
    assert read_recipe(tmp_path / "out" / "recipe.toml") == recipe
    description = Model.load(tmp_path / "out").description
    assert description.recipe == recipe.model_dump(mode="json")
    assert description.object_size == pytest.approx(10, abs=2)
    with pytest.raises(InputError, match="holds a training that was begun earlier; add --resume to continue it"):
        run(recipe, tmp_path / "out", device="cpu")


def test_a_run_starts_from_a_model(folder, tmp_path, caplog):
    start = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("nucleus",)))
    start.save(tmp_path / "start.safetensors")
    still = [*SMALL, "training.learning_rate=1e-12", "training.weight_decay=0.0"]
    recipe = recipe_for(folder, still, start=str(tmp_path / "start.safetensors"))
    assert recipe.model.channels == 3  # that of the model
    run(recipe, tmp_path / "out", device="cpu")
    name = "network.encoder.0.conv.weight"
    found, given = (model.method.state_dict()[name] for model in (Model.load(tmp_path / "out"), start))
    torch.testing.assert_close(found, given, atol=1e-6, rtol=0)
    assert "start from scratch" not in caplog.text


def test_layers_that_do_not_fit_are_named(folder, tmp_path, caplog):
    start = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("nucleus",)))
    start.save(tmp_path / "start.safetensors")
    recipe = recipe_for(folder, [*SMALL, f'model.start="{tmp_path}/start.safetensors"'])  # of grey images
    run(recipe, tmp_path / "out", device="cpu")
    assert "start from scratch: network.decoders.0.6, network.encoder.0.conv" in caplog.text


def test_a_model_with_other_weights_cannot_be_started_from():
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("nucleus",)))
    start = Model(model.description)
    start.method = torch.nn.Linear(1, 1)
    with pytest.raises(InputError, match="shares no weight with"):
        inspect.unwrap(runs._begin_with)(model, start)


def test_a_run_is_not_resumed_by_another_recipe(folder, tmp_path):
    recipe = recipe_for(folder, SMALL)
    with pytest.raises(InputError, match="there is nothing to resume; start the training without --resume"):
        run(recipe, tmp_path / "out", resume=True, device="cpu")
    run(recipe, tmp_path / "out", device="cpu")
    changed = recipe_for(folder, [*SMALL, "training.epochs=2", "augmentation.noise=0.5"])
    with pytest.raises(InputError, match=r"another recipe \(training.epochs, augmentation.noise differ\); resume with"):
        run(changed, tmp_path / "out", resume=True, device="cpu")
    assert read_recipe(tmp_path / "out" / "recipe.toml") == recipe


def test_classes_in_another_order_are_refused(folder, tmp_path):
    recipe = recipe_for(folder, [*SMALL, 'model.classes=["a", "b"]'])
    with pytest.raises(InputError, match=r"model.classes has the classes a, b, the training data object; they must be"):
        run(recipe, tmp_path / "out", device="cpu")


def test_classes_of_the_validation_images_are_matched_by_name(tmp_path):
    samples = [dataclasses.replace(sample(f"i{k}", seed=k), classes=np.array([1, 2, 2])) for k in range(2)]
    training = {"epochs": 1, "crops_per_epoch": 2, "batch_size": 2, "crop_size": 32, "workers": 0}
    write_coco(tmp_path / "train", samples, ["cell", "bubble"])
    write_coco(tmp_path / "turned", samples, ["bubble", "cell"])
    write_coco(tmp_path / "other", samples, ["cell", "grain"])

    def content(validation, **more):
        data = {"train": str(tmp_path / "train"), "validation": str(tmp_path / validation), **more}
        return recipe_of({"data": data, "model": {"channels": 1}, "training": training})

    validated = division._matched(open_dataset(tmp_path / "turned"), ("cell", "bubble"), None)
    assert validated.class_names == ("cell", "bubble")
    assert validated[0].classes.tolist() == [2, 1, 1]
    run(content("turned"), tmp_path / "run", device="cpu")
    with pytest.raises(InputError, match=r"has the classes grain, which the training data lacks .it has cell, bubble."):
        run(content("other"), tmp_path / "run2", device="cpu")
    run(content("other", classes=["cell"]), tmp_path / "run3", device="cpu")


def test_a_recipe_for_some_classes_is_made_from_their_objects(tmp_path):
    samples = [dataclasses.replace(sample(f"i{k}", seed=k), classes=np.array([1, 2, 3])) for k in range(2)]
    write_coco(tmp_path / "data", samples, ["cell", "bubble", "grain"])
    recipe = recipe_for(tmp_path / "data", ['data.classes=["grain", "cell"]'])
    assert len(recipe.model.options["foreground_weight"]) == 2
    assert "foreground_weight" not in recipe_for(tmp_path / "data", ['data.classes=["cell"]']).model.options


def test_validation_images_without_any_of_the_classes_are_refused(tmp_path):
    write_coco(tmp_path / "train", [sample("a")], ["cell"])
    write_coco(tmp_path / "other", [dataclasses.replace(sample("a"), classes=np.array([1, 2, 2]))], ["x", "y"])
    with pytest.raises(InputError, match="has the classes x, y, and the training data cell, grain: they share none"):
        division._matched(open_dataset(tmp_path / "other"), ("cell", "grain"), ["cell", "grain"])
    one = open_dataset(tmp_path / "train")
    assert division._matched(one, ("nucleus",), ["nucleus"]) is one


def test_a_change_that_every_stage_overrides_is_refused(tmp_path):
    write_recipe(tmp_path / "r.toml", recipe_of(MINIMAL | {"stages": STAGES}))
    with pytest.raises(InputError, match=r"--set training.crop_size=32: would change nothing, as each of the 2 stages"):
        read_recipe(tmp_path / "r.toml", ["training.crop_size=32"])
    assert read_recipe(tmp_path / "r.toml", ["training.learning_rate=1e-4"]).stage(2).training.learning_rate == 1e-4


def test_a_wrong_path_leaves_no_trace_of_a_run_in_stages(tmp_path):
    content = {"data": {"train": str(tmp_path / "nowhere")}, "stages": STAGES}
    with pytest.raises(InputError, match="no such data set"):
        run(recipe_of(content), tmp_path / "run", device="cpu")
    assert not (tmp_path / "run").exists()


def test_a_stage_is_resumed_in_a_folder_that_was_moved():
    before, after = (
        recipe_of(MINIMAL | {"model": {"start": start}})
        for start in ("runs/a/stage_1/model.safetensors", "/b/stage_1/model.safetensors")
    )
    assert runs._differences(before, after) == []
    other = recipe_of(MINIMAL | {"model": {"start": "/b/model.safetensors"}})
    assert runs._differences(before, other) == ["model.start"]


def test_split_of_images_that_are_not_split(folder, tmp_path):
    recipe = recipe_for(folder, [*SMALL, f"data.validation={folder}", "data.split_by=kind"])
    with pytest.raises(InputError, match=r"data.validation names images of its own"):
        run(recipe, tmp_path / "out", device="cpu")


def test_stages_begin_where_the_one_before_ended(folder, tmp_path, caplog):
    training = {"epochs": 1, "crops_per_epoch": 2, "batch_size": 2, "crop_size": 32, "workers": 0}
    stages = [
        {"training": {"learning_rate": 1e-3}},
        {"training": {"learning_rate": 1e-9, "freeze_normalisation": True}},
    ]
    content = {"data": {"train": str(folder)}, "model": {"channels": 1}, "training": training, "stages": stages}
    model = run(recipe_of(content), tmp_path / "run", device="cpu").state_dict()
    first = Model.load(tmp_path / "run" / "stage_1" / "model.safetensors").state_dict()
    assert all(torch.allclose(first[name].float(), value.float(), atol=1e-6) for name, value in model.items())
    kept = Model.load(tmp_path / "run" / "model.safetensors")
    assert kept.description.recipe["training"]["learning_rate"] == 1e-9
    (tmp_path / "run" / "stage_2" / "model.safetensors").unlink()  # as if it had been killed at the very end
    again = run(recipe_of(content), tmp_path / "run", resume=True, device="cpu").state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.items())
    with pytest.raises(InputError, match="holds a training that was begun earlier; add --resume"):
        run(recipe_of(content), tmp_path / "run", device="cpu")


def test_only_some_classes_are_learned(tmp_path):
    samples = [sample(f"image_{i}", seed=i) for i in range(3)]
    samples = [dataclasses.replace(s, classes=np.array([1, 2, 1])) for s in samples]
    write_coco(tmp_path / "data", samples, ["cell", "bubble"])
    training = {"epochs": 1, "crops_per_epoch": 2, "batch_size": 2, "crop_size": 32, "workers": 0}
    data = {"train": str(tmp_path / "data"), "validation": 0.34, "classes": ["bubble"]}
    model = run(
        recipe_of({"data": data, "model": {"channels": 1}, "training": training}), tmp_path / "run", device="cpu"
    )
    assert model.description.class_names == ("bubble",)
