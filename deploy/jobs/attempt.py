"""One attempt at a task, wherever it runs."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass

from cube.errors import redact
from deploy.jobs.failures import Failure, classify
from deploy.jobs.tasks import Task
from deploy.jobs.usage import Usage, take

_MORE_MEMORY = (
    "the memory ran out or the worker died: give each worker more (run.cluster.memory, or the "
    "pod's or batch job's limit), or fewer tasks at once (run.at_once)"
)


@dataclass(frozen=True)
class Result:
    """What an attempt took, and how it failed if it did."""

    usage: Usage
    failure: Failure | None = None
    error: str | None = None

    @classmethod
    def of(cls, error: BaseException, usage: Usage) -> Result:
        """Return the result of a failure; a bug comes with its traceback."""
        kind = classify(error)
        text = str(error) or type(error).__name__
        if kind is Failure.OOM:
            text = f"{text}; {_MORE_MEMORY}"
        if kind is Failure.BUG:
            text = "".join(traceback.format_exception(error))
        return cls(usage, kind, redact(text))


def attempt(task: Task) -> Result:
    """Do a task and tell what became of it.

    A failure is classified here, where its causes are known: they do not travel between processes.
    """
    began = time.monotonic()
    try:
        task.work()
    except Exception as error:
        return Result.of(error, take(time.monotonic() - began))
    return Result(take(time.monotonic() - began))
