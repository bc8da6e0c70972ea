"""Benchmarks: each can be imported, and what times a folder of files goes through it in both ways."""

import itertools
import json
import pkgutil
from importlib import import_module
from types import SimpleNamespace

import benchmarks
import numpy as np
import pytest
import zarr
from benchmarks import correcting, crops, end_to_end, film_parts, films, levers, peers, scale, stardist_volumes
from benchmarks.harness import picture_of_cells
from scipy import ndimage

from attractor.datasets import Sample, open_dataset
from attractor.datasets.ctc import Ctc
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Earlier
from attractor.errors import InputError
from attractor.images import find_images, write_image, write_labels
from attractor.instances import Instances
from attractor.recipe import recipe_for
from attractor.session import Session

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
    assert all(found[f"{way}{what}"] > 0 for way in ("plain", "fast") for what in ("", ", labels"))
    endings = ("labels.tif", "objects.csv", "overlay.png")
    assert sorted(file.name for file in out.iterdir()) == [f"{k}_{ending}" for k in range(2) for ending in endings]


def test_crops_are_timed_where_all_ways_make_the_same(tmp_path, monkeypatch):
    kept = tmp_path / "crops.json"
    monkeypatch.setattr("sys.argv", ["crops", "--side", "256", "--images", "2", "--json", str(kept)])
    monkeypatch.setattr(crops, "CROPS", dict.fromkeys(crops.CROPS, 1))
    monkeypatch.setattr(crops.torch, "set_num_threads", lambda n: None)
    crops.main()
    assert json.loads(kept.read_text())["results"].keys() == crops.CROPS.keys()


def test_the_control_on_volumes_holds_out_whole_embryos(tmp_path):
    files = [tmp_path / f"embryo{k}_t{t}.tif" for k in range(6) for t in range(3)]
    own, held = stardist_volumes.split(files)
    assert sorted(own + held) == list(range(18))
    assert {files[k].stem.split("_")[0] for k in held} == {"embryo4", "embryo5"}
    assert stardist_volumes.patch_within([np.zeros((51, 124, 90)), np.zeros((28, 60, 200))]) == (24, 56, 64)


def test_seg_of_a_film_reads_what_the_command_wrote(tmp_path):
    labels = np.zeros((8, 8), np.int32)
    labels[1:4, 1:4] = 2
    write_labels(tmp_path / "man_seg007.tif", labels)
    with pytest.raises(InputError, match=r"t007_labels\.tif: is not there"):
        films.seg(tmp_path, tmp_path)
    write_labels(tmp_path / "t007_labels.tif", labels)
    assert films.seg(tmp_path, tmp_path).seg.value == 1.0
    with pytest.raises(InputError, match="holds no man_seg"):
        films.seg(tmp_path, tmp_path / "nowhere")


TRUTH = np.zeros((60, 80), np.int32)
TRUTH[5:15, 5:15], TRUTH[5:15, 15:25] = 1, 2  # side by side
TRUTH[5:15, 40:70], TRUTH[40:55, 10:30] = 3, 4


@pytest.mark.parametrize(
    ("found", "operations"),
    [
        (TRUTH, ["accept"]),
        (np.where(TRUTH == 2, 1, TRUTH), ["split", "accept"]),
        (np.where(np.indices(TRUTH.shape)[1] > 54, TRUTH * 2, TRUTH), ["merge", "accept"]),
        (np.where(TRUTH == 4, 0, TRUTH), ["draw", "accept"]),
        (np.where(np.indices(TRUTH.shape)[0] > 56, 9, TRUTH), ["delete", "accept"]),
        (np.where(np.indices(TRUTH.shape)[0] > 56, 9, 0), ["delete", *4 * ["draw"], "accept"]),
    ],
    ids=["nothing is wrong", "two in one", "one in two", "one is missing", "one too many", "all is wrong"],
)
def test_a_simulated_person_does_what_is_needed(tmp_path, found, operations):
    with _corrected(tmp_path, found, most=np.inf) as session:
        assert [entry.kind for entry in session.history("a")] == operations
        labels = session.canvas("a").labels
        assert session.canvas("a").reviewed.all()
    both = correcting.Compared.of(TRUTH, labels)
    assert (both.iou.max(1) > 0.9).all()
    assert np.count_nonzero(both.of_found) == 4


