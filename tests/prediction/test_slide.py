"""Images of any size: labels in OME-Zarr are those of the whole image, whoever computes them in whatever order."""

import dataclasses
import errno
import gc
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
import warnings
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import numpy as np
import pytest
import tifffile
import torch
import yaozarrs
import zarr
from distributed import LocalCluster
from pyarrow import parquet
from tests.prediction.test_blocks import assert_same_objects
from tests.test_ome_zarr import write

from attractor.errors import InputError
from attractor.images.parts import LARGE
from attractor.model import Model
from attractor.prediction import memory, schedulers, slide
from attractor.prediction.clients import CAN_COPY, connected
from attractor.prediction.image import Segmenter
from attractor.prediction.schedulers import Here, blocks_of_part, find_objects, paint_labels, pool_for
from attractor.prediction.slide import NAME, UNIT, Task, begun, finished, planned, table_file

SHAPE = 200, 300


def picture(shape=SHAPE):
    """Bright discs on a dark, noisy ground."""
    random = np.random.default_rng(0)
    pixels = random.integers(0, 40, shape).astype(np.uint8)
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    for row, column in random.integers(0, shape, (30, 2)):
        pixels[np.hypot(rows - row, columns - column) < random.uniform(4, 8)] += 90
    return pixels


@pytest.fixture(autouse=True)
def _one_thread():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def image(tmp_path_factory):
    return write(tmp_path_factory.mktemp("image") / "a.zarr", picture(), "yx", levels=3)


@pytest.fixture(scope="module")
def expected(image, tiny_model, tmp_path_factory):
    """The output of one call that nothing disturbed."""
    out = tmp_path_factory.mktemp("expected") / "b.zarr"
    worked(plan_of(image, out, tiny_model))
    return out


@pytest.fixture
def _collected():
    """For tests with Dask's workers, which leave sockets to the garbage collector."""
    yield
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gc.collect()


def with_dask(test):
    """For a test with Dask's workers: what they leave open is no fault of ours."""
    for category in ("ResourceWarning", "pytest.PytestUnraisableExceptionWarning"):
        test = pytest.mark.filterwarnings(f"ignore::{category}")(test)
    return pytest.mark.usefixtures("_collected")(test)


def plan_of(image, out, model, **options):
    return planned(str(image), out, model, **({"tile": UNIT, "dtype": "float32", "device": "cpu"} | options))


def done_by(plan, pool):
    """Go through all steps, and give what was counted."""
    for _ in (*find_objects(plan.ledger, pool), *paint_labels(plan, pool)):
        pass
    return finished(plan)


def worked(plan, **options):
    with begun(plan, **options) as plan:
        pool = Here(plan)
        steps = [*find_objects(plan.ledger, pool), *paint_labels(plan, pool)]
        assert [step.done for step in steps if step.stage == "finding objects"][-1:] in (
            [],
            [2 * len(plan.ledger.blocks)],
        )
        return finished(plan)


def labels_in(out, level=0):
    return np.asarray(zarr.open_group(out, mode="r")[f"labels/{NAME}/{level}"])


def files_in(folder):
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("block", [UNIT, 4 * UNIT])
def test_blocks_have_the_objects_of_the_whole_image(block, image, tmp_path, tiny_model):
    numbers = worked(plan_of(image, tmp_path / "b.zarr", tiny_model, block=block))
    whole = Segmenter(Model.load(tiny_model), device="cpu", dtype="float32").segment(picture(), tile=UNIT)
    labels = labels_in(tmp_path / "b.zarr")
    assert numbers.total == labels.max() == len(whole) > 20
    assert_same_objects(labels, whole.labels)


def test_the_image_is_there_in_the_copy_and_coarser_labels_are_every_second_pixel(expected):
    assert np.array_equal(np.asarray(zarr.open_group(expected, mode="r")["0"]), picture())
    finest, halved, quarter = (labels_in(expected, level) for level in range(3))
    assert np.array_equal(halved, finest[::2, ::2])
    assert np.array_equal(quarter, halved[::2, ::2])
    assert not (expected.with_name("b.zarr.unfinished")).exists()


def test_labels_of_a_coarser_level_are_magnified_for_the_finer_ones(image, tmp_path, tiny_model):
    worked(plan_of(image, tmp_path / "b.zarr", tiny_model, level=1))
    finest, halved = labels_in(tmp_path / "b.zarr"), labels_in(tmp_path / "b.zarr", 1)
    assert halved.max() > 10
    assert finest.shape == SHAPE
    assert np.array_equal(finest, halved.repeat(2, 0).repeat(2, 1))


