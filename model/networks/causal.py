"""Causal encoders: a vector for each date of a series that knows nothing of later dates.

What early classification needs of its backbone, and what any of these gives: ``encoder(x [N, C, T],
valid [N, T], doy [N, T]) -> [N, T, width]`` with the attribute ``width``. Invalid dates are skipped
as if they were not there; what stands at them in the result means nothing.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from model.networks.attention import PostNormBlock, sinusoid
from model.networks.base import BatchNorm, compact, days, keep, prefix
from model.networks.recurrent import recurrence, run

Encoder = Literal["lstm", "gru", "tempcnn", "transformer"]


class RecurrentSteps(nn.Module):
    """Layer norm, linear, LSTM or GRU layers without biases.

    The encoder of Rußwurm et al. (2023), arXiv 1901.10681.

    Parameters
    ----------
    c_in : int
        Bands C.
    cell : {"lstm", "gru"}
    width, layers : int
        Width of the vectors, and number of layers.
    dropout : float
        Between the layers.
    """

    def __init__(
        self,
        c_in: int,
        cell: Literal["lstm", "gru"] = "lstm",
        width: int = 64,
        layers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(c_in), nn.Linear(c_in, width))
        self.rnn = recurrence(cell, width, width, layers, dropout, bidirectional=False)
        self.width = width

    def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """Return [N, T, width] from x [N, C, T] and valid [N, T]."""
        series, lengths, order = compact(self.embed(x.transpose(1, 2)).transpose(1, 2), valid)
        return _back(run(self.rnn, series, lengths)[0], order)


class CausalTempCNN(nn.Module):
    """Temporal convolutions that look back only.

    The convolutions of Pelletier, Webb and Petitjean (2019), Remote Sensing 11(5):523, padded on
    the left alone; their dense layer over all dates, which knows the whole series, is left out.

    Parameters
    ----------
    c_in : int
        Bands C.
    width, layers : int
        Channels, and number of convolutions.
    k : int
        Valid dates that each convolution looks at, the present one included.
    dropout : float
        After each convolution.
    """

    def __init__(
        self, c_in: int, width: int = 64, k: int = 5, layers: int = 3, dropout: float = 0.2
    ) -> None:
        super().__init__()
        inputs = [c_in] + [width] * (layers - 1)
        self.convs = nn.ModuleList(nn.Conv1d(c, width, k) for c in inputs)
        self.norms = nn.ModuleList(BatchNorm(width) for _ in inputs)
        self.dropout = nn.Dropout(dropout)
        self.width, self.k = width, k

    def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """Return [N, T, width] from x [N, C, T] and valid [N, T]."""
        series, lengths, order = compact(x, valid)
        # A series without any date counts as one date of zeros.
        there = prefix(lengths, x.shape[2])
        for conv, norm in zip(self.convs, self.norms, strict=True):
            past = nn.functional.pad(series, (self.k - 1, 0))
            series = keep(self.dropout(norm(conv(past), there).relu()), there)
        return _back(series, order)


class CausalTransformer(nn.Module):
    """Self-attention in which each date sees itself and earlier dates.

    The layers of Rußwurm and Körner (2020), arXiv 1910.10536, smaller, with the days of the year
    as positions and a causal mask.

    Parameters
    ----------
    c_in : int
        Bands C.
    width, heads, layers : int
        Width of a date's token, heads and layers.
    dropout : float
        On both branches of each layer.
    """

    def __init__(
        self, c_in: int, width: int = 64, heads: int = 4, layers: int = 2, dropout: float = 0.1
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(c_in), nn.Linear(c_in, width), nn.LayerNorm(width))
        self.blocks = nn.ModuleList(
            PostNormBlock(width, heads, width // heads, 2 * width, dropout, 0.0)
            for _ in range(layers)
        )
        self.width = width

    def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """Return [N, T, width] from x [N, C, T], valid [N, T] and doy [N, T]."""
        tokens = self.embed(x.transpose(1, 2))
        tokens = tokens + sinusoid(days(doy, "CausalTransformer"), self.width, 10_000).to(tokens)
        dates = torch.arange(x.shape[2], device=x.device)
        past, itself = dates <= dates[:, None], dates == dates[:, None]
        # Each date sees itself, valid or not, so that no row of the attention is empty.
        seen = (past & valid[:, None]) | itself
        for block in self.blocks:
            tokens = block(tokens, seen)
        return tokens


def causal_encoder(name: Encoder, c_in: int) -> nn.Module:
    """Return a causal encoder of width 64 for `c_in` bands."""
    if name == "tempcnn":
        return CausalTempCNN(c_in)
    if name == "transformer":
        return CausalTransformer(c_in)
    if name in ("lstm", "gru"):
        return RecurrentSteps(c_in, name)
    raise ValueError(f"encoder '{name}' is unknown; use lstm, gru, tempcnn or transformer")


def _back(steps: Tensor, order: Tensor) -> Tensor:
    """Return [N, T, F] at the places where the dates came from; steps [N, F, T] of `compact`."""
    steps = steps.transpose(1, 2)
    return steps.gather(1, order.argsort(dim=1)[..., None].expand_as(steps))
