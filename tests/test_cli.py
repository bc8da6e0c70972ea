"""The commands as a user types them."""

import csv
import dataclasses
import errno
import gc
import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data

import attractor
from attractor import cli
from attractor.cli import evaluate
from attractor.datasets import open_dataset
from attractor.datasets.coco import write_coco
from attractor.demo import FOLDER, PICTURES
from attractor.description import read_description
from attractor.images import read_image, read_labels, write_image, write_labels
from attractor.methods import METHODS
from attractor.model import Model
from attractor.prediction.image import choose_device
from attractor.weights import MODELS
from attractor.wording import install

RANDOM = np.random.default_rng(0)


def _parent(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def python(*arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False, **options)


# --- the package ------------------------------------------------------------------------------------------------------


def test_help_computes_nothing():
    code = """
import sys
from attractor.cli import main
code = main(["--help"])
heavy = {"torch", "numba", "skimage", "lightning", "numpy", "scipy", "pydantic"} & set(sys.modules)
sys.exit(f"code {code}, imported {heavy}" if code or heavy else 0)
"""
    done = python("-c", code)
    assert done.returncode == 0, done.stderr
    assert all(name in done.stdout for name in ("segment", "train", "evaluate", "check", "models", "demo"))


def test_the_module_is_the_command():
    done = python("-m", "attractor", "--version")
    assert (done.returncode, done.stdout) == (0, f"attractor {attractor.__version__}\n")


def test_the_package_gives_its_public_names():
    assert attractor.__all__ == ["InputError", "Instances", "Segmenter", "evaluate", "load", "metrics", "read", "train"]
    assert all(hasattr(attractor, name) for name in attractor.__all__)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = attractor.nothing


def test_a_model_is_loaded_and_used_in_two_lines(tiny_model):
    image = RANDOM.integers(0, 255, (30, 40), np.uint8)
    found = attractor.load(tiny_model, device="cpu").segment(image)
    assert isinstance(found, attractor.Instances)
    assert len(found) > 0
    assert found.labels.shape == (30, 40)


# --- segment ----------------------------------------------------------------------------------------------------------


def test_segment_says_how_many_and_where(attractor_command, annotated, tiny_model):
    answer = attractor_command("segment", annotated / "images", "--model", tiny_model, "--device", "cpu")
    assert answer.code == 0
    n = sum(read_labels(file).max() for file in Path("out").glob("*_labels.tif"))
    assert answer.out == f"Found {n:,} objects in 5 images; labels, overlays and tables are in out.\n"
    assert answer.error == ""
    assert len([file for file in Path("out").iterdir() if file.name != "run.json"]) == 15


def test_segment_agrees_with_python(attractor_command, annotated, tiny_model):
    image = annotated / "images/i0.png"
    options = ["--object-size", 14, "--tile", 24, "--tta", "--out", "there"]
    assert attractor_command("segment", image, "--model", tiny_model, *options).code == 0
    expected = attractor.load(tiny_model).segment(read_image(image), object_size=14.0, tile=24, tta=True)
    np.testing.assert_array_equal(read_labels("there/i0_labels.tif"), expected.labels)
    with Path("there/i0_objects.csv").open(newline="") as file:
        assert len(list(csv.DictReader(file))) == len(expected)


def test_ctrl_c_ends_without_a_traceback(attractor_command, annotated, tiny_model, monkeypatch):
    from attractor.prediction import folder

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(folder, "segment_files", interrupted)
    assert attractor_command("segment", annotated / "images", "--model", tiny_model).code == 130


def test_ctrl_c_in_a_training_is_told_apart_from_its_exit_code(monkeypatch):
    def interrupted(*arguments: object, **options: object) -> None:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt:
            sys.exit(1)

    monkeypatch.setattr(cli, "app", interrupted)
    assert cli.main([]) == 130


@pytest.fixture
def as_a_process(monkeypatch):
    """What the command line changes when it is the whole process is changed back; memory is left alone."""
    monkeypatch.setattr(cli, "keep_freed_memory", lambda: False)
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    threshold = gc.get_threshold()
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)
    gc.set_threshold(*threshold)
    gc.unfreeze()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_library_that_makes_an_error_of_its_own_of_a_signal(number, code, monkeypatch, as_a_process):
    def swallowing(*arguments: object, **options: object) -> None:
        try:
            signal.raise_signal(number)
        except BaseException:
            raise ValueError("could not determine the shape") from None

    monkeypatch.setattr(cli, "app", swallowing)
    assert cli.run() == code


