"""Views, crops and intensities: labels go where the image goes."""

import dataclasses
import math

import numpy as np
import pytest
import torch

from attractor.augmentation import VIEWS, Augmentation, pasted

STILL = Augmentation(
    scale=(1.0, 1.0),
    stretch=1.0,
    rotate=False,
    flip=False,
    brightness=0.0,
    contrast=0.0,
    gamma=0.0,
    colour=0.0,
    noise=0.0,
    blur=0.0,
)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def picture(h=24, w=32):
    labels = torch.zeros(h, w, dtype=torch.int32)
    labels[4:12, 6:20] = 1
    labels[14:20, 20:28] = 2
    return labels[None].float() / 2, labels, torch.ones(h, w, dtype=torch.bool)


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_a_view_is_undone(view):
    x = torch.arange(2 * 3 * 5).view(2, 3, 5)
    assert torch.equal(view.undo(view.apply(x)), x)


def test_the_eight_views_differ():
    x = torch.arange(9).view(3, 3)
    assert len({tuple(view.apply(x).flatten().tolist()) for view in VIEWS}) == 8


def test_an_upright_picture_is_mirrored_but_never_upside_down():
    image, labels, valid = picture(16, 16)
    upright = dataclasses.replace(STILL, flip=True, upright=True)
    found = [upright.crop(image, labels, valid, (7.5, 7.5), 16, generator(seed))[1] for seed in range(20)]
    assert {tuple(crop.flatten().tolist()) for crop in found} == {
        tuple(view.flatten().tolist()) for view in (labels, labels.flip(-1))
    }


def test_an_upright_picture_is_hardly_turned():
    turned = dataclasses.replace(STILL, rotate=True, upright=True)
    angles = [turned._matrix(generator(seed)) for seed in range(200)]
    largest = max(float(matrix[1, 0].abs()) for matrix in angles)
    assert 0.06 < largest <= math.sin(math.radians(5)) + 1e-6


def test_a_still_crop_is_a_cut_out():
    image, labels, valid = picture()
    found = STILL.crop(image, labels, valid, (11.5, 15.5), 16, generator())
    torch.testing.assert_close(found[0], image[:, 4:20, 8:24], atol=1e-5, rtol=0)
    assert torch.equal(found[1], labels[4:20, 8:24])
    assert found[2].all()


def test_a_crop_is_moved_into_the_image():
    image, labels, valid = picture()
    assert torch.equal(STILL.crop(image, labels, valid, (-9.0, 99.0), 16, generator())[1], labels[:16, 16:])


@pytest.mark.parametrize("scale", [2.0, 1.0, 0.5])
def test_a_crop_at_any_scale_is_moved_no_further_than_into_the_image(scale):
    rows = torch.arange(64, dtype=torch.float32)[None, :, None].expand(1, 64, 64)
    still = dataclasses.replace(STILL, scale=(scale, scale))
    labels, valid = torch.zeros(64, 64, dtype=torch.int32), torch.ones(64, 64, dtype=torch.bool)
    image, _, counts = still.crop(rows, labels, valid, (0.0, 0.0), 16, generator(0))
    assert counts.all()
    assert float(image[0, 0, 0]) == pytest.approx(0, abs=1)


def test_what_lies_outside_a_small_image_does_not_count():
    image, labels, valid = picture(8, 8)
    _, found, counts = STILL.crop(image, labels, valid, (4.0, 4.0), 16, generator())
    assert counts.sum() == 64
    assert torch.equal(found[4:12, 4:12], labels)


@pytest.mark.parametrize("seed", range(8))
def test_labels_move_with_the_image(seed):
    _, labels, valid = picture(48, 48)
    image = (labels > 0)[None].float()
    moving = Augmentation(brightness=0.0, contrast=0.0, gamma=0.0, colour=0.0, noise=0.0, blur=0.0, scale=(0.7, 1.4))
    found, moved, _ = moving.crop(image, labels, valid, (20.0, 20.0), 32, generator(seed))
    sure = (found[0] - found[0].round()).abs() < 1e-3  # not on an edge, where the image is a mixture
    assert sure.float().mean() > 0.5
    assert torch.equal(found[0].round().bool()[sure], moved.bool()[sure])


def test_ignored_pixels_stay_ignored():
    image, labels, valid = picture()
    valid[:, 10:14] = False
    found = STILL.crop(image, labels, valid, (11.5, 15.5), 16, generator())
    assert torch.equal(found[2], valid[4:20, 8:24])


def test_intensity_changes_the_image_and_not_its_shape():
    image, _, _ = picture()
    changed = Augmentation().intensity(image, generator())
    assert changed.shape == image.shape
    assert torch.isfinite(changed).all()
    assert not torch.equal(changed, image)
    assert torch.equal(changed, Augmentation().intensity(image, generator()))


def test_one_pixel_can_be_cropped():
    one = torch.ones(3, 1, 1), torch.ones(1, 1, dtype=torch.int32), torch.ones(1, 1, dtype=torch.bool)
    image, labels, valid = Augmentation().crop(*one, (0.0, 0.0), 16, generator())
    assert image.shape == (3, 16, 16)
    assert np.unique(labels).tolist() == [1]
    assert valid.sum() <= 4


def test_stains_change_each_by_itself():
    from skimage.color import hed2rgb, rgb2hed

    amount = np.random.default_rng(0).uniform(0, 0.2, (5, 6, 3))
    image = torch.from_numpy(hed2rgb(amount)).permute(2, 0, 1)
    stained = dataclasses.replace(STILL, stain=0.5)
    changed = stained.intensity(image, generator()).permute(1, 2, 0).numpy()
    ratio = rgb2hed(changed) / rgb2hed(image.permute(1, 2, 0).numpy())
    assert np.allclose(ratio, ratio[0, 0], atol=1e-3)  # the same factor everywhere, and one for each stain
    assert np.ptp(ratio[0, 0]) > 0.1
    assert np.all((ratio[0, 0] > 0.5) & (ratio[0, 0] < 1.5))


