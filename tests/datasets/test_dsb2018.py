"""Data Science Bowl 2018: masks and tables become nuclei, submissions are written, files that cannot be used are named.

Run lengths are held to pycocotools, which counts down the columns, too.
"""

import pickle
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as official

from attractor.datasets import DATASETS, Sample, layout_of, open_dataset
from attractor.datasets.checking import check
from attractor.datasets.dsb2018 import Dsb2018, read_dsb_submission, write_dsb2018, write_dsb_submission
from attractor.errors import InputError
from attractor.instances import Annotations, Instances, decode_mask

FIRST = np.array([[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]], bool)
SECOND = np.array([[0, 0, 0, 1], [0, 1, 1, 1], [0, 0, 0, 0]], bool)  # shares row 1, column 1 with the first


def add_image(folder: Path, name: str, masks: list[np.ndarray] | None = None, shape: tuple[int, int] = (3, 4)) -> Path:
    """An image with alpha, as the competition has it, and its masks, if there are any."""
    (folder / name / "images").mkdir(parents=True)
    Image.fromarray(np.full((*shape, 4), 7, np.uint8)).save(folder / name / "images" / f"{name}.png")
    if masks is not None:
        (folder / name / "masks").mkdir()
        for k, mask in enumerate(masks):
            Image.fromarray(np.where(mask, 255, 0).astype(np.uint8)).save(folder / name / "masks" / f"{9 - k}.png")
    return folder / name


@pytest.fixture
def solved(tmp_path: Path) -> Path:
    """stage1_test with its solution beside it, and a sample submission that must not be taken for truth."""
    folder = tmp_path / "stage1_test"
    for name in ("a", "b", "c"):
        add_image(folder, name)
    (tmp_path / "stage1_sample_submission.csv").write_text("ImageId,EncodedPixels\na,1 1\nb,1 1\nc,1 1\n")
    (tmp_path / "stage1_solution.csv").write_text(
        "ImageId,EncodedPixels,Height,Width,Usage\n"
        "a,1 2 4 2,3,4,Private\na,10 2,3,4,Private\nb,,3,4,Private\nc,1 1,3,4,Ignored\n"
    )
    return folder


# --- masks


def test_each_mask_is_a_nucleus(tmp_path):
    add_image(tmp_path, "a", [FIRST & ~SECOND, SECOND])
    assert layout_of(tmp_path) == "dsb2018"
    dataset = open_dataset(tmp_path)
    assert isinstance(dataset, Dsb2018)
    assert (dataset.names, dataset.class_names, dataset.columns) == (("a",), ("nucleus",), {})
    sample = dataset[0]
    assert sample.labels.tolist() == [[2, 2, 0, 1], [2, 1, 1, 1], [0, 0, 0, 0]]  # in the order of the files' names
    assert sample.classes.tolist() == [1, 1]
    assert sample.image.shape == (3, 4, 3)
    assert not sample.ignore.any()
    assert sample.annotate is None
    assert dataset.overlap_share(0) == 0


def test_pixels_that_two_masks_claim_are_ignored_and_annotations_keep_them(tmp_path):
    add_image(tmp_path, "a", [SECOND, FIRST])
    dataset = Dsb2018(tmp_path)
    sample = pickle.loads(pickle.dumps(dataset[0]))  # as a process that loads samples for training sends it
    assert sample.labels.tolist() == [[1, 1, 0, 2], [1, 0, 2, 2], [0, 0, 0, 0]]
    assert np.argwhere(sample.ignore).tolist() == [[1, 1]]
    assert dataset.overlap_share(0) == 1 / 7
    annotations = sample.annotate()
    assert isinstance(annotations, Annotations)
    for runs, mask in zip(annotations.masks, (FIRST, SECOND), strict=True):
        np.testing.assert_array_equal(decode_mask(runs, mask.shape), mask)
    assert annotations.areas.tolist() == [4, 4]
    assert annotations.classes.tolist() == [1, 1]
    assert not annotations.is_crowd.any()
    assert not annotations.void.any()


