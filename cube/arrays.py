"""The arrays of a store: one Zarr v3 group per granule, one shard per tile (`cube.shards`)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
import zarr

from cube.errors import StoreError
from cube.grid import TILE, Window, cell, cells
from cube.markers import require_done, shard, tile_name
from cube.planning import GridPlan, Plan, Tile
from cube.recipe import Recipe
from cube.shards import COMPRESSORS, INNER, write_shard

VARIABLES = ("reflectance", "observations")

_SECONDS = {"units": "seconds since 1970-01-01", "calendar": "proleptic_gregorian"}


def create_groups(root: Path, plan: Plan) -> None:
    """Create the empty arrays of a plan, but for those that are there."""
    if not (root / "zarr.json").exists():
        zarr.create_group(root, zarr_format=3, attributes=_attributes(plan.recipe))
    for grid in plan.grids:
        # The last array made tells a whole group from one whose creation was interrupted.
        if not (root / grid.grid.granule / "spatial_ref" / "zarr.json").exists():
            _create_group(root, grid)


def write_shards(root: Path, plan: GridPlan, tile: Tile, cube: xr.Dataset) -> dict[str, str]:
    """Write a tile's shards whole and read them back.

    Parameters
    ----------
    root : Path
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
        name: write_shard(shard(root, plan, tile, name), _whole(cube[name].values, inside, box))
        for name in VARIABLES
    }


def read_window(root: Path, plan: GridPlan, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window of a plan's grid; it may reach over tiles and beyond the grid.

    Parameters
    ----------
    root : Path
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
    stored = {name: _array(root, plan, name) for name in VARIABLES}
    values = {
        name: np.zeros((*array.shape[:-2], window.height, window.width), array.dtype)
        for name, array in stored.items()
    }
    planned = {(tile.row, tile.col): tile for tile in plan.tiles}
    inner = window.intersect(plan.grid.window)
    for place in cells(inner) if not inner.empty else ():
        tile = planned.get(place)
        if tile is None or (part := tile.window.intersect(inner)).empty:
            continue
        require_done(root, plan, tile)
        target = (..., *part.relative_to(window).yx)
        for name, array in stored.items():
            with _damage_told(root, plan, tile, name):
                values[name][target] = array[(..., *part.yx)]
    return values["reflectance"], values["observations"]


@contextmanager
def _damage_told(root: Path, plan: GridPlan, tile: Tile, name: str) -> Iterator[None]:
    try:
        yield
    # What codecs raise: CRC-32C and the shard's index ValueError, Blosc RuntimeError.
    except (ValueError, RuntimeError, OSError) as error:
        raise StoreError(
            f"{root}, tile {tile_name(plan, tile)}: {name} is damaged ({error}); delete "
            f"{shard(root, plan, tile, name)} and run the build again"
        ) from error


def _whole(values: np.ndarray, inside: Window, box: Window) -> np.ndarray:
    if values.shape[-2:] == (box.height, box.width):
        return values
    whole = np.zeros((*values.shape[:-2], box.height, box.width), values.dtype)
    whole[(..., *inside.yx)] = values
    return whole


def _create_group(root: Path, plan: GridPlan) -> None:
    group = zarr.create_group(
        root / plan.grid.granule,
        zarr_format=3,
        attributes=_attributes(plan.recipe),
        overwrite=True,
    )
    times, bands = len(plan.times), len(plan.recipe.bands)
    for name, lead, dtype in (
        ("reflectance", (times, bands), "uint16"),
        ("observations", (times,), "uint8"),
    ):
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


def _array(root: Path, plan: GridPlan, name: str) -> zarr.Array:
    path = root / plan.grid.granule / name
    try:
        changed = (path / "zarr.json").stat().st_mtime_ns
    except FileNotFoundError as error:
        raise StoreError(f"{path} is not there; run the build again, it resumes") from error
    return _opened(path, changed)


# Training reads thousands of windows: parse an array's metadata once.
@lru_cache(maxsize=128)
def _opened(path: Path, _changed: int) -> zarr.Array:
    return zarr.open_array(path, mode="r")
