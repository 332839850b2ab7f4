"""Monthly composites of dated samples, by the rules of the cube."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from cube.errors import LabelError
from cube.kernels import fill_gaps_inplace, masked_median
from cube.recipe import Fill
from model.sampleset import SampleSet

#: Year of the calendar where nothing says which it is: one without 29 February.
_ANY_YEAR = 2023


def monthly(
    samples: SampleSet, fill: Fill = "neighbour-mean", *, year: int | None = None
) -> SampleSet:
    """Return the median of each calendar month, and gaps filled as in a cube.

    Parameters
    ----------
    samples : SampleSet
        Dated series of DN (uint16), of any kind.
    fill : {"neighbour-mean", "linear", "none"}
        What a month without an observation takes; see `cube.composite.fill_gaps`.
    year : int, optional
        Year of the first of January that the days count from; default that of the legend, and if
        it has none, a year without 29 February.

    Returns
    -------
    SampleSet
        The same samples over all months that any of them was observed in; the day of a month is
        its 15th. An even number of observations takes the mean of the two middle values, rounded
        half up.

    Raises
    ------
    LabelError
        If the samples are no DN, or hold no date.
    """
    if samples.x.dtype != np.uint16:
        raise LabelError(
            f"{samples.name}: x is {samples.x.dtype}, composites are made of DN in uint16; "
            "make them before parcel means"
        )
    if not samples.valid.any():
        raise LabelError(f"{samples.name} holds no valid value to make composites of")
    start = np.datetime64(f"{year or samples.legend.year or _ANY_YEAR}-01-01")
    month = _months(samples, start)
    wanted = np.arange(month[month >= 0].min(), month.max() + 1)
    x = _medians(samples, month, wanted)
    firsts = (start.astype("datetime64[M]") + wanted).astype("datetime64[D]")
    days = (firsts - start).astype(np.int32)
    fill_gaps_inplace(x.reshape(len(wanted), -1), days, fill)
    n, c, _, *places = samples.x.shape
    x = np.moveaxis(x.reshape(len(wanted), c, n, *places), 2, 0).swapaxes(1, 2)
    return replace(
        samples,
        x=np.ascontiguousarray(x),
        valid=(x != 0).all(axis=1),
        doy=np.broadcast_to((days + 15).astype(np.int16), (n, len(wanted))).copy(),
        recipe=None,
    )


def _months(samples: SampleSet, start: np.datetime64) -> np.ndarray:
    """Return months since `start` of each date, -1 where there is none; int64 [N, T]."""
    seen = samples.valid.reshape(*samples.doy.shape, -1).any(axis=2)
    dates = (start + (samples.doy.astype(np.int64) - 1)).astype("datetime64[M]")
    return np.where(seen, (dates - start.astype("datetime64[M]")).astype(np.int64), -1)


def _medians(samples: SampleSet, month: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Return uint16 [month, C, N × places], 0 where nothing was observed."""
    _, c, t, *places = samples.x.shape
    # Time first and pixels last, as the kernels want them.
    values = np.moveaxis(samples.x, 0, 2).swapaxes(0, 1).reshape(t, c, -1)
    clear = samples.valid.swapaxes(0, 1).reshape(t, -1)
    pixels = clear.shape[1]
    out = np.zeros((len(wanted), c, pixels), np.uint16)
    count = np.empty(pixels, np.uint8)
    for number, one in enumerate(wanted):
        here = (month == one).T
        dates = np.flatnonzero(here.any(axis=1))
        mine = np.repeat(here[dates], int(np.prod(places)), axis=1) & clear[dates]
        nothing = np.zeros(len(dates), np.uint16)
        masked_median(np.ascontiguousarray(values[dates]), mine, nothing, out[number], count)
    return out
