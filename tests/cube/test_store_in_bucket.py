"""Stores in a bucket: the bytes of a store on disk, and as loud about what is missing."""

from __future__ import annotations

import shutil
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import xarray as xr
from obstore.store import S3Store
from zarr.storage import ObjectStore

import cube
from cube import store
from cube.grid import Window
from cube.objects import at
from tests.archive import write_archive
from tests.cube.test_build import DATES
from tests.cube.test_segments import LATER, SPRING, SUMMER, TALL, InterruptedBuildError, plan_of
from tests.cube.test_store import bytes_of

pytestmark = pytest.mark.s3

LOWER = Window(row=1030, col=5, height=3, width=3)
SHARD = "31TEJ/reflectance/c/0/0/1/0"


@pytest.fixture(scope="module")
def plans(tmp_path_factory):
    archive = write_archive(tmp_path_factory.mktemp("tall"), [*DATES, *LATER], grid=TALL)
    return {period: plan_of(archive.scenes, period) for period in (SPRING, SUMMER)}


@pytest.fixture(scope="module")
def on_disk(plans, tmp_path_factory) -> Path:
    return store.write(plans[SPRING], tmp_path_factory.mktemp("disk") / "a.zarr")


@pytest.fixture
def url(s3, on_disk) -> str:
    """A store in a bucket of its own, copied there from disk."""
    url = f"{s3.bucket()}/stores/a.zarr"
    for name, content in bytes_of(on_disk).items():
        at(url).put(name, content)
    return url


def test_a_bucket_gets_the_bytes_of_the_disk(plans, on_disk, s3):
    url = f"{s3.bucket()}/stores/a.zarr"
    assert store.write(plans[SPRING], url) == url
    assert bytes_of(url) == bytes_of(on_disk)
    assert store.verify(url) == []
    assert store.tiles(url) == store.tiles(on_disk)
    assert store.tallies(url) == store.tallies(on_disk)
    assert store.read_plan(url) == plans[SPRING]
    xr.testing.assert_identical(store.open(url).compute(), store.open(on_disk).compute())
    for ours, theirs in zip(
        store.read_window(url, "31TEJ", LOWER),
        store.read_window(on_disk, "31TEJ", LOWER),
        strict=True,
    ):
        assert np.array_equal(ours, theirs)


def test_plain_xarray_reads_the_bucket_too(url, on_disk):
    bucket = ObjectStore(S3Store.from_url(f"{url}/31TEJ"), read_only=True)
    plain = xr.open_zarr(bucket, consolidated=False)
    assert np.array_equal(plain.reflectance, store.open(on_disk).reflectance)


def test_an_interrupted_build_goes_on(plans, on_disk, s3):
    def stop_after_the_first(done: int, total: int, name: str) -> None:
        if done:
            raise InterruptedBuildError

    url, told = f"{s3.bucket()}/a.zarr", []
    with pytest.raises(InterruptedBuildError):
        store.write(plans[SPRING], url, progress=stop_after_the_first)
    done = len(store.tiles(url))
    assert done >= 1
    store.write(plans[SPRING], url, progress=lambda *step: told.append(step))
    assert told[0] == (done, 2, "resumed")
    assert bytes_of(url) == bytes_of(on_disk)


@pytest.mark.parametrize("place", ["disk", "bucket"])
def test_several_may_create_a_store_at_once(plans, on_disk, s3, tmp_path, place):
    path = tmp_path / "a.zarr" if place == "disk" else f"{s3.bucket()}/a.zarr"
    with ThreadPoolExecutor(4) as pool:
        assert set(pool.map(partial(store.create, plans[SPRING]), [path] * 4)) == {path}
    assert bytes_of(store.write(plans[SPRING], path)) == bytes_of(on_disk)


def test_a_deleted_shard_raises_and_is_built_again(plans, url, on_disk):
    store.read_window(url, "31TEJ", LOWER)
    at(url).delete(SHARD)
    assert store.verify(url) == ["31TEJ-1-0: the shard of reflectance is missing"]
    assert len(store.tiles(url)) == 1
    with pytest.raises(cube.StoreError, match=f"{url}: 1 of 2 tiles of 31TEJ are not done"):
        store.open(url)
    # Even though the window was read a moment ago.
    with pytest.raises(cube.StoreError, match="31TEJ-1-0 is not done; run the build again"):
        store.read_window(url, "31TEJ", LOWER)
    store.write(plans[SPRING], url)
    assert bytes_of(url) == bytes_of(on_disk)


def test_a_flipped_byte_is_found(url):
    content = bytearray(at(url).get(SHARD))
    content[len(content) // 2] ^= 1
    at(url).put(SHARD, bytes(content))
    assert store.verify(url) == ["31TEJ-1-0: the shard of reflectance was changed"]
    whole = Window(row=1024, col=0, height=76, width=70)
    with pytest.raises(cube.StoreError, match=f"31TEJ-1-0: reflectance is damaged.*{url}/{SHARD}"):
        store.read_window(url, "31TEJ", whole)


def test_a_lost_marker_is_told(url):
    at(url).delete(".cropcube/31TEJ-1-0.json")
    assert store.verify(url) == ["31TEJ-1-0: not done"]
    with pytest.raises(cube.StoreError, match="31TEJ-1-0 is not done"):
        store.read_window(url, "31TEJ", LOWER)


def test_a_period_is_added_in_a_bucket_as_on_disk(plans, url, on_disk, tmp_path):
    store.read_window(url, "31TEJ", LOWER)
    path = store.append(plans[SUMMER], shutil.copytree(on_disk, tmp_path / "a.zarr"))
    assert store.append(plans[SUMMER], url) == url
    assert bytes_of(url) == bytes_of(path)
    reflectance, _ = store.read_window(url, "31TEJ", LOWER)
    assert np.array_equal(reflectance, store.read_window(path, "31TEJ", LOWER)[0])
    xr.testing.assert_identical(store.open(url).compute(), store.open(path).compute())


def test_something_else_in_a_bucket_is_refused(plans, s3):
    bucket = s3.bucket()
    at(bucket).put("holiday/a.jpg", b"x")
    with pytest.raises(cube.StoreError, match="not a cropcube store; choose another path"):
        store.write(plans[SPRING], bucket)
    with pytest.raises(cube.StoreError, match="not a cropcube store"):
        store.open(bucket)
