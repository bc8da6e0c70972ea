"""OME-Zarr: images of both versions are read part by part, and labels are written that others open."""

import json

import numpy as np
import pytest
import yaozarrs
import zarr

from attractor.errors import InputError
from attractor.images.ome_zarr import (
    consolidate_again,
    copy_without_labels,
    has_labels,
    is_ome_zarr,
    make_labels,
    open_labels,
    open_ome_zarr,
)

PIXELS = np.arange(2 * 40 * 60, dtype=np.uint16).reshape(2, 40, 60)


def write(path, pixels=PIXELS, axes="cyx", version="0.5", levels=2, scale=True, unit="micrometer", channels=()):
    """An image whose pixels are half a unit wide and a quarter high."""
    is_new = version == "0.5"
    group = zarr.open_group(path, mode="w", zarr_format=3 if is_new else 2)
    datasets = []
    for level in range(levels):
        every = tuple(slice(None, None, 2**level if axis in "yx" else 1) for axis in axes)
        own = pixels[every]
        how = {"dimension_names": list(axes)} if is_new else {"chunk_key_encoding": {"name": "v2", "separator": "/"}}
        chunks = tuple(16 if axis in "yx" else 1 for axis in axes)
        group.create_array(str(level), shape=own.shape, dtype=own.dtype, chunks=chunks, **how)[...] = own
        lengths = [{"y": 0.25, "x": 0.5}.get(axis, 1.0) * (2**level if axis in "yx" else 1) for axis in axes]
        dataset = {"path": str(level)}
        if scale:
            dataset["coordinateTransformations"] = [{"type": "scale", "scale": lengths}]
        datasets.append(dataset)
    kinds = {"t": "time", "c": "channel"}
    named = [
        {"name": axis, "type": kinds.get(axis, "space")} | ({"unit": unit} if axis in "zyx" else {}) for axis in axes
    ]
    about = {"multiscales": [{"name": "image", "axes": named, "datasets": datasets}]}
    if channels:
        shown = {"color": "FFFFFF", "window": {"min": 0, "max": 9, "start": 0, "end": 9}}
        about["omero"] = {"channels": [{"label": name, **shown} for name in channels]}
    if is_new:
        group.attrs["ome"] = {"version": "0.5", **about}
    else:
        about["multiscales"][0]["version"] = "0.4"
        group.attrs.update(about)
    return path


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_parts_of_an_image_are_its_pixels(version, tmp_path):
    image = open_ome_zarr(write(tmp_path / "a.zarr", version=version))
    assert image.version == version
    finest, halved = image.level(0), image.level(1)
    assert finest.shape == (40, 60, 2)
    assert finest.dtype == np.uint16
    assert np.array_equal(finest[10:30, 5:50], np.moveaxis(PIXELS[:, 10:30, 5:50], 0, 2))
    assert np.array_equal(halved[0:20, 0:30], np.moveaxis(PIXELS[:, ::2, ::2], 0, 2))
    assert image.pixel_size(0) == (0.25, 0.5)
    assert image.pixel_size(1) == (0.5, 1.0)


def test_channels_are_chosen_by_number_or_name(tmp_path):
    image = open_ome_zarr(write(tmp_path / "a.zarr", channels=["DAPI", "GFP"]))
    assert np.array_equal(image.level(channels=["GFP"])[0:40, 0:60][..., 0], PIXELS[1])
    assert np.array_equal(image.level(channels=["1", "DAPI"])[0:40, 0:60], np.moveaxis(PIXELS[::-1], 0, 2))
    with pytest.raises(InputError, match="has no channel 'RFP'; channels are 0 to 1, or by name: DAPI, GFP"):
        image.level(channels=["RFP"])
    with pytest.raises(InputError, match="has no channel '2'"):
        image.level(channels=["2"])


def test_a_place_along_further_axes_must_be_chosen(tmp_path):
    stack = np.arange(3 * 40 * 60, dtype=np.uint8).reshape(1, 3, 40, 60)
    image = open_ome_zarr(write(tmp_path / "a.zarr", stack, "tzyx"))
    assert np.array_equal(image.level(plane={"z": 2})[0:40, 0:60][..., 0], stack[0, 2])
    with pytest.raises(InputError, match="has 3 places along z; choose one, as by --plane z=0"):
        image.level()
    with pytest.raises(InputError, match="has no place 3 along z; there are 3, from 0"):
        image.level(plane={"z": 3})
    with pytest.raises(InputError, match="has no axis 'q' to choose a place on; its axes are tzyx"):
        image.level(plane={"z": 0, "q": 1})


