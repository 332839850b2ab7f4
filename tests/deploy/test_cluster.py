"""Clusters of this machine and by address: what they run, what they refuse, what they tell."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import dask
import distributed
import numpy as np
import pytest
import rasterio
from distributed import LocalCluster
from rasterio.transform import from_origin

from cube.errors import ClusterError, ClusterLostError, VersionMismatchError
from deploy import open_cluster
from deploy.cluster.environment import GDAL, require_no_secrets, worker_environment
from deploy.cluster.gateway_options import chosen_options
from deploy.cluster.opening import seconds, where_of
from deploy.cluster.preflight import Probe, _clock, _judge, read_block
from deploy.cluster.versions import Versions
from deploy.cluster.waiting import wait_for, within
from deploy.cluster.wishes import Wishes

WORKER = {"workers": 1, "worker_memory": "2GiB"}


@pytest.fixture(scope="module")
def cluster():
    with open_cluster("local", **WORKER, env={"GDAL_CACHEMAX": "64"}) as opened:
        yield opened


def test_computes_and_tells_about_itself(cluster):
    futures = cluster.client.map(lambda n: n * n, range(5))
    assert cluster.gather(futures) == [0, 1, 4, 9, 16]
    now = cluster.status()
    assert (now.backend, now.state, now.workers, now.threads) == ("local", "running", 1, 1)
    assert now.memory == 2 * 2**30
    assert set(cluster.logs()) == {"scheduler", *cluster.client.scheduler_info()["workers"]}
    assert repr(cluster) == "<Cluster local local: running, 1 workers>"


def test_errors_of_tasks_pass_through(cluster):
    with pytest.raises(ZeroDivisionError):
        cluster.gather([cluster.client.submit(lambda: 1 / 0, pure=False)])


def test_limits_hold(cluster):
    slow = cluster.client.submit(time.sleep, 60, pure=False)
    with pytest.raises(TimeoutError):
        cluster.wait([slow], limit=0.3)
    cluster.client.cancel([slow])
    with pytest.raises(ClusterError, match=r"waited 0 s for 9 workers of local .*1 have joined"):
        cluster.wait_for_workers(9, limit=0.3)


def test_settings_for_gdal_are_there_before_it_is_imported(cluster):
    def drivers():
        from rasterio.env import Env

        with Env() as env:
            return sorted(env.drivers()), dict(os.environ)

    ((found, environment),) = cluster.client.run(drivers).values()
    assert "GTiff" in found
    assert "VRT" not in found
    assert environment["GDAL_CACHEMAX"] == "64"
    assert GDAL.items() <= environment.items()


def test_scales(cluster):
    cluster.scale(2)
    cluster.wait_for_workers(2, limit=60)
    environments = cluster.client.run(lambda: os.environ["GDAL_SKIP"])
    assert list(environments.values()) == [GDAL["GDAL_SKIP"]] * 2
    cluster.adapt(1, 2)
    with pytest.raises(ClusterError, match="0 ≤ minimum ≤ maximum"):
        cluster.adapt(3, 2)
    cluster.scale(1)
    deadline = time.monotonic() + 60
    while cluster.status().workers > 1:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_check_finds_nothing_wrong(cluster):
    found = cluster.check()
    assert found.ok, found.text()
    assert [one.what for one in found.findings] == [
        *("versions", "kernel", "block read", "memory of a worker", "memory of a machine"),
        *("temporary disk", "GDAL settings", "clock"),
    ]


def test_check_names_a_block_that_cannot_be_read(cluster, tmp_path):
    (broken,) = [one for one in cluster.check(f"{tmp_path}/none.tif").findings if not one.ok]
    assert broken.what == "block read"
    assert "none.tif" in broken.found
    assert "network policy" in broken.remedy


def test_reads_the_block_that_gdal_reads(tmp_path):
    pixels = np.random.default_rng(1).integers(0, 10_000, (512, 256), np.uint16)
    path = tmp_path / "a.tif"
    with rasterio.open(
        *(path, "w"),
        **{"driver": "GTiff", "width": 256, "height": 512, "count": 1, "dtype": "uint16"},
        **{"tiled": True, "blockxsize": 128, "blockysize": 256, "compress": "deflate"},
        **{"crs": "EPSG:32631", "transform": from_origin(3e5, 5e6, 10, 10)},
    ) as file:
        file.write(pixels, 1)
    assert np.array_equal(read_block(str(path)), pixels[:256, :128])


@pytest.fixture
def other_zarr(tmp_path):
    """A folder of packages in which zarr says that it is another version."""
    told = tmp_path / "zarr-99.0.dist-info"
    told.mkdir()
    (told / "METADATA").write_text("Metadata-Version: 2.1\nName: zarr\nVersion: 99.0\n")
    return tmp_path


def test_refuses_other_software_with_a_table(other_zarr):
    dask_program = Path(sys.executable).with_name("dask")
    arguments = ["--nthreads", "1", "--no-nanny", "--no-dashboard"]
    environment = os.environ | {"PYTHONPATH": str(other_zarr)}
    with LocalCluster(n_workers=0, host="127.0.0.1", dashboard_address="127.0.0.1:0") as theirs:
        address = theirs.scheduler_address
        worker = subprocess.Popen([dask_program, "worker", address, *arguments], env=environment)
        try:
            theirs.wait_for_workers(1, timeout=60)
            with pytest.raises(VersionMismatchError) as caught:
                open_cluster(address)
            with open_cluster(address, strict_versions=False) as relaxed:
                assert relaxed.versions().differences == ["zarr"]
        finally:
            worker.kill()
            worker.wait()
    table = str(caught.value).splitlines()
    assert table[1].split() == ["client", "scheduler", "workers", "(1)"]
    here = distributed.versions.get_versions(["zarr"])["packages"]["zarr"]
    assert [line.split() for line in table[2:-1]] == [["zarr", here, here, "99.0"]]
    assert "same image or environment" in table[-1]


def test_a_closed_cluster_says_so():
    with open_cluster("local", **WORKER, strict_versions=False) as cluster:
        address = cluster.client.scheduler.address
        with (
            open_cluster(address, strict_versions=False) as same,
            pytest.raises(ClusterError, match="not started by cropcube"),
        ):
            same.scale(2)
        assert cluster.client.submit(sum, [1, 2]).result() == 3  # the other only let go of it
    with pytest.raises(ClusterError, match="was closed; open another"):
        _ = cluster.client
    assert cluster.status().state == "closed"
    cluster.close()


def test_a_lost_scheduler_wakes_who_waits(monkeypatch):
    monkeypatch.setattr("deploy.cluster.monitor.LOOK_EVERY", 0.2)
    monkeypatch.setattr("deploy.cluster.monitor.PATIENCE", 2.0)
    with LocalCluster(
        n_workers=1, host="127.0.0.1", dashboard_address="127.0.0.1:0", threads_per_worker=1
    ) as theirs:
        cluster = open_cluster(theirs.scheduler_address, strict_versions=False)
        slow = cluster.client.submit(time.sleep, 120)
        time.sleep(0.5)
        theirs.close()
        started = time.monotonic()
        with pytest.raises(ClusterLostError, match="the connection to its scheduler broke"):
            cluster.gather([slow])
        assert slow.done()  # what Dask says of it
        later = cluster.client.submit(sum, [1])  # waits for ever, but for the monitor
        with pytest.raises(ClusterLostError, match="run again"), cluster:
            later.result()
        assert time.monotonic() - started < 20
        with pytest.raises(ClusterLostError, match="does not answer"):
            _ = cluster.client
        assert cluster.status().state.startswith("lost: its scheduler does not answer")


def test_the_default_is_configured(monkeypatch):
    monkeypatch.delenv("CROPCUBE_CLUSTER", raising=False)
    assert where_of(None) == "local"
    with dask.config.set({"cropcube.cluster": "gateway"}):
        assert where_of(None) == "gateway"
        monkeypatch.setenv("CROPCUBE_CLUSTER", "slurm")
        assert where_of(None) == "slurm"
        assert where_of("local") == "local"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"backend": "nowhere"}, "'nowhere' is no cluster; choose local, gateway"),
        ({"backend": "local", "image": "a:1"}, "'local' cannot set image; what it takes: env"),
        ({"backend": "tcp://127.0.0.1:1", "workers": 2}, "started already"),
        ({"backend": "local", "name": "x"}, "only clusters of a gateway have a name"),
        ({"backend": "local", "worker_memory": "much"}, "'much' is no amount of memory"),
        ({"backend": "local", "start_timeout": "long"}, "'long' is no span of time"),
        ({"backend": "local", "env": {"GDAL_NUM_THREADS": "4"}}, "drop its HTTP retries"),
        ({"backend": "tls://127.0.0.1:1", "start_timeout": 1}, "needs certificates"),
        ({"backend": "tcp://127.0.0.1:1", "start_timeout": 1}, "no Dask scheduler answers at"),
    ],
)
def test_refuses_what_cannot_be_had(arguments, message):
    with pytest.raises(ClusterError, match=message):
        open_cluster(**arguments)


def test_warns_of_an_open_scheduler():
    with (
        pytest.warns(UserWarning, match=r"tcp://192.0.2.1:1 is neither encrypted"),
        pytest.raises(ClusterError, match="no Dask scheduler"),
    ):
        open_cluster("tcp://192.0.2.1:1", start_timeout=0.5)


def test_spans_of_time():
    assert [seconds(span) for span in ("45s", "30min", "2h", 12)] == [45, 1800, 7200, 12]


def test_waiting_tells_and_ends(monkeypatch):
    monkeypatch.setattr("deploy.cluster.waiting.LOOK_EVERY", 0.01)
    monkeypatch.setattr("deploy.cluster.waiting.TELL_EVERY", 0.05)
    told: list[str] = []
    how = {"limit": 0.3, "state": lambda: "PENDING", "tell": told.append, "remedy": "wait longer"}
    with pytest.raises(ClusterError, match=r"waited 0 s for rain in vain \(PENDING\); wait longer"):
        wait_for(lambda: None, "rain", **how)
    assert told[0] == "waiting for rain: PENDING (0 of 0 s)"
    assert wait_for(lambda: 5, "rain", **how) == 5
    with pytest.raises(ClusterError, match="no answer for rain within 0 s"):
        within(0.05, "rain", lambda: time.sleep(5))
    with pytest.raises(ZeroDivisionError):
        within(1, "rain", lambda: 1 / 0)


def versions(client=None, scheduler=None, *workers):
    same = {"python": "3.11.7", "zarr": "3.1.6", "GDAL": "3.10.3"}
    each = {f"tcp://w{n}": same | one for n, one in enumerate(workers or ({},))}
    return Versions(same | (client or {}), same | (scheduler or {}), each)


def test_differences_of_software():
    assert versions().differences == []
    assert versions({}, {}, {}, {"zarr": "3.4"}).differences == ["zarr"]
    assert versions({}, {"python": "3.12"}).differences == ["python"]
    assert versions({}, {}, {"GDAL": "3.12.2"}).differences == ["GDAL"]
    # Unknown is not different; two images are, a notebook's own is not.
    assert versions({"cropcube revision": "abc"}).differences == []
    assert versions({}, {}, {"cropcube revision": "a"}, {"cropcube revision": "b"}).differences == [
        "cropcube revision"
    ]
    assert versions({"image": "notebook:1"}, {}, {"image": "w:1"}).differences == []
    assert versions({}, {"image": "w:2"}, {"image": "w:1"}).differences == ["image"]
    lacking = versions()
    del lacking.workers["tcp://w0"]["zarr"]
    assert lacking.differences == ["zarr"]
    bare = versions()
    del bare.scheduler["zarr"]
    assert bare.differences == []
    table = versions({}, {}, {}, {}, {"zarr": "3.4"}).text(["zarr"])
    assert table.splitlines()[1].split(maxsplit=3)[3] == "3.1.6 (2), 3.4 (1)"


def probe(**changes):
    good = {"kernel": "", "block": "", "memory": 4 * 2**30, "machine_memory": 8 * 2**30}
    good |= {"host": "a", "disk": 50 * 2**30, "folder": "/x"}
    return Probe(**(good | {"unset": (), "threads_set": False} | changes))


@pytest.mark.parametrize(
    ("workers", "what", "found", "remedy"),
    [
        ([probe(kernel="CropcubeError: wrong")], "kernel", "wrong", "constraints.txt"),
        ([probe(memory=2**29)], "memory of a worker", "512.00 MiB", "worker_memory='1.00 GiB'"),
        ([probe()] * 3, "memory of a machine", "12.00 GiB of 8.00 GiB", "fewer workers"),
        ([probe(), probe(disk=2**20)], "temporary disk", "1.00 MiB free in /x on a", "DASK_TEMP"),
        ([probe(unset=("GDAL_SKIP",))], "GDAL settings", "GDAL_SKIP", f"={GDAL['GDAL_SKIP']}"),
        ([probe(threads_set=True)], "GDAL settings", "drops HTTP retries", "no GDAL_NUM_THREADS"),
    ],
)
def test_every_finding_names_the_setting(workers, what, found, remedy):
    findings = _judge({str(n): one for n, one in enumerate(workers)})
    (bad,) = [one for one in findings if not one.ok]
    assert bad.what == what
    assert found in bad.found
    assert remedy in bad.remedy


def test_clocks():
    assert _clock(-59).ok
    assert not _clock(61).ok


def test_secrets_stay_at_home():
    require_no_secrets({"AWS_REQUEST_PAYER": "requester", "GDAL_CACHEMAX": "64"}, "kept")
    for name, value in [
        ("AWS_SECRET_ACCESS_KEY", "x"),
        ("MY_TOKEN", "x"),
        ("CROPCUBE_URL", "https://host/a?sig=abc"),
    ]:
        with pytest.raises(ClusterError, match=f"{name} looks like a secret, and kept") as caught:
            require_no_secrets({name: value}, "kept")
        assert "abc" not in str(caught.value)
    assert worker_environment({"GDAL_SKIP": ""})["GDAL_SKIP"] == ""


def quiet(line: str) -> None:
    raise AssertionError(line)


def test_wishes_in_the_words_of_a_hub():
    wishes = Wishes(worker_memory=8 * 2**30, worker_threads=2, image="a/b:1", idle_timeout=1800.0)
    usual = {"worker_cores": 1, "worker_memory": 2.0, "image": "", "idle_timeout": 600}
    chosen = chosen_options(usual | {"environment": {"A": "1"}}, wishes, quiet)
    assert chosen == {
        **{"worker_cores": 2, "worker_memory": 8.0, "image": "a/b:1", "idle_timeout": 1800},
        "environment": {"A": "1", **GDAL},
    }
    assert isinstance(chosen["idle_timeout"], int)
    text = chosen_options({"memory": "2GiB", "env": {}}, Wishes(worker_memory=2**33), quiet)
    assert text["memory"] == "8.00GiB"


def test_says_what_a_hub_does_not_offer():
    offered = {"profile": "small", "worker_cores": 1}
    with pytest.raises(ClusterError, match=r"not offer 'image'; it offers profile, worker_cores"):
        chosen_options(offered, Wishes(image="a/b:1"), quiet)
    with pytest.raises(ClusterError, match="not offer 'env'"):
        chosen_options(offered, Wishes(env={"GDAL_CACHEMAX": "64"}), quiet)
    with pytest.raises(ClusterError, match="options: this gateway does not offer 'gpu'"):
        chosen_options({**offered, "env": {}}, Wishes(options={"gpu": 1}), quiet)
    with pytest.raises(ClusterError, match="has no tag"):
        chosen_options({"image": "", "env": {}}, Wishes(image="host:5000/a/b"), quiet)
    told: list[str] = []
    chosen = chosen_options(offered, Wishes(options={"profile": "large"}), told.append)
    assert chosen == {"profile": "large"}
    assert "lets nobody set the workers' environment" in told[0]
