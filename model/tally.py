"""Sums over pixels from which every score follows, so that tiles, zones and folds add up."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from model.metrics import (
    BACKGROUND,
    IGNORE,
    Matrix,
    ParcelVotes,
    both_ways,
    confusion_matrix,
    log_loss,
    reliability_sums,
)

#: Equal bins of confidence for calibration.
BINS = 15


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
    sure : float64 [bins, 3]
        Confidence against accuracy, see `metrics.reliability_sums`.
    """

    n_classes: int
    matrix: Matrix = field(init=False)
    loss: float = 0.0
    crop_loss: float = 0.0
    undecided: int = 0
    parcels: ParcelVotes = field(init=False)
    sure: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        self.matrix = np.zeros((self.n_classes, self.n_classes), dtype=np.int64)
        self.parcels = ParcelVotes(self.n_classes)
        self.sure = np.zeros((BINS, 3))

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
        self.sure += reliability_sums(truth, probabilities, BINS)

    def __add__(self, other: Tally) -> Tally:
        both = Tally(self.n_classes)
        both.matrix = self.matrix + other.matrix
        both.loss, both.crop_loss = self.loss + other.loss, self.crop_loss + other.crop_loss
        both.undecided = self.undecided + other.undecided
        both.parcels = self.parcels + other.parcels
        both.sure = self.sure + other.sure
        return both

    def scores(self) -> dict[str, Any]:
        """Return the figures by ``pixel``, ``parcel_vote``, ``parcel_mean`` and ``parcel_area``.

        Each as in `both_ways`; see `ParcelVotes` for what the three of parcels mean.
        """
        pixel = both_ways(self.matrix)
        for name, loss in (("all", self.loss), ("crops", self.crop_loss)):
            pixels = pixel[name]["pixels"]
            pixel[name]["loss"] = loss / pixels if pixels else float("nan")
        parcels = self.parcels.matrices()
        return {
            "pixel": pixel,
            "parcel_vote": both_ways(parcels["vote"], unit="parcels"),
            "parcel_mean": both_ways(parcels["mean"], unit="parcels"),
            "parcel_area": both_ways(parcels["area"]),
            "undecided": self.undecided,
        }
