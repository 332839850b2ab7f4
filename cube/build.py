"""How a year of satellite images becomes a cube.

Each tile is one task that sees all its dates, so the number of tasks does not depend on the number
of scenes. `build_tile` is the one function that every runner calls:

1. read the scene classification of every scene, and forget scenes without a clear pixel here;
2. month by month, read the bands of the remaining scenes into one integer buffer, many reads in
   flight, the next month arriving while the median of this one is taken;
3. fill the gaps over time.

Nothing is resampled and nothing becomes a float.
"""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

import dask
import dask.array as da
import numpy as np
import xarray as xr
from odc.geo.xr import xr_coords

from cube.grid import Window, cell, cells
from cube.kernels import fill_gaps_inplace, masked_median, self_test
from cube.looks import clear_looks, months_of
from cube.planning import GridPlan, Plan, Tile
from cube.read import Reader, read_window


def build_tile(plan: GridPlan, tile: Tile, read: Reader = read_window) -> xr.Dataset:
    """Build one tile: read, harmonise, mask, monthly median, fill.

    Parameters
    ----------
    plan : GridPlan
        Recipe, grid and scenes.
    tile : Tile
        One of the plan's tiles; its window is built.
    read : Reader
        How pixels are read; default GDAL.

    Returns
    -------
    Dataset
        ``reflectance`` uint16 [time, band, y, x] and ``observations`` uint8 [time, y, x] in memory.

    Raises
    ------
    ReadError
        If any asset that contributes cannot be read.
    """
    self_test()
    window, recipe = tile.window, plan.recipe
    pixels = window.height * window.width
    reflectance = np.zeros((len(recipe.months), len(recipe.bands), pixels), np.uint16)
    observations = np.zeros((len(recipe.months), pixels), np.uint8)
    looks = clear_looks(plan, window, read)
    for month, values in months_of(looks, recipe, window, read):
        masked_median(
            values,
            looks.clear[month.first : month.last],
            np.array([scene.subtract for scene in month.scenes], np.uint16),
            reflectance[month.index],
            observations[month.index],
        )
    days = recipe.months.to_julian_date().to_numpy().astype(np.int32)
    fill_gaps_inplace(reflectance.reshape(len(recipe.months), -1), days, recipe.fill)
    cube = reflectance.reshape(*reflectance.shape[:2], window.height, window.width)
    counts = observations.reshape(-1, window.height, window.width)
    if plan.cut_at_zone:
        own = plan.grid.zone_mask(window)
        cube *= own
        counts *= own
    return _dataset(plan, window, cube, counts)


def build(plan: Plan) -> xr.Dataset | xr.DataTree:
    """Return the cube of a plan, lazy and backed by Dask.

    Returns
    -------
    Dataset or DataTree
        A Dataset with ``reflectance`` uint16 [time, band, y, x] (reflectance × 10 000, 0 = no
        data) and ``observations`` uint8 [time, y, x]; one chunk per tile. Several native grids
        give a DataTree with one node per granule. Pixels of the bounding box that no tile holds
        are 0.
    """
    cubes = {grid.grid.granule: _build_grid(grid) for grid in plan.grids}
    if len(cubes) == 1:
        return next(iter(cubes.values()))
    return xr.DataTree.from_dict(cubes)


def _dataset(plan: GridPlan, window: Window, reflectance: Any, observations: Any) -> xr.Dataset:
    recipe = plan.recipe
    coords = dict(xr_coords(plan.grid.geobox(window), "spatial_ref"))
    coords["time"] = xr.DataArray(recipe.months, dims="time")
    coords["band"] = xr.DataArray(np.array(recipe.bands, dtype=str), dims="band")
    mapping = {"grid_mapping": "spatial_ref"}
    return xr.Dataset(
        {
            "reflectance": (
                ("time", "band", "y", "x"),
                reflectance,
                mapping | {"long_name": "surface reflectance × 10 000", "nodata": 0},
            ),
            "observations": (
                ("time", "y", "x"),
                observations,
                mapping | {"long_name": "number of clear observations"},
            ),
        },
        coords=coords,
        attrs={
            "recipe": recipe.model_dump_json(),
            "recipe_hash": recipe.hash,
            "software": f"cropcube {version('cropcube')}",
            "granule": plan.grid.granule,
        },
    )


def _build_grid(plan: GridPlan) -> xr.Dataset:
    # The plan enters the graph once; tasks carry its key and their tile, never a list of scenes.
    shared = dask.delayed(plan, name=f"plan-{plan.hash}", traverse=False)
    lazy_tile = dask.delayed(build_tile, pure=True)

    def task(tile: Tile) -> Any:
        return lazy_tile(shared, tile, dask_key_name=f"tile-{plan.task_hash(tile)}")

    return assemble(plan, {(tile.row, tile.col): task(tile) for tile in plan.tiles})


def assemble(plan: GridPlan, tasks: dict[tuple[int, int], Any]) -> xr.Dataset:
    """Join delayed tiles into one lazy Dataset of the plan's window.

    Parameters
    ----------
    plan : GridPlan
        Its window and tiles.
    tasks : dict of (row, col) to Delayed
        Each gives the Dataset of the tile's window.
    """
    whole = plan.window
    tiles = {(tile.row, tile.col): tile for tile in plan.tiles}
    months, bands = len(plan.recipe.months), len(plan.recipe.bands)

    def lazy(name: str, lead: tuple[int, ...], dtype: Any) -> da.Array:
        def block(place: tuple[int, int]) -> da.Array:
            box = cell(*place).intersect(whole)
            shape = (*lead, box.height, box.width)
            if place not in tiles:
                return da.zeros(shape, dtype=dtype, chunks=shape)
            inside = tiles[place].window.relative_to(box)
            values = dask.delayed(_values)(tasks[place], name, shape, inside)
            return da.from_delayed(values, shape, dtype=dtype)

        places = list(cells(whole))
        rows = sorted({row for row, _ in places})
        return da.block([[block(place) for place in places if place[0] == row] for row in rows])

    reflectance = lazy("reflectance", (months, bands), np.uint16)
    return _dataset(plan, whole, reflectance, lazy("observations", (months,), np.uint8))


def _values(cube: xr.Dataset, name: str, shape: tuple[int, ...], inside: Window) -> np.ndarray:
    values = cube[name].values
    if values.shape == shape:
        return values
    padded = np.zeros(shape, values.dtype)
    padded[..., inside.yx[0], inside.yx[1]] = values
    return padded
