"""Cubes of real Sentinel-2 archives against their published monthly figures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr

import cube

pytestmark = pytest.mark.real

ARCHIVES = {
    "beziers-2018": ("2018-01", "2018-12", "earth-search"),
    "flanders-2018": ("2017-08", "2018-11", "earth-search"),
    "flanders-2019": ("2018-08", "2019-11", "planetary-computer"),
}


def scenes_of(folder: Path, recipe: cube.Recipe) -> tuple[object, cube.Scenes]:
    from tests.cube.test_build import whole

    items = folder / "items.json"
    anywhere = (-5.0, 40.0, 9.0, 52.0)
    scenes = cube.search(anywhere, recipe, provider=items)
    return whole(next(iter(scenes)).grid), scenes


def build(folder: Path, recipe: cube.Recipe) -> xr.Dataset:
    area, scenes = scenes_of(folder, recipe)
    return cube.build(cube.plan(area, scenes, recipe)).compute(scheduler="threads")


@pytest.mark.parametrize("name", ARCHIVES)
def test_months_are_as_published(real_data, name):
    start, end, style = ARCHIVES[name]
    folder = real_data / "archive" / name
    recipe = cube.Recipe(bands=("red", "nir"), start=start, end=end, fill="none")
    _, scenes = scenes_of(folder, recipe)
    assert {scene.provider.partition("@")[0] for scene in scenes} == {style}
    ds = build(folder, recipe)
    published = pd.read_csv(folder / "reference-monthly.csv", index_col="month")
    for month, row in published.iterrows():
        now = ds.sel(time=f"{month}-01")
        counts = now.observations.values
        assert (counts > 0).mean() == pytest.approx(row.share_pixels_with_clear, abs=6e-5)
        assert counts.mean() == pytest.approx(row.mean_clear_per_pixel, abs=6e-4)
        assert counts.max() == row.max_clear_per_pixel
        for band, mean in (("red", row.mean_of_median_red), ("nir", row.mean_of_median_nir)):
            seen = now.reflectance.sel(band=band).values[counts > 0]
            if np.isnan(mean):
                assert seen.size == 0
            else:
                # The published medians keep halves; ours round them up.
                assert seen.mean() == pytest.approx(mean, abs=0.26)


def test_every_month_of_beziers_is_filled_where_anything_was_seen(real_data):
    recipe = cube.Recipe(
        bands=tuple(b for b in cube.recipe.BANDS if b not in ("coastal", "nir09")),
        start="2018-01",
        end="2018-12",
    )
    ds = build(real_data / "archive" / "beziers-2018", recipe)
    assert dict(ds.sizes) == {"time": 12, "band": 10, "y": 353, "x": 232}
    never = (ds.observations == 0).all("time").values
    two = build(
        real_data / "archive" / "beziers-2018", recipe.model_copy(update={"bands": ("red", "nir")})
    )
    assert int((two.observations == 0).all("time").sum()) == 1726  # published, for red and nir
    assert int(never.sum()) >= 1726  # no data in any of ten bands hides a pixel
    assert not ds.reflectance.values[:, :, never].any()
    assert (ds.reflectance.values[:, :, ~never] > 0).all()


def test_pixels_of_a_cloudless_single_scene_month_are_the_files_own(real_data):
    folder = real_data / "archive" / "beziers-2018"
    ds = build(folder, cube.Recipe(bands=("green", "swir16"), start="2018-06", end="2018-06"))
    clear = ds.observations.values[0] == 1
    name = "S2A_31TEJ_20180627_0_L2A"
    with rasterio.open(folder / name / "B03.tif") as source:
        green = source.read(1)
    with rasterio.open(folder / name / "B11.tif") as source:
        swir = source.read(1).repeat(2, 0).repeat(2, 1)[:353, :232]
    assert np.array_equal(ds.reflectance.values[0, 0][clear], green[clear])
    assert np.array_equal(ds.reflectance.values[0, 1][clear], swir[clear])


def test_baseline_0400_gives_exactly_the_cube_of_the_originals(real_data):
    recipe = cube.Recipe(
        bands=("blue", "green", "red", "nir", "rededge1", "swir22"), start="2018-12", end="2019-11"
    )
    shifted_folder = real_data / "archive" / "flanders-2019-baseline0400"
    area, shifted = scenes_of(shifted_folder, recipe)
    assert {scene.subtract for scene in shifted} == {1000}
    days = {scene.datetime[:10] for scene in shifted}
    _, everything = scenes_of(real_data / "archive" / "flanders-2019", recipe)
    originals = tuple(s for s in everything if s.datetime[:10] in days)
    assert len(originals) == len(shifted) == 13
    assert {scene.subtract for scene in originals} == {0}
    mixed = tuple(pair[n % 2] for n, pair in enumerate(zip(shifted.scenes, originals, strict=True)))
    cubes = [
        cube.build(cube.plan(area, cube.Scenes(source="any", scenes=scenes), recipe)).compute(
            scheduler="threads"
        )
        for scenes in (originals, shifted.scenes, mixed)
    ]
    xr.testing.assert_identical(cubes[0], cubes[1])
    xr.testing.assert_identical(cubes[0], cubes[2])


def test_a_year_of_dated_observations_has_the_medians_of_its_months(real_data):
    folder = real_data / "archive" / "beziers-2018"
    recipe = cube.Recipe(bands=("red", "nir"), start="2018-01", end="2018-12", fill="none")
    monthly = build(folder, recipe)
    fields = recipe.model_dump() | {"composite": "series"}
    series = build(folder, cube.Recipe(**fields))
    assert series.sizes["time"] == len({str(time)[:10] for time in series.time.values})
    assert set(np.unique(series.observations)) == {0, 1}
    clear = series.reflectance.astype("float64").where(series.observations > 0)
    plain = clear.resample(time="MS").median().reindex(time=monthly.time)
    assert np.array_equal(np.floor(plain.fillna(-0.5) + 0.5), monthly.reflectance)
    counts = series.observations.resample(time="MS").sum().reindex(time=monthly.time)
    assert np.array_equal(counts.fillna(0), monthly.observations)


def test_three_dekads_hold_the_observations_of_their_month(real_data):
    folder = real_data / "archive" / "beziers-2018"
    recipe = cube.Recipe(bands=("red", "nir"), start="2018-05", end="2018-08", fill="none")
    monthly = build(folder, recipe)
    dekads = build(folder, cube.Recipe(**recipe.model_dump() | {"period": "dekad"}))
    assert dekads.sizes["time"] == 12
    compared = 0
    for n in range(4):
        three = dekads.isel(time=slice(3 * n, 3 * n + 3))
        assert np.array_equal(three.observations.sum("time"), monthly.observations[n])
        # Where one dekad saw all that the month saw, it is the month.
        alone = (three.observations > 0).sum("time").values == 1
        compared += int(alone.sum())
        highest = three.reflectance.values.max(0)
        assert np.array_equal(highest[:, alone], monthly.reflectance.values[n][:, alone])
    assert compared > 50_000
