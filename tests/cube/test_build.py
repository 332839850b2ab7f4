"""Tiles and cubes against the plain expressions, through real files."""

from __future__ import annotations

import threading

import dask
import numpy as np
import pytest
import rioxarray  # noqa: F401 - registers .rio
import xarray as xr

import cube
from cube.build import build, build_tile
from cube.composite import fill_gaps, mask_scl, monthly_median
from cube.errors import ReadError
from cube.grid import NativeGrid, Window
from cube.mask import clear_mask
from cube.planning import GridPlan, Tile, load_plan, plan
from cube.recipe import Mask, Recipe
from tests.archive import GRID, enlarge, write_archive
from tests.twins import plain_fill, plain_monthly_median

DATES = ["2023-01-05", "2023-01-15", "2023-02-03", "2023-04-10", "2023-04-12", "2023-04-30"]
YEAR = {"start": "2023-01", "end": "2023-05"}


def bbox_of(grid: NativeGrid, window: Window) -> tuple[float, float, float, float]:
    box = grid.geobox(window).extent.to_crs("EPSG:4326").boundingbox
    return (box.left, box.bottom, box.right, box.top)


def whole(grid: NativeGrid) -> tuple[float, float, float, float]:
    return bbox_of(grid, grid.window)


@pytest.mark.parametrize("fill", ["neighbour-mean", "linear", "none"])
def test_tile_is_the_plain_expression(tmp_path, fill):
    archive = write_archive(
        tmp_path, DATES, ("blue", "swir16", "nir"), subtract=(0, 1000, 0, 1000, 0, 0)
    )
    recipe = Recipe(bands=("blue", "swir16", "nir"), fill=fill, **YEAR)
    made = plan(whole(GRID), archive.scenes, recipe)
    window = Window(row=100, col=61, height=33, width=40)
    tile = build_tile(made.grids[0], Tile(row=0, col=0, window=window))
    rows, cols = window.yx
    months = xr.DataArray(recipe.periods, dims="time")
    reflectance, observations = plain_monthly_median(
        archive.dn[..., rows, cols],
        archive.scl[..., rows, cols].isin([4, 5, 6, 7]),
        archive.subtract,
        months,
    )
    days = (recipe.periods - recipe.periods[0]).days.to_numpy()
    series = reflectance.reshape(5, -1)
    filled = np.stack([plain_fill(s, days, fill) for s in series.T], 1).reshape(reflectance.shape)
    assert np.array_equal(tile.observations.values, observations)
    assert np.array_equal(tile.reflectance.values, filled)
    assert not observations[2].any()  # March has no scene ...
    assert (tile.reflectance.values[2] > 0).any() == (fill != "none")  # ... so it is filled


def test_cube_keeps_the_contract(tmp_path):
    archive = write_archive(tmp_path, DATES)
    recipe = Recipe(bands=("nir", "blue"), **YEAR)
    ds = build(plan(whole(GRID), archive.scenes, recipe))
    assert ds.reflectance.dims == ("time", "band", "y", "x")
    assert ds.reflectance.dtype == np.uint16
    assert ds.observations.dims == ("time", "y", "x")
    assert ds.observations.dtype == np.uint8
    assert list(ds.band.values) == ["nir", "blue"]
    assert list(ds.time.values) == list(recipe.periods.values)
    assert ds.rio.crs.to_epsg() == 32631
    assert float(ds.x[0]) == GRID.left + 5
    assert float(ds.y[0]) == GRID.top - 5
    assert ds.rio.transform() == GRID.transform
    assert ds.attrs["recipe_hash"] == recipe.hash


def test_graph_does_not_grow_with_scenes(tmp_path):
    few = write_archive(tmp_path / "few", DATES[:2])
    many = write_archive(tmp_path / "many", DATES * 3)
    recipe = Recipe(bands=("blue", "nir"), **YEAR)
    sizes = [
        len(dict(build(plan(whole(GRID), found.scenes, recipe)).__dask_graph__()))
        for found in (few, many)
    ]
    assert sizes[0] == sizes[1] <= 12


def test_tiles_join_to_the_cube_of_the_functions(tmp_path):
    grid = NativeGrid(
        granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=1301, width=1100
    )
    archive = write_archive(tmp_path, DATES[:4], grid=grid, subtract=(0, 1000, 0, 0))
    recipe = Recipe(bands=("blue", "nir"), **YEAR)
    made = plan(whole(grid), archive.scenes, recipe)
    assert made.n_tiles == 4
    ds = build(made)
    with dask.config.set(scheduler="threads", num_workers=2):
        ds = ds.compute()
    dn = archive.dn.where(archive.subtract == 0, np.maximum(archive.dn, 1001) - 1000)
    dn = dn.where(archive.dn > 0, 0).astype("uint16")
    expected = monthly_median(mask_scl(dn, archive.scl), recipe.periods)
    assert np.array_equal(ds.observations.values, expected.observations.values)
    assert np.array_equal(ds.reflectance.values, fill_gaps(expected.reflectance).values)


