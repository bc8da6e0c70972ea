"""Volumes that are no TIFF stack: folders of slices, OME-Zarr and HDF5."""

import dataclasses

import numpy as np
import pytest
import tifffile

from attractor.datasets import open_dataset
from attractor.datasets.converting import convert
from attractor.description import Description
from attractor.errors import InputError
from attractor.images import find_volumes, n_axes_of, pixel_size, read_image, read_labels, write_image, write_labels
from attractor.images.ome_zarr import open_ome_zarr
from attractor.model import Model

SPACING = (2.0, 0.5, 0.25)


@pytest.fixture
def volume():
    return np.random.default_rng(0).integers(0, 60000, (6, 8, 9, 1)).astype(np.uint16)


@pytest.fixture
def labels():
    found = np.zeros((6, 8, 9), np.int32)
    found[1:4, 1:4, 1:5], found[3:6, 5:8, 4:9] = 1, 2
    return found


def slices_of(folder, volume, numbered="slice{}.png", write=write_image):
    folder.mkdir(parents=True)
    for z, plane in enumerate(volume):
        write(folder / numbered.format(z + 7), plane)
    return folder


def zarr_of(path, volume, axes="zyx", spacing=SPACING, unit="micrometer"):
    zarr = pytest.importorskip("zarr")
    path.parent.mkdir(parents=True, exist_ok=True)
    group = zarr.open_group(str(path), mode="w", zarr_format=2)
    group.create_array("0", data=volume)
    kinds = {"c": "channel", "t": "time"}
    described = [
        {"name": axis, "type": kinds.get(axis, "space"), **({"unit": unit} if axis in "zyx" else {})} for axis in axes
    ]
    lengths = dict(zip("zyx", spacing, strict=True))
    scale = [{"type": "scale", "scale": [lengths.get(axis, 1.0) for axis in axes]}]
    datasets = [{"path": "0", "coordinateTransformations": scale}]
    group.attrs["multiscales"] = [{"version": "0.4", "axes": described, "datasets": datasets}]
    return path


def hdf5_of(path, spacing=SPACING, **arrays):
    h5py = pytest.importorskip("h5py")
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file.create_dataset(name, data=array, compression="gzip").attrs["element_size_um"] = spacing
    return path


def test_every_form_gives_the_same_volume(volume, tmp_path):
    written = {
        "slices": (slices_of(tmp_path / "slices", volume), None),
        "zarr": (zarr_of(tmp_path / "a.ome.zarr", volume[..., 0]), SPACING),
        "zarr, other axes": (zarr_of(tmp_path / "b.ome.zarr", volume.transpose(3, 2, 0, 1), "cxzy"), SPACING),
        "hdf5": (hdf5_of(tmp_path / "a.h5", raw=volume[..., 0]), SPACING),
        "hdf5, channels first": (hdf5_of(tmp_path / "b.h5", raw=volume.transpose(3, 0, 1, 2)), SPACING),
    }
    for name, (path, spacing) in written.items():
        found = read_image(path, n_axes=3)
        assert (found.dtype, n_axes_of(path), pixel_size(path, n_axes=3)) == (np.uint16, 3, spacing), name
        np.testing.assert_array_equal(found, volume, err_msg=name)


def test_colours_stay_colours(tmp_path):
    colours = np.random.default_rng(1).integers(0, 255, (5, 8, 9, 3)).astype(np.uint8)
    for path in (
        slices_of(tmp_path / "slices", colours, "{}.png"),
        zarr_of(tmp_path / "a.zarr", colours.transpose(0, 3, 1, 2), "zcyx"),
        hdf5_of(tmp_path / "a.h5", volume=colours),
    ):
        np.testing.assert_array_equal(read_image(path, n_axes=3), colours)


def test_labels_keep_their_numbers(labels, tmp_path):
    labels[labels == 2] = 70_000
    for path in (
        slices_of(tmp_path / "slices", labels, "{}.tif", write_labels),
        zarr_of(tmp_path / "a.ome.zarr", labels),
        hdf5_of(tmp_path / "a.h5", raw=np.zeros((6, 8, 9)), label=labels.astype(np.uint64)),
    ):
        np.testing.assert_array_equal(read_labels(path, n_axes=3), labels)