def test_an_error_without_a_signal_is_shown_as_it_is(monkeypatch, as_a_process):
    def wrong(*arguments: object, **options: object) -> None:
        raise ValueError("could not determine the shape")

    monkeypatch.setattr(cli, "app", wrong)
    with pytest.raises(ValueError, match="could not determine"):
        cli.run()


# --- evaluate ---------------------------------------------------------------------------------------------------------


def test_several_scales_are_asked_for_beside_views(attractor_command, annotated, tiny_model):
    call = ("evaluate", tiny_model, annotated, "--device", "cpu")
    assert attractor_command(*call, "--tta", "--tta-scales", "0.5,1.25").code == 0
    assert json.loads(Path("evaluation.json").read_text())["call"]["tta_scales"] == [0.5, 1.25]
    image = annotated / "images/i0.png"
    segment = ("segment", image, "--model", tiny_model, "--device", "cpu", "--dtype", "float32")
    assert attractor_command(*segment, "--tta", "--tta-scales", "1.25").code == 0
    expected = attractor.load(tiny_model, device="cpu", dtype="float32", tta_scales=(1.25,))
    assert np.array_equal(read_labels("out/i0_labels.tif"), expected.segment(read_image(image), tta=True).labels)
    for command in (call, segment):
        refused = attractor_command(*command, "--tta-scales", "1.25")
        assert (refused.code, "adds to the views that --tta averages over; give --tta" in refused.error) == (2, True)
        refused = attractor_command(*command, "--tta", "--tta-scales", "1.1;2")
        assert (refused.code, "write numbers separated by commas, such as 1.1,1.25" in refused.error) == (2, True)


def test_whole_masks_are_written_and_scored_if_asked_for(attractor_command, annotated, tiny_model):
    for out, asked in (("cut", ()), ("whole", ("--whole-masks",))):
        image, formats = annotated / "images/i0.png", ("--format", "labels,coco", "--device", "cpu")
        assert attractor_command("segment", image, "--model", tiny_model, "--out", out, *formats, *asked).code == 0
        call = ("evaluate", tiny_model, annotated, "--metric", "coco", "--out", f"{out}.json", "--device", "cpu")
        assert attractor_command(*call, *asked).code == 0
    labels = read_labels("cut/i0_labels.tif")
    assert np.array_equal(labels, read_labels("whole/i0_labels.tif"))
    cut, whole = (json.loads(Path(f"{out}/i0_coco.json").read_text())["annotations"] for out in ("cut", "whole"))
    assert [one["score"] for one in cut] == [one["score"] for one in whole]
    assert sum(one["area"] for one in cut) == (labels > 0).sum() < sum(one["area"] for one in whole)
    scored = [json.loads(Path(f"{out}.json").read_text()) for out in ("cut", "whole")]
    assert [one["call"]["whole_masks"] for one in scored] == [False, True]
    assert scored[0]["summary"]["n_found"] == scored[1]["summary"]["n_found"] > 0
    refused = attractor_command("evaluate", "--found", "whole", "--truth", annotated, "--whole-masks")
    assert (refused.code, "takes no model, --tta or --whole-masks" in refused.error) == (2, True)


