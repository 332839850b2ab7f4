"""Jobs that are killed, stopped and starved: the same bytes in the end, and nothing built twice."""

from __future__ import annotations

import json
import os
import shutil
import signal
import time
from collections import Counter
from itertools import count
from pathlib import Path

import numpy as np
import pytest

from cube import read as reading
from cube.objects import at
from deploy.jobs import plan_job, report, run_job, status, verify
from deploy.jobs.report import read_attempts
from tests.archive import write_archive
from tests.cube.test_read import remote
from tests.deploy.jobs_kit import GRID, TILES, code_of, contents, cropcube, write_inputs, written
from tests.range_server import serve
from tests.s3_server import serve_s3


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(
        tmp_path_factory.mktemp("jobs"), ["2023-01-05", "2023-02-03"], ("blue",), grid=GRID
    )


@pytest.fixture(scope="module")
def spec(archive, tmp_path_factory):
    return write_inputs(tmp_path_factory.mktemp("spec"), archive)


@pytest.fixture(scope="module")
def undisturbed(spec, tmp_path_factory):
    """The store that a job writes which nobody disturbs; starts the fork server too."""
    root = tmp_path_factory.mktemp("undisturbed") / "run"
    plan_job(spec, root)
    assert code_of(cropcube("job", "run", root)) == 0
    return contents(root / "data" / "cube.zarr")


class Watched:
    """A run whose markers are looked at after every disturbance: none may be written again."""

    def __init__(self, spec: Path, root: Path | str) -> None:
        self.root = root
        self.job = plan_job(spec, root)
        self.store = at(root) / "data" / "cube.zarr"
        self.marked: dict[str, object] = {}

    def look(self) -> int:
        found = written(self.store)
        assert {name: found.get(name) for name in self.marked} == self.marked
        self.marked = found
        return len(found)

    def finish(self, undisturbed: dict[str, bytes]) -> None:
        assert code_of(cropcube("job", "run", self.root)) == 0
        assert self.look() == len(TILES)
        assert contents(self.store) == undisturbed
        ends = Counter(one.task for one in read_attempts(self.job.folder) if one.outcome == "done")
        assert max(ends.values()) == 1
        assert verify(self.job) == []
        assert status(self.job).counts["done"] == len(TILES)


@pytest.fixture(scope="module")
def bucket():
    """URL of a bucket of a real S3 server; the environment tells where it is."""
    with serve_s3() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment.items():
            patch.setenv(name, value)
        yield server.bucket()


@pytest.fixture
def place(request, where, tmp_path):
    """Give a new place for a run each time it is called."""
    if where == "disk":
        return lambda name: tmp_path / name
    bucket = request.getfixturevalue("bucket")
    return lambda name: f"{bucket}/{tmp_path.name}/{name}"


def kills(many: int, few: int):
    """Run a test with many kills on disk, with a few on the slow S3 server, many in `test-all`."""
    s3, slow = pytest.mark.s3, pytest.mark.slow
    cases = [("disk", many), pytest.param("s3", few, marks=s3)]
    cases.append(pytest.param("s3", many, marks=[s3, slow]))
    return pytest.mark.parametrize(("where", "wanted"), cases)


def life_of(run: Watched, undisturbed: dict[str, bytes]) -> float:
    """Return how long a run takes that nobody kills, in seconds."""
    began = time.monotonic()
    run.finish(undisturbed)
    return time.monotonic() - began


@kills(20, 4)
def test_killed_at_random_points(spec, undisturbed, place, wanted):
    random = np.random.default_rng(20)
    life = life_of(Watched(spec, place("first")), undisturbed)
    done_at_kills: list[int] = []
    for number in count():
        if len(done_at_kills) == wanted:
            break
        run = Watched(spec, place(f"run-{number}"))
        while len(done_at_kills) < wanted and run.look() < len(TILES):
            process = cropcube("job", "run", run.root)
            time.sleep(random.uniform(0.02, life))
            process.kill()
            if code_of(process) == -signal.SIGKILL:
                done_at_kills.append(run.look())
        run.finish(undisturbed)
    assert len(set(done_at_kills)) > 1, "all were killed at the same point"


@kills(8, 2)
def test_three_runners_and_kills(spec, undisturbed, place, wanted):
    random = np.random.default_rng(8)
    life = life_of(Watched(spec, place("first")), undisturbed)
    killed = 0
    for number in count():
        if killed == wanted:
            break
        run = Watched(spec, place(f"run-{number}"))
        runners = [cropcube("job", "run", run.root) for _ in range(3)]
        while killed < wanted and any(runner.is_alive() for runner in runners):
            time.sleep(random.uniform(0.02, life / 2))
            victim = int(random.integers(3))
            runners[victim].kill()
            killed += code_of(runners[victim]) == -signal.SIGKILL
            run.look()
            runners[victim] = cropcube("job", "run", run.root)
        assert [code_of(runner) for runner in runners] == [0, 0, 0]
        run.finish(undisturbed)


def test_three_runners_share_the_work(spec, undisturbed, tmp_path):
    run = Watched(spec, tmp_path / "run")
    runners = [cropcube("job", "run", run.root) for _ in range(3)]
    assert [code_of(runner) for runner in runners] == [0, 0, 0]
    run.finish(undisturbed)
    found = report(run.job)
    assert found.attempts == {"done": len(TILES)}
    assert found.runners >= 2


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_in_good_order(
    spec, undisturbed, archive, tmp_path, signum, monkeypatch
):
    with serve(Path(archive.scenes.source), delay=0.2) as server:
        slow = write_inputs(tmp_path, archive)
        remote(archive, Path(archive.scenes.source), server).save(tmp_path / "scenes.json")
        reading._layout.cache_clear()
        root = tmp_path / "run"
        job = plan_job(slow, root)
        process = cropcube("job", "run", root, out=tmp_path / "events")
        _wait_for(lambda: "task_began" in _text(tmp_path / "events"))
        os.kill(process.pid, signum)
        began = time.monotonic()
        assert code_of(process) == 128 + signum
        assert time.monotonic() - began < 2
        states = status(job).counts
        assert states["running"] == 0
        assert states["done"] == len(written(at(root) / "data" / "cube.zarr")) < len(TILES)
        aborted = [one for one in read_attempts(job.folder) if one.outcome == "aborted"]
        assert len(aborted) == 1
        told = [json.loads(line) for line in _text(tmp_path / "events").splitlines()[:-1]]
        assert told[-1]["event"] == "run_ended"
        assert told[-1]["ended"] == signal.Signals(signum).name
        server.delay = 0
        assert run_job(root).code == 0
    shards = {name: data for name, data in undisturbed.items() if "/c/" in name}
    found = contents(root / "data" / "cube.zarr")
    assert {name: found[name] for name in shards} == shards


def test_a_full_disk_leaves_no_half_marker_and_the_job_resumes(spec, undisturbed, small_disk):
    run = Watched(spec, small_disk / "run")
    assert code_of(cropcube("job", "run", run.root, "--task", TILES[0])) == 0
    run.look()
    filler = small_disk / "filler"
    free = shutil.disk_usage(small_disk).free
    # Room for a claim and its record, but not for another tile.
    filler.write_bytes(bytes(free - 6 * 4096))
    assert code_of(cropcube("job", "run", run.root)) == 73
    done = run.look()
    assert done < len(TILES)
    assert verify(run.job) == [f"{task}: not done" for task in TILES[done:]]
    filler.unlink()
    run.finish(undisturbed)


def _text(file: Path) -> str:
    return file.read_text() if file.exists() else ""


def _wait_for(condition, seconds=30):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