def test_an_area_is_cut_to_its_bounding_box_on_whole_20_m_pixels(tmp_path):
    archive = write_archive(tmp_path, DATES[:2])
    recipe = Recipe(bands=("blue",), **YEAR)
    inner = Window(row=31, col=45, height=20, width=30)
    made = plan(bbox_of(GRID, inner), archive.scenes, recipe)
    window = made.grids[0].window
    assert (window.row % 2, window.col % 2) == (0, 0)
    assert window.intersect(inner) == inner
    assert window.height <= 26
    full = build(plan(whole(GRID), archive.scenes, recipe)).compute()
    part = build(made).compute()
    assert np.array_equal(part.reflectance, full.reflectance[..., window.yx[0], window.yx[1]])
    assert np.array_equal(part.x, full.x[window.yx[1]])


def test_an_area_of_one_pixel(tmp_path):
    archive = write_archive(tmp_path, DATES[:2])
    lon, lat, *_ = bbox_of(GRID, Window(row=200, col=100, height=1, width=1))
    made = plan(
        (lon + 1e-5, lat + 1e-5, lon + 2e-5, lat + 2e-5),
        archive.scenes,
        Recipe(bands=("blue",), **YEAR),
    )
    assert made.n_tiles == 1
    assert build(made).reflectance.shape[-2:] == (2, 2)


class Spy:
    """A reader that answers from arrays and counts what was asked."""

    def __init__(self, archive):
        self.archive, self.asked, self.lock = archive, [], threading.Lock()

    def __call__(self, scene, band, window, out, wanted=None, free=None):
        with self.lock:
            self.asked.append((scene.id, band))
        if free is not None:
            free.wait()
        n = int(scene.id[-3:])
        rows, cols = window.yx
        if band == "scl":
            out[:] = self.archive.scl.values[n][::2, ::2][rows, cols]
        else:
            b = list(self.archive.dn.band.values).index(band)
            out[:] = self.archive.dn.values[n, b][rows, cols]
        return int(out.max())


def test_what_cannot_contribute_is_never_read_and_nothing_is_read_twice(tmp_path):
    archive = write_archive(tmp_path, DATES)
    archive.scl.values[1] = 9
    archive.scl.values[4] = 0
    recipe = Recipe(bands=("blue", "nir"), start="2023-01", end="2023-03")
    made = plan(whole(GRID), archive.scenes, recipe)
    spy = Spy(archive)
    build_tile(made.grids[0], made.grids[0].tiles[0], read=spy)
    ids = [scene.id for scene in archive.scenes]
    expected = [(ids[n], "scl") for n in (0, 1, 2)]
    expected += [(ids[n], band) for n in (0, 2) for band in ("blue", "nir")]
    assert sorted(spy.asked) == sorted(expected)


def test_a_failed_read_stops_the_build_and_names_the_asset(tmp_path):
    archive = write_archive(tmp_path, DATES)
    broken = archive.scenes.scenes[2]
    path = tmp_path / broken.id / "nir.tif"
    path.write_bytes(path.read_bytes()[:3000])
    made = plan(whole(GRID), archive.scenes, Recipe(bands=("blue", "nir"), **YEAR))
    with pytest.raises(ReadError, match=f"{broken.id}, nir .*damaged") as failure:
        build(made).compute(scheduler="threads")
    assert (failure.value.item, failure.value.asset) == (broken.id, "nir")
    path.unlink()
    with pytest.raises(ReadError, match="the file is gone"):
        build(made).compute(scheduler="threads")


def test_a_file_on_another_grid_is_refused(tmp_path):
    archive = write_archive(tmp_path, DATES[:1])
    scene = archive.scenes.scenes[0]
    moved = scene.grid.model_copy(update={"left": scene.grid.left + 20})
    scenes = archive.scenes.model_copy(
        update={"scenes": (scene.model_copy(update={"grid": moved}),)}
    )
    made = plan(whole(moved), scenes, Recipe(bands=("blue",), **YEAR))
    with pytest.raises(ReadError, match="another grid"):
        build(made).compute(scheduler="threads")


