"""Data sets in parts: every image once, groups whole, the same parts for the same seed."""

import pytest

from attractor.datasets import Sample
from attractor.datasets.splitting import folds, split
from attractor.errors import InputError


class Names:
    """A data set that is never read."""

    class_names = ("object",)

    def __init__(self, n: int, kinds: int = 1) -> None:
        self.names = tuple(f"{k:03}" for k in range(n))
        self.columns = {"kind": {name: str(int(name) % kinds) for name in self.names}}

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Sample:
        raise NotImplementedError


def test_a_split_takes_each_image_once_and_is_the_same_for_the_same_seed():
    dataset = Names(40)
    training, validation = split(dataset, 0.1, 3)
    assert (len(training), len(validation)) == (36, 4)
    assert sorted(training.names + validation.names) == list(dataset.names)
    assert split(dataset, 0.1, 3)[1].names == validation.names
    assert split(dataset, 0.1, 4)[1].names != validation.names


@pytest.mark.parametrize("share", [0.001, 0.5, 0.999])
def test_each_part_has_at_least_one_image(share):
    for n in (2, 3, 7):
        training, validation = split(Names(n), share, 0)
        assert len(training) >= 1
        assert len(validation) >= 1
        assert len(training) + len(validation) == n


def test_a_split_by_a_column_gives_each_value_its_share():
    dataset = Names(60, kinds=3)
    _, validation = split(dataset, 0.2, 0, by="kind")
    kinds = [dataset.columns["kind"][name] for name in validation.names]
    assert sorted(kinds) == ["0"] * 4 + ["1"] * 4 + ["2"] * 4


def test_a_split_that_cannot_be_is_refused():
    for n, what in ((0, "0 images"), (1, "1 image;")):
        with pytest.raises(InputError, match=f"has {what}"):
            split(Names(n), 0.5, 0)
    for share in (0.0, 1.0, -1.0, float("nan")):
        with pytest.raises(InputError, match="above 0 and below 1"):
            split(Names(5), share, 0)
    with pytest.raises(InputError, match="no column 'stain' to split by; its columns: kind"):
        split(Names(5), 0.5, 0, by="stain")


def test_groups_are_never_divided():
    dataset, groups = Names(40), [str(index % 8) for index in range(40)]
    training, validation = split(dataset, 0.2, 3, groups=groups)
    assert sorted(training.names + validation.names) == list(dataset.names)
    assert not {int(name) % 8 for name in training.names} & {int(name) % 8 for name in validation.names}
    assert len(validation) == 10  # two groups; 8 images are wanted
    assert split(dataset, 0.2, 3, groups=groups)[1].names == validation.names
    assert len({split(dataset, 0.2, seed, groups=groups)[1].names for seed in range(5)}) > 1


@pytest.mark.parametrize("sizes", [[9, 1], [5, 5], [1, 1, 8], [1, 9]])
@pytest.mark.parametrize("share", [0.01, 0.3, 0.99])
def test_with_groups_each_part_has_images_too(sizes, share):
    groups = [str(group) for group, size in enumerate(sizes) for _ in range(size)]
    for seed in range(5):
        parts = split(Names(len(groups)), share, seed, groups=groups)
        assert all(parts)


def test_one_group_cannot_be_divided():
    with pytest.raises(InputError, match=r"All images are of one group.*data\.validation"):
        split(Names(4), 0.5, 0, groups=["a"] * 4)


def test_folds_hold_every_image_once_and_share_those_with_objects():
    parts = folds(3, [True, False, True, True, False, True, False], seed=0)
    assert sorted(index for part in parts for index in part) == list(range(7))
    assert [sum(index in (0, 2, 3, 5) for index in part) for part in parts] == [2, 1, 1]
    assert parts == folds(3, [True, False, True, True, False, True, False], seed=0)


@pytest.mark.parametrize("n", [1, 3])
def test_folds_that_cannot_be(n):
    with pytest.raises(InputError, match=rf"data\.folds is {n}; it must be at least 2, and at most"):
        folds(n, [True, True, False], seed=0)


def test_folds_keep_groups_whole_and_are_of_about_equal_size():
    groups = ["a"] * 6 + ["b"] * 2 + ["c"] * 2 + ["d"] * 2 + ["e"]
    parts = folds(2, [group in "abe" for group in groups], 0, groups)
    assert sorted(index for part in parts for index in part) == list(range(13))
    kinds = [{groups[index] for index in part} for part in parts]
    assert not kinds[0] & kinds[1]
    assert all(own & set("abe") for own in kinds)
    assert sorted(map(len, parts)) == [6, 7]
    with pytest.raises(InputError, match=r"data\.folds is 4.*the number of groups of images with objects, 3"):
        folds(4, [group in "abe" for group in groups], 0, groups)
