"""Decoded blocks that several tiles need, kept small in memory.

A block of a 20 m asset may cover four tiles of 10 m pixels. It is decoded
once in a process and kept compressed.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

import numcodecs
import numpy as np

from cube.cores import scratch

#: Bytes, compressed, that a process keeps: the classifications of a year over some tiles.
KEPT = 32 * 2**20

_LZ4 = numcodecs.Blosc("lz4", 1, numcodecs.Blosc.SHUFFLE)


class Blocks:
    """Blocks under their keys, those used longest ago forgotten first; safe among threads.

    Parameters
    ----------
    limit : int
        Bytes of compressed blocks to keep.
    """

    def __init__(self, limit: int = KEPT) -> None:
        self._limit, self._size = limit, 0
        self._lock = threading.Lock()
        self._known: OrderedDict[Hashable, bytes] = OrderedDict()
        self._making: dict[Hashable, threading.Lock] = {}

    def get(self, key: Hashable, make: Callable[[], bytes]) -> bytes:
        """Return the packed block of that key, from `make` where nobody asked for it before.

        Of several threads that ask for one block at a time, one makes it.
        """
        with self._lock:
            turn = self._making.setdefault(key, threading.Lock())
        with turn:
            packed = self._take(key)
            if packed is None:
                packed = make()
                self._keep(key, packed)
        with self._lock:
            self._making.pop(key, None)
        return packed

    def clear(self) -> None:
        """Forget every block."""
        with self._lock:
            self._known.clear()
            self._size = 0

    def _take(self, key: Hashable) -> bytes | None:
        with self._lock:
            if key in self._known:
                self._known.move_to_end(key)
            return self._known.get(key)

    def _keep(self, key: Hashable, packed: bytes) -> None:
        with self._lock:
            # There already if it was forgotten and made anew by two threads meanwhile.
            self._size += len(packed) - len(self._known.pop(key, b""))
            self._known[key] = packed
            while self._size > self._limit:
                self._size -= len(self._known.popitem(last=False)[1])


def pack(pixels: np.ndarray) -> bytes:
    """Return an array's pixels, compressed."""
    return bytes(_LZ4.encode(pixels))


def unpack(packed: bytes, shape: tuple[int, int], dtype: np.dtype) -> np.ndarray:
    """Return the pixels; the calling thread's next call overwrites them."""
    memory = scratch("unpacked").take(shape[0] * shape[1] * dtype.itemsize)
    _LZ4.decode(packed, memory)
    return memory.view(dtype).reshape(shape)
