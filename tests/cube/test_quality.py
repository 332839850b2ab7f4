"""The evidence of a cube against plain NumPy over the whole of it."""

from __future__ import annotations

import json
from pathlib import Path

import dask
import numpy as np
import pandas as pd
import pytest
import rasterio
import xarray as xr
from matplotlib.image import imread

import cube
from cube.build import build
from cube.errors import CropcubeError
from cube.grid import NativeGrid
from cube.planning import plan
from cube.quality import quality
from cube.recipe import Recipe
from cube.source import source
from tests.archive import GRID, write_archive
from tests.cube.test_build import DATES, YEAR, neighbours, whole

KINDS = {"empty": 0, "observed": 1, "filled_both": 2, "filled_one": 3}


@pytest.fixture(autouse=True)
def two_threads():
    with dask.config.set(scheduler="threads", num_workers=2):
        yield


@pytest.fixture(scope="module")
def lazy(tmp_path_factory) -> xr.Dataset:
    """A small cube in twelve chunks, a part of which nobody has ever seen."""
    archive = write_archive(tmp_path_factory.mktemp("archive"), DATES)
    made = plan(whole(GRID), archive.scenes, Recipe(bands=("blue", "nir"), **YEAR))
    ds = build(made).compute(scheduler="threads")
    hidden = (ds.x < GRID.left + 600) & (ds.y > GRID.top - 900)
    return ds.where(~hidden, 0).astype({"reflectance": "uint16", "observations": "uint8"})


@pytest.fixture(scope="module")
def found(lazy):
    return quality(lazy.chunk(y=100, x=80, time=2))


def test_periods_are_shares_of_the_pixels_ever_seen(lazy, found):
    counts = lazy.observations.values
    seen = counts.any(axis=0)
    kinds = source(lazy).values[:, seen]
    assert list(found.periods.index) == list(lazy.time.values)
    for name, kind in KINDS.items():
        assert np.allclose(found.periods[name], (kinds == kind).mean(axis=1))
    assert np.allclose(found.periods["mean"], counts[:, seen].mean(axis=1))
    for name, share in {"q10": 0.1, "median": 0.5, "q90": 0.9}.items():
        expected = np.quantile(counts[:, seen], share, axis=1, method="inverted_cdf")
        assert np.array_equal(found.periods[name], expected)
    assert (found.pixels, found.never) == (seen.size, int((~seen).sum()))
    assert found.never >= 60 * 90


def test_gaps_are_by_chunk_and_unknown_where_nothing_was_ever_seen(lazy, found):
    assert len(found.gaps) == len(found.tiles) == 4 * 3  # none is wholly hidden
    assert not found.gaps.isna().any(axis=None)
    counts = lazy.observations.values[:, 100:200, 80:160]
    seen = counts.any(axis=0)
    row = found.gaps.loc[("31TEJ", "y01-x01")]
    assert np.allclose(row, (counts[:, seen] == 0).mean(axis=1))
    fine = quality(lazy.chunk(y=90, x=60))
    assert fine.gaps.loc[("31TEJ", "y00-x00")].isna().all()
    assert list(fine.tiles.loc[("31TEJ", "y00-x00")]) == [90 * 60, 90 * 60]
    assert fine.gaps.drop(("31TEJ", "y00-x00")).notna().all(axis=None)
    assert (fine.pixels, fine.never) == (found.pixels, found.never)


@pytest.mark.parametrize("chunks", [{}, {"y": 17, "x": 232}, {"band": 1, "time": 1}])
def test_chunks_do_not_change_totals(lazy, found, chunks):
    again = quality(lazy.chunk(chunks) if chunks else lazy)
    pd.testing.assert_frame_equal(again.periods, found.periods)
    assert np.array_equal(again.maps[0].counts, found.maps[0].counts)


