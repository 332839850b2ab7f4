"""Finished tiles as commits of an Icechunk repository, for many who read while a job writes.

Claims, markers and checks stay with the plain store. After each run the tiles of its tasks that the
repository lacks are copied there, the same bytes under the same names, in one commit: readers see
the tiles of a run together or not at all. Once every tile is there, a tag names the job.

Runners may commit at the same time; one that loses rebases, and where two copied the same tile it
looks again. On a local disk Icechunk itself does not promise that: there, let one runner commit.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

from cube.errors import JobError, StoreError
from cube.markers import STATE, done_tiles, shard, tile_name
from cube.objects import Folder, at
from cube.planning import Plan
from deploy.jobs.job import Job
from deploy.jobs.spec import CubeBuild
from deploy.jobs.tasks import Task

if TYPE_CHECKING:
    import icechunk

#: Branch that commits go to.
BRANCH = "main"


def require_icechunk() -> None:
    """Raise JobError unless the package is there."""
    try:
        import icechunk  # noqa: F401
    except ImportError as error:
        raise JobError(
            "store: kind icechunk needs a package more; pip install 'cropcube[icechunk]'"
        ) from error


def repository_of(job: Job) -> Folder | None:
    """Return where a job's repository lies, None if it wants none."""
    spec = job.spec
    if not isinstance(spec, CubeBuild) or spec.store.kind != "icechunk":
        return None
    return at(spec.store.uri) if spec.store.uri else job.folder / "data" / "cube.icechunk"


def open_repository(folder: Folder) -> icechunk.Repository:
    """Open the repository at a folder or ``s3://bucket/prefix``, or begin it.

    Raises
    ------
    StoreError
        If it cannot be opened.
    """
    import icechunk

    try:
        return icechunk.Repository.open_or_create(_storage(folder))
    except icechunk.IcechunkError as error:
        raise StoreError(f"{folder}: no Icechunk repository can be opened ({error})") from error


def publish(job: Job, tasks: Iterable[Task]) -> int:
    """Commit the finished tiles among `tasks` that the repository lacks; tag the job when all are.

    Returns
    -------
    int
        Number of tiles that this call committed.

    Raises
    ------
    StoreError
        If the repository cannot be read or written.
    """
    folder = repository_of(job)
    if folder is None:
        return 0
    import icechunk

    ((store, plan),) = job.stores()
    repository, shards = open_repository(folder), _shards(plan)
    every = set().union(*shards.values())
    wanted = done_tiles(store, plan).keys() & {task.id for task in tasks}
    try:
        while True:
            session = repository.writable_session(BRANCH)
            there = sync(_keys(session.store))
            todo = {tile for tile in wanted if not there.issuperset(shards[tile])}
            if not todo:
                break
            plain = {name for name in store.listing() if not name.startswith(f"{STATE}/")}
            names = (plain - every).union(*(shards[tile] for tile in todo)) - there
            sync(_copy(store, session.store, names))
            try:
                session.commit(f"tiles: {len(todo)}", rebase_with=icechunk.ConflictDetector())
            except icechunk.RebaseFailedError:
                continue  # another runner has just committed one of these tiles
            break
        _tag(repository, job, every)
    except icechunk.IcechunkError as error:
        raise StoreError(
            f"{folder}: the repository cannot be written ({error}); run the job again"
        ) from error
    return len(todo)


def _shards(plan: Plan) -> dict[str, set[str]]:
    """Return the names of the shards of each tile."""
    return {
        tile_name(grid, tile): {
            shard(grid, tile, variable) for variable in ("reflectance", "observations")
        }
        for grid in plan.grids
        for tile in grid.tiles
    }


def _tag(repository: icechunk.Repository, job: Job, shards: set[str]) -> None:
    """Name the commit that holds every tile, once there is one."""
    import icechunk

    name = f"{job.spec.name}-{job.lock.spec_hash}"
    session = repository.readonly_session(BRANCH)
    if name in repository.list_tags() or not sync(_keys(session.store)).issuperset(shards):
        return
    try:
        repository.create_tag(name, session.snapshot_id)
    except icechunk.IcechunkError:
        if name not in repository.list_tags():
            raise


async def _keys(store: Any) -> set[str]:
    return {name async for name in store.list()}


async def _copy(source: Folder, target: Any, names: set[str]) -> None:
    # Icechunk takes the chunks of arrays that it knows.
    for name in sorted(names, key=lambda name: (not name.endswith("zarr.json"), name)):
        await target.set(name, default_buffer_prototype().buffer.from_bytes(source.get(name)))


def _storage(folder: Folder) -> icechunk.Storage:
    import icechunk

    if not folder.is_url:
        return icechunk.local_filesystem_storage(str(folder))
    url = urlsplit(folder.address)
    if url.scheme != "s3":
        raise JobError(f"{folder}: Icechunk repositories lie in a folder or under s3://")
    endpoint = os.environ.get("AWS_ENDPOINT_URL")
    return icechunk.s3_storage(
        bucket=url.netloc,
        prefix=url.path.strip("/"),
        region=os.environ.get("AWS_REGION"),
        endpoint_url=endpoint,
        allow_http=os.environ.get("AWS_ALLOW_HTTP") == "true",
        force_path_style=endpoint is not None,
        from_env=True,
    )
