"""Live samples: the same as those of a store, in a fixed order, from clusters that may die."""

from __future__ import annotations

import functools
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import dask
import numpy as np
import pytest
import torch
import xarray as xr
from distributed import Client, LocalCluster
from torch.utils.data import DataLoader

from cube.build import build_tile
from cube.errors import ClusterLostError, ReadError, RecipeError
from cube.planning import GridPlan, Tile
from model.samples import Normalisation
from model.splits import Split, split_zones
from model.stream import LiveTiles
from model.tiles import TileData

FIXED = Normalisation((3000.0, 3000.0), (1500.0, 1500.0))


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(
            n_workers=2,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
        Client(cluster) as client,
    ):
        yield client


def noted_build(plan: GridPlan, tile: Tile, folder: Path) -> xr.Dataset:
    """Build, and leave a note of having begun."""
    (folder / f"{tile.row}-{tile.col}-{time.time_ns()}").touch()
    return build_tile(plan, tile)


def uneven_build(plan: GridPlan, tile: Tile, first: tuple[int, int]) -> xr.Dataset:
    """Build; the tile that is due first ends last."""
    if (tile.row, tile.col) == first:
        time.sleep(1.5)
    return build_tile(plan, tile)


def broken_build(plan: GridPlan, tile: Tile) -> xr.Dataset:
    raise ReadError("B04 is corrupt", item="S2A", asset="B04", tile="x", attempt=1, kind="corrupt")


def slow_build(plan: GridPlan, tile: Tile) -> xr.Dataset:
    time.sleep(600)
    raise AssertionError


def once_dying_build(plan: GridPlan, tile: Tile, folder: Path) -> xr.Dataset:
    try:
        (folder / "killed").touch(exist_ok=False)
    except FileExistsError:
        return build_tile(plan, tile)
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def dying_build(plan: GridPlan, tile: Tile) -> xr.Dataset:
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError


def keys(batches) -> list[bytes]:
    """Every sample as the bytes of all its tensors."""
    return [
        b"".join(batch[name][n].numpy().tobytes() for name in sorted(batch))
        for batch in batches
        for n in range(len(batch["x"]))
    ]


@pytest.mark.parametrize("augment", [False, True])
def test_samples_are_those_of_the_store(farm, client, augment):
    split = split_zones(farm.labels)
    data = TileData(farm.store, farm.labels, farm.legend, split, augment=augment, seed=4)
    live = LiveTiles(farm.plan, farm.labels, client, split, augment=augment, seed=4)
    assert live.normalisation == data.normalisation
    batches = list(live)
    assert len(batches) == len(live) == len(data.train_dataloader())
    assert sorted(keys(batches)) == sorted(keys(data.train_dataloader()))


def test_validation_batches_are_those_of_the_store_in_order(farm, client):
    split = split_zones(farm.labels)
    data = TileData(farm.store, farm.labels, None, split, normalisation=FIXED)
    live = LiveTiles(farm.plan, farm.labels, client, split, "val", normalisation=FIXED)
    loader = DataLoader(live, batch_size=None)
    for one, other in zip(loader, data.val_dataloader(), strict=True):
        assert one.keys() == other.keys()
        assert all(torch.equal(one[name], other[name]) for name in one)


def test_order_is_the_seeds_whatever_ends_first(farm, client):
    split = split_zones(farm.labels)

    def run(seed, **options):
        live = LiveTiles(
            farm.plan, farm.labels, client, split, normalisation=FIXED, seed=seed, **options
        )
        return keys(live), keys(live)

    plain = run(1)
    first = farm.plan.grids[0].tiles[int(np.random.default_rng([1, 0]).permutation(4)[0])]
    slow = functools.partial(uneven_build, first=(first.row, first.col))
    assert run(1, build=slow) == plain
    assert plain[0] != plain[1]
    assert sorted(plain[0]) == sorted(plain[1])
    assert run(2)[0] != plain[0]


def test_tiles_in_flight_are_bounded(farm, client, tmp_path):
    split = Split("zone", frozenset({1, 2, 3}), frozenset(), frozenset({4}))
    build = functools.partial(noted_build, folder=tmp_path)
    live = LiveTiles(
        farm.plan, farm.labels, client, split, normalisation=FIXED, prefetch=1, build=build,
        batch_size=4,
    )  # fmt: skip
    tiles = len(live.entries)
    assert tiles == 3
    order = np.random.default_rng([0, 0]).permutation(tiles)
    found = np.cumsum([len(live.entries[sorted(live.entries)[i]]) for i in order])
    needed = int(np.searchsorted(found, live.batch_size)) + 1
    assert needed < tiles
    batches = iter(live)
    next(batches)
    time.sleep(1)
    assert len(list(tmp_path.iterdir())) == needed
    rest = list(batches)
    assert len(rest) == len(live) - 1
    assert len(list(tmp_path.iterdir())) == tiles  # each tile is built once


