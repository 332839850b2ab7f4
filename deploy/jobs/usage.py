"""What a task took: time, memory, requests."""

from __future__ import annotations

import resource
import sys
import threading
import time

from pydantic import BaseModel, ConfigDict

from cube.traffic import traffic
from deploy.jobs.prices import Use


class Usage(BaseModel):
    """What an attempt took; adds up over the attempts of a job.

    Parameters
    ----------
    wall_s : float
        Seconds from begin to end.
    cpu_s, read_mib, written_mib, requests, retries
        Of the whole process since the last task that ended in it: exact as a sum, shared out by
        chance where several tasks run at once.
    rss_mib : float
        Greatest memory that the process ever held.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    wall_s: float = 0.0
    cpu_s: float = 0.0
    rss_mib: float = 0.0
    read_mib: float = 0.0
    written_mib: float = 0.0
    requests: int = 0
    retries: int = 0

    def __add__(self, other: Usage) -> Usage:
        """Return both together; of memory the greater."""
        return Usage(
            wall_s=self.wall_s + other.wall_s,
            cpu_s=self.cpu_s + other.cpu_s,
            rss_mib=max(self.rss_mib, other.rss_mib),
            read_mib=self.read_mib + other.read_mib,
            written_mib=self.written_mib + other.written_mib,
            requests=self.requests + other.requests,
            retries=self.retries + other.retries,
        )


def use_of(usage: Usage, *, tasks: int, hours: float) -> Use:
    """Return what was used in the terms of prices."""
    return Use(
        tasks=tasks,
        requests=usage.requests,
        bytes_read=round(usage.read_mib * 2**20),
        bytes_written=round(usage.written_mib * 2**20),
        peak_bytes=round(usage.rss_mib * 2**20),
        core_seconds=usage.wall_s,
        hours=hours,
    )


class Meter:
    """Gives each bit of work the process did to one task only."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cpu, self._traffic = time.process_time(), traffic()

    def take(self, wall_s: float) -> Usage:
        """Return what was used since the last call."""
        with self._lock:
            cpu, now = time.process_time(), traffic()
            before, self._cpu, self._traffic = (self._cpu, self._traffic), cpu, now
        return Usage(
            wall_s=wall_s,
            # A process that was forked begins its clock anew.
            cpu_s=max(0.0, cpu - before[0]),
            rss_mib=_peak_mib(),
            read_mib=(now.bytes - before[1].bytes) / 2**20,
            written_mib=(now.written - before[1].written) / 2**20,
            requests=now.requests - before[1].requests,
            retries=now.retries - before[1].retries,
        )


_meter = Meter()


def take(wall_s: float) -> Usage:
    """Return what this process used since a task last ended in it."""
    return _meter.take(wall_s)


def _peak_mib() -> float:
    # Linux tells KiB, macOS bytes.
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