def test_axes_may_be_in_another_order(tmp_path):
    image = open_ome_zarr(write(tmp_path / "a.zarr", PIXELS[0], "xy"))
    assert image.level().shape == (60, 40, 1)
    assert np.array_equal(image.level()[3:9, 0:40][..., 0], PIXELS[0].T[3:9])


@pytest.mark.parametrize(
    ("given", "size"),
    [({"scale": False}, None), ({"unit": "parsec"}, None), ({"unit": "nanometer"}, (0.00025, 0.0005))],
)
def test_a_pixel_size_is_what_the_file_says(given, size, tmp_path):
    assert open_ome_zarr(write(tmp_path / "a.zarr", **given)).pixel_size(0) == pytest.approx(size)


def test_one_of_several_images(tmp_path):
    group = zarr.open_group(tmp_path / "a.zarr", mode="w")
    group.attrs["ome"] = {"version": "0.5", "bioformats2raw.layout": 3}
    write(tmp_path / "a.zarr" / "0", PIXELS[:1])
    assert open_ome_zarr(tmp_path / "a.zarr").level().shape == (40, 60, 1)
    write(tmp_path / "a.zarr" / "1")
    assert open_ome_zarr(tmp_path / "a.zarr", "1").level().shape == (40, 60, 2)
    with pytest.raises(InputError, match="holds 2 images; choose one by --image: 0, 1"):
        open_ome_zarr(tmp_path / "a.zarr")
    with pytest.raises(InputError, match="has no image '2'; choose one by --image: 0, 1"):
        open_ome_zarr(tmp_path / "a.zarr", "2")
    with pytest.raises(InputError, match="is a single image; leave --image out"):
        open_ome_zarr(tmp_path / "a.zarr" / "1", "0")


def test_what_is_no_image_is_refused(tmp_path):
    zarr.open_group(tmp_path / "empty.zarr", mode="w")
    zarr.open_group(tmp_path / "plate.zarr", mode="w").attrs["ome"] = {"version": "0.5", "plate": {}}
    zarr.create_array(tmp_path / "array.zarr", shape=(4, 4), dtype="u1")
    broken = {"version": "0.5", "multiscales": [{"axes": []}]}
    zarr.open_group(tmp_path / "broken.zarr", mode="w").attrs["ome"] = broken
    for name, message in {
        "empty": "its metadata have no multiscales; give the group that has them",
        "plate": "is a plate; give the image of one field, such as .*plate.zarr/A/1/0",
        "array": "it is a single array; give a group with multiscales",
        "broken": "its OME-Zarr metadata lack 'datasets'; write the image again",
        "missing": "there is no such file or folder",
    }.items():
        with pytest.raises(InputError, match=message):
            open_ome_zarr(tmp_path / f"{name}.zarr")


def changed(path, change):
    """Change the metadata of an image of version 0.5."""
    group = zarr.open_group(path, mode="r+")
    ome = group.attrs["ome"]
    change(ome)
    group.attrs["ome"] = ome
    return path


def test_metadata_that_do_not_fit_are_refused(tmp_path):
    def other(ome):
        ome["version"] = "0.1"

    def missing(ome):
        ome["multiscales"][0]["datasets"].append({"path": "7"})

    def short(ome):
        ome["multiscales"][0]["axes"].pop(0)

    def strange(ome):
        ome["multiscales"][0]["axes"][0]["name"] = "q"

    for change, message in {
        other: "is OME-Zarr 0.1; versions 0.4 and 0.5 can be read",
        missing: "its level '7' is missing",
        short: "level '0' has 3 axes, and the metadata name yx",
        strange: "has the axes qyx; y and x are needed",
    }.items():
        with pytest.raises(InputError, match=message):
            open_ome_zarr(changed(write(tmp_path / f"{change.__name__}.zarr"), change))


def test_a_damaged_chunk_is_named_where_it_is_read(tmp_path):
    path = write(tmp_path / "a.zarr")
    chunk = path / "0" / "c" / "0" / "1" / "2"
    chunk.write_bytes(chunk.read_bytes()[:7])
    level = open_ome_zarr(path).level()
    assert level[0:16, 0:16].shape == (16, 16, 2)
    with pytest.raises(InputError, match=r"a\.zarr: cannot be read at y 16 to 32, x 32 to 48"):
        level[16:32, 32:48]


