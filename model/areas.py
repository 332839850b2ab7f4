"""Areas of classes with confidence intervals: what a map claims, corrected by a sample of truth.

Adding up the pixels of a map adds up its errors: a class that is confused more often in one
direction than in the other comes out too large or too small. A sample of places whose true class is
known says by how much.
"""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from cube.errors import ArtefactError
from model.bootstrap import DRAWS, percentiles, weights

if TYPE_CHECKING:
    from model.legend import Legend

log = logging.getLogger(__name__)

#: Quantile of the normal distribution for an interval of 95 %.
_Z = 1.959964


def estimate_areas(mapped: np.ndarray, sample: np.ndarray) -> pd.DataFrame:
    """Estimate the area of each class from a map and a stratified random sample of its pixels.

    Parameters
    ----------
    mapped : float [K]
        Area that the map gives to each class, in any unit; the classes are the strata.
    sample : int [K, K]
        Sampled pixels, drawn at random within each mapped class: rows truth, columns map, as
        `model.metrics.confusion_matrix` counts them.

    Returns
    -------
    DataFrame, one row per class
        ``mapped``, ``estimated``, and ``low`` and ``high`` of the 95 % interval, in the unit of
        `mapped`. The estimates add up to what was mapped.

    Raises
    ------
    ValueError
        If the shapes do not fit, or a class that was mapped has fewer than two sampled pixels.

    Notes
    -----
    The stratified estimator of Olofsson et al. (2014), Good practices for estimating area and
    assessing accuracy of land change, Remote Sensing of Environment 148, equations 9 to 11.
    The sample must come from the mapped area itself, and its pixels must be drawn one by one: all
    pixels of a few parcels are no such sample.
    """
    mapped, sample = np.asarray(mapped, float), np.asarray(sample)
    if sample.shape != (mapped.size, mapped.size):
        raise ValueError(f"a sample of {sample.shape} for {mapped.size} classes; give [K, K]")
    drawn = sample.sum(axis=0)
    few = np.flatnonzero((mapped > 0) & (drawn < 2))
    if few.size:
        raise ValueError(f"classes {few.tolist()} are mapped but have fewer than 2 sampled pixels")
    weight = mapped / mapped.sum()
    # Truth within each mapped class; classes that are not mapped weigh nothing.
    share = sample / np.maximum(drawn, 1)
    variance = (weight**2 * share * (1 - share) / np.maximum(drawn - 1, 1)).sum(axis=1)
    estimated = (weight * share).sum(axis=1) * mapped.sum()
    margin = _Z * np.sqrt(variance) * mapped.sum()
    return pd.DataFrame(
        {
            "mapped": mapped,
            "estimated": estimated,
            "low": np.maximum(estimated - margin, 0),
            "high": estimated + margin,
        }
    )


def resampled_areas(
    mapped: np.ndarray, groups: np.ndarray, draws: int = DRAWS, seed: int = 0
) -> np.ndarray:
    """Return 95 % intervals of the estimated areas when whole groups are drawn anew.

    The interval of `estimate_areas` takes every pixel for a find of its own. Pixels of the same
    zone are not, so this one, over zones drawn with replacement, is the one to believe.

    Parameters
    ----------
    mapped : float [K]
        As in `estimate_areas`.
    groups : int [G, K, K]
        Confusion matrix of each group, rows truth, columns map.
    draws, seed
        As in `model.bootstrap.intervals`.

    Returns
    -------
    float64 [K, 2]
        Low and high in the unit of `mapped`; NaN for fewer than two groups. A class that a draw
        does not map takes its shares from all groups.
    """
    count, k, _ = groups.shape
    if count < 2:
        return np.full((k, 2), np.nan)
    whole = groups.sum(axis=0)
    usual = whole / np.maximum(whole.sum(axis=0), 1)
    found = []
    for drawn in weights(count, draws, seed):
        matrices = (drawn @ groups.reshape(count, -1)).reshape(-1, k, k)
        claimed = matrices.sum(axis=1, keepdims=True)
        shares = np.where(claimed > 0, matrices / np.maximum(claimed, 1), usual)
        found.append(shares @ mapped)
    estimates = np.concatenate(found)
    return np.array([percentiles(column) for column in estimates.T])


def area_rows(mapped: np.ndarray, groups: np.ndarray, legend: Legend) -> list[dict[str, Any]]:
    """Return a row per class that occurs: mapped and estimated hectares and both intervals.

    Classes of the map with fewer than two labelled pixels cannot be corrected; they are left out
    of the whole table, and reported.

    Parameters
    ----------
    mapped : float [K]
        Hectares.
    groups : int [G, K, K]
        Labelled pixels of each zone, rows truth, columns map.
    legend : Legend
        Names of the classes.
    """
    mapped, sample = np.asarray(mapped, float).copy(), groups.sum(axis=0)
    few = (mapped > 0) & (sample.sum(axis=0) < 2)
    if few.any():
        names = ", ".join(legend.classes[k] for k in np.flatnonzero(few))
        log.warning("areas leave out %s: fewer than two labelled pixels are mapped so", names)
        mapped[few] = 0
    if not mapped.sum():
        return []
    table = estimate_areas(mapped, sample)
    table[["zones_low", "zones_high"]] = resampled_areas(mapped, groups)
    table.insert(0, "class", legend.classes)
    seen = (table["mapped"] > 0) | (table["estimated"] > 0)
    return [
        {str(key): value for key, value in row.items()} for row in table[seen].to_dict("records")
    ]


def mapped_hectares(folder: str | Path, legend: Legend) -> np.ndarray:
    """Return the hectares of each class (float64 [K]) of a map that `model.predict` made.

    Raises
    ------
    ArtefactError
        If the folder holds no map, or a map of other classes.
    """
    path = Path(folder) / "area.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["classes"]
        told = {str(row["class"]): float(row["hectares"]) for row in rows}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ArtefactError(f"{path} is no table of a map ({error}); run predict first") from error
    told.pop("no decision", None)
    strange = sorted(told.keys() - set(legend.classes))
    if strange:
        raise ArtefactError(f"{path} has {', '.join(strange)}, which the model does not know")
    return np.array([told.get(name, 0.0) for name in legend.classes])
