"""The page on adding a network: its toy is run as it stands there."""

import pytest
import torch
from tests.methods import test_contract as contract
from tests.pages import run_page

from attractor.methods import METHODS
from attractor.networks import NETWORKS, Network

NAME = "few-layers"


@pytest.fixture
def toy(monkeypatch):
    """The network of the page, listed as the page says."""
    added = run_page("add_a_network", NETWORKS={})["NETWORKS"]
    for name, network in added.items():
        monkeypatch.setitem(NETWORKS, name, network)
    return added[NAME]


def test_it_is_a_network(toy):
    made = toy(3, [2, 1])
    assert isinstance(made, Network)
    assert [head.out_channels for head in made.heads] == [2, 1]
    assert made.eval()(torch.rand(2, 3, 21, 34)).shape == (2, 3, 21, 34)
    sizes = [tuple(x.shape[1:]) for x in made.pyramid(torch.rand(2, 3, 16, 24))]
    assert sizes == [(c, 16 // s, 24 // s) for c, s in zip(made.channels, made.strides, strict=True)]


@pytest.mark.parametrize("method", METHODS)
def test_every_method_runs_on_it(toy, method):
    contract.test_images_of_any_size_are_answered(method, NAME, (7, 5))


def test_the_commands_train_on_it(toy, attractor_command, annotated):
    changes = ("model.network=few-layers", "model.network_options.width=4", "training.epochs=1")
    small = ("training.crops_per_epoch=2", "training.batch_size=2", "training.crop_size=32")
    answer = attractor_command("train", annotated, "--out", "run", *(f"--set={key}" for key in (*changes, *small)))
    assert answer.code == 0, answer.error
    assert attractor_command("evaluate", "run", annotated).code == 0
    refused = attractor_command(
        "train", annotated, "--out", "no", "--set=model.network_options.depth=3", f"--set={changes[0]}"
    )
    assert refused.code == 2
    assert "few-layers has no option depth; its options are width" in refused.error
