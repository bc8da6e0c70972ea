"""A call of `attractor segment` says what it did, gives the same files each time, and can be repeated."""

import hashlib
import json
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import attractor
from attractor.errors import InputError
from attractor.model import Description, Model
from attractor.prediction import folder
from attractor.prediction.outputs import OUTPUTS
from attractor.prediction.run import read_run

RANDOM = np.random.default_rng(0)


def pictures(at: Path, names: str = "ab") -> Path:
    at.mkdir(exist_ok=True)
    for name in names:
        Image.fromarray(RANDOM.integers(0, 255, (40, 50), np.uint8)).save(at / f"{name}.png")
    return at


def contents(out: Path) -> dict[str, bytes]:
    """Every file by its path within the folder, but for the record."""
    files = (file for file in out.rglob("*") if file.is_file())
    return {str(file.relative_to(out)): file.read_bytes() for file in files if file.name != "run.json"}


def record(out: Path) -> dict:
    return json.loads((out / "run.json").read_text(encoding="utf-8"))


@pytest.fixture
def segment(attractor_command, tiny_model):
    return lambda *arguments: attractor_command("segment", "--device", "cpu", "--model", tiny_model, *arguments)


@pytest.fixture(scope="session")
def car_model(tmp_path_factory):
    """An untrained model whose objects have classes that every output can hold."""
    torch.manual_seed(0)
    names = ("person", "car")
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=1, class_names=names))
    for head in model.method.network.heads:
        torch.nn.init.normal_(head.weight, std=0.3)
    model.method.thresholds.update(foreground_threshold=0.3, seed_threshold=0.3)
    path = tmp_path_factory.mktemp("models") / "cars.safetensors"
    model.save(path)
    return path


# --- what it says -----------------------------------------------------------------------------------------------------


