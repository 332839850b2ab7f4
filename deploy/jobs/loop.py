"""The loop of one runner: claim, do, record, until every task is done or failed."""

from __future__ import annotations

import random
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, CancelledError, Future, wait
from dataclasses import dataclass, field
from typing import Any

from cube.errors import ClusterLostError
from deploy.jobs.attempt import Result
from deploy.jobs.claims import Attempt, Claims, Heart, Runner
from deploy.jobs.crew import Crew
from deploy.jobs.events import Events
from deploy.jobs.failures import SERVICE, STOPPING, TIME_LIMIT, Failure, code_of, exit_code
from deploy.jobs.job import Job
from deploy.jobs.report import noted
from deploy.jobs.spec import Running
from deploy.jobs.tasks import Task
from deploy.jobs.usage import Usage
from deploy.jobs.watch import Halt, Stop, Watch

#: Seconds between two looks at what ended; a signal waits no longer than this.
_TICK_S = 0.2


@dataclass(frozen=True)
class Outcome:
    """How a run ended.

    Attributes
    ----------
    total, done : int
        Tasks of this runner, and those of them that are done, whoever did them.
    failed : dict of str to Failure
        Task → class of its last failure in this run.
    ended : str
        ``finished``, or why it stopped before.
    code : int
        Exit code for a process that did nothing else.
    busy : bool
        Whether a thread of this process still works on a task that was given up; end the process
        with `os._exit`, nothing can be left half-written.
    """

    total: int
    done: int
    failed: dict[str, Failure]
    ended: str
    code: int
    busy: bool


@dataclass(eq=False)
class _Due:
    """A task to do: not before a moment, and with what it failed in this run so far."""

    task: Task
    not_before: float = 0.0
    waited: float = 0.0
    alone: bool = False
    failures: Counter[Failure] = field(default_factory=Counter)
    counted: int = 0


@dataclass(frozen=True)
class _Work:
    """An attempt under way."""

    due: _Due
    number: int
    began: float
    began_at: str

    @property
    def key(self) -> str:
        return f"{self.due.task.id}-{self.due.task.hash}-{self.number}"


