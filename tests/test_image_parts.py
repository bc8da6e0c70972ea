"""Large TIFF files part by part: the same pixels as read whole, from wherever they are asked for."""

import numpy as np
import pytest
import tifffile

from attractor.errors import InputError
from attractor.images import image_shape, parts, read_image
from attractor.images.parts import in_parts

RANDOM = np.random.default_rng(0)
GREY = RANDOM.integers(0, 255, (300, 230), np.uint8)
DEEP = RANDOM.integers(0, 60000, (300, 230), np.uint16)
COLOUR = RANDOM.integers(0, 255, (300, 230, 3), np.uint8)
SMOOTH = np.kron(RANDOM.integers(0, 255, (30, 23, 3), np.uint8), np.ones((10, 10, 1), np.uint8))
READ_IN_PARTS = {
    "tiles": (GREY, {"tile": (64, 64), "compression": "zlib"}),
    "tiles with a predictor": (COLOUR, {"tile": (64, 32), "compression": "zlib", "predictor": True}),
    "tiles with alpha": (
        RANDOM.integers(0, 255, (300, 230, 4), np.uint8),
        {"tile": (64, 32), "compression": "lzw", "photometric": "rgb", "extrasamples": ["unassalpha"]},
    ),
    "jpeg tiles": (SMOOTH, {"tile": (64, 32), "compression": "jpeg", "photometric": "rgb"}),
    "plain": (DEEP, {}),
    "plain strips": (DEEP, {"rowsperstrip": 13}),
    "the other byte order": (COLOUR.astype(np.uint16) * 200, {"byteorder": ">", "photometric": "rgb"}),
    "64 bits": (RANDOM.random((300, 230)), {}),
    "compressed strips": (DEEP, {"rowsperstrip": 13, "compression": "zlib"}),
    "a page for each channel": (
        RANDOM.integers(0, 60000, (5, 300, 230), np.uint16),
        {"tile": (64, 64), "photometric": "minisblack", "metadata": {"axes": "CYX"}},
    ),
}
READ_WHOLE = {
    "planes": (np.moveaxis(COLOUR, 2, 0), {"planarconfig": "separate", "photometric": "rgb"}),
    "white is 0": (GREY, {"photometric": "miniswhite"}),
    "bits": (GREY > 100, {}),
    "turned": (GREY, {"extratags": [(274, 3, 1, 6, True)]}),
}


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch):
    monkeypatch.setattr(parts, "LARGE", 1000)


@pytest.mark.parametrize("name", READ_IN_PARTS)
def test_a_part_has_the_pixels_of_the_whole(tmp_path, name):
    pixels, how = READ_IN_PARTS[name]
    tifffile.imwrite(tmp_path / "a.tif", pixels, **how)
    whole, found = read_image(tmp_path / "a.tif"), in_parts(tmp_path / "a.tif")
    image = found.levels[0]
    assert (image.shape, image.dtype) == (whole.shape, whole.dtype)
    assert found.is_quick == (name != "compressed strips")
    for rows, columns in (
        (slice(0, 300), slice(0, 230)),
        (slice(63, 65), slice(31, 129)),
        (slice(299, 300), slice(0, 1)),
    ):
        np.testing.assert_array_equal(image[rows, columns], whole[rows, columns])
    np.testing.assert_array_equal(image[250:400, 200:400], whole[250:, 200:])  # no more than there is


@pytest.mark.parametrize("name", READ_WHOLE)
def test_what_would_have_to_be_converted_is_read_whole(tmp_path, name):
    pixels, how = READ_WHOLE[name]
    tifffile.imwrite(tmp_path / "a.tif", pixels, **how)
    assert in_parts(tmp_path / "a.tif") is None
    assert image_shape(tmp_path / "a.tif") == read_image(tmp_path / "a.tif").shape


def test_small_files_and_other_formats_are_read_whole(tmp_path, monkeypatch):
    tifffile.imwrite(tmp_path / "a.tif", GREY)
    assert image_shape(tmp_path / "a.tif") == (300, 230, 1)
    monkeypatch.setattr(parts, "LARGE", GREY.nbytes)
    assert in_parts(tmp_path / "a.tif") is None
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert in_parts(tmp_path / "a.png") is None


def test_smaller_versions_in_the_file_are_found(tmp_path):
    with tifffile.TiffWriter(tmp_path / "sub.tif") as file:
        file.write(GREY, tile=(64, 64), subifds=2)
        file.write(GREY[::2, ::2], tile=(64, 64), subfiletype=1)
        file.write(GREY[::4, ::4], tile=(64, 64), subfiletype=1)
    with tifffile.TiffWriter(tmp_path / "pages.tif") as file:
        file.write(COLOUR, tile=(64, 64), photometric="rgb")
        file.write(COLOUR[:298:2, :228:2], tile=(64, 64), photometric="rgb", subfiletype=1)  # another size than a half
        file.write(COLOUR[1::4, 1::4], tile=(64, 64), photometric="rgb", subfiletype=1)
    found = in_parts(tmp_path / "sub.tif").levels
    assert sorted(found) == [0, 1, 2]
    np.testing.assert_array_equal(found[2][0:99, 0:99][..., 0], GREY[::4, ::4])
    assert sorted(in_parts(tmp_path / "pages.tif").levels) == [0, 2]


def test_damage_is_found_where_it_is_met(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", GREY, tile=(64, 64), compression="zlib")
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        offset, count = (list(x)[-1] for x in (tiff.pages[0].dataoffsets, tiff.pages[0].databytecounts))
    content = bytearray((tmp_path / "a.tif").read_bytes())
    content[offset : offset + count] = bytes(count)
    (tmp_path / "a.tif").write_bytes(content)
    image = in_parts(tmp_path / "a.tif").levels[0]
    np.testing.assert_array_equal(image[0:64, 0:64][..., 0], GREY[:64, :64])
    with pytest.raises(InputError, match=r"a\.tif: is damaged or cut short"):
        image[290:300, 220:230]
