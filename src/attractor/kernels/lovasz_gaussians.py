"""The Lovász hinge of many Gaussian objects at once, value and gradients in one pass.

The plain form sorts every pixel of the image once for each object. Here each object sees only its own pixels
and those other pixels whose Gaussian is above 2^-26: below that the margin of error, 1 + (2 phi - 1), is 0 in single
precision. Value and gradients therefore equal the plain form's up to the order of sums. Objects are taken one
after another (or in blocks of bounded size), and gradients are added up on the way, so that memory grows with
pixels and not with pixels times objects.

Shapes: `b` images, `a` axes, `n` pixels of an image, `k` objects of the whole batch, sorted by image. Axes come in the
order (plane, row, column); images have the last two.
Source: Neven et al. 2019, section 3.2; Berman et al. 2018 for the hinge.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from numba import njit
from torch import Tensor

from attractor.kernels.binning import bin_points, bin_range
from attractor.kernels.places import (
    add,
    difference,
    nothing,
    plus,
    put,
    row,
    slopes,
    squared,
    squares,
    weighted,
)

REACH = 26 * math.log(2)  # a Gaussian further out is below 2^-26
BLOCK = 1 << 22  # pixel-object pairs looked at together without numba


def lovasz_gaussians(
    embedding: Tensor, owner: Tensor, centre: Tensor, concentration: Tensor, image: Tensor, weight: Tensor
) -> Tensor:
    """Weighted sum over objects of the Lovász hinge of 2 phi - 1, against the pixels that are their own.

    Args:
        embedding: (b, a, n) float, where each pixel points.
        owner: (b, n) int, 1 + object that owns the pixel, 0 for background, -1 for a pixel to leave out.
        centre: (k, a) of each object.
        concentration: (k, a), 1 / (2 sigma^2) along each axis.
        image: (k,) int, in which image of the batch each object lies.
        weight: (k,) factor of each object in the sum; no gradient flows to it.

    Returns:
        A scalar, differentiable once in embedding, centre and concentration.
    """
    return _LovaszGaussians.apply(embedding, owner, centre, concentration, image, weight)


class _LovaszGaussians(torch.autograd.Function):
    """The growth of 1 - IoU is a constant for the gradient, so the gradient is known when the value is."""

    @staticmethod
    def forward(ctx, embedding, owner, centre, concentration, image, weight):
        fast = embedding.device.type == "cpu" and embedding.dtype == torch.float32
        arrays = [x.detach().contiguous() for x in (embedding, owner, centre, concentration, image, weight)]
        value, *gradients = (_by_numba if fast else _by_torch)(*arrays)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx, grad):
        embedding, centre, concentration = (grad * gradient for gradient in ctx.saved_tensors)
        return embedding, None, centre, concentration, None, None


def _by_torch(embedding, owner, centre, concentration, image, weight):
    """Any device and precision: blocks of objects against all pixels of their image, far pairs dropped."""
    n = embedding.shape[-1]
    value = embedding.new_zeros(())
    gradients = [torch.zeros_like(x) for x in (embedding, centre, concentration)]
    exact = torch.float32 if embedding.device.type == "mps" else torch.float64  # sums over large objects cancel
    for b in range(len(embedding)):
        objects = torch.nonzero(image == b)[:, 0]
        for block in objects.split(max(1, BLOCK // max(n, 1))):
            difference = embedding[b] - centre[block, :, None]  # (k, a, n)
            distance = (difference.square() * concentration[block, :, None]).sum(1)  # (k, n)
            own = owner[b] == block[:, None] + 1
            k, i = torch.nonzero((own | (distance < REACH)) & (owner[b] >= 0), as_tuple=True)
            phi, inside = torch.exp(-distance[k, i]), own[k, i]
            score = 2 * phi - 1
            margin = torch.where(inside, 1 - score, 1 + score)
            growth = _growth(k, margin, inside, len(block))
            share = weight[block][k] * growth
            value += (share * margin).sum()
            slope = torch.where(margin > 0, share, 0) * torch.where(inside, 2, -2) * phi  # d value / d distance
            difference, scale = difference[k, :, i], concentration[block][k]  # (pairs, a)
            by_pixel = 2 * slope[:, None] * scale * difference
            gradients[0][b].index_add_(1, i, by_pixel.T)
            for gradient, by_pair in ((gradients[1], -by_pixel), (gradients[2], slope[:, None] * difference.square())):
                total = torch.zeros(len(block), by_pair.shape[1], dtype=exact, device=k.device).index_add_(
                    0, k, by_pair.to(exact)
                )
                gradient[block] += total.to(gradient.dtype)
    return value, *gradients


def _growth(k, margin, inside, n_objects):
    """Growth of 1 - IoU with each pair, within its object by falling margin."""
    order = torch.argsort(margin, descending=True, stable=True)
    order = order[torch.argsort(k[order], stable=True)]
    exact = torch.float32 if margin.device.type == "mps" else torch.float64
    k, positive = k[order], inside[order].to(exact)
    total = torch.zeros(n_objects, dtype=exact, device=k.device).index_add_(0, k, positive)
    first = torch.searchsorted(k, torch.arange(n_objects, device=k.device))  # where each object's pairs begin
    missed = _running_sum(positive, first, k)
    jaccard = 1 - (total[k] - missed) / (total[k] + _running_sum(1 - positive, first, k))
    before = torch.cat([jaccard.new_zeros(1), jaccard[:-1]])[: len(jaccard)]
    before[first[first < len(k)]] = 0
    growth = torch.empty_like(margin)
    growth[order] = (jaccard - before).to(margin.dtype)
    return growth


def _running_sum(values, first, k):
    """Cumulative sum that starts anew with each object."""
    total = torch.cat([values.new_zeros(1), values.cumsum(0)])
    return total[1:] - total[first][k]


def _by_numba(embedding, owner, centre, concentration, image, weight):
    """Single precision on a CPU: near pixels from bins, one radix sort for each object, images side by side."""
    gradients = [torch.zeros_like(x) for x in (embedding, centre, concentration)]
    bounds = np.searchsorted(image.numpy(), np.arange(len(embedding) + 1))
    owner = owner.to(torch.int32).numpy()
    embedding, centre, concentration, weight = (x.numpy() for x in (embedding, centre, concentration, weight))
    by_pixel, by_centre, by_concentration = (x.numpy() for x in gradients)

    def one_image(b):
        objects = slice(bounds[b], bounds[b + 1])
        own = np.where(owner[b] > 0, owner[b] - np.int32(bounds[b]), owner[b])  # 1 to k in this image
        return _one_image(
            embedding[b],
            own,
            centre[objects],
            concentration[objects],
            weight[objects],
            by_pixel[b],
            by_centre[objects],
            by_concentration[objects],
        )

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        value = sum(pool.map(one_image, range(len(embedding))))
    return gradients[0].new_tensor(value), *gradients


def _one_image(embedding, owner, centre, concentration, weight, by_pixel, by_centre, by_concentration):
    """Add one image's gradients to the last three arrays, and return its weighted sum of losses.

    The pairs of a few objects are gathered, and their exponential is torch's, as in the plain form: a
    different last bit would order near ties differently, and so change the gradient.
    """
    n, n_objects = owner.size, len(centre)
    if not n_objects:
        return 0.0
    bins = bin_points(embedding[-1], embedding[-2])
    at, by_pixel = tuple(embedding), tuple(by_pixel)
    own_pixels, own_starts = _pixels_by_owner(owner, n_objects)
    pixel, distance = np.empty(2 * max(n, BLOCK // 8), np.int32), np.empty(2 * max(n, BLOCK // 8), np.float32)
    value, first = 0.0, 0
    while first < n_objects:
        starts = _gather(
            at,
            owner,
            centre,
            concentration,
            first,
            own_pixels,
            own_starts,
            *bins,
            np.float32(REACH),
            pixel,
            distance,
        )
        phi = torch.exp(-torch.from_numpy(distance[: starts[-1]])).numpy()
        value += _accumulate(
            at,
            centre,
            concentration,
            weight,
            first,
            own_starts,
            starts,
            pixel,
            phi,
            by_pixel,
            by_centre,
            by_concentration,
        )
        first += len(starts) - 1
    return value


@njit(cache=True, nogil=True)
def _pixels_by_owner(owner, n_objects):
    """Pixels of objects 1 to k, object after object, and where each begins."""
    starts = np.zeros(n_objects + 1, np.int64)
    for k in owner:
        if k > 0:
            starts[k] += 1
    for k in range(n_objects):
        starts[k + 1] += starts[k]
    pixels = np.empty(starts[-1], np.int32)
    fill = starts[:-1].copy()
    for i in range(owner.size):
        if owner[i] > 0:
            pixels[fill[owner[i] - 1]] = i
            fill[owner[i] - 1] += 1
    return pixels, starts


@njit(cache=True, nogil=True)
def _gather(
    at,
    owner,
    centre,
    concentration,
    first,
    own_pixels,
    own_starts,
    starts,
    order,
    grid,
    shape,
    reach,
    pixel,
    distance,
):
    """Write pixel and distance of the pairs of as many objects as fit, each's own pixels before the others.

    Returns where each object's pairs begin; one object always fits.
    """
    pair_starts = [np.int64(0)]
    count = 0
    for k in range(first, len(centre)):
        own_centre, tau = row(centre, k, at), row(concentration, k, at)
        reach_x = math.sqrt(reach / tau[-1]) if tau[-1] > 0 else math.inf
        reach_y = math.sqrt(reach / tau[-2]) if tau[-2] > 0 else math.inf
        left, right = bin_range(own_centre[-1], reach_x, grid[0], grid[2], shape[1])
        top, bottom = bin_range(own_centre[-2], reach_y, grid[1], grid[2], shape[0])
        most = own_starts[k + 1] - own_starts[k]
        for r in range(top, bottom + 1):
            most += starts[r * shape[1] + right + 1] - starts[r * shape[1] + left]
        if count + most > pixel.size:
            break
        for p in range(own_starts[k], own_starts[k + 1]):
            i = own_pixels[p]
            pixel[count] = i
            distance[count] = squared(difference(at, i, own_centre), tau)
            count += 1
        for r in range(top, bottom + 1):
            for p in range(starts[r * shape[1] + left], starts[r * shape[1] + right + 1]):
                i = order[p]
                d = squared(difference(at, i, own_centre), tau)
                if d < reach and owner[i] >= 0 and owner[i] != k + 1:
                    pixel[count] = i
                    distance[count] = d
                    count += 1
        pair_starts.append(np.int64(count))
    return np.array(pair_starts)


@njit(cache=True, nogil=True)
def _accumulate(
    at,
    centre,
    concentration,
    weight,
    first,
    own_starts,
    starts,
    pixel,
    phi,
    by_pixel,
    by_centre,
    by_concentration,
):
    """Add the gradients of the gathered objects, and return their weighted sum of losses."""
    one, two = np.float32(1), np.float32(2)
    value = 0.0
    for block in range(starts.size - 1):
        k = first + block
        own, pixels = phi[starts[block] : starts[block + 1]], pixel[starts[block] : starts[block + 1]]
        n_own = own_starts[k + 1] - own_starts[k]
        margin = np.empty(own.size, np.float32)
        wanted = np.empty(own.size, np.int32)  # pairs with an error; the others come last and add nothing
        count = 0
        for j in range(own.size):
            score = two * own[j] - one
            margin[j] = one - score if j < n_own else one + score
            wanted[count] = j
            count += margin[j] > 0
        wanted = wanted[:count]
        own_centre, tau = row(centre, k, at), row(concentration, k, at)
        of_centre, of_tau = nothing(at), nothing(at)
        missed = wrong = 0
        before = 0.0
        for j in wanted[_descending(margin[wanted], pixels[wanted])]:
            if j < n_own:
                missed += 1
            else:
                wrong += 1
            jaccard = 1.0 - (n_own - missed) / (n_own + wrong)
            share = weight[k] * np.float32(jaccard - before)
            before = jaccard
            i = pixels[j]
            value += share * margin[j]
            slope = share * own[j] * (two if j < n_own else -two)
            away = difference(at, i, own_centre)
            step = slopes(away, tau, two * slope)
            add(by_pixel, i, step)
            of_centre = plus(of_centre, step)
            of_tau = plus(of_tau, squares(away, slope))
        put(by_centre, k, weighted(of_centre, -1.0))
        put(by_concentration, k, of_tau)
    return value


@njit(cache=True, nogil=True)
def _descending(margin, pixel):
    """Indices that sort margins between 0 and 2 from large to small; of equals the lower pixel comes first."""
    n = margin.size
    # The bits of non-negative floats are ordered as the floats are: three passes of eleven bits.
    keys = np.uint32(0x40000000) - margin.view(np.uint32)
    index = np.arange(n).astype(np.int32)
    if n < 512:
        index = np.argsort(keys, kind="mergesort").astype(np.int32)
        keys = keys[index]
    else:
        keys_out, index_out = np.empty_like(keys), np.empty_like(index)
        for shift in (0, 11, 22):
            place = np.zeros(2049, np.int64)
            for key in keys:
                place[((key >> shift) & 2047) + 1] += 1
            for bucket in range(2048):
                place[bucket + 1] += place[bucket]
            for j in range(n):
                bucket = (keys[j] >> shift) & 2047
                keys_out[place[bucket]] = keys[j]
                index_out[place[bucket]] = index[j]
                place[bucket] += 1
            keys, keys_out = keys_out, keys
            index, index_out = index_out, index
    start = 0
    for j in range(1, n + 1):
        if j == n or keys[j] != keys[start]:
            if j - start > 32:
                run = index[start:j].copy()
                index[start:j] = run[np.argsort(pixel[run])]
            else:
                _sort_few(index[start:j], pixel)
            start = j
    return index


@njit(cache=True, nogil=True)
def _sort_few(index, pixel):
    """Sort a few indices by their pixel, in place."""
    for j in range(1, index.size):
        moved = index[j]
        while j > 0 and pixel[index[j - 1]] > pixel[moved]:
            index[j] = index[j - 1]
            j -= 1
        index[j] = moved
