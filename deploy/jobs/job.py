"""A planned job as its folder holds it; every runner opens the same one.

The folder, on disk or behind a URL::

    job.yaml            the spec as given
    job.lock.json       the spec as understood, its hash, versions; written last by planning
    plan.json           the scenes that were found, frozen, and the tiles
    tasks.geojson       the tasks for people and for maps
    data/               the cube or the maps, unless `output` says otherwise
    model/ cubes/       of a map: the model, and cubes of granules that are not mapped yet
    claims/<task>/<attempt>.json     who works on it
    attempts/<task>/<attempt>.json   what became of it, and what it took
    runners/<runner>.json            signs of life of those that run
    events/<runner>/<part>.jsonl     what happened
    control/cancel.json              a request to stop
    estimate.json       what `cropcube job estimate` said
    report.json                      what was estimated, beside what was used
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from cube.errors import JobError
from cube.markers import done_tiles, tile_name
from cube.markers import is_done as tile_is_done
from cube.objects import Folder, Place, at
from cube.planning import GridPlan, Plan, Tile
from cube.tally import Tally
from deploy.jobs import tasks as kinds
from deploy.jobs.spec import CropMap, CubeBuild, Spec
from deploy.jobs.tasks import MapTask, Task, TileTask

SPEC, LOCK, PLAN = "job.yaml", "job.lock.json", "plan.json"
TASKS, ESTIMATE, REPORT = "tasks.geojson", "estimate.json", "report.json"
CANCEL = "control/cancel.json"


class Lock(BaseModel):
    """What planning froze."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    spec: Spec
    spec_hash: str
    model_sha256: str | None
    created: str
    versions: dict[str, str]
    image: str | None


