"""Running a planned job: any number of runners may work on one.

What each may take is decided by `deploy.jobs.claims`, what is done by the markers alone. A run that
ends for whatever reason is continued by another.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from cube.errors import JobError
from cube.objects import Place
from deploy.jobs.claims import Claims, Heart, Runner
from deploy.jobs.crew import Crew, Here, OnCluster
from deploy.jobs.events import Events, Listener
from deploy.jobs.icechunk import publish
from deploy.jobs.job import open_job
from deploy.jobs.loop import Loop, Outcome
from deploy.jobs.report import noted, write_report
from deploy.jobs.watch import Stop

if TYPE_CHECKING:
    from distributed import Client


def run_job(
    root: Place,
    *,
    tasks: Sequence[str] = (),
    shard: tuple[int, int] | None = None,
    client: Client | None = None,
    listener: Listener | None = None,
    stop: Stop | None = None,
) -> Outcome:
    """Run a planned job; run it again to continue, or beside to share the work.

    Parameters
    ----------
    root : path or URL
        The run's folder.
    tasks : sequence of str
        Ids of the tasks to run; default all.
    shard : (int, int), optional
        This runner's number, from 0, and how many there are; default all tasks.
    client : distributed.Client, optional
        Cluster that does the tasks; default threads of this process.
    listener : callable, optional
        Called with every event.
    stop : Stop, optional
        Set from outside to end the run.

    Returns
    -------
    Outcome
        Failures of tasks are told there, not raised.

    Raises
    ------
    JobError
        If nothing was planned, the job was cancelled, or there is no such task or shard.
    StoreError, AccessError
        If the run's folder cannot be read or written.
    """
    job = open_job(root)
    if (when := job.cancelled()) is not None:
        raise JobError(
            f"{job.folder} was cancelled at {when}; `cropcube job cancel {job.folder} --undo` "
            "lets it run again"
        )
    chosen = job.named(list(tasks)) if tasks else job.shard(*(shard or (0, 1)))
    crew: Crew = Here(job.spec.run.at_once) if client is None else OnCluster(client)
    me = Runner.here()
    heart = Heart(job.folder, me, job.spec.run.lease_s)
    try:
        claims = Claims(job.folder, me, heart.now, job.spec.run.lease_s)
        events = Events(job.folder, job.spec.name, me.id, heart, listener)
        loop = Loop(job, chosen, crew, claims, heart, events, me, stop or Stop())
        outcome = loop.go()
        if outcome.ended == "finished":
            publish(job, chosen)
        with noted(job):
            write_report(job)
        return outcome
    finally:
        crew.leave()
        with noted(job):
            heart.leave()
