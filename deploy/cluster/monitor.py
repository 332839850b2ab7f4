"""Watching a cluster, so that nobody waits for one that is gone.

Dask's client only tries to connect again, for ever where a proxy accepts the connection, and a
gateway may call a cluster running long after its scheduler died. Both are asked here, and whichever
gives up first decides. Closing the client then cancels its futures: whoever waits for one wakes up.
"""

from __future__ import annotations

import logging
import threading
import time

from cube.errors import ClusterError
from deploy.cluster.backend import Backend

logger = logging.getLogger(__name__)

#: Seconds between looks; seconds a client may try to connect again before its cluster counts as
#: lost: a gateway that is restarted is back sooner, and the answer comes within a minute.
LOOK_EVERY, PATIENCE = 3.0, 40.0
_CLOSE_LIMIT = 5


class Monitor(threading.Thread):
    """A thread that looks after one cluster until it is stopped or the cluster is lost.

    Attributes
    ----------
    lost : str or None
        Why the cluster is gone, or None while it lives.
    """

    def __init__(self, backend: Backend) -> None:
        super().__init__(daemon=True, name=f"cropcube monitor of {backend.name}")
        self.lost: str | None = None
        self._backend = backend
        self._stopped = threading.Event()
        self._alone_since: float | None = None
        self._deaf = False

    def stop(self) -> None:
        """End the watch; safe to call from anywhere and more than once."""
        self._stopped.set()

    def run(self) -> None:
        """Look until there is nothing more to look after."""
        while not self._stopped.wait(LOOK_EVERY):
            why = self._why_lost()
            if why is None or self._stopped.is_set():
                continue
            self.lost = why
            logger.error("cluster %s is lost: %s", self._backend.name, why)
            self._backend.client.close(timeout=_CLOSE_LIMIT)
            return

    def _why_lost(self) -> str | None:
        try:
            why = self._backend.look_after()
        except ClusterError as error:
            # A gateway that does not answer says nothing about a cluster that still runs.
            if not self._deaf:
                logger.warning("%s", error)
            self._deaf, why = True, None
        else:
            self._deaf = False
        return why or self._why_alone()

    def _why_alone(self) -> str | None:
        status = self._backend.client.status
        if status == "running":
            self._alone_since = None
            return None
        now = time.monotonic()
        if self._alone_since is None:
            self._alone_since = now
        alone = now - self._alone_since
        if status == "connecting" and alone < PATIENCE:
            return None
        return f"its scheduler does not answer (for {alone:.0f} s; the client is {status})"
