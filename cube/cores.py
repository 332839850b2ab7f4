"""How much of the machine one process may use at once, and memory that it keeps.

Many reads are in flight to hide a network's latency, but decoding and the kernels are computing:
they take one slot each, and a process has as many slots as Dask gave it threads.

Memory is kept because the system clears every page that it hands out: asking anew for each block
and month costs more time than the median.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from queue import LifoQueue

import dask
import numpy as np
from dask.system import CPU_COUNT


class Scratch:
    """Memory that is used again; it grows to somewhat more than was ever asked for."""

    def __init__(self) -> None:
        self._bytes = np.empty(0, np.uint8)

    def take(self, size: int) -> np.ndarray:
        """Return `size` bytes with any content, the same ones each time."""
        if len(self._bytes) < size:
            self._bytes = np.empty(size + size // 4, np.uint8)
        return self._bytes[:size]


_threads = threading.local()


def scratch(name: str) -> Scratch:
    """Return the calling thread's memory of that name."""
    if not hasattr(_threads, name):
        setattr(_threads, name, Scratch())
    found: Scratch = getattr(_threads, name)
    return found


class _Slots:
    def __init__(self, count: int) -> None:
        self.count = count
        # Last in, first out: the memory used a moment ago is still in the cache.
        self.free: LifoQueue[Scratch] = LifoQueue()
        for _ in range(count):
            self.free.put(Scratch())


_slots = _Slots(CPU_COUNT)


def fit_slots() -> None:
    """Give the process as many slots as the calling task's worker or scheduler has threads."""
    global _slots
    count = _threads_of_caller()
    if count != _slots.count:
        _slots = _Slots(count)


@contextmanager
def slot() -> Iterator[Scratch]:
    """Wait for one of the process's slots and hold it, with its memory."""
    free = _slots.free
    held = free.get()
    try:
        yield held
    finally:
        free.put(held)


def _threads_of_caller() -> int:
    # Where nobody imported distributed there is no worker, and importing it takes a second.
    if "distributed.worker" in sys.modules:
        from distributed import get_worker

        try:
            return int(get_worker().state.nthreads)
        except ValueError:
            pass
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
