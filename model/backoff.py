"""Hierarchical back-off: a pixel that is not sure of its class gets a class of a coarser level.

"Winter wheat" becomes "small grain cereal", then "field crops", then no decision, until the answer
is as sure as was asked for.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from model.hierarchy import tree_of
from model.metrics import IGNORE
from model.temperature import tempered

if TYPE_CHECKING:
    from model.legend import Legend

#: Level and answer of a pixel without a decision.
NO_DECISION = 255


def level_probabilities(probabilities: np.ndarray, parents: np.ndarray) -> np.ndarray:
    """Return the probabilities of a coarser level: those of its classes' children, added up.

    Parameters
    ----------
    probabilities : float [N, K]
    parents : int [K]
        Class of the coarser level, 255 = none.

    Returns
    -------
    float32 [N, classes of the level]
    """
    parents = np.asarray(parents)
    known = np.flatnonzero(parents != IGNORE)
    out = np.zeros((len(probabilities), int(parents[known].max()) + 1), np.float32)
    for child in known:
        out[:, parents[child]] += probabilities[:, child]
    return out


def back_off(
    probabilities: np.ndarray,
    parents: Sequence[np.ndarray],
    target: float,
    temperature: Sequence[float] = (),
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Answer at the finest level whose likeliest class is as probable as asked for.

    Parameters
    ----------
    probabilities : float [N, K]
        Of the finest level; NaN = no decision.
    parents : sequence of int [K]
        Per coarser level, the coarsest first, the class that each class belongs to; 255 = none.
    target : float
        Probability that an answer must have.
    temperature : sequence of float
        Of each coarser level; default 1.

    Returns
    -------
    level : uint8 [N]
        Number of the level: 0 the coarsest, ``len(parents)`` the finest, 255 no decision.
    answer : uint8 [N]
        Class of that level, 255 = no decision.
    confidence : float32 [N]
        Its probability; of a pixel without decision, that of the coarsest level.
    """
    count = len(probabilities)
    level, answer = (np.full(count, NO_DECISION, np.uint8) for _ in range(2))
    confidence = np.zeros(count, np.float32)
    open_rows = ~np.isnan(probabilities[:, 0])
    for number in range(len(parents), -1, -1):
        found = probabilities[open_rows]
        if number < len(parents):
            found = level_probabilities(found, parents[number])
            found = tempered(found, temperature[number] if temperature else 1.0)
        rows, best = np.flatnonzero(open_rows), found.max(axis=1, initial=0)
        confidence[rows] = best
        sure = best >= target
        level[rows[sure]] = number
        answer[rows[sure]] = found[sure].argmax(axis=1)
        open_rows[rows[sure]] = False
    return level, answer, confidence


@dataclass
class BackOff:
    """Counts what is answered at which level, and how often rightly; tiles add up.

    Attributes
    ----------
    levels : tuple of str
        Names, the coarsest first; the last one is the classes themselves.
    parents : tuple of int [K]
        Per coarser level, see `back_off`.
    target : float
        Probability that an answer must have.
    temperature : tuple of float
        Of each level, the finest last; the probabilities that are added already have its.
    counts : int64 [levels + 1, 2]
        Pixels and right ones per level; the last row is those without decision.
    """

    levels: tuple[str, ...]
    parents: tuple[np.ndarray, ...]
    target: float
    temperature: tuple[float, ...]
    counts: np.ndarray

    @classmethod
    def of(cls, legend: Legend, target: float, temperature: Sequence[float] = (1.0,)) -> BackOff:
        """Return empty counts over the tree of a legend; without one, of its classes alone."""
        if not 0 < target <= 1:
            raise ValueError(f"target confidence {target:g}: give a probability, 0 to 1")
        tree = tree_of(legend)
        levels = () if tree is None else tree.levels
        parents = () if tree is None else tuple(np.asarray(row) for row in tree.parents)
        if len(temperature) != len(levels) + 1:
            temperature = (1.0,) * len(levels) + (temperature[-1],)
        counts = np.zeros((len(levels) + 2, 2), np.int64)
        return cls((*levels, legend.level), parents, target, tuple(temperature), counts)

    def add(self, truth: np.ndarray, probabilities: np.ndarray) -> None:
        """Add labelled pixels: truth int [N], 255 left out, probabilities float [N, K]."""
        known = truth != IGNORE
        truth = truth[known]
        level, answer, _ = back_off(
            probabilities[known], self.parents, self.target, self.temperature[:-1]
        )
        for number in range(len(self.levels)):
            here = level == number
            wanted = truth[here]
            if number < len(self.parents):
                wanted = self.parents[number][wanted]
            self.counts[number] += (here.sum(), (answer[here] == wanted).sum())
        self.counts[-1, 0] += (level == NO_DECISION).sum()

    def rows(self) -> list[dict[str, Any]]:
        """Return a row per level, the finest first: its share of the pixels, and its accuracy."""
        total = max(1, int(self.counts[:, 0].sum()))
        order = [*range(len(self.levels) - 1, -1, -1)]
        found = [
            {
                "level": self.levels[number],
                "share": int(self.counts[number, 0]) / total,
                "accuracy": _ratio(*self.counts[number]),
            }
            for number in order
        ]
        nothing = {
            "level": "no decision",
            "share": int(self.counts[-1, 0]) / total,
            "accuracy": float("nan"),
        }
        return [*found, nothing]


def _ratio(pixels: int, right: int) -> float:
    return float(right / pixels) if pixels else float("nan")
