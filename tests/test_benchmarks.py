"""Benchmarks: each can be imported, and what times a folder of files goes through it in both ways."""

import pkgutil
from importlib import import_module

import benchmarks
import numpy as np
import pytest
from benchmarks import end_to_end
from benchmarks.harness import picture_of_cells

from attractor.images import find_images, write_image

NAMES = [module.name for module in pkgutil.iter_modules(benchmarks.__path__) if module.name != "__main__"]


@pytest.mark.parametrize("name", NAMES)
def test_each_can_be_imported(name):
    assert import_module(f"benchmarks.{name}").__doc__


def test_a_folder_is_segmented_in_both_ways(tmp_path):
    pictures, out = tmp_path / "in", tmp_path / "out"
    pictures.mkdir()
    out.mkdir()
    for k in range(2):
        write_image(pictures / f"{k}.png", picture_of_cells(64, 64, 2, np.random.default_rng(k))[..., None])
    found = end_to_end.folder(find_images([pictures]).images, out)
    assert found["files"] == 2
    assert found["units"] == pytest.approx(2 * 64 * 64 / end_to_end.UNIT)
    endings = ("labels.tif", "objects.csv", "overlay.png")
    assert sorted(file.name for file in out.iterdir()) == [f"{k}_{ending}" for k in range(2) for ending in endings]