def test_a_size_that_is_not_told_is_unknown(volume, tmp_path):
    for path in (
        zarr_of(tmp_path / "a.zarr", volume[..., 0], unit="parsec"),
        zarr_of(tmp_path / "b.zarr", volume[..., 0], spacing=(0.0, 1.0, 1.0)),
        hdf5_of(tmp_path / "a.h5", spacing=(1.0, -1.0, 1.0), raw=volume[..., 0]),
    ):
        assert pixel_size(path, n_axes=3) is None


def test_a_data_set_may_hold_every_form(volume, labels, tmp_path):
    data = tmp_path / "data"
    for part, array, write in (("images", volume, write_image), ("labels", labels, write_labels)):
        slices_of(data / part / "slices", array, "{}.tif", write)
        zarr_of(data / part / "zarr.zarr", array.reshape(labels.shape))
        hdf5_of(data / part / "hdf.h5", raw=array.reshape(labels.shape))
    write_image(data / "images" / "stack.tif", volume, n_axes=3, spacing=SPACING)
    write_labels(data / "labels" / "stack.tif", labels, spacing=SPACING)
    slices_of(data / "images" / "thumbnails", volume)  # has no partner, and is none of ours
    dataset = open_dataset(data)
    assert dataset.names == ("hdf", "slices", "stack", "zarr")
    for sample in dataset:
        np.testing.assert_array_equal(sample.image, volume)
        np.testing.assert_array_equal(sample.labels, labels)
        assert sample.spacing == (None if sample.name == "slices" else pytest.approx(SPACING))
    convert(dataset, tmp_path / "copy", "label-images")
    assert len(open_dataset(tmp_path / "copy")) == 4


def test_a_folder_is_one_volume_or_holds_several(volume, tmp_path):
    slices = slices_of(tmp_path / "slices", volume)
    assert find_volumes([slices], "ZYX", written=()).images == (slices,)
    assert len(find_volumes([slices], "", written=()).images) == 6
    folder = tmp_path / "volumes"
    paths = {zarr_of(folder / "a.ome.zarr", volume[..., 0]), hdf5_of(folder / "b.h5", raw=volume[..., 0])}
    write_image(folder / "c.tif", volume, n_axes=3, spacing=SPACING)
    write_image(folder / "d.tif", volume, n_axes=3, spacing=SPACING)
    assert set(find_volumes([folder], "ZYX", written=()).images) == paths | {folder / "c.tif", folder / "d.tif"}
    assert find_volumes([folder / "a.ome.zarr"], "", written=()).images == (folder / "a.ome.zarr",)


@pytest.fixture
def model(tmp_path):
    base = {"method": "spatial-embeddings", "network": "erfnet", "channels": 1, "class_names": ("object",)}
    made = Model(Description(**base, axes=3, spacing=SPACING))
    made.save(tmp_path / "model.safetensors")
    return tmp_path / "model.safetensors"


def test_the_command_segments_them(attractor_command, model, volume, tmp_path):
    inputs = [
        slices_of(tmp_path / "slices", volume),
        zarr_of(tmp_path / "a.ome.zarr", volume[..., 0]),
        hdf5_of(tmp_path / "b.h5", raw=volume[..., 0]),
    ]
    answer = attractor_command("segment", *inputs, "--model", model, "--axes", "ZYX", "--out", tmp_path / "out")
    assert (answer.code, "in 3 images" in answer.out) == (0, True), answer
    for name in ("slices", "a.ome", "b"):
        assert read_labels(tmp_path / "out" / f"{name}_labels.tif", n_axes=3).shape == (6, 8, 9)
    assert pixel_size(tmp_path / "out" / "b_labels.tif", n_axes=3) == pytest.approx(SPACING)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--out", "a.ome.zarr"], "--out a.ome.zarr: the labels of volumes are TIFF stacks; give a folder."),
        (["--level", "1"], "--level is for images; volumes are read whole, at the finest resolution; leave it out."),
        (["--into"], "--into is for images; volumes are read whole"),
    ],
)
def test_what_images_have_that_are_read_in_blocks_is_refused(
    attractor_command, model, volume, tmp_path, options, words
):
    answer = attractor_command("segment", zarr_of(tmp_path / "a.ome.zarr", volume[..., 0]), "--model", model, *options)
    assert (answer.code, words in answer.error) == (2, True), answer
    answer = attractor_command("segment", "https://nowhere/a.ome.zarr", "--model", model)
    assert (answer.code, "volumes are read from this machine; copy it" in answer.error) == (2, True), answer


