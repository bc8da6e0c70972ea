"""Linking: who is who from frame to frame."""

import doctest
import inspect
import itertools
import subprocess
import sys

import numpy as np
import pytest

from attractor import InputError
from attractor.tracking import Pointing, Track, link
from attractor.tracking.choosing import chosen
from attractor.tracking.drift import drift_between
from attractor.tracking.hypotheses import NOBODY, Hypotheses
from attractor.tracking.objects import objects_of

SHAPE = (60, 80)
GLOBALS = {"link": link, "Track": Track}


def discs(places, radius=5, shape=SHAPE, numbers=None):
    """A label image with a disc, or a ball, at each place, numbered from 1 or as given."""
    labels = np.zeros(shape, np.int32)
    grid = np.indices(shape)
    for number, place in zip(numbers or range(1, len(places) + 1), places, strict=True):
        distance = sum((axis - middle) ** 2 for axis, middle in zip(grid, place, strict=True))
        labels[distance <= radius**2] = number
    return labels


def ids_at(frame, places):
    return [int(frame[tuple(np.rint(place).astype(int))]) for place in places]


def followed(paths, **options):
    """The ids that link gives to objects whose places, by frame, are known; and its tracks."""
    frames = [discs(places) for places in paths]
    linked = link(iter(frames), **options)
    ids = [ids_at(frame, places) for frame, places in zip(linked, paths, strict=True)]
    return ids, linked.tracks


def test_objects_that_stay_keep_their_numbers():
    ids, tracks = followed([[(20, 20), (20, 50)]] * 3)
    assert ids == [[1, 2]] * 3
    assert tracks == [Track(1, 0, 2), Track(2, 0, 2)]


def test_an_object_that_moves_by_more_than_its_size_is_still_the_same():
    ids, tracks = followed([[(20, 20 + 13 * t)] for t in range(4)])  # 11 pixels across
    assert ids == [[1]] * 4
    assert len(tracks) == 1


def pointing_at(labels, places_before):
    """A frame all of whose objects point at these places, in the order of their labels."""
    steps = np.zeros((2, *labels.shape))
    for number, place in enumerate(places_before, 1):
        inside = labels == number
        steps[:, inside] = np.array(place)[:, None] - np.argwhere(inside).T
    return Pointing(labels, steps)


def test_where_pixels_point_decides_between_objects_that_overlap_alike():
    before, after = [(20, 20), (20, 32)], [(20, 26), (20, 38)]  # moved on by half of what lies between them
    still = list(link([discs(before), discs(after)], drift=False))[1]
    assert ids_at(still, after) == [1, 2]
    swapped = list(link([discs(before), pointing_at(discs(after), before[::-1])], drift=False))[1]
    assert ids_at(swapped, after) == [2, 1]


def test_children_that_point_at_one_parent_are_its_children():
    before, after = [(20, 40)], [(20, 28), (20, 52)]
    frames = [discs(before, radius=7), discs(after)]
    apart = link(frames)
    list(apart)
    assert [track.parent for track in apart.tracks] == [0, 0]
    told = link([frames[0], pointing_at(frames[1], before * 2)])
    list(told)
    assert [track.parent for track in told.tracks] == [0, 1, 1]


def test_pixels_that_point_at_nothing_or_out_of_the_frame_count_for_nobody():
    places = [(20, 20), (20, 50)]
    labels = discs(places)
    lost = list(link([labels, pointing_at(labels, [(50, 70), (-30, 999)])]))[1]
    assert ids_at(lost, places) == [1, 2]
    empty = np.zeros_like(labels)
    assert [frame.max() for frame in link([empty, pointing_at(labels, places)])] == [0, 2]
    assert [frame.max() for frame in link([labels, Pointing(empty, np.zeros((2, *SHAPE)))])] == [2, 0]


@pytest.mark.parametrize("n_cells", [1, 5])
def test_a_crumb_that_points_at_a_cell_is_not_the_cell(n_cells):
    before, after = np.zeros((2, 40, 40 * n_cells), np.int32)
    middles = []
    for k in range(n_cells):
        before[10:30, 40 * k + 10 : 40 * k + 30] = k + 1
        middles.append((19.5, 40 * k + 19.5))
        after[10:28, 40 * k + 10 : 40 * k + 30] = k + 1  # the body
    after[28:31, 10:13] = n_cells + 1  # the crumb
    told = pointing_at(after, [*middles, middles[0]])
    told.steps[0, 10, :] = -15  # a row of each body does not know
    second = list(link([before, told], drift=False))[1]
    assert int(second[20, 15]) == 1
    assert int(second[29, 11]) == n_cells + 1


def test_an_object_that_was_missed_is_not_where_others_point():
    places = [(20, 20), (20, 50)]
    both, one = discs(places), discs(places[1:], numbers=[2])
    frames = [both, one, pointing_at(both, places)]
    assert ids_at(list(link(frames))[2], places) == [1, 2]


