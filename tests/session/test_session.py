"""Sessions: every operation survives, two people can work at once, and what nobody reviewed is ignored."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from attractor.datasets import layout_of, open_dataset
from attractor.datasets.converting import convert
from attractor.errors import InputError
from attractor.images import parts, read_labels, write_image, write_labels
from attractor.instances import Instances
from attractor.session import Accept, Delete, Draw, Erase, Merge, Paint, Session, SetClass, held
from attractor.session import canvas as canvas_module
from attractor.session import session as module
from attractor.session.journal import Journal, records

FILES_OF_A = ("labels/a.tif", "reviewed/a.png", "objects/a.json")
FOUND = np.zeros((40, 50), np.int32)
FOUND[5:12, 5:15], FOUND[20:30, 8:20], FOUND[15:35, 30:45] = 1, 2, 3


class Finder:
    """In place of a model: finds three objects in every image."""

    class_names = ("cell", "debris")

    def segment(self, image, name):
        assert image.shape[:2] == FOUND.shape
        return Instances(FOUND.copy(), np.array([1, 1, 2], np.int32), np.array([0.9, 0.4, 0.7], np.float32))


@pytest.fixture
def project(tmp_path):
    random = np.random.default_rng(0)
    (tmp_path / "pictures").mkdir()
    for name in "abc":
        write_image(tmp_path / "pictures" / f"{name}.png", random.integers(0, 255, (40, 50, 1), np.uint8))
    Session.create(tmp_path / "project", [tmp_path / "pictures"], Finder(), model="nuclei").close()
    return tmp_path / "project"


def test_a_new_session_has_the_images_and_what_was_found(project):
    with Session(project) as session:
        assert session.images == ("a", "b", "c")
        assert session.class_names == ("cell", "debris")
        assert session.project["model"] == "nuclei"
        own = session.progress("a")
        assert (own.state, own.objects, own.reviewed, own.edits) == ("segmented", 3, 0.0, 0)
        assert own.least_score == pytest.approx(0.4)
        assert session.canvas("a").things[3].class_number == 2
    assert layout_of(project) == "session"
    with pytest.raises(InputError, match="nobody has reviewed anything yet"):
        open_dataset(project)


def test_operations_are_there_after_closing(project):
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
        session.apply(SetClass("a", (2,), 2), who="Ada")
        session.apply(Draw("b", ((1.0, 1.0), (1.0, 4.0), (4.0, 4.0), (4.0, 1.0))))
        assert session.revision == 3
    with Session(project) as session:
        assert session.revision == 3
        assert set(session.canvas("a").things) == {2, 3}
        assert session.canvas("a").things[2].class_number == 2
        assert [entry.who for entry in session.history("a")] == ["", "Ada"]
        assert session.canvas("b").things[4].score is None
        session.undo("a")
        assert set(session.canvas("a").things) == {1, 2, 3}
        assert session.canvas("a").things[1].score == pytest.approx(0.9)


def test_undo_and_redo_in_any_order(project):
    with Session(project) as session:
        states = [session.canvas("a").labels.copy()]
        for operation in (Delete("a", (1,)), Merge("a", (2, 3)), Paint("a", ((2.0, 2.0),), 2.0)):
            session.apply(operation)
            states.append(session.canvas("a").labels.copy())
        for k in (2, 1):
            session.undo("a")
            np.testing.assert_array_equal(session.canvas("a").labels, states[k])
        session.redo("a")
        np.testing.assert_array_equal(session.canvas("a").labels, states[2])
        session.undo("a")
        session.undo("a")
        np.testing.assert_array_equal(session.canvas("a").labels, states[0])
        with pytest.raises(InputError, match="nothing to undo"):
            session.undo("a")
        session.redo("a")
        session.apply(Accept("a"))  # after which nothing can be done again
        with pytest.raises(InputError, match="nothing to redo"):
            session.redo("a")
        assert session.progress("a").edits == 2


def test_two_people_undo_their_own_unless_the_other_changed_the_same_place(project):
    with Session(project) as session:
        session.apply(Delete("a", (1,)), who="Ada")
        session.apply(Delete("a", (3,)), who="Bob")
        session.undo("a", who="Ada")
        assert set(session.canvas("a").things) == {1, 2}
        session.apply(Accept("a"), who="Bob")
        with pytest.raises(InputError, match="Somebody else has changed this place since"):
            session.redo("a", who="Ada")


def test_a_number_is_never_given_twice(project):
    with Session(project) as session:
        session.apply(Delete("a", (3,)))
    with Session(project) as session:
        session.apply(Paint("a", ((2.0, 45.0),), 2.0))
        assert set(session.canvas("a").things) == {1, 2, 4}
        session.undo("a")
        session.apply(Paint("a", ((2.0, 45.0),), 2.0))
        assert set(session.canvas("a").things) == {1, 2, 5}


def test_only_what_was_reviewed_counts(project):
    with Session(project) as session:
        session.apply(Accept("a", labels=(2,)))
        session.apply(Accept("b"))
    dataset = open_dataset(project)
    assert dataset.names == ("a", "b")
    assert dataset.class_names == ("cell", "debris")
    one, other = dataset[0], dataset[1]
    np.testing.assert_array_equal(one.labels > 0, FOUND == 2)
    assert one.ignore[FOUND == 1].all()
    assert not one.ignore[FOUND == 2].any()
    assert other.classes.tolist() == [1, 1, 2]
    assert not other.ignore.any()


def test_any_data_set_becomes_a_session_and_back(project, tmp_path):
    with Session(project) as session:
        session.apply(Accept("a", labels=(2, 3)))
    convert(open_dataset(project), tmp_path / "copy", "session")
    convert(open_dataset(project), tmp_path / "coco", "coco")
    convert(open_dataset(tmp_path / "coco"), tmp_path / "again", "session")
    first = open_dataset(project)[0]
    for folder in ("copy", "again"):
        same = open_dataset(tmp_path / folder)[0]
        np.testing.assert_array_equal(same.labels, first.labels)
        np.testing.assert_array_equal(same.ignore, first.ignore)
        np.testing.assert_array_equal(same.classes, first.classes)
    with Session(tmp_path / "copy") as session:
        assert session.progress("a").objects == 2


def test_a_session_is_open_once(project):
    with Session(project), pytest.raises(InputError, match="is open in another program"):
        Session(project)
    with Session(project):
        pass


def test_the_next_image_has_the_least_sure_object(project):
    with Session(project) as session:
        assert session.next() == "a"
        session.apply(Accept("a", labels=(2,)))
        assert session.next() == "b"
        for name in "abc":
            session.apply(Accept(name))
        assert session.next() is None
        assert session.progress("a").state == "reviewed"


def test_segmenting_anew_leaves_alone_what_was_reviewed(project):
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
        session.apply(Accept("a", labels=(2,)))
        session.segment("a", Finder())
        things = session.canvas("a").things
        assert set(things) == {2, 4}  # 1 would be where it was deleted, and 3 is found anew
        np.testing.assert_array_equal(session.canvas("a").labels == 4, FOUND == 3)
        assert things[4].class_number == 2
        with pytest.raises(InputError, match="The image was segmented since; undo is not possible any more"):
            session.undo("a")


def test_what_is_found_beside_something_reviewed_loses_its_rim_alone(project):
    with Session(project) as session:
        session.apply(Delete("a", (1, 2, 3)))
        third = FOUND == 3
        top, left = np.argwhere(third).min(0)
        session.put("b", Instances(0 * FOUND, np.zeros(0, np.int32), np.zeros(0, np.float32)))
        session.apply(
            Draw("b", tuple((float(top + i), float(left + j)) for i, j in ((-4, 0), (-4, 5), (-1, 5), (-1, 0))))
        )
        rim = session.canvas("b").reviewed & third
        assert 0 < rim.sum() < 0.25 * third.sum()
        session.segment("b", Finder())
        canvas = session.canvas("b")
        (found,) = [k for k, thing in canvas.things.items() if thing.class_number == 2]
        np.testing.assert_array_equal(canvas.labels == found, third & ~rim)
        session.segment("a", Finder())  # where all was reviewed, nothing comes back
        assert not session.canvas("a").things


def test_what_an_eraser_leaves_of_an_object_was_reviewed_too(project):
    with Session(project) as session:
        session.apply(Erase("a", ((5.5, 5.0), (5.5, 14.0)), 0.6))
        left = session.canvas("a").labels == 1
        session.segment("a", Finder())
        np.testing.assert_array_equal(session.canvas("a").labels == 1, left)
    dataset = open_dataset(project)
    np.testing.assert_array_equal(dataset[0].labels > 0, left)


def test_objects_that_reach_out_of_an_accepted_box_are_not_reviewed(project):
    with Session(project) as session:
        session.apply(Accept("a", box=(0, 0, 40, 35)))
        reviewed = session.canvas("a").reviewed
        assert not reviewed[FOUND == 3].any()
        assert reviewed[FOUND == 1].all()
        assert reviewed[0, 34]


def test_part_of_an_object_that_was_reviewed_does_not_count(project):
    with Session(project) as session:
        canvas = session.canvas("a")
        canvas.reviewed[:25] = True  # as two people's operations may leave it
        session.apply(SetClass("a", (1,), 1))
    sample = open_dataset(project)[0]
    np.testing.assert_array_equal(sample.labels > 0, FOUND == 1)
    assert sample.ignore[FOUND > 1].all()


def test_an_object_whose_rest_somebody_else_removed_can_come_back(project):
    with Session(project) as session:
        session.apply(Merge("a", (1, 3)), who="Ada")
        session.apply(Erase("a", ((8.0, 10.0),), 12.0, label=1), who="Ada")
        session.apply(Delete("a", (1,)), who="Bob")
        with pytest.raises(InputError, match="Somebody else"):
            session.undo("a", who="Ada")
        canvas = session.canvas("a")
        assert set(np.unique(canvas.labels)) - {0} == set(canvas.things)


def test_a_line_that_was_left_unfinished_is_cut_off(project):
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
    with (project / "edits.jsonl").open("ab") as file:
        file.write(b'{"revision":2,"when":"20')
    with Session(project) as session:
        assert session.revision == 1
        session.apply(Delete("a", (2,)))
    assert [entry.revision for entry in records(project / "edits.jsonl")] == [1, 2]


@pytest.mark.parametrize("line", [b"{}\n", b"\xff\n", b"[1]\n", b'{"revision":"1"}\n', b"null\n"])
def test_a_damaged_line_is_named(project, line):
    (project / "edits.jsonl").write_bytes(line)
    with pytest.raises(InputError, match=r"edits\.jsonl: line 1 is damaged"):
        Session(project)


def test_damaged_pixels_in_a_line_are_refused(project):
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
    content = json.loads((project / "edits.jsonl").read_text())
    bombs = [("labels", ["eJw=", "eJw="]), ("reviewed", ["!", "!"]), ("box", [0, 0, 0, 0]), ("things", [{"x": 1}, {}])]
    for key, value in bombs:
        changed = {**content, "change": {**content["change"], key: value}}
        (project / "edits.jsonl").write_text(json.dumps(changed) + "\n")
        with pytest.raises(InputError, match="line 1 is damaged"):
            Session(project)


def test_files_older_than_the_journal_are_brought_up_to_date(project):
    before = {path: path.read_bytes() for part in ("labels", "objects") for path in (project / part).iterdir()}
    with Session(project) as session:
        session.apply(Merge("a", (1, 2)))
        after = session.canvas("a").labels.copy()
        session.apply(Accept("a", labels=(3,)))
    for path, content in before.items():
        path.write_bytes(content)
    (project / "reviewed" / "a.png").unlink()
    with Session(project) as session:
        np.testing.assert_array_equal(session.canvas("a").labels, after)
        assert set(session.canvas("a").things) == {1, 3}
    np.testing.assert_array_equal(read_labels(project / "labels" / "a.tif"), after)
    assert (project / "reviewed" / "a.png").exists()


def test_an_operation_that_cannot_be_written_is_not_done(project, monkeypatch):
    with Session(project) as session:

        def full(self, entry):
            raise InputError("the disk is full")

        monkeypatch.setattr(Journal, "append", full)
        with pytest.raises(InputError, match="disk is full"):
            session.apply(Delete("a", (1,)))
        assert set(session.canvas("a").things) == {1, 2, 3}
        assert session.revision == 0


def test_threads_take_turns(project):
    with Session(project) as session:

        def work(column):
            for k in range(5):
                session.apply(Paint("a", ((2.0 + k, column),), 0.6), who=str(column))

        threads = [threading.Thread(target=work, args=(column,)) for column in (20.5, 22.5, 24.5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(session.canvas("a").things) == 3 + 15
    assert [entry.revision for entry in records(project / "edits.jsonl")] == list(range(1, 16))


KILLED = """
import sys
from attractor.session import Session, Paint, Delete
with Session(sys.argv[1]) as session:
    print("open", flush=True)
    for k in range(1000):
        entry = session.apply(Paint("a", ((1.0 + k % 38, 48.0),), 0.6, over=True))
        print(entry.revision, flush=True)
