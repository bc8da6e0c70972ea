"""The Lovász hinge of many Gaussian objects at once, value and gradients in one pass.

The plain form sorts every pixel of the image once for each object. Here each object sees only its own pixels
and those others whose Gaussian is above 2^-26: below it the margin of error, 1 + (2 phi - 1), is 0 in single
precision. Value and gradients therefore equal the plain form's up to the order of sums. Objects are taken one
after another (or in blocks of bounded size), and gradients are added up on the way, so that memory grows with
pixels and not with pixels times objects.

Shapes: `b` images, `n` pixels of an image, `k` objects of the whole batch, sorted by image; 2 is (x, y).
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

REACH = 26 * math.log(2)  # a Gaussian further out is below 2^-26
BLOCK = 1 << 22  # pixel-object pairs looked at together where there is no numba


def lovasz_gaussians(
    embedding: Tensor, owner: Tensor, centre: Tensor, precision: Tensor, image: Tensor, weight: Tensor
) -> Tensor:
    """Weighted sum over objects of the Lovász hinge of 2 phi - 1, against the pixels that are their own.

    Args:
        embedding: (b, 2, n) float, where each pixel points.
        owner: (b, n) int, 1 + object that owns the pixel, 0 for background, -1 for a pixel to leave out.
        centre: (k, 2) of each object.
        precision: (k, 2), 1 / (2 sigma^2) along x and y.
        image: (k,) int, in which image of the batch each object lies.
        weight: (k,) factor of each object in the sum; no gradient flows to it.
    Returns:
        A scalar, differentiable once in embedding, centre and precision.
    """
    return _LovaszGaussians.apply(embedding, owner, centre, precision, image, weight)


class _LovaszGaussians(torch.autograd.Function):
    """The growth of 1 - IoU is a constant for the gradient, so the gradient is known when the value is."""

    @staticmethod
    def forward(ctx, embedding, owner, centre, precision, image, weight):
        fast = embedding.device.type == "cpu" and embedding.dtype == torch.float32
        arrays = [x.detach().contiguous() for x in (embedding, owner, centre, precision, image, weight)]
        value, *gradients = (_by_numba if fast else _by_torch)(*arrays)
        ctx.save_for_backward(*gradients)
        return value

    @staticmethod
    def backward(ctx, grad):
        embedding, centre, precision = (grad * gradient for gradient in ctx.saved_tensors)
        return embedding, None, centre, precision, None, None


def _by_torch(embedding, owner, centre, precision, image, weight):
    """Any device and precision: blocks of objects against all pixels of their image, far pairs dropped."""
    n = embedding.shape[-1]
    value = embedding.new_zeros(())
    gradients = [torch.zeros_like(x) for x in (embedding, centre, precision)]
    for b in range(len(embedding)):
        objects = torch.nonzero(image == b)[:, 0]
        for block in objects.split(max(1, BLOCK // max(n, 1))):
            difference = embedding[b] - centre[block, :, None]  # (k, 2, n)
            distance = (difference.square() * precision[block, :, None]).sum(1)  # (k, n)
            own = owner[b] == block[:, None] + 1
            k, i = torch.nonzero((own | (distance < REACH)) & (owner[b] >= 0), as_tuple=True)
            phi, inside = torch.exp(-distance[k, i]), own[k, i]
            score = 2 * phi - 1
            margin = torch.where(inside, 1 - score, 1 + score)
            growth = _growth(k, margin, inside, len(block))
            share = weight[block][k] * growth
            value += (share * margin).sum()
            slope = torch.where(margin > 0, share, 0) * torch.where(inside, 2, -2) * phi  # d value / d distance
            difference, scale = difference[k, :, i], precision[block][k]  # (pairs, 2)
            by_pixel = 2 * slope[:, None] * scale * difference
            gradients[0][b].index_add_(1, i, by_pixel.T)
            gradients[1].index_add_(0, block[k], -by_pixel)
            gradients[2].index_add_(0, block[k], slope[:, None] * difference.square())
    return value, *gradients


def _growth(k, margin, inside, n_objects):
    """Growth of 1 - IoU with each pair, within its object by falling margin."""
    order = torch.argsort(margin, descending=True, stable=True)
    order = order[torch.argsort(k[order], stable=True)]
    k, positive = k[order], inside[order].double()
    total = torch.zeros(n_objects, dtype=torch.float64, device=k.device).index_add_(0, k, positive)
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


def _by_numba(embedding, owner, centre, precision, image, weight):
    """Single precision on a CPU: near pixels from bins, one radix sort an object, images side by side."""
    gradients = [torch.zeros_like(x) for x in (embedding, centre, precision)]
    bounds = np.searchsorted(image.numpy(), np.arange(len(embedding) + 1))
    owner = owner.to(torch.int32).numpy()

    def one_image(b):
        objects = slice(bounds[b], bounds[b + 1])
        return _image_terms(
            embedding[b].numpy(),
            owner[b],
            bounds[b],
            centre[objects].numpy(),
            precision[objects].numpy(),
            weight[objects].numpy(),
            gradients[0][b].numpy(),
            gradients[1][objects].numpy(),
            gradients[2][objects].numpy(),
        )

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        value = sum(pool.map(one_image, range(len(embedding))))
    return embedding.new_tensor(value), *gradients


@njit(cache=True, nogil=True)
def _image_terms(embedding, owner, first, centre, precision, weight, grad_embedding, grad_centre, grad_precision):
    """Add one image's gradients to the arrays given, and return its weighted sum of losses."""
    n, n_objects = owner.size, len(centre)
    if n_objects == 0:
        return 0.0
    x, y = embedding[0], embedding[1]
    starts, order, grid, shape = bin_points(x, y)
    own_starts = np.zeros(n_objects + 1, np.int64)
    for i in range(n):
        if owner[i] > 0:
            own_starts[owner[i] - first] += 1
    for k in range(n_objects):
        own_starts[k + 1] += own_starts[k]
    own = np.empty(own_starts[-1], np.int32)
    fill = own_starts[:-1].copy()
    for i in range(n):
        if owner[i] > 0:
            own[fill[owner[i] - 1 - first]] = i
            fill[owner[i] - 1 - first] += 1

    pixel = np.empty(n, np.int32)
    phi = np.empty(n, np.float32)
    margin = np.empty(n, np.float32)
    one, two = np.float32(1), np.float32(2)
    value = 0.0
    for k in range(n_objects):
        n_own = own_starts[k + 1] - own_starts[k]
        cx, cy, tx, ty = centre[k, 0], centre[k, 1], precision[k, 0], precision[k, 1]
        for j in range(n_own):
            i = own[own_starts[k] + j]
            dx, dy = x[i] - cx, y[i] - cy
            pixel[j] = i
            phi[j] = math.exp(-(dx * dx * tx + dy * dy * ty))
            margin[j] = one - (two * phi[j] - one)
        count = n_own
        reach_x = math.sqrt(REACH / tx) if tx > 0 else math.inf
        reach_y = math.sqrt(REACH / ty) if ty > 0 else math.inf
        column, last_column = bin_range(cx, reach_x, grid[0], grid[2], shape[1])
        row, last_row = bin_range(cy, reach_y, grid[1], grid[2], shape[0])
        for r in range(row, last_row + 1):
            for p in range(starts[r * shape[1] + column], starts[r * shape[1] + last_column + 1]):
                i = order[p]
                dx, dy = x[i] - cx, y[i] - cy
                distance = dx * dx * tx + dy * dy * ty
                if distance < REACH and owner[i] >= 0 and owner[i] != k + 1 + first:
                    pixel[count] = i
                    phi[count] = math.exp(-distance)
                    margin[count] = one + (two * phi[count] - one)
                    count += 1

        missed = wrong = 0
        before = 0.0
        for j in _descending(margin[:count]):
            inside = j < n_own
            if inside:
                missed += 1
            else:
                wrong += 1
            jaccard = 1.0 - (n_own - missed) / (n_own + wrong)
            growth = weight[k] * np.float32(jaccard - before)
            before = jaccard
            if margin[j] > 0:
                i = pixel[j]
                value += growth * margin[j]
                slope = growth * phi[j] * (two if inside else -two)
                dx, dy = x[i] - cx, y[i] - cy
                by_x, by_y = two * slope * tx * dx, two * slope * ty * dy
                grad_embedding[0, i] += by_x
                grad_embedding[1, i] += by_y
                grad_centre[k, 0] -= by_x
                grad_centre[k, 1] -= by_y
                grad_precision[k, 0] += slope * dx * dx
                grad_precision[k, 1] += slope * dy * dy
    return value


@njit(cache=True, nogil=True)
def _descending(margin):
    """Indices that sort margins between 0 and 2 from large to small; ties stay in order."""
    n = margin.size
    if n < 512:
        return np.argsort(-margin, kind="mergesort")
    # The bits of non-negative floats are ordered as the floats are: three passes of ten bits.
    keys = np.uint32(0x40000000) - margin.view(np.uint32)
    index = np.arange(n).astype(np.int32)
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
    return index.astype(np.int64)
