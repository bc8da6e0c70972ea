"""Damaged checkpoints: a training goes on from them, or says in one sentence why not; none runs code."""

import copy
import dataclasses
import io
import pickle
import shutil
import zipfile

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from tests.fuzz.mutation import cases, edits, mutants

from attractor.datasets import Sample
from attractor.datasets.label_images import write_label_images
from attractor.errors import InputError
from attractor.recipe import recipe_of, write_recipe
from attractor.runs import run
from attractor.training.checkpoints import read_checkpoint

TRAINING = {"epochs": 1, "crops_per_epoch": 2, "batch_size": 2, "crop_size": 32, "workers": 0}
MODEL = {"channels": 1, "network": "unet", "network_options": {"width": 4}}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The folder of a training of one epoch, and the recipe to resume it with."""
    here = tmp_path_factory.mktemp("checkpoints")
    labels = np.zeros((32, 32), np.int32)
    labels[4:14, 4:14], labels[18:28, 15:29] = 1, 2
    image = (200 * (labels > 0)).astype(np.uint8)[..., None]
    drawn = image, labels, np.ones(2, np.int64), np.zeros((32, 32), bool)
    write_label_images(here / "data", [Sample(name, *drawn) for name in "ab"])
    recipe = recipe_of({"data": {"train": str(here / "data")}, "model": MODEL, "training": TRAINING})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("attractor.training.loop.tune", lambda *_, **__: {})
        run(recipe, here / "out", device="cpu")
    unfinished = recipe.model_copy(update={"training": dataclasses.replace(recipe.training, epochs=2)})
    write_recipe(here / "out" / "recipe.toml", unfinished)
    return here / "out", unfinished


@pytest.fixture(scope="module")
def corpus(trained):
    """A whole checkpoint, cut down to what its reader looks at."""
    small = torch.load(trained[0] / "last.ckpt", weights_only=True)
    small["state_dict"] = dict(list(small["state_dict"].items())[:3])
    small["optimizer_states"] = []
    file = io.BytesIO()
    torch.save(small, file)
    return {"last.ckpt": file.getvalue()}


def test_damaged_checkpoints_are_refused(corpus, guarded, tmp_path):
    path = tmp_path / "last.ckpt"
    read = 0
    for number, (name, content) in enumerate(mutants(corpus, 400)):
        path.write_bytes(content)
        read += guarded(lambda: read_checkpoint(path), what=f"{name} {number}") is not None
    assert read < cases(400) / 10  # what is changed where nothing is looked at: the archive's dates, say


def test_any_bytes_are_refused(corpus, guarded, tmp_path):
    path = tmp_path / "last.ckpt"

    @settings(max_examples=cases(100), deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
    @given(edits(corpus))
    def holds(content):
        path.write_bytes(content)
        guarded(lambda: read_checkpoint(path))

    holds()


class Opens:
    """What unpickling it does, if it is let to."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return open, (str(self.path), "w")


def test_a_checkpoint_with_code_in_it_does_not_run(tmp_path):
    torch.save({"state_dict": Opens(tmp_path / "made")}, tmp_path / "last.ckpt")
    (tmp_path / "plain.ckpt").write_bytes(pickle.dumps(Opens(tmp_path / "made")))
    for name in ("last.ckpt", "plain.ckpt"):
        with pytest.raises(InputError, match=rf"{name}: training cannot continue") as raised:
            read_checkpoint(tmp_path / name)
        assert "weights_only" not in str(raised.value)
    assert not (tmp_path / "made").exists()


def test_a_compressed_checkpoint_is_not_unpacked(tmp_path):
    with zipfile.ZipFile(tmp_path / "last.ckpt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("last/data.pkl", b"\0" * 10_000_000)
    with pytest.raises(InputError, match="it is compressed"):
        read_checkpoint(tmp_path / "last.ckpt")


def _without(key):
    return lambda checkpoint: checkpoint.pop(key)


def _with(key, value):
    return lambda checkpoint: checkpoint.update({key: value})


def _moments(checkpoint):
    for state in checkpoint["optimizer_states"][0]["state"].values():
        state["exp_avg"] = torch.zeros(7, 3)


def _progress(**changes):
    return lambda checkpoint: checkpoint["attractor"].update(changes)


CHANGES = {
    **{f"no {key}": _without(key) for key in ("state_dict", "optimizer_states", "lr_schedulers", "loops", "attractor")},
    **{f"text for {key}": _with(key, "x") for key in ("state_dict", "optimizer_states", "loops", "attractor")},
    "no layers": _with("state_dict", {}),
    "moments of others": _moments,
    "score as text": _progress(best="high"),
    "next epoch -1": _progress(next_epoch=-1),
    "time NaN": _progress(seconds=float("nan")),
    "thresholds of others": _progress(thresholds={"x": 1.0}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_checkpoint_of_something_else_is_refused(trained, tmp_path, change):
    folder, recipe = trained
    (tmp_path / "out").mkdir()
    shutil.copy(folder / "recipe.toml", tmp_path / "out")
    content = copy.deepcopy(torch.load(folder / "last.ckpt", weights_only=True))
    change(content)
    torch.save(content, tmp_path / "out" / "last.ckpt")
    with pytest.raises(InputError, match=r"last\.ckpt: training cannot continue from this checkpoint"):
        run(recipe, tmp_path / "out", resume=True, device="cpu")
    assert {path.name for path in (tmp_path / "out").iterdir()} <= {"recipe.toml", "last.ckpt", "logs"}


@pytest.mark.parametrize("content", [b"", b"PK", b"\x80\x02N.", bytes(1000)], ids=["empty", "zip", "pickle", "zeros"])
def test_what_is_said_of_a_broken_checkpoint(tmp_path, content):
    path = tmp_path / "last.ckpt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"Remove it and start the training without --resume\.$") as raised:
        read_checkpoint(path)
    assert str(raised.value).startswith(f"{path}: training cannot continue from this checkpoint")
    (tmp_path / "best.safetensors").touch()
    with pytest.raises(InputError, match=r"or add --from .*best\.safetensors to start from the best weights so far"):
        read_checkpoint(path)
