"""Jobs on a Dask cluster: workers die, hang and run out of memory; the job goes on."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import dataclass

import dask
import distributed
import pytest

from cube.objects import at
from deploy.jobs import plan_job, report, run_job
from deploy.jobs.crew import OnCluster
from deploy.jobs.failures import Failure
from deploy.jobs.loop import _result
from deploy.jobs.report import read_attempts
from tests.archive import write_archive
from tests.deploy.jobs_kit import GRID, SPEC, TILES, contents, write_inputs


@dataclass(frozen=True)
class Deadly:
    """A task that kills its worker."""

    id: str = "deadly"

    def work(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)


@dataclass(frozen=True)
class Endless:
    """A task that never ends."""

    id: str = "endless"

    def work(self) -> None:
        time.sleep(3600)


@dataclass(frozen=True)
class Harmless:
    """A task that does nothing."""

    id: str

    def work(self) -> None:
        pass


@pytest.fixture(scope="module")
def client():
    with (
        # A worker's death is told at once: by default Dask tries four workers first.
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        yield client


def test_a_worker_is_killed_and_the_bytes_are_the_same(client, tmp_path):
    archive = write_archive(
        tmp_path / "archive", ["2023-01-05", "2023-02-03"], ("blue",), grid=GRID
    )
    spec = write_inputs(tmp_path, archive, SPEC)
    plan_job(spec, tmp_path / "alone")
    assert run_job(tmp_path / "alone").code == 0
    job = plan_job(spec, tmp_path / "run")
    killed = []

    def listen(event):
        if event["event"] == "task_done" and not killed:
            workers = client.scheduler_info()["workers"]
            pids = client.run(os.getpid)
            busy = [address for address, keys in client.processing().items() if keys]
            victim = (busy or list(workers))[0]
            killed.append(victim)
            os.kill(pids[victim], signal.SIGKILL)

    outcome = run_job(tmp_path / "run", client=client, listener=listen)
    assert killed
    assert (outcome.code, outcome.done) == (0, 9)
    assert contents(tmp_path / "run" / "data") == contents(tmp_path / "alone" / "data")
    assert report(job).attempts == {"done": 9, "failed": 1}


@pytest.mark.slow
def test_a_deadly_task_fails_alone(client):
    crew = OnCluster(client)
    assert _result(crew.begin(Deadly(), "deadly-1")).failure is Failure.OOM
    others = [crew.begin(Harmless(f"harmless-{n}"), f"harmless-{n}-1") for n in range(6)]
    assert [_result(future).failure for future in others] == [None] * 6


@pytest.mark.slow
def test_a_hanging_task_gives_its_worker_back(client):
    crew = OnCluster(client)
    hanging = [crew.begin(Endless(), f"endless-{n}") for n in range(2)]
    deadline = time.monotonic() + 60
    while sum(map(len, client.processing().values())) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    for n, future in enumerate(hanging):
        assert crew.give_up(f"endless-{n}", future)
    assert _result(crew.begin(Harmless("after"), "after-1")).failure is None


def test_a_scheduler_that_is_gone_ends_the_run(client, tmp_path):
    archive = write_archive(tmp_path / "archive", ["2023-01-05"], ("blue",), grid=GRID)
    job = write_inputs(tmp_path, archive, SPEC.replace("2023-02", "2023-01"))
    plan_job(job, tmp_path / "run")
    lost = distributed.Client(client.scheduler.address)
    outcome = run_job(
        tmp_path / "run",
        client=lost,
        listener=lambda event: lost.close() if event["event"] == "task_began" else None,
    )
    assert (outcome.code, outcome.done) == (69, 0)
    assert "is gone; open a cluster and run the job again" in outcome.ended
    # Lost before or after the first task was sent; never taken for done.
    assert {one.outcome for one in read_attempts(at(tmp_path / "run"))} <= {"aborted"}
    assert run_job(tmp_path / "run", tasks=TILES[:1]).code == 0
