"""Completeness of catalogues: the orbits are known, so what is missing can be counted."""

from __future__ import annotations

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cube.census import census, census_text, unreadable
from cube.grid import whole_granule
from cube.recipe import Recipe
from cube.scenes import Removed, Scene, Scenes
from cube.search import search
from tests.archive import write_archive

GRANULE = "31TEJ"
GRID = whole_granule(GRANULE)


def scene(when: str | pd.Timestamp, satellite: str = "A", granule: str = GRANULE) -> Scene:
    time = pd.Timestamp(when)
    stamp = f"{time:%Y%m%dT%H%M%S}"
    return Scene(
        id=f"S2{satellite}_{granule}_{stamp}",
        datetime=f"{time.isoformat()}Z",
        satellite=satellite,
        acquisition=f"S2{satellite}_{stamp}",
        grid=GRID.model_copy(update={"granule": granule}),
        hrefs={},
        subtract=0,
        baseline="05.09",
        provider="earth-search",
    )


def _scenes(*scenes: Scene, removed: tuple[Removed, ...] = ()) -> Scenes:
    return Scenes(source="here", scenes=scenes, removed=removed)


def _removed(gone: Scene, reason: str) -> Removed:
    return Removed(
        id=f"{gone.id}_{reason}",
        reason=reason,
        detail="",
        granule=gone.grid.granule,
        datetime=gone.datetime,
        satellite=gone.satellite,
    )


def test_one_pass_tells_of_all_others_of_its_track() -> None:
    # 2019-01-05 + 10 days: 5, 15, 25 January; 4, 14, 24 February; 6, 16, 26 March.
    table = census(_scenes(scene("2019-01-05T10:43:29"), scene("2019-03-16T10:43:31")))
    assert list(table.index.names) == ["granule", "month"]
    assert list(table["expected"]) == [3, 3, 3]
    assert list(table["found"]) == [1, 0, 1]
    assert list(table["kept"]) == [1, 0, 1]


def test_a_month_can_have_four_passes() -> None:
    table = census(_scenes(scene("2019-01-01T10:43:29"), scene("2019-01-31T10:43:29")))
    assert list(table["expected"]) == [4]


def test_satellites_and_orbits_are_tracks_of_their_own() -> None:
    # Two orbits of A, 3 days apart, and one of B, 5 days after the first.
    three = [scene("2019-06-01T10:43"), scene("2019-06-04T10:53"), scene("2019-06-06T10:43", "B")]
    table = census(_scenes(*three))
    assert list(table["expected"]) == [9]
    # In the far north the next orbit sees the granule too, 100 minutes later.
    table = census(_scenes(scene("2019-06-01T10:43"), scene("2019-06-01T12:23")))
    assert list(table["expected"]) == [6]


def test_times_of_a_track_may_differ_by_minutes_across_the_turn_of_the_cycle() -> None:
    table = census(_scenes(scene("2019-06-01T10:43"), scene("2019-06-11T10:41")))
    assert list(table["expected"]) == [3]


def test_a_satellite_is_expected_only_while_it_flies() -> None:
    # B was launched on 7 March 2017.
    table = census(_scenes(scene("2017-01-05T10:43"), scene("2017-04-10T10:43", "B")))
    # A: 3, 3, 3, 3 (4, 14, 24 February; 6, 16, 26 March; 5, 15, 25 April).
    # B: 10 April back to 11, 21 and 31 March, and 10, 20 and 30 April.
    assert list(table["expected"]) == [3, 3, 6, 6]


def test_sentinel_2a_moved_in_2025() -> None:
    old, new = scene("2024-12-05T10:43"), scene("2025-04-09T10:43")
    table = census(_scenes(old, new))
    # Old position: 5, 15, 25 December, 4 and 14 January; new: 20 and 30 March, 9, 19, 29 April.
    assert list(table["expected"]) == [3, 2, 0, 2, 3]
    c = census(_scenes(scene("2024-12-10T10:43", "A"), scene("2025-02-08T10:43", "C")))
    # A: 10, 20, 30 December, 9 and 19 January; C: 29 January, 8, 18, 28 February.
    assert list(c["expected"]) == [3, 3, 3]


