"""The hybrid: a temporal CNN on every pixel, then a U-Net over what it found.

Source: Setaro, Coursimaux and Placier (2025), crop identification from monthly Sentinel-2
composites of the French land parcel register.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
from torch import Tensor, nn

from model.networks.base import SERIES, Network
from model.networks.cpu import TemporalConv, relu_dropout
from model.networks.unet import UNet, Widths

Pool = Literal["max", "mean", "attention"]


class HybridTemporalUNet(Network):
    """Per-pixel temporal convolutions, pooled over time, then a U-Net.

    Parameters
    ----------
    c_in : int
        Bands, C.
    n_classes : int
        Outputs, K.
    k : int
        Length of the temporal kernels in dates, odd; 5 or 3 in the source.
    d : int
        Channels of the temporal encoder.
    widths : {"reference", "lite"}
        Which U-Net: the source's (13.4 M parameters) or one of 0.49 M.
    temporal_pool : {"max", "mean", "attention"}
        How the dates of a pixel become one vector.
    dropout : float
        After each temporal block.

    Attributes
    ----------
    stride, halo, window_sensitive
        See `model.networks.unet.UNet`; the temporal encoder looks at one pixel only.

    Notes
    -----
    Dates without a valid value are zeroed before each convolution, exactly like the padding at the
    ends of the series, and are left out of the pooling: appending invalid dates, or changing what
    stands in them, changes nothing. A pixel without any valid date has all-zero features.
    """

    time_layers = ("temporal",)

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        k: int = 5,
        d: int = 64,
        widths: Widths = "lite",
        temporal_pool: Pool = "max",
        dropout: float = 0.3,
    ) -> None:
        super().__init__()
        if k < 1 or k % 2 == 0:
            raise ValueError(f"k = {k}: a temporal kernel needs an odd number of dates, such as 5")
        self.temporal = TemporalEncoder(c_in, k, d, temporal_pool, dropout)
        self.unet = UNet(d, n_classes, widths)
        self.stride = self.unet.stride
        self.halo = self.unet.halo
        self.window_sensitive = self.unet.window_sensitive

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, H, W]
            Standardised reflectance.
        valid : bool [B, T, H, W], optional
            Where there is data; default everywhere.
        doy : int [B, T], optional
            Not used: the order of the months is what this network knows about time.

        Returns
        -------
        float [B, K, H, W]
        """
        return self.unet(self.temporal(x, valid))


class TemporalEncoder(nn.Module):
    """Two temporal convolutions on each pixel's series, then pooling over time.

    The convolutions are (k, 1) kernels on [B, C, T, H·W], which gives the numbers of a Conv1d on
    [B·H·W, C, T] without ever building that array. A checkpoint of the Conv1d form loads as it is.
    """

    #: Convolution and norm that follow each other, see `model.networks.folding`.
    folds = (("conv1", "bn1"), ("conv2", "bn2"))

    def __init__(self, c_in: int, k: int, d: int, pool: Pool, dropout: float) -> None:
        super().__init__()
        if pool not in ("max", "mean", "attention"):
            raise ValueError(f"temporal_pool '{pool}' is unknown; use max, mean or attention")
        self.conv1 = TemporalConv(c_in, d, k)
        self.bn1 = nn.BatchNorm2d(d)
        self.conv2 = TemporalConv(d, d, k)
        self.bn2 = nn.BatchNorm2d(d)
        self.score = nn.Conv2d(d, 1, 1) if pool == "attention" else None
        self.d, self.pool = d, pool
        self.dropout = dropout
        self.register_load_state_dict_pre_hook(_accept_conv1d)
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return features [B, d, H, W] from x [B, C, T, H, W] and valid [B, T, H, W]."""
        b, c, t, h, w = x.shape
        series = x.reshape(b, c, t, h * w)
        mask = None if valid is None else valid.reshape(b, t, h * w)
        # In training the statistics of a batch are taken over all of it, so it stays whole; an
        # exported graph has no loops.
        whole = self.training or torch.compiler.is_compiling()
        size = h * w if whole else max(1, SERIES // b)
        parts = [
            self.encode(
                series[..., i : i + size], None if mask is None else mask[..., i : i + size]
            )
            for i in range(0, h * w, size)
        ]
        # [B, H·W, d] is channels_last for the U-Net without a copy.
        features = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        return features.reshape(b, h, w, -1).permute(0, 3, 1, 2)

    def encode(self, x: Tensor, valid: Tensor | None = None) -> Tensor:
        """Return features [B, N, d] of N pixels, from x [B, C, T, N] and valid [B, T, N]."""
        mask = None
        # A graph that is traced once must hold for any mask.
        if valid is not None and (torch.compiler.is_compiling() or not bool(valid.all())):
            mask = valid[:, None]
            x = x.masked_fill(~mask, 0)
        x = x.contiguous(memory_format=torch.channels_last)
        for conv, norm in ((self.conv1, self.bn1), (self.conv2, self.bn2)):
            x = relu_dropout(norm(conv(x)), self.dropout, self.training)
            if mask is not None:
                x = x * mask
        return self._pool(x, mask)

    def _pool(self, x: Tensor, mask: Tensor | None) -> Tensor:
        b, d, t, n = x.shape
        # After the ReLU nothing is negative, so dates zeroed by the mask never win a maximum.
        by_date = x.permute(0, 2, 3, 1)  # [B, T, N, d], contiguous in channels_last
        if self.pool == "max":
            return by_date.reshape(b, t, n * d).amax(dim=1).view(b, n, d)
        if self.pool == "mean":
            dates = t if mask is None else mask.sum(dim=2).clamp(min=1).view(b, n, 1)
            return by_date.sum(dim=1) / dates
        return (by_date * self._attention(x, mask).permute(0, 2, 3, 1)).sum(dim=1)

    def _attention(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Return weights [B, 1, T, N] that sum to 1 over the valid dates."""
        assert self.score is not None  # noqa: S101  (set by the constructor for this pool)
        score = self.score(x).float()
        if mask is not None:
            score = score.masked_fill(~mask, torch.finfo(score.dtype).min)
        return score.softmax(dim=2).to(x.dtype)


def _accept_conv1d(module: nn.Module, state: dict[str, Any], prefix: str, *_unused: object) -> None:
    """Give Conv1d weights [out, in, k] of a checkpoint their trailing axis."""
    for name in ("conv1.weight", "conv2.weight"):
        weight = state.get(prefix + name)
        if weight is not None and weight.ndim == 3:
            state[prefix + name] = weight.unsqueeze(-1)
