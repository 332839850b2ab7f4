"""Worker processes on this machine."""

from __future__ import annotations

import os
from contextlib import ExitStack

import dask
import distributed

from deploy.cluster.environment import worker_environment
from deploy.cluster.wishes import Wishes

KNOWN = frozenset({"workers", "worker_memory", "worker_threads", "env"})
SPAWN_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"


class LocalBackend:
    """A cluster of processes that this machine alone can reach."""

    kind = "local"
    name = "local"

    def __init__(self, wishes: Wishes, start_timeout: float) -> None:
        wishes.require_known(self.kind, KNOWN)
        self._open = ExitStack()
        self._adaptive: distributed.deploy.adaptive.Adaptive | None = None
        with ExitStack() as undo:
            # Kept as long as the cluster lives: workers that are added later read it too.
            environment = {**dask.config.get(SPAWN_ENVIRONMENT), **worker_environment(wishes.env)}
            undo.enter_context(dask.config.set({SPAWN_ENVIRONMENT: environment}))
            self._cluster = undo.enter_context(
                distributed.LocalCluster(
                    n_workers=os.cpu_count() or 1 if wishes.workers is None else wishes.workers,
                    threads_per_worker=wishes.worker_threads or 1,
                    memory_limit=wishes.worker_memory or "auto",
                    host="127.0.0.1",  # Dask runs any code it is sent: never listen further
                    dashboard_address="127.0.0.1:0",
                )
            )
            self.client = distributed.Client(self._cluster, timeout=start_timeout)
            self._open = undo.pop_all()
        self.dashboard_link = self.client.dashboard_link or ""

    def scale(self, workers: int) -> None:
        """Ask for that many workers."""
        if self._adaptive is not None:
            self._adaptive.stop()  # it would undo this
        self._cluster.scale(workers)

    def adapt(self, minimum: int, maximum: int) -> None:
        """Let the number of workers follow the work."""
        self._adaptive = self._cluster.adapt(minimum=minimum, maximum=maximum)

    def look_after(self) -> None:
        """Do nothing: nannies start their workers again."""

    def close(self, stop: bool) -> None:
        """Stop the workers; they cannot outlive this process anyway."""
        self._open.close()
