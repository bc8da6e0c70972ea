"""One segmenter for many threads and many images: the same labels, and no memory that is not given back."""

import gc
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest

import attractor

RANDOM = np.random.default_rng(0)
MOST_GROWTH = 20 << 20  # bytes


def pictures(n, *shape):
    return [RANDOM.integers(0, 255, shape, np.uint8) for _ in range(n)]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_eight_threads_on_one_segmenter_give_the_serial_labels(tiny_model, dtype):
    images = pictures(24, 40, 56)
    alone = attractor.load(tiny_model, device="cpu", dtype=dtype)
    expected = [alone.segment(image) for image in images]
    assert sum(map(len, expected)) > len(images)
    shared = attractor.load(tiny_model, device="cpu", dtype=dtype)  # all threads are the first to use it
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(shared.segment, images))
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_array_equal(one.labels, other.labels)
        np.testing.assert_array_equal(one.scores, other.scores)


def test_a_thousand_images_leave_no_memory_behind(tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu")
    process = psutil.Process()
    images = pictures(10, 32, 40)

    def work(n):
        for k in range(n):
            segmenter.segment(images[k % 10])
        gc.collect()

    work(100)  # what libraries load and keep at first
    before = process.memory_info().rss
    work(1000)
    assert process.memory_info().rss - before < MOST_GROWTH


def test_a_thousand_images_one_after_another_leave_no_memory_behind(tiny_model):
    segmenter = attractor.load(tiny_model, device="cpu")
    process = psutil.Process()

    def work(n):
        for _ in segmenter.segment_many(RANDOM.integers(0, 255, (32, 40), np.uint8) for _ in range(n)):
            pass
        gc.collect()

    work(100)
    before = process.memory_info().rss
    work(1000)
    assert process.memory_info().rss - before < MOST_GROWTH
