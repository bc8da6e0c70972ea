"""Recipes: strict, answered with the right key, and the same after writing."""

import pytest
from tests.test_training import sample

from attractor.datasets.label_images import write_label_images
from attractor.errors import InputError
from attractor.model import Description, Model
from attractor.recipe import read_recipe, recipe_for, recipe_of, run, write_recipe

MINIMAL = {"data": {"train": "cells"}}


def test_defaults():
    recipe = recipe_of(MINIMAL)
    assert recipe.model.method == "spatial-embeddings"
    assert recipe.training.epochs == 30


def test_a_written_recipe_is_read_the_same(tmp_path):
    recipe = recipe_of(MINIMAL | {"model": {"about": 'a "quoted" \\ line\nmore', "options": {"margin": "circular"}}})
    write_recipe(tmp_path / "r.toml", recipe)
    assert read_recipe(tmp_path / "r.toml") == recipe


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
        ("training.epochs=0", "training.epochs is 0; it must be at least 1"),
        ("training.crop_size=100", "training.crop_size is 100; it must be a multiple of 8"),
        ("model.channels=0", '"model.channels" is 0: input should be greater than or equal to 1'),
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


def test_a_run_writes_the_recipe_it_used_and_a_model_that_knows_it(folder, tmp_path):
    recipe = recipe_for(folder, SMALL)
    run(recipe, tmp_path / "out", device="cpu")
    assert read_recipe(tmp_path / "out" / "recipe.toml") == recipe
    description = Model.load(tmp_path / "out").description
    assert description.recipe == recipe.model_dump(mode="json")
    assert description.object_size == pytest.approx(10, abs=2)
    with pytest.raises(InputError, match="a training was begun here; add --resume to go on with it"):
        run(recipe, tmp_path / "out", device="cpu")


def test_a_run_starts_from_a_model(folder, tmp_path):
    start = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("nucleus",)))
    recipe = recipe_for(folder, [*SMALL, "training.learning_rate=1e-12", "training.weight_decay=0.0"], start=start)
    assert recipe.model.channels == 3  # that of the model
    run(recipe, tmp_path / "out", start=start, device="cpu")
    found = Model.load(tmp_path / "out").method.state_dict()["network.encoder.0.conv.weight"]
    assert found.flatten().tolist() == pytest.approx(
        start.method.state_dict()["network.encoder.0.conv.weight"].flatten().tolist(), abs=1e-6
    )


def test_a_model_with_other_weights_cannot_be_started_from(folder, tmp_path):
    start = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("nucleus",)))
    start.method = __import__("torch").nn.Linear(1, 1)
    with pytest.raises(InputError, match="shares no weight with"):
        run(recipe_for(folder, SMALL), tmp_path / "out", start=start, device="cpu")
