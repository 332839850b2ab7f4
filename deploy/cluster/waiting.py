"""Waiting that has a limit, and says meanwhile what it waits for."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TypeVar

from cube.errors import ClusterError
from deploy.cluster.wishes import Tell

T = TypeVar("T")

#: Seconds between looks, and between lines about what is being waited for.
LOOK_EVERY, TELL_EVERY = 0.3, 10.0


def wait_for(
    ready: Callable[[], T | None],
    what: str,
    *,
    limit: float,
    state: Callable[[], str],
    tell: Tell,
    remedy: str,
) -> T:
    """Look again and again until something is there.

    Parameters
    ----------
    ready : callable
        Returns what is waited for, or None.
    what : str
        Its name in messages.
    limit : float
        Seconds.
    state : callable
        Says how things stand; part of every message.
    tell : callable
        Takes a line every ten seconds.
    remedy : str
        What to do when it never comes.

    Raises
    ------
    ClusterError
        After `limit` seconds.
    """
    started = said = time.monotonic()
    while (found := ready()) is None:
        now = time.monotonic()
        if now - started > limit:
            raise ClusterError(f"waited {limit:.0f} s for {what} in vain ({state()}); {remedy}")
        if now - said >= TELL_EVERY:
            said = now
            tell(f"waiting for {what}: {state()} ({now - started:.0f} of {limit:.0f} s)")
        time.sleep(LOOK_EVERY)
    return found


def within(limit: float, what: str, call: Callable[[], T]) -> T:
    """Return what `call` returns, or give up on it.

    The call goes on in a thread of its own if it is given up: the libraries below offer no way
    to stop it.

    Raises
    ------
    ClusterError
        After `limit` seconds; errors of the call pass through.
    """
    results: list[T] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            results.append(call())
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=run, daemon=True, name=f"cropcube: {what}")
    thread.start()
    thread.join(limit)
    if errors:
        raise errors[0]
    if not results:
        raise ClusterError(
            f"no answer for {what} within {limit:.0f} s; the cluster is overloaded or gone: look "
            "at its dashboard, or close it and open another"
        )
    return results[0]
