"""What a user can get wrong: one sentence that names file and cure, the exit code, and nothing half-written."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import safetensors.torch
import tifffile
import torch
from PIL import Image

from attractor.datasets import open_dataset
from attractor.description import FORMAT, Description
from attractor.images import read_labels, write_image, write_labels
from attractor.model import Model

RANDOM = np.random.default_rng(0)
PIXELS = RANDOM.integers(0, 255, (24, 32), np.uint8)
COLOURS = RANDOM.integers(0, 255, (24, 32, 3), np.uint8)


def as_png(path: Path, pixels: np.ndarray = PIXELS) -> None:
    Image.fromarray(pixels).save(path, "PNG")


def cut(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])


def truncated_png(path: Path) -> None:
    as_png(path)
    cut(path)


def truncated_tiff(path: Path) -> None:
    tifffile.imwrite(path, PIXELS)
    cut(path)


def broken_float(value: float) -> Callable[[Path], None]:
    pixels = PIXELS.astype(np.float32)
    pixels[3, 5] = value
    return lambda path: tifffile.imwrite(path, pixels)


@pytest.fixture
def segment(attractor_command, tiny_model, tmp_path, monkeypatch):
    """Run `attractor segment` in an empty folder with the tiny model, on the CPU."""
    monkeypatch.chdir(tmp_path)
    return lambda *arguments: attractor_command("segment", "--device", "cpu", "--model", tiny_model, *arguments)


def results(folder: Path | str = "out") -> list[str]:
    """Every file in the folder, hidden ones too, but for the record of the call."""
    return sorted(file.name for file in Path(folder).iterdir() if file.name != "run.json")


# --- images that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "make", "reason", "cure"),
    [
        ("notes.txt", lambda path: path.write_text("some notes"), "is not an image", "give PNG, TIFF"),
        ("text.png", lambda path: path.write_text("some notes"), "is not an image", "give PNG, TIFF"),
        ("empty.png", Path.touch, "the file is empty", "copy or export it again"),
        ("half.png", truncated_png, "is damaged or cut short", "copy or export it again"),
        ("half.tif", truncated_tiff, "is damaged or cut short", "copy or export it again"),
        (
            "five.tif",
            lambda path: tifffile.imwrite(path, np.zeros((24, 32, 5), np.uint8), planarconfig="contig"),
            "has 5 channels, the model takes 1",
            "select the channels yourself",
        ),
        ("nan.tif", broken_float(np.nan), "1 values are NaN or infinite", "replace them"),
        ("infinite.tif", broken_float(np.inf), "1 values are NaN or infinite", "replace them"),
        ("stack.tif", lambda path: tifffile.imwrite(path, np.zeros((9, 24, 32), np.uint8)), "is a stack", "one plane"),
    ],
)
def test_an_image_that_cannot_be_used_is_named_and_the_others_are_done(segment, name, make, reason, cure):
    as_png(Path("before.png"))
    make(Path(name))
    as_png(Path("past.png"))
    answer = segment("before.png", name, "past.png")
    assert answer.code == 1
    sentence, count = answer.error.splitlines()
    assert sentence.startswith(name)
    assert reason in sentence
    assert cure in sentence
    assert count == "1 of 3 images could not be segmented."
    ends = ("_labels.tif", "_objects.csv", "_overlay.png")
    assert results() == [f"{stem}{end}" for stem in ("before", "past") for end in ends]
    assert "in 2 images" in answer.out


def test_a_folder_without_images_is_named_and_the_others_are_done(segment):
    as_png(Path("cells.png"))
    Path("folder.png").mkdir()
    answer = segment("folder.png", "cells.png")
    assert answer.code == 1
    sentence, count = answer.error.splitlines()
    assert sentence.startswith("folder.png: holds no image; files must end in one of")
    assert count == "1 of 2 images could not be segmented."
    assert len(results()) == 3


def test_a_full_disk_costs_the_image_it_hits(segment, monkeypatch):
    for name in "abc":
        as_png(Path(f"{name}.png"))
    write, calls = Path.write_bytes, iter(range(9))

    def write_until_full(path: Path, content: bytes) -> int:
        if next(calls) == 4:  # the second file of the second image
            write(path, content[:10])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    answer = segment("a.png", "b.png", "c.png")
    assert answer.code == 1
    assert answer.error == (
        "out/b_overlay.png: cannot be written: No space left on device; make room on the disk, or write to "
        "another folder.\n"
        "1 of 3 images could not be segmented.\n"
    )
    assert {name[0] for name in results()} == {"a", "c"}
    assert len(results()) == 6


# --- calls that are wrong ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["none.png"], "none.png: no such file; check the name and the folder you are in."),
        (["a.png", "none.png"], "none.png: no such file; check the name and the folder you are in."),
        (["empty"], "empty: holds no image; files must end in one of .png"),
        (
            ["a.png", "b/a.png"],
            "a.png and b/a.png share the stem 'a', so one's results would overwrite the other's; rename",
        ),
        (
            ["a.png", "--out", "a.png"],
            "a.png: cannot be used as output folder: a file has this name; choose another one.",
        ),
        (
            ["a.png", "--out", "a.png/x"],
            "a.png/x: cannot be used as output folder: Not a directory; choose another one.",
        ),
        (["a.png", "--model", "nuclie"], "nuclie: there is no such model. Give the file of a model"),
        (["a.png", "--device", "gpu"], 'There is no device "gpu"; it can be auto, cpu, cuda, mps.'),
        (["a.png", "--tile", "100"], "A tile has 100 pixels a side and a halo of 384; both must be multiples of 8"),
        (["a.png", "--object-size", "0"], "The object size is 0.0; it is a diameter in pixels, above 0."),
    ],
)
def test_a_wrong_call_is_answered_in_one_line_and_writes_nothing(segment, arguments, sentence):
    as_png(Path("a.png"))
    Path("b").mkdir()
    as_png(Path("b/a.png"))
    Path("empty").mkdir()
    before = results(".")
    answer = segment(*arguments)
    assert answer.code == 2
    assert answer.error.startswith(sentence)
    assert answer.error.count("\n") == 1
    assert answer.out == ""
    assert results(".") == before


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_a_device_that_is_not_there_is_said_so(segment):
    as_png(Path("a.png"))
    answer = segment("a.png", "--device", "cuda")
    assert answer.code == 2
    assert answer.error == (
        "This machine has no cuda device that torch can use; leave the device at auto, or use cpu.\n"
    )


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the permissions of a folder do not stop this user")
def test_a_folder_without_permission_to_write_is_named(segment):
    as_png(Path("a.png"))
    Path("out").mkdir(mode=0o500)
    answer = segment("a.png")
    assert answer.code == 2
    assert answer.error == "out: cannot be used as output folder: Permission denied; choose another one.\n"


@pytest.mark.parametrize("arguments", [["--foo", "a.png"], [], ["a.png", "--tile", "many"]])
def test_a_wrong_option_ends_with_code_2(segment, arguments):
    assert segment(*arguments).code == 2


# --- model files ------------------------------------------------------------------------------------------------------


def truncated_model(source: Path, path: Path) -> None:
    shutil.copy(source, path)
    cut(path)


def foreign_model(source: Path, path: Path) -> None:
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path)


def newer_model(source: Path, path: Path) -> None:
    with safetensors.safe_open(source, "np") as file:
        header = json.loads(file.metadata()["attractor"])
    safetensors.torch.save_file(
        safetensors.torch.load_file(source), path, {"attractor": json.dumps(header | {"format": FORMAT + 1})}
    )


def other_weights(source: Path, path: Path) -> None:
    with safetensors.safe_open(source, "np") as file:
        metadata = file.metadata()
    safetensors.torch.save_file({"weight": torch.zeros(3)}, path, metadata)


@pytest.mark.parametrize(
    ("make", "reason", "cure"),
    [
        (truncated_model, "this is not a whole model file", "copy it again"),
        (lambda source, path: path.write_text("no model"), "this is not a whole model file", "attractor train"),
        (lambda source, path: path.touch(), "this is not a whole model file", "attractor train"),
        (foreign_model, "this safetensors file was not written by attractor", "attractor train"),
        (newer_model, "has format 5, and this attractor reads formats 1 to 4", "update attractor: run git pull"),
        (other_weights, "the weights do not fit the model", ""),
    ],
)
def test_a_model_file_that_cannot_be_used_is_named(segment, tiny_model, make, reason, cure):
    as_png(Path("a.png"))
    make(tiny_model, Path("m.safetensors"))
    answer = segment("a.png", "--model", "m.safetensors")
    assert answer.code == 2
    assert answer.error.startswith("m.safetensors: ")
    assert answer.error.count("\n") == 1
    assert reason in answer.error
    assert cure in answer.error
    assert not Path("out").exists()


# --- recipes and data sets --------------------------------------------------------------------------------------------


def make_dataset(folder: Path, n_images: int) -> Path:
    labels = np.zeros((32, 32), np.int32)
    labels[4:12, 4:12], labels[16:26, 16:26] = 1, 2
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for k in range(n_images):
        write_image(folder / f"images/{k}.png", ((labels > 0) * 200 + k).astype(np.uint8)[..., None])
        write_labels(folder / f"labels/{k}.png", labels)
    return folder


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("[training]\nepoch = 3\n", 'There is no key "training.epoch"; did you mean "training.epochs"?'),
        ("[trainin]\nepochs = 3\n", 'There is no key "trainin"; did you mean "training"?'),
        ('[training]\nepochs = "many"\n', "epochs"),
        (
            "[training]\nepochs = 0\n",
            "training.epochs is 0; it must be at least 1, or training.minutes must say how long",
        ),
        ("[training]\ncrop_size = 100\n", "training.crop_size is 100; it must be a multiple of 8."),
        ("[training\n", "the recipe is not TOML"),
        ('[model]\nmethod = "spatial"\n', 'There is no method "spatial"; there are: spatial-embeddings'),
    ],
)
def test_a_wrong_recipe_is_answered_in_one_line(attractor_command, tmp_path, monkeypatch, text, sentence):
    monkeypatch.chdir(tmp_path)
    make_dataset(Path("data"), 2)
    Path("r.toml").write_text('data = { train = "data", validation = 0.5 }\n' + text)
    answer = attractor_command("train", "r.toml", "--device", "cpu")
    assert answer.code == 2
    assert sentence in answer.error
    assert answer.error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.parametrize("change", ["training.epoch=3", "training"])
def test_a_wrong_change_of_a_recipe_is_answered_in_one_line(attractor_command, tmp_path, change):
    (tmp_path / "r.toml").write_text('[data]\ntrain = "data"\n')
    answer = attractor_command("train", tmp_path / "r.toml", "--set", change)
    assert answer.code == 2
    assert ("did you mean" if "=" in change else "write it as key=value") in answer.error


@pytest.mark.parametrize(("n_images", "reason"), [(0, "image"), (1, "needs at least 2")])
def test_a_data_set_that_is_too_small_is_refused(attractor_command, tmp_path, monkeypatch, n_images, reason):
    monkeypatch.chdir(tmp_path)
    make_dataset(Path("data"), n_images)
    answer = attractor_command("train", "data", "--device", "cpu")
    assert answer.code == 2
    assert reason in answer.error
    assert answer.error.count("\n") == 1
    assert not Path("runs").exists()
    assert attractor_command("check", "data").code == 1


def test_two_images_are_enough(attractor_command, tmp_path):
    data = make_dataset(tmp_path / "data", 2)
    assert attractor_command("check", data).code == 0
    assert len(open_dataset(data)) == 2


# --- input that looks odd and is good ---------------------------------------------------------------------------------


def palette(path: Path) -> None:
    Image.fromarray(COLOURS).quantize(16).save(path)


def with_alpha(path: Path) -> None:
    as_png(path, np.dstack([COLOURS, PIXELS]))


def cmyk(path: Path) -> None:
    Image.fromarray(COLOURS).convert("CMYK").save(path, "JPEG")


def sixteen_bit_colour(path: Path) -> None:
    path.write_bytes(imagecodecs.png_encode(COLOURS.astype(np.uint16) * 257))


GOOD = {
    "one.png": lambda path: as_png(path, PIXELS[:1, :1]),
    "small.png": lambda path: as_png(path, PIXELS[:7, :5]),
    "constant.png": lambda path: as_png(path, np.full((24, 32), 7, np.uint8)),
    "float.tif": lambda path: tifffile.imwrite(path, PIXELS / 255),
    "negative.tif": lambda path: tifffile.imwrite(path, PIXELS.astype(np.int16) - 99),
    "bool.png": lambda path: as_png(path, PIXELS > 99),
    "sixteen.png": lambda path: as_png(path, PIXELS.astype(np.uint16) * 257),
    "colour16.png": sixteen_bit_colour,
    "cmyk.jpg": cmyk,
    "palette.png": palette,
    "alpha.png": with_alpha,
    "strip.png": lambda path: as_png(path, RANDOM.integers(0, 255, (8, 20_000), np.uint8)),
}


@pytest.fixture(scope="module")
def colour_model(tiny_model, tmp_path_factory):
    """The tiny model's like for three channels."""
    torch.manual_seed(0)
    model = Model(Description(method="spatial-embeddings", network="erfnet", channels=3, class_names=("object",)))
    with torch.no_grad():
        model.method.network.decoders[1][-1].bias.fill_(2.0)
    path = tmp_path_factory.mktemp("models") / "colour.safetensors"
    model.save(path)
    return path


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("name", GOOD)
def test_odd_images_are_segmented(segment, tiny_model, colour_model, name, channels):
    GOOD[name](Path(name))
    answer = segment(name, "--model", tiny_model if channels == 1 else colour_model)
    assert (answer.code, answer.error) == (0, "")
    stem = Path(name).stem
    assert results() == [f"{stem}_labels.tif", f"{stem}_objects.csv", f"{stem}_overlay.png"]
    labels = read_labels(f"out/{stem}_labels.tif")
    assert labels.shape == {"one": (1, 1), "small": (7, 5), "strip": (8, 20_000)}.get(stem, (24, 32))
    assert labels.any() == (name not in ("one.png", "constant.png"))