def test_the_map_holds_the_number_of_observations(lazy, found):
    (one,) = found.maps
    assert (one.granule, one.step) == ("31TEJ", 1)
    assert np.array_equal(one.counts, lazy.observations.sum("time"))
    assert one.box == lazy.odc.geobox


def test_a_large_map_is_thinned_on_one_lattice_across_chunks():
    rng = np.random.default_rng(1)
    grid = NativeGrid(granule="31TEJ", epsg=32631, left=0.0, top=0.0, height=2300, width=70)
    counts = rng.integers(0, 3, (2, grid.height, grid.width)).astype("uint8")
    coords = dict(odc_coords(grid)) | {"time": pd.date_range("2023-01-01", periods=2, freq="MS")}
    ds = xr.Dataset(
        {
            "reflectance": (("time", "band", "y", "x"), counts[:, None].astype("uint16")),
            "observations": (("time", "y", "x"), counts),
        },
        coords | {"band": ["red"]},
    ).chunk(y=256, x=25)
    (one,) = quality(ds).maps
    assert one.step == 3
    assert np.array_equal(one.counts, counts.sum(axis=0)[::3, ::3])


def odc_coords(grid: NativeGrid):
    from odc.geo.xr import xr_coords

    return xr_coords(grid.geobox(grid.window), "spatial_ref")


def test_examples_are_pixels_of_the_cube(lazy, found):
    kinds = source(lazy)
    assert len(found.series) == 3
    for one in found.series:
        pixel = {"x": one.x, "y": one.y}
        assert np.array_equal(one.reflectance, lazy.reflectance.sel(pixel))
        assert np.array_equal(one.source, kinds.sel(pixel))
        assert (one.source == 1).any()
    gaps = [int((one.source != 1).sum()) for one in found.series]
    assert gaps == sorted(gaps)


def test_every_tile_is_built_once_for_everything(tmp_path):
    grid = GRID.model_copy(update={"height": 1301, "width": 1100})
    archive = write_archive(tmp_path, DATES[:2], ("blue",), grid=grid)
    made = plan(whole(grid), archive.scenes, Recipe(bands=("blue",), **YEAR))
    keys: list[str] = []

    class Spy(dask.callbacks.Callback):
        def _pretask(self, key, dsk, state):
            keys.append(str(key))

    with Spy():
        found = quality(build(made))
    assert sum(key.startswith("tile-") for key in keys) == made.n_tiles == 4
    assert len(found.gaps) == 4


def test_several_grids_are_one_report(tmp_path):
    west, _, scenes = neighbours(tmp_path)
    left, bottom, right, top = whole(west)
    recipe = Recipe(bands=("blue",), **YEAR)
    tree = build(plan((left, bottom, right + 0.02, top), scenes, recipe))
    found = quality(tree)
    assert [one.granule for one in found.maps] == sorted(tree.children)
    assert len(found.maps) == 2
    nodes = [node.to_dataset().compute() for node in tree.children.values()]
    seen = [node.observations.values.reshape(5, -1) for node in nodes]
    seen = np.concatenate([counts[:, counts.any(axis=0)] for counts in seen], axis=1)
    assert np.allclose(found.periods["observed"], (seen > 0).mean(axis=1))
    assert np.allclose(found.periods["mean"], seen.mean(axis=1))
    assert {name.name for name in found.save(tmp_path / "out")} >= {
        f"observations-{granule}.png" for granule in tree.children
    }