def test_empty_and_repeated_masks_leave_no_object_and_check_says_so(tmp_path):
    add_image(tmp_path, "a", [FIRST, np.zeros((3, 4), bool)])
    add_image(tmp_path, "b", [SECOND, SECOND, FIRST & ~SECOND])
    dataset = Dsb2018(tmp_path)
    assert [len(sample.classes) for sample in dataset] == [1, 1]
    assert [dataset.object_count(k) for k in range(2)] == [2, 3]
    report = check(tmp_path)
    assert report.errors == ()
    assert any("3 annotated objects left out, as others claim all of their pixels: b (2), a (1)" in warning
               for warning in report.warnings)  # fmt: skip


def test_a_folder_of_masks_without_any_is_an_image_without_an_object(tmp_path):
    add_image(tmp_path, "a", [])
    sample = Dsb2018(tmp_path)[0]
    assert sample.classes.shape == (0,)
    assert not sample.labels.any()


def test_other_files_and_folders_are_passed_over(tmp_path):
    folder = add_image(tmp_path, "a b ü", [FIRST])
    (folder / "masks" / "._0.png").touch()
    (folder / "masks" / "Thumbs.db").touch()
    (tmp_path / "__MACOSX").mkdir()
    (tmp_path / ".hidden" / "images").mkdir(parents=True)
    dataset = open_dataset(tmp_path)
    assert dataset.names == ("a b ü",)
    assert dataset[0].classes.tolist() == [1]


def test_a_folder_of_data_sets_is_not_taken_for_one(tmp_path):
    for part in ("train", "test"):
        for name in ("images", "masks"):
            (tmp_path / part / name).mkdir(parents=True)
            for k in range(2):
                Image.fromarray(np.zeros((2, 3), np.uint8)).save(tmp_path / part / name / f"{k}.png")
    assert not Dsb2018.recognises(tmp_path)


def overlapping(name: str) -> Sample:
    """Three objects of which two overlap, as a sample that knows its whole masks."""
    masks = [np.zeros((20, 30), bool) for _ in range(3)]
    masks[0][2:9, 3:9], masks[1][7:15, 5:20], masks[2][0, 0] = True, True, True
    truth = Instances.from_masks(masks, np.ones(3, np.int32), np.ones(3, np.float32), (20, 30))
    twice = np.sum(masks, axis=0) > 1
    annotations = Annotations.of(truth, np.zeros((20, 30), bool))
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3)).astype(np.uint8)
    return Sample(
        name, image, np.where(twice, 0, truth.labels).astype(np.int32), truth.classes, twice, lambda: annotations
    )


def plain(name: str, dtype: type = np.uint8) -> Sample:
    """Twelve objects that do not overlap."""
    labels = np.repeat(np.arange(13, dtype=np.int32), 5).reshape(5, 13)
    image = np.random.default_rng(0).integers(0, 256, (5, 13, 3)).astype(dtype)
    return Sample(name, image, labels, np.ones(12, np.int32), np.zeros((5, 13), bool))


def test_samples_written_come_back(tmp_path):
    empty = np.zeros((2, 2), np.int32)
    samples = [
        overlapping("a"),
        plain("b c"),
        plain("d", np.uint16),
        Sample("ü", np.zeros((2, 2, 1), np.uint8), empty, np.zeros(0, np.int32), empty > 0),
    ]
    write_dsb2018(tmp_path / "new", samples, ("nucleus",))
    for truth, found in zip(samples, open_dataset(tmp_path / "new"), strict=True):
        assert found.name == truth.name
        for part in ("image", "labels", "classes", "ignore"):
            np.testing.assert_array_equal(getattr(found, part), getattr(truth, part))
        assert (found.annotate is None) == (truth.annotate is None)
    ours, theirs = samples[0].annotate(), open_dataset(tmp_path / "new")[0].annotate()
    for a, b in zip(ours.masks, theirs.masks, strict=True):
        np.testing.assert_array_equal(a, b)


