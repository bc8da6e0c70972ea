"""Image files: what comes out of each kind, and what is said of those that cannot be read."""

import io
import os
import struct
import subprocess
import sys
import zlib
from contextlib import nullcontext, suppress
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps
from PIL.BmpImagePlugin import BmpImageFile
from PIL.GifImagePlugin import GifImageFile
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from attractor.errors import InputError
from attractor.images import (
    as_channels,
    as_image,
    atomic,
    find_images,
    image_suffix,
    images_in,
    pixel_size,
    read_image,
    read_labels,
    temporary_folder,
    write_image,
    write_labels,
)
from attractor.images.damage import refuse_too_large
from attractor.images.orientation import upright
from attractor.images.png import ADAM7
from attractor.images.unfinished import remove_own, unfinished

ROWS, COLUMNS = np.mgrid[:40, :50]
GREY = (ROWS * 4 + COLUMNS).astype(np.uint8)
COLOUR = np.stack([GREY, GREY // 2, 255 - GREY], -1)
GREY_16 = (ROWS * 1000 + COLUMNS * 7).astype(np.uint16)
COLOUR_16 = np.stack([GREY_16, GREY_16 // 2, 65535 - GREY_16], -1)


def save(path: Path, array: np.ndarray, **options: object) -> Path:
    """Write by Pillow, or by tifffile where the name says so."""
    if path.suffix == ".tif":
        tifffile.imwrite(path, array, **options)
    else:
        Image.fromarray(array).save(path, **options)
    return path


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp", ".webp"])
def test_eight_bit_colour_is_read_as_it_was_written(tmp_path, suffix):
    options = {"photometric": "rgb"} if suffix == ".tif" else {"lossless": True} if suffix == ".webp" else {}
    found = read_image(save(tmp_path / f"a{suffix}", COLOUR, **options))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, COLOUR)


def test_sixteen_bit_colour_png_stays_sixteen_bit(tmp_path):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(COLOUR_16))
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), COLOUR_16)


def test_sixteen_bit_colour_png_without_imagecodecs_says_what_to_install(tmp_path, monkeypatch):
    (tmp_path / "a.png").write_bytes(imagecodecs.png_encode(COLOUR_16))
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    with pytest.raises(InputError, match="pip install imagecodecs"):
        read_image(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", COLOUR)), COLOUR)
    np.testing.assert_array_equal(read_labels(save(tmp_path / "c.png", GREY_16)), GREY_16)


@pytest.mark.parametrize("suffix", [".png", ".tif"])
@pytest.mark.parametrize("grey", [GREY, GREY_16])
def test_grey_gets_one_channel(tmp_path, suffix, grey):
    found = read_image(save(tmp_path / f"a{suffix}", grey))
    assert found.dtype == grey.dtype
    np.testing.assert_array_equal(found, grey[..., None])


def test_jpeg_is_read_with_its_orientation_applied(tmp_path):
    orientation = Image.Exif()
    orientation[0x112] = 6  # the camera was turned: rows are columns
    found = read_image(save(tmp_path / "a.jpg", COLOUR, exif=orientation, quality=95))
    assert found.shape == (50, 40, 3)
    assert np.abs(found.astype(int) - np.rot90(COLOUR, -1)).mean() < 8


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_alpha_is_dropped(tmp_path, suffix):
    with_alpha = np.dstack([COLOUR, np.full_like(GREY, 7)])
    options = {"photometric": "rgb", "extrasamples": ["unassalpha"]} if suffix == ".tif" else {}
    np.testing.assert_array_equal(read_image(save(tmp_path / f"a{suffix}", with_alpha, **options)), COLOUR)
    Image.merge("LA", [Image.fromarray(GREY)] * 2).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), GREY[..., None])