def test_a_simulated_person_redraws_what_is_too_large(tmp_path):
    grown = ndimage.maximum_filter(TRUTH == 1, 15).astype(np.int32)
    with _corrected(tmp_path, np.where(TRUTH > 1, TRUTH, grown), most=np.inf) as session:
        assert [entry.kind for entry in session.history("a")] == ["redraw", "accept"]


def test_a_wide_image_is_gone_down_part_by_part(tmp_path, monkeypatch):
    monkeypatch.setattr(correcting, "FIELD", 32)
    with _corrected(tmp_path, 0 * TRUTH, most=3) as session:
        reviewed = session.canvas("a").reviewed
        assert reviewed[0, :26].all()
        assert not reviewed[0, 40:].any()
        correcting.Annotator(session, "a", TRUTH).correct()
        assert session.canvas("a").reviewed.all()


class Drawn:
    """Images of which all have the same truth."""

    names = ("a", "b", "c")

    def __len__(self):
        return len(self.names)

    def __getitem__(self, index):
        image = (100 * (TRUTH > 0)).astype(np.uint8)[..., None]
        return Sample(self.names[index], image, TRUTH, np.ones(4, np.int32), np.zeros(TRUTH.shape, bool))


def test_a_simulated_person_opens_image_after_image_and_then_goes_on_where_they_left_off(tmp_path):
    for name in Drawn.names:
        write_image(tmp_path / f"{name}.png", Drawn()[0].image)
    with Session.create(tmp_path / "project", [tmp_path / f"{name}.png" for name in Drawn.names]) as session:

        def done():
            return [len(session.history(name)) for name in Drawn.names]

        correcting.go_through(Drawn(), session, None, end=12, most=2)  # three are drawn in one band, and accepted
        assert done() == [4, 4, 0]
        correcting.go_through(Drawn(), session, None, end=15, most=2)  # too few are left to open another image
        assert done() == [4, 4, 0]
        correcting.go_through(Drawn(), session, None, end=19, most=2)
        assert done() == [4, 4, 4]
        correcting.go_through(Drawn(), session, None, end=np.inf, most=np.inf)
        assert done() == [6, 6, 6]  # the fourth, and the rest accepted
        assert session.canvas("c").reviewed.all()


def test_a_first_round_opens_as_many_images_as_training_needs(tmp_path):
    for name in Drawn.names:
        write_image(tmp_path / f"{name}.png", Drawn()[0].image)
    with Session.create(tmp_path / "project", [tmp_path / f"{name}.png" for name in Drawn.names]) as session:
        correcting.go_through(Drawn(), session, None, end=1, most=2, fewest=3)
        assert [len(session.history(name)) for name in Drawn.names] == [4, 4, 4]


def test_results_of_other_settings_are_not_mixed_in(tmp_path):
    for _ in range(2):
        correcting.check_kept(tmp_path / "out", {"seed": 0, "images": 20})
    with pytest.raises(InputError, match=r"out: holds results of other settings, \{'seed': 0, 'images': 20\}"):
        correcting.check_kept(tmp_path / "out", {"seed": 1, "images": 20})


def test_a_simulated_person_stops_early_and_accepts_only_what_was_gone_through(tmp_path):
    with _corrected(tmp_path, 0 * TRUTH, most=2) as session:
        assert [entry.kind for entry in session.history("a")] == [*3 * ["draw"], "accept"]
        reviewed = session.canvas("a").reviewed
    assert reviewed[0].all()
    assert not reviewed[40:].any()


def _corrected(folder, found, most):
    write_image(folder / "a.png", (100 * (TRUTH > 0)).astype(np.uint8)[..., None])
    session = Session.create(folder / "project", [folder / "a.png"])
    labels = np.unique(found, return_inverse=True)[1].reshape(found.shape).astype(np.int32)
    n = int(labels.max())
    session.put("a", Instances(labels, np.ones(n, np.int32), np.ones(n, np.float32)))
    correcting.Annotator(session, "a", TRUTH).correct(most)
    return session


