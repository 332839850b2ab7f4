"""What a build counted, summed over the tiles of a plan."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from cube.markers import tile_name
from cube.objects import Place
from cube.planning import Plan
from cube.store import looks, tallies
from cube.tally import Tally


@dataclass(frozen=True)
class Counts:
    """Sums over tiles and granules.

    Attributes
    ----------
    masked : Series of float
        Per time of the cube (index, text), the share of looks that the mask took; NaN where
        nothing was seen.
    underflow : dict of str to int
        Item id → DN taken as no data because they are traces of an unsigned subtraction.
    missing : list of str
        Failed reads that `max_missing` allowed.
    """

    masked: pd.Series
    underflow: dict[str, int]
    missing: list[str]

    @property
    def notes(self) -> list[str]:
        """One line per thing that somebody should know."""
        missing = [f"not read: {what}" for what in self.missing]
        beyond = "DN above 60 000, taken as no data"
        return missing + [f"{item}: {count} {beyond}" for item, count in self.underflow.items()]

    def text(self) -> str:
        """Return the shares as a table."""
        return "\n".join(
            f"{time}  {'nothing seen' if pd.isna(share) else format(share, '.0%')}"
            for time, share in self.masked.items()
        )

    def to_dict(self) -> dict[str, Any]:
        """Return everything as JSON takes it."""
        masked = self.masked.round(4).astype(object).replace(np.nan, None)
        return {
            "masked": masked.to_dict(),
            "underflow": self.underflow,
            "missing": self.missing,
        }


def counted(plan: Plan, store: Place) -> Counts:
    """Sum what the build of a plan's tiles counted; the store holds all of them."""
    period = f"{plan.recipe.start}_{plan.recipe.end}"
    of_tile = {one.tile: one.counts for one in tallies(store) if one.period == period}
    missing = set()
    underflow: Counter[str] = Counter()
    for grid in plan.grids:
        total = Tally.total(of_tile[tile_name(grid, tile)] for tile in grid.tiles)
        underflow.update(total.underflow)
        missing.update(total.missing)
    times = {time for grid in plan.grids for time in grid.times}
    by_time = looks(store).loc[sorted(times)]
    form = "%Y-%m-%dT%H:%M:%S" if plan.recipe.composite == "series" else "%Y-%m-%d"
    by_time.index = pd.DatetimeIndex(by_time.index).strftime(form)
    return Counts(
        masked=1 - by_time["clear"] / by_time["seen"],
        underflow=dict(sorted(underflow.items())),
        missing=sorted(missing),
    )