def test_files_hold_the_numbers_and_readable_pictures(found, lazy, tmp_path):
    files = {path.name: path for path in found.save(tmp_path / "report")}
    assert list(files) == [
        *("periods.csv", "gaps.csv", "quality.json"),
        *("observations-31TEJ.png", "gaps.png", "series.png"),
    ]
    periods = pd.read_csv(files["periods.csv"], index_col="time", parse_dates=True)
    assert np.allclose(periods, found.periods, atol=1e-5)
    gaps = pd.read_csv(files["gaps.csv"], index_col=["granule", "tile"])
    assert np.allclose(gaps.drop(columns=["pixels", "never"]), found.gaps, atol=1e-5)
    told = json.loads(files["quality.json"].read_text())
    assert told["recipe_hash"] == lazy.attrs["recipe_hash"]
    assert told["never_observed"] == found.never
    assert [row["time"] for row in told["periods"]] == [f"2023-{m:02d}-01" for m in range(1, 6)]
    for name, path in files.items():
        if name.endswith(".png"):
            pixels = imread(path)[..., :3]
            assert min(pixels.shape[:2]) > 200
            assert len(np.unique(pixels.reshape(-1, 3)[::7], axis=0)) > 5


def test_the_table_is_for_people(found):
    text = found.text()
    assert "Jan 2023" in text
    assert f"Of {found.pixels:,} pixels {found.never:,} (" in text


def test_dated_series_of_two_grids_keep_their_own_dates(lazy, tmp_path):
    first = lazy.assign_coords(time=pd.to_datetime(DATES[:5]))
    second = lazy.assign_coords(time=pd.to_datetime(DATES[1:]))
    found = quality(xr.DataTree.from_dict({"31TDJ": first, "31TEJ": second}))
    assert list(found.periods.index) == list(pd.to_datetime(DATES))
    own = quality(first).periods.iloc[0]
    assert np.allclose(found.periods.iloc[0], own)
    assert found.gaps.loc["31TDJ"].isna().sum().tolist() == [0, 0, 0, 0, 0, 1]
    assert "2023-01-15" in found.text()
    assert all(path.exists() for path in found.save(tmp_path))


def test_mistakes_are_said(lazy):
    with pytest.raises(CropcubeError, match="never observed|ever observed"):
        quality(xr.zeros_like(lazy))
    with pytest.raises(CropcubeError, match="not a cube"):
        quality(lazy[["observations"]])


@pytest.mark.real
def test_real_archive_is_as_published(real_data: Path):
    folder = real_data / "archive" / "beziers-2018"
    recipe = Recipe(bands=("red", "nir"), start="2018-01", end="2018-12")
    scenes = cube.search((-5.0, 40.0, 9.0, 52.0), recipe, provider=folder / "items.json")
    found = quality(build(plan(whole(next(iter(scenes)).grid), scenes, recipe)))
    published = pd.read_csv(folder / "reference-monthly.csv", index_col="month")
    assert (found.pixels, found.never) == (353 * 232, 1726)
    share = found.periods["observed"] * (found.pixels - found.never) / found.pixels
    assert np.allclose(share, published.share_pixels_with_clear, atol=6e-5)
    assert found.periods["empty"].max() == 0  # a pixel that was ever seen has a value every month
    months = found.periods.index[(found.periods["observed"] == 0).to_numpy()].month
    assert list(months) == [2, 3, 5, 11, 12]
    assert (found.periods["filled_one"].loc["2018-11":] == 1).all()


def test_a_store_also_tells_what_was_masked(tmp_path) -> None:
    archive = write_archive(tmp_path / "archive", DATES)
    made = plan(whole(GRID), archive.scenes, Recipe(bands=("blue", "nir"), **YEAR))
    cube.store.write(made, tmp_path / "zones.zarr")
    found = quality(tmp_path / "zones.zarr")
    looks: dict[str, list[np.ndarray]] = {}
    for scene in made.grids[0].scenes:
        with rasterio.open(scene.hrefs["scl"]) as source_file:
            looks.setdefault(scene.datetime[:7], []).append(source_file.read(1))
    for time, share in found.periods["masked"].items():
        scl = np.array(looks.get(f"{time:%Y-%m}", []))
        seen = scl[scl != 0]
        expected = 1 - np.isin(seen, (4, 5, 6, 7)).mean() if seen.size else np.nan
        assert np.allclose(share, expected, equal_nan=True)
    assert found.periods["masked"].notna().any()
    assert "masked" in found.text()
