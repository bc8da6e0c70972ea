"""Grouping of spatial embeddings on a GPU: the sequential seeded clustering, many seeds at a time.

The plain form takes one seed after another, because what a seed finds free depends on the seeds before it: but only on
those whose claims can meet its own, and most are far away. So foreground pixels are sorted into cells of the plane by
where they point, and a round takes the best free seed of every cell at once, if no better seed of another cell may
claim anything near it. The best of all is always among them, so the rounds end; where objects lie apart a few are
enough. The seeds that were taken, by falling score, are then the sequence of the plain loop, with the same claims.

Labels equal the plain form's pixel for pixel, because membership is decided by the same operations in the same order
and precision. Compilers for GPUs like to multiply and add in one step, which rounds once where two steps round twice,
and moves pixels over the edge of a margin. Every launch therefore says `enable_fp_fusion=False`.

No transfer and no waiting happens for single objects. The CPU learns how many foreground pixels there are, after every
few rounds whether seeds are left, and in the end how many objects there are.

This module imports Triton, which compiles each kernel at its first call, in about a second, and keeps it on disk.

Shapes: `h` rows, `w` columns, `n` foreground pixels, `k` objects; 2 is (row, column). A pixel's rank is where it
stands by falling score, the first pixel first among equals; its place is where it stands by cell, and by rank in the
cell.
Source: Neven et al. 2019, section 3.4.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

MOST_CELLS = 4096  # every cell is compared with every other
PIXELS_PER_CELL = 32  # fewer pixels than this do not get a cell of their own
SAMPLE = 4096  # pixels that say where the cells go
TAIL = 50  # one in this many of the sample may point further out, on each side, than the cells reach
BLOCK = 1024  # pixels looked at together
CELLS = 1024  # cells looked at together
PARTS = 8  # programs that share the claim of one seed, if there are that many blocks
ROUNDS = 4  # rounds between two looks at whether seeds are left
NONE = tl.constexpr(2**31 - 1)  # rank of a cell without a free seed; owner of a pixel without an object
ENDLESS = tl.constexpr(1e-30)  # at this concentration or below, a margin is taken to have no end


class Pixels(NamedTuple):
    """Foreground pixels, cell by cell, in each cell by rank."""

    features: Tensor  # (4, n) float, embedding and concentration
    bounds: Tensor  # (2 cells + 1) int32, places where the seeds of each cell begin, and where its other pixels do
    grid: Tensor  # (5) float, origin of the cells along y and x, cells per unit along y and x, and the limit
    shape: tuple[int, int]  # rows and columns of cells
    rank: Tensor  # (n) int32


class Progress(NamedTuple):
    """What the rounds change."""

    free: Tensor  # (n) bool, by place
    best: Tensor  # (2, cells) int32, place and rank of each cell's best free seed
    box: Tensor  # (4, cells) float, low x, high x, low y, high y of all that its free seeds may claim
    outcome: Tensor  # (3, n) int32, by rank: pixels claimed, of these free and not the seed, and whether it was taken


def seeded_gaussians_cuda(
    embedding: Tensor,
    concentration: Tensor,
    seed: Tensor,
    *,
    foreground_threshold: float,
    seed_threshold: float,
    min_size: float,
    min_foreground: int,
    min_free: int,
    count_seed: bool,
    overwrite: bool,
) -> tuple[Tensor, Tensor]:
    """Group the pixels of one image and class.

    `embedding` (2, h, w) is where each pixel points, `concentration` (2, h, w) is 1 / (2 sigma^2) along rows and
    columns, `seed` (h, w) is 0 to 1; options are as `attractor.methods.spatial_embeddings.group_plain` has them.

    Returns:
        labels: (h, w) int32, on the device of the maps. A label has no pixel where later objects took them all.
        scores: (k,) float, on that device, the seed value each object grew from.
    """
    labels = torch.zeros(seed.shape, dtype=torch.int32, device=seed.device)
    pixel = torch.nonzero(seed.flatten() > foreground_threshold)[:, 0]
    score, by_rank = torch.sort(seed.flatten()[pixel], descending=True, stable=True)
    if len(pixel) <= max(min_foreground, 0):
        return labels, score[:0]
    pixel = pixel[by_rank]
    features = torch.cat([x.flatten(1)[:, pixel] for x in (embedding, concentration)])
    with torch.cuda.device_of(seed):
        pixels, progress = _prepared(features, score >= seed_threshold, *seed.shape)
        _take_all(pixels, progress)
        emitted = _emitted(progress.outcome, min_size=min_size, min_free=min_free, count_seed=count_seed)
        owner = _owner(pixels, features[:, emitted], overwrite=overwrite)
    labels.view(-1)[pixel[pixels.rank]] = owner
    return labels, score[emitted]


def _prepared(features: Tensor, is_seed: Tensor, h: int, w: int) -> tuple[Pixels, Progress]:
    """Pixels sorted into cells, and the progress before the first round; `features` and `is_seed` (n) are by rank."""
    n, device = len(is_seed), features.device
    rows, columns = _grid_shape(n, h, w)
    n_cells = rows * columns
    grid = _grid(features[:2], rows, columns)
    key = torch.empty(n, dtype=torch.int16, device=device)
    _sort_key[triton.cdiv(n, BLOCK),](features, is_seed, grid, key, n, rows, columns, BLOCK, enable_fp_fusion=False)
    key, rank = torch.sort(key, stable=True)
    cells = torch.arange(2 * n_cells + 1, dtype=torch.int16, device=device)
    bounds = torch.searchsorted(key, cells, out_int32=True)
    pixels = Pixels(features[:, rank], bounds, grid, (rows, columns), rank.int())

    # No seed can claim a pixel that points nowhere, and it claims nothing: its turn is over before the rounds.
    points = features[:2].isfinite().all(0)
    outcome = torch.zeros(3, n, dtype=torch.int32, device=device)
    outcome[2] = is_seed & ~points
    best = torch.stack([bounds[:-1:2], torch.zeros_like(bounds[:-1:2])])
    return pixels, Progress(points[rank], best, features.new_empty(4, n_cells), outcome)


def _grid_shape(n: int, h: int, w: int) -> tuple[int, int]:
    """Rows and columns of cells, at most MOST_CELLS in all, that are about square in an image of this shape."""
    n_cells = min(max(n // PIXELS_PER_CELL, 1), MOST_CELLS)
    columns = min(max(round(math.sqrt(n_cells * w / h)), 1), n_cells)
    return n_cells // columns, columns


def _grid(embedding: Tensor, rows: int, columns: int) -> Tensor:
    """The numbers of `Pixels.grid`; cells cover what all but the outermost of a sample of the pixels point at."""
    sample = embedding[:, :: embedding.shape[1] // SAMPLE + 1].nan_to_num(0, 0, 0).sort(1).values
    tail = sample.shape[1] // TAIL
    low, high = sample[:, tail], sample[:, -1 - tail]
    count = torch.stack([torch.full_like(low[0], rows), torch.full_like(low[0], columns)])
    return torch.cat([low, count / (high - low), torch.full_like(low[:1], math.log(2))])


def _take_all(pixels: Pixels, progress: Progress) -> None:
    """Rounds until no seed is left."""
    _find_best(pixels, progress)
    while True:
        for _ in range(ROUNDS):
            _take_some(pixels, progress)
            _find_best(pixels, progress)
        if progress.best[1].min() == NONE.value:
            return


def _find_best(pixels: Pixels, progress: Progress) -> None:
    """Look up the best free seed of every cell, and what the free seeds of the cell may claim."""
    n, n_cells = len(pixels.rank), progress.best.shape[1]
    _best[n_cells,](*pixels[:3], pixels.rank, *progress[:3], n, n_cells, BLOCK, enable_fp_fusion=False)


def _take_some(pixels: Pixels, progress: Progress) -> None:
    """Take the best free seed of every cell where that is safe."""
    n, n_cells = len(pixels.rank), progress.best.shape[1]
    _claim[n_cells, _parts(n)](*pixels[:3], *progress, n, n_cells, *pixels.shape, BLOCK, CELLS, enable_fp_fusion=False)


def _parts(n: int) -> int:
    return min(triton.cdiv(n, BLOCK), PARTS)


def _emitted(outcome: Tensor, *, min_size: float, min_free: int, count_seed: bool) -> Tensor:
    """Ranks (k,) of the seeds that make an object."""
    size, new, is_taken = outcome
    removed = is_taken * (new + 1)  # in any case the seed stops being free
    free_before = len(size) - (removed.cumsum(0) - removed)
    is_new = 2 * (new + count_seed) > size
    return torch.nonzero((is_taken > 0) & (free_before > min_free) & (size >= max(min_size, 1)) & is_new)[:, 0]


def _owner(pixels: Pixels, gaussians: Tensor, *, overwrite: bool) -> Tensor:
    """The object that each pixel belongs to, (n) int32 by place, 0 for none; `gaussians` (4, k) are the objects."""
    n, k = len(pixels.rank), gaussians.shape[1]
    owner = torch.full_like(pixels.rank, 0 if overwrite else NONE.value)
    if k > 0:
        _paint[k, _parts(n)](
            *pixels[:3], gaussians, owner, n, k, *pixels.shape, overwrite, BLOCK, enable_fp_fusion=False
        )
    return owner.where(owner < NONE.value, 0)


# -------------------------------------------------------------------- on the device
# n becomes int64 because features has 4 n numbers.


@triton.jit(do_not_specialize=["n", "rows", "columns"])
def _sort_key(features, is_seed, grid, key, n, rows, columns, block: tl.constexpr):
    """Twice the number of each pixel's cell, and one more for a pixel that is no seed."""
    n = n.to(tl.int64)
    i = tl.program_id(0).to(tl.int64) * block + tl.arange(0, block)
    mask = i < n
    y, x = tl.load(features + i, mask), tl.load(features + n + i, mask)
    column, _ = _cells_along(x, x, grid + 1, columns)
    row, _ = _cells_along(y, y, grid, rows)
    is_no_seed = tl.where(tl.load(is_seed + i, mask), 0, 1)
    tl.store(key + i, (2 * (row * columns + column) + is_no_seed).to(tl.int16), mask)


