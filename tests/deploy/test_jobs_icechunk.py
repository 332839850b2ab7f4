"""Icechunk: one commit per run, a tag for the whole, the values and bytes of the plain store."""

from __future__ import annotations

import sys

import pytest
import xarray as xr
from zarr.core.buffer import default_buffer_prototype
from zarr.core.sync import sync

import cube
from cube.errors import JobError
from cube.objects import at
from deploy.jobs import plan_job, run_job
from deploy.jobs.icechunk import open_repository, publish
from tests.archive import write_archive
from tests.deploy.jobs_kit import GRID, SPEC, TILES, contents, write_inputs

icechunk = pytest.importorskip("icechunk")


@pytest.fixture(scope="module")
def spec(tmp_path_factory):
    folder = tmp_path_factory.mktemp("icechunk")
    dates = ["2023-01-05", "2023-02-03"]
    archive = write_archive(folder / "archive", dates, ("blue",), grid=GRID)
    return write_inputs(folder, archive, f"{SPEC}store: {{kind: icechunk}}\n")


@pytest.fixture(params=["disk", pytest.param("s3", marks=[pytest.mark.s3, pytest.mark.slow])])
def root(request, tmp_path):
    if request.param == "disk":
        return tmp_path / "run"
    return f"{request.getfixturevalue('s3').bucket()}/run"


def repository(root):
    return open_repository(at(root) / "data" / "cube.icechunk")


def get(session, name):
    found = sync(session.store.get(name, default_buffer_prototype()))
    return None if found is None else found.to_bytes()


def messages(found):
    return [snapshot.message for snapshot in found.ancestry(branch="main")]


def test_each_run_is_a_commit_and_the_whole_has_a_tag(spec, root):
    job = plan_job(spec, root)
    run_job(root, tasks=TILES[:4])
    found = repository(root)
    assert messages(found)[0] == "tiles: 4"
    assert found.list_tags() == set()
    assert run_job(root).code == 0
    assert messages(found)[:2] == ["tiles: 5", "tiles: 4"]
    tag = f"tiny-{job.lock.spec_hash}"
    assert found.list_tags() == {tag}
    assert publish(job, job.tasks) == 0
    assert len(messages(found)) == 3, "the first one is Icechunk's own"

    session, store = found.readonly_session(tag=tag), at(root) / "data" / "cube.zarr"
    plain = {n: c for n, c in contents(store).items() if not n.startswith(".cropcube/")}
    for name, content in plain.items():
        if not name.endswith("zarr.json"):
            assert get(session, name) == content, name
    ours = xr.open_zarr(session.store, group="31TEJ", consolidated=False)
    theirs = cube.store.open(store.place)
    assert (ours.observations == theirs.observations).all()
    assert (ours.reflectance == theirs.reflectance).all()
    assert (ours.time.values == theirs.time.values).all()


def test_a_tile_that_two_runners_commit_is_committed_once(spec, tmp_path, monkeypatch):
    root = tmp_path / "run"
    job = plan_job(spec, root)
    run_job(root, tasks=TILES[:1])
    plain = spec.with_name("plain.yaml")
    plain.write_text(SPEC)
    # `store` may change between two runs of a job: this one commits nothing.
    plan_job(plain, root)
    run_job(root, tasks=TILES[:3])
    commit, others = icechunk.Session.commit, []

    def late(session, *words, **options):
        if not others:
            others.append(None)
            others.append(publish(job, job.tasks[:2]))
        return commit(session, *words, **options)

    monkeypatch.setattr(icechunk.Session, "commit", late)
    # Both saw that two tiles were missing; the other was faster with one of them.
    assert publish(job, job.tasks[:3]) == 1
    assert others == [None, 1]
    assert messages(repository(root))[:3] == ["tiles: 1"] * 3


def test_the_package_is_asked_for_before_anything_is_done(spec, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "icechunk", None)
    with pytest.raises(JobError, match=r"pip install 'cropcube\[icechunk\]'"):
        plan_job(spec, tmp_path / "run")
    assert not (tmp_path / "run").exists()
