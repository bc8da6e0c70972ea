"""Figures of what a method has learned: bandwidths against sizes, and embeddings as colours.

matplotlib is imported when a figure is asked for; the picture of an embedding does without.

Shapes: `k` objects, `d` dimensions of the embedding, `h` rows, `w` columns, `n` pixels.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool, Float, UInt8
from scipy.stats import spearmanr

from attractor.errors import InputError
from attractor.wording import install

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DOTS = "#1f5fa8"  # a blue that stands out from white in print, too
DARKEST = 45  # value of an object's pixels, so that none is taken for background


def sigma_against_size(
    sizes: Float[np.ndarray, " k"],
    margins: Float[np.ndarray, " k"],
    *,
    interval: tuple[float, float] | None = None,
    title: str = "",
) -> Figure:
    """A matplotlib figure of each object's margin against its size, with their rank correlation written in it.

    Args:
        sizes: square root of each object's area, in pixels.
        margins: distance from the centre at which membership falls to one half, in pixels.
        interval: of the rank correlation, if known; it is written beside it.
        title: what is shown, written on top.

    Raises:
        InputError: if matplotlib is not installed.

    Source: Neven et al. 2019, figure 4.
    """
    figure = _figure()
    axes = figure.subplots()
    opacity = float(np.clip(6 / np.sqrt(max(len(sizes), 1)), 0.12, 0.8))  # many dots must show how densely they lie
    axes.scatter(sizes, margins, s=14, color=DOTS, alpha=opacity, linewidths=0)
    axes.set_xlabel("object size: square root of its area (pixels)")
    axes.set_ylabel("learned margin (pixels)")
    words = _in_words(sizes, margins, interval)  # above, where no dot can lie under it
    axes.set_title(f"{title}\n{words}" if title else words, loc="left", fontsize="medium")
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def rank_correlation(sizes: Float[np.ndarray, " k"], margins: Float[np.ndarray, " k"]) -> float:
    """Spearman's rank correlation; NaN where there are fewer than two objects, or one of the two does not vary."""
    if len(sizes) < 2 or np.ptp(sizes) == 0 or np.ptp(margins) == 0:
        return float("nan")
    return float(spearmanr(sizes, margins).statistic)


def embedding_picture(
    embedding: Float[np.ndarray, "d h w"], mask: Bool[np.ndarray, "h w"]
) -> UInt8[np.ndarray, "h w 3"]:
    """Embeddings as colours: their first three principal components as red, green and blue.

    All three share one scale, so that pixels far apart in embedding space differ much in colour, and those that differ
    only by the noise within an object do not. A direction's sign is chosen so that its largest entry is positive: the
    same embedding gives the same picture.

    Args:
        embedding: of each pixel, of any number of dimensions.
        mask: the pixels to show; the others are black and do not count.
    """
    picture = np.zeros((*mask.shape, 3), np.uint8)
    points = embedding[:, mask].T.astype(float)  # (n, d)
    if not len(points):
        return picture
    points = points - points.mean(0)
    components = _principal(points, 3)
    middle = (components.max(0) + components.min(0)) / 2
    reach = max(np.ptp(components, axis=0).max() / 2, np.finfo(float).tiny)
    light = (components - middle) / reach / 2 + 0.5  # 0 to 1; one half where nothing varies
    picture[mask] = np.rint(DARKEST + (255 - DARKEST) * light)
    return picture


def _principal(points: Float[np.ndarray, "n d"], count: int) -> Float[np.ndarray, "n c"]:
    """Centred points along the directions in which they vary most; 0 where there are fewer directions."""
    _, directions = np.linalg.eigh(points.T @ points)
    directions = directions[:, ::-1][:, :count]  # (d, count or fewer), the widest first
    largest = np.abs(directions).argmax(0)
    directions = directions * np.sign(directions[largest, np.arange(directions.shape[1])])
    missing = np.zeros((len(points), count - directions.shape[1]))
    return np.concatenate([points @ directions, missing], 1)


def _in_words(
    sizes: Float[np.ndarray, " k"], margins: Float[np.ndarray, " k"], interval: tuple[float, float] | None
) -> str:
    """The rank correlation and the number of objects."""
    value = rank_correlation(sizes, margins)
    words = "not defined" if np.isnan(value) else f"{value:.2f}"
    if interval is not None and np.isfinite(interval).all():
        words += f" ({interval[0]:.2f} to {interval[1]:.2f})"
    return f"{len(sizes):,} objects, Spearman's rank correlation {words}"


def _figure() -> Figure:
    """An empty figure that belongs to no window."""
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise InputError(f"Drawing figures needs matplotlib, which is not installed. {install('report')}") from error
    return Figure(figsize=(5.2, 4.0), dpi=150, layout="constrained")
