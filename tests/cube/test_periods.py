"""Periods against the calendar, the calendar's own periods of pandas, and counting day by day."""

from __future__ import annotations

from datetime import date

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.periods import after, edges, one_spelling, place_in_year, start_in

DAY = pd.Timedelta(days=1)


def days(*texts: str) -> list[pd.Timestamp]:
    return [pd.Timestamp(text) for text in texts]


@pytest.mark.parametrize(
    ("year", "last"), [("2023", "2023-03-01"), ("2024", "2024-03-01"), ("2100", "2100-03-01")]
)
def test_dekads_of_february_end_with_the_month(year, last):
    found = edges(f"{year}-02", f"{year}-02", "dekad")
    assert list(found) == days(f"{year}-02-01", f"{year}-02-11", f"{year}-02-21", last)
    length = {"2023": 8, "2024": 9, "2100": 8}[year]  # 2100 is no leap year
    assert [gap.days for gap in found[1:] - found[:-1]] == [10, 10, length]


def test_a_year_has_36_dekads_and_one_may_begin_with_any_of_them():
    assert len(edges("2024-01", "2024-12", "dekad")) == 36 + 1
    assert list(edges("2023-12-21", "2024-01-10", "dekad")) == days(
        "2023-12-21", "2024-01-01", "2024-01-11"
    )


@pytest.mark.parametrize(
    ("period", "start", "end", "freq"),
    [
        ("month", "2023-11", "2024-03", "M"),
        ("QS-JAN", "2023-01", "2024-12", "Q-DEC"),
        ("QS-FEB", "2023-02", "2024-01", "Q-JAN"),
        ("YS-JAN", "2020-01", "2024-12", "Y"),
        ("W-MON", "2023-01-02", "2024-12-29", "W-SUN"),
        ("D", "2024-02-27", "2024-03-02", "D"),
    ],
)
def test_edges_are_those_of_pandas_periods(period, start, end, freq):
    spans = pd.period_range(start, end, freq=freq)
    found = edges(start, end, period)
    assert list(found[:-1]) == list(spans.start_time)
    assert list(found[1:] - DAY) == list(spans.end_time.normalize())


def test_several_months_or_days_count_from_the_start():
    assert list(edges("2023-02", "2023-07", "2MS")) == days(
        "2023-02-01", "2023-04-01", "2023-06-01", "2023-08-01"
    )
    # Across 29 February: 16 days are 16 days.
    assert list(edges("2024-02-20", "2024-03-22", "16D")) == days(
        "2024-02-20", "2024-03-07", "2024-03-23"
    )


@pytest.mark.parametrize(
    ("start", "end", "period", "message"),
    [
        ("2023-01-28", "2023-05", "month", "starts on 2023-01-28; .* 2023-01 and 2023-02"),
        ("2023-01", "2023-05-03", "month", "ends on 2023-05-03; .* 2023-04 and 2023-05"),
        ("2023-02", "2023-12", "QS-JAN", "starts on 2023-02-01; .* 2023-01 and 2023-04"),
        ("2023-01", "2023-05", "QS-JAN", "ends on 2023-05-31; .* 2023-03 and 2023-06"),
        ("2023-01", "2023-03", "2MS", "ends on 2023-03-31; .* 2023-02 and 2023-04"),
        ("2023-01", "2023-01", "2MS", "nearest end is 2023-02"),
        ("2023-01", "2023-03", "W-MON", "starts on 2023-01-01; .* 2022-12-26 and 2023-01-02"),
        ("2023-01-02", "2023-03", "W-MON", "ends on 2023-03-31; .* 2023-03-26 and 2023-04-02"),
        ("2023-01", "2023-12", "16D", "ends on 2023-12-31; .* 2023-12-18 and 2024-01-03"),
        ("2023-01-10", "2023-03", "dekad", "starts on 2023-01-10; .* 2023-01 and 2023-01-11"),
        ("2023-01", "2023-03-30", "dekad", "ends on 2023-03-30; .* 2023-03-20 and 2023-03"),
        ("2023-06", "2023-05", "month", "ends .2023-05. before it starts .2023-06."),
        ("2023", "2023-05", "month", "'2023' is not a date; write YYYY-MM"),
        ("2023-13", "2023-05", "month", "'2023-13' is not in the calendar"),
        ("2023-02-29", "2023-05", "D", "'2023-02-29' is not in the calendar"),
    ],
)
def test_partial_periods_are_refused_with_the_nearest_dates(start, end, period, message):
    with pytest.raises(ValueError, match=message):
        edges(start, end, period)


def test_a_period_has_one_spelling():
    spelt = {"MS": "month", "1MS": "month", "W": "W-SUN", "QS": "QS-JAN", "1D": "D", "2W": "2W-SUN"}
    assert {text: one_spelling(text) for text in spelt} == spelt
    for text in ("month", "dekad", "2MS", "W-MON", "16D"):
        assert one_spelling(text) == text


@pytest.mark.parametrize("text", ["ME", "QE", "12h", "24h", "B", "0D", "-1MS", "SMS"])
def test_offsets_that_name_no_first_days_are_refused(text):
    with pytest.raises(ValueError, match=f"'{text}' does not name the first days"):
        one_spelling(text)


@pytest.mark.parametrize("text", ["fortnight", "", "Month", "16"])
def test_unknown_periods_are_refused_with_examples(text):
    with pytest.raises(ValueError, match="2MS, QS, W-MON or 16D"):
        one_spelling(text)


PERIODS = ["month", "dekad", "2MS", "QS-JAN", "YS-APR", "W-MON", "2W-WED", "16D", "D"]
somewhere = st.dates(date(2015, 6, 23), date(2040, 1, 1))


@given(st.sampled_from(PERIODS), st.integers(2015, 2040), st.integers(1, 40))
def test_whole_periods_tile_the_time_without_gap_or_overlap(period, year, count):
    start = start_in(year, (4, 0), period)  # every kind can begin in April
    stop = after(start, count, period)
    found = edges(f"{start:%Y-%m-%d}", f"{stop - DAY:%Y-%m-%d}", period)
    assert (found[0], found[-1], len(found)) == (start, stop, count + 1)
    assert found.is_monotonic_increasing
    assert found.is_unique


@given(somewhere, st.integers(2015, 2040))
def test_weeks_keep_weekday_month_and_place_in_another_year(day, year):
    monday = pd.Timestamp(day) - pd.Timedelta(days=day.weekday())
    place = place_in_year(monday, "W-MON")
    assert place == (monday.month, (monday.day - 1) // 7)
    if place[1] < 4:  # every month has four Mondays
        moved = start_in(year, place, "W-MON")
        assert (moved.year, moved.month, moved.weekday()) == (year, monday.month, 0)
        assert (moved.day - 1) // 7 == (monday.day - 1) // 7


def test_a_day_that_a_year_does_not_have_is_refused():
    with pytest.raises(ValueError, match="February 2023 has 28 first days of a D, not 29"):
        start_in(2023, place_in_year(pd.Timestamp("2024-02-29"), "D"), "D")
    fifth = place_in_year(pd.Timestamp("2023-01-30"), "W-MON")
    with pytest.raises(ValueError, match="January 2025 has 4 first days of a W-MON, not 5"):
        start_in(2025, fifth, "W-MON")
