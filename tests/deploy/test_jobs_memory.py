"""Memory that runs out and a spill disk that is full, on real workers with real limits."""

from __future__ import annotations

import time

import dask
import distributed
import numpy as np
import pytest

from cube.objects import at
from deploy.jobs import plan_job, run_job, status
from deploy.jobs.report import read_attempts
from tests.archive import write_archive
from tests.deploy.jobs_kit import GRID, SPEC, TILES, write_inputs

pytestmark = pytest.mark.slow

MIB = 2**20
LIMIT = 700 * MIB
VICTIM = "31TEJ-1-1"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("memory")
    archive = write_archive(folder / "archive", ["2023-01-05", "2023-02-03"], ("blue",), grid=GRID)
    return write_inputs(folder, archive, SPEC.replace("lease_s: 60", "stall_timeout_s: 30"))


class Hungry(distributed.WorkerPlugin):
    """Lets one tile take all memory there is, in every worker and in those that replace them."""

    name = "hungry"

    def setup(self, worker):
        import cube.store

        write = cube.store.write_tile

        def write_tile(folder, granule, row, col, *rest):
            held = []
            while f"{granule}-{row}-{col}" == VICTIM:
                held.append(np.ones(16 * MIB, np.uint8))
                assert len(held) * 16 * MIB < 4 * LIMIT, "no limit holds"
                time.sleep(0.01)
            return write(folder, granule, row, col, *rest)

        cube.store.write_tile = write_tile


def cluster(**options):
    return distributed.LocalCluster(
        n_workers=1,
        threads_per_worker=1,
        memory_limit=LIMIT,
        dashboard_address=None,
        host="127.0.0.1",
        **options,
    )


def test_a_tile_that_takes_all_memory_is_tried_once_more_and_fails_alone(spec, tmp_path):
    job = plan_job(spec, tmp_path / "run")
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster() as workers,
        distributed.Client(workers) as client,
    ):
        client.register_plugin(Hungry())
        outcome = run_job(tmp_path / "run", client=client)
    assert (outcome.code, outcome.done) == (75, len(TILES) - 1)
    assert outcome.failed == {VICTIM: "oom"}
    attempts = read_attempts(job.folder, VICTIM)
    assert [one.failure for one in attempts] == ["oom", "oom"]
    assert "give each worker more (run.cluster.memory" in attempts[-1].error
    # Where there is memory enough it is built.
    assert run_job(tmp_path / "run").code == 0


def fill(folder):
    with pytest.raises(OSError, match="No space left"):
        (folder / "filler").write_bytes(bytes(2 * MIB))


def test_a_full_spill_disk_stops_the_run_and_is_named(spec, small_disk, tmp_path):
    job = plan_job(spec, tmp_path / "run")
    # Nobody is to be killed here: a worker that cannot spill waits for ever.
    limits = {"distributed.worker.memory.terminate": False}
    with (
        dask.config.set(limits),
        cluster(local_directory=str(small_disk)) as workers,
        distributed.Client(workers) as client,
    ):
        fill(small_disk)
        held = []
        while "paused" not in {w["status"] for w in client.scheduler_info()["workers"].values()}:
            assert len(held) < LIMIT / (16 * MIB), "the worker has spilt to a disk that is full"
            future = client.submit(np.ones, 16 * MIB, np.uint8, pure=False)
            distributed.wait(future, timeout=30)
            held.append(future)
            time.sleep(0.1)
        plan_job(spec_of(spec, "stall_timeout_s: 1"), tmp_path / "run")
        outcome = run_job(tmp_path / "run", client=client)
    assert (outcome.code, outcome.done) == (75, 0)
    assert "no task ended for 1 s; paused: tcp://127.0.0.1:" in outcome.ended
    assert f"spills to {small_disk}" in outcome.ended
    assert "is that disk full?" in outcome.ended
    assert {one.outcome for one in read_attempts(at(tmp_path / "run"))} == {"aborted"}
    assert status(job).counts["done"] == 0


def spec_of(spec, run):
    """Write the job file beside itself with another limit; it is still the same job."""
    other = spec.with_name("impatient.yaml")
    other.write_text(spec.read_text().replace("stall_timeout_s: 30", run))
    return other
