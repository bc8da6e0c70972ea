"""Every reader of image files, on damaged files: an image, a label image, or a sentence."""

import io
from pathlib import Path

import imagecodecs
import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from PIL import Image
from tests.fuzz.mutation import Guard, cases, edits, mutants

from attractor.images import pixel_size, read_image, read_labels

# Pillow warns of EXIF that is damaged; the pixels beside it may be whole
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")

RANDOM = np.random.default_rng(0)
GREY = (np.add.outer(np.arange(23), np.arange(31)) * 4).astype(np.uint8)
COLOUR = np.stack([GREY, GREY // 2, RANDOM.integers(0, 256, GREY.shape, np.uint8)], -1)
LABELS = np.kron(np.arange(12).reshape(3, 4), np.ones((8, 8), int)).astype(np.uint16)


def by_pillow(kind: str, pixels: np.ndarray, mode: str | None = None, **options: object) -> bytes:
    file = io.BytesIO()
    image = Image.fromarray(pixels)
    (image if mode is None else image.convert(mode)).save(file, kind, **options)
    return file.getvalue()


def by_tifffile(pixels: np.ndarray, **options: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, pixels, **options)
    return file.getvalue()


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[274] = orientation
    return exif.tobytes()


PNG = {
    "grey": by_pillow("PNG", GREY),
    "colour": by_pillow("PNG", COLOUR, exif=turned(6)),
    "alpha": by_pillow("PNG", COLOUR, "RGBA"),
    "palette": by_pillow("PNG", COLOUR, "P"),
    "bits": by_pillow("PNG", GREY > 50),
    "labels": by_pillow("PNG", LABELS),
}
JPEG = {
    "grey": by_pillow("JPEG", GREY),
    "colour": by_pillow("JPEG", COLOUR, exif=turned(8)),
    "progressive": by_pillow("JPEG", COLOUR, progressive=True, subsampling=2),
    "inks": by_pillow("JPEG", COLOUR, "CMYK"),
}
OTHER = {
    "webp": by_pillow("WEBP", COLOUR),
    "webp, lossless": by_pillow("WEBP", COLOUR, "RGBA", lossless=True),
    "bmp": by_pillow("BMP", COLOUR),
    "bmp, palette": by_pillow("BMP", COLOUR, "P"),
    "gif": by_pillow("GIF", COLOUR, "P"),
}
NETPBM = {
    "bits": by_pillow("PPM", GREY > 50),
    "grey": by_pillow("PPM", GREY),
    "colour": by_pillow("PPM", COLOUR),
    "16 bits": b"P5 31 23 65535\n" + (GREY.astype(">u2") * 256).tobytes(),
    "text": b"P2\n# made by hand\n4 2\n4095\n0 1 2 3\n4000 5 6 7\n",
    "text of bits": b"P1\n4 2\n0 1 1 0\n1 0 0 1\n",
}
TIFF = {
    "grey": by_tifffile(GREY),
    "colour": by_tifffile(COLOUR, photometric="rgb", rowsperstrip=5),
    "planes": by_tifffile(np.moveaxis(COLOUR, -1, 0), photometric="rgb", planarconfig="separate"),
    "deflate": by_tifffile(LABELS, compression="zlib", predictor=True),
    "LZW in tiles": by_tifffile(COLOUR, photometric="rgb", compression="lzw", tile=(16, 16)),
    "PackBits": by_tifffile(GREY, compression="packbits"),
    "Zstandard": by_tifffile(GREY, compression="zstd"),
    "JPEG": by_tifffile(COLOUR, photometric="rgb", compression="jpeg"),
    "JPEG 2000": by_tifffile(COLOUR, photometric="rgb", compression="jpeg2000"),
    "palette": by_pillow("TIFF", COLOUR, "P"),
    "inks": by_pillow("TIFF", COLOUR, "CMYK"),
    "bits": by_pillow("TIFF", GREY > 50, compression="group4"),
    "fractions": by_tifffile(GREY.astype(np.float32) / 7, byteorder=">"),
    "big": by_tifffile(LABELS, bigtiff=True, extratags=[(274, "H", 1, 6, True)]),
    "ImageJ": by_tifffile(
        np.moveaxis(COLOUR, -1, 0), imagej=True, resolution=(4, 2), metadata={"axes": "CYX", "unit": "um"}
    ),
    "OME": by_tifffile(
        np.moveaxis(COLOUR, -1, 0), ome=True, metadata={"axes": "CYX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    ),
}
FORMATS = {"png": PNG, "jpeg": JPEG, "other": OTHER, "netpbm": NETPBM, "tiff": TIFF}
SIXTEEN_BITS = {"colour": imagecodecs.png_encode(COLOUR.astype(np.uint16) * 257)}


@pytest.mark.parametrize("corpus", [*FORMATS.values(), SIXTEEN_BITS], ids=[*FORMATS, "png of 16 bits"])
def test_the_files_are_images_before_they_are_damaged(tmp_path, corpus):
    for name, file in corpus.items():
        (tmp_path / "a").write_bytes(file)
        assert read_image(tmp_path / "a").ndim == 3, name


@pytest.mark.parametrize("kind", FORMATS)
def test_a_damaged_file_gives_an_image_or_a_sentence(tmp_path, guarded, kind):
    corpus = FORMATS[kind]
    for number, (name, file) in enumerate(mutants(corpus, 100 * len(corpus))):
        check(guarded, tmp_path / "a", file, f"{kind}, {name}, case {number}")


def test_a_damaged_png_of_16_bits_gives_an_image_or_a_sentence(tmp_path, guarded):
    for number, (_, file) in enumerate(mutants(SIXTEEN_BITS | {"grey": PNG["grey"]}, 100)):
        check(guarded, tmp_path / "a", file, f"16 bits, case {number}")


@pytest.mark.parametrize("kind", FORMATS)
def test_edited_files_give_an_image_or_a_sentence(tmp_path, guarded, kind):
    @settings(max_examples=cases(100), deadline=None, suppress_health_check=list(HealthCheck), database=None)
    @given(edits(FORMATS[kind]))
    def edited(file: bytes) -> None:
        check(guarded, tmp_path / "a", file, kind)

    edited()


def check(guarded: Guard, path: Path, file: bytes, what: str) -> None:
    """Hold all that reads image files to the law."""
    path.write_bytes(file)
    image = guarded(lambda: read_image(path), what=what)
    assert image is None or is_image(image), what
    labels = guarded(lambda: read_labels(path), what=what)
    assert labels is None or is_label_image(labels), what
    size = guarded(lambda: pixel_size(path), what=what)
    assert size is None or all(0 < side < np.inf for side in size), what


def is_image(image: np.ndarray) -> bool:
    """Whether it is what `read_image` says that it gives."""
    is_known = image.dtype in (np.uint8, np.uint16) or (image.dtype == np.float32 and bool(np.isfinite(image).all()))
    return is_known and image.ndim == 3 and image.size > 0 and image.flags.c_contiguous and image.dtype.isnative


def is_label_image(labels: np.ndarray) -> bool:
    """Whether it is what `read_labels` says that it gives."""
    return labels.dtype == np.int32 and labels.ndim == 2 and labels.size > 0 and labels.min() >= 0
