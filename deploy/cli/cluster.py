"""Commands for clusters: start one, see what runs, stop it, try it."""

from __future__ import annotations

import signal
import threading
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from cube.errors import ClusterError
from deploy.cli.common import Json, emit, example
from deploy.progress import console

if TYPE_CHECKING:
    from deploy.cluster import Cluster

app = typer.Typer(
    name="cluster", help="Dask clusters: up, list, down, check.", no_args_is_help=True
)

Backend = Annotated[
    str | None,
    typer.Option(
        "--backend",
        help="local, gateway, slurm or tls://host:port; default CROPCUBE_CLUSTER, then local.",
    ),
]
Workers = Annotated[int | None, typer.Option("--workers", min=1, help="Number of workers.")]
Memory = Annotated[str | None, typer.Option("--worker-memory", help="Of each: 8GiB.")]
Threads = Annotated[int | None, typer.Option("--worker-threads", min=1, help="Of each worker.")]
Image = Annotated[str | None, typer.Option("--image", help="With tag or digest; gateway only.")]
Env = Annotated[
    list[str] | None,
    typer.Option("--env", metavar="NAME=VALUE", help="Of the workers; repeatable."),
]
Option = Annotated[
    list[str] | None,
    typer.Option(
        "--option", metavar="NAME=VALUE", help="An option of the hub or of SLURM; repeatable."
    ),
]
StartTimeout = Annotated[str, typer.Option("--start-timeout", help="10min, 45s.")]


@app.command(epilog=example("cropcube cluster up --backend gateway --workers 4"))
def up(
    backend: Backend = None,
    workers: Workers = None,
    worker_memory: Memory = None,
    worker_threads: Threads = None,
    image: Image = None,
    env: Env = None,
    option: Option = None,
    idle_timeout: Annotated[
        str | None, typer.Option("--idle-timeout", help="30min; gateway only.")
    ] = None,
    start_timeout: StartTimeout = "5min",
    as_json: Json = False,
) -> None:
    """Start a cluster: a gateway's goes on by itself, others until this command is interrupted."""
    from deploy.cluster import open_cluster
    from deploy.cluster.opening import where_of

    where = where_of(backend)
    with open_cluster(
        where,
        workers=workers,
        worker_memory=worker_memory,
        worker_threads=worker_threads,
        image=image,
        env=pairs_of(env or [], "--env"),
        options=pairs_of(option or [], "--option"),
        idle_timeout=idle_timeout,
        start_timeout=start_timeout,
        keep_alive=where == "gateway",
    ) as cluster:
        scheduler = cluster.client.scheduler.address
        emit(asdict(cluster.status()) | {"scheduler": scheduler}, as_json)
        if where != "gateway":
            _hold(cluster)


def _hold(cluster: Cluster) -> None:
    """Return when this process is asked to end; raises if the cluster is lost."""
    asked = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: asked.set())
    console.print("Ctrl-C stops it")
    while not asked.wait(1.0):
        cluster.require_alive()


@app.command("list", epilog=example("cropcube cluster list"))
def list_clusters(as_json: Json = False) -> None:
    """Show your clusters of the gateway that start or run."""
    from deploy.cluster.gateway_api import GatewayApi

    api = GatewayApi()
    try:
        found = api.clusters()
    finally:
        api.close()
    rows = {
        one.name: {
            "status": one.status.name,
            "since": one.start_time.isoformat(timespec="seconds"),
            "dashboard": one.dashboard_link or "",
        }
        for one in found
    }
    if as_json:
        emit({"clusters": rows}, as_json)
    elif rows:
        emit({name: "  ".join(row.values()) for name, row in rows.items()}, as_json)
    else:
        console.print("no cluster runs")


@app.command(epilog=example("cropcube cluster down NAME"))
def down(names: Annotated[list[str], typer.Argument(help="Names that `list` shows.")]) -> None:
    """Stop clusters of the gateway."""
    from deploy.cluster.gateway_api import GatewayApi

    api = GatewayApi()
    try:
        for name in names:
            api.report(name)  # stopping an unknown name would pass without a word
            api.stop(name)
            console.print(f"stopped {name}", markup=False)
    finally:
        api.close()


@app.command(epilog=example("cropcube cluster check --backend local --workers 1"))
def check(
    backend: Backend = None,
    name: Annotated[str | None, typer.Option("--name", help="A gateway's running cluster.")] = None,
    workers: Workers = None,
    worker_memory: Memory = None,
    href: Annotated[
        str | None, typer.Option("--href", help="GeoTIFF to read a block of; default a new one.")
    ] = None,
    start_timeout: StartTimeout = "5min",
    as_json: Json = False,
) -> None:
    """Try what a build needs on every worker; says which setting to change, exit code 1 then."""
    from deploy.cluster import open_cluster
    from deploy.cluster.opening import where_of

    where = where_of(backend)
    if workers is None and name is None and "://" not in where:
        workers = 1
    with open_cluster(
        where,
        name=name,
        workers=workers,
        worker_memory=worker_memory,
        start_timeout=start_timeout,
        strict_versions=False,  # a finding here
    ) as cluster:
        found = cluster.check(href)
    if as_json:
        emit(found.to_dict(), as_json)
    else:
        typer.echo(found.text())
    if not found.ok:
        raise typer.Exit(1)


def pairs_of(texts: list[str], option: str) -> dict[str, str]:
    """Return what ``NAME=VALUE`` texts say.

    Raises
    ------
    ClusterError
        If a text is not of that form.
    """
    pairs = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ClusterError(f"{option} {name or text}: write NAME=VALUE")
        pairs[name] = value
    return pairs