def test_two_volumes_of_one_name_are_refused(volume, labels, tmp_path):
    for part, array, write in (("images", volume, write_image), ("labels", labels, write_labels)):
        for name in ("embryo.1", "embryo.2"):
            slices_of(tmp_path / part / name, array, "{}.tif", write)
    with pytest.raises(InputError, match=r"embryo\.1 and embryo\.2 share a stem, by which files are paired"):
        open_dataset(tmp_path)


def test_what_is_no_volume_is_refused(volume, tmp_path):
    one = slices_of(tmp_path / "odd", volume)
    write_image(one / "slice9.png", volume[0, :5])
    film = zarr_of(tmp_path / "film.zarr", volume[None, ..., 0], "tzyx")
    longer = zarr_of(tmp_path / "longer.zarr", np.repeat(volume[None, ..., 0], 2, 0), "tzyx")
    plane = zarr_of(tmp_path / "plane.zarr", volume[0, ..., 0], "yx")
    two = hdf5_of(tmp_path / "two.h5", one=volume[..., 0], other=volume[..., 0])
    flat = hdf5_of(tmp_path / "flat.h5", raw=volume[0, ..., 0])
    deep = hdf5_of(tmp_path / "deep.h5", raw=np.zeros((9, 8, 7, 6)))
    (tmp_path / "cut.h5").write_bytes(two.read_bytes()[:3000])
    assert read_image(film, n_axes=3).shape == (6, 8, 9, 1)
    for path, words in (
        (one, r"slice9.png: has the shape \(5, 9, 1\).*but slice7.png has \(8, 9, 1\)"),
        (longer, "is a film of 2 volumes; write one of them as an image"),
        (plane, "is one image and no volume; its axes are yx"),
        (two, "holds the arrays one, other; write one volume to a file, or call it raw"),
        (flat, "holds no array of three axes"),
        (deep, r"has the shape \(9, 8, 7, 6\); say what its axes are.*--axes ZYX"),
        (tmp_path / "cut.h5", "cut.h5: is damaged or cut short"),
        (tmp_path / "none.h5", "no such file"),
        (tmp_path / "empty", "holds no image"),
    ):
        (tmp_path / "empty").mkdir(exist_ok=True)
        with pytest.raises(InputError, match=words):
            read_image(path, n_axes=3)
    with pytest.raises(
        InputError, match="is one image and no volume; give a stack of slices, their folder with --axes ZYX"
    ):
        read_image(one / "slice7.png", n_axes=3)
    with pytest.raises(InputError, match="is one image, whose axes need no names; leave --axes out"):
        read_image(one / "slice7.png", axes="YX")
    tifffile.imwrite(tmp_path / "one.tif", volume[0, ..., 0])
    with pytest.raises(InputError, match="and no volume; give a stack of slices, their folder with --axes ZYX"):
        read_image(tmp_path / "one.tif", n_axes=3)


def test_an_ome_zarr_volume_that_cannot_be_read_is_told(volume, tmp_path, monkeypatch):
    path = zarr_of(tmp_path / "a.zarr", volume[..., 0])
    (chunk,) = [file for file in path.rglob("*") if file.is_file() and file.parent.name.isdigit()][:1]
    chunk.write_bytes(b"not a chunk")
    with pytest.raises(InputError, match=r"cannot be read: .*; copy the volume again, or repair it"):
        read_image(path, n_axes=3)
    opened = open_ome_zarr(path)

    class TooLarge:
        shape = (1 << 20, 1 << 10, 1 << 10)

        def __getitem__(self, _):
            raise MemoryError

    with pytest.raises(InputError, match="1048576 x 1024 x 1024 values need more memory than there is; cut it"):
        dataclasses.replace(opened, arrays=(TooLarge(),)).volume()
