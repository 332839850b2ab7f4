"""Series as rows of a table: what trees learn from samples in memory."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from cube.errors import LabelError
from model.sampleset import SampleSet

#: Last day of each month of a year of 365 days.
_ENDS = np.cumsum([31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31])


@dataclass(frozen=True)
class Months:
    """The calendar months that a table has columns for.

    Attributes
    ----------
    first, last : int
        Counted from the January that the days of the series count from, which is 0; both included.
    """

    first: int
    last: int

    @classmethod
    def of(cls, samples: SampleSet) -> Months:
        """Return the months in which any sample has a valid value.

        Raises
        ------
        LabelError
            If there is none.
        """
        seen = samples.valid.reshape(*samples.doy.shape, -1).any(axis=2)
        if not seen.any():
            raise LabelError(f"{samples.name} holds no valid value to learn from")
        month = _month(samples.doy[seen])
        return cls(int(month.min()), int(month.max()))

    def table(self, x: np.ndarray, valid: np.ndarray, doy: np.ndarray) -> np.ndarray:
        """Return monthly medians, filled linearly.

        Parameters
        ----------
        x : [N, C, T]
        valid : bool [N, T]
        doy : int [N, T]

        Returns
        -------
        float32 [N, M × C]
            Time-major: column m × C + c is band c of month m. The median of the valid values of a
            month; a month without one lies on the line between the months beside it, and before
            the first and after the last one it is as that one. NaN where nothing is valid.
        """
        month = np.where(valid, _month(doy), -1)
        medians = [_median(x, month == m) for m in range(self.first, self.last + 1)]
        filled = fill_linear(np.stack(medians, axis=1))
        return filled.reshape(len(x), -1).astype(np.float32)


def _median(x: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Return the median [N, C] of x [N, C, T] over the dates chosen [N, T]; NaN without any."""
    dates = chosen.any(axis=0)
    values = np.where(chosen[:, None, dates], x[:, :, dates], np.inf)
    values = np.sort(values, axis=2)
    count = chosen.sum(axis=1)[:, None, None]
    middle = [np.maximum(count - 1, 0) // 2, count // 2]
    if not dates.any():
        return np.full(x.shape[:2], np.nan)
    low, high = (
        np.take_along_axis(values, np.minimum(place, dates.sum() - 1), axis=2)[..., 0]
        for place in middle
    )
    return np.where(count[..., 0] > 0, (low + high) / 2, np.nan)


def fill_linear(series: np.ndarray) -> np.ndarray:
    """Return series float64 [N, M, C] filled along M; NaN only where all of a series is."""
    known = ~np.isnan(series).any(axis=2)
    place = np.arange(known.shape[1])
    before = np.maximum.accumulate(np.where(known, place, -1), axis=1)
    after = np.minimum.accumulate(np.where(known, place, len(place))[:, ::-1], axis=1)[:, ::-1]
    # At the ends there is a neighbour on one side only: it stands for both.
    first = np.where(before < 0, after, before) % len(place)
    last = np.where(after == len(place), before, after) % len(place)
    share = (place - first) / np.maximum(last - first, 1)
    rows = np.arange(len(series))[:, None]
    low, high = series[rows, first], series[rows, last]
    return low + share.clip(0, 1)[..., None] * (high - low)


def _month(doy: np.ndarray) -> np.ndarray:
    """Return the month, from 0, of days counted from the first of January of a first year."""
    year, day = np.divmod(doy.astype(np.int64) - 1, 365)
    return 12 * year + np.searchsorted(_ENDS, day + 1)
