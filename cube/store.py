"""Cubes on disk: Zarr v3, one shard per tile, and a marker that says a tile is done.

Layout of ``zones.zarr``::

    zones.zarr/31TEJ/reflectance     uint16 [time, band, y, x], the granule's whole grid
    zones.zarr/31TEJ/observations    uint8  [time, y, x]
    zones.zarr/.cropcube/plan.json   what the store is made from
    zones.zarr/.cropcube/31TEJ-3-4.json   marker of the tile in row 3, column 4: a STAC item

Arrays span the whole grid, so a window of the grid indexes them directly; only tiles of the plan
take room. A tile is written whole by one task, read back, hashed, and only then marked: whatever
interrupts a build, a marked tile is right and an unmarked one is built again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
import zarr
import zarr.codecs

from cube.build import assemble, build_tile
from cube.errors import StoreError
from cube.grid import TILE, NativeGrid, Window, cell, cells
from cube.markers import (
    STATE,
    is_done,
    mark_done,
    problems_of,
    replace_text,
    require_done,
    sha256,
    shard,
    tile_name,
)
from cube.planning import GridPlan, Plan, Tile, load_plan
from cube.recipe import Recipe

#: Pixels of an inner chunk: what a training sample reads, with all its months and bands.
INNER = 64

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class StoredTile:
    """A finished tile: its granule, grid and pixels (a window of the granule's grid)."""

    granule: str
    grid: NativeGrid
    window: Window


def create(plan: Plan, path: str | Path) -> Path:
    """Create the store of a plan, or open it for resuming.

    Raises
    ------
    StoreError
        If `path` holds something else, or the store of another plan.
    """
    root = Path(path)
    state = root / STATE / "plan.json"
    if state.exists():
        known = load_plan(state)
        if known != plan:
            what = "recipe" if known.recipe != plan.recipe else "area or other scenes"
            raise StoreError(
                f"{root} holds a cube of another {what}; choose another path, or delete it to "
                "build anew"
            )
    elif root.exists() and any(root.iterdir()):
        raise StoreError(f"{root} exists and is not a cropcube store; choose another path")
    else:
        state.parent.mkdir(parents=True, exist_ok=True)
        replace_text(state, plan.model_dump_json(indent=1))
    _ensure_groups(plan, root)
    return root


def write(
    plan: Plan, path: str | Path, client: Any = None, progress: Progress | None = None
) -> Path:
    """Build every tile of a plan that is not done yet and write it.

    Parameters
    ----------
    plan : Plan
        What to build.
    path : str or Path
        The store, a folder every worker can reach.
    client : distributed.Client, optional
        Cluster to run on; default threads of this process, one per core.
    progress : callable, optional
        Called with tiles done, tiles in all and the name of the last tile.

    Returns
    -------
    Path
        The store's path.

    Raises
    ------
    ReadError, StoreError
        From the first tile that fails; tiles finished before stay.
    """
    root = create(plan, path)
    todo = [(g, tile) for g in plan.grids for tile in g.tiles if not is_done(root, g, tile)]
    done = plan.n_tiles - len(todo)
    if progress:
        progress(done, plan.n_tiles, "resumed" if done else "started")
    for name in _run(root, todo, client):
        done += 1
        if progress:
            progress(done, plan.n_tiles, name)
    return root


def write_tile(path: str | Path, granule: str, row: int, col: int) -> str:
    """Build one tile of the store's plan, write its shards, read them back, and mark it done.

    Parameters
    ----------
    path : str or Path
        The store; its plan is read there, so that a task carries only its key.
    granule : str
        MGRS tile.
    row, col : int
        Cell of the tile lattice.

    Returns
    -------
    str
        The tile's name.

    Raises
    ------
    StoreError
        If what was read back is not what was written.
    """
    root = Path(path)
    plan = _grid_plan(root, granule)
    tile = next(tile for tile in plan.tiles if (tile.row, tile.col) == (row, col))
    name = tile_name(plan, tile)
    cube = build_tile(plan, tile)
    group = zarr.open_group(root / granule, mode="r+")
    box = cell(tile.row, tile.col).intersect(plan.grid.window)
    inside = tile.window.relative_to(box)
    hashes = {}
    for variable in ("reflectance", "observations"):
        values = cube[variable].values
        whole = np.zeros((*values.shape[:-2], box.height, box.width), values.dtype)
        whole[..., inside.yx[0], inside.yx[1]] = values
        target = group[variable]
        target[..., box.yx[0], box.yx[1]] = whole
        if not np.array_equal(target[..., box.yx[0], box.yx[1]], whole):
            raise StoreError(f"{root}, tile {name}: {variable} read back differs; check the disk")
        hashes[variable] = sha256(shard(root, plan, tile, variable))
    mark_done(root, plan, tile, hashes)
    return name


def open(path: str | Path) -> xr.Dataset | xr.DataTree:
    """Open a store as the lazy cube that `cube.build` returns for its plan.

    Raises
    ------
    StoreError
        If a tile is not done: a missing tile never reads as zeros.
    """
    root = Path(path)
    plan = _plan_of(str(root), _mtime(root))
    cubes = {}
    for grid in plan.grids:
        missing = [t for t in grid.tiles if not is_done(root, grid, t)]
        if missing:
            raise StoreError(
                f"{root}: {len(missing)} of {len(grid.tiles)} tiles of {grid.grid.granule} are not "
                "done; run the build again, it resumes"
            )
        lazy = dask.delayed(_stored_tile, pure=True)
        tasks = {(t.row, t.col): lazy(str(root), grid.grid.granule, t) for t in grid.tiles}
        cubes[grid.grid.granule] = assemble(grid, tasks)
    return next(iter(cubes.values())) if len(cubes) == 1 else xr.DataTree.from_dict(cubes)


def read_recipe(path: str | Path) -> Recipe:
    """Return the recipe a store was built with."""
    return read_plan(path).recipe


def read_plan(path: str | Path) -> Plan:
    """Return the plan a store was last built with.

    Raises
    ------
    StoreError
        If `path` is not a cropcube store.
    """
    return _plan_of(str(path), _mtime(Path(path)))


def tiles(path: str | Path) -> list[StoredTile]:
    """Return all finished tiles of the store's plan, in order of granule, row and column."""
    root = Path(path)
    return [
        StoredTile(grid.grid.granule, grid.grid, tile.window)
        for grid in read_plan(root).grids
        for tile in grid.tiles
        if is_done(root, grid, tile)
    ]


def read_window(path: str | Path, granule: str, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window of a granule's grid into memory.

    Parameters
    ----------
    path : str or Path
        The store.
    granule : str
        MGRS tile, one of the store's groups.
    window : Window
        Pixels of the granule's grid; it may reach over tiles and beyond the grid.

    Returns
    -------
    reflectance : ndarray of uint16 [time, band, y, x]
    observations : ndarray of uint8 [time, y, x]
        Pixels that no tile of the plan holds are 0.

    Raises
    ------
    StoreError
        If a tile of the plan that the window needs is not done.
    """
    root = Path(path)
    grid = _grid_plan(root, granule)
    planned = {(tile.row, tile.col): tile for tile in grid.tiles}
    months, bands = len(grid.recipe.months), len(grid.recipe.bands)
    reflectance = np.zeros((months, bands, window.height, window.width), np.uint16)
    observations = np.zeros((months, window.height, window.width), np.uint8)
    inner = window.intersect(grid.grid.window)
    for place in cells(inner) if not inner.empty else ():
        if place not in planned:
            continue
        part = planned[place].window.intersect(inner)
        if part.empty:
            continue
        require_done(root, grid, planned[place])
        group = _group(str(root / granule))
        target = part.relative_to(window).yx
        reflectance[..., target[0], target[1]] = group["reflectance"][..., part.yx[0], part.yx[1]]
        observations[..., target[0], target[1]] = group["observations"][..., part.yx[0], part.yx[1]]
    return reflectance, observations


def verify(path: str | Path) -> list[str]:
    """Hash every shard again and return what is wrong, one sentence per problem."""
    root = Path(path)
    return [
        problem
        for grid in read_plan(root).grids
        for tile in grid.tiles
        for problem in problems_of(root, grid, tile)
    ]


def _run(root: Path, todo: list[tuple[GridPlan, Tile]], client: Any) -> Iterator[str]:
    keys = [(grid.grid.granule, tile.row, tile.col) for grid, tile in todo]
    if client is None:
        with ThreadPoolExecutor(os.cpu_count() or 1) as pool:
            futures = [pool.submit(write_tile, root, *key) for key in keys]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return
    import distributed

    place = str(root.resolve())
    remote = [client.submit(write_tile, place, *key, pure=False) for key in keys]
    for future in distributed.as_completed(remote):
        yield future.result()


def _ensure_groups(plan: Plan, root: Path) -> None:
    if not (root / "zarr.json").exists():
        zarr.create_group(root, zarr_format=3, attributes=_attributes(plan.recipe))
    for grid in plan.grids:
        # The last array made tells a whole group from one whose creation was interrupted.
        if not (root / grid.grid.granule / "spatial_ref" / "zarr.json").exists():
            _create_group(grid, root)


def _create_group(plan: GridPlan, root: Path) -> None:
    group = zarr.create_group(
        root / plan.grid.granule,
        zarr_format=3,
        attributes=_attributes(plan.recipe),
        overwrite=True,
    )
    months, bands = len(plan.recipe.months), len(plan.recipe.bands)
    space = (plan.grid.height, plan.grid.width)
    for name, lead, dtype in (
        ("reflectance", (months, bands), "uint16"),
        ("observations", (months,), "uint8"),
    ):
        group.create_array(
            name,
            shape=(*lead, *space),
            dtype=dtype,
            shards=(*lead, TILE, TILE),
            chunks=(*lead, INNER, INNER),
            compressors=zarr.codecs.BloscCodec(cname="zstd", clevel=3, shuffle="bitshuffle"),
            fill_value=0,
            dimension_names=("time", "band", "y", "x") if len(lead) == 2 else ("time", "y", "x"),
            attributes={"grid_mapping": "spatial_ref"},
            # Zeros are written like any value: a chunk that is not there means lost data.
            config={"write_empty_chunks": True},
        )
    _create_coordinates(group, plan)


def _create_coordinates(group: zarr.Group, plan: GridPlan) -> None:
    box, months = plan.grid.geobox(plan.grid.window), plan.recipe.months
    epoch = pd.Timestamp("1970-01-01")
    days = ((months - epoch).days).to_numpy().astype("int64")
    calendar = {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    for name, values, attributes in (
        ("time", days, calendar),
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


def _stored_tile(path: str, granule: str, tile: Tile) -> xr.Dataset:
    reflectance, observations = read_window(path, granule, tile.window)
    return xr.Dataset(
        {
            "reflectance": (("time", "band", "y", "x"), reflectance),
            "observations": (("time", "y", "x"), observations),
        }
    )


def _mtime(root: Path) -> int:
    state = root / STATE / "plan.json"
    if not state.exists():
        raise StoreError(f"{root} is not a cropcube store (no {STATE}/plan.json)")
    return state.stat().st_mtime_ns


def _grid_plan(root: Path, granule: str) -> GridPlan:
    plan = read_plan(root)
    for grid in plan.grids:
        if grid.grid.granule == granule:
            return grid
    known = ", ".join(grid.grid.granule for grid in plan.grids)
    raise StoreError(f"{root} has no granule {granule}; it has {known}")


@lru_cache(maxsize=16)
def _plan_of(path: str, _changed: int) -> Plan:
    return load_plan(Path(path) / STATE / "plan.json")


@lru_cache(maxsize=64)
def _group(path: str) -> zarr.Group:
    return zarr.open_group(path, mode="r")