def test_a_plan_survives_its_file(tmp_path):
    archive = write_archive(tmp_path, DATES)
    made = plan(whole(GRID), archive.scenes, Recipe(bands=("blue",), **YEAR))
    assert load_plan(made.save(tmp_path / "plan.json")) == made
    damaged = (tmp_path / "plan.json").read_text().replace('"epsg"', '"espg"')
    (tmp_path / "plan.json").write_text(damaged)
    with pytest.raises(cube.PlanError, match="damaged plan, grids.0.grid"):
        load_plan(tmp_path / "plan.json")


def neighbours(tmp_path):
    """Two granules of zone 31 whose clips overlap across the border of their 100 km squares."""
    west = NativeGrid(
        granule="31TDJ", epsg=32631, left=498_000.0, top=4_832_000.0, height=300, width=400
    )
    east = NativeGrid(
        granule="31TEJ", epsg=32631, left=499_980.0, top=4_832_000.0, height=300, width=400
    )
    first = write_archive(tmp_path / "west", DATES, grid=west, seed=1)
    second = write_archive(tmp_path / "east", DATES, grid=east, seed=2)
    scenes = cube.Scenes(source="both", scenes=first.scenes.scenes + second.scenes.scenes)
    return west, east, scenes


def test_granules_share_an_area_without_seam_or_double(tmp_path):
    west, east, scenes = neighbours(tmp_path)
    box_west = bbox_of(west, Window(row=50, col=20, height=200, width=200))
    box_east = bbox_of(east, Window(row=50, col=180, height=200, width=200))
    area = (box_west[0], box_west[1], box_east[2], box_east[3])
    tree = build(plan(area, scenes, Recipe(bands=("blue",), **YEAR)))
    assert sorted(tree.children) == ["31TDJ", "31TEJ"]
    left, right = tree["31TDJ"].x.values, tree["31TEJ"].x.values
    assert left[-1] == 499_995.0
    assert right[0] == 500_005.0


def test_an_area_inside_one_granule_stays_one_dataset(tmp_path):
    west, east, scenes = neighbours(tmp_path)
    # In the overlap: both granules see it, the one whose square holds it is used.
    area = bbox_of(east, Window(row=50, col=20, height=100, width=100))
    made = plan(area, scenes, Recipe(bands=("blue",), **YEAR))
    assert [grid.grid.granule for grid in made.grids] == ["31TEJ"]
    assert isinstance(build(made), xr.Dataset)
    # Mostly in the western square but wholly seen by the eastern granule only.
    beyond = bbox_of(east, Window(row=50, col=10, height=100, width=300))
    assert [g.grid.granule for g in plan(beyond, scenes, made.recipe).grids] == ["31TEJ"]


def test_plan_errors_say_what_to_do(tmp_path):
    archive = write_archive(tmp_path, DATES)
    with pytest.raises(cube.PlanError, match="no scene covers the area .granules searched: 31TEJ"):
        plan((10, 50, 10.1, 50.1), archive.scenes, Recipe(bands=("blue",), **YEAR))
    with pytest.raises(cube.PlanError, match="no asset for red"):
        plan(whole(GRID), archive.scenes, Recipe(bands=("red",), **YEAR))
    later = Recipe(bands=("blue",), start="2024-01", end="2024-02")
    with pytest.raises(cube.PlanError, match="search that period"):
        plan(whole(GRID), archive.scenes, later)


def test_gridplan_is_small_in_a_task(tmp_path):
    archive = write_archive(tmp_path, DATES)
    made = plan(whole(GRID), archive.scenes, Recipe(bands=("blue",), **YEAR))
    again = GridPlan.model_validate_json(made.grids[0].model_dump_json())
    assert again.task_hash(again.tiles[0]) == made.grids[0].task_hash(made.grids[0].tiles[0])


def plain_series(archive, recipe) -> tuple[np.ndarray, np.ndarray]:
    """Harmonised values and where they count, [scene, band, y, x] and [scene, y, x]."""
    dn = archive.dn.sel(band=list(recipe.bands)).astype(int)
    usable = archive.scl.isin(recipe.mask.keep) & ((dn > 0) & (dn <= 60_000)).all("band")
    harmonised = np.maximum(dn - archive.subtract, 1).where(usable, 0)
    return harmonised.transpose("time", "band", "y", "x").values, usable.values


def test_a_dated_series_is_every_clear_observation_with_its_date(tmp_path):
    subtract = (0, 1000, 0, 1000, 0, 0)
    archive = write_archive(tmp_path, DATES, ("blue", "nir"), subtract=subtract)
    recipe = Recipe(bands=("nir", "blue"), composite="series", fill="none", **YEAR)
    ds = build(plan(whole(GRID), archive.scenes, recipe)).compute()
    values, usable = plain_series(archive, recipe)
    assert list(ds.time.values) == list(archive.dn.time.values)
    assert np.array_equal(ds.reflectance.values, values)
    assert np.array_equal(ds.observations.values, usable)


