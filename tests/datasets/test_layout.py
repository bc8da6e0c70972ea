"""What all layouts have in common, and how one of them is chosen."""

from pathlib import Path

import numpy as np
import pytest

from attractor.datasets import DATASETS, Sample, layout_of, open_dataset
from attractor.datasets.cityscapes import write_cityscapes
from attractor.datasets.coco import write_coco
from attractor.datasets.cvppp import write_cvppp
from attractor.datasets.geojson import write_geojson
from attractor.datasets.label_images import write_label_images
from attractor.datasets.labelme import write_labelme
from attractor.datasets.layout import Benchmark, Divided, Evidence
from attractor.datasets.pascal_voc import write_pascal_voc
from attractor.errors import InputError


def sample(name: str, n: int = 1) -> Sample:
    """An image of 8 x 8 pixels with n objects, one below the other."""
    labels = np.zeros((8, 8), np.int32)
    for k in range(n):
        labels[2 * k, 1:5] = k + 1
    image = np.arange(64, dtype=np.uint8).reshape(8, 8, 1)
    return Sample(name, image, labels, np.ones(n, np.int32), np.zeros((8, 8), bool))


def cityscapes(folder: Path) -> None:
    for split, n in (("train", 1), ("val", 2)):
        write_cityscapes(folder / split, [sample("ulm_000000_000019", n)], ("car",))
        for part in ("leftImg8bit", "gtFine"):
            (folder / part).mkdir(exist_ok=True)
            (folder / split / part / "train").rename(folder / part / split)


def pascal_voc(folder: Path) -> None:
    write_pascal_voc(folder, [sample("a", 1), sample("b", 2)], ("car",))
    for split, stem in (("train", "a"), ("val", "b")):
        (folder / "ImageSets" / "Segmentation" / f"{split}.txt").write_text(stem)


def cvppp(folder: Path) -> None:
    write_cvppp(folder / "A1", [sample("plant001", 1)])
    write_cvppp(folder / "A2", [sample("plant001", 2)])


def coco(folder: Path) -> None:
    for split, n in (("train", 1), ("val", 2)):
        write_coco(folder / split, [sample("a", n)], ("cell",))
        (folder / "annotations").mkdir(exist_ok=True)
        (folder / split / "annotations.json").rename(folder / "annotations" / f"instances_{split}.json")


SPLITS = {
    "cityscapes": (cityscapes, ("train", "val")),
    "coco": (coco, ("train", "val")),
    "cvppp": (cvppp, ("A1", "A2")),
    "pascal-voc": (pascal_voc, ("train", "val")),
}


def test_every_layout_with_splits_is_tried_here():
    assert SPLITS.keys() == {name for name, layout in DATASETS.items() if isinstance(layout, Divided)}
    assert {name for name, layout in DATASETS.items() if isinstance(layout, Benchmark)} == {
        "cityscapes",
        "coco",
        "dsb2018",
    }


@pytest.mark.parametrize("layout", SPLITS)
def test_a_split_is_opened_by_its_name(layout, tmp_path, attractor_command):
    make, splits = SPLITS[layout]
    make(tmp_path)
    assert layout_of(tmp_path) == layout
    for n, split in enumerate(splits, 1):
        assert [len(one.classes) for one in open_dataset(tmp_path, split=split)] == [n]
    with pytest.raises(InputError, match=f'has no split "other"; there are: {splits[0]}, .*{splits[1]}'):
        open_dataset(tmp_path, split="other")
    shown = attractor_command("check", tmp_path, "--split", splits[1])
    assert f": {layout}, 1 readable image\n" in shown.out
    assert "objects: 2, 2 to 2 in an image" in shown.out
    done = attractor_command("convert", tmp_path, tmp_path / "out", "--to", "label-images", "--split", splits[1])
    assert done.code == 0
    assert open_dataset(tmp_path / "out")[0].labels.max() == 2


@pytest.mark.parametrize("layout", sorted(DATASETS.keys() - SPLITS.keys()))
def test_a_layout_without_splits_says_so(layout, tmp_path):
    DATASETS[layout].write(tmp_path, [sample("a")], open_dataset(written(tmp_path.parent / "other")))
    with pytest.raises(InputError, match='holds no splits to choose from; leave out the split "val"'):
        open_dataset(tmp_path, split="val")


def written(folder: Path) -> Path:
    write_label_images(folder, [sample("a")])
    return folder


def test_of_two_layouts_the_surer_one_opens_a_folder(tmp_path):
    write_label_images(tmp_path, [sample("a")])
    write_coco(tmp_path, [sample("b")], ("cell",))
    assert layout_of(tmp_path) == "label-images"
    assert Evidence.FOLDERS == DATASETS["label-images"].recognises(tmp_path) > DATASETS["coco"].recognises(tmp_path)


def test_two_layouts_that_are_equally_sure_are_both_named(tmp_path):
    write_geojson(tmp_path, [sample("a")], ("cell",))
    write_coco(tmp_path, [sample("a")], ("cell",))
    with pytest.raises(InputError, match="holds annotations in several layouts, coco and geojson; move away"):
        open_dataset(tmp_path)
    (tmp_path / "annotations.json").unlink()
    write_labelme(tmp_path, [sample("a")], ("cell",))
    assert layout_of(tmp_path) == "geojson"


def test_the_help_names_every_layout(attractor_command):
    shown = " ".join(attractor_command("convert", "--help").out.replace("│", " ").split())
    assert all(name in shown for name in DATASETS)
    shown = " ".join(attractor_command("evaluate", "--help").out.replace("│", " ").split())
    assert "for coco: a results JSON, FILE.json; cityscapes: a folder" in shown
