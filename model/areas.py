"""Areas of classes with confidence intervals: what a map claims, corrected by a sample of truth.

Adding up the pixels of a map adds up its errors: a class that is confused more often in one
direction than in the other comes out too large or too small. A sample of places whose true class is
known says by how much.
"""

from __future__ import annotations

import numpy as np
import pandas as pd

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