def test_a_model_and_the_files_it_wrote_score_alike(attractor_command, annotated, tiny_model):
    by = ["--by", "kind"]
    first = attractor_command("evaluate", tiny_model, annotated, "--out", "model.json", *by)
    assert (first.code, first.error) == (0, "")
    as_scored = ["--dtype", "float32"]  # which scores have on every machine alike
    assert attractor_command("segment", annotated / "images", "--model", tiny_model, *as_scored).code == 0
    second = attractor_command("evaluate", "--found", "out", "--truth", annotated, *by)
    assert second.code == 0
    assert first.out.replace("model.json", "evaluation.json") == second.out
    a, b = (json.loads(Path(name).read_text()) for name in ("model.json", "evaluation.json"))
    assert a.pop("call") == {
        "model": str(tiny_model), "dataset": "squares", "found": None,
        "metric": "average_precision", "by": "kind", "tta": False, "tta_scales": [], "whole_masks": False,
        "device": choose_device("auto").type, "engine": "torch", "dtype": "float32",
        "classes": None, "ignore_classes": False, "class_names": ["object"],
    }  # fmt: skip
    assert b.pop("call")["found"] == "out"
    assert a == b
    assert set(a["groups"]) == {"even", "odd"}
    assert a["summary"]["n_found"] > 0


def test_perfect_label_images_score_one_in_a_table_of_80_columns(attractor_command, annotated):
    answer = attractor_command("evaluate", "--found", annotated / "labels", "--truth", annotated, "--by", "kind")
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["kind", "images", "objects", "AP", ".50", "AP", ".75", "AP", ".90", "mean", "AP"] in words
    assert ["all", "5", "15", *["1.00"] * 4] in words
    assert ["even", "3", "9", *["1.00"] * 4] in words
    assert [".95", *["1.00"] * 6] in words
    assert ["1.00-1.00"] * 6 in words
    assert lines[-1] == "All numbers are in evaluation.json."


def test_a_long_name_of_a_group_does_not_widen_the_table(attractor_command, annotated):
    table = (annotated / "images.csv").read_text()
    (annotated / "images.csv").write_text(table.replace("even", '"even, ' + "x" * 60 + '"'))
    answer = attractor_command("evaluate", "--found", annotated / "labels", "--truth", annotated, "--by", "kind")
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "even, " + "x" * 10 + "…" in answer.out


def test_classes_are_left_out_where_label_images_cannot_know_them(attractor_command, in_folder, tiny_model):
    boxes = {1: [0, 0, 10, 10], 2: [20, 20, 10, 10]}
    annotations = [
        {"id": k, "image_id": 1, "category_id": k, "iscrowd": 0, "area": 100, "bbox": [x, y, w, h],
         "segmentation": [[x, y, x + w, y, x + w, y + h, x, y + h]]}
        for k, (x, y, w, h) in boxes.items()
    ]  # fmt: skip
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "height": 40, "width": 40}],
        "categories": [{"id": 1, "name": "door"}, {"id": 2, "name": "window"}],
        "annotations": annotations,
    }
    truth = _parent(in_folder / "street/annotations.json").parent
    (truth / "annotations.json").write_text(json.dumps(coco))
    write_image(truth / "a.png", np.zeros((40, 40, 1), np.uint8))
    labels = np.zeros((40, 40), np.int32)
    for k, (x, y, w, h) in boxes.items():
        labels[y : y + h, x : x + w] = 10 * k
    write_labels(_parent(in_folder / "found/a.tif"), labels)
    answer = attractor_command("evaluate", "--found", "found", "--truth", truth)
    assert answer.code == 0
    assert answer.error == "Note: label images hold no classes, so the classes of the data set are disregarded.\n"
    assert ["all", "1", "2", *["1.00"] * 4] in [line.split() for line in answer.out.splitlines()]
    assert json.loads(Path("evaluation.json").read_text())["call"]["class_names"] == ["any class"]
    answer = attractor_command("evaluate", tiny_model, truth)
    assert answer.code == 0
    assert answer.error.startswith("Note: the model's classes are object, those of the data set door, window; they are")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["squares"], "Give a model and a data set, or --found"),
        (["--found", "squares/labels"], "--found needs --truth"),
        (["m", "squares", "--found", "x", "--truth", "squares"], "--found needs --truth"),
        (["nothing", "squares"], "nothing: there is no such model"),
        (["--found", "squares/labels", "--truth", "nowhere"], "nowhere: there is no such data set"),
        (["--found", "nowhere", "--truth", "squares"], "nowhere: no such file or folder"),
        (["--found", "squares/labels", "--truth", "squares", "--by", "colour"], "no column 'colour' .* columns: kind"),
        (["--found", "squares/labels", "--truth", "squares", "--metric", "ap"], 'no metric "ap"; .* average_precision'),
        (["nothing", "nowhere", "--metric", "ap"], 'no metric "ap"; .* average_precision'),
        (
            ["--found", "squares/labels", "--truth", "squares", "--metric", "average_recall"],
            "average_recall ranks a model's proposals, which label images do not hold; give a model",
        ),
        (["m", "squares", "--max-objects", "3"], "give their size, too, as in --crop 128"),
        (["m", "squares", "--crop", "0"], "size of crops is 0"),
        (["m", "squares", "--classes", "car"], "has no class 'car'; its classes: object"),
        (
            ["m", "squares", "--classes", "object", "--ignore-classes"],
            "--ignore-classes disregards them; give one or the",
        ),
        (["m", "squares", "--results", "found.json"], "results files are known for coco, cityscapes, dsb2018, not for"),
        (["--found", "x", "--truth", "squares", "--results", "y"], "leave out --crop and --found"),
        (
            ["--found", "squares/labels", "--truth", "squares", "--out", "a/b.json"],
            r"a/b\.json: there is no such folder",
        ),
    ],
)
def test_a_wrong_evaluation_is_answered_in_one_line(attractor_command, annotated, arguments, message):
    answer = attractor_command("evaluate", *arguments)
    assert answer.code == 2
    assert answer.error.count("\n") == 1
    assert re.search(message, answer.error)


