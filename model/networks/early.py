"""Early classification: decide, date by date, whether what was seen is enough.

Source: Rußwurm et al. (2023), end-to-end learned early classification of time series for in-season
crop type mapping (ELECTS), ISPRS Journal 196, arXiv 1901.10681.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from model.losses import IGNORE, mean_loss, weight_of
from model.networks.base import SeriesNetwork
from model.networks.causal import Encoder, causal_encoder


@dataclass(frozen=True)
class Decisions:
    """What an early classifier says at each date.

    Attributes
    ----------
    logits : Tensor
        float [N, T, K], the classes as far as they can be told on that date.
    stop : Tensor
        float [N, T], the probability of deciding on that date: 0 at invalid dates, sum 1 over the
        series (0 for a series without any valid date).
    """

    logits: Tensor
    stop: Tensor

    def logits_at(self, dates: Tensor) -> Tensor:
        """Return the logits [N, K] of one date of each series; dates int [N]."""
        where = dates[:, None, None].expand(-1, 1, self.logits.shape[2])
        return self.logits.gather(1, where).squeeze(1)


class EarlyClassifier(SeriesNetwork):
    """A class head and a stop head on every date of a causal encoder.

    Follows Rußwurm et al. (2023), arXiv 1901.10681. Different here: the decision is the first date
    at which stopping so far has become likely enough, not a draw; invalid dates are never stopped
    at; training and prediction count the same dates, the first included; see also `stop_bias`.

    Parameters
    ----------
    encoder : nn.Module
        ``encoder(x [N, C, T], valid [N, T], doy [N, T]) -> [N, T, width]`` with the attribute
        ``width``; the vector of a date must not depend on later dates.
    n_classes : int
        Outputs K.
    threshold : float
        Stop at the first date by which the probability of having stopped reaches it; below 1.
    stop_bias : float
        Of the stop head before training: late at first, stopping early must be learned. The
        source has -20, where the sigmoid's gradient is below what an optimiser notices for
        thousands of steps; at -5 stopping is as good as never too.
    """

    time_layers = ("encoder", "stop")
    causal = True
    undecayed = ("stop.bias",)

    def __init__(
        self,
        encoder: nn.Module,
        n_classes: int,
        threshold: float = 0.5,
        stop_bias: float = -5.0,
    ) -> None:
        super().__init__()
        if not 0 < threshold < 1:
            raise ValueError(f"threshold = {threshold}: it is a probability between 0 and 1")
        width = int(encoder.width)  # type: ignore[arg-type]
        self.encoder = encoder
        self.head = nn.Linear(width, n_classes)
        self.stop = nn.Linear(width, 1)
        nn.init.normal_(self.stop.bias, mean=stop_bias, std=0.1)
        self.threshold = threshold

    def decisions(
        self, x: Tensor, valid: Tensor | None = None, doy: Tensor | None = None
    ) -> Decisions:
        """Return what is said at each date; arguments as in `forward`, for series [N, C, T]."""
        valid = torch.ones_like(x[:, 0], dtype=torch.bool) if valid is None else valid
        steps = self.encoder(x.masked_fill(~valid[:, None], 0), valid, doy)
        chance = self.stop(steps).squeeze(-1).float().sigmoid()
        return Decisions(self.head(steps), stop_probabilities(chance, valid))

    def classify(self, x: Tensor, valid: Tensor, doy: Tensor | None) -> Tensor:
        """Return the logits [N, K] of the date at which each series is decided."""
        found = self.decisions(x, valid, doy)
        return found.logits_at(self.date(found))

    def date(self, found: Decisions) -> Tensor:
        """Return int [N], the number of the date at which each series is decided."""
        return (found.stop.cumsum(dim=1) >= self.threshold).to(torch.uint8).argmax(dim=1)


class Elects(EarlyClassifier):
    """The network of ELECTS: an early classifier around a small causal encoder.

    Follows Rußwurm et al. (2023), arXiv 1901.10681, whose encoder is ``lstm``; see
    `EarlyClassifier` for the differences and `model.networks.causal` for the other encoders.

    Parameters
    ----------
    c_in, n_classes : int
        Bands C, outputs K.
    encoder : {"lstm", "gru", "tempcnn", "transformer"}
        What reads the series.
    threshold, stop_bias : float
        See `EarlyClassifier`.
    """

    def __init__(
        self,
        c_in: int,
        n_classes: int,
        encoder: Encoder = "lstm",
        threshold: float = 0.5,
        stop_bias: float = -5.0,
    ) -> None:
        super().__init__(causal_encoder(encoder, c_in), n_classes, threshold, stop_bias)


def stop_probabilities(chance: Tensor, valid: Tensor) -> Tensor:
    """Return the probability [N, T] of stopping at each date and not before.

    Parameters
    ----------
    chance : float [N, T]
        Probability of stopping at a date when it is reached.
    valid : bool [N, T]
        The last valid date takes what remains.
    """
    later = valid.flip(1).cumsum(dim=1).flip(1) - valid.long()
    chance = (chance * valid).masked_fill(valid & (later == 0), 1.0)
    reached = torch.cat([torch.ones_like(chance[:, :1]), 1 - chance[:, :-1]], dim=1).cumprod(dim=1)
    return chance * reached


def early_reward_loss(
    found: Decisions, valid: Tensor, y: Tensor, alpha: float = 0.5, epsilon: float = 10.0
) -> Tensor:
    """Return the loss of being wrong less the reward for being right and early.

    ``a · Σ P(t) CE(t) - (1 - a) · Σ P(t) p(t, y) (1 - t / T)``, with the sums over valid dates and
    t counting them from 0. P is smoothed by epsilon / T per date; other than in Rußwurm et al.
    (2023) it still sums to 1 afterwards.

    Parameters
    ----------
    found : Decisions
    valid : bool [N, T]
        Dates that count.
    y : int64 [N]
        Classes; 255 = ignore.
    alpha, epsilon : float
        Weight of being right against being early, and of the smoothing.

    Returns
    -------
    float, a scalar
        Mean over the labelled series; 0 where there is none.
    """
    return mean_loss(*early_reward_sums(found, valid, y, alpha, epsilon))


def early_reward_sums(
    found: Decisions,
    valid: Tensor,
    y: Tensor,
    alpha: float = 0.5,
    epsilon: float = 10.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Return summed loss and summed weight of `early_reward_loss`.

    They add up exactly over batches of any size. `weights` (float [K]) are those of the classes.
    """
    # A series without any valid date has nothing to decide on.
    y = y.masked_fill(~valid.any(dim=1), IGNORE)
    labelled = y != IGNORE
    logits, valid, truth = found.logits[labelled], valid[labelled], y[labelled]
    t = valid.sum(dim=1, keepdim=True)
    p = (found.stop[labelled] + epsilon / t * valid) / (1 + epsilon)
    # log p(t, y) at every date: [n, T]
    at_truth = truth[:, None, None].expand(-1, p.shape[1], 1)
    log_p = logits.float().log_softmax(dim=2).gather(2, at_truth).squeeze(2)
    early = 1 - (valid.cumsum(dim=1) - 1) / t
    each = -(p * (alpha * log_p + (1 - alpha) * log_p.exp() * early)).sum(dim=1)
    if weights is not None:
        each = each * weights[truth]
    return each.sum(), weight_of(y, weights)


def season_read(dates: Tensor, valid: Tensor) -> Tensor:
    """Return the share of the season [N] before a decision, ``t / (T - 1)``.

    t and T count the dates of valid [N, T]; dates int [N]. 0 at the first date, 1 at the last.
    """
    number = valid.cumsum(dim=1).gather(1, dates[:, None]).squeeze(1) - 1
    last = (valid.sum(dim=1) - 1).clamp(min=1)
    return number.clamp(min=0).float() / last


def earliness(dates: Tensor, valid: Tensor) -> Tensor:
    """Return 1 less the mean of `season_read`, as Rußwurm et al. (2023) report it."""
    return 1 - season_read(dates, valid).mean()
