"""Markers: what says that a tile of a store is done, and how to check that it still is.

A marker is a STAC item written after the tile's shards were written, read back and hashed. A tile
is done when its marker carries the task hash of the plan and its shards are there.
"""

from __future__ import annotations

import hashlib
import json
import uuid
from functools import lru_cache
from pathlib import Path
from typing import Any

import pandas as pd
import pystac

from cube.errors import StoreError
from cube.planning import GridPlan, Tile
from cube.tally import Tally

#: Folder of the store that holds the plan and the markers.
STATE = ".cropcube"


def tile_name(plan: GridPlan, tile: Tile) -> str:
    """Return the tile's name: granule, row and column of the lattice."""
    return f"{plan.grid.granule}-{tile.row}-{tile.col}"


def shard(root: Path, plan: GridPlan, tile: Tile, variable: str) -> Path:
    """Return the file of a tile's shard of ``reflectance`` or ``observations``."""
    lead = ("0", "0") if variable == "reflectance" else ("0",)
    return root.joinpath(plan.grid.granule, variable, "c", *lead, str(tile.row), str(tile.col))


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def mark_done(root: Path, plan: GridPlan, tile: Tile, hashes: dict[str, str], tally: Tally) -> None:
    """Write the tile's marker.

    Parameters
    ----------
    root : Path
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
    lonlat = plan.grid.geobox(tile.window).extent.to_crs("EPSG:4326")
    item = pystac.Item(
        id=tile_name(plan, tile),
        geometry=lonlat.json,
        bbox=list(lonlat.boundingbox),
        datetime=None,
        start_datetime=plan.recipe.periods[0].to_pydatetime(),
        end_datetime=pd.Timestamp(plan.recipe.datetime[1]).to_pydatetime(),
        properties={
            "cropcube:task": plan.task_hash(tile),
            "cropcube:recipe": plan.recipe.hash,
            "cropcube:sha256": hashes,
            "cropcube:scenes": [scene.id for scene in plan.scenes],
            "cropcube:tally": tally.model_dump(mode="json"),
        },
    )
    text = json.dumps(item.to_dict(include_self_link=False), indent=1, sort_keys=True)
    replace_text(_path(root, plan, tile), text)


def is_done(root: Path, plan: GridPlan, tile: Tile) -> bool:
    """Return whether the tile is marked by this very task and its shards are there."""
    marker = _properties(root, plan, tile)
    if marker is None or marker["cropcube:task"] != plan.task_hash(tile):
        return False
    return all(shard(root, plan, tile, name).exists() for name in marker["cropcube:sha256"])


def require_done(root: Path, plan: GridPlan, tile: Tile) -> None:
    """Raise StoreError unless the tile is done."""
    if not is_done(root, plan, tile):
        name = tile_name(plan, tile)
        raise StoreError(f"{root}: tile {name} is not done; run the build again, it resumes")


def tally_of(root: Path, plan: GridPlan, tile: Tile) -> Tally | None:
    """Return what the build of a tile counted, or None if the tile is not done."""
    marker = _properties(root, plan, tile)
    if marker is None or not is_done(root, plan, tile):
        return None
    return Tally.model_validate(marker["cropcube:tally"])


def problems_of(root: Path, plan: GridPlan, tile: Tile) -> list[str]:
    """Hash the tile's shards again; return one sentence for each thing that is wrong."""
    name, marker = tile_name(plan, tile), _properties(root, plan, tile)
    if marker is None or marker["cropcube:task"] != plan.task_hash(tile):
        return [f"{name}: not done"]
    problems = []
    for variable, digest in marker["cropcube:sha256"].items():
        path = shard(root, plan, tile, variable)
        if not path.exists():
            problems.append(f"{name}: the shard of {variable} is missing")
        elif sha256(path) != digest:
            problems.append(f"{name}: the shard of {variable} was changed")
    return problems


def replace_text(path: Path, text: str) -> None:
    """Write a file so that a reader sees the old content or the new, never half of it."""
    temporary = path.with_name(f"{path.name}.{uuid.uuid4().hex}")
    try:
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _path(root: Path, plan: GridPlan, tile: Tile) -> Path:
    return root / STATE / f"{tile_name(plan, tile)}.json"


def _properties(root: Path, plan: GridPlan, tile: Tile) -> dict[str, Any] | None:
    path = _path(root, plan, tile)
    try:
        changed = path.stat().st_mtime_ns
    except FileNotFoundError:
        return None
    return _parse(path, changed)


# Training asks for the same tile thousands of times: parse each marker once.
@lru_cache(maxsize=4096)
def _parse(path: Path, _changed: int) -> dict[str, Any]:
    try:
        return json.loads(path.read_text(encoding="utf-8"))["properties"]
    except (ValueError, KeyError) as error:
        raise StoreError(f"{path}: damaged marker; delete it to build the tile again") from error