@triton.jit(do_not_specialize=["n", "n_cells"])
def _best(features, bounds, grid, rank, free, best, box, n, n_cells, block: tl.constexpr):
    """One program for each cell; it begins at the last best seed, as those before it are not free."""
    n = n.to(tl.int64)
    cell = tl.program_id(0)
    if tl.load(best + n_cells + cell) != NONE:
        limit = tl.load(grid + 4)
        first, end = tl.load(best + cell), tl.load(bounds + 2 * cell + 1)
        place = tl.full([block], NONE, tl.int32)
        high_x = tl.full([block], -float("inf"), features.dtype.element_ty)
        low_x, high_y, low_y = -high_x, high_x, -high_x
        for start in range(first, end, block):
            i = start + tl.arange(0, block)
            mask = tl.load(free + i, i < end, 0)
            own_low_y, own_high_y = _reached(tl.load(features + i, mask), tl.load(features + 2 * n + i, mask), limit)
            own_low_x, own_high_x = _reached(
                tl.load(features + n + i, mask), tl.load(features + 3 * n + i, mask), limit
            )
            place = tl.where(mask, tl.minimum(place, i), place)
            low_x = tl.where(mask, tl.minimum(low_x, own_low_x), low_x)
            high_x = tl.where(mask, tl.maximum(high_x, own_high_x), high_x)
            low_y = tl.where(mask, tl.minimum(low_y, own_low_y), low_y)
            high_y = tl.where(mask, tl.maximum(high_y, own_high_y), high_y)
        found = tl.min(place, 0)
        is_found = found != NONE
        tl.store(best + cell, found, is_found)
        tl.store(best + n_cells + cell, tl.load(rank + found, is_found, NONE))
        tl.store(box + cell, tl.min(low_x, 0))
        tl.store(box + n_cells + cell, tl.max(high_x, 0))
        tl.store(box + 2 * n_cells + cell, tl.min(low_y, 0))
        tl.store(box + 3 * n_cells + cell, tl.max(high_y, 0))


