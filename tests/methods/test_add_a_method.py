"""The page on adding a method: its toy is run as it stands there."""

import pytest
from tests.methods import test_contract as contract
from tests.pages import run_page

from attractor.errors import InputError
from attractor.methods import METHODS
from attractor.methods.contract import Turns

NAME = "connected-regions"


@pytest.fixture
def toy(monkeypatch):
    """The method of the page, listed as the page says."""
    added = run_page("add_a_method", METHODS={})["METHODS"]
    for name, method in added.items():
        monkeypatch.setitem(METHODS, name, method)
    return added[NAME]


def test_it_keeps_the_contract(toy, tmp_path):
    assert not issubclass(toy, Turns)
    contract.test_is_a_method(NAME)
    for case in ("empty", "one object", "one pixel", "whole image", "all ignored"):
        contract.test_losses_and_gradients_are_finite(NAME, case)
    contract.test_ignored_pixels_do_not_count(NAME)
    contract.test_labels_do_not_depend_on_the_batch(NAME)
    contract.test_a_saved_and_loaded_model_gives_the_same_labels(NAME, tmp_path)
    contract.test_images_of_any_size_are_answered(NAME, "erfnet", (7, 5))
    contract.test_grouping_ends_whatever_the_network_says(NAME, float("nan"))
    contract.test_methods_say_what_suits_a_data_set(NAME)
    for value in (float("nan"), float("inf"), -1e9):
        contract.test_numbers_that_cannot_be_are_refused(NAME, value)


def test_it_refuses_what_it_cannot_tell_apart(toy):
    with pytest.raises(InputError, match="tells no classes apart, and the data have 2"):
        contract.make(NAME, n_classes=2)


def test_the_commands_train_run_and_score_it(toy, attractor_command, annotated, tmp_path):
    small = [
        f"--set=training.{key}"
        for key in ("epochs=1", "crops_per_epoch=2", "batch_size=2", "crop_size=32", "around_objects=0.0")
    ]
    trained = attractor_command("train", annotated, "--set", f"model.method={NAME}", "--out", "first", *small)
    assert trained.code == 0, trained.error
    again = attractor_command("train", annotated, "--from", "first", "--out", "second", *small)
    assert again.code == 0, again.error
    scored = attractor_command("evaluate", "second", annotated)
    assert scored.code == 0, scored.error
    assert attractor_command("check", annotated, "--model", "second").code == 0
    refused = attractor_command("evaluate", "second", annotated, "--tta")
    assert refused.code == 2
    assert "connected-regions has no test-time augmentation" in refused.error


def test_an_unknown_method_is_answered_with_it(toy, attractor_command, annotated):
    answer = attractor_command("train", annotated, "--set", "model.method=magic")
    assert NAME in answer.error
