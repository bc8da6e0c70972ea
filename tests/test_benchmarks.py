"""Benchmarks: each can be imported, and what times a folder of files goes through it in both ways."""

import pkgutil
from importlib import import_module

import benchmarks
import numpy as np
import pytest
from benchmarks import end_to_end, films
from benchmarks.harness import picture_of_cells

from attractor.errors import InputError
from attractor.images import find_images, write_image, write_labels

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


def test_seg_counts_an_object_only_where_one_found_object_covers_more_than_half_of_it():
    truth, found = np.zeros((2, 10, 10), np.int32)
    truth[:4, :4], truth[5:7, :4], truth[5:9, 6:] = 3, 7, 9
    found[:4, :3] = 1  # 12 of 16, and nothing else
    found[5:7, :2], found[5:7, 2:4] = 2, 4  # half each
    found[4:9, 6:] = 5  # all of 16, and 4 more
    assert films.seg_of(truth, found).tolist() == [12 / 16, 0, 16 / 20]
    assert films.seg_of(truth, 0 * found).tolist() == [0, 0, 0]


def test_seg_of_a_film_reads_what_the_command_wrote(tmp_path):
    labels = np.zeros((8, 8), np.int32)
    labels[1:4, 1:4] = 2
    write_labels(tmp_path / "man_seg007.tif", labels)
    with pytest.raises(InputError, match=r"t007_labels\.tif: is not there"):
        films.seg(tmp_path, tmp_path)
    write_labels(tmp_path / "t007_labels.tif", labels)
    assert films.seg(tmp_path, tmp_path).tolist() == [1.0]
    with pytest.raises(InputError, match="holds no man_seg"):
        films.seg(tmp_path, tmp_path / "nowhere")
