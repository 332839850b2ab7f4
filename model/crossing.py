"""Cross-validation of samples in memory: folds by group and at random, the same for every model."""

from __future__ import annotations

from typing import Literal

import numpy as np

from cube.errors import SplitError
from model.sampleset import SampleSet
from model.splits import Split

Way = Literal["spatial", "random"]
#: Share of the samples outside of a test fold that validate.
VAL = 1 / 8


def crossing(samples: SampleSet, way: Way, folds: int = 5, seed: int = 0) -> list[Split]:
    """Return the splits of a cross-validation: every sample tests in one of them.

    Parameters
    ----------
    samples : SampleSet
    way : {"spatial", "random"}
        Folds of whole groups, of near equal size (scikit-learn's `GroupKFold`), or of single
        samples, which is kinder than any new area and stands beside the other only.
    folds : int
    seed : int
        Chooses which of the groups (or samples) outside of a fold validate. The folds themselves
        are the same for every seed.

    Raises
    ------
    SplitError
        If there are fewer groups than folds, or a fold leaves nothing to validate with.
    """
    from sklearn.model_selection import GroupKFold, KFold

    rows = np.arange(len(samples))
    key = samples.group if way == "spatial" else (rows + 1).astype(np.int32)
    least = folds + 1 if way == "spatial" else 2 * folds
    if len(np.unique(key)) < least:
        raise SplitError(
            f"{samples.name}: {len(np.unique(key))} groups make no {folds} folds with a group left "
            "to train and one to validate; use fewer folds"
        )
    if way == "spatial":
        tested = [key[test] for _, test in GroupKFold(folds).split(rows, groups=key)]
    else:
        tested = [key[test] for _, test in KFold(folds, shuffle=True, random_state=0).split(rows)]
    return [_split(way, key, test, [seed, fold]) for fold, test in enumerate(tested)]


def _split(way: Way, key: np.ndarray, test: np.ndarray, seed: list[int]) -> Split:
    """Return the split of a fold: groups in random order validate until there are enough."""
    rest = key[~np.isin(key, test)]
    order, counts = np.unique(rest, return_counts=True)
    shuffled = np.random.default_rng(seed).permutation(len(order))
    before = np.cumsum(counts[shuffled]) - counts[shuffled]
    chosen = order[shuffled[before < VAL * len(rest)]]
    return Split(
        "zone" if way == "spatial" else "sample",
        train=frozenset(np.setdiff1d(order, chosen).tolist()),
        val=frozenset(chosen.tolist()),
        test=frozenset(np.unique(test).tolist()),
    )