@pytest.fixture
def doors(annotated):
    """The squares in COCO's form, of two classes."""
    squares = open_dataset(annotated)
    samples = (dataclasses.replace(squares[k], classes=np.array([1, 2, 2], np.int32)) for k in range(len(squares)))
    write_coco("doors", samples, ["door", "window"])
    return Path("doors")


def test_results_made_for_coco_score_there_as_here(attractor_command, doors, tiny_model):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    answer = attractor_command("evaluate", tiny_model, doors, "--ignore-classes", "--metric", "coco")
    assert answer.code == 0
    answer = attractor_command("evaluate", tiny_model, doors, "--metric", "coco", "--results", "found.json")
    assert answer.code == 0, answer.error
    assert "What was found is in found.json." in answer.out
    assert ["all", "5"] in [line.split()[:2] for line in answer.out.splitlines()]
    summary = json.loads(Path("evaluation.json").read_text())["summary"]
    truth = COCO("doors/annotations.json")
    official = COCOeval(truth, truth.loadRes("found.json"), "segm")
    official.evaluate()
    official.accumulate()
    official.summarize()
    rows = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
    ours = [-1 if summary[row]["value"] is None else summary[row]["value"] for row in rows]
    assert ours == pytest.approx(official.stats.tolist(), abs=1e-12)
    answer = attractor_command("evaluate", "--found", "found.json", "--truth", doors, "--metric", "coco")
    assert answer.code == 0, answer.error
    assert json.loads(Path("evaluation.json").read_text())["summary"] == summary


def test_results_and_numbers_are_two_files(attractor_command, doors, tiny_model):
    answer = attractor_command("evaluate", tiny_model, doors, "--metric", "coco", "--results", "evaluation.json")
    assert (answer.code, answer.error) == (
        2,
        "evaluation.json: the numbers go to a file of this name, too; give --results or --out another name.\n",
    )


def test_a_model_of_other_classes_is_told_apart_by_name(attractor_command, doors, tiny_model):
    answer = attractor_command("evaluate", tiny_model, doors, "--classes", "window", "--metric", "panoptic")
    assert (answer.code, answer.error) == (0, "")  # one class each
    answer = attractor_command("evaluate", tiny_model, doors, "--metric", "aji")
    assert answer.error == "Note: aji has no classes, so they are disregarded.\n"