@pytest.mark.parametrize("suffix", [".png", ".tif", ".gif"])
def test_a_palette_gives_colours_to_images_and_indices_to_labels(tmp_path, suffix):
    picture = Image.fromarray((GREY > 100).astype(np.uint8) + 1)
    picture.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    path = tmp_path / f"a{suffix}"
    picture.save(path)
    found = read_image(path)
    assert found[0, 0].tolist() == [10, 20, 30]
    assert found[-1, -1].tolist() == [200, 100, 50]
    if suffix != ".gif":
        np.testing.assert_array_equal(read_labels(path), np.asarray(picture))


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_one_bit_is_black_and_white_in_images_and_one_object_in_labels(tmp_path, suffix):
    mask = GREY > 100
    path = save(tmp_path / f"a{suffix}", mask, **({"photometric": "minisblack"} if suffix == ".tif" else {}))
    np.testing.assert_array_equal(read_image(path), mask[..., None] * np.uint8(255))
    np.testing.assert_array_equal(read_labels(path), mask.astype(np.int32))


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk_becomes_rgb(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(COLOUR).convert("CMYK").save(path)
    found = read_image(path)
    assert found.shape == COLOUR.shape
    assert np.abs(found.astype(int) - COLOUR).mean() < 8


def test_white_is_zero_tiff_is_turned_round(tmp_path):
    path = save(tmp_path / "a.tif", GREY, photometric="miniswhite")
    np.testing.assert_array_equal(read_image(path), 255 - GREY[..., None])


@pytest.mark.parametrize(
    ("planes", "options"),
    [
        (np.moveaxis(COLOUR_16, -1, 0), {"imagej": True, "metadata": {"axes": "CYX"}}),
        (np.moveaxis(COLOUR_16, -1, 0), {"ome": True, "metadata": {"axes": "CYX"}}),
        (np.moveaxis(COLOUR_16, -1, 0), {"photometric": "rgb", "planarconfig": "separate"}),
        (np.moveaxis(COLOUR_16, -1, 0), {"photometric": "minisblack", "metadata": {"axes": "CYX"}}),
        (COLOUR_16, {"photometric": "minisblack"}),
        (COLOUR_16, {"photometric": "rgb", "compression": "zlib", "tile": (16, 16), "byteorder": ">"}),
        (COLOUR_16, {"photometric": "rgb", "bigtiff": True}),
    ],
)
def test_tiff_channels_come_last_wherever_they_were(tmp_path, planes, options):
    found = read_image(save(tmp_path / "a.tif", planes, **options))
    assert found.dtype == np.uint16
    assert found.dtype.isnative
    np.testing.assert_array_equal(found, COLOUR_16)


@pytest.mark.parametrize("axes", ["ZYX", "TYX"])
def test_a_stack_is_refused(tmp_path, axes):
    save(tmp_path / "a.tif", np.zeros((3, 8, 9), np.uint8), imagej=True, metadata={"axes": axes})
    with pytest.raises(InputError, match=r"a\.tif: is a stack of shape \(3, 8, 9\).*give one plane"):
        read_image(tmp_path / "a.tif")


def test_pages_without_a_name_are_refused(tmp_path):
    save(tmp_path / "a.tif", np.zeros((9, 8, 7), np.uint8), photometric="minisblack")
    with pytest.raises(InputError, match="give one plane"):
        read_image(tmp_path / "a.tif")


def test_a_tiff_of_several_images_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as file:
        file.write(GREY)
        file.write(np.tile(GREY, (2, 1)))
    with pytest.raises(InputError, match="holds 2 images; give one plane"):
        read_image(tmp_path / "a.tif")


def test_an_animation_is_refused(tmp_path):
    frames = [Image.fromarray(COLOUR), Image.fromarray(255 - COLOUR)]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    with pytest.raises(InputError, match="is an animation of 2 frames"):
        read_image(tmp_path / "a.gif")


def test_colours_that_nobody_converts_are_refused(tmp_path):
    save(tmp_path / "a.tif", COLOUR, photometric="cielab")
    with pytest.raises(InputError, match="stored as CIELAB; save it as grey or RGB"):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("kind", [np.int16, np.int32, np.uint32, np.int64, np.float16, np.float64])
def test_other_numbers_become_float32(tmp_path, kind):
    found = read_image(save(tmp_path / "a.tif", GREY.astype(kind), photometric="minisblack"))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found[..., 0], GREY)


@pytest.mark.parametrize("read", [read_image, read_labels])
def test_files_that_are_not_there_or_not_files(tmp_path, read):
    with pytest.raises(InputError, match=r"a\.png: no such file"):
        read(tmp_path / "a.png")
    with pytest.raises(InputError, match="is a folder; give a file"):
        read(tmp_path)
    (tmp_path / "empty.png").touch()
    with pytest.raises(InputError, match=r"empty\.png: the file is empty"):
        read(tmp_path / "empty.png")
    os.mkfifo(tmp_path / "pipe.png")
    with pytest.raises(InputError, match="is not a regular file"):
        read(tmp_path / "pipe.png")


def test_a_file_that_is_no_image_is_refused(tmp_path):
    (tmp_path / "a.png").write_text("Dear Sir or Madam")
    with pytest.raises(InputError, match=r"a\.png: is not an image that can be read here"):
        read_image(tmp_path / "a.png")


def test_three_planes_without_a_name_are_no_channels(tmp_path):
    save(tmp_path / "a.tif", np.zeros((3, 8, 9), np.uint16), photometric="minisblack")
    with pytest.raises(
        InputError, match="holds 3 planes and does not say whether they are channels or slices; give one"
    ):
        read_image(tmp_path / "a.tif")


@pytest.mark.parametrize("read", [read_image, read_labels, pixel_size])
def test_only_the_file_that_was_given_is_opened(tmp_path, monkeypatch, read):
    (tmp_path / "here").mkdir()
    other = save(tmp_path / "other.tif", 255 - GREY)
    path = save(tmp_path / "here" / "a.ome.tif", GREY, description=ome_of("../other.tif"), metadata=None)
    opened: list[str] = []
    open_file = tifffile.TiffFile.__init__

    def noting(tiff: tifffile.TiffFile, file: object, *rest: object, **options: object) -> None:
        opened.append(str(file))
        open_file(tiff, file, *rest, **options)

    monkeypatch.setattr(tifffile.TiffFile, "__init__", noting)
    found = read(path)
    assert opened == [str(path)]
    assert other.exists()
    if read is not pixel_size:
        np.testing.assert_array_equal(found.squeeze(), GREY)


