"""Markers: what says that a tile of a store is done, and how to check that it still is.

A marker is a STAC item written after the tile's shards were written, read back and hashed. A tile
is done when its marker carries the task hash of the plan and its shards are there.
"""

from __future__ import annotations

import json
import time
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache

from pydantic import BaseModel, Field

from cube.errors import StoreError
from cube.objects import Folder
from cube.planning import GridPlan, Plan, Tile
from cube.tally import Tally
from cube.tileitem import tile_item

#: Folder of the store that holds the plan and the markers.
STATE = ".cropcube"

# Markers are small: what reading many costs is the wait for each answer.
_REQUESTS = 16
_HALF_MINUTE_S = 30


class _Marker(BaseModel):
    """What a marker says of its tile."""

    task: str = Field(alias="cropcube:task")
    sha256: dict[str, str] = Field(alias="cropcube:sha256")
    tally: Tally = Field(alias="cropcube:tally")


class _DamagedMarkerError(StoreError):
    """A marker that is there and cannot be read."""


def tile_name(plan: GridPlan, tile: Tile) -> str:
    """Return the tile's name: granule, row and column of the lattice."""
    return f"{plan.grid.granule}-{tile.row}-{tile.col}"


def shard(plan: GridPlan, tile: Tile, variable: str) -> str:
    """Return the name of a tile's shard of ``reflectance`` or ``observations``."""
    lead = "0/0" if variable == "reflectance" else "0"
    return f"{plan.grid.granule}/{variable}/c/{lead}/{tile.row}/{tile.col}"


def half_minute() -> int:
    """Return a number that stays the same for half a minute.

    Training asks a store for thousands of windows. In a bucket it would wait for an answer each
    time, so what was found there is taken to be there for half a minute more.
    """
    return int(time.monotonic() // _HALF_MINUTE_S)


def mark_done(
    root: Folder, plan: GridPlan, tile: Tile, hashes: dict[str, str], tally: Tally
) -> None:
    """Write the tile's marker.

    Parameters
    ----------
    root : Folder
        Folder of the plan's arrays.
    plan : GridPlan
        What the tile belongs to.
    tile : Tile
        The tile whose shards are written.
    hashes : dict of str to str
        SHA-256 of the shard of each variable.
    tally : Tally
        What the build counted.
    """
    facts = {
        "cropcube:task": plan.task_hash(tile),
        "cropcube:recipe": plan.recipe.hash,
        "cropcube:sha256": hashes,
        "cropcube:scenes": [scene.id for scene in plan.scenes],
        "cropcube:tally": tally.model_dump(mode="json"),
    }
    root.put(_name(plan, tile), tile_item(plan, tile, tile_name(plan, tile), facts))


def unmark(root: Folder, plan: GridPlan, tile: Tile) -> None:
    """Delete the tile's marker if there is one: the tile is not done any more."""
    root.delete(_name(plan, tile))


def is_done(root: Folder, plan: GridPlan, tile: Tile) -> bool:
    """Return whether the tile is marked by this very task and its shards are there."""
    marker = _marker(root, _name(plan, tile))
    if marker is None or marker.task != plan.task_hash(tile):
        return False
    return all(root.exists(shard(plan, tile, name)) for name in marker.sha256)


def done_tiles(root: Folder, plan: Plan) -> dict[str, Tally]:
    """Return what the build of each tile counted that `is_done`, by the tile's name.

    Asks by listing: few requests for many tiles.
    """
    marked = root.listing(STATE)
    wanted = [
        (grid, tile, version)
        for grid in plan.grids
        for tile in grid.tiles
        if (version := marked.get(_name(grid, tile))) is not None
    ]
    if not wanted:
        return {}
    stored = set().union(*(root.listing(grid.grid.granule) for grid in plan.grids))

    def counted(task: tuple[GridPlan, Tile, str]) -> tuple[str, Tally] | None:
        grid, tile, version = task
        marker = _parse(root, _name(grid, tile), version)
        if marker.task != grid.task_hash(tile):
            return None
        if not stored.issuperset(shard(grid, tile, name) for name in marker.sha256):
            return None
        return tile_name(grid, tile), marker.tally

    with ThreadPoolExecutor(_REQUESTS) as pool:
        return dict(filter(None, pool.map(counted, wanted)))


def require_marked(root: Folder, plan: GridPlan, tile: Tile) -> None:
    """Raise StoreError unless the tile is marked by this very task."""
    name, task = _name(plan, tile), plan.task_hash(tile)
    if root.is_url:
        _marked_then(root, name, task, half_minute())
    else:
        _require_marked(root, name, task)


def not_done(root: Folder, plan: GridPlan, tile: Tile) -> StoreError:
    """Return the error that says that a tile is not done."""
    return _not_done(root, _name(plan, tile))


def problems_of(root: Folder, plan: GridPlan, tile: Tile) -> list[str]:
    """Hash the tile's shards again; return one sentence for each thing that is wrong."""
    name = tile_name(plan, tile)
    try:
        marker = _marker(root, _name(plan, tile))
    except _DamagedMarkerError:
        return [f"{name}: the marker is damaged"]
    if marker is None or marker.task != plan.task_hash(tile):
        return [f"{name}: not done"]
    problems = []
    for variable, digest in marker.sha256.items():
        try:
            if root.sha256(shard(plan, tile, variable)) != digest:
                problems.append(f"{name}: the shard of {variable} was changed")
        except FileNotFoundError:
            problems.append(f"{name}: the shard of {variable} is missing")
    return problems


def _name(plan: GridPlan, tile: Tile) -> str:
    return f"{STATE}/{tile_name(plan, tile)}.json"


def _not_done(root: Folder, name: str) -> StoreError:
    tile = name.removeprefix(f"{STATE}/").removesuffix(".json")
    return StoreError(f"{root}: tile {tile} is not done; run the build again, it resumes")


def _require_marked(root: Folder, name: str, task: str) -> None:
    marker = _marker(root, name)
    if marker is None or marker.task != task:
        raise _not_done(root, name)


# What raises is not remembered: only tiles that were found to be marked.
@lru_cache(maxsize=4096)
def _marked_then(root: Folder, name: str, task: str, _half_minute: int) -> None:
    _require_marked(root, name, task)


def _marker(root: Folder, name: str) -> _Marker | None:
    version = root.version(name)
    return None if version is None else _parse(root, name, version)


# Training asks for the same tile thousands of times: parse each marker once.
@lru_cache(maxsize=4096)
def _parse(root: Folder, name: str, _version: str) -> _Marker:
    try:
        return _Marker.model_validate(json.loads(root.get(name))["properties"])
    except (ValueError, KeyError, TypeError) as error:
        raise _DamagedMarkerError(
            f"{root}/{name}: damaged marker; delete it to build the tile again"
        ) from error
