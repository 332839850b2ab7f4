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
from typing import Any

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
        ``accuracy``, ``precision``, ``recall``, ``f1`` (fractions; NaN when nothing was counted),
        ``pixels`` (the count behind them) and ``classes`` (how many classes occur).
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
    accuracy = float(np.trace(matrix) / total) if total else nothing
    return {"accuracy": accuracy, **means, "pixels": total, "classes": int(present.sum())}


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
    counted = (truth != IGNORE) & ~np.isnan(probabilities[:, 0])
    sure = probabilities[counted].max(axis=1).astype(np.float64)
    right = probabilities[counted].argmax(axis=1) == truth[counted]
    place = np.minimum((sure * bins).astype(int), bins - 1)
    table = pd.DataFrame({"confidence": sure, "accuracy": right, "pixels": 1})
    told = table.groupby(place).agg({"confidence": "mean", "accuracy": "mean", "pixels": "sum"})
    return told.rename_axis("bin")


@dataclass
class ParcelVotes:
    """What the pixels of each parcel say together; filled tile by tile.

    A parcel cut by tile borders collects its votes from all of them. Two ways to decide: the class
    with most pixels (`vote`), and the class with the highest mean probability (`mean`). Ties go to
    the lowest index.

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

    def matrices(self) -> dict[str, Matrix]:
        """Return the confusion matrices over parcels: ``vote`` and ``mean``, int64 [K, K]."""
        if not self._votes:
            nothing = np.zeros((self.n_classes, self.n_classes), dtype=np.int64)
            return {"vote": nothing, "mean": nothing.copy()}
        winners = np.stack(list(self._votes.values())).argmax(axis=2)
        return {
            "vote": confusion_matrix(winners[:, 0], winners[:, 1], self.n_classes),
            "mean": confusion_matrix(winners[:, 0], winners[:, 2], self.n_classes),
        }


@dataclass
class Tally:
    """Everything that scores need of a set of pixels, in sums: zones add up to regions.

    Parameters
    ----------
    n_classes : int
        K.

    Attributes
    ----------
    matrix : int64 [K, K]
        Confusion matrix over pixels.
    loss, crop_loss : float
        Sum of -ln p(truth) over all pixels, and over those whose truth is a crop.
    undecided : int
        Labelled pixels without a prediction (no clear observation); they are in no other figure.
    parcels : ParcelVotes
        The same by parcel.
    """

    n_classes: int
    matrix: Matrix = field(init=False)
    loss: float = 0.0
    crop_loss: float = 0.0
    undecided: int = 0
    parcels: ParcelVotes = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.n_classes, self.n_classes), dtype=np.int64)
        self.parcels = ParcelVotes(self.n_classes)

    def add(self, truth: np.ndarray, probabilities: np.ndarray, parcel: np.ndarray) -> None:
        """Add pixels: truth int [N], probabilities float [N, K] (NaN = none), parcel int [N]."""
        decided = ~np.isnan(probabilities[:, 0])
        self.undecided += int((~decided & (truth != IGNORE)).sum())
        truth, probabilities, parcel = truth[decided], probabilities[decided], parcel[decided]
        self.matrix += confusion_matrix(truth, probabilities.argmax(axis=1), self.n_classes)
        crops = truth != BACKGROUND
        self.loss += log_loss(truth, probabilities)[0]
        self.crop_loss += log_loss(truth[crops], probabilities[crops])[0]
        self.parcels.add(parcel, truth, probabilities)

    def __add__(self, other: Tally) -> Tally:
        both = Tally(self.n_classes)
        both.matrix = self.matrix + other.matrix
        both.loss, both.crop_loss = self.loss + other.loss, self.crop_loss + other.crop_loss
        both.undecided = self.undecided + other.undecided
        both.parcels = self.parcels + other.parcels
        return both

    def scores(self) -> dict[str, Any]:
        """Return the figures: ``pixel`` and ``parcel_vote``, ``parcel_mean`` as in `both_ways`."""
        pixel = both_ways(self.matrix)
        for name, loss in (("all", self.loss), ("crops", self.crop_loss)):
            pixels = pixel[name]["pixels"]
            pixel[name]["loss"] = loss / pixels if pixels else float("nan")
        parcels = self.parcels.matrices()
        return {
            "pixel": pixel,
            "parcel_vote": both_ways(parcels["vote"], unit="parcels"),
            "parcel_mean": both_ways(parcels["mean"], unit="parcels"),
            "undecided": self.undecided,
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
