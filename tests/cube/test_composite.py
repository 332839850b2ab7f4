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

from cube.composite import composite, fill_gaps, mask_scl, monthly_median
from cube.errors import RecipeError
from cube.reducers import reducer
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
@settings(max_examples=80)
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
@settings(max_examples=40)
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


@given(stack=stacks(), data=st.data(), name=st.sampled_from(["medoid", "geomedian"]))
@settings(max_examples=20)
def test_reducers_of_whole_spectra_do_not_depend_on_chunks(stack, data, name):
    values, scl = stack
    masked = mask_scl(values, scl)
    chunks = {dim: data.draw(st.integers(1, size)) for dim, size in values.sizes.items()}
    with dask.config.set(scheduler="synchronous"):
        lazy = composite(masked.chunk(chunks), name).compute()
    xr.testing.assert_equal(lazy, composite(masked, name))


def refuse_to_compute(*_args, **_kwargs):
    raise AssertionError("a lazy function computed")


@given(
    values=arrays(np.uint16, (12, 2, 3, 4), elements=st.one_of(st.just(0), st.integers(1, 9999))),
    method=st.sampled_from(["neighbour-mean", "linear", "none"]),
    transposed=st.booleans(),
)
@settings(max_examples=60)
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


@given(stack=stacks(), name=st.sampled_from(["mean", "percentile", "medoid", "geomedian"]))
@settings(max_examples=30)
def test_composite_is_the_reducer_pixel_by_pixel_in_any_layout(stack, name):
    data, scl = stack
    masked = mask_scl(data, scl)
    percentile = 20 if name == "percentile" else None
    layout = masked.transpose("y", "band", "x", "time")
    cube = composite(layout, name, period="dekad", percentile=percentile)
    assert cube.reflectance.dims == ("time", "y", "band", "x")
    assert cube.observations.dims == ("time", "y", "x")
    reduce = reducer(name, [], percentile)
    ends = [*cube.time.values[1:], np.datetime64("2100")]
    for start, end in zip(cube.time.values, ends, strict=True):
        inside = (data.time.values >= start) & (data.time.values < end)
        values = masked.values[inside].astype(np.uint16)
        flat = values.reshape(len(values), data.sizes["band"], scl[0].size)
        out = np.empty(flat.shape[1:], np.uint16)
        count = np.empty(flat.shape[2], np.uint8)
        everywhere = np.ones((len(flat), flat.shape[2]), bool)
        reduce(flat, everywhere, np.zeros(len(flat), np.uint16), out, count)
        found = cube.sel(time=start).transpose("band", "y", "x")
        assert np.array_equal(found.reflectance.values, out.reshape(values.shape[1:]))
        assert np.array_equal(found.observations.values.ravel(), count)


def test_quarters_and_dekads_by_hand():
    time = pd.to_datetime(["2024-02-10 10:50", "2024-02-11 10:50", "2024-02-29 10:50"])
    data = xr.DataArray(
        np.array([[10], [20], [60]], "uint16"), dims=("time", "x"), coords={"time": time}
    )
    dekads = composite(data, "mean", period="dekad")
    assert dekads.reflectance[:, 0].values.tolist() == [10, 20, 60]
    assert [str(day)[:10] for day in dekads.time.values] == [
        "2024-02-01",
        "2024-02-11",
        "2024-02-21",
    ]
    quarters = composite(data, "mean", period="QS", start="2024-01", end="2024-06")
    assert quarters.reflectance[:, 0].values.tolist() == [30, 0]
    assert quarters.observations[:, 0].values.tolist() == [3, 0]
    with pytest.raises(ValueError, match="no whole QS-JAN starts on 2024-02-01"):
        composite(data, "mean", period="QS")


def test_greatest_ndvi_finds_its_bands_by_name():
    time = pd.to_datetime(["2024-02-03", "2024-02-08"])
    values = np.array([[[300], [100], [7]], [[100], [50], [8]]], "uint16")
    data = xr.DataArray(
        values, dims=("time", "band", "x"), coords={"time": time, "band": ["nir", "red", "blue"]}
    )
    best = composite(data, "max-ndvi")
    assert best.reflectance.values.ravel().tolist() == [300, 100, 7]
    with pytest.raises(RecipeError, match="needs the bands red and nir"):
        composite(data.drop_vars("band"), "max-ndvi")


def test_floats_are_refused_with_the_remedy():
    data = xr.DataArray(
        np.ones((2, 2)),
        dims=("time", "x"),
        coords={"time": pd.to_datetime(["2023-01-01", "2023-02-01"])},
    )
    with pytest.raises(TypeError, match="composite works on .* dtype='uint16', nodata=0"):
        monthly_median(data)
    with pytest.raises(TypeError, match="fill_gaps works on integers"):
        fill_gaps(data)
