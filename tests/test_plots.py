"""Figures are drawn and say what they show; embeddings far apart get colours far apart."""

import sys
from pathlib import Path

import numpy as np
import pytest

from attractor.errors import InputError
from attractor.plots import DARKEST, embedding_picture, rank_correlation, sigma_against_size

SIZES = np.array([4.0, 9.0, 16.0, 25.0])


def two_clusters(dimensions: int) -> tuple[np.ndarray, np.ndarray]:
    """An embedding of 6 x 8 pixels, the left half around one point and the right half around another; no background."""
    random = np.random.default_rng(0)
    embedding = random.normal(0, 0.01, (dimensions, 6, 8))
    embedding[:, :, 4:] += random.normal(0, 1, (dimensions, 1, 1))
    return embedding, np.ones((6, 8), bool)


def test_a_figure_is_drawn(tmp_path: Path):
    pytest.importorskip("matplotlib")
    figure = sigma_against_size(SIZES, SIZES / 3, interval=(0.5, 1.0), title="four test images")
    figure.savefig(tmp_path / "sigma.png")
    assert (tmp_path / "sigma.png").stat().st_size > 1000
    (axes,) = figure.axes
    assert "pixels" in axes.get_xlabel()
    assert "pixels" in axes.get_ylabel()
    words = axes.get_title(loc="left")
    assert words == "four test images\n4 objects, Spearman's rank correlation 1.00 (0.50 to 1.00)"


@pytest.mark.parametrize("n", [0, 1, 4])
def test_a_figure_of_hardly_any_objects_is_drawn(n: int, tmp_path: Path):
    pytest.importorskip("matplotlib")
    figure = sigma_against_size(SIZES[:n], np.full(n, 5.0), interval=(float("nan"), float("nan")))
    figure.savefig(tmp_path / "sigma.png")
    assert figure.axes[0].get_title(loc="left").endswith("objects, Spearman's rank correlation not defined")


def test_without_matplotlib_the_cure_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(InputError, match=r'pip install "\.\[report\]"'):
        sigma_against_size(SIZES, SIZES)


def test_the_rank_correlation_is_that_of_the_order():
    assert rank_correlation(SIZES, np.exp(SIZES)) == pytest.approx(1)
    assert rank_correlation(SIZES, -SIZES) == pytest.approx(-1)
    assert rank_correlation(SIZES, SIZES[[1, 0, 2, 3]]) == pytest.approx(0.8)  # 1 - 6 * (1 + 1) / (4 * 15)


def test_what_does_not_vary_has_no_rank_correlation():
    assert np.isnan(rank_correlation(SIZES, np.ones(4)))
    assert np.isnan(rank_correlation(SIZES[:1], SIZES[:1]))


@pytest.mark.parametrize("dimensions", [1, 2, 3, 8])
def test_two_clusters_have_two_colours(dimensions: int):
    picture = embedding_picture(*two_clusters(dimensions)).astype(int)
    left, right = picture[:, :4].reshape(-1, 3), picture[:, 4:].reshape(-1, 3)
    assert np.ptp(left, axis=0).max() < 40
    assert np.ptp(right, axis=0).max() < 40
    assert abs(left.mean(0) - right.mean(0)).max() > 120


def test_background_is_black_and_takes_no_part():
    embedding, mask = two_clusters(3)
    mask[0] = False
    picture = embedding_picture(embedding, mask)
    assert not picture[0].any()
    assert picture[1:].min() >= DARKEST
    embedding[:, 0] = 1e9
    np.testing.assert_array_equal(embedding_picture(embedding, mask), picture)


def test_the_same_embedding_turned_to_its_negative_swaps_the_ends():
    embedding, mask = two_clusters(1)
    ends = embedding_picture(embedding, mask)[..., 0].astype(int)
    mirrored = embedding_picture(-embedding, mask)[..., 0].astype(int)
    assert abs(ends + mirrored - DARKEST - 255).max() <= 1


def test_pixels_of_one_embedding_have_one_colour():
    picture = embedding_picture(np.full((4, 3, 3), 2.0), np.ones((3, 3), bool))
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) == 1


def test_no_pixel_to_show_is_a_black_picture():
    assert not embedding_picture(np.ones((4, 3, 5)), np.zeros((3, 5), bool)).any()
