"""Scores from confusion matrices: what is right, for whom, with and without background.

Every figure comes from one integer matrix, rows truth and columns prediction, so that parts (tiles,
zones, folds) add up exactly. Three rules decide what a macro mean means:

* only classes that occur in the truth count; an absent class is neither 0 nor 1;
* a class that occurs and is never predicted has precision 0;
* "without background" drops the pixels whose truth is class 0 and nothing else: crop called
  background stays an error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray

IGNORE = 255
BACKGROUND = 0
#: Probabilities are clipped here, so that one impossible truth does not make a mean infinite.
EPSILON = 1e-7

Matrix = NDArray[np.int64]


def confusion_matrix(truth: np.ndarray, predicted: np.ndarray, n_classes: int) -> Matrix:
    """Count pairs of truth and prediction.

    Parameters
    ----------
    truth, predicted : integer arrays of one shape
        Class indices 0 to `n_classes` - 1. Pixels where either is 255 (ignored, no decision) are
        left out.
    n_classes : int
        K.

    Returns
    -------
    int64 [K, K]
        Rows truth, columns prediction.

    Raises
    ------
    ValueError
        If the shapes differ or an index is not a class.
    """
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    if truth.shape != predicted.shape:
        raise ValueError(f"truth {truth.shape} and prediction {predicted.shape} differ in shape")
    counted = (truth != IGNORE) & (predicted != IGNORE)
    rows, columns = truth[counted].astype(np.int64), predicted[counted].astype(np.int64)
    for name, values in (("truth", rows), ("prediction", columns)):
        if values.size and not 0 <= values.min() <= values.max() < n_classes:
            raise ValueError(
                f"{name} holds classes {values.min()} to {values.max()}; "
                f"there are {n_classes} (0 to {n_classes - 1}, 255 = ignore)"
            )
    pairs = np.bincount(rows * n_classes + columns, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes).astype(np.int64)


def class_scores(matrix: Matrix) -> dict[str, np.ndarray]:
    """Return precision, recall, f1 (float64 [K]) and support (int64 [K]) of every class.

    Precision of a class that is never predicted, and recall of one that never occurs, are 0.
    """
    hits = np.diag(matrix).astype(np.float64)
    support, claims = matrix.sum(axis=1), matrix.sum(axis=0)
    return {
        "precision": _ratio(hits, claims),
        "recall": _ratio(hits, support),
        "f1": _ratio(2 * hits, support + claims),
        "support": support,
    }


def summary(matrix: Matrix, *, background: bool = True) -> dict[str, float | int]:
    """Return accuracy and macro precision, recall and F1 over the classes that occur.

    Parameters
    ----------
    matrix : int64 [K, K]
        Rows truth, columns prediction.
    background : bool
        False drops the row of class 0: its pixels leave every figure.

    Returns
    -------
    dict
        ``accuracy``, ``precision``, ``recall``, ``f1`` and ``minimum_f1``, that of the class that
        does worst (fractions; NaN when nothing was counted), ``pixels`` (the count behind them) and
        ``classes`` (how many classes occur).
    """
    if not background:
        matrix = without_background(matrix)
    scores = class_scores(matrix)
    present = scores["support"] > 0
    total = int(matrix.sum())
    nothing = float("nan")
    means = {
        name: float(scores[name][present].mean()) if present.any() else nothing
        for name in ("precision", "recall", "f1")
    }
    return {
        "accuracy": float(np.trace(matrix) / total) if total else nothing,
        **means,
        "minimum_f1": float(scores["f1"][present].min()) if present.any() else nothing,
        "pixels": total,
        "classes": int(present.sum()),
    }


def without_background(matrix: Matrix) -> Matrix:
    """Return a copy without the pixels whose truth is background (row 0 becomes 0)."""
    crops = matrix.copy()
    crops[BACKGROUND] = 0
    return crops


def log_loss(truth: np.ndarray, probabilities: np.ndarray) -> tuple[float, int]:
    """Return the sum of -ln p(truth) and the number of pixels behind it.

    Parameters
    ----------
    truth : integer [N]
        Class index; 255 is left out.
    probabilities : float [N, K]
        Probabilities, clipped to [1e-7, 1]; rows with NaN (no decision) are left out.

    Notes
    -----
    Sum and count instead of the mean, so that tiles and zones can be added up.
    """
    counted = (truth != IGNORE) & ~np.isnan(probabilities[:, 0])
    chosen = probabilities[counted, truth[counted]].astype(np.float64)
    return float(-np.log(np.clip(chosen, EPSILON, 1.0)).sum()), int(counted.sum())


def reliability(truth: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> pd.DataFrame:
    """Compare how sure a model was with how often it was right.

    Parameters
    ----------
    truth : integer [N]
        Class index; 255 is left out.
    probabilities : float [N, K]
        Rows with NaN (no decision) are left out.
    bins : int
        Equal parts of 0…1 by the probability of the likeliest class; 1 is in the last.

    Returns
    -------
    DataFrame, one row per bin that holds pixels
        ``confidence`` (mean probability of the answer), ``accuracy`` and ``pixels``. Their mean
        distance, weighted by pixels, is the expected calibration error.
    """
    return reliability_table(reliability_sums(truth, probabilities, bins))


def reliability_sums(truth: np.ndarray, probabilities: np.ndarray, bins: int = 10) -> np.ndarray:
    """Return what `reliability` divides: float64 [bins, 3], so that tiles and zones add up.

    Per bin the summed probability of the answers, the right answers, and the pixels.
    """
    counted = (truth != IGNORE) & ~np.isnan(probabilities[:, 0])
    sure = probabilities[counted].max(axis=1).astype(np.float64)
    right = probabilities[counted].argmax(axis=1) == truth[counted]
    place = np.minimum((sure * bins).astype(int), bins - 1)
    columns = [np.bincount(place, weights, minlength=bins) for weights in (sure, right, None)]
    return np.stack(columns, axis=1).astype(np.float64)


def reliability_table(sums: np.ndarray) -> pd.DataFrame:
    """Return the table that `reliability` describes from `reliability_sums`."""
    used = sums[:, 2] > 0
    confidence, right, pixels = sums[used].T
    columns = {
        "confidence": confidence / pixels,
        "accuracy": right / pixels,
        "pixels": pixels.astype(np.int64),
    }
    return pd.DataFrame(columns, index=pd.Index(np.flatnonzero(used), name="bin"))


def calibration_error(table: pd.DataFrame) -> float:
    """Return the expected calibration error of a `reliability` table; NaN for an empty one.

    Notes
    -----
    Naeini et al. (2015), AAAI: the distance between confidence and accuracy, averaged over bins
    by their pixels.
    """
    if table.empty:
        return float("nan")
    distance = (table["confidence"] - table["accuracy"]).abs()
    return float((distance * table["pixels"]).sum() / table["pixels"].sum())


@dataclass
class ParcelVotes:
    """What the pixels of each parcel say together; filled tile by tile.

    A parcel cut by tile borders collects its votes from all of them. Two ways to decide: the class
    with most pixels (`vote`), and the class with the highest mean probability (`mean`). Ties go to
    the lowest index. By `area` a parcel counts as often as it has labelled pixels, not once.

    Parameters
    ----------
    n_classes : int
        K.
    """

    n_classes: int
    _votes: dict[int, np.ndarray] = field(default_factory=dict)

    def add(self, parcel: np.ndarray, truth: np.ndarray, probabilities: np.ndarray) -> None:
        """Add pixels: parcel int [N] (0 = none), truth int [N], probabilities float [N, K]."""
        counted = (parcel > 0) & (truth != IGNORE) & ~np.isnan(probabilities[:, 0])
        ids, where = np.unique(parcel[counted], return_inverse=True)
        if not ids.size:
            return
        shares = probabilities[counted]
        votes = shares.argmax(axis=1)
        # Per parcel three rows of K: truth, votes, sum of probabilities.
        sums = np.zeros((ids.size, 3, self.n_classes))
        for k in range(self.n_classes):
            sums[:, 0, k] = np.bincount(where, truth[counted] == k, minlength=ids.size)
            sums[:, 1, k] = np.bincount(where, votes == k, minlength=ids.size)
            sums[:, 2, k] = np.bincount(where, shares[:, k], minlength=ids.size)
        for parcel_id, rows in zip(ids.tolist(), sums, strict=True):
            known = self._votes.get(parcel_id)
            self._votes[parcel_id] = rows if known is None else known + rows

    def __len__(self) -> int:
        return len(self._votes)

    def __add__(self, other: ParcelVotes) -> ParcelVotes:
        both = dict(self._votes)
        for parcel_id, rows in other._votes.items():
            both[parcel_id] = rows if parcel_id not in both else both[parcel_id] + rows
        return ParcelVotes(self.n_classes, both)

    def sums(self) -> np.ndarray:
        """Return per parcel its pixels by truth, by answer, and summed probabilities; [P, 3, K]."""
        if not self._votes:
            return np.zeros((0, 3, self.n_classes))
        return np.stack(list(self._votes.values()))

    def matrices(self) -> dict[str, Matrix]:
        """Return the confusion matrices over parcels, int64 [K, K].

        ``vote`` and ``mean`` count parcels, ``area`` the pixels of parcels decided by mean.
        """
        sums = self.sums()
        winners = sums.argmax(axis=2)
        area = np.zeros((self.n_classes, self.n_classes), dtype=np.int64)
        np.add.at(area, (winners[:, 0], winners[:, 2]), sums[:, 0].sum(axis=1).astype(np.int64))
        return {
            "vote": confusion_matrix(winners[:, 0], winners[:, 1], self.n_classes),
            "mean": confusion_matrix(winners[:, 0], winners[:, 2], self.n_classes),
            "area": area,
        }


def both_ways(matrix: Matrix, unit: str = "pixels") -> dict[str, dict[str, float | int]]:
    """Return `summary` of ``all`` (with background) and ``crops`` (without); counts in `unit`."""
    ways = {"all": summary(matrix), "crops": summary(matrix, background=False)}
    return {
        way: {unit if name == "pixels" else name: value for name, value in scores.items()}
        for way, scores in ways.items()
    }


def majority_class(counts: Sequence[int] | np.ndarray, *, background: bool = True) -> int:
    """Return the most frequent class of the training pixels: the score to beat knows no pixel.

    With ``background=False`` class 0 is not a candidate (unless nothing else was seen).
    """
    counts = np.asarray(counts, dtype=np.int64).copy()
    if not background and counts[1:].any():
        counts[BACKGROUND] = 0
    return int(counts.argmax())


def always(matrix: Matrix, answer: int) -> Matrix:
    """Return the confusion matrix of a model that answers one class for every pixel."""
    constant = np.zeros_like(matrix)
    constant[:, answer] = matrix.sum(axis=1)
    return constant


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """Divide with 0 / 0 = 0."""
    return np.divide(part, whole, out=np.zeros(part.shape), where=whole > 0)