"""


@pytest.mark.parametrize("tried", range(4))
def test_what_was_confirmed_is_there_after_a_kill(project, tried):
    command = [sys.executable, "-c", KILLED, str(project)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    with process:
        said = [process.stdout.readline() for _ in range(3 + 5 * tried)]
        os.kill(process.pid, signal.SIGKILL)
        said += process.stdout.readlines()
    confirmed = [int(line) for line in said[1:] if line.endswith("\n")]
    with Session(project) as session:
        assert session.revision >= confirmed[-1]
        assert session.revision <= confirmed[-1] + 1
        labels = session.canvas("a").labels
        for entry in session.history("a")[-30:]:
            top, left, bottom, right = entry.box
            assert labels[top:bottom, left:right].shape == session.change(entry).labels[1].shape
        last = session.change(session.history("a")[-1])
        np.testing.assert_array_equal(labels[last.box[0] : last.box[2], last.box[1] : last.box[3]], last.labels[1])


def test_what_is_no_session_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"project\.toml: cannot be read"):
        Session(tmp_path)
    (tmp_path / "project.toml").write_text("format = 9")
    with pytest.raises(InputError, match="has format 9; this version reads format 1"):
        Session(tmp_path)
    (tmp_path / "project.toml").write_text("format = 1\nclasses = []")
    with pytest.raises(InputError, match="classes must be a list of names"):
        Session(tmp_path)


def test_operations_on_what_is_not_there(project):
    with Session(project) as session:
        for operation, message in (
            (Delete("nowhere", (1,)), "There is no image 'nowhere'"),
            (SetClass("a", (1,), 3), "There is no class 3; the classes are cell, debris"),
        ):
            with pytest.raises(InputError, match=message):
                session.apply(operation)


def test_a_session_without_images_is_one(tmp_path):
    Session.create(tmp_path / "empty", [], class_names=["cell"]).close()
    assert layout_of(tmp_path / "empty") == "session"
    with Session(tmp_path / "empty") as session:
        assert session.images == ()
        assert session.class_names == ("cell",)
        assert session.next() is None


def test_a_folder_in_use_is_not_made_a_session(project, tmp_path):
    with pytest.raises(InputError, match="is in use; give a new folder"):
        Session.create(project, [tmp_path / "pictures"])
    with Session(project) as session, pytest.raises(InputError, match="the session has an image 'a'"):
        session.add(tmp_path / "pictures" / "a.png")
    with Session.create(tmp_path / "empty", [tmp_path / "pictures"]) as session:
        assert session.progress("a").state == "new"
        session.apply(Draw("a", ((1.0, 1.0), (1.0, 9.0), (9.0, 9.0))))
        assert session.progress("a").objects == 1


def test_a_removal_that_was_cut_short_is_finished_when_the_session_is_opened(project):
    for part, name in (("images", "a.png"), ("labels", "a.tif")):  # reviewed/ and objects/ are still in their place
        (project / "trash" / part).mkdir(parents=True)
        (project / part / name).rename(project / "trash" / part / name)
    with Session(project) as session:
        assert (session.images, session.removed) == (("b", "c"), ("a",))
        assert not (project / "objects" / "a.json").exists()
        with pytest.raises(InputError, match="the session had an image 'a', whose corrections it keeps"):
            session.copy(project / "trash" / "images" / "a.png")
        session.bring_back("a")
        assert len(session.canvas("a").things) > 0


def test_what_was_removed_long_ago_is_deleted_for_good(project):
    with Session(project) as session:
        for name in ("a", "b"):
            session.remove(name)
        month_ago = time.time() - 30 * 86400
        os.utime(project / "trash" / "removed" / "a.txt", (month_ago, month_ago))
        assert session.empty_old_trash(31) == ()
        assert session.empty_old_trash(29) == ("a",)
        assert session.removed == ("b",)
        assert not [path for path in (project / "trash").rglob("a.*")]
        session.bring_back("b")
        assert not [path for path in (project / "trash").rglob("b.*")]
        session.remove("c")
        (project / "trash" / "removed" / "c.txt").unlink()  # as an older version left it: its time begins now
        assert session.empty_old_trash(1) == ()
        assert session.empty_old_trash(0) == ("c",)


def test_what_cannot_be_moved_or_deleted_is_named(project):
    (project / "trash" / "images" / "a.png" / "in the way").mkdir(parents=True)
    with Session(project) as session:
        with pytest.raises(InputError, match=r"a.png: cannot be moved to .*trash/images: .*; check the folder"):
            session.remove("a")
        assert session.images == ("a", "b", "c")
    shutil.rmtree(project / "trash")
    (project / "trash").write_text("")
    with Session(project) as session, pytest.raises(InputError, match="trash: cannot be deleted: Not a directory"):
        session.empty_trash()


def test_all_that_an_operation_writes_is_on_the_disk_before_its_revision_is(project, monkeypatch):
    """Nobody can cut the power in a test; what the system was asked to do, and in which order, can be seen."""
    done, fsync, replace = [], os.fsync, os.replace

    def flushing(descriptor):
        done.append(("flush", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def replacing(source, target):
        assert ("flush", os.stat(source).st_ino) in done, f"{target} would have no content"
        done.append(("replace", str(target)))
        replace(source, target)

    monkeypatch.setattr(os, "fsync", flushing)
    monkeypatch.setattr(os, "replace", replacing)
    with Session(project) as session:
        done.clear()
        session.apply(Accept("a", box=(0, 0, 20, 20)))
    journal, *_ = done
    assert journal == ("flush", (project / "edits.jsonl").stat().st_ino)
    places = {name: done.index(("replace", str(project / name))) for name in FILES_OF_A}
    for name in FILES_OF_A[:2]:
        folder = ("flush", (project / name).parent.stat().st_ino)
        assert places[name] < done.index(folder) < places["objects/a.json"]


# ------------------------------------------------------------- large images


def test_the_files_of_a_large_image_follow_in_a_pause_and_with_the_end(project, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 0)
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
        assert set(np.unique(read_labels(project / "labels" / "a.tif"))) == {0, 1, 2, 3}
        session.flush()
        assert set(np.unique(read_labels(project / "labels" / "a.tif"))) == {0, 2, 3}
        session.apply(Delete("a", (2,)))
    assert set(np.unique(read_labels(project / "labels" / "a.tif"))) == {0, 3}
    monkeypatch.setattr(module, "PAUSE", 0.01)
    with Session(project) as session:
        session.apply(Delete("a", (3,)))
        for _ in range(500):
            if not read_labels(project / "labels" / "a.tif").any():
                break
            time.sleep(0.01)
        assert not read_labels(project / "labels" / "a.tif").any()


def test_what_was_not_yet_in_the_files_is_done_again_when_they_are_read(project, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 0)
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
        session.apply(SetClass("a", (3,), 1))
        session._held.clear()  # as after a journal that could not be written
        canvas = session.canvas("a")
        assert set(canvas.things) == {2, 3}
        assert canvas.things[3].class_number == 1
        assert set(np.unique(read_labels(project / "labels" / "a.tif"))) == {0, 1, 2, 3}


def test_canvases_are_let_go_by_their_bytes_and_written_before(project, monkeypatch):
    monkeypatch.setattr(module, "AT_ONCE", 0)
    monkeypatch.setattr(module, "MOST_BYTES", 2 * 5 * FOUND.size)
    with Session(project) as session:
        session.apply(Delete("a", (1,)))
        session.canvas("b")
        assert list(session._held) == ["a", "b"]
        session.canvas("c")
        assert list(session._held) == ["b", "c"]
        assert set(np.unique(read_labels(project / "labels" / "a.tif"))) == {0, 2, 3}
        monkeypatch.setattr(module, "MOST_BYTES", 1)
        session.canvas("a")
        assert list(session._held) == ["a"]


def test_very_large_labels_lie_in_a_file_that_is_mapped(project, monkeypatch):
    monkeypatch.setattr(parts, "LARGE", 100)
    monkeypatch.setattr(held, "IN_MEMORY", 100)
    with Session(project) as session:
        labels = session.canvas("a").labels
        assert isinstance(labels, np.memmap)
        np.testing.assert_array_equal(labels, FOUND)
        session.apply(Delete("a", (1,)))
        session.apply(Paint("a", stroke=((20, 25),), radius=2))
        assert {file.name for file in project.iterdir() if file.name.startswith(".")} == {".lock"}
        after = session.canvas("a").labels.copy()
    np.testing.assert_array_equal(read_labels(project / "labels" / "a.tif"), after)


def test_a_disk_without_room_for_labels_is_named(project, monkeypatch):
    monkeypatch.setattr(parts, "LARGE", 100)
    monkeypatch.setattr(held, "IN_MEMORY", 100)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(held, "_reserve", full)
    with Session(project) as session, pytest.raises(InputError, match="has no room for the labels of 40 x 50 pixels"):
        session.canvas("a")


def test_areas_and_what_was_looked_at_follow_every_change(project, monkeypatch):
    monkeypatch.setattr(canvas_module, "STRIP", 100)  # two rows
    with Session(project) as session:
        for operation in (
            Accept("a", labels=(1,)),
            Paint("a", stroke=((20, 25), (25, 28)), radius=3, label=2),
            Erase("a", stroke=((7, 7),), radius=2),
            Delete("a", (3,)),
        ):
            session.apply(operation)
            canvas = session.canvas("a")
            assert [canvas.area(k) for k in range(1, 9)] == [int((canvas.labels == k).sum()) for k in range(1, 9)]
            assert canvas.looked_at() == set(np.unique(canvas.labels[canvas.reviewed]).tolist()) - {0}
            assert canvas.share_reviewed() == pytest.approx(canvas.reviewed.mean())
            for label in canvas.things:
                rows, columns = np.nonzero(canvas.labels == label)
                assert canvas.box([label]) == (rows.min(), columns.min(), rows.max() + 1, columns.max() + 1)


def test_a_list_of_images_needs_no_label_image(project, monkeypatch):
    with Session(project) as session:
        session.apply(Accept("a", box=(0, 0, 20, 50)))
        before = [session.progress(name) for name in session.images]
    monkeypatch.setattr(Session, "_read", lambda *_: pytest.fail("it was read"))
    with Session(project) as session:
        assert [session.progress(name) for name in session.images] == before


def test_a_list_of_images_notices_files_that_others_have_written(project):
    with Session(project) as session:
        session.apply(Accept("b"))
    write_labels(project / "labels" / "a.tif", np.where(FOUND == 1, 1, 0))
    (project / "reviewed" / "b.png").unlink()
    (project / "objects" / "c.json").write_text('{"revision": 0, "summary": 3, "objects": {}}')
    with Session(project) as session:
        states = [session.progress(name) for name in session.images]
    assert [own.objects for own in states] == [1, 3, 3]
    assert [own.state for own in states] == ["segmented"] * 3


def test_pyramids_are_no_data(project):
    (project / "pyramids" / "a").mkdir(parents=True)
    np.save(project / "pyramids" / "a" / "level-0.npy", FOUND)
    write_image(project / "pyramids" / "a" / "b.png", np.zeros((4, 4, 1), np.uint8))
    with Session(project) as session:
        assert session.images == ("a", "b", "c")
        session.apply(Accept("a"))
    assert layout_of(project) == "session"
    assert open_dataset(project).names == ("a",)
