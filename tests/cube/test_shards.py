"""Shards: any Zarr reader opens them, and no flipped byte passes."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.grid import TILE, Window
from cube.objects import at
from cube.shards import COMPRESSORS, INNER, _read_back, read_shard, write_shard


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
    name = "/".join(["c", *["0"] * values.ndim])
    digest = write_shard(at(folder), name, values)
    assert digest == hashlib.sha256((folder / name).read_bytes()).hexdigest()
    assert np.array_equal(array[...], values)
    assert digest == write_shard(at(folder), "again", values)


def test_a_whole_tile_is_what_zarr_itself_would_store(tmp_path):
    values = np.random.default_rng(0).integers(0, 9000, (2, TILE, TILE)).astype("uint16")
    ours, theirs = zarr_of(tmp_path / "ours", values), zarr_of(tmp_path / "theirs", values)
    write_shard(at(tmp_path / "ours"), "c/0/0/0", values)
    theirs[...] = values
    assert np.array_equal(ours[...], theirs[...])
    assert ours.nbytes_stored() == theirs.nbytes_stored()
    assert [p.name for p in (tmp_path / "ours" / "c" / "0" / "0").iterdir()] == ["0"]


@settings(max_examples=40, deadline=None)
@given(data=st.data(), written_by=st.sampled_from(["us", "Zarr"]))
def test_every_part_is_read_as_numpy_slices_it(tile, data, written_by):
    folder, values = tile
    row, col = (data.draw(st.integers(0, side - 1)) for side in values.shape[-2:])
    height = data.draw(st.integers(1, values.shape[-2] - row))
    width = data.draw(st.integers(1, values.shape[-1] - col))
    part = Window(row=row, col=col, height=height, width=width)
    found = read_shard(at(folder / written_by), "c/0/0/0", (2,), values.dtype, part)
    assert np.array_equal(found, values[(..., *part.yx)])


@pytest.fixture(scope="module")
def tile(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tile")
    values = np.random.default_rng(1).integers(1, 40, (2, 150, 300)).astype("uint16")
    write_shard(at(folder / "us"), "c/0/0/0", values)
    zarr_of(folder / "Zarr", values)[...] = values
    return folder, values


def test_a_part_that_was_never_written_raises(tile):
    folder, values = tile
    beyond = Window(row=0, col=310, height=4, width=20)
    with pytest.raises(ValueError, match=r"inner chunk \(0, 5\) is not in it"):
        read_shard(at(folder / "us"), "c/0/0/0", (2,), values.dtype, beyond)


@pytest.fixture(scope="module")
def shard(tmp_path_factory):
    values = np.random.default_rng(0).integers(0, 40, (2, 70, 90)).astype("uint16")
    folder = tmp_path_factory.mktemp("one")
    write_shard(at(folder), "0", values)
    return folder / "0", values


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reading_back_finds_every_flipped_bit(shard, data):
    file, values = shard
    content = bytearray(file.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = file.with_name("damaged")
    damaged.write_bytes(bytes(content))
    folder = at(file.parent)
    assert _read_back(folder, "0", values) is not None
    assert _read_back(folder, "damaged", values) is None


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_reading_finds_every_flipped_bit_or_never_sees_it(shard, data):
    file, values = shard
    content = bytearray(file.read_bytes())
    content[data.draw(st.integers(0, len(content) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    file.with_name("flipped").write_bytes(bytes(content))
    whole = Window(row=0, col=0, height=70, width=90)
    with pytest.raises(ValueError, match="checksum does not fit"):
        read_shard(at(file.parent), "flipped", (2,), values.dtype, whole)


def test_other_values_are_not_taken_for_these(shard):
    file, values = shard
    other = values.copy()
    other[1, 69, 89] ^= 1
    assert _read_back(at(file.parent), "0", other) is None