@triton.jit(do_not_specialize=["n", "n_cells", "rows", "columns"])
def _claim(
    features,
    bounds,
    grid,
    free,
    best,
    box,
    outcome,
    n,
    n_cells,
    rows,
    columns,
    block: tl.constexpr,
    cells: tl.constexpr,
):
    """Several programs for each cell, each for a part of the claim of the cell's best seed.

    Claims of one round do not meet: no program sees what another changes in `free`, but for the seed itself.
    """
    n = n.to(tl.int64)
    part, parts = tl.program_id(1), tl.num_programs(1)
    cell = tl.program_id(0)
    own_rank = tl.load(best + n_cells + cell)
    if own_rank != NONE:
        seed = tl.load(best + cell)
        limit = tl.load(grid + 4)
        cy, cx = tl.load(features + seed), tl.load(features + n + seed)
        ty, tx = tl.load(features + 2 * n + seed), tl.load(features + 3 * n + seed)
        low_x, high_x = _reached(cx, tx, limit)
        low_y, high_y = _reached(cy, ty, limit)
        if _is_apart(low_x, high_x, low_y, high_y, own_rank, best, box, n_cells, cells):
            size, new = tl.full([block], 0, tl.int32), tl.full([block], 0, tl.int32)
            first_column, last_column = _cells_along(low_x, high_x, grid + 1, columns)
            first_row, last_row = _cells_along(low_y, high_y, grid, rows)
            for row in range(first_row, last_row + 1):
                begin = tl.load(bounds + 2 * (row * columns + first_column))
                end = tl.load(bounds + 2 * (row * columns + last_column + 1))
                for start in range(begin + (part + row) % parts * block, end, parts * block):
                    i = start + tl.arange(0, block)
                    inside = _is_inside(features, n, i, i < end, cx, cy, tx, ty, limit)
                    is_new = tl.load(free + i, inside & (i != seed), 0)
                    size += inside.to(tl.int32)
                    new += is_new.to(tl.int32)
                    tl.store(free + i, 0, inside & is_new)
            tl.atomic_add(outcome + own_rank, tl.sum(size, 0))
            tl.atomic_add(outcome + n + own_rank, tl.sum(new, 0))
            tl.store(outcome + 2 * n + own_rank, 1)
            tl.store(free + seed, 0)


