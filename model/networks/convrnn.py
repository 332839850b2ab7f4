"""Sequential recurrent encoders: convolutional GRU and LSTM, reading in both directions.

Source: Rußwurm and Körner (2018), multi-temporal land cover classification with sequential
recurrent encoders, ISPRS International Journal of Geo-Information 7(4):129.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from model.networks.base import Network, days, everywhere

State = tuple[Tensor, ...]


class SequentialEncoder(Network):
    """A bidirectional convolutional recurrence, its final states, a 3 × 3 convolution.

    Follows Rußwurm and Körner (2018). Different here: the output is the plain logits, without the
    batch normalisation and leaky ReLU that the source has after the last convolution; the plane
    with the year, a constant within one season, is left out (give it as a band if it is wanted);
    all dates are used, not a random draw.

    Parameters
    ----------
    c_in, n_classes, dates : int
        Bands C, outputs K, dates T. A plane with the day of the year / 365 is added to the bands.
    cell : {"gru", "lstm"}
    hidden : int
        Channels of the state; 128 or 256 in the source.

    Notes
    -----
    A pixel keeps its state over the dates at which it is invalid. Layer normalisation inside the
    cells is over the whole window, so its size matters a little.
    """

    time_layers = ("ahead", "back")
    window_sensitive = True

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        dates: int,
        cell: Literal["gru", "lstm"] = "gru",
        hidden: int = 128,
    ) -> None:
        super().__init__()
        if cell not in CELLS:
            raise ValueError(f"cell '{cell}' is unknown; use gru or lstm")
        self.ahead, self.back = (CELLS[cell](c_in + 1, hidden) for _ in range(2))
        self.head = nn.Conv2d(
            2 * hidden, n_classes, 3, padding=1, padding_mode="reflect", bias=False
        )
        # Each date looks one or two pixels farther than the one before.
        self.halo = CELLS[cell].radius * dates + 1

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, H, W]
            Standardised reflectance.
        valid : bool [B, T, H, W], optional
            Where there is data; default everywhere.
        doy : int [B, T]
            Day of the year of each date.

        Returns
        -------
        float [B, K, H, W]
        """
        x, valid = everywhere(x, valid)
        plane = (days(doy, "SequentialEncoder") / 365)[:, None, :, None, None].to(x.dtype)
        x = torch.cat([x, plane * valid[:, None]], dim=1)
        ends = self.ahead(x, valid), self.back(x.flip(2), valid.flip(1))
        return self.head(torch.cat(ends, dim=1))


class ConvCell(nn.Module):
    """A convolutional recurrence; subclasses say how the state moves.

    Attributes
    ----------
    radius : int
        Pixels that one date looks to each side.
    states : int
        Tensors in the state; the last is what is left at the end.
    """

    radius: int
    states: int

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.hidden = hidden

    def step(self, x: Tensor, state: State) -> State:
        """Return the next state from x [B, C, H, W] and the state, each [B, F, H, W]."""
        raise NotImplementedError

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return the final state [B, F, H, W] of x [B, C, T, H, W]; pixels hold where invalid."""
        zero = x.new_zeros(len(x), self.hidden, *x.shape[-2:])
        state: State = (zero,) * self.states
        for frame, seen in zip(x.unbind(2), valid.unbind(1), strict=True):
            moved = self.step(frame, state)
            state = tuple(
                torch.where(seen[:, None], new, old) for new, old in zip(moved, state, strict=True)
            )
        return state[-1]


class ConvGRU(ConvCell):
    """Gated recurrent unit with 3 × 3 convolutions and layer normalisation."""

    radius, states = 2, 1

    def __init__(self, c_in: int, hidden: int) -> None:
        super().__init__(hidden)
        self.gates = nn.Conv2d(c_in + hidden, 2 * hidden, 3, padding=1, bias=False)
        self.update = nn.Conv2d(c_in + hidden, hidden, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(1, hidden) for _ in range(3))

    def step(self, x: Tensor, state: State) -> State:
        """``h' = u·h + (1 - u)·n`` with ``n = tanh(LN(conv([x, r·h])))``."""
        (h,) = state
        r, u = self.gates(torch.cat([x, h], dim=1)).chunk(2, dim=1)
        r, u = self.norms[0](r).sigmoid(), self.norms[1](u).sigmoid()
        new = self.norms[2](self.update(torch.cat([x, r * h], dim=1))).tanh()
        return (u * h + (1 - u) * new,)


class ConvLSTM(ConvCell):
    """Long short-term memory with a 3 × 3 convolution and layer normalisation; no peepholes."""

    radius, states = 1, 2

    def __init__(self, c_in: int, hidden: int) -> None:
        super().__init__(hidden)
        self.gates = nn.Conv2d(c_in + hidden, 4 * hidden, 3, padding=1, bias=False)
        self.norms = nn.ModuleList(nn.GroupNorm(1, hidden) for _ in range(5))

    def step(self, x: Tensor, state: State) -> State:
        """``c' = LN(σ(f + 1)·c + σ(i)·tanh(j))`` and ``h' = σ(o)·tanh(c')``; returns (h', c')."""
        h, c = state
        parts = self.gates(torch.cat([x, h], dim=1)).chunk(4, dim=1)
        j, i, f, o = (norm(part) for norm, part in zip(self.norms, parts, strict=False))
        c = self.norms[4]((f + 1).sigmoid() * c + i.sigmoid() * j.tanh())
        return o.sigmoid() * c.tanh(), c


CELLS: dict[str, type[ConvGRU] | type[ConvLSTM]] = {"gru": ConvGRU, "lstm": ConvLSTM}
