"""Microscopes' formats: what bioio reads is read in parts, and what is missing is said."""

import sys
from types import SimpleNamespace

import dask.array
import numpy as np
import pytest

from attractor.errors import InputError
from attractor.images import by_bioio, read_image
from attractor.images.by_bioio import is_for_bioio, open_by_bioio


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
