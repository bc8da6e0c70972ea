"""Files as layers and back, and the manifest that tells napari of them."""

import tomllib
from pathlib import Path

import numpy as np
import pytest
from tests.web.conftest import LABELS, picture

import attractor.napari
from attractor.errors import InputError
from attractor.images import read_labels, write_image
from attractor.napari import files
from attractor.session import Accept, Session

MANIFEST = Path(attractor.napari.__file__).parent / "napari.yaml"
PROJECT = Path(__file__).parents[2] / "pyproject.toml"


def test_the_folder_of_a_session_is_read(folder, viewer):
    with Session(folder) as session:
        session.apply(Accept("b", labels=(2,)))
    read = files.session_reader(str(folder))
    for data, options, kind in read(str(folder)):
        getattr(viewer, f"add_{kind}")(data, **options)
    assert [layer.name for layer in viewer.layers] == [
        f"{name}{part}" for name in ("a", "b", "c d") for part in ("", " reviewed", " found")
    ]
    np.testing.assert_array_equal(viewer.layers["b found"].data, LABELS)
    assert viewer.layers["b reviewed"].data[LABELS == 2].all()
    assert viewer.layers["b found"].features["class"].tolist() == ["cell", "cell", "debris"]
    assert [layer.visible for layer in viewer.layers] == [True] * 3 + [False] * 6


def test_other_folders_are_left_to_other_readers(folder, tmp_path):
    assert files.session_reader(str(tmp_path)) is None
    assert files.session_reader([str(folder)]) is None


def test_a_session_of_many_images_is_opened_by_the_widget(folder):
    for number in range(files.MOST_IMAGES):
        write_image(folder / "images" / f"n{number}.png", picture(0))
    with pytest.raises(InputError, match="has 23 images; open it by the widget"):
        files.read_session(str(folder))


def test_an_image_of_several_channels_becomes_several_layers(viewer):
    data, options, _ = files.image_layer(np.zeros((6, 7, 4), np.uint8), "cells")
    layers = viewer.add_image(data, **options)
    assert [layer.data.shape for layer in layers] == [(6, 7)] * 4


@pytest.mark.parametrize("suffix", [".tif", ".png"])
def test_labels_are_written(tmp_path, suffix):
    path = str(tmp_path / f"labels{suffix}")
    assert files.write_label_image(path, LABELS, {"name": "found"}) == [path]
    np.testing.assert_array_equal(read_labels(path), LABELS)
    with pytest.raises(InputError, match="the layer film has 3 axes"):
        files.write_label_image(path, LABELS[None], {"name": "film"})


def test_the_manifest_names_what_there_is():
    npe2 = pytest.importorskip("npe2", reason="npe2 comes with napari")
    manifest = npe2.PluginManifest.from_file(MANIFEST)
    assert manifest.name == "attractor"
    for command in manifest.contributions.commands:
        module, _, name = command.python_name.partition(":")
        if module.endswith(".panel"):  # cannot be imported without Qt
            assert f"class {name}(" in (MANIFEST.parent / "panel.py").read_text()
        else:
            assert callable(npe2.manifest.utils.import_python_name(command.python_name))
    assert {sample.key for sample in manifest.contributions.sample_data} == {"fluorescence", "stained"}
    for sample in (files.fluorescence, files.stained):
        ((data, _, kind),) = sample()
        assert kind == "image"
        assert data.ndim == 3 - (sample is files.fluorescence)
    entry = tomllib.loads(PROJECT.read_text())["project"]["entry-points"]["napari.manifest"]
    assert entry == {"attractor": "attractor.napari:napari.yaml"}
