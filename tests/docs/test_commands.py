"""Every command and every Python example of the pages, run on small data, page by page from top to bottom.

A page's commands share one folder, as a reader's do. What is too heavy for a test is made small in QUICK; what cannot
be run here is named in ONLY_PARSED with the reason, and its options must exist nevertheless.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import typer

from attractor.cli import app, main
from attractor.datasets import open_dataset
from attractor.datasets.session import SessionImages
from attractor.description import Description
from attractor.images import read_image, read_labels, write_image, write_labels
from attractor.model import Model
from attractor.weights import MODELS

PROJECT = Path(__file__).parents[2]
PAGES = sorted([PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *(PROJECT / "docs").glob("*.md")])
PAGES_WITH_TESTS = "add_a"  # of these the toys are run by tests of their own

QUICK = {  # what is added to a command
    "train": "--device cpu --set training.epochs=1 --set training.crops_per_epoch=2 --set training.batch_size=2 "
    "--set training.crop_size=32 --set training.workers=0",
    "compare": "--images 1",
}
ONLY_PARSED = {  # what a command begins with, and why it is not run
    "attractor demo": "shows 5,000 objects of the model without training; tests/test_cli.py runs it",
    "attractor export runs/mydata --format openvino": "takes half a minute; tests/test_export.py writes such a file",
    "attractor export nuclei --format torch-export": "takes half a minute; tests/test_export.py writes such a file",
    "attractor train mydata --set model.network=unet": "is a large network; tests/networks builds it",
    "attractor compare runs/mine": "starts a process for each model, as the command on compare.md does",
    "attractor compare nuclei nuclei-": "needs the models of other methods; tests/test_comparison.py runs them",
    "attractor train recipes/": "is made for data that does not come with the project; tests/test_recipe.py reads it",
    "attractor correct": "serves a page until it is told to end; tests/web runs it",
    "attractor serve": "serves a page until it is told to end; tests/web runs it",
    "attractor evaluate street data/street/test --metric coco --results": "needs the classes of that model",
    "python -m benchmarks": "takes minutes, and is no part of the package",
    "curl ": "needs a server; tests/web/test_answers.py asks one the same",
    "python examples/segment_by_http.py": "needs a server; tests/web/test_http_page.py runs it",
    "python docs/pictures.py gallery": "needs data that does not come with the project",
    "attractor segment slide.ome.zarr": "takes a slide; tests/prediction/test_slide.py gives such calls",
    "attractor segment scan.tif": "takes a large TIFF file; tests/prediction/test_slide.py reads one",
    "make ": "sets up an environment",
    "napari": "opens a window; tests/napari opens one",
    "pip install ": "needs a network",
    "pytest": "is a test itself",
    "scripts/check": "runs all tests",
}
if find_spec("openvino") is None:
    ONLY_PARSED["attractor segment mydata/images --model mydata8.safetensors"] = "needs openvino"
FRAME = "data/films/test/sim/01/t000.png"
SHELL, PYTHON = "bash", "python"


def blocks(page: Path) -> list[tuple[str, str]]:
    """Language and text of each fenced block."""
    return re.findall(r"^```(\S*)\n(.*?)^```$", page.read_text(), re.M | re.S)


def commands(text: str) -> list[list[str]]:
    """The words of each command, without comments."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for words in (shlex.split(line, comments=True) for line in lines) if words]