@triton.jit(do_not_specialize=["n", "k", "rows", "columns"])
def _paint(
    features,
    bounds,
    grid,
    gaussians,
    owner,
    n,
    k,
    rows,
    columns,
    overwrite: tl.constexpr,
    block: tl.constexpr,
):
    """Several programs for each object and its claim: the last object takes a pixel, or the first keeps it."""
    n = n.to(tl.int64)
    part, parts = tl.program_id(1), tl.num_programs(1)
    number = tl.program_id(0)
    limit = tl.load(grid + 4)
    cy, cx = tl.load(gaussians + number), tl.load(gaussians + k + number)
    ty, tx = tl.load(gaussians + 2 * k + number), tl.load(gaussians + 3 * k + number)
    low_x, high_x = _reached(cx, tx, limit)
    low_y, high_y = _reached(cy, ty, limit)
    first_column, last_column = _cells_along(low_x, high_x, grid + 1, columns)
    first_row, last_row = _cells_along(low_y, high_y, grid, rows)
    for row in range(first_row, last_row + 1):
        begin = tl.load(bounds + 2 * (row * columns + first_column))
        end = tl.load(bounds + 2 * (row * columns + last_column + 1))
        for start in range(begin + (part + row) % parts * block, end, parts * block):
            i = start + tl.arange(0, block)
            inside = _is_inside(features, n, i, i < end, cx, cy, tx, ty, limit)
            if overwrite:
                tl.atomic_max(owner + i, number + 1, inside)
            else:
                tl.atomic_min(owner + i, number + 1, inside)


@triton.jit
def _is_inside(features, n, i, mask, cx, cy, tx, ty, limit):
    """Whether pixels are inside a margin, by the operations of the plain form in their order."""
    dy = tl.load(features + i, mask, 0) - cy
    dx = tl.load(features + n + i, mask, 0) - cx
    return mask & (dy * dy * ty + dx * dx * tx < limit)


@triton.jit
def _reached(centre, concentration, limit):
    """Ends of what a claim may reach along an axis, with a little more so that rounding cannot lose a pixel."""
    reach = tl.where(concentration == concentration, tl.sqrt(limit / concentration) * 1.001 + 1e-12, 0)
    reach = tl.where(concentration <= ENDLESS, float("inf"), reach)
    return centre - reach, centre + reach


@triton.jit
def _is_apart(low_x, high_x, low_y, high_y, own_rank, best, box, n_cells, cells: tl.constexpr):
    """Whether no better seed of any cell may claim something in a box."""
    met = tl.full([cells], 0, tl.int32)
    for start in range(0, n_cells, cells):
        other = start + tl.arange(0, cells)
        mask = other < n_cells
        mask = mask & (tl.load(best + n_cells + other, mask, NONE) < own_rank)
        mask = mask & (tl.load(box + other, mask, 0) <= high_x)
        mask = mask & (tl.load(box + n_cells + other, mask, 0) >= low_x)
        mask = mask & (tl.load(box + 2 * n_cells + other, mask, 0) <= high_y)
        mask = mask & (tl.load(box + 3 * n_cells + other, mask, 0) >= low_y)
        met += mask.to(tl.int32)
    return tl.sum(met, 0) == 0


@triton.jit
def _cells_along(low, high, grid, count):
    """Rows or columns of cells that two values are in; what lies outside belongs to the outermost, NaN to the first.

    All that is between the values is in the cells between, as a greater value is never in an earlier cell.
    """
    origin, per_unit = tl.load(grid), tl.load(grid + 2)
    first = tl.minimum(tl.maximum((low - origin) * per_unit, 0), count - 1)
    last = tl.minimum(tl.maximum((high - origin) * per_unit, 0), count - 1)
    return first.to(tl.int32), last.to(tl.int32)
