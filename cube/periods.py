"""Periods: how a recipe cuts time into whole months, dekads, weeks, quarters or days.

A period is written as the field writes it: ``month``; ``dekad`` (days 1 to 10, 11 to 20, and 21 to
the end of the month); or an offset of pandas that names first days: ``2MS``, ``QS``, ``W-MON``
(weeks from Monday to Sunday), ``16D``.
"""

from __future__ import annotations

import re
from functools import cache

import pandas as pd
from pandas.tseries import offsets
from pandas.tseries.frequencies import to_offset

DAY = pd.Timedelta(days=1)
_DATE = re.compile(r"\d{4}-\d{2}(-\d{2})?")
#: Offsets that land on the first day of something. Those of last days (``ME``) would cut a month
#: into its last day and the rest.
_FIRST_DAYS = (
    offsets.Day,
    offsets.Week,
    offsets.MonthBegin,
    offsets.QuarterBegin,
    offsets.YearBegin,
)


def one_spelling(period: str) -> str:
    """Return the one way to write a period, so that equal recipes have equal hashes.

    Raises
    ------
    ValueError
        If it is unknown or does not name first days.
    """
    if period in ("month", "dekad"):
        return period
    remedy = "write month, dekad, or a pandas offset of first days such as 2MS, QS, W-MON or 16D"
    try:
        offset = to_offset(period)
    except ValueError as error:
        raise ValueError(f"unknown period '{period}'; {remedy}") from error
    if not isinstance(offset, _FIRST_DAYS) or offset.n < 1:
        raise ValueError(f"'{period}' does not name the first days of periods; {remedy}")
    return "month" if offset.freqstr == "MS" else str(offset.freqstr)


def first_day(text: str) -> pd.Timestamp:
    """Return the day that ``YYYY-MM`` or ``YYYY-MM-DD`` begins with.

    Raises
    ------
    ValueError
        If it is no such date.
    """
    if not _DATE.fullmatch(text):
        raise ValueError(f"'{text}' is not a date; write YYYY-MM or YYYY-MM-DD")
    try:
        return pd.Timestamp(text)
    except ValueError as error:
        raise ValueError(f"'{text}' is not in the calendar; write YYYY-MM or YYYY-MM-DD") from error


def last_day(text: str) -> pd.Timestamp:
    """Return the day that ``YYYY-MM`` or ``YYYY-MM-DD`` ends with; raises like `first_day`."""
    day = first_day(text)
    return day if len(text) > len("YYYY-MM") else day + pd.offsets.MonthEnd(1)


def spell_start(day: pd.Timestamp) -> str:
    """Return ``YYYY-MM`` for the first day of a month, else ``YYYY-MM-DD``."""
    return f"{day:%Y-%m}" if day.is_month_start else f"{day:%Y-%m-%d}"


def spell_end(day: pd.Timestamp) -> str:
    """Return ``YYYY-MM`` for the last day of a month, else ``YYYY-MM-DD``."""
    return f"{day:%Y-%m}" if day.is_month_end else f"{day:%Y-%m-%d}"


@cache
def edges(start: str, end: str, period: str) -> pd.DatetimeIndex:
    """Return the first day of every period and, last, the day after the last period.

    Parameters
    ----------
    start, end : str
        First and last day of all periods, ``YYYY-MM`` or ``YYYY-MM-DD``.
    period : str
        As spelt by `one_spelling`.

    Raises
    ------
    ValueError
        If whole periods do not fill the time from `start` to `end` exactly; names the nearest
        dates that they would fill.
    """
    first, last = first_day(start), last_day(end)
    if last < first:
        raise ValueError(f"the period ends ({end}) before it starts ({start})")
    if first not in _possible(first, first, period):
        around = _possible(first - 400 * DAY, first + 400 * DAY, period)
        near = (around[around < first][-1], around[around > first][0])
        raise ValueError(
            f"no whole {period} starts on {first:%Y-%m-%d}; the nearest starts are "
            f"{spell_start(near[0])} and {spell_start(near[1])}"
        )
    found = _possible(first, last + DAY, period, step=True)
    if found[-1] != last + DAY:
        ends = [after(found[-1], 1, period) - DAY]
        if len(found) > 1:
            ends.insert(0, found[-1] - DAY)
        raise ValueError(
            f"no whole {period} ends on {last:%Y-%m-%d}; from {start} on, the nearest "
            f"{'ends are' if len(ends) > 1 else 'end is'} {' and '.join(map(spell_end, ends))}"
        )
    return found


def after(start: pd.Timestamp, count: int, period: str) -> pd.Timestamp:
    """Return the day after `count` whole periods from `start`, itself the first day of one."""
    if period == "dekad":
        return _possible(start, start + 11 * count * DAY, period)[count]
    return pd.date_range(start, periods=count + 1, freq=_offset(period))[-1]


def place_in_year(start: pd.Timestamp, period: str) -> tuple[int, int]:
    """Return the month and which of its possible first days `start` is, from 0.

    Weeks begin on other dates every year; their place, say the second Monday of April, stays.
    """
    return start.month, len(_possible(start.replace(day=1), start, period)) - 1


def start_in(year: int, place: tuple[int, int], period: str) -> pd.Timestamp:
    """Return the first day with that place, as of `place_in_year`, in another year.

    Raises
    ------
    ValueError
        If the year has no such day: 29 February, or a fifth Monday.
    """
    month, nth = place
    first = pd.Timestamp(year=year, month=month, day=1)
    possible = _possible(first, first + pd.offsets.MonthEnd(1), period)
    if nth >= len(possible):
        raise ValueError(
            f"{first:%B %Y} has {len(possible)} first days of a {period}, not {nth + 1}; "
            "give start and end of that year by hand"
        )
    return possible[nth]


def _offset(period: str) -> offsets.BaseOffset:
    return offsets.MonthBegin() if period == "month" else to_offset(period)


def _possible(
    first: pd.Timestamp, last: pd.Timestamp, period: str, *, step: bool = False
) -> pd.DatetimeIndex:
    """Return all days from `first` to `last` on which a period may start.

    With `step`, those that whole periods from `first` on reach: ``2MS`` may start in any month,
    and steps over every other one.
    """
    if period == "dekad":
        months = pd.date_range(first.replace(day=1), last, freq="MS")
        days = pd.DatetimeIndex([month + n * DAY for month in months for n in (0, 10, 20)])
        return days[(days >= first) & (days <= last)]
    offset = _offset(period)
    return pd.date_range(first, last, freq=offset if step else offset.base)
