"""Transformer encoders on the series of a pixel, with and without a notion of dates."""

from __future__ import annotations

from torch import Tensor, nn

from model.networks.attention import PostNormBlock, sinusoid
from model.networks.base import SeriesNetwork, days, masked_max


class RawTransformer(SeriesNetwork):
    """Self-attention over raw, irregular series.

    Follows Rußwurm and Körner (2020), ISPRS Journal 169, arXiv 1910.10536, in the sizes of their
    tuned run. Different here: dates are known by their day of the year, not by their number in the
    series; all dates are used, at test as well, instead of a random draw; invalid ones are masked.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    d, heads, layers : int
        Width of a date's token, heads (of size ``d // heads``) and number of layers.
    dropout : float
        On both branches of each layer; the attention weights have 0.1.
    """

    time_layers = ("blocks",)

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        d: int = 128,
        heads: int = 3,
        layers: int = 3,
        dropout: float = 0.262,
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(c_in), nn.Linear(c_in, d), nn.LayerNorm(d))
        self.blocks = nn.ModuleList(
            PostNormBlock(d, heads, d // heads, 4 * d, dropout, 0.1) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, n_classes, bias=False)
        self.d = d

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        tokens = self.embed(x.transpose(1, 2))
        tokens = tokens + sinusoid(days(doy, "RawTransformer"), self.d, 10_000).to(tokens)
        for block in self.blocks:
            tokens = block(tokens, valid)
        return self.head(masked_max(self.norm(tokens), valid[..., None], dim=1))


class OrderFreeTransformer(SeriesNetwork):
    """Self-attention without any code of position: the order of the dates does not matter.

    Follows the transformer of Rußwurm et al. (2020), arXiv 1905.11893.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    d, heads, layers, hidden : int
        Width of a date's token, number of heads and layers, width of the layers' inside.
    dropout : float
        On the attention weights and on both branches of each layer.
    """

    time_layers = ("blocks",)

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        d: int = 64,
        heads: int = 2,
        layers: int = 5,
        hidden: int = 128,
        dropout: float = 0.018,
    ) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.Linear(c_in, d), nn.ReLU())
        self.blocks = nn.ModuleList(
            PostNormBlock(d, heads, d // heads, hidden, dropout, dropout) for _ in range(layers)
        )
        self.norm = nn.LayerNorm(d)
        self.head = nn.Linear(d, n_classes)

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        tokens = self.embed(x.transpose(1, 2))
        for block in self.blocks:
            tokens = block(tokens, valid)
        return self.head(masked_max(self.norm(tokens), valid[..., None], dim=1).relu())