def test_the_verdict_compares_operations_at_the_same_score():
    hand = [correcting.Point("by hand", 5, 100, 0.4, 0.1), correcting.Point("by hand", 20, 400, 0.6, 0.2)]
    loop = [correcting.Point("the loop", n, 6 * n, ap, 0.2) for n, ap in ((5, 0.5), (10, 0.61), (20, 0.7))]
    assert "reaches 0.610 after 60 operations on 10 images" in correcting.verdict([*hand, *loop])
    assert "0.15 of the operations" in correcting.verdict([*hand, *loop])
    assert "does not reach the 0.600 of 20 images" in correcting.verdict([*hand, *loop[:1]])


def test_every_lever_is_a_key_of_recipes(tmp_path):
    samples = [Drawn()[k] for k in range(2)]
    write_label_images(tmp_path / "data", samples)
    plain = recipe_for(tmp_path / "data", levers.plain_changes(tmp_path / "data", 40))
    assert plain.training.epochs * plain.training.crops_per_epoch == 40 * plain.training.batch_size
    for name, changes in levers.LEVERS.items():
        if name not in (levers.PLAIN, "seed loss by pixels"):  # what a recipe has anyway
            assert recipe_for(tmp_path / "data", [*levers.plain_changes(tmp_path / "data", 40), *changes]) != plain


def test_a_lever_is_trained_once_and_scored_on_the_other_half(tmp_path):
    write_label_images(tmp_path / "data", [Drawn()[k] for k in range(3)])
    learn, others = levers.halves(tmp_path / "data", tmp_path / "out")
    assert (open_dataset(learn).names, others.names) == (("a", "c"), ("b",))
    quick = ["training.crop_size=32", "training.epochs=1", "training.crops_per_epoch=8", "training.workers=0"]
    changes = [*levers.plain_changes(learn, 1), *quick]
    scores = levers.scored(tmp_path / "out" / "plain-0", learn, others, changes, None)
    assert list(scores) == list(levers.SHOWN)
    assert levers.scored(tmp_path / "out" / "plain-0", learn, others, changes, None) == scores
    with pytest.raises(InputError, match="holds a training with other keys"):
        levers.scored(tmp_path / "out" / "plain-0", learn, others, changes[:-1], None)


def test_a_lever_helps_only_if_each_seed_is_better_than_every_plain_one():
    def seeds(*values):
        return [dict.fromkeys(levers.SHOWN, value) for value in values]

    plain = seeds(0.5, 0.52)
    assert levers.verdict(plain, seeds(0.6, 0.53)) == "yes"
    assert levers.verdict(plain, seeds(0.6, 0.51)) == "-"
    assert levers.verdict(plain, seeds(0.4, 0.49)) == "harms"
    rows = levers.table({levers.PLAIN: plain, "skips": seeds(0.6, 0.53)})
    assert rows[1] == {
        "setting": "skips",
        **dict.fromkeys(levers.SHOWN, "0.565"),
        "range": "0.530 to 0.600",
        "helps": "yes",
    }


def test_programs_take_turns_over_the_same_files_and_the_ratio_is_to_ours(tmp_path):
    calls = []

    def program(name, seconds):
        def run(files, out):
            calls.append((name, len(files)))
            clock.append(clock[-1] + seconds * len(files))
            return 7

        return run, "a fake"

    clock = [0.0]
    files = [tmp_path / f"{k}.png" for k in range(4)]
    programs = {peers.OURS: program(peers.OURS, 0.5), "Peer": program("Peer", 2.0)}
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(peers.time, "perf_counter", lambda: clock[-1])
        times = peers.in_turns(programs, files, tmp_path, repeats=3)
    assert calls == [(name, n) for n in (2, 4, 4, 4) for name in programs]
    ours, theirs = peers.rows_of(times)
    assert ours["a file"] == "500 ms"
    assert len(times["Peer"].processor) == 3
    assert (theirs["program"], theirs["ratio"], theirs["from"], theirs["objects"]) == ("Peer", "4.0x", "4.0", 7)


def test_ours_writes_a_label_image_for_each_file(tmp_path):
    pictures, out = tmp_path / "in", tmp_path / "out"
    pictures.mkdir()
    for k in range(2):
        write_image(pictures / f"{k}.png", picture_of_cells(64, 64, 2, np.random.default_rng(k))[..., None])
    run, _ = peers.with_attractor(None, tmp_path)
    assert run(find_images([pictures]).images, out) == 4
    assert sorted(file.name for file in out.iterdir()) == ["0_labels.tif", "1_labels.tif"]


