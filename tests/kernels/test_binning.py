"""Every point is in one bin, and a search by bins misses nothing."""

import numpy as np
import pytest

from attractor.kernels.binning import bin_points, bin_range

random = np.random.default_rng(0)
LINE = random.uniform(-1, 1, 500)
POINTS = {
    "none": np.zeros((2, 0)),
    "one": np.array([[0.3], [0.7]]),
    "random": random.uniform(0, 1, (2, 2000)),
    "clustered": random.normal(0, 0.002, (2, 2000)) + random.uniform(0, 1, (2, 10)).repeat(200, 1),
    "collinear": np.stack([LINE, 2 * LINE + 1]),
    "on a row": np.stack([LINE, np.full(500, 0.25)]),
    "identical": np.full((2, 300), 1 / 3),
    "far outliers": np.concatenate([random.uniform(0, 1, (2, 500)), random.normal(0, 1e6, (2, 3))], 1),
    "huge": random.normal(0, 1e30, (2, 300)),
    "tiny": random.normal(0, 1e-30, (2, 300)),
    "far away": 1e5 + random.uniform(0, 1, (2, 500)),
    "not finite": np.where(
        random.random((2, 300)) < 0.1, random.choice([np.inf, -np.inf, np.nan], (2, 300)), LINE[:300]
    ),
    "nothing finite": np.full((2, 30), np.nan),
    "more than the sample": random.uniform(0, 1, (2, 25_000)),
}

every_set = pytest.mark.parametrize("points", POINTS.values(), ids=POINTS.keys())
both_precisions = pytest.mark.parametrize("dtype", [np.float32, np.float64])


@both_precisions
@every_set
def test_every_finite_point_is_in_one_bin(points, dtype):
    points = points.astype(dtype)
    starts, order, _, shape = bin_points(*points)
    assert len(starts) == shape[0] * shape[1] + 1
    assert starts[0] == 0
    assert (np.diff(starts) >= 0).all()
    finite = np.flatnonzero(np.isfinite(points).all(0))
    np.testing.assert_array_equal(np.sort(order[: starts[-1]]), finite)
    assert all((np.diff(points_of_bin) > 0).all() for points_of_bin in np.split(order, starts[1:]))


@both_precisions
@every_set
def test_the_number_of_bins_grows_with_points_only(points, dtype):
    starts, *_ = bin_points(*points.astype(dtype))
    n = points.shape[1]
    assert len(starts) <= 10 + n + 20 * n**0.5


@both_precisions
@every_set
def test_a_search_misses_nothing(points, dtype):
    points = points.astype(dtype)
    x, y = points
    starts, order, grid, shape = bin_points(x, y)
    spread = points[np.isfinite(points)].astype(np.float64).std() if np.isfinite(points).any() else 1
    for reach in (0, 1e-3 * spread, 0.1 * spread, 3 * spread, np.inf):
        for i in random.choice(len(x), min(len(x), 20), replace=False):
            if not np.isfinite(points[:, i]).all():
                continue
            reach_x, reach_y = dtype(reach), dtype(reach * random.uniform(0.1, 1) if reach < np.inf else reach)
            columns = bin_range(x[i], reach_x, grid[0], grid[2], shape[1])
            rows = bin_range(y[i], reach_y, grid[1], grid[2], shape[0])
            found = [
                order[starts[row * shape[1] + columns[0]] : starts[row * shape[1] + columns[1] + 1]]
                for row in range(rows[0], rows[1] + 1)
            ]
            with np.errstate(invalid="ignore"):
                near = (abs(x - x[i]) <= reach_x) & (abs(y - y[i]) <= reach_y) & np.isfinite(points).all(0)
            assert np.isin(np.flatnonzero(near), np.concatenate(found)).all()


def test_a_search_is_narrow_where_points_are_even():
    x, y = random.uniform(0, 1, (2, 10_000))
    _, _, grid, shape = bin_points(x, y)
    first, last = bin_range(0.5, 0.01, grid[0], grid[2], shape[1])
    assert shape[1] > 10
    assert last - first <= 2


def test_a_few_stray_points_do_not_make_all_bins_coarse():
    x, y = random.uniform(0, 1, (2, 10_000))
    x[:5] = 10
    starts, *_ = bin_points(x, y)
    assert np.diff(starts).max() < 300
