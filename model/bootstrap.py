"""Intervals for scores: how far they would move had other zones, or other parcels, been surveyed.

Pixels of one parcel are nearly copies of each other and zones differ as wholes, so an interval that
counts pixels one by one is far too narrow. Here whole groups are drawn with replacement, and every
figure is computed anew from the summed confusion matrices of the groups that were drawn.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from scipy.sparse import csr_array

from model.metrics import BACKGROUND, ParcelVotes
from model.tally import Tally

DRAWS = 1000
#: Weights of groups that are held at once.
_HELD = 4_000_000

Intervals = dict[str, tuple[float, float]]


@dataclass(frozen=True)
class Groups:
    """Confusion matrices of G groups, each flattened to a row of K · K counts.

    Attributes
    ----------
    pixels, parcels : csr_array [G, K · K]
        Rows truth, columns prediction, over pixels and over parcels (by mean probability).
    n_classes : int
        K.
    """

    pixels: csr_array
    parcels: csr_array
    n_classes: int

    def __len__(self) -> int:
        return int(self.pixels.shape[0])


def groups_of_tallies(tallies: Iterable[Tally]) -> Groups:
    """Return zones (or whatever was tallied apart) as groups."""
    found = list(tallies)
    pixels = np.stack([tally.matrix.ravel() for tally in found])
    parcels = np.stack([tally.parcels.matrices()["mean"].ravel() for tally in found])
    return Groups(csr_array(pixels), csr_array(parcels), found[0].n_classes)


def groups_of_parcels(votes: ParcelVotes) -> Groups:
    """Return every parcel as a group of its pixels; a parcel is of the class most of them have."""
    sums, k = votes.sums(), votes.n_classes
    truth, _, mean = sums.argmax(axis=2).T
    parcel, answer = np.nonzero(sums[:, 1])
    shape = (len(sums), k * k)
    pixels = csr_array((sums[parcel, 1, answer], (parcel, truth[parcel] * k + answer)), shape)
    one = csr_array((np.ones(len(sums)), (np.arange(len(sums)), truth * k + mean)), shape)
    return Groups(pixels, one, k)


def intervals(groups: Groups, draws: int = DRAWS, seed: int = 0, level: float = 0.95) -> Intervals:
    """Return the interval of each figure over resampled groups; none for fewer than two groups.

    Parameters
    ----------
    groups : Groups
        G of them; each draw takes G with replacement.
    draws : int
        How often.
    seed : int
        Same seed, same intervals.
    level : float
        Share of the draws inside.

    Returns
    -------
    dict
        ``OA`` and ``F1`` over all pixels, ``crops OA``, ``crops F1`` and ``min F1`` without
        background, ``parcel OA`` and ``parcel F1`` over parcels that are not background, as
        `model.scores.headline` names them. NaN where no draw had anything to score.

    Notes
    -----
    The percentile bootstrap of Efron and Tibshirani (1993), An Introduction to the Bootstrap, on
    clusters. With few groups (less than about ten) such intervals are too narrow.
    """
    if len(groups) < 2:
        return {}
    parts = [_figures(*drawn) for drawn in _resampled(groups, draws, seed)]
    values = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    return {name: percentiles(drawn, level) for name, drawn in values.items()}


def weights(groups: int, draws: int, seed: int = 0) -> Iterator[np.ndarray]:
    """Yield how often each group is drawn, float64 [some draws, groups], `draws` rows in all."""
    random = np.random.default_rng(seed)
    step = max(1, min(draws, _HELD // groups))
    for start in range(0, draws, step):
        rows = min(step, draws - start)
        # One table of counts for all rows: each has a stretch of numbers of its own.
        drawn = random.integers(groups, size=(rows, groups)) + np.arange(rows)[:, None] * groups
        counts = np.bincount(drawn.ravel(), minlength=rows * groups)
        yield counts.reshape(rows, groups).astype(np.float64)


def percentiles(values: np.ndarray, level: float = 0.95) -> tuple[float, float]:
    """Return the bounds that hold `level` of the values [D]; NaN counts as not drawn."""
    known = values[~np.isnan(values)]
    if not known.size:
        return (float("nan"), float("nan"))
    low, high = np.quantile(known, [(1 - level) / 2, (1 + level) / 2])
    return (float(low), float(high))


def _resampled(groups: Groups, draws: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    k = groups.n_classes
    for drawn in weights(len(groups), draws, seed):
        pixels, parcels = (drawn @ counts for counts in (groups.pixels, groups.parcels))
        yield pixels.reshape(-1, k, k), parcels.reshape(-1, k, k)


def _figures(pixels: np.ndarray, parcels: np.ndarray) -> dict[str, np.ndarray]:
    crops, fields = _without_background(pixels), _without_background(parcels)
    accuracy, f1, _ = _summaries(pixels)
    crops_accuracy, crops_f1, minimum = _summaries(crops)
    parcel_accuracy, parcel_f1, _ = _summaries(fields)
    return {
        "OA": accuracy,
        "F1": f1,
        "crops OA": crops_accuracy,
        "crops F1": crops_f1,
        "min F1": minimum,
        "parcel OA": parcel_accuracy,
        "parcel F1": parcel_f1,
    }


def _without_background(matrices: np.ndarray) -> np.ndarray:
    crops = matrices.copy()
    crops[:, BACKGROUND] = 0
    return crops


def _summaries(matrices: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return accuracy, macro and minimum F1 over the present classes of each matrix; [D] each."""
    hits = np.diagonal(matrices, axis1=1, axis2=2)
    support, claims = matrices.sum(axis=2), matrices.sum(axis=1)
    total, present = support.sum(axis=1), support > 0
    f1 = 2 * hits / np.maximum(support + claims, 1)
    empty = total == 0
    accuracy = np.where(empty, np.nan, hits.sum(axis=1) / np.maximum(total, 1))
    macro = np.where(empty, np.nan, (f1 * present).sum(axis=1) / np.maximum(present.sum(1), 1))
    minimum = np.where(empty, np.nan, np.where(present, f1, np.inf).min(axis=1))
    return accuracy, macro, minimum