def test_a_call_says_what_it_did(segment, tiny_model, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    options = ("--tile", 16, "--object-size", 12, "--threshold", "seed_threshold=0.6", "--format", "csv,labels")
    assert segment(images, "--out", out, "--pixel-size", "0.5x0.25", *options).code == 0
    said = record(out)
    assert said["versions"]["attractor"] == attractor.__version__
    assert said["versions"]["torch"] == torch.__version__
    assert set(said["versions"]) == {"attractor", "torch", "numpy", "python"}
    checksum = hashlib.sha256(tiny_model.read_bytes()).hexdigest()
    assert said["model"] == {"name": str(tiny_model), "file": str(tiny_model), "sha256": checksum}
    assert said["options"] == {
        "images": [str(images)],
        "model": str(tiny_model),
        "out": str(out),
        "device": "cpu",
        "engine": "torch",
        "dtype": "auto",
        "object_size": 12,
        "tile": 16,
        "tta": False,
        "tta_scales": [],
        "whole_masks": False,
        "thresholds": {"seed_threshold": 0.6},
        "formats": ["csv", "labels"],
        "pixel_size": [0.5, 0.25],
        "axes": "",
        "slices": False,
    }
    computed = said["computed"]
    assert (computed["device"], computed["engine"]) == ("cpu", "torch")
    assert computed["dtype"] == attractor.load(tiny_model, device="cpu").dtype
    assert computed["thresholds"]["seed_threshold"] == 0.6
    assert set(computed["thresholds"]) == set(Model.load(tiny_model).method.thresholds)
    assert computed["device_name"]
    assert said["is_complete"] is True
    assert said["seconds"] > 0
    for name, image in zip("ab", said["images"], strict=True):
        assert image.pop("seconds") > 0
        assert image.pop("objects") == len((out / f"{name}_objects.csv").read_text().splitlines()) - 1
        assert image == {
            "image": str(images / f"{name}.png"),
            "depth": None,
            "height": 40,
            "width": 50,
            "tile": 16,
            "problem": None,
        }


def test_an_image_that_fails_is_recorded_with_its_reason(segment, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    (images / "b.png").write_bytes(b"nothing of the kind")
    assert segment(images, "--out", out).code == 1
    said = record(out)
    assert said["is_complete"] is True
    assert [image["problem"] is None for image in said["images"]] == [True, False]
    assert "is not an image" in said["images"][1]["problem"]
    assert said["images"][1]["seconds"] is said["images"][1]["height"] is None


def test_a_call_that_is_stopped_says_how_far_it_came(segment, tmp_path, monkeypatch):
    outcomes = folder._outcomes

    def stopped(*arguments):
        for n, outcome in enumerate(outcomes(*arguments)):
            if n == 1:
                raise KeyboardInterrupt
            yield outcome

    monkeypatch.setattr(folder, "_outcomes", stopped)
    images, out = pictures(tmp_path / "images", "abc"), tmp_path / "out"
    assert segment(images, "--out", out).code == 130
    said = record(out)
    assert said["is_complete"] is False
    assert [Path(image["image"]).name for image in said["images"]] == ["a.png"]


def test_a_run_that_is_killed_leaves_no_older_record(segment, tmp_path, monkeypatch):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    assert segment(images, "--out", out).code == 0
    seen = []
    write = folder.write_files

    def noting(*arguments):
        seen.append(record(out))
        write(*arguments)

    monkeypatch.setattr(folder, "write_files", noting)
    assert segment(images, "--out", out, "--format", "csv").code == 0
    assert [said["is_complete"] for said in seen] == [False, False]
    assert seen[0]["options"]["formats"] == ["csv"]


def test_a_call_that_is_refused_leaves_no_record(segment, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    assert segment(images, "--out", out, "--tile", 7).code == 2
    assert not out.exists()


# --- the same bytes ---------------------------------------------------------------------------------------------------


def test_two_runs_give_the_same_bytes(attractor_command, car_model, tmp_path, monkeypatch):
    images = pictures(tmp_path / "images", "abc")
    call = ("segment", images, "--device", "cpu", "--model", car_model, "--format", ",".join(OUTPUTS))
    assert attractor_command(*call, "--out", tmp_path / "first").code == 0
    later = time.time() + 400 * 86400
    monkeypatch.setattr(time, "time", lambda: later)
    monkeypatch.setattr(time, "localtime", lambda seconds=None: time.gmtime(later if seconds is None else seconds))
    assert attractor_command(*call, "--out", tmp_path / "second").code == 0
    first, second = contents(tmp_path / "first"), contents(tmp_path / "second")
    assert {Path(name).suffix for name in first} >= {
        ".tif", ".png", ".csv", ".parquet", ".json", ".geojson", ".zip", ".txt",
    }  # fmt: skip
    assert record(tmp_path / "first")["images"][0]["objects"] > 3
    assert first == second


# --- again ------------------------------------------------------------------------------------------------------------


def test_a_call_is_done_again(segment, attractor_command, tmp_path, monkeypatch):
    pictures(tmp_path / "images")
    options = ("--tta", "--tile", 16, "--threshold", "seed_threshold=0.55", "--format", "labels,coco")
    monkeypatch.chdir(tmp_path)
    assert segment("images", "--out", "first", *options).code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    answer = attractor_command("segment", "--like", tmp_path / "first/run.json", "--out", "second")
    assert (answer.code, answer.error) == (0, "")
    assert contents(tmp_path / "elsewhere/second") == contents(tmp_path / "first")
    former, again = record(tmp_path / "first"), record(tmp_path / "elsewhere/second")
    assert again["computed"] == former["computed"]
    assert again["options"]["tile"] == 16


def test_results_lie_where_they_lay_if_nothing_else_is_said(segment, attractor_command, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    assert segment(images, "--out", out).code == 0
    before = contents(out)
    (out / "a_labels.tif").unlink()
    assert attractor_command("segment", "--like", out / "run.json").code == 0
    assert contents(out) == before


def test_images_and_options_beside_it_count_in_place_of_its_own(segment, attractor_command, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    given = ("--threshold", "seed_threshold=0.55", "--threshold", "min_size=3")
    assert segment(images, "--out", out, "--format", "csv", "--tile", 16, *given).code == 0
    other = pictures(tmp_path / "other", "c")
    changed = ("--out", tmp_path / "new", "--tile", 32, "--threshold", "seed_threshold=0.7", "--dtype", "float32")
    assert attractor_command("segment", "--like", out / "run.json", other, *changed).code == 0
    said = record(tmp_path / "new")
    assert [Path(image["image"]).name for image in said["images"]] == ["c.png"]
    assert (said["options"]["tile"], said["options"]["formats"]) == (32, ["csv"])
    assert said["computed"]["dtype"] == "float32"
    assert said["computed"]["thresholds"]["seed_threshold"] == 0.7
    assert said["computed"]["thresholds"]["min_size"] == 3


def test_another_model_is_refused(segment, attractor_command, tiny_model, car_model, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    assert segment(images, "--out", out).code == 0
    answer = attractor_command("segment", "--like", out / "run.json", "--model", car_model)
    assert (answer.code, answer.error.count("\n")) == (2, 1)
    assert f"{car_model}: is not the model of the run (SHA-256 " in answer.error
    assert "give the run's model with --model, or leave --like out." in answer.error
    shutil.copy(tiny_model, tmp_path / "moved.safetensors")
    assert attractor_command("segment", "--like", out / "run.json", "--model", tmp_path / "moved.safetensors").code == 0


def test_a_model_that_is_gone_is_named(segment, attractor_command, tiny_model, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    model = shutil.copy(tiny_model, tmp_path / "gone.safetensors")
    assert segment(images, "--out", out, "--model", model).code == 0
    model.unlink()
    answer = attractor_command("segment", "--like", out / "run.json")
    assert answer.code == 2
    assert f"{model}: there is no such model" in answer.error


def test_another_version_is_refused(segment, attractor_command, tmp_path):
    images, out = pictures(tmp_path / "images"), tmp_path / "out"
    assert segment(images, "--out", out).code == 0
    said = record(out)
    said["versions"]["attractor"] = "0.0.9"
    said["something new"] = 1
    (out / "run.json").write_text(json.dumps(said))
    answer = attractor_command("segment", "--like", out / "run.json")
    assert (answer.code, answer.error.count("\n")) == (2, 1)
    assert "run.json: was written by attractor 0.0.9, and this is" in answer.error
    assert "install attractor 0.0.9, or give the images and options without --like." in answer.error


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is not the record of a call of `attractor segment` \\(invalid json"),
        (b"\xff\xfe", "is not the record of a call"),
        (b"[" * 100_000, "is not the record of a call"),
        (b"[]", "is not the record of a call of `attractor segment` \\("),
        (b'{"versions": 7}', "is not the record of a call of `attractor segment` \\(versions: "),
        (json.dumps({"versions": {"attractor": attractor.__version__}}).encode(), "field required; give a run.json"),
    ],
)
def test_a_file_that_is_no_record_is_refused(tmp_path, content, message):
    (tmp_path / "run.json").write_bytes(content)
    with pytest.raises(InputError, match=f"run.json: .*{message}"):
        read_run(tmp_path / "run.json")


def test_a_record_that_is_not_there_is_named(attractor_command, tmp_path):
    answer = attractor_command("segment", "--like", tmp_path / "none.json")
    assert answer.code == 2
    assert "none.json: cannot be read: No such file or directory; give the run.json beside the results" in answer.error


def test_a_call_without_images_says_what_to_give(segment):
    answer = segment()
    assert answer.code == 2
    assert "No image is given; give files or folders of images, or --like run.json to repeat a call." in answer.error
