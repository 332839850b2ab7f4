"""What a run used, what that costs, and when to stop."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from cube.errors import BudgetError
from cube.yamlfile import read_yaml
from deploy.jobs.bands import Band, exactly

GIB = 2.0**30


@dataclass(frozen=True)
class Use:
    """What one task, or a whole run, used.

    Attributes
    ----------
    tasks, requests : int
        Requests are those for ranges of files, repeated ones included.
    bytes_read, bytes_written : int
    peak_bytes : int
        Largest memory of one worker.
    core_seconds : float
        Seconds that cores were held: a task's wall time × cores it had to itself.
    hours : float
        From start to end.
    """

    tasks: int
    requests: int
    bytes_read: int
    bytes_written: int
    peak_bytes: int
    core_seconds: float
    hours: float


class PriceTable(BaseModel):
    """What things cost, from a user's file; anything left out is free.

    Attributes
    ----------
    currency : str
        Shown beside sums.
    core_hour, memory_gib_hour : float
        One core, and one GiB of a worker's memory, for an hour.
    thousand_requests, gib_read, gib_written : float
        Requests and traffic; add what the first months of storage cost to `gib_written`.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    currency: str = Field(min_length=1, max_length=12)
    core_hour: float = Field(0.0, ge=0)
    memory_gib_hour: float = Field(0.0, ge=0)
    thousand_requests: float = Field(0.0, ge=0)
    gib_read: float = Field(0.0, ge=0)
    gib_written: float = Field(0.0, ge=0)

    def cost(
        self, core_hours: Band, peak_gib: Band, requests: Band, gib_read: Band, gib_written: Band
    ) -> Band:
        """Return the sum; each core is that of a worker whose peak memory is paid for."""
        return (
            core_hours * self.core_hour
            + core_hours * peak_gib * self.memory_gib_hour
            + requests * (self.thousand_requests / 1000)
            + gib_read * self.gib_read
            + gib_written * self.gib_written
        )

    def cost_of(self, use: Use) -> float:
        """Return what a run cost."""
        return self.cost(
            exactly(use.core_seconds / 3600),
            exactly(use.peak_bytes / GIB),
            exactly(use.requests),
            exactly(use.bytes_read / GIB),
            exactly(use.bytes_written / GIB),
        ).mid


def read_prices(path: str | Path) -> PriceTable:
    """Read a price table from YAML.

    Raises
    ------
    BudgetError
        If the file is no such table; the message names the line.
    """
    return read_yaml(path, PriceTable, BudgetError)


def check_budget(price: Band | float | None, budget: float, currency: str = "") -> None:
    """Stop what may cost more than the budget.

    Parameters
    ----------
    price : Band or float or None
        Of an estimate, whose high end counts, or what was spent so far.
    budget : float
        The most that may be spent.
    currency : str
        For the message.

    Raises
    ------
    BudgetError
        If the price may exceed the budget, or is not known.
    """
    if price is None:
        raise BudgetError("a budget without prices cannot be kept; give a price table")
    unit = f" {currency}" if currency else ""
    if isinstance(price, float | int):
        if price > budget:
            raise BudgetError(
                f"{price:,.2f}{unit} are spent, the budget is {budget:,.2f}{unit}; the job stops. "
                "Finished tasks stay: raise the budget and run it again"
            )
    elif price.high > budget:
        raise BudgetError(
            f"the job may cost {price.high:,.2f}{unit} (likely {price.mid:,.2f}), the budget is "
            f"{budget:,.2f}{unit}; raise it, map less, or calibrate: measured tasks narrow the "
            "estimate"
        )
