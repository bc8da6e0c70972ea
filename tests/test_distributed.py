"""Several devices train the model that one device trains."""

import csv
import itertools
import os
import signal
import subprocess
import sys
import time

import pytest
import torch

from attractor import runs
from attractor.errors import InputError
from attractor.model import Model
from attractor.training import ranks
from attractor.training.batches import Places
from attractor.training.checkpoints import read_checkpoint

CPU = torch.device("cpu")
QUICK = [
    "training.epochs=2",
    "training.crops_per_epoch=8",
    "training.batch_size=4",
    "training.crop_size=32",
    "training.workers=0",
    'training.dtype="float32"',
    "training.freeze_normalisation=true",  # statistics are of a rank's own crops, which are not those of one device
    "model.network_options.dropout=0.0",
    "data.validation=0.4",
]


def trained(data, out, *changes, **options):
    runs.train(data, out=out, changes=[*QUICK, *changes], device="cpu", **options)
    return out


def losses(out):
    """The loss of each step, as far as the log has it."""
    (file,) = (out / "logs" / "csv").rglob("metrics.csv")
    with file.open() as lines:
        return [float(row["loss"]) for row in csv.DictReader(lines) if row.get("loss")]


def weights(out):
    return Model.load(out / "model.safetensors").method.state_dict()


@pytest.mark.parametrize("n_ranks", [1, 2, 4])
def test_the_crops_of_all_ranks_are_those_of_one_device(n_ranks):
    alone = Places(19, 8)
    parts = []
    for rank in range(n_ranks):
        places = Places(19, 8)
        places.rank, places.ranks = rank, n_ranks
        parts.append(list(places))
        assert len(places) == len(parts[-1]) == 16 // n_ranks
    share = 8 // n_ranks
    together = [
        place for start in range(0, 16 // n_ranks, share) for part in parts for place in part[start : start + share]
    ]
    assert together == list(alone) == [(0, index) for index in range(16)]


@pytest.mark.parametrize("n", [0, 1, 5, 6])
def test_results_come_back_in_order_and_none_twice(n, monkeypatch):
    items, dealt = [f"image {index}" for index in range(n)], []
    monkeypatch.setattr(ranks, "size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(ranks, "rank", lambda rank=rank: rank)
        dealt.append(list(ranks.dealt(items)))

    def gather(parts, _):
        parts[:] = dealt

    monkeypatch.setattr(torch.distributed, "all_gather_object", gather)
    assert ranks.gathered(dealt[0]) == items


def gradient(out):
    """That of the first step, from what the optimiser remembers of it after one epoch of one step."""
    state = read_checkpoint(out / "last.ckpt")["optimizer_states"][0]["state"]
    return torch.cat([weight["exp_avg"].flatten().double() for weight in state.values()])


def apart(one, other):
    """The distance of two vectors, as a share of the first one's length."""
    return float((one - other).norm() / one.norm())


ONE_STEP = ["training.epochs=1", "training.crops_per_epoch=4"]


def test_two_processes_train_what_one_trains_in_two_parts(squares, tmp_path):
    pair = trained(squares, tmp_path / "pair", *ONE_STEP, devices=2)
    alone = trained(squares, tmp_path / "alone", *ONE_STEP, "training.accumulate=2")
    assert apart(gradient(alone), gradient(pair)) < 1e-5
    first, second = (torch.cat([value.flatten() for value in weights(out).values()]) for out in (alone, pair))
    assert apart(first, second) < 1e-6
    assert losses(pair)


def test_a_batch_in_parts_is_the_batch(squares, tmp_path):
    whole = trained(squares, tmp_path / "whole", *ONE_STEP)
    parts = trained(squares, tmp_path / "parts", *ONE_STEP, "training.accumulate=4")
    assert apart(gradient(whole), gradient(parts)) < 1e-4


def test_two_processes_that_were_killed_go_on_where_they_were(squares, tmp_path):
    changes = ["training.epochs=5"]
    expected = trained(squares, tmp_path / "expected", *changes, devices=2)
    out = tmp_path / "out"
    settings = itertools.chain.from_iterable(("--set", change) for change in [*QUICK, *changes])
    arguments = ["train", squares, "--out", out, "--devices", "2", "--device", "cpu", *settings]
    process = subprocess.Popen([sys.executable, "-m", "attractor", *map(str, arguments)], start_new_session=True)
    while process.poll() is None and not (out / "last.ckpt").exists():
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert not (out / "model.safetensors").exists()
    trained(squares, out, *changes, devices=2, resume=True)
    first, second = weights(expected), weights(out)
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_time_ends_all_processes_at_once(squares, tmp_path):
    out = trained(squares, tmp_path / "out", "training.crops_per_epoch=4", devices=2, minutes=0.15)
    assert (out / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"devices": 0}, "--devices is 0; give a number from 1, or auto"),
        ({"devices": "two"}, "--devices is two; give a number from 1, or auto"),
        (
            {"devices": 3},
            "training.batch_size is 4, which 3 devices and parts .training.accumulate. cannot share evenly",
        ),
        ({"nodes": 2}, "--nodes is 2, but nobody has started this command on other machines; .* torchrun --nnodes 2"),
        ({"nodes": 0}, "--nodes is 0; give a number from 1"),
        ({"devices": 2, "folds": 2}, "Folds and stages are trained one after another, on one device"),
    ],
)
def test_devices_that_cannot_be(options, message, squares, tmp_path):
    with pytest.raises(InputError, match=message):
        trained(squares, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_what_a_user_can_mend_is_said_in_one_sentence(squares, tmp_path):
    with pytest.raises(InputError, match=r"^The loss stopped being finite in epoch 1 at image"):
        trained(squares, tmp_path / "out", "training.learning_rate=10", "training.epochs=40", devices=2)


def test_all_gpus_are_one_where_there_is_none():
    assert ranks.number_of_devices("auto", CPU) == 1
    assert ranks.number_of_devices(3, CPU) == 3
    with pytest.raises(InputError, match="Macs have a single MPS device"):
        ranks.number_of_devices(2, torch.device("mps"))


def test_who_was_started_elsewhere_knows_its_place(monkeypatch):
    assert ranks.is_first_process()
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "1")
    assert ranks.are_started_elsewhere()
    assert not ranks.is_first_process()
    ranks.check_nodes(2)
