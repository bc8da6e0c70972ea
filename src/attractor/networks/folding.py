"""Batch normalisation folded into the convolutions before it: in prediction both are one linear map.

Source: the definition of batch normalisation (Ioffe & Szegedy 2015); torch.nn.utils.fusion does the arithmetic.
"""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator

from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from attractor.networks.contract import NamesNormalised

TRANSPOSED = (nn.ConvTranspose2d, nn.ConvTranspose3d)
CONVOLUTIONS = (nn.Conv2d, nn.Conv3d, *TRANSPOSED)
NORMALISATIONS = (nn.BatchNorm2d, nn.BatchNorm3d)


def folded(network: nn.Module) -> nn.Module:
    """A copy of the network for prediction, without those normalisations that directly follow a convolution.

    Blocks name their pairs of convolution and normalisation in `normalised`; in an `nn.Sequential` they are neighbours.
    """
    twin = copy.deepcopy(network).eval().requires_grad_(False)
    for module in list(twin.modules()):
        for conv, norm in _pairs(module):
            convolution, normalisation = module.get_submodule(conv), module.get_submodule(norm)
            assert isinstance(convolution, CONVOLUTIONS)
            assert isinstance(normalisation, NORMALISATIONS)
            both = fuse_conv_bn_eval(convolution, normalisation, isinstance(convolution, TRANSPOSED))
            setattr(module, conv, both.requires_grad_(False))
            setattr(module, norm, nn.Identity())
    return twin


def _pairs(module: nn.Module) -> Iterator[tuple[str, str]]:
    """Names of each convolution in a module, and of the normalisation that follows it."""
    if isinstance(module, NamesNormalised):
        yield from module.normalised
    if type(module) is nn.Sequential:
        for (first, conv), (second, norm) in itertools.pairwise(module.named_children()):
            if isinstance(conv, CONVOLUTIONS) and isinstance(norm, NORMALISATIONS):
                yield first, second