def test_steps_of_another_shape_are_refused():
    labels = discs([(20, 20)])
    with pytest.raises(InputError, match=r"Frame 1 has steps of shape \(2, 60, 79\), but frames of 60 x 80 pixels"):
        list(link([labels, Pointing(labels, np.zeros((2, 60, 79)))]))


def test_an_object_beyond_reach_is_another():
    paths = [[(20, 20)], [(20, 60)]]
    assert followed(paths)[0] == [[1], [2]]
    assert followed(paths, max_distance=45.0, drift=False)[0] == [[1], [1]]


def test_labels_of_frames_do_not_matter():
    places = [(20, 15), (20, 40), (45, 30), (45, 65)]
    paths = [[(r + t, c + 2 * t) for r, c in places] for t in range(4)]
    plain = link([discs(path) for path in paths])
    mixed = link([discs(path, numbers=[9, 4, 700, 2]) if t % 2 else discs(path) for t, path in enumerate(paths)])
    assert all((one == other).all() for one, other in zip(plain, mixed, strict=True))


def test_objects_that_swap_sides_slowly_are_not_mistaken_for_each_other():
    paths = [[(20, 20 + 4 * t), (32, 40 - 4 * t)] for t in range(6)]
    assert followed(paths)[0] == [[1, 2]] * 6


def test_the_frame_s_own_shift_is_no_movement():
    places = [(20, 15), (14, 40), (45, 22), (40, 50), (24, 60)]
    moved = [[(r + 9 * t, c + 7 * t) for r, c in places] for t in range(2)]
    frames = [discs(path, radius=3) for path in moved]
    assert drift_between(*frames).tolist() == [9, 7]
    linked = link(frames)
    assert [ids_at(frame, path) for frame, path in zip(linked, moved, strict=True)] == [[1, 2, 3, 4, 5]] * 2


def test_small_movements_are_no_shift():
    assert drift_between(discs([(20, 20)]), discs([(21, 20)])).tolist() == [0, 0]
    assert drift_between(discs([]), discs([])).tolist() == [0, 0]


def test_an_object_that_is_missed_for_a_frame_keeps_its_number():
    paths = [[(20, 20), (20, 50)], [(20, 20)], [(20, 20), (20, 50)]]
    assert followed(paths)[0] == [[1, 2], [1], [1, 2]]
    assert followed(paths, max_gap=0)[0] == [[1, 2], [1], [1, 3]]


def test_a_gap_is_closed_only_if_it_is_short():
    paths = [[(20, 20), (20, 50)], [(20, 20)], [(20, 20)], [(20, 20), (20, 50)]]
    assert followed(paths)[0][-1] == [1, 3]
    ids, tracks = followed(paths, max_gap=2)
    assert ids[-1] == [1, 2]
    assert tracks[1] == Track(2, 0, 3)


def test_an_object_that_divides_has_two_children():
    whole = discs([(20, 40)], radius=8)
    halves = np.where(np.arange(SHAPE[1])[None, :] < 40, whole, 2 * whole)
    halves[:, 39:41] = 0
    linked = link([whole, halves])
    frames = list(linked)
    assert linked.tracks == [Track(1, 0, 0), Track(2, 1, 1, parent=1), Track(3, 1, 1, parent=1)]
    assert set(np.unique(frames[1])) == {0, 2, 3}


def test_without_divisions_one_half_goes_on():
    whole = discs([(20, 40)], radius=8)
    halves = np.where(np.arange(SHAPE[1])[None, :] < 40, whole, 2 * whole)
    linked = link([whole, halves], divisions=False)
    list(linked)
    assert [track.parent for track in linked.tracks] == [0, 0]
    assert linked.tracks[0].end == 1


def test_something_new_beside_an_object_is_no_child():
    ids, tracks = followed([[(20, 20)], [(20, 20), (20, 36)]])
    assert ids == [[1], [1, 2]]
    assert tracks[1].parent == 0


def test_dividing_neighbours_get_their_own_children():
    """Rods side by side that all divide at once: halves of neighbours lie nearer to each other than to their own."""
    before, after = np.zeros((2, 40, 60), np.int32)
    for k in range(4):
        before[2 + 9 * k : 9 + 9 * k, 10:50] = k + 1
        after[2 + 9 * k : 9 + 9 * k, 9:29] = 2 * k + 1
        after[2 + 9 * k : 9 + 9 * k, 31:51] = 2 * k + 2
    linked = link([before, after])
    frames = list(linked)
    parents = {track.id: track.parent for track in linked.tracks}
    for k in range(4):
        assert [parents[number] for number in ids_at(frames[1], [(5 + 9 * k, 20), (5 + 9 * k, 40)])] == [k + 1, k + 1]


def test_slices_of_a_volume_are_joined_to_objects():
    slices = [discs([(20, 20)], radius=radius) for radius in (3, 5, 7, 8, 7, 5, 4)]
    slices = [np.maximum(plane, 2 * discs([(22, 50)], radius=6)) for plane in slices]
    mixed = [np.where(plane > 0, 3 - plane, 0) if z % 2 else plane for z, plane in enumerate(slices)]
    joined = link(mixed, divisions=False, drift=False)
    assert [ids_at(plane, [(20, 20), (22, 50)]) for plane in joined] == [[1, 2]] * 7