@pytest.mark.parametrize(
    ("own", "true", "note"),
    [
        (["a"], ["b"], ""),
        (["a", "b"], ["a", "b"], ""),
        (["a", "b"], ["object"], "objects of all the model's classes are scored as one."),
        (["a", "b"], ["b", "c"], "the model cannot find c; what it finds of a is left out."),
        (["a", "b"], ["b"], "what it finds of a is left out."),
    ],
)
def test_what_is_said_of_classes(own, true, note):
    assert evaluate._note_on_classes(own, true, True, "coco") == note


# --- convert ----------------------------------------------------------------------------------------------------------


def test_convert_says_what_is_lost(attractor_command, doors):
    answer = attractor_command("convert", doors, "labels", "--to", "label-images")
    assert (answer.code, answer.error) == (0, "")
    assert "5 images written to labels as label-images." in answer.out
    assert "Not kept: 2 classes became one: door, window." in answer.out
    answer = attractor_command("convert", doors, "windows", "--to", "geojson", "--classes", "window")
    assert answer.code == 0, answer.error
    assert open_dataset("windows").class_names == ("window",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["squares", "out", "--to", "yolo"], 'no layout "yolo" to write; there are: label-images'),
        (["squares", "squares", "--to", "coco"], "squares: is there already; give a folder that is new or empty"),
        (["nowhere", "out", "--to", "coco"], "nowhere: there is no such data set"),
        (["squares", "out", "--to", "cityscapes"], "object"),
        (["squares", "out", "--to", "coco", "--classes", "car"], "has no class 'car'"),
    ],
)
def test_a_wrong_conversion_is_answered_in_one_line(attractor_command, annotated, arguments, message):
    answer = attractor_command("convert", *arguments)
    assert answer.code == 2
    assert answer.error.count("\n") == 1
    assert re.search(message, answer.error)
    assert not Path("out").exists()


def test_leaves_have_a_table_of_their_own(attractor_command, annotated):
    folders = ["--found", annotated / "labels", "--truth", annotated]
    answer = attractor_command("evaluate", *folders, "--metric", "cvppp", "--by", "kind")
    assert answer.code == 0
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["kind", "images", "SBD", "DiC", "|DiC|", "foreground", "Dice"] in words
    assert ["all", "5", "1.00", "0.00", "0.00", "1.00"] in words
    assert ["odd", "2", "1.00", "0.00", "0.00", "1.00"] in words
    assert ["1.00-1.00", "0.00", "to", "0.00", "0.00", "to", "0.00", "1.00-1.00"] in words
    scores = json.loads(Path("evaluation.json").read_text())
    assert scores["call"]["metric"] == "cvppp"
    assert scores["summary"]["symmetric_best_dice"] == {"value": 1.0, "low": 1.0, "high": 1.0}
    assert set(scores["groups"]) == {"even", "odd"}


def test_recall_needs_a_method_with_proposals(attractor_command, annotated, tiny_model, monkeypatch):
    call = ["evaluate", tiny_model, annotated, "--metric", "average_recall", "--by", "kind"]
    answer = attractor_command(*call)
    assert (answer.code, answer.error.count("\n")) == (2, 1)
    assert answer.error.startswith("spatial-embeddings offers no proposals; take ")
    method = type(Model.load(tiny_model).method)
    monkeypatch.setattr(method, "propose", lambda self, maps, n: self.group(maps), raising=False)
    write_labels(annotated / "labels/i4.png", np.zeros((40, 48), np.int32))
    answer = attractor_command(*call)
    assert answer.code == 0, answer.error
    lines = answer.out.splitlines()
    assert max(map(len, lines)) <= 80
    words = [line.split() for line in lines]
    assert ["kind", "images", "objects", "AR(1)", "AR(10)", "AR(60)", "AR(100)"] in words
    assert ["all", "4", "12"] in [line[:3] for line in words]
    assert "Left out 1 image without a true object." in lines
    scores = json.loads(Path("evaluation.json").read_text())
    assert scores["summary"]["limits"] == [1, 10, 60, 100]
    assert len(scores["images"]) == 4


