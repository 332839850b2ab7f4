"""U-TAE: a U-Net on each date, whose dates are weighed by attention at its lowest level."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.base import BatchNorm, Network, days, everywhere, per_date
from model.networks.ltae import HEADS, D, MasterQuery, head_code
from model.networks.reach import conv, down4, halo, up4

#: Channels of the encoder from full resolution down, and of the decoder from the bottom up.
DOWN, UP = (64, 64, 64, 128), (64, 32, 32)


class UTAE(Network):
    """U-Net with temporal attention encoder.

    Follows Garnot and Landrieu (2021), ICCV, arXiv 2107.07933. Different here: the output is the
    plain logits (the source ends in batch normalisation and ReLU, so that scores are never
    negative); the position of a date is its day of the year; invalid dates are left out everywhere,
    also from the statistics of the normalisation before the attention.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.

    Notes
    -----
    Each date is encoded once, by itself. The group normalisation of the encoder is over the whole
    window, so its size matters a little.
    """

    time_layers = ("attention",)
    stride = 8
    halo = halo([conv(2), *[conv(2), up4] * 3, *[conv(2), down4] * 3, conv(2)], 8)
    window_sensitive = True

    def __init__(self, c_in: int, n_classes: int) -> None:
        super().__init__()
        self.begin = nn.Sequential(_grouped(c_in, DOWN[0]), _grouped(DOWN[0], DOWN[0]))
        self.down = nn.ModuleList(Down(i, o) for i, o in pairwise(DOWN))
        self.attention = WindowAttention(DOWN[-1])
        below = (DOWN[-1], *UP)
        self.up = nn.ModuleList(
            Up(b, s, o) for b, s, o in zip(below, DOWN[-2::-1], UP, strict=False)
        )
        self.head = nn.Sequential(
            nn.Conv2d(UP[-1], 32, 3, padding=1, padding_mode="reflect"),
            BatchNorm(32),
            nn.ReLU(),
            nn.Conv2d(32, n_classes, 3, padding=1, padding_mode="reflect"),
        )

    def forward(self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None) -> Tensor:
        """Return logits.

        Parameters
        ----------
        x : float [B, C, T, H, W]
            Standardised reflectance; H and W multiples of 8, at least 16.
        valid : bool [B, T, H, W], optional
            Where there is data; default everywhere. A date without any is left out.
        doy : int [B, T]
            Day of the year of each date.

        Returns
        -------
        float [B, K, H, W]
        """
        if min(x.shape[-2:]) < 16 or x.shape[-2] % 8 or x.shape[-1] % 8:
            raise ValueError(
                f"a window of {x.shape[-2]} × {x.shape[-1]} px; U-TAE needs multiples of 8 px, "
                "at least 16"
            )
        x, valid = everywhere(x, valid)
        dates = valid.any(dim=(2, 3))
        maps = [per_date(self.begin, x, dates)]
        for block in self.down:
            maps.append(per_date(block, maps[-1].transpose(1, 2), dates))
        y, weights = self.attention(maps.pop(), dates, days(doy, "U-TAE"))
        for block in self.up:
            y = block(y, weigh(maps.pop(), weights))
        return self.head(y)


class WindowAttention(nn.Module):
    """L-TAE at each place of a feature map, with group instead of layer normalisation."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.norm = DateNorm(HEADS, channels)
        self.embed = nn.Linear(channels, D)
        self.query = MasterQuery(D, HEADS, 4)
        self.mlp = nn.Sequential(
            nn.Linear(D, channels), BatchNorm(channels), nn.ReLU(), nn.Dropout(0.2)
        )
        self.norm_out = nn.GroupNorm(HEADS, channels)

    def forward(self, x: Tensor, dates: Tensor, doy: Tensor) -> tuple[Tensor, Tensor]:
        """Return [B, F, h, w] and weights [B, heads, T, h, w] from x [B, T, F, h, w]."""
        b, t, f, h, w = x.shape
        places = h * w
        seen = dates[:, None].expand(b, places, t).reshape(b * places, t)
        series = x.permute(0, 3, 4, 1, 2).reshape(b * places, t, f)
        tokens = self.embed(self.norm(series, seen))
        code = head_code(doy).to(tokens)[:, None].expand(b, places, t, D)
        mixed, weights = self.query(tokens + code.reshape(b * places, t, D), seen)
        out = self.norm_out(self.mlp(mixed)).reshape(b, h, w, f).permute(0, 3, 1, 2)
        return out, weights.reshape(b, h, w, HEADS, t).permute(0, 3, 4, 1, 2)


class DateNorm(nn.Module):
    """Group normalisation over channels and dates that leaves invalid dates out."""

    def __init__(self, groups: int, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))
        self.groups = groups

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return x [N, T, F], normalised over each group of channels and the valid [N, T] dates."""
        grouped = x.unflatten(2, (self.groups, -1))
        seen = valid[..., None, None]
        count = valid.sum(dim=1).clamp(min=1)[:, None, None, None] * grouped.shape[-1]
        mean = (grouped * seen).sum(dim=(1, 3), keepdim=True) / count
        centred = (grouped - mean) * seen
        variance = centred.square().sum(dim=(1, 3), keepdim=True) / count
        normed = centred * (variance + 1e-5).rsqrt()
        return normed.flatten(2) * self.weight + self.bias


class Down(nn.Module):
    """Half the resolution by a 4 × 4 convolution, a 3 × 3 convolution, a residual one."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.downsample = _grouped(c_in, c_in, kernel=4, stride=2)
        self.conv = _grouped(c_in, c_out)
        self.residual = _grouped(c_out, c_out)

    def forward(self, x: Tensor) -> Tensor:
        """Return [n, F', H / 2, W / 2] from [n, F, H, W]."""
        x = self.conv(self.downsample(x))
        return x + self.residual(x)


class Up(nn.Module):
    """Double the resolution, join the skip, a 3 × 3 convolution and a residual one."""

    def __init__(self, c_in: int, c_skip: int, c_out: int) -> None:
        super().__init__()
        self.upsample = nn.Sequential(
            nn.ConvTranspose2d(c_in, c_out, 4, stride=2, padding=1), BatchNorm(c_out), nn.ReLU()
        )
        self.skip = nn.Sequential(nn.Conv2d(c_skip, c_skip, 1), BatchNorm(c_skip), nn.ReLU())
        self.conv = _normed(c_out + c_skip, c_out)
        self.residual = _normed(c_out, c_out)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        """Return [B, F', 2 h, 2 w] from x [B, F, h, w] and skip [B, S, 2 h, 2 w]."""
        x = self.conv(torch.cat([self.upsample(x), self.skip(skip)], dim=1))
        return x + self.residual(x)


def weigh(maps: Tensor, weights: Tensor) -> Tensor:
    """Return the dates of maps [B, T, F, H, W] summed with weights [B, heads, T, h, w].

    The weights are interpolated to H × W; each head weighs its own group of channels.
    """
    b, heads, t, h, w = weights.shape
    fine = F.interpolate(
        weights.reshape(b, heads * t, h, w), size=maps.shape[-2:], mode="bilinear"
    ).unflatten(1, (heads, t))
    return torch.einsum("bgthw,btgfhw->bgfhw", fine, maps.unflatten(2, (heads, -1))).flatten(1, 2)


def _grouped(c_in: int, c_out: int, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, kernel, stride, padding=1, padding_mode="reflect"),
        nn.GroupNorm(4, c_out),
        nn.ReLU(),
    )


def _normed(c_in: int, c_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(c_in, c_out, 3, padding=1, padding_mode="reflect"), BatchNorm(c_out), nn.ReLU()
    )
