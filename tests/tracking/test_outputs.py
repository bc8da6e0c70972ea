"""What is written of a film: tables, pictures, graphs, and all of it or nothing."""

import csv
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.tracking.conftest import frame

from attractor import InputError
from attractor.tracking import link
from attractor.tracking.outputs import TRACK_OUTPUTS, check_track_outputs, write_tracks
from attractor.tracking.pictures import GREYS, Painter, lineage_tree, palette
from attractor.tracking.tables import Measured, Scale
from attractor.tracks import Track

N = 5


def write(out, formats, frames=None, scale=None):
    linked = link(frames or [frame(t) for t in range(N)])
    images = ((np.full((*one.shape, 1), 9, np.uint8), one) for one in linked)
    return write_tracks(out, "film", images, lambda: linked.tracks, formats=formats, scale=scale)


def rows(path):
    with Path(path).open() as file:
        return list(csv.DictReader(file))


@pytest.mark.parametrize("name", TRACK_OUTPUTS)
def test_every_output_is_written(name, tmp_path):
    for needed in ("av", "geff", "matplotlib"):
        pytest.importorskip(needed)
    made = write(tmp_path, (name,))
    assert made
    assert sorted(tmp_path.iterdir()) == sorted(made)  # nothing else is left
    assert write(tmp_path, (name,)) == made  # what is there is replaced
    assert sorted(tmp_path.iterdir()) == sorted(made)


def test_nothing_is_written_if_a_frame_fails(tmp_path):
    frames = [frame(0), frame(1)[:9]]
    with pytest.raises(InputError, match="Frame 1 has 9 x 48 pixels"):
        write(tmp_path / "out", ("ctc", "csv", "gif"), frames)
    assert list((tmp_path / "out").iterdir()) == []


def test_formats_that_are_not_there_are_refused(monkeypatch):
    with pytest.raises(InputError, match="There is no format 'avi'; the formats are ctc, csv"):
        check_track_outputs(["avi"])
    with pytest.raises(InputError, match="No format is given"):
        check_track_outputs([])
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"The format mp4 needs av, which is not installed. To install"):
        check_track_outputs(["mp4"])


def test_the_table_of_tracks_says_what_became_of_each(tmp_path):
    write(tmp_path, ("csv",), scale=Scale((0.5, 0.25), 10.0))
    first, second, third, _ = rows(tmp_path / "film_tracks.csv")
    assert (first["begin"], first["end"], first["children"], first["frames"]) == ("0", "4", "0", "5")
    assert (first["path"], first["distance"], first["speed"], first["growth"]) == ("4", "4", "1", "0")
    assert (first["path_um"], first["duration_s"], first["speed_um_per_s"]) == ("1", "40", "0.025")
    assert second["children"] == "2"
    assert third["parent"] == "2"
    objects = rows(tmp_path / "film_objects.csv")
    assert len(objects) == 2 + 2 + 3 * 3
    assert objects[2] | {"frame": "1", "time_s": "10", "area": "100", "area_um2": "12.5"} == objects[2]
    assert (objects[2]["centroid_column"], objects[2]["centroid_column_um"]) == ("9.5", "2.375")


def test_what_is_not_known_is_empty(tmp_path):
    write(tmp_path, ("csv",), [frame(0)])
    first = rows(tmp_path / "film_tracks.csv")[0]
    assert (first["speed"], first["growth"], first["path"]) == ("", "", "0")
    assert "path_um" not in first


def test_growth_is_by_frame():
    measured = Measured(Scale())
    for size in (1, 2, 4):
        measured.add(np.array([[1] * size + [0] * (4 - size)]))
    assert measured.tracks([Track(1, 0, 2)])["growth"] == [1.0]


@pytest.mark.parametrize("scale", [{"pixel_size": (0.0, 1.0)}, {"seconds": -1.0}])
def test_impossible_scales_are_refused(scale):
    with pytest.raises(InputError, match="it must be a finite number"):
        Scale(**scale)


def test_a_gif_has_all_frames_in_the_colours_of_ids(tmp_path):
    write(tmp_path, ("gif",))
    seen = []
    with Image.open(tmp_path / "film.gif") as film:
        assert (film.n_frames, film.size, film.info["duration"], film.info["loop"]) == (N, (48, 40), 100, 0)
        for t in range(N):
            film.seek(t)
            seen.append(np.asarray(film.convert("RGB"))[4, 5 + t].tolist())
    assert seen == [palette()[GREYS + 1].tolist()] * N


def test_a_large_frame_is_shrunk_and_a_dark_one_is_dark():
    picture = Painter().paint(np.zeros((1300, 40, 1)), np.zeros((1300, 40), int))
    assert picture.shape == (434, 14)
    assert not picture.any()


def test_an_mp4_has_all_frames(tmp_path):
    av = pytest.importorskip("av")
    write(tmp_path, ("mp4",))
    with av.open(str(tmp_path / "film.mp4")) as film:
        assert sum(1 for _ in film.decode(video=0)) == N


def test_a_tree_has_a_line_for_each_track_and_child():
    pytest.importorskip("matplotlib")
    tracks = [Track(1, 0, 2), Track(2, 0, 1), Track(3, 2, 4, 2), Track(4, 2, 4, 2)]
    axes = lineage_tree(tracks).axes[0]
    assert len(axes.lines) == 4 + 2
    assert axes.get_title(loc="left") == "4 tracks, 1 division"
    heights = [line.get_ydata()[0] for line in axes.lines[:2]]
    assert heights == [0, 1.5]  # a parent between its children
    assert lineage_tree([]).axes[0].lines[:] == []


def test_a_track_of_one_frame_is_seen_in_the_tree():
    pytest.importorskip("matplotlib")
    lines = lineage_tree([Track(1, 0, 4, 0), Track(2, 3, 3, 0)]).axes[0].lines
    assert [line.get_marker() for line in lines] == ["None", "."]


def test_a_geff_has_a_node_for_each_object_and_an_edge_for_each_link(tmp_path):
    geff = pytest.importorskip("geff")
    write(tmp_path, ("geff",), scale=Scale((0.5, 0.5), 10.0))
    graph, metadata = geff.read(tmp_path / "film.geff")
    assert graph.number_of_nodes() == 2 + 2 + 3 * 3
    assert graph.number_of_edges() == 4 + 1 + 2 + 2 * 2
    assert sorted(graph.nodes[1]) == ["size", "t", "track_id", "x", "y"]
    assert [axis.name for axis in metadata.axes] == ["t", "y", "x"]