@dataclass(frozen=True)
class Job:
    """A planned job.

    Attributes
    ----------
    folder : Folder
        Where everything of the run lies.
    lock : Lock
        The frozen spec.
    plan : Plan
        The frozen scenes and tiles.
    """

    folder: Folder
    lock: Lock
    plan: Plan

    @property
    def spec(self) -> CubeBuild | CropMap:
        """The spec as understood."""
        return self.lock.spec

    @cached_property
    def tasks(self) -> tuple[Task, ...]:
        """Every task, granule by granule; a granule's map comes after its tiles."""
        return tuple(task for grid in self.plan.grids for task in self._tasks_of(grid))

    @cached_property
    def maps(self) -> dict[str, MapTask]:
        """Granule → its map task; empty for a cube."""
        return {task.granule: task for task in self.tasks if isinstance(task, MapTask)}

    @cached_property
    def _tiles(self) -> dict[str, tuple[GridPlan, Tile]]:
        return {
            tile_name(grid, tile): (grid, tile) for grid in self.plan.grids for tile in grid.tiles
        }

    def stores(self) -> list[tuple[Folder, Plan]]:
        """Return the cube stores of the job and what each is made from."""
        if isinstance(self.spec, CubeBuild):
            return [(self._store(None), self.plan)]
        return [(self._store(grid), kinds.one_grid(self.plan, grid)) for grid in self.plan.grids]

    def is_done(self, task: Task) -> bool:
        """Return whether a task's marker is there and is this very task's."""
        if isinstance(task, MapTask):
            return kinds.map_is_done(task)
        grid, tile = self._tiles[task.id]
        if tile_is_done(at(task.store), grid, tile):
            return True
        return self.let_go(task.granule)

    def let_go(self, granule: str) -> bool:
        """Return whether a granule is mapped and its cube may be gone: its tiles count as done."""
        task = self.maps.get(granule)
        return task is not None and not task.keep_cube and kinds.map_is_done(task)

    def done(self) -> tuple[set[str], Tally | None]:
        """Return the ids of all tasks that are done, and what their tiles counted together.

        Asks by listing: few requests for many tasks.
        """
        mapped = [task for task in self.maps.values() if kinds.map_is_done(task)]
        gone = {task.granule for task in mapped if not task.keep_cube}
        counts: dict[str, Tally] = {}
        for store, made in self.stores():
            counts |= done_tiles(store, made)
        ids = {task.id for task in self.tasks if task.granule in gone}
        ids |= {task.id for task in mapped} | counts.keys()
        return ids, Tally.total(counts.values()) if counts else None

    def needs(self, task: Task) -> list[TileTask]:
        """Return the tasks that must be done before."""
        if isinstance(task, TileTask):
            return []
        return [t for t in self.tasks if isinstance(t, TileTask) and t.granule == task.granule]

    def shard(self, index: int, count: int) -> tuple[Task, ...]:
        """Return the tasks of one of `count` shards, counted from 0.

        Tiles are dealt out one by one; for maps whole granules are, so that no shard waits for
        another.

        Raises
        ------
        JobError
            If there is no such shard.
        """
        if not 0 <= index < count:
            raise JobError(f"shard {index}/{count}: shards are counted from 0 to {count - 1}")
        if not self.maps:
            return self.tasks[index::count]
        mine = {grid.grid.granule for grid in self.plan.grids[index::count]}
        return tuple(task for task in self.tasks if task.granule in mine)

    def named(self, names: list[str]) -> tuple[Task, ...]:
        """Return the tasks of these ids, and those they need.

        Raises
        ------
        JobError
            If one is unknown.
        """
        known = {task.id: task for task in self.tasks}
        unknown = [name for name in names if name not in known]
        if unknown:
            raise JobError(
                f"{self.folder} has no task {', '.join(unknown)}; "
                f"`cropcube job status {self.folder} --tasks` lists them"
            )
        wanted = {t.id: t for name in names for t in (*self.needs(known[name]), known[name])}
        return tuple(wanted.values())

    def cancelled(self) -> str | None:
        """Return when the job was cancelled, None if it was not."""
        try:
            return str(json.loads(self.folder.get(CANCEL))["at"])
        except FileNotFoundError:
            return None

    def _store(self, grid: GridPlan | None) -> Folder:
        if grid is not None:
            return self.folder / kinds.CUBES / f"{grid.grid.granule}.zarr"
        uri = self.spec.output.uri
        return at(uri) if uri else self.folder / "data" / "cube.zarr"

    def _tasks_of(self, grid: GridPlan) -> list[Task]:
        spec = self.spec
        if isinstance(spec, CubeBuild):
            return [*kinds.tile_tasks(grid, self._store(None), spec.max_missing)]
        store = self._store(grid)
        out = at(spec.output.uri) if spec.output.uri else self.folder / "data"
        sha = str(self.lock.model_sha256)
        last = kinds.map_task(grid, store, self.folder, sha, out, spec.keep_cube)
        return [*kinds.tile_tasks(grid, store, spec.max_missing), last]


def open_job(root: Place) -> Job:
    """Open a planned job.

    Parameters
    ----------
    root : path or URL
        The run's folder.

    Raises
    ------
    JobError
        If nothing was planned there.
    """
    folder = at(root).absolute()
    lock = read_lock(folder)
    if lock is None:
        raise JobError(f"{folder}: no job is planned there; run `cropcube job plan` first")
    try:
        plan = Plan.model_validate_json(folder.get(PLAN))
    except (FileNotFoundError, ValidationError) as error:
        raise JobError(f"{folder}/{PLAN}: missing or damaged; plan again with --new-run") from error
    return Job(folder, lock, plan)


def read_lock(folder: Folder) -> Lock | None:
    """Return what planning froze in a folder, None if no planning was finished there."""
    try:
        content = folder.get(LOCK)
    except FileNotFoundError:
        return None
    try:
        return Lock.model_validate_json(content)
    except ValidationError as error:
        raise JobError(
            f"{folder}/{LOCK}: written by another version or damaged; plan again with --new-run"
        ) from error


def put_json(folder: Folder, name: str, content: Any) -> None:
    """Write one JSON object."""
    folder.put(name, json.dumps(content, indent=1, default=str).encode())


def get_json(folder: Folder, name: str) -> Any:
    """Read one JSON object; None if it is not there."""
    try:
        return json.loads(folder.get(name))
    except FileNotFoundError:
        return None
