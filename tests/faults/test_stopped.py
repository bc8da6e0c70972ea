"""Whatever stops a command, its files are whole, the next run finds nothing left over, and its code says what it was.

`ATTRACTOR_FAULTS=4 pytest tests/faults` kills at a hundred moments instead of twenty-five.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from random import Random

import pytest
from PIL import Image
from tests.faults.conftest import EFFORT

from attractor.datasets import open_dataset
from attractor.images import read_labels
from attractor.model import Model
from attractor.training.checkpoints import read_checkpoint

KILLS = {"segment": 8, "convert": 9, "evaluate": 5, "train": 3}  # at an effort of 1
MOST_TRIES = 30  # until one has stopped a command before it was done


def assert_whole(folder: Path) -> None:
    """Every file that is there under its name can be read to its end."""
    readers = {
        ".tif": read_labels,
        ".png": lambda path: Image.open(path).load(),
        ".csv": lambda path: path.read_text().endswith("\n") or pytest.fail(f"{path} is cut short"),
        ".json": lambda path: json.loads(path.read_text()),
        ".toml": lambda path: tomllib.loads(path.read_text()),
        ".safetensors": Model.load,
        ".ckpt": read_checkpoint,
    }
    for path in folder.rglob("*"):
        inside = path.relative_to(folder).parts
        if path.is_file() and not any(part.endswith(".part") or ".part." in part for part in inside):
            if "logs" not in inside:  # which grow line by line
                readers[path.suffix](path)


def left_over(folder: Path) -> list[Path]:
    """Hidden files and folders."""
    return [path for path in folder.rglob(".*")]


def assert_done(name: str, folder: Path) -> None:
    """All that the command writes is there."""
    assert_whole(folder)
    assert not left_over(folder)
    if name == "segment":
        assert len(list((folder / "out").iterdir())) == 12 + (folder / "out" / "run.json").exists()
    if name == "convert":
        dataset = open_dataset(folder / "out")
        assert [len(dataset[index].classes) for index in range(4)] == [2, 3, 4, 2]
    if name == "evaluate":
        assert len(json.loads((folder / "out.json").read_text())["images"]) == 4
    if name == "train":
        assert (folder / "out" / "model.safetensors").exists()


def again(name: str, command: list[object], folder: Path) -> list[object]:
    """The command to run next, after it ended early or not."""
    if name == "convert" and (folder / "out").exists():
        assert_done(name, folder)  # a folder that has its name is complete
        shutil.rmtree(folder / "out")
    if name == "train" and (folder / "out" / "model.safetensors").exists():
        shutil.rmtree(folder / "out")
    return [*command, "--resume"] if name == "train" and (folder / "out" / "last.ckpt").exists() else command


@pytest.fixture
def folders(tmp_path):
    """One for an undisturbed run, one for those that something befalls."""
    for name in ("calm", "rough"):
        (tmp_path / name).mkdir()
    return tmp_path / "calm", tmp_path / "rough"


@pytest.mark.parametrize("name", KILLS)
def test_a_kill_leaves_no_half_file_and_the_next_run_nothing_of_it(name, warm, commands, folders):
    calm, rough = folders
    whole = warm(calm, *commands[name])
    assert whole.code == 0, whole.said
    assert_done(name, calm)
    random = Random(name)
    codes = []
    shortest = whole.seconds
    for tried in range(MOST_TRIES * 4):
        command = again(name, commands[name], rough)
        ended = warm(rough, *command, signal=signal.SIGKILL, after=random.uniform(0, shortest))
        codes.append(ended.code)
        assert_whole(rough)
        if ended.code == 0:  # it was faster, and the next kill comes sooner
            assert_done(name, rough)
            shortest = min(shortest, ended.seconds)
        if tried + 1 >= round(KILLS[name] * EFFORT) and 137 in codes:
            break
    assert set(codes) <= {0, 137}
    assert 137 in codes
    last = warm(rough, *again(name, commands[name], rough))
    assert last.code == 0, last.said
    assert_done(name, rough)
    if name == "train":  # a resumed training is the training that was never stopped, bit by bit
        models = [(folder / "out" / "model.safetensors").read_bytes() for folder in folders]
        assert models[0] == models[1]


@pytest.mark.parametrize("name", KILLS)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["int", "term"])
def test_a_command_that_is_asked_to_stop_leaves_nothing_unfinished(name, number, code, warm, commands, folders):
    calm, rough = folders
    whole = warm(calm, *commands[name])
    random = Random(f"{name} {number}")
    codes = []
    shortest = whole.seconds
    for tried in range(MOST_TRIES):
        moment = random.uniform(0.05, 0.9) * shortest
        ended = warm(rough, *again(name, commands[name], rough), signal=number, after=moment)
        codes.append(ended.code)
        assert ended.code in (0, code), ended.said
        assert_whole(rough)
        assert not left_over(rough)
        if ended.code == 0:  # it was faster, and the next signal comes sooner
            assert_done(name, rough)
            shortest = min(shortest, ended.seconds)
        if tried + 1 >= round(3 * EFFORT) and code in codes:
            break
    assert code in codes


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("moment", ["gc.freeze", "attractor.cli.main"])
def test_a_signal_that_comes_when_all_is_done_prints_no_traceback(number, moment):
    script = f"""
