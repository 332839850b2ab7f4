"""What a job took, beside what was estimated: one file for people who pay."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import datetime
from typing import Any

from pydantic import BaseModel, ConfigDict

from cube.objects import Folder, at
from deploy.jobs.claims import Attempt, read_attempt
from deploy.jobs.job import ESTIMATE, REPORT, Job, get_json
from deploy.jobs.tasks import map_is_done
from deploy.jobs.usage import Usage

logger = logging.getLogger(__name__)

#: Records that are read at once.
_READS = 32


class Broken(BaseModel):
    """A task that is not done, and what its last attempt said."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    attempt: int
    failure: str
    error: str


class Report(BaseModel):
    """The figures of a job so far.

    Attributes
    ----------
    tasks, done : int
        Tasks of the job, and those that are done.
    attempts : dict of str to int
        Outcome → number of attempts; ``unknown`` for those whose runner died.
    again : int
        Attempts beyond the first of each task.
    span_s : float
        Seconds from the first attempt's begin to the last one's end.
    unreadable : int
        Reads that failed and that `max_missing` allowed; the tiles' items name them.
    used : Usage
        Sum over all attempts that told what they took.
    estimate : dict, optional
        What `cropcube job estimate` said.
    hectares : dict of str to float, optional
        Of a map: class → hectares over all granules that are mapped.
    failed : list of Broken
        Tasks whose last attempt failed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    job: str
    spec_hash: str
    tasks: int
    done: int
    attempts: dict[str, int]
    again: int
    runners: int
    span_s: float
    unreadable: int
    used: Usage
    estimate: dict[str, Any] | None
    hectares: dict[str, float] | None
    failed: list[Broken]
    versions: dict[str, str]
    image: str | None

    @property
    def text(self) -> str:
        """The figures for people."""
        told = ", ".join(f"{count} {name}" for name, count in self.attempts.items()) or "none"
        used = self.used
        lines = [
            f"job       {self.job} ({self.spec_hash})",
            f"tasks     {self.done} of {self.tasks} done, {len(self.failed)} failed",
            f"attempts  {told}; {self.again} beyond the first, {self.runners} runners",
            f"time      {self.span_s:.0f} s from first to last, {used.cpu_s / 3600:.2f} CPU-hours",
            f"memory    {used.rss_mib:.0f} MiB at most in one process",
            f"read      {used.read_mib:.0f} MiB in {used.requests} requests, {used.retries} again, "
            f"{self.unreadable} given up",
        ]
        return "\n".join(lines + [f"{b.task}: {b.failure}: {b.error}" for b in self.failed])


def report(job: Job) -> Report:
    """Return the figures of a job so far."""
    attempts = read_attempts(job.folder)
    claimed = [name.split("/")[1] for name in job.folder.listing("claims")]
    last: dict[str, Attempt] = {}
    for attempt in sorted(attempts, key=lambda one: one.attempt):
        last[attempt.task] = attempt
    done, counts = job.done()
    outcomes = Counter(one.outcome for one in attempts)
    outcomes["unknown"] = len(claimed) - len(attempts)
    failed = [
        Broken(task=task.id, attempt=one.attempt, failure=one.failure, error=one.error or "")
        for task in job.tasks
        if task.id not in done and (one := last.get(task.id)) is not None and one.failure
    ]
    return Report(
        job=job.spec.name,
        spec_hash=job.lock.spec_hash,
        tasks=len(job.tasks),
        done=len(done),
        attempts=dict(+outcomes),
        again=len(claimed) - len(set(claimed)),
        runners=len({one.runner for one in attempts}),
        span_s=_span(attempts),
        unreadable=len(counts.missing) if counts else 0,
        used=sum((one.usage for one in attempts), Usage()),
        estimate=get_json(job.folder, ESTIMATE),
        hectares=_hectares(job) if job.maps else None,
        failed=failed,
        versions=job.lock.versions,
        image=job.lock.image,
    )


def write_report(job: Job) -> Report:
    """Write ``report.json`` and return what is in it."""
    made = report(job)
    job.folder.put(REPORT, made.model_dump_json(indent=1).encode())
    return made


@contextmanager
def noted(job: Job) -> Iterator[None]:
    """Let the end of a run not fail with what it only wanted to note."""
    try:
        yield
    except OSError as error:
        logger.warning("%s: not noted (%s)", job.folder, error)


def read_attempts(folder: Folder, task: str = "") -> list[Attempt]:
    """Return every record of what became of an attempt, or those of one task, in order."""
    names = sorted(folder.listing(f"attempts/{task}".rstrip("/")), key=_task_and_number)
    with ThreadPoolExecutor(_READS) as pool:
        found = pool.map(lambda name: read_attempt(folder, name), names)
    return [one for one in found if one is not None]


def _task_and_number(name: str) -> tuple[str, int]:
    _, task, number = name.removesuffix(".json").split("/")
    return task, int(number)


def _hectares(job: Job) -> dict[str, float]:
    total: Counter[str] = Counter()
    for task in job.maps.values():
        if map_is_done(task):
            for row in get_json(at(task.out), "area.json")["classes"]:
                total[row["class"]] += row["hectares"]
    return dict(total.most_common())


def _span(attempts: Iterable[Attempt]) -> float:
    edges = [datetime.fromisoformat(t) for one in attempts for t in (one.began, one.ended)]
    return (max(edges) - min(edges)).total_seconds() if edges else 0.0
