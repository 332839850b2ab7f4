"""Runs: the bytes of a plain build, failures by class, limits, shards, figures that add up."""

from __future__ import annotations

import itertools
import json
import shutil
import time
from pathlib import Path

import pytest
import yaml

import cube
from cube import ranges
from cube import read as reading
from cube.errors import JobError
from cube.objects import at
from cube.planning import load_plan
from deploy.jobs import cancel, open_job, plan_job, report, run_job, status, verify, watch
from deploy.jobs.events import read_events
from deploy.jobs.report import read_attempts
from deploy.jobs.spec import Running
from deploy.jobs.watch import Stop
from tests.archive import write_archive
from tests.cube.test_read import remote
from tests.deploy.jobs_kit import GRID, SPEC, TILES, contents, write_inputs
from tests.range_server import no_fault, serve

DATES = ["2023-01-05", "2023-02-03"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    return write_archive(tmp_path_factory.mktemp("jobs"), DATES, ("blue",), grid=GRID)


@pytest.fixture
def spec(archive, tmp_path):
    return write_inputs(tmp_path, archive)


@pytest.fixture(scope="module")
def expected(archive, tmp_path_factory):
    """The store that a plain build writes."""
    folder = tmp_path_factory.mktemp("plain")
    job = plan_job(write_inputs(folder, archive), folder / "run")
    return contents(cube.store.write(job.plan, folder / "plain.zarr"))


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(reading, "ATTEMPTS", 2)
    monkeypatch.setattr(reading, "FIRST_PAUSE", 0.01)
    monkeypatch.setattr(ranges, "STALL_TIMEOUT", 10)
    reading._layout.cache_clear()


def changed(spec: Path, **fields):
    """Write the job file with other fields; `run` is merged."""
    content = yaml.safe_load(spec.read_text())
    run = content["run"] | fields.pop("run", {})
    spec.write_text(yaml.safe_dump(content | fields | {"run": run}))
    return spec


def served(spec: Path, archive, server):
    """Let the job read its archive from a server."""
    scenes = remote(archive, Path(archive.scenes.source), server)
    scenes.save(spec.parent / "scenes.json")
    return spec


# --- planning -----------------------------------------------------------------------------------


def test_a_plan_is_frozen_and_planning_again_changes_nothing(spec, tmp_path):
    first = plan_job(spec, tmp_path / "run")
    assert [task.id for task in first.tasks] == TILES
    assert first.plan == load_plan(tmp_path / "run" / "plan.json")
    before = contents(tmp_path / "run")
    (tmp_path / "scenes.json").unlink()
    again = plan_job(changed(spec, run={"lease_s": 7}), tmp_path / "run")
    assert again.plan == first.plan
    assert again.spec.run.lease_s == 7
    after = contents(tmp_path / "run")
    assert {n for n in after if after[n] != before.get(n)} == {"job.yaml", "job.lock.json"}
    tasks = json.loads(after["tasks.geojson"])["features"]
    assert [f["properties"]["task"] for f in tasks] == TILES
    assert {f["properties"]["hash"] for f in tasks} == {task.hash for task in first.tasks}


def test_another_spec_in_the_same_folder_is_refused(spec, tmp_path):
    run = tmp_path / "run"
    plan_job(spec, run)
    run_job(run, tasks=TILES[:2])
    other = {"bands": ["blue"], "start": "2023-01", "end": "2023-02", "fill": "none"}
    changed(spec, recipe=other)
    with pytest.raises(JobError, match="another spec .* choose another folder, or add --new-run"):
        plan_job(spec, run)
    assert status(open_job(run)).counts["done"] == 2
    job = plan_job(spec, run, new_run=True)
    assert status(job).counts == {"done": 0, "running": 0, "failed": 0, "waiting": 9}
    assert run_job(run).code == 0
    assert cube.store.read_recipe(run / "data" / "cube.zarr").fill == "none"


def test_a_folder_without_a_finished_plan_is_refused(spec, tmp_path):
    with pytest.raises(JobError, match="no job is planned there; run `cropcube job plan` first"):
        run_job(tmp_path / "nothing")
    plan_job(spec, tmp_path / "run")
    (tmp_path / "run" / "job.lock.json").unlink()
    with pytest.raises(JobError, match="no job is planned"):
        open_job(tmp_path / "run")


# --- running ------------------------------------------------------------------------------------


def test_a_job_writes_what_a_plain_build_writes(spec, tmp_path, expected):
    job = plan_job(spec, tmp_path / "run")
    events = []
    outcome = run_job(tmp_path / "run", listener=events.append)
    assert (outcome.code, outcome.done, outcome.ended) == (0, 9, "finished")
    assert contents(tmp_path / "run" / "data" / "cube.zarr") == expected
    assert [e["event"] for e in events].count("task_done") == 9
    assert (events[-1]["all"], events[-1]["ok"], events[-1]["failed"]) == (9, 9, 0)
    assert list(read_events(job.folder)) == json.loads(json.dumps(events))
    again = run_job(tmp_path / "run")
    assert (again.code, again.done) == (0, 9)
    assert report(job).attempts == {"done": 9}


def test_output_elsewhere(spec, tmp_path, expected):
    plan_job(changed(spec, output={"uri": str(tmp_path / "there.zarr")}), tmp_path / "run")
    assert run_job(tmp_path / "run").code == 0
    assert contents(tmp_path / "there.zarr") == expected
    assert not (tmp_path / "run" / "data").exists()


def test_shards_share_the_tasks_and_tasks_can_be_named(spec, tmp_path, expected):
    job = plan_job(spec, tmp_path / "run")
    parts = [[task.id for task in job.shard(index, 4)] for index in range(4)]
    assert sorted(itertools.chain(*parts)) == sorted(TILES)
    assert max(map(len, parts)) - min(map(len, parts)) <= 1
    for index in range(4):
        outcome = run_job(tmp_path / "run", shard=(index, 4))
        assert (outcome.total, outcome.done) == (len(parts[index]), len(parts[index]))
    assert contents(tmp_path / "run" / "data" / "cube.zarr") == expected
    with pytest.raises(JobError, match="shard 4/4: shards are counted from 0 to 3"):
        run_job(tmp_path / "run", shard=(4, 4))
    with pytest.raises(JobError, match="has no task 31TEJ-7-7"):
        run_job(tmp_path / "run", tasks=["31TEJ-7-7"])


def test_a_damaged_file_fails_its_tiles_and_no_others(spec, tmp_path, archive):
    broken = tmp_path / "broken"
    shutil.copytree(archive.scenes.source, broken)
    # A file that ends early: its header is whole, blocks of the last rows are not there.
    victim = broken / archive.scenes.scenes[1].id / "blue.tif"
    victim.write_bytes(victim.read_bytes()[: victim.stat().st_size // 2])
    text = (tmp_path / "scenes.json").read_text()
    (tmp_path / "scenes.json").write_text(text.replace(archive.scenes.source, str(broken)))
    plan_job(changed(spec, run={"max_failed_fraction": 1}), tmp_path / "run")
    outcome = run_job(tmp_path / "run")
    assert outcome.code == 65
    assert set(outcome.failed.values()) == {"data"}
    assert outcome.done + len(outcome.failed) == 9
    assert outcome.done >= 3
    attempts = read_attempts(at(tmp_path / "run"))
    assert len(attempts) == 9, "none is tried twice"
    errors = [one.error for one in attempts if one.failure]
    assert all(archive.scenes.scenes[1].id in text and "blue" in text for text in errors)
    found = report(open_job(tmp_path / "run"))
    assert {one.task for one in found.failed} == set(outcome.failed)


def test_too_many_failures_stop_the_run(spec, tmp_path, archive):
    gone = (tmp_path / "scenes.json").read_text().replace("blue.tif", "gone.tif")
    (tmp_path / "scenes.json").write_text(gone)
    plan_job(changed(spec, run={"max_failed_fraction": 0.3}), tmp_path / "run")
    outcome = run_job(tmp_path / "run")
    assert outcome.ended == "more than 30% of the tasks have failed"
    # Three of nine may fail; the fourth is one too many.
    assert (outcome.code, len(outcome.failed), outcome.done) == (65, 4, 0)


def test_transient_failures_are_tried_again_and_the_figures_add_up(
    spec, tmp_path, archive, expected, impatient
):
    def faults(path, nth):
        return "503" if path.endswith("blue.tif") and nth in (2, 3, 6) else ""

    with serve(Path(archive.scenes.source), faults) as server:
        plan_job(served(spec, archive, server), tmp_path / "run")
        asked, sent = server.asked.total(), server.sent
        outcome = run_job(tmp_path / "run")
        asked, sent = server.asked.total() - asked, server.sent - sent
    assert outcome.code == 0
    shards = {name: expected[name] for name in expected if "s/c/0/" in name or "e/c/0/" in name}
    found = contents(tmp_path / "run" / "data" / "cube.zarr")
    assert {name: found[name] for name in shards} == shards
    used = report(open_job(tmp_path / "run")).used
    assert used.retries >= 3
    assert used.requests == asked - server.given["503"]
    assert used.read_mib == pytest.approx(sent / 2**20)
    sizes = sum(map(len, shards.values()))
    assert used.written_mib == pytest.approx(sizes / 2**20)
    assert used.wall_s > 0
    assert used.rss_mib > 50


def test_a_service_that_stays_down_ends_with_75(spec, tmp_path, archive, impatient):
    with serve(Path(archive.scenes.source), no_fault) as server:
        plan_job(served(spec, archive, server), tmp_path / "run")
        server.faults = lambda path, nth: "503"
        reading._layout.cache_clear()
        outcome = run_job(tmp_path / "run", tasks=TILES[:1])
        assert (outcome.code, outcome.failed) == (75, {TILES[0]: "transient"})
        attempts = read_attempts(at(tmp_path / "run"))
        assert [one.attempt for one in attempts] == [1, 2, 3], "two more tries, as the spec says"
        server.faults = no_fault
        assert run_job(tmp_path / "run").code == 0


def test_refused_access_ends_with_77_and_nothing_else_is_begun(spec, tmp_path, archive, impatient):
    with serve(Path(archive.scenes.source), no_fault) as server:
        plan_job(served(spec, archive, server), tmp_path / "run")
        server.faults = lambda path, nth: "403"
        reading._layout.cache_clear()
        outcome = run_job(tmp_path / "run")
    assert (outcome.code, len(outcome.failed)) == (77, 1)
    told = report(open_job(tmp_path / "run")).failed[0].error
    assert "127.0.0.1" in told
    assert "check the provider's signing and credentials" in told


# --- limits and requests ------------------------------------------------------------------------


def test_a_task_that_hangs_ends_the_runner_within_its_limit(spec, tmp_path, archive, impatient):
    with serve(Path(archive.scenes.source), no_fault) as server:
        changed(spec, run={"task_timeout_s": 0.4})
        plan_job(served(spec, archive, server), tmp_path / "run")
        server.faults = lambda path, nth: "hang" if path.endswith("blue.tif") else ""
        reading._layout.cache_clear()
        began = time.monotonic()
        outcome = run_job(tmp_path / "run")
        took = time.monotonic() - began
    assert (outcome.code, outcome.failed) == (124, {TILES[0]: "timeout"})
    assert outcome.busy
    assert took < 3
    assert "not done after 0.4 s" in report(open_job(tmp_path / "run")).failed[0].error


def test_a_run_in_which_nothing_ends_stops(spec, tmp_path, archive, impatient):
    with serve(Path(archive.scenes.source), no_fault) as server:
        changed(spec, run={"stall_timeout_s": 0.4})
        plan_job(served(spec, archive, server), tmp_path / "run")
        server.faults = lambda path, nth: "hang" if path.endswith("blue.tif") else ""
        reading._layout.cache_clear()
        outcome = run_job(tmp_path / "run")
    assert (outcome.code, outcome.busy) == (75, True)
    assert "no task ended for 0.4 s; look at the workers" in outcome.ended
    (attempt,) = read_attempts(at(tmp_path / "run"))
    assert attempt.outcome == "aborted"


def test_a_cancelled_job_finishes_what_it_began_and_nothing_else(spec, tmp_path, monkeypatch):
    monkeypatch.setattr(watch, "_ASK_S", 0)
    job = plan_job(spec, tmp_path / "run")

    def listen(event):
        if event["event"] == "task_done" and event["ok"] == 3:
            cancel(job)

    outcome = run_job(tmp_path / "run", listener=listen)
    assert outcome.ended.startswith("cancelled at 20")
    assert (outcome.code, outcome.done) == (2, 3)
    assert status(job).cancelled
    with pytest.raises(JobError, match=r"was cancelled at .*cancel .* --undo"):
        run_job(tmp_path / "run")
    cancel(job, undo=True)
    assert run_job(tmp_path / "run").done == 9


def test_a_budget_that_is_spent_stops_the_run(spec, tmp_path):
    prices = {"currency": "EUR", "thousand_requests": 1000}
    changed(spec, run={"budget": {"limit": 10, "prices": prices}})
    plan_job(spec, tmp_path / "run")
    outcome = run_job(tmp_path / "run")
    # Each tile takes at least four requests: two headers or bands of two scenes.
    assert outcome.code == 78
    assert 0 < outcome.done <= 3
    assert "EUR are spent, the budget is 10.00 EUR" in outcome.ended
    assert run_job(tmp_path / "run").done == outcome.done, "what was spent before counts"
    plan_job(changed(spec, run={"budget": {"limit": 1000, "prices": prices}}), tmp_path / "run")
    assert run_job(tmp_path / "run").done == 9


def test_a_stopped_run_gives_its_task_up(spec, tmp_path, archive, impatient):
    stop = Stop()
    with serve(Path(archive.scenes.source), no_fault) as server:
        plan_job(served(spec, archive, server), tmp_path / "run")
        server.delay = 0.3
        outcome = run_job(
            tmp_path / "run",
            stop=stop,
            listener=lambda e: stop.set() if e["event"] == "task_began" else None,
        )
    assert (outcome.code, outcome.ended, outcome.busy) == (130, "SIGINT", True)
    (attempt,) = read_attempts(at(tmp_path / "run"))
    assert attempt.outcome == "aborted"
    assert status(open_job(tmp_path / "run")).counts["done"] == 0


def test_a_task_that_another_runner_just_failed_is_not_tried_again(spec, tmp_path):
    """Two runners would otherwise double every hopeless attempt."""
    gone = (tmp_path / "scenes.json").read_text().replace("blue.tif", "gone.tif")
    (tmp_path / "scenes.json").write_text(gone)
    plan_job(changed(spec, run={"max_failed_fraction": 1}), tmp_path / "run")
    inner = []

    def listen(event):
        if event["event"] == "run_began":
            inner.append(run_job(tmp_path / "run"))

    outer = run_job(tmp_path / "run", listener=listen)
    assert len(inner[0].failed) == len(outer.failed) == 9
    assert len(read_attempts(at(tmp_path / "run"))) == 9
    # Who starts a run afterwards wants them tried again.
    assert len(run_job(tmp_path / "run").failed) == 9
    assert len(read_attempts(at(tmp_path / "run"))) == 18


def test_tasks_at_which_runners_died_come_last(spec, tmp_path):
    job = plan_job(spec, tmp_path / "run")
    job.folder.put(f"claims/{TILES[0]}/1.json", b'{"runner": "dead", "at": ""}')
    order = []
    run_job(
        tmp_path / "run",
        listener=lambda e: order.append(e["task"]) if e["event"] == "task_began" else None,
    )
    assert order == [*TILES[1:], TILES[0]]
    assert report(job).again == 1


# --- afterwards ---------------------------------------------------------------------------------


def test_verify_finds_a_deleted_chunk_and_a_flipped_byte(spec, tmp_path, expected):
    job = plan_job(spec, tmp_path / "run")
    run_job(tmp_path / "run")
    assert verify(job) == []
    store = tmp_path / "run" / "data" / "cube.zarr"
    (store / "31TEJ/reflectance/c/0/0/1/2").unlink()
    flipped = store / "31TEJ/observations/c/0/2/0"
    content = bytearray(flipped.read_bytes())
    content[len(content) // 2] ^= 1
    flipped.write_bytes(bytes(content))
    assert sorted(verify(job)) == [
        "31TEJ-1-2: the shard of reflectance is missing",
        "31TEJ-2-0: the shard of observations was changed",
    ]
    with pytest.raises(cube.StoreError):
        cube.store.open(store)
    assert status(job).counts["done"] == 8
    assert run_job(tmp_path / "run").done == 9
    assert verify(job) == ["31TEJ-2-0: the shard of observations was changed"]


def test_the_defaults_are_those_of_the_spec(spec, tmp_path):
    assert yaml.safe_load(SPEC)["run"].keys() <= Running.model_fields.keys()
