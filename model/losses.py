"""Losses over pixels, and weights against the long tail of crops."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Label of a pixel that counts for nothing.
IGNORE = 255

Scheme = Literal["none", "sqrt", "effective"]


def class_weights(
    counts: np.ndarray, scheme: Scheme = "none", *, beta: float | None = None
) -> np.ndarray:
    """Return a weight per class, with mean 1 over the pixels they are made for.

    Parameters
    ----------
    counts : int [K]
        Training pixels of each class.
    scheme : {"none", "sqrt", "effective"}
        All equal; 1 / sqrt(count); or 1 / effective number of samples,
        ``(1 - beta^n) / (1 - beta)`` of Cui et al. (2019), arXiv 1901.05555.
    beta : float, optional
        For ``effective``, from 0 (all equal) to below 1 (towards 1 / count). The paper reads it
        as (N - 1) / N with N the number of samples that say something new. Default: N is the mean
        count of the classes present, so that classes are told apart whatever the size of the data;
        with a fixed 0.999 and millions of pixels they would all weigh the same.

    Returns
    -------
    float32 [K]
        Absent classes get 0. The mean over training pixels is 1, so a learning rate means the
        same under each scheme.

    Raises
    ------
    ValueError
        If the scheme is unknown, beta is out of range, a count is negative, or no class has a
        pixel.
    """
    counts = np.asarray(counts, dtype=np.float64)
    present = counts > 0
    if scheme not in get_args(Scheme):
        known = ", ".join(get_args(Scheme))
        raise ValueError(f"unknown class weights '{scheme}'; choose one of {known}")
    if counts.ndim != 1 or (counts < 0).any() or not present.any():
        raise ValueError(f"class counts must be [K], not negative and not all 0; got {counts}")
    weights = np.zeros(len(counts))
    weights[present] = _raw_weights(counts[present], scheme, beta)
    return (weights / np.average(weights, weights=counts)).astype(np.float32)


def _raw_weights(counts: np.ndarray, scheme: Scheme, beta: float | None) -> np.ndarray:
    if scheme == "none":
        return np.ones(len(counts))
    if scheme == "sqrt":
        return counts**-0.5
    if beta is None:
        beta = 1 - 1 / max(1.0, counts.mean())
    if not 0 <= beta < 1:
        raise ValueError(f"beta = {beta}: it goes from 0 to below 1")
    return (1 - beta) / (1 - beta**counts)


class CrossEntropy(nn.Module):
    """Weighted cross-entropy over labelled pixels.

    Parameters
    ----------
    weights : float [K], optional
        Weight of each class; default all 1.

    Notes
    -----
    The mean is over labelled pixels, each counted with its weight. Where nothing is labelled the
    loss is 0 and so are its gradients (PyTorch's own mean would be 0 / 0).
    """

    weights: Tensor | None

    def __init__(self, weights: np.ndarray | None = None) -> None:
        super().__init__()
        tensor = None if weights is None else torch.as_tensor(weights, dtype=torch.float32)
        self.register_buffer("weights", tensor, persistent=False)

    def forward(self, logits: Tensor, y: Tensor) -> Tensor:
        """Return the mean loss of logits [B, K, H, W] against y int64 [B, H, W]."""
        total, weight = self.sums(logits, y)
        return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)

    def sums(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return summed loss and summed weight: adds up exactly over batches of any size."""
        total = F.cross_entropy(
            logits.float(), y, self.weights, ignore_index=IGNORE, reduction="sum"
        )
        labelled = y[y != IGNORE]
        if self.weights is None:
            return total, torch.tensor(float(labelled.numel()), device=y.device)
        return total, self.weights[labelled].sum()
