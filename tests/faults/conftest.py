"""Commands that something befalls, and what must hold of their files afterwards."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from attractor.datasets import Sample
from attractor.datasets.label_images import write_label_images
from attractor.description import Description
from attractor.model import Model

EFFORT = float(os.environ.get("ATTRACTOR_FAULTS", "1"))  # 4 tries four times as many moments
WARM = Path(__file__).with_name("warm.py")


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int  # as a shell has it
    seconds: float
    said: str


class Warm:
    """A process that runs commands at once; see `warm.py`."""

    def __init__(self, process: subprocess.Popen[str], **rehearsal: Any) -> None:
        self.process = process
        assert not any(self._asked(rehearsal))

    def _asked(self, question: dict[str, Any]) -> Any:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(question, default=str) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        assert answer, f"the process that runs commands has ended with {self.process.wait()}"
        return json.loads(answer)

    def __call__(self, folder: Path, *arguments: object, **fate: Any) -> Ended:
        """Run a command in a folder, with a signal or limits; it never ends in a traceback."""
        arguments = tuple(map(str, arguments))
        ended = Ended(**self._asked({"folder": folder, "arguments": arguments, **fate}))
        assert "Traceback" not in ended.said, ended.said
        return ended


@pytest.fixture(scope="session")
def warm(commands: dict[str, list[object]], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    """Runs commands in processes that need not import anything."""
    process = subprocess.Popen([sys.executable, str(WARM)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    rehearsal = [
        [str(part).replace("out", f"{name}_out") if part in ("out", "out.json") else str(part) for part in command]
        for name, command in commands.items()
    ]
    with process:
        yield Warm(process, folder=tmp_path_factory.mktemp("rehearsal"), commands=rehearsal)
        assert process.stdin is not None
        process.stdin.close()


@pytest.fixture(scope="session")
def material(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a data set, `data`, of four small images, and a model that finds objects in them."""
    folder = tmp_path_factory.mktemp("material")
    random = np.random.default_rng(0)
    samples = []
    for index in range(4):
        labels = np.zeros((48, 48), np.int32)
        for label, (row, column) in enumerate([(12, 12), (12, 36), (36, 12), (36, 36)][: 2 + index % 3], 1):
            labels[row - 6 : row + 6, column - 7 : column + 7] = label
        image = (160 * (labels > 0) + random.integers(0, 40, labels.shape)).astype(np.uint8)[..., None]
        samples.append(Sample(f"i{index}", image, labels, np.ones(labels.max(), np.int64), np.zeros((48, 48), bool)))
    write_label_images(folder / "data", samples)
    torch.manual_seed(0)
    options: dict[str, Any] = {"network": "unet", "network_options": {"width": 4}, "channels": 1}
    model = Model(Description(method="spatial-embeddings", class_names=("object",), object_size=14.0, **options))
    model.save(folder / "model.safetensors")
    return folder


@pytest.fixture(scope="session")
def commands(material: Path) -> dict[str, list[object]]:
    """The four commands that write most, each into a folder `out` of the folder that it runs in."""
    data, model = material / "data", material / "model.safetensors"
    changes = ["epochs=3", "crops_per_epoch=4", "batch_size=2", "crop_size=32", "workers=0"]
    network = ["model.network=unet", "model.network_options={width = 4}"]
    settings = [part for change in [*(f"training.{c}" for c in changes), *network] for part in ("--set", change)]
    return {
        "segment": ["segment", data / "images", "--model", model, "--out", "out", "--device", "cpu"],
        "train": ["train", data, "--out", "out", "--device", "cpu", *settings],
        "convert": ["convert", data, "out", "--to", "coco"],
        "evaluate": ["evaluate", model, data, "--device", "cpu", "--out", "out.json"],
    }
