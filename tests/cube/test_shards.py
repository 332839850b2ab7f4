"""Shards: any Zarr reader opens them, and no flipped byte passes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.grid import TILE
from cube.shards import COMPRESSORS, INNER, _read_back, write_shard


def zarr_of(folder: Path, values: np.ndarray) -> zarr.Array:
    """Describe the shard as a Zarr array: its metadata are all that Zarr-Python writes."""
    lead = values.shape[:-2]
    return zarr.create_array(
        folder,
        shape=values.shape,
        dtype=values.dtype,
        shards=(*lead, TILE, TILE),
        chunks=(*lead, INNER, INNER),
        compressors=COMPRESSORS,
        fill_value=7,
        overwrite=True,
    )


@settings(max_examples=15, deadline=None)
@given(
    lead=st.sampled_from([(), (1,), (3,), (2, 3)]),
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    dtype=st.sampled_from(["uint8", "uint16"]),
    seed=st.integers(0, 1000),
)
def test_zarr_reads_what_was_written(tmp_path_factory, lead, height, width, dtype, seed):
    folder = tmp_path_factory.mktemp("shard")
    rng = np.random.default_rng(seed)
    values = rng.integers(0, 6, (*lead, height, width)).astype(dtype)
    array = zarr_of(folder, values)
    file = folder.joinpath("c", *["0"] * values.ndim)
    digest = write_shard(file, values)
    assert digest == hashlib.sha256(file.read_bytes()).hexdigest()
    assert np.array_equal(array[...], values)
    assert digest == write_shard(folder / "again", values)


def test_a_whole_tile_is_what_zarr_itself_would_store(tmp_path):
    values = np.random.default_rng(0).integers(0, 9000, (2, TILE, TILE)).astype("uint16")
    ours, theirs = zarr_of(tmp_path / "ours", values), zarr_of(tmp_path / "theirs", values)
    write_shard(tmp_path / "ours" / "c" / "0" / "0" / "0", values)
    theirs[...] = values
    assert np.array_equal(ours[...], theirs[...])
    assert ours.nbytes_stored() == theirs.nbytes_stored()
    assert [p.name for p in (tmp_path / "ours" / "c" / "0" / "0").iterdir()] == ["0"]


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    values = np.random.default_rng(0).integers(0, 40, (2, 70, 90)).astype("uint16")
    file = tmp_path_factory.mktemp("one") / "0"
    write_shard(file, values)
    return file, values


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reading_back_finds_every_flipped_bit(shard, data):
    file, values = shard
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = file.with_name("damaged")
    damaged.write_bytes(bytes(content))
    assert _read_back(file, values) is not None
    assert _read_back(damaged, values) is None


def test_other_values_are_not_taken_for_these(shard):
    file, values = shard
    other = values.copy()
    other[1, 69, 89] ^= 1
    assert _read_back(file, other) is None
