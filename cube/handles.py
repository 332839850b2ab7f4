"""Open files kept for the next tile: opening again costs a header, over a network a request."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import rasterio

#: Open files kept per process: a year of four bands and the classification, below the usual limit
#: of 1,024 file descriptors.
KEPT = 512


class Handles:
    """A pool of open rasters; each is in one thread's hands at a time, as GDAL demands.

    Parameters
    ----------
    open_file : callable
        Opens a path or URL.
    kept : int
        Idle files to keep; the one idle longest is closed first.
    """

    def __init__(
        self, open_file: Callable[[str], rasterio.DatasetReader], kept: int = KEPT
    ) -> None:
        self._open, self._kept = open_file, kept
        self._idle: OrderedDict[str, rasterio.DatasetReader] = OrderedDict()
        self._lock = threading.Lock()

    @contextmanager
    def borrow(self, href: str) -> Iterator[rasterio.DatasetReader]:
        """Give an open file; it is kept afterwards, unless reading it failed."""
        with self._lock:
            source = self._idle.pop(href, None)
        if source is None:
            source = self._open(href)
        try:
            yield source
        except BaseException:
            source.close()
            raise
        self._give_back(href, source)

    def _give_back(self, href: str, source: rasterio.DatasetReader) -> None:
        with self._lock:
            surplus = [self._idle.pop(href)] if href in self._idle else []
            self._idle[href] = source
            while len(self._idle) > self._kept:
                surplus.append(self._idle.popitem(last=False)[1])
        for unneeded in surplus:
            unneeded.close()
