"""What a job will cost and what it has cost: the estimate beside what was used."""

from __future__ import annotations

import pandas as pd
from pydantic import BaseModel, ConfigDict

from cube.errors import JobError
from deploy.jobs.calibration import Calibration, MeasuredTask, calibrate, calibration_tiles
from deploy.jobs.claims import Attempt
from deploy.jobs.estimate import Estimate, compare, estimate
from deploy.jobs.job import ESTIMATE, Job
from deploy.jobs.prices import PriceTable
from deploy.jobs.report import Report, read_attempts
from deploy.jobs.run import run_job
from deploy.jobs.usage import use_of


class Expected(BaseModel):
    """What was estimated before a run, and the prices it was made with."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    estimate: Estimate
    prices: PriceTable | None


def estimate_job(
    job: Job, *, concurrency: int, prices: PriceTable | None = None, measure: int = 0
) -> Estimate:
    """Estimate a job and keep the estimate in the run's folder.

    Parameters
    ----------
    job : Job
        Planned.
    concurrency : int
        Tasks that will run at a time, by all runners together.
    prices : PriceTable, optional
        For the price.
    measure : int
        Tiles to build first, one by one in this process, so that the estimate rests on them; they
        count as done. With 0, what an earlier estimate of this job measured still holds.

    Raises
    ------
    JobError
        If a tile that was to be measured could not be built.
    """
    observed = _measured(job, measure) if measure else _measured_before(job)
    made = estimate(job.plan, concurrency=concurrency, prices=prices, observed=observed)
    kept = Expected(estimate=made, prices=prices)
    job.folder.put(ESTIMATE, kept.model_dump_json(indent=1).encode())
    return made


def expected(job: Job) -> Expected | None:
    """Return what `estimate_job` kept, None if nothing was estimated."""
    try:
        return Expected.model_validate_json(job.folder.get(ESTIMATE))
    except FileNotFoundError:
        return None


def beside(told: Report, before: Expected) -> pd.DataFrame:
    """Return the estimate beside what was used; see `deploy.jobs.estimate.compare`."""
    use = use_of(told.used, tasks=told.done, hours=told.span_s / 3600)
    return compare(before.estimate, use, before.prices)


def _measured_before(job: Job) -> Calibration | None:
    before = expected(job)
    return before.estimate.calibration if before else None


def _measured(job: Job, count: int) -> Calibration:
    measured = []
    for grid, tile in calibration_tiles(job.plan, count):
        task = f"{grid.grid.granule}-{tile.row}-{tile.col}"
        outcome = run_job(job.folder.place, tasks=[task])
        if outcome.code:
            raise JobError(f"{task} was to be measured and failed: {outcome.ended}; see its status")
        use = use_of(_last(job, task).usage, tasks=1, hours=0)
        measured.append(MeasuredTask(grid.grid.granule, tile.row, tile.col, use))
    return calibrate(job.plan, measured)


def _last(job: Job, task: str) -> Attempt:
    done = [one for one in read_attempts(job.folder, task) if one.outcome == "done"]
    if not done:
        raise JobError(f"{task} is done, but nobody noted what it took; measure in a new run")
    return done[-1]
