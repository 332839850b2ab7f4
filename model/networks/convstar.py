"""ms-convSTAR: convolutional STAR layers with a label level after every second one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from model.networks.base import BatchNorm, Network, everywhere


class MultiStageConvSTAR(Network):
    """Six convSTAR layers with heads for three label levels, and a refinement of the finest.

    Follows Turkoglu et al. (2021), arXiv 2102.08820.

    Parameters
    ----------
    c_in, n_classes, dates : int
        Bands C, outputs K of the finest level, dates T.
    coarse : sequence of int
        Outputs of the coarsest and of the middle level; the source's 6 and 20 by default.
    hidden : int
        Channels of each layer.
    dropout : float
        In the refinement.

    Notes
    -----
    A pixel keeps its state over the dates at which it is invalid. `levels` gives the logits of all
    levels for a hierarchical loss: the source adds 0.1, 0.5 and 1 times the cross-entropies of
    coarse, middle and fine to that of the refined logits.
    """

    time_layers = ("layers",)
    causal = True

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        dates: int,
        coarse: Sequence[int] = (6, 20),
        hidden: int = 64,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        outputs = (*coarse, n_classes)
        if len(outputs) != 3:
            raise ValueError(f"coarse = {tuple(coarse)}: give two numbers, coarsest level first")
        self.layers = nn.ModuleList(
            ConvSTARCell(hidden if number else c_in, hidden) for number in range(6)
        )
        self.heads = nn.ModuleList(nn.Conv2d(hidden, k, 3, padding=1) for k in outputs)
        self.hidden = hidden
        self.refine = Refinement(sum(outputs), n_classes, dropout)
        # One pixel per date and per layer on the way, then the head and two more convolutions.
        self.halo = dates - 1 + len(self.layers) + 1 + 2

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return the refined logits of the finest level.

        Parameters
        ----------
        x : float [B, C, T, H, W]
            Standardised reflectance.
        valid : bool [B, T, H, W], optional
            Where there is data; default everywhere.
        doy : int [B, T], optional
            Not used: this network knows the order of the dates.

        Returns
        -------
        float [B, K, H, W]
        """
        return self.levels(x, valid)[-1]

    def levels(
        self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        """Return the logits of coarse, middle, fine and refined: each [B, K of the level, H, W]."""
        x, valid = everywhere(x, valid)
        states = [x.new_zeros(len(x), self.hidden, *x.shape[-2:]) for _ in self.layers]
        for frame, seen in zip(x.unbind(2), valid.unbind(1), strict=True):
            below = frame
            for number, cell in enumerate(self.layers):
                moved = cell(below, states[number])
                states[number] = below = torch.where(seen[:, None], moved, states[number])
        scores = [head(h) for head, h in zip(self.heads, states[1::2], strict=True)]
        return *scores, scores[-1] + self.refine(torch.cat(scores, dim=1))


class ConvSTARCell(nn.Module):
    """``h' = g·h + (1 - g)·tanh(conv(x))`` with ``g = σ(conv([x, h]))``."""

    def __init__(self, c_in: int, hidden: int) -> None:
        super().__init__()
        self.gate = nn.Conv2d(c_in + hidden, hidden, 3, padding=1)
        self.update = nn.Conv2d(c_in, hidden, 3, padding=1)
        nn.init.orthogonal_(self.gate.weight)
        nn.init.orthogonal_(self.update.weight)
        nn.init.ones_(self.gate.bias)  # type: ignore[arg-type]
        nn.init.zeros_(self.update.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, h: Tensor) -> Tensor:
        """Return the next state [B, F, H, W] from x [B, C, H, W] and the state h."""
        g = self.gate(torch.cat([x, h], dim=1)).sigmoid()
        return g * h + (1 - g) * self.update(x).tanh()


class Refinement(nn.Module):
    """What to add to the finest logits, seen next to those of all levels; convolutions no bias.

    The convolutions in the middle have kernels of `kernel` × `kernel` pixels.
    """

    def __init__(
        self, c_in: int, n_classes: int, dropout: float, kernel: int = 3, hidden: int = 128
    ) -> None:
        super().__init__()
        self.begin = nn.Sequential(
            nn.Conv2d(c_in, hidden, 1, bias=False), BatchNorm(hidden), nn.ReLU()
        )
        self.middle = nn.Sequential(
            replicate_conv(hidden, kernel),
            BatchNorm(hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            replicate_conv(hidden, kernel),
            BatchNorm(hidden),
        )
        self.end = nn.Sequential(
            nn.ReLU(), nn.Dropout(dropout), nn.Conv2d(hidden, n_classes, 1, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [B, K, H, W] from the logits of all levels, one after another."""
        a = self.begin(x)
        return self.end(a + self.middle(a))


def replicate_conv(channels: int, kernel: int) -> nn.Conv2d:
    """Return a convolution without bias whose borders repeat the outermost pixels."""
    return nn.Conv2d(
        channels,
        channels,
        kernel,
        padding=kernel // 2,
        padding_mode="replicate",
        bias=False,
    )
