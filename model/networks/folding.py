"""Batch normalisation folded into the convolutions before it, for prediction."""

from __future__ import annotations

import copy
import itertools

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.utils.fusion import fuse_conv_bn_eval


def folded(network: nn.Module) -> nn.Module:
    """Return a copy for prediction whose convolutions do the work of the norms behind them.

    In evaluation a batch normalisation multiplies and adds the same numbers everywhere, which a
    convolution can do with other weights. Where the two follow each other in a `nn.Sequential`, or
    in an attribute ``folds`` of a module (pairs of names: convolution, norm), the norm becomes an
    identity.

    Parameters
    ----------
    network : nn.Module
        Stays as it is.

    Returns
    -------
    nn.Module
        In evaluation mode; the same logits up to rounding.
    """
    network = copy.deepcopy(network).eval()
    for module in list(network.modules()):
        for before, after in _pairs(module):
            convolution, norm = module.get_submodule(before), module.get_submodule(after)
            if isinstance(convolution, _ConvNd) and isinstance(norm, _BatchNorm):
                transposed = isinstance(convolution, _ConvTransposeNd)
                if transposed and convolution.groups > 1:
                    continue  # PyTorch's rule for transposed weights knows one group only
                setattr(module, before, fuse_conv_bn_eval(convolution, norm, transposed))
                setattr(module, after, nn.Identity())
    return network


def _pairs(module: nn.Module) -> list[tuple[str, str]]:
    if isinstance(module, nn.Sequential):
        names = [name for name, _ in module.named_children()]
        return list(itertools.pairwise(names))
    pairs: tuple[tuple[str, str], ...] = getattr(module, "folds", ())
    return list(pairs)