def test_a_pass_that_shows_nothing_keeps_its_date(tmp_path):
    archive = write_archive(tmp_path, DATES)
    archive.scl.values[3] = 9
    recipe = Recipe(bands=("blue",), composite="series", fill="none", **YEAR)
    made = plan(whole(GRID), archive.scenes, recipe).grids[0]
    tile = build_tile(made, made.tiles[0], read=Spy(archive))
    assert tile.sizes["time"] == len(DATES)
    assert tile.observations.any(("y", "x")).values.tolist() == [n != 3 for n in range(6)]
    assert not tile.reflectance.values[3].any()


def one_pass(scenes: cube.Scenes, *datetimes: str) -> cube.Scenes:
    """Make the first scenes parts of one pass, sensed when told."""
    parts = tuple(
        scene.model_copy(update={"acquisition": "one pass", "datetime": datetime})
        for scene, datetime in zip(scenes.scenes, datetimes, strict=False)
    )
    return scenes.model_copy(update={"scenes": parts + scenes.scenes[len(parts) :]})


def test_parts_of_a_pass_are_one_date_and_one_observation(tmp_path):
    archive = write_archive(tmp_path, DATES)
    scenes = one_pass(archive.scenes, "2023-01-05T10:43:34.9Z", "2023-01-05T10:43:29.5Z")
    recipe = Recipe(bands=("blue", "nir"), composite="series", fill="none", **YEAR)
    ds = build(plan(whole(GRID), scenes, recipe)).compute()
    assert list(ds.time.values) == list(archive.dn.time.values[[0, 2, 3, 4, 5]])
    values, usable = plain_series(archive, recipe)
    # The first part in order of ids, and the second where the mask takes the first.
    first = archive.scl.isin(recipe.mask.keep).values[0]
    assert np.array_equal(ds.reflectance.values[0], np.where(first, values[0], values[1]))
    assert np.array_equal(ds.observations.values[0], np.where(first, usable[0], usable[1]))


def test_a_pass_over_midnight_falls_in_one_period(tmp_path):
    archive = write_archive(tmp_path, DATES[:3])
    scenes = one_pass(archive.scenes, "2023-01-31T23:59:58Z", "2023-02-01T00:00:04Z")
    made = plan(whole(GRID), scenes, Recipe(bands=("blue",), **YEAR)).grids[0]
    assert made.places.tolist() == [0, 0, 1]
    assert list(made.times) == list(made.recipe.periods)
    february = Recipe(bands=("blue",), start="2023-02", end="2023-02")
    made = plan(whole(GRID), scenes, february).grids[0]
    assert [scene.id for scene in made.scenes] == [scenes.scenes[2].id]


def test_two_months_take_the_mean_of_their_observations(tmp_path):
    archive = write_archive(tmp_path, DATES, subtract=(0, 1000, 0, 1000, 0, 0))
    recipe = Recipe(
        bands=("blue", "nir"),
        start="2022-11",
        end="2023-04",
        period="2MS",
        composite="mean",
        fill="none",
    )
    ds = build(plan(whole(GRID), archive.scenes, recipe)).compute()
    values, usable = plain_series(archive, recipe)
    assert not ds.reflectance.values[0].any()
    for place, part in ((1, slice(0, 3)), (2, slice(3, 6))):
        count = usable[part].sum(0)
        mean = values[part].sum(0) / np.maximum(count, 1)
        assert np.array_equal(ds.observations.values[place], count)
        assert np.array_equal(ds.reflectance.values[place], np.floor(mean + 0.5))


def test_a_mask_that_looks_around_leaves_no_seam_between_tiles(tmp_path):
    grid = NativeGrid(
        granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=1301, width=1100
    )
    archive = write_archive(tmp_path, DATES[:1], ("blue",), grid=grid)
    mask = Mask(erode=20, dilate=60)
    recipe = Recipe(bands=("blue",), start="2023-01", end="2023-01", mask=mask, fill="none")
    made = plan(whole(grid), archive.scenes, recipe)
    assert made.n_tiles == 4
    ds = build(made).compute(scheduler="threads")
    clear = clear_mask(archive.scl.values[0, ::2, ::2], mask)
    expected = enlarge(clear.astype(np.uint8), 2, grid) * (archive.dn.values[0, 0] > 0)
    assert 0.02 < expected.mean() < 0.9
    assert np.array_equal(ds.observations.values[0], expected)