@pytest.mark.parametrize("shape", [(80,), (60, 80), (20, 30, 30)])
def test_frames_may_have_any_number_of_axes(shape):
    frames = [discs([[length // 2 + t for length in shape]], radius=3, shape=shape) for t in range(3)]
    assert [int(frame.max()) for frame in link(frames)] == [1, 1, 1]


def test_a_step_along_an_axis_counts_by_its_length():
    paths = [[(20, 20)], [(30, 20)]]
    frames = [discs(path) for path in paths]
    near, far = (link(frames, max_distance=15.0, spacing=spacing, drift=False) for spacing in ((1.0, 1.0), (2.0, 1.0)))
    assert [frame.max() for frame in near] == [1, 1]
    assert [frame.max() for frame in far] == [1, 2]


def test_empty_frames_are_frames():
    nothing = np.zeros(SHAPE, int)
    linked = link([nothing, discs([(20, 20)]), nothing, nothing, nothing])
    assert [frame.max() for frame in linked] == [0, 1, 0, 0, 0]
    assert linked.tracks == [Track(1, 1, 1)]
    assert list(link([])) == []


def test_frames_stay_as_they_are_and_are_taken_one_by_one():
    frames = [discs([(20, 20 + t)]) for t in range(3)]
    taken = []
    linked = link(taken.append(t) or frame for t, frame in enumerate(frames))
    copies = [frame.copy() for frame in frames]
    next(linked)
    assert taken == [0]
    list(linked)
    assert all((frame == copy).all() for frame, copy in zip(frames, copies, strict=True))


MEMORY = """
import tracemalloc
import numpy as np
from attractor.tracking import link

def film(n):
    for t in range(n):
        frame = np.zeros((300, 400), int)
        frame[20 + t % 3 : 30, 20 : 30 + t % 4] = 1
        yield frame

for n in (10, 10, 80):
    tracemalloc.start()
    for _ in link(film(n)):
        pass
    print(tracemalloc.get_traced_memory()[1])
    tracemalloc.stop()
"""


def test_memory_does_not_grow_with_the_film():
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    _, short, long = map(int, done.stdout.split())  # the first film also loads what is needed
    assert long < 1.3 * short


def test_what_is_chosen_is_the_best_of_all_sets():
    random = np.random.default_rng(0)
    for _ in range(30):
        n_earlier, n_later = random.integers(1, 4), random.integers(2, 5)
        ones = [(p, c, NOBODY) for p in range(n_earlier) for c in range(n_later)]
        twos = [(p, c, d) for p in range(n_earlier) for c, d in itertools.combinations(range(n_later), 2)]
        every = np.array(ones + twos)
        some = every[random.random(len(every)) < 0.5]
        gains = random.normal(0.3, 0.5, len(some))
        given = Hypotheses(some[:, 0].astype(np.int64), some[:, 1:].astype(np.int64).reshape(-1, 2))
        found = chosen(given, gains, int(n_earlier), int(n_later))
        assert _is_possible(some[found])
        assert np.isclose(gains[found].sum(), _best_sum(some, gains))


def _is_possible(rows):
    children = [child for row in rows for child in row[1:] if child != NOBODY]
    return len(set(rows[:, 0])) == len(rows) and len(set(children)) == len(children)


def _best_sum(rows, gains):
    best = 0.0
    for size in range(1, min(4, len(rows)) + 1):
        for places in itertools.combinations(range(len(rows)), size):
            if _is_possible(rows[list(places)]):
                best = max(best, gains[list(places)].sum())
    return best


def test_objects_know_their_pixels():
    found = objects_of(np.array([[0, 5, 5], [2, 0, 5]]))
    assert found.labels.tolist() == [2, 5]
    assert found.sizes.tolist() == [1, 3]
    assert np.allclose(found.centres, [[1, 0], [1 / 3, 5 / 3]])


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([np.zeros((4, 5), int), np.zeros((4, 6), int)], "Frame 1 has 4 x 6 pixels, but the frame before has 4 x 5"),
        ([np.zeros((4, 5))], "Frame 0 is an array of float64"),
        ([np.full((4, 5), -1)], "negative label -1"),
    ],
)
def test_frames_that_cannot_be_linked_are_refused(frames, message):
    with pytest.raises(InputError, match=message):
        list(link(frames))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_distance": 0.0}, "max_distance is 0"),
        ({"max_gap": -1}, "max_gap is -1"),
        ({"spacing": (1.0, 0.0)}, "spacing is 0"),
        ({"spacing": (1.0, 1.0, 1.0)}, "The spacing has 3 numbers, but frames have 2 axes"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        list(link([np.zeros((4, 5), int)], **options))


@pytest.mark.parametrize("function", [link, Track])
def test_examples_are_true(function):
    (example,) = doctest.DocTestFinder(recurse=False).find(inspect.unwrap(function), function.__name__, globs=GLOBALS)
    assert doctest.DocTestRunner().run(example).failed == 0
