"""Steps of a training that PyTorch computes slowly on a processor, with the same numbers.

On other devices, and where the processor computes with bfloat16, PyTorch's own kernels run.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class TemporalConv(nn.Conv2d):
    """A convolution over the dates of [B, C, T, N] that keeps their number.

    Parameters
    ----------
    c_in, c_out : int
        Channels.
    k : int
        Length of the kernel in dates, odd.

    Notes
    -----
    In float32 on processors without AVX-512, oneDNN takes several times as long for the gradient of
    a (k, 1) kernel as for the convolution. Its weights' gradient is k products of matrices, one per
    lag, and those are fast everywhere.
    """

    def __init__(self, c_in: int, c_out: int, k: int) -> None:
        super().__init__(c_in, c_out, (k, 1), padding=(k // 2, 0))

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, c_out, T, N] from x [B, c_in, T, N]."""
        plain = x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")
        if plain and x.dtype == torch.float32 and torch.is_grad_enabled():
            return _TemporalConvolution.apply(x, self.weight, self.bias)
        return super().forward(x)


class _TemporalConvolution(torch.autograd.Function):
    """F.conv2d with a (k, 1) kernel and padding k // 2, and its gradients."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return F.conv2d(x, weight, bias, padding=(weight.shape[2] // 2, 0))

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        to_x = None
        if ctx.needs_input_grad[0]:
            # The gradient is the convolution of the gradient with the kernel turned round.
            turned = weight.flip(2).transpose(0, 1)
            turned = turned.contiguous(memory_format=torch.channels_last)
            to_x = F.conv2d(gradient, turned, padding=(weight.shape[2] // 2, 0))
        by_date = gradient.permute(0, 2, 3, 1)
        return to_x, _to_weight(by_date, x.permute(0, 2, 3, 1), weight), by_date.sum((0, 1, 2))


def _to_weight(gradient: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """Return the weights' gradient from gradient [B, T, N, out] and x [B, T, N, in]."""
    c_out, c_in, k, _ = weight.shape
    dates = x.shape[1]
    total = x.new_zeros(k, c_out, c_in)
    for lag, product in zip(range(-(k // 2), k // 2 + 1), total, strict=True):
        first, last = max(0, -lag), min(dates, dates - lag)
        for g, v in zip(gradient, x, strict=True):
            if first < last:
                there = v[first + lag : last + lag].reshape(-1, c_in)
                product.addmm_(g[first:last].reshape(-1, c_out).t(), there)
    return total.permute(1, 2, 0).unsqueeze(-1)


def relu_dropout(x: Tensor, p: float, training: bool) -> Tensor:
    """Return dropout(relu(x)).

    PyTorch draws the mask of a dropout on CPU one number at a time, which is half of a training
    step of this network. There, one random byte per element is drawn instead, and the two
    operations share their backward pass.
    """
    if training and p > 0 and x.device.type == "cpu":
        return _ReluDropout.apply(x, p)
    return F.dropout(F.relu(x), p, training)


class _ReluDropout(torch.autograd.Function):
    """ReLU and dropout in one; p is rounded to 1/256 and the scale is exact for the rounded p."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, p: float) -> Tensor:
        threshold = min(round(256 * p), 255)
        words = torch.empty(-(-x.numel() // 8), dtype=torch.int64)
        random = words.random_(-(2**63), None).view(torch.uint8)[: x.numel()]
        # Elements are independent: any order of the bytes will do, so the mask takes x's layout.
        keep = (random >= threshold).view(torch.uint8).as_strided(x.shape, x.stride())
        ctx.scale = 256 / (256 - threshold)
        kept = (x.relu() * keep).mul_(ctx.scale)
        ctx.save_for_backward(kept)
        return kept

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None]:
        (kept,) = ctx.saved_tensors
        return torch.ops.aten.threshold_backward(gradient, kept, 0).mul_(ctx.scale), None