def test_a_level_that_is_not_there(tmp_path):
    with pytest.raises(InputError, match="has no level 2; it has 2 levels, from 0"):
        open_ome_zarr(write(tmp_path / "a.zarr")).level(2)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize("axes", ["cyx", "yx", "tczyx"])
def test_labels_are_valid_and_go_with_their_image(version, axes, tmp_path):
    pixels = PIXELS if axes == "cyx" else PIXELS[0] if axes == "yx" else PIXELS[None, :, None]
    path = write(tmp_path / "a.zarr", pixels, axes, version, levels=3)
    image = open_ome_zarr(path)
    shapes = [image.sides(level) for level in range(3)]
    assert not has_labels(path, "attractor")
    make_labels(path, "attractor", shapes, version=version, image=image)
    assert has_labels(path, "attractor")
    levels = open_labels(path, "attractor")
    assert [level.shape for level in levels] == shapes == [(40, 60), (20, 30), (10, 15)]
    levels[0][8:16, 4:8] = np.full((8, 4), 7, np.uint32)
    found = open_labels(path, "attractor")[0][0:40, 0:60]
    assert found.sum() == 7 * 32
    assert found[8:16, 4:8].min() == 7
    groups = ["", "/labels", "/labels/attractor"] if version == "0.5" else ["", "/labels/attractor"]
    for part in groups:  # version 0.4 has no mark by which the list of labels could be known
        yaozarrs.validate_zarr_store(f"{path}{part}")
    about = zarr.open_group(f"{path}/labels/attractor", mode="r")
    attributes = about.attrs["ome"] if version == "0.5" else about.attrs
    assert attributes["image-label"]["source"] == {"image": "../../"}
    assert attributes["multiscales"][0]["datasets"][1]["coordinateTransformations"][0]["scale"][-2:] == [0.5, 1.0]
    assert about["0"].dtype == np.uint32


def test_labels_without_an_image_have_their_pixel_size(tmp_path):
    make_labels(tmp_path / "a.zarr", "attractor", [(30, 40), (15, 20)], pixel_size=(0.25, 0.5))
    yaozarrs.validate_zarr_store(f"{tmp_path}/a.zarr/labels/attractor")
    assert open_ome_zarr(tmp_path / "a.zarr" / "labels" / "attractor").pixel_size(1) == (0.5, 1.0)


def test_other_labels_stay_listed(tmp_path):
    path = write(tmp_path / "a.zarr")
    for name in ("mine", "attractor", "mine"):
        make_labels(path, name, [(40, 60)], image=open_ome_zarr(path))
    assert zarr.open_group(path / "labels", mode="r").attrs["ome"]["labels"] == ["mine", "attractor"]


def test_a_copy_has_the_pixels_and_leaves_the_original_alone(tmp_path):
    path = write(tmp_path / "a.zarr")
    make_labels(path, "mine", [(40, 60)], image=open_ome_zarr(path))
    before = {file: file.read_bytes() for file in path.rglob("*") if file.is_file()}
    image = open_ome_zarr(path)
    copy_without_labels(image, tmp_path / "b.zarr")
    make_labels(tmp_path / "b.zarr", "attractor", [(40, 60), (20, 30)], image=image)
    copy = open_ome_zarr(tmp_path / "b.zarr")
    assert np.array_equal(copy.level()[0:40, 0:60], image.level()[0:40, 0:60])
    assert not has_labels(tmp_path / "b.zarr", "mine")
    yaozarrs.validate_zarr_store(f"{tmp_path}/b.zarr")
    assert {file: file.read_bytes() for file in path.rglob("*") if file.is_file()} == before


@pytest.mark.filterwarnings("ignore:Consolidated metadata is currently not part")
def test_collected_metadata_tell_of_the_labels(tmp_path):
    path = write(tmp_path / "a.zarr")
    zarr.consolidate_metadata(path)
    make_labels(path, "attractor", [(40, 60)], image=open_ome_zarr(path))
    assert "labels" not in zarr.open_group(path, mode="r")
    consolidate_again(path)
    assert "labels/attractor/0" in zarr.open_group(path, mode="r")


def test_a_hierarchy_is_told_from_a_folder_of_images(tmp_path):
    (tmp_path / "zarr.txt").write_text(json.dumps({}))
    assert not is_ome_zarr(tmp_path)
    assert not is_ome_zarr(tmp_path / "none")
    assert is_ome_zarr(write(tmp_path / "a.zarr", version="0.4"))
    assert is_ome_zarr("s3://bucket/image.zarr")
