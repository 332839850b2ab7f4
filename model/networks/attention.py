"""Self-attention that leaves invalid dates out, and the two usual blocks around it."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head self-attention.

    Parameters
    ----------
    d, heads, head_size : int
        Width of the tokens, number of heads, width of each.
    qkv_bias : bool
        Whether queries, keys and values have biases; the output always has one.
    dropout : float
        On the attention weights.
    """

    def __init__(
        self, d: int, heads: int, head_size: int, qkv_bias: bool = True, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.qkv = nn.Linear(d, 3 * heads * head_size, bias=qkv_bias)
        self.out = nn.Linear(heads * head_size, d)
        self.heads, self.dropout = heads, dropout

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return tokens [N, L, d] from x [N, L, d].

        Only the tokens in valid [N, L] are seen; with valid [N, L, L], by each token those of its
        row.
        """
        q, k, v = self.qkv(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        p = self.dropout if self.training else 0.0
        bias = None
        if valid is not None:
            seen = valid if valid.ndim == 3 else valid[:, None]
            bias = attention_bias(seen, q.dtype)[:, None]
        mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, dropout_p=p)
        return self.out(mixed.transpose(1, 2).flatten(2))


class PostNormBlock(nn.Module):
    """Attention and a ReLU layer, each with dropout, a residual and then layer norm."""

    def __init__(
        self,
        d: int,
        heads: int,
        head_size: int,
        hidden: int,
        dropout: float,
        attention_dropout: float,
    ) -> None:
        super().__init__()
        self.attention = Attention(d, heads, head_size, dropout=attention_dropout)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.ReLU(), nn.Linear(hidden, d))
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return tokens [N, L, d]."""
        x = self.norm1(x + self.dropout(self.attention(x, valid)))
        return self.norm2(x + self.dropout(self.mlp(x)))


class PreNormBlock(nn.Module):
    """Layer norm before attention without query, key and value biases, and before a GELU layer."""

    def __init__(self, d: int, heads: int, head_size: int, hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(d), nn.LayerNorm(d)
        self.attention = Attention(d, heads, head_size, qkv_bias=False)
        self.mlp = nn.Sequential(nn.Linear(d, hidden), nn.GELU(), nn.Linear(hidden, d))

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return tokens [N, L, d]."""
        x = x + self.attention(self.norm1(x), valid)
        return x + self.mlp(self.norm2(x))


def attention_bias(valid: Tensor, dtype: torch.dtype) -> Tensor:
    """Return what to add to scores so that only valid places count.

    Finite, not -inf: where nothing is valid the weights are then equal instead of 0 / 0.
    """
    return torch.zeros_like(valid, dtype=dtype).masked_fill(~valid, torch.finfo(dtype).min / 2)


def sinusoid(position: Tensor, d: int, base: float) -> Tensor:
    """Return the code of positions: sines at even, cosines at odd channels.

    Parameters
    ----------
    position : int [N, T]
        Days, or numbers of dates.
    d : int
        Channels, even.
    base : float
        Longest wave, in 2π positions (10 000 in Vaswani et al., 2017, arXiv 1706.03762).

    Returns
    -------
    float32 [N, T, d]
    """
    channels = torch.arange(0, d, 2, device=position.device)
    angle = position.unsqueeze(-1).float() / base ** (channels.float() / d)
    return torch.stack([angle.sin(), angle.cos()], dim=-1).flatten(-2)
