"""Clusters of a Dask Gateway."""

from __future__ import annotations

import distributed
from dask_gateway.client import ClusterReport, ClusterStatus

from cube.errors import ClusterError
from deploy.cluster.gateway_api import GatewayApi
from deploy.cluster.gateway_options import chosen_options
from deploy.cluster.waiting import wait_for
from deploy.cluster.wishes import Tell, Wishes

KNOWN = frozenset(
    {"workers", "worker_memory", "worker_threads", "image", "env", "idle_timeout", "options"}
)
_OVER = (ClusterStatus.STOPPING, ClusterStatus.STOPPED, ClusterStatus.FAILED)


class GatewayBackend:
    """A cluster that a gateway started, now or earlier.

    Parameters
    ----------
    wishes : Wishes
        For a new cluster.
    name : str or None
        Attach to this one instead.
    start_timeout : float
        Seconds until the scheduler has to run.
    tell : callable
        Takes lines about what is being waited for.
    """

    kind = "gateway"

    def __init__(self, wishes: Wishes, name: str | None, start_timeout: float, tell: Tell) -> None:
        wishes.require_known(self.kind, KNOWN if name is None else frozenset({"workers"}))
        self._api = GatewayApi()
        self._work_due = False
        submitted = None
        try:
            if name is None:
                submitted = self._submit(wishes, tell)
            self.name = submitted or str(name)
            report = self._wait_for_start(start_timeout, tell, wishes.image)
            self.client = distributed.Client(
                report.scheduler_address, security=report.security, timeout=30
            )
            if wishes.workers is not None:
                self.scale(wishes.workers)
        except BaseException as error:
            if hasattr(self, "client"):
                self.client.close(timeout=5)
            if submitted is not None:
                self._api.stop(submitted)
            self._api.close()
            if isinstance(error, OSError) and not isinstance(error, ClusterError):
                raise self._unreachable(error) from error
            raise
        self.dashboard_link = report.dashboard_link or ""

    def _submit(self, wishes: Wishes, tell: Tell) -> str:
        options = self._api.options()
        for option, value in chosen_options(options, wishes, tell).items():
            try:
                options[option] = value
            except (TypeError, ValueError) as error:
                raise ClusterError(f"gateway {self._api.address}: {error}") from error
        return self._api.submit(options)

    def _wait_for_start(self, limit: float, tell: Tell, image: str | None) -> ClusterReport:
        last = ""

        def started() -> ClusterReport | None:
            nonlocal last
            report = self._api.report(self.name)
            last = report.status.name
            if report.status in _OVER:
                raise ClusterError(
                    f"gateway cluster {self.name} is {last}, not running; the gateway's log tells "
                    "why: an image that cannot be had, too little room, no command dask-scheduler"
                )
            return report if report.status is ClusterStatus.RUNNING else None

        of_image = f" from image {image}" if image else ""
        return wait_for(
            started,
            f"the scheduler of gateway cluster {self.name}{of_image}",
            limit=limit,
            state=lambda: f"the gateway says {last}",
            tell=tell,
            remedy="look at the gateway's log (room for its pods, the image), or raise "
            "start_timeout",
        )

    def _unreachable(self, error: OSError) -> ClusterError:
        return ClusterError(
            f"gateway cluster {self.name} of {self._api.address} runs, but its scheduler cannot be "
            f"reached ({error}); set gateway.proxy-address to the address that forwards gateway:// "
            "connections: HTTP alone is not enough"
        )

    def scale(self, workers: int) -> None:
        """Ask for that many workers."""
        self._api.scale(self.name, workers)

    def adapt(self, minimum: int, maximum: int) -> None:
        """Let the number of workers follow the work."""
        self._api.adapt(self.name, minimum, maximum)

    def look_after(self) -> str | None:
        """Return what the gateway says of a cluster that is over."""
        report = self._api.report(self.name)
        if report.status not in _OVER:
            if self.client.status == "running":
                self._work_due = any(
                    state.status == "pending" for state in list(self.client.futures.values())
                )
            return None
        if report.status is ClusterStatus.FAILED:
            return "its scheduler died, the gateway says FAILED"
        idle = report.options.get("idle_timeout")
        after = f" after {idle:g} s without work" if isinstance(idle, int | float) else ""
        # A gateway does not tell who stopped a cluster; one with work of ours did not idle.
        if self._work_due:
            return "it was stopped while work was due, by somebody or by a limit of the gateway"
        return f"stopped (idle{after}), or somebody stopped it"

    def close(self, stop: bool) -> None:
        """Stop the cluster if asked to, and end the connection to the gateway."""
        try:
            if stop:
                self._api.stop(self.name)
        finally:
            self._api.close()
