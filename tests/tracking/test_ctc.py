"""Films in the form of the Cell Tracking Challenge."""

import numpy as np
import pytest
import tifffile
from tests.tracking.conftest import frame

from attractor import InputError
from attractor.datasets.tracked import MOST_TRACKS, read_result, read_truth
from attractor.tracking import link
from attractor.tracking.ctc import ResultWriter, write_result
from attractor.tracking.scoring import evaluate_films
from attractor.tracks import Track


def written(folder, frames, tracks=()):
    folder.mkdir()
    write_result(folder, frames, lambda: list(tracks))
    return folder


def test_the_truth_of_a_film_is_read(film):
    truth = read_truth(film / "01_GT")
    assert truth.name == "01"
    assert truth.tracks[2] == Track(3, 2, 4, parent=2)
    assert [number for number, _ in truth.outlined] == [0, 2, 4]
    assert all((one == frame(t)).all() for t, one in enumerate(truth.frames()))


def test_what_is_written_is_read(film):
    linked = link([frame(t) for t in range(5)])
    result = read_result(written(film / "01_RES", linked, []))
    assert [path.name for path in result.files][:2] == ["mask000.tif", "mask001.tif"]
    assert len(list(result.frames())) == 5
    tracks = linked.tracks
    again = read_result(written(film / "02_RES", link([frame(t) for t in range(5)]), tracks))
    assert list(again.tracks) == tracks


def test_names_have_as_many_digits_as_the_last_frame_needs(tmp_path):
    files = read_result(written(tmp_path / "r", (np.ones((1, 1), int) for _ in range(1001)))).files
    assert (files[0].name, files[-1].name) == ("mask0000.tif", "mask1000.tif")


def test_an_object_that_was_missed_goes_on_as_an_only_child(tmp_path):
    one, nothing, two = np.array([[1, 0]]), np.array([[0, 0]]), np.array([[1, 2]])
    folder = written(
        tmp_path / "r", [one, nothing, two, nothing, np.array([[3, 4]])], [Track(3, 4, 4, 1), Track(4, 4, 4, 1)]
    )
    result = read_result(folder)
    assert (folder / "res_track.txt").read_text() == "1 0 0 0\n2 2 2 1\n3 2 2 0\n4 4 4 2\n5 4 4 2\n"
    assert [frame.tolist() for frame in result.frames()] == [[[1, 0]], [[0, 0]], [[2, 3]], [[0, 0]], [[4, 5]]]


def test_a_film_with_too_many_tracks_is_refused(tmp_path):
    writer = ResultWriter(tmp_path)
    writer.add(np.array([[MOST_TRACKS]]))
    with pytest.raises(InputError, match=r"more than 65,535 tracks, .* give --format labels"):
        writer.add(np.array([[MOST_TRACKS + 1]]))


def spoil(film, change):
    """Change something in a film of which everything is right."""
    folder = film / "01_GT/TRA"
    if change == "no list":
        (folder / "man_track.txt").unlink()
    elif change == "no mask":
        (folder / "man_track003.tif").unlink()
    elif change == "not listed":
        tifffile.imwrite(folder / "man_track001.tif", np.full((40, 48), 9, np.uint16))
    elif change == "missing":
        tifffile.imwrite(folder / "man_track001.tif", np.where(frame(1) == 2, 0, frame(1)).astype(np.uint16))
    elif change == "size":
        tifffile.imwrite(folder / "man_track004.tif", frame(4).astype(np.uint16)[:20])
    elif change == "twice":
        tifffile.imwrite(folder / "man_track1.tif", frame(1).astype(np.uint16))
    elif change == "outlines":
        tifffile.imwrite(film / "01_GT/SEG/man_seg009.tif", frame(1).astype(np.uint16))
    else:
        (folder / "man_track.txt").write_text(change)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("no list", "man_track.txt: cannot be read: No such file or directory; it must list the tracks"),
        ("no mask", "lacks the masks of 1 frame up to frame 4: 3; add them"),
        ("not listed", "man_track001.tif: has object 9, which the list of tracks does not have for frame 1"),
        ("missing", "man_track001.tif: lacks object 2, which the list of tracks has for frame 1; end the track"),
        ("size", "man_track004.tif: has 20 x 48 pixels, but man_track000.tif has 40 x 48"),
        ("twice", "man_track001.tif and man_track1.tif are of the same frame"),
        ("outlines", "man_seg009.tif: is of frame 9, but the film has 5 frames"),
        ("1 0 4\n", "line 1 is '1 0 4'; it must be four whole numbers"),
        ("a b c d\n", "line 1 is 'a b c d'"),
        ("1 0 9 0\n", "track 1 ends in frame 9, but there are masks of 5 frames"),
        ("70000 0 4 0\n", "a track has the id 70000; masks of 16 bits hold ids up to 65,535"),
        ("1 0 4 8\n", "track 1 has the parent 8, which is not listed"),
    ],
)
def test_a_film_that_does_not_fit_together_is_refused(film, change, message):
    spoil(film, change)
    with pytest.raises(InputError, match=message):
        list(read_truth(film / "01_GT").frames())


def test_what_is_no_film_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such folder; it must hold mask000.tif"):
        read_result(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"holds no mask; they must be named mask000.tif"):
        read_result(tmp_path)


def test_found_tracks_are_scored_by_the_film_s_name(film):
    written(film / "01_RES", [frame(t) for t in range(5)], read_truth(film / "01_GT").tracks)
    scores = evaluate_films(film, film).films[0]
    assert (scores.name, scores.tra, scores.seg, scores.n_frames) == ("01", 1, 1, 5)
    alone = evaluate_films(film / "01_RES", film / "01_GT", metric="mots").films[0]
    assert alone.hota == 1


def test_films_that_cannot_be_scored_are_refused(film, tmp_path):
    with pytest.raises(InputError, match='There is no metric of tracks "tra"; there are: ctc, mots'):
        evaluate_films(film, film, metric="tra")
    with pytest.raises(InputError, match=r"films: holds no tracks: neither res_track.txt nor a folder such as 01_RES"):
        evaluate_films(film, film)
    with pytest.raises(InputError, match="x: no such folder; give the one that holds results"):
        evaluate_films(film / "x", film)
    result = written(film / "01_RES", [frame(t) for t in range(4)])
    with pytest.raises(InputError, match=r"01_RES: has masks of 4 frames, but the truth in .*TRA of 5"):
        evaluate_films(film, film)
    with pytest.raises(InputError, match="holds no true tracks: neither a folder TRA nor one such as 01_GT"):
        evaluate_films(film, result)
    with pytest.raises(InputError, match="x: no such folder; give the one that holds true tracks"):
        evaluate_films(film, film / "x")
    written(film / "03_RES", [frame(t) for t in range(5)])
    (film / "01_RES").rename(film / "02_RES")
    with pytest.raises(InputError, match="has no result for the film 01 of films; results are folders named 01_RES"):
        evaluate_films(film, film)