def test_the_table_has_a_row_for_each_label(image, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.ome.zarr", tiny_model)
    worked(plan)
    labels = labels_in(tmp_path / "b.ome.zarr")
    assert table_file(plan) == tmp_path / "b_objects.parquet"
    table = parquet.read_table(table_file(plan)).to_pandas()
    assert table.label.tolist() == list(range(1, labels.max() + 1))
    assert table.area.tolist() == np.bincount(labels.ravel())[1:].tolist()
    for number in (1, len(table)):
        rows, columns = np.nonzero(labels == number)
        row = table.iloc[number - 1]
        assert (row.min_row, row.max_column) == (rows.min(), columns.max() + 1)
        assert (row.centroid_row, row.centroid_column) == pytest.approx((rows.mean(), columns.mean()))
        assert row.mean_intensity == pytest.approx(picture()[rows, columns].mean())
        assert row.centroid_row_um == pytest.approx(rows.mean() * 0.25)
        assert row.centroid_column_um == pytest.approx(columns.mean() * 0.5)


def test_outlines_lie_where_the_labels_do(image, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.ome.zarr", tiny_model, formats=["labels", "geojson"])
    n = worked(plan).total
    labels, features = labels_in(tmp_path / "b.ome.zarr"), []
    for file in sorted((tmp_path / "b_objects.geojson").iterdir()):
        features += json.loads(file.read_text())["features"]
    assert len(features) == n == labels.max()
    assert len({feature["id"] for feature in features}) == n
    for label, feature in enumerate(features, 1):
        geometry = feature["geometry"]
        parts = [geometry["coordinates"]] if geometry["type"] == "Polygon" else geometry["coordinates"]
        x, y = np.concatenate([ring for part in parts for ring in part]).T
        rows, columns = np.nonzero(labels == label)
        assert (y.min(), y.max(), x.min(), x.max()) == (
            *(rows.min(), rows.max() + 1),
            *(columns.min(), columns.max() + 1),
        )
    assert not table_file(plan).exists()


def test_objects_of_another_size_are_seen_at_another_scale(image, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model, object_size=20.0)  # the model was trained on 10
    assert plan.unit == 2 * UNIT
    assert plan.seen_shape == (100, 150)
    worked(plan)
    whole = Segmenter(Model.load(tiny_model), device="cpu", dtype="float32").segment(picture(), object_size=20.0)
    labels = labels_in(tmp_path / "b.zarr")
    assert abs(int(labels.max()) - len(whole)) <= 2
    assert ((labels > 0) == (whole.labels > 0)).mean() > 0.98


def test_blocks_agree_at_another_scale(image, tmp_path, tiny_model):
    for name, block in (("b", UNIT), ("c", 2 * UNIT)):
        worked(plan_of(image, tmp_path / f"{name}.zarr", tiny_model, object_size=8.0, block=block))
    assert_same_objects(labels_in(tmp_path / "b.zarr"), labels_in(tmp_path / "c.zarr"))


def test_parts_give_what_one_call_gives(image, expected, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "parts.zarr", tiny_model)
    n = len(plan.ledger.blocks)
    for part in (2, 0, 1):
        with begun(plan, part=part) as plan:
            assert list(find_objects(plan.ledger, Here(plan), blocks_of_part(n, part, 3)))
    assert len(list((plan.folder / "objects").iterdir())) > 0
    worked(plan)
    assert files_in(tmp_path / "parts.zarr") == files_in(expected)


@with_dask
def test_two_workers_give_what_one_gives(image, expected, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "two.zarr", tiny_model)
    with connected(workers=2) as client, begun(plan) as plan:
        done_by(plan, pool_for(plan, client()))
    assert files_in(tmp_path / "two.zarr") == files_in(expected)


@with_dask
def test_a_worker_that_dies_costs_its_step(image, expected, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model)
    with connected(workers=2) as client, begun(plan) as plan:
        pool = pool_for(plan, client())
        victim = min(pool.client.run(os.getpid).values())
        steps = itertools.chain(find_objects(plan.ledger, pool), paint_labels(plan, pool))
        for number, _ in enumerate(steps):
            if number == 2:
                os.kill(victim, signal.SIGKILL)
        finished(plan)
    assert files_in(tmp_path / "b.zarr") == files_in(expected)


@with_dask
@pytest.mark.skipif(not CAN_COPY, reason="workers are copies of another process on Linux alone")
def test_workers_are_copies_of_one_process_that_has_imported_what_they_need(monkeypatch):
    monkeypatch.setenv("NUMBA_NUM_THREADS", "2")
    with connected(workers=2) as client:
        workers = client()
        before = set(workers.run(os.getpid).values())
        (copied,) = set(workers.run(os.getppid).values())
        os.kill(victim := min(before), signal.SIGKILL)
        deadline = time.monotonic() + 60
        while len(now := set(workers.run(os.getpid, on_error="ignore").values())) < 2 or victim in now:
            assert time.monotonic() < deadline, "no worker took the place of the one that died"
            time.sleep(0.1)  # until Dask has noticed
        assert set(workers.run(os.getppid).values()) == {copied}
    assert copied != os.getpid()
    assert len(before & now) == 1
    assert os.environ["NUMBA_NUM_THREADS"] == "2"  # what workers are told is theirs alone


@with_dask
def test_workers_of_a_scheduler_give_what_one_process_gives(image, expected, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model)
    quiet = {"dashboard_address": None, "scheduler_kwargs": {"dashboard_address": "127.0.0.1:0"}}
    with (
        LocalCluster(
            n_workers=1, threads_per_worker=1, processes=False, protocol="tcp", host="127.0.0.1", **quiet
        ) as ours,
        connected(scheduler=ours.scheduler_address) as client,
        begun(plan) as plan,
    ):
        done_by(plan, pool_for(plan, client()))
    assert files_in(tmp_path / "b.zarr") == files_in(expected)


@pytest.mark.parametrize("after", [0, 2, 5])
def test_who_begins_again_does_what_is_missing(after, image, expected, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model)
    with begun(plan) as plan:
        steps = find_objects(plan.ledger, Here(plan))
        for _ in range(after):
            next(steps)
    done = len(list((plan.folder / "objects").glob("*"))) + len(list((plan.folder / "gathered").glob("*")))
    assert done > 0 or not after
    worked(plan_of(image, tmp_path / "b.zarr", tiny_model))
    assert files_in(tmp_path / "b.zarr") == files_in(expected)


def killed_after(seconds, *arguments):
    """Run the command, and kill it and all that it started."""
    command = [sys.executable, "-m", "attractor", *map(str, arguments)]
    process = subprocess.Popen(command, start_new_session=True, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    return process.returncode


def test_a_killed_call_goes_on(image, expected, tmp_path, tiny_model):
    arguments = ["segment", image, "--model", tiny_model, "--tile", UNIT, "--device", "cpu", "--dtype", "float32"]
    seconds, random = 4.0, np.random.default_rng(0)
    for _ in range(int(os.environ.get("ATTRACTOR_FAULTS", "3"))):
        killed_after(seconds + random.uniform(0, 3), *arguments, "--out", tmp_path / "b.zarr")
    if (tmp_path / "b.zarr.unfinished").exists() or not (tmp_path / "b.zarr").exists():
        assert killed_after(120, *arguments, "--out", tmp_path / "b.zarr") == 0
    assert files_in(tmp_path / "b.zarr") == files_in(expected)


@pytest.mark.parametrize(("device", "name", "chosen"), [("cuda", 5, [1]), ("cuda", "tcp://a", []), ("cpu", 5, [])])
def test_each_worker_has_a_gpu_of_its_own(image, tiny_model, tmp_path, monkeypatch, device, name, chosen):
    plan = dataclasses.replace(plan_of(image, tmp_path / "b.zarr", tiny_model), device=device)
    used = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.setattr(torch.cuda, "set_device", used.append)
    monkeypatch.setattr("dask.distributed.get_worker", lambda: SimpleNamespace(name=name))
    monkeypatch.setattr(schedulers, "do", lambda plan, task: task)
    assert schedulers.do_on_own_gpu(plan, Task("gather", 3)) == Task("gather", 3)
    assert used == chosen


def test_a_tiff_file_gets_labels_of_several_resolutions(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr(slide, "CELL", 64)
    pixels = picture()
    tifffile.imwrite(tmp_path / "a.tif", pixels)
    worked(plan_of(tmp_path / "a.tif", tmp_path / "b.ome.zarr", tiny_model))
    whole = Segmenter(Model.load(tiny_model), device="cpu", dtype="float32").segment(pixels, tile=UNIT)
    assert_same_objects(labels_in(tmp_path / "b.ome.zarr"), whole.labels)
    shapes = [labels_in(tmp_path / "b.ome.zarr", level).shape for level in range(4)]
    assert shapes == [(200, 300), (100, 150), (50, 75), (25, 38)]


def test_a_large_tiff_file_is_read_in_parts(tmp_path, tiny_model, monkeypatch):
    monkeypatch.setattr("attractor.images.parts.LARGE", 1 << 10)
    assert LARGE > 1 << 10
    tifffile.imwrite(tmp_path / "a.tif", picture(), tile=(64, 64))
    monkeypatch.setattr(slide, "read_image", None)
    plan = plan_of(tmp_path / "a.tif", tmp_path / "b.zarr", tiny_model)
    worked(plan)
    assert labels_in(tmp_path / "b.zarr").max() > 20


def test_a_folder_of_tiles_gives_the_labels_of_the_whole(tmp_path, tiny_model, attractor_command):
    pixels, folder = picture(), tmp_path / "tiles"
    folder.mkdir()
    for i, j in np.ndindex(2, 3):
        tifffile.imwrite(folder / f"tile_r{i}_c{j}.tif", pixels[110 * i :, 100 * j : 100 * (j + 1)][:110])
    answer = attractor_command("segment", folder, "--model", tiny_model, "--tile", UNIT, "--dtype", "float32",
                               "--device", "cpu", "--out", tmp_path / "b.zarr")  # fmt: skip
    assert answer.code == 0
    whole = Segmenter(Model.load(tiny_model), device="cpu", dtype="float32").segment(pixels, tile=UNIT)
    assert_same_objects(labels_in(tmp_path / "b.zarr"), whole.labels)


def test_an_image_of_one_value_has_no_objects_made_up(tmp_path, tiny_model):
    image = write(tmp_path / "a.zarr", np.full((200, 200), 7, np.uint8), "yx")
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model, thresholds={"seed_threshold": 1.0})
    assert worked(plan).total == 0
    assert labels_in(tmp_path / "b.zarr").max() == 0
    assert parquet.read_table(table_file(plan)).num_rows == 0


def test_another_plan_is_refused_by_what_differs(image, tmp_path, tiny_model):
    out = tmp_path / "b.zarr"
    with begun(plan_of(image, out, tiny_model)):
        pass
    for options, message in {
        "tile": ({"tile": 2 * UNIT}, "was begun with tile 128, and now it is 256"),
        "thresholds": ({"thresholds": {"seed_threshold": 0.7}}, "was begun with thresholds"),
        "block": ({"block": 3 * UNIT}, "was begun with core 128, and now it is 384"),
    }.values():
        with pytest.raises(InputError, match=message), begun(plan_of(image, out, tiny_model, **options)):
            pass
    with begun(plan_of(image, out, tiny_model, tile=2 * UNIT), overwrite=True) as plan:
        assert plan.tile == 2 * UNIT


def test_labels_that_are_there_are_kept_unless_told_otherwise(image, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model)
    worked(plan)
    before = files_in(tmp_path / "b.zarr")
    with (
        pytest.raises(InputError, match="has labels 'attractor' already; give --overwrite to replace them"),
        begun(plan),
    ):
        pass
    assert not plan.folder.exists()
    worked(plan, overwrite=True)
    assert files_in(tmp_path / "b.zarr") == before


def _hold(plan, is_held, may_end):
    with begun(plan):
        is_held.set()
        may_end.wait(60)


def test_a_worker_with_another_version_or_model_is_refused(image, tmp_path, tiny_model, monkeypatch):
    model = tmp_path / "model.safetensors"
    model.write_bytes(tiny_model.read_bytes())
    plan = plan_of(image, tmp_path / "b.zarr", model)
    with begun(plan) as plan:
        other = dataclasses.replace(plan, attractor="0.0.1")
        with pytest.raises(
            InputError, match=r"A worker has attractor .*, and the call came from 0\.0\.1; install the same"
        ):
            slide.do(other, slide.Task("gather", 0))
        model.write_bytes(b"another")
        with pytest.raises(InputError, match="is another model now, or on this machine"):
            slide.do(plan, slide.Task("gather", 0))


def test_a_full_disk_is_said_in_one_sentence(image, tmp_path, tiny_model, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    plan = plan_of(image, tmp_path / "b.zarr", tiny_model)
    with begun(plan) as plan:
        pool = Here(plan)
        for _ in find_objects(plan.ledger, pool):
            pass
        monkeypatch.setattr(slide.LabelLevel, "__setitem__", full)
        with pytest.raises(
            InputError, match=r"b\.zarr: cannot be written: No space left on device; make room on the disk"
        ):
            list(paint_labels(plan, pool))
    monkeypatch.undo()
    assert worked(plan).total == labels_in(tmp_path / "b.zarr").max()


def test_two_calls_at_once_into_one_output(image, tmp_path, tiny_model):
    plan = plan_of(image, tmp_path / "b.zarr", tiny_model)
    context = multiprocessing.get_context("spawn")
    is_held, may_end = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(plan, is_held, may_end))
    other.start()
    try:
        assert is_held.wait(60)
        for part in (None, 0):
            with pytest.raises(InputError, match="another process is working on it"), begun(plan, part=part):
                pass
    finally:
        may_end.set()
        other.join()
    with begun(plan, part=0), begun(plan, part=1):  # parts do not disturb each other
        pass


def test_an_image_that_cannot_be_used_is_refused_before_anything_is_made(image, tmp_path, tiny_model):
    for options, message in {
        "tile": ({"tile": 100}, "The tile is 100; for an image that is read in blocks it is a multiple of 128"),
        "block": ({"block": 200}, "The block is 200; it is a multiple of the tile, 128"),
        "size": ({"object_size": -1.0}, "object size is -1.0"),
    }.values():
        with pytest.raises(InputError, match=message):
            plan_of(image, tmp_path / "b.zarr", tiny_model, **options)
    tifffile.imwrite(tmp_path / "a.tif", picture())
    with pytest.raises(InputError, match="--channels is for OME-Zarr images, and this is none"):
        plan_of(tmp_path / "a.tif", tmp_path / "b.zarr", tiny_model, channels=["0"])
    assert not (tmp_path / "b.zarr").exists()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--part", "3/3"], "--part 3/3: of 3 parts, the first is 0 and the last 2."),
        (["--part", "one"], "--part one: write it as number/total, such as 0/16"),
        (["--part", "0/2", "--finish"], "--finish comes after all parts; leave --part out."),
        (["--finish"], "6 of 6 blocks are still to be done, such as number 0; let every part run to its end"),
        (["--plane", "z"], "--plane z: write it as axis=place, such as z=3"),
        (["--into"], "--into writes the labels into the image itself; leave --out out."),
        (["--format", "csv"], "--format csv is not written for OME-Zarr; the formats are labels, parquet, geojson."),
        (["--whole-masks"], "--whole-masks cannot be written to OME-Zarr"),
        (["--workers", "0"], "--workers is 0; give a number from 1."),
        (["--image", "0"], "is a single image; leave --image out."),
    ],
)
def test_what_cannot_be_asked_for(options, message, image, tmp_path, tiny_model, attractor_command):
    usual = ["--model", tiny_model, "--tile", UNIT, "--out", tmp_path / "b.zarr"]
    answer = attractor_command("segment", image, *usual, *options)
    assert answer.code != 0
    assert message in " ".join(answer.error.split())
    assert answer.error.count("\n") == 1


def test_a_name_for_labels_that_is_none(image, in_folder, tiny_model, attractor_command):
    answer = attractor_command("segment", image, "--model", tiny_model)
    assert "--out out: give a name that ends in .ome.zarr, or --into to write labels into the image." in answer.error
    answer = attractor_command("segment", image, image, "--model", tiny_model, "--out", "b.zarr")
    assert "an image that is read in blocks is segmented alone" in answer.error


def test_labels_go_into_the_image_of_several_that_is_meant(tmp_path, tiny_model, attractor_command):
    zarr.open_group(tmp_path / "a.zarr", mode="w").attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    for name in "01":
        write(tmp_path / "a.zarr" / name, picture()[:100, :100], "yx")
    usual = ["segment", tmp_path / "a.zarr", "--model", tiny_model, "--tile", UNIT, "--into"]
    assert "holds 2 images; choose one by --image: 0, 1" in attractor_command(*usual).error
    answer = attractor_command(*usual, "--image", "1")
    assert answer.code == 0
    assert labels_in(tmp_path / "a.zarr" / "1").max() > 0
    assert not (tmp_path / "a.zarr" / "0" / "labels").exists()
    tifffile.imwrite(tmp_path / "a.tif", picture())
    answer = attractor_command("segment", tmp_path / "a.tif", "--into", "--out", "x.zarr")
    assert "leave --out out" in answer.error


def test_an_image_is_read_from_an_address(image, tmp_path, tiny_model, attractor_command):
    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(image.parent))) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/{image.name}"
        plan = plan_of(address, tmp_path / "b.zarr", tiny_model, tile=4 * UNIT)
        n = worked(plan).total
        usual = ["--model", tiny_model, "--tile", 4 * UNIT, "--dtype", "float32"]
        answer = attractor_command("segment", address, *usual, "--out", tmp_path / "c.zarr")
        server.shutdown()
        thread.join()
    assert answer.code == 0, answer
    labels = labels_in(tmp_path / "b.zarr")
    np.testing.assert_array_equal(labels_in(tmp_path / "c.zarr"), labels)
    assert n == labels.max() > 20
    yaozarrs.validate_zarr_store(f"{tmp_path}/b.zarr/labels/{NAME}")