def test_an_unknown_satellite_is_expected_between_its_first_and_last_scene() -> None:
    seen = [scene("2019-01-05T10:43", "X"), scene("2019-03-16T10:43", "X")]
    assert list(census(_scenes(*seen))["expected"]) == [3, 3, 2]


def test_removed_items_are_counted_by_reason() -> None:
    kept, refused = scene("2019-01-05T10:43"), scene("2019-01-15T10:43")
    notes = (
        _removed(kept, "duplicate"),  # of a pass that is there
        _removed(refused, "refused"),
        Removed(id="nowhere", reason="refused", detail="it has no datetime"),
        _removed(scene("2019-01-15T10:43", granule="31TDJ"), "refused"),  # no scene of 31TDJ
    )
    table = census(_scenes(kept, removed=notes))
    row = table.loc[(GRANULE, pd.Period("2019-01"))]
    assert row.to_dict() == {"expected": 3, "found": 2, "kept": 1, "duplicate": 1, "refused": 1}
    assert len(table) == 1


def test_parts_are_one_pass() -> None:
    one, two = scene("2019-01-05T10:43:29"), scene("2019-01-05T10:43:44")
    table = census(_scenes(one, two, removed=(_removed(two, "part"),)))
    assert table.iloc[0].to_dict() == {"expected": 3, "found": 1, "kept": 1, "part": 1}


def test_the_text_shows_months_without_anything() -> None:
    table = census(_scenes(scene("2019-01-05T10:43:29"), scene("2019-03-16T10:43:31")))
    head, line = census_text(table).splitlines()
    assert head.split() == ["2019-01", "2019-02", "2019-03"]
    assert line.split() == [GRANULE, "1/3", "0/3", "1/3"]


@settings(max_examples=50)
@given(
    start=st.datetimes(pd.Timestamp("2018-01-01"), pd.Timestamp("2020-01-01")),
    taken=st.sets(st.integers(0, 40), min_size=1),
    jitter=st.integers(-60, 60),
)
def test_of_a_complete_track_all_that_was_not_taken_is_missing(start, taken, jitter) -> None:
    first = pd.Timestamp(start).floor("s")
    passes = [first + pd.Timedelta(10 * n, "D") for n in range(41)]
    # Not in the last minutes of a day: jitter must not move a pass to another month.
    shift = pd.Timedelta(jitter if 1 <= first.hour <= 22 else 0, "s")
    found = [passes[n] + (shift if n % 2 else pd.Timedelta(0)) for n in sorted(taken)]
    table = census(_scenes(*map(scene, found)))
    months = pd.PeriodIndex(passes, freq="M")
    shown = table.loc[GRANULE]
    inner = (months >= shown.index[0]) & (months <= shown.index[-1])
    by_month = pd.Series(1, index=months[inner]).groupby(level=0).sum()
    # The first and last month may hold passes before the first and after the last of the 41.
    for month in shown.index[1:-1]:
        assert shown.loc[month, "expected"] == by_month[month]
    assert shown["found"].sum() == len(taken)


@pytest.mark.real
def test_a_real_archive_of_two_orbits_and_two_satellites(real_data) -> None:
    items = real_data / "archive" / "flanders-2018" / "items.json"
    recipe = Recipe(bands=("blue",), start="2017-08", end="2018-11")
    found = search((3.0, 50.8, 3.8, 51.3), recipe, items)
    table = census(found)
    # Granule 31UDS lies in orbits 51 and 94, of A and B: 12 passes in 30 days.
    assert set(table["expected"]) <= {11, 12, 13}
    assert table["found"].sum() == len(found)
    assert (table["found"] <= table["expected"]).all()


def test_what_was_found_and_cannot_be_read_is_told(tmp_path) -> None:
    archive = write_archive(tmp_path, ["2023-01-05", "2023-01-15", "2023-02-04"], ("blue",))
    gone, damaged, _ = archive.scenes
    (tmp_path / gone.id / "SCL.tif").unlink()
    (tmp_path / damaged.id / "SCL.tif").write_bytes(b"<html>")
    faults = unreadable(archive.scenes)
    assert {(fault.item, fault.kind) for fault in faults} == {
        (gone.id, "missing"),
        (damaged.id, "corrupt"),
    }
    table = census(archive.scenes, faults)
    assert table["readable"].tolist() == [0, 1]
    assert table["found"].tolist() == [2, 1]
    assert "0/2/" in census_text(table)
