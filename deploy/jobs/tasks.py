"""Tasks: the pieces of a job that are claimed, done and marked one by one.

A task is small and can be sent to any worker. What says that it is done is the STAC item written
last: the tile's marker in the store, or the item of a granule's map. Both carry the task's hash.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import cube.store
from cube.markers import tile_name
from cube.objects import Folder, at
from cube.planning import GridPlan, Plan
from cube.recipe import Recipe
from cube.tileitem import PROCESSING, lineage, processed_by, software

#: Property of a map's item that names its task.
TASK_HASH = "cropcube:task_hash"
#: Inside a run's folder: the model of a map, and its cubes until they are discarded.
MODEL, CUBES = "model", "cubes"
#: Files of the run that a map's item leads to, and what they are.
_LEADS = {
    "job.lock.json": "the job, with versions and the model's hash",
    "plan.json": "the recipe, and every scene that it was applied to",
}


@dataclass(frozen=True)
class TileTask:
    """Build one tile of a store."""

    id: str
    hash: str
    granule: str
    store: str
    row: int
    col: int
    max_missing: float

    def work(self) -> None:
        """Build, write, read back and mark the tile."""
        cube.store.write_tile(self.store, self.granule, self.row, self.col, self.max_missing)


@dataclass(frozen=True)
class MapTask:
    """Classify one granule whose tiles are done, and write its map.

    Parameters
    ----------
    run : str
        The run's folder or URL; the model lies in it.
    out : str
        Folder or URL that the granule's files go to.
    """

    id: str
    hash: str
    granule: str
    store: str
    run: str
    out: str
    keep_cube: bool

    def work(self) -> None:
        """Classify, write every file and last the item; then let go of the cube."""
        from model.predict import predict_store

        with tempfile.TemporaryDirectory() as folder:
            predict_store(_local_model(f"{self.run}/{MODEL}"), self.store, folder)
            self._keep(Path(folder))
        if not self.keep_cube:
            discard_tiles(at(self.store))

    def _keep(self, made: Path) -> None:
        out, (item,) = at(self.out), made.glob("*_item.json")
        for file in sorted(made.iterdir()):
            if file != item:
                out.put(file.name, file.read_bytes())
        content = json.loads(item.read_text(encoding="utf-8"))
        content["properties"] |= {TASK_HASH: self.hash} | _provenance(content["properties"])
        content["stac_extensions"].append(PROCESSING)
        content["links"] += [
            processed_by(self._from_item(name), title).to_dict() for name, title in _LEADS.items()
        ]
        # Scenes and plan lie in the run's folder, for all granules together.
        content["assets"] = {
            key: asset
            for key, asset in content["assets"].items()
            if made.joinpath(asset["href"]).exists()
        }
        out.put(item_name(self.granule), json.dumps(content, indent=1).encode())

    def _from_item(self, name: str) -> str:
        """Return how the item names a file of the run: relative, so that both can be moved."""
        inside = f"{self.run}/"
        up = "../" * (1 + self.out.removeprefix(inside).count("/"))
        return f"{up}{name}" if self.out.startswith(inside) else f"{inside}{name}"


Task = TileTask | MapTask


def item_name(granule: str) -> str:
    """Return the name of the item of a granule's map."""
    return f"{granule}_item.json"


def _provenance(facts: dict[str, Any]) -> dict[str, Any]:
    """Return the properties of the processing extension for a map's item."""
    made = lineage(Recipe(**facts["cropcube:recipe"]), len(facts["cropcube:scenes"]))
    return {
        "processing:software": software(),
        "processing:datetime": facts["created"],
        "processing:level": "L4",
        "processing:lineage": f"{made}; classified by {facts['cropcube:model']}",
    }


def map_is_done(task: MapTask) -> bool:
    """Return whether the granule's map is marked by this very task."""
    item = map_item(task)
    return item is not None and item["properties"].get(TASK_HASH) == task.hash


def map_item(task: MapTask) -> dict[str, Any] | None:
    """Return the STAC item of a granule's map, None if there is none that can be read."""
    try:
        found: dict[str, Any] = json.loads(at(task.out).get(item_name(task.granule)))
    except (FileNotFoundError, ValueError):
        return None
    return found


def tile_tasks(grid: GridPlan, store: Folder, max_missing: float) -> list[TileTask]:
    """Return a task per tile of a grid."""
    return [
        TileTask(
            id=tile_name(grid, tile),
            hash=grid.task_hash(tile),
            granule=grid.grid.granule,
            store=str(store),
            row=tile.row,
            col=tile.col,
            max_missing=max_missing,
        )
        for tile in grid.tiles
    ]


def map_task(
    grid: GridPlan, store: Folder, run: Folder, model_sha256: str, out: Folder, keep_cube: bool
) -> MapTask:
    """Return the task that maps a grid."""
    # The list of tiles too: a larger area in the same granule is another map.
    tiles = ",".join(grid.task_hash(tile) for tile in grid.tiles)
    identity = hashlib.sha256(f"{tiles}:{model_sha256}".encode()).hexdigest()[:16]
    granule = grid.grid.granule
    return MapTask(
        id=f"{granule}-map",
        hash=identity,
        granule=granule,
        store=str(store),
        run=str(run),
        out=str(out / granule),
        keep_cube=keep_cube,
    )


def one_grid(plan: Plan, grid: GridPlan) -> Plan:
    """Return the plan of one of a plan's grids alone."""
    return plan.model_copy(update={"grids": (grid,)})


def discard_tiles(store: Folder) -> None:
    """Delete the tiles of a store, markers first; the empty store stays and can be filled again."""
    names = store.listing()
    markers = [n for n in names if n.startswith(".cropcube/") and n != ".cropcube/plan.json"]
    shards = [n for n in names if "/c/" in n and n.split("/")[1] in ("reflectance", "observations")]
    for name in (*markers, *shards):
        store.delete(name)


@lru_cache(maxsize=1)
def _local_model(place: str) -> Path:
    """Return a folder of this machine that holds the model."""
    source = at(place)
    if not source.is_url:
        return Path(place)
    folder = Path(tempfile.mkdtemp(prefix="cropcube-model-"))
    for name in source.listing():
        target = folder / Path(name).name
        target.write_bytes(source.get(name))
    return folder
