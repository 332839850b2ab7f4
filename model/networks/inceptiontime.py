"""InceptionTime: parallel convolutions of three lengths over a pixel's series."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from model.networks.base import BatchNorm, SeriesNetwork, keep, masked_mean

KERNELS = (41, 21, 11)


class InceptionTime(SeriesNetwork):
    """Six inception modules with a residual connection around each three.

    Follows Ismail Fawaz et al. (2020), arXiv 1909.04939, in the sizes that Rußwurm et al. (2020),
    arXiv 1905.11893, chose. All layers are trained here, which the published code of the latter
    did not do.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    width : int
        Channels of each of the four paths of a module.

    Notes
    -----
    Invalid dates are zeroed before each convolution, exactly like the padding at the ends, and
    left out of maxima and of the final mean.
    """

    time_layers = ("blocks",)

    def __init__(self, c_in: int, n_classes: int, width: int = 32) -> None:
        super().__init__()
        out = 4 * width
        self.blocks = nn.ModuleList(
            Inception(out if number else c_in, width) for number in range(6)
        )
        self.shortcuts = nn.ModuleList(nn.Conv1d(c, out, 1, bias=False) for c in (c_in, out))
        self.shortcut_norms = nn.ModuleList(BatchNorm(out) for _ in range(2))
        self.head = nn.Linear(out, n_classes)

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        for group in range(2):
            before = x
            for block in self.blocks[3 * group : 3 * group + 3]:
                x = block(x, valid)
            shortcut = self.shortcut_norms[group](self.shortcuts[group](before), valid)
            x = keep((x + shortcut).relu(), valid)
        return self.head(masked_mean(x, valid[:, None], dim=2))


class Inception(nn.Module):
    """Three convolutions behind a bottleneck, and a maximum filter, side by side."""

    def __init__(self, c_in: int, width: int) -> None:
        super().__init__()
        self.bottleneck = nn.Conv1d(c_in, width, 1, bias=False)
        self.convs = nn.ModuleList(
            nn.Conv1d(width, width, k, padding=k // 2, bias=False) for k in KERNELS
        )
        self.pooled = nn.Conv1d(c_in, width, 1, bias=False)
        self.norm = BatchNorm(4 * width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return [N, 4 · width, T] from x [N, C, T] and valid [N, T], zero where invalid."""
        narrow = self.bottleneck(x)
        lowest = torch.finfo(x.dtype).min
        highest = nn.functional.max_pool1d(x.masked_fill(~valid[:, None], lowest), 3, 1, 1)
        paths = [conv(narrow) for conv in self.convs]
        paths.append(self.pooled(keep(highest, valid)))
        return keep(self.norm(torch.cat(paths, dim=1), valid).relu(), valid)
