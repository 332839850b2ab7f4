"""Learning from labels that are partly wrong: choose the trustworthy ones, then train in two steps.

A register says what was declared, not what grew; borders are mixed pixels. The stage of Weikmann,
Bruzzone and Paris, as a step for any network that learns from samples with one label each:

1. draw a weak set, stratified so that rare classes are not drowned (`quotas`, `draw`);
2. train a first model on it and classify every training sample;
3. keep those where model and register agree and the model is not at its least sure (`agreeing`);
4. draw the final set from them, train with classes weighted by n_max / n_u, and go on from there
   without, because weights distort the posteriors.

Borders are eroded before, when labels are written (`model.write_labels`, erosion in metres).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from cube.errors import SplitError
from model import artefact
from model.artefact import Run
from model.compare import Comparison
from model.evaluate_set import predict_set, score_set
from model.legend import IGNORE
from model.scores import headline, plain
from model.setdata import SetData
from model.splits import Split
from model.train import train

#: Classes with a prior at this quantile or above are the major ones.
MAJOR = 0.65
_NOTE = "all rows: the same test samples; parcel = mean probability"


@dataclass(frozen=True)
class Quota:
    """How many samples a class gets: ``N (a p + b)``, at least `least`, at most what there is.

    The source does not publish its constants; these are a choice of this project. They halve the
    share of the major classes.

    Attributes
    ----------
    major, minor : tuple of float
        a and b of the two groups of classes; p is the class's share of the labels.
    least : int
    """

    major: tuple[float, float] = (0.5, 0.0)
    minor: tuple[float, float] = (2.0, 0.01)
    least: int = 20


def quotas(counts: np.ndarray, total: int, quota: Quota | None = None) -> np.ndarray:
    """Return how many samples to draw of each class.

    Parameters
    ----------
    counts : int [K]
        Labels that there are.
    total : int
        N, what would be drawn if every class had exactly its share.
    quota : Quota, optional

    Returns
    -------
    int64 [K]
        0 where a class has no labels. Their sum is near N only as far as the constants make it.
    """
    quota = quota or Quota()
    counts = np.asarray(counts, np.int64)
    present = counts > 0
    if not present.any():
        return np.zeros_like(counts)
    prior = counts / counts.sum()
    major = prior >= np.quantile(prior[present], MAJOR)
    a, b = (np.where(major, *pair) for pair in zip(quota.major, quota.minor, strict=True))
    wanted = np.rint(total * (a * prior + b)).astype(np.int64)
    return np.where(present, np.minimum(np.maximum(wanted, quota.least), counts), 0)


def draw(y: np.ndarray, wanted: np.ndarray, seed: int = 0) -> np.ndarray:
    """Return the places of a random draw, int64, in order: `wanted[k]` of the labels y == k."""
    random = np.random.default_rng(seed)
    parts = [
        random.permutation(np.flatnonzero(y == number))[:count]
        for number, count in enumerate(wanted)
    ]
    return np.sort(np.concatenate(parts))


def agreeing(y: np.ndarray, probabilities: np.ndarray, percentile: float = 25) -> np.ndarray:
    """Return which labels the model confirms, bool [N].

    Parameters
    ----------
    y : int [N]
        Labels of the register; 255 is never confirmed.
    probabilities : float [N, K]
        Posteriors of the model; NaN confirms nothing.
    percentile : float
        The posterior must reach this percentile of the posteriors of the samples that the model
        calls the same class.
    """
    decided = ~np.isnan(probabilities[:, 0])
    answer = np.where(decided, np.nan_to_num(probabilities).argmax(axis=1), IGNORE)
    sure = probabilities.max(axis=1)
    keep = decided & (answer == y)
    for number in np.unique(answer[decided]):
        mine = answer == number
        keep[mine] &= sure[mine] >= np.percentile(sure[mine], percentile)
    return keep


@dataclass(frozen=True)
class WeakRun:
    """What the stage leaves behind.

    Attributes
    ----------
    run : Run
        The final model.
    table : Comparison
        Before and after: the first model, the weighted one, the fine-tuned one.
    counts : DataFrame
        Per class that has labels: ``labels``, ``first`` (drawn), ``agreeing``, ``final`` (drawn).
    kept : int64
        Rows of the sample set that the final model was trained on.
    """

    run: Run
    table: Comparison
    counts: pd.DataFrame = field(repr=False)
    kept: np.ndarray = field(repr=False)


def weak_stage(
    name: str,
    data: SetData,
    out: str | Path,
    *,
    total: int,
    quota: Quota | None = None,
    percentile: float = 25,
    stage: str = "test",
    **settings: Any,
) -> WeakRun:
    """Choose trustworthy labels with a first model, and train the final one on them.

    Parameters
    ----------
    name : str
        Architecture, as in `model.train`.
    data : SetData
        Samples with one label each.
    out : path
        Folder with ``first``, ``weighted`` and ``final``, each an artefact, and the tables
        ``comparison.md``, ``comparison.json`` and ``counts.csv``.
    total, quota
        How many samples to draw, both times; see `quotas`.
    percentile : float
        See `agreeing`.
    stage : {"test", "val"}
        What the before and after are scored on.
    **settings
        As in `model.train`: epochs, lr, preset, … for all three trainings.

    Returns
    -------
    WeakRun

    Raises
    ------
    SplitError
        If samples have several labels, or no label is confirmed.

    Notes
    -----
    Weikmann, Bruzzone and Paris (weighted LSTM with weak labels, Austria 2018). Different here:
    any network and AdamW instead of an LSTM and RMSprop; the first model is trained without
    weights, so that its posteriors are not distorted; validation keeps the register's labels.
    """
    out, samples = Path(out), data.set
    if samples.y.ndim > 1:
        raise SplitError(f"{samples.name}: samples with several labels; take a set of pixels")
    rows = data.stage_rows["train"]
    y = samples.y[rows]
    counts = samples.class_counts(rows)
    chosen = rows[draw(y, quotas(counts, total, quota), data.seed)]
    first_data = _trained_on(data, chosen)
    first = train(name, first_data, out / "first", **settings)
    model = artefact.load(first.folder)
    found = predict_set(model.network(), data.with_normalisation(model.normalisation), "train")
    confirmed = rows[agreeing(y, found, percentile)]
    if not len(confirmed):
        raise SplitError(
            f"{samples.name}: the first model confirms no label; train it longer, or on more"
        )
    agreed = samples.class_counts(confirmed)
    kept = confirmed[draw(samples.y[confirmed], quotas(agreed, total, quota), data.seed)]
    final_data = _trained_on(data, kept)
    weighted = train(name, final_data, out / "weighted", class_weights="inverse", **settings)
    run = train(name, final_data, out / "final", start_from=weighted.folder, **settings)
    table = Comparison(
        {
            "register's labels": _figures(first, first_data, stage),
            "agreeing labels, weighted": _figures(weighted, final_data, stage),
            "then plain cross entropy": _figures(run, final_data, stage),
        },
        _NOTE,
    )
    told = pd.DataFrame(
        {
            "class": samples.legend.classes,
            "labels": counts,
            "first": samples.class_counts(chosen),
            "agreeing": agreed,
            "final": samples.class_counts(kept),
        }
    )
    told = told[told["labels"] > 0].reset_index(drop=True)
    told.to_csv(out / "counts.csv", index=False)
    table.save(out)
    return WeakRun(run, table, told, kept)


def _trained_on(data: SetData, rows: np.ndarray) -> SetData:
    """Return the data with only these rows to train on."""
    stages = {**data.stage_rows, "train": rows}
    sets = (frozenset(map(int, stages[stage] + 1)) for stage in ("train", "val", "test"))
    return data.with_split(Split("sample", *sets))


def _figures(run: Run, data: SetData, stage: str) -> dict[str, float | None]:
    found = predict_set(artefact.load(run.folder).network(), data, stage)
    figures: dict[str, float | None] = plain(headline(score_set(found, data, stage)))
    return figures