def test_options_for_large_images_with_another_one(in_folder, tiny_model, attractor_command):
    tifffile.imwrite("a.tif", picture())
    answer = attractor_command("segment", "a.tif", "--model", tiny_model, "--workers", 2)
    assert "--workers is for OME-Zarr images" in answer.error
    assert "give --out NAME.ome.zarr, too, or leave it out" in answer.error


def test_the_command_says_what_it_found(image, tmp_path, tiny_model, attractor_command):
    usual = ["segment", image, "--model", tiny_model, "--tile", UNIT, "--dtype", "float32"]
    for part in range(2):
        answer = attractor_command(*usual, "--out", tmp_path / "b.ome.zarr", "--part", f"{part}/2")
        assert f"Part {part} of 2 is done; when all are, run the same command with --finish" in answer.out
    answer = attractor_command(*usual, "--out", tmp_path / "b.ome.zarr", "--finish")
    n = int(labels_in(tmp_path / "b.ome.zarr").max())
    assert f"Found {n} objects; the labels are in" in answer.out
    assert "b_objects.parquet" in answer.out
    about = json.loads((tmp_path / "b.ome.zarr.json").read_text())
    assert about["objects"] == n
    assert about["sha256"] == dataclasses.asdict(plan_of(image, tmp_path / "c.zarr", tiny_model))["sha256"]
    own = write(tmp_path / "own.zarr", picture(), "yx", levels=3)
    usual[1] = own
    answer = attractor_command(*usual, "--into", "--format", "labels")
    assert answer.code == 0
    assert np.array_equal(labels_in(own), labels_in(tmp_path / "b.ome.zarr"))
    assert "table" not in answer.out


