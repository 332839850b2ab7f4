"""Batch jobs: planned, estimated, run by many, resumed, verified."""

from deploy.jobs.job import Job, open_job
from deploy.jobs.loop import Outcome
from deploy.jobs.plan import plan_job
from deploy.jobs.report import report
from deploy.jobs.run import run_job
from deploy.jobs.status import cancel, repair, status, verify

__all__ = [
    "Job",
    "Outcome",
    "cancel",
    "open_job",
    "plan_job",
    "repair",
    "report",
    "run_job",
    "status",
    "verify",
]
