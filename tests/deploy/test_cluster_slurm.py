"""Workers as jobs of a real SLURM, with TLS; a cancelled job is asked for again."""

from __future__ import annotations

import os
import subprocess
import time

import pytest

from deploy import open_cluster
from deploy.cluster.environment import GDAL
from tests.deploy.slurm import missing, slurm

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.skipif(
        bool(missing()) or os.geteuid() != 0,
        reason="needs root and the packages slurm-wlm and munge: "
        f"{', '.join(missing()) or 'all programs'} {'missing' if missing() else 'found'}",
    ),
]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory):
    shared = tmp_path_factory.mktemp("shared")
    places = {"shared_temp_directory": str(shared), "log_directory": str(shared / "logs")}
    with pytest.MonkeyPatch.context() as patch, slurm() as config:
        patch.setenv("SLURM_CONF", str(config))
        with open_cluster(
            "slurm",
            **{"workers": 2, "worker_memory": "1GiB", "worker_threads": 1},
            env={"GDAL_CACHEMAX": "64"},
            options={"interface": "lo", "queue": "main", "walltime": "00:20:00", **places},
        ) as opened:
            opened.wait_for_workers(2, limit=60)
            yield opened


def jobs() -> list[str]:
    told = subprocess.run(["squeue", "-h", "-o", "%i"], capture_output=True, text=True, check=True)
    return told.stdout.split()


def test_computes_over_tls(cluster):
    assert cluster.client.scheduler.address.startswith("tls://")
    assert cluster.gather(cluster.client.map(lambda n: n * n, range(5))) == [0, 1, 4, 9, 16]
    assert len(jobs()) == 2


def test_settings_for_gdal_are_process_environment(cluster):
    for environment in cluster.client.run(lambda: dict(os.environ)).values():
        assert GDAL.items() <= environment.items()
        assert environment["GDAL_CACHEMAX"] == "64"
        assert "SLURM_JOB_ID" in environment


def test_a_cancelled_job_is_asked_for_again(cluster):
    slow = cluster.client.map(lambda n: time.sleep(0.5) or n, range(12), pure=False)
    gone = jobs()[0]
    subprocess.run(["scancel", gone], check=True)
    assert sum(cluster.gather(slow, limit=120)) == 66
    deadline = time.monotonic() + 90
    while len(jobs()) < 2 or gone in jobs() or cluster.status().workers < 2:
        assert time.monotonic() < deadline
        time.sleep(0.5)
