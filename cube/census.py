"""Completeness: how many passes of the satellites a granule had, and how many of them were found.

Catalogues lack scenes, and say nothing about it. But each satellite repeats its ground track every
10 days (ESA, Sentinel-2 mission: 143 orbits), to the second. So one pass found over a granule tells
when the satellite passed before and after, and what is missing.

What this cannot know: an orbit of which nothing at all was found in the period; whether the
instrument was switched on (ESA's plan leaves out oceans, and in early years much land outside
Europe); whether a pass that only grazes a granule was worth a product. Whether files that were
found are there is asked for on request: `unreadable` sends one small request per scene.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import pandas as pd

from cube.duplicates import SAME_PASS
from cube.errors import ReadError
from cube.looks import READS_IN_FLIGHT
from cube.planning import Plan
from cube.read import check_scene
from cube.scenes import Removed, Scene, Scenes

_REPEAT = pd.Timedelta(10, "D")
#: Passes of one ground track come back to the second; those of the next orbit, 100 min later.
_SAME_TRACK = pd.Timedelta(20, "min")


@dataclass(frozen=True)
class _Service:
    """A satellite in one position of its orbit, from a day on until another; UTC."""

    satellite: str
    first: pd.Timestamp
    last: pd.Timestamp


def _service(satellite: str, first: str, last: str = "2100-01-01") -> _Service:
    return _Service(satellite, pd.Timestamp(first), pd.Timestamp(last))


#: ESA: launches of A and B; C in the place of A from 21 January 2025, and A in a new position
#: from 13 March 2025.
_SERVICES = (
    _service("A", "2015-06-23", "2025-01-21"),
    _service("A", "2025-03-13"),
    _service("B", "2017-03-07"),
    _service("C", "2025-01-21"),
)


def unreadable(scenes: Iterable[Scene]) -> list[ReadError]:
    """Read one header of every scene and return why some cannot be read."""

    def fault(scene: Scene) -> ReadError | None:
        try:
            check_scene(scene)
        except ReadError as error:
            return error
        return None

    with ThreadPoolExecutor(READS_IN_FLIGHT) as pool:
        return [error for error in pool.map(fault, scenes) if error is not None]


def census(found: Plan | Scenes, faults: Iterable[ReadError] | None = None) -> pd.DataFrame:
    """Count passes per granule and calendar month.

    Parameters
    ----------
    found : Plan or Scenes
        Of a plan, its granules and the months of its recipe are counted; of scenes, all granules
        and the months from the first to the last scene.
    faults : iterable of ReadError, optional
        From `unreadable`: adds the column ``readable``.

    Returns
    -------
    DataFrame
        Index ``granule``, ``month`` (pandas period). Columns: ``expected``, passes of the ground
        tracks seen in the period; ``found``, passes with an item; ``kept``, passes with a scene;
        ``readable``, those with a scene that can be read; then one column per reason in `Removed`,
        with the number of items.
    """
    if isinstance(found, Plan):
        scenes = [scene for grid in found.grids for scene in grid.scenes]
        months = pd.period_range(found.recipe.start[:7], found.recipe.end[:7], freq="M")
    else:
        scenes = list(found.scenes)
        months = _months_of(scenes)
    items = _items(scenes, found.removed)
    items = items[items["granule"].isin({scene.grid.granule for scene in scenes})]
    items = items[items["month"].isin(months)]
    services = (*_SERVICES, *_own_services(items))
    index = pd.MultiIndex.from_product(
        [sorted(items["granule"].unique()), months], names=["granule", "month"]
    )
    table = pd.DataFrame(index=index)
    place = ["granule", "month"]
    table["expected"] = _expected(items, months, services)
    table["found"] = items.groupby(place)["pass"].nunique()
    table["kept"] = items[items["kept"]].groupby(place)["pass"].nunique()
    if faults is not None:
        good = items[items["kept"] & ~items["id"].isin({fault.item for fault in faults})]
        table["readable"] = good.groupby(place)["pass"].nunique()
    reasons = items[items["reason"] != ""].groupby([*place, "reason"]).size().unstack("reason")
    return table.join(reasons).fillna(0).astype(int)


def census_text(table: pd.DataFrame) -> str:
    """Return a census as a table of granules and months: passes (readable /) found / expected."""
    columns = [name for name in ("readable", "found", "expected") if name in table]
    cells = table[columns].astype(str).agg("/".join, axis=1)
    return cells.unstack("month").rename_axis(index=None, columns=None).to_string()


def _months_of(scenes: Iterable[Scene]) -> pd.PeriodIndex:
    times = pd.to_datetime([scene.datetime for scene in scenes], utc=True, format="ISO8601")
    months = times.tz_localize(None).to_period("M")
    return pd.period_range(min(months), max(months), freq="M")


def _items(scenes: Iterable[Scene], removed: Iterable[Removed]) -> pd.DataFrame:
    """Return one row per item whose place and time are known, with the number of its pass."""
    rows = [
        (scene.id, scene.grid.granule, scene.satellite, scene.datetime, True, "")
        for scene in scenes
    ]
    rows += [
        (item.id, item.granule, item.satellite, item.datetime, False, item.reason)
        for item in removed
        if item.granule and item.datetime
    ]
    items = pd.DataFrame(rows, columns=["id", "granule", "satellite", "time", "kept", "reason"])
    times = pd.to_datetime(items["time"], utc=True, format="ISO8601")
    items["time"] = times.dt.tz_localize(None)
    items = items.sort_values(["granule", "time"], kind="stable", ignore_index=True)
    new = items["granule"].ne(items["granule"].shift()) | items["time"].diff().gt(SAME_PASS)
    items["pass"] = new.cumsum()
    first = items.groupby("pass")["time"].transform("min")
    items["month"] = first.dt.to_period("M")
    return items


def _own_services(items: pd.DataFrame) -> list[_Service]:
    """Return, for satellites that are not known here, from when to when they were seen."""
    known = {service.satellite for service in _SERVICES}
    return [
        _Service(str(satellite), times.min(), times.max() + SAME_PASS)
        for satellite, times in items.groupby("satellite")["time"]
        if satellite not in known
    ]


def _expected(
    items: pd.DataFrame, months: pd.PeriodIndex, services: Iterable[_Service]
) -> pd.Series:
    """Return the passes of all tracks per granule and month."""
    start, end = months[0].start_time, (months[-1] + 1).start_time
    counts: Counter[tuple[str, pd.Period]] = Counter()
    for granule, of_granule in items.groupby("granule"):
        for service in services:
            mine = of_granule["satellite"].eq(service.satellite)
            mine &= of_granule["time"].between(service.first, service.last, inclusive="left")
            first, last = max(start, service.first), min(end, service.last)
            for track in _tracks(of_granule.loc[mine, "time"]):
                due = first + (track - first) % _REPEAT
                passes = pd.date_range(due, last, freq=_REPEAT, inclusive="left")
                counts.update((str(granule), month) for month in passes.to_period("M"))
    return pd.Series(counts, dtype=float)


def _tracks(times: pd.Series) -> list[pd.Timestamp]:
    """Return one pass of each ground track among the passes of a satellite over a granule."""
    if times.empty:
        return []
    phase = (times - times.min()) % _REPEAT
    order = np.argsort(phase.to_numpy())
    times, phase = times.iloc[order], phase.iloc[order]
    new = phase.diff().gt(_SAME_TRACK).to_numpy()
    # Phases are a circle: the last may be the first again.
    new[0] = phase.iloc[0] + _REPEAT - phase.iloc[-1] > _SAME_TRACK or not new.any()
    return list(times[new])