def test_what_is_computed_at_once_is_sized_by_memory(image, tmp_path, tiny_model, monkeypatch):
    plan = planned(str(image), tmp_path / "b.zarr", tiny_model, dtype="float32", device="cpu")
    assert (plan.tile, plan.core) == (2048, 2048)
    monkeypatch.setattr(memory, "MOST_BYTES", memory.MOST_BYTES // 4)
    plan = planned(str(image), tmp_path / "b.zarr", tiny_model, dtype="float32", device="cpu")
    assert (plan.tile, plan.core) == (1024, 1024)


def test_no_process_starts_for_an_image_that_is_not_there(tmp_path, tiny_model, attractor_command, monkeypatch):
    started = []
    monkeypatch.setattr("attractor.prediction.clients.connected", lambda **how: started.append(how))
    out = tmp_path / "b.ome.zarr"
    answer = attractor_command(
        "segment", tmp_path / "a.ome.zarr", "--model", tiny_model, "--out", out, "--workers", "2"
    )
    assert answer.code == 2
    assert "a.ome.zarr: no such file; check the name and the folder you are in." in answer.error
    assert not started


@with_dask
def test_no_scheduler_answers(image, tmp_path, tiny_model, attractor_command, monkeypatch):
    monkeypatch.setattr("attractor.prediction.clients.PATIENCE", 1)
    start = time.monotonic()
    answer = attractor_command(
        "segment", image, "--model", tiny_model, "--out", tmp_path / "b.zarr", "--scheduler", "tcp://127.0.0.1:1"
    )
    assert "tcp://127.0.0.1:1: no scheduler answers there" in answer.error
    assert time.monotonic() - start < 30
