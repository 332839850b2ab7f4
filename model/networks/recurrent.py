"""Recurrent networks on the series of a pixel: LSTM, GRU, and a stack of narrowing LSTMs."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from model.networks.base import SeriesNetwork, compact

Cell = Literal["lstm", "gru"]
CELLS: dict[str, type[nn.LSTM] | type[nn.GRU]] = {"lstm": nn.LSTM, "gru": nn.GRU}


class RecurrentClassifier(SeriesNetwork):
    """Layer norm, a stack of LSTM or GRU layers, and a linear layer on all final states.

    Follows the LSTM of Rußwurm et al. (2020), arXiv 1905.11893: the states are the cells of an
    LSTM (of all layers and directions), and the recurrence has no biases. With ``cell="gru"`` they
    are the hidden states; that variant is ours.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    cell : {"lstm", "gru"}
    hidden, layers : int
        Width of each direction, and number of layers.
    bidirectional : bool
        Whether each layer also reads the series backwards.
    dropout : float
        Between the layers.

    Notes
    -----
    Invalid dates are skipped: the state does not see them at all.
    """

    time_layers = ("rnn",)

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        cell: Cell = "lstm",
        hidden: int = 128,
        layers: int = 4,
        bidirectional: bool = True,
        dropout: float = 0.571,
    ) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(c_in)
        self.rnn = recurrence(cell, c_in, hidden, layers, dropout, bidirectional)
        states = hidden * layers * (1 + bidirectional)
        self.head = nn.Sequential(nn.LayerNorm(states), nn.Linear(states, n_classes))
        self.causal = not bidirectional

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        x, lengths, _ = compact(self.norm(x.transpose(1, 2)).transpose(1, 2), valid)
        _, state = run(self.rnn, x, lengths)
        return self.head(state.transpose(0, 1).flatten(1))


class StackedLSTM(SeriesNetwork):
    """Three narrowing LSTM layers (200, 125, 100) and a linear layer on the last date.

    Follows Weikmann, Paris and Bruzzone's network for monthly composites of Austria 2018. The
    dropout is not published; there is none here.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    widths : sequence of int
        Width of each layer.

    Notes
    -----
    Invalid dates are skipped: the state does not see them at all.
    """

    time_layers = ("layers",)
    causal = True

    def __init__(self, c_in: int, n_classes: int, widths: Sequence[int] = (200, 125, 100)) -> None:
        super().__init__()
        pairs = pairwise((c_in, *widths))
        self.layers = nn.ModuleList(nn.LSTM(i, o, batch_first=True) for i, o in pairs)
        self.head = nn.Linear(widths[-1], n_classes)

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        x, lengths, _ = compact(x, valid)
        for layer in self.layers:
            x, _ = run(layer, x, lengths)
        last = (lengths - 1)[:, None, None].expand(-1, x.shape[1], 1)
        return self.head(x.gather(2, last).squeeze(2))


def recurrence(
    cell: str, c_in: int, hidden: int, layers: int, dropout: float, bidirectional: bool
) -> nn.LSTM | nn.GRU:
    """Return layers of LSTM or GRU without biases; dropout between them."""
    if cell not in CELLS:
        raise ValueError(f"cell '{cell}' is unknown; use lstm or gru")
    return CELLS[cell](
        c_in,
        hidden,
        layers,
        bias=False,
        batch_first=True,
        dropout=dropout if layers > 1 else 0.0,
        bidirectional=bidirectional,
    )


def run(rnn: nn.Module, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
    """Run over series of different lengths.

    Parameters
    ----------
    rnn : nn.LSTM or nn.GRU
        With the batch first.
    x : float [N, C, T]
        From `compact`.
    lengths : int [N]

    Returns
    -------
    outputs : float [N, F, T]
        Zero behind the length.
    state : float [layers · directions, N, F]
        Final states: the cells of an LSTM, the hidden states of a GRU.
    """
    dates, series = x.shape[2], x.transpose(1, 2)
    # PyTorch has no LSTM in bfloat16 on CPU for series of different lengths.
    with torch.autocast("cpu", enabled=False):
        if bool((lengths == dates).all()):
            outputs, state = rnn(series.float())
        else:
            packed = pack_padded_sequence(
                series.float(), lengths.cpu(), batch_first=True, enforce_sorted=False
            )
            outputs, state = rnn(packed)
            outputs, _ = pad_packed_sequence(outputs, batch_first=True, total_length=dates)
    return outputs.transpose(1, 2), state[1] if isinstance(state, tuple) else state
