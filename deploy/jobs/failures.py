"""Failures by class: what is tried again, and what the exit code says.

A class follows from the type of the error and the facts it carries, never from its wording. Exit
codes are those of sysexits(3), so that Kubernetes, SLURM and Argo can act on them.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Collection, Iterator
from concurrent.futures import CancelledError
from enum import StrEnum

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from cube.errors import (
    AccessError,
    BudgetError,
    ClusterLostError,
    CropcubeError,
    JobError,
    ReadError,
    SearchError,
    StoreError,
)


class Failure(StrEnum):
    """Classes of failure."""

    TRANSIENT = "transient"
    OOM = "oom"
    AUTH = "auth"
    DATA = "data"
    OUTPUT = "output"
    TIMEOUT = "timeout"
    LOST = "lost"
    BUG = "bug"


#: Failures of the run rather than of one task: nothing else is begun.
STOPPING = frozenset({Failure.OUTPUT, Failure.LOST})

USAGE, SERVICE, AGAIN, AUTHENTICATION, CONFIGURATION, TIME_LIMIT = 2, 69, 75, 77, 78, 124
_CODES = {
    Failure.AUTH: AUTHENTICATION,
    Failure.OUTPUT: 73,
    Failure.LOST: SERVICE,
    Failure.TRANSIENT: AGAIN,
    Failure.OOM: AGAIN,
    Failure.BUG: AGAIN,
    Failure.TIMEOUT: TIME_LIMIT,
    Failure.DATA: 65,
}
#: What a disk says that is full, read-only, over quota or closed to us.
_NO_SPACE = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES, errno.EPERM}
)
_READS = {"transport": Failure.TRANSIENT, "forbidden": Failure.AUTH}


def classify(error: BaseException) -> Failure:
    """Return the class of a failure."""
    chain = list(_chain(error))
    for one in chain:
        if isinstance(one, ReadError):
            return _READS.get(one.kind, Failure.DATA)
        if isinstance(one, MemoryError) or _is_killed_worker(one):
            return Failure.OOM
        if isinstance(one, (AccessError, PermissionDeniedError, UnauthenticatedError)):
            return Failure.AUTH
        if isinstance(one, (ClusterLostError, CancelledError)):
            return Failure.LOST
    if any(isinstance(one, OSError) and one.errno in _NO_SPACE for one in chain):
        return Failure.OUTPUT
    if any(isinstance(one, (BaseError, SearchError, ConnectionError)) for one in chain):
        return Failure.TRANSIENT
    if any(isinstance(one, StoreError) for one in chain):
        return Failure.OUTPUT
    if any(isinstance(one, TimeoutError) for one in chain):
        return Failure.TRANSIENT
    return Failure.DATA if isinstance(error, CropcubeError) else Failure.BUG


def exit_code(failures: Collection[Failure]) -> int:
    """Return the exit code of a run whose tasks failed so; 0 for none.

    What concerns every task comes first, then what a rerun may mend.
    """
    return next((code for kind, code in _CODES.items() if kind in failures), 0)


def code_of(error: CropcubeError | OSError) -> int:
    """Return the exit code of an error outside of tasks, such as while planning."""
    if isinstance(error, JobError):
        return USAGE
    if isinstance(error, BudgetError):
        return CONFIGURATION
    if isinstance(error, SearchError):
        return SERVICE
    kind = classify(error)
    return USAGE if kind is Failure.DATA else _CODES[kind]


def _chain(error: BaseException) -> Iterator[BaseException]:
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def _is_killed_worker(error: BaseException) -> bool:
    # Where nobody imported distributed there is no worker, and importing it takes a second.
    if "distributed" not in sys.modules:
        return False
    from distributed import KilledWorker

    return isinstance(error, KilledWorker)