def test_crops_are_scored_instead_of_images(attractor_command, annotated, tiny_model):
    cut = ["--crop", 18, "--max-objects", 1, "--by", "kind"]
    answer = attractor_command("evaluate", tiny_model, annotated, *cut)
    assert answer.code == 0, answer.error
    first, *rest = answer.out.splitlines()
    assert first == "19 crops of 18 x 18 pixels; 1 without an object left out."  # of i4's lower left
    assert ["all", "19", "19"] in [line.split()[:3] for line in rest]
    scores = json.loads(Path("evaluation.json").read_text())
    assert (scores["call"]["crop"], scores["call"]["max_objects"]) == (18, 1)
    assert set(scores["groups"]) == {"even", "odd"}
    assert scores["images"][0]["name"] == "i0_r0_c0"


def test_images_without_a_found_file_are_named(attractor_command, annotated):
    write_labels(_parent(Path("found/i0.png")), read_labels(annotated / "labels/i0.png"))
    answer = attractor_command("evaluate", "--found", "found", "--truth", annotated)
    assert answer.code == 2
    assert "found: 4 of 5 images have no label image: i1, i2, i3 and 1 more." in answer.error
    assert "_labels.tif, .tif, .tiff, .png" in answer.error


# --- train, check, models, demo ---------------------------------------------------------------------------------------

QUICK = [
    "training.epochs=1",
    "training.crops_per_epoch=20",
    "training.batch_size=2",
    "training.crop_size=32",
    "training.workers=0",
]


def test_training_on_a_data_set_gives_a_model_to_use(attractor_command, annotated):
    changes = [part for change in [*QUICK, "model.channels=1"] for part in ("--set", change)]
    answer = attractor_command("train", annotated, "--device", "cpu", *changes)
    assert answer.code == 0, answer.error
    *_, where, use = answer.out.splitlines()
    assert where.startswith("The model is runs/squares/model.safetensors. On the validation images its mean AP is ")
    assert use == "Use it: attractor segment IMAGE --model runs/squares"
    assert read_description("runs/squares/model.safetensors").class_names == ("object",)
    assert attractor_command("segment", annotated / "images/i0.png", "--model", "runs/squares").code == 0
    again = attractor_command("train", annotated, "--device", "cpu", *changes)
    assert (again.code, "add --resume to continue it" in again.error) == (2, True)


def test_training_begins_with_the_weights_of_a_model(attractor_command, annotated, tiny_model, monkeypatch):
    import attractor.runs

    given = {}

    def run(recipe: object, out: Path, **options: object) -> Model:
        given.update(options, recipe=recipe)
        model = Model.load(tiny_model)
        model.description = model.described(scores={"validation": {"mean": 0.5}})
        return model

    monkeypatch.setattr(attractor.runs, "run", run)
    Path("r.toml").write_text(f'[data]\ntrain = "{annotated}"\n[model]\nchannels = 1\n')
    answer = attractor_command(
        "train", "r.toml", "--from", tiny_model, "--out", "o p", "--resume", "--set", "training.epochs=3"
    )
    assert answer.code == 0, answer.error
    assert answer.out == (
        "The model is o p/model.safetensors. On the validation images its mean AP is 0.500.\n"
        "Use it: attractor segment IMAGE --model 'o p'\n"
    )
    assert given["recipe"].model.start == str(tiny_model)
    assert given["resume"] is True
    assert given["recipe"].training.epochs == 3


def test_training_without_its_packages_says_what_to_install(attractor_command, annotated, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "lightning" else find(name))
    answer = attractor_command("train", annotated)
    assert answer.code == 2
    assert answer.error == f"Training needs lightning, not installed here. {install('train')}\n"


def test_check_reports_and_its_code_tells_errors(attractor_command, annotated):
    good = attractor_command("check", annotated)
    assert good.code == 0
    assert "This data set can be used." in good.out
    (annotated / "labels/i2.png").write_bytes((annotated / "labels/i2.png").read_bytes()[:40])
    bad = attractor_command("check", annotated)
    assert bad.code == 1
    assert "i2.png: is damaged or cut short" in bad.out
    none = attractor_command("check", "nowhere")
    assert (none.code, none.error.startswith("nowhere: there is no such data set")) == (2, True)


