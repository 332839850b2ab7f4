"""Claims: who works on which task, without a queue service.

An attempt is claimed by a create-only write, which disk and object stores alike grant to one runner
only. A runner shows that it lives by rewriting one small object; a claim whose runner has been
silent for longer than the lease, or is a dead process of this machine, is taken over by claiming
the next attempt. A slow runner that is taken over does no harm: both write the same bytes.

Times are those of the store, so clocks of machines that disagree do not matter.
"""

from __future__ import annotations

import json
import os
import re
import socket
import threading
import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path

from pydantic import BaseModel, ConfigDict

from cube.errors import StoreError
from cube.objects import Folder
from deploy.jobs.usage import Usage


@dataclass(frozen=True)
class Runner:
    """One process that runs tasks of a job.

    Attributes
    ----------
    id : str
        Unique.
    host : str
        For people.
    machine, pid, started : str, int, int
        Boot and process namespace, and the process in it (start in clock ticks after the boot):
        what tells whether a process of this machine still lives.
    image : str, optional
        Container image, from ``CROPCUBE_IMAGE``.
    """

    id: str
    host: str
    machine: str
    pid: int
    started: int
    image: str | None

    @classmethod
    def here(cls) -> Runner:
        """Return this process."""
        pid, host = os.getpid(), socket.gethostname()
        plain = re.sub(r"[^A-Za-z0-9-]", "-", host)[:60]
        name = f"{plain}-{pid}-{uuid.uuid4().hex[:8]}"
        return cls(name, host, _machine(), pid, _started(pid), os.environ.get("CROPCUBE_IMAGE"))

    @property
    def dead(self) -> bool:
        """Whether it was a process of this machine and is no more; False if that is unknown."""
        here = _machine()
        return bool(here) and here == self.machine and _started(self.pid) != self.started


class Attempt(BaseModel):
    """What became of one attempt at a task.

    Attributes
    ----------
    outcome : str
        ``done``, ``failed`` or ``aborted``.
    failure, error : str, optional
        Class of the failure (`deploy.jobs.failures`) and its sentence.
    began, ended : str
        RFC 3339, clock of the store.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    task: str
    attempt: int
    runner: str
    outcome: str
    failure: str | None = None
    error: str | None = None
    began: str
    ended: str
    usage: Usage = Usage()


@dataclass(frozen=True)
class Standing:
    """Where a task stands: the number of its last attempt (0 = none), and whether it is held."""

    attempt: int
    held: bool


class Heart:
    """Signs of life of one runner, and the clock of the store."""

    def __init__(self, folder: Folder, me: Runner, lease_s: float) -> None:
        self._folder, self._me, self._lease_s = folder / "runners", me, lease_s
        self._offset = 0.0
        self._last = time.monotonic()
        self._stopped = threading.Event()
        self._beat()
        self._thread = threading.Thread(target=self._beat_on, name="cropcube-heart", daemon=True)
        self._thread.start()

    def now(self) -> datetime:
        """Return the time by the store's clock."""
        return datetime.fromtimestamp(time.time() + self._offset, UTC)

    @property
    def silent_s(self) -> float:
        """Seconds since the last sign of life reached the store."""
        return time.monotonic() - self._last

    def stop(self) -> None:
        """Beat no more."""
        self._stopped.set()
        self._thread.join(timeout=10)

    def leave(self) -> None:
        """Stop and take the sign away: what the runner still holds is free at once."""
        self.stop()
        self._folder.delete(f"{self._me.id}.json")

    def _beat_on(self) -> None:
        while not self._stopped.wait(self._lease_s / 4):
            try:
                self._beat()
            except StoreError:
                # One that is missed does no harm; the runner itself watches `silent_s`.
                continue

    def _beat(self) -> None:
        name = f"{self._me.id}.json"
        self._folder.put(name, json.dumps(asdict(self._me)).encode())
        told = self._folder.modified(name)
        if told is not None:
            self._offset = told.timestamp() - time.time()
        self._last = time.monotonic()


class Claims:
    """Claims of a job as one runner sees and makes them.

    Parameters
    ----------
    folder : Folder
        The run's folder.
    me : Runner
        Who asks.
    now : callable
        The time by the store's clock.
    lease_s : float
        Seconds of silence after which a runner has lost its tasks.
    """

    def __init__(
        self, folder: Folder, me: Runner, now: Callable[[], datetime], lease_s: float
    ) -> None:
        self._folder, self._me, self._now, self._lease_s = folder, me, now, lease_s
        self._runners: dict[str, Runner | None] = {}

    def counts(self) -> Counter[str]:
        """Return how many attempts at each task were claimed so far."""
        return Counter(name.split("/")[1] for name in self._folder.listing("claims"))

    def standing(self, task: str) -> Standing:
        """Return where a task stands now."""
        claimed = [int(Path(name).stem) for name in self._folder.listing(f"claims/{task}")]
        last = max(claimed, default=0)
        if last == 0 or self._folder.exists(f"attempts/{task}/{last}.json"):
            return Standing(last, held=False)
        return Standing(last, held=self._lives(self._owner(task, last)))

    def take(self, task: str, attempt: int) -> bool:
        """Claim an attempt; False if another runner was first."""
        claim = {"runner": self._me.id, "at": self._now().isoformat()}
        return self._folder.create(_name("claims", task, attempt), json.dumps(claim).encode())

    def record(self, attempt: Attempt) -> None:
        """Say what became of an attempt; from then on it holds nothing."""
        name = _name("attempts", attempt.task, attempt.attempt)
        self._folder.put(name, attempt.model_dump_json(indent=1).encode())

    def recorded(self, task: str, attempt: int) -> Attempt | None:
        """Return what became of an attempt, None if nobody said."""
        return read_attempt(self._folder, _name("attempts", task, attempt))

    def _owner(self, task: str, attempt: int) -> str:
        claim: dict[str, str] = json.loads(self._folder.get(_name("claims", task, attempt)))
        return claim["runner"]

    def _lives(self, runner: str) -> bool:
        if runner == self._me.id:
            return True
        beat = self._folder.modified(f"runners/{runner}.json")
        if beat is None or (self._now() - beat).total_seconds() > self._lease_s:
            return False
        known = self._runners.get(runner) or read_runner(self._folder, runner)
        self._runners[runner] = known
        return known is not None and not known.dead


def read_attempt(folder: Folder, name: str) -> Attempt | None:
    """Return one record of ``attempts/``, None if it is not there."""
    try:
        return Attempt.model_validate_json(folder.get(name))
    except FileNotFoundError:
        return None


def read_runner(folder: Folder, runner: str) -> Runner | None:
    """Return a runner by its id, None if it never gave a sign of life."""
    try:
        return Runner(**json.loads(folder.get(f"runners/{runner}.json")))
    except FileNotFoundError:
        return None


def _name(kind: str, task: str, attempt: int) -> str:
    return f"{kind}/{task}/{attempt}.json"


@cache
def _machine() -> str:
    """Return what only processes of this machine share, empty where the system does not tell."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot}/{Path('/proc/self/ns/pid').readlink()}"
    except OSError:
        return ""


def _started(pid: int) -> int:
    """Return when a process of this machine began, in clock ticks after the boot; 0 if it is none.

    Source: proc(5), field 22 of ``/proc/<pid>/stat``; a zombie (field 3) has ended.
    """
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0
    return 0 if fields[0] == "Z" else int(fields[19])