@pytest.fixture
def folder(tmp_path: Path, tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What a reader of the pages has: images, annotated images in several layouts, models."""
    monkeypatch.chdir(tmp_path)
    Path("models").mkdir()
    for name in MODELS:
        shutil.copy(tiny_model, f"models/{name}.safetensors")
        if name == "embryo":
            _of_volumes(Path(f"models/{name}.safetensors"))
        monkeypatch.setitem(MODELS, name, tmp_path / f"models/{name}.safetensors")
    for name in (
        "mydata",
        "mine",
        "mytest",
        "data/nuclei/test",
        "data/fibroblasts/test",
        "data/street/test",
        "data/worms/test",
    ):
        _annotate(tmp_path / name)
    picture = read_image(Path("mydata/images/i0.png"))
    for name in ("cells.png", "plate1/b.png", "plate1/c.png", "plate2/a.tif", "new/a.png", "demo/stained.png", FRAME):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        write_image(Path(name), picture)
    _film()
    for name in ("mydata", "mine", "other", "street", "cityscapes", "fibroblasts-discriminative"):
        Path("runs", name).mkdir(parents=True)
        shutil.copy(tiny_model, Path("runs", name, "model.safetensors"))
    shutil.copy(tiny_model, "runs/other.safetensors")
    shutil.copytree(PROJECT / "recipes", "recipes")
    shutil.copytree(PROJECT / "examples", "examples")
    return tmp_path


def _film() -> None:
    """A film of three frames, its label images and its truth, and the same as films to learn from and to score on."""
    for name in ("film", "masks", "truth/film_GT/TRA", "myfilms/01"):
        Path(name).mkdir(parents=True)
    for t in range(3):
        labels = np.zeros((40, 48), np.int32)
        labels[8:18, 8 + t : 18 + t] = 1
        write_image(Path(f"film/t{t:03}.png"), ((labels > 0) * 200).astype(np.uint8)[..., None])
        write_labels(Path(f"masks/t{t:03}.png"), labels)
        write_labels(Path(f"truth/film_GT/TRA/man_track{t:03}.tif"), labels)
    Path("truth/film_GT/TRA/man_track.txt").write_text("1 0 2 0\n")
    for file in Path("film").iterdir():
        shutil.copy(file, "myfilms/01")
    shutil.copytree("truth/film_GT", "myfilms/01_GT")
    for name in ("data/films/test/sim", "learn", "rest"):
        shutil.copytree("myfilms", name, dirs_exist_ok=True)


def _annotate(path: Path) -> None:
    """Four images of squares, in two modalities."""
    (path / "images").mkdir(parents=True)
    (path / "labels").mkdir()
    rng = np.random.default_rng(0)
    for k in range(4):
        labels = np.zeros((40, 48), np.int32)
        labels[4:14, 4:14], labels[4:14, 24:34], labels[22:34, 14 + k : 26 + k] = 1, 2, 3
        pixels = (labels > 0) * 200 + rng.integers(0, 40, labels.shape)
        write_image(path / f"images/i{k}.png", pixels.astype(np.uint8)[..., None])
        write_labels(path / f"labels/i{k}.png", labels)
    rows = [f"i{k},{'fluorescence' if k % 2 else 'stained'}" for k in range(4)]
    (path / "images.csv").write_text("\n".join(["image,modality", *rows]))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_says_can_be_done(page, folder, capsys):
    if "street/test" in page.read_text():
        _more_layouts()
    if page.name == "correct.md":
        _session()
    names: dict[str, object] = {}
    if "embryos/test" in page.read_text():
        names["volume"] = _volumes()
    for language, text in blocks(page):
        assert language, f"{page.name}: say what this block is: {text[:60]}"
        if language == SHELL:
            for words in commands(text):
                _run(words, capsys, only_parsed=page.name.startswith(PAGES_WITH_TESTS))
        elif language == PYTHON and not page.name.startswith(PAGES_WITH_TESTS):
            _run_python(text, names)


def _run(words: list[str], capsys: pytest.CaptureFixture[str], *, only_parsed: bool) -> None:
    """Run a command, or see that there is such a one."""
    line = shlex.join(words)
    only_parsed = only_parsed or any(shlex.join(words).startswith(start) for start in ONLY_PARSED)
    if words[0] == "attractor":
        _parse(words[1:])
        if not only_parsed:
            _run_attractor(words[1:], capsys)
    elif words[0] == "python":
        _check_script(words[1:])
        if not only_parsed:
            done = subprocess.run([sys.executable, *words[1:]], capture_output=True, text=True, check=False)
            assert done.returncode == 0, f"{line}\n{done.stderr}"
    elif words[0] == "make":
        targets = re.findall(r"^(\w+):", (PROJECT / "Makefile").read_text(), re.M)
        assert set(words[1:]) <= set(targets), line
    elif words[:2] == ["pip", "install"]:
        _check_extras(words[2])
    else:
        assert any(line.startswith(start) for start in ONLY_PARSED), f"{line}: no test knows such a command"


def _parse(words: list[str]) -> None:
    """Hold a command to the options that it has."""
    group = typer.main.get_command(app)
    with group.make_context("attractor", list(words), resilient_parsing=True) as context:
        name, command, rest = group.resolve_command(context, list(words))
        if not {"--help", "--version"} & set(rest):
            command.make_context(name, rest, parent=context)


def _run_attractor(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    words = [*words, *shlex.split(QUICK.get(words[0], ""))]
    if words[0] == "train" and "--resume" not in words:
        out = words[words.index("--out") + 1] if "--out" in words else f"runs/{Path(words[1]).stem}"
        shutil.rmtree(out, ignore_errors=True)  # a page may show several ways to the same model
    code = main(words)
    assert code == 0, f"attractor {shlex.join(words)}\n{capsys.readouterr().err}"


def _check_script(words: list[str]) -> None:
    """A script or module of the project is where it is said to be."""
    path = Path(*words[1].split(".")) if words[0] == "-m" else Path(words[0])
    assert (PROJECT / path).exists() or (PROJECT / path).with_suffix(".py").exists(), shlex.join(words)


def _check_extras(wanted: str) -> None:
    """The extras of an installation exist; the project is on no index, so that it is installed from a clone."""
    extras = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    place, _, named = wanted.rstrip("]").partition("[")
    assert place == "."
    assert {name for name in named.split(",") if name} <= set(extras), wanted


def _run_python(text: str, names: dict[str, object]) -> None:
    """Run an example on an image and label images that the reader has."""
    labels = read_labels(Path("mydata/labels/i0.png"))
    for name, value in {"image": read_image(Path("cells.png")), "true_labels": labels, "found_labels": labels}.items():
        names.setdefault(name, value)
    exec(compile(text, "example", "exec"), names)


def _session() -> None:
    """A session of four images, all of them reviewed."""
    dataset = open_dataset("mydata")
    samples = [replace(dataset[k], name=name) for k, name in enumerate(("cells", "more", "others", "rest"))]
    SessionImages.write(Path("project"), samples, dataset)


def _of_volumes(path: Path) -> None:
    """A model for volumes that has learned nothing."""
    base = {"method": "spatial-embeddings", "network": "erfnet", "channels": 1, "class_names": ("object",)}
    Model(Description(**base, axes=3, spacing=(1.75, 0.8, 0.8))).save(path)


def _volumes() -> np.ndarray:
    """Two data sets of volumes, and a stack."""
    labels = np.zeros((16, 40, 48), np.int32)
    labels[3:8, 4:14, 4:14], labels[5:11, 20:32, 28:40] = 1, 2
    image = (200 * (labels > 0) + np.random.default_rng(0).integers(0, 40, labels.shape)).astype(np.uint16)[..., None]
    for path in map(Path, ("embryos/train", "embryos/test", "data/embryos/train", "data/embryos/test")):
        for part in ("images", "labels"):
            (path / part).mkdir(parents=True)
        for k in range(3):
            write_image(path / f"images/v{k}.tif", image, n_axes=3, spacing=(1.75, 0.8, 0.8))
            write_labels(path / f"labels/v{k}.tif", labels, spacing=(1.75, 0.8, 0.8))
    shutil.copytree("data/embryos/test/labels", "stardist")
    Path("data/embryos/test/images.csv").write_text("image,objects\nv0,2\nv1,2\nv2,17\n")
    write_image(Path("stack.tif"), image[:3], n_axes=3)
    Path("embryo_slices").mkdir()
    for z, plane in enumerate(image):
        write_image(Path(f"embryo_slices/z{z}.png"), plane)
    return image


def _more_layouts() -> None:
    """Data sets of cars and buses as the benchmarks have them, converted from COCO's form."""
    Path("coco").mkdir()
    boxes = {1: [4, 4, 10, 10], 2: [24, 4, 10, 10]}
    images, annotations = [], []
    for k in range(4):
        shutil.copy(f"mydata/images/i{k}.png", "coco")
        images.append({"id": k, "file_name": f"i{k}.png", "height": 40, "width": 48})
        for category, (x, y, w, h) in boxes.items():
            outline = [x, y, x + w, y, x + w, y + h, x, y + h]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": k, "category_id": category, "segmentation": [outline],
                 "area": w * h, "bbox": [x, y, w, h], "iscrowd": 0}
            )  # fmt: skip
    categories = [{"id": 1, "name": "car"}, {"id": 2, "name": "bus"}]
    document = {"images": images, "annotations": annotations, "categories": categories}
    Path("coco/annotations.json").write_text(json.dumps(document))
    shutil.copytree("coco", "train2017", ignore=shutil.ignore_patterns("*.json"))
    Path("annotations").mkdir()
    shutil.copy("coco/annotations.json", "annotations/instances_train2017.json")
    shutil.copytree("coco", "street/test")
    for layout, path in (("cityscapes", "cityscapes"), ("pascal-voc", "VOCdevkit/VOC2012")):
        assert main(["convert", "coco", path, "--to", layout]) == 0
    for kind in ("gtFine", "leftImg8bit"):
        shutil.copytree(f"cityscapes/{kind}/train", f"cityscapes/{kind}/val")


def test_nothing_is_excused_that_no_page_says():
    lines = [shlex.join(words) for page in PAGES for language, text in blocks(page) if language == SHELL
             for words in commands(text)]  # fmt: skip
    assert [start for start in ONLY_PARSED if not any(line.startswith(start) for line in lines)] == []