def test_a_lost_worker_is_not_a_lost_cluster(farm, client, tmp_path):
    """The first build kills its worker, and with it the plan that worker held."""
    split = split_zones(farm.labels)
    calm = LiveTiles(farm.plan, farm.labels, client, split, normalisation=FIXED)
    build = functools.partial(once_dying_build, folder=tmp_path)
    live = LiveTiles(farm.plan, farm.labels, client, split, normalisation=FIXED, build=build)
    assert keys(live) == keys(calm)
    assert (tmp_path / "killed").exists()


def test_a_tile_that_cannot_be_built_says_so(farm, client):
    live = LiveTiles(
        farm.plan, farm.labels, client, split_zones(farm.labels), normalisation=FIXED,
        build=broken_build,
    )  # fmt: skip
    with pytest.raises(ReadError, match="B04 is corrupt") as caught:
        list(live)
    assert (caught.value.asset, caught.value.kind) == ("B04", "corrupt")


def test_loader_processes_are_refused(farm, client):
    live = LiveTiles(farm.plan, farm.labels, client, split_zones(farm.labels), normalisation=FIXED)
    with pytest.raises(ValueError, match="at least one tile"):
        LiveTiles(farm.plan, farm.labels, client, split_zones(farm.labels), prefetch=0)
    recipe = farm.plan.recipe.model_copy(update={"composite": "series", "fill": "none"})
    series = farm.plan.model_copy(update={"recipe": recipe})
    with pytest.raises(RecipeError, match="another composite than 'series'"):
        LiveTiles(series, farm.labels, client, split_zones(farm.labels))
    assert len(live) > 0


def lose(farm, client, build, kill, **options) -> str:
    """Start streaming, kill something, return what the error says and after how long."""
    live = LiveTiles(
        farm.plan, farm.labels, client, split_zones(farm.labels), normalisation=FIXED,
        patience=2, build=build, **options,
    )  # fmt: skip
    batches = iter(live)
    kill()
    with pytest.raises(ClusterLostError) as caught:
        next(batches)
    return str(caught.value)


def test_a_killed_scheduler_is_a_clear_error(farm):
    scheduler = subprocess.Popen(
        [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0",
         "--no-dashboard", "--scheduler-file", str(farm.store.parent / "scheduler.json")],
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        with Client(scheduler_file=str(farm.store.parent / "scheduler.json"), timeout=60) as client:
            message = lose(farm, client, slow_build, scheduler.kill)
    finally:
        scheduler.kill()
        scheduler.wait()
    assert "the Dask cluster was lost while waiting for tile 31TEJ-" in message
    assert "Start a cluster and iterate again with epoch=0" in message


def test_dead_tasks_no_workers_and_a_closed_cluster_are_clear_errors(farm):
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        LocalCluster(
            n_workers=0,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
        ) as cluster,
    ):
        client = Client(cluster)
        assert "no worker is left" in lose(farm, client, slow_build, lambda: None)
        cluster.scale(1)
        client.wait_for_workers(1)
        assert "KilledWorker" in lose(farm, client, dying_build, lambda: None)
        cluster.close()
        assert "the Dask cluster was lost" in lose(farm, client, slow_build, lambda: None)
        client.close()


@pytest.mark.real
def test_beziers_live_is_beziers_from_the_store(real_data, client, tmp_path):
    import cube
    from model.labels import read_parcels, write_labels
    from model.legend import load_legend
    from model.splits import split_parcels

    recipe = cube.Recipe(bands=["blue", "green", "red", "nir"], start="2018-01", end="2018-12")
    archive = real_data / "archive" / "beziers-2018"
    area = (3.292, 43.617, 3.312, 43.640)
    plan = cube.plan(area, cube.search(area, recipe, provider=str(archive / "items.json")), recipe)
    parcels = read_parcels(archive / "parcels.gpkg", area)
    legend = load_legend(level="hcat3_name", year=2018).compact(parcels)
    labels = tmp_path / "labels.zarr"
    write_labels(parcels, plan, legend, None, labels, erosion=10)
    split = split_parcels(labels)
    live = LiveTiles(plan, labels, client, split, sample=32)
    store = cube.store.write(plan, tmp_path / "cube.zarr")
    data = TileData(store, labels, legend, split, sample=32)
    assert live.normalisation == data.normalisation
    found = keys(live)
    assert len(found) > 20
    assert sorted(found) == sorted(keys(data.train_dataloader()))
