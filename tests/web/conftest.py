"""A session with three images, a model that finds objects in them, and a server that answers."""

import os
import re
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest
from fastapi.testclient import TestClient

from attractor.images import write_image
from attractor.instances import Instances
from attractor.session import Session
from attractor.web.app import create_app

EFFORT = float(os.environ.get("ATTRACTOR_FAULTS", "1"))  # 17 kills the server at 51 moments
TOKEN = "a token that is long enough to be one"
LABELS = np.zeros((60, 80), np.int32)
LABELS[5:17, 5:20], LABELS[25:45, 10:30], LABELS[20:50, 45:70] = 1, 2, 3


def picture(seed):
    random = np.random.default_rng(seed)
    return (160 * (LABELS > 0) + random.integers(0, 40, LABELS.shape)).astype(np.uint8)[..., None]


class Finder:
    """In place of a model."""

    class_names = ("cell", "debris")

    def segment(self, image, name):
        return Instances(LABELS.copy(), np.array([1, 1, 2], np.int32), np.array([0.9, 0.4, 0.7], np.float32))


def session_in(folder):
    """The folder of a new session with three images."""
    (folder / "pictures").mkdir()
    for seed, name in enumerate(("a", "b", "c d")):
        write_image(folder / "pictures" / f"{name}.png", picture(seed))
    Session.create(folder / "project", [folder / "pictures"], Finder()).close()
    return folder / "project"


@pytest.fixture
def folder(tmp_path):
    return session_in(tmp_path)


@pytest.fixture
def session(folder):
    with Session(folder) as session:
        yield session


@pytest.fixture
def stranger(session):
    """Somebody without the token."""
    app = create_app(session, token=TOKEN, port=8765, device="cpu")
    with TestClient(app, base_url="http://127.0.0.1:8765") as client:
        yield client


@pytest.fixture
def client(stranger):
    stranger.headers["authorization"] = f"Bearer {TOKEN}"
    return stranger


@contextmanager
def serving(folder, *, kill=False):
    """The address of a server in a process of its own, which is told to end after the block, or killed."""
    command = [sys.executable, "-m", "attractor", "serve", str(folder), "--port", "0", "--device", "cpu"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    with process:
        try:
            line = process.stdout.readline()
            yield re.search(r"http://\S+", line).group()
        finally:
            process.kill() if kill else process.terminate()
            process.wait(20)
            assert "Traceback" not in process.stdout.read()
