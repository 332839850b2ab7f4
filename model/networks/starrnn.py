"""StarRNN: a recurrent cell with one gate, on the series of a pixel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.networks.base import BatchNorm, SeriesNetwork, compact, prefix


class StarRNN(SeriesNetwork):
    """Layer norm, three STAR layers, and a linear layer on the last date.

    Follows Turkoglu et al. (2021), IEEE TPAMI, "Gating revisited", as set up by Rußwurm et al.
    (2020), arXiv 1905.11893; there one layer object served all three layers, here each has its own
    weights.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    hidden, layers : int
        Width and number of the layers.
    dropout : float
        On the outputs of each layer, not on the recurrence.

    Notes
    -----
    Invalid dates are skipped: the state does not see them at all.
    """

    time_layers = ("layers",)
    causal = True

    def __init__(
        self, c_in: int, n_classes: int, hidden: int = 128, layers: int = 3, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c_in)
        self.layers = nn.ModuleList(
            StarLayer(hidden if number else c_in, hidden) for number in range(layers)
        )
        self.norms = nn.ModuleList(BatchNorm(hidden) for _ in range(layers))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Sequential(nn.LayerNorm(hidden), nn.Linear(hidden, n_classes))

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        x, lengths, _ = compact(self.norm(x.transpose(1, 2)).transpose(1, 2), valid)
        seen = prefix(lengths, x.shape[2])
        for layer, norm in zip(self.layers, self.norms, strict=True):
            x = norm(self.dropout(layer(x)), seen)
        last = (lengths - 1)[:, None, None].expand(-1, x.shape[1], 1)
        return self.head(x.gather(2, last).squeeze(2))


class StarLayer(nn.Module):
    """One layer: ``g = σ(Wx + Uh)``, ``z = tanh(Vx)``, ``h' = tanh(g·h + (1 - g)·z)``."""

    def __init__(self, c_in: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Linear(c_in, hidden)
        self.update = nn.Linear(c_in, hidden)
        self.recurrent = nn.Linear(hidden, hidden)
        for linear in (self.gate, self.update, self.recurrent):
            nn.init.orthogonal_(linear.weight)
            nn.init.zeros_(linear.bias)
        nn.init.ones_(self.gate.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return the states [N, F, T] of x [N, C, T]."""
        series = x.transpose(1, 2)
        gates, updates = self.gate(series), torch.tanh(self.update(series))
        h = torch.zeros_like(updates[:, 0])
        states = []
        for gate, update in zip(gates.unbind(1), updates.unbind(1), strict=True):
            g = torch.sigmoid(gate + self.recurrent(h))
            h = torch.tanh(g * h + (1 - g) * update)
            states.append(h)
        return torch.stack(states, dim=2)
