"""Stores: whole, resumable, same bytes, and loud about what is missing."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import distributed
import numpy as np
import pystac
import pytest
import xarray as xr

import cube
from cube import store
from cube.errors import ReadError
from cube.grid import NativeGrid, Window
from cube.objects import Place, at
from cube.planning import plan
from cube.tally import Tally
from tests.archive import GRID, write_archive
from tests.cube.test_build import DATES, YEAR, neighbours, whole

WIDE = NativeGrid(
    granule="31TEJ", epsg=32631, left=523_560.0, top=4_832_780.0, height=1301, width=1100
)
RECIPE = cube.Recipe(bands=("blue", "nir"), **YEAR)


def bytes_of(place: Place) -> dict[str, bytes]:
    folder = at(place)
    return {name: folder.get(name) for name in sorted(folder.listing())}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    archive = write_archive(tmp_path_factory.mktemp("wide"), DATES, grid=WIDE)
    return plan(whole(WIDE), archive.scenes, RECIPE)


@pytest.fixture(scope="module")
def written(made, tmp_path_factory):
    return store.write(made, tmp_path_factory.mktemp("store") / "zones.zarr")


def test_what_is_opened_is_what_is_built(made, written):
    opened, built = store.open(written), cube.build(made)
    xr.testing.assert_identical(opened.compute(), built.compute(scheduler="threads"))
    assert store.read_recipe(written) == RECIPE


def test_plain_xarray_reads_the_store_too(made, written):
    plain = xr.open_zarr(written / "31TEJ", consolidated=False)
    rows, cols = made.grids[0].window.yx
    ours = store.open(written).compute()
    assert np.array_equal(plain.reflectance[..., rows, cols], ours.reflectance)
    assert np.array_equal(plain.time, ours.time)
    assert np.array_equal(plain.x[cols], ours.x)


def test_one_shard_per_tile_and_a_stac_item_for_each(written):
    shards = [p for p in (written / "31TEJ" / "reflectance" / "c").rglob("*") if p.is_file()]
    markers = sorted((written / ".cropcube").glob("31TEJ-*.json"))
    assert len(shards) == len(markers) == 4
    item = pystac.Item.from_file(str(markers[0]))
    assert item.properties["cropcube:recipe"] == RECIPE.hash
    assert len(item.properties["cropcube:scenes"]) == len(DATES)


def test_windows_reach_over_tiles_and_beyond_the_grid(written):
    ours = store.open(written).compute()
    reflectance, observations = store.read_window(
        written, "31TEJ", Window(row=1000, col=1010, height=60, width=120)
    )
    assert np.array_equal(reflectance[..., :90], ours.reflectance[..., 1000:1060, 1010:1100])
    assert np.array_equal(observations[..., :90], ours.observations[..., 1000:1060, 1010:1100])
    assert not reflectance[..., 90:].any()
    with pytest.raises(cube.StoreError, match="no granule 31TEK; it has 31TEJ"):
        store.read_window(written, "31TEK", Window(row=0, col=0, height=1, width=1))


def test_a_second_write_builds_nothing(made, written):
    before = {p: p.stat().st_mtime_ns for p in written.rglob("*")}
    told = []
    store.write(made, written, progress=lambda *step: told.append(step))
    assert {p: p.stat().st_mtime_ns for p in written.rglob("*")} == before
    assert told == [(4, 4, "resumed")]


def test_a_missing_shard_raises_and_is_built_again(made, tmp_path):
    path = store.write(made, tmp_path / "a.zarr")
    before = bytes_of(path)
    (path / "31TEJ/reflectance/c/0/0/1/0").unlink()
    assert store.verify(path) == ["31TEJ-1-0: the shard of reflectance is missing"]
    assert len(store.tiles(path)) == 3
    with pytest.raises(cube.StoreError, match="1 of 4 tiles of 31TEJ are not done"):
        store.open(path)
    with pytest.raises(cube.StoreError, match="31TEJ-1-0 is not done; run the build again"):
        store.read_window(path, "31TEJ", Window(row=1100, col=5, height=3, width=3))
    store.write(made, path)
    assert bytes_of(path) == before


def test_a_flipped_byte_is_found(made, tmp_path):
    path = store.write(made, tmp_path / "a.zarr")
    assert store.verify(path) == []
    shard = path / "31TEJ/observations/c/0/0/1"
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(bytes(content))
    assert store.verify(path) == ["31TEJ-0-1: the shard of observations was changed"]
    with pytest.raises(cube.StoreError, match=f"31TEJ-0-1: observations is damaged.*{shard}"):
        store.read_window(path, "31TEJ", Window(row=0, col=1024, height=1024, width=76))
    shard.unlink()
    store.write(made, path)
    assert store.verify(path) == []


def test_a_full_disk_leaves_no_marker_and_the_next_run_completes(made, written, tmp_path):
    path = tmp_path / "full.zarr"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    # The system refuses to let any file grow beyond this, as a full disk would.
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, before[1]))
    try:
        with pytest.raises(
            cube.StoreError, match=r"tile 31TEJ-\d-\d: cannot be written \(File too"
        ):
            store.write(made, path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert not store.tiles(path)
    assert not list(path.rglob("*#*"))
    assert bytes_of(store.write(made, path)) == bytes_of(written)


def test_a_granule_whose_name_is_a_path_is_refused(made, tmp_path):
    grid = made.grids[0]
    outside = grid.grid.model_copy(update={"granule": "../31TEJ"})
    odd = made.model_copy(update={"grids": (grid.model_copy(update={"grid": outside}),)})
    with pytest.raises(cube.StoreError, match=r"granule '../31TEJ' cannot name a folder"):
        store.write(odd, tmp_path / "a" / "b.zarr")
    assert not list(tmp_path.iterdir())


def test_what_the_build_counted_is_kept_with_each_tile(made, written):
    found = store.tallies(written)
    assert [one.tile for one in found] == ["31TEJ-0-0", "31TEJ-0-1", "31TEJ-1-0", "31TEJ-1-1"]
    assert {one.period for one in found} == {"2023-01_2023-05"}
    grid = made.grids[0]
    built = [cube.build_tile(grid, tile).attrs["tally"] for tile in grid.tiles]
    assert [one.counts for one in found] == [Tally.model_validate_json(text) for text in built]


def test_a_tile_that_lacks_scenes_is_built_again_when_none_may_be_missing(tmp_path):
    archive = write_archive(tmp_path / "archive", DATES)
    planned = plan(whole(GRID), archive.scenes, RECIPE)
    whole_file = Path(archive.scenes.scenes[1].hrefs["blue"])
    content = whole_file.read_bytes()
    whole_file.write_bytes(content[:3000])
    store.write(planned, tmp_path / "a.zarr", max_missing=0.2)
    assert sum(one.counts.failed for one in store.tallies(tmp_path / "a.zarr")) == 1
    kept = bytes_of(tmp_path / "a.zarr")
    store.write(planned, tmp_path / "a.zarr", max_missing=0.2)
    assert bytes_of(tmp_path / "a.zarr") == kept
    with pytest.raises(ReadError):
        store.write(planned, tmp_path / "a.zarr")
    assert bytes_of(tmp_path / "a.zarr") == kept
    whole_file.write_bytes(content)
    store.write(planned, tmp_path / "a.zarr")
    store.write(planned, tmp_path / "b.zarr")
    assert bytes_of(tmp_path / "a.zarr") == bytes_of(tmp_path / "b.zarr")


def test_a_dated_series_keeps_its_instants(tmp_path):
    archive = write_archive(tmp_path / "archive", DATES)
    recipe = cube.Recipe(bands=("blue", "nir"), composite="series", fill="none", **YEAR)
    made = plan(whole(GRID), archive.scenes, recipe)
    path = store.write(made, tmp_path / "series.zarr")
    plain = xr.open_zarr(path / "31TEJ", consolidated=False)
    assert list(plain.time.values) == [np.datetime64(f"{date}T10:43:29", "ns") for date in DATES]
    xr.testing.assert_identical(
        store.open(path).compute(), cube.build(made).compute(scheduler="threads")
    )


def test_another_plan_or_another_folder_is_refused(made, written, tmp_path):
    other = plan(
        whole(WIDE),
        cube.Scenes(source="x", scenes=made.grids[0].scenes),
        RECIPE.model_copy(update={"fill": "none"}),
    )
    with pytest.raises(
        cube.StoreError, match=r"another recipe \(fill neighbour-mean instead of none\)"
    ):
        store.write(other, written)
    (tmp_path / "holiday.jpg").write_bytes(b"x")
    with pytest.raises(cube.StoreError, match="not a cropcube store"):
        store.write(made, tmp_path)
    with pytest.raises(cube.StoreError, match="not a cropcube store"):
        store.open(tmp_path)


def test_several_grids_come_back_as_a_tree(tmp_path):
    west, east, scenes = neighbours(tmp_path)
    area = (*whole(west)[:2], *whole(east)[2:])
    made = plan(area, scenes, RECIPE)
    tree = store.open(store.write(made, tmp_path / "two.zarr"))
    assert sorted(tree.children) == ["31TDJ", "31TEJ"]
    xr.testing.assert_identical(tree.compute(), cube.build(made).compute(scheduler="threads"))


def test_a_cluster_writes_the_same_bytes(made, written, tmp_path):
    with (
        distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, dashboard_address=None, host="127.0.0.1"
        ) as cluster,
        distributed.Client(cluster) as client,
    ):
        path = store.write(made, tmp_path / "cluster.zarr", client=client)
    assert bytes_of(path) == bytes_of(written)


def test_killed_and_started_again_gives_the_same_bytes(made, written, tmp_path):
    plan_file, path = made.save(tmp_path / "plan.json"), tmp_path / "killed.zarr"
    script = (
        "import sys; from cube import store; from cube.planning import load_plan; "
        "store.write(load_plan(sys.argv[1]), sys.argv[2], "
        "progress=lambda *s: print(*s, flush=True))"
    )
    command = [sys.executable, "-c", script, str(plan_file), str(path)]
    # Killed once before, and once after, the first tile is done.
    for wait_for in ("0 4 started", "1 4"):
        job = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for line in job.stdout:
            if line.startswith(wait_for):
                break
        time.sleep(0.05)
        os.kill(job.pid, signal.SIGKILL)
        job.wait()
        job.stdout.close()
    finished = {p: p.stat().st_mtime_ns for p in (path / ".cropcube").glob("31TEJ-*.json")}
    assert finished
    subprocess.run(command, check=True, capture_output=True)
    assert bytes_of(path) == bytes_of(written)
    assert all(p.stat().st_mtime_ns == then for p, then in finished.items())


def test_an_unfinished_creation_is_finished(made, written, tmp_path):
    path = store.create(made, tmp_path / "half.zarr")
    (path / "31TEJ" / "spatial_ref" / "zarr.json").unlink()
    (path / "31TEJ" / "x" / "zarr.json").unlink()
    assert bytes_of(store.write(made, path)) == bytes_of(written)


def test_tiles_are_listed_with_their_windows(made, written):
    listed = store.tiles(written)
    assert [tile.window for tile in listed] == [tile.window for tile in made.grids[0].tiles]
    assert {tile.granule for tile in listed} == {GRID.granule}