def test_crowds_are_not_written_as_nuclei(tmp_path):
    sample = overlapping("a")
    annotations = sample.annotate()
    annotations.is_crowd[1] = True
    write_dsb2018(tmp_path, [sample])
    assert len(list((tmp_path / "a" / "masks").iterdir())) == 2


def test_what_cannot_be_written_is_refused(tmp_path):
    with pytest.raises(InputError, match="two images are named 'a'"):
        write_dsb2018(tmp_path / "x", [plain("a"), plain("a")])
    with pytest.raises(InputError, match=r"images: holds a\.png already; remove the folder, or write to another one"):
        write_dsb2018(tmp_path / "x", [plain("a")])
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be made"):
        write_dsb2018(tmp_path / "file", [plain("a")])


# --- tables


def test_a_table_beside_the_folder_stands_in_for_masks(solved):
    assert layout_of(solved) == "dsb2018"
    dataset = open_dataset(solved)
    assert dataset.names == ("a", "b")  # c was never scored
    assert dataset[0].labels.tolist() == [[1, 1, 0, 2], [1, 1, 0, 2], [0, 0, 0, 0]]
    assert dataset[1].classes.shape == (0,)
    assert [dataset.object_count(k) for k in range(2)] == [2, 0]


def test_masks_win_over_a_table(solved):
    (solved / "a" / "masks").mkdir()
    assert open_dataset(solved)[0].classes.shape == (0,)


def test_a_table_without_sizes_is_read_too(solved):
    table = solved.parent / "stage1_solution.csv"
    table.unlink()
    table = solved.parent / "stage1_train_labels.csv"
    table.write_text("\ufeffImageId,EncodedPixels\n\na,1 2 1 3\nb,12 1\nc,\n", encoding="utf-8")
    dataset = open_dataset(solved)
    assert dataset.names == ("a", "b", "c")
    assert dataset[0].labels.T.ravel().tolist() == [1, 1, 1] + [0] * 9
    assert dataset[1].labels[2, 3] == 1


def test_tables_in_the_folder_or_named_by_a_relative_path_are_found(solved, monkeypatch):
    monkeypatch.chdir(solved)
    assert len(Dsb2018(".")) == 2
    (solved.parent / "stage1_solution.csv").rename(solved / "stage2_solution_final.csv")
    assert len(Dsb2018(solved)) == 2


def test_of_many_masks_that_overlap_one_at_a_time_is_in_memory(tmp_path):
    add_image(tmp_path / "test", "a", shape=(400, 500))
    rows = [f"a,{k} 100" for k in range(1, 301)]
    (tmp_path / "stage1_solution.csv").write_text("\n".join(["ImageId,EncodedPixels", *rows]))
    dataset = Dsb2018(tmp_path / "test")
    tracemalloc.start()
    masks = dataset[0].annotate().masks
    found = read_dsb_submission(tmp_path / "stage1_solution.csv", {"a": (400, 500)})["a"]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30 << 20  # all together are 60 million bytes
    assert [runs.tolist() for runs in found.masks] == [runs.tolist() for runs in masks]
    assert found.labels[:400, 0].tolist() == [max(1, row - 98) for row in range(399)] + [0]  # the earlier row wins


