"""Training on a cluster that may lose workers: told round by round, started again when needed."""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar

import xgboost as xgb

from cube.errors import ClusterLostError

if TYPE_CHECKING:
    from distributed import Client

log = logging.getLogger(__name__)

Progress = Callable[[int, int, str], None]
Fitted = TypeVar("Fitted")


def survive(client: Client, fit: Callable[[], Fitted], retries: int) -> Fitted:
    """Run `fit`, and run it again while what stops it is a lost worker.

    Raises
    ------
    ClusterLostError
        After more than `retries` losses, or when no worker comes back.
    """
    attempt = 0
    while True:
        workers = _workers(client)
        try:
            return fit()
        except Exception as error:
            if not _lost_worker(error, workers - _workers(client)):
                raise
            attempt += 1
            if attempt > retries:
                raise ClusterLostError(
                    f"boosting lost a worker {attempt} times, the last time: {_first_line(error)}. "
                    "Look for workers over their memory limit, or lower `cap`"
                ) from error
            log.warning("a worker was lost (%s); boosting starts again", _first_line(error))
            _await_workers(client)


def _lost_worker(error: Exception, gone: set[str]) -> bool:
    """Tell a lost worker from a mistake: by its type, its text, or by who is missing."""
    from distributed import KilledWorker
    from distributed.client import FutureCancelledError
    from distributed.comm import CommClosedError

    # An error of xgboost's collective carries nothing but its text.
    signs = ("allreduce", "allgather", "broadcast", "collective", "socket", "worker address")
    if isinstance(error, KilledWorker | FutureCancelledError | CommClosedError) or gone:
        return True
    text = str(error).lower()
    return isinstance(error, ValueError) and any(sign in text for sign in signs)


def _workers(client: Client) -> set[str]:
    return set(client.scheduler_info(n_workers=-1)["workers"])


def _await_workers(client: Client, seconds: float = 60) -> None:
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError as error:
        raise ClusterLostError(
            f"no Dask worker came back within {seconds:.0f} s; start workers and boost again"
        ) from error


def _first_line(error: Exception) -> str:
    lines = [line.strip("- ") for line in str(error).splitlines() if line.strip("- ")]
    return (lines[0] if lines else type(error).__name__)[:200]


@contextmanager
def cluster(client: Client | None) -> Iterator[Client]:
    """Yield `client`, or one on a temporary cluster inside this process."""
    if client is not None:
        yield client
        return
    from distributed import Client, LocalCluster

    with (
        LocalCluster(
            n_workers=1,
            processes=False,
            protocol="tcp://",
            host="127.0.0.1",  # in-process comms would listen on every interface
            # No dashboard, and a free port for the little HTTP server that remains.
            dashboard_address="127.0.0.1:0",
            scheduler_kwargs={"dashboard": False},
            worker_dashboard_address=None,
        ) as local,
        Client(local) as own,
    ):
        yield own


@contextmanager
def rounds_told(
    client: Client, rounds: int, progress: Progress | None
) -> Iterator[list[xgb.callback.TrainingCallback]]:
    """Yield the callbacks that make `progress` hear of every round."""
    if progress is None:
        yield []
        return
    topic = f"cropcube-boost-{uuid.uuid4().hex}"

    def heard(event: tuple[object, int]) -> None:
        progress(event[1], rounds, "boosting")

    client.subscribe_topic(topic, heard)
    try:
        yield [_Report(topic)]
    finally:
        client.unsubscribe_topic(topic)


class _Report(xgb.callback.TrainingCallback):
    """Tell the client about each round, through the scheduler."""

    def __init__(self, topic: str) -> None:
        super().__init__()
        self.topic = topic

    def after_iteration(self, model: Any, epoch: int, evals_log: Any) -> bool:
        """Report the round from the first worker."""
        from distributed import get_worker

        if xgb.collective.get_rank() == 0:
            get_worker().log_event(self.topic, epoch + 1)
        return False
