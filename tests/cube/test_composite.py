"""The xarray functions against the plain xarray idiom, for any dates, chunks and integer types."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from cube.composite import fill_gaps, mask_scl, monthly_median
from tests.twins import plain_fill, plain_monthly_median

DTYPES = st.sampled_from([np.uint16, np.int16, np.int32, np.uint8])


@st.composite
def stacks(draw):
    days = sorted(draw(st.lists(st.integers(0, 364), min_size=1, max_size=14)))
    time = pd.Timestamp("2023-01-01") + pd.to_timedelta(days, unit="D") + pd.Timedelta(hours=10)
    dtype = draw(DTYPES)
    shape = (len(days), draw(st.integers(1, 3)), draw(st.integers(1, 4)), draw(st.integers(1, 5)))
    top = min(10_000, np.iinfo(dtype).max)
    values = draw(arrays(dtype, shape, elements=st.one_of(st.just(0), st.integers(1, top))))
    scl = draw(arrays(np.uint8, (shape[0], *shape[2:]), elements=st.integers(0, 11)))
    dims = ("time", "band", "y", "x")
    coords = {"time": time, "band": [f"b{n}" for n in range(shape[1])]}
    data = xr.DataArray(values, dims=dims, coords=coords)
    return data, xr.DataArray(scl, dims=("time", "y", "x"), coords={"time": time})


def expected_of(data, scl):
    months = xr.DataArray(
        pd.date_range(
            *(pd.Timestamp(t).to_period("M").start_time for t in data.time.values[[0, -1]]),
            freq="MS",
        ),
        dims="time",
    )
    nothing = xr.zeros_like(data.time, dtype="float64")
    return plain_monthly_median(data, scl.isin([4, 5, 6, 7]), nothing, months)


@given(stack=stacks())
@settings(deadline=None, max_examples=80)
def test_mask_and_median_equal_the_idiom(stack):
    data, scl = stack
    cube = monthly_median(mask_scl(data, scl))
    reflectance, observations = expected_of(data, scl)
    assert np.array_equal(cube.reflectance.values, reflectance)
    assert np.array_equal(cube.observations.values, observations)
    # A month with no clear pixel is never a number.
    empty = np.broadcast_to((observations == 0)[:, None], reflectance.shape)
    assert not cube.reflectance.values[empty].any()


@given(stack=stacks(), data=st.data())
@settings(deadline=None, max_examples=40)
def test_any_chunking_gives_the_same_and_stays_lazy(stack, data):
    values, scl = stack
    chunks = {dim: data.draw(st.integers(1, size)) for dim, size in values.sizes.items()}
    lazy = values.chunk(chunks)
    lazy_scl = scl.chunk({dim: chunks[dim] for dim in scl.dims})
    with dask.config.set(scheduler=refuse_to_compute):
        cube = monthly_median(mask_scl(lazy, lazy_scl))
        filled = fill_gaps(cube.reflectance)
    assert isinstance(filled.data, da.Array)
    eager = monthly_median(mask_scl(values, scl))
    with dask.config.set(scheduler="synchronous"):
        assert np.array_equal(cube.reflectance.values, eager.reflectance.values)
        assert np.array_equal(cube.observations.values, eager.observations.values)
        assert np.array_equal(filled.values, fill_gaps(eager.reflectance).values)


def refuse_to_compute(*_args, **_kwargs):
    raise AssertionError("a lazy function computed")


@given(
    values=arrays(np.uint16, (12, 2, 3, 4), elements=st.one_of(st.just(0), st.integers(1, 9999))),
    method=st.sampled_from(["neighbour-mean", "linear", "none"]),
    transposed=st.booleans(),
)
@settings(deadline=None, max_examples=60)
def test_fill_gaps_is_the_plain_fill_in_any_layout(values, method, transposed):
    months = pd.date_range("2023-01-01", periods=12, freq="MS")
    data = xr.DataArray(values, dims=("time", "band", "y", "x"), coords={"time": months})
    given_data = data.transpose("y", "x", "band", "time") if transposed else data
    filled = fill_gaps(given_data, method).transpose(*data.dims).values
    days = (months - months[0]).days.to_numpy()
    flat = values.reshape(12, -1)
    expected = np.stack([plain_fill(s, days, method) for s in flat.T], axis=1)
    assert np.array_equal(filled, expected.reshape(values.shape))


def test_months_can_be_asked_for():
    time = pd.to_datetime(["2023-02-03", "2023-02-20", "2023-05-01"])
    data = xr.DataArray(
        np.array([[10], [13], [7]], "uint16"), dims=("time", "x"), coords={"time": time}
    )
    cube = monthly_median(data, pd.date_range("2023-01", "2023-06", freq="MS"))
    assert cube.reflectance[:, 0].values.tolist() == [0, 12, 0, 0, 7, 0]
    assert cube.observations[:, 0].values.tolist() == [0, 2, 0, 0, 1, 0]
    assert fill_gaps(cube.reflectance)[:, 0].values.tolist() == [12, 12, 10, 10, 7, 7]


def test_floats_are_refused_with_the_remedy():
    data = xr.DataArray(
        np.ones((2, 2)),
        dims=("time", "x"),
        coords={"time": pd.to_datetime(["2023-01-01", "2023-02-01"])},
    )
    with pytest.raises(TypeError, match="dtype='uint16', nodata=0"):
        monthly_median(data)
    with pytest.raises(TypeError, match="fill_gaps works on integers"):
        fill_gaps(data)