@dataclass
class Loop:
    """One runner's tasks, from due to done or failed."""

    job: Job
    tasks: Sequence[Task]
    crew: Crew
    claims: Claims
    heart: Heart
    events: Events
    me: Runner
    stop: Stop
    due: list[_Due] = field(default_factory=list)
    working: dict[Future[Result], _Work] = field(default_factory=dict)
    failed: dict[str, Failure] = field(default_factory=dict)
    done: int = 0
    busy: bool = False

    def go(self) -> Outcome:
        """Work until there is nothing left to do, or a watchdog ends the run."""
        self.began_at = self.heart.now().isoformat()
        self.watch = Watch(self.job, self.crew, self.heart, self.stop)
        self.watch.look_at_others()
        self._look_around()
        ended, code = "finished", None
        try:
            while self.due or self.working:
                self._watch()
                self._begin()
                self._collect()
        except Halt as halt:
            ended, code = str(halt), halt.code
        except ClusterLostError as error:
            ended, code = str(error), SERVICE
        except OSError as error:
            # The run's own folder cannot be read or written: tasks fail with results, not so.
            ended, code = f"{self.job.folder}: {error}", code_of(error)
        finally:
            self._abort()
        if ended == "finished" and self.watch.closing:
            ended, code = self.watch.closing.reason, self.watch.closing.code
        code = code or exit_code(self.failed.values())
        self._tell("run_ended", "info" if code == 0 else "error", ended=ended, code=code)
        with noted(self.job):
            self.events.flush()
        return Outcome(len(self.tasks), self.done, dict(self.failed), ended, code, self.busy)

    def _look_around(self) -> None:
        """Find out what is due; what others tried without success comes last."""
        earlier = self.claims.counts()
        done, _ = self.job.done()
        left = [task for task in self.tasks if task.id not in done]
        self.done = len(self.tasks) - len(left)
        # A task at which runners died must not keep the next one from all the others.
        left.sort(key=lambda task: earlier[task.id])
        self.due = [_Due(task) for task in left]
        self._tell("run_began", total=len(self.tasks), image=self.me.image)

    # --- beginning ----------------------------------------------------------------------------

    def _begin(self) -> None:
        free = self.crew.slots() - len(self.working)
        if self.watch.closing or any(work.due.alone for work in self.working.values()):
            free = 0
            if self.watch.closing and not self.working:
                self.due = []
        for due in list(self.due):
            if free <= 0:
                return
            if time.monotonic() < due.not_before or (due.alone and self.working):
                continue
            if self._try(due):
                free -= 1
                if due.alone:
                    return

    def _try(self, due: _Due) -> bool:
        """Begin one task if it is free, needed and possible."""
        task = due.task
        broken = [t.id for t in self.job.needs(task) if t.id in self.failed]
        if broken:
            self._drop(due, self.failed[broken[0]], f"{task.id}: {broken[0]} has failed")
            return False
        standing = self.claims.standing(task.id)
        # Asked after the claims: who has just finished says so in this order.
        if self.job.is_done(task):
            self.due.remove(due)
            self._count_done("task_done_elsewhere", task)
            return False
        if standing.held or not all(map(self.job.is_done, self.job.needs(task))):
            # Soon, then ever more rarely: each look costs requests.
            due.waited = min(2 * due.waited + 0.1, 5.0, self.running.lease_s / 4)
            due.not_before = time.monotonic() + due.waited
            return False
        if self._failed_elsewhere(due, standing.attempt):
            return False
        number = standing.attempt + 1
        if not self.claims.take(task.id, number):
            return False
        self.due.remove(due)
        work = _Work(due, number, time.monotonic(), self.heart.now().isoformat())
        self._tell("task_began", task=task.id, attempt=number)
        self.working[self.crew.begin(task, work.key)] = work
        return True

    @property
    def running(self) -> Running:
        """How the spec wants runs to behave."""
        return self.job.spec.run

    def _failed_elsewhere(self, due: _Due, attempt: int) -> bool:
        """Take another runner's failure for our own if it came while we run."""
        if attempt <= due.counted:
            return False
        due.counted = attempt
        told = self.claims.recorded(due.task.id, attempt)
        if told is None or told.failure is None or told.runner == self.me.id:
            return False
        if told.outcome != "failed" or told.ended < self.began_at:
            return False
        self.due.remove(due)
        self._again_or_drop(due, Failure(told.failure), told.error or "")
        return True

    # --- ending -------------------------------------------------------------------------------

    def _collect(self) -> None:
        if not self.working:
            time.sleep(_TICK_S / 4)
            return
        ended, _ = wait(self.working, timeout=_TICK_S, return_when=FIRST_COMPLETED)
        for future in ended:
            work = self.working.pop(future)
            self._end(work, _result(future))

    def _end(self, work: _Work, result: Result) -> None:
        due, task = work.due, work.due.task
        due.counted = work.number
        failure, error = result.failure, result.error
        if failure is Failure.LOST:
            self._record(work, "aborted", result)
            raise ClusterLostError(error or "the cluster is gone")
        self._record(work, "done" if failure is None else "failed", result)
        if failure is None:
            self._count_done("task_done", task, attempt=work.number, **result.usage.model_dump())
            return
        self._again_or_drop(due, failure, error or "")

    def _again_or_drop(self, due: _Due, failure: Failure, error: str) -> None:
        due.failures[failure] += 1
        retries = self.running.retries
        limit = {Failure.TRANSIENT: retries.transient, Failure.OOM: retries.oom}.get(failure, 0)
        if due.failures[failure] > limit or failure in STOPPING:
            self._drop(due, failure, error)
            return
        pause = retries.backoff_s * 2 ** (due.failures[failure] - 1)
        due.not_before = time.monotonic() + pause * random.uniform(0.5, 1.5)  # noqa: S311 - jitter
        due.alone = due.alone or failure is Failure.OOM
        self.due.append(due)
        self._tell(
            "task_again", "warning", task=due.task.id, failure=failure, error=error, pause_s=pause
        )

    def _drop(self, due: _Due, failure: Failure, error: str) -> None:
        if due in self.due:
            self.due.remove(due)
        self.failed[due.task.id] = failure
        self._tell("task_failed", "error", task=due.task.id, failure=failure, error=error)
        self.watch.failed(failure, len(self.failed), len(self.tasks))

    def _count_done(self, event: str, task: Task, **facts: Any) -> None:
        self.done += 1
        self.watch.moved()
        self._tell(event, task=task.id, **facts)

    def _record(self, work: _Work, outcome: str, result: Result) -> None:
        attempt = Attempt(
            task=work.due.task.id,
            attempt=work.number,
            runner=self.me.id,
            outcome=outcome,
            failure=result.failure,
            error=result.error,
            began=work.began_at,
            ended=self.heart.now().isoformat(),
            usage=result.usage,
        )
        self.claims.record(attempt)
        self.watch.paid(attempt)

    def _tell(self, event: str, level: str = "info", **facts: Any) -> None:
        tally = {"all": len(self.tasks), "ok": self.done, "failed": len(self.failed)}
        self.events.tell(event, level, **facts, **tally)

    # --- watching -----------------------------------------------------------------------------

    def _watch(self) -> None:
        self.watch.look()
        if self.watch.flush_due():
            self.events.flush()
        now = time.monotonic()
        for future, work in list(self.working.items()):
            if now - work.began < self.running.task_timeout_s or future.done():
                continue
            del self.working[future]
            limit = f"{work.due.task.id}: not done after {self.running.task_timeout_s:g} s"
            self._end(work, Result(Usage(wall_s=now - work.began), Failure.TIMEOUT, limit))
            if not self.crew.give_up(work.key, future):
                self.busy = True
                raise Halt(
                    f"{limit}; its thread cannot be stopped, run again for the rest", TIME_LIMIT
                )

    def _abort(self) -> None:
        """Give up what is under way: no marker is written for it, and others may claim it."""
        for future, work in list(self.working.items()):
            outcome, result = "aborted", Result(Usage(wall_s=time.monotonic() - work.began))
            if future.done():
                result = _result(future)
                outcome = "done" if result.failure is None else "failed"
            elif not self.crew.give_up(work.key, future):
                self.busy = True
            with noted(self.job):
                self._record(work, outcome, result)
            self._tell(f"task_{outcome}", "warning", task=work.due.task.id, attempt=work.number)
        self.working.clear()


def _result(future: Future[Result]) -> Result:
    """Return what became of an attempt, also where its worker is gone."""
    try:
        return future.result()
    except (CancelledError, Exception) as error:
        return Result.of(error, Usage())
