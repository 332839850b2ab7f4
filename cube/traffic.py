"""How much this process has read: counted where it happens, asked by whoever reports."""

from __future__ import annotations

import threading
from dataclasses import dataclass


@dataclass(frozen=True)
class Traffic:
    """Counts since the process began.

    Attributes
    ----------
    requests : int
        Ranges asked for, of files and of URLs; those of blocks near each other may share one.
    bytes : int
        Bytes that arrived.
    written : int
        Bytes of shards that were written.
    retries : int
        Requests that were tried again.
    """

    requests: int = 0
    bytes: int = 0
    written: int = 0
    retries: int = 0


_lock = threading.Lock()
_total = Traffic()


def traffic() -> Traffic:
    """Return the counts so far."""
    return _total


def count(*, requests: int = 0, read: int = 0, written: int = 0, retries: int = 0) -> None:
    """Add to the counts."""
    global _total
    with _lock:
        _total = Traffic(
            requests=_total.requests + requests,
            bytes=_total.bytes + read,
            written=_total.written + written,
            retries=_total.retries + retries,
        )
