"""Cubes on disk or in a bucket: Zarr v3, a shard per tile, and a marker that says it is done.

Layout of ``zones.zarr``::

    zones.zarr/31TEJ/reflectance     uint16 [time, band, y, x], the granule's whole grid
    zones.zarr/31TEJ/observations    uint8  [time, y, x]
    zones.zarr/.cropcube/plan.json   what the store is made from
    zones.zarr/.cropcube/31TEJ-3-4.json   marker of the tile in row 3, column 4: a STAC item
    zones.zarr/2024-01_2024-12/      months added later, laid out the same way (`cube.segments`)

Arrays span the whole grid, so a window of the grid indexes them directly; only tiles of the plan
take room. A tile is written whole by one task, read back, hashed, and only then marked: whatever
interrupts a build, a marked tile is right and an unmarked one is built again.

A store lies in a folder, or in a bucket under ``s3://bucket/prefix``, with the same objects of the
same bytes; `cube.objects` says how buckets are configured.

`append` adds a plan of the same area and recipe, but of another period, beside what is there; no
file of the store is touched. Gaps are filled within each written period, so a later one never
changes the values of an earlier one.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from typing import Any

import dask
import numpy as np
import pandas as pd
import xarray as xr
from dask.base import tokenize
from dask.system import CPU_COUNT

from cube import arrays
from cube.build import assemble, build_tile
from cube.damage import repair as repair
from cube.damage import verify as verify
from cube.errors import StoreError
from cube.grid import NativeGrid, Window
from cube.markers import mark_done, tile_name
from cube.objects import Folder, Place, at
from cube.planning import GridPlan, Plan, Tile
from cube.recipe import Recipe
from cube.segments import (
    Segment,
    has_gap,
    join,
    join_plans,
    place,
    place_beside,
    recent_segments,
    segment_at,
    segments,
    writing,
)
from cube.tally import Tally

Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class StoredTile:
    """A finished tile: its granule, grid and pixels (a window of the granule's grid)."""

    granule: str
    grid: NativeGrid
    window: Window


@dataclass(frozen=True)
class TileTally:
    """What the build of one tile counted.

    Attributes
    ----------
    period : str
        Written period, ``2023-01_2023-12``.
    tile : str
        Granule, row and column of the lattice.
    counts : Tally
        Looks, clear looks, underflow, and what could not be read.
    """

    period: str
    tile: str
    counts: Tally


def create(plan: Plan, path: Place) -> Place:
    """Create the store of a plan, or open it for resuming.

    Parameters
    ----------
    plan : Plan
        What the store is made from.
    path : Path or str
        Folder, or URL such as ``s3://bucket/zones.zarr``.

    Returns
    -------
    Path or str
        The folder where `write_tile` puts the plan's tiles.

    Raises
    ------
    StoreError
        If `path` holds something else, or the store of another plan.
    """
    return _with_arrays(place(at(path), plan), plan).place


def write(
    plan: Plan,
    path: Place,
    client: Any = None,
    progress: Progress | None = None,
    max_missing: float = 0.0,
) -> Place:
    """Build every tile of a plan that is not done yet and write it.

    A tile that was built with more scenes missing than `max_missing` now allows is built again.

    Parameters
    ----------
    plan : Plan
        What to build.
    path : Path or str
        The store, a folder or URL that every worker can reach.
    client : distributed.Client, optional
        Cluster to run on; default threads of this process, one per core.
    progress : callable, optional
        Called with tiles done, tiles in all and the name of the last tile.
    max_missing : float
        Share of a tile's scenes, 0…1, that may fail to be read; `tallies` names them. Default none.

    Returns
    -------
    Path or str
        The store's path.

    Raises
    ------
    ReadError, StoreError
        From the first tile that fails; tiles finished before stay.
    """
    _fill(at(create(plan, path)), plan, client, progress, max_missing)
    return at(path).place


def append(
    plan: Plan,
    path: Place,
    client: Any = None,
    progress: Progress | None = None,
    max_missing: float = 0.0,
) -> Place:
    """Add another period, such as the next month or year, to a store without rewriting the rest.

    Readers see the period once its last tile is done; run again after an interruption, it resumes.
    Do not append while a training reads the store: its windows grow by the period.

    Parameters
    ----------
    plan : Plan
        Same area, grids and recipe as the store's; its period overlaps with none that is there.
    path : Path or str
        The store.
    client, progress, max_missing
        As for `write`.

    Returns
    -------
    Path or str
        The store's path.

    Raises
    ------
    ReadError, StoreError
        As for `write`; StoreError also says in what the plan does not fit the store.
    """
    root = at(path)
    folder = _with_arrays(place_beside(root, plan), plan)
    _fill(folder, plan, client, progress, max_missing)
    join(root, folder)
    return root.place


def write_tile(folder: Place, granule: str, row: int, col: int, max_missing: float = 0.0) -> str:
    """Build one tile, write its shards, read them back, and mark it done.

    Parameters
    ----------
    folder : Path or str
        As `create` returns it; the plan is read there, so that a task carries only its key.
    granule : str
        MGRS tile.
    row, col : int
        Cell of the tile lattice.
    max_missing : float
        Share of the tile's scenes, 0…1, that may fail to be read.

    Returns
    -------
    str
        The tile's name.

    Raises
    ------
    StoreError
        If the disk refuses, or what was read back is not what was written; the tile stays unmarked.
    """
    root = at(folder)
    plan = segment_at(root).grid(granule)
    tile = next(tile for tile in plan.tiles if (tile.row, tile.col) == (row, col))
    name = tile_name(plan, tile)
    cube = build_tile(plan, tile, max_missing=max_missing)
    with writing(f"{root}, tile {name}"):
        hashes = arrays.write_shards(root, plan, tile, cube)
        mark_done(root, plan, tile, hashes, Tally.model_validate_json(cube.attrs["tally"]))
    return name


def open(path: Place) -> xr.Dataset | xr.DataTree:
    """Open a store as the lazy cube that `cube.build` returns for its plan.

    Periods that were added follow each other along time. Where one is missing between them no
    recipe describes the cube, and its attributes name none.

    Raises
    ------
    StoreError
        If a tile is not done: a missing tile never reads as zeros.
    """
    parts = segments(at(path))
    done = [part.done() for part in parts]
    cubes = {}
    for grid in parts[0].plan.grids:
        granule = grid.grid.granule
        cube = xr.concat(
            [
                _open_segment(part, part.grid(granule), names)
                for part, names in zip(parts, done, strict=True)
            ],
            dim="time",
            data_vars="minimal",
            coords="minimal",
            compat="override",
            combine_attrs="drop_conflicts",
        )
        if not has_gap(parts):
            recipe = join_plans(parts).recipe
            cube = cube.assign_attrs(recipe=recipe.model_dump_json(), recipe_hash=recipe.hash)
        cubes[granule] = cube
    return next(iter(cubes.values())) if len(cubes) == 1 else xr.DataTree.from_dict(cubes)


def read_recipe(path: Place) -> Recipe:
    """Return the recipe a store was built with; see `read_plan`."""
    return read_plan(path).recipe


def read_plan(path: Place) -> Plan:
    """Return the plan of all that a store holds.

    Of a store to which periods were added it is their union: the recipe's period goes from the
    first to the last, and each grid has all scenes.

    Raises
    ------
    StoreError
        If `path` is not a cropcube store, or its periods leave a gap.
    """
    return join_plans(segments(at(path)))


def tiles(path: Place) -> list[StoredTile]:
    """Return all tiles that are finished in every period, by granule, row and column."""
    parts = segments(at(path))
    done = set.intersection(*(set(part.done()) for part in parts))
    return [
        StoredTile(grid.grid.granule, grid.grid, tile.window)
        for grid in parts[0].plan.grids
        for tile in grid.tiles
        if tile_name(grid, tile) in done
    ]


def tallies(path: Place) -> list[TileTally]:
    """Return what the build of each finished tile counted, by period, granule, row and column."""
    return [
        TileTally(part.period, name, done[name])
        for part in segments(at(path))
        for done in [part.done()]
        for grid in part.plan.grids
        for tile in grid.tiles
        if (name := tile_name(grid, tile)) in done
    ]


def looks(path: Place) -> pd.DataFrame:
    """Return how often the build looked, and how often it saw clear ground.

    Returns
    -------
    DataFrame, one row per time
        ``seen``: pixels of the scene classification (20 m) that hold data, summed over scenes and
        finished tiles; ``clear``: those of them that the mask left.
    """
    counted = {(one.period, one.tile): one.counts for one in tallies(path)}
    sums = [pd.DataFrame({"seen": [], "clear": []}, pd.DatetimeIndex([]), dtype=np.int64)]
    for part in segments(at(path)):
        for grid in part.plan.grids:
            keys = [(part.period, tile_name(grid, tile)) for tile in grid.tiles]
            total = Tally.total(counted[key] for key in keys if key in counted)
            if total.seen:
                columns = {"seen": total.seen, "clear": total.clear}
                sums.append(pd.DataFrame(columns, index=grid.times))
    return pd.concat(sums).groupby(level=0).sum().rename_axis("time")


def read_window(path: Place, granule: str, window: Window) -> tuple[np.ndarray, np.ndarray]:
    """Read a window of a granule's grid into memory.

    Parameters
    ----------
    path : Path or str
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
        If a tile of the plan that the window needs is not done or is damaged.
    """
    parts = recent_segments(at(path))
    read = [arrays.read_window(part.root, part.grid(granule), window) for part in parts]
    if len(read) == 1:
        return read[0]
    reflectance, observations = zip(*read, strict=True)
    return np.concatenate(reflectance), np.concatenate(observations)


def _with_arrays(folder: Folder, plan: Plan) -> Folder:
    with writing(str(folder)):
        arrays.create_groups(folder, plan)
    return folder


def _fill(
    folder: Folder, plan: Plan, client: Any, progress: Progress | None, max_missing: float
) -> None:
    todo = Segment(folder, plan).missing(max_missing)
    done = plan.n_tiles - len(todo)
    if progress:
        progress(done, plan.n_tiles, "resumed" if done else "started")
    for name in _run(folder, todo, client, max_missing):
        done += 1
        if progress:
            progress(done, plan.n_tiles, name)


def _run(
    folder: Folder, todo: list[tuple[GridPlan, Tile]], client: Any, max_missing: float
) -> Iterator[str]:
    keys = [(grid.grid.granule, tile.row, tile.col, max_missing) for grid, tile in todo]
    if client is None:
        threads = int(dask.config.get("num_workers", None) or CPU_COUNT)
        with ThreadPoolExecutor(threads) as pool:
            futures = [pool.submit(write_tile, folder.place, *key) for key in keys]
            try:
                for future in as_completed(futures):
                    yield future.result()
            except BaseException:
                pool.shutdown(wait=True, cancel_futures=True)
                raise
        return
    import distributed

    shared = str(folder.absolute())
    remote = [client.submit(write_tile, shared, *key, pure=False) for key in keys]
    for future in distributed.as_completed(remote):
        yield future.result()


def _open_segment(part: Segment, grid: GridPlan, done: Collection[str]) -> xr.Dataset:
    missing = [tile for tile in grid.tiles if tile_name(grid, tile) not in done]
    if missing:
        raise StoreError(
            f"{part.root}: {len(missing)} of {len(grid.tiles)} tiles of {grid.grid.granule} are "
            "not done; run the build again, it resumes"
        )
    root, granule = str(part.root), grid.grid.granule
    keys = {(t.row, t.col): f"stored-{tokenize(root, granule, t)}" for t in grid.tiles}
    graph = {keys[t.row, t.col]: (_stored_tile, root, granule, t) for t in grid.tiles}
    return assemble(grid, keys, graph)


def _stored_tile(folder: str, granule: str, tile: Tile) -> xr.Dataset:
    part = segment_at(at(folder))
    reflectance, observations = arrays.read_window(part.root, part.grid(granule), tile.window)
    return xr.Dataset(
        {
            "reflectance": (("time", "band", "y", "x"), reflectance),
            "observations": (("time", "y", "x"), observations),
        }
    )
