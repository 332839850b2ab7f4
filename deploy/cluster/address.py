"""A scheduler that somebody else has started."""

from __future__ import annotations

import ipaddress
import warnings
from urllib.parse import urlsplit

import distributed

from cube.errors import ClusterError
from deploy.cluster.wishes import Wishes

SCHEMES = ("tls", "tcp")


class AddressBackend:
    """A cluster known by its scheduler's address: it can be used, not changed."""

    kind = "address"

    def __init__(self, address: str, wishes: Wishes, start_timeout: float) -> None:
        wishes.require_known(self.kind, frozenset())
        self.name = address
        _require_private(address)
        try:
            self.client = distributed.Client(address, timeout=min(start_timeout, 30))
        except OSError as error:
            raise ClusterError(
                f"no Dask scheduler answers at {address} within {min(start_timeout, 30):.0f} s; "
                "check that it runs and that this machine may reach it"
            ) from error
        except TypeError as error:
            # Dask's word for "no certificate is configured".
            raise ClusterError(
                f"{address} needs certificates: set distributed.comm.tls.ca-file and "
                "distributed.comm.tls.client.key and .cert in Dask's configuration"
            ) from error
        self.dashboard_link = self.client.dashboard_link or ""

    def scale(self, workers: int) -> None:
        """Refuse."""
        raise ClusterError(_NOT_OURS.format(self.name))

    def adapt(self, minimum: int, maximum: int) -> None:
        """Refuse."""
        raise ClusterError(_NOT_OURS.format(self.name))

    def look_after(self) -> None:
        """Do nothing: the client's connection tells all there is to know."""

    def close(self, stop: bool) -> None:
        """Stop scheduler and workers if asked to."""
        if stop:
            raise ClusterError(_NOT_OURS.format(self.name))


_NOT_OURS = (
    "the workers of {} were not started by cropcube, which cannot change their number or stop "
    "them; do it where they were started"
)


def _require_private(address: str) -> None:
    parts = urlsplit(address)
    if parts.scheme != "tcp" or _loopback(parts.hostname or ""):
        return
    warnings.warn(
        f"{address} is neither encrypted nor does it ask who connects: whoever reaches it runs any "
        "code there; use tls://",
        stacklevel=4,
    )


def _loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
