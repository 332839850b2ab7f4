"""Clusters of a real Dask Gateway: what it refuses, and what happens when parts of it die."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import CancelledError
from typing import NamedTuple

import pytest
from dask_gateway.client import ClusterStatus

from cube.errors import ClusterError, ClusterLostError
from deploy import open_cluster
from deploy.cli import main
from deploy.cluster.environment import GDAL
from deploy.cluster.gateway_api import GatewayApi
from tests.deploy.gateway_server import gateway_server

pytestmark = pytest.mark.gateway

SMALL = {"worker_memory": "2GiB", "worker_threads": 1, "workers": 1}
#: The same software is asked for once; importing it on every worker of every test would not help.
FAST = {**SMALL, "strict_versions": False}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with gateway_server(tmp_path_factory.mktemp("gateway")) as running, running.configured():
        yield running


@pytest.fixture(scope="module")
def cluster(server):
    environment = {"GDAL_CACHEMAX": "64"}
    with open_cluster("gateway", **SMALL, env=environment, idle_timeout="20min") as opened:
        yield opened


@pytest.fixture
def api(server):
    opened = GatewayApi()
    yield opened
    opened.close()


def eventually(what, limit=60.0):
    """Wait until a condition holds."""
    deadline = time.monotonic() + limit
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_computes_and_tells_about_itself(cluster):
    assert cluster.gather(cluster.client.map(lambda n: n * n, range(5))) == [0, 1, 4, 9, 16]
    now = cluster.status()
    assert (now.backend, now.state, now.workers, now.threads) == ("gateway", "running", 1, 1)
    assert now.memory == 2 * 2**30
    assert cluster.name in now.dashboard_link
    assert len(cluster.logs()) == 2
    assert cluster.versions().differences == []
    found = cluster.check()
    assert found.ok, found.text()


def test_settings_for_gdal_are_process_environment(cluster):
    (environment,) = cluster.client.run(lambda: dict(os.environ)).values()
    assert GDAL.items() <= environment.items()
    assert environment["GDAL_CACHEMAX"] == "64"


def test_scales_within_the_limit_of_the_gateway(cluster):
    cluster.scale(2)
    cluster.wait_for_workers(2, limit=60)
    with pytest.warns(UserWarning, match="limit"):
        cluster.scale(9)
    cluster.scale(1)
    eventually(lambda: cluster.status().workers == 1)


def test_a_killed_worker_is_replaced(server, cluster):
    slow = cluster.client.map(lambda n: time.sleep(0.5) or n, range(8), pure=False)
    time.sleep(1.0)
    for process in server.processes("worker"):  # nanny and all
        process.kill()
    assert sum(cluster.gather(slow, limit=60)) == 28


def test_adapts_to_the_work(cluster):
    cluster.adapt(0, 2)
    eventually(lambda: cluster.status().workers == 0)
    assert cluster.gather(cluster.client.map(lambda n: -n, range(4)), limit=60) == [0, -1, -2, -3]
    cluster.scale(1)


def test_attaches_again_by_name(cluster, api):
    with open_cluster("gateway", name=cluster.name, strict_versions=False) as again:
        assert again.client.submit(sum, [1, 2]).result(30) == 3
    assert api.report(cluster.name).status is ClusterStatus.RUNNING
    with pytest.raises(ClusterError, match="cannot set image"):
        open_cluster("gateway", name=cluster.name, image="a:1")
    with pytest.raises(ClusterError, match="refuses: .*nobody"):
        open_cluster("gateway", name="nobody")


def test_refuses_a_wrong_password(server):
    with (
        server.configured(password="wrong"),  # noqa: S106
        pytest.raises(ClusterError, match=r"refuses the password or token \(401\)"),
    ):
        open_cluster("gateway")


def test_says_that_nothing_answers(server, monkeypatch):
    monkeypatch.setattr(server, "address", "http://127.0.0.1:9")
    with server.configured(), pytest.raises(ClusterError, match="127.0.0.1:9 does not answer"):
        open_cluster("gateway")
    monkeypatch.setattr(server, "address", None)
    with server.configured(), pytest.raises(ClusterError, match="set DASK_GATEWAY__ADDRESS"):
        open_cluster("gateway")


@pytest.mark.parametrize(
    ("wishes", "message"),
    [
        ({"env": {"LD_PRELOAD": "/x.so"}}, "LD_PRELOAD may not be set; allowed are names"),
        ({"env": {"AWS_SECRET_ACCESS_KEY": "x"}}, "looks like a secret"),
        ({"image": "a/b:1"}, "does not offer 'image'; it offers worker_cores"),
        ({"worker_threads": 64}, "worker_cores must be <= 2"),
        ({"options": {"gpu": True}}, "does not offer 'gpu'"),
    ],
)
def test_refuses_options(server, api, wishes, message):
    before = {one.name for one in api.clusters()}
    with pytest.raises(ClusterError, match=message):
        open_cluster("gateway", **wishes)
    assert {one.name for one in api.clusters()} == before


def test_the_server_itself_refuses_secrets(api):
    options = api.options()
    options.environment = {"AWS_SECRET_ACCESS_KEY": "x"}
    with pytest.raises(ClusterError, match="which a gateway would store"):
        api.submit(options)


def test_a_start_that_takes_too_long_is_given_up(server, api):
    before = {one.name for one in api.clusters()}
    with pytest.raises(ClusterError, match=r"waited 0 s for the scheduler .*the gateway says PEND"):
        open_cluster("gateway", start_timeout=0.1)
    eventually(lambda: {one.name for one in api.clusters()} == before)


class Done(NamedTuple):
    code: int
    stdout: str
    stderr: str


@pytest.fixture
def cropcube(monkeypatch, capsys):
    """Run the command in this process: a start of its own for each would only import again."""
    monkeypatch.setenv("CROPCUBE_CLUSTER", "gateway")

    def run(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["cropcube", *arguments])
        code = 0
        try:
            main()
        except SystemExit as end:
            code = int(end.code or 0)
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture
def as_environment(server, monkeypatch):
    monkeypatch.setenv("DASK_GATEWAY__ADDRESS", server.address)
    monkeypatch.setenv("DASK_GATEWAY__AUTH__TYPE", "basic")
    auth = {"username": "someone", "password": server.password}
    monkeypatch.setenv("DASK_GATEWAY__AUTH__KWARGS", repr(auth))


def test_the_commands(api, cropcube):
    up = cropcube("cluster", "up", "--idle-timeout", "10min", "--env", "GDAL_CACHEMAX=8", "--json")
    assert up.code == 0, up.stderr
    started = json.loads(up.stdout)
    name = started["name"]
    assert started["backend"] == "gateway"
    listed = json.loads(cropcube("cluster", "list", "--json").stdout)["clusters"]
    assert listed[name]["status"] == "RUNNING"
    options = api.report(name).options
    assert (options["idle_timeout"], options["environment"]["GDAL_CACHEMAX"]) == (600, "8")
    down = cropcube("cluster", "down", name)
    assert (down.code, down.stdout) == (0, "")
    assert f"stopped {name}" in down.stderr
    eventually(lambda: name not in {one.name for one in api.clusters()})
    unknown = cropcube("cluster", "down", "nobody")
    assert unknown.code == 2
    assert "nobody" in unknown.stderr


def test_the_preflight_command(cluster, cropcube, tmp_path):
    cluster.scale(1)
    cluster.wait_for_workers(1, limit=60)
    asked = ("cluster", "check", "--name", cluster.name, "--json")
    good = cropcube(*asked)
    assert good.code == 0, good
    assert json.loads(good.stdout)["ok"]
    bad = cropcube(*asked, "--href", str(tmp_path / "none.tif"))
    assert bad.code == 1
    findings = json.loads(bad.stdout)["findings"]
    assert [one["what"] for one in findings if not one["ok"]] == ["block read"]


PROGRAM = """
from deploy import open_cluster
cluster = open_cluster("gateway", strict_versions=False)
print(cluster.name, flush=True)
"""


def test_a_program_that_ends_takes_its_cluster_along(api, as_environment):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    name = done.stdout.strip()
    eventually(lambda: name not in {one.name for one in api.clusters()}, limit=20)


def test_an_idle_cluster_stops_and_says_so(server):
    with open_cluster("gateway", idle_timeout=5, **FAST) as cluster:
        client = cluster.client
        eventually(lambda: client.status != "running")
        later = client.submit(sum, [1])  # Dask alone would wait for ever
        with pytest.raises(ClusterLostError, match="run again"), cluster:
            later.result()
        with pytest.raises(ClusterLostError, match=r"stopped \(idle after 5 s without work\)"):
            _ = cluster.client


@pytest.mark.slow  # half a minute of waiting; test_cluster.py loses a local scheduler faster
def test_a_killed_scheduler_is_told_within_a_minute(server):
    with open_cluster("gateway", **FAST) as cluster:
        client = cluster.client
        (pid,) = {client.run_on_scheduler(os.getpid)}
        slow = client.map(time.sleep, [60] * 3, pure=False)
        os.kill(pid, signal.SIGKILL)
        started = time.monotonic()
        with pytest.raises(ClusterLostError, match="connection to its scheduler broke"):
            cluster.gather(slow)
        with pytest.raises(CancelledError):
            client.submit(sum, [1]).result()  # Dask alone would wait for ever
        with pytest.raises(ClusterLostError, match="open another and run again"):
            _ = cluster.client
        assert time.monotonic() - started < 60


def test_a_killed_server_loses_what_was_due_but_not_the_cluster(server):
    # Last: the proxy of the first server ends with it, and with it every other connection.
    with open_cluster("gateway", **FAST) as cluster:
        slow = cluster.client.map(time.sleep, [8] * 2, pure=False)
        server.kill()
        with pytest.raises(ClusterLostError, match="results that were pending are lost"):
            cluster.gather(slow, limit=50)
        assert all(one.done() and one.cancelled() for one in slow)  # what Dask says of them
        server.start()
        eventually(lambda: cluster.status().state == "running")
        assert cluster.client.submit(sum, [1, 2]).result(30) == 3
