"""One way to a Dask cluster, wherever it runs."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import distributed

from cube.errors import ClusterLostError


@contextmanager
def open_cluster(
    where: str = "local", *, workers: int | None = None, memory: str = "auto"
) -> Iterator[distributed.Client]:
    """Open a cluster, give its client, and close what was opened.

    Parameters
    ----------
    where : str
        ``local`` starts worker processes on this machine, reachable from it alone; an address
        such as ``tcp://…`` or ``tls://…`` connects to a scheduler that is already running.
    workers : int, optional
        Number of local worker processes, one thread each; default one per core.
    memory : str
        Memory limit of a local worker, ``2GiB`` for example.

    Yields
    ------
    distributed.Client

    Raises
    ------
    ClusterLostError
        If no scheduler answers at the address within 30 seconds.
    ValueError
        If `where` is neither.
    """
    if where == "local":
        with (
            distributed.LocalCluster(
                n_workers=workers or os.cpu_count() or 1,
                threads_per_worker=1,
                memory_limit=memory,
                host="127.0.0.1",  # Dask runs any code it is sent: never listen further
                dashboard_address="127.0.0.1:0",
            ) as cluster,
            distributed.Client(cluster) as client,
        ):
            yield client
        return
    if "://" not in where:
        raise ValueError(
            f"'{where}' is no cluster; choose local, tcp://host:port or tls://host:port"
        )
    try:
        client = distributed.Client(where, timeout=30)
    except OSError as error:
        raise ClusterLostError(
            f"no Dask scheduler answers at {where} within 30 s; check that it runs and that this "
            "machine may reach it"
        ) from error
    with client:
        yield client
