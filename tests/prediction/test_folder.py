"""A folder of images in, files out."""

import csv
import errno
import json
import os
import threading
from pathlib import Path

import numpy as np
import pytest
import tifffile
import torch
from PIL import Image
from tests.prediction.test_engines import needs_openvino

import attractor
from attractor.errors import InputError
from attractor.images import read_image, read_labels
from attractor.prediction import crew, folder
from attractor.prediction.folder import segment_files
from attractor.prediction.outputs import OUTPUTS
from attractor.prediction.result import FolderOutput, Result

RANDOM = np.random.default_rng(0)


@pytest.fixture(scope="module")
def segmenter(tiny_model):
    return attractor.load(tiny_model, device="cpu")


def picture(path: Path, *shape: int) -> Path:
    Image.fromarray(RANDOM.integers(0, 255, shape or (40, 50), np.uint8)).save(path)
    return path


def names(out: Path) -> list[str]:
    return sorted(file.name for file in out.iterdir())


def test_an_image_gives_labels_overlay_and_table(segmenter, tmp_path):
    image = picture(tmp_path / "cells.png")
    (outcome,) = segment_files(segmenter, [image], tmp_path / "new" / "out")
    assert outcome.problem is None
    assert names(tmp_path / "new" / "out") == ["cells_labels.tif", "cells_objects.csv", "cells_overlay.png"]
    labels = tifffile.imread(tmp_path / "new/out/cells_labels.tif")
    assert labels.dtype == np.uint16
    expected = segmenter.segment(read_image(image))
    np.testing.assert_array_equal(labels, expected.labels)
    assert outcome.n_objects == len(expected) > 3
    assert read_image(tmp_path / "new/out/cells_overlay.png").shape == (40, 50, 3)
    with (tmp_path / "new/out/cells_objects.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["label"]) for row in rows] == list(range(1, outcome.n_objects + 1))
    assert [int(row["area"]) for row in rows] == np.bincount(labels.ravel())[1:].tolist()
    assert {row["class"] for row in rows} == {"object"}
    assert all(0 < float(row["score"]) < 1 for row in rows)


def test_a_folder_is_segmented_and_its_results_are_not(segmenter, tmp_path):
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    first = list(segment_files(segmenter, [tmp_path], tmp_path))
    assert [outcome.image.name for outcome in first] == ["a.png", "b.png"]
    assert list(segment_files(segmenter, [tmp_path], tmp_path)) == first
    assert len(names(tmp_path)) == 8


def test_an_image_that_fails_does_not_stop_the_others(segmenter, tmp_path):
    picture(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(b"nothing of the kind")
    picture(tmp_path / "c.png")
    outcomes = list(segment_files(segmenter, [tmp_path], tmp_path / "out"))
    assert [outcome.problem is None for outcome in outcomes] == [True, False, True]
    assert outcomes[1].problem.startswith(f"{tmp_path / 'b.png'}: is not an image")
    assert {name[0] for name in names(tmp_path / "out")} == {"a", "c"}


@pytest.mark.parametrize("ending", ["_labels.tif", "_overlay.png", "_objects.csv"])
def test_of_an_image_all_files_are_there_or_none(segmenter, tmp_path, monkeypatch, ending):
    for name in "abc":
        picture(tmp_path / f"{name}.png")
    (tmp_path / "out").mkdir()
    (tmp_path / "out/b_labels.tif").write_text("from an earlier run")
    calls = iter(range(9))
    failing = 3 + ["_labels.tif", "_overlay.png", "_objects.csv"].index(ending)
    write = Path.write_bytes

    def write_until_full(path, content):
        if next(calls) == failing:
            write(path, content[: len(content) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", write_until_full)
    outcomes = list(segment_files(segmenter, [tmp_path], tmp_path / "out"))
    assert [outcome.problem for outcome in outcomes] == [
        None,
        f"{tmp_path / 'out' / ('b' + ending)}: cannot be written: No space left on device; make room on the "
        "disk, or write to another folder.",
        None,
    ]
    assert len(names(tmp_path / "out")) == 7
    assert (tmp_path / "out/b_labels.tif").read_text() == "from an earlier run"


def test_a_folder_in_the_way_of_a_result_is_named(segmenter, tmp_path):
    image = picture(tmp_path / "a.png")
    (tmp_path / "out/a_overlay.png").mkdir(parents=True)
    (outcome,) = segment_files(segmenter, [image], tmp_path / "out")
    assert "a_overlay.png: cannot be written: a folder has this name" in outcome.problem
    assert names(tmp_path / "out") == ["a_overlay.png"]


def test_the_formats_asked_for_are_written_and_no_others(segmenter, tmp_path):
    image = picture(tmp_path / "cells.png")
    (outcome,) = segment_files(segmenter, [image], tmp_path / "out", formats=["coco", "csv", "coco"])
    assert names(tmp_path / "out") == ["cells_coco.json", "cells_objects.csv"]
    document = json.loads((tmp_path / "out/cells_coco.json").read_text())
    assert document["images"][0]["file_name"] == "cells.png"
    assert len(document["annotations"]) == outcome.n_objects


def test_a_format_of_a_folder_is_written_with_the_files_or_not_at_all(segmenter, tmp_path, monkeypatch):
    def write(folder: Path, result: Result) -> None:
        if result.name == "b.png":
            raise InputError(f"{folder / result.stem}: no.")
        folder.mkdir(exist_ok=True)
        (folder / result.stem).touch()

    monkeypatch.setitem(OUTPUTS, "shared", FolderOutput(folder="shared", write=write))
    for name in "ab":
        picture(tmp_path / f"{name}.png")
    outcomes = list(segment_files(segmenter, [tmp_path], tmp_path / "out", formats=["shared", "csv"]))
    assert [outcome.problem for outcome in outcomes] == [None, f"{tmp_path / 'out/shared/b'}: no."]
    assert names(tmp_path / "out") == ["a_objects.csv", "shared"]
    assert names(tmp_path / "out/shared") == ["a"]


def test_pixels_have_the_size_that_is_given_or_else_the_files_own(segmenter, tmp_path):
    pixels = RANDOM.integers(0, 255, (40, 50), np.uint8)
    tifffile.imwrite(tmp_path / "own.tif", pixels, imagej=True, resolution=(4, 4), metadata={"unit": "um"})
    tifffile.imwrite(tmp_path / "none.tif", pixels)
    for out, size in [("by_file", None), ("given", (2.0, 1.0))]:
        list(segment_files(segmenter, [tmp_path], tmp_path / out, formats=["csv"], pixel_size=size))

    def area(file: str) -> float | None:
        with (tmp_path / file).open(newline="") as table:
            row = next(csv.DictReader(table))
        return float(row["area_um2"]) / float(row["area"]) if "area_um2" in row else None

    assert area("by_file/own_objects.csv") == pytest.approx(1 / 16)
    assert area("by_file/none_objects.csv") is None
    assert area("given/own_objects.csv") == area("given/none_objects.csv") == 2


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried 9 bytes")]
)
def test_an_image_beyond_the_memory_is_named(segmenter, tmp_path, monkeypatch, error):
    def predict(self, image, **options):
        raise error

    monkeypatch.setattr(type(segmenter), "predict", predict)
    (outcome,) = segment_files(segmenter, [picture(tmp_path / "a.png")], tmp_path / "out", object_size=2.0)
    assert "a.png: needs more memory than there is" in outcome.problem
    assert "give --out NAME.ome.zarr to work on it in blocks, or give a larger --object-size" in outcome.problem


def test_images_after_one_that_fails_are_there(segmenter, tmp_path, monkeypatch):
    predict = type(segmenter).predict

    def failing(self, image, *, name, **options):
        if "b.png" in name:
            raise MemoryError
        return predict(self, image, name=name, **options)

    monkeypatch.setattr(type(segmenter), "predict", failing)
    monkeypatch.setattr(crew, "ROOM", 1)  # each goes alone, and waits for the one before
    paths = [picture(tmp_path / f"{name}.png") for name in "abcd"]
    outcomes = list(segment_files(segmenter, paths, tmp_path / "out"))
    assert [outcome.image for outcome in outcomes] == paths
    assert [outcome.problem is None for outcome in outcomes] == [True, False, True, True]
    assert not list((tmp_path / "out").glob("b_*"))


@pytest.mark.parametrize("engine", ["torch", "compiled", pytest.param("openvino", marks=needs_openvino)])
def test_an_image_is_computed_while_another_is_written(tiny_model, tmp_path, monkeypatch, engine):
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    segmenter = attractor.load(tiny_model, device="cpu", engine=engine)
    second_is_computed = threading.Event()
    predict, write = type(segmenter).predict, folder.write_files

    def noting(self, image, *, name, **options):
        found = predict(self, image, name=name, **options)
        if "b.png" in name:
            second_is_computed.set()
        return found

    def waiting(result, *arguments):
        if result.name == "a.png":
            assert second_is_computed.wait(60)
        write(result, *arguments)

    monkeypatch.setattr(type(segmenter), "predict", noting)
    monkeypatch.setattr(folder, "write_files", waiting)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    outcomes = list(segment_files(segmenter, [picture(tmp_path / f"{name}.png") for name in "ab"], tmp_path / "out"))
    assert [outcome.problem for outcome in outcomes] == [None, None]
    # a core for each of two images where each is computed by one; all in the end
    assert threads == ([2, 2, 2] if engine == "compiled" else [1, 1, 2])


def test_large_images_share_the_cores_with_those_that_have_room_beside_them(segmenter, tmp_path, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    threads = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    monkeypatch.setattr(crew, "ROOM", 40 * 50 * 2)
    list(segment_files(segmenter, [picture(tmp_path / f"{name}.png") for name in "abcde"], tmp_path / "out"))
    assert threads == [2] * 5 + [4]  # two have room
    threads.clear()
    monkeypatch.setattr(crew, "ROOM", 40 * 50)
    list(segment_files(segmenter, [picture(tmp_path / f"{name}.png") for name in "abcde"], tmp_path / "out"))
    assert threads == [4] * 6


def test_large_images_wait_until_those_before_are_done():
    room = crew.Room(10)
    entered = threading.Event()

    def enter():
        with room.taken(20):
            entered.set()

    with room.taken(4):
        with room.taken(6):
            thread = threading.Thread(target=enter)
            thread.start()
        assert not entered.wait(0.05)
    assert entered.wait(60)
    thread.join()


def test_an_error_of_our_own_is_not_hidden(segmenter, tmp_path, monkeypatch):
    def predict(self, image, **options):
        raise RuntimeError("shapes do not fit")

    monkeypatch.setattr(type(segmenter), "predict", predict)
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        list(segment_files(segmenter, [picture(tmp_path / "a.png")], tmp_path / "out"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"tile": 100}, "A tile has 100 pixels a side .* multiples of 8"),
        ({"tile": 0}, "A tile has 0 pixels"),
        ({"object_size": -1.0}, "The object size is -1.0; .* above 0"),
        ({"formats": ["labels", "xls"]}, "There is no format 'xls'; the formats are labels, overlay, csv"),
        ({"formats": []}, "No format is given"),
        ({"pixel_size": (0.0, 1.0)}, "The pixel size is 0 x 1 micrometres; give numbers above 0"),
    ],
)
def test_an_option_that_cannot_be_is_refused_before_anything_is_read(segmenter, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        list(segment_files(segmenter, [tmp_path / "none.png"], tmp_path / "out", **options))
    assert not (tmp_path / "out").exists()


def test_options_reach_the_model(segmenter, tmp_path):
    image = picture(tmp_path / "a.png")
    options = {"tta": True, "object_size": 20.0, "tile": 16}
    (outcome,) = segment_files(segmenter, [image], tmp_path / "out", **options)
    expected = segmenter.segment(read_image(image), **options)
    np.testing.assert_array_equal(read_labels(tmp_path / "out/a_labels.tif"), expected.labels)
    assert outcome.n_objects == len(expected)


# --- as a command -----------------------------------------------------------------------------------------------------


def test_formats_and_pixel_size_are_given_on_the_command_line(attractor_command, tiny_model, tmp_path):
    image = picture(tmp_path / "a.png")
    call = ["segment", image, "--model", tiny_model, "--device", "cpu", "--out", tmp_path / "out"]
    answer = attractor_command(*call, "--format", "csv, geojson", "--pixel-size", "0.5x0.25")
    assert (answer.code, answer.error) == (0, "")
    assert answer.out.endswith(f"results as csv, geojson are in {tmp_path / 'out'}.\n")
    assert names(tmp_path / "out") == ["a_objects.csv", "a_objects.geojson", "run.json"]
    with (tmp_path / "out/a_objects.csv").open(newline="") as file:
        row = next(csv.DictReader(file))
    assert float(row["area_um2"]) == pytest.approx(int(row["area"]) / 8)
    assert float(row["centroid_row_um"]) == pytest.approx(float(row["centroid_row"]) / 2, rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "xls"], "There is no format 'xls'; the formats are"),
        (["--format", ","], "No format is given; the formats are"),
        (["--format", "cityscapes"], "The format cityscapes has no class 'object'"),
        (
            ["--pixel-size", "0,5"],
            "--pixel-size 0,5: give micrometres per pixel, such as 0.5, or 0.5x0.25 for height x width.",
        ),
        (["--pixel-size", "1x2x3x4"], "--pixel-size 1x2x3x4: give micrometres"),
        (["--pixel-size", "1x2x3"], "The pixel size has 3 numbers; give two"),
        (["--pixel-size", "0"], "The pixel size is 0 x 0 micrometres; give numbers above 0"),
    ],
)
def test_a_wrong_format_or_pixel_size_is_answered_in_one_line(
    attractor_command, tiny_model, tmp_path, options, message
):
    image, out = picture(tmp_path / "a.png"), tmp_path / "out"
    answer = attractor_command("segment", image, "--model", tiny_model, "--device", "cpu", "--out", out, *options)
    assert (answer.code, answer.out) == (2, "")
    assert message in answer.error
    assert answer.error.count("\n") == 1
    assert not out.exists()
