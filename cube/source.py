"""Where each value of a cube comes from: observed, or filled from one side or from both.

Nothing but `observations` and `reflectance` is needed to tell: a value without an observation was
filled, and observations before and after it say from where.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import xarray as xr

from cube.errors import CropcubeError

EMPTY, OBSERVED, BOTH_SIDES, ONE_SIDE = range(4)
MEANINGS = ("empty", "observed", "filled_from_both_sides", "filled_from_one_side")


def source(ds: xr.Dataset) -> xr.DataArray:
    """Say where each value of a cube comes from.

    Parameters
    ----------
    ds : Dataset
        A cube: ``reflectance`` [time, band, y, x] and ``observations`` [time, y, x].

    Returns
    -------
    DataArray of uint8 [time, y, x]
        0 empty, 1 observed, 2 filled from both sides, 3 filled from one side (before the first
        or after the last observation); lazy where the cube is. ``flag_values`` and
        ``flag_meanings`` as CF has them.
    """
    require_cube(ds)
    has_value = (ds.reflectance != 0).any("band")
    kinds = xr.apply_ufunc(
        kinds_of,
        _whole_time(ds.observations > 0),
        _whole_time(has_value),
        kwargs={"axis": -1},
        input_core_dims=[["time"], ["time"]],
        output_core_dims=[["time"]],
        dask="parallelized",
        output_dtypes=[np.uint8],
    )
    named = kinds.transpose("time", ...).rename("source")
    return named.assign_attrs(
        long_name="where the value comes from",
        flag_values=np.arange(len(MEANINGS), dtype=np.uint8),
        flag_meanings=" ".join(MEANINGS),
        grid_mapping="spatial_ref",
    )


def _whole_time(data: xr.DataArray) -> xr.DataArray:
    return data.chunk(time=-1) if data.chunks else data


def kinds_of(observed: np.ndarray, has_value: np.ndarray, axis: int) -> np.ndarray:
    """Return where each value comes from, uint8, from two bool arrays with time along `axis`."""
    before = np.logical_or.accumulate(observed, axis=axis)
    after = np.flip(np.logical_or.accumulate(np.flip(observed, axis), axis=axis), axis)
    kinds = np.where(before & after, np.uint8(BOTH_SIDES), np.uint8(ONE_SIDE))
    kinds[~has_value] = EMPTY
    kinds[observed] = OBSERVED
    return kinds


def require_cube(ds: Any) -> None:
    """Raise a CropcubeError where `ds` has not the variables of a cube."""
    variables = getattr(ds, "data_vars", {})
    if not {"reflectance", "observations"} <= set(variables):
        raise CropcubeError(
            f"not a cube: it has {', '.join(map(str, variables)) or 'no variables'}, but "
            "reflectance and observations are needed, as cube.build and cube.store.open give them"
        )
