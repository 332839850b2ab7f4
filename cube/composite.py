"""The steps of a build as xarray functions, for any NumPy- or Dask-backed array.

`build_tile` fuses these steps over blocks of files; here they stand alone, lazily, for data that
was loaded some other way. Both use the same kernels, so both give the same numbers.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
import xarray as xr

from cube import periods
from cube.errors import RecipeError
from cube.kernels import fill_gaps_inplace
from cube.mask import clear_mask
from cube.recipe import KEEP, SCL_PIXEL, Fill, Mask
from cube.reducers import Reducer
from cube.reducers import reducer as named_reducer


def mask_scl(
    data: xr.DataArray,
    scl: xr.DataArray,
    keep: Sequence[int] = KEEP,
    *,
    erode: int = 0,
    dilate: int = 0,
) -> xr.DataArray:
    """Set to 0 what the scene classification does not call clear.

    Parameters
    ----------
    data : DataArray of unsigned integers, dims of `scl` and possibly ``band``
        DN or reflectance × 10 000, 0 = no data.
    scl : DataArray of integers
        Scene classification on the same pixels.
    keep : sequence of int
        Classes that count as clear.
    erode, dilate : int
        Metres by which masked areas shrink and then grow, as in `cube.Mask`. Measured on the
        scene classification's own 20 m pixels, whose corners lie on multiples of 20 m: `scl` must
        be on a native grid of 10 or 20 m. Clouds beyond its edge are not known: load an area with
        as much around it.

    Returns
    -------
    DataArray
        `data` with its dtype; a pixel stays only where the class is kept and no band is 0.

    Raises
    ------
    RecipeError
        If `erode` or `dilate` is no distance, or `scl` is not on a native grid.
    """
    clear = scl.isin(list(keep))
    if erode or dilate:
        clear = _clear_at_20_m(scl, Mask(keep=tuple(keep), erode=erode, dilate=dilate))
    if "band" in data.dims:
        clear = clear & (data != 0).all("band")
    return data.where(clear, data.dtype.type(0))


def composite(
    data: xr.DataArray,
    reducer: str = "median",
    *,
    period: str = "month",
    start: str | None = None,
    end: str | None = None,
    percentile: int | None = None,
) -> xr.Dataset:
    """Reduce the observations of each period to one, and count them.

    Parameters
    ----------
    data : DataArray of integers, dims ``time`` and any others
        Masked observations (see `mask_scl`), 0 = no observation. Where there is a ``band``
        dimension, a pixel with a 0 in any band counts as not observed.
    reducer : str
        ``median``, ``mean``, ``percentile``, ``medoid``, ``max-ndvi`` or ``geomedian``, as in
        `cube.reducers`.
    period : str
        ``month``, ``dekad`` or a pandas offset of first days (``2MS``, ``QS``, ``W-MON``, ``16D``).
    start, end : str, optional
        First and last day of all periods, both included, ``YYYY-MM`` or ``YYYY-MM-DD``; default
        the months of the first and of the last date.
    percentile : int, optional
        For ``percentile`` alone.

    Returns
    -------
    Dataset
        ``reflectance`` uint16, time (first days of the periods) first, 0 where a period has no
        observation. ``observations`` uint8 without the ``band`` dimension.

    Raises
    ------
    TypeError
        For floating-point data: NaN as no data and rounded integers do not go together.
    RecipeError
        For an unknown reducer, or one that lacks a band or its percentile.
    ValueError
        If whole periods do not fill the time from `start` to `end`, or there is no date at all.
    """
    _require_integers(data, "composite")
    stamps = pd.DatetimeIndex(data["time"].values)
    if not len(stamps):
        raise ValueError("composite got data without a single date; widen the search or the area")
    edges = periods.edges(
        start or f"{stamps.min():%Y-%m}",
        end or f"{stamps.max():%Y-%m}",
        periods.one_spelling(period),
    )
    whole = data if "band" in data.dims else data.expand_dims("band", axis=1)
    bands = [str(band) for band in whole["band"].values] if "band" in whole.coords else []
    place = np.asarray(edges.searchsorted(stamps, side="right")) - 1
    reflectance, observations = xr.apply_ufunc(
        _reduced,
        whole.chunk(time=-1, band=-1) if whole.chunks else whole,
        kwargs={
            "groups": [np.flatnonzero(place == n) for n in range(len(edges) - 1)],
            "reduce": named_reducer(reducer, bands, percentile),
        },
        input_core_dims=[["time", "band"]],
        output_core_dims=[["period", "band"], ["period"]],
        dask="parallelized",
        output_dtypes=[np.uint16, np.uint8],
        dask_gufunc_kwargs={"output_sizes": {"period": len(edges) - 1}},
    )
    if "band" not in data.dims:
        reflectance = reflectance.isel(band=0)
    cube = xr.Dataset({"reflectance": reflectance, "observations": observations})
    cube = cube.rename(period="time").assign_coords(time=edges[:-1])
    return cube.transpose("time", *[dim for dim in data.dims if dim != "time"])


def monthly_median(data: xr.DataArray, months: pd.DatetimeIndex | None = None) -> xr.Dataset:
    """Median of the observations of each calendar month, and their number.

    The same as `composite` with its defaults.

    Parameters
    ----------
    data : DataArray of integers, dims ``time`` and any others
        Masked observations, 0 = no observation.
    months : DatetimeIndex, optional
        First days of the months wanted, ascending; default all from the first to the last date.

    Returns
    -------
    Dataset
        ``reflectance`` uint16 and ``observations`` uint8, time first.
    """
    if months is None:
        return composite(data)
    whole = composite(data, start=f"{months[0]:%Y-%m}", end=f"{months[-1]:%Y-%m}")
    return whole.sel(time=months)


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


def _clear_at_20_m(scl: xr.DataArray, mask: Mask) -> xr.DataArray:
    size = float(abs(scl.x[1] - scl.x[0])) if scl.sizes["x"] > 1 else float(SCL_PIXEL)
    if size not in (SCL_PIXEL / 2, SCL_PIXEL):
        raise RecipeError(
            f"erode and dilate work on the scene classification's own pixels, got {size:g} m; load "
            "without crs and resolution, or mask without them"
        )
    factor = round(SCL_PIXEL / size)
    # A 10 m window may begin inside a pixel of 20 m.
    left, top = float(scl.x[0]) - size / 2, float(scl.y[0]) + size / 2
    row, col = round(-top % SCL_PIXEL / size), round(left % SCL_PIXEL / size)
    return xr.apply_ufunc(
        _clear_images,
        scl.chunk(y=-1, x=-1) if scl.chunks else scl,
        kwargs={"mask": mask, "factor": factor, "row": row, "col": col},
        input_core_dims=[["y", "x"]],
        output_core_dims=[["y", "x"]],
        dask="parallelized",
        output_dtypes=[np.bool_],
    ).transpose(*scl.dims)


def _clear_images(images: np.ndarray, mask: Mask, factor: int, row: int, col: int) -> np.ndarray:
    out = np.empty(images.shape, np.bool_)
    high, wide = images.shape[-2:]
    rows, cols = (np.arange(high) + row) // factor, (np.arange(wide) + col) // factor
    first_rows, first_cols = (np.unique(n, return_index=True)[1] for n in (rows, cols))
    for place in np.ndindex(images.shape[:-2]):
        clear = clear_mask(images[place][np.ix_(first_rows, first_cols)], mask)
        out[place] = clear[np.ix_(rows, cols)]
    return out


def _require_integers(data: xr.DataArray, caller: str) -> None:
    if not np.issubdtype(data.dtype, np.integer):
        raise TypeError(
            f"{caller} works on integers with 0 as no data, got {data.dtype}; load with "
            "dtype='uint16', nodata=0, or convert: (x * 10000).round().fillna(0).astype('uint16')"
        )


def _reduced(
    block: np.ndarray, groups: list[np.ndarray], reduce: Reducer
) -> tuple[np.ndarray, np.ndarray]:
    # apply_ufunc hands the core dimensions over last, as a view; moved back, the view is the
    # original layout and nothing is copied.
    lead = np.moveaxis(block, (-2, -1), (0, 1))
    rows = _as_uint16(lead.reshape(*lead.shape[:2], -1))
    bands, pixels = rows.shape[1:]
    out = np.empty((len(groups), bands, pixels), np.uint16)
    count = np.empty((len(groups), pixels), np.uint8)
    for n, scenes in enumerate(groups):
        # Dates in order, as they mostly are, make a period a slice: again no copy.
        ordered = len(scenes) > 0 and scenes[-1] - scenes[0] == len(scenes) - 1
        values = rows[scenes[0] : scenes[-1] + 1] if ordered else rows[scenes]
        everywhere = np.ones((len(scenes), pixels), np.bool_)
        reduce(values, everywhere, np.zeros(len(scenes), np.uint16), out[n], count[n])
    shape = block.shape[:-2]
    return (
        np.moveaxis(out.reshape(len(groups), bands, *shape), (0, 1), (-2, -1)),
        np.moveaxis(count.reshape(len(groups), *shape), 0, -1),
    )


def _filled(block: np.ndarray, days: np.ndarray, method: str) -> np.ndarray:
    lead = np.moveaxis(block, -1, 0)
    rows = _as_uint16(lead.reshape(len(lead), -1)).copy()
    fill_gaps_inplace(rows, days, method)
    return np.moveaxis(rows.reshape(lead.shape), 0, -1)


def _as_uint16(rows: np.ndarray) -> np.ndarray:
    if rows.dtype != np.uint16:
        rows = np.clip(rows, 0, np.iinfo(np.uint16).max).astype(np.uint16)
    return np.ascontiguousarray(rows)
