"""Which pixels of a layer are segmented, whatever kind of array it has."""

import numpy as np
import pytest

from attractor.errors import InputError
from attractor.napari.planes import geometry, shown_plane

STACK = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype(np.uint16)


class Lazy:
    """An array that is read in parts, as zarr's are."""

    dtype, shape, ndim = STACK.dtype, STACK.shape, 4

    def __init__(self):
        self.largest = 0

    def __getitem__(self, index):
        part = STACK[index]
        self.largest = max(self.largest, part.size)
        return part


def test_a_plane_is_taken_whole(viewer):
    layer = viewer.add_image(STACK[0, 0], name="cells")
    pixels, name = shown_plane(layer, viewer.dims)
    np.testing.assert_array_equal(pixels[..., 0], STACK[0, 0])
    assert (pixels.dtype, name) == (np.uint16, "cells")


def test_of_a_stack_the_shown_plane_is_taken(viewer):
    layer = viewer.add_image(STACK, name="film", scale=(1, 3, 0.5, 0.25), translate=(0, 10, 7, 8))
    viewer.dims.current_step = (1, 2, 0, 0)
    pixels, name = shown_plane(layer, viewer.dims)
    np.testing.assert_array_equal(pixels[..., 0], STACK[1, 2])
    assert name == "film 1 2"
    place = geometry(layer)
    assert (list(place["scale"]), list(place["translate"])) == ([0.5, 0.25], [7, 8])
    deeper = viewer.add_image(np.zeros((9, 2, 3, 4, 5)))  # the viewer gets an axis that the layer does not have
    assert deeper.ndim == viewer.dims.ndim
    np.testing.assert_array_equal(shown_plane(layer, viewer.dims)[0][..., 0].shape, (4, 5))


def test_of_a_lazy_array_only_the_plane_is_computed(viewer):
    lazy = Lazy()
    layer = viewer.add_image(lazy, contrast_limits=(0, 200))
    lazy.largest = 0
    shown_plane(layer, viewer.dims)
    assert lazy.largest == 20


def test_dask_and_zarr_layers_are_taken(viewer):
    dask = pytest.importorskip("dask.array", reason="dask comes with napari")
    layer = viewer.add_image(dask.from_array(STACK, chunks=2))
    np.testing.assert_array_equal(shown_plane(layer, viewer.dims)[0][..., 0], STACK[0, 1])
    zarr = pytest.importorskip("zarr", reason="zarr is not installed: pip install zarr")
    array = zarr.create_array({}, shape=(4, 5), dtype="uint16", chunks=(2, 2))
    array[:] = STACK[1, 0]
    layer = viewer.add_image(array, contrast_limits=(0, 200))
    np.testing.assert_array_equal(shown_plane(layer, viewer.dims)[0][..., 0], STACK[1, 0])


def test_of_a_pyramid_the_finest_level_is_taken(viewer):
    layer = viewer.add_image([STACK[0, 0], STACK[0, 0, ::2, ::2]], multiscale=True)
    assert shown_plane(layer, viewer.dims)[0].shape == (4, 5, 1)


def test_colours_stay_and_opacity_goes(viewer):
    layer = viewer.add_image(np.zeros((6, 7, 4), np.uint8), rgb=True)
    assert shown_plane(layer, viewer.dims)[0].shape == (6, 7, 3)


def test_a_view_that_is_no_plane_is_refused(viewer):
    layer = viewer.add_image(STACK, name="film")
    viewer.dims.order = (0, 2, 1, 3)
    with pytest.raises(InputError, match=r"film: the viewer shows axes 1, 3 of the layer; .* Switch to the 2D view"):
        shown_plane(layer, viewer.dims)


def test_geometry_is_that_of_the_image(viewer):
    layer = viewer.add_image(STACK[0, 0], scale=(2, 3), translate=(4, 5), units=("um", "um"), rotate=30)
    copy = viewer.add_labels(np.zeros((4, 5), int), **geometry(layer))
    np.testing.assert_allclose(copy.data_to_world((1, 2)), layer.data_to_world((1, 2)))
    assert copy.units == layer.units
