"""Images that are unlike those of training are noticed, and those that are alike are not."""

import logging

import numpy as np
import pytest
from scipy import ndimage

import attractor
from attractor.datasets.label_images import write_label_images
from attractor.datasets.sample import Sample
from attractor.description import Description
from attractor.likeness import Strangers, alike, outside, ranges, traits
from attractor.model import Model
from attractor.normalisation import Normalisation
from attractor.prediction.image import Segmenter


def picture(radius=5, blur=0.8, noise=0.0, seed=0):
    random = np.random.default_rng(seed)
    labels, image = np.zeros((80, 80), np.int32), np.zeros((80, 80))
    rows, columns = np.mgrid[:80, :80]
    for k, (row, column) in enumerate(((20, 20), (20, 58), (58, 22), (60, 60)), 1):
        labels[(rows - row) ** 2 + (columns - column) ** 2 < radius**2] = k
    image = ndimage.gaussian_filter((labels > 0) * 150.0, blur) + random.normal(0, noise, labels.shape) + 40
    return image.clip(0, 255).astype(np.uint8)[..., None], labels


def traits_of(**how):
    return traits(*picture(**how), Normalisation())


@pytest.fixture(scope="module")
def seen():
    return ranges(traits_of(radius=radius, seed=radius) for radius in (4, 5, 6))


@pytest.mark.parametrize(
    ("how", "names"),
    [
        ({}, []),
        ({"radius": 6, "seed": 9}, []),
        ({"radius": 14, "blur": 0.3}, ["brightness", "object size"]),
        ({"blur": 3.0}, ["sharpness"]),
        ({"noise": 60.0}, ["brightness", "sharpness"]),
    ],
)
def test_what_is_outside_the_ranges_of_training_is_named(seen, how, names):
    assert sorted(outside(traits_of(**how), seen)) == names


def test_exposure_and_bit_depth_do_not_matter(seen):
    image, labels = picture()
    for other in (image // 2, image.astype(np.uint16) * 200, (image / 7 + 3).astype(np.float32)):
        assert outside(traits(other, labels, Normalisation()), seen) == []


def test_an_image_without_objects_or_contrast_has_traits():
    found = traits(np.zeros((4, 1, 3), np.uint8), np.zeros((4, 1), np.int32), Normalisation())
    assert found == {"brightness": 0, "sharpness": 0}


def test_the_sentence_counts_images_and_reasons(seen):
    strangers = Strangers(seen)
    assert strangers.in_words() == ""
    for blur in (0.8, 3.0, 4.0):
        strangers.look_at(traits_of(blur=blur))
    assert strangers.in_words().startswith("2 images of 3 unlike those that the model was trained on: more blurred (2)")
    assert not Strangers({}).look_at(traits_of())


@pytest.mark.parametrize("is_known", [True, False])
def test_an_evaluation_says_so(tmp_path, caplog, seen, is_known):
    image, labels = picture(blur=4.0)
    void = np.zeros(labels.shape, bool)
    write_label_images(tmp_path, [Sample("a", image, labels, np.ones(4, np.int32), void)])
    description = Description(
        method="spatial-embeddings",
        network="erfnet",
        channels=1,
        class_names=("object",),
        seen=seen if is_known else {},
    )
    model = Model(description)
    model.save(tmp_path / "m.safetensors")
    assert Model.load(tmp_path / "m.safetensors").description.seen == description.seen
    with caplog.at_level(logging.WARNING):
        attractor.evaluate(Segmenter(model, device="cpu", dtype="float32"), tmp_path)
    assert ("1 image of 1 unlike those" in caplog.text) == is_known


def test_images_taken_alike_are_in_one_group():
    def four(**how):
        return [picture(noise=2, seed=seed, **how)[0] for seed in range(4)]

    images = [*four(), *four(blur=4), *(image.astype(np.uint16) * 20 for image in four()), *(i[:60] for i in four())]
    groups = alike(images, 4)
    assert [len(set(groups[k : k + 4])) for k in range(0, 16, 4)] == [1, 1, 1, 1]
    assert len(set(groups)) == 4
    assert len(set(alike([images[0]] * 3, 2))) == 1
