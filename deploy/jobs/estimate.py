"""What a job will read, write, take and cost, before anything is paid for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce
from operator import add

import pandas as pd

from cube.errors import PlanError
from cube.planning import Plan
from deploy.jobs.bands import Band
from deploy.jobs.calibration import Calibration
from deploy.jobs.prices import GIB, PriceTable, Use
from deploy.jobs.workload import Assumptions, Load, header_reads, load, peak_bytes


@dataclass(frozen=True)
class Estimate:
    """What a job will take.

    Attributes
    ----------
    tasks, scenes, concurrency : int
    requests : Band
        For ranges of files, if none has to be repeated.
    gib_read, gib_written : Band
    peak_gib : Band
        Memory of a worker that runs one task at a time.
    core_hours : Band
    hours : Band
        With `concurrency` tasks at a time, each on a core of its own.
    price : Band or None
        None without a price table.
    currency : str
    assumptions, warnings : tuple of str
        What the figures rest on; and what the user should know before paying.
    calibration : Calibration or None
        What was measured; without it the core time is a guess.
    """

    tasks: int
    scenes: int
    concurrency: int
    requests: Band
    gib_read: Band
    gib_written: Band
    peak_gib: Band
    core_hours: Band
    hours: Band
    price: Band | None
    currency: str
    assumptions: tuple[str, ...]
    warnings: tuple[str, ...]
    calibration: Calibration | None = None

    @property
    def table(self) -> pd.DataFrame:
        """``low``, ``expected`` and ``high`` of every quantity."""
        bands = {name: getattr(self, field) for field, name in _NAMES.items()}
        rows = {name: (b.low, b.mid, b.high) for name, b in bands.items() if b is not None}
        return pd.DataFrame.from_dict(rows, orient="index", columns=["low", "expected", "high"])

    @property
    def text(self) -> str:
        """Everything, for people."""
        head = f"{self.tasks} tasks, {self.scenes} scenes, {self.concurrency} tasks at a time"
        unit = f"; price in {self.currency}" if self.price else ""
        table = self.table
        if self.calibration is None:
            table = table.rename(lambda name: f"{name} (uncalibrated)" if name in _TIMED else name)
        figures = table.to_string(float_format="{:,.4g}".format)
        warnings = [f"warning: {text}" for text in self.warnings]
        return "\n".join(
            [head + unit, figures, *warnings, *(f"assumed: {text}" for text in self.assumptions)]
        )


#: Fields of an `Estimate` that are bands, and what tables call them.
_NAMES = {
    "requests": "requests",
    "gib_read": "GiB read",
    "gib_written": "GiB written",
    "peak_gib": "GiB of memory per worker",
    "core_hours": "core-hours",
    "hours": "hours",
    "price": "price",
}
#: Those that follow from the time of a core.
_TIMED = ("core-hours", "hours", "price")


@dataclass(frozen=True)
class Limits:
    """What a provider lets one user do."""

    bytes_per_second: float
    requests_per_minute: float
    bytes_per_month: float


#: By style of `cube.providers`. CDSE's quotas of S3 access for general users, as published: four
#: connections of 20 MB/s, 2,000 requests a minute, 12 TB in 30 days.
LIMITS = {"cdse": Limits(4 * 20e6, 2000, 12e12)}


def estimate(
    plan: Plan,
    *,
    concurrency: int,
    prices: PriceTable | None = None,
    observed: Calibration | None = None,
) -> Estimate:
    """Estimate what building a plan takes; reads nothing and computes no pixel.

    Parameters
    ----------
    plan : Plan
        What will be built.
    concurrency : int
        Tasks that run at a time, each on a core of its own.
    prices : PriceTable, optional
        For the price.
    observed : Calibration, optional
        From `calibrate`: what was measured takes the place of what is assumed.

    Returns
    -------
    Estimate

    Raises
    ------
    PlanError
        If `concurrency` is not positive.
    """
    if concurrency < 1:
        raise PlanError(f"concurrency {concurrency}: at least one task has to run at a time")
    assumed = Assumptions()
    loads, peaks = [], []
    for grid in plan.grids:
        headers = header_reads(grid, concurrency)
        loads += [load(grid, tile, assumed, headers) for tile in grid.tiles]
        largest = max(grid.tiles, key=lambda tile: tile.window.height * tile.window.width)
        peaks.append(peak_bytes(grid, largest, assumed))
    peak = max(peaks, key=lambda one: one.mid)
    if observed is not None:
        loads = [observed.apply(part) for part in loads]
        peak = observed.peak * peak.mid
    total, limits = reduce(add, loads), _limits(plan)
    core_hours, peak_gib = total.core_seconds * (1 / 3600), peak * (1 / GIB)
    gib_read, gib_written = total.read * (1 / GIB), total.written * (1 / GIB)
    return Estimate(
        tasks=plan.n_tiles,
        scenes=sum(len(grid.scenes) for grid in plan.grids),
        concurrency=concurrency,
        requests=total.requests,
        gib_read=gib_read,
        gib_written=gib_written,
        peak_gib=peak_gib,
        core_hours=core_hours,
        hours=_hours(loads, total, concurrency, limits),
        price=(
            prices.cost(core_hours, peak_gib, total.requests, gib_read, gib_written)
            if prices
            else None
        ),
        currency=prices.currency if prices else "",
        assumptions=(
            *(observed or assumed).texts,
            "no request has to be repeated, and every core is busy until the last tasks",
        ),
        warnings=_warnings(plan, total, limits),
        calibration=observed,
    )


def compare(estimated: Estimate, used: Use, prices: PriceTable | None = None) -> pd.DataFrame:
    """Put what was used beside the estimate.

    Parameters
    ----------
    estimated : Estimate
        Made before the run.
    used : Use
        By the run's tasks together.
    prices : PriceTable, optional
        The one that the estimate was made with.

    Returns
    -------
    DataFrame
        Per quantity ``low``, ``expected``, ``high``, ``used`` and ``used/expected``; its first row
        says how many of the tasks were run.
    """
    facts = {
        "tasks": float(used.tasks),
        "requests": float(used.requests),
        "GiB read": used.bytes_read / GIB,
        "GiB written": used.bytes_written / GIB,
        "GiB of memory per worker": used.peak_bytes / GIB,
        "core-hours": used.core_seconds / 3600,
        "hours": used.hours,
    }
    if prices is not None:
        facts["price"] = prices.cost_of(used)
    tasks = pd.DataFrame(float(estimated.tasks), ["tasks"], estimated.table.columns)
    table = pd.concat([tasks, estimated.table])
    table["used"] = pd.Series(facts)
    table["used/expected"] = table["used"] / table["expected"]
    return table


def _hours(loads: list[Load], total: Load, concurrency: int, limits: Limits | None) -> Band:
    at_once = min(concurrency, len(loads))
    longest = max(part.core_seconds.high for part in loads)
    even = total.core_seconds * (1 / at_once)
    # Graham (1969): tasks taken in any order end at most one longest task after the even share.
    seconds = Band(even.low, even.mid, even.high + longest * (1 - 1 / at_once))
    if limits is not None:
        seconds = seconds.no_less_than(total.read * (1 / limits.bytes_per_second))
        seconds = seconds.no_less_than(total.requests * (60 / limits.requests_per_minute))
    return seconds * (1 / 3600)


def _limits(plan: Plan) -> Limits | None:
    # All scenes of a plan come from one search, that is one provider.
    return LIMITS.get(plan.grids[0].scenes[0].provider.partition("@")[0])


def _warnings(plan: Plan, total: Load, limits: Limits | None) -> tuple[str, ...]:
    texts = []
    if limits is not None and total.read.high > limits.bytes_per_month:
        texts.append(
            f"up to {total.read.high / 1e12:.1f} TB to read, likely {total.read.mid / 1e12:.1f}; "
            f"the provider gives a user {limits.bytes_per_month / 1e12:.0f} TB in 30 days"
        )
    hrefs = (href for g in plan.grids for scene in g.scenes for href in scene.hrefs.values())
    if any(href.lower().endswith(".jp2") for href in hrefs):
        texts.append("files are JPEG 2000, the assumptions are those of COGs: calibrate")
    return tuple(texts)