def test_images_without_masks_or_table_are_named_up_to_three(solved):
    add_image(solved, "d")
    (solved.parent / "stage1_solution.csv").unlink()
    assert layout_of(solved) == "dsb2018"
    with pytest.raises(InputError, match=r"(?s)a: has no masks/, nor a row in a table .*c: has.*and 1 more like these"):
        open_dataset(solved)


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("a,1 2 3,3,4", "image a: its EncodedPixels '1 2 3' are 3 numbers; they must be pairs"),
        ("a,1 x,3,4", "its EncodedPixels '1 x' are not whole numbers"),
        ("a,1.5 2,3,4", "are not whole numbers"),
        ("a,1 99999999999999999999,3,4", "are not whole numbers"),
        ("a,0 2,3,4", "its EncodedPixels '0 2' leave the image of 3 x 4 pixels; pixels count from 1"),
        ("a,12 2,3,4", "leave the image"),
        ("a,9223372036854775807 9223372036854775807,3,4", "leave the image"),
        ("a,5 0,3,4", "leave the image"),
        ("a,1 1,4,3", "image a: Height and Width are '4' x '3', but the image has 3 x 4 pixels"),
    ],
)
def test_a_row_that_cannot_be_used_is_named(solved, row, message):
    (solved.parent / "stage1_solution.csv").write_text(f"ImageId,EncodedPixels,Height,Width\nb,,3,4\nc,,3,4\n{row}\n")
    with pytest.raises(InputError, match=rf"stage1_solution\.csv: .*{message}"):
        Dsb2018(solved)[0]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the columns are none; there must be ImageId and EncodedPixels"),
        (b"id,runs\n", "the columns are 'id', 'runs'; there must be"),
        (b"\xff\xfe\x00", "cannot be read as a table"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(solved, content, message):
    (solved.parent / "stage1_solution.csv").write_bytes(content)
    with pytest.raises(InputError, match=rf"stage1_solution\.csv: {message}"):
        Dsb2018(solved)


# --- submissions


def random_labels(generator: np.random.Generator) -> np.ndarray:
    """Up to five objects in pieces, some without a pixel."""
    shape = tuple(generator.integers(1, 20, 2))
    return (generator.integers(0, 6, shape) * (generator.random(shape) < generator.random())).astype(np.int32)


def instances(labels: np.ndarray, n: int = 5) -> Instances:
    """That many objects, whether or not each has a pixel."""
    return Instances(labels, np.ones(n, np.int32), np.ones(n, np.float32))


def test_a_submission_has_a_row_for_each_object_and_an_empty_one_without(tmp_path):
    labels = np.array([[0, 2, 2], [1, 2, 0]], np.int32)
    write_dsb_submission(
        tmp_path / "s.csv", [("b", instances(labels, 3)), ("a", instances(np.zeros((2, 2), np.int32), 0))]
    )
    assert (tmp_path / "s.csv").read_text() == "ImageId,EncodedPixels\nb,2 1\nb,3 3\na,\n"


def test_runs_are_those_of_pycocotools(tmp_path):
    generator = np.random.default_rng(0)
    for _ in range(200):
        labels = random_labels(generator)
        write_dsb_submission(tmp_path / "s.csv", [("a", instances(labels))])
        lines = (tmp_path / "s.csv").read_text().splitlines()[1:]
        expected = []
        for k in np.unique(labels[labels > 0]):
            counts = official.encode(np.asfortranarray((labels == k).astype(np.uint8)))
            mask = official.decode(counts).ravel(order="F").astype(int)
            edges = np.diff(mask, prepend=0, append=0)
            starts, ends = np.flatnonzero(edges == 1) + 1, np.flatnonzero(edges == -1) + 1
            expected.append("a," + " ".join(f"{s} {e - s}" for s, e in zip(starts, ends, strict=True)))
        assert lines == (expected or ["a,"])


def test_a_submission_written_comes_back(tmp_path):
    generator = np.random.default_rng(1)
    results = {name: instances(random_labels(generator)) for name in ("a", "b, c", "ü")}
    results["full"] = Instances.from_labels(np.ones((3, 5), np.int32))
    results["none"] = instances(np.zeros((3, 4), np.int32), 0)
    write_dsb_submission(tmp_path / "s.csv", results.items())
    found = read_dsb_submission(tmp_path / "s.csv", {name: result.labels.shape for name, result in results.items()})
    assert list(found) == list(results)
    for name, result in results.items():
        np.testing.assert_array_equal(found[name].labels, Instances.from_labels(result.labels).labels)
        assert found[name].masks is None


def test_rows_longer_than_the_csv_module_allows_come_back(tmp_path):
    labels = (np.indices((300, 300)).sum(axis=0) % 2).astype(np.int32)  # a chessboard
    write_dsb_submission(tmp_path / "s.csv", [("a", Instances.from_labels(labels))])
    assert (tmp_path / "s.csv").stat().st_size > 2**17
    np.testing.assert_array_equal(read_dsb_submission(tmp_path / "s.csv", {"a": (300, 300)})["a"].labels, labels)


def test_masks_of_a_submission_that_overlap_are_kept_whole(tmp_path):
    (tmp_path / "s.csv").write_text("ImageId,EncodedPixels\na,1 3\na,2 3\n")
    found = read_dsb_submission(tmp_path / "s.csv", {"a": (2, 2)})["a"]
    assert found.labels.T.ravel().tolist() == [1, 1, 1, 2]
    assert found.mask(2).T.ravel().tolist() == [False, True, True, True]


def test_a_submission_that_does_not_fit_the_images_is_refused(tmp_path):
    file = tmp_path / "s.csv"
    file.write_text("ImageId,EncodedPixels\na,1 3\n")
    sizes = dict.fromkeys("abcde", (2, 2))
    with pytest.raises(InputError, match=r"s\.csv: has no row for b, c, d and 1 more; it must have at least one"):
        read_dsb_submission(file, sizes)
    with pytest.raises(InputError, match="has rows for other images: a; it must"):
        read_dsb_submission(file, {})
    with pytest.raises(InputError, match="image a: its EncodedPixels '1 3' leave the image of 1 x 2"):
        read_dsb_submission(file, {"a": (1, 2)})
    with pytest.raises(InputError, match="two results are named 'a'"):
        write_dsb_submission(tmp_path / "new.csv", [("a", instances(np.zeros((2, 2), np.int32)))] * 2)
    assert not (tmp_path / "new.csv").exists()


# --- files that cannot be used


def test_a_zip_file_is_to_be_unpacked_first(tmp_path):
    (tmp_path / "stage1_train.zip").write_bytes(b"PK")
    with pytest.raises(InputError, match=r"stage1_train\.zip: is a zip file; unpack it first, and give the folder"):
        open_dataset(tmp_path / "stage1_train.zip")


def test_a_mask_of_another_size_is_refused_when_read(tmp_path):
    add_image(tmp_path, "a", [np.zeros((5, 6), bool)])
    with pytest.raises(InputError, match=r"masks/9\.png: has 5 x 6 pixels, but its image a\.png has 3 x 4; both must"):
        Dsb2018(tmp_path)[0]


def test_folders_without_one_image_are_named_and_the_others_salvaged(tmp_path):
    add_image(tmp_path, "a", [FIRST])
    (tmp_path / "b" / "masks").mkdir(parents=True)
    two = add_image(tmp_path, "c", [FIRST])
    (two / "images" / "d.png").write_bytes((two / "images" / "c.png").read_bytes())
    with pytest.raises(InputError, match=r"(?s)b/images: holds 0 images; there must be one\..*c/images: holds 2 im"):
        Dsb2018(tmp_path)
    dataset, problems = Dsb2018.salvage(tmp_path)
    assert dataset.names == ("a",)
    assert len(problems) == 2


def test_a_folder_without_images_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"holds no annotated image\. Accepted is Data Science Bowl 2018: a folder"):
        Dsb2018(tmp_path)


def test_dsb2018_is_listed():
    assert DATASETS["dsb2018"] is Dsb2018


def test_a_submission_may_name_images_that_were_never_scored(solved, tmp_path):
    dataset = open_dataset(solved)
    assert (dataset.names, dataset.unscored) == (("a", "b"), ("c",))
    rows = "ImageId,EncodedPixels\na,1 2\nb,\nc,1 1\n"
    (tmp_path / "mine.csv").write_text(rows)
    sizes = {"a": (3, 4), "b": (3, 4)}
    with pytest.raises(InputError, match="has rows for other images: c"):
        read_dsb_submission(tmp_path / "mine.csv", sizes)
    found = read_dsb_submission(tmp_path / "mine.csv", sizes, unscored=dataset.unscored)
    assert {name: len(one) for name, one in found.items()} == {"a": 1, "b": 0}
