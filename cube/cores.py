"""How much of the machine one process may use at once, and memory that it keeps.

Many reads are in flight to hide a network's latency, but decoding and the kernels are computing:
they run in a pool with as many threads as Dask gave the process.

Memory is kept because the system clears every page that it hands out: asking anew for each block
and month costs more time than the median.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import dask
import numpy as np
from dask.system import CPU_COUNT

T = TypeVar("T")


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


class _Pool:
    def __init__(self, count: int) -> None:
        self.count = count
        self.threads = ThreadPoolExecutor(count, thread_name_prefix="cropcube-compute")


_pool = _Pool(CPU_COUNT)


def fit_pool() -> None:
    """Give the process as many computing threads as the calling task's worker or scheduler has."""
    global _pool
    count = _threads_of_caller()
    if count != _pool.count:
        _pool = _Pool(count)


def compute(work: Callable[..., T], *args: Any) -> T:
    """Run `work` in one of the process's computing threads and return what it returns.

    They are few and always busy: handing the right to compute from thread to thread would leave a
    core idle each time.
    """
    return _pool.threads.submit(work, *args).result()


def _threads_of_caller() -> int:
    # Where nobody imported distributed there is no worker, and importing it takes a second.
    if "distributed.worker" in sys.modules:
        from distributed import get_worker

        try:
            return int(get_worker().state.nthreads)
        except ValueError:
            pass
    return int(dask.config.get("num_workers", None) or CPU_COUNT)
