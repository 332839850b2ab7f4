"""Where values come from, against a look left and right of every gap."""

from __future__ import annotations

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from cube.composite import fill_gaps
from cube.errors import CropcubeError
from cube.source import source


def cube_of(observations: np.ndarray, reflectance: np.ndarray) -> xr.Dataset:
    """A cube [time, y, x] with the same reflectance in two bands."""
    bands = np.repeat(reflectance[:, None].astype("uint16"), 2, axis=1)
    return xr.Dataset(
        {
            "reflectance": (("time", "band", "y", "x"), bands),
            "observations": (("time", "y", "x"), observations.astype("uint8")),
        },
        {
            "time": np.arange("2023-01", f"2023-{len(observations) + 1:02d}", dtype="M8[M]").astype(
                "M8[ns]"
            )
        },
    )


def filled(observations: np.ndarray, method: str) -> xr.Dataset:
    raw = cube_of(observations, observations * 100)
    return raw.assign(reflectance=fill_gaps(raw.reflectance, method))


def by_hand(series: list[int], method: str) -> list[int]:
    observed = [n for n, count in enumerate(series) if count]
    kinds = []
    for n, count in enumerate(series):
        sides = (any(m < n for m in observed), any(m > n for m in observed))
        if count:
            kinds.append(1)
        elif method == "none" or not observed:
            kinds.append(0)
        else:
            kinds.append(2 if all(sides) else 3)
    return kinds


@given(
    st.lists(st.lists(st.sampled_from([0, 0, 1, 3]), min_size=7, max_size=7), min_size=1),
    st.sampled_from(["neighbour-mean", "linear", "none"]),
)
def test_every_kind_is_what_lies_left_and_right(pixels, method):
    observations = np.array(pixels, np.uint8).T[:, None]
    found = source(filled(observations, method))
    assert found.dims == ("time", "y", "x")
    assert found.dtype == np.uint8
    assert found.values[:, 0].T.tolist() == [by_hand(series, method) for series in pixels]


def test_flags_are_named_as_cf_has_them():
    flags = source(filled(np.array([0, 1, 0, 2, 0])[:, None, None], "linear")).attrs
    assert flags["flag_values"].tolist() == [0, 1, 2, 3]
    assert flags["flag_meanings"].split() == [
        "empty",
        "observed",
        "filled_from_both_sides",
        "filled_from_one_side",
    ]


def test_a_lazy_cube_stays_lazy_and_keeps_its_chunks():
    rng = np.random.default_rng(0)
    ds = filled(rng.integers(0, 2, (6, 9, 8)), "neighbour-mean")

    def never(*args, **kwargs):
        raise AssertionError("computed")

    with dask.config.set(scheduler=never):
        lazy = source(ds.chunk(time=2, y=4, x=5))
    assert lazy.chunks[1:] == ((4, 4, 1), (5, 3))
    assert np.array_equal(lazy.compute(scheduler="threads"), source(ds))


def test_what_is_no_cube_is_said():
    with pytest.raises(CropcubeError, match="not a cube: it has red, but reflectance"):
        source(xr.Dataset({"red": 1}))
