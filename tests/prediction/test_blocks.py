"""Objects found block by block are those of the whole image, in any order and after any interruption."""

import itertools

import numpy as np
import pytest

from attractor.errors import InputError
from attractor.methods.points import Points, joined_parts
from attractor.prediction.blocks import MOST_DOUBLED, Grid, Ledger, Seen, touches_rim


class Balls:
    """A method for any number of axes: every pixel of a ball knows the ball's middle, which is its seed."""

    def __init__(self, shape, balls):
        self.middle = np.full((len(shape), *shape), -1, np.int64)
        self.gathered_blocks = []
        for place, radius in balls:
            offsets = np.indices(shape) - np.reshape(place, (-1,) + (1,) * len(shape))
            self.middle[:, (offsets**2).sum(0) <= radius**2] = np.array(place)[:, None]

    def gathered(self, core):
        self.gathered_blocks.append(core)
        middle = self.middle[(slice(None), *core)]
        pixel = np.flatnonzero(middle[0] >= 0).astype(np.int32)
        return [Points(pixel, {"middle": middle.reshape(len(core), -1)[:, pixel]})]

    def seen(self, of_classes, window):
        (points,) = of_classes
        shape = [side.stop - side.start for side in window]
        seeds, owner = np.unique(points.values["middle"], axis=1, return_inverse=True)
        labels = np.zeros(shape, np.int32)
        labels.ravel()[points.pixel] = owner.ravel() + 1
        n = seeds.shape[1]
        corner = tuple(side.start for side in window)
        is_cut = touches_rim(labels, n, window, self.middle.shape[1:])
        sizes = np.bincount(labels.ravel(), minlength=n + 1)[1:]
        return Seen(labels, np.ones(n), np.ones(n, int), corner, seeds.T, is_cut, lambda own: {"size": sizes[own]})


class Picture:
    def __init__(self, shape):
        self.labels, self.painted = np.zeros(shape, np.uint32), np.zeros(shape, int)

    def paint(self, cell, labels):
        self.labels[cell] = labels
        self.painted[cell] += 1


def ledger_of(folder, shape, core, halo=4, cell=8):
    n = len(shape)
    return Ledger(folder, Grid(shape, (core,) * n), (halo,) * n, Grid(shape, (cell,) * n))


def steps_of(ledger):
    """All steps, in an order in which each has what it needs."""
    blocks = range(len(ledger.blocks))
    return [("gather", block) for block in blocks] + [("find", block) for block in blocks]


def run(ledger, finder, steps=None):
    for step, block in steps_of(ledger) if steps is None else steps:
        getattr(ledger, step)(finder, block)
    picture = Picture(ledger.cells.shape)
    for cell in range(len(ledger.cells)):
        ledger.paint(picture, ledger.number(), cell)
    assert (picture.painted == 1).all()
    return picture.labels


def scattered(shape, seed=0, n=40, radii=(0, 3)):
    """Balls that do not touch, some of them cut by the edges."""
    rng, balls = np.random.default_rng(seed), []
    for _ in range(n):
        place, radius = [int(rng.integers(0, side)) for side in shape], int(rng.integers(*radii, endpoint=True))
        if all(np.hypot.reduce(np.subtract(place, other)) > radius + r + 1 for other, r in balls):
            balls.append((place, radius))
    return balls


def assert_same_objects(labels, others):
    """The same objects, whatever their numbers."""
    pairs = np.unique(np.stack([labels.ravel(), others.ravel()]), axis=1)
    assert pairs.shape[1] == len(np.unique(labels)) == len(np.unique(others))
    assert np.array_equal(labels > 0, others > 0)


def test_boxes_cover_an_image_once():
    grid, covered = Grid((10, 7), (4, 3)), np.zeros((10, 7), int)
    for index in range(len(grid)):
        covered[grid.box(index)] += 1
    assert grid.counts == (3, 3)
    assert (covered == 1).all()


