"""Fewer bands or fewer dates of a `SampleSet`, for ablations and for networks that need less.

Every function returns a new set. It has no recipe: no cube gives its bands and dates any more, so
a model that learns from it draws no maps.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from cube.errors import LabelError
from model.sampleset import SampleSet


def select_bands(samples: SampleSet, bands: Sequence[str]) -> SampleSet:
    """Return the samples with these bands alone, in this order.

    Raises
    ------
    LabelError
        If the samples have no such band.
    """
    missing = [band for band in bands if band not in samples.bands]
    if missing or not bands:
        raise LabelError(
            f"{samples.name} has no band {', '.join(missing) or 'left'}; "
            f"it has {', '.join(samples.bands)}"
        )
    numbers = [samples.bands.index(band) for band in bands]
    return replace(samples, bands=tuple(bands), x=samples.x[:, numbers], recipe=None)


def until(samples: SampleSet, doy: int) -> SampleSet:
    """Return the samples with the dates up to a day of the year, itself included.

    Raises
    ------
    LabelError
        If no sample has a valid date so early.
    """
    early = samples.doy <= doy
    seen = samples.valid & early.reshape(*early.shape, *(1,) * (samples.valid.ndim - 2))
    if not seen.any():
        raise LabelError(f"{samples.name}: no sample has a valid date up to day {doy}")
    return compacted(_only(samples, seen))


def thin_dates(samples: SampleSet, dates: int, *, seed: int = 0) -> SampleSet:
    """Return the samples with at most `dates` of their valid dates each, drawn once, in order.

    Parameters
    ----------
    samples : SampleSet
    dates : int
        At least one.
    seed : int
        Draws the dates.

    Raises
    ------
    ValueError
        If no date would be left.
    """
    if dates < 1:
        raise ValueError(f"dates is {dates}: keep at least one date of each series")
    keys = np.random.default_rng(seed).random(samples.doy.shape)
    return _take_dates(samples, _smallest(np.where(_seen(samples), keys, np.inf), dates))


def compacted(samples: SampleSet) -> SampleSet:
    """Return the samples with the dates that hold no valid value left out.

    Each sample's other dates move to the front, in order, so T becomes that of the sample with
    most of them. What clouds hide is most of a dated series: memory and computing time shrink
    with T.
    """
    seen = _seen(samples)
    dates = max(1, int(seen.sum(axis=1).max(initial=0)))
    return _take_dates(samples, np.argsort(~seen, axis=1, kind="stable")[:, :dates])


def _seen(samples: SampleSet) -> np.ndarray:
    """Return which dates have a valid value anywhere in a sample; bool [N, T]."""
    return np.asarray(samples.valid.reshape(*samples.doy.shape, -1).any(axis=2))


def _smallest(keys: np.ndarray, count: int) -> np.ndarray:
    """Return the places of the smallest keys of each row, invalid ones (infinite) last."""
    chosen = np.argsort(keys, axis=1, kind="stable")[:, :count]
    lost = np.isinf(np.take_along_axis(keys, chosen, axis=1))
    order = np.argsort(np.where(lost, keys.shape[1], chosen), axis=1, kind="stable")
    return np.take_along_axis(chosen, order, axis=1)


def _take_dates(samples: SampleSet, chosen: np.ndarray) -> SampleSet:
    """Return the dates `chosen` (int [N, T']) of each sample."""
    places = chosen.reshape(*chosen.shape, *(1,) * (samples.valid.ndim - 2))
    taken = replace(
        samples,
        x=np.take_along_axis(samples.x, places[:, None], axis=2),
        valid=np.take_along_axis(samples.valid, places, axis=1),
        doy=np.take_along_axis(samples.doy, chosen, axis=1),
        recipe=None,
    )
    return _only(taken, taken.valid)


def _only(samples: SampleSet, seen: np.ndarray) -> SampleSet:
    """Return the samples with nothing outside of `seen` (bool, shaped as valid)."""
    dates = seen.reshape(*samples.doy.shape, -1).any(axis=2)
    return replace(
        samples,
        x=np.where(seen[:, None], samples.x, samples.x.dtype.type(0)),
        valid=seen,
        doy=np.where(dates, samples.doy, 0).astype(np.int16),
        recipe=None,
    )
