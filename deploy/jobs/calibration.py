"""A few tasks measured first, so that an estimate rests on this plan's files and this machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from cube.errors import PlanError
from cube.planning import GridPlan, Plan, Tile
from deploy.jobs.bands import Band, exactly
from deploy.jobs.prices import Use
from deploy.jobs.workload import Assumptions, Load, load, peak_bytes


@dataclass(frozen=True)
class MeasuredTask:
    """One tile that was built to see what it takes."""

    granule: str
    row: int
    col: int
    use: Use


@dataclass(frozen=True)
class Calibration:
    """Measured over estimated: `mid` of all tasks together, `low` and `high` of single ones."""

    tasks: int
    requests: Band
    read: Band
    written: Band
    peak: Band
    core_seconds: Band

    def apply(self, estimated: Load) -> Load:
        """Return a load with the spread that was measured, not the one that was assumed."""
        return Load(
            requests=self.requests * estimated.requests.mid,
            read=self.read * estimated.read.mid,
            written=self.written * estimated.written.mid,
            core_seconds=self.core_seconds * estimated.core_seconds.mid,
        )

    @property
    def texts(self) -> tuple[str, ...]:
        """What was measured, one sentence each."""
        ratios = {
            "requests": self.requests,
            "bytes read": self.read,
            "bytes written": self.written,
            "memory": self.peak,
            "core time": self.core_seconds,
        }
        ours = ", ".join(f"{name} {ratio}" for name, ratio in ratios.items())
        return (f"measured over assumed, {self.tasks} tasks and the span of single ones: {ours}",)


def calibration_tiles(plan: Plan, count: int = 3) -> list[tuple[GridPlan, Tile]]:
    """Choose tiles to measure, spread evenly over the plan's work; the same ones each time."""
    tiles = [(grid, tile) for grid in plan.grids for tile in grid.tiles]
    work = [len(grid.scenes) * tile.window.height * tile.window.width for grid, tile in tiles]
    reached = np.cumsum(work) / sum(work)
    places = np.searchsorted(reached, (np.arange(count) + 0.5) / count)
    return [tiles[place] for place in dict.fromkeys(places.tolist())]


def calibrate(plan: Plan, measured: Sequence[MeasuredTask]) -> Calibration:
    """Compare measured tasks with their estimates.

    Parameters
    ----------
    plan : Plan
        What they are tasks of.
    measured : sequence of MeasuredTask
        In the order in which they ran in one process that had read nothing before: the headers of
        a granule's files are read by its first task only.

    Returns
    -------
    Calibration

    Raises
    ------
    PlanError
        If nothing was measured, or a task is not one of the plan's.
    """
    if not measured:
        raise PlanError("nothing was measured; run at least one task of the plan")
    tiles = {
        (grid.grid.granule, tile.row, tile.col): (grid, tile)
        for grid in plan.grids
        for tile in grid.tiles
    }
    uses, loads, peaks = [], [], []
    begun: set[str] = set()
    for task in measured:
        place = (task.granule, task.row, task.col)
        if place not in tiles:
            raise PlanError(
                f"tile {task.granule}-{task.row}-{task.col} was measured but is not in the plan; "
                "calibrate with tasks of this plan"
            )
        headers = exactly(float(task.granule not in begun))
        begun.add(task.granule)
        uses.append(task.use)
        loads.append(load(*tiles[place], Assumptions(), headers))
        peaks.append(peak_bytes(*tiles[place], Assumptions()))
    return Calibration(
        tasks=len(measured),
        requests=_ratio([use.requests for use in uses], [part.requests for part in loads]),
        read=_ratio([use.bytes_read for use in uses], [part.read for part in loads]),
        written=_ratio([use.bytes_written for use in uses], [part.written for part in loads]),
        peak=_ratio([use.peak_bytes for use in uses], peaks),
        core_seconds=_ratio(
            [use.core_seconds for use in uses], [part.core_seconds for part in loads]
        ),
    )


def _ratio(found: Sequence[float], expected: Sequence[Band]) -> Band:
    wanted = [band.mid for band in expected]
    single = [one / other for one, other in zip(found, wanted, strict=True)]
    return Band(min(single), sum(found) / sum(wanted), max(single))