def test_blocks_that_meet_a_box_are_those_that_share_pixels_with_it():
    grid = Grid((10, 12), (4, 3))
    for box in itertools.starmap(
        lambda a, b, c, d: (slice(a, a + b), slice(c, c + d)), [(0, 1, 2, 1), (3, 2, 2, 2), (8, 2, 9, 3)]
    ):
        inside = np.zeros(grid.shape, bool)
        inside[box] = True
        assert grid.meeting(box) == [index for index in range(len(grid)) if inside[grid.box(index)].any()]


def test_points_are_counted_in_the_window():
    part, window = (slice(2, 4), slice(4, 8)), (slice(3, 6), slice(2, 6))
    points = Points(np.array([1, 4, 5, 6], np.int32), {"value": np.array([[10, 11, 12, 13]])})
    seen = points.seen_in(window, part)  # of the image's pixels (2, 5), (3, 4), (3, 5) and (3, 6) the middle two
    assert seen.pixel.tolist() == [2, 3]
    assert seen.values["value"].tolist() == [[11, 12]]


def test_parts_of_full_width_and_others_join_alike():
    rng = np.random.default_rng(0)
    image = rng.random((6, 9)) > 0.5
    whole = (slice(0, 6), slice(0, 9))

    def of(box):
        return box, [
            Points(
                np.flatnonzero(image[box]).astype(np.int32),
                {"place": np.argwhere(image[box]).T + [[b.start] for b in box]},
            )
        ]

    strips = joined_parts([of((slice(0, 2), slice(0, 9))), of((slice(2, 6), slice(0, 9)))], whole)
    tiles = joined_parts(
        [of((rows, columns)) for rows in (slice(0, 2), slice(2, 6)) for columns in (slice(0, 4), slice(4, 9))], whole
    )
    for points in (strips[0], tiles[0]):
        assert points.pixel.tolist() == np.flatnonzero(image).tolist()
        assert points.values["place"].T.tolist() == np.argwhere(image).tolist()


@pytest.mark.parametrize("shape", [(90,), (40, 52), (20, 24, 17)])
@pytest.mark.parametrize("core", [8, 16])
def test_blocks_give_the_objects_of_the_whole(shape, core, tmp_path):
    balls = scattered(shape)
    labels = run(ledger_of(tmp_path / "blocks", shape, core), Balls(shape, balls))
    whole = run(ledger_of(tmp_path / "whole", shape, max(shape)), Balls(shape, balls))
    assert whole.max() > 5
    assert_same_objects(labels, whole)


@pytest.mark.parametrize("shape", [(24, 24), (24, 24, 24)])
def test_an_object_on_a_corner_of_blocks_is_one(shape, tmp_path):
    balls = [([8] * len(shape), 3), ([16] * len(shape), 3)]
    labels = run(ledger_of(tmp_path, shape, 8), Balls(shape, balls))
    assert labels.max() == 2
    assert len(np.unique(labels[tuple(slice(5, 12) for _ in shape)])) == 2


def test_an_object_longer_than_the_halo_is_seen_whole(tmp_path):
    finder = Balls((8, 96), [([4, 50], 0)])
    finder.middle[:, 4, 30:70] = np.array([4, 50])[:, None]
    ledger = ledger_of(tmp_path, (8, 96), 8, halo=4)
    labels = run(ledger, finder)
    assert labels[4].tolist() == [0] * 30 + [1] * 40 + [0] * 26
    assert ledger.number().cut == 0


