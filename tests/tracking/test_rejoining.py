"""Divisions that are taken back."""

import numpy as np

from attractor.tracking import Track, link
from attractor.tracking.linking import Linked
from attractor.tracking.rejoining import Rejoined

SHAPE = (30, 40)


def disc(cut=0.0):
    """A disc, alone or cut by a gap of this width."""
    rows, columns = np.indices(SHAPE)
    labels = (((rows - 15) ** 2 + (columns - 20) ** 2) <= 81).astype(np.int32)
    if cut:
        labels[columns > 20] *= 2
        labels[np.abs(columns - 20) < cut] = 0
    return labels


def apart(step):
    """Its halves, each moved away by some pixels."""
    halves = disc(cut=0.6)
    return np.roll(np.where(halves == 1, 1, 0), -step, 1) + np.roll(np.where(halves == 2, 2, 0), step, 1)


def rejoined(frames, max_gap=2):
    whole = Rejoined(link(frames, max_gap=max_gap), max_gap)
    return [np.unique(frame[frame > 0]).tolist() for frame in whole], whole.tracks


def test_an_object_in_pieces_for_a_frame_is_one_object():
    ids, tracks = rejoined([disc(), disc(cut=0.6), disc(), disc()])
    assert ids == [[1]] * 4
    assert tracks == [Track(1, 0, 3)]


def test_pieces_that_stay_are_children():
    ids, tracks = rejoined([disc(), *map(apart, range(1, 5))])
    assert ids == [[1], *[[2, 3]] * 4]
    assert [track.parent for track in tracks] == [0, 1, 1]


def test_an_object_that_is_cut_again_and_again_is_one():
    ids, tracks = rejoined([disc(), disc(cut=0.6), disc(), disc(cut=0.6), disc(), disc()])
    assert ids == [[1]] * 6
    assert tracks == [Track(1, 0, 5)]


def test_only_short_divisions_are_taken_back():
    frames = [disc(), *[disc(cut=0.6)] * 3, disc()]
    assert rejoined(frames, max_gap=3)[0] == [[1]] * 5
    assert rejoined(frames, max_gap=2)[0][1] == [2, 3]
    assert rejoined(frames, max_gap=0)[0][1] == [2, 3]


def test_a_division_after_one_that_was_taken_back_counts():
    _, tracks = rejoined([disc(), disc(cut=0.6), disc(), *map(apart, range(1, 5))])
    assert tracks[0] == Track(1, 0, 2)
    assert [(track.begin, track.parent) for track in tracks[1:]] == [(3, 1), (3, 1)]


class Given(Linked):
    """Frames that somebody else has linked."""

    def __init__(self, frames, tracks):
        super().__init__(frames)
        self._tracks = {track.id: track for track in tracks}

    def __next__(self):
        return next(self._frames)


def test_a_piece_that_has_divided_itself_is_none():
    """The other half grows over most of it meanwhile, and what is left of it are its two children."""
    whole, halves = disc(), disc(cut=0.6) + (disc(cut=0.6) > 0)  # 1, then its children 2 and 3
    grown = np.where(disc() > 0, 3, 0)
    grown[:11][halves[:11] == 2], grown[20:][halves[20:] == 2] = 4, 5
    tracks = [Track(1, 0, 0), Track(2, 1, 1, 1), Track(3, 1, 2, 1), Track(4, 2, 2, 2), Track(5, 2, 2, 2)]
    frames = [whole, halves, grown]
    found = Rejoined(Given([frame.astype(np.int32) for frame in frames], tracks), 2)
    assert [np.unique(frame).tolist() for frame in found] == [[0, 1], [0, 2, 3], [0, 3, 4, 5]]
    assert found.tracks == tracks


def test_films_without_frames_have_none():
    assert rejoined([]) == ([], [])