def test_pages_of_an_image_in_several_files_are_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif") as file:
        for page in (GREY, 255 - GREY):
            file.write(page, description=ome_of("b.ome.tif"), metadata=None, contiguous=False)
    with pytest.raises(InputError, match="is a stack"):
        read_image(tmp_path / "a.ome.tif")


def ome_of(other: str) -> str:
    """What OME says of an image whose pixels lie in another file."""
    return (
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1"><Image ID="Image:0">'
        '<Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="50" SizeY="40" SizeC="1" SizeZ="1" SizeT="1">'
        f'<TiffData IFD="0" PlaneCount="1"><UUID FileName="{other}">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>'
    )


def test_sixteen_bit_ppm_stays_sixteen_bit(tmp_path):
    (tmp_path / "a.ppm").write_bytes(b"P6 50 40 65535\n" + COLOUR_16.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.ppm"), COLOUR_16)


def test_twelve_bit_pgm_has_the_values_that_are_stored(tmp_path):
    grey = GREY_16 & 4095
    (tmp_path / "a.pgm").write_bytes(b"P5 50 40 4095\n" + grey.astype(">u2").tobytes())
    np.testing.assert_array_equal(read_image(tmp_path / "a.pgm")[..., 0], grey)
    (tmp_path / "b.pgm").write_text("P2\n# by hand\n2 1\n4095\n17 4000\n")
    assert read_image(tmp_path / "b.pgm")[..., 0].tolist() == [[17, 4000]]


def test_a_bit_image_is_black_where_it_says_one(tmp_path):
    (tmp_path / "a.pbm").write_text("P1\n3 2\n1 0 1\n0 1 0\n")
    assert read_image(tmp_path / "a.pbm")[..., 0].tolist() == [[0, 255, 0], [255, 0, 255]]


def test_several_images_in_one_pgm_are_refused(tmp_path):
    (tmp_path / "a.pgm").write_bytes(b"P5 3 2 255\n" + bytes(12))
    with pytest.raises(InputError, match=r"a\.pgm: holds 2 images; give one"):
        read_image(tmp_path / "a.pgm")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".tif", ".png", ".jpg", ".webp"])
