"""Label levels for any network: heads for coarser levels, and a refinement of the finest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from torch import Tensor

from model.networks.base import Network, SeriesNetwork
from model.networks.convstar import Refinement

Heads = Literal["plain", "refined"]


class HierarchicalHead(Network):
    """A network with outputs for coarser label levels beside those of the finest.

    Follows the heads and the refinement of Turkoglu et al. (2021), arXiv 2102.08820, for any
    backbone. Different here: all heads stand on the same features, the backbone's last, where the
    source takes the coarser ones from earlier layers.

    Parameters
    ----------
    backbone : Network
        Its outputs are those of all levels, one after another, coarsest first.
    sizes : sequence of int
        Outputs per level, coarsest first, the finest last.
    heads : {"plain", "refined"}
        Whether the logits of the finest level are refined by those of all levels: by 3 × 3
        convolutions on windows, by dense layers on series, whose pixels know no neighbours.
    dropout : float
        In the refinement.
    """

    def __init__(
        self,
        backbone: Network,
        sizes: Sequence[int],
        heads: Heads = "plain",
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        if heads not in ("plain", "refined"):
            raise ValueError(f"heads '{heads}' are unknown; use plain or refined")
        self.backbone, self.sizes = backbone, list(sizes)
        series = isinstance(backbone, SeriesNetwork)
        self.refine = (
            Refinement(sum(sizes), sizes[-1], dropout, kernel=1 if series else 3)
            if heads == "refined"
            else None
        )
        self.stride, self.causal = backbone.stride, backbone.causal
        self.window_sensitive = backbone.window_sensitive
        self.halo = backbone.halo + (2 if self.refine is not None and not series else 0)

    def forward(self, *inputs: Tensor | None, **named: Tensor | None) -> Tensor:
        """Return the logits of the finest level, refined if there is a refinement.

        Takes what the backbone takes.
        """
        return self.levels(*inputs, **named)[-1]

    def levels(self, *inputs: Tensor | None, **named: Tensor | None) -> tuple[Tensor, ...]:
        """Return the logits of each level, coarsest first; of refined heads those as well, last.

        Takes what the backbone takes.

        Returns
        -------
        tuple of float [B, K of the level, ...]
        """
        logits = self.backbone(*inputs, **named)
        scores = logits.split(self.sizes, dim=1)
        if self.refine is None:
            return scores
        places = (1,) * max(0, 4 - logits.ndim)
        added = self.refine(logits.reshape(*logits.shape, *places))
        return *scores, scores[-1] + added.reshape(scores[-1].shape)

    def example(self, batch: int, c_in: int, dates: int) -> dict[str, Tensor]:
        """Return random inputs of the backbone."""
        return self.backbone.example(batch, c_in, dates)
