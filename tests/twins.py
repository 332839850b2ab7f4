"""Slow twins of the fast paths: plain NumPy and xarray, written to be read."""

from __future__ import annotations

import numpy as np
import xarray as xr

MAX_DN = 60_000


def round_half_up(values: np.ndarray) -> np.ndarray:
    return np.floor(values + 0.5)


def plain_monthly_median(
    dn: xr.DataArray, clear: xr.DataArray, subtract: xr.DataArray, months: xr.DataArray
) -> tuple[np.ndarray, np.ndarray]:
    """The xarray idiom: where + resample("MS").median(); [month, band, y, x] and [month, y, x]."""
    usable = clear & ((dn > 0) & (dn <= MAX_DN)).all("band")
    harmonised = np.maximum(dn.astype("float64") - subtract, 1).where(usable)
    median = harmonised.resample(time="MS").median().reindex(time=months)
    count = usable.resample(time="MS").sum().reindex(time=months, fill_value=0)
    rounded = round_half_up(median.fillna(0).transpose("time", "band", ...).values)
    seen = count.fillna(0).transpose("time", ...).values
    return rounded.astype("uint16"), seen.astype("uint8")


def plain_fill(series: np.ndarray, days: np.ndarray, method: str) -> np.ndarray:
    """Fill one pixel's series by looking left and right of each gap."""
    out = series.copy()
    if method == "none":
        return out
    observed = np.flatnonzero(series)
    for t in np.flatnonzero(series == 0):
        left, right = observed[observed < t], observed[observed > t]
        if len(left) and len(right):
            a, b = float(series[left[-1]]), float(series[right[0]])
            if method == "linear":
                share = (days[t] - days[left[-1]]) / (days[right[0]] - days[left[-1]])
                # Exact in rational arithmetic, so that halves are halves.
                span = int(days[right[0]] - days[left[-1]])
                done = int(days[t] - days[left[-1]])
                total = int(a) * (span - done) + int(b) * done
                assert abs(total / span - (a + (b - a) * share)) < 1e-6
                out[t] = (2 * total + span) // (2 * span)
            else:
                out[t] = round_half_up(np.array((a + b) / 2))
        elif len(left) or len(right):
            out[t] = series[left[-1]] if len(left) else series[right[0]]
    return out