def test_grey_images_have_no_stains():
    image = torch.rand(1, 5, 6, generator=generator())
    assert torch.equal(dataclasses.replace(STILL, stain=0.5).intensity(image, generator()), image)


def test_texture_makes_patches_lighter_and_darker_and_all_channels_alike():
    image = torch.ones(2, 64, 64)
    textured = dataclasses.replace(STILL, texture=0.5)
    changed = [textured.intensity(image, generator(seed)) for seed in range(12)]
    is_changed = [not torch.equal(crop, image) for crop in changed]
    assert 2 <= sum(is_changed) <= 10  # about half of them
    for crop in (crop for crop, is_other in zip(changed, is_changed, strict=True) if is_other):
        assert torch.equal(crop[0], crop[1])
        assert crop.min() > 0
        assert crop.min() < 1 < crop.max()
        steps = crop[0].diff(dim=0).abs().mean()
        assert steps < crop[0].std()  # neighbours are more alike than pixels far apart


def test_halos_shade_what_is_around_a_bright_object_and_its_middle():
    image = torch.zeros(1, 96, 96)
    image[:, 38:58, 38:58] = 1
    changed = [dataclasses.replace(STILL, halo=0.5).intensity(image, generator(seed)) for seed in range(12)]
    shaded = [crop for crop in changed if not torch.equal(crop, image)]
    assert 2 <= len(shaded) <= 10  # about half of them
    for crop in shaded:
        assert crop.mean().item() == pytest.approx(image.mean().item(), abs=0.005)  # up to what is reflected
        assert crop[0, 35, 48] < crop[0, 2, 2]  # just outside, and far away
        assert crop[0, 48, 48] < crop[0, 39, 39] < 1  # the middle, and a corner


@pytest.mark.parametrize("shape", [(1, 1), (2, 3), (3, 2, 40)])
def test_small_crops_and_volumes_have_halos_too(shape):
    image = torch.rand(2, *shape, generator=generator())
    haloed = dataclasses.replace(STILL, halo=1.0)
    changed = torch.stack([haloed.intensity(image, generator(seed)) for seed in range(6)])
    assert changed.isfinite().all()
    torch.testing.assert_close(changed.flatten(2).mean(2), image.flatten(1).mean(1).expand(6, 2), atol=0.1, rtol=0)


def test_half_of_the_crops_have_few_intensities():
    image = torch.linspace(0, 1, 1000).view(1, 20, 50)
    changed = [dataclasses.replace(STILL, bit_depth=2.0).intensity(image, generator(seed)) for seed in range(12)]
    different = [len(torch.unique(crop)) for crop in changed]
    assert 2 <= sum(n == 1000 for n in different) <= 10
    assert all(4 <= n <= 256 for n in different if n < 1000)
    assert min(different) < 32
    for crop in changed:
        assert (crop - image).abs().max() <= 1 / 6 + 1e-6
    assert min(len(torch.unique(STILL.intensity(image, generator(seed)))) for seed in range(12)) == 1000


def two_crops():
    """A crop with an object, an ignored part and a background of 0.2, and another one with four objects and of 0.5."""
    labels, valid = torch.zeros(20, 30, dtype=torch.int32), torch.ones(20, 30, dtype=torch.bool)
    labels[2:8, 2:8] = 1
    valid[:, 26:] = False
    image = torch.where(labels > 0, 0.9, 0.2)[None]
    others = torch.zeros(20, 30, dtype=torch.int32)
    others[12:18, 2:8] = 1  # on background alone
    others[7:11, 7:11] = 2  # over the corner of the object that is there
    others[12:18, 24:28] = 3  # over the ignored part
    others[2:8, 12:18] = 4  # on background, but part of it does not count
    counts = torch.ones_like(valid)
    counts[3, 13] = False
    return (image, labels, valid), (torch.where(others > 0, 0.7, 0.5)[None], others, counts)


def test_objects_are_pasted_only_where_nothing_is_annotated():
    onto, other = two_crops()
    results = [pasted(onto, other, 5, generator(seed)) for seed in range(20)]
    assert {tuple(taken) for _, taken in results} == {(), (1,)}  # by chance
    for (image, labels, valid), taken in results:
        assert torch.equal(valid, onto[2])
        if not taken:
            assert torch.equal(image, onto[0])
            assert torch.equal(labels, onto[1])
            continue
        expected = onto[1].clone()
        expected[12:18, 2:8] = 6  # after the five labels of the image
        assert torch.equal(labels, expected)
        inside = torch.zeros_like(valid)
        inside[12:18, 2:8] = True
        torch.testing.assert_close(image[0][inside], torch.full((36,), 0.4))  # as much above its background as before
        far = torch.ones_like(valid)
        far[11:19, 1:9] = False
        assert torch.equal(image[0][far], onto[0][0][far])


def test_objects_of_a_volume_are_pasted_too():
    labels, valid = torch.zeros(3, 8, 8, dtype=torch.int32), torch.ones(3, 8, 8, dtype=torch.bool)
    others = labels.clone()
    others[1, 2:5, 2:5] = 1
    onto, other = (torch.zeros(1, 3, 8, 8), labels, valid), (others[None].float(), others, valid)
    found = [pasted(onto, other, 0, generator(seed))[0] for seed in range(8)]
    assert any(torch.equal(now, others) for _, now, _ in found)
    assert any(torch.equal(now, labels) for _, now, _ in found)
