"""Failures: the class follows from type and facts, the exit code from the classes."""

from __future__ import annotations

import errno

import pytest
from distributed import KilledWorker
from obstore.exceptions import GenericError

from cube.errors import (
    AccessError,
    ClusterLostError,
    JobError,
    PlanError,
    ReadError,
    SceneError,
    SearchError,
    StoreError,
)
from deploy.jobs.failures import Failure, classify, code_of, exit_code


def read_error(kind):
    return ReadError("m", item="i", asset="a", tile="t", attempt=1, kind=kind)


def caused(error, cause):
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (read_error("transport"), "transient"),
        (read_error("forbidden"), "auth"),
        (caused(read_error("forbidden"), AccessError("keys")), "auth"),
        (read_error("missing"), "data"),
        (read_error("corrupt"), "data"),
        (read_error("refused"), "data"),
        (SceneError("offset"), "data"),
        (AccessError("keys"), "auth"),
        (MemoryError(), "oom"),
        (KilledWorker("task", None, 3), "oom"),
        (OSError(errno.ENOSPC, "full"), "output"),
        (caused(StoreError("m"), OSError(errno.ENOSPC, "full")), "output"),
        (caused(StoreError("m"), OSError(errno.EROFS, "read-only")), "output"),
        (caused(StoreError("m"), OSError(errno.EDQUOT, "quota")), "output"),
        (caused(StoreError("m"), GenericError("503")), "transient"),
        (StoreError("what was read back differs"), "output"),
        (ConnectionResetError(), "transient"),
        (TimeoutError(), "transient"),
        (ClusterLostError("gone"), "lost"),
        (KeyError("x"), "bug"),
        (ValueError("timeout 503 connection out of memory"), "bug"),
    ],
)
def test_class_by_type_and_cause(error, kind):
    assert classify(error) == Failure(kind)


def test_what_concerns_every_task_decides_the_exit_code():
    assert exit_code([]) == 0
    assert exit_code([Failure.DATA]) == 65
    # A rerun helps some of them: 65 would tell Kubernetes to give the shard up.
    assert exit_code([Failure.DATA, Failure.TRANSIENT]) == 75
    assert exit_code([Failure.BUG, Failure.DATA]) == 75
    assert exit_code([Failure.TRANSIENT, Failure.AUTH]) == 77
    assert exit_code([Failure.OUTPUT, Failure.DATA]) == 73
    assert exit_code([Failure.TIMEOUT]) == 124
    assert all(exit_code([kind]) > 0 for kind in Failure)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (JobError("unknown key"), 2),
        (PlanError("no scene"), 2),
        (SearchError("504"), 69),
        (AccessError("keys"), 77),
        (caused(StoreError("m"), OSError(errno.ENOSPC, "full")), 73),
        (ClusterLostError("gone"), 69),
    ],
)
def test_exit_codes_outside_of_tasks(error, code):
    assert code_of(error) == code
