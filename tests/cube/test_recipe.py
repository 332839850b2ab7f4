"""The recipe: what it accepts, what it says when it does not, and its identity."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cube.errors import RecipeError
from cube.recipe import Mask, Recipe

BANDS = ("blue", "green", "red", "nir")


def recipe(**fields) -> Recipe:
    return Recipe(**({"bands": BANDS, "start": "2023-01", "end": "2023-12"} | fields))


def test_hashes_do_not_change_by_accident():
    """Stores, plans and models are known by these: whoever changes them makes all of them void."""
    default = recipe()
    assert (default.hash, default.method_hash) == ("c0e6442b6071b68c", "ce929b811b150b79")
    rich = recipe(
        period="dekad",
        composite="percentile",
        percentile=25,
        mask=Mask(keep=(4, 5), erode=40, dilate=160),
        fill="linear",
    )
    assert (rich.hash, rich.method_hash) == ("a68a98ebf4691318", "942454f681cd0029")


def test_the_hash_knows_every_field():
    others = [
        recipe(bands=BANDS[::-1]),
        recipe(start="2023-02"),
        recipe(end="2023-11"),
        recipe(period="dekad"),
        recipe(composite="mean"),
        recipe(composite="percentile", percentile=10),
        recipe(composite="percentile", percentile=90),
        recipe(mask=Mask(keep=(4,))),
        recipe(mask=Mask(dilate=20)),
        recipe(mask=Mask(erode=20, dilate=20)),
        recipe(mask=Mask(custom="mine")),
        recipe(fill="none"),
    ]
    assert len({one.hash for one in [recipe(), *others]}) == len(others) + 1
    assert len({one.method_hash for one in [recipe(), *others]}) == len(others) + 1


def test_two_spellings_are_one_recipe():
    assert recipe(start="2023-01-01", end="2023-12-31", period="1MS") == recipe()
    assert recipe(mask={"keep": [7, 6, 5, 4, 4]}) == recipe()


def test_a_recipe_survives_its_json():
    made = recipe(period="16D", end="2023-12-18", mask=Mask(custom="mine", dilate=60))
    again = Recipe.model_validate_json(made.model_dump_json())
    assert (again, again.hash) == (made, made.hash)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"bands": ("bleu",)}, "unknown band 'bleu'; did you mean 'blue'?"),
        ({"bands": ()}, "at least one band"),
        ({"bands": ("red", "red")}, "a band stands twice"),
        ({"start": "2023-01-28"}, "^recipe: no whole month starts on 2023-01-28"),
        ({"period": "ME"}, "^recipe, period: 'ME' does not name the first days"),
        ({"composite": "modal"}, "^recipe, composite: .*'medoid'"),
        ({"composite": "percentile"}, "needs percentile=1…99, got None"),
        ({"composite": "percentile", "percentile": 100}, "needs percentile=1…99, got 100"),
        ({"percentile": 50}, "goes with composite='percentile', not median"),
        ({"composite": "max-ndvi", "bands": ("red", "blue")}, "needs red and nir among"),
        ({"composite": "series"}, "never filled; add fill='none'"),
        (
            {"composite": "series", "fill": "none", "period": "dekad"},
            "leave out `period`",
        ),
        ({"mask": {"keep": [12]}}, "^recipe, mask.keep: SCL classes go from 1 to 11"),
        ({"mask": {"keep": []}}, "SCL classes go from 1 to 11"),
        ({"mask": {"dilate": 10}}, "10 m is neither 0 nor from 20 to 2000 m"),
        ({"mask": {"dilate": -20}}, "-20 m is neither"),
        ({"mask": {"erode": 60, "dilate": 40}}, "would uncover the edges of clouds"),
        ({"mask": {"keep": [4], "custom": "mine"}}, "'mine' decides instead of `keep`"),
        ({"keep": (4, 5)}, "^recipe, keep: Extra inputs are not permitted"),
    ],
)
def test_mistakes_are_one_sentence(fields, message):
    with pytest.raises(RecipeError, match=message):
        recipe(**fields)


def test_the_search_asks_for_every_second_of_the_periods():
    assert recipe().datetime == ("2023-01-01T00:00:00Z", "2023-12-31T23:59:59Z")
    leap = recipe(start="2024-02-11", end="2024-02", period="dekad")
    assert leap.datetime == ("2024-02-11T00:00:00Z", "2024-02-29T23:59:59Z")
    assert leap.stop == pd.Timestamp("2024-03-01")


@given(
    st.sampled_from(["month", "dekad", "QS", "16D", "W-SUN"]),
    st.lists(st.datetimes(pd.Timestamp("2022-12-01"), pd.Timestamp("2024-02-01")), max_size=20),
)
def test_an_instant_falls_in_the_period_that_holds_it(period, instants):
    end = {"16D": "2023-12-18", "W-SUN": "2023-12-30"}.get(period, "2023-12")
    made = recipe(period=period, end=end)
    edges = [*made.periods, made.stop]
    expected = [
        next((n for n in range(len(edges) - 1) if edges[n] <= stamp < edges[n + 1]), -1)
        for stamp in instants
    ]
    stamps = pd.DatetimeIndex(instants)
    assert made.period_of(stamps).tolist() == expected
    assert made.period_of(stamps.tz_localize("UTC")).tolist() == expected
    # The same instants told in another time zone.
    assert made.period_of(stamps.tz_localize("UTC").tz_convert("Asia/Tokyo")).tolist() == expected


@pytest.mark.parametrize(
    ("period", "start", "end", "moved"),
    [
        ("month", "2023-08", "2024-07", ("2025-08", "2026-07")),
        ("dekad", "2023-02", "2023-02", ("2025-02", "2025-02")),
        ("dekad", "2024-02-21", "2024-03-10", ("2025-02-21", "2025-03-10")),
        ("QS", "2023-04", "2024-03", ("2025-04", "2026-03")),
        ("2MS", "2023-02", "2023-07", ("2025-02", "2025-07")),
        # First Monday of April to the day before the fifth week.
        ("W-MON", "2023-04-03", "2023-04-30", ("2025-04-07", "2025-05-04")),
        # As many days in a leap year and another.
        ("16D", "2024-02-20", "2024-03-22", ("2025-02-20", "2025-03-23")),
    ],
)
def test_another_year_is_the_same_method(period, start, end, moved):
    made = recipe(period=period, start=start, end=end)
    other = made.for_year(2025)
    assert (other.start, other.end) == moved
    assert len(other.periods) == len(made.periods)
    assert other.method_hash == made.method_hash
    assert other.hash != made.hash
    assert other.for_year(made.periods[0].year) == made
    assert Recipe(**other.model_dump()) == other  # it would pass its own checks


def test_another_season_is_another_method():
    hashes = [
        recipe(start=start, end=end).method_hash
        for start, end in (("2023-01", "2023-06"), ("2023-02", "2023-07"), ("2023-01", "2023-07"))
    ]
    assert len(set(hashes)) == 3


def test_a_year_without_that_day_is_refused():
    with pytest.raises(RecipeError, match="recipe for 2023: February 2023 has 28 first days"):
        recipe(period="D", start="2024-02-29", end="2024-03-05").for_year(2023)


def test_margin_is_what_the_mask_reaches():
    assert recipe().margin == 0
    assert recipe(mask=Mask(erode=40, dilate=170)).margin == 2 + 8
