"""What ends a run before its tasks are done: signals, requests, silence, limits."""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from cube.errors import BudgetError
from deploy.jobs.claims import Attempt, Heart
from deploy.jobs.crew import Crew
from deploy.jobs.failures import AGAIN, CONFIGURATION, SERVICE, STOPPING, USAGE, Failure
from deploy.jobs.job import Job
from deploy.jobs.ledger import Ledger
from deploy.jobs.prices import check_budget
from deploy.jobs.usage import use_of

#: Seconds between two questions whether the job was cancelled, between two parts of events, and
#: between two looks at what other runners have spent.
_ASK_S, _FLUSH_S, _SUM_S = 5.0, 15.0, 15.0
_LOOK = "look at the workers: their number, their memory and their spill disk"


class Halt(Exception):  # noqa: N818 - an order, not an error
    """End the run now and give up what is under way."""

    def __init__(self, reason: str, code: int) -> None:
        super().__init__(reason)
        self.code = code


class Stop:
    """A request to end a run, set from outside: by a signal, or by another thread."""

    def __init__(self) -> None:
        self.signum: int | None = None

    def set(self, signum: int = signal.SIGINT) -> None:
        """Ask the run to end as if this signal had come."""
        self.signum = signum


@contextmanager
def stopped_by_signals(stop: Stop) -> Iterator[None]:
    """Let SIGINT and SIGTERM end a run in good order; the second one ends the process at once."""

    def ask(signum: int, frame: FrameType | None) -> None:
        stop.set(signum)
        signal.signal(signum, before[signum])

    signals = (signal.SIGINT, signal.SIGTERM)
    before: dict[int, Any] = {one: signal.getsignal(one) for one in signals}
    for one in signals:
        signal.signal(one, ask)
    try:
        yield
    finally:
        for one in signals:
            signal.signal(one, before[one])


@dataclass(frozen=True)
class Closing:
    """Why nothing new is begun; what is under way is finished."""

    reason: str
    code: int | None


class Watch:
    """The watchdogs of one run."""

    def __init__(self, job: Job, crew: Crew, heart: Heart, stop: Stop) -> None:
        self._job, self._crew, self._heart, self._stop = job, crew, heart, stop
        self._moved = self._asked = self._flushed = self._summed = time.monotonic()
        self._ledger = Ledger(job.folder)
        self.closing: Closing | None = None

    def moved(self) -> None:
        """Note that a task ended."""
        self._moved = time.monotonic()

    def paid(self, attempt: Attempt) -> None:
        """Note what an attempt of this runner took."""
        self._ledger.enter(attempt)
        self._count()

    def look_at_others(self) -> None:
        """Note what other runners paid, before and meanwhile; without a budget nobody asks."""
        if self._job.spec.run.budget is not None:
            self._summed = time.monotonic()
            self._ledger.look()
            self._count()

    def _count(self) -> None:
        budget = self._job.spec.run.budget
        if budget is None:
            return
        spent = budget.prices.cost_of(use_of(self._ledger.used, tasks=0, hours=0))
        try:
            check_budget(spent, budget.limit, budget.prices.currency)
        except BudgetError as error:
            self.closing = Closing(str(error), CONFIGURATION)

    def failed(self, failure: Failure, count: int, total: int) -> None:
        """Note that a task has failed for good; `count` of `total` have by now."""
        limit = self._job.spec.run.max_failed_fraction
        if failure in STOPPING:
            self.closing = Closing(f"{failure}: it would fail every task", None)
        elif failure is Failure.AUTH:
            self.closing = Closing("access was refused", None)
        elif self.closing is None and count > math.ceil(limit * total):
            self.closing = Closing(f"more than {limit:.0%} of the tasks have failed", None)

    def look(self) -> None:
        """Ask every watchdog.

        Raises
        ------
        Halt
            If the run has to end at once.
        """
        run, now = self._job.spec.run, time.monotonic()
        if self._stop.signum is not None:
            name = signal.Signals(self._stop.signum).name
            raise Halt(name, 128 + self._stop.signum)
        if self._heart.silent_s > run.lease_s:
            raise Halt(
                f"no sign of life reached {self._job.folder} for {run.lease_s:g} s; others may "
                "have taken over",
                SERVICE,
            )
        if now - self._moved > run.stall_timeout_s:
            raise Halt(
                f"no task ended for {run.stall_timeout_s:g} s; {self._crew.complaint() or _LOOK}",
                AGAIN,
            )
        if now - self._asked > _ASK_S:
            self._asked = now
            if (when := self._job.cancelled()) is not None:
                # Not 75: whatever started the runner must not start it again.
                self.closing = Closing(f"cancelled at {when}", USAGE)

        if now - self._summed > _SUM_S:
            self.look_at_others()

    def flush_due(self) -> bool:
        """Return whether it is time to write the events."""
        if time.monotonic() - self._flushed < _FLUSH_S:
            return False
        self._flushed = time.monotonic()
        return True
