"""Temperature scaling: one number that makes a model as sure as it is right."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

from model.metrics import IGNORE

if TYPE_CHECKING:
    from model.artefact import Predictor

#: Smallest probability that a logarithm is taken of.
_TINY = 1e-30


def tempered(probabilities: np.ndarray, temperature: float, axis: int = 1) -> np.ndarray:
    """Return probabilities whose logits are divided by a temperature.

    Parameters
    ----------
    probabilities : float
        Classes along `axis`; NaN stays NaN. Logits are logarithms of them, but for a constant.
    temperature : float
        Above 1 less sure, below 1 surer, 1 as they are. The likeliest class stays the same.

    Returns
    -------
    float32
        Of the same shape.
    """
    if temperature == 1:
        return probabilities
    logits = np.log(np.maximum(probabilities, _TINY)) / temperature
    logits -= logits.max(axis=axis, keepdims=True)
    powers = np.exp(logits)
    scaled: np.ndarray = powers / powers.sum(axis=axis, keepdims=True)
    return scaled.astype(np.float32, copy=False)


def fit_temperature(probabilities: np.ndarray, truth: np.ndarray) -> float:
    """Return the temperature with the smallest log loss.

    Parameters
    ----------
    probabilities : float [N, K]
        Rows with NaN are left out.
    truth : int [N]
        Class index; 255 is left out.

    Returns
    -------
    float
        1 when nothing is left.

    Notes
    -----
    Guo et al. (2017), On calibration of modern neural networks, arXiv 1706.04599. L-BFGS on the
    logarithm of the inverse temperature, in which the loss has one minimum.
    """
    known = (truth != IGNORE) & ~np.isnan(probabilities[:, 0])
    if not known.any():
        return 1.0
    logits = torch.from_numpy(np.maximum(probabilities[known], _TINY).astype(np.float64)).log()
    target = torch.from_numpy(truth[known].astype(np.int64))
    sharpness = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimiser = torch.optim.LBFGS([sharpness], max_iter=50, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        value = torch.nn.functional.cross_entropy(logits * sharpness.exp(), target)
        value.backward()
        return value

    optimiser.step(loss)
    # A model that is always right would be made infinitely sure.
    return float((-sharpness.detach()).exp().clamp(0.05, 20.0))


class TemperedPredictor:
    """A predictor whose probabilities are calibrated.

    Parameters
    ----------
    inner : Predictor
    temperature : float
        See `tempered`.
    """

    def __init__(self, inner: Predictor, temperature: float) -> None:
        self.inner, self.temperature = inner, temperature
        self.halo, self.stride, self.block = inner.halo, inner.stride, inner.block

    def probabilities(
        self, reflectance: np.ndarray, wanted: np.ndarray | None = None
    ) -> np.ndarray:
        """Return float32 [K, y, x]; see `model.artefact.Predictor`."""
        return tempered(self.inner.probabilities(reflectance, wanted), self.temperature, axis=0)
