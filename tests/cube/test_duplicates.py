"""Reprocessed products, and passes that come in parts."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from cube.duplicates import drop_duplicates
from cube.items import Acquisition, read_item, sighting
from cube.offset import Facts
from cube.providers import PROVIDERS
from cube.scenes import Removed
from tests.cube.stac_items import earth_search

FOUR = ("blue", "green", "red", "nir")
V1 = PROVIDERS["earth-search"]


@cache
def _read(**kind: object) -> Acquisition:
    return read_item(earth_search(**kind), V1, FOUR)


def _at(name: str, time: str, baseline: str = "02.08", **facts: str) -> Acquisition:
    """An item that states nothing but its time and baseline, unless told otherwise."""
    values = {"datatake": "", "strip": "", "product": "", "generated": ""} | facts
    return replace(
        _read(),
        id=name,
        datetime=f"2018-08-26T{time}Z",
        acquisition=f"S2A_{facts.get('datatake', '20180826T' + time[:8].replace(':', ''))}",
        facts=Facts(baseline, 0.0, False),
        **values,
    )


def test_the_higher_baseline_is_kept() -> None:
    old = _read(sequence=0, baseline="02.14")
    new = _read(sequence=1, baseline="05.00", flag=True, offset=-0.1)
    for order in ([old, new], [new, old]):
        kept, removed = drop_duplicates(order)
        assert [found.id for found in kept] == ["S2A_31TEJ_20180826_1_L2A"]
        assert [(item.id, item.reason, item.kept) for item in removed] == [
            ("S2A_31TEJ_20180826_0_L2A", "duplicate", "S2A_31TEJ_20180826_1_L2A")
        ]
        assert "02.14" in removed[0].detail
        assert "05.00" in removed[0].detail
        assert (removed[0].granule, removed[0].datetime[:10]) == ("31TEJ", "2018-08-26")


def test_a_later_generation_of_the_same_strip_is_kept() -> None:
    first = _read(sequence=0, generated="20180826T150000")
    second = _read(sequence=1, generated="20180901T150000")
    kept, removed = drop_duplicates([second, first])
    assert [found.id for found in kept] == [second.id]
    assert removed[0].kept == second.id


def test_an_id_that_is_listed_twice_is_one_scene() -> None:
    old, new = _read(baseline="02.08"), _read(baseline="02.14")
    for order in ([old, new], [new, old], [new, new, old]):
        kept, removed = drop_duplicates(order)
        assert [found.facts.baseline for found in kept] == ["02.14"]
        assert {(item.id, item.reason, item.kept) for item in removed} == {
            (new.id, "duplicate", new.id)
        }


def test_two_datastrips_of_a_pass_are_two_parts_of_one_observation() -> None:
    north = _read(sequence=0, strip="20180826T104501")
    south = _read(sequence=1, strip="20180826T104533", generated="20180901T150000")
    for order in ([north, south], [south, north]):
        kept, removed = drop_duplicates(order)
        assert [found.id for found in kept] == [north.id, south.id]
        assert {found.acquisition for found in kept} == {"S2A_20180826T104021"}
        assert [(item.id, item.reason, item.kept) for item in removed] == [
            (south.id, "part", north.id)
        ]


def test_parts_stand_together_when_another_pass_lies_between_their_times() -> None:
    one, two = _read(sequence=0), _read(sequence=1, strip="20180826T104533")
    late = replace(two, datetime="2018-08-26T10:43:50.000000Z")
    between = replace(_read(satellite="B"), datetime="2018-08-26T10:43:40.000000Z")
    kept, _ = drop_duplicates([late, between, one])
    assert [found.id for found in kept] == [one.id, late.id, between.id]


def test_both_parts_of_a_reprocessed_pass_replace_both_old_parts() -> None:
    parts = {"a": "20180826T104501", "b": "20180826T104533"}
    old = [_read(sequence=i, strip=strip) for i, strip in enumerate(parts.values())]
    new = [
        _read(sequence=i + 2, strip=strip, baseline="05.00", flag=True, offset=-0.1)
        for i, strip in enumerate(parts.values())
    ]
    kept, removed = drop_duplicates([*old, *new])
    assert [found.id for found in kept] == [found.id for found in new]
    assert {item.id: item.kept for item in removed if item.reason == "duplicate"} == {
        left.id: right.id for left, right in zip(old, new, strict=True)
    }
    assert [item.id for item in removed if item.reason == "part"] == [new[1].id]


def test_other_satellites_granules_and_days_are_other_passes() -> None:
    everything = [
        _read(),
        _read(satellite="B"),
        _read(tile="31TDJ", corner=(399_960, 4_900_020)),
        _read(day="20180827"),
    ]
    kept, removed = drop_duplicates(everything)
    assert len(kept) == 4
    assert removed == []
    assert len({(found.grid.granule, found.acquisition) for found in kept}) == 4


def test_without_datatakes_a_minute_decides() -> None:
    near = [_at("a", "10:43:59.999"), _at("b", "10:44:00.001", "02.09")]  # across a full minute
    assert [found.id for found in drop_duplicates(near)[0]] == ["b"]
    far = [_at("a", "10:43:59"), _at("b", "12:24:00", "02.09")]  # the next orbit
    assert [found.id for found in drop_duplicates(far)[0]] == ["a", "b"]


def test_parts_without_datatakes_share_a_name_and_a_stated_datatake_wins() -> None:
    bare = [_at("b", "10:43:40", product="q"), _at("a", "10:43:59", product="p")]
    kept, removed = drop_duplicates(bare)
    assert [found.id for found in kept] == ["a", "b"]
    assert {found.acquisition for found in kept} == {"S2A_20180826T104340"}
    assert [(item.id, item.kept) for item in removed] == [("b", "a")]
    stated = _at("c", "10:43:50", product="r", datatake="20180826T104021")
    kept, _ = drop_duplicates([*bare, stated])
    assert {found.acquisition for found in kept} == {"S2A_20180826T104021"}


items = st.builds(
    _read,
    sequence=st.integers(0, 2),
    day=st.sampled_from(["20180826", "20180827"]),
    satellite=st.sampled_from("AB"),
    baseline=st.sampled_from(["02.08", "02.14"]),
    strip=st.sampled_from(["20180826T104501", "20180826T104533"]),
    generated=st.sampled_from(["20180826T150000", "20190101T000000"]),
)


@given(
    st.lists(items, max_size=8).flatmap(
        lambda some: st.tuples(st.just(some), st.permutations(some))
    )
)
def test_the_order_of_items_does_not_matter(orders) -> None:
    given_order, other_order = orders
    kept, removed = drop_duplicates(given_order)
    again, removed_again = drop_duplicates(other_order)
    assert again == kept
    assert removed_again == removed
    duplicates = [item for item in removed if item.reason == "duplicate"]
    assert len(kept) + len(duplicates) == len(given_order)
    # One scene per pass and strip at most, and none of a lower baseline than a removed one.
    assert len({(found.acquisition, found.strip) for found in kept}) == len(kept)
    assert {found.id for found in kept} | {item.id for item in duplicates} == {
        found.id for found in given_order
    }


def test_a_refused_item_is_recorded_as_far_as_it_can_be_placed() -> None:
    item = earth_search()
    stated = {"granule": "31TEJ", "datetime": "2018-08-26T10:43:29.027000Z", "satellite": "A"}
    assert sighting(item) == stated
    item["properties"]["datetime"] = "NaT"
    assert sighting(item) == stated | {"datetime": ""}
    item["properties"]["grid:code"] = "MGRS-31TDJ"
    assert sighting(item) == stated | {"granule": "", "datetime": ""}
    nothing = {"granule": "", "datetime": "", "satellite": ""}
    assert sighting({"properties": None}) == nothing
    assert sighting({"properties": {}}) == nothing
    assert Removed(id="x", reason="refused", detail="", **nothing).granule == ""