def test_check_says_what_a_model_cannot_hold(attractor_command, annotated, tiny_model, monkeypatch):
    plain = attractor_command("check", annotated)
    assert attractor_command("check", annotated, "--model", tiny_model).out == plain.out
    Path("r.toml").write_text('[data]\ntrain = "nowhere"\n[model]\nmethod = "short"\nnetwork = "erfnet"\n')

    class Short(type(Model.load(tiny_model).method)):
        max_instances = 2

    monkeypatch.setitem(METHODS, "spatial-embeddings", Short)
    monkeypatch.setitem(METHODS, "short", Short)
    labels = read_labels(annotated / "labels/i1.png")
    labels[0, 0] = 4
    write_labels(annotated / "labels/i1.png", labels)
    for model in (tiny_model, "r.toml"):
        answer = attractor_command("check", annotated, "--model", model)
        assert answer.code == 0, answer.error
        assert (
            "5 images with more than the 2 objects that the model can find, up to 4: i1 (4), i0 (3), i2 (3), i3 (3), "
            "i4 (3); such images lose their smallest objects in training, and at most 2 are found." in answer.out
        )
        assert "2 warnings." in answer.out  # the other is the object of one pixel


def test_check_names_the_classes_that_a_model_lacks(attractor_command, annotated, tiny_model):
    Path("r.toml").write_text('[data]\ntrain = "nowhere"\n[model]\nclasses = ["square", "disc"]\n')
    answer = attractor_command("check", annotated, "--model", "r.toml")
    assert answer.code == 1
    assert "The model lacks 1 class of the data: object (15 objects); it has square, disc." in answer.out
    assert "1 error, 0 warnings." in answer.out
    Path("r.toml").write_text('[data]\ntrain = "nowhere"\n[model]\nclasses = ["square"]\n')
    assert attractor_command("check", annotated, "--model", "r.toml").code == 0  # the only class, whatever its name


@pytest.mark.parametrize(
    ("model", "message"),
    [("nothing", "nothing: there is no such model"), ("nothing.toml", "nothing.toml: the recipe cannot be read")],
)
def test_check_with_a_model_that_is_not_there(attractor_command, annotated, model, message):
    answer = attractor_command("check", annotated, "--model", model)
    assert (answer.code, answer.out) == (2, "")
    assert answer.error.startswith(message)


def test_models_lists_what_comes_with_the_package(attractor_command, tiny_model, tmp_path, monkeypatch):
    for name in list(MODELS):
        monkeypatch.delitem(MODELS, name)
    answer = attractor_command("models")
    assert (answer.code, "This installation comes without models" in answer.out) == (0, True)
    test = {
        "metric": "average_precision",
        "with": ["tta"],
        "images": 9,
        "AP .50": [0.8, 0.75, 0.84],
        "AP .90": [0.312, 0.3, 0.33],
    }
    scores = {"test": test, "validation": {"mean": 0.5}}
    about = "Discs of everything (drawn), CC0 (CC0)."
    Model.load(tiny_model).save(tmp_path / "discs.safetensors", about=about, scores=scores)
    monkeypatch.setitem(MODELS, "discs", tmp_path / "discs.safetensors")
    answer = attractor_command("models")
    assert answer.code == 0
    megabytes = f"{(tmp_path / 'discs.safetensors').stat().st_size / 1e6:.1f}"
    row = ["discs", "object", "10", "px", "CC0", "AP", ".50", ".800", "(.750-.840)"]
    lines = [line.split() for line in answer.out.splitlines()]
    assert row in lines
    assert ["AP", ".90", ".312", "(.300-.330)"] in lines
    assert ["(tta)"] in lines
    assert f"\ndiscs: spatial-embeddings, {megabytes} MB. {about}\n" in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80


def test_the_models_that_come_with_the_package_are_listed_with_their_scores(attractor_command):
    answer = attractor_command("models")
    assert (answer.code, answer.error) == (0, "")
    rows = {line.split()[0] for line in answer.out.splitlines() if "AP" in line}
    assert rows >= {"nuclei", "nuclei-discriminative", "fibroblasts", "street", "worms"}
    assert max(map(len, answer.out.splitlines())) <= 80


