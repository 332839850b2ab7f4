"""How fast a provider may be asked: requests at once, and per minute.

Counted per process, which is all that one knows. Workers of a cluster that share an account must
share its quota as well: divide it, or run fewer of them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache


@dataclass(frozen=True)
class Pace:
    """Limits that a provider states.

    Attributes
    ----------
    at_once : int or None
        Requests in flight.
    per_minute : int or None
        Requests that may begin in a minute; they are spread evenly.
    """

    at_once: int | None = None
    per_minute: int | None = None


UNLIMITED = Pace()


@contextmanager
def turn(provider: str, pace: Pace) -> Iterator[None]:
    """Wait until a provider may be asked once more, and hold the place meanwhile."""
    if pace == UNLIMITED:
        yield
        return
    limiter = _limiter(provider, pace)
    with limiter.places:
        limiter.wait()
        yield


class _Limiter:
    def __init__(self, pace: Pace) -> None:
        self.places = threading.Semaphore(pace.at_once) if pace.at_once else nullcontext()
        self._between = 60 / pace.per_minute if pace.per_minute else 0.0
        self._next = 0.0
        self._lock = threading.Lock()

    def wait(self) -> None:
        with self._lock:
            now = time.monotonic()
            start = max(now, self._next)
            self._next = start + self._between
        time.sleep(start - now)


@lru_cache(maxsize=64)
def _limiter(provider: str, pace: Pace) -> _Limiter:
    return _Limiter(pace)
