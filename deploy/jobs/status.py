"""Where a job stands, and whether what it made is still whole."""

from __future__ import annotations

import hashlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

import cube.store
from cube.objects import Folder, at
from deploy.jobs.claims import Claims, Runner
from deploy.jobs.job import CANCEL, Job, put_json
from deploy.jobs.tasks import MapTask, Task, item_name, map_is_done, map_item

State = Literal["done", "running", "failed", "waiting"]

_ASKED_AT_ONCE = 32


@dataclass(frozen=True)
class TaskState:
    """Where one task stands; `failure` and `error` are those of its last attempt."""

    task: str
    state: State
    attempts: int
    failure: str | None = None
    error: str | None = None


@dataclass(frozen=True)
class Status:
    """Where a job stands."""

    job: str
    cancelled: str | None
    tasks: list[TaskState]

    @property
    def counts(self) -> dict[State, int]:
        """Number of tasks in each state."""
        found = Counter(one.state for one in self.tasks)
        states: tuple[State, ...] = ("done", "running", "failed", "waiting")
        return {state: found[state] for state in states}


def status(job: Job) -> Status:
    """Return where each task of a job stands now."""
    claims = Claims(job.folder, Runner.here(), lambda: datetime.now(UTC), job.spec.run.lease_s)
    counts, (done, _) = claims.counts(), job.done()

    def one(task: Task) -> TaskState:
        if task.id in done:
            return TaskState(task.id, "done", counts[task.id])
        if not counts[task.id]:
            return TaskState(task.id, "waiting", 0)
        standing = claims.standing(task.id)
        if standing.held:
            return TaskState(task.id, "running", standing.attempt)
        told = claims.recorded(task.id, standing.attempt)
        if told is None or told.failure is None:
            return TaskState(task.id, "waiting", standing.attempt)
        return TaskState(task.id, "failed", standing.attempt, told.failure, told.error)

    with ThreadPoolExecutor(_ASKED_AT_ONCE) as pool:
        return Status(job.spec.name, job.cancelled(), list(pool.map(one, job.tasks)))


def verify(job: Job) -> list[str]:
    """Hash again all that the job made; return one sentence for each thing that is wrong."""
    problems = [text for store in _stores_there(job) for text in cube.store.verify(str(store))]
    return problems + [text for task in job.maps.values() for text in _problems(task)]


def repair(job: Job) -> list[str]:
    """Give back what is damaged to the next run, which makes that again and nothing else.

    The map of a granule whose cube was let go of needs the granule's tiles again.

    Returns
    -------
    list of str
        What `verify` found before.
    """
    problems = [text for store in _stores_there(job) for text in cube.store.repair(str(store))]
    for task in job.maps.values():
        if found := _problems(task):
            at(task.out).delete(item_name(task.granule))
            problems += found
    return problems


def _stores_there(job: Job) -> list[Folder]:
    """Return the stores of a job whose tiles have to be there."""
    return [
        store
        for store, made in job.stores()
        if not all(job.let_go(grid.grid.granule) for grid in made.grids)
    ]


def cancel(job: Job, *, undo: bool = False) -> None:
    """Ask every runner of a job to begin nothing more; `undo` lets the job run again."""
    if undo:
        job.folder.delete(CANCEL)
    else:
        put_json(job.folder, CANCEL, {"at": datetime.now(UTC).isoformat(timespec="seconds")})


def _problems(task: MapTask) -> list[str]:
    item = map_item(task)
    if item is None or not map_is_done(task):
        return [f"{task.id}: not done"]
    problems = []
    for asset in item["assets"].values():
        if "file:checksum" not in asset:
            continue
        name = asset["href"].removeprefix("./")
        try:
            digest = hashlib.sha256(at(task.out).get(name)).hexdigest()
        except FileNotFoundError:
            problems.append(f"{task.id}: {name} is missing")
            continue
        # Multihash (STAC file extension): 12 = SHA-256, 20 = 32 bytes.
        if asset["file:checksum"] != f"1220{digest}":
            problems.append(f"{task.id}: {name} was changed")
    return problems
