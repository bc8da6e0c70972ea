"""Pictures: large ones come in parts, from smaller versions that are made once, and look as small ones do."""

import io
import json

import numpy as np
import pytest
import tifffile
from PIL import Image

from attractor.errors import InputError
from attractor.images import parts, write_image
from attractor.web import pyramids, tiles
from attractor.web.pyramids import halved, lacking, part_of, values_of
from attractor.web.tiles import Pictures, Shown, picture, shown

RANDOM = np.random.default_rng(0)
DEEP = RANDOM.integers(100, 60000, (1030, 701, 1)).astype(np.uint16)


@pytest.fixture
def pictures(tmp_path, monkeypatch):
    """With every image being large."""
    monkeypatch.setattr(parts, "LARGE", 1000)
    monkeypatch.setattr(tiles, "LARGE", 1000)
    return Pictures(tmp_path / "pyramids")


def decoded(content):
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB")).astype(int)


def saved(path, pixels, kind):
    if kind == "png":
        write_image(path.with_suffix(".png"), pixels)
        return path.with_suffix(".png")
    how = {"tiles": {"tile": (128, 128)}, "plain": {}, "strips": {"compression": "zlib", "rowsperstrip": 7}}[kind]
    tifffile.imwrite(path.with_suffix(".tif"), pixels[..., 0], **how)
    return path.with_suffix(".tif")


def test_a_half_is_the_mean_and_the_last_row_its_own():
    image = np.array([[1, 3, 10], [1, 3, 20], [7, 9, 30]], np.uint8)[..., None]
    assert halved(image)[..., 0].tolist() == [[2, 15], [8, 30]]
    bright = np.full((2, 2, 1), 65535, np.uint16)
    assert halved(bright).item() == 65535
    assert halved(np.float32([[[1], [2]]])).item() == 1.5


def test_no_level_needs_one_that_is_finer_by_more_than_one():
    assert lacking([], 5) == [0, 2, 4]
    assert lacking([0], 5) == [2, 4]
    assert lacking([0, 2, 4], 5) == []
    assert lacking([0], 1) == []


