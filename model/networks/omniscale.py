"""OmniScaleCNN: convolutions of all prime lengths, so that every scale is covered."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.networks.base import BatchNorm, SeriesNetwork, keep, masked_mean


class OmniScaleCNN(SeriesNetwork):
    """Three stages of parallel convolutions over the series, then the mean over dates.

    Follows Tang et al. (2022), arXiv 2002.10061, with the parameter budgets of Rußwurm et al.
    (2020), arXiv 1905.11893.

    Parameters
    ----------
    c_in, n_classes, dates : int
        Bands C, outputs K, dates T; the kernels are 1 and the primes up to a quarter of T.

    Notes
    -----
    Series of any length are accepted. Invalid dates are zeroed before each convolution, exactly
    like the padding at the ends, and left out of the mean.
    """

    time_layers = ("stages",)

    def __init__(self, c_in: int, n_classes: int, dates: int) -> None:
        super().__init__()
        kernels = [1, *primes(dates // 4)]
        total = sum(kernels)
        first = max(1, 1024 // (c_in * total))
        second = max(1, 229_376 // (first * len(kernels) * total))
        third = len(kernels) * max(1, 1024 // total)
        self.stages = nn.ModuleList(
            [
                Stage(c_in, first, kernels),
                Stage(first * len(kernels), second, kernels),
                Stage(second * len(kernels), third, [1, 2]),
            ]
        )
        self.head = nn.Linear(2 * third, n_classes)

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """See `SeriesNetwork.classify`."""
        for stage in self.stages:
            x = keep(stage(x, valid), valid)
        return self.head(masked_mean(x, valid[:, None], dim=2))


class Stage(nn.Module):
    """Convolutions of several lengths side by side, batch normalisation, ReLU."""

    def __init__(self, c_in: int, filters: int, kernels: Sequence[int]) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv1d(c_in, filters, k) for k in kernels)
        self.norm = BatchNorm(filters * len(kernels))
        self.kernels = tuple(kernels)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Return [N, filters · kernels, T] from x [N, C, T] and valid [N, T]."""
        paths = [
            conv(F.pad(x, ((k - 1) // 2, k // 2)))
            for conv, k in zip(self.convs, self.kernels, strict=True)
        ]
        return self.norm(torch.cat(paths, dim=1), valid).relu()


def primes(last: int) -> list[int]:
    """Return the prime numbers up to and including `last`."""
    return [n for n in range(2, last + 1) if all(n % d for d in range(2, n))]
