"""Output folders that others use too, that are none, or that go away."""

import os
import shutil
import subprocess
import sys
import threading
import time

import pytest
from tests.faults.test_stopped import assert_done


def call(folder, command):
    """Begin a command in a process of its own."""
    whole = [sys.executable, "-m", "attractor", *map(str, command)]
    return subprocess.Popen(whole, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def test_two_that_segment_into_one_folder_leave_whole_files(commands, tmp_path):
    both = [call(tmp_path, commands["segment"]) for _ in range(2)]
    for process in both:
        _, error = process.communicate(timeout=120)
        assert (process.returncode, error) == (0, "")
    assert_done("segment", tmp_path)


@pytest.mark.parametrize("name", ["segment", "train", "convert", "evaluate"])
def test_an_output_that_cannot_be_is_said_in_one_line(name, warm, commands, tmp_path):
    out = tmp_path / ("out.json" if name == "evaluate" else "out")
    if name == "evaluate":
        out.mkdir()
    else:
        out.write_text("mine")
    ended = warm(tmp_path, *commands[name])
    assert ended.code == 2, ended.said
    assert ended.said.splitlines()[-1].startswith((out.name, str(out)))
    assert [path.name for path in tmp_path.rglob("*")] == [out.name]
    assert name == "evaluate" or out.read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="the superuser may write anywhere")
@pytest.mark.parametrize("name", ["segment", "train", "convert", "evaluate"])
def test_a_folder_that_may_not_be_written_to_is_said_in_one_line(name, warm, commands, tmp_path):
    tmp_path.chmod(0o500)
    try:
        ended = warm(tmp_path, *commands[name])
    finally:
        tmp_path.chmod(0o700)
    assert ended.code == 2, ended.said
    assert "Permission denied" in ended.said.splitlines()[-1]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["segment", "train", "convert"])
def test_a_folder_that_vanishes_meanwhile_ends_in_a_sentence(name, warm, commands, tmp_path):
    def remove():
        until = time.monotonic() + 60
        while time.monotonic() < until:
            for path in tmp_path.iterdir():  # of `convert` there is only what is unfinished
                shutil.rmtree(path, ignore_errors=True)
                return
            time.sleep(0.001)  # so that the command has a core to run on

    other = threading.Thread(target=remove)
    other.start()
    ended = warm(tmp_path, *commands[name])
    other.join()
    assert ended.code in (0, 1, 2), ended
    assert ended.said.strip()