def test_a_threshold_is_changed_by_name(attractor_command, tiny_model, in_folder):
    write_image("a.png", np.random.default_rng(0).integers(0, 255, (32, 32, 1)).astype(np.uint8))
    call = ["segment", "a.png", "--model", tiny_model, "--device", "cpu", "--threshold"]
    none = attractor_command(*call, "seed_threshold=1.0")
    assert (none.code, none.out[:15]) == (0, "Found 0 objects")
    wrong = attractor_command(*call, "seed=0.5")
    assert (wrong.code, wrong.error) == (
        2, "The model has no threshold seed; its thresholds are foreground_threshold, seed_threshold, min_size.\n"
    )  # fmt: skip
    text = attractor_command(*call, "seed_threshold=low")
    assert text.error == "--threshold seed_threshold=low: write it as name=number, such as seed_threshold=0.6.\n"


def test_the_demo_needs_no_network(attractor_command, in_folder, tiny_model, monkeypatch):
    def fetch(*arguments: object, **options: object) -> None:
        pytest.fail("the demo asked scikit-image to fetch a file")

    monkeypatch.setattr(skimage.data, "immunohistochemistry", fetch)
    monkeypatch.setattr(skimage.data._fetchers, "_fetch", fetch)
    monkeypatch.setattr("attractor.prediction.image.VIEWS", attractor.prediction.image.VIEWS[:1])  # to be quick
    monkeypatch.setitem(MODELS, "nuclei", tiny_model)
    answer = attractor_command("demo", "--device", "cpu")
    assert answer.code == 0, answer.error
    for name in (*PICTURES, "immunohistochemistry"):
        n = read_labels(f"demo/{name}_labels.tif").max()
        assert f"Found {n:,} nuclei in demo/{name}.png" in answer.out
        for ending in (".png", "_labels.tif", "_overlay.png", "_objects.csv"):
            assert os.path.getsize(f"demo/{name}{ending}") > 0
    assert "the model has never seen a brown stain" in answer.out
    assert "attractor train mine --from nuclei" in answer.out


def test_the_pictures_of_the_demo_score_as_the_median_of_their_kind(attractor_command, in_folder):
    answer = attractor_command("evaluate", "nuclei", FOLDER, "--device", "cpu")
    assert answer.code == 0, answer.error
    images = json.loads(Path("evaluation.json").read_text())["images"]
    scores = {image["name"]: image["tp"][0] / (image["tp"][0] + image["fp"][0] + image["fn"][0]) for image in images}
    # the medians of all such test images are .875 and .732
    assert scores == pytest.approx({"fluorescence": 0.874, "stained": 0.768}, abs=0.02)


def test_a_path_is_printed_as_it_is(attractor_command, tmp_path):
    answer = attractor_command("segment", tmp_path / ":sunny:.png")
    assert answer.error == f"{tmp_path / ':sunny:.png'}: no such file; check the name and the folder you are in.\n"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "MemoryError); close other programs, or give smaller images."),
        (OSError(errno.EMFILE, "Too many open files"), "raise the limit on open files (ulimit -n)."),
        (OSError(errno.ENOSPC, "No space left on device"), "make room on the disk."),
    ],
    ids=["memory", "descriptors", "disk"],
)
def test_a_machine_with_too_little_is_named_in_one_line(attractor_command, monkeypatch, error, words):
    def fails(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("attractor.datasets.converting.convert", fails)
    monkeypatch.setattr("attractor.cli.data.annotated_images", lambda *_, **__: [])
    answer = attractor_command("convert", "data", "out", "--to", "coco")
    assert (answer.code, answer.error.count("\n")) == (2, 1)
    assert answer.error.startswith("The machine cannot do this (")
    assert answer.error.endswith(words + "\n")
    monkeypatch.setattr("attractor.datasets.converting.convert", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        attractor_command("convert", "data", "out", "--to", "coco")