def test_images_are_upright_as_pillow_shows_them(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[274] = orientation
    path = tmp_path / f"a{suffix}"
    if suffix == ".tif":
        save(path, COLOUR, photometric="rgb", extratags=[(274, "H", 1, orientation, True)])
    else:
        save(path, COLOUR, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as image:
        expected = np.asarray(ImageOps.exif_transpose(image))
    np.testing.assert_array_equal(read_image(path), expected)


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_labels_lie_as_their_image_does(tmp_path, suffix):
    exif = Image.Exif()
    exif[274] = 6
    options = {"extratags": [(274, "H", 1, 6, True)]} if suffix == ".tif" else {"exif": exif}
    np.testing.assert_array_equal(read_labels(save(tmp_path / f"a{suffix}", GREY_16, **options)), np.rot90(GREY_16, -1))


def test_an_unknown_orientation_is_none():
    assert upright(GREY, None) is GREY
    assert upright(GREY, 9) is GREY


def test_the_size_of_a_pixel_turns_with_its_image(tmp_path):
    options = {"imagej": True, "resolution": (4, 2), "metadata": {"unit": "um"}}
    path = save(tmp_path / "a.tif", GREY, extratags=[(274, "H", 1, 6, True)], **options)
    assert pixel_size(path) == pytest.approx((0.25, 0.5))


@pytest.mark.parametrize("is_interlaced", [False, True])
@pytest.mark.parametrize("pixels", [GREY, COLOUR, GREY > 100, GREY_16, COLOUR_16])
def test_a_png_of_fewer_rows_than_it_promises_is_refused(tmp_path, pixels, is_interlaced):
    path = tmp_path / "a.png"
    path.write_bytes(png_of(pixels, is_interlaced=is_interlaced))
    np.testing.assert_array_equal(read_image(path).squeeze() > 0, pixels > 0)
    path.write_bytes(png_of(pixels, is_interlaced=is_interlaced, n_rows=41))
    with pytest.raises(InputError, match=r"a\.png: is damaged or cut short \(rows are missing\)"):
        read_image(path)


@pytest.mark.parametrize("last", [0, 255])
def test_a_png_is_whole_whatever_its_last_row_holds(tmp_path, last):
    path, pixels = tmp_path / "a.png", GREY.copy()
    pixels[-1] = last
    path.write_bytes(png_of(pixels))
    np.testing.assert_array_equal(read_image(path).squeeze(), pixels)


def png_of(pixels: np.ndarray, *, is_interlaced: bool = False, n_rows: int = 40) -> bytes:
    """A PNG made by hand, which says that it has so many rows."""
    depth = 1 if pixels.dtype == bool else 8 * pixels.dtype.itemsize

    def packed(part: np.ndarray) -> bytes:
        rows = [np.packbits(row) if depth == 1 else row.astype(f">u{depth // 8}") for row in part]
        return b"".join(b"\0" + row.tobytes() for row in rows)

    parts = [pixels[row::down, column::right] for row, column, down, right in ADAM7] if is_interlaced else [pixels]
    header = struct.pack(">IIBBBBB", 50, n_rows, depth, 2 if pixels.ndim == 3 else 0, 0, 0, is_interlaced)
    chunks = {b"IHDR": header, b"IDAT": zlib.compress(b"".join(map(packed, parts))), b"IEND": b""}
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        for name, content in chunks.items()
    )


def test_a_palette_png_without_its_palette_is_refused(tmp_path):
    picture = Image.fromarray(GREY // 100)
    picture.putpalette([0, 0, 0, 10, 20, 30, 200, 100, 50])
    picture.save(tmp_path / "a.png")
    file = (tmp_path / "a.png").read_bytes()
    start = file.index(b"PLTE") - 4
    length = struct.unpack_from(">I", file, start)[0]
    (tmp_path / "a.png").write_bytes(file[:start] + file[start + 12 + length :])
    for read in (read_image, read_labels):
        with pytest.raises(InputError, match="its palette is missing"):
            read(tmp_path / "a.png")


@pytest.mark.parametrize("colours", [GREY, COLOUR])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_data_end_early_is_refused(tmp_path, colours, progressive):
    path = save(tmp_path / "a.jpg", colours, progressive=progressive)
    file = path.read_bytes()
    path.write_bytes(file[: len(file) * 3 // 4] + b"\xff\xd9")
    with pytest.raises(InputError, match=r"a\.jpg: is damaged or cut short"):
        read_image(path)
    path.write_bytes(claiming("jpeg", 400, 50))
    with pytest.raises(InputError, match=r"premature end"):
        read_image(path)


def test_a_jpeg_with_a_few_bytes_between_its_parts_is_read(tmp_path):
    path = save(tmp_path / "a.jpg", COLOUR)
    expected, file = read_image(path), path.read_bytes()
    path.write_bytes(file[:-2] + b"\0\0\0\0" + file[-2:])
    np.testing.assert_array_equal(read_image(path), expected)


def test_pixels_packed_in_an_unusual_way_are_refused(tmp_path):
    path = save(tmp_path / "a.tif", GREY, compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(34887)  # LERC
    with pytest.raises(InputError, match=r"a\.tif: its pixels are compressed in a way that is not read here"):
        read_image(path)


def test_a_jpeg_in_a_tiff_that_claims_more_than_its_share_is_refused(tmp_path):
    path = save(tmp_path / "a.tif", COLOUR, compression="jpeg", photometric="rgb")
    assert read_image(path).shape == COLOUR.shape
    file = bytearray(path.read_bytes())
    frame = file.index(b"\xff\xc0")
    file[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    path.write_bytes(file)
    with pytest.raises(InputError, match="a part claims 60000 x 60000 pixels"):
        read_image(path)


def test_a_tiff_whose_pages_go_round_in_a_circle_is_refused(tmp_path):
    pages = struct.pack("<HI", 0, 14) + struct.pack("<HI", 0, 8)  # two, each without a tag
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + pages)
    with pytest.raises(InputError, match=r"a\.tif: is damaged .*in a circle"):
        read_image(tmp_path / "a.tif")


def test_nothing_is_printed_of_a_damaged_tiff(tmp_path):
    path = save(tmp_path / "a.tif", GREY)
    file = bytearray(path.read_bytes())
    file[12:14] = b"\xff\xff"  # the type of the first tag
    path.write_bytes(file)
    code = (
        f"import attractor.images\ntry: attractor.images.read_image({str(path)!r})\nexcept ValueError: print('refused')"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert (answer.stdout, answer.stderr) == ("refused\n", "")


def test_a_tile_much_larger_than_its_image_is_refused(tmp_path):
    path = save(tmp_path / "a.tif", GREY, compression="zlib", tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name in ("TileLength", "TileWidth"):
            tiff.pages[0].tags[name].overwrite(8192)
    with pytest.raises(InputError, match="a tile is larger than the image"):
        read_image(path)


def test_a_tiff_of_very_many_pages_is_refused_at_once(tmp_path):
    pages = b"".join(struct.pack("<HI", 0, 8 + 6 * (n + 1)) for n in range(40_000))
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8) + pages + struct.pack("<HI", 0, 0))
    with pytest.raises(InputError, match="is a stack of more than 32,768 pages"):
        read_image(tmp_path / "a.tif")


def encoded(tmp_path: Path, kind: str) -> bytes:
    """The bytes of one whole file."""
    path = tmp_path / f"whole.{kind.partition('-')[0]}"
    options = {
        "tif-strips": {"rowsperstrip": 7, "photometric": "rgb"},
        "tif-zlib": {"compression": "zlib", "photometric": "rgb"},
        "tif-tiles": {"tile": (16, 16), "compression": "lzw", "photometric": "rgb"},
    }.get(kind, {})
    if kind == "tif-pages":
        return save(path, np.moveaxis(COLOUR, -1, 0), imagej=True, metadata={"axes": "CYX"}).read_bytes()
    return save(path, COLOUR, **options).read_bytes()


@pytest.mark.parametrize(
    "kind", ["png", "jpg", "webp", "bmp", "gif", "tif-strips", "tif-zlib", "tif-tiles", "tif-pages"]
)
@pytest.mark.parametrize("part", [0.1, 0.4, 0.7, 0.98])
def test_a_file_cut_short_is_refused_and_never_half_an_image(tmp_path, kind, part):
    whole = encoded(tmp_path, kind)
    path = tmp_path / "cut.img"
    path.write_bytes(whole[: int(part * len(whole))])
    with pytest.raises(InputError, match=r"cut\.img: is (damaged or cut short|not an image)"):
        read_image(path)


@pytest.mark.parametrize("kind", ["png", "jpg", "webp", "tif-zlib", "tif-tiles", "tif-pages"])
def test_a_damaged_file_gives_an_image_or_an_input_error(tmp_path, kind):
    whole = np.frombuffer(encoded(tmp_path, kind), np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(40):
        damaged = whole.copy()
        damaged[generator.integers(0, len(whole), 4)] = generator.integers(0, 256, 4)
        (tmp_path / "damaged.img").write_bytes(damaged.tobytes())
        for read in (read_image, read_labels):
            with suppress(InputError):
                read(tmp_path / "damaged.img")


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.gif", "a.bmp"])
def test_what_pillow_takes_for_a_bomb_is_read(tmp_path, monkeypatch, name):
    save(tmp_path / name, GREY)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert read_image(tmp_path / name).shape[:2] == (40, 50)


def test_a_webp_too_large_for_pillow_is_refused(tmp_path, monkeypatch):
    save(tmp_path / "a.webp", COLOUR)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    with pytest.raises(InputError, match=r"a\.webp: is suspiciously large for its format; convert it to TIFF"):
        read_image(tmp_path / "a.webp")


def claiming(kind: str, height: int, width: int) -> bytes:
    """A file of few bytes whose header says that it is large."""
    file = io.BytesIO()
    if kind == "tif":
        tifffile.imwrite(file, np.zeros((16, 16), np.uint8), compression="zlib", metadata=None)
        file.seek(0)
        with tifffile.TiffFile(file) as tiff:
            places = {tag.name: tag.valueoffset for tag in tiff.pages[0].tags}
        content = bytearray(file.getvalue())
        for name, value in {"ImageLength": height, "ImageWidth": width, "RowsPerStrip": height}.items():
            content[places[name] : places[name] + 2] = struct.pack("<H", value)
        return bytes(content)
    if kind == "pgm":
        return f"P5 {width} {height} 65535\n".encode() + bytes(100)
    Image.fromarray(COLOUR).save(file, kind)
    content = bytearray(file.getvalue())
    if kind == "png":
        content[16:24] = struct.pack(">II", width, height)
        content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    elif kind == "jpeg":
        frame = content.index(b"\xff\xc0")
        content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    elif kind == "bmp":
        content[18:26] = struct.pack("<ii", width, height)
    elif kind == "gif":
        content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


@pytest.mark.parametrize("kind", ["tif", "png", "jpeg", "bmp", "gif", "pgm"])
def test_a_small_file_that_claims_to_be_large_is_refused_unread(tmp_path, monkeypatch, kind):
    (tmp_path / "a").write_bytes(claiming(kind, 50_000, 30_000))
    for decoder in (tifffile.TiffPageSeries, JpegImageFile, PngImageFile, BmpImageFile, GifImageFile):
        for name in ("load", "asarray"):
            if hasattr(decoder, name):
                monkeypatch.setattr(decoder, name, lambda *_: pytest.fail("the pixels were asked for"))
    with pytest.raises(
        InputError, match=r"claims 50,000 x 30,000 pixels, too many to be true of a file of [\d,]+ bytes"
    ):
        read_image(tmp_path / "a")


def test_more_pixels_than_can_be_numbered_are_refused(tmp_path):
    (tmp_path / "a.png").write_bytes(claiming("png", 100_000, 100_000))
    with pytest.raises(InputError, match="claims 100,000 x 100,000 pixels, more than one image can have"):
        read_image(tmp_path / "a.png")


@pytest.mark.parametrize(("size", "is_refused"), [(1_000, True), (1_000_000, True), (1_500_000, False)])
def test_a_file_may_claim_as_much_as_its_bytes_can_hold(tmp_path, size, is_refused):
    path = tmp_path / "a"
    path.write_bytes(bytes(size))
    refuse_too_large(path, 10_000, 10_000, 10)
    with pytest.raises(InputError, match="too many") if is_refused else nullcontext():
        refuse_too_large(path, 10_001, 20_000, 10)


@pytest.mark.slow
@pytest.mark.parametrize(("suffix", "kind"), [(".png", np.uint8), (".tif", np.uint16), (".tif", np.int32)])
def test_a_large_label_image_without_an_object_is_read(tmp_path, suffix, kind):
    path = tmp_path / f"a{suffix}"
    save(path, np.zeros((10_000, 10_000), kind), **({"compression": "zlib"} if suffix == ".tif" else {}))
    assert path.stat().st_size < 1_000_000
    assert read_labels(path).shape == (10_000, 10_000)


def test_an_image_too_large_for_memory_is_an_input_error(tmp_path, monkeypatch):
    def exhausted(*_: object) -> None:
        raise MemoryError

    save(tmp_path / "a.bmp", COLOUR)
    monkeypatch.setattr(BmpImageFile, "load", exhausted)
    with pytest.raises(InputError, match=r"a\.bmp: needs more memory than there is"):
        read_image(tmp_path / "a.bmp")


def test_a_file_without_permission_is_an_input_error(tmp_path, monkeypatch):
    def forbidden(*_: object) -> bytes:
        raise PermissionError(13, "Permission denied")

    save(tmp_path / "a.bmp", COLOUR)
    monkeypatch.setattr(Path, "open", forbidden)
    with pytest.raises(InputError, match=r"a\.bmp: cannot be read: Permission denied"):
        read_image(tmp_path / "a.bmp")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_no_numbers_are_refused(tmp_path, value):
    array = GREY.astype(np.float32)
    array[3, 4] = value
    with pytest.raises(InputError, match=r"a\.tif: 1 values are NaN or infinite"):
        read_image(save(tmp_path / "a.tif", array))
    with pytest.raises(InputError, match="NaN or infinite"):
        as_image(array)
    with pytest.raises(InputError, match="NaN or infinite"):
        as_image(np.array([[1e300]]))


def test_arrays_in_memory_follow_the_same_rules():
    assert as_image(np.zeros((4, 5), bool)).dtype == np.uint8
    assert as_image(np.ones((4, 5), bool)).max() == 255
    assert as_image(np.zeros((4, 5, 7), np.int64)).shape == (4, 5, 7)
    assert as_image(np.zeros((4, 5, 4), np.uint8)).shape == (4, 5, 4)
    swapped = GREY_16.astype(">u2")
    assert as_image(swapped).dtype.isnative
    np.testing.assert_array_equal(as_image(swapped)[..., 0], GREY_16)


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros(5), r"shape \(5,\); give one image"),
        (np.zeros((2, 3, 4, 5)), "give one image of shape"),
        (np.zeros((0, 5)), "holds no pixels"),
        (np.zeros((4, 5), complex), "pixels of type complex128"),
        (np.zeros((4, 5), object), "pixels of type object"),
    ],
)
def test_arrays_that_are_no_image_are_refused(array, message):
    with pytest.raises(InputError, match=f"^cells: .*{message}"):
        as_image(array, name="cells")


def test_channels_are_adapted_where_that_is_plain():
    grey, colour = GREY[..., None], COLOUR
    np.testing.assert_array_equal(as_channels(grey, 3, "x"), np.dstack([GREY] * 3))
    assert as_channels(colour, 3, "x") is colour
    white = np.full((2, 2, 3), 255, np.uint8)
    assert as_channels(white, 1, "x").tolist() == [[[255], [255]]] * 2
    green = np.array([[[0.0, 1.0, 0.0]]], np.float32)
    np.testing.assert_allclose(as_channels(green, 1, "x"), [[[0.587]]])
    with pytest.raises(InputError, match=r"cells\.tif has 5 channels, the model takes 3"):
        as_channels(np.zeros((2, 2, 5), np.uint8), 3, "cells.tif")
    with pytest.raises(InputError, match="has 1 channel, the model takes 2"):
        as_channels(grey, 2)


@pytest.mark.parametrize("image", [GREY[..., None], COLOUR, GREY_16[..., None], COLOUR_16, COLOUR / np.float32(7)])
def test_an_image_written_comes_back(tmp_path, image):
    path = tmp_path / f"a{image_suffix(image)}"
    write_image(path, image)
    found = read_image(path)
    assert found.dtype == image.dtype
    np.testing.assert_array_equal(found, image)


@pytest.mark.parametrize("channels", [2, 4, 5, 60])
def test_any_number_of_channels_written_comes_back(tmp_path, channels):
    image = np.random.default_rng(0).integers(0, 256, (7, 9, channels), np.uint8)
    write_image(tmp_path / "a.tif", image)
    np.testing.assert_array_equal(read_image(tmp_path / "a.tif"), image)


MICRO = ["\u00b5m", "\u03bcm"]  # the micro sign, and the Greek letter


@pytest.mark.parametrize(
    ("unit", "micrometres"),
    [*((unit, 1) for unit in MICRO), (None, 1), ("nm", 1e-3), ("mm", 1e3), ("\u00c5", 1e-4), ("cm", 1e4), ("m", 1e6)],
)
def test_ome_says_how_large_a_pixel_is(tmp_path, unit, micrometres):
    units = {} if unit is None else {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    sides = {"axes": "YX", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    save(tmp_path / "a.tif", GREY, ome=True, metadata=sides | units)
    assert pixel_size(tmp_path / "a.tif") == pytest.approx((0.5 * micrometres, 0.25 * micrometres))


@pytest.mark.parametrize(
    ("unit", "micrometres"), [("um", 1), ("micron", 1), ("\\u00B5m", 1), ("nm", 1e-3), ("mm", 1e3), ("inch", 25400)]
)
def test_imagej_says_how_large_a_pixel_is(tmp_path, unit, micrometres):
    save(tmp_path / "a.tif", GREY, imagej=True, resolution=(4, 2), metadata={"unit": unit})
    assert pixel_size(tmp_path / "a.tif") == pytest.approx((0.5 * micrometres, 0.25 * micrometres))


def test_imagej_may_have_another_unit_along_the_columns(tmp_path):
    save(tmp_path / "a.tif", GREY, imagej=True, resolution=(4, 2), metadata={"unit": "um", "yunit": "nm"})
    assert pixel_size(tmp_path / "a.tif") == pytest.approx((0.0005, 0.25))


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"resolution": (300, 300), "resolutionunit": "INCH"},
        {"resolution": (4, 4), "resolutionunit": "CENTIMETER"},
        {"imagej": True},
        {"imagej": True, "resolution": (4, 4)},
        {"imagej": True, "resolution": (4, 4), "metadata": {"unit": "pixel"}},
        {"imagej": True, "resolution": (0, 4), "metadata": {"unit": "um"}},
        {"ome": True},
        {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.5}},
        {"ome": True, "metadata": {"axes": "YX", "PhysicalSizeX": 0.0, "PhysicalSizeY": 0.5}},
        {"description": "<OME><Image></OME>", "metadata": None},
        {"description": "<OME><Image/></OME>", "metadata": None},
        {"description": "<OME><Pixels PhysicalSizeX='a' PhysicalSizeY='1'/></OME>", "metadata": None},
        {"description": "<OME><Pixels PhysicalSizeX='1' PhysicalSizeY='inf'/></OME>", "metadata": None},
        {
            "description": "<OME><Pixels PhysicalSizeX='1' PhysicalSizeXUnit='pixel' PhysicalSizeY='1'/></OME>",
            "metadata": None,
        },
    ],
)
def test_without_a_resolution_or_with_one_for_printing_there_is_no_pixel_size(tmp_path, options):
    assert pixel_size(save(tmp_path / "a.tif", GREY, **options)) is None


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_only_tiff_is_trusted_with_the_size_of_a_pixel(tmp_path, suffix):
    assert pixel_size(save(tmp_path / f"a{suffix}", GREY, dpi=(96, 96))) is None


def test_a_pixel_size_of_no_file_or_a_damaged_one_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        pixel_size(tmp_path / "a.tif")
    (tmp_path / "a.tif").write_bytes(b"II*\0\1")
    with pytest.raises(InputError, match=r"a\.tif: is damaged or cut short"):
        pixel_size(tmp_path / "a.tif")


@pytest.mark.parametrize("options", [{"ome": True}, {"imagej": True, "metadata": {"unit": "um"}}])
def test_a_damaged_note_gives_a_size_or_none_or_an_input_error(tmp_path, options):
    whole = np.frombuffer(save(tmp_path / "a.tif", GREY[:4, :4], resolution=(2, 2), **options).read_bytes(), np.uint8)
    generator = np.random.default_rng(0)
    for _ in range(100):
        damaged = whole.copy()
        damaged[generator.integers(0, len(whole), 6)] = generator.integers(0, 256, 6)
        (tmp_path / "damaged.tif").write_bytes(damaged.tobytes())
        with suppress(InputError):
            pixel_size(tmp_path / "damaged.tif")


@pytest.mark.parametrize("suffix", [".jpg", ".png", ""])
def test_a_format_that_would_lose_something_is_refused(tmp_path, suffix):
    with pytest.raises(InputError, match=r"3 channels of uint16 cannot be written as .*name it \.tif"):
        write_image(tmp_path / f"a{suffix}", COLOUR_16)


@pytest.mark.parametrize(
    ("highest", "kind"), [(300, np.uint16), (65535, np.uint16), (65536, np.uint32), (2**31 - 1, np.uint32)]
)
def test_labels_written_come_back(tmp_path, highest, kind):
    labels = np.array([[0, 1], [256, highest]], np.int32)
    write_labels(tmp_path / "a.tif", labels)
    assert tifffile.imread(tmp_path / "a.tif").dtype == kind
    found = read_labels(tmp_path / "a.tif")
    assert found.dtype == np.int32
    np.testing.assert_array_equal(found, labels)


def test_labels_written_to_png_come_back_or_are_too_many(tmp_path):
    labels = np.array([[0, 1], [256, 65535]], np.int32)
    write_labels(tmp_path / "a.png", labels)
    np.testing.assert_array_equal(read_labels(tmp_path / "a.png"), labels)
    with pytest.raises(InputError, match="PNG holds labels up to 65,535, these go to 65536"):
        write_labels(tmp_path / "b.png", labels + 1)
    with pytest.raises(InputError, match=r"written as \.tif or \.png, not as \.jpg"):
        write_labels(tmp_path / "b.jpg", labels)
    with pytest.raises(InputError, match="the label -1 cannot be written"):
        write_labels(tmp_path / "b.tif", labels - 1)
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_whole_numbers_in_a_float_tiff_are_labels(tmp_path):
    save(tmp_path / "a.tif", np.array([[0, 3], [7, 7]], np.float32))
    assert read_labels(tmp_path / "a.tif").tolist() == [[0, 3], [7, 7]]


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.array([[0, 1.5]], np.float32), "has fractions; is it an image"),
        (np.array([[0, np.nan]], np.float32), "has fractions"),
        (np.array([[0, -1]], np.int16), "has the negative label -1"),
        (np.array([[0, 2**31]], np.uint32), "has the label 2147483648, above the largest possible"),
        (np.array([[0, 1j]], np.complex64), "has type complex64"),
    ],
)
def test_arrays_that_are_no_labels_are_refused(tmp_path, array, message):
    save(tmp_path / "a.tif", array, photometric="minisblack")
    with pytest.raises(InputError, match=rf"a\.tif: .*{message}"):
        read_labels(tmp_path / "a.tif")


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_coloured_labels_are_refused(tmp_path, suffix):
    save(tmp_path / f"a{suffix}", COLOUR, **({"photometric": "rgb"} if suffix == ".tif" else {}))
    with pytest.raises(InputError, match="must have one channel, this one has 3"):
        read_labels(tmp_path / f"a{suffix}")