@pytest.mark.parametrize("kind", ["png", "tiles", "plain", "strips"])
def test_a_large_image_looks_as_if_it_were_small(pictures, tmp_path, kind):
    path = saved(tmp_path / "large", DEEP, kind)
    found, whole = pictures(path), picture(DEEP)
    assert (found.shape, found.channels, found.levels) == (whole.shape, 1, 3)
    assert found.n_bytes == 0
    np.testing.assert_allclose(found.values.low, whole.values.low)
    np.testing.assert_allclose(found.values.high, whole.values.high)
    for level in range(3):
        height, width = whole.pyramid[level].shape[:2]
        rows, columns = slice(height // 3, height), slice(width // 2, width)
        np.testing.assert_array_equal(
            part_of(found.pyramid, level, rows, columns), whole.pyramid[level][rows, columns], strict=True
        )
    assert found.tile(0, 2, 1) == whole.tile(0, 2, 1)


def test_smaller_versions_are_made_once(pictures, tmp_path, monkeypatch):
    path = saved(tmp_path / "large", DEEP, "png")
    pictures(path)
    monkeypatch.setattr(tiles, "read_image", lambda path: pytest.fail("it was read again"))
    again = Pictures(pictures.folder)
    assert again(path).tile(2, 0, 0)
    assert sorted(file.name for file in (pictures.folder / "large").iterdir()) == [
        "about.json",
        "level-0.npy",
        "level-2.npy",
    ]


def test_those_of_another_file_or_cut_short_are_made_anew(pictures, tmp_path):
    path = saved(tmp_path / "large", DEEP, "png")
    before = pictures(path).tile(2, 0, 0)
    write_image(path, DEEP[::-1])
    assert Pictures(pictures.folder)(path).tile(2, 0, 0) != before
    write_image(path, DEEP)
    (pictures.folder / "large" / "about.json").write_text("{}")
    assert Pictures(pictures.folder)(path).tile(2, 0, 0) == before
    level = pictures.folder / "large" / "level-2.npy"
    level.write_bytes(level.read_bytes()[:-1])
    assert Pictures(pictures.folder)(path).tile(2, 0, 0) == before
    assert json.loads((pictures.folder / "large" / "about.json").read_text())["levels"] == [0, 2]


def test_a_folder_that_cannot_be_written_is_named(pictures, tmp_path, monkeypatch):
    path = saved(tmp_path / "large", DEEP, "tiles")
    (tmp_path / "pyramids").mkdir()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(pyramids, "_write", full)
    with pytest.raises(InputError, match=r"pyramids/large: cannot be written: No space left on device"):
        pictures(path)
    assert list((tmp_path / "pyramids").iterdir()) == []
    monkeypatch.setattr(pyramids, "make", lambda *_: None)
    with pytest.raises(InputError, match="was changed while it was made"):
        pictures(path)


def test_a_pyramid_in_the_file_is_used(pictures, tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(DEEP[..., 0], tile=(128, 128), subifds=1)
        file.write(7 + 0 * DEEP[::4, ::4, 0], tile=(128, 128), subfiletype=1)
    found = pictures(tmp_path / "a.tif")
    assert not (tmp_path / "pyramids").exists()
    assert (part_of(found.pyramid, 2, slice(0, 258), slice(0, 176)) == 7).all()
    np.testing.assert_array_equal(part_of(found.pyramid, 1, slice(0, 515), slice(0, 351)), halved(DEEP))


def test_small_pictures_are_held_until_others_need_the_room(tmp_path, monkeypatch):
    monkeypatch.setattr(tiles, "MOST_HELD", 3 * 100 * 100)
    pictures = Pictures(tmp_path / "pyramids")
    paths = [tmp_path / f"{k}.png" for k in range(4)]
    for k, path in enumerate(paths):
        write_image(path, np.full((100, 100, 1), k, np.uint8))
    first = pictures(paths[0])
    assert pictures(paths[0]) is first
    for path in paths:
        pictures(path)
    assert pictures(paths[0]) is not first
    assert sum(one.n_bytes for one in pictures._held.values()) <= 3 * 100 * 100


def test_values_of_colours_and_of_others():
    colours = values_of(np.full((4, 4, 3), 9, np.uint8))
    assert (colours.low, colours.high, colours.auto_low) == ([0.0] * 3, [255.0] * 3, [9.0] * 3)
    deep = values_of(np.arange(400, 600, dtype=np.uint16).reshape(10, 20, 1))
    assert (deep.least, deep.greatest) == ([0.0], [599.0])
    assert 400 < deep.low[0] < deep.high[0] < 600
    assert values_of(np.full((4, 4, 1), -2.5, np.float32)).least == [-2.5]


def test_channels_have_colours_and_contrast():
    image = np.zeros((10, 10, 2), np.uint8)
    image[:5, :, 0], image[:, :5, 1] = 100, 200
    content = picture(image).tile(0, 0, 0, (Shown(0, (255, 0, 255), 0, 100), Shown(1, (0, 255, 0), 0, 400)))
    np.testing.assert_allclose(decoded(content)[2, 8], [255, 0, 255], atol=12)
    np.testing.assert_allclose(decoded(content)[8, 2], [0, 128, 0], atol=12)
    np.testing.assert_allclose(decoded(content)[2, 2], [255, 128, 255], atol=12)
    np.testing.assert_allclose(decoded(content)[8, 8], [0, 0, 0], atol=12)


def test_what_an_address_says_of_channels():
    assert shown("") == ()
    assert shown("0, 2") == (Shown(0), Shown(2))
    assert shown("1:ff0080:-3.5:200,0:::") == (Shown(1, (255, 0, 128), -3.5, 200.0), Shown(0))


@pytest.mark.parametrize("text", ["x", "-1", "0:ff", "0:ff:0:1", "0:zzzzzz::", "0::nan:1", "0::1:2:3", "0::a:"])
def test_what_names_no_channel_is_refused(text):
    with pytest.raises(InputError, match="names no channel"):
        shown(text)
