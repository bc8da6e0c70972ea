"""Tiles in a folder, and microscopes' formats: pixels lie where names and readers say."""

import sys
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest
import tifffile
from PIL import Image

from attractor.errors import InputError
from attractor.images import by_bioio, parts, read_image, tile_folder
from attractor.images.by_bioio import is_for_bioio, open_by_bioio
from attractor.images.tile_folder import TileFolder

WHOLE = np.random.default_rng(0).integers(0, 255, (50, 70), np.uint8)
ROWS, COLUMNS = (0, 20, 40, 50), (0, 30, 60, 70)  # edges of the tiles


def cut(folder, name, whole=WHOLE):
    """Write the tiles of an image; `name` gives a file's name by row and column."""
    folder.mkdir(parents=True)
    for i in range(3):
        for j in range(3):
            tile = whole[ROWS[i] : ROWS[i + 1], COLUMNS[j] : COLUMNS[j + 1]]
            tifffile.imwrite(folder / name(i, j), tile)
    return folder


@pytest.mark.parametrize(
    "name",
    [
        lambda i, j: f"plate2_r{i:02}_c{j:02}.tif",
        lambda i, j: f"tile_x{j + 7}_y{i + 1}.tif",
        lambda i, j: f"Row{i}Col{j}_stitched1.tif",
        lambda i, j: f"scan 4 {i} {j}.tif",
        lambda i, j: f"s_{ROWS[i]}_{COLUMNS[j]}.tif",  # by pixels
    ],
)
def test_tiles_lie_where_their_names_say(tmp_path, name):
    image = TileFolder(cut(tmp_path / "tiles", name))
    assert (image.shape, image.dtype) == ((50, 70, 1), np.uint8)
    for rows, columns in (
        (slice(0, 50), slice(0, 70)),
        (slice(19, 21), slice(29, 61)),
        (slice(49, 99), slice(None, 5)),
        (slice(3, 3), slice(0, 9)),
    ):
        np.testing.assert_array_equal(image[rows, columns][..., 0], WHOLE[rows, columns])


def test_few_tiles_stay_in_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(tile_folder, "HELD", 1500)
    image = TileFolder(cut(tmp_path / "tiles", lambda i, j: f"{i}_{j}.tif"))
    np.testing.assert_array_equal(image[:, :][..., 0], WHOLE)
    assert sum(tile.nbytes for tile in image._held.values()) <= 1500


def test_large_tiles_are_read_in_parts(tmp_path, monkeypatch):
    monkeypatch.setattr(parts, "LARGE", 100)
    image = TileFolder(cut(tmp_path / "tiles", lambda i, j: f"{i}_{j}.tif"))
    np.testing.assert_array_equal(image[10:45, 25:65][..., 0], WHOLE[10:45, 25:65])
    assert isinstance(image._tile(0, 0), parts.TiffLevel)


def broken(folder, how):
    cut(folder, lambda i, j: f"r{i}_c{j}.tif")
    if how == "missing":
        (folder / "r1_c2.tif").unlink()
    elif how == "nameless":
        (folder / "r1_c2.tif").rename(folder / "overview.tif")
    elif how == "twice":
        Image.fromarray(WHOLE[:20, :30]).save(folder / "r0_c0.png")
    elif how == "odd":
        tifffile.imwrite(folder / "r1_c1.tif", WHOLE[:20, :29])
    elif how == "empty":
        for path in folder.iterdir():
            path.unlink()
    return folder


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", r"there is no tile of row 1, column 2"),
        ("nameless", r"overview\.tif: the name does not say which row and column"),
        ("twice", r"are both the tile of row 0, column 0"),
        ("odd", r"r1_c1\.tif: is 20 x 29 x 1 uint8, and its place among the other tiles asks for 20 x 30 x 1 uint8"),
        ("empty", r"holds no image"),
    ],
)
def test_what_is_wrong_with_a_folder_is_said(tmp_path, how, message):
    with pytest.raises(InputError, match=message):
        TileFolder(broken(tmp_path / "tiles", how))[:, :]


