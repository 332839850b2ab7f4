"""The one object for a cluster, wherever it runs."""

from __future__ import annotations

import atexit
from collections.abc import Sequence
from concurrent.futures import CancelledError
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import distributed
from distributed.client import ClosedClientError
from distributed.comm import CommClosedError

from cube.errors import ClusterError, ClusterLostError
from deploy.cluster.backend import Backend
from deploy.cluster.monitor import Monitor
from deploy.cluster.preflight import Preflight, preflight
from deploy.cluster.versions import Versions, read_versions
from deploy.cluster.waiting import wait_for, within
from deploy.cluster.wishes import Tell

#: Seconds for an answer of scheduler and workers, and for closing.
ANSWER, CLOSE = 60.0, 30.0


@dataclass(frozen=True)
class Status:
    """How a cluster stands.

    Attributes
    ----------
    backend, name, dashboard_link : str
        Where it runs, what it is called, where to watch it.
    state : str
        ``running``, ``connecting`` or ``lost: …`` with the reason.
    workers, threads : int
        That have joined.
    memory : int
        Bytes that the workers may use together.
    """

    backend: str
    name: str
    dashboard_link: str
    state: str
    workers: int
    threads: int
    memory: int


class Cluster:
    """A cluster that was opened by `open_cluster`; a context manager that closes it.

    Parameters
    ----------
    backend : Backend
        Connected; belongs to this object from now on.
    stop_on_close : bool
        Whether `close` also stops the cluster.
    tell : callable
        Takes lines about what is being waited for.
    """

    def __init__(self, backend: Backend, *, stop_on_close: bool, tell: Tell) -> None:
        self._backend, self._tell = backend, tell
        self._stop_on_close, self._closed = stop_on_close, False
        self._monitor = Monitor(backend)
        self._monitor.start()
        # A notebook whose kernel ends without closing would leave its cluster running.
        atexit.register(self.close)

    @property
    def name(self) -> str:
        """What the cluster is called; on a gateway the name to attach to again."""
        return self._backend.name

    @property
    def dashboard_link(self) -> str:
        """Address of Dask's dashboard; empty if there is none."""
        return self._backend.dashboard_link

    @property
    def client(self) -> distributed.Client:
        """The client to give to whatever computes on this cluster; raises as `require_alive`."""
        self.require_alive()
        return self._backend.client

    def require_alive(self) -> None:
        """Raise if there is nothing to compute on any more.

        Raises
        ------
        ClusterLostError
            If the cluster is gone.
        ClusterError
            If it was closed.
        """
        if (why := self._why_lost()) is not None:
            raise ClusterLostError(
                f"cluster {self.name} is lost: {why}; open another and run again, "
                "finished tiles are not built twice"
            )
        if self._closed:
            raise ClusterError(f"cluster {self.name} was closed; open another")

    def scale(self, workers: int) -> None:
        """Ask for that many workers; `wait_for_workers` waits until they are there."""
        self.require_alive()
        self._backend.scale(workers)

    def adapt(self, minimum: int, maximum: int) -> None:
        """Let the number of workers follow the work.

        In batch work a fixed number is steadier: workers that are taken away take results along.
        """
        self.require_alive()
        if not 0 <= minimum <= maximum or maximum < 1:
            raise ClusterError(
                f"adapt({minimum}, {maximum}): give 0 ≤ minimum ≤ maximum, from 1 on"
            )
        self._backend.adapt(minimum, maximum)

    def wait_for_workers(self, workers: int, limit: float = 300.0) -> None:
        """Wait until at least that many workers have joined.

        Raises
        ------
        ClusterError
            After `limit` seconds; the cluster goes on.
        """

        def joined() -> int:
            return len(self.client.scheduler_info(n_workers=-1)["workers"])

        wait_for(
            lambda: True if joined() >= workers else None,
            f"{workers} workers of {self.name}",
            limit=limit,
            state=lambda: f"{joined()} have joined",
            tell=self._tell,
            remedy="ask for fewer or smaller workers, or wait longer; logs() may tell why",
        )

    def wait(self, futures: Sequence[distributed.Future], limit: float | None = None) -> None:
        """Wait until all futures are done: with a result or an error, never lost.

        Raises
        ------
        ClusterLostError
            If the cluster or the connection to it broke: what was pending is lost then, though
            Dask calls such futures done.
        TimeoutError
            After `limit` seconds.
        """
        self.require_alive()
        try:
            distributed.wait(futures, timeout=limit)
        except CancelledError as error:
            self._raise_if_lost(error)
            raise

    def gather(self, futures: Sequence[distributed.Future], limit: float | None = None) -> Any:
        """Return the results of futures in their order.

        Raises
        ------
        ClusterLostError, TimeoutError
            As `wait`; errors of the tasks pass through.
        """
        self.wait(futures, limit)
        try:
            return self.client.gather(futures)
        except CancelledError as error:
            self._raise_if_lost(error)
            raise

    def status(self) -> Status:
        """Return how the cluster stands; never raises for a cluster that is gone."""
        backend, client = self._backend, self._backend.client
        workers: dict[str, dict[str, Any]] = {}
        state = "closed" if self._closed else client.status
        if (why := self._why_lost()) is not None:
            state = f"lost: {why}"
        elif state == "running":
            workers = client.scheduler_info(n_workers=-1)["workers"]
        return Status(
            backend=backend.kind,
            name=backend.name,
            dashboard_link=backend.dashboard_link,
            state=state,
            workers=len(workers),
            threads=sum(one["nthreads"] for one in workers.values()),
            memory=sum(one["memory_limit"] or 0 for one in workers.values()),
        )

    def logs(self) -> dict[str, str]:
        """Return what scheduler and workers logged: ``scheduler`` or a worker's address → text."""
        client = self.client
        found = {"scheduler": within(ANSWER, "the scheduler's log", client.get_scheduler_logs)}
        found |= within(ANSWER, "the workers' logs", client.get_worker_logs)
        return {
            place: "\n".join(line for _, line in reversed(lines)) for place, lines in found.items()
        }

    def versions(self) -> Versions:
        """Return what software runs on client, scheduler and workers."""
        client = self.client
        return within(ANSWER, "versions", lambda: read_versions(client))

    def check(self, href: str | None = None) -> Preflight:
        """Try what a build needs on every worker, before one is paid for.

        Parameters
        ----------
        href : str, optional
            GeoTIFF of which each worker reads one block; default a file that it writes itself.
        """
        client, versions = self.client, self.versions()
        return within(ANSWER, "the preflight", lambda: preflight(client, versions, href))

    def close(self, stop: bool | None = None) -> None:
        """Let go of the cluster.

        Parameters
        ----------
        stop : bool, optional
            Whether the cluster ends; default as it was opened: a new one ends, one that was
            attached to by name or address, or opened with `keep_alive`, goes on.
        """
        if self._closed:
            return
        self._closed = True
        atexit.unregister(self.close)
        self._monitor.stop()
        backend, stop = self._backend, self._stop_on_close if stop is None else stop
        try:
            backend.client.close(timeout=5)
        finally:
            within(CLOSE, f"closing {self.name}", lambda: backend.close(stop))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: object, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            # What Dask raises for a broken connection says nothing about the cluster.
            if isinstance(error, CancelledError | ClosedClientError | CommClosedError):
                self._raise_if_lost(error)
        finally:
            self.close()

    def __repr__(self) -> str:
        now = self.status()
        return f"<Cluster {now.backend} {now.name}: {now.state}, {now.workers} workers>"

    def _why_lost(self) -> str | None:
        # Dask's client may give up, and close itself, before the monitor looks again.
        gave_up = not self._closed and self._backend.client.status in ("closing", "closed")
        return self._monitor.lost or ("its scheduler does not answer" if gave_up else None)

    def _raise_if_lost(self, error: BaseException) -> None:
        connected = self._backend.client.status == "running"
        if connected and "scheduler-connection-lost" not in str(error):
            return
        why = self._why_lost() or "the connection to its scheduler broke"
        raise ClusterLostError(
            f"cluster {self.name}: {why}; results that were pending are lost, run again: finished "
            "tiles are not built twice"
        ) from error
