"""Damage: found, given back, made again, and nothing else; on disk and in a bucket."""

from __future__ import annotations

import json

import pytest

from cube.objects import at
from deploy.jobs import open_job, plan_job, repair, report, run_job, status, verify
from tests.archive import write_archive
from tests.deploy.jobs_kit import GRID, TILES, contents, write_inputs, written
from tests.deploy.test_cli import cropcube as cropcube

CHANGED, LOST = "31TEJ/observations/c/0/2/0", "31TEJ/reflectance/c/0/0/1/2"


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("repair")
    dates = ["2023-01-05", "2023-02-03"]
    return write_inputs(folder, write_archive(folder / "archive", dates, ("blue",), grid=GRID))


@pytest.fixture(params=["disk", pytest.param("s3", marks=pytest.mark.s3)])
def root(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "run"
    return f"{request.getfixturevalue('s3').bucket()}/run"


def flip(folder, name):
    content = bytearray(folder.get(name))
    content[len(content) // 2] ^= 1
    folder.put(name, bytes(content))


def test_damaged_tiles_are_made_again_and_no_others(spec, root):
    job = plan_job(spec, root)
    assert run_job(root).code == 0
    store = at(root) / "data" / "cube.zarr"
    before, marked = contents(store), written(store)
    assert repair(job) == []
    flip(store, CHANGED)
    store.delete(LOST)
    store.put(".cropcube/31TEJ-0-1.json", b'{"properties": {}}')
    damage = [
        "31TEJ-0-1: the marker is damaged",
        "31TEJ-1-2: the shard of reflectance is missing",
        "31TEJ-2-0: the shard of observations was changed",
    ]
    assert sorted(verify(job)) == damage
    assert sorted(repair(job)) == damage
    assert status(open_job(root)).counts["done"] == len(TILES) - 3
    events = []
    assert run_job(root, listener=events.append).code == 0
    made = [event["task"] for event in events if event["event"] == "task_done"]
    assert sorted(made) == ["31TEJ-0-1", "31TEJ-1-2", "31TEJ-2-0"]
    assert contents(store) == before
    again = {name for name, when in written(store).items() if when != marked[name]}
    assert again == {f".cropcube/{task}.json" for task in made}
    assert verify(job) == []
    assert report(job).attempts == {"done": len(TILES) + 3}


def test_the_command_names_the_tile_and_the_way_back(cropcube, spec, tmp_path):
    root = tmp_path / "run"
    plan_job(spec, root)
    run_job(root)
    before = contents(root / "data")
    flip(at(root / "data" / "cube.zarr"), CHANGED)
    found = cropcube("job", "verify", root)
    assert (found.code, found.stdout) == (65, "31TEJ-2-0: the shard of observations was changed\n")
    assert f"cropcube job verify {root} --repair; cropcube job run {root}" in found.stderr
    mended = cropcube("job", "verify", root, "--repair", "--json")
    assert mended.code == 75
    assert json.loads(mended.stdout) == {"problems": found.stdout.splitlines()}
    run = cropcube("job", "run", root)
    assert run.code == 0
    assert run.stdout.count('"task_done"') == 1
    assert cropcube("job", "verify", root, "--repair").code == 0
    assert contents(root / "data") == before
