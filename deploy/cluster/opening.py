"""Opening a cluster by the name of where it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import dask
import pandas as pd
from dask.utils import parse_bytes

from cube.errors import ClusterError
from deploy.cluster.address import SCHEMES, AddressBackend
from deploy.cluster.backend import Backend
from deploy.cluster.handle import Cluster
from deploy.cluster.local import LocalBackend
from deploy.cluster.wishes import Tell, Wishes
from deploy.progress import console


def tell_console(line: str) -> None:
    """Print a line for people on stderr."""
    console.print(line, markup=False)


def open_cluster(
    backend: str | None = None,
    *,
    name: str | None = None,
    workers: int | None = None,
    worker_memory: str | int | None = None,
    worker_threads: int | None = None,
    image: str | None = None,
    env: Mapping[str, str] | None = None,
    idle_timeout: str | float | None = None,
    start_timeout: str | float = "5min",
    keep_alive: bool = False,
    strict_versions: bool = True,
    options: Mapping[str, Any] | None = None,
    tell: Tell = tell_console,
) -> Cluster:
    """Open a cluster, or attach to one that runs; it is closed by ``with`` or `Cluster.close`.

    Parameters
    ----------
    backend : str, optional
        ``local``: processes of this machine. ``gateway``: a Dask Gateway, whose address and
        password or token Dask's configuration holds (``gateway.yaml``, ``DASK_GATEWAY__…``).
        ``slurm``: jobs of this SLURM cluster. An address, ``tls://host:8786``: a scheduler that
        runs already. Default: the environment's ``CROPCUBE_CLUSTER``, then ``cropcube.cluster`` of
        Dask's configuration, then ``local``.
    name : str, optional
        Attach to this cluster of the gateway instead of starting one.
    workers : int, optional
        Number of workers; default one per core (local), none of the others: `Cluster.scale` later.
    worker_memory : str or int, optional
        Of each worker: ``8GiB``, or bytes.
    worker_threads : int, optional
        Of each worker.
    image : str, optional
        Container image with a tag or digest; gateway only.
    env : mapping of str to str, optional
        Environment of the workers, added to the settings for GDAL.
    idle_timeout : str or float, optional
        ``30min``, or seconds without work after which the cluster stops by itself; gateway only.
    start_timeout : str or float
        How long to wait for the scheduler, and then for the first worker.
    keep_alive : bool
        A new gateway cluster goes on after `Cluster.close`: attach again by its name.
    strict_versions : bool
        Whether software that differs between this process, scheduler and workers is an error.
    options : mapping, optional
        What only the backend knows: a hub's own options such as ``profile``; for SLURM arguments
        of ``dask_jobqueue.SLURMCluster`` such as ``queue``, ``account``, ``walltime``.
    tell : callable
        Takes a line every ten seconds about what is being waited for; default to stderr.

    Raises
    ------
    ClusterError
        If it cannot be had, with what to change: no answer, wrong password, an option that this
        gateway does not offer, a limit that passed.
    VersionMismatchError
        With a table, if the software differs.
    """
    where = where_of(backend)
    wishes = Wishes(
        workers=workers,
        worker_memory=None if worker_memory is None else number_of_bytes(worker_memory),
        worker_threads=worker_threads,
        image=image,
        env=dict(env or {}),
        idle_timeout=None if idle_timeout is None else seconds(idle_timeout),
        options=dict(options or {}),
    )
    if where != "gateway" and (name is not None or keep_alive):
        raise ClusterError(f"backend '{where}': only clusters of a gateway have a name and live on")
    limit = seconds(start_timeout)
    opened = _backend(where, wishes, name, limit, tell)
    ours = name is None and opened.kind != "address"
    cluster = Cluster(opened, stop_on_close=ours and not keep_alive, tell=tell)
    try:
        if ours and workers:
            cluster.wait_for_workers(1, limit)
        if strict_versions:
            cluster.versions().require_same()
    except BaseException:
        cluster.close(stop=ours)
        raise
    return cluster


def _backend(where: str, wishes: Wishes, name: str | None, limit: float, tell: Tell) -> Backend:
    if where == "local":
        return LocalBackend(wishes, limit)
    if where == "gateway":
        from deploy.cluster.gateway import GatewayBackend

        return GatewayBackend(wishes, name, limit, tell)
    if where == "slurm":
        from deploy.cluster.slurm import SlurmBackend

        return SlurmBackend(wishes, limit)
    if where.partition("://")[0] in SCHEMES:
        return AddressBackend(where, wishes, limit)
    raise ClusterError(
        f"'{where}' is no cluster; choose local, gateway, slurm, tls://host:port or tcp://host:port"
    )


def where_of(backend: str | None) -> str:
    """Return the backend asked for, or the default."""
    configured = os.environ.get("CROPCUBE_CLUSTER") or dask.config.get("cropcube.cluster", "local")
    return backend or str(configured)


def number_of_bytes(size: str | int) -> int:
    """Return ``8GiB`` or a number as bytes.

    Raises
    ------
    ClusterError
        If it is neither.
    """
    try:
        return int(parse_bytes(size))
    except ValueError as error:
        raise ClusterError(f"'{size}' is no amount of memory; write 8GiB") from error


def seconds(span: str | float) -> float:
    """Return a span such as ``30min`` or a number of seconds as seconds.

    Raises
    ------
    ClusterError
        If it is neither.
    """
    if isinstance(span, int | float):
        return float(span)
    try:
        return float(pd.Timedelta(span).total_seconds())
    except ValueError as error:
        raise ClusterError(f"'{span}' is no span of time; write 45s, 10min or 2h") from error
