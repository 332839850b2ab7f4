"""What every place that runs a cluster has to offer."""

from __future__ import annotations

from typing import Protocol

import distributed


class Backend(Protocol):
    """A cluster that runs somewhere, and the client that speaks to it.

    Attributes
    ----------
    kind : str
        ``local``, ``gateway``, ``slurm`` or ``address``.
    name : str
        What to call this cluster; on a gateway the name to attach to again.
    client : distributed.Client
        Connected.
    dashboard_link : str
        Empty if there is none.
    """

    kind: str
    name: str
    client: distributed.Client
    dashboard_link: str

    def scale(self, workers: int) -> None:
        """Ask for that many workers; they come and go later."""

    def adapt(self, minimum: int, maximum: int) -> None:
        """Let the number of workers follow the work."""

    def look_after(self) -> str | None:
        """Do what the platform forgets; return why the cluster is gone, or None while it lives."""

    def close(self, stop: bool) -> None:
        """Let go of the cluster, and stop it if asked to; the client is closed already."""
