"""Who does the tasks of a runner: threads of its own process, or the workers of a Dask cluster."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Protocol

import dask
from dask.system import CPU_COUNT

from cube.errors import ClusterLostError
from deploy.jobs.attempt import Result, attempt
from deploy.jobs.tasks import Task

if TYPE_CHECKING:
    from distributed import Client


class Crew(Protocol):
    """What a runner needs of those who work."""

    def slots(self) -> int:
        """Return how many tasks may be under way at once."""

    def begin(self, task: Task, key: str) -> Future[Result]:
        """Begin a task; `key` names the attempt."""

    def give_up(self, key: str, future: Future[Result]) -> bool:
        """Stop an attempt; False if it cannot be stopped and goes on in this process."""

    def complaint(self) -> str:
        """Return what keeps workers from working, empty if nothing is known."""

    def leave(self) -> None:
        """Wait for nothing any more."""


class Here:
    """Threads of this process; computing is shared out by `cube.cores`.

    A thread cannot be stopped: who gives up on a task has to end the process. That is safe at any
    moment, as nothing is ever written half.
    """

    def __init__(self, at_once: int | None) -> None:
        self._slots = at_once or int(dask.config.get("num_workers", None) or CPU_COUNT)
        self._pool = ThreadPoolExecutor(self._slots, thread_name_prefix="cropcube-task")

    def slots(self) -> int:
        """Return the number of threads."""
        return self._slots

    def begin(self, task: Task, key: str) -> Future[Result]:
        """Begin a task in a thread."""
        return self._pool.submit(attempt, task)

    def give_up(self, key: str, future: Future[Result]) -> bool:
        """Return whether the task had not begun yet."""
        return future.cancel()

    def complaint(self) -> str:
        """Return nothing: threads of this process are never paused."""
        return ""

    def leave(self) -> None:
        """Begin nothing any more."""
        self._pool.shutdown(wait=False, cancel_futures=True)


class OnCluster:
    """Workers of a Dask cluster; a slot per thread that is there now.

    Dask itself gives a task whose worker died to others first, ``distributed.scheduler.
    allowed-failures`` times; after that the runner does so, and counts.
    """

    def __init__(self, client: Client) -> None:
        self._client = client
        # A closed client does not know it any more.
        self._address = client.scheduler.address if client.scheduler else "unknown address"
        self._executor: Any = client.get_executor(pure=False, retries=0)

    def slots(self) -> int:
        """Return the number of threads of all workers.

        Raises
        ------
        ClusterLostError
            If the scheduler is gone.
        """
        if self._client.status not in ("running", "connecting"):
            raise self._lost()
        return sum(self._client.nthreads().values()) if self._client.status == "running" else 0

    def begin(self, task: Task, key: str) -> Future[Result]:
        """Send a task to a worker."""
        from distributed.client import ClosedClientError

        try:
            future: Future[Result] = self._executor.submit(attempt, task, key=key)
        except ClosedClientError as error:
            raise self._lost() from error
        return future

    def give_up(self, key: str, future: Future[Result]) -> bool:
        """Restart the worker that has the task."""
        busy = [address for address, keys in self._client.processing().items() if key in keys]
        future.cancel()
        if busy:
            self._client.restart_workers(busy, timeout=30, raise_for_error=False)
        return True

    def complaint(self) -> str:
        """Return which workers are paused, and the disks that they spill to.

        A worker pauses when its memory is nearly full, as it stays where its spill disk is full.
        """
        if self._client.status != "running":
            return ""
        workers = self._client.scheduler_info(n_workers=-1)["workers"]
        paused = [
            f"{address} ({worker['metrics'].get('memory', 0) / 2**20:.0f} of "
            f"{worker['memory_limit'] / 2**20:.0f} MiB, spills to {worker['local_directory']})"
            for address, worker in workers.items()
            if worker["status"] == "paused"
        ]
        return f"paused: {', '.join(paused)}; is that disk full?" if paused else ""

    def _lost(self) -> ClusterLostError:
        return ClusterLostError(
            f"the Dask scheduler at {self._address} is gone; open a cluster and run the job again, "
            "it resumes"
        )

    def leave(self) -> None:
        """Cancel what is still waiting."""
        if self._client.status == "running":
            self._executor.shutdown(wait=False)
