"""What must hold for tracks."""

import pytest

from attractor import InputError
from attractor.tracks import Track, check_tracks, children_of


def test_children_are_listed_by_parent():
    tracks = [Track(1, 0, 2), Track(2, 3, 4, 1), Track(3, 3, 5, 1), Track(4, 0, 5)]
    assert children_of(tracks) == {1: [2, 3]}
    assert check_tracks(tracks)[4] == tracks[3]


@pytest.mark.parametrize(
    ("tracks", "message"),
    [
        ([Track(0, 0, 1)], "has the id 0"),
        ([Track(1, 0, 1), Track(1, 2, 3)], "track 1 is listed twice"),
        ([Track(1, 3, 1)], "goes from frame 3 to frame 1"),
        ([Track(1, -1, 1)], "goes from frame -1"),
        ([Track(1, 0, 1, parent=7)], "has the parent 7, which is not listed"),
        ([Track(1, 0, 3), Track(2, 3, 4, parent=1)], "its parent 1 ends in frame 3"),
    ],
)
def test_tracks_that_cannot_be_are_refused(tracks, message):
    with pytest.raises(InputError, match=message):
        check_tracks(tracks)