def test_programs_that_are_not_there_are_left_out_and_unknown_ones_refused(capsys, monkeypatch):
    monkeypatch.setitem(peers.PROGRAMS, "Peer", (("no_such_module",), None))
    assert peers.installed([peers.OURS, "Peer"]) == [peers.OURS]
    assert "Peer is left out: no_such_module is not installed." in capsys.readouterr().out
    with pytest.raises(InputError, match="no program Pear"):
        peers.installed(["Pear"])


def test_stardist_asks_for_images_to_learn_from(tmp_path):
    with pytest.raises(InputError, match="--train DATASET"):
        peers.with_stardist(SimpleNamespace(train=None), tmp_path)


def test_some_files_are_evenly_spread():
    assert peers.evenly(list(range(9)), 3) == [0, 4, 8]
    assert peers.evenly([1, 2], None) == peers.evenly([1, 2], 5) == [1, 2]


def test_grey_becomes_colour_and_further_channels_are_left_out():
    grey, many = np.ones((2, 3, 1), np.uint8), np.zeros((2, 3, 4), np.uint8)
    assert peers.colour(grey).shape == peers.colour(many).shape == (2, 3, 3)


def test_a_part_of_a_slide_has_the_cells_of_the_whole():
    everything = slice(0, 500)
    picture, labels = scale.drawn(500, everything, everything)
    for rows, columns in itertools.product((slice(0, 130), slice(130, 500)), repeat=2):
        part, own = scale.drawn(500, rows, columns)
        assert np.array_equal(own > 0, labels[rows, columns] > 0)
        assert abs(part.mean() - picture[rows, columns].mean()) < 1
    assert len(np.unique(labels)) - 1 == (500 // scale.SPACING) ** 2


def test_objects_are_the_same_whatever_their_numbers():
    one = np.array([[1, 1, 0, 2], [0, 0, 0, 3]])
    other = np.array([[5, 5, 0, 2], [0, 0, 0, 0]])
    assert scale.same_objects(one, one * 7) == (1, 1)
    assert scale.same_objects(one, other) == (pytest.approx(2 / 3), 7 / 8)


def test_found_cells_are_scored_against_those_that_were_drawn(tmp_path):
    rows = columns = slice(0, 600)
    _, truth = scale.drawn(600, rows, columns)
    group = zarr.open_group(tmp_path, mode="w")
    array = group.require_group("labels").require_group("attractor").create_array("0", shape=(600, 600), dtype="uint32")
    array[...] = truth * 3
    assert scale.score_in_windows(tmp_path, 600)[0] == 1
    array[...] = 0
    assert scale.score_in_windows(tmp_path, 600)[0] == 0


@pytest.mark.parametrize("workers", [1, 3])
def test_simulated_workers_share_the_steps(workers):
    steps = {"gather": 6.0, "find": 2.0, "paint": 1.0}
    seconds, busy = scale.simulated(10 * scale.SHARD, workers, steps, 0.0)
    assert seconds == pytest.approx(900 / workers, rel=0.05)
    assert busy == pytest.approx(1, abs=0.05)
    assert scale.simulated(10 * scale.SHARD, workers, steps, 10.0)[0] > 100 * 10 * 2


def test_some_frames_of_a_film_are_a_film_of_their_own(tmp_path, monkeypatch):
    labels = np.zeros((12, 16), np.int32)
    labels[2:6, 2:6] = 1
    pixels, ignore = (labels[..., None] * 90).astype(np.uint8), labels < 0
    came = [None, *(Earlier(f"t{t}", np.array([1])) for t in range(4))]
    whole = [Sample(f"t{t}", pixels, labels, np.ones(1, np.int32), ignore, earlier=came[t]) for t in range(5)]
    write_label_images(tmp_path / "named", whole)
    Ctc.write(tmp_path / "film", whole, open_dataset(tmp_path / "named"))
    monkeypatch.setattr("sys.argv", ["film_parts", str(tmp_path / "film"), "2:4", str(tmp_path / "part")])
    film_parts.main()
    part = open_dataset(tmp_path / "part")
    assert part.names == ("01_t000", "01_t001")
    assert [one.earlier and one.earlier.labels.tolist() for one in part] == [None, [1]]
    assert (tmp_path / "part/01_GT/TRA/man_track.txt").read_text() == "1 0 1 0\n"