def test_labels_in_a_jpeg_are_refused(tmp_path):
    with pytest.raises(InputError, match="must be a PNG or TIFF file"):
        read_labels(save(tmp_path / "a.jpg", GREY))


def half_written(path: Path, error: BaseException) -> None:
    """Begin to write a file, and fail."""
    with atomic(path) as temporary:
        temporary.write_text("half")
        assert (temporary.parent, temporary.suffix) == (path.parent, path.suffix)
        raise error


def test_a_write_that_fails_leaves_the_old_file_and_no_rest(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(InputError, match=r"a\.txt: cannot be written: No space left on device"):
        half_written(path, OSError(28, "No space left on device"))
    with pytest.raises(KeyboardInterrupt):
        half_written(path, KeyboardInterrupt())
    assert [(file.name, file.read_text()) for file in tmp_path.iterdir()] == [("a.txt", "old")]


def test_a_folder_that_is_not_there_cannot_be_written_to(tmp_path):
    with pytest.raises(InputError, match="cannot be written: No such file or directory"):
        write_labels(tmp_path / "nowhere" / "a.tif", np.zeros((2, 2), np.int32))


def test_what_is_written_has_the_permissions_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_labels(tmp_path / "a.tif", np.zeros((2, 2), np.int32))
    assert (tmp_path / "a.tif").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_folders_are_expanded_without_our_own_outputs(tmp_path):
    for name in (
        "b.png",
        "a.TIF",
        "a_labels.tif",
        "a_overlay.png",
        "a_objects.csv",
        "a_coco.json",
        ".hidden.png",
        "notes.txt",
    ):
        (tmp_path / name).touch()
    (tmp_path / "deeper.png").mkdir()
    assert find_images([tmp_path]).images == (tmp_path / "a.TIF", tmp_path / "b.png")
    assert find_images([tmp_path / "b.png", tmp_path]).images == (tmp_path / "b.png", tmp_path / "a.TIF")
    assert find_images([tmp_path / "notes.txt"]).images == (tmp_path / "notes.txt",)
    found = find_images([tmp_path / "deeper.png", tmp_path])
    assert len(found.images) == 2
    assert list(found.problems) == [tmp_path / "deeper.png"]
    assert "holds no image" in found.problems[tmp_path / "deeper.png"]


def test_what_cannot_be_found_is_named(tmp_path):
    with pytest.raises(InputError, match="nowhere: no such file"):
        find_images([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="holds no image; files must end in one of"):
        find_images([tmp_path])
    for name in ("a.png", "a.tif"):
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="share the stem 'a'"):
        find_images([tmp_path])


def test_a_data_set_or_session_stands_for_its_images(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(InputError, match="images: holds no image"):
        find_images([tmp_path])
    write_image(tmp_path / "images" / "a.png", np.zeros((4, 4, 1), np.uint8))
    assert find_images([tmp_path]).images == (tmp_path / "images" / "a.png",)
    write_image(tmp_path / "own.png", np.zeros((4, 4, 1), np.uint8))
    assert find_images([tmp_path]).images == (tmp_path / "own.png",)


def test_a_folder_that_cannot_be_listed_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="gone: cannot be read: No such file"):
        images_in(tmp_path / "gone")


def test_a_tiff_without_an_image_is_refused(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"II*\0\0\0\0\0")
    with pytest.raises(InputError, match=r"a\.tif: is"):
        read_image(tmp_path / "a.tif")


def test_what_a_signal_kept_from_clearing_up_is_removed_in_the_end(tmp_path):
    folder = temporary_folder(tmp_path)
    file = unfinished(tmp_path, ".tif")
    (folder.__enter__() / "a.txt").touch()
    file.__enter__().touch()
    assert len(list(tmp_path.iterdir())) == 2
    remove_own()
    assert not list(tmp_path.iterdir())
