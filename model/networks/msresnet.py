"""MSResNet: three residual branches of different kernels over a stretched series."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from model.networks.base import BatchNorm, SeriesNetwork, compact

#: Samples that every series is stretched to.
SAMPLES = 512


class MSResNet(SeriesNetwork):
    """A stem and three branches of residual blocks with kernels 3, 5 and 7.

    Follows the network of Rußwurm et al. (2020), arXiv 1905.11893, after Wang et al.'s multi-scale
    residual network. A batch of one series works here.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    width : int
        Channels of the stem; the blocks have 1, 2 and 4 times as many.

    Notes
    -----
    The valid dates of a series, whatever their number, are stretched to 512 samples by taking the
    nearest one: invalid dates leave no trace.
    """

    time_layers = ("stem", "branches")

    def __init__(self, c_in: int, n_classes: int, width: int = 32) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv1d(c_in, width, 7, stride=2, padding=3, bias=False),
            BatchNorm(width),
            nn.ReLU(),
            nn.MaxPool1d(3, stride=2, padding=1),
        )
        widths = (width, width, 2 * width, 4 * width)
        self.branches = nn.ModuleList(
            nn.Sequential(*(Residual(i, o, k) for i, o in pairwise(widths))) for k in (3, 5, 7)
        )
        self.head = nn.Linear(3 * widths[-1], n_classes)

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        x = self.stem(stretch(*compact(x, valid)[:2]))
        return self.head(torch.cat([branch(x).mean(dim=2) for branch in self.branches], dim=1))


class Residual(nn.Module):
    """Two convolutions that halve the length, beside a 1 × 1 convolution that does.

    Every convolution is padded by 1, as in the source: with kernels of 5 and 7 the main path gets
    shorter, and the shortcut is cut to its length at the end.
    """

    def __init__(self, c_in: int, c_out: int, k: int) -> None:
        super().__init__()
        self.main = nn.Sequential(
            nn.Conv1d(c_in, c_out, k, stride=2, padding=1, bias=False),
            BatchNorm(c_out),
            nn.ReLU(),
            nn.Conv1d(c_out, c_out, k, padding=1, bias=False),
            BatchNorm(c_out),
        )
        self.shortcut = nn.Sequential(
            nn.Conv1d(c_in, c_out, 1, stride=2, bias=False), BatchNorm(c_out)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return [N, C', about T / 2] from [N, C, T]."""
        main = self.main(x)
        return (main + self.shortcut(x)[..., : main.shape[-1]]).relu()


def stretch(x: Tensor, lengths: Tensor) -> Tensor:
    """Return [N, C, 512] from the first `lengths` dates of x [N, C, T]: the nearest one of each."""
    steps = torch.arange(SAMPLES, device=x.device)
    source = steps * lengths[:, None] // SAMPLES
    return x.gather(2, source[:, None].expand(-1, x.shape[1], -1))
