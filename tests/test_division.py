"""Which images are learned from and which are validated on: both have objects, and groups are never divided."""

import pytest
from tests.test_runs import write_images

from attractor.datasets.label_images import LabelImages, write_label_images
from attractor.division import parts_of
from attractor.errors import InputError
from attractor.recipe import Reader, recipe_of


def parts(data, **more):
    recipe = recipe_of({"data": {"train": str(data), **more}})
    return [[*part.names] for part in parts_of(recipe, Reader())]


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("n_objects", [[3, 0, 2], [0, 2, 3], [2, 3, 0]])
def test_validation_images_have_objects(tmp_path, n_objects, seed):
    training, validation = parts(write_images(tmp_path / "data", n_objects), split_seed=seed)
    assert sorted(training + validation) == ["image_0", "image_1", "image_2"]
    for part in (training, validation):
        assert any(n_objects[int(name[-1])] for name in part)


def test_one_image_with_objects_is_too_few(tmp_path):
    data = write_images(tmp_path / "data", [3, 0])
    with pytest.raises(InputError, match="only one of the 2 images, image_0, has an object; training needs two"):
        parts(data)


def test_images_to_validate_on_that_have_no_object_are_refused(tmp_path):
    data, empty = write_images(tmp_path / "data", [3, 3]), write_images(tmp_path / "empty", [0, 0])
    with pytest.raises(InputError, match="empty: none of the 2 images to validate on has an object"):
        parts(data, validation=str(empty))


def test_images_of_one_group_are_never_in_both_parts(tmp_path):
    plain = LabelImages(write_images(tmp_path / "plain", [3] * 6))
    wells = dict(zip(plain.names, "112233", strict=True))
    data = tmp_path / "data"
    write_label_images(data, [plain[index] for index in range(6)], columns={"well": wells})
    training, validation = parts(data, validation=0.3, groups="well")
    assert (len(training), len(validation)) == (4, 2)
    assert not {wells[name] for name in training} & {wells[name] for name in validation}
    training, validation = parts(data, validation=0.3, groups="alike")
    assert sorted(training + validation) == sorted(plain.names)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ({"groups": "stain"}, r"no column 'stain' to group by; its columns: none"),
        (
            {"groups": "well", "split_by": "well"},
            r"data\.split_by divides each value of a column and data\.groups",
        ),
        ({"groups": "alike", "validation": "data"}, r"data\.groups says how to split data\.train"),
        ({"split_by": "well", "validation": "data"}, r"data\.split_by says how to split data\.train"),
    ],
)
def test_groups_that_cannot_be(tmp_path, monkeypatch, keys, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=message):
        parts(write_images(tmp_path / "data", [3, 3]), **keys)
