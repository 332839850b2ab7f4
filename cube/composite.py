"""The steps of a build as xarray functions, for any NumPy- or Dask-backed array.

`build_tile` fuses these steps over blocks of files; here they stand alone, lazily, for data that
was loaded some other way. Both use the same kernels, so both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from cube.kernels import fill_gaps_inplace, masked_median
from cube.recipe import Fill

KEEP = (4, 5, 6, 7)


def mask_scl(data: xr.DataArray, scl: xr.DataArray, keep: Sequence[int] = KEEP) -> xr.DataArray:
    """Set to 0 what the scene classification does not call clear.

    Parameters
    ----------
    data : DataArray of unsigned integers, dims of `scl` and possibly ``band``
        DN or reflectance × 10 000, 0 = no data.
    scl : DataArray of integers
        Scene classification on the same pixels.
    keep : sequence of int
        Classes that count as clear.

    Returns
    -------
    DataArray
        `data` with its dtype; a pixel stays only where the class is kept and no band is 0.
    """
    clear = scl.isin(list(keep))
    if "band" in data.dims:
        clear = clear & (data != 0).all("band")
    return data.where(clear, data.dtype.type(0))


def monthly_median(data: xr.DataArray, months: pd.DatetimeIndex | None = None) -> xr.Dataset:
    """Median of the observations of each calendar month, and their number.

    Parameters
    ----------
    data : DataArray of integers, dims ``time`` and any others
        Masked observations (see `mask_scl`), 0 = no observation. Where there is a ``band``
        dimension, a pixel with a 0 in any band counts as not observed.
    months : DatetimeIndex, optional
        First days of the months wanted; default all from the first to the last date.

    Returns
    -------
    Dataset
        ``reflectance`` uint16, time first, 0 where a month has no observation; an even number of
        observations takes the mean of the two middle ones, rounded half up. ``observations``
        uint8 without the ``band`` dimension.

    Raises
    ------
    TypeError
        For floating-point data: NaN as no data and rounded medians do not go together.
    """
    _require_integers(data, "monthly_median")
    stamps = pd.DatetimeIndex(data["time"].values)
    first_days = stamps.to_period("M").start_time
    if months is None:
        months = pd.date_range(first_days.min(), first_days.max(), freq="MS")
    if "band" in data.dims:
        data = data.where((data != 0).all("band"), data.dtype.type(0))
    of_month = tuple(tuple(np.flatnonzero(first_days == month)) for month in months)
    median, count = xr.apply_ufunc(
        _medians,
        data.chunk(time=-1) if data.chunks else data,
        kwargs={"of_month": of_month},
        input_core_dims=[["time"]],
        output_core_dims=[["month"], ["month"]],
        dask="parallelized",
        output_dtypes=[np.uint16, np.uint8],
        dask_gufunc_kwargs={"output_sizes": {"month": len(months)}},
    )
    if "band" in data.dims:
        count = count.isel(band=0, drop=True)
    cube = xr.Dataset({"reflectance": median, "observations": count})
    cube = cube.rename(month="time").assign_coords(time=months)
    return cube.transpose("time", ...)


def fill_gaps(data: xr.DataArray, method: Fill = "neighbour-mean") -> xr.DataArray:
    """Fill the zeros of monthly composites from the months around them.

    Parameters
    ----------
    data : DataArray of uint16, with dim ``time`` (ascending)
        Composites, 0 = gap.
    method : {"neighbour-mean", "linear", "none"}
        ``neighbour-mean`` takes the mean of the nearest observed month before and after;
        ``linear`` weights them by time; at both ends the nearest observed month. A pixel that
        is 0 at all times stays 0.

    Returns
    -------
    DataArray of uint16, time first.
    """
    _require_integers(data, "fill_gaps")
    days = pd.DatetimeIndex(data["time"].values).to_julian_date().to_numpy()
    filled = xr.apply_ufunc(
        _filled,
        data.chunk(time=-1) if data.chunks else data,
        kwargs={"days": (days - days[0]).astype(np.int32), "method": method},
        input_core_dims=[["time"]],
        output_core_dims=[["time"]],
        dask="parallelized",
        output_dtypes=[np.uint16],
    )
    return filled.transpose("time", ...).assign_attrs(data.attrs)


def _require_integers(data: xr.DataArray, caller: str) -> None:
    if not np.issubdtype(data.dtype, np.integer):
        raise TypeError(
            f"{caller} works on integers with 0 as no data, got {data.dtype}; load with "
            "dtype='uint16', nodata=0, or convert: (x * 10000).round().fillna(0).astype('uint16')"
        )


def _time_first(block: np.ndarray) -> np.ndarray:
    # apply_ufunc hands the core dimension over last, as a view; moved back, the view is the
    # original layout and the reshape copies nothing.
    lead = np.moveaxis(block, -1, 0)
    rows = lead.reshape(lead.shape[0], -1)
    if rows.dtype != np.uint16:
        rows = np.clip(rows, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return np.ascontiguousarray(rows)


def _medians(block: np.ndarray, of_month: tuple[tuple[int, ...], ...]) -> tuple[np.ndarray, ...]:
    rows = _time_first(block)
    pixels = rows.shape[1]
    median = np.empty((len(of_month), 1, pixels), np.uint16)
    count = np.empty((len(of_month), pixels), np.uint8)
    for month, scenes in enumerate(of_month):
        values = rows[list(scenes), None, :]
        everywhere = np.ones((len(scenes), pixels), np.bool_)
        nothing = np.zeros(len(scenes), np.uint16)
        masked_median(values, everywhere, nothing, median[month], count[month])
    shape = (len(of_month), *block.shape[:-1])
    return np.moveaxis(median.reshape(shape), 0, -1), np.moveaxis(count.reshape(shape), 0, -1)


def _filled(block: np.ndarray, days: np.ndarray, method: str) -> np.ndarray:
    rows = _time_first(block).copy()
    fill_gaps_inplace(rows, days, method)
    lead = rows.reshape(block.shape[-1], *block.shape[:-1])
    return np.moveaxis(lead, 0, -1)