import gc, os, sys
import attractor.cli
sys.argv[1:] = ["--help"]
before = {moment}
def then(*arguments):
    done = before(*arguments)
    os.kill(os.getpid(), {number})
    return done
{moment} = then
sys.exit(attractor.cli.run())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert ended.returncode == (0 if moment == "gc.freeze" else 128 + number), ended.stderr
    assert ended.stderr == ""


def test_a_signal_whose_exception_is_lost_stops_the_command_all_the_same():
    script = """
import os, signal, sys, time
import attractor.cli

class Deaf:
    def __del__(self):  # whatever is raised here is dropped
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass

def main():
    Deaf()
    time.sleep(20)
    return 0

attractor.cli.main = main
sys.exit(attractor.cli.run())
"""
    ended = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ended.returncode, ended.stderr) == (143, "")


LIMITS = {
    "RLIMIT_FSIZE": [0, 300, 3_000, 30_000],  # bytes of a file: what a full disk is to a program
    "RLIMIT_NOFILE": [0, 1, 2, 3, 5],  # beyond those that are open
    "RLIMIT_AS": [1 << 18, 1 << 19, 1 << 20, 1 << 22],  # bytes beyond what is in use
}


@pytest.mark.parametrize("name", KILLS)
@pytest.mark.parametrize("resource", LIMITS)
def test_too_little_of_anything_is_said_in_one_line(name, resource, warm, commands, material, folders):
    if resource == "RLIMIT_AS" and not Path("/proc/self/statm").exists():
        pytest.skip("how much memory is in use is read from /proc, which only Linux has")
    rough = folders[1]
    for limit in LIMITS[resource][:: 2 if name == "train" else 1]:  # which takes longest
        ended = warm(rough, *again(name, commands[name], rough), limits={resource: limit})
        assert ended.code in (0, 1, 2), f"{limit}: {ended}"
        assert_whole(rough)
        assert not left_over(rough)
        if ended.code == 2:
            assert ended.said.count("\n") == 1, ended.said
        if ended.code == 1:  # the images that failed are named, and then counted
            *failed, summary = ended.said.splitlines()
            assert name == "segment"
            assert failed
            assert all(line.startswith(("out/i", str(material / "data" / "images" / "i"))) for line in failed), failed
            assert summary == f"{len(failed)} of 4 images could not be segmented."
        if ended.code == 0:
            assert_done(name, rough)
    last = warm(rough, *again(name, commands[name], rough))
    assert last.code == 0, last.said
    assert_done(name, rough)


@pytest.mark.parametrize("name", ["segment", "train", "evaluate"])  # those that import torch
def test_too_little_memory_to_import_anything_is_said_in_one_line(name, commands, tmp_path):
    bounded = "import resource as r; r.setrlimit(r.RLIMIT_AS, (3 << 27,) * 2); import attractor.cli as c; exit(c.run())"
    call = [sys.executable, "-c", bounded, *map(str, commands[name])]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # each thread of NumPy's would take memory
    ended = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith("The machine cannot do this (")
    assert ended.stderr.endswith("; close other programs, or give smaller images.\n")
    assert ended.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
