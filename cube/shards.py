"""One shard, written whole and read back: the file of one tile of one variable.

The file is what Zarr v3's ``sharding_indexed`` codec describes, and any Zarr reader opens it: inner
chunks one after the other, each followed by its CRC-32C, then the index: offset and size of every
inner chunk as little-endian uint64, and the CRC-32C of that. Zarr-Python could write it, but copies
the whole shard and takes more CPU than a build can spare (`python -m benchmarks write`).

Source: Zarr v3 specification, codecs sharding-indexed v1.0, blosc v1.0 and crc32c v1.0.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import google_crc32c
import numcodecs
import numpy as np
import zarr.codecs

from cube.errors import StoreError
from cube.grid import TILE

#: Pixels of an inner chunk: what a training sample reads, with all its times and bands.
INNER = 64
#: What Zarr has to know to read the inner chunks. LZ4 takes far less CPU than Zstandard, both ways,
#: and the files are slightly larger.
COMPRESSORS = (
    zarr.codecs.BloscCodec(cname="lz4", clevel=5, shuffle="bitshuffle"),
    zarr.codecs.Crc32cCodec(),
)

_BLOSC = numcodecs.Blosc("lz4", 5, numcodecs.Blosc.BITSHUFFLE)
_ABSENT = np.uint64(2**64 - 1)
_SIDE = TILE // INNER


def write_shard(path: Path, values: np.ndarray) -> str:
    """Write a shard so that a reader sees the old file or the new, and read it back.

    Parameters
    ----------
    path : Path
        The shard's file.
    values : ndarray of uint8 or uint16 [..., y, x]
        From the tile's first row and column on; at most 1024 × 1024 pixels.

    Returns
    -------
    str
        SHA-256 of the file in hexadecimal.

    Raises
    ------
    StoreError
        If what was read back is not what was written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{uuid.uuid4().hex}.partial")
    try:
        _write(partial, values)
        digest = _read_back(partial, values)
        if digest is None:
            raise StoreError(f"{path}: what was read back differs; check the disk")
        partial.replace(path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    return digest


def _write(path: Path, values: np.ndarray) -> None:
    index = np.full((_SIDE, _SIDE, 2), _ABSENT, "<u8")
    with path.open("wb") as file:
        for place, chunk in _chunks(values):
            encoded = _BLOSC.encode(chunk)
            index[place] = file.tell(), len(encoded) + 4
            file.write(encoded)
            file.write(_crc(encoded))
        file.write(index.tobytes())
        file.write(_crc(index.tobytes()))


def _read_back(path: Path, values: np.ndarray) -> str | None:
    """Return the file's SHA-256, or None if it does not hold `values`."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        file.seek(-(_SIDE * _SIDE * 16 + 4), 2)
        end = file.read()
        if _crc(end[:-4]) != end[-4:]:
            return None
        index = np.frombuffer(end[:-4], "<u8").reshape(_SIDE, _SIDE, 2)
        file.seek(0)
        for place, chunk in _chunks(values):
            offset, size = (int(number) for number in index[place])
            stored = file.read(size) if file.tell() == offset else b""
            encoded, crc = stored[:-4], stored[-4:]
            if _crc(encoded) != crc or _BLOSC.decode(encoded) != chunk.tobytes():
                return None
            digest.update(stored)
    digest.update(end)
    return digest.hexdigest()


def _chunks(values: np.ndarray) -> Iterator[tuple[tuple[int, int], np.ndarray]]:
    """Yield row, column and pixels of each inner chunk, filled up with 0 at the border."""
    height, width = values.shape[-2:]
    for row in range(0, height, INNER):
        for col in range(0, width, INNER):
            chunk = values[..., row : row + INNER, col : col + INNER]
            lacking = [(0, 0)] * (values.ndim - 2)
            lacking += [(0, INNER - size) for size in chunk.shape[-2:]]
            if any(after for _, after in lacking):
                chunk = np.pad(chunk, lacking)
            yield (row // INNER, col // INNER), np.ascontiguousarray(chunk)


def _crc(content: bytes) -> bytes:
    return int(google_crc32c.value(content)).to_bytes(4, "little")
