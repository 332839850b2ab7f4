"""What a network costs: parameters, their share spent on time, arithmetic per pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model.networks.base import Network


@dataclass(frozen=True)
class Cost:
    """The cost of a network.

    Attributes
    ----------
    parameters : int
        Trainable ones.
    time_share : float
        Share of them in layers that mix or weigh dates, see `Network.time_layers`.
    mflop_per_pixel : float
        Millions of additions and multiplications in matrix products and convolutions, forward, per
        pixel that goes in (of a parcel: per pixel of it).
    """

    parameters: int
    time_share: float
    mflop_per_pixel: float


def measure(network: Network, c_in: int, dates: int) -> Cost:
    """Count the cost of a network for `c_in` bands and `dates` dates; it is left in eval mode."""
    total = count(network)
    of_time = sum(
        count(part) for name, part in network.named_children() if name in network.time_layers
    ) + sum(p.numel() for name, p in network.named_parameters() if name in network.time_layers)
    inputs = network.eval().example(1, c_in, dates)
    # PyTorch's counter does not know the fused kernels of attention and of LSTM layers on CPU.
    fused = {torch.ops.aten.mkldnn_rnn_layer: _lstm_flop}
    with (
        torch.inference_mode(),
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False, custom_mapping=fused) as counter,
    ):
        network(**inputs)
    pixels = inputs["x"][0, 0, 0].numel()
    return Cost(total, of_time / total, counter.get_total_flops() / pixels / 1e6)


def count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


def _lstm_flop(
    x: torch.Size, of_input: torch.Size, of_state: torch.Size, *unused: object, **also: object
) -> int:
    """Return the operations of an LSTM layer on x [T, N, C], from the shapes of its arguments."""
    return 2 * x[0] * x[1] * (of_input.numel() + of_state.numel())