def test_an_object_that_no_halo_reaches_is_reported(tmp_path):
    long = 2 * (4 << MOST_DOUBLED) + 40
    finder = Balls((8, long), [([4, long // 2], 0)])
    finder.middle[:, 4, :] = np.array([4, long // 2])[:, None]
    ledger = ledger_of(tmp_path, (8, long), 8, halo=4)
    run(ledger, finder)
    assert ledger.number().cut == 1


def test_neither_order_nor_interruption_changes_a_byte(tmp_path):
    shape, rng = (40, 52), np.random.default_rng(1)
    balls = scattered(shape)

    def files(folder):
        return {path.name: path.read_bytes() for path in sorted((folder / "objects").iterdir())}

    expected = run(ledger_of(tmp_path / "plain", shape, 8), Balls(shape, balls))
    ledger = ledger_of(tmp_path / "mixed", shape, 8)
    waiting = list(range(len(ledger.blocks)))
    rng.shuffle(waiting)
    while waiting:  # as somebody would who is stopped after every step and begins with another one
        block = waiting.pop()
        if ledger.is_found(block):
            continue
        for near in ledger.around(block):
            if ledger.needs_gathering(near):
                ledger.gather(Balls(shape, balls), near)
        assert ledger.can_be_found(block)
        ledger.find(Balls(shape, balls), block)
    assert files(tmp_path / "mixed") == files(tmp_path / "plain")
    assert np.array_equal(run(ledger, None, steps=[]), expected)


def test_what_was_gathered_is_kept_only_as_long_as_it_is_needed(tmp_path):
    shape = (24, 40)
    ledger, finder = ledger_of(tmp_path, shape, 8), Balls((24, 40), scattered((24, 40)))
    most = 0
    for row in range(4):
        if row < 3:
            for column in range(5):
                ledger.gather(finder, 5 * row + column)
        for column in range(5 if row else 0):
            ledger.find(finder, 5 * (row - 1) + column)
        most = max(most, len(list((tmp_path / "gathered").iterdir())))
    assert most == 10
    assert not list((tmp_path / "gathered").iterdir())
    assert not any(map(ledger.needs_gathering, range(15)))
    assert len(finder.gathered_blocks) == 15


def test_the_table_has_the_numbers_of_the_labels(tmp_path):
    shape = (40, 52)
    ledger = ledger_of(tmp_path, shape, 16)
    labels = run(ledger, Balls(shape, scattered(shape)))
    rows = list(ledger.table(ledger.number()))
    numbers = np.concatenate([part["label"] for part in rows])
    assert numbers.tolist() == list(range(1, labels.max() + 1))
    assert np.concatenate([part["size"] for part in rows]).tolist() == np.bincount(labels.ravel())[1:].tolist()


def test_numbers_wait_for_all_blocks(tmp_path):
    ledger = ledger_of(tmp_path, (16, 16), 8)
    with pytest.raises(InputError, match="4 of 4 blocks are still to be done, such as number 0; let every part run"):
        ledger.number()


def test_a_damaged_file_is_named(tmp_path):
    ledger, finder = ledger_of(tmp_path, (16, 16), 8), Balls((16, 16), [([4, 4], 2)])
    for step, block in steps_of(ledger):
        getattr(ledger, step)(finder, block)
    file = ledger.objects_file(0)
    file.write_bytes(file.read_bytes()[:100])
    with pytest.raises(InputError, match=r"000000.npz: is damaged; remove it, and run the same command again"):
        ledger.number()


def test_where_objects_share_a_pixel_the_higher_score_has_it(tmp_path):
    class Disagreeing(Balls):
        def seen(self, of_classes, window):
            n = 1 + (window[1].stop == 16)
            labels = np.ones((8, 8), np.int32)
            corner = (0, 4) if window[1].start else (0, 0)
            scores, seeds = np.array([0.5 + 0.1 * n]), np.array([[4, 4 if window[1].start == 0 else 12]])
            return Seen(labels, scores, np.array([1]), corner, seeds, np.array([False]), lambda own: {})

    ledger = Ledger(tmp_path, Grid((8, 16), (8, 8)), (0, 0), Grid((8, 16), (8, 16)))
    labels = run(ledger, Disagreeing((8, 16), []))
    assert labels[0].tolist() == [1] * 4 + [2] * 8 + [0] * 4
