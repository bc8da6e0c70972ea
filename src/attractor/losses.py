"""Losses that the papers cite rather than define."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F


def lovasz_hinge(scores: Float[Tensor, " n"], inside: Bool[Tensor, " n"]) -> Float[Tensor, ""]:
    """The Lovász hinge: a convex bound on 1 - IoU of the pixels with a positive score.

    Each pixel's margin of error, largest first, is weighted by how much 1 - IoU grows when that pixel turns
    wrong too. No pixel at all gives 0. The gradient of tied margins depends on their order; the value does not.

    Args:
        scores: any real number for each pixel; a pixel above 0 is claimed.
        inside: which pixels belong to the object.
    Source: Berman et al. 2018, "The Lovász-Softmax loss", section 3.
    """
    if not len(scores):
        return scores.sum()
    sign = torch.where(inside, 1.0, -1.0).to(scores.dtype)
    margins, order = torch.sort(1 - scores * sign, descending=True, stable=True)
    # relu, whose gradient at 0 is 0: a pixel with exactly no error is left alone
    return (F.relu(margins) * _jaccard_growth(inside[order]).to(margins.dtype)).sum()


def _jaccard_growth(inside: Bool[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Growth of 1 - IoU as the pixels, in this order, turn wrong one by one."""
    positive = inside.to(torch.float32 if inside.device.type == "mps" else torch.float64)  # MPS has no double
    missed = positive.cumsum(0)
    jaccard = 1 - (positive.sum() - missed) / (positive.sum() + (1 - positive).cumsum(0))
    return torch.cat([jaccard[:1], jaccard[1:] - jaccard[:-1]])


def cross_entropy(
    logits: Float[Tensor, "b c *s"], classes: Int[Tensor, "b *s"], weights: Float[Tensor, " c"]
) -> Float[Tensor, ""]:
    """Weighted cross entropy of each pixel, averaged over the pixels of each image that count, then over images.

    Args:
        logits: of each class, background first.
        classes: of each pixel; -1 for a pixel that does not count. An image in which no pixel counts gives 0.
        weights: of each class.
    """
    counts = classes >= 0
    losses = F.cross_entropy(logits, classes.clamp(min=0).long(), reduction="none") * weights[classes.clamp(min=0)]
    return ((losses * counts).flatten(1).sum(1) / counts.flatten(1).sum(1).clamp(min=1)).mean()


def soft_iou_cost(probability: Float[Tensor, "t n"], inside: Float[Tensor, "k n"]) -> Float[Tensor, "t k"]:
    """One minus the soft IoU of each probable mask with each true one; 1 if the true one is empty.

    Args:
        probability: that each pixel is in the mask, 0 to 1.
        inside: 1 for the object's pixels, 0 for others.
    Source: Krähenbühl and Koltun 2013; Salvador et al. 2017, section 3.3.
    """
    common = probability @ inside.to(probability.dtype).T
    union = probability.sum(1)[:, None] + inside.sum(1) - common
    return 1 - common / (union + 1e-6)
