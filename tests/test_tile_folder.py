"""Tiles in a folder: pixels lie where names say."""

import numpy as np
import pytest
import tifffile
from PIL import Image

from attractor.errors import InputError
from attractor.images import parts, tile_folder
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
