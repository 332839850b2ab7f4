"""L-TAE: lightweight temporal attention, a learned question per head instead of one per date."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.attention import attention_bias, sinusoid
from model.networks.base import BatchNorm, SeriesNetwork, days

#: Channels of the attention, heads, and the longest wave of the code of days, as published.
D, HEADS, BASE = 256, 16, 1000.0


class MasterQuery(nn.Module):
    """Attention over dates with one learned query per head, and values that are channel groups.

    Parameters
    ----------
    d, heads, d_k : int
        Channels, number of heads (each takes its own d / heads channels), width of the keys.
    dropout : float
        On the attention weights.
    """

    def __init__(self, d: int, heads: int, d_k: int, dropout: float = 0.1) -> None:
        super().__init__()
        self.query = nn.Parameter(torch.empty(heads, d_k))
        self.key = nn.Linear(d, heads * d_k)
        nn.init.normal_(self.query, std=(2 / d_k) ** 0.5)
        nn.init.normal_(self.key.weight, std=(2 / d_k) ** 0.5)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return [N, d] and the weights [N, heads, T] from x [N, T, d] and valid [N, T]."""
        heads, d_k = self.query.shape
        keys = self.key(x).unflatten(-1, (heads, d_k))
        score = torch.einsum("hk,nthk->nht", self.query, keys).float() / d_k**0.5
        weights = (score + attention_bias(valid, score.dtype)[:, None]).softmax(dim=-1)
        # Without any valid date all weights would be equal; nothing was seen, so nothing counts.
        weights = self.dropout((weights * valid[:, None]).to(x.dtype))
        values = x.unflatten(-1, (heads, -1))
        return torch.einsum("nht,nthv->nhv", weights, values).flatten(1), weights


class LTAE(nn.Module):
    """The encoder: [N, T, C] → [N, 128].

    Follows Garnot and Landrieu (2020), arXiv 2007.00586. Different here: the position of a date is
    its day of the year, and invalid dates are masked.

    Parameters
    ----------
    c_in : int
        Channels C.
    dates : int, optional
        The source normalises over channels and dates together, which ties the weights to a number
        of dates; give it for that. Default: over channels alone, for series of any length.
    """

    def __init__(self, c_in: int, dates: int | None = None) -> None:
        super().__init__()
        self.embed = nn.Sequential(nn.LayerNorm(c_in), nn.Linear(c_in, D))
        self.norm = nn.LayerNorm(D if dates is None else (dates, D))
        self.attention = MasterQuery(D, HEADS, 8)
        self.mlp = nn.Sequential(
            nn.Linear(D, 128), BatchNorm(128), nn.ReLU(), nn.Dropout(0.2), nn.LayerNorm(128)
        )
        self.dates = dates

    def forward(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """Return [N, 128] from x [N, T, C], valid [N, T] and doy [N, T]."""
        tokens = self._normalise(self.embed(x), valid)
        tokens = tokens + head_code(days(doy, "L-TAE")).to(tokens)
        mixed, _ = self.attention(tokens * valid[..., None], valid)
        return self.mlp(mixed)

    def _normalise(self, tokens: Tensor, valid: Tensor) -> Tensor:
        if self.dates is None:
            return self.norm(tokens)
        found = tokens.shape[1]
        if found > self.dates:
            raise ValueError(
                f"this L-TAE was made for {self.dates} dates and got {found}; use the preset "
                "that takes any number, or train one for the longer series"
            )
        tokens = F.pad(tokens * valid[..., None], (0, 0, 0, self.dates - found))
        return self.norm(tokens)[:, :found]


class PixelLTAE(SeriesNetwork):
    """L-TAE on the series of a pixel, and a decoder 128-64-32-K.

    Follows Garnot and Landrieu (2020), arXiv 2007.00586, without their pixel-set encoder; see
    `LTAE` for the differences.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    """

    time_layers = ("encoder",)

    def __init__(self, c_in: int, n_classes: int) -> None:
        super().__init__()
        self.encoder = LTAE(c_in)
        self.head = decoder(n_classes)

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        return self.head(self.encoder(x.transpose(1, 2), valid, doy))


def decoder(n_classes: int) -> nn.Sequential:
    """Return the classifier 128-64-32-K of the L-TAE papers."""
    return nn.Sequential(
        nn.Linear(128, 64),
        BatchNorm(64),
        nn.ReLU(),
        nn.Linear(64, 32),
        BatchNorm(32),
        nn.ReLU(),
        nn.Linear(32, n_classes),
    )


def head_code(doy: Tensor) -> Tensor:
    """Return the code [N, T, 256] of days: 16 channels, the same for each head."""
    return sinusoid(doy, D // HEADS, BASE).repeat(1, 1, HEADS)