def test_tiles_that_overlap_are_refused(tmp_path):
    cut(tmp_path / "tiles", lambda i, j: f"{18 * i}_{COLUMNS[j]}.tif")
    with pytest.raises(InputError, match="the rows of its tiles go up by 18 in their names, and a tile has 20 pixels"):
        TileFolder(tmp_path / "tiles")
    cut(tmp_path / "a_files" / "12", lambda i, j: f"{j}_{i}.tif")
    with pytest.raises(InputError, match="Deep Zoom"):
        TileFolder(tmp_path / "a_files" / "12")


class BioImage:
    """What bioio's class of this name offers, for an image of two scenes, two channels and three planes."""

    scenes, resolution_levels, channel_names = ("first", "second"), (0, 1), ["DAPI", "GFP"]
    dims = SimpleNamespace(C=2, T=1, Z=3, order="TCZYX")
    physical_pixel_sizes = SimpleNamespace(Z=None, Y=0.5, X=0.25)
    pixels = np.random.default_rng(1).integers(0, 60000, (2, 3, 40, 50, 2), np.uint16)  # scene, z, y, x, channel

    def __init__(self, path):
        if path.stem == "damaged":
            raise ValueError("no magic number.\nmore")
        self.scene = self.level = 0

    def set_scene(self, scene):
        self.scene = scene

    def set_resolution_level(self, level):
        self.level = level

    def get_image_dask_data(self, order, **places):
        assert (order, places["T"]) == ("YXC", 0)
        return dask.array.from_array(self.pixels[self.scene, places["Z"], :: self.level + 1, :: self.level + 1])


@pytest.fixture
def czi(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "bioio", SimpleNamespace(BioImage=BioImage, __spec__=SimpleNamespace()))
    (tmp_path / "a.czi").touch()
    return tmp_path / "a.czi"


def test_what_bioio_reads_is_read_in_parts(czi):
    assert is_for_bioio(czi)
    image = open_by_bioio(czi, image="second", channels=["GFP"], plane={"z": 2})
    assert (image.shape, image.dtype, image.pixel_size) == ((40, 50, 1), np.uint16, (0.5, 0.25))
    np.testing.assert_array_equal(image[3:9, 40:], BioImage.pixels[1, 2, 3:9, 40:, 1:])
    coarse = open_by_bioio(czi, image="0", level=1, plane={"z": 0})
    np.testing.assert_array_equal(coarse[:, :], BioImage.pixels[0, 0, ::2, ::2])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "holds 2 images, first, second; choose one by --image"),
        ({"image": "third"}, "--image third is not there; there are first, second"),
        ({"image": "0"}, "has 3 places along z; choose one, such as --plane z=0"),
        ({"image": "0", "plane": {"z": 3}}, "--plane z=3 is not there; z goes from 0 to 2"),
        ({"image": "0", "plane": {"z": 0, "m": 1}}, "has no axis m"),
        ({"image": "0", "plane": {"z": 0}, "level": 2}, "there is no level 2; there are 2, from 0"),
        ({"image": "0", "plane": {"z": 0}, "channels": ["RFP"]}, "--channels RFP is not there; there are DAPI, GFP"),
    ],
)
def test_what_bioio_does_not_have_is_said(czi, options, message):
    with pytest.raises(InputError, match=message):
        open_by_bioio(czi, **options)


def test_without_bioio_the_cure_is_named(czi, monkeypatch):
    czi.with_name("damaged.czi").touch()
    with pytest.raises(InputError, match=r"bioio cannot read it \(no magic number\); bioio-czi must be installed"):
        open_by_bioio(czi.with_name("damaged.czi"))
    monkeypatch.setattr(by_bioio.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install bioio bioio-czi"):
        open_by_bioio(czi)
    czi.write_bytes(b"ZISRAWFILE")
    with pytest.raises(InputError, match=r"is read by bioio, and only block by block; give --out NAME\.ome\.zarr"):
        read_image(czi)
