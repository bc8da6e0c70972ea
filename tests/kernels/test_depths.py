"""How deep pixels lie in their objects: hand-made cases, and scipy's distances of each object by itself."""

import numpy as np
import torch
from scipy import ndimage

from attractor.kernels.depths import depths


def test_touching_objects_have_a_rim_each_and_neither_the_images_end_nor_ignored_pixels_are_one():
    owner = torch.tensor([[[1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, 0], [1, 1, 1, 2, 2, -1]]])
    assert depths(owner)[0].tolist() == [[3, 2, 1, 1, 1, 1], [3, 2, 1, 1, 1, 1], [3, 2, 1, 1, 2, 2]]


def test_without_a_rim_all_is_one_step_deep():
    assert depths(torch.ones(2, 3, 4, dtype=torch.int64)).tolist() == np.ones((2, 3, 4)).tolist()


def test_depth_is_at_most_a_step_from_the_distance_to_what_is_outside():
    rng = np.random.default_rng(0)
    seeds = ndimage.gaussian_filter(rng.normal(size=(40, 50)), 3)
    owner = ndimage.label(seeds > 0.02)[0]
    found = depths(torch.from_numpy(owner)[None])[0].numpy()
    for number in range(1, owner.max() + 1):
        own = owner == number
        exact = ndimage.distance_transform_edt(np.pad(own, 60, mode="edge"))[60:-60, 60:-60]
        assert np.abs(found - exact)[own].max() <= 1


def test_steps_across_planes_count_as_long_as_they_are():
    owner = torch.zeros(1, 5, 3, 3, dtype=torch.int64)
    owner[0, :3] = 1
    assert depths(owner, spacing=(4.0, 1.0, 1.0))[0, :, 1, 1].tolist() == [9, 5, 1, 1, 5]
