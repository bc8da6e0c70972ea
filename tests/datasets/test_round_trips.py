"""The law that what is written in any layout reads back equal, or is refused before anything is there.

Equal are names, pixels, objects with all of their pixels, the class of each by its name, and what is ignored; but for
what a layout says that it cannot hold.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attractor.datasets import DATASETS, layout_of, open_dataset
from attractor.datasets.converting import convert
from attractor.datasets.layout import Holds
from attractor.datasets.sample import Sample, whole
from attractor.errors import InputError
from attractor.instances import Annotations, Instances

STEMS = (
    "a", "a b", "..", ".a", "a.b", "a.png", "a_rois", "a_rois_rois", "a_rgb", "a_label", "plant1", "plant1_rgb",
    "images", "labels", "masks", "annotations", "instances_a", "a_objects", "x_1_2", "_1_2", "._1_2",
    "aachen_000000_000019", "a_leftImg8bit", "JPEGImages", "SegmentationObject", "leftImg8bit", "gtFine", "..\\a",
    "C:a", "a_overlay", "\ufeffa", " a", "a ", "a\nb", "\ud800", "background", "A1", "x" * 300,
)  # fmt: skip
CLASSES = (
    "cell", "object", "Ignore*", "__ignore__", "#a", "", "background", "a: b", ": ", "a:", "::", "car", "bicycle",
    "cat",     "a\nb", "\ud800", " a", "a\u2028", "\ufeffa", "x" * 1000, "_background_", "0", "null",
)  # fmt: skip
CITY, SPARE = ("person", "rider", "car", "bus"), ("cell", "nucleus")
KINDS = ((np.uint8, 3), (np.uint8, 1), (np.uint16, 1), (np.uint16, 3), (np.float32, 1))


def names(known: tuple[str, ...]) -> st.SearchStrategy[str]:
    """Names that something stumbled over, or any others."""
    return st.one_of(
        st.sampled_from(known), st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=6)
    )


class Given:
    """A data set in memory."""

    def __init__(self, samples: list[Sample], class_names: tuple[str, ...]) -> None:
        self._samples, self.class_names = samples, class_names
        self.names = tuple(sample.name for sample in samples)
        self.columns: dict[str, dict[str, str]] = {}

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[index]


@dataclass(frozen=True)
class Plan:
    """What an image is to be like."""

    name: str
    shape: tuple[int, int]
    kind: tuple[type, int]  # of its pixels, and channels
    n_objects: int
    density: float  # share of the pixels that each object claims
    is_overlapping: bool
    is_void: bool  # whether some pixels are neither object nor background
    seed: int

    def sample(self, n_classes: int) -> Sample:
        """Objects that touch, overlap, lie in each other or in pieces, each with a pixel of its own."""
        random = np.random.default_rng(self.seed)
        image = random.integers(0, 255, (*self.shape, self.kind[1])).astype(self.kind[0])
        claims = random.random((self.n_objects, *self.shape)) < self.density
        if not self.is_overlapping:
            claims &= np.cumsum(claims, axis=0) == 1
        claims = claims[(claims & (claims.sum(axis=0) == 1)).any(axis=(1, 2))]
        own, n = claims & (claims.sum(axis=0) == 1), len(claims)
        labels = (own * np.arange(1, n + 1)[:, None, None]).sum(axis=0).astype(np.int32)
        classes = random.integers(1, n_classes + 1, n).astype(np.int32)
        void = (random.random(self.shape) < 0.3 * self.is_void) & ~claims.any(axis=0)
        truth = Instances.from_masks(list(claims), classes, np.ones(n, np.float32), self.shape)
        ignore = void | (claims.sum(axis=0) > 1)
        return Sample(self.name, image, labels, classes, ignore, lambda: Annotations.of(truth, void))


PLANS = st.builds(
    Plan,
    names(STEMS),
    st.tuples(st.integers(1, 9), st.integers(1, 9)),
    st.sampled_from(KINDS),
    st.integers(0, 7),
    st.sampled_from([0.1, 0.5, 0.9]),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)


def official(name: str, layout: str, place: int) -> str:
    """What an image is called when read: names in Cityscapes have a form of their own, and frames have numbers."""
    if layout == "ctc":
        return f"01_t{place:03}"
    if layout != "cityscapes":
        return name
    stem = name.removesuffix("_leftImg8bit")
    city, *numbers = stem.split("_")
    if city and len(numbers) == 2 and all(number.isdigit() for number in numbers):
        return f"{stem}_leftImg8bit"
    return f"{name.replace('_', '-')}_000000_000000_leftImg8bit"


def objects(sample: Sample, class_names: tuple[str, ...], holds: Holds) -> Counter[tuple[bytes, str]]:
    """The pixels of each object, all of them where the layout holds that, and its class's name."""
    found = whole(sample)[0] if holds.overlaps else Instances.from_labels(sample.labels)
    classes = [class_names[number - 1] if holds.classes else "" for number in sample.classes]
    return Counter((found.mask(k).tobytes(), name) for k, name in enumerate(classes, 1))


def ignored(sample: Sample, holds: Holds) -> np.ndarray:
    """What is ignored, as far as the layout can hold it: overlaps become ignored by themselves."""
    if holds.ignore or (holds.overlaps and sample.annotate is None):
        return sample.ignore
    if not holds.overlaps or sample.annotate is None:
        return np.zeros(sample.labels.shape, bool)
    return sample.ignore & ~sample.annotate().void


def refusal(given_set: Given, out: Path, layout: str) -> str:
    """What is said of a data set that cannot be written; nothing if it was."""
    try:
        convert(given_set, out, layout)
    except InputError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("layout", DATASETS)
@settings(max_examples=60, deadline=None, derandomize=True)
@given(
    plans=st.lists(PLANS, min_size=1, max_size=3, unique_by=lambda plan: plan.name),
    class_names=st.sampled_from([CITY, SPARE]) | st.lists(names(CLASSES), min_size=1, max_size=3).map(tuple),
)
def test_what_is_written_reads_back_equal_or_is_refused(layout, plans, class_names):
    given_set = Given([plan.sample(len(class_names)) for plan in plans], class_names)
    with TemporaryDirectory() as folder:  # pytest's own would be one for all examples
        out = Path(folder) / "out"
        if said := refusal(given_set, out, layout):
            assert not list(out.parent.iterdir()), "something was left behind"
            assert len(said) < 2000
            return
        assert list(out.parent.iterdir()) == [out]
        assert layout_of(out) == layout
        found, holds = open_dataset(out), DATASETS[layout].holds
        truth = {official(sample.name, layout, place): sample for place, sample in enumerate(given_set)}
        assert sorted(found.names) == sorted(truth)
        for one in found:
            own = truth[one.name]
            np.testing.assert_array_equal(one.image, own.image)
            assert objects(one, found.class_names, holds) == objects(own, given_set.class_names, holds)
            np.testing.assert_array_equal(one.ignore, ignored(own, holds))


@pytest.mark.parametrize("layout", DATASETS)
def test_plain_names_are_refused_by_no_layout(layout, tmp_path):
    names = CITY if layout == "cityscapes" else SPARE
    sample = Sample(
        "a b", np.zeros((2, 3, 3), np.uint8), np.eye(2, 3, dtype=np.int32), np.array([2]), np.zeros((2, 3), bool)
    )
    convert(Given([sample], names), tmp_path / "out", layout)
    assert len(open_dataset(tmp_path / "out")) == 1
