"""Losses over labelled pixels, and what helps against the long tail of crops."""

from __future__ import annotations

from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

#: Label of a pixel that counts for nothing.
IGNORE = 255

Scheme = Literal["none", "sqrt", "effective", "inverse"]


def class_weights(
    counts: np.ndarray, scheme: Scheme = "none", *, beta: float | None = None
) -> np.ndarray:
    """Return a weight per class, with mean 1 over the pixels they are made for.

    Parameters
    ----------
    counts : int [K]
        Training pixels of each class.
    scheme : {"none", "sqrt", "effective", "inverse"}
        All equal; 1 / sqrt(count); 1 / effective number of samples, ``(1 - beta^n) / (1 - beta)``
        of Cui et al. (2019), arXiv 1901.05555; or 1 / count, which is the n_max / n_u of Weikmann,
        Paris and Bruzzone up to a factor.
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
    if scheme == "inverse":
        return 1 / counts
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
        """Return the mean loss of logits [B, K, ...] against y int64 [B, ...]."""
        return mean_loss(*self.sums(logits, y))

    def sums(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return summed loss and summed weight: adds up exactly over batches of any size."""
        total = F.cross_entropy(
            logits.float(), y, self.weights, ignore_index=IGNORE, reduction="sum"
        )
        return total, weight_of(y, self.weights)


class Focal(CrossEntropy):
    """Cross-entropy that turns away from pixels whose class is already likely.

    Follows Lin et al. (2017), arXiv 1708.02002: ``(1 - p)^gamma · -log p`` with p the probability
    of the true class.

    Parameters
    ----------
    gamma : float
        0 is plain cross-entropy.
    weights : float [K], optional
        Weight of each class.
    """

    def __init__(self, gamma: float = 2.0, weights: np.ndarray | None = None) -> None:
        super().__init__(weights)
        if gamma < 0:
            raise ValueError(f"gamma = {gamma}: focal loss takes 0 (plain cross-entropy) or more")
        self.gamma = gamma

    def sums(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return summed loss and summed weight, as `CrossEntropy.sums`."""
        logits = logits.float()
        surprise = F.cross_entropy(logits, y, ignore_index=IGNORE, reduction="none")
        # Below gamma = 1 the gradient of the factor is without bound where p is 1.
        doubt = (-torch.expm1(-surprise)).clamp(min=1e-6)
        each = doubt**self.gamma * surprise
        if self.weights is not None:
            each = each * self.weights[y.masked_fill(y == IGNORE, 0)]
        return each.masked_fill(y == IGNORE, 0).sum(), weight_of(y, self.weights)


class LogitAdjusted(CrossEntropy):
    """Cross-entropy that is told how frequent the classes are, so that the logits need not know.

    Follows Menon et al. (2021), arXiv 2007.07314: ``tau · log(prior)`` is added to the logits in
    the loss only, and the bare logits classify as if all classes were equally frequent.

    Parameters
    ----------
    counts : int [K]
        Training labels per class, from which the priors are.
    tau : float
        Strength; 0 is plain cross-entropy.
    weights : float [K], optional
        Weight of each class.

    Notes
    -----
    A class without training labels has no logarithm of a prior. It counts as one of prior 1, so
    that its logits are pushed below those of all others, as plain cross-entropy does.
    """

    adjustment: Tensor

    def __init__(
        self, counts: np.ndarray, tau: float = 1.0, weights: np.ndarray | None = None
    ) -> None:
        super().__init__(weights)
        counts = np.asarray(counts, dtype=np.float64)
        if tau < 0:
            raise ValueError(f"tau = {tau}: logit adjustment takes 0 (none) or more")
        prior = np.where(counts > 0, counts / max(counts.sum(), 1), 1.0)
        adjustment = torch.as_tensor(tau * np.log(prior), dtype=torch.float32)
        self.register_buffer("adjustment", adjustment, persistent=False)

    def sums(self, logits: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Return summed loss and summed weight, as `CrossEntropy.sums`."""
        shift = self.adjustment.reshape(-1, *(1,) * (logits.ndim - 2))
        return super().sums(logits.float() + shift, y)


def weight_of(y: Tensor, weights: Tensor | None) -> Tensor:
    """Return the summed weight of the labelled pixels of y; weights [K], or None for all 1."""
    labelled = y[y != IGNORE]
    if weights is None:
        return torch.tensor(float(labelled.numel()), device=y.device)
    return weights[labelled].sum()


def mean_loss(total: Tensor, weight: Tensor) -> Tensor:
    """Return total / weight, and 0 where nothing weighs anything."""
    return total / weight.clamp(min=torch.finfo(weight.dtype).tiny)
