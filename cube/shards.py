"""One shard, written whole, read back, and read in part: one tile of one variable.

The object is what Zarr v3's ``sharding_indexed`` codec describes, and any Zarr reader opens it:
inner chunks one after the other, each followed by its CRC-32C, then the index: offset and size of
every inner chunk as little-endian uint64, and the CRC-32C of that. Zarr-Python could write it, but
copies the whole shard and takes more CPU than a build can spare (`python -m benchmarks write`). It
could read it, but asks for one inner chunk after the other, a round trip each in a bucket, and
takes a lost one for zeros.

Source: Zarr v3 specification, codecs sharding-indexed v1.0, blosc v1.0 and crc32c v1.0.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from itertools import groupby

import google_crc32c
import numcodecs
import numpy as np
import zarr.codecs

from cube import traffic
from cube.errors import StoreError
from cube.grid import TILE, Window
from cube.objects import Folder

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
_INDEX_BYTES = _SIDE * _SIDE * 16 + 4


def write_shard(folder: Folder, name: str, values: np.ndarray) -> str:
    """Write a shard and read it back.

    Parameters
    ----------
    folder : Folder
        Where the arrays are.
    name : str
        The shard's object.
    values : ndarray of uint8 or uint16 [..., y, x]
        From the tile's first row and column on; at most 1024 × 1024 pixels.

    Returns
    -------
    str
        SHA-256 of the object in hexadecimal.

    Raises
    ------
    StoreError
        If what was read back is not what was written; the object is deleted then.
    """
    folder.put(name, _counted(_encoded(values)))
    digest = _read_back(folder, name, values)
    if digest is None:
        folder.delete(name)
        raise StoreError(f"{folder}/{name}: what was read back differs; check the disk")
    return digest


def read_shard(
    folder: Folder, name: str, lead: tuple[int, ...], dtype: np.dtype, part: Window
) -> np.ndarray:
    """Read a part of a shard in two requests: the index, and the inner chunks that are needed.

    Parameters
    ----------
    folder : Folder
        Where the arrays are.
    name : str
        The shard's object.
    lead : tuple of int
        Lengths of the axes before y and x.
    dtype : dtype
        uint8 or uint16.
    part : Window
        Pixels, counted from the shard's first row and column.

    Returns
    -------
    ndarray [*lead, y, x]

    Raises
    ------
    FileNotFoundError
        If there is no such object.
    ValueError
        If it is damaged.
    """
    index = _index(folder.get_end(name, _INDEX_BYTES))
    rows, cols = (range(axis.start // INNER, -(-axis.stop // INNER)) for axis in part.yx)
    places = [(row, col) for row in rows for col in cols]
    for place in places:
        if index[place][0] == _ABSENT:
            raise ValueError(f"inner chunk {place} is not in it")
    values = np.empty((*lead, part.height, part.width), dtype)
    for (row, col), stored in zip(places, _stored(folder, name, index, places), strict=True):
        chunk = np.frombuffer(_decoded(stored), dtype).reshape(*lead, INNER, INNER)
        into_y, from_y = _overlap(row, part.row, part.height)
        into_x, from_x = _overlap(col, part.col, part.width)
        values[..., into_y, into_x] = chunk[..., from_y, from_x]
    return values


def _counted(parts: Iterator[bytes]) -> Iterator[bytes]:
    for part in parts:
        traffic.count(written=len(part))
        yield part


def _encoded(values: np.ndarray) -> Iterator[bytes]:
    index, end = np.full((_SIDE, _SIDE, 2), _ABSENT, "<u8"), 0
    for place, chunk in _chunks(values):
        encoded = _BLOSC.encode(chunk)
        index[place] = end, len(encoded) + 4
        end += len(encoded) + 4
        yield encoded
        yield _crc(encoded)
    yield index.tobytes()
    yield _crc(index.tobytes())


def _read_back(folder: Folder, name: str, values: np.ndarray) -> str | None:
    """Return the object's SHA-256, or None if it does not hold `values`."""
    digest, end = hashlib.sha256(), 0
    try:
        index = _index(last := folder.get_end(name, _INDEX_BYTES))
        # A row at a time: few requests, and little in memory.
        for _, row in groupby(_chunks(values), key=lambda placed: placed[0][0]):
            places, chunks = zip(*row, strict=True)
            for place, stored, chunk in zip(
                places, _stored(folder, name, index, places), chunks, strict=True
            ):
                same = np.frombuffer(_decoded(stored), chunk.dtype) == chunk.ravel()
                if index[place][0] != end or not same.all():
                    return None
                end += len(stored)
                digest.update(stored)
    except ValueError:
        return None
    digest.update(last)
    return digest.hexdigest()


def _index(content: bytes) -> np.ndarray:
    if len(content) != _INDEX_BYTES or _crc(content[:-4]) != content[-4:]:
        raise ValueError("the index's checksum does not fit")
    return np.frombuffer(content[:-4], "<u8").reshape(_SIDE, _SIDE, 2)


def _stored(
    folder: Folder, name: str, index: np.ndarray, places: Sequence[tuple[int, int]]
) -> list[bytes]:
    starts, lengths = zip(*(index[place].tolist() for place in places), strict=True)
    return folder.get_parts(name, starts, lengths)


def _decoded(stored: bytes) -> bytes:
    if _crc(stored[:-4]) != stored[-4:]:
        raise ValueError("an inner chunk's checksum does not fit")
    return _BLOSC.decode(stored[:-4])


def _overlap(place: int, start: int, length: int) -> tuple[slice, slice]:
    """Return where on one axis an inner chunk lies in the part asked for, and the part in it."""
    first, last = max(place * INNER, start), min((place + 1) * INNER, start + length)
    return slice(first - start, last - start), slice(first - place * INNER, last - place * INNER)


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
