"""How a year of satellite images becomes a cube.

Each tile is one task that sees all its dates, so the number of tasks does not depend on the number
of scenes. `build_tile` is the one function that every runner calls:

1. read the scene classification of every scene, and forget scenes without a clear pixel here;
2. period by period, read the bands of the remaining scenes into one integer buffer, many reads in
   flight, the next period arriving while the composite of this one is made;
3. fill the gaps over time.

A dated series is the same with a period per pass of the satellite, and no gap filled.

Nothing is resampled, and the cube holds integers as the files do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from importlib.metadata import version
from typing import Any

import dask.array as da
import numpy as np
import xarray as xr
from dask.base import tokenize
from dask.highlevelgraph import HighLevelGraph
from odc.geo.xr import xr_coords

from cube.cores import compute, fit_pool
from cube.grid import Window, cell, cells
from cube.kernels import fill_gaps_inplace, self_test
from cube.looks import TileView
from cube.planning import GridPlan, Plan, Tile
from cube.read import Reader, read_native
from cube.reducers import reducer_of

#: So few tiles of a grid that their tasks may each hold the plan.
FEW = 32


def build_tile(
    plan: GridPlan, tile: Tile, read: Reader = read_native, max_missing: float = 0.0
) -> xr.Dataset:
    """Build one tile: read, harmonise, mask, composite, fill.

    Parameters
    ----------
    plan : GridPlan
        Recipe, grid and scenes.
    tile : Tile
        One of the plan's tiles; its window is built.
    read : Reader
        How pixels are read; default from the files of the scenes.
    max_missing : float
        Share of the scenes, 0…1, that may fail to be read here; they count as not taken.

    Returns
    -------
    Dataset
        ``reflectance`` uint16 [time, band, y, x] and ``observations`` uint8 [time, y, x] in memory;
        the attribute ``tally`` holds a `cube.tally.Tally` as JSON.

    Raises
    ------
    ReadError
        If any asset that contributes cannot be read.
    """
    self_test()
    fit_pool()
    window, recipe, times = tile.window, plan.recipe, plan.times
    reduce, size = reducer_of(recipe), (window.height, window.width)
    reflectance = np.zeros((len(times), len(recipe.bands), math.prod(size)), np.uint16)
    observations = np.zeros((len(times), math.prod(size)), np.uint8)
    view = TileView(plan, window, read, max_missing)
    for at in view.periods():
        out, count = reflectance[at.place], observations[at.place]
        compute(reduce, at.values, at.clear, at.subtract, out, count)
    days = times.to_julian_date().to_numpy().astype(np.int32)
    fill_gaps_inplace(
        reflectance.reshape(-1, len(recipe.bands) * math.prod(size)), days, recipe.fill
    )
    cube = reflectance.reshape(*reflectance.shape[:2], *size)
    counts = observations.reshape(-1, *size)
    own = plan.owned(window)
    if not own.all():
        cube *= own
        counts *= own
    made = _dataset(plan, window, cube, counts)
    return made.assign_attrs(tally=view.tally.model_dump_json())


def build(plan: Plan, max_missing: float = 0.0) -> xr.Dataset | xr.DataTree:
    """Return the cube of a plan, lazy and backed by Dask.

    Parameters
    ----------
    plan : Plan
        From `cube.plan`.
    max_missing : float
        Share of a tile's scenes, 0…1, that may fail to be read; default none.

    Returns
    -------
    Dataset or DataTree
        A Dataset with ``reflectance`` uint16 [time, band, y, x] (reflectance × 10 000, 0 = no
        data) and ``observations`` uint8 [time, y, x]; one chunk per tile. Several native grids
        give a DataTree with one node per granule. Pixels of the bounding box that no tile holds
        are 0.
    """
    cubes = {grid.grid.granule: _build_grid(grid, max_missing) for grid in plan.grids}
    if len(cubes) == 1:
        return next(iter(cubes.values()))
    return xr.DataTree.from_dict(cubes)


def _dataset(plan: GridPlan, window: Window, reflectance: Any, observations: Any) -> xr.Dataset:
    recipe = plan.recipe
    coords = dict(xr_coords(plan.grid.geobox(window), "spatial_ref"))
    coords["time"] = xr.DataArray(plan.times, dims="time")
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


def _build_grid(plan: GridPlan, max_missing: float) -> xr.Dataset:
    # The plan enters the graph once; tasks carry its key and their tile, never a list of scenes. A
    # few tiles carry it themselves: Dask would crowd them where their common input lies.
    shared = f"plan-{plan.hash}"
    make = partial(build_tile, max_missing=max_missing)
    graph: dict[str, Any] = {} if len(plan.tiles) <= FEW else {shared: plan}
    source = shared if graph else plan
    keys = {}
    for tile in plan.tiles:
        key = keys[tile.row, tile.col] = f"tile-{plan.task_hash(tile)}-{max_missing:g}"
        graph[key] = (make, source, tile)
    return assemble(plan, keys, graph)


def assemble(
    plan: GridPlan, keys: Mapping[tuple[int, int], str], graph: Mapping[str, Any]
) -> xr.Dataset:
    """Join tiles into one lazy Dataset of the plan's window.

    Parameters
    ----------
    plan : GridPlan
        Its window and tiles.
    keys : mapping of (row, col) to str
        Per tile, the key in `graph` of the Dataset of its window.
    graph : mapping of str to task
        A Dask graph; may hold more than the tiles.
    """
    times, bands = len(plan.times), len(plan.recipe.bands)
    name = f"tiles-{tokenize(list(keys.values()))}"
    tiles = HighLevelGraph({name: dict(graph)}, {name: set()})
    reflectance = _joined(plan, keys, tiles, "reflectance", (times, bands), np.uint16)
    observations = _joined(plan, keys, tiles, "observations", (times,), np.uint8)
    return _dataset(plan, plan.window, reflectance, observations)


def _joined(
    plan: GridPlan,
    keys: Mapping[tuple[int, int], str],
    tiles: HighLevelGraph,
    name: str,
    lead: tuple[int, ...],
    dtype: type[np.unsignedinteger],
) -> da.Array:
    """Return one variable of all tiles, with one key per cell of the window."""
    whole = plan.window
    inside = {(tile.row, tile.col): tile.window for tile in plan.tiles}
    boxes = {place: cell(*place).intersect(whole) for place in cells(whole)}
    row, col = next(iter(boxes))
    (upstream,) = tiles.layers
    layer = f"{name}-{upstream}"
    graph: dict[tuple[object, ...], tuple[Any, ...]] = {}
    for place, box in boxes.items():
        shape = (*lead, box.height, box.width)
        key = (layer, *(0 for _ in lead), place[0] - row, place[1] - col)
        if place in inside:
            graph[key] = (_values, keys[place], name, shape, inside[place].relative_to(box))
        else:
            graph[key] = (np.zeros, shape, dtype)
    chunks = (
        *((length,) for length in lead),
        tuple(box.height for place, box in boxes.items() if place[1] == col),
        tuple(box.width for place, box in boxes.items() if place[0] == row),
    )
    layers = HighLevelGraph({**tiles.layers, layer: graph}, {upstream: set(), layer: {upstream}})
    return da.Array(layers, layer, chunks, dtype=dtype)


def _values(cube: xr.Dataset, name: str, shape: tuple[int, ...], inside: Window) -> np.ndarray:
    values = cube[name].values
    if values.shape == shape:
        return values
    padded = np.zeros(shape, values.dtype)
    padded[..., inside.yx[0], inside.yx[1]] = values
    return padded
