"""Spectral indices against hand-worked values from the formulas of the papers."""

from __future__ import annotations

import dask
import dask.array as da
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from cube.errors import SpectralIndexError
from cube.indices import CONSTANTS, LETTERS, indices
from cube.recipe import BANDS


def cube_of(**bands):
    """A cube of one month and one row; each band a list of pixels."""
    values = np.array([list(bands.values())], np.uint16)[:, :, None, :]
    coords = {"time": pd.to_datetime(["2023-06-01"]), "band": list(bands)}
    reflectance = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords=coords,
        attrs={"grid_mapping": "spatial_ref"},
    )
    return xr.Dataset({"reflectance": reflectance}).assign_coords(spatial_ref=32631)


def test_hand_worked_indices():
    cube = cube_of(blue=[300], green=[600], red=[400], nir=[4400], rededge1=[900], swir16=[1600])
    names = ["NDVI", "EVI", "NDWI", "NDMI", "SAVI", "EVI2"]
    found = indices(cube, names)
    assert list(found) == names
    expected = {
        "NDVI": 4000 / 4800,
        # 2.5 × 0.4 / (0.44 + 6 × 0.04 − 7.5 × 0.03 + 1)
        "EVI": 1.0 / 1.455,
        "NDWI": -3800 / 5000,
        "NDMI": 2800 / 6000,
        "SAVI": 1.5 * 0.4 / (0.48 + 0.5),
        "EVI2": 1.0 / (0.44 + 2.4 * 0.04 + 1),
    }
    for name, value in expected.items():
        assert found[name].dtype == np.float32
        assert found[name].dims == ("time", "y", "x")
        assert found[name].item() == pytest.approx(value, abs=1e-6)
    assert "spatial_ref" in found.coords
    assert found["EVI"].attrs["grid_mapping"] == "spatial_ref"
    assert found["EVI"].attrs["constant_L"] == 1.0
    assert found["EVI"].attrs["references"].startswith("https://doi.org/")


def test_no_data_is_nan_in_the_indices_that_use_the_band():
    cube = cube_of(blue=[0, 300], red=[400, 0], nir=[4400, 4400])
    found = indices(cube, ["NDVI", "EVI"])
    assert np.isnan(found["NDVI"].values.ravel()).tolist() == [False, True]
    assert np.isnan(found["EVI"].values.ravel()).tolist() == [True, True]


def test_a_division_by_zero_is_nan():
    # VARI = (green − red) / (green + red − blue), all exact in binary.
    cube = cube_of(blue=[5000], green=[3750], red=[1250])
    assert np.isnan(indices(cube, ["VARI"])["VARI"].item())


def test_indices_of_a_lazy_cube_are_lazy_and_equal():
    rng = np.random.default_rng(0)
    cube = cube_of(**{band: rng.integers(0, 5000, 60) for band in BANDS})
    names = ["NDVI", "EVI", "NDWI", "NBR"]

    def refuse(*_args, **_kwargs):
        raise AssertionError("a lazy function computed")

    with dask.config.set(scheduler=refuse):
        lazy = indices(cube.chunk(x=7, band=1), names)
    assert all(isinstance(lazy[name].data, da.Array) for name in names)
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_equal(lazy.compute(), indices(cube, names))


def test_every_band_of_a_recipe_has_a_letter():
    assert set(LETTERS) == set(BANDS)
    assert len(set(LETTERS.values())) == len(LETTERS)


def test_constants_are_the_papers_unless_given():
    cube = cube_of(red=[400], nir=[4400])
    assert CONSTANTS["SAVI"] == {"L": 0.5}
    found = indices(cube, ["SAVI"], constants={"L": 1.0})
    assert found["SAVI"].item() == pytest.approx(2 * 0.4 / 1.48, abs=1e-6)
    with pytest.raises(SpectralIndexError, match="WDRVI has a constant alpha .*'alpha': …"):
        indices(cube, ["WDRVI"])
    alpha = indices(cube, ["WDRVI"], constants={"alpha": 0.2})
    assert alpha["WDRVI"].item() == pytest.approx((0.088 - 0.04) / (0.088 + 0.04), abs=1e-6)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("ndvi", "unknown index 'ndvi'; did you mean NDVI"),
        ("Foliage", "unknown index 'Foliage'; "),
        ("NDMI", "NDMI needs the band swir16, and the cube has red, nir; add it to the recipe's"),
        ("kNDVI", "kNDVI needs 'kNN', which is no band of Sentinel-2"),
        ("NBRT1", "NBRT1 needs the band swir22"),
    ],
)
def test_errors_say_what_to_change(name, message):
    with pytest.raises(SpectralIndexError, match=message):
        indices(cube_of(red=[400], nir=[4400]), [name])
