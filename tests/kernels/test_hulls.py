"""Areas of convex hulls equal those of scikit-image."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.draw import ellipse
from skimage.measure import regionprops

from attractor.kernels.hulls import hull_areas


def expected(labels, n):
    found = np.zeros(n, np.int64)
    for region in regionprops(labels):
        found[region.label - 1] = region.area_convex
    return found


@settings(max_examples=150, deadline=None, derandomize=True)
@given(data=st.data())
def test_random_labels(data):
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    shape = data.draw(st.integers(1, 14)), data.draw(st.integers(1, 14))
    n = data.draw(st.integers(1, 4))
    labels = random.integers(0, n + 1, shape).astype(np.int32)
    labels[random.random(shape) < data.draw(st.sampled_from([0.0, 0.6, 0.95]))] = 0
    np.testing.assert_array_equal(hull_areas(labels, n), expected(labels, n))


@pytest.mark.parametrize("seed", range(6))
def test_ellipses(seed):
    random, labels = np.random.default_rng(seed), np.zeros((120, 90), np.int32)
    for k in range(1, 9):
        rows, columns = ellipse(
            *random.uniform(0, 90, 2), *random.uniform(1, 25, 2), labels.shape, random.uniform(0, 3)
        )
        labels[rows, columns] = k
    np.testing.assert_array_equal(hull_areas(labels, 8), expected(labels, 8))


def test_a_label_without_a_pixel_has_no_area():
    assert hull_areas(np.array([[0, 3]], np.int32), 3).tolist() == [0, 0, 1]
    assert hull_areas(np.zeros((4, 5), np.int32), 0).tolist() == []
