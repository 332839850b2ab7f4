"""Requests to a provider: never more at once, nor faster, than it allows."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor

from cube.pace import Pace, turn
from cube.providers import get_provider


def busiest(provider: str, pace: Pace, threads: int = 12) -> int:
    """Return how many were in their turn at once, of threads that all want one together."""
    lock, inside, most = threading.Lock(), 0, 0
    start = threading.Barrier(threads)

    def ask() -> None:
        nonlocal inside, most
        start.wait()
        with turn(provider, pace):
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.05)
            with lock:
                inside -= 1

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(ask) for _ in range(threads)]:
            done.result()
    return most


def test_no_more_at_once_than_allowed() -> None:
    assert busiest("three", Pace(at_once=3)) == 3
    assert busiest("any", Pace()) == 12


def test_no_faster_than_allowed() -> None:
    begun = time.monotonic()
    for _ in range(5):
        with turn("slow", Pace(per_minute=1200)):
            last = time.monotonic()
    # 1200 a minute is one in 50 ms; sleeping is never shorter than asked.
    assert last - begun >= 4 * 0.05


def test_providers_do_not_wait_for_each_other() -> None:
    with turn("one", Pace(at_once=1)), turn("other", Pace(at_once=1)):
        pass


def test_a_turn_ends_with_an_error() -> None:
    for _ in range(3):
        try:
            with turn("failing", Pace(at_once=1)):
                raise OSError("reset")
        except OSError:
            pass


def test_the_quota_of_cdse() -> None:
    assert get_provider("cdse").pace == Pace(at_once=4, per_minute=2000)
