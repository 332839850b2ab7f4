"""The arrays of a store: one Zarr v3 group per granule, one shard per tile (`cube.shards`).

Zarr writes the metadata and the coordinates, `cube.shards` the values.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr
from zarr.abc.buffer import Buffer
from zarr.storage import MemoryStore

from cube.errors import StoreError
from cube.grid import TILE, Window, cell, cells
from cube.markers import not_done, require_marked, shard, tile_name
from cube.objects import Folder
from cube.planning import GridPlan, Plan, Tile
from cube.recipe import Recipe
from cube.shards import COMPRESSORS, INNER, read_shard, write_shard

_DTYPES: dict[str, np.dtype] = {
    "reflectance": np.dtype("uint16"),
    "observations": np.dtype("uint8"),
}

_SECONDS = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}


def create_groups(root: Folder, plan: Plan) -> None:
    """Create the empty arrays of a plan, but for what is there.

    The metadata of a plan are always the same bytes: where a creation was interrupted, or several
    processes begin at once, each writes what it does not find.
    """
    there = set().union(*(root.listing(grid.grid.granule) for grid in plan.grids))
    if root.exists("zarr.json"):
        there.add("zarr.json")
    for name, content in _metadata(plan).items():
        if name not in there:
            root.put(name, content)


def write_shards(root: Folder, plan: GridPlan, tile: Tile, cube: xr.Dataset) -> dict[str, str]:
    """Write a tile's shards whole and read them back.

    Parameters
    ----------
    root : Folder
        Folder of the plan's arrays.
    plan : GridPlan
        What the tile belongs to.
    tile : Tile
        Its window tells where in the shard the values lie; the rest of the shard is 0.
    cube : Dataset
        ``reflectance`` uint16 [time, band, y, x] and ``observations`` uint8 [time, y, x].

    Returns
    -------
    dict of str to str
        SHA-256 of each shard's file.

    Raises
    ------
    StoreError
        If what was read back is not what was written.
    """
    box = cell(tile.row, tile.col).intersect(plan.grid.window)
    inside = tile.window.relative_to(box)
    return {
        name: write_shard(root, shard(plan, tile, name), _whole(cube[name].values, inside, box))
        for name in _DTYPES
    }


def read_window(root: Folder, plan: GridPlan, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window of a plan's grid; it may reach over tiles and beyond the grid.

    Parameters
    ----------
    root : Folder
        Folder of the plan's arrays.
    plan : GridPlan
        What the arrays hold.
    window : Window
        Pixels of the grid.

    Returns
    -------
    reflectance : ndarray of uint16 [time, band, y, x]
    observations : ndarray of uint8 [time, y, x]
        Pixels that no tile of the plan holds are 0.

    Raises
    ------
    StoreError
        If a tile of the plan that the window needs is not done or is damaged.
    """
    leads = {name: _lead(plan, name) for name in _DTYPES}
    values = {
        name: np.zeros((*leads[name], window.height, window.width), dtype)
        for name, dtype in _DTYPES.items()
    }
    planned = {(tile.row, tile.col): tile for tile in plan.tiles}
    inner = window.intersect(plan.grid.window)
    for place in cells(inner) if not inner.empty else ():
        tile = planned.get(place)
        if tile is None or (part := tile.window.intersect(inner)).empty:
            continue
        require_marked(root, plan, tile)
        target, within = part.relative_to(window), part.relative_to(cell(*place))
        for name, dtype in _DTYPES.items():
            with _damage_told(root, plan, tile, name):
                values[name][(..., *target.yx)] = read_shard(
                    root, shard(plan, tile, name), leads[name], dtype, within
                )
    return values["reflectance"], values["observations"]


@contextmanager
def _damage_told(root: Folder, plan: GridPlan, tile: Tile, name: str) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise not_done(root, plan, tile) from error
    # What the shard's own checks raise is ValueError; RuntimeError is Blosc's.
    except (ValueError, RuntimeError) as error:
        raise StoreError(
            f"{root}, tile {tile_name(plan, tile)}: {name} is damaged ({error}); delete "
            f"{root}/{shard(plan, tile, name)} and run the build again"
        ) from error


def _lead(plan: GridPlan, name: str) -> tuple[int, ...]:
    times, bands = len(plan.times), len(plan.recipe.bands)
    return (times, bands) if name == "reflectance" else (times,)


def _whole(values: np.ndarray, inside: Window, box: Window) -> np.ndarray:
    if values.shape[-2:] == (box.height, box.width):
        return values
    whole = np.zeros((*values.shape[:-2], box.height, box.width), values.dtype)
    whole[(..., *inside.yx)] = values
    return whole


def _metadata(plan: Plan) -> dict[str, bytes]:
    """Return the name and content of every object but the shards."""
    made: dict[str, Buffer] = {}
    store = MemoryStore(made)
    zarr.create_group(store, zarr_format=3, attributes=_attributes(plan.recipe))
    for grid in plan.grids:
        _create_group(store, grid)
    return {name: content.to_bytes() for name, content in made.items()}


def _create_group(store: MemoryStore, plan: GridPlan) -> None:
    group = zarr.create_group(
        store,
        path=plan.grid.granule,
        zarr_format=3,
        attributes=_attributes(plan.recipe),
    )
    for name, dtype in _DTYPES.items():
        lead = _lead(plan, name)
        group.create_array(
            name,
            shape=(*lead, plan.grid.height, plan.grid.width),
            dtype=dtype,
            shards=(*lead, TILE, TILE),
            chunks=(*lead, INNER, INNER),
            compressors=COMPRESSORS,
            fill_value=0,
            dimension_names=("time", "band", "y", "x") if len(lead) == 2 else ("time", "y", "x"),
            attributes={"grid_mapping": "spatial_ref"},
        )
    _create_coordinates(group, plan)


def _create_coordinates(group: zarr.Group, plan: GridPlan) -> None:
    box = plan.grid.geobox(plan.grid.window)
    # Whole seconds hold the passes of a dated series as well as first days.
    seconds = (plan.times - pd.Timestamp(0)) // pd.Timedelta(seconds=1)
    for name, values, attributes in (
        ("time", seconds.to_numpy().astype("int64"), _SECONDS),
        ("y", box.coordinates["y"].values, {"standard_name": "projection_y_coordinate"}),
        ("x", box.coordinates["x"].values, {"standard_name": "projection_x_coordinate"}),
    ):
        group.create_array(name, data=values, dimension_names=(name,), attributes=attributes)
    group.create_array(
        "spatial_ref",
        data=np.array(plan.grid.epsg, "int32"),
        dimension_names=(),
        attributes={"crs_wkt": box.crs.wkt, "spatial_ref": box.crs.wkt},
    )


def _attributes(recipe: Recipe) -> dict[str, Any]:
    return {
        "recipe": recipe.model_dump_json(),
        "recipe_hash": recipe.hash,
        "bands": list(recipe.bands),
    }
